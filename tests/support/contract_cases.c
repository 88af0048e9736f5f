/* Random contractions, and what may stand around them. */
#include "tests/support/contract_suite.h"

#include <setjmp.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

AqSuite *aq_suite_new(uint64_t seed)
{
    AqSuite *s = calloc(1, sizeof *s);
    assert_non_null(s);
    s->seed = seed;
    s->bench = aq_bench_new(seed + 1);
    return s;
}

/* ---- kernels ---- */

static int64_t below(AqSuite *s, int64_t bound)
{
    return aq_test_below(&s->seed, bound);
}

static AqSuiteKernel *begin_kernel(AqSuite *s)
{
    assert_true(s->count < AQ_SUITE_CASES);
    AqSuiteKernel *k = &s->kernels[s->count++];
    *k = (AqSuiteKernel){.bench = &s->bench, .body = aq_graph_new()};
    assert_non_null(k->body);
    return k;
}

static AqId build(AqSuiteKernel *k, AqOp op, const AqType *type,
                  const AqId *inputs, int n, const AqAttr *attrs, int n_attrs)
{
    AqId id = aq_build(k->body, op, type, inputs, n, attrs, n_attrs);
    if (id == AQ_NO_NODE)
        fail_msg("%s", k->body->error.text);
    return id;
}

static AqId add_arg(AqSuiteKernel *k, AqType type)
{
    char name[32];
    snprintf(name, sizeof name, "x%d.%d", (int)k->id, k->bench->n_bindings);
    AqAttr index = aq_int(AQ_KEY_INDEX, k->n_inputs);
    assert_true(k->n_inputs < AQ_SUITE_INPUTS);
    k->inputs[k->n_inputs++] = aq_bench_random(k->bench, name, type);
    return build(k, AQ_OP_arg, &type, NULL, 0, &index, 1);
}

static void end_kernel(AqSuite *s, AqSuiteKernel *k)
{
    AqAttr attrs[] = {aq_text(AQ_KEY_KIND, "contract"), aq_body(k->body),
                      k->blocks};
    int n = k->blocks.count ? 3 : 2;
    k->id = aq_build(k->bench->g, AQ_OP_kernel, NULL, k->inputs, k->n_inputs,
                     attrs, n);
    if (k->id == AQ_NO_NODE)
        fail_msg("%s", k->bench->g->error.text);
    s->ids[k - s->kernels] = k->id;
}

static const AqType *type_of(const AqSuiteKernel *k, AqId id)
{
    return &aq_node(k->body, id)->type;
}

static void give(AqSuiteKernel *k, const char *name, AqId id)
{
    aq_graph_output(k->body, name, id, false);
}

/* ---- what may stand around a product ---- */

/* An arg with the dimensions chosen by `keep`, repeated to `type`. */
static AqId spread(AqSuiteKernel *k, const AqType *type, unsigned keep)
{
    AqType small = *type;
    for (int d = 0; d < type->rank; d++)
        if (!(keep >> d & 1))
            small.dim[d] = 1;
    AqId arg = add_arg(k, small);
    if (aq_same_shape(&small, type))
        return arg;
    return aq_broadcast_node(k->body, arg, type->rank, type->dim);
}

static AqId silu(AqSuiteKernel *k, AqId x)
{
    return aq_binary(k->body, AQ_OP_mul, x,
                     aq_unary(k->body, AQ_OP_sigmoid, x));
}

/* silu(x * scale + shift), scale and shift by sample and channel */
static AqId normalised(AqSuiteKernel *k, AqType type, AqId x)
{
    unsigned keep = 1u | 1u << (type.rank - 1);
    x = aq_binary(k->body, AQ_OP_mul, x, spread(k, &type, keep));
    x = aq_binary(k->body, AQ_OP_add, x, spread(k, &type, keep));
    return silu(k, x);
}

/* Parts next to each other along the last dimension, where they meet between
 * two vectors or anywhere. */
static AqId joined(AqSuite *s, AqSuiteKernel *k, AqType type)
{
    int last = type.rank - 1;
    int64_t width = type.dim[last], unit = width > 16 && below(s, 2) ? 16 : 1;
    int64_t first = 1 + below(s, (width - 1) / unit + 1);
    first = first * unit < width ? first * unit : width - 1;
    if (width < 2)
        return add_arg(k, type);
    AqType left = type, right = type;
    left.dim[last] = first;
    right.dim[last] = width - first;
    AqId parts[] = {add_arg(k, left), add_arg(k, right)};
    return aq_concat_node(k->body, parts, 2, last);
}

/* Every element as often as its dimension allows, all dimensions but the first
 * and the last. */
