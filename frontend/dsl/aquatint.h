/* Aquatint: models, losses and training steps as graphs, written in C.
 *
 * This is the only header that a model includes.
 *
 *     #include <aquatint.h>
 *
 *     AQ_MODEL(points, "a network that moves points of the plane")
 *     {
 *         int width = aq_option_int(m, "width", 64, "hidden units");
 *         AqTensor h = aq_silu(aq_linear(aq_sub(m->scope, "in"), m->x, width));
 *         return aq_linear(aq_sub(m->scope, "out"), h, 2);
 *     }
 *
 * Values.  An AqTensor names a node of a graph and an AqScope a place in the
 * names of parameters; both are small, passed by value, and never freed.  The
 * graph owns everything.  There is no hidden state.  Parameters lie in memory
 * in the order in which their layers were called, so call one layer a
 * statement: within one expression C leaves the order to the compiler.
 *
 * Options.  What comes after the named arguments of a layer is optional and is
 * written `.name = value`; zero is always the default:
 *     aq_conv2d(s, x, 64, .kernel = 3, .stride = 2, .no_bias = true)
 *
 * Shapes.  Images are (N, H, W, C): sample, row, column, channel.  Tokens are
 * (N, T, C), vectors (N, C).  Operations of two tensors broadcast as in NumPy:
 * shapes are aligned at their last dimension, and dimensions of 1, or missing
 * ones, are repeated.  An axis may be negative: -1 is the last.
 *
 * Errors.  The first mistake sticks to the graph, in one sentence that begins
 * with the caller's file and line (aq_graph_error); everything after it does
 * nothing, so a model need not check.  Nothing here prints or exits. */
#ifndef AQUATINT_H
#define AQUATINT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
#error "aquatint.h is C11: it uses compound literals with named members"
#endif

typedef struct AqGraph AqGraph;

/* A value of a graph.  AQ_NONE is "no tensor", for what is optional. */
typedef struct AqTensor {
    AqGraph *graph;
    int32_t id;
} AqTensor;

/* Where parameters and random numbers made below it get their names from.
 * `draw` says where random numbers come from; NULL: none are drawn, and
 * dropout does nothing. */
typedef struct AqScope {
    AqGraph *graph;
    const char *path; /* "down_blocks.0.resnets.1", "" at the root */
    const struct AqDraw *draw;
} AqScope;

/* The line of a model that an operation comes from. */
typedef struct AqPlace {
    const char *file;
    int line;
    const char *scope; /* NULL: that of the youngest argument */
} AqPlace;

#ifndef AQ_HERE
#define AQ_HERE ((AqPlace){__FILE__, __LINE__, NULL})
#endif

/* Named arguments: every struct of arguments ends with `end_`, and naming it
 * tells the compiler that the members left out are meant to be zero. */
#define AQ_ARGS(Type, ...) ((Type){__VA_ARGS__, .end_ = 0})

#define AQ_NONE ((AqTensor){NULL, -1})

enum { AQ_MAX_DIMS = 8 };

/* AQ_SHAPE(n, 32, 32, 3).  AQ_SCALAR is the shape of a single number. */
typedef struct AqShape {
    int rank;
    int64_t dim[AQ_MAX_DIMS];
} AqShape;

#define AQ_SHAPE(...)                                                          \
    ((AqShape){(int)(sizeof((int64_t[]){__VA_ARGS__}) / sizeof(int64_t)),      \
               {__VA_ARGS__}})
#define AQ_SCALAR ((AqShape){0, {0}})

/* AQ_AXES(1, 2) */
typedef struct AqAxes {
    int count;
    int axis[AQ_MAX_DIMS];
} AqAxes;

#define AQ_AXES(...)                                                           \
    ((AqAxes){(int)(sizeof((int[]){__VA_ARGS__}) / sizeof(int)), {__VA_ARGS__}})

/* Rows and columns of zeros around an image. */
typedef struct AqPadding {
    bool given;
    int top, bottom, left, right;
} AqPadding;

#define AQ_PAD(top, bottom, left, right)                                       \
    ((AqPadding){true, top, bottom, left, right})
#define AQ_VALID AQ_PAD(0, 0, 0, 0)

/* ---- graph.c: graphs, sources, what a graph is for ---- */

AqGraph *aq_graph_new(void); /* NULL when memory ends */
void aq_graph_free(AqGraph *graph);
/* The first mistake, "file:line: sentence", or NULL. */
const char *aq_graph_error(const AqGraph *graph);

AqScope aq_root(AqGraph *graph);
/* A scope below: aq_sub(s, "norm1"), aq_sub(s, "resnets.%d", i). */
__attribute__((format(printf, 3, 4))) AqScope aq_sub_(AqPlace at, AqScope s,
                                                      const char *format, ...);
#define aq_sub(s, ...) aq_sub_(AQ_HERE, s, __VA_ARGS__)

/* Given anew for every run: f32, or i32 by `.integer = true`. */
typedef struct AqInput {
    AqGraph *graph;
    const char *name;
    AqShape shape;
    bool integer;
    int end_;
} AqInput;
AqTensor aq_input_(AqPlace at, AqInput a);
#define aq_input(...) aq_input_(AQ_HERE, AQ_ARGS(AqInput, __VA_ARGS__))
/* An array that lives from run to run, changed by aq_update alone.  The name
 * "weights" is the flat array of all parameters. */
AqTensor aq_state_(AqPlace at, AqInput a);
#define aq_state(...) aq_state_(AQ_HERE, AQ_ARGS(AqInput, __VA_ARGS__))

