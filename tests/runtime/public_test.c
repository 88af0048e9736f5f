/* Programs as somebody who links the library sees them. */
#include <aquatint.h>

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { COUNT = 64, UNITS = 16 };

static AqTensor network(AqScope s, AqTensor x)
{
    AqTensor h = aq_silu(aq_linear(aq_sub(s, "in"), x, UNITS));
    return aq_linear(aq_sub(s, "out"), h, 1);
}

static AqGraph *training(void)
{
    AqGraph *g = aq_graph_new();
    AqTensor x = aq_input(g, "x", AQ_SHAPE(COUNT, 2));
    AqTensor y = aq_input(g, "y", AQ_SHAPE(COUNT, 1));
    AqTensor loss = aq_mse(network(aq_root(g), x), y);
    aq_minimize(loss, (AqOptimizer){.rate.base = 1e-2});
    return g;
}

static AqGraph *prediction(int count)
{
    AqGraph *g = aq_graph_new();
    AqTensor x = aq_input(g, "x", AQ_SHAPE(count, 2));
    aq_output(network(aq_root(g), x), "y");
    return g;
}

static void assert_error(const AqProgram *p, const char *piece)
{
    const char *error = aq_program_error(p);
    if (!error || !strstr(error, piece))
        fail_msg("expected \"%s\", got \"%s\"", piece, error ? error : "none");
}

static void test_a_graph_s_mistake_is_the_program_s(void **state)
{
    (void)state;
    AqGraph *g = aq_graph_new();
    AqTensor x = aq_input(g, "x", AQ_SHAPE(2, 3));
    aq_output(aq_matmul(x, x), "y");
    AqProgram *p = aq_program_new(g);
    assert_error(p, "public_test.c:");
    assert_string_equal(aq_program_error(p), aq_graph_error(g));
    assert_false(aq_program_run(p));
    assert_null(aq_program_array(p, "x", NULL));
    assert_true(isnan(aq_program_number(p, "y")));
    AqProgram *q = aq_program_new(g, .with = p);
    assert_error(q, "public_test.c:");
    aq_program_free(q);
    aq_program_free(p);
    aq_graph_free(g);
}

static void test_what_is_missing(void **state)
{
    (void)state;
    AqProgram *p = aq_program_new(NULL);
    assert_error(p, "memory ended");
    aq_program_free(p);
    assert_non_null(aq_program_error(NULL));
    assert_false(aq_program_run(NULL));
    assert_null(aq_program_array(NULL, "x", NULL));
    assert_true(isnan(aq_program_number(NULL, "x")));
    aq_program_free(NULL);
}

static AqProgram *program(AqGraph *graph, AqProgram *with, int threads)
{
    AqProgram *p =
        aq_program_new(graph, .with = with, .threads = threads, .seed = 7);
    aq_graph_free(graph);
    if (aq_program_error(p))
        fail_msg("%s", aq_program_error(p));
    return p;
}

static void fill(AqProgram *p)
{
    float *x = aq_program_array(p, "x", NULL);
    float *y = aq_program_array(p, "y", NULL);
    for (int i = 0; i < COUNT; i++) {
        x[2 * i] = (float)sin(i);
        x[2 * i + 1] = (float)cos(2.3 * i);
        y[i] = 3 * x[2 * i] * x[2 * i + 1];
    }
}

static void train(AqProgram *p, int steps)
{
    for (int i = 0; i < steps; i++)
        assert_true(aq_program_run(p));
}

static void test_the_loss_falls(void **state)
{
    (void)state;
    AqProgram *p = program(training(), NULL, 0);
    fill(p);
    train(p, 1);
    double first = aq_program_number(p, "loss");
    train(p, 199);
    assert_true(first > 1 && aq_program_number(p, "loss") < first / 10);
    assert_true(aq_program_number(p, "skipped") == 0);
    int32_t *step = aq_program_array(p, "step", NULL);
    assert_int_equal(*step, 200);
    aq_program_free(p);
}

