/* The weight gradient by Winograd: a closure for its driver, leaves, and one to
 * four stages:
 *
 *   operands that are expressions, or V and D -> products and back -> slices
 *     -> reductions
 *
 * A task owns a block of the weights, whose sums, for all points, it keeps in
 * L2.  Where there are many tiles, it brings both images into the domain of the
 * transform for itself, in passes of so few tiles that they stay in L2, too;
 * other blocks do so again.  Where there are few, V and D are made once, for
 * all.  Where that leaves few tasks, the passes are cut into slices, whose
 * results are added at the end. */
#include "codegen/winograd_weight.h"

enum { STAGE_FIRST, STAGE_TILES, STAGE_RUN, STAGE_JOIN, STAGE_SUMS, STAGES };

typedef struct Weight {
    const AqContractKernel *k;
    AqWinogradWeight w;
    int64_t tasks[STAGES];
    int64_t workspace, scratch; /* floats */
} Weight;

static const AqType *operand_type(const Weight *f, int which)
{
    return &aq_node(f->k->kernel->body, f->k->node->inputs[which])->type;
}

static void set_images(Weight *f)
{
    AqWinogradWeight *w = &f->w;
    const AqType *dy = operand_type(f, AQ_WINOGRAD_DY);
    for (int i = 0; i < AQ_WINOGRAD_IMAGES; i++)
        w->image[i] = aq_tile_image(f->k, i);
    AqTileImage *x = &w->image[AQ_WINOGRAD_X];
    x->patch = AQ_PATCH;
    x->top = -aq_attr_at(f->k->node, AQ_KEY_PAD, 0, 0);
    x->left = -aq_attr_at(f->k->node, AQ_KEY_PAD, 2, 0);
    w->image[AQ_WINOGRAD_DY].patch = AQ_TILE;
    w->tiles = aq_tiles_of(dy->dim[0], dy->dim[1], dy->dim[2]);
}

/* An operand becomes an image in the workspace. */
static void set_first(Weight *f, int which)
{
    AqWinogradWeight *w = &f->w;
    AqTileImage *im = &w->image[which];
    const AqType *type = operand_type(f, which);
    AqView view = aq_row_major_view(0, type);
    w->first[which] =
        aq_operand_of(f->k->kernel->body, f->k->node->inputs[which]);
    aq_place_first(&w->first[which], &f->workspace);
    im->buffer = w->work_buffer;
    im->sn = view.stride[0];
    im->sh = view.stride[1];
    im->sw = view.stride[2];
}

/* How many blocks need the same part of an operand. */
static int64_t times_of(const AqWinogradWeight *w, int which)
{
    return which == AQ_WINOGRAD_X ? aq_ceil_div(w->strips, w->strip_block)
                                  : aq_ceil_div(w->row_tiles, w->row_block);
}

/* As the kernel says: {tiles a pass; register tiles, strips, slices of the
 * tasks; V, D shared}. */
static void set_blocks(Weight *f)
{
    enum { TILES, ROWS, STRIPS, SLICES, SHARED, NUMBERS };
    AqWinogradWeight *w = &f->w;
    int64_t b[NUMBERS] = {[TILES] = 16, [ROWS] = 8, [STRIPS] = 1, [SLICES] = 1};
    for (int i = 0; i < NUMBERS; i++)
        b[i] = aq_attr_at(f->k->kernel->node, AQ_KEY_BLOCKS, i, b[i]);
    aq_tiles_cut(&w->tiles, b[TILES]);
    w->pass = w->tiles.unit_block * w->tiles.across;
    w->row_block = AQ_MAX(AQ_MIN(b[ROWS], w->row_tiles), 1);
    w->strip_block = AQ_MAX(AQ_MIN(b[STRIPS], w->strips), 1);
    w->slice = aq_ceil_div(w->tiles.blocks, AQ_MAX(b[SLICES], 1));
    w->slices = aq_ceil_div(w->tiles.blocks, w->slice);
    w->shared = b[SHARED] != 0;
    for (int i = 0; i < AQ_WINOGRAD_IMAGES && !w->shared; i++)
        if (w->image[i].buffer < 0 && times_of(w, i) > AQ_WINOGRAD_EVALUATIONS)
            set_first(f, i);
}

