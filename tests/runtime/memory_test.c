/* Arrays by name. */
#include "runtime/runtime.h"

#include <setjmp.h>
#include <string.h>

#include <cmocka.h>

static void test_an_array_is_made_once(void **state)
{
    (void)state;
    AqError error = {0};
    AqMemory *memory = aq_memory_new(&error);
    float *m = aq_memory_array(memory, "m", 4000, &error);
    assert_non_null(m);
    assert_int_equal((uintptr_t)m % 64, 0);
    for (int i = 0; i < 1000; i++)
        assert_true(m[i] == 0);
    m[7] = 3;
    assert_ptr_equal(aq_memory_array(memory, "m", 100, &error), m);
    int64_t bytes = 0;
    assert_ptr_equal(aq_memory_find(memory, "m", &bytes), m);
    assert_int_equal(bytes, 4000);
    assert_null(aq_memory_find(memory, "v", &bytes));
    assert_int_equal(bytes, 4000);
    assert_true(m[7] == 3);
    assert_int_equal(error.status, AQ_OK);
    aq_memory_free(memory);
}

static void test_new_until_it_is_taken(void **state)
{
    (void)state;
    AqError error = {0};
    AqMemory *memory = aq_memory_new(&error);
    assert_true(aq_memory_is_new(memory, "m"));
    float *m = aq_memory_ahead(memory, "m", 4000, &error);
    assert_ptr_equal(aq_memory_ahead(memory, "m", 4000, &error), m);
    assert_ptr_equal(aq_memory_find(memory, "m", NULL), m);
    assert_true(aq_memory_is_new(memory, "m"));
    assert_ptr_equal(aq_memory_array(memory, "m", 4000, &error), m);
    assert_false(aq_memory_is_new(memory, "m"));
    assert_ptr_equal(aq_memory_ahead(memory, "m", 4000, &error), m);
    assert_false(aq_memory_is_new(memory, "m"));
    aq_memory_free(memory);
}

static void test_a_larger_one_is_refused(void **state)
{
    (void)state;
    AqError error = {0};
    AqMemory *memory = aq_memory_new(&error);
    assert_non_null(aq_memory_array(memory, "m", 4000, &error));
    assert_null(aq_memory_array(memory, "m", 4004, &error));
    assert_string_equal(error.text,
                        "the array m has 4000 bytes, and 4004 are wanted");
    aq_memory_free(memory);
}

static void test_many_arrays_stay_where_they_are(void **state)
{
    (void)state;
    enum { COUNT = 200 };
    AqError error = {0};
    AqMemory *memory = aq_memory_new(&error);
    int *arrays[COUNT];
    for (int i = 0; i < COUNT; i++) {
        char name[16];
        snprintf(name, sizeof name, "a%d", i);
        arrays[i] = aq_memory_array(memory, name, 4, &error);
        *arrays[i] = i;
    }
    for (int i = 0; i < COUNT; i++) {
        char name[16];
        snprintf(name, sizeof name, "a%d", i);
        assert_ptr_equal(aq_memory_find(memory, name, NULL), arrays[i]);
        assert_int_equal(*arrays[i], i);
    }
    assert_int_equal(aq_memory_bytes(memory), COUNT * 4096);
    aq_memory_free(memory);
    aq_memory_free(NULL);
}

static void test_sharing(void **state)
{
    (void)state;
    AqError error = {0};
    AqMemory *training = aq_memory_new(&error), *here = aq_memory_new(&error);
    float *ema = aq_memory_array(training, "ema", 64, &error);
    assert_int_equal(aq_memory_share(here, "weights", training, "ema", &error),
                     AQ_OK);
    assert_ptr_equal(aq_memory_array(here, "weights", 64, &error), ema);
    assert_int_equal(aq_memory_bytes(here), 0); /* it is counted there */
    assert_int_equal(aq_memory_share(here, "weights", training, "ema", &error),
                     AQ_INTERNAL);
    assert_string_equal(error.text,
                        "the array ema cannot be shared as weights");
    aq_memory_free(here);
    ema[0] = 1; /* still there */
    aq_memory_free(training);
}

static void test_memory_that_the_system_refuses(void **state)
{
    (void)state;
    AqError error = {0};
    AqMemory *memory = aq_memory_new(&error);
    assert_null(aq_memory_array(memory, "huge", (int64_t)1 << 60, &error));
    assert_int_equal(error.status, AQ_NO_MEMORY);
    assert_null(aq_memory_find(memory, "huge", NULL));
    AqError again = {0}; /* the name is free */
    assert_non_null(aq_memory_array(memory, "huge", 4, &again));
    aq_memory_free(memory);
}

static void test_pages(void **state)
{
    (void)state;
    const int64_t sizes[] = {0,       1,       4096,    4097,
                             2097151, 2 << 20, 5 << 20, (5 << 20) + 4097};
    for (int i = 0; i < AQ_COUNT(sizes); i++) {
        AqError error = {0};
        char *pages = aq_pages(sizes[i], &error);
        assert_non_null(pages);
        assert_int_equal((uintptr_t)pages % 4096, 0);
        if (sizes[i] >= 2 << 20) /* what huge pages ask for */
            assert_int_equal((uintptr_t)pages % (2 << 20), 0);
        for (int64_t k = 0; k < sizes[i]; k += 512)
            assert_int_equal(pages[k], 0);
        memset(pages, 1, (size_t)sizes[i]);
        aq_pages_free(pages, sizes[i]);
    }
    aq_pages_free(NULL, 10);
}

/* Small pages at the end, however large the rest: a budget is used to the last
 * of them. */
static void test_no_more_than_whole_pages(void **state)
{
    (void)state;
    assert_int_equal(aq_whole_pages(1), 4096);
    assert_int_equal(aq_whole_pages((5 << 20) + 1), (5 << 20) + 4096);
    assert_int_equal(aq_pages_within((5 << 20) + 4097), (5 << 20) + 4096);
    assert_int_equal(aq_pages_within(4095), 0);
    assert_int_equal(aq_pages_within(-1), 0);
}

static void test_pages_lie_apart(void **state)
{
    (void)state;
    enum { BYTES = (2 << 20) + 4096, MANY = 64 };
    AqError error = {0};
    char *pages[MANY];
    for (int i = 0; i < MANY; i++) {
        pages[i] = aq_pages(BYTES, &error);
        assert_non_null(pages[i]);
        memset(pages[i], i, BYTES);
    }
    for (int i = 0; i < MANY; i++) { /* apart from each other */
        assert_int_equal(pages[i][0], i);
        assert_int_equal(pages[i][BYTES - 1], i);
        aq_pages_free(pages[i], BYTES);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_an_array_is_made_once),
        cmocka_unit_test(test_new_until_it_is_taken),
        cmocka_unit_test(test_a_larger_one_is_refused),
        cmocka_unit_test(test_many_arrays_stay_where_they_are),
        cmocka_unit_test(test_sharing),
        cmocka_unit_test(test_memory_that_the_system_refuses),
        cmocka_unit_test(test_pages),
        cmocka_unit_test(test_no_more_than_whole_pages),
        cmocka_unit_test(test_pages_lie_apart),
    };
    return cmocka_run_group_tests_name("memory", tests, NULL, NULL);
}
