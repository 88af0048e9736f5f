/* Matrix products and convolutions against other formulations: products by
 * their definition, convolutions through an explicit matrix, and the identity
 * <conv(x, w), dy> = <x, input_gradient(dy, w)> = <w, weight_gradient(x, dy)>.
 */
#include "tests/support/bench.h"

#include <math.h>
#include <setjmp.h>
#include <stdlib.h>

#include <cmocka.h>

static double inner(const double *a, const double *b, int64_t count)
{
    double sum = 0;
    for (int64_t i = 0; i < count; i++)
        sum += a[i] * b[i];
    return sum;
}

/* ---- matmul ---- */

static void check_matmul(uint64_t *seed, bool ta, bool tb)
{
    AqBench bench = aq_bench_new(*seed);
    int64_t batch = 1 + aq_test_below(seed, 3), m = 1 + aq_test_below(seed, 9);
    int64_t n = 1 + aq_test_below(seed, 9), k = 1 + aq_test_below(seed, 9);
    AqId a =
        aq_bench_random(&bench, "a", F32(batch, 2, ta ? k : m, ta ? m : k));
    AqId b =
        aq_bench_random(&bench, "b", F32(batch, 2, tb ? n : k, tb ? k : n));
    const double *x = aq_bench_value(&bench, a), *y = aq_bench_value(&bench, b);
    AqId id = aq_matmul_node(bench.g, a, b, ta, tb);
    const double *got = aq_bench_value(&bench, id);
    for (int64_t at = 0; at < batch * 2 * m * n; at++) {
        int64_t j = at % n, i = at / n % m, p = at / n / m;
        double sum = 0;
        for (int64_t l = 0; l < k; l++)
            sum += x[p * m * k + (ta ? l * m + i : i * k + l)] *
                   y[p * k * n + (tb ? j * k + l : l * n + j)];
        assert_true(fabs(got[at] - sum) < 1e-12);
    }
    assert_true(aq_node_flops(bench.g, id) == (double)(4 * batch * m * n * k));
    aq_bench_free(&bench);
}

static void test_matmul(void **state)
{
    (void)state;
    uint64_t seed = 5;
    for (int round = 0; round < 40; round++)
        check_matmul(&seed, round & 1, round & 2);
}

/* ---- convolutions ---- */

typedef struct Shape {
    int64_t n, h, w, groups, in_each, out_each, kh, kw;
    int64_t stride[2], dilation[2], pad[4];
} Shape;

static int64_t out_size(int64_t in, int64_t kernel, int64_t stride,
                        int64_t dilation, int64_t before, int64_t after)
{
    return (in + before + after - (kernel - 1) * dilation - 1) / stride + 1;
}

static int64_t shape_height(const Shape *s)
{
    return out_size(s->h, s->kh, s->stride[0], s->dilation[0], s->pad[0],
                    s->pad[1]);
}

static int64_t shape_width(const Shape *s)
{
    return out_size(s->w, s->kw, s->stride[1], s->dilation[1], s->pad[2],
                    s->pad[3]);
}

static int64_t one_of(uint64_t *seed, const int64_t *choices, int count)
{
    return choices[aq_test_below(seed, count)];
}

#define ONE_OF(seed, ...) one_of(seed, DIMS_(__VA_ARGS__), RANK_(__VA_ARGS__))

/* Sizes are 1, primes and others; the last rows and columns may be unused. */
static Shape random_shape(uint64_t *seed)
{
    Shape s;
    do {
        s = (Shape){
            .n = ONE_OF(seed, 1, 2, 3),
            .h = ONE_OF(seed, 1, 2, 5, 7, 8, 11),
            .w = ONE_OF(seed, 1, 3, 4, 7, 8, 13),
            .groups = ONE_OF(seed, 1, 1, 2, 3),
            .in_each = ONE_OF(seed, 1, 2, 5, 9),
            .out_each = ONE_OF(seed, 1, 3, 4, 7, 17),
            .kh = ONE_OF(seed, 1, 2, 3, 5),
            .kw = ONE_OF(seed, 1, 3, 3, 4),
            .stride = {ONE_OF(seed, 1, 1, 2, 3), ONE_OF(seed, 1, 1, 2)},
            .dilation = {ONE_OF(seed, 1, 1, 2), ONE_OF(seed, 1, 1, 3)},
        };
        for (int i = 0; i < 4; i++)
            s.pad[i] = ONE_OF(seed, 0, 1, 2);
    } while (shape_height(&s) < 1 || shape_width(&s) < 1 ||
             s.h + s.pad[0] + s.pad[1] < (s.kh - 1) * s.dilation[0] + 1 ||
             s.w + s.pad[2] + s.pad[3] < (s.kw - 1) * s.dilation[1] + 1);
    return s;
}

typedef struct Conv {
    AqId x, w, dy, y, dx, dw;
    AqType x_type, w_type, y_type;
} Conv;

