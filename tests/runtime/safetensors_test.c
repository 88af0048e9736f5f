/* safetensors: round trips, and what the writer refuses. */
#include "runtime/files.h"

#include <fcntl.h>
#include <limits.h>
#include <math.h>
#include <setjmp.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "tests/support/folder.h"

static const char *path(void)
{
    return aq_test_path("x.safetensors");
}

static AqStatus fill_squares(void *context, uint64_t begin, void *out,
                             size_t bytes, AqError *error)
{
    (void)error;
    int *calls = context;
    ++*calls;
    assert_true(begin % 8 == 0 && bytes % 8 == 0 && bytes <= 1 << 20);
    for (size_t i = 0; i < bytes / 8; i++) {
        uint64_t index = begin / 8 + i;
        double square = (double)(index * index);
        memcpy((char *)out + i * 8, &square, 8);
    }
    return AQ_OK;
}

static const float some_floats[6] = {0, -1.5f, 3e38f, 1e-40f, INFINITY, 7};
static const int64_t some_ints[3] = {-5, INT64_MAX, INT64_MIN};
static const uint16_t halves[6] = {0x3c00, 0xc000, 0x7bff, 0x0001, 0xfc00, 0};
static const uint16_t brains[2] = {0x3f80, 0xc2c8};
static const uint8_t flags[3] = {0, 1, 255};
enum { SQUARES = 200001 }; /* more than one piece */

static AqStatus write_sample(int *calls, AqError *error)
{
    const AqTensorEntry entries[] = {
        {.name = "z.flags",
         .type = AQ_STORED_U8,
         .rank = 1,
         .shape = {3},
         .data = flags},
        {.name = "floats",
         .type = AQ_STORED_F32,
         .rank = 2,
         .shape = {2, 3},
         .data = some_floats},
        {.name = "halves",
         .type = AQ_STORED_F16,
         .rank = 1,
         .shape = {6},
         .data = halves},
        {.name = "brains",
         .type = AQ_STORED_BF16,
         .rank = 1,
         .shape = {2},
         .data = brains},
        {.name = "ints",
         .type = AQ_STORED_I64,
         .rank = 1,
         .shape = {3},
         .data = some_ints},
        {.name = "empty", .type = AQ_STORED_F32, .rank = 2, .shape = {0, 9}},
        {.name = "scalar", .type = AQ_STORED_F32, .data = some_floats + 5},
        {.name = "squares",
         .type = AQ_STORED_F64,
         .rank = 1,
         .shape = {SQUARES},
         .fill = fill_squares,
         .context = calls},
    };
    const AqMetadata metadata[] = {{"format", "pt"}, {"note", "a \"b\" \n"}};
    return aq_tensors_write(path(), entries, AQ_COUNT(entries), metadata, 2,
                            error);
}

static float *floats_of(const AqTensorFile *f, const char *name, int64_t count)
{
    AqError error = {0};
    const AqTensorInfo *t = aq_tensors_find(f, name);
    assert_non_null(t);
    assert_int_equal(t->elements, count);
    float *values = malloc((size_t)count * sizeof *values + 1);
    assert_int_equal(aq_tensors_read_floats(f, t, values, &error), AQ_OK);
    return values;
}

static void test_round_trip_values(void **state)
{
    (void)state;
    AqError error = {0};
    int calls = 0;
    assert_int_equal(write_sample(&calls, &error), AQ_OK);
    assert_int_equal(calls, 2);
    AqTensorFile *f = aq_tensors_open(path(), &error);
    assert_non_null(f);
    float *v = floats_of(f, "floats", 6);
    assert_memory_equal(v, some_floats, sizeof some_floats);
    free(v);
    v = floats_of(f, "squares", SQUARES);
    for (int i = 0; i < SQUARES; i++)
        assert_true(v[i] == (float)((double)i * i));
    free(v);
    v = floats_of(f, "halves", 6);
    const float expected[6] = {1, -2, 65504, 0x1p-24f, -INFINITY, 0};
    assert_memory_equal(v, expected, sizeof expected);
    free(v);
    v = floats_of(f, "brains", 2);
    assert_true(v[0] == 1 && v[1] == -100);
    free(v);
    v = floats_of(f, "scalar", 1);
    assert_true(v[0] == 7);
    free(v);
    free(floats_of(f, "empty", 0));
    aq_tensors_close(f);
}

static void test_round_trip_integers(void **state)
{
    (void)state;
    AqError error = {0};
    int calls = 0;
    int64_t v[3];
    assert_int_equal(write_sample(&calls, &error), AQ_OK);
    AqTensorFile *f = aq_tensors_open(path(), &error);
    const AqTensorInfo *ints = aq_tensors_find(f, "ints");
    assert_int_equal(aq_tensors_read_ints(f, ints, v, &error), AQ_OK);
    assert_memory_equal(v, some_ints, sizeof v);
    const AqTensorInfo *t = aq_tensors_find(f, "z.flags");
    assert_int_equal(aq_tensors_read_ints(f, t, v, &error), AQ_OK);
    assert_true(v[0] == 0 && v[1] == 1 && v[2] == 255);
    uint8_t byte = 0;
    assert_int_equal(aq_tensors_read_bytes(f, t, 2, &byte, 1, &error), AQ_OK);
    assert_int_equal(byte, 255);
    assert_int_equal(aq_tensors_read_bytes(f, t, 2, v, 2, &error), AQ_INTERNAL);
    assert_non_null(
        strstr(error.text, "bytes outside tensor 'z.flags' were asked for"));
    error = (AqError){0};
    t = aq_tensors_find(f, "scalar");
    assert_int_equal(aq_tensors_read_ints(f, t, v, &error), AQ_UNSUPPORTED);
    assert_non_null(strstr(error.text, "tensor 'scalar' is F32 and "
                                       "cannot be read as integers"));
    aq_tensors_close(f);
}

