/* One element at a time: the pointwise ops, what is made of them, and
 * broadcasting. */
#include "frontend/dsl/build.h"

/* ---- broadcasting ---- */

AqTensor aq_fit(AqPlace at, AqTensor x, const AqType *to)
{
    const AqType *type = aq_type_of(x);
    if (aq_same_shape(type, to))
        return x;
    AqGraph *g = x.graph;
    aq_enter(at, "broadcast", &x, 1);
    AqId id = x.id;
    if (type->rank < to->rank) {
        int64_t dim[AQ_MAX_RANK];
        int missing = to->rank - type->rank;
        for (int i = 0; i < to->rank; i++)
            dim[i] = i < missing ? 1 : type->dim[i - missing];
        id = aq_reshape_node(g, id, to->rank, dim);
    }
    if (id < 0 || aq_same_shape(&aq_node(g, id)->type, to))
        return aq_wrap(g, id);
    return aq_wrap(g, aq_broadcast_node(g, id, to->rank, to->dim));
}

/* The shape that both broadcast to; false if there is none. */
static bool joint_shape(const AqType *a, const AqType *b, AqType *out)
{
    *out = a->rank >= b->rank ? *a : *b;
    for (int i = 1; i <= out->rank; i++) {
        int64_t da = i <= a->rank ? a->dim[a->rank - i] : 1;
        int64_t db = i <= b->rank ? b->dim[b->rank - i] : 1;
        if (da != db && da != 1 && db != 1)
            return false;
        out->dim[out->rank - i] = da == 1 ? db : da;
    }
    return true;
}

static AqTensor do_not_broadcast(AqPlace at, const char *what, AqTensor a,
                                 AqTensor b)
{
    return aq_complain(at, a.graph,
                       "%s: %s and %s do not broadcast to one shape", what,
                       aq_type_name(a.graph, aq_type_of(a)),
                       aq_type_name(a.graph, aq_type_of(b)));
}

static AqTensor unary(AqPlace at, AqOp op, AqTensor x)
{
    AqGraph *g = aq_enter(at, aq_op_info[op].name, &x, 1);
    return g ? aq_wrap(g, aq_unary(g, op, x.id)) : aq_lost(x);
}

static AqTensor binary(AqPlace at, AqOp op, AqTensor a, AqTensor b)
{
    AqTensor both[] = {a, b};
    const char *name = aq_op_info[op].name;
    AqGraph *g = aq_enter(at, name, both, 2);
    if (!g)
        return aq_lost(a.graph ? a : b);
    AqType type;
    if (!joint_shape(aq_type_of(a), aq_type_of(b), &type))
        return do_not_broadcast(at, name, a, b);
    if (!at.scope)
        at.scope = g->scope;
    a = aq_fit(at, a, &type);
    b = aq_fit(at, b, &type);
    if (!aq_good(a) || !aq_good(b))
        return aq_lost(a);
    aq_enter_graph(at, g);
    return aq_wrap(g, aq_binary(g, op, a.id, b.id));
}

AqTensor aq_broadcast_(AqPlace at, AqTensor x, AqShape shape)
{
    AqGraph *g = aq_enter(at, "broadcast", &x, 1);
    if (!g)
        return aq_lost(x);
    const AqType *type = aq_type_of(x);
    AqType to = aq_type(type->element, shape.rank, shape.dim), joint;
    if (joint_shape(type, &to, &joint) && aq_same_shape(&joint, &to))
        return aq_fit(at, x, &to);
    return aq_complain(at, g, "broadcast: %s does not broadcast to %s",
                       aq_type_name(g, type), aq_type_name(g, &to));
}

/* ---- plain ops ---- */

