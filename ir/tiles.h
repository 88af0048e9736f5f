/* How contractions are divided: what the choice of blocks counts with and code
 * generation builds.
 *
 * Tiles of a result in registers; of algorithm `winograd`, F(4x4, 3x3), tiles
 * of an image, 4x4 pixels of the result each, as 36 products of matrices.
 *
 * Units.  A unit is a run of `across` tiles side by side.  Units are numbered
 * downwards first, so that neighbours share two rows of pixels.  A task takes
 * `unit_block` of them. */
#ifndef AQ_IR_TILES_H
#define AQ_IR_TILES_H

#include "ir/ir.h"

/* ---- registers ---- */

/* Of an operand that is turned: rows at a time, whole tiles and whole vectors;
 * the terms from which on it pays. */
enum { AQ_TURNED_ROWS = 48, AQ_TURNED_TERMS = 64 };

/* The register tile of contractions: rows, and floats across. */
static inline int aq_tile_rows(const AqTarget *target)
{
    (void)target;
    return 6;
}

static inline int aq_tile_columns(const AqTarget *target)
{
    return (target->registers == 32 ? 4 : 2) * target->vector;
}

/* Products of numbers that are split into three of bfloat16 (codegen/split.h):
 * rows of the tile, and those that are turned at a time; terms of a product,
 * and the floats that so many take. */
enum {
    AQ_SPLIT_ROWS = 32,
    AQ_SPLIT_TURNED_ROWS = 2 * AQ_SPLIT_ROWS,
    AQ_SPLIT_TERMS = 32,
    AQ_SPLIT_FLOATS = 48,
};

/* ---- winograd ---- */

enum {
    AQ_TILE = 4,                 /* pixels of a tile, along one side */
    AQ_PATCH = 6,                /* of what it reads */
    AQ_POINTS = 36,              /* products */
    AQ_WINOGRAD_TERMS = 256,     /* channels of one pass, at most */
    AQ_WINOGRAD_EVALUATIONS = 2, /* of an operand of the weights' gradient that
                                    is an expression; else it is stored */
    /* tiles of which tasks share the columns in one block, at most; of a single
     * strip very few, for it is a task for one thread */
    AQ_WINOGRAD_FEW = 64,
    AQ_WINOGRAD_FEW_OF_A_STRIP = 24,
};

typedef struct AqTiles {
    int64_t samples, down, along;      /* tiles of a sample */
    int64_t across, segments;          /* tiles of a unit; units of a row */
    int64_t units, unit_block, blocks; /* in all; of a task; tasks */
} AqTiles;

/* Of images of so many pixels. */
static inline AqTiles aq_tiles_of(int64_t samples, int64_t height,
                                  int64_t width)
{
    return (AqTiles){.samples = samples,
                     .down = aq_ceil_div(height, AQ_TILE),
                     .along = aq_ceil_div(width, AQ_TILE)};
}

static inline int64_t aq_tiles_in_all(const AqTiles *t)
{
    return t->samples * t->down * t->along;
}

/* `wanted` tiles a task, as near as whole units come. */
static inline void aq_tiles_cut(AqTiles *t, int64_t wanted)
{
    t->segments = aq_ceil_div(t->along, AQ_MAX(wanted, 1));
    t->across = aq_ceil_div(t->along, t->segments);
    t->segments = aq_ceil_div(t->along, t->across);
    t->units = t->samples * t->segments * t->down;
    t->blocks = aq_ceil_div(t->units, AQ_MAX(wanted / t->across, 1));
    t->unit_block = aq_ceil_div(t->units, t->blocks);
    t->blocks = aq_ceil_div(t->units, t->unit_block);
}

/* Whether tasks share the columns of a result in so many strips. */
static inline bool aq_winograd_is_small(const AqTiles *t, int64_t strips)
{
    return aq_tiles_in_all(t) <=
           (strips > 1 ? AQ_WINOGRAD_FEW : AQ_WINOGRAD_FEW_OF_A_STRIP);
}

/* Floats across a strip of a result of so many columns, forward: all strips are
 * alike, and where each is a task their number is even, if vectors divide so
 * and are not left alone. */
static inline int64_t aq_winograd_strip(const AqTiles *t, int64_t columns,
                                        const AqTarget *target)
{
    int64_t vectors = aq_ceil_div(columns, target->vector);
    int64_t strips = aq_ceil_div(columns, aq_tile_columns(target));
    if (aq_winograd_is_small(t, strips) && strips % 2 &&
        aq_ceil_div(vectors, strips + 1) > 1)
        strips++;
    return aq_ceil_div(vectors, strips) * target->vector;
}

/* Channels of V in passes: of `pass` channels, in rows of `row` floats. */
typedef struct AqPasses {
    int64_t pass, passes, row;
} AqPasses;

/* At most `most` channels a pass, whole vectors.  Rows have some spare floats,
 * so that tiles do not meet in one set of the cache; few lengths, so that few
 * register tiles are compiled. */
static inline AqPasses aq_passes_of(int64_t channels, int64_t most,
                                    int64_t vector)
{
    enum { LEAST = 64, SPARE = 16 };
    AqPasses p = {.passes = aq_ceil_div(channels, most), .row = LEAST};
    p.pass = aq_round_up(aq_ceil_div(channels, p.passes), vector);
    p.passes = aq_ceil_div(channels, p.pass);
    while (p.row < p.pass)
        p.row *= 2;
    p.row += SPARE;
    return p;
}

#endif
