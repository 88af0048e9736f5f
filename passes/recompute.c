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

#include <stdlib.h>

enum {
    RUNG = 97,     /* percent of the one above */
    LAST_CUTS = 5, /* between the last rung that holds and the next */
    MOST_RUNGS = 200,
    MOST_EVALUATIONS = 8, /* of a step on average */
};

typedef struct Rung {
    AqScript script;
    bool planned;
} Rung;

typedef struct Recompute {
    const AqGraph *in;
    AqArena *arena;
    AqError *error;
    AqNeeds *needs; /* of `in` */
    AqFlow *flow;
    AqScript script;   /* being made */
    size_t most_nodes; /* of what is written */
    int64_t room;      /* that the arena may take */
    Rung rungs[MOST_RUNGS + LAST_CUTS];
    int n_rungs;
    Rung *best;
    int64_t best_bytes; /* of its arena */
} Recompute;

/* ---- a script becomes a graph ---- */

typedef struct Writer {
    const Recompute *r;
    AqGraph *out;
    AqId *map;      /* node -> its newest copy */
    AqId *first;    /* step -> its first kernel in `out` */
    int *copies;    /* step -> kernels in `out` */
    AqNeeds *needs; /* of `out`; NULL: not wanted */
} Writer;

/* The node of `out` that stands for `id` now. */
static AqId written(Writer *w, AqId id)
{
    const AqNode *node = aq_node(w->r->in, id);
    if (node->op != AQ_OP_reshape && node->op != AQ_OP_concat)
        return w->map[id];
    for (int i = 0; i < node->n_inputs; i++)
        written(w, node->inputs[i]);
    return w->map[id] = aq_graph_copy_node(w->out, w->r->in, id, w->map);
}

static AqId kernel_again(Writer *w, int step)
{
    AqGraph *out = w->out;
    AqNode node = *aq_node(w->r->in, w->r->flow->steps[step].kernel);
    AqNode first = *aq_node(out, w->first[step]);
    AqId *inputs = AQ_NEW_ARRAY(out->arena, AqId, node.n_inputs + 1);
    if (!inputs)
        return AQ_NO_NODE;
    for (int i = 0; i < node.n_inputs; i++)
        inputs[i] = w->map[node.inputs[i]];
    out->copy = first.copy + w->copies[step];
    AqId id = aq_build(out, AQ_OP_kernel, NULL, inputs, node.n_inputs,
                       first.attrs, first.n_attrs);
    out->copy = 0;
    return id;
}

static void write_step(Writer *w, const AqEvaluation *e)
{
    const AqFlowStep *step = &w->r->flow->steps[e->step];
    const AqNode *node = aq_node(w->r->in, step->kernel);
    for (int i = 0; i < node->n_inputs; i++)
        written(w, node->inputs[i]);
    aq_graph_place(w->out, node);
    AqId kernel = w->copies[e->step] ? kernel_again(w, e->step)
                                     : aq_graph_copy_node(w->out, w->r->in,
                                                          step->kernel, w->map);
    if (w->copies[e->step]++ == 0)
        w->first[e->step] = kernel;
    if (w->needs && kernel >= 0)
        w->needs[kernel] = w->r->needs[step->kernel];
    for (int i = 0; i < step->n_values; i++) {
        AqId result = w->r->flow->values[step->first_value + i].node;
        int index =
            (int)aq_attr_int(aq_node(w->r->in, result), AQ_KEY_INDEX, 0);
        AqId again = aq_result_node(w->out, kernel, index);
        if (e->adopted & 1u << i)
            w->map[result] = again;
    }
}

