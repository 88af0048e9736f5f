/* What a gradient rule sees.  A rule gets the gradients that arrive at a node's
 * values and builds those of its inputs, out of ops that have rules themselves,
 * so that every gradient can be differentiated again.  Rules lie in
 * gradients_FAMILY.c, one for each name in the gradient column of ir/ops.def;
 * differentiate.c walks the graph, calls them and adds up. */
#ifndef AQ_GRADIENTS_H
#define AQ_GRADIENTS_H

#include "passes/passes.h"

typedef struct AqGradientRule {
    AqGraph *g;
    AqNode node;        /* a copy: building moves the array of nodes */
    AqId y;             /* the node itself */
    const AqId *x;      /* its inputs */
    const AqId *dy;     /* of each of its values; AQ_NO_NODE where none comes */
    const bool *wanted; /* the inputs whose gradients are needed */
    AqId *dx;           /* the answer: AQ_NO_NODE, which is zero, until set */
    int into;           /* which value of x[0] dx[0] belongs to; 0 until set */
} AqGradientRule;

/* Declares each rule of the column, some several times. */
#define OP(name, inputs, facts, attributes, shape, gradient, ...)              \
    void aq_gradient_##gradient(AqGradientRule *r);
#include "ir/ops.def"
#undef OP

/* ---- gradients_movement.c ---- */

/* The adjoint of broadcasting a value of type `to` to the shape of x. */
AqId aq_unbroadcast(AqGraph *g, AqId x, const AqType *to);

/* ---- short words for the rules ---- */

static inline AqType type_of(const AqGraph *g, AqId x)
{
    return x < 0 ? (AqType){0} : aq_node(g, x)->type;
}

static inline AqId plus(AqGraph *g, AqId a, AqId b)
{
    return aq_binary(g, AQ_OP_add, a, b);
}

static inline AqId minus(AqGraph *g, AqId a, AqId b)
{
    return aq_binary(g, AQ_OP_sub, a, b);
}

static inline AqId times(AqGraph *g, AqId a, AqId b)
{
    return aq_binary(g, AQ_OP_mul, a, b);
}

static inline AqId scaled(AqGraph *g, AqId x, double factor)
{
    return times(g, x, aq_const_like(g, x, factor));
}

/* What has arrived already, if anything, and one more. */
static inline AqId accumulated(AqGraph *g, AqId sum, AqId more)
{
    if (sum == AQ_NO_NODE || more == AQ_NO_NODE)
        return sum == AQ_NO_NODE ? more : sum;
    return plus(g, sum, more);
}

#endif
