/* The text form: print and parse are exact inverses, and no text does harm. */
#include "ir/ir.h"

#include <math.h>
#include <setjmp.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "tests/support/bench.h"
#include "tests/support/random_graph.h"

/* ---- helpers ---- */

static char *printed(const AqGraph *g)
{
    AqText text = {0};
    aq_graph_print(g, &text);
    assert_false(text.failed);
    return text.data;
}

static AqGraph *parsed(const char *text)
{
    AqError error = {0};
    AqGraph *g = aq_graph_parse(text, "t.aq", &error);
    if (!g)
        fail_msg("%s", error.text);
    return g;
}

static void same_graph(const AqGraph *a, const AqGraph *b);

static void same_attr(const AqAttr *a, const AqAttr *b)
{
    assert_int_equal(a->key, b->key);
    assert_int_equal(a->count, b->count);
    switch (aq_key_kind[a->key]) {
    case AQ_INT:
        assert_int_equal(a->integer, b->integer);
        return;
    case AQ_REAL:
        assert_true(a->real == b->real || (isnan(a->real) && isnan(b->real)));
        assert_true(signbit(a->real) == signbit(b->real) || isnan(a->real));
        return;
    case AQ_TEXT:
        assert_string_equal(a->text, b->text);
        return;
    case AQ_INTS:
        for (int i = 0; i < a->count; i++)
            assert_int_equal(a->ints[i], b->ints[i]);
        return;
    case AQ_REALS:
        for (int i = 0; i < a->count; i++)
            assert_true(a->reals[i] == b->reals[i] ||
                        (isnan(a->reals[i]) && isnan(b->reals[i])));
        return;
    case AQ_BODY:
        same_graph(a->body, b->body);
        return;
    }
}

static void same_graph(const AqGraph *a, const AqGraph *b)
{
    assert_int_equal(a->count, b->count);
    for (AqId id = 0; id < a->count; id++) {
        const AqNode *m = aq_node(a, id), *n = aq_node(b, id);
        assert_int_equal(m->op, n->op);
        assert_int_equal(m->copy, n->copy);
        assert_true(aq_same_type(&m->type, &n->type));
        assert_int_equal(m->n_inputs, n->n_inputs);
        for (int i = 0; i < m->n_inputs; i++)
            assert_int_equal(m->inputs[i], n->inputs[i]);
        assert_int_equal(m->n_attrs, n->n_attrs);
        for (int i = 0; i < m->n_attrs; i++)
            same_attr(&m->attrs[i], &n->attrs[i]);
        assert_string_equal(m->scope, n->scope);
        assert_string_equal(m->file, n->file);
        assert_int_equal(m->line, n->line);
    }
    assert_int_equal(a->n_outputs, b->n_outputs);
    for (int i = 0; i < a->n_outputs; i++) {
        assert_string_equal(a->outputs[i].name, b->outputs[i].name);
        assert_int_equal(a->outputs[i].node, b->outputs[i].node);
        assert_int_equal(a->outputs[i].update, b->outputs[i].update);
    }
}

static void round_trip(const AqGraph *g)
{
    char *text = printed(g);
    AqGraph *again = parsed(text);
    char *second = printed(again);
    same_graph(g, again);
    assert_string_equal(text, second);
    aq_graph_free(again);
    free(second);
    free(text);
}

/* ---- canonical texts ---- */

