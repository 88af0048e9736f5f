/* Operands that are expressions, evaluated a piece at a time by the task that
 * needs it, so that they are never stored.
 *
 *   A, one tap, nothing skipped:  rows of a tile, straight into its panel
 *   A, otherwise:                 the rows of the image that a block (form
 *                                 "rows") or a pass (form "k") reads, into a
 *                                 window in scratch, which then is the image
 *   B, form "k":                  rows of a pass, straight into strips
 *   B, form "rows":               first, into the workspace: every block of
 *                                 rows would evaluate it again
 *
 * Such an operand is row-major: element `o` is column o % width of row o /
 * width.
 */
#include "codegen/contract.h"

/* ---- where ---- */

bool aq_is_direct(const AqImageGrid *im)
{
    return im->th == 1 && im->tw == 1 && im->my == 1 && im->mx == 1 &&
           im->oy == 0 && im->ox == 0 && im->grid_h == im->height &&
           im->grid_w == im->width;
}

/* Batches begin at columns where a vector may. */
static bool on_vectors(const AqContraction *c, const AqOperand *operand,
                       const int64_t *stride)
{
    for (int i = 0; i < c->n_batch; i++)
        if (c->batch[i] > 1 && stride[i] % operand->width % c->vector)
            return false;
    return true;
}

/* A product of one row or column may have been turned: then points of the grid
 * are no rows. */
void aq_settle_operands(AqContraction *c, const bool expression[2])
{
    const AqPart *p = c->parts;
    AqOperand *a = &c->operand[0], *b = &c->operand[1];
    if (expression[0] && p->a.sw == a->width && p->a.channels <= a->width) {
        bool direct = c->panel == AQ_PANEL_ROWS && c->n_parts == 1 &&
                      aq_is_direct(&p->a) && on_vectors(c, a, c->a_batch);
        a->place = direct ? AQ_IN_PANEL : AQ_IN_WINDOW;
    }
    if (expression[1] && c->panel == AQ_PANEL_K && p->b_n == 1 &&
        p->b_j == b->width && p->n <= b->width && p->b_channels == p->k &&
        on_vectors(c, b, c->b_batch))
        b->place = AQ_IN_PANEL;
    for (int i = 0; i < 2; i++)
        if (a[i].place != AQ_FIRST)
            a[i].tasks = 0;
}

/* ---- how much ---- */

int64_t aq_batch_offset(const AqContraction *c, const int64_t *stride,
                        int64_t batch)
{
    int64_t offset = 0;
    for (int i = c->n_batch - 1; i >= 0; i--) {
        offset += batch % c->batch[i] * stride[i];
        batch /= c->batch[i];
    }
    return offset;
}

void aq_window_columns(const AqContraction *c, const AqPart *p, int64_t batch,
                       int64_t tile0, int64_t tile1, int64_t *from, int64_t *to)
{
    int64_t width = c->operand[0].width;
    *from = 0;
    *to = width;
    if (c->panel == AQ_PANEL_ROWS)
        return;
    int64_t column =
        (p->a_base + aq_batch_offset(c, c->a_batch, batch)) % width;
    int64_t first = tile0 / p->groups * c->tile_rows;
    int64_t end = (tile1 - 1) / p->groups * c->tile_rows + c->tile_rows;
    *from = (column + first) / c->vector * c->vector;
    *to = column + AQ_MIN(end, p->group) + c->vector - 1;
    *to = AQ_MIN(*to / c->vector * c->vector, width);
}

static int64_t most_columns(const AqContraction *c, const AqPart *p)
{
    int64_t most = 0;
    for (int64_t batch = 0; batch < c->batches; batch++)
        for (int64_t tile = 0; tile < p->tiles; tile += c->tile_block) {
            int64_t from, to;
            aq_window_columns(c, p, batch, tile,
                              AQ_MIN(tile + c->tile_block, p->tiles), &from,
                              &to);
            most = AQ_MAX(most, to - from);
        }
    return most;
}

