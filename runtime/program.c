/* A graph becomes a program: optimized, planned, compiled, its launches listed.
 *
 * A launch's buffers are pointers into the program's arena and into arrays
 * shared with other programs; they are resolved once. */
#include "runtime/runtime.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct AqCompiled {
    AqArena *arena;
    AqPool *pool;
    AqMemory *memory;
    AqGraph *graph; /* of kernels */
    AqPlan *plan;
    AqCode *code;
    AqTarget target;
    AqNeeds *needs; /* by kernel node, as the two after it */
    bool (*once)[AQ_MAX_STAGES];
    uint64_t (*reads)[AQ_MAX_STAGES];
    void **bases; /* of the plan */
    AqLaunches launches;
    bool started; /* the first run is over */
    void **scratch;
    int64_t scratch_each;
    int64_t memory_limit; /* for what is new; 0: none was given */
    AqCompiled *room; /* whose arena, and whose scratch, are used; or NULL */
    bool room_arena, room_scratch;
};

/* ---- building ---- */

static bool is_fixed(const AqCompiled *c, const AqProgramSettings *settings,
                     AqId id)
{
    const AqNode *node = aq_node(c->graph, id);
    while (node->op == AQ_OP_reshape)
        node = aq_node(c->graph, node->inputs[0]);
    if (!(aq_op_info[node->op].facts & AQ_SOURCE))
        return false;
    const char *name = node->op == AQ_OP_param
                           ? "weights"
                           : aq_attr_text(node, AQ_KEY_NAME, "");
    for (int i = 0; i < settings->n_fixed; i++)
        if (!strcmp(settings->fixed[i], name))
            return true;
    return false;
}

/* The stages that read fixed inputs alone run once, if all that write the
 * workspace to be kept are such. */
static bool find_once(const AqCompiled *c, const AqProgramSettings *settings,
                      AqId id, const AqKernelLayout *layout)
{
    const AqNode *node = aq_node(c->graph, id);
    bool all = layout->kept > 0 && !settings->frugal, any = false;
    for (int s = 0; s < layout->n_stages && all; s++) {
        c->once[id][s] = layout->reads[s] != 0;
        any = any || c->once[id][s];
        for (int i = 0; i < AQ_MIN(node->n_inputs, 64) && all; i++)
            all = !(layout->reads[s] >> i & 1) ||
                  is_fixed(c, settings, node->inputs[i]);
    }
    if (!all || !any)
        memset(c->once[id], 0, sizeof c->once[id]);
    return all && any;
}

static AqNeeds *layouts(AqCompiled *c, const AqProgramSettings *settings,
                        AqError *error)
{
    AqNeeds *needs = AQ_NEW_ARRAY(c->arena, AqNeeds, c->graph->count);
    size_t n = (size_t)c->graph->count;
    c->once = aq_arena_alloc(c->arena, sizeof *c->once * n);
    c->reads = aq_arena_alloc(c->arena, sizeof *c->reads * n);
    if (!needs || !c->once || !c->reads) {
        aq_no_memory(error, sizeof *needs * n);
        return NULL;
    }
    for (AqId id = 0; id < c->graph->count; id++) {
        if (aq_node(c->graph, id)->op != AQ_OP_kernel)
            continue;
        AqKernelLayout layout;
        if (aq_kernel_layout(c->graph, id, &c->target, &layout, error))
            return NULL;
        memcpy(c->reads[id], layout.reads, sizeof c->reads[id]);
        needs[id] = (AqNeeds){.workspace = layout.workspace,
                              .kept = layout.kept,
                              .keep = find_once(c, settings, id, &layout)};
        c->scratch_each = AQ_MAX(c->scratch_each, layout.scratch);
    }
    return needs;
}

/* The same for the passes, which do not count on keeping anything. */
static AqStatus find_needs(void *context, const AqGraph *kernels,
                           AqNeeds *needs, AqError *error)
{
    AqCompiled *c = context;
    for (AqId id = 0; id < kernels->count; id++) {
        if (aq_node(kernels, id)->op != AQ_OP_kernel)
            continue;
        AqKernelLayout layout;
        if (aq_kernel_layout(kernels, id, &c->target, &layout, error))
            return error->status;
        needs[id] =
            (AqNeeds){.workspace = layout.workspace, .kept = layout.kept};
        c->scratch_each = AQ_MAX(c->scratch_each, layout.scratch);
    }
    return AQ_OK;
}

static int64_t machine_bytes(void)
{
    return (int64_t)sysconf(_SC_PHYS_PAGES) * sysconf(_SC_PAGESIZE);
}

int64_t aq_compiled_scratch(const AqCompiled *c)
{
    return aq_whole_pages(c->scratch_each) * aq_pool_threads(c->pool);
}

