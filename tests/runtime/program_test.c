/* Whole programs: against the interpreter, the same bits however they are run,
 * nothing read that is dead, nothing changed by what is not finite. */
#include "runtime/runtime.h"

#include <math.h>
#include <setjmp.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "frontend/dsl/dsl.h"
#include "tests/support/bench.h"
#include "tests/support/folder.h"
#include "tests/support/models.h"
#include "tests/support/programs.h"
#include "tests/support/random_graph.h"

/* ---- a program and what it works on ---- */

typedef struct Machine {
    AqPool *pool;
    AqMemory *memory;
    AqCompiled *program;
} Machine;

static Machine new_machine(const AqGraph *g, AqPoolOptions options)
{
    AqError error = {0};
    AqProgramSettings settings = aq_test_settings();
    Machine m = {.pool = aq_pool_new(&options, &error)};
    m.memory = aq_memory_new(&error);
    m.program = aq_compiled_new(g, m.memory, m.pool, &settings, &error);
    if (!m.program)
        fail_msg("%s", error.text);
    return m;
}

static void free_machine(Machine *m)
{
    aq_compiled_free(m->program);
    aq_memory_free(m->memory);
    aq_pool_free(m->pool);
}

static AqElement element_of(const AqGraph *g, const char *name)
{
    for (AqId id = 0; id < g->count; id++) {
        const AqNode *node = aq_node(g, id);
        if (aq_op_info[node->op].facts & AQ_SOURCE &&
            !strcmp(aq_attr_text(node, AQ_KEY_NAME, ""), name))
            return node->type.element;
    }
    return AQ_F32;
}

/* The same values for the same names, whatever the order of the bases. */
static float value_of(const char *name, int64_t i)
{
    uint64_t seed = aq_hash64(name, strlen(name)) + (uint64_t)i * 7919;
    double normal = aq_test_normal(&seed);
    if (!strcmp(name, "v"))
        return (float)(normal * normal);
    return (float)(strcmp(name, "weights") ? normal : 0.1 * normal);
}

static void fill_array(void *data, const AqBase *base, AqElement element)
{
    uint64_t seed = aq_hash64(base->name, strlen(base->name));
    for (int64_t i = 0; i < base->bytes / 4; i++)
        if (element == AQ_I32)
            ((int32_t *)data)[i] = (int32_t)aq_test_below(&seed, 10);
        else
            ((float *)data)[i] = value_of(base->name, i);
}

static void fill(const Machine *m, const AqGraph *g)
{
    const AqPlan *plan = aq_compiled_plan(m->program);
    for (int b = 1; b < plan->n_bases; b++)
        fill_array(aq_memory_find(m->memory, plan->bases[b].name, NULL),
                   &plan->bases[b], element_of(g, plan->bases[b].name));
}

/* All that a run leaves: outputs and states, one after the other. */
static AqText left_by(const Machine *m)
{
    AqText text = {0};
    const AqPlan *plan = aq_compiled_plan(m->program);
    for (int i = 0; i < plan->n_outputs; i++)
        aq_text_bytes(&text,
                      aq_compiled_output(m->program, plan->outputs[i].name),
                      (size_t)aq_bytes(&plan->outputs[i].type));
    for (int b = 1; b < plan->n_bases; b++)
        if (plan->bases[b].written)
            aq_text_bytes(&text,
                          aq_memory_find(m->memory, plan->bases[b].name, NULL),
                          (size_t)plan->bases[b].bytes);
    assert_false(text.failed);
    return text;
}

static void check_same(const AqText *a, const AqText *b)
{
    assert_int_equal(a->length, b->length);
    assert_memory_equal(a->data, b->data, a->length);
}

static AqGraph *nano_unet(void)
{
    const AqSetting nano[] = {{"channels", "16"}, {"mults", "1,2"},
                              {"blocks", "1"},    {"groups", "4"},
                              {"attention", "4"}, {"zero_init", "false"}};
    return aq_test_training(
        "ddpm_unet", nano, AQ_COUNT(nano),
        (AqTask){.batch = 3, .height = 8, .width = 8, .channels = 3},
        (AqOptimizer){.rate = {.base = 1e-3}, .ema = 0.99, .clip = 1});
}

