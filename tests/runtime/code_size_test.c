/* How much code a training step is: equal kernels are compiled once, so that it
 * is bounded by what differs in a model, not by how deep it is. */
#include "runtime/runtime.h"

#include <setjmp.h>

#include <cmocka.h>

#include "tests/support/folder.h"
#include "tests/support/machine.h"
#include "tests/support/models.h"

static AqCodeStatistics code_of(const char *model, AqSetting setting)
{
    AqGraph *g = aq_test_training(
        model, &setting, 1,
        (AqTask){.batch = 2, .height = 8, .width = 8, .channels = 4},
        (AqOptimizer){.rate = {.base = 1e-3}, .ema = 0.99, .clip = 1});
    AqMachine m = aq_machine_new(g, (AqPoolOptions){.threads = 2}, 0);
    if (!m.program)
        fail_msg("%s", m.error.text);
    AqCodeStatistics code = *aq_compiled_code(m.program);
    aq_machine_free(&m);
    aq_graph_free(g);
    print_message("%s %s=%s: %d kernels, %d units, %lld bytes\n", model,
                  setting.name, setting.value, code.kernels, code.units,
                  (long long)code.bytes);
    return code;
}

/* Four times as many layers of the same widths. */
static void test_depth_adds_kernels_but_little_code(void **state)
{
    (void)state;
    AqCodeStatistics few = code_of("dit", (AqSetting){"layers", "3"}),
                     many = code_of("dit", (AqSetting){"layers", "12"});
    assert_true(many.kernels > 3 * few.kernels);
    assert_true((double)many.bytes <= 1.25 * (double)few.bytes);
    assert_true(many.units <= few.units + few.units / 4);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_depth_adds_kernels_but_little_code),
    };
    return cmocka_run_group_tests_name("code_size", tests, aq_test_make_folder,
                                       aq_test_remove_folder);
}
