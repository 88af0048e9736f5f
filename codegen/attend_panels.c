/* Panels of one side's tokens, and dq out of its panels: stages before and
 * after attention's tasks, where a task is some tokens of one sample, all
 * heads; or parts of its tasks, where those have panels of their own. */
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
static void prepare_queries(const AqAttend *a, void *const *buffers, Tokens t,
                            int64_t h, const AqHead *head)
{
    const float *out = buffers[a->in[AQ_OUT]], *dout = buffers[a->in[AQ_DOUT]];
    const float *lse =
        (const float *)buffers[a->in[AQ_LSE]] + (t.b * a->heads + h) * t.total;
    int64_t at = aq_attend_at(a, t.total, t.b, t.first, h);
    for (int64_t i = t.first; i < t.end; i++)
        head->lse[i] = lse[i] == -INFINITY ? INFINITY : lse[i] * LOG2_E;
    a->row_product(out + at, dout + at, a->row, head->slope + t.first,
                   t.end - t.first, a->depth, -a->scale);
}

/* Where a head's panels are, the number-th of those that lie at `base`. */
static AqHead place_head(const AqAttend *a, float *base, int64_t number,
                         int64_t total)
{
    AqHead head = {
        .lse = base + a->lse_at + number * total,
        .slope = base + a->slope_at + number * total,
        .dq = base + a->dq_at + number * a->dq_rows * a->panel,
    };
    for (int i = 0; i < 2; i++)
        head.side[i] = base + a->side_at[i] + number * total * a->panel;
    return head;
}

static int64_t tokens_met(const AqAttend *a)
{
    return a->in[AQ_DOUT] >= 0 ? a->queries : a->keys;
}

AqHead aq_attend_begin_head(const AqAttend *a, void *const *buffers, float *own,
                            int64_t b, int64_t h, int64_t split)
{
    int64_t total = tokens_met(a), number = b * a->heads + h;
    if (!a->own) {
        AqHead head = place_head(a, aq_attend_work(a, buffers), number, total);
        head.dq += split * a->batch * a->heads * a->dq_rows * a->panel;
        return head;
    }
    AqHead head = place_head(a, own, 0, total);
    for (int i = 0; i < 2; i++)
        a->panel_rows((const float *)buffers[a->in[a->side[i]]] +
                          aq_attend_at(a, total, b, 0, h),
                      a->row, head.side[i], a->panel, total, a->depth);
    if (a->in[AQ_DOUT] >= 0)
        prepare_queries(a, buffers,
                        (Tokens){.b = b, .end = total, .total = total}, h,
                        &head);
    return head;
}

void aq_attend_panels(const void *closure, void *const *buffers, int64_t first,
                      int64_t last, void *scratch)
{
    const AqAttend *a = closure;
    bool backward = a->in[AQ_DOUT] >= 0;
    float *work = aq_attend_work(a, buffers);
    (void)scratch;
    for (int64_t task = first; task < last; task++) {
        Tokens t = tokens_of(task, tokens_met(a));
        for (int side = 0; side < 2; side++) {
            const float *from = buffers[a->in[a->side[side]]];
            for (int64_t i = t.first; i < t.end; i++)
                a->panel_rows(from + (t.b * t.total + i) * a->row, a->depth,
                              work + a->side_at[side] +
                                  (t.b * a->heads * t.total + i) * a->panel,
                              t.total * a->panel, a->heads, a->depth);
        }
        for (int64_t h = 0; h < a->heads && backward; h++) {
            AqHead head = place_head(a, work, t.b * a->heads + h, t.total);
            prepare_queries(a, buffers, t, h, &head);
        }
    }
}

void aq_attend_join_head(const AqAttend *a, void *const *buffers,
                         const float *panels, int64_t b, int64_t h,
                         int64_t first, int64_t end)
{
    AqPanelSum join = {
        .from = panels + first * a->panel,
        .to = (float *)buffers[a->result[0]] +
              aq_attend_at(a, a->queries, b, first, h),
        .from_row = a->panel,
        .to_row = a->row,
        .apart = a->batch * a->heads * a->dq_rows * a->panel,
        .panels = a->splits,
        .rows = end - first,
        .depth = a->depth,
    };
    a->join(&join);
}

void aq_attend_join(const void *closure, void *const *buffers, int64_t first,
                    int64_t last, void *scratch)
{
    const AqAttend *a = closure;
    (void)scratch;
    for (int64_t task = first; task < last; task++) {
        Tokens t = tokens_of(task, a->queries);
        for (int64_t h = 0; h < a->heads; h++) {
            AqHead head = aq_attend_begin_head(a, buffers, NULL, t.b, h, 0);
            aq_attend_join_head(a, buffers, head.dq, t.b, h, t.first, t.end);
        }
    }
}
