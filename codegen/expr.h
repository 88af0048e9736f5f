/* Shared by the files of the expression emitter. */
#ifndef AQ_EXPR_H
#define AQ_EXPR_H

#include "codegen/index.h"

/* ---- memo.c: values already emitted, by (node, index, mask) ---- */

enum {                      /* instead of a node */
       AQ_MEMO_SCALAR = -1, /* index expressions as i64, */
       AQ_MEMO_NARROW = -2, /* vector of i32, */
       AQ_MEMO_WIDE = -3,   /* vector of i64 */
       AQ_MEMO_BOUND = -4,  /* 0 <= index[0] < index[1] (a constant) */
       AQ_MEMO_CLAMP = -5,  /* index[0] if so, else 0 */
       AQ_MEMO_DRAWN = -6,  /* random numbers: node, counters, sample, which */
};

typedef struct AqMemoKey {
    AqId node;
    AqIndex index[AQ_MAX_RANK];
    LLVMValueRef mask;
} AqMemoKey;

struct AqMemo *aq_memo_new(AqArena *arena);
LLVMValueRef aq_memo_get(const struct AqMemo *memo, const AqMemoKey *key);
/* Returns false when memory ends (then it is only forgotten). */
bool aq_memo_put(struct AqMemo *memo, const AqMemoKey *key, LLVMValueRef value,
                 int level);
/* Drops what stands at `level` or deeper. */
void aq_memo_drop(struct AqMemo *memo, int level);

/* ---- move.c: movement as index maps; emits nothing ---- */

/* 0 <= index < bound and zero = 0 must hold, else the part does not apply. */
typedef struct AqBound {
    AqIndex index, zero;
    int64_t bound;
} AqBound;

/* Index of input k for output index `index`; one bound a dimension of the
 * input, which say nothing but for pad and concat. */
void aq_move_index(AqIndexTable *t, const AqGraph *body, const AqNode *node,
                   int k, const AqIndex *index, AqIndex *input,
                   AqBound *bounds);
typedef enum AqTruth { AQ_SOMETIMES, AQ_ALWAYS, AQ_NEVER } AqTruth;
AqTruth aq_bound_truth(AqIndexTable *t, const AqBound *bound);

/* ---- place.c ---- */

/* Where values of `level` belong; returns the level to go back to. */
int aq_place_at(AqExpr *x, int level);
void aq_place_back(AqExpr *x, int level);
bool aq_varies(const AqExpr *x, AqIndex index);

/* ---- point.c, random.c, moved.c: values by family of ops ---- */

LLVMValueRef aq_expr_pointwise(AqExpr *x, AqId id, const AqIndex *index);
LLVMValueRef aq_expr_random(AqExpr *x, AqId id, const AqIndex *index);
LLVMValueRef aq_expr_moved(AqExpr *x, AqId id, const AqIndex *index);
LLVMValueRef aq_expr_gather(AqExpr *x, AqId id, const AqIndex *index);
/* Both as vectors if one is. */
void aq_expr_match(AqExpr *x, LLVMValueRef *a, LLVMValueRef *b);
LLVMTypeRef aq_expr_element(const AqExpr *x, AqId id);

#endif
