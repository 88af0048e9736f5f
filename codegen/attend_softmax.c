/* The softmax of attention: exponential, running maximum and sum, log-sum-exp,
 * and sums of products along rows. */
#include "codegen/attend.h"

#include <math.h>

static LLVMValueRef param(AqEmit *e, unsigned index)
{
    return LLVMGetParam(e->function, index);
}

static LLVMValueRef float_at(AqEmit *e, LLVMValueRef base, LLVMValueRef index)
{
    return aq_at(e, e->f32, base, index);
}

static LLVMValueRef real(AqEmit *e, double value)
{
    return aq_real_of(e, e->vf32, value);
}

/* a > b ? a : b, one instruction; b where one is NaN */
static LLVMValueRef larger(AqEmit *e, LLVMValueRef a, LLVMValueRef b)
{
    LLVMValueRef more = LLVMBuildFCmp(e->builder, LLVMRealOGT, a, b, "");
    return LLVMBuildSelect(e->builder, more, a, b, "");
}

/* ---- exponential ---- */

/* 2^x = 2^n 2^r, n = round(x), |r| <= 1/2, to 2 units in the last place.  The
 * sum that rounds leaves n + 127 in the low bits, which are the exponent of
 * 2^n: 0 for n = -127, infinity for n = 128.  NaN passes the clamps. */
LLVMValueRef aq_attend_exp2(AqEmit *e, LLVMValueRef x, bool below_zero)
{
    /* (2^r - 1) / r, the largest relative error of 2^r is 1e-7 */
    static const double c[] = {0.6931469776, 0.2402224208, 0.0555073376,
                               0.009671512983, 0.001326472227};
    static const double rounder = 0x1.8p23 + 127;
    LLVMValueRef most = real(e, 128), one = real(e, 1);
    x = larger(e, real(e, -127), x);
    if (!below_zero) {
        LLVMValueRef less = LLVMBuildFCmp(e->builder, LLVMRealOLT, most, x, "");
        x = LLVMBuildSelect(e->builder, less, most, x, "");
    }
    LLVMValueRef t = LLVMBuildFAdd(e->builder, x, real(e, rounder), "");
    LLVMValueRef n = LLVMBuildFSub(e->builder, t, real(e, rounder), "");
    LLVMValueRef r = LLVMBuildFSub(e->builder, x, n, "");
    LLVMValueRef p = real(e, c[AQ_COUNT(c) - 1]);
    for (int i = AQ_COUNT(c) - 2; i >= 0; i--)
        p = aq_fma(e, p, r, real(e, c[i]));
    p = aq_fma(e, p, r, one);
    LLVMValueRef bits = LLVMBuildBitCast(e->builder, t, e->vi32, "");
    bits = LLVMBuildShl(e->builder, bits, aq_int_of(e, e->vi32, 23), "");
    LLVMValueRef power = LLVMBuildBitCast(e->builder, bits, e->vf32, "");
    return LLVMBuildFMul(e->builder, p, power, "");
}

/* ---- running maximum and sum ---- */

enum { VECTORS = 2 };

static LLVMValueRef stat_at(AqEmit *e, LLVMValueRef stats, int which, int v)
{
    return float_at(e, stats,
                    aq_i64(e, ((int64_t)which * VECTORS + v) * e->lanes));
}

static LLVMValueRef score_at(AqEmit *e, LLVMValueRef row, int v)
{
    LLVMValueRef at =
        LLVMBuildMul(e->builder, row, aq_i64(e, AQ_SCORE_ROW), "");
    at = LLVMBuildAdd(e->builder, at, aq_i64(e, (int64_t)v * e->lanes), "");
    return float_at(e, param(e, 0), at);
}

/* top[v] = max of it and the scores, GROUP rows a round; behind the end the
 * last row counts again. */
static void find_top(AqEmit *e, LLVMValueRef *top)
{
    enum { GROUP = 4 };
    LLVMValueRef last = LLVMBuildSub(e->builder, param(e, 1), aq_i64(e, 1), "");
    AqLoop rows;
    aq_loop_begin(e, &rows, aq_i64(e, 0), param(e, 1), GROUP);
    for (int v = 0; v < VECTORS; v++)
        aq_loop_carry(e, &rows, top[v]);
    LLVMValueRef here[VECTORS] = {0};
    for (int u = 0; u < GROUP; u++) {
        LLVMValueRef row =
            LLVMBuildAdd(e->builder, rows.counter, aq_i64(e, u), "");
        LLVMValueRef there =
            LLVMBuildICmp(e->builder, LLVMIntSLT, row, last, "");
        row = LLVMBuildSelect(e->builder, there, row, last, "");
        for (int v = 0; v < VECTORS; v++) {
            LLVMValueRef x = aq_load(e, e->vf32, score_at(e, row, v));
            here[v] = here[v] ? larger(e, x, here[v]) : x;
        }
    }
    /* a NaN in `here` loses, as one in a row does */
    for (int v = 0; v < VECTORS; v++)
        rows.next[v] = larger(e, here[v], rows.carried[v]);
    aq_loop_end(e, &rows);
    for (int v = 0; v < VECTORS; v++)
        top[v] = rows.next[v];
}

/* Scores become 2^(score - top), added to sum. */
static void weigh(AqEmit *e, const LLVMValueRef *top, LLVMValueRef *sum)
{
    AqLoop rows;
    aq_loop_begin(e, &rows, aq_i64(e, 0), param(e, 1), 1);
    for (int v = 0; v < VECTORS; v++)
        aq_loop_carry(e, &rows, sum[v]);
    for (int v = 0; v < VECTORS; v++) {
        LLVMValueRef at = score_at(e, rows.counter, v);
        LLVMValueRef x = aq_load(e, e->vf32, at);
        x = aq_attend_exp2(e, LLVMBuildFSub(e->builder, x, top[v], ""), true);
        aq_store(e, x, at);
        rows.next[v] = LLVMBuildFAdd(e->builder, rows.carried[v], x, "");
    }
    aq_loop_end(e, &rows);
    for (int v = 0; v < VECTORS; v++)
        sum[v] = rows.next[v];
}

