/* What is hoisted out of a repeated program: values stay, on random graphs;
 * what is worth keeping is kept, and nothing else; what is left of a sampler's
 * step. */
#include "tests/support/bench.h"

#include <math.h>
#include <setjmp.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "frontend/dsl/dsl.h"
#include "tests/support/numbered_graph.h"

enum { GRAPHS = 240, STEPS = 25 };

static AqHoisted hoisted(const AqGraph *g, const AqRepeat *repeat)
{
    AqHoisted h;
    AqError error = {0};
    if (aq_hoist(g, repeat, &h, &error) || aq_graph_verify(h.prepare, &error) ||
        aq_graph_verify(h.step, &error))
        fail_msg("%s", error.text);
    return h;
}

/* ---- values ---- */

typedef struct Run {
    AqArena *arena;
    AqBinding *bindings;
    int n_bindings;
} Run;

static AqValue *evaluate(Run *r, const AqGraph *g)
{
    AqError error = {0};
    AqValue *values = AQ_NEW_ARRAY(r->arena, AqValue, g->n_outputs + 1);
    if (aq_interpret(g, r->bindings, r->n_bindings, values, r->arena, &error))
        fail_msg("%s", error.text);
    return values;
}

static Run new_run(const AqGraph *g, const AqHoisted *h, uint64_t seed)
{
    Run r = {.arena = aq_arena_new()};
    r.bindings = AQ_NEW_ARRAY(r.arena, AqBinding, g->count + h->n_kept + 1);
    r.n_bindings = aq_test_bind(g, seed, r.bindings, r.arena);
    return r;
}

static void set_number(const Run *r, int number)
{
    for (int i = 0; i < r->n_bindings; i++)
        if (!strcmp(r->bindings[i].name, "number"))
            *(double *)r->bindings[i].data = number;
}

/* What `prepare` gives is bound for the step. */
static void prepare(Run *r, const AqHoisted *h)
{
    int before = r->n_bindings;
    for (int i = 0; i < h->n_kept; i++) {
        const AqOutput *o = &h->prepare->outputs[i];
        int64_t count = aq_elements(&aq_node(h->prepare, o->node)->type);
        assert_true(o->update);
        r->bindings[r->n_bindings++] =
            (AqBinding){o->name, AQ_NEW_ARRAY(r->arena, double, count + 1)};
    }
    const AqValue *values = evaluate(r, h->prepare);
    for (int i = 0; i < h->n_kept; i++)
        r->bindings[before + i].data = values[i].data;
}

static void check_equal(const AqGraph *g, const AqValue *wanted,
                        const AqValue *is, uint64_t seed, int number)
{
    for (int i = 0; i < g->n_outputs; i++) {
        assert_true(aq_same_type(&wanted[i].type, &is[i].type));
        for (int64_t j = 0; j < aq_elements(&wanted[i].type); j++)
            if (is[i].data[j] != wanted[i].data[j] &&
                !(isnan(is[i].data[j]) && isnan(wanted[i].data[j])))
                fail_msg("seed %llu, number %d: %s[%lld] is %.17g, not %.17g",
                         (unsigned long long)seed, number, g->outputs[i].name,
                         (long long)j, is[i].data[j], wanted[i].data[j]);
    }
}

static void check_values(const AqGraph *g, const AqHoisted *h, uint64_t seed,
                         int numbers)
{
    Run r = new_run(g, h, seed);
    prepare(&r, h);
    for (int number = 0; number < numbers; number++) {
        set_number(&r, number);
        check_equal(g, evaluate(&r, g), evaluate(&r, h->step), seed, number);
    }
    aq_arena_free(r.arena);
}

/* Ops that compute something for all numbers at once. */
static void count_lifted(const AqHoisted *h, int *seen)
{
    bool *live = calloc((size_t)h->prepare->count + 1, sizeof *live);
    assert_non_null(live);
    aq_mark_live(h->prepare, live);
    for (AqId id = 0; id < h->prepare->count; id++)
        seen[aq_node(h->prepare, id)->op] += live[id];
    free(live);
}

