/* Rules of arithmetic that hold for f32 to the last bit (i32 too). */
#include "passes/simplify.h"

#include <float.h>
#include <math.h>

/* ---- x OP value and value OP x ---- */

typedef enum Becomes { X, MINUS_X, VALUE } Becomes;

static const struct {
    AqOp op;
    int side; /* on which the value stands */
    double value;
    Becomes becomes;
} identities[] = {
    {AQ_OP_add, 0, 0, X},        {AQ_OP_add, 1, 0, X},
    {AQ_OP_sub, 0, 0, MINUS_X},  {AQ_OP_sub, 1, 0, X},
    {AQ_OP_mul, 0, 1, X},        {AQ_OP_mul, 1, 1, X},
    {AQ_OP_mul, 0, -1, MINUS_X}, {AQ_OP_mul, 1, -1, MINUS_X},
    {AQ_OP_mul, 0, 0, VALUE},    {AQ_OP_mul, 1, 0, VALUE},
    {AQ_OP_div, 1, 1, X},        {AQ_OP_div, 1, -1, MINUS_X},
};

static AqId by_identity(AqGraph *g, AqId id)
{
    AqOp op = op_of(g, id);
    for (int i = 0; i < AQ_COUNT(identities); i++) {
        double value;
        int side = identities[i].side;
        if (identities[i].op != op ||
            !aq_const_value(g, input_of(g, id, side), &value) ||
            value != identities[i].value)
            continue;
        AqId x = input_of(g, id, 1 - side);
        if (identities[i].becomes == MINUS_X)
            return aq_unary(g, AQ_OP_neg, x);
        return identities[i].becomes == X ? x : input_of(g, id, side);
    }
    return AQ_NO_NODE;
}

/* x / c = x (1 / c) where c is a power of two and 1 / c an ordinary f32 */
static AqId multiply_instead(AqGraph *g, AqId id)
{
    double c;
    int exponent;
    if (aq_node(g, id)->type.element != AQ_F32 ||
        !aq_const_value(g, input_of(g, id, 1), &c))
        return AQ_NO_NODE;
    if (fabs(frexp(c, &exponent)) != 0.5 || fabs(1 / c) < FLT_MIN ||
        fabs(1 / c) > FLT_MAX)
        return AQ_NO_NODE;
    AqId factor = aq_const_like(g, id, 1 / c);
    return aq_binary(g, AQ_OP_mul, input_of(g, id, 0), factor);
}

/* ---- f(f(x)) ---- */

typedef enum Drop { BOTH, OUTER, INNER } Drop;

static const struct {
    AqOp outer, inner;
    Drop drop;
} nested[] = {
    {AQ_OP_neg, AQ_OP_neg, BOTH},        {AQ_OP_abs, AQ_OP_abs, OUTER},
    {AQ_OP_abs, AQ_OP_neg, INNER},       {AQ_OP_cos, AQ_OP_neg, INNER},
    {AQ_OP_cos, AQ_OP_abs, INNER},       {AQ_OP_floor, AQ_OP_floor, OUTER},
    {AQ_OP_sign, AQ_OP_sign, OUTER},     {AQ_OP_is_finite, AQ_OP_neg, INNER},
    {AQ_OP_is_finite, AQ_OP_abs, INNER},
};

static AqId by_nesting(AqGraph *g, AqId id)
{
    AqOp op = op_of(g, id);
    AqId x = input_of(g, id, 0);
    for (int i = 0; i < AQ_COUNT(nested); i++) {
        if (nested[i].outer != op || nested[i].inner != op_of(g, x))
            continue;
        if (nested[i].drop == OUTER)
            return x;
        AqId inside = input_of(g, x, 0);
        return nested[i].drop == BOTH ? inside : aq_unary(g, op, inside);
    }
    return AQ_NO_NODE;
}

/* ---- minus ---- */

/* What x is the negative of, or AQ_NO_NODE. */
static AqId negated(const AqGraph *g, AqId x)
{
    return op_of(g, x) == AQ_OP_neg ? input_of(g, x, 0) : AQ_NO_NODE;
}

