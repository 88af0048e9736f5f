/* The loops of the weight gradient: a task owns a block of the weights.  Pass
 * by pass it brings some tiles of both images into the domain of the transform
 * and adds their products, for each point; then it transforms back. */
#include "codegen/winograd_weight.h"

/* ---- stage: operands that are evaluated beforehand ---- */

void aq_winograd_weight_first(const void *closure, void *const *buffers,
                              int64_t first, int64_t last, void *scratch)
{
    const AqWinogradWeight *w = closure;
    float *work = aq_aligned(buffers[w->work_buffer]);
    (void)scratch;
    for (int64_t task = first; task < last; task++) {
        int64_t of_x = w->first[AQ_WINOGRAD_X].tasks;
        int which = task < of_x ? AQ_WINOGRAD_X : AQ_WINOGRAD_DY;
        aq_evaluate_first(&w->first[which], work, buffers,
                          which == AQ_WINOGRAD_X ? task : task - of_x);
    }
}

/* ---- tiles into V and D ---- */

typedef struct Block {
    int64_t down, across;               /* its number */
    int64_t row0, row1, strip0, strip1; /* register tiles, strips */
    int64_t slice, pass0, pass1;
    AqTileImage image[AQ_WINOGRAD_IMAGES]; /* its channels */
    float *slots;                          /* see aq_sums_begin */
} Block;

void aq_winograd_channels(const AqWinogradWeight *w, int64_t row0, int64_t row1,
                          int64_t *from, int64_t *to)
{
    *from = row0 * w->tile_rows / w->vector * w->vector;
    *to = AQ_MIN(aq_round_up(row1 * w->tile_rows, w->vector),
                 w->image[AQ_WINOGRAD_X].channels);
}

/* Where an image lies that was evaluated beforehand. */
static int64_t first_base(const AqWinogradWeight *w, int which,
                          void *const *buffers)
{
    float *raw = buffers[w->work_buffer];
    return (float *)aq_aligned(raw) - raw + w->first[which].at;
}

static void take_channels(const AqWinogradWeight *w, Block *block,
                          void *const *buffers)
{
    AqTileImage *x = &block->image[AQ_WINOGRAD_X];
    AqTileImage *dy = &block->image[AQ_WINOGRAD_DY];
    for (int i = 0; i < AQ_WINOGRAD_IMAGES; i++) {
        block->image[i] = w->image[i];
        if (w->first[i].tasks > 0)
            block->image[i].base = first_base(w, i, buffers);
    }
    int64_t end = AQ_MIN(block->strip1 * w->columns, dy->channels);
    dy->first = block->strip0 * w->columns;
    dy->channels = end - dy->first;
    aq_winograd_channels(w, block->row0, block->row1, &x->first, &end);
    x->channels = end - x->first;
}

static int64_t blocks_down(const AqWinogradWeight *w)
{
    return aq_ceil_div(w->row_tiles, w->row_block);
}

static int64_t blocks_across(const AqWinogradWeight *w)
{
    return aq_ceil_div(w->strips, w->strip_block);
}

/* Passes of slice `slice`. */
static Block block_at(const AqWinogradWeight *w, int64_t down, int64_t across,
                      int64_t slice, void *const *buffers)
{
    int64_t row = down * w->row_block, strip = across * w->strip_block;
    Block block = {.down = down,
                   .across = across,
                   .slice = slice,
                   .pass0 = slice * w->slice,
                   .pass1 = AQ_MIN((slice + 1) * w->slice, w->tiles.blocks),
                   .row0 = row,
                   .row1 = AQ_MIN(row + w->row_block, w->row_tiles),
                   .strip0 = strip,
                   .strip1 = AQ_MIN(strip + w->strip_block, w->strips)};
    take_channels(w, &block, buffers);
    return block;
}

/* Pixels that lie `row` and `column` floats apart. */
typedef struct Pixels {
    const float *at;
    int64_t row, column;
} Pixels;

/* A tile, whose number in the pass is `tile`. */
static void transform_x(const AqWinogradWeight *w, int64_t channels,
                        const Pixels *from, int64_t tile, float *v)
{
    w->transform[AQ_WINOGRAD_X](from->at, from->row, from->column,
                                v + tile * w->v_tile, AQ_PATCH * w->v_point,
                                w->v_point, aq_ceil_div(channels, w->vector));
}

static void transform_dy(const AqWinogradWeight *w, int64_t channels,
                         const Pixels *from, int64_t tile, float *d)
{
    for (int64_t c = 0; c < channels; c += w->columns)
        w->transform[AQ_WINOGRAD_DY](
            from->at + c, from->row, from->column,
            d + c / w->columns * w->d_strip + tile * w->d_row,
            AQ_PATCH * w->d_point, w->d_point,
            aq_ceil_div(AQ_MIN(w->columns, channels - c), w->vector));
}

/* Whether tiles are read where the image lies: they are whole, and so are
 * vectors. */
static bool lies_in_tiles(const AqWinogradWeight *w, const AqTileImage *im)
{
    return !im->evaluate && im->patch == AQ_TILE && im->height % AQ_TILE == 0 &&
           im->width % AQ_TILE == 0 && im->channels % w->vector == 0;
}

