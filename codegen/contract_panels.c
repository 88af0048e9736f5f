/* Operands into panels.  An image is read in runs: grid points of one image row
 * times channels of the taps that lie side by side in memory; what falls
 * outside the image becomes zeros. */
#include "codegen/contract.h"

#include <string.h>

/* Grid points of one row: (n, y, x .. x + length - 1). */
typedef struct Run {
    int64_t n, y, x, length;
} Run;

/* Channels j0 .. j1-1 of the joined taps from (ty, tx) on. */
typedef struct Taps {
    int64_t ty, tx, j0, j1;
} Taps;

static Run run_at(const AqImageGrid *im, int64_t point, int64_t end)
{
    int64_t row = point / im->grid_w, x = point % im->grid_w;
    return (Run){.n = row / im->grid_h,
                 .y = row % im->grid_h,
                 .x = x,
                 .length = AQ_MIN(end - point, im->grid_w - x)};
}

static void zero(float *to, int64_t stride, int64_t rows, int64_t count)
{
    for (int64_t r = 0; r < rows; r++)
        memset(to + r * stride, 0, (size_t)count * sizeof *to);
}

static int64_t clamp(int64_t value, int64_t lo, int64_t hi)
{
    return AQ_MAX(lo, AQ_MIN(value, hi));
}

/* One grid point whose taps lie partly outside. */
static void copy_edge(const AqImageGrid *im, const float *row, int64_t x,
                      const Taps *taps, float *to)
{
    int64_t column = x * im->mx + im->ox + taps->tx * im->dx;
    int64_t c = im->channels;
    int64_t count = taps->j1 - taps->j0;
    int64_t from = clamp(-column * c - taps->j0, 0, count);
    int64_t end = clamp((im->width - column) * c - taps->j0, from, count);
    memset(to, 0, (size_t)from * sizeof *to);
    if (end > from)
        memcpy(to + from, row + column * im->sw + taps->j0 + from,
               (size_t)(end - from) * sizeof *to);
    memset(to + end, 0, (size_t)(count - end) * sizeof *to);
}

/* lo .. hi-1: points of the run all of whose joined taps are inside. */
static void interior(const AqImageGrid *im, const Run *run, int64_t tx,
                     int64_t *lo, int64_t *hi)
{
    int64_t first = im->ox + tx * im->dx;
    int64_t last = first + (im->joined - 1) * im->dx;
    int64_t end = run->x + run->length;
    *lo = clamp(aq_ceil_div(-first, im->mx), run->x, end);
    *hi = clamp(aq_ceil_div(im->width - last, im->mx), *lo, end);
}

static void copy_run(const AqContraction *c, const AqImageGrid *im,
                     const float *image, const Run *run, const Taps *taps,
                     float *to)
{
    int64_t count = taps->j1 - taps->j0, lo, hi;
    int64_t line = run->y * im->my + im->oy + taps->ty * im->dy;
    if (line < 0 || line >= im->height) {
        zero(to, c->row, run->length, count);
        return;
    }
    const float *row = image + run->n * im->sn + line * im->sh;
    interior(im, run, taps->tx, &lo, &hi);
    for (int64_t x = run->x; x < lo; x++)
        copy_edge(im, row, x, taps, to + (x - run->x) * c->row);
    if (hi > lo)
        c->storing.copy(
            row + (lo * im->mx + im->ox + taps->tx * im->dx) * im->sw +
                taps->j0,
            im->mx * im->sw, to + (lo - run->x) * c->row, c->row, hi - lo,
            count);
    for (int64_t x = hi; x < run->x + run->length; x++)
        copy_edge(im, row, x, taps, to + (x - run->x) * c->row);
}

void aq_pack_rows(const AqContraction *c, const AqPart *p, const float *image,
                  int64_t tile, int64_t k0, int64_t k1, float *panel)
{
    const AqImageGrid *im = &p->a;
    int64_t size = im->joined * im->channels; /* of a group of joined taps */
    int64_t across = im->tw / im->joined;
    int64_t m0 = tile * c->tile_rows, m1 = AQ_MIN(m0 + c->tile_rows, p->m);
    for (int64_t m = m0; m < m1 && k0 < k1;) {
        Run run = run_at(im, m, m1);
        for (int64_t group = k0 / size; group * size < k1; group++) {
            int64_t start = group * size;
            Taps taps = {.ty = group / across,
                         .tx = group % across * im->joined,
                         .j0 = AQ_MAX(k0 - start, 0),
                         .j1 = AQ_MIN(k1 - start, size)};
            copy_run(c, im, image, &run, &taps,
                     panel + (m - m0) * c->row + start + taps.j0 - k0);
        }
        m += run.length;
    }
}

