/* While a pass computes, what the next one will read is fetched into L2: a call
 * of the register tile asks for one column of cache lines, a line every two k
 * (for each, where operands are split).
 * The next pass is the task's, or the first of the task that follows.  Of an
 * operand that is an expression the argument behind it is fetched. */
#include "codegen/contract.h"

enum { LINE = 16 }; /* floats in a line of cache */

/* Where the operand lies, or what it is computed from. */
static const float *source_of(const AqContraction *c, void *const *buffers,
                              int which)
{
    const AqOperand *o = &c->operand[which];
    if (o->place != AQ_IN_PANEL && o->place != AQ_IN_WINDOW)
        return aq_contract_operand(c, buffers, which);
    return o->source >= 0 ? buffers[o->source] : NULL;
}

/* The block's part of B, terms k0 .. k1-1: strips, or rows of a matrix. */
static AqFuture matrix_ahead(const AqContraction *c, const AqContractTask *t,
                             void *const *buffers, int64_t k0, int64_t k1)
{
    const AqPart *p = t->part;
    int64_t strips = t->strip1 - t->strip0;
    const float *from = source_of(c, buffers, 1);
    if (c->b_place == AQ_B_SHARED)
        return (AqFuture){
            .from = aq_packed_strip(c, p, buffers, t->batch, t->strip0) +
                    aq_strip_floats(c, k0),
            .rows = aq_strip_floats(c, k1 - k0) / c->tile_columns,
            .row_stride = c->tile_columns,
            .strips = strips,
            .strip_stride = aq_strip_floats(c, p->k),
            .strip_floats = c->tile_columns};
    if (!from || p->b_n != 1 || p->b_channels != p->k)
        return (AqFuture){.rows = 0};
    from += p->b_base + aq_batch_offset(c, c->b_batch, t->batch);
    return (AqFuture){.from = from + k0 * p->b_j + t->strip0 * c->tile_columns,
                      .rows = k1 - k0,
                      .row_stride = p->b_j,
                      .strips = 1,
                      .strip_floats = strips * c->tile_columns};
}

static int64_t pixel_of(const AqImageGrid *im, int64_t point)
{
    int64_t row = point / im->grid_w, x = point % im->grid_w;
    int64_t y = row / im->grid_h * im->height + row % im->grid_h * im->my;
    return y * im->width + x * im->mx;
}

/* `channels` of the pixels that the points from .. to - 1 read. */
static AqFuture points_ahead(const AqImageGrid *im, const float *image,
                             int64_t from, int64_t to, int64_t channels)
{
    if (im->sh != im->width * im->sw || im->sn != im->height * im->sh ||
        from >= to)
        return (AqFuture){.rows = 0};
    int64_t first = pixel_of(im, from), last = pixel_of(im, to - 1);
    return (AqFuture){.from = image + first * im->sw,
                      .rows = last + (im->my - 1) * im->width + im->mx - first,
                      .row_stride = im->sw,
                      .strips = 1,
                      .strip_floats = channels};
}

/* The block's part of A; in form "rows" where it is a matrix that is read pass
 * by pass. */
static AqFuture image_ahead(const AqContraction *c, const AqContractTask *t,
                            void *const *buffers, int64_t k0, int64_t k1)
{
    const AqPart *p = t->part;
    const float *from = source_of(c, buffers, 0);
    if (!from)
        return (AqFuture){.rows = 0};
    from += p->a_base + aq_batch_offset(c, c->a_batch, t->batch);
    if (c->panel == AQ_PANEL_K) {
        int64_t first = aq_row_in_group(c, p, t->tile0);
        int64_t end = aq_row_in_group(c, p, t->tile1 - 1) + c->tile_rows;
        return points_ahead(&p->a, from + first, k0, k1,
                            AQ_MIN(end, p->group) - first);
    }
    if (p->a.th * p->a.tw != 1 || c->operand[0].place == AQ_IN_WINDOW)
        return (AqFuture){.rows = 0};
    return points_ahead(&p->a, from + k0, t->tile0 * c->tile_rows,
                        AQ_MIN(t->tile1 * c->tile_rows, p->m), k1 - k0);
}

AqAhead aq_look_ahead(const AqContraction *c, const AqContractTask *t,
                      void *const *buffers, int64_t k0, int64_t k1)
{
    return (AqAhead){.b = matrix_ahead(c, t, buffers, k0, k1),
                     .a = image_ahead(c, t, buffers, k0, k1)};
}

/* The next column of lines of this operand, and where the one after it begins;
 * none is left: false. */
static bool next_lines(AqFuture *f, int64_t lines, AqLines *out)
{
    if (f->rows <= 0 || f->strip >= f->strips)
        return false;
    *out = (AqLines){.from = f->from + f->strip * f->strip_stride + f->column +
                             f->row * f->row_stride,
                     .stride = f->row_stride};
    f->row += lines;
    if (f->row < f->rows)
        return true;
    f->row = 0;
    f->column += LINE;
    if (f->column < f->strip_floats)
        return true;
    f->column = 0;
    f->strip++;
    return true;
}

AqLines aq_lines_ahead(AqAhead *ahead, const float *none)
{
    AqLines lines = {.from = none};
    if (ahead->lines > 0 && !next_lines(&ahead->b, ahead->lines, &lines))
        next_lines(&ahead->a, ahead->lines, &lines);
    return lines;
}
