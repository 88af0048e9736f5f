/* The stages of attention before and after its tasks: panels of one side's
 * tokens, and dq out of its panels.  A task is some tokens of one sample, all
 * heads. */
#include "codegen/attend.h"

#include <math.h>

static const float LOG2_E = 1.44269504F;

typedef struct Tokens {
    int64_t b, first, end; /* of `total` */
    int64_t total;
} Tokens;

static Tokens tokens_of(int64_t task, int64_t total)
{
    int64_t pieces = aq_ceil_div(total, AQ_TOKENS);
    int64_t first = task % pieces * AQ_TOKENS;
    return (Tokens){.b = task / pieces,
                    .first = first,
                    .end = AQ_MIN(first + AQ_TOKENS, total),
                    .total = total};
}

/* lse in powers of two, +inf where nothing is seen, so that weights are zero;
 * and slope = -scale dout . out */
static void prepare_queries(const AqAttend *a, void *const *buffers, Tokens t)
{
    const float *lse = buffers[a->in[AQ_LSE]];
    const float *out = buffers[a->in[AQ_OUT]], *dout = buffers[a->in[AQ_DOUT]];
    float *work = aq_attend_work(a, buffers);
    for (int64_t h = 0; h < a->heads; h++) {
        int64_t row = (t.b * a->heads + h) * t.total;
        int64_t at = aq_attend_at(a, t.total, t.b, t.first, h);
        for (int64_t i = row + t.first; i < row + t.end; i++)
            work[a->lse_at + i] =
                lse[i] == -INFINITY ? INFINITY : lse[i] * LOG2_E;
        a->row_product(out + at, dout + at, a->row,
                       work + a->slope_at + row + t.first, t.end - t.first,
                       a->depth, -a->scale);
    }
}

void aq_attend_panels(const void *closure, void *const *buffers, int64_t first,
                      int64_t last, void *scratch)
{
    const AqAttend *a = closure;
    bool backward = a->in[AQ_DOUT] >= 0;
    float *work = aq_attend_work(a, buffers);
    (void)scratch;
    for (int64_t task = first; task < last; task++) {
        Tokens t = tokens_of(task, backward ? a->queries : a->keys);
        for (int side = 0; side < 2; side++) {
            const float *from = buffers[a->in[a->side[side]]];
            for (int64_t i = t.first; i < t.end; i++)
                a->panel_rows(from + (t.b * t.total + i) * a->row, a->depth,
                              work + a->side_at[side] +
                                  (t.b * a->heads * t.total + i) * a->panel,
                              t.total * a->panel, a->heads, a->depth);
        }
        if (backward)
            prepare_queries(a, buffers, t);
    }
}

float *aq_attend_dq(const AqAttend *a, void *const *buffers, int64_t split,
                    int64_t b, int64_t h, int64_t t)
{
    int64_t head = (split * a->batch + b) * a->heads + h;
    return aq_attend_work(a, buffers) + a->dq_at +
           (head * a->dq_rows + t) * a->panel;
}

/* dq = the sum of the splits', in order */
void aq_attend_join(const void *closure, void *const *buffers, int64_t first,
                    int64_t last, void *scratch)
{
    const AqAttend *a = closure;
    (void)scratch;
    for (int64_t task = first; task < last; task++) {
        Tokens t = tokens_of(task, a->queries);
        for (int64_t i = t.first; i < t.end; i++)
            for (int64_t h = 0; h < a->heads; h++) {
                float *dq = (float *)buffers[a->result[0]] +
                            aq_attend_at(a, a->queries, t.b, i, h);
                const float *part = aq_attend_dq(a, buffers, 0, t.b, h, i);
                for (int64_t e = 0; e < a->depth; e++)
                    dq[e] = part[e];
                for (int64_t s = 1; s < a->splits; s++) {
                    part = aq_attend_dq(a, buffers, s, t.b, h, i);
                    for (int64_t e = 0; e < a->depth; e++)
                        dq[e] += part[e];
                }
            }
    }
}
