/* Layers with parameters: PyTorch's names, and its initial values. */
#include "frontend/dsl/build.h"

#include <math.h>

/* A layer that got a wrong tensor: an error unless there is one already. */
static bool start_layer(AqPlace *at, const char *what, AqScope s, AqTensor x)
{
    if (!aq_enter_scope(at, s))
        return false;
    if (!x.graph) {
        aq_complain(*at, s.graph, "%s: the input is no tensor", what);
        return false;
    }
    return aq_enter(*at, what, &x, 1) != NULL;
}

static AqTensor needs(AqPlace at, AqTensor x, const char *what,
                      const char *shape)
{
    return aq_complain(at, x.graph, "%s: the input is %s, not %s", what,
                       aq_type_name(x.graph, aq_type_of(x)), shape);
}

/* ---- linear ---- */

/* y = x w + b */
AqTensor aq_linear_(AqPlace at, AqLinear a)
{
    if (!start_layer(&at, "linear", a.scope, a.x))
        return aq_wrap(a.scope.graph, AQ_NO_NODE);
    if (a.units < 1)
        return aq_complain(
            at, a.scope.graph,
            "linear: the number of units must be positive, not %d", a.units);
    AqShape shape = aq_shape(a.x);
    if (shape.rank < 2)
        return needs(at, a.x, "linear", "(N, ..., I)");
    int64_t inputs = shape.dim[shape.rank - 1];
    AqInit init = a.zero ? AQ_INIT_ZEROS : AQ_INIT_UNIFORM;
    double bound = inputs > 0 ? 1 / sqrt((double)inputs) : 0;
    AqTensor w = aq_param(a.scope, "weight", AQ_SHAPE(inputs, a.units),
                          .init = init, .value = bound, .file = AQ_AXES(1, 0));
    AqTensor flat = aq_reshape(a.x, AQ_SHAPE(-1, inputs));
    AqTensor y = aq_matmul(flat, w);
    if (!a.no_bias)
        y = aq_add(y, aq_param(a.scope, "bias", AQ_SHAPE(a.units), .init = init,
                               .value = bound));
    shape.dim[shape.rank - 1] = a.units;
    return aq_good(y) ? aq_reshape(y, shape) : y;
}

/* ---- convolution ---- */

/* Zeros that keep the size at stride 1; an odd one goes to the end. */
static AqPadding same_padding(int kernel, int dilation)
{
    int all = dilation * (kernel - 1);
    return AQ_PAD(all / 2, all - all / 2, all / 2, all - all / 2);
}

static bool sensible_conv(AqPlace at, const AqConv2d *a, int64_t inputs)
{
    AqGraph *g = a->x.graph;
    if (a->channels < 1)
        aq_complain(at, g,
                    "conv2d: the number of channels must be positive, not %d",
                    a->channels);
    else if (a->kernel < 1 || a->stride < 1 || a->dilation < 1)
        aq_complain(at, g,
                    "conv2d: kernel %d, stride %d, dilation %d must be "
                    "positive",
                    a->kernel, a->stride, a->dilation);
    else if (a->groups < 1 || inputs % a->groups || a->channels % a->groups)
        aq_complain(at, g,
                    "conv2d: %lld and %d channels are not whole numbers of %d "
                    "groups",
                    (long long)inputs, a->channels, a->groups);
    else if (a->padding.top < 0 || a->padding.bottom < 0 ||
             a->padding.left < 0 || a->padding.right < 0)
        aq_complain(at, g, "conv2d: padding must not be negative");
    return g->error.status == AQ_OK;
}

static AqTensor convolve(AqPlace at, const AqConv2d *a, AqTensor w)
{
    AqTensor both[] = {a->x, w};
    AqGraph *g = aq_enter(at, "conv2d", both, 2);
    if (!g)
        return aq_lost(a->x);
    AqId inputs[] = {a->x.id, w.id};
    int64_t stride[] = {a->stride, a->stride};
    int64_t dilation[] = {a->dilation, a->dilation};
    int64_t pad[] = {a->padding.top, a->padding.bottom, a->padding.left,
                     a->padding.right};
    AqAttr attrs[] = {
        aq_ints(AQ_KEY_STRIDE, stride, 2),
        aq_ints(AQ_KEY_PAD, pad, 4),
        aq_ints(AQ_KEY_DILATION, dilation, 2),
        aq_int(AQ_KEY_GROUPS, a->groups),
    };
    return aq_wrap(
        g, aq_build(g, AQ_OP_conv2d, NULL, inputs, 2, attrs, AQ_COUNT(attrs)));
}

