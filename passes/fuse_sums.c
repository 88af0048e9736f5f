/* Which reductions a contraction's kernel computes of what it gives.
 *
 * Its tasks write rows: all dimensions but the last.  A sum, or moments, over
 * them, or over those of each sample, is taken in while a row is stored, and
 * costs no sweep: the moments of the next normalisation, the sums of the last
 * one's backward pass, the gradients of biases, and the norm of a weight's
 * gradient. */
#include "passes/fuse.h"

#include <string.h>

/* One product; `kept`: the first dimension is samples, which blocks of rows
 * take one after the other. */
static bool has_rows(const AqGraph *g, AqId contraction, int kept)
{
    const AqNode *node = aq_node(g, contraction);
    if (node->op == AQ_OP_matmul)
        return node->type.rank == 2;
    return aq_attr_int(node, AQ_KEY_GROUPS, 1) == 1 &&
           (kept == 0 || node->op != AQ_OP_conv2d_weight_gradient);
}

bool aq_may_sum(const AqGraph *g, AqId reduction, AqId contraction)
{
    const AqNode *node = aq_node(g, reduction);
    const AqType *type = &aq_node(g, contraction)->type;
    if ((node->op != AQ_OP_reduce_sum && node->op != AQ_OP_moments) ||
        !aq_same_type(&aq_node(g, node->inputs[0])->type, type))
        return false;
    const AqAttr *axes = aq_attr(node, AQ_KEY_AXES);
    int kept = type->rank - 1 - axes->count;
    if (axes->count == 0 || kept < 0 || kept > 1 ||
        !has_rows(g, contraction, kept))
        return false;
    for (int i = 0; i < axes->count; i++)
        if (axes->ints[i] != kept + i)
            return false;
    return true;
}

/* Behind pointwise work, within *visits nodes. */
static bool find_contraction(const AqGraph *g, AqId reduction, AqId id,
                             int *visits)
{
    const AqNode *node = aq_node(g, id);
    if (--*visits < 0)
        return false;
    if (aq_op_info[node->op].lowering == AQ_LOWER_contract)
        return aq_may_sum(g, reduction, id);
    if (!(aq_op_info[node->op].facts & AQ_POINTWISE))
        return false;
    for (int i = 0; i < node->n_inputs; i++)
        if (find_contraction(g, reduction, node->inputs[i], visits))
            return true;
    return false;
}

bool aq_sums_contraction(const AqGraph *g, AqId reduction)
{
    int visits = 256;
    return find_contraction(g, reduction, aq_node(g, reduction)->inputs[0],
                            &visits);
}