static AqGraph *points(void)
{
    const AqSetting small[] = {{"width", "24"}, {"blocks", "2"}};
    return aq_test_training("mlp2d", small, AQ_COUNT(small),
                            (AqTask){.batch = 7, .channels = 2},
                            (AqOptimizer){.rate = {.base = 1e-3}, .ema = 0.9});
}

/* ---- against the interpreter ---- */

static void check_value(const char *name, const AqValue *wanted,
                        const void *data, uint64_t seed)
{
    int64_t count = aq_elements(&wanted->type);
    double scale = 1;
    for (int64_t i = 0; i < count; i++)
        if (isfinite(wanted->data[i]))
            scale = fmax(scale, fabs(wanted->data[i]));
    for (int64_t i = 0; i < count; i++) {
        double is = wanted->type.element == AQ_I32
                        ? (double)((const int32_t *)data)[i]
                        : (double)((const float *)data)[i];
        double difference = fabs(is - wanted->data[i]);
        if (!(difference <= 1e-3 * scale) &&
            !(isnan(is) && isnan(wanted->data[i])) && is != wanted->data[i])
            fail_msg("seed %llu: %s[%lld] is %g, not %g",
                     (unsigned long long)seed, name, (long long)i, is,
                     wanted->data[i]);
    }
}

/* What is in the memory for a source; zeros where the program found that it
 * does not matter. */
static const double *data_of(const Machine *m, const AqNode *node,
                             AqArena *arena)
{
    bool param = node->op == AQ_OP_param;
    const char *array = param ? "weights" : aq_attr_text(node, AQ_KEY_NAME, "");
    int64_t offset = param ? aq_attr_int(node, AQ_KEY_OFFSET, 0) : 0;
    int64_t count = aq_elements(&node->type), bytes = 0;
    const void *from = aq_memory_find(m->memory, array, &bytes);
    double *data = AQ_NEW_ARRAY(arena, double, count + 1);
    for (int64_t i = 0; from && i < count && i + offset < bytes / 4; i++)
        data[i] = node->type.element == AQ_I32
                      ? (double)((const int32_t *)from)[i]
                      : (double)((const float *)from)[i + offset];
    return data;
}

static AqBinding *bind(const Machine *m, const AqGraph *g, int *n,
                       AqArena *arena)
{
    AqBinding *bindings = AQ_NEW_ARRAY(arena, AqBinding, g->count + 1);
    *n = 0;
    for (AqId id = 0; id < g->count; id++) {
        const AqNode *node = aq_node(g, id);
        if (aq_op_info[node->op].facts & AQ_SOURCE)
            bindings[(*n)++] = (AqBinding){aq_attr_text(node, AQ_KEY_NAME, ""),
                                           data_of(m, node, arena)};
    }
    return bindings;
}

static void check_program(const AqGraph *g, uint64_t seed)
{
    AqError error = {0};
    AqArena *arena = aq_arena_new();
    Machine m = new_machine(g, (AqPoolOptions){.threads = 2});
    fill(&m, g);
    int n;
    AqBinding *bindings = bind(&m, g, &n, arena);
    AqValue *values = AQ_NEW_ARRAY(arena, AqValue, g->n_outputs + 1);
    if (aq_interpret(g, bindings, n, values, arena, &error))
        fail_msg("%s", error.text);
    assert_true(aq_compiled_run(m.program, NULL));
    for (int i = 0; i < g->n_outputs; i++) {
        const AqOutput *o = &g->outputs[i];
        const void *data = o->update ? aq_memory_find(m.memory, o->name, NULL)
                                     : aq_compiled_output(m.program, o->name);
        assert_non_null(data);
        check_value(o->name, &values[i], data, seed);
    }
    free_machine(&m);
    aq_arena_free(arena);
}

static void test_random_programs(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 15; seed++) {
        AqGraph *g = aq_test_random_graph(seed, 25);
        check_program(g, seed);
        aq_graph_free(g);
    }
}

