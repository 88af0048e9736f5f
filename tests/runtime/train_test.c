/* The training loop, called as the program calls it. */
#include "runtime/run.h"

#include <dirent.h>
#include <math.h>
#include <setjmp.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "tests/support/folder.h"

/* ---- small runs ---- */

static AqRunOptions points_run(int64_t steps)
{
    return (AqRunOptions){
        .model = "mlp2d",
        .data = "points:moons",
        .settings = {{"width", "16"}, {"blocks", "1"}},
        .n_settings = 2,
        .channels = 2,
        .batch = 8,
        .optimizer = {.rate = {.base = 1e-3}, .clip = 1, .ema = 0.9},
        .seed = 3,
        .steps = steps,
        .save_every = 4,
        .log_every = 2,
        .sample_steps = 2};
}

static AqSession session(int threads)
{
    static char cache[100];
    snprintf(cache, sizeof cache, "%s/cache", aq_test_folder);
    return (AqSession){.threads = threads, .compile = {.cache_dir = cache}};
}

static void must_train(const char *name, const AqRunOptions *run,
                       const AqSession *how)
{
    AqError error = {0};
    if (aq_train(aq_test_path(name), run, how, &error))
        fail_msg("%s", error.text);
}

/* As the program does: what is in run.json, but for the steps. */
static AqStatus resume(const char *name, int64_t steps, AqSession how,
                       AqError *error)
{
    AqArena *arena = aq_arena_new();
    AqRunOptions run;
    how.resume = true;
    if (!aq_run_read(aq_test_path(name), arena, &run, error)) {
        run.steps = steps;
        aq_train(aq_test_path(name), &run, &how, error);
    }
    aq_arena_free(arena);
    return error->status;
}

static void must_resume(const char *name, int64_t steps, AqSession how)
{
    AqError error = {0};
    if (resume(name, steps, how, &error))
        fail_msg("%s", error.text);
}

static void check_same(const char *a, const char *b, int step)
{
    const char *const files[] = {"weights", "ema", "optimizer"};
    for (int i = 0; i < AQ_COUNT(files); i++) {
        char x[400], y[400], digits[2][33];
        AqError error = {0};
        snprintf(x, sizeof x, "%s/checkpoints/%06d/%s.safetensors",
                 aq_test_path(a), step, files[i]);
        snprintf(y, sizeof y, "%s/checkpoints/%06d/%s.safetensors",
                 aq_test_path(b), step, files[i]);
        if (aq_hash_file(x, digits[0], &error) ||
            aq_hash_file(y, digits[1], &error))
            fail_msg("%s", error.text);
        if (strcmp(digits[0], digits[1]))
            fail_msg("%s and %s differ", x, y);
    }
}

static int64_t newest_step(const char *name)
{
    AqError error = {0};
    AqArena *arena = aq_arena_new();
    char folder[300];
    snprintf(folder, sizeof folder, "%s/checkpoints", aq_test_path(name));
    const char *path = aq_checkpoint_latest(folder, arena, &error);
    int64_t step = path ? atoll(strrchr(path, '/') + 1) : -1;
    aq_arena_free(arena);
    return step;
}

/* ---- tests ---- */

/* Stopped at every step of two epochs' worth, each time on other threads. */
static void test_resumed_at_every_step(void **state)
{
    (void)state;
    enum { STEPS = 12 };
    AqRunOptions run = points_run(STEPS);
    AqSession how = session(2);
    must_train("whole", &run, &how);
    run = points_run(1);
    must_train("steps", &run, &how);
    for (int step = 2; step <= STEPS; step++)
        must_resume("steps", step, session(1 + step % 3));
    check_same("whole", "steps", STEPS);
}

/* A data set of three pictures, so that epochs end within batches. */
static void put_pictures(const char *folder)
{
    AqError error = {0};
    aq_make_folders(aq_test_path(folder), &error);
    for (int k = 0; k < 3; k++) {
        AqImage image;
        char path[300];
        aq_image_new(&image, 9, 11, 3, &error);
        for (int i = 0; i < 9 * 11 * 3; i++)
            image.pixels[i] = (uint8_t)(i * (k + 3));
        snprintf(path, sizeof path, "%s/%d.png", aq_test_path(folder), k);
        assert_int_equal(aq_png_write(path, &image, &error), AQ_OK);
        aq_image_free(&image);
    }
}

