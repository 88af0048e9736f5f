/* Values of moved elements: the operand at another index; where padding and
 * joined parts meet, under a condition. */
#include "codegen/expr.h"

/* ---- 0 <= index < bound as a truth, scalar or lane by lane ---- */

static LLVMValueRef both(AqExpr *x, LLVMValueRef a, LLVMValueRef b)
{
    if (!a || !b)
        return a ? a : b;
    aq_expr_match(x, &a, &b);
    return LLVMBuildAnd(x->e->builder, a, b, "");
}

static LLVMValueRef compare(AqExpr *x, LLVMIntPredicate p, AqIndex index,
                            int64_t to)
{
    LLVMValueRef value = aq_expr_index_value(x, index, false);
    return LLVMBuildICmp(x->e->builder, p, value,
                         aq_int_of(x->e, LLVMTypeOf(value), to), "");
}

/* index < bound, index >= 0; whole registers are compared at once where the
 * bound lies between two of them: quotients by the lanes are uniform then. */
static LLVMValueRef within(AqExpr *x, AqIndex index, int64_t bound)
{
    int64_t lo, hi;
    aq_index_range(x->t, index, &lo, &hi);
    bool below = hi < bound;
    AqIndex blocks = aq_index_div(x->t, index, x->lanes);
    if (bound % x->lanes == 0 && aq_varies(x, index) && !aq_varies(x, blocks)) {
        index = blocks;
        bound /= x->lanes;
    }
    LLVMValueRef truth = NULL;
    if (lo < 0)
        truth = compare(x, LLVMIntSGE, index, 0);
    if (!below)
        truth = both(x, truth, compare(x, LLVMIntSLT, index, bound));
    return truth;
}

/* NULL where it always holds. */
static LLVMValueRef bound_value(AqExpr *x, const AqBound *bound)
{
    if (aq_bound_truth(x->t, bound) == AQ_ALWAYS)
        return NULL;
    AqIndex limit = aq_index_constant(x->t, bound->bound);
    AqMemoKey key = {.node = AQ_MEMO_BOUND,
                     .index = {bound->index, limit, bound->zero}};
    LLVMValueRef truth = aq_memo_get(x->memo, &key);
    if (truth)
        return truth;
    int level = AQ_MAX(aq_index_level(x->t, bound->index),
                       aq_index_level(x->t, bound->zero));
    int old = aq_place_at(x, level);
    truth = within(x, bound->index, bound->bound);
    int64_t rest;
    if (!aq_index_is_constant(x->t, bound->zero, &rest))
        truth = both(x, truth, compare(x, LLVMIntEQ, bound->zero, 0));
    aq_place_back(x, old);
    aq_memo_put(x->memo, &key, truth, level);
    return truth;
}

/* The index where a uniform truth holds, else 0, so that it is always inside.
 */
static AqIndex clamped(AqExpr *x, const AqBound *bound, LLVMValueRef truth)
{
    AqMemoKey key = {
        .node = AQ_MEMO_CLAMP, .index = {bound->index}, .mask = truth};
    LLVMValueRef value = aq_memo_get(x->memo, &key);
    int level = AQ_MAX(aq_index_level(x->t, bound->index),
                       aq_index_level(x->t, bound->zero));
    if (!value) {
        int old = aq_place_at(x, level);
        value = LLVMBuildSelect(x->e->builder, truth,
                                aq_expr_index_value(x, bound->index, false),
                                aq_i64(x->e, 0), "");
        aq_place_back(x, old);
        aq_memo_put(x->memo, &key, value, level);
    }
    return aq_index_variable(x->t, value, 0, bound->bound - 1, level);
}

/* ---- an input under conditions ---- */

typedef struct Part {
    LLVMValueRef value, truth; /* truth NULL: always */
    bool never;
} Part;

static void vector_condition(AqExpr *x, LLVMValueRef truth, int level)
{
    int above = AQ_MAX(x->mask_level, level);
    AqMemoKey key = {
        .node = AQ_MEMO_BOUND, .index = {-1, -1, -1}, .mask = truth};
    key.index[3] = (AqIndex)(uintptr_t)x->mask;
    key.index[4] = (AqIndex)((uint64_t)(uintptr_t)x->mask >> 32);
    LLVMValueRef mask = aq_memo_get(x->memo, &key);
    if (!mask) {
        int old = aq_place_at(x, above);
        mask = both(x, x->mask, truth);
        aq_place_back(x, old);
        aq_memo_put(x->memo, &key, mask, above);
    }
    aq_expr_mask(x, mask, above);
    x->guarded = true;
}

