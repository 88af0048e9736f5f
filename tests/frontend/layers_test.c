/* Layers against plain loops. */
#include "tests/support/tensors.h"

#include <math.h>
#include <setjmp.h>
#include <string.h>

#include <cmocka.h>

/* ---- layers ---- */

static void linear(void **state)
{
    (void)state;
    AqBench b = aq_bench_new(6);
    AqTensor x = aq_test_input(&b, "x", F32(2, 3, 4));
    AqTensor y = aq_linear(aq_sub(aq_root(b.g), "fc"), x, 5);
    const double *w = aq_test_fill(&b, "fc.weight", 20),
                 *bias = aq_test_fill(&b, "fc.bias", 5);
    const double *in = aq_test_data(&b, "x");
    double wanted[30];
    for (int i = 0; i < 30; i++) {
        wanted[i] = bias[i % 5];
        for (int k = 0; k < 4; k++)
            wanted[i] += in[i / 5 * 4 + k] * w[k * 5 + i % 5];
    }
    aq_test_expect_shape(y, AQ_SHAPE(2, 3, 5));
    aq_test_expect(&b, y, wanted, 30);
    const AqParamTable *table = aq_params(b.g);
    assert_int_equal(table->count, 2);
    assert_int_equal(table->at[0].file[0], 1);
    assert_string_equal(table->at[1].init, "uniform");
    assert_true(table->at[1].value == 0.5);
    assert_int_equal(table->at[1].offset, 32);
    assert_int_equal(table->floats, 48);
    aq_bench_free(&b);
}

typedef struct Conv {
    int n, h, w, c, o, k, stride, dilation, groups;
    AqPadding pad;
} Conv;

/* y[n,i,j,o] = b[o] + sum x[n, i stride + p dilation - top, ..., c] w[p,q,c,o]
 */
static void plain_conv(const Conv *s, const double *x, const double *w,
                       const double *bias, int oh, int ow, double *y)
{
    int each = s->c / s->groups, outs = s->o / s->groups;
    for (int i = 0; i < s->n * oh * ow * s->o; i++) {
        int o = i % s->o, column = i / s->o % ow, row = i / s->o / ow % oh;
        int n = i / s->o / ow / oh, first = o / outs * each;
        y[i] = bias[o];
        for (int k = 0; k < s->k * s->k * each; k++) {
            int c = k % each, q = k / each % s->k, p = k / each / s->k;
            int r = row * s->stride + p * s->dilation - s->pad.top;
            int t = column * s->stride + q * s->dilation - s->pad.left;
            if (r < 0 || r >= s->h || t < 0 || t >= s->w)
                continue;
            y[i] += x[((n * s->h + r) * s->w + t) * s->c + first + c] *
                    w[k * s->o + o];
        }
    }
}

static void check_conv(Conv s, AqPadding given, int oh, int ow)
{
    AqBench b = aq_bench_new(7);
    AqTensor x = aq_test_input(&b, "x", F32(s.n, s.h, s.w, s.c));
    AqTensor y =
        aq_conv2d(aq_root(b.g), x, s.o, .kernel = s.k, .stride = s.stride,
                  .dilation = s.dilation, .groups = s.groups, .padding = given);
    const double *w =
        aq_test_fill(&b, "weight", (int64_t)s.k * s.k * s.c / s.groups * s.o);
    const double *bias = aq_test_fill(&b, "bias", s.o);
    aq_test_expect_shape(y, AQ_SHAPE(s.n, oh, ow, s.o));
    int64_t count = (int64_t)s.n * oh * ow * s.o;
    double *wanted = AQ_NEW_ARRAY(b.arena, double, count);
    plain_conv(&s, aq_test_data(&b, "x"), w, bias, oh, ow, wanted);
    aq_test_expect(&b, y, wanted, count);
    aq_bench_free(&b);
}

static void convolution(void **state)
{
    (void)state;
    AqPadding none = {0};
    check_conv((Conv){2, 5, 6, 3, 4, 3, 1, 1, 1, AQ_PAD(1, 1, 1, 1)}, none, 5,
               6);
    check_conv((Conv){1, 5, 6, 4, 6, 3, 2, 1, 2, AQ_PAD(0, 1, 0, 1)},
               AQ_PAD(0, 1, 0, 1), 2, 3);
    check_conv((Conv){1, 7, 7, 2, 2, 3, 1, 2, 1, AQ_PAD(2, 2, 2, 2)}, none, 7,
               7);
    check_conv((Conv){1, 4, 4, 2, 2, 1, 1, 1, 1, AQ_VALID}, none, 4, 4);
    check_conv((Conv){1, 6, 5, 2, 3, 3, 1, 1, 1, AQ_VALID}, AQ_VALID, 4, 3);
    /* an even kernel: the odd row of zeros is the last */
    check_conv((Conv){1, 4, 4, 1, 1, 2, 1, 1, 1, AQ_PAD(0, 1, 0, 1)}, none, 4,
               4);
}

