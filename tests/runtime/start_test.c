/* Initial values that are drawn while the program is made. */
#include "runtime/run.h"

#include <setjmp.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "tests/support/models.h"

typedef struct Fixture {
    AqGraph *graph;
    AqMemory *memory;
    AqPool *pool;
    AqStart start;
    AqError error;
} Fixture;

/* A model of layers so wide. */
static void begin(Fixture *f, const char *width, int threads)
{
    const AqSetting settings[] = {{"width", width}};
    *f = (Fixture){.graph = NULL};
    f->graph = aq_test_training(
        "mlp2d", settings, 1, (AqTask){.batch = 2, .channels = 2},
        (AqOptimizer){.rate = {.base = 1e-3}, .ema = 0.99});
    f->memory = aq_memory_new(&f->error);
    f->pool = aq_pool_new(&(AqPoolOptions){.threads = threads}, &f->error);
    assert_int_equal(f->error.status, AQ_OK);
    f->start = (AqStart){.params = aq_params(f->graph),
                         .seed = 0x700000008,
                         .memory = f->memory,
                         .pool = f->pool};
}

static AqCompiled *make(Fixture *f, const AqProgramSettings *settings,
                        bool drawing)
{
    aq_start_begin(&f->start, f->graph);
    assert_int_equal(f->start.drawing, drawing);
    AqCompiled *program =
        aq_compiled_new(f->graph, f->memory, f->pool, settings, &f->error);
    aq_start_end(&f->start, program != NULL);
    return program;
}

static void end(Fixture *f, AqCompiled *program)
{
    aq_compiled_free(program);
    aq_memory_free(f->memory);
    aq_pool_free(f->pool);
    aq_graph_free(f->graph);
}

static void check_values(const Fixture *f)
{
    const AqParamTable *params = f->start.params;
    size_t bytes = (size_t)params->floats * sizeof(float);
    float *expected = malloc(bytes);
    assert_non_null(expected);
    aq_params_start(params, (const uint32_t[]){8, 7}, 1, expected, NULL);
    static const char *const names[] = {"weights", "ema"};
    for (int i = 0; i < 2; i++) {
        const float *array = aq_memory_find(f->memory, names[i], NULL);
        assert_non_null(array);
        assert_memory_equal(array, expected, bytes);
        assert_false(aq_memory_is_new(f->memory, names[i]));
    }
    free(expected);
}

static void test_values(void **state)
{
    static const struct {
        const char *width;
        int threads;
        bool drawing; /* beside the compiler */
    } cases[] = {{"1200", 2, true}, {"1200", 1, false}, {"64", 2, false}};
    (void)state;
    for (int i = 0; i < AQ_COUNT(cases); i++) {
        Fixture f;
        begin(&f, cases[i].width, cases[i].threads);
        AqProgramSettings settings = {.compile = {.no_cache = true}};
        AqCompiled *program = make(&f, &settings, cases[i].drawing);
        if (!program)
            fail_msg("%s", f.error.text);
        check_values(&f);
        end(&f, program);
    }
}

/* What is drawn ahead counts as what the program needs. */
static void test_needs(void **state)
{
    (void)state;
    int64_t needed[2];
    for (int ahead = 0; ahead < 2; ahead++) {
        Fixture f;
        begin(&f, "1200", 2);
        AqProgramSettings settings = {.plan_only = true};
        if (ahead)
            aq_start_begin(&f.start, f.graph);
        assert_int_equal(f.start.drawing, ahead);
        AqCompiled *program =
            aq_compiled_new(f.graph, f.memory, f.pool, &settings, &f.error);
        assert_non_null(program);
        needed[ahead] = aq_compiled_needed(program);
        if (ahead)
            aq_start_end(&f.start, true);
        end(&f, program);
    }
    assert_int_equal(needed[0], needed[1]);
}

/* A program that cannot be made while its parameters are drawn. */
static void test_failure(void **state)
{
    (void)state;
    Fixture f;
    begin(&f, "1200", 2);
    assert_non_null(aq_memory_array(f.memory, "m", 4, &f.error));
    aq_start_begin(&f.start, f.graph);
    assert_true(f.start.drawing);
    AqProgramSettings settings = {.compile = {.no_cache = true}};
    assert_null(
        aq_compiled_new(f.graph, f.memory, f.pool, &settings, &f.error));
    assert_int_not_equal(f.error.status, AQ_OK);
    aq_start_end(&f.start, false);
    assert_false(f.start.drawing);
    end(&f, NULL);
}

/* Weights that are there stay, and nothing is drawn for a program that could
 * not be made. */
static void test_others(void **state)
{
    (void)state;
    for (int there = 0; there < 2; there++) {
        Fixture f;
        begin(&f, "64", 2);
        int64_t bytes = f.start.params->floats * (int64_t)sizeof(float);
        if (!there)
            aq_start_begin(&f.start, f.graph);
        float *weights = aq_memory_array(f.memory, "weights", bytes, &f.error);
        assert_non_null(weights);
        if (there)
            aq_start_begin(&f.start, f.graph);
        aq_start_end(&f.start, there);
        for (int64_t i = 0; i < f.start.params->floats; i++)
            assert_true(weights[i] == 0);
        end(&f, NULL);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_values),
        cmocka_unit_test(test_needs),
        cmocka_unit_test(test_failure),
        cmocka_unit_test(test_others),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
