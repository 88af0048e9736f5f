/* Checkpoints: there and back bit for bit, and what happens when the disk
 * lies. */
#include "runtime/run.h"

#include <fcntl.h>
#include <math.h>
#include <setjmp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "tests/support/folder.h"
#include "tests/support/models.h"
#include "tests/support/saved.h"

/* ---- there and back ---- */

static void test_there_and_back(void **state)
{
    (void)state;
    AqSaved s = aq_saved_new("round", 3, 4);
    aq_saved_fill(&s, 12);
    aq_saved_must_write(&s);
    aq_saved_check(&s, 12);
    aq_saved_fill(&s, 1234567); /* more digits than names have */
    aq_saved_must_write(&s);
    aq_saved_check(&s, 1234567);
    aq_saved_fill(&s, 999999);
    aq_saved_must_write(&s);
    aq_saved_check(&s, 1234567); /* still the latest */
    assert_int_equal(aq_saved_entries(s.folder, true), 0);
    aq_saved_free(&s);
}

static void test_the_same_step_again(void **state)
{
    (void)state;
    AqSaved s = aq_saved_new("again", 3, 4);
    aq_saved_fill(&s, 12);
    aq_saved_must_write(&s);
    aq_saved_fill(&s, 50);
    s.state.step = 12;
    s.state.updates = 11;
    aq_saved_must_write(&s);
    assert_int_equal(aq_saved_entries(s.folder, false), 1);
    assert_int_equal(aq_saved_entries(s.folder, true), 0);
    AqError error = {0};
    AqCheckpoint read;
    assert_int_equal(aq_saved_read(&s, &read, &error), AQ_OK);
    assert_memory_equal(&read, &s.state, sizeof read); /* the new one */
    aq_saved_free(&s);
}

/* The flat arrays that a training step keeps, by name. */
static int flat_states(const AqGraph *graph, int64_t floats, const char **names,
                       int most)
{
    int count = 0;
    for (AqId id = 0; id < graph->count; id++) {
        const AqNode *node = aq_node(graph, id);
        if (node->op != AQ_OP_state || aq_elements(&node->type) != floats)
            continue;
        assert_true(count < most);
        names[count++] = aq_attr_text(node, AQ_KEY_NAME, "");
    }
    return count;
}

/* Sets array number i of the memory, or checks that it was set. */
static void each_number(const AqMemory *memory, const AqParamTable *params,
                        const char *name, int i, bool set)
{
    float *array = aq_memory_find(memory, name, NULL);
    for (int p = 0; p < params->count; p++)
        for (int64_t k = 0; k < aq_elements(&params->at[p].type); k++) {
            float *at = &array[params->at[p].offset + k];
            float wanted = (float)(i + 1) + (float)k / 4096;
            if (set)
                *at = wanted;
            else if (*at != wanted)
                fail_msg("%s[%lld] is %g", name, (long long)k, (double)*at);
        }
}

/* All that an optimizer keeps comes back. */
static void test_every_optimizer(void **state)
{
    (void)state;
    static const AqOptimizer optimizers[] = {
        {.kind = AQ_ADAMW, .ema = 0.9},
        {.kind = AQ_SGD, .momentum = 0.9},
        {.kind = AQ_RMSPROP, .momentum = 0.9, .centered = true, .ema = 0.9},
        {.kind = AQ_ADAGRAD},
    };
    for (int i = 0; i < AQ_COUNT(optimizers); i++) {
        AqError error = {0};
        AqGraph *g = aq_test_training("mlp2d", NULL, 0,
                                      (AqTask){.batch = 2, .channels = 2},
                                      optimizers[i]);
        AqSaved s = {.graph = g,
                     .params = aq_params(g),
                     .memory = aq_memory_new(&error),
                     .state = {.step = i + 1}};
        snprintf(s.folder, sizeof s.folder, "%s", aq_test_path("optimizers"));
        const char *names[8];
        int count = flat_states(g, s.params->floats, names, AQ_COUNT(names));
        for (int k = 0; k < count; k++) {
            assert_non_null(aq_memory_array(s.memory, names[k],
                                            s.params->floats * 4, &error));
            each_number(s.memory, s.params, names[k], k, true);
        }
        aq_saved_must_write(&s);
        for (int k = 0; k < count; k++)
            memset(aq_memory_find(s.memory, names[k], NULL), 0,
                   (size_t)s.params->floats * 4);
        AqCheckpoint read;
        if (aq_saved_read(&s, &read, &error))
            fail_msg("%s", error.text);
        for (int k = 0; k < count; k++)
            each_number(s.memory, s.params, names[k], k, false);
        aq_saved_free(&s);
    }
}

