/* Values that come from the node itself: constants, tables, indices, random
 * numbers. */
#include "ir/evaluate.h"

#include <string.h>

void aq_evaluate_const(Evaluation *e)
{
    double value = aq_attr_real(e->node, AQ_KEY_VALUE, 0);
    int64_t count = aq_elements(&e->out->type);
    for (int64_t i = 0; i < count; i++)
        e->out->data[i] = value;
}

void aq_evaluate_table(Evaluation *e)
{
    const AqAttr *data = aq_attr(e->node, AQ_KEY_DATA);
    if (data && data->count)
        memcpy(e->out->data, data->reals, (size_t)data->count * sizeof(double));
}

void aq_evaluate_iota(Evaluation *e)
{
    const AqType *type = &e->out->type;
    int axis = (int)aq_attr_int(e->node, AQ_KEY_AXIS, 0);
    int64_t stride[AQ_MAX_RANK];
    aq_strides(type, stride);
    int64_t count = aq_elements(type);
    for (int64_t i = 0; i < count; i++)
        e->out->data[i] = (double)(i / stride[axis] % type->dim[axis]);
}

static uint32_t word(double value)
{
    return (uint32_t)(int32_t)value;
}

/* key i32[2], step i32[], sample i32[N] -> f32[N, ...] */
void aq_evaluate_random(Evaluation *e)
{
    const double *key_data = e->in[0]->data;
    uint32_t key[2] = {word(key_data[0]), word(key_data[1])};
    uint32_t step = word(e->in[1]->data[0]);
    uint32_t stream = (uint32_t)aq_attr_int(e->node, AQ_KEY_STREAM, 0);
    const char *kind = aq_attr_text(e->node, AQ_KEY_KIND, "normal");
    double (*draw)(const uint32_t *, uint32_t, uint32_t, uint32_t, uint32_t) =
        strcmp(kind, "uniform") ? aq_random_normal : aq_random_uniform;

    int64_t samples = e->out->type.dim[0];
    int64_t each = samples ? aq_elements(&e->out->type) / samples : 0;
    double *out = e->out->data;
    for (int64_t n = 0; n < samples; n++)
        for (int64_t i = 0; i < each; i++)
            *out++ =
                draw(key, step, stream, word(e->in[2]->data[n]), (uint32_t)i);
}
