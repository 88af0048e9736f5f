/* Kernels are put off, so that less is alive at once.
 *
 * A program computes a value as soon as it can.  Where what it is made of is
 * small and its first reader far away, the value takes room for nothing: the
 * gradient of weights waits for the optimizer, and at the smallest images of a
 * network it is many times what it comes from.  A kernel is put off to just
 * before the first reader of its results, where these take more bytes than it
 * keeps alive by waiting.
 * Kernels stay as they were among those that wait for the same one, so that
 * the pass, run twice, changes nothing more. */
#include "passes/flow.h"

#include <limits.h>
#include <string.h>

enum {
    SMALL = 4096,    /* a kernel's results are: what is alive over this */
    WORTH_IT = 64,   /* a new order: the peak falls by this part of it */
    MOST_SWEEPS = 64 /* kernels put off make room for others */
};

typedef struct Order {
    const AqFlow *f;
    int *at;    /* place -> step */
    int *place; /* step -> place; n_steps stands last */
    int *until; /* step -> one that it must come before, or n_steps */
    int64_t small;
    int percent;
} Order;

/* ---- what is alive at once ---- */

int64_t aq_flow_live(const AqFlow *f, AqArena *arena)
{
    int64_t *more = AQ_NEW_ARRAY(arena, int64_t, f->n_steps + 2);
    if (!more)
        return -1;
    for (int i = 0; i < f->n_values; i++) {
        const AqFlowValue *v = &f->values[i];
        int last = v->n_uses ? f->uses[v->first_use + v->n_uses - 1] : v->step;
        more[v->step] += v->bytes;
        more[last + 1] -= v->bytes;
    }
    int64_t live = 0, most = 0;
    for (int s = 0; s <= f->n_steps; s++) {
        live += more[s];
        int64_t beside = s < f->n_steps ? f->steps[s].workspace : 0;
        most = AQ_MAX(most, live + beside);
    }
    return most;
}

/* ---- what may not be put off ---- */

static bool reads_array(const AqGraph *g, AqId id, const char *name)
{
    const AqNode *node = aq_node(g, id);
    if (node->op == AQ_OP_param)
        return !strcmp(name, "weights");
    if (aq_op_info[node->op].facts & AQ_SOURCE)
        return !strcmp(name, aq_attr_text(node, AQ_KEY_NAME, ""));
    for (int i = 0; i < node->n_inputs && node->op != AQ_OP_result; i++)
        if (reads_array(g, node->inputs[i], name))
            return true;
    return false;
}

/* What reads a state runs before what updates it, if it did: the new value may
 * then be written over the old one. */
static void stay_before(Order *o, int writer, const char *name)
{
    const AqGraph *g = o->f->g;
    for (int s = 0; s < writer; s++) {
        const AqNode *kernel = aq_node(g, o->f->steps[s].kernel);
        for (int i = 0; i < kernel->n_inputs; i++)
            if (reads_array(g, kernel->inputs[i], name))
                o->until[s] = AQ_MIN(o->until[s], writer);
    }
}

static void find_updates(Order *o)
{
    const AqFlow *f = o->f;
    for (int i = 0; i < f->g->n_outputs; i++) {
        const AqOutput *output = &f->g->outputs[i];
        for (int v = 0; output->update && v < f->n_values; v++)
            if (f->values[v].node == output->node)
                stay_before(o, f->values[v].step, output->name);
    }
}

/* ---- putting off ---- */

/* Where the first that needs step s stands. */
static int first_reader(const Order *o, int s)
{
    const AqFlow *f = o->f;
    const AqFlowStep *step = &f->steps[s];
    int first = o->place[o->until[s]];
    for (int i = 0; i < step->n_values; i++) {
        const AqFlowValue *v = &f->values[step->first_value + i];
        for (int k = 0; k < v->n_uses; k++)
            first = AQ_MIN(first, o->place[f->uses[v->first_use + k]]);
    }
    return first;
}

/* Bytes that nothing but s would keep alive up to that place. */
static int64_t kept_alive(const Order *o, int s, int place)
{
    const AqFlow *f = o->f;
    const AqFlowStep *step = &f->steps[s];
    int64_t bytes = 0;
    for (int i = 0; i < step->n_inputs; i++) {
        const AqFlowValue *v = &f->values[f->inputs[step->first_input + i]];
        bool otherwise = false;
        for (int k = 0; k < v->n_uses && !otherwise; k++) {
            int user = f->uses[v->first_use + k];
            otherwise = user != s && o->place[user] >= place;
        }
        bytes += otherwise ? 0 : v->bytes;
    }
    return bytes;
}

static bool pays(const Order *o, int s, int place)
{
    const AqFlowStep *step = &o->f->steps[s];
    int64_t bytes = 0;
    for (int i = 0; i < step->n_values; i++)
        bytes += o->f->values[step->first_value + i].bytes;
    return bytes > o->small &&
           bytes > kept_alive(o, s, place) / 100 * o->percent;
}

