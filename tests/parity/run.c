/* Graphs run by the interpreter in double, or compiled in float. */
#include "tests/parity/parity.h"

#include <string.h>

void runner_end(Runner *r)
{
    aq_compiled_free(r->compiled);
    aq_memory_free(r->memory);
    aq_pool_free(r->pool);
    *r = (Runner){.interpret = r->interpret};
}

static bool uses_winograd(const AqGraph *kernels)
{
    for (AqId id = 0; id < kernels->count; id++) {
        const char *algorithm =
            aq_attr_text(aq_node(kernels, id), AQ_KEY_ALGORITHM, "");
        if (strstr(algorithm, "winograd"))
            return true;
    }
    return false;
}

static void compile(Runner *r, const AqGraph *graph, AqError *error)
{
    AqPoolOptions threads = {0};
    AqProgramSettings settings = {.passes.algorithm = r->algorithm};
    runner_end(r);
    r->graph = graph;
    r->pool = aq_pool_new(&threads, error);
    r->memory = r->pool ? aq_memory_new(error) : NULL;
    if (r->memory)
        r->compiled =
            aq_compiled_new(graph, r->memory, r->pool, &settings, error);
    if (r->compiled)
        r->winograd = uses_winograd(aq_compiled_graph(r->compiled));
}

/* What the program reads, by name and with its type. */
static void give(Runner *r, const char *name, AqElement element, int64_t count,
                 const double *data)
{
    void *array = aq_memory_find(r->memory, name, NULL);
    for (int64_t i = 0; array && i < count; i++) {
        if (element == AQ_I32)
            ((int32_t *)array)[i] = (int32_t)data[i];
        else
            ((float *)array)[i] = (float)data[i];
    }
}

static void give_all(Runner *r, const AqGraph *graph, const AqBinding *bindings,
                     int n_bindings)
{
    for (int k = 0; k < n_bindings; k++) {
        const char *name = bindings[k].name;
        int64_t bytes = 0;
        if (strcmp(name, "weights") == 0 &&
            aq_memory_find(r->memory, name, &bytes))
            give(r, name, AQ_F32, bytes / 4, bindings[k].data);
        for (AqId id = 0; id < graph->count; id++) {
            const AqNode *node = aq_node(graph, id);
            if ((node->op == AQ_OP_input || node->op == AQ_OP_state) &&
                strcmp(aq_attr_text(node, AQ_KEY_NAME, ""), name) == 0)
                give(r, name, node->type.element, aq_elements(&node->type),
                     bindings[k].data);
        }
    }
}

static bool take(Runner *r, const AqOutput *output, const AqType *type,
                 AqValue *value, AqArena *arena)
{
    const void *from = output->update
                           ? aq_memory_find(r->memory, output->name, NULL)
                           : aq_compiled_output(r->compiled, output->name);
    int64_t count = aq_elements(type);
    value->type = *type;
    value->data = AQ_NEW_ARRAY(arena, double, count + 1);
    if (!from || !value->data)
        return false;
    for (int64_t i = 0; i < count; i++)
        value->data[i] = type->element == AQ_I32 ? ((const int32_t *)from)[i]
                                                 : ((const float *)from)[i];
    return true;
}

AqStatus runner_run(Runner *r, const AqGraph *graph, const AqBinding *bindings,
                    int n_bindings, AqValue *values, AqArena *arena,
                    AqError *error)
{
    if (r->interpret)
        return aq_interpret(graph, bindings, n_bindings, values, arena, error);
    if (r->graph != graph)
        compile(r, graph, error);
    if (!r->compiled)
        return error->status;
    give_all(r, graph, bindings, n_bindings);
    aq_compiled_run(r->compiled, NULL);
    for (int i = 0; i < graph->n_outputs; i++) {
        const AqOutput *output = &graph->outputs[i];
        if (!take(r, output, &aq_node(graph, output->node)->type, &values[i],
                  arena))
            return aq_fail(error, AQ_INTERNAL, "the program has no output %s",
                           output->name);
    }
    return AQ_OK;
}