/* `x` is to be read after a run under this name. */
void aq_output_(AqPlace at, AqTensor x, const char *name);
#define aq_output(x, name) aq_output_(AQ_HERE, x, name)
/* At the end of a run, state `name` becomes `x`. */
void aq_update_(AqPlace at, const char *name, AqTensor x);
#define aq_update(name, x) aq_update_(AQ_HERE, name, x)

/* `value` everywhere; f32. */
AqTensor aq_full_(AqPlace at, AqGraph *graph, AqShape shape, double value);
#define aq_full(graph, shape, value) aq_full_(AQ_HERE, graph, shape, value)
/* `value` everywhere, shape and element type of `like`. */
AqTensor aq_full_like_(AqPlace at, AqTensor like, double value);
#define aq_full_like(like, value) aq_full_like_(AQ_HERE, like, value)
/* Given numbers, row by row, copied; f32. */
AqTensor aq_table_(AqPlace at, AqGraph *graph, AqShape shape,
                   const double *values);
#define aq_table(graph, shape, values) aq_table_(AQ_HERE, graph, shape, values)
/* i32: 0, 1, 2, ... count-1 */
AqTensor aq_range_(AqPlace at, AqGraph *graph, int64_t count);
#define aq_range(graph, count) aq_range_(AQ_HERE, graph, count)

/* Shape queries.  Of a tensor that could not be built every size is 1. */
int aq_rank_(AqPlace at, AqTensor x);
#define aq_rank(x) aq_rank_(AQ_HERE, x)
int aq_dim_(AqPlace at, AqTensor x, int axis);
#define aq_dim(x, axis) aq_dim_(AQ_HERE, x, axis)
#define aq_batch(x) aq_dim(x, 0)
#define aq_height(x) aq_dim(x, 1)
#define aq_width(x) aq_dim(x, 2)
#define aq_channels(x) aq_dim(x, -1)
AqShape aq_shape(AqTensor x);
static inline bool aq_is_none(AqTensor x)
{
    return x.graph == NULL;
}

/* ---- pointwise.c: one element at a time ---- */

AqTensor aq_neg_(AqPlace at, AqTensor x);
#define aq_neg(x) aq_neg_(AQ_HERE, x)
AqTensor aq_abs_(AqPlace at, AqTensor x);
#define aq_abs(x) aq_abs_(AQ_HERE, x)
AqTensor aq_sign_(AqPlace at, AqTensor x); /* -1, 0, 1; no gradient */
#define aq_sign(x) aq_sign_(AQ_HERE, x)
AqTensor aq_floor_(AqPlace at, AqTensor x); /* no gradient */
#define aq_floor(x) aq_floor_(AQ_HERE, x)
AqTensor aq_exp_(AqPlace at, AqTensor x);
#define aq_exp(x) aq_exp_(AQ_HERE, x)
AqTensor aq_log_(AqPlace at, AqTensor x);
#define aq_log(x) aq_log_(AQ_HERE, x)
AqTensor aq_sqrt_(AqPlace at, AqTensor x);
#define aq_sqrt(x) aq_sqrt_(AQ_HERE, x)
AqTensor aq_rsqrt_(AqPlace at, AqTensor x); /* 1 / sqrt(x) */
#define aq_rsqrt(x) aq_rsqrt_(AQ_HERE, x)
AqTensor aq_sin_(AqPlace at, AqTensor x);
#define aq_sin(x) aq_sin_(AQ_HERE, x)
AqTensor aq_cos_(AqPlace at, AqTensor x);
#define aq_cos(x) aq_cos_(AQ_HERE, x)
AqTensor aq_tanh_(AqPlace at, AqTensor x);
#define aq_tanh(x) aq_tanh_(AQ_HERE, x)
AqTensor aq_erf_(AqPlace at, AqTensor x);
#define aq_erf(x) aq_erf_(AQ_HERE, x)
AqTensor aq_sigmoid_(AqPlace at, AqTensor x); /* 1 / (1 + exp(-x)) */
#define aq_sigmoid(x) aq_sigmoid_(AQ_HERE, x)
AqTensor aq_is_finite_(AqPlace at, AqTensor x); /* 1 or 0; no gradient */
#define aq_is_finite(x) aq_is_finite_(AQ_HERE, x)
AqTensor aq_detach_(AqPlace at, AqTensor x); /* x, but no gradient passes */
#define aq_detach(x) aq_detach_(AQ_HERE, x)
AqTensor aq_to_real_(AqPlace at, AqTensor x); /* i32 -> f32 */
#define aq_to_real(x) aq_to_real_(AQ_HERE, x)
AqTensor aq_to_integer_(AqPlace at, AqTensor x); /* f32 -> i32, towards zero */
#define aq_to_integer(x) aq_to_integer_(AQ_HERE, x)