AqTensor aq_conv2d_(AqPlace at, AqConv2d a)
{
    if (!start_layer(&at, "conv2d", a.scope, a.x))
        return aq_wrap(a.scope.graph, AQ_NO_NODE);
    if (aq_type_of(a.x)->rank != 4)
        return needs(at, a.x, "conv2d", "(N, H, W, C)");
    a.kernel = a.kernel ? a.kernel : 3;
    a.stride = a.stride ? a.stride : 1;
    a.dilation = a.dilation ? a.dilation : 1;
    a.groups = a.groups ? a.groups : 1;
    if (!a.padding.given)
        a.padding = same_padding(a.kernel, a.dilation);
    int64_t inputs = aq_type_of(a.x)->dim[3];
    if (!sensible_conv(at, &a, inputs))
        return aq_lost(a.x);
    int64_t fan_in = (int64_t)a.kernel * a.kernel * (inputs / a.groups);
    AqInit init = a.zero ? AQ_INIT_ZEROS : AQ_INIT_UNIFORM;
    double bound = fan_in > 0 ? 1 / sqrt((double)fan_in) : 0;
    AqTensor w =
        aq_param(a.scope, "weight",
                 AQ_SHAPE(a.kernel, a.kernel, inputs / a.groups, a.channels),
                 .init = init, .value = bound, .file = AQ_AXES(3, 2, 0, 1));
    AqTensor y = convolve(at, &a, w);
    if (a.no_bias || !aq_good(y))
        return y;
    return aq_add(y, aq_param(a.scope, "bias", AQ_SHAPE(a.channels),
                              .init = init, .value = bound));
}

/* ---- norms ---- */

/* gamma and beta (C), or none */
static void affine(AqPlace at, const AqNorm *a, int64_t channels,
                   AqTensor *gamma, AqTensor *beta)
{
    *gamma = *beta = AQ_NONE;
    if (a->no_affine)
        return;
    *gamma =
        aq_param(a->scope, "weight", AQ_SHAPE(channels), .init = AQ_INIT_ONES);
    *beta = aq_param(a->scope, "bias", AQ_SHAPE(channels));
}

/* y = x scale + shift, scale = gamma / sqrt(variance + epsilon), shift = beta -
 * mean scale.  mean, variance (N, C) or (..., 1); x is rearranged to them. */
static AqTensor apply_norm(AqPlace at, AqTensor x, AqTensor mean, AqTensor rstd,
                           AqTensor gamma, AqTensor beta, AqShape apply)
{
    AqTensor scale = aq_is_none(gamma) ? rstd : aq_mul(rstd, gamma);
    AqTensor shift = aq_neg(aq_mul(mean, scale));
    if (!aq_is_none(beta))
        shift = aq_add(shift, beta);
    scale = aq_reshape(scale, apply);
    shift = aq_reshape(shift, apply);
    return aq_add(aq_mul(x, scale), shift);
}

/* Chan's formula joins the moments of each channel: x (N, ..., C) has mean_c
 * and M2_c over the L places between; of a group, mean = avg mean_c and M2 =
 * sum (M2_c + L (mean_c - mean)^2).  -> (N, groups, 1) */
static void group_moments(AqPlace at, AqTensor x, int groups, AqTensor *mean,
                          AqTensor *variance)
{
    AqAxes between = {0};
    if (aq_rank(x) == 2)
        x = aq_reshape(x, AQ_SHAPE(aq_dim(x, 0), 1, aq_dim(x, 1)));
    for (int i = 1; i < aq_rank(x) - 1; i++)
        between.axis[between.count++] = i;
    AqMoments each = aq_moments(x, .axes = between);
    AqShape grouped = AQ_SHAPE(aq_dim(x, 0), groups, aq_dim(x, -1) / groups);
    AqTensor mean_c = aq_reshape(each.mean, grouped);
    AqTensor var_c = aq_reshape(each.variance, grouped);
    *mean = aq_mean(mean_c, .axes = AQ_AXES(2), .keep = true);
    AqTensor off = aq_square(aq_subtract(mean_c, *mean));
    *variance = aq_mean(aq_add(var_c, off), .axes = AQ_AXES(2), .keep = true);
}