static void test_no_loss_yet(void **state)
{
    (void)state;
    AqError error = {0};
    AqCheckpoint read;
    AqSaved s = aq_saved_new("begin", 3, 4);
    aq_saved_fill(&s, 0);
    s.state = (AqCheckpoint){.loss = NAN};
    aq_saved_must_write(&s);
    assert_int_equal(aq_saved_read(&s, &read, &error), AQ_OK);
    assert_true(isnan(read.loss));
    assert_int_equal(read.step, 0);
    aq_saved_free(&s);
}

static void test_names_and_layouts_are_pytorch_s(void **state)
{
    (void)state;
    AqError error = {0};
    AqSaved s = aq_saved_new("names", 3, 4);
    aq_saved_fill(&s, 1);
    aq_saved_must_write(&s);
    char path[300], file[400];
    aq_saved_latest(&s, path);
    snprintf(file, sizeof file, "%s/weights.safetensors", path);
    AqTensorFile *weights = aq_tensors_open(file, &error);
    assert_non_null(weights);
    const AqTensorInfo *conv = aq_tensors_find(weights, "conv_in.weight");
    assert_non_null(conv); /* OIHW, where ours is HWIO */
    const int64_t shape[] = {3, 2, 3, 3};
    assert_int_equal(conv->rank, 4);
    assert_memory_equal(conv->shape, shape, sizeof shape);
    float values[54];
    aq_tensors_read_floats(weights, conv, values, &error);
    const float *array = aq_memory_find(s.memory, "weights", NULL);
    const AqParamInfo *ours = &s.params->at[0];
    for (int i = 0; i < s.params->count; i++)
        if (!strcmp(s.params->at[i].name, "conv_in.weight"))
            ours = &s.params->at[i];
    for (int o = 0; o < 3; o++)
        for (int i = 0; i < 2; i++)
            for (int h = 0; h < 3; h++)
                for (int w = 0; w < 3; w++)
                    assert_true(
                        values[((o * 2 + i) * 3 + h) * 3 + w] ==
                        array[ours->offset + ((h * 3 + w) * 2 + i) * 3 + o]);
    const AqTensorInfo *linear = aq_tensors_find(weights, "mid.0.weight");
    assert_non_null(linear);
    assert_int_equal(linear->shape[0], 5);
    assert_int_equal(linear->shape[1], 3);
    aq_tensors_close(weights);
    snprintf(file, sizeof file, "%s/optimizer.safetensors", path);
    AqTensorFile *optimizer = aq_tensors_open(file, &error);
    assert_non_null(aq_tensors_find(optimizer, "m.conv_in.weight"));
    assert_non_null(aq_tensors_find(optimizer, "v.mid.0.bias"));
    aq_tensors_close(optimizer);
    aq_saved_free(&s);
}

static void test_one_array_alone(void **state)
{
    (void)state;
    AqError error = {0};
    AqSaved s = aq_saved_new("alone", 3, 4), one = aq_saved_new("alone", 3, 0);
    aq_saved_fill(&s, 6);
    aq_saved_must_write(&s);
    float *ema =
        aq_memory_array(one.memory, "ema", s.params->floats * 4, &error);
    AqCheckpoint read;
    assert_int_equal(aq_saved_read(&one, &read, &error), AQ_OK);
    assert_memory_equal(ema, aq_memory_find(s.memory, "ema", NULL),
                        (size_t)s.params->floats * 4);
    aq_saved_free(&one);
    aq_saved_free(&s);
}

static void refuse_latest(AqSaved *s, const char *piece)
{
    AqError error = {0};
    AqCheckpoint read;
    if (aq_saved_read(s, &read, &error) == AQ_OK)
        fail_msg("read what should be refused with: %s", piece);
    if (!strstr(error.text, piece))
        fail_msg("expected \"%s\" in \"%s\"", piece, error.text);
}

static void test_another_model(void **state)
{
    (void)state;
    AqSaved s = aq_saved_new("other", 3, 4),
            wider = aq_saved_new("other", 4, 4),
            sgd = aq_saved_new("other", 3, 2);
    aq_saved_fill(&s, 6);
    aq_saved_must_write(&s);
    refuse_latest(&wider, "conv_in.weight has another shape or type; the "
                          "checkpoint belongs to another model");
    refuse_latest(&sgd, "optimizer.safetensors: holds 8 tensors instead of 4; "
                        "the checkpoint belongs to another model or optimizer");
    aq_saved_free(&sgd);
    aq_saved_free(&wider);
    aq_saved_free(&s);
}

