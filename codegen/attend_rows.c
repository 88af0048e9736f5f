/* Leaves of attention that copy and transpose rows of tokens. */
#include "codegen/attend.h"

static LLVMValueRef float_at_row(AqEmit *e, LLVMValueRef base, LLVMValueRef row,
                                 LLVMValueRef stride)
{
    return aq_float_at(e, base, LLVMBuildMul(e->builder, row, stride, ""));
}

/* Lanes of the vector that begins at `start` and ends before `end`. */
static LLVMValueRef lanes_before(AqEmit *e, LLVMValueRef start,
                                 LLVMValueRef end)
{
    return aq_mask(e, LLVMBuildSub(e->builder, end, start, ""), e->lanes);
}

/* A square of vectors transposed: in rounds of half = 1, 2, 4, ... blocks of
 * half rows by half lanes change places across the diagonal. */
static void transpose(AqEmit *e, LLVMValueRef *square)
{
    int lanes = e->lanes, low[64], high[64];
    for (int half = 1; half < lanes; half *= 2) {
        for (int i = 0; i < lanes; i++) {
            low[i] = i & half ? lanes + i - half : i;
            high[i] = i & half ? lanes + i : i + half;
        }
        for (int r = 0; r < lanes; r++) {
            if (r & half)
                continue;
            LLVMValueRef a = square[r], b = square[r + half];
            square[r] = aq_shuffle(e, a, b, low, lanes);
            square[r + half] = aq_shuffle(e, a, b, high, lanes);
        }
    }
}

enum { /* fields of AqTranspose, each eight bytes */
       FIELD_FROM,
       FIELD_TO,
       FIELD_FACTOR,
       FIELD_SPARE,
       FIELD_FROM_ROW,
       FIELD_TO_ROW,
       FIELD_FACTOR_STEP,
       FIELD_ROWS,
       FIELD_COLUMNS,
       FIELD_TO_ROWS,
       FIELD_TO_COLUMNS,
       FIELDS,
};
_Static_assert(sizeof(AqTranspose) == 8 * (size_t)FIELDS, "ORDER AqTranspose");

/* Rows of the square at (i, j), times the factor; `lane`: where rows begin. */
static void load_square(AqEmit *e, LLVMValueRef *const field,
                        LLVMValueRef *const lane, LLVMValueRef j,
                        LLVMValueRef *square)
{
    LLVMValueRef mask = lanes_before(e, j, field[FIELD_COLUMNS]);
    LLVMValueRef at = LLVMBuildMul(e->builder, j, field[FIELD_FACTOR_STEP], "");
    LLVMValueRef factor =
        aq_load(e, e->vf32, aq_float_at(e, field[FIELD_FACTOR], at));
    for (int r = 0; r < e->lanes; r++) {
        LLVMValueRef x =
            aq_load_masked(e, e->vf32, aq_float_at(e, lane[r], j), mask);
        square[r] = LLVMBuildFMul(e->builder, x, factor, "");
    }
}

static void store_square(AqEmit *e, LLVMValueRef *const field, LLVMValueRef i,
                         LLVMValueRef j, LLVMValueRef *const square)
{
    LLVMValueRef mask = lanes_before(e, i, field[FIELD_TO_COLUMNS]);
    for (int r = 0; r < e->lanes; r++) {
        LLVMValueRef row = LLVMBuildAdd(e->builder, j, aq_i64(e, r), "");
        LLVMValueRef there = LLVMBuildICmp(e->builder, LLVMIntSLT, row,
                                           field[FIELD_TO_ROWS], "");
        LLVMValueRef to =
            float_at_row(e, field[FIELD_TO], row, field[FIELD_TO_ROW]);
        to = LLVMBuildSelect(e->builder, there, aq_float_at(e, to, i),
                             field[FIELD_SPARE], "");
        aq_store_masked(e, square[r], to, mask);
    }
}

/* (transpose) */
AqStatus aq_emit_attend_transpose(AqEmit *e, const void *context)
{
    (void)context;
    aq_emit_function(e, e->nothing, &e->pointer, 1);
    LLVMValueRef field[FIELDS], lane[64], square[64];
    for (int i = 0; i < FIELDS; i++)
        field[i] = aq_load(e, i < FIELD_FROM_ROW ? e->pointer : e->i64,
                           aq_at(e, e->i64, aq_param(e, 0), aq_i64(e, i)));
    LLVMValueRef last =
        LLVMBuildSub(e->builder, field[FIELD_ROWS], aq_i64(e, 1), "");
    AqLoop down, across;
    aq_loop_begin(e, &down, aq_i64(e, 0), field[FIELD_TO_COLUMNS], e->lanes);
    for (int r = 0; r < e->lanes; r++) {
        LLVMValueRef row =
            LLVMBuildAdd(e->builder, down.counter, aq_i64(e, r), "");
        LLVMValueRef there =
            LLVMBuildICmp(e->builder, LLVMIntSLT, row, last, "");
        row = LLVMBuildSelect(e->builder, there, row, last, "");
        lane[r] =
            float_at_row(e, field[FIELD_FROM], row, field[FIELD_FROM_ROW]);
    }
    aq_loop_begin(e, &across, aq_i64(e, 0), field[FIELD_COLUMNS], e->lanes);
    load_square(e, field, lane, across.counter, square);
    transpose(e, square);
    store_square(e, field, down.counter, across.counter, square);
    aq_loop_end(e, &across);
    aq_loop_end(e, &down);
    LLVMBuildRetVoid(e->builder);
    return AQ_OK;
}