/* Every kind of attribute, copies, places, quoted words, nested bodies. */
static const char everything[] =
    "graph {\n"
    "  %0 = input {name=\"x\"} : f32[2,4,4,6]   ; models/unet.c:41 mid.attn\n"
    "  %1 = param {name=\"a.weight\", offset=16, file=[3,2,0,1], "
    "init=\"uniform\", value=0.10000000000000001} : f32[3,3,3,8]\n"
    "  %2 = conv2d %0, %1 {stride=[2,2], pad=[1,1,1,1], dilation=[1,1], "
    "groups=2} : f32[2,2,2,8]   ; models/unet.c:42\n"
    "  %3 = state {name=\"s \\\"q\\\" \\\\ \\n \\x01 \xc3\xa9\"} : i32[]\n"
    "  %4 = table {data=[0,-1.5,1.0000000000000002,inf,-inf,nan,-0,"
    "4.9406564584124654e-324]} : f32[2,4]   ; \"\":-3 \"a b\"\n"
    "  %5 = exp %4 {copy=2} : f32[2,4]   ; \"my file.c\":7 down.0/res-1\n"
    "  %6 = kernel %2, %5 {copy=1, kind=\"map\", algorithm=\"f4x4\", "
    "blocks=[6,16], tasks=[], workspace=0, scratch=4096, body={\n"
    "    %0 = arg {index=1} : f32[2,4]   ; models/unet.c:43 mid\n"
    "    %1 = moments %0 {axes=[1]} : results\n"
    "    %2 = result %1 {index=0} : f32[2]\n"
    "    %3 = kernel %2 {kind=\"scatter\", body={\n"
    "      %0 = arg {index=0} : f32[2]\n"
    "      output out = %0\n"
    "    }} : results\n"
    "    %4 = result %3 {index=0} : f32[2]\n"
    "    output \"two words\" = %4\n"
    "    output b = %2\n"
    "  }} : results   ; models/unet.c:44 up.1\n"
    "  %7 = result %6 {index=1} : f32[2]\n"
    "  output y = %7\n"
    "  update \"s \\\"q\\\" \\\\ \\n \\x01 \xc3\xa9\" = %3\n"
    "  output \"\" = %2\n"
    "}\n";

static void test_canonical_text_prints_as_it_was(void **state)
{
    (void)state;
    static const char *const texts[] = {
        everything,
        "graph {\n}\n",
        "graph {\n  %0 = const {value=nan} : f32[]\n  output a = %0\n}\n",
    };
    for (int i = 0; i < AQ_COUNT(texts); i++) {
        AqGraph *g = parsed(texts[i]);
        char *text = printed(g);
        assert_string_equal(text, texts[i]);
        round_trip(g);
        free(text);
        aq_graph_free(g);
    }
}

static void test_a_parsed_graph_is_what_the_text_says(void **state)
{
    (void)state;
    AqGraph *g = parsed(everything);
    const AqNode *conv = aq_node(g, 2), *kernel = aq_node(g, 6);
    assert_int_equal(conv->op, AQ_OP_conv2d);
    assert_int_equal(conv->line, 42);
    assert_string_equal(conv->file, "models/unet.c");
    assert_string_equal(conv->scope, "");
    assert_int_equal(aq_attr_at(conv, AQ_KEY_STRIDE, 1, 0), 2);
    assert_int_equal(aq_attr_int(conv, AQ_KEY_GROUPS, 0), 2);
    assert_string_equal(aq_node(g, 0)->scope, "mid.attn");
    assert_int_equal(aq_node(g, 5)->copy, 2);
    assert_string_equal(aq_node(g, 5)->file, "my file.c");
    assert_true(isnan(aq_attr(aq_node(g, 4), AQ_KEY_DATA)->reals[5]));
    assert_int_equal(aq_attr_body(kernel)->count, 5);
    assert_int_equal(aq_result_count(g, 6), 2);
    assert_string_equal(aq_attr_text(kernel, AQ_KEY_ALGORITHM, ""), "f4x4");
    aq_graph_free(g);
}

static void test_a_free_hand_is_read_as_well(void **state)
{
    (void)state;
    AqGraph *g = parsed("; why this graph exists\n\n"
                        "graph {\r\n"
                        "\t%0=input{name=\"x\"}:f32[ 2 , 3 ];m.c:1\n"
                        "  ; a comment alone\n"
                        "%1 = exp %0 {} : f32[2,3]\n\n"
                        "%2 = exp %0 : f32[2,3]\n"
                        "   output y = %2 \n"
                        "}\n ; the end");
    char *text = printed(g);
    assert_string_equal(text, "graph {\n"
                              "  %0 = input {name=\"x\"} : f32[2,3]   ; m.c:1\n"
                              "  %1 = exp %0 : f32[2,3]\n"
                              "  output y = %1\n"
                              "}\n");
    free(text);
    aq_graph_free(g);
}

