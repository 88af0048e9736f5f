/* Philox against published vectors, and what is made of its words. */
#include "ir/ir.h"

#include <math.h>
#include <setjmp.h>
#include <stdlib.h>

#include <jansson.h>

#include <cmocka.h>

static void read_words(const json_t *object, const char *key, uint32_t *out,
                       int count)
{
    const char *text = json_string_value(json_object_get(object, key));
    assert_non_null(text);
    char *end = (char *)text;
    for (int i = 0; i < count; i++)
        out[i] = (uint32_t)strtoul(end, &end, 16);
    assert_int_equal(*end, 0);
}

static void test_golden_vectors(void **state)
{
    (void)state;
    json_error_t error;
    json_t *all =
        json_load_file(AQ_SOURCE_DIR "/tests/golden/philox.json", 0, &error);
    assert_non_null(all);
    assert_true(json_array_size(all) >= 20);
    for (size_t i = 0; i < json_array_size(all); i++) {
        uint32_t counter[4], key[2], wanted[4], out[4];
        const json_t *one = json_array_get(all, i);
        read_words(one, "counter", counter, 4);
        read_words(one, "key", key, 2);
        read_words(one, "output", wanted, 4);
        aq_philox(counter, key, out);
        assert_memory_equal(out, wanted, sizeof out);
    }
    json_decref(all);
}

/* Four elements share a counter: (element / 4, sample, stream, step). */
static void test_uniform_reads_its_word(void **state)
{
    (void)state;
    const uint32_t key[2] = {7, 0xffffffff}, step = 11, stream = 0x9abcdef0;
    for (uint32_t element = 0; element < 40; element++) {
        uint32_t counter[4] = {element / 4, 5, stream, step}, out[4];
        aq_philox(counter, key, out);
        double wanted = (out[element % 4] + 0.5) / 4294967296.0;
        double u = aq_random_uniform(key, step, stream, 5, element);
        assert_true(u == wanted);
        assert_true(u > 0 && u < 1);
    }
}

/* A pair (n0, n1) has n0^2 + n1^2 = -2 ln u0 and the angle 2 pi u1. */
static void test_normal_is_box_and_muller(void **state)
{
    (void)state;
    const uint32_t key[2] = {1, 2};
    for (uint32_t element = 0; element < 64; element += 2) {
        double u0 = aq_random_uniform(key, 3, 4, 5, element);
        double u1 = aq_random_uniform(key, 3, 4, 5, element + 1);
        double n0 = aq_random_normal(key, 3, 4, 5, element);
        double n1 = aq_random_normal(key, 3, 4, 5, element + 1);
        assert_true(fabs(n0 * n0 + n1 * n1 + 2 * log(u0)) < 1e-12);
        double turn = atan2(n1, n0) / (2 * M_PI);
        assert_true(fabs(turn + (turn < 0) - u1) < 1e-12);
    }
}

static void test_four_at_once_are_the_same(void **state)
{
    (void)state;
    const uint32_t key[2] = {8, 9};
    for (uint32_t block = 0; block < 50000; block++) {
        double n[4], u[4];
        aq_random_normals(key, 1, 2, 3, block, n);
        aq_random_uniforms(key, 1, 2, 3, block, u);
        for (uint32_t i = 0; i < 4; i++) {
            uint32_t element = 4 * block + i;
            assert_true(n[i] == aq_random_normal(key, 1, 2, 3, element));
            assert_true(u[i] == aq_random_uniform(key, 1, 2, 3, element));
        }
    }
}

static void test_many_at_once_are_the_same(void **state)
{
    enum { MOST = 1001 };
    static const int64_t counts[] = {1, 3, 4, 7, 64, MOST};
    static const uint32_t firsts[] = {0, 1, 77777, (1 << 28) - 500,
                                      (1 << 30) - MOST};
    (void)state;
    const uint32_t key[2] = {0x80000008u, 0xFFFFFFF9u};
    float out[4 * MOST + 1];
    for (int c = 0; c < AQ_COUNT(counts) * AQ_COUNT(firsts); c++) {
        int64_t count = counts[c % AQ_COUNT(counts)];
        uint32_t first = firsts[c / AQ_COUNT(counts)];
        out[4 * count] = 7;
        aq_random_spread(key, 0xFEDCBA98u, 3, first, count, 0.037, out);
        for (int64_t i = 0; i < count; i++) {
            double u[4];
            aq_random_uniforms(key, 0, 0xFEDCBA98u, 3, first + (uint32_t)i, u);
            for (int k = 0; k < 4; k++)
                assert_true(out[4 * i + k] == (float)(0.037 * (2 * u[k] - 1)));
        }
        assert_true(out[4 * count] == 7);
    }
}

static void test_normal_has_normal_moments(void **state)
{
    (void)state;
    const uint32_t key[2] = {20, 26};
    enum { COUNT = 100000 };
    double sum[5] = {0};
    for (uint32_t i = 0; i < COUNT; i++) {
        double n = aq_random_normal(key, 0, 1, i / 1000, i % 1000), power = 1;
        for (int p = 0; p < 5; p++, power *= n)
            sum[p] += power / COUNT;
    }
    assert_true(fabs(sum[1]) < 0.01); /* three deviations and more */
    assert_true(fabs(sum[2] - 1) < 0.02);
    assert_true(fabs(sum[3]) < 0.04);
    assert_true(fabs(sum[4] - 3) < 0.12);
}

/* Every part of the place changes the draw. */
static void test_draws_differ_by_every_coordinate(void **state)
{
    (void)state;
    const uint32_t key[2] = {1, 2}, other[2] = {1, 3}, another[2] = {2, 2};
    double here = aq_random_uniform(key, 3, 4, 5, 6);
    assert_true(here == aq_random_uniform(key, 3, 4, 5, 6));
    assert_true(here != aq_random_uniform(other, 3, 4, 5, 6));
    assert_true(here != aq_random_uniform(another, 3, 4, 5, 6));
    assert_true(here != aq_random_uniform(key, 2, 4, 5, 6));
    assert_true(here != aq_random_uniform(key, 3, 5, 5, 6));
    assert_true(here != aq_random_uniform(key, 3, 4, 6, 6));
    assert_true(here != aq_random_uniform(key, 3, 4, 5, 7));
    assert_true(here != aq_random_uniform(key, 3, 4, 5, 10));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_golden_vectors),
        cmocka_unit_test(test_uniform_reads_its_word),
        cmocka_unit_test(test_normal_is_box_and_muller),
        cmocka_unit_test(test_four_at_once_are_the_same),
        cmocka_unit_test(test_many_at_once_are_the_same),
        cmocka_unit_test(test_normal_has_normal_moments),
        cmocka_unit_test(test_draws_differ_by_every_coordinate),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
