/* The loops of the forward algorithm (and of the input's gradient).  A task
 * brings its tiles into the domain of the transform, where V has for each of 36
 * points a matrix (tiles, channels); multiplies each by the weights' U; and
 * transforms back strip by strip of columns, through the epilogue.
 *
 * V and the sums M of a strip stay in L2; U streams. */
#include "codegen/winograd_forward.h"

#include <string.h>

/* ---- stage: weights into U ---- */

static float *u_panel(const AqWinograd *w, void *const *buffers, int64_t strip,
                      int64_t pass)
{
    return aq_aligned(buffers[w->u_buffer]) + w->u_at +
           (strip * w->passes + pass) * AQ_POINTS * w->u_point;
}

/* Rows k0 .. k1-1 of a strip's pass into U's panels from `to` on. */
static void transform_weights(const AqWinograd *w, void *const *buffers,
                              int64_t strip, int64_t k0, int64_t k1, float *to,
                              float *taps)
{
    const AqPart *p = &w->part;
    const float *matrix =
        w->weights.place == AQ_FIRST
            ? aq_aligned(buffers[w->work_buffer]) + w->weights.at
            : buffers[w->b_buffer];
    int64_t columns = w->packing.columns;
    for (int64_t k = k0; k < k1; k += AQ_WINOGRAD_ROWS) {
        int64_t rows = AQ_MIN(AQ_WINOGRAD_ROWS, k1 - k), tap = rows * columns;
        for (int64_t i = 0; i < AQ_WINOGRAD_TAPS; i++)
            aq_pack_b(&w->packing, p, matrix + p->b_base, strip,
                      i * w->image.channels + k,
                      i * w->image.channels + k + rows, taps + i * tap);
        w->transform_weight(taps, 3 * tap, tap, to + (k - k0) * columns,
                            AQ_PATCH * w->u_point, w->u_point,
                            tap / w->packing.vector);
    }
}

/* A task is a piece of a pass. */
void aq_winograd_weights(const void *closure, void *const *buffers,
                         int64_t first, int64_t last, void *scratch)
{
    const AqWinograd *w = closure;
    int64_t pieces = aq_ceil_div(w->pass, AQ_WINOGRAD_PIECE);
    for (int64_t task = first; task < last; task++) {
        int64_t panel = task / pieces, from = task % pieces * AQ_WINOGRAD_PIECE;
        int64_t strip = panel / w->passes, pass = panel % w->passes;
        int64_t k0 = pass * w->pass, end = k0 + w->pass;
        int64_t k1 = AQ_MIN(k0 + from + AQ_WINOGRAD_PIECE, end);
        transform_weights(
            w, buffers, strip, k0 + from, AQ_MIN(k1, w->image.channels),
            u_panel(w, buffers, strip, pass) + from * w->packing.columns,
            scratch);
    }
}

void aq_winograd_evaluate(const void *closure, void *const *buffers,
                          int64_t first, int64_t last, void *scratch)
{
    const AqWinograd *w = closure;
    (void)scratch;
    for (int64_t task = first; task < last; task++)
        aq_evaluate_first(&w->weights, aq_aligned(buffers[w->work_buffer]),
                          buffers, task);
}

/* ---- tiles into V ---- */

/* A unit's tiles, the first of which is row `at` of V. */
static void transform_unit(const AqWinograd *w, int64_t count, int64_t at,
                           const float *rows, float *v)
{
    int64_t stride = aq_row_floats(&w->image, &w->tiles);
    for (int64_t x = 0; x < count; x++)
        for (int64_t pass = 0; pass < w->passes; pass++) {
            int64_t k0 = pass * w->pass;
            int64_t k = AQ_MIN(w->pass, w->image.channels - k0);
            w->transform_input(rows + x * AQ_TILE * w->image.channels + k0,
                               stride, w->image.channels,
                               v + (pass * w->rows + at + x) * w->row,
                               AQ_PATCH * w->v_point, w->v_point,
                               aq_ceil_div(k, w->packing.vector));
        }
}

/* Units first .. end - 1, whose tiles are rows `at` and on of V; returns where
 * they end. */
static int64_t transform_units(const AqWinograd *w, int64_t first, int64_t end,
                               int64_t at, void *const *buffers, float *rows,
                               float *v)
{
    for (int64_t i = first; i < end; i++) {
        AqUnit unit = aq_tile_unit(&w->tiles, i, first);
        aq_fill_rows(&w->image, &w->tiles, &unit, buffers, rows);
        transform_unit(w, unit.count, at, rows, v);
        at += unit.count;
    }
    return at;
}

static float *shared_v(const AqWinograd *w, void *const *buffers, int64_t block)
{
    return aq_aligned(buffers[w->work_buffer]) + w->v_at +
           block * AQ_POINTS * w->v_point;
}

