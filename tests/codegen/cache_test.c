/* Objects on disk: found again, and never believed when damaged or foreign. */
#include "tests/support/bench.h"
#include "tests/support/run_kernel.h"

#include <dirent.h>
#include <setjmp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

enum { KERNELS = 3 };

typedef struct Fixture {
    char folder[256];
    AqGraph *g;
    AqGraph *bodies[KERNELS];
    AqId kernels[KERNELS];
    AqTarget target;
} Fixture;

static AqGraph *make_body(int which)
{
    AqGraph *g = aq_graph_new();
    AqType type = F32(19);
    AqAttr index = aq_int(AQ_KEY_INDEX, 0);
    AqId x = aq_build(g, AQ_OP_arg, &type, NULL, 0, &index, 1);
    static const AqOp ops[] = {AQ_OP_exp, AQ_OP_neg, AQ_OP_exp};
    aq_graph_output(g, "y", aq_unary(g, ops[which], x), false);
    return g;
}

/* Three kernels, the last a copy of the first but for its name's sake. */
static void begin(Fixture *f)
{
    strcpy(f->folder, "/tmp/aquatint-cache-XXXXXX");
    assert_non_null(mkdtemp(f->folder));
    assert_int_equal(aq_target_host(3, &f->target, NULL), AQ_OK);
    f->g = aq_graph_new();
    AqType type = F32(19);
    for (int i = 0; i < KERNELS; i++) {
        char name[16];
        snprintf(name, sizeof name, "x%d", i);
        AqAttr attr = aq_text(AQ_KEY_NAME, name);
        f->bodies[i] = make_body(i);
        AqId x = aq_build(f->g, AQ_OP_input, &type, NULL, 0, &attr, 1);
        AqAttr attrs[] = {aq_text(AQ_KEY_KIND, "map"), aq_body(f->bodies[i])};
        f->kernels[i] = aq_build(f->g, AQ_OP_kernel, NULL, &x, 1, attrs, 2);
    }
    if (f->g->error.status)
        fail_msg("%s", f->g->error.text);
}

/* The path of entry `n`, in the order of their names; false after the last. */
static bool entry_path(const Fixture *f, int n, char *path, size_t size)
{
    struct dirent **names;
    int count = scandir(f->folder, &names, NULL, alphasort), seen = 0;
    bool found = false;
    for (int i = 0; i < count; i++) {
        bool entry = names[i]->d_name[0] != '.';
        if (entry && seen++ == n) {
            snprintf(path, size, "%s/%s", f->folder, names[i]->d_name);
            found = true;
        }
        free(names[i]);
    }
    free(names);
    return found;
}

static void end(Fixture *f)
{
    char path[600];
    while (entry_path(f, 0, path, sizeof path))
        unlink(path);
    rmdir(f->folder);
    aq_graph_free(f->g);
    for (int i = 0; i < KERNELS; i++)
        aq_graph_free(f->bodies[i]);
}

/* Compiles, checks exp(0.5) by running, and returns the statistics. */
static AqCodeStatistics compile(Fixture *f, AqCompileOptions options)
{
    AqError error = {0};
    float x[19] = {0.5f}, y[19];
    void *buffers[] = {x, y};
    int n;
    options.cache_dir = f->folder;
    AqCode *code =
        aq_compile(f->g, f->kernels, KERNELS, &f->target, &options, &error);
    if (!code)
        fail_msg("%s", error.text);
    for (int i = 0; i < KERNELS; i++) {
        const AqStage *stage = aq_code_stages(code, i, &n);
        assert_int_equal(n, 1);
        stage->run(stage->closure, buffers, 0, stage->tasks, NULL);
        float exact = i == 1 ? -0.5f : 1.6487212707f;
        assert_true(y[0] > exact - 1e-6f && y[0] < exact + 1e-6f);
    }
    AqCodeStatistics statistics = *aq_code_statistics(code);
    aq_code_free(code);
    return statistics;
}

static void test_second_time_from_cache(void **state)
{
    (void)state;
    Fixture f;
    begin(&f);
    AqCodeStatistics first = compile(&f, (AqCompileOptions){.threads = 2});
    assert_int_equal(first.kernels, 3);
    assert_int_equal(first.units, 2);
    assert_int_equal(first.from_cache, 0);
    AqCodeStatistics second = compile(&f, (AqCompileOptions){.threads = 1});
    assert_int_equal(second.from_cache, 2);
    assert_int_equal(second.rejected, 0);
    assert_true(first.bytes == second.bytes && first.bytes > 0);
    AqCodeStatistics without =
        compile(&f, (AqCompileOptions){.no_cache = true});
    assert_int_equal(without.from_cache, 0);
    end(&f);
}

