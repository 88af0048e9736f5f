/* Folding: what depends on consts, small tables and iotas alone is computed
 * here, by the reference interpreter, and becomes a const where all elements
 * are equal, else a table. */
#include "passes/simplify.h"

#include <float.h>
#include <math.h>

/* A table goes into the program and into every dump of it. */
enum { LARGEST_TABLE = 1024 };

bool aq_const_value(const AqGraph *g, AqId id, double *value)
{
    const AqNode *node = aq_node(g, id);
    *value = aq_attr_real(node, AQ_KEY_VALUE, 0);
    return node->op == AQ_OP_const;
}

static bool is_known(const AqGraph *g, AqId id)
{
    const AqNode *node = aq_node(g, id);
    return node->op == AQ_OP_const ||
           ((node->op == AQ_OP_table || node->op == AQ_OP_iota) &&
            aq_elements(&node->type) <= LARGEST_TABLE);
}

static bool all_consts(const AqGraph *g, const AqNode *node)
{
    for (int i = 0; i < node->n_inputs; i++)
        if (op_of(g, node->inputs[i]) != AQ_OP_const)
            return false;
    return true;
}

static bool can_fold(const AqGraph *g, const AqNode *node)
{
    const AqOpInfo *info = &aq_op_info[node->op];
    if (info->lowering != AQ_LOWER_map || node->n_inputs == 0 ||
        (info->facts & AQ_HAS_RESULTS) || node->op == AQ_OP_random)
        return false;
    for (int i = 0; i < node->n_inputs; i++)
        if (!is_known(g, node->inputs[i]))
            return false;
    return (info->facts & AQ_POINTWISE && all_consts(g, node)) ||
           aq_elements(&node->type) <= LARGEST_TABLE;
}

/* ---- one node, evaluated in a graph of its own ---- */

/* The node and its inputs, with one element of each where all are equal. */
static void build_alone(AqGraph *alone, const AqGraph *g, const AqNode *node,
                        bool one)
{
    AqId inputs[3], *all = inputs;
    AqType type = node->type;
    if (one)
        type = aq_type(type.element, 0, NULL);
    if (node->n_inputs > AQ_COUNT(inputs))
        all = AQ_NEW_ARRAY(alone->arena, AqId, node->n_inputs);
    for (int i = 0; all && i < node->n_inputs; i++) {
        const AqNode *x = aq_node(g, node->inputs[i]);
        AqType x_type = one ? aq_type(x->type.element, 0, NULL) : x->type;
        all[i] = aq_build(alone, x->op, &x_type, NULL, 0, x->attrs, x->n_attrs);
    }
    if (!all) {
        aq_no_memory(&alone->error, 1);
        return;
    }
    AqId id = aq_build(alone, node->op, &type, all, node->n_inputs, node->attrs,
                       node->n_attrs);
    aq_graph_output(alone, "value", id, false);
}

static bool is_ordinary(double value, AqElement element)
{
    if (element == AQ_I32)
        return value >= INT32_MIN && value <= INT32_MAX;
    return fabs(value) <= FLT_MAX; /* false for NaN */
}

static AqId as_node(AqGraph *g, const AqType *type, const AqValue *value)
{
    int64_t n = aq_elements(&value->type);
    bool equal = true;
    if (n == 0)
        return AQ_NO_NODE;
    for (int64_t i = 0; i < n; i++) {
        equal &= value->data[i] == value->data[0];
        if (!is_ordinary(value->data[i], type->element))
            return AQ_NO_NODE;
    }
    return equal ? aq_const_node(g, type, value->data[0])
                 : aq_table_node(g, type, value->data);
}

/* Where evaluation fails or gives infinities, the node stays for run time. */
static AqId fold(AqGraph *g, AqId id)
{
    AqNode node = *aq_node(g, id);
    AqId folded = AQ_NO_NODE;
    if (!can_fold(g, &node))
        return AQ_NO_NODE;
    AqGraph *alone = aq_graph_new();
    if (!alone)
        return aq_graph_fail(g, AQ_NO_MEMORY, "memory has run out");
    AqError ignored = {0};
    AqValue value;
    bool one = aq_op_info[node.op].facts & AQ_POINTWISE && all_consts(g, &node);
    build_alone(alone, g, &node, one);
    if (!alone->error.status &&
        aq_interpret(alone, NULL, 0, &value, alone->arena, &ignored) == AQ_OK)
        folded = as_node(g, &node.type, &value);
    aq_graph_free(alone);
    return folded;
}

/* sum of n equal values = n value; their largest is the value */
static AqId reduce_equal(AqGraph *g, AqId id)
{
    AqNode node = *aq_node(g, id);
    AqType from = aq_node(g, node.inputs[0])->type;
    double value;
    if (!aq_const_value(g, node.inputs[0], &value) || aq_elements(&from) == 0)
        return AQ_NO_NODE;
    if (node.op == AQ_OP_reduce_sum)
        value *= (double)(aq_elements(&from) / aq_elements(&node.type));
    if (!is_ordinary(value, node.type.element))
        return AQ_NO_NODE;
    return aq_const_node(g, &node.type, value);
}

const AqRewriteRow aq_rewrite_folding[] = {
    {AQ_OP_reduce_sum, 0, reduce_equal},
    {AQ_OP_reduce_max, 0, reduce_equal},
    {AQ_OP_COUNT, ~0u, fold},
    {0},
};
