/* Sizes of blocks, a pure function of op, shapes, what operands cost, and
 * target.  For `gemm`: rows and columns of a task's block of the result, terms
 * of one pass over k, and slices of k that tasks sum apart.
 *
 * All sizes that make sense are tried against a rough model of the cost of a
 * multiply-add, in which only the proportions matter:
 *
 *   traffic   a block of R rows and C columns brings B from beyond L2 once for
 *             R rows, fetched ahead, and A once for C columns (and taps), which
 *             is copied besides: 1 + 5/R + 24/(C taps).  A weight's gradient
 *             without taps turns A: 1 + 18/R + 24/C; with strides it gathers
 *             A's pixels for each tap: 1 + 24/R + 40/C
 *   operands  that are computed while they are read: A's elements once for C
 *             columns, B's for R rows, an operation costing as much as 4 that
 *             are multiplied or added
 *   ends      the last round of two or of four threads may not be full, and
 *             tasks do not end together: 1 + idle + 2 / tasks; where A is
 *             turned only 1 / tasks, so few and large ones
 *   tasks     each costs about as much as 100 thousand operations
 *   slices    sums are written and read again: 1 + 70 slices / k, or
 *             120 where A is turned
 */
#include "ir/tiles.h"
#include "passes/choose.h"

#include <string.h>

enum {
    TERMS = 256,       /* of one pass over k, */
    SPLIT_TERMS = 512, /* where operands are split */
    MOST_SLICES = 16,
    TASK_OPERATIONS = 100000,
    THREADS = 4, /* assumed at most, whatever there will be */
};

/* The contraction as products of (m, k) by (k, n). */
typedef struct Shape {
    int64_t products;
    int64_t m, n, k;      /* of the largest */
    int64_t tile, tiles;  /* rows that are not divided, such along m */
    int64_t taps;         /* that read A once; others copy it for each */
    bool turned;          /* A's rows are terms, and its columns become rows */
    bool split;           /* its operands are, for the matrix unit */
    int64_t terms;        /* of one pass over k */
    double of_a, of_b;    /* traffic: over C, over R */
    double evaluation[2]; /* of all elements of A, of B, once */
} Shape;

typedef struct Blocks {
    int64_t rows, columns, k, slices;
} Blocks;

/* ---- shapes ---- */

/* The most taps that one of the input gradient's phases has: they lie
 * stride / gcd(stride, dilation) apart. */
static int64_t phase_taps(int64_t kernel, int64_t stride, int64_t dilation)
{
    int64_t a = stride, b = dilation;
    while (b) {
        int64_t rest = a % b;
        a = b;
        b = rest;
    }
    return aq_ceil_div(kernel, stride / a);
}

static Shape input_gradient_shape(const AqContractFacts *f)
{
    Shape s = {.products = f->groups,
               .m = f->images,
               .n = f->in / f->groups,
               .k = f->out / f->groups,
               .taps = 1};
    for (int d = 0; d < 2; d++) {
        s.products *= AQ_MIN(f->stride[d], f->x_size[d]);
        s.m *= aq_ceil_div(f->x_size[d], f->stride[d]);
        s.k *= phase_taps(f->kernel[d], f->stride[d], f->dilation[d]);
    }
    return s;
}

static void set_evaluation(const AqContractFacts *f, Shape *s)
{
    enum { OPERATION = 4 };
    double x = (double)f->images * (double)f->x_size[0] * (double)f->x_size[1] *
               (double)f->in;
    double y = (double)f->images * (double)f->y_size[0] * (double)f->y_size[1] *
               (double)f->out;
    double elements[] = {f->op == AQ_OP_conv2d_input_gradient ? y : x, y};
    if (f->op == AQ_OP_matmul) {
        elements[0] = (double)f->batches * (double)f->m * (double)f->k;
        elements[1] = (double)f->batches * (double)f->k * (double)f->n;
    }
    for (int i = 0; i < 2; i++)
        s->evaluation[i] = OPERATION * f->evaluation[i] * elements[i];
}

