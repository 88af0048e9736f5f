/* Private to fuse*.c: what is stored, which nodes form a kernel, bodies.
 *
 * Words.  A value is stored if it gets memory; all others are computed again
 * inside each kernel that wants them.  A leaf of a kernel is a stored value
 * that it reads.  A group is the set of stored values that one kernel writes.
 */
#ifndef AQ_FUSE_H
#define AQ_FUSE_H

#include "passes/passes.h"

typedef enum FuseRole {
    ROLE_INLINE, /* part of the bodies that use it */
    ROLE_SOURCE, /* input, param, state: memory of the caller */
    ROLE_ALIAS,  /* reshape or concat that only names stored memory */
    ROLE_RESULT, /* written by a kernel */
} FuseRole;

typedef struct FuseGroup {
    AqLowering kind;
    AqId anchor;   /* the contraction, attention or scatter; else AQ_NO_NODE */
    AqType domain; /* map: what the loops run over */
    const AqAttr *axes; /* reduced by its reductions; NULL if it has none */
    int n_members, n_leaves, nodes; /* nodes: about the body's size */
    int n_sums;                     /* contract: reductions among them */
    AqId members[AQ_MAX_RESULTS];   /* ascending */
    AqId *leaves;
    int leaves_capacity;
    int seen; /* stamp of the last search */
    bool emitted;
} FuseGroup;

typedef struct Fuse {
    const AqGraph *in;
    AqGraph *out;
    AqArena *arena; /* scratch of the pass */
    AqError *error;
    bool *live;
    int *uses; /* uses by live nodes and outputs */
    FuseRole *role;
    AqId *absorbed; /* pointwise node -> contraction whose epilogue has it */
    int *group_of;  /* stored value -> group */
    FuseGroup *groups;
    int n_groups;
    int stamp;
    int *visited; /* stamps of nodes */
    AqId *map;    /* stored value -> node of `out` */
    AqId *inner;  /* node -> node of the body, valid where visited */
    bool *placed; /* already lies in a concat */
} Fuse;

/* fuse_store.c: decides role[] and absorbed[]. */
void aq_fuse_decide(Fuse *f);
/* The stored value behind reshapes of a stored value. */
AqId aq_fuse_base(const Fuse *f, AqId id);
static inline bool aq_fuse_is_stored(const Fuse *f, AqId id)
{
    return f->role[id] != ROLE_INLINE;
}

/* fuse_sums.c */
/* Whether a contraction's kernel could compute this reduction of what it gives,
 * or of values at the same index: see there. */
bool aq_may_sum(const AqGraph *g, AqId reduction, AqId contraction);

/* fuse_group.c: fills groups and group_of. */
void aq_fuse_group(Fuse *f);

/* fuse_body.c: builds the kernel of a group, after those it reads from, and
 * maps its members. */
void aq_fuse_emit(Fuse *f, FuseGroup *group);
/* The node of `out` that names the memory of v; emits what is missing. */
AqId aq_fuse_stored(Fuse *f, AqId v);

#endif
