/* Random graphs over all ops, for properties that hold of every graph. */
#ifndef AQ_TEST_RANDOM_GRAPH_H
#define AQ_TEST_RANDOM_GRAPH_H

#include "ir/ir.h"

/* A graph of about `steps` additions, the same for the same arguments.  Every
 * op of ops.def but `kernel` and `arg` may occur.  Values stay moderate on
 * normal data, and jumps (floor, sign, comparisons) are taken of whole numbers
 * alone, so that f32 and double agree.  What nobody uses is an output; one
 * state is updated.  Fails the test if a rule refuses a node. */
AqGraph *aq_test_random_graph(uint64_t seed, int steps);

#endif