AqTensor aq_relu_(AqPlace at, AqTensor x); /* max(x, 0) */
#define aq_relu(x) aq_relu_(AQ_HERE, x)
AqTensor aq_silu_(AqPlace at, AqTensor x); /* x sigmoid(x) */
#define aq_silu(x) aq_silu_(AQ_HERE, x)
/* x (1 + erf(x / sqrt 2)) / 2, Hendrycks and Gimpel 2016 */
AqTensor aq_gelu_(AqPlace at, AqTensor x);
#define aq_gelu(x) aq_gelu_(AQ_HERE, x)
/* the same by x (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3))) / 2 */
AqTensor aq_gelu_tanh_(AqPlace at, AqTensor x);
#define aq_gelu_tanh(x) aq_gelu_tanh_(AQ_HERE, x)
/* x sigmoid(1.702 x), as CLIP has it */
AqTensor aq_quick_gelu_(AqPlace at, AqTensor x);
#define aq_quick_gelu(x) aq_quick_gelu_(AQ_HERE, x)
/* x tanh(log(1 + exp(x))), Misra 2019 */
AqTensor aq_mish_(AqPlace at, AqTensor x);
#define aq_mish(x) aq_mish_(AQ_HERE, x)
AqTensor aq_softplus_(AqPlace at, AqTensor x); /* log(1 + exp(x)) */
#define aq_softplus(x) aq_softplus_(AQ_HERE, x)
AqTensor aq_reciprocal_(AqPlace at, AqTensor x); /* 1 / x */
#define aq_reciprocal(x) aq_reciprocal_(AQ_HERE, x)
AqTensor aq_square_(AqPlace at, AqTensor x);
#define aq_square(x) aq_square_(AQ_HERE, x)
AqTensor aq_pow_(AqPlace at, AqTensor x, int exponent); /* any whole number */
#define aq_pow(x, exponent) aq_pow_(AQ_HERE, x, exponent)

AqTensor aq_scale_(AqPlace at, AqTensor x, double factor); /* x * factor */
#define aq_scale(x, factor) aq_scale_(AQ_HERE, x, factor)
AqTensor aq_shift_(AqPlace at, AqTensor x, double term); /* x + term */
#define aq_shift(x, term) aq_shift_(AQ_HERE, x, term)
AqTensor aq_clamp_(AqPlace at, AqTensor x, double low, double high);
#define aq_clamp(x, low, high) aq_clamp_(AQ_HERE, x, low, high)

/* Of two tensors: shapes broadcast, element types must agree. */
AqTensor aq_add_(AqPlace at, AqTensor a, AqTensor b);
#define aq_add(a, b) aq_add_(AQ_HERE, a, b)
AqTensor aq_subtract_(AqPlace at, AqTensor a, AqTensor b); /* a - b */
#define aq_subtract(a, b) aq_subtract_(AQ_HERE, a, b)
AqTensor aq_mul_(AqPlace at, AqTensor a, AqTensor b);
#define aq_mul(a, b) aq_mul_(AQ_HERE, a, b)
AqTensor aq_div_(AqPlace at, AqTensor a, AqTensor b); /* i32: towards zero */
#define aq_div(a, b) aq_div_(AQ_HERE, a, b)
AqTensor aq_maximum_(AqPlace at, AqTensor a, AqTensor b);
#define aq_maximum(a, b) aq_maximum_(AQ_HERE, a, b)
AqTensor aq_minimum_(AqPlace at, AqTensor a, AqTensor b);
#define aq_minimum(a, b) aq_minimum_(AQ_HERE, a, b)
/* Comparisons give 1 or 0 in the inputs' element type; no gradient. */
AqTensor aq_less_(AqPlace at, AqTensor a, AqTensor b); /* a < b */
#define aq_less(a, b) aq_less_(AQ_HERE, a, b)
AqTensor aq_less_equal_(AqPlace at, AqTensor a, AqTensor b); /* a <= b */
#define aq_less_equal(a, b) aq_less_equal_(AQ_HERE, a, b)
AqTensor aq_equal_(AqPlace at, AqTensor a, AqTensor b);
#define aq_equal(a, b) aq_equal_(AQ_HERE, a, b)
/* condition != 0 ? a : b; what is not chosen may be NaN */
AqTensor aq_select_(AqPlace at, AqTensor condition, AqTensor a, AqTensor b);
#define aq_select(condition, a, b) aq_select_(AQ_HERE, condition, a, b)

/* ---- reduce.c: sums, means, products, look-up ---- */

/* Over `.axes`, all of them if not given; `.keep` leaves dimensions of 1. */
typedef struct AqReduce {
    AqTensor x;
    AqAxes axes;
    bool keep;
    int end_;
} AqReduce;
AqTensor aq_sum_(AqPlace at, AqReduce a);
#define aq_sum(...) aq_sum_(AQ_HERE, AQ_ARGS(AqReduce, __VA_ARGS__))
AqTensor aq_mean_(AqPlace at, AqReduce a);
#define aq_mean(...) aq_mean_(AQ_HERE, AQ_ARGS(AqReduce, __VA_ARGS__))
AqTensor aq_max_(AqPlace at, AqReduce a);
#define aq_max(...) aq_max_(AQ_HERE, AQ_ARGS(AqReduce, __VA_ARGS__))
/* Mean and variance (biased: divided by the count), in one stable sweep. */
typedef struct AqMoments {
    AqTensor mean, variance;
} AqMoments;
AqMoments aq_moments_(AqPlace at, AqReduce a);
#define aq_moments(...) aq_moments_(AQ_HERE, AQ_ARGS(AqReduce, __VA_ARGS__))
/* exp(x) / sum exp(x) along an axis, and its logarithm */
AqTensor aq_softmax_(AqPlace at, AqTensor x, int axis);
#define aq_softmax(x, axis) aq_softmax_(AQ_HERE, x, axis)
AqTensor aq_log_softmax_(AqPlace at, AqTensor x, int axis);
#define aq_log_softmax(x, axis) aq_log_softmax_(AQ_HERE, x, axis)

/* (batch..., m, k) x (batch..., k, n) -> (batch..., m, n).  A `b` of rank 2 is
 * shared by the whole batch.  `.transpose_a` and `.transpose_b` exchange an
 * operand's last two dimensions first. */
