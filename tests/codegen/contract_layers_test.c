/* Convolutions of the sizes that are trained, too large for the interpreter:
 * the layers of the DDPM CIFAR UNet in all three directions, against OpenBLAS
 * in double precision on unfolded images.
 *
 * Error bounds: gemm: |out - exact| <= 3 eps sqrt(K) rms of the exact result,
 * for sums of K terms; winograd: 1e-4 rms.  OpenBLAS's own sgemm stands beside.
 */
#include "codegen/codegen.h"
#include "tests/support/bench.h"

#include <cblas.h>
#include <math.h>
#include <setjmp.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

typedef struct Layer {
    int64_t n, size, in, out, kernel, stride;
} Layer;

/* At batch 2; stride 2 with zeros at the bottom and on the right alone. */
static const Layer layers[] = {
    {2, 32, 3, 128, 3, 1},    {2, 32, 128, 128, 3, 1}, {2, 32, 384, 128, 3, 1},
    {2, 32, 384, 128, 1, 1},  {2, 32, 128, 3, 3, 1},   {2, 32, 128, 128, 3, 2},
    {2, 16, 256, 256, 3, 1},  {2, 16, 512, 256, 3, 1}, {2, 16, 512, 256, 1, 1},
    {2, 8, 256, 256, 3, 1},   {2, 8, 256, 256, 3, 2},  {2, 4, 512, 256, 3, 1},
    {1, 8, 1280, 1280, 3, 1}, {2, 64, 64, 64, 3, 1}};

enum { FORWARD, INPUT, WEIGHT, DIRECTIONS };

static const char *const names[] = {"forward", "input gradient",
                                    "weight gradient"};

/* A layer with its data: x (n, size, size, in), w (kernel, kernel, in, out), dy
 * (n, after, after, out), each as float and as double. */
typedef struct Case {
    const Layer *layer;
    int64_t after, rows, columns, before, behind;
    AqType x, w, y;
    float *xf, *wf, *yf;
    double *xd, *wd, *yd;
} Case;

static void *get(int64_t count, size_t size)
{
    void *memory = calloc((size_t)count, size);
    assert_non_null(memory);
    return memory;
}

static void fill(uint64_t *seed, int64_t count, float **f, double **d)
{
    *f = get(count, sizeof **f);
    *d = get(count, sizeof **d);
    for (int64_t i = 0; i < count; i++) {
        (*f)[i] = (float)aq_test_below(seed, 1 << 20) / (1 << 19) - 1;
        (*d)[i] = (double)(*f)[i];
    }
}

static Case make_case(const Layer *l)
{
    uint64_t seed = 1;
    Case c = {.layer = l};
    c.before = l->stride == 1 ? l->kernel / 2 : 0;
    c.behind = l->stride == 1 ? l->kernel / 2 : 1;
    c.after = (l->size + c.before + c.behind - l->kernel) / l->stride + 1;
    c.rows = l->n * c.after * c.after;
    c.columns = l->kernel * l->kernel * l->in;
    c.x = F32(l->n, l->size, l->size, l->in);
    c.w = F32(l->kernel, l->kernel, l->in, l->out);
    c.y = F32(l->n, c.after, c.after, l->out);
    fill(&seed, aq_elements(&c.x), &c.xf, &c.xd);
    fill(&seed, aq_elements(&c.w), &c.wf, &c.wd);
    fill(&seed, aq_elements(&c.y), &c.yf, &c.yd);
    return c;
}

static void free_case(Case *c)
{
    free(c->xf);
    free(c->wf);
    free(c->yf);
    free(c->xd);
    free(c->wd);
    free(c->yd);
}

/* ---- OpenBLAS ---- */

/* Where element (row, column) of the unfolded image comes from; -1: a zero. */
static int64_t source(const Case *c, int64_t row, int64_t column)
{
    const Layer *l = c->layer;
    int64_t tap = column / l->in, image = row / (c->after * c->after);
    int64_t at = row % (c->after * c->after);
    int64_t y = at / c->after * l->stride - c->before + tap / l->kernel;
    int64_t x = at % c->after * l->stride - c->before + tap % l->kernel;
    if (y < 0 || y >= l->size || x < 0 || x >= l->size)
        return -1;
    return ((image * l->size + y) * l->size + x) * l->in + column % l->in;
}

static double *unfolded(const Case *c)
{
    double *u = get(c->rows * c->columns, sizeof *u);
    for (int64_t r = 0; r < c->rows; r++)
        for (int64_t k = 0; k < c->columns; k++) {
            int64_t from = source(c, r, k);
            u[r * c->columns + k] = from < 0 ? 0 : c->xd[from];
        }
    return u;
}

