/* Edges between boxes, and which of them are drawn. */
#include "ir/dot.h"

#include <string.h>

/* A box with more edges than this is a hub. */
enum { MOST_EDGES = 5 };

typedef struct Users {
    int *first; /* of node id: users first[id] .. first[id + 1] - 1 */
    AqId *at;
} Users;

static bool list_users(Dot *d, Users *users)
{
    const AqGraph *g = d->graph;
    int total = 0;
    users->first = AQ_NEW_ARRAY(d->arena, int, g->count + 2);
    for (AqId id = 0; users->first && id < g->count; id++) {
        const AqNode *node = aq_node(g, id);
        for (int i = 0; d->live[id] && i < node->n_inputs; i++, total++)
            users->first[node->inputs[i] + 2]++;
    }
    users->at = AQ_NEW_ARRAY(d->arena, AqId, total + 1);
    if (!users->first || !users->at)
        return false;
    for (int i = 0; i < g->count; i++)
        users->first[i + 2] += users->first[i + 1];
    for (AqId id = 0; id < g->count; id++) {
        const AqNode *node = aq_node(g, id);
        for (int i = 0; d->live[id] && i < node->n_inputs; i++)
            users->at[users->first[node->inputs[i] + 1]++] = id;
    }
    return true;
}

/* From one copy of a folded block to another. */
static bool stays_in_run(const Dot *d, AqId from, AqId to)
{
    int a = d->group[from], b = d->group[to];
    if (a == DOT_NOWHERE || b == DOT_NOWHERE)
        return false;
    for (; a != DOT_NOWHERE; a = d->groups[a].parent)
        for (int c = b; c != DOT_NOWHERE; c = d->groups[c].parent)
            if (d->groups[a].run && d->groups[a].run == d->groups[c].run &&
                d->groups[a].copy != d->groups[c].copy)
                return true;
    return false;
}

static DotEdge *edge_between(Dot *d, int from, int to)
{
    for (int e = d->boxes[from].edges; e != DOT_NOWHERE; e = d->edges[e].next)
        if (d->edges[e].to == to)
            return &d->edges[e];
    if (!aq_dot_reserve(d, (void **)&d->edges, d->n_edges, &d->edges_capacity,
                        sizeof *d->edges))
        return NULL;
    d->edges[d->n_edges] =
        (DotEdge){.from = from, .to = to, .next = d->boxes[from].edges};
    d->boxes[from].edges = d->n_edges;
    return &d->edges[d->n_edges++];
}

static bool is_outside(const DotBox *box)
{
    return box->role == DOT_STUB || box->role == DOT_SOURCE;
}

static bool add_tensor(Dot *d, AqId id, int from, int to)
{
    if (is_outside(&d->boxes[from]) && is_outside(&d->boxes[to]))
        return true;
    const AqType *type = &aq_node(d->graph, id)->type;
    DotEdge *edge = edge_between(d, from, to);
    if (!edge)
        return false;
    if (edge->copies == 0 || aq_bytes(type) > aq_bytes(&edge->type))
        edge->type = *type;
    edge->copies++;
    edge->tensors += d->twin[id] == id;
    return true;
}

static bool add_edges(Dot *d)
{
    Users users;
    AqId *seen = AQ_NEW_ARRAY(d->arena, AqId, d->n_boxes + 1);
    if (!seen || !list_users(d, &users))
        return false;
    for (int b = 0; b < d->n_boxes; b++)
        seen[b] = AQ_NO_NODE;
    for (AqId id = 0; id < d->graph->count; id++) {
        int from = d->box[d->twin[id]];
        for (int u = users.first[id]; u < users.first[id + 1]; u++) {
            AqId user = users.at[u];
            int to = d->box[d->twin[user]];
            if (from == DOT_NOWHERE || to == DOT_NOWHERE || from == to ||
                seen[to] == id || stays_in_run(d, id, user))
                continue;
            seen[to] = id;
            if (!add_tensor(d, id, from, to))
                return false;
        }
    }
    return true;
}

/* Outputs of the forward are boxes; those of the optimizer stand in its. */
static bool add_sinks(Dot *d)
{
    for (int i = 0; i < d->graph->n_outputs; i++) {
        AqId id = d->graph->outputs[i].node;
        int from = d->box[d->twin[id]];
        if (from == DOT_NOWHERE || d->graph->outputs[i].update ||
            d->boxes[from].phase != DOT_FORWARD || is_outside(&d->boxes[from]))
            continue;
        if (!aq_dot_reserve(d, (void **)&d->boxes, d->n_boxes,
                            &d->boxes_capacity, sizeof *d->boxes))
            return false;
        d->boxes[d->n_boxes] = (DotBox){.role = DOT_SINK,
                                        .group = DOT_NOWHERE,
                                        .first = i, /* number of the output */
                                        .kind = DOT_STATE,
                                        .edges = DOT_NOWHERE};
        if (!add_tensor(d, id, from, d->n_boxes++))
            return false;
    }
    return true;
}

/* ---- what would be drawn too often ---- */

static bool crosses(const Dot *d, const DotEdge *edge)
{
    const DotBox *from = &d->boxes[edge->from], *to = &d->boxes[edge->to];
    return from->role != DOT_SOURCE && from->phase == DOT_FORWARD &&
           to->phase == DOT_BACKWARD;
}

