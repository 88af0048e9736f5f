/* Map kernels against the interpreter: chosen shapes of every kind of loop. */
#include "tests/support/bench.h"
#include "tests/support/run_kernel.h"

#include <setjmp.h>
#include <string.h>

#include <cmocka.h>

static AqId arg(AqGraph *g, int index, AqType type)
{
    AqAttr attr = aq_int(AQ_KEY_INDEX, index);
    return aq_build(g, AQ_OP_arg, &type, NULL, 0, &attr, 1);
}

static void check(AqGraph *body, const char *name, double tolerance)
{
    if (body->error.status)
        fail_msg("%s: %s", name, body->error.text);
    AqKernelCase test = {.body = body,
                         .kind = "map",
                         .name = name,
                         .tolerance = tolerance,
                         .seed = 7};
    aq_test_run_kernel(&test);
    aq_graph_free(body);
}

static void out(AqGraph *g, AqId id)
{
    char name[16];
    snprintf(name, sizeof name, "y%d", g->n_outputs);
    aq_graph_output(g, name, id, false);
}

/* ---- pointwise, whole and ragged ---- */

static void test_sizes(void **state)
{
    (void)state;
    static const int64_t sizes[] = {1, 2, 7, 8, 9, 15, 16, 17, 31, 100, 1000};
    for (int i = 0; i < AQ_COUNT(sizes); i++) {
        AqGraph *g = aq_graph_new();
        AqType type = aq_type(AQ_F32, 1, &sizes[i]);
        AqId a = arg(g, 0, type), b = arg(g, 1, type);
        out(g, aq_binary(g, AQ_OP_add, aq_binary(g, AQ_OP_mul, a, b), a));
        out(g, aq_unary(g, AQ_OP_neg, a));
        check(g, "a b + a, -a", 1e-6);
    }
}

static void test_scalar(void **state)
{
    (void)state;
    AqGraph *g = aq_graph_new();
    AqId a = arg(g, 0, SCALAR);
    out(g, aq_unary(g, AQ_OP_exp, a));
    check(g, "scalar", 1e-6);
}

static void test_long(void **state)
{
    (void)state; /* several tasks, chunks of one long row, a tail at the end */
    AqGraph *g = aq_graph_new();
    AqId a = arg(g, 0, F32(100003));
    out(g, aq_unary(g, AQ_OP_tanh, a));
    check(g, "long", 1e-6);
}

static void test_bias(void **state)
{
    (void)state;
    static const int64_t channels[] = {3, 4, 8, 10, 16, 20, 40};
    for (int i = 0; i < AQ_COUNT(channels); i++) {
        int64_t c = channels[i];
        AqGraph *g = aq_graph_new();
        AqId x = arg(g, 0, F32(2, 5, 3, c)), b = arg(g, 1, F32(1, 1, 1, c));
        AqId n = arg(g, 2, F32(2, 1, 1, c));
        int64_t dim[] = {2, 5, 3, c};
        AqId y = aq_binary(g, AQ_OP_add, x, aq_broadcast_node(g, b, 4, dim));
        out(g, aq_binary(g, AQ_OP_mul, y, aq_broadcast_node(g, n, 4, dim)));
        check(g, "bias", 1e-6);
    }
}

/* ---- reductions ---- */

static void reduce_case(AqType type, const int64_t *axes, int n_axes)
{
    AqGraph *g = aq_graph_new();
    AqId x = arg(g, 0, type), y = arg(g, 1, type);
    AqId product = aq_binary(g, AQ_OP_mul, x, y);
    AqAttr attr = aq_ints(AQ_KEY_AXES, axes, n_axes);
    AqId moments = aq_build(g, AQ_OP_moments, NULL, &x, 1, &attr, 1);
    out(g, aq_reduce_node(g, AQ_OP_reduce_sum, product, axes, n_axes));
    out(g, aq_reduce_node(g, AQ_OP_reduce_max, x, axes, n_axes));
    out(g, product);
    out(g, aq_result_node(g, moments, 1));
    out(g, aq_result_node(g, moments, 0));
    check(g, "reductions", 1e-5);
    g = aq_graph_new();
    x = arg(g, 0, type);
    out(g, aq_reduce_node(g, AQ_OP_reduce_sum, x, axes, n_axes));
    check(g, "sum", 1e-5);
}

static void test_reductions(void **state)
{
    (void)state;
    static const int64_t first[] = {0}, last[] = {1}, both[] = {0, 1};
    static const int64_t sizes[] = {1, 3, 4, 8, 16, 19, 33, 130};
    for (int i = 0; i < AQ_COUNT(sizes); i++)
        for (int j = 0; j < AQ_COUNT(sizes); j += 1 + i % 2) {
            reduce_case(F32(sizes[i], sizes[j]), first, 1);
            reduce_case(F32(sizes[i], sizes[j]), last, 1);
            reduce_case(F32(sizes[i], sizes[j]), both, 2);
        }
}

static void test_groups(void **state)
{
    (void)state; /* (N, HW, G, C/G) over 1 and 3, as group norm does */
    static const int64_t axes[] = {1, 3};
    static const int64_t inner[] = {1, 2, 3, 4, 8, 10, 16};
    for (int i = 0; i < AQ_COUNT(inner); i++) {
        reduce_case(F32(2, 9, 8, inner[i]), axes, 2);
        reduce_case(F32(3, 7, 5, inner[i]), axes, 2);
    }
}

static void test_deep_reduction(void **state)
{
    (void)state; /* long sums, chunks of kept channels */
    static const int64_t axes[] = {0};
    reduce_case(F32(700, 72), axes, 1);
    reduce_case(F32(1031, 37), axes, 1);
}

