/* The interpreter's pointwise ops, sources, reductions, movement and look-ups
 * against numbers worked out by hand. */
#include "tests/support/bench.h"

#include <math.h>
#include <setjmp.h>
#include <string.h>

#include <cmocka.h>

/* ---- pointwise ---- */

typedef struct Case {
    AqOp op;
    double wanted, in[3];
} Case;

/* clang-format off */
static const Case real_cases[] = {
    {AQ_OP_neg, -1.5, {1.5}}, {AQ_OP_abs, 1.5, {-1.5}}, {AQ_OP_abs, 2, {2}},
    {AQ_OP_sign, -1, {-7}}, {AQ_OP_sign, 0, {0}}, {AQ_OP_sign, 1, {0.1}},
    {AQ_OP_floor, -2, {-1.5}}, {AQ_OP_floor, 1, {1.5}},
    {AQ_OP_exp, 2.718281828459045, {1}}, {AQ_OP_exp, 0, {-INFINITY}},
    {AQ_OP_log, 0.6931471805599453, {2}}, {AQ_OP_log, -INFINITY, {0}},
    {AQ_OP_log, NAN, {-1}},
    {AQ_OP_sqrt, 3, {9}}, {AQ_OP_sqrt, NAN, {-1}},
    {AQ_OP_rsqrt, 0.5, {4}}, {AQ_OP_rsqrt, INFINITY, {0}},
    {AQ_OP_sin, 0.479425538604203, {0.5}},
    {AQ_OP_cos, 0.8775825618903728, {0.5}},
    {AQ_OP_tanh, 0.46211715726000973, {0.5}},
    {AQ_OP_erf, 0.5204998778130465, {0.5}},
    {AQ_OP_sigmoid, 0.6224593312018546, {0.5}}, {AQ_OP_sigmoid, 0, {-2000}},
    {AQ_OP_sigmoid, 0.3775406687981454, {-0.5}}, {AQ_OP_sigmoid, 1, {2000}},
    {AQ_OP_is_finite, 1, {1e300}}, {AQ_OP_is_finite, 0, {INFINITY}},
    {AQ_OP_is_finite, 0, {NAN}},
    {AQ_OP_detach, 1.25, {1.25}}, {AQ_OP_cast, -1, {-1.75}},
    {AQ_OP_add, 3.75, {1.5, 2.25}}, {AQ_OP_sub, -0.75, {1.5, 2.25}},
    {AQ_OP_mul, 3.375, {1.5, 2.25}}, {AQ_OP_div, 0.75, {1.5, 2}},
    {AQ_OP_div, -INFINITY, {-1, 0}}, {AQ_OP_div, NAN, {0, 0}},
    {AQ_OP_max, 2, {1, 2}}, {AQ_OP_max, 1, {1, -2}},
    {AQ_OP_max, NAN, {NAN, 1}}, {AQ_OP_max, NAN, {1, NAN}},
    {AQ_OP_min, 1, {1, 2}}, {AQ_OP_min, -2, {1, -2}},
    {AQ_OP_min, NAN, {NAN, 1}}, {AQ_OP_min, NAN, {1, NAN}},
    {AQ_OP_less, 1, {1, 2}}, {AQ_OP_less, 0, {2, 2}}, {AQ_OP_less, 0, {NAN, 2}},
    {AQ_OP_less_equal, 1, {2, 2}}, {AQ_OP_less_equal, 0, {2.5, 2}},
    {AQ_OP_less_equal, 0, {2, NAN}},
    {AQ_OP_equal, 1, {2, 2}}, {AQ_OP_equal, 0, {1, 2}},
    {AQ_OP_equal, 0, {NAN, NAN}},
    {AQ_OP_select, 5, {1, 5, NAN}}, {AQ_OP_select, 6, {0, NAN, 6}},
    {AQ_OP_select, 5, {-0.5, 5, 6}}, {AQ_OP_select, 6, {-0.0, 5, 6}},
};

