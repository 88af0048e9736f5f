/* The loops of a map kernel; map.h says what they run over. */
#include "codegen/map.h"

#include <string.h>

typedef struct Nest {
    AqEmit *e;
    AqExpr *x;
    const AqMap *map;
    LLVMValueRef buffers[AQ_MAX_RESULTS]; /* of the outputs */
    LLVMValueRef mask;                    /* of the tail; NULL: all lanes */
    int lanes;                            /* that count */
    AqIndex row;
    int n_blocks;
    AqIndex block[AQ_MOST_BLOCKS]; /* numbers of the blocks side by side */
} Nest;

/* ---- indices ---- */

static AqIndex variable(Nest *n, LLVMValueRef value, int64_t hi)
{
    return aq_index_variable(n->x->t, value, 0, hi, n->x->entered);
}

static AqIndex plus(Nest *n, AqIndex index, int64_t constant)
{
    return aq_index_add(n->x->t, index, aq_index_constant(n->x->t, constant));
}

/* Splits a row's, a step's and a vector's number over their dimensions. */
static void domain_index(Nest *n, AqIndex step, AqIndex vector, AqIndex *index)
{
    const AqMap *map = n->map;
    AqIndexTable *t = n->x->t;
    AqIndex rest[3] = {n->row, step, vector};
    int64_t left[3] = {map->rows, map->steps, map->extent};
    for (int i = map->domain.rank - 1; i >= 0; i--) {
        int which = i >= map->first ? 2 : map->reduced[i] ? 1 : 0;
        int64_t extent = map->domain.dim[i];
        if (extent == 1) {
            index[i] = aq_index_constant(t, 0);
            continue;
        }
        left[which] /= AQ_MAX(extent, 1);
        index[i] = left[which] > 1 ? aq_index_mod(t, rest[which], extent)
                                   : rest[which];
        rest[which] = aq_index_div(t, rest[which], extent);
    }
}

static AqIndex vector_at(Nest *n, AqIndex block)
{
    AqIndex base = aq_index_scale(n->x->t, block, n->map->lanes);
    return aq_index_vector(n->x->t, base, n->map->extent);
}

/* ---- values of the domain ---- */

static LLVMValueRef value_at(Nest *n, AqId id, const AqIndex *index)
{
    const AqType *type = &aq_node(n->map->body, id)->type;
    if (aq_same_shape(type, &n->map->domain))
        return aq_expr_vector(n->x, id, index);
    AqIndex other[AQ_MAX_RANK];
    aq_expr_unravel(n->x->t, type, aq_expr_offset(n->x, &n->map->domain, index),
                    other);
    return aq_expr_vector(n->x, id, other);
}

/* All are computed before any is stored: a result may share an input's memory,
 * and its other readers stand at the same index. */
static void store_domain(Nest *n, const AqIndex *index)
{
    LLVMValueRef values[AQ_MAX_RESULTS] = {NULL};
    AqIndex offset = aq_expr_offset(n->x, &n->map->domain, index);
    for (int i = 0; i < n->map->n_outputs; i++)
        if (n->map->outputs[i].value >= 0)
            values[i] = value_at(n, n->map->outputs[i].value, index);
    for (int i = 0; i < n->map->n_outputs; i++)
        if (values[i])
            aq_expr_store(n->x, n->buffers[i], offset, values[i]);
}

/* ---- reductions ---- */

static void reduce_values(Nest *n, AqAccumulators *a, int block,
                          AqIndex index[][AQ_MAX_RANK], int batch)
{
    bool masked = n->mask && n->map->vector_reduced;
    for (int r = 0; r < n->map->n_reducers; r++) {
        LLVMValueRef values[AQ_MOST_BLOCKS];
        for (int b = 0; b < batch; b++)
            values[b] = value_at(n, n->map->reducers[r].value, index[b]);
        aq_reduce_step(n->e, n->map, a, block, r, values, batch,
                       masked ? n->mask : NULL);
    }
    for (int b = 0; b < batch; b++)
        store_domain(n, index[b]);
}

