/* The verifier: right graphs pass, and every kind of damage is named. */
#include "ir/ir.h"

#include <setjmp.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "tests/support/bench.h"
#include "tests/support/random_graph.h"

/* A kernel, a state with an update, params; damaged by each test below. */
static const char text[] =
    "graph {\n"
    "  %0 = input {name=\"x\"} : f32[4,6]   ; m.c:3 enc\n"
    "  %1 = param {name=\"w\", offset=16} : f32[6,2]\n"
    "  %2 = matmul %0, %1 {ta=0, tb=0} : f32[4,2]   ; m.c:5 mid\n"
    "  %3 = state {name=\"s\"} : f32[4,2]\n"
    "  %4 = add %2, %3 : f32[4,2]\n"
    "  %5 = kernel %4 {kind=\"map\", body={\n"
    "    %0 = arg {index=0} : f32[4,2]\n"
    "    %1 = exp %0 : f32[4,2]\n"
    "    %2 = log %1 : f32[4,2]\n"
    "    output a = %1\n"
    "    output b = %2\n"
    "  }} : results\n"
    "  %6 = result %5 {index=1} : f32[4,2]\n"
    "  %7 = const {value=0} : f32[28]\n"
    "  output y = %6\n"
    "  update s = %4\n"
    "  update weights = %7\n"
    "}\n";

static AqGraph *parsed(const char *what)
{
    AqError error = {0};
    AqGraph *g = aq_graph_parse(what, "t", &error);
    if (!g)
        fail_msg("%s", error.text);
    return g;
}

static void expect(const AqGraph *g, AqStatus status, const char *message)
{
    AqError error = {0};
    assert_int_equal(aq_graph_verify(g, &error), status);
    assert_string_equal(error.text, message);
}

static void test_right_graphs_pass(void **state)
{
    (void)state;
    AqGraph *g = parsed(text), *empty = aq_graph_new();
    expect(g, AQ_OK, "");
    expect(empty, AQ_OK, "");
    assert_int_equal(aq_graph_verify(g, NULL), AQ_OK);
    aq_graph_free(empty);
    aq_graph_free(g);
}

/* ---- nodes changed behind the builder's back ---- */

typedef void Damage(AqGraph *g);

static AqNode *body_node(AqGraph *g, AqId kernel, AqId id)
{
    return &((AqGraph *)aq_attr_body(aq_node(g, kernel)))->nodes[id];
}

static void set_input(AqNode *node, int i, AqId id)
{
    ((AqId *)node->inputs)[i] = id;
}

static void unknown_op(AqGraph *g)
{
    g->nodes[2].op = (AqOp)1000;
}

static void later_input(AqGraph *g)
{
    set_input(&g->nodes[2], 1, 3);
}

static void own_input(AqGraph *g)
{
    set_input(&g->nodes[2], 0, 2);
}

static void negative_input(AqGraph *g)
{
    set_input(&g->nodes[2], 0, AQ_NO_NODE);
}

static void wrong_type(AqGraph *g)
{
    g->nodes[2].type.dim[1] = 3;
}

static void wrong_shapes(AqGraph *g)
{
    set_input(&g->nodes[2], 1, 0);
}

static void swapped_inputs(AqGraph *g)
{
    set_input(&g->nodes[4], 0, 3);
    set_input(&g->nodes[4], 1, 2);
}

static void missing_attribute(AqGraph *g)
{
    g->nodes[2].n_attrs = 1;
}

static void unsorted_attributes(AqGraph *g)
{
    AqAttr *attrs = (AqAttr *)g->nodes[2].attrs, first = attrs[0];
    attrs[0] = attrs[1];
    attrs[1] = first;
}

static void result_out_of_range(AqGraph *g)
{
    ((AqAttr *)g->nodes[6].attrs)[0].integer = 2;
}

static void equal_nodes(AqGraph *g)
{
    g->nodes[3] = g->nodes[0];
}

static void wrong_argument(AqGraph *g)
{
    body_node(g, 5, 0)->type.dim[0] = 5;
}

static void argument_without_input(AqGraph *g)
{
    ((AqAttr *)body_node(g, 5, 0)->attrs)[0].integer = 1;
}

static void wrong_body(AqGraph *g)
{
    body_node(g, 5, 1)->type.element = AQ_I32;
}

static void loop_in_body(AqGraph *g)
{
    set_input(body_node(g, 5, 1), 0, 2);
}

static void update_in_body(AqGraph *g)
{
    ((AqGraph *)aq_attr_body(aq_node(g, 5)))->outputs[1].update = true;
}

static void output_out_of_range(AqGraph *g)
{
    g->outputs[0].node = 8;
}

static void output_of_results(AqGraph *g)
{
    g->outputs[0].node = 5;
}

static void output_twice(AqGraph *g)
{
    g->outputs[1] = g->outputs[0];
}

static void sticky_error(AqGraph *g)
{
    aq_unary(g, AQ_OP_exp, 77);
}

typedef struct Case {
    Damage *damage;
    AqStatus status;
    const char *message;
} Case;

