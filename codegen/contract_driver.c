/* The loops around the register tile.  A task is a block of the result: `rows`
 * by `columns`, all k of its slice.  Per pass over k and tile of rows, A's part
 * is brought into a panel (L1) or found as segments of memory, then meets all
 * strips of B, which stream from L2; sums wait in a buffer of tiles.
 *
 * Which numbers are added in which order depends on the closure alone. */
#include "codegen/contract.h"

#include <string.h>

typedef AqContractTask Task;

static int64_t tile_floats(const AqContraction *c)
{
    return (int64_t)c->tile_rows * c->tile_columns;
}

const float *aq_contract_operand(const AqContraction *c, void *const *buffers,
                                 int which)
{
    if (c->operand[which].place == AQ_FIRST)
        return aq_workspace(c, buffers) + c->operand[which].at;
    if (c->operand[which].place != AQ_LIES)
        return NULL;
    return buffers[which == 0 ? c->a_buffer : c->b_buffer];
}

static const float *image_of(const AqContraction *c, const AqPart *p,
                             void *const *buffers, int64_t batch)
{
    const float *from = aq_contract_operand(c, buffers, 0);
    return from ? from + p->a_base + aq_batch_offset(c, c->a_batch, batch)
                : NULL;
}

static const float *matrix_of(const AqContraction *c, const AqPart *p,
                              void *const *buffers, int64_t batch)
{
    const float *from = aq_contract_operand(c, buffers, 1);
    return from ? from + p->b_base + aq_batch_offset(c, c->b_batch, batch)
                : NULL;
}

/* ---- stage: B into strips ---- */

float *aq_packed_strip(const AqContraction *c, const AqPart *p,
                       void *const *buffers, int64_t batch, int64_t strip)
{
    float *room = c->kept_buffer < 0 ? aq_workspace(c, buffers)
                                     : aq_aligned(buffers[c->kept_buffer]);
    return room + p->packed +
           (batch * c->strips + strip) * aq_strip_floats(c, p->k);
}

void aq_contract_pack(const void *closure, void *const *buffers, int64_t first,
                      int64_t last, void *scratch)
{
    const AqContraction *c = closure;
    float *whole = (float *)scratch + c->whole_at;
    int64_t start = 0;
    for (const AqPart *p = c->parts; p < c->parts + c->n_parts; p++) {
        int64_t pieces = aq_ceil_div(p->k, AQ_PACK_K);
        int64_t tasks = c->batches * c->strips * pieces;
        for (int64_t task = AQ_MAX(first - start, 0);
             task < AQ_MIN(last - start, tasks); task++) {
            int64_t k0 = task % pieces * AQ_PACK_K;
            int64_t strip = task / pieces % c->strips;
            int64_t batch = task / pieces / c->strips;
            aq_pack_strip(c, p, matrix_of(c, p, buffers, batch), strip, k0,
                          AQ_MIN(k0 + AQ_PACK_K, p->k), whole,
                          aq_packed_strip(c, p, buffers, batch, strip) +
                              aq_strip_floats(c, k0));
        }
        start += tasks;
    }
}

/* ---- stage: the products ---- */

/* Tasks of a part, all batches; `slices` is 1 where they are joined. */
static int64_t part_tasks(const AqContraction *c, const AqPart *p,
                          int64_t slices)
{
    return c->batches * slices * aq_ceil_div(p->tiles, c->tile_block) *
           aq_ceil_div(c->strips, c->strip_block);
}

/* Rows fastest: neighbours share their strips of B. */
static Task task_at(const AqContraction *c, int64_t task, int64_t slices)
{
    const AqPart *p = c->parts;
    while (task >= part_tasks(c, p, slices))
        task -= part_tasks(c, p++, slices);
    int64_t blocks = aq_ceil_div(p->tiles, c->tile_block);
    int64_t across = aq_ceil_div(c->strips, c->strip_block);
    int64_t tile = task % blocks * c->tile_block;
    int64_t strip = task / blocks % across * c->strip_block;
    int64_t rest = task / blocks / across;
    return (Task){.part = p,
                  .slice = rest % slices,
                  .batch = rest / slices,
                  .tile0 = tile,
                  .tile1 = AQ_MIN(tile + c->tile_block, p->tiles),
                  .strip0 = strip,
                  .strip1 = AQ_MIN(strip + c->strip_block, c->strips)};
}

static void begin_sums(const AqContraction *c, Task *t, void *const *buffers)
{
    t->slots = aq_sums_begin(&c->storing.sums, &t->part->sums, buffers,
                             t->tile0 / c->tile_block, t->strip0, t->strip1);
}

static float *partial_tile(const AqContraction *c, const Task *t,
                           void *const *buffers, int64_t slice, int64_t tile,
                           int64_t strip)
{
    const AqPart *p = t->part;
    int64_t at = (t->batch * c->strips + strip) * p->tiles + tile;
    return aq_workspace(c, buffers) + p->partial + slice * c->partial_floats +
           at * tile_floats(c);
}

