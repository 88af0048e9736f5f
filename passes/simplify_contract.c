/* Rules for contractions. */
#include "passes/simplify.h"

/* ---- few columns ---- */

/* Vectors run along a product's columns, the channels of dy in the gradient of
 * a convolution's weights.  Where these are few and those of x are many, x and
 * dy change places: with dilation 1 and stride 1
 *
 *     dw[t][i][o] = sum over p of x[p + t - pad] dy[p]
 *                 = sum over q of dy[q + (k - 1 - t) - (k - 1 - pad)] x[q],
 *
 * the gradient of weights that are turned round and transposed. */
typedef struct Turned {
    AqId x, dy;
    int64_t kernel[2], in, out, pad[4];
} Turned;

static bool describe(const AqGraph *g, AqId id, Turned *t)
{
    enum { FEW = 8, MANY = 16 };
    const AqNode *node = aq_node(g, id);
    *t = (Turned){.x = node->inputs[0],
                  .dy = node->inputs[1],
                  .kernel = {node->type.dim[0], node->type.dim[1]},
                  .in = node->type.dim[2],
                  .out = node->type.dim[3]};
    bool suits = aq_attr_int(node, AQ_KEY_GROUPS, 1) == 1 && t->out <= FEW &&
                 t->in >= MANY && aq_elements(&node->type) > 0;
    for (int d = 0; d < 2; d++) {
        suits = suits && aq_attr_at(node, AQ_KEY_STRIDE, d, 1) == 1 &&
                aq_attr_at(node, AQ_KEY_DILATION, d, 1) == 1;
        for (int i = 2 * d; i < 2 * d + 2; i++) {
            t->pad[i] = t->kernel[d] - 1 - aq_attr_at(node, AQ_KEY_PAD, i, 0);
            suits = suits && t->pad[i] >= 0;
        }
    }
    return suits;
}

/* (taps, out, in), the last tap first, as weights. */
static AqId turn_back(AqGraph *g, const Turned *t, AqId dw)
{
    enum { MOST_TAPS = 64 };
    double order[MOST_TAPS];
    int64_t taps = t->kernel[0] * t->kernel[1], swap[] = {0, 2, 1};
    if (taps > MOST_TAPS)
        return AQ_NO_NODE;
    for (int64_t i = 0; i < taps; i++)
        order[i] = (double)(taps - 1 - i);
    AqType type = aq_type(AQ_I32, 1, &taps);
    int64_t rows[] = {taps, t->out, t->in};
    int64_t weights[] = {t->kernel[0], t->kernel[1], t->in, t->out};
    AqId inputs[] = {aq_reshape_node(g, dw, 3, rows),
                     aq_table_node(g, &type, order)};
    AqId turned = aq_build(g, AQ_OP_gather, NULL, inputs, 2, NULL, 0);
    return aq_reshape_node(g, aq_transpose_node(g, turned, swap), 4, weights);
}

static AqId exchange_roles(AqGraph *g, AqId id)
{
    Turned t;
    if (!describe(g, id, &t))
        return AQ_NO_NODE;
    const int64_t one[] = {1, 1};
    int64_t dim[] = {t.kernel[0], t.kernel[1], t.out, t.in};
    AqType type = aq_type(AQ_F32, 4, dim);
    AqId inputs[] = {t.dy, t.x};
    AqAttr attrs[] = {
        aq_ints(AQ_KEY_STRIDE, one, 2), aq_ints(AQ_KEY_PAD, t.pad, 4),
        aq_ints(AQ_KEY_DILATION, one, 2), aq_int(AQ_KEY_GROUPS, 1)};
    return turn_back(g, &t,
                     aq_build(g, AQ_OP_conv2d_weight_gradient, &type, inputs, 2,
                              attrs, AQ_COUNT(attrs)));
}

const AqRewriteRow aq_rewrite_contractions[] = {
    {AQ_OP_conv2d_weight_gradient, 0, exchange_roles},
    {0},
};
