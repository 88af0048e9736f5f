/* Pointwise ops: one row each. */
#include "codegen/expr.h"

#include <math.h>

typedef LLVMValueRef PointRule(AqEmit *e, const LLVMValueRef *in,
                               bool integers);

static bool is_f32(LLVMValueRef x)
{
    LLVMTypeRef type = LLVMTypeOf(x);
    type = aq_lanes(type) ? LLVMGetElementType(type) : type;
    return LLVMGetTypeKind(type) == LLVMFloatTypeKind;
}

static LLVMValueRef number(AqEmit *e, LLVMValueRef like, double value)
{
    return is_f32(like) ? aq_real_of(e, LLVMTypeOf(like), value)
                        : aq_int_of(e, LLVMTypeOf(like), (int64_t)value);
}

static LLVMValueRef one_or_zero(AqEmit *e, LLVMValueRef truth,
                                LLVMValueRef like)
{
    return LLVMBuildSelect(e->builder, truth, number(e, like, 1),
                           number(e, like, 0), "");
}

/* ---- one input ---- */

static LLVMValueRef do_neg(AqEmit *e, const LLVMValueRef *in, bool integers)
{
    return integers ? LLVMBuildNeg(e->builder, in[0], "")
                    : LLVMBuildFNeg(e->builder, in[0], "");
}

static LLVMValueRef do_abs(AqEmit *e, const LLVMValueRef *in, bool integers)
{
    if (!integers)
        return aq_unary_intrinsic(e, "llvm.fabs", in[0]);
    LLVMValueRef minus = LLVMBuildNeg(e->builder, in[0], "");
    LLVMValueRef below =
        LLVMBuildICmp(e->builder, LLVMIntSLT, in[0], number(e, in[0], 0), "");
    return LLVMBuildSelect(e->builder, below, minus, in[0], "");
}

static LLVMValueRef do_sign(AqEmit *e, const LLVMValueRef *in, bool integers)
{
    (void)integers;
    LLVMValueRef zero = number(e, in[0], 0);
    LLVMValueRef above =
        LLVMBuildFCmp(e->builder, LLVMRealOGT, in[0], zero, "");
    LLVMValueRef below =
        LLVMBuildFCmp(e->builder, LLVMRealOLT, in[0], zero, "");
    LLVMValueRef y =
        LLVMBuildSelect(e->builder, below, number(e, in[0], -1), zero, "");
    return LLVMBuildSelect(e->builder, above, number(e, in[0], 1), y, "");
}

static LLVMValueRef do_floor(AqEmit *e, const LLVMValueRef *in, bool integers)
{
    (void)integers;
    return aq_unary_intrinsic(e, "llvm.floor", in[0]);
}

static LLVMValueRef do_sqrt(AqEmit *e, const LLVMValueRef *in, bool integers)
{
    (void)integers;
    return aq_unary_intrinsic(e, "llvm.sqrt", in[0]);
}

#define BY_MATH(name)                                                          \
    static LLVMValueRef do_##name(AqEmit *e, const LLVMValueRef *in,           \
                                  bool integers)                               \
    {                                                                          \
        (void)integers;                                                        \
        return aq_math_##name(e, in[0]);                                       \
    }

BY_MATH(exp)
BY_MATH(log)
BY_MATH(rsqrt)
BY_MATH(sin)
BY_MATH(cos)
BY_MATH(tanh)
BY_MATH(erf)
BY_MATH(sigmoid)

static LLVMValueRef do_is_finite(AqEmit *e, const LLVMValueRef *in,
                                 bool integers)
{
    (void)integers;
    LLVMValueRef size = aq_unary_intrinsic(e, "llvm.fabs", in[0]);
    LLVMValueRef truth = LLVMBuildFCmp(e->builder, LLVMRealOLT, size,
                                       number(e, in[0], INFINITY), "");
    return one_or_zero(e, truth, in[0]);
}

static LLVMValueRef do_detach(AqEmit *e, const LLVMValueRef *in, bool integers)
{
    (void)e;
    (void)integers;
    return in[0];
}

/* ---- two and three inputs ---- */

#define ARITHMETIC(name, Real, Whole)                                          \
    static LLVMValueRef do_##name(AqEmit *e, const LLVMValueRef *in,           \
                                  bool integers)                               \
    {                                                                          \
        return integers ? LLVMBuild##Whole(e->builder, in[0], in[1], "")       \
                        : LLVMBuild##Real(e->builder, in[0], in[1], "");       \
    }

