/* The register tile.  Accumulators stay in registers for the whole run over k;
 * a row of A is broadcast element by element, B comes as whole vectors:
 *
 *   for k:  b0, b1 = B[k];  for r: x = A[r][k];  c[r][0..1] += x * b[0..1]
 *
 * Registers: rows * vectors accumulators, `vectors` for B and one broadcast
 * must fit, and no fewer than about ten accumulators hide the latency of an
 * FMA. */
#include "codegen/contract.h"

enum { MOST_ACCUMULATORS = 24, UNROLL = 4 };

typedef struct Micro {
    AqEmit *e;
    const AqMicroKey *key;
} Micro;

/* What flows round the loop over k: where A and B stand, and the sums. */
typedef struct Flow {
    LLVMValueRef k, a, b, ahead, sums[MOST_ACCUMULATORS];
} Flow;

static LLVMValueRef at(Micro *m, LLVMValueRef base, int64_t index)
{
    return aq_at(m->e, m->e->f32, base, aq_i64(m->e, index));
}

static LLVMValueRef tile_place(Micro *m, int row, int vector)
{
    return at(m, LLVMGetParam(m->e->function, AQ_MICRO_TILE),
              (int64_t)row * m->key->columns + (int64_t)vector * m->e->lanes);
}

static bool by_rows(const Micro *m)
{
    return m->key->panel == AQ_PANEL_ROWS;
}

static void fetch_ahead(Micro *m, Flow *flow)
{
    flow->ahead = aq_emit_fetch_ahead(m->e, flow->ahead);
}

/* One k, the u-th of this round. */
static void step(Micro *m, Flow *flow, int u)
{
    AqEmit *e = m->e;
    int vectors = m->key->vectors;
    LLVMValueRef b[AQ_MOST_VECTORS];
    if (u % 2)
        fetch_ahead(m, flow);
    for (int v = 0; v < vectors; v++)
        b[v] = aq_load(e, e->vf32, at(m, flow->b, (int64_t)v * e->lanes));
    for (int r = 0; r < m->key->rows; r++) {
        int64_t place = by_rows(m) ? (int64_t)r * m->key->row + u : r;
        LLVMValueRef x = aq_load(e, e->f32, at(m, flow->a, place));
        x = aq_splat(e, x, e->lanes);
        for (int v = 0; v < vectors; v++) {
            LLVMValueRef *sum = &flow->sums[r * vectors + v];
            *sum = aq_fma(e, x, b[v], *sum);
        }
    }
    flow->b =
        aq_at(e, e->f32, flow->b, LLVMGetParam(e->function, AQ_MICRO_LDB));
    if (!by_rows(m))
        flow->a =
            aq_at(e, e->f32, flow->a, LLVMGetParam(e->function, AQ_MICRO_K));
}

static LLVMValueRef phi(Micro *m, LLVMValueRef value, LLVMBasicBlockRef from)
{
    LLVMValueRef node = LLVMBuildPhi(m->e->builder, LLVMTypeOf(value), "");
    LLVMAddIncoming(node, &value, &from, 1);
    return node;
}

static int sums_of(const Micro *m)
{
    return m->key->rows * m->key->vectors;
}

static Flow flow_phis(Micro *m, const Flow *from, LLVMBasicBlockRef block)
{
    Flow flow = {.k = phi(m, from->k, block),
                 .a = phi(m, from->a, block),
                 .b = phi(m, from->b, block),
                 .ahead = phi(m, from->ahead, block)};
    for (int i = 0; i < sums_of(m); i++)
        flow.sums[i] = phi(m, from->sums[i], block);
    return flow;
}

static void flow_join(Micro *m, Flow *to, Flow *from, LLVMBasicBlockRef block)
{
    LLVMAddIncoming(to->k, &from->k, &block, 1);
    LLVMAddIncoming(to->a, &from->a, &block, 1);
    LLVMAddIncoming(to->b, &from->b, &block, 1);
    LLVMAddIncoming(to->ahead, &from->ahead, &block, 1);
    for (int i = 0; i < sums_of(m); i++)
        LLVMAddIncoming(to->sums[i], &from->sums[i], &block, 1);
}

/* while (k + unroll <= count) `unroll` steps, tested at the end. */
static void loop(Micro *m, Flow *flow, LLVMValueRef count, int unroll)
{
    AqEmit *e = m->e;
    LLVMBuilderRef builder = e->builder;
    LLVMBasicBlockRef before = LLVMGetInsertBlock(builder);
    LLVMBasicBlockRef body = aq_emit_block(e, "body");
    LLVMBasicBlockRef after = aq_emit_block(e, "after");
    LLVMValueRef limit = LLVMBuildSub(builder, count, aq_i64(e, unroll), "");
    LLVMValueRef any = LLVMBuildICmp(builder, LLVMIntSLE, flow->k, limit, "");
    LLVMBuildCondBr(builder, any, body, after);

    LLVMPositionBuilderAtEnd(builder, body);
    Flow in = flow_phis(m, flow, before), out = in;
    for (int u = 0; u < unroll; u++)
        step(m, &out, u);
    if (by_rows(m))
        out.a = at(m, in.a, unroll);
    out.k = LLVMBuildAdd(builder, in.k, aq_i64(e, unroll), "");
    flow_join(m, &in, &out, body);
    LLVMValueRef again = LLVMBuildICmp(builder, LLVMIntSLE, out.k, limit, "");
    LLVMBuildCondBr(builder, again, body, after);

    LLVMPositionBuilderAtEnd(builder, after);
    Flow end = flow_phis(m, flow, before);
    flow_join(m, &end, &out, body);
    *flow = end;
}

static void run_over_k(Micro *m, Flow *flow, LLVMValueRef count)
{
    loop(m, flow, count, UNROLL);
    loop(m, flow, count, 1);
}

