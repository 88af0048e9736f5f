/* The memory plan: an offset for every value.
 *
 * Kernels run in the order of the graph.  A value lives from the kernel that
 * writes it to the last one that reads it; values that are alive at one time
 * get disjoint places in the arena (plan_place.c).  A reshape names its input's
 * place.  A part of a concat lies inside the concat, but lives only from the
 * kernel that writes it: until then its room is free for others (activations
 * lie where gradients will be).  A value that updates a state is written
 * straight into the state where every other reader has run before, and copied
 * at the end otherwise.
 * Needs: the output of fuse.  Order and offsets depend on shapes only. */
#include "passes/plan.h"

#include <stdlib.h>
#include <string.h>

/* Where a value lies. */
typedef struct Place {
    int block; /* -1: none yet */
    int64_t offset;
} Place;

typedef struct Planner {
    const AqGraph *g;
    const AqNeeds *needs;
    AqPlan *plan;
    AqArena *scratch;
    AqError *error;
    Place *place; /* of nodes */
    int *step_of; /* kernel node -> its step */
    AqBlock *blocks;
    int n_blocks, blocks_capacity;
    int weights; /* base of `weights`, -1 if there is none */
} Planner;

static const AqNode *node_of(const Planner *p, AqId id)
{
    return aq_node(p->g, id);
}

static int new_block(Planner *p, int64_t bytes, int base)
{
    if (p->n_blocks == p->blocks_capacity) {
        aq_fail(p->error, AQ_INTERNAL, "plan: more blocks than values");
        return 0;
    }
    p->blocks[p->n_blocks] = (AqBlock){.bytes = bytes,
                                       .base = base,
                                       .first = INT32_MAX,
                                       .last = -1,
                                       .concat = -1};
    return p->n_blocks++;
}

/* ---- bases ---- */

static int add_base(Planner *p, const char *name, int64_t bytes, bool state)
{
    AqPlan *plan = p->plan;
    for (int i = 1; i < plan->n_bases; i++)
        if (!strcmp(plan->bases[i].name, name)) {
            plan->bases[i].bytes = AQ_MAX(plan->bases[i].bytes, bytes);
            return i;
        }
    plan->bases[plan->n_bases] =
        (AqBase){.name = aq_arena_copy_text(plan->arena, name),
                 .bytes = bytes,
                 .state = state};
    return plan->n_bases++;
}

/* Parameters are stretches of `weights`. */
static void place_source(Planner *p, AqId id)
{
    const AqNode *node = node_of(p, id);
    bool param = node->op == AQ_OP_param;
    const char *name = param ? "weights" : aq_attr_text(node, AQ_KEY_NAME, "");
    int64_t offset = param ? aq_attr_int(node, AQ_KEY_OFFSET, 0) * 4 : 0;
    int64_t bytes = offset + aq_bytes(&node->type);
    int base = add_base(p, name, bytes, node->op != AQ_OP_input);
    int block = new_block(p, bytes, base);
    p->place[id] = (Place){.block = block, .offset = offset};
}

/* ---- aliases ---- */

/* The parts of a concat lie in it, one after the other. */
static void place_concat(Planner *p, AqId id)
{
    const AqNode *node = node_of(p, id);
    int block = new_block(p, aq_bytes(&node->type), 0);
    int64_t offset = 0;
    p->place[id] = (Place){.block = block};
    p->blocks[block].parts = node->n_inputs;
    for (int i = 0; i < node->n_inputs; i++) {
        int64_t bytes = aq_bytes(&node_of(p, node->inputs[i])->type);
        int part = new_block(p, bytes, 0);
        p->blocks[part].concat = block;
        p->blocks[part].within = offset;
        p->place[node->inputs[i]] = (Place){.block = part};
        offset += bytes;
    }
}

/* Users before what they use: a concat's place passes down through reshapes to
 * the kernels' results. */
static void place_backwards(Planner *p)
{
    for (AqId id = p->g->count; id-- > 0;) {
        const AqNode *node = node_of(p, id);
        if (node->op == AQ_OP_concat && p->place[id].block < 0)
            place_concat(p, id);
        else if (node->op == AQ_OP_reshape && p->place[id].block >= 0 &&
                 p->place[node->inputs[0]].block < 0)
            p->place[node->inputs[0]] = p->place[id];
    }
}

static void place_forwards(Planner *p)
{
    for (AqId id = 0; id < p->g->count; id++) {
        const AqNode *node = node_of(p, id);
        if (node->op == AQ_OP_reshape)
            p->place[id] = p->place[node->inputs[0]];
        else if (node->op == AQ_OP_result && p->place[id].block < 0)
            p->place[id].block = new_block(p, aq_bytes(&node->type), 0);
    }
}

/* ---- lives ---- */

