/* Products of floats on the processor's matrix unit, which multiplies bfloat16
 * and adds in float.  A float is split into three of 8 bits each,
 *
 *   x = h + m + l    exactly, |m| <= |x| / 2^8, |l| <= |x| / 2^16,
 *
 * and of the nine products of two such numbers the six that are not below 2^-24
 * of the whole are added up:  hh + (hm + mh) + (mm + hl + lh).  (The same as
 * oneMKL's float_to_bf16x3 and cuBLAS' BF16x9, but for the number of products:
 * Henry, Tang and Heinecke, "Leveraging the bfloat16 artificial intelligence
 * datatype for higher-precision computations", 2019.)  Sums of 32 terms are
 * added to a sum in float, so that errors are no larger than those of a chain
 * of fused multiply-adds.  What is below 2^-126 counts as zero, and an infinity
 * becomes a NaN.
 *
 * A chunk is 32 terms.  A word of 32 bits holds terms i and i + 16 of a chunk,
 * in both operands, so that splitting needs no shuffles:
 *
 *   A   row of words:      (chunks; part; 16)
 *   B   strip of columns:  (chunks; vector; part; 16 words, 16 columns)
 *
 * either of 48 floats for 32. */
#ifndef AQ_CODEGEN_SPLIT_H
#define AQ_CODEGEN_SPLIT_H

#include "codegen/emit.h"
#include "ir/tiles.h"

enum { AQ_SPLIT_PARTS = 3 };

/* `rows` rows of `terms` terms; zeros follow to the end of a chunk. */
typedef void AqSplitRowsFn(const float *from, int64_t from_stride, float *to,
                           int64_t to_stride, int64_t rows, int64_t terms);
/* `columns` columns of a strip; zeros follow. */
typedef void AqSplitStripFn(const float *from, int64_t from_stride, float *to,
                            int64_t terms, int64_t columns);

AqStatus aq_emit_split_rows(AqEmit *e, const void *context);
/* The context is the strip's columns, an int64_t. */
AqStatus aq_emit_split_strip(AqEmit *e, const void *context);

/* Floats that the terms of a row take. */
static inline int64_t aq_split_floats(int64_t terms)
{
    return aq_ceil_div(terms, AQ_SPLIT_TERMS) * AQ_SPLIT_FLOATS;
}

#endif
