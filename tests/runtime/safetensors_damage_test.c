/* safetensors: files made to break a reader, and those that it must take. */
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

static void write_bytes(const void *data, size_t bytes)
{
    AqError error = {0};
    assert_int_equal(aq_file_write(path(), data, bytes, &error), AQ_OK);
}

/* Header text, its stated length (-1: the true one), and zeros as values. */
static void write_file(const char *header, long long stated, size_t values)
{
    size_t length = strlen(header), bytes = 8 + length + values;
    char *all = calloc(1, bytes);
    uint64_t n = stated < 0 ? length : (uint64_t)stated;
    memcpy(all, &n, 8);
    for (size_t i = 0; i < length; i++)
        all[8 + i] = header[i];
    write_bytes(all, bytes);
    free(all);
}

static bool opens(AqError *error)
{
    *error = (AqError){0};
    AqTensorFile *f = aq_tensors_open(path(), error);
    assert_true((f == NULL) == (error->status != AQ_OK));
    aq_tensors_close(f);
    return f != NULL;
}

/* ---- what must be refused ---- */

#define A "\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]}"
#define B(shape, offsets)                                                      \
    "\"b\":{\"dtype\":\"F32\",\"shape\":" shape ",\"data_offsets\":" offsets "}"

typedef struct Case {
    const char *header;
    size_t values;
    const char *sentence;
} Case;

static const Case refused[] = {
    {"", 0, "no JSON object"},
    {"[]", 0, "no JSON object: something else stands there"},
    {"{", 0, "no JSON object"},
    {"{}x", 0, "no JSON object"},
    {"{" A "}", 7, "outside the file"},
    {"{" A "}", 17, "9 bytes at its end"},
    {"{}", 9, "9 bytes at its end"},
    {"{" A "," A "}", 8, "duplicate"},
    {"{" A ",\"b\":{\"dtype\":\"F32\",\"dtype\":\"F32\",\"shape\":[2],"
     "\"data_offsets\":[8,16]}}",
     16, "duplicate"},
    {"{" A "," B("[2]", "[0,8]") "}", 8, "overlaps"},
    {"{" A "," B("[2]", "[4,12]") "}", 12, "overlaps"},
    {"{" A "," B("[2]", "[12,20]") "}", 20, "there is a hole before tensor"},
    {"{" B("[2]", "[4,12]") "}", 12, "hole"},
    {"{" A "," B("[0]", "[4,4]") "}", 8, "overlaps"},
    {"{" B("[2]", "[8,0]") "}", 8, "outside"},
    {"{" B("[2]", "[-8,0]") "}", 8, "outside"},
    {"{" B("[2]", "[0,9223372036854775807]") "}", 8, "outside"},
    {"{" B("[2]", "[0,18446744073709551616]") "}", 8, "no JSON object"},
    {"{" B("[2]", "[0,8.0]") "}", 8, "two whole numbers"},
    {"{" B("[2]", "[0,8e0]") "}", 8, "two whole numbers"},
    {"{" B("[2]", "[0]") "}", 8, "two whole numbers"},
    {"{" B("[2]", "[0,8,8]") "}", 8, "two whole numbers"},
    {"{" B("[2]", "{}") "}", 8, "two whole numbers"},
    {"{" B("[2]", "[0,\"8\"]") "}", 8, "two whole numbers"},
    {"{" B("[3]", "[0,8]") "}", 8,
     "needs 96 bits but its data_offsets hold 8 bytes"},
    {"{" B("[1]", "[0,8]") "}", 8, "needs 32 bits"},
    {"{" B("[2.0]", "[0,8]") "}", 8, "whole numbers"},
    {"{" B("[02]", "[0,8]") "}", 8, "no JSON object"},
    {"{" B("[-2]", "[0,8]") "}", 8, "whole numbers"},
    {"{" B("2", "[0,8]") "}", 8, "not a list"},
    {"{" B("[2,18446744073709551614]", "[0,8]") "}", 8, "no JSON object"},
    {"{" B("[2,9223372036854775807]", "[0,8]") "}", 8, "overflows"},
    {"{" B("[4194305,4194305,211106198978564]", "[0,16]") "}", 16, "overflows"},
    {"{" B("[2305843009213693952]", "[0,0]") "}", 0, "overflows"},
    {"{" B("[1,1,1,1,1,1,1,1,2]", "[0,8]") "}", 8, "dimensions"},
    {"{\"b\":{\"dtype\":\"F31\",\"shape\":[2],\"data_offsets\":[0,8]}}", 8,
     "unknown dtype 'F31'"},
    {"{\"b\":{\"dtype\":5,\"shape\":[2],\"data_offsets\":[0,8]}}", 8,
     "not a string"},
    {"{\"b\":{\"dtype\":\"F32\",\"shape\":[2]}}", 0, "exactly"},
    {"{\"b\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8],\"x\":1}}",
     8, "exactly"},
    {"{\"b\":[]}", 0, "exactly"},
    {"{\"b\":{\"dtype\":\"F4\",\"shape\":[3],\"data_offsets\":[0,2]}}", 2,
     "needs 12 bits"},
    {"{\"__metadata__\":[]}", 0, "__metadata__"},
    {"{\"__metadata__\":{\"a\":1}}", 0, "__metadata__"},
    {"{\"__metadata__\":{\"a\":\"1\",\"a\":\"2\"}}", 0, "duplicate"},
    {"{\"\xff\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]}}", 8,
     "no JSON object"},
    {"{\"b\\u0000\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]}}",
     8, "no JSON object"},
    {"{\"b\\u001b\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]}}",
     8, "control characters"},
};

