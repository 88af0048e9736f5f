/* What simplify promises for any graph: values stay, and a second run changes
 * nothing.  Which rules there are stands in golden/simplify_*.txt. */
#include "passes/passes.h"
#include "tests/support/cases.h"
#include "tests/support/random_graph.h"

#include <math.h>
#include <setjmp.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { SHAPES = 12, MOST = AQ_BENCH_BINDINGS };

static AqGraph *simplified(const AqGraph *in)
{
    AqError error = {0};
    AqPassContext cx = {.error = &error};
    AqGraph *out = aq_graph_new();
    assert_non_null(out);
    if (aq_simplify(in, out, &cx) != AQ_OK)
        fail_msg("%s", error.text);
    if (aq_graph_verify(out, &error) != AQ_OK)
        fail_msg("%s", error.text);
    return out;
}

static char *text_of(const AqGraph *graph)
{
    AqText text = {0};
    aq_graph_print(graph, &text);
    assert_false(text.failed);
    return text.data;
}

static void check_twice_is_once(const AqGraph *once)
{
    AqGraph *twice = simplified(once);
    char *first = text_of(once), *second = text_of(twice);
    if (strcmp(first, second) != 0)
        fail_msg("a second run makes of\n%sthis:\n%s", first, second);
    free(first);
    free(second);
    aq_graph_free(twice);
}

static void check_values(AqBench *b, const AqGraph *after)
{
    AqValue x[2 * MOST], y[2 * MOST];
    AqError error = {0};
    assert_true(b->g->n_outputs <= AQ_COUNT(x));
    assert_int_equal(b->g->n_outputs, after->n_outputs);
    aq_interpret(b->g, b->bindings, b->n_bindings, x, b->arena, &error);
    aq_interpret(after, b->bindings, b->n_bindings, y, b->arena, &error);
    assert_string_equal(error.text, "");
    for (int i = 0; i < after->n_outputs; i++) {
        assert_string_equal(after->outputs[i].name, b->g->outputs[i].name);
        assert_true(aq_same_type(&x[i].type, &y[i].type));
        aq_bench_close(y[i].data, x[i].data, aq_elements(&x[i].type), 1e-12);
    }
}

static void check_graph(AqBench *b)
{
    AqGraph *after = simplified(b->g);
    check_values(b, after);
    check_twice_is_once(after);
    assert_true(after->count <= b->g->count);
    aq_graph_free(after);
}

/* ---- gradients, as differentiation leaves them ---- */

/* Appends the gradient of `loss` for all inputs as outputs; returns one of them
 * times random weights, to be differentiated again. */
static AqId append_gradients(AqBench *b, AqId loss, int order)
{
    AqId wrt[MOST], gradients[MOST];
    int n = 0;
    for (AqId id = 0; id < b->g->count; id++)
        if (aq_node(b->g, id)->op == AQ_OP_input &&
            aq_node(b->g, id)->type.element == AQ_F32)
            wrt[n++] = id;
    assert_true(n > 0);
    if (aq_gradient_nodes(b->g, loss, wrt, n, gradients) != AQ_OK)
        fail_msg("%s", b->g->error.text);
    for (int i = 0; i < n; i++) {
        char name[32];
        snprintf(name, sizeof name, "d%d_%d", order, i);
        aq_graph_output(b->g, name, gradients[i], false);
    }
    return aq_case_loss(b, gradients[aq_test_below(&b->seed, n)]);
}

static void test_gradients_of_every_op(void **state)
{
    (void)state;
    for (int op = 0; op < AQ_OP_COUNT; op++)
        for (int shape = 0; aq_cases[op] && shape < SHAPES; shape++) {
            AqBench b = aq_bench_new((uint64_t)(7 + op * 1000 + shape));
            AqId loss = aq_case_loss(&b, aq_cases[op](&b, (AqOp)op));
            aq_graph_output(b.g, "loss", loss, false);
            append_gradients(&b, append_gradients(&b, loss, 1), 2);
            check_graph(&b);
            aq_bench_free(&b);
        }
}

/* ---- graphs full of what rules look for ---- */

static AqId pick(AqBench *b, const AqId *nodes, int count)
{
    return nodes[aq_test_below(&b->seed, count)];
}

static AqId some_const(AqBench *b, const AqType *type)
{
    static const double values[] = {0, 1, -1, 2, 0.5, 3, -4, 1e-3};
    int64_t i = aq_test_below(&b->seed, AQ_COUNT(values));
    return aq_const_node(b->g, type, values[i]);
}

