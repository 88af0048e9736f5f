/* Building: interning, places, errors that stick, copies, uses, liveness. */
#include "ir/ir.h"

#include <math.h>
#include <setjmp.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

#include "tests/support/bench.h"

static AqId source(AqGraph *g, AqOp op, const char *name, AqType type)
{
    AqAttr attr = aq_text(AQ_KEY_NAME, name);
    return aq_build(g, op, &type, NULL, 0, &attr, 1);
}

static AqId input(AqGraph *g, const char *name, AqType type)
{
    return source(g, AQ_OP_input, name, type);
}

/* ---- tables ---- */

static void test_the_tables_say_what_the_lists_say(void **state)
{
    (void)state;
    const AqOpInfo *concat = &aq_op_info[AQ_OP_concat];
    const AqOpInfo *attention = &aq_op_info[AQ_OP_attention];
    const AqOpInfo *add = &aq_op_info[AQ_OP_add];
    assert_string_equal(concat->name, "concat");
    assert_true(concat->list && concat->inputs == 1);
    assert_true(concat->facts == (AQ_MOVES | AQ_INTEGERS));
    assert_true(concat->attributes == (uint64_t)1 << AQ_KEY_AXIS);
    assert_true(attention->list && attention->inputs == 3);
    assert_true(attention->facts == (AQ_EXPENSIVE | AQ_HAS_RESULTS));
    assert_true(attention->lowering == AQ_LOWER_attend);
    assert_true(!add->list && add->inputs == 2 && add->attributes == 0);
    assert_true(add->facts == (AQ_POINTWISE | AQ_COMMUTES | AQ_INTEGERS));
    assert_string_equal(aq_key_name[AQ_KEY_DILATION], "dilation");
    assert_int_equal(aq_key_kind[AQ_KEY_DATA], AQ_REALS);
    for (int op = 0; op < AQ_OP_COUNT; op++) {
        unsigned facts = aq_op_info[op].facts;
        if (facts & AQ_COMMUTES)
            assert_int_equal(aq_op_info[op].inputs, 2);
        if (facts & (AQ_POINTWISE | AQ_COMMUTES))
            assert_false(aq_op_info[op].list);
    }
}

static void test_types(void **state)
{
    (void)state;
    AqType a = F32(8, 14), b = I32(8, 14), c = F32(8), s = SCALAR;
    AqType results = {.element = AQ_RESULTS};
    AqText text = {0};
    assert_true(aq_same_shape(&a, &b) && !aq_same_type(&a, &b));
    assert_true(!aq_same_shape(&a, &c) && aq_same_type(&a, &a));
    assert_int_equal(aq_elements(&a), 112);
    assert_int_equal(aq_bytes(&a), 448);
    assert_int_equal(aq_elements(&s), 1);
    aq_type_text(&text, &a);
    aq_type_text(&text, &b);
    aq_type_text(&text, &s);
    aq_type_text(&text, &results);
    assert_string_equal(text.data, "f32[8,14]i32[8,14]f32[]results");
    aq_text_free(&text);
}

/* ---- interning ---- */

static void test_equal_nodes_are_one(void **state)
{
    (void)state;
    AqGraph *g = aq_graph_new();
    AqType type = F32(2, 3);
    AqId x = input(g, "x", type), y = input(g, "y", type);
    double data[] = {1, 2, 3, 4, 5, 6}, other[] = {1, 2, 3, 4, 5, 7};
    int64_t axes[] = {0}, axes1[] = {1};
    assert_int_equal(input(g, "x", type), x);
    assert_int_not_equal(x, y);
    AqId exp = aq_unary(g, AQ_OP_exp, x);
    AqId sum = aq_reduce_node(g, AQ_OP_reduce_sum, x, axes, 1);
    AqId table = aq_table_node(g, &type, data);
    int count = g->count;
    assert_int_equal(aq_unary(g, AQ_OP_exp, x), exp);
    assert_int_equal(aq_reduce_node(g, AQ_OP_reduce_sum, x, axes, 1), sum);
    assert_int_equal(aq_table_node(g, &type, data), table);
    assert_int_equal(g->count, count);
    assert_int_not_equal(aq_unary(g, AQ_OP_exp, y), exp);
    assert_int_not_equal(aq_unary(g, AQ_OP_log, x), exp);
    assert_int_not_equal(aq_reduce_node(g, AQ_OP_reduce_sum, x, axes1, 1), sum);
    assert_int_not_equal(aq_table_node(g, &type, other), table);
    data[5] = 7; /* the graph has its own copy */
    assert_true(aq_attr(aq_node(g, table), AQ_KEY_DATA)->reals[5] == 6);
    aq_graph_free(g);
}

