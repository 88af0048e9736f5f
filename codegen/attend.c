/* From a kernel's body to closure, units and stages. */
#include "codegen/attend.h"

#include <stddef.h>

enum {
    FEW_TASKS = 24,     /* smaller pieces are taken rather than fewer tasks */
    FEW_HEADS = 8,      /* from here on a task may take a whole head: fewer
                         * tasks than that, but panels stay in L2 */
    MOST_OWN = 512,     /* tokens of one that does */
    MOST_QUERIES = 256, /* of a forward task */
};

/* ---- the body ---- */

static const AqNode *behind_reshapes(const AqGraph *body, AqId id)
{
    while (aq_node(body, id)->op == AQ_OP_reshape)
        id = aq_node(body, id)->inputs[0];
    return aq_node(body, id);
}

static AqStatus complain(const AqKernel *kernel, const char *what,
                         AqError *error)
{
    return aq_fail(error, AQ_UNSUPPORTED,
                   "%s:%d: kernel %%%d of kind attend %s", kernel->node->file,
                   kernel->node->line, kernel->id, what);
}

static AqId find_attention(const AqGraph *body)
{
    for (AqId id = 0; id < body->count; id++)
        if (aq_op_info[aq_node(body, id)->op].lowering == AQ_LOWER_attend)
            return id;
    return AQ_NO_NODE;
}

/* Which buffer holds each input of the node. */
static AqStatus find_inputs(const AqKernel *kernel, const AqNode *node,
                            AqAttend *a, AqError *error)
{
    static const int forward[] = {AQ_Q, AQ_K, AQ_V, AQ_BIAS};
    static const int backward[] = {AQ_Q,   AQ_K,    AQ_V,   AQ_OUT,
                                   AQ_LSE, AQ_DOUT, AQ_BIAS};
    const int *order = node->op == AQ_OP_attention ? forward : backward;
    for (int i = 0; i < AQ_ATTEND_IN; i++)
        a->in[i] = -1;
    for (int i = 0; i < node->n_inputs; i++) {
        const AqNode *arg = behind_reshapes(kernel->body, node->inputs[i]);
        if (arg->op != AQ_OP_arg)
            return complain(kernel, "computes its inputs itself", error);
        a->in[order[i]] = (int32_t)aq_attr_int(arg, AQ_KEY_INDEX, 0);
    }
    return AQ_OK;
}

/* Which buffer takes each result of the node; the workspace follows them. */
static AqStatus find_results(const AqKernel *kernel, AqId attention,
                             AqAttend *a, AqError *error)
{
    const AqGraph *body = kernel->body;
    int32_t buffer = kernel->node->n_inputs;
    for (int i = 0; i < 3; i++)
        a->result[i] = -1;
    for (int i = 0; i < body->n_outputs; i++, buffer++) {
        const AqNode *result = behind_reshapes(body, body->outputs[i].node);
        if (result->op != AQ_OP_result || result->inputs[0] != attention)
            return complain(kernel, "computes something else as well", error);
        int32_t *place = &a->result[aq_attr_int(result, AQ_KEY_INDEX, 0)];
        if (*place >= 0)
            return complain(kernel, "gives one result twice", error);
        *place = buffer;
    }
    a->work = buffer;
    return AQ_OK;
}

static void take_shapes(const AqGraph *body, const AqNode *node, AqAttend *a)
{
    const AqType *q = &aq_node(body, node->inputs[0])->type;
    const AqType *k = &aq_node(body, node->inputs[1])->type;
    a->batch = q->dim[0];
    a->queries = q->dim[1];
    a->keys = k->dim[1];
    a->heads = q->dim[2];
    a->depth = q->dim[3];
    a->row = a->heads * a->depth;
    a->causal = aq_attr_int(node, AQ_KEY_CAUSAL, 0);
    a->scale = (float)aq_attr_real(node, AQ_KEY_SCALE, 1);
    if (a->in[AQ_BIAS] < 0)
        return;
    const AqType *bias = &aq_node(body, node->inputs[node->n_inputs - 1])->type;
    int64_t head = a->queries * a->keys;
    a->bias_head = bias->dim[1] > 1 ? head : 0;
    a->bias_batch = bias->dim[0] > 1 ? head * bias->dim[1] : 0;
}

/* ---- sizes, from shapes and target alone ---- */

/* Rows of a panel lie an odd number of cache lines apart, so that those of a
 * tile fall into different sets of a cache. */
static int64_t panel_row(int64_t depth)
{
    return (aq_ceil_div(depth, 16) | 1) * 16;
}