static void touch(Planner *p, AqId id, int step)
{
    AqBlock *block = &p->blocks[p->place[id].block];
    block->first = AQ_MIN(block->first, step);
    block->last = AQ_MAX(block->last, step);
}

static void find_lives(Planner *p)
{
    for (AqId id = 0; id < p->g->count; id++) {
        const AqNode *node = node_of(p, id);
        if (node->op == AQ_OP_result)
            touch(p, id, p->step_of[node->inputs[0]]);
        if (node->op != AQ_OP_kernel)
            continue;
        for (int i = 0; i < node->n_inputs; i++)
            touch(p, node->inputs[i], p->step_of[id]);
    }
    for (int i = 0; i < p->g->n_outputs; i++)
        touch(p, p->g->outputs[i].node, p->plan->n_steps);
}

/* A part lives on in its concat; a concat from its first part on. */
static void join_lives(Planner *p)
{
    for (int i = 0; i < p->n_blocks; i++) {
        AqBlock *part = &p->blocks[i];
        if (part->concat < 0)
            continue;
        AqBlock *concat = &p->blocks[part->concat];
        concat->first = AQ_MIN(concat->first, part->first);
        part->last = AQ_MAX(part->last, concat->last);
    }
}

/* ---- updates in place ---- */

/* Whether the body uses arg `index` only at the index it is computing: what
 * depends on it is never moved or looked up. */
static bool reads_in_place(Planner *p, const AqGraph *body, int index)
{
    bool *depends = AQ_NEW_ARRAY(p->scratch, bool, body->count);
    if (!depends)
        return false;
    for (AqId id = 0; id < body->count; id++) {
        const AqNode *node = aq_node(body, id);
        depends[id] = node->op == AQ_OP_arg &&
                      aq_attr_int(node, AQ_KEY_INDEX, 0) == index;
        for (int i = 0; i < node->n_inputs; i++)
            depends[id] = depends[id] || depends[node->inputs[i]];
        bool pointwise = (aq_op_info[node->op].facts & AQ_POINTWISE) ||
                         node->op == AQ_OP_reshape;
        if (depends[id] && !pointwise && node->op != AQ_OP_arg)
            return false;
    }
    return true;
}

/* Where a value lies that came from outside, behind its reshapes; those have
 * no places of their own yet. */
static Place place_behind(const Planner *p, AqId id)
{
    while (node_of(p, id)->op == AQ_OP_reshape)
        id = node_of(p, id)->inputs[0];
    return p->place[id];
}

static bool overlaps_base(const Planner *p, AqId id, int base)
{
    Place place = place_behind(p, id);
    return place.block >= 0 && p->blocks[place.block].base == base;
}

/* Whether `value`, a kernel's result, may be written into `base` when its
 * kernel runs. */
static bool may_update(Planner *p, AqId value, int base)
{
    const AqNode *result = node_of(p, value);
    if (result->op != AQ_OP_result)
        return false;
    AqId writer = result->inputs[0];
    const AqGraph *body = aq_attr_body(node_of(p, writer));
    for (AqId id = 0; id < p->g->count; id++) {
        const AqNode *node = node_of(p, id);
        if (node->op != AQ_OP_kernel)
            continue;
        for (int i = 0; i < node->n_inputs; i++) {
            if (!overlaps_base(p, node->inputs[i], base))
                continue;
            if (p->step_of[id] > p->step_of[writer])
                return false;
            if (id == writer && (place_behind(p, node->inputs[i]).offset != 0 ||
                                 !reads_in_place(p, body, i)))
                return false;
        }
    }
    for (int i = 0; i < p->g->n_outputs; i++) /* the old value is wanted */
        if (p->g->outputs[i].node != value &&
            overlaps_base(p, p->g->outputs[i].node, base))
            return false;
    return true;
}

static void place_updates(Planner *p)
{
    for (int i = 0; i < p->g->n_outputs; i++) {
        const AqOutput *o = &p->g->outputs[i];
        if (!o->update)
            continue;
        int64_t bytes = aq_bytes(&node_of(p, o->node)->type);
        int base = add_base(p, o->name, bytes, true);
        p->plan->bases[base].written = true;
        Place *place = &p->place[o->node];
        if (place->block >= 0 || !may_update(p, o->node, base))
            continue;
        place->block = new_block(p, bytes, base);
    }
}

/* ---- steps ---- */

static AqBuffer buffer_of(const Planner *p, AqId id)
{
    Place place = p->place[id];
    const AqBlock *block = &p->blocks[place.block];
    return (AqBuffer){.base = block->base,
                      .offset = block->offset + place.offset};
}

static void count_steps(Planner *p)
{
    AqPlan *plan = p->plan;
    for (AqId id = 0; id < p->g->count; id++) {
        const AqNode *node = node_of(p, id);
        if (node->op != AQ_OP_kernel)
            continue;
        p->step_of[id] = plan->n_steps++;
        plan->n_buffers += node->n_inputs + aq_result_count(p->g, id) + 2;
    }
}

