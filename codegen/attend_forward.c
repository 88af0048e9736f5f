/* A forward task: some queries of one head against all keys that they see, a
 * block of keys at a time.  Queries lie along the lanes, in strips of W; so the
 * maximum and the sum of a query's scores are those of a lane. */
#include "codegen/attend.h"

#include <math.h>
#include <string.h>

static const float LOG2_E = 1.44269504F;

typedef struct Forward {
    const AqAttend *a;
    void *const *buffers;
    int64_t b, h;
    int64_t query, queries; /* of this task */
    int64_t key, keys;      /* of this block */
    AqHead head;
    float *q, *out;        /* [strip][e][W] */
    float *scores, *stats; /* of a strip; of all strips */
    float *own;            /* panels */
} Forward;

static int64_t strip_floats(const AqAttend *a)
{
    return a->depth_rows * a->width;
}

static int64_t stats_floats(const AqAttend *a)
{
    return AQ_STATS * a->width;
}

/* Returns how many floats there are; `scratch` may be NULL. */
static int64_t place_scratch(const AqAttend *a, Forward *f, float *scratch)
{
    int64_t strips = a->along / a->width;
    struct {
        float **at;
        int64_t floats;
    } all[] = {
        {&f->q, strips * strip_floats(a)},
        {&f->out, strips * strip_floats(a)},
        {&f->scores, a->across * AQ_SCORE_ROW},
        {&f->stats, strips * stats_floats(a)},
        {&f->own, a->own ? a->panel_floats : 0},
    };
    int64_t used = 0;
    for (int i = 0; i < AQ_COUNT(all); i++) {
        if (scratch)
            *all[i].at = scratch + used;
        used += all[i].floats;
    }
    return used;
}

int64_t aq_attend_forward_scratch(const AqAttend *a)
{
    Forward f;
    return place_scratch(a, &f, NULL);
}

static const float *input(const Forward *f, int which)
{
    return f->buffers[f->a->in[which]];
}

static int64_t strip_queries(const Forward *f, int64_t strip)
{
    return AQ_MIN(f->a->width, f->queries - strip * f->a->width);
}

static void begin(const Forward *f)
{
    const AqAttend *a = f->a;
    for (int64_t s = 0; s * a->width < f->queries; s++) {
        float *stats = f->stats + s * stats_floats(a);
        int64_t at =
            aq_attend_at(a, a->queries, f->b, f->query + s * a->width, f->h);
        aq_attend_spread(a, input(f, AQ_Q) + at, f->q + s * strip_floats(a),
                         strip_queries(f, s), a->scale * LOG2_E);
        memset(f->out + s * strip_floats(a), 0,
               (size_t)strip_floats(a) * sizeof(float));
        memset(stats, 0, (size_t)stats_floats(a) * sizeof(float));
        for (int64_t i = 0; i < 2 * a->width; i++) /* top, before */
            stats[i] = -INFINITY;
    }
}

/* What is added to the products with keys from `from` on: the bias, and -inf at
 * hidden ones and, to the tile's end, behind the last. */
static void fill_scores(const Forward *f, int64_t strip, int64_t from,
                        int64_t keys)
{
    const AqAttend *a = f->a;
    int64_t first = f->query + strip * a->width, n = strip_queries(f, strip);
    int64_t end = aq_round_up(keys, a->tile);
    for (int64_t j = from; j < end; j++)
        for (int64_t i = 0; i < a->width; i++)
            f->scores[j * AQ_SCORE_ROW + i] = j < keys ? 0 : -INFINITY;
    for (int64_t i = 0; i < n && a->in[AQ_BIAS] >= 0; i++) {
        const float *bias = input(f, AQ_BIAS) + f->b * a->bias_batch +
                            f->h * a->bias_head + (first + i) * a->keys +
                            f->key;
        for (int64_t j = from; j < keys; j++)
            f->scores[j * AQ_SCORE_ROW + i] = bias[j] * LOG2_E;
    }
    for (int64_t j = AQ_MAX(first + 1 - f->key, from); j < keys && a->causal;
         j++)
        for (int64_t i = 0; i < AQ_MIN(n, f->key + j - first); i++)
            f->scores[j * AQ_SCORE_ROW + i] = -INFINITY;
}

/* The scores of one strip with one block: whole tiles that nothing is added to,
 * then the others. */