/* Halves `n`, a multiple of the tile, for large heads. */
static int64_t fewer_rows(int64_t n, int64_t depth, int64_t most_depth)
{
    while (depth > most_depth && n % 48 == 0) {
        n /= 2;
        most_depth *= 2;
    }
    return n;
}

/* Vectors of a strip: many need fewer instructions a product, but should not
 * leave many lanes idle. */
static int strip_vectors(const AqTarget *target, int64_t tokens)
{
    int most = target->registers == 32 ? 4 : 3;
    int64_t wide = aq_round_up(tokens, (int64_t)most * target->vector);
    int64_t narrow = aq_round_up(tokens, 2 * (int64_t)target->vector);
    return 8 * wide > 9 * narrow ? 2 : most;
}

/* Rows of e of a tile of sums, for the fewest instructions: a term takes one a
 * row and one a vector besides the products; rows behind the last are idle. */
static int sum_rows(const AqTarget *target, int vectors, int64_t depth)
{
    int best = aq_attend_rows(target, vectors), least = vectors < 4 ? best : 4;
    int64_t lowest = INT64_MAX;
    for (int rows = best; rows >= least; rows--) {
        int64_t cost = aq_ceil_div(depth, rows) *
                       ((int64_t)rows * vectors + rows + vectors);
        if (cost < lowest)
            best = rows;
        lowest = AQ_MIN(lowest, cost);
    }
    return best;
}

static void set_common(const AqTarget *target, int64_t tokens, AqAttend *a)
{
    int vectors = strip_vectors(target, tokens);
    a->lanes = target->vector;
    a->width = vectors * a->lanes;
    a->tile = aq_attend_rows(target, vectors);
    a->sum_tile = sum_rows(target, vectors, a->depth);
    for (int v = 0; v < 3; v++)
        a->outer_rows[v] = aq_attend_rows(target, v + 1);
    a->panel = panel_row(a->depth);
    a->depth_rows = AQ_MAX(aq_round_up(a->depth, a->sum_tile),
                           aq_round_up(a->depth, a->lanes));
}

static int64_t place_in_work(int64_t *floats, int64_t count)
{
    int64_t at = *floats;
    *floats += aq_round_up(count, 16);
    return at;
}

/* Of `heads` heads, two panels of `tokens` tokens, and room to read past the
 * last rows. */
static int64_t place_sides(AqAttend *a, int64_t heads, int64_t tokens)
{
    int64_t floats = 0;
    for (int i = 0; i < 2; i++)
        a->side_at[i] = place_in_work(&floats, heads * tokens * a->panel);
    place_in_work(&floats, a->tile * a->panel);
    return floats;
}

/* A task makes panels faster than a stage, which goes through memory; but many
 * tasks of one head would make them again. */
static bool has_own_panels(const AqAttend *a)
{
    return a->batch * a->heads >= FEW_HEADS && a->queries <= MOST_OWN &&
           a->keys <= MOST_OWN;
}

/* Shares of one side's blocks, about `wanted` tasks a head. */
static void set_splits(AqAttend *a, int64_t tokens, int64_t wanted)
{
    int64_t blocks = aq_ceil_div(tokens, a->along);
    a->per_split = aq_ceil_div(blocks, AQ_MIN(wanted, blocks));
    a->splits = aq_ceil_div(blocks, a->per_split);
}

static void set_forward(AqAttend *a)
{
    int64_t strips =
        AQ_MIN(aq_ceil_div(a->queries, a->width), MOST_QUERIES / a->width);
    int64_t heads = a->batch * a->heads;
    a->own = has_own_panels(a);
    if (a->own)
        strips = 1;
    while (strips > 1 &&
           heads * aq_ceil_div(a->queries, strips * a->width) < FEW_TASKS)
        strips /= 2;
    a->along = strips * a->width;
    a->across = fewer_rows(96, a->depth, 256);
    set_splits(a, a->queries, a->own ? 1 : INT64_MAX);
    a->side[0] = AQ_K;
    a->side[1] = AQ_V;
    a->panel_floats = place_sides(a, a->own ? 1 : heads, a->keys);
}

