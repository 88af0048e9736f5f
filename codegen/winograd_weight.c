/* The weight gradient by Winograd: a closure for its driver, leaves, and two or
 * three stages:
 *
 *   both images into the domain of the transform -> products and back -> slices
 *
 * A task keeps the sums of its block, for all points, in L2; the larger
 * the block, the less often V and D stream past it.  Where that leaves few
 * tasks, the tiles are cut into slices, whose results are added at the end. */
#include "codegen/winograd_weight.h"

enum { STAGE_TILES, STAGE_RUN, STAGE_JOIN, STAGE_SUMS, STAGES };

typedef struct Weight {
    const AqContractKernel *k;
    AqWinogradWeight w;
    int64_t tasks[STAGES];
    int64_t workspace, scratch; /* floats */
} Weight;

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
    w->tiles.down = aq_ceil_div(dy->dim[1], AQ_TILE);
    w->tiles.along = aq_ceil_div(dy->dim[2], AQ_TILE);
    w->n_tiles = w->tiles.samples * w->tiles.down * w->tiles.along;
}

/* {tiles a task of the first stage; register tiles, strips, slices of the
 * second, and tiles a pass of its products} */
typedef struct Blocks {
    int64_t tiles, rows, strips, slices, pass;
} Blocks;

/* What a product costs, in proportion: V streams past every block of strips and
 * D past every block of rows; slices are transformed back each; the last tasks
 * leave threads idle. */
static double cost(const AqWinogradWeight *w, const Blocks *b)
{
    enum { THREADS = 4 };
    double tasks = (double)(aq_ceil_div(w->row_tiles, b->rows) *
                            aq_ceil_div(w->strips, b->strips) * b->slices);
    double even = (double)w->row_tiles /
                  (double)(aq_ceil_div(w->row_tiles, b->rows) * b->rows) *
                  (double)w->strips /
                  (double)(aq_ceil_div(w->strips, b->strips) * b->strips);
    double traffic = 10.0 / (double)(b->rows * w->tile_rows) +
                     10.0 / (double)(b->strips * w->columns);
    double slices =
        b->slices == 1 ? 0 : 48.0 * (double)b->slices / (double)w->n_tiles;
    return (1 + traffic + slices) * (1 + THREADS / (2 * tasks)) /
           (0.5 + 0.5 * even);
}

static Blocks choose(const AqWinogradWeight *w, const AqTarget *target)
{
    enum { TILES = 16, PASS = 128, LEAST_SLICE = 64 };
    int64_t panel = w->panel / w->tile_rows;
    int64_t tile = 4 * AQ_POINTS * w->tile_rows * w->columns;
    Blocks best = {TILES, 1, 1, 1, PASS};
    double least = -1;
    for (int64_t i = 1; i <= aq_ceil_div(w->row_tiles, panel); i++)
        for (int64_t j = 1; j <= w->strips; j++) {
            Blocks b = {.tiles = TILES, .pass = PASS, .strips = j};
            b.rows = AQ_MIN(i * panel, w->row_tiles);
            if (b.rows * j * tile > target->l2 && (i > 1 || j > 1))
                break;
            for (b.slices = 1;
                 b.slices == 1 || b.slices * LEAST_SLICE <= w->n_tiles;
                 b.slices *= 2) {
                double now = cost(w, &b);
                if (least < 0 || now < least)
                    best = b;
                least = least < 0 ? now : AQ_MIN(least, now);
            }
        }
    return best;
}

