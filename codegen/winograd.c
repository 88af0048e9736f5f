/* Winograd forward, and the input's gradient, which is the same on weights that
 * are turned round: a closure for the driver, leaves, and at most five stages:
 *
 *   weights that are expressions -> U -> V -> products and what follows ->
 *   reductions
 *
 * Where there are many tiles a task makes its own V, and U is made once for
 * all.  Where there are few, tasks share the columns, so V is made once, and
 * each makes its part of U. */
#include "codegen/winograd_forward.h"

#include <string.h>

enum {
    STAGE_EVALUATE,
    STAGE_WEIGHTS,
    STAGE_TILES,
    STAGE_RUN,
    STAGE_SUMS,
    STAGES
};

typedef struct Forward {
    AqContractKernel k;
    AqWinograd w;
    int64_t tasks[STAGES];
    int64_t workspace, kept, scratch; /* floats */
} Forward;

int64_t aq_point_stride(int64_t floats)
{
    enum { LINE = 16 };
    return LINE * (aq_ceil_div(floats, LINE) | 1);
}

/* ---- what it can compute ---- */

static AqStatus check(const AqContractKernel *k, AqError *error)
{
    const AqNode *node = k->node;
    bool right = node->op == AQ_OP_conv2d ||
                 node->op == AQ_OP_conv2d_input_gradient ||
                 node->op == AQ_OP_conv2d_weight_gradient;
    const AqType *w = &node->type;
    if (right && node->op != AQ_OP_conv2d_weight_gradient)
        w = &aq_node(k->kernel->body, node->inputs[1])->type;
    right = right && w->dim[0] == 3 && w->dim[1] == 3 &&
            aq_attr_int(node, AQ_KEY_GROUPS, 1) == 1;
    for (int d = 0; right && d < 2; d++)
        right = aq_attr_at(node, AQ_KEY_STRIDE, d, 1) == 1 &&
                aq_attr_at(node, AQ_KEY_DILATION, d, 1) == 1;
    if (right)
        return AQ_OK;
    return aq_fail(error, AQ_INTERNAL,
                   "contract kernel %%%d: winograd is for 3x3 convolutions "
                   "with stride 1, dilation 1 and one group",
                   k->kernel->id);
}

/* ---- images ---- */

AqTileImage aq_tile_image(const AqContractKernel *k, int which)
{
    const AqGraph *body = k->kernel->body;
    AqId operand = k->node->inputs[which];
    const AqType *type = &aq_node(body, operand)->type;
    AqView view = aq_operand_view(body, operand);
    AqTileImage im = {.buffer = view.arg,
                      .base = view.base,
                      .sn = view.stride[0],
                      .sh = view.stride[1],
                      .sw = view.stride[2],
                      .channels = type->dim[3],
                      .height = type->dim[1],
                      .width = type->dim[2]};
    if (view.arg >= 0 && view.stride[3] != 1 && im.channels > 1)
        im.buffer = -1;
    return im;
}

AqStatus aq_winograd_link_image(AqCodePlan *plan, const AqContractKernel *k,
                                const AqTileImage *im, int which, size_t offset,
                                AqError *error)
{
    if (im->buffer < 0)
        return aq_contract_link_evaluate(
            plan, k, which, offset + offsetof(AqTileImage, evaluate), error);
    return aq_contract_link(
        plan, offset + offsetof(AqTileImage, copy),
        aq_code_plan_unit(plan, "copy", "", 0, aq_emit_copy, NULL), error);
}

/* ---- the closure ---- */

/* The product's B out of the normal form; the image's first pixel. */
static AqStatus set_weights(Forward *f, AqError *error)
{
    const AqContractKernel *k = &f->k;
    const AqGraph *body = k->kernel->body;
    const AqType *x = &aq_node(body, k->node->inputs[0])->type;
    const AqType *weights = &aq_node(body, k->node->inputs[1])->type;
    union {
        AqContraction c; /* with one part */
        char room[sizeof(AqContraction) + sizeof(AqPart)];
    } form = {.room = {0}};
    AqView view[2] = {aq_row_major_view(0, x),
                      aq_operand_view(body, k->node->inputs[1])};
    if (view[1].arg < 0 || aq_contract_form(body, k->node, view, &form.c) > 0) {
        f->w.weights = aq_operand_of(body, k->node->inputs[1]);
        aq_place_first(&f->w.weights, &f->workspace);
        view[1] = aq_row_major_view(0, weights);
        if (aq_contract_form(body, k->node, view, &form.c) >= 0)
            return aq_fail(error, AQ_INTERNAL,
                           "contract kernel %%%d: weights have no form",
                           k->kernel->id);
    }
    f->w.b_buffer = view[1].arg;
    f->w.part = form.c.parts[0];
    f->w.image.patch = AQ_PATCH;
    f->w.image.top = f->w.part.a.oy;
    f->w.image.left = f->w.part.a.ox;
    return AQ_OK;
}

/* As the kernel says: {tiles a task, strips a task, channels a pass, V shared,
 * U shared}. */
