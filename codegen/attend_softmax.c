/* The softmax of attention: exponential, running sum, log-sum-exp, and sums of
 * products along rows. */
#include "codegen/attend.h"

#include <math.h>

static LLVMValueRef real(AqEmit *e, double value)
{
    return aq_real_of(e, e->vf32, value);
}

LLVMValueRef aq_attend_larger(AqEmit *e, LLVMValueRef a, LLVMValueRef b)
{
    LLVMValueRef more = LLVMBuildFCmp(e->builder, LLVMRealOGT, a, b, "");
    return LLVMBuildSelect(e->builder, more, a, b, "");
}

/* ---- exponential ---- */

static LLVMValueRef polynomial(AqEmit *e, LLVMValueRef r, const double *c,
                               int count)
{
    LLVMValueRef p = real(e, c[count - 1]);
    for (int i = count - 2; i >= 0; i--)
        p = aq_fma(e, p, r, real(e, c[i]));
    return aq_fma(e, p, r, real(e, 1));
}

/* 2^x = 2^n 2^r, n = floor(x), 0 <= r <= 1, by AVX-512's own instructions:
 * `reduce` gives r, and `scalef` multiplies by 2^floor(x).  Infinities come out
 * right and NaN stays. */
static LLVMValueRef exp2_wide(AqEmit *e, LLVMValueRef x)
{
    enum { FLOOR_QUIETLY = 9, AS_USUAL = 4 };
    /* (2^r - 1) / r, the largest relative error of 2^r is 9e-8 */
    static const double c[] = {0.6931513118, 0.2401644499, 0.05579991388,
                               0.009017029253, 0.00186713057};
    LLVMTypeRef bits = LLVMIntTypeInContext(e->context, 16);
    LLVMValueRef all = LLVMConstAllOnes(bits), usual = aq_i32(e, AS_USUAL);
    LLVMValueRef rest[] = {x, aq_i32(e, FLOOR_QUIETLY), real(e, 0), all, usual};
    LLVMValueRef r = aq_intrinsic(e, "llvm.x86.avx512.mask.reduce.ps.512", NULL,
                                  0, rest, AQ_COUNT(rest));
    LLVMValueRef p = polynomial(e, r, c, AQ_COUNT(c));
    LLVMValueRef scaled[] = {p, x, real(e, 0), all, usual};
    return aq_intrinsic(e, "llvm.x86.avx512.mask.scalef.ps.512", NULL, 0,
                        scaled, AQ_COUNT(scaled));
}

/* 2^x = 2^n 2^r, n = round(x), |r| <= 1/2, to 2 units in the last place.  The
 * sum that rounds leaves n + 127 in the low bits, which are the exponent of
 * 2^n: 0 for n = -127, infinity for n = 128.  NaN passes the clamps. */
static LLVMValueRef exp2_clamped(AqEmit *e, LLVMValueRef x, bool below_zero)
{
    /* (2^r - 1) / r, the largest relative error of 2^r is 1e-7 */
    static const double c[] = {0.6931469776, 0.2402224208, 0.0555073376,
                               0.009671512983, 0.001326472227};
    static const double rounder = 0x1.8p23 + 127;
    LLVMValueRef most = real(e, 128);
    x = aq_attend_larger(e, real(e, -127), x);
    if (!below_zero) {
        LLVMValueRef less = LLVMBuildFCmp(e->builder, LLVMRealOLT, most, x, "");
        x = LLVMBuildSelect(e->builder, less, most, x, "");
    }
    LLVMValueRef t = LLVMBuildFAdd(e->builder, x, real(e, rounder), "");
    LLVMValueRef n = LLVMBuildFSub(e->builder, t, real(e, rounder), "");
    LLVMValueRef r = LLVMBuildFSub(e->builder, x, n, "");
    LLVMValueRef p = polynomial(e, r, c, AQ_COUNT(c));
    LLVMValueRef bits = LLVMBuildBitCast(e->builder, t, e->vi32, "");
    bits = LLVMBuildShl(e->builder, bits, aq_int_of(e, e->vi32, 23), "");
    LLVMValueRef power = LLVMBuildBitCast(e->builder, bits, e->vf32, "");
    return LLVMBuildFMul(e->builder, p, power, "");
}

LLVMValueRef aq_attend_exp2(AqEmit *e, LLVMValueRef x, bool below_zero)
{
    return e->lanes == 16 ? exp2_wide(e, x) : exp2_clamped(e, x, below_zero);
}

/* ---- running sum ---- */

static LLVMValueRef stat_at(AqEmit *e, int vectors, int which, int v)
{
    int64_t vector = (int64_t)which * vectors + v;
    return aq_float_at(e, aq_param(e, 0), aq_i64(e, vector * e->lanes));
}

/* Scores become 2^(score - top), added to sum. */
static void weigh(AqEmit *e, int vectors, const LLVMValueRef *top,
                  LLVMValueRef *sum)
{
    AqLoop rows;
    aq_loop_begin(e, &rows, aq_i64(e, 0), aq_param(e, 2), 1);
    for (int v = 0; v < vectors; v++)
        aq_loop_carry(e, &rows, sum[v]);
    LLVMValueRef row =
        LLVMBuildMul(e->builder, rows.counter, aq_i64(e, AQ_SCORE_ROW), "");
    row = aq_float_at(e, aq_param(e, 1), row);
    for (int v = 0; v < vectors; v++) {
        LLVMValueRef at = aq_float_at(e, row, aq_i64(e, (int64_t)v * e->lanes));
        LLVMValueRef x = aq_load(e, e->vf32, at);
        x = aq_attend_exp2(e, LLVMBuildFSub(e->builder, x, top[v], ""), true);
        aq_store(e, x, at);
        rows.next[v] = LLVMBuildFAdd(e->builder, rows.carried[v], x, "");
    }
    aq_loop_end(e, &rows);
    for (int v = 0; v < vectors; v++)
        sum[v] = rows.next[v];
}

