/* One line a node, for passes and builders.  What would change nothing (a
 * reshape to the same shape, a sum over no axes) returns its input. */
#include "ir/ir.h"

#include <string.h>

static bool have(const AqGraph *g, AqId id)
{
    return g->error.status == AQ_OK && id >= 0 && id < g->count;
}

/* The type of `id`; for a missing node one that no rule accepts, so that the
 * build which follows says what is wrong. */
static AqType type_of(const AqGraph *g, AqId id)
{
    return have(g, id) ? g->nodes[id].type : (AqType){.element = AQ_RESULTS};
}

AqId aq_unary(AqGraph *g, AqOp op, AqId x)
{
    return aq_build(g, op, NULL, &x, 1, NULL, 0);
}

AqId aq_binary(AqGraph *g, AqOp op, AqId a, AqId b)
{
    return aq_build(g, op, NULL, (AqId[]){a, b}, 2, NULL, 0);
}

AqId aq_select_node(AqGraph *g, AqId condition, AqId a, AqId b)
{
    AqId inputs[] = {condition, a, b};
    return aq_build(g, AQ_OP_select, NULL, inputs, 3, NULL, 0);
}

AqId aq_const_node(AqGraph *g, const AqType *type, double value)
{
    AqAttr attr = aq_real(AQ_KEY_VALUE, value);
    return aq_build(g, AQ_OP_const, type, NULL, 0, &attr, 1);
}

AqId aq_const_like(AqGraph *g, AqId like, double value)
{
    AqType type = type_of(g, like);
    return aq_const_node(g, &type, value);
}

AqId aq_table_node(AqGraph *g, const AqType *type, const double *data)
{
    int64_t count = type->rank <= AQ_MAX_RANK ? aq_elements(type) : 0;
    if (count > INT32_MAX)
        return aq_graph_fail(g, AQ_BAD_INPUT,
                             "table: %lld numbers are too many",
                             (long long)count);
    AqAttr attr = aq_reals(AQ_KEY_DATA, data, (int)count);
    return aq_build(g, AQ_OP_table, type, NULL, 0, &attr, 1);
}

AqId aq_iota_node(AqGraph *g, const AqType *type, int axis)
{
    AqAttr attr = aq_int(AQ_KEY_AXIS, axis);
    return aq_build(g, AQ_OP_iota, type, NULL, 0, &attr, 1);
}

AqId aq_cast_node(AqGraph *g, AqId x, AqElement element)
{
    AqType type = type_of(g, x);
    if (have(g, x) && type.element == element)
        return x;
    type.element = element;
    return aq_build(g, AQ_OP_cast, &type, &x, 1, NULL, 0);
}

/* ---- movement ---- */

/* A node of the declared type, or x itself where it has that type already. */
static AqId change_shape(AqGraph *g, AqOp op, AqId x, int rank,
                         const int64_t *dim)
{
    AqType from = type_of(g, x), to = aq_type(from.element, rank, dim);
    if (have(g, x) && aq_same_type(&from, &to))
        return x;
    return aq_build(g, op, &to, &x, 1, NULL, 0);
}

AqId aq_reshape_node(AqGraph *g, AqId x, int rank, const int64_t *dim)
{
    return change_shape(g, AQ_OP_reshape, x, rank, dim);
}

AqId aq_reshape_like(AqGraph *g, AqId x, const AqType *like)
{
    return aq_reshape_node(g, x, like->rank, like->dim);
}

AqId aq_broadcast_node(AqGraph *g, AqId x, int rank, const int64_t *dim)
{
    return change_shape(g, AQ_OP_broadcast, x, rank, dim);
}

AqId aq_transpose_node(AqGraph *g, AqId x, const int64_t *perm)
{
    int rank = type_of(g, x).rank;
    bool moves = !have(g, x);
    for (int i = 0; i < rank; i++)
        moves |= perm[i] != i;
    if (!moves)
        return x;
    AqAttr attr = aq_ints(AQ_KEY_PERM, perm, rank);
    return aq_build(g, AQ_OP_transpose, NULL, &x, 1, &attr, 1);
}

AqId aq_expand_node(AqGraph *g, AqId reduced, const AqType *to,
                    const int64_t *axes, int n_axes)
{
    int64_t dim[AQ_MAX_RANK];
    for (int i = 0; i < to->rank; i++)
        dim[i] = to->dim[i];
    for (int i = 0; i < n_axes; i++)
        dim[axes[i]] = 1;
    AqId ones = aq_reshape_node(g, reduced, to->rank, dim);
    return aq_broadcast_node(g, ones, to->rank, to->dim);
}

/* slice or pad; `step` may be NULL for ones */
static AqId window(AqGraph *g, AqOp op, AqId x, const int64_t *start,
                   const int64_t *step, const int64_t *size)
{
    AqType from = type_of(g, x), to = aq_type(from.element, from.rank, size);
    bool whole = have(g, x) && aq_same_type(&from, &to);
    for (int i = 0; whole && i < from.rank; i++)
        whole = start[i] == 0;
    if (whole)
        return x; /* then no step matters that the rule would accept */
    AqAttr attrs[] = {aq_ints(AQ_KEY_START, start, from.rank),
                      aq_ints(AQ_KEY_STEP, step, from.rank)};
    return aq_build(g, op, &to, &x, 1, attrs, step ? 2 : 1);
}

AqId aq_slice_node(AqGraph *g, AqId x, const int64_t *start,
                   const int64_t *size, const int64_t *step)
{
    return window(g, AQ_OP_slice, x, start, step, size);
}

AqId aq_pad_node(AqGraph *g, AqId x, const int64_t *start, const int64_t *step,
                 const int64_t *size)
{
    return window(g, AQ_OP_pad, x, start, step, size);
}

AqId aq_concat_node(AqGraph *g, const AqId *parts, int count, int axis)
{
    if (count == 1 && have(g, parts[0]))
        return parts[0];
    AqAttr attr = aq_int(AQ_KEY_AXIS, axis);
    return aq_build(g, AQ_OP_concat, NULL, parts, count, &attr, 1);
}

AqId aq_repeat_node(AqGraph *g, AqId x, const int64_t *factor)
{
    int rank = type_of(g, x).rank;
    bool repeats = !have(g, x);
    for (int i = 0; i < rank; i++)
        repeats |= factor[i] != 1;
    if (!repeats)
        return x;
    AqAttr attr = aq_ints(AQ_KEY_FACTOR, factor, rank);
    return aq_build(g, AQ_OP_repeat, NULL, &x, 1, &attr, 1);
}

/* ---- the rest ---- */

AqId aq_reduce_node(AqGraph *g, AqOp op, AqId x, const int64_t *axes,
                    int n_axes)
{
    if (n_axes == 0 && have(g, x) && !(aq_op_info[op].facts & AQ_HAS_RESULTS))
        return x;
    AqAttr attr = aq_ints(AQ_KEY_AXES, axes, n_axes);
    return aq_build(g, op, NULL, &x, 1, &attr, 1);
}

AqId aq_matmul_node(AqGraph *g, AqId a, AqId b, bool ta, bool tb)
{
    AqAttr attrs[] = {aq_int(AQ_KEY_TA, ta), aq_int(AQ_KEY_TB, tb)};
    return aq_build(g, AQ_OP_matmul, NULL, (AqId[]){a, b}, 2, attrs, 2);
}

AqId aq_result_node(AqGraph *g, AqId node, int index)
{
    AqAttr attr = aq_int(AQ_KEY_INDEX, index);
    return aq_build(g, AQ_OP_result, NULL, &node, 1, &attr, 1);
}
