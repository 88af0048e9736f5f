/* An op and its operands as parts of the normal form (see contract.h). */
#include "codegen/contract.h"

/* Taps with fewer channels than this are copied with their neighbours. */
enum { FEW_CHANNELS = 32 };

typedef struct Conv {
    int64_t stride[2], pad[2], dilation[2], groups; /* pad: top, left */
} Conv;

static Conv conv_of(const AqNode *node)
{
    Conv conv = {.groups = aq_attr_int(node, AQ_KEY_GROUPS, 1)};
    for (int d = 0; d < 2; d++) {
        conv.stride[d] = aq_attr_at(node, AQ_KEY_STRIDE, d, 1);
        conv.dilation[d] = aq_attr_at(node, AQ_KEY_DILATION, d, 1);
        conv.pad[d] = aq_attr_at(node, AQ_KEY_PAD, 2 * d, 0);
    }
    return conv;
}

/* A stride that is never used suits whatever is asked of it. */
static bool is_stride(int64_t stride, int64_t wanted, int64_t extent)
{
    return extent == 1 || stride == wanted;
}

/* ---- images ---- */

static AqImageGrid image_of(const AqType *type, const AqView *view)
{
    return (AqImageGrid){.height = type->dim[1],
                         .width = type->dim[2],
                         .sn = view->stride[0],
                         .sh = view->stride[1],
                         .sw = view->stride[2],
                         .my = 1,
                         .mx = 1,
                         .dy = 1,
                         .dx = 1,
                         .th = 1,
                         .tw = 1,
                         .joined = 1};
}

/* Rows of k (or m) as one line of points, where nothing is skipped. */
static void join_grid(AqImageGrid *a, int64_t points)
{
    bool plain = a->th == 1 && a->tw == 1 && a->my == 1 && a->mx == 1 &&
                 a->oy == 0 && a->ox == 0 && a->grid_h == a->height &&
                 a->grid_w == a->width;
    if (!plain || !is_stride(a->sh, a->width * a->sw, a->height) ||
        !is_stride(a->sn, a->height * a->width * a->sw,
                   points / (a->height * a->width)))
        return;
    a->grid_h = a->height = 1;
    a->grid_w = a->width = points;
    a->sn = a->sh = points * a->sw;
}

static void join_taps(AqImageGrid *a)
{
    if (a->tw > 1 && a->dx == 1 && a->channels < FEW_CHANNELS &&
        a->sw == a->channels)
        a->joined = a->tw;
}

/* k = (ty, tx, j) as one run, where B's strides allow. */
static void join_matrix(AqPart *p, int64_t taps_y)
{
    int64_t taps_x = p->b_tw;
    if (is_stride(p->b_tx, p->b_channels * p->b_j, taps_x) &&
        is_stride(p->b_ty, taps_x * p->b_channels * p->b_j, taps_y)) {
        p->b_channels = p->k;
        p->b_tw = 1;
    }
}

/* Which of B's strides is one; false if none. */
static bool settle_matrix(AqPart *p)
{
    if (is_stride(p->b_n, 1, p->n)) {
        p->b_n = 1;
        return true;
    }
    if (!is_stride(p->b_j, 1, p->b_channels))
        return false;
    p->b_j = 1;
    return true;
}

/* ---- matmul ---- */

static void matmul_batches(const AqNode *node, const AqView view[2],
                           AqContraction *c)
{
    c->rank = node->type.rank;
    c->n_batch = c->lead = c->rank - 2;
    c->batches = 1;
    for (int d = 0; d < c->n_batch; d++) {
        c->batch[d] = node->type.dim[d];
        c->batches *= c->batch[d];
        c->a_batch[d] = view[0].stride[d];
        c->b_batch[d] = view[1].stride[d];
    }
}

static AqImageGrid line_of(int64_t points, int64_t stride, int64_t channels)
{
    return (AqImageGrid){.grid_h = 1,
                         .grid_w = points,
                         .height = 1,
                         .width = points,
                         .sn = points * stride,
                         .sh = points * stride,
                         .sw = stride,
                         .my = 1,
                         .mx = 1,
                         .dy = 1,
                         .dx = 1,
                         .th = 1,
                         .tw = 1,
                         .channels = channels,
                         .joined = 1};
}

