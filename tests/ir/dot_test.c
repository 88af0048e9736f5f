/* Pictures of graphs: what is folded, what fits, what is escaped.
 *
 * With AQ_UPDATE_GOLDEN=1 in the environment tests/ir/golden/ is written anew
 * instead of compared: read the difference before you commit it. */
#include "runtime/run.h"
#include "tests/support/random_graph.h"

#include <setjmp.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

static AqGraph *parse(const char *text)
{
    AqError error = {0};
    AqGraph *graph = aq_graph_parse(text, "test", &error);
    if (!graph)
        fail_msg("%s", error.text);
    return graph;
}

static AqDotFacts draw(const AqGraph *graph, const AqDotOptions *options,
                       AqText *text)
{
    AqDotFacts facts = {0};
    AqError error = {0};
    if (aq_graph_dot(graph, options, text, &facts, &error))
        fail_msg("%s", error.text);
    return facts;
}

static int occurrences(const char *text, const char *piece)
{
    int count = 0;
    for (; (text = strstr(text, piece)); text += strlen(piece))
        count++;
    return count;
}

static bool have_dot(void)
{
    return system("dot -V >/dev/null 2>&1") == 0;
}

/* Graphviz takes it; nothing is checked where it is not installed. */
static void check_accepted(const AqText *text)
{
    char path[] = "/tmp/aquatint-dot-XXXXXX.svg";
    AqError error = {0};
    int file = mkstemps(path, 4);
    assert_true(file >= 0);
    close(file);
    if (have_dot() && aq_draw(path, text, 60, &error))
        fail_msg("%s", error.text);
    unlink(path);
}

/* ---- a small step of training ---- */

static const char step_text[] =
    "graph {\n"
    "%0 = input {name=\"x\"} : f32[8,4]   ; m.c:1\n"
    "%1 = param {name=\"blocks.0.w\", offset=0, init=\"ones\", value=0} : "
    "f32[4,4]   ; m.c:5 blocks.0\n"
    "%2 = matmul %0, %1 {ta=0, tb=0} : f32[8,4]   ; m.c:5 blocks.0\n"
    "%3 = tanh %2 : f32[8,4]   ; m.c:5 blocks.0\n"
    "%4 = param {name=\"blocks.1.w\", offset=16, init=\"ones\", value=0} : "
    "f32[4,4]   ; m.c:5 blocks.1\n"
    "%5 = matmul %3, %4 {ta=0, tb=0} : f32[8,4]   ; m.c:5 blocks.1\n"
    "%6 = tanh %5 : f32[8,4]   ; m.c:5 blocks.1\n"
    "%7 = param {name=\"blocks.2.w\", offset=32, init=\"ones\", value=0} : "
    "f32[4,4]   ; m.c:5 blocks.2\n"
    "%8 = matmul %6, %7 {ta=0, tb=0} : f32[8,4]   ; m.c:5 blocks.2\n"
    "%9 = tanh %8 : f32[8,4]   ; m.c:5 blocks.2\n"
    "%10 = sub %9, %0 : f32[8,4]   ; m.c:9 loss\n"
    "%11 = mul %10, %10 : f32[8,4]   ; m.c:9 loss\n"
    "%12 = reduce_sum %11 {axes=[0,1]} : f32[]   ; m.c:9 loss\n"
    "%13 = matmul %6, %10 {ta=1, tb=0} : f32[4,4]   ; m.c:5 blocks.2\n"
    "%14 = state {name=\"m\"} : f32[4,4]   ; m.c:9\n"
    "%15 = add %13, %14 : f32[4,4]   ; m.c:9 optimizer\n"
    "output loss = %12\n"
    "update m = %15\n"
    "}\n";

static void check_golden(const char *name, const AqText *text)
{
    char path[AQ_PATH_SIZE];
    char *expected = NULL;
    size_t bytes = 0;
    AqError error = {0};
    aq_path(path, "%s/tests/ir/golden/%s", AQ_SOURCE_DIR, name);
    if (getenv("AQ_UPDATE_GOLDEN"))
        assert_int_equal(aq_file_write(path, text->data, text->length, &error),
                         AQ_OK);
    if (aq_file_read(path, 1 << 20, &expected, &bytes, &error))
        fail_msg("%s", error.text);
    assert_string_equal(text->data, expected);
    free(expected);
}

static void test_training_step(void **state)
{
    (void)state;
    AqGraph *graph = parse(step_text);
    AqText text = {0};
    AqDotOptions options = {.title = "step", .depth = 1, .batch = 8};
    AqDotFacts facts = draw(graph, &options, &text);
    /* x, blocks, loss, its value; blocks.2 backward; optimizer */
    assert_int_equal(facts.boxes, 6);
    assert_int_equal(facts.depth, 1);
    assert_non_null(strstr(text.data, "<b>blocks.0–2 ×3</b>"));
    assert_non_null(strstr(text.data, "16 parameters each"));
    assert_non_null(strstr(text.data, "updates m"));
    assert_non_null(strstr(text.data, "dir=back"));
    check_golden("dot_step.dot", &text);
    check_accepted(&text);
    aq_text_free(&text);
    aq_graph_free(graph);
}

