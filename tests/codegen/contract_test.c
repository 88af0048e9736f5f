/* Contractions against the interpreter: random shapes, operands and results
 * with guard pages behind and before, both levels, any grouping of the tasks,
 * every algorithm wherever it suits.
 *
 * Error bound: |out - exact| <= F eps sqrt(K) (rms + |exact|), where rms is
 * that of the exact result and F the algorithm's row in `errors`; what stands
 * around the product may double it. */
#include "codegen/codegen.h"
#include "passes/passes.h"
#include "tests/support/bench.h"

#include <math.h>
#include <setjmp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include <cmocka.h>

enum { MOST_CASES = 400, MOST_INPUTS = 8, PAGE = 4096 };

/* ---- kernels ---- */

/* A kernel under construction: args of the body beside inputs of the graph. */
typedef struct Kernel {
    AqBench *bench;
    AqGraph *body;
    AqId inputs[MOST_INPUTS];
    int n_inputs;
    AqId id;
    int64_t k; /* terms of a sum */
    AqAttr blocks;
    int64_t block[5];
} Kernel;

typedef struct Suite {
    AqBench bench;
    uint64_t seed;
    Kernel kernels[MOST_CASES];
    AqId ids[MOST_CASES];
    int count;
} Suite;

static int64_t below(Suite *s, int64_t bound)
{
    return aq_test_below(&s->seed, bound);
}

static Kernel *begin_kernel(Suite *s)
{
    assert_true(s->count < MOST_CASES);
    Kernel *k = &s->kernels[s->count++];
    *k = (Kernel){.bench = &s->bench, .body = aq_graph_new()};
    assert_non_null(k->body);
    return k;
}

static AqId build(Kernel *k, AqOp op, const AqType *type, const AqId *inputs,
                  int n, const AqAttr *attrs, int n_attrs)
{
    AqId id = aq_build(k->body, op, type, inputs, n, attrs, n_attrs);
    if (id == AQ_NO_NODE)
        fail_msg("%s", k->body->error.text);
    return id;
}

static AqId add_arg(Kernel *k, AqType type)
{
    char name[32];
    snprintf(name, sizeof name, "x%d.%d", (int)k->id, k->bench->n_bindings);
    AqAttr index = aq_int(AQ_KEY_INDEX, k->n_inputs);
    assert_true(k->n_inputs < MOST_INPUTS);
    k->inputs[k->n_inputs++] = aq_bench_random(k->bench, name, type);
    return build(k, AQ_OP_arg, &type, NULL, 0, &index, 1);
}

static void end_kernel(Suite *s, Kernel *k)
{
    AqAttr attrs[] = {aq_text(AQ_KEY_KIND, "contract"), aq_body(k->body),
                      k->blocks};
    int n = k->blocks.count ? 3 : 2;
    k->id = aq_build(k->bench->g, AQ_OP_kernel, NULL, k->inputs, k->n_inputs,
                     attrs, n);
    if (k->id == AQ_NO_NODE)
        fail_msg("%s", k->bench->g->error.text);
    s->ids[k - s->kernels] = k->id;
}

static const AqType *type_of(const Kernel *k, AqId id)
{
    return &aq_node(k->body, id)->type;
}

static void give(Kernel *k, const char *name, AqId id)
{
    aq_graph_output(k->body, name, id, false);
}

/* ---- what may stand around a product ---- */

/* An arg with the dimensions chosen by `keep`, repeated to `type`. */
static AqId spread(Kernel *k, const AqType *type, unsigned keep)
{
    AqType small = *type;
    for (int d = 0; d < type->rank; d++)
        if (!(keep >> d & 1))
            small.dim[d] = 1;
    AqId arg = add_arg(k, small);
    if (aq_same_shape(&small, type))
        return arg;
    return aq_broadcast_node(k->body, arg, type->rank, type->dim);
}

static AqId silu(Kernel *k, AqId x)
{
    return aq_binary(k->body, AQ_OP_mul, x,
                     aq_unary(k->body, AQ_OP_sigmoid, x));
}

/* silu(x * scale + shift), scale and shift by sample and channel */
static AqId normalised(Kernel *k, AqType type, AqId x)
{
    unsigned keep = 1u | 1u << (type.rank - 1);
    x = aq_binary(k->body, AQ_OP_mul, x, spread(k, &type, keep));
    x = aq_binary(k->body, AQ_OP_add, x, spread(k, &type, keep));
    return silu(k, x);
}

