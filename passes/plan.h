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

/* Where a value lies. */
typedef struct Place {
    int block; /* -1: none yet */
    int64_t offset;
} Place;

/* A part of a concat that lies apart until the concat is read. */
typedef struct LatePart {
    AqId value;
    int part;  /* of the concat */
    int step;  /* that copies it */
    int block; /* where to */
} LatePart;

typedef struct Planner {
    const AqGraph *g;
    const AqNeeds *needs;
    AqPlan *plan;
    AqArena *scratch;
    AqError *error;
    Place *place; /* of nodes */
    int *step_of; /* kernel node -> its step */
    AqBlock *blocks;
    int n_blocks, blocks_capacity;
    int share; /* a part of a concat is late where it is at most 1/share */
    LatePart *late;
    int n_late;
    int *first_late; /* concat -> its first in `late`; -1: it has none */
} Planner;

/* plan.c */
int aq_plan_block(Planner *p, int64_t bytes, int base);
/* The base of that name, which becomes as large as that at least. */
int aq_plan_add_base(Planner *p, const char *name, int64_t bytes, bool state);

/* plan_late.c: numbers the steps, copies among them; false: memory ended. */
bool aq_plan_steps(Planner *p);

/* plan_update.c: places the new values of states. */
void aq_plan_updates(Planner *p);

/* plan_place.c: gives every block of the arena its offset, and the plan the
 * arena's size and the lower bound of it. */
void aq_place_blocks(AqBlock *blocks, int count, AqPlan *plan, AqArena *scratch,
                     AqError *error);

#endif
