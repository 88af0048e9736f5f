#include "tests/support/cases.h"

#include <setjmp.h>
#include <stdlib.h>

#include <cmocka.h>

/* ---- shapes and inputs ---- */

static int64_t below(AqBench *b, int64_t bound)
{
    return aq_test_below(&b->seed, bound);
}

static int64_t between(AqBench *b, int64_t low, int64_t high)
{
    return low + below(b, high - low + 1);
}

static bool coin(AqBench *b)
{
    return below(b, 2);
}

/* f32 of this rank with at most `limit` elements. */
static AqType shape(AqBench *b, int rank, int64_t limit)
{
    static const int64_t sizes[] = {1, 2, 3, 4, 5, 7, 9, 11, 13};
    AqType type = {.element = AQ_F32, .rank = rank};
    for (int i = 0; i < rank; i++)
        type.dim[i] = sizes[below(b, AQ_COUNT(sizes))];
    while (aq_elements(&type) > limit)
        type.dim[below(b, rank)] = between(b, 1, 3);
    return type;
}

static AqType any_shape(AqBench *b)
{
    return shape(b, (int)between(b, 0, 4), 30);
}

static AqId bind(AqBench *b, AqType type, const double *data)
{
    char name[16];
    snprintf(name, sizeof name, "x%d", b->n_bindings);
    return aq_bench_input(b, name, type, data);
}

AqId aq_case_input(AqBench *b, AqType type, double low, double high)
{
    int64_t count = aq_elements(&type);
    double *data = AQ_NEW_ARRAY(b->arena, double, count);
    for (int64_t i = 0; i < count; i++)
        data[i] = low + (high - low) * aq_test_uniform(&b->seed);
    return bind(b, type, data);
}

static AqId normal(AqBench *b, AqType type)
{
    return aq_case_input(b, type, -1.5, 1.5);
}

/* Values at least 0.01 apart, of this input and of up to four others, and none
 * of them within 0.004 of an integer. */
static AqId distinct(AqBench *b, AqType type)
{
    int64_t count = aq_elements(&type);
    double *data = AQ_NEW_ARRAY(b->arena, double, count);
    for (int64_t i = 0; i < count; i++) {
        int64_t other = between(b, 0, i);
        data[i] = data[other];
        data[other] =
            0.05 * (double)(i - count / 2) + 0.005 + 0.01 * b->n_bindings;
    }
    return bind(b, type, data);
}

/* i32 with values 0 .. bound - 1, many of them twice. */
static AqId indices(AqBench *b, AqType type, int64_t bound)
{
    int64_t count = aq_elements(&type);
    double *data = AQ_NEW_ARRAY(b->arena, double, count);
    type.element = AQ_I32;
    for (int64_t i = 0; i < count; i++)
        data[i] = (double)below(b, bound);
    return bind(b, type, data);
}

static AqId build(AqBench *b, AqOp op, const AqType *declared, AqId x, AqId y)
{
    return aq_bench_build(b, op, declared, (AqId[]){x, y},
                          y == AQ_NO_NODE ? 1 : 2, NULL, 0);
}

/* ---- pointwise ---- */

static AqId in_range(AqBench *b, AqOp op, double low, double high)
{
    return build(b, op, NULL, aq_case_input(b, any_shape(b), low, high),
                 AQ_NO_NODE);
}

static AqId smooth(AqBench *b, AqOp op)
{
    return in_range(b, op, -2, 2);
}

static AqId positive(AqBench *b, AqOp op)
{
    return in_range(b, op, 0.5, 2);
}

static AqId away_from_kinks(AqBench *b, AqOp op)
{
    return build(b, op, NULL, distinct(b, any_shape(b)), AQ_NO_NODE);
}

static AqId two_inputs(AqBench *b, AqOp op)
{
    AqType type = any_shape(b);
    AqId x = normal(b, type);
    if (below(b, 4) == 0) /* the same one twice */
        return build(b, op, NULL, x, x);
    return build(b, op, NULL, x, normal(b, type));
}

static AqId two_distinct(AqBench *b, AqOp op)
{
    AqType type = any_shape(b);
    AqId x = distinct(b, type);
    return build(b, op, NULL, x, distinct(b, type));
}

static AqId case_div(AqBench *b, AqOp op)
{
    AqType type = any_shape(b);
    AqId x = normal(b, type);
    return build(b, op, NULL, x, aq_case_input(b, type, 0.5, 2));
}

static AqId case_select(AqBench *b, AqOp op)
{
    AqId condition = two_distinct(b, AQ_OP_less);
    AqType type = aq_node(b->g, condition)->type;
    AqId x = normal(b, type), y = normal(b, type);
    return aq_bench_build(b, op, NULL, (AqId[]){condition, x, y}, 3, NULL, 0);
}

