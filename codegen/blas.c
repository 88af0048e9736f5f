/* The algorithm `blas`: plain products by OpenBLAS's sgemm, whose operands are
 * whole arguments: matmul, and convolutions that are one (1x1, stride 1).
 *
 * The library is loaded when the first such kernel is made, told to use the
 * calling thread alone and the same code on every processor: by itself it
 * would take what it believes to suit best, and bits would differ from machine
 * to machine.  A task is a block of the result, cut by shapes alone.  The
 * library keeps buffers of its own, which no plan counts: 32 MiB of addresses
 * for each thread inside it, of which some 2 MiB are touched. */
#include "codegen/contract.h"

#include <cblas.h>
#include <dlfcn.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

/* ---- the library ---- */

static const char *const library_name = "libopenblas.so.0";
static const char *const core = "Haswell"; /* AVX2: every level has it */

static struct {
    pthread_once_t once;
    __typeof__(cblas_sgemm) *sgemm;
    __typeof__(openblas_get_config) *config;
    char problem[200]; /* why there is no sgemm */
} blas = {.once = PTHREAD_ONCE_INIT};

/* Its environment is read while it is loaded. */
static void *open_library(void)
{
    static const char *const names[] = {"OPENBLAS_CORETYPE",
                                        "OPENBLAS_NUM_THREADS"};
    const char *values[] = {core, "1"};
    char *before[AQ_COUNT(names)];
    for (int i = 0; i < AQ_COUNT(names); i++) {
        const char *was = getenv(names[i]);
        before[i] = was ? strdup(was) : NULL;
        setenv(names[i], values[i], 1);
    }
    void *library = dlopen(library_name, RTLD_NOW | RTLD_LOCAL);
    for (int i = 0; i < AQ_COUNT(names); i++) {
        if (before[i])
            setenv(names[i], before[i], 1);
        else
            unsetenv(names[i]);
        free(before[i]);
    }
    return library;
}

static void load(void)
{
    void *library = open_library();
    if (!library) {
        snprintf(blas.problem, sizeof blas.problem, "%s", dlerror());
        return;
    }
    __typeof__(openblas_get_corename) *name;
    __typeof__(openblas_set_num_threads) *set_threads;
    __typeof__(cblas_sgemm) *sgemm;
    *(void **)&name = dlsym(library, "openblas_get_corename");
    *(void **)&set_threads = dlsym(library, "openblas_set_num_threads");
    *(void **)&sgemm = dlsym(library, "cblas_sgemm");
    *(void **)&blas.config = dlsym(library, "openblas_get_config");
    if (!name || !set_threads || !sgemm || !blas.config) {
        snprintf(blas.problem, sizeof blas.problem,
                 "%s lacks functions of OpenBLAS", library_name);
        return;
    }
    if (strcmp(name(), core) != 0) {
        snprintf(blas.problem, sizeof blas.problem,
                 "OpenBLAS was loaded before us, and for %s rather than %s: "
                 "set OPENBLAS_CORETYPE=%s",
                 name(), core, core);
        return;
    }
    set_threads(1);
    blas.sgemm = sgemm;
}

const char *aq_blas_version(void)
{
    pthread_once(&blas.once, load);
    return blas.config ? blas.config() : blas.problem;
}

/* ---- the closure ---- */

typedef struct Blas {
    __typeof__(cblas_sgemm) *sgemm;
    AqStoring storing;
    int32_t a_buffer, b_buffer, ta, tb, plain;
    int64_t batches, m, n, k;
    int64_t rows, columns; /* of a task's block */
    int64_t down, across;  /* blocks of a product */
    int64_t dim[AQ_MAX_RANK];
    AqSumPart sums;
    int64_t sum_tasks, workspace; /* floats */
} Blas;

enum { STORED_ROWS = 32 }; /* through the epilogue at a time */

