/* Useful floating-point operations: two a multiply-add of the mathematical
 * product, whatever algorithm computes it.  Padding counts as if it were
 * there; pointwise work, and what a gradient computes again, do not count. */
#include "ir/ir.h"

static double elements(const AqGraph *graph, AqId id)
{
    return (double)aq_elements(&aq_node(graph, id)->type);
}

/* (..., m, k) x (..., k, n) */
static double matmul_flops(const AqGraph *graph, const AqNode *node)
{
    const AqType *a = &aq_node(graph, node->inputs[0])->type;
    bool ta = aq_attr_int(node, AQ_KEY_TA, 0);
    double k = (double)a->dim[a->rank - (ta ? 2 : 1)];
    return 2 * k * (double)aq_elements(&node->type);
}

/* 2 (output elements) (weights) / (filters): the same in three directions */
static double convolution_flops(double outputs, const AqType *w)
{
    double filters = (double)w->dim[3];
    return filters > 0 ? 2 * outputs * (double)aq_elements(w) / filters : 0;
}

/* Pairs of a query and a key that it sees, times 2 d: one product. */
static double attention_product(const AqGraph *graph, const AqNode *node)
{
    const AqType *q = &aq_node(graph, node->inputs[0])->type;
    const AqType *k = &aq_node(graph, node->inputs[1])->type;
    double queries = (double)q->dim[1], keys = (double)k->dim[1];
    double pairs = queries * keys;
    if (aq_attr_int(node, AQ_KEY_CAUSAL, 0)) {
        double ramp = queries < keys ? queries : keys; /* 1 + 2 + ... + ramp */
        pairs = ramp * (ramp + 1) / 2 + (queries - ramp) * keys;
    }
    return 2 * pairs * (double)(q->dim[0] * q->dim[2] * q->dim[3]);
}

double aq_node_flops(const AqGraph *graph, AqId id)
{
    const AqNode *node = aq_node(graph, id);
    const AqId *in = node->inputs;
    switch (node->op) {
    case AQ_OP_matmul:
        return matmul_flops(graph, node);
    case AQ_OP_conv2d:
        return convolution_flops((double)aq_elements(&node->type),
                                 &aq_node(graph, in[1])->type);
    case AQ_OP_conv2d_input_gradient: /* dy, w */
        return convolution_flops(elements(graph, in[0]),
                                 &aq_node(graph, in[1])->type);
    case AQ_OP_conv2d_weight_gradient: /* x, dy */
        return convolution_flops(elements(graph, in[1]), &node->type);
    case AQ_OP_attention: /* q k^T, p v */
        return 2 * attention_product(graph, node);
    case AQ_OP_attention_gradient: /* dp, dv, dq, dk */
        return 4 * attention_product(graph, node);
    case AQ_OP_kernel:
        return aq_graph_flops(aq_attr_body(node));
    default:
        return 0;
    }
}

double aq_graph_flops(const AqGraph *graph)
{
    double sum = 0;
    for (AqId id = 0; id < graph->count; id++)
        sum += aq_node_flops(graph, id);
    return sum;
}