/* Parts next to each other along the last dimension, where they meet between
 * two vectors or anywhere. */
static AqId joined(Suite *s, Kernel *k, AqType type)
{
    int last = type.rank - 1;
    int64_t width = type.dim[last], unit = width > 16 && below(s, 2) ? 16 : 1;
    int64_t first = 1 + below(s, (width - 1) / unit + 1);
    first = first * unit < width ? first * unit : width - 1;
    if (width < 2)
        return add_arg(k, type);
    AqType left = type, right = type;
    left.dim[last] = first;
    right.dim[last] = width - first;
    AqId parts[] = {add_arg(k, left), add_arg(k, right)};
    return aq_concat_node(k->body, parts, 2, last);
}

/* Every element as often as its dimension allows, all dimensions but the first
 * and the last. */
static AqId repeated(Kernel *k, AqType type)
{
    AqType small = type;
    int64_t factor[AQ_MAX_RANK];
    for (int d = 0; d < type.rank; d++) {
        bool between = d > 0 && d < type.rank - 1;
        factor[d] = between && type.dim[d] % 2 == 0   ? 2
                    : between && type.dim[d] % 3 == 0 ? 3
                                                      : 1;
        small.dim[d] /= factor[d];
    }
    AqAttr attr = aq_ints(AQ_KEY_FACTOR, factor, type.rank);
    AqId x = add_arg(k, small);
    return aq_build(k->body, AQ_OP_repeat, NULL, &x, 1, &attr, 1);
}

/* An operand of that type: an arg, a piece of one, or an expression. */
static AqId operand(Suite *s, Kernel *k, AqType type, int kind)
{
    if (kind == 1)
        return normalised(k, type, add_arg(k, type));
    if (kind == 4)
        return normalised(k, type, joined(s, k, type));
    if (kind == 5)
        return repeated(k, type);
    if (kind == 2) { /* the middle of a wider tensor */
        AqType wide = type;
        int64_t start[AQ_MAX_RANK], step[AQ_MAX_RANK];
        for (int d = 0; d < type.rank; d++) {
            start[d] = below(s, 3);
            step[d] = 1 + (d < type.rank - 1 && below(s, 3) == 0);
            wide.dim[d] =
                start[d] + (type.dim[d] - 1) * step[d] + 1 + below(s, 3);
        }
        return aq_slice_node(k->body, add_arg(k, wide), start, type.dim, step);
    }
    if (kind == 3) { /* another order of the dimensions */
        int64_t perm[AQ_MAX_RANK];
        AqType moved = type;
        for (int d = 0; d < type.rank; d++)
            perm[d] = type.rank - 1 - d;
        for (int d = 0; d < type.rank; d++)
            moved.dim[perm[d]] = type.dim[d];
        return aq_transpose_node(k->body, add_arg(k, moved), perm);
    }
    return add_arg(k, type);
}

/* What is stored, and sums and moments over all but the last dimension, or but
 * the first and the last. */
static void reductions(Kernel *k, AqId value, bool by_sample)
{
    AqType type = *type_of(k, value);
    AqGraph *b = k->body;
    int64_t axes[AQ_MAX_RANK];
    int first = by_sample, n = 0;
    for (int d = first; d < type.rank - 1; d++) {
        axes[n++] = d;
        k->k *= type.dim[d];
    }
    value =
        aq_binary(b, AQ_OP_add, value, spread(k, &type, 1u << (type.rank - 1)));
    give(k, "out", value);
    AqId moments = aq_reduce_node(b, AQ_OP_moments, value, axes, n);
    give(k, "m2", aq_result_node(b, moments, 1));
    AqId scaled = aq_binary(b, AQ_OP_mul, value, spread(k, &type, ~0u));
    give(k, "sum", aq_reduce_node(b, AQ_OP_reduce_sum, scaled, axes, n));
    give(k, "mean", aq_result_node(b, moments, 0));
    give(k, "silu",
         aq_reduce_node(b, AQ_OP_reduce_sum, silu(k, value), axes, n));
}

/* Of which kernel's results there may be reductions: one product's rows. */
static bool may_reduce(const Kernel *k, AqId value)
{
    const AqNode *node = aq_node(k->body, value);
    if (node->op == AQ_OP_matmul)
        return node->type.rank == 2;
    return aq_attr_int(node, AQ_KEY_GROUPS, 1) == 1;
}