AqTensor aq_group_norm_(AqPlace at, AqNorm a)
{
    if (!start_layer(&at, "group_norm", a.scope, a.x))
        return aq_wrap(a.scope.graph, AQ_NO_NODE);
    AqShape shape = aq_shape(a.x), apply = shape;
    if (shape.rank < 2)
        return needs(at, a.x, "group_norm", "(N, ..., C)");
    int64_t n = shape.dim[0], channels = shape.dim[shape.rank - 1];
    int groups = a.groups ? a.groups : 32;
    if (groups < 1 || channels % groups)
        return aq_complain(at, a.x.graph,
                           "group_norm: %lld channels are not a whole number "
                           "of %d groups",
                           (long long)channels, groups);
    AqTensor gamma, beta, mean, variance;
    affine(at, &a, channels, &gamma, &beta);
    group_moments(at, a.x, groups, &mean, &variance);
    double epsilon = a.epsilon > 0 ? a.epsilon : 1e-5;
    AqTensor rstd = aq_rsqrt(aq_shift(variance, epsilon));
    AqShape grouped = AQ_SHAPE(n, groups, channels / groups);
    rstd = aq_reshape(aq_broadcast(rstd, grouped), AQ_SHAPE(n, channels));
    mean = aq_reshape(aq_broadcast(mean, grouped), AQ_SHAPE(n, channels));
    for (int i = 1; i < shape.rank - 1; i++)
        apply.dim[i] = 1;
    return apply_norm(at, a.x, mean, rstd, gamma, beta, apply);
}

AqTensor aq_layer_norm_(AqPlace at, AqNorm a)
{
    if (!start_layer(&at, "layer_norm", a.scope, a.x))
        return aq_wrap(a.scope.graph, AQ_NO_NODE);
    AqShape shape = aq_shape(a.x);
    if (shape.rank < 1)
        return needs(at, a.x, "layer_norm", "(..., C)");
    AqTensor gamma, beta;
    affine(at, &a, shape.dim[shape.rank - 1], &gamma, &beta);
    AqMoments m = aq_moments(a.x, .axes = AQ_AXES(-1), .keep = true);
    double epsilon = a.epsilon > 0 ? a.epsilon : 1e-5;
    AqTensor rstd = aq_rsqrt(aq_shift(m.variance, epsilon));
    AqTensor y = aq_mul(aq_subtract(a.x, m.mean), rstd);
    return a.no_affine ? y : aq_add(aq_mul(y, gamma), beta);
}

/* ---- embeddings ---- */

AqTensor aq_embedding_(AqPlace at, AqEmbedding a)
{
    if (!start_layer(&at, "embedding", a.scope, a.index))
        return aq_wrap(a.scope.graph, AQ_NO_NODE);
    if (a.count < 1 || a.units < 1)
        return aq_complain(at, a.scope.graph,
                           "embedding: the numbers of rows and units must be "
                           "positive, not %d and %d",
                           a.count, a.units);
    AqTensor table = aq_param(a.scope, "weight", AQ_SHAPE(a.count, a.units),
                              .init = AQ_INIT_NORMAL, .value = 1);
    return aq_gather(table, a.index);
}

AqTensor aq_timestep_embedding_(AqPlace at, AqTimestep a)
{
    AqGraph *g = aq_enter(at, "timestep_embedding", &a.t, 1);
    if (!g)
        return aq_lost(a.t);
    int half = a.units / 2;
    double period = a.period ? a.period : 10000;
    if (half < 1 || !(half - a.freq_shift > 0) || !(period > 0))
        return aq_complain(at, g,
                           "timestep_embedding: %d units, freq_shift %g and "
                           "period %g make no frequencies",
                           a.units, a.freq_shift, period);
    if (aq_type_of(a.t)->rank != 1)
        return needs(at, a.t, "timestep_embedding", "(N)");
    double *frequency = AQ_NEW_ARRAY(g->arena, double, half);
    if (!frequency)
        return aq_wrap(g, aq_graph_fail(g, AQ_NO_MEMORY, "memory ended"));
    for (int i = 0; i < half; i++)
        frequency[i] = exp(-log(period) * i / (half - a.freq_shift));
    AqTensor t = aq_reshape(aq_to_real(a.t), AQ_SHAPE(-1, 1));
    AqTensor angle = aq_mul(t, aq_table(g, AQ_SHAPE(1, half), frequency));
    AqTensor sine = aq_sin(angle), cosine = aq_cos(angle);
    AqTensor both = a.flip_sin_to_cos ? aq_concat(-1, cosine, sine)
                                      : aq_concat(-1, sine, cosine);
    return a.units % 2 ? aq_extend(both, -1, 0, 1) : both;
}

/* ---- other sizes ---- */

AqTensor aq_upsample_(AqPlace at, AqResample a)
{
    AqTensor h = aq_enlarge(a.x, 2);
    int channels = a.channels ? a.channels : aq_channels(h);
    return aq_conv2d(aq_sub(a.scope, "conv"), h, channels,
                     .padding = a.padding);
}

AqTensor aq_downsample_(AqPlace at, AqResample a)
{
    int channels = a.channels ? a.channels : aq_channels(a.x);
    return aq_conv2d(aq_sub(a.scope, "conv"), a.x, channels, .stride = 2,
                     .padding = a.padding);
}
