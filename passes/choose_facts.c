/* The facts about a contraction that choices are made from. */
#include "passes/choose.h"

#include <string.h>

static AqId contraction_of(const AqGraph *body)
{
    for (AqId id = 0; id < body->count; id++)
        if (aq_op_info[aq_node(body, id)->op].lowering == AQ_LOWER_contract)
            return id;
    return AQ_NO_NODE;
}

/* `id` is the value `of`, or an argument where that is AQ_NO_NODE, perhaps in
 * another shape. */
static bool is_plain(const AqGraph *body, AqId id, AqId of)
{
    for (;;) {
        const AqNode *node = aq_node(body, id);
        if (of == AQ_NO_NODE ? node->op == AQ_OP_arg : id == of)
            return true;
        if (node->op != AQ_OP_reshape && node->op != AQ_OP_detach)
            return false;
        id = node->inputs[0];
    }
}

/* As code generation reads it in place: a part of an argument has no other
 * shape. */
static bool is_stored(const AqGraph *body, AqId id)
{
    const AqNode *node = aq_node(body, id);
    if (node->op == AQ_OP_slice || node->op == AQ_OP_detach)
        return is_stored(body, node->inputs[0]);
    return is_plain(body, id, AQ_NO_NODE);
}

/* Operations of an element of `id`, arguments being there: some dozens for an
 * exponential.  What is used twice counts twice. */
static int evaluation_of(const AqGraph *body, AqId id)
{
    enum { EXPENSIVE = 24, MOST = 1000 };
    const AqNode *node = aq_node(body, id);
    unsigned facts = aq_op_info[node->op].facts;
    int sum = 0;
    if (facts & AQ_POINTWISE)
        sum = facts & AQ_EXPENSIVE ? EXPENSIVE : 1;
    for (int i = 0; i < node->n_inputs && sum < MOST; i++)
        sum += evaluation_of(body, node->inputs[i]);
    return sum;
}

static void matmul_facts(const AqNode *node, const AqType *a,
                         AqContractFacts *facts)
{
    int row = node->type.rank - 2;
    facts->m = node->type.dim[row];
    facts->n = node->type.dim[row + 1];
    facts->k = a->dim[aq_attr_int(node, AQ_KEY_TA, 0) ? row : row + 1];
    facts->by_terms = aq_attr_int(node, AQ_KEY_TA, 0) != 0;
    facts->batches = 1;
    for (int d = 0; d < row; d++)
        facts->batches *= node->type.dim[d];
}

static void conv_facts(const AqNode *node, const AqType *x, const AqType *w,
                       const AqType *y, AqContractFacts *facts)
{
    facts->images = x->dim[0];
    facts->in = x->dim[3];
    facts->out = y->dim[3];
    facts->groups = aq_attr_int(node, AQ_KEY_GROUPS, 1);
    for (int d = 0; d < 2; d++) {
        facts->x_size[d] = x->dim[1 + d];
        facts->y_size[d] = y->dim[1 + d];
        facts->kernel[d] = w->dim[d];
        facts->stride[d] = aq_attr_at(node, AQ_KEY_STRIDE, d, 1);
        facts->dilation[d] = aq_attr_at(node, AQ_KEY_DILATION, d, 1);
    }
}

bool aq_contract_facts(const AqNode *kernel, AqContractFacts *facts)
{
    const AqGraph *body = aq_attr_body(kernel);
    if (kernel->op != AQ_OP_kernel ||
        strcmp(aq_attr_text(kernel, AQ_KEY_KIND, ""), "contract") != 0)
        return false;
    AqId id = contraction_of(body);
    if (id == AQ_NO_NODE)
        return false;
    const AqNode *node = aq_node(body, id);
    const AqType *a = &aq_node(body, node->inputs[0])->type;
    const AqType *b = &aq_node(body, node->inputs[1])->type;
    *facts = (AqContractFacts){
        .op = node->op,
        .plain_operands = is_plain(body, node->inputs[0], AQ_NO_NODE) &&
                          is_plain(body, node->inputs[1], AQ_NO_NODE),
        .plain_result =
            body->n_outputs == 1 && is_plain(body, body->outputs[0].node, id)};
    for (int i = 0; i < 2; i++) {
        facts->stored[i] = is_stored(body, node->inputs[i]);
        facts->evaluation[i] = evaluation_of(body, node->inputs[i]);
    }
    if (node->op == AQ_OP_matmul)
        matmul_facts(node, a, facts);
    else if (node->op == AQ_OP_conv2d)
        conv_facts(node, a, b, &node->type, facts);
    else if (node->op == AQ_OP_conv2d_input_gradient)
        conv_facts(node, &node->type, b, a, facts);
    else
        conv_facts(node, a, &node->type, b, facts);
    return true;
}
