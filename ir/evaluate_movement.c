/* Movement: elements change place, none is computed.  Each rule says with which
 * strides the two arrays are walked. */
#include "ir/evaluate.h"

#include <string.h>

static void copy_strided(int rank, const int64_t *dim, const double *from,
                         const int64_t *from_stride, double *to,
                         const int64_t *to_stride)
{
    AqWalk w;
    for (bool more = aq_walk_first(&w, rank, dim, from_stride, to_stride); more;
         more = aq_walk_next(&w)) {
        const double *in = from + w.offset[0];
        double *out = to + w.offset[1];
        for (int64_t i = 0; i < w.length; i++)
            out[i * w.step[1]] = in[i * w.step[0]];
    }
}

void aq_evaluate_reshape(Evaluation *e)
{
    int64_t count = aq_elements(&e->out->type);
    if (count)
        memcpy(e->out->data, e->in[0]->data, (size_t)count * sizeof(double));
}

/* out dimension i is input dimension perm[i] */
void aq_evaluate_transpose(Evaluation *e)
{
    const AqType *type = &e->out->type;
    int64_t in[AQ_MAX_RANK], moved[AQ_MAX_RANK], out[AQ_MAX_RANK];
    aq_strides(&e->in[0]->type, in);
    aq_strides(type, out);
    for (int i = 0; i < type->rank; i++)
        moved[i] = in[aq_attr_at(e->node, AQ_KEY_PERM, i, i)];
    copy_strided(type->rank, type->dim, e->in[0]->data, moved, e->out->data,
                 out);
}

/* Strides and origin of the elements start + i * step of an array of `type`. */
static int64_t stepped(const AqNode *node, const AqType *type, int64_t *stride)
{
    int64_t origin = 0;
    aq_strides(type, stride);
    for (int i = 0; i < type->rank; i++) {
        origin += stride[i] * aq_attr_at(node, AQ_KEY_START, i, 0);
        stride[i] *= aq_attr_at(node, AQ_KEY_STEP, i, 1);
    }
    return origin;
}

/* out[i] = in[start + i * step] */
void aq_evaluate_slice(Evaluation *e)
{
    const AqType *type = &e->out->type;
    int64_t in[AQ_MAX_RANK], out[AQ_MAX_RANK];
    int64_t origin = stepped(e->node, &e->in[0]->type, in);
    aq_strides(type, out);
    copy_strided(type->rank, type->dim, e->in[0]->data + origin, in,
                 e->out->data, out);
}

/* out[start + i * step] = in[i], zeros elsewhere */
void aq_evaluate_pad(Evaluation *e)
{
    const AqType *type = &e->in[0]->type;
    int64_t in[AQ_MAX_RANK], out[AQ_MAX_RANK];
    int64_t origin = stepped(e->node, &e->out->type, out);
    aq_strides(type, in);
    copy_strided(type->rank, type->dim, e->in[0]->data, in,
                 e->out->data + origin, out);
}

/* dimensions of 1 are repeated */
void aq_evaluate_broadcast(Evaluation *e)
{
    const AqType *from = &e->in[0]->type, *type = &e->out->type;
    int64_t in[AQ_MAX_RANK], out[AQ_MAX_RANK];
    aq_strides(from, in);
    aq_strides(type, out);
    for (int i = 0; i < type->rank; i++)
        if (from->dim[i] == 1)
            in[i] = 0;
    copy_strided(type->rank, type->dim, e->in[0]->data, in, e->out->data, out);
}

void aq_evaluate_concat(Evaluation *e)
{
    int axis = (int)aq_attr_int(e->node, AQ_KEY_AXIS, 0);
    int64_t in[AQ_MAX_RANK], out[AQ_MAX_RANK];
    aq_strides(&e->out->type, out);
    double *to = e->out->data;
    for (int i = 0; i < e->node->n_inputs; i++) {
        const AqType *part = &e->in[i]->type;
        aq_strides(part, in);
        copy_strided(part->rank, part->dim, e->in[i]->data, in, to, out);
        to += part->dim[axis] * out[axis];
    }
}

/* out[i] = in[i / factor]: each dimension is split in two, (dim, factor), and
 * the input stands still along the second */
void aq_evaluate_repeat(Evaluation *e)
{
    const AqType *type = &e->in[0]->type;
    int64_t in[AQ_MAX_RANK], out[AQ_MAX_RANK], dim[AQ_WALK_RANK];
    int64_t in_split[AQ_WALK_RANK], out_split[AQ_WALK_RANK];
    aq_strides(type, in);
    aq_strides(&e->out->type, out);
    for (int i = 0; i < type->rank; i++) {
        int64_t factor = aq_attr_at(e->node, AQ_KEY_FACTOR, i, 1);
        dim[2 * i] = type->dim[i], dim[2 * i + 1] = factor;
        in_split[2 * i] = in[i], in_split[2 * i + 1] = 0;
        out_split[2 * i] = out[i] * factor, out_split[2 * i + 1] = out[i];
    }
    copy_strided(2 * type->rank, dim, e->in[0]->data, in_split, e->out->data,
                 out_split);
}