static bool has_samples(const Kernel *k, AqId value)
{
    AqOp op = aq_node(k->body, value)->op;
    return op == AQ_OP_conv2d || op == AQ_OP_conv2d_input_gradient;
}

/* The results: 0 the product, 1 with bias and residual, 2 two of them in
 * another shape, 3 with reductions, 4 by sample. */
static void results(Kernel *k, AqId value, int kind)
{
    AqType type = *type_of(k, value);
    AqGraph *b = k->body;
    if (kind == 0) {
        give(k, "out", value);
        return;
    }
    if (kind > 2) {
        if (may_reduce(k, value))
            reductions(k, value, kind == 4 && has_samples(k, value));
        else
            give(k, "out", value);
        return;
    }
    AqId sum =
        aq_binary(b, AQ_OP_add, value, spread(k, &type, 1u << (type.rank - 1)));
    if (kind == 1) {
        sum = aq_binary(b, AQ_OP_add, sum, spread(k, &type, ~0u));
        give(k, "out", silu(k, sum));
        return;
    }
    sum = aq_binary(b, AQ_OP_add, sum,
                    spread(k, &type, 1u | 1u << (type.rank - 1)));
    int64_t flat = aq_elements(&type) / type.dim[type.rank - 1];
    give(k, "sum", sum);
    give(k, "flat",
         silu(k, aq_reshape_node(b, sum, 2,
                                 DIMS_(flat, type.dim[type.rank - 1]))));
}

/* ---- random cases ---- */

static int64_t some_size(Suite *s)
{
    static const int64_t sizes[] = {1,  2,  3,  5,  7,  8,  11, 12, 13, 16,
                                    17, 24, 31, 32, 33, 47, 64, 65, 97, 130};
    return sizes[below(s, AQ_COUNT(sizes))];
}

static void some_blocks(Suite *s, Kernel *k)
{
    if (below(s, 2))
        return;
    int64_t block[] = {1 + below(s, 60), 1 + below(s, 80), 8 + below(s, 80),
                       1 + below(s, 4), below(s, 3)};
    memcpy(k->block, block, sizeof block);
    k->blocks = aq_ints(AQ_KEY_BLOCKS, k->block, 5);
}

static void matmul_case(Suite *s, int operands, int epilogue)
{
    Kernel *k = begin_kernel(s);
    int batches = (int)below(s, 3), rank = batches + 2;
    int64_t ta = below(s, 2), tb = below(s, 2);
    int64_t m = some_size(s), n = some_size(s);
    k->k = below(s, 4) == 0 ? 300 + below(s, 400) : some_size(s);
    AqType a = {.element = AQ_F32, .rank = rank}, b = a;
    for (int d = 0; d < batches; d++)
        a.dim[d] = b.dim[d] = 1 + below(s, 3);
    a.dim[rank - 2] = ta ? k->k : m;
    a.dim[rank - 1] = ta ? m : k->k;
    b.dim[rank - 2] = tb ? n : k->k;
    b.dim[rank - 1] = tb ? k->k : n;
    AqId x = operand(s, k, a, operands);
    AqId y = operand(s, k, b, operands ? (int)below(s, 4) : 0);
    results(k, aq_matmul_node(k->body, x, y, ta, tb), epilogue);
    some_blocks(s, k);
    end_kernel(s, k);
}

typedef struct Conv {
    AqType x, w, y;
    AqAttr attrs[4];
    int64_t stride[2], pad[4], dilation[2];
} Conv;

