/* Programs and how they run: threads, memory that lives from step to step,
 * compiled graphs.
 *
 * Rules.  What is computed never depends on the number of threads: tasks come
 * from shapes, and any thread may run any of them.  Nothing is interpreted or
 * allocated in a step. */
#ifndef AQ_RUNTIME_H
#define AQ_RUNTIME_H

#include "codegen/codegen.h"
#include "passes/passes.h"

/* ---- pool.c: threads that run stages together ---- */

typedef struct AqPool AqPool;

typedef struct AqPoolOptions {
    int threads;     /* 0: as many as there are processors */
    bool reversed;   /* tasks from the last to the first (tests) */
    uint32_t delays; /* not 0: random pauses in tasks, with this seed (tests) */
} AqPoolOptions;

/* Fewer threads where the system refuses some; NULL when memory ends.  Every
 * thread flushes denormals (FTZ, DAZ). */
AqPool *aq_pool_new(const AqPoolOptions *options, AqError *error);
void aq_pool_free(AqPool *pool);
int aq_pool_threads(const AqPool *pool);

/* One stage of one kernel, its buffers resolved. */
typedef struct AqLaunch {
    AqStage stage;
    void *const *buffers;
    int chain; /* this and the next chain - 1 launches have one task each: one
                * thread runs them all, in order; 0 as 1 */
    int group; /* so many launches from this one on, whole chains, run side by
                * side, in any order; 0: the chain alone */
} AqLaunch;

/* Runs groups of launches in order, all threads on each, a barrier between
 * them.
 * scratch[i] belongs to thread i.  Stops before the next group once *stop is
 * not 0 (may be NULL) and then returns false. */
bool aq_pool_run(AqPool *pool, const AqLaunch *launches, int count,
                 void *const *scratch, const volatile int *stop);
/* Seconds of each group, for profiles: seconds[count], added to where its
 * first launch stands. */
void aq_pool_run_timed(AqPool *pool, const AqLaunch *launches, int count,
                       void *const *scratch, double *seconds);

/* ---- schedule.c: launches that may run side by side ---- */

/* Bytes that a launch reads or writes. */
typedef struct AqTouch {
    const char *begin;
    int64_t bytes;
    bool written;
} AqTouch;

typedef struct AqTouches {
    const AqTouch *touch;
    int count;
} AqTouches;

/* Launches without chains and groups, in an order in which they may run, become
 * groups (out[count]) of those that do not depend on each other.  Launch *fence
 * and what follows stay behind all that is before it (fence >= count: there is
 * none); *fence becomes the place of the first of them. */
AqStatus aq_schedule(const AqLaunch *launches, const AqTouches *touches,
                     int count, int *fence, AqLaunch *out, AqError *error);

/* ---- launches.c: what a program launches ---- */

/* By node, where not said otherwise. */
typedef struct AqListed {
    const AqGraph *graph; /* of kernels */
    const AqPlan *plan;
    const AqCode *code;
    void *const *bases; /* of the plan */
    const AqNeeds *needs;
    const bool (*once)[AQ_MAX_STAGES];      /* not in later runs */
    const uint64_t (*reads)[AQ_MAX_STAGES]; /* of AqKernelLayout */
} AqListed;

/* One run, in groups. */
typedef struct AqRun {
    AqLaunch *launches;
    int count;
    int first_update; /* the first launch that may write what lives on */
} AqRun;

typedef struct AqLaunches {
    AqLaunch *launches; /* one after the other, no groups */
    int *step_of;       /* of each: the plan's step */
    int count;
    AqRun first, again; /* the first run, and all others */
} AqLaunches;

/* All of it lies in the arena. */
AqStatus aq_list_launches(const AqListed *listed, AqArena *arena,
                          AqLaunches *launches, AqError *error);

/* ---- peak.c: what this machine can do, measured now ---- */

/* Fused multiply-adds from registers, two operations each, on `threads` threads
 * at an instruction-set level: operations a second. */
double aq_measure_fma_peak(int threads, int level);
/* a[i] = b[i] + s c[i] over arrays far beyond the caches of one core, 12 bytes
 * an element (McCalpin's stream triad): bytes a second; 0 when memory ends. */
double aq_measure_triad(int threads);
int64_t aq_peak_rss(void); /* largest resident set of this process, bytes */

/* ---- memory.c: arrays that programs share, by name ---- */

typedef struct AqMemory AqMemory;

AqMemory *aq_memory_new(AqError *error);
void aq_memory_free(AqMemory *memory);
/* The array of that name, made and zeroed if it is new; NULL with an error if
 * it is smaller, or memory ends. */
void *aq_memory_array(AqMemory *memory, const char *name, int64_t bytes,
                      AqError *error);
/* The same for a program that is yet to come: until it takes the array, this is
 * a new one, which it has need of. */
void *aq_memory_ahead(AqMemory *memory, const char *name, int64_t bytes,
                      AqError *error);
bool aq_memory_is_new(const AqMemory *memory, const char *name);
/* `name` here is the array `from_name` of another memory, which must live
 * longer: sampling reads the training's average as its weights. */
