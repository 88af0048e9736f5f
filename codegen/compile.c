/* From kernel nodes to stages: plan, compile the distinct units in parallel or
 * take them from the cache, link. */
#include "codegen/emit.h"

#include <malloc.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

enum { NO_UNIT = -1, MOST_LINKS = 24, NAME_BYTES = 64 };

typedef struct Unit {
    char name[NAME_BYTES];
    const char *kind;
    AqHash hash;
    AqText key; /* kind and all that the code depends on */
    AqUnitEmit *emit;
    const void *context;
    char *object; /* malloc'd */
    size_t bytes;
    bool cached, rejected;
    int compiled; /* times that LLVM compiled it */
    AqError error;
    /* of leaves, which are compiled under a name of no numbers: */
    bool leaf, emitted;
    bool again; /* compiled with its numbers, after all */
    char shared_name[NAME_BYTES];
    AqHash shared; /* what is left of the module without its numbers */
    int like;      /* the leaf that was compiled from the same, or itself */
    AqNumbers numbers;
} Unit;

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
    AqText identity;
    Unit *units;
    int n_units, capacity;
    Kernel *kernels;
    Kernel *kernel; /* being planned */
    const AqTarget *target;
    const AqCompileOptions *options;
    AqCache *cache;
    AqMachines *machines;
    pthread_mutex_t leaves; /* around what tells equal ones */
    int *order;             /* in which units are compiled */
    bool originals;         /* are filled now, after their copies */
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

static bool grow_units(AqCodePlan *plan)
{
    if (plan->n_units < plan->capacity)
        return true;
    int capacity = AQ_MAX(64, 2 * plan->capacity);
    Unit *units = realloc(plan->units, (size_t)capacity * sizeof *units);
    if (!units)
        return false;
    plan->units = units;
    plan->capacity = capacity;
    return true;
}

static int find_unit(const AqCodePlan *plan, AqHash hash)
{
    for (int i = 0; i < plan->n_units; i++)
        if (plan->units[i].hash.high == hash.high &&
            plan->units[i].hash.low == hash.low)
            return i;
    return NO_UNIT;
}

int aq_code_plan_unit(AqCodePlan *plan, const char *kind, const void *key,
                      size_t bytes, AqUnitEmit *emit, const void *context)
{
    Unit unit = {.kind = kind, .emit = emit, .context = context};
    aq_text_printf(&unit.key, "%s%s\n", plan->identity.data, kind);
    aq_text_bytes(&unit.key, key, bytes);
    if (unit.key.failed || !grow_units(plan)) {
        aq_text_free(&unit.key);
        return NO_UNIT;
    }
    unit.hash = aq_hash128(unit.key.data, unit.key.length);
    int old = find_unit(plan, unit.hash);
    if (old != NO_UNIT) {
        aq_text_free(&unit.key);
        return old;
    }
    snprintf(unit.name, sizeof unit.name, "%.40s_%016llx", kind,
             (unsigned long long)unit.hash.low);
    plan->units[plan->n_units] = unit;
    return plan->n_units++;
}

int aq_code_plan_leaf(AqCodePlan *plan, const char *kind, const void *key,
                      size_t bytes, AqUnitEmit *emit, const void *context)
{
    int unit = aq_code_plan_unit(plan, kind, key, bytes, emit, context);
    if (unit == NO_UNIT)
        return NO_UNIT;
    Unit *leaf = &plan->units[unit];
    leaf->leaf = true;
    leaf->like = unit;
    if (plan->options->dump_dir) /* each to be seen, so that none is shared */
        memcpy(leaf->shared_name, leaf->name, sizeof leaf->name);
    else
        snprintf(leaf->shared_name, sizeof leaf->shared_name, "%.40s_%016d",
                 kind, 0);
    return unit;
}

static AqStatus add_stage(AqCodePlan *plan, AqTaskFn *run, int unit,
                          const void *closure, size_t bytes)
{
    Kernel *kernel = plan->kernel;
    if (kernel->n_stages == AQ_MAX_STAGES || (!run && unit == NO_UNIT))
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
    return add_stage(plan, run, NO_UNIT, closure, closure_bytes);
}