static void test_missing(void **state)
{
    (void)state;
    AqSaved s = aq_saved_new("missing", 3, 4);
    char path[300], file[400];
    aq_saved_latest(&s, path);
    assert_string_equal(path, "");
    const char *const files[] = {"weights", "ema", "optimizer"};
    for (int i = 0; i < AQ_COUNT(files); i++) {
        aq_saved_fill(&s, i + 1);
        aq_saved_must_write(&s);
        aq_saved_latest(&s, path);
        snprintf(file, sizeof file, "%s/%s.safetensors", path, files[i]);
        assert_int_equal(unlink(file), 0);
        refuse_latest(&s, "cannot open");
    }
    snprintf(file, sizeof file, "%s/state.json", path);
    assert_int_equal(unlink(file), 0);
    refuse_latest(&s, "state.json: cannot open: No such file");
    AqError error = {0};
    AqArena *arena = aq_arena_new(); /* nothing there is no error */
    assert_null(aq_checkpoint_latest("/nowhere/at/all", arena, &error));
    assert_int_equal(error.status, AQ_OK);
    aq_arena_free(arena);
    aq_saved_free(&s);
}

static void test_prune(void **state)
{
    (void)state;
    AqSaved s = aq_saved_new("prune", 3, 1);
    char path[300];
    for (int step = 1; step <= 5; step++) {
        aq_saved_fill(&s, step * 400000);
        aq_saved_must_write(&s);
    }
    snprintf(path, sizeof path, "%s/.000007.part", s.folder);
    assert_int_equal(mkdir(path, 0755), 0); /* of a process killed */
    snprintf(path, sizeof path, "%s/notes", s.folder);
    assert_int_equal(mkdir(path, 0755), 0); /* the user's */
    aq_checkpoint_prune(s.folder, 2);
    assert_int_equal(aq_saved_entries(s.folder, false), 3);
    assert_int_equal(aq_saved_entries(s.folder, true), 0);
    aq_saved_check(&s, 2000000);
    aq_checkpoint_prune(s.folder, 10);
    assert_int_equal(aq_saved_entries(s.folder, false), 3);
    aq_saved_free(&s);
}

/* ---- bits that change on the disk ---- */

static const char *const all_files[] = {"state.json", "weights.safetensors",
                                        "ema.safetensors",
                                        "optimizer.safetensors"};

typedef struct Bytes {
    char path[400];
    char *data;
    size_t count;
} Bytes;

static Bytes load(const AqSaved *s, const char *name)
{
    AqError error = {0};
    Bytes b;
    char path[300];
    aq_saved_latest(s, path);
    snprintf(b.path, sizeof b.path, "%s/%s", path, name);
    assert_int_equal(aq_file_read(b.path, 1 << 20, &b.data, &b.count, &error),
                     AQ_OK);
    return b;
}

static void must_be_refused(AqSaved *s, const char *name, size_t at)
{
    AqError error = {0};
    AqCheckpoint read;
    if (aq_saved_read(s, &read, &error) == AQ_OK)
        fail_msg("%s: not noticed at byte %zu", name, at);
    assert_true(strlen(error.text) > 20);
}

/* The newest state.json with `from` as `to`, and sealed as one that was written
 * so: before its last two bytes and a quote stands the hash of everything, with
 * zeros in its own place. */
static void forge_state(const AqSaved *s, const char *from, const char *to)
{
    AqError error = {0};
    AqText text = {0};
    Bytes b = load(s, "state.json");
    char *at = strstr(b.data, from);
    assert_non_null(at);
    aq_text_printf(&text, "%.*s%s%s", (int)(at - b.data), b.data, to,
                   at + strlen(from));
    char *seal = text.data + text.length - 3 - 32;
    memset(seal, '0', 32);
    AqHash hash = aq_hash128(text.data, text.length);
    char digits[33];
    snprintf(digits, sizeof digits, "%016llx%016llx",
             (unsigned long long)hash.high, (unsigned long long)hash.low);
    memcpy(seal, digits, 32);
    assert_int_equal(aq_file_write(b.path, text.data, text.length, &error),
                     AQ_OK);
    aq_text_free(&text);
    free(b.data);
}

