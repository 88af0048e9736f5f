/* The leaves that split floats into three of bfloat16: see split.h. */
#include "codegen/split.h"

enum { WORDS = 16 };

static LLVMValueRef times(AqEmit *e, LLVMValueRef a, LLVMValueRef b)
{
    return LLVMBuildMul(e->builder, a, b, "");
}

static LLVMValueRef plus(AqEmit *e, LLVMValueRef a, int64_t b)
{
    return LLVMBuildAdd(e->builder, a, aq_i64(e, b), "");
}

/* The upper half of each float, as a float; its bits are left in *bits. */
static LLVMValueRef upper(AqEmit *e, LLVMValueRef x, bool rounded,
                          LLVMValueRef *bits)
{
    enum { HALF = 0x8000, UPPER = -0x10000 };
    LLVMBuilderRef builder = e->builder;
    *bits = LLVMBuildBitCast(builder, x, e->vi32, "");
    if (rounded)
        *bits = LLVMBuildAdd(builder, *bits, aq_int_of(e, e->vi32, HALF), "");
    *bits = LLVMBuildAnd(builder, *bits, aq_int_of(e, e->vi32, UPPER), "");
    return LLVMBuildBitCast(builder, *bits, e->vf32, "");
}

/* Words of the low terms x and the high ones y; part p goes `stride` floats
 * behind the one before. */
static void split(AqEmit *e, LLVMValueRef x, LLVMValueRef y, LLVMValueRef to,
                  int64_t stride)
{
    LLVMBuilderRef builder = e->builder;
    for (int p = 0; p < AQ_SPLIT_PARTS; p++) {
        bool last = p + 1 == AQ_SPLIT_PARTS; /* what is left has 8 bits */
        LLVMValueRef low, high;
        LLVMValueRef of_x = upper(e, x, !last, &low);
        LLVMValueRef of_y = upper(e, y, !last, &high);
        low = LLVMBuildLShr(builder, low, aq_int_of(e, e->vi32, 16), "");
        aq_store(e, LLVMBuildOr(builder, low, high, ""),
                 aq_float_at(e, to, aq_i64(e, p * stride)));
        x = LLVMBuildFSub(builder, x, of_x, "");
        y = LLVMBuildFSub(builder, y, of_y, "");
    }
}

/* Terms first and on of a row; `left` of them are there, or NULL: all. */
static LLVMValueRef load(AqEmit *e, LLVMValueRef row, LLVMValueRef first,
                         LLVMValueRef left)
{
    LLVMValueRef mask = left ? aq_mask(e, left, e->lanes) : NULL;
    return aq_load_masked(e, e->vf32, aq_float_at(e, row, first), mask);
}

/* The chunk that begins at term `first`. */
static void split_chunk(AqEmit *e, LLVMValueRef from, LLVMValueRef first,
                        LLVMValueRef left, LLVMValueRef to)
{
    LLVMValueRef words =
        LLVMBuildUDiv(e->builder, times(e, first, aq_i64(e, AQ_SPLIT_FLOATS)),
                      aq_i64(e, AQ_SPLIT_TERMS), "");
    LLVMValueRef high = left ? plus(e, left, -WORDS) : NULL;
    LLVMValueRef x = load(e, from, first, left);
    LLVMValueRef y = load(e, from, plus(e, first, WORDS), high);
    split(e, x, y, aq_float_at(e, to, words), WORDS);
}