static AqId repeated(AqSuiteKernel *k, AqType type)
{
    AqType small = type;
    int64_t factor[AQ_MAX_RANK];
    for (int d = 0; d < type.rank; d++) {
        bool between = d > 0 && d < type.rank - 1;
        factor[d] = between && type.dim[d] % 2 == 0   ? 2
                    : between && type.dim[d] % 3 == 0 ? 3
                                                      : 1;
        small.dim[d] /= factor[d];
    }
    AqAttr attr = aq_ints(AQ_KEY_FACTOR, factor, type.rank);
    AqId x = add_arg(k, small);
    return aq_build(k->body, AQ_OP_repeat, NULL, &x, 1, &attr, 1);
}

/* An operand of that type: an arg, a piece of one, or an expression. */
static AqId operand(AqSuite *s, AqSuiteKernel *k, AqType type, int kind)
{
    if (kind == 1)
        return normalised(k, type, add_arg(k, type));
    if (kind == 4)
        return normalised(k, type, joined(s, k, type));
    if (kind == 5)
        return repeated(k, type);
    if (kind == 2) { /* the middle of a wider tensor */
        AqType wide = type;
        int64_t start[AQ_MAX_RANK], step[AQ_MAX_RANK];
        for (int d = 0; d < type.rank; d++) {
            start[d] = below(s, 3);
            step[d] = 1 + (d < type.rank - 1 && below(s, 3) == 0);
            wide.dim[d] =
                start[d] + (type.dim[d] - 1) * step[d] + 1 + below(s, 3);
        }
        return aq_slice_node(k->body, add_arg(k, wide), start, type.dim, step);
    }
    if (kind == 3) { /* another order of the dimensions */
        int64_t perm[AQ_MAX_RANK];
        AqType moved = type;
        for (int d = 0; d < type.rank; d++)
            perm[d] = type.rank - 1 - d;
        for (int d = 0; d < type.rank; d++)
            moved.dim[perm[d]] = type.dim[d];
        return aq_transpose_node(k->body, add_arg(k, moved), perm);
    }
    return add_arg(k, type);
}

/* What is stored, and sums and moments over all but the last dimension, or but
 * the first and the last. */
static void reductions(AqSuiteKernel *k, AqId value, bool by_sample)
{
    AqType type = *type_of(k, value);
    AqGraph *b = k->body;
    int64_t axes[AQ_MAX_RANK];
    int first = by_sample, n = 0;
    for (int d = first; d < type.rank - 1; d++) {
        axes[n++] = d;
        k->k *= type.dim[d];
    }
    value =
        aq_binary(b, AQ_OP_add, value, spread(k, &type, 1u << (type.rank - 1)));
    give(k, "out", value);
    AqId moments = aq_reduce_node(b, AQ_OP_moments, value, axes, n);
    give(k, "m2", aq_result_node(b, moments, 1));
    AqId scaled = aq_binary(b, AQ_OP_mul, value, spread(k, &type, ~0u));
    give(k, "sum", aq_reduce_node(b, AQ_OP_reduce_sum, scaled, axes, n));
    give(k, "mean", aq_result_node(b, moments, 0));
    give(k, "silu",
         aq_reduce_node(b, AQ_OP_reduce_sum, silu(k, value), axes, n));
}

/* Of which kernel's results there may be reductions: one product's rows. */
static bool may_reduce(const AqSuiteKernel *k, AqId value)
{
    const AqNode *node = aq_node(k->body, value);
    if (node->op == AQ_OP_matmul)
        return node->type.rank == 2;
    return aq_attr_int(node, AQ_KEY_GROUPS, 1) == 1;
}

static bool has_samples(const AqSuiteKernel *k, AqId value)
{
    AqOp op = aq_node(k->body, value)->op;
    return op == AQ_OP_conv2d || op == AQ_OP_conv2d_input_gradient;
}

/* The results: 0 the product, 1 with bias and residual, 2 two of them in
 * another shape, 3 with reductions, 4 by sample. */
static void results(AqSuiteKernel *k, AqId value, int kind)
{
    AqType type = *type_of(k, value);
    AqGraph *b = k->body;
    if (kind == 0) {
        give(k, "out", value);
        return;
    }
    if (kind > 2) {
        if (may_reduce(k, value))
            reductions(k, value, kind == 4 && has_samples(k, value));
        else
            give(k, "out", value);
        return;
    }
    AqId sum =
        aq_binary(b, AQ_OP_add, value, spread(k, &type, 1u << (type.rank - 1)));
    if (kind == 1) {
        sum = aq_binary(b, AQ_OP_add, sum, spread(k, &type, ~0u));
        give(k, "out", silu(k, sum));
        return;
    }
    sum = aq_binary(b, AQ_OP_add, sum,
                    spread(k, &type, 1u | 1u << (type.rank - 1)));
    int64_t flat = aq_elements(&type) / type.dim[type.rank - 1];
    give(k, "sum", sum);
    give(k, "flat",
         silu(k, aq_reshape_node(b, sum, 2,
                                 DIMS_(flat, type.dim[type.rank - 1]))));
}