/* One pass over k of a task's block. */
typedef struct Pass {
    const AqContraction *c;
    const Task *task;
    void *const *buffers;
    const float *image, *matrix;
    float *panel, *sums, *room, *window, *split, *whole;
    int64_t k0, k1;
    bool first, last;
    AqAhead ahead;
} Pass;

static bool in_place(const AqContraction *c, const AqPart *p, int64_t strip)
{
    return c->b_place == AQ_B_IN_PLACE && (strip + 1) * c->tile_columns <= p->n;
}

/* ---- operands that are expressions ---- */

/* Row and column of the operand where a part's batch begins. */
static int64_t begin_row(const AqOperand *operand, int64_t offset,
                         int64_t *column)
{
    *column = offset % operand->width;
    return offset / operand->width;
}

static void evaluate_strip(const Pass *pass, int64_t strip, float *room)
{
    const AqContraction *c = pass->c;
    const AqPart *p = pass->task->part;
    int64_t offset =
        p->b_base + aq_batch_offset(c, c->b_batch, pass->task->batch);
    int64_t column, row = begin_row(&c->operand[1], offset, &column);
    int64_t n = strip * c->tile_columns, terms = pass->k1 - pass->k0;
    int64_t columns = AQ_MIN(c->tile_columns, p->n - n);
    float *to = c->split ? pass->whole : room;
    aq_evaluate_rows(&c->operand[1], pass->buffers, row + pass->k0, terms,
                     column + n, columns, to, c->tile_columns);
    if (c->split)
        c->splitting.strip(to, c->tile_columns, room, terms, columns);
}

static void evaluate_tile(const Pass *pass, int64_t tile)
{
    const AqContraction *c = pass->c;
    const AqPart *p = pass->task->part;
    int64_t offset =
        p->a_base + aq_batch_offset(c, c->a_batch, pass->task->batch);
    int64_t column, row = begin_row(&c->operand[0], offset, &column);
    int64_t m = tile * c->tile_rows;
    if (pass->k1 > pass->k0)
        aq_evaluate_rows(&c->operand[0], pass->buffers, row + m,
                         AQ_MIN(c->tile_rows, p->m - m), column + pass->k0,
                         pass->k1 - pass->k0, pass->panel, c->row);
}

/* The rows of the image that the points m0 .. m1-1 read become the image; its
 * strides are those of the window. */
static void evaluate_window(Pass *pass, AqImageGrid *im, int64_t m0, int64_t m1)
{
    const AqContraction *c = pass->c;
    const Task *t = pass->task;
    int64_t offset = t->part->a_base + aq_batch_offset(c, c->a_batch, t->batch);
    int64_t column, row = begin_row(&c->operand[0], offset, &column);
    int64_t from, to, c0, c1;
    if (m0 >= m1 || im->th * im->tw == 0)
        return;
    aq_image_rows(im, m0, m1, &from, &to);
    aq_window_columns(c, t->part, t->batch, t->tile0, t->tile1, &c0, &c1);
    im->sw = c1 - c0;
    im->sh = im->width * im->sw;
    im->sn = im->height * im->sh;
    aq_evaluate_rows(&c->operand[0], pass->buffers, row + from, to - from, c0,
                     im->sw, pass->window, im->sw);
    pass->image = pass->window - from * im->sw + column - c0;
}

/* Packs the strips that are neither packed for all tasks nor read in place. */
static void pack_room(const Pass *pass)
{
    const AqContraction *c = pass->c;
    float *room = pass->room;
    if (c->b_place == AQ_B_SHARED)
        return;
    for (int64_t strip = pass->task->strip0; strip < pass->task->strip1;
         strip++) {
        if (in_place(c, pass->task->part, strip))
            continue;
        if (c->operand[1].place == AQ_IN_PANEL)
            evaluate_strip(pass, strip, room);
        else
            aq_pack_strip(c, pass->task->part, pass->matrix, strip, pass->k0,
                          pass->k1, pass->whole, room);
        room += aq_strip_floats(c, c->most_k);
    }
}

/* A strip's rows from k0 on, and how far apart they lie. */
static const float *strip_at(const Pass *pass, int64_t strip, int64_t *stride)
{
    const AqContraction *c = pass->c;
    const AqPart *p = pass->task->part;
    *stride = c->tile_columns;
    if (c->b_place == AQ_B_SHARED)
        return aq_packed_strip(c, p, pass->buffers, pass->task->batch, strip) +
               aq_strip_floats(c, pass->k0);
    if (in_place(c, p, strip)) {
        *stride = p->b_j;
        return pass->matrix + pass->k0 * p->b_j + strip * c->tile_columns;
    }
    if (c->b_place == AQ_B_IN_PLACE) /* the last one alone is packed */
        return pass->room;
    return pass->room +
           (strip - pass->task->strip0) * aq_strip_floats(c, c->most_k);
}