ARITHMETIC(add, FAdd, Add)
ARITHMETIC(sub, FSub, Sub)
ARITHMETIC(mul, FMul, Mul)

/* Lanes that do not count may hold anything: a division must not trap there. */
static LLVMValueRef do_div(AqEmit *e, const LLVMValueRef *in, bool integers)
{
    LLVMBuilderRef b = e->builder;
    if (!integers)
        return LLVMBuildFDiv(b, in[0], in[1], "");
    LLVMValueRef one = number(e, in[1], 1), minus = number(e, in[1], -1);
    LLVMValueRef zero = number(e, in[1], 0);
    LLVMValueRef bad = LLVMBuildICmp(b, LLVMIntEQ, in[1], zero, "");
    LLVMValueRef flip = LLVMBuildICmp(b, LLVMIntEQ, in[1], minus, "");
    LLVMValueRef by =
        LLVMBuildSelect(b, LLVMBuildOr(b, bad, flip, ""), one, in[1], "");
    LLVMValueRef quotient = LLVMBuildSDiv(b, in[0], by, "");
    return LLVMBuildSelect(b, flip, LLVMBuildNeg(b, in[0], ""), quotient, "");
}

#define EXTREME(name, Predicate)                                               \
    static LLVMValueRef do_##name(AqEmit *e, const LLVMValueRef *in,           \
                                  bool integers)                               \
    {                                                                          \
        if (!integers)                                                         \
            return aq_f##name(e, in[0], in[1]);                                \
        LLVMValueRef first =                                                   \
            LLVMBuildICmp(e->builder, Predicate, in[0], in[1], "");            \
        return LLVMBuildSelect(e->builder, first, in[0], in[1], "");           \
    }

EXTREME(max, LLVMIntSGT)
EXTREME(min, LLVMIntSLT)

#define COMPARISON(name, Real, Whole)                                          \
    static LLVMValueRef do_##name(AqEmit *e, const LLVMValueRef *in,           \
                                  bool integers)                               \
    {                                                                          \
        LLVMValueRef truth =                                                   \
            integers ? LLVMBuildICmp(e->builder, Whole, in[0], in[1], "")      \
                     : LLVMBuildFCmp(e->builder, Real, in[0], in[1], "");      \
        return one_or_zero(e, truth, in[0]);                                   \
    }

COMPARISON(less, LLVMRealOLT, LLVMIntSLT)
COMPARISON(less_equal, LLVMRealOLE, LLVMIntSLE)
COMPARISON(equal, LLVMRealOEQ, LLVMIntEQ)

static LLVMValueRef do_select(AqEmit *e, const LLVMValueRef *in, bool integers)
{
    (void)integers; /* of the result; the condition may be the other */
    LLVMValueRef zero = number(e, in[0], 0);
    LLVMValueRef truth =
        is_f32(in[0]) ? LLVMBuildFCmp(e->builder, LLVMRealUNE, in[0], zero, "")
                      : LLVMBuildICmp(e->builder, LLVMIntNE, in[0], zero, "");
    return LLVMBuildSelect(e->builder, truth, in[1], in[2], "");
}

/* ---- cast: the least integer where the number has no place ---- */

static LLVMValueRef to_integer(AqExpr *x, LLVMValueRef value)
{
    AqEmit *e = x->e;
    LLVMBuilderRef b = e->builder;
    bool vector = aq_lanes(LLVMTypeOf(value)) != 0;
    LLVMTypeRef type = vector ? aq_vector(e->i32, x->lanes) : e->i32;
    LLVMValueRef low =
        LLVMBuildFCmp(b, LLVMRealOGE, value, number(e, value, -0x1p31), "");
    LLVMValueRef high =
        LLVMBuildFCmp(b, LLVMRealOLT, value, number(e, value, 0x1p31), "");
    LLVMValueRef fits = LLVMBuildAnd(b, low, high, "");
    value = LLVMBuildSelect(b, fits, value, number(e, value, 0), "");
    value = LLVMBuildFPToSI(b, value, type, "");
    return LLVMBuildSelect(b, fits, value, aq_int_of(e, type, INT32_MIN), "");
}

