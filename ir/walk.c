/* Two arrays of one shape but different strides, walked row by row. */
#include "ir/evaluate.h"

bool aq_walk_first(AqWalk *walk, int rank, const int64_t *dim,
                   const int64_t *stride_a, const int64_t *stride_b)
{
    *walk = (AqWalk){.length = 1};
    for (int i = 0; i < rank; i++)
        if (dim[i] == 0)
            return false;
    if (rank == 0)
        return true;
    walk->rank = rank - 1;
    for (int i = 0; i < walk->rank; i++) {
        walk->dim[i] = dim[i];
        walk->stride[0][i] = stride_a[i];
        walk->stride[1][i] = stride_b[i];
    }
    walk->length = dim[rank - 1];
    walk->step[0] = stride_a[rank - 1];
    walk->step[1] = stride_b[rank - 1];
    return true;
}

bool aq_walk_next(AqWalk *walk)
{
    for (int i = walk->rank - 1; i >= 0; i--) {
        walk->offset[0] += walk->stride[0][i];
        walk->offset[1] += walk->stride[1][i];
        if (++walk->index[i] < walk->dim[i])
            return true;
        walk->index[i] = 0;
        walk->offset[0] -= walk->dim[i] * walk->stride[0][i];
        walk->offset[1] -= walk->dim[i] * walk->stride[1][i];
    }
    return false;
}

void aq_strides(const AqType *type, int64_t *stride)
{
    int64_t product = 1;
    for (int i = type->rank - 1; i >= 0; i--) {
        stride[i] = product;
        product *= type->dim[i];
    }
}