static void set_backward(const AqTarget *target, AqAttend *a)
{
    int64_t strips =
        AQ_MIN(aq_ceil_div(a->keys, a->width), AQ_MOST_SCORES / a->width);
    int64_t strip_bytes = 5 * 4 * a->width * a->depth;
    int64_t heads = a->batch * a->heads;
    while (strips > 1 && strips * strip_bytes > target->l2 / 3)
        strips /= 2;
    a->along = strips * a->width;
    a->across = fewer_rows(96, a->depth, 256);
    a->own = has_own_panels(a);
    set_splits(a, a->keys, a->own ? 1 : aq_ceil_div(FEW_TASKS, heads));
    a->side[0] = AQ_Q;
    a->side[1] = AQ_DOUT;
    heads = a->own ? 1 : heads;
    int64_t floats = place_sides(a, heads, a->queries);
    /* a tile's rows may end behind the last query */
    a->slope_at = place_in_work(&floats, heads * a->queries + AQ_WHOLE_ROWS);
    a->lse_at = place_in_work(&floats, heads * a->queries + AQ_WHOLE_ROWS);
    a->dq_rows = aq_round_up(a->queries, AQ_WHOLE_ROWS);
    a->dq_at = floats;
    if (a->result[0] >= 0)
        place_in_work(&floats, a->splits * heads * a->dq_rows * a->panel);
    a->panel_floats = floats;
}

typedef struct Attention {
    AqAttend a;
    bool backward;
} Attention;

static AqStatus analyse(const AqKernel *kernel, Attention *t, AqError *error)
{
    AqAttend *a = &t->a;
    *t = (Attention){.backward = false};
    AqId id = find_attention(kernel->body);
    if (id == AQ_NO_NODE)
        return complain(kernel, "holds no attention", error);
    const AqNode *node = aq_node(kernel->body, id);
    if (find_inputs(kernel, node, a, error) ||
        find_results(kernel, id, a, error))
        return error->status;
    t->backward = node->op == AQ_OP_attention_gradient;
    take_shapes(kernel->body, node, a);
    set_common(kernel->target, t->backward ? a->keys : a->queries, a);
    if (t->backward)
        set_backward(kernel->target, a);
    else
        set_forward(a);
    return AQ_OK;
}

static bool has_join(const Attention *t)
{
    return t->backward && t->a.result[0] >= 0 && !t->a.own;
}

static AqStatus attend_layout(const AqKernel *kernel, AqKernelLayout *layout,
                              AqError *error)
{
    Attention t;
    if (analyse(kernel, &t, error))
        return error->status;
    const AqAttend *a = &t.a;
    int64_t met = t.backward ? a->queries : a->keys;
    int64_t scratch = t.backward ? aq_attend_backward_scratch(a)
                                 : aq_attend_forward_scratch(a);
    *layout = (AqKernelLayout){.scratch = 4 * scratch};
    if (!a->own) {
        layout->workspace = 4 * a->panel_floats + 64; /* to be aligned */
        layout->tasks[layout->n_stages++] =
            a->batch * aq_ceil_div(met, AQ_TOKENS);
    }
    layout->tasks[layout->n_stages++] = a->batch * a->heads * a->splits;
    if (has_join(&t))
        layout->tasks[layout->n_stages++] =
            a->batch * aq_ceil_div(a->queries, AQ_TOKENS);
    return AQ_OK;
}

/* ---- units ---- */

static AqStatus link_unit(AqCodePlan *plan, size_t offset, int unit,
                          AqError *error)
{
    return unit < 0 ? aq_no_memory(error, sizeof unit)
                    : aq_code_plan_link(plan, offset, unit);
}

static AqStatus link_leaf(AqCodePlan *plan, size_t offset, const char *name,
                          AqUnitEmit *emit, AqError *error)
{
    return link_unit(plan, offset,
                     aq_code_plan_unit(plan, name, "", 0, emit, NULL), error);
}

/* A leaf that knows how many vectors a strip has. */
static AqStatus link_strip(AqCodePlan *plan, size_t offset, const AqAttend *a,
                           const char *name, AqUnitEmit *emit, AqError *error)
{
    int *vectors = AQ_NEW(aq_code_plan_arena(plan), int);
    if (!vectors)
        return aq_no_memory(error, sizeof *vectors);
    *vectors = (int)(a->width / a->lanes);
    int unit =
        aq_code_plan_unit(plan, name, vectors, sizeof *vectors, emit, vectors);
    return link_unit(plan, offset, unit, error);
}

static AqStatus link_tile(AqCodePlan *plan, size_t offset, AqTileKey key,
                          AqError *error)
{
    AqTileKey *kept = AQ_NEW(aq_code_plan_arena(plan), AqTileKey);
    if (!kept)
        return aq_no_memory(error, sizeof *kept);
    *kept = key;
    int unit = aq_code_plan_unit(plan, "attend_tile", kept, sizeof *kept,
                                 aq_emit_attend_tile, kept);
    return link_unit(plan, offset, unit, error);
}

