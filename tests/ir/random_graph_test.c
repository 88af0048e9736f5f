/* Random graphs reach every op and stay finite; comparing them finds equal ones
 * equal and small changes. */
#include "tests/support/bench.h"

#include <math.h>
#include <setjmp.h>

#include <cmocka.h>

#include "tests/support/random_graph.h"

enum { GRAPHS = 150, STEPS = 40 };

static void test_every_op_occurs(void **state)
{
    (void)state;
    int seen[AQ_OP_COUNT] = {0};
    for (uint64_t seed = 1; seed <= GRAPHS; seed++) {
        AqGraph *g = aq_test_random_graph(seed, STEPS);
        for (AqId id = 0; id < g->count; id++)
            seen[aq_node(g, id)->op]++;
        aq_graph_free(g);
    }
    for (int op = 0; op < AQ_OP_COUNT; op++)
        if (!seen[op] && op != AQ_OP_kernel && op != AQ_OP_arg)
            fail_msg("%s does not occur", aq_op_info[op].name);
}

static double largest(const AqGraph *g, uint64_t seed)
{
    AqArena *arena = aq_arena_new();
    AqError error = {0};
    AqBinding *bindings = AQ_NEW_ARRAY(arena, AqBinding, g->count);
    AqValue *values = AQ_NEW_ARRAY(arena, AqValue, g->n_outputs);
    int bound = aq_test_bind(g, seed, bindings, arena);
    if (aq_interpret(g, bindings, bound, values, arena, &error) != AQ_OK)
        fail_msg("seed %llu: %s", (unsigned long long)seed, error.text);
    double most = 0;
    for (int i = 0; i < g->n_outputs; i++)
        for (int64_t j = 0; j < aq_elements(&values[i].type); j++) {
            assert_true(isfinite(values[i].data[j]));
            most = fmax(most, fabs(values[i].data[j]));
        }
    aq_arena_free(arena);
    return most;
}

static void test_values_are_moderate(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= GRAPHS; seed++) {
        AqGraph *g = aq_test_random_graph(seed, STEPS);
        double most = largest(g, seed);
        assert_true(most > 0.1 && most < 1000);
        aq_graph_free(g);
    }
}

static void test_a_graph_equals_itself(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= GRAPHS; seed++) {
        AqError error = {0};
        AqGraph *g = aq_test_random_graph(seed, STEPS);
        AqGraph *again = aq_test_random_graph(seed, STEPS);
        assert_int_equal(g->count, again->count);
        aq_compare_graphs(g, again, seed, 0, &error);
        if (error.status != AQ_OK)
            fail_msg("seed %llu: %s", (unsigned long long)seed, error.text);
        aq_graph_free(g);
        aq_graph_free(again);
    }
}

/* The two differ by one part in a million of one output. */
static void test_a_small_change_is_seen(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= GRAPHS; seed++) {
        AqError error = {0};
        AqGraph *g = aq_test_random_graph(seed, STEPS);
        AqGraph *other = aq_test_random_graph(seed, STEPS);
        AqOutput *last = &other->outputs[other->n_outputs - 1];
        AqId shift = aq_const_like(other, last->node, 1e-6 * 20);
        last->node = aq_binary(other, AQ_OP_add, last->node, shift);
        aq_compare_graphs(g, other, seed, 1e-9, &error);
        if (error.status != AQ_INTERNAL)
            fail_msg("seed %llu: no difference", (unsigned long long)seed);
        aq_graph_free(g);
        aq_graph_free(other);
    }
}

static void test_print_and_parse_are_inverses(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= GRAPHS; seed++) {
        AqError error = {0};
        AqText first = {0}, second = {0};
        AqGraph *g = aq_test_random_graph(seed, STEPS);
        aq_graph_print(g, &first);
        AqGraph *read = aq_graph_parse(first.data, "printed", &error);
        if (!read)
            fail_msg("seed %llu: %s", (unsigned long long)seed, error.text);
        aq_graph_print(read, &second);
        assert_string_equal(first.data, second.data);
        assert_int_equal(aq_graph_verify(read, &error), AQ_OK);
        aq_text_free(&first);
        aq_text_free(&second);
        aq_graph_free(g);
        aq_graph_free(read);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_op_occurs),
        cmocka_unit_test(test_values_are_moderate),
        cmocka_unit_test(test_print_and_parse_are_inverses),
        cmocka_unit_test(test_a_graph_equals_itself),
        cmocka_unit_test(test_a_small_change_is_seen),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