/* x times a step, whose own gradient is zero. */
static AqId case_zero(AqBench *b, AqOp op)
{
    AqType type = any_shape(b);
    AqId x = distinct(b, type);
    AqId y = aq_op_info[op].inputs == 2 ? distinct(b, type) : AQ_NO_NODE;
    return build(b, AQ_OP_mul, NULL, x, build(b, op, NULL, x, y));
}

#define case_neg smooth
#define case_abs away_from_kinks
#define case_exp smooth
#define case_log positive
#define case_sqrt positive
#define case_rsqrt positive
#define case_sin smooth
#define case_cos smooth
#define case_tanh smooth
#define case_erf smooth
#define case_sigmoid smooth
#define case_add two_inputs
#define case_sub two_inputs
#define case_mul two_inputs
#define case_max two_distinct
#define case_min two_distinct

/* ---- reductions ---- */

static AqId reduced(AqBench *b, AqOp op, AqId x)
{
    int rank = aq_node(b->g, x)->type.rank, n = 0;
    int64_t axes[AQ_MAX_RANK];
    while (n == 0)
        for (int i = n = 0; i < rank; i++)
            if (coin(b))
                axes[n++] = i;
    AqAttr attr = aq_ints(AQ_KEY_AXES, axes, n);
    return aq_bench_build(b, op, NULL, &x, 1, &attr, 1);
}

static AqId case_reduce_sum(AqBench *b, AqOp op)
{
    return reduced(b, op, normal(b, shape(b, (int)between(b, 1, 4), 40)));
}

static AqId case_reduce_max(AqBench *b, AqOp op)
{
    return reduced(b, op, distinct(b, shape(b, (int)between(b, 1, 4), 40)));
}

#define case_moments case_reduce_sum

/* Reads both results of moments. */
static AqId case_result(AqBench *b, AqOp op)
{
    (void)op;
    AqId both = case_moments(b, AQ_OP_moments);
    return build(b, AQ_OP_mul, NULL, aq_result_node(b->g, both, 0),
                 aq_result_node(b->g, both, 1));
}

/* ---- movement ---- */

static AqId case_reshape(AqBench *b, AqOp op)
{
    AqType from = shape(b, (int)between(b, 0, 4), 40), to = from;
    if (from.rank > 1 && coin(b)) { /* joins the last two */
        to.rank--;
        to.dim[to.rank - 1] *= from.dim[to.rank];
        to.dim[to.rank] = 0;
    } else {
        to.dim[to.rank++] = 1;
    }
    return build(b, op, &to, normal(b, from), AQ_NO_NODE);
}

static AqId case_transpose(AqBench *b, AqOp op)
{
    AqType type = shape(b, (int)between(b, 1, 4), 40);
    int64_t perm[AQ_MAX_RANK];
    for (int i = 0; i < type.rank; i++) {
        int64_t other = between(b, 0, i);
        perm[i] = perm[other];
        perm[other] = i;
    }
    AqAttr attr = aq_ints(AQ_KEY_PERM, perm, type.rank);
    AqId x = normal(b, type);
    return aq_bench_build(b, op, NULL, &x, 1, &attr, 1);
}

/* A small type, a large one, and how one lies in the other. */
static AqId slice_or_pad(AqBench *b, AqOp op)
{
    AqType small = shape(b, (int)between(b, 1, 4), 12), large = small;
    int64_t start[AQ_MAX_RANK], step[AQ_MAX_RANK];
    for (int i = 0; i < small.rank; i++) {
        start[i] = between(b, 0, 2);
        step[i] = between(b, 1, 2);
        large.dim[i] =
            start[i] + (small.dim[i] - 1) * step[i] + 1 + between(b, 0, 1);
    }
    AqAttr attrs[] = {aq_ints(AQ_KEY_START, start, small.rank),
                      aq_ints(AQ_KEY_STEP, step, small.rank)};
    bool slice = op == AQ_OP_slice;
    AqId x = normal(b, slice ? large : small);
    return aq_bench_build(b, op, slice ? &small : &large, &x, 1, attrs, 2);
}

#define case_slice slice_or_pad
#define case_pad slice_or_pad

static AqId case_broadcast(AqBench *b, AqOp op)
{
    AqType to = shape(b, (int)between(b, 0, 4), 40), from = to;
    for (int i = 0; i < to.rank; i++)
        from.dim[i] = coin(b) ? 1 : to.dim[i];
    return build(b, op, &to, normal(b, from), AQ_NO_NODE);
}

