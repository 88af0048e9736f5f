/* The verifier: a graph is right when building it again gives the same graph.
 *
 * So every rule of aq_build is a rule here, and the order of nodes, the
 * interning and the defaults of attributes are checked with it.  What building
 * does not see comes on top: names, updates, and the bodies of kernels. */
#include "ir/ir.h"

#include <stdlib.h>
#include <string.h>

typedef struct Verifier {
    const AqGraph *graph;
    const char *within; /* "" or the way to the body, ending in ": " */
    AqError *error;
    AqArena *arena;
} Verifier;

static bool fail(const Verifier *v, AqStatus status, const char *format, ...)
    AQ_PRINTF(3, 4);

static bool fail(const Verifier *v, AqStatus status, const char *format, ...)
{
    char sentence[900];
    va_list args;
    va_start(args, format);
    vsnprintf(sentence, sizeof sentence, format, args);
    va_end(args);
    aq_fail(v->error, status, "%s%s", v->within, sentence);
    return false;
}

static bool no_memory(const Verifier *v)
{
    return fail(v, AQ_NO_MEMORY, "out of memory while verifying");
}

/* ---- nodes ---- */

static bool check_node_record(const Verifier *v, AqId id)
{
    const AqNode *node = &v->graph->nodes[id];
    if ((unsigned)node->op >= AQ_OP_COUNT)
        return fail(v, AQ_INTERNAL, "%%%d: op %d does not exist", (int)id,
                    (int)node->op);
    for (int i = 0; i < node->n_inputs; i++)
        if (node->inputs[i] < 0 || node->inputs[i] >= id)
            return fail(v, AQ_INTERNAL,
                        "%%%d: %s reads %%%d, which does not stand before it",
                        (int)id, aq_op_info[node->op].name,
                        (int)node->inputs[i]);
    return true;
}

static bool same_record(const AqNode *a, const AqNode *b)
{
    if (a->n_inputs != b->n_inputs || a->n_attrs != b->n_attrs)
        return false;
    for (int i = 0; i < a->n_inputs; i++)
        if (a->inputs[i] != b->inputs[i])
            return false;
    for (int i = 0; i < a->n_attrs; i++)
        if (a->attrs[i].key != b->attrs[i].key)
            return false;
    return true;
}

static bool build_again(const Verifier *v, AqGraph *copy, AqId id)
{
    const AqNode *node = &v->graph->nodes[id];
    aq_graph_place(copy, node);
    copy->copy = node->copy;
    /* bodies are shared, not copied: they are checked by themselves */
    AqId built = aq_build(copy, node->op, &node->type, node->inputs,
                          node->n_inputs, node->attrs, node->n_attrs);
    if (built == AQ_NO_NODE)
        return fail(v, copy->error.status, "%%%d: %s", (int)id,
                    copy->error.text);
    if (built != id)
        return fail(v, AQ_INTERNAL, "%%%d: this %s equals %%%d", (int)id,
                    aq_op_info[node->op].name, (int)built);
    if (!same_record(node, &copy->nodes[built]))
        return fail(v, AQ_INTERNAL,
                    "%%%d: the inputs or attributes of this %s are not in "
                    "their canonical form",
                    (int)id, aq_op_info[node->op].name);
    return true;
}

static bool check_nodes(const Verifier *v, AqGraph *copy)
{
    for (AqId id = 0; id < v->graph->count; id++)
        if (!check_node_record(v, id) || !build_again(v, copy, id))
            return false;
    return true;
}

/* ---- names ---- */

typedef struct Named {
    const char *name;
    AqId id;
} Named;

static int by_name(const void *a, const void *b)
{
    return strcmp(((const Named *)a)->name, ((const Named *)b)->name);
}

/* Inputs, params and states share one set of names: bindings use it. */
static bool check_names(const Verifier *v)
{
    const AqGraph *g = v->graph;
    Named *named = AQ_NEW_ARRAY(v->arena, Named, g->count);
    int count = 0;
    if (!named)
        return no_memory(v);
    for (AqId id = 0; id < g->count; id++)
        if (aq_op_info[g->nodes[id].op].facts & AQ_SOURCE &&
            aq_attr(&g->nodes[id], AQ_KEY_NAME))
            named[count++] =
                (Named){aq_attr_text(&g->nodes[id], AQ_KEY_NAME, ""), id};
    qsort(named, (size_t)count, sizeof *named, by_name);
    for (int i = 1; i < count; i++)
        if (strcmp(named[i - 1].name, named[i].name) == 0)
            return fail(v, AQ_BAD_INPUT,
                        "%%%d and %%%d are both named \"%s\": give each input, "
                        "param and state a name of its own",
                        (int)AQ_MIN(named[i - 1].id, named[i].id),
                        (int)AQ_MAX(named[i - 1].id, named[i].id),
                        named[i].name);
    return true;
}