static bool write(const Recompute *r, const AqScript *script, AqGraph *out,
                  AqNeeds *needs)
{
    AqArena *arena = aq_arena_new();
    size_t n = (size_t)r->in->count + 1;
    Writer w = {.r = r, .out = out, .needs = needs};
    w.map = arena ? AQ_NEW_ARRAY(arena, AqId, n) : NULL;
    w.first = arena ? AQ_NEW_ARRAY(arena, AqId, n) : NULL;
    w.copies = arena ? AQ_NEW_ARRAY(arena, int, n) : NULL;
    bool ok = w.map && w.first && w.copies;
    for (AqId id = 0; ok && id < r->in->count; id++)
        if (aq_op_info[aq_node(r->in, id)->op].facts & AQ_SOURCE)
            w.map[id] = aq_graph_copy_node(out, r->in, id, w.map);
    for (int i = 0; ok && i < script->count && !out->error.status; i++)
        write_step(&w, &script->evaluations[i]);
    for (int i = 0; ok && i < r->in->n_outputs && !out->error.status; i++) {
        const AqOutput *o = &r->in->outputs[i];
        aq_graph_output(out, o->name, written(&w, o->node), o->update);
    }
    aq_arena_free(arena);
    if (!ok)
        aq_no_memory(r->error, n * sizeof(AqId));
    return ok && !out->error.status;
}

/* ---- the ladder ---- */

/* What the arena of a script takes, or -1. */
static int64_t planned_bytes(Recompute *r, const AqScript *script)
{
    AqGraph *out = aq_graph_new();
    AqNeeds *needs = calloc(r->most_nodes, sizeof *needs);
    AqPlan *plan = NULL;
    if (out && needs && write(r, script, out, needs))
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
    int64_t bytes = planned_bytes(r, &rung->script);
    if (bytes >= 0 && (!r->best || bytes < r->best_bytes)) {
        r->best_bytes = bytes;
        r->best = rung;
    }
}

static bool is_over(const Recompute *r)
{
    return r->error->status || (r->best && r->best_bytes <= r->room);
}

/* The script that costs least with so much room for what is alive is kept as
 * a rung, and planned where it may fit.  false: there is none. */
static bool try_limit(Recompute *r, int64_t limit)
{
    Rung *rung = &r->rungs[r->n_rungs];
    bool held = false;
    for (int taste = 0; taste < AQ_TASTES; taste++) {
        if (!aq_rehearse(r->flow, limit, taste, &r->script) ||
            (held && r->script.again >= rung->script.again))
            continue;
        rung->script = r->script;
        rung->script.evaluations =
            aq_arena_copy(r->arena, r->script.evaluations,
                          sizeof(AqEvaluation) * (size_t)r->script.count);
        held = rung->script.evaluations != NULL;
    }
    if (!held)
        return false;
    r->n_rungs++;
    if (rung->script.live <= r->room)
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

static AqStatus copy_all(const AqGraph *in, AqGraph *out, AqError *error)
{
    AqId *map = malloc(((size_t)in->count + 1) * sizeof *map);
    if (!map)
        return aq_no_memory(error, (size_t)in->count * sizeof *map);
    for (AqId id = 0; id < in->count && !out->error.status; id++)
        map[id] = aq_graph_copy_node(out, in, id, map);
    for (int i = 0; i < in->n_outputs && !out->error.status; i++)
        aq_graph_output(out, in->outputs[i].name, map[in->outputs[i].node],
                        in->outputs[i].update);
    free(map);
    return out->error.status;
}

static bool prepare(Recompute *r, const AqTarget *target)
{
    AqSpeed speed = aq_speed_of(target);
    r->flow = aq_flow(r->in, r->needs, &speed, r->arena);
    if (!r->flow)
        return false;
    r->script.most = MOST_EVALUATIONS * r->flow->n_steps;
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
        return copy_all(r->in, out, cx->error);
    if (!prepare(r, cx->target))
        return aq_no_memory(cx->error, (size_t)r->in->count);
    if (search(r))
        return cx->error->status;
    if (r->best_bytes >= bytes)
        return copy_all(r->in, out, cx->error);
    write(r, &r->best->script, out, NULL);
    return out->error.status ? out->error.status : cx->error->status;
}

AqStatus aq_recompute(const AqGraph *in, AqGraph *out, AqPassContext *cx)
{
    if (!cx->budget)
        return copy_all(in, out, cx->error);
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
