/* Sums, means, moments, softmax, products and look-up. */
#include "frontend/dsl/build.h"

/* The axes named, ascending; all of them where none is. */
static int axes_of(AqPlace at, const char *what, AqTensor x, AqAxes given,
                   int64_t *axes)
{
    int rank = aq_type_of(x)->rank;
    bool chosen[AQ_MAX_RANK] = {false};
    for (int i = 0; i < given.count; i++) {
        int axis = aq_axis(at, x, given.axis[i], what);
        if (axis < 0)
            return -1;
        if (chosen[axis]) {
            aq_complain(at, x.graph, "%s: axis %d is named twice", what,
                        given.axis[i]);
            return -1;
        }
        chosen[axis] = true;
    }
    int count = 0;
    for (int i = 0; i < rank; i++)
        if (given.count == 0 || chosen[i])
            axes[count++] = i;
    return count;
}

/* Puts the reduced axes back as ones, if asked to. */
static AqTensor keep_axes(AqGraph *g, AqId id, AqTensor x, const int64_t *axes,
                          int count, bool keep)
{
    if (!keep || id < 0)
        return aq_wrap(g, id);
    AqType type = *aq_type_of(x);
    for (int i = 0; i < count; i++)
        type.dim[axes[i]] = 1;
    return aq_wrap(g, aq_reshape_node(g, id, type.rank, type.dim));
}

static AqTensor reduce(AqPlace at, const char *what, AqOp op, AqReduce a)
{
    AqGraph *g = aq_enter(at, what, &a.x, 1);
    if (!g)
        return aq_lost(a.x);
    int64_t axes[AQ_MAX_RANK];
    int count = axes_of(at, what, a.x, a.axes, axes);
    if (count < 0)
        return aq_lost(a.x);
    if (count == 0)
        return a.x;
    AqId id = aq_reduce_node(g, op, a.x.id, axes, count);
    return keep_axes(g, id, a.x, axes, count, a.keep);
}

AqTensor aq_sum_(AqPlace at, AqReduce a)
{
    return reduce(at, "sum", AQ_OP_reduce_sum, a);
}

AqTensor aq_max_(AqPlace at, AqReduce a)
{
    return reduce(at, "max", AQ_OP_reduce_max, a);
}

AqTensor aq_mean_(AqPlace at, AqReduce a)
{
    AqTensor sum = reduce(at, "mean", AQ_OP_reduce_sum, a);
    if (!aq_good(sum))
        return sum;
    double all = (double)aq_elements(aq_type_of(a.x));
    double left = (double)aq_elements(aq_type_of(sum));
    return aq_scale(sum, left / all);
}

AqMoments aq_moments_(AqPlace at, AqReduce a)
{
    AqMoments lost = {aq_lost(a.x), aq_lost(a.x)};
    AqGraph *g = aq_enter(at, "moments", &a.x, 1);
    if (!g)
        return lost;
    int64_t axes[AQ_MAX_RANK], elements = 1;
    int count = axes_of(at, "moments", a.x, a.axes, axes);
    if (count < 0)
        return lost;
    for (int i = 0; i < count; i++)
        elements *= aq_type_of(a.x)->dim[axes[i]];
    if (count == 0 || elements == 0) {
        aq_complain(at, g, "moments: of no elements");
        return lost;
    }
    AqAttr over = aq_ints(AQ_KEY_AXES, axes, count);
    AqId both = aq_build(g, AQ_OP_moments, NULL, &a.x.id, 1, &over, 1);
    if (both < 0)
        return lost;
    AqTensor mean =
        keep_axes(g, aq_result_node(g, both, 0), a.x, axes, count, a.keep);
    AqTensor m2 =
        keep_axes(g, aq_result_node(g, both, 1), a.x, axes, count, a.keep);
    return (AqMoments){mean, aq_scale(m2, 1.0 / (double)elements)};
}

/* The largest element is taken off first, so that exp stays finite. */
static AqTensor centred(AqPlace at, AqTensor x, int axis)
{
    AqTensor top = aq_max(x, .axes = AQ_AXES(axis), .keep = true);
    return aq_subtract(x, aq_detach(top));
}