static const Case cases[] = {
    {unknown_op, AQ_INTERNAL, "%2: op 1000 does not exist"},
    {later_input, AQ_INTERNAL,
     "%2: matmul reads %3, which does not stand before it"},
    {own_input, AQ_INTERNAL,
     "%2: matmul reads %2, which does not stand before it"},
    {negative_input, AQ_INTERNAL,
     "%2: matmul reads %-1, which does not stand before it"},
    {wrong_type, AQ_BAD_INPUT,
     "%2: m.c:5: matmul: its value is f32[4,2], but f32[4,3] was declared in "
     "scope mid"},
    {wrong_shapes, AQ_BAD_INPUT,
     "%2: m.c:5: matmul: inner sizes 6 and 4 differ (f32[4,6] x f32[4,6]) in "
     "scope mid"},
    {swapped_inputs, AQ_INTERNAL,
     "%4: the inputs or attributes of this add are not in their canonical "
     "form"},
    {missing_attribute, AQ_INTERNAL,
     "%2: the inputs or attributes of this matmul are not in their canonical "
     "form"},
    {unsorted_attributes, AQ_INTERNAL,
     "%2: the inputs or attributes of this matmul are not in their canonical "
     "form"},
    {result_out_of_range, AQ_BAD_INPUT,
     "%6: result: kernel has 2 results, so no result 2"},
    {equal_nodes, AQ_INTERNAL, "%3: this input equals %0"},
    {wrong_argument, AQ_BAD_INPUT,
     "%5: kernel: arg 0 of its body is f32[5,2], but input 0 f32[4,2]"},
    {argument_without_input, AQ_BAD_INPUT,
     "%5: kernel: its body reads arg 1, but it has 1 inputs"},
    {wrong_body, AQ_BAD_INPUT,
     "body of %5: %1: exp: its value is f32[4,2], but i32[4,2] was declared"},
    {loop_in_body, AQ_INTERNAL,
     "body of %5: %1: exp reads %2, which does not stand before it"},
    {update_in_body, AQ_INTERNAL,
     "body of %5: update b: a body updates nothing"},
    {output_out_of_range, AQ_BAD_INPUT, "output y: node 8 does not exist"},
    {output_of_results, AQ_BAD_INPUT,
     "output y: kernel has several values: read one with result"},
    {output_twice, AQ_BAD_INPUT, "output y is given twice"},
    {sticky_error, AQ_BAD_INPUT,
     "exp: input 0 is node 77, which this graph does not have"},
};

static void test_damage_is_named(void **state)
{
    (void)state;
    for (int i = 0; i < AQ_COUNT(cases); i++) {
        AqGraph *g = parsed(text);
        cases[i].damage(g);
        expect(g, cases[i].status, cases[i].message);
        aq_graph_free(g);
    }
}

/* ---- names and updates ---- */

static void test_names_and_updates(void **state)
{
    (void)state;
    static const char *const wrong[][2] = {
        {"%0 = input {name=\"x\"} : f32[2]\n%1 = state {name=\"x\"} : f32[3]\n",
         "%0 and %1 are both named \"x\": give each input, param and state a "
         "name of its own"},
        {"%0 = input {name=\"x\"} : f32[2]\nupdate s = %0\n",
         "update s: there is no state of this name"},
        {"%0 = input {name=\"x\"} : f32[2]\nupdate x = %0\n",
         "update x: there is no state of this name"},
        {"%0 = input {name=\"x\"} : f32[2]\n%1 = state {name=\"s\"} : f32[3]\n"
         "update s = %0\n",
         "update s: it is f32[3], but its new value is f32[2]"},
        {"%0 = param {name=\"w\", offset=32} : f32[3,3]\n"
         "%1 = const {value=0} : f32[40]\nupdate weights = %1\n",
         "update weights: it is f32[41] or longer, but its new value is "
         "f32[40]"},
        {"%0 = const {value=0} : i32[40]\nupdate weights = %0\n",
         "update weights: it is f32[0] or longer, but its new value is "
         "i32[40]"},
        {"%0 = const {value=0} : f32[4]\n%1 = state {name=\"weights\"} : "
         "f32[5]\nupdate weights = %0\n",
         "update weights: it is f32[5], but its new value is f32[4]"},
    };
    for (int i = 0; i < AQ_COUNT(wrong); i++) {
        AqText all = {0};
        aq_text_printf(&all, "graph {\n%s}\n", wrong[i][0]);
        AqGraph *g = parsed(all.data);
        expect(g, AQ_BAD_INPUT, wrong[i][1]);
        aq_graph_free(g);
        aq_text_free(&all);
    }
}

/* Any one change of an input's number in a random graph is found, unless the
 * node is as right with the other input. */
static void test_random_rewiring_does_no_harm(void **state)
{
    (void)state;
    int found = 0;
    for (uint64_t seed = 0; seed < 60; seed++) {
        AqGraph *g = aq_test_random_graph(seed, 40);
        uint64_t at = seed;
        AqError error = {0};
        AqNode *node = &g->nodes[aq_test_below(&at, g->count)];
        if (node->n_inputs)
            set_input(node, 0, (AqId)aq_test_below(&at, g->count + 2) - 1);
        found += aq_graph_verify(g, &error) != AQ_OK;
        assert_int_equal(error.status != AQ_OK, error.text[0] != 0);
        aq_graph_free(g);
    }
    assert_true(found > 20);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_right_graphs_pass),
        cmocka_unit_test(test_damage_is_named),
        cmocka_unit_test(test_names_and_updates),
        cmocka_unit_test(test_random_rewiring_does_no_harm),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
