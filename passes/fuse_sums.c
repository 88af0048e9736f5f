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

/* ---- whether there will be such a kernel, before there are kernels ---- */

static bool is_elementwise(const AqNode *node)
{
    return node->op == AQ_OP_reshape ||
           aq_op_info[node->op].facts & AQ_POINTWISE;
}

/* Whether all that is made of the node `from` goes through `to`, elementwise:
 * then the epilogue ends there. */
static bool meet_at(const AqGraph *g, AqId from, AqId to)
{
    enum { NEAR = 256 };
    bool within[NEAR] = {true};
    if (to <= from || to - from >= NEAR)
        return from == to;
    for (AqId id = from + 1; id < g->count; id++) {
        const AqNode *node = aq_node(g, id);
        for (int i = 0; i < node->n_inputs; i++) {
            AqId at = node->inputs[i] - from;
            if (at < 0 || at >= to - from || !within[at] || id == to)
                continue;
            if (id > to || !is_elementwise(node))
                return false;
            within[id - from] = true;
        }
    }
    for (int i = 0; i < g->n_outputs; i++) {
        AqId at = g->outputs[i].node - from;
        if (at >= 0 && at < to - from && within[at])
            return false;
    }
    return true;
}

typedef struct Search {
    const AqGraph *g;
    AqId reduction, value; /* what is reduced, before it is reshaped */
    int visits;            /* that are left */
} Search;

/* Behind pointwise work; or behind reshapes as well, where the value ends what
 * is made of the contraction. */
static bool find_contraction(Search *s, AqId id, bool reshaped)
{
    const AqNode *node = aq_node(s->g, id);
    if (--s->visits < 0)
        return false;
    if (aq_op_info[node->op].lowering == AQ_LOWER_contract)
        return aq_may_sum(s->g, s->reduction, id) &&
               (!reshaped || meet_at(s->g, id, s->value));
    if (!is_elementwise(node))
        return false;
    reshaped |= node->op == AQ_OP_reshape;
    for (int i = 0; i < node->n_inputs; i++)
        if (find_contraction(s, node->inputs[i], reshaped))
            return true;
    return false;
}

bool aq_sums_contraction(const AqGraph *g, AqId reduction)
{
    AqId value = aq_node(g, reduction)->inputs[0];
    Search s = {.g = g, .reduction = reduction, .value = value, .visits = 256};
    while (aq_node(g, s.value)->op == AQ_OP_reshape)
        s.value = aq_node(g, s.value)->inputs[0];
    return find_contraction(&s, value, false);
}
