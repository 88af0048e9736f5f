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

/* Data for every source of a graph by its own name: normal where f32 (a tenth
 * of that for params), 0 .. 9 where i32.  Returns how many; `bindings` has room
 * for graph->count. */
int aq_test_bind(const AqGraph *g, uint64_t seed, AqBinding *bindings,
                 AqArena *arena);

#endif
