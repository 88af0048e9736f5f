/* Kernels of kind scatter: out (V, rest...) = 0; out[index[i]] += updates[i].
 *
 * A task owns some columns of the rest, sets all their rows to zero and then
 * adds the updates in their order, so that the bits depend on nothing else.
 * Index and updates may be expressions of the body. */
#include "codegen/expr.h"

#include <string.h>

enum { TASK_ELEMENTS = 16384 };

typedef struct Scatter {
    const AqGraph *body;
    AqId index, updates;
    AqType out;
    int n_inputs, lanes;
    int64_t rows, count, columns; /* V, updates, elements of the rest */
    int64_t blocks, blocks_a_task, tasks;
} Scatter;

static AqStatus find_shape(const AqKernel *kernel, Scatter *s, AqError *error)
{
    const AqGraph *body = kernel->body;
    const AqNode *node =
        body->n_outputs == 1 ? aq_node(body, body->outputs[0].node) : NULL;
    if (!node || node->op != AQ_OP_scatter_add)
        return aq_fail(error, AQ_INTERNAL,
                       "%s:%d: scatter kernel %%%d: its one output is no "
                       "scatter_add",
                       kernel->node->file, kernel->node->line, kernel->id);
    *s = (Scatter){.body = body,
                   .index = node->inputs[0],
                   .updates = node->inputs[1],
                   .out = node->type,
                   .n_inputs = kernel->node->n_inputs,
                   .lanes = kernel->target->vector,
                   .rows = node->type.dim[0],
                   .columns = 1};
    for (int i = 1; i < node->type.rank; i++)
        s->columns *= node->type.dim[i];
    s->count = aq_elements(&aq_node(body, s->index)->type);
    s->blocks = (s->columns + s->lanes - 1) / s->lanes;
    int64_t work = (s->rows + s->count) * s->lanes;
    s->blocks_a_task = AQ_MAX(TASK_ELEMENTS / AQ_MAX(work, 1), 1);
    s->tasks =
        s->rows ? (s->blocks + s->blocks_a_task - 1) / s->blocks_a_task : 0;
    return AQ_OK;
}

static AqStatus scatter_layout(const AqKernel *kernel, AqKernelLayout *layout,
                               AqError *error)
{
    Scatter s;
    if (find_shape(kernel, &s, error) == AQ_OK)
        *layout = (AqKernelLayout){.n_stages = 1, .tasks = {s.tasks}};
    return error->status;
}

/* ---- code ---- */

typedef struct Frame {
    AqEmit *e;
    AqExpr *x;
    const Scatter *s;
    LLVMValueRef out;
    AqIndex column; /* of the vector */
} Frame;

static AqIndex variable(Frame *f, LLVMValueRef value, int64_t hi)
{
    return aq_index_variable(f->x->t, value, 0, hi, f->x->entered);
}

static AqIndex place_in(Frame *f, AqIndex row)
{
    AqIndex start = aq_index_scale(f->x->t, row, f->s->columns);
    return aq_index_add(f->x->t, start, f->column);
}

static void emit_zeros(Frame *f)
{
    AqLoop loop;
    aq_loop_begin(f->e, &loop, aq_i64(f->e, 0), aq_i64(f->e, f->s->rows), 1);
    aq_expr_enter(f->x, loop.before);
    AqIndex row = variable(f, loop.counter, f->s->rows - 1);
    aq_expr_store(f->x, f->out, place_in(f, row), LLVMConstNull(f->e->vf32));
    aq_expr_leave(f->x);
    aq_loop_end(f->e, &loop);
}

/* An index out of range goes to the nearest row: memory stays safe. */
static LLVMValueRef nearest_row(Frame *f, LLVMValueRef row)
{
    LLVMBuilderRef b = f->e->builder;
    LLVMValueRef zero = aq_i32(f->e, 0);
    LLVMValueRef last = aq_i32(f->e, AQ_MIN(f->s->rows - 1, INT32_MAX));
    LLVMValueRef under = LLVMBuildICmp(b, LLVMIntSLT, row, zero, "");
    row = LLVMBuildSelect(b, under, zero, row, "");
    LLVMValueRef over = LLVMBuildICmp(b, LLVMIntSGT, row, last, "");
    row = LLVMBuildSelect(b, over, last, row, "");
    return LLVMBuildSExt(b, row, f->e->i64, "");
}

