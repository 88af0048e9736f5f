/* The leaf that writes a tile: the kernel's results where the contraction's
 * value lies in the tile, everything else of the body evaluated in place.
 *
 *   for each row of the tile:  for its vectors:  results[...] = body(tile)
 *
 * What is reduced runs along in registers (contract_sums.h). */
#include "codegen/contract.h"

#include <string.h>

typedef struct Store {
    AqEmit *e;
    AqExpr *x;
    const AqStoreCode *code;
    const AqType *type;              /* of the contraction */
    LLVMValueRef start[AQ_MAX_RANK]; /* of the first row */
    AqIndex index[AQ_MAX_RANK];
    LLVMValueRef sums; /* the tile's vector at the index */
    AqRunning running;
} Store;

enum {
    PARAM_BUFFERS,
    PARAM_TILE,
    PARAM_INDEX,
    PARAM_STEP,
    PARAM_ROWS,
    PARAM_COLUMNS,
    PARAM_SUMS,
    PARAM_TAKEN,
};

static LLVMValueRef buffer(AqEmit *e, LLVMValueRef buffers, int64_t index)
{
    return aq_load(e, e->pointer,
                   aq_at(e, e->pointer, buffers, aq_i64(e, index)));
}

AqExpr *aq_contract_expr(AqEmit *e, const AqGraph *body, LLVMValueRef buffers)
{
    int64_t count = 0;
    for (AqId id = 0; id < body->count; id++)
        if (aq_node(body, id)->op == AQ_OP_arg)
            count = AQ_MAX(count,
                           1 + aq_attr_int(aq_node(body, id), AQ_KEY_INDEX, 0));
    LLVMValueRef *bases = AQ_NEW_ARRAY(e->arena, LLVMValueRef, count + 1);
    if (!bases) {
        aq_no_memory(e->error, sizeof *bases);
        return NULL;
    }
    for (int64_t i = 0; i < count; i++)
        bases[i] = buffer(e, buffers, i);
    return aq_expr_new(e, body, bases, e->lanes);
}

static LLVMValueRef tile_value(AqExpr *x, AqId node, const AqIndex *index,
                               void *context)
{
    const Store *s = context;
    (void)x, (void)index;
    return node == s->code->contraction ? s->sums : NULL;
}

static LLVMValueRef value_at(Store *s, AqId id)
{
    const AqType *type = &aq_node(s->code->body, id)->type;
    if (aq_same_shape(type, s->type))
        return aq_expr_vector(s->x, id, s->index);
    AqIndex other[AQ_MAX_RANK];
    aq_expr_unravel(s->x->t, type, aq_expr_offset(s->x, s->type, s->index),
                    other);
    return aq_expr_vector(s->x, id, other);
}

/* All are computed before any is stored: a result may share an input's
 * memory.  `row` of the tile, `v` of the strip. */
static void store_vector(Store *s, LLVMValueRef *out, LLVMValueRef mask,
                         LLVMValueRef row, int v)
{
    const AqGraph *body = s->code->body;
    const AqSums *sums = &s->code->sums;
    LLVMValueRef values[AQ_MAX_RESULTS] = {NULL};
    AqIndex offset = aq_expr_offset(s->x, s->type, s->index);
    aq_expr_mask(s->x, mask, 0);
    for (int i = 0; i < body->n_outputs; i++)
        if (out[i])
            values[i] = value_at(s, body->outputs[i].node);
    for (int i = 0; i < sums->count; i++)
        aq_running_take(&s->running, i, v, row, value_at(s, sums->of[i].value));
    for (int i = 0; i < body->n_outputs; i++)
        if (out[i])
            aq_expr_store(s->x, out[i], offset, values[i]);
    aq_expr_mask(s->x, NULL, 0);
}

/* Column of vector v of the strip, as an index. */
static AqIndex column_index(Store *s, int v)
{
    int last = s->type->rank - 1, lanes = s->e->lanes;
    int64_t width = s->type->dim[last];
    AqIndexTable *t = s->x->t;
    AqIndex base;
    if (s->code->columns != width) { /* groups */
        base = aq_index_variable(t, s->start[last], 0, width - 1, 0);
    } else {
        int64_t columns = s->code->strip;
        LLVMValueRef strip = LLVMBuildSDiv(s->e->builder, s->start[last],
                                           aq_i64(s->e, columns), "");
        AqIndex number =
            aq_index_variable(t, strip, 0, (width - 1) / columns, 0);
        base = aq_index_scale(t, number, columns);
    }
    base = aq_index_add(t, base, aq_index_constant(t, (int64_t)v * lanes));
    return aq_index_vector(t, base, width);
}