static void defaults_of_convolution(void **state)
{
    (void)state;
    AqBench b = aq_bench_new(8);
    AqTensor x = aq_test_input(&b, "x", F32(1, 6, 8, 4));
    AqScope s = aq_root(b.g);
    aq_test_expect_shape(aq_conv2d(aq_sub(s, "a"), x, 5), AQ_SHAPE(1, 6, 8, 5));
    aq_test_expect_shape(aq_upsample(aq_sub(s, "b"), x),
                         AQ_SHAPE(1, 12, 16, 4));
    aq_test_expect_shape(aq_downsample(aq_sub(s, "c"), x, .channels = 3),
                         AQ_SHAPE(1, 3, 4, 3));
    aq_test_expect_shape(
        aq_conv2d(aq_sub(s, "d"), x, 5, .no_bias = true, .zero = true),
        AQ_SHAPE(1, 6, 8, 5));
    const AqParamTable *table = aq_params(b.g);
    assert_int_equal(table->count, 7);
    assert_true(table->at[0].value == 1 / sqrt(36));
    assert_string_equal(table->at[2].name, "b.conv.weight");
    assert_string_equal(table->at[6].name, "d.weight");
    assert_string_equal(table->at[6].init, "zeros");
    aq_bench_free(&b);
}

/* (x - mean) / sqrt(variance + eps) weight + bias over the members that
 * `group` gives to the same number */
static void plain_norm(const double *x, int count, int channels,
                       int (*group)(int), const double *weight,
                       const double *bias, double eps, double *y)
{
    for (int i = 0; i < count; i++) {
        double sum = 0, square = 0, members = 0;
        for (int j = 0; j < count; j++)
            if (group(j) == group(i)) {
                sum += x[j];
                members++;
            }
        for (int j = 0; j < count; j++)
            if (group(j) == group(i))
                square += pow(x[j] - sum / members, 2);
        y[i] = (x[i] - sum / members) / sqrt(square / members + eps);
        if (weight)
            y[i] = y[i] * weight[i % channels] + bias[i % channels];
    }
}

/* of (2, 3, 2, 6) in 3 groups: sample and pair of channels */
static int group_of_image(int i)
{
    return i / 36 * 3 + i % 6 / 2;
}

static int group_of_vector(int i) /* of (2, 6) in 3 groups */
{
    return i / 6 * 3 + i % 6 / 2;
}

static int last_axis(int i) /* of (..., 6) */
{
    return i / 6;
}

static void norms(void **state)
{
    (void)state;
    AqBench b = aq_bench_new(9);
    AqTensor x = aq_test_input(&b, "x", F32(2, 3, 2, 6));
    AqTensor v = aq_test_input(&b, "v", F32(2, 6));
    AqScope s = aq_root(b.g);
    AqTensor group =
        aq_group_norm(aq_sub(s, "g"), x, .groups = 3, .epsilon = 1e-3);
    AqTensor vector =
        aq_group_norm(aq_sub(s, "v"), v, .groups = 3, .no_affine = true);
    AqTensor layer = aq_layer_norm(aq_sub(s, "l"), x);
    AqTensor plain = aq_layer_norm(s, x, .no_affine = true, .epsilon = 1e-6);
    const double *gw = aq_test_fill(&b, "g.weight", 6),
                 *gb = aq_test_fill(&b, "g.bias", 6);
    const double *lw = aq_test_fill(&b, "l.weight", 6),
                 *lb = aq_test_fill(&b, "l.bias", 6);
    const double *xs = aq_test_data(&b, "x"), *vs = aq_test_data(&b, "v");
    double wanted[72];
    plain_norm(xs, 72, 6, group_of_image, gw, gb, 1e-3, wanted);
    aq_test_expect(&b, group, wanted, 72);
    plain_norm(vs, 12, 6, group_of_vector, NULL, NULL, 1e-5, wanted);
    aq_test_expect(&b, vector, wanted, 12);
    plain_norm(xs, 72, 6, last_axis, lw, lb, 1e-5, wanted);
    aq_test_expect(&b, layer, wanted, 72);
    plain_norm(xs, 72, 6, last_axis, NULL, NULL, 1e-6, wanted);
    aq_test_expect(&b, plain, wanted, 72);
    assert_int_equal(aq_params(b.g)->count, 4);
    aq_bench_free(&b);
}

