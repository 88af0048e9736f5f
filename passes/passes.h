/* Graph in, graph out: gradients, simplification, fusion, the memory plan.
 *
 * A pass reads one graph and builds another; the pipeline is an array of
 * passes.  What comes out of it is a graph of kernels in the order in which
 * they run, and a plan that gives every value its place. */
#ifndef AQ_PASSES_H
#define AQ_PASSES_H

#include "ir/ir.h"

enum { AQ_BLOCK_NUMBERS = 8 }; /* at most, in the attribute `blocks` */

/* How a contraction is computed. */
typedef struct AqChoice {
    uint64_t contraction; /* aq_contraction_hash */
    const char *algorithm;
    int n_blocks; /* 0: as the table says */
    int64_t blocks[AQ_BLOCK_NUMBERS];
} AqChoice;

/* Choices that were measured; they go before the tables. */
typedef struct AqTuning {
    const AqChoice *choices;
    int count;
} AqTuning;

/* What a kernel needs beside its values; codegen says it (aq_kernel_layout). */
typedef struct AqNeeds {
    int64_t workspace; /* bytes shared by its tasks */
    int64_t kept;      /* bytes of a second workspace */
    bool keep;         /* that one keeps its values from run to run */
} AqNeeds;

typedef struct AqPlan AqPlan;

/* What memory a program needs, and how much it may take: who allocates knows
 * what else there is. */
typedef struct AqBudget {
    /* Fills needs[id] of each kernel. */
    AqStatus (*needs)(void *context, const AqGraph *kernels, AqNeeds *needs,
                      AqError *error);
    /* Bytes for the arena, all other memory being that of the plan; NULL: as
     * much as there is. */
    int64_t (*room)(void *context, const AqPlan *plan);
    void *context;
} AqBudget;

typedef struct AqPassContext {
    const AqTarget *target;
    const char *algorithm;  /* wanted wherever it suits; NULL: as tables say */
    const AqTuning *tuning; /* may be NULL */
    const AqBudget *budget; /* NULL: kernels need nothing, room is no matter */
    AqError *error;
} AqPassContext;

/* Builds into `out`, which is empty. */
typedef AqStatus AqPassFn(const AqGraph *in, AqGraph *out, AqPassContext *cx);

/* ---- differentiate.c, gradients*.c ---- */

/* Appends the nodes of d loss / d wrt[i] to the graph.  `loss` is f32 with one
 * element; wrt may be any f32 nodes.  Where loss does not depend on wrt the
 * gradient is a const of zeros. */
AqStatus aq_gradient_nodes(AqGraph *g, AqId loss, const AqId *wrt, int n,
                           AqId *gradients);

/* ---- simplify.c ---- */

/* Folds constants and applies algebraic rules; drops what is not live.
 * Keeps: values of outputs.  Idempotent. */
AqPassFn aq_simplify;

/* ---- split.c ---- */

/* Turns a large reduction with few results into two smaller ones, so that the
 * kept dimensions alone give enough tasks and the order of summation depends on
 * shapes only.  Keeps: values of outputs up to rounding.  Idempotent. */
AqPassFn aq_split;

/* ---- fuse.c, fuse_*.c ---- */

/* Replaces every computation by `kernel` nodes whose bodies hold it.  Beside
 * kernels and their results the graph keeps sources, and reshape and concat
 * where they only name storage. */
AqPassFn aq_fuse;
/* Whether a contraction's kernel may compute that reduction of what it gives:
 * its tasks then offer what split would. */
bool aq_sums_contraction(const AqGraph *g, AqId reduction);

/* ---- choose.c, choose_*.c ---- */

/* Writes on each kernel that is a contraction how it is computed: `algorithm`,
 * and `blocks` where that has them.  What is there already stays.  Keeps:
 * values of outputs.  Idempotent. */
AqPassFn aq_choose;
/* The i-th algorithm that may be asked for, or NULL: there are no more. */
const char *aq_algorithm_name(int i);
/* Of a contraction's kernel and a level of instructions: shapes, and what
 * stands around the product; 0 for any other node. */
uint64_t aq_contraction_hash(const AqNode *kernel, const AqTarget *target);
/* What may be measured for it, at most `most`; the tables' choice first. */
int aq_contraction_choices(const AqNode *kernel, const AqTarget *target,
                           AqChoice *choices, int most);

/* ---- hoist.c, hoist_lift.c ---- */

/* What is known of the runs of a program. */
typedef struct AqRepeat {
    /* inputs and states that keep their values from run to run; "weights" are
     * all params */
    const char *const *fixed;
    int n_fixed;
    const char *number; /* an i32 scalar input: the run's, from 0 on; or NULL */
    int numbers;        /* it stays below */
} AqRepeat;

#define AQ_HOISTED                                                             \
    "hoisted." /* their names begin with it, a number follows                  \
                */

