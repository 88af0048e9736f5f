/* Random graphs of programs that are run again and again. */
#ifndef AQ_TEST_NUMBERED_GRAPH_H
#define AQ_TEST_NUMBERED_GRAPH_H

#include "passes/passes.h"

enum { AQ_TEST_NUMBERS = 4 };

/* A random graph (random_graph.h) with an input `number`, i32 scalar: of its
 * f32 sources some change from run to run, some are fixed, and some are made of
 * the number, wholly or in part.  What is fixed is in `repeat`, in the graph's
 * arena.  Every third graph is a function of the number alone, but for its
 * states. */
AqGraph *aq_test_numbered_graph(uint64_t seed, int steps, AqRepeat *repeat);

#endif
