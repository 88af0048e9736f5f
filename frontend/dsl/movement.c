/* Other shapes, same numbers. */
#include "frontend/dsl/build.h"

static AqTensor bad_shape(AqPlace at, const char *what, AqTensor x,
                          AqShape shape)
{
    AqText wanted = {0};
    for (int i = 0; i < shape.rank; i++)
        aq_text_printf(&wanted, "%s%lld", i ? "," : "",
                       (long long)shape.dim[i]);
    AqTensor lost = aq_complain(at, x.graph, "%s: %s does not fit into [%s]",
                                what, aq_type_name(x.graph, aq_type_of(x)),
                                wanted.data ? wanted.data : "");
    aq_text_free(&wanted);
    return lost;
}

AqTensor aq_reshape_(AqPlace at, AqTensor x, AqShape shape)
{
    AqGraph *g = aq_enter(at, "reshape", &x, 1);
    if (!g)
        return aq_lost(x);
    int64_t elements = aq_elements(aq_type_of(x)), product = 1;
    int free_axis = -1;
    AqShape wanted = shape;
    for (int i = 0; i < shape.rank; i++) {
        bool free = shape.dim[i] == -1;
        if (shape.dim[i] < -1 || (free && free_axis >= 0))
            return bad_shape(at, "reshape", x, wanted);
        if (free)
            free_axis = i;
        else if (__builtin_mul_overflow(product, shape.dim[i], &product))
            return bad_shape(at, "reshape", x, wanted);
    }
    if (free_axis >= 0) {
        if (product == 0 || elements % product)
            return bad_shape(at, "reshape", x, wanted);
        shape.dim[free_axis] = elements / product;
    } else if (product != elements) {
        return bad_shape(at, "reshape", x, wanted);
    }
    AqType to = aq_type(aq_type_of(x)->element, shape.rank, shape.dim);
    if (aq_same_shape(aq_type_of(x), &to))
        return x;
    return aq_wrap(g, aq_reshape_node(g, x.id, shape.rank, shape.dim));
}

AqTensor aq_transpose_(AqPlace at, AqTensor x, AqAxes axes)
{
    AqGraph *g = aq_enter(at, "transpose", &x, 1);
    if (!g)
        return aq_lost(x);
    int64_t perm[AQ_MAX_RANK];
    if (axes.count != aq_type_of(x)->rank)
        return aq_complain(at, g, "transpose: %d axes of a tensor of rank %d",
                           axes.count, aq_type_of(x)->rank);
    for (int i = 0; i < axes.count; i++) {
        int axis = aq_axis(at, x, axes.axis[i], "transpose");
        if (axis < 0)
            return aq_lost(x);
        for (int j = 0; j < i; j++)
            if (perm[j] == axis)
                return aq_complain(at, g, "transpose: axis %d is named twice",
                                   axes.axis[i]);
        perm[i] = axis;
    }
    return aq_wrap(g, aq_transpose_node(g, x.id, perm));
}

AqTensor aq_slice_(AqPlace at, AqSlice a)
{
    AqGraph *g = aq_enter(at, "slice", &a.x, 1);
    if (!g)
        return aq_lost(a.x);
    int axis = aq_axis(at, a.x, a.axis, "slice");
    if (axis < 0)
        return aq_lost(a.x);
    AqType type = *aq_type_of(a.x);
    int64_t start[AQ_MAX_RANK] = {0}, step[AQ_MAX_RANK], have = type.dim[axis];
    for (int i = 0; i < type.rank; i++)
        step[i] = 1;
    step[axis] = a.step ? a.step : 1;
    start[axis] = a.start;
    if (a.size < 1 || a.start < 0 || step[axis] < 1 || a.start >= have ||
        (a.size - 1) > (have - 1 - a.start) / step[axis])
        return aq_complain(at, g,
                           "slice: %lld elements from %lld by %lld do not lie "
                           "in an axis of %lld",
                           (long long)a.size, (long long)a.start,
                           (long long)step[axis], (long long)have);
    if (a.size == have)
        return a.x;
    type.dim[axis] = a.size;
    return aq_wrap(g, aq_slice_node(g, a.x.id, start, type.dim, step));
}