static void set_blocks(Forward *f)
{
    enum { TILES, STRIPS, PASS, SHARE_V, SHARE_U, NUMBERS };
    /* of the stage that makes V: so many tasks, if each has as many units,
     * which share rows */
    enum { PIECES = 4, UNITS = 2 };
    AqWinograd *w = &f->w;
    int64_t b[NUMBERS] = {[TILES] = 32,
                          [STRIPS] = w->strips,
                          [PASS] = AQ_WINOGRAD_TERMS,
                          [SHARE_U] = 1};
    for (int i = 0; i < NUMBERS; i++)
        b[i] = aq_attr_at(f->k.kernel->node, AQ_KEY_BLOCKS, i, b[i]);
    aq_tiles_cut(&w->tiles, b[TILES]);
    AqPasses p = aq_passes_of(w->image.channels,
                              AQ_MAX(AQ_MIN(b[PASS], AQ_WINOGRAD_TERMS), 1),
                              w->packing.vector);
    w->pass = p.pass;
    w->passes = p.passes;
    w->row = p.row;
    w->strip_block = AQ_MAX(AQ_MIN(b[STRIPS], w->strips), 1);
    w->share_v = b[SHARE_V] != 0;
    w->share_u = b[SHARE_U] != 0;
    int64_t pieces = aq_ceil_div(PIECES, w->tiles.samples * w->tiles.segments);
    pieces = AQ_MAX(AQ_MIN(pieces, w->tiles.down / UNITS), 1);
    w->piece = aq_ceil_div(w->tiles.down, pieces);
    w->pieces = aq_ceil_div(w->tiles.down, w->piece);
}

static void set_room(Forward *f)
{
    AqWinograd *w = &f->w;
    int64_t columns = w->packing.columns,
            taps = AQ_WINOGRAD_TAPS * AQ_WINOGRAD_ROWS * columns;
    w->rows = w->tiles.unit_block * w->tiles.across + w->tile_rows;
    w->v_point = aq_point_stride(w->passes * w->rows * w->row);
    w->u_point = aq_point_stride(w->pass * columns);
    w->m_point = aq_point_stride(w->rows * columns);
    int64_t u = AQ_POINTS * w->u_point, v = AQ_POINTS * w->v_point;
    int64_t rows = aq_round_up(aq_rows_floats(&w->image, &w->tiles), 16);
    w->pixel_floats = AQ_TILE * AQ_TILE * w->tiles.across * columns;
    w->own_u_floats = w->share_u ? 0 : u;
    int64_t run = AQ_POINTS * w->m_point + w->pixel_floats + w->own_u_floats;
    run += w->share_v ? 0 : v + rows;
    w->taps_at = run;
    run += w->share_u ? 0 : taps;
    f->scratch = AQ_MAX(run, AQ_MAX(w->share_v ? rows : 0, taps));
    w->v_at = f->workspace;
    f->workspace += w->share_v ? w->tiles.blocks * v : 0;
    int64_t *room = w->weights.place == AQ_FIRST ? &f->workspace : &f->kept;
    w->u_at = *room;
    *room += w->share_u ? w->strips * w->passes * u : 0;
    int64_t slots = 0;
    w->sums = aq_sums_part(&w->storing.sums, w->tiles.units,
                           w->tiles.unit_block, &slots);
    f->tasks[STAGE_SUMS] =
        aq_sums_place(&w->storing.sums, slots, &f->workspace);
    w->u_buffer = w->work_buffer + (f->kept > 0 && f->workspace > 0);
}

static AqStatus analyse(Forward *f, const AqContractKernel *k, AqError *error)
{
    *f = (Forward){.k = *k, .w.image = aq_tile_image(k, 0)};
    AqWinograd *w = &f->w;
    if (set_weights(f, error))
        return error->status;
    w->height = k->node->type.dim[1];
    w->width = k->node->type.dim[2];
    w->tiles = aq_tiles_of(k->node->type.dim[0], w->height, w->width);
    aq_contract_narrow(
        &f->k, aq_winograd_strip(&w->tiles, w->part.n, k->kernel->target));
    aq_contract_leaves(&f->k, &w->packing, &w->storing);
    w->work_buffer = k->kernel->node->n_inputs + k->kernel->body->n_outputs;
    w->tile_rows = aq_tile_rows(k->kernel->target);
    w->strips = aq_ceil_div(w->part.n, w->packing.columns);
    set_blocks(f);
    set_room(f);
    f->tasks[STAGE_EVALUATE] = w->weights.tasks;
    f->tasks[STAGE_WEIGHTS] =
        w->share_u
            ? w->strips * w->passes * aq_ceil_div(w->pass, AQ_WINOGRAD_PIECE)
            : 0;
    f->tasks[STAGE_TILES] =
        w->share_v ? w->tiles.samples * w->tiles.segments * w->pieces : 0;
    f->tasks[STAGE_RUN] =
        w->tiles.blocks * aq_ceil_div(w->strips, w->strip_block);
    return AQ_OK;
}

