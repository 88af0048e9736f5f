/* Gradients of every op of ir/ops.def against central differences in double
 * precision, to the third order; and what aq_gradient_nodes promises. */
#include "passes/passes.h"
#include "tests/support/cases.h"
#include "tests/support/gradient_check.h"
#include "tests/support/random_graph.h"

#include <math.h>
#include <setjmp.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { SHAPES = 40, DIRECTIONS = 3, RAISED = 7, MOST = AQ_BENCH_BINDINGS };

static const double STEP = 1e-5, RELATIVE = 1e-4, ABSOLUTE = 1e-6;

/* ---- differences ---- */

typedef struct Check {
    AqBench bench;
    AqOp op;
    int shape, order;
    AqId loss, wrt[MOST], gradient[MOST];
    double *data[MOST]; /* of the inputs */
    int n;
} Check;

static double loss_at(Check *c)
{
    return *aq_bench_value(&c->bench, c->loss);
}

/* (loss(data + h) - loss(data - h)) / 2 h along `along` */
static double difference(Check *c, const double *along[MOST])
{
    double loss[2];
    for (int side = 0; side < 2; side++) {
        double h = side ? 2 * STEP : -STEP;
        for (int i = 0; i < c->n; i++)
            for (int64_t k = 0; k < aq_bench_count(&c->bench, c->wrt[i]); k++)
                c->data[i][k] += h * along[i][k];
        loss[side] = loss_at(c);
    }
    for (int i = 0; i < c->n; i++)
        for (int64_t k = 0; k < aq_bench_count(&c->bench, c->wrt[i]); k++)
            c->data[i][k] -= STEP * along[i][k];
    return (loss[1] - loss[0]) / (2 * STEP);
}

static void compare(const Check *c, double gradient, double expected, int input,
                    int64_t element)
{
    if (fabs(gradient - expected) <= ABSOLUTE + RELATIVE * fabs(expected))
        return;
    AqText text = {0};
    aq_graph_print(c->bench.g, &text);
    fail_msg("%s, shape %d, order %d, input %d, element %lld: the gradient is "
             "%.9g, differences give %.9g, in\n%s",
             aq_op_info[c->op].name, c->shape, c->order, input,
             (long long)element, gradient, expected, text.data);
}

/* Every element alone. */
static void check_elements(Check *c, const double *gradient[MOST])
{
    const double *along[MOST];
    double *unit[MOST];
    for (int i = 0; i < c->n; i++)
        along[i] = unit[i] = AQ_NEW_ARRAY(c->bench.arena, double,
                                          aq_bench_count(&c->bench, c->wrt[i]));
    for (int i = 0; i < c->n; i++)
        for (int64_t k = 0; k < aq_bench_count(&c->bench, c->wrt[i]); k++) {
            unit[i][k] = 1;
            compare(c, gradient[i][k], difference(c, along), i, k);
            unit[i][k] = 0;
        }
}

/* All of them along random directions. */
static void check_directions(Check *c, const double *gradient[MOST])
{
    const double *along[MOST];
    for (int direction = 0; direction < DIRECTIONS; direction++) {
        double expected = 0;
        for (int i = 0; i < c->n; i++) {
            int64_t count = aq_bench_count(&c->bench, c->wrt[i]);
            double *d = AQ_NEW_ARRAY(c->bench.arena, double, count);
            for (int64_t k = 0; k < count; k++) {
                d[k] = aq_test_normal(&c->bench.seed);
                expected += d[k] * gradient[i][k];
            }
            along[i] = d;
        }
        compare(c, expected, difference(c, along), -1, direction);
    }
}

static void find_inputs(Check *c)
{
    c->n = 0;
    for (AqId id = 0; id < c->bench.g->count; id++) {
        const AqNode *node = aq_node(c->bench.g, id);
        if (node->op != AQ_OP_input || node->type.element != AQ_F32)
            continue;
        const char *name = aq_attr_text(node, AQ_KEY_NAME, "");
        for (int i = 0; i < c->bench.n_bindings; i++)
            if (!strcmp(c->bench.bindings[i].name, name))
                c->data[c->n] = (double *)c->bench.bindings[i].data;
        c->wrt[c->n++] = id;
    }
}