/* In double with plain loops, so nothing at all may change. */
static void test_values_stay(void **state)
{
    (void)state;
    int seen[AQ_OP_COUNT] = {0}, kept = 0;
    for (uint64_t seed = 1; seed <= GRAPHS; seed++) {
        AqRepeat repeat;
        AqGraph *g = aq_test_numbered_graph(seed, STEPS, &repeat);
        AqHoisted h = hoisted(g, &repeat);
        check_values(g, &h, seed, AQ_TEST_NUMBERS);
        count_lifted(&h, seen);
        kept += h.n_kept;
        aq_hoisted_free(&h);
        aq_graph_free(g);
    }
    assert_true(kept > GRAPHS);
    for (int op = 0; op < AQ_OP_COUNT; op++)
        if (!seen[op] && op != AQ_OP_kernel && op != AQ_OP_arg &&
            op != AQ_OP_random && op != AQ_OP_param && op != AQ_OP_scatter_add)
            fail_msg("%s is never hoisted", aq_op_info[op].name);
}

static void test_random_draws_stay_in_the_step(void **state)
{
    (void)state;
    int draws = 0;
    for (uint64_t seed = 1; seed <= 60; seed++) {
        AqRepeat repeat;
        AqGraph *g = aq_test_numbered_graph(seed, STEPS, &repeat);
        AqHoisted h = hoisted(g, &repeat);
        for (AqId id = 0; id < h.prepare->count; id++)
            assert_true(aq_node(h.prepare, id)->op != AQ_OP_random);
        for (AqId id = 0; id < h.step->count; id++)
            draws += aq_node(h.step, id)->op == AQ_OP_random;
        aq_hoisted_free(&h);
        aq_graph_free(g);
    }
    assert_true(draws > 10);
}

/* ---- what is kept ---- */

static AqGraph *parsed(const char *text)
{
    AqError error = {0};
    AqGraph *g = aq_graph_parse(text, "hoist_test.c", &error);
    if (!g)
        fail_msg("%s", error.text);
    return g;
}

static void expect_kept(const char *lines, int numbers, int kept,
                        const char *of_step)
{
    char text[4096];
    const char *const fixed[] = {"w", "b"};
    snprintf(text, sizeof text,
             "graph {\n"
             "  %%0 = input {name=\"number\"} : i32[]\n"
             "  %%1 = input {name=\"w\"} : f32[64,64]\n"
             "  %%2 = input {name=\"b\"} : f32[64,1]\n"
             "  %%3 = input {name=\"x\"} : f32[64,64]\n"
             "%s}\n",
             lines);
    AqGraph *g = parsed(text);
    AqRepeat repeat = {
        .fixed = fixed, .n_fixed = 2, .number = "number", .numbers = numbers};
    AqHoisted h = hoisted(g, &repeat);
    AqText step = {0};
    aq_graph_print(h.step, &step);
    if (h.n_kept != kept || !strstr(step.data, of_step))
        fail_msg("%d kept, the step is\n%s", h.n_kept, step.data);
    aq_text_free(&step);
    check_values(g, &h, 1, AQ_MIN(numbers, 3));
    aq_hoisted_free(&h);
    aq_graph_free(g);
}

static void test_what_is_worth_keeping(void **state)
{
    (void)state;
    const char *moved = "  %4 = transpose %1 {perm=[1,0]} : f32[64,64]\n"
                        "  %5 = add %4, %3 : f32[64,64]\n"
                        "  output y = %5\n";
    const char *cheap = "  %4 = mul %1, %1 : f32[64,64]\n"
                        "  %5 = add %4, %3 : f32[64,64]\n"
                        "  output y = %5\n";
    const char *dear = "  %4 = exp %1 : f32[64,64]\n"
                       "  %5 = add %4, %3 : f32[64,64]\n"
                       "  output y = %5\n";
    expect_kept(moved, 10, 0, "transpose %");
    expect_kept(cheap, 10, 0, "mul %");
    expect_kept(dear, 10, 1, "= state {name=\"hoisted.0\"} : f32[64,64]");
}