void aq_attend_spread(const AqAttend *a, const float *from, float *to,
                      int64_t rows, float factor)
{
    float factors[16];
    for (int i = 0; i < AQ_COUNT(factors); i++)
        factors[i] = factor;
    AqTranspose t = {
        .from = from,
        .to = to,
        .factor = factors,
        .spare = to,
        .from_row = a->row,
        .to_row = a->width,
        .rows = rows,
        .columns = a->depth,
        .to_rows = a->depth_rows,
        .to_columns = a->width,
    };
    a->transpose(&t);
}

void aq_attend_collect(const AqAttend *a, const float *from, float *to,
                       int64_t rows, const float *factor)
{
    float spare[16];
    AqTranspose t = {
        .from = from,
        .to = to,
        .factor = factor,
        .spare = spare,
        .from_row = a->width,
        .to_row = a->row,
        .factor_step = 1,
        .rows = a->depth,
        .columns = rows,
        .to_rows = rows,
        .to_columns = a->depth,
    };
    a->transpose(&t);
}

enum { /* fields of AqPanelSum, each eight bytes */
       JOIN_FROM,
       JOIN_TO,
       JOIN_FROM_ROW,
       JOIN_TO_ROW,
       JOIN_APART,
       JOIN_PANELS,
       JOIN_ROWS,
       JOIN_DEPTH,
       JOIN_FIELDS,
};
_Static_assert(sizeof(AqPanelSum) == 8 * (size_t)JOIN_FIELDS,
               "ORDER AqPanelSum");

/* (join) */
AqStatus aq_emit_attend_join(AqEmit *e, const void *context)
{
    (void)context;
    aq_emit_function(e, e->nothing, &e->pointer, 1);
    LLVMValueRef field[JOIN_FIELDS];
    for (int i = 0; i < JOIN_FIELDS; i++)
        field[i] = aq_load(e, i < JOIN_FROM_ROW ? e->pointer : e->i64,
                           aq_at(e, e->i64, aq_param(e, 0), aq_i64(e, i)));
    AqLoop rows, vectors, panels;
    aq_loop_begin(e, &rows, aq_i64(e, 0), field[JOIN_ROWS], 1);
    LLVMValueRef from =
        float_at_row(e, field[JOIN_FROM], rows.counter, field[JOIN_FROM_ROW]);
    LLVMValueRef to =
        float_at_row(e, field[JOIN_TO], rows.counter, field[JOIN_TO_ROW]);
    aq_loop_begin(e, &vectors, aq_i64(e, 0), field[JOIN_DEPTH], e->lanes);
    LLVMValueRef mask = lanes_before(e, vectors.counter, field[JOIN_DEPTH]);
    LLVMValueRef at = aq_float_at(e, from, vectors.counter);
    aq_loop_begin(e, &panels, aq_i64(e, 0), field[JOIN_PANELS], 1);
    aq_loop_carry(e, &panels, LLVMConstNull(e->vf32));
    LLVMValueRef x = aq_load(
        e, e->vf32, float_at_row(e, at, panels.counter, field[JOIN_APART]));
    panels.next[0] = LLVMBuildFAdd(e->builder, panels.carried[0], x, "");
    aq_loop_end(e, &panels);
    aq_store_masked(e, panels.next[0], aq_float_at(e, to, vectors.counter),
                    mask);
    aq_loop_end(e, &vectors);
    aq_loop_end(e, &rows);
    LLVMBuildRetVoid(e->builder);
    return AQ_OK;
}

/* (from, from_row, to, to_row, rows, depth) */
AqStatus aq_emit_attend_panel(AqEmit *e, const void *context)
{
    (void)context;
    LLVMTypeRef parameters[] = {e->pointer, e->i64, e->pointer,
                                e->i64,     e->i64, e->i64};
    aq_emit_function(e, e->nothing, parameters, AQ_COUNT(parameters));
    AqLoop rows, vectors;
    aq_loop_begin(e, &rows, aq_i64(e, 0), aq_param(e, 4), 1);
    LLVMValueRef from =
        float_at_row(e, aq_param(e, 0), rows.counter, aq_param(e, 1));
    LLVMValueRef to =
        float_at_row(e, aq_param(e, 2), rows.counter, aq_param(e, 3));
    aq_loop_begin(e, &vectors, aq_i64(e, 0), aq_param(e, 5), e->lanes);
    LLVMValueRef mask = lanes_before(e, vectors.counter, aq_param(e, 5));
    LLVMValueRef at = aq_float_at(e, from, vectors.counter);
    aq_store(e, aq_load_masked(e, e->vf32, at, mask),
             aq_float_at(e, to, vectors.counter));
    aq_loop_end(e, &vectors);
    aq_loop_end(e, &rows);
    LLVMBuildRetVoid(e->builder);
    return AQ_OK;
}