/* Which argument operand `which` is as a whole, or -1. */
static int32_t whole_argument(const AqContractKernel *k, int which)
{
    const AqGraph *body = k->kernel->body;
    AqId operand = k->node->inputs[which];
    const AqType *type = &aq_node(body, operand)->type;
    AqView view = aq_operand_view(body, operand);
    AqView whole = aq_row_major_view(view.arg, type);
    for (int d = 0; d < type->rank; d++)
        if (type->dim[d] > 1 && view.stride[d] != whole.stride[d])
            return -1;
    return view.base == 0 ? view.arg : -1;
}

static void set_matmul(Blas *b, const AqNode *node, const AqType *a)
{
    int row = node->type.rank - 2;
    b->ta = aq_attr_int(node, AQ_KEY_TA, 0) != 0;
    b->tb = aq_attr_int(node, AQ_KEY_TB, 0) != 0;
    b->m = node->type.dim[row];
    b->n = node->type.dim[row + 1];
    b->k = a->dim[b->ta ? row : row + 1];
    b->batches = 1;
    for (int d = 0; d < row; d++)
        b->batches *= node->type.dim[d];
}

/* x (pixels, in), w (in, out), y (pixels, out): y = x w, dx = dy w^T,
 * dw = x^T dy. */
static void set_convolution(Blas *b, const AqNode *node, const AqType *a)
{
    int64_t pixels = a->dim[0] * a->dim[1] * a->dim[2];
    bool weights = node->op == AQ_OP_conv2d_weight_gradient;
    b->ta = weights;
    b->tb = node->op == AQ_OP_conv2d_input_gradient;
    b->m = weights ? a->dim[3] : pixels;
    b->n = node->type.dim[3];
    b->k = weights ? pixels : a->dim[3];
    b->batches = 1;
}

static AqStatus set_up(Blas *b, const AqContractKernel *k, AqError *error)
{
    const AqKernel *kernel = k->kernel;
    const AqType *a = &aq_node(kernel->body, k->node->inputs[0])->type;
    AqPacking packing;
    *b = (Blas){.plain = k->plain,
                .a_buffer = whole_argument(k, 0),
                .b_buffer = whole_argument(k, 1)};
    if (b->a_buffer < 0 || b->b_buffer < 0)
        return aq_fail(error, AQ_INTERNAL,
                       "contract kernel %%%d: operands do not suit \"blas\"",
                       kernel->id);
    if (k->node->op == AQ_OP_matmul)
        set_matmul(b, k->node, a);
    else
        set_convolution(b, k->node, a);
    aq_contract_leaves(k, &packing, &b->storing);
    memcpy(b->dim, k->node->type.dim, sizeof b->dim);
    int64_t strip = b->storing.columns; /* the epilogue takes whole ones */
    b->rows = aq_attr_at(kernel->node, AQ_KEY_BLOCKS, 0, 128);
    b->columns = aq_attr_at(kernel->node, AQ_KEY_BLOCKS, 1, 512);
    b->rows = AQ_MAX(AQ_MIN(b->rows, b->m), 1);
    b->columns = AQ_MAX(aq_ceil_div(b->columns, strip), 1) * strip;
    b->columns = AQ_MIN(b->columns, b->n);
    b->down = aq_ceil_div(b->m, b->rows);
    b->across = aq_ceil_div(b->n, b->columns);
    int64_t slots = 0;
    b->sums = aq_sums_part(&b->storing.sums, b->m, b->rows, &slots);
    b->sum_tasks = aq_sums_place(&b->storing.sums, slots, &b->workspace);
    return AQ_OK;
}

static AqStatus blas_layout(const AqContractKernel *k, AqKernelLayout *layout,
                            AqError *error)
{
    Blas b;
    if (set_up(&b, k, error))
        return error->status;
    int64_t floats =
        b.rows * b.columns + (int64_t)STORED_ROWS * b.storing.columns;
    *layout = (AqKernelLayout){
        .n_stages = b.sum_tasks ? 2 : 1,
        .tasks = {b.batches * b.down * b.across, b.sum_tasks},
        .workspace = b.sum_tasks ? b.workspace * 4 + 64 : 0, /* to be aligned */
        .scratch = b.plain ? 0 : 4 * floats};
    return AQ_OK;
}