static LLVMValueRef segment_field(Micro *m, LLVMValueRef number, int field)
{
    AqEmit *e = m->e;
    LLVMValueRef index = LLVMBuildMul(e->builder, number, aq_i64(e, 3), "");
    index = LLVMBuildAdd(e->builder, index, aq_i64(e, field), "");
    return aq_load(
        e, e->i64,
        aq_at(e, e->i64, LLVMGetParam(e->function, AQ_MICRO_SEGMENTS), index));
}

/* for each segment: run_over_k; `flow` has the sums before and after. */
static void run_over_segments(Micro *m, Flow *flow)
{
    AqEmit *e = m->e;
    LLVMBuilderRef builder = e->builder;
    LLVMBasicBlockRef before = LLVMGetInsertBlock(builder);
    LLVMBasicBlockRef body = aq_emit_block(e, "segment");
    LLVMBasicBlockRef after = aq_emit_block(e, "end");
    LLVMValueRef count = LLVMGetParam(e->function, AQ_MICRO_COUNT);
    LLVMValueRef zero = aq_i64(e, 0);
    LLVMValueRef any = LLVMBuildICmp(builder, LLVMIntSLT, zero, count, "");
    LLVMBuildCondBr(builder, any, body, after);

    LLVMPositionBuilderAtEnd(builder, body);
    LLVMValueRef number = phi(m, zero, before);
    Flow in = flow_phis(m, flow, before), out = in;
    out.k = zero;
    out.a = aq_at(e, e->f32, LLVMGetParam(e->function, AQ_MICRO_A),
                  segment_field(m, number, 0));
    LLVMValueRef skip =
        LLVMBuildMul(builder, segment_field(m, number, 1),
                     LLVMGetParam(e->function, AQ_MICRO_LDB), "");
    out.b = aq_at(e, e->f32, LLVMGetParam(e->function, AQ_MICRO_B), skip);
    run_over_k(m, &out, segment_field(m, number, 2));
    LLVMBasicBlockRef last = LLVMGetInsertBlock(builder);
    LLVMValueRef next = LLVMBuildAdd(builder, number, aq_i64(e, 1), "");
    LLVMAddIncoming(number, &next, &last, 1);
    flow_join(m, &in, &out, last);
    LLVMValueRef again = LLVMBuildICmp(builder, LLVMIntSLT, next, count, "");
    LLVMBuildCondBr(builder, again, body, after);

    LLVMPositionBuilderAtEnd(builder, after);
    Flow end = flow_phis(m, flow, before);
    flow_join(m, &end, &out, last);
    *flow = end;
}

static Flow start(Micro *m)
{
    Flow flow = {.k = aq_i64(m->e, 0),
                 .a = LLVMGetParam(m->e->function, AQ_MICRO_A),
                 .b = LLVMGetParam(m->e->function, AQ_MICRO_B),
                 .ahead = LLVMGetParam(m->e->function, AQ_MICRO_AHEAD)};
    for (int i = 0; i < sums_of(m); i++)
        flow.sums[i] = LLVMConstNull(m->e->vf32);
    return flow;
}

/* Into the tile, added to what is there if `more`. */
static void finish(Micro *m, const Flow *flow, bool more)
{
    AqEmit *e = m->e;
    for (int i = 0; i < sums_of(m); i++) {
        LLVMValueRef sum = flow->sums[i];
        LLVMValueRef at =
            tile_place(m, i / m->key->vectors, i % m->key->vectors);
        if (more)
            sum = LLVMBuildFAdd(e->builder, aq_load(e, e->vf32, at), sum, "");
        aq_store(e, sum, at);
    }
    LLVMBuildRetVoid(e->builder);
}

/* ---- what both register tiles begin with ---- */

void aq_emit_micro_function(AqEmit *e)
{
    LLVMTypeRef parameters[] = {e->pointer, e->pointer, e->pointer, e->i64,
                                e->i64,     e->i64,     e->pointer, e->i64,
                                e->pointer, e->i64};
    aq_emit_function(e, e->nothing, parameters, AQ_COUNT(parameters));
}

LLVMValueRef aq_emit_fetch_ahead(AqEmit *e, LLVMValueRef ahead)
{
    LLVMValueRef args[] = {ahead, aq_i32(e, 0), aq_i32(e, 2), aq_i32(e, 1)};
    aq_intrinsic(e, "llvm.prefetch", &e->pointer, 1, args, AQ_COUNT(args));
    return aq_float_at(e, ahead, aq_param(e, AQ_MICRO_AHEAD_STRIDE));
}

/* The sums of each run over k begin at zero: shorter chains, smaller errors. */
AqStatus aq_emit_micro(AqEmit *e, const void *key)
{
    Micro m = {.e = e, .key = key};
    aq_emit_micro_function(e);
    Flow flow = start(&m);
    if (by_rows(&m))
        run_over_k(&m, &flow, LLVMGetParam(e->function, AQ_MICRO_K));
    else
        run_over_segments(&m, &flow);
    LLVMBasicBlockRef old = aq_emit_block(e, "old");
    LLVMBasicBlockRef fresh = aq_emit_block(e, "fresh");
    LLVMValueRef more = LLVMBuildICmp(e->builder, LLVMIntNE,
                                      LLVMGetParam(e->function, AQ_MICRO_MORE),
                                      aq_i64(e, 0), "");
    LLVMBuildCondBr(e->builder, more, old, fresh);
    LLVMPositionBuilderAtEnd(e->builder, old);
    finish(&m, &flow, true);
    LLVMPositionBuilderAtEnd(e->builder, fresh);
    finish(&m, &flow, false);
    return AQ_OK;
}
