/* Gradients of contractions.  Both families are closed: a product's gradients
 * are products with other flags, and of the three convolutions each is the
 * gradient of the others, because all are the same trilinear form
 *     sum  w[kh, kw, c, o]  x[n, h s + kh, w s + kw, c]  dy[n, h, w, o]
 * differentiated by one of its three tensors. */
#include "passes/gradients.h"

/* y = A b, so dA = dy b^T and db = A^T dy.  An operand that is stored
 * transposed wants its gradient transposed: dA^T = b dy^T, db^T = dy^T A. */
void aq_gradient_matmul(AqGradientRule *r)
{
    AqGraph *g = r->g;
    AqId a = r->x[0], b = r->x[1], dy = r->dy[0];
    bool ta = aq_attr_int(&r->node, AQ_KEY_TA, 0);
    bool tb = aq_attr_int(&r->node, AQ_KEY_TB, 0);
    if (r->wanted[0])
        r->dx[0] = ta ? aq_matmul_node(g, b, dy, tb, true)
                      : aq_matmul_node(g, dy, b, false, !tb);
    if (r->wanted[1])
        r->dx[1] = tb ? aq_matmul_node(g, dy, a, true, ta)
                      : aq_matmul_node(g, a, dy, !ta, false);
}

/* One of the three convolutions, with the stride, padding, dilation and groups
 * of the node at hand; `like` has the type of its result. */
static AqId convolution(AqGradientRule *r, AqOp op, AqId a, AqId b, AqId like)
{
    AqType type = type_of(r->g, like);
    AqId inputs[2] = {a, b};
    return aq_build(r->g, op, op == AQ_OP_conv2d ? NULL : &type, inputs, 2,
                    r->node.attrs, r->node.n_attrs);
}

/* y = conv(x, w) */
void aq_gradient_conv2d(AqGradientRule *r)
{
    AqId x = r->x[0], w = r->x[1], dy = r->dy[0];
    if (r->wanted[0])
        r->dx[0] = convolution(r, AQ_OP_conv2d_input_gradient, dy, w, x);
    if (r->wanted[1])
        r->dx[1] = convolution(r, AQ_OP_conv2d_weight_gradient, x, dy, w);
}

/* y = conv^T(e, w), linear in both; dy has the shape of conv's input, so
 * de = conv(dy, w), dw = the weight gradient at input dy and output e */
void aq_gradient_conv2d_input_gradient(AqGradientRule *r)
{
    AqId e = r->x[0], w = r->x[1], dy = r->dy[0];
    if (r->wanted[0])
        r->dx[0] = convolution(r, AQ_OP_conv2d, dy, w, e);
    if (r->wanted[1])
        r->dx[1] = convolution(r, AQ_OP_conv2d_weight_gradient, dy, e, w);
}

/* y = the weight gradient at input x and output e, linear in both; dy has the
 * shape of the weights, so dx = conv^T(e, dy), de = conv(x, dy) */
void aq_gradient_conv2d_weight_gradient(AqGradientRule *r)
{
    AqId x = r->x[0], e = r->x[1], dy = r->dy[0];
    if (r->wanted[0])
        r->dx[0] = convolution(r, AQ_OP_conv2d_input_gradient, e, dy, x);
    if (r->wanted[1])
        r->dx[1] = convolution(r, AQ_OP_conv2d, x, dy, e);
}
