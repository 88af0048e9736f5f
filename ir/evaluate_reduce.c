/* Reductions over `axes`, which leave the shape. */
#include "ir/evaluate.h"

#include <math.h>

/* Walks the input's elements beside the reduced one each belongs to. */
static bool walk_reduced(const Evaluation *e, AqWalk *walk)
{
    const AqType *type = &e->in[0]->type;
    int64_t in[AQ_MAX_RANK], out[AQ_MAX_RANK], product = 1;
    bool reduced[AQ_MAX_RANK] = {false};
    const AqAttr *axes = aq_attr(e->node, AQ_KEY_AXES);
    for (int i = 0; axes && i < axes->count; i++)
        reduced[axes->ints[i]] = true;
    aq_strides(type, in);
    for (int i = type->rank - 1; i >= 0; i--) {
        out[i] = reduced[i] ? 0 : product;
        product *= reduced[i] ? 1 : type->dim[i];
    }
    return aq_walk_first(walk, type->rank, type->dim, in, out);
}

static void fill(AqValue *value, double with)
{
    int64_t count = aq_elements(&value->type);
    for (int64_t i = 0; i < count; i++)
        value->data[i] = with;
}

static void add_up(Evaluation *e)
{
    AqWalk w;
    for (bool more = walk_reduced(e, &w); more; more = aq_walk_next(&w)) {
        const double *in = e->in[0]->data + w.offset[0];
        double *out = e->out[0].data + w.offset[1];
        for (int64_t i = 0; i < w.length; i++)
            out[i * w.step[1]] += in[i * w.step[0]];
    }
}

void aq_evaluate_reduce_sum(Evaluation *e)
{
    add_up(e);
    int64_t count = aq_elements(&e->out->type);
    if (e->out->type.element == AQ_I32) /* sums stay exact below 2^53 */
        for (int64_t i = 0; i < count; i++)
            e->out->data[i] =
                (double)(int32_t)(uint32_t)(int64_t)e->out->data[i];
}

static double larger(double a, double b)
{
    return a != a || b != b ? NAN : a > b ? a : b;
}

void aq_evaluate_reduce_max(Evaluation *e)
{
    fill(e->out, e->out->type.element == AQ_I32 ? INT32_MIN : -INFINITY);
    AqWalk w;
    for (bool more = walk_reduced(e, &w); more; more = aq_walk_next(&w)) {
        const double *in = e->in[0]->data + w.offset[0];
        double *out = e->out->data + w.offset[1];
        for (int64_t i = 0; i < w.length; i++)
            out[i * w.step[1]] = larger(out[i * w.step[1]], in[i * w.step[0]]);
    }
}

/* mean, and m2 = sum (x - mean)^2, in two sweeps */
void aq_evaluate_moments(Evaluation *e)
{
    add_up(e);
    int64_t count = aq_elements(&e->out[0].type);
    double share = count ? (double)aq_elements(&e->in[0]->type) / count : 1;
    for (int64_t i = 0; i < count; i++)
        e->out[0].data[i] /= share;

    AqWalk w;
    for (bool more = walk_reduced(e, &w); more; more = aq_walk_next(&w)) {
        const double *in = e->in[0]->data + w.offset[0];
        const double *mean = e->out[0].data + w.offset[1];
        double *m2 = e->out[1].data + w.offset[1];
        for (int64_t i = 0; i < w.length; i++) {
            double d = in[i * w.step[0]] - mean[i * w.step[1]];
            m2[i * w.step[1]] += d * d;
        }
    }
}
