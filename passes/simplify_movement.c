/* Rules of movement: one index map after another is one index map, and one
 * that moves nothing is none. */
#include "passes/simplify.h"

#include <string.h>

/* ---- what moves nothing, or moves equal things ---- */

/* Shape and order of elements stay: identity reshapes, slices, broadcasts,
 * and pads, repeats by 1, sums over no axis. */
static AqId same_shape(AqGraph *g, AqId id)
{
    AqId x = input_of(g, id, 0);
    return aq_same_shape(&aq_node(g, id)->type, &aq_node(g, x)->type)
               ? x
               : AQ_NO_NODE;
}

/* Moving equal values about gives equal values, if pad puts zeros to zeros. */
static AqId equal_values(AqGraph *g, AqId id)
{
    const AqNode *node = aq_node(g, id);
    double value;
    if (!aq_const_value(g, node->inputs[0], &value))
        return AQ_NO_NODE;
    for (int i = 1; i < node->n_inputs; i++) {
        double other;
        if (!aq_const_value(g, node->inputs[i], &other) || other != value)
            return AQ_NO_NODE;
    }
    if (node->op == AQ_OP_pad && value != 0)
        return AQ_NO_NODE;
    return aq_const_like(g, id, value);
}

/* ---- reshape ---- */

static AqId join_reshapes(AqGraph *g, AqId id)
{
    AqId x = input_of(g, id, 0);
    AqType type = aq_node(g, id)->type;
    if (op_of(g, x) != AQ_OP_reshape)
        return AQ_NO_NODE;
    return aq_reshape_like(g, input_of(g, x, 0), &type);
}

/* Reducing axes of length 1 only takes them out of the shape. */
static AqId reduce_nothing(AqGraph *g, AqId id)
{
    AqNode node = *aq_node(g, id);
    const AqAttr *axes = aq_attr(&node, AQ_KEY_AXES);
    const AqType *from = &aq_node(g, node.inputs[0])->type;
    for (int i = 0; axes && i < axes->count; i++)
        if (from->dim[axes->ints[i]] != 1)
            return AQ_NO_NODE;
    return aq_reshape_like(g, node.inputs[0], &node.type);
}

/* ---- transpose ---- */

static AqId join_transposes(AqGraph *g, AqId id)
{
    AqNode outer = *aq_node(g, id), inner = *aq_node(g, outer.inputs[0]);
    if (inner.op != AQ_OP_transpose)
        return AQ_NO_NODE;
    int64_t perm[AQ_MAX_RANK];
    for (int i = 0; i < outer.type.rank; i++) {
        int64_t middle = aq_attr_at(&outer, AQ_KEY_PERM, i, i);
        perm[i] = aq_attr_at(&inner, AQ_KEY_PERM, (int)middle, middle);
    }
    return aq_transpose_node(g, inner.inputs[0], perm);
}

/* Where all axes longer than 1 keep their order, so do the elements. */
static AqId transpose_in_order(AqGraph *g, AqId id)
{
    AqNode node = *aq_node(g, id);
    int64_t last = -1;
    for (int i = 0; i < node.type.rank; i++) {
        int64_t from = aq_attr_at(&node, AQ_KEY_PERM, i, i);
        if (node.type.dim[i] == 1)
            continue;
        if (from < last)
            return AQ_NO_NODE;
        last = from;
    }
    return aq_reshape_like(g, node.inputs[0], &node.type);
}

/* Whether `x` exchanges the last two axes of its input and keeps the others. */
static bool exchanges_last_two(const AqGraph *g, AqId x)
{
    const AqNode *node = aq_node(g, x);
    int rank = node->type.rank;
    if (node->op != AQ_OP_transpose || rank < 2)
        return false;
    for (int i = 0; i < rank; i++) {
        int from = i < rank - 2 ? i : 2 * rank - 3 - i;
        if (aq_attr_at(node, AQ_KEY_PERM, i, i) != from)
            return false;
    }
    return true;
}

/* A product reads transposed operands as they are. */
static AqId matmul_of_transposed(AqGraph *g, AqId id)
{
    AqNode node = *aq_node(g, id);
    bool ta = aq_attr_int(&node, AQ_KEY_TA, 0);
    bool tb = aq_attr_int(&node, AQ_KEY_TB, 0);
    AqId a = node.inputs[0], b = node.inputs[1];
    if (exchanges_last_two(g, a))
        return aq_matmul_node(g, input_of(g, a, 0), b, !ta, tb);
    if (exchanges_last_two(g, b))
        return aq_matmul_node(g, a, input_of(g, b, 0), ta, !tb);
    return AQ_NO_NODE;
}

