/* The interpreter's frame: bindings, outputs, kernels, memory. */
#include "tests/support/bench.h"

#include <math.h>
#include <setjmp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#include <cmocka.h>

static AqId source(AqBench *bench, AqOp op, AqType type, const char *name,
                   int64_t offset)
{
    const AqAttr attrs[] = {aq_text(AQ_KEY_NAME, name),
                            aq_int(AQ_KEY_OFFSET, offset)};
    return aq_bench_build(bench, op, &type, NULL, 0, attrs,
                          op == AQ_OP_param ? 2 : 1);
}

static void bind(AqBench *bench, const char *name, const double *data)
{
    bench->bindings[bench->n_bindings++] =
        (AqBinding){.name = name, .data = data};
}

/* ---- bindings ---- */

/* A param is a part of "weights", unless it is bound by its own name. */
static void test_params_lie_in_weights(void **state)
{
    (void)state;
    AqBench bench = aq_bench_new(1);
    const double weights[] = {0, 1, 2, 3, 4, 5}, own[] = {70, 80};
    AqId a = source(&bench, AQ_OP_param, F32(3), "a", 0);
    AqId b = source(&bench, AQ_OP_param, F32(2), "b", 4);
    AqId all = source(&bench, AQ_OP_state, F32(6), "weights", 0);
    bind(&bench, "weights", weights);
    aq_bench_close(aq_bench_value(&bench, a), weights, 3, 0);
    aq_bench_close(aq_bench_value(&bench, b), weights + 4, 2, 0);
    aq_bench_close(aq_bench_value(&bench, all), weights, 6, 0);
    bind(&bench, "b", own);
    aq_bench_close(aq_bench_value(&bench, b), own, 2, 0);
    aq_bench_free(&bench);
}

static void test_a_missing_binding_is_named(void **state)
{
    (void)state;
    AqBench bench = aq_bench_new(1);
    bench.g->file = "models/unet.c";
    bench.g->line = 41;
    AqId x = source(&bench, AQ_OP_input, F32(2), "pictures", 0);
    AqId y = aq_unary(bench.g, AQ_OP_exp, x);
    assert_string_equal(aq_bench_error(&bench, y),
                        "models/unet.c:41: input %0: no values are bound to "
                        "'pictures': bind them by this name");
    aq_bench_free(&bench);
}

static void test_integers_must_be_whole(void **state)
{
    (void)state;
    AqBench bench = aq_bench_new(1);
    AqId x = aq_bench_input(&bench, "t", I32(2), (const double[]){1, 2.5});
    assert_non_null(strstr(aq_bench_error(&bench, x),
                           "element 1 of 't' is 2.5, not a 32-bit integer"));
    AqId y = aq_bench_input(&bench, "u", I32(1), (const double[]){1e10});
    assert_non_null(strstr(aq_bench_error(&bench, y), "1e+10"));
    aq_bench_free(&bench);
}

/* What no output reaches is not evaluated, so it needs no binding. */
static void test_dead_nodes_need_nothing(void **state)
{
    (void)state;
    AqBench bench = aq_bench_new(1);
    AqId x = aq_bench_input(&bench, "x", F32(1), (const double[]){3});
    AqId unbound = source(&bench, AQ_OP_input, F32(1), "unbound", 0);
    AqId dead = aq_binary(bench.g, AQ_OP_add, x, unbound);
    AqId y = aq_unary(bench.g, AQ_OP_neg, x);
    assert_true(dead != y);
    aq_bench_close(aq_bench_value(&bench, y), (const double[]){-3}, 1, 0);
    aq_bench_free(&bench);
}

/* ---- outputs ---- */

static void test_outputs_and_updates_come_in_order(void **state)
{
    (void)state;
    AqBench bench = aq_bench_new(1);
    AqId x = aq_bench_input(&bench, "x", F32(2), (const double[]){3, 4});
    AqId n = source(&bench, AQ_OP_state, F32(2), "n", 0);
    const double before[] = {10, 20};
    bind(&bench, "n", before);
    AqId sum = aq_binary(bench.g, AQ_OP_add, n, x);
    aq_graph_output(bench.g, "n", sum, true);
    aq_graph_output(bench.g, "old", n, false);
    aq_graph_output(bench.g, "again", sum, false);
    AqValue values[3];
    AqError error = {0};
    assert_int_equal(aq_interpret(bench.g, bench.bindings, bench.n_bindings,
                                  values, bench.arena, &error),
                     AQ_OK);
    const double after[] = {13, 24};
    aq_bench_close(values[0].data, after, 2, 0);
    aq_bench_close(values[1].data, before, 2, 0); /* as it was at the start */
    aq_bench_close(values[2].data, after, 2, 0);
    assert_true(before[0] == 10);
    aq_bench_free(&bench);
}