static void test_reals_are_equal_by_their_bits(void **state)
{
    (void)state;
    AqGraph *g = aq_graph_new();
    AqType type = SCALAR;
    AqId zero = aq_const_node(g, &type, 0.0);
    AqId nan = aq_const_node(g, &type, NAN);
    assert_int_not_equal(aq_const_node(g, &type, -0.0), zero);
    assert_int_equal(aq_const_node(g, &type, 0.0), zero);
    assert_int_equal(aq_const_node(g, &type, -NAN), nan);
    assert_int_equal(aq_const_node(g, &type, NAN), nan);
    AqId a = aq_table_node(g, &type, &(double){NAN});
    assert_int_equal(aq_table_node(g, &type, &(double){-NAN}), a);
    assert_int_not_equal(aq_table_node(g, &type, &(double){1}), a);
    aq_graph_free(g);
}

static void test_a_default_is_as_good_as_its_value(void **state)
{
    (void)state;
    AqGraph *g = aq_graph_new();
    AqId x = input(g, "x", F32(1, 8, 8, 3)), w = input(g, "w", F32(3, 3, 3, 4));
    AqId both[] = {x, w};
    int64_t ones[] = {1, 1}, zeros[] = {0, 0, 0, 0};
    AqAttr attrs[] = {
        aq_int(AQ_KEY_GROUPS, 1), aq_ints(AQ_KEY_DILATION, ones, 2),
        aq_ints(AQ_KEY_PAD, zeros, 4), aq_ints(AQ_KEY_STRIDE, ones, 2)};
    AqId conv = aq_build(g, AQ_OP_conv2d, NULL, both, 2, NULL, 0);
    for (int n = 1; n <= 4; n++)
        assert_int_equal(aq_build(g, AQ_OP_conv2d, NULL, both, 2, attrs, n),
                         conv);
    const AqNode *node = aq_node(g, conv);
    assert_int_equal(node->n_attrs, 4);
    for (int i = 1; i < 4; i++)
        assert_true(node->attrs[i - 1].key < node->attrs[i].key);
    assert_int_equal(aq_attr_at(node, AQ_KEY_STRIDE, 1, 7), 1);
    assert_int_equal(aq_attr_at(node, AQ_KEY_STRIDE, 2, 7), 7);
    assert_int_equal(aq_attr_at(node, AQ_KEY_AXES, 0, 7), 7);
    aq_graph_free(g);
}

static void test_inputs_that_commute_are_sorted(void **state)
{
    (void)state;
    AqGraph *g = aq_graph_new();
    AqType type = F32(2);
    AqId x = input(g, "x", type), y = input(g, "y", type);
    for (int op = 0; op < AQ_OP_COUNT; op++) {
        unsigned facts = aq_op_info[op].facts;
        if (!(facts & AQ_POINTWISE) || aq_op_info[op].inputs != 2)
            continue;
        AqId forward = aq_binary(g, (AqOp)op, x, y);
        AqId backward = aq_binary(g, (AqOp)op, y, x);
        assert_int_equal(forward == backward, (facts & AQ_COMMUTES) != 0);
        assert_int_equal(aq_node(g, forward)->inputs[0], x);
    }
    assert_int_equal(g->error.status, AQ_OK);
    aq_graph_free(g);
}

