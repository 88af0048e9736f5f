/* The leaves of contractions: what LLVM makes code of, and the loops in C call.
 * What they compute of: contract.h. */
#ifndef AQ_CODEGEN_CONTRACT_LEAVES_H
#define AQ_CODEGEN_CONTRACT_LEAVES_H

#include "codegen/contract_sums.h"
#include "codegen/split.h"

enum { AQ_MOST_ROWS = 12, AQ_MOST_VECTORS = 4 }; /* of a register tile */

typedef enum AqPanel {
    AQ_PANEL_ROWS,  /* a tile is copied to [rows][row] */
    AQ_PANEL_K,     /* read where it lies, segment by segment */
    AQ_PANEL_SPLIT, /* of a register tile: rows that are split */
} AqPanel;

/* Points of the grid whose A lies `stride` apart, and the k of the first. */
typedef struct AqSegment {
    int64_t a, k, count;
} AqSegment;

typedef struct AqSegments {
    AqSegment *at;
    int64_t count, stride;
} AqSegments;

/* tile[r][n] = (more ? tile[r][n] : 0) + sum over k of a[r][k] * b[k * ldb +
 * n]; a tile's row has a strip's floats.  Form "rows": `k` terms, a's
 * rows lie a constant apart.  Form "k": the terms are those of the segments,
 * a[k][r] with `k` floats from term to term. */
typedef void AqMicroFn(const float *a, const float *b, float *tile, int64_t k,
                       int64_t ldb, int64_t more, const AqSegment *segments,
                       int64_t n_segments, const float *ahead,
                       int64_t ahead_stride);
/* to[r * to_stride + i] = from[r * from_stride + i], i < count */
typedef void AqCopyFn(const float *from, int64_t from_stride, float *to,
                      int64_t to_stride, int64_t rows, int64_t count);
/* The same into a strip of B: a row of `to` is that of a tile, zeros follow. */
typedef void AqPanelFn(const float *from, int64_t from_stride, float *to,
                       int64_t rows, int64_t count);
/* to[k * to_stride + r] = from[r * from_stride + k], k < count, a multiple of
 * the vector; r goes on to the columns of a tile: what lies there from `rows`
 * on is finite and not used. */
typedef void AqTransposeFn(const float *from, int64_t from_stride, float *to,
                           int64_t to_stride, int64_t rows, int64_t count);
/* The operand at `index` and on: `columns` columns of rows which follow each
 * other along the last dimension but one, and in `to` lie `stride` apart.  They
 * begin at a multiple of the vector, and end at one or with the row. */
typedef void AqEvaluateFn(void *const *buffers, const int64_t *index, float *to,
                          int64_t stride, int64_t rows, int64_t columns);
/* The results where the contraction's value at `index` and on is in the tile:
 * rows along the last dimension but one, `step` apart.  What is reduced is
 * taken into `sums`, a strip's columns of a slot (see AqSums) in which `taken`
 * rows are. */
typedef void AqStoreFn(void *const *buffers, const float *tile,
                       const int64_t *index, int64_t step, int64_t rows,
                       int64_t columns, float *sums, int64_t taken);

/* Register tiles of all sizes that a contraction needs; those of the matrix
 * unit by height in registers of 16 rows. */
typedef struct AqMicros {
    AqMicroFn *of[AQ_MOST_VECTORS][AQ_MOST_ROWS + 1]; /* [vectors - 1][rows] */
} AqMicros;

/* Those for a strip which begins `left` columns before the last, by height.
 * (No division: calls are short.) */
static inline AqMicroFn *const *aq_micros_of(const AqMicros *micros,
                                             int64_t left, int64_t columns,
                                             int64_t vector)
{
    int vectors = 0;
    for (int64_t end = vector; end < AQ_MIN(left, columns); end += vector)
        vectors++;
    return micros->of[vectors];
}

/* micro.c */
typedef struct AqMicroKey {
    int32_t panel, rows, vectors;
    int32_t columns; /* of a strip */
    int32_t row;     /* form "rows": floats from row to row of A */
} AqMicroKey;
AqStatus aq_emit_micro(AqEmit *e, const void *key);

/* Both register tiles are an AqMicroFn; its parameters. */
enum {
    AQ_MICRO_A,
    AQ_MICRO_B,
    AQ_MICRO_TILE,
    AQ_MICRO_K,
    AQ_MICRO_LDB,
    AQ_MICRO_MORE,
    AQ_MICRO_SEGMENTS,
    AQ_MICRO_COUNT,
    AQ_MICRO_AHEAD,
    AQ_MICRO_AHEAD_STRIDE,
};
void aq_emit_micro_function(AqEmit *e);
/* Asks for a line that will be read later, into L2; where the next one is. */
LLVMValueRef aq_emit_fetch_ahead(AqEmit *e, LLVMValueRef ahead);

/* micro_split.c: the same function, of split operands: form "rows", without
 * ldb; the rows of the key are registers of 16 rows. */
AqStatus aq_emit_micro_split(AqEmit *e, const void *key);

/* contract_pack.c; of panels and transposes a strip's columns are the context,
 * an int64_t */
AqStatus aq_emit_copy(AqEmit *e, const void *context);
AqStatus aq_emit_panel(AqEmit *e, const void *context);
AqStatus aq_emit_transpose(AqEmit *e, const void *context);

/* contract_evaluate.c */
typedef struct AqOperandCode {
    const AqGraph *body;
    AqId node;
} AqOperandCode;
AqStatus aq_emit_evaluate(AqEmit *e, const void *operand_code);

/* contract_store.c */
typedef struct AqStoreCode {
    const AqGraph *body;
    AqId contraction;
    int n_inputs;
    int64_t columns; /* of a group */
    int64_t strip;
    AqSums sums;
} AqStoreCode;
AqStatus aq_emit_tile_store(AqEmit *e, const void *store_code);
/* Over the body, its args' bases taken from the table of buffers. */
AqExpr *aq_contract_expr(AqEmit *e, const AqGraph *body, LLVMValueRef buffers);

#endif