static void test_training_steps(void **state)
{
    (void)state;
    AqGraph *g = points();
    check_program(g, 0);
    aq_graph_free(g);
    g = nano_unet();
    check_program(g, 0);
    aq_graph_free(g);
}

/* ---- the same bits ---- */

/* What three steps leave. */
static AqText three_steps(const AqGraph *g, AqPoolOptions options)
{
    Machine m = new_machine(g, options);
    fill(&m, g);
    for (int i = 0; i < 3; i++)
        assert_true(aq_compiled_run(m.program, NULL));
    AqText left = left_by(&m);
    free_machine(&m);
    return left;
}

static void test_same_bits_for_any_threads_and_order(void **state)
{
    (void)state;
    AqGraph *g = nano_unet();
    AqText right = three_steps(g, (AqPoolOptions){.threads = 1});
    const AqPoolOptions others[] = {{1, true, 0},
                                    {2, false, 0},
                                    {3, true, 0},
                                    {4, false, 9},
                                    {8, false, 0}};
    for (int i = 0; i < AQ_COUNT(others); i++) {
        AqText left = three_steps(g, others[i]);
        check_same(&right, &left);
        aq_text_free(&left);
    }
    aq_text_free(&right);
    aq_graph_free(g);
}

/* ---- what is dead is not read ---- */

typedef struct Live {
    int64_t offset, bytes;
    int first, last; /* steps */
} Live;

/* `id` is wanted at `step`: so are the results that lie behind it. */
static void want(const AqGraph *g, AqId id, int step, int *last)
{
    const AqNode *node = aq_node(g, id);
    if (node->op == AQ_OP_result)
        last[id] = AQ_MAX(last[id], step);
    else if (node->op == AQ_OP_reshape || node->op == AQ_OP_concat)
        for (int i = 0; i < node->n_inputs; i++)
            want(g, node->inputs[i], step, last);
}

/* What a step copies, until the last step that reads something around it. */
static Live life_of_copy(const AqPlan *plan, int step)
{
    AqBuffer to = plan->buffers[plan->steps[step].first + 1];
    Live life = {to.offset, plan->steps[step].copy_bytes, step, plan->n_steps};
    for (int s = plan->n_steps; s-- > step && life.last == plan->n_steps;) {
        const AqStep *reader = &plan->steps[s];
        const AqNode *node =
            reader->kernel < 0 ? NULL : aq_node(plan->graph, reader->kernel);
        for (int i = 0; node && i < node->n_inputs; i++) {
            AqBuffer at = plan->buffers[reader->first + i];
            int64_t bytes =
                aq_bytes(&aq_node(plan->graph, node->inputs[i])->type);
            if (at.base == 0 && at.offset <= to.offset &&
                to.offset < at.offset + bytes)
                life.last = s;
        }
    }
    return life;
}

/* The results in the arena and the steps from writing to the last reading; a
 * step that copies reads what it copies. */
static Live *list_lives(const AqPlan *plan, int *count)
{
    const AqGraph *g = plan->graph;
    int *last = calloc((size_t)g->count, sizeof *last);
    Live *lives = calloc((size_t)(g->count + plan->n_steps), sizeof *lives);
    for (int s = 0; s < plan->n_steps; s++) {
        AqId kernel = plan->steps[s].kernel;
        for (int i = 0; kernel >= 0 && i < aq_node(g, kernel)->n_inputs; i++)
            want(g, aq_node(g, kernel)->inputs[i], s, last);
    }
    for (int i = 0; i < g->n_outputs; i++)
        want(g, g->outputs[i].node, plan->n_steps, last);
    *count = 0;
    for (int s = 0; s < plan->n_steps; s++) {
        const AqStep *step = &plan->steps[s];
        if (step->kernel < 0 && plan->buffers[step->first + 1].base == 0)
            lives[(*count)++] = life_of_copy(plan, s);
        for (AqId id = 0; step->kernel >= 0 && id < g->count; id++) {
            const AqNode *node = aq_node(g, id);
            if (node->op != AQ_OP_result || node->inputs[0] != step->kernel)
                continue;
            int index = aq_node(g, step->kernel)->n_inputs +
                        (int)aq_attr_int(node, AQ_KEY_INDEX, 0);
            AqBuffer at = plan->buffers[step->first + index];
            if (at.base == 0)
                lives[(*count)++] =
                    (Live){at.offset, aq_bytes(&node->type), s, last[id]};
        }
    }
    free(last);
    return lives;
}

