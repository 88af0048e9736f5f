/* Sizes of blocks for `winograd`, a pure function of op, shapes, whether
 * operands are expressions, and target: whatever threads there will be.  What
 * stands behind the figures is in codegen/README.md. */
#include "ir/tiles.h"
#include "passes/choose.h"

#include <string.h>

/* How much longer so many tasks take than if they kept all threads busy, of
 * which there may be any number: tasks are larger here, and fewer, than those
 * of `gemm`, so that eight threads count, too. */
static double idle(int64_t tasks)
{
    static const struct {
        int64_t threads;
        double weight;
    } likely[] = {{2, 0.5}, {4, 0.4}, {8, 0.1}};
    double idle = 0;
    for (int i = 0; i < AQ_COUNT(likely); i++) {
        int64_t rounds = aq_ceil_div(tasks, likely[i].threads);
        idle += likely[i].weight * (double)(rounds * likely[i].threads) /
                (double)tasks;
    }
    return idle;
}

/* ---- forward, and the input's gradient ---- */

typedef struct Forward {
    int64_t channels, n; /* terms of a sum; channels of the result */
    int64_t strip, strips;
    AqTiles tiles;
    const AqTarget *target;
} Forward;

typedef struct ForwardBlocks {
    int64_t tiles, strips, pass, share_v, share_u;
} ForwardBlocks;

/* Whether U comes from beyond L2, at each of its uses. */
static bool is_large(const Forward *f)
{
    return 4 * AQ_POINTS * f->channels * f->n > 2 * (int64_t)f->target->l2;
}

/* What a block of B bytes of V and T tiles takes longer than its products, in
 * proportion: U streams past it, u / T, or `large` / T; V comes from beyond L2,
 * v (B / L2 - from).  With half the lanes products take twice as long, so that
 * U weighs less. */
typedef struct Streams {
    double u, large, v, from;
} Streams;

static Streams streams_of(const AqTarget *target)
{
    return target->vector < 16
               ? (Streams){.u = 4, .large = 6, .v = 0.2, .from = 0.75}
               : (Streams){.u = 4, .large = 12, .v = 0.1, .from = 1.25};
}

/* Rows that so many tiles take of register tiles, the last of which may be
 * lower: few rows take as long as three or four, for their sums hide no latency
 * (AVX2), or B comes no faster (AVX-512). */
static int64_t rows_taken(int64_t tiles, const AqTarget *target)
{
    int64_t high = aq_tile_rows(target), left = tiles % high;
    int64_t least = target->vector < 16 ? 4 : 3;
    if (left > 0)
        left = AQ_MAX(aq_round_up(left, 2), least);
    return tiles / high * high + left;
}

/* What a tile costs in blocks of so many, in proportion; tasks do not end
 * together. */
static double forward_cost(const Forward *f, const AqTiles *t)
{
    AqPasses p =
        aq_passes_of(f->channels, AQ_WINOGRAD_TERMS, f->target->vector);
    Streams s = streams_of(f->target);
    int64_t tiles = t->unit_block * t->across;
    int64_t rows = rows_taken(tiles, f->target);
    double bytes = 4.0 * (double)(AQ_POINTS * rows * p.passes * p.row);
    double over = AQ_MAX(bytes / f->target->l2 - s.from, 0);
    double u = is_large(f) ? s.large : s.u;
    return (1 + u / (double)tiles + s.v * over) * (double)rows / (double)tiles *
           (idle(t->blocks) + 1.5 / (double)t->blocks);
}

static int64_t cheapest_tiles(const Forward *f)
{
    enum { LEAST = 12, MOST = 64 };
    int64_t best = LEAST;
    double least = -1;
    for (int64_t tiles = LEAST; tiles <= MOST; tiles++) {
        AqTiles t = f->tiles;
        aq_tiles_cut(&t, tiles);
        double now = forward_cost(f, &t);
        if (least < 0 || now < least) {
            least = now;
            best = tiles;
        }
    }
    return best;
}