/* Aligned data, the order promised, `{` first, metadata kept. */
static void test_layout(void **state)
{
    (void)state;
    AqError error = {0};
    int calls = 0;
    assert_int_equal(write_sample(&calls, &error), AQ_OK);
    AqTensorFile *f = aq_tensors_open(path(), &error);
    const char *const order[] = {"ints",   "squares", "empty",  "floats",
                                 "scalar", "brains",  "halves", "z.flags"};
    assert_int_equal(aq_tensors_count(f), AQ_COUNT(order));
    for (int i = 0; i < AQ_COUNT(order); i++) {
        const AqTensorInfo *t = aq_tensors_at(f, i);
        assert_string_equal(t->name, order[i]);
        assert_int_equal(t->offset % (uint64_t)(aq_stored_bits(t->type) / 8),
                         0);
    }
    assert_null(aq_tensors_find(f, "nobody"));
    assert_string_equal(aq_tensors_metadata(f, "format"), "pt");
    assert_string_equal(aq_tensors_metadata(f, "note"), "a \"b\" \n");
    assert_null(aq_tensors_metadata(f, "x"));
    aq_tensors_close(f);
    char *data;
    size_t bytes;
    assert_int_equal(aq_file_read(path(), 1 << 22, &data, &bytes, &error),
                     AQ_OK);
    assert_int_equal(data[8], '{');
    free(data);
}

static void test_shrinking(void **state)
{
    (void)state;
    AqError error = {0};
    int calls = 0;
    assert_int_equal(write_sample(&calls, &error), AQ_OK);
    AqTensorFile *f = aq_tensors_open(path(), &error);
    assert_int_equal(truncate(path(), 2000), 0);
    const AqTensorInfo *t = aq_tensors_find(f, "squares");
    float *v = malloc(SQUARES * sizeof *v);
    assert_int_equal(aq_tensors_read_floats(f, t, v, &error), AQ_IO);
    assert_non_null(strstr(error.text, "shorter"));
    free(v);
    aq_tensors_close(f);
}

static AqStatus fill_badly(void *context, uint64_t begin, void *out,
                           size_t bytes, AqError *error)
{
    (void)context;
    (void)begin;
    (void)out;
    (void)bytes;
    return aq_fail(error, AQ_INTERRUPTED, "no more");
}

static void test_writer_refuses(void **state)
{
    (void)state;
    AqError error = {0};
    AqTensorEntry e[2] = {
        {.name = "a", .type = AQ_STORED_F32, .fill = fill_badly},
        {.name = "a", .type = AQ_STORED_F32, .data = some_floats},
    };
    assert_int_equal(aq_file_write(path(), "\2\0\0\0\0\0\0\0{}", 10, &error),
                     AQ_OK);
    assert_int_equal(aq_tensors_write(path(), e, 2, NULL, 0, &error),
                     AQ_INTERNAL);
    assert_non_null(strstr(error.text, "a tensor's name is there twice or"));
    error = (AqError){0};
    assert_int_equal(aq_tensors_write(path(), e, 1, NULL, 0, &error),
                     AQ_INTERRUPTED);
    error = (AqError){0};
    AqTensorFile *old = aq_tensors_open(path(), &error);
    assert_non_null(old); /* the old file stands */
    aq_tensors_close(old);
    e[0] = (AqTensorEntry){.name = "x",
                           .type = AQ_STORED_F32,
                           .rank = 2,
                           .shape = {INT64_MAX, 2},
                           .data = some_floats};
    assert_int_equal(aq_tensors_write(path(), e, 1, NULL, 0, &error),
                     AQ_INTERNAL);
    assert_non_null(strstr(error.text, "tensor 'x' of F32 cannot be written: "
                                       "its shape, name or values are wrong"));
    error = (AqError){0};
    assert_int_equal(aq_tensors_write("/nowhere/x", e + 1, 1, NULL, 0, &error),
                     AQ_IO);
}

/* Together: each alone could be written. */
static void test_writer_refuses_what_is_too_much(void **state)
{
    (void)state;
    enum { MANY = 20000 };
    AqError error = {0};
    AqTensorEntry huge[2];
    for (int i = 0; i < 2; i++)
        huge[i] = (AqTensorEntry){.name = i ? "a" : "b",
                                  .type = AQ_STORED_U8,
                                  .rank = 1,
                                  .shape = {INT64_MAX},
                                  .data = flags};
    assert_int_equal(aq_tensors_write(path(), huge, 2, NULL, 0, &error),
                     AQ_INTERNAL);
    assert_non_null(strstr(error.text, "the tensors' size overflows"));
    AqTensorEntry *many = calloc(MANY, sizeof *many);
    char(*names)[501] = malloc(MANY * sizeof *names);
    for (int i = 0; i < MANY; i++) {
        snprintf(names[i], sizeof names[i], "%0500d", i);
        many[i] = (AqTensorEntry){
            .name = names[i], .type = AQ_STORED_F32, .data = some_floats};
    }
    error = (AqError){0};
    assert_int_equal(aq_tensors_write(path(), many, MANY, NULL, 0, &error),
                     AQ_UNSUPPORTED);
    assert_non_null(
        strstr(error.text, "the header would be longer than 8 MiB"));
    free(names);
    free(many);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_round_trip_values),
        cmocka_unit_test(test_round_trip_integers),
        cmocka_unit_test(test_layout),
        cmocka_unit_test(test_shrinking),
        cmocka_unit_test(test_writer_refuses),
        cmocka_unit_test(test_writer_refuses_what_is_too_much),
    };
    return cmocka_run_group_tests(tests, aq_test_make_folder,
                                  aq_test_remove_folder);
}
