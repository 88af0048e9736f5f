/* Algebraic rules and constant folding.
 *
 * Every live node is built again with its inputs replaced, then rules apply to
 * it until none fits; equal nodes fall together because nodes are interned.
 * What rules leave unused is dropped by a second copy, of live nodes alone.
 *
 * Rules keep the bits a program would compute (f32 rounding included) but for
 * the sign of a zero and the order of the sums in a product, and for one thing:
 * a const zero times x is zero, even where x is infinite or NaN.
 * Differentiation makes many such products, and a step that went wrong is found
 * by its loss and its gradient's norm. */
#include "passes/simplify.h"

static const AqRewriteRow *const tables[] = {
    aq_rewrite_algebra,
    aq_rewrite_movement,
    aq_rewrite_contractions,
    aq_rewrite_folding,
};

static bool fits(const AqRewriteRow *row, const AqNode *node)
{
    if (row->op == AQ_OP_COUNT)
        return (aq_op_info[node->op].facts & row->facts) != 0;
    return row->op == node->op;
}

static AqId rewrite_once(AqGraph *g, AqId id)
{
    AqNode node = *aq_node(g, id);
    if (node.copy) /* wanted as a second evaluation, just as it is */
        return AQ_NO_NODE;
    aq_graph_place(g, &node);
    for (int i = 0; i < AQ_COUNT(tables); i++)
        for (const AqRewriteRow *row = tables[i]; row->rewrite; row++) {
            AqId better = fits(row, &node) ? row->rewrite(g, id) : AQ_NO_NODE;
            if (better != AQ_NO_NODE)
                return better;
        }
    return AQ_NO_NODE;
}

AqId aq_settle(AqGraph *g, AqId id)
{
    for (AqId better = id; better != AQ_NO_NODE && !g->error.status;) {
        id = better;
        better = rewrite_once(g, id);
    }
    return g->error.status ? AQ_NO_NODE : id;
}

/* ---- the two copies ---- */

/* Copies live nodes, each changed by `change` where it is given. */
static AqStatus copy_live(const AqGraph *in, AqGraph *out, AqError *error,
                          AqId (*change)(AqGraph *g, AqId id))
{
    AqArena *arena = aq_arena_new();
    size_t count = (size_t)in->count + 1;
    bool *live = arena ? AQ_NEW_ARRAY(arena, bool, count) : NULL;
    AqId *map = arena ? AQ_NEW_ARRAY(arena, AqId, count) : NULL;
    if (!live || !map) {
        aq_arena_free(arena);
        return aq_no_memory(error, count * sizeof(AqId));
    }
    aq_mark_live(in, live);
    for (AqId id = 0; id < in->count && !out->error.status; id++) {
        map[id] = live[id] ? aq_graph_copy_node(out, in, id, map) : AQ_NO_NODE;
        if (change && map[id] != AQ_NO_NODE)
            map[id] = change(out, map[id]);
    }
    for (int i = 0; i < in->n_outputs && !out->error.status; i++)
        aq_graph_output(out, in->outputs[i].name, map[in->outputs[i].node],
                        in->outputs[i].update);
    aq_arena_free(arena);
    if (out->error.status)
        return aq_fail(error, out->error.status, "%s", out->error.text);
    return AQ_OK;
}

AqStatus aq_simplify(const AqGraph *in, AqGraph *out, AqPassContext *cx)
{
    AqGraph *changed = aq_graph_new();
    if (!changed)
        return aq_no_memory(cx->error, sizeof *changed);
    AqStatus status = copy_live(in, changed, cx->error, aq_settle);
    if (status == AQ_OK)
        status = copy_live(changed, out, cx->error, NULL);
    aq_graph_free(changed);
    return status;
}