static void set_blocks(Weight *f)
{
    AqWinogradWeight *w = &f->w;
    const AqKernel *kernel = f->k->kernel;
    Blocks b = choose(w, kernel->target);
    int64_t *field[] = {&b.tiles, &b.rows, &b.strips, &b.slices, &b.pass};
    for (int i = 0; i < AQ_COUNT(field); i++)
        *field[i] =
            AQ_MAX(aq_attr_at(kernel->node, AQ_KEY_BLOCKS, i, *field[i]), 1);
    aq_tiles_cut(&w->tiles, b.tiles);
    w->row_block = AQ_MIN(b.rows, w->row_tiles);
    w->strip_block = AQ_MIN(b.strips, w->strips);
    w->slice = aq_ceil_div(w->n_tiles, b.slices);
    w->slices = aq_ceil_div(w->n_tiles, w->slice);
    w->pass = b.pass;
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
    int64_t taps = AQ_WINOGRAD_TAPS * tile;
    f->scratch = AQ_MAX(rows, AQ_POINTS * w->m_point + taps);
    w->d_at = AQ_POINTS * w->v_point;
    w->sums_at = w->d_at + AQ_POINTS * w->d_point;
    f->workspace = w->sums_at;
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
    enum { PANEL_VECTORS = 3 }; /* a multiple of every height of a tile */
    AqPacking packing;
    *f = (Weight){.k = k};
    AqWinogradWeight *w = &f->w;
    set_images(f);
    aq_contract_leaves(k, &packing, &w->storing);
    w->work_buffer = k->kernel->node->n_inputs + k->kernel->body->n_outputs;
    w->vector = packing.vector;
    w->columns = packing.columns;
    w->strips = aq_ceil_div(w->image[AQ_WINOGRAD_DY].channels, w->columns);
    w->panel = PANEL_VECTORS * w->vector;
    w->panels = aq_ceil_div(w->image[AQ_WINOGRAD_X].channels, w->panel);
    w->tile_rows = aq_tile_rows(k->kernel->target);
    w->row_tiles = aq_ceil_div(w->image[AQ_WINOGRAD_X].channels, w->tile_rows);
    set_blocks(f);
    set_room(f);
    f->tasks[STAGE_TILES] = 2 * w->tiles.blocks;
    f->tasks[STAGE_RUN] = aq_ceil_div(w->row_tiles, w->row_block) *
                          aq_ceil_div(w->strips, w->strip_block) * w->slices;
    f->tasks[STAGE_JOIN] = w->slices > 1 ? w->row_tiles * w->strips : 0;
}

AqStatus aq_winograd_weight_layout(const AqContractKernel *k,
                                   AqKernelLayout *layout, AqError *error)
{
    Weight f;
    analyse(&f, k);
    *layout = (AqKernelLayout){.workspace = f.workspace * 4 + 64,
                               .scratch = f.scratch * 4};
    for (int i = 0; i < STAGES; i++)
        if (f.tasks[i] > 0)
            layout->tasks[layout->n_stages++] = f.tasks[i];
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
    return aq_contract_link_micros(
        plan, &like, used, w->image[AQ_WINOGRAD_DY].channels,
        f->k->kernel->target, offsetof(AqWinogradWeight, micro), error);
}

static AqStatus link_storing(AqCodePlan *plan, const Weight *f, AqError *error)
{
    return aq_contract_link_storing(plan, f->k,
                                    f->w.image[AQ_WINOGRAD_DY].channels,
                                    offsetof(AqWinogradWeight, storing), error);
}

static AqStatus link_run(AqCodePlan *plan, const Weight *f, AqError *error)
{
    if (link_micro(plan, f, error) ||
        aq_winograd_link_transform(plan, AQ_TRANSFORM_WEIGHT_GRADIENT,
                                   offsetof(AqWinogradWeight, transform_back),
                                   error))
        return error->status;
    return link_storing(plan, f, error);
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
    if (f.tasks[STAGE_JOIN] > 0 &&
        (aq_code_plan_c_stage(plan, aq_winograd_weight_join, &f.w,
                              sizeof f.w) ||
         link_storing(plan, &f, error)))
        return error->status ? error->status : AQ_NO_MEMORY;
    if (f.tasks[STAGE_SUMS] == 0)
        return AQ_OK;
    return aq_sums_plan(plan, &f.w.storing.sums, &f.w.sums, 1,
                        f.tasks[STAGE_SUMS], error);
}
