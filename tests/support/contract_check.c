/* Error bound: |out - exact| <= F eps sqrt(K) (rms + |exact|), where rms is
 * that of the exact result and F the algorithm's row in `errors`; what stands
 * around the product may double it. */
#include "codegen/codegen.h"
#include "passes/passes.h"
#include "tests/support/contract_suite.h"

#include <float.h>
#include <math.h>
#include <setjmp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include <cmocka.h>

enum { PAGE = 4096 };

/* ---- algorithms ---- */

static const struct {
    const char *algorithm;
    double factor;
} errors[] = {
    {"gemm", 6},
    {"gemm_bf16x6", 6},
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
static AqGraph *chosen(const AqSuite *s, const AqTarget *target,
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
    Guarded buffers[AQ_SUITE_INPUTS + AQ_MAX_RESULTS + 2], scratch;
    void *pointers[AQ_SUITE_INPUTS + AQ_MAX_RESULTS + 2];
    int count;
} Run;

static const double *bound(const AqSuiteKernel *k, AqId input)
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

static Run begin_run(const AqSuiteKernel *k, const AqKernelLayout *layout,
                     bool at_end)
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
        add_buffer(
            &r,
            (size_t)aq_bytes(&aq_node(k->body, k->body->outputs[i].node)->type),
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

static void check_result(const AqSuiteKernel *k, double factor,
                         const AqValue *want, const float *got)
{
    int64_t count = aq_elements(&want->type);
    double sum = 0;
    for (int64_t i = 0; i < count; i++)
        sum += want->data[i] * want->data[i];
    double rms = sqrt(sum / (double)count);
    double unit = factor * 0x1p-23 * sqrt((double)k->k + 1);
    for (int64_t i = 0; i < count; i++) {
        double bound_here = 2 * unit * (rms + fabs(want->data[i])) +
                            FLT_EPSILON * FLT_EPSILON; /* m2 of equal rows */
        if (fabs(got[i] - want->data[i]) <= bound_here)
            continue;
        AqText text = {0};
        aq_graph_print(k->body, &text);
        fail_msg("element %lld is %.9g, not %.9g, in\n%s", (long long)i,
                 (double)got[i], want->data[i], text.data);
    }
}

static void expect(const AqSuiteKernel *k, AqValue *values)
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
static void check_kernel(const AqSuiteKernel *k, const AqGraph *g,
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
static void check_algorithm(const AqSuite *s, const AqTarget *target,
                            const char *algorithm)
{
    AqId ids[AQ_SUITE_CASES];
    const AqSuiteKernel *kernels[AQ_SUITE_CASES];
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

void aq_suite_check(AqSuite *s)
{
    for (int level = AQ_FIRST_LEVEL; level <= AQ_LAST_LEVEL; level++) {
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
