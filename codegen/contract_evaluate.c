/* Leaves that evaluate an operand which is an expression, row by row:
 *
 *   for each row:  for each stretch of the row:  to[...] = value(...)
 *
 * A row is cut where the parts of a concat meet, so that in a stretch no part
 * need be chosen from. */
#include "codegen/contract.h"

#include <stdlib.h>

enum { MOST_CUTS = 16 };

typedef struct Evaluation {
    AqEmit *e;
    AqExpr *x;
    const AqGraph *body;
    const AqType *type;
    AqId id;
    AqIndex index[AQ_MAX_RANK];
    LLVMValueRef start[AQ_MAX_RANK];
    LLVMValueRef to;           /* of this row */
    LLVMValueRef first, whole; /* vectors of a part: first .. whole - 1, */
    LLVMValueRef left;         /* whether a masked one follows; NULL: no part */
    int64_t cut[MOST_CUTS];    /* vectors, ascending; the last is the end */
    int n_cuts;
} Evaluation;

/* ---- where a row is cut ---- */

static int by_value(const void *a, const void *b)
{
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return (x > y) - (x < y);
}

/* Between vectors, where `at` floats are on the left. */
static void add_cut(Evaluation *v, int64_t at)
{
    int64_t width = v->type->dim[v->type->rank - 1], lanes = v->e->lanes;
    if (at <= 0 || at >= width / lanes * lanes || at % lanes)
        return;
    for (int i = 0; i < v->n_cuts; i++)
        if (v->cut[i] == at / lanes)
            return;
    if (v->n_cuts < MOST_CUTS - 1)
        v->cut[v->n_cuts++] = at / lanes;
}

/* Wherever a concat along the operand's last dimension changes its part.  A cut
 * too many costs little, so how the concat is moved is not looked at. */
static void find_cuts(Evaluation *v)
{
    int64_t width = v->type->dim[v->type->rank - 1];
    for (AqId id = 0; id <= v->id; id++) {
        const AqNode *node = aq_node(v->body, id);
        int last = node->type.rank - 1;
        if (node->op != AQ_OP_concat || node->type.dim[last] != width ||
            aq_attr_int(node, AQ_KEY_AXIS, 0) != last)
            continue;
        int64_t at = 0;
        for (int i = 0; i < node->n_inputs; i++) {
            at += aq_node(v->body, node->inputs[i])->type.dim[last];
            add_cut(v, at);
        }
    }
    v->cut[v->n_cuts++] = width / v->e->lanes;
    qsort(v->cut, (size_t)v->n_cuts, sizeof *v->cut, by_value);
}

/* ---- a row ---- */

/* Vectors from .. to-1 (not none), which are among lo .. hi-1, under a mask or
 * whole. */
static void evaluate_vectors(Evaluation *v, LLVMValueRef from, LLVMValueRef to,
                             int64_t lo, int64_t hi, LLVMValueRef mask)
{
    AqEmit *e = v->e;
    AqIndexTable *t = v->x->t;
    int last = v->type->rank - 1;
    AqLoop loop;
    aq_loop_begin(e, &loop, from, to, 1);
    aq_expr_enter(v->x, loop.before);
    aq_expr_mask(v->x, mask, 0);
    AqIndex vector =
        aq_index_variable(t, loop.counter, lo, hi - 1, v->x->entered);
    v->index[last] = aq_index_vector(t, aq_index_scale(t, vector, e->lanes),
                                     v->type->dim[last]);
    LLVMValueRef value = aq_expr_vector(v->x, v->id, v->index);
    LLVMValueRef place = loop.counter;
    if (v->first)
        place = LLVMBuildSub(e->builder, place, v->first, "");
    place = LLVMBuildMul(e->builder, place, aq_i64(e, e->lanes), "");
    aq_store_masked(e, value, aq_at(e, e->f32, v->to, place), mask);
    aq_expr_mask(v->x, NULL, 0);
    aq_expr_leave(v->x);
    aq_loop_end(e, &loop);
}

/* The same where a part has some of them. */
static void evaluate_within(Evaluation *v, int64_t lo, int64_t hi)
{
    AqEmit *e = v->e;
    LLVMValueRef low = aq_i64(e, lo);
    LLVMValueRef after =
        LLVMBuildICmp(e->builder, LLVMIntSGT, v->first, low, "");
    LLVMValueRef from = LLVMBuildSelect(e->builder, after, v->first, low, "");
    LLVMValueRef to = aq_at_most(e, v->whole, hi);
    LLVMBasicBlockRef skip = aq_only_if_less(e, from, to);
    evaluate_vectors(v, from, to, lo, hi, NULL);
    aq_go_on(e, skip);
    aq_expr_forget(v->x); /* what stands inside the condition */
}