/* Steps step .. step + batch - 1 of all blocks side by side.  Where the vector
 * is reduced and full, a step is a block as well. */
static void reduce_batch(Nest *n, AqAccumulators *a, AqIndex step, int batch)
{
    const AqMap *map = n->map;
    AqIndexTable *t = n->x->t;
    bool through = map->vector_reduced && !n->mask;
    for (int u = 0; u < n->n_blocks; u++) {
        AqIndex index[AQ_MOST_BLOCKS][AQ_MAX_RANK];
        for (int b = 0; b < batch; b++) {
            AqIndex at = plus(n, step, b), block = n->block[u];
            if (through) {
                block = aq_index_mod(t, at, map->full);
                at = aq_index_div(t, at, map->full);
            }
            domain_index(n, at, vector_at(n, block), index[b]);
        }
        reduce_values(n, a, u, index, batch);
    }
}

/* A loop over steps from .. to - 1, batch at a time. */
static void reduce_loop(Nest *n, AqAccumulators *a, int64_t from, int64_t to,
                        int batch)
{
    if (from >= to)
        return;
    if (to - from == batch) {
        reduce_batch(n, a, aq_index_constant(n->x->t, from), batch);
        return;
    }
    AqLoop loop;
    aq_loop_begin(n->e, &loop, aq_i64(n->e, from), aq_i64(n->e, to), batch);
    for (int i = 0; i < a->count; i++)
        aq_loop_carry(n->e, &loop, a->v[i]);
    AqAccumulators inside = {.count = a->count};
    memcpy(inside.v, loop.carried, sizeof inside.v);
    aq_expr_enter(n->x, loop.before);
    AqIndex step = variable(n, loop.counter, to - batch);
    reduce_batch(n, &inside, step, batch);
    aq_expr_leave(n->x);
    memcpy(loop.next, inside.v, sizeof inside.v);
    aq_loop_end(n->e, &loop);
    memcpy(a->v, loop.next, sizeof inside.v);
}

static void reduce_steps(Nest *n, AqAccumulators *a, int64_t steps)
{
    int64_t main = steps / n->map->batch * n->map->batch;
    reduce_loop(n, a, 0, main, n->map->batch);
    reduce_loop(n, a, main, steps, 1);
}

/* ---- storing what was reduced ---- */

/* Offset in the result of the kept dimensions of a domain index. */
static AqIndex kept_offset(Nest *n, const AqIndex *index)
{
    AqIndexTable *t = n->x->t;
    AqIndex offset = aq_index_constant(t, 0);
    for (int i = 0; i < n->map->domain.rank; i++) {
        if (n->map->reduced[i])
            continue;
        offset = aq_index_scale(t, offset, n->map->domain.dim[i]);
        offset = aq_index_add(t, offset, index[i]);
    }
    return offset;
}

/* The first lane of each group, side by side, one result a group. */
static void store_groups(Nest *n, LLVMValueRef base, AqIndex offset,
                         LLVMValueRef value)
{
    int group = n->map->inner, count = n->map->lanes / group, places[64];
    for (int i = 0; i < count; i++)
        places[i] = i * group;
    value = aq_shuffle(n->e, value, NULL, places, count);
    LLVMTypeRef element = LLVMGetElementType(LLVMTypeOf(value));
    LLVMValueRef at =
        aq_at(n->e, element, base, aq_expr_index_value(n->x, offset, true));
    LLVMValueRef mask =
        n->mask ? aq_constant_mask(n->e, n->lanes / group, count) : NULL;
    aq_store_masked(n->e, value, at, mask);
}