static Pixels unit_pixels(const AqWinogradWeight *w, const AqTileImage *im,
                          const AqUnit *unit, void *const *buffers, float *rows)
{
    if (lies_in_tiles(w, im))
        return (Pixels){.at = (const float *)buffers[im->buffer] + im->base +
                              unit->sample * im->sn +
                              unit->y * AQ_TILE * im->sh +
                              unit->x * AQ_TILE * im->sw + im->first,
                        .row = im->sh,
                        .column = im->sw};
    aq_fill_rows(im, &w->tiles, unit, buffers, rows);
    return (Pixels){.at = rows,
                    .row = aq_row_floats(im, &w->tiles),
                    .column = im->channels};
}

/* All tiles of a pass. */
static void transform_pass(const AqWinogradWeight *w, const Block *block,
                           int which, int64_t pass, void *const *buffers,
                           float *rows, float *to)
{
    const AqTileImage *im = &block->image[which];
    int64_t first = pass * w->tiles.unit_block, tile = 0;
    int64_t end = AQ_MIN(first + w->tiles.unit_block, w->tiles.units);
    for (int64_t i = first; i < end; i++) {
        AqUnit unit = aq_tile_unit(&w->tiles, i, first);
        Pixels from = unit_pixels(w, im, &unit, buffers, rows);
        for (int64_t x = 0; x < unit.count; x++, tile++) {
            if (which == AQ_WINOGRAD_X)
                transform_x(w, im->channels, &from, tile, to);
            else
                transform_dy(w, im->channels, &from, tile, to);
            from.at += AQ_TILE * from.column;
        }
    }
}

static float *v_of(const AqWinogradWeight *w, const Block *block, int64_t pass,
                   float *room)
{
    int64_t number = block->down * w->tiles.blocks + pass;
    return room + w->v_at + (w->shared ? number * w->v_pass : 0);
}

static float *d_of(const AqWinogradWeight *w, const Block *block, int64_t pass,
                   float *room)
{
    int64_t number = block->across * w->tiles.blocks + pass;
    return room + w->d_at + (w->shared ? number * w->d_pass : 0);
}

/* A task is a pass of a row of blocks, for V, or of a column, for D. */
void aq_winograd_weight_tiles(const void *closure, void *const *buffers,
                              int64_t first, int64_t last, void *scratch)
{
    const AqWinogradWeight *w = closure;
    float *work = aq_aligned(buffers[w->work_buffer]);
    for (int64_t task = first; task < last; task++) {
        int64_t pass = task % w->tiles.blocks, number = task / w->tiles.blocks;
        int64_t across = number - blocks_down(w);
        Block block =
            block_at(w, across < 0 ? number : 0, AQ_MAX(across, 0), 0, buffers);
        if (across < 0)
            transform_pass(w, &block, AQ_WINOGRAD_X, pass, buffers, scratch,
                           v_of(w, &block, pass, work));
        else
            transform_pass(w, &block, AQ_WINOGRAD_DY, pass, buffers, scratch,
                           d_of(w, &block, pass, work));
    }
}

/* The pixels of a pass, to be fetched while another computes. */
static AqFuture pixels_ahead(const AqWinogradWeight *w, const Block *block,
                             int which, int64_t pass, void *const *buffers)
{
    const AqTileImage *im = &block->image[which];
    if (pass >= block->pass1 || im->evaluate || w->tiles.segments > 1 ||
        im->sh != im->width * im->sw || im->sn != im->height * im->sh)
        return (AqFuture){.rows = 0};
    int64_t first = pass * w->tiles.unit_block;
    int64_t last = AQ_MIN(first + w->tiles.unit_block, w->tiles.units) - 1;
    AqUnit a = aq_tile_unit(&w->tiles, first, first);
    AqUnit b = aq_tile_unit(&w->tiles, last, first);
    int64_t from = a.sample * im->height + a.y * AQ_TILE;
    int64_t to =
        b.sample * im->height + AQ_MIN((b.y + 1) * AQ_TILE, im->height);
    return (AqFuture){.from = (const float *)buffers[im->buffer] + im->base +
                              from * im->sh + im->first,
                      .rows = (to - from) * im->width,
                      .row_stride = im->sw,
                      .strips = 1,
                      .strip_floats = im->channels};
}

/* ---- sums over tiles ---- */

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

