/* Attention that never stores the scores, from the inside.
 *
 * A task holds a piece of one head's queries (forward) or keys (backward) along
 * the lanes of vectors, W of them to a strip, and meets the other side in
 * blocks.  Every product is then rows of scalars against vectors:
 *
 *   forward, lanes are queries; scores in powers of two, c = scale / ln 2:
 *     s[j][i] = sum_e k[j][e] (c q)[e][i],  running maximum m[i], sum l[i]
 *     p[j][i] = 2^(s[j][i] - m[i]),  out[e][i] = sum_j v[j][e] p[j][i]
 *   backward, lanes are keys; y[i] = -scale dout_i . out_i:
 *     p[i][j]  = 2^(sum_e q[i][e] (c k)[e][j] - lse[i] / ln 2)
 *     ds[i][j] = p[i][j] (scale sum_e dout[i][e] v[e][j] + y[i])
 *     dv[e][j] = sum_i dout[i][e] p[i][j],  dk[e][j] = sum_i q[i][e] ds[i][j]
 *     dq[i][e] = sum_j ds[i][j] k[j][e]
 *
 * The other side is copied into panels, whose rows lie a constant apart: by a
 * first stage, which reads memory as it lies, (batch, heads, tokens, panel);
 * or, where there are heads enough for a task to take a whole one, by the task
 * itself into its scratch.  dq grows in such panels too, one for each share of
 * the keys; a last stage joins them in order, or the task takes its own out.
 *
 *   attend.c           from a kernel's body to a closure, units and stages
 *   attend_panels.c    the stages before and after
 *   attend_forward.c   the loops of a forward task
 *   attend_backward.c  those of a backward task
 *   attend_tile.c      the register tile, with what follows on its registers
 *   attend_rows.c      leaves that copy and transpose
 *   attend_softmax.c   exponential, running sum, sums of rows */
#ifndef AQ_CODEGEN_ATTEND_H
#define AQ_CODEGEN_ATTEND_H

#include "codegen/emit.h"

enum {
    AQ_SCORE_ROW = 144,   /* floats from row to row of scores */
    AQ_MOST_SCORES = 128, /* of them in a row */
    AQ_WHOLE_ROWS = 24,   /* a multiple of the rows of all tiles of tokens */
    AQ_MOST_VECTORS = 4,  /* of a strip */
};

/* ---- attend_tile.c ---- */

/* c[r][..] (+)= sum over k of a * b[k][..] for `tiles` tiles of rows, one after
 * the other.  Rows of A and C beyond what is wanted are touched too. */
typedef struct AqTile {
    const float *a; /* a[r * panel + k], or a[k * panel + r] */
    const float *b; /* b[k * ldb + ..] */
    float *c;       /* c[r * ldc + ..] */
    const float *x, *y, *p;
    float *top;
    int64_t tiles, k, ldb, ldc;
    int64_t more; /* not 0: what is in C is added to */
} AqTile;
typedef void AqTileFn(const AqTile *tile);

typedef enum AqTileKind {
    AQ_TILE_SCORES,  /* c = s, top[..] the largest of it and all rows */
    AQ_TILE_WEIGHTS, /* c = 2^(s - x[r]) */
    AQ_TILE_SLOPES,  /* c = p[r][..] (x[0] s + y[r]), p like c */
    AQ_TILE_SUMS,    /* c = c x[..] + s, A by columns */
    AQ_TILE_OUTER,   /* c = s, A has rows of scores */
    AQ_TILE_KINDS,
} AqTileKind;

typedef struct AqTileKey {
    int32_t kind, rows, vectors;
    int32_t panel; /* floats from row to row of A */
} AqTileKey;

AqStatus aq_emit_attend_tile(AqEmit *e, const void *key);
/* Rows of a tile of so many vectors: the sums fill the registers, but of 32
 * one or two vectors leave room and divide more shapes. */
static inline int aq_attend_rows(const AqTarget *target, int vectors)
{
    static const int few[] = {12, 6, 4}, many[] = {12, 8, 8, 6};
    return target->registers == 32 ? many[vectors - 1] : few[vectors - 1];
}

/* ---- attend_rows.c ---- */

/* to[j][i] = factor[step * j] * from[i][j] for i < to_columns and all vectors
 * of j that begin before `columns`.  Behind `rows` the last row repeats; behind
 * `columns` there are zeros; what lies behind `to_rows` goes to `spare`. */
typedef struct AqTranspose {
    const float *from;
    float *to;
    const float *factor;
    float *spare; /* a vector */
    int64_t from_row, to_row, factor_step;
    int64_t rows, columns, to_rows, to_columns;
} AqTranspose;
typedef void AqTransposeFn(const AqTranspose *transpose);
/* Rows of panels, zeros up to a whole vector. */
typedef void AqPanelRowsFn(const float *from, int64_t from_row, float *to,
                           int64_t to_row, int64_t rows, int64_t depth);

/* to[i][e] = the sum of the panels' [i][e], in order, e < depth */
typedef struct AqPanelSum {
    const float *from;
    float *to;
    int64_t from_row, to_row;
    int64_t apart, panels; /* floats from panel to panel; at least one */
    int64_t rows, depth;
} AqPanelSum;
typedef void AqPanelSumFn(const AqPanelSum *sum);

AqStatus aq_emit_attend_transpose(AqEmit *e, const void *context);
AqStatus aq_emit_attend_panel(AqEmit *e, const void *context);
AqStatus aq_emit_attend_join(AqEmit *e, const void *context);

/* ---- attend_softmax.c ---- */

/* 2^x; at and below -127 it may be zero, from 128 on infinity.  `below_zero`: x
 * is not above zero, or what comes of it does not matter. */