static void test_a_copy_number_makes_another_node(void **state)
{
    (void)state;
    AqGraph *g = aq_graph_new();
    AqId x = input(g, "x", F32(2)), y = aq_unary(g, AQ_OP_exp, x);
    g->copy = 1;
    AqId again = aq_unary(g, AQ_OP_exp, x);
    assert_int_not_equal(again, y);
    assert_int_equal(aq_unary(g, AQ_OP_exp, x), again);
    g->copy = 0;
    assert_int_equal(aq_unary(g, AQ_OP_exp, x), y);
    assert_int_equal(aq_node(g, again)->copy, 1);
    aq_graph_free(g);
}

static void test_bodies_are_equal_by_address(void **state)
{
    (void)state;
    AqGraph *g = aq_graph_new();
    AqGraph *bodies[2];
    AqType type = F32(2);
    AqId x = input(g, "x", type), kernels[2];
    AqAttr index = aq_int(AQ_KEY_INDEX, 0);
    for (int i = 0; i < 2; i++) {
        bodies[i] = aq_graph_body(g);
        AqId arg = aq_build(bodies[i], AQ_OP_arg, &type, NULL, 0, &index, 1);
        aq_graph_output(bodies[i], "y", arg, false);
        AqAttr attrs[] = {aq_body(bodies[i]), aq_text(AQ_KEY_KIND, "map")};
        kernels[i] = aq_build(g, AQ_OP_kernel, NULL, &x, 1, attrs, 2);
        assert_int_equal(aq_build(g, AQ_OP_kernel, NULL, &x, 1, attrs, 2),
                         kernels[i]);
        assert_ptr_equal(aq_attr_body(aq_node(g, kernels[i])), bodies[i]);
    }
    assert_int_not_equal(kernels[0], kernels[1]);
    assert_null(aq_attr_body(aq_node(g, x)));
    aq_graph_free(g);
}

/* Builds a chain of nodes three times over: the least processor time of one
 * building, in seconds. */
static double build_chain(int count)
{
    AqGraph *g = aq_graph_new();
    AqId *ids = malloc((size_t)count * sizeof *ids);
    clock_t best = 0;
    ids[0] = input(g, "x", F32(3, 5));
    for (int round = 0; round < 3; round++) {
        clock_t start = clock();
        for (int i = 1; i < count; i++) {
            AqId id = aq_binary(g, AQ_OP_sub, ids[i - 1], ids[i / 2]);
            assert_true(round == 0 || id == ids[i]);
            ids[i] = id;
        }
        best = round ? AQ_MIN(best, clock() - start) : clock() - start;
    }
    assert_int_equal(g->count, count);
    free(ids);
    aq_graph_free(g);
    return (double)best / CLOCKS_PER_SEC;
}

/* Growing and hashing again lose nothing, and ten times as many nodes take
 * about ten times as long, not a hundred. */
static void test_a_large_graph(void **state)
{
    (void)state;
    double few = build_chain(2000), many = build_chain(20000);
    assert_true(many <= 40 * few + 0.01);
}

/* ---- places and errors ---- */

static void test_the_first_place_stays(void **state)
{
    (void)state;
    AqGraph *g = aq_graph_new();
    char scope[] = "mid";
    AqId x = input(g, "x", F32(2));
    g->file = "m.c";
    g->line = 7;
    g->scope = scope;
    AqId y = aq_unary(g, AQ_OP_exp, x);
    g->line = 8;
    assert_int_equal(aq_unary(g, AQ_OP_exp, x), y);
    memcpy(scope, "up.", 3); /* the graph has its own copy */
    AqId z = aq_unary(g, AQ_OP_log, x);
    assert_int_equal(aq_node(g, y)->line, 7);
    assert_string_equal(aq_node(g, y)->scope, "mid");
    assert_string_equal(aq_node(g, z)->scope, "up.");
    assert_string_equal(aq_node(g, x)->scope, "");
    assert_string_equal(aq_node(g, x)->file, "");
    aq_graph_place(g, aq_node(g, y));
    AqId last = aq_unary(g, AQ_OP_sin, x);
    assert_string_equal(aq_node(g, last)->scope, "mid");
    assert_string_equal(aq_node(g, last)->file, "m.c");
    assert_int_equal(aq_node(g, last)->line, 7);
    aq_graph_free(g);
}