static LLVMValueRef cast_value(AqExpr *x, const AqNode *node,
                               LLVMValueRef value)
{
    bool to_real = node->type.element == AQ_F32;
    if (to_real == is_f32(value))
        return value;
    if (!to_real)
        return to_integer(x, value);
    LLVMTypeRef type = aq_lanes(LLVMTypeOf(value)) ? x->e->vf32 : x->e->f32;
    return LLVMBuildSIToFP(x->e->builder, value, type, "");
}

/* ---- the table ---- */

static PointRule *const rules[AQ_OP_COUNT] = {
    [AQ_OP_neg] = do_neg,
    [AQ_OP_abs] = do_abs,
    [AQ_OP_sign] = do_sign,
    [AQ_OP_floor] = do_floor,
    [AQ_OP_exp] = do_exp,
    [AQ_OP_log] = do_log,
    [AQ_OP_sqrt] = do_sqrt,
    [AQ_OP_rsqrt] = do_rsqrt,
    [AQ_OP_sin] = do_sin,
    [AQ_OP_cos] = do_cos,
    [AQ_OP_tanh] = do_tanh,
    [AQ_OP_erf] = do_erf,
    [AQ_OP_sigmoid] = do_sigmoid,
    [AQ_OP_is_finite] = do_is_finite,
    [AQ_OP_detach] = do_detach,
    [AQ_OP_add] = do_add,
    [AQ_OP_sub] = do_sub,
    [AQ_OP_mul] = do_mul,
    [AQ_OP_div] = do_div,
    [AQ_OP_max] = do_max,
    [AQ_OP_min] = do_min,
    [AQ_OP_less] = do_less,
    [AQ_OP_less_equal] = do_less_equal,
    [AQ_OP_equal] = do_equal,
    [AQ_OP_select] = do_select,
};

/* A product that feeds one sum alone is rounded with it. */
static bool fuses(const AqExpr *x, AqId id)
{
    const AqNode *node = aq_node(x->body, id);
    return node->op == AQ_OP_mul && node->type.element == AQ_F32 &&
           x->uses[id] == 1 && !(x->hook && x->pinned[id]);
}

/* a b + c, a b - c, c - a b; NULL where no product can be fused */
static LLVMValueRef fused_sum(AqExpr *x, const AqNode *node,
                              const AqIndex *index)
{
    bool minus = node->op == AQ_OP_sub;
    if ((node->op != AQ_OP_add && !minus) || node->type.element != AQ_F32)
        return NULL;
    int which = fuses(x, node->inputs[0]) ? 0 : 1;
    if (!fuses(x, node->inputs[which]))
        return NULL;
    const AqNode *product = aq_node(x->body, node->inputs[which]);
    LLVMValueRef a = aq_expr_value(x, product->inputs[0], index);
    LLVMValueRef b = aq_expr_value(x, product->inputs[1], index);
    LLVMValueRef c = aq_expr_value(x, node->inputs[1 - which], index);
    aq_expr_match(x, &a, &b);
    aq_expr_match(x, &a, &c);
    aq_expr_match(x, &a, &b);
    if (minus && which == 0)
        c = LLVMBuildFNeg(x->e->builder, c, "");
    if (minus && which == 1)
        a = LLVMBuildFNeg(x->e->builder, a, "");
    return aq_fma(x->e, a, b, c);
}

LLVMValueRef aq_expr_pointwise(AqExpr *x, AqId id, const AqIndex *index)
{
    const AqNode *node = aq_node(x->body, id);
    LLVMValueRef in[3], fused = fused_sum(x, node, index);
    if (fused)
        return fused;
    for (int i = 0; i < node->n_inputs; i++)
        in[i] = aq_expr_value(x, node->inputs[i], index);
    if (node->op == AQ_OP_cast)
        return cast_value(x, node, in[0]);
    for (int i = 1; i < node->n_inputs; i++)
        aq_expr_match(x, &in[0], &in[i]);
    for (int i = 1; i < node->n_inputs; i++)
        aq_expr_match(x, &in[0], &in[i]);
    PointRule *rule = rules[node->op];
    if (rule)
        return rule(x->e, in, node->type.element == AQ_I32);
    aq_fail(x->e->error, AQ_INTERNAL, "%s has no rule in kernels",
            aq_op_info[node->op].name);
    return in[0];
}
