/* Gradients of the pointwise ops.  y = f(x), so dx = dy f'(x), written with y
 * where that saves work. */
#include "passes/gradients.h"

#include <math.h>

/* Sources, and ops through which no gradient is wanted. */
void aq_gradient_none(AqGradientRule *r)
{
    (void)r;
}

/* Steps: constant wherever there is a derivative. */
void aq_gradient_zero(AqGradientRule *r)
{
    (void)r;
}

/* ---- one input ---- */

/* y = -x, so dx = -dy */
void aq_gradient_neg(AqGradientRule *r)
{
    r->dx[0] = aq_unary(r->g, AQ_OP_neg, r->dy[0]);
}

/* y = |x|, so dx = dy sign(x) */
void aq_gradient_abs(AqGradientRule *r)
{
    r->dx[0] = times(r->g, r->dy[0], aq_unary(r->g, AQ_OP_sign, r->x[0]));
}

/* y = exp(x), so dx = dy y */
void aq_gradient_exp(AqGradientRule *r)
{
    r->dx[0] = times(r->g, r->dy[0], r->y);
}

/* y = log(x), so dx = dy / x */
void aq_gradient_log(AqGradientRule *r)
{
    r->dx[0] = aq_binary(r->g, AQ_OP_div, r->dy[0], r->x[0]);
}

/* y = sqrt(x), so dx = dy / y / 2 */
void aq_gradient_sqrt(AqGradientRule *r)
{
    AqId ratio = aq_binary(r->g, AQ_OP_div, r->dy[0], r->y);
    r->dx[0] = scaled(r->g, ratio, 0.5);
}

/* y = x^(-1/2), so dx = -dy y^3 / 2 */
void aq_gradient_rsqrt(AqGradientRule *r)
{
    AqId cube = times(r->g, r->y, times(r->g, r->y, r->y));
    r->dx[0] = times(r->g, r->dy[0], scaled(r->g, cube, -0.5));
}

/* y = sin(x), so dx = dy cos(x) */
void aq_gradient_sin(AqGradientRule *r)
{
    r->dx[0] = times(r->g, r->dy[0], aq_unary(r->g, AQ_OP_cos, r->x[0]));
}

/* y = cos(x), so dx = -dy sin(x) */
void aq_gradient_cos(AqGradientRule *r)
{
    AqId sine = aq_unary(r->g, AQ_OP_sin, r->x[0]);
    r->dx[0] = aq_unary(r->g, AQ_OP_neg, times(r->g, r->dy[0], sine));
}

/* y = tanh(x), so dx = dy (1 - y^2) */
void aq_gradient_tanh(AqGradientRule *r)
{
    AqId one = aq_const_like(r->g, r->y, 1);
    AqId slope = minus(r->g, one, times(r->g, r->y, r->y));
    r->dx[0] = times(r->g, r->dy[0], slope);
}

/* y = erf(x), so dx = dy 2 / sqrt(pi) exp(-x^2) */
void aq_gradient_erf(AqGradientRule *r)
{
    AqId square = times(r->g, r->x[0], r->x[0]);
    AqId bell = aq_unary(r->g, AQ_OP_exp, aq_unary(r->g, AQ_OP_neg, square));
    r->dx[0] = times(r->g, r->dy[0], scaled(r->g, bell, M_2_SQRTPI));
}

/* y = 1 / (1 + exp(-x)), so dx = dy y (1 - y) */
void aq_gradient_sigmoid(AqGradientRule *r)
{
    AqId rest = minus(r->g, aq_const_like(r->g, r->y, 1), r->y);
    r->dx[0] = times(r->g, r->dy[0], times(r->g, r->y, rest));
}

/* ---- two inputs ---- */

/* y = a + b, so da = db = dy */
void aq_gradient_add(AqGradientRule *r)
{
    r->dx[0] = r->dx[1] = r->dy[0];
}

/* y = a - b, so da = dy, db = -dy */
void aq_gradient_sub(AqGradientRule *r)
{
    r->dx[0] = r->dy[0];
    if (r->wanted[1])
        r->dx[1] = aq_unary(r->g, AQ_OP_neg, r->dy[0]);
}

/* y = a b, so da = dy b, db = dy a */
void aq_gradient_mul(AqGradientRule *r)
{
    for (int i = 0; i < 2; i++)
        if (r->wanted[i])
            r->dx[i] = times(r->g, r->dy[0], r->x[1 - i]);
}

/* y = a / b, so da = dy / b, db = -dy a / b^2 = -da y */
void aq_gradient_div(AqGradientRule *r)
{
    AqId da = aq_binary(r->g, AQ_OP_div, r->dy[0], r->x[1]);
    r->dx[0] = da;
    if (r->wanted[1])
        r->dx[1] = aq_unary(r->g, AQ_OP_neg, times(r->g, da, r->y));
}

/* dy where `low` lies below `high`, half of it where they are equal. */
static AqId share_below(AqGradientRule *r, AqId low, AqId high)
{
    AqId below = aq_binary(r->g, AQ_OP_less, low, high);
    AqId not_above = aq_binary(r->g, AQ_OP_less_equal, low, high);
    AqId share = scaled(r->g, plus(r->g, below, not_above), 0.5);
    return times(r->g, r->dy[0], share);
}

/* y = max(a, b), so the larger one has dy; equal ones share it */
void aq_gradient_max(AqGradientRule *r)
{
    for (int i = 0; i < 2; i++)
        if (r->wanted[i])
            r->dx[i] = share_below(r, r->x[1 - i], r->x[i]);
}

/* y = min(a, b), so the smaller one has dy; equal ones share it */
void aq_gradient_min(AqGradientRule *r)
{
    for (int i = 0; i < 2; i++)
        if (r->wanted[i])
            r->dx[i] = share_below(r, r->x[i], r->x[1 - i]);
}

/* ---- three inputs ---- */

/* y = c ? a : b, so da = c ? dy : 0, db = c ? 0 : dy.  A branch that is not
 * chosen still multiplies that zero by its own slope: where the slope can be
 * infinite, the model must choose before the op as well as after it. */
void aq_gradient_select(AqGradientRule *r)
{
    AqId zero = aq_const_like(r->g, r->dy[0], 0);
    if (r->wanted[1])
        r->dx[1] = aq_select_node(r->g, r->x[0], r->dy[0], zero);
    if (r->wanted[2])
        r->dx[2] = aq_select_node(r->g, r->x[0], zero, r->dy[0]);
}