static void some_conv(Suite *s, Conv *c)
{
    static const int64_t channels[] = {1, 3, 4, 5, 8, 13, 16, 24, 33, 40};
    int64_t groups = below(s, 4) == 0 ? 1 + below(s, 3) : 1;
    int64_t in = channels[below(s, AQ_COUNT(channels))];
    int64_t out = channels[below(s, AQ_COUNT(channels))];
    int64_t n = 1 + below(s, 3), size[2], kernel[2], y[2];
    for (int d = 0; d < 2; d++) {
        kernel[d] = 1 + below(s, 4);
        c->stride[d] = 1 + below(s, 3);
        c->dilation[d] = 1 + (below(s, 4) == 0);
        c->pad[2 * d] = below(s, kernel[d] + 1);
        c->pad[2 * d + 1] = below(s, kernel[d] + 1);
        int64_t reach = (kernel[d] - 1) * c->dilation[d] + 1;
        size[d] = reach + below(s, 14);
        y[d] = (size[d] + c->pad[2 * d] + c->pad[2 * d + 1] - reach) /
                   c->stride[d] +
               1;
    }
    c->x = F32(n, size[0], size[1], in * groups);
    c->w = F32(kernel[0], kernel[1], in, out * groups);
    c->y = F32(n, y[0], y[1], out * groups);
    c->attrs[0] = aq_ints(AQ_KEY_STRIDE, c->stride, 2);
    c->attrs[1] = aq_ints(AQ_KEY_PAD, c->pad, 4);
    c->attrs[2] = aq_ints(AQ_KEY_DILATION, c->dilation, 2);
    c->attrs[3] = aq_int(AQ_KEY_GROUPS, groups);
}

static Kernel *add_conv(Suite *s, const Conv *shape, int direction,
                        int operands, int epilogue)
{
    static const AqOp ops[] = {AQ_OP_conv2d, AQ_OP_conv2d_input_gradient,
                               AQ_OP_conv2d_weight_gradient};
    Kernel *k = begin_kernel(s);
    Conv c = *shape;
    int64_t taps = c.w.dim[0] * c.w.dim[1];
    int64_t terms[] = {taps * c.w.dim[2], taps * c.w.dim[3],
                       c.y.dim[0] * c.y.dim[1] * c.y.dim[2]};
    k->k = terms[direction];
    AqType a[] = {c.x, c.y, c.x}, b[] = {c.w, c.w, c.y},
           out[] = {c.y, c.x, c.w};
    AqId inputs[2];
    inputs[0] = operand(s, k, a[direction], operands);
    inputs[1] = operand(s, k, b[direction], operands ? (int)below(s, 4) : 0);
    results(k, build(k, ops[direction], &out[direction], inputs, 2, c.attrs, 4),
            epilogue);
    return k;
}

static void conv_case(Suite *s, int direction, int operands, int epilogue)
{
    Conv c;
    some_conv(s, &c);
    Kernel *k = add_conv(s, &c, direction, operands, epilogue);
    some_blocks(s, k);
    end_kernel(s, k);
}

/* Any size and padding, such that tiles are ragged on all sides. */
static void winograd_case(Suite *s, int direction, int operands, int epilogue)
{
    static const int64_t channels[] = {1, 3, 8, 15, 16, 24, 33, 48, 70, 130};
    int64_t n = 1 + below(s, 3), size[2], y[2];
    int64_t in = channels[below(s, AQ_COUNT(channels))];
    int64_t out = channels[below(s, AQ_COUNT(channels))];
    Conv c = {.stride = {1, 1}, .dilation = {1, 1}};
    for (int d = 0; d < 2; d++) {
        c.pad[2 * d] = below(s, 4);
        c.pad[2 * d + 1] = below(s, 4);
        size[d] = 3 + below(s, 17);
        y[d] = size[d] + c.pad[2 * d] + c.pad[2 * d + 1] - 2;
    }
    c.x = F32(n, size[0], size[1], in);
    c.w = F32(3, 3, in, out);
    c.y = F32(n, y[0], y[1], out);
    c.attrs[0] = aq_ints(AQ_KEY_STRIDE, c.stride, 2);
    c.attrs[1] = aq_ints(AQ_KEY_PAD, c.pad, 4);
    c.attrs[2] = aq_ints(AQ_KEY_DILATION, c.dilation, 2);
    c.attrs[3] = aq_int(AQ_KEY_GROUPS, 1);
    Kernel *k = add_conv(s, &c, direction, operands, epilogue);
    if (below(s, 3)) {
        int64_t block[] = {1 + below(s, 40), 1 + below(s, 4), 8 + below(s, 80),
                           below(s, 2), below(s, 2)};
        memcpy(k->block, block, sizeof block);
        k->blocks = aq_ints(AQ_KEY_BLOCKS, k->block, 5);
    }
    end_kernel(s, k);
}

/* ---- algorithms ---- */

static const struct {
    const char *algorithm;
    double factor;
} errors[] = {
    {"gemm", 6},
    {"blas", 6},
    {"winograd", 60}, /* factors up to 8 * 8, and differences */
};