typedef struct AqHoisted {
    AqGraph *prepare; /* updates the states that the step reads */
    AqGraph *step;
    int n_kept;         /* such states; 0: nothing is worth it */
    const char **fixed; /* what is fixed for the step, such states included; */
    int n_fixed;        /* in its arena */
} AqHoisted;

/* Splits a graph into what is computed once and what every run computes; what
 * depends on the run's number is computed once for all numbers, the steps'
 * gather reads it.  Values of outputs stay, up to the rounding of products in
 * larger batches.  What changes the fixed inputs has to run `prepare` again. */
AqStatus aq_hoist(const AqGraph *in, const AqRepeat *repeat, AqHoisted *result,
                  AqError *error);
void aq_hoisted_free(AqHoisted *hoisted);

/* ---- cost.c ---- */

/* What a machine can do, all threads together. */
typedef struct AqSpeed {
    double flops;  /* fused multiply-adds, two operations each, a second */
    double bytes;  /* of memory, read or written, a second */
    double launch; /* seconds from one kernel to the next */
} AqSpeed;

/* That of a middling machine of two cores: fixed, for choices. */
AqSpeed aq_speed_of(const AqTarget *target);
/* About how long a kernel takes. */
double aq_kernel_seconds(const AqGraph *graph, AqId kernel,
                         const AqSpeed *speed);

/* ---- order.c ---- */

/* Puts kernels off whose results would take room for long, where less memory is
 * alive at once then.  Keeps: values of outputs, to the bit.  Idempotent. */
AqPassFn aq_order;

/* ---- recompute.c, recompute_rehearse.c ---- */

/* Drops values and computes them again where they are needed, until the arena
 * fits into the budget at the least cost in time; where it cannot, it becomes
 * as small as can be.  What is computed again has a copy number.
 * Keeps: values of outputs, to the bit. */
AqPassFn aq_recompute;

/* ---- pipeline.c ---- */

typedef struct AqPass {
    const char *name;
    AqPassFn *run;
    const char *why; /* why it stands there */
} AqPass;

extern const AqPass aq_pipeline[];
extern const int aq_pipeline_count;

typedef struct AqPipelineOptions {
    bool verify; /* evaluate before and after each pass, and compare */
    const char *algorithm; /* for the passes' context */
    const AqTuning *tuning;
    AqPassFn *until; /* the pass before which it ends; NULL: all run */
    /* called after each pass, and once before the first with "input" */
    void (*after)(void *context, const char *pass, const AqGraph *graph,
                  double seconds);
    void *context;
} AqPipelineOptions;

/* The graph of kernels, or NULL.  `options` may be NULL. */
AqGraph *aq_optimize(const AqGraph *graph, const AqPipelineOptions *options,
                     AqPassContext *cx);
/* What `verify` would take, estimated: above the limit it is refused. */
enum { AQ_VERIFY_SECONDS = 60 };
double aq_verify_seconds(const AqGraph *graph);
/* The pass of that name, or NULL. */
const AqPass *aq_pass_named(const char *name);

/* ---- plan.c ---- */

/* Memory that a program works on: base 0 is the arena of activations, the
 * others are the inputs, `weights` and the states, which the caller keeps. */
typedef struct AqBase {
    const char *name; /* "" for the arena */
    int64_t bytes;
    bool state;   /* kept from run to run */
    bool written; /* updated by the program */
} AqBase;

typedef struct AqBuffer {
    int base;
    int64_t offset; /* bytes */
} AqBuffer;

typedef struct AqStep {
    AqId kernel;      /* AQ_NO_NODE: copy buffers[0] to buffers[1] */
    int first, count; /* in `buffers`: inputs, results, workspaces if any */
    int64_t copy_bytes;
} AqStep;

typedef struct AqPlannedOutput {
    const char *name;
    AqType type;
    AqBuffer buffer;
} AqPlannedOutput;

struct AqPlan {
    AqArena *arena;
    const AqGraph *graph;
    AqBase *bases;
    int n_bases;
    AqStep *steps;
    int n_steps;
    AqBuffer *buffers;
    int n_buffers;
    AqPlannedOutput *outputs; /* those that are no updates */
    int n_outputs;
    int64_t arena_bytes; /* what base 0 needs */
    int64_t live_bytes;  /* the largest sum of values alive at once */
};

/* What is taken in the arena for so many bytes: lines of the cache are whole.
 */
static inline int64_t aq_padded(int64_t bytes)
{
    return (bytes + 63) / 64 * 64;
}

/* Places the values of a graph of kernels.  needs[id] belongs to kernel node
 * id.  The graph must outlive the plan. */
AqPlan *aq_plan(const AqGraph *graph, const AqNeeds *needs, AqError *error);
void aq_plan_free(AqPlan *plan);
int aq_plan_base(const AqPlan *plan, const char *name); /* -1 if not there */

#endif