/* A pointwise op on nodes of one shape, often on a const or a negative. */
static AqId some_pointwise(AqBench *b, const AqId *nodes, int count)
{
    static const AqOp two[] = {AQ_OP_add, AQ_OP_sub, AQ_OP_mul,
                               AQ_OP_max, AQ_OP_min, AQ_OP_less};
    static const AqOp one[] = {AQ_OP_neg,   AQ_OP_abs,    AQ_OP_sign,
                               AQ_OP_floor, AQ_OP_cos,    AQ_OP_is_finite,
                               AQ_OP_tanh,  AQ_OP_detach, AQ_OP_neg};
    static const double divisors[] = {1, -1, 2, 3, -0.25};
    AqId x = pick(b, nodes, count), y = pick(b, nodes, count);
    AqType type = aq_node(b->g, x)->type;
    int64_t i = aq_test_below(&b->seed, AQ_COUNT(divisors));
    switch (aq_test_below(&b->seed, 7)) {
    case 0:
        return aq_unary(b->g, one[aq_test_below(&b->seed, AQ_COUNT(one))], x);
    case 1:
        return aq_unary(b->g, AQ_OP_neg, x);
    case 2:
        return aq_select_node(b->g, some_const(b, &type), x, y);
    case 3:
        x = some_const(b, &type);
        break;
    case 4:
        y = some_const(b, &type);
        break;
    case 5: /* never by zero: 0 (1 / 0) is another matter */
        y = aq_const_node(b->g, &type, divisors[i]);
        return aq_binary(b->g, AQ_OP_div, x, y);
    }
    return aq_binary(b->g, two[aq_test_below(&b->seed, AQ_COUNT(two))], x, y);
}

static void test_random_arithmetic(void **state)
{
    (void)state;
    for (uint64_t seed = 0; seed < 400; seed++) {
        AqBench b = aq_bench_new(seed);
        AqId nodes[24];
        int count = 0;
        nodes[count++] = aq_bench_random(&b, "x", F32(2, 3));
        nodes[count++] = aq_bench_random(&b, "y", F32(2, 3));
        while (count < AQ_COUNT(nodes)) {
            nodes[count] = some_pointwise(&b, nodes, count);
            count++;
        }
        for (int i = 0; i < 4; i++) {
            char name[16];
            snprintf(name, sizeof name, "out%d", i);
            aq_graph_output(b.g, name, nodes[count - 1 - i], false);
        }
        check_graph(&b);
        aq_bench_free(&b);
    }
}

/* One op of movement on `x`. */
static AqId some_movement(AqBench *b, AqId x)
{
    AqType type = aq_node(b->g, x)->type;
    int64_t start[AQ_MAX_RANK], step[AQ_MAX_RANK], size[AQ_MAX_RANK];
    int64_t axis = aq_test_below(&b->seed, type.rank);
    for (int i = 0; i < type.rank; i++) {
        start[i] = 0;
        step[i] = 1;
        size[i] = type.dim[i];
    }
    switch (aq_test_below(&b->seed, 8)) {
    case 0:
        start[axis] = aq_test_below(&b->seed, size[axis]);
        size[axis] = 1 + aq_test_below(&b->seed, size[axis] - start[axis]);
        return aq_slice_node(b->g, x, start, size, step);
    case 1:
        step[axis] = 2;
        size[axis] = (size[axis] + 1) / 2;
        return aq_slice_node(b->g, x, start, size, step);
    case 2:
        start[axis] = aq_test_below(&b->seed, 3);
        step[axis] = 1 + aq_test_below(&b->seed, 2);
        size[axis] = start[axis] + (size[axis] - 1) * step[axis] + 1 +
                     aq_test_below(&b->seed, 2);
        return aq_pad_node(b->g, x, start, step, size);
    case 3:
        return aq_concat_node(b->g, (AqId[]){x, x, x}, 3, (int)axis);
    case 4:
        for (int i = 0; i < type.rank; i++)
            size[i] = (i + axis) % type.rank;
        return aq_transpose_node(b->g, x, size);
    case 5:
        step[axis] = 2;
        return aq_repeat_node(b->g, x, step);
    case 6:
        size[axis] = size[axis] == 1 ? 3 : size[axis];
        return aq_broadcast_node(b->g, x, type.rank, size);
    default:
        x = aq_reduce_node(b->g, AQ_OP_reduce_sum, x, &axis, 1);
        size[axis] = 1;
        return aq_reshape_node(b->g, x, type.rank, size);
    }
}

static void test_random_movement(void **state)
{
    (void)state;
    for (uint64_t seed = 0; seed < 400; seed++) {
        AqBench b = aq_bench_new(seed);
        AqId x = aq_bench_random(&b, "x", F32(2, 1, 3));
        AqType type = F32(2, 1, 3);
        if (seed % 4 == 0)
            x = some_const(&b, &type);
        for (int i = 0; i < 10; i++) {
            AqId moved = some_movement(&b, x);
            type = aq_node(b.g, moved)->type;
            x = aq_elements(&type) <= 500 ? moved : x;
        }
        aq_graph_output(b.g, "out", x, false);
        check_graph(&b);
        aq_bench_free(&b);
    }
}

