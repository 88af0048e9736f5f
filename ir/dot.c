/* A graph as text for Graphviz: what is told, and how much of it.
 *
 * Three steps, files of their own: scopes and equals (dot_scopes.c,
 * dot_fold.c), boxes and edges at one depth (dot_boxes.c, dot_edges.c), text
 * (dot_label.c, dot_body.c, dot_write.c).  The depth is the largest whose boxes
 * fit on a page. */
#include "ir/dot.h"

#include <string.h>

/* PAGE: points that can still be read across one. */
enum { FIT = 75, PAGE = 1450, DEEPEST_TRIED = DOT_DEEPEST + 2 };

static bool prepare(Dot *d)
{
    size_t n = (size_t)d->graph->count + 1;
    d->live = AQ_NEW_ARRAY(d->arena, bool, n);
    d->note = AQ_NEW_ARRAY(d->arena, bool, n);
    d->constant = AQ_NEW_ARRAY(d->arena, uint64_t, n);
    d->phase = AQ_NEW_ARRAY(d->arena, DotPhase, n);
    d->group = AQ_NEW_ARRAY(d->arena, int, n);
    d->twin = AQ_NEW_ARRAY(d->arena, AqId, n);
    d->place = aq_arena_array(d->arena, n, sizeof *d->place);
    d->box = AQ_NEW_ARRAY(d->arena, int, n);
    return d->live && d->note && d->constant && d->phase && d->group &&
           d->twin && d->place && d->box;
}

/* The scope must be there; its depth is where levels are counted from. */
static AqStatus find_base(Dot *d)
{
    const char *scope = d->options->scope;
    const char **names = AQ_NEW_ARRAY(d->arena, const char *, d->n_groups);
    if (!names)
        return aq_no_memory(d->error, sizeof *names);
    for (int g = 0; g < d->n_groups; g++)
        if (aq_dot_inside(d, g))
            d->deepest = AQ_MAX(d->deepest, d->groups[g].depth);
    for (int g = 0; scope && g < d->n_groups; g++) {
        names[g] = d->groups[g].scope;
        if (strcmp(names[g], scope))
            continue;
        d->base = d->groups[g].depth;
        return AQ_OK;
    }
    if (!scope)
        return AQ_OK;
    const char *near = aq_nearest(scope, names, d->n_groups);
    bool named = near && *near;
    return aq_fail(d->error, AQ_BAD_INPUT,
                   "there is no scope %s in this graph%s%s", scope,
                   named ? ": did you mean " : "", named ? near : "");
}

static bool count_under(Dot *d)
{
    d->under = AQ_NEW_ARRAY(d->arena, int, d->n_groups);
    for (int b = 0; d->under && b < d->n_boxes; b++) {
        const DotBox *box = &d->boxes[b];
        if (box->role == DOT_STUB || box->group == DOT_NOWHERE)
            continue;
        for (int g = box->group; g != DOT_NOWHERE; g = d->groups[g].parent)
            d->under[g]++;
    }
    return d->under != NULL;
}

static bool place(Dot *d, int depth)
{
    d->depth = depth;
    return aq_dot_boxes(d) && aq_dot_edges(d) && count_under(d);
}

/* Two columns hold twice as much, but not where every op has its edges. */
static int fit(const Dot *d)
{
    bool ops = d->depth > d->deepest - d->base;
    return d->under[DOT_BACKWARD] > 0 && !ops ? 2 * FIT : FIT;
}

static bool passes(const Dot *d, const DotEdge *edge, DotPhase phase, int rank)
{
    const DotBox *from = &d->boxes[edge->from], *to = &d->boxes[edge->to];
    return !edge->told && from->phase == phase && to->phase == phase &&
           from->rank < rank && to->rank > rank;
}

/* About how many points wide the picture will be: in each column, the rank with
 * the most boxes and lines that pass by, and the clusters around them. */
static int width(const Dot *d)
{
    enum { BOX = 160, LINE = 14, CLUSTER = 40 };
    int sum = 0;
    for (int phase = 0; phase < DOT_PHASES; phase++) {
        int widest = 0;
        for (int rank = 0; rank <= d->n_boxes; rank++) {
            int here = 0;
            for (int b = 0; b < d->n_boxes; b++)
                if (d->boxes[b].drawn && d->boxes[b].rank == rank &&
                    d->boxes[b].phase == (DotPhase)phase)
                    here += BOX;
            for (int e = 0; here > 0 && e < d->n_edges; e++)
                if (passes(d, &d->edges[e], (DotPhase)phase, rank))
                    here += LINE;
            widest = AQ_MAX(widest, here);
        }
        sum += widest;
        if (widest > 0 && phase != DOT_UPDATE)
            sum += CLUSTER * d->depth;
    }
    return sum;
}

/* As deep as fits on a page, or, where even one level is too wide, that. */
static bool choose_depth(Dot *d)
{
    int most = d->options->most;
    if (d->options->depth > 0)
        return place(d, AQ_MIN(d->options->depth, (int)DEEPEST_TRIED));
    int depth = AQ_MIN(d->deepest - d->base + 1, (int)DEEPEST_TRIED);
    for (; depth >= 0; depth--) {
        if (!place(d, depth))
            return false;
        if (d->drawn <= (most ? most : fit(d)) &&
            (depth <= 1 || width(d) <= PAGE))
            return true;
    }
    return true;
}

AqStatus aq_graph_dot(const AqGraph *graph, const AqDotOptions *options,
                      AqText *text, AqDotFacts *facts, AqError *error)
{
    Dot d = {.graph = graph,
             .options = options,
             .arena = aq_arena_new(),
             .error = error};
    AqStatus status = AQ_OK;
    if (!d.arena || !prepare(&d) || !aq_dot_scopes(&d))
        status = aq_no_memory(error, (size_t)graph->count);
    else
        status = find_base(&d);
    if (status == AQ_OK && !choose_depth(&d))
        status = aq_no_memory(error, (size_t)graph->count);
    if (status == AQ_OK) {
        aq_dot_choose_bodies(&d);
        aq_dot_write(&d, text);
        if (facts)
            *facts = (AqDotFacts){.boxes = d.drawn, .depth = d.depth};
        if (text->failed)
            status = aq_no_memory(error, text->length);
    }
    aq_arena_free(d.arena);
    return status;
}