/* The numbers of Stable Diffusion and of DDPM for 8 units at t = 10. */
static void timesteps(void **state)
{
    (void)state;
    AqBench b = aq_bench_new(10);
    AqTensor t = aq_test_tensor(
        &b, aq_bench_input(&b, "t", I32(1), (const double[]){10}));
    static const double sd[] = {-0.839072, 0.540302, 0.995004, 0.999950,
                                -0.544021, 0.841471, 0.099833, 0.010000};
    static const double ddpm[] = {-0.544021, 0.447671, 0.021543, 0.001000,
                                  -0.839072, 0.894198, 0.999768, 1.0};
    AqTensor a = aq_timestep_embedding(t, 8, .flip_sin_to_cos = true);
    AqTensor d = aq_timestep_embedding(t, 8, .freq_shift = 1);
    aq_bench_close(aq_bench_value(&b, a.id), sd, 8, 1e-6);
    aq_bench_close(aq_bench_value(&b, d.id), ddpm, 8, 1e-6);
    AqTensor odd = aq_timestep_embedding(t, 9);
    aq_test_expect_shape(odd, AQ_SHAPE(1, 9));
    assert_true(aq_bench_value(&b, odd.id)[8] == 0);
    aq_bench_free(&b);
}

static void embedding(void **state)
{
    (void)state;
    AqBench b = aq_bench_new(11);
    AqTensor k = aq_test_tensor(
        &b, aq_bench_input(&b, "k", I32(3), (const double[]){2, 0, 2}));
    AqTensor y = aq_embedding(aq_sub(aq_root(b.g), "e"), k, 4, 2);
    const double *w = aq_test_fill(&b, "e.weight", 8);
    double wanted[] = {w[4], w[5], w[0], w[1], w[4], w[5]};
    aq_test_expect_shape(y, AQ_SHAPE(3, 2));
    aq_test_expect(&b, y, wanted, 6);
    aq_bench_free(&b);
}

/* ---- attention ---- */

typedef struct Scores {
    int n, t, s, heads, d;
    bool causal;
    const double *bias; /* (heads, t, s) or NULL */
} Scores;

static void plain_attention(const Scores *a, const double *q, const double *k,
                            const double *v, double *y)
{
    int c = a->heads * a->d;
    for (int i = 0; i < a->n * a->t * c; i++) {
        int channel = i % c, row = i / c % a->t, n = i / c / a->t;
        int head = channel / a->d;
        double above = 0, below = 0;
        for (int j = 0; j < (a->causal ? row + 1 : a->s); j++) {
            double score = 0;
            for (int e = head * a->d; e < (head + 1) * a->d; e++)
                score += q[(n * a->t + row) * c + e] *
                         k[(n * a->s + j) * c + e] / sqrt(a->d);
            if (a->bias)
                score += a->bias[(head * a->t + row) * a->s + j];
            above += exp(score) * v[(n * a->s + j) * c + channel];
            below += exp(score);
        }
        y[i] = above / below;
    }
}

static void attention(void **state)
{
    (void)state;
    AqBench b = aq_bench_new(12);
    AqTensor q = aq_test_input(&b, "q", F32(2, 3, 8));
    AqTensor k = aq_test_input(&b, "k", F32(2, 4, 8));
    AqTensor v = aq_test_input(&b, "v", F32(2, 4, 8));
    AqTensor bias = aq_test_input(&b, "bias", F32(1, 2, 3, 4));
    const double *qs = aq_test_data(&b, "q"), *ks = aq_test_data(&b, "k"),
                 *vs = aq_test_data(&b, "v");
    Scores cross = {2, 3, 4, 2, 4, false, aq_test_data(&b, "bias")};
    Scores self = {2, 4, 4, 4, 2, true, NULL};
    double wanted[64];
    plain_attention(&cross, qs, ks, vs, wanted);
    aq_test_expect(&b, aq_attention(q, k, v, .heads = 2, .bias = bias), wanted,
                   48);
    plain_attention(&self, ks, ks, vs, wanted);
    aq_test_expect(&b, aq_attention(k, k, v, .heads = 4, .causal = true),
                   wanted, 64);
    aq_bench_free(&b);
}

