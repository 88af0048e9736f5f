/* Elementary functions of floats, for scalars and vectors alike, with no call.
 *
 * Largest errors over all floats, in units in the last place, the same at both
 * levels: log 0.94, exp 1.02, erf 1.16, tanh 1.34, rsqrt 1.50, sin and cos 1.55
 * up to |x| = 2^48, sigmoid 2.49 (tests/codegen/vmath_test.c holds them to it,
 * and its slow tests look at every float).  Where the exact result is
 * denormal, zero is as good. Beyond 2^48 sine and cosine are some number in -1
 * .. 1: there the gap between neighbouring floats is millions of periods.
 *
 * The polynomials are minimax fits of our own; each says what it stands for. */
#include "codegen/emit.h"

#include <math.h>

/* ---- shorthand ---- */

static LLVMValueRef real(AqEmit *e, LLVMValueRef like, double value)
{
    return aq_real_of(e, LLVMTypeOf(like), value);
}

static LLVMTypeRef ints_like(AqEmit *e, LLVMValueRef like)
{
    int lanes = aq_lanes(LLVMTypeOf(like));
    return lanes ? aq_vector(e->i32, lanes) : e->i32;
}

static LLVMValueRef integer(AqEmit *e, LLVMValueRef like, int64_t value)
{
    return aq_int_of(e, ints_like(e, like), value);
}

static LLVMValueRef bits_of(AqEmit *e, LLVMValueRef x)
{
    return LLVMBuildBitCast(e->builder, x, ints_like(e, x), "");
}

static LLVMValueRef mul(AqEmit *e, LLVMValueRef a, LLVMValueRef b)
{
    return LLVMBuildFMul(e->builder, a, b, "");
}

static LLVMValueRef choose(AqEmit *e, LLVMRealPredicate p, LLVMValueRef a,
                           double b, LLVMValueRef yes, LLVMValueRef no)
{
    LLVMValueRef which = LLVMBuildFCmp(e->builder, p, a, real(e, a, b), "");
    return LLVMBuildSelect(e->builder, which, yes, no, "");
}

/* c[0] + c[1] x + ... by Horner's rule */
static LLVMValueRef polynomial(AqEmit *e, LLVMValueRef x, const double *c,
                               int count)
{
    LLVMValueRef sum = real(e, x, c[count - 1]);
    for (int i = count - 2; i >= 0; i--)
        sum = aq_fma(e, sum, x, real(e, x, c[i]));
    return sum;
}

static LLVMValueRef magnitude(AqEmit *e, LLVMValueRef x)
{
    return aq_unary_intrinsic(e, "llvm.fabs", x);
}

static LLVMValueRef with_sign_of(AqEmit *e, LLVMValueRef x, LLVMValueRef sign)
{
    LLVMTypeRef type = LLVMTypeOf(x);
    LLVMValueRef args[] = {x, sign};
    return aq_intrinsic(e, "llvm.copysign", &type, 1, args, 2);
}

/* ---- exponential ---- */

/* ln 2 in two parts: the first times a number below 2^8 is exact */
static const double LN2_HIGH = 0x1.62e4p-1, LN2_LOW = 0x1.7f7d1cf79abcap-20;
/* adding it rounds to an integer, which then stands in the low bits */
static const double ROUNDER = 0x1.8p23;
enum { ROUNDER_BITS = 0x4B400000 };

/* 2^n for integers in -126 .. 127 */
static LLVMValueRef power_of_two(AqEmit *e, LLVMValueRef n, LLVMTypeRef type)
{
    LLVMTypeRef ints = LLVMTypeOf(n);
    LLVMValueRef biased =
        LLVMBuildAdd(e->builder, n, aq_int_of(e, ints, 127), "");
    biased = LLVMBuildShl(e->builder, biased, aq_int_of(e, ints, 23), "");
    return LLVMBuildBitCast(e->builder, biased, type, "");
}

/* exp(x) = 2^n p, n = round(x / ln 2), p = exp(x - n ln 2).  NaN goes through
 * the sums and the polynomial. */