/* (stats, scores, rows) */
AqStatus aq_emit_attend_softmax(AqEmit *e, const void *strip)
{
    int vectors = *(const int *)strip;
    LLVMTypeRef parameters[] = {e->pointer, e->pointer, e->i64};
    aq_emit_function(e, e->nothing, parameters, AQ_COUNT(parameters));
    LLVMValueRef top[AQ_MOST_VECTORS] = {0}, sum[AQ_MOST_VECTORS] = {0};
    for (int v = 0; v < vectors; v++) {
        top[v] = aq_load(e, e->vf32, stat_at(e, vectors, AQ_STATS_TOP, v));
        LLVMValueRef before =
            aq_load(e, e->vf32, stat_at(e, vectors, AQ_STATS_BEFORE, v));
        aq_store(e, top[v], stat_at(e, vectors, AQ_STATS_BEFORE, v));
        /* nothing seen yet but -inf: any finite number will do */
        LLVMValueRef none = LLVMBuildFCmp(e->builder, LLVMRealOEQ, top[v],
                                          real(e, -INFINITY), "");
        top[v] = LLVMBuildSelect(e->builder, none, real(e, 0), top[v], "");
        LLVMValueRef factor = aq_attend_exp2(
            e, LLVMBuildFSub(e->builder, before, top[v], ""), true);
        aq_store(e, factor, stat_at(e, vectors, AQ_STATS_FACTOR, v));
        sum[v] = aq_load(e, e->vf32, stat_at(e, vectors, AQ_STATS_SUM, v));
        sum[v] = LLVMBuildFMul(e->builder, sum[v], factor, "");
    }
    weigh(e, vectors, top, sum);
    for (int v = 0; v < vectors; v++)
        aq_store(e, sum[v], stat_at(e, vectors, AQ_STATS_SUM, v));
    LLVMBuildRetVoid(e->builder);
    return AQ_OK;
}

/* (stats): top = top ln 2 + log sum, factor = sum ? 1 / sum : 0 */
AqStatus aq_emit_attend_softmax_end(AqEmit *e, const void *strip)
{
    int vectors = *(const int *)strip;
    aq_emit_function(e, e->nothing, &e->pointer, 1);
    AqLoop loop;
    aq_loop_begin(e, &loop, aq_i64(e, 0),
                  aq_i64(e, (int64_t)vectors * e->lanes), e->lanes);
    LLVMValueRef at[AQ_STATS], zero = real(e, 0);
    for (int i = 0; i < AQ_STATS; i++)
        at[i] = aq_float_at(e, stat_at(e, vectors, i, 0), loop.counter);
    LLVMValueRef sum = aq_load(e, e->vf32, at[AQ_STATS_SUM]);
    LLVMValueRef top = aq_load(e, e->vf32, at[AQ_STATS_TOP]);
    top = aq_fma(e, top, real(e, M_LN2), aq_math_log(e, sum));
    aq_store(e, top, at[AQ_STATS_TOP]);
    LLVMValueRef none = LLVMBuildFCmp(e->builder, LLVMRealOEQ, sum, zero, "");
    LLVMValueRef factor = LLVMBuildFDiv(e->builder, real(e, 1), sum, "");
    factor = LLVMBuildSelect(e->builder, none, zero, factor, "");
    aq_store(e, factor, at[AQ_STATS_FACTOR]);
    aq_loop_end(e, &loop);
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
    aq_loop_begin(e, &rows, aq_i64(e, 0), aq_param(e, 4), 1);
    LLVMValueRef skip =
        LLVMBuildMul(e->builder, rows.counter, aq_param(e, 2), "");
    LLVMValueRef a = aq_float_at(e, aq_param(e, 0), skip);
    LLVMValueRef b = aq_float_at(e, aq_param(e, 1), skip);
    aq_loop_begin(e, &vectors, aq_i64(e, 0), aq_param(e, 5), e->lanes);
    aq_loop_carry(e, &vectors, real(e, 0));
    LLVMValueRef left =
        LLVMBuildSub(e->builder, aq_param(e, 5), vectors.counter, "");
    LLVMValueRef mask = aq_mask(e, left, e->lanes);
    LLVMValueRef x =
        aq_load_masked(e, e->vf32, aq_float_at(e, a, vectors.counter), mask);
    LLVMValueRef y =
        aq_load_masked(e, e->vf32, aq_float_at(e, b, vectors.counter), mask);
    vectors.next[0] = aq_fma(e, x, y, vectors.carried[0]);
    aq_loop_end(e, &vectors);
    LLVMValueRef sum = aq_tree(e, vectors.next[0], e->lanes, add);
    sum = LLVMBuildFMul(e->builder, aq_lane(e, sum, 0), aq_param(e, 6), "");
    aq_store(e, sum, aq_float_at(e, aq_param(e, 3), rows.counter));
    aq_loop_end(e, &rows);
    LLVMBuildRetVoid(e->builder);
    return AQ_OK;
}