static AqRunOptions pictures_run(int64_t steps)
{
    AqRunOptions run = points_run(steps);
    run.model = "ddpm_unet";
    static char pictures[100];
    snprintf(pictures, sizeof pictures, "%s/pictures", aq_test_folder);
    run.data = pictures;
    run.settings[0] = (AqSetting){"channels", "16"};
    run.settings[1] = (AqSetting){"mults", "1,2"};
    run.settings[2] = (AqSetting){"blocks", "1"};
    run.settings[3] = (AqSetting){"groups", "8"};
    run.settings[4] = (AqSetting){"dropout", "0.1"};
    run.n_settings = 5;
    run.height = run.width = 8;
    run.channels = 3;
    run.batch = 2;
    run.flip = run.random_crop = true;
    return run;
}

static void test_across_epochs_and_threads(void **state)
{
    (void)state;
    put_pictures("pictures");
    AqRunOptions run = pictures_run(7);
    AqSession one = session(1);
    must_train("pictures1", &run, &one);
    const int threads[] = {2, 3, 8};
    for (int i = 0; i < AQ_COUNT(threads); i++) {
        char name[40];
        snprintf(name, sizeof name, "pictures%d", threads[i]);
        AqSession how = session(threads[i]);
        run = pictures_run(1 + 2 * i);
        must_train(name, &run, &how);
        must_resume(name, 7, session(threads[AQ_COUNT(threads) - 1 - i]));
        check_same("pictures1", name, 7);
    }
}

static void test_stopped_before_the_first_step(void **state)
{
    (void)state;
    volatile int stop = 1;
    AqError error = {0};
    AqRunOptions run = points_run(12);
    AqSession how = session(2);
    how.stop = &stop;
    assert_int_equal(aq_train(aq_test_path("zero"), &run, &how, &error),
                     AQ_INTERRUPTED);
    assert_int_equal(newest_step("zero"), 0);
    must_resume("zero", 12, session(2));
    check_same("whole", "zero", 12);
}

/* Killed before the first checkpoint: it begins again. */
static void test_a_run_without_a_checkpoint(void **state)
{
    (void)state;
    AqRunOptions run = points_run(3);
    AqSession how = session(2);
    char command[300];
    must_train("early", &run, &how);
    snprintf(command, sizeof command, "rm -r %s/*",
             aq_test_path("early/checkpoints"));
    assert_int_equal(system(command), 0);
    must_resume("early", 12, session(2));
    check_same("whole", "early", 12);
}

static void test_only_the_newest_are_kept(void **state)
{
    (void)state;
    int count = 0;
    DIR *dir = opendir(aq_test_path("whole/checkpoints"));
    for (struct dirent *e; (e = readdir(dir));)
        count += e->d_name[0] != '.';
    closedir(dir);
    assert_int_equal(count, 2);
    assert_true(aq_file_exists(aq_test_path("whole/checkpoints/000008")));
    assert_true(aq_file_exists(aq_test_path("whole/checkpoints/000012")));
}

static void test_until_the_time_is_over(void **state)
{
    (void)state;
    AqRunOptions run = points_run(0);
    AqSession how = session(2);
    how.seconds = 0.3;
    double began = aq_seconds();
    must_train("timed", &run, &how);
    assert_true(aq_seconds() - began < 20);
    int64_t step = newest_step("timed");
    assert_true(step > 0);
    AqError error = {0};
    AqSession more = session(2);
    more.seconds = 0.2;
    assert_int_equal(resume("timed", 0, more, &error), AQ_OK);
    assert_true(newest_step("timed") > step);
}

static void refuse(const char *name, const AqRunOptions *run, AqSession how,
                   const char *piece)
{
    AqError error = {0};
    if (aq_train(aq_test_path(name), run, &how, &error) == AQ_OK)
        fail_msg("trained what should be refused with: %s", piece);
    if (!strstr(error.text, piece))
        fail_msg("expected \"%s\" in \"%s\"", piece, error.text);
    assert_false(
        aq_file_exists(aq_test_path(name))); /* nothing is left behind */
}

