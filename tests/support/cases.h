/* For every op that passes gradients (or zeros), a builder of random small
 * instances: sizes 1, primes and others, attributes drawn, values where the op
 * is smooth.  What tests of whole columns of ir/ops.def run over. */
#ifndef AQ_TEST_CASES_H
#define AQ_TEST_CASES_H

#include "tests/support/bench.h"

/* Appends an instance drawn from bench->seed, its inputs bound to values. */
typedef AqId AqCase(AqBench *bench, AqOp op);

/* NULL where the op's gradient is `none`. */
extern AqCase *const aq_cases[AQ_OP_COUNT];

/* An f32 input that the bench binds, uniform in low .. high. */
AqId aq_case_input(AqBench *bench, AqType type, double low, double high);
/* sum of value * (a new input with random weights); of a node with several
 * results, over a random choice of them. */
AqId aq_case_loss(AqBench *bench, AqId value);

#endif
