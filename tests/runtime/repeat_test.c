/* Programs that are run again and again: against programs that compute all in
 * every run, what is kept and when it is made anew. */
#include "runtime/runtime.h"

#include <math.h>
#include <setjmp.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "frontend/dsl/dsl.h"
#include "tests/support/bench.h"
#include "tests/support/folder.h"
#include "tests/support/numbered_graph.h"
#include "tests/support/programs.h"

/* ---- random graphs ---- */

/* The same values for the same names in every memory that has them. */
static void fill(AqMemory *memory, const AqGraph *g)
{
    for (AqId id = 0; id < g->count; id++) {
        const AqNode *node = aq_node(g, id);
        const char *name = aq_attr_text(node, AQ_KEY_NAME, "");
        void *data = aq_memory_find(memory, name, NULL);
        uint64_t seed = aq_hash64(name, strlen(name));
        if (!(aq_op_info[node->op].facts & AQ_SOURCE) || !data)
            continue;
        for (int64_t i = 0; i < aq_elements(&node->type); i++)
            if (node->type.element == AQ_I32)
                ((int32_t *)data)[i] = (int32_t)aq_test_below(&seed, 10);
            else
                ((float *)data)[i] = (float)(0.5 * aq_test_normal(&seed));
    }
}

static void set_number(AqMemory *memory, int32_t number)
{
    int32_t *place = aq_memory_find(memory, "number", NULL);
    if (place)
        *place = number;
}

static void check_close(const char *name, const AqType *type, const void *is,
                        const void *wanted, uint64_t seed)
{
    double scale = 1;
    int64_t count = aq_elements(type);
    if (type->element == AQ_I32) {
        assert_memory_equal(is, wanted, (size_t)count * 4);
        return;
    }
    const float *a = is, *b = wanted;
    for (int64_t i = 0; i < count; i++)
        if (isfinite(b[i]))
            scale = fmax(scale, fabs((double)b[i]));
    for (int64_t i = 0; i < count; i++)
        if (!(fabs((double)(a[i] - b[i])) <= 2e-5 * scale) &&
            !(isnan(a[i]) && isnan(b[i])) && a[i] != b[i])
            fail_msg("seed %llu: %s[%lld] is %.9g, not %.9g",
                     (unsigned long long)seed, name, (long long)i, (double)a[i],
                     (double)b[i]);
}

/* Outputs and updated states of both. */
static void compare(const AqCompiled *is, AqMemory *is_memory,
                    const AqCompiled *wanted, AqMemory *wanted_memory,
                    const AqGraph *g, uint64_t seed)
{
    for (int i = 0; i < g->n_outputs; i++) {
        const AqOutput *o = &g->outputs[i];
        check_close(o->name, &aq_node(g, o->node)->type,
                    o->update ? aq_memory_find(is_memory, o->name, NULL)
                              : aq_compiled_output(is, o->name),
                    o->update ? aq_memory_find(wanted_memory, o->name, NULL)
                              : aq_compiled_output(wanted, o->name),
                    seed);
    }
}

static int check_graph(uint64_t seed, AqPool *pool)
{
    AqRepeat repeat;
    AqProgramSettings settings = aq_test_settings();
    AqGraph *g = aq_test_numbered_graph(seed, 20, &repeat);
    AqMemory *plain = aq_test_memory(), *own = aq_test_memory();
    AqCompiled *wanted = aq_test_compiled(g, plain, pool, &settings);
    AqRepeated *is = aq_test_repeated(g, &repeat, own, pool);
    fill(plain, g);
    fill(own, g);
    const int order[] = {0, 1, 3, 2, 2, 0}; /* any may come at any time */
    for (int i = 0; i < AQ_COUNT(order); i++) {
        set_number(plain, order[i]);
        set_number(own, order[i]);
        assert_true(aq_compiled_run(wanted, NULL));
        assert_true(aq_repeated_run(is, NULL));
        compare(aq_repeated_step(is), own, wanted, plain, g, seed);
    }
    int prepares = aq_repeated_prepare(is) != NULL;
    aq_repeated_free(is);
    aq_compiled_free(wanted);
    aq_memory_free(own);
    aq_memory_free(plain);
    aq_graph_free(g);
    return prepares;
}