static LLVMValueRef exp_parts(AqEmit *e, LLVMValueRef x, LLVMValueRef *n)
{
    /* (exp(r) - 1 - r) / r^2, |r| <= ln 2 / 2 */
    static const double c[] = {0.4999999404, 0.1666651964, 0.04166839272,
                               0.008368780836, 0.001381446258};
    LLVMValueRef t = aq_fma(e, x, real(e, x, M_LOG2E), real(e, x, ROUNDER));
    LLVMValueRef whole = LLVMBuildFSub(e->builder, t, real(e, x, ROUNDER), "");
    LLVMValueRef r = aq_fma(e, whole, real(e, x, -LN2_HIGH), x);
    r = aq_fma(e, whole, real(e, x, -LN2_LOW), r);
    LLVMValueRef p =
        aq_fma(e, polynomial(e, r, c, AQ_COUNT(c)), mul(e, r, r), r);
    *n = LLVMBuildSub(e->builder, bits_of(e, t), integer(e, x, ROUNDER_BITS),
                      "");
    return LLVMBuildFAdd(e->builder, p, real(e, x, 1), "");
}

static LLVMValueRef at_most(AqEmit *e, LLVMValueRef x, double most)
{
    return choose(e, LLVMRealOGT, x, most, real(e, x, most), x);
}

static LLVMValueRef at_least(AqEmit *e, LLVMValueRef x, double least)
{
    return choose(e, LLVMRealOLT, x, least, real(e, x, least), x);
}

/* For x in -87.3 .. 88.3, where n is a float's exponent. */
static LLVMValueRef exp_near(AqEmit *e, LLVMValueRef x)
{
    LLVMValueRef n, p = exp_parts(e, x, &n);
    return mul(e, p, power_of_two(e, n, LLVMTypeOf(x)));
}

LLVMValueRef aq_math_exp(AqEmit *e, LLVMValueRef x)
{
    LLVMValueRef n, p = exp_parts(e, at_least(e, at_most(e, x, 89), -104), &n);
    /* in two steps: n = 128 and n < -126 have no power of their own */
    LLVMValueRef half = LLVMBuildAShr(e->builder, n, integer(e, x, 1), "");
    LLVMValueRef rest = LLVMBuildSub(e->builder, n, half, "");
    p = mul(e, p, power_of_two(e, half, LLVMTypeOf(x)));
    return mul(e, p, power_of_two(e, rest, LLVMTypeOf(x)));
}

/* 1 / (1 + exp(-x)); beyond the ends of exp_near it is denormal, or 1 */
LLVMValueRef aq_math_sigmoid(AqEmit *e, LLVMValueRef x)
{
    LLVMValueRef y = LLVMBuildFNeg(e->builder, x, "");
    y = exp_near(e, at_least(e, at_most(e, y, 88.3), -87.3));
    y = LLVMBuildFAdd(e->builder, y, real(e, x, 1), "");
    return LLVMBuildFDiv(e->builder, real(e, x, 1), y, "");
}

/* Odd polynomial below 0.625, else 1 - 2 / (exp(2 |x|) + 1). */
LLVMValueRef aq_math_tanh(AqEmit *e, LLVMValueRef x)
{
    /* (tanh(x) - x) / x^3 in x^2 */
    static const double c[] = {-0.3333328068, 0.1333144009, -0.0537395291,
                               0.02063844539, -0.005704237614};
    LLVMValueRef square = mul(e, x, x), a = magnitude(e, x);
    LLVMValueRef p = polynomial(e, square, c, AQ_COUNT(c));
    LLVMValueRef small = aq_fma(e, mul(e, p, square), x, x);
    LLVMValueRef y = at_most(e, LLVMBuildFAdd(e->builder, a, a, ""), 80);
    y = LLVMBuildFAdd(e->builder, exp_near(e, y), real(e, x, 1), "");
    y = LLVMBuildFDiv(e->builder, real(e, x, 2), y, "");
    LLVMValueRef large = LLVMBuildFSub(e->builder, real(e, x, 1), y, "");
    large = with_sign_of(e, large, x);
    return choose(e, LLVMRealOLT, a, 0.625, small, large);
}

/* ---- logarithm ---- */

/* x = 2^k (1 + f), 1 + f in [2/3, 4/3): log x = k ln 2 + f - f^2/2 + f^3 P(f)
 */