typedef struct AqMatmul {
    AqTensor a, b;
    bool transpose_a, transpose_b;
    int end_;
} AqMatmul;
AqTensor aq_matmul_(AqPlace at, AqMatmul a);
#define aq_matmul(...) aq_matmul_(AQ_HERE, AQ_ARGS(AqMatmul, __VA_ARGS__))
/* table (V, rest...), i32 index (...) in 0 .. V-1 -> (index..., rest...).  A
 * compiled program takes an index below for 0 and one above for V-1: what data
 * say is not known before they come, nothing outside the table is read, and a
 * step does not stop to tell.  The interpreter does: --verify-passes refuses
 * such an index, with its value and its place. */
AqTensor aq_gather_(AqPlace at, AqTensor table, AqTensor index);
#define aq_gather(table, index) aq_gather_(AQ_HERE, table, index)

/* ---- movement.c: other shapes, same numbers ---- */

/* One dimension may be -1: whatever is left. */
AqTensor aq_reshape_(AqPlace at, AqTensor x, AqShape shape);
#define aq_reshape(x, shape) aq_reshape_(AQ_HERE, x, shape)
/* Dimension i of the result is dimension axes[i] of x. */
AqTensor aq_transpose_(AqPlace at, AqTensor x, AqAxes axes);
#define aq_transpose(x, axes) aq_transpose_(AQ_HERE, x, axes)
/* `size` elements along an axis, from `start`, every `.step`-th (default 1). */
typedef struct AqSlice {
    AqTensor x;
    int axis;
    int64_t start, size;
    int64_t step;
    int end_;
} AqSlice;
AqTensor aq_slice_(AqPlace at, AqSlice a);
#define aq_slice(...) aq_slice_(AQ_HERE, AQ_ARGS(AqSlice, __VA_ARGS__))
/* Zeros before and behind along an axis. */
AqTensor aq_extend_(AqPlace at, AqTensor x, int axis, int64_t before,
                    int64_t behind);
#define aq_extend(x, axis, before, behind)                                     \
    aq_extend_(AQ_HERE, x, axis, before, behind)
/* As NumPy's broadcast_to. */
AqTensor aq_broadcast_(AqPlace at, AqTensor x, AqShape shape);
#define aq_broadcast(x, shape) aq_broadcast_(AQ_HERE, x, shape)
/* aq_concat(-1, h, skip): one after another along an axis. */
AqTensor aq_concat_list_(AqPlace at, int axis, const AqTensor *parts,
                         int count);
#define aq_concat_list(axis, parts, count)                                     \
    aq_concat_list_(AQ_HERE, axis, parts, count)
#define aq_concat(axis, ...)                                                   \
    aq_concat_list_(                                                           \
        AQ_HERE, axis, (AqTensor[]){__VA_ARGS__},                              \
        (int)(sizeof((AqTensor[]){__VA_ARGS__}) / sizeof(AqTensor)))
/* (N, C) -> (N, 1, 1, C), to be added to an image */
AqTensor aq_over_space_(AqPlace at, AqTensor x);
#define aq_over_space(x) aq_over_space_(AQ_HERE, x)
/* (N, H, W, C) -> (N, H factor, W factor, C), nearest neighbour */
AqTensor aq_enlarge_(AqPlace at, AqTensor x, int factor);
#define aq_enlarge(x, factor) aq_enlarge_(AQ_HERE, x, factor)
/* (N, H, W, C) -> (N, H / factor, W / factor, C), the mean of each square */
AqTensor aq_average_pool_(AqPlace at, AqTensor x, int factor);
#define aq_average_pool(x, factor) aq_average_pool_(AQ_HERE, x, factor)

/* ---- parameters.c ---- */

/* How a parameter starts. */
typedef enum AqInit {
    AQ_INIT_ZEROS,
    AQ_INIT_ONES,
    AQ_INIT_NORMAL,  /* deviation `value` */
    AQ_INIT_UNIFORM, /* in +- `value` */
} AqInit;

/* A trained tensor named PATH.name.  `.file` is the permutation that gives the
 * layout of PyTorch's files: dimension i there is dimension file[i] here.  A
 * name may be used once. */
typedef struct AqParam {
    AqScope scope;
    const char *name;
    AqShape shape;
    AqInit init;
    double value;
    AqAxes file;
    int end_;
} AqParam;
AqTensor aq_param_(AqPlace at, AqParam a);
#define aq_param(...) aq_param_(AQ_HERE, AQ_ARGS(AqParam, __VA_ARGS__))

/* ---- random.c ---- */

/* Random numbers are a function of (key, step, sample, scope path): the same
 * for any batch, thread or machine.  key i32[2], step i32[], sample i32[N]. */
typedef struct AqDraw {
    AqTensor key, step, sample;
} AqDraw;
/* The scope, drawing from these. */
AqScope aq_drawing(AqScope s, AqDraw draw);
/* Normal (0, 1), or uniform in (0, 1): f32 of this shape, whose first dimension
 * is N.  Every scope draws once; draw twice from two scopes. */
AqTensor aq_normal_(AqPlace at, AqScope s, AqShape shape);
#define aq_normal(s, shape) aq_normal_(AQ_HERE, s, shape)
AqTensor aq_uniform_(AqPlace at, AqScope s, AqShape shape);
#define aq_uniform(s, shape) aq_uniform_(AQ_HERE, s, shape)
/* Each element becomes 0 with probability `rate`, else x / (1 - rate).  The
 * identity where the scope does not draw.  x (N, ...). */
AqTensor aq_dropout_(AqPlace at, AqScope s, AqTensor x, double rate);
#define aq_dropout(s, x, rate) aq_dropout_(AQ_HERE, s, x, rate)