static void write_bytes(const char *path, const char *data, size_t bytes)
{
    FILE *file = fopen(path, "wb");
    assert_non_null(file);
    assert_true(bytes == 0 || fwrite(data, bytes, 1, file) == 1);
    assert_int_equal(fclose(file), 0);
}

static void test_same_objects_again(void **state)
{
    (void)state;
    Fixture f;
    begin(&f);
    char path[600], *before, *after;
    size_t bytes, bytes_after;
    compile(&f, (AqCompileOptions){.threads = 1});
    assert_true(entry_path(&f, 0, path, sizeof path));
    assert_int_equal(aq_file_read(path, 1 << 20, &before, &bytes, NULL), AQ_OK);
    unlink(path);
    AqCodeStatistics again = compile(&f, (AqCompileOptions){.threads = 2});
    assert_int_equal(again.from_cache, 1);
    assert_int_equal(aq_file_read(path, 1 << 20, &after, &bytes_after, NULL),
                     AQ_OK);
    assert_int_equal(bytes, bytes_after);
    assert_memory_equal(before, after, bytes);
    free(before);
    free(after);
    end(&f);
}

/* Every damage is noticed, compiled around, and mended. */
static void test_damaged_entries(void **state)
{
    (void)state;
    Fixture f;
    begin(&f);
    char path[600], *good;
    size_t bytes;
    compile(&f, (AqCompileOptions){.threads = 1});
    assert_true(entry_path(&f, 0, path, sizeof path));
    assert_int_equal(aq_file_read(path, 1 << 20, &good, &bytes, NULL), AQ_OK);
    for (size_t at = 0; at < bytes; at += at < 48 ? 5 : bytes / 40) {
        good[at] ^= 1 << at % 8;
        write_bytes(path, good, bytes);
        good[at] ^= 1 << at % 8;
        AqCodeStatistics s = compile(&f, (AqCompileOptions){.threads = 1});
        if (s.rejected != 1 || s.from_cache != 1)
            fail_msg("a flipped bit in byte %zu was not noticed", at);
        assert_int_equal(
            compile(&f, (AqCompileOptions){.threads = 1}).from_cache, 2);
    }
    size_t cuts[] = {0, 1, 39, bytes / 2, bytes - 1};
    for (int i = 0; i < AQ_COUNT(cuts); i++) {
        write_bytes(path, good, cuts[i]);
        AqCodeStatistics s = compile(&f, (AqCompileOptions){.threads = 1});
        assert_int_equal(s.rejected, 1);
        assert_int_equal(s.from_cache, 1);
    }
    free(good);
    end(&f);
}

/* One entry under another's name: whole, but not what was asked for. */
static void test_exchanged_entries(void **state)
{
    (void)state;
    Fixture f;
    begin(&f);
    char a[600], b[600], *data;
    size_t bytes;
    compile(&f, (AqCompileOptions){.threads = 1});
    assert_true(entry_path(&f, 0, a, sizeof a));
    assert_true(entry_path(&f, 1, b, sizeof b));
    assert_int_equal(aq_file_read(a, 1 << 20, &data, &bytes, NULL), AQ_OK);
    write_bytes(b, data, bytes);
    free(data);
    AqCodeStatistics s = compile(&f, (AqCompileOptions){.threads = 1});
    assert_int_equal(s.rejected, 1);
    end(&f);
}

static void test_folder_of_others(void **state)
{
    (void)state;
    Fixture f;
    begin(&f);
    compile(&f, (AqCompileOptions){.threads = 1});
    assert_int_equal(chmod(f.folder, 0777), 0);
    AqCodeStatistics s = compile(&f, (AqCompileOptions){.threads = 1});
    assert_int_equal(s.from_cache, 0);
    assert_int_equal(chmod(f.folder, 0700), 0);
    s = compile(&f, (AqCompileOptions){.threads = 1});
    assert_int_equal(s.from_cache, 2);
    end(&f);
}

/* IR before and after the passes, and assembly, of each of the two units. */
static void test_dumps(void **state)
{
    (void)state;
    Fixture f;
    begin(&f);
    char path[600];
    int found = 0;
    compile(&f, (AqCompileOptions){.dump_dir = f.folder});
    while (entry_path(&f, found, path, sizeof path))
        found++;
    assert_int_equal(found, 6);
    end(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_second_time_from_cache),
        cmocka_unit_test(test_same_objects_again),
        cmocka_unit_test(test_damaged_entries),
        cmocka_unit_test(test_exchanged_entries),
        cmocka_unit_test(test_folder_of_others),
        cmocka_unit_test(test_dumps),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