AqStatus aq_memory_share(AqMemory *memory, const char *name,
                         const AqMemory *from, const char *from_name,
                         AqError *error);
/* NULL if there is none. */
void *aq_memory_find(const AqMemory *memory, const char *name, int64_t *bytes);
int64_t aq_memory_bytes(const AqMemory *memory);
/* Whole pages, huge where the system likes; zeroed.  aq_pages_free. */
void *aq_pages(int64_t bytes, AqError *error);
void aq_pages_free(void *pages, int64_t bytes);
int64_t aq_whole_pages(int64_t bytes);  /* what is taken for so many */
int64_t aq_pages_within(int64_t bytes); /* the most that takes no more */

/* ---- program.c: a graph, compiled ---- */

typedef struct AqCompiled AqCompiled;

typedef struct AqProgramSettings {
    AqTarget target; /* level 0: this processor's */
    AqCompileOptions compile;
    AqPipelineOptions passes;
    int64_t memory_limit; /* for what is new; 0: what the machine has */
    /* Inputs and states that keep their values from run to run ("weights": all
     * params): stages of kernels that read these alone run once, where memory
     * allows. */
    const char *const *fixed;
    int n_fixed;
    bool frugal; /* no memory is spent on that: all stages run every time */
    /* Never runs at the same time: where its arena and scratch are large
     * enough they serve for both.  It lives longer. */
    AqCompiled *room;
    bool plan_only; /* what it takes is known, but it cannot run; no budget is
                     * enforced */
} AqProgramSettings;

/* Optimizes, plans and compiles.  States and inputs are arrays of `memory`
 * (shared with other programs), scratch is for `pool`. */
AqCompiled *aq_compiled_new(const AqGraph *graph, AqMemory *memory,
                            AqPool *pool, const AqProgramSettings *settings,
                            AqError *error);
void aq_compiled_free(AqCompiled *program);
/* One run.  false: *stop (may be NULL) was set before the first state would
 * have been written, and nothing that lives on was changed; once writing has
 * begun the run is finished. */
bool aq_compiled_run(AqCompiled *program, const volatile int *stop);
/* What is fixed has changed: the next run is the first again. */
void aq_compiled_changed(AqCompiled *program);
const void *aq_compiled_output(const AqCompiled *program, const char *name);
const AqPlan *aq_compiled_plan(const AqCompiled *program);
const AqCodeStatistics *aq_compiled_code(const AqCompiled *program);
int64_t aq_compiled_scratch(const AqCompiled *program); /* of all threads */
int64_t aq_compiled_bytes(const AqCompiled *program);   /* scratch and arena */
/* Those and the arrays of `memory` that were not there (before it compiles). */
int64_t aq_compiled_needed(const AqCompiled *program);
/* The bytes that a budget allows; 0, no budget: those of the machine. */
int64_t aq_compiled_limit(int64_t memory_limit);
/* AQ_NO_MEMORY if more is needed: asked of a program that is planned only (what
 * is compiled was asked). */
AqStatus aq_compiled_check_memory(const AqCompiled *program, AqError *error);
/* Kernel by kernel, for profiles: the graph of kernels, and for each of the
 * plan's steps the seconds that one more run takes. */
const AqGraph *aq_compiled_graph(const AqCompiled *program);
void aq_compiled_profile(AqCompiled *program, double *seconds);
int aq_compiled_once(const AqCompiled *program); /* stages that run once */

/* ---- repeat.c: what keeps its values is computed once ---- */

typedef struct AqRepeated AqRepeated;

/* A graph that is run again and again, split by aq_hoist.  Of the settings,
 * `fixed` is its own; with `room` it is frugal.  The hoisted arrays lie in
 * `memory`, which serves one such program. */
AqRepeated *aq_repeated_new(const AqGraph *graph, const AqRepeat *repeat,
                            AqMemory *memory, AqPool *pool,
                            const AqProgramSettings *settings, AqError *error);
void aq_repeated_free(AqRepeated *program);
/* As aq_compiled_run; what is fixed must be there by the first run. */
bool aq_repeated_run(AqRepeated *program, const volatile int *stop);
/* What is fixed has changed: it is prepared again by the next run. */
void aq_repeated_changed(AqRepeated *program);
AqCompiled *aq_repeated_step(AqRepeated *program);
const AqCompiled *aq_repeated_prepare(const AqRepeated *program); /* or NULL */
int64_t aq_repeated_bytes(const AqRepeated *program); /* scratch and arenas */

/* ---- tune.c: choices that are measured ---- */

typedef struct AqTuneOptions {
    /* called with a sentence for each contraction; may be NULL */
    void (*tell)(void *context, const char *sentence);
    void *context;
} AqTuneOptions;

/* Measures the candidates for every distinct contraction of a program on the
 * pool; the choices are kept in the arena. */
AqStatus aq_tune(const AqGraph *graph, AqPool *pool,
                 const AqProgramSettings *settings,
                 const AqTuneOptions *options, AqArena *arena, AqTuning *tuning,
                 AqError *error);

#endif