static const Case integer_cases[] = {
    {AQ_OP_neg, -3, {3}}, {AQ_OP_neg, INT32_MIN, {INT32_MIN}},
    {AQ_OP_abs, 3, {-3}}, {AQ_OP_abs, INT32_MIN, {INT32_MIN}},
    {AQ_OP_cast, 3, {3}}, {AQ_OP_detach, -3, {-3}},
    {AQ_OP_add, 5, {2, 3}}, {AQ_OP_add, INT32_MIN, {INT32_MAX, 1}},
    {AQ_OP_sub, -1, {2, 3}}, {AQ_OP_sub, INT32_MAX, {INT32_MIN, 1}},
    {AQ_OP_mul, -6, {2, -3}},
    /* 2^62 - 2^32 + 1 is no double: low word 1 */
    {AQ_OP_mul, 1, {INT32_MAX, INT32_MAX}},
    {AQ_OP_div, -3, {-7, 2}}, {AQ_OP_div, 3, {7, 2}},
    {AQ_OP_div, INT32_MIN, {INT32_MIN, -1}},
    {AQ_OP_max, 3, {2, 3}}, {AQ_OP_min, 2, {2, 3}},
    {AQ_OP_less, 1, {2, 3}}, {AQ_OP_less_equal, 0, {4, 3}},
    {AQ_OP_equal, 1, {3, 3}},
    {AQ_OP_select, 4, {1, 4, 5}}, {AQ_OP_select, 5, {0, 4, 5}},
};
/* clang-format on */

static void check_case(const Case *one, AqElement element)
{
    AqBench bench = aq_bench_new(1);
    AqType type = aq_type(element, 1, (int64_t[]){1});
    AqId in[] = {
        aq_bench_input(&bench, "a", type, one->in),
        aq_bench_input(&bench, "b", type, one->in + 1),
        aq_bench_input(&bench, "c", type, one->in + 2),
    };
    const AqOpInfo *info = &aq_op_info[one->op];
    AqType other = type; /* what a cast makes of it */
    other.element = element == AQ_F32 ? AQ_I32 : AQ_F32;
    AqId id =
        aq_bench_build(&bench, one->op, one->op == AQ_OP_cast ? &other : NULL,
                       in, info->inputs, NONE);
    double got = aq_bench_value(&bench, id)[0];
    if (isnan(one->wanted)
            ? !isnan(got)
            : got != one->wanted && !(fabs(got - one->wanted) < 1e-15))
        fail_msg("%s(%g, %g, %g) is %.17g, not %.17g", info->name, one->in[0],
                 one->in[1], one->in[2], got, one->wanted);
    aq_bench_free(&bench);
}

static void test_pointwise(void **state)
{
    (void)state;
    bool real[AQ_OP_COUNT] = {0}, whole[AQ_OP_COUNT] = {0};
    for (int i = 0; i < AQ_COUNT(real_cases); i++) {
        check_case(&real_cases[i], AQ_F32);
        real[real_cases[i].op] = true;
    }
    for (int i = 0; i < AQ_COUNT(integer_cases); i++) {
        check_case(&integer_cases[i], AQ_I32);
        whole[integer_cases[i].op] = true;
    }
    for (int op = 0; op < AQ_OP_COUNT; op++) {
        unsigned facts = aq_op_info[op].facts;
        if (facts & AQ_POINTWISE && !real[op])
            fail_msg("%s has no case", aq_op_info[op].name);
        if (facts & AQ_POINTWISE && facts & AQ_INTEGERS && !whole[op])
            fail_msg("%s has no integer case", aq_op_info[op].name);
    }
}

static void test_cast_rounds_towards_zero(void **state)
{
    (void)state;
    AqBench bench = aq_bench_new(1);
    const double in[] = {1.9, -1.9, 0.5, 1e10, NAN};
    const double wanted[] = {1, -1, 0, INT32_MIN, INT32_MIN};
    AqId x = aq_bench_input(&bench, "x", F32(5), in);
    AqId y = aq_cast_node(bench.g, x, AQ_I32);
    aq_bench_close(aq_bench_value(&bench, y), wanted, 5, 0);
    aq_bench_free(&bench);
}

static void test_integer_division_by_zero_is_an_error(void **state)
{
    (void)state;
    AqBench bench = aq_bench_new(1);
    bench.g->file = "models/m.c";
    bench.g->line = 7;
    bench.g->scope = "mid";
    AqId a = aq_bench_input(&bench, "a", I32(3), (const double[]){4, 5, 6});
    AqId b = aq_bench_input(&bench, "b", I32(3), (const double[]){1, 0, 2});
    AqId y = aq_binary(bench.g, AQ_OP_div, a, b);
    assert_string_equal(aq_bench_error(&bench, y),
                        "models/m.c:7: div %2: element 1 divides the integer "
                        "5 by zero in scope mid");
    aq_bench_free(&bench);
}

