/* Private to the reference interpreter: what an op's evaluation rule sees, and
 * the rules themselves, one file a family.
 *
 * A rule reads `in`, fills `out` (allocated and zeroed before it is called) and
 * uses doubles throughout; an i32 value is a double that holds a whole number.
 * Shapes and attributes were checked when the node was built. */
#ifndef AQ_EVALUATE_H
#define AQ_EVALUATE_H

#include "ir/ir.h"

typedef struct Environment Environment; /* what sources read: interpret.c */

typedef struct Evaluation {
    const AqGraph *graph;
    const AqNode *node;
    const AqValue *const *in; /* in[i][k]: result k of input i */
    AqValue *out;             /* out[k]: result k */
    const Environment *environment;
    AqError *error;
} Evaluation;

/* ---- interpret.c ---- */

void aq_evaluate_bound(Evaluation *e);
void aq_evaluate_result(Evaluation *e);
void aq_evaluate_kernel(Evaluation *e);
/* "models/m.c:7: gather %5: sentence, in scope s" */
void aq_evaluate_fail(Evaluation *e, AqStatus status, const char *format, ...)
    AQ_PRINTF(3, 4);
/* Zeroed doubles for the length of one rule; the rule calls free.  NULL, with
 * the error recorded, when memory ends. */
double *aq_evaluate_scratch(Evaluation *e, int64_t count);

/* ---- evaluate_source.c ---- */

void aq_evaluate_const(Evaluation *e);
void aq_evaluate_table(Evaluation *e);
void aq_evaluate_iota(Evaluation *e);
void aq_evaluate_random(Evaluation *e);

/* ---- evaluate_pointwise.c ---- */

void aq_evaluate_neg(Evaluation *e);
void aq_evaluate_abs(Evaluation *e);
void aq_evaluate_sign(Evaluation *e);
void aq_evaluate_floor(Evaluation *e);
void aq_evaluate_exp(Evaluation *e);
void aq_evaluate_log(Evaluation *e);
void aq_evaluate_sqrt(Evaluation *e);
void aq_evaluate_rsqrt(Evaluation *e);
void aq_evaluate_sin(Evaluation *e);
void aq_evaluate_cos(Evaluation *e);
void aq_evaluate_tanh(Evaluation *e);
void aq_evaluate_erf(Evaluation *e);
void aq_evaluate_sigmoid(Evaluation *e);
void aq_evaluate_is_finite(Evaluation *e);
void aq_evaluate_cast(Evaluation *e);
void aq_evaluate_copy(Evaluation *e);
void aq_evaluate_add(Evaluation *e);
void aq_evaluate_sub(Evaluation *e);
void aq_evaluate_mul(Evaluation *e);
void aq_evaluate_div(Evaluation *e);
void aq_evaluate_max(Evaluation *e);
void aq_evaluate_min(Evaluation *e);
void aq_evaluate_less(Evaluation *e);
void aq_evaluate_less_equal(Evaluation *e);
void aq_evaluate_equal(Evaluation *e);
void aq_evaluate_select(Evaluation *e);

/* ---- evaluate_reduce.c ---- */

void aq_evaluate_reduce_sum(Evaluation *e);
void aq_evaluate_reduce_max(Evaluation *e);
void aq_evaluate_moments(Evaluation *e);

/* ---- evaluate_movement.c ---- */

void aq_evaluate_reshape(Evaluation *e);
void aq_evaluate_transpose(Evaluation *e);
void aq_evaluate_slice(Evaluation *e);
void aq_evaluate_pad(Evaluation *e);
void aq_evaluate_broadcast(Evaluation *e);
void aq_evaluate_concat(Evaluation *e);
void aq_evaluate_repeat(Evaluation *e);

/* ---- evaluate_gather.c ---- */

void aq_evaluate_gather(Evaluation *e);
void aq_evaluate_scatter_add(Evaluation *e);

/* ---- evaluate_contract.c ---- */

void aq_evaluate_matmul(Evaluation *e);
void aq_evaluate_conv2d(Evaluation *e);
void aq_evaluate_conv2d_input_gradient(Evaluation *e);
void aq_evaluate_conv2d_weight_gradient(Evaluation *e);

/* ---- evaluate_attention.c ---- */

void aq_evaluate_attention(Evaluation *e);
void aq_evaluate_attention_gradient(Evaluation *e);

/* ---- walk.c: two arrays walked together, row by row ---- */

enum { AQ_WALK_RANK = 2 * AQ_MAX_RANK };

/* An array's element (i, j, ...) lies at offset + i * stride[0] + ...  A row is
 * the last dimension: `length` elements, `step` apart. */
typedef struct AqWalk {
    int rank;
    int64_t dim[AQ_WALK_RANK], index[AQ_WALK_RANK];
    int64_t stride[2][AQ_WALK_RANK];
    int64_t offset[2], length, step[2];
} AqWalk;

/* for (bool more = aq_walk_first(...); more; more = aq_walk_next(&walk)) */
bool aq_walk_first(AqWalk *walk, int rank, const int64_t *dim,
                   const int64_t *stride_a, const int64_t *stride_b);
bool aq_walk_next(AqWalk *walk);
/* Row-major strides of a type. */
void aq_strides(const AqType *type, int64_t *stride);

#endif
