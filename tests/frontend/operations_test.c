/* Operations of the DSL against plain loops: pointwise, reductions, movement,
 * products. */
#include "tests/support/tensors.h"

#include <math.h>
#include <setjmp.h>
#include <string.h>

#include <cmocka.h>

/* ---- pointwise ---- */

static double gelu_tanh(double x)
{
    return x * (1 + tanh(sqrt(2 / M_PI) * (x + 0.044715 * x * x * x))) / 2;
}

static double at_element(int which, double x)
{
    switch (which) {
    case 0:
        return x / (1 + exp(-x));
    case 1:
        return x * (1 + erf(x / sqrt(2))) / 2;
    case 2:
        return gelu_tanh(x);
    case 3:
        return x / (1 + exp(-1.702 * x));
    case 4:
        return log(1 + exp(x));
    case 5:
        return x * tanh(log(1 + exp(x)));
    case 6:
        return fmax(x, 0);
    case 7:
        return pow(x, 13);
    case 8:
        return pow(x, -3);
    case 9:
        return fmin(fmax(x, -0.5), 0.25);
    default:
        return 3 * x - 2;
    }
}

static void activations(void **state)
{
    (void)state;
    AqBench b = aq_bench_new(1);
    AqTensor x = aq_test_input(&b, "x", F32(50));
    const double *in = aq_test_data(&b, "x");
    AqTensor y[] = {aq_silu(x),
                    aq_gelu(x),
                    aq_gelu_tanh(x),
                    aq_quick_gelu(x),
                    aq_softplus(x),
                    aq_mish(x),
                    aq_relu(x),
                    aq_pow(x, 13),
                    aq_pow(x, -3),
                    aq_clamp(x, -0.5, 0.25),
                    aq_shift(aq_scale(x, 3), -2)};
    for (int k = 0; k < AQ_COUNT(y); k++) {
        double wanted[50];
        for (int i = 0; i < 50; i++)
            wanted[i] = at_element(k, in[i]);
        aq_test_expect(&b, y[k], wanted, 50);
    }
    double ones[50];
    for (int i = 0; i < 50; i++)
        ones[i] = 1;
    aq_test_expect(&b, aq_pow(x, 0), ones, 50);
    aq_bench_free(&b);
}

static void shapes_broadcast_as_in_numpy(void **state)
{
    (void)state;
    AqBench b = aq_bench_new(2);
    AqTensor x = aq_test_input(&b, "x", F32(2, 1, 4));
    AqTensor y = aq_test_input(&b, "y", F32(3, 1));
    AqTensor c = aq_test_input(&b, "c", F32(4));
    const double *xs = aq_test_data(&b, "x"), *ys = aq_test_data(&b, "y"),
                 *cs = aq_test_data(&b, "c");
    double difference[24], chosen[24];
    for (int i = 0; i < 24; i++) {
        double xi = xs[i / 12 * 4 + i % 4], yi = ys[i / 4 % 3];
        difference[i] = xi - yi;
        chosen[i] = cs[i % 4] < yi ? xi : yi;
    }
    aq_test_expect(&b, aq_subtract(x, y), difference, 24);
    aq_test_expect(&b, aq_select(aq_less(c, y), x, y), chosen, 24);
    aq_bench_free(&b);
}

/* ---- reductions and movement ---- */

static void reductions(void **state)
{
    (void)state;
    AqBench b = aq_bench_new(3);
    AqTensor x = aq_test_input(&b, "x", F32(2, 3, 4));
    const double *in = aq_test_data(&b, "x");
    double sum[3] = {0}, most[3] = {-9, -9, -9}, square[3] = {0}, variance[3];
    double soft[24], log_soft[24];
    for (int i = 0; i < 24; i++) {
        int k = i / 4 % 3;
        sum[k] += in[i];
        square[k] += in[i] * in[i];
        most[k] = fmax(most[k], in[i]);
        double below = 0;
        for (int j = 0; j < 4; j++)
            below += exp(in[i / 4 * 4 + j]);
        soft[i] = exp(in[i]) / below;
        log_soft[i] = in[i] - log(below);
    }
    AqTensor y = aq_sum(x, .axes = AQ_AXES(-1, 0), .keep = true);
    aq_test_expect_shape(y, AQ_SHAPE(1, 3, 1));
    aq_test_expect(&b, y, sum, 3);
    aq_test_expect(&b, aq_max(x, .axes = AQ_AXES(0, 2)), most, 3);
    AqMoments m = aq_moments(x, .axes = AQ_AXES(0, 2));
    for (int k = 0; k < 3; k++) {
        sum[k] /= 8;
        variance[k] = square[k] / 8 - sum[k] * sum[k];
    }
    aq_test_expect(&b, m.mean, sum, 3);
    aq_test_expect(&b, m.variance, variance, 3);
    aq_test_expect(&b, aq_mean(x, .axes = AQ_AXES(0, 2)), sum, 3);
    aq_test_expect(&b, aq_softmax(x, -1), soft, 24);
    aq_test_expect(&b, aq_log_softmax(x, 2), log_soft, 24);
    aq_test_expect_shape(aq_mean(x), AQ_SCALAR);
    aq_bench_free(&b);
}

