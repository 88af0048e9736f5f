/* Private to plan*.c: pieces of memory and their lives. */
#ifndef AQ_PLAN_H
#define AQ_PLAN_H

#include "passes/passes.h"

/* A piece of memory: one or more values that share it. */
typedef struct AqBlock {
    int64_t bytes, offset;
    int base;        /* 0: the arena */
    int first, last; /* steps */
    int concat;      /* the block that it is a part of, or -1 */
    int64_t within;  /* its offset there */
    int parts;       /* how many parts it has itself; they follow it */
} AqBlock;

/* plan_place.c: gives every block of the arena its offset, and the plan the
 * arena's size and the lower bound of it. */
void aq_place_blocks(AqBlock *blocks, int count, AqPlan *plan, AqArena *scratch,
                     AqError *error);

#endif