/* Where a tile's sums wait between passes. */
static float *sums_at(const Pass *pass, int64_t tile, int64_t strip)
{
    const AqContraction *c = pass->c;
    const Task *t = pass->task;
    if (c->slices > 1)
        return partial_tile(c, t, pass->buffers, t->slice, tile, strip);
    if (pass->first && pass->last)
        return pass->sums;
    return pass->sums +
           ((tile - t->tile0) * c->strip_block + strip - t->strip0) *
               tile_floats(c);
}

/* The tile's rows, c->row floats apart, as the register tile reads them. */
static const float *tile_rows(const Pass *pass, int64_t tile, const float *rows)
{
    const AqContraction *c = pass->c;
    if (!c->split)
        return rows;
    c->splitting.rows(rows, c->row, pass->split, c->split_row,
                      aq_rows_of(c, pass->task->part, tile),
                      pass->k1 - pass->k0);
    return pass->split;
}

/* All strips of a tile whose A lies in the panel, or in the segments. */
static void run_tile(Pass *pass, int64_t tile, const float *a,
                     const AqSegments *segments)
{
    const AqContraction *c = pass->c;
    const AqPart *p = pass->task->part;
    bool stored = pass->last && c->slices == 1;
    AqTilePlace place = {.rows = aq_rows_of(c, p, tile)};
    int height = aq_tile_height(c, place.rows);
    if (stored)
        place = aq_tile_place(c, pass->task, tile);
    for (int64_t strip = pass->task->strip0; strip < pass->task->strip1;
         strip++) {
        int64_t stride, left = p->n - strip * c->tile_columns;
        const float *b = strip_at(pass, strip, &stride);
        AqLines lines = aq_lines_ahead(&pass->ahead, b);
        float *sums = sums_at(pass, tile, strip);
        AqMicroFn *micro =
            aq_micros_of(&c->micro, left, c->tile_columns, c->vector)[height];
        if (segments)
            micro(a, b, sums, segments->stride, stride, !pass->first,
                  segments->at, segments->count, lines.from, lines.stride);
        else
            micro(a, b, sums, pass->k1 - pass->k0, stride, !pass->first, NULL,
                  0, lines.from, lines.stride);
        if (stored)
            aq_store_tile(c, pass->task, place, strip, pass->buffers, sums);
    }
}

/* The segments that a tile's tap sees in this pass: found for all taps at once,
 * unless they are too many to keep. */
static AqSegments *segments_of(const Pass *pass, int64_t tap, bool keep)
{
    const AqContraction *c = pass->c;
    AqSegments *lists = (AqSegments *)pass->panel;
    AqSegment *room = (AqSegment *)(lists + c->tap_lists);
    AqSegments *list = lists + (keep ? tap : 0);
    list->at = room + (list - lists) * AQ_KC;
    aq_find_segments(pass->task->part, tap, pass->k0, pass->k1, list);
    return list;
}

/* Form "k", tiles whose A is copied, some rows at a time. */
static void run_turned(Pass *pass)
{
    const AqContraction *c = pass->c;
    const AqPart *p = pass->task->part;
    float *rows = pass->panel;
    int64_t tiles = c->turned_rows / c->tile_rows;
    int64_t stride = p->a.sw;
    for (int64_t first = pass->task->tile0; first < pass->task->tile1;
         first += tiles) {
        int64_t end = AQ_MIN(first + tiles, pass->task->tile1);
        int64_t row = first * c->tile_rows;
        aq_turn_rows(c, pass->image + pass->k0 * stride + row, stride,
                     pass->k1 - pass->k0, AQ_MIN(c->turned_rows, p->m - row),
                     rows);
        for (int64_t tile = first; tile < end; tile++) {
            float *from = rows + (tile - first) * c->tile_rows * c->row;
            run_tile(pass, tile, tile_rows(pass, tile, from), NULL);
        }
    }
}

static void run_pass(Pass *pass)
{
    const AqContraction *c = pass->c;
    const AqPart *p = pass->task->part;
    if (c->turned) {
        pack_room(pass);
        run_turned(pass);
        return;
    }
    AqSegments *lists = (AqSegments *)pass->panel;
    bool keep = c->tap_lists == p->groups;
    pack_room(pass);
    for (int64_t tap = 0; c->panel == AQ_PANEL_K && keep && tap < p->groups;
         tap++)
        segments_of(pass, tap, keep);
    for (int64_t tile = pass->task->tile0; tile < pass->task->tile1; tile++) {
        if (c->panel == AQ_PANEL_K) {
            int64_t tap = tile % p->groups;
            run_tile(pass, tile, pass->image + aq_row_in_group(c, p, tile),
                     keep ? lists + tap : segments_of(pass, tap, keep));
            continue;
        }
        if (c->operand[0].place == AQ_IN_PANEL)
            evaluate_tile(pass, tile);
        else
            aq_pack_rows(c, p, pass->image, tile, pass->k0, pass->k1,
                         pass->panel);
        run_tile(pass, tile, tile_rows(pass, tile, pass->panel), NULL);
    }
}

