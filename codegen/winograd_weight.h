/* The closure of the weight gradient: winograd_weight.c fills it,
 * winograd_sums.c runs on it. */
#ifndef AQ_CODEGEN_WINOGRAD_WEIGHT_H
#define AQ_CODEGEN_WINOGRAD_WEIGHT_H

#include "codegen/winograd.h"

enum { AQ_WINOGRAD_X, AQ_WINOGRAD_DY };

/* Matrices of floats: V (points; panels; tiles, panel) of x, D (points; strips;
 * tiles, columns) of dy, and the sums M of a task (points; strips; register
 * tiles; tile_rows, columns). */
typedef struct AqWinogradWeight {
    AqTileImage image[2];
    AqTiles tiles;
    int64_t work_buffer;
    int64_t n_tiles, pass;   /* all tiles; of one call of the register tile */
    int64_t panel, panels;   /* channels of x that lie side by side */
    int64_t strips, columns; /* of dy, the same */
    int64_t tile_rows, row_tiles, vector;
    int64_t row_block, strip_block; /* of a task: register tiles, strips */
    int64_t slices,
        slice;       /* the tiles, in pieces of so many that tasks share */
    int64_t sums_at; /* of slices, if several: (slices; row tiles; strips;
                        taps; tile_rows, columns) */
    int64_t v_at, d_at, v_point, d_point, m_point;
    AqStoring storing;
    AqSumPart sums; /* of blocks of rows; of register tiles, if slices */
    AqTransformFn *transform[2], *transform_back;
    AqMicros micro;
} AqWinogradWeight;

AqTaskFn aq_winograd_weight_tiles, aq_winograd_weight_run,
    aq_winograd_weight_join;

#endif
