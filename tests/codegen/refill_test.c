/* Leaves whose sizes cannot be written into what was compiled are compiled with
 * them, and compute the same.  This program's aq_numbers_fill takes the place
 * of the library's and refuses. */
#include "codegen/emit.h"
#include "tests/support/bench.h"
#include "tests/support/models.h"
#include "tests/support/run_kernel.h"

#include <setjmp.h>
#include <stdatomic.h>

#include <cmocka.h>

static atomic_int refused;

bool aq_numbers_fill(char *object, const AqNumbers *numbers, const char *from,
                     const char *to)
{
    (void)object;
    (void)numbers;
    (void)from;
    (void)to;
    refused++;
    return false;
}

/* exp of (rows, k) x (k, n) + (rows, n) */
static AqGraph *product(int64_t rows, int64_t k, int64_t n)
{
    AqGraph *g = aq_graph_new();
    AqType types[] = {F32(rows, k), F32(k, n), F32(rows, n)};
    AqId args[3];
    for (int i = 0; i < 3; i++) {
        AqAttr index = aq_int(AQ_KEY_INDEX, i);
        args[i] = aq_build(g, AQ_OP_arg, &types[i], NULL, 0, &index, 1);
    }
    AqId x = aq_unary(g, AQ_OP_exp, args[0]);
    AqId y = aq_matmul_node(g, x, args[1], false, false);
    aq_graph_output(g, "y", aq_binary(g, AQ_OP_add, y, args[2]), false);
    return g;
}

static void test_results(void **state)
{
    static const int64_t sizes[][3] = {{96, 192, 256}, {33, 130, 259}};
    (void)state;
    for (int i = 0; i < AQ_COUNT(sizes); i++) {
        AqGraph *body = product(sizes[i][0], sizes[i][1], sizes[i][2]);
        AqAttr algorithm = aq_text(AQ_KEY_ALGORITHM, "gemm");
        AqKernelCase test = {.body = body,
                             .kind = "contract",
                             .attrs = &algorithm,
                             .n_attrs = 1,
                             .seed = 1,
                             .tolerance = 1e-4,
                             .name = "product"};
        refused = 0;
        aq_test_run_kernel(&test);
        assert_true(refused > 0);
        aq_graph_free(body);
    }
}

/* Every leaf of a step: those that were compiled for others' sake twice. */
static void test_statistics(void **state)
{
    (void)state;
    AqGraph *g = aq_test_nano_step(), *k = aq_test_kernels(g, 3);
    AqCompileOptions options = {.no_cache = true};
    refused = 0;
    AqCodeStatistics s = aq_test_compile(k, 3, &options);
    assert_true(s.again > 0);
    assert_int_equal(s.again, refused);
    assert_true(s.compiled > s.units);
    assert_true(s.compiled < s.units + s.again); /* some were copies */
    aq_graph_free(k);
    aq_graph_free(g);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_results),
        cmocka_unit_test(test_statistics),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