static void test_whole_states_of_another_kind(void **state)
{
    (void)state;
    const char *const cases[][3] = {
        {"\"format\": 1", "\"format\": 99", "is no state of a checkpoint"},
        {"\"step\": 6", "\"step\": -6", "is no state of a checkpoint"},
        {"\"updates\"", "\"upgrades\"", "is no state of a checkpoint"},
        {"\"ema.safetensors\"", "\"emma\"",
         "ema.safetensors: state.json does not name it"},
    };
    for (int i = 0; i < AQ_COUNT(cases); i++) {
        AqSaved s = aq_saved_new("forged", 3, 4);
        aq_saved_fill(&s, 6);
        aq_saved_must_write(&s);
        forge_state(&s, "\"step\": 6", "\"step\": 7"); /* sealed well */
        AqError error = {0};
        AqCheckpoint read;
        assert_int_equal(aq_saved_read(&s, &read, &error), AQ_OK);
        assert_int_equal(read.step, 7);
        aq_saved_must_write(&s);
        forge_state(&s, cases[i][0], cases[i][1]);
        refuse_latest(&s, cases[i][2]);
        aq_saved_free(&s);
    }
}

/* What stands where checkpoints should is no folder. */
static void test_files_in_the_way(void **state)
{
    (void)state;
    AqError error = {0};
    AqSaved s = aq_saved_new("way", 3, 1);
    char path[300];
    snprintf(path, sizeof path, "%s/000006", s.folder);
    assert_int_equal(aq_file_write(path, "x", 1, &error), AQ_OK);
    aq_saved_fill(&s, 6);
    assert_int_equal(aq_saved_write(&s, &error), AQ_IO);
    assert_non_null(strstr(error.text, "way/000006: cannot rename to it: Not "
                                       "a directory"));
    assert_int_equal(aq_saved_entries(s.folder, true), 0);
    error = (AqError){0};
    AqArena *arena = aq_arena_new();
    assert_null(aq_checkpoint_latest(path, arena, &error));
    assert_non_null(
        strstr(error.text, "way/000006: cannot be listed: Not a directory"));
    aq_arena_free(arena);
    aq_saved_free(&s);
}

static void test_every_flipped_byte_is_noticed(void **state)
{
    (void)state;
    AqSaved s = aq_saved_new("flip", 3, 4);
    aq_saved_fill(&s, 6);
    aq_saved_must_write(&s);
    uint64_t seed = 1;
    for (int f = 0; f < AQ_COUNT(all_files); f++) {
        Bytes b = load(&s, all_files[f]);
        int file = open(b.path, O_WRONLY, 0);
        for (size_t i = 0; i < b.count; i++) {
            seed = seed * 6364136223846793005u + 1442695040888963407u;
            char flipped = (char)(b.data[i] ^ (1 << (seed >> 61)));
            assert_int_equal(pwrite(file, &flipped, 1, (off_t)i), 1);
            must_be_refused(&s, all_files[f], i);
            assert_int_equal(pwrite(file, &b.data[i], 1, (off_t)i), 1);
        }
        close(file);
        free(b.data);
    }
    aq_saved_check(&s, 6);
    aq_saved_free(&s);
}

static void test_every_truncation_is_noticed(void **state)
{
    (void)state;
    AqSaved s = aq_saved_new("cut", 3, 4);
    aq_saved_fill(&s, 6);
    aq_saved_must_write(&s);
    for (int f = 0; f < AQ_COUNT(all_files); f++) {
        Bytes b = load(&s, all_files[f]);
        for (size_t i = b.count; i-- > 0;) {
            assert_int_equal(truncate(b.path, (off_t)i), 0);
            must_be_refused(&s, all_files[f], i);
        }
        int file = open(b.path, O_WRONLY, 0);
        assert_int_equal(pwrite(file, b.data, b.count, 0), b.count);
        assert_int_equal(pwrite(file, "", 1, (off_t)b.count), 1);
        must_be_refused(&s, all_files[f], b.count); /* one byte too many */
        assert_int_equal(ftruncate(file, (off_t)b.count), 0);
        close(file);
        free(b.data);
    }
    aq_saved_check(&s, 6);
    aq_saved_free(&s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_there_and_back),
        cmocka_unit_test(test_the_same_step_again),
        cmocka_unit_test(test_every_optimizer),
        cmocka_unit_test(test_no_loss_yet),
        cmocka_unit_test(test_names_and_layouts_are_pytorch_s),
        cmocka_unit_test(test_one_array_alone),
        cmocka_unit_test(test_another_model),
        cmocka_unit_test(test_missing),
        cmocka_unit_test(test_prune),
        cmocka_unit_test(test_whole_states_of_another_kind),
        cmocka_unit_test(test_files_in_the_way),
        cmocka_unit_test(test_every_flipped_byte_is_noticed),
        cmocka_unit_test(test_every_truncation_is_noticed),
    };
    return cmocka_run_group_tests_name("checkpoint", tests, aq_test_make_folder,
                                       aq_test_remove_folder);
}