/* y = u w;  du = dy w', folded into dx;  dw = u' dy */
static double *exact_of(const Case *c, int direction, const double *u)
{
    int rows = (int)c->rows, columns = (int)c->columns;
    int out = (int)c->layer->out;
    const AqType *type[] = {&c->y, &c->x, &c->w};
    double *result = get(aq_elements(type[direction]), sizeof *result);
    if (direction == FORWARD)
        cblas_dgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, rows, out,
                    columns, 1, u, columns, c->wd, out, 0, result, out);
    if (direction == WEIGHT)
        cblas_dgemm(CblasRowMajor, CblasTrans, CblasNoTrans, columns, out, rows,
                    1, u, columns, c->yd, out, 0, result, out);
    if (direction != INPUT)
        return result;
    double *du = get(c->rows * c->columns, sizeof *du);
    cblas_dgemm(CblasRowMajor, CblasNoTrans, CblasTrans, rows, columns, out, 1,
                c->yd, out, c->wd, out, 0, du, columns);
    for (int64_t r = 0; r < c->rows; r++)
        for (int64_t k = 0; k < c->columns; k++) {
            int64_t to = source(c, r, k);
            if (to >= 0)
                result[to] += du[r * c->columns + k];
        }
    free(du);
    return result;
}

static float *single_forward(const Case *c, const double *u)
{
    int64_t count = c->rows * c->columns;
    float *single = get(count, sizeof *single);
    float *y = get(aq_elements(&c->y), sizeof *y);
    for (int64_t i = 0; i < count; i++)
        single[i] = (float)u[i];
    cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, (int)c->rows,
                (int)c->layer->out, (int)c->columns, 1, single, (int)c->columns,
                c->wf, (int)c->layer->out, 0, y, (int)c->layer->out);
    free(single);
    return y;
}

/* The largest difference over the rms of what is exact. */
static double error_of(const float *ours, const double *exact, int64_t count)
{
    double worst = 0, squares = 0;
    for (int64_t i = 0; i < count; i++) {
        double off = fabs((double)ours[i] - exact[i]);
        worst = off <= worst ? worst : off; /* and NaN */
        squares += exact[i] * exact[i];
    }
    return worst / sqrt(squares / (double)count);
}

/* ---- ours ---- */

static AqGraph *kernel_graph(const Case *c, int direction,
                             const char *algorithm, AqGraph *body, AqId *kernel)
{
    static const AqOp ops[] = {AQ_OP_conv2d, AQ_OP_conv2d_input_gradient,
                               AQ_OP_conv2d_weight_gradient};
    const AqType *a[] = {&c->x, &c->y, &c->x}, *b[] = {&c->w, &c->w, &c->y};
    const AqType *out[] = {&c->y, &c->x, &c->w};
    int64_t one[] = {1, 1}, stride[] = {c->layer->stride, c->layer->stride};
    int64_t pad[] = {c->before, c->behind, c->before, c->behind};
    AqAttr attrs[] = {
        aq_ints(AQ_KEY_STRIDE, stride, 2), aq_ints(AQ_KEY_PAD, pad, 4),
        aq_ints(AQ_KEY_DILATION, one, 2), aq_int(AQ_KEY_GROUPS, 1)};
    AqGraph *g = aq_graph_new();
    AqAttr first = aq_int(AQ_KEY_INDEX, 0), second = aq_int(AQ_KEY_INDEX, 1);
    AqId args[] = {
        aq_build(body, AQ_OP_arg, a[direction], NULL, 0, &first, 1),
        aq_build(body, AQ_OP_arg, b[direction], NULL, 0, &second, 1)};
    AqId value =
        aq_build(body, ops[direction], out[direction], args, 2, attrs, 4);
    aq_graph_output(body, "out", value, false);
    AqAttr an = aq_text(AQ_KEY_NAME, "a"), bn = aq_text(AQ_KEY_NAME, "b");
    AqId inputs[] = {aq_build(g, AQ_OP_input, a[direction], NULL, 0, &an, 1),
                     aq_build(g, AQ_OP_input, b[direction], NULL, 0, &bn, 1)};
    AqAttr of_kernel[] = {aq_text(AQ_KEY_KIND, "contract"), aq_body(body),
                          aq_text(AQ_KEY_ALGORITHM, algorithm)};
    *kernel = aq_build(g, AQ_OP_kernel, NULL, inputs, 2, of_kernel, 3);
    if (*kernel == AQ_NO_NODE)
        fail_msg("%s%s", body->error.text, g->error.text);
    return g;
}

