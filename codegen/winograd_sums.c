/* The loops of the weight gradient: both images into the domain of the
 * transform, once; then a task owns a block of the weights, sums over all tiles
 * for each point, and transforms back. */
#include "codegen/winograd_weight.h"

/* ---- stage: tiles into V and D ---- */

/* The number of a unit's first tile. */
static int64_t tile_number(const AqTiles *t, const AqUnit *unit)
{
    return (unit->sample * t->along + unit->x) * t->down +
           unit->y * unit->count;
}

/* A unit's tiles into panels of `width` channels. */
static void transform_unit(const AqWinogradWeight *w, int which,
                           const AqUnit *unit, const float *rows, float *to,
                           int64_t point, int64_t width)
{
    const AqTileImage *im = &w->image[which];
    int64_t stride = aq_row_floats(im, &w->tiles);
    int64_t tile = tile_number(&w->tiles, unit);
    for (int64_t x = 0; x < unit->count; x++, tile++)
        for (int64_t c = 0; c < im->channels; c += width)
            w->transform[which](
                rows + x * AQ_TILE * im->channels + c, stride, im->channels,
                to + (c / width * w->n_tiles + tile) * width, AQ_PATCH * point,
                point, aq_ceil_div(AQ_MIN(width, im->channels - c), w->vector));
}

void aq_winograd_weight_tiles(const void *closure, void *const *buffers,
                              int64_t first, int64_t last, void *scratch)
{
    const AqWinogradWeight *w = closure;
    float *work = aq_aligned(buffers[w->work_buffer]), *rows = scratch;
    for (int64_t task = first; task < last; task++) {
        int which = (int)(task / w->tiles.blocks);
        int64_t begin = task % w->tiles.blocks * w->tiles.unit_block;
        int64_t end = AQ_MIN(begin + w->tiles.unit_block, w->tiles.units);
        for (int64_t i = begin; i < end; i++) {
            AqUnit unit = aq_tile_unit(&w->tiles, i, begin);
            aq_fill_rows(&w->image[which], &w->tiles, &unit, buffers, rows);
            if (which == AQ_WINOGRAD_X)
                transform_unit(w, which, &unit, rows, work + w->v_at,
                               w->v_point, w->panel);
            else
                transform_unit(w, which, &unit, rows, work + w->d_at,
                               w->d_point, w->columns);
        }
    }
}

/* ---- stage: sums over tiles, and back ---- */

typedef struct Block {
    int64_t row0, row1, strip0, strip1; /* register tiles, strips */
    int64_t slice, tile0, tile1;
    float *slots; /* see aq_sums_begin */
} Block;

static Block block_of(const AqWinogradWeight *w, int64_t task)
{
    int64_t down = aq_ceil_div(w->row_tiles, w->row_block);
    int64_t across = aq_ceil_div(w->strips, w->strip_block);
    int64_t row = task % down * w->row_block;
    int64_t strip = task / down % across * w->strip_block;
    int64_t slice = task / down / across;
    return (Block){.slice = slice,
                   .tile0 = slice * w->slice,
                   .tile1 = AQ_MIN((slice + 1) * w->slice, w->n_tiles),
                   .row0 = row,
                   .row1 = AQ_MIN(row + w->row_block, w->row_tiles),
                   .strip0 = strip,
                   .strip1 = AQ_MIN(strip + w->strip_block, w->strips)};
}

static int64_t rows_of(const AqWinogradWeight *w, int64_t row)
{
    return AQ_MIN(w->tile_rows,
                  w->image[AQ_WINOGRAD_X].channels - row * w->tile_rows);
}

static float *sums_at(const AqWinogradWeight *w, const Block *block, float *m,
                      int64_t row, int64_t strip)
{
    int64_t tile = (strip - block->strip0) * w->row_block + row - block->row0;
    return m + tile * w->tile_rows * w->columns;
}

/* One point, tiles from .. from + count - 1. */
static void add_tiles(const AqWinogradWeight *w, const Block *block,
                      const float *v, const float *d, int64_t from,
                      int64_t count, float *m)
{
    enum { LINE = 16 };
    int64_t a_panel = w->panel / w->tile_rows;
    for (int64_t strip = block->strip0; strip < block->strip1; strip++) {
        const float *b = d + (strip * w->n_tiles + from) * w->columns;
        const float *ahead = b + count * w->columns;
        int64_t left = w->image[AQ_WINOGRAD_DY].channels - strip * w->columns;
        for (int64_t row = block->row0; row < block->row1; row++) {
            const float *a = v +
                             (row / a_panel * w->n_tiles + from) * w->panel +
                             row % a_panel * w->tile_rows;
            AqSegment all = {.count = count};
            int height = aq_packed_height(rows_of(w, row), (int)w->tile_rows);
            AqMicroFn *micro =
                aq_micro_of(&w->micro, left, w->columns, w->vector, height);
            micro(a, b, sums_at(w, block, m, row, strip), w->panel, w->columns,
                  from > block->tile0, &all, 1, ahead, LINE);
            ahead += count / 2 * LINE;
        }
    }
}

