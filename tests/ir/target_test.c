/* Targets: fixed per level, and refused in a sentence. */
#include "ir/ir.h"

#include <setjmp.h>
#include <string.h>

#include <cmocka.h>

/* Sizes per level are constants: they decide the bits of a run. */
static void test_levels_are_fixed(void **state)
{
    (void)state;
    for (int level = AQ_FIRST_LEVEL; level <= AQ_LAST_LEVEL; level++) {
        AqTarget target;
        AqError error = {0};
        AqStatus status = aq_target_host(level, &target, &error);
        if (status == AQ_UNSUPPORTED) {
            assert_non_null(strstr(error.text, "use instruction-set level"));
            continue;
        }
        assert_int_equal(status, AQ_OK);
        assert_int_equal(target.level, level);
        assert_string_equal(target.cpu, level == 3 ? "x86-64-v3" : "x86-64-v4");
        assert_int_equal(target.vector, level == 3 ? 8 : 16);
        assert_int_equal(target.registers, level == 3 ? 16 : 32);
        assert_int_equal(target.l1, 32 << 10);
        assert_int_equal(target.l2, level == 3 ? 512 << 10 : 1 << 20);
        assert_int_equal(target.l3, 16 << 20);
    }
}

static void test_the_best_level_is_three_or_four(void **state)
{
    (void)state;
    AqTarget best, forced;
    AqError error = {0};
    if (aq_target_host(0, &best, &error) != AQ_OK) {
        assert_int_equal(aq_target_host(3, &forced, NULL), AQ_UNSUPPORTED);
        return;
    }
    assert_int_equal(aq_target_host(best.level, &forced, &error), AQ_OK);
    assert_memory_equal(&best, &forced, sizeof best);
    assert_true(best.level == 3 || best.level == 4);
    if (best.level == 3)
        assert_int_equal(aq_target_host(4, &forced, NULL), AQ_UNSUPPORTED);
}

static void test_an_unknown_level_is_refused(void **state)
{
    (void)state;
    AqTarget target;
    AqError error = {0};
    assert_int_equal(aq_target_host(2, &target, &error), AQ_BAD_INPUT);
    assert_string_equal(error.text,
                        "instruction-set level 2 is not known: use 3 (AVX2), "
                        "4 (AVX-512), 5 (AVX-512 and AMX), or 0 for the best "
                        "of 3 and 4 that this processor has");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_levels_are_fixed),
        cmocka_unit_test(test_the_best_level_is_three_or_four),
        cmocka_unit_test(test_an_unknown_level_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
