/* Gradients of movement and look-up: the adjoint moves dy back, and adds up
 * where the op made copies. */
#include "passes/gradients.h"

/* y has x's elements in order, so dx is dy in x's shape */
void aq_gradient_reshape(AqGradientRule *r)
{
    AqType type = type_of(r->g, r->x[0]);
    r->dx[0] = aq_reshape_like(r->g, r->dy[0], &type);
}

/* dimension i of y is dimension perm[i] of x, so dx takes the inverse */
void aq_gradient_transpose(AqGradientRule *r)
{
    const AqAttr *perm = aq_attr(&r->node, AQ_KEY_PERM);
    int64_t inverse[AQ_MAX_RANK];
    for (int i = 0; i < perm->count; i++)
        inverse[perm->ints[i]] = i;
    r->dx[0] = aq_transpose_node(r->g, r->dy[0], inverse);
}

/* Where slice or pad begins and how far it steps. */
static void read_places(const AqNode *node, int64_t *start, int64_t *step)
{
    for (int i = 0; i < node->type.rank; i++) {
        start[i] = aq_attr_at(node, AQ_KEY_START, i, 0);
        step[i] = aq_attr_at(node, AQ_KEY_STEP, i, 1);
    }
}

/* y[i] = x[start + i step], so dx[start + i step] = dy[i], zero elsewhere */
void aq_gradient_slice(AqGradientRule *r)
{
    int64_t start[AQ_MAX_RANK], step[AQ_MAX_RANK];
    AqType type = type_of(r->g, r->x[0]);
    read_places(&r->node, start, step);
    r->dx[0] = aq_pad_node(r->g, r->dy[0], start, step, type.dim);
}

/* y[start + i step] = x[i], so dx[i] = dy[start + i step] */
void aq_gradient_pad(AqGradientRule *r)
{
    int64_t start[AQ_MAX_RANK], step[AQ_MAX_RANK];
    AqType type = type_of(r->g, r->x[0]);
    read_places(&r->node, start, step);
    r->dx[0] = aq_slice_node(r->g, r->dy[0], start, type.dim, step);
}

AqId aq_unbroadcast(AqGraph *g, AqId x, const AqType *to)
{
    AqType from = type_of(g, x);
    int64_t axes[AQ_MAX_RANK];
    int n = 0;
    for (int i = 0; i < from.rank; i++)
        if (to->dim[i] != from.dim[i])
            axes[n++] = i;
    if (n == 0)
        return x;
    return aq_reshape_like(g, aq_reduce_node(g, AQ_OP_reduce_sum, x, axes, n),
                           to);
}

/* y repeats x along its dimensions of 1, so dx = sum dy along them */
void aq_gradient_broadcast(AqGradientRule *r)
{
    AqType type = type_of(r->g, r->x[0]);
    r->dx[0] = aq_unbroadcast(r->g, r->dy[0], &type);
}

/* y holds the parts one after another, so each d part is a slice of dy */
void aq_gradient_concat(AqGradientRule *r)
{
    int axis = (int)aq_attr_int(&r->node, AQ_KEY_AXIS, 0);
    int64_t start[AQ_MAX_RANK] = {0}, step[AQ_MAX_RANK];
    for (int i = 0; i < AQ_MAX_RANK; i++)
        step[i] = 1;
    for (int i = 0; i < r->node.n_inputs; i++) {
        AqType part = type_of(r->g, r->x[i]);
        if (r->wanted[i])
            r->dx[i] = aq_slice_node(r->g, r->dy[0], start, part.dim, step);
        start[axis] += part.dim[axis];
    }
}

/* Sums the `factor` copies along `axis`, so that it is `size` long again. */
static AqId sum_copies(AqGraph *g, AqId x, int axis, int64_t size,
                       int64_t factor)
{
    AqType type = type_of(g, x);
    int64_t before = 1, after = 1, sum_axis = 2;
    for (int i = 0; i < type.rank; i++)
        *(i < axis ? &before : &after) *= i == axis ? 1 : type.dim[i];
    int64_t split[4] = {before, size, factor, after};
    AqId parts = aq_reshape_node(g, x, 4, split);
    AqId sum = aq_reduce_node(g, AQ_OP_reduce_sum, parts, &sum_axis, 1);
    type.dim[axis] = size;
    return aq_reshape_like(g, sum, &type);
}

/* y[i] = x[i / factor], so dx = sum of dy over the factor copies of each.  All
 * axes at once when the rank allows it: (H f, W f, C) -> (H, f, W, f, C). */
void aq_gradient_repeat(AqGradientRule *r)
{
    AqType type = type_of(r->g, r->x[0]);
    int64_t split[2 * AQ_MAX_RANK], axes[AQ_MAX_RANK];
    int rank = 0, n = 0;
    AqId dx = r->dy[0];
    for (int i = 0; i < type.rank; i++) {
        int64_t factor = aq_attr_at(&r->node, AQ_KEY_FACTOR, i, 1);
        split[rank++] = type.dim[i];
        if (factor == 1)
            continue;
        axes[n++] = rank;
        split[rank++] = factor;
    }
    if (n > 0 && rank <= AQ_MAX_RANK) {
        dx = aq_reshape_node(r->g, dx, rank, split);
        dx = aq_reduce_node(r->g, AQ_OP_reduce_sum, dx, axes, n);
    } else {
        for (int i = 0; i < type.rank; i++) {
            int64_t factor = aq_attr_at(&r->node, AQ_KEY_FACTOR, i, 1);
            if (factor != 1)
                dx = sum_copies(r->g, dx, i, type.dim[i], factor);
        }
    }
    r->dx[0] = dx;
}

/* y[i] = table[index[i]], so dtable[index[i]] += dy[i] */
void aq_gradient_gather(AqGradientRule *r)
{
    AqType type = type_of(r->g, r->x[0]);
    AqId inputs[2] = {r->x[1], r->dy[0]};
    if (r->wanted[0])
        r->dx[0] = aq_build(r->g, AQ_OP_scatter_add, &type, inputs, 2, NULL, 0);
}

/* y[index[i]] += update[i], so dupdate[i] = dy[index[i]] */
void aq_gradient_scatter_add(AqGradientRule *r)
{
    AqId inputs[2] = {r->dy[0], r->x[0]};
    if (r->wanted[1])
        r->dx[1] = aq_build(r->g, AQ_OP_gather, NULL, inputs, 2, NULL, 0);
}
