/* The register tile of attention: R rows of C by one to four vectors stay in
 * registers for the whole sum over k, and are finished there (an exponential, a
 * slope) before they are stored.
 *
 *   for k:  b0, b1 = B[k];  for r: c[r][0..1] += a[r][k] * b[0..1] */
#include "codegen/attend.h"

enum { MOST_SUMS = 24, UNROLL = 2 };

enum { /* fields of AqTile, each eight bytes */
       FIELD_A,
       FIELD_B,
       FIELD_C,
       FIELD_X,
       FIELD_Y,
       FIELD_P,
       FIELD_TOP,
       FIELD_TILES,
       FIELD_K,
       FIELD_LDB,
       FIELD_LDC,
       FIELD_MORE,
       FIELDS,
};
_Static_assert(sizeof(AqTile) == 8 * (size_t)FIELDS, "ORDER AqTile");

typedef struct Tile {
    AqEmit *e;
    const AqTileKey *key;
    int rows, vectors;
    LLVMValueRef field[FIELDS];
    LLVMValueRef a, c, first; /* of this tile; its first row */
    LLVMValueRef scale;       /* of slopes */
    LLVMValueRef sum[MOST_SUMS];
} Tile;

static void load_fields(Tile *t)
{
    AqEmit *e = t->e;
    LLVMValueRef tile = LLVMGetParam(e->function, 0);
    for (int i = 0; i < FIELDS; i++)
        t->field[i] = aq_load(e, i < FIELD_TILES ? e->pointer : e->i64,
                              aq_at(e, e->i64, tile, aq_i64(e, i)));
}

static LLVMValueRef times(Tile *t, LLVMValueRef a, LLVMValueRef b)
{
    return LLVMBuildMul(t->e->builder, a, b, "");
}

static LLVMValueRef float_at(Tile *t, LLVMValueRef base, LLVMValueRef index)
{
    return aq_at(t->e, t->e->f32, base, index);
}

/* base[row * ldc + v * lanes] */
static LLVMValueRef place(Tile *t, LLVMValueRef base, int row, int v)
{
    AqEmit *e = t->e;
    LLVMValueRef line = times(t, aq_i64(e, row), t->field[FIELD_LDC]);
    return float_at(t, float_at(t, base, line),
                    aq_i64(e, (int64_t)v * e->lanes));
}

static bool by_columns(const Tile *t)
{
    return t->key->kind == AQ_TILE_SUMS;
}

/* ---- the sum ---- */

/* One k: A stands at `a`, B at `b`. */
static void term(Tile *t, LLVMValueRef a, LLVMValueRef b)
{
    AqEmit *e = t->e;
    LLVMValueRef vector[AQ_MOST_VECTORS];
    for (int v = 0; v < t->vectors; v++)
        vector[v] = aq_load(e, e->vf32,
                            float_at(t, b, aq_i64(e, (int64_t)v * e->lanes)));
    for (int r = 0; r < t->rows; r++) {
        int64_t apart = by_columns(t) ? 1 : t->key->panel;
        LLVMValueRef x =
            aq_load(e, e->f32, float_at(t, a, aq_i64(e, r * apart)));
        x = aq_splat(e, x, e->lanes);
        for (int v = 0; v < t->vectors; v++) {
            LLVMValueRef *sum = &t->sum[r * t->vectors + v];
            *sum = aq_fma(e, x, vector[v], *sum);
        }
    }
}

