/* Launches that do not depend on each other run side by side.
 *
 * Launches come in an order in which they may run one after the other.  One
 * depends on an earlier one where both touch the same bytes and either writes
 * them: the arena's places are used again and again, so this holds for values
 * and for what lies where they were.  A launch joins the earliest group, of
 * some that are near, with nothing that it depends on in it or behind it.  One
 * that is tiny and depends on a single chain follows it there, without a
 * barrier.  Sizes alone decide, never threads or time. */
#include "runtime/runtime.h"

enum {
    NEAR = 16,       /* groups that a launch may join */
    TINY = 64 << 10, /* bytes that a launch touches */
    NONE = -1,
    SEVERAL = -2,
};

/* Launches one after the other; if there are several, of one task each. */
typedef struct Chain {
    int first, last, length; /* launches */
    int64_t tasks;
    int beside; /* the next chain of the group, which has no fewer tasks */
} Chain;

typedef struct Schedule {
    const AqLaunch *launches;
    const AqTouches *touches;
    int *next; /* of a launch, in its chain */
    Chain *chains;
    int *groups; /* their first chains */
    int n_chains, n_groups;
    int floor; /* the first group that may still be joined */
} Schedule;

/* ---- dependence ---- */

static bool overlap(const AqTouch *a, const AqTouch *b)
{
    return (a->written || b->written) && a->begin < b->begin + b->bytes &&
           b->begin < a->begin + a->bytes;
}

static bool depends(const AqTouches *a, const AqTouches *b)
{
    for (int i = 0; i < a->count; i++)
        for (int j = 0; j < b->count; j++)
            if (overlap(&a->touch[i], &b->touch[j]))
                return true;
    return false;
}

static bool depends_on_chain(const Schedule *s, int launch, const Chain *chain)
{
    for (int i = chain->first; i != NONE; i = s->next[i])
        if (depends(&s->touches[launch], &s->touches[i]))
            return true;
    return false;
}

/* The chain of a group that a launch depends on; NONE, SEVERAL. */
static int chain_before(const Schedule *s, int launch, int group)
{
    int found = NONE;
    for (int i = s->groups[group]; i != NONE; i = s->chains[i].beside) {
        if (!depends_on_chain(s, launch, &s->chains[i]))
            continue;
        if (found != NONE)
            return SEVERAL;
        found = i;
    }
    return found;
}

static bool is_tiny(const Schedule *s, int launch)
{
    const AqTouches *touches = &s->touches[launch];
    int64_t bytes = 0;
    for (int i = 0; i < touches->count; i++)
        bytes += touches->touch[i].bytes;
    return s->launches[launch].stage.tasks == 1 && bytes <= TINY;
}

/* ---- groups ---- */

static void follow(Schedule *s, int launch, Chain *chain)
{
    s->next[chain->last] = launch;
    chain->last = launch;
    chain->length++;
}

/* Those of few tasks, which cannot be divided, begin first. */
static void join(Schedule *s, int launch, int group)
{
    int64_t tasks = s->launches[launch].stage.tasks;
    int *link = &s->groups[group];
    while (*link != NONE && s->chains[*link].tasks <= tasks)
        link = &s->chains[*link].beside;
    s->chains[s->n_chains] = (Chain){.first = launch,
                                     .last = launch,
                                     .length = 1,
                                     .tasks = tasks,
                                     .beside = *link};
    *link = s->n_chains++;
}

static void place(Schedule *s, int launch)
{
    int least = AQ_MAX(s->floor, s->n_groups - NEAR);
    int group = s->n_groups, chain = NONE;
    while (group > least && chain == NONE) {
        chain = chain_before(s, launch, group - 1);
        group -= chain == NONE;
    }
    if (chain >= 0 && s->chains[chain].tasks == 1 && is_tiny(s, launch)) {
        follow(s, launch, &s->chains[chain]);
        return;
    }
    if (group == s->n_groups)
        s->groups[s->n_groups++] = NONE;
    join(s, launch, group);
}

/* ---- the order ---- */

static int write_chain(const Schedule *s, const Chain *chain, AqLaunch *out)
{
    int count = 0;
    for (int i = chain->first; i != NONE; i = s->next[i])
        out[count++] = s->launches[i];
    out->chain = count;
    return count;
}

static int write_group(const Schedule *s, int group, AqLaunch *out)
{
    int count = 0;
    for (int i = s->groups[group]; i != NONE; i = s->chains[i].beside)
        count += write_chain(s, &s->chains[i], out + count);
    out->group = count;
    return count;
}

static void write_all(const Schedule *s, int count, int *fence, AqLaunch *out)
{
    int at = 0;
    bool fenced = *fence < count;
    for (int group = 0; group < s->n_groups; group++) {
        if (fenced && group == s->floor)
            *fence = at;
        at += write_group(s, group, out + at);
    }
}

AqStatus aq_schedule(const AqLaunch *launches, const AqTouches *touches,
                     int count, int *fence, AqLaunch *out, AqError *error)
{
    AqArena *arena = aq_arena_new();
    if (!arena)
        return aq_no_memory(error, 0);
    size_t n = (size_t)count + 1;
    Schedule s = {.launches = launches,
                  .touches = touches,
                  .next = AQ_NEW_ARRAY(arena, int, n),
                  .chains = AQ_NEW_ARRAY(arena, Chain, n),
                  .groups = AQ_NEW_ARRAY(arena, int, n)};
    if (!s.next || !s.chains || !s.groups) {
        aq_arena_free(arena);
        return aq_no_memory(error, n * sizeof(Chain));
    }
    for (int i = 0; i < count; i++) {
        s.next[i] = NONE;
        if (i == *fence)
            s.floor = s.n_groups;
        place(&s, i);
    }
    write_all(&s, count, fence, out);
    aq_arena_free(arena);
    return AQ_OK;
}