/* The blocks differ in a number, or in a shape: each is told. */
static void test_differences_are_not_folded(void **state)
{
    (void)state;
    static const char text_of[] =
        "graph {\n"
        "%%0 = input {name=\"x\"} : f32[8]   ; m.c:1\n"
        "%%1 = const {value=1} : f32[8]   ; m.c:2 a.0\n"
        "%%2 = add %%0, %%1 : f32[8]   ; m.c:2 a.0\n"
        "%%3 = const {value=%d} : f32[8]   ; m.c:2 a.1\n"
        "%%4 = add %%2, %%3 : f32[8]   ; m.c:2 a.1\n"
        "output y = %%4\n"
        "}\n";
    static const char same_text[] =
        "graph {\n"
        "%0 = input {name=\"x\"} : f32[8]   ; m.c:1\n"
        "%1 = const {value=1} : f32[8]   ; m.c:2 a.0\n"
        "%2 = add %0, %1 : f32[8]   ; m.c:2 a.0\n"
        "%3 = add %1, %2 : f32[8]   ; m.c:2 a.1\n"
        "output y = %3\n"
        "}\n";
    char other[1000];
    snprintf(other, sizeof other, text_of, 2);
    AqDotOptions options = {.depth = 1};
    for (int equal = 0; equal < 2; equal++) {
        AqGraph *graph = parse(equal ? same_text : other);
        AqText text = {0};
        draw(graph, &options, &text);
        assert_int_equal(occurrences(text.data, "×2</b>"), equal);
        assert_int_equal(occurrences(text.data, "<b>a.0"), 1);
        assert_int_equal(occurrences(text.data, "<b>a.1</b>"), !equal);
        aq_text_free(&text);
        aq_graph_free(graph);
    }
}

/* a.0 and a.1 are equal, but b.0 stands between them. */
static void test_no_fold_around_others(void **state)
{
    (void)state;
    AqGraph *graph = parse("graph {\n"
                           "%0 = input {name=\"x\"} : f32[8]   ; m.c:1\n"
                           "%1 = state {name=\"s\"} : f32[8]   ; m.c:1\n"
                           "%2 = exp %0 : f32[8]   ; m.c:2 a.0\n"
                           "%3 = tanh %2 : f32[8]   ; m.c:3 z.b\n"
                           "%4 = exp %3 : f32[8]   ; m.c:4 a.1\n"
                           "%5 = sub %4, %3 : f32[8]   ; m.c:5 z.b\n"
                           "output y = %5\n"
                           "update s = %2\n"
                           "}\n");
    AqText text = {0};
    AqDotOptions options = {.depth = 1};
    AqDotFacts facts = draw(graph, &options, &text);
    assert_int_equal(occurrences(text.data, "×2"), 0);
    /* z.b is cut in two rather than drawn as a loop: x, a.0, z, a.1, z, y */
    assert_int_equal(facts.boxes, 6);
    aq_text_free(&text);
    aq_graph_free(graph);
}

/* ---- what is hostile ---- */

static void test_names_are_escaped(void **state)
{
    (void)state;
    static const char name[] = "a\"]<b>&\\N\n\x01\xff\xc3\xa9\xed\xa0 -->";
    AqGraph *graph = aq_graph_new();
    AqType type = aq_type(AQ_F32, 1, (int64_t[]){4});
    graph->scope = "<table>&amp;\".0.\\";
    graph->file = "m\"\\.c";
    AqAttr attr = aq_text(AQ_KEY_NAME, name);
    AqId x = aq_build(graph, AQ_OP_input, &type, NULL, 0, &attr, 1);
    AqId y = aq_unary(graph, AQ_OP_exp, x);
    aq_graph_output(graph, name, y, false);
    assert_int_equal(graph->error.status, AQ_OK);
    for (int depth = 1; depth < 5; depth++) {
        AqText text = {0};
        AqDotOptions options = {.title = name, .depth = depth};
        draw(graph, &options, &text);
        assert_null(strstr(text.data, "a\"]<b>&\\"));
        assert_null(strchr(text.data, '\x01'));
        assert_null(strchr(text.data, '\xff'));
        assert_non_null(
            strstr(text.data, "a&quot;]&lt;b&gt;&amp;&#92;N???\xc3\xa9"));
        check_accepted(&text);
        aq_text_free(&text);
    }
    aq_graph_free(graph);
}

