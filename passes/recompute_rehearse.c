/* The program carried out on paper, in a memory of so many bytes.
 *
 * Where room ends, the value is dropped that costs least to have again for the
 * room and the time that this gives,
 *
 *     seconds of what computes it again / (bytes x steps until it is needed)
 *
 * and where a dropped value is needed, its kernel runs again, just before, and
 * before it those whose results it needs and are not there.  So pointwise and
 * normalised values go first, and whole blocks when those are gone.  (Dynamic
 * tensor rematerialization, Kirisame et al. 2021, but the future is known.)
 * No one such price is best for all programs and sizes: there are several
 * tastes, and who asks takes the cheapest outcome. */
#include "passes/flow.h"

#include <limits.h>
#include <math.h>
#include <stdlib.h>

enum { NEVER = INT_MAX };

typedef struct Taste {
    bool root_of_bytes, root_of_time; /* in the price */
    bool followers; /* dropped values that need it add to its price */
} Taste;

static const Taste tastes[AQ_TASTES] = {
    {false, false, false}, {false, true, true}, {true, true, false}};

typedef struct Rehearsal {
    const AqFlow *f;
    const Taste *taste;
    int64_t limit, live;
    int now;       /* the step that the program is at */
    bool *there;   /* values */
    int *pins;     /* values in use by a kernel that is about to run */
    int *next_use; /* of each value, in its list */
    int *need;     /* the step at which it is needed next */
    int *visited, stamp;
    double sum, enough; /* seconds, while a price is found */
    bool *ran;          /* steps */
    AqScript *script;
} Rehearsal;

static void bring(Rehearsal *r, int value)
{
    if (!r->there[value])
        r->live += r->f->values[value].bytes;
    r->there[value] = true;
}

static void drop(Rehearsal *r, int value)
{
    r->there[value] = false;
    r->live -= r->f->values[value].bytes;
}

/* ---- when values are needed ---- */

/* By the program as it goes on from here. */
static int next_use(Rehearsal *r, int value)
{
    const AqFlowValue *v = &r->f->values[value];
    const int *uses = r->f->uses + v->first_use;
    int *i = &r->next_use[value];
    while (*i < v->n_uses && uses[*i] < r->now)
        ++*i;
    return *i < v->n_uses ? uses[*i] : NEVER;
}

/* Also by kernels that must run again, for results that were dropped: users
 * before what they use. */
static void find_needs(Rehearsal *r)
{
    const AqFlow *f = r->f;
    for (int i = 0; i < f->n_values; i++)
        r->need[i] = next_use(r, i);
    for (int s = r->now; s-- > 0;) {
        const AqFlowStep *step = &f->steps[s];
        int need = NEVER;
        for (int i = 0; i < step->n_values; i++) {
            int value = step->first_value + i;
            if (!r->there[value])
                need = AQ_MIN(need, r->need[value]);
        }
        for (int i = 0; need != NEVER && i < step->n_inputs; i++) {
            int *input = &r->need[f->inputs[step->first_input + i]];
            *input = AQ_MIN(*input, need);
        }
    }
}

/* ---- what is dropped ---- */

/* Adds the seconds of a step and of all that must run before it, as long as
 * the sum is below `enough`. */
static void add_cost(Rehearsal *r, int s)
{
    if (r->visited[s] == r->stamp || r->sum >= r->enough)
        return;
    r->visited[s] = r->stamp;
    const AqFlowStep *step = &r->f->steps[s];
    r->sum += step->seconds;
    for (int i = 0; i < step->n_inputs; i++) {
        int input = r->f->inputs[step->first_input + i];
        if (!r->there[input])
            add_cost(r, r->f->values[input].step);
    }
}

/* Whether step s must run again. */
static bool runs_again(const Rehearsal *r, int s)
{
    const AqFlowStep *step = &r->f->steps[s];
    for (int i = 0; i < step->n_values; i++) {
        int value = step->first_value + i;
        if (!r->there[value] && r->need[value] != NEVER)
            return true;
    }
    return false;
}

/* The same of the steps that must run again and need results of s. */
static void add_followers(Rehearsal *r, int s)
{
    const AqFlowStep *step = &r->f->steps[s];
    for (int i = 0; i < step->n_values; i++) {
        const AqFlowValue *v = &r->f->values[step->first_value + i];
        const int *uses = r->f->uses + v->first_use;
        for (int k = 0; k < v->n_uses && uses[k] < r->now; k++) {
            if (r->visited[uses[k]] == r->stamp || r->sum >= r->enough ||
                !runs_again(r, uses[k]))
                continue;
            r->visited[uses[k]] = r->stamp;
            r->sum += r->f->steps[uses[k]].seconds;
            add_followers(r, uses[k]);
        }
    }
}

/* Exact where it is below `least`. */
static double price(Rehearsal *r, int value, double least)
{
    const AqFlowValue *v = &r->f->values[value];
    double bytes = (double)v->bytes, time = r->need[value] - r->now + 1;
    double gain = (r->taste->root_of_bytes ? sqrt(bytes) : bytes) *
                  (r->taste->root_of_time ? sqrt(time) : time);
    r->sum = 0;
    r->enough = least * gain;
    r->stamp++;
    add_cost(r, v->step);
    r->stamp++;
    if (r->taste->followers)
        add_followers(r, v->step);
    return r->sum / gain;
}

