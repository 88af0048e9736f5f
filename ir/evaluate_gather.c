/* Rows of a table, looked up and added to. */
#include "ir/evaluate.h"

#include <string.h>

/* Elements in one row of a (V, rest...) array. */
static int64_t row_of(const AqType *type)
{
    int64_t row = 1;
    for (int i = 1; i < type->rank; i++)
        row *= type->dim[i];
    return row;
}

/* The i-th index, or -1 with the error recorded. */
static int64_t index_at(Evaluation *e, const AqValue *index, int64_t i,
                        int64_t rows)
{
    double at = index->data[i];
    if (at >= 0 && at < rows)
        return (int64_t)at;
    aq_evaluate_fail(e, AQ_BAD_INPUT,
                     "index %.0f (element %lld) is outside 0 .. %lld", at,
                     (long long)i, (long long)rows - 1);
    return -1;
}

/* (V, rest...), index (...) -> (index..., rest...) */
void aq_evaluate_gather(Evaluation *e)
{
    const AqValue *table = e->in[0], *index = e->in[1];
    int64_t row = row_of(&table->type), count = aq_elements(&index->type);
    for (int64_t i = 0; i < count; i++) {
        int64_t at = index_at(e, index, i, table->type.dim[0]);
        if (at < 0)
            return;
        if (row)
            memcpy(e->out->data + i * row, table->data + at * row,
                   (size_t)row * sizeof(double));
    }
}

/* index (...), updates (index..., rest...) -> (V, rest...) */
void aq_evaluate_scatter_add(Evaluation *e)
{
    const AqValue *index = e->in[0], *updates = e->in[1];
    int64_t row = row_of(&e->out->type), count = aq_elements(&index->type);
    for (int64_t i = 0; i < count; i++) {
        int64_t at = index_at(e, index, i, e->out->type.dim[0]);
        if (at < 0)
            return;
        for (int64_t j = 0; j < row; j++)
            e->out->data[at * row + j] += updates->data[i * row + j];
    }
}
