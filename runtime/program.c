/* A graph becomes a program: optimized, planned, compiled, its launches listed.
 *
 * A launch's buffers are pointers into the program's arena and into arrays
 * shared with other programs; they are resolved once. */
#include "runtime/runtime.h"

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
    void **bases;    /* of the plan */
    void **pointers; /* of the plan's buffers */
    AqLaunch *launches;
    int n_launches;
    int first_update; /* the first launch that writes what lives on */
    int *step_of;     /* launch -> step of the plan */
    void **scratch;
    int64_t scratch_each;
    double flops;
};

/* ---- building ---- */

static AqNeeds *layouts(AqCompiled *c, AqError *error)
{
    AqNeeds *needs = AQ_NEW_ARRAY(c->arena, AqNeeds, c->graph->count);
    if (!needs) {
        aq_no_memory(error, sizeof *needs * (size_t)c->graph->count);
        return NULL;
    }
    for (AqId id = 0; id < c->graph->count; id++) {
        if (aq_node(c->graph, id)->op != AQ_OP_kernel)
            continue;
        AqKernelLayout layout;
        if (aq_kernel_layout(c->graph, id, &c->target, &layout, error))
            return NULL;
        needs[id].workspace = layout.workspace;
        c->scratch_each = AQ_MAX(c->scratch_each, layout.scratch);
    }
    return needs;
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
    return aq_whole_pages(c->plan->arena_bytes) + aq_compiled_scratch(c);
}

/* Arrays that are there already are no new demand. */
static AqStatus check_memory(const AqCompiled *c, int64_t limit, AqError *error)
{
    int64_t needed = aq_compiled_bytes(c);
    for (int i = 1; i < c->plan->n_bases; i++)
        if (!aq_memory_find(c->memory, c->plan->bases[i].name, NULL))
            needed += aq_whole_pages(c->plan->bases[i].bytes);
    bool given = limit > 0;
    if (!given)
        limit = machine_bytes();
    if (needed <= limit)
        return AQ_OK;
    return aq_fail(error, AQ_NO_MEMORY,
                   "the program needs %.1f MiB, and %s %.1f: choose a smaller "
                   "batch, size or model",
                   (double)needed / (1 << 20),
                   given ? "--memory allows" : "this machine has",
                   (double)limit / (1 << 20));
}

