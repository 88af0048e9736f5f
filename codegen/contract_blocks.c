/* Sizes of blocks: a pure function of shape and target.
 *
 * All sizes that make sense are tried against a rough model of the cost of a
 * multiply-add, in which only the proportions matter:
 *
 *   traffic   a block of R rows and C columns brings B from beyond L2 once for
 * R rows and A once for C columns (and taps): 1 + 10/R + 10/(C taps) ends at
 * the end of a stage half of four threads wait: 1 + 4 / (2 tasks) tasks each
 * costs about as much as 100 thousand operations slices    sums are written and
 * read again: 1 + 50 slices / k */
#include "codegen/contract.h"

enum {
    MOST_SLICES = 16,
    TASK_OPERATIONS = 100000,
    THREADS = 4, /* assumed, whatever there will be */
};

static int64_t ceil_div(int64_t a, int64_t b)
{
    return (a + b - 1) / b;
}

/* The sums that wait, the strips of B, and some room for A must lie in L2. */
static bool fits(const AqTarget *target, int64_t rows, int64_t columns)
{
    int64_t floats = rows * columns + AQ_KC * columns;
    return 4 * floats <= (int64_t)target->l2 * 5 / 8;
}

static double cost(const AqContractShape *s, const AqBlocks *b)
{
    int64_t blocks = s->products * ceil_div(s->m, b->rows) *
                     ceil_div(s->n, b->columns) * b->slices;
    double tasks = (double)blocks;
    double work = 2.0 * (double)s->products * (double)s->m * (double)s->n *
                  (double)AQ_MAX(s->k, 1);
    double traffic = 1 + 10.0 / (double)AQ_MIN(b->rows, s->m) +
                     10.0 / (double)(AQ_MIN(b->columns, s->n) * s->taps);
    double sums =
        b->slices == 1 ? 0 : 50.0 * (double)b->slices / (double)AQ_MAX(s->k, 1);
    return work * (traffic + sums) * (1 + THREADS / (2 * tasks)) +
           tasks * TASK_OPERATIONS / AQ_MIN(tasks, THREADS);
}

/* The k-th way to cut `count` tiles into equal blocks: so many in each. */
static int64_t block_of(int64_t count, int64_t pieces)
{
    return ceil_div(count, pieces);
}

/* B is best read where it lies, strip by strip, but for rows that are far apart
 * next to an A that is read in place as well.  Transposed, it is packed once
 * for all tasks where there are many. */
static void choose_b_place(const AqContractShape *s, AqBlocks *b)
{
    enum { FAR = 1024, FEW_BLOCKS = 2 };
    bool few = ceil_div(s->m, b->rows) <= FEW_BLOCKS;
    if (s->b_stride && (s->by_rows || s->b_stride <= FAR))
        b->b_place = AQ_B_IN_PLACE;
    else
        b->b_place = few ? AQ_B_TASK : AQ_B_SHARED;
}

void aq_contract_choose(const AqContractShape *s, const AqTarget *target,
                        AqBlocks *best)
{
    int64_t rows = aq_tile_rows(target), columns = aq_tile_columns(target);
    int64_t tiles = s->tiles, strips = AQ_MAX(ceil_div(s->n, columns), 1);
    int64_t slices = AQ_MIN(s->k / (2 * AQ_KC), MOST_SLICES);
    double least = -1;
    for (int64_t i = 1; i <= tiles; i++) {
        AqBlocks b = {.rows = block_of(tiles, i) * rows, .k = AQ_KC};
        if (i > 1 && block_of(tiles, i) == block_of(tiles, i - 1))
            continue;
        for (int64_t j = 1; j <= strips; j++) {
            b.columns = block_of(strips, j) * columns;
            if (!fits(target, b.rows, b.columns) &&
                (b.columns > columns || b.rows > 4 * rows))
                continue;
            for (b.slices = 1; b.slices <= AQ_MAX(slices, 1); b.slices *= 2) {
                double now = cost(s, &b);
                if (least < 0 || now < least) {
                    least = now;
                    *best = b;
                }
            }
        }
    }
    choose_b_place(s, best);
}
