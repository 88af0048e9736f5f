/* A backward task: a share of one head's keys against all queries that see
 * them.  Keys lie along the lanes, in strips of W; a block of `along` of them
 * meets the queries in blocks of `across`.  dk and dv of a block are complete
 * at its end.  dq grows from block to block; each share has one of its own. */
#include "codegen/attend.h"

#include <math.h>
#include <string.h>

static const float LOG2_E = 1.44269504F;

typedef struct Backward {
    const AqAttend *a;
    void *const *buffers;
    int64_t b, h;
    AqHead head;
    int64_t key, keys, query, queries; /* of these blocks */
    float *kt, *vt, *dk, *dv;          /* [strip][e][W] */
    float *k;                          /* a panel */
    float *p, *ds;                     /* scores */
    float *ones;
    float *own; /* panels */
    bool first; /* of the share's blocks of keys */
} Backward;

static int64_t strip_floats(const AqAttend *a)
{
    return a->depth_rows * a->width;
}

/* Returns how many floats there are; `scratch` may be NULL. */
static int64_t place_scratch(const AqAttend *a, Backward *t, float *scratch)
{
    int64_t strips = a->along / a->width * strip_floats(a);
    struct {
        float **at;
        int64_t floats;
    } all[] = {
        {&t->kt, strips},
        {&t->vt, strips},
        {&t->dk, strips},
        {&t->dv, strips},
        {&t->k, a->along * a->panel},
        {&t->p, a->across * AQ_SCORE_ROW},
        {&t->ds, a->across * AQ_SCORE_ROW},
        {&t->ones, a->width},
        {&t->own, a->own ? a->panel_floats : 0},
    };
    int64_t used = 0;
    for (int i = 0; i < AQ_COUNT(all); i++) {
        if (scratch)
            *all[i].at = scratch + used;
        used += all[i].floats;
    }
    return used;
}

int64_t aq_attend_backward_scratch(const AqAttend *a)
{
    Backward t;
    return place_scratch(a, &t, NULL);
}

static const float *input(const Backward *t, int which)
{
    return t->buffers[t->a->in[which]];
}

static bool wants_scores(const AqAttend *a)
{
    return a->result[0] >= 0 || a->result[1] >= 0;
}

static void begin_keys(const Backward *t)
{
    const AqAttend *a = t->a;
    int64_t at = aq_attend_at(a, a->keys, t->b, t->key, t->h);
    for (int64_t s = 0; s * a->width < t->keys; s++) {
        int64_t n = AQ_MIN(a->width, t->keys - s * a->width);
        int64_t from = at + s * a->width * a->row, to = s * strip_floats(a);
        size_t bytes = (size_t)strip_floats(a) * sizeof(float);
        aq_attend_spread(a, input(t, AQ_K) + from, t->kt + to, n,
                         a->scale * LOG2_E);
        if (wants_scores(a))
            aq_attend_spread(a, input(t, AQ_V) + from, t->vt + to, n, 1);
        memset(t->dk + to, 0, bytes);
        memset(t->dv + to, 0, bytes);
    }
    if (a->result[0] >= 0)
        a->panel_rows(input(t, AQ_K) + at, a->row, t->k, a->panel, t->keys,
                      a->depth);
}

/* What is added to the products from row `from` on: the bias, and -inf at
 * hidden keys. */
static void fill_scores(const Backward *t, int64_t strip, int64_t from)
{
    const AqAttend *a = t->a;
    int64_t first = t->key + strip * a->width;
    int64_t n = AQ_MIN(a->width, t->key + t->keys - first);
    for (int64_t i = from; i < t->queries; i++) {
        float *row = t->p + i * AQ_SCORE_ROW + strip * a->width;
        memset(row, 0, (size_t)a->width * sizeof(float));
        if (a->in[AQ_BIAS] >= 0) {
            const float *bias = input(t, AQ_BIAS) + t->b * a->bias_batch +
                                t->h * a->bias_head + (t->query + i) * a->keys +
                                first;
            for (int64_t j = 0; j < n; j++)
                row[j] = bias[j] * LOG2_E;
        }
        for (int64_t j = AQ_MAX(t->query + i + 1 - first, 0);
             j < n && a->causal; j++)
            row[j] = -INFINITY;
    }
}

static const float *side(const Backward *t, int which, int64_t row)
{
    return t->head.side[which] + (t->query + row) * t->a->panel;
}

/* p and ds of one strip of keys, from row `from` on. */
static void weigh(const Backward *t, int64_t strip, int64_t from)
{
    const AqAttend *a = t->a;
    int64_t first = t->key + strip * a->width, at = strip * strip_floats(a);
    int64_t last = AQ_MIN(first + a->width, t->key + t->keys) - 1;
    int64_t place = from * AQ_SCORE_ROW + strip * a->width;
    AqTile tile = {
        .a = side(t, 0, from),
        .b = t->kt + at,
        .c = t->p + place,
        .x = t->head.lse + t->query + from,
        .tiles = aq_ceil_div(t->queries - from, a->tile),
        .k = a->depth,
        .ldb = a->width,
        .ldc = AQ_SCORE_ROW,
        .more = a->in[AQ_BIAS] >= 0 || (a->causal && last > t->query + from),
    };
    if (tile.more)
        fill_scores(t, strip, from);
    a->weights(&tile);
    if (!wants_scores(a))
        return;
    tile.a = side(t, 1, from);
    tile.b = t->vt + at;
    tile.p = tile.c;
    tile.c = t->ds + place;
    tile.x = &a->scale;
    tile.y = t->head.slope + t->query + from;
    tile.more = 0;
    a->slopes(&tile);
}