static int form_matmul(const AqGraph *body, const AqNode *node,
                       const AqView view[2], AqContraction *c)
{
    int row = node->type.rank - 2, column = row + 1;
    int ta = (int)aq_attr_int(node, AQ_KEY_TA, 0);
    int tb = (int)aq_attr_int(node, AQ_KEY_TB, 0);
    const AqType *a = &aq_node(body, node->inputs[0])->type;
    AqPart *p = &c->parts[0];
    p->m = node->type.dim[row];
    p->n = node->type.dim[column];
    p->k = a->dim[ta ? row : column];
    int64_t am = view[0].stride[ta ? column : row];
    int64_t ak = view[0].stride[ta ? row : column];
    matmul_batches(node, view, c);
    if (is_stride(ak, 1, p->k)) {
        c->panel = AQ_PANEL_ROWS;
        p->a = line_of(p->m, am, p->k);
    } else if (is_stride(am, 1, p->m)) {
        c->panel = AQ_PANEL_K;
        p->a = line_of(p->k, ak, p->m);
    } else {
        return 0;
    }
    p->a_base = view[0].base;
    p->group = p->m;
    p->b_base = view[1].base;
    p->b_n = view[1].stride[tb ? row : column];
    p->b_j = view[1].stride[tb ? column : row];
    p->b_tw = 1;
    p->b_channels = p->k;
    p->out_h = 1;
    p->out_w = p->m;
    p->ys = p->xs = 1;
    return settle_matrix(p) ? -1 : 1;
}

/* ---- convolution and its weights' gradient ---- */

static void conv_batches(AqContraction *c, int64_t groups, int64_t a, int64_t b,
                         int64_t columns)
{
    c->rank = 4;
    c->lead = 0;
    c->n_batch = 1;
    c->batches = c->batch[0] = groups;
    c->a_batch[0] = a;
    c->b_batch[0] = b;
    c->column_batch = columns;
}

static AqImageGrid forward_image(const AqType *x, const AqView *view,
                                 const AqType *w, const AqType *y,
                                 const Conv *conv)
{
    AqImageGrid a = image_of(x, view);
    a.grid_h = y->dim[1];
    a.grid_w = y->dim[2];
    a.my = conv->stride[0];
    a.mx = conv->stride[1];
    a.oy = -conv->pad[0];
    a.ox = -conv->pad[1];
    a.dy = conv->dilation[0];
    a.dx = conv->dilation[1];
    a.th = w->dim[0];
    a.tw = w->dim[1];
    a.channels = w->dim[2];
    join_grid(&a, y->dim[0] * y->dim[1] * y->dim[2]);
    return a;
}

static int form_conv2d(const AqGraph *body, const AqNode *node,
                       const AqView view[2], AqContraction *c)
{
    const AqType *x = &aq_node(body, node->inputs[0])->type;
    const AqType *w = &aq_node(body, node->inputs[1])->type;
    const AqType *y = &node->type;
    const int64_t *ws = view[1].stride;
    Conv conv = conv_of(node);
    AqPart *p = &c->parts[0];
    if (!is_stride(view[0].stride[3], 1, x->dim[3]))
        return 0;
    c->panel = AQ_PANEL_ROWS;
    p->m = y->dim[0] * y->dim[1] * y->dim[2];
    p->n = y->dim[3] / conv.groups;
    p->k = w->dim[0] * w->dim[1] * w->dim[2];
    p->a = forward_image(x, &view[0], w, y, &conv);
    join_taps(&p->a);
    p->a_base = view[0].base;
    p->b_base = view[1].base;
    p->b_ty = ws[0];
    p->b_tx = ws[1];
    p->b_j = ws[2];
    p->b_n = ws[3];
    p->b_tw = w->dim[1];
    p->b_channels = w->dim[2];
    p->group = p->m;
    p->out_h = y->dim[1];
    p->out_w = y->dim[2];
    p->ys = p->xs = 1;
    conv_batches(c, conv.groups, w->dim[2], p->n * ws[3], p->n);
    join_matrix(p, w->dim[0]);
    return settle_matrix(p) ? -1 : 1;
}

static int form_weight_gradient(const AqGraph *body, const AqNode *node,
                                const AqView view[2], AqContraction *c)
{
    const AqType *x = &aq_node(body, node->inputs[0])->type;
    const AqType *y = &aq_node(body, node->inputs[1])->type;
    const AqType *w = &node->type;
    const int64_t *ys = view[1].stride;
    Conv conv = conv_of(node);
    AqPart *p = &c->parts[0];
    if (!is_stride(view[0].stride[3], 1, x->dim[3]))
        return 0;
    if (!is_stride(ys[3], 1, y->dim[3]) ||
        !is_stride(ys[1], y->dim[2] * ys[2], y->dim[1]) ||
        !is_stride(ys[0], y->dim[1] * y->dim[2] * ys[2], y->dim[0]))
        return 1;
    c->panel = AQ_PANEL_K;
    p->m = w->dim[0] * w->dim[1] * w->dim[2];
    p->n = w->dim[3] / conv.groups;
    p->k = y->dim[0] * y->dim[1] * y->dim[2];
    p->a = forward_image(x, &view[0], w, y, &conv);
    p->a_base = view[0].base;
    p->b_base = view[1].base;
    p->b_j = ys[2];
    p->b_n = 1;
    p->b_tw = 1;
    p->b_channels = p->k;
    p->group = p->a.channels;
    p->out_h = w->dim[1];
    p->out_w = w->dim[2];
    p->ys = p->xs = 1;
    conv_batches(c, conv.groups, w->dim[2], p->n, p->n);
    return -1;
}