/* The terms of a task's pass: none where its slice is empty. */
static void pass_terms(const AqContraction *c, const Task *t, int64_t pass,
                       int64_t *k0, int64_t *k1)
{
    const AqPart *p = t->part;
    int64_t from = p->passes * t->slice / c->slices;
    int64_t to = p->passes * (t->slice + 1) / c->slices;
    int64_t end = from < to ? p->k : 0;
    *k0 = AQ_MIN((from + pass) * p->pass, end);
    *k1 = AQ_MIN(*k0 + p->pass, end);
}

/* What pass `number` of that task, if there is one, will read. */
static void look_ahead(Pass *pass, const Task *t, int64_t number)
{
    int64_t k0, k1;
    pass->ahead = (AqAhead){.lines = 0};
    if (!t)
        return;
    pass_terms(pass->c, t, number, &k0, &k1);
    pass->ahead = aq_look_ahead(pass->c, t, pass->buffers, k0, k1);
    pass->ahead.lines = (pass->k1 - pass->k0) / (pass->c->split ? 1 : 2);
}

static void run_task(const AqContraction *c, const Task *task, const Task *next,
                     void *const *buffers, float *scratch)
{
    AqPart part = *task->part; /* a window has strides of its own */
    Task t = *task;
    const AqPart *p = t.part = &part;
    bool window = c->operand[0].place == AQ_IN_WINDOW;
    Pass pass = {.c = c,
                 .task = &t,
                 .buffers = buffers,
                 .image = image_of(c, p, buffers, t.batch),
                 .matrix = matrix_of(c, p, buffers, t.batch),
                 .panel = scratch,
                 .sums = scratch + c->panel_floats,
                 .room = scratch + c->panel_floats + c->sums_floats,
                 .window = scratch + c->window,
                 .split = scratch + c->split_at,
                 .whole = scratch + c->whole_at};
    if (window && c->panel == AQ_PANEL_ROWS)
        evaluate_window(&pass, &part.a, t.tile0 * c->tile_rows,
                        AQ_MIN(t.tile1 * c->tile_rows, p->m));
    int64_t passes =
        p->passes * (t.slice + 1) / c->slices - p->passes * t.slice / c->slices;
    passes = AQ_MAX(passes, 1); /* a slice may be empty */
    for (int64_t k = 0; k < passes; k++) {
        pass_terms(c, &t, k, &pass.k0, &pass.k1);
        pass.first = k == 0;
        pass.last = k + 1 == passes;
        if (window && c->panel == AQ_PANEL_K)
            evaluate_window(&pass, &part.a, pass.k0, pass.k1);
        look_ahead(&pass, pass.last ? next : task, pass.last ? 0 : k + 1);
        run_pass(&pass);
    }
}

void aq_contract_run(const void *closure, void *const *buffers, int64_t first,
                     int64_t last, void *scratch)
{
    const AqContraction *c = closure;
    Task next = task_at(c, first, c->slices);
    for (int64_t i = first; i < last; i++) {
        Task task = next;
        if (i + 1 < last)
            next = task_at(c, i + 1, c->slices);
        if (c->slices == 1)
            begin_sums(c, &task, buffers);
        run_task(c, &task, i + 1 < last ? &next : NULL, buffers, scratch);
    }
}

/* ---- stage: slices of k together, in order ---- */

void aq_contract_reduce(const void *closure, void *const *buffers,
                        int64_t first, int64_t last, void *scratch)
{
    const AqContraction *c = closure;
    float *sums = scratch;
    for (int64_t task = first; task < last; task++) {
        Task t = task_at(c, task, 1);
        begin_sums(c, &t, buffers);
        for (int64_t tile = t.tile0; tile < t.tile1; tile++) {
            AqTilePlace place = aq_tile_place(c, &t, tile);
            for (int64_t strip = t.strip0; strip < t.strip1; strip++) {
                memcpy(sums, partial_tile(c, &t, buffers, 0, tile, strip),
                       (size_t)tile_floats(c) * sizeof *sums);
                for (int64_t s = 1; s < c->slices; s++) {
                    const float *more =
                        partial_tile(c, &t, buffers, s, tile, strip);
                    for (int64_t i = 0; i < tile_floats(c); i++)
                        sums[i] += more[i];
                }
                aq_store_tile(c, &t, place, strip, buffers, sums);
            }
        }
    }
}
