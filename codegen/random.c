/* Random numbers as ir/philox.c defines them, one counter a lane. */
#include "codegen/expr.h"

#include <math.h>

enum { ROUNDS = 10 };

/* The high word of the product of unsigned words. */
static LLVMValueRef high_word(AqEmit *e, LLVMValueRef a, uint32_t factor)
{
    LLVMTypeRef type = LLVMTypeOf(a);
    int lanes = aq_lanes(type);
    LLVMTypeRef wide = lanes ? aq_vector(e->i64, lanes) : e->i64;
    LLVMValueRef product = LLVMBuildZExt(e->builder, a, wide, "");
    product = LLVMBuildMul(e->builder, product,
                           aq_int_of(e, wide, (int64_t)factor), "");
    product = LLVMBuildLShr(e->builder, product, aq_int_of(e, wide, 32), "");
    return LLVMBuildTrunc(e->builder, product, type, "");
}

static LLVMValueRef low_word(AqEmit *e, LLVMValueRef a, uint32_t factor)
{
    return LLVMBuildMul(e->builder, a,
                        aq_int_of(e, LLVMTypeOf(a), (int64_t)factor), "");
}

static LLVMValueRef xor3(AqEmit *e, LLVMValueRef a, LLVMValueRef b,
                         LLVMValueRef c)
{
    return LLVMBuildXor(e->builder, LLVMBuildXor(e->builder, a, b, ""), c, "");
}

/* x: the counter, then the words drawn; key of two. */
static void philox(AqEmit *e, LLVMValueRef *x, LLVMValueRef *key)
{
    LLVMTypeRef type = LLVMTypeOf(x[0]);
    for (int round = 0; round < ROUNDS; round++) {
        LLVMValueRef a_high = high_word(e, x[0], 0xD2511F53u);
        LLVMValueRef b_high = high_word(e, x[2], 0xCD9E8D57u);
        LLVMValueRef a_low = low_word(e, x[0], 0xD2511F53u);
        LLVMValueRef b_low = low_word(e, x[2], 0xCD9E8D57u);
        x[0] = xor3(e, b_high, x[1], key[0]);
        x[1] = b_low;
        x[2] = xor3(e, a_high, x[3], key[1]);
        x[3] = a_low;
        key[0] = LLVMBuildAdd(e->builder, key[0],
                              aq_int_of(e, type, 0x9E3779B9), "");
        key[1] = LLVMBuildAdd(e->builder, key[1],
                              aq_int_of(e, type, 0xBB67AE85), "");
    }
}

/* (word + 1/2) / 2^32, kept below 1 where a float would round up to it */
static LLVMValueRef unit(AqEmit *e, LLVMValueRef word, LLVMTypeRef type)
{
    LLVMValueRef u = LLVMBuildUIToFP(e->builder, word, type, "");
    u = LLVMBuildFAdd(e->builder, u, aq_real_of(e, type, 0.5), "");
    u = LLVMBuildFMul(e->builder, u, aq_real_of(e, type, 0x1p-32), "");
    LLVMValueRef most = aq_real_of(e, type, 1 - 0x1p-24);
    LLVMValueRef over = LLVMBuildFCmp(e->builder, LLVMRealOGT, u, most, "");
    return LLVMBuildSelect(e->builder, over, most, u, "");
}

static LLVMValueRef pick(AqEmit *e, LLVMValueRef number, int bit,
                         LLVMValueRef set, LLVMValueRef clear)
{
    LLVMTypeRef type = LLVMTypeOf(number);
    LLVMValueRef one =
        LLVMBuildAnd(e->builder, number, aq_int_of(e, type, bit), "");
    LLVMValueRef truth =
        LLVMBuildICmp(e->builder, LLVMIntNE, one, aq_int_of(e, type, 0), "");
    return LLVMBuildSelect(e->builder, truth, set, clear, "");
}

