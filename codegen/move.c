/* Movement as index maps: where in its input an element of the output lies. */
#include "codegen/expr.h"

static AqIndex plus(AqIndexTable *t, AqIndex a, int64_t constant)
{
    return aq_index_add(t, a, aq_index_constant(t, constant));
}

static AqIndex linear_offset(AqIndexTable *t, const AqType *type,
                             const AqIndex *index)
{
    AqIndex offset = aq_index_constant(t, 0);
    for (int i = 0; i < type->rank; i++) {
        offset = aq_index_scale(t, offset, type->dim[i]);
        offset = aq_index_add(t, offset, index[i]);
    }
    return offset;
}

AqIndex aq_expr_offset(AqExpr *x, const AqType *type, const AqIndex *index)
{
    return linear_offset(x->t, type, index);
}

void aq_expr_unravel(AqIndexTable *t, const AqType *type, AqIndex offset,
                     AqIndex *index)
{
    for (int i = type->rank - 1; i >= 0; i--) {
        index[i] = i > 0 ? aq_index_mod(t, offset, type->dim[i]) : offset;
        offset = aq_index_div(t, offset, type->dim[i]);
    }
}

/* out[start + i * step] = in[i] */
static void move_pad(AqIndexTable *t, const AqNode *node, const AqIndex *index,
                     AqIndex *input, AqBound *bounds)
{
    for (int i = 0; i < node->type.rank; i++) {
        int64_t step = aq_attr_at(node, AQ_KEY_STEP, i, 1);
        int64_t start = aq_attr_at(node, AQ_KEY_START, i, 0);
        AqIndex from = plus(t, index[i], -start);
        input[i] = aq_index_div(t, from, step);
        bounds[i].index = input[i];
        bounds[i].zero = aq_index_mod(t, from, step);
    }
}

static void move_concat(AqIndexTable *t, const AqGraph *body,
                        const AqNode *node, int k, AqIndex *input,
                        AqBound *bounds)
{
    int axis = (int)aq_attr_int(node, AQ_KEY_AXIS, 0);
    int64_t start = 0;
    for (int i = 0; i < k; i++)
        start += aq_node(body, node->inputs[i])->type.dim[axis];
    input[axis] = plus(t, input[axis], -start);
    bounds[axis].index = input[axis];
}

void aq_move_index(AqIndexTable *t, const AqGraph *body, const AqNode *node,
                   int k, const AqIndex *index, AqIndex *input, AqBound *bounds)
{
    const AqType *from = &aq_node(body, node->inputs[k])->type;
    AqIndex zero = aq_index_constant(t, 0);
    for (int i = 0; i < from->rank; i++) {
        bounds[i] = (AqBound){zero, zero, from->dim[i]};
        input[i] = i < node->type.rank ? index[i] : zero;
    }
    switch (node->op) {
    case AQ_OP_reshape:
        aq_expr_unravel(t, from, linear_offset(t, &node->type, index), input);
        break;
    case AQ_OP_transpose:
        for (int i = 0; i < from->rank; i++)
            input[aq_attr_at(node, AQ_KEY_PERM, i, i)] = index[i];
        break;
    case AQ_OP_slice:
        for (int i = 0; i < from->rank; i++)
            input[i] = plus(t,
                            aq_index_scale(t, index[i],
                                           aq_attr_at(node, AQ_KEY_STEP, i, 1)),
                            aq_attr_at(node, AQ_KEY_START, i, 0));
        break;
    case AQ_OP_broadcast:
        for (int i = 0; i < from->rank; i++)
            input[i] = from->dim[i] == 1 ? zero : index[i];
        break;
    case AQ_OP_repeat:
        for (int i = 0; i < from->rank; i++)
            input[i] = aq_index_div(t, index[i],
                                    aq_attr_at(node, AQ_KEY_FACTOR, i, 1));
        break;
    case AQ_OP_pad:
        move_pad(t, node, index, input, bounds);
        break;
    case AQ_OP_concat:
        move_concat(t, body, node, k, input, bounds);
        break;
    default: /* keeps every element in its place */
        break;
    }
}

AqTruth aq_bound_truth(AqIndexTable *t, const AqBound *bound)
{
    int64_t lo, hi, rest;
    aq_index_range(t, bound->index, &lo, &hi);
    bool exact = aq_index_is_constant(t, bound->zero, &rest);
    if (hi < 0 || lo >= bound->bound || (exact && rest != 0))
        return AQ_NEVER;
    return lo >= 0 && hi < bound->bound && exact ? AQ_ALWAYS : AQ_SOMETIMES;
}