/* b (64, 1) and its repetition are the same 64 numbers. */
static void test_repetitions_are_not_kept(void **state)
{
    (void)state;
    const char *repeated = "  %4 = broadcast %2 : f32[64,64]\n"
                           "  %5 = exp %4 : f32[64,64]\n"
                           "  %6 = add %5, %3 : f32[64,64]\n"
                           "  output y = %6\n";
    const char *outer = "  %4 = exp %2 : f32[64,1]\n"
                        "  %5 = reshape %4 : f32[1,64]\n"
                        "  %6 = broadcast %5 : f32[64,64]\n"
                        "  %7 = broadcast %4 : f32[64,64]\n"
                        "  %8 = mul %6, %7 : f32[64,64]\n"
                        "  %9 = add %8, %3 : f32[64,64]\n"
                        "  output y = %9\n";
    expect_kept(repeated, 10, 1, "= state {name=\"hoisted.0\"} : f32[64,1]");
    expect_kept(outer, 10, 1, "= state {name=\"hoisted.0\"} : f32[64,1]");
}

/* Two halves, each the same everywhere, are not the same everywhere. */
static void test_halves_differ(void **state)
{
    (void)state;
    expect_kept("  %4 = cast %0 : f32[]\n"
                "  %5 = exp %4 : f32[]\n"
                "  %6 = reshape %4 : f32[1,1]\n"
                "  %7 = reshape %5 : f32[1,1]\n"
                "  %8 = broadcast %6 : f32[32,64]\n"
                "  %9 = broadcast %7 : f32[32,64]\n"
                "  %10 = concat %8, %9 {axis=0} : f32[64,64]\n"
                "  %11 = sin %10 : f32[64,64]\n"
                "  %12 = add %11, %3 : f32[64,64]\n"
                "  output y = %12\n",
                3, 1, "= state {name=\"hoisted.0\"} : f32[3,64,1]");
}

/* A row is 16 KB, and so is what it is made of; 1000 are 16 MB. */
static void test_large_tables_are_not_kept(void **state)
{
    (void)state;
    const char *lines = "  %4 = cast %0 : f32[]\n"
                        "  %5 = reshape %4 : f32[1,1]\n"
                        "  %6 = broadcast %5 : f32[64,64]\n"
                        "  %7 = mul %6, %1 : f32[64,64]\n"
                        "  %8 = exp %7 : f32[64,64]\n"
                        "  %9 = add %8, %3 : f32[64,64]\n"
                        "  output y = %9\n";
    expect_kept(lines, 10, 1, "= state {name=\"hoisted.0\"} : f32[10,64,64]");
    expect_kept(lines, 1000, 0, "exp %");
}

/* ---- samplers ---- */

static int count(const AqGraph *g, AqOp op)
{
    bool *live = calloc((size_t)g->count + 1, sizeof *live);
    int sum = 0;
    assert_non_null(live);
    aq_mark_live(g, live);
    for (AqId id = 0; id < g->count; id++)
        sum += live[id] && aq_node(g, id)->op == op;
    free(live);
    return sum;
}

static AqGraph *sampler(const char *model, AqTask task, AqSampler how)
{
    AqError error = {0};
    task.model = aq_builtin_find(model, &error);
    task.batch = 2;
    task.height = task.width = 32;
    task.channels = 3;
    AqGraph *g = aq_sampler_graph(&task, &how, &error);
    if (!g)
        fail_msg("%s", error.text);
    return g;
}

/* Products of the graph that are no longer in its step; nothing of the time
 * embedding is. */
static int products_gone(const AqGraph *g, int steps, bool labels)
{
    const char *const fixed[] = {"weights", "timesteps", "label"};
    AqRepeat repeat = {.fixed = fixed,
                       .n_fixed = labels ? 3 : 2,
                       .number = "number",
                       .numbers = steps};
    AqHoisted h = hoisted(g, &repeat);
    assert_int_equal(count(h.step, AQ_OP_conv2d), count(g, AQ_OP_conv2d));
    assert_int_equal(count(h.step, AQ_OP_attention), count(g, AQ_OP_attention));
    assert_int_equal(count(h.step, AQ_OP_sin), 0);
    assert_int_equal(count(h.step, AQ_OP_cos), 0);
    assert_int_equal(count(h.prepare, AQ_OP_conv2d), 0);
    int gone = count(g, AQ_OP_matmul) - count(h.step, AQ_OP_matmul);
    assert_int_equal(count(h.prepare, AQ_OP_matmul), gone);
    for (AqId id = 0; id < h.step->count; id++)
        assert_null(strstr(aq_node(h.step, id)->scope, "time_embedding"));
    aq_hoisted_free(&h);
    return gone;
}