static void test_runs_that_cannot_begin(void **state)
{
    (void)state;
    AqRunOptions run = points_run(3);
    AqSession how = session(2);
    how.memory_limit = 10000;
    refuse("no", &run, how,
           "the data alone take 0.0 MiB, and --memory allows 0.0");
    how.memory_limit = 1 << 20;
    run.sample_count = 120000;
    refuse("no", &run, how, "the training fits, but not the samples beside it");
    run.sample_count = 0;
    must_train("budget", &run, &how);
    how.memory_limit = 6 << 20;
    run.batch = 60000;
    refuse("no", &run, how, "choose a smaller batch");
    run = points_run(3);
    run.classes = 7;
    refuse("no", &run, session(2),
           "points:moons: has 2 classes, the run was "
           "made for 7");
    run = points_run(3);
    run.data = "points:mons";
    refuse("no", &run, session(2), "points:mons: ");
    run = points_run(3);
    run.settings[0].name = "widht";
    refuse("no", &run, session(2), "did you mean \"width\"?");
}

static AqRunOptions sampled_run(void)
{
    AqRunOptions run = pictures_run(4);
    run.height = run.width = 16;
    run.batch = 8;
    run.sample_every = 2;
    run.sample_count = 24;
    return run;
}

/* Steps and samples share the arena; either takes what a budget leaves, and a
 * larger budget is never worse. */
static void test_samples_within_every_budget(void **state)
{
    (void)state;
    AqRunOptions run = sampled_run(), bare = run;
    AqSession how = session(2);
    must_train("free", &run, &how);
    bare.sample_count = 0;
    must_train("bare", &bare, &how);
    check_same("free", "bare", 4);
    int fits = 0, refused = 0;
    for (int tenth = 60; tenth <= 84; tenth += 3) {
        AqError error = {0};
        char name[20];
        snprintf(name, sizeof name, "within%d", tenth);
        how.memory_limit = (int64_t)tenth * (1 << 20) / 10;
        if (aq_train(aq_test_path(name), &run, &how, &error) == AQ_OK) {
            check_same("free", name, 4);
            fits++;
        } else if (fits > 0 || error.status != AQ_NO_MEMORY)
            fail_msg("%d tenths: %s", tenth, error.text);
        else
            refused++;
    }
    assert_true(fits > 5 && refused > 1);
}

/* The step after the first has weights so large that nothing is finite: what
 * is on the disk stays clean. */
static void test_a_step_that_is_not_finite_changes_nothing(void **state)
{
    (void)state;
    AqError error = {0};
    AqRunOptions run = points_run(100);
    AqSession how = session(2);
    run.optimizer = (AqOptimizer){.kind = AQ_SGD, .rate = {.base = 1e30}};
    run.save_every = 1;
    assert_int_equal(aq_train(aq_test_path("wild"), &run, &how, &error),
                     AQ_BAD_INPUT);
    assert_non_null(strstr(error.text, "10 steps in a row were not finite: "
                                       "training ends at step "));
    char path[300];
    snprintf(path, sizeof path, "%s/%06lld/weights.safetensors",
             aq_test_path("wild/checkpoints"), (long long)newest_step("wild"));
    error = (AqError){0};
    AqTensorFile *file = aq_tensors_open(path, &error);
    if (!file)
        fail_msg("%s", error.text);
    for (int i = 0; i < aq_tensors_count(file); i++) {
        const AqTensorInfo *info = aq_tensors_at(file, i);
        float *values = calloc((size_t)info->elements + 1, sizeof *values);
        aq_tensors_read_floats(file, info, values, &error);
        for (int64_t k = 0; k < info->elements; k++)
            assert_true(isfinite(values[k]));
        free(values);
    }
    aq_tensors_close(file);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_resumed_at_every_step),
        cmocka_unit_test(test_across_epochs_and_threads),
        cmocka_unit_test(test_stopped_before_the_first_step),
        cmocka_unit_test(test_a_run_without_a_checkpoint),
        cmocka_unit_test(test_only_the_newest_are_kept),
        cmocka_unit_test(test_until_the_time_is_over),
        cmocka_unit_test(test_runs_that_cannot_begin),
        cmocka_unit_test(test_samples_within_every_budget),
        cmocka_unit_test(test_a_step_that_is_not_finite_changes_nothing),
    };
    return cmocka_run_group_tests_name("train", tests, aq_test_make_folder,
                                       aq_test_remove_folder);
}
