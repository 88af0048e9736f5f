/* Attention, and diffusers' layer of it. */
#include "frontend/dsl/build.h"

#include <math.h>

/* (N, T, heads d) -> (N, T, heads, d) */
static AqTensor split_heads(AqPlace at, AqTensor x, int heads)
{
    AqShape shape = aq_shape(x);
    return aq_reshape(
        x, AQ_SHAPE(shape.dim[0], shape.dim[1], heads, shape.dim[2] / heads));
}

static bool sensible(AqPlace at, const AqAttention *a)
{
    const AqType *q = aq_type_of(a->q), *k = aq_type_of(a->k),
                 *v = aq_type_of(a->v);
    AqGraph *g = a->q.graph;
    if (q->rank != 3 || k->rank != 3 || v->rank != 3)
        aq_complain(at, g, "attention: q, k and v must be (N, T, C)");
    else if (a->heads < 1 || q->dim[2] % a->heads)
        aq_complain(at, g,
                    "attention: %lld channels are not a whole number of %d "
                    "heads",
                    (long long)q->dim[2], a->heads);
    else if (k->dim[2] != q->dim[2] || v->dim[2] != q->dim[2])
        aq_complain(
            at, g, "attention: q, k and v have %lld, %lld and %lld channels",
            (long long)q->dim[2], (long long)k->dim[2], (long long)v->dim[2]);
    else if (k->dim[1] != v->dim[1])
        aq_complain(at, g, "attention: %lld keys and %lld values",
                    (long long)k->dim[1], (long long)v->dim[1]);
    else if (k->dim[0] != q->dim[0] || v->dim[0] != q->dim[0])
        aq_complain(
            at, g, "attention: q, k and v are of %lld, %lld and %lld samples",
            (long long)q->dim[0], (long long)k->dim[0], (long long)v->dim[0]);
    return g->error.status == AQ_OK;
}

AqTensor aq_attention_(AqPlace at, AqAttention a)
{
    AqTensor all[] = {a.q, a.k, a.v, a.bias};
    int count = aq_is_none(a.bias) ? 3 : 4;
    AqGraph *g = aq_enter(at, "attention", all, count);
    if (!g)
        return aq_lost(a.q.graph ? a.q : a.k);
    if (!at.scope)
        at.scope = g->scope;
    a.heads = a.heads ? a.heads : 1;
    if (!sensible(at, &a))
        return aq_lost(a.q);
    double scale = a.scale;
    if (scale == 0)
        scale = 1 / sqrt((double)aq_type_of(a.q)->dim[2] / a.heads);
    AqId inputs[4];
    for (int i = 0; i < count; i++) {
        AqTensor x = i < 3 ? split_heads(at, all[i], a.heads) : all[i];
        if (!aq_good(x))
            return x;
        inputs[i] = x.id;
    }
    AqAttr attrs[] = {aq_real(AQ_KEY_SCALE, scale),
                      aq_int(AQ_KEY_CAUSAL, a.causal)};
    aq_enter_graph(at, g);
    AqId both = aq_build(g, AQ_OP_attention, NULL, inputs, count, attrs, 2);
    if (both < 0)
        return aq_lost(a.q);
    return aq_reshape(aq_wrap(g, aq_result_node(g, both, 0)), aq_shape(a.q));
}

AqTensor aq_attention_layer_(AqPlace at, AqAttentionLayer a)
{
    AqTensor context = aq_is_none(a.context) ? a.x : a.context;
    int channels = aq_channels(a.x);
    int units = a.units ? a.units : channels;
    AqTensor q =
        aq_linear(aq_sub(a.scope, "to_q"), a.x, units, .no_bias = a.no_bias);
    AqTensor k = aq_linear(aq_sub(a.scope, "to_k"), context, units,
                           .no_bias = a.no_bias);
    AqTensor v = aq_linear(aq_sub(a.scope, "to_v"), context, units,
                           .no_bias = a.no_bias);
    at.scope = a.scope.path;
    AqTensor y = aq_attention(q, k, v, .heads = a.heads, .bias = a.bias,
                              .causal = a.causal);
    at.scope = NULL;
    return aq_linear(aq_sub(a.scope, "to_out.0"), y, channels, .zero = a.zero);
}
