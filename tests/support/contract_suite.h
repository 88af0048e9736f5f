/* Suites of contractions against the interpreter: random shapes, operands and
 * results with guard pages behind and before, both levels, any grouping of the
 * tasks, every algorithm wherever it suits.
 *
 * `operands` is what stands before the product: 0 args, 1 scale, shift and
 * SiLU, 2 pieces of wider tensors, 3 another order of dimensions, 4 two parts
 * side by side and then 1, 5 repeated elements.  `epilogue` is what comes after
 * it: 0 nothing, 1 bias and residual, 2 two results in another shape, 3
 * reductions, 4 by sample.  `direction`: forward, input's, weights' gradient.
 */
#ifndef AQ_TEST_CONTRACT_SUITE_H
#define AQ_TEST_CONTRACT_SUITE_H

#include "tests/support/bench.h"

enum { AQ_SUITE_CASES = 400, AQ_SUITE_INPUTS = 12 };

/* A kernel under construction: args of the body beside inputs of the graph. */
typedef struct AqSuiteKernel {
    AqBench *bench;
    AqGraph *body;
    AqId inputs[AQ_SUITE_INPUTS];
    int n_inputs;
    AqId id;
    int64_t k; /* terms of a sum */
    AqAttr blocks;
    int64_t block[5];
} AqSuiteKernel;

typedef struct AqSuite {
    AqBench bench;
    uint64_t seed;
    AqSuiteKernel kernels[AQ_SUITE_CASES];
    AqId ids[AQ_SUITE_CASES];
    int count;
} AqSuite;

/* contract_cases.c */
AqSuite *aq_suite_new(uint64_t seed);
/* Each adds one kernel. */
void aq_suite_matmul(AqSuite *s, int operands, int epilogue);
void aq_suite_turned(AqSuite *s, int operands, int epilogue);
void aq_suite_conv(AqSuite *s, int direction, int operands, int epilogue);
void aq_suite_winograd(AqSuite *s, int direction, int operands, int epilogue);
void aq_suite_many_taps(AqSuite *s, int i); /* i < 6 */

/* contract_check.c: compiles and runs all, fails the test, frees the suite */
void aq_suite_check(AqSuite *s);

#endif