AqStatus aq_emit_split_rows(AqEmit *e, const void *context)
{
    (void)context;
    LLVMTypeRef parameters[] = {e->pointer, e->i64, e->pointer,
                                e->i64,     e->i64, e->i64};
    aq_emit_function(e, e->nothing, parameters, AQ_COUNT(parameters));
    LLVMValueRef zero = aq_i64(e, 0), terms = aq_param(e, 5);
    LLVMValueRef whole =
        LLVMBuildAnd(e->builder, terms, aq_i64(e, -AQ_SPLIT_TERMS), "");
    LLVMValueRef left = LLVMBuildSub(e->builder, terms, whole, "");
    LLVMBasicBlockRef none = aq_only_if_less(e, zero, aq_param(e, 4));
    AqLoop rows, chunks;
    aq_loop_begin(e, &rows, zero, aq_param(e, 4), 1);
    LLVMValueRef from =
        aq_float_at(e, aq_param(e, 0), times(e, rows.counter, aq_param(e, 1)));
    LLVMValueRef to =
        aq_float_at(e, aq_param(e, 2), times(e, rows.counter, aq_param(e, 3)));

    LLVMBasicBlockRef skip = aq_only_if_less(e, zero, whole);
    aq_loop_begin(e, &chunks, zero, whole, AQ_SPLIT_TERMS);
    split_chunk(e, from, chunks.counter, NULL, to);
    aq_loop_end(e, &chunks);
    aq_go_on(e, skip);

    skip = aq_only_if_less(e, zero, left);
    split_chunk(e, from, whole, left, to);
    aq_go_on(e, skip);
    aq_loop_end(e, &rows);
    aq_go_on(e, none);
    LLVMBuildRetVoid(e->builder);
    return AQ_OK;
}

/* Vector v of row `term`; zeros from row `terms` on. */
static LLVMValueRef load_column(AqEmit *e, LLVMValueRef term,
                                LLVMValueRef there, int v)
{
    LLVMValueRef at =
        plus(e, times(e, term, aq_param(e, 1)), (int64_t)v * e->lanes);
    LLVMValueRef inside =
        LLVMBuildICmp(e->builder, LLVMIntSLT, term, aq_param(e, 3), "");
    LLVMValueRef none = LLVMConstNull(LLVMTypeOf(there));
    LLVMValueRef mask = LLVMBuildSelect(e->builder, inside, there, none, "");
    return aq_load_masked(e, e->vf32, aq_float_at(e, aq_param(e, 0), at), mask);
}

AqStatus aq_emit_split_strip(AqEmit *e, const void *context)
{
    enum { MOST = 4 };
    int vectors = (int)(*(const int64_t *)context / e->lanes);
    LLVMTypeRef parameters[] = {e->pointer, e->i64, e->pointer, e->i64, e->i64};
    aq_emit_function(e, e->nothing, parameters, AQ_COUNT(parameters));
    LLVMValueRef mask[MOST];
    for (int v = 0; v < vectors; v++)
        mask[v] = aq_mask(e, plus(e, aq_param(e, 4), -(int64_t)v * e->lanes),
                          e->lanes);
    LLVMValueRef zero = aq_i64(e, 0);
    LLVMBasicBlockRef none = aq_only_if_less(e, zero, aq_param(e, 3));
    AqLoop chunks, words;
    aq_loop_begin(e, &chunks, zero, aq_param(e, 3), AQ_SPLIT_TERMS);
    LLVMValueRef chunk =
        aq_float_at(e, aq_param(e, 2),
                    times(e, chunks.counter,
                          aq_i64(e, (int64_t)vectors * AQ_SPLIT_PARTS * WORDS *
                                        WORDS / AQ_SPLIT_TERMS)));
    aq_loop_begin(e, &words, zero, aq_i64(e, WORDS), 1);
    LLVMValueRef term =
        LLVMBuildAdd(e->builder, chunks.counter, words.counter, "");
    LLVMValueRef to =
        aq_float_at(e, chunk, times(e, words.counter, aq_i64(e, WORDS)));
    for (int v = 0; v < vectors; v++) {
        LLVMValueRef x = load_column(e, term, mask[v], v);
        LLVMValueRef y = load_column(e, plus(e, term, WORDS), mask[v], v);
        split(
            e, x, y,
            aq_float_at(e, to,
                        aq_i64(e, (int64_t)v * AQ_SPLIT_PARTS * WORDS * WORDS)),
            (int64_t)WORDS * WORDS);
    }
    aq_loop_end(e, &words);
    aq_loop_end(e, &chunks);
    aq_go_on(e, none);
    LLVMBuildRetVoid(e->builder);
    return AQ_OK;
}
