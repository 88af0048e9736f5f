/* About how long a kernel takes: a share for what it computes, one for what it
 * moves, and a constant.
 *
 * The table is the only place where such shares stand.  They were fitted to
 * the profiles of three ddpm_unet (32, 64, 128 channels) at batches 1, 4 and 8
 * (the median of several runs of each kernel, by relative error), two threads
 * with AVX-512 at 250 to 310 GFLOP/s, and to those of dit; medians of est over
 * measured are 0.85 to 1.11 for whole steps.  Caches are as fast as the
 * clock, so what moves within them is counted in operations of the peak; only
 * what is too large for them goes at the speed of memory.  Fit them again when
 * an algorithm becomes faster. */
#include "passes/passes.h"

#include <string.h>

typedef struct Cost {
    AqOp op;
    const char *algorithm; /* NULL: any other */
    double of_peak;        /* useful operations, as a share of the FMA peak */
    double moved;          /* how often its operands and results pass a cache */
    double microseconds;   /* whatever its size */
} Cost;

static const Cost costs[] = {
    {AQ_OP_conv2d, "winograd", 2.5, 3.8, 18},
    {AQ_OP_conv2d_input_gradient, "winograd", 2.4, 2.1, 26},
    {AQ_OP_conv2d_weight_gradient, "winograd", 2.2, 3.5, 12},
    {AQ_OP_conv2d, NULL, 0.85, 1.9, 7},
    {AQ_OP_conv2d_input_gradient, NULL, 0.61, 0.6, 16},
    {AQ_OP_conv2d_weight_gradient, NULL, 0.6, 1.4, 13},
    {AQ_OP_matmul, NULL, 0.74, 1.4, 1.6},
    {AQ_OP_attention, NULL, 0.62, 2.3, 2.3},
    {AQ_OP_attention_gradient, NULL, 0.53, 2.2, 7.3},
};

/* Kernels of pointwise work and reductions, whose operations are counted with
 * these weights. */
static const Cost pointwise_cost = {
    .of_peak = 0.39, .moved = 0.67, .microseconds = 0};
enum { PLAIN = 1, EXPENSIVE = 12, RANDOM = 60 };

/* What is larger comes from memory, not from a cache, whole; a sweep that
 * writes what it has read goes there faster than a triad. */
static const double cached_bytes = 64 << 20, from_memory = 0.55;

/* In the time in which a cache moves a byte. */
static const double operations_per_byte = 12;

AqSpeed aq_speed_of(const AqTarget *target)
{
    double lanes = target->vector;
    return (AqSpeed){
        .flops = 2 * 2 * 2 * lanes * 3e9, .bytes = 25e9, .launch = 1e-6};
}

static const Cost *cost_of(AqOp op, const char *algorithm)
{
    const Cost *any = NULL;
    for (int i = 0; i < AQ_COUNT(costs); i++) {
        if (costs[i].op != op)
            continue;
        if (costs[i].algorithm && !strcmp(costs[i].algorithm, algorithm))
            return &costs[i];
        if (!costs[i].algorithm)
            any = &costs[i];
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
        if (node->op == AQ_OP_random)
            sum += RANDOM * (double)aq_elements(&node->type);
        else if (facts & (AQ_POINTWISE | AQ_REDUCES))
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
    const AqNode *node = aq_node(g, kernel);
    const AqGraph *body = aq_attr_body(node);
    const char *algorithm = aq_attr_text(node, AQ_KEY_ALGORITHM, "");
    const Cost *cost = NULL;
    double work = 0;
    for (AqId id = 0; id < body->count; id++) {
        const Cost *of = cost_of(aq_node(body, id)->op, algorithm);
        cost = of ? of : cost;
        work += of ? aq_node_flops(body, id) : 0;
    }
    if (!cost) {
        cost = &pointwise_cost;
        work = pointwise(body);
    }
    double bytes = bytes_moved(g, kernel);
    double moved = cost->moved * bytes * operations_per_byte / speed->flops;
    if (bytes > cached_bytes)
        moved = AQ_MAX(moved, from_memory * bytes / speed->bytes);
    return work / (speed->flops * cost->of_peak) + moved +
           1e-6 * cost->microseconds + speed->launch;
}
