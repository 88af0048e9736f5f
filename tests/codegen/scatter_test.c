/* Scatter kernels against the interpreter: repeated rows, ragged columns. */
#include "tests/support/bench.h"
#include "tests/support/run_kernel.h"

#include <setjmp.h>
#include <string.h>

#include <cmocka.h>

static AqId arg(AqGraph *g, int index, AqType type)
{
    AqAttr attr = aq_int(AQ_KEY_INDEX, index);
    return aq_build(g, AQ_OP_arg, &type, NULL, 0, &attr, 1);
}

static void scatter_case(AqType index, AqType updates, AqType out)
{
    AqGraph *g = aq_graph_new();
    AqId u = arg(g, 1, updates);
    u = aq_binary(g, AQ_OP_mul, u, aq_const_like(g, u, 0.5));
    AqId in[] = {arg(g, 0, index), u};
    aq_graph_output(
        g, "y", aq_build(g, AQ_OP_scatter_add, &out, in, 2, NULL, 0), false);
    AqKernelCase test = {.body = g,
                         .kind = "scatter",
                         .tolerance = 1e-6,
                         .below = out.dim[0],
                         .name = "scatter"};
    aq_test_run_kernel(&test);
    aq_graph_free(g);
}

static void test_shapes(void **state)
{
    (void)state;
    scatter_case(I32(9), F32(9, 16), F32(4, 16));
    scatter_case(I32(9), F32(9, 13), F32(4, 13));
    scatter_case(I32(2, 7), F32(2, 7, 3, 5), F32(5, 3, 5));
    scatter_case(I32(40), F32(40), F32(6));
    scatter_case(I32(1), F32(1, 1), F32(1, 1));
    scatter_case(I32(300), F32(300, 100), F32(50, 100));
}

static void test_layout_wants_scatter_add(void **state)
{
    (void)state;
    AqGraph *g = aq_graph_new();
    aq_graph_output(g, "y", aq_unary(g, AQ_OP_neg, arg(g, 0, F32(3))), false);
    AqKernelCase test = {.body = g, .kind = "scatter", .name = "wrong"};
    AqId kernel;
    AqGraph *outer = aq_test_kernel_graph(&test, &kernel);
    AqTarget target;
    AqKernelLayout layout;
    AqError error = {0};
    assert_int_equal(aq_target_host(3, &target, &error), AQ_OK);
    assert_int_equal(aq_kernel_layout(outer, kernel, &target, &layout, &error),
                     AQ_INTERNAL);
    assert_non_null(strstr(error.text, "no scatter_add"));
    aq_graph_free(outer);
    aq_graph_free(g);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_shapes),
        cmocka_unit_test(test_layout_wants_scatter_add),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
