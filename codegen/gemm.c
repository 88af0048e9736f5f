/* The algorithm `gemm`: the register tile over the operands as they lie (a
 * convolution is an implicit product).  A closure for the driver, leaves, and
 * at most five stages:
 *
 *   operands to be evaluated first -> strips of B -> products -> slices of k
 *   -> reductions
 *
 * Where an operand is an argument, moved in a way that strides can say, it is
 * read where it lies; any other is evaluated, by the task that needs it or into
 * the workspace first (contract_operand.c). */
#include "codegen/contract.h"

#include <string.h>

enum { STAGE_FIRST, STAGE_PACK, STAGE_RUN, STAGE_REDUCE, STAGE_SUMS, STAGES };

typedef struct Contract {
    const AqContractKernel *k;
    const AqKernel *kernel;
    const AqNode *node;
    AqContraction *c;
    size_t bytes; /* of c */
    int64_t workspace, kept, scratch;
} Contract;

/* ---- the closure ---- */

/* Evaluated first, until it is known better. */
static void set_operand(Contract *k, int which)
{
    k->c->operand[which] =
        aq_operand_of(k->kernel->body, k->node->inputs[which]);
}

/* Brings the contraction to the normal form, with operands evaluated where it
 * cannot read them. */
static AqStatus form(Contract *k, AqError *error)
{
    const AqGraph *body = k->kernel->body;
    AqView view[2];
    bool expression[2];
    for (int i = 0; i < 2; i++) {
        AqId operand = k->node->inputs[i];
        view[i] = aq_operand_view(body, operand);
        expression[i] = view[i].arg < 0;
        if (!expression[i])
            continue;
        set_operand(k, i);
        view[i] = aq_row_major_view(-1, &aq_node(body, operand)->type);
    }
    for (;;) {
        int wrong = aq_contract_form(body, k->node, view, k->c);
        if (wrong < 0)
            break;
        if (k->c->operand[wrong].place != AQ_LIES)
            return aq_fail(error, AQ_INTERNAL,
                           "contract kernel %%%d: operand %d has no form",
                           k->kernel->id, wrong);
        set_operand(k, wrong);
        view[wrong] =
            aq_row_major_view(-1, &aq_node(body, k->node->inputs[wrong])->type);
    }
    aq_settle_operands(k->c, expression);
    for (int i = 0; i < 2; i++) {
        if (k->c->operand[i].place == AQ_FIRST)
            aq_place_first(&k->c->operand[i], &k->workspace);
    }
    k->c->a_buffer = view[0].arg;
    k->c->b_buffer = view[1].arg;
    k->c->work_buffer = k->kernel->node->n_inputs + body->n_outputs;
    return AQ_OK;
}

/* Form "k": whether A can be turned into rows, as those of one tap, which lie
 * at one distance and which whole vectors fill. */
static bool can_turn(const AqContraction *c)
{
    enum { STRIPS = 2 };
    const AqPart *p = c->parts;
    const AqImageGrid *im = &p->a;
    int64_t least = c->split ? 1 : STRIPS * c->tile_columns;
    return p->n >= least && c->panel == AQ_PANEL_K && aq_is_direct(im) &&
           im->sh == im->width * im->sw && im->sn == im->height * im->sh &&
           p->m % c->vector == 0 && p->k >= AQ_TURNED_TERMS;
}

/* B is best read where it lies, strip by strip, but in form "k" where its rows
 * are far apart.  Else it is packed: by each task next to an A that is turned,
 * and where there are few tasks; or once for all. */
static int64_t place_of_b(const AqContraction *c, const AqBlocks *b,
                          int64_t stride)
{
    enum { FAR = 1024, FEW_BLOCKS = 2 };
    int64_t m = 0;
    if (stride && !c->split && (c->panel == AQ_PANEL_ROWS || stride <= FAR))
        return AQ_B_IN_PLACE;
    if (c->turned)
        return AQ_B_TASK;
    for (const AqPart *p = c->parts; p < c->parts + c->n_parts; p++)
        m = AQ_MAX(m, p->m);
    return aq_ceil_div(m, b->rows) <= FEW_BLOCKS ? AQ_B_TASK : AQ_B_SHARED;
}

