/* Orders of kernels: what is alive at once falls or the order stays, values
 * stay to the bit, and what was put off is not put off again. */
#include "tests/support/models.h"
#include "tests/support/random_graph.h"

#include <setjmp.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "passes/passes.h"

static AqGraph *after(const char *pass, const AqGraph *g)
{
    AqError error = {0};
    AqTarget target = aq_test_target(3);
    AqPassContext cx = {.target = &target, .error = &error};
    AqGraph *out = aq_graph_new();
    assert_non_null(out);
    if (aq_pass_named(pass)->run(g, out, &cx) || aq_graph_verify(out, &error))
        fail_msg("%s%s", error.text, out->error.text);
    return out;
}

/* Every pass before `order`. */
static AqGraph *unordered(const AqGraph *g)
{
    AqGraph *simple = after("simplify", g), *split = after("split", simple);
    AqGraph *tidy = after("simplify", split), *kernels = after("fuse", tidy);
    aq_graph_free(simple);
    aq_graph_free(split);
    aq_graph_free(tidy);
    return kernels;
}

static int64_t live_bytes(const AqGraph *g)
{
    AqError error = {0};
    AqNeeds *needs = calloc((size_t)g->count + 1, sizeof *needs);
    assert_non_null(needs);
    AqPlan *plan = aq_plan(g, needs, &error);
    if (!plan)
        fail_msg("%s", error.text);
    int64_t bytes = plan->live_bytes;
    aq_plan_free(plan);
    free(needs);
    return bytes;
}

/* Returns what is alive at once, as a share of what it was. */
static double check(const AqGraph *g, uint64_t seed, bool values)
{
    AqError error = {0};
    AqGraph *kernels = unordered(g), *once = after("order", kernels);
    AqGraph *twice = after("order", once);
    double before = (double)live_bytes(kernels);
    double now = (double)live_bytes(once);
    if (!aq_test_same_text(once, twice))
        fail_msg("seed %llu: the order changes twice",
                 (unsigned long long)seed);
    if (!aq_test_same_text(kernels, once))
        assert_true(now < before);
    if (values && aq_compare_graphs(kernels, once, seed, 0, &error))
        fail_msg("seed %llu: %s", (unsigned long long)seed, error.text);
    aq_graph_free(twice);
    aq_graph_free(once);
    aq_graph_free(kernels);
    return before ? now / before : 1;
}

static void test_random_graphs(void **state)
{
    (void)state;
    int fell = 0;
    for (uint64_t seed = 1; seed <= 150; seed++) {
        AqGraph *g = aq_test_random_graph(seed, 60);
        fell += check(g, seed, true) < 1;
        aq_graph_free(g);
    }
    print_message("%d of 150 take less\n", fell);
    assert_true(fell >= 5);
}

static AqGraph *unet(const AqSetting *settings, int n, int size)
{
    return aq_test_training(
        "ddpm_unet", settings, n,
        (AqTask){.batch = 4, .height = size, .width = size, .channels = 3},
        (AqOptimizer){.ema = 0.99, .clip = 1});
}

static void test_a_small_unet(void **state)
{
    (void)state;
    const AqSetting small[] = {{"channels", "8"},  {"mults", "1,2,2"},
                               {"blocks", "1"},    {"groups", "4"},
                               {"attention", "4"}, {"zero_init", "false"}};
    AqGraph *g = unet(small, AQ_COUNT(small), 8);
    assert_true(check(g, 3, true) < 1);
    aq_graph_free(g);
}

/* Gradients of the weights of the smallest images wait for the optimizer. */
static void test_a_unet(void **state)
{
    (void)state;
    AqGraph *g = unet(NULL, 0, 32);
    double share = check(g, 0, false);
    print_message("%.0f %% of what was alive at once\n", 100 * share);
    assert_true(share < 0.85);
    aq_graph_free(g);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_random_graphs),
        cmocka_unit_test(test_a_small_unet),
        cmocka_unit_test(test_a_unet),
    };
    return cmocka_run_group_tests_name("order", tests, NULL, NULL);
}