/* Of a block of rows, or of a pass. */
static int64_t most_rows(const AqContraction *c, const AqPart *p)
{
    bool by_rows = c->panel == AQ_PANEL_ROWS;
    int64_t points = by_rows ? p->m : p->k, most = 0;
    int64_t step = by_rows ? c->tile_block * c->tile_rows : p->pass;
    for (int64_t at = 0; at < points; at += step) {
        int64_t from, to;
        aq_image_rows(&p->a, at, AQ_MIN(at + step, points), &from, &to);
        most = AQ_MAX(most, to - from);
    }
    return most;
}

int64_t aq_window_floats(const AqContraction *c)
{
    int64_t most = 0;
    if (c->operand[0].place != AQ_IN_WINDOW)
        return 0;
    for (const AqPart *p = c->parts; p < c->parts + c->n_parts; p++)
        most = AQ_MAX(most, most_rows(c, p) * most_columns(c, p));
    return (most + 15) / 16 * 16;
}

/* ---- evaluation ---- */

void aq_evaluate_rows(const AqOperand *operand, void *const *buffers,
                      int64_t row, int64_t rows, int64_t column,
                      int64_t columns, float *to, int64_t stride)
{
    int64_t index[AQ_MAX_RANK] = {0};
    int last = operand->rank - 1;
    index[last] = column;
    for (int64_t end = row + rows; row < end;) {
        int64_t rest = row;
        for (int d = last - 1; d >= 0; d--) {
            index[d] = rest % operand->dim[d];
            rest /= operand->dim[d];
        }
        int64_t count =
            AQ_MIN(end - row, operand->dim[last - 1] - index[last - 1]);
        operand->evaluate(buffers, index, to, stride, count, columns);
        to += count * stride;
        row += count;
    }
}

/* ---- stage: what is evaluated before anything else ---- */

/* Through whatever works element by element. */
static int32_t source_of(const AqGraph *body, AqId id, int64_t elements)
{
    const AqNode *node = aq_node(body, id);
    bool same =
        node->op == AQ_OP_reshape || aq_op_info[node->op].facts & AQ_POINTWISE;
    int32_t source = -1;
    if (aq_elements(&node->type) != elements)
        return -1;
    if (node->op == AQ_OP_arg && node->type.element == AQ_F32)
        return (int32_t)aq_attr_int(node, AQ_KEY_INDEX, 0);
    for (int i = 0; same && i < node->n_inputs && source < 0; i++)
        source = source_of(body, node->inputs[i], elements);
    return source;
}

AqOperand aq_operand_of(const AqGraph *body, AqId node)
{
    const AqType *type = &aq_node(body, node)->type;
    AqOperand operand = {.place = AQ_FIRST, .rank = type->rank, .rows = 1};
    for (int d = 0; d < type->rank; d++) {
        operand.dim[d] = type->dim[d];
        if (d < type->rank - 1)
            operand.rows *= type->dim[d];
    }
    operand.width = type->dim[type->rank - 1];
    operand.chunk = AQ_MAX(AQ_FIRST_FLOATS / operand.width, 1);
    operand.tasks = (operand.rows + operand.chunk - 1) / operand.chunk;
    operand.source = source_of(body, node, aq_elements(type));
    return operand;
}

void aq_place_first(AqOperand *operand, int64_t *floats)
{
    enum { LINE = 16 };
    operand->at = *floats;
    *floats += (operand->rows * operand->width + LINE - 1) / LINE * LINE;
}

void aq_evaluate_first(const AqOperand *operand, float *work,
                       void *const *buffers, int64_t task)
{
    int64_t row = task * operand->chunk;
    int64_t rows = AQ_MIN(operand->chunk, operand->rows - row);
    aq_evaluate_rows(operand, buffers, row, rows, 0, operand->width,
                     work + operand->at + row * operand->width, operand->width);
}

void aq_contract_first(const void *closure, void *const *buffers, int64_t first,
                       int64_t last, void *scratch)
{
    const AqContraction *c = closure;
    float *work = aq_workspace(c, buffers);
    (void)scratch;
    for (int64_t task = first; task < last; task++)
        if (task < c->operand[0].tasks)
            aq_evaluate_first(&c->operand[0], work, buffers, task);
        else
            aq_evaluate_first(&c->operand[1], work, buffers,
                              task - c->operand[0].tasks);
}
