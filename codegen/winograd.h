/* The algorithm `winograd`, from the inside: F(4x4, 3x3) of Lavin and Gray 2016
 * for 3x3 convolutions with stride 1 and their gradients.  For each tile of 4x4
 * pixels of the result, with B, A, G of that paper,
 *
 *   forward           y  = A^T [ sum over c of (G w G^T) (B^T x B) ] A
 *   input gradient    the same, with w turned round and its channels exchanged
 *   weight gradient   dw = G^T [ sum over tiles of (B^T x B) (A dy A^T) ] G
 *
 * so that 36 products of matrices take the place of 144 multiplications a tile
 * and pair of channels: a quarter of the work.
 *
 *   winograd.c            forward: closure, units and stages
 *   winograd_driver.c     forward: the loops
 *   winograd_weight.c     weight gradient: the same
 *   winograd_sums.c       weight gradient: the loops
 *   winograd_rows.c       pixels into row buffers, through the prologue
 *   winograd_transform.c  the leaf of all transforms
 *
 * Tiles and units are those of ir/tiles.h. */
#ifndef AQ_CODEGEN_WINOGRAD_H
#define AQ_CODEGEN_WINOGRAD_H

#include "codegen/contract.h"

enum { AQ_WINOGRAD_TAPS = 9 };

/* ---- winograd_transform.c ---- */

typedef enum AqTransform {
    AQ_TRANSFORM_INPUT,           /* B^T x B: 6x6 -> 6x6 */
    AQ_TRANSFORM_WEIGHT,          /* G w G^T: 3x3 -> 6x6 */
    AQ_TRANSFORM_OUTPUT,          /* A^T m A: 6x6 -> 4x4 */
    AQ_TRANSFORM_GRADIENT,        /* A dy A^T: 4x4 -> 6x6 */
    AQ_TRANSFORM_WEIGHT_GRADIENT, /* G^T m G: 6x6 -> 3x3 */
} AqTransform;

/* Element (i, j) of vector v is at i * row + j * column + v * lanes, in `from`
 * as well as in `to`; vectors > 0. */
typedef void AqTransformFn(const float *from, int64_t from_row,
                           int64_t from_column, float *to, int64_t to_row,
                           int64_t to_column, int64_t vectors);
/* `transform` points to an AqTransform. */
AqStatus aq_emit_transform(AqEmit *e, const void *transform);
AqStatus aq_winograd_link_transform(AqCodePlan *plan, AqTransform transform,
                                    size_t offset, AqError *error);

/* ---- winograd_rows.c ---- */

/* An image (N, H, W, C), or some channels of it, from a multiple of the vector
 * to another or to the last. */
typedef struct AqTileImage {
    AqEvaluateFn *evaluate; /* NULL: read from `buffer` where it lies */
    AqCopyFn *copy;
    int64_t buffer, base;             /* floats into the buffer */
    int64_t sn, sh, sw;               /* floats from sample, row, pixel on */
    int64_t first, channels;          /* channels that are taken */
    int64_t height, width, top, left; /* pixel of tile 0's patch */
    int64_t patch;                    /* pixels of a tile along one side */
} AqTileImage;

typedef struct AqUnit {
    int64_t sample, y, x, count; /* of the first tile; tiles in it */
    bool below; /* the unit before it in its task stands right above */
} AqUnit;

/* Of units first .. end - 1. */
int64_t aq_tiles_between(const AqTiles *t, int64_t first, int64_t end);
AqUnit aq_tile_unit(const AqTiles *t, int64_t unit, int64_t first);

/* Floats of a row of pixels of a unit, and of the buffer of its rows. */
int64_t aq_row_floats(const AqTileImage *im, const AqTiles *t);
int64_t aq_rows_floats(const AqTileImage *im, const AqTiles *t);
/* Brings a unit's pixels into `rows`, zeros outside of the image; what the unit
 * above has left there is used. */
void aq_fill_rows(const AqTileImage *im, const AqTiles *t, const AqUnit *unit,
                  void *const *buffers, float *rows);

/* ---- winograd.c ---- */

/* Zeros for operand `which` of the kernel: an image, read through its view or,
 * where it is an expression, evaluated. */
AqTileImage aq_tile_image(const AqContractKernel *k, int which);
AqStatus aq_winograd_link_image(AqCodePlan *plan, const AqContractKernel *k,
                                const AqTileImage *im, int which, size_t offset,
                                AqError *error);
/* For pieces of that many floats, of which the same place is used in turn: such
 * that they lie in different sets of the cache. */
int64_t aq_point_stride(int64_t floats);

/* ---- winograd_weight.c ---- */

AqStatus aq_winograd_weight_layout(const AqContractKernel *k,
                                   AqKernelLayout *layout, AqError *error);
AqStatus aq_winograd_weight_plan(AqCodePlan *plan, const AqContractKernel *k,
                                 AqError *error);

#endif
