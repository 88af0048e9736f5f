/* Compiles one kernel and runs it between guard pages, at several alignments
 * and with its tasks grouped in several ways, against the reference
 * interpreter. */
#ifndef AQ_TEST_RUN_KERNEL_H
#define AQ_TEST_RUN_KERNEL_H

#include "codegen/codegen.h"

typedef struct AqKernelCase {
    const AqGraph *body; /* its args are the kernel's inputs */
    const char *kind;    /* "map", ... */
    const AqAttr *attrs; /* more of the kernel node's, as `blocks` */
    int n_attrs;
    uint64_t seed;             /* of the data: normal where f32 */
    const double *const *data; /* or not NULL: the data of each input */
    int64_t below;             /* i32 inputs are 0 .. below - 1; 0: 4 */
    double tolerance;          /* |ours - exact| <= tolerance (1 + |exact|) */
    double scale;              /* of f32 inputs; 0: 1 */
    const char *name;          /* for messages */
    bool in_place; /* the first result in the first input's memory */
} AqKernelCase;

/* A graph with one input for each arg, the kernel, and its results as outputs;
 * *kernel is the kernel's node. */
AqGraph *aq_test_kernel_graph(const AqKernelCase *test, AqId *kernel);

/* Runs the case on levels 3 and (where the processor has it) 4.  Fails the test
 * with one sentence: a value off, a byte outside written, bits that depend on
 * alignment or grouping. */
void aq_test_run_kernel(const AqKernelCase *test);
/* The same on one level; the largest error over (1 + |exact|) seen. */
double aq_test_run_kernel_at(const AqKernelCase *test, int level);

#endif
