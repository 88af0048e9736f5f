/* ir/base: errors, arenas, text, whole files, threads. */
#include "ir/base/base.h"

#include <dirent.h>
#include <setjmp.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

/* errors */

static void test_the_first_error_sticks(void **state)
{
    (void)state;
    AqError error = {0};
    assert_int_equal(aq_fail(&error, AQ_IO, "%s: number %d", "a", 1), AQ_IO);
    assert_int_equal(aq_fail(&error, AQ_INTERNAL, "another"), AQ_IO);
    assert_int_equal(aq_no_memory(&error, 1), AQ_IO);
    assert_int_equal(error.status, AQ_IO);
    assert_string_equal(error.text, "a: number 1");
}

static void test_an_error_may_be_unwanted(void **state)
{
    (void)state;
    assert_int_equal(aq_fail(NULL, AQ_BAD_INPUT, "x"), AQ_BAD_INPUT);
    assert_int_equal(aq_no_memory(NULL, 1), AQ_NO_MEMORY);
}

static void test_a_long_sentence_is_cut(void **state)
{
    (void)state;
    char *longer = malloc(5000);
    memset(longer, 'x', 4999);
    longer[4999] = 0;
    AqError error = {0};
    aq_fail(&error, AQ_IO, "%s", longer);
    assert_int_equal(strlen(error.text), sizeof error.text - 1);
    free(longer);
}

/* arenas */

static void test_arena_memory_is_aligned_and_zero(void **state)
{
    (void)state;
    AqArena *arena = aq_arena_new();
    for (size_t i = 0; i < 3000; i++) {
        size_t bytes = i * 7 % 601;
        unsigned char *memory = aq_arena_alloc(arena, bytes);
        assert_non_null(memory);
        assert_int_equal((uintptr_t)memory % 16, 0);
        for (size_t k = 0; k < bytes; k++)
            assert_int_equal(memory[k], 0);
        memset(memory, 0xff, bytes);
    }
    aq_arena_free(arena);
}

static void test_arena_pieces_do_not_overlap(void **state)
{
    (void)state;
    enum { PIECES = 500 };
    unsigned char *piece[PIECES];
    AqArena *arena = aq_arena_new();
    for (int i = 0; i < PIECES; i++) {
        piece[i] = aq_arena_alloc(arena, (size_t)i * 40);
        memset(piece[i], i % 251, (size_t)i * 40);
    }
    for (int i = 0; i < PIECES; i++)
        for (int k = 0; k < i * 40; k++)
            assert_int_equal(piece[i][k], i % 251);
    aq_arena_free(arena);
}

static void test_arena_refuses_what_overflows(void **state)
{
    (void)state;
    AqArena *arena = aq_arena_new();
    assert_null(aq_arena_alloc(arena, SIZE_MAX));
    assert_null(aq_arena_alloc(arena, SIZE_MAX - 16));
    assert_null(aq_arena_array(arena, SIZE_MAX / 8, 16));
    assert_null(aq_arena_array(arena, (size_t)1 << 32, (size_t)1 << 32));
    assert_non_null(aq_arena_alloc(arena, 1)); /* and goes on */
    aq_arena_free(arena);
    aq_arena_free(NULL);
}

static void test_arena_counts_what_it_reserved(void **state)
{
    (void)state;
    AqArena *arena = aq_arena_new();
    assert_int_equal(aq_arena_bytes(arena), 0);
    assert_non_null(aq_arena_alloc(arena, 9 << 20));
    assert_in_range(aq_arena_bytes(arena), 9 << 20, (9 << 20) + 4096);
    aq_arena_free(arena);
}

static void test_arena_copies(void **state)
{
    (void)state;
    AqArena *arena = aq_arena_new();
    char word[] = "resin";
    char *copy = aq_arena_copy_text(arena, word);
    int *numbers = aq_arena_copy(arena, (int[]){1, 2, 3}, 3 * sizeof(int));
    word[0] = 'x';
    assert_string_equal(copy, "resin");
    assert_int_equal(numbers[2], 3);
    assert_string_equal(aq_arena_printf(arena, "%s %d", copy, 7), "resin 7");
    aq_arena_free(arena);
}

