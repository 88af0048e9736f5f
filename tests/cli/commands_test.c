/* Commands that do their work: what they print, and where they cannot. */
#include "tests/cli/program.h"

#include <jansson.h>
#include <math.h>
#include <setjmp.h>
#include <string.h>

#include <cmocka.h>

#define SMALL "--size 8 --batch 2 --set channels=32 --set mults=1,2"
#define SMILEYS "--data emoji:smileys "

static void test_streams(void **state)
{
    (void)state;
    aq_expect(1, "standard output could not be written",
              "info mlp2d --size 0 >&-");
    aq_expect(1, "standard output could not be written",
              "--version >/dev/full");
    aq_expect(1, "standard output could not be written",
              "train --help >/dev/full");
    /* a reader that goes away ends nothing badly */
    assert_int_equal(aq_shell("{ aquatint info ddpm_unet --tensors; echo "
                              "$? >status; } | head -1 >/dev/null; "
                              "test $(cat status) -le 1"),
                     0);
    /* what is printed does not land in a file that took the number */
    aq_shell("aquatint info ddpm_unet --size 8 >&- 2>&- <&-");
    assert_string_equal(aq_printed(), "");
}

static void test_info(void **state)
{
    (void)state;
    aq_expect(0, "35746307 parameters in 328 tensors", "info ddpm_unet");
    assert_non_null(strstr(aq_printed(), "channels=128"));
    aq_expect(0, "channels=32", "info ddpm_unet --set channels=32 --tensors");
    assert_non_null(strstr(aq_printed(), "(1 to 65536, default 128)\n"));
    assert_non_null(strstr(aq_printed(), "conv_in.weight"));
    assert_non_null(strstr(aq_printed(), "[32, 3, 3, 3]"));
    aq_expect(0, "; a point of 2 numbers takes ",
              "info mlp2d --size 0 --channels 2");
    aq_expect(0, "ddpm_unet: ", "info %s/models/ddpm_unet.c", AQ_SOURCE_DIR);
    aq_shell("head -c 100 /dev/zero >bad.safetensors");
    aq_expect(1, "aquatint: bad.safetensors: ", "info bad.safetensors");
}

/* Without --channels the model's own option says what it reads, and what it
 * predicts follows. */
static void test_channels(void **state)
{
    (void)state;
    aq_expect(0, " in_channels=3 ", "info ddpm_unet");
    aq_expect(0, " in_channels=1 ", "info dit --channels 1");
    aq_expect(0, " in_channels=4 ",
              "info ddpm_unet --set channels=32 --set in_channels=4 --tensors");
    assert_non_null(strstr(aq_printed(), "[32, 4, 3, 3]")); /* conv_in */
    assert_non_null(strstr(aq_printed(), "[4, 32, 3, 3]")); /* conv_out */
    assert_non_null(strstr(aq_printed(), "a picture of 32x32x4 takes"));
    aq_expect(0, " channels 6,",
              "bench ddpm_unet " SMALL " --set in_channels=6 --steps 1");
    aq_expect(0, "boxes at depth",
              "graph ddpm_unet " SMALL " --set in_channels=6 --out six.dot");
    assert_int_equal(aq_shell("grep -q 8×8×6 six.dot"), 0);
    aq_expect(0, NULL,
              "train ddpm_unet --out grey --steps 1 " SMILEYS SMALL
              " --set in_channels=1 --samples 1 --sample-steps 1");
    aq_expect(0, "in_channels=1\ndata        emoji:smileys, 8x8x1,",
              "info grey");
    assert_int_equal(aq_shell("grep -q '\"in_channels\": \"1\"' grey/run.json"),
                     0);
}

/* What kernels are estimated to take stands in their boxes, and in no others.
 */
static void test_a_graph_of_kernels_tells_times(void **state)
{
    (void)state;
    aq_expect(0, NULL,
              "graph ddpm_unet " SMALL " --stage optimized --out o.dot");
    aq_expect(0, NULL, "graph ddpm_unet " SMALL " --stage kernels --out k.dot");
    assert_int_not_equal(aq_shell("grep -q 'about [0-9.]* [µm]s' o.dot"), 0);
    assert_int_equal(
        aq_shell("grep -q 'about [0-9.]* [µm]s, [0-9.]* %%, [0-9]* GFLOP/s' "
                 "k.dot"),
        0);
}