/* Floats that a task needs of a pixel of x, at most. */
static int64_t most_channels(const AqWinogradWeight *w)
{
    int64_t most = 0, from, to;
    for (int64_t row = 0; row < w->row_tiles; row += w->row_block) {
        int64_t end = AQ_MIN(row + w->row_block, w->row_tiles);
        aq_winograd_channels(w, row, end, &from, &to);
        most = AQ_MAX(most, to - from);
    }
    return most;
}

static void set_room(Weight *f)
{
    AqWinogradWeight *w = &f->w;
    int64_t tile = w->tile_rows * w->columns, taps = AQ_WINOGRAD_TAPS * tile;
    int64_t rows = 0, down = aq_ceil_div(w->row_tiles, w->row_block);
    int64_t across = aq_ceil_div(w->strips, w->strip_block);
    AqTileImage image[] = {w->image[0], w->image[1]};
    image[AQ_WINOGRAD_X].channels = most_channels(w);
    image[AQ_WINOGRAD_DY].channels =
        AQ_MIN(w->strip_block * w->columns, image[AQ_WINOGRAD_DY].channels);
    for (int i = 0; i < AQ_WINOGRAD_IMAGES; i++)
        rows = AQ_MAX(rows, aq_rows_floats(&image[i], &w->tiles));
    w->v_tile = aq_point_stride(image[AQ_WINOGRAD_X].channels);
    w->v_point = aq_point_stride(w->pass * w->v_tile);
    w->d_row = AQ_MIN(
        w->columns, aq_round_up(w->image[AQ_WINOGRAD_DY].channels, w->vector));
    w->d_strip = w->pass * w->d_row;
    w->d_point = aq_point_stride(w->strip_block * w->d_strip);
    w->v_pass = AQ_POINTS * w->v_point;
    w->d_pass = AQ_POINTS * w->d_point;
    w->m_point = aq_point_stride(w->row_block * w->strip_block * tile);
    f->scratch = AQ_POINTS * w->m_point;
    int64_t *room = w->shared ? &f->workspace : &f->scratch;
    w->v_at = *room;
    *room += w->v_pass * (w->shared ? down * w->tiles.blocks : 1);
    w->d_at = *room;
    *room += w->d_pass * (w->shared ? across * w->tiles.blocks : 1);
    w->taps_at = f->scratch;
    w->rows_at = w->taps_at + aq_point_stride(taps);
    f->scratch = AQ_MAX(w->rows_at + (w->shared ? 0 : rows), rows);
    w->sums_at = f->workspace;
    if (w->slices > 1)
        f->workspace += w->slices * w->row_tiles * w->strips * taps;
    int64_t slots = 0;
    w->sums = aq_sums_part(&w->storing.sums, w->row_tiles,
                           w->slices > 1 ? 1 : w->row_block, &slots);
    f->tasks[STAGE_SUMS] =
        aq_sums_place(&w->storing.sums, slots, &f->workspace);
}

static void analyse(Weight *f, const AqContractKernel *k)
{
    AqPacking packing;
    *f = (Weight){.k = k};
    AqWinogradWeight *w = &f->w;
    set_images(f);
    aq_contract_leaves(k, &packing, &w->storing);
    w->work_buffer = k->kernel->node->n_inputs + k->kernel->body->n_outputs;
    w->vector = packing.vector;
    w->columns = packing.columns;
    w->strips = aq_ceil_div(w->image[AQ_WINOGRAD_DY].channels, w->columns);
    w->tile_rows = aq_tile_rows(k->kernel->target);
    w->row_tiles = aq_ceil_div(w->image[AQ_WINOGRAD_X].channels, w->tile_rows);
    set_blocks(f);
    set_room(f);
    f->tasks[STAGE_FIRST] = w->first[0].tasks + w->first[1].tasks;
    f->tasks[STAGE_TILES] =
        w->shared ? w->tiles.blocks * (aq_ceil_div(w->row_tiles, w->row_block) +
                                       aq_ceil_div(w->strips, w->strip_block))
                  : 0;
    f->tasks[STAGE_RUN] = aq_ceil_div(w->row_tiles, w->row_block) *
                          aq_ceil_div(w->strips, w->strip_block) * w->slices;
    f->tasks[STAGE_JOIN] = w->slices > 1 ? w->row_tiles * w->strips : 0;
}