/* Blocks of a kernel that are no values; -1: it has none. */
typedef struct Workspaces {
    int own, kept;
} Workspaces;

static int add_workspace(Planner *p, AqId id, int64_t bytes, bool keep)
{
    if (bytes == 0)
        return -1;
    int block = new_block(p, bytes, 0);
    p->blocks[block].first = keep ? 0 : p->step_of[id];
    p->blocks[block].last = keep ? p->plan->n_steps : p->step_of[id];
    return block;
}

/* A kernel's workspace lives for one step, or, where it is kept from run to
 * run, through all of them. */
static Workspaces *add_workspaces(Planner *p)
{
    Workspaces *all = AQ_NEW_ARRAY(p->scratch, Workspaces, p->g->count);
    for (AqId id = 0; all && id < p->g->count; id++) {
        all[id] = (Workspaces){-1, -1};
        if (node_of(p, id)->op != AQ_OP_kernel)
            continue;
        const AqNeeds *needs = &p->needs[id];
        all[id].own = add_workspace(p, id, needs->workspace, false);
        all[id].kept = add_workspace(p, id, needs->kept, needs->keep);
    }
    return all;
}

/* An output whose value is what a state was, while the state is updated: it is
 * saved before that. */
static bool is_old_value(const Planner *p, const AqOutput *o)
{
    Place from = p->place[o->node];
    int base = p->blocks[from.block].base;
    AqId id = o->node;
    while (node_of(p, id)->op == AQ_OP_reshape)
        id = node_of(p, id)->inputs[0];
    if (base == 0 || !p->plan->bases[base].written ||
        !(aq_op_info[node_of(p, id)->op].facts & AQ_SOURCE))
        return false;
    return !o->update || from.offset != 0 ||
           aq_plan_base(p->plan, o->name) != base;
}

/* Blocks for old values, by output; -1 where there is nothing to save. */
static int *add_saved(Planner *p)
{
    int *saved = AQ_NEW_ARRAY(p->scratch, int, p->g->n_outputs);
    for (int i = 0; saved && i < p->g->n_outputs; i++) {
        const AqOutput *o = &p->g->outputs[i];
        saved[i] = -1;
        if (!is_old_value(p, o))
            continue;
        saved[i] = new_block(p, aq_bytes(&node_of(p, o->node)->type), 0);
        p->blocks[saved[i]].first = p->blocks[saved[i]].last = p->plan->n_steps;
    }
    return saved;
}

static void list_kernel(Planner *p, AqId id, Workspaces workspaces)
{
    AqPlan *plan = p->plan;
    const AqNode *node = node_of(p, id);
    AqStep *step = &plan->steps[p->step_of[id]];
    int results = aq_result_count(p->g, id);
    *step = (AqStep){.kernel = id, .first = plan->n_buffers};
    AqBuffer *buffers = plan->buffers + plan->n_buffers;
    for (int i = 0; i < node->n_inputs; i++)
        buffers[step->count++] = buffer_of(p, node->inputs[i]);
    int found = 0; /* fuse builds a kernel's results right after it */
    for (AqId r = id + 1; r < p->g->count && found < results; r++) {
        const AqNode *result = node_of(p, r);
        if (result->op != AQ_OP_result || result->inputs[0] != id)
            continue;
        buffers[node->n_inputs + aq_attr_int(result, AQ_KEY_INDEX, 0)] =
            buffer_of(p, r);
        found++;
    }
    if (found < results)
        aq_fail(p->error, AQ_INTERNAL,
                "plan: %d of the %d results of kernel %%%d have no place",
                results - found, results, (int)id);
    step->count += results;
    const int blocks[] = {workspaces.own, workspaces.kept};
    for (int i = 0; i < AQ_COUNT(blocks); i++)
        if (blocks[i] >= 0)
            buffers[step->count++].offset = p->blocks[blocks[i]].offset;
    plan->n_buffers += step->count;
}

static void add_copy(AqPlan *plan, AqBuffer from, AqBuffer to, int64_t bytes)
{
    plan->steps[plan->n_steps++] = (AqStep){.kernel = AQ_NO_NODE,
                                            .first = plan->n_buffers,
                                            .count = 2,
                                            .copy_bytes = bytes};
    plan->buffers[plan->n_buffers++] = from;
    plan->buffers[plan->n_buffers++] = to;
}

static AqBuffer saved_or_computed(const Planner *p, int output,
                                  const int *saved)
{
    if (saved[output] < 0)
        return buffer_of(p, p->g->outputs[output].node);
    return (AqBuffer){.offset = p->blocks[saved[output]].offset};
}