/* A task is a piece of a column of units, which may lie in several blocks. */
void aq_winograd_tiles(const void *closure, void *const *buffers, int64_t first,
                       int64_t last, void *scratch)
{
    const AqWinograd *w = closure;
    int64_t size = w->tiles.unit_block, down = w->tiles.down;
    for (int64_t task = first; task < last; task++) {
        int64_t top = task / w->pieces * down;
        int64_t i = top + task % w->pieces * w->piece;
        int64_t bottom = AQ_MIN(i + w->piece, top + down);
        while (i < bottom) {
            int64_t block = i / size;
            int64_t end = AQ_MIN((block + 1) * size, bottom);
            transform_units(w, i, end,
                            aq_tiles_between(&w->tiles, block * size, i),
                            buffers, scratch, shared_v(w, buffers, block));
            i = end;
        }
    }
}

/* ---- products ---- */

/* M += V U for one strip and pass of k, all points.  Fetched ahead is
 * what other tasks may have made: the next point's U, or V where U is this
 * task's own. */
static void multiply(const AqWinograd *w, int64_t strip, int64_t pass,
                     int64_t tiles, const float *v, const float *u, float *m)
{
    int64_t k = AQ_MIN(w->pass, w->image.channels - pass * w->pass);
    int64_t columns = w->packing.columns;
    AqMicroFn *const *micros = aq_micros_of(
        &w->micro, w->part.n - strip * columns, columns, w->packing.vector);
    for (int64_t point = 0; point < AQ_POINTS; point++) {
        const float *a = v + point * w->v_point + pass * w->rows * w->row;
        const float *b = u + point * w->u_point;
        const float *ahead = w->share_u ? b + w->u_point : a + w->v_point;
        for (int64_t t = 0; t < tiles; t += w->tile_rows) {
            int height =
                aq_packed_height(AQ_MIN(tiles - t, w->tile_rows), w->tile_rows);
            micros[height](a + t * w->row, b,
                           m + point * w->m_point + t * columns, k, columns,
                           pass > 0, NULL, 0, ahead, AHEAD);
            ahead += k / 2 * AHEAD;
        }
    }
}

/* A strip's sums back to pixels, and through the epilogue. */
static void transform_back(const AqWinograd *w, int64_t block, int64_t strip,
                           void *const *buffers, float *slots, const float *m,
                           float *pixels)
{
    int64_t columns = w->packing.columns, o = strip * columns;
    int64_t n = AQ_MIN(columns, w->part.n - o);
    int64_t first = block * w->tiles.unit_block, t = 0;
    int64_t end = AQ_MIN(first + w->tiles.unit_block, w->tiles.units);
    int64_t line = AQ_TILE * w->tiles.across * columns;
    for (int64_t i = first; i < end; i++) {
        AqUnit unit = aq_tile_unit(&w->tiles, i, first);
        for (int64_t x = 0; x < unit.count; x++)
            w->transform_output(m + (t + x) * columns, AQ_PATCH * w->m_point,
                                w->m_point, pixels + x * AQ_TILE * columns,
                                line, columns,
                                aq_ceil_div(n, w->packing.vector));
        t += unit.count;
        int64_t y0 = unit.y * AQ_TILE, x0 = unit.x * AQ_TILE;
        int64_t rows = AQ_MIN(AQ_TILE * unit.count, w->width - x0);
        for (int64_t y = 0; y < AQ_MIN(AQ_TILE, w->height - y0); y++) {
            int64_t index[AQ_MAX_RANK] = {unit.sample, y0 + y, x0, o};
            aq_store_rows(&w->storing, buffers, pixels + y * line, index, 1,
                          rows, n, slots);
        }
    }
}

/* Blocks fastest: neighbours share their part of U. */
void aq_winograd_run(const void *closure, void *const *buffers, int64_t first,
                     int64_t last, void *scratch)
{
    const AqWinograd *w = closure;
    for (int64_t task = first; task < last; task++) {
        int64_t block = task % w->tiles.blocks;
        int64_t first_unit = block * w->tiles.unit_block;
        int64_t end_unit =
            AQ_MIN(first_unit + w->tiles.unit_block, w->tiles.units);
        int64_t strip0 = task / w->tiles.blocks * w->strip_block;
        int64_t strip1 = AQ_MIN(strip0 + w->strip_block, w->strips);
        float *slots = aq_sums_begin(&w->storing.sums, &w->sums, buffers, block,
                                     strip0, strip1);
        float *m = scratch, *pixels = m + AQ_POINTS * w->m_point;
        float *own_u = pixels + w->pixel_floats;
        float *own_v = own_u + w->own_u_floats;
        const float *v = own_v;
        int64_t tiles;
        if (w->share_v) {
            v = shared_v(w, buffers, block);
            tiles = aq_tiles_between(&w->tiles, first_unit, end_unit);
        } else {
            tiles = transform_units(w, first_unit, end_unit, 0, buffers,
                                    own_v + AQ_POINTS * w->v_point, own_v);
        }
        for (int64_t strip = strip0; strip < strip1; strip++) {
            for (int64_t pass = 0; pass < w->passes; pass++) {
                const float *u = own_u;
                int64_t k0 = pass * w->pass;
                if (w->share_u)
                    u = u_panel(w, buffers, strip, pass);
                else
                    transform_weights(w, buffers, strip, k0,
                                      AQ_MIN(k0 + w->pass, w->image.channels),
                                      own_u, m + w->taps_at);
                multiply(w, strip, pass, tiles, v, u, m);
            }
            transform_back(w, block, strip, buffers, slots, m, pixels);
        }
    }
}
