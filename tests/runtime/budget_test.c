/* Budgets of whole programs: kept, or refused with the smallest that would be;
 * the bits that a program leaves do not depend on them. */
#include "runtime/runtime.h"

#include <setjmp.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "frontend/dsl/dsl.h"
#include "tests/support/folder.h"
#include "tests/support/models.h"

static AqGraph *small_unet(void)
{
    const AqSetting small[] = {{"channels", "32"}, {"mults", "1,2"},
                               {"blocks", "1"},    {"groups", "4"},
                               {"attention", "8"}, {"zero_init", "false"}};
    return aq_test_training(
        "ddpm_unet", small, AQ_COUNT(small),
        (AqTask){.batch = 8, .height = 16, .width = 16, .channels = 3},
        (AqOptimizer){.rate = {.base = 1e-3}, .ema = 0.99, .clip = 1});
}

typedef struct Machine {
    AqPool *pool;
    AqMemory *memory;
    AqCompiled *program; /* NULL: refused */
    AqError error;
} Machine;

static Machine new_machine(const AqGraph *g, int threads, int64_t limit)
{
    Machine m = {0};
    AqProgramSettings settings = {.compile = {.cache_dir = aq_test_folder},
                                  .memory_limit = limit};
    AqPoolOptions options = {.threads = threads};
    m.pool = aq_pool_new(&options, &m.error);
    m.memory = aq_memory_new(&m.error);
    assert_non_null(m.pool);
    assert_non_null(m.memory);
    m.program = aq_compiled_new(g, m.memory, m.pool, &settings, &m.error);
    return m;
}

static void free_machine(Machine *m)
{
    aq_compiled_free(m->program);
    aq_memory_free(m->memory);
    aq_pool_free(m->pool);
}

/* All that it allocates. */
static int64_t bytes_of(const Machine *m)
{
    return aq_compiled_bytes(m->program) + aq_memory_bytes(m->memory);
}

static int evaluations_again(const Machine *m)
{
    const AqGraph *g = aq_compiled_graph(m->program);
    int count = 0;
    for (AqId id = 0; id < g->count; id++)
        count += aq_node(g, id)->copy > 0;
    return count;
}

/* The smallest budget: what is needed where next to nothing is allowed, as the
 * sentence says, in tenths of MiB and rounded up. */
static int64_t smallest(const AqGraph *g, int threads)
{
    Machine m = new_machine(g, threads, 1);
    double mebibytes = 0;
    assert_null(m.program);
    assert_int_equal(m.error.status, AQ_NO_MEMORY);
    if (sscanf(m.error.text, "the program needs %lf MiB at the least, ",
               &mebibytes) != 1)
        fail_msg("%s", m.error.text);
    free_machine(&m);
    return (int64_t)(mebibytes * (1 << 20));
}

static void fill(const Machine *m, AqGraph *g)
{
    uint32_t key[2] = {5, 6};
    int64_t bytes = 0, average_bytes = 0;
    float *x = aq_memory_find(m->memory, "x", &bytes);
    int32_t *sample = aq_memory_find(m->memory, "sample", NULL);
    float *weights = aq_memory_find(m->memory, "weights", NULL);
    float *ema = aq_memory_find(m->memory, "ema", &average_bytes);
    for (int64_t i = 0; i < bytes / 4; i++)
        x[i] = (float)((i * 37) % 101) / 50 - 1;
    for (int i = 0; i < 8; i++)
        sample[i] = i;
    assert_int_equal(average_bytes, aq_params(g)->floats * 4);
    aq_params_start(aq_params(g), key, 1, weights, ema);
}

/* Every state and the loss after three steps. */
static AqText three_steps(AqGraph *g, int threads, int64_t limit)
{
    Machine m = new_machine(g, threads, limit);
    AqText left = {0};
    if (!m.program)
        fail_msg("%s", m.error.text);
    if (limit)
        assert_true(bytes_of(&m) <= limit && evaluations_again(&m) > 0);
    fill(&m, g);
    for (int i = 0; i < 3; i++)
        assert_true(aq_compiled_run(m.program, NULL));
    const AqPlan *plan = aq_compiled_plan(m.program);
    for (int i = 0; i < plan->n_outputs; i++)
        aq_text_bytes(&left,
                      aq_compiled_output(m.program, plan->outputs[i].name),
                      (size_t)aq_bytes(&plan->outputs[i].type));
    for (int b = 1; b < plan->n_bases; b++)
        if (plan->bases[b].written)
            aq_text_bytes(&left,
                          aq_memory_find(m.memory, plan->bases[b].name, NULL),
                          (size_t)plan->bases[b].bytes);
    assert_false(left.failed);
    free_machine(&m);
    return left;
}

static void test_the_bits_do_not_depend_on_it(void **state)
{
    (void)state;
    AqGraph *g = small_unet();
    AqText right = three_steps(g, 1, 0);
    for (int threads = 1; threads <= 2; threads++) {
        Machine m = new_machine(g, threads, 0);
        int64_t whole = bytes_of(&m), least = smallest(g, threads);
        free_machine(&m);
        const int64_t budgets[] = {least, least + (whole - least) / 2};
        for (int i = 0; i < AQ_COUNT(budgets); i++) {
            AqText left = three_steps(g, threads, budgets[i]);
            assert_int_equal(left.length, right.length);
            assert_memory_equal(left.data, right.data, right.length);
            aq_text_free(&left);
        }
    }
    aq_text_free(&right);
    aq_graph_free(g);
}

static void test_the_smallest_is_kept_and_no_less(void **state)
{
    (void)state;
    AqGraph *g = small_unet();
    Machine m = new_machine(g, 2, 0);
    int64_t whole = bytes_of(&m), least = smallest(g, 2);
    free_machine(&m);
    print_message("%lld bytes, %lld at the least\n", (long long)whole,
                  (long long)least);
    assert_true(least < whole);
    m = new_machine(g, 2, least);
    assert_non_null(m.program);
    assert_true(bytes_of(&m) <= least);
    free_machine(&m);
    m = new_machine(g, 2, least - (1 << 20) / 10);
    assert_null(m.program);
    assert_int_equal(m.error.status, AQ_NO_MEMORY);
    assert_non_null(strstr(m.error.text, "choose a smaller batch"));
    free_machine(&m);
    aq_graph_free(g);
}

static void test_nothing_is_computed_again_where_all_fits(void **state)
{
    (void)state;
    AqGraph *g = small_unet();
    Machine m = new_machine(g, 2, 0);
    int64_t whole = bytes_of(&m);
    free_machine(&m);
    m = new_machine(g, 2, whole);
    assert_non_null(m.program);
    assert_int_equal(evaluations_again(&m), 0);
    assert_int_equal(bytes_of(&m), whole);
    free_machine(&m);
    m = new_machine(g, 2, whole - 1);
    assert_non_null(m.program);
    assert_true(evaluations_again(&m) > 0);
    free_machine(&m);
    aq_graph_free(g);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_the_bits_do_not_depend_on_it),
        cmocka_unit_test(test_the_smallest_is_kept_and_no_less),
        cmocka_unit_test(test_nothing_is_computed_again_where_all_fits),
    };
    return cmocka_run_group_tests_name("budget", tests, aq_test_make_folder,
                                       aq_test_remove_folder);
}