static AqId case_concat(AqBench *b, AqOp op)
{
    AqType type = shape(b, (int)between(b, 1, 4), 12);
    int64_t axis = below(b, type.rank);
    int count = (int)between(b, 1, 4);
    AqId parts[4];
    for (int i = 0; i < count; i++) {
        if (i > 0 && below(b, 4) == 0) {
            parts[i] = parts[i - 1]; /* the same one again */
            continue;
        }
        type.dim[axis] = between(b, 1, 3);
        parts[i] = normal(b, type);
    }
    AqAttr attr = aq_int(AQ_KEY_AXIS, axis);
    return aq_bench_build(b, op, NULL, parts, count, &attr, 1);
}

static AqId case_repeat(AqBench *b, AqOp op)
{
    AqType type = shape(b, (int)between(b, 1, 5), 6);
    int64_t factor[AQ_MAX_RANK];
    bool all = below(b, 4) == 0; /* of rank 5: too many axes to sum at once */
    for (int i = 0; i < type.rank; i++)
        factor[i] = all ? 2 : between(b, 1, 3);
    AqAttr attr = aq_ints(AQ_KEY_FACTOR, factor, type.rank);
    AqId x = normal(b, type);
    return aq_bench_build(b, op, NULL, &x, 1, &attr, 1);
}

/* ---- look-up ---- */

/* (V, rest...), and (index..., rest...) */
static void table_shapes(AqBench *b, AqType *table, AqType *index, AqType *rows)
{
    *table = shape(b, (int)between(b, 1, 3), 15);
    *index = shape(b, (int)between(b, 0, 2), 5);
    *rows = *index;
    for (int i = 1; i < table->rank; i++)
        rows->dim[rows->rank++] = table->dim[i];
}

static AqId case_gather(AqBench *b, AqOp op)
{
    AqType table, index, rows;
    table_shapes(b, &table, &index, &rows);
    AqId x = normal(b, table);
    return build(b, op, NULL, x, indices(b, index, table.dim[0]));
}

static AqId case_scatter_add(AqBench *b, AqOp op)
{
    AqType table, index, rows;
    table_shapes(b, &table, &index, &rows);
    AqId where = indices(b, index, table.dim[0]);
    return build(b, op, &table, where, normal(b, rows));
}

/* ---- contractions ---- */

/* dim[0..1] = rows, columns, exchanged if `transposed`. */
static AqType matrix(AqType batch, int64_t rows, int64_t columns,
                     bool transposed)
{
    batch.dim[batch.rank++] = transposed ? columns : rows;
    batch.dim[batch.rank++] = transposed ? rows : columns;
    return batch;
}

static AqId case_matmul(AqBench *b, AqOp op)
{
    AqType batch = shape(b, (int)between(b, 0, 2), 3);
    AqType size = shape(b, 3, 60);
    int64_t m = size.dim[0], k = size.dim[1], n = size.dim[2];
    bool ta = coin(b), tb = coin(b);
    AqAttr attrs[] = {aq_int(AQ_KEY_TA, ta), aq_int(AQ_KEY_TB, tb)};
    AqId x = normal(b, matrix(batch, m, k, ta));
    if (m == k && k == n && coin(b))
        return aq_bench_build(b, op, NULL, (AqId[]){x, x}, 2, attrs, 2);
    AqId y = normal(b, matrix(batch, k, n, tb));
    return aq_bench_build(b, op, NULL, (AqId[]){x, y}, 2, attrs, 2);
}

static AqType type4(int64_t a, int64_t b, int64_t c, int64_t d)
{
    return aq_type(AQ_F32, 4, (int64_t[]){a, b, c, d});
}

