/* Tiles into the result: which rows of it a register tile is, and what becomes
 * of them there. */
#include "codegen/contract.h"

void aq_store_rows(const AqStoring *s, void *const *buffers, const float *tile,
                   const int64_t *index, int64_t step, int64_t rows,
                   int64_t columns, float *slots)
{
    if (s->store) {
        int64_t taken = 0, column = index[s->rank - 1];
        float *sums = slots ? aq_sums_take(&s->sums, slots, index[0], column,
                                           rows, &taken)
                            : NULL;
        s->store(buffers, tile, index, step, rows, columns, sums, taken);
        return;
    }
    float *out = buffers[s->out_buffer];
    for (int d = 0; d < s->rank; d++)
        out += index[d] * s->out_stride[d];
    s->copy(tile, s->columns, out, step * s->out_stride[s->rank - 2], rows,
            columns);
}

AqTilePlace aq_tile_place(const AqContraction *c, const AqContractTask *t,
                          int64_t tile)
{
    const AqPart *p = t->part;
    AqTilePlace place = {.rows = aq_rows_of(c, p, tile)};
    int64_t rest = t->batch;
    for (int d = c->lead - 1; d >= 0; d--) {
        place.index[d] = rest % c->batch[d];
        rest /= c->batch[d];
    }
    int64_t row = tile % p->groups * p->group + aq_row_in_group(c, p, tile);
    int64_t line = row / p->out_w;
    place.x = row % p->out_w;
    place.y = line % p->out_h;
    place.n = line / p->out_h;
    return place;
}

void aq_store_tile(const AqContraction *c, const AqContractTask *t,
                   AqTilePlace place, int64_t strip, void *const *buffers,
                   const float *sums)
{
    const AqPart *p = t->part;
    int64_t column = strip * c->tile_columns;
    int64_t columns = AQ_MIN(c->tile_columns, p->n - column);
    place.index[c->rank - 1] = column + t->batch * c->column_batch;
    while (place.rows > 0) {
        int64_t rows = AQ_MIN(place.rows, p->out_w - place.x);
        if (c->lead == 0 && c->rank == 4) {
            place.index[0] = place.n;
            place.index[1] = p->y0 + p->ys * place.y;
        }
        place.index[c->rank - 2] = p->x0 + p->xs * place.x;
        aq_store_rows(&c->storing, buffers, sums, place.index, p->xs, rows,
                      columns, t->slots);
        sums += rows * c->tile_columns;
        place.rows -= rows;
        place.x = 0;
        if (++place.y == p->out_h) {
            place.y = 0;
            place.n++;
        }
    }
}
