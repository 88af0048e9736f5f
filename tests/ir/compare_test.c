/* Comparing graphs: equal ones pass, every kind of difference is named. */
#include "tests/support/bench.h"

#include <setjmp.h>
#include <string.h>

#include <cmocka.h>

static AqId source(AqGraph *g, AqOp op, AqType type, const char *name)
{
    AqAttr attr = aq_text(AQ_KEY_NAME, name);
    return aq_build(g, op, &type, NULL, 0, &attr, 1);
}

static AqId input(AqGraph *g, AqType type, const char *name)
{
    return source(g, AQ_OP_input, type, name);
}

/* Builds the two graphs of a case; `second` says which of them this is. */
typedef void Builder(AqGraph *g, bool second);

/* The sentence of the difference, or "" for none. */
static AqError compare(Builder *build)
{
    AqGraph *before = aq_graph_new(), *after = aq_graph_new();
    AqError error = {0};
    build(before, false);
    build(after, true);
    assert_string_equal(before->error.text, "");
    assert_string_equal(after->error.text, "");
    aq_compare_graphs(before, after, 7, 1e-9, &error);
    aq_graph_free(before);
    aq_graph_free(after);
    return error;
}

/* (a + b)^2 against a^2 + 2ab + b^2, sources in another order */
static void binomial(AqGraph *g, bool second)
{
    AqType type = F32(5);
    AqId b = second ? input(g, type, "b") : AQ_NO_NODE;
    AqId a = input(g, type, "a");
    b = second ? b : input(g, type, "b");
    AqId sum = aq_binary(g, AQ_OP_add, a, b);
    AqId ab = aq_binary(g, AQ_OP_mul, a, b);
    AqId squares = aq_binary(g, AQ_OP_add, aq_binary(g, AQ_OP_mul, a, a),
                             aq_binary(g, AQ_OP_mul, b, b));
    AqId long_way =
        aq_binary(g, AQ_OP_add, squares, aq_binary(g, AQ_OP_add, ab, ab));
    AqId short_way = aq_binary(g, AQ_OP_mul, sum, sum);
    aq_graph_output(g, "y", second ? long_way : short_way, false);
}

static void test_rounding_is_no_difference(void **state)
{
    (void)state;
    assert_string_equal(compare(binomial).text, "");
}

static void another_constant(AqGraph *g, bool second)
{
    AqId x = input(g, F32(4), "x");
    AqId c = aq_const_like(g, x, second ? 2.00001 : 2);
    aq_graph_output(g, "y", aq_binary(g, AQ_OP_mul, x, c), false);
}

static void test_another_value_is_named(void **state)
{
    (void)state;
    AqError error = compare(another_constant);
    assert_int_equal(error.status, AQ_INTERNAL);
    assert_ptr_equal(strstr(error.text, "output 'y': element 0 was "),
                     error.text);
}

static void lost_update(AqGraph *g, bool second)
{
    AqId x = source(g, AQ_OP_state, F32(4), "m");
    aq_graph_output(g, "m", aq_unary(g, AQ_OP_exp, x), !second);
}

static void lost_output(AqGraph *g, bool second)
{
    AqId x = input(g, F32(4), "x");
    aq_graph_output(g, "y", x, false);
    if (!second)
        aq_graph_output(g, "z", x, false);
}

static void another_type(AqGraph *g, bool second)
{
    AqId x = input(g, F32(4, 1), "x");
    AqId flat = aq_reshape_node(g, x, 1, DIMS_(4));
    aq_graph_output(g, "y", second ? flat : x, false);
}

static void another_source(AqGraph *g, bool second)
{
    AqId x = input(g, second ? F32(3) : F32(4), "x");
    aq_graph_output(g, "y", x, false);
}

static void test_structure_is_compared(void **state)
{
    (void)state;
    assert_string_equal(compare(lost_update).text,
                        "the update of 'm' was lost");
    assert_string_equal(compare(lost_output).text, "2 outputs became 1");
    assert_string_equal(compare(another_type).text,
                        "output 'y' changed its type");
    assert_string_equal(compare(another_source).text,
                        "the source 'x' changed its type");
}

/* NaN stays NaN: log of what may be negative. */
static void with_nan(AqGraph *g, bool second)
{
    AqId x = input(g, F32(16), "x");
    AqId y = aq_unary(g, AQ_OP_log, x);
    if (second)
        y = aq_binary(g, AQ_OP_add, y, aq_const_like(g, y, 0));
    aq_graph_output(g, "y", y, false);
}

static void nan_to_number(AqGraph *g, bool second)
{
    AqId x = input(g, F32(16), "x");
    AqId y = aq_unary(g, AQ_OP_log, second ? aq_unary(g, AQ_OP_abs, x) : x);
    aq_graph_output(g, "y", y, false);
}