/* What the parser leaves behind is ready for building. */
static void test_building_goes_on_after_parsing(void **state)
{
    (void)state;
    AqGraph *g = parsed("graph {\n  %0 = input {name=\"x\"} : f32[2]   "
                        "; m.c:7 s\n  %1 = exp %0 {copy=1} : f32[2]\n}\n");
    AqId id = aq_unary(g, AQ_OP_exp, 0);
    assert_int_equal(id, 2);
    assert_int_equal(aq_node(g, id)->copy, 0);
    assert_int_equal(aq_node(g, id)->line, 0);
    assert_string_equal(aq_node(g, id)->scope, "");
    aq_graph_free(g);
}

/* The same nodes, some from other places, some as second evaluations. */
static AqGraph *moved_about(const AqGraph *from, uint64_t seed)
{
    static const char *const scopes[] = {"",   "down.0.res.1", "a b",
                                         "\"", "x;y",          "mid"};
    static const char *const files[] = {"", "models/m.c", "my file.c", "c:m.c"};
    AqGraph *g = aq_graph_new();
    AqId *map = calloc((size_t)from->count, sizeof *map);
    for (AqId id = 0; id < from->count; id++) {
        const AqNode *node = aq_node(from, id);
        AqId inputs[16];
        assert_true(node->n_inputs <= AQ_COUNT(inputs));
        for (int i = 0; i < node->n_inputs; i++)
            inputs[i] = map[node->inputs[i]];
        g->scope = scopes[aq_test_below(&seed, AQ_COUNT(scopes))];
        g->file = files[aq_test_below(&seed, AQ_COUNT(files))];
        g->line = (int)aq_test_below(&seed, 100) - 1;
        g->copy = aq_test_below(&seed, 4) ? 0 : 3;
        map[id] = aq_build(g, node->op, &node->type, inputs, node->n_inputs,
                           node->attrs, node->n_attrs);
    }
    for (int i = 0; i < from->n_outputs; i++)
        aq_graph_output(g, from->outputs[i].name, map[from->outputs[i].node],
                        from->outputs[i].update);
    assert_string_equal(g->error.text, "");
    free(map);
    return g;
}

static void test_random_graphs_go_round(void **state)
{
    (void)state;
    for (uint64_t seed = 0; seed < 150; seed++) {
        AqError error = {0};
        AqGraph *g = aq_test_random_graph(seed, 60);
        AqGraph *moved = moved_about(g, seed);
        if (aq_graph_verify(g, &error) || aq_graph_verify(moved, &error))
            fail_msg("seed %d: %s", (int)seed, error.text);
        round_trip(g);
        round_trip(moved);
        aq_graph_free(moved);
        aq_graph_free(g);
    }
}

/* ---- what is wrong is said ---- */

typedef struct Wrong {
    const char *text, *message;
} Wrong;

#define X "graph {\n  %0 = input {name=\"x\"} : f32[2]\n"

