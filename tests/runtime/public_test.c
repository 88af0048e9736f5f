/* Programs as somebody who links the library sees them. */
#include <aquatint.h>

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

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

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_graph_s_mistake_is_the_program_s),
        cmocka_unit_test(test_what_is_missing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