AqStatus aq_code_plan_link(AqCodePlan *plan, size_t offset, int unit)
{
    Kernel *kernel = plan->kernel;
    if (kernel->n_stages == 0 || unit == NO_UNIT)
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
    if (aq_kernel_of(graph, id, plan->target, &kernel, error))
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

/* ---- compiling: runs on any thread ---- */

/* Whether another leaf is compiled from the same module; else this one is. */
static bool is_shared(AqCodePlan *plan, Unit *unit, const AqEmit *e)
{
    unit->shared = aq_module_hash(e);
    pthread_mutex_lock(&plan->leaves);
    unit->emitted = true;
    for (int i = 0; i < plan->n_units; i++) {
        const Unit *other = &plan->units[i];
        if (other != unit && other->emitted && other->like == i &&
            other->shared.high == unit->shared.high &&
            other->shared.low == unit->shared.low)
            unit->like = i;
    }
    pthread_mutex_unlock(&plan->leaves);
    return &plan->units[unit->like] != unit;
}

static void emit_unit(AqCodePlan *plan, Unit *unit)
{
    bool shares = unit->leaf && !unit->again;
    AqEmit e = {.name = shares ? unit->shared_name : unit->name,
                .unit = unit->name,
                .target = plan->target,
                .arena = aq_arena_new(),
                .error = &unit->error};
    if (!e.arena) {
        aq_no_memory(&unit->error, 0);
        return;
    }
    aq_emit_begin(&e);
    AqStatus status = unit->emit(&e, unit->context);
    if (status)
        aq_fail(&unit->error, status, "kernel %s cannot be emitted",
                unit->name);
    if (!unit->error.status && shares)
        aq_numbers_hide(&e, &unit->numbers);
    if (!unit->error.status && !(shares && is_shared(plan, unit, &e))) {
        unit->compiled++;
        aq_object_make(&e, plan->machines, plan->options->dump_dir,
                       &unit->object, &unit->bytes);
    }
    aq_emit_end(&e);
    aq_arena_free(e.arena);
}

static void make_unit(void *context, int index)
{
    AqCodePlan *plan = context;
    Unit *unit = &plan->units[plan->order[index]];
    unit->cached = aq_cache_get(plan->cache, &unit->key, &unit->object,
                                &unit->bytes, &unit->rejected);
    if (unit->cached)
        return;
    emit_unit(plan, unit);
    if (unit->object && !unit->leaf)
        aq_cache_put(plan->cache, &unit->key, unit->object, unit->bytes);
}

static void copy_object(Unit *unit, const Unit *like)
{
    unit->object = malloc(like->bytes);
    unit->bytes = like->bytes;
    if (unit->object)
        memcpy(unit->object, like->object, like->bytes);
    else
        aq_no_memory(&unit->error, like->bytes);
}

/* A leaf's own object: made of the one that was compiled, or becoming it. */
static void fill_leaf(void *context, int index)
{
    AqCodePlan *plan = context;
    Unit *unit = &plan->units[index];
    const Unit *like = &plan->units[unit->like];
    if (!unit->leaf || unit->cached || (unit == like) != plan->originals)
        return;
    if (!like->object)
        unit->error = like->error;
    else if (unit != like)
        copy_object(unit, like);
    if (unit->object && !aq_numbers_fill(unit->object, &unit->numbers,
                                         unit->shared_name, unit->name)) {
        free(unit->object);
        unit->object = NULL;
        unit->again = true; /* with its numbers, as others are */
        emit_unit(plan, unit);
    }
    if (unit->object)
        aq_cache_put(plan->cache, &unit->key, unit->object, unit->bytes);
}

/* Bodies differ most among maps, and a long body is a long key; the other kinds
 * are written out by hand, under short keys, and some are long. */
static int by_length(const void *a, const void *b, void *context)
{
    const Unit *units = context;
    const Unit *x = &units[*(const int *)a], *y = &units[*(const int *)b];
    bool map_x = !strcmp(x->kind, "map"), map_y = !strcmp(y->kind, "map");
    if (map_x != map_y)
        return map_x - map_y;
    return (x->key.length < y->key.length) - (x->key.length > y->key.length);
}

/* Long units first, so that no thread begins one when the others are done. */
static AqStatus compile_units(AqCodePlan *plan, AqError *error)
{
    plan->order = AQ_NEW_ARRAY(plan->arena, int, AQ_MAX(plan->n_units, 1));
    if (!plan->order)
        return aq_no_memory(error, (size_t)plan->n_units * sizeof(int));
    for (int i = 0; i < plan->n_units; i++)
        plan->order[i] = i;
    qsort_r(plan->order, (size_t)plan->n_units, sizeof *plan->order, by_length,
            plan->units);
    plan->machines = aq_machines_new(error);
    if (!plan->machines)
        return error->status;
    int threads =
        plan->options->threads > 0 ? plan->options->threads : aq_cpu_count();
    pthread_mutex_init(&plan->leaves, NULL);
    aq_parallel(threads, plan->n_units, make_unit, plan);
    pthread_mutex_destroy(&plan->leaves);
    for (int i = 0; i < 2; i++) {
        plan->originals = i;
        aq_parallel(threads, plan->n_units, fill_leaf, plan);
    }
    aq_machines_free(plan->machines);
    return AQ_OK;
}

/* ---- linking ---- */

static AqStatus add_objects(AqCodePlan *plan, AqCode *code, AqError *error)
{
    AqCodeStatistics *statistics = &code->statistics;
    for (int i = 0; i < plan->n_units; i++) {
        Unit *unit = &plan->units[i];
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
    size_t n = (size_t)AQ_MAX(plan->n_units, 1);
    const char **names = AQ_NEW_ARRAY(code->arena, const char *, n);
    uint64_t *addresses = AQ_NEW_ARRAY(code->arena, uint64_t, n);
    if (!names || !addresses)
        return aq_no_memory(error, n * sizeof *names);
    code->jit = aq_jit_new(error);
    if (!code->jit || add_objects(plan, code, error))
        return error->status;
    for (int i = 0; i < plan->n_units; i++)
        names[i] = plan->units[i].name;
    if (plan->n_units > 0 &&
        aq_jit_find(code->jit, names, plan->n_units, addresses, error))
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
    aq_build_identity(&plan->identity);
    aq_object_identity(plan->target, &plan->identity);
    if (plan->identity.failed)
        return aq_no_memory(error, plan->identity.length);
    for (int i = 0; i < count; i++)
        if (plan_kernel(plan, graph, kernels[i], &plan->kernels[i], error))
            return error->status;
    const AqCompileOptions *options = plan->options;
    if (options->dump_dir && aq_make_folders(options->dump_dir, error))
        return error->status;
    if (!options->no_cache && !options->dump_dir)
        plan->cache = aq_cache_open(options->cache_dir, code->arena);
    if (compile_units(plan, error))
        return error->status;
    return link_units(plan, code, count, error);
}

static void free_plan(AqCodePlan *plan)
{
    for (int i = 0; i < plan->n_units; i++) {
        aq_text_free(&plan->units[i].key);
        free(plan->units[i].object);
    }
    free(plan->units);
    aq_graph_free(plan->parts);
    aq_text_free(&plan->identity);
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
                       .target = target,
                       .options = options ? options : &defaults};
    compile(&plan, code, graph, kernels, count, &own);
    free_plan(&plan);
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