static void set_traffic(const AqContractFacts *f, Shape *s)
{
    bool strided = f->op == AQ_OP_conv2d_weight_gradient &&
                   f->stride[0] * f->stride[1] > 1;
    s->of_a = strided ? 40 : 24.0 / (double)s->taps;
    s->of_b = s->turned ? 18 : strided ? 24 : 5;
}

static Shape shape_of(const AqContractFacts *f, int64_t tile_rows,
                      int64_t turned_rows)
{
    Shape s;
    if (f->op == AQ_OP_matmul) {
        s = (Shape){f->batches, f->m, f->n, f->k, .taps = 1};
        s.turned = f->by_terms;
    } else if (f->op == AQ_OP_conv2d_input_gradient) {
        s = input_gradient_shape(f);
    } else {
        int64_t pixels = f->images * f->y_size[0] * f->y_size[1];
        int64_t taps = f->kernel[0] * f->kernel[1];
        int64_t in = f->in / f->groups, out = f->out / f->groups;
        s = (Shape){f->groups, pixels, out, taps * in, .taps = 1};
        if (f->op == AQ_OP_conv2d_weight_gradient)
            s = (Shape){f->groups, taps * in, out, pixels, .taps = taps};
        s.turned = f->op == AQ_OP_conv2d_weight_gradient && taps == 1 &&
                   f->stride[0] * f->stride[1] == 1;
    }
    set_evaluation(f, &s);
    set_traffic(f, &s);
    s.terms = TERMS;
    s.tile = s.turned ? turned_rows : tile_rows;
    s.tiles = s.taps * aq_ceil_div(s.m / s.taps, s.tile);
    return s;
}

/* ---- costs ---- */

static double ends(int64_t tasks, double uneven)
{
    double idle = 0;
    for (int64_t threads = 2; threads <= THREADS; threads += 2)
        idle += (double)(aq_ceil_div(tasks, threads) * threads - tasks) / 2;
    return 1 + (idle + uneven) / (double)tasks;
}

static double cost(const Shape *s, const Blocks *b)
{
    int64_t tasks = s->products * aq_ceil_div(s->m, b->rows) *
                    aq_ceil_div(s->n, b->columns) * b->slices;
    double k = (double)AQ_MAX(s->k, 1);
    double work = 2.0 * (double)s->products * (double)s->m * (double)s->n * k;
    double traffic = 1 + s->of_b / (double)AQ_MIN(b->rows, s->m) +
                     s->of_a / (double)AQ_MIN(b->columns, s->n);
    double of_slice = s->turned ? 120 : 70;
    double sums = b->slices == 1 ? 0 : of_slice * (double)b->slices / k;
    double evaluation =
        s->evaluation[0] * (double)aq_ceil_div(s->n, b->columns) +
        s->evaluation[1] * (double)aq_ceil_div(s->m, b->rows);
    return (work * (traffic + sums) + evaluation) *
               ends(tasks, s->turned ? 1 : 2) +
           (double)tasks * TASK_OPERATIONS / (double)AQ_MIN(tasks, THREADS);
}

typedef struct Search {
    const Shape *shape;
    const AqTarget *target;
    Blocks best;
    double least; /* negative: nothing yet */
} Search;

/* The sums that wait, the strips of B, and some room for A must lie in L2. */
static bool fits(const Search *search, const Blocks *b)
{
    const AqTarget *target = search->target;
    bool wait = search->shape->k > b->k || !search->shape->split;
    int64_t floats = (wait ? b->rows : 0) * b->columns + b->k * b->columns;
    return 4 * floats <= (int64_t)target->l2 * 5 / 8;
}