static void test_refused(void **state)
{
    (void)state;
    for (int i = 0; i < AQ_COUNT(refused); i++) {
        AqError error;
        write_file(refused[i].header, -1, refused[i].values);
        if (opens(&error))
            fail_msg("accepted: %s", refused[i].header);
        if (!strstr(error.text, refused[i].sentence))
            fail_msg("%s\nsays: %s", refused[i].header, error.text);
        assert_non_null(strstr(error.text, path()));
        assert_int_equal(error.status, AQ_BAD_INPUT);
    }
}

static void test_header_length(void **state)
{
    (void)state;
    const long long stated[] = {3, 4, 1 << 20, 100000001, LLONG_MAX};
    AqError error;
    for (int i = 0; i < AQ_COUNT(stated); i++) {
        write_file("{}", stated[i], 0);
        assert_false(opens(&error));
        assert_non_null(strstr(error.text, "its header says"));
    }
    write_file("{}", 0, 0);
    assert_false(opens(&error));
    for (size_t n = 0; n < 8; n++) {
        char sentence[40];
        snprintf(sentence, sizeof sentence, "it has only %zu bytes", n);
        write_bytes("\2\0\0\0\0\0\0", n);
        assert_false(opens(&error));
        assert_non_null(strstr(error.text, sentence));
    }
    unsigned char most[10] = {255, 255, 255, 255, 255, 255, 255, 255, '{', '}'};
    write_bytes(most, sizeof most);
    assert_false(opens(&error));
    /* longer than allowed, though true */
    size_t length = (8 << 20) + 1;
    char *blanks = malloc(length + 1);
    memset(blanks, ' ', length);
    memcpy(blanks, "{}", 2);
    blanks[length] = 0;
    write_file(blanks, -1, 0);
    assert_false(opens(&error));
    assert_non_null(strstr(error.text, "longer than 8 MiB"));
    blanks[length - 1] = 0;
    write_file(blanks, -1, 0);
    assert_true(opens(&error));
    free(blanks);
}

/* Many tensors on one range; too many tensors; a long name; deep lists. */
static void test_large_headers(void **state)
{
    (void)state;
    AqError error;
    AqText text = {0};
    aq_text_add(&text, "{");
    for (int i = 0; i < 65537; i++)
        aq_text_printf(&text,
                       "%s\"t%d\":{\"dtype\":\"F32\",\"shape\":[200,200],"
                       "\"data_offsets\":[0,160000]}",
                       i ? "," : "", i);
    aq_text_add(&text, "}");
    write_file(text.data, -1, 160000);
    assert_false(opens(&error));
    assert_non_null(strstr(error.text, "more than 65536 tensors"));

    text.length = 0;
    aq_text_add(&text, "{\"");
    for (int i = 0; i < 513; i++)
        aq_text_add(&text, "n");
    aq_text_add(&text, "\":{\"dtype\":\"U8\",\"shape\":[],"
                       "\"data_offsets\":[0,1]}}");
    write_file(text.data, -1, 1);
    assert_false(opens(&error));
    assert_non_null(strstr(error.text, "longer than 512"));

    text.length = 0;
    for (int i = 0; i < 100000; i++)
        aq_text_add(&text, "[");
    write_file(text.data, -1, 0);
    assert_false(opens(&error));
    aq_text_free(&text);
}

