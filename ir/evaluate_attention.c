/* Attention, the score matrix formed one row at a time.
 *
 * q (B,Tq,heads,d); k, v (B,Tk,heads,d); bias (B|1,heads|1,Tq,Tk).
 * s_ij = scale q_i . k_j + bias_ij, lse_i = log sum_j exp s_ij,
 * p_ij = exp(s_ij - lse_i), out_i = sum_j p_ij v_j.  A query whose keys are all
 * hidden by a bias of -inf has the output zero. */
#include "ir/evaluate.h"

#include <math.h>
#include <stdlib.h>

typedef struct Attention {
    int64_t batch, queries, keys, heads, depth;
    double scale;
    bool causal;
    const AqValue *bias; /* NULL: none */
    const double *q, *k, *v;
} Attention;

static Attention attention_of(const Evaluation *e, int bias)
{
    const AqType *q = &e->in[0]->type, *k = &e->in[1]->type;
    return (Attention){
        .batch = q->dim[0],
        .queries = q->dim[1],
        .keys = k->dim[1],
        .heads = q->dim[2],
        .depth = q->dim[3],
        .scale = aq_attr_real(e->node, AQ_KEY_SCALE, 1),
        .causal = aq_attr_int(e->node, AQ_KEY_CAUSAL, 0),
        .bias = e->node->n_inputs > bias ? e->in[bias] : NULL,
        .q = e->in[0]->data,
        .k = e->in[1]->data,
        .v = e->in[2]->data,
    };
}

/* Where row i of head h lies in a (B,T,heads,d) array. */
static int64_t at(const Attention *a, int64_t length, int64_t b, int64_t i,
                  int64_t h)
{
    return ((b * length + i) * a->heads + h) * a->depth;
}

static int64_t visible(const Attention *a, int64_t i)
{
    return a->causal ? AQ_MIN(i + 1, a->keys) : a->keys;
}

static double product(const double *a, const double *b, int64_t count)
{
    double sum = 0;
    for (int64_t i = 0; i < count; i++)
        sum += a[i] * b[i];
    return sum;
}

static void add_scaled(double *to, double scale, const double *from,
                       int64_t count)
{
    for (int64_t i = 0; i < count; i++)
        to[i] += scale * from[i];
}

/* The scores of query i against the keys that it sees. */
static void score_row(const Attention *a, int64_t b, int64_t h, int64_t i,
                      double *score)
{
    const double *bias = NULL;
    if (a->bias) {
        const AqType *type = &a->bias->type;
        int64_t image = type->dim[0] == 1 ? 0 : b;
        int64_t head = type->dim[1] == 1 ? 0 : h;
        bias = a->bias->data +
               ((image * type->dim[1] + head) * a->queries + i) * a->keys;
    }
    const double *q = a->q + at(a, a->queries, b, i, h);
    for (int64_t j = 0; j < visible(a, i); j++) {
        const double *k = a->k + at(a, a->keys, b, j, h);
        score[j] = a->scale * product(q, k, a->depth) + (bias ? bias[j] : 0);
    }
}

static double log_sum_exp(const double *score, int64_t count)
{
    double top = -INFINITY, sum = 0;
    for (int64_t j = 0; j < count; j++)
        top = score[j] > top ? score[j] : top;
    if (top == -INFINITY || top == INFINITY) /* or all are NaN */
        top = 0;
    for (int64_t j = 0; j < count; j++)
        sum += exp(score[j] - top);
    return top + log(sum);
}

/* p; where every score of the row is -inf, zero */
static double weight(double score, double lse)
{
    return lse == -INFINITY ? 0 : exp(score - lse);
}

/* -> out (B,Tq,heads,d), lse (B,heads,Tq) */
void aq_evaluate_attention(Evaluation *e)
{
    Attention a = attention_of(e, 3);
    double *score = aq_evaluate_scratch(e, a.keys);
    int64_t rows = score ? a.batch * a.heads * a.queries : 0;
    for (int64_t row = 0; row < rows; row++) {
        int64_t i = row % a.queries, h = row / a.queries % a.heads;
        int64_t b = row / a.queries / a.heads;
        score_row(&a, b, h, i, score);
        double lse = log_sum_exp(score, visible(&a, i));
        e->out[1].data[row] = lse;
        double *out = e->out[0].data + at(&a, a.queries, b, i, h);
        for (int64_t j = 0; j < visible(&a, i); j++)
            add_scaled(out, weight(score[j], lse),
                       a.v + at(&a, a.keys, b, j, h), a.depth);
    }
    free(score);
}

/* q, k, v, out, lse, dout [, bias] -> dq, dk, dv:
 * dv_j += p_ij dout_i, dp_ij = dout_i . v_j, delta_i = dout_i . out_i,
 * ds_ij = p_ij (dp_ij - delta_i), dq_i += scale ds_ij k_j,
 * dk_j += scale ds_ij q_i */
void aq_evaluate_attention_gradient(Evaluation *e)
{
    Attention a = attention_of(e, 6);
    double *score = aq_evaluate_scratch(e, a.keys);
    int64_t rows = score ? a.batch * a.heads * a.queries : 0;
    for (int64_t row = 0; row < rows; row++) {
        int64_t i = row % a.queries, h = row / a.queries % a.heads;
        int64_t b = row / a.queries / a.heads;
        int64_t query = at(&a, a.queries, b, i, h);
        const double *dout = e->in[5]->data + query;
        double lse = e->in[4]->data[row];
        double delta = product(dout, e->in[3]->data + query, a.depth);
        score_row(&a, b, h, i, score);
        for (int64_t j = 0; j < visible(&a, i); j++) {
            int64_t key = at(&a, a.keys, b, j, h);
            double p = weight(score[j], lse);
            double ds = p * (product(dout, a.v + key, a.depth) - delta);
            add_scaled(e->out[0].data + query, a.scale * ds, a.k + key,
                       a.depth);
            add_scaled(e->out[1].data + key, a.scale * ds, a.q + query,
                       a.depth);
            add_scaled(e->out[2].data + key, p, dout, a.depth);
        }
    }
    free(score);
}