/* ---- running ---- */

/* Rows row .. row + rows - 1 of the result, from column `column` on, through
 * the epilogue. */
static void store_block(const Blas *b, void *const *buffers, int64_t row,
                        int64_t rows, int64_t column, int64_t columns,
                        const float *block, float *tile, float *slots)
{
    int last = b->storing.rank - 1;
    int64_t width = b->storing.columns, index[AQ_MAX_RANK] = {0};
    for (int64_t r = 0, run; r < rows; r += run) {
        int64_t rest = row + r;
        for (int d = last - 1; d >= 0; d--) {
            index[d] = rest % b->dim[d];
            rest /= b->dim[d];
        }
        run = AQ_MIN(rows - r, b->dim[last - 1] - index[last - 1]);
        run = AQ_MIN(run, STORED_ROWS);
        for (int64_t c = 0; c < columns; c += width) {
            int64_t count = AQ_MIN(width, columns - c);
            for (int64_t i = 0; i < run; i++)
                memcpy(tile + i * width, block + (r + i) * b->columns + c,
                       (size_t)count * sizeof *tile);
            index[last] = column + c;
            aq_store_rows(&b->storing, buffers, tile, index, 1, run, count,
                          slots);
        }
    }
}

static void run_task(const Blas *b, void *const *buffers, int64_t task,
                     float *scratch)
{
    int64_t row = task % b->down * b->rows;
    int64_t column = task / b->down % b->across * b->columns;
    int64_t batch = task / b->down / b->across;
    int64_t rows = AQ_MIN(b->rows, b->m - row);
    int64_t columns = AQ_MIN(b->columns, b->n - column);
    const float *x = (const float *)buffers[b->a_buffer] + batch * b->m * b->k;
    const float *y = (const float *)buffers[b->b_buffer] + batch * b->k * b->n;
    float *out = scratch;
    if (b->plain)
        out = (float *)buffers[b->storing.out_buffer] +
              (batch * b->m + row) * b->n + column;
    b->sgemm(CblasRowMajor, b->ta ? CblasTrans : CblasNoTrans,
             b->tb ? CblasTrans : CblasNoTrans, (int)rows, (int)columns,
             (int)b->k, 1, x + (b->ta ? row : row * b->k),
             (int)(b->ta ? b->m : b->k), y + (b->tb ? column * b->k : column),
             (int)(b->tb ? b->k : b->n), 0, out,
             (int)(b->plain ? b->n : b->columns));
    if (b->plain)
        return;
    float *slots =
        aq_sums_begin(&b->storing.sums, &b->sums, buffers, row / b->rows,
                      column / b->storing.columns,
                      aq_ceil_div(column + columns, b->storing.columns));
    store_block(b, buffers, batch * b->m + row, rows, column, columns, scratch,
                scratch + b->rows * b->columns, slots);
}

static void blas_run(const void *closure, void *const *buffers, int64_t first,
                     int64_t last, void *scratch)
{
    for (int64_t task = first; task < last; task++)
        run_task(closure, buffers, task, scratch);
}

static AqStatus blas_plan(AqCodePlan *plan, const AqContractKernel *k,
                          AqError *error)
{
    Blas b;
    if (set_up(&b, k, error))
        return error->status;
    pthread_once(&blas.once, load);
    b.sgemm = blas.sgemm;
    if (!b.sgemm)
        return aq_fail(error, AQ_UNSUPPORTED, "algorithm blas: %s",
                       blas.problem);
    if (aq_code_plan_c_stage(plan, blas_run, &b, sizeof b))
        return aq_no_memory(error, sizeof b);
    if (aq_contract_link_storing(plan, k, b.n, offsetof(Blas, storing), error))
        return error->status;
    return b.sum_tasks ? aq_sums_plan(plan, &b.storing.sums, &b.sums, 1,
                                      b.sum_tasks, error)
                       : AQ_OK;
}

const AqContractAlgorithm aq_algorithm_blas = {
    .name = "blas", .layout = blas_layout, .plan = blas_plan};