/* ---- sources ---- */

static void test_const_table_iota(void **state)
{
    (void)state;
    AqBench bench = aq_bench_new(1);
    AqType real = F32(2, 3), whole = I32(2, 3, 2);
    const double rows[] = {1, 2.5, 3, 4, 5, 6e9};
    const double first[] = {0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1};
    const double second[] = {0, 0, 1, 1, 2, 2, 0, 0, 1, 1, 2, 2};
    const double fives[] = {5.5, 5.5, 5.5, 5.5, 5.5, 5.5};
    AqId id = aq_const_node(bench.g, &real, 5.5);
    aq_bench_close(aq_bench_value(&bench, id), fives, 6, 0);
    id = aq_table_node(bench.g, &real, rows);
    aq_bench_close(aq_bench_value(&bench, id), rows, 6, 0);
    id = aq_iota_node(bench.g, &whole, 0);
    aq_bench_close(aq_bench_value(&bench, id), first, 12, 0);
    id = aq_iota_node(bench.g, &whole, 1);
    aq_bench_close(aq_bench_value(&bench, id), second, 12, 0);
    aq_bench_free(&bench);
}

/* Sample n's numbers depend on sample[n] alone, not on its place. */
static void check_random(const char *kind, bool normal)
{
    AqBench bench = aq_bench_new(1);
    const double samples[] = {40, 3, -1};
    AqId key = aq_bench_input(&bench, "key", I32(2), (const double[]){-5, 9});
    AqId step = aq_bench_input(&bench, "step", aq_type(AQ_I32, 0, NULL),
                               (const double[]){12});
    AqId sample = aq_bench_input(&bench, "sample", I32(3), samples);
    AqType type = F32(3, 2, 5);
    AqId id = BUILD(
        &bench, random, &type, INPUTS(key, step, sample),
        ATTRS(aq_text(AQ_KEY_KIND, kind), aq_int(AQ_KEY_STREAM, 0xfedcba98)));
    const double *got = aq_bench_value(&bench, id);
    const uint32_t words[2] = {(uint32_t)-5, 9};
    for (uint32_t i = 0; i < 30; i++) {
        uint32_t n = (uint32_t)(int32_t)samples[i / 10];
        double (*draw)(const uint32_t *, uint32_t, uint32_t, uint32_t,
                       uint32_t) =
            normal ? aq_random_normal : aq_random_uniform;
        assert_true(got[i] == draw(words, 12, 0xfedcba98, n, i % 10));
    }
    aq_bench_free(&bench);
}

static void test_random(void **state)
{
    (void)state;
    check_random("normal", true);
    check_random("uniform", false);
}

/* ---- reductions ---- */

static void test_reductions(void **state)
{
    (void)state;
    AqBench bench = aq_bench_new(1);
    const double in[] = {1, 2, 3, 4, 5, 6, -1, -2, -3, -4, -5, NAN};
    AqId x = aq_bench_input(&bench, "x", F32(2, 3, 2), in);
    AqId id = aq_reduce_node(bench.g, AQ_OP_reduce_sum, x, DIMS_(1), 1);
    const double over_middle[] = {9, 12, -9, NAN};
    aq_bench_close(aq_bench_value(&bench, id), over_middle, 4, 0);
    id = aq_reduce_node(bench.g, AQ_OP_reduce_sum, x, DIMS_(0, 2), 2);
    const double over_ends[] = {0, 0, NAN};
    aq_bench_close(aq_bench_value(&bench, id), over_ends, 3, 0);
    id = aq_reduce_node(bench.g, AQ_OP_reduce_max, x, DIMS_(0, 2), 2);
    const double largest[] = {2, 4, NAN};
    aq_bench_close(aq_bench_value(&bench, id), largest, 3, 0);
    id = aq_reduce_node(bench.g, AQ_OP_reduce_max, x, DIMS_(1), 1);
    const double middle[] = {5, 6, -1, NAN};
    aq_bench_close(aq_bench_value(&bench, id), middle, 4, 0);
    aq_bench_free(&bench);
}