/* ---- outputs ---- */

static const AqNode *find_state(const AqGraph *g, const char *name)
{
    for (AqId id = 0; id < g->count; id++)
        if (g->nodes[id].op == AQ_OP_state &&
            strcmp(aq_attr_text(&g->nodes[id], AQ_KEY_NAME, ""), name) == 0)
            return &g->nodes[id];
    return NULL;
}

/* Where the last param ends in the flat array `weights`. */
static int64_t weights_end(const AqGraph *g)
{
    int64_t end = 0;
    for (AqId id = 0; id < g->count; id++)
        if (g->nodes[id].op == AQ_OP_param)
            end = AQ_MAX(end, aq_attr_int(&g->nodes[id], AQ_KEY_OFFSET, 0) +
                                  aq_elements(&g->nodes[id].type));
    return end;
}

static bool check_update(const Verifier *v, const AqOutput *update)
{
    AqText had = {0}, has = {0};
    const AqType *type = &v->graph->nodes[update->node].type;
    const AqNode *state = find_state(v->graph, update->name);
    bool right = state && aq_same_type(&state->type, type);
    if (!state && strcmp(update->name, "weights") == 0) {
        int64_t end = weights_end(v->graph);
        if (type->element == AQ_F32 && type->rank == 1 && type->dim[0] >= end)
            return true;
        aq_text_printf(&had, "f32[%lld] or longer", (long long)end);
    } else if (!state) {
        return fail(v, AQ_BAD_INPUT,
                    "update %s: there is no state of this name", update->name);
    } else {
        aq_type_text(&had, &state->type);
    }
    aq_type_text(&has, type);
    if (had.failed || has.failed)
        right = no_memory(v);
    else if (!right)
        fail(v, AQ_BAD_INPUT, "update %s: it is %s, but its new value is %s",
             update->name, had.data, has.data);
    aq_text_free(&had);
    aq_text_free(&has);
    return right;
}

static bool check_outputs(const Verifier *v, AqGraph *copy)
{
    copy->scope = copy->file = "";
    for (int i = 0; i < v->graph->n_outputs; i++) {
        const AqOutput *output = &v->graph->outputs[i];
        aq_graph_output(copy, output->name, output->node, output->update);
        if (copy->error.status != AQ_OK)
            return fail(v, copy->error.status, "%s", copy->error.text);
        if (!output->update)
            continue;
        if (v->within[0])
            return fail(v, AQ_INTERNAL, "update %s: a body updates nothing",
                        output->name);
        if (!check_update(v, output))
            return false;
    }
    return true;
}

/* ---- bodies, and all together ---- */

static bool verify(const AqGraph *graph, const char *within, AqError *error);

static bool check_bodies(const Verifier *v)
{
    for (AqId id = 0; id < v->graph->count; id++) {
        const AqGraph *body = aq_attr_body(&v->graph->nodes[id]);
        if (!body)
            continue;
        const char *within =
            aq_arena_printf(v->arena, "%sbody of %%%d: ", v->within, (int)id);
        if (!within)
            return no_memory(v);
        if (!verify(body, within, v->error))
            return false;
    }
    return true;
}

static bool verify(const AqGraph *graph, const char *within, AqError *error)
{
    AqGraph *copy = aq_graph_new();
    Verifier v = {.graph = graph, .within = within, .error = error};
    if (!copy)
        return no_memory(&v);
    v.arena = copy->arena;
    bool right = graph->error.status == AQ_OK ||
                 fail(&v, graph->error.status, "%s", graph->error.text);
    right = right && check_nodes(&v, copy) && check_names(&v) &&
            check_outputs(&v, copy) && check_bodies(&v);
    aq_graph_free(copy);
    return right;
}

AqStatus aq_graph_verify(const AqGraph *graph, AqError *error)
{
    AqError local = {0};
    if (verify(graph, "", &local))
        return AQ_OK;
    return aq_fail(error, local.status, "%s", local.text);
}