static int cheapest(Rehearsal *r)
{
    int best = -1;
    double least = INFINITY;
    for (int i = 0; i < r->f->n_values; i++) {
        const AqFlowValue *v = &r->f->values[i];
        if (!r->there[i] || v->kept || r->pins[i] || v->bytes == 0)
            continue;
        double asked = price(r, i, least);
        if (asked < least) {
            best = i;
            least = asked;
        }
    }
    return best;
}

static bool make_room(Rehearsal *r, int64_t bytes)
{
    if (r->live + bytes <= r->limit)
        return true;
    find_needs(r);
    for (int i = 0; i < r->f->n_values; i++)
        if (r->there[i] && r->need[i] == NEVER && !r->pins[i])
            drop(r, i);
    while (r->live + bytes > r->limit) {
        int value = cheapest(r);
        if (value < 0)
            return false;
        drop(r, value);
        find_needs(r);
    }
    return true;
}

/* ---- kernels run ---- */

static bool run_step(Rehearsal *r, int s)
{
    const AqFlowStep *step = &r->f->steps[s];
    AqScript *script = r->script;
    int64_t bytes = step->workspace;
    for (int i = 0; i < step->n_values; i++)
        bytes += r->f->values[step->first_value + i].bytes;
    if (script->count == script->most || script->again > script->bearable ||
        !make_room(r, bytes))
        return false;
    AqEvaluation *e = &script->evaluations[script->count++];
    *e = (AqEvaluation){.step = s};
    for (int i = 0; i < step->n_values; i++) {
        int value = step->first_value + i;
        if (r->there[value])
            continue;
        bring(r, value);
        e->adopted |= 1u << i;
    }
    if (r->ran[s])
        script->again += step->seconds;
    r->ran[s] = true;
    return true;
}

static int first_missing(const Rehearsal *r, const AqFlowStep *step)
{
    for (int i = 0; i < step->n_inputs; i++)
        if (!r->there[r->f->inputs[step->first_input + i]])
            return r->f->inputs[step->first_input + i];
    return -1;
}

/* Runs a step, and before it those whose results it misses.  What was made for
 * it is pinned; making one may drop another that was there. */
static bool make(Rehearsal *r, int s)
{
    const AqFlowStep *step = &r->f->steps[s];
    const int *inputs = r->f->inputs + step->first_input;
    bool *made = calloc((size_t)step->n_inputs + 1, sizeof *made);
    bool ok = made != NULL;
    for (int missing; ok && (missing = first_missing(r, step)) >= 0;) {
        ok = make(r, r->f->values[missing].step);
        for (int i = 0; i < step->n_inputs; i++)
            if (inputs[i] == missing) {
                made[i] = true;
                r->pins[missing]++;
            }
    }
    for (int i = 0; ok && i < step->n_inputs; i++)
        if (!made[i]) {
            made[i] = true;
            r->pins[inputs[i]]++;
        }
    ok = ok && run_step(r, s);
    for (int i = 0; made && i < step->n_inputs; i++)
        r->pins[inputs[i]] -= made[i];
    free(made);
    return ok;
}

/* ---- what is alive at once ---- */

/* Backwards, so that a value begins to live where it is read last; `there` and
 * `live` begin empty. */
static int64_t live_bytes(Rehearsal *r)
{
    int64_t most = 0;
    for (int i = 0; i < r->f->n_values; i++)
        if (r->f->values[i].kept && next_use(r, i) != NEVER)
            bring(r, i);
    for (int e = r->script->count; e-- > 0;) {
        const AqEvaluation *at = &r->script->evaluations[e];
        const AqFlowStep *step = &r->f->steps[at->step];
        int64_t beside = step->workspace;
        for (int i = 0; i < step->n_values; i++)
            if (!r->there[step->first_value + i] || !(at->adopted & 1u << i))
                beside += r->f->values[step->first_value + i].bytes;
        for (int i = 0; i < step->n_inputs; i++)
            bring(r, r->f->inputs[step->first_input + i]);
        most = AQ_MAX(most, r->live + beside);
        for (int i = 0; i < step->n_values; i++)
            if (r->there[step->first_value + i] && at->adopted & 1u << i)
                drop(r, step->first_value + i);
    }
    return most;
}

bool aq_rehearse(const AqFlow *flow, int64_t limit, int taste, AqScript *script)
{
    AqArena *arena = aq_arena_new();
    if (!arena)
        return false;
    size_t values = (size_t)flow->n_values + 1;
    size_t steps = (size_t)flow->n_steps + 1;
    Rehearsal r = {.f = flow,
                   .taste = &tastes[taste],
                   .limit = limit,
                   .there = AQ_NEW_ARRAY(arena, bool, values),
                   .pins = AQ_NEW_ARRAY(arena, int, values),
                   .next_use = AQ_NEW_ARRAY(arena, int, values),
                   .need = AQ_NEW_ARRAY(arena, int, values),
                   .visited = AQ_NEW_ARRAY(arena, int, steps),
                   .ran = AQ_NEW_ARRAY(arena, bool, steps),
                   .script = script};
    script->count = 0;
    script->again = 0;
    bool ok = r.there && r.pins && r.next_use && r.need && r.visited && r.ran;
    for (; ok && r.now < flow->n_steps; r.now++)
        ok = make(&r, r.now);
    for (int i = 0; ok && i < flow->n_values; i++)
        if (r.there[i])
            drop(&r, i);
    if (ok)
        script->live = live_bytes(&r);
    aq_arena_free(arena);
    return ok;
}
