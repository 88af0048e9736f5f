/* A part of a kernel's body as a graph of its own.  Leaves are compiled from
 * such a part alone, so that kernels which differ elsewhere share them. */
#include "codegen/emit.h"

typedef struct Part {
    const AqGraph *body;
    AqGraph *graph;
    AqId *ids; /* of the body's nodes, or AQ_NO_NODE: not copied yet */
} Part;

/* The node, after all that it is made of. */
static AqId copy(Part *p, AqId id)
{
    const AqNode *node = aq_node(p->body, id);
    if (p->ids[id] != AQ_NO_NODE)
        return p->ids[id];
    for (int i = 0; i < node->n_inputs; i++)
        copy(p, node->inputs[i]);
    return p->ids[id] = aq_graph_copy_node(p->graph, p->body, id, p->ids);
}

static bool begin(Part *p, AqCodePlan *plan, const AqGraph *body)
{
    *p = (Part){.body = body,
                .graph = aq_code_plan_graph(plan),
                .ids = AQ_NEW_ARRAY(aq_code_plan_arena(plan), AqId,
                                    AQ_MAX(body->count, 1))};
    for (AqId id = 0; p->ids && id < body->count; id++)
        p->ids[id] = AQ_NO_NODE;
    return p->graph && p->ids;
}

const AqGraph *aq_body_operand(AqCodePlan *plan, const AqGraph *body, AqId id)
{
    Part p;
    if (!begin(&p, plan, body))
        return NULL;
    aq_graph_output(p.graph, "operand", copy(&p, id), false);
    return p.graph->error.status ? NULL : p.graph;
}

const AqGraph *aq_body_epilogue(AqCodePlan *plan, const AqGraph *body, AqId id,
                                const AqId **ids)
{
    Part p;
    if (!begin(&p, plan, body))
        return NULL;
    AqAttr name = aq_text(AQ_KEY_NAME, "tile");
    p.ids[id] = aq_build(p.graph, AQ_OP_input, &aq_node(body, id)->type, NULL,
                         0, &name, 1);
    for (int i = 0; i < body->n_outputs; i++)
        aq_graph_output(p.graph, body->outputs[i].name,
                        copy(&p, body->outputs[i].node), false);
    *ids = p.ids;
    return p.graph->error.status ? NULL : p.graph;
}