static void test_threads_do_not_change_a_bit(void **state)
{
    (void)state;
    AqProgram *one = program(training(), NULL, 1);
    AqProgram *three = program(training(), NULL, 3);
    fill(one);
    fill(three);
    train(one, 20);
    train(three, 20);
    int64_t floats = 0;
    const float *a = aq_program_array(one, "weights", &floats);
    const float *b = aq_program_array(three, "weights", NULL);
    assert_true(floats >= 3 * UNITS + UNITS + 1);
    assert_memory_equal(a, b, (size_t)floats * sizeof *a);
    aq_program_free(one);
    aq_program_free(three);
}

/* The prediction's loss, by hand, is what the next step of training tells. */
static void test_programs_share_parameters(void **state)
{
    (void)state;
    AqProgram *p = program(training(), NULL, 0);
    AqProgram *q = program(prediction(COUNT), p, 0);
    fill(p);
    const float *y = aq_program_array(p, "y", NULL);
    memcpy(aq_program_array(q, "x", NULL), aq_program_array(p, "x", NULL),
           2 * COUNT * sizeof(float));
    const float *guess = aq_program_array(q, "y", NULL);
    for (int round = 0; round < 3; round++) {
        assert_true(aq_program_run(q));
        double loss = 0;
        for (int i = 0; i < COUNT; i++)
            loss += pow(guess[i] - y[i], 2) / COUNT;
        train(p, 1);
        double told = aq_program_number(p, "loss");
        assert_true(fabs(told - loss) <= 1e-5 * loss);
        train(p, 10);
    }
    aq_program_free(q);
    aq_program_free(p);
}

/* Inputs of one name may have other shapes: they are each program's own. */
static void test_inputs_are_not_shared(void **state)
{
    (void)state;
    AqProgram *p = program(training(), NULL, 0);
    AqProgram *q = program(prediction(3 * COUNT), p, 0);
    int64_t elements = 0;
    assert_ptr_not_equal(aq_program_array(p, "x", NULL),
                         aq_program_array(q, "x", &elements));
    assert_true(elements == 3 * COUNT * 2);
    assert_true(aq_program_run(q));
    aq_program_free(q);
    aq_program_free(p);
}

static void test_other_parameters_are_refused(void **state)
{
    (void)state;
    AqProgram *p = program(training(), NULL, 0);
    AqGraph *g = aq_graph_new();
    AqTensor x = aq_input(g, "x", AQ_SHAPE(COUNT, 2));
    aq_output(aq_linear(aq_sub(aq_root(g), "in"), x, UNITS + 1), "y");
    AqProgram *q = aq_program_new(g, .with = p);
    assert_error(q, "same layers in the same order");
    aq_program_free(q);
    aq_program_free(p);
    aq_graph_free(g);
}

static void test_a_wrong_name_is_told(void **state)
{
    (void)state;
    AqProgram *p = program(training(), NULL, 0);
    assert_true(isnan(aq_program_number(p, "los")));
    assert_error(p, "the program has no input, state or output \"los\"; did "
                    "you mean \"loss\"?");
    assert_false(aq_program_run(p));
    aq_program_free(p);
}

/* A graph without parameters, and integers in and out. */
static void test_a_graph_without_parameters(void **state)
{
    (void)state;
    AqGraph *g = aq_graph_new();
    AqTensor x = aq_input(g, "x", AQ_SHAPE(5), .integer = true);
    aq_output(aq_add(x, x), "twice");
    AqProgram *p = program(g, NULL, 1);
    int32_t *in = aq_program_array(p, "x", NULL);
    for (int i = 0; i < 5; i++)
        in[i] = i + 10;
    assert_true(aq_program_run(p));
    int64_t elements = 0;
    const int32_t *out = aq_program_array(p, "twice", &elements);
    assert_int_equal(elements, 5);
    for (int i = 0; i < 5; i++)
        assert_int_equal(out[i], 2 * (i + 10));
    assert_true(aq_program_number(p, "twice") == 20);
    aq_program_free(p);
}

