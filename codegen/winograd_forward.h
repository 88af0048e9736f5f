/* The closure of the forward algorithm: winograd.c fills it, winograd_driver.c
 * runs on it. */
#ifndef AQ_CODEGEN_WINOGRAD_FORWARD_H
#define AQ_CODEGEN_WINOGRAD_FORWARD_H

#include "codegen/winograd.h"

enum {
    AHEAD = 16, /* floats in a line of cache, asked for before use */
    AQ_WINOGRAD_PIECE = 32, /* channels that one task of weights takes, */
    AQ_WINOGRAD_ROWS = 32,  /* and that are transformed at a time */
};

/* Matrices of floats: V (points; passes; rows, row), U (strips; passes; points;
 * pass, columns), M (points; rows, columns). */
typedef struct AqWinograd {
    AqTileImage image;
    AqTiles tiles;
    AqPart part;       /* the product's B: taps, rows, columns */
    AqOperand weights; /* where they are an expression */
    int64_t b_buffer, work_buffer, u_buffer;
    int64_t height, width; /* of the result */
    int64_t strips, strip_block;
    int64_t piece, pieces; /* units downwards, of which a task makes V */
    int64_t tile_rows;     /* of the register tile */
    int64_t pass, passes;  /* of the channels */
    int64_t rows, row;     /* tiles a task has room for; floats of one */
    int64_t v_point, u_point, m_point; /* floats from point to point */
    int64_t v_at, u_at;                /* floats into their workspaces */
    int64_t pixel_floats, own_u_floats, taps_at; /* of the scratch */
    int32_t share_v, share_u; /* made once, by stages of their own */
    AqPacking packing;
    AqStoring storing;
    AqSumPart sums;
    AqTransformFn *transform_input, *transform_weight, *transform_output;
    AqMicros micro;
} AqWinograd;

AqTaskFn aq_winograd_evaluate, aq_winograd_weights, aq_winograd_tiles,
    aq_winograd_run;

#endif