/* ---- layers.c: parameters get PyTorch's names and initial values ---- */

/* x (..., I) -> (..., units); weight (I, units), uniform in +-1/sqrt(I). */
typedef struct AqLinear {
    AqScope scope;
    AqTensor x;
    int units;
    bool no_bias, zero; /* `.zero`: weight and bias start at 0 */
    int end_;
} AqLinear;
AqTensor aq_linear_(AqPlace at, AqLinear a);
#define aq_linear(...) aq_linear_(AQ_HERE, AQ_ARGS(AqLinear, __VA_ARGS__))

/* x (N, H, W, C) -> (N, OH, OW, channels); weight (kernel, kernel, C / groups,
 * channels), uniform in +-1/sqrt(kernel^2 C / groups).  Default: kernel 3,
 * stride 1, zeros around so that stride 1 keeps the size. */
typedef struct AqConv2d {
    AqScope scope;
    AqTensor x;
    int channels;
    int kernel, stride, dilation, groups;
    AqPadding padding;
    bool no_bias, zero;
    int end_;
} AqConv2d;
AqTensor aq_conv2d_(AqPlace at, AqConv2d a);
#define aq_conv2d(...) aq_conv2d_(AQ_HERE, AQ_ARGS(AqConv2d, __VA_ARGS__))

/* y = (x - mean) / sqrt(variance + epsilon) weight + bias.  Group norm: over
 * space and the channels of a group, for each sample; x (N, ..., C), default 32
 * groups (Wu and He 2018).  Layer norm: over the last axis (Ba et al. 2016).
 * Default epsilon 1e-5. */
typedef struct AqNorm {
    AqScope scope;
    AqTensor x;
    int groups;
    double epsilon;
    bool no_affine; /* no weight and bias */
    int end_;
} AqNorm;
AqTensor aq_group_norm_(AqPlace at, AqNorm a);
#define aq_group_norm(...) aq_group_norm_(AQ_HERE, AQ_ARGS(AqNorm, __VA_ARGS__))
AqTensor aq_layer_norm_(AqPlace at, AqNorm a);
#define aq_layer_norm(...) aq_layer_norm_(AQ_HERE, AQ_ARGS(AqNorm, __VA_ARGS__))

/* i32 index (...) in 0 .. count-1 (others as in aq_gather) -> (..., units);
 * weight (count, units), normal. */
typedef struct AqEmbedding {
    AqScope scope;
    AqTensor index;
    int count, units;
    int end_;
} AqEmbedding;
AqTensor aq_embedding_(AqPlace at, AqEmbedding a);
#define aq_embedding(...)                                                      \
    aq_embedding_(AQ_HERE, AQ_ARGS(AqEmbedding, __VA_ARGS__))

/* Sinusoids of t (N) -> (N, units): frequency i = exp(-log(period) i / (half -
 * freq_shift)), half = units / 2, period 10000.  Sines first, or cosines first
 * by `.flip_sin_to_cos`.  DDPM: freq_shift 1; DiT and Stable Diffusion: cosines
 * first, freq_shift 0. */
typedef struct AqTimestep {
    AqTensor t;
    int units;
    bool flip_sin_to_cos;
    double freq_shift, period;
    int end_;
} AqTimestep;
AqTensor aq_timestep_embedding_(AqPlace at, AqTimestep a);
#define aq_timestep_embedding(...)                                             \
    aq_timestep_embedding_(AQ_HERE, AQ_ARGS(AqTimestep, __VA_ARGS__))

/* Twice as large by nearest neighbour, then convolution "conv"; and half as
 * large by convolution "conv" with stride 2, zeros around by `.padding`
 * (default one on every side).  x (N, H, W, C). */
typedef struct AqResample {
    AqScope scope;
    AqTensor x;
    int channels; /* 0: as x */
    AqPadding padding;
    int end_;
} AqResample;
AqTensor aq_upsample_(AqPlace at, AqResample a);
#define aq_upsample(...) aq_upsample_(AQ_HERE, AQ_ARGS(AqResample, __VA_ARGS__))
AqTensor aq_downsample_(AqPlace at, AqResample a);
#define aq_downsample(...)                                                     \
    aq_downsample_(AQ_HERE, AQ_ARGS(AqResample, __VA_ARGS__))

/* ---- attention.c ---- */

/* softmax(q k^T / sqrt(d) + bias) v for each head; q (N, T, heads d), k and v
 * (N, S, heads d) -> (N, T, heads d).  Default one head.  `.bias` is added to
 * the scores: (N or 1, heads or 1, T, S), no gradient flows to it.  `.causal`:
 * token i sees 0 .. i.  Vaswani et al. 2017. */
typedef struct AqAttention {
    AqTensor q, k, v;
    int heads;
    AqTensor bias;
    bool causal;
    double scale; /* 0: 1 / sqrt(d) */
    int end_;
} AqAttention;
AqTensor aq_attention_(AqPlace at, AqAttention a);
#define aq_attention(...)                                                      \
    aq_attention_(AQ_HERE, AQ_ARGS(AqAttention, __VA_ARGS__))

/* The layer of diffusers: to_q, to_k, to_v, attention, to_out.0; x (N, T, C),
 * `.context` (N, S, D) is what keys and values are made of (default x). */
typedef struct AqAttentionLayer {
    AqScope scope;
    AqTensor x;
    int heads;
    AqTensor context;
    int units;    /* of all heads; 0: C */
    bool no_bias; /* of to_q, to_k, to_v */
    bool zero;    /* to_out.0 starts at 0 */
    AqTensor bias;
    bool causal;
    int end_;
} AqAttentionLayer;
AqTensor aq_attention_layer_(AqPlace at, AqAttentionLayer a);
#define aq_attention_layer(...)                                                \
    aq_attention_layer_(AQ_HERE, AQ_ARGS(AqAttentionLayer, __VA_ARGS__))

