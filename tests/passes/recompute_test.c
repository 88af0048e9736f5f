/* Budgets on random graphs and on models: what fits is taken, the smallest plan
 * is a budget that is kept and anything below it is not, values stay to the
 * bit. */
#include "tests/support/models.h"
#include "tests/support/random_graph.h"

#include <setjmp.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "codegen/codegen.h"
#include "frontend/dsl/dsl.h"
#include "passes/passes.h"

typedef struct Outcome {
    AqGraph *g;
    int64_t arena, live;
    int again; /* kernels that are second evaluations */
} Outcome;

static AqStatus find_needs(void *context, const AqGraph *g, AqNeeds *needs,
                           AqError *error)
{
    (void)context;
    AqTarget target = aq_test_target(3);
    for (AqId id = 0; id < g->count; id++) {
        AqKernelLayout layout;
        if (aq_node(g, id)->op != AQ_OP_kernel)
            continue;
        if (aq_kernel_layout(g, id, &target, &layout, error))
            return error->status;
        needs[id] =
            (AqNeeds){.workspace = layout.workspace, .kept = layout.kept};
    }
    return AQ_OK;
}

static int64_t given_room(void *context, const AqPlan *plan)
{
    (void)plan;
    return *(int64_t *)context;
}

static Outcome outcome_of(AqGraph *g)
{
    AqError error = {0};
    AqNeeds *needs = calloc((size_t)g->count + 1, sizeof *needs);
    Outcome o = {.g = g};
    AqPlan *plan = NULL;
    if (find_needs(NULL, g, needs, &error) == AQ_OK)
        plan = aq_plan(g, needs, &error);
    if (!plan)
        fail_msg("%s", error.text);
    o.arena = plan->arena_bytes;
    o.live = plan->live_bytes;
    for (AqId id = 0; id < g->count; id++)
        o.again += aq_node(g, id)->copy > 0;
    aq_plan_free(plan);
    free(needs);
    return o;
}

static Outcome within(const AqGraph *kernels, int64_t room)
{
    AqError error = {0};
    AqTarget target = aq_test_target(3);
    const AqBudget budget = {find_needs, given_room, &room};
    AqPassContext cx = {.target = &target, .budget = &budget, .error = &error};
    AqGraph *g = aq_graph_new();
    assert_non_null(g);
    if (aq_recompute(kernels, g, &cx) || aq_graph_verify(g, &error))
        fail_msg("%s%s", error.text, g->error.text);
    return outcome_of(g);
}

static void check_values(const AqGraph *kernels, const Outcome *o,
                         uint64_t seed)
{
    AqError error = {0};
    if (aq_compare_graphs(kernels, o->g, seed, 0, &error))
        fail_msg("seed %llu: %s", (unsigned long long)seed, error.text);
}

/* Returns by how much the arena of `g` can shrink, as a share of it. */
static double check_budgets(const AqGraph *g, uint64_t seed, bool values)
{
    AqGraph *kernels = aq_test_kernels(g, 3);
    AqGraph *copy = aq_test_kernels(g, 3);
    Outcome whole = outcome_of(copy), least = within(kernels, 0);
    Outcome kept = within(kernels, least.arena);
    Outcome below = within(kernels, least.arena - 1);
    assert_true(kept.arena <= least.arena);
    assert_true(below.arena >= least.arena);
    if (values)
        check_values(kernels, &least, seed);
    Outcome between = within(kernels, (least.arena + whole.arena) / 2);
    assert_true(between.arena <= (least.arena + whole.arena) / 2);
    if (values)
        check_values(kernels, &between, seed);
    Outcome twice = within(between.g, (least.arena + whole.arena) / 2);
    assert_true(aq_test_same_text(between.g, twice.g));
    Outcome roomy = within(kernels, whole.arena);
    assert_int_equal(roomy.again, 0);
    assert_true(aq_test_same_text(kernels, roomy.g));
    double share =
        whole.arena ? 1 - (double)least.arena / (double)whole.arena : 0;
    AqGraph *all[] = {least.g, kept.g,  below.g, between.g,
                      twice.g, roomy.g, copy,    kernels};
    for (int i = 0; i < AQ_COUNT(all); i++)
        aq_graph_free(all[i]);
    return share;
}