static const Wrong wrong[] = {
    {"", "t.aq:1: expected graph, but found the end of the text"},
    {"\1", "t.aq:1: expected graph, but found a strange character"},
    {"grape {", "t.aq:1: expected graph, but found 'grape'"},
    {"graph", "t.aq:1: expected '{' before a graph, but found the end of the "
              "text"},
    {"graph { }", "t.aq:1: expected the end of the line, but found '}'"},
    {"graph {\n", "t.aq:2: expected a node, output, update or '}', but found "
                  "the end of the text"},
    {"graph {\n}\nmore", "t.aq:3: expected nothing after the graph, but found "
                         "'more'"},
    {"graph {\n  input\n}", "t.aq:2: expected a node, output, update or '}', "
                            "but found 'input'"},
    {"graph {\n%1 = input\n", "t.aq:2: this is node %0, not %1"},
    {"graph {\n% = input\n", "t.aq:2: expected a node's number, but found "
                             "'='"},
    {"graph {\n%0 input\n", "t.aq:2: expected '=' after the node's number, but "
                            "found 'input'"},
    {"graph {\n%0 = \n", "t.aq:2: expected an op, but found the end of the "
                         "line"},
    {"graph {\n%0 = con2d\n", "t.aq:2: there is no op con2d: did you mean "
                              "conv2d"},
    {"graph {\n%0 = qwertyuiop\n", "t.aq:2: there is no op qwertyuiop"},
    {X "%1 = exp %1 : f32[2]\n", "t.aq:3: no node %1 stands above"},
    {X "%1 = exp %-1 : f32[2]\n", "t.aq:3: no node %-1 stands above"},
    {X "%1 = exp %99999999999999999999 : f32[2]\n",
     "t.aq:3: the number 99999999999999999999 does not fit into 64 bits"},
    {X "%1 = add %0, : f32[2]\n", "t.aq:3: expected '%' before a node's "
                                  "number, but found ':'"},
    {X "%1 = exp %0\n", "t.aq:3: expected ':' before the node's type, but "
                        "found the end of the line"},
    {X "%1 = exp %0 : f64[2]\n", "t.aq:3: expected a type: f32[...], i32[...] "
                                 "or results, but found 'f64[2]'"},
    {X "%1 = exp %0 : f32[2\n", "t.aq:3: expected ']' after a list, but found "
                                "the end of the line"},
    {X "%1 = exp %0 : f32[1,1,1,1,1,1,1,1,1]\n",
     "t.aq:3: rank 9 is more than 8"},
    {X "%1 = exp %0 : f32[3]\n", "t.aq:3: exp: its value is f32[2], but f32[3] "
                                 "was declared"},
    {X "%1 = exp %0 : f32[3]   ; m.c:9 mid\n",
     "t.aq:3: m.c:9: exp: its value is f32[2], but f32[3] was declared in "
     "scope mid"},
    {X "%1 = exp %0 {nmae=1} : f32[2]\n", "t.aq:3: expected an attribute, but "
                                          "found 'nmae=1}'"},
    {X "%1 = exp %0 {copy=-1} : f32[2]\n",
     "t.aq:3: -1 is not within 0 ... 2147483647"},
    {X "%1 = exp %0 {axis=0} : f32[2]\n",
     "t.aq:3: exp: it has no attribute axis"},
    {X "%1 = reduce_sum %0 {axes=[0], axes=[0]} : f32[]\n",
     "t.aq:3: axes is given twice"},
    {X "%1 = reduce_sum %0 {axes [0]} : f32[]\n",
     "t.aq:3: expected '=' after the attribute's name, but found '[0]}'"},
    {X "%1 = reduce_sum %0 {axes=0} : f32[]\n",
     "t.aq:3: expected '[' before a list, but found '0}'"},
    {X "%1 = reduce_sum %0 {axes=[a]} : f32[]\n",
     "t.aq:3: expected a whole number, but found 'a]}'"},
    {X "%1 = reduce_sum %0 {axes=[0] : f32[]\n",
     "t.aq:3: expected '}' after the attributes, but found ':'"},
    {"graph {\n%0 = const {value=x} : f32[]\n",
     "t.aq:2: expected a number, but found 'x}'"},
    {"graph {\n%0 = const {value=\n1} : f32[]\n",
     "t.aq:2: expected a number, but found the end of the line"},
    {"graph {\n%0 = input {name=x} : f32[]\n",
     "t.aq:2: expected '\"' before a text, but found 'x}'"},
    {"graph {\n%0 = input {name=\"x} : f32[]\n",
     "t.aq:2: expected '\"' after a text, but found the end of the line"},
    {"graph {\n%0 = input {name=\"\\q\"} : f32[]\n",
     "t.aq:2: expected \\\", \\\\, \\n or \\x and two digits, but found "
     "'q\"}'"},
    {"graph {\n%0 = input {name=\"\\x00\"} : f32[]\n",
     "t.aq:2: a text cannot hold \\x00"},
    {X "%1 = exp %0 : f32[2] ; 7\n",
     "t.aq:3: expected ':' after the place's file, but found the end of the "
     "line"},
    {X "%1 = exp %0 : f32[2] ; a:\n",
     "t.aq:3: expected the place's line, but found the end of the line"},
    {X "%1 = exp %0 : f32[2] ; a:99999999999\n",
     "t.aq:3: line 99999999999 is too large"},
    {X "%1 = exp %0 : f32[2] ; a:1 b c\n",
     "t.aq:3: expected the end of the line, but found 'c'"},
    {X "output y %0\n", "t.aq:3: expected '=' after the output's name, but "
                        "found '%0'"},
    {X "output = %0\n", "t.aq:3: expected the output's name, but found '='"},
    {X "output y = %7\n", "t.aq:3: no node %7 stands above"},
    {X "output y = %0\noutput y = %0\n", "t.aq:4: output y is given twice"},
    {X "%1 = moments %0 {axes=[0]} : results\noutput y = %1\n",
     "t.aq:4: output y: moments has several values: read one with result"},
    {X "%1 = kernel %0 {kind=\"map\", body={\n  %0 = arg {index=0} : f32[3]\n"
       "  output y = %0\n}} : results\n",
     "t.aq:3: kernel: arg 0 of its body is f32[3], but input 0 f32[2]"},
    {X "%1 = kernel %0 {kind=\"map\", body={\n  %0 = exp : f32[3]\n}}\n",
     "t.aq:4: exp: it takes 1 input, not 0"},
};

