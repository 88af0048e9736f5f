/* What is asked of a graph that stands: attributes, results, uses. */
#include "ir/shapes.h"

#include <string.h>

const AqAttr *aq_attr(const AqNode *node, AqKey key)
{
    for (int i = 0; i < node->n_attrs; i++)
        if (node->attrs[i].key == key)
            return &node->attrs[i];
    return NULL;
}

int64_t aq_attr_int(const AqNode *node, AqKey key, int64_t otherwise)
{
    const AqAttr *attr = aq_attr(node, key);
    return attr ? attr->integer : otherwise;
}

double aq_attr_real(const AqNode *node, AqKey key, double otherwise)
{
    const AqAttr *attr = aq_attr(node, key);
    return attr ? attr->real : otherwise;
}

const char *aq_attr_text(const AqNode *node, AqKey key, const char *otherwise)
{
    const AqAttr *attr = aq_attr(node, key);
    return attr ? attr->text : otherwise;
}

int64_t aq_attr_at(const AqNode *node, AqKey key, int i, int64_t otherwise)
{
    const AqAttr *attr = aq_attr(node, key);
    return attr && i >= 0 && i < attr->count ? attr->ints[i] : otherwise;
}

const AqGraph *aq_attr_body(const AqNode *node)
{
    const AqAttr *attr = aq_attr(node, AQ_KEY_BODY);
    return attr ? attr->body : NULL;
}

AqType aq_result_type(const AqGraph *graph, AqId id, int index)
{
    const AqNode *node = &graph->nodes[id];
    AqShapeRule rule;
    if (node->type.element != AQ_RESULTS)
        return node->type;
    if (aq_shape_again(&rule, graph, node) && index >= 0 &&
        index < rule.n_results)
        return rule.results[index];
    return node->type;
}

int aq_result_count(const AqGraph *graph, AqId id)
{
    const AqNode *node = &graph->nodes[id];
    AqShapeRule rule;
    if (node->type.element != AQ_RESULTS)
        return 1;
    return aq_shape_again(&rule, graph, node) ? rule.n_results : 0;
}

void aq_count_uses(const AqGraph *graph, int *uses)
{
    memset(uses, 0, (size_t)graph->count * sizeof *uses);
    for (AqId id = 0; id < graph->count; id++)
        for (int i = 0; i < graph->nodes[id].n_inputs; i++)
            uses[graph->nodes[id].inputs[i]]++;
    for (int i = 0; i < graph->n_outputs; i++)
        uses[graph->outputs[i].node]++;
}

/* A state that is only written lives as well: its update names it. */
static bool is_updated_state(const AqGraph *graph, const AqNode *node)
{
    if (node->op != AQ_OP_state)
        return false;
    const char *name = aq_attr_text(node, AQ_KEY_NAME, "");
    for (int i = 0; i < graph->n_outputs; i++)
        if (graph->outputs[i].update &&
            strcmp(graph->outputs[i].name, name) == 0)
            return true;
    return false;
}

void aq_mark_live(const AqGraph *graph, bool *live)
{
    for (AqId id = 0; id < graph->count; id++)
        live[id] = is_updated_state(graph, &graph->nodes[id]);
    for (int i = 0; i < graph->n_outputs; i++)
        live[graph->outputs[i].node] = true;
    for (AqId id = graph->count - 1; id >= 0; id--)
        for (int i = 0; live[id] && i < graph->nodes[id].n_inputs; i++)
            live[graph->nodes[id].inputs[i]] = true;
}