int64_t aq_compiled_bytes(const AqCompiled *c)
{
    return (c->room_arena ? 0 : aq_whole_pages(c->plan->arena_bytes)) +
           (c->room_scratch ? 0 : aq_compiled_scratch(c));
}

/* Arrays that are there already are no new demand. */
static int64_t array_bytes(const AqCompiled *c, const AqPlan *plan)
{
    int64_t bytes = 0;
    for (int i = 1; i < plan->n_bases; i++)
        if (aq_memory_is_new(c->memory, plan->bases[i].name))
            bytes += aq_whole_pages(plan->bases[i].bytes);
    return bytes;
}

int64_t aq_compiled_needed(const AqCompiled *c)
{
    return aq_compiled_bytes(c) + array_bytes(c, c->plan);
}

/* For the passes: what a budget leaves for the arena, or what is borrowed. */
static int64_t room_of_arena(void *context, const AqPlan *plan)
{
    const AqCompiled *c = context;
    int64_t beside = aq_compiled_scratch(c) + array_bytes(c, plan);
    int64_t room = aq_pages_within(c->memory_limit - beside);
    return c->room ? AQ_MAX(room, c->room->plan->arena_bytes) : room;
}

int64_t aq_compiled_limit(int64_t memory_limit)
{
    return memory_limit > 0 ? memory_limit : machine_bytes();
}

/* A budget that was given is kept by what the passes left, or cannot be. */
AqStatus aq_compiled_check_memory(const AqCompiled *c, AqError *error)
{
    double needed = (double)aq_compiled_needed(c);
    bool given = c->memory_limit > 0;
    double limit = (double)aq_compiled_limit(c->memory_limit);
    if (needed <= limit)
        return AQ_OK;
    return aq_fail(error, AQ_NO_MEMORY,
                   given ? "the program needs %.1f MiB at the least, and "
                           "--memory allows %.1f: choose a smaller batch, "
                           "size or model"
                         : "the program needs %.1f MiB, and this machine has "
                           "%.1f: give --memory to compute parts of it twice, "
                           "or choose a smaller batch, size or model",
                   ceil(needed / (1 << 20) * 10) / 10, limit / (1 << 20));
}

static AqStatus find_bases(AqCompiled *c, AqError *error)
{
    AqPlan *plan = c->plan;
    c->bases = AQ_NEW_ARRAY(c->arena, void *, plan->n_bases);
    c->scratch = AQ_NEW_ARRAY(c->arena, void *, aq_pool_threads(c->pool));
    if (!c->bases || !c->scratch)
        return aq_no_memory(error, sizeof(void *) * (size_t)plan->n_bases);
    c->bases[0] =
        c->room_arena ? c->room->bases[0] : aq_pages(plan->arena_bytes, error);
    for (int i = 1; i < plan->n_bases && !error->status; i++)
        c->bases[i] = aq_memory_array(c->memory, plan->bases[i].name,
                                      plan->bases[i].bytes, error);
    for (int i = 0; i < aq_pool_threads(c->pool) && !error->status; i++)
        c->scratch[i] = c->room_scratch ? c->room->scratch[i]
                                        : aq_pages(c->scratch_each, error);
    return error->status;
}

static AqStatus compile(AqCompiled *c, const AqCompileOptions *options,
                        AqError *error)
{
    AqPlan *plan = c->plan;
    AqId *kernels = AQ_NEW_ARRAY(c->arena, AqId, plan->n_steps);
    if (!kernels)
        return aq_no_memory(error, sizeof(AqId) * (size_t)plan->n_steps);
    int count = 0;
    for (int i = 0; i < plan->n_steps; i++)
        if (plan->steps[i].kernel != AQ_NO_NODE)
            kernels[count++] = plan->steps[i].kernel;
    c->code = aq_compile(c->graph, kernels, count, &c->target, options, error);
    return error->status;
}

/* ---- memory ---- */

static void borrow_room(AqCompiled *c, const AqProgramSettings *settings)
{
    c->room = settings->room;
    c->room_arena =
        c->room && c->room->plan->arena_bytes >= c->plan->arena_bytes;
    c->room_scratch = c->room && c->room->pool == c->pool &&
                      c->room->scratch_each >= c->scratch_each;
}

static bool keeps_anything(const AqCompiled *c)
{
    for (AqId id = 0; id < c->graph->count; id++)
        if (c->needs[id].keep)
            return true;
    return false;
}

static void keep_nothing(AqCompiled *c)
{
    for (AqId id = 0; id < c->graph->count; id++) {
        c->needs[id].keep = false;
        memset(c->once[id], 0, sizeof c->once[id]);
    }
}

