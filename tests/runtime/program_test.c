/* Whole programs: against the interpreter, the same bits however they are run,
 * nothing changed by what is not finite. */
#include "runtime/runtime.h"

#include <math.h>
#include <setjmp.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "frontend/dsl/dsl.h"
#include "tests/support/bench.h"
#include "tests/support/folder.h"
#include "tests/support/machine.h"
#include "tests/support/models.h"
#include "tests/support/programs.h"
#include "tests/support/random_graph.h"

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
static const double *data_of(const AqMachine *m, const AqNode *node,
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

static AqBinding *bind(const AqMachine *m, const AqGraph *g, int *n,
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
    AqMachine m = aq_machine_new(g, (AqPoolOptions){.threads = 2}, 0);
    aq_machine_fill(&m, g);
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
    aq_machine_free(&m);
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
    AqGraph *g = aq_test_points_step();
    check_program(g, 0);
    aq_graph_free(g);
    g = aq_test_nano_step();
    check_program(g, 0);
    aq_graph_free(g);
}

/* ---- the same bits ---- */

static void check_same_bits(AqGraph *g)
{
    AqText right = aq_machine_three_steps(g, (AqPoolOptions){.threads = 1}, 0);
    const AqPoolOptions others[] = {{1, true, 0},
                                    {2, false, 0},
                                    {3, true, 0},
                                    {4, false, 9},
                                    {8, false, 0}};
    for (int i = 0; i < AQ_COUNT(others); i++) {
        AqText left = aq_machine_three_steps(g, others[i], 0);
        aq_check_same_left(&right, &left);
        aq_text_free(&left);
    }
    aq_text_free(&right);
    aq_graph_free(g);
}

static void test_same_bits_for_any_threads_and_order(void **state)
{
    (void)state;
    check_same_bits(aq_test_nano_step());
    check_same_bits(aq_test_heads_step());
}

/* ---- what is not finite ---- */

static int skipped(const AqMachine *m)
{
    return *(const int32_t *)aq_compiled_output(m->program, "skipped");
}

static int counter(const AqMachine *m, const char *name)
{
    return *(int32_t *)aq_memory_find(m->memory, name, NULL);
}

static void poke(const AqMachine *m, const char *array, float value)
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
    AqGraph *g = aq_test_nano_step();
    AqMachine m = aq_machine_new(g, (AqPoolOptions){.threads = 2}, 0);
    aq_machine_fill(&m, g);
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
    aq_machine_free(&m);
    aq_graph_free(g);
}

/* ---- stopping ---- */

static void test_stopped_before_anything_is_written(void **state)
{
    (void)state;
    volatile int stop = 1;
    AqGraph *g = aq_test_points_step();
    AqMachine m = aq_machine_new(g, (AqPoolOptions){.threads = 2}, 0);
    aq_machine_fill(&m, g);
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
    aq_machine_free(&m);
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
    AqMachine m = aq_machine_new(g, (AqPoolOptions){.threads = 1}, 0);
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
    aq_machine_free(&m);
    aq_graph_free(g);
    aq_graph_free(h);
}

static void test_a_profile_names_every_step(void **state)
{
    (void)state;
    AqGraph *g = aq_test_points_step();
    AqMachine m = aq_machine_new(g, (AqPoolOptions){.threads = 2}, 0);
    aq_machine_fill(&m, g);
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
    aq_machine_free(&m);
    aq_graph_free(g);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_random_programs),
        cmocka_unit_test(test_training_steps),
        cmocka_unit_test(test_same_bits_for_any_threads_and_order),
        cmocka_unit_test(test_what_is_not_finite_is_skipped),
        cmocka_unit_test(test_stopped_before_anything_is_written),
        cmocka_unit_test(test_programs_share_arrays),
        cmocka_unit_test(test_a_profile_names_every_step),
    };
    return cmocka_run_group_tests_name("program", tests, aq_test_make_folder,
                                       aq_test_remove_folder);
}
