/* run.json: every option there and back, and nothing believed that is wrong. */
#include "runtime/run.h"

#include <jansson.h>
#include <setjmp.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "tests/support/folder.h"

static const char *run_json(void)
{
    static char path[100];
    snprintf(path, sizeof path, "%s/run.json", aq_test_folder);
    return path;
}

/* Every member has a value of its own, none its default. */
static AqRunOptions unusual(void)
{
    return (AqRunOptions){.model = "models/\"quoted\"\n\xc3\xa9.c",
                          .data = "points:moons",
                          .settings = {{"channels", "48"}, {"mults", "1,2"}},
                          .n_settings = 2,
                          .height = 0,
                          .width = 0,
                          .channels = 2,
                          .batch = 3,
                          .classes = 5,
                          .label_dropout = 0.1,
                          .flip = true,
                          .random_crop = true,
                          .process = {.schedule = AQ_COSINE,
                                      .steps = 77,
                                      .beta_start = 1.0 / 3,
                                      .beta_end = 2.0 / 3,
                                      .zero_snr = true,
                                      .prediction = AQ_VELOCITY,
                                      .min_snr = 5},
                          .optimizer = {.kind = AQ_RMSPROP,
                                        .rate = {.kind = AQ_RATE_POLYNOMIAL,
                                                 .base = 1e-4 / 3,
                                                 .warmup = 7,
                                                 .total = 1e6,
                                                 .cycles = 0.7,
                                                 .power = 1.7,
                                                 .end = 1e-9},
                                        .beta1 = 0.91,
                                        .beta2 = 0.991,
                                        .epsilon = 1e-7,
                                        .decay = 0.03,
                                        .momentum = 0.93,
                                        .nesterov = true,
                                        .alpha = 0.94,
                                        .centered = true,
                                        .rate_decay = 0.05,
                                        .clip = 1.1,
                                        .ema = 0.9991,
                                        .ema_constant = true},
                          .seed = (uint64_t)INT64_MAX,
                          .steps = 1001,
                          .save_every = 11,
                          .sample_every = 13,
                          .log_every = 17,
                          .sample_count = 19,
                          .sample_steps = 23};
}

static AqDataset *points(void)
{
    AqError error = {0};
    AqDatasetOptions any = {0};
    AqDataset *set = aq_dataset_open("points:moons", &any, &error);
    if (!set)
        fail_msg("%s", error.text);
    return set;
}

static AqStatus write_run(const AqRunOptions *options, AqError *error)
{
    AqDataset *set = points();
    AqTarget target = {.name = "x86-64-v3"};
    AqOptionSeen seen[] = {
        {"channels", "128", "48", "1 to 4096", "of the first level"}};
    AqOptions model = {.seen = seen, .n_seen = 1};
    AqStatus status =
        aq_run_write(aq_test_folder, options, set, &model, &target, error);
    aq_dataset_free(set);
    return status;
}

static void must_write(const AqRunOptions *options)
{
    AqError error = {0};
    if (write_run(options, &error))
        fail_msg("%s", error.text);
}

static void test_there_and_back(void **state)
{
    (void)state;
    AqError error = {0};
    AqArena *arena = aq_arena_new();
    AqRunOptions asked = unusual(), read;
    must_write(&asked);
    if (aq_run_read(aq_test_folder, arena, &read, &error))
        fail_msg("%s", error.text);
    assert_string_equal(read.model, asked.model);
    assert_string_equal(read.data, asked.data);
    assert_string_equal(read.target, "x86-64-v3");
    assert_int_equal(strlen(read.fingerprint), 32);
    assert_int_equal(read.n_settings, 2);
    for (int i = 0; i < 2; i++) {
        assert_string_equal(read.settings[i].name, asked.settings[i].name);
        assert_string_equal(read.settings[i].value, asked.settings[i].value);
    }
    assert_memory_equal(&read.process, &asked.process, sizeof read.process);
    assert_true(read.columns[1].half > 0);
    /* all the rest, member by member: what is text is taken out */
    read.model = asked.model;
    read.data = asked.data;
    memcpy(read.settings, asked.settings, sizeof read.settings);
    read.target = read.fingerprint = NULL;
    assert_null(read.place); /* moons are nowhere */
    read.columns = NULL;
    assert_int_equal(read.tuning.count, 0);
    read.tuning = asked.tuning;
    assert_memory_equal(&read, &asked, sizeof read);
    aq_arena_free(arena);
}

/* An option of the model with all that the model said of it. */
static void test_options_of_the_model(void **state)
{
    (void)state;
    const char *const told[][2] = {{"value", "48"},
                                   {"default", "128"},
                                   {"range", "1 to 4096"},
                                   {"help", "of the first level"}};
    AqRunOptions asked = unusual();
    must_write(&asked);
    json_error_t place;
    json_t *run = json_load_file(run_json(), 0, &place), *option = NULL;
    assert_int_equal(json_unpack(run, "{s:{s:{s:o}}}", "model", "options",
                                 "channels", &option),
                     0);
    assert_int_equal(json_object_size(option), AQ_COUNT(told));
    for (int i = 0; i < AQ_COUNT(told); i++)
        assert_string_equal(
            json_string_value(json_object_get(option, told[i][0])), told[i][1]);
    json_decref(run);
}

