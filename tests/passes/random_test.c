/* Properties of the passes on random graphs and on their gradients: values
 * stay, a pass run twice changes nothing more, plans fit, gradients are slopes.
 */
#include "tests/support/random_graph.h"

#include <math.h>
#include <setjmp.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "passes/passes.h"
#include "tests/support/bench.h"
#include "tests/support/gradient_check.h"

enum { GRAPHS = 100 };

static bool is_real_source(const AqGraph *g, AqId id)
{
    const AqNode *node = aq_node(g, id);
    return aq_op_info[node->op].facts & AQ_SOURCE &&
           node->type.element == AQ_F32;
}

/* sum of all outputs, each element with a weight of its own */
static AqId loss_of(AqGraph *g, AqArena *arena)
{
    const int64_t all[] = {0, 1, 2, 3, 4, 5, 6, 7};
    AqType scalar = SCALAR;
    AqId loss = aq_const_node(g, &scalar, 0);
    uint64_t seed = 99;
    for (int i = 0; i < g->n_outputs; i++) {
        AqId output = g->outputs[i].node;
        AqType type = aq_node(g, output)->type;
        int64_t count = aq_elements(&type);
        double *weight = AQ_NEW_ARRAY(arena, double, count);
        assert_non_null(weight);
        for (int64_t j = 0; j < count; j++)
            weight[j] = aq_test_normal(&seed) / sqrt((double)count);
        AqId product =
            aq_binary(g, AQ_OP_mul, output, aq_table_node(g, &type, weight));
        AqId sum = aq_reduce_node(g, AQ_OP_reduce_sum, product, all, type.rank);
        loss = aq_binary(g, AQ_OP_add, loss, sum);
    }
    return loss;
}

/* A random graph with the gradients of all its sources as outputs too. */
static AqGraph *training_graph(uint64_t seed, int steps)
{
    AqGraph *g = aq_test_random_graph(seed, steps);
    AqArena *arena = aq_arena_new();
    assert_non_null(arena);
    AqId *sources = AQ_NEW_ARRAY(arena, AqId, g->count);
    AqId *gradients = AQ_NEW_ARRAY(arena, AqId, g->count);
    int count = 0, nodes = g->count;
    AqId loss = loss_of(g, arena);
    for (AqId id = 0; id < nodes; id++)
        if (is_real_source(g, id))
            sources[count++] = id;
    if (aq_gradient_nodes(g, loss, sources, count, gradients) != AQ_OK)
        fail_msg("seed %llu: %s", (unsigned long long)seed, g->error.text);
    for (int i = 0; i < count; i++)
        aq_graph_output(g, aq_arena_printf(arena, "gradient%d", i),
                        gradients[i], false);
    aq_arena_free(arena);
    return g;
}

/* ---- gradients ---- */

/* What is detached is no part of the slope: such graphs are left out. */
static bool detaches(const AqGraph *g)
{
    for (AqId id = 0; id < g->count; id++)
        if (aq_node(g, id)->op == AQ_OP_detach)
            return true;
    return false;
}

static int check_gradients(uint64_t seed, AqArena *arena)
{
    AqGraph *g = aq_test_random_graph(seed, 10);
    int nodes = g->count, checked = 0;
    AqId loss = loss_of(g, arena);
    AqBinding *bindings = AQ_NEW_ARRAY(arena, AqBinding, nodes);
    int bound = aq_test_bind(g, seed, bindings, arena);
    for (AqId id = 0; id < nodes && !detaches(g); id++) {
        char message[600] = "";
        if (!is_real_source(g, id))
            continue;
        if (!aq_test_check_gradient(g, loss, id, bindings, bound, 1e-4, 1e-6,
                                    message, sizeof message))
            fail_msg("seed %llu, %%%d: %s", (unsigned long long)seed, id,
                     message);
        checked++;
    }
    aq_graph_free(g);
    return checked;
}

static void test_gradients_are_slopes(void **state)
{
    (void)state;
    AqArena *arena = aq_arena_new();
    int checked = 0;
    assert_non_null(arena);
    for (uint64_t seed = 1; seed <= GRAPHS; seed++)
        checked += check_gradients(seed, arena);
    assert_true(checked > 2 * GRAPHS);
    aq_arena_free(arena);
}

/* ---- passes ---- */

static AqPassContext context(AqTarget *target, AqError *error)
{
    assert_int_equal(aq_target_host(3, target, error), AQ_OK);
    return (AqPassContext){.target = target, .error = error};
}

/* Verified and compared after each pass; what comes out can be planned. */
static void check_pipeline(AqGraph *g, uint64_t seed)
{
    AqTarget target;
    AqError error = {0};
    AqPassContext cx = context(&target, &error);
    const AqPipelineOptions options = {.verify = true};
    AqGraph *kernels = aq_optimize(g, &options, &cx);
    if (!kernels)
        fail_msg("seed %llu: %s", (unsigned long long)seed, error.text);
    AqNeeds *needs = calloc((size_t)kernels->count, sizeof *needs);
    assert_non_null(needs);
    AqPlan *plan = aq_plan(kernels, needs, &error);
    if (!plan)
        fail_msg("seed %llu: %s", (unsigned long long)seed, error.text);
    assert_true(plan->arena_bytes >= plan->live_bytes);
    aq_plan_free(plan);
    free(needs);
    aq_graph_free(kernels);
}

static void test_the_pipeline_keeps_values(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= GRAPHS; seed++) {
        AqGraph *g = aq_test_random_graph(seed, 40);
        check_pipeline(g, seed);
        aq_graph_free(g);
        g = training_graph(seed, 15);
        check_pipeline(g, seed);
        aq_graph_free(g);
    }
}

