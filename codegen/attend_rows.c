/* Leaves of attention that copy and transpose rows of tokens. */
#include "codegen/attend.h"

#include <string.h>

static LLVMValueRef param(AqEmit *e, unsigned index)
{
    return LLVMGetParam(e->function, index);
}

static LLVMValueRef float_at(AqEmit *e, LLVMValueRef base, LLVMValueRef index)
{
    return aq_at(e, e->f32, base, index);
}

static LLVMValueRef float_at_row(AqEmit *e, LLVMValueRef base, LLVMValueRef row,
                                 LLVMValueRef stride)
{
    return float_at(e, base, LLVMBuildMul(e->builder, row, stride, ""));
}

/* Lanes of the vector that begins at `start` and ends before `end`. */
static LLVMValueRef lanes_before(AqEmit *e, LLVMValueRef start,
                                 LLVMValueRef end)
{
    return aq_mask(e, LLVMBuildSub(e->builder, end, start, ""), e->lanes);
}

/* A square of vectors transposed: in rounds of half = 1, 2, 4, ... blocks of
 * half rows by half lanes change places across the diagonal. */
static void transpose(AqEmit *e, LLVMValueRef *square)
{
    int lanes = e->lanes, low[64], high[64];
    for (int half = 1; half < lanes; half *= 2) {
        for (int i = 0; i < lanes; i++) {
            low[i] = i & half ? lanes + i - half : i;
            high[i] = i & half ? lanes + i : i + half;
        }
        for (int r = 0; r < lanes; r++) {
            if (r & half)
                continue;
            LLVMValueRef a = square[r], b = square[r + half];
            square[r] = aq_shuffle(e, a, b, low, lanes);
            square[r + half] = aq_shuffle(e, a, b, high, lanes);
        }
    }
}

/* (from, from_row, to, rows, depth, factor) */
AqStatus aq_emit_attend_spread(AqEmit *e, const void *vectors)
{
    int64_t strip = (int64_t)*(const int *)vectors * e->lanes;
    LLVMTypeRef parameters[] = {e->pointer, e->i64, e->pointer,
                                e->i64,     e->i64, e->f32};
    aq_emit_function(e, e->nothing, parameters, AQ_COUNT(parameters));
    int lanes = e->lanes;
    LLVMValueRef zero = aq_i64(e, 0), depth = param(e, 4);
    LLVMValueRef factor = aq_splat(e, param(e, 5), lanes);
    LLVMValueRef last = LLVMBuildSub(e->builder, param(e, 3), aq_i64(e, 1), "");
    AqLoop halves, squares;
    aq_loop_begin(e, &halves, zero, aq_i64(e, strip), lanes);
    LLVMValueRef from[64], square[64];
    for (int i = 0; i < lanes; i++) {
        LLVMValueRef row =
            LLVMBuildAdd(e->builder, halves.counter, aq_i64(e, i), "");
        LLVMValueRef there =
            LLVMBuildICmp(e->builder, LLVMIntSLT, row, last, "");
        row = LLVMBuildSelect(e->builder, there, row, last, "");
        from[i] = float_at_row(e, param(e, 0), row, param(e, 1));
    }
    LLVMValueRef to = float_at(e, param(e, 2), halves.counter);
    aq_loop_begin(e, &squares, zero, depth, lanes);
    LLVMValueRef mask = lanes_before(e, squares.counter, depth);
    for (int i = 0; i < lanes; i++) {
        LLVMValueRef at = float_at(e, from[i], squares.counter);
        LLVMValueRef x = aq_load_masked(e, e->vf32, at, mask);
        square[i] = LLVMBuildFMul(e->builder, x, factor, "");
    }
    transpose(e, square);
    LLVMValueRef width = aq_i64(e, strip);
    for (int i = 0; i < lanes; i++) {
        LLVMValueRef row =
            LLVMBuildAdd(e->builder, squares.counter, aq_i64(e, i), "");
        aq_store(e, square[i], float_at_row(e, to, row, width));
    }
    aq_loop_end(e, &squares);
    aq_loop_end(e, &halves);
    LLVMBuildRetVoid(e->builder);
    return AQ_OK;
}

/* (from, to, to_row, rows, depth, factor, spare) */
AqStatus aq_emit_attend_collect(AqEmit *e, const void *vectors)
{
    int64_t strip = (int64_t)*(const int *)vectors * e->lanes;
    LLVMTypeRef parameters[] = {e->pointer, e->pointer, e->i64,    e->i64,
                                e->i64,     e->pointer, e->pointer};
    aq_emit_function(e, e->nothing, parameters, AQ_COUNT(parameters));
    int lanes = e->lanes;
    LLVMValueRef zero = aq_i64(e, 0), depth = param(e, 4), to[64], square[64];
    AqLoop halves, squares;
    aq_loop_begin(e, &halves, zero, param(e, 3), lanes);
    LLVMValueRef factor =
        aq_load(e, e->vf32, float_at(e, param(e, 5), halves.counter));
    LLVMValueRef from = float_at(e, param(e, 0), halves.counter);
    aq_loop_begin(e, &squares, zero, depth, lanes);
    LLVMValueRef mask = lanes_before(e, squares.counter, depth);
    LLVMValueRef width = aq_i64(e, strip);
    for (int i = 0; i < lanes; i++) {
        LLVMValueRef row =
            LLVMBuildAdd(e->builder, squares.counter, aq_i64(e, i), "");
        LLVMValueRef x = aq_load(e, e->vf32, float_at_row(e, from, row, width));
        square[i] = LLVMBuildFMul(e->builder, x, factor, "");
    }
    transpose(e, square);
    for (int i = 0; i < lanes; i++) {
        LLVMValueRef row =
            LLVMBuildAdd(e->builder, halves.counter, aq_i64(e, i), "");
        LLVMValueRef there =
            LLVMBuildICmp(e->builder, LLVMIntSLT, row, param(e, 3), "");
        to[i] = float_at(e, float_at_row(e, param(e, 1), row, param(e, 2)),
                         squares.counter);
        to[i] = LLVMBuildSelect(e->builder, there, to[i], param(e, 6), "");
        aq_store_masked(e, square[i], to[i], mask);
    }
    aq_loop_end(e, &squares);
    aq_loop_end(e, &halves);
    LLVMBuildRetVoid(e->builder);
    return AQ_OK;
}

/* (from, from_row, to, to_row, rows, depth) */
AqStatus aq_emit_attend_panel(AqEmit *e, const void *context)
{
    (void)context;
    LLVMTypeRef parameters[] = {e->pointer, e->i64, e->pointer,
                                e->i64,     e->i64, e->i64};
    aq_emit_function(e, e->nothing, parameters, AQ_COUNT(parameters));
    AqLoop rows, vectors;
    aq_loop_begin(e, &rows, aq_i64(e, 0), param(e, 4), 1);
    LLVMValueRef from = float_at_row(e, param(e, 0), rows.counter, param(e, 1));
    LLVMValueRef to = float_at_row(e, param(e, 2), rows.counter, param(e, 3));
    aq_loop_begin(e, &vectors, aq_i64(e, 0), param(e, 5), e->lanes);
    LLVMValueRef mask = lanes_before(e, vectors.counter, param(e, 5));
    LLVMValueRef at = float_at(e, from, vectors.counter);
    aq_store(e, aq_load_masked(e, e->vf32, at, mask),
             float_at(e, to, vectors.counter));
    aq_loop_end(e, &vectors);
    aq_loop_end(e, &rows);
    LLVMBuildRetVoid(e->builder);
    return AQ_OK;
}
