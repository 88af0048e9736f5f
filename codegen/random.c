/* Random numbers as ir/philox.c defines them: a counter gives four. */
#include "codegen/expr.h"
#include "ir/philox.h"

#include <math.h>

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
    for (int round = 0; round < AQ_PHILOX_ROUNDS; round++) {
        LLVMValueRef a_high = high_word(e, x[0], AQ_PHILOX_A);
        LLVMValueRef b_high = high_word(e, x[2], AQ_PHILOX_B);
        LLVMValueRef a_low = low_word(e, x[0], AQ_PHILOX_A);
        LLVMValueRef b_low = low_word(e, x[2], AQ_PHILOX_B);
        x[0] = xor3(e, b_high, x[1], key[0]);
        x[1] = b_low;
        x[2] = xor3(e, a_high, x[3], key[1]);
        x[3] = a_low;
        key[0] = LLVMBuildAdd(e->builder, key[0],
                              aq_int_of(e, type, AQ_PHILOX_KEY0), "");
        key[1] = LLVMBuildAdd(e->builder, key[1],
                              aq_int_of(e, type, AQ_PHILOX_KEY1), "");
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

/* Box and Muller; the angle's word is taken as signed, which is the same angle
 * and exact on both sides of zero. */
static void normal_pair(AqEmit *e, LLVMValueRef *word, LLVMTypeRef type,
                        LLVMValueRef *value)
{
    LLVMValueRef r = aq_math_log(e, unit(e, word[0], type));
    r = LLVMBuildFMul(e->builder, r, aq_real_of(e, type, -2), "");
    r = aq_unary_intrinsic(e, "llvm.sqrt", r);
    LLVMValueRef angle = LLVMBuildSIToFP(e->builder, word[1], type, "");
    angle = LLVMBuildFAdd(e->builder, angle, aq_real_of(e, type, 0.5), "");
    angle = LLVMBuildFMul(e->builder, angle,
                          aq_real_of(e, type, M_PI * 0x1p-31), "");
    value[0] = LLVMBuildFMul(e->builder, r, aq_math_cos(e, angle), "");
    value[1] = LLVMBuildFMul(e->builder, r, aq_math_sin(e, angle), "");
}

static LLVMValueRef as_word(AqExpr *x, AqIndex index)
{
    LLVMValueRef value = aq_expr_index_value(x, index, false);
    return aq_lanes(LLVMTypeOf(value))
               ? value
               : LLVMBuildTrunc(x->e->builder, value, x->e->i32, "");
}

/* The four numbers of each counter (element / 4), in order. */
static void numbers_at(AqExpr *x, const AqNode *node, AqIndex counter,
                       const AqIndex *index, LLVMValueRef *value)
{
    AqEmit *e = x->e;
    AqIndex which[] = {aq_index_constant(x->t, 0), aq_index_constant(x->t, 1)};
    LLVMValueRef word[] = {
        as_word(x, counter),
        aq_expr_value(x, node->inputs[2], index),
        aq_i32(e, aq_attr_int(node, AQ_KEY_STREAM, 0)),
        aq_expr_value(x, node->inputs[1], NULL),
    };
    LLVMValueRef key[] = {aq_expr_value(x, node->inputs[0], &which[0]),
                          aq_expr_value(x, node->inputs[0], &which[1])};
    aq_expr_match(x, &word[0], &word[1]);
    for (int i = 1; i < 4; i++)
        aq_expr_match(x, &word[i], &word[0]);
    for (int i = 0; i < 2; i++)
        aq_expr_match(x, &key[i], &word[0]);
    philox(e, word, key);
    bool vector = aq_lanes(LLVMTypeOf(word[0])) != 0;
    LLVMTypeRef type = vector ? aq_vector(e->f32, x->lanes) : e->f32;
    const char *kind = aq_attr_text(node, AQ_KEY_KIND, "uniform");
    for (int i = 0; i < 4; i += 2) {
        if (kind[0] == 'n') {
            normal_pair(e, &word[i], type, &value[i]);
        } else {
            value[i] = unit(e, word[i], type);
            value[i + 1] = unit(e, word[i + 1], type);
        }
    }
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

/* Each lane draws its own counter and keeps one number of the four. */
static LLVMValueRef lane_by_lane(AqExpr *x, const AqNode *node, AqIndex number,
                                 const AqIndex *index)
{
    LLVMValueRef value[4], element = as_word(x, number);
    numbers_at(x, node, aq_index_div(x->t, number, 4), index, value);
    aq_expr_match(x, &element, &value[0]);
    for (int i = 0; i < 4; i++)
        aq_expr_match(x, &value[i], &element);
    LLVMValueRef even = pick(x->e, element, 2, value[2], value[0]);
    LLVMValueRef odd = pick(x->e, element, 2, value[3], value[1]);
    return pick(x->e, element, 1, odd, even);
}

/* ---- four vectors of neighbours from one vector of counters ---- */

/* Which of the four vectors this is: number mod (4 lanes) = lanes * that +
 * lane; -1 where it is none. */
static int quarter_of(AqExpr *x, AqIndex number)
{
    int64_t stride, start;
    AqIndex rest = aq_index_mod(x->t, number, 4 * (int64_t)x->lanes);
    AqIndex base = aq_index_uniform_part(x->t, rest);
    if (aq_index_form(x->t, rest, &stride) != AQ_STRIDED || stride != 1 ||
        !aq_index_is_constant(x->t, base, &start) || start % x->lanes != 0)
        return -1;
    return (int)(start / x->lanes);
}

/* Element k = which * lanes + l of the 4 lanes is number k % 4 of counter
 * k / 4. */
static LLVMValueRef quarter(AqExpr *x, const LLVMValueRef *value, int which)
{
    int low[64], high[64], both[64], n = x->lanes;
    for (int l = 0; l < n; l++) {
        int k = which * n + l, counter = k / 4, number = k % 4;
        low[l] = number < 2 ? counter + number * n : -1;
        high[l] = number >= 2 ? counter + (number - 2) * n : -1;
        both[l] = number < 2 ? l : n + l;
    }
    LLVMValueRef a = aq_shuffle(x->e, value[0], value[1], low, n);
    LLVMValueRef b = aq_shuffle(x->e, value[2], value[3], high, n);
    return aq_shuffle(x->e, a, b, both, n);
}

static LLVMValueRef shared(AqExpr *x, AqId id, AqIndex number, int which,
                           const AqIndex *index)
{
    AqIndexTable *t = x->t;
    AqIndex lane = aq_index_vector(t, aq_index_constant(t, 0), x->lanes);
    AqIndex first = aq_index_uniform_part(t, number);
    first = aq_index_add(t, first,
                         aq_index_constant(t, -(int64_t)which * x->lanes));
    AqIndex counter = aq_index_add(t, aq_index_div(t, first, 4), lane);
    LLVMValueRef value[4];
    AqMemoKey key = {.node = AQ_MEMO_DRAWN, .index = {id, counter, index[0]}};
    for (int i = 0; i < 4; i++) {
        key.index[3] = i;
        value[i] = aq_memo_get(x->memo, &key);
    }
    if (!value[3]) {
        numbers_at(x, aq_node(x->body, id), counter, index, value);
        for (int i = 0; i < 4; i++) {
            key.index[3] = i;
            aq_memo_put(x->memo, &key, value[i], x->level);
        }
    }
    return quarter(x, value, which);
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

LLVMValueRef aq_expr_random(AqExpr *x, AqId id, const AqIndex *index)
{
    const AqNode *node = aq_node(x->body, id);
    AqIndex number = element_number(x, &node->type, index);
    int which = x->mask || aq_varies(x, index[0]) ? -1 : quarter_of(x, number);
    return which < 0 ? lane_by_lane(x, node, number, index)
                     : shared(x, id, number, which, index);
}
