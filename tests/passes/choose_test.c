/* Which algorithms suit a contraction, at levels that this processor may not
 * have: choices depend on the kernel and the target alone. */
#include "passes/choose.h"

#include <setjmp.h>

#include <cmocka.h>

static const AqTarget amx = {.cpu = "x86-64-v4",
                             .level = 5,
                             .vector = 16,
                             .registers = 32,
                             .l1 = 32 << 10,
                             .l2 = 1 << 20,
                             .l3 = 16 << 20};

static bool splits(const AqContractFacts *facts)
{
    return aq_algorithm_suits("gemm_bf16x6", facts, &amx);
}

static AqContractFacts product(int64_t m, int64_t k, bool by_terms)
{
    return (AqContractFacts){.op = AQ_OP_matmul,
                             .batches = 1,
                             .m = m,
                             .n = 64,
                             .k = k,
                             .by_terms = by_terms};
}

/* A 1x1 convolution of 4 x 4 pixels. */
static AqContractFacts weights(int64_t images, int64_t in, int64_t groups)
{
    return (AqContractFacts){.op = AQ_OP_conv2d_weight_gradient,
                             .images = images,
                             .in = in,
                             .out = 64,
                             .groups = groups,
                             .x_size = {4, 4},
                             .y_size = {4, 4},
                             .kernel = {1, 1},
                             .stride = {1, 1},
                             .dilation = {1, 1}};
}

static void test_only_the_matrix_unit_splits(void **state)
{
    (void)state;
    AqContractFacts any = product(7, 5, false);
    AqTarget without = amx;
    without.level = 4;
    assert_true(splits(&any));
    assert_false(aq_algorithm_suits("gemm_bf16x6", &any, &without));
}

/* As codegen/gemm.c turns columns: else it would be `gemm` by another name. */
static void test_columns_are_split_where_they_can_be_turned(void **state)
{
    (void)state;
    const struct {
        AqContractFacts facts;
        bool splits;
    } cases[] = {
        {product(48, 64, true), true},  {product(48, 63, true), false},
        {product(40, 64, true), false}, {weights(4, 48, 1), true},
        {weights(3, 48, 1), false},     {weights(4, 40, 1), false},
        {weights(4, 96, 2), true},      {weights(4, 48, 2), false},
    };
    for (int i = 0; i < AQ_COUNT(cases); i++)
        assert_int_equal(splits(&cases[i].facts), cases[i].splits);
}

static void test_pixels_that_are_skipped_are_not_split(void **state)
{
    (void)state;
    AqContractFacts taps = weights(4, 48, 1), strided = taps, padded = taps;
    assert_true(splits(&taps));
    taps.kernel[1] = 3;
    strided.stride[0] = 2;
    padded.y_size[1] = 6;
    assert_false(splits(&taps));
    assert_false(splits(&strided));
    assert_false(splits(&padded));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_only_the_matrix_unit_splits),
        cmocka_unit_test(test_columns_are_split_where_they_can_be_turned),
        cmocka_unit_test(test_pixels_that_are_skipped_are_not_split),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
