/* Sizes of blocks: a pure function of shape and target.
 *
 * A task packs its own block of A, so that its columns should be many; strips
 * of B stream from L2 or L3, so that its rows should be many; and there should
 * be tasks enough for any number of threads to end together. */
#include "codegen/contract.h"

enum {
    WANTED_TASKS = 32,
    TASK_FLOPS = 2000000, /* below this a task is not worth sharing out */
    MOST_COLUMNS = 512,
    MOST_ROWS = 96,
    FEW_ROWS = 48,
    MOST_SLICES = 16,
};

static int64_t ceil_div(int64_t a, int64_t b)
{
    return (a + b - 1) / b;
}

static int64_t round_up(int64_t a, int64_t b)
{
    return ceil_div(a, b) * b;
}

/* Equal blocks of at most `most`, each a multiple of `unit`. */
static int64_t even_block(int64_t size, int64_t most, int64_t unit)
{
    most = AQ_MAX(most / unit, 1);
    int64_t units = AQ_MAX(ceil_div(size, unit), 1);
    return ceil_div(units, ceil_div(units, most)) * unit;
}

static int64_t tasks_of(const AqContractShape *s, const AqBlocks *b)
{
    return s->products * ceil_div(s->m, b->rows) * ceil_div(s->n, b->columns) *
           b->slices;
}

static void choose_b_place(const AqContractShape *s, AqBlocks *b)
{
    bool reused = ceil_div(s->m, b->rows) > 1;
    if (s->b_stride && (s->b_stride <= 1024 || !reused))
        b->b_place = AQ_B_IN_PLACE;
    else
        b->b_place = reused ? AQ_B_SHARED : AQ_B_TASK;
}

void aq_contract_choose(const AqContractShape *s, const AqTarget *target,
                        AqBlocks *b)
{
    int rows = aq_tile_rows(target), columns = aq_tile_columns(target);
    double flops = 2.0 * (double)s->products * (double)s->m * (double)s->n *
                   (double)AQ_MAX(s->k, 1);
    int64_t wanted = (int64_t)(flops / TASK_FLOPS);
    wanted = AQ_MAX(AQ_MIN(wanted, WANTED_TASKS), 1);
    *b = (AqBlocks){
        .rows = even_block(round_up(s->m, rows), MOST_ROWS, rows),
        .columns = even_block(round_up(s->n, columns), MOST_COLUMNS, columns),
        .k = even_block(s->k, AQ_KC, 8),
        .slices = 1};
    while (tasks_of(s, b) < wanted && b->columns > 4 * columns)
        b->columns = even_block(s->n, b->columns - columns, columns);
    while (tasks_of(s, b) < wanted && b->rows > FEW_ROWS)
        b->rows = even_block(s->m, b->rows - rows, rows);
    while (tasks_of(s, b) < wanted && b->columns > columns)
        b->columns = even_block(s->n, b->columns - columns, columns);
    int64_t most = AQ_MIN(ceil_div(s->k, 2 * AQ_KC), MOST_SLICES);
    if (tasks_of(s, b) < wanted)
        b->slices = AQ_MAX(AQ_MIN(ceil_div(wanted, tasks_of(s, b)), most), 1);
    choose_b_place(s, b);
}
