/* The leaf of all Winograd transforms: out = L in L^T, lane by lane, as
 * straight line code.  L is small and known, so two things are found in it
 * beforehand:
 *
 *   columns i, j equal or opposite in every row: x_i + x_j and x_i - x_j are
 *     made once and take their place;
 *   rows i, j equal in some columns and opposite in the others: what they share
 *     is p +- f q, with p from the equal columns and f q from the opposite
 * ones, so that the multiplication by f goes with the additions. */
#include "codegen/winograd.h"

#include <math.h>

enum { MOST = 6 };

typedef struct Matrix {
    int rows, columns;
    double at[MOST][MOST];
} Matrix;

/* Points 0, 1, -1, 2, -2 and infinity. */
static const Matrix matrices[] = {
    [AQ_TRANSFORM_INPUT] = {6,
                            6,
                            {{4, 0, -5, 0, 1, 0},
                             {0, -4, -4, 1, 1, 0},
                             {0, 4, -4, -1, 1, 0},
                             {0, -2, -1, 2, 1, 0},
                             {0, 2, -1, -2, 1, 0},
                             {0, 4, 0, -5, 0, 1}}},
    [AQ_TRANSFORM_WEIGHT] = {6,
                             3,
                             {{1. / 4, 0, 0},
                              {-1. / 6, -1. / 6, -1. / 6},
                              {-1. / 6, 1. / 6, -1. / 6},
                              {1. / 24, 1. / 12, 1. / 6},
                              {1. / 24, -1. / 12, 1. / 6},
                              {0, 0, 1}}},
    [AQ_TRANSFORM_OUTPUT] = {4,
                             6,
                             {{1, 1, 1, 1, 1, 0},
                              {0, 1, -1, 2, -2, 0},
                              {0, 1, 1, 4, 4, 0},
                              {0, 1, -1, 8, -8, 1}}},
    [AQ_TRANSFORM_GRADIENT] = {6,
                               4,
                               {{1, 0, 0, 0},
                                {1, 1, 1, 1},
                                {1, -1, 1, -1},
                                {1, 2, 4, 8},
                                {1, -2, 4, -8},
                                {0, 0, 0, 1}}},
    [AQ_TRANSFORM_WEIGHT_GRADIENT] =
        {3,
         6,
         {{1. / 4, -1. / 6, -1. / 6, 1. / 24, 1. / 24, 0},
          {0, -1. / 6, 1. / 6, 1. / 12, -1. / 12, 0},
          {0, -1. / 6, -1. / 6, 1. / 6, 1. / 6, 1}}},
};

/* ---- one dimension ---- */

/* sum + factor * value; either may be NULL */
static LLVMValueRef add_times(AqEmit *e, LLVMValueRef sum, double factor,
                              LLVMValueRef value)
{
    if (factor == 0)
        return sum;
    if (sum && factor == 1)
        return LLVMBuildFAdd(e->builder, sum, value, "");
    if (sum && factor == -1)
        return LLVMBuildFSub(e->builder, sum, value, "");
    if (factor == 1)
        return value;
    LLVMValueRef by = aq_real_of(e, LLVMTypeOf(value), factor);
    return sum ? aq_fma(e, by, value, sum)
               : LLVMBuildFMul(e->builder, value, by, "");
}

/* The row's product with x / factor, over the columns that `take` marks; plain
 * ones first, so that they need no multiplication. */
static LLVMValueRef row_sum(AqEmit *e, const Matrix *m, int row, double factor,
                            LLVMValueRef *x, const bool *take)
{
    LLVMValueRef sum = NULL;
    for (int plain = 1; plain >= 0; plain--)
        for (int j = 0; j < m->columns; j++) {
            double value = m->at[row][j] / factor;
            if (take[j] && (value == 1) == (plain == 1))
                sum = add_times(e, sum, value, x[j]);
        }
    return sum;
}

/* What all of the row's marked columns may be divided by: the least of them, so
 * that one becomes plain. */
static double common_factor(const Matrix *m, int row, const bool *take)
{
    double least = 0;
    for (int j = 0; j < m->columns; j++) {
        double value = m->at[row][j];
        if (take[j] && value != 0 && (least == 0 || fabs(value) < fabs(least)))
            least = value;
    }
    return least;
}

static bool are_opposite(double a, double b)
{
    return a == -b;
}

/* Whether rows i and j are equal or opposite in every column, but not the same
 * in all; `odd` marks the opposite ones. */
static bool is_row_pair(const Matrix *m, int i, int j, bool *odd)
{
    int n_odd = 0, n_even = 0;
    for (int c = 0; c < m->columns; c++) {
        double a = m->at[i][c], b = m->at[j][c];
        odd[c] = a != 0 && are_opposite(a, b);
        if (a != b && !odd[c])
            return false;
        n_odd += odd[c];
        n_even += a != 0 && !odd[c];
    }
    return n_odd > 0 && n_even > 0;
}

static bool is_column_pair(const Matrix *m, int i, int j)
{
    int used = 0;
    for (int r = 0; r < m->rows; r++) {
        double a = m->at[r][i], b = m->at[r][j];
        if (a != b && !are_opposite(a, b))
            return false;
        used += a != 0;
    }
    return used > 0;
}