static void test_scope_that_is_not_there(void **state)
{
    (void)state;
    AqGraph *graph = parse(step_text);
    AqText text = {0};
    AqError error = {0};
    AqDotOptions options = {.scope = "block.1"};
    assert_int_equal(aq_graph_dot(graph, &options, &text, NULL, &error),
                     AQ_BAD_INPUT);
    assert_string_equal(error.text, "there is no scope block.1 in this graph: "
                                    "did you mean blocks.1");
    assert_int_equal(text.length, 0);
    aq_graph_free(graph);
}

/* One copy of a folded block can be opened; the others are stubs. */
static void test_scope_alone(void **state)
{
    (void)state;
    AqGraph *graph = parse(step_text);
    AqText text = {0};
    AqDotOptions options = {.scope = "blocks.1", .batch = 8};
    draw(graph, &options, &text);
    assert_non_null(strstr(text.data, "<b>matmul 4→4</b>"));
    assert_non_null(strstr(text.data, "w 4×4"));
    assert_non_null(strstr(text.data, "<b>blocks.0</b>"));
    assert_non_null(strstr(text.data, "<b>blocks.2</b>"));
    assert_null(strstr(text.data, "<b>loss</b>"));
    check_accepted(&text);
    aq_text_free(&text);
    aq_graph_free(graph);
}

/* ---- every graph ---- */

static void test_any_graph(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 60; seed++) {
        AqGraph *graph = aq_test_random_graph(seed, 40);
        for (int depth = 0; depth < 3; depth++) {
            AqText one = {0}, two = {0};
            AqDotOptions options = {.depth = depth, .most = 20};
            AqDotFacts facts = draw(graph, &options, &one);
            draw(graph, &options, &two);
            assert_string_equal(one.data, two.data);
            assert_int_equal(occurrences(one.data, " [label=<"), facts.boxes);
            assert_int_equal(occurrences(one.data, "{"),
                             occurrences(one.data, "}"));
            if (seed <= 4)
                check_accepted(&one);
            aq_text_free(&one);
            aq_text_free(&two);
        }
        aq_graph_free(graph);
    }
}

/* As many kernels as fit are drawn around their bodies; constants and what only
 * moves are no boxes. */
static void test_kernels_around_their_bodies(void **state)
{
    (void)state;
    AqGraph *graph = parse("graph {\n"
                           "  %0 = input {name=\"x\"} : f32[8,4]\n"
                           "  %1 = param {name=\"a.bias\"} : f32[4]\n"
                           "  %2 = kernel %0, %1 {kind=\"map\", body={\n"
                           "    %0 = arg {index=0} : f32[8,4]\n"
                           "    %1 = arg {index=1} : f32[4]\n"
                           "    %2 = reshape %1 : f32[1,4]\n"
                           "    %3 = broadcast %2 : f32[8,4]\n"
                           "    %4 = add %0, %3 : f32[8,4]\n"
                           "    %5 = const {value=0.25} : f32[8,4]\n"
                           "    %6 = mul %4, %5 : f32[8,4]\n"
                           "    output y = %6\n"
                           "  }} : results\n"
                           "  %3 = result %2 {index=0} : f32[8,4]\n"
                           "  output y = %3\n"
                           "}\n");
    AqText text = {0};
    AqDotOptions options = {.depth = 9};
    assert_int_equal(draw(graph, &options, &text).boxes, 3);
    assert_int_equal(occurrences(text.data, "subgraph cluster_b"), 1);
    assert_int_equal(occurrences(text.data, "label=<bias>"), 1);
    assert_int_equal(occurrences(text.data, "label=<add>"), 1);
    assert_int_equal(occurrences(text.data, "label=<mul 0.25>"), 1);
    assert_int_equal(occurrences(text.data, "reshape"), 0);
    assert_int_equal(occurrences(text.data, "lhead=cluster_b"), 1);
    assert_int_equal(occurrences(text.data, "ltail=cluster_b"), 1);
    assert_int_equal(occurrences(text.data, "> pointwise <"), 1);
    check_accepted(&text);
    aq_text_free(&text);
    aq_graph_free(graph);
}

static void test_empty_graph(void **state)
{
    (void)state;
    AqGraph *graph = aq_graph_new();
    AqText text = {0};
    AqDotOptions options = {0};
    assert_int_equal(draw(graph, &options, &text).boxes, 0);
    check_accepted(&text);
    aq_text_free(&text);
    aq_graph_free(graph);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_training_step),
        cmocka_unit_test(test_differences_are_not_folded),
        cmocka_unit_test(test_no_fold_around_others),
        cmocka_unit_test(test_names_are_escaped),
        cmocka_unit_test(test_scope_that_is_not_there),
        cmocka_unit_test(test_scope_alone),
        cmocka_unit_test(test_any_graph),
        cmocka_unit_test(test_kernels_around_their_bodies),
        cmocka_unit_test(test_empty_graph),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