/* ---- the input's gradient ----
 * y = x[s i + k d - pad] gives  dx[h] += dy[(h + pad - k d) / s] w[k]  for the
 * taps k that divide evenly.  Rows h = phase + s i of a phase use the taps
 * first, first + step, ..., last, and read dy's rows i + (h0 + pad - k d) / s:
 * a convolution with stride 1, and no product with a zero put in between. */

typedef struct Phase {
    int64_t phase, rows;      /* h = phase + stride * i, i < rows */
    int64_t taps, last, step; /* taps k = last, last - step, ... */
    int64_t offset, dilation; /* dy's row is i + offset + tap * dilation */
} Phase;

static Phase phase_at(int64_t phase, int64_t size, int64_t kernel,
                      int64_t stride, int64_t pad, int64_t dilation)
{
    Phase p = {.phase = phase, .rows = (size - phase + stride - 1) / stride};
    int64_t previous = 0;
    for (int64_t k = 0; k < kernel; k++) {
        int64_t row = phase + pad - k * dilation;
        if (row % stride != 0)
            continue;
        p.step = p.taps ? k - previous : 0;
        previous = p.last = k;
        p.offset = row / stride;
        p.taps++;
    }
    p.dilation = p.step * dilation / stride;
    return p;
}

static void gradient_part(const AqType *y, const AqType *x,
                          const AqView view[2], const Phase *py,
                          const Phase *px, const Conv *conv, AqPart *p)
{
    const int64_t *ws = view[1].stride;
    int64_t channels = y->dim[3] / conv->groups;
    p->a = image_of(y, &view[0]);
    p->a.grid_h = py->rows;
    p->a.grid_w = px->rows;
    p->a.oy = py->offset;
    p->a.ox = px->offset;
    p->a.dy = py->dilation;
    p->a.dx = px->dilation;
    p->a.th = py->taps;
    p->a.tw = px->taps;
    p->a.channels = channels;
    p->a_base = view[0].base;
    p->m = x->dim[0] * py->rows * px->rows;
    p->n = x->dim[3] / conv->groups;
    p->k = py->taps * px->taps * channels;
    p->group = p->m;
    p->b_base = view[1].base + py->last * ws[0] + px->last * ws[1];
    p->b_ty = -py->step * ws[0];
    p->b_tx = -px->step * ws[1];
    p->b_j = ws[3];
    p->b_n = ws[2];
    p->b_tw = AQ_MAX(px->taps, 1);
    p->b_channels = channels;
    p->out_h = py->rows;
    p->out_w = px->rows;
    p->y0 = py->phase;
    p->x0 = px->phase;
    p->ys = conv->stride[0];
    p->xs = conv->stride[1];
    join_taps(&p->a);
    join_grid(&p->a, p->m);
    join_matrix(p, py->taps);
}

static int64_t phases(const AqNode *node, int direction)
{
    return AQ_MIN(aq_attr_at(node, AQ_KEY_STRIDE, direction, 1),
                  node->type.dim[1 + direction]);
}

static int form_input_gradient(const AqGraph *body, const AqNode *node,
                               const AqView view[2], AqContraction *c)
{
    const AqType *y = &aq_node(body, node->inputs[0])->type;
    const AqType *w = &aq_node(body, node->inputs[1])->type;
    const AqType *x = &node->type;
    Conv conv = conv_of(node);
    if (!is_stride(view[0].stride[3], 1, y->dim[3]))
        return 0;
    c->panel = AQ_PANEL_ROWS;
    int64_t channels = y->dim[3] / conv.groups;
    conv_batches(c, conv.groups, channels, channels * view[1].stride[3],
                 x->dim[3] / conv.groups);
    int64_t across = phases(node, 1);
    for (int i = 0; i < c->n_parts; i++) {
        Phase py = phase_at(i / across, x->dim[1], w->dim[0], conv.stride[0],
                            conv.pad[0], conv.dilation[0]);
        Phase px = phase_at(i % across, x->dim[2], w->dim[1], conv.stride[1],
                            conv.pad[1], conv.dilation[1]);
        gradient_part(y, x, view, &py, &px, &conv, &c->parts[i]);
        if (!settle_matrix(&c->parts[i]))
            return 1;
    }
    return -1;
}

/* ---- all four ---- */

int aq_contract_parts(const AqNode *node)
{
    if (node->op != AQ_OP_conv2d_input_gradient)
        return 1;
    return (int)(phases(node, 0) * phases(node, 1));
}

int aq_contract_form(const AqGraph *body, const AqNode *node,
                     const AqView view[2], AqContraction *c)
{
    c->n_parts = aq_contract_parts(node);
    switch (node->op) {
    case AQ_OP_matmul:
        return form_matmul(body, node, view, c);
    case AQ_OP_conv2d:
        return form_conv2d(body, node, view, c);
    case AQ_OP_conv2d_weight_gradient:
        return form_weight_gradient(body, node, view, c);
    default:
        return form_input_gradient(body, node, view, c);
    }
}