/* What the kernel says (passes/choose_blocks.c); else sizes that fit L2. */
static AqBlocks blocks_of(Contract *k)
{
    enum { TILES = 20, STRIPS = 4 };
    const AqPart *p = k->c->parts;
    const AqTarget *target = k->kernel->target;
    int64_t stride = p->b_n == 1 && p->b_channels == p->k ? p->b_j : 0;
    AqBlocks b = {.rows = (int64_t)TILES * aq_tile_rows(target),
                  .columns = (int64_t)STRIPS * aq_tile_columns(target),
                  .k = k->c->most_k,
                  .slices = 1};
    int64_t *field[] = {&b.rows, &b.columns, &b.k, &b.slices};
    for (int i = 0; i < AQ_COUNT(field); i++)
        *field[i] =
            AQ_MAX(aq_attr_at(k->kernel->node, AQ_KEY_BLOCKS, i, *field[i]), 1);
    b.k = AQ_MIN(b.k, k->c->most_k);
    b.b_place = aq_attr_at(k->kernel->node, AQ_KEY_BLOCKS, AQ_COUNT(field),
                           place_of_b(k->c, &b, stride));
    if (b.b_place < 0 || b.b_place > AQ_B_TASK ||
        (b.b_place == AQ_B_IN_PLACE && (!stride || k->c->split)))
        b.b_place = AQ_B_SHARED;
    if (k->c->operand[1].place == AQ_IN_PANEL)
        b.b_place = AQ_B_TASK;
    return b;
}

/* Where the result has no holes, its rows are one line. */
static void join_rows(const Contract *k, AqPart *p)
{
    if (k->k->plain && k->c->lead == 0 && k->c->rank == 4 && p->xs == 1 &&
        p->ys == 1 && k->c->n_parts == 1) {
        p->out_h = 1;
        p->out_w = p->m;
    }
}

static void set_part(Contract *k, AqPart *p, const AqBlocks *b)
{
    AqContraction *c = k->c;
    p->groups = p->m / p->group;
    p->tiles = p->groups * aq_ceil_div(p->group, c->tile_rows);
    int64_t passes = aq_ceil_div(p->k, b->k);
    bool vectors = c->operand[0].place == AQ_IN_PANEL; /* see the leaf */
    int64_t step = c->split ? AQ_SPLIT_TERMS : vectors ? c->vector : 8;
    p->pass = passes ? aq_round_up(aq_ceil_div(p->k, passes), step) : b->k;
    p->pass = AQ_MIN(p->pass, c->most_k);
    p->passes = aq_ceil_div(p->k, p->pass);
    join_rows(k, p);
    if (c->b_place == AQ_B_SHARED) {
        int64_t *room = c->b_buffer >= 0 ? &k->kept : &k->workspace;
        p->packed = *room;
        *room += c->batches * c->strips * aq_strip_floats(c, p->k);
        c->tasks[STAGE_PACK] +=
            c->batches * c->strips * aq_ceil_div(p->k, AQ_PACK_K);
    }
}