/* ---- losses.c, gradient ---- */

/* mean (a - b)^2 over everything -> scalar */
AqTensor aq_mse_(AqPlace at, AqTensor a, AqTensor b);
#define aq_mse(a, b) aq_mse_(AQ_HERE, a, b)
/* mean over samples of weight[n] * mean (a[n] - b[n])^2; weight (N) */
AqTensor aq_weighted_mse_(AqPlace at, AqTensor a, AqTensor b, AqTensor weight);
#define aq_weighted_mse(a, b, weight) aq_weighted_mse_(AQ_HERE, a, b, weight)
/* gradients[i] = d loss / d wrt[i], nodes of the same graph; loss has one
 * element. */
void aq_gradient_(AqPlace at, AqTensor loss, const AqTensor *wrt, int count,
                  AqTensor *gradients);
#define aq_gradient(loss, wrt, count, gradients)                               \
    aq_gradient_(AQ_HERE, loss, wrt, count, gradients)

/* ---- process.c: the diffusion process ---- */

typedef enum AqScheduleKind {
    AQ_LINEAR,        /* Ho et al. 2020 */
    AQ_SCALED_LINEAR, /* linear in sqrt(beta): Stable Diffusion */
    AQ_COSINE,        /* Nichol and Dhariwal 2021 */
} AqScheduleKind;

typedef enum AqPrediction {
    AQ_EPSILON,  /* the noise */
    AQ_VELOCITY, /* v = sqrt(abar) eps - sqrt(1 - abar) x0, Salimans and Ho */
    AQ_X0,       /* the picture */
} AqPrediction;

/* x_t = sqrt(abar_t) x0 + sqrt(1 - abar_t) eps, t = 0 .. steps-1, where abar_t
 * is the product of 1 - beta_s over s <= t.  Tables are computed in double. */
typedef struct AqProcess {
    AqScheduleKind schedule;
    int steps;                   /* 0: 1000 */
    double beta_start, beta_end; /* 0: 1e-4, 0.02; scaled 0.00085, 0.012 */
    bool zero_snr; /* abar of the last step becomes 0, Lin et al. 2023 */
    AqPrediction prediction;
    double min_snr; /* gamma of Hang et al. 2023; 0: plain mean square */
} AqProcess;

int aq_process_steps(const AqProcess *process);
/* abar[aq_process_steps]; false if the process makes no sense. */
bool aq_process_alphas(const AqProcess *process, double *abar);
/* In all of these t is i32 (N); the tensors are (N, ...). */
AqTensor aq_add_noise_(AqPlace at, AqProcess p, AqTensor x0, AqTensor noise,
                       AqTensor t); /* x_t */
#define aq_add_noise(p, x0, noise, t) aq_add_noise_(AQ_HERE, p, x0, noise, t)
/* What the model is to predict. */
AqTensor aq_target_(AqPlace at, AqProcess p, AqTensor x0, AqTensor noise,
                    AqTensor t);
#define aq_target(p, x0, noise, t) aq_target_(AQ_HERE, p, x0, noise, t)
/* f32 (N): min(SNR, gamma) / SNR for epsilon, / (SNR + 1) for v, and itself for
 * x0; 1 where min_snr is 0.  SNR = abar / (1 - abar). */
AqTensor aq_snr_weight_(AqPlace at, AqProcess p, AqTensor t);
#define aq_snr_weight(p, t) aq_snr_weight_(AQ_HERE, p, t)
/* x0 and eps, from x_t and what the model says. */
AqTensor aq_predicted_x0_(AqPlace at, AqProcess p, AqTensor x, AqTensor output,
                          AqTensor t);
#define aq_predicted_x0(p, x, output, t)                                       \
    aq_predicted_x0_(AQ_HERE, p, x, output, t)
AqTensor aq_predicted_noise_(AqPlace at, AqProcess p, AqTensor x,
                             AqTensor output, AqTensor t);
#define aq_predicted_noise(p, x, output, t)                                    \
    aq_predicted_noise_(AQ_HERE, p, x, output, t)

/* ---- samplers.c: x at timestep t -> x at timestep `previous` ---- */

/* t and previous are i32 (N); previous -1 is the end, where abar is 1 (or
 * abar_0 by `.end_at_first`).  `.clip` holds x0 in [-1, 1], and eps is not
 * derived from it again (as diffusers). */
typedef struct AqSamplerStep {
    AqProcess process;
    AqTensor x, output, t, previous;
    AqTensor noise; /* for DDPM, and DDIM with eta; like x */
    double eta;     /* DDIM: 0 deterministic, 1 as noisy as DDPM */
    bool clip;
    bool large_variance; /* DDPM: beta instead of the posterior's variance */
    bool end_at_first;
    int end_;
} AqSamplerStep;
/* Song et al. 2021, equation 12 */
AqTensor aq_ddim_step_(AqPlace at, AqSamplerStep a);
#define aq_ddim_step(...)                                                      \
    aq_ddim_step_(AQ_HERE, AQ_ARGS(AqSamplerStep, __VA_ARGS__))
/* Ho et al. 2020, algorithm 2; no noise is added where t = 0 */
AqTensor aq_ddpm_step_(AqPlace at, AqSamplerStep a);
#define aq_ddpm_step(...)                                                      \
    aq_ddpm_step_(AQ_HERE, AQ_ARGS(AqSamplerStep, __VA_ARGS__))