/* -(a - b) = b - a, -(x c) = x (-c) */
static AqId push_minus_down(AqGraph *g, AqId id)
{
    AqId x = input_of(g, id, 0);
    if (op_of(g, x) == AQ_OP_sub)
        return aq_binary(g, AQ_OP_sub, input_of(g, x, 1), input_of(g, x, 0));
    if (op_of(g, x) != AQ_OP_mul)
        return AQ_NO_NODE;
    for (int i = 0; i < 2; i++) {
        double c;
        if (!aq_const_value(g, input_of(g, x, i), &c))
            continue;
        AqId factor = aq_const_like(g, x, -c);
        return aq_binary(g, AQ_OP_mul, input_of(g, x, 1 - i), factor);
    }
    return AQ_NO_NODE;
}

/* a + -b = a - b, -a + b = b - a */
static AqId add_minus(AqGraph *g, AqId id)
{
    AqId a = input_of(g, id, 0), b = input_of(g, id, 1);
    if (negated(g, b) != AQ_NO_NODE)
        return aq_binary(g, AQ_OP_sub, a, negated(g, b));
    if (negated(g, a) != AQ_NO_NODE)
        return aq_binary(g, AQ_OP_sub, b, negated(g, a));
    return AQ_NO_NODE;
}

/* a - -b = a + b */
static AqId subtract_minus(AqGraph *g, AqId id)
{
    AqId b = negated(g, input_of(g, id, 1));
    if (b == AQ_NO_NODE)
        return AQ_NO_NODE;
    return aq_binary(g, AQ_OP_add, input_of(g, id, 0), b);
}

/* -a * -b = a * b, -a * c = a * -c; the same for division */
static AqId cancel_minus(AqGraph *g, AqId id)
{
    AqOp op = op_of(g, id);
    AqId x[2] = {input_of(g, id, 0), input_of(g, id, 1)};
    AqId positive[2] = {negated(g, x[0]), negated(g, x[1])};
    if (positive[0] != AQ_NO_NODE && positive[1] != AQ_NO_NODE)
        return aq_binary(g, op, positive[0], positive[1]);
    for (int i = 0; i < 2; i++) {
        double c;
        if (positive[i] == AQ_NO_NODE || !aq_const_value(g, x[1 - i], &c))
            continue;
        x[i] = positive[i];
        x[1 - i] = aq_const_like(g, x[1 - i], -c);
        return aq_binary(g, op, x[0], x[1]);
    }
    return AQ_NO_NODE;
}

/* ---- choices, and detach ---- */

/* max(x, x) = min(x, x) = x */
static AqId same_inputs(AqGraph *g, AqId id)
{
    AqId a = input_of(g, id, 0);
    return a == input_of(g, id, 1) ? a : AQ_NO_NODE;
}

static AqId known_choice(AqGraph *g, AqId id)
{
    double condition;
    AqId a = input_of(g, id, 1), b = input_of(g, id, 2);
    if (a == b)
        return a;
    if (!aq_const_value(g, input_of(g, id, 0), &condition))
        return AQ_NO_NODE;
    return condition != 0 ? a : b;
}

/* Gradients are built before this pass, so detach has done its work. */
static AqId its_input(AqGraph *g, AqId id)
{
    return input_of(g, id, 0);
}

const AqRewriteRow aq_rewrite_algebra[] = {
    {AQ_OP_COUNT, AQ_POINTWISE, by_identity},
    {AQ_OP_COUNT, AQ_POINTWISE, by_nesting},
    {AQ_OP_div, 0, multiply_instead},
    {AQ_OP_neg, 0, push_minus_down},
    {AQ_OP_add, 0, add_minus},
    {AQ_OP_sub, 0, subtract_minus},
    {AQ_OP_mul, 0, cancel_minus},
    {AQ_OP_div, 0, cancel_minus},
    {AQ_OP_max, 0, same_inputs},
    {AQ_OP_min, 0, same_inputs},
    {AQ_OP_select, 0, known_choice},
    {AQ_OP_detach, 0, its_input},
    {0},
};
