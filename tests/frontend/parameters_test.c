/* Parameters: how they begin, and their layout in files. */
#include "frontend/dsl/dsl.h"
#include "tests/support/bench.h"

#include <math.h>
#include <setjmp.h>
#include <stdlib.h>

#include <cmocka.h>

static void initial_values(void **state)
{
    (void)state;
    AqGraph *g = aq_graph_new();
    AqScope s = aq_root(g);
    aq_param(s, "zero", AQ_SHAPE(5));
    aq_param(s, "one", AQ_SHAPE(5), .init = AQ_INIT_ONES);
    aq_param(s, "normal", AQ_SHAPE(100, 100), .init = AQ_INIT_NORMAL,
             .value = 2);
    aq_param(s, "uniform", AQ_SHAPE(100, 100), .init = AQ_INIT_UNIFORM,
             .value = 0.5);
    aq_param(s, "twin", AQ_SHAPE(100, 100), .init = AQ_INIT_NORMAL, .value = 2);
    const AqParamTable *table = aq_params(g);
    assert_int_equal(table->trained, 30010);
    float *w = malloc((size_t)table->floats * sizeof(float));
    aq_params_start(table, (const uint32_t[]){3, 4}, 1, w, NULL);
    double square[2] = {0}, sum[2] = {0}, most = 0;
    for (int k = 0; k < 2; k++)
        for (int i = 0; i < 10000; i++) {
            double v = w[table->at[2 + k].offset + i];
            sum[k] += v / 10000;
            square[k] += v * v / 10000;
            most = k ? fmax(most, fabs(v)) : 0;
        }
    assert_true(fabs(sum[0]) < 0.1 && fabs(square[0] - 4) < 0.3);
    assert_true(fabs(sum[1]) < 0.02 && fabs(square[1] - 0.25 / 3) < 0.005);
    assert_true(most <= 0.5 && most > 0.499);
    /* each has draws of its own: no correlation */
    double product = 0;
    for (int i = 0; i < 10000; i++)
        product += w[table->at[4].offset + i] * w[table->at[2].offset + i];
    assert_true(fabs(product / 10000) < 0.2);
    for (int i = 0; i < 5; i++) {
        assert_true(w[i] == 0);
        assert_true(w[table->at[1].offset + i] == 1);
    }
    free(w);
    aq_graph_free(g);
}

/* Pieces made by several threads, whose borders lie inside parameters, give
 * what each element's own draw gives. */
static void initial_values_in_pieces(void **state)
{
    (void)state;
    enum { FIRST = 65539, SECOND = 200001 };
    AqGraph *g = aq_graph_new();
    AqScope s = aq_root(g);
    aq_param(s, "u", AQ_SHAPE(FIRST), .init = AQ_INIT_UNIFORM, .value = 0.5);
    aq_param(s, "n", AQ_SHAPE(SECOND), .init = AQ_INIT_NORMAL, .value = 3);
    const AqParamTable *table = aq_params(g);
    size_t bytes = (size_t)table->floats * sizeof(float);
    float *w = malloc(bytes), *average = malloc(bytes);
    const uint32_t key[] = {3, 4};
    aq_params_start(table, key, 3, w, average);
    assert_memory_equal(w, average, bytes);
    uint32_t u = (uint32_t)aq_hash64("u", 1), n = (uint32_t)aq_hash64("n", 1);
    for (uint32_t i = 0; i < FIRST; i++)
        assert_true(
            w[i] ==
            (float)(0.5 * (2 * aq_random_uniform(key, 0, u, 0, i) - 1)));
    for (int64_t i = FIRST; i < table->at[1].offset; i++)
        assert_true(w[i] == 0);
    const float *second = w + table->at[1].offset;
    for (uint32_t i = 0; i < SECOND; i++)
        assert_true(second[i] ==
                    (float)(3 * aq_random_normal(key, 0, n, 0, i)));
    free(average);
    free(w);
    aq_graph_free(g);
}

static void file_order(void **state)
{
    (void)state;
    AqParamInfo p = {.type = F32(2, 3, 4, 5), .file = {3, 2, 0, 1}};
    int64_t shape[4];
    float ours[120], theirs[120], back[120];
    aq_param_file_shape(&p, shape);
    assert_int_equal(shape[0], 5);
    assert_int_equal(shape[1], 4);
    assert_int_equal(shape[2], 2);
    assert_int_equal(shape[3], 3);
    for (int i = 0; i < 120; i++)
        ours[i] = (float)i;
    aq_param_permute(&p, true, ours, theirs);
    for (int i = 0; i < 120; i++) { /* i = ((o 4 + c) 2 + y) 3 + x */
        int x = i % 3, y = i / 3 % 2, c = i / 6 % 4, o = i / 24;
        assert_true(theirs[i] == (float)(((y * 3 + x) * 4 + c) * 5 + o));
    }
    aq_param_permute(&p, false, theirs, back);
    assert_memory_equal(ours, back, sizeof(ours));
}
int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(initial_values),
        cmocka_unit_test(initial_values_in_pieces),
        cmocka_unit_test(file_order),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