/* Old values first, before anything is copied over them. */
static void list_outputs(Planner *p, const int *saved)
{
    AqPlan *plan = p->plan;
    for (int i = 0; i < p->g->n_outputs; i++) {
        AqId node = p->g->outputs[i].node;
        if (saved[i] >= 0)
            add_copy(plan, buffer_of(p, node), saved_or_computed(p, i, saved),
                     aq_bytes(&node_of(p, node)->type));
    }
    for (int i = 0; i < p->g->n_outputs; i++) {
        const AqOutput *o = &p->g->outputs[i];
        AqBuffer from = saved_or_computed(p, i, saved);
        AqType type = node_of(p, o->node)->type;
        if (!o->update) {
            plan->outputs[plan->n_outputs++] = (AqPlannedOutput){
                .name = aq_arena_copy_text(plan->arena, o->name),
                .type = type,
                .buffer = from};
            continue;
        }
        AqBuffer to = {.base = aq_plan_base(plan, o->name)};
        if (from.base != to.base || from.offset != to.offset)
            add_copy(plan, from, to, aq_bytes(&type));
    }
}

static bool reserve(Planner *p)
{
    size_t n = (size_t)p->g->count, outputs = (size_t)p->g->n_outputs;
    p->place = AQ_NEW_ARRAY(p->scratch, Place, n);
    p->step_of = AQ_NEW_ARRAY(p->scratch, int, n);
    p->blocks_capacity = (int)(3 * n + 2 * outputs);
    p->blocks = AQ_NEW_ARRAY(p->scratch, AqBlock, p->blocks_capacity);
    AqArena *arena = p->plan->arena;
    p->plan->bases = AQ_NEW_ARRAY(arena, AqBase, n + outputs + 1);
    p->plan->outputs = AQ_NEW_ARRAY(arena, AqPlannedOutput, outputs);
    if (!p->place || !p->step_of || !p->blocks || !p->plan->bases ||
        !p->plan->outputs)
        return false;
    for (size_t i = 0; i < n; i++)
        p->place[i].block = -1;
    p->plan->bases[p->plan->n_bases++] = (AqBase){.name = ""};
    count_steps(p);
    p->plan->steps =
        AQ_NEW_ARRAY(arena, AqStep, (size_t)p->plan->n_steps + 2 * outputs);
    p->plan->buffers =
        AQ_NEW_ARRAY(arena, AqBuffer, (size_t)p->plan->n_buffers + 4 * outputs);
    p->plan->n_buffers = 0;
    return p->plan->steps && p->plan->buffers;
}

static void place_all(Planner *p)
{
    for (AqId id = 0; id < p->g->count; id++)
        if (aq_op_info[node_of(p, id)->op].facts & AQ_SOURCE)
            place_source(p, id);
    place_backwards(p);
    place_updates(p);
    place_forwards(p);
    find_lives(p);
    join_lives(p);
    Workspaces *workspaces = add_workspaces(p);
    int *saved = add_saved(p);
    if (!workspaces || !saved) {
        aq_no_memory(p->error, (size_t)p->g->count);
        return;
    }
    aq_place_blocks(p->blocks, p->n_blocks, p->plan, p->scratch, p->error);
    for (AqId id = 0; id < p->g->count && !p->error->status; id++)
        if (node_of(p, id)->op == AQ_OP_kernel)
            list_kernel(p, id, workspaces[id]);
    if (!p->error->status)
        list_outputs(p, saved);
    p->plan->bases[0].bytes = p->plan->arena_bytes;
}

AqPlan *aq_plan(const AqGraph *graph, const AqNeeds *needs, AqError *error)
{
    AqArena *arena = aq_arena_new(), *scratch = aq_arena_new();
    AqPlan *plan = arena ? AQ_NEW(arena, AqPlan) : NULL;
    if (!plan || !scratch) {
        aq_arena_free(arena);
        aq_arena_free(scratch);
        aq_no_memory(error, sizeof *plan);
        return NULL;
    }
    *plan = (AqPlan){.arena = arena, .graph = graph};
    Planner p = {.g = graph,
                 .needs = needs,
                 .plan = plan,
                 .scratch = scratch,
                 .error = error};
    if (reserve(&p))
        place_all(&p);
    else
        aq_no_memory(error, (size_t)graph->count * sizeof(AqBlock));
    aq_arena_free(scratch);
    if (error->status == AQ_OK)
        return plan;
    aq_arena_free(arena);
    return NULL;
}

void aq_plan_free(AqPlan *plan)
{
    if (plan)
        aq_arena_free(plan->arena);
}

int aq_plan_base(const AqPlan *plan, const char *name)
{
    for (int i = 0; i < plan->n_bases; i++)
        if (!strcmp(plan->bases[i].name, name))
            return i;
    return -1;
}
