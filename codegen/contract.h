/* Contractions, from the inside: out[m, n] = sum over k of A[m, k] * B[k, n].
 *
 * Every contraction (matmul, conv2d and its two gradients) is brought to that
 * form; images are never unfolded in memory.  A small set of leaves is made by
 * LLVM; the blocking loops around them are plain C and shared by all kernels.
 *
 *   contract.c          the kind: finds the contraction and its algorithm
 *   contract_leaves.h   what LLVM makes code of, and the loops call
 *   contract_form.c     an op and its operands as parts of the normal form
 *   contract_view.c     which strided piece of an argument an operand is
 *   gemm.c              the algorithm `gemm`: closure, units and stages
 *   contract_driver.c   its loops: tasks, passes, tiles
 *   contract_result.c   tiles into the result
 *   contract_panels.c   operands into panels
 *   contract_ahead.c    what is fetched before it is needed
 *   contract_pack.c     leaves that copy, transpose and evaluate operands
 *   contract_store.c    the leaf that writes a tile through the epilogue
 *   contract_sums.c     reductions of what is written, joined at the end
 *   micro.c             the register tile: rows by vectors of columns
 *   micro_split.c       the same on the matrix unit, of operands that
 *   split.c             leaves have split into bfloat16
 *
 * Images.  A's element at grid point (n, y, x), tap (ty, tx) and channel j is
 *
 *   image[n][y * my + oy + ty * dy][x * mx + ox + tx * dx][j], zero outside.
 *
 * Form "rows": the grid is m, (ty, tx, j) is k (forward, input gradient, a b).
 * Form "k":    the grid is k, (ty, tx, j) is m (weight gradient, a^T b).
 * There A is read where it lies, or, a matrix that meets many columns, turned
 * into rows.
 * B is a matrix: element (k, n) is at ty * b_ty + tx * b_tx + j * b_j + n * b_n
 * with k = (ty, tx, j), and b_n or b_j is one. */
#ifndef AQ_CODEGEN_CONTRACT_H
#define AQ_CODEGEN_CONTRACT_H

#include "codegen/contract_leaves.h"
#include "ir/tiles.h"

enum {
    AQ_KC = 256,             /* the largest block of k, */
    AQ_SPLIT_KC = 512,       /* where operands are split */
    AQ_MOST_TAPS = 64,       /* whose segments are kept for a whole pass */
    AQ_FIRST_FLOATS = 32768, /* that one task evaluates */
    AQ_PACK_K = 512,         /* rows of k that one task of packing takes */
};

/* ---- contract.c: algorithms ---- */

/* The contraction of a kernel of this kind. */
typedef struct AqContractKernel {
    const AqKernel *kernel;
    AqId id; /* in the body */
    const AqNode *node;
    bool plain;    /* the kernel's only result is the contraction's value */
    bool split;    /* operands are split, for the matrix unit */
    int64_t strip; /* columns that are stored at a time */
    AqSums sums;   /* without a place */
} AqContractKernel;

/* A row of the table in contract.c; the kernel's attribute `algorithm` names
 * it.  As AqKernelKind. */
typedef struct AqContractAlgorithm {
    const char *name;
    bool split;
    AqStatus (*layout)(const AqContractKernel *k, AqKernelLayout *layout,
                       AqError *error);
    AqStatus (*plan)(AqCodePlan *plan, const AqContractKernel *k,
                     AqError *error);
} AqContractAlgorithm;

extern const AqContractAlgorithm aq_algorithm_gemm, aq_algorithm_gemm_split,
    aq_algorithm_blas, aq_algorithm_winograd;

/* blas.c: OpenBLAS's own words, or why it cannot be used. */
const char *aq_blas_version(void);

/* Links the stage made last to a unit, at `offset` of its closure. */
AqStatus aq_contract_link(AqCodePlan *plan, size_t offset, int unit,
                          AqError *error);
/* Register tiles of the heights `used`, for all strips of `n` columns; `like`
 * says the rest, `micros` where they lie in the closure. */
AqStatus aq_contract_link_micros(AqCodePlan *plan, const AqContractKernel *k,
                                 const AqMicroKey *like, const bool *used,
                                 int64_t n, size_t micros, AqError *error);
/* The leaf that evaluates operand `which`: an AqEvaluateFn. */
AqStatus aq_contract_link_evaluate(AqCodePlan *plan, const AqContractKernel *k,
                                   int which, size_t offset, AqError *error);

/* ---- the normal form ---- */

typedef struct AqImageGrid {
    int64_t grid_h, grid_w;         /* the grid is (n, y, x) */
    int64_t height, width;          /* outside of them are zeros */
    int64_t sn, sh, sw;             /* floats from sample, row, pixel to next */
    int64_t my, mx, oy, ox, dy, dx; /* see above */
    int64_t th, tw, channels;
    int64_t joined; /* taps along x that lie in one run of memory: 1 or tw */
} AqImageGrid;