/* One more segment, or the last one longer where memory and k go on. */
static void add_segment(AqSegments *segments, AqSegment next)
{
    AqSegment *last = segments->at + segments->count;
    if (segments->count > 0) {
        last--;
        if (last->k + last->count == next.k &&
            last->a + last->count * segments->stride == next.a) {
            last->count += next.count;
            return;
        }
    }
    segments->at[segments->count++] = next;
}

void aq_find_segments(const AqPart *p, int64_t tap, int64_t k0, int64_t k1,
                      AqSegments *segments)
{
    const AqImageGrid *im = &p->a;
    int64_t ty = tap / im->tw, tx = tap % im->tw;
    segments->count = 0;
    segments->stride = im->mx * im->sw;
    for (int64_t k = k0; k < k1;) {
        Run run = run_at(im, k, k1);
        int64_t line = run.y * im->my + im->oy + ty * im->dy, lo, hi;
        interior(im, &run, tx, &lo, &hi);
        if (line >= 0 && line < im->height && hi > lo)
            add_segment(
                segments,
                (AqSegment){.a = run.n * im->sn + line * im->sh +
                                 (lo * im->mx + im->ox + tx * im->dx) * im->sw,
                            .k = k - k0 + lo - run.x,
                            .count = hi - lo});
        k += run.length;
    }
}

void aq_image_rows(const AqImageGrid *im, int64_t m0, int64_t m1, int64_t *from,
                   int64_t *to)
{
    Run first = run_at(im, m0, m1), last = run_at(im, m1 - 1, m1);
    if (im->grid_h == 1 && im->height == 1 && first.n == last.n) {
        int64_t line = first.n * im->width;
        *from = line + clamp(first.x * im->mx + im->ox, 0, im->width);
        *to = line + clamp(last.x * im->mx + im->ox + (im->tw - 1) * im->dx + 1,
                           0, im->width);
    } else {
        int64_t low = first.y * im->my + im->oy;
        int64_t high = last.y * im->my + im->oy + (im->th - 1) * im->dy + 1;
        *from = (first.n * im->height + clamp(low, 0, im->height)) * im->width;
        *to = (last.n * im->height + clamp(high, 0, im->height)) * im->width;
    }
    *to = AQ_MAX(*from, *to);
}

void aq_turn_rows(const AqContraction *c, const float *from, int64_t stride,
                  int64_t terms, int64_t rows, float *to)
{
    const AqPacking *s = &c->packing;
    for (int64_t k = 0; k < terms; k += s->columns)
        s->transpose(from + k * stride, stride, to + k, c->row,
                     AQ_MIN(s->columns, terms - k), rows);
}

/* b_j = 1: columns of the strip lie along k. */
static void transpose_run(const AqPacking *s, const AqPart *p,
                          const float *from, int64_t count, int64_t columns,
                          float *to)
{
    int64_t whole = count - count % s->vector;
    if (whole)
        s->transpose(from, p->b_n, to, s->columns, columns, whole);
    for (int64_t k = whole; k < count; k++)
        for (int64_t n = 0; n < s->columns; n++)
            to[k * s->columns + n] = n < columns ? from[n * p->b_n + k] : 0;
}

void aq_pack_b(const AqPacking *s, const AqPart *p, const float *matrix,
               int64_t strip, int64_t k0, int64_t k1, float *panel)
{
    int64_t n0 = strip * s->columns;
    int64_t columns = AQ_MIN(s->columns, p->n - n0);
    for (int64_t k = k0; k < k1;) {
        int64_t tap = k / p->b_channels, j = k % p->b_channels;
        int64_t count = AQ_MIN(k1 - k, p->b_channels - j);
        const float *from = matrix + tap / p->b_tw * p->b_ty +
                            tap % p->b_tw * p->b_tx + j * p->b_j + n0 * p->b_n;
        float *to = panel + (k - k0) * s->columns;
        if (p->b_n == 1)
            s->strip(from, p->b_j, to, count, columns);
        else
            transpose_run(s, p, from, count, columns, to);
        k += count;
    }
}

/* A strip that is split is brought into floats first, some terms at a time. */
void aq_pack_strip(const AqContraction *c, const AqPart *p, const float *matrix,
                   int64_t strip, int64_t k0, int64_t k1, float *whole,
                   float *to)
{
    enum { TERMS = 2 * AQ_SPLIT_TERMS };
    if (!c->split) {
        aq_pack_b(&c->packing, p, matrix, strip, k0, k1, to);
        return;
    }
    int64_t columns = AQ_MIN(c->tile_columns, p->n - strip * c->tile_columns);
    for (int64_t k = k0; k < k1; k += TERMS) {
        int64_t end = AQ_MIN(k + TERMS, k1);
        aq_pack_b(&c->packing, p, matrix, strip, k, end, whole);
        c->splitting.strip(whole, c->tile_columns,
                           to + aq_strip_floats(c, k - k0), end - k, columns);
    }
}