static void test_no_file(void **state)
{
    (void)state;
    AqError error = {0};
    assert_null(aq_tensors_open("/nowhere/x.safetensors", &error));
    assert_int_equal(error.status, AQ_IO);
    error = (AqError){0};
    assert_null(aq_tensors_open(aq_test_folder, &error));
    assert_non_null(strstr(error.text, "regular file"));
}

/* ---- what must be read ---- */

static void test_accepted(void **state)
{
    (void)state;
    AqError error;
    const Case good[] = {
        {"{}", 0, ""},
        {"  {" A "}   \n", 8, ""},
        {"{" A "}", 16, "8 trailing bytes"},
        {"{" A "," B("[0]", "[8,8]") "}", 8, "empty at the end"},
        {"{" A "," B("[5,0]", "[0,0]") "}", 8, "empty at the beginning"},
        {"{\"b\":{\"dtype\":\"F4\",\"shape\":[4],\"data_offsets\":[0,2]}}", 2,
         ""},
    };
    for (int i = 0; i < AQ_COUNT(good); i++) {
        write_file(good[i].header, -1, good[i].values);
        if (!opens(&error))
            fail_msg("%s: %s", good[i].header, error.text);
    }
}

/* ---- damage ---- */

/* A prefix is refused unless it only lost trailing bytes: here none. */
static void test_truncations(void **state)
{
    (void)state;
    AqError error = {0};
    const float floats[6] = {0, -1.5f, 3e38f, 1e-40f, INFINITY, 7};
    const uint8_t flags[3] = {0, 1, 255};
    const AqTensorEntry entries[] = {
        {.name = "a",
         .type = AQ_STORED_F32,
         .rank = 1,
         .shape = {6},
         .data = floats},
        {.name = "b",
         .type = AQ_STORED_U8,
         .rank = 1,
         .shape = {3},
         .data = flags},
    };
    assert_int_equal(aq_tensors_write(path(), entries, 2, NULL, 0, &error),
                     AQ_OK);
    char *data;
    size_t bytes;
    assert_int_equal(aq_file_read(path(), 1 << 20, &data, &bytes, &error),
                     AQ_OK);
    assert_true(opens(&error));
    for (size_t n = 0; n < bytes; n++) {
        write_bytes(data, n);
        assert_false(opens(&error));
    }
    free(data);
}

/* In place: to truncate a file and write it again costs a sync. */
static void write_over(const char *data, size_t bytes)
{
    int file = open(path(), O_WRONLY);
    assert_int_equal(pwrite(file, data, bytes, 0), bytes);
    close(file);
}

/* Single bytes of the header changed at random: what still opens can be read to
 * the last value. */
static void test_mutations(void **state)
{
    (void)state;
    AqError error = {0};
    char *data;
    size_t bytes;
    const char *header = "{" A "," B("[1,3]", "[8,20]") "}   ";
    write_file(header, -1, 20);
    assert_int_equal(aq_file_read(path(), 1 << 20, &data, &bytes, &error),
                     AQ_OK);
    uint32_t random = 7;
    int opened = 0;
    for (int i = 0; i < 4000; i++) {
        random = random * 1664525 + 1013904223;
        char *at = &data[(random >> 8) % (bytes - 20)], kept = *at;
        *at = (char)(random >> 24);
        write_over(data, bytes);
        *at = kept;
        error = (AqError){0};
        AqTensorFile *f = aq_tensors_open(path(), &error);
        assert_true((f == NULL) == (error.text[0] != 0));
        for (int k = 0; f && k < aq_tensors_count(f); k++) {
            const AqTensorInfo *t = aq_tensors_at(f, k);
            char value[20];
            assert_true(t->bytes <= sizeof value);
            assert_int_equal(
                aq_tensors_read_bytes(f, t, 0, value, t->bytes, &error), AQ_OK);
        }
        opened += f != NULL;
        aq_tensors_close(f);
    }
    assert_in_range(opened, 1, 2000);
    free(data);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_refused),
        cmocka_unit_test(test_header_length),
        cmocka_unit_test(test_large_headers),
        cmocka_unit_test(test_no_file),
        cmocka_unit_test(test_accepted),
        cmocka_unit_test(test_truncations),
        cmocka_unit_test(test_mutations),
    };
    return cmocka_run_group_tests(tests, aq_test_make_folder,
                                  aq_test_remove_folder);
}