/* A part has a grid of its own: a phase of a strided input gradient. */
typedef struct AqPart {
    AqImageGrid a;
    int64_t a_base, b_base; /* floats into the operands */
    int64_t b_ty, b_tx, b_j, b_n;
    int64_t b_tw, b_channels; /* k = (ty, tx, j) as B sees it */
    int64_t m, n, k;
    int64_t group, groups;  /* m in pieces that tiles do not cross: */
    int64_t tiles;          /* tile t is in piece t % groups */
    int64_t out_h, out_w;   /* rows of the result: (n, y, x) */
    int64_t y0, ys, x0, xs; /* at (n, y0 + ys * y, x0 + xs * x) */
    int64_t passes;         /* over k, each of p->pass or less */
    int64_t pass;
    int64_t packed, partial; /* floats into their workspaces */
    AqSumPart sums;
} AqPart;

typedef enum AqBPlace {
    AQ_B_IN_PLACE, /* read where it lies; b_n = 1 and k is one stride */
    AQ_B_SHARED,   /* packed by a stage of its own, into a workspace */
    AQ_B_TASK,     /* packed by every task, strip by strip */
} AqBPlace;

/* The attribute `blocks`; where B lies is up to gemm.c, unless it is given. */
typedef struct AqBlocks {
    int64_t rows, columns; /* of a task's block of the result */
    int64_t k;             /* of one pass; at most c->most_k */
    int64_t slices;        /* of k, added in order by a last stage */
    int64_t b_place;
} AqBlocks;

typedef enum AqOperandPlace {
    AQ_LIES,      /* in an argument, read there */
    AQ_FIRST,     /* evaluated into the workspace before anything else */
    AQ_IN_PANEL,  /* evaluated straight into panels, or strips */
    AQ_IN_WINDOW, /* evaluated into scratch: the rows that a task (form "rows")
                   * or a pass (form "k") reads */
} AqOperandPlace;

/* An operand as rows: all dimensions but the last. */
typedef struct AqOperand {
    AqEvaluateFn *evaluate;
    int32_t place, rank;
    int64_t at; /* AQ_FIRST: floats into the workspace */
    int64_t dim[AQ_MAX_RANK];
    int64_t rows, width;
    int64_t chunk, tasks; /* AQ_FIRST: rows of a task */
    int32_t source; /* an argument of which each element is read for the one at
                     * the same place, to be fetched ahead; -1: none */
} AqOperand;

/* How B is brought into strips, and results are written: see the leaves. */
typedef struct AqPacking {
    int64_t columns, vector; /* floats of a strip's row, of a register */
    AqPanelFn *strip;
    AqTransposeFn *transpose;
} AqPacking;

/* Operands into parts of bfloat16, where they are split. */
typedef struct AqSplitting {
    AqSplitRowsFn *rows; /* NULL: they are not */
    AqSplitStripFn *strip;
} AqSplitting;

typedef struct AqStoring {
    AqStoreFn *store; /* NULL: the tile is the result, and is copied */
    AqCopyFn *copy;
    int64_t columns; /* floats of a tile's row */
    int32_t out_buffer, rank;
    int64_t out_stride[AQ_MAX_RANK];
    AqSums sums;
} AqStoring;

/* Strips of that many columns, whole vectors, rather than of a whole tile's. */
void aq_contract_narrow(AqContractKernel *k, int64_t strip);
/* Fills all but the leaves, which are linked: `packing` and `storing` are where
 * those lie in the closure of the stage made last; columns are those of a
 * group. */
void aq_contract_leaves(const AqContractKernel *k, AqPacking *packing,
                        AqStoring *storing);
AqStatus aq_contract_link_packing(AqCodePlan *plan, const AqContractKernel *k,
                                  bool in_rows, size_t packing, AqError *error);
/* The leaves that split operands. */
AqStatus aq_contract_link_splitting(AqCodePlan *plan, const AqContractKernel *k,
                                    size_t splitting, AqError *error);
AqStatus aq_contract_link_storing(AqCodePlan *plan, const AqContractKernel *k,
                                  int64_t columns, size_t storing,
                                  AqError *error);