static double error_of(const char *algorithm)
{
    for (int i = 0; i < AQ_COUNT(errors); i++)
        if (!strcmp(errors[i].algorithm, algorithm))
            return errors[i].factor;
    fail_msg("%s: say how large its error may be", algorithm);
    return 0;
}

static const char *algorithm_of(const AqGraph *g, AqId kernel)
{
    return aq_attr_text(aq_node(g, kernel), AQ_KEY_ALGORITHM, "");
}

/* The suite's graph with an algorithm asked for: ids stay. */
static AqGraph *chosen(const Suite *s, const AqTarget *target,
                       const char *algorithm)
{
    AqError error = {0};
    AqPassContext cx = {
        .target = target, .algorithm = algorithm, .error = &error};
    AqGraph *g = aq_graph_new();
    if (!g || aq_choose(s->bench.g, g, &cx))
        fail_msg("%s", error.text);
    for (int i = 0; i < s->count; i++)
        assert_int_equal(aq_node(g, s->ids[i])->op, AQ_OP_kernel);
    return g;
}

/* ---- running ---- */

/* `bytes` that end (or begin) at a page that may not be touched. */
typedef struct Guarded {
    char *map;
    size_t size;
    void *data;
} Guarded;

static Guarded guarded(size_t bytes, bool at_end)
{
    size_t pages = (bytes + PAGE - 1) / PAGE * PAGE;
    Guarded g = {.size = pages + 2 * PAGE};
    g.map = mmap(NULL, g.size, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    assert_ptr_not_equal(g.map, MAP_FAILED);
    if (pages)
        assert_int_equal(mprotect(g.map + PAGE, pages, PROT_READ | PROT_WRITE),
                         0);
    g.data = g.map + PAGE + (at_end ? pages - bytes : 0);
    return g;
}

typedef struct Run {
    Guarded buffers[MOST_INPUTS + AQ_MAX_RESULTS + 2], scratch;
    void *pointers[MOST_INPUTS + AQ_MAX_RESULTS + 2];
    int count;
} Run;

static const double *bound(const Kernel *k, AqId input)
{
    const char *name =
        aq_attr_text(aq_node(k->bench->g, input), AQ_KEY_NAME, "");
    for (int i = 0; i < k->bench->n_bindings; i++)
        if (!strcmp(k->bench->bindings[i].name, name))
            return k->bench->bindings[i].data;
    fail_msg("no binding %s", name);
    return NULL;
}

static void add_buffer(Run *r, size_t bytes, bool at_end)
{
    r->buffers[r->count] = guarded(bytes, at_end);
    r->pointers[r->count] = r->buffers[r->count].data;
    memset(r->pointers[r->count++], 0xff, bytes); /* NaN */
}

static Run begin_run(const Kernel *k, const AqKernelLayout *layout, bool at_end)
{
    Run r = {0};
    for (int i = 0; i < k->n_inputs; i++) {
        const AqType *type = &aq_node(k->bench->g, k->inputs[i])->type;
        const double *from = bound(k, k->inputs[i]);
        add_buffer(&r, (size_t)aq_bytes(type), at_end);
        for (int64_t j = 0; j < aq_elements(type); j++)
            ((float *)r.pointers[i])[j] = (float)from[j];
    }
    for (int i = 0; i < k->body->n_outputs; i++)
        add_buffer(&r, (size_t)aq_bytes(type_of(k, k->body->outputs[i].node)),
                   at_end);
    if (layout->workspace > 0)
        add_buffer(&r, (size_t)layout->workspace, at_end);
    if (layout->kept > 0)
        add_buffer(&r, (size_t)layout->kept, at_end);
    r.scratch = guarded((size_t)(layout->scratch + 63) / 64 * 64, true);
    memset(r.scratch.data, 0xff, (size_t)layout->scratch);
    return r;
}

static void end_run(Run *r)
{
    for (int i = 0; i < r->count; i++)
        munmap(r->buffers[i].map, r->buffers[i].size);
    munmap(r->scratch.map, r->scratch.size);
}

/* order 0: all tasks at once; 1: one by one from the last; 2: in ranges */
static void run_stages(const AqStage *stages, int n_stages, Run *r, int order)
{
    for (int i = 0; i < n_stages; i++) {
        const AqStage *s = &stages[i];
        if (order == 0)
            s->run(s->closure, r->pointers, 0, s->tasks, r->scratch.data);
        else if (order == 1)
            for (int64_t t = s->tasks - 1; t >= 0; t--)
                s->run(s->closure, r->pointers, t, t + 1, r->scratch.data);
        else
            for (int64_t t = 0; t < s->tasks; t += 3)
                s->run(s->closure, r->pointers, t, AQ_MIN(t + 3, s->tasks),
                       r->scratch.data);
    }
}

static void check_result(const Kernel *k, double factor, const AqValue *want,
                         const float *got)
{
    int64_t count = aq_elements(&want->type);
    double sum = 0;
    for (int64_t i = 0; i < count; i++)
        sum += want->data[i] * want->data[i];
    double rms = sqrt(sum / (double)count);
    double unit = factor * 0x1p-23 * sqrt((double)k->k + 1);
    for (int64_t i = 0; i < count; i++) {
        double bound_here = 2 * unit * (rms + fabs(want->data[i]));
        if (fabs(got[i] - want->data[i]) <= bound_here)
            continue;
        AqText text = {0};
        aq_graph_print(k->body, &text);
        fail_msg("element %lld is %.9g, not %.9g, in\n%s", (long long)i,
                 (double)got[i], want->data[i], text.data);
    }
}

static void expect(const Kernel *k, AqValue *values)
{
    AqId ids[AQ_MAX_RESULTS];
    AqError error = {0};
    int count = k->body->n_outputs;
    for (int i = 0; i < count; i++)
        ids[i] = aq_result_node(k->bench->g, k->id, i);
    if (aq_test_evaluate(k->bench->g, ids, count, k->bench->bindings,
                         k->bench->n_bindings, values, k->bench->arena, &error))
        fail_msg("%s", error.text);
}

/* `g`: the graph in which the kernel has its algorithm. */
static void check_kernel(const Kernel *k, const AqGraph *g,
                         const AqTarget *target, const AqStage *stages,
                         int n_stages, const AqValue *want)
{
    AqError error = {0};
    AqKernelLayout layout;
    double factor = error_of(algorithm_of(g, k->id));
    if (aq_kernel_layout(g, k->id, target, &layout, &error))
        fail_msg("%s", error.text);
    assert_int_equal(layout.n_stages, n_stages);
    for (int i = 0; i < n_stages; i++)
        assert_int_equal(layout.tasks[i], stages[i].tasks);
    Run first = {0};
    for (int order = 0; order < 3; order++) {
        Run r = begin_run(k, &layout, order != 1);
        run_stages(stages, n_stages, &r, order);
        for (int i = 0; i < k->body->n_outputs; i++)
            if (order == 0)
                check_result(k, factor, &want[i], r.pointers[k->n_inputs + i]);
            else
                assert_memory_equal(r.pointers[k->n_inputs + i],
                                    first.pointers[k->n_inputs + i],
                                    (size_t)aq_bytes(&want[i].type));
        if (order == 0)
            first = r;
        else
            end_run(&r);
    }
    end_run(&first);
}

/* The kernels that the algorithm suits. */
static void check_algorithm(const Suite *s, const AqTarget *target,
                            const char *algorithm)
{
    AqId ids[MOST_CASES];
    const Kernel *kernels[MOST_CASES];
    AqValue want[AQ_MAX_RESULTS];
    AqError error = {0};
    AqCompileOptions options = {.no_cache = true};
    AqGraph *g = chosen(s, target, algorithm);
    int count = 0;
    for (int i = 0; i < s->count; i++) {
        if (strcmp(algorithm_of(g, s->ids[i]), algorithm) != 0)
            continue;
        kernels[count] = &s->kernels[i];
        ids[count++] = s->ids[i];
    }
    AqCode *code = aq_compile(g, ids, count, target, &options, &error);
    if (!code)
        fail_msg("%s: %s", algorithm, error.text);
    for (int i = 0; i < count; i++) {
        int n_stages;
        const AqStage *stages = aq_code_stages(code, i, &n_stages);
        expect(kernels[i], want);
        check_kernel(kernels[i], g, target, stages, n_stages, want);
    }
    aq_code_free(code);
    aq_graph_free(g);
}

static void check_suite(Suite *s)
{
    for (int level = 3; level <= 4; level++) {
        AqTarget target;
        if (aq_target_host(level, &target, NULL))
            continue; /* this processor has less */
        for (int i = 0; aq_algorithm_name(i); i++)
            check_algorithm(s, &target, aq_algorithm_name(i));
    }
    for (int i = 0; i < s->count; i++)
        aq_graph_free(s->kernels[i].body);
    aq_bench_free(&s->bench);
    free(s);
}

static Suite *begin_suite(uint64_t seed)
{
    Suite *s = calloc(1, sizeof *s);
    assert_non_null(s);
    s->seed = seed;
    s->bench = aq_bench_new(seed + 1);
    return s;
}

/* ---- tests ---- */

static void plain_products(void **state)
{
    (void)state;
    Suite *s = begin_suite(11);
    for (int i = 0; i < 100; i++)
        matmul_case(s, 0, 0);
    check_suite(s);
}

static void plain_convolutions(void **state)
{
    (void)state;
    Suite *s = begin_suite(12);
    for (int i = 0; i < 180; i++)
        conv_case(s, i % 3, 0, 0);
    check_suite(s);
}

/* More taps than a pass keeps segments for, and patches that do not overlap. */
static void many_taps(void **state)
{
    (void)state;
    Suite *s = begin_suite(15);
    for (int i = 0; i < 6; i++) {
        Conv c = {.x = F32(2, 26, 27, 3 + i),
                  .w = F32(9, 9, 3 + i, 17),
                  .stride = {1 + 8 * (i / 3), 1 + 8 * (i / 3)},
                  .pad = {1, 2, 3, 4},
                  .dilation = {1, 1}};
        int64_t high = (26 + 1 + 2 - 9) / c.stride[0] + 1;
        int64_t wide = (27 + 3 + 4 - 9) / c.stride[1] + 1;
        c.y = F32(2, high, wide, 17);
        c.attrs[0] = aq_ints(AQ_KEY_STRIDE, c.stride, 2);
        c.attrs[1] = aq_ints(AQ_KEY_PAD, c.pad, 4);
        c.attrs[2] = aq_ints(AQ_KEY_DILATION, c.dilation, 2);
        c.attrs[3] = aq_int(AQ_KEY_GROUPS, 1);
        Kernel *k = add_conv(s, &c, i % 3, 0, 0);
        some_blocks(s, k);
        end_kernel(s, k);
    }
    check_suite(s);
}

static void moved_operands(void **state)
{
    (void)state;
    Suite *s = begin_suite(13);
    for (int i = 0; i < 40; i++) {
        matmul_case(s, 2 + i % 2, 0);
        conv_case(s, i % 3, 2 + i % 2, 0);
    }
    check_suite(s);
}

static void prologues_and_epilogues(void **state)
{
    (void)state;
    Suite *s = begin_suite(14);
    for (int i = 0; i < 18; i++) {
        matmul_case(s, i % 4, i / 2 % 3);
        conv_case(s, i % 3, i / 3 % 4, i / 2 % 3);
    }
    check_suite(s);
}

static void winograd_convolutions(void **state)
{
    (void)state;
    Suite *s = begin_suite(16);
    for (int i = 0; i < 60; i++)
        winograd_case(s, i % 3, i < 30 ? 0 : i / 3 % 4,
                      i < 30 ? 0 : i / 12 % 3);
    check_suite(s);
}

static void reduced_results(void **state)
{
    (void)state;
    Suite *s = begin_suite(17);
    for (int i = 0; i < 40; i++) {
        matmul_case(s, i % 5 ? 0 : 1, 3);
        conv_case(s, i % 3, i % 5 ? 0 : 1, 3 + i / 3 % 2);
        winograd_case(s, i % 3, i % 5 ? 0 : 1, 3 + i / 3 % 2);
    }
    check_suite(s);
}

/* Evaluated by the tasks that need them: rows, windows, strips. */
static void evaluated_operands(void **state)
{
    static const int kinds[] = {1, 4, 5};
    (void)state;
    Suite *s = begin_suite(15);
    for (int i = 0; i < 27; i++) {
        matmul_case(s, kinds[i % 3], 0);
        conv_case(s, i % 3, kinds[i / 3 % 3], 0);
        conv_case(s, 2, kinds[i % 3], 0);
    }
    check_suite(s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(plain_products),
        cmocka_unit_test(plain_convolutions),
        cmocka_unit_test(many_taps),
        cmocka_unit_test(moved_operands),
        cmocka_unit_test(prologues_and_epilogues),
        cmocka_unit_test(winograd_convolutions),
        cmocka_unit_test(evaluated_operands),
        cmocka_unit_test(reduced_results),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