static void test_random_graphs(void **state)
{
    (void)state;
    enum { GRAPHS = 16 };
    AqPool *pool = aq_test_pool(2);
    int prepare = 0;
    for (uint64_t seed = 1; seed <= GRAPHS; seed++)
        prepare += check_graph(seed, pool);
    assert_true(prepare >= GRAPHS / 2);
    aq_pool_free(pool);
}

/* ---- stages that run once ---- */

enum { ROWS = 512, COLUMNS = 96, INNER = 64 };

/* y = x w^T: its right side is packed by a stage of its own. */
static AqGraph *product(void)
{
    AqGraph *g = aq_graph_new();
    AqTensor x = aq_input(g, "x", AQ_SHAPE(ROWS, INNER));
    AqTensor w = aq_input(g, "w", AQ_SHAPE(COLUMNS, INNER));
    aq_output(aq_exp(aq_matmul(x, w, .transpose_b = true)), "y");
    aq_output(aq_exp(aq_neg(x)), "z"); /* the arena is used by others too */
    assert_null(aq_graph_error(g));
    return g;
}

static void give(AqMemory *memory, const char *name, int from)
{
    int64_t bytes = 0;
    float *data = aq_memory_find(memory, name, &bytes);
    for (int64_t i = 0; i < bytes / 4; i++)
        data[i] = 0.2F * sinf((float)(from + i));
}

static double worst_of_product(const AqCompiled *p, AqMemory *memory)
{
    const float *x = aq_memory_find(memory, "x", NULL);
    const float *w = aq_memory_find(memory, "w", NULL);
    const float *y = aq_compiled_output(p, "y");
    double worst = 0;
    for (int i = 0; i < ROWS; i++)
        for (int j = 0; j < COLUMNS; j++) {
            double sum = 0;
            for (int k = 0; k < INNER; k++)
                sum += (double)x[i * INNER + k] * (double)w[j * INNER + k];
            worst = fmax(worst, fabs(y[i * COLUMNS + j] / exp(sum) - 1));
        }
    return worst;
}

/* The program, and all that belongs to it. */
typedef struct Product {
    AqPool *pool;
    AqMemory *memory;
    AqGraph *graph;
    AqCompiled *program;
} Product;

/* `fixed` keeps its values; NULL: nothing does. */
static Product new_product(const char *fixed, int64_t limit, bool frugal)
{
    AqProgramSettings settings = aq_test_settings();
    settings.fixed = &fixed;
    settings.n_fixed = fixed != NULL;
    settings.memory_limit = limit;
    settings.frugal = frugal;
    Product p = {.pool = aq_test_pool(2),
                 .memory = aq_test_memory(),
                 .graph = product()};
    p.program = aq_test_compiled(p.graph, p.memory, p.pool, &settings);
    give(p.memory, "w", 0);
    give(p.memory, "x", 0);
    return p;
}

static void free_product(Product *p)
{
    aq_compiled_free(p->program);
    aq_memory_free(p->memory);
    aq_graph_free(p->graph);
    aq_pool_free(p->pool);
}

static void runs_right(Product *p)
{
    assert_true(aq_compiled_run(p->program, NULL));
    assert_true(worst_of_product(p->program, p->memory) < 1e-5);
}

static void test_weights_are_packed_once(void **state)
{
    (void)state;
    Product p = new_product("w", 0, false);
    assert_int_equal(aq_compiled_once(p.program), 1);
    for (int i = 0; i < 3; i++) {
        give(p.memory, "x", i);
        runs_right(&p);
    }
    give(p.memory, "w", 1000);
    assert_true(aq_compiled_run(p.program, NULL)); /* nobody has said it yet */
    assert_true(worst_of_product(p.program, p.memory) > 1e-3);
    aq_compiled_changed(p.program);
    runs_right(&p);
    runs_right(&p);
    free_product(&p);
}