AqTensor aq_extend_(AqPlace at, AqTensor x, int axis, int64_t before,
                    int64_t behind)
{
    AqGraph *g = aq_enter(at, "extend", &x, 1);
    if (!g)
        return aq_lost(x);
    int plain = aq_axis(at, x, axis, "extend");
    if (plain < 0)
        return aq_lost(x);
    if (before < 0 || behind < 0)
        return aq_complain(at, g, "extend: %lld and %lld must not be negative",
                           (long long)before, (long long)behind);
    if (before == 0 && behind == 0)
        return x;
    AqType type = *aq_type_of(x);
    int64_t start[AQ_MAX_RANK] = {0}, step[AQ_MAX_RANK];
    for (int i = 0; i < type.rank; i++)
        step[i] = 1;
    start[plain] = before;
    type.dim[plain] += before + behind;
    return aq_wrap(g, aq_pad_node(g, x.id, start, step, type.dim));
}

AqTensor aq_concat_list_(AqPlace at, int axis, const AqTensor *parts, int count)
{
    if (count < 1)
        return AQ_NONE;
    AqGraph *g = aq_enter(at, "concat", parts, count);
    if (!g)
        return aq_lost(parts[0]);
    int plain = aq_axis(at, parts[0], axis, "concat");
    if (plain < 0)
        return aq_lost(parts[0]);
    if (count == 1)
        return parts[0];
    AqId *ids = AQ_NEW_ARRAY(g->arena, AqId, count);
    if (!ids)
        return aq_wrap(g, aq_graph_fail(g, AQ_NO_MEMORY, "memory ended"));
    for (int i = 0; i < count; i++)
        ids[i] = parts[i].id;
    return aq_wrap(g, aq_concat_node(g, ids, count, plain));
}

/* x has rank 4, or an error. */
static bool image(AqPlace at, const char *what, AqTensor x)
{
    if (!aq_enter(at, what, &x, 1))
        return false;
    if (aq_type_of(x)->rank == 4)
        return true;
    aq_complain(at, x.graph, "%s: %s is not an image (N, H, W, C)", what,
                aq_type_name(x.graph, aq_type_of(x)));
    return false;
}

AqTensor aq_over_space_(AqPlace at, AqTensor x)
{
    if (!aq_enter(at, "over_space", &x, 1))
        return aq_lost(x);
    if (aq_type_of(x)->rank != 2)
        return aq_complain(at, x.graph,
                           "over_space: rank 2 is needed, (N, C), not %d",
                           aq_type_of(x)->rank);
    return aq_reshape(x, AQ_SHAPE(aq_dim(x, 0), 1, 1, aq_dim(x, 1)));
}

AqTensor aq_enlarge_(AqPlace at, AqTensor x, int factor)
{
    if (!image(at, "enlarge", x))
        return aq_lost(x);
    if (factor < 1)
        return aq_complain(at, x.graph, "enlarge: factor %d is not positive",
                           factor);
    int64_t factors[] = {1, factor, factor, 1};
    if (factor == 1)
        return x;
    return aq_wrap(x.graph, aq_repeat_node(x.graph, x.id, factors));
}

AqTensor aq_average_pool_(AqPlace at, AqTensor x, int factor)
{
    if (!image(at, "average_pool", x))
        return aq_lost(x);
    const int64_t *dim = aq_type_of(x)->dim;
    if (factor < 1 || dim[1] % factor || dim[2] % factor)
        return aq_complain(at, x.graph,
                           "average_pool: %lld x %lld pixels are not whole "
                           "squares of %d",
                           (long long)dim[1], (long long)dim[2], factor);
    AqTensor tiles = aq_reshape(x, AQ_SHAPE(dim[0], dim[1] / factor, factor,
                                            dim[2] / factor, factor, dim[3]));
    return aq_mean(tiles, .axes = AQ_AXES(2, 4));
}
