/* From kernel nodes to stages: plan, let the units be compiled, link. */
#include "codegen/units.h"

#include <malloc.h>
#include <string.h>

enum { MOST_LINKS = 24 };

typedef struct Link {
    size_t offset;
    int unit;
} Link;

typedef struct Stage {
    AqTaskFn *run; /* a driver in C, or NULL: the unit */
    int unit, n_links;
    void *closure;
    Link links[MOST_LINKS];
} Stage;

typedef struct Kernel {
    AqKernelLayout layout;
    Stage stages[AQ_MAX_STAGES];
    int n_stages;
} Kernel;

struct AqCodePlan {
    AqArena *arena; /* lives as long as the code */
    AqGraph *parts; /* what leaves are compiled from lies in its arena */
    AqUnits units;
    Kernel *kernels;
    Kernel *kernel; /* being planned */
};

struct AqCode {
    AqArena *arena;
    AqJit *jit;
    AqStage (*stages)[AQ_MAX_STAGES];
    int *n_stages;
    AqCodeStatistics statistics;
};

/* ---- planning ---- */

AqArena *aq_code_plan_arena(AqCodePlan *plan)
{
    return plan->arena;
}

AqGraph *aq_code_plan_graph(AqCodePlan *plan)
{
    if (!plan->parts)
        plan->parts = aq_graph_new();
    return plan->parts ? aq_graph_body(plan->parts) : NULL;
}

int aq_code_plan_unit(AqCodePlan *plan, const char *kind, const void *key,
                      size_t bytes, AqUnitEmit *emit, const void *context)
{
    return aq_units_add(&plan->units, kind, key, bytes, emit, context);
}

int aq_code_plan_leaf(AqCodePlan *plan, const char *kind, const void *key,
                      size_t bytes, AqUnitEmit *emit, const void *context)
{
    return aq_units_add_leaf(&plan->units, kind, key, bytes, emit, context);
}

static AqStatus add_stage(AqCodePlan *plan, AqTaskFn *run, int unit,
                          const void *closure, size_t bytes)
{
    Kernel *kernel = plan->kernel;
    if (kernel->n_stages == AQ_MAX_STAGES || (!run && unit == AQ_NO_UNIT))
        return AQ_INTERNAL;
    Stage *stage = &kernel->stages[kernel->n_stages];
    *stage = (Stage){.run = run, .unit = unit};
    if (bytes > 0) {
        stage->closure = aq_arena_copy(plan->arena, closure, bytes);
        if (!stage->closure)
            return AQ_NO_MEMORY;
    }
    kernel->n_stages++;
    return AQ_OK;
}

AqStatus aq_code_plan_stage(AqCodePlan *plan, int unit, const void *closure,
                            size_t closure_bytes)
{
    return add_stage(plan, NULL, unit, closure, closure_bytes);
}

AqStatus aq_code_plan_c_stage(AqCodePlan *plan, AqTaskFn *run,
                              const void *closure, size_t closure_bytes)
{
    return add_stage(plan, run, AQ_NO_UNIT, closure, closure_bytes);
}

AqStatus aq_code_plan_link(AqCodePlan *plan, size_t offset, int unit)
{
    Kernel *kernel = plan->kernel;
    if (kernel->n_stages == 0 || unit == AQ_NO_UNIT)
        return AQ_INTERNAL;
    Stage *stage = &kernel->stages[kernel->n_stages - 1];
    if (stage->n_links == MOST_LINKS)
        return AQ_INTERNAL;
    stage->links[stage->n_links++] = (Link){offset, unit};
    return AQ_OK;
}

static AqStatus plan_kernel(AqCodePlan *plan, const AqGraph *graph, AqId id,
                            Kernel *planned, AqError *error)
{
    AqKernel kernel;
    if (aq_kernel_of(graph, id, plan->units.target, &kernel, error))
        return error->status;
    const AqKernelKind *kind = aq_kernel_kind(&kernel, error);
    if (!kind || kind->layout(&kernel, &planned->layout, error))
        return error->status;
    plan->kernel = planned;
    AqStatus status = kind->plan(plan, &kernel, error);
    if (status)
        return aq_fail(error, status, "%s:%d: kernel %%%d cannot be planned",
                       kernel.node->file, kernel.node->line, id);
    if (planned->n_stages != planned->layout.n_stages)
        return aq_fail(error, AQ_INTERNAL,
                       "kernel %%%d has %d stages, its layout says %d", id,
                       planned->n_stages, planned->layout.n_stages);
    return error->status;
}

/* ---- linking ---- */