/* Keeping saves time alone: without the memory for it, nothing is kept. */
static AqStatus plan_memory(AqCompiled *c, const AqProgramSettings *settings,
                            AqError *error)
{
    c->needs = layouts(c, settings, error);
    c->plan = c->needs ? aq_plan(c->graph, c->needs, error) : NULL;
    if (!c->plan)
        return error->status;
    if (aq_compiled_needed(c) > aq_compiled_limit(c->memory_limit) &&
        keeps_anything(c)) {
        aq_plan_free(c->plan);
        keep_nothing(c);
        c->plan = aq_plan(c->graph, c->needs, error);
    }
    if (!c->plan)
        return error->status;
    borrow_room(c, settings);
    return settings->plan_only ? AQ_OK : aq_compiled_check_memory(c, error);
}

static AqStatus build(AqCompiled *c, const AqGraph *graph,
                      const AqProgramSettings *settings, AqError *error)
{
    c->target = settings->target;
    if (c->target.level == 0 && aq_target_host(0, &c->target, error))
        return error->status;
    c->memory_limit = settings->memory_limit;
    c->room = settings->room;
    const AqBudget budget = {find_needs,
                             c->memory_limit > 0 ? room_of_arena : NULL, c};
    AqPassContext cx = {
        .target = &c->target, .budget = &budget, .error = error};
    c->graph = aq_optimize(graph, &settings->passes, &cx);
    if (!c->graph)
        return error->status;
    if (plan_memory(c, settings, error) || settings->plan_only)
        return error->status;
    if (compile(c, &settings->compile, error) || find_bases(c, error))
        return error->status;
    const AqListed listed = {.graph = c->graph,
                             .plan = c->plan,
                             .code = c->code,
                             .bases = c->bases,
                             .needs = c->needs,
                             .once = (const bool(*)[AQ_MAX_STAGES])c->once,
                             .reads =
                                 (const uint64_t(*)[AQ_MAX_STAGES])c->reads};
    return aq_list_launches(&listed, c->arena, &c->launches, error);
}

AqCompiled *aq_compiled_new(const AqGraph *graph, AqMemory *memory,
                            AqPool *pool, const AqProgramSettings *settings,
                            AqError *error)
{
    AqArena *arena = aq_arena_new();
    AqCompiled *c = arena ? AQ_NEW(arena, AqCompiled) : NULL;
    if (!c) {
        aq_arena_free(arena);
        aq_no_memory(error, sizeof *c);
        return NULL;
    }
    *c = (AqCompiled){.arena = arena, .pool = pool, .memory = memory};
    if (build(c, graph, settings, error) == AQ_OK)
        return c;
    aq_compiled_free(c);
    return NULL;
}

void aq_compiled_free(AqCompiled *c)
{
    if (!c)
        return;
    if (c->bases && !c->room_arena)
        aq_pages_free(c->bases[0], c->plan->arena_bytes);
    for (int i = 0;
         c->scratch && !c->room_scratch && i < aq_pool_threads(c->pool); i++)
        aq_pages_free(c->scratch[i], c->scratch_each);
    aq_code_free(c->code);
    aq_plan_free(c->plan);
    aq_graph_free(c->graph);
    aq_arena_free(c->arena);
}

/* ---- running ---- */

bool aq_compiled_run(AqCompiled *c, const volatile int *stop)
{
    const AqRun *run = c->started ? &c->launches.again : &c->launches.first;
    int before = AQ_MIN(run->first_update, run->count);
    if (!aq_pool_run(c->pool, run->launches, before, c->scratch, stop))
        return false;
    c->started = aq_pool_run(c->pool, run->launches + before,
                             run->count - before, c->scratch, NULL);
    return c->started;
}

void aq_compiled_changed(AqCompiled *c)
{
    c->started = false;
}

int aq_compiled_once(const AqCompiled *c)
{
    return c->launches.first.count - c->launches.again.count;
}

void aq_compiled_profile(AqCompiled *c, double *seconds)
{
    const AqLaunches *all = &c->launches;
    double *each = calloc((size_t)all->count + 1, sizeof *each);
    if (!each)
        return;
    aq_pool_run_timed(c->pool, all->launches, all->count, c->scratch, each);
    for (int i = 0; i < all->count; i++)
        seconds[all->step_of[i]] += each[i];
    free(each);
}

const void *aq_compiled_output(const AqCompiled *c, const char *name)
{
    for (int i = 0; i < c->plan->n_outputs; i++) {
        const AqPlannedOutput *o = &c->plan->outputs[i];
        if (!strcmp(o->name, name))
            return (char *)c->bases[o->buffer.base] + o->buffer.offset;
    }
    return NULL;
}

const AqPlan *aq_compiled_plan(const AqCompiled *c)
{
    return c->plan;
}

const AqGraph *aq_compiled_graph(const AqCompiled *c)
{
    return c->graph;
}

const AqCodeStatistics *aq_compiled_code(const AqCompiled *c)
{
    return aq_code_statistics(c->code);
}