AqStatus aq_winograd_weight_layout(const AqContractKernel *k,
                                   AqKernelLayout *layout, AqError *error)
{
    Weight f;
    analyse(&f, k);
    *layout = (AqKernelLayout){.scratch = f.scratch * 4};
    for (int i = 0; i < STAGES; i++)
        if (f.tasks[i] > 0)
            layout->tasks[layout->n_stages++] = f.tasks[i];
    if (f.workspace > 0)
        layout->workspace = f.workspace * 4 + 64; /* to be aligned */
    return error->status;
}

/* ---- units ---- */

static AqStatus link_first(AqCodePlan *plan, const Weight *f, AqError *error)
{
    for (int i = 0; i < AQ_WINOGRAD_IMAGES; i++) {
        size_t leaf = offsetof(AqWinogradWeight, first) +
                      (size_t)i * sizeof(AqOperand) +
                      offsetof(AqOperand, evaluate);
        if (f->w.first[i].tasks > 0 &&
            aq_contract_link_evaluate(plan, f->k, i, leaf, error))
            return error->status;
    }
    return AQ_OK;
}

static AqStatus link_tiles(AqCodePlan *plan, const Weight *f, AqError *error)
{
    static const AqTransform transforms[] = {AQ_TRANSFORM_INPUT,
                                             AQ_TRANSFORM_GRADIENT};
    for (int i = 0; i < AQ_WINOGRAD_IMAGES; i++) {
        size_t image =
            offsetof(AqWinogradWeight, image) + (size_t)i * sizeof(AqTileImage);
        size_t leaf = offsetof(AqWinogradWeight, transform) +
                      (size_t)i * sizeof(AqTransformFn *);
        if (aq_winograd_link_image(plan, f->k, &f->w.image[i], i, image,
                                   error) ||
            aq_winograd_link_transform(plan, transforms[i], leaf, error))
            return error->status;
    }
    return AQ_OK;
}

static AqStatus link_micro(AqCodePlan *plan, const Weight *f, AqError *error)
{
    const AqWinogradWeight *w = &f->w;
    int64_t channels = w->image[AQ_WINOGRAD_X].channels;
    int64_t left = channels % w->tile_rows;
    bool used[AQ_MOST_ROWS + 1] = {false};
    used[w->tile_rows] = channels >= w->tile_rows;
    if (left)
        used[aq_packed_height(left, (int)w->tile_rows)] = true;
    AqMicroKey like = {.panel = AQ_PANEL_K};
    return aq_contract_link_micros(plan, f->k, &like, used,
                                   w->image[AQ_WINOGRAD_DY].channels,
                                   offsetof(AqWinogradWeight, micro), error);
}

static AqStatus link_storing(AqCodePlan *plan, const Weight *f, AqError *error)
{
    return aq_contract_link_storing(plan, f->k,
                                    f->w.image[AQ_WINOGRAD_DY].channels,
                                    offsetof(AqWinogradWeight, storing), error);
}

static AqStatus link_run(AqCodePlan *plan, const Weight *f, AqError *error)
{
    if ((!f->w.shared && link_tiles(plan, f, error)) ||
        link_micro(plan, f, error) ||
        aq_winograd_link_transform(plan, AQ_TRANSFORM_WEIGHT_GRADIENT,
                                   offsetof(AqWinogradWeight, transform_back),
                                   error))
        return error->status;
    return link_storing(plan, f, error);
}

AqStatus aq_winograd_weight_plan(AqCodePlan *plan, const AqContractKernel *k,
                                 AqError *error)
{
    static AqTaskFn *const run[] = {
        aq_winograd_weight_first, aq_winograd_weight_tiles,
        aq_winograd_weight_run, aq_winograd_weight_join};
    static AqStatus (*const link[])(AqCodePlan *, const Weight *, AqError *) = {
        link_first, link_tiles, link_run, link_storing};
    Weight f;
    analyse(&f, k);
    for (int i = 0; i < STAGE_SUMS; i++) {
        if (f.tasks[i] == 0)
            continue;
        if (aq_code_plan_c_stage(plan, run[i], &f.w, sizeof f.w) ||
            link[i](plan, &f, error))
            return error->status ? error->status : AQ_NO_MEMORY;
    }
    return f.tasks[STAGE_SUMS]
               ? aq_sums_plan(plan, &f.w.storing.sums, &f.w.sums, 1,
                              f.tasks[STAGE_SUMS], error)
               : AQ_OK;
}