static LLVMValueRef log_positive(AqEmit *e, LLVMValueRef x)
{
    static const double c[] = {0.3333321512,  -0.2499979734, 0.2001040429,
                               -0.1668048501, 0.1400588453,  -0.121842958,
                               0.1398436129,  -0.1289154887};
    LLVMTypeRef type = LLVMTypeOf(x);
    LLVMValueRef bits = bits_of(e, x);
    LLVMValueRef k =
        LLVMBuildSub(e->builder, bits, integer(e, x, 0x3F2AAAAB), ""); /* 2/3 */
    k = LLVMBuildAShr(e->builder, k, integer(e, x, 23), "");
    LLVMValueRef shift = LLVMBuildShl(e->builder, k, integer(e, x, 23), "");
    LLVMValueRef m = LLVMBuildSub(e->builder, bits, shift, "");
    m = LLVMBuildBitCast(e->builder, m, type, "");
    LLVMValueRef f = LLVMBuildFSub(e->builder, m, real(e, x, 1), "");
    k = LLVMBuildSIToFP(e->builder, k, type, "");
    LLVMValueRef p = polynomial(e, f, c, AQ_COUNT(c));
    p = aq_fma(e, p, f, real(e, x, -0.5));
    LLVMValueRef tail = mul(e, mul(e, f, f), p);
    tail = aq_fma(e, k, real(e, x, LN2_LOW), tail);
    LLVMValueRef sum = LLVMBuildFAdd(e->builder, f, tail, "");
    return aq_fma(e, k, real(e, x, LN2_HIGH), sum);
}

LLVMValueRef aq_math_log(AqEmit *e, LLVMValueRef x)
{
    /* denormals, where they are not flushed: times 2^24 */
    LLVMValueRef scaled = mul(e, x, real(e, x, 0x1p24));
    LLVMValueRef y = choose(e, LLVMRealOLT, x, 0x1p-126, scaled, x);
    y = log_positive(e, y);
    LLVMValueRef less =
        LLVMBuildFSub(e->builder, y, real(e, x, 24 * M_LN2), "");
    y = choose(e, LLVMRealOLT, x, 0x1p-126, less, y);
    y = choose(e, LLVMRealOEQ, x, 0, real(e, x, -INFINITY), y);
    y = choose(e, LLVMRealOEQ, x, INFINITY, x, y);
    /* negative or NaN */
    LLVMValueRef bad =
        LLVMBuildFCmp(e->builder, LLVMRealULT, x, real(e, x, 0), "");
    return LLVMBuildSelect(e->builder, bad, real(e, x, NAN), y, "");
}

/* ---- sine and cosine ---- */

static LLVMValueRef double_of(AqEmit *e, LLVMValueRef like, double value)
{
    LLVMValueRef scalar =
        LLVMConstReal(LLVMDoubleTypeInContext(e->context), value);
    int lanes = aq_lanes(LLVMTypeOf(like));
    LLVMValueRef all[64];
    for (int i = 0; i < lanes; i++)
        all[i] = scalar;
    return lanes ? LLVMConstVector(all, (unsigned)lanes) : scalar;
}

/* x = n pi/2 + r, |r| <= pi/4, in double precision; n modulo 2^32. */
static LLVMValueRef reduce_angle(AqEmit *e, LLVMValueRef x, LLVMValueRef *n)
{
    static const double rounder = 0x1.8p52;
    int lanes = aq_lanes(LLVMTypeOf(x));
    LLVMTypeRef d = LLVMDoubleTypeInContext(e->context);
    LLVMTypeRef wide = lanes ? aq_vector(d, lanes) : d;
    LLVMTypeRef longs = lanes ? aq_vector(e->i64, lanes) : e->i64;
    LLVMValueRef y = LLVMBuildFPExt(e->builder, x, wide, "");
    LLVMValueRef t =
        aq_fma(e, y, double_of(e, x, M_2_PI), double_of(e, x, rounder));
    LLVMValueRef whole =
        LLVMBuildFSub(e->builder, t, double_of(e, x, rounder), "");
    y = aq_fma(e, whole, double_of(e, x, -M_PI_2), y);
    y = aq_fma(e, whole, double_of(e, x, -6.123233995736766e-17), y);
    LLVMValueRef bits = LLVMBuildBitCast(e->builder, t, longs, "");
    *n = LLVMBuildTrunc(e->builder, bits, ints_like(e, x), "");
    LLVMValueRef r = LLVMBuildFPTrunc(e->builder, y, LLVMTypeOf(x), "");
    /* 2 / pi is off by 2^-54: up to 2^48 that adds no more than 0.04 to r */
    r = choose(e, LLVMRealOGT, r, 0.83, real(e, x, 0.83), r);
    return choose(e, LLVMRealOLT, r, -0.83, real(e, x, -0.83), r);
}

