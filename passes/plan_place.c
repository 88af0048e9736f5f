/* Offsets in the arena, so that blocks alive at one time do not overlap.
 *
 * Blocks are placed one by one, each at the lowest offset that is free through
 * its life.  What comes of it depends on the order: several are tried, and the
 * smallest arena is kept.  A concat is placed whole, but only its parts are
 * in the way of others, each from the step that writes it. */
#include "passes/plan.h"

#include <stdlib.h>

enum { ALIGNMENT = 64, GOOD_ENOUGH = 102 }; /* bytes; percent of the bound */

typedef struct Placer {
    AqBlock *blocks;
    int count, steps;
    AqBlock **order, **placed;
    int n_order, n_placed;
    int64_t size;
} Placer;

/* ---- orders ---- */

static int by_number(const AqBlock *a, const AqBlock *b)
{
    return (a > b) - (a < b);
}

static int falling(double x, double y)
{
    return (x < y) - (x > y);
}

static int by_size(const void *a, const void *b)
{
    const AqBlock *x = *(AqBlock *const *)a, *y = *(AqBlock *const *)b;
    int order = falling((double)x->bytes, (double)y->bytes);
    return order ? order : by_number(x, y);
}

static double area(const AqBlock *block)
{
    return (double)block->bytes * (block->last - block->first + 1);
}

/* Large and long-lived first. */
static int by_area(const void *a, const void *b)
{
    const AqBlock *x = *(AqBlock *const *)a, *y = *(AqBlock *const *)b;
    int order = falling(area(x), area(y));
    return order ? order : by_number(x, y);
}

static int by_life(const void *a, const void *b)
{
    const AqBlock *x = *(AqBlock *const *)a, *y = *(AqBlock *const *)b;
    int order = falling(x->last - x->first, y->last - y->first);
    return order ? order : by_size(a, b);
}

/* A concat before all others, then as they begin. */
static int by_start(const void *a, const void *b)
{
    const AqBlock *x = *(AqBlock *const *)a, *y = *(AqBlock *const *)b;
    if ((x->parts > 0) != (y->parts > 0))
        return x->parts > 0 ? -1 : 1;
    int order = falling(y->first, x->first);
    return order ? order : by_size(a, b);
}

/* ---- placing ---- */

static int64_t padded(int64_t bytes)
{
    return (bytes + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
}

/* The lowest offset at which `block` meets none of those placed before it;
 * `placed` is in the order of offsets. */
static int64_t lowest_gap(const Placer *p, const AqBlock *block)
{
    int64_t offset = 0;
    for (int i = 0; i < p->n_placed; i++) {
        const AqBlock *other = p->placed[i];
        if (other->first > block->last || block->first > other->last)
            continue;
        if (other->offset - offset >= padded(block->bytes))
            break;
        offset = AQ_MAX(offset, padded(other->offset + other->bytes));
    }
    return offset;
}

static void put(Placer *p, AqBlock *block)
{
    int i = p->n_placed++;
    for (; i > 0 && p->placed[i - 1]->offset > block->offset; i--)
        p->placed[i] = p->placed[i - 1];
    p->placed[i] = block;
}

static void place(Placer *p, AqBlock *b)
{
    b->offset = lowest_gap(p, b);
    p->size = AQ_MAX(p->size, b->offset + padded(b->bytes));
    if (b->parts == 0)
        put(p, b);
    for (int k = 1; k <= b->parts; k++) {
        b[k].offset = b->offset + b[k].within;
        put(p, &b[k]);
    }
}

static void place_in_order(Placer *p,
                           int (*compare)(const void *, const void *))
{
    p->n_placed = 0;
    p->size = 0;
    qsort(p->order, (size_t)p->n_order, sizeof *p->order, compare);
    for (int i = 0; i < p->n_order; i++)
        place(p, p->order[i]);
}

/* Parts come with their concat. */
static void list_blocks(Placer *p)
{
    for (int i = 0; i < p->count; i++) {
        const AqBlock *b = &p->blocks[i];
        if (b->base == 0 && b->last >= 0 && b->concat < 0)
            p->order[p->n_order++] = &p->blocks[i];
    }
}

/* The largest sum of bytes alive at one step: no arena can be smaller. */
static int64_t live_bytes(const Placer *p, int64_t *live)
{
    int64_t most = 0;
    for (int i = 0; i < p->count; i++) {
        const AqBlock *b = &p->blocks[i];
        if (b->base == 0 && b->parts == 0)
            for (int s = b->first; s <= b->last; s++)
                live[s] += b->bytes;
    }
    for (int s = 0; s <= p->steps; s++)
        most = AQ_MAX(most, live[s]);
    return most;
}

void aq_place_blocks(AqBlock *blocks, int count, AqPlan *plan, AqArena *scratch,
                     AqError *error)
{
    static int (*const orders[])(const void *, const void *) = {
        by_size, by_area, by_life, by_start};
    size_t n = (size_t)count + 1;
    Placer p = {.blocks = blocks,
                .count = count,
                .steps = plan->n_steps,
                .order = AQ_NEW_ARRAY(scratch, AqBlock *, n),
                .placed = AQ_NEW_ARRAY(scratch, AqBlock *, n)};
    int64_t *live = AQ_NEW_ARRAY(scratch, int64_t, (size_t)plan->n_steps + 2);
    if (!p.order || !p.placed || !live) {
        aq_no_memory(error, n * sizeof *p.order);
        return;
    }
    list_blocks(&p);
    plan->live_bytes = live_bytes(&p, live);
    int best = 0, last = 0;
    for (int i = 0; i < AQ_COUNT(orders); i++) {
        place_in_order(&p, orders[last = i]);
        if (i == 0 || p.size < plan->arena_bytes) {
            plan->arena_bytes = p.size;
            best = i;
        }
        if (plan->arena_bytes <= plan->live_bytes / 100 * GOOD_ENOUGH)
            break;
    }
    if (last != best)
        place_in_order(&p, orders[best]);
}
