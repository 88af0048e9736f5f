/* The gradient check itself: it passes right gradients and fails wrong ones. */
#include "tests/support/gradient_check.h"

#include <setjmp.h>
#include <string.h>

#include <cmocka.h>

#include "tests/support/bench.h"

static bool check(AqBench *bench, AqId loss, AqId x, char *message)
{
    return aq_test_check_gradient(bench->g, loss, x, bench->bindings,
                                  bench->n_bindings, 1e-6, 1e-8, message, 500);
}

/* sum sin(x) y */
static AqId right(AqBench *bench, AqId x, AqId y)
{
    AqId product =
        aq_binary(bench->g, AQ_OP_mul, aq_unary(bench->g, AQ_OP_sin, x), y);
    return aq_reduce_node(bench->g, AQ_OP_reduce_sum, product, DIMS_(0, 1), 2);
}

static void test_a_right_gradient_passes(void **state)
{
    (void)state;
    AqBench bench = aq_bench_new(5);
    char message[500] = "";
    AqId x = aq_bench_random(&bench, "x", F32(3, 4));
    AqId y = aq_bench_random(&bench, "y", F32(3, 4));
    AqId loss = right(&bench, x, y);
    assert_true(check(&bench, loss, x, message));
    assert_true(check(&bench, loss, y, message));
    assert_string_equal(message, "");
    aq_bench_free(&bench);
}

/* What is detached changes the loss, but the gradient does not know. */
static void test_a_wrong_gradient_fails(void **state)
{
    (void)state;
    AqBench bench = aq_bench_new(5);
    char message[500] = "";
    AqId x = aq_bench_random(&bench, "x", F32(3, 4));
    AqId y = aq_unary(bench.g, AQ_OP_detach, x);
    assert_false(check(&bench, right(&bench, x, y), x, message));
    assert_ptr_equal(strstr(message, "direction 0: the gradient says "),
                     message);
    aq_bench_free(&bench);
}

/* One wrong coordinate among many is found too. */
static void test_a_wrong_coordinate_fails(void **state)
{
    (void)state;
    AqBench bench = aq_bench_new(5);
    char message[500] = "";
    AqId x = aq_bench_random(&bench, "x", F32(3, 4));
    const int64_t start[] = {1, 2}, size[] = {1, 1}, step[] = {1, 1};
    AqId part = aq_slice_node(bench.g, x, start, size, step);
    AqId detached = aq_unary(bench.g, AQ_OP_detach, part);
    AqId loss = right(&bench, x, x);
    loss = aq_binary(bench.g, AQ_OP_add, loss,
                     aq_reshape_node(bench.g, detached, 0, NULL));
    assert_false(check(&bench, loss, x, message));
    aq_bench_free(&bench);
}

static void test_what_is_not_bound_is_said(void **state)
{
    (void)state;
    AqBench bench = aq_bench_new(5);
    char message[500] = "";
    AqId x = aq_bench_random(&bench, "x", F32(3, 4));
    AqId loss = right(&bench, x, x);
    bench.n_bindings = 0;
    assert_false(check(&bench, loss, x, message));
    assert_non_null(strstr(message, "no values are bound to 'x'"));
    aq_bench_free(&bench);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_right_gradient_passes),
        cmocka_unit_test(test_a_wrong_gradient_fails),
        cmocka_unit_test(test_a_wrong_coordinate_fails),
        cmocka_unit_test(test_what_is_not_bound_is_said),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