static void store_reduced(Nest *n, const AqAccumulators *a, int block)
{
    const AqMap *map = n->map;
    AqIndexTable *t = n->x->t;
    AqIndex index[AQ_MAX_RANK], zero = aq_index_constant(t, 0);
    bool whole = map->vector_reduced, groups = map->inner > 1;
    AqIndex vector = whole    ? zero
                     : groups ? aq_index_scale(t, n->block[block], map->lanes)
                              : vector_at(n, n->block[block]);
    domain_index(n, zero, vector, index);
    AqIndex offset = kept_offset(n, index);
    for (int i = 0; i < map->n_outputs; i++) {
        const AqMapOutput *output = &map->outputs[i];
        LLVMValueRef values[2];
        if (output->value >= 0)
            continue;
        aq_reduce_finish(n->e, map, a, block, output->reducer,
                         whole ? map->lanes : map->inner, values);
        LLVMValueRef value = values[output->component];
        if (whole)
            aq_expr_store(n->x, n->buffers[i], offset, aq_lane(n->e, value, 0));
        else if (groups)
            store_groups(n, n->buffers[i], offset, value);
        else
            aq_expr_store(n->x, n->buffers[i], offset, value);
    }
}

/* ---- blocks and rows ---- */

static void tail_mask(Nest *n, bool on)
{
    const AqMap *map = n->map;
    n->mask = on ? aq_constant_mask(n->e, map->tail, map->lanes) : NULL;
    n->lanes = on ? map->tail : map->lanes;
    aq_expr_mask(n->x, n->mask, 0);
}

/* A row whose vector is reduced: full blocks first, then the tail. */
static void emit_reduced_row(Nest *n)
{
    const AqMap *map = n->map;
    AqAccumulators a;
    aq_reduce_start(n->e, map, &a);
    n->n_blocks = 1;
    reduce_steps(n, &a, map->steps * map->full);
    if (map->tail) {
        tail_mask(n, true);
        n->block[0] = aq_index_constant(n->x->t, map->full);
        reduce_steps(n, &a, map->steps);
        tail_mask(n, false);
    }
    store_reduced(n, &a, 0);
}

static void emit_blocks(Nest *n)
{
    const AqMap *map = n->map;
    for (int u = 0; map->n_reducers == 0 && u < n->n_blocks; u++) {
        AqIndex index[AQ_MAX_RANK];
        domain_index(n, aq_index_constant(n->x->t, 0),
                     vector_at(n, n->block[u]), index);
        store_domain(n, index);
    }
    if (map->n_reducers == 0)
        return;
    AqAccumulators a;
    aq_reduce_start(n->e, map, &a);
    reduce_steps(n, &a, map->steps);
    for (int u = 0; u < n->n_blocks; u++)
        store_reduced(n, &a, u);
}

/* Groups from .. to - 1 of `unroll` blocks. */
static void emit_full_blocks(Nest *n, LLVMValueRef from, LLVMValueRef to)
{
    const AqMap *map = n->map;
    AqLoop loop;
    n->n_blocks = map->unroll;
    bool single = map->full == map->unroll;
    AqIndex group = aq_index_constant(n->x->t, 0);
    if (!single) {
        aq_loop_begin(n->e, &loop, from, to, 1);
        aq_expr_enter(n->x, loop.before);
        group = variable(n, loop.counter, map->full / map->unroll - 1);
    }
    for (int u = 0; u < map->unroll; u++)
        n->block[u] = plus(n, aq_index_scale(n->x->t, group, map->unroll), u);
    emit_blocks(n);
    if (!single) {
        aq_expr_leave(n->x);
        aq_loop_end(n->e, &loop);
    }
}

static void emit_tail(Nest *n)
{
    tail_mask(n, true);
    n->n_blocks = 1;
    n->block[0] = aq_index_constant(n->x->t, n->map->full);
    emit_blocks(n);
    tail_mask(n, false);
}

/* The tail belongs to the last chunk. */
static void emit_tail_of_chunk(Nest *n, LLVMValueRef chunk)
{
    AqEmit *e = n->e;
    LLVMValueRef last = LLVMBuildICmp(e->builder, LLVMIntEQ, chunk,
                                      aq_i64(e, n->map->chunks - 1), "");
    LLVMBasicBlockRef before = LLVMGetInsertBlock(e->builder);
    LLVMBasicBlockRef tail = aq_emit_block(e, "tail");
    LLVMBasicBlockRef after = aq_emit_block(e, "after_tail");
    LLVMBuildCondBr(e->builder, last, tail, after);
    LLVMPositionBuilderAtEnd(e->builder, tail);
    aq_expr_enter(n->x, before);
    emit_tail(n);
    aq_expr_leave(n->x);
    LLVMBuildBr(e->builder, after);
    LLVMPositionBuilderAtEnd(e->builder, after);
}