static void test_errors_name_the_line(void **state)
{
    (void)state;
    for (int i = 0; i < AQ_COUNT(wrong); i++) {
        AqError error = {0};
        assert_null(aq_graph_parse(wrong[i].text, "t.aq", &error));
        assert_string_equal(error.text, wrong[i].message);
        assert_int_equal(error.status, AQ_BAD_INPUT);
    }
}

static void test_bodies_have_a_deepest_level(void **state)
{
    (void)state;
    AqText text = {0};
    AqError error = {0};
    aq_text_add(&text, "graph {\n");
    for (int i = 0; i < 100000; i++)
        aq_text_add(&text, "%0 = kernel {kind=\"map\", body={\n");
    assert_null(aq_graph_parse(text.data, "t.aq", &error));
    assert_string_equal(error.text, "t.aq:18: bodies lie within each other "
                                    "more than 16 deep");
    aq_text_free(&text);
}

/* ---- hostile texts ---- */

/* It parses, and then it verifies or not; or it gives a sentence. */
static void survives(const char *text)
{
    AqError error = {0};
    AqGraph *g = aq_graph_parse(text, "t.aq", &error);
    if (!g) {
        assert_true(error.status != AQ_OK && error.text[0]);
        return;
    }
    round_trip(g);
    aq_graph_free(g);
}

static void test_every_truncation_is_refused(void **state)
{
    (void)state;
    char text[sizeof everything];
    for (size_t length = 0; length + 2 < sizeof everything; length++) {
        AqError error = {0};
        memcpy(text, everything, length);
        text[length] = 0;
        assert_null(aq_graph_parse(text, "t.aq", &error));
        assert_int_equal(error.status, AQ_BAD_INPUT);
    }
}

static void damage(const char *text, uint64_t seed, int rounds)
{
    static const char bytes[] = "0123456789%={}[],:;\"\\\n -.xinfae\x01\xff";
    size_t length = strlen(text);
    char *copy = malloc(length + 1);
    for (int round = 0; round < rounds; round++) {
        memcpy(copy, text, length + 1);
        for (int64_t n = 1 + aq_test_below(&seed, 3); n > 0; n--) {
            int64_t at = aq_test_below(&seed, (int64_t)length);
            copy[at] = bytes[aq_test_below(&seed, sizeof bytes - 1)];
        }
        survives(copy);
    }
    free(copy);
}

static void test_changed_bytes_do_no_harm(void **state)
{
    (void)state;
    damage(everything, 1, 6000);
    for (uint64_t seed = 0; seed < 10; seed++) {
        AqGraph *g = aq_test_random_graph(seed, 40);
        char *text = printed(g);
        damage(text, seed, 300);
        free(text);
        aq_graph_free(g);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_canonical_text_prints_as_it_was),
        cmocka_unit_test(test_a_parsed_graph_is_what_the_text_says),
        cmocka_unit_test(test_a_free_hand_is_read_as_well),
        cmocka_unit_test(test_building_goes_on_after_parsing),
        cmocka_unit_test(test_random_graphs_go_round),
        cmocka_unit_test(test_errors_name_the_line),
        cmocka_unit_test(test_bodies_have_a_deepest_level),
        cmocka_unit_test(test_every_truncation_is_refused),
        cmocka_unit_test(test_changed_bytes_do_no_harm),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