/* A register tile's taps through the epilogue. */
static void store_taps(const AqWinogradWeight *w, void *const *buffers,
                       int64_t row, int64_t strip, const float *taps,
                       float *slots)
{
    int64_t floats = w->tile_rows * w->columns, o = strip * w->columns;
    int64_t n = AQ_MIN(w->columns, w->image[AQ_WINOGRAD_DY].channels - o);
    for (int64_t tap = 0; tap < AQ_WINOGRAD_TAPS; tap++) {
        int64_t index[AQ_MAX_RANK] = {tap / 3, tap % 3, row * w->tile_rows, o};
        aq_store_rows(&w->storing, buffers, taps + tap * floats, index, 1,
                      rows_of(w, row), n, slots);
    }
}

/* A slice's taps of a register tile. */
static float *slice_taps(const AqWinogradWeight *w, void *const *buffers,
                         int64_t slice, int64_t row, int64_t strip)
{
    int64_t tile = (slice * w->row_tiles + row) * w->strips + strip;
    return aq_aligned(buffers[w->work_buffer]) + w->sums_at +
           tile * AQ_WINOGRAD_TAPS * w->tile_rows * w->columns;
}

static void transform_back(const AqWinogradWeight *w, const Block *block,
                           void *const *buffers, float *m, float *scratch)
{
    int64_t floats = w->tile_rows * w->columns;
    for (int64_t strip = block->strip0; strip < block->strip1; strip++)
        for (int64_t row = block->row0; row < block->row1; row++) {
            float *taps = scratch;
            if (w->slices > 1)
                taps = slice_taps(w, buffers, block->slice, row, strip);
            w->transform_back(sums_at(w, block, m, row, strip),
                              AQ_PATCH * w->m_point, w->m_point, taps,
                              3 * floats, floats, floats / w->vector);
            if (w->slices == 1)
                store_taps(w, buffers, row, strip, taps, block->slots);
        }
}

void aq_winograd_weight_run(const void *closure, void *const *buffers,
                            int64_t first, int64_t last, void *scratch)
{
    const AqWinogradWeight *w = closure;
    const float *work = aq_aligned(buffers[w->work_buffer]);
    float *m = scratch, *taps = m + AQ_POINTS * w->m_point;
    for (int64_t task = first; task < last; task++) {
        Block block = block_of(w, task);
        if (w->slices == 1)
            block.slots = aq_sums_begin(&w->storing.sums, &w->sums, buffers,
                                        block.row0 / w->row_block, block.strip0,
                                        block.strip1);
        for (int64_t point = 0; point < AQ_POINTS; point++)
            for (int64_t from = block.tile0; from < block.tile1;
                 from += w->pass)
                add_tiles(w, &block, work + w->v_at + point * w->v_point,
                          work + w->d_at + point * w->d_point, from,
                          AQ_MIN(w->pass, block.tile1 - from),
                          m + point * w->m_point);
        transform_back(w, &block, buffers, m, taps);
    }
}

/* ---- stage: slices together, in order ---- */

void aq_winograd_weight_join(const void *closure, void *const *buffers,
                             int64_t first, int64_t last, void *scratch)
{
    const AqWinogradWeight *w = closure;
    int64_t count = AQ_WINOGRAD_TAPS * w->tile_rows * w->columns;
    float *sums = scratch;
    for (int64_t task = first; task < last; task++) {
        int64_t row = task / w->strips, strip = task % w->strips;
        const float *from = slice_taps(w, buffers, 0, row, strip);
        const float *more = slice_taps(w, buffers, 1, row, strip);
        for (int64_t i = 0; i < count; i++)
            sums[i] = from[i] + more[i];
        for (int64_t s = 2; s < w->slices; s++) {
            more = slice_taps(w, buffers, s, row, strip);
            for (int64_t i = 0; i < count; i++)
                sums[i] += more[i];
        }
        store_taps(w, buffers, row, strip, sums,
                   aq_sums_begin(&w->storing.sums, &w->sums, buffers, row,
                                 strip, strip + 1));
    }
}