static void test_integer_reductions_are_exact(void **state)
{
    (void)state;
    AqBench bench = aq_bench_new(1);
    const double in[] = {INT32_MAX, 1, 5, -7, -9, -8};
    AqId x = aq_bench_input(&bench, "x", I32(2, 3), in);
    AqId id = aq_reduce_node(bench.g, AQ_OP_reduce_sum, x, DIMS_(1), 1);
    aq_bench_close(aq_bench_value(&bench, id),
                   (const double[]){INT32_MIN + 5., -24}, 2, 0);
    id = aq_reduce_node(bench.g, AQ_OP_reduce_max, x, DIMS_(1), 1);
    aq_bench_close(aq_bench_value(&bench, id), (const double[]){INT32_MAX, -7},
                   2, 0);
    aq_bench_free(&bench);
}

/* The mean is large against the spread: E[x^2] - mean^2 would lose it all. */
static void test_moments_do_not_cancel(void **state)
{
    (void)state;
    AqBench bench = aq_bench_new(1);
    const double in[] = {1e9 + 1, 0, 1e9 + 2, 0, 1e9 + 3, 0, 1e9 + 6, 12};
    AqId x = aq_bench_input(&bench, "x", F32(4, 2), in);
    AqId both = BUILD(&bench, moments, NULL, INPUTS(x), ATTRS(INTS(AXES, 0)));
    AqId mean = aq_result_node(bench.g, both, 0);
    AqId m2 = aq_result_node(bench.g, both, 1);
    aq_bench_close(aq_bench_value(&bench, mean), (const double[]){1e9 + 3, 3},
                   2, 0);
    aq_bench_close(aq_bench_value(&bench, m2), (const double[]){14, 108}, 2, 0);
    aq_bench_free(&bench);
}

/* ---- movement ---- */

static const double six[] = {1, 2, 3, 4, 5, 6};

static void test_reshape_transpose(void **state)
{
    (void)state;
    AqBench bench = aq_bench_new(1);
    AqId x = aq_bench_input(&bench, "x", F32(1, 2, 3), six);
    AqId id = aq_reshape_node(bench.g, x, 2, DIMS_(3, 2));
    aq_bench_close(aq_bench_value(&bench, id), six, 6, 0);
    id = aq_transpose_node(bench.g, x, DIMS_(2, 0, 1));
    assert_int_equal(aq_node(bench.g, id)->type.dim[0], 3);
    const double turned[] = {1, 4, 2, 5, 3, 6};
    aq_bench_close(aq_bench_value(&bench, id), turned, 6, 0);
    aq_bench_free(&bench);
}

static void test_slice_pad(void **state)
{
    (void)state;
    AqBench bench = aq_bench_new(1);
    AqId x = aq_bench_input(&bench, "x", F32(2, 3), six);
    AqId id = aq_slice_node(bench.g, x, DIMS_(1, 0), DIMS_(1, 2), DIMS_(1, 2));
    aq_bench_close(aq_bench_value(&bench, id), (const double[]){4, 6}, 2, 0);
    id = aq_pad_node(bench.g, x, DIMS_(1, 1), DIMS_(1, 2), DIMS_(3, 6));
    const double padded[] = {0, 0, 0, 0, 0, 0, 0, 1, 0,
                             2, 0, 3, 0, 4, 0, 5, 0, 6};
    aq_bench_close(aq_bench_value(&bench, id), padded, 18, 0);
    aq_bench_free(&bench);
}

static double inner(const double *a, const double *b, int64_t count)
{
    double sum = 0;
    for (int64_t i = 0; i < count; i++)
        sum += a[i] * b[i];
    return sum;
}

/* <slice x, y> = <x, pad y> */
static void test_slice_and_pad_are_adjoint(void **state)
{
    (void)state;
    uint64_t seed = 11;
    for (int round = 0; round < 50; round++) {
        AqBench bench = aq_bench_new(seed);
        int64_t dim[3], start[3], size[3], step[3];
        for (int i = 0; i < 3; i++) {
            dim[i] = 1 + aq_test_below(&seed, 7);
            start[i] = aq_test_below(&seed, dim[i]);
            step[i] = 1 + aq_test_below(&seed, 3);
            int64_t most = (dim[i] - 1 - start[i]) / step[i] + 1;
            size[i] = 1 + aq_test_below(&seed, most);
        }
        AqType large = aq_type(AQ_F32, 3, dim),
               small = aq_type(AQ_F32, 3, size);
        AqId x = aq_bench_random(&bench, "x", large);
        AqId y = aq_bench_random(&bench, "y", small);
        AqId cut = aq_slice_node(bench.g, x, start, size, step);
        AqId put = aq_pad_node(bench.g, y, start, step, dim);
        double left = inner(aq_bench_value(&bench, cut),
                            aq_bench_value(&bench, y), aq_elements(&small));
        double right = inner(aq_bench_value(&bench, x),
                             aq_bench_value(&bench, put), aq_elements(&large));
        assert_true(fabs(left - right) < 1e-12);
        aq_bench_free(&bench);
    }
}