/* Parameters that are drawn beside the compiler, on two threads, and after it,
 * on one. */
static void test_large_parameters(void **state)
{
    enum { LARGE = 3000 };
    (void)state;
    AqProgram *p[2];
    const float *weights[2];
    int64_t floats = 0;
    for (int i = 0; i < 2; i++) {
        AqGraph *g = aq_graph_new();
        AqTensor x = aq_input(g, "x", AQ_SHAPE(1, LARGE));
        aq_output(aq_linear(aq_sub(aq_root(g), "out"), x, LARGE), "y");
        p[i] = program(g, NULL, i + 1);
        weights[i] = aq_program_array(p[i], "weights", &floats);
    }
    assert_true(floats >= LARGE * (LARGE + 1));
    assert_memory_equal(weights[0], weights[1], (size_t)floats * sizeof(float));
    double sum = 0;
    for (int i = 0; i < LARGE * LARGE; i++)
        sum += weights[1][i] * weights[1][i];
    assert_true(fabs(sum / LARGE - 1.0 / 3) < 1e-3); /* u in +-1/sqrt(in) */
    aq_program_free(p[0]);
    aq_program_free(p[1]);
}

/* ---- what is fixed from run to run ---- */

enum { TOKENS = 5, WIDTH = 8, NUMBERS = 6 };

/* x attends to a prompt, and is scaled by a function of the run's number. */
static AqGraph *attending(void)
{
    AqGraph *g = aq_graph_new();
    AqScope s = aq_root(g);
    AqTensor x = aq_input(g, "x", AQ_SHAPE(1, TOKENS, WIDTH));
    AqTensor prompt = aq_input(g, "prompt", AQ_SHAPE(1, 2 * TOKENS, WIDTH));
    AqTensor number = aq_input(g, "number", AQ_SCALAR, .integer = true);
    AqTensor t = aq_reshape(aq_to_real(number), AQ_SHAPE(1));
    AqTensor e = aq_timestep_embedding(t, WIDTH);
    e = aq_silu(aq_linear(aq_sub(s, "time"), e, WIDTH));
    AqTensor y = aq_attention_layer(aq_sub(s, "attn"), x, 2, .context = prompt);
    aq_output(aq_mul(y, aq_reshape(e, AQ_SHAPE(1, 1, WIDTH))), "y");
    return g;
}

static void give_prompt(AqProgram *p, int which)
{
    int64_t floats = 0;
    float *prompt = aq_program_array(p, "prompt", &floats);
    for (int64_t i = 0; i < floats; i++)
        prompt[i] = sinf((float)(i * (which + 1)));
}

/* One run of each, on the same data. */
static void expect_same(AqProgram *p, AqProgram *q, int number)
{
    AqProgram *both[] = {p, q};
    float *y[2];
    int64_t floats = 0;
    for (int i = 0; i < 2; i++) {
        float *x = aq_program_array(both[i], "x", &floats);
        for (int64_t k = 0; k < floats; k++)
            x[k] = cosf((float)(k + number));
        *(int32_t *)aq_program_array(both[i], "number", NULL) = number;
        assert_true(aq_program_run(both[i]));
        y[i] = aq_program_array(both[i], "y", &floats);
    }
    double size = 0;
    for (int64_t k = 0; k < floats; k++) {
        assert_true(fabsf(y[0][k] - y[1][k]) < 1e-6F);
        size += fabs((double)y[1][k]);
    }
    assert_true(size > 1e-3);
}

static void test_what_is_fixed_is_computed_once(void **state)
{
    (void)state;
    AqGraph *g = attending();
    AqProgram *p =
        aq_program_new(g, .fixed = {"weights", "prompt"}, .number = "number",
                       .numbers = NUMBERS, .seed = 3);
    AqProgram *q = aq_program_new(g, .seed = 3);
    for (int prompt = 0; prompt < 3; prompt++) {
        give_prompt(p, prompt);
        give_prompt(q, prompt);
        aq_program_changed(p);
        for (int number = 0; number < NUMBERS; number++)
            expect_same(p, q, number);
    }
    const char *const wrong[] = {"x", "prompt", "number", "weights"};
    for (int i = 0; i < 4; i++)
        assert_non_null(aq_program_array(p, wrong[i], NULL));
    aq_program_free(p);
    aq_program_free(q);
    aq_graph_free(g);
}

