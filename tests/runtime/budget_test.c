/* Budgets of whole programs: kept, or refused with the smallest that would be;
 * the bits that a program leaves do not depend on them. */
#include "runtime/runtime.h"

#include <setjmp.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "frontend/dsl/dsl.h"
#include "tests/support/folder.h"
#include "tests/support/machine.h"
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

static AqGraph *small_dit(void)
{
    const AqSetting small[] = {{"heads", "2"},
                               {"head_channels", "16"},
                               {"layers", "3"},
                               {"zero_init", "false"}};
    return aq_test_training(
        "dit", small, AQ_COUNT(small),
        (AqTask){.batch = 8,
                 .height = 16,
                 .width = 16,
                 .channels = 4,
                 .classes = 3,
                 .label_dropout = 0.1},
        (AqOptimizer){.rate = {.base = 1e-3}, .ema = 0.99, .clip = 1});
}

/* All that it allocates. */
static int64_t bytes_of(const AqMachine *m)
{
    return aq_compiled_bytes(m->program) + aq_memory_bytes(m->memory);
}

static int evaluations_again(const AqMachine *m)
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
    AqMachine m = aq_machine_new(g, (AqPoolOptions){.threads = threads}, 1);
    double mebibytes = 0;
    assert_null(m.program);
    assert_int_equal(m.error.status, AQ_NO_MEMORY);
    if (sscanf(m.error.text, "the program needs %lf MiB at the least, ",
               &mebibytes) != 1)
        fail_msg("%s", m.error.text);
    aq_machine_free(&m);
    return (int64_t)(mebibytes * (1 << 20));
}

/* What three steps within a limit leave, where that takes more work. */
static AqText steps_within(const AqGraph *g, int threads, int64_t limit)
{
    AqPoolOptions options = {.threads = threads};
    AqMachine m = aq_machine_new(g, options, limit);
    if (!m.program)
        fail_msg("%s", m.error.text);
    assert_true(bytes_of(&m) <= limit && evaluations_again(&m) > 0);
    aq_machine_free(&m);
    return aq_machine_three_steps(g, options, limit);
}

static void check_bits(AqGraph *g)
{
    AqText right = aq_machine_three_steps(g, (AqPoolOptions){.threads = 1}, 0);
    for (int threads = 1; threads <= 2; threads++) {
        AqMachine m = aq_machine_new(g, (AqPoolOptions){.threads = threads}, 0);
        int64_t whole = bytes_of(&m), least = smallest(g, threads);
        aq_machine_free(&m);
        const int64_t budgets[] = {least, least + (whole - least) / 2};
        for (int i = 0; i < AQ_COUNT(budgets); i++) {
            AqText left = steps_within(g, threads, budgets[i]);
            aq_check_same_left(&right, &left);
            aq_text_free(&left);
        }
    }
    aq_text_free(&right);
    aq_graph_free(g);
}

static void test_the_bits_do_not_depend_on_it(void **state)
{
    (void)state;
    check_bits(small_unet());
    check_bits(small_dit());
}

static void test_the_smallest_is_kept_and_no_less(void **state)
{
    (void)state;
    AqGraph *g = small_unet();
    AqMachine m = aq_machine_new(g, (AqPoolOptions){.threads = 2}, 0);
    int64_t whole = bytes_of(&m), least = smallest(g, 2);
    aq_machine_free(&m);
    print_message("%lld bytes, %lld at the least\n", (long long)whole,
                  (long long)least);
    assert_true(least < whole);
    m = aq_machine_new(g, (AqPoolOptions){.threads = 2}, least);
    assert_non_null(m.program);
    assert_true(bytes_of(&m) <= least);
    aq_machine_free(&m);
    m = aq_machine_new(g, (AqPoolOptions){.threads = 2},
                       least - (1 << 20) / 10);
    assert_null(m.program);
    assert_int_equal(m.error.status, AQ_NO_MEMORY);
    assert_non_null(strstr(m.error.text, "choose a smaller batch"));
    aq_machine_free(&m);
    aq_graph_free(g);
}

static void test_nothing_is_computed_again_where_all_fits(void **state)
{
    (void)state;
    AqGraph *g = small_unet();
    AqMachine m = aq_machine_new(g, (AqPoolOptions){.threads = 2}, 0);
    int64_t whole = bytes_of(&m);
    aq_machine_free(&m);
    m = aq_machine_new(g, (AqPoolOptions){.threads = 2}, whole);
    assert_non_null(m.program);
    assert_int_equal(evaluations_again(&m), 0);
    assert_int_equal(bytes_of(&m), whole);
    aq_machine_free(&m);
    m = aq_machine_new(g, (AqPoolOptions){.threads = 2}, whole - 1);
    assert_non_null(m.program);
    assert_true(evaluations_again(&m) > 0);
    aq_machine_free(&m);
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