/* Terms from .. to-1, `unroll` a round; there is at least one round. */
static void rounds(Tile *t, LLVMValueRef from, LLVMValueRef to, int unroll)
{
    AqEmit *e = t->e;
    int sums = t->rows * t->vectors;
    int64_t step = by_columns(t) ? t->key->panel : 1;
    AqLoop loop;
    aq_loop_begin(e, &loop, from, to, unroll);
    for (int i = 0; i < sums; i++)
        aq_loop_carry(e, &loop, t->sum[i]);
    for (int i = 0; i < sums; i++)
        t->sum[i] = loop.carried[i];
    LLVMValueRef a = float_at(t, t->a, times(t, loop.counter, aq_i64(e, step)));
    LLVMValueRef b = float_at(t, t->field[FIELD_B],
                              times(t, loop.counter, t->field[FIELD_LDB]));
    for (int u = 0; u < unroll; u++) {
        term(t, float_at(t, a, aq_i64(e, u * step)), b);
        b = float_at(t, b, t->field[FIELD_LDB]);
    }
    for (int i = 0; i < sums; i++)
        loop.next[i] = t->sum[i];
    aq_loop_end(e, &loop);
    for (int i = 0; i < sums; i++)
        t->sum[i] = loop.next[i];
}

/* The same where there may be no round. */
static void rounds_if_any(Tile *t, LLVMValueRef from, LLVMValueRef to,
                          int unroll)
{
    AqEmit *e = t->e;
    int sums = t->rows * t->vectors;
    LLVMValueRef before[MOST_SUMS];
    for (int i = 0; i < sums; i++)
        before[i] = t->sum[i];
    LLVMBasicBlockRef here = LLVMGetInsertBlock(e->builder);
    LLVMBasicBlockRef some = aq_emit_block(e, "some");
    LLVMBasicBlockRef after = aq_emit_block(e, "done");
    LLVMValueRef any = LLVMBuildICmp(e->builder, LLVMIntSLT, from, to, "");
    LLVMBuildCondBr(e->builder, any, some, after);
    LLVMPositionBuilderAtEnd(e->builder, some);
    rounds(t, from, to, unroll);
    LLVMBasicBlockRef last = LLVMGetInsertBlock(e->builder);
    LLVMBuildBr(e->builder, after);
    LLVMPositionBuilderAtEnd(e->builder, after);
    for (int i = 0; i < sums; i++) {
        LLVMValueRef both = LLVMBuildPhi(e->builder, e->vf32, "");
        LLVMAddIncoming(both, &before[i], &here, 1);
        LLVMAddIncoming(both, &t->sum[i], &last, 1);
        t->sum[i] = both;
    }
}

static void run_over_k(Tile *t)
{
    AqEmit *e = t->e;
    LLVMValueRef k = t->field[FIELD_K];
    LLVMValueRef whole = LLVMBuildAnd(e->builder, k, aq_i64(e, -UNROLL), "");
    rounds_if_any(t, aq_i64(e, 0), whole, UNROLL);
    rounds_if_any(t, whole, k, 1);
}

/* ---- before and after ---- */

static LLVMValueRef old_value(Tile *t, int row, int v)
{
    return aq_load(t->e, t->e->vf32, place(t, t->c, row, v));
}

/* sum = c * x */
static void start_scaled(Tile *t)
{
    AqEmit *e = t->e;
    for (int v = 0; v < t->vectors; v++) {
        LLVMValueRef factor = aq_load(
            e, e->vf32,
            float_at(t, t->field[FIELD_X], aq_i64(e, (int64_t)v * e->lanes)));
        for (int r = 0; r < t->rows; r++)
            t->sum[r * t->vectors + v] =
                LLVMBuildFMul(e->builder, old_value(t, r, v), factor, "");
    }
}

/* sum = more ? c : 0 */
static void start_plain(Tile *t)
{
    AqEmit *e = t->e;
    int sums = t->rows * t->vectors;
    LLVMValueRef old[MOST_SUMS], zero = LLVMConstNull(e->vf32);
    LLVMBasicBlockRef here = LLVMGetInsertBlock(e->builder);
    LLVMBasicBlockRef some = aq_emit_block(e, "old");
    LLVMBasicBlockRef after = aq_emit_block(e, "begin");
    LLVMValueRef more = LLVMBuildICmp(e->builder, LLVMIntNE,
                                      t->field[FIELD_MORE], aq_i64(e, 0), "");
    LLVMBuildCondBr(e->builder, more, some, after);
    LLVMPositionBuilderAtEnd(e->builder, some);
    for (int i = 0; i < sums; i++)
        old[i] = old_value(t, i / t->vectors, i % t->vectors);
    LLVMBuildBr(e->builder, after);
    LLVMPositionBuilderAtEnd(e->builder, after);
    for (int i = 0; i < sums; i++) {
        t->sum[i] = LLVMBuildPhi(e->builder, e->vf32, "");
        LLVMAddIncoming(t->sum[i], &zero, &here, 1);
        LLVMAddIncoming(t->sum[i], &old[i], &some, 1);
    }
}