static AqId convolution(AqBench *b, AqOp op)
{
    int64_t stride[2], pad[4], dilation[2], kernel[2], size[2];
    for (int i = 0; i < 4; i++)
        pad[i] = between(b, 0, 2);
    for (int i = 0; i < 2; i++) {
        stride[i] = between(b, 1, 2);
        dilation[i] = between(b, 1, 2);
        kernel[i] = between(b, 1, 3);
        int64_t reach = dilation[i] * (kernel[i] - 1) + 1;
        int64_t padded = pad[2 * i] + pad[2 * i + 1];
        size[i] = AQ_MAX(reach - padded, 1) + between(b, 0, 2);
    }
    int64_t groups = between(b, 1, 2);
    int64_t in = between(b, 1, 2), out = groups * between(b, 1, 2);
    AqType x_type = type4(between(b, 1, 2), size[0], size[1], groups * in);
    AqType w_type = type4(kernel[0], kernel[1], in, out);
    AqAttr attrs[] = {
        aq_ints(AQ_KEY_STRIDE, stride, 2), aq_ints(AQ_KEY_PAD, pad, 4),
        aq_ints(AQ_KEY_DILATION, dilation, 2), aq_int(AQ_KEY_GROUPS, groups)};
    AqId x = normal(b, x_type), w = normal(b, w_type);
    AqId y = aq_bench_build(b, AQ_OP_conv2d, NULL, (AqId[]){x, w}, 2, attrs, 4);
    if (op == AQ_OP_conv2d)
        return y;
    AqId dy = normal(b, aq_node(b->g, y)->type);
    if (op == AQ_OP_conv2d_input_gradient)
        return aq_bench_build(b, op, &x_type, (AqId[]){dy, w}, 2, attrs, 4);
    return aq_bench_build(b, op, &w_type, (AqId[]){x, dy}, 2, attrs, 4);
}

#define case_conv2d convolution
#define case_conv2d_input_gradient convolution
#define case_conv2d_weight_gradient convolution

/* ---- attention ---- */

/* q, k, v and perhaps a bias, which broadcasts perhaps. */
static int attention_inputs(AqBench *b, AqId *x, AqAttr *attrs)
{
    int64_t batch = between(b, 1, 2), heads = between(b, 1, 2);
    int64_t queries = between(b, 1, 3), keys = between(b, 1, 3);
    int64_t depth = between(b, 1, 3);
    x[0] = normal(b, type4(batch, queries, heads, depth));
    x[1] = normal(b, type4(batch, keys, heads, depth));
    x[2] = normal(b, type4(batch, keys, heads, depth));
    attrs[0] = aq_real(AQ_KEY_SCALE, 0.5 + aq_test_uniform(&b->seed));
    attrs[1] = aq_int(AQ_KEY_CAUSAL, coin(b));
    if (coin(b))
        return 3;
    x[3] = normal(
        b, type4(coin(b) ? 1 : batch, coin(b) ? 1 : heads, queries, keys));
    return 4;
}

static AqId case_attention(AqBench *b, AqOp op)
{
    AqId x[4];
    AqAttr attrs[2];
    int n = attention_inputs(b, x, attrs);
    return aq_bench_build(b, op, NULL, x, n, attrs, 2);
}

/* Of attention's own output and log-sum-exp, or of any. */
static AqId case_attention_gradient(AqBench *b, AqOp op)
{
    AqId x[7];
    AqAttr attrs[2];
    int n = attention_inputs(b, x, attrs);
    AqId bias = x[3];
    AqId forward = aq_bench_build(b, AQ_OP_attention, NULL, x, n, attrs, 2);
    x[3] = aq_result_node(b->g, forward, 0);
    x[4] = aq_result_node(b->g, forward, 1);
    if (coin(b)) {
        x[3] = normal(b, aq_node(b->g, x[3])->type);
        x[4] = aq_case_input(b, aq_node(b->g, x[4])->type, 1, 2);
    }
    x[5] = normal(b, aq_node(b->g, x[0])->type);
    x[6] = bias;
    return aq_bench_build(b, op, NULL, x, n + 3, attrs, 2);
}

/* ---- the table: a missing case does not compile ---- */

#define case_none NULL

AqCase *const aq_cases[AQ_OP_COUNT] = {
#define OP(name, inputs, facts, attributes, shape, gradient, ...)              \
    [AQ_OP_##name] = case_##gradient,
#include "ir/ops.def"
#undef OP
};

/* ---- losses ---- */

static AqId weighted_sum(AqBench *b, AqId value)
{
    AqType type = aq_node(b->g, value)->type;
    AqId product = build(b, AQ_OP_mul, NULL, value, normal(b, type));
    int64_t count = aq_elements(&type);
    AqId flat = aq_reshape_node(b->g, product, 1, &count);
    return aq_reduce_node(b->g, AQ_OP_reduce_sum, flat, (int64_t[]){0}, 1);
}

AqId aq_case_loss(AqBench *b, AqId value)
{
    if (aq_node(b->g, value)->type.element != AQ_RESULTS)
        return weighted_sum(b, value);
    int count = aq_result_count(b->g, value);
    AqId sum = AQ_NO_NODE;
    while (sum == AQ_NO_NODE)
        for (int i = 0; i < count; i++) {
            if (coin(b))
                continue;
            AqId more = weighted_sum(b, aq_result_node(b->g, value, i));
            sum =
                sum == AQ_NO_NODE ? more : build(b, AQ_OP_add, NULL, sum, more);
        }
    return sum;
}