/* text */

static void test_text_grows(void **state)
{
    (void)state;
    AqText text = {0};
    for (int i = 0; i < 20000; i++)
        aq_text_printf(&text, "%05d", i);
    assert_false(text.failed);
    assert_int_equal(text.length, 100000);
    assert_int_equal(strlen(text.data), 100000);
    for (int i = 0; i < 20000; i += 997) {
        char word[6] = {0};
        memcpy(word, text.data + 5 * i, 5);
        assert_int_equal(atoi(word), i);
    }
    aq_text_free(&text);
    assert_null(text.data);
}

static void test_text_takes_any_bytes(void **state)
{
    (void)state;
    AqText text = {0};
    aq_text_add(&text, "");
    assert_string_equal(text.data, "");
    aq_text_bytes(&text, "a\0b", 3);
    aq_text_bytes(&text, NULL, 0);
    aq_text_add(&text, "c");
    assert_int_equal(text.length, 4);
    assert_memory_equal(text.data, "a\0bc", 5);
    aq_text_free(&text);
}

static void test_nearest_name(void **state)
{
    (void)state;
    static const char *const names[] = {"steps", "seed", "size", "samples"};
    assert_string_equal(aq_nearest("step", names, 4), "steps");
    assert_string_equal(aq_nearest("sede", names, 4), "seed");
    assert_string_equal(aq_nearest("smaples", names, 4), "samples");
    assert_string_equal(aq_nearest("size", names, 4), "size");
    assert_null(aq_nearest("quaternion", names, 4));
    assert_null(aq_nearest("", names, 4));
    assert_null(aq_nearest("steps", names, 0));
    char longest[500];
    memset(longest, 's', sizeof longest);
    longest[sizeof longest - 1] = 0;
    const char *found = aq_nearest(longest, names, 4);
    assert_true(!found || strlen(found) < 10); /* only has to come back */
}

/* files: each test has a folder of its own */

static int make_folder(void **state)
{
    char *folder = strdup("/tmp/aquatint-base-XXXXXX");
    *state = folder;
    return folder && mkdtemp(folder) ? 0 : -1;
}

static int remove_folder(void **state)
{
    char command[200];
    snprintf(command, sizeof command, "rm -rf '%s'", (char *)*state);
    free(*state);
    return system(command);
}

static int entries(const char *folder)
{
    int count = 0;
    DIR *dir = opendir(folder);
    while (dir && readdir(dir))
        count++;
    if (dir)
        closedir(dir);
    return count - 2; /* . and .. */
}

static void assert_holds(const char *path, const char *expected)
{
    char *data = NULL;
    size_t bytes = 0;
    AqError error = {0};
    assert_int_equal(aq_file_read(path, 1 << 20, &data, &bytes, &error), AQ_OK);
    assert_int_equal(bytes, strlen(expected));
    assert_string_equal(data, expected);
    free(data);
}

static void test_a_file_is_replaced_whole(void **state)
{
    char path[100];
    AqError error = {0};
    snprintf(path, sizeof path, "%s/file", (char *)*state);
    assert_false(aq_file_exists(path));
    assert_int_equal(aq_file_write(path, "first", 5, &error), AQ_OK);
    AqFileWriter *writer = aq_file_begin(path, &error);
    assert_int_equal(aq_file_append(writer, "sec", 3, &error), AQ_OK);
    assert_holds(path, "first");
    assert_int_equal(aq_file_append(writer, "ond", 3, &error), AQ_OK);
    assert_int_equal(aq_file_commit(writer, &error), AQ_OK);
    assert_holds(path, "second");
    assert_int_equal(entries(*state), 1);
}