static void number_to_nan(AqGraph *g, bool second)
{
    nan_to_number(g, !second);
}

static void test_nan_equals_nan_alone(void **state)
{
    (void)state;
    assert_string_equal(compare(with_nan).text, "");
    assert_non_null(strstr(compare(nan_to_number).text, "nan and became"));
    assert_non_null(strstr(compare(number_to_nan).text, "nan (the"));
}

/* Indices keep inside tables of 3 rows, also through movement and arithmetic
 * (index - 1, which leaves 0 .. 2 unless all indices are one). */
static void look_up(AqGraph *g, bool second)
{
    (void)second;
    AqType three = F32(3, 2), index = I32(40);
    AqId table = input(g, three, "table");
    AqId i = input(g, index, "index");
    AqId folded = aq_reshape_node(g, i, 2, DIMS_(8, 5));
    const AqId in[] = {table, folded};
    AqId rows = aq_build(g, AQ_OP_gather, NULL, in, 2, NULL, 0);
    const AqId back[] = {folded, rows};
    AqId sums = aq_build(g, AQ_OP_scatter_add, &three, back, 2, NULL, 0);
    aq_graph_output(g, "sums", sums, false);
}

static void look_up_before(AqGraph *g, bool second)
{
    (void)second;
    AqId table = input(g, F32(3, 2), "table");
    AqId i = input(g, I32(40), "index");
    AqId less = aq_binary(g, AQ_OP_sub, i, aq_const_like(g, i, 1));
    const AqId in[] = {table, less};
    AqId rows = aq_build(g, AQ_OP_gather, NULL, in, 2, NULL, 0);
    aq_graph_output(g, "rows", rows, false);
}

static void test_indices_stay_in_their_tables(void **state)
{
    (void)state;
    assert_string_equal(compare(look_up).text, "");
    assert_string_equal(compare(look_up_before).text, "");
}

/* Differs at the last row alone, which random indices must reach. */
static void another_last_row(AqGraph *g, bool second)
{
    AqId table = input(g, F32(3, 2), "table");
    AqId i = aq_reshape_node(g, input(g, I32(40), "index"), 2, DIMS_(8, 5));
    if (second)
        i = aq_binary(g, AQ_OP_min, i, aq_const_like(g, i, 1));
    const AqId in[] = {table, i};
    AqId rows = aq_build(g, AQ_OP_gather, NULL, in, 2, NULL, 0);
    aq_graph_output(g, "rows", rows, false);
}

static void test_indices_reach_every_row(void **state)
{
    (void)state;
    assert_non_null(strstr(compare(another_last_row).text, "output 'rows'"));
}

/* Errors are measured against the largest element of an output. */
static void large(AqGraph *g, double shift)
{
    AqId x = input(g, F32(16), "x");
    AqId y = aq_binary(g, AQ_OP_mul, x, aq_const_like(g, x, 1e9));
    y = aq_binary(g, AQ_OP_add, y, aq_const_like(g, y, shift));
    aq_graph_output(g, "y", y, false);
}

static void large_and_close(AqGraph *g, bool second)
{
    large(g, second ? 0.01 : 0.02);
}

static void large_and_apart(AqGraph *g, bool second)
{
    large(g, second ? 0 : 100);
}

static void test_tolerance_is_relative(void **state)
{
    (void)state;
    assert_string_equal(compare(large_and_close).text, "");
    assert_non_null(strstr(compare(large_and_apart).text, "output 'y'"));
}

/* A param is the same numbers through its name and through `weights`. */
static void flat_weights(AqGraph *g, bool second)
{
    AqType small = F32(4), flat = F32(10);
    const AqAttr attrs[] = {aq_text(AQ_KEY_NAME, "p"),
                            aq_int(AQ_KEY_OFFSET, 5)};
    AqId p = aq_build(g, AQ_OP_param, &small, NULL, 0, attrs, 2);
    AqId all = source(g, AQ_OP_state, flat, "weights");
    AqId part = aq_slice_node(g, all, DIMS_(5), DIMS_(4), DIMS_(1));
    aq_graph_output(g, "p", second ? part : p, false);
    aq_graph_output(g, "weights", all, true);
}

static void test_params_and_weights_are_one(void **state)
{
    (void)state;
    assert_string_equal(compare(flat_weights).text, "");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_rounding_is_no_difference),
        cmocka_unit_test(test_another_value_is_named),
        cmocka_unit_test(test_structure_is_compared),
        cmocka_unit_test(test_nan_equals_nan_alone),
        cmocka_unit_test(test_indices_stay_in_their_tables),
        cmocka_unit_test(test_indices_reach_every_row),
        cmocka_unit_test(test_tolerance_is_relative),
        cmocka_unit_test(test_params_and_weights_are_one),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