static void test_the_first_error_sticks(void **state)
{
    (void)state;
    AqGraph *g = aq_graph_new();
    AqId a = input(g, "a", F32(8, 64)), b = input(g, "b", F32(32, 10));
    g->file = "models/unet.c";
    g->line = 41;
    g->scope = "mid.attn";
    int count = g->count;
    assert_int_equal(aq_matmul_node(g, a, b, false, false), AQ_NO_NODE);
    static const char sentence[] =
        "models/unet.c:41: matmul: inner sizes 64 and 32 differ (f32[8,64] x "
        "f32[32,10]) in scope mid.attn";
    assert_int_equal(g->error.status, AQ_BAD_INPUT);
    assert_string_equal(g->error.text, sentence);
    /* From then on nothing is built, not even what is right. */
    assert_int_equal(aq_unary(g, AQ_OP_exp, a), AQ_NO_NODE);
    assert_int_equal(aq_unary(g, AQ_OP_exp, AQ_NO_NODE), AQ_NO_NODE);
    assert_int_equal(aq_reshape_like(g, AQ_NO_NODE, &(AqType){0}), AQ_NO_NODE);
    assert_int_equal(aq_const_like(g, AQ_NO_NODE, 1), AQ_NO_NODE);
    aq_graph_output(g, "y", a, false);
    aq_graph_fail(g, AQ_IO, "another");
    assert_int_equal(g->count, count);
    assert_int_equal(g->n_outputs, 0);
    assert_string_equal(g->error.text, sentence);
    aq_graph_free(g);
}

static void test_an_error_without_a_place(void **state)
{
    (void)state;
    AqGraph *g = aq_graph_new();
    assert_int_equal(aq_graph_fail(g, AQ_IO, "no %s", "disk"), AQ_NO_NODE);
    assert_string_equal(g->error.text, "no disk");
    assert_int_equal(g->error.status, AQ_IO);
    aq_graph_free(g);
}

static void test_wrong_outputs(void **state)
{
    (void)state;
    static const char *const messages[] = {
        "output y: node 9 does not exist", "update y: node -1 does not exist",
        "output y: moments has several values: read one with result",
        "output x is given twice"};
    int64_t axes[] = {0};
    for (int i = 0; i < 4; i++) {
        AqGraph *g = aq_graph_new();
        AqId x = input(g, "x", F32(2));
        AqId two = aq_reduce_node(g, AQ_OP_moments, x, axes, 1);
        AqId nodes[] = {9, -1, two, x};
        aq_graph_output(g, "x", x, false);
        aq_graph_output(g, "x", x, true); /* another kind: no clash */
        assert_int_equal(g->n_outputs, 2);
        aq_graph_output(g, i == 3 ? "x" : "y", nodes[i], i == 1);
        assert_int_equal(g->error.status, AQ_BAD_INPUT);
        assert_string_equal(g->error.text, messages[i]);
        aq_graph_free(g);
    }
}

/* ---- builders ---- */

static void test_builders_return_what_needs_no_node(void **state)
{
    (void)state;
    AqGraph *g = aq_graph_new();
    AqType type = F32(2, 3);
    int64_t zero[] = {0, 0}, one[] = {1, 1}, same[] = {0, 1};
    AqId x = input(g, "x", type);
    assert_int_equal(aq_cast_node(g, x, AQ_F32), x);
    assert_int_equal(aq_reshape_node(g, x, 2, type.dim), x);
    assert_int_equal(aq_broadcast_node(g, x, 2, type.dim), x);
    assert_int_equal(aq_transpose_node(g, x, same), x);
    assert_int_equal(aq_slice_node(g, x, zero, type.dim, one), x);
    assert_int_equal(aq_pad_node(g, x, zero, one, type.dim), x);
    assert_int_equal(aq_concat_node(g, &x, 1, 0), x);
    assert_int_equal(aq_repeat_node(g, x, one), x);
    assert_int_equal(aq_reduce_node(g, AQ_OP_reduce_sum, x, NULL, 0), x);
    assert_int_equal(aq_expand_node(g, x, &type, NULL, 0), x);
    assert_int_equal(g->count, 1);
    assert_int_equal(aq_slice_node(g, x, one, type.dim, one), AQ_NO_NODE);
    assert_non_null(strstr(g->error.text, "ends before place 2"));
    aq_graph_free(g);
}

