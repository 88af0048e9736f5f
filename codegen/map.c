/* Kernels of kind map: pointwise work over one domain, with movement on the way
 * in, several outputs, and reductions over one common set of axes.
 *
 * An output is a value of the domain's size, or a reduce_sum, a reduce_max or a
 * result of moments of such a value. */
#include "codegen/map.h"

#include <string.h>

static AqStatus refuse(const AqKernel *kernel, AqError *error, const char *why)
{
    return aq_fail(error, AQ_INTERNAL, "%s:%d: map kernel %%%d: %s",
                   kernel->node->file, kernel->node->line, kernel->id, why);
}

static bool same_axes(const AqMap *map, const AqNode *node)
{
    bool reduced[AQ_MAX_RANK] = {false};
    const AqAttr *axes = aq_attr(node, AQ_KEY_AXES);
    for (int i = 0; axes && i < axes->count; i++)
        reduced[axes->ints[i]] = true;
    return memcmp(reduced, map->reduced, sizeof reduced) == 0;
}

static void set_axes(AqMap *map, const AqNode *node)
{
    const AqAttr *axes = aq_attr(node, AQ_KEY_AXES);
    for (int i = 0; axes && i < axes->count; i++)
        map->reduced[axes->ints[i]] = true;
}

/* The reducer of that node, made where it is new: one an output at most. */
static int reducer_of(AqMap *map, const AqNode *node)
{
    AqReducer wanted = {node->op, node->inputs[0],
                        aq_node(map->body, node->inputs[0])->type.element ==
                            AQ_I32};
    for (int i = 0; i < map->n_reducers; i++)
        if (map->reducers[i].op == wanted.op &&
            map->reducers[i].value == wanted.value)
            return i;
    map->reducers[map->n_reducers] = wanted;
    return map->n_reducers++;
}

static AqStatus add_reduction(const AqKernel *kernel, AqMap *map,
                              const AqNode *node, int component, AqError *error)
{
    const AqType *from = &aq_node(map->body, node->inputs[0])->type;
    if (map->n_reducers == 0) {
        map->domain = *from;
        set_axes(map, node);
    } else if (!aq_same_shape(&map->domain, from) || !same_axes(map, node)) {
        return refuse(kernel, error, "its reductions differ in shape or axes");
    }
    map->outputs[map->n_outputs++] =
        (AqMapOutput){-1, reducer_of(map, node), component};
    return AQ_OK;
}

static AqStatus find_outputs(const AqKernel *kernel, AqMap *map, AqError *error)
{
    const AqGraph *body = kernel->body;
    map->domain = aq_node(body, body->outputs[0].node)->type;
    for (int i = 0; i < body->n_outputs; i++) {
        int component;
        AqId id = body->outputs[i].node;
        const AqNode *node = aq_reduction_of(body, id, &component);
        if (!node)
            map->outputs[map->n_outputs++] = (AqMapOutput){id, -1, 0};
        else if (add_reduction(kernel, map, node, component, error))
            return error->status;
    }
    int64_t elements = aq_elements(&map->domain);
    for (int i = 0; i < map->n_outputs; i++) {
        AqId id = map->outputs[i].value;
        if (id >= 0 && aq_elements(&aq_node(body, id)->type) != elements)
            return refuse(kernel, error, "its outputs differ in size");
    }
    return AQ_OK;
}

AqStatus aq_map_plan(const AqKernel *kernel, AqMap *map, AqArena *arena,
                     AqError *error)
{
    *map = (AqMap){.body = kernel->body,
                   .n_inputs = kernel->node->n_inputs,
                   .lanes = kernel->target->vector};
    if (find_outputs(kernel, map, error))
        return error->status;
    return aq_map_nest(map, kernel->target, arena)
               ? AQ_OK
               : aq_no_memory(error, sizeof *map);
}

static AqStatus map_layout(const AqKernel *kernel, AqKernelLayout *layout,
                           AqError *error)
{
    AqMap map;
    AqArena *arena = aq_arena_new();
    if (!arena)
        return aq_no_memory(error, 0);
    if (aq_map_plan(kernel, &map, arena, error) == AQ_OK)
        *layout = (AqKernelLayout){.n_stages = 1, .tasks = {map.tasks}};
    aq_arena_free(arena);
    return error->status;
}

static AqStatus map_plan(AqCodePlan *plan, const AqKernel *kernel,
                         AqError *error)
{
    AqMap *map = AQ_NEW(aq_code_plan_arena(plan), AqMap);
    AqText key = {0};
    if (!map)
        return aq_no_memory(error, sizeof *map);
    if (aq_map_plan(kernel, map, aq_code_plan_arena(plan), error))
        return error->status;
    aq_kernel_key(kernel, &key);
    int unit = key.failed ? -1
                          : aq_code_plan_unit(plan, "map", key.data, key.length,
                                              aq_map_emit, map);
    aq_text_free(&key);
    return unit < 0 ? aq_no_memory(error, key.length)
                    : aq_code_plan_stage(plan, unit, NULL, 0);
}

const AqKernelKind aq_kind_map = {"map", map_layout, map_plan};
