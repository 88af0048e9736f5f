/* Reductions of what a contraction's kernel gives: see contract_sums.h. */
#include "codegen/contract_sums.h"
#include "ir/tiles.h"

#include <string.h>

enum { MOST_STRIP = 64, LINE = 16 };

/* ---- what is reduced ---- */

bool aq_is_sum(const AqGraph *body, AqId output)
{
    int component;
    return aq_reduction_of(body, output, &component) != NULL;
}

static AqSum *add_sum(AqSums *s, const AqNode *node)
{
    for (int i = 0; i < s->count; i++)
        if (s->of[i].op == node->op && s->of[i].value == node->inputs[0])
            return &s->of[i];
    if (s->count == AQ_MAX_SUMS)
        return NULL;
    AqSum *sum = &s->of[s->count++];
    *sum = (AqSum){node->op, node->inputs[0], s->rows, {-1, -1}};
    s->rows += node->op == AQ_OP_moments ? 3 : 1;
    return sum;
}

void aq_sums_divide(AqSums *s, int64_t strip)
{
    s->strip = strip;
    s->strips = aq_ceil_div(s->columns, strip);
    s->width = s->strips * strip;
    s->counts = aq_round_up(s->strips, LINE);
    s->slot = s->counts + s->rows * s->width;
}

AqStatus aq_sums_find(const AqKernel *kernel, AqId id, AqSums *s,
                      AqError *error)
{
    const AqGraph *body = kernel->body;
    const AqType *type = &aq_node(body, id)->type;
    *s = (AqSums){.samples = 1,
                  .columns = type->dim[type->rank - 1],
                  .work_buffer = kernel->node->n_inputs + body->n_outputs};
    for (int i = 0; i < body->n_outputs; i++) {
        int component;
        const AqNode *node =
            aq_reduction_of(body, body->outputs[i].node, &component);
        if (!node)
            continue;
        int kept = type->rank - 1 - aq_attr(node, AQ_KEY_AXES)->count;
        AqSum *sum = add_sum(s, node);
        if (!sum || node->op == AQ_OP_reduce_max || kept < 0 || kept > 1 ||
            !aq_same_shape(type, &aq_node(body, node->inputs[0])->type))
            return aq_fail(error, AQ_INTERNAL,
                           "contract kernel %%%d: these reductions cannot be "
                           "joined to it",
                           kernel->id);
        s->samples = kept ? type->dim[0] : 1;
        sum->buffer[component] = kernel->node->n_inputs + i;
    }
    aq_sums_divide(s, aq_tile_columns(kernel->target));
    return AQ_OK;
}

/* ---- places ---- */

AqSumPart aq_sums_part(const AqSums *s, int64_t rows, int64_t per_block,
                       int64_t *slots)
{
    AqSumPart part = {.per_sample = AQ_MAX(rows / s->samples, 1),
                      .per_block = per_block,
                      .blocks = aq_ceil_div(rows, per_block),
                      .first = *slots};
    *slots += part.blocks + s->samples;
    return part;
}

int64_t aq_sums_place(AqSums *s, int64_t slots, int64_t *floats)
{
    enum { FLOATS = 1 << 16 }; /* that one task may read */
    if (s->count == 0)
        return 0;
    s->at = aq_round_up(*floats, LINE);
    *floats = s->at + slots * s->slot;
    int64_t pieces = s->samples * s->strips;
    return AQ_MIN(pieces, aq_ceil_div(slots * s->slot, FLOATS));
}

static float *slot_at(const AqSums *s, void *const *buffers, int64_t slot)
{
    return aq_aligned(buffers[s->work_buffer]) + s->at + slot * s->slot;
}

float *aq_sums_begin(const AqSums *s, const AqSumPart *part,
                     void *const *buffers, int64_t block, int64_t strip0,
                     int64_t strip1)
{
    if (s->count == 0)
        return NULL;
    int64_t row = block * part->per_block, end = row + part->per_block;
    int64_t last = AQ_MIN((end - 1) / part->per_sample, s->samples - 1);
    for (int64_t n = row / part->per_sample; n <= last; n++)
        memset(slot_at(s, buffers, part->first + block + n) + strip0, 0,
               (size_t)(strip1 - strip0) * sizeof(float));
    return slot_at(s, buffers, part->first + block);
}

/* ---- the last stage ---- */

typedef struct Join {
    AqSums sums;
    int64_t tasks;
    int32_t n_parts;
    AqSumPart parts[];
} Join;

/* Values of a strip's columns, so far. */
typedef struct Joined {
    float taken;
    float a[AQ_MAX_SUMS][MOST_STRIP], b[AQ_MAX_SUMS][MOST_STRIP];
} Joined;

/* Chan's formula, with counts that are equal for all columns. */
static void add_moments(float *mean, float *m2, const float *near,
                        const float *away, const float *squares, int64_t n,
                        float had, float count)
{
    float share = count / (had + count), cross = had * share, by = 1 / count;
    for (int64_t i = 0; i < n; i++) {
        float own = squares[i] - away[i] * away[i] * by;
        float d = near[i] + away[i] * by - mean[i];
        mean[i] += d * share;
        m2[i] += (own < 0 ? 0 : own) + d * d * cross;
    }
}