/* ---- random cases ---- */

static int64_t some_size(AqSuite *s)
{
    static const int64_t sizes[] = {1,  2,  3,  5,  7,  8,  11, 12, 13, 16,
                                    17, 24, 31, 32, 33, 47, 64, 65, 97, 130};
    return sizes[below(s, AQ_COUNT(sizes))];
}

static void some_blocks(AqSuite *s, AqSuiteKernel *k)
{
    if (below(s, 2))
        return;
    int64_t block[] = {1 + below(s, 60), 1 + below(s, 80), 8 + below(s, 80),
                       1 + below(s, 4), below(s, 3)};
    memcpy(k->block, block, sizeof block);
    k->blocks = aq_ints(AQ_KEY_BLOCKS, k->block, 5);
}

void aq_suite_matmul(AqSuite *s, int operands, int epilogue)
{
    AqSuiteKernel *k = begin_kernel(s);
    int batches = (int)below(s, 3), rank = batches + 2;
    int64_t ta = below(s, 2), tb = below(s, 2);
    int64_t m = some_size(s), n = some_size(s);
    k->k = below(s, 4) == 0 ? 300 + below(s, 400) : some_size(s);
    AqType a = {.element = AQ_F32, .rank = rank}, b = a;
    for (int d = 0; d < batches; d++)
        a.dim[d] = b.dim[d] = 1 + below(s, 3);
    a.dim[rank - 2] = ta ? k->k : m;
    a.dim[rank - 1] = ta ? m : k->k;
    b.dim[rank - 2] = tb ? n : k->k;
    b.dim[rank - 1] = tb ? k->k : n;
    AqId x = operand(s, k, a, operands);
    AqId y = operand(s, k, b, operands ? (int)below(s, 4) : 0);
    results(k, aq_matmul_node(k->body, x, y, ta, tb), epilogue);
    some_blocks(s, k);
    end_kernel(s, k);
}

/* As the gradient of a layer's weights: long sums over whole vectors of rows.
 */
void aq_suite_turned(AqSuite *s, int operands, int epilogue)
{
    static const int64_t rows[] = {16, 32, 48, 80, 96, 144};
    static const int64_t columns[] = {33, 128, 130, 192, 200};
    AqSuiteKernel *k = begin_kernel(s);
    int batches = below(s, 4) == 0, rank = batches + 2;
    int64_t m = rows[below(s, AQ_COUNT(rows))];
    int64_t n = columns[below(s, AQ_COUNT(columns))];
    k->k = 64 + below(s, 600);
    AqType a = {.element = AQ_F32, .rank = rank, .dim = {2}}, b = a;
    a.dim[rank - 2] = b.dim[rank - 2] = k->k;
    a.dim[rank - 1] = m;
    b.dim[rank - 1] = n;
    AqId x = operand(s, k, a, operands);
    AqId y = operand(s, k, b, operands ? (int)below(s, 4) : 0);
    results(k, aq_matmul_node(k->body, x, y, true, false), epilogue);
    some_blocks(s, k);
    end_kernel(s, k);
}

typedef struct Conv {
    AqType x, w, y;
    AqAttr attrs[4];
    int64_t stride[2], pad[4], dilation[2];
} Conv;

static void set_attrs(Conv *c, int64_t groups)
{
    c->attrs[0] = aq_ints(AQ_KEY_STRIDE, c->stride, 2);
    c->attrs[1] = aq_ints(AQ_KEY_PAD, c->pad, 4);
    c->attrs[2] = aq_ints(AQ_KEY_DILATION, c->dilation, 2);
    c->attrs[3] = aq_int(AQ_KEY_GROUPS, groups);
}

/* One of four images is as small as its padding lets it be, or a few pixels
 * larger: of one pixel where that is enough for a result. */
static int64_t some_pixels(AqSuite *s, int64_t reach, const int64_t *pad)
{
    int64_t least = AQ_MAX(reach - pad[0] - pad[1], 1);
    return below(s, 4) ? reach + below(s, 14) : least + below(s, 3);
}

