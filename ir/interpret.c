/* The reference interpreter: the oracle that kernels and passes are held
 * against.
 *
 * Walks the live nodes in order, calls each op's rule of ops.def, and frees a
 * value after its last use, so that whole training steps fit.  A kernel's body
 * is interpreted by the same walk, with the kernel's inputs as arguments. */
#include "ir/evaluate.h"

#include <stdlib.h>
#include <string.h>

struct Environment {
    const AqBinding *bindings;
    int n_bindings;
    const AqValue *const *args; /* args[i][0]: of a kernel's body */
    int n_args;
};

static void (*const rules[AQ_OP_COUNT])(Evaluation *) = {
#define OP(name, inputs, facts, attributes, shape, gradient, evaluation, ...)  \
    [AQ_OP_##name] = aq_evaluate_##evaluation,
#include "ir/ops.def"
#undef OP
};

void aq_evaluate_fail(Evaluation *e, AqStatus status, const char *format, ...)
{
    char text[sizeof e->error->text];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    const AqNode *node = e->node;
    const char *scope = node->scope ? node->scope : "";
    const char *file = node->file && *node->file ? node->file : "graph";
    aq_fail(e->error, status, "%.200s:%d: %s %%%d: %s%s%.200s", file,
            node->line, aq_op_info[node->op].name,
            (int)(node - e->graph->nodes), text, *scope ? " in scope " : "",
            scope);
}

double *aq_evaluate_scratch(Evaluation *e, int64_t count)
{
    size_t places = (size_t)AQ_MAX(count, 1);
    double *data = calloc(places, sizeof(double));
    if (!data)
        aq_no_memory(e->error, places * sizeof(double));
    return data;
}

/* ---- sources ---- */

static const double *find(const Environment *environment, const char *name)
{
    for (int i = 0; i < environment->n_bindings; i++)
        if (!strcmp(environment->bindings[i].name, name))
            return environment->bindings[i].data;
    return NULL;
}

/* By its own name, or a param's part of "weights". */
static const double *source_of(const Evaluation *e)
{
    const Environment *environment = e->environment;
    if (e->node->op == AQ_OP_arg) {
        int64_t index = aq_attr_int(e->node, AQ_KEY_INDEX, 0);
        return index < environment->n_args ? environment->args[index]->data
                                           : NULL;
    }
    const char *name = aq_attr_text(e->node, AQ_KEY_NAME, "");
    const double *data = find(environment, name);
    const AqAttr *offset = aq_attr(e->node, AQ_KEY_OFFSET);
    if (data || !offset)
        return data;
    const double *weights = find(environment, "weights");
    return weights ? weights + offset->integer : NULL;
}

static bool is_i32(double x)
{
    return x >= INT32_MIN && x <= INT32_MAX && x == (double)(int32_t)x;
}

void aq_evaluate_bound(Evaluation *e)
{
    const char *name = aq_attr_text(e->node, AQ_KEY_NAME, "");
    const double *data = source_of(e);
    if (!data) {
        aq_evaluate_fail(e, AQ_BAD_INPUT,
                         "no values are bound to '%s': bind them by this name",
                         name);
        return;
    }
    int64_t count = aq_elements(&e->out->type);
    for (int64_t i = 0; i < count; i++) {
        if (e->out->type.element == AQ_I32 && !is_i32(data[i])) {
            aq_evaluate_fail(e, AQ_BAD_INPUT,
                             "element %lld of '%s' is %g, not a 32-bit integer",
                             (long long)i, name, data[i]);
            return;
        }
        e->out->data[i] = data[i];
    }
}

/* ---- the walk ---- */

typedef struct Slot { /* the values of one node while somebody needs them */
    AqValue *values;
    int count, uses;
} Slot;

static void free_slot(Slot *slot)
{
    for (int i = 0; i < slot->count; i++)
        free(slot->values[i].data);
    free(slot->values);
    *slot = (Slot){0};
}

static bool fill_slot(Evaluation *e, Slot *slot, AqId id)
{
    int count = aq_result_count(e->graph, id);
    slot->values = calloc((size_t)AQ_MAX(count, 1), sizeof *slot->values);
    if (!slot->values) {
        aq_no_memory(e->error, (size_t)count * sizeof *slot->values);
        return false;
    }
    slot->count = count;
    for (int i = 0; i < count; i++) {
        AqType type = aq_result_type(e->graph, id, i);
        slot->values[i].type = type;
        slot->values[i].data = aq_evaluate_scratch(e, aq_elements(&type));
    }
    return e->error->status == AQ_OK;
}

/* Live nodes and outputs alone count as uses. */
static void count_live_uses(const AqGraph *graph, const bool *live, Slot *slots)
{
    for (int i = 0; i < graph->count; i++)
        for (int j = 0; live[i] && j < graph->nodes[i].n_inputs; j++)
            slots[graph->nodes[i].inputs[j]].uses++;
    for (int i = 0; i < graph->n_outputs; i++)
        slots[graph->outputs[i].node].uses++;
}

static void evaluate_node(Evaluation *e, Slot *slots, AqId id)
{
    const AqNode *node = aq_node(e->graph, id);
    const AqValue **in = calloc((size_t)node->n_inputs + 1, sizeof(AqValue *));
    if (!in) {
        aq_no_memory(e->error, (size_t)node->n_inputs * sizeof(AqValue *));
        return;
    }
    for (int i = 0; i < node->n_inputs; i++)
        in[i] = slots[node->inputs[i]].values;
    e->node = node;
    e->in = in;
    if (fill_slot(e, &slots[id], id)) {
        e->out = slots[id].values;
        rules[node->op](e);
    }
    free(in);
    for (int i = 0; i < node->n_inputs; i++)
        if (--slots[node->inputs[i]].uses == 0)
            free_slot(&slots[node->inputs[i]]);
}

/* Evaluates the graph and copies its outputs to where `outputs` point. */
static void run(const AqGraph *graph, const Environment *environment,
                AqValue *outputs, AqError *error)
{
    size_t nodes = (size_t)graph->count + 1;
    bool *live = calloc(nodes, sizeof *live);
    Slot *slots = calloc(nodes, sizeof *slots);
    Evaluation e = {.graph = graph, .environment = environment, .error = error};
    if (!live || !slots) {
        aq_no_memory(error, nodes * sizeof *slots);
    } else {
        aq_mark_live(graph, live);
        count_live_uses(graph, live, slots);
        for (AqId id = 0; id < graph->count && error->status == AQ_OK; id++)
            if (live[id])
                evaluate_node(&e, slots, id);
        for (int i = 0; i < graph->n_outputs && error->status == AQ_OK; i++)
            memcpy(outputs[i].data, slots[graph->outputs[i].node].values->data,
                   (size_t)aq_elements(&outputs[i].type) * sizeof(double));
        for (int i = 0; i < graph->count; i++)
            free_slot(&slots[i]);
    }
    free(live);
    free(slots);
}

/* ---- structure ---- */

void aq_evaluate_result(Evaluation *e)
{
    int64_t index = aq_attr_int(e->node, AQ_KEY_INDEX, 0);
    int64_t count = aq_elements(&e->out->type);
    if (count)
        memcpy(e->out->data, e->in[0][index].data,
               (size_t)count * sizeof(double));
}

void aq_evaluate_kernel(Evaluation *e)
{
    Environment inside = {.args = e->in, .n_args = e->node->n_inputs};
    run(aq_attr_body(e->node), &inside, e->out, e->error);
}

/* ---- the entrance ---- */

static AqStatus prepare_outputs(const AqGraph *graph, AqValue *outputs,
                                AqArena *arena, AqError *error)
{
    for (int i = 0; i < graph->n_outputs; i++) {
        AqType type = aq_node(graph, graph->outputs[i].node)->type;
        int64_t count = aq_elements(&type);
        outputs[i].type = type;
        outputs[i].data = AQ_NEW_ARRAY(arena, double, count);
        if (!outputs[i].data)
            return aq_no_memory(error, (size_t)count * sizeof(double));
    }
    return AQ_OK;
}

AqStatus aq_interpret(const AqGraph *graph, const AqBinding *bindings,
                      int n_bindings, AqValue *outputs, AqArena *arena,
                      AqError *error)
{
    AqError own = {.status = AQ_OK};
    error = error ? error : &own;
    if (graph->error.status != AQ_OK)
        return aq_fail(error, graph->error.status, "%s", graph->error.text);
    if (error->status != AQ_OK)
        return error->status;
    Environment environment = {.bindings = bindings, .n_bindings = n_bindings};
    if (prepare_outputs(graph, outputs, arena, error) == AQ_OK)
        run(graph, &environment, outputs, error);
    return error->status;
}

/* ---- how long ---- */

/* Measured on one core: contractions, and an element of anything else. */
static const double SECONDS_A_FLOP = 2e-10, SECONDS_AN_ELEMENT = 1e-8;

static double elements_of(const AqGraph *graph)
{
    double sum = 0;
    for (AqId id = 0; id < graph->count; id++) {
        const AqNode *node = aq_node(graph, id);
        if (node->op == AQ_OP_kernel)
            sum += elements_of(aq_attr_body(node));
        for (int i = 0; i < aq_result_count(graph, id); i++) {
            AqType type = aq_result_type(graph, id, i);
            sum += (double)aq_elements(&type);
        }
    }
    return sum;
}

double aq_interpret_seconds(const AqGraph *graph)
{
    return SECONDS_A_FLOP * aq_graph_flops(graph) +
           SECONDS_AN_ELEMENT * elements_of(graph);
}