/* The value of a row in x or y, in all lanes. */
static LLVMValueRef of_row(Tile *t, int field, int row)
{
    AqEmit *e = t->e;
    LLVMValueRef at = LLVMBuildAdd(e->builder, t->first, aq_i64(e, row), "");
    LLVMValueRef x = aq_load(e, e->f32, float_at(t, t->field[field], at));
    return aq_splat(e, x, e->lanes);
}

static LLVMValueRef finished(Tile *t, LLVMValueRef sum, int row, int v)
{
    AqEmit *e = t->e;
    if (t->key->kind == AQ_TILE_WEIGHTS)
        return aq_attend_exp2(
            e, LLVMBuildFSub(e->builder, sum, of_row(t, FIELD_X, row), ""),
            false);
    if (t->key->kind != AQ_TILE_SLOPES)
        return sum;
    LLVMValueRef slope = aq_fma(e, sum, t->scale, of_row(t, FIELD_Y, row));
    LLVMValueRef start =
        float_at(t, t->field[FIELD_P], times(t, t->first, t->field[FIELD_LDC]));
    LLVMValueRef p = aq_load(e, e->vf32, place(t, start, row, v));
    return LLVMBuildFMul(e->builder, p, slope, "");
}

/* top = max of it and the sums; a NaN in them loses */
static void raise_top(Tile *t)
{
    AqEmit *e = t->e;
    for (int v = 0; v < t->vectors; v++) {
        LLVMValueRef at =
            float_at(t, t->field[FIELD_TOP], aq_i64(e, (int64_t)v * e->lanes));
        LLVMValueRef top = aq_load(e, e->vf32, at);
        for (int r = 0; r < t->rows; r++)
            top = aq_attend_larger(e, t->sum[r * t->vectors + v], top);
        aq_store(e, top, at);
    }
}

static void finish(Tile *t)
{
    if (t->key->kind == AQ_TILE_SCORES)
        raise_top(t);
    for (int r = 0; r < t->rows; r++)
        for (int v = 0; v < t->vectors; v++)
            aq_store(t->e, finished(t, t->sum[r * t->vectors + v], r, v),
                     place(t, t->c, r, v));
}

AqStatus aq_emit_attend_tile(AqEmit *e, const void *key)
{
    Tile t = {.e = e, .key = key};
    t.rows = t.key->rows;
    t.vectors = t.key->vectors;
    aq_emit_function(e, e->nothing, &e->pointer, 1);
    load_fields(&t);
    if (t.key->kind == AQ_TILE_SLOPES)
        t.scale = aq_splat(e, aq_load(e, e->f32, t.field[FIELD_X]), e->lanes);
    AqLoop tiles;
    aq_loop_begin(e, &tiles, aq_i64(e, 0), t.field[FIELD_TILES], 1);
    t.first = times(&t, tiles.counter, aq_i64(e, t.rows));
    LLVMValueRef apart = aq_i64(e, by_columns(&t) ? 1 : t.key->panel);
    t.a = float_at(&t, t.field[FIELD_A], times(&t, t.first, apart));
    t.c =
        float_at(&t, t.field[FIELD_C], times(&t, t.first, t.field[FIELD_LDC]));
    if (t.key->kind == AQ_TILE_SUMS)
        start_scaled(&t);
    else
        start_plain(&t);
    run_over_k(&t);
    finish(&t);
    aq_loop_end(e, &tiles);
    LLVMBuildRetVoid(e->builder);
    return AQ_OK;
}