static void set_scratch(Contract *k, bool again)
{
    AqContraction *c = k->c;
    int64_t tile = (int64_t)c->tile_rows * c->tile_columns;
    c->panel_floats = c->row * c->tile_rows;
    if (c->turned) {
        c->panel_floats = c->turned_rows * c->row;
    } else if (c->panel == AQ_PANEL_K) {
        int64_t list = sizeof(AqSegments) + AQ_KC * sizeof(AqSegment);
        c->tap_lists = AQ_MIN(c->parts[0].groups, AQ_MOST_TAPS);
        c->panel_floats = aq_round_up(c->tap_lists * list / 4, 16);
    }
    c->sums_floats =
        again && c->slices == 1 ? c->tile_block * c->strip_block * tile : tile;
    k->scratch = c->panel_floats + c->sums_floats;
    if (c->b_place == AQ_B_TASK)
        k->scratch += c->strip_block * aq_strip_floats(c, c->most_k);
    else if (c->b_place == AQ_B_IN_PLACE)
        k->scratch += aq_strip_floats(c, c->most_k);
    if (c->split) {
        c->split_at = k->scratch;
        c->whole_at = c->split_at + c->split_row * c->tile_rows;
        k->scratch = c->whole_at + c->most_k * c->tile_columns;
    }
    c->window = k->scratch;
    k->scratch += aq_window_floats(c);
}

static void count_tasks(Contract *k)
{
    AqContraction *c = k->c;
    int64_t tile = (int64_t)c->tile_rows * c->tile_columns;
    c->tasks[STAGE_FIRST] = c->operand[0].tasks + c->operand[1].tasks;
    for (AqPart *p = c->parts; p < c->parts + c->n_parts; p++) {
        int64_t blocks = c->batches * aq_ceil_div(p->tiles, c->tile_block) *
                         aq_ceil_div(c->strips, c->strip_block);
        c->tasks[STAGE_RUN] += blocks * c->slices;
        c->tasks[STAGE_REDUCE] += c->slices > 1 ? blocks : 0;
        p->partial = k->workspace + c->partial_floats;
        c->partial_floats += c->batches * c->strips * p->tiles * tile;
    }
    if (c->slices > 1)
        k->workspace += c->partial_floats * c->slices;
}

/* Of form "k" the taps are interleaved, but no samples are kept. */
static void set_sums(Contract *k)
{
    AqContraction *c = k->c;
    AqSums *sums = &c->storing.sums;
    int64_t slots = 0;
    if (sums->count == 0)
        return;
    for (AqPart *p = c->parts; p < c->parts + c->n_parts; p++) {
        bool rows = sums->samples > 1;
        p->sums = aq_sums_part(
            sums, rows ? p->m : p->tiles,
            rows ? c->tile_block * c->tile_rows : c->tile_block, &slots);
    }
    c->tasks[STAGE_SUMS] = aq_sums_place(sums, slots, &k->workspace);
}

/* The register tile, which is the matrix unit's where operands are split. */
static void set_tile(Contract *k)
{
    AqContraction *c = k->c;
    const AqTarget *target = k->kernel->target;
    enum { SPARE = 16 }; /* an odd number of lines */
    c->tile_rows = c->split ? AQ_SPLIT_ROWS : aq_tile_rows(target);
    c->turned_rows = c->split ? AQ_SPLIT_TURNED_ROWS : AQ_TURNED_ROWS;
    c->most_k = c->split ? AQ_SPLIT_KC : AQ_KC;
    c->row = c->most_k + SPARE;
    c->split_row = aq_split_floats(c->most_k) + SPARE;
}

static void set_blocks(Contract *k)
{
    AqContraction *c = k->c;
    c->turned = can_turn(c);
    c->split &= c->panel == AQ_PANEL_ROWS || c->turned; /* else as gemm does */
    set_tile(k);
    AqBlocks b = blocks_of(k);
    aq_contract_leaves(k->k, &c->packing, &c->storing);
    c->strips = aq_ceil_div(c->parts[0].n, c->tile_columns);
    c->strip_block = AQ_MIN(aq_ceil_div(b.columns, c->tile_columns), c->strips);
    c->tile_block = aq_ceil_div(b.rows, c->tile_rows);
    if (c->turned)
        c->tile_block =
            aq_round_up(c->tile_block, c->turned_rows / c->tile_rows);
    c->b_place = b.b_place;
    c->slices = b.slices;
    int64_t most_tiles = 1;
    bool again = false; /* sums wait between passes */
    for (AqPart *p = c->parts; p < c->parts + c->n_parts; p++) {
        set_part(k, p, &b);
        most_tiles = AQ_MAX(most_tiles, p->tiles);
        again |= p->passes > 1;
    }
    c->tile_block = AQ_MIN(c->tile_block, most_tiles);
    count_tasks(k);
    set_sums(k);
    set_scratch(k, again);
    c->kept_buffer = k->kept > 0 ? c->work_buffer + (k->workspace > 0) : -1;
}