static void test_a_graph_in_error_is_not_evaluated(void **state)
{
    (void)state;
    AqBench bench = aq_bench_new(1);
    aq_graph_fail(bench.g, AQ_BAD_INPUT, "a sentence");
    AqValue value;
    AqError error = {0};
    assert_int_equal(
        aq_interpret(bench.g, NULL, 0, &value, bench.arena, &error),
        AQ_BAD_INPUT);
    assert_non_null(strstr(error.text, "a sentence"));
    aq_bench_free(&bench);
}

/* ---- kernels ---- */

/* y = exp(a) b and its sum over rows */
static void expression(AqGraph *g, AqId a, AqId b, AqId *y, AqId *sum)
{
    const int64_t axes[] = {0};
    *y = aq_binary(g, AQ_OP_mul, aq_unary(g, AQ_OP_exp, a), b);
    *sum = aq_reduce_node(g, AQ_OP_reduce_sum, *y, axes, 1);
}

static AqId argument(AqGraph *body, AqType type, int index)
{
    AqAttr attr = aq_int(AQ_KEY_INDEX, index);
    return aq_build(body, AQ_OP_arg, &type, NULL, 0, &attr, 1);
}

static void test_a_kernel_is_its_body(void **state)
{
    (void)state;
    AqBench bench = aq_bench_new(3);
    AqType type = F32(3, 2);
    AqId a = aq_bench_random(&bench, "a", type);
    AqId b = aq_bench_random(&bench, "b", type);
    AqId plain[2], y, sum;
    expression(bench.g, a, b, &plain[0], &plain[1]);

    AqGraph *body = aq_graph_body(bench.g);
    expression(body, argument(body, type, 0), argument(body, type, 1), &y,
               &sum);
    aq_graph_output(body, "y", y, false);
    aq_graph_output(body, "sum", sum, false);
    AqId kernel = BUILD(&bench, kernel, NULL, INPUTS(a, b),
                        ATTRS(aq_text(AQ_KEY_KIND, "map"), aq_body(body)));
    for (int i = 0; i < 2; i++) {
        AqId result = aq_result_node(bench.g, kernel, i);
        int64_t count = aq_bench_count(&bench, result);
        assert_int_equal(count, i ? 2 : 6);
        aq_bench_close(aq_bench_value(&bench, result),
                       aq_bench_value(&bench, plain[i]), count, 0);
    }
    aq_bench_free(&bench);
}

/* ---- size ---- */

/* A hundred values of 8 MB, of which two live at a time. */
static void test_dead_values_are_freed(void **state)
{
    (void)state;
    AqBench bench = aq_bench_new(1);
    AqType type = F32(1 << 20);
    AqId x = aq_const_node(bench.g, &type, 1);
    for (int i = 0; i < 100; i++)
        x = aq_binary(bench.g, AQ_OP_add, x, x);
    AqId total = aq_reduce_node(bench.g, AQ_OP_reduce_max, x, DIMS_(0), 1);
    double seconds = aq_interpret_seconds(bench.g);
    assert_true(seconds > 0.05 && seconds < 5);
    assert_true(aq_bench_value(&bench, total)[0] == 0x1p100);
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    assert_true(usage.ru_maxrss < 600 << 10); /* in KiB */
    aq_bench_free(&bench);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_params_lie_in_weights),
        cmocka_unit_test(test_a_missing_binding_is_named),
        cmocka_unit_test(test_integers_must_be_whole),
        cmocka_unit_test(test_dead_nodes_need_nothing),
        cmocka_unit_test(test_outputs_and_updates_come_in_order),
        cmocka_unit_test(test_a_graph_in_error_is_not_evaluated),
        cmocka_unit_test(test_a_kernel_is_its_body),
        cmocka_unit_test(test_dead_values_are_freed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
