/* Gradients of reductions, and of reading one of several results. */
#include "passes/gradients.h"

/* Puts a value of the reduced shape back into the shape of the input. */
static AqId spread(AqGradientRule *r, AqId reduced)
{
    const AqAttr *axes = aq_attr(&r->node, AQ_KEY_AXES);
    AqType to = type_of(r->g, r->x[0]);
    return aq_expand_node(r->g, reduced, &to, axes->ints, axes->count);
}

/* y = sum x, so dx = dy everywhere */
void aq_gradient_reduce_sum(AqGradientRule *r)
{
    r->dx[0] = spread(r, r->dy[0]);
}

/* y = max x, so dx = [x = y] dy / (how many x = y): equal ones share */
void aq_gradient_reduce_max(AqGradientRule *r)
{
    const AqAttr *axes = aq_attr(&r->node, AQ_KEY_AXES);
    AqId here = aq_binary(r->g, AQ_OP_equal, r->x[0], spread(r, r->y));
    AqId ties =
        aq_reduce_node(r->g, AQ_OP_reduce_sum, here, axes->ints, axes->count);
    AqId share = aq_binary(r->g, AQ_OP_div, r->dy[0], ties);
    r->dx[0] = times(r->g, here, spread(r, share));
}

/* mean = sum x / n, m2 = sum (x - mean)^2, so
 * dx = dmean / n + 2 (x - mean) dm2; the mean inside m2 adds nothing, because
 * sum (x - mean) = 0 */
void aq_gradient_moments(AqGradientRule *r)
{
    AqType mean_type = aq_result_type(r->g, r->y, 0);
    AqType x_type = type_of(r->g, r->x[0]);
    int64_t kept = AQ_MAX(aq_elements(&mean_type), 1);
    double n = (double)(aq_elements(&x_type) / kept);
    if (r->dy[0] != AQ_NO_NODE)
        r->dx[0] = spread(r, scaled(r->g, r->dy[0], 1 / n));
    if (r->dy[1] == AQ_NO_NODE)
        return;
    AqId mean = spread(r, aq_result_node(r->g, r->y, 0));
    AqId centred = minus(r->g, r->x[0], mean);
    AqId twice = spread(r, scaled(r->g, r->dy[1], 2));
    r->dx[0] = accumulated(r->g, r->dx[0], times(r->g, centred, twice));
}

/* y = value `index` of x, so that value's gradient is dy */
void aq_gradient_result(AqGradientRule *r)
{
    r->into = (int)aq_attr_int(&r->node, AQ_KEY_INDEX, 0);
    r->dx[0] = r->dy[0];
}