/* The whole text but for `from`, which becomes `to`. */
static void change(const char *from, const char *to)
{
    AqError error = {0};
    AqText text = {0};
    char *data, *at;
    size_t bytes;
    AqRunOptions asked = unusual();
    must_write(&asked);
    aq_file_read(run_json(), 1 << 20, &data, &bytes, &error);
    at = strstr(data, from);
    if (!at)
        fail_msg("%s is not in\n%s", from, data);
    aq_text_bytes(&text, data, (size_t)(at - data));
    aq_text_printf(&text, "%s%s", to, at + strlen(from));
    assert_int_equal(aq_file_write(run_json(), text.data, text.length, &error),
                     AQ_OK);
    aq_text_free(&text);
    free(data);
}

static void refuse(const char *piece)
{
    AqError error = {0};
    AqArena *arena = aq_arena_new();
    AqRunOptions read;
    if (aq_run_read(aq_test_folder, arena, &read, &error) == AQ_OK)
        fail_msg("read what should be refused with: %s", piece);
    assert_int_equal(error.status, AQ_BAD_INPUT);
    if (!strstr(error.text, piece))
        fail_msg("expected \"%s\" in \"%s\"", piece, error.text);
    aq_arena_free(arena);
}

static void test_values_out_of_range(void **state)
{
    (void)state;
    const char *const wrong[][3] = {
        {"\"log_every\": 17", "\"log_every\": 0", "run.log_every"},
        {"\"batch\": 3", "\"batch\": -3", "data.batch"},
        {"\"batch\": 3", "\"batch\": 4294967299", "data.batch"},
        {"\"batch\": 3", "\"batch\": 3.5", "data.batch"},
        {"\"batch\": 3", "\"batch\": \"3\"", "data.batch"},
        {"\"channels\": 2", "\"channels\": 0", "data.channels"},
        {"\"schedule\": 2", "\"schedule\": 3", "process.schedule"},
        {"\"prediction\": 1", "\"prediction\": -1", "process.prediction"},
        {"\"kind\": 3", "\"kind\": 99", "optimizer.kind"},
        {"\"beta1\": 0.91", "\"beta1\": 1.5", "optimizer.beta1"},
        {"\"flip\": true", "\"flip\": 1", "data.flip"},
        {"\"save_every\": 11,", "", "run.save_every"},
        {"\"format\": 1", "\"format\": 2", "is no run of this version"},
        {"\"channels\": \"48\"", "\"channels\": 48", "is no run of this"},
        {"\"source\": \"points:moons\",", "", "is no run of this version"},
        {"\"half\":", "\"halve\":", "data.height, width or columns is wrong"},
        {"\"height\": 0", "\"height\": 8", "data.height, width or columns"},
    };
    for (int i = 0; i < AQ_COUNT(wrong); i++) {
        change(wrong[i][0], wrong[i][1]);
        refuse(wrong[i][2]);
    }
}

static void test_text_that_is_no_run(void **state)
{
    (void)state;
    const char *const texts[][2] = {
        {"", "run.json:1: "},
        {"{", "run.json:1: "},
        {"[]", "run.json: is no run of this version"},
        {"{}\n\n{}", "run.json:3: "},
        {"{\"format\": 1, \"format\": 1}", "run.json:1: duplicate"},
        {"\xff\xfe", "run.json"},
    };
    for (int i = 0; i < AQ_COUNT(texts); i++) {
        AqError error = {0};
        aq_file_write(run_json(), texts[i][0], strlen(texts[i][0]), &error);
        refuse(texts[i][1]);
    }
    unlink(run_json());
    refuse("is no run (it has no run.json)");
}

/* Cut anywhere, it is refused; nothing is read beyond it. */
static void test_every_truncation(void **state)
{
    (void)state;
    AqError error = {0};
    AqRunOptions asked = unusual();
    must_write(&asked);
    char *data;
    size_t bytes;
    aq_file_read(run_json(), 1 << 20, &data, &bytes, &error);
    for (size_t n = 0; n + 1 < bytes; n += 7) {
        aq_file_write(run_json(), data, n, &error);
        refuse("run.json");
    }
    free(data);
}

static void test_more_settings_than_there_is_room_for(void **state)
{
    (void)state;
    AqText many = {0};
    for (int i = 0; i < 100; i++)
        aq_text_printf(&many, "\"s%d\": \"1\", ", i);
    aq_text_add(&many, "\"mults\": \"1,2\"");
    change("\"mults\": \"1,2\"", many.data);
    refuse("is no run of this version");
    aq_text_free(&many);
}

static void test_text_that_is_no_utf8(void **state)
{
    (void)state;
    AqError error = {0};
    AqRunOptions asked = unusual();
    unlink(run_json());
    asked.data = "pictures\xff";
    assert_int_equal(write_run(&asked, &error), AQ_BAD_INPUT);
    assert_non_null(strstr(error.text, "cannot be written to run.json: it is "
                                       "no UTF-8"));
    assert_false(aq_file_exists(run_json()));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_there_and_back),
        cmocka_unit_test(test_options_of_the_model),
        cmocka_unit_test(test_values_out_of_range),
        cmocka_unit_test(test_text_that_is_no_run),
        cmocka_unit_test(test_every_truncation),
        cmocka_unit_test(test_more_settings_than_there_is_room_for),
        cmocka_unit_test(test_text_that_is_no_utf8),
    };
    return cmocka_run_group_tests_name("run_file", tests, aq_test_make_folder,
                                       aq_test_remove_folder);
}