static void differentiate(Check *c)
{
    AqGraph *g = c->bench.g;
    find_inputs(c);
    if (aq_gradient_nodes(g, c->loss, c->wrt, c->n, c->gradient) != AQ_OK)
        fail_msg("%s: %s", aq_op_info[c->op].name, g->error.text);
}

static void check_order(Check *c)
{
    const double *values[MOST];
    differentiate(c);
    for (int i = 0; i < c->n; i++)
        values[i] = aq_bench_value(&c->bench, c->gradient[i]);
    if (c->order == 1)
        check_elements(c, values);
    else
        check_directions(c, values);
}

/* The next loss: the op's gradients along random directions, which are inputs
 * too. */
static void raise_order(Check *c)
{
    AqId sum = AQ_NO_NODE;
    for (int i = 0; i < AQ_MIN(c->n, (int)RAISED); i++) {
        AqId more = aq_case_loss(&c->bench, c->gradient[i]);
        sum = i == 0 ? more : aq_binary(c->bench.g, AQ_OP_add, sum, more);
    }
    c->loss = sum;
    c->order++;
}

static Check new_check(AqOp op, int shape)
{
    Check c = {.op = op, .shape = shape, .order = 1};
    c.bench = aq_bench_new((uint64_t)(op * 1000 + shape));
    c.loss = aq_case_loss(&c.bench, aq_cases[op](&c.bench, op));
    return c;
}

static void check_shapes(int shapes, int orders)
{
    for (int op = 0; op < AQ_OP_COUNT; op++)
        for (int shape = 0; aq_cases[op] && shape < shapes; shape++) {
            Check c = new_check((AqOp)op, shape);
            check_order(&c);
            while (c.order < orders) {
                raise_order(&c);
                check_order(&c);
            }
            AqError error = {0};
            if (aq_graph_verify(c.bench.g, &error) != AQ_OK)
                fail_msg("%s", error.text);
            aq_bench_free(&c.bench);
        }
}

static void test_every_op_to_second_order(void **state)
{
    (void)state;
    check_shapes(SHAPES, 2);
}

static void test_every_op_to_third_order(void **state)
{
    (void)state;
    check_shapes(4, 3);
}

/* ---- whole graphs ---- */

/* The loss: the sum of all outputs that are numbers. */
static AqId sum_of_outputs(AqGraph *g)
{
    const int64_t axes[AQ_MAX_RANK] = {0, 1, 2, 3, 4, 5, 6, 7};
    AqType scalar = SCALAR;
    AqId sum = aq_const_node(g, &scalar, 0);
    for (int i = 0; i < g->n_outputs; i++) {
        AqId id = g->outputs[i].node;
        AqType type = aq_node(g, id)->type;
        if (type.element != AQ_F32)
            continue;
        id = aq_reduce_node(g, AQ_OP_reduce_sum, id, axes, type.rank);
        sum = aq_binary(g, AQ_OP_add, sum, id);
    }
    return sum;
}

/* Differences see through detach. */
static bool has_detach(const AqGraph *g)
{
    for (AqId id = 0; id < g->count; id++)
        if (aq_node(g, id)->op == AQ_OP_detach)
            return true;
    return false;
}

static void check_graph(AqGraph *g, uint64_t seed)
{
    AqArena *arena = aq_arena_new();
    AqBinding *bindings = AQ_NEW_ARRAY(arena, AqBinding, g->count);
    int n = aq_test_bind(g, seed, bindings, arena), sources = g->count;
    AqId loss = sum_of_outputs(g);
    char message[1200];
    for (AqId id = 0; id < sources; id++) {
        const AqNode *node = aq_node(g, id);
        if (aq_op_info[node->op].facts & AQ_SOURCE &&
            node->type.element == AQ_F32 &&
            !aq_test_check_gradient(g, loss, id, bindings, n, 1e-3, 1e-5,
                                    message, sizeof message))
            fail_msg("seed %d, %%%d: %s", (int)seed, (int)id, message);
    }
    aq_arena_free(arena);
}

