/* The shape of a map kernel's work: for map.c, nest.c, reduce.c, map_emit.c. */
#ifndef AQ_MAP_H
#define AQ_MAP_H

#include "codegen/expr.h"

enum {
    AQ_MOST_REDUCERS = AQ_MAX_RESULTS, /* each is one of the results */
    AQ_MOST_BLOCKS = 16
};

typedef struct AqReducer {
    AqOp op;    /* reduce_sum, reduce_max or moments */
    AqId value; /* what is reduced */
    bool whole; /* of i32 */
} AqReducer;

typedef struct AqMapOutput {
    AqId value;    /* of the domain, or -1: */
    int reducer;   /* a reduction, */
    int component; /* 1: the m2 of moments */
} AqMapOutput;

/* Loops, outside in: tasks, rows (kept dimensions), blocks of vectors, steps
 * (reduced dimensions).  The last dimensions of the domain are the vector:
 * either kept, or reduced, or kept ones followed by `inner` reduced ones that
 * share a register. */
typedef struct AqMap {
    const AqGraph *body;
    int n_inputs, lanes;
    AqType domain;
    bool reduced[AQ_MAX_RANK];
    int first; /* dimension of the vector */
    AqReducer reducers[AQ_MOST_REDUCERS];
    AqMapOutput outputs[AQ_MAX_RESULTS];
    int n_reducers, n_outputs;
    int64_t rows, steps, extent; /* of the vector, in elements */
    bool vector_reduced;
    int inner;            /* 1, or how many neighbouring lanes are summed */
    int64_t blocks, full; /* registers of the vector, and without the tail */
    int tail;             /* lanes in the last one */
    int unroll;           /* blocks done side by side */
    int batch;            /* steps done side by side */
    int64_t rows_a_task, blocks_a_chunk, chunks, tasks;
} AqMap;

/* map.c */
AqStatus aq_map_plan(const AqKernel *kernel, AqMap *map, AqArena *arena,
                     AqError *error);
/* nest.c: chooses the loops; false when memory ends. */
bool aq_map_nest(AqMap *map, const AqTarget *target, AqArena *arena);
/* walk.c: calls for every index that an evaluation of `id` depends on. */
typedef void AqVisit(void *context, AqIndex access);
typedef struct AqIndexWalk {
    const AqGraph *body;
    AqIndexTable *t;
    struct AqMemo *seen;
    AqVisit *visit;
    void *context;
} AqIndexWalk;
void aq_index_walk(AqIndexWalk *walk, AqId id, const AqIndex *index);

/* reduce.c: running values of the reducers for `unroll` blocks. */
typedef struct AqAccumulators {
    LLVMValueRef v[AQ_MAX_CARRIED];
    int count;
} AqAccumulators;
int aq_reduce_count(const AqMap *map);
void aq_reduce_start(AqEmit *e, const AqMap *map, AqAccumulators *a);
/* Takes in `batch` values of one reducer in one block. */
void aq_reduce_step(AqEmit *e, const AqMap *map, AqAccumulators *a, int block,
                    int reducer, const LLVMValueRef *values, int batch,
                    LLVMValueRef mask);
/* The result lane by lane, or joined over groups of `group` lanes: value (and
 * m2) in each group's first lane. */
void aq_reduce_finish(AqEmit *e, const AqMap *map, const AqAccumulators *a,
                      int block, int reducer, int group, LLVMValueRef out[2]);

/* map_emit.c */
AqUnitEmit aq_map_emit;

#endif