static void movement(void **state)
{
    (void)state;
    AqBench b = aq_bench_new(4);
    AqTensor x = aq_test_input(&b, "x", F32(1, 2, 4, 3));
    const double *in = aq_test_data(&b, "x");
    double large[1 * 4 * 8 * 3], pooled[1 * 1 * 2 * 3], cut[2 * 2 * 3];
    for (int i = 0; i < AQ_COUNT(large); i++)
        large[i] = in[(i / 24 / 2 * 4 + i / 3 % 8 / 2) * 3 + i % 3];
    for (int i = 0; i < 6; i++) {
        int column = i / 3 * 2, c = i % 3;
        pooled[i] = (in[column * 3 + c] + in[(column + 1) * 3 + c] +
                     in[(4 + column) * 3 + c] + in[(5 + column) * 3 + c]) /
                    4;
    }
    for (int i = 0; i < AQ_COUNT(cut); i++)
        cut[i] = in[(i / 6 * 4 + 1 + i / 3 % 2 * 2) * 3 + i % 3];
    aq_test_expect(&b, aq_enlarge(x, 2), large, AQ_COUNT(large));
    aq_test_expect(&b, aq_average_pool(x, 2), pooled, 6);
    aq_test_expect(&b, aq_slice(x, 2, 1, 2, .step = 2), cut, AQ_COUNT(cut));
    aq_test_expect_shape(aq_extend(x, 1, 2, 1), AQ_SHAPE(1, 5, 4, 3));
    aq_test_expect_shape(aq_reshape(x, AQ_SHAPE(2, -1)), AQ_SHAPE(2, 12));
    aq_test_expect_shape(aq_transpose(x, AQ_AXES(3, 0, -2, 1)),
                         AQ_SHAPE(3, 1, 4, 2));
    aq_test_expect_shape(aq_concat(-1, x, x, x), AQ_SHAPE(1, 2, 4, 9));
    aq_bench_free(&b);
}

static void products_share_a_matrix(void **state)
{
    (void)state;
    AqBench b = aq_bench_new(5);
    AqTensor x = aq_test_input(&b, "x", F32(2, 3, 4));
    AqTensor w = aq_test_input(&b, "w", F32(5, 4));
    AqTensor z = aq_test_input(&b, "z", F32(1, 4, 5));
    const double *xs = aq_test_data(&b, "x"), *ws = aq_test_data(&b, "w"),
                 *zs = aq_test_data(&b, "z");
    double shared[30] = {0}, batched[30] = {0};
    for (int i = 0; i < 30; i++)
        for (int k = 0; k < 4; k++) {
            shared[i] += xs[i / 5 * 4 + k] * ws[i % 5 * 4 + k];
            batched[i] += xs[i / 5 * 4 + k] * zs[k * 5 + i % 5];
        }
    AqTensor y = aq_matmul(x, w, .transpose_b = true);
    aq_test_expect_shape(y, AQ_SHAPE(2, 3, 5));
    aq_test_expect(&b, y, shared, 30);
    aq_test_expect(&b, aq_matmul(x, z), batched, 30);
    aq_bench_free(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(activations),
        cmocka_unit_test(shapes_broadcast_as_in_numpy),
        cmocka_unit_test(reductions),
        cmocka_unit_test(movement),
        cmocka_unit_test(products_share_a_matrix),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
