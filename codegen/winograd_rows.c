/* Tiles of an image, and their pixels in row buffers: each pixel is read, and
 * what comes before the convolution computed, once for a task; what lies
 * outside of the image becomes zeros, so that all tiles are alike. */
#include "codegen/winograd.h"

#include <string.h>

AqUnit aq_tile_unit(const AqTiles *t, int64_t unit, int64_t first)
{
    int64_t x = unit / t->down % t->segments * t->across;
    return (AqUnit){.sample = unit / t->down / t->segments,
                    .y = unit % t->down,
                    .x = x,
                    .count = AQ_MIN(t->across, t->along - x),
                    .below = unit > first && unit % t->down > 0};
}

int64_t aq_tiles_between(const AqTiles *t, int64_t first, int64_t end)
{
    int64_t tiles = 0;
    for (int64_t unit = first; unit < AQ_MIN(end, t->units); unit++)
        tiles += aq_tile_unit(t, unit, first).count;
    return tiles;
}

static int64_t border(const AqTileImage *im)
{
    return im->patch - AQ_TILE;
}

int64_t aq_row_floats(const AqTileImage *im, const AqTiles *t)
{
    return aq_point_stride((AQ_TILE * t->across + border(im)) * im->channels);
}

int64_t aq_rows_floats(const AqTileImage *im, const AqTiles *t)
{
    enum { BEHIND = 64 }; /* vectors read beyond the last channel */
    return im->patch * aq_row_floats(im, t) + BEHIND;
}

static void zero(float *to, int64_t floats)
{
    memset(to, 0, (size_t)floats * sizeof *to);
}

/* Pixels x0 .. x0 + count - 1 of a line, which may lie outside. */
static void fill_row(const AqTileImage *im, void *const *buffers,
                     int64_t sample, int64_t line, int64_t x0, int64_t count,
                     float *to)
{
    int64_t lo = AQ_MIN(AQ_MAX(-x0, 0), count);
    int64_t hi = AQ_MAX(AQ_MIN(im->width - x0, count), lo);
    if (line < 0 || line >= im->height)
        lo = hi = count;
    zero(to, lo * im->channels);
    zero(to + hi * im->channels, (count - hi) * im->channels);
    if (hi == lo)
        return;
    to += lo * im->channels;
    if (im->evaluate) {
        int64_t index[] = {sample, line, x0 + lo, im->first};
        im->evaluate(buffers, index, to, im->channels, hi - lo, im->channels);
        return;
    }
    const float *from = (const float *)buffers[im->buffer] + im->base +
                        sample * im->sn + line * im->sh + (x0 + lo) * im->sw +
                        im->first;
    if (im->sw == im->channels)
        memcpy(to, from, (size_t)((hi - lo) * im->channels) * sizeof *to);
    else
        im->copy(from, im->sw, to, im->channels, hi - lo, im->channels);
}

void aq_fill_rows(const AqTileImage *im, const AqTiles *t, const AqUnit *unit,
                  void *const *buffers, float *rows)
{
    int64_t stride = aq_row_floats(im, t), first = 0;
    int64_t count = AQ_TILE * unit->count + border(im);
    if (unit->below) {
        first = border(im);
        memcpy(rows, rows + AQ_TILE * stride,
               (size_t)(first * stride) * sizeof *rows);
    }
    for (int64_t r = first; r < im->patch; r++)
        fill_row(im, buffers, unit->sample, unit->y * AQ_TILE + im->top + r,
                 unit->x * AQ_TILE + im->left, count, rows + r * stride);
}
