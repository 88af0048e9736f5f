/* About how long a kernel takes: a roofline over what it computes and what it
 * moves, and the price of a launch.
 *
 * A contraction or attention runs at a fraction of the FMA peak that depends on
 * its direction and on the algorithm that computes it; the table below is the
 * only place where such fractions stand.  They were measured on whole training
 * steps of ddpm_unet (`aquatint bench --kernels`), two threads with AVX-512. */
#include "passes/passes.h"

#include <string.h>

typedef struct Fraction {
    AqOp op;
    const char *algorithm; /* NULL: any other */
    double of_peak;        /* of large ones */
    double half;           /* operations at which half of that is reached */
} Fraction;

static const Fraction fractions[] = {
    {AQ_OP_conv2d, NULL, 0.72, 1e6},
    {AQ_OP_conv2d_input_gradient, NULL, 0.72, 1e6},
    {AQ_OP_conv2d_weight_gradient, NULL, 0.66, 1e6},
    {AQ_OP_matmul, NULL, 0.60, 1e6},
    {AQ_OP_attention, NULL, 0.45, 1e6},
    {AQ_OP_attention_gradient, NULL, 0.40, 1e6},
};

/* Of pointwise work: operations as a fraction of the FMA peak. */
enum { PLAIN = 1, EXPENSIVE = 12, RANDOM = 60 };
static const double pointwise_of_peak = 0.25;

AqSpeed aq_speed_of(const AqTarget *target)
{
    double lanes = target->vector;
    return (AqSpeed){
        .flops = 2 * 2 * 2 * lanes * 3e9, .bytes = 25e9, .launch = 5e-6};
}

static const Fraction *fraction_of(const AqNode *node, const char *algorithm)
{
    const Fraction *any = NULL;
    for (int i = 0; i < AQ_COUNT(fractions); i++) {
        const Fraction *f = &fractions[i];
        if (f->op == node->op && !f->algorithm)
            any = f;
        else if (f->op == node->op && !strcmp(f->algorithm, algorithm))
            return f;
    }
    return any;
}

/* Operations of pointwise work and reductions. */
static double pointwise(const AqGraph *body)
{
    double sum = 0;
    for (AqId id = 0; id < body->count; id++) {
        const AqNode *node = aq_node(body, id);
        unsigned facts = aq_op_info[node->op].facts;
        AqId like = node->n_inputs ? node->inputs[0] : id;
        double count = (double)aq_elements(&aq_node(body, like)->type);
        bool reduces = node->op == AQ_OP_reduce_sum ||
                       node->op == AQ_OP_reduce_max ||
                       node->op == AQ_OP_moments;
        if (node->op == AQ_OP_random)
            sum += RANDOM * (double)aq_elements(&node->type);
        else if (facts & AQ_POINTWISE || reduces)
            sum += count * (facts & AQ_EXPENSIVE ? EXPENSIVE : PLAIN);
    }
    return sum;
}

static double bytes_moved(const AqGraph *g, AqId kernel)
{
    const AqNode *node = aq_node(g, kernel);
    double sum = 0;
    for (int i = 0; i < node->n_inputs; i++)
        sum += (double)aq_bytes(&aq_node(g, node->inputs[i])->type);
    const AqGraph *body = aq_attr_body(node);
    for (int i = 0; i < body->n_outputs; i++)
        sum += (double)aq_bytes(&aq_node(body, body->outputs[i].node)->type);
    return sum;
}

double aq_kernel_seconds(const AqGraph *g, AqId kernel, const AqSpeed *speed)
{
    const AqGraph *body = aq_attr_body(aq_node(g, kernel));
    const char *algorithm =
        aq_attr_text(aq_node(g, kernel), AQ_KEY_ALGORITHM, "");
    double compute = pointwise(body) / (speed->flops * pointwise_of_peak);
    for (AqId id = 0; id < body->count; id++) {
        const Fraction *f = fraction_of(aq_node(body, id), algorithm);
        double flops = f ? aq_node_flops(body, id) : 0;
        if (flops > 0)
            compute += (flops + f->half) / (speed->flops * f->of_peak);
    }
    double move = bytes_moved(g, kernel) / speed->bytes;
    return AQ_MAX(compute, move) + speed->launch;
}