/* ---- optimizer.c ---- */

typedef enum AqRateKind {
    AQ_RATE_CONSTANT,
    AQ_RATE_LINEAR,          /* to 0 at `total` */
    AQ_RATE_COSINE,          /* to 0 at `total` */
    AQ_RATE_COSINE_RESTARTS, /* `cycles` times */
    AQ_RATE_POLYNOMIAL,      /* to `end`, by `power` */
} AqRateKind;

/* The learning rate used at step n = 0, 1, ...: rises from 0 to `base` in
 * `warmup` steps, then falls (formulae of diffusers' get_scheduler). */
typedef struct AqRate {
    AqRateKind kind;
    double base;   /* 0: 1e-4 */
    double warmup; /* steps */
    double total;  /* steps, warm-up among them */
    double cycles; /* cosine 0: 1/2, restarts 0: 1 */
    double power;  /* 0: 1 */
    double end;    /* 0: 1e-7 */
} AqRate;
/* step i32 scalar -> f32 scalar */
AqTensor aq_rate_(AqPlace at, AqTensor step, AqRate rate);
#define aq_rate(step, ...) aq_rate_(AQ_HERE, step, __VA_ARGS__)

typedef enum AqOptimizerKind {
    AQ_ADAMW, /* Loshchilov and Hutter 2019 */
    AQ_ADAM,  /* Kingma and Ba 2015; decay is added to the gradient */
    AQ_SGD,
    AQ_RMSPROP,
    AQ_ADAGRAD,
} AqOptimizerKind;

/* Formulae and defaults of torch.optim. */
typedef struct AqOptimizer {
    AqOptimizerKind kind;
    AqRate rate;
    double beta1, beta2; /* Adam: 0: 0.9, 0.999 */
    double epsilon;      /* 0: 1e-8; Adagrad 1e-10 */
    double decay;        /* of the weights */
    double momentum;     /* SGD and RMSprop */
    bool nesterov;       /* SGD */
    double alpha;        /* RMSprop, 0: 0.99 */
    bool centered;       /* RMSprop */
    double rate_decay;   /* Adagrad */
    double clip;         /* largest norm of all gradients; 0: none */
    double ema;          /* decay of the average of weights; 0: no EMA */
    bool ema_constant;   /* else min(ema, (1 + n) / (10 + n)), n updates */
} AqOptimizer;

/* One step down the gradient of `loss` for all parameters of the graph.  Reads
 * and updates the states weights, m, v, a, ema (f32, flat; those that the
 * optimizer needs), step and updates (i32 scalars).  Outputs loss,
 * gradient_norm, learning_rate (f32 scalars) and skipped (i32): where loss or
 * norm is not finite, nothing changes but `step`. */
void aq_minimize_(AqPlace at, AqTensor loss, AqOptimizer optimizer);
#define aq_minimize(loss, ...) aq_minimize_(AQ_HERE, loss, __VA_ARGS__)

/* ---- options.c: models ---- */

/* What a model is given.  `labels` is AQ_NONE where there are no classes. */
typedef struct AqModel {
    AqScope scope;   /* the root of the parameters' names */
    AqTensor x;      /* f32 (N, H, W, C), or (N, C) for points */
    AqTensor t;      /* f32 (N): the timestep, 0 .. steps-1 */
    AqTensor labels; /* i32 (N), 0 .. classes-1 */
    int classes;     /* 0: none */
    bool training;
    struct AqOptions *options;
} AqModel;

/* A model under its name.  The body returns what it predicts, of x's shape. */
typedef struct AqModelInfo {
    int version; /* AQ_MODEL_VERSION of the header it was compiled with */
    const char *name, *doc, *file;
    AqTensor (*body)(AqModel *m);
} AqModelInfo;

enum { AQ_MODEL_VERSION = 1 };

/* Compiled by itself, as a shared object, a file holds one model and exports it
 * as `aq_model`; those in the library are called aq_model_NAME. */