/* sin(x + turns pi/2) */
static LLVMValueRef sine(AqEmit *e, LLVMValueRef x, int turns)
{
    /* (sin(r) - r) / r^3 and (cos(r) - 1 + r^2/2) / r^4, both in r^2 */
    static const double s[] = {-0.1666665524, 0.008332160302, -0.000195152199};
    static const double c[] = {0.04166664556, -0.001388731529, 2.443308404e-5};
    LLVMValueRef n, r = reduce_angle(e, x, &n), square = mul(e, r, r);
    n = LLVMBuildAdd(e->builder, n, integer(e, x, turns), "");
    LLVMValueRef p = mul(e, polynomial(e, square, s, AQ_COUNT(s)), square);
    LLVMValueRef odd = aq_fma(e, p, r, r);
    p = mul(e, polynomial(e, square, c, AQ_COUNT(c)), square);
    p = LLVMBuildFAdd(e->builder, p, real(e, x, -0.5), "");
    LLVMValueRef even = aq_fma(e, p, square, real(e, x, 1));
    LLVMValueRef one = LLVMBuildAnd(e->builder, n, integer(e, x, 1), "");
    LLVMValueRef swap =
        LLVMBuildICmp(e->builder, LLVMIntNE, one, integer(e, x, 0), "");
    LLVMValueRef y = LLVMBuildSelect(e->builder, swap, even, odd, "");
    LLVMValueRef two = LLVMBuildAnd(e->builder, n, integer(e, x, 2), "");
    LLVMValueRef flip =
        LLVMBuildICmp(e->builder, LLVMIntNE, two, integer(e, x, 0), "");
    return LLVMBuildSelect(e->builder, flip, LLVMBuildFNeg(e->builder, y, ""),
                           y, "");
}

LLVMValueRef aq_math_sin(AqEmit *e, LLVMValueRef x)
{
    return sine(e, x, 0);
}

LLVMValueRef aq_math_cos(AqEmit *e, LLVMValueRef x)
{
    return sine(e, x, 1);
}

/* ---- error function ---- */

/* x P(x^2) below 1, else 1 - exp(Q(|x|)): Q stands for log(erfc), and beyond 4
 * the result is 1. */
LLVMValueRef aq_math_erf(AqEmit *e, LLVMValueRef x)
{
    /* erf(x) / x - 1, in x^2 */
    static const double p[] = {0.1283791661,   -0.3761262596,  0.1128358319,
                               -0.02685372159, 0.005188136827, -0.0008008352597,
                               7.847243251e-5};
    static const double q[] = {5.90998352e-5,   -1.129005909,   -0.6342818737,
                               -0.1073531955,   0.02458443306,  -0.003991454374,
                               0.0004020103952, -1.866175626e-5};
    LLVMValueRef a = magnitude(e, x), square = mul(e, x, x);
    LLVMValueRef small = aq_fma(e, polynomial(e, square, p, AQ_COUNT(p)), x, x);
    LLVMValueRef near = choose(e, LLVMRealOGT, a, 4, real(e, x, 4), a);
    LLVMValueRef y = exp_near(e, polynomial(e, near, q, AQ_COUNT(q)));
    y = LLVMBuildFSub(e->builder, real(e, x, 1), y, "");
    return choose(e, LLVMRealOLT, a, 1, small, with_sign_of(e, y, x));
}

LLVMValueRef aq_math_rsqrt(AqEmit *e, LLVMValueRef x)
{
    LLVMValueRef root = aq_unary_intrinsic(e, "llvm.sqrt", x);
    return LLVMBuildFDiv(e->builder, real(e, x, 1), root, "");
}
