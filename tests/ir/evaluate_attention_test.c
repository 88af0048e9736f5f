/* Attention against softmax written out with matrix products, its gradient
 * against central differences of the forward op. */
#include "tests/support/bench.h"

#include <math.h>
#include <setjmp.h>
#include <string.h>

#include <cmocka.h>

typedef struct Shape {
    int64_t batch, queries, keys, heads, depth;
    int bias; /* 0 none, 1 full, 2 one for all images and heads */
    bool causal;
} Shape;

static const Shape shapes[] = {
    {1, 1, 1, 1, 1, 0, false}, {2, 5, 7, 3, 4, 0, false},
    {2, 5, 7, 3, 4, 1, false}, {3, 4, 4, 2, 5, 2, false},
    {2, 6, 6, 2, 3, 0, true},  {1, 3, 7, 2, 8, 1, true},
    {2, 7, 3, 1, 2, 2, true},  {1, 13, 11, 1, 1, 0, false},
};

typedef struct Attention {
    AqId in[4]; /* q, k, v, bias */
    int n_inputs;
    AqAttr attrs[2];
    AqId out, lse;
} Attention;

static Attention build(AqBench *bench, const Shape *s)
{
    Attention a = {
        .in = {aq_bench_random(bench, "q",
                               F32(s->batch, s->queries, s->heads, s->depth)),
               aq_bench_random(bench, "k",
                               F32(s->batch, s->keys, s->heads, s->depth)),
               aq_bench_random(bench, "v",
                               F32(s->batch, s->keys, s->heads, s->depth))},
        .n_inputs = 3,
        .attrs = {aq_real(AQ_KEY_SCALE, 0.7), aq_int(AQ_KEY_CAUSAL, s->causal)},
    };
    bool full = s->bias == 1;
    if (s->bias)
        a.in[a.n_inputs++] = aq_bench_random(
            bench, "bias",
            F32(full ? s->batch : 1, full ? s->heads : 1, s->queries, s->keys));
    AqId both = BUILD(bench, attention, NULL, a.in, a.n_inputs, a.attrs, 2);
    a.out = aq_result_node(bench->g, both, 0);
    a.lse = aq_result_node(bench->g, both, 1);
    return a;
}

/* The same by definition: all scores, then softmax, then the mean of v. */
static void naive(const Shape *s, const double *const *in, double *out,
                  double *lse)
{
    for (int64_t row = 0; row < s->batch * s->heads * s->queries; row++) {
        int64_t i = row % s->queries, h = row / s->queries % s->heads;
        int64_t b = row / s->queries / s->heads;
        double sum = 0, weight[16];
        for (int64_t j = 0; j < s->keys; j++) {
            double score = 0;
            for (int64_t c = 0; c < s->depth; c++)
                score +=
                    in[0]
                      [((b * s->queries + i) * s->heads + h) * s->depth + c] *
                    in[1][((b * s->keys + j) * s->heads + h) * s->depth + c];
            score *= 0.7;
            if (s->bias == 1)
                score += in[3][row * s->keys + j];
            if (s->bias == 2)
                score += in[3][i * s->keys + j];
            weight[j] = s->causal && j > i ? 0 : exp(score);
            sum += weight[j];
        }
        lse[row] = log(sum);
        for (int64_t c = 0; c < s->depth; c++) {
            double mean = 0;
            for (int64_t j = 0; j < s->keys; j++)
                mean +=
                    weight[j] / sum *
                    in[2][((b * s->keys + j) * s->heads + h) * s->depth + c];
            out[((b * s->queries + i) * s->heads + h) * s->depth + c] = mean;
        }
    }
}

static void test_attention_is_softmax(void **state)
{
    (void)state;
    for (int i = 0; i < AQ_COUNT(shapes); i++) {
        const Shape *s = &shapes[i];
        AqBench bench = aq_bench_new((uint64_t)i + 1);
        Attention a = build(&bench, s);
        const double *in[4]; /* without a bias, in[3] is not read */
        for (int j = 0; j < 4; j++)
            in[j] = aq_bench_value(&bench, a.in[AQ_MIN(j, a.n_inputs - 1)]);
        int64_t outputs = aq_bench_count(&bench, a.out);
        int64_t rows = aq_bench_count(&bench, a.lse);
        assert_int_equal(rows, s->batch * s->heads * s->queries);
        double *out = AQ_NEW_ARRAY(bench.arena, double, outputs);
        double *lse = AQ_NEW_ARRAY(bench.arena, double, rows);
        naive(s, in, out, lse);
        aq_bench_close(aq_bench_value(&bench, a.out), out, outputs, 1e-13);
        aq_bench_close(aq_bench_value(&bench, a.lse), lse, rows, 1e-13);
        aq_bench_free(&bench);
    }
}

