/* Gradients of attention.  With S = scale q k^T + bias, L = log sum exp S,
 * P = exp(S - L), out = P v and, arriving, dout and dL:
 *
 *     dP = dout v^T,  D = rowsum(dout out),  dS = P (dP - D + dL),
 *     dq = scale dS k,  dk = scale dS^T q,  dv = P^T dout,  dbias = dS.
 *
 * Training meets dout alone, and that is the op attention_gradient.  What else
 * can arrive is built of matrix products and exp, with P stored. */
#include "passes/gradients.h"

enum { Q, K, V, OUT, LSE, DOUT, BIAS, INPUTS }; /* of attention_gradient */

/* (B, T, heads, d) -> (B, heads, T, d), and back */
static AqId swap_heads(AqGraph *g, AqId x)
{
    return aq_transpose_node(g, x, (int64_t[]){0, 2, 1, 3});
}

/* A value a query (B, heads, Tq), repeated for each key. */
static AqId for_each_key(AqGraph *g, AqId x, const AqType *scores)
{
    return aq_expand_node(g, x, scores, (int64_t[]){3}, 1);
}

static AqId hide_future(AqGraph *g, AqId x)
{
    AqType scores = type_of(g, x);
    AqId key = aq_iota_node(g, &scores, 3);
    AqId query = aq_iota_node(g, &scores, 2);
    AqId seen = aq_binary(g, AQ_OP_less_equal, key, query);
    /* before the exp, which would overflow at what is hidden */
    return aq_select_node(g, seen, x, aq_const_like(g, x, -1e30));
}

/* P = exp(S - L) (B, heads, Tq, Tk); `bias` may be AQ_NO_NODE. */
static AqId probabilities(AqGraph *g, const AqNode *node, AqId q, AqId k,
                          AqId lse, AqId bias)
{
    AqId product =
        aq_matmul_node(g, swap_heads(g, q), swap_heads(g, k), false, true);
    AqId s = scaled(g, product, aq_attr_real(node, AQ_KEY_SCALE, 1));
    AqType scores = type_of(g, s);
    if (bias != AQ_NO_NODE)
        s = plus(g, s, aq_broadcast_node(g, bias, 4, scores.dim));
    s = minus(g, s, for_each_key(g, lse, &scores));
    if (aq_attr_int(node, AQ_KEY_CAUSAL, 0))
        s = hide_future(g, s);
    return aq_unary(g, AQ_OP_exp, s);
}

/* dS = P (dout v^T - rowsum(dout out)) */
static AqId score_gradient(AqGraph *g, AqId p, AqId v, AqId out, AqId dout)
{
    AqType scores = type_of(g, p);
    AqId dp =
        aq_matmul_node(g, swap_heads(g, dout), swap_heads(g, v), false, true);
    AqId each = swap_heads(g, times(g, dout, out));
    AqId d = aq_reduce_node(g, AQ_OP_reduce_sum, each, (int64_t[]){3}, 1);
    return times(g, p, minus(g, dp, for_each_key(g, d, &scores)));
}

/* dq = scale dS k */
static AqId query_gradient(AqGraph *g, const AqNode *node, AqId ds, AqId k)
{
    AqId dq = aq_matmul_node(g, ds, swap_heads(g, k), false, false);
    return swap_heads(g, scaled(g, dq, aq_attr_real(node, AQ_KEY_SCALE, 1)));
}

/* dk = scale dS^T q */
static AqId key_gradient(AqGraph *g, const AqNode *node, AqId ds, AqId q)
{
    AqId dk = aq_matmul_node(g, ds, swap_heads(g, q), true, false);
    return swap_heads(g, scaled(g, dk, aq_attr_real(node, AQ_KEY_SCALE, 1)));
}

/* dv = P^T dout */
static AqId value_gradient(AqGraph *g, AqId p, AqId dout)
{
    return swap_heads(g,
                      aq_matmul_node(g, p, swap_heads(g, dout), true, false));
}

/* ---- attention ---- */

static void by_the_op(AqGradientRule *r, AqId out, AqId lse)
{
    AqId inputs[INPUTS] = {r->x[0], r->x[1], r->x[2], out, lse, r->dy[0]};
    if (r->node.n_inputs > 3)
        inputs[BIAS] = r->x[3];
    AqId all = aq_build(r->g, AQ_OP_attention_gradient, NULL, inputs,
                        r->node.n_inputs + 3, r->node.attrs, r->node.n_attrs);
    for (int i = 0; i < 3; i++)
        if (r->wanted[i])
            r->dx[i] = aq_result_node(r->g, all, i);
}

/* What dL adds to dq and dk, and all of dbias. */
static void by_the_scores(AqGradientRule *r, AqId out, AqId lse)
{
    AqGraph *g = r->g;
    AqId q = r->x[0], k = r->x[1], dout = r->dy[0], dlse = r->dy[1];
    AqId bias = r->node.n_inputs > 3 ? r->x[3] : AQ_NO_NODE;
    AqId p = probabilities(g, &r->node, q, k, lse, bias);
    AqId by_lse = AQ_NO_NODE, by_out = AQ_NO_NODE;
    AqType scores = type_of(g, p), type = type_of(g, bias);
    if (dlse != AQ_NO_NODE)
        by_lse = times(g, p, for_each_key(g, dlse, &scores));
    if (by_lse != AQ_NO_NODE && r->wanted[0])
        r->dx[0] =
            accumulated(g, r->dx[0], query_gradient(g, &r->node, by_lse, k));
    if (by_lse != AQ_NO_NODE && r->wanted[1])
        r->dx[1] =
            accumulated(g, r->dx[1], key_gradient(g, &r->node, by_lse, q));
    if (bias == AQ_NO_NODE || !r->wanted[3])
        return;
    if (dout != AQ_NO_NODE)
        by_out = score_gradient(g, p, r->x[2], out, dout);
    r->dx[3] = aq_unbroadcast(g, accumulated(g, by_out, by_lse), &type);
}