static void test_builders(void **state)
{
    (void)state;
    AqBench b = aq_bench_new(1);
    AqGraph *g = b.g;
    AqType type = F32(2, 3), like = F32(2, 4, 3);
    int64_t perm[] = {1, 0}, start[] = {0, 1}, size[] = {2, 1}, axes[] = {1};
    int64_t factor[] = {1, 2}, wide[] = {2, 5}, step[] = {1, 2};
    AqId x = aq_bench_input(&b, "x", type, (double[]){1, 2, 3, 4, 5, 6});
    AqId t = aq_transpose_node(g, x, perm);
    AqId s = aq_slice_node(g, x, start, size, NULL);
    AqId p = aq_pad_node(g, x, (int64_t[]){0, 0}, step, wide);
    AqId r = aq_repeat_node(g, x, factor);
    AqId e = aq_expand_node(g, x, &like, axes, 1);
    AqId c = aq_concat_node(g, (AqId[]){x, x}, 2, 1);
    AqId i = aq_iota_node(g, &type, 1);
    AqId k = aq_const_like(g, x, 2.5);
    AqId q = aq_select_node(g, aq_binary(g, AQ_OP_less, i, k), x, k);
    assert_string_equal(g->error.text, "");
    const double wanted[][12] = {{1, 4, 2, 5, 3, 6},
                                 {2, 5},
                                 {1, 0, 2, 0, 3, 4, 0, 5, 0, 6},
                                 {1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6},
                                 {1, 2, 3, 1, 2, 3, 1, 2, 3, 1, 2, 3},
                                 {1, 2, 3, 1, 2, 3, 4, 5, 6, 4, 5, 6},
                                 {0, 1, 2, 0, 1, 2},
                                 {1, 2, 3, 4, 5, 6}};
    const AqId ids[] = {t, s, p, r, e, c, i, q};
    for (int n = 0; n < AQ_COUNT(ids); n++)
        aq_bench_close(aq_bench_value(&b, ids[n]), wanted[n],
                       AQ_MIN(aq_bench_count(&b, ids[n]), 12), 0);
    aq_bench_free(&b);
}

/* ---- whole graphs ---- */

static void test_copying_keeps_the_place_and_the_copy_number(void **state)
{
    (void)state;
    AqGraph *from = aq_graph_new(), *to = aq_graph_new();
    AqId x = input(from, "x", F32(2, 2));
    from->copy = 5;
    from->scope = "s";
    from->file = "f.c";
    from->line = 3;
    AqId y = aq_matmul_node(from, x, x, true, false);
    AqId map[2] = {AQ_NO_NODE, AQ_NO_NODE};
    input(to, "another", F32(7));
    to->scope = "mine";
    map[x] = aq_graph_copy_node(to, from, x, map);
    map[y] = aq_graph_copy_node(to, from, y, map);
    aq_graph_free(from);
    const AqNode *node = aq_node(to, map[1]);
    assert_int_equal(to->count, 3);
    assert_int_equal(node->op, AQ_OP_matmul);
    assert_int_equal(node->copy, 5);
    assert_int_equal(node->inputs[0], map[0]);
    assert_int_equal(aq_attr_int(node, AQ_KEY_TA, 9), 1);
    assert_string_equal(node->scope, "s");
    assert_string_equal(node->file, "f.c");
    assert_int_equal(node->line, 3);
    assert_string_equal(to->scope, "mine");
    assert_int_equal(to->copy, 0);
    assert_int_equal(aq_node(to, map[0])->copy, 0);
    aq_graph_free(to);
}