/* (scores, rows, stats) */
AqStatus aq_emit_attend_softmax(AqEmit *e, const void *context)
{
    (void)context;
    LLVMTypeRef parameters[] = {e->pointer, e->i64, e->pointer};
    aq_emit_function(e, e->nothing, parameters, AQ_COUNT(parameters));
    LLVMValueRef old[VECTORS], top[VECTORS], sum[VECTORS];
    for (int v = 0; v < VECTORS; v++)
        top[v] = old[v] =
            aq_load(e, e->vf32, stat_at(e, param(e, 2), AQ_STATS_TOP, v));
    find_top(e, top);
    for (int v = 0; v < VECTORS; v++) {
        aq_store(e, top[v], stat_at(e, param(e, 2), AQ_STATS_TOP, v));
        /* nothing seen yet but -inf: any finite number will do */
        LLVMValueRef none = LLVMBuildFCmp(e->builder, LLVMRealOEQ, top[v],
                                          real(e, -INFINITY), "");
        top[v] = LLVMBuildSelect(e->builder, none, real(e, 0), top[v], "");
        LLVMValueRef factor = aq_attend_exp2(
            e, LLVMBuildFSub(e->builder, old[v], top[v], ""), true);
        aq_store(e, factor, stat_at(e, param(e, 2), AQ_STATS_FACTOR, v));
        sum[v] = aq_load(e, e->vf32, stat_at(e, param(e, 2), AQ_STATS_SUM, v));
        sum[v] = LLVMBuildFMul(e->builder, sum[v], factor, "");
    }
    weigh(e, top, sum);
    for (int v = 0; v < VECTORS; v++)
        aq_store(e, sum[v], stat_at(e, param(e, 2), AQ_STATS_SUM, v));
    LLVMBuildRetVoid(e->builder);
    return AQ_OK;
}

/* (stats): top = top ln 2 + log sum, factor = sum ? 1 / sum : 0 */
AqStatus aq_emit_attend_softmax_end(AqEmit *e, const void *context)
{
    (void)context;
    aq_emit_function(e, e->nothing, &e->pointer, 1);
    LLVMValueRef stats = param(e, 0), zero = real(e, 0);
    for (int v = 0; v < VECTORS; v++) {
        LLVMValueRef sum =
            aq_load(e, e->vf32, stat_at(e, stats, AQ_STATS_SUM, v));
        LLVMValueRef top =
            aq_load(e, e->vf32, stat_at(e, stats, AQ_STATS_TOP, v));
        top = aq_fma(e, top, real(e, M_LN2), aq_math_log(e, sum));
        aq_store(e, top, stat_at(e, stats, AQ_STATS_TOP, v));
        LLVMValueRef none =
            LLVMBuildFCmp(e->builder, LLVMRealOEQ, sum, zero, "");
        LLVMValueRef factor = LLVMBuildFDiv(e->builder, real(e, 1), sum, "");
        factor = LLVMBuildSelect(e->builder, none, zero, factor, "");
        aq_store(e, factor, stat_at(e, stats, AQ_STATS_FACTOR, v));
    }
    LLVMBuildRetVoid(e->builder);
    return AQ_OK;
}

/* ---- rows ---- */

static LLVMValueRef add(AqEmit *e, LLVMValueRef a, LLVMValueRef b)
{
    return LLVMBuildFAdd(e->builder, a, b, "");
}

/* (a, b, row, to, rows, depth, factor) */
AqStatus aq_emit_attend_row_product(AqEmit *e, const void *context)
{
    (void)context;
    LLVMTypeRef parameters[] = {e->pointer, e->pointer, e->i64, e->pointer,
                                e->i64,     e->i64,     e->f32};
    aq_emit_function(e, e->nothing, parameters, AQ_COUNT(parameters));
    AqLoop rows, vectors;
    aq_loop_begin(e, &rows, aq_i64(e, 0), param(e, 4), 1);
    LLVMValueRef skip = LLVMBuildMul(e->builder, rows.counter, param(e, 2), "");
    LLVMValueRef a = float_at(e, param(e, 0), skip);
    LLVMValueRef b = float_at(e, param(e, 1), skip);
    aq_loop_begin(e, &vectors, aq_i64(e, 0), param(e, 5), e->lanes);
    aq_loop_carry(e, &vectors, real(e, 0));
    LLVMValueRef left =
        LLVMBuildSub(e->builder, param(e, 5), vectors.counter, "");
    LLVMValueRef mask = aq_mask(e, left, e->lanes);
    LLVMValueRef x =
        aq_load_masked(e, e->vf32, float_at(e, a, vectors.counter), mask);
    LLVMValueRef y =
        aq_load_masked(e, e->vf32, float_at(e, b, vectors.counter), mask);
    vectors.next[0] = aq_fma(e, x, y, vectors.carried[0]);
    aq_loop_end(e, &vectors);
    LLVMValueRef sum = aq_tree(e, vectors.next[0], e->lanes, add);
    sum = LLVMBuildFMul(e->builder, aq_lane(e, sum, 0), param(e, 6), "");
    aq_store(e, sum, float_at(e, param(e, 3), rows.counter));
    aq_loop_end(e, &rows);
    LLVMBuildRetVoid(e->builder);
    return AQ_OK;
}