/* Whether step s waits for a reader at that place because it pays. */
static bool waits(const Order *o, int s, int reader)
{
    return first_reader(o, s) == reader && pays(o, s, reader);
}

/* Before those that wait for the same reader; whether that is elsewhere. */
static bool put_off(Order *o, int s)
{
    int reader = first_reader(o, s), from = o->place[s], to = reader;
    if (to - 1 == from || to == o->f->n_steps || !pays(o, s, reader))
        return false;
    while (to - 1 > from && waits(o, o->at[to - 1], reader))
        to--;
    if (to - 1 == from)
        return false;
    for (int i = from; i < to - 1; i++) {
        o->at[i] = o->at[i + 1];
        o->place[o->at[i]] = i;
    }
    o->at[to - 1] = s;
    o->place[s] = to - 1;
    return true;
}

/* Readers before what they read; returns how many were moved. */
static int sweep(Order *o, int *steps)
{
    int count = 0;
    memcpy(steps, o->at, (size_t)o->f->n_steps * sizeof *steps);
    for (int i = o->f->n_steps; i-- > 0;)
        count += put_off(o, steps[i]);
    return count;
}

/* ---- the flow in another order ---- */

static void sort_few(int *numbers, int count)
{
    for (int i = 1; i < count; i++)
        for (int k = i; k > 0 && numbers[k - 1] > numbers[k]; k--) {
            int number = numbers[k];
            numbers[k] = numbers[k - 1];
            numbers[k - 1] = number;
        }
}

static AqFlow *in_order(const Order *o, AqArena *arena)
{
    const AqFlow *f = o->f;
    size_t steps = (size_t)f->n_steps + 1, values = (size_t)f->n_values + 1;
    AqFlow *new = AQ_NEW(arena, AqFlow);
    if (!new)
        return NULL;
    *new = *f;
    new->steps = AQ_NEW_ARRAY(arena, AqFlowStep, steps);
    new->values = AQ_NEW_ARRAY(arena, AqFlowValue, values);
    new->uses = AQ_NEW_ARRAY(arena, int, f->n_uses + 1);
    if (!new->steps || !new->values || !new->uses)
        return NULL;
    for (int i = 0; i < f->n_steps; i++)
        new->steps[i] = f->steps[o->at[i]];
    for (int i = 0; i < f->n_uses; i++)
        new->uses[i] = o->place[f->uses[i]];
    for (int i = 0; i < f->n_values; i++) {
        new->values[i] = f->values[i];
        new->values[i].step = o->place[f->values[i].step];
        sort_few(new->uses + f->values[i].first_use, f->values[i].n_uses);
    }
    return new;
}

AqFlow *aq_put_off(const AqFlow *flow, int percent, AqArena *arena)
{
    size_t n = (size_t)flow->n_steps + 1;
    Order o = {.f = flow,
               .at = AQ_NEW_ARRAY(arena, int, n),
               .place = AQ_NEW_ARRAY(arena, int, n),
               .until = AQ_NEW_ARRAY(arena, int, n),
               .percent = percent};
    int *steps = AQ_NEW_ARRAY(arena, int, n);
    int64_t live = aq_flow_live(flow, arena);
    if (!o.at || !o.place || !o.until || !steps || live < 0)
        return NULL;
    o.small = live / SMALL;
    for (int i = 0; i <= flow->n_steps; i++) {
        o.at[i] = o.place[i] = i;
        o.until[i] = flow->n_steps;
    }
    find_updates(&o);
    for (int i = 0; i < MOST_SWEEPS && sweep(&o, steps); i++)
        continue;
    return in_order(&o, arena);
}

/* ---- the pass ---- */

static AqStatus order(const AqGraph *in, AqGraph *out, AqPassContext *cx,
                      AqArena *arena)
{
    const AqBudget *budget = cx->budget;
    AqNeeds *needs = AQ_NEW_ARRAY(arena, AqNeeds, in->count);
    if (!needs)
        return aq_no_memory(cx->error, (size_t)in->count * sizeof *needs);
    if (budget && budget->needs(budget->context, in, needs, cx->error))
        return cx->error->status;
    AqSpeed speed = aq_speed_of(cx->target);
    AqFlow *flow = aq_flow(in, needs, &speed, arena);
    AqFlow *late = flow ? aq_put_off(flow, 100, arena) : NULL;
    if (!late)
        return aq_no_memory(cx->error, (size_t)in->count * sizeof *needs);
    int64_t before = aq_flow_live(flow, arena);
    int64_t after = aq_flow_live(late, arena);
    if (after < before - before / WORTH_IT)
        return aq_flow_write(late, NULL, out, NULL, NULL);
    return aq_flow_copy(in, out);
}

AqStatus aq_order(const AqGraph *in, AqGraph *out, AqPassContext *cx)
{
    AqArena *arena = aq_arena_new();
    if (!arena)
        return aq_no_memory(cx->error, sizeof(AqFlow));
    AqStatus status = order(in, out, cx, arena);
    aq_arena_free(arena);
    return status;
}