static void emit_row(Nest *n)
{
    const AqMap *map = n->map;
    if (map->vector_reduced) {
        emit_reduced_row(n);
        return;
    }
    if (map->full > 0)
        emit_full_blocks(n, aq_i64(n->e, 0),
                         aq_i64(n->e, map->full / map->unroll));
    if (map->tail)
        emit_tail(n);
}

/* ---- tasks ---- */

static void emit_chunk(Nest *n, AqIndex task)
{
    AqEmit *e = n->e;
    const AqMap *map = n->map;
    AqIndex chunk = aq_index_mod(n->x->t, task, map->chunks);
    n->row = aq_index_div(n->x->t, task, map->chunks);
    LLVMValueRef number = aq_expr_index_value(n->x, chunk, true);
    LLVMValueRef groups = aq_i64(e, map->blocks_a_chunk / map->unroll);
    LLVMValueRef from = LLVMBuildMul(e->builder, number, groups, "");
    LLVMValueRef to = LLVMBuildAdd(e->builder, from, groups, "");
    emit_full_blocks(n, from, aq_at_most(e, to, map->full / map->unroll));
    if (map->tail)
        emit_tail_of_chunk(n, number);
}

static void emit_rows(Nest *n, LLVMValueRef task)
{
    AqEmit *e = n->e;
    const AqMap *map = n->map;
    AqLoop loop;
    LLVMValueRef from =
        LLVMBuildMul(e->builder, task, aq_i64(e, map->rows_a_task), "");
    LLVMValueRef to =
        LLVMBuildAdd(e->builder, from, aq_i64(e, map->rows_a_task), "");
    aq_loop_begin(e, &loop, from, aq_at_most(e, to, map->rows), 1);
    aq_expr_enter(n->x, loop.before);
    n->row = variable(n, loop.counter, map->rows - 1);
    emit_row(n);
    aq_expr_leave(n->x);
    aq_loop_end(e, &loop);
}

static void emit_task(Nest *n, LLVMValueRef number)
{
    AqIndex task = variable(n, number, n->map->tasks - 1);
    if (n->map->chunks > 1) {
        emit_chunk(n, task);
    } else if (n->map->rows_a_task > 1) {
        emit_rows(n, number);
    } else {
        n->row = task;
        emit_row(n);
    }
}

AqStatus aq_map_emit(AqEmit *e, const void *context)
{
    const AqMap *map = context;
    Nest n = {.e = e, .map = map};
    AqLoop loop;
    LLVMValueRef *inputs =
        AQ_NEW_ARRAY(e->arena, LLVMValueRef, map->n_inputs + 1);
    if (!inputs)
        return aq_no_memory(e->error, sizeof *inputs);
    aq_emit_task_function(e);
    for (int i = 0; i < map->n_inputs; i++)
        inputs[i] = aq_emit_buffer(e, i);
    for (int i = 0; i < map->n_outputs; i++)
        n.buffers[i] = aq_emit_buffer(e, map->n_inputs + i);
    n.x = aq_expr_new(e, map->body, inputs, map->lanes);
    if (!n.x)
        return e->error->status;
    LLVMBasicBlockRef end = aq_emit_task_loop(e, &loop);
    aq_expr_enter(n.x, loop.before);
    if (map->tasks > 0)
        emit_task(&n, loop.counter);
    aq_expr_leave(n.x);
    aq_loop_end(e, &loop);
    aq_emit_task_end(e, end);
    if (n.x->t->failed)
        aq_no_memory(e->error, sizeof n);
    return e->error->status;
}
