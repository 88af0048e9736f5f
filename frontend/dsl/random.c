/* Random numbers, each a function of key, step, sample and the scope's path. */
#include "frontend/dsl/build.h"

#include <string.h>

/* Streams tell draws apart, so none may serve two. */
static bool stream_is_new(AqPlace at, AqScope s, uint32_t stream)
{
    const AqGraph *g = s.graph;
    for (AqId id = 0; id < g->count; id++) {
        const AqNode *node = aq_node(g, id);
        if (node->op != AQ_OP_random ||
            aq_attr_int(node, AQ_KEY_STREAM, -1) != (int64_t)stream)
            continue;
        if (strcmp(node->scope, s.path) == 0)
            aq_complain(
                at, s.graph,
                "scope \"%s\" draws random numbers a second time (first "
                "at %s:%d); use two scopes",
                s.path, node->file, node->line);
        else
            aq_complain(at, s.graph,
                        "scopes \"%s\" and \"%s\" have the same random stream; "
                        "rename one",
                        s.path, node->scope);
        return false;
    }
    return true;
}

static AqTensor draw(AqPlace at, AqScope s, AqShape shape, const char *kind)
{
    AqGraph *g = aq_enter_scope(&at, s);
    if (!g)
        return aq_wrap(s.graph, AQ_NO_NODE);
    if (!s.draw)
        return aq_complain(at, g,
                           "scope \"%s\" has no random numbers; see aq_drawing",
                           s.path);
    AqTensor from[] = {s.draw->key, s.draw->step, s.draw->sample};
    if (!aq_enter(at, kind, from, 3))
        return aq_wrap(g, AQ_NO_NODE);
    uint32_t stream = (uint32_t)aq_hash64(s.path, strlen(s.path));
    if (!stream_is_new(at, s, stream))
        return aq_wrap(g, AQ_NO_NODE);
    AqId inputs[] = {from[0].id, from[1].id, from[2].id};
    AqAttr attrs[] = {aq_text(AQ_KEY_KIND, kind),
                      aq_int(AQ_KEY_STREAM, stream)};
    AqType type = aq_type(AQ_F32, shape.rank, shape.dim);
    return aq_wrap(g, aq_build(g, AQ_OP_random, &type, inputs, 3, attrs, 2));
}

AqTensor aq_normal_(AqPlace at, AqScope s, AqShape shape)
{
    return draw(at, s, shape, "normal");
}

AqTensor aq_uniform_(AqPlace at, AqScope s, AqShape shape)
{
    return draw(at, s, shape, "uniform");
}

/* keep where u >= rate: y = x keep / (1 - rate) */
AqTensor aq_dropout_(AqPlace at, AqScope s, AqTensor x, double rate)
{
    if (!(rate >= 0 && rate < 1))
        return aq_complain(at, s.graph, "dropout: rate %g is not in [0, 1)",
                           rate);
    if (rate == 0 || !s.draw || !aq_good(x))
        return x;
    AqTensor u = aq_uniform(s, aq_shape(x));
    at.scope = s.path;
    AqTensor drop = aq_less(u, aq_full_like(u, rate));
    AqTensor factor =
        aq_select(drop, aq_full_like(u, 0), aq_full_like(u, 1 / (1 - rate)));
    return aq_mul(x, factor);
}
