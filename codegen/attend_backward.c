/* A backward task: a share of one head's keys against all queries that see
 * them.  Keys lie along the lanes, in strips of W; a block of `along` of them
 * meets the queries in blocks of `across`.  dk and dv of a block are complete
 * at its end.  dq grows from block to block; where a head's keys are split
 * among tasks, each but the first has a dq of its own, joined in order. */
#include "codegen/attend.h"

#include <math.h>
#include <string.h>

static const float LOG2_E = 1.44269504F;

typedef struct Backward {
    const AqAttend *a;
    void *const *buffers;
    int64_t b, h;
    int64_t key, keys, query, queries; /* of these blocks */
    float *dq;                         /* of this task, or NULL */
    float *kt, *vt, *dk, *dv;          /* [strip][e][W] */
    float *k, *q, *dout;               /* panels */
    float *p, *ds;                     /* scores */
    float *lse, *slope;                /* of each query */
    float *ones, *spare, *rest;        /* a tile of dq */
    bool first;                        /* of the task's blocks of keys */
} Backward;

static int64_t strip_floats(const AqAttend *a)
{
    return a->depth_rows * a->width;
}

/* Returns how many floats there are; `scratch` may be NULL. */
static int64_t place_scratch(const AqAttend *a, Backward *t, float *scratch)
{
    int64_t strips = a->along / a->width * strip_floats(a);
    int64_t rows = aq_round_up(a->queries, 16) + 16;
    struct {
        float **at;
        int64_t floats;
    } all[] = {
        {&t->kt, strips},
        {&t->vt, strips},
        {&t->dk, strips},
        {&t->dv, strips},
        {&t->k, a->along * a->panel},
        {&t->q, a->across * a->panel},
        {&t->dout, a->across * a->panel},
        {&t->p, a->across * AQ_SCORE_ROW},
        {&t->ds, a->across * AQ_SCORE_ROW},
        {&t->lse, rows},
        {&t->slope, rows},
        {&t->ones, a->width},
        {&t->spare, a->width},
        {&t->rest, aq_round_up(a->tile * a->panel, 16)},
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

/* lse in powers of two, +inf where nothing is seen, so that p is zero; and
 * slope = -scale dout . out */
static void begin(const Backward *t)
{
    const AqAttend *a = t->a;
    const float *lse = input(t, AQ_LSE) + (t->b * a->heads + t->h) * a->queries;
    int64_t at = aq_attend_at(a, a->queries, t->b, 0, t->h);
    for (int64_t i = 0; i < a->queries; i++)
        t->lse[i] = lse[i] == -INFINITY ? INFINITY : lse[i] * LOG2_E;
    if (wants_scores(a))
        a->row_product(input(t, AQ_OUT) + at, input(t, AQ_DOUT) + at, a->row,
                       t->slope, a->queries, a->depth, -a->scale);
    for (int64_t i = 0; i < a->width; i++)
        t->ones[i] = 1;
}

static void begin_keys(const Backward *t)
{
    const AqAttend *a = t->a;
    int64_t at = aq_attend_at(a, a->keys, t->b, t->key, t->h);
    for (int64_t s = 0; s * a->width < t->keys; s++) {
        int64_t n = AQ_MIN(a->width, t->keys - s * a->width);
        int64_t from = at + s * a->width * a->row, to = s * strip_floats(a);
        size_t bytes = (size_t)strip_floats(a) * sizeof(float);
        a->spread(input(t, AQ_K) + from, a->row, t->kt + to, n, a->depth,
                  a->scale * LOG2_E);
        if (wants_scores(a))
            a->spread(input(t, AQ_V) + from, a->row, t->vt + to, n, a->depth,
                      1);
        memset(t->dk + to, 0, bytes);
        memset(t->dv + to, 0, bytes);
    }
    if (t->dq)
        a->panel_rows(input(t, AQ_K) + at, a->row, t->k, a->panel, t->keys,
                      a->depth);
}

static void begin_queries(const Backward *t)
{
    const AqAttend *a = t->a;
    int64_t at = aq_attend_at(a, a->queries, t->b, t->query, t->h);
    a->panel_rows(input(t, AQ_Q) + at, a->row, t->q, a->panel, t->queries,
                  a->depth);
    a->panel_rows(input(t, AQ_DOUT) + at, a->row, t->dout, a->panel, t->queries,
                  a->depth);
}

/* What is added to the products: the bias, and -inf at hidden keys. */
static void fill_scores(const Backward *t, int64_t strip)
{
    const AqAttend *a = t->a;
    int64_t first = t->key + strip * a->width;
    int64_t n = AQ_MIN(a->width, t->key + t->keys - first);
    for (int64_t i = 0; i < t->queries; i++) {
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

/* One strip of keys against one block of queries. */
static void meet(const Backward *t, int64_t strip)
{
    const AqAttend *a = t->a;
    int64_t first = t->key + strip * a->width, at = strip * strip_floats(a);
    int64_t last = AQ_MIN(first + a->width, t->key + t->keys) - 1;
    AqTile tile = {
        .a = t->q,
        .b = t->kt + at,
        .c = t->p + strip * a->width,
        .x = t->lse + t->query,
        .tiles = aq_ceil_div(t->queries, a->tile),
        .k = a->depth,
        .ldb = a->width,
        .ldc = AQ_SCORE_ROW,
        .more = a->in[AQ_BIAS] >= 0 || (a->causal && last > t->query),
    };
    if (tile.more)
        fill_scores(t, strip);
    a->weights(&tile);
    if (wants_scores(a)) {
        tile.a = t->dout;
        tile.b = t->vt + at;
        tile.p = tile.c;
        tile.c = t->ds + strip * a->width;
        tile.x = &a->scale;
        tile.y = t->slope + t->query;
        tile.more = 0;
        a->slopes(&tile);
    }
    AqTile sums = {
        .a = t->dout,
        .b = t->p + strip * a->width,
        .c = t->dv + at,
        .x = t->ones,
        .tiles = aq_ceil_div(a->depth, a->tile),
        .k = t->queries,
        .ldb = AQ_SCORE_ROW,
        .ldc = a->width,
    };
    if (a->result[2] >= 0)
        a->sums(&sums);
    sums.a = t->q;
    sums.b = t->ds + strip * a->width;
    sums.c = t->dk + at;
    if (a->result[1] >= 0)
        a->sums(&sums);
}

/* ---- dq ---- */

/* Rows from `row` on, of this block: whole tiles into dq, or less than a tile
 * into t->rest. */
static void outer(const Backward *t, int64_t row, int64_t keys, float *to,
                  int64_t to_row, int64_t tiles, bool more)
{
    const AqAttend *a = t->a;
    int64_t vectors = 2;
    for (int64_t e = 0; e < a->depth; e += vectors * a->lanes) {
        int64_t left = a->depth - e;
        vectors = left > a->lanes ? 2 : 1;
        AqTile tile = {
            .a = t->ds + row * AQ_SCORE_ROW,
            .b = t->k + e,
            .c = to + e,
            .tiles = tiles,
            .k = keys,
            .ldb = a->panel,
            .ldc = to_row,
            .more = more,
            .columns = left,
        };
        a->outer[vectors - 1][left < vectors * a->lanes](&tile);
    }
}

/* dq += ds k over the first `keys` keys of the block */
static void add_to_dq(const Backward *t, int64_t keys)
{
    const AqAttend *a = t->a;
    float *dq = t->dq + aq_attend_at(a, a->queries, t->b, t->query, t->h);
    int64_t tiles = t->queries / a->tile, row = tiles * a->tile;
    if (tiles > 0)
        outer(t, 0, keys, dq, a->row, tiles, !t->first);
    if (row == t->queries)
        return;
    outer(t, row, keys, t->rest, a->panel, 1, false);
    for (int64_t i = row; i < t->queries; i++)
        for (int64_t e = 0; e < a->depth; e++)
            dq[i * a->row + e] = (t->first ? 0 : dq[i * a->row + e]) +
                                 t->rest[(i - row) * a->panel + e];
}

static void clear_dq(const Backward *t)
{
    const AqAttend *a = t->a;
    float *dq = t->dq + aq_attend_at(a, a->queries, t->b, t->query, t->h);
    for (int64_t i = 0; i < t->queries; i++)
        memset(dq + i * a->row, 0, (size_t)a->depth * sizeof(float));
}

/* ---- a task ---- */

static void meet_queries(const Backward *t)
{
    const AqAttend *a = t->a;
    int64_t seen = t->keys;
    if (a->causal)
        seen = AQ_MIN(seen, t->query + t->queries - t->key);
    if (seen <= 0) {
        if (t->dq && t->first)
            clear_dq(t);
        return;
    }
    begin_queries(t);
    for (int64_t s = 0; s * a->width < seen; s++)
        meet(t, s);
    if (t->dq)
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
            a->collect(from + s * strip_floats(a), to + s * a->width * a->row,
                       a->row, AQ_MIN(a->width, t->keys - s * a->width),
                       a->depth, t->ones, t->spare);
    }
}

static int64_t dq_floats(const AqAttend *a)
{
    return a->batch * a->queries * a->row;
}

static float *dq_of(const AqAttend *a, void *const *buffers, int64_t split)
{
    if (a->result[0] < 0)
        return NULL;
    if (split == 0)
        return buffers[a->result[0]];
    return (float *)buffers[a->work] + (split - 1) * dq_floats(a);
}

void aq_attend_backward(const void *closure, void *const *buffers,
                        int64_t first, int64_t last, void *scratch)
{
    const AqAttend *a = closure;
    Backward t = {.a = a, .buffers = buffers};
    place_scratch(a, &t, scratch);
    for (int64_t task = first; task < last; task++) {
        int64_t split = task % a->splits, share = a->per_split * a->along;
        t.h = task / a->splits % a->heads;
        t.b = task / a->splits / a->heads;
        t.dq = dq_of(a, buffers, split);
        t.first = true;
        begin(&t);
        int64_t end = AQ_MIN(a->keys, (split + 1) * share);
        for (t.key = split * share; t.key < end; t.key += a->along) {
            t.keys = AQ_MIN(a->along, end - t.key);
            begin_keys(&t);
            for (t.query = 0; t.query < a->queries; t.query += a->across) {
                t.queries = AQ_MIN(a->across, a->queries - t.query);
                meet_queries(&t);
            }
            end_keys(&t);
            t.first = false;
        }
    }
}

/* ---- stage: dq of the splits together, in order ---- */

void aq_attend_join(const void *closure, void *const *buffers, int64_t first,
                    int64_t last, void *scratch)
{
    const AqAttend *a = closure;
    (void)scratch;
    float *dq = dq_of(a, buffers, 0);
    int64_t begin_at = first * AQ_JOIN_FLOATS;
    int64_t end = AQ_MIN(last * AQ_JOIN_FLOATS, dq_floats(a));
    for (int64_t split = 1; split < a->splits; split++) {
        const float *more = dq_of(a, buffers, split);
        for (int64_t i = begin_at; i < end; i++)
            dq[i] += more[i];
    }
}