static AqStatus add_objects(const AqUnits *units, AqCode *code, AqError *error)
{
    AqCodeStatistics *statistics = &code->statistics;
    for (int i = 0; i < units->count; i++) {
        const AqUnit *unit = &units->at[i];
        if (unit->error.status)
            return aq_fail(error, unit->error.status, "%s", unit->error.text);
        if (aq_jit_add(code->jit, unit->object, unit->bytes, error))
            return error->status;
        statistics->units++;
        statistics->from_cache += unit->cached;
        statistics->compiled += unit->compiled;
        statistics->again += unit->again;
        statistics->rejected += unit->rejected;
        statistics->bytes += unit->bytes;
    }
    return AQ_OK;
}

static void fill_stages(const AqCodePlan *plan, AqCode *code, int count,
                        const uint64_t *addresses)
{
    for (int k = 0; k < count; k++) {
        Kernel *kernel = &plan->kernels[k];
        code->n_stages[k] = kernel->n_stages;
        for (int s = 0; s < kernel->n_stages; s++) {
            Stage *stage = &kernel->stages[s];
            for (int l = 0; l < stage->n_links; l++) {
                uint64_t address = addresses[stage->links[l].unit];
                memcpy((char *)stage->closure + stage->links[l].offset,
                       &address, sizeof address);
            }
            AqTaskFn *run = stage->run;
            if (!run)
                run = (AqTaskFn *)(uintptr_t)addresses[stage->unit];
            code->stages[k][s] =
                (AqStage){run, stage->closure, kernel->layout.tasks[s]};
        }
    }
}

static AqStatus link_units(AqCodePlan *plan, AqCode *code, int count,
                           AqError *error)
{
    const AqUnits *units = &plan->units;
    size_t n = (size_t)AQ_MAX(units->count, 1);
    const char **names = AQ_NEW_ARRAY(code->arena, const char *, n);
    uint64_t *addresses = AQ_NEW_ARRAY(code->arena, uint64_t, n);
    if (!names || !addresses)
        return aq_no_memory(error, n * sizeof *names);
    code->jit = aq_jit_new(error);
    if (!code->jit || add_objects(units, code, error))
        return error->status;
    for (int i = 0; i < units->count; i++)
        names[i] = units->at[i].name;
    if (units->count > 0 &&
        aq_jit_find(code->jit, names, units->count, addresses, error))
        return error->status;
    fill_stages(plan, code, count, addresses);
    return AQ_OK;
}

/* ---- the whole ---- */

static AqStatus compile(AqCodePlan *plan, AqCode *code, const AqGraph *graph,
                        const AqId *kernels, int count, AqError *error)
{
    size_t n = (size_t)AQ_MAX(count, 1);
    code->stages = aq_arena_array(code->arena, n, sizeof *code->stages);
    code->n_stages = AQ_NEW_ARRAY(code->arena, int, n);
    plan->kernels = AQ_NEW_ARRAY(code->arena, Kernel, n);
    if (!code->stages || !code->n_stages || !plan->kernels)
        return aq_no_memory(error, n * sizeof *plan->kernels);
    if (aq_units_begin(&plan->units, error))
        return error->status;
    for (int i = 0; i < count; i++)
        if (plan_kernel(plan, graph, kernels[i], &plan->kernels[i], error))
            return error->status;
    if (aq_units_compile(&plan->units, error))
        return error->status;
    return link_units(plan, code, count, error);
}

AqCode *aq_compile(const AqGraph *graph, const AqId *kernels, int count,
                   const AqTarget *target, const AqCompileOptions *options,
                   AqError *error)
{
    static const AqCompileOptions defaults = {0};
    double start = aq_seconds();
    AqError own = {0};
    AqArena *arena = aq_arena_new();
    AqCode *code = arena ? AQ_NEW(arena, AqCode) : NULL;
    if (!code) {
        aq_arena_free(arena);
        aq_no_memory(error, sizeof *code);
        return NULL;
    }
    code->arena = arena;
    AqCodePlan plan = {.arena = arena,
                       .units = {.arena = arena,
                                 .target = target,
                                 .options = options ? options : &defaults}};
    compile(&plan, code, graph, kernels, count, &own);
    aq_units_free(&plan.units);
    aq_graph_free(plan.parts);
    malloc_trim(0); /* what LLVM freed, before a step touches its arrays */
    aq_llvm_rest();
    code->statistics.kernels = count;
    code->statistics.seconds = aq_seconds() - start;
    if (own.status) {
        aq_fail(error, own.status, "%s", own.text);
        aq_code_free(code);
        return NULL;
    }
    return code;
}

const AqStage *aq_code_stages(const AqCode *code, int i, int *n_stages)
{
    *n_stages = code->n_stages[i];
    return code->stages[i];
}

const AqCodeStatistics *aq_code_statistics(const AqCode *code)
{
    return &code->statistics;
}

void aq_code_free(AqCode *code)
{
    if (!code)
        return;
    aq_jit_free(code->jit);
    aq_arena_free(code->arena);
}
