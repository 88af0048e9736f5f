/* Private to hoist*.c: a part of a graph for all numbers of the runs at once.
 *
 * A value is lifted in two ways.  Where it depends on the run's number it gets
 * a first axis of all numbers.  An axis along which all its elements are equal
 * (a timestep, repeated for the samples of a batch) has size 1. */
#ifndef AQ_HOIST_H
#define AQ_HOIST_H

#include "passes/passes.h"

/* A value of `in` as `out` has it. */
typedef struct AqLifted {
    AqId id;        /* AQ_NO_NODE: it is not there */
    uint32_t equal; /* bit i: axis i of the value in `in` has size 1 here */
    bool all;       /* begins with the axis of numbers */
} AqLifted;

typedef struct AqLift {
    const AqGraph *in;
    AqGraph *out;
    AqLifted *values; /* by node of `in` */
    int64_t numbers;  /* 0 .. numbers - 1 */
} AqLift;

/* hoist_lift.c: builds node `id`, whose inputs are there; false where an op
 * cannot be computed for all numbers at once. */
bool aq_lift_node(AqLift *l, AqId id);
/* The type that a value has in `out`, without the axis of numbers. */
AqType aq_lift_narrow(const AqType *type, uint32_t equal);
/* With an axis of `size` before all others. */
AqType aq_lift_type(const AqType *type, int64_t size);

#endif