static void test_an_abandoned_file_leaves_no_trace(void **state)
{
    char path[100];
    AqError error = {0};
    snprintf(path, sizeof path, "%s/file", (char *)*state);
    aq_file_write(path, "old", 3, &error);
    AqFileWriter *writer = aq_file_begin(path, &error);
    assert_int_equal(aq_file_append(writer, "new", 3, &error), AQ_OK);
    aq_file_abandon(writer);
    aq_file_abandon(NULL);
    assert_holds(path, "old");
    assert_int_equal(entries(*state), 1);
}

/* Stands for a full disk. */
static void test_a_refused_write_keeps_the_old_file(void **state)
{
    char path[100], big[20000];
    AqError error = {0};
    snprintf(path, sizeof path, "%s/file", (char *)*state);
    memset(big, 'n', sizeof big);
    aq_file_write(path, "old", 3, &error);

    struct rlimit before, small;
    getrlimit(RLIMIT_FSIZE, &before);
    small = (struct rlimit){.rlim_cur = 8192, .rlim_max = before.rlim_max};
    void (*handler)(int) = signal(SIGXFSZ, SIG_IGN);
    setrlimit(RLIMIT_FSIZE, &small);
    AqStatus status = aq_file_write(path, big, sizeof big, &error);
    setrlimit(RLIMIT_FSIZE, &before);
    signal(SIGXFSZ, handler);

    assert_int_equal(status, AQ_IO);
    assert_non_null(strstr(error.text, path));
    assert_non_null(strstr(error.text, "File too large"));
    assert_holds(path, "old");
    assert_int_equal(entries(*state), 1);
}

static void test_writing_where_one_cannot(void **state)
{
    char path[6000];
    AqError error = {0};
    snprintf(path, sizeof path, "%s/no/file", (char *)*state);
    assert_int_equal(aq_file_write(path, "x", 1, &error), AQ_IO);
    assert_non_null(strstr(error.text, path));
    assert_int_equal(aq_file_write(path, "x", 1, NULL), AQ_IO);
    memset(path, 'a', sizeof path);
    path[sizeof path - 1] = 0;
    error = (AqError){0};
    assert_int_equal(aq_file_write(path, "x", 1, &error), AQ_IO);
    assert_non_null(strstr(error.text, "aaa...: the path is too long"));
}

static void test_reading_stops_at_the_limit(void **state)
{
    char path[100], *data = NULL, *big = calloc(1, 200000);
    size_t bytes = 0;
    AqError error = {0};
    snprintf(path, sizeof path, "%s/file", (char *)*state);
    aq_file_write(path, big, 200000, &error);
    assert_int_equal(aq_file_read(path, 200000, &data, &bytes, &error), AQ_OK);
    assert_int_equal(bytes, 200000);
    assert_int_equal(data[200000], 0);
    free(data);
    data = NULL;
    assert_int_equal(aq_file_read(path, 199999, &data, &bytes, &error),
                     AQ_BAD_INPUT);
    assert_null(data);
    assert_non_null(
        strstr(error.text, "file: larger than the limit of 199999 bytes"));
    free(big);
}

static void test_reading_what_is_not_there(void **state)
{
    char path[100], *data = NULL;
    size_t bytes = 0;
    AqError error = {0}, folder = {0};
    snprintf(path, sizeof path, "%s/none", (char *)*state);
    assert_int_equal(aq_file_read(path, 10, &data, &bytes, &error), AQ_IO);
    assert_non_null(strstr(error.text, "No such file"));
    assert_int_equal(aq_file_read(*state, 10, &data, &bytes, &folder), AQ_IO);
    assert_null(data);
}

static void test_an_empty_file(void **state)
{
    char path[100];
    AqError error = {0};
    snprintf(path, sizeof path, "%s/file", (char *)*state);
    assert_int_equal(aq_file_write(path, "", 0, &error), AQ_OK);
    assert_holds(path, "");
}