AqTensor aq_softmax_(AqPlace at, AqTensor x, int axis)
{
    AqTensor e = aq_exp(centred(at, x, axis));
    return aq_div(e, aq_sum(e, .axes = AQ_AXES(axis), .keep = true));
}

AqTensor aq_log_softmax_(AqPlace at, AqTensor x, int axis)
{
    x = centred(at, x, axis);
    AqTensor sum = aq_sum(aq_exp(x), .axes = AQ_AXES(axis), .keep = true);
    return aq_subtract(x, aq_log(sum));
}

/* (batch..., m, k) -> (batch m, k): a shared `b` needs no batch. */
static AqTensor flat_matmul(AqPlace at, AqMatmul a)
{
    AqShape shape = aq_shape(a.a);
    int64_t inner = shape.dim[shape.rank - 1];
    AqTensor flat = aq_reshape(a.a, AQ_SHAPE(-1, inner));
    AqTensor product = aq_matmul(flat, a.b, .transpose_b = a.transpose_b);
    shape.dim[shape.rank - 1] = aq_dim(product, 1);
    return aq_reshape(product, shape);
}

/* Repeats the batch dimensions of a or b where the other has more. */
static bool match_batches(AqPlace at, AqTensor *a, AqTensor *b)
{
    AqType ta = *aq_type_of(*a), tb = *aq_type_of(*b);
    int rank = AQ_MAX(ta.rank, tb.rank);
    AqType to[2] = {ta, tb};
    for (int i = 0; i < rank; i++) {
        int ia = i - (rank - ta.rank), ib = i - (rank - tb.rank);
        int64_t da = ia >= 0 ? ta.dim[ia] : 1, db = ib >= 0 ? tb.dim[ib] : 1;
        bool batch = i < rank - 2;
        if (batch && da != db && da != 1 && db != 1)
            return false;
        to[0].dim[i] = batch ? AQ_MAX(da, db) : da;
        to[1].dim[i] = batch ? AQ_MAX(da, db) : db;
    }
    to[0].rank = to[1].rank = rank;
    *a = aq_fit(at, *a, &to[0]);
    *b = aq_fit(at, *b, &to[1]);
    return true;
}

static AqTensor bad_matmul(AqPlace at, AqTensor a, AqTensor b, const char *why)
{
    return aq_complain(at, a.graph, "matmul: %s (%s x %s)", why,
                       aq_type_name(a.graph, aq_type_of(a)),
                       aq_type_name(a.graph, aq_type_of(b)));
}

AqTensor aq_matmul_(AqPlace at, AqMatmul a)
{
    AqTensor both[] = {a.a, a.b};
    AqGraph *g = aq_enter(at, "matmul", both, 2);
    if (!g)
        return aq_lost(a.a.graph ? a.a : a.b);
    int ranks[] = {aq_type_of(a.a)->rank, aq_type_of(a.b)->rank};
    if (ranks[0] < 2 || ranks[1] < 2)
        return bad_matmul(at, a.a, a.b, "both need two dimensions or more");
    if (ranks[0] > 2 && ranks[1] == 2 && !a.transpose_a)
        return flat_matmul(at, a);
    if (ranks[0] > 2 || ranks[1] > 2) {
        if (!match_batches(at, &both[0], &both[1]))
            return bad_matmul(at, a.a, a.b, "batch sizes differ");
        if (!aq_good(both[0]) || !aq_good(both[1]))
            return aq_lost(a.a);
        aq_enter(at, "matmul", both, 2);
    }
    return aq_wrap(g, aq_matmul_node(g, both[0].id, both[1].id, a.transpose_a,
                                     a.transpose_b));
}

AqTensor aq_gather_(AqPlace at, AqTensor table, AqTensor index)
{
    AqTensor both[] = {table, index};
    AqGraph *g = aq_enter(at, "gather", both, 2);
    if (!g)
        return aq_lost(table.graph ? table : index);
    AqId inputs[] = {table.id, index.id};
    return aq_wrap(g, aq_build(g, AQ_OP_gather, NULL, inputs, 2, NULL, 0));
}