/* NaN everywhere but in what a step before this one wrote and this or a later
 * one reads. */
static void poison(char *arena, int64_t bytes, const Live *lives, int count,
                   int step, char *spare)
{
    memset(spare, 0xff, (size_t)bytes);
    for (int i = 0; i < count; i++)
        if (lives[i].first < step && lives[i].last >= step)
            memcpy(spare + lives[i].offset, arena + lives[i].offset,
                   (size_t)lives[i].bytes);
    memcpy(arena, spare, (size_t)bytes);
}

typedef struct Poisoned {
    AqGraph *g;
    AqPlan *plan;
    AqCode *code;
    char **bases;
    int64_t scratch;
} Poisoned;

/* What aq_compiled_new does, in view. */
static Poisoned build_poisoned(const AqGraph *graph)
{
    AqError error = {0};
    AqTarget target;
    AqCompileOptions options = aq_test_settings().compile;
    AqPassContext cx = {.target = &target, .error = &error};
    aq_target_host(0, &target, &error);
    Poisoned p = {.g = aq_optimize(graph, NULL, &cx)};
    AqNeeds *needs = calloc((size_t)p.g->count, sizeof *needs);
    AqId *kernels = calloc((size_t)p.g->count, sizeof *kernels);
    int count = 0;
    for (AqId id = 0; id < p.g->count; id++) {
        AqKernelLayout layout;
        if (aq_node(p.g, id)->op != AQ_OP_kernel)
            continue;
        aq_kernel_layout(p.g, id, &target, &layout, &error);
        needs[id].workspace = layout.workspace;
        needs[id].kept = layout.kept;
        p.scratch = AQ_MAX(p.scratch, layout.scratch);
        kernels[count++] = id;
    }
    p.plan = aq_plan(p.g, needs, &error);
    p.code = aq_compile(p.g, kernels, count, &target, &options, &error);
    if (error.status)
        fail_msg("%s", error.text);
    p.bases = calloc((size_t)p.plan->n_bases, sizeof *p.bases);
    for (int b = 0; b < p.plan->n_bases; b++)
        p.bases[b] = aq_pages(p.plan->bases[b].bytes, &error);
    free(needs);
    free(kernels);
    return p;
}

static void run_poisoned_step(const Poisoned *p, int index, int *kernel,
                              void *scratch)
{
    const AqStep *step = &p->plan->steps[index];
    void *buffers[64];
    assert_true(step->count <= AQ_COUNT(buffers));
    for (int i = 0; i < step->count; i++) {
        AqBuffer at = p->plan->buffers[step->first + i];
        buffers[i] = p->bases[at.base] + at.offset;
    }
    if (step->kernel == AQ_NO_NODE) {
        memmove(buffers[1], buffers[0], (size_t)step->copy_bytes);
        return;
    }
    int n;
    const AqStage *stages = aq_code_stages(p->code, (*kernel)++, &n);
    for (int k = 0; k < n; k++) {
        memset(scratch, 0xff, (size_t)p->scratch);
        stages[k].run(stages[k].closure, buffers, 0, stages[k].tasks, scratch);
    }
}