static void test_random_graphs(void **state)
{
    (void)state;
    int shrunk = 0;
    for (uint64_t seed = 1; seed <= 60; seed++) {
        AqGraph *g = aq_test_random_graph(seed, 40);
        shrunk += check_budgets(g, seed, true) > 0;
        aq_graph_free(g);
    }
    assert_true(shrunk >= 10); /* their outputs are most of their memory */
}

static AqGraph *training(const char *model, const AqSetting *settings, int n,
                         AqTask task)
{
    return aq_test_training(model, settings, n, task,
                            (AqOptimizer){.ema = 0.99, .clip = 1});
}

static void test_points(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 6; seed++) {
        char width[8], blocks[8];
        snprintf(width, sizeof width, "%d", (int)(2 + 3 * (seed % 3)));
        snprintf(blocks, sizeof blocks, "%d", (int)(1 + 2 * seed));
        const AqSetting settings[] = {{"width", width}, {"blocks", blocks}};
        AqGraph *g = training("mlp2d", settings, AQ_COUNT(settings),
                              (AqTask){.batch = 64, .channels = 2});
        assert_true(check_budgets(g, seed, true) > 0.2);
        aq_graph_free(g);
    }
}

static void test_a_small_unet(void **state)
{
    (void)state;
    const AqSetting small[] = {{"channels", "8"},  {"mults", "1,2"},
                               {"blocks", "1"},    {"groups", "4"},
                               {"attention", "4"}, {"zero_init", "false"}};
    AqGraph *g =
        training("ddpm_unet", small, AQ_COUNT(small),
                 (AqTask){.batch = 6, .height = 8, .width = 8, .channels = 3});
    assert_true(check_budgets(g, 7, true) > 0.05);
    aq_graph_free(g);
}

/* Of the memory beyond weights, gradients, moments and average two thirds can
 * be done without. */
static void test_a_unet_shrinks(void **state)
{
    (void)state;
    const AqSetting tiny[] = {{"channels", "64"}};
    AqGraph *g = training(
        "ddpm_unet", tiny, AQ_COUNT(tiny),
        (AqTask){.batch = 8, .height = 32, .width = 32, .channels = 3});
    AqGraph *kernels = aq_test_kernels(g, 3), *copy = aq_test_kernels(g, 3);
    Outcome whole = outcome_of(copy), least = within(kernels, 0);
    double gradients = 8952067 * 4.0;
    double share =
        ((double)least.arena - gradients) / ((double)whole.arena - gradients);
    print_message("arena %.1f MiB, %.1f at the least: %.0f %% beyond the "
                  "gradients; bounds %.1f, %.1f\n",
                  (double)whole.arena / (1 << 20),
                  (double)least.arena / (1 << 20), 100 * share,
                  (double)whole.live / (1 << 20),
                  (double)least.live / (1 << 20));
    assert_true(share <= 0.3);
    assert_true((double)least.arena - gradients <= 13 << 20);
    assert_true((double)whole.arena <= 1.1 * (double)whole.live);
    /* with next to no room, gradients that lie where they must cut the rest
     * into pieces */
    assert_true((double)least.arena <= 1.3 * (double)least.live);
    aq_graph_free(copy);
    aq_graph_free(least.g);
    aq_graph_free(kernels);
    aq_graph_free(g);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_random_graphs),
        cmocka_unit_test(test_points),
        cmocka_unit_test(test_a_small_unet),
        cmocka_unit_test(test_a_unet_shrinks),
    };
    return cmocka_run_group_tests_name("recompute", tests, NULL, NULL);
}