static AqGraph *after(const AqPass *pass, const AqGraph *g, AqPassContext *cx)
{
    AqGraph *out = aq_graph_new();
    assert_non_null(out);
    if (pass->run(g, out, cx) != AQ_OK)
        fail_msg("%s: %s", pass->name, cx->error->text);
    return out;
}

static void check_idempotent(const AqPass *pass, const AqGraph *g,
                             uint64_t seed)
{
    AqTarget target;
    AqError error = {0};
    AqPassContext cx = context(&target, &error);
    AqGraph *once = after(pass, g, &cx), *twice = after(pass, once, &cx);
    AqText first = {0}, second = {0};
    aq_graph_print(once, &first);
    aq_graph_print(twice, &second);
    if (strcmp(first.data, second.data))
        fail_msg("seed %llu: %s changes its own work", (unsigned long long)seed,
                 pass->name);
    aq_text_free(&first);
    aq_text_free(&second);
    aq_graph_free(once);
    aq_graph_free(twice);
}

static void test_a_pass_twice_is_once(void **state)
{
    (void)state;
    const char *const names[] = {"simplify", "split"};
    for (int i = 0; i < AQ_COUNT(names); i++)
        for (uint64_t seed = 1; seed <= GRAPHS; seed++) {
            AqGraph *g = training_graph(seed, 20);
            const AqPass *pass = aq_pass_named(names[i]);
            assert_non_null(pass);
            check_idempotent(pass, g, seed);
            aq_graph_free(g);
        }
}

/* The last pass, whose input is a graph of kernels. */
static void test_choosing_twice_is_once(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= GRAPHS; seed++) {
        AqTarget target;
        AqError error = {0};
        AqPassContext cx = context(&target, &error);
        AqGraph *g = training_graph(seed, 20);
        AqGraph *kernels = after(aq_pass_named("fuse"), g, &cx);
        aq_graph_free(g);
        check_idempotent(aq_pass_named("choose"), kernels, seed);
        aq_graph_free(kernels);
    }
}

/* ---- large reductions, which split cuts ---- */

/* Some dimensions of 1, primes, powers of two; some 10^5 elements. */
static AqType large_type(uint64_t *seed)
{
    const int64_t sizes[] = {1, 2, 3, 16, 64, 97, 128, 509, 1024, 30011};
    AqType type = {.element = AQ_F32, .rank = 2};
    type.rank += (int)aq_test_below(seed, 3);
    do {
        for (int i = 0; i < type.rank; i++)
            type.dim[i] = sizes[aq_test_below(seed, AQ_COUNT(sizes))];
    } while (aq_elements(&type) < 80000 || aq_elements(&type) > 400000);
    return type;
}

static int reductions_in(const AqGraph *g)
{
    int count = 0;
    for (AqId id = 0; id < g->count; id++) {
        AqOp op = aq_node(g, id)->op;
        count += op == AQ_OP_reduce_sum || op == AQ_OP_reduce_max ||
                 op == AQ_OP_moments;
    }
    return count;
}

static AqGraph *large_reduction(uint64_t seed)
{
    AqGraph *g = aq_graph_new();
    assert_non_null(g);
    AqType type = large_type(&seed);
    AqAttr name = aq_text(AQ_KEY_NAME, "x");
    AqId x = aq_build(g, AQ_OP_input, &type, NULL, 0, &name, 1);
    int64_t axes[AQ_MAX_RANK];
    int count = 0;
    for (int i = 0; i < type.rank; i++)
        if (aq_test_below(&seed, 3) || (i == type.rank - 1 && !count))
            axes[count++] = i;
    AqAttr attr = aq_ints(AQ_KEY_AXES, axes, count);
    AqId both = aq_build(g, AQ_OP_moments, NULL, &x, 1, &attr, 1);
    aq_graph_output(g, "sum",
                    aq_reduce_node(g, AQ_OP_reduce_sum, x, axes, count), false);
    aq_graph_output(g, "max",
                    aq_reduce_node(g, AQ_OP_reduce_max, x, axes, count), false);
    aq_graph_output(g, "mean", aq_result_node(g, both, 0), false);
    aq_graph_output(g, "m2", aq_result_node(g, both, 1), false);
    assert_string_equal(g->error.text, "");
    return g;
}

static void test_split_keeps_large_reductions(void **state)
{
    (void)state;
    int cut = 0;
    for (uint64_t seed = 1; seed <= 25; seed++) {
        AqTarget target;
        AqError error = {0};
        AqPassContext cx = context(&target, &error);
        AqGraph *g = large_reduction(seed);
        AqGraph *parts = after(aq_pass_named("split"), g, &cx);
        cut += reductions_in(parts) > reductions_in(g);
        aq_compare_graphs(g, parts, seed, 1e-9, &error);
        if (error.status != AQ_OK)
            fail_msg("seed %llu: %s", (unsigned long long)seed, error.text);
        check_idempotent(aq_pass_named("split"), g, seed);
        aq_graph_free(parts);
        aq_graph_free(g);
    }
    assert_true(cut > 5 && cut < 25); /* both cases occur */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_gradients_are_slopes),
        cmocka_unit_test(test_the_pipeline_keeps_values),
        cmocka_unit_test(test_a_pass_twice_is_once),
        cmocka_unit_test(test_choosing_twice_is_once),
        cmocka_unit_test(test_split_keeps_large_reductions),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
