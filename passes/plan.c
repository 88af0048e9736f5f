/* The memory plan: an offset for every value.
 *
 * Kernels run in the order of the graph.  A value lives from the kernel that
 * writes it to the last one that reads it; values that are alive at one time
 * get disjoint places in the arena (plan_place.c).  A reshape names its input's
 * place.  A part of a concat lies inside the concat, but lives only from the
 * kernel that writes it: until then its room is free for others (activations
 * lie where gradients will be); small parts lie apart (plan_late.c).  A value
 * that updates a state is written straight into the state where that may be
 * (plan_update.c), and copied at the end otherwise.
 * Needs: the output of fuse.  Order and offsets depend on shapes only. */
#include "passes/plan.h"

#include <stdlib.h>
#include <string.h>

/* Parts of a concat that lie apart (plan_late.c): that share of it.  Where the
 * arena takes more than TIGHT percent of what is alive, larger ones may, too:
 * the room between the others is then in fewer pieces. */
enum { SHARE = 1024, LARGER_SHARE = 256, TIGHT = 105 };

static const AqNode *node_of(const Planner *p, AqId id)
{
    return aq_node(p->g, id);
}

int aq_plan_block(Planner *p, int64_t bytes, int base)
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

int aq_plan_add_base(Planner *p, const char *name, int64_t bytes, bool state)
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
    int base = aq_plan_add_base(p, name, bytes, node->op != AQ_OP_input);
    int block = aq_plan_block(p, bytes, base);
    p->place[id] = (Place){.block = block, .offset = offset};
}

/* ---- aliases ---- */

/* The late part of a concat that is its i-th, or NULL. */
static LatePart *late_part(Planner *p, AqId concat, int i, int *next)
{
    LatePart *late = &p->late[*next];
    if (p->first_late[concat] < 0 || *next == p->n_late || late->part != i ||
        late->value != node_of(p, concat)->inputs[i])
        return NULL;
    ++*next;
    return late;
}

/* The parts of a concat lie in it, one after the other. */
static void place_concat(Planner *p, AqId id)
{
    const AqNode *node = node_of(p, id);
    int block = aq_plan_block(p, aq_bytes(&node->type), 0);
    int next = p->first_late[id];
    int64_t offset = 0;
    p->place[id] = (Place){.block = block};
    p->blocks[block].parts = node->n_inputs;
    for (int i = 0; i < node->n_inputs; i++) {
        int64_t bytes = aq_bytes(&node_of(p, node->inputs[i])->type);
        int part = aq_plan_block(p, bytes, 0);
        p->blocks[part].concat = block;
        p->blocks[part].within = offset;
        LatePart *late = late_part(p, id, i, &next);
        if (late)
            late->block = part;
        else
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
            p->place[id].block = aq_plan_block(p, aq_bytes(&node->type), 0);
    }
}

/* ---- lives ---- */

static void touch_block(Planner *p, int i, int step)
{
    AqBlock *block = &p->blocks[i];
    block->first = AQ_MIN(block->first, step);
    block->last = AQ_MAX(block->last, step);
}

static void touch(Planner *p, AqId id, int step)
{
    touch_block(p, p->place[id].block, step);
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
    for (int i = 0; i < p->n_late; i++) {
        touch(p, p->late[i].value, p->late[i].step);
        touch_block(p, p->late[i].block, p->late[i].step);
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

/* ---- steps ---- */

static AqBuffer buffer_of(const Planner *p, AqId id)
{
    Place place = p->place[id];
    const AqBlock *block = &p->blocks[place.block];
    return (AqBuffer){.base = block->base,
                      .offset = block->offset + place.offset};
}

/* Blocks of a kernel that are no values; -1: it has none. */
typedef struct Workspaces {
    int own, kept;
} Workspaces;

static int add_workspace(Planner *p, AqId id, int64_t bytes, bool keep)
{
    if (bytes == 0)
        return -1;
    int block = aq_plan_block(p, bytes, 0);
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
        saved[i] = aq_plan_block(p, aq_bytes(&node_of(p, o->node)->type), 0);
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

static void list_copy(AqPlan *plan, int step, AqBuffer from, AqBuffer to,
                      int64_t bytes)
{
    plan->steps[step] = (AqStep){.kernel = AQ_NO_NODE,
                                 .first = plan->n_buffers,
                                 .count = 2,
                                 .copy_bytes = bytes};
    plan->buffers[plan->n_buffers++] = from;
    plan->buffers[plan->n_buffers++] = to;
}

static void list_late(Planner *p)
{
    for (int i = 0; i < p->n_late; i++) {
        const LatePart *late = &p->late[i];
        AqBuffer to = {.offset = p->blocks[late->block].offset};
        list_copy(p->plan, late->step, buffer_of(p, late->value), to,
                  aq_bytes(&node_of(p, late->value)->type));
    }
}

static void add_copy(AqPlan *plan, AqBuffer from, AqBuffer to, int64_t bytes)
{
    list_copy(plan, plan->n_steps++, from, to, bytes);
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
    if (!aq_plan_steps(p))
        return false;
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
    aq_plan_updates(p);
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
    if (!p->error->status) {
        list_late(p);
        list_outputs(p, saved);
    }
    p->plan->bases[0].bytes = p->plan->arena_bytes;
}

static AqPlan *plan_apart(const AqGraph *graph, const AqNeeds *needs, int share,
                          AqError *error)
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
                 .share = share,
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

AqPlan *aq_plan(const AqGraph *graph, const AqNeeds *needs, AqError *error)
{
    AqPlan *plan = plan_apart(graph, needs, SHARE, error);
    if (!plan || plan->arena_bytes <= plan->live_bytes / 100 * TIGHT)
        return plan;
    AqPlan *other = plan_apart(graph, needs, LARGER_SHARE, error);
    AqPlan *worse =
        other && other->arena_bytes >= plan->arena_bytes ? other : plan;
    AqPlan *kept = worse == plan ? other : plan; /* or NULL, with the error */
    aq_plan_free(worse);
    return kept;
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
