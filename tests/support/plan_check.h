/* Plans, carried out by the reference interpreter over memory whose every word
 * remembers which value was written to it last: no value is read that is not
 * there, whatever shares its place. */
#ifndef AQ_TEST_PLAN_CHECK_H
#define AQ_TEST_PLAN_CHECK_H

#include "passes/passes.h"

typedef struct AqPlanCounts {
    int in_place, copies;
    int64_t arena, bound; /* bytes: the arena, what is alive at once */
} AqPlanCounts;

/* What code generation would ask for, or a made-up workspace for each. By
 * node; free it. */
AqNeeds *aq_test_needs(const AqGraph *g, bool invented);

/* Runs the plan and compares every output and state with what the interpreter
 * makes of the graph as a whole, to the bit. */
AqPlanCounts aq_test_check_plan(const AqGraph *g, uint64_t seed);

#endif