/* x_i, x_j become their sum and difference, and the matrix suits that. */
static void join_columns(AqEmit *e, Matrix *m, int i, int j, LLVMValueRef *x)
{
    LLVMValueRef sum = LLVMBuildFAdd(e->builder, x[i], x[j], "");
    LLVMValueRef difference = LLVMBuildFSub(e->builder, x[i], x[j], "");
    x[i] = sum;
    x[j] = difference;
    for (int r = 0; r < m->rows; r++) {
        bool same = m->at[r][i] == m->at[r][j];
        m->at[r][j] = same ? 0 : m->at[r][i];
        m->at[r][i] = same ? m->at[r][i] : 0;
    }
}

/* y = m x */
static void apply(AqEmit *e, const Matrix *matrix, LLVMValueRef *x,
                  LLVMValueRef *y)
{
    Matrix m = *matrix;
    bool done[MOST] = {false}, joined[MOST] = {false};
    for (int i = 0; i < m.columns; i++)
        for (int j = i + 1; j < m.columns && !joined[i]; j++)
            if (!joined[j] && is_column_pair(&m, i, j)) {
                join_columns(e, &m, i, j, x);
                joined[i] = joined[j] = true;
            }
    for (int i = 0; i < m.rows; i++) {
        bool odd[MOST], even[MOST], all[MOST];
        for (int j = i + 1; j < m.rows && !done[i]; j++) {
            if (done[j] || !is_row_pair(&m, i, j, odd))
                continue;
            for (int c = 0; c < m.columns; c++)
                even[c] = !odd[c];
            double factor = common_factor(&m, i, odd);
            LLVMValueRef p = row_sum(e, &m, i, 1, x, even);
            LLVMValueRef q = row_sum(e, &m, i, factor, x, odd);
            y[i] = add_times(e, p, factor, q);
            y[j] = add_times(e, p, -factor, q);
            done[i] = done[j] = true;
        }
        for (int c = 0; c < m.columns; c++)
            all[c] = true;
        if (!done[i])
            y[i] = row_sum(e, &m, i, 1, x, all);
    }
}

/* ---- two dimensions ---- */

enum {
    PARAM_FROM,
    PARAM_FROM_ROW,
    PARAM_FROM_COLUMN,
    PARAM_TO,
    PARAM_TO_ROW,
    PARAM_TO_COLUMN,
    PARAM_VECTORS,
};

/* base + i * row + j * column, in floats */
static LLVMValueRef place(AqEmit *e, LLVMValueRef base, int i, LLVMValueRef row,
                          int j, LLVMValueRef column)
{
    LLVMValueRef a = LLVMBuildMul(e->builder, row, aq_i64(e, i), "");
    LLVMValueRef b = LLVMBuildMul(e->builder, column, aq_i64(e, j), "");
    return aq_at(e, e->f32, base, LLVMBuildAdd(e->builder, a, b, ""));
}

/* Columns first: each is loaded, transformed, and kept. */
static void transform(AqEmit *e, const Matrix *m, LLVMValueRef from,
                      LLVMValueRef to)
{
    LLVMValueRef middle[MOST][MOST]; /* [j][i] */
    for (int j = 0; j < m->columns; j++) {
        LLVMValueRef x[MOST];
        for (int i = 0; i < m->columns; i++)
            x[i] = aq_load(e, e->vf32,
                           place(e, from, i, aq_param(e, PARAM_FROM_ROW), j,
                                 aq_param(e, PARAM_FROM_COLUMN)));
        apply(e, m, x, middle[j]);
    }
    for (int i = 0; i < m->rows; i++) {
        LLVMValueRef x[MOST], y[MOST];
        for (int j = 0; j < m->columns; j++)
            x[j] = middle[j][i];
        apply(e, m, x, y);
        for (int j = 0; j < m->rows; j++)
            aq_store(e, y[j],
                     place(e, to, i, aq_param(e, PARAM_TO_ROW), j,
                           aq_param(e, PARAM_TO_COLUMN)));
    }
}

AqStatus aq_emit_transform(AqEmit *e, const void *context)
{
    const AqTransform *which = context;
    LLVMTypeRef parameters[] = {e->pointer, e->i64, e->i64, e->pointer,
                                e->i64,     e->i64, e->i64};
    aq_emit_function(e, e->nothing, parameters, AQ_COUNT(parameters));
    AqLoop loop;
    aq_loop_begin(e, &loop, aq_i64(e, 0), aq_param(e, PARAM_VECTORS), 1);
    LLVMValueRef at =
        LLVMBuildMul(e->builder, loop.counter, aq_i64(e, e->lanes), "");
    transform(e, &matrices[*which],
              aq_at(e, e->f32, aq_param(e, PARAM_FROM), at),
              aq_at(e, e->f32, aq_param(e, PARAM_TO), at));
    aq_loop_end(e, &loop);
    LLVMBuildRetVoid(e->builder);
    return AQ_OK;
}

AqStatus aq_winograd_link_transform(AqCodePlan *plan, AqTransform transform,
                                    size_t offset, AqError *error)
{
    AqTransform *key = AQ_NEW(aq_code_plan_arena(plan), AqTransform);
    if (!key)
        return aq_no_memory(error, sizeof *key);
    *key = transform;
    int unit = aq_code_plan_unit(plan, "transform", key, sizeof *key,
                                 aq_emit_transform, key);
    return aq_contract_link(plan, offset, unit, error);
}
