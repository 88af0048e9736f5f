/* Every buffer lies in pages of its own between two that nobody may touch: once
 * right at the end, once at the beginning, once a few floats in; the rest of
 * its pages is filled with a pattern that must stay. */
#include "tests/support/run_kernel.h"

#include "tests/support/bench.h"

#include <math.h>
#include <setjmp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <xmmintrin.h>

#include <cmocka.h>

enum { PAGE = 4096, CANARY = 0x5A, PLACEMENTS = 3, GROUPINGS = 4 };

typedef struct Guarded {
    char *map; /* first guard page */
    size_t bytes, inner;
    char *data;
} Guarded;

static Guarded guarded_new(size_t bytes, int placement)
{
    Guarded b = {.bytes = bytes, .inner = (bytes / PAGE + 1) * PAGE};
    size_t all = b.inner + 2 * PAGE;
    b.map = mmap(NULL, all, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    assert_true(b.map != MAP_FAILED);
    assert_int_equal(mprotect(b.map + PAGE, b.inner, PROT_READ | PROT_WRITE),
                     0);
    memset(b.map + PAGE, CANARY, b.inner);
    size_t slack = b.inner - bytes;
    size_t skip = placement == 0   ? slack
                  : placement == 1 ? 0
                                   : AQ_MIN(slack, (size_t)20) & ~(size_t)3;
    b.data = b.map + PAGE + skip;
    return b;
}

static bool guarded_is_whole(const Guarded *b)
{
    for (const char *p = b->map + PAGE; p < b->data; p++)
        if (*p != CANARY)
            return false;
    for (const char *p = b->data + b->bytes; p < b->map + PAGE + b->inner; p++)
        if (*p != CANARY)
            return false;
    return true;
}

static void guarded_free(Guarded *b)
{
    munmap(b->map, b->inner + 2 * PAGE);
}

/* ---- the graph and its exact values ---- */

static int count_args(const AqGraph *body)
{
    int count = 0;
    for (AqId id = 0; id < body->count; id++)
        if (aq_node(body, id)->op == AQ_OP_arg)
            count = AQ_MAX(count, 1 + (int)aq_attr_int(aq_node(body, id),
                                                       AQ_KEY_INDEX, 0));
    return count;
}

static const AqType *arg_type(const AqGraph *body, int index)
{
    for (AqId id = 0; id < body->count; id++)
        if (aq_node(body, id)->op == AQ_OP_arg &&
            aq_attr_int(aq_node(body, id), AQ_KEY_INDEX, 0) == index)
            return &aq_node(body, id)->type;
    fail_msg("the body has no arg %d", index);
    return NULL;
}

AqGraph *aq_test_kernel_graph(const AqKernelCase *test, AqId *kernel)
{
    AqGraph *g = aq_graph_new();
    assert_non_null(g);
    AqId inputs[64];
    int n = count_args(test->body);
    assert_true(n <= AQ_COUNT(inputs));
    g->file = "run_kernel.c";
    for (int i = 0; i < n; i++) {
        char name[32];
        snprintf(name, sizeof name, "a%d", i);
        AqAttr attr = aq_text(AQ_KEY_NAME, name);
        inputs[i] = aq_build(g, AQ_OP_input, arg_type(test->body, i), NULL, 0,
                             &attr, 1);
    }
    AqAttr attrs[16] = {aq_text(AQ_KEY_KIND, test->kind), aq_body(test->body)};
    assert_true(test->n_attrs + 2 <= AQ_COUNT(attrs));
    for (int i = 0; i < test->n_attrs; i++)
        attrs[2 + i] = test->attrs[i];
    *kernel =
        aq_build(g, AQ_OP_kernel, NULL, inputs, n, attrs, 2 + test->n_attrs);
    for (int i = 0; i < test->body->n_outputs; i++) {
        char name[32];
        snprintf(name, sizeof name, "r%d", i);
        aq_graph_output(g, name, aq_result_node(g, *kernel, i), false);
    }
    if (g->error.status)
        fail_msg("%s: %s", test->name, g->error.text);
    return g;
}

typedef struct Run {
    const AqKernelCase *test;
    AqArena *arena;
    AqGraph *g;
    AqId kernel;
    int n_inputs, n_results;
    const double **in; /* rounded to float */
    AqValue *exact;
    AqKernelLayout layout;
    const AqStage *stages;
    int n_stages;
    char **first; /* the results of the first run, bit by bit */
} Run;

static void make_data(Run *run)
{
    const AqKernelCase *test = run->test;
    uint64_t seed = test->seed + 1;
    AqBinding bindings[64];
    run->in = AQ_NEW_ARRAY(run->arena, const double *, run->n_inputs + 1);
    for (int i = 0; i < run->n_inputs; i++) {
        const AqType *type = arg_type(test->body, i);
        int64_t count = aq_elements(type);
        double *data = AQ_NEW_ARRAY(run->arena, double, count + 1);
        double scale = test->scale != 0 ? test->scale : 1;
        for (int64_t k = 0; k < count; k++)
            data[k] = test->data ? (double)(float)test->data[i][k]
                      : type->element == AQ_I32
                          ? (double)aq_test_below(&seed,
                                                  test->below ? test->below : 4)
                          : (double)(float)(scale * aq_test_normal(&seed));
        run->in[i] = data;
        bindings[i] = (AqBinding){aq_arena_printf(run->arena, "a%d", i), data};
    }
    AqError error = {0};
    run->exact = AQ_NEW_ARRAY(run->arena, AqValue, run->n_results);
    if (aq_interpret(run->g, bindings, run->n_inputs, run->exact, run->arena,
                     &error))
        fail_msg("%s: %s", test->name, error.text);
}

/* ---- one run ---- */

static void fill(const Guarded *buffer, const AqType *type, const double *from)
{
    for (int64_t i = 0; i < aq_elements(type); i++) {
        float real = (float)from[i];
        int32_t whole = type->element == AQ_I32 ? (int32_t)from[i] : 0;
        const void *value =
            type->element == AQ_I32 ? (void *)&whole : (void *)&real;
        memcpy(buffer->data + 4 * i, value, 4);
    }
}

static void run_tasks(const AqStage *stage, void *const *buffers, void *scratch,
                      int grouping)
{
    int64_t n = stage->tasks;
    int64_t piece = grouping == 0 ? AQ_MAX(n, 1) : grouping == 3 ? 3 : 1;
    int64_t pieces = (n + piece - 1) / piece;
    for (int64_t i = 0; i < pieces; i++) {
        int64_t which = grouping >= 2 ? pieces - 1 - i : i;
        stage->run(stage->closure, buffers, which * piece,
                   AQ_MIN(n, (which + 1) * piece), scratch);
    }
}

static double read_back(const AqType *type, const char *data, int64_t i)
{
    float real;
    int32_t whole;
    memcpy(&real, data + 4 * i, 4);
    memcpy(&whole, data + 4 * i, 4);
    return type->element == AQ_I32 ? whole : (double)real;
}

/* The largest error over (1 + |exact|); infinite where NaN is not matched. */
static double check_result(const Run *run, int r, const char *data)
{
    const AqValue *exact = &run->exact[r];
    double worst = 0;
    for (int64_t i = 0; i < aq_elements(&exact->type); i++) {
        double ours = read_back(&exact->type, data, i), b = exact->data[i];
        double off = isnan(ours) && isnan(b) ? 0
                     : ours == b || (float)b == ours
                         ? 0
                         : fabs(ours - b) / (1 + fabs(b));
        if (!(off <= run->test->tolerance))
            fail_msg("%s: result %d at %lld is %.9g, should be %.9g",
                     run->test->name, r, (long long)i, ours, b);
        worst = fmax(worst, off);
    }
    return worst;
}

static double check_all(Run *run, const Guarded *buffers, int n_buffers,
                        int placement, int grouping)
{
    double worst = 0;
    const char *name = run->test->name;
    for (int i = 0; i < n_buffers; i++)
        if (!guarded_is_whole(&buffers[i]))
            fail_msg("%s: wrote outside buffer %d (placement %d)", name, i,
                     placement);
    for (int r = 0; r < run->n_results; r++) {
        const Guarded *result = &buffers[run->n_inputs + r];
        const char *data =
            r == 0 && run->test->in_place ? buffers[0].data : result->data;
        if (!run->first[r]) {
            worst = fmax(worst, check_result(run, r, data));
            run->first[r] = aq_arena_alloc(run->arena, result->bytes + 1);
            memcpy(run->first[r], data, result->bytes);
        }
        if (memcmp(run->first[r], data, result->bytes) != 0)
            fail_msg("%s: result %d changes with placement %d, grouping %d",
                     name, r, placement, grouping);
    }
    return worst;
}

static double run_once(Run *run, int placement, int grouping)
{
    Guarded buffers[96];
    void *table[96];
    int n = run->n_inputs + run->n_results;
    for (int i = 0; i < run->n_inputs; i++) {
        const AqType *type = arg_type(run->test->body, i);
        buffers[i] = guarded_new((size_t)aq_bytes(type), placement);
        fill(&buffers[i], type, run->in[i]);
    }
    for (int r = 0; r < run->n_results; r++)
        buffers[run->n_inputs + r] =
            guarded_new((size_t)aq_bytes(&run->exact[r].type), placement);
    if (run->layout.workspace > 0)
        buffers[n++] = guarded_new((size_t)run->layout.workspace, placement);
    if (run->layout.kept > 0)
        buffers[n++] = guarded_new((size_t)run->layout.kept, placement);
    for (int i = 0; i < n; i++)
        table[i] = buffers[i].data;
    if (run->test->in_place)
        table[run->n_inputs] = table[0];
    /* what the layout says, in whole cache lines, and nothing behind it */
    int64_t room = aq_round_up(run->layout.scratch, 64);
    Guarded scratch = guarded_new((size_t)room, placement ? 1 : 0);
    unsigned mode = _mm_getcsr();
    _mm_setcsr(mode | 0x8040); /* flush denormals, as our threads do */
    for (int s = 0; s < run->n_stages; s++)
        run_tasks(&run->stages[s], table, scratch.data, grouping);
    _mm_setcsr(mode);
    if (!guarded_is_whole(&scratch))
        fail_msg("%s: wrote outside its scratch (placement %d)",
                 run->test->name, placement);
    guarded_free(&scratch);
    double worst = check_all(run, buffers, n, placement, grouping);
    for (int i = 0; i < n; i++)
        guarded_free(&buffers[i]);
    return worst;
}

double aq_test_run_kernel_at(const AqKernelCase *test, int level)
{
    AqError error = {0};
    AqTarget target;
    Run run = {.test = test, .arena = aq_arena_new()};
    assert_int_equal(aq_target_host(level, &target, &error), AQ_OK);
    run.g = aq_test_kernel_graph(test, &run.kernel);
    run.n_inputs = aq_node(run.g, run.kernel)->n_inputs;
    run.n_results = test->body->n_outputs;
    run.first = AQ_NEW_ARRAY(run.arena, char *, run.n_results);
    make_data(&run);
    AqCompileOptions options = {
        .threads = 1, .no_cache = true, .dump_dir = getenv("AQ_DUMP")};
    AqCode *code = aq_compile(run.g, &run.kernel, 1, &target, &options, &error);
    if (!code ||
        aq_kernel_layout(run.g, run.kernel, &target, &run.layout, &error))
        fail_msg("%s: %s", test->name, error.text);
    run.stages = aq_code_stages(code, 0, &run.n_stages);
    assert_int_equal(run.n_stages, run.layout.n_stages);
    double worst = 0;
    for (int placement = 0; placement < PLACEMENTS; placement++)
        for (int grouping = 0; grouping < GROUPINGS; grouping++)
            if (placement == 0 || grouping == placement)
                worst = fmax(worst, run_once(&run, placement, grouping));
    aq_code_free(code);
    aq_graph_free(run.g);
    aq_arena_free(run.arena);
    return worst;
}

void aq_test_run_kernel(const AqKernelCase *test)
{
    AqTarget target;
    for (int level = AQ_FIRST_LEVEL; level <= AQ_LAST_LEVEL; level++)
        if (aq_target_host(level, &target, NULL) == AQ_OK)
            aq_test_run_kernel_at(test, level);
}