#define UNARY(name, op)                                                        \
    AqTensor aq_##name##_(AqPlace at, AqTensor x)                              \
    {                                                                          \
        return unary(at, AQ_OP_##op, x);                                       \
    }
UNARY(neg, neg)
UNARY(abs, abs)
UNARY(sign, sign)
UNARY(floor, floor)
UNARY(exp, exp)
UNARY(log, log)
UNARY(sqrt, sqrt)
UNARY(rsqrt, rsqrt)
UNARY(sin, sin)
UNARY(cos, cos)
UNARY(tanh, tanh)
UNARY(erf, erf)
UNARY(sigmoid, sigmoid)
UNARY(is_finite, is_finite)
UNARY(detach, detach)
#undef UNARY

#define BINARY(name, op)                                                       \
    AqTensor aq_##name##_(AqPlace at, AqTensor a, AqTensor b)                  \
    {                                                                          \
        return binary(at, AQ_OP_##op, a, b);                                   \
    }
BINARY(add, add)
BINARY(subtract, sub)
BINARY(mul, mul)
BINARY(div, div)
BINARY(maximum, max)
BINARY(minimum, min)
BINARY(less, less)
BINARY(less_equal, less_equal)
BINARY(equal, equal)
#undef BINARY

static AqTensor convert(AqPlace at, AqTensor x, AqElement element)
{
    AqGraph *g = aq_enter(at, "cast", &x, 1);
    if (!g || aq_type_of(x)->element == element)
        return x;
    return aq_wrap(g, aq_cast_node(g, x.id, element));
}

AqTensor aq_to_real_(AqPlace at, AqTensor x)
{
    return convert(at, x, AQ_F32);
}

AqTensor aq_to_integer_(AqPlace at, AqTensor x)
{
    return convert(at, x, AQ_I32);
}

AqTensor aq_select_(AqPlace at, AqTensor condition, AqTensor a, AqTensor b)
{
    AqTensor all[] = {condition, a, b};
    AqGraph *g = aq_enter(at, "select", all, 3);
    if (!g)
        return aq_lost(condition.graph ? condition : a);
    AqType chosen, type;
    if (!joint_shape(aq_type_of(a), aq_type_of(b), &chosen))
        return do_not_broadcast(at, "select", a, b);
    if (!joint_shape(&chosen, aq_type_of(condition), &type))
        return do_not_broadcast(at, "select", condition, a);
    if (!at.scope)
        at.scope = g->scope;
    for (int i = 0; i < 3; i++)
        all[i] = aq_fit(at, all[i], &type);
    if (!aq_good(all[0]) || !aq_good(all[1]) || !aq_good(all[2]))
        return aq_lost(condition);
    aq_enter_graph(at, g);
    return aq_wrap(g, aq_select_node(g, all[0].id, all[1].id, all[2].id));
}

/* ---- with numbers ---- */

AqTensor aq_scale_(AqPlace at, AqTensor x, double factor)
{
    return factor == 1 ? x : aq_mul(x, aq_full_like(x, factor));
}

AqTensor aq_shift_(AqPlace at, AqTensor x, double term)
{
    return term == 0 ? x : aq_add(x, aq_full_like(x, term));
}

AqTensor aq_clamp_(AqPlace at, AqTensor x, double low, double high)
{
    if (!(low <= high))
        return aq_complain(at, x.graph, "clamp: low %g is above high %g", low,
                           high);
    x = aq_maximum(x, aq_full_like(x, low));
    return aq_minimum(x, aq_full_like(x, high));
}

AqTensor aq_reciprocal_(AqPlace at, AqTensor x)
{
    return aq_div(aq_full_like(x, 1), x);
}

AqTensor aq_square_(AqPlace at, AqTensor x)
{
    return aq_mul(x, x);
}

/* By squaring: x^13 = x^8 x^4 x. */
AqTensor aq_pow_(AqPlace at, AqTensor x, int exponent)
{
    if (exponent == 0)
        return aq_full_like(x, 1);
    unsigned left = exponent < 0 ? -(unsigned)exponent : (unsigned)exponent;
    AqTensor result = AQ_NONE, power = x;
    for (;; power = aq_square(power)) {
        if (left & 1)
            result = aq_is_none(result) ? power : aq_mul(result, power);
        left >>= 1;
        if (!left)
            break;
    }
    return exponent < 0 ? aq_reciprocal(result) : result;
}

/* exp(x) - 1 = tanh(x / 2) (exp(x) + 1) */
AqTensor aq_one_minus_exp(AqPlace at, AqTensor x)
{
    AqTensor factor = aq_shift(aq_exp(x), 1);
    return aq_neg(aq_mul(aq_tanh(aq_scale(x, 0.5)), factor));
}

/* ---- activations ---- */

AqTensor aq_relu_(AqPlace at, AqTensor x)
{
    return aq_maximum(x, aq_full_like(x, 0));
}

AqTensor aq_silu_(AqPlace at, AqTensor x)
{
    return aq_mul(x, aq_sigmoid(x));
}

AqTensor aq_gelu_(AqPlace at, AqTensor x)
{
    AqTensor e = aq_erf(aq_scale(x, 0.70710678118654752440));
    return aq_mul(aq_scale(x, 0.5), aq_shift(e, 1));
}

/* (1 + tanh u) / 2 = sigmoid(2 u), which costs half as much, and keeps its
 * relative precision where it is near zero. */
AqTensor aq_gelu_tanh_(AqPlace at, AqTensor x)
{
    const double first = 2 * 0.79788456080286535588; /* 2 sqrt(2 / pi) */
    AqTensor factor = aq_shift(aq_scale(aq_mul(x, x), first * 0.044715), first);
    return aq_mul(x, aq_sigmoid(aq_mul(x, factor)));
}

AqTensor aq_quick_gelu_(AqPlace at, AqTensor x)
{
    return aq_mul(x, aq_sigmoid(aq_scale(x, 1.702)));
}

/* max(x, 0) + log(1 + exp(-|x|)), which does not overflow */
AqTensor aq_softplus_(AqPlace at, AqTensor x)
{
    AqTensor tail = aq_log(aq_shift(aq_exp(aq_neg(aq_abs(x))), 1));
    return aq_add(aq_relu(x), tail);
}

AqTensor aq_mish_(AqPlace at, AqTensor x)
{
    return aq_mul(x, aq_tanh(aq_softplus(x)));
}