static Part part_value(AqExpr *x, const AqNode *node, int k,
                       const AqIndex *index)
{
    Part part = {0};
    AqIndex input[AQ_MAX_RANK];
    AqBound bounds[AQ_MAX_RANK];
    AqId from = node->inputs[k];
    int rank = aq_node(x->body, from)->type.rank;
    LLVMValueRef mask = x->mask;
    int mask_level = x->mask_level;
    bool guarded = x->guarded;
    aq_move_index(x->t, x->body, node, k, index, input, bounds);
    for (int i = 0; i < rank; i++)
        if (aq_bound_truth(x->t, &bounds[i]) == AQ_NEVER)
            part.never = true;
    for (int i = 0; i < rank && !part.never; i++) {
        LLVMValueRef truth = bound_value(x, &bounds[i]);
        if (!truth)
            continue;
        part.truth = both(x, part.truth, truth);
        if (aq_lanes(LLVMTypeOf(truth)))
            vector_condition(x, truth,
                             AQ_MAX(aq_index_level(x->t, bounds[i].index),
                                    aq_index_level(x->t, bounds[i].zero)));
        else if (!aq_varies(x, input[i]))
            input[i] = clamped(x, &bounds[i], truth);
        else /* whole registers in or out: the others read nothing */
            vector_condition(x, aq_splat(x->e, truth, x->lanes), x->level);
    }
    if (!part.never)
        part.value = aq_expr_value(x, from, input);
    aq_expr_mask(x, mask, mask_level);
    x->guarded = guarded;
    return part;
}

static LLVMValueRef chosen(AqExpr *x, const Part *part, LLVMValueRef otherwise)
{
    if (part->never)
        return otherwise;
    if (!part->truth)
        return part->value;
    LLVMValueRef a = part->value, b = otherwise, truth = part->truth;
    aq_expr_match(x, &a, &b);
    aq_expr_match(x, &truth, &a);
    aq_expr_match(x, &a, &b);
    return LLVMBuildSelect(x->e->builder, truth, a, b, "");
}

LLVMValueRef aq_expr_moved(AqExpr *x, AqId id, const AqIndex *index)
{
    const AqNode *node = aq_node(x->body, id);
    LLVMValueRef value = LLVMConstNull(aq_expr_element(x, id));
    for (int k = 0; k < node->n_inputs; k++) {
        Part part = part_value(x, node, k, index);
        value = chosen(x, &part, value);
    }
    return value;
}

/* ---- look-up ---- */

/* An index out of range reads the nearest row: memory stays safe. */
static AqIndex row_index(AqExpr *x, LLVMValueRef row, int64_t rows)
{
    AqEmit *e = x->e;
    LLVMBuilderRef b = e->builder;
    LLVMTypeRef type = LLVMTypeOf(row);
    LLVMValueRef zero = aq_int_of(e, type, 0);
    LLVMValueRef last = aq_int_of(e, type, AQ_MIN(rows - 1, INT32_MAX));
    LLVMValueRef under = LLVMBuildICmp(b, LLVMIntSLT, row, zero, "");
    row = LLVMBuildSelect(b, under, zero, row, "");
    LLVMValueRef over = LLVMBuildICmp(b, LLVMIntSGT, row, last, "");
    row = LLVMBuildSelect(b, over, last, row, "");
    if (aq_lanes(type))
        return aq_index_lanewise(x->t, row, 0, rows - 1, x->level);
    row = LLVMBuildSExt(b, row, e->i64, "");
    return aq_index_variable(x->t, row, 0, rows - 1, x->level);
}

/* (V, rest...), index (...) -> (index..., rest...) */
LLVMValueRef aq_expr_gather(AqExpr *x, AqId id, const AqIndex *index)
{
    const AqNode *node = aq_node(x->body, id);
    const AqType *table = &aq_node(x->body, node->inputs[0])->type;
    int lead = aq_node(x->body, node->inputs[1])->type.rank;
    AqIndex input[AQ_MAX_RANK];
    LLVMValueRef row = aq_expr_value(x, node->inputs[1], index);
    input[0] = row_index(x, row, table->dim[0]);
    for (int i = 1; i < table->rank; i++)
        input[i] = index[lead + i - 1];
    return aq_expr_value(x, node->inputs[0], input);
}