static void test_folders_are_made_once(void **state)
{
    char path[100];
    struct stat st;
    AqError error = {0};
    snprintf(path, sizeof path, "%s/a/b//c", (char *)*state);
    assert_int_equal(aq_make_folders(path, &error), AQ_OK);
    assert_int_equal(aq_make_folders(path, &error), AQ_OK);
    assert_true(stat(path, &st) == 0 && S_ISDIR(st.st_mode));
    snprintf(path, sizeof path, "%s/a/file", (char *)*state);
    aq_file_write(path, "x", 1, &error);
    assert_int_equal(aq_make_folders(path, &error), AQ_IO);
    assert_non_null(strstr(error.text, "not a folder"));
}

/* hashes: XXH3 of nothing, as its authors publish it */

static void test_hashes(void **state)
{
    (void)state;
    assert_true(aq_hash64("", 0) == UINT64_C(0x2d06800538d394c2));
    AqHash a = aq_hash128("", 0), b = aq_hash128("x", 1);
    assert_true(a.high == UINT64_C(0x99aa06d3014798d8));
    assert_true(a.low == UINT64_C(0x6001c324468d497f));
    assert_true(b.high != a.high && b.low != a.low);
    AqError error = {0};
    char digits[33];
    assert_int_equal(aq_hash_file("/", digits, &error), AQ_IO);
    assert_string_equal(error.text, "/: cannot read: Is a directory");
}

/* threads */

enum { MANY = 1000 };

static void count_one(void *context, int index)
{
    atomic_int *count = context;
    atomic_fetch_add(&count[index], 1);
}

static void test_each_index_runs_once(void **state)
{
    (void)state;
    static const int threads[] = {-1, 0, 1, 2, 7, 1000};
    for (int t = 0; t < AQ_COUNT(threads); t++) {
        atomic_int count[MANY] = {0};
        aq_parallel(threads[t], MANY, count_one, count);
        for (int i = 0; i < MANY; i++)
            assert_int_equal(count[i], 1);
    }
    aq_parallel(4, 0, count_one, NULL);
    assert_in_range(aq_cpu_count(), 1, 1 << 16);
}

/* Work of one index is seen by the caller without more ado. */
static void square(void *context, int index)
{
    ((long *)context)[index] = (long)index * index;
}

static void test_results_are_seen_by_the_caller(void **state)
{
    (void)state;
    long result[MANY] = {0};
    aq_parallel(4, MANY, square, result);
    for (long i = 0; i < MANY; i++)
        assert_int_equal(result[i], i * i);
}

static void test_time_goes_on(void **state)
{
    (void)state;
    double before = aq_seconds();
    usleep(2000);
    double passed = aq_seconds() - before;
    assert_true(passed >= 0.002 && passed < 10);
}

#define WITH_FOLDER(test)                                                      \
    cmocka_unit_test_setup_teardown(test, make_folder, remove_folder)

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_the_first_error_sticks),
        cmocka_unit_test(test_an_error_may_be_unwanted),
        cmocka_unit_test(test_a_long_sentence_is_cut),
        cmocka_unit_test(test_arena_memory_is_aligned_and_zero),
        cmocka_unit_test(test_arena_pieces_do_not_overlap),
        cmocka_unit_test(test_arena_refuses_what_overflows),
        cmocka_unit_test(test_arena_counts_what_it_reserved),
        cmocka_unit_test(test_arena_copies),
        cmocka_unit_test(test_text_grows),
        cmocka_unit_test(test_text_takes_any_bytes),
        cmocka_unit_test(test_nearest_name),
        WITH_FOLDER(test_a_file_is_replaced_whole),
        WITH_FOLDER(test_an_abandoned_file_leaves_no_trace),
        WITH_FOLDER(test_a_refused_write_keeps_the_old_file),
        WITH_FOLDER(test_writing_where_one_cannot),
        WITH_FOLDER(test_reading_stops_at_the_limit),
        WITH_FOLDER(test_reading_what_is_not_there),
        WITH_FOLDER(test_an_empty_file),
        WITH_FOLDER(test_folders_are_made_once),
        cmocka_unit_test(test_hashes),
        cmocka_unit_test(test_each_index_runs_once),
        cmocka_unit_test(test_results_are_seen_by_the_caller),
        cmocka_unit_test(test_time_goes_on),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