/* One point of a pass over so many tiles. */
static void add_tiles(const AqWinogradWeight *w, const Block *block,
                      const float *v, const float *d, float *m, int64_t tiles,
                      bool more, AqAhead *ahead)
{
    int64_t channels = w->image[AQ_WINOGRAD_X].channels;
    int64_t first = block->image[AQ_WINOGRAD_X].first;
    int64_t rows = w->tile_rows;
    AqSegment all = {.count = tiles};
    for (int64_t strip = block->strip0; strip < block->strip1; strip++) {
        const float *b = d + (strip - block->strip0) * w->d_strip;
        int64_t left = w->image[AQ_WINOGRAD_DY].channels - strip * w->columns;
        AqMicroFn *const *micros =
            aq_micros_of(&w->micro, left, w->columns, w->vector);
        float *sums = sums_at(w, block, m, block->row0, strip);
        for (int64_t row = block->row0; row < block->row1; row++) {
            int64_t c = row * rows;
            int height =
                aq_packed_height(AQ_MIN(rows, channels - c), (int)rows);
            AqLines lines = aq_lines_ahead(ahead, b);
            micros[height](v + c - first, b, sums, w->v_tile, w->d_row, more,
                           &all, 1, lines.from, lines.stride);
            sums += rows * w->columns;
        }
    }
}

/* ---- stage: sums, and back ---- */

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
                           void *const *buffers, float *m)
{
    int64_t floats = w->tile_rows * w->columns;
    for (int64_t strip = block->strip0; strip < block->strip1; strip++)
        for (int64_t row = block->row0; row < block->row1; row++) {
            float *taps = m + w->taps_at;
            if (w->slices > 1)
                taps = slice_taps(w, buffers, block->slice, row, strip);
            w->transform_back(sums_at(w, block, m, row, strip),
                              AQ_PATCH * w->m_point, w->m_point, taps,
                              3 * floats, floats, floats / w->vector);
            if (w->slices == 1)
                store_taps(w, buffers, row, strip, taps, block->slots);
        }
}

/* V and D of a point, to be fetched while the one before it computes. */
static AqAhead point_ahead(const AqWinogradWeight *w, const Block *block,
                           const float *v, const float *d, int64_t tiles)
{
    AqFuture of_d = {.from = d,
                     .rows = tiles,
                     .row_stride = w->d_row,
                     .strips = block->strip1 - block->strip0,
                     .strip_stride = w->d_strip,
                     .strip_floats = w->d_row};
    AqFuture of_v = {.from = v,
                     .rows = tiles,
                     .row_stride = w->v_tile,
                     .strips = 1,
                     .strip_floats = block->image[AQ_WINOGRAD_X].channels};
    return (AqAhead){.lines = tiles / 2, .b = of_d, .a = of_v};
}

static void run_shared(const AqWinogradWeight *w, const Block *block,
                       int64_t pass, int64_t tiles, void *const *buffers,
                       float *m)
{
    float *work = aq_aligned(buffers[w->work_buffer]);
    const float *v = v_of(w, block, pass, work);
    const float *d = d_of(w, block, pass, work);
    for (int64_t i = 0; i < AQ_POINTS; i++) {
        AqAhead ahead = {.lines = 0};
        if (i + 1 < AQ_POINTS)
            ahead =
                point_ahead(w, block, v + w->v_point, d + w->d_point, tiles);
        add_tiles(w, block, v, d, m, tiles, pass > block->pass0, &ahead);
        v += w->v_point;
        d += w->d_point;
        m += w->m_point;
    }
}

static void run_own(const AqWinogradWeight *w, const Block *block, int64_t pass,
                    int64_t tiles, void *const *buffers, float *m)
{
    float *v = v_of(w, block, pass, m), *d = d_of(w, block, pass, m);
    float *rows = m + w->rows_at;
    transform_pass(w, block, AQ_WINOGRAD_X, pass, buffers, rows, v);
    transform_pass(w, block, AQ_WINOGRAD_DY, pass, buffers, rows, d);
    AqAhead ahead = {
        .lines = tiles / 2,
        .b = pixels_ahead(w, block, AQ_WINOGRAD_DY, pass + 1, buffers),
        .a = pixels_ahead(w, block, AQ_WINOGRAD_X, pass + 1, buffers)};
    for (int64_t i = 0; i < AQ_POINTS; i++)
        add_tiles(w, block, v + i * w->v_point, d + i * w->d_point,
                  m + i * w->m_point, tiles, pass > block->pass0, &ahead);
}

static void run_pass(const AqWinogradWeight *w, const Block *block,
                     int64_t pass, void *const *buffers, float *scratch)
{
    int64_t first = pass * w->tiles.unit_block;
    int64_t tiles =
        aq_tiles_between(&w->tiles, first, first + w->tiles.unit_block);
    if (w->shared)
        run_shared(w, block, pass, tiles, buffers, scratch);
    else
        run_own(w, block, pass, tiles, buffers, scratch);
}

void aq_winograd_weight_run(const void *closure, void *const *buffers,
                            int64_t first, int64_t last, void *scratch)
{
    const AqWinogradWeight *w = closure;
    int64_t down = blocks_down(w), across = blocks_across(w);
    for (int64_t task = first; task < last; task++) {
        Block block = block_at(w, task % down, task / down % across,
                               task / down / across, buffers);
        if (w->slices == 1)
            block.slots = aq_sums_begin(&w->storing.sums, &w->sums, buffers,
                                        block.down, block.strip0, block.strip1);
        for (int64_t pass = block.pass0; pass < block.pass1; pass++)
            run_pass(w, &block, pass, buffers, scratch);
        transform_back(w, &block, buffers, scratch);
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
