/* The closure of the weight gradient: winograd_weight.c fills it,
 * winograd_sums.c runs on it. */
#ifndef AQ_CODEGEN_WINOGRAD_WEIGHT_H
#define AQ_CODEGEN_WINOGRAD_WEIGHT_H

#include "codegen/winograd.h"

enum { AQ_WINOGRAD_X, AQ_WINOGRAD_DY, AQ_WINOGRAD_IMAGES };

/* Matrices of floats, of a block of the weights and a pass over the tiles:
 * V (points; tiles, channels) of x, D (points; strips; tiles, columns) of dy,
 * and of a block the sums M (points; strips; register tiles; tile_rows,
 * columns).  V and D of all passes lie in the workspace, (blocks; passes), if
 * they are shared, else those of a pass in the task's scratch. */
typedef struct AqWinogradWeight {
    AqTileImage image[AQ_WINOGRAD_IMAGES];
    AqOperand first[AQ_WINOGRAD_IMAGES]; /* with tasks: evaluated beforehand */
    AqTiles tiles;                       /* a pass is a block of them */
    int64_t work_buffer;
    int64_t row_tiles, tile_rows; /* channels of x, in register tiles */
    int64_t strips, columns;      /* of dy, the same */
    int64_t vector;
    int64_t row_block, strip_block; /* of a task: register tiles, strips */
    int64_t slices, slice;          /* the passes, in pieces that tasks share */
    int64_t pass;                   /* tiles that it has room for */
    int64_t shared; /* V and D made once, by a stage of their own */
    int64_t v_tile, v_point, v_pass; /* floats to the next: tile, point, pass */
    int64_t d_row, d_strip, d_point, d_pass, m_point;
    int64_t v_at, d_at;       /* in the workspace, or in the scratch, */
    int64_t taps_at, rows_at; /* which M begins */
    int64_t sums_at; /* of slices, if several: (slices; row tiles; strips;
                        taps; tile_rows, columns) */
    AqStoring storing;
    AqSumPart sums; /* of blocks of rows; of register tiles, if slices */
    AqTransformFn *transform[AQ_WINOGRAD_IMAGES], *transform_back;
    AqMicros micro;
} AqWinogradWeight;

/* The channels of x that register tiles row0 .. row1 - 1 need, out to where
 * vectors begin: *from .. *to - 1. */
void aq_winograd_channels(const AqWinogradWeight *w, int64_t row0, int64_t row1,
                          int64_t *from, int64_t *to);

AqTaskFn aq_winograd_weight_first, aq_winograd_weight_tiles,
    aq_winograd_weight_run, aq_winograd_weight_join;

#endif