/* The row's last vector, which is not whole. */
static void evaluate_left(Evaluation *v, int64_t whole, int64_t count)
{
    AqEmit *e = v->e;
    LLVMValueRef mask = aq_constant_mask(e, (int)count, e->lanes);
    LLVMBasicBlockRef then = NULL, skip = NULL;
    if (v->left) {
        then = aq_emit_block(e, "left");
        skip = aq_emit_block(e, "skip");
        LLVMBuildCondBr(e->builder, v->left, then, skip);
        LLVMPositionBuilderAtEnd(e->builder, then);
    }
    evaluate_vectors(v, aq_i64(e, whole), aq_i64(e, whole + 1), whole,
                     whole + 1, mask);
    if (v->left)
        aq_go_on(e, skip);
}

static void evaluate_row(Evaluation *v)
{
    AqEmit *e = v->e;
    int64_t width = v->type->dim[v->type->rank - 1];
    int64_t left = width % e->lanes, from = 0;
    for (int i = 0; i < v->n_cuts; from = v->cut[i++]) {
        if (from == v->cut[i])
            continue;
        if (v->first)
            evaluate_within(v, from, v->cut[i]);
        else
            evaluate_vectors(v, aq_i64(e, from), aq_i64(e, v->cut[i]), from,
                             v->cut[i], NULL);
    }
    if (left > 0)
        evaluate_left(v, from, left);
}

/* ---- the functions ---- */

/* The index at which it begins; a row's cuts. */
static AqStatus begin_evaluation(Evaluation *v)
{
    AqEmit *e = v->e;
    v->x = aq_contract_expr(e, v->body, aq_param(e, 0));
    if (!v->x)
        return aq_no_memory(e->error, sizeof *v->x);
    for (int d = 0; d < v->type->rank; d++) {
        v->start[d] =
            aq_load(e, e->i64, aq_at(e, e->i64, aq_param(e, 1), aq_i64(e, d)));
        v->index[d] =
            aq_index_variable(v->x->t, v->start[d], 0, v->type->dim[d] - 1, 0);
    }
    find_cuts(v);
    return AQ_OK;
}

/* Which vectors a part has. */
static void find_part(Evaluation *v, LLVMValueRef columns)
{
    AqEmit *e = v->e;
    LLVMValueRef lanes = aq_i64(e, e->lanes);
    LLVMValueRef start = v->start[v->type->rank - 1];
    LLVMValueRef count = LLVMBuildUDiv(e->builder, columns, lanes, "");
    v->first = LLVMBuildUDiv(e->builder, start, lanes, "");
    v->whole = LLVMBuildAdd(e->builder, v->first, count, "");
    v->left = LLVMBuildICmp(e->builder, LLVMIntNE,
                            LLVMBuildURem(e->builder, columns, lanes, ""),
                            aq_i64(e, 0), "");
}

static AqStatus evaluate_rows(Evaluation *v, LLVMValueRef count,
                              LLVMValueRef stride)
{
    AqEmit *e = v->e;
    int across = v->type->rank - 2;
    AqLoop rows;
    aq_loop_begin(e, &rows, aq_i64(e, 0), count, 1);
    aq_expr_enter(v->x, rows.before);
    LLVMValueRef row =
        LLVMBuildAdd(e->builder, v->start[across], rows.counter, "");
    v->index[across] = aq_index_variable(
        v->x->t, row, 0, v->type->dim[across] - 1, v->x->entered);
    v->to = aq_at(e, e->f32, aq_param(e, 2),
                  LLVMBuildMul(e->builder, rows.counter, stride, ""));
    evaluate_row(v);
    aq_expr_leave(v->x);
    aq_loop_end(e, &rows);
    LLVMBuildRetVoid(e->builder);
    return e->error->status;
}

static Evaluation evaluation_of(AqEmit *e, const AqOperandCode *code)
{
    return (Evaluation){.e = e,
                        .body = code->body,
                        .type = &aq_node(code->body, code->node)->type,
                        .id = code->node};
}

AqStatus aq_emit_evaluate(AqEmit *e, const void *context)
{
    LLVMTypeRef parameters[] = {e->pointer, e->pointer, e->pointer,
                                e->i64,     e->i64,     e->i64};
    aq_emit_function(e, e->nothing, parameters, AQ_COUNT(parameters));
    Evaluation v = evaluation_of(e, context);
    if (begin_evaluation(&v))
        return e->error->status;
    find_part(&v, aq_param(e, 5));
    return evaluate_rows(&v, aq_param(e, 4), aq_param(e, 3));
}