static void some_conv(AqSuite *s, Conv *c)
{
    static const int64_t channels[] = {1, 2, 3, 4, 5, 8, 13, 16, 24, 33, 40};
    int64_t groups = below(s, 4) == 0 ? 1 + below(s, 3) : 1;
    int64_t in = channels[below(s, AQ_COUNT(channels))];
    int64_t out = channels[below(s, AQ_COUNT(channels))];
    int64_t n = 1 + below(s, 3), size[2], kernel[2], y[2];
    for (int d = 0; d < 2; d++) {
        kernel[d] = 1 + below(s, 4);
        c->stride[d] = 1 + below(s, 3);
        c->dilation[d] = 1 + (below(s, 4) == 0);
        c->pad[2 * d] = below(s, kernel[d] + 1);
        c->pad[2 * d + 1] = below(s, kernel[d] + 1);
        int64_t reach = (kernel[d] - 1) * c->dilation[d] + 1;
        size[d] = some_pixels(s, reach, c->pad + 2 * d);
        y[d] = (size[d] + c->pad[2 * d] + c->pad[2 * d + 1] - reach) /
                   c->stride[d] +
               1;
    }
    c->x = F32(n, size[0], size[1], in * groups);
    c->w = F32(kernel[0], kernel[1], in, out * groups);
    c->y = F32(n, y[0], y[1], out * groups);
    set_attrs(c, groups);
}

static AqSuiteKernel *add_conv(AqSuite *s, const Conv *shape, int direction,
                               int operands, int epilogue)
{
    static const AqOp ops[] = {AQ_OP_conv2d, AQ_OP_conv2d_input_gradient,
                               AQ_OP_conv2d_weight_gradient};
    AqSuiteKernel *k = begin_kernel(s);
    Conv c = *shape;
    int64_t taps = c.w.dim[0] * c.w.dim[1];
    int64_t terms[] = {taps * c.w.dim[2], taps * c.w.dim[3],
                       c.y.dim[0] * c.y.dim[1] * c.y.dim[2]};
    k->k = terms[direction];
    AqType a[] = {c.x, c.y, c.x}, b[] = {c.w, c.w, c.y},
           out[] = {c.y, c.x, c.w};
    AqId inputs[2];
    inputs[0] = operand(s, k, a[direction], operands);
    inputs[1] = operand(s, k, b[direction], operands ? (int)below(s, 4) : 0);
    results(k, build(k, ops[direction], &out[direction], inputs, 2, c.attrs, 4),
            epilogue);
    return k;
}

void aq_suite_conv(AqSuite *s, int direction, int operands, int epilogue)
{
    Conv c;
    some_conv(s, &c);
    AqSuiteKernel *k = add_conv(s, &c, direction, operands, epilogue);
    some_blocks(s, k);
    end_kernel(s, k);
}

/* Any size and padding, such that tiles are ragged on all sides. */
void aq_suite_winograd(AqSuite *s, int direction, int operands, int epilogue)
{
    static const int64_t channels[] = {1,  2,  3,  4,  5,  8,  15,
                                       16, 24, 33, 48, 70, 130};
    int64_t n = 1 + below(s, 3), size[2], y[2];
    int64_t in = channels[below(s, AQ_COUNT(channels))];
    int64_t out = channels[below(s, AQ_COUNT(channels))];
    Conv c = {.stride = {1, 1}, .dilation = {1, 1}};
    for (int d = 0; d < 2; d++) {
        c.pad[2 * d] = below(s, 4);
        c.pad[2 * d + 1] = below(s, 4);
        size[d] = some_pixels(s, 3, c.pad + 2 * d);
        y[d] = size[d] + c.pad[2 * d] + c.pad[2 * d + 1] - 2;
    }
    c.x = F32(n, size[0], size[1], in);
    c.w = F32(3, 3, in, out);
    c.y = F32(n, y[0], y[1], out);
    set_attrs(&c, 1);
    AqSuiteKernel *k = add_conv(s, &c, direction, operands, epilogue);
    if (below(s, 3)) {
        /* of a weight gradient: tiles, rows, strips, slices, shared */
        static const int64_t first[][5] = {{1, 1, 8, 0, 0}, {1, 1, 1, 1, 0}};
        static const int64_t count[][5] = {{40, 4, 80, 2, 2},
                                           {40, 24, 3, 4, 2}};
        bool weight = direction == 2;
        for (int i = 0; i < 5; i++)
            k->block[i] = first[weight][i] + below(s, count[weight][i]);
        k->blocks = aq_ints(AQ_KEY_BLOCKS, k->block, 5);
    }
    end_kernel(s, k);
}

/* More taps than a pass keeps segments for, and patches that do not overlap. */
void aq_suite_many_taps(AqSuite *s, int i)
{
    Conv c = {.x = F32(2, 26, 27, 3 + i),
              .w = F32(9, 9, 3 + i, 17),
              .stride = {1 + 8 * (i / 3), 1 + 8 * (i / 3)},
              .pad = {1, 2, 3, 4},
              .dilation = {1, 1}};
    int64_t high = (26 + 1 + 2 - 9) / c.stride[0] + 1;
    int64_t wide = (27 + 3 + 4 - 9) / c.stride[1] + 1;
    c.y = F32(2, high, wide, 17);
    set_attrs(&c, 1);
    AqSuiteKernel *k = add_conv(s, &c, i % 3, 0, 0);
    some_blocks(s, k);
    end_kernel(s, k);
}
