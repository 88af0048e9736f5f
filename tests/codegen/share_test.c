/* Leaves are shared: kernels compile as many distinct pieces of code as their
 * prologues and epilogues differ, not as many as there are kernels. */
#include "codegen/codegen.h"
#include "tests/support/bench.h"
#include "tests/support/folder.h"
#include "tests/support/models.h"

#include <dirent.h>
#include <setjmp.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

/* (exp or neg of (rows, k)) x (k, n) + (rows, n) */
typedef struct Product {
    AqOp prologue;
    int64_t rows, k, n;
    bool epilogue;
} Product;

static AqId input(AqGraph *g, const char *what, int number, AqType type)
{
    char name[32];
    snprintf(name, sizeof name, "%s%d", what, number);
    AqAttr attr = aq_text(AQ_KEY_NAME, name);
    return aq_build(g, AQ_OP_input, &type, NULL, 0, &attr, 1);
}

static void add_product(AqGraph *g, const Product *p, int number)
{
    char name[32];
    AqId x = input(g, "x", number, F32(p->rows, p->k));
    AqId w = input(g, "w", number, F32(p->k, p->n));
    AqId y = aq_matmul_node(g, aq_unary(g, p->prologue, x), w, false, false);
    if (p->epilogue)
        y = aq_binary(g, AQ_OP_add, y,
                      input(g, "r", number, F32(p->rows, p->n)));
    snprintf(name, sizeof name, "y%d", number);
    aq_graph_output(g, name, y, false);
}

/* What compiling these products took. */
static AqCodeStatistics compile_with(const Product *products, int count,
                                     AqCompileOptions options)
{
    AqGraph *g = aq_graph_new();
    for (int i = 0; i < count; i++)
        add_product(g, &products[i], i);
    AqGraph *k = aq_test_kernels(g, 3);
    AqCodeStatistics statistics = aq_test_compile(k, 3, &options);
    assert_int_equal(statistics.kernels, count);
    aq_graph_free(k);
    aq_graph_free(g);
    return statistics;
}

/* Without a folder nothing is kept. */
static AqCodeStatistics compile(const Product *products, int count,
                                const char *folder)
{
    return compile_with(
        products, count,
        (AqCompileOptions){.no_cache = !folder, .cache_dir = folder});
}

/* Distinct pieces of code. */
static int units(const Product *products, int count)
{
    return compile(products, count, NULL).units;
}

/* Those of them that are not others with other sizes. */
static int compiled(const Product *products, int count)
{
    return compile(products, count, NULL).compiled;
}

static const Product plain = {AQ_OP_exp, 64, 96, 64, false};
static const Product summed = {AQ_OP_exp, 64, 96, 64, true};
static const Product wide = {AQ_OP_exp, 64, 96, 128, false};
static const Product other = {AQ_OP_neg, 64, 96, 64, true};

static void test_prologue_is_shared(void **state)
{
    (void)state;
    int alone = units(&plain, 1);
    assert_int_equal(units((Product[]){plain, plain}, 2), alone);
    /* what comes after the product, and its width, do not matter */
    assert_int_equal(units((Product[]){plain, summed}, 2), alone + 1);
    assert_int_equal(units((Product[]){plain, wide}, 2), alone);
}

static void test_epilogue_is_shared(void **state)
{
    (void)state;
    int alone = units(&summed, 1);
    /* what comes before it does not matter; that is code of its own */
    assert_int_equal(units((Product[]){summed, other}, 2), alone + 1);
}

/* Sizes above those that shape the code do not matter to the compiler; the
 * results are 128 and more columns wide, in strips of at most 64. */
static void test_sizes_are_shared(void **state)
{
    static const Product small = {AQ_OP_exp, 64, 96, 128, true};
    static const Product large = {AQ_OP_exp, 96, 192, 256, true};
    static const Product ragged = {AQ_OP_exp, 96, 192, 259, true};
    (void)state;
    int alone = compiled(&small, 1);
    assert_int_equal(alone, units(&small, 1));
    assert_int_equal(units((Product[]){small, large}, 2), alone + 2);
    assert_int_equal(compiled((Product[]){small, large}, 2), alone);
    /* an end that is no whole vector is other code */
    assert_true(compiled((Product[]){small, ragged}, 2) > alone);
}