/* ---- slice and pad ---- */

typedef struct Places {
    int64_t start[AQ_MAX_RANK], step[AQ_MAX_RANK];
} Places;

static Places places_of(const AqNode *node)
{
    Places p;
    for (int i = 0; i < AQ_MAX_RANK; i++) {
        p.start[i] = aq_attr_at(node, AQ_KEY_START, i, 0);
        p.step[i] = aq_attr_at(node, AQ_KEY_STEP, i, 1);
    }
    return p;
}

/* x[s + (t + i u) v] with the outer's t, u and the inner's s, v; and for pads
 * the other way round, because they say where things go. */
static Places through(const AqNode *near_x, const AqNode *far, AqOp op)
{
    Places a = places_of(near_x), b = places_of(far), p;
    if (op == AQ_OP_pad) {
        Places swap = a;
        a = b;
        b = swap;
    }
    for (int i = 0; i < AQ_MAX_RANK; i++) {
        p.start[i] = a.start[i] + b.start[i] * a.step[i];
        p.step[i] = a.step[i] * b.step[i];
    }
    return p;
}

static AqId join_slices(AqGraph *g, AqId id)
{
    AqNode outer = *aq_node(g, id), inner = *aq_node(g, outer.inputs[0]);
    if (inner.op != AQ_OP_slice)
        return AQ_NO_NODE;
    Places p = through(&inner, &outer, AQ_OP_slice);
    return aq_slice_node(g, inner.inputs[0], p.start, outer.type.dim, p.step);
}

static AqId join_pads(AqGraph *g, AqId id)
{
    AqNode outer = *aq_node(g, id), inner = *aq_node(g, outer.inputs[0]);
    if (inner.op != AQ_OP_pad)
        return AQ_NO_NODE;
    Places p = through(&inner, &outer, AQ_OP_pad);
    return aq_pad_node(g, inner.inputs[0], p.start, p.step, outer.type.dim);
}

/* A slice of a pad that steps nowhere: all inside the padded tensor along each
 * axis, or all zeros along one; else it stays. */
static AqId slice_of_pad(AqGraph *g, AqId id)
{
    AqNode slice = *aq_node(g, id), pad = *aq_node(g, slice.inputs[0]);
    if (pad.op != AQ_OP_pad)
        return AQ_NO_NODE;
    Places s = places_of(&slice), p = places_of(&pad);
    AqType x = aq_node(g, pad.inputs[0])->type;
    bool inside = true, outside = false;
    for (int i = 0; i < x.rank; i++) {
        if (s.step[i] != 1 || p.step[i] != 1)
            return AQ_NO_NODE;
        s.start[i] -= p.start[i];
        int64_t end = s.start[i] + slice.type.dim[i];
        inside &= s.start[i] >= 0 && end <= x.dim[i];
        outside |= end <= 0 || s.start[i] >= x.dim[i];
    }
    if (outside)
        return aq_const_like(g, id, 0);
    if (!inside)
        return AQ_NO_NODE;
    return aq_slice_node(g, pad.inputs[0], s.start, slice.type.dim, s.step);
}

/* ---- concat ---- */

static AqId slice_of_concat(AqGraph *g, AqId id)
{
    AqNode slice = *aq_node(g, id), whole = *aq_node(g, slice.inputs[0]);
    if (whole.op != AQ_OP_concat || aq_elements(&slice.type) == 0)
        return AQ_NO_NODE;
    int axis = (int)aq_attr_int(&whole, AQ_KEY_AXIS, 0);
    Places s = places_of(&slice);
    int64_t last = s.start[axis] + (slice.type.dim[axis] - 1) * s.step[axis],
            begin = 0;
    for (int i = 0; i < whole.n_inputs; i++) {
        int64_t end = begin + aq_node(g, whole.inputs[i])->type.dim[axis];
        if (s.start[axis] >= begin && last < end) {
            s.start[axis] -= begin;
            return aq_slice_node(g, whole.inputs[i], s.start, slice.type.dim,
                                 s.step);
        }
        begin = end;
    }
    return AQ_NO_NODE;
}

