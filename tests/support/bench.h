/* A graph under test: inputs with their data, and values read back through the
 * reference interpreter. */
#ifndef AQ_TEST_BENCH_H
#define AQ_TEST_BENCH_H

#include "ir/ir.h"

#define DIMS_(...) ((const int64_t[]){__VA_ARGS__})
#define RANK_(...) ((int)(sizeof DIMS_(__VA_ARGS__) / sizeof(int64_t)))
/* F32(8, 4) is the type f32[8,4] */
#define F32(...) aq_type(AQ_F32, RANK_(__VA_ARGS__), DIMS_(__VA_ARGS__))
#define I32(...) aq_type(AQ_I32, RANK_(__VA_ARGS__), DIMS_(__VA_ARGS__))
#define SCALAR aq_type(AQ_F32, 0, NULL)
/* INTS(AXES, 0, 2) is an attribute */
#define INTS(KEY, ...)                                                         \
    aq_ints(AQ_KEY_##KEY, DIMS_(__VA_ARGS__), RANK_(__VA_ARGS__))
/* BUILD(bench, conv2d, &type or NULL, INPUTS(x, w), ATTRS(INTS(STRIDE, 2, 2)))
 */
#define INPUTS(...)                                                            \
    (const AqId[]){__VA_ARGS__},                                               \
        (int)(sizeof((const AqId[]){__VA_ARGS__}) / sizeof(AqId))
#define ATTRS(...)                                                             \
    (const AqAttr[]){__VA_ARGS__},                                             \
        (int)(sizeof((const AqAttr[]){__VA_ARGS__}) / sizeof(AqAttr))
#define BUILD(bench, op, ...) aq_bench_build(bench, AQ_OP_##op, __VA_ARGS__)

#define NONE NULL, 0

enum { AQ_BENCH_BINDINGS = 2048 };

typedef struct AqBench {
    AqGraph *g;
    AqArena *arena; /* data and values read */
    AqBinding bindings[AQ_BENCH_BINDINGS];
    int n_bindings;
    uint64_t seed;
} AqBench;

AqBench aq_bench_new(uint64_t seed);
void aq_bench_free(AqBench *bench);

/* An input with these values, row by row. */
AqId aq_bench_input(AqBench *bench, const char *name, AqType type,
                    const double *data);
/* An f32 input with normal values; an i32 one with 0 .. 9. */
AqId aq_bench_random(AqBench *bench, const char *name, AqType type);
/* aq_build that fails the test, with the graph's sentence, on an error. */
AqId aq_bench_build(AqBench *bench, AqOp op, const AqType *declared,
                    const AqId *inputs, int n_inputs, const AqAttr *attrs,
                    int n_attrs);
/* The values of a node (or of a kernel's or moments' result). */
const double *aq_bench_value(AqBench *bench, AqId id);
/* The sentence of the error that evaluating the node gives. */
const char *aq_bench_error(AqBench *bench, AqId id);
int64_t aq_bench_count(const AqBench *bench, AqId id); /* elements */
/* |a - b| <= tolerance (1 + |b|) everywhere, or both NaN. */
void aq_bench_close(const double *a, const double *b, int64_t count,
                    double tolerance);

/* Evaluates any nodes of a graph; its own outputs do not matter. */
AqStatus aq_test_evaluate(const AqGraph *g, const AqId *ids, int count,
                          const AqBinding *bindings, int n_bindings,
                          AqValue *values, AqArena *arena, AqError *error);

/* Data for every source of a graph by its own name: normal where f32 (a tenth
 * of that for params), 0 .. 9 where i32.  Returns how many; `bindings` has room
 * for graph->count. */
int aq_test_bind(const AqGraph *g, uint64_t seed, AqBinding *bindings,
                 AqArena *arena);

/* Reproducible numbers for tests: normal, uniform in (0, 1), 0 .. bound - 1. */
double aq_test_normal(uint64_t *seed);
double aq_test_uniform(uint64_t *seed);
int64_t aq_test_below(uint64_t *seed, int64_t bound);

#endif
