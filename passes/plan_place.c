/* Offsets in the arena, so that blocks alive at one time do not overlap.
 *
 * Blocks are placed one by one, each at the lowest offset that is free through
 * its life.  What comes of it depends on the order: several are tried, each
 * improved by letting the block that ends highest go earlier, and the smallest
 * arena is kept.  Small blocks, which are many, come last and fill the gaps.
 * A concat is placed whole, but only its parts are in the way
 * of others, each from the step that writes it. */
#include "passes/plan.h"

#include <emmintrin.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>

enum {
    GOOD_ENOUGH = 102, /* percent of the bound */
    PATIENCE = 12,     /* improvements tried in vain */
    SMALL = 4096,      /* a block is: the bound over this */
    AT_ONCE = 8,       /* lives that are looked at */
};

/* What is in the way of others. */
typedef struct Placed {
    int64_t offset, end;
} Placed;

typedef struct Placer {
    AqBlock *blocks;
    int count, steps;
    AqBlock **order, **best;
    /* In the order of offsets, with their lives, which lie close because most
     * blocks meet few of the others.  Where none is, `first` is INT_MAX. */
    Placed *placed;
    int *first, *last;
    int n_order, n_large, n_placed;
    int64_t size, best_size; /* 0: none yet */
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

/* Bit k: block number i + k of those placed is not alive beside `block`; four
 * of them. */
static unsigned alive_apart(const Placer *p, const AqBlock *block, int i)
{
    __m128i first = _mm_loadu_si128((const __m128i *)&p->first[i]);
    __m128i last = _mm_loadu_si128((const __m128i *)&p->last[i]);
    __m128i apart =
        _mm_or_si128(_mm_cmpgt_epi32(first, _mm_set1_epi32(block->last)),
                     _mm_cmpgt_epi32(_mm_set1_epi32(block->first), last));
    return (unsigned)_mm_movemask_ps(_mm_castsi128_ps(apart));
}

/* The lowest offset at which `block` meets none of those placed before it. */
static int64_t lowest_gap(const Placer *p, const AqBlock *block)
{
    int64_t offset = 0, bytes = aq_padded(block->bytes);
    for (int i = 0; i < p->n_placed; i += AT_ONCE) {
        unsigned apart = alive_apart(p, block, i) | alive_apart(p, block, i + 4)
                                                        << 4;
        for (unsigned in = ~apart & 0xff; in; in &= in - 1) {
            const Placed *other = &p->placed[i + __builtin_ctz(in)];
            if (other->offset - offset >= bytes)
                return offset;
            offset = AQ_MAX(offset, other->end);
        }
    }
    return offset;
}

static void put(Placer *p, const AqBlock *block)
{
    int low = 0, high = p->n_placed++;
    while (low < high) {
        int middle = (low + high) / 2;
        if (p->placed[middle].offset > block->offset)
            high = middle;
        else
            low = middle + 1;
    }
    size_t above = (size_t)(p->n_placed - 1 - low);
    memmove(&p->placed[low + 1], &p->placed[low], above * sizeof *p->placed);
    memmove(&p->first[low + 1], &p->first[low], above * sizeof *p->first);
    memmove(&p->last[low + 1], &p->last[low], above * sizeof *p->last);
    p->placed[low] = (Placed){.offset = block->offset,
                              .end = aq_padded(block->offset + block->bytes)};
    p->first[low] = block->first;
    p->last[low] = block->last;
}

static void place(Placer *p, AqBlock *b)
{
    b->offset = lowest_gap(p, b);
    p->size = AQ_MAX(p->size, b->offset + aq_padded(b->bytes));
    if (b->parts == 0)
        put(p, b);
    for (int k = 1; k <= b->parts; k++) {
        b[k].offset = b->offset + b[k].within;
        put(p, &b[k]);
    }
}

static void place_first(Placer *p, int count)
{
    p->n_placed = 0;
    p->size = 0;
    for (int i = 0; i < p->count + AT_ONCE; i++)
        p->first[i] = INT_MAX;
    for (int i = 0; i < count; i++)
        place(p, p->order[i]);
}

/* Whether it is the smallest so far; its order is remembered then. */
static bool place_large(Placer *p)
{
    place_first(p, p->n_large);
    if (p->best_size && p->size >= p->best_size)
        return false;
    p->best_size = p->size;
    for (int i = 0; i < p->n_large; i++)
        p->best[i] = p->order[i];
    return true;
}

/* The block that ends highest goes a quarter of the way from the front. */
static void promote(Placer *p)
{
    int top = 0;
    for (int i = 0; i < p->n_large; i++)
        if (p->order[i]->offset + aq_padded(p->order[i]->bytes) == p->size) {
            top = i;
            break;
        }
    AqBlock *block = p->order[top];
    for (int i = top; i > top / 4; i--)
        p->order[i] = p->order[i - 1];
    p->order[top / 4] = block;
}

static void try_order(Placer *p, int64_t enough,
                      int (*compare)(const void *, const void *))
{
    qsort(p->order, (size_t)p->n_large, sizeof *p->order, compare);
    place_large(p);
    for (int vain = 0; vain < PATIENCE && p->best_size > enough; vain++) {
        promote(p);
        if (place_large(p))
            vain = -1;
    }
}

/* Parts come with their concat. */
static void list_blocks(Placer *p, bool large, int64_t small)
{
    for (int i = 0; i < p->count; i++) {
        const AqBlock *b = &p->blocks[i];
        if (b->base == 0 && b->last >= 0 && b->concat < 0 &&
            (b->bytes > small) == large)
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

/* Small blocks live a step longer at both ends where the fullest step stays as
 * full: kernels that are neighbours then share fewer places, and may run side
 * by side. */
static void lengthen(Placer *p, int64_t *live, int64_t most)
{
    enum { NEIGHBOURS = 32 };
    for (int i = 0; i < p->count; i++) {
        AqBlock *b = &p->blocks[i];
        if (b->base != 0 || b->parts > 0 || b->concat >= 0 || b->last < 0 ||
            b->bytes > most / NEIGHBOURS)
            continue;
        if (b->first > 0 && live[b->first - 1] + b->bytes <= most)
            live[--b->first] += b->bytes;
        if (b->last < p->steps && live[b->last + 1] + b->bytes <= most)
            live[++b->last] += b->bytes;
    }
}

void aq_place_blocks(AqBlock *blocks, int count, AqPlan *plan, AqArena *scratch,
                     AqError *error)
{
    static int (*const orders[])(const void *, const void *) = {
        by_life, by_start, by_size, by_area};
    size_t n = (size_t)count + AT_ONCE;
    Placer p = {.blocks = blocks,
                .count = count,
                .steps = plan->n_steps,
                .order = AQ_NEW_ARRAY(scratch, AqBlock *, n),
                .placed = AQ_NEW_ARRAY(scratch, Placed, n),
                .first = AQ_NEW_ARRAY(scratch, int, n),
                .last = AQ_NEW_ARRAY(scratch, int, n),
                .best = AQ_NEW_ARRAY(scratch, AqBlock *, n)};
    int64_t *live = AQ_NEW_ARRAY(scratch, int64_t, (size_t)plan->n_steps + 2);
    if (!p.order || !p.placed || !p.first || !p.last || !p.best || !live) {
        aq_no_memory(error, n * sizeof *p.order);
        return;
    }
    plan->live_bytes = live_bytes(&p, live);
    lengthen(&p, live, plan->live_bytes);
    list_blocks(&p, true, plan->live_bytes / SMALL);
    p.n_large = p.n_order;
    list_blocks(&p, false, plan->live_bytes / SMALL);
    qsort(p.order + p.n_large, (size_t)(p.n_order - p.n_large), sizeof *p.order,
          by_life);
    int64_t enough = plan->live_bytes / 100 * GOOD_ENOUGH;
    for (int i = 0; i < AQ_COUNT(orders) && p.n_large; i++)
        if (i == 0 || p.best_size > enough)
            try_order(&p, enough, orders[i]);
    for (int i = 0; i < p.n_large; i++)
        p.order[i] = p.best[i];
    place_first(&p, p.n_order);
    plan->arena_bytes = p.size;
}