static AqStatus analyse(Contract *k, const AqContractKernel *of, AqArena *arena,
                        AqError *error)
{
    *k = (Contract){.k = of, .kernel = of->kernel, .node = of->node};
    k->bytes = sizeof *k->c +
               (size_t)aq_contract_parts(k->node) * sizeof k->c->parts[0];
    k->c = aq_arena_alloc(arena, k->bytes);
    if (!k->c)
        return aq_no_memory(error, k->bytes);
    k->c->split = of->split;
    k->c->tile_columns = aq_tile_columns(k->kernel->target);
    k->c->vector = k->kernel->target->vector;
    if (form(k, error))
        return error->status;
    set_blocks(k);
    return AQ_OK;
}

static AqStatus layout_of(const Contract *k, AqKernelLayout *layout)
{
    *layout = (AqKernelLayout){.scratch = k->scratch * 4};
    for (int i = 0; i < STAGES; i++)
        if (k->c->tasks[i] > 0) {
            if (i == STAGE_PACK && k->kept > 0 && k->c->b_buffer < 64)
                layout->reads[layout->n_stages] = (uint64_t)1 << k->c->b_buffer;
            layout->tasks[layout->n_stages++] = k->c->tasks[i];
        }
    if (k->workspace > 0)
        layout->workspace = k->workspace * 4 + 64; /* to be aligned */
    if (k->kept > 0)
        layout->kept = k->kept * 4 + 64;
    return AQ_OK;
}

static AqStatus gemm_layout(const AqContractKernel *of, AqKernelLayout *layout,
                            AqError *error)
{
    AqArena *arena = aq_arena_new();
    if (!arena)
        return aq_no_memory(error, sizeof(AqContraction));
    Contract k;
    AqStatus status = analyse(&k, of, arena, error);
    if (status == AQ_OK)
        status = layout_of(&k, layout);
    aq_arena_free(arena);
    return status;
}

/* ---- units ---- */

/* Tiles' heights that occur: whole ones, and what is left at the end. */
static void mark_heights(const AqContraction *c, bool *used)
{
    for (const AqPart *p = c->parts; p < c->parts + c->n_parts; p++) {
        int64_t left = p->group % c->tile_rows;
        if (p->group >= c->tile_rows)
            used[aq_tile_height(c, c->tile_rows)] = true;
        if (left)
            used[aq_tile_height(c, left)] = true;
    }
}

static AqStatus link_micro(AqCodePlan *plan, const Contract *k, AqError *error)
{
    const AqContraction *c = k->c;
    bool used[AQ_MOST_ROWS + 1] = {false};
    mark_heights(c, used);
    bool in_place = c->panel == AQ_PANEL_K && !c->turned;
    AqMicroKey like = {.panel = in_place ? AQ_PANEL_K : AQ_PANEL_ROWS,
                       .row = in_place ? 0 : (int32_t)c->row};
    if (c->split)
        like =
            (AqMicroKey){.panel = AQ_PANEL_SPLIT, .row = (int32_t)c->split_row};
    return aq_contract_link_micros(plan, k->k, &like, used, c->parts[0].n,
                                   offsetof(AqContraction, micro), error);
}

static AqStatus link_packing(AqCodePlan *plan, const Contract *k,
                             AqError *error)
{
    return aq_contract_link_packing(plan, k->k, k->c->parts[0].b_n == 1,
                                    offsetof(AqContraction, packing), error);
}