/* All rows, with the vectors' masks (NULL: whole). */
static void store_rows(Store *s, LLVMValueRef *out, const AqIndex *columns,
                       LLVMValueRef *masks, int vectors)
{
    AqEmit *e = s->e;
    int rank = s->type->rank;
    AqLoop rows;
    s->running.vectors = vectors;
    int carried = s->code->sums.count ? aq_running_load(&s->running) : 0;
    aq_loop_begin(e, &rows, aq_i64(e, 0), LLVMGetParam(e->function, PARAM_ROWS),
                  1);
    for (int i = 0; i < carried; i++)
        aq_loop_carry(e, &rows, s->running.v[i]);
    memcpy(s->running.v, rows.carried, sizeof rows.carried);
    aq_expr_enter(s->x, rows.before);
    LLVMValueRef step = LLVMBuildMul(e->builder, rows.counter,
                                     LLVMGetParam(e->function, PARAM_STEP), "");
    LLVMValueRef row = LLVMBuildAdd(e->builder, s->start[rank - 2], step, "");
    s->index[rank - 2] = aq_index_variable(
        s->x->t, row, 0, s->type->dim[rank - 2] - 1, s->x->entered);
    LLVMValueRef at =
        LLVMBuildMul(e->builder, rows.counter, aq_i64(e, s->code->strip), "");
    LLVMValueRef tile =
        aq_at(e, e->f32, LLVMGetParam(e->function, PARAM_TILE), at);
    for (int v = 0; v < vectors; v++) {
        LLVMValueRef place = aq_i64(e, (int64_t)v * e->lanes);
        s->sums = aq_load(e, e->vf32, aq_at(e, e->f32, tile, place));
        s->index[rank - 1] = columns[v];
        store_vector(s, out, masks[v], rows.counter, v);
    }
    aq_expr_leave(s->x);
    aq_expr_forget(s->x); /* what stands before this loop alone */
    memcpy(rows.next, s->running.v, sizeof rows.next);
    aq_loop_end(e, &rows);
    memcpy(s->running.v, rows.next, sizeof rows.next);
    if (carried)
        aq_running_store(&s->running);
}

static void store_begin(Store *s)
{
    AqEmit *e = s->e;
    LLVMTypeRef parameters[] = {e->pointer, e->pointer, e->pointer, e->i64,
                                e->i64,     e->i64,     e->pointer, e->i64};
    aq_emit_function(e, e->nothing, parameters, AQ_COUNT(parameters));
    s->running = (AqRunning){.e = e,
                             .sums = &s->code->sums,
                             .at = LLVMGetParam(e->function, PARAM_SUMS),
                             .taken = LLVMGetParam(e->function, PARAM_TAKEN)};
}

static AqStatus store_expr(Store *s)
{
    AqEmit *e = s->e;
    s->x = aq_contract_expr(e, s->code->body,
                            LLVMGetParam(e->function, PARAM_BUFFERS));
    if (!s->x)
        return aq_no_memory(e->error, sizeof *s->x);
    s->x->hook = tile_value;
    s->x->hook_context = s;
    aq_expr_pin(s->x, s->code->contraction);
    for (int d = 0; d < s->type->rank; d++) {
        LLVMValueRef from = aq_at(
            e, e->i64, LLVMGetParam(e->function, PARAM_INDEX), aq_i64(e, d));
        s->start[d] = aq_load(e, e->i64, from);
        s->index[d] =
            aq_index_variable(s->x->t, s->start[d], 0, s->type->dim[d] - 1, 0);
    }
    return AQ_OK;
}

/* A strip of `count` columns: whole vectors, and a masked one. */
static void store_strip(Store *s, LLVMValueRef *out, int64_t count)
{
    AqEmit *e = s->e;
    AqIndex columns[AQ_MOST_VECTORS];
    LLVMValueRef mask[AQ_MOST_VECTORS] = {NULL};
    int vectors = (int)((count + e->lanes - 1) / e->lanes);
    for (int v = 0; v < vectors; v++) {
        int64_t left = count - (int64_t)v * e->lanes;
        columns[v] = column_index(s, v);
        if (left < e->lanes)
            mask[v] = aq_constant_mask(e, (int)left, e->lanes);
    }
    store_rows(s, out, columns, mask, vectors);
    LLVMBuildRetVoid(e->builder);
}

AqStatus aq_emit_tile_store(AqEmit *e, const void *context)
{
    const AqStoreCode *code = context;
    Store s = {.e = e,
               .code = code,
               .type = &aq_node(code->body, code->contraction)->type};
    store_begin(&s);
    if (store_expr(&s))
        return e->error->status;
    LLVMValueRef out[AQ_MAX_RESULTS] = {NULL}; /* NULL: a reduction */
    for (int i = 0; i < code->body->n_outputs; i++)
        if (!aq_is_sum(code->body, code->body->outputs[i].node))
            out[i] = buffer(e, LLVMGetParam(e->function, PARAM_BUFFERS),
                            code->n_inputs + i);
    int64_t strip = code->strip, left = code->columns % strip;
    if (code->columns >= strip && left > 0) {
        LLVMBasicBlockRef whole = aq_emit_block(e, "whole");
        LLVMBasicBlockRef part = aq_emit_block(e, "part");
        LLVMValueRef all = LLVMBuildICmp(
            e->builder, LLVMIntEQ, LLVMGetParam(e->function, PARAM_COLUMNS),
            aq_i64(e, strip), "");
        LLVMBuildCondBr(e->builder, all, whole, part);
        LLVMPositionBuilderAtEnd(e->builder, whole);
        store_strip(&s, out, strip);
        LLVMPositionBuilderAtEnd(e->builder, part);
    }
    store_strip(&s, out, left > 0 ? left : strip);
    return e->error->status;
}