static Conv build(AqBench *bench, const Shape *s)
{
    AqGraph *g = bench->g;
    const AqAttr attrs[] = {aq_ints(AQ_KEY_STRIDE, s->stride, 2),
                            aq_ints(AQ_KEY_PAD, s->pad, 4),
                            aq_ints(AQ_KEY_DILATION, s->dilation, 2),
                            aq_int(AQ_KEY_GROUPS, s->groups)};
    Conv c = {
        .x_type = F32(s->n, s->h, s->w, s->groups * s->in_each),
        .w_type = F32(s->kh, s->kw, s->in_each, s->groups * s->out_each),
        .y_type =
            F32(s->n, shape_height(s), shape_width(s), s->groups * s->out_each),
    };
    c.x = aq_bench_random(bench, "x", c.x_type);
    c.w = aq_bench_random(bench, "w", c.w_type);
    c.dy = aq_bench_random(bench, "dy", c.y_type);
    c.y = BUILD(bench, conv2d, NULL, INPUTS(c.x, c.w), attrs, 4);
    c.dx = BUILD(bench, conv2d_input_gradient, &c.x_type, INPUTS(c.dy, c.w),
                 attrs, 4);
    c.dw = BUILD(bench, conv2d_weight_gradient, &c.w_type, INPUTS(c.x, c.dy),
                 attrs, 4);
    assert_true(aq_same_type(&aq_node(g, c.y)->type, &c.y_type));
    assert_true(aq_node_flops(g, c.y) == aq_node_flops(g, c.dx));
    assert_true(aq_node_flops(g, c.y) == aq_node_flops(g, c.dw));
    return c;
}

/* Copies x into a frame of zeros, then reads the frame without bounds. */
static double *framed(const Shape *s, const double *x, int64_t *height,
                      int64_t *width)
{
    int64_t channels = s->groups * s->in_each;
    *height = s->h + s->pad[0] + s->pad[1];
    *width = s->w + s->pad[2] + s->pad[3];
    double *frame =
        calloc((size_t)(s->n * *height * *width * channels), sizeof *frame);
    assert_non_null(frame);
    for (int64_t i = 0; i < s->n * s->h * s->w * channels; i++) {
        int64_t c = i % channels, column = i / channels % s->w;
        int64_t row = i / channels / s->w % s->h;
        int64_t n = i / channels / s->w / s->h;
        frame[((n * *height + row + s->pad[0]) * *width + column + s->pad[2]) *
                  channels +
              c] = x[i];
    }
    return frame;
}

static void naive_conv(const Shape *s, const double *x, const double *w,
                       double *y)
{
    int64_t height, width, channels = s->groups * s->in_each;
    int64_t filters = s->groups * s->out_each, ow = shape_width(s);
    double *frame = framed(s, x, &height, &width);
    for (int64_t at = 0; at < s->n * shape_height(s) * ow * filters; at++) {
        int64_t o = at % filters, j = at / filters % ow;
        int64_t i = at / filters / ow % shape_height(s);
        int64_t n = at / filters / ow / shape_height(s);
        y[at] = 0;
        for (int64_t c = 0; c < s->in_each; c++)
            for (int64_t p = 0; p < s->kh; p++)
                for (int64_t q = 0; q < s->kw; q++) {
                    int64_t row = i * s->stride[0] + p * s->dilation[0];
                    int64_t column = j * s->stride[1] + q * s->dilation[1];
                    int64_t from = o / s->out_each * s->in_each + c;
                    y[at] +=
                        frame[((n * height + row) * width + column) * channels +
                              from] *
                        w[((p * s->kw + q) * s->in_each + c) * filters + o];
                }
    }
    free(frame);
}

static void check_conv(uint64_t seed)
{
    uint64_t start = seed;
    Shape s = random_shape(&seed);
    AqBench bench = aq_bench_new(seed);
    Conv c = build(&bench, &s);
    const double *x = aq_bench_value(&bench, c.x);
    const double *w = aq_bench_value(&bench, c.w);
    const double *dy = aq_bench_value(&bench, c.dy);
    const double *y = aq_bench_value(&bench, c.y);
    int64_t outputs = aq_elements(&c.y_type);
    double *wanted = AQ_NEW_ARRAY(bench.arena, double, outputs);
    naive_conv(&s, x, w, wanted);
    aq_bench_close(y, wanted, outputs, 1e-12);

    double forward = inner(y, dy, outputs);
    double input =
        inner(x, aq_bench_value(&bench, c.dx), aq_elements(&c.x_type));
    double weight =
        inner(w, aq_bench_value(&bench, c.dw), aq_elements(&c.w_type));
    if (fabs(forward - input) > 1e-10 || fabs(forward - weight) > 1e-10)
        fail_msg("seed %llu: %g, %g, %g differ", (unsigned long long)start,
                 forward, input, weight);
    aq_bench_free(&bench);
}

static void test_convolutions(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 200; seed++)
        check_conv(seed);
}

/* One number by hand: x = 1 2 / 3 4, w = 10 20 / 30 40, no padding. */
static void test_a_convolution_by_hand(void **state)
{
    (void)state;
    AqBench bench = aq_bench_new(1);
    AqId x = aq_bench_input(&bench, "x", F32(1, 2, 2, 1),
                            (const double[]){1, 2, 3, 4});
    AqId w = aq_bench_input(&bench, "w", F32(2, 2, 1, 1),
                            (const double[]){10, 20, 30, 40});
    AqId y = BUILD(&bench, conv2d, NULL, INPUTS(x, w), NONE);
    aq_bench_close(aq_bench_value(&bench, y), (const double[]){300}, 1, 0);
    y = BUILD(&bench, conv2d, NULL, INPUTS(x, w), ATTRS(INTS(PAD, 1, 0, 0, 1)));
    const double wanted[] = {1 * 30 + 2 * 40, 2 * 30, 300, 2 * 10 + 4 * 30};
    aq_bench_close(aq_bench_value(&bench, y), wanted, 4, 0);
    assert_true(aq_node_flops(bench.g, y) == 4 * 4 * 2);
    aq_bench_free(&bench);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_matmul),
        cmocka_unit_test(test_a_convolution_by_hand),
        cmocka_unit_test(test_convolutions),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
