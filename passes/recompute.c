/* Values are dropped and computed again, so that a program fits into a budget.
 *
 * The program is rehearsed (recompute_rehearse.c) with ever less room for the
 * values that are alive at once, and what comes out is planned; the first plan
 * that fits is taken, else the smallest.  The rungs of that ladder do not
 * depend on the budget: so what the smallest plan takes is a budget that is
 * kept, and anything below it is not.
 * A value computed again comes from the same body over the same operands: the
 * bits stay.
 * Needs: a graph of kernels.  Keeps: values of outputs, to the bit. */
#include "passes/flow.h"

#include <math.h>
#include <stdlib.h>

enum {
    RUNG = 97,     /* percent of the one above */
    LAST_CUTS = 5, /* between the last rung that holds and the next */
    MOST_RUNGS = 200,
    MOST_EVALUATIONS = 4, /* of a step on average */
};

/* What is put off until its first reader, in orders tried beside the given
 * one: as aq_put_off takes it.  Below 100 what a kernel waits with takes more
 * room than its results, but may be dropped and computed again. */
static const int percents[] = {100, 50};
enum { ORDERS = 1 + AQ_COUNT(percents) };

typedef struct Rung {
    const AqFlow *flow; /* whose steps the script names */
    AqScript script;
    bool planned;
} Rung;

typedef struct Recompute {
    const AqGraph *in;
    AqArena *arena;
    AqError *error;
    AqNeeds *needs;                    /* of `in` */
    const AqFlow *flows[ORDERS];       /* the given one first */
    int64_t failed[ORDERS][AQ_TASTES]; /* limits that could not be kept */
    int cheapest;                      /* order and taste, last time */
    AqScript script;                   /* being made */
    size_t most_nodes;                 /* of what is written */
    int64_t room;                      /* that the arena may take */
    Rung rungs[MOST_RUNGS + LAST_CUTS];
    int n_rungs;
    Rung *best;
    int64_t best_bytes; /* of its arena */
    double beyond;      /* what is alive, of the arena planned last: a share */
} Recompute;

/* ---- the ladder ---- */

/* What the arena of a script takes, or -1. */
static int64_t planned_bytes(Recompute *r, const Rung *rung)
{
    AqGraph *out = aq_graph_new();
    AqNeeds *needs = calloc(r->most_nodes, sizeof *needs);
    AqPlan *plan = NULL;
    if (out && needs &&
        !aq_flow_write(rung->flow, &rung->script, out, r->needs, needs))
        plan = aq_plan(out, needs, r->error);
    int64_t bytes = plan ? plan->arena_bytes : -1;
    aq_plan_free(plan);
    free(needs);
    aq_graph_free(out);
    return bytes;
}

/* Plans a rung; the smallest is remembered. */
static void plan_rung(Recompute *r, Rung *rung)
{
    rung->planned = true;
    int64_t bytes = planned_bytes(r, rung);
    r->beyond = (double)bytes / (double)rung->script.live - 1;
    if (bytes >= 0 && (!r->best || bytes < r->best_bytes)) {
        r->best_bytes = bytes;
        r->best = rung;
    }
}

/* As far as those before it tell: an arena is larger than what is alive at once
 * by a part that grows slowly from rung to rung. */
static bool may_fit(const Recompute *r, const Rung *rung)
{
    double arena = (double)rung->script.live * (1 + 0.75 * r->beyond);
    return rung->script.live <= r->room && arena <= (double)r->room;
}

static bool is_over(const Recompute *r)
{
    return r->error->status || (r->best && r->best_bytes <= r->room);
}

/* One attempt.  Where less room was too little already, more of it is not tried
 * in vain: what fails in some memory nearly always fails in less. */
static bool rehearse(Recompute *r, int64_t limit, int order, int taste)
{
    int64_t *failed = &r->failed[order][taste];
    if (limit <= *failed)
        return false;
    if (aq_rehearse(r->flows[order], limit, taste, &r->script))
        return true;
    if (r->script.again <= r->script.bearable)
        *failed = limit;
    return false;
}

/* The script that costs least with so much room for what is alive is kept as
 * a rung, and planned where it may fit.  false: there is none. */