/* Blocks of these rows and columns; slices are of two passes at least. */
static void try_blocks(Search *search, int64_t rows, int64_t columns)
{
    Blocks b = {.rows = rows, .columns = columns, .k = search->shape->terms};
    if (!fits(search, &b) && (columns > aq_tile_columns(search->target) ||
                              rows > 4 * search->shape->tile))
        return;
    int64_t slices = AQ_MIN(search->shape->k / (2 * TERMS), MOST_SLICES);
    for (b.slices = 1; b.slices <= AQ_MAX(slices, 1); b.slices *= 2) {
        double now = cost(search->shape, &b);
        if (search->least < 0 || now < search->least) {
            search->least = now;
            search->best = b;
        }
    }
}

/* The least costly way to cut tiles and strips into equal blocks. */
static Blocks cheapest(const Shape *s, const AqTarget *target)
{
    int64_t rows = s->tile, columns = aq_tile_columns(target);
    int64_t tiles = s->tiles, strips = AQ_MAX(aq_ceil_div(s->n, columns), 1);
    Search search = {.shape = s,
                     .target = target,
                     .best = {rows, columns, s->terms, 1},
                     .least = -1};
    /* every height once: of large images there are millions of tiles */
    for (int64_t high = tiles;;) {
        for (int64_t j = 1; j <= strips; j++)
            try_blocks(&search, high * rows, aq_ceil_div(strips, j) * columns);
        if (high == 1)
            break;
        high = aq_ceil_div(tiles, aq_ceil_div(tiles, high - 1));
    }
    return search.best;
}

static int choose(const Shape *shape, const AqTarget *target, int64_t *blocks,
                  int64_t *most)
{
    Blocks b = cheapest(shape, target);
    int64_t columns = AQ_MAX(aq_round_up(shape->n, aq_tile_columns(target)), 1);
    int64_t numbers[] = {b.rows, b.columns, b.k, b.slices};
    int64_t largest[] = {AQ_MAX(shape->tiles, 1) * shape->tile, columns,
                         shape->terms,
                         AQ_MAX(aq_ceil_div(shape->k, shape->terms), 1)};
    memcpy(blocks, numbers, sizeof numbers);
    memcpy(most, largest, sizeof largest);
    return AQ_COUNT(numbers);
}

int aq_choose_gemm_blocks(const AqContractFacts *facts, const AqTarget *target,
                          int64_t *blocks, int64_t *most)
{
    Shape shape = shape_of(facts, aq_tile_rows(target), AQ_TURNED_ROWS);
    return choose(&shape, target, blocks, most);
}

int aq_choose_split_blocks(const AqContractFacts *facts, const AqTarget *target,
                           int64_t *blocks, int64_t *most)
{
    Shape shape = shape_of(facts, AQ_SPLIT_ROWS, AQ_SPLIT_TURNED_ROWS);
    shape.split = true;
    shape.terms = SPLIT_TERMS;
    shape.of_a *= 5.0 / 2;
    shape.of_b *= 4;
    return choose(&shape, target, blocks, most);
}

/* ---- blas ---- */

/* The longer side is cut until there are tasks enough: the library packs its
 * operands anew in each. */
int aq_choose_blas_blocks(const AqContractFacts *facts, const AqTarget *target,
                          int64_t *blocks, int64_t *most)
{
    enum { TASKS = 8, LEAST = 64, MOST = 1 << 20, LINE = 16 };
    Shape s = shape_of(facts, aq_tile_rows(target), AQ_TURNED_ROWS);
    int64_t size[] = {s.m, AQ_MAX(s.n, 1)};
    int longer = size[1] > size[0];
    int64_t pieces = aq_ceil_div(TASKS, s.products);
    int64_t piece = AQ_MAX(aq_ceil_div(size[longer], pieces), LEAST);
    while (piece > LEAST && piece * size[!longer] > MOST)
        piece /= 2;
    blocks[longer] = AQ_MIN(aq_ceil_div(piece, LINE) * LINE, size[longer]);
    blocks[!longer] = size[!longer];
    memcpy(most, size, sizeof size);
    return AQ_COUNT(size);
}