/* Box and Muller; the angle's word is taken as signed, which is the same angle
 * and exact on both sides of zero. */
static LLVMValueRef normal(AqEmit *e, LLVMValueRef *word, LLVMValueRef element,
                           LLVMTypeRef type)
{
    LLVMValueRef first = pick(e, element, 2, word[2], word[0]);
    LLVMValueRef second = pick(e, element, 2, word[3], word[1]);
    LLVMValueRef r = aq_math_log(e, unit(e, first, type));
    r = LLVMBuildFMul(e->builder, r, aq_real_of(e, type, -2), "");
    r = aq_unary_intrinsic(e, "llvm.sqrt", r);
    LLVMValueRef angle = LLVMBuildSIToFP(e->builder, second, type, "");
    angle = LLVMBuildFAdd(e->builder, angle, aq_real_of(e, type, 0.5), "");
    angle = LLVMBuildFMul(e->builder, angle,
                          aq_real_of(e, type, M_PI * 0x1p-31), "");
    LLVMValueRef direction =
        pick(e, element, 1, aq_math_sin(e, angle), aq_math_cos(e, angle));
    return LLVMBuildFMul(e->builder, r, direction, "");
}

static LLVMValueRef uniform(AqEmit *e, LLVMValueRef *word, LLVMValueRef element,
                            LLVMTypeRef type)
{
    LLVMValueRef even = pick(e, element, 2, word[2], word[0]);
    LLVMValueRef odd = pick(e, element, 2, word[3], word[1]);
    return unit(e, pick(e, element, 1, odd, even), type);
}

/* The element's number within its sample. */
static AqIndex element_number(AqExpr *x, const AqType *type,
                              const AqIndex *index)
{
    AqType sample = {.element = type->element, .rank = type->rank - 1};
    for (int i = 1; i < type->rank; i++)
        sample.dim[i - 1] = type->dim[i];
    return aq_expr_offset(x, &sample, index + 1);
}

static LLVMValueRef as_word(AqExpr *x, AqIndex index)
{
    LLVMValueRef value = aq_expr_index_value(x, index, false);
    return aq_lanes(LLVMTypeOf(value))
               ? value
               : LLVMBuildTrunc(x->e->builder, value, x->e->i32, "");
}

LLVMValueRef aq_expr_random(AqExpr *x, AqId id, const AqIndex *index)
{
    AqEmit *e = x->e;
    const AqNode *node = aq_node(x->body, id);
    AqIndex which[] = {aq_index_constant(x->t, 0), aq_index_constant(x->t, 1)};
    AqIndex number = element_number(x, &node->type, index);
    LLVMValueRef element = as_word(x, number);
    LLVMValueRef counter[] = {
        as_word(x, aq_index_div(x->t, number, 4)),
        aq_expr_value(x, node->inputs[2], index),
        aq_i32(e, aq_attr_int(node, AQ_KEY_STREAM, 0)),
        aq_expr_value(x, node->inputs[1], NULL),
    };
    LLVMValueRef key[] = {aq_expr_value(x, node->inputs[0], &which[0]),
                          aq_expr_value(x, node->inputs[0], &which[1])};
    for (int i = 1; i < 4; i++)
        aq_expr_match(x, &counter[0], &counter[i]);
    aq_expr_match(x, &element, &counter[0]);
    for (int i = 0; i < 4; i++)
        aq_expr_match(x, &element, &counter[i]);
    for (int i = 0; i < 2; i++)
        aq_expr_match(x, &key[i], &element);
    philox(e, counter, key);
    bool vector = aq_lanes(LLVMTypeOf(element)) != 0;
    LLVMTypeRef type = vector ? aq_vector(e->f32, x->lanes) : e->f32;
    const char *kind = aq_attr_text(node, AQ_KEY_KIND, "uniform");
    return kind[0] == 'n' ? normal(e, counter, element, type)
                          : uniform(e, counter, element, type);
}