static float *run(const Case *c, int direction, int level,
                  const char *algorithm)
{
    float *const a[] = {c->xf, c->yf, c->xf}, *const b[] = {c->wf, c->wf,
                                                            c->yf};
    const AqType *out[] = {&c->y, &c->x, &c->w};
    AqError error = {0};
    AqTarget target;
    AqKernelLayout layout;
    AqId kernel;
    AqGraph *body = aq_graph_new();
    AqGraph *g = kernel_graph(c, direction, algorithm, body, &kernel);
    AqCompileOptions options = {.threads = 1, .no_cache = true};
    aq_target_host(level, &target, &error);
    AqCode *code = aq_compile(g, &kernel, 1, &target, &options, &error);
    if (!code || aq_kernel_layout(g, kernel, &target, &layout, &error))
        fail_msg("%s", error.text);
    float *result = get(aq_elements(out[direction]), sizeof *result);
    void *workspace = get(layout.workspace + 64, 1);
    void *scratch = get(layout.scratch + 64, 1);
    void *kept = get(layout.kept + 64, 1);
    void *rooms[] = {workspace, kept};
    void *buffers[5] = {a[direction], b[direction], result};
    memcpy(buffers + 3, layout.workspace > 0 ? rooms : rooms + 1,
           (layout.workspace > 0 ? 2 : 1) * sizeof *rooms);
    int n;
    const AqStage *stages = aq_code_stages(code, 0, &n);
    for (int i = 0; i < n; i++)
        stages[i].run(stages[i].closure, buffers, 0, stages[i].tasks, scratch);
    free(workspace);
    free(kept);
    free(scratch);
    aq_code_free(code);
    aq_graph_free(g);
    aq_graph_free(body);
    return result;
}

static double check(const Case *c, int direction, int level,
                    const char *algorithm, const double *exact)
{
    const AqType *out[] = {&c->y, &c->x, &c->w};
    int64_t taps = c->layer->kernel * c->layer->kernel;
    int64_t terms[] = {c->columns, taps * c->layer->out, c->rows};
    float *ours = run(c, direction, level, algorithm);
    double error = error_of(ours, exact, aq_elements(out[direction]));
    double allowed = strcmp(algorithm, "winograd") != 0
                         ? 3 * 0x1p-23 * sqrt((double)terms[direction])
                         : 1e-4;
    free(ours);
    if (!(error <= allowed))
        fail_msg("%d->%d at %d, %s by %s, level %d: %.2g of the rms, allowed "
                 "%.2g",
                 (int)c->layer->in, (int)c->layer->out, (int)c->layer->size,
                 names[direction], algorithm, level, error, allowed);
    return error;
}

/* The largest error of the levels that this processor has, from `first` on. */
static double worst(const Case *c, int direction, const char *algorithm,
                    int first, const double *exact)
{
    AqTarget target;
    double error = 0;
    for (int level = first; level <= AQ_LAST_LEVEL; level++)
        if (aq_target_host(level, &target, NULL) == AQ_OK)
            error = fmax(error, check(c, direction, level, algorithm, exact));
    return error;
}

static void check_layer(const Layer *layer)
{
    Case c = make_case(layer);
    double *u = unfolded(&c), gemm[DIRECTIONS], winograd[DIRECTIONS] = {0};
    double split[DIRECTIONS] = {0};
    double single = 0;
    for (int d = 0; d < DIRECTIONS; d++) {
        double *exact = exact_of(&c, d, u);
        gemm[d] = worst(&c, d, "gemm", AQ_FIRST_LEVEL, exact);
        split[d] = worst(&c, d, "gemm_bf16x6", AQ_LAST_LEVEL, exact);
        if (layer->kernel == 3 && layer->stride == 1)
            winograd[d] = worst(&c, d, "winograd", AQ_FIRST_LEVEL, exact);
        if (d == FORWARD) {
            float *y = single_forward(&c, u);
            single = error_of(y, exact, aq_elements(&c.y));
            free(y);
        }
        free(exact);
    }
    print_message(
        "%4d ->%4d at %2d, kernel %d, stride %d: sgemm %.1e, gemm %.1e "
        "%.1e %.1e, gemm_bf16x6 %.1e %.1e %.1e, winograd %.1e %.1e %.1e of the "
        "rms\n",
        (int)layer->in, (int)layer->out, (int)layer->size, (int)layer->kernel,
        (int)layer->stride, single, gemm[0], gemm[1], gemm[2], split[0],
        split[1], split[2], winograd[0], winograd[1], winograd[2]);
    free(u);
    free_case(&c);
}

static void test_layers(void **state)
{
    (void)state;
    for (int i = 0; i < AQ_COUNT(layers); i++)
        check_layer(&layers[i]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_layers)};
    return cmocka_run_group_tests_name("contract_layers", tests, NULL, NULL);
}