typedef struct AqContraction {
    int32_t panel, rank, n_batch, lead; /* lead: batches in the index */
    int32_t a_buffer, b_buffer, work_buffer;
    int32_t kept_buffer; /* where B is packed; -1: into the workspace */
    int32_t tile_rows, tile_columns, vector;
    int64_t batches, batch[AQ_MAX_RANK], a_batch[AQ_MAX_RANK];
    int64_t b_batch[AQ_MAX_RANK];
    int64_t column_batch; /* groups: columns from batch to batch */
    int64_t most_k, row;  /* terms of a pass; floats from row to row of A */
    int64_t tile_block, strip_block, slices, strips;
    int64_t b_place;
    int64_t tap_lists;   /* lists of segments that are kept at a time */
    bool turned;         /* form "k": A is copied to rows, */
    int64_t turned_rows; /* so many at a time */
    bool split;          /* for the matrix unit: */
    int64_t split_row;   /* floats from row to row of a tile that is split */
    int64_t split_at; /* the tile, and a strip yet to be split, floats into */
    int64_t whole_at; /* the scratch */
    int64_t panel_floats, sums_floats; /* of the scratch; B's strips follow */
    int64_t partial_floats;            /* of one slice */
    int64_t tasks[5];                  /* first, pack, run, reduce, sums */
    int64_t window;                    /* floats into the scratch */
    AqOperand operand[2];              /* A, B */
    AqMicros micro;
    AqPacking packing;
    AqSplitting splitting;
    AqStoring storing;
    int32_t n_parts;
    AqPart parts[];
} AqContraction;

/* Of a packed tile a few rows more may be computed, so that fewer heights of
 * the register tile are needed. */
static inline int aq_packed_height(int64_t rows, int tile_rows)
{
    int height = (int)rows;
    while (height < tile_rows && height & (height - 1))
        height++;
    return AQ_MIN(height, tile_rows);
}

/* The tile's code that computes `rows` rows.  (What is not packed must not be
 * read beyond.) */
static inline int aq_tile_height(const AqContraction *c, int64_t rows)
{
    enum { REGISTER = 16 };
    if (c->split)
        return (int)aq_ceil_div(rows, REGISTER);
    return c->panel == AQ_PANEL_ROWS || c->turned
               ? aq_packed_height(rows, c->tile_rows)
               : (int)AQ_MIN(rows, c->tile_rows);
}

/* Floats that `terms` terms of a packed strip take. */
static inline int64_t aq_strip_floats(const AqContraction *c, int64_t terms)
{
    return c->tile_columns * (c->split ? aq_split_floats(terms) : terms);
}

static inline float *aq_workspace(const AqContraction *c, void *const *buffers)
{
    return aq_aligned(buffers[c->work_buffer]);
}

/* ---- contract_view.c ---- */

/* buffer[base + sum of index * stride] is the node's value. */
typedef struct AqView {
    int32_t arg; /* -1: it is not such a piece of an argument */
    int64_t base, stride[AQ_MAX_RANK];
} AqView;

AqView aq_operand_view(const AqGraph *body, AqId node);
AqView aq_row_major_view(int32_t arg, const AqType *type);

/* ---- contract_form.c ---- */

/* How many parts the contraction `node` has. */
int aq_contract_parts(const AqNode *node);
/* Fills parts, batches and strides for `node`, whose operands lie as the views
 * say.  -1, or the operand (0 or 1) whose memory order does not suit, so that
 * it must be evaluated row by row. */
int aq_contract_form(const AqGraph *body, const AqNode *node,
                     const AqView view[2], AqContraction *c);

/* ---- contract_panels.c ---- */

/* Form "rows": rows of a tile, k in k0 .. k1-1, c->row floats apart. */
void aq_pack_rows(const AqContraction *c, const AqPart *p, const float *image,
                  int64_t tile, int64_t k0, int64_t k1, float *panel);
/* Form "k": the points k0 .. k1-1 that tap number `tap` sees inside the image.
 */
void aq_find_segments(const AqPart *p, int64_t tap, int64_t k0, int64_t k1,
                      AqSegments *segments);
/* Form "k": `rows` rows of A, whose terms lie `stride` apart from `from` on,
 * c->row floats apart. */
void aq_turn_rows(const AqContraction *c, const float *from, int64_t stride,
                  int64_t terms, int64_t rows, float *to);
/* Terms k0 .. k1-1 of a strip as its tiles read them; `whole` is room for
 * c->most_k of them. */
void aq_pack_strip(const AqContraction *c, const AqPart *p, const float *matrix,
                   int64_t strip, int64_t k0, int64_t k1, float *whole,
                   float *to);
/* Columns of a strip, k in k0 .. k1-1, into [k][tile_columns]. */
void aq_pack_b(const AqPacking *packing, const AqPart *p, const float *matrix,
               int64_t strip, int64_t k0, int64_t k1, float *panel);

/* Rows of the image, as one line of points, that the points m0 .. m1-1 of the
 * grid read: *from .. *to - 1. */
void aq_image_rows(const AqImageGrid *im, int64_t m0, int64_t m1, int64_t *from,
                   int64_t *to);

/* ---- contract_operand.c ---- */