static void attention_layer_has_diffusers_names(void **state)
{
    (void)state;
    AqBench b = aq_bench_new(13);
    AqTensor x = aq_test_input(&b, "x", F32(2, 3, 8));
    AqTensor context = aq_test_input(&b, "context", F32(2, 5, 6));
    AqTensor y = aq_attention_layer(aq_sub(aq_root(b.g), "attn2"), x, 2,
                                    .context = context, .units = 4,
                                    .no_bias = true, .zero = true);
    aq_test_expect_shape(y, AQ_SHAPE(2, 3, 8));
    static const char *const names[] = {
        "attn2.to_q.weight", "attn2.to_k.weight", "attn2.to_v.weight",
        "attn2.to_out.0.weight", "attn2.to_out.0.bias"};
    const AqParamTable *table = aq_params(b.g);
    assert_int_equal(table->count, AQ_COUNT(names));
    for (int i = 0; i < table->count; i++)
        assert_string_equal(table->at[i].name, names[i]);
    assert_int_equal(table->at[1].type.dim[0], 6);
    assert_int_equal(table->at[1].type.dim[1], 4);
    assert_string_equal(table->at[3].init, "zeros");
    aq_bench_free(&b);
}

/* ---- randomness ---- */

static void dropout(void **state)
{
    (void)state;
    AqBench b = aq_bench_new(14);
    double ones[4000];
    for (int i = 0; i < 4000; i++)
        ones[i] = 1;
    AqTensor x =
        aq_test_tensor(&b, aq_bench_input(&b, "x", F32(4, 1000), ones));
    AqDraw draw = {
        aq_test_tensor(
            &b, aq_bench_input(&b, "key", I32(2), (const double[]){7, -9})),
        aq_test_tensor(&b, aq_bench_input(&b, "step", aq_type(AQ_I32, 0, NULL),
                                          (const double[]){3})),
        aq_test_tensor(&b, aq_bench_input(&b, "sample", I32(4),
                                          (const double[]){5, 6, 5, 8}))};
    AqScope quiet = aq_sub(aq_root(b.g), "drop");
    assert_int_equal(aq_dropout(quiet, x, 0.25).id, x.id);
    AqTensor y = aq_dropout(aq_drawing(quiet, draw), x, 0.25);
    const double *out = aq_bench_value(&b, y.id);
    int dropped = 0;
    for (int i = 0; i < 4000; i++) {
        assert_true(out[i] == 0 || fabs(out[i] - 4.0 / 3) < 1e-15);
        dropped += out[i] == 0;
    }
    assert_in_range(dropped, 880, 1120); /* 1000 +- 4 deviations */
    /* the same sample draws the same, another one does not */
    assert_memory_equal(out, out + 2000, 1000 * sizeof(double));
    assert_memory_not_equal(out, out + 1000, 1000 * sizeof(double));
    aq_bench_free(&b);
}

/* ---- where nodes come from ---- */

static void nodes_know_their_scope_and_line(void **state)
{
    (void)state;
    AqBench b = aq_bench_new(15);
    AqTensor x = aq_test_input(&b, "x", F32(1, 4, 4, 8));
    AqScope s = aq_sub(aq_sub(aq_root(b.g), "mid"), "res.%d", 3);
    AqTensor h = aq_conv2d(aq_sub(s, "conv"), x, 8);
    int line = __LINE__ + 1;
    AqTensor y = aq_silu(h);
    AqTensor z = aq_add(y, aq_neg(x));
    const AqNode *node = aq_node(b.g, y.id);
    assert_string_equal(node->scope, "mid.res.3.conv");
    assert_int_equal(node->line, line);
    assert_non_null(strstr(node->file, "layers_test.c"));
    assert_string_equal(aq_node(b.g, z.id)->scope, "");
    AqTensor w = aq_subtract(y, x);
    assert_string_equal(aq_node(b.g, w.id)->scope, "mid.res.3.conv");
    assert_int_equal(aq_node(b.g, z.id)->line, line + 1);
    aq_bench_free(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(linear),
        cmocka_unit_test(convolution),
        cmocka_unit_test(defaults_of_convolution),
        cmocka_unit_test(norms),
        cmocka_unit_test(timesteps),
        cmocka_unit_test(embedding),
        cmocka_unit_test(attention),
        cmocka_unit_test(attention_layer_has_diffusers_names),
        cmocka_unit_test(dropout),
        cmocka_unit_test(nodes_know_their_scope_and_line),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
