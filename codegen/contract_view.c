/* Movement that needs no code: which strided piece of an argument a node is.
 * Reshapes are followed as far as strides can say them. */
#include "codegen/contract.h"

static const AqView none = {.arg = -1};

AqView aq_row_major_view(int32_t arg, const AqType *type)
{
    AqView view = {.arg = arg};
    int64_t stride = 1;
    for (int d = type->rank - 1; d >= 0; d--) {
        view.stride[d] = stride;
        stride *= type->dim[d];
    }
    return view;
}

/* Splits and joins dimensions: each group of `to` dimensions must cover a group
 * of `from` dimensions that lie in one regular run. */
static AqView reshaped(const AqView *in, const AqType *from, const AqType *to)
{
    AqView out = {.arg = in->arg, .base = in->base};
    int i = from->rank - 1;
    int64_t run = 1, left = 1; /* stride and elements of the run still open */
    for (int d = to->rank - 1; d >= 0; d--) {
        if (to->dim[d] == 1)
            continue; /* its stride is never used */
        int64_t need = to->dim[d];
        if (left == 1) {
            while (i >= 0 && from->dim[i] == 1)
                i--;
            if (i < 0)
                return none;
            run = in->stride[i];
            left = from->dim[i--];
        }
        while (left % need != 0) {
            while (i >= 0 && from->dim[i] == 1)
                i--;
            if (i < 0 || in->stride[i] != run * left)
                return none;
            left *= from->dim[i--];
        }
        out.stride[d] = run;
        run *= need;
        left /= need;
    }
    return out;
}

static AqView moved(const AqNode *node, const AqType *from, const AqView *in)
{
    AqView out = *in;
    for (int d = 0; d < node->type.rank; d++) {
        int64_t from_d = d;
        if (node->op == AQ_OP_transpose)
            from_d = aq_attr_at(node, AQ_KEY_PERM, d, d);
        out.stride[d] = in->stride[from_d];
        if (node->op == AQ_OP_slice) {
            out.base += aq_attr_at(node, AQ_KEY_START, d, 0) * in->stride[d];
            out.stride[d] *= aq_attr_at(node, AQ_KEY_STEP, d, 1);
        }
        if (node->op == AQ_OP_broadcast && from->dim[d] == 1)
            out.stride[d] = 0;
    }
    return out;
}

AqView aq_operand_view(const AqGraph *body, AqId id)
{
    const AqNode *node = aq_node(body, id);
    if (node->type.element != AQ_F32)
        return none;
    if (node->op == AQ_OP_arg)
        return aq_row_major_view((int32_t)aq_attr_int(node, AQ_KEY_INDEX, 0),
                                 &node->type);
    if (node->op != AQ_OP_reshape && node->op != AQ_OP_transpose &&
        node->op != AQ_OP_slice && node->op != AQ_OP_broadcast &&
        node->op != AQ_OP_detach)
        return none;
    AqView in = aq_operand_view(body, node->inputs[0]);
    if (in.arg < 0)
        return none;
    const AqType *from = &aq_node(body, node->inputs[0])->type;
    if (node->op == AQ_OP_reshape)
        return reshaped(&in, from, &node->type);
    return moved(node, from, &in);
}