/* What the optimizer reads besides gradients is told in its box. */
static bool comes_late(const Dot *d, const DotEdge *edge)
{
    const DotBox *from = &d->boxes[edge->from], *to = &d->boxes[edge->to];
    return to->phase == DOT_UPDATE && from->phase == DOT_FORWARD;
}

static void find_hubs(Dot *d)
{
    for (int e = 0; e < d->n_edges; e++) {
        const DotEdge *edge = &d->edges[e];
        if (crosses(d, edge) || comes_late(d, edge))
            continue;
        d->boxes[edge->from].leave++;
        d->boxes[edge->to].enter++;
    }
    for (int b = 0; b < d->n_boxes; b++) {
        d->boxes[b].source_hub = d->boxes[b].leave > MOST_EDGES;
        d->boxes[b].sink_hub = d->boxes[b].enter > MOST_EDGES;
    }
}

/* The forward box of the same scope, or DOT_NOWHERE. */
static int mirror(const Dot *d, int box)
{
    const DotBox *back = &d->boxes[box];
    if (back->group == DOT_NOWHERE)
        return DOT_NOWHERE;
    const char *scope = d->groups[back->group].scope;
    for (int g = 0; g < d->n_groups; g++) {
        const DotGroup *group = &d->groups[g];
        if (group->phase != DOT_FORWARD || strcmp(group->scope, scope))
            continue;
        AqId id = d->twin[group->nodes[group->count - 1]];
        return d->box[id];
    }
    return DOT_NOWHERE;
}

static bool same_scope(const Dot *d, int a, int b)
{
    int x = d->boxes[a].group, y = d->boxes[b].group;
    return x != DOT_NOWHERE && y != DOT_NOWHERE &&
           !strcmp(d->groups[x].scope, d->groups[y].scope);
}

/* best[b]: where what the backward box b keeps of the forward comes from: the
 * box of the same scope where there is one.  partner[f]: the box that keeps of
 * f, and stands beside it. */
static void find_partners(Dot *d, int *best, int *partner)
{
    for (int b = 0; b < d->n_boxes; b++) {
        partner[b] = DOT_NOWHERE;
        best[b] =
            d->boxes[b].phase == DOT_BACKWARD ? mirror(d, b) : DOT_NOWHERE;
    }
    for (int e = 0; e < d->n_edges; e++) {
        DotEdge *edge = &d->edges[e];
        int to = edge->to;
        if (!crosses(d, edge))
            continue;
        edge->told = true;
        if (best[to] == DOT_NOWHERE)
            best[to] = edge->from;
        int *of = &partner[best[to]];
        if (*of == DOT_NOWHERE ||
            (same_scope(d, best[to], to) && !same_scope(d, best[to], *of)))
            *of = to;
    }
}

/* What the backward keeps of the forward is one edge for each forward box, and
 * none where all ops are shown: the others are told in numbers. */
static bool join_saved(Dot *d)
{
    int *best = AQ_NEW_ARRAY(d->arena, int, d->n_boxes + 1);
    int *partner = AQ_NEW_ARRAY(d->arena, int, d->n_boxes + 1);
    if (!best || !partner)
        return false;
    find_partners(d, best, partner);
    for (int b = 0; b < d->n_boxes; b++) {
        int to = partner[b];
        if (to == DOT_NOWHERE || is_outside(&d->boxes[to]) ||
            d->depth > d->deepest - d->base)
            continue;
        DotEdge *joined = edge_between(d, b, to);
        if (!joined)
            return false;
        joined->told = false;
    }
    return true;
}

static void tell_hubs(Dot *d)
{
    for (int e = 0; e < d->n_edges; e++) {
        DotEdge *edge = &d->edges[e];
        const DotBox *from = &d->boxes[edge->from], *to = &d->boxes[edge->to];
        if (crosses(d, edge))
            continue;
        edge->told = from->source_hub || to->sink_hub || comes_late(d, edge);
    }
}

static void find_ranks(Dot *d)
{
    bool changed = true;
    for (int pass = 0; changed && pass < d->n_boxes; pass++) {
        changed = false;
        for (int e = 0; e < d->n_edges; e++) {
            const DotEdge *edge = &d->edges[e];
            DotBox *to = &d->boxes[edge->to];
            int rank = d->boxes[edge->from].rank + 1;
            if (edge->told || crosses(d, edge) || rank > d->n_boxes ||
                rank <= to->rank)
                continue;
            to->rank = rank;
            changed = true;
        }
    }
}

/* Sources and stubs without an edge are not there. */
static void count_drawn(Dot *d)
{
    d->drawn = 0;
    for (int b = 0; b < d->n_boxes; b++)
        d->boxes[b].drawn = !is_outside(&d->boxes[b]);
    for (int e = 0; e < d->n_edges; e++)
        if (!d->edges[e].told)
            d->boxes[d->edges[e].from].drawn = d->boxes[d->edges[e].to].drawn =
                true;
    for (int b = 0; b < d->n_boxes; b++)
        d->drawn += d->boxes[b].drawn;
}

bool aq_dot_edges(Dot *d)
{
    if (!add_edges(d) || !add_sinks(d))
        return false;
    find_hubs(d);
    tell_hubs(d);
    if (!join_saved(d))
        return false;
    find_ranks(d);
    count_drawn(d);
    return true;
}
