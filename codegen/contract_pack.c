/* Leaves that bring operands into panels: copies and transposes. */
#include "codegen/contract.h"

#include <string.h>

static LLVMValueRef float_at_row(AqEmit *e, LLVMValueRef base, LLVMValueRef row,
                                 LLVMValueRef stride)
{
    return aq_float_at(e, base, LLVMBuildMul(e->builder, row, stride, ""));
}

/* The largest multiple of the vector that is not above `count`. */
static LLVMValueRef whole_vectors(AqEmit *e, LLVMValueRef count)
{
    return LLVMBuildAnd(e->builder, count, aq_i64(e, -(int64_t)e->lanes), "");
}

AqStatus aq_emit_copy(AqEmit *e, const void *context)
{
    (void)context;
    LLVMTypeRef parameters[] = {e->pointer, e->i64, e->pointer,
                                e->i64,     e->i64, e->i64};
    aq_emit_function(e, e->nothing, parameters, AQ_COUNT(parameters));
    LLVMValueRef zero = aq_i64(e, 0), count = aq_param(e, 5);
    LLVMValueRef whole = whole_vectors(e, count);
    LLVMValueRef left = LLVMBuildSub(e->builder, count, whole, "");
    LLVMValueRef mask = aq_mask(e, left, e->lanes);
    AqLoop rows, vectors;
    aq_loop_begin(e, &rows, zero, aq_param(e, 4), 1);
    LLVMValueRef from =
        float_at_row(e, aq_param(e, 0), rows.counter, aq_param(e, 1));
    LLVMValueRef to =
        float_at_row(e, aq_param(e, 2), rows.counter, aq_param(e, 3));

    LLVMBasicBlockRef skip = aq_only_if_less(e, zero, whole);
    aq_loop_begin(e, &vectors, zero, whole, e->lanes);
    aq_store(e, aq_load(e, e->vf32, aq_float_at(e, from, vectors.counter)),
             aq_float_at(e, to, vectors.counter));
    aq_loop_end(e, &vectors);
    aq_go_on(e, skip);

    skip = aq_only_if_less(e, whole, count);
    LLVMValueRef tail =
        aq_load_masked(e, e->vf32, aq_float_at(e, from, whole), mask);
    aq_store_masked(e, tail, aq_float_at(e, to, whole), mask);
    aq_go_on(e, skip);
    aq_loop_end(e, &rows);
    LLVMBuildRetVoid(e->builder);
    return AQ_OK;
}

AqStatus aq_emit_panel(AqEmit *e, const void *context)
{
    int64_t strip = *(const int64_t *)context;
    LLVMTypeRef parameters[] = {e->pointer, e->i64, e->pointer, e->i64, e->i64};
    aq_emit_function(e, e->nothing, parameters, AQ_COUNT(parameters));
    LLVMValueRef mask[AQ_MOST_VECTORS], place[AQ_MOST_VECTORS];
    int vectors = (int)strip / e->lanes;
    for (int v = 0; v < vectors; v++) {
        place[v] = aq_i64(e, (int64_t)v * e->lanes);
        mask[v] =
            aq_mask(e, LLVMBuildSub(e->builder, aq_param(e, 4), place[v], ""),
                    e->lanes);
    }
    AqLoop rows;
    aq_loop_begin(e, &rows, aq_i64(e, 0), aq_param(e, 3), 1);
    LLVMValueRef from =
        float_at_row(e, aq_param(e, 0), rows.counter, aq_param(e, 1));
    LLVMValueRef to =
        float_at_row(e, aq_param(e, 2), rows.counter, aq_i64(e, strip));
    for (int v = 0; v < vectors; v++)
        aq_store(
            e,
            aq_load_masked(e, e->vf32, aq_float_at(e, from, place[v]), mask[v]),
            aq_float_at(e, to, place[v]));
    aq_loop_end(e, &rows);
    LLVMBuildRetVoid(e->builder);
    return AQ_OK;
}

/* A square of vectors transposed by perfect shuffles: log2(lanes) times
 * (in[i], in[i + half]) -> (low halves interleaved, high halves interleaved).
 */
static void transpose_square(AqEmit *e, LLVMValueRef *square)
{
    int lanes = e->lanes, low[64], high[64];
    for (int i = 0; i < lanes; i++) {
        low[i] = i / 2 + (i % 2 ? lanes : 0);
        high[i] = low[i] + lanes / 2;
    }
    for (int round = 1; round < lanes; round *= 2) {
        LLVMValueRef next[64];
        for (int i = 0; i < lanes / 2; i++) {
            LLVMValueRef a = square[i], b = square[i + lanes / 2];
            next[2 * i] = aq_shuffle(e, a, b, low, lanes);
            next[2 * i + 1] = aq_shuffle(e, a, b, high, lanes);
        }
        memcpy(square, next, (size_t)lanes * sizeof *square);
    }
}

AqStatus aq_emit_transpose(AqEmit *e, const void *context)
{
    LLVMTypeRef parameters[] = {e->pointer, e->i64, e->pointer,
                                e->i64,     e->i64, e->i64};
    aq_emit_function(e, e->nothing, parameters, AQ_COUNT(parameters));
    int columns = (int)*(const int64_t *)context, lanes = e->lanes;
    LLVMValueRef last =
        LLVMBuildSub(e->builder, aq_param(e, 4), aq_i64(e, 1), "");
    LLVMValueRef from[64]; /* rows that are not there repeat the last one */
    for (int r = 0; r < columns; r++) {
        LLVMValueRef row = aq_i64(e, r);
        LLVMValueRef there =
            LLVMBuildICmp(e->builder, LLVMIntSLT, row, last, "");
        row = LLVMBuildSelect(e->builder, there, row, last, "");
        from[r] = float_at_row(e, aq_param(e, 0), row, aq_param(e, 1));
    }
    AqLoop loop;
    aq_loop_begin(e, &loop, aq_i64(e, 0), aq_param(e, 5), lanes);
    LLVMValueRef to =
        float_at_row(e, aq_param(e, 2), loop.counter, aq_param(e, 3));
    for (int r0 = 0; r0 < columns; r0 += lanes) {
        LLVMValueRef square[64];
        for (int i = 0; i < lanes; i++)
            square[i] =
                aq_load(e, e->vf32, aq_float_at(e, from[r0 + i], loop.counter));
        transpose_square(e, square);
        for (int i = 0; i < lanes; i++)
            aq_store(e, square[i],
                     aq_float_at(
                         e, float_at_row(e, to, aq_i64(e, i), aq_param(e, 3)),
                         aq_i64(e, r0)));
    }
    aq_loop_end(e, &loop);
    LLVMBuildRetVoid(e->builder);
    return AQ_OK;
}