/* One strip of keys against one block of queries. */
static void meet(const Backward *t, int64_t strip)
{
    const AqAttend *a = t->a;
    int64_t first = t->key + strip * a->width, at = strip * strip_floats(a);
    int64_t from = 0; /* queries before see none of these keys */
    if (a->causal && first > t->query)
        from = (first - t->query) / a->tile * a->tile;
    int64_t place = from * AQ_SCORE_ROW + strip * a->width;
    if (a->result[0] >= 0)
        for (int64_t i = 0; i < from; i++)
            memset(t->ds + i * AQ_SCORE_ROW + strip * a->width, 0,
                   (size_t)a->width * sizeof(float));
    weigh(t, strip, from);
    AqTile sums = {
        .a = side(t, 1, from),
        .b = t->p + place,
        .c = t->dv + at,
        .x = t->ones,
        .tiles = aq_ceil_div(a->depth, a->sum_tile),
        .k = t->queries - from,
        .ldb = AQ_SCORE_ROW,
        .ldc = a->width,
    };
    if (a->result[2] >= 0)
        a->sums(&sums);
    sums.a = side(t, 0, from);
    sums.b = t->ds + place;
    sums.c = t->dk + at;
    if (a->result[1] >= 0)
        a->sums(&sums);
}

/* dq += ds k over the first `keys` keys of the block */
static void add_to_dq(const Backward *t, int64_t keys)
{
    const AqAttend *a = t->a;
    float *dq = t->head.dq + t->query * a->panel;
    int64_t vectors;
    for (int64_t e = 0; e < a->depth; e += vectors * a->lanes) {
        vectors = aq_outer_vectors(a, a->depth - e);
        AqTile tile = {
            .a = t->ds,
            .b = t->k + e,
            .c = dq + e,
            .tiles = aq_ceil_div(t->queries, a->outer_rows[vectors - 1]),
            .k = keys,
            .ldb = a->panel,
            .ldc = a->panel,
            .more = !t->first,
        };
        a->outer[vectors - 1](&tile);
    }
}

static void clear_dq(const Backward *t)
{
    memset(t->head.dq + t->query * t->a->panel, 0,
           (size_t)(t->queries * t->a->panel) * sizeof(float));
}

/* ---- a task ---- */

static void meet_queries(const Backward *t)
{
    const AqAttend *a = t->a;
    int64_t seen = t->keys;
    if (a->causal)
        seen = AQ_MIN(seen, t->query + t->queries - t->key);
    if (seen <= 0) {
        if (a->result[0] >= 0 && t->first)
            clear_dq(t);
        return;
    }
    for (int64_t s = 0; s * a->width < seen; s++)
        meet(t, s);
    if (a->result[0] >= 0)
        add_to_dq(t, seen);
}

static void end_keys(const Backward *t)
{
    const AqAttend *a = t->a;
    int64_t at = aq_attend_at(a, a->keys, t->b, t->key, t->h);
    for (int which = 1; which < 3; which++) {
        if (a->result[which] < 0)
            continue;
        const float *from = which == 1 ? t->dk : t->dv;
        float *to = (float *)t->buffers[a->result[which]] + at;
        for (int64_t s = 0; s * a->width < t->keys; s++)
            aq_attend_collect(
                a, from + s * strip_floats(a), to + s * a->width * a->row,
                AQ_MIN(a->width, t->keys - s * a->width), t->ones);
    }
}

static void meet_head(Backward *t, int64_t split)
{
    const AqAttend *a = t->a;
    int64_t share = a->per_split * a->along;
    int64_t end = AQ_MIN(a->keys, (split + 1) * share);
    t->first = true;
    for (t->key = split * share; t->key < end; t->key += a->along) {
        t->keys = AQ_MIN(a->along, end - t->key);
        begin_keys(t);
        for (t->query = 0; t->query < a->queries; t->query += a->across) {
            t->queries = AQ_MIN(a->across, a->queries - t->query);
            meet_queries(t);
        }
        end_keys(t);
        t->first = false;
    }
}

void aq_attend_backward(const void *closure, void *const *buffers,
                        int64_t first, int64_t last, void *scratch)
{
    const AqAttend *a = closure;
    Backward t = {.a = a, .buffers = buffers};
    place_scratch(a, &t, scratch);
    for (int64_t i = 0; i < a->width; i++)
        t.ones[i] = 1;
    for (int64_t task = first; task < last; task++) {
        int64_t split = task % a->splits;
        t.h = task / a->splits % a->heads;
        t.b = task / a->splits / a->heads;
        t.head = aq_attend_begin_head(a, buffers, t.own, t.b, t.h, split);
        meet_head(&t, split);
        if (a->own && a->result[0] >= 0)
            aq_attend_join_head(a, buffers, t.head.dq, t.b, t.h, 0, a->queries);
    }
}