static bool try_limit(Recompute *r, int64_t limit)
{
    enum { WAYS = ORDERS * AQ_TASTES };
    Rung *rung = &r->rungs[r->n_rungs];
    bool held = false;
    int first = r->cheapest;
    r->script.bearable = INFINITY;
    for (int i = 0; i < WAYS; i++) {
        int way = (first + i) % WAYS, order = way / AQ_TASTES;
        if (!rehearse(r, limit, order, way % AQ_TASTES) ||
            (held && r->script.again >= rung->script.again))
            continue;
        rung->flow = r->flows[order];
        rung->script = r->script;
        rung->script.evaluations =
            aq_arena_copy(r->arena, r->script.evaluations,
                          sizeof(AqEvaluation) * (size_t)r->script.count);
        held = rung->script.evaluations != NULL;
        r->script.bearable = r->script.again;
        r->cheapest = way;
    }
    if (!held)
        return false;
    r->n_rungs++;
    if (may_fit(r, rung))
        plan_rung(r, rung);
    return true;
}

/* From all that is alive downwards, until a rung fits or none holds. */
static void climb_down(Recompute *r)
{
    if (!try_limit(r, INT64_MAX / 2) || is_over(r))
        return;
    int64_t above = r->rungs[0].script.live, limit = above / 100 * RUNG;
    for (; r->n_rungs < MOST_RUNGS && try_limit(r, limit);
         limit = limit / 100 * RUNG) {
        above = limit;
        if (is_over(r))
            return;
    }
    for (int i = 0; i < LAST_CUTS && !is_over(r); i++) {
        int64_t middle = limit + (above - limit) / 2;
        if (try_limit(r, middle))
            above = middle;
        else
            limit = middle;
    }
}

/* No arena is smaller than what is alive at once. */
static AqStatus search(Recompute *r)
{
    climb_down(r);
    for (int i = r->n_rungs; i-- > 0 && !is_over(r);)
        if (!r->rungs[i].planned &&
            (!r->best || r->rungs[i].script.live < r->best_bytes))
            plan_rung(r, &r->rungs[i]);
    if (!r->best)
        aq_fail(r->error, AQ_INTERNAL, "recompute: no rung holds");
    return r->error->status;
}

/* ---- the pass ---- */

static bool prepare(Recompute *r, const AqTarget *target)
{
    AqSpeed speed = aq_speed_of(target);
    const AqFlow *flow = aq_flow(r->in, r->needs, &speed, r->arena);
    if (!flow)
        return false;
    r->flows[0] = flow;
    for (int i = 1; i < ORDERS; i++) {
        r->flows[i] = aq_put_off(flow, percents[i - 1], r->arena);
        if (!r->flows[i])
            return false;
    }
    r->script.most = MOST_EVALUATIONS * flow->n_steps;
    r->most_nodes = (size_t)r->in->count * (MOST_EVALUATIONS + 1);
    r->script.evaluations =
        AQ_NEW_ARRAY(r->arena, AqEvaluation, r->script.most + 1);
    return r->script.evaluations != NULL;
}

static AqStatus run(Recompute *r, AqGraph *out, AqPassContext *cx)
{
    const AqBudget *budget = cx->budget;
    r->needs = AQ_NEW_ARRAY(r->arena, AqNeeds, r->in->count);
    if (!r->needs)
        return aq_no_memory(cx->error, (size_t)r->in->count);
    if (budget->needs(budget->context, r->in, r->needs, cx->error))
        return cx->error->status;
    AqPlan *plan = aq_plan(r->in, r->needs, cx->error);
    if (!plan)
        return cx->error->status;
    int64_t bytes = plan->arena_bytes;
    r->room = budget->room(budget->context, plan);
    aq_plan_free(plan);
    if (bytes <= r->room)
        return aq_flow_copy(r->in, out);
    if (!prepare(r, cx->target))
        return aq_no_memory(cx->error, (size_t)r->in->count);
    if (search(r))
        return cx->error->status;
    if (r->best_bytes >= bytes)
        return aq_flow_copy(r->in, out);
    return aq_flow_write(r->best->flow, &r->best->script, out, NULL, NULL);
}

AqStatus aq_recompute(const AqGraph *in, AqGraph *out, AqPassContext *cx)
{
    if (!cx->budget || !cx->budget->room)
        return aq_flow_copy(in, out);
    AqArena *arena = aq_arena_new();
    Recompute *r = arena ? AQ_NEW(arena, Recompute) : NULL;
    if (!r) {
        aq_arena_free(arena);
        return aq_no_memory(cx->error, sizeof *r);
    }
    r->in = in;
    r->arena = arena;
    r->error = cx->error;
    AqStatus status = run(r, out, cx);
    aq_arena_free(arena);
    return status;
}