/* ---- graphs over all ops, and their gradients ---- */

static void append_gradient_of_a_scalar(AqGraph *g)
{
    AqId loss = AQ_NO_NODE, wrt = AQ_NO_NODE, gradient;
    for (AqId id = 0; id < g->count; id++) {
        const AqNode *node = aq_node(g, id);
        if (node->type.element != AQ_F32)
            continue;
        if (wrt == AQ_NO_NODE && aq_op_info[node->op].facts & AQ_SOURCE)
            wrt = id;
        loss = id;
    }
    AqType type = aq_node(g, loss)->type;
    int64_t axes[AQ_MAX_RANK] = {0, 1, 2, 3, 4, 5, 6, 7};
    loss = aq_reduce_node(g, AQ_OP_reduce_sum, loss, axes, type.rank);
    if (wrt == AQ_NO_NODE)
        return;
    if (aq_gradient_nodes(g, loss, &wrt, 1, &gradient) != AQ_OK)
        fail_msg("%s", g->error.text);
    aq_graph_output(g, "the gradient", gradient, false);
}

static void test_random_graphs(void **state)
{
    (void)state;
    for (uint64_t seed = 0; seed < 150; seed++) {
        AqError error = {0};
        AqGraph *before = aq_test_random_graph(seed, 5 + (int)(seed % 40));
        append_gradient_of_a_scalar(before);
        AqGraph *after = simplified(before);
        if (aq_compare_graphs(before, after, seed, 1e-9, &error) != AQ_OK)
            fail_msg("seed %d: %s", (int)seed, error.text);
        check_twice_is_once(after);
        aq_graph_free(after);
        aq_graph_free(before);
    }
}

/* ---- what is left alone ---- */

static void test_infinities_are_not_folded(void **state)
{
    (void)state;
    AqBench b = aq_bench_new(1);
    AqType type = F32(2);
    AqId zero = aq_const_node(b.g, &type, 0);
    AqId one = aq_const_node(b.g, &type, 1);
    aq_graph_output(b.g, "y", aq_binary(b.g, AQ_OP_div, one, zero), false);
    AqGraph *after = simplified(b.g);
    assert_int_equal(aq_node(after, after->outputs[0].node)->op, AQ_OP_div);
    aq_graph_free(after);
    aq_bench_free(&b);
}

static void test_a_second_evaluation_stays_one(void **state)
{
    (void)state;
    AqBench b = aq_bench_new(1);
    AqId x = aq_bench_random(&b, "x", F32(2));
    AqId y = aq_unary(b.g, AQ_OP_neg, aq_unary(b.g, AQ_OP_neg, x));
    b.g->copy = 1;
    AqId again = aq_unary(b.g, AQ_OP_neg, aq_unary(b.g, AQ_OP_neg, x));
    aq_graph_output(b.g, "y", y, false);
    aq_graph_output(b.g, "again", again, false);
    AqGraph *after = simplified(b.g);
    assert_int_equal(aq_node(after, after->outputs[0].node)->op, AQ_OP_input);
    assert_int_equal(aq_node(after, after->outputs[1].node)->op, AQ_OP_neg);
    assert_int_equal(aq_node(after, after->outputs[1].node)->copy, 1);
    aq_graph_free(after);
    aq_bench_free(&b);
}

static void test_places_stay(void **state)
{
    (void)state;
    AqBench b = aq_bench_new(1);
    AqId x = aq_bench_random(&b, "x", F32(2));
    AqId two = aq_const_like(b.g, x, 2);
    b.g->scope = "mid.attn";
    b.g->file = "models/m.c";
    b.g->line = 41;
    aq_graph_output(b.g, "y", aq_binary(b.g, AQ_OP_div, x, two), false);
    AqGraph *after = simplified(b.g);
    const AqNode *node = aq_node(after, after->outputs[0].node);
    assert_int_equal(node->op, AQ_OP_mul);
    assert_string_equal(node->scope, "mid.attn");
    assert_string_equal(node->file, "models/m.c");
    assert_int_equal(node->line, 41);
    aq_graph_free(after);
    aq_bench_free(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_gradients_of_every_op),
        cmocka_unit_test(test_random_arithmetic),
        cmocka_unit_test(test_random_movement),
        cmocka_unit_test(test_random_graphs),
        cmocka_unit_test(test_infinities_are_not_folded),
        cmocka_unit_test(test_a_second_evaluation_stays_one),
        cmocka_unit_test(test_places_stay),
    };
    return cmocka_run_group_tests_name("simplify", tests, NULL, NULL);
}