static AqStatus find_bases(AqCompiled *c, AqError *error)
{
    AqPlan *plan = c->plan;
    c->bases = AQ_NEW_ARRAY(c->arena, void *, plan->n_bases);
    c->scratch = AQ_NEW_ARRAY(c->arena, void *, aq_pool_threads(c->pool));
    if (!c->bases || !c->scratch)
        return aq_no_memory(error, sizeof(void *) * (size_t)plan->n_bases);
    c->bases[0] = aq_pages(plan->arena_bytes, error);
    for (int i = 1; i < plan->n_bases && !error->status; i++)
        c->bases[i] = aq_memory_array(c->memory, plan->bases[i].name,
                                      plan->bases[i].bytes, error);
    for (int i = 0; i < aq_pool_threads(c->pool) && !error->status; i++)
        c->scratch[i] = aq_pages(c->scratch_each, error);
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

/* ---- copies: tasks of a plain kind ---- */

enum { COPY_TASK = 1 << 18 }; /* bytes */

static void copy_task(const void *closure, void *const *buffers, int64_t first,
                      int64_t last, void *scratch)
{
    (void)scratch;
    int64_t bytes = *(const int64_t *)closure, begin = first * COPY_TASK;
    int64_t end = AQ_MIN(bytes, last * COPY_TASK);
    memmove((char *)buffers[1] + begin, (char *)buffers[0] + begin,
            (size_t)(end - begin));
}

static AqStage copy_stage(const AqStep *step)
{
    return (AqStage){.run = copy_task,
                     .closure = &step->copy_bytes,
                     .tasks = (step->copy_bytes + COPY_TASK - 1) / COPY_TASK};
}

static bool writes_state(const AqCompiled *c, int step)
{
    const AqStep *s = &c->plan->steps[step];
    int inputs =
        s->kernel == AQ_NO_NODE ? 1 : aq_node(c->graph, s->kernel)->n_inputs;
    for (int i = inputs; i < s->count; i++)
        if (c->plan->buffers[s->first + i].base != 0)
            return true;
    return false;
}

static void add_launch(AqCompiled *c, int step, AqStage stage)
{
    c->step_of[c->n_launches] = step;
    c->launches[c->n_launches++] = (AqLaunch){
        .stage = stage, .buffers = c->pointers + c->plan->steps[step].first};
}

static AqStatus list_launches(AqCompiled *c, AqError *error)
{
    AqPlan *plan = c->plan;
    size_t most = (size_t)plan->n_steps * AQ_MAX_STAGES;
    c->launches = AQ_NEW_ARRAY(c->arena, AqLaunch, most);
    c->step_of = AQ_NEW_ARRAY(c->arena, int, most);
    c->pointers = AQ_NEW_ARRAY(c->arena, void *, plan->n_buffers);
    if (!c->launches || !c->step_of || !c->pointers)
        return aq_no_memory(error, most * sizeof(AqLaunch));
    c->first_update = INT32_MAX;
    for (int i = 0, kernel = 0; i < plan->n_steps; i++) {
        const AqStep *step = &plan->steps[i];
        if (writes_state(c, i))
            c->first_update = AQ_MIN(c->first_update, c->n_launches);
        if (step->kernel == AQ_NO_NODE) {
            add_launch(c, i, copy_stage(step));
            continue;
        }
        int n_stages;
        const AqStage *stages = aq_code_stages(c->code, kernel++, &n_stages);
        for (int k = 0; k < n_stages; k++)
            add_launch(c, i, stages[k]);
    }
    return AQ_OK;
}

/* Neighbours of one task each become a chain; it does not reach over the
 * launch before which a run may still be abandoned. */
static void chain_launches(AqCompiled *c)
{
    for (int i = 0; i < c->n_launches;) {
        int end = i;
        while (end < c->n_launches && c->launches[end].stage.tasks == 1 &&
               (end == i || end != c->first_update))
            end++;
        c->launches[i].chain = AQ_MAX(end - i, 1);
        i += c->launches[i].chain;
    }
}

static void resolve(AqCompiled *c)
{
    for (int i = 0; i < c->plan->n_buffers; i++) {
        AqBuffer buffer = c->plan->buffers[i];
        c->pointers[i] = (char *)c->bases[buffer.base] + buffer.offset;
    }
}

static AqStatus build(AqCompiled *c, const AqGraph *graph,
                      const AqProgramSettings *settings, AqError *error)
{
    c->target = settings->target;
    if (c->target.level == 0 && aq_target_host(0, &c->target, error))
        return error->status;
    AqPassContext cx = {.target = &c->target, .error = error};
    c->flops = aq_graph_flops(graph);
    c->graph = aq_optimize(graph, &settings->passes, &cx);
    if (!c->graph)
        return error->status;
    AqNeeds *needs = layouts(c, error);
    if (!needs)
        return error->status;
    c->plan = aq_plan(c->graph, needs, error);
    if (!c->plan || check_memory(c, settings->memory_limit, error) ||
        compile(c, &settings->compile, error) || find_bases(c, error) ||
        list_launches(c, error))
        return error->status;
    chain_launches(c);
    resolve(c);
    return AQ_OK;
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
    if (c->bases)
        aq_pages_free(c->bases[0], c->plan->arena_bytes);
    for (int i = 0; c->scratch && i < aq_pool_threads(c->pool); i++)
        aq_pages_free(c->scratch[i], c->scratch_each);
    aq_code_free(c->code);
    aq_plan_free(c->plan);
    aq_graph_free(c->graph);
    aq_arena_free(c->arena);
}

/* ---- running ---- */

bool aq_compiled_run(AqCompiled *c, const volatile int *stop)
{
    int before = AQ_MIN(c->first_update, c->n_launches);
    if (!aq_pool_run(c->pool, c->launches, before, c->scratch, stop))
        return false;
    return aq_pool_run(c->pool, c->launches + before, c->n_launches - before,
                       c->scratch, NULL);
}

void aq_compiled_profile(AqCompiled *c, double *seconds)
{
    double *each = calloc((size_t)c->n_launches + 1, sizeof *each);
    if (!each)
        return;
    aq_pool_run_timed(c->pool, c->launches, c->n_launches, c->scratch, each);
    for (int i = 0; i < c->n_launches; i++)
        seconds[c->step_of[i]] += each[i];
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

double aq_compiled_flops(const AqCompiled *c)
{
    return c->flops;
}