/* Two products of the embedding, one in each of 22 residual blocks. */
static void test_a_step_of_the_unet(void **state)
{
    (void)state;
    const AqSetting settings[] = {{"channels", "32"}};
    AqTask task = {.settings = settings, .n_settings = 1};
    AqSampler ddim = {.steps = 50},
              ddpm = {.kind = AQ_SAMPLER_DDPM, .steps = 1000};
    AqGraph *g = sampler("ddpm_unet", task, ddim);
    assert_int_equal(products_gone(g, 50, false), 24);
    assert_int_equal(count(g, AQ_OP_matmul), 24 + 4 * 6);
    aq_graph_free(g);
    g = sampler("ddpm_unet", task, ddpm);
    assert_int_equal(products_gone(g, 1000, false), 24);
    aq_graph_free(g);
}

/* Three products in each of twelve blocks, one at the end; with labels and
 * guidance as well. */
static void test_a_step_of_the_transformer(void **state)
{
    (void)state;
    AqTask plain = {0}, labels = {.classes = 10, .label_dropout = 0.1};
    AqGraph *g = sampler("dit", plain, (AqSampler){.steps = 50});
    assert_int_equal(products_gone(g, 50, false), 37);
    aq_graph_free(g);
    g = sampler("dit", labels, (AqSampler){.steps = 50, .guidance = 3});
    assert_int_equal(products_gone(g, 50, true), 37);
    aq_graph_free(g);
}

/* ---- mistakes ---- */

static void expect_mistake(AqRepeat repeat, const char *sentence)
{
    AqError error = {0};
    AqHoisted h;
    AqGraph *g = parsed("graph {\n"
                        "  %0 = input {name=\"n\"} : i32[]\n"
                        "  %1 = state {name=\"s\"} : f32[4]\n"
                        "  %2 = exp %1 : f32[4]\n"
                        "  output n = %0\n"
                        "  update s = %2\n"
                        "}\n");
    assert_int_equal(aq_hoist(g, &repeat, &h, &error), AQ_BAD_INPUT);
    assert_string_equal(error.text, sentence);
    assert_null(h.step);
    aq_graph_free(g);
}

static void test_mistakes(void **state)
{
    (void)state;
    const char *const unknown[] = {"prompt"}, *const updated[] = {"s"};
    expect_mistake((AqRepeat){.fixed = unknown, .n_fixed = 1},
                   "there is no input or state \"prompt\" to be fixed");
    expect_mistake((AqRepeat){.fixed = updated, .n_fixed = 1},
                   "\"s\" cannot be fixed: every run updates it");
    expect_mistake((AqRepeat){.number = "m", .numbers = 3},
                   "there is no input \"m\" to be the run's number");
    expect_mistake((AqRepeat){.number = "s", .numbers = 3},
                   "the run's number \"s\" must be one integer that every run "
                   "is given");
    expect_mistake((AqRepeat){.number = "n"},
                   "0 runs: there must be one at least");
}

static void test_names_of_hoisted_values_are_taken(void **state)
{
    (void)state;
    AqError error = {0};
    AqHoisted h;
    AqRepeat repeat = {0};
    AqGraph *g = parsed("graph {\n"
                        "  %0 = input {name=\"hoisted.1\"} : f32[]\n"
                        "  output y = %0\n"
                        "}\n");
    assert_int_equal(aq_hoist(g, &repeat, &h, &error), AQ_BAD_INPUT);
    assert_string_equal(error.text,
                        "the name \"hoisted.1\" is taken: names that begin "
                        "with \"hoisted.\" are those of hoisted values");
    aq_graph_free(g);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_values_stay),
        cmocka_unit_test(test_random_draws_stay_in_the_step),
        cmocka_unit_test(test_what_is_worth_keeping),
        cmocka_unit_test(test_repetitions_are_not_kept),
        cmocka_unit_test(test_halves_differ),
        cmocka_unit_test(test_large_tables_are_not_kept),
        cmocka_unit_test(test_a_step_of_the_unet),
        cmocka_unit_test(test_a_step_of_the_transformer),
        cmocka_unit_test(test_mistakes),
        cmocka_unit_test(test_names_of_hoisted_values_are_taken),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