static AqText run_poisoned(const AqGraph *graph)
{
    AqError error = {0};
    Poisoned p = build_poisoned(graph);
    const AqPlan *plan = p.plan;
    int n_lives, kernel = 0;
    Live *lives = list_lives(plan, &n_lives);
    char *spare = malloc((size_t)plan->arena_bytes);
    void *scratch = aq_pages(p.scratch, &error);
    for (int b = 1; b < plan->n_bases; b++)
        fill_array(p.bases[b], &plan->bases[b],
                   element_of(graph, plan->bases[b].name));
    for (int s = 0; s < plan->n_steps; s++) {
        poison(p.bases[0], plan->arena_bytes, lives, n_lives, s, spare);
        run_poisoned_step(&p, s, &kernel, scratch);
    }
    AqText text = {0};
    for (int i = 0; i < plan->n_outputs; i++) {
        AqBuffer at = plan->outputs[i].buffer;
        aq_text_bytes(&text, p.bases[at.base] + at.offset,
                      (size_t)aq_bytes(&plan->outputs[i].type));
    }
    for (int b = 1; b < plan->n_bases; b++)
        if (plan->bases[b].written)
            aq_text_bytes(&text, p.bases[b], (size_t)plan->bases[b].bytes);
    for (int b = 0; b < plan->n_bases; b++)
        aq_pages_free(p.bases[b], plan->bases[b].bytes);
    aq_pages_free(scratch, p.scratch);
    free(spare);
    free(lives);
    free(p.bases);
    aq_code_free(p.code);
    aq_plan_free(p.plan);
    aq_graph_free(p.g);
    return text;
}

static void check_poisoned(const AqGraph *g)
{
    Machine m = new_machine(g, (AqPoolOptions){.threads = 2});
    fill(&m, g);
    assert_true(aq_compiled_run(m.program, NULL));
    AqText clean = left_by(&m), poisoned = run_poisoned(g);
    check_same(&clean, &poisoned);
    aq_text_free(&clean);
    aq_text_free(&poisoned);
    free_machine(&m);
}

static void test_nothing_dead_is_read(void **state)
{
    (void)state;
    AqGraph *g = points();
    check_poisoned(g);
    aq_graph_free(g);
    g = nano_unet();
    check_poisoned(g);
    aq_graph_free(g);
}

/* ---- what is not finite ---- */

static int skipped(const Machine *m)
{
    return *(const int32_t *)aq_compiled_output(m->program, "skipped");
}

static int counter(const Machine *m, const char *name)
{
    return *(int32_t *)aq_memory_find(m->memory, name, NULL);
}

static void poke(const Machine *m, const char *array, float value)
{
    int64_t bytes;
    float *data = aq_memory_find(m->memory, array, &bytes);
    data[bytes / 8] = value;
}

/* Into the input of one step: that step changes nothing but `step`. */
static void test_what_is_not_finite_is_skipped(void **state)
{
    (void)state;
    const float bad[] = {NAN, INFINITY, -INFINITY, 1e30f};
    const char *const states[] = {"weights", "m", "v", "ema"};
    AqGraph *g = nano_unet();
    Machine m = new_machine(g, (AqPoolOptions){.threads = 2});
    fill(&m, g);
    assert_true(aq_compiled_run(m.program, NULL));
    assert_int_equal(skipped(&m), 0);
    for (int i = 0; i < AQ_COUNT(bad); i++) {
        int step = counter(&m, "step"), updates = counter(&m, "updates");
        int64_t bytes[4];
        void *kept[4];
        for (int k = 0; k < 4; k++) {
            const void *data = aq_memory_find(m.memory, states[k], &bytes[k]);
            kept[k] = malloc((size_t)bytes[k]);
            memcpy(kept[k], data, (size_t)bytes[k]);
        }
        float *x = aq_memory_find(m.memory, "x", NULL), was = x[5];
        x[5] = bad[i];
        assert_true(aq_compiled_run(m.program, NULL));
        x[5] = was;
        assert_int_equal(skipped(&m), 1);
        assert_int_equal(counter(&m, "step"), step + 1);
        assert_int_equal(counter(&m, "updates"), updates);
        for (int k = 0; k < 4; k++) {
            assert_memory_equal(aq_memory_find(m.memory, states[k], NULL),
                                kept[k], (size_t)bytes[k]);
            free(kept[k]);
        }
        assert_true(aq_compiled_run(m.program, NULL)); /* and on it goes */
        assert_int_equal(skipped(&m), 0);
        assert_int_equal(counter(&m, "updates"), updates + 1);
    }
    poke(&m, "weights", NAN); /* a weight: every step from now on */
    for (int i = 0; i < 3; i++) {
        assert_true(aq_compiled_run(m.program, NULL));
        assert_int_equal(skipped(&m), 1);
    }
    free_machine(&m);
    aq_graph_free(g);
}