static void score(const Forward *f, int64_t strip, int64_t keys)
{
    const AqAttend *a = f->a;
    int64_t first = f->query + strip * a->width;
    int64_t tiles = aq_ceil_div(keys, a->tile), plain = keys / a->tile;
    if (a->in[AQ_BIAS] >= 0)
        plain = 0;
    else if (a->causal)
        plain = AQ_MIN(plain, AQ_MAX(first + 1 - f->key, 0) / a->tile);
    AqTile tile = {
        .a = f->head.side[0] + f->key * a->panel,
        .b = f->q + strip * strip_floats(a),
        .c = f->scores,
        .top = f->stats + strip * stats_floats(a) + AQ_STATS_TOP * a->width,
        .tiles = plain,
        .k = a->depth,
        .ldb = a->width,
        .ldc = AQ_SCORE_ROW,
    };
    if (plain > 0)
        a->scores(&tile);
    if (plain == tiles)
        return;
    fill_scores(f, strip, plain * a->tile, keys);
    tile.a += plain * a->tile * a->panel;
    tile.c += plain * a->tile * AQ_SCORE_ROW;
    tile.tiles = tiles - plain;
    tile.more = 1;
    a->scores(&tile);
}

/* One strip against one block. */
static void meet(const Forward *f, int64_t strip)
{
    const AqAttend *a = f->a;
    int64_t first = f->query + strip * a->width, keys = f->keys;
    float *stats = f->stats + strip * stats_floats(a);
    if (a->causal)
        keys = AQ_MIN(keys, first + strip_queries(f, strip) - f->key);
    if (keys <= 0)
        return;
    score(f, strip, keys);
    a->softmax(stats, f->scores, keys);
    AqTile sums = {
        .a = f->head.side[1] + f->key * a->panel,
        .b = f->scores,
        .c = f->out + strip * strip_floats(a),
        .x = stats + AQ_STATS_FACTOR * a->width,
        .tiles = aq_ceil_div(a->depth, a->sum_tile),
        .k = keys,
        .ldb = AQ_SCORE_ROW,
        .ldc = a->width,
    };
    a->sums(&sums);
}

static void end(const Forward *f)
{
    const AqAttend *a = f->a;
    float *out = a->result[0] < 0 ? NULL : f->buffers[a->result[0]];
    float *lse = a->result[1] < 0 ? NULL : f->buffers[a->result[1]];
    for (int64_t s = 0; s * a->width < f->queries; s++) {
        float *stats = f->stats + s * stats_floats(a);
        int64_t first = f->query + s * a->width, n = strip_queries(f, s);
        a->softmax_end(stats);
        if (out)
            aq_attend_collect(
                a, f->out + s * strip_floats(a),
                out + aq_attend_at(a, a->queries, f->b, first, f->h), n,
                stats + AQ_STATS_FACTOR * a->width);
        if (lse)
            memcpy(lse + (f->b * a->heads + f->h) * a->queries + first,
                   stats + AQ_STATS_TOP * a->width, (size_t)n * sizeof(float));
    }
}

static void meet_keys(Forward *f)
{
    const AqAttend *a = f->a;
    int64_t keys = a->causal ? AQ_MIN(a->keys, f->query + f->queries) : a->keys;
    begin(f);
    for (f->key = 0; f->key < keys; f->key += a->across) {
        f->keys = AQ_MIN(a->across, keys - f->key);
        for (int64_t s = 0; s * a->width < f->queries; s++)
            meet(f, s);
    }
    end(f);
}

void aq_attend_forward(const void *closure, void *const *buffers, int64_t first,
                       int64_t last, void *scratch)
{
    const AqAttend *a = closure;
    int64_t share = a->per_split * a->along;
    Forward f = {.a = a, .buffers = buffers};
    place_scratch(a, &f, scratch);
    for (int64_t task = first; task < last; task++) {
        int64_t split = task % a->splits;
        int64_t end = AQ_MIN(a->queries, (split + 1) * share);
        f.h = task / a->splits % a->heads;
        f.b = task / a->splits / a->heads;
        f.head = aq_attend_begin_head(a, buffers, f.own, f.b, f.h, split);
        for (f.query = split * share; f.query < end; f.query += a->along) {
            f.queries = AQ_MIN(a->along, end - f.query);
            meet_keys(&f);
        }
    }
}