static ForwardBlocks choose_forward(const Forward *f)
{
    /* of SOME tiles tasks share the columns in several blocks, each as large as
     * it may be, where U is large */
    enum { SOME = 256 };
    int64_t tiles = aq_tiles_in_all(&f->tiles);
    bool small = aq_winograd_is_small(&f->tiles, f->strips);
    ForwardBlocks b = {.pass = AQ_WINOGRAD_TERMS, .share_u = 1};
    if (tiles > SOME || (!small && !is_large(f))) {
        b.tiles = cheapest_tiles(f);
        b.strips = f->strips;
        return b;
    }
    b.strips = b.share_v = 1;
    b.tiles = AQ_MIN(tiles, AQ_WINOGRAD_FEW);
    if (tiles > AQ_WINOGRAD_FEW)
        return b;
    int64_t strip = 4 * AQ_POINTS * f->strip;
    b.share_u = 0;
    b.pass = 64;
    while (2 * b.pass <= AQ_WINOGRAD_TERMS &&
           2 * b.pass * strip <= f->target->l2 * 5 / 8)
        b.pass *= 2;
    return b;
}

static int forward_blocks(const AqContractFacts *facts, const AqTarget *target,
                          int64_t *blocks, int64_t *most)
{
    bool forward = facts->op == AQ_OP_conv2d;
    const int64_t *size = forward ? facts->y_size : facts->x_size;
    Forward f = {.channels = forward ? facts->in : facts->out,
                 .n = forward ? facts->out : facts->in,
                 .tiles = aq_tiles_of(facts->images, size[0], size[1]),
                 .target = target};
    f.strip = aq_winograd_strip(&f.tiles, f.n, target);
    f.strips = aq_ceil_div(f.n, f.strip);
    ForwardBlocks b = choose_forward(&f);
    int64_t numbers[] = {b.tiles, b.strips, b.pass, b.share_v, b.share_u};
    int64_t largest[] = {aq_tiles_in_all(&f.tiles), f.strips, AQ_WINOGRAD_TERMS,
                         1, 1};
    memcpy(blocks, numbers, sizeof numbers);
    memcpy(most, largest, sizeof largest);
    return AQ_COUNT(numbers);
}

/* ---- the weights' gradient ---- */

enum { X, DY }; /* its operands */

typedef struct Weight {
    int64_t row_tiles, strips; /* of the sums: in, out */
    int64_t channels;          /* of both images together */
    AqTiles tiles;
    bool stored[2];
    const AqTarget *target;
} Weight;

typedef struct WeightBlocks {
    int64_t tiles, rows, strips, slices, shared;
} WeightBlocks;

/* How many blocks need the same part of an operand. */
static int64_t times_of(const Weight *w, const WeightBlocks *b, int which)
{
    return which == X ? aq_ceil_div(w->strips, b->strips)
                      : aq_ceil_div(w->row_tiles, b->rows);
}

/* Cycles of a vector of a tile of an operand in a block, as measured: its 36
 * lines written, beyond L2 if shared, and its pixels read or evaluated, or
 * stored beforehand and read. */
static double cost_of_tile(const Weight *w, const WeightBlocks *b, int which)
{
    enum { WRITE = 140, FAR = 250, FETCH = 80 };
    enum { READ = 50, EVALUATE = 320, STORE = 150 };
    int64_t times = times_of(w, b, which);
    int pixels = w->stored[which] ? READ : EVALUATE;
    if (b->shared)
        return (double)(FAR + pixels) / (double)times + FETCH;
    if (w->stored[which] || times <= AQ_WINOGRAD_EVALUATIONS)
        return WRITE + pixels;
    return WRITE + READ + (double)(EVALUATE + STORE) / (double)times;
}

/* Where V and D of all tiles may lie in the workspace, 36/16 of both images. */
static bool may_share(const Weight *w)
{
    enum { FEW = 256 };
    int64_t tiles = aq_tiles_in_all(&w->tiles);
    return tiles <= FEW && 4 * AQ_POINTS * tiles * w->channels <= w->target->l3;
}

/* Register tiles of a block, so that the next begins where a vector does. */
static int64_t block_step(const AqTarget *target)
{
    int64_t step = 1;
    while (step * aq_tile_rows(target) % target->vector)
        step++;
    return step;
}

/* What a task holds, in L2 for the most part: its sums, and V and D of a pass
 * that are its own. */
