/* --verify-passes where it would take too long: what is named instead is short
 * enough, and what cannot be made so is said. */
#include "frontend/dsl/dsl.h"
#include "passes/passes.h"
#include "tests/cli/program.h"

#include <setjmp.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

/* The estimate for a step of training at what was named. */
static double seconds_of(const char *model, int batch, int size,
                         const AqSetting *settings, int count)
{
    AqError error = {0};
    AqOptimizer adam = {.rate = {.base = 2e-4}, .ema = 0.9999, .clip = 1};
    AqTask task = {.model = aq_builtin_find(model, &error),
                   .settings = settings,
                   .n_settings = count,
                   .batch = batch,
                   .height = size,
                   .width = size,
                   .channels = size ? 3 : 2};
    AqGraph *graph = aq_training_graph(&task, &adam, NULL, &error);
    if (!graph)
        fail_msg("%s", error.text);
    double seconds = aq_verify_seconds(graph);
    aq_graph_free(graph);
    return seconds;
}

static void assert_near_limit(double seconds)
{
    if (seconds > AQ_VERIFY_SECONDS || seconds < AQ_VERIFY_SECONDS / 4.0)
        fail_msg("%g seconds", seconds);
}

/* What stands behind the words in the sentence; `otherwise`, if they do not. */
static int named(const char *words, int otherwise)
{
    const char *sentence = strstr(aq_complained(), " minutes: ");
    const char *at = sentence ? strstr(sentence, words) : NULL;
    return at ? (int)strtol(at + strlen(words), NULL, 10) : otherwise;
}

/* `option`: a whole number of the model. */
static void check_step(const char *model, const char *option, int usual,
                       int size, const char *arguments)
{
    char words[64], value[32];
    aq_expect(1, " minutes: --batch ", "%s", arguments);
    snprintf(words, sizeof words, " --set %s=", option);
    snprintf(value, sizeof value, "%d", named(words, usual));
    AqSetting set = {option, value};
    assert_near_limit(seconds_of(model, named(" --batch ", 0),
                                 named(" --size ", size), &set, 1));
}

static void test_a_training_step(void **state)
{
    (void)state;
    check_step("ddpm_unet", "channels", 128, 32,
               "bench ddpm_unet --verify-passes");
    check_step("ddpm_unet", "channels", 64, 32,
               "plan ddpm_unet --batch 4 --set channels=64 --verify-passes");
    check_step("dit", "heads", 6, 32, "bench dit --verify-passes");
    check_step("mlp2d", "width", 128, 0,
               "bench mlp2d --batch 60000 --verify-passes");
}

/* What is drawn meanwhile is verified as well. */
static void test_samples(void **state)
{
    (void)state;
    const char *const train = "train ddpm_unet --data emoji:smileys --out run "
                              "--steps 2 --verify-passes";
    aq_expect(1, " minutes: --batch 1 --size 16x32 would take about ",
              "bench ddpm_unet --size 32x64 --sample 4 --verify-passes");
    aq_expect(1, " minutes: --batch 1 --samples ", "%s", train);
    aq_expect(1, " minutes: --samples ",
              "%s --batch 1 --size 32 --set channels=64 --set blocks=1", train);
    aq_expect(1, " --set channels=32 would take about ",
              "%s --batch 1 --size 16 --set channels=96", train);
    assert_int_not_equal(aq_shell("ls run"), 0);
}

static void test_a_size_that_the_model_needs(void **state)
{
    (void)state;
    aq_expect(1, ", and too long even with --batch ",
              "bench ddpm_unet --set widths=128,256,512,1024,1024 --set "
              "time_units=4096 --verify-passes");
}

/* A model whose work depends on nothing that can be told. */
static void test_what_nothing_makes_smaller(void **state)
{
    (void)state;
    aq_shell("cat >fixed.c <<'END'\n"
             "#include <aquatint.h>\n"
             "AQ_MODEL(fixed, \"the same work for anything\")\n"
             "{\n"
             "    AqGraph *g = m->scope.graph;\n"
             "    AqTensor a = aq_full(g, AQ_SHAPE(4096, 4096), 1);\n"
             "    AqTensor sum = aq_sum(aq_matmul(aq_exp(a), a));\n"
             "    AqTensor y = aq_linear(aq_sub(m->scope, \"to\"), m->x, 2);\n"
             "    return aq_add(y, aq_scale(sum, 1e-12));\n"
             "}\n"
             "END\n");
    aq_expect(1, " minutes, and nothing can be halved: choose a smaller model",
              "bench fixed.c --size 0 --batch 1 --verify-passes");
}

/* Whoever calls the passes has no options to be told. */
static void test_the_passes_alone(void **state)
{
    (void)state;
    AqError error = {0};
    AqTarget target;
    assert_int_equal(aq_target_host(3, &target, &error), AQ_OK);
    AqTask task = {.model = aq_builtin_find("dit", &error),
                   .batch = 64,
                   .height = 32,
                   .width = 32,
                   .channels = 3};
    AqGraph *graph = aq_forward_graph(&task, NULL, &error);
    AqPassContext cx = {.target = &target, .error = &error};
    AqPipelineOptions options = {.verify = true};
    assert_null(aq_optimize(graph, &options, &cx));
    assert_non_null(strstr(error.text, " minutes: choose a smaller model, "
                                       "batch or size"));
    aq_graph_free(graph);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_training_step),
        cmocka_unit_test(test_samples),
        cmocka_unit_test(test_a_size_that_the_model_needs),
        cmocka_unit_test(test_what_nothing_makes_smaller),
        cmocka_unit_test(test_the_passes_alone),
    };
    return cmocka_run_group_tests(tests, aq_program_setup, aq_program_teardown);
}