static AqStatus link_splitting(AqCodePlan *plan, const Contract *k,
                               AqError *error)
{
    return k->c->split
               ? aq_contract_link_splitting(
                     plan, k->k, offsetof(AqContraction, splitting), error)
               : AQ_OK;
}

static AqStatus link_storing(AqCodePlan *plan, const Contract *k,
                             AqError *error)
{
    return aq_contract_link_storing(plan, k->k, k->c->parts[0].n,
                                    offsetof(AqContraction, storing), error);
}

/* Operands that the stage evaluates: those that come first, or the others. */
static AqStatus link_evaluate(AqCodePlan *plan, const Contract *k, int which,
                              bool first, AqError *error)
{
    int place = k->c->operand[which].place;
    if (place == AQ_LIES || (place == AQ_FIRST) != first)
        return AQ_OK;
    size_t at = offsetof(AqContraction, operand) +
                (size_t)which * sizeof(AqOperand) +
                offsetof(AqOperand, evaluate);
    return aq_contract_link_evaluate(plan, k->k, which, at, error);
}

/* ---- stages ---- */

static AqStatus link_stage(AqCodePlan *plan, const Contract *k, int stage,
                           AqError *error)
{
    const AqContraction *c = k->c;
    switch (stage) {
    case STAGE_FIRST:
        if (link_evaluate(plan, k, 0, true, error) == AQ_OK)
            link_evaluate(plan, k, 1, true, error);
        break;
    case STAGE_PACK:
        if (link_splitting(plan, k, error) == AQ_OK)
            link_packing(plan, k, error);
        break;
    case STAGE_RUN:
        if (link_micro(plan, k, error) || link_splitting(plan, k, error) ||
            link_storing(plan, k, error) ||
            link_evaluate(plan, k, 0, false, error) ||
            link_evaluate(plan, k, 1, false, error))
            break;
        if (c->b_place != AQ_B_SHARED)
            link_packing(plan, k, error);
        if (c->turned)
            aq_contract_link_packing(plan, k->k, false,
                                     offsetof(AqContraction, packing), error);
        break;
    default:
        link_storing(plan, k, error);
    }
    return error->status;
}

static AqStatus plan_sums(AqCodePlan *plan, const AqContraction *c,
                          AqError *error)
{
    AqSumPart *parts =
        AQ_NEW_ARRAY(aq_code_plan_arena(plan), AqSumPart, c->n_parts);
    if (!parts)
        return aq_no_memory(error, sizeof *parts * (size_t)c->n_parts);
    for (int i = 0; i < c->n_parts; i++)
        parts[i] = c->parts[i].sums;
    return aq_sums_plan(plan, &c->storing.sums, parts, c->n_parts,
                        c->tasks[STAGE_SUMS], error);
}

static AqStatus gemm_plan(AqCodePlan *plan, const AqContractKernel *of,
                          AqError *error)
{
    static AqTaskFn *const run[] = {aq_contract_first, aq_contract_pack,
                                    aq_contract_run, aq_contract_reduce};
    Contract k;
    if (analyse(&k, of, aq_code_plan_arena(plan), error))
        return error->status;
    for (int i = 0; i < STAGE_SUMS; i++) {
        if (k.c->tasks[i] == 0)
            continue;
        if (aq_code_plan_c_stage(plan, run[i], k.c, k.bytes) ||
            link_stage(plan, &k, i, error))
            return error->status;
    }
    return k.c->tasks[STAGE_SUMS] ? plan_sums(plan, k.c, error) : AQ_OK;
}

const AqContractAlgorithm aq_algorithm_gemm = {
    .name = "gemm", .layout = gemm_layout, .plan = gemm_plan};
const AqContractAlgorithm aq_algorithm_gemm_split = {.name = "gemm_bf16x6",
                                                     .split = true,
                                                     .layout = gemm_layout,
                                                     .plan = gemm_plan};