static bool fits(const Weight *w, const WeightBlocks *b)
{
    int64_t rows = b->rows * aq_tile_rows(w->target);
    int64_t columns = b->strips * aq_tile_columns(w->target);
    int64_t sums = 4 * AQ_POINTS * rows * columns;
    int64_t own = b->shared ? 0 : 4 * AQ_POINTS * b->tiles * (rows + columns);
    return sums <= w->target->l2 && sums + own <= w->target->l2 * 5 / 4;
}

/* Cycles of all tasks; of threads there may be any number. */
static double weight_cost(const Weight *w, const WeightBlocks *b)
{
    static const double product = 0.5, sum = 2, back = 5, join = 10;
    AqTiles t = w->tiles;
    aq_tiles_cut(&t, b->tiles);
    int64_t passes = aq_ceil_div(t.blocks, b->slices);
    int64_t slices = aq_ceil_div(t.blocks, passes);
    int64_t down = times_of(w, b, DY), across = times_of(w, b, X);
    double tiles = (double)aq_tiles_in_all(&t);
    double lanes = (double)w->target->vector;
    double rows = (double)(w->row_tiles * aq_tile_rows(w->target));
    double columns = (double)(w->strips * aq_tile_columns(w->target));
    double vectors = AQ_POINTS * rows * columns / lanes;
    double even = (double)w->row_tiles / (double)(down * b->rows) *
                  (double)w->strips / (double)(across * b->strips);
    double tile =
        vectors * (product + sum / (double)(t.unit_block * t.across)) +
        rows / lanes * (double)across * cost_of_tile(w, b, X) +
        columns / lanes * (double)down * cost_of_tile(w, b, DY);
    double slice = vectors * (slices > 1 ? back + join : back);
    return (tiles * tile + (double)slices * slice) *
           idle(slices * down * across) * (0.75 + 0.25 / even);
}

typedef struct Search {
    const Weight *w;
    WeightBlocks best;
    double least; /* negative: nothing yet */
} Search;

static void try_slices(Search *search, WeightBlocks b)
{
    enum { MOST_SLICES = 16 };
    if (!fits(search->w, &b) || (b.shared && !may_share(search->w)))
        return;
    for (b.slices = 1; b.slices <= MOST_SLICES; b.slices *= 2) {
        double now = weight_cost(search->w, &b);
        if (search->least < 0 || now < search->least) {
            search->least = now;
            search->best = b;
        }
    }
}

static int weight_blocks(const AqContractFacts *facts, const AqTarget *target,
                         int64_t *blocks, int64_t *most)
{
    static const int64_t tiles[] = {8, 16, 32, 64, 128};
    const int64_t *size = facts->y_size;
    Weight w = {.row_tiles = aq_ceil_div(facts->in, aq_tile_rows(target)),
                .strips = aq_ceil_div(facts->out, aq_tile_columns(target)),
                .channels = facts->in + facts->out,
                .tiles = aq_tiles_of(facts->images, size[0], size[1]),
                .stored = {facts->stored[0], facts->stored[1]},
                .target = target};
    Search search = {.w = &w, .least = -1};
    int64_t step = block_step(target);
    for (int i = 0; i < AQ_COUNT(tiles) * 2; i++)
        for (int64_t rows = 0; rows < w.row_tiles; rows += step)
            for (int64_t strips = 1; strips <= w.strips; strips++)
                try_slices(&search, (WeightBlocks){.tiles = tiles[i / 2],
                                                   .rows = AQ_MIN(rows + step,
                                                                  w.row_tiles),
                                                   .strips = strips,
                                                   .shared = i % 2});
    const WeightBlocks *b = &search.best;
    int64_t numbers[] = {b->tiles, b->rows, b->strips, b->slices, b->shared};
    int64_t all = aq_tiles_in_all(&w.tiles);
    int64_t largest[] = {all, w.row_tiles, w.strips, aq_ceil_div(all, b->tiles),
                         1};
    memcpy(blocks, numbers, sizeof numbers);
    memcpy(most, largest, sizeof largest);
    return AQ_COUNT(numbers);
}

int aq_choose_winograd_blocks(const AqContractFacts *facts,
                              const AqTarget *target, int64_t *blocks,
                              int64_t *most)
{
    return facts->op == AQ_OP_conv2d_weight_gradient
               ? weight_blocks(facts, target, blocks, most)
               : forward_blocks(facts, target, blocks, most);
}
