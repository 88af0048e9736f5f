/* Matrix products and convolutions.
 *
 * The three directions of a convolution are one loop over (image, output
 * position, tap, group) with a different innermost step on a row x[C/groups] of
 * the input, a matrix w[C/groups][O/groups] of the weights and a row
 * y[O/groups] of the output: y += x w, x += w y, w += x y^T. */
#include "ir/evaluate.h"

#include <stdlib.h>

/* y[n] += x[k] w[k][n], rows of w `stride` apart; four rows at a time, so that
 * y is read and written a quarter as often */
static void add_product(const double *x, const double *w, double *y, int64_t k,
                        int64_t n, int64_t stride)
{
    int64_t i = 0;
    for (; i + 4 <= k; i += 4) {
        const double *w0 = w + i * stride, *w1 = w0 + stride;
        const double *w2 = w1 + stride, *w3 = w2 + stride;
        double x0 = x[i], x1 = x[i + 1], x2 = x[i + 2], x3 = x[i + 3];
        for (int64_t j = 0; j < n; j++)
            y[j] += (x0 * w0[j] + x1 * w1[j]) + (x2 * w2[j] + x3 * w3[j]);
    }
    for (; i < k; i++)
        for (int64_t j = 0; j < n; j++)
            y[j] += x[i] * w[i * stride + j];
}

static double dot(const double *a, const double *b, int64_t count)
{
    double part[8] = {0}, rest = 0;
    int64_t i = 0;
    for (; i + 8 <= count; i += 8)
        for (int j = 0; j < 8; j++)
            part[j] += a[i + j] * b[i + j];
    for (; i < count; i++)
        rest += a[i] * b[i];
    for (int j = 0; j < 8; j++)
        rest += part[j];
    return rest;
}

/* to (columns, rows) = from (rows, columns) */
static void transpose(const double *from, double *to, int64_t rows,
                      int64_t columns)
{
    for (int64_t i = 0; i < rows; i++)
        for (int64_t j = 0; j < columns; j++)
            to[j * rows + i] = from[i * columns + j];
}

/* (batch..., m, k) x (batch..., k, n) -> (batch..., m, n) */
void aq_evaluate_matmul(Evaluation *e)
{
    const AqType *type = &e->out->type;
    bool ta = aq_attr_int(e->node, AQ_KEY_TA, 0);
    bool tb = aq_attr_int(e->node, AQ_KEY_TB, 0);
    int64_t m = type->dim[type->rank - 2], n = type->dim[type->rank - 1];
    int64_t k = e->in[0]->type.dim[type->rank - (ta ? 2 : 1)];
    int64_t batch = m > 0 && n > 0 ? aq_elements(type) / (m * n) : 0;
    double *left = aq_evaluate_scratch(e, ta ? m * k : 0);
    double *right = aq_evaluate_scratch(e, tb ? k * n : 0);
    for (int64_t i = 0; left && right && i < batch; i++) {
        const double *a = e->in[0]->data + i * m * k;
        const double *b = e->in[1]->data + i * k * n;
        double *out = e->out->data + i * m * n;
        if (ta)
            transpose(a, left, k, m), a = left;
        if (tb)
            transpose(b, right, n, k), b = right;
        for (int64_t row = 0; row < m; row++)
            add_product(a + row * k, b, out + row * n, k, n, n);
    }
    free(left);
    free(right);
}

typedef struct Convolution {
    int64_t images, height, width, channels;          /* x */
    int64_t kernel_height, kernel_width, in_each;     /* w, C / groups */
    int64_t out_height, out_width, filters, out_each; /* y, O / groups */
    int64_t stride[2], dilation[2], top, left, groups;
} Convolution;

static Convolution convolution_of(const AqNode *node, const AqType *x,
                                  const AqType *w, const AqType *y)
{
    Convolution c = {
        .images = x->dim[0],
        .height = x->dim[1],
        .width = x->dim[2],
        .channels = x->dim[3],
        .kernel_height = w->dim[0],
        .kernel_width = w->dim[1],
        .in_each = w->dim[2],
        .out_height = y->dim[1],
        .out_width = y->dim[2],
        .filters = y->dim[3],
        .top = aq_attr_at(node, AQ_KEY_PAD, 0, 0),
        .left = aq_attr_at(node, AQ_KEY_PAD, 2, 0),
        .groups = aq_attr_int(node, AQ_KEY_GROUPS, 1),
    };
    c.out_each = c.filters / c.groups;
    for (int i = 0; i < 2; i++) {
        c.stride[i] = aq_attr_at(node, AQ_KEY_STRIDE, i, 1);
        c.dilation[i] = aq_attr_at(node, AQ_KEY_DILATION, i, 1);
    }
    return c;
}

typedef void Step(const Convolution *c, double *x, double *w, double *y);

static void step_forward(const Convolution *c, double *x, double *w, double *y)
{
    add_product(x, w, y, c->in_each, c->out_each, c->filters);
}

static void step_input(const Convolution *c, double *x, double *w, double *y)
{
    for (int64_t i = 0; i < c->in_each; i++)
        x[i] += dot(w + i * c->filters, y, c->out_each);
}

static void step_weight(const Convolution *c, double *x, double *w, double *y)
{
    for (int64_t i = 0; i < c->in_each; i++)
        for (int64_t j = 0; j < c->out_each; j++)
            w[i * c->filters + j] += x[i] * y[j];
}

/* Every tap that the output position (image, i, j) reads. */
static void at_position(const Convolution *c, Step *step, int64_t image,
                        int64_t i, int64_t j, double *x, double *w, double *y)
{
    double *out =
        y + ((image * c->out_height + i) * c->out_width + j) * c->filters;
    for (int64_t p = 0; p < c->kernel_height; p++) {
        int64_t row = i * c->stride[0] + p * c->dilation[0] - c->top;
        for (int64_t q = 0; q < c->kernel_width; q++) {
            int64_t column = j * c->stride[1] + q * c->dilation[1] - c->left;
            if (row < 0 || row >= c->height || column < 0 || column >= c->width)
                continue;
            double *in = x + ((image * c->height + row) * c->width + column) *
                                 c->channels;
            double *tap =
                w + (p * c->kernel_width + q) * c->in_each * c->filters;
            for (int64_t g = 0; g < c->groups; g++)
                step(c, in + g * c->in_each, tap + g * c->out_each,
                     out + g * c->out_each);
        }
    }
}

static void sweep(const Evaluation *e, Step *step, const AqValue *x,
                  const AqValue *w, const AqValue *y)
{
    Convolution c = convolution_of(e->node, &x->type, &w->type, &y->type);
    for (int64_t image = 0; image < c.images; image++)
        for (int64_t i = 0; i < c.out_height; i++)
            for (int64_t j = 0; j < c.out_width; j++)
                at_position(&c, step, image, i, j, x->data, w->data, y->data);
}

/* x, w -> y */
void aq_evaluate_conv2d(Evaluation *e)
{
    sweep(e, step_forward, e->in[0], e->in[1], e->out);
}

/* dy, w -> dx */
void aq_evaluate_conv2d_input_gradient(Evaluation *e)
{
    sweep(e, step_input, e->out, e->in[1], e->in[0]);
}

/* x, dy -> dw */
void aq_evaluate_conv2d_weight_gradient(Evaluation *e)
{
    sweep(e, step_weight, e->in[0], e->out, e->in[1]);
}