static AqStatus winograd_layout(const AqContractKernel *k,
                                AqKernelLayout *layout, AqError *error)
{
    Forward f;
    if (check(k, error))
        return error->status;
    if (k->node->op == AQ_OP_conv2d_weight_gradient)
        return aq_winograd_weight_layout(k, layout, error);
    if (analyse(&f, k, error))
        return error->status;
    *layout = (AqKernelLayout){.scratch = f.scratch * 4};
    for (int i = 0; i < STAGES; i++)
        if (f.tasks[i] > 0) {
            if (i == STAGE_WEIGHTS && f.kept > 0 && f.w.b_buffer < 64)
                layout->reads[layout->n_stages] = (uint64_t)1 << f.w.b_buffer;
            layout->tasks[layout->n_stages++] = f.tasks[i];
        }
    if (f.workspace > 0)
        layout->workspace = f.workspace * 4 + 64; /* to be aligned */
    if (f.kept > 0)
        layout->kept = f.kept * 4 + 64;
    return AQ_OK;
}

/* ---- units ---- */

static void mark_heights(const AqWinograd *w, bool *used)
{
    for (int64_t block = 0; block < w->tiles.blocks; block++) {
        int64_t first = block * w->tiles.unit_block;
        int64_t tiles =
            aq_tiles_between(&w->tiles, first, first + w->tiles.unit_block);
        used[w->tile_rows] |= tiles >= w->tile_rows;
        if (tiles % w->tile_rows)
            used[aq_packed_height(tiles % w->tile_rows, (int)w->tile_rows)] =
                true;
    }
}

static AqStatus link_micro(AqCodePlan *plan, const Forward *f, AqError *error)
{
    bool used[AQ_MOST_ROWS + 1] = {false};
    mark_heights(&f->w, used);
    AqMicroKey like = {.panel = AQ_PANEL_ROWS, .row = (int32_t)f->w.row};
    return aq_contract_link_micros(plan, &f->k, &like, used, f->w.part.n,
                                   offsetof(AqWinograd, micro), error);
}

static AqStatus link_weights(AqCodePlan *plan, const Forward *f, AqError *error)
{
    if (aq_contract_link_packing(plan, &f->k, f->w.part.b_n == 1,
                                 offsetof(AqWinograd, packing), error))
        return error->status;
    return aq_winograd_link_transform(plan, AQ_TRANSFORM_WEIGHT,
                                      offsetof(AqWinograd, transform_weight),
                                      error);
}

static AqStatus link_tiles(AqCodePlan *plan, const Forward *f, AqError *error)
{
    if (aq_winograd_link_image(plan, &f->k, &f->w.image, 0,
                               offsetof(AqWinograd, image), error))
        return error->status;
    return aq_winograd_link_transform(
        plan, AQ_TRANSFORM_INPUT, offsetof(AqWinograd, transform_input), error);
}

static AqStatus link_run(AqCodePlan *plan, const Forward *f, AqError *error)
{
    const AqWinograd *w = &f->w;
    if (link_micro(plan, f, error) ||
        (!w->share_v && link_tiles(plan, f, error)) ||
        (!w->share_u && link_weights(plan, f, error)) ||
        aq_winograd_link_transform(plan, AQ_TRANSFORM_OUTPUT,
                                   offsetof(AqWinograd, transform_output),
                                   error))
        return error->status;
    return aq_contract_link_storing(plan, &f->k, w->part.n,
                                    offsetof(AqWinograd, storing), error);
}

static AqStatus link_stage(AqCodePlan *plan, const Forward *f, int stage,
                           AqError *error)
{
    switch (stage) {
    case STAGE_EVALUATE:
        return aq_contract_link_evaluate(
            plan, &f->k, 1, offsetof(AqWinograd, weights.evaluate), error);
    case STAGE_WEIGHTS:
        return link_weights(plan, f, error);
    case STAGE_TILES:
        return link_tiles(plan, f, error);
    default:
        return link_run(plan, f, error);
    }
}

static AqStatus winograd_plan(AqCodePlan *plan, const AqContractKernel *k,
                              AqError *error)
{
    static AqTaskFn *const run[] = {aq_winograd_evaluate, aq_winograd_weights,
                                    aq_winograd_tiles, aq_winograd_run};
    Forward f;
    if (check(k, error))
        return error->status;
    if (k->node->op == AQ_OP_conv2d_weight_gradient)
        return aq_winograd_weight_plan(plan, k, error);
    if (analyse(&f, k, error))
        return error->status;
    for (int i = 0; i < STAGE_SUMS; i++) {
        if (f.tasks[i] == 0)
            continue;
        if (aq_code_plan_c_stage(plan, run[i], &f.w, sizeof f.w) ||
            link_stage(plan, &f, i, error))
            return error->status;
    }
    return f.tasks[STAGE_SUMS]
               ? aq_sums_plan(plan, &f.w.storing.sums, &f.w.sums, 1,
                              f.tasks[STAGE_SUMS], error)
               : AQ_OK;
}

const AqContractAlgorithm aq_algorithm_winograd = {
    .name = "winograd", .layout = winograd_layout, .plan = winograd_plan};