/* What changes is packed in every run, and what there is no room for, or is
 * wanted for it. */
static void test_what_is_not_packed_once(void **state)
{
    (void)state;
    Product p = new_product(NULL, 0, false);
    assert_int_equal(aq_compiled_once(p.program), 0);
    int64_t least = aq_compiled_bytes(p.program) + aq_memory_bytes(p.memory);
    free_product(&p);
    const struct {
        const char *fixed;
        int64_t limit;
        bool frugal;
        int once;
    } cases[] = {{"x", 0, false, 0},
                 {"w", 0, false, 1},
                 {"w", 0, true, 0},
                 {"w", least, false, 0}};
    for (int i = 0; i < AQ_COUNT(cases); i++) {
        p = new_product(cases[i].fixed, cases[i].limit, cases[i].frugal);
        if (aq_compiled_once(p.program) != cases[i].once)
            fail_msg("case %d: %d stages run once", i,
                     aq_compiled_once(p.program));
        runs_right(&p);
        runs_right(&p);
        free_product(&p);
    }
}

/* `prepare` works in the step's arena, over what the step keeps there. */
static void test_prepared_again(void **state)
{
    (void)state;
    const char *const fixed[] = {"w", "b"};
    AqRepeat repeat = {.fixed = fixed, .n_fixed = 2};
    AqPool *pool = aq_test_pool(2);
    AqMemory *memory = aq_test_memory();
    AqGraph *g = product();
    AqTensor b = aq_input(g, "b", AQ_SHAPE(ROWS, INNER));
    AqTensor x = aq_input(g, "x", AQ_SHAPE(ROWS, INNER));
    AqTensor rows = aq_sum(aq_exp(b), .axes = AQ_AXES(1), .keep = true);
    aq_output(aq_mul(x, rows), "v");
    AqRepeated *p = aq_test_repeated(g, &repeat, memory, pool);
    AqCompiled *step = aq_repeated_step(p);
    const AqCompiled *prepare = aq_repeated_prepare(p);
    assert_non_null(prepare);
    assert_int_equal(aq_compiled_once(step), 1);
    assert_int_equal(aq_repeated_bytes(p), aq_compiled_bytes(step));
    AqError error = {0};
    AqProgramSettings settings = aq_test_settings();
    assert_null(aq_repeated_new(g, &repeat, memory, pool, &settings, &error));
    assert_string_equal(error.text, "two repeated programs cannot share their "
                                    "hoisted arrays");
    for (int round = 0; round < 3; round++) {
        give(memory, "w", round);
        give(memory, "b", 10 * round);
        give(memory, "x", 20 * round);
        aq_repeated_changed(p);
        for (int run = 0; run < 2; run++) {
            assert_true(aq_repeated_run(p, NULL));
            assert_true(worst_of_product(step, memory) < 1e-5);
            const float *v = aq_compiled_output(step, "v");
            const float *of_b = aq_memory_find(memory, "b", NULL);
            const float *of_x = aq_memory_find(memory, "x", NULL);
            double sum = 0;
            for (int k = 0; k < INNER; k++)
                sum += exp((double)of_b[k]);
            assert_true(fabs(v[1] - sum * (double)of_x[1]) < 1e-4);
        }
    }
    aq_repeated_free(p);
    aq_memory_free(memory);
    aq_graph_free(g);
    aq_pool_free(pool);
}

/* Asked to stop before anything is written: the next run is the first. */
static void test_an_interrupted_first_run(void **state)
{
    (void)state;
    const volatile int stop = 1;
    Product p = new_product("w", 0, false);
    assert_false(aq_compiled_run(p.program, &stop));
    runs_right(&p);
    runs_right(&p);
    free_product(&p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_random_graphs),
        cmocka_unit_test(test_weights_are_packed_once),
        cmocka_unit_test(test_what_is_not_packed_once),
        cmocka_unit_test(test_prepared_again),
        cmocka_unit_test(test_an_interrupted_first_run),
    };
    return cmocka_run_group_tests(tests, aq_test_make_folder,
                                  aq_test_remove_folder);
}
