/* Reductions of what a contraction's kernel gives, over all dimensions but the
 * last one, or but the samples (dimension 0) too.
 *
 * A task has running values of the rows that it writes, in slots of the
 * workspace: one for each sample that its block of rows meets.  A stage of its
 * own joins the slots of a sample, in their order.
 *
 * A slot has for each strip of columns how many rows were taken into it, then
 * rows of `width` floats.  Of a sum there is its running value; of moments a
 * value near the mean (the first one), the sum of what differs from it, and
 * that of the squares. */
#ifndef AQ_CODEGEN_CONTRACT_SUMS_H
#define AQ_CODEGEN_CONTRACT_SUMS_H

#include "codegen/emit.h"

typedef struct AqSum {
    AqOp op;           /* reduce_sum or moments */
    AqId value;        /* what is reduced */
    int32_t row;       /* the first of its rows of a slot */
    int32_t buffer[2]; /* of the sum, or of mean and m2; -1: not wanted */
} AqSum;

typedef struct AqSums {
    AqSum of[AQ_MAX_SUMS];
    int32_t count, rows; /* of a slot */
    int32_t work_buffer;
    int64_t samples; /* that are kept apart; else 1 */
    int64_t columns, strip, strips, width;
    int64_t counts, slot; /* floats of a slot's counts, and of all of it */
    int64_t at;           /* floats into the workspace */
} AqSums;

/* Rows of the result in the order in which blocks take them. */
typedef struct AqSumPart {
    int64_t per_sample, per_block, blocks;
    int64_t first; /* the slot of block b and sample n is first + b + n */
} AqSumPart;

/* Whether that output of a body is such a reduction. */
bool aq_is_sum(const AqGraph *body, AqId output);
/* Those of a body whose contraction is `id`. */
AqStatus aq_sums_find(const AqKernel *kernel, AqId id, AqSums *sums,
                      AqError *error);
/* Into strips of so many columns, for which rows are counted apart. */
void aq_sums_divide(AqSums *sums, int64_t strip);
/* Slots for a part that takes `rows` rows, `per_block` at a time, behind the
 * slots that there are: *slots grows. */
AqSumPart aq_sums_part(const AqSums *sums, int64_t rows, int64_t per_block,
                       int64_t *slots);
/* Places them at `*floats`, which grow by them; the tasks that join them. */
int64_t aq_sums_place(AqSums *sums, int64_t slots, int64_t *floats);
/* What aq_store_rows wants of a task that writes strips strip0 .. strip1 - 1 of
 * a block; its slots are empty now.  NULL: nothing is reduced. */
float *aq_sums_begin(const AqSums *sums, const AqSumPart *part,
                     void *const *buffers, int64_t block, int64_t strip0,
                     int64_t strip1);
/* Where `rows` more rows of a sample are taken in, from column `column` of a
 * strip on, and how many are there. */
static inline float *aq_sums_take(const AqSums *s, float *slots, int64_t sample,
                                  int64_t column, int64_t rows, int64_t *taken)
{
    float *slot = slots + (s->samples > 1 ? sample * s->slot : 0);
    float *count = slot + column / s->strip;
    *taken = (int64_t)*count;
    *count += (float)rows;
    return slot + s->counts + column;
}
/* The stage of so many tasks that joins them; `parts` is copied. */
AqStatus aq_sums_plan(AqCodePlan *plan, const AqSums *sums,
                      const AqSumPart *parts, int n_parts, int64_t tasks,
                      AqError *error);

/* ---- of the leaf that stores: running values, vector by vector ---- */

typedef struct AqRunning {
    AqEmit *e;
    const AqSums *sums;
    LLVMValueRef at;    /* the strip's columns of the slot */
    LLVMValueRef taken; /* rows that are in it, an i64 */
    int vectors;
    LLVMValueRef v[AQ_MAX_CARRIED];
} AqRunning;

/* Before a loop over rows; `v` is what it carries. */
int aq_running_load(AqRunning *r);
/* Takes in a row's value of sum `which` in that vector. */
void aq_running_take(AqRunning *r, int which, int vector, LLVMValueRef row,
                     LLVMValueRef value);
void aq_running_store(AqRunning *r);

#endif