/* Two tables, by kernels and by kinds, which both say of all of the time which
 * kernels it went to, in lines of so many columns. */
static void check_kernels(const char *text, size_t columns)
{
    int in_all[3] = {0}, count = 0, table = 0;
    double share[3] = {0}, percent, ms;
    assert_non_null(strstr(text, " GB/s in a triad\n"));
    assert_non_null(strstr(text, "gemm      matmul"));
    const char *table1 = strstr(text, "\ncount ");
    assert_non_null(table1);
    for (const char *line = text; *line; line += strcspn(line, "\n") + 1) {
        if (line > table1 && strcspn(line, "\n") > columns)
            fail_msg("more than %zu columns: %s", columns, line);
        assert_false(!strncmp(line + strcspn(line, "\n") - 1, " \n", 2));
        if (!strncmp(line, "count ", 6))
            table++;
        if (sscanf(line, "%d %lf %lf%%", &count, &ms, &percent) == 3) {
            in_all[table] += count;
            share[table] += percent;
        }
    }
    assert_int_equal(table, 2);
    assert_int_equal(in_all[1], in_all[2]);
    assert_int_equal(in_all[1], count); /* the last line is the sum */
    for (int i = 1; i <= 2; i++)
        if (share[i] < 97 || share[i] > 103)
            fail_msg("table %d: %g %% in\n%s", i, share[i], text);
}

static void test_dumps(void **state)
{
    (void)state;
    const char *const passes[] = {"input", "simplify", "split",
                                  "tidy",  "fuse",     "choose"};
    for (int i = 0; i < AQ_COUNT(passes); i++) {
        aq_expect(0, "graph {\n",
                  "bench ddpm_unet " SMALL " --steps 1 --dump %s", passes[i]);
        bool kernels = strstr(aq_printed(), "= kernel ") != NULL;
        assert_int_equal(kernels, i >= 4);
        assert_non_null(strstr(aq_printed(), "ddpm_unet.c:"));
    }
    aq_shell("aquatint bench ddpm_unet " SMALL " --steps 1 --time-passes");
    assert_non_null(strstr(aq_complained(), "pass fuse"));
}

static void expect_numbers(const char *const *names, int count)
{
    json_t *line = json_loads(aq_printed(), 0, NULL);
    assert_non_null(line);
    for (int i = 0; i < count; i++)
        if (!(json_number_value(json_object_get(line, names[i])) > 0))
            fail_msg("no %s in %s", names[i], aq_printed());
    json_decref(line);
}

/* What `plan` says of resident memory, in MiB, on its only line; what `bench
 * --json` found last. */
static double planned_rss(void)
{
    double rss = 0;
    const char *line = strstr(aq_printed(), "\n     2 ");
    assert_non_null(line);
    assert_int_equal(sscanf(line, " 2 %*f %lf", &rss), 1);
    return rss;
}

static double number_after(const char *name)
{
    json_t *line = json_loads(aq_printed(), 0, NULL);
    double number = json_number_value(json_object_get(line, name));
    json_decref(line);
    return number;
}

/* Those of a training with labels: a row each, and one for none. */
static void test_classes(void **state)
{
    (void)state;
    const double rows = (5 + 1) * 4 * 32.0; /* as wide as the embedding */
    const char *what = SMALL " --steps 1 --json";
    aq_expect(0, NULL, "bench ddpm_unet %s", what);
    double without = number_after("parameters");
    aq_expect(0, NULL, "bench ddpm_unet %s --classes 5", what);
    assert_true(number_after("parameters") == without + rows);
    aq_expect(0, NULL,
              "bench ddpm_unet " SMALL " --sample 2 --json "
              "--classes 5");
    assert_true(number_after("parameters") == without + rows);
    aq_expect(0, "39798928 parameters", "info dit --channels 4 --classes 1000");
    aq_expect(0, "does not fit",
              "plan ddpm_unet " SMALL " --memory 40M --classes 100000");
}