/* A large mean must not cost the deviations. */
static void test_moments_cancel(void **state)
{
    (void)state;
    static const int64_t axes[] = {1};
    AqGraph *g = aq_graph_new();
    AqType type = F32(3, 999);
    AqId x = arg(g, 0, type);
    x = aq_binary(g, AQ_OP_add, x, aq_const_like(g, x, 4096));
    AqAttr attr = aq_ints(AQ_KEY_AXES, axes, 1);
    AqId moments = aq_build(g, AQ_OP_moments, NULL, &x, 1, &attr, 1);
    out(g, aq_result_node(g, moments, 1));
    check(g, "moments about 4096", 1e-3);
}

static void test_integers(void **state)
{
    (void)state;
    static const int64_t axes[] = {0};
    AqGraph *g = aq_graph_new();
    AqId a = arg(g, 0, I32(6, 11)), b = arg(g, 1, I32(6, 11));
    AqId one = aq_const_like(g, b, 1);
    AqId q = aq_binary(g, AQ_OP_div, aq_binary(g, AQ_OP_mul, a, a),
                       aq_binary(g, AQ_OP_add, b, one));
    out(g, q);
    out(g, aq_reduce_node(g, AQ_OP_reduce_sum, q, axes, 1));
    out(g, aq_reduce_node(g, AQ_OP_reduce_max, aq_unary(g, AQ_OP_neg, q), axes,
                          1));
    check(g, "integers", 0);
}

/* ---- in place ---- */

static void test_in_place(void **state)
{
    (void)state;
    AqGraph *g = aq_graph_new();
    AqId a = arg(g, 0, F32(5, 333)), b = arg(g, 1, F32(5, 1));
    int64_t dim[] = {5, 333};
    out(g, aq_binary(g, AQ_OP_add, aq_unary(g, AQ_OP_exp, a),
                     aq_broadcast_node(g, b, 2, dim)));
    out(g, aq_binary(g, AQ_OP_sub, a, aq_broadcast_node(g, b, 2, dim)));
    AqKernelCase test = {.body = g,
                         .kind = "map",
                         .name = "in place",
                         .tolerance = 1e-6,
                         .in_place = true};
    aq_test_run_kernel(&test);
    aq_graph_free(g);
}

/* ---- random numbers ---- */

static void random_case(const char *kind, AqType type)
{
    AqGraph *g = aq_graph_new();
    AqId in[] = {arg(g, 0, I32(2)), arg(g, 1, aq_type(AQ_I32, 0, NULL)),
                 arg(g, 2, I32(type.dim[0]))};
    AqAttr attrs[] = {aq_text(AQ_KEY_KIND, kind),
                      aq_int(AQ_KEY_STREAM, 0x7fffabcd)};
    out(g, aq_build(g, AQ_OP_random, &type, in, 3, attrs, 2));
    check(g, kind, 2e-6);
}

static void test_random(void **state)
{
    (void)state;
    random_case("uniform", F32(3, 5, 7));
    random_case("normal", F32(3, 5, 7));
    random_case("normal", F32(2, 2048));
    random_case("uniform", F32(33));
    random_case("uniform", F32(2, 3, 32, 16));
    random_case("normal", F32(2, 5, 4, 64));
    random_case("uniform", F32(2, 192));
}

/* ---- what is refused, in a sentence ---- */

static void refuse(AqGraph *body, const char *kind, const char *expected)
{
    AqKernelCase test = {.body = body, .kind = kind, .name = "refused"};
    AqId kernel;
    AqGraph *g = aq_test_kernel_graph(&test, &kernel);
    AqTarget target;
    AqError error = {0};
    AqCompileOptions options = {.no_cache = true};
    assert_int_equal(aq_target_host(3, &target, &error), AQ_OK);
    assert_null(aq_compile(g, &kernel, 1, &target, &options, &error));
    if (!strstr(error.text, expected))
        fail_msg("\"%s\" does not say \"%s\"", error.text, expected);
    aq_graph_free(g);
    aq_graph_free(body);
}

static void test_refused(void **state)
{
    (void)state;
    static const int64_t first[] = {0}, second[] = {1};
    AqGraph *g = aq_graph_new();
    AqId x = arg(g, 0, F32(4, 4));
    out(g, aq_reduce_node(g, AQ_OP_reduce_sum, x, first, 1));
    out(g, aq_reduce_node(g, AQ_OP_reduce_sum, x, second, 1));
    refuse(g, "map", "its reductions differ in shape or axes");
    g = aq_graph_new();
    x = arg(g, 0, F32(4, 4));
    out(g, x);
    out(g, arg(g, 1, F32(5)));
    refuse(g, "map", "its outputs differ in size");
    g = aq_graph_new();
    x = arg(g, 0, F32(4, 4));
    x = aq_matmul_node(g, x, x, false, false);
    out(g, aq_unary(g, AQ_OP_neg, x));
    refuse(g, "map", "matmul cannot stand inside a kernel");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_sizes),
        cmocka_unit_test(test_scalar),
        cmocka_unit_test(test_long),
        cmocka_unit_test(test_bias),
        cmocka_unit_test(test_reductions),
        cmocka_unit_test(test_groups),
        cmocka_unit_test(test_deep_reduction),
        cmocka_unit_test(test_moments_cancel),
        cmocka_unit_test(test_integers),
        cmocka_unit_test(test_in_place),
        cmocka_unit_test(test_random),
        cmocka_unit_test(test_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