static void add_slot(const AqSums *s, const float *slot, int64_t strip,
                     Joined *to)
{
    float count = slot[strip];
    const float *rows = slot + s->counts + strip * s->strip;
    if (count == 0)
        return;
    for (int i = 0; i < s->count; i++) {
        const float *from = rows + s->of[i].row * s->width;
        if (s->of[i].op == AQ_OP_moments)
            add_moments(to->a[i], to->b[i], from, from + s->width,
                        from + 2 * s->width, s->strip, to->taken, count);
        else
            for (int64_t c = 0; c < s->strip; c++)
                to->a[i][c] += from[c];
    }
    to->taken += count;
}

static void join_strip(const Join *j, void *const *buffers, int64_t sample,
                       int64_t strip)
{
    const AqSums *s = &j->sums;
    Joined all = {0};
    for (const AqSumPart *p = j->parts; p < j->parts + j->n_parts; p++) {
        int64_t row = sample * p->per_sample, end = row + p->per_sample;
        int64_t last = AQ_MIN((end - 1) / p->per_block, p->blocks - 1);
        for (int64_t block = row / p->per_block; block <= last; block++)
            add_slot(s, slot_at(s, buffers, p->first + block + sample), strip,
                     &all);
    }
    int64_t from = strip * s->strip, n = AQ_MIN(s->strip, s->columns - from);
    for (int i = 0; i < s->count; i++)
        for (int k = 0; k < 2; k++)
            if (s->of[i].buffer[k] >= 0)
                memcpy((float *)buffers[s->of[i].buffer[k]] +
                           sample * s->columns + from,
                       k ? all.b[i] : all.a[i], (size_t)n * sizeof(float));
}

static void join(const void *closure, void *const *buffers, int64_t first,
                 int64_t last, void *scratch)
{
    const Join *j = closure;
    (void)scratch;
    int64_t pieces = j->sums.samples * j->sums.strips;
    for (int64_t i = pieces * first / j->tasks; i < pieces * last / j->tasks;
         i++)
        join_strip(j, buffers, i / j->sums.strips, i % j->sums.strips);
}

AqStatus aq_sums_plan(AqCodePlan *plan, const AqSums *s, const AqSumPart *parts,
                      int n_parts, int64_t tasks, AqError *error)
{
    size_t bytes = sizeof(Join) + (size_t)n_parts * sizeof *parts;
    Join *j = aq_arena_alloc(aq_code_plan_arena(plan), bytes);
    if (!j)
        return aq_no_memory(error, bytes);
    j->sums = *s;
    j->tasks = tasks;
    j->n_parts = n_parts;
    memcpy(j->parts, parts, (size_t)n_parts * sizeof *parts);
    return aq_code_plan_c_stage(plan, join, j, bytes)
               ? aq_no_memory(error, bytes)
               : AQ_OK;
}

/* ---- running values ---- */

static int number(const AqRunning *r, int row, int vector)
{
    return vector * r->sums->rows + row;
}

static LLVMValueRef place(AqRunning *r, int row, int vector)
{
    AqEmit *e = r->e;
    int64_t at = row * r->sums->width + (int64_t)vector * e->lanes;
    return aq_at(e, e->f32, r->at, aq_i64(e, at));
}

static LLVMValueRef is_zero(AqEmit *e, LLVMValueRef value)
{
    return LLVMBuildICmp(e->builder, LLVMIntEQ, value, aq_i64(e, 0), "");
}

int aq_running_load(AqRunning *r)
{
    AqEmit *e = r->e;
    LLVMValueRef none = is_zero(e, r->taken);
    LLVMValueRef zero = aq_real_of(e, e->vf32, 0);
    for (int v = 0; v < r->vectors; v++)
        for (int row = 0; row < r->sums->rows; row++) {
            LLVMValueRef old = aq_load(e, e->vf32, place(r, row, v));
            r->v[number(r, row, v)] =
                LLVMBuildSelect(e->builder, none, zero, old, "");
        }
    return r->vectors * r->sums->rows;
}

void aq_running_take(AqRunning *r, int which, int vector, LLVMValueRef row,
                     LLVMValueRef value)
{
    AqEmit *e = r->e;
    const AqSum *sum = &r->sums->of[which];
    LLVMValueRef *v = &r->v[number(r, sum->row, vector)];
    if (sum->op == AQ_OP_reduce_sum) {
        v[0] = LLVMBuildFAdd(e->builder, v[0], value, "");
        return;
    }
    LLVMValueRef before = LLVMBuildAdd(e->builder, r->taken, row, "");
    v[0] = LLVMBuildSelect(e->builder, is_zero(e, before), value, v[0], "");
    LLVMValueRef d = LLVMBuildFSub(e->builder, value, v[0], "");
    v[1] = LLVMBuildFAdd(e->builder, v[1], d, "");
    v[2] = aq_fma(e, d, d, v[2]);
}

void aq_running_store(AqRunning *r)
{
    for (int v = 0; v < r->vectors; v++)
        for (int row = 0; row < r->sums->rows; row++)
            aq_store(r->e, r->v[number(r, row, v)], place(r, row, v));
}