/* Scores of a thousand would overflow exp, were the largest not taken out. */
static void test_large_scores_do_not_overflow(void **state)
{
    (void)state;
    AqBench bench = aq_bench_new(1);
    AqId q = aq_bench_input(&bench, "q", F32(1, 1, 1, 1), (const double[]){1});
    AqId k = aq_bench_input(&bench, "k", F32(1, 2, 1, 1),
                            (const double[]){1000, 1001});
    AqId v =
        aq_bench_input(&bench, "v", F32(1, 2, 1, 1), (const double[]){0, 1});
    AqId both = BUILD(&bench, attention, NULL, INPUTS(q, k, v),
                      ATTRS(aq_real(AQ_KEY_SCALE, 1)));
    AqId out = aq_result_node(bench.g, both, 0);
    AqId lse = aq_result_node(bench.g, both, 1);
    double e = exp(1);
    aq_bench_close(aq_bench_value(&bench, out), (const double[]){e / (1 + e)},
                   1, 1e-12);
    aq_bench_close(aq_bench_value(&bench, lse),
                   (const double[]){1000 + log(1 + e)}, 1, 1e-12);
    aq_bench_free(&bench);
}

/* A query whose keys are all hidden has no weights: zero, and no gradient. */
static void test_hidden_row(void **state)
{
    (void)state;
    AqBench bench = aq_bench_new(1);
    AqType one = F32(1, 2, 1, 1);
    AqId q = aq_bench_random(&bench, "q", one);
    AqId k = aq_bench_random(&bench, "k", one);
    AqId v =
        aq_bench_input(&bench, "v", F32(1, 2, 1, 1), (const double[]){5, 7});
    AqId bias =
        aq_bench_input(&bench, "bias", F32(1, 1, 2, 2),
                       (const double[]){-INFINITY, -INFINITY, -INFINITY, 0});
    AqAttr scale = aq_real(AQ_KEY_SCALE, 1);
    AqId both =
        BUILD(&bench, attention, NULL, INPUTS(q, k, v, bias), ATTRS(scale));
    AqId out = aq_result_node(bench.g, both, 0);
    AqId lse = aq_result_node(bench.g, both, 1);
    aq_bench_close(aq_bench_value(&bench, out), (const double[]){0, 7}, 2,
                   1e-12);
    assert_true(aq_bench_value(&bench, lse)[0] == -INFINITY);
    AqId dout = aq_bench_random(&bench, "dout", one);
    AqId all = BUILD(&bench, attention_gradient, NULL,
                     INPUTS(q, k, v, out, lse, dout, bias), ATTRS(scale));
    for (int i = 0; i < 3; i++)
        assert_true(
            aq_bench_value(&bench, aq_result_node(bench.g, all, i))[0] == 0);
    aq_bench_free(&bench);
}

/* sum out * dout, as a function of the inputs' data. */
static double objective(AqBench *bench, const Attention *a, const double *dout)
{
    const double *out = aq_bench_value(bench, a->out);
    double sum = 0;
    for (int64_t i = 0; i < aq_bench_count(bench, a->out); i++)
        sum += out[i] * dout[i];
    return sum;
}

static void check_gradient(const Shape *s, uint64_t seed)
{
    AqBench bench = aq_bench_new(seed);
    Attention a = build(&bench, s);
    AqId dout = aq_bench_random(&bench, "dout", aq_node(bench.g, a.out)->type);
    AqId in[7] = {a.in[0], a.in[1], a.in[2], a.out, a.lse, dout, a.in[3]};
    AqId all =
        BUILD(&bench, attention_gradient, NULL, in, a.n_inputs + 3, a.attrs, 2);
    const double *direction = aq_bench_value(&bench, dout);
    for (int k = 0; k < 3; k++) {
        const double *gradient =
            aq_bench_value(&bench, aq_result_node(bench.g, all, k));
        double *data = (double *)bench.bindings[k].data;
        for (int64_t i = 0; i < aq_bench_count(&bench, a.in[k]); i++) {
            const double eps = 1e-5, here = data[i];
            data[i] = here + eps;
            double above = objective(&bench, &a, direction);
            data[i] = here - eps;
            double below = objective(&bench, &a, direction);
            data[i] = here;
            double slope = (above - below) / (2 * eps);
            if (fabs(slope - gradient[i]) > 1e-8)
                fail_msg("result %d, element %lld is %g, not %g", k,
                         (long long)i, gradient[i], slope);
        }
    }
    aq_bench_free(&bench);
}

static void test_gradient_is_the_slope(void **state)
{
    (void)state;
    for (int i = 0; i < AQ_COUNT(shapes); i++)
        check_gradient(&shapes[i], (uint64_t)i + 1);
}

/* Forward: two products.  Backward: four; what is formed again is not useful
 * work.  Causal: only pairs that are seen count. */
static void test_flops(void **state)
{
    (void)state;
    AqBench bench = aq_bench_new(1);
    Shape s = {2, 5, 7, 3, 4, 0, false};
    Attention a = build(&bench, &s);
    AqId both = aq_node(bench.g, a.out)->inputs[0];
    assert_true(aq_node_flops(bench.g, both) == 4. * 2 * 5 * 7 * 3 * 4);
    aq_bench_free(&bench);
    bench = aq_bench_new(1);
    s = (Shape){1, 5, 3, 1, 1, 0, true};
    a = build(&bench, &s);
    both = aq_node(bench.g, a.out)->inputs[0];
    assert_true(aq_node_flops(bench.g, both) == 4. * (1 + 2 + 3 + 3 + 3));
    aq_bench_free(&bench);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_attention_is_softmax),
        cmocka_unit_test(test_large_scores_do_not_overflow),
        cmocka_unit_test(test_hidden_row),
        cmocka_unit_test(test_gradient_is_the_slope),
        cmocka_unit_test(test_flops),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
