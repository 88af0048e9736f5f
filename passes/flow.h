/* Private: a graph of kernels as steps and values, for passes that decide when
 * a kernel runs.
 *
 * A step is a kernel, numbered as they stand in the graph; a value is a result
 * of one.  What a kernel reads through reshapes and concats are the values
 * behind them; sources are no values. */
#ifndef AQ_FLOW_H
#define AQ_FLOW_H

#include "passes/passes.h"

typedef struct AqFlowValue {
    AqId node; /* the result */
    int step;
    int64_t bytes;         /* of the arena; 0 where it is a state's new value */
    bool kept;             /* never dropped: see flow.c */
    int first_use, n_uses; /* in `uses`: steps, ascending */
} AqFlowValue;

typedef struct AqFlowStep {
    AqId kernel;
    int first_input, n_inputs; /* in `inputs`: values, each once */
    int first_value, n_values; /* its results, in `values` */
    int64_t workspace;
    double seconds;
} AqFlowStep;

typedef struct AqFlow {
    const AqGraph *g;
    AqFlowStep *steps;
    int n_steps;
    AqFlowValue *values;
    int n_values;
    int *inputs, *uses;
    int n_uses;
} AqFlow;

/* In `arena`; NULL when memory ends.  needs[id] belongs to kernel node id. */
AqFlow *aq_flow(const AqGraph *graph, const AqNeeds *needs,
                const AqSpeed *speed, AqArena *arena);

/* ---- order.c ---- */

/* The same steps in another order: each as late as its results allow, where
 * these take more than `percent` of the bytes that are kept alive for it. */
AqFlow *aq_put_off(const AqFlow *flow, int percent, AqArena *arena);
/* The most bytes alive at once; -1 when memory ends. */
int64_t aq_flow_live(const AqFlow *flow, AqArena *arena);

/* ---- flow_write.c ---- */

/* A step that runs, and which of its results are new (bit i: result i); the
 * others are there already. */
typedef struct AqEvaluation {
    int step;
    uint32_t adopted;
} AqEvaluation;

typedef struct AqScript {
    AqEvaluation *evaluations;
    int count, most;
    double again;    /* seconds of evaluations that are not the first */
    double bearable; /* with more of them it is given up */
    int64_t live; /* the most bytes alive at once, each value as long as it is
                   * read: no arena is smaller */
} AqScript;

/* The graph whose kernels run as the script says; NULL: each once, as the steps
 * stand.  needs[id] is then what kernel id of `out` needs, given that of the
 * flow's graph; or NULL. */
AqStatus aq_flow_write(const AqFlow *flow, const AqScript *script, AqGraph *out,
                       const AqNeeds *given, AqNeeds *needs);
AqStatus aq_flow_copy(const AqGraph *in, AqGraph *out); /* as it is */

/* ---- recompute_rehearse.c ---- */

enum { AQ_TASTES = 3 };

/* Carries the program out on paper in a memory of `limit` bytes; `taste` below
 * AQ_TASTES says what is dropped first.  false: that is too little (or memory
 * ended). */
bool aq_rehearse(const AqFlow *flow, int64_t limit, int taste,
                 AqScript *script);

#endif