/* A kernel, its body freed with the graph it came from. */
static void test_copying_takes_the_body_along(void **state)
{
    (void)state;
    AqGraph *from = aq_graph_new(), *to = aq_graph_new();
    AqId map[2], x = input(from, "x", F32(2));
    AqGraph *body = aq_graph_body(from);
    AqAttr index = aq_int(AQ_KEY_INDEX, 0);
    AqType type = F32(2);
    AqId arg = aq_build(body, AQ_OP_arg, &type, NULL, 0, &index, 1);
    aq_graph_output(body, "y", aq_unary(body, AQ_OP_exp, arg), false);
    AqAttr attrs[] = {aq_text(AQ_KEY_KIND, "map"), aq_int(AQ_KEY_SCRATCH, 1),
                      aq_body(body)};
    AqId k = aq_build(from, AQ_OP_kernel, NULL, &x, 1, attrs, 3);
    AqAttr more[] = {aq_text(AQ_KEY_ALGORITHM, "a"), aq_int(AQ_KEY_SCRATCH, 2)};
    map[x] = aq_graph_copy_node(to, from, x, map);
    map[k] = aq_graph_copy_with(to, from, k, map, more, 2);
    aq_graph_output(to, "y", aq_result_node(to, map[k], 0), false);
    aq_graph_free(from);
    AqText text = {0};
    aq_graph_print(to, &text);
    assert_string_equal(text.data,
                        "graph {\n"
                        "  %0 = input {name=\"x\"} : f32[2]\n"
                        "  %1 = kernel %0 {kind=\"map\", algorithm=\"a\", "
                        "scratch=2, body={\n"
                        "    %0 = arg {index=0} : f32[2]\n"
                        "    %1 = exp %0 : f32[2]\n"
                        "    output y = %1\n"
                        "  }} : results\n"
                        "  %2 = result %1 {index=0} : f32[2]\n"
                        "  output y = %2\n"
                        "}\n");
    aq_text_free(&text);
    aq_graph_free(to);
}

static void test_uses_and_liveness(void **state)
{
    (void)state;
    AqGraph *g = aq_graph_new();
    AqType type = F32(2);
    AqId x = input(g, "x", type), dead = input(g, "dead", type);
    AqId written = source(g, AQ_OP_state, "written", type);
    AqId idle = source(g, AQ_OP_state, "idle", type);
    AqId square = aq_binary(g, AQ_OP_mul, x, x);
    AqId waste = aq_binary(g, AQ_OP_add, dead, square);
    aq_graph_output(g, "y", square, false);
    aq_graph_output(g, "written", square, true);
    int uses[6];
    bool live[6];
    assert_int_equal(g->count, 6);
    aq_count_uses(g, uses);
    aq_mark_live(g, live);
    assert_int_equal(uses[x], 2);
    assert_int_equal(uses[square], 3);
    assert_int_equal(uses[dead], 1);
    assert_int_equal(uses[waste], 0);
    assert_true(live[x] && live[square]);
    assert_true(live[written]); /* only written, and its update names it */
    assert_false(live[dead] || live[waste] || live[idle]);
    aq_graph_free(g);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_the_tables_say_what_the_lists_say),
        cmocka_unit_test(test_types),
        cmocka_unit_test(test_equal_nodes_are_one),
        cmocka_unit_test(test_reals_are_equal_by_their_bits),
        cmocka_unit_test(test_a_default_is_as_good_as_its_value),
        cmocka_unit_test(test_inputs_that_commute_are_sorted),
        cmocka_unit_test(test_a_copy_number_makes_another_node),
        cmocka_unit_test(test_bodies_are_equal_by_address),
        cmocka_unit_test(test_a_large_graph),
        cmocka_unit_test(test_the_first_place_stays),
        cmocka_unit_test(test_the_first_error_sticks),
        cmocka_unit_test(test_an_error_without_a_place),
        cmocka_unit_test(test_wrong_outputs),
        cmocka_unit_test(test_builders_return_what_needs_no_node),
        cmocka_unit_test(test_builders),
        cmocka_unit_test(test_copying_keeps_the_place_and_the_copy_number),
        cmocka_unit_test(test_copying_takes_the_body_along),
        cmocka_unit_test(test_uses_and_liveness),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
