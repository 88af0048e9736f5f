/* How kernels are cut into tasks: small ones, too, are work for two threads. */
#include "codegen/codegen.h"
#include "tests/support/bench.h"
#include "tests/support/models.h"

#include <setjmp.h>
#include <stdio.h>

#include <cmocka.h>

/* The tasks of a 3x3 convolution by `winograd` of (1, size, size, in), stage by
 * stage, with AVX-512. */
static AqKernelLayout layout_of(int size, int in, int out)
{
    char text[512];
    AqError error = {0};
    snprintf(text, sizeof text,
             "graph {\n"
             "  %%0 = input {name=\"x\"} : f32[1,%d,%d,%d]\n"
             "  %%1 = input {name=\"w\"} : f32[3,3,%d,%d]\n"
             "  %%2 = conv2d %%0, %%1 {pad=[1,1,1,1]} : f32[1,%d,%d,%d]\n"
             "  output y = %%2\n"
             "}\n",
             size, size, in, in, out, size, size, out);
    AqGraph *g = aq_graph_parse(text, "tasks", &error);
    if (!g)
        fail_msg("%s", error.text);
    AqGraph *kernels = aq_test_kernels(g, 4);
    AqTarget target = aq_test_target(4);
    AqKernelLayout layout = {0};
    for (AqId id = 0; id < kernels->count; id++) {
        const AqNode *node = aq_node(kernels, id);
        if (node->op != AQ_OP_kernel)
            continue;
        assert_string_equal(aq_attr_text(node, AQ_KEY_ALGORITHM, ""),
                            "winograd");
        if (aq_kernel_layout(kernels, id, &target, &layout, &error))
            fail_msg("%s", error.text);
    }
    aq_graph_free(kernels);
    aq_graph_free(g);
    return layout;
}

/* Few tiles: V in pieces, then a strip of columns a task. */
static void test_columns_are_shared_by_an_even_number(void **state)
{
    static const struct {
        int size, in, out, pieces, strips;
    } cases[] = {{16, 64, 64, 2, 2},  {8, 64, 64, 1, 2},   {16, 64, 96, 2, 2},
                 {16, 64, 160, 2, 4}, {8, 256, 256, 1, 4}, {32, 64, 96, 4, 2},
                 {32, 64, 128, 4, 2}, {16, 64, 32, 2, 1}}; /* a single vector is
                                                              no strip */
    (void)state;
    for (int i = 0; i < AQ_COUNT(cases); i++) {
        AqKernelLayout layout =
            layout_of(cases[i].size, cases[i].in, cases[i].out);
        assert_int_equal(layout.n_stages, 2);
        assert_int_equal(layout.tasks[0], cases[i].pieces);
        assert_int_equal(layout.tasks[1], cases[i].strips);
    }
}

/* More of them: U in pieces of 32 channels, then blocks of tiles. */
static void test_weights_are_transformed_in_pieces(void **state)
{
    (void)state;
    AqKernelLayout layout = layout_of(32, 96, 64);
    assert_int_equal(layout.n_stages, 2);
    assert_int_equal(layout.tasks[0], 3);
    assert_in_range(layout.tasks[1], 2, 16);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_columns_are_shared_by_an_even_number),
        cmocka_unit_test(test_weights_are_transformed_in_pieces),
    };
    return cmocka_run_group_tests_name("tasks", tests, NULL, NULL);
}