/* One tap: points of the grid are rows of the operand, in their order. */
bool aq_is_direct(const AqImageGrid *im);
/* The operand `node`, AQ_FIRST; without a place in the workspace. */
AqOperand aq_operand_of(const AqGraph *body, AqId node);
/* The place: at `*floats`, which grow by it. */
void aq_place_first(AqOperand *operand, int64_t *floats);
/* Task `task` of those that evaluate it into the workspace `work`. */
void aq_evaluate_first(const AqOperand *operand, float *work,
                       void *const *buffers, int64_t task);
/* Where an operand that is an expression is evaluated, the form being known. */
void aq_settle_operands(AqContraction *c, const bool expression[2]);
/* Columns column .. column + columns - 1 of some rows. */
void aq_evaluate_rows(const AqOperand *operand, void *const *buffers,
                      int64_t row, int64_t rows, int64_t column,
                      int64_t columns, float *to, int64_t stride);
/* Columns of the window for the tiles tile0 .. tile1-1 of part p. */
void aq_window_columns(const AqContraction *c, const AqPart *p, int64_t batch,
                       int64_t tile0, int64_t tile1, int64_t *from,
                       int64_t *to);
/* The most floats of a window. */
int64_t aq_window_floats(const AqContraction *c);
/* Offset of a batch in an operand of these strides. */
int64_t aq_batch_offset(const AqContraction *c, const int64_t *stride,
                        int64_t batch);
AqTaskFn aq_contract_first;

/* ---- contract_driver.c ---- */

/* One task of the stage that multiplies. */
typedef struct AqContractTask {
    const AqPart *part;
    int64_t batch, slice;
    int64_t tile0, tile1, strip0, strip1;
    float *slots; /* see aq_sums_begin */
} AqContractTask;

/* Where operand `which` lies; NULL: nowhere, it is evaluated piece by piece. */
const float *aq_contract_operand(const AqContraction *c, void *const *buffers,
                                 int which);
/* Where strip `strip` of B is packed. */
float *aq_packed_strip(const AqContraction *c, const AqPart *p,
                       void *const *buffers, int64_t batch, int64_t strip);

/* The first row of a tile within its piece of m.  Tiles of the same rows in all
 * pieces (taps) follow each other: they read the same channels. */
static inline int64_t aq_row_in_group(const AqContraction *c, const AqPart *p,
                                      int64_t tile)
{
    return tile / p->groups * c->tile_rows;
}

AqTaskFn aq_contract_pack, aq_contract_run, aq_contract_reduce;

/* ---- contract_result.c ---- */

/* Writes `rows` rows of a tile, `step` apart along the last dimension but one
 * of the contraction's value, which begins at `index`; `slots` is what
 * aq_sums_begin gave. */
void aq_store_rows(const AqStoring *s, void *const *buffers, const float *tile,
                   const int64_t *index, int64_t step, int64_t rows,
                   int64_t columns, float *slots);

static inline int64_t aq_rows_of(const AqContraction *c, const AqPart *p,
                                 int64_t tile)
{
    return AQ_MIN(c->tile_rows, p->group - aq_row_in_group(c, p, tile));
}

/* Where a tile lies in the result, but for its column; found once for all
 * strips, because it takes divisions. */
typedef struct AqTilePlace {
    int64_t index[AQ_MAX_RANK]; /* batches alone */
    int64_t rows;               /* of the tile */
    int64_t n, y, x;            /* the first of them, in the part */
} AqTilePlace;

AqTilePlace aq_tile_place(const AqContraction *c, const AqContractTask *t,
                          int64_t tile);
/* The tile's sums for strip `strip`, through the epilogue. */
void aq_store_tile(const AqContraction *c, const AqContractTask *t,
                   AqTilePlace place, int64_t strip, void *const *buffers,
                   const float *sums);

/* ---- contract_ahead.c ---- */

/* Rows of memory that will be read, strip by strip, and how far they have been
 * asked for: no call divides. */
typedef struct AqFuture {
    const float *from;
    int64_t rows, row_stride, strips, strip_stride, strip_floats;
    int64_t row, column, strip; /* of the next call */
} AqFuture;

typedef struct AqAhead {
    int64_t lines; /* of a call; 0: nothing is asked for */
    AqFuture b, a;
} AqAhead;

typedef struct AqLines {
    const float *from;
    int64_t stride;
} AqLines;

/* What the task's pass over the terms k0 .. k1-1 will read. */
AqAhead aq_look_ahead(const AqContraction *c, const AqContractTask *t,
                      void *const *buffers, int64_t k0, int64_t k1);
/* What the next call asks for; `none` again and again where nothing is left. */
AqLines aq_lines_ahead(AqAhead *ahead, const float *none);

#endif