static void test_broadcast_concat_repeat(void **state)
{
    (void)state;
    AqBench bench = aq_bench_new(1);
    AqId row = aq_bench_input(&bench, "row", F32(1, 2), six);
    AqId id = aq_broadcast_node(bench.g, row, 2, DIMS_(3, 2));
    aq_bench_close(aq_bench_value(&bench, id),
                   (const double[]){1, 2, 1, 2, 1, 2}, 6, 0);
    AqId column = aq_bench_input(&bench, "column", F32(2, 1), six);
    id = aq_broadcast_node(bench.g, column, 2, DIMS_(2, 3));
    aq_bench_close(aq_bench_value(&bench, id),
                   (const double[]){1, 1, 1, 2, 2, 2}, 6, 0);
    AqId square = aq_bench_input(&bench, "square", F32(2, 2), six);
    id = aq_concat_node(bench.g, (const AqId[]){square, column, square}, 3, 1);
    const double joined[] = {1, 2, 1, 1, 2, 3, 4, 2, 3, 4};
    aq_bench_close(aq_bench_value(&bench, id), joined, 10, 0);
    id = aq_concat_node(bench.g, (const AqId[]){row, square}, 2, 0);
    aq_bench_close(aq_bench_value(&bench, id),
                   (const double[]){1, 2, 1, 2, 3, 4}, 6, 0);
    id = aq_repeat_node(bench.g, square, DIMS_(2, 3));
    const double large[] = {1, 1, 1, 2, 2, 2, 1, 1, 1, 2, 2, 2,
                            3, 3, 3, 4, 4, 4, 3, 3, 3, 4, 4, 4};
    aq_bench_close(aq_bench_value(&bench, id), large, 24, 0);
    aq_bench_free(&bench);
}

/* ---- look-up ---- */

static void test_gather_scatter_add(void **state)
{
    (void)state;
    AqBench bench = aq_bench_new(1);
    AqId table = aq_bench_input(&bench, "table", F32(3, 2), six);
    AqId index = aq_bench_input(&bench, "index", I32(2, 2),
                                (const double[]){2, 0, 2, 1});
    AqId id = BUILD(&bench, gather, NULL, INPUTS(table, index), NONE);
    const double rows[] = {5, 6, 1, 2, 5, 6, 3, 4};
    assert_int_equal(aq_node(bench.g, id)->type.rank, 3);
    aq_bench_close(aq_bench_value(&bench, id), rows, 8, 0);
    AqType type = F32(4, 2);
    id = BUILD(&bench, scatter_add, &type, INPUTS(index, id), NONE);
    const double sums[] = {1, 2, 3, 4, 10, 12, 0, 0};
    aq_bench_close(aq_bench_value(&bench, id), sums, 8, 0);
    aq_bench_free(&bench);
}

static void test_an_index_outside_is_an_error(void **state)
{
    (void)state;
    AqBench bench = aq_bench_new(1);
    AqId table = aq_bench_input(&bench, "table", F32(3, 2), six);
    AqId index =
        aq_bench_input(&bench, "index", I32(2), (const double[]){2, 3});
    AqId id = BUILD(&bench, gather, NULL, INPUTS(table, index), NONE);
    assert_non_null(strstr(aq_bench_error(&bench, id),
                           "gather %2: index 3 (element 1) is outside 0 .. 2"));
    aq_bench_free(&bench);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_pointwise),
        cmocka_unit_test(test_cast_rounds_towards_zero),
        cmocka_unit_test(test_integer_division_by_zero_is_an_error),
        cmocka_unit_test(test_const_table_iota),
        cmocka_unit_test(test_random),
        cmocka_unit_test(test_reductions),
        cmocka_unit_test(test_integer_reductions_are_exact),
        cmocka_unit_test(test_moments_do_not_cancel),
        cmocka_unit_test(test_reshape_transpose),
        cmocka_unit_test(test_slice_pad),
        cmocka_unit_test(test_slice_and_pad_are_adjoint),
        cmocka_unit_test(test_broadcast_concat_repeat),
        cmocka_unit_test(test_gather_scatter_add),
        cmocka_unit_test(test_an_index_outside_is_an_error),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