static AqStatus link_strip_tile(AqCodePlan *plan, size_t offset,
                                const AqAttend *a, AqTileKind kind,
                                AqError *error)
{
    int64_t rows = kind == AQ_TILE_SUMS ? a->sum_tile : a->tile;
    AqTileKey key = {.kind = kind,
                     .rows = (int32_t)rows,
                     .vectors = (int32_t)(a->width / a->lanes),
                     .panel = (int32_t)a->panel};
    return link_tile(plan, offset, key, error);
}

#define PLACE(field) offsetof(AqAttend, field)

static AqStatus link_join(AqCodePlan *plan, AqError *error)
{
    return link_leaf(plan, PLACE(join), "attend_join", aq_emit_attend_join,
                     error);
}

static AqStatus link_panels(AqCodePlan *plan, bool backward, AqError *error)
{
    if (link_leaf(plan, PLACE(panel_rows), "attend_panel", aq_emit_attend_panel,
                  error) == AQ_OK &&
        backward)
        link_leaf(plan, PLACE(row_product), "attend_row_product",
                  aq_emit_attend_row_product, error);
    return error->status;
}

static AqStatus link_forward(AqCodePlan *plan, const AqAttend *a,
                             AqError *error)
{
    if (a->own && link_panels(plan, false, error))
        return error->status;
    if (link_leaf(plan, PLACE(transpose), "attend_transpose",
                  aq_emit_attend_transpose, error) ||
        link_strip_tile(plan, PLACE(scores), a, AQ_TILE_SCORES, error) ||
        link_strip_tile(plan, PLACE(sums), a, AQ_TILE_SUMS, error) ||
        link_strip(plan, PLACE(softmax), a, "attend_softmax",
                   aq_emit_attend_softmax, error))
        return error->status;
    return link_strip(plan, PLACE(softmax_end), a, "attend_softmax_end",
                      aq_emit_attend_softmax_end, error);
}

static AqStatus link_outer(AqCodePlan *plan, const AqAttend *a, AqError *error)
{
    bool linked[3] = {false};
    int64_t vectors;
    for (int64_t e = 0; e < a->depth; e += vectors * a->lanes) {
        vectors = aq_outer_vectors(a, a->depth - e);
        size_t offset =
            PLACE(outer) + (size_t)(vectors - 1) * sizeof(AqTileFn *);
        AqTileKey key = {.kind = AQ_TILE_OUTER,
                         .rows = (int32_t)a->outer_rows[vectors - 1],
                         .vectors = (int32_t)vectors,
                         .panel = AQ_SCORE_ROW};
        if (!linked[vectors - 1] && link_tile(plan, offset, key, error))
            return error->status;
        linked[vectors - 1] = true;
    }
    return AQ_OK;
}

static AqStatus link_backward(AqCodePlan *plan, const AqAttend *a,
                              AqError *error)
{
    if (a->own ? link_panels(plan, true, error) || link_join(plan, error)
               : link_leaf(plan, PLACE(panel_rows), "attend_panel",
                           aq_emit_attend_panel, error))
        return error->status;
    if (link_leaf(plan, PLACE(transpose), "attend_transpose",
                  aq_emit_attend_transpose, error) ||
        link_strip_tile(plan, PLACE(weights), a, AQ_TILE_WEIGHTS, error) ||
        link_strip_tile(plan, PLACE(slopes), a, AQ_TILE_SLOPES, error) ||
        link_strip_tile(plan, PLACE(sums), a, AQ_TILE_SUMS, error))
        return error->status;
    return link_outer(plan, a, error);
}

static AqStatus attend_plan(AqCodePlan *plan, const AqKernel *kernel,
                            AqError *error)
{
    Attention t;
    if (analyse(kernel, &t, error))
        return error->status;
    AqStatus status = AQ_OK;
    if (!t.a.own) {
        status = aq_code_plan_c_stage(plan, aq_attend_panels, &t.a, sizeof t.a);
        if (status || link_panels(plan, t.backward, error))
            return status ? status : error->status;
    }
    AqTaskFn *run = t.backward ? aq_attend_backward : aq_attend_forward;
    status = aq_code_plan_c_stage(plan, run, &t.a, sizeof t.a);
    if (status)
        return status;
    if (t.backward ? link_backward(plan, &t.a, error)
                   : link_forward(plan, &t.a, error))
        return error->status;
    if (!has_join(&t))
        return AQ_OK;
    status = aq_code_plan_c_stage(plan, aq_attend_join, &t.a, sizeof t.a);
    return status ? status : link_join(plan, error);
}

const AqKernelKind aq_kind_attend = {
    .name = "attend", .layout = attend_layout, .plan = attend_plan};