#ifdef AQ_BUILTIN
#define AQ_MODEL_SYMBOL(name) aq_model_##name
#else
#define AQ_MODEL_SYMBOL(name) aq_model
#endif
#define AQ_MODEL(name, doc)                                                    \
    static AqTensor name##_body(AqModel *m);                                   \
    extern const AqModelInfo AQ_MODEL_SYMBOL(name);                            \
    __attribute__((visibility("default"))) const AqModelInfo AQ_MODEL_SYMBOL(  \
        name) = {AQ_MODEL_VERSION, #name, doc, __FILE__, name##_body};         \
    static AqTensor name##_body(AqModel *m)

/* Options of a model, set by `--set NAME=VALUE`.  Where `.min` and `.max`
 * differ, a value outside them is an error. */
typedef struct AqOptionInt {
    AqModel *model;
    const char *name;
    int otherwise;
    const char *help;
    int min, max;
    int end_;
} AqOptionInt;
int aq_option_int_(AqPlace at, AqOptionInt a);
#define aq_option_int(...)                                                     \
    aq_option_int_(AQ_HERE, AQ_ARGS(AqOptionInt, __VA_ARGS__))

typedef struct AqOptionReal {
    AqModel *model;
    const char *name;
    double otherwise;
    const char *help;
    double min, max;
    int end_;
} AqOptionReal;
double aq_option_real_(AqPlace at, AqOptionReal a);
#define aq_option_real(...)                                                    \
    aq_option_real_(AQ_HERE, AQ_ARGS(AqOptionReal, __VA_ARGS__))

/* `--set NAME=yes` or no, true or false, 1 or 0 */
bool aq_option_bool_(AqPlace at, AqModel *m, const char *name, bool otherwise,
                     const char *help);
#define aq_option_bool(m, name, otherwise, help)                               \
    aq_option_bool_(AQ_HERE, m, name, otherwise, help)

/* `--set NAME=1,2,2`; the default is written the same way, "" is none. */
enum { AQ_MAX_INTS = 32 };
typedef struct AqInts {
    int count;
    int at[AQ_MAX_INTS];
} AqInts;
typedef struct AqOptionInts {
    AqModel *model;
    const char *name, *otherwise, *help;
    int min, max; /* of each number */
    int end_;
} AqOptionInts;
AqInts aq_option_ints_(AqPlace at, AqOptionInts a);
#define aq_option_ints(...)                                                    \
    aq_option_ints_(AQ_HERE, AQ_ARGS(AqOptionInts, __VA_ARGS__))

/* A number that the user gave for such a list is an error where it is none of
 * `among`, since the model would ignore it; of the default nothing is asked.
 * `what` is what these are ("heights of the feature maps"). */
void aq_option_among_(AqPlace at, AqModel *m, const char *name, AqInts among,
                      const char *what);
#define aq_option_among(m, name, among, what)                                  \
    aq_option_among_(AQ_HERE, m, name, among, what)

/* `--set in_channels=N`, by default the data's channels, and out_channels, by
 * default as many: the channels that a model of x (N, H, W, C) predicts.  An
 * error where in_channels are not the data's. */
int aq_option_channels_(AqPlace at, AqModel *m);
#define aq_option_channels(m) aq_option_channels_(AQ_HERE, m)

/* Any text; or, by aq_option_choice, one of the words of `.choices`
 * ("default|scale_shift"), whose number (0, 1, ...) comes back. */
typedef struct AqOptionText {
    AqModel *model;
    const char *name, *otherwise, *help;
    const char *choices;
    int end_;
} AqOptionText;
const char *aq_option_text_(AqPlace at, AqOptionText a);
#define aq_option_text(...)                                                    \
    aq_option_text_(AQ_HERE, AQ_ARGS(AqOptionText, __VA_ARGS__))
int aq_option_choice_(AqPlace at, AqOptionText a);
#define aq_option_choice(...)                                                  \
    aq_option_choice_(AQ_HERE, AQ_ARGS(AqOptionText, __VA_ARGS__))

/* A model's own complaint: "file:line: sentence".  The tensor is of no use. */
__attribute__((format(printf, 3, 4))) AqTensor
aq_model_fail_(AqPlace at, AqModel *m, const char *format, ...);
#define aq_model_fail(m, ...) aq_model_fail_(AQ_HERE, m, __VA_ARGS__)

/* ---- programs: a graph of one's own, compiled and run (runtime/public.c) ----
 *
 *     AqProgram *p = aq_program_new(graph);
 *     float *x = aq_program_array(p, "x", NULL);
 *     for (int step = 0; step < 100; step++) {
 *         ... fill x ...
 *         aq_program_run(p);
 *         printf("%g\n", aq_program_number(p, "loss"));
 *     }
 *     if (aq_program_error(p)) ...
 *     aq_program_free(p);
 *
 * The first mistake sticks here as well, and everything after it does nothing.
 * A program belongs to one thread at a time; it runs on threads of its own. */

typedef struct AqProgram AqProgram;

enum { AQ_MAX_FIXED = 16 };

typedef struct AqProgramOptions {
    AqGraph *graph; /* only read, and not needed afterwards */
    /* The parameters and states of this program are those of `with`, which has
     * to live longer, and so are the threads.  Both graphs must make the same
     * parameters in the same order. */
    AqProgram *with;
    int threads;   /* 0: one for each processor; never changes a result */
    uint64_t seed; /* of the parameters' values at the beginning */
    /* Inputs and states that keep their values from run to run; "weights" are
     * all parameters: .fixed = {"weights", "prompt"}.  What follows from them
     * alone is computed by the first run and kept. */
    const char *fixed[AQ_MAX_FIXED];
    /* An input, i32 scalar, that is given 0 .. numbers-1: the run's number.
     * What follows from it and what is fixed alone is computed by the first
     * run, for all numbers in one batch. */
    const char *number;
    int numbers;
    int end_;
} AqProgramOptions;

/* Compiles for this processor.  States begin as zeros, parameters ("weights")
 * and their average ("ema") with their initial values.  NULL when memory ends;
 * what else can go wrong is told by aq_program_error. */
AqProgram *aq_program_new_(AqProgramOptions o);
#define aq_program_new(...)                                                    \
    aq_program_new_(AQ_ARGS(AqProgramOptions, __VA_ARGS__))
void aq_program_free(AqProgram *program);
/* The first mistake, one sentence, or NULL. */
const char *aq_program_error(const AqProgram *program);
/* An input, a state or an output, row by row: float, or int32_t where the graph
 * says integer; *elements (may be NULL) is how many.  Inputs and states may be
 * written between runs.  An output holds what the last run left there.  The
 * address stays.  NULL, and an error, if there is no such name. */
void *aq_program_array(AqProgram *program, const char *name, int64_t *elements);
/* The first number of an output; NaN, and an error, if there is no such name.
 */
double aq_program_number(AqProgram *program, const char *name);
/* One run; false if there was a mistake before. */
bool aq_program_run(AqProgram *program);
/* To be said after a change of what was said to be fixed: what follows from it
 * is computed anew by the next run. */
void aq_program_changed(AqProgram *program);

#endif