/* A concat among the parts, along the same axis, gives its own parts. */
static AqId concat_of_concat(AqGraph *g, AqId id)
{
    AqNode node = *aq_node(g, id);
    int64_t axis = aq_attr_int(&node, AQ_KEY_AXIS, 0);
    for (int i = 0; i < node.n_inputs; i++) {
        AqNode part = *aq_node(g, node.inputs[i]);
        if (part.op != AQ_OP_concat ||
            aq_attr_int(&part, AQ_KEY_AXIS, 0) != axis)
            continue;
        int count = node.n_inputs - 1 + part.n_inputs;
        AqId *parts = AQ_NEW_ARRAY(g->arena, AqId, count);
        if (!parts)
            return aq_graph_fail(g, AQ_NO_MEMORY, "memory has run out");
        size_t rest = (size_t)(node.n_inputs - i - 1);
        memcpy(parts, node.inputs, (size_t)i * sizeof *parts);
        memcpy(parts + i, part.inputs, (size_t)part.n_inputs * sizeof *parts);
        memcpy(parts + i + part.n_inputs, node.inputs + i + 1,
               rest * sizeof *parts);
        return aq_concat_node(g, parts, count, (int)axis);
    }
    return AQ_NO_NODE;
}

/* Moments over other axes than the concat's: each part has its own, and often
 * they are wanted of the part alone as well. */
static AqId moments_of_concat(AqGraph *g, AqId id)
{
    AqNode result = *aq_node(g, id), moments = *aq_node(g, result.inputs[0]);
    if (moments.op != AQ_OP_moments)
        return AQ_NO_NODE;
    AqNode concat = *aq_node(g, moments.inputs[0]);
    if (concat.op != AQ_OP_concat)
        return AQ_NO_NODE;
    AqAttr axes = *aq_attr(&moments, AQ_KEY_AXES);
    int64_t axis = aq_attr_int(&concat, AQ_KEY_AXIS, 0), kept = axis;
    for (int i = 0; i < axes.count; i++) {
        if (axes.ints[i] == axis)
            return AQ_NO_NODE;
        kept -= axes.ints[i] < axis;
    }
    AqId *parts = AQ_NEW_ARRAY(g->arena, AqId, concat.n_inputs);
    if (!parts)
        return aq_graph_fail(g, AQ_NO_MEMORY, "memory has run out");
    int which = (int)aq_attr_int(&result, AQ_KEY_INDEX, 0);
    for (int i = 0; i < concat.n_inputs; i++)
        parts[i] = aq_result_node(
            g, aq_build(g, AQ_OP_moments, NULL, &concat.inputs[i], 1, &axes, 1),
            which);
    return aq_concat_node(g, parts, concat.n_inputs, (int)kept);
}

/* ---- broadcast and repeat ---- */

static AqId join_broadcasts(AqGraph *g, AqId id)
{
    AqId x = input_of(g, id, 0);
    AqType type = aq_node(g, id)->type;
    if (op_of(g, x) != AQ_OP_broadcast)
        return AQ_NO_NODE;
    return aq_broadcast_node(g, input_of(g, x, 0), type.rank, type.dim);
}

static AqId join_repeats(AqGraph *g, AqId id)
{
    AqNode outer = *aq_node(g, id), inner = *aq_node(g, outer.inputs[0]);
    if (inner.op != AQ_OP_repeat)
        return AQ_NO_NODE;
    int64_t factor[AQ_MAX_RANK];
    for (int i = 0; i < outer.type.rank; i++)
        factor[i] = aq_attr_at(&outer, AQ_KEY_FACTOR, i, 1) *
                    aq_attr_at(&inner, AQ_KEY_FACTOR, i, 1);
    return aq_repeat_node(g, inner.inputs[0], factor);
}

const AqRewriteRow aq_rewrite_movement[] = {
    {AQ_OP_COUNT, AQ_MOVES, equal_values},
    {AQ_OP_reshape, 0, same_shape},
    {AQ_OP_slice, 0, same_shape},
    {AQ_OP_pad, 0, same_shape},
    {AQ_OP_broadcast, 0, same_shape},
    {AQ_OP_concat, 0, same_shape},
    {AQ_OP_repeat, 0, same_shape},
    {AQ_OP_reshape, 0, join_reshapes},
    {AQ_OP_reduce_sum, 0, reduce_nothing},
    {AQ_OP_reduce_max, 0, reduce_nothing},
    {AQ_OP_transpose, 0, join_transposes},
    {AQ_OP_transpose, 0, transpose_in_order},
    {AQ_OP_matmul, 0, matmul_of_transposed},
    {AQ_OP_slice, 0, join_slices},
    {AQ_OP_slice, 0, slice_of_pad},
    {AQ_OP_slice, 0, slice_of_concat},
    {AQ_OP_pad, 0, join_pads},
    {AQ_OP_concat, 0, concat_of_concat},
    {AQ_OP_result, 0, moments_of_concat},
    {AQ_OP_broadcast, 0, join_broadcasts},
    {AQ_OP_repeat, 0, join_repeats},
    {0},
};
