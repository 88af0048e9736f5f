/* Reverse-mode differentiation, graph to graph.
 *
 * Walks from the loss back to the first node.  A node's gradient is complete
 * when its turn comes, because its users all have larger ids; then its rule
 * builds what it passes on to its inputs, and each contribution is added to
 * what the input has already.  So the order of summation follows from the
 * graph.  Only nodes between wrt and the loss are visited.
 *
 * New nodes come from where their forward node came from, so that pictures and
 * profiles show them there. */
#include "passes/gradients.h"

typedef void Rule(AqGradientRule *r);

static Rule *const rules[AQ_OP_COUNT] = {
#define OP(name, inputs, facts, attributes, shape, gradient, ...)              \
    [AQ_OP_##name] = aq_gradient_##gradient,
#include "ir/ops.def"
#undef OP
};

typedef struct Walk {
    AqGraph *g;
    AqArena *arena;
    int count;      /* of nodes up to the loss */
    bool *leads;    /* to some wrt, by ops that pass gradients */
    int *first;     /* of a node's gradients, one a value, in `gradient` */
    AqId *gradient; /* AQ_NO_NODE: nothing arrived */
} Walk;

static bool passes_gradients(AqOp op)
{
    return rules[op] != aq_gradient_none && rules[op] != aq_gradient_zero;
}

static bool has_gradient(const AqNode *node)
{
    return node->type.element == AQ_F32 || node->type.element == AQ_RESULTS;
}

/* ---- what must be visited ---- */

static AqStatus find_leads(Walk *w, const AqId *wrt, int n)
{
    for (int i = 0; i < n; i++)
        if (wrt[i] < w->count)
            w->leads[wrt[i]] = true;
    for (AqId id = 0; id < w->count; id++) {
        const AqNode *node = aq_node(w->g, id);
        bool leads = false;
        for (int i = 0; i < node->n_inputs; i++)
            leads |= w->leads[node->inputs[i]];
        if (leads && aq_attr_body(node)) {
            aq_graph_fail(w->g, AQ_BAD_INPUT,
                          "gradient: node %%%d is a fused kernel; take "
                          "gradients before the graph is fused",
                          id);
            return w->g->error.status;
        }
        if (leads && passes_gradients(node->op) && has_gradient(node))
            w->leads[id] = true;
    }
    return AQ_OK;
}

static AqStatus allocate(Walk *w)
{
    size_t count = (size_t)w->count + 1;
    int values = 0;
    w->leads = AQ_NEW_ARRAY(w->arena, bool, count);
    w->first = AQ_NEW_ARRAY(w->arena, int, count);
    if (!w->leads || !w->first)
        return aq_no_memory(&w->g->error, count * sizeof(int));
    for (AqId id = 0; id < w->count; id++) {
        w->first[id] = values;
        values += aq_result_count(w->g, id);
    }
    w->gradient = AQ_NEW_ARRAY(w->arena, AqId, values);
    if (!w->gradient)
        return aq_no_memory(&w->g->error, (size_t)values * sizeof(AqId));
    for (int i = 0; i < values; i++)
        w->gradient[i] = AQ_NO_NODE;
    return AQ_OK;
}

/* ---- the walk ---- */

/* False for wrt itself where nothing before it is wanted. */
static bool leads_on(const Walk *w, AqId id)
{
    const AqNode *node = aq_node(w->g, id);
    for (int i = 0; i < node->n_inputs; i++)
        if (w->leads[node->inputs[i]])
            return w->leads[id] && passes_gradients(node->op);
    return false;
}

static bool anything_arrived(const Walk *w, AqId id)
{
    for (int i = 0; i < aq_result_count(w->g, id); i++)
        if (w->gradient[w->first[id] + i] != AQ_NO_NODE)
            return true;
    return false;
}

static void pass_on(Walk *w, const AqGradientRule *r)
{
    for (int i = 0; i < r->node.n_inputs; i++) {
        if (!r->wanted[i])
            continue;
        AqId *sum = &w->gradient[w->first[r->x[i]] + (i ? 0 : r->into)];
        *sum = accumulated(w->g, *sum, r->dx[i]);
    }
}

static AqStatus visit(Walk *w, AqId id)
{
    AqNode node = *aq_node(w->g, id);
    size_t n = (size_t)node.n_inputs;
    bool *wanted = AQ_NEW_ARRAY(w->arena, bool, n);
    AqId *dx = AQ_NEW_ARRAY(w->arena, AqId, n);
    if (!wanted || !dx)
        return aq_no_memory(&w->g->error, n * sizeof(AqId));
    for (size_t i = 0; i < n; i++) {
        wanted[i] = w->leads[node.inputs[i]];
        dx[i] = AQ_NO_NODE;
    }
    AqGradientRule r = {.g = w->g,
                        .node = node,
                        .y = id,
                        .x = node.inputs,
                        .dy = w->gradient + w->first[id],
                        .wanted = wanted,
                        .dx = dx};
    aq_graph_place(w->g, &node);
    rules[node.op](&r);
    pass_on(w, &r);
    return w->g->error.status;
}

static AqStatus walk(Walk *w, AqId loss, const AqId *wrt, int n)
{
    AqStatus status = allocate(w);
    if (status == AQ_OK)
        status = find_leads(w, wrt, n);
    if (status != AQ_OK || !w->leads[loss])
        return status;
    aq_graph_place(w->g, aq_node(w->g, loss));
    w->gradient[w->first[loss]] = aq_const_like(w->g, loss, 1);
    for (AqId id = loss; id >= 0 && status == AQ_OK; id--) {
        if (leads_on(w, id) && anything_arrived(w, id))
            status = visit(w, id);
    }
    return status;
}

/* ---- the builder ---- */

static AqStatus check(AqGraph *g, AqId loss, const AqId *wrt, int n)
{
    if (g->error.status)
        return g->error.status;
    for (int i = -1; i < n; i++) {
        AqId id = i < 0 ? loss : wrt[i];
        const char *what = i < 0 ? "the loss" : "what it is taken for";
        if (id < 0 || id >= g->count) {
            aq_graph_fail(g, AQ_BAD_INPUT,
                          "gradient: %s is no node of this "
                          "graph",
                          what);
            return g->error.status;
        }
        AqType type = aq_node(g, id)->type;
        if (type.element == AQ_F32 && (i >= 0 || aq_elements(&type) == 1))
            continue;
        AqText text = {0};
        aq_type_text(&text, &type);
        aq_graph_place(g, aq_node(g, id));
        aq_graph_fail(g, AQ_BAD_INPUT, "gradient: %s must be %s, not %s", what,
                      i < 0 ? "one f32 number" : "f32",
                      text.data ? text.data : "?");
        aq_text_free(&text);
        return g->error.status;
    }
    return AQ_OK;
}

static void collect(Walk *w, const AqId *wrt, int n, AqId *gradients)
{
    for (int i = 0; i < n; i++) {
        AqId found =
            wrt[i] < w->count ? w->gradient[w->first[wrt[i]]] : AQ_NO_NODE;
        aq_graph_place(w->g, aq_node(w->g, wrt[i]));
        gradients[i] =
            found == AQ_NO_NODE ? aq_const_like(w->g, wrt[i], 0) : found;
    }
}

AqStatus aq_gradient_nodes(AqGraph *g, AqId loss, const AqId *wrt, int n,
                           AqId *gradients)
{
    const char *scope = g->scope, *file = g->file;
    int line = g->line;
    for (int i = 0; i < n; i++)
        gradients[i] = AQ_NO_NODE;
    if (check(g, loss, wrt, n) != AQ_OK)
        return g->error.status;
    Walk w = {.g = g, .arena = aq_arena_new(), .count = loss + 1};
    if (!w.arena)
        return aq_no_memory(&g->error, 1);
    if (walk(&w, loss, wrt, n) == AQ_OK)
        collect(&w, wrt, n, gradients);
    aq_arena_free(w.arena);
    g->scope = scope;
    g->file = file;
    g->line = line;
    return g->error.status;
}