static double measured_rss(void)
{
    return number_after("peak_rss") / (1 << 20);
}

static void test_bench(void **state)
{
    (void)state;
    aq_expect(0, "per s", "plan ddpm_unet " SMALL " --memory 1M");
    aq_expect(0, "does not fit", "plan ddpm_unet " SMALL " --memory 1M");
    aq_expect(0, "does not fit\n", "plan ddpm_unet --batch 65536");
    aq_expect(1, "--json is one line, and --kernels is a table: leave one out",
              "bench mlp2d --json --kernels");
    setenv("COLUMNS", "120", true);
    aq_expect(0, "GFLOP/s", "bench ddpm_unet " SMALL " --steps 2 --kernels");
    assert_non_null(strstr(aq_printed(), "conv2d f32["));
    check_kernels(aq_printed(), 120);
    setenv("COLUMNS", "80", true);
    aq_expect(0, "\n          f32[",
              "bench ddpm_unet " SMALL " --steps 2 --kernels");
    check_kernels(aq_printed(), 80);
    unsetenv("COLUMNS");
    aq_expect(0, "\"model\": \"ddpm_unet\"",
              "bench ddpm_unet " SMALL " --steps 2 --json");
    const char *const numbers[] = {"parameters", "batch",       "threads",
                                   "step_s",     "step_min_s",  "gflops",
                                   "peak_rss",   "peak_gflops", "first_step_s"};
    expect_numbers(numbers, AQ_COUNT(numbers));
}

/* Sanitizers take memory of their own. */
static void test_resident_memory(void **state)
{
    (void)state;
#ifdef AQ_SANITIZED
    skip();
#endif
    aq_expect(0, NULL, "bench ddpm_unet " SMALL " --steps 1"); /* compiles */
    aq_expect(0, NULL, "bench ddpm_unet " SMALL " --steps 2 --json");
    double measured = measured_rss();
    aq_expect(0, " rss ", "plan ddpm_unet " SMALL);
    double planned = planned_rss();
    if (!(fabs(planned - measured) <= 40))
        fail_msg("%.0f MiB are planned, %.0f measured", planned, measured);
}

static void test_bench_of_samples(void **state)
{
    (void)state;
    aq_expect(0, "3 steps of DDIM", "bench ddpm_unet " SMALL " --sample 3");
    aq_expect(0, "\"steps\": 3,", "bench mlp2d --sample 3 --json");
    const char *const numbers[] = {"parameters", "batch",   "threads",
                                   "steps",      "step_s",  "sample_s",
                                   "gflops",     "peak_rss"};
    expect_numbers(numbers, AQ_COUNT(numbers));
    const char *const others[] = {"steps 3",  "kernels",       "tune",
                                  "lr 1e-3",  "optimizer sgd", "ema 0.9",
                                  "warmup 5", "min-snr 5"};
    for (int i = 0; i < AQ_COUNT(others); i++) {
        char sentence[100];
        snprintf(sentence, sizeof sentence,
                 "aquatint: --%.*s is for the training step: leave it or "
                 "--sample out\n",
                 (int)strcspn(others[i], " "), others[i]);
        aq_expect(1, sentence, "bench mlp2d --sample 3 --%s", others[i]);
    }
    aq_expect(1, NULL, "bench mlp2d --sample 1001");
    assert_non_null(strstr(aq_complained(), "--sample 1001"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_graph_of_kernels_tells_times),
        cmocka_unit_test(test_streams),
        cmocka_unit_test(test_info),
        cmocka_unit_test(test_channels),
        cmocka_unit_test(test_dumps),
        cmocka_unit_test(test_bench),
        cmocka_unit_test(test_classes),
        cmocka_unit_test(test_resident_memory),
        cmocka_unit_test(test_bench_of_samples),
    };
    return cmocka_run_group_tests_name("commands", tests, aq_program_setup,
                                       aq_program_teardown);
}
