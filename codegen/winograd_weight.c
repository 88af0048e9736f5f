/* The weight gradient by Winograd: a closure for its driver, leaves, and two
 * stages: both images into the domain of the transform -> products and back. */
#include "codegen/winograd_weight.h"

enum { STAGE_TILES, STAGE_RUN, STAGES };

typedef struct Weight {
    const AqContractKernel *k;
    AqWinogradWeight w;
    int64_t tasks[STAGES];
    int64_t workspace, scratch; /* floats */
} Weight;

static int64_t ceil_div(int64_t a, int64_t b)
{
    return (a + b - 1) / b;
}

static void set_images(Weight *f)
{
    AqWinogradWeight *w = &f->w;
    const AqType *dy =
        &aq_node(f->k->kernel->body, f->k->node->inputs[1])->type;
    for (int i = 0; i < 2; i++)
        w->image[i] = aq_tile_image(f->k, i);
    AqTileImage *x = &w->image[AQ_WINOGRAD_X];
    x->patch = AQ_PATCH;
    x->top = -aq_attr_at(f->k->node, AQ_KEY_PAD, 0, 0);
    x->left = -aq_attr_at(f->k->node, AQ_KEY_PAD, 2, 0);
    w->image[AQ_WINOGRAD_DY].patch = AQ_TILE;
    w->tiles.samples = dy->dim[0];
    w->tiles.down = ceil_div(dy->dim[1], AQ_TILE);
    w->tiles.along = ceil_div(dy->dim[2], AQ_TILE);
    w->n_tiles = w->tiles.samples * w->tiles.down * w->tiles.along;
}

/* Of the first stage: tiles a task; of the second: register tiles and strips
 * a task, tiles a pass. */
static void set_blocks(Weight *f)
{
    enum { TILES = 16, PASS = 128, SUMS = 8, FEW = 12 };
    AqWinogradWeight *w = &f->w;
    const AqNode *kernel = f->k->kernel->node;
    int64_t per_panel = w->panel / w->tile_rows;
    int64_t tiles = TILES, rows = per_panel, strips = SUMS / per_panel;
    int64_t pass = PASS;
    if (w->panels * ceil_div(w->strips, strips) < FEW)
        strips = 1;
    int64_t *field[] = {&tiles, &rows, &strips, &pass};
    for (int i = 0; i < AQ_COUNT(field); i++)
        *field[i] = AQ_MAX(aq_attr_at(kernel, AQ_KEY_BLOCKS, i, *field[i]), 1);
    aq_tiles_cut(&w->tiles, tiles);
    w->row_block = AQ_MIN(rows, w->row_tiles);
    w->strip_block = AQ_MIN(strips, w->strips);
    w->pass = pass;
}

static void set_room(Weight *f)
{
    AqWinogradWeight *w = &f->w;
    int64_t tile = w->tile_rows * w->columns, rows = 0;
    w->v_point = aq_point_stride(w->panels * w->n_tiles * w->panel);
    w->d_point = aq_point_stride(w->strips * w->n_tiles * w->columns);
    w->m_point = aq_point_stride(w->row_block * w->strip_block * tile);
    for (int i = 0; i < 2; i++)
        rows = AQ_MAX(rows, aq_rows_floats(&w->image[i], &w->tiles));
    f->scratch = AQ_MAX(rows, AQ_POINTS * w->m_point + 9 * tile);
    w->d_at = AQ_POINTS * w->v_point;
    f->workspace = w->d_at + AQ_POINTS * w->d_point;
}