static void test_random_graphs(void **state)
{
    (void)state;
    int checked = 0;
    for (uint64_t seed = 0; seed < 200; seed++) {
        AqGraph *g = aq_test_random_graph(seed, 5 + (int)(seed % 25));
        if (!has_detach(g)) {
            check_graph(g, seed);
            checked++;
        }
        aq_graph_free(g);
    }
    assert_true(checked > 50);
}

static char *text_of_second_order(AqOp op, const double **values, Check *c)
{
    *c = new_check(op, SHAPES);
    differentiate(c);
    raise_order(c);
    differentiate(c);
    *values = aq_bench_value(&c->bench, c->gradient[0]);
    AqText text = {0};
    aq_graph_print(c->bench.g, &text);
    return text.data;
}

static void test_a_second_run_gives_the_same_bits(void **state)
{
    (void)state;
    for (int op = 0; op < AQ_OP_COUNT; op++) {
        Check a, b;
        const double *x, *y;
        if (!aq_cases[op])
            continue;
        char *first = text_of_second_order((AqOp)op, &x, &a);
        char *second = text_of_second_order((AqOp)op, &y, &b);
        int64_t count = aq_bench_count(&a.bench, a.gradient[0]);
        assert_string_equal(first, second);
        assert_memory_equal(x, y, (size_t)count * sizeof *x);
        free(first);
        free(second);
        aq_bench_free(&a.bench);
        aq_bench_free(&b.bench);
    }
}

/* ---- where there is no derivative ---- */

static const double *gradient_of(AqBench *b, AqId y, AqId x)
{
    AqType type = aq_node(b->g, y)->type;
    AqId loss = y, gradient;
    int64_t axes[AQ_MAX_RANK] = {0, 1, 2, 3, 4, 5, 6, 7};
    if (type.rank > 0)
        loss = aq_reduce_node(b->g, AQ_OP_reduce_sum, y, axes, type.rank);
    if (aq_gradient_nodes(b->g, loss, &x, 1, &gradient) != AQ_OK)
        fail_msg("%s", b->g->error.text);
    return aq_bench_value(b, gradient);
}

static void test_equal_ones_share(void **state)
{
    (void)state;
    AqBench b = aq_bench_new(1);
    AqId x = aq_bench_input(&b, "x", F32(5), (double[]){3, 1, 3, 2, 3});
    AqId y = aq_bench_input(&b, "y", F32(5), (double[]){3, 2, 1, 2, 4});
    AqId top = aq_reduce_node(b.g, AQ_OP_reduce_max, x, (int64_t[]){0}, 1);
    double third = 1.0 / 3;
    aq_bench_close(gradient_of(&b, top, x),
                   (double[]){third, 0, third, 0, third}, 5, 1e-15);
    AqId larger = aq_binary(b.g, AQ_OP_max, x, y);
    aq_bench_close(gradient_of(&b, larger, x), (double[]){.5, 0, 1, .5, 0}, 5,
                   0);
    aq_bench_close(gradient_of(&b, larger, y), (double[]){.5, 1, 0, .5, 1}, 5,
                   0);
    AqId smaller = aq_binary(b.g, AQ_OP_min, x, y);
    aq_bench_close(gradient_of(&b, smaller, x), (double[]){.5, 1, 0, .5, 1}, 5,
                   0);
    aq_bench_free(&b);
}

static void test_detach_stops_gradients(void **state)
{
    (void)state;
    AqBench b = aq_bench_new(1);
    AqId x = aq_bench_input(&b, "x", F32(2), (double[]){3, 5});
    AqId still = aq_unary(b.g, AQ_OP_detach, x);
    AqId y = aq_binary(b.g, AQ_OP_mul, x, still); /* not 2 x */
    aq_bench_close(gradient_of(&b, y, x), (double[]){3, 5}, 2, 0);
    aq_bench_close(gradient_of(&b, still, x), (double[]){0, 0}, 2, 0);
    aq_bench_free(&b);
}