/* ---- what is left in folders ---- */

/* Reads FOLDER/NAME; free the text. */
static char *read_file(const char *folder, const char *name, size_t *bytes)
{
    char path[600], *text;
    AqError error = {0};
    snprintf(path, sizeof path, "%s/%s", folder, name);
    if (aq_file_read(path, 1 << 24, &text, bytes, &error))
        fail_msg("%s", error.text);
    return text;
}

typedef void Check(const char *name, const char *data, size_t bytes,
                   const void *context);

/* How many files there are whose names end so; each is checked. */
static int check_files(const char *folder, const char *ending, Check *check,
                       const void *context)
{
    struct dirent **entries;
    int count = scandir(folder, &entries, NULL, alphasort), files = 0;
    for (int i = 0; i < count; i++) {
        const char *name = entries[i]->d_name;
        size_t bytes, length = strlen(name), after = strlen(ending);
        if (*name != '.' && length > after &&
            !strcmp(name + length - after, ending)) {
            char *data = read_file(folder, name, &bytes);
            check(name, data, bytes, context);
            free(data);
            files++;
        }
        free(entries[i]);
    }
    free(entries);
    return files;
}

/* The folder `context` has the same. */
static void check_same(const char *name, const char *data, size_t bytes,
                       const void *context)
{
    size_t length;
    char *there = read_file(context, name, &length);
    assert_int_equal(bytes, length);
    assert_memory_equal(data, there, bytes);
    free(there);
}

/* Assembly defines the function that its file is named after. */
static void check_label(const char *name, const char *data, size_t bytes,
                        const void *context)
{
    char label[300];
    (void)context;
    snprintf(label, sizeof label, "\n%.*s:", (int)strlen(name) - 2, name);
    if (!memmem(data, bytes, label, strlen(label)))
        fail_msg("%s does not define%s", name, label);
}

/* Leaves that differ in sizes alone. */
static const Product both[] = {{AQ_OP_exp, 64, 96, 128, true},
                               {AQ_OP_exp, 96, 192, 256, true}};

/* A leaf is the same whether it was compiled or made of another one. */
static void test_copies_are_the_same(void **state)
{
    (void)state;
    static const char *const names[] = {"first", "second"};
    const char *together = aq_test_path("together");
    AqCodeStatistics all = compile(both, 2, together);
    assert_int_equal(all.compiled, all.units - 2);
    for (int i = 0; i < 2; i++) {
        const char *alone = aq_test_path(names[i]);
        AqCodeStatistics one = compile(&both[i], 1, alone);
        assert_int_equal(one.compiled, one.units);
        assert_int_equal(check_files(alone, "", check_same, together),
                         one.units);
    }
    assert_int_equal(compile(both, 2, together).compiled, 0);
}

/* Code that would be shared is written out for every unit. */
static void test_dumps_of_all(void **state)
{
    (void)state;
    const char *folder = aq_test_path("dumps");
    AqCodeStatistics s =
        compile_with(both, 2, (AqCompileOptions){.dump_dir = folder});
    assert_int_equal(s.compiled, s.units);
    assert_int_equal(check_files(folder, ".s", check_label, NULL), s.units);
}

/* Nothing of a model's step is compiled twice. */
static void test_sizes_fit(void **state)
{
    (void)state;
    AqGraph *g = aq_test_nano_step();
    for (int level = 3; level <= 4; level++) {
        AqTarget target;
        if (aq_target_host(level, &target, NULL))
            continue; /* this processor has less */
        AqGraph *k = aq_test_kernels(g, level);
        AqCompileOptions options = {.no_cache = true};
        AqCodeStatistics s = aq_test_compile(k, level, &options);
        assert_int_equal(s.again, 0);
        assert_true(s.compiled < s.units);
        aq_graph_free(k);
    }
    aq_graph_free(g);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_prologue_is_shared),
        cmocka_unit_test(test_epilogue_is_shared),
        cmocka_unit_test(test_sizes_are_shared),
        cmocka_unit_test(test_copies_are_the_same),
        cmocka_unit_test(test_dumps_of_all),
        cmocka_unit_test(test_sizes_fit),
    };
    return cmocka_run_group_tests(tests, aq_test_make_folder,
                                  aq_test_remove_folder);
}