LLVMValueRef aq_attend_exp2(AqEmit *e, LLVMValueRef x, bool below_zero);
/* a > b ? a : b, one instruction; b where one is NaN */
LLVMValueRef aq_attend_larger(AqEmit *e, LLVMValueRef a, LLVMValueRef b);

/* Of the queries of a strip, each an array of W: maximum so far, the one before
 * this block, sum so far of 2^(s - maximum), and what the sums so far must be
 * multiplied by. */
enum { AQ_STATS_TOP, AQ_STATS_BEFORE, AQ_STATS_SUM, AQ_STATS_FACTOR, AQ_STATS };
/* Turns `rows` rows of scores, whose maximum is in `top`, into weights. */
typedef void AqSoftmaxFn(float *stats, float *scores, int64_t rows);
/* top becomes the log-sum-exp, factor what the output is multiplied by. */
typedef void AqSoftmaxEndFn(float *stats);
/* to[i] = factor * a[i] . b[i] */
typedef void AqRowProductFn(const float *a, const float *b, int64_t row,
                            float *to, int64_t rows, int64_t depth,
                            float factor);

/* `vectors` points to those of a strip, an int. */
AqStatus aq_emit_attend_softmax(AqEmit *e, const void *vectors);
AqStatus aq_emit_attend_softmax_end(AqEmit *e, const void *vectors);
AqStatus aq_emit_attend_row_product(AqEmit *e, const void *context);

/* ---- closures ---- */

enum { AQ_Q, AQ_K, AQ_V, AQ_OUT, AQ_LSE, AQ_DOUT, AQ_BIAS, AQ_ATTEND_IN };

typedef struct AqAttend {
    int32_t in[AQ_ATTEND_IN]; /* buffers; -1: none */
    int32_t result[3];        /* out, lse; or dq, dk, dv; -1: not wanted */
    int32_t work;
    int32_t side[2]; /* inputs that are copied into panels: k, v; or q, dout */
    bool causal;
    float scale;
    int64_t batch, heads, queries, keys, depth;
    int64_t row;                   /* floats from token to token */
    int64_t bias_batch, bias_head; /* floats; 0: the same for all */
    int64_t lanes, width;          /* of a vector, of a strip */
    int64_t tile, sum_tile;        /* rows of tiles: tokens, and of e */
    int64_t panel;                 /* floats of a panel's row */
    int64_t depth_rows;            /* of e, whole tiles and vectors */
    /* tokens of a task's strips, and of the blocks that they meet */
    int64_t along, across;
    int64_t splits, per_split; /* tasks a head; blocks of `along` in each */
    bool own;                  /* panels are the task's: one task a head */
    /* floats into the workspace, or into the scratch of a task with its own:
     * two panels; -scale dout . out and lse / ln 2 of queries; dq of the
     * splits, each with dq_rows tokens a head */
    int64_t side_at[2], slope_at, lse_at, dq_at, dq_rows;
    int64_t panel_floats; /* all of these */
    AqTileFn *scores, *weights, *slopes, *sums;
    AqTileFn *outer[3]; /* [vectors - 1] */
    int64_t outer_rows[3];
    AqTransposeFn *transpose;
    AqPanelRowsFn *panel_rows;
    AqPanelSumFn *join;
    AqSoftmaxFn *softmax;
    AqSoftmaxEndFn *softmax_end;
    AqRowProductFn *row_product;
} AqAttend;

/* Where token `t` of a head lies in a (batch, tokens, heads, depth) array. */
static inline int64_t aq_attend_at(const AqAttend *a, int64_t tokens, int64_t b,
                                   int64_t t, int64_t h)
{
    return (b * tokens + t) * a->row + h * a->depth;
}

static inline float *aq_attend_work(const AqAttend *a, void *const *buffers)
{
    return aq_aligned(buffers[a->work]);
}

/* Vectors in the next tile across a row of which `left` floats are left. */
static inline int64_t aq_outer_vectors(const AqAttend *a, int64_t left)
{
    int64_t vectors = aq_ceil_div(left, a->lanes);
    return vectors % 2 == 0 ? 2 : AQ_MIN(vectors, 3);
}

/* ---- attend_rows.c, again ---- */

/* to[e][lane] = factor * from[lane][e]: `rows` tokens as a strip, whose other
 * lanes repeat the last. */
void aq_attend_spread(const AqAttend *a, const float *from, float *to,
                      int64_t rows, float factor);
/* to[lane][e] = factor[lane] * from[e][lane] */
void aq_attend_collect(const AqAttend *a, const float *from, float *to,
                       int64_t rows, const float *factor);

/* ---- attend_panels.c ---- */

enum { AQ_TOKENS = 64 }; /* of a task of these stages */
AqTaskFn aq_attend_panels, aq_attend_join;

/* What a task reads of the other side of its head, from the first token on,
 * and where its dq grows. */
typedef struct AqHead {
    float *side[2];
    float *lse, *slope, *dq;
} AqHead;
/* Where a task finds its head; makes the panels, in `own` (a->panel_floats of
 * scratch), if they are the task's. */
AqHead aq_attend_begin_head(const AqAttend *a, void *const *buffers, float *own,
                            int64_t b, int64_t h, int64_t split);
/* dq = the sum of the splits' from token `first` on, `panels` the first's */
void aq_attend_join_head(const AqAttend *a, void *const *buffers,
                         const float *panels, int64_t b, int64_t h,
                         int64_t first, int64_t end);

/* ---- attend_forward.c, attend_backward.c: floats of scratch, tasks ---- */

int64_t aq_attend_forward_scratch(const AqAttend *a);
int64_t aq_attend_backward_scratch(const AqAttend *a);
AqTaskFn aq_attend_forward, aq_attend_backward;

#endif