/* ---- what may be asked for ---- */

static void test_inner_nodes_and_the_loss_itself(void **state)
{
    (void)state;
    AqBench b = aq_bench_new(1);
    AqId x = aq_bench_input(&b, "x", SCALAR, (double[]){3});
    AqId other = aq_bench_input(&b, "other", F32(2), (double[]){1, 2});
    AqId square = aq_binary(b.g, AQ_OP_mul, x, x);
    AqId loss = aq_binary(b.g, AQ_OP_mul, square, x);
    AqId wrt[] = {x, square, loss, other, x}, gradient[5];
    assert_int_equal(aq_gradient_nodes(b.g, loss, wrt, 5, gradient), AQ_OK);
    assert_true(*aq_bench_value(&b, gradient[0]) == 27);
    assert_true(*aq_bench_value(&b, gradient[1]) == 3);
    assert_true(*aq_bench_value(&b, gradient[2]) == 1);
    assert_int_equal(aq_node(b.g, gradient[3])->op, AQ_OP_const);
    aq_bench_close(aq_bench_value(&b, gradient[3]), (double[]){0, 0}, 2, 0);
    assert_int_equal(gradient[4], gradient[0]);
    aq_bench_free(&b);
}

static void test_a_loss_of_rank_two_with_one_element(void **state)
{
    (void)state;
    AqBench b = aq_bench_new(1);
    AqId x = aq_bench_input(&b, "x", F32(1, 1), (double[]){2}), gradient;
    AqId loss = aq_unary(b.g, AQ_OP_exp, x);
    assert_int_equal(aq_gradient_nodes(b.g, loss, &x, 1, &gradient), AQ_OK);
    aq_bench_close(aq_bench_value(&b, gradient), (double[]){exp(2)}, 1, 1e-15);
    aq_bench_free(&b);
}

static AqBench linear_layer(AqId *x, AqId *w, AqId *loss)
{
    AqBench b = aq_bench_new(1);
    b.g->scope = "down.0";
    b.g->file = "models/unet.c";
    b.g->line = 41;
    *x = aq_unary(b.g, AQ_OP_exp, aq_bench_random(&b, "x", F32(5, 3)));
    *w = aq_unary(b.g, AQ_OP_exp, aq_bench_random(&b, "w", F32(3, 2)));
    b.g->scope = "loss";
    b.g->line = 7;
    AqId y = aq_matmul_node(b.g, *x, *w, false, false);
    *loss = aq_reduce_node(b.g, AQ_OP_reduce_sum, y, (int64_t[]){0, 1}, 2);
    return b;
}

static void test_only_what_leads_to_wrt_is_built(void **state)
{
    (void)state;
    AqId x, w, loss, gradient;
    AqBench b = linear_layer(&x, &w, &loss);
    aq_gradient_nodes(b.g, loss, &w, 1, &gradient);
    aq_graph_output(b.g, "dw", gradient, false);
    aq_graph_output(b.g, "loss", loss, false);
    bool live[64];
    assert_true(b.g->count < 64);
    aq_mark_live(b.g, live);
    for (AqId id = 0; id < b.g->count; id++) {
        assert_true(live[id]);
        assert_int_not_equal(aq_node(b.g, id)->op, AQ_OP_transpose);
    }
    aq_bench_free(&b);
}

static void test_gradients_come_from_where_the_op_came_from(void **state)
{
    (void)state;
    AqId x, w, loss, gradient;
    AqBench b = linear_layer(&x, &w, &loss);
    b.g->scope = "optimizer";
    b.g->line = 99;
    aq_gradient_nodes(b.g, loss, &w, 1, &gradient);
    const AqNode *node = aq_node(b.g, gradient);
    assert_int_equal(node->op, AQ_OP_matmul);
    assert_string_equal(node->scope, "loss");
    assert_string_equal(node->file, "models/unet.c");
    assert_int_equal(node->line, 7);
    assert_string_equal(b.g->scope, "optimizer");
    assert_int_equal(b.g->line, 99);
    aq_bench_free(&b);
}