/* ---- stopping ---- */

static void test_stopped_before_anything_is_written(void **state)
{
    (void)state;
    volatile int stop = 1;
    AqGraph *g = points();
    Machine m = new_machine(g, (AqPoolOptions){.threads = 2});
    fill(&m, g);
    int64_t bytes;
    float *weights = aq_memory_find(m.memory, "weights", &bytes);
    float *kept = malloc((size_t)bytes);
    memcpy(kept, weights, (size_t)bytes);
    int step = counter(&m, "step");
    assert_false(aq_compiled_run(m.program, &stop));
    assert_memory_equal(kept, weights, (size_t)bytes);
    assert_int_equal(counter(&m, "step"), step);
    stop = 0;
    assert_true(aq_compiled_run(m.program, &stop));
    assert_int_equal(counter(&m, "step"), step + 1);
    assert_true(memcmp(kept, weights, (size_t)bytes) != 0);
    free(kept);
    free_machine(&m);
    aq_graph_free(g);
}

/* ---- arrays that programs share, sizes, times ---- */

static AqGraph *adding(const char *output, float value)
{
    AqGraph *g = aq_graph_new();
    AqTensor s = aq_state(g, "s", AQ_SHAPE(100));
    AqTensor x = aq_input(g, "x", AQ_SHAPE(100));
    AqTensor y = aq_add(s, aq_mul(x, aq_full_like(x, value)));
    aq_output(y, output);
    aq_update("s", y);
    assert_null(aq_graph_error(g));
    return g;
}

static void test_programs_share_arrays(void **state)
{
    (void)state;
    AqError error = {0};
    AqGraph *g = adding("y", 1), *h = adding("z", 10);
    AqProgramSettings settings = aq_test_settings();
    Machine m = new_machine(g, (AqPoolOptions){.threads = 1});
    AqCompiled *other = aq_compiled_new(h, m.memory, m.pool, &settings, &error);
    assert_non_null(other);
    float *x = aq_memory_find(m.memory, "x", NULL);
    float *s = aq_memory_find(m.memory, "s", NULL);
    x[3] = 2;
    assert_true(aq_compiled_run(m.program, NULL));
    assert_true(aq_compiled_run(other, NULL));
    assert_true(((const float *)aq_compiled_output(other, "z"))[3] == 22);
    assert_true(aq_compiled_run(m.program, NULL));
    assert_true(s[3] == 24);
    assert_null(aq_compiled_output(other, "y"));
    aq_compiled_free(other);
    free_machine(&m);
    aq_graph_free(g);
    aq_graph_free(h);
}

static void test_a_profile_names_every_step(void **state)
{
    (void)state;
    AqGraph *g = points();
    Machine m = new_machine(g, (AqPoolOptions){.threads = 2});
    fill(&m, g);
    int n = aq_compiled_plan(m.program)->n_steps;
    double *seconds = calloc((size_t)n, sizeof *seconds), sum = 0;
    aq_compiled_profile(m.program, seconds);
    for (int i = 0; i < n; i++) {
        assert_true(seconds[i] >= 0);
        sum += seconds[i];
    }
    assert_true(sum > 0 && sum < 10);
    assert_true(aq_compiled_code(m.program)->kernels > 0);
    free(seconds);
    free_machine(&m);
    aq_graph_free(g);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_random_programs),
        cmocka_unit_test(test_training_steps),
        cmocka_unit_test(test_same_bits_for_any_threads_and_order),
        cmocka_unit_test(test_nothing_dead_is_read),
        cmocka_unit_test(test_what_is_not_finite_is_skipped),
        cmocka_unit_test(test_stopped_before_anything_is_written),
        cmocka_unit_test(test_programs_share_arrays),
        cmocka_unit_test(test_a_profile_names_every_step),
    };
    return cmocka_run_group_tests_name("program", tests, aq_test_make_folder,
                                       aq_test_remove_folder);
}
