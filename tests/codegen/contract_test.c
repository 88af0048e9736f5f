/* Contractions against the interpreter. */
#include "tests/support/contract_suite.h"

#include <setjmp.h>
#include <stdlib.h>

#include <cmocka.h>

static void plain_products(void **state)
{
    (void)state;
    AqSuite *s = aq_suite_new(11);
    for (int i = 0; i < 100; i++)
        aq_suite_matmul(s, 0, 0);
    aq_suite_check(s);
}

static void plain_convolutions(void **state)
{
    (void)state;
    AqSuite *s = aq_suite_new(12);
    for (int i = 0; i < 180; i++)
        aq_suite_conv(s, i % 3, 0, 0);
    aq_suite_check(s);
}

static void many_taps(void **state)
{
    (void)state;
    AqSuite *s = aq_suite_new(15);
    for (int i = 0; i < 6; i++)
        aq_suite_many_taps(s, i);
    aq_suite_check(s);
}

static void long_sums(void **state)
{
    (void)state;
    AqSuite *s = aq_suite_new(18);
    for (int i = 0; i < 48; i++)
        aq_suite_turned(s, i % 6, i / 6 % (i % 6 < 2 ? 4 : 2));
    aq_suite_check(s);
}

static void moved_operands(void **state)
{
    (void)state;
    AqSuite *s = aq_suite_new(13);
    for (int i = 0; i < 40; i++) {
        aq_suite_matmul(s, 2 + i % 2, 0);
        aq_suite_conv(s, i % 3, 2 + i % 2, 0);
    }
    aq_suite_check(s);
}

static void prologues_and_epilogues(void **state)
{
    (void)state;
    AqSuite *s = aq_suite_new(14);
    for (int i = 0; i < 18; i++) {
        aq_suite_matmul(s, i % 4, i / 2 % 3);
        aq_suite_conv(s, i % 3, i / 3 % 4, i / 2 % 3);
    }
    aq_suite_check(s);
}

static void winograd_convolutions(void **state)
{
    (void)state;
    AqSuite *s = aq_suite_new(16);
    for (int i = 0; i < 60; i++)
        aq_suite_winograd(s, i % 3, i < 30 ? 0 : i / 3 % 4,
                          i < 30 ? 0 : i / 12 % 3);
    aq_suite_check(s);
}

static void reduced_results(void **state)
{
    (void)state;
    AqSuite *s = aq_suite_new(17);
    for (int i = 0; i < 40; i++) {
        aq_suite_matmul(s, i % 5 ? 0 : 1, 3);
        aq_suite_conv(s, i % 3, i % 5 ? 0 : 1, 3 + i / 3 % 2);
        aq_suite_winograd(s, i % 3, i % 5 ? 0 : 1, 3 + i / 3 % 2);
    }
    aq_suite_check(s);
}

/* Evaluated by the tasks that need them: rows, windows, strips. */
static void evaluated_operands(void **state)
{
    static const int kinds[] = {1, 4, 5};
    (void)state;
    AqSuite *s = aq_suite_new(15);
    for (int i = 0; i < 27; i++) {
        aq_suite_matmul(s, kinds[i % 3], 0);
        aq_suite_conv(s, i % 3, kinds[i / 3 % 3], 0);
        aq_suite_conv(s, 2, kinds[i % 3], 0);
    }
    aq_suite_check(s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(plain_products),
        cmocka_unit_test(plain_convolutions),
        cmocka_unit_test(many_taps),
        cmocka_unit_test(long_sums),
        cmocka_unit_test(moved_operands),
        cmocka_unit_test(prologues_and_epilogues),
        cmocka_unit_test(winograd_convolutions),
        cmocka_unit_test(evaluated_operands),
        cmocka_unit_test(reduced_results),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