static void emit_update(Frame *f, AqIndex number)
{
    const Scatter *s = f->s;
    AqIndexTable *t = f->x->t;
    const AqType *index_type = &aq_node(s->body, s->index)->type;
    AqType rest = {.element = AQ_F32, .rank = s->out.rank - 1};
    AqIndex at[AQ_MAX_RANK];
    memcpy(rest.dim, s->out.dim + 1, sizeof rest.dim[0] * (size_t)rest.rank);
    aq_expr_unravel(t, index_type, number, at);
    LLVMValueRef row = nearest_row(f, aq_expr_value(f->x, s->index, at));
    aq_expr_unravel(t, &rest, f->column, at + index_type->rank);
    LLVMValueRef update = aq_expr_vector(f->x, s->updates, at);
    AqIndex where = place_in(f, variable(f, row, s->rows - 1));
    LLVMValueRef old =
        aq_expr_load(f->x, f->e->f32, f->out, where, aq_elements(&s->out));
    aq_expr_match(f->x, &old, &update);
    LLVMValueRef sum = LLVMBuildFAdd(f->e->builder, old, update, "");
    aq_expr_store(f->x, f->out, where, sum);
}

static void emit_updates(Frame *f)
{
    AqLoop loop;
    if (f->s->count == 0)
        return;
    aq_loop_begin(f->e, &loop, aq_i64(f->e, 0), aq_i64(f->e, f->s->count), 1);
    aq_expr_enter(f->x, loop.before);
    emit_update(f, variable(f, loop.counter, f->s->count - 1));
    aq_expr_leave(f->x);
    aq_loop_end(f->e, &loop);
}

/* Blocks from .. to - 1; the last of all may be ragged. */
static void emit_columns(Frame *f, LLVMValueRef from, LLVMValueRef to)
{
    AqEmit *e = f->e;
    const Scatter *s = f->s;
    AqLoop loop;
    aq_loop_begin(e, &loop, from, to, 1);
    aq_expr_enter(f->x, loop.before);
    AqIndex block = variable(f, loop.counter, s->blocks - 1);
    AqIndex base = aq_index_scale(f->x->t, block, s->lanes);
    f->column = aq_index_vector(f->x->t, base, s->columns);
    LLVMValueRef mask = NULL;
    if (s->columns % s->lanes) {
        LLVMValueRef left =
            LLVMBuildSub(e->builder, aq_i64(e, s->columns),
                         aq_expr_index_value(f->x, base, true), "");
        mask = aq_mask(e, left, s->lanes);
    }
    aq_expr_mask(f->x, mask, f->x->entered);
    emit_zeros(f);
    emit_updates(f);
    aq_expr_mask(f->x, NULL, 0);
    aq_expr_leave(f->x);
    aq_loop_end(e, &loop);
}

static AqStatus scatter_emit(AqEmit *e, const void *context)
{
    const Scatter *s = context;
    Frame f = {.e = e, .s = s};
    AqLoop loop;
    LLVMValueRef *inputs =
        AQ_NEW_ARRAY(e->arena, LLVMValueRef, s->n_inputs + 1);
    if (!inputs)
        return aq_no_memory(e->error, sizeof *inputs);
    aq_emit_task_function(e);
    for (int i = 0; i <= s->n_inputs; i++)
        inputs[i] = aq_emit_buffer(e, i);
    f.out = inputs[s->n_inputs];
    f.x = aq_expr_new(e, s->body, inputs, s->lanes);
    if (!f.x)
        return e->error->status;
    LLVMBasicBlockRef end = aq_emit_task_loop(e, &loop);
    aq_expr_enter(f.x, loop.before);
    LLVMValueRef from =
        LLVMBuildMul(e->builder, loop.counter, aq_i64(e, s->blocks_a_task), "");
    LLVMValueRef to =
        LLVMBuildAdd(e->builder, from, aq_i64(e, s->blocks_a_task), "");
    if (s->tasks > 0)
        emit_columns(&f, from, aq_at_most(e, to, s->blocks));
    aq_expr_leave(f.x);
    aq_loop_end(e, &loop);
    aq_emit_task_end(e, end);
    if (f.x->t->failed)
        aq_no_memory(e->error, sizeof f);
    return e->error->status;
}

static AqStatus scatter_plan(AqCodePlan *plan, const AqKernel *kernel,
                             AqError *error)
{
    Scatter *s = AQ_NEW(aq_code_plan_arena(plan), Scatter);
    AqText key = {0};
    if (!s)
        return aq_no_memory(error, sizeof *s);
    if (find_shape(kernel, s, error))
        return error->status;
    aq_kernel_key(kernel, &key);
    int unit = key.failed ? -1
                          : aq_code_plan_unit(plan, "scatter", key.data,
                                              key.length, scatter_emit, s);
    aq_text_free(&key);
    return unit < 0 ? aq_no_memory(error, key.length)
                    : aq_code_plan_stage(plan, unit, NULL, 0);
}

const AqKernelKind aq_kind_scatter = {"scatter", scatter_layout, scatter_plan};