/* out, L = attention(q, k, v, bias) */
void aq_gradient_attention(AqGradientRule *r)
{
    AqId out = aq_result_node(r->g, r->y, 0);
    AqId lse = aq_result_node(r->g, r->y, 1);
    bool scores_wanted = r->wanted[0] || r->wanted[1];
    if (r->dy[0] != AQ_NO_NODE && (scores_wanted || r->wanted[2]))
        by_the_op(r, out, lse);
    if ((r->dy[1] != AQ_NO_NODE && scores_wanted) ||
        (r->node.n_inputs > 3 && r->wanted[3]))
        by_the_scores(r, out, lse);
}

/* ---- attention_gradient ---- */

/* dq u_q + dk u_k + dv u_v, summed: its gradients are those of the op where the
 * u arrive.  `in` are the op's inputs, `u` AQ_NO_NODE where none arrives. */
static AqId weighted_sum(AqGraph *g, const AqNode *node, const AqId *in,
                         const AqId *u)
{
    AqId p = probabilities(g, node, in[Q], in[K], in[LSE], in[BIAS]);
    AqId ds = score_gradient(g, p, in[V], in[OUT], in[DOUT]);
    AqId sum = AQ_NO_NODE;
    for (int i = 0; i < 3; i++) {
        if (u[i] == AQ_NO_NODE)
            continue;
        AqId value = i == Q   ? query_gradient(g, node, ds, in[K])
                     : i == K ? key_gradient(g, node, ds, in[Q])
                              : value_gradient(g, p, in[DOUT]);
        AqId product = times(g, value, u[i]);
        sum = accumulated(g, sum,
                          aq_reduce_node(g, AQ_OP_reduce_sum, product,
                                         (int64_t[]){0, 1, 2, 3}, 4));
    }
    return sum;
}

/* A source of `scratch` that stands for node `x` of r->g. */
static AqId stand_in(AqGraph *scratch, const AqGradientRule *r, AqId x,
                     const char *kind, int index, AqId *stands_for)
{
    if (x == AQ_NO_NODE)
        return AQ_NO_NODE;
    AqType type = type_of(r->g, x);
    char name[32];
    snprintf(name, sizeof name, "%s%d", kind, index);
    AqAttr attr = aq_text(AQ_KEY_NAME, name);
    AqId id = aq_build(scratch, AQ_OP_input, &type, NULL, 0, &attr, 1);
    if (id >= 0)
        stands_for[id] = x;
    return id;
}

/* Copies what leads to `wanted` into r->g, the sources replaced. */
static void copy_back(AqGradientRule *r, AqGraph *scratch, AqId *map,
                      int sources)
{
    bool *live = AQ_NEW_ARRAY(scratch->arena, bool, scratch->count);
    AqId *all = AQ_NEW_ARRAY(scratch->arena, AqId, scratch->count);
    if (!live || !all) {
        aq_no_memory(&r->g->error, (size_t)scratch->count * sizeof *all);
        return;
    }
    aq_mark_live(scratch, live);
    for (AqId id = 0; id < scratch->count; id++) {
        all[id] = AQ_NO_NODE;
        if (id < sources)
            all[id] = map[id];
        else if (live[id])
            all[id] = aq_graph_copy_node(r->g, scratch, id, all);
    }
    for (int i = 0, k = 0; i < r->node.n_inputs; i++)
        if (r->wanted[i])
            r->dx[i] = all[scratch->outputs[k++].node];
}

static void name_output(AqGraph *scratch, AqId id)
{
    char name[32];
    snprintf(name, sizeof name, "dx%d", scratch->n_outputs);
    aq_graph_output(scratch, name, id, false);
}

/* dq, dk, dv = attention_gradient(q, k, v, out, L, dout, bias), in which the
 * inputs stand side by side although out and L depend on q, k, v.  So their
 * formula is written and differentiated in a graph of its own, whose sources
 * are the inputs, and copied. */
static void differentiate_aside(AqGradientRule *r, AqGraph *scratch)
{
    AqId map[INPUTS + 3], in[INPUTS], u[3], wrt[INPUTS], gradients[INPUTS];
    int n = 0;
    for (int i = 0; i < INPUTS; i++)
        in[i] =
            stand_in(scratch, r, i < r->node.n_inputs ? r->x[i] : AQ_NO_NODE,
                     "x", i, map);
    for (int i = 0; i < 3; i++)
        u[i] = stand_in(scratch, r, r->dy[i], "u", i, map);
    int sources = scratch->count;
    for (int i = 0; i < r->node.n_inputs; i++)
        if (r->wanted[i])
            wrt[n++] = in[i];
    aq_graph_place(scratch, &r->node);
    AqId sum = weighted_sum(scratch, &r->node, in, u);
    if (aq_gradient_nodes(scratch, sum, wrt, n, gradients) == AQ_OK)
        for (int i = 0; i < n; i++)
            name_output(scratch, gradients[i]);
    if (scratch->error.status)
        aq_fail(&r->g->error, scratch->error.status, "%s", scratch->error.text);
    else
        copy_back(r, scratch, map, sources);
}

void aq_gradient_attention_gradient(AqGradientRule *r)
{
    AqGraph *scratch = aq_graph_new();
    if (!scratch) {
        aq_no_memory(&r->g->error, sizeof *scratch);
        return;
    }
    differentiate_aside(r, scratch);
    aq_graph_free(scratch);
}