static void analyse(Weight *f, const AqContractKernel *k)
{
    enum { PANEL_VECTORS = 3 }; /* a multiple of every height of a tile */
    AqPacking packing;
    *f = (Weight){.k = k};
    AqWinogradWeight *w = &f->w;
    set_images(f);
    aq_contract_leaves(k, &packing, &w->storing);
    w->work_buffer = k->kernel->node->n_inputs + k->kernel->body->n_outputs;
    w->vector = packing.vector;
    w->columns = packing.columns;
    w->strips = ceil_div(w->image[AQ_WINOGRAD_DY].channels, w->columns);
    w->panel = PANEL_VECTORS * w->vector;
    w->panels = ceil_div(w->image[AQ_WINOGRAD_X].channels, w->panel);
    w->tile_rows = aq_tile_rows(k->kernel->target);
    w->row_tiles = ceil_div(w->image[AQ_WINOGRAD_X].channels, w->tile_rows);
    set_blocks(f);
    set_room(f);
    f->tasks[STAGE_TILES] = 2 * w->tiles.blocks;
    f->tasks[STAGE_RUN] = ceil_div(w->row_tiles, w->row_block) *
                          ceil_div(w->strips, w->strip_block);
}

AqStatus aq_winograd_weight_layout(const AqContractKernel *k,
                                   AqKernelLayout *layout, AqError *error)
{
    Weight f;
    analyse(&f, k);
    *layout = (AqKernelLayout){.n_stages = STAGES,
                               .tasks = {f.tasks[0], f.tasks[1]},
                               .workspace = f.workspace * 4 + 64,
                               .scratch = f.scratch * 4};
    return error->status;
}

/* ---- units ---- */

static AqStatus link_tiles(AqCodePlan *plan, const Weight *f, AqError *error)
{
    static const AqTransform transforms[] = {AQ_TRANSFORM_INPUT,
                                             AQ_TRANSFORM_GRADIENT};
    for (int i = 0; i < 2; i++) {
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

static AqStatus link_micro(AqCodePlan *plan, const AqWinogradWeight *w,
                           AqError *error)
{
    int64_t left = w->image[AQ_WINOGRAD_DY].channels % w->columns;
    int64_t rows_left = w->image[AQ_WINOGRAD_X].channels % w->tile_rows;
    bool whole = w->image[AQ_WINOGRAD_X].channels >= w->tile_rows;
    int height[2] = {whole ? (int)w->tile_rows : 0,
                     rows_left ? aq_packed_height(rows_left, (int)w->tile_rows)
                               : 0};
    bool used[2] = {left > 0 && left <= w->vector,
                    left > w->vector ||
                        w->image[AQ_WINOGRAD_DY].channels >= w->columns};
    for (int i = 0; i < 4; i++) {
        int wide = i / 2, rows = height[i % 2];
        if (!used[wide] || !rows || (i % 2 && rows == height[0]))
            continue;
        AqMicroKey key = {
            .panel = AQ_PANEL_K, .rows = rows, .vectors = 1 + wide};
        size_t at =
            offsetof(AqWinogradWeight, micro) +
            (size_t)(wide * (AQ_MOST_ROWS + 1) + rows) * sizeof(AqMicroFn *);
        if (aq_winograd_link_micro(plan, &key, at, error))
            return error->status;
    }
    return AQ_OK;
}

static AqStatus link_run(AqCodePlan *plan, const Weight *f, AqError *error)
{
    if (link_micro(plan, &f->w, error) ||
        aq_winograd_link_transform(plan, AQ_TRANSFORM_WEIGHT_GRADIENT,
                                   offsetof(AqWinogradWeight, transform_back),
                                   error))
        return error->status;
    return aq_contract_link_storing(plan, f->k,
                                    f->w.image[AQ_WINOGRAD_DY].channels,
                                    offsetof(AqWinogradWeight, storing), error);
}

AqStatus aq_winograd_weight_plan(AqCodePlan *plan, const AqContractKernel *k,
                                 AqError *error)
{
    Weight f;
    analyse(&f, k);
    if (aq_code_plan_c_stage(plan, aq_winograd_weight_tiles, &f.w,
                             sizeof f.w) ||
        link_tiles(plan, &f, error) ||
        aq_code_plan_c_stage(plan, aq_winograd_weight_run, &f.w, sizeof f.w) ||
        link_run(plan, &f, error))
        return error->status ? error->status : AQ_NO_MEMORY;
    return AQ_OK;
}