/* ---- what may not ---- */

static void expect_error(AqBench *b, AqId loss, AqId wrt, const char *text)
{
    AqId gradient;
    assert_int_equal(aq_gradient_nodes(b->g, loss, &wrt, 1, &gradient),
                     AQ_BAD_INPUT);
    assert_int_equal(gradient, AQ_NO_NODE);
    if (!strstr(b->g->error.text, text))
        fail_msg("'%s' is not in '%s'", text, b->g->error.text);
    aq_bench_free(b);
}

static void test_the_loss_must_be_one_number(void **state)
{
    (void)state;
    AqBench b = aq_bench_new(1);
    b.g->file = "models/m.c";
    b.g->line = 12;
    AqId x = aq_bench_random(&b, "x", F32(3));
    expect_error(&b, aq_unary(b.g, AQ_OP_exp, x), x,
                 "models/m.c:12: gradient: the loss must be one f32 number, "
                 "not f32[3]");
    b = aq_bench_new(1);
    AqId i = aq_bench_random(&b, "i", I32(1));
    expect_error(&b, i, i, "the loss must be one f32 number, not i32[1]");
}

static void test_integers_have_no_gradient(void **state)
{
    (void)state;
    AqBench b = aq_bench_new(1);
    AqId x = aq_bench_random(&b, "x", SCALAR);
    AqId i = aq_bench_random(&b, "i", I32(3));
    expect_error(&b, x, i, "what it is taken for must be f32, not i32[3]");
}

static void test_ids_must_belong_to_the_graph(void **state)
{
    (void)state;
    AqBench b = aq_bench_new(1);
    AqId x = aq_bench_random(&b, "x", SCALAR);
    expect_error(&b, b.g->count, x, "the loss is no node of this graph");
    b = aq_bench_new(1);
    x = aq_bench_random(&b, "x", SCALAR);
    expect_error(&b, x, -1, "what it is taken for is no node of this graph");
}

static void test_kernels_have_no_gradient(void **state)
{
    (void)state;
    AqBench b = aq_bench_new(1);
    AqId x = aq_bench_random(&b, "x", SCALAR);
    AqType type = SCALAR;
    AqGraph *body = aq_graph_body(b.g);
    AqAttr index = aq_int(AQ_KEY_INDEX, 0);
    AqId arg = aq_build(body, AQ_OP_arg, &type, NULL, 0, &index, 1);
    aq_graph_output(body, "y", aq_unary(body, AQ_OP_exp, arg), false);
    AqAttr attrs[] = {aq_text(AQ_KEY_KIND, "map"), aq_body(body)};
    AqId kernel = aq_bench_build(&b, AQ_OP_kernel, NULL, &x, 1, attrs, 2);
    expect_error(&b, aq_result_node(b.g, kernel, 0), x,
                 "take gradients before the graph is fused");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_op_to_second_order),
        cmocka_unit_test(test_every_op_to_third_order),
        cmocka_unit_test(test_random_graphs),
        cmocka_unit_test(test_a_second_run_gives_the_same_bits),
        cmocka_unit_test(test_equal_ones_share),
        cmocka_unit_test(test_detach_stops_gradients),
        cmocka_unit_test(test_inner_nodes_and_the_loss_itself),
        cmocka_unit_test(test_a_loss_of_rank_two_with_one_element),
        cmocka_unit_test(test_only_what_leads_to_wrt_is_built),
        cmocka_unit_test(test_gradients_come_from_where_the_op_came_from),
        cmocka_unit_test(test_the_loss_must_be_one_number),
        cmocka_unit_test(test_integers_have_no_gradient),
        cmocka_unit_test(test_ids_must_belong_to_the_graph),
        cmocka_unit_test(test_kernels_have_no_gradient),
    };
    return cmocka_run_group_tests_name("gradients", tests, NULL, NULL);
}