/* Without a word, what was made of the old prompt is used. */
static void test_a_change_must_be_told(void **state)
{
    (void)state;
    AqGraph *g = attending();
    AqProgram *p = aq_program_new(g, .fixed = {"weights", "prompt"});
    give_prompt(p, 0);
    assert_true(aq_program_run(p));
    int64_t floats = 0;
    const float *y = aq_program_array(p, "y", &floats);
    ((float *)aq_program_array(p, "x", NULL))[0] = 1;
    assert_true(aq_program_run(p));
    float before = y[0];
    give_prompt(p, 1);
    assert_true(aq_program_run(p));
    assert_true(y[0] == before);
    aq_program_changed(p);
    assert_true(aq_program_run(p));
    assert_true(y[0] != before);
    aq_program_free(p);
    aq_graph_free(g);
}

static void test_mistakes_about_runs(void **state)
{
    (void)state;
    AqGraph *g = attending();
    AqProgram *p = aq_program_new(g, .fixed = {"promt"});
    assert_error(p, "there is no input or state \"promt\" to be fixed");
    aq_program_changed(p);
    aq_program_free(p);
    p = aq_program_new(g, .number = "number", .numbers = 2);
    *(int32_t *)aq_program_array(p, "number", NULL) = 2;
    assert_false(aq_program_run(p));
    assert_error(p, "the run's number is 2: it must lie between 0 and 1");
    aq_program_free(p);
    aq_graph_free(g);
}

/* The nearest row, and a gradient that stays within the table as well. */
static void test_an_index_outside_its_table(void **state)
{
    (void)state;
    AqGraph *g = aq_graph_new();
    AqTensor index = aq_input(g, "index", AQ_SHAPE(4), .integer = true);
    AqTensor table = aq_input(g, "table", AQ_SHAPE(3, 2));
    AqTensor rows = aq_gather(table, index), slope;
    aq_output(rows, "rows");
    aq_gradient(aq_sum(rows), &table, 1, &slope);
    aq_output(slope, "slope");
    AqProgram *p = program(g, NULL, 1);
    static const int32_t at[] = {INT32_MIN, -1, 3, INT32_MAX};
    memcpy(aq_program_array(p, "index", NULL), at, sizeof at);
    float *values = aq_program_array(p, "table", NULL);
    for (int i = 0; i < 6; i++)
        values[i] = (float)i;
    assert_true(aq_program_run(p));
    const float *row = aq_program_array(p, "rows", NULL);
    static const float expected[] = {0, 1, 0, 1, 4, 5, 4, 5};
    assert_memory_equal(row, expected, sizeof expected);
    const float *by = aq_program_array(p, "slope", NULL);
    static const float sums[] = {2, 2, 0, 0, 2, 2};
    assert_memory_equal(by, sums, sizeof sums);
    aq_program_free(p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_graph_s_mistake_is_the_program_s),
        cmocka_unit_test(test_what_is_missing),
        cmocka_unit_test(test_the_loss_falls),
        cmocka_unit_test(test_threads_do_not_change_a_bit),
        cmocka_unit_test(test_programs_share_parameters),
        cmocka_unit_test(test_inputs_are_not_shared),
        cmocka_unit_test(test_other_parameters_are_refused),
        cmocka_unit_test(test_a_wrong_name_is_told),
        cmocka_unit_test(test_a_graph_without_parameters),
        cmocka_unit_test(test_large_parameters),
        cmocka_unit_test(test_what_is_fixed_is_computed_once),
        cmocka_unit_test(test_a_change_must_be_told),
        cmocka_unit_test(test_mistakes_about_runs),
        cmocka_unit_test(test_an_index_outside_its_table),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
