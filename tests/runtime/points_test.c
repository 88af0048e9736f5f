/* Points as data: tables as people leave them, shapes, and the way back. */
#include "runtime/run.h"

#include <math.h>
#include <setjmp.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

static char root[] = "/tmp/aq_points_XXXXXX";
static char path[64];

static int make_root(void **state)
{
    (void)state;
    snprintf(path, sizeof path, "%s/t.csv", mkdtemp(root) ? root : "");
    return *path == '/' && path[1] == 't' ? 0 : -1;
}

static int remove_root(void **state)
{
    (void)state;
    unlink(path);
    return rmdir(root);
}

/* ---- tables ---- */

typedef struct Case {
    const char *text;
    int rows, columns;
    const char *names;  /* all, apart by spaces */
    double first, last; /* of the values */
} Case;

static AqStatus read_text(const char *text, size_t bytes, AqArena *arena,
                          AqTable *table, AqError *error)
{
    assert_int_equal(aq_file_write(path, text, bytes, NULL), AQ_OK);
    return aq_table_read(path, arena, table, error);
}

static void check_case(const Case *c, AqArena *arena)
{
    AqTable t;
    AqError error = {0};
    if (read_text(c->text, strlen(c->text), arena, &t, &error))
        fail_msg("%s: %s", c->text, error.text);
    AqText names = {0};
    for (int i = 0; i < t.columns; i++)
        aq_text_printf(&names, "%s%s", i ? " " : "", t.names[i]);
    if (t.rows != c->rows || t.columns != c->columns ||
        strcmp(names.data, c->names))
        fail_msg("%s: %lld rows of %s", c->text, (long long)t.rows, names.data);
    assert_true(t.values[0] == c->first);
    assert_true(t.values[t.rows * t.columns - 1] == c->last);
    aq_text_free(&names);
    aq_table_free(&t);
}

static void test_tables(void **state)
{
    (void)state;
    static const Case cases[] = {
        {"1,2\n3,4\n", 2, 2, "x y", 1, 4},
        {"1 2\n  3\t 4 \n", 2, 2, "x y", 1, 4},
        {"1\t2\t3\n4\t5\t6", 2, 3, "x y z", 1, 6},
        {"1;2\r\n3;-4e-2\r\n", 2, 2, "x y", 1, -0.04},
        {"a,b\n1,2\n", 1, 2, "a b", 1, 2},
        {"\xef\xbb\xbf\"age, years\" , \"\"\n1,2\n", 1, 2, "age, years y", 1,
         2},
        {"# made by hand\n\n  \na b\n# more\n1 2\n", 1, 2, "a b", 1, 2},
        {"5\n6\n7", 3, 1, "x", 5, 7},
        {"1,2,3,4\n", 1, 4, "x1 x2 x3 x4", 1, 4},
        {"\"1\",\"2\"\n\"3\",4\n", 2, 2, "x y", 1, 4},
    };
    AqArena *arena = aq_arena_new();
    for (int i = 0; i < AQ_COUNT(cases); i++)
        check_case(&cases[i], arena);
    aq_arena_free(arena);
}

static void test_tables_refused(void **state)
{
    (void)state;
    static const struct {
        const char *text, *sentence;
    } cases[] = {
        {"", "has no row of numbers"},
        {"a,b\n", "has no row of numbers"},
        {"a,b\n,1\n", "has no row of numbers in which no value is missing"},
        {"a,b\n1,2\n3\n", ":3: has 1 column where the lines before it have 2"},
        {"1,2\n\n3,4,5\n", ":3: has 3 columns where"},
        {"a,b\n1,2\n3,four\n", ":3: \"four\" in column b is no number"},
        {"1;2\n3;4,5\n", ":2: \"4,5\" in column y is no number"},
    };
    AqArena *arena = aq_arena_new();
    AqTable t;
    for (int i = 0; i < AQ_COUNT(cases); i++) {
        AqError error = {0};
        const char *text = cases[i].text;
        assert_int_equal(read_text(text, strlen(text), arena, &t, &error),
                         AQ_BAD_INPUT);
        if (!strstr(error.text, cases[i].sentence) ||
            strncmp(error.text, path, strlen(path)))
            fail_msg("%s: %s", text, error.text);
        assert_null(t.values);
    }
    AqError error = {0};
    assert_int_equal(read_text("1,2\0", 4, arena, &t, &error), AQ_BAD_INPUT);
    assert_non_null(strstr(error.text, "binary"));
    aq_arena_free(arena);
}

/* ---- missing values ---- */

static void keep_warning(void *context, const char *sentence)
{
    aq_text_printf(context, "%s\n", sentence);
}

static void test_missing(void **state)
{
    (void)state;
    static const char text[] =
        "a,b\n1,10\n2,\n nan ,3\n3,30\nNA,NULL\n2,inf\n2,20\n";
    AqText warnings = {0};
    AqError error = {0};
    AqPoints p;
    AqArena *arena = aq_arena_new();
    assert_int_equal(aq_file_write(path, text, strlen(text), NULL), AQ_OK);
    assert_int_equal(
        aq_points_open(path, arena, keep_warning, &warnings, &p, &error),
        AQ_OK);
    assert_int_equal(p.count, 3);
    assert_int_equal(p.left_out, 4);
    const float x[] = {-1, -1, 1, 1, 0, 0};
    assert_memory_equal(p.x, x, sizeof x);
    assert_true(p.column[0].centre == 2 && p.column[0].half == 1);
    assert_true(p.column[1].centre == 20 && p.column[1].half == 10);
    const char *sentence = "4 rows are left out because of missing values, the "
                           "first at line 3 in column b\n";
    if (!strstr(warnings.data, sentence))
        fail_msg("%s", warnings.data);
    aq_text_free(&warnings);
    aq_arena_free(arena);
}

/* ---- data sets ---- */

static AqDataset *open_set(const char *spec)
{
    AqError error = {0};
    AqDataset *set = aq_dataset_open(spec, &(AqDatasetOptions){0}, &error);
    if (!set)
        fail_msg("%s", error.text);
    return set;
}

/* Point i of a set, in the data's own units. */
static void point(const AqDataset *set, int64_t i, double p[2])
{
    float x[2];
    const AqColumn *c = aq_dataset_columns(set);
    assert_int_equal(aq_dataset_fetch(set, i, true, 0, 1, x, NULL), AQ_OK);
    for (int j = 0; j < 2; j++) {
        assert_true(x[j] >= -1 && x[j] <= 1);
        p[j] = c[j].centre + c[j].half * x[j];
    }
}

/* How far a point is from its shape without noise. */
static double distance(const char *name, int label, const double p[2])
{
    const double pi = acos(-1), r = hypot(p[0], p[1]);
    if (!strcmp(name, "moons"))
        return fabs((label ? hypot(p[0] - 1, p[1] - 0.5) : r) - 1);
    if (!strcmp(name, "circles"))
        return fabs(r - (label ? 0.5 : 1));
    if (!strcmp(name, "gaussians"))
        return hypot(p[0] - cos(label * pi / 4), p[1] - sin(label * pi / 4));
    if (!strcmp(name, "spiral")) { /* r = t / 3 pi, at some turn */
        double turn = (3 * pi * r - atan2(p[1], p[0])) / (2 * pi);
        return fabs(turn - rint(turn)) * 2 / 3;
    }
    int square = (int)floor(p[0]) + (int)floor(p[1]);
    return square % 2 ? 1 : fmax(0, fmax(fabs(p[0]), fabs(p[1])) - 2);
}

static void test_shapes(void **state)
{
    (void)state;
    static const struct {
        const char *name;
        int classes;
        double noise; /* root of the mean square distance */
    } shapes[] = {{"spiral", 0, 0.02},
                  {"moons", 2, 0.06},
                  {"circles", 2, 0.04},
                  {"gaussians", 8, 0.08 * 1.4142},
                  {"checkerboard", 0, 0}};
    for (int k = 0; k < AQ_COUNT(shapes); k++) {
        char spec[64];
        snprintf(spec, sizeof spec, "points:%s", shapes[k].name);
        AqDataset *set = open_set(spec);
        assert_int_equal(aq_dataset_count(set), 4096);
        assert_int_equal(aq_dataset_classes(set), shapes[k].classes);
        double sum = 0, p[2];
        for (int64_t i = 0; i < 4096; i++) {
            point(set, i, p);
            double d = distance(shapes[k].name, aq_dataset_label(set, i), p);
            sum += d * d;
        }
        double noise = sqrt(sum / 4096);
        if (fabs(noise - shapes[k].noise) > 0.1 * shapes[k].noise + 1e-3)
            fail_msg("%s: noise %g", spec, noise);
        aq_dataset_free(set);
    }
}

/* A point depends on its number alone, and nothing moves from one version to
 * the next: a run would not be resumed on its own data. */
static void test_shapes_stay(void **state)
{
    (void)state;
    AqDataset *set = open_set("points:moons"),
              *few = open_set("points:moons:9");
    double p[2], q[2];
    for (int64_t i = 0; i < 9; i++) {
        point(set, i, p);
        point(few, i, q);
        assert_true(hypot(p[0] - q[0], p[1] - q[1]) < 1e-6);
    }
    assert_int_equal(aq_dataset_count(few), 9);
    AqHash a = aq_dataset_fingerprint(set), b = aq_dataset_fingerprint(few);
    assert_true(a.high != b.high);
    char digits[40];
    snprintf(digits, sizeof digits, "%016llx%016llx",
             (unsigned long long)a.high, (unsigned long long)a.low);
    assert_string_equal(digits, "dd9f1d7c9e919df123a5c04704484f9f");
    aq_dataset_free(set);
    aq_dataset_free(few);
}

static void test_set_of_points(void **state)
{
    (void)state;
    int height = -1, width = -1, channels = -1;
    AqDataset *set = open_set("points:gaussians:80");
    aq_dataset_shape(set, &height, &width, &channels);
    assert_true(height == 0 && width == 0 && channels == 2);
    assert_int_equal(aq_dataset_floats(set), 2);
    assert_int_equal(aq_dataset_bytes(set), 80 * 2 * 4);
    assert_string_equal(aq_dataset_class_name(set, 2), "north");
    assert_string_equal(aq_dataset_describe(set),
                        "points:gaussians:80: 80 points, 2 columns, 8 classes, "
                        "0.0 MiB in memory");
    assert_string_equal(aq_dataset_caption(set, 3), "");
    aq_dataset_free(set);
}

static void test_constant_column(void **state)
{
    (void)state;
    static const char text[] = "1,7\n3,7\n";
    char spec[80];
    snprintf(spec, sizeof spec, "points:%s", path);
    assert_int_equal(aq_file_write(path, text, strlen(text), NULL), AQ_OK);
    AqDataset *set = open_set(spec);
    double p[2];
    point(set, 1, p);
    assert_true(p[0] == 3 && p[1] == 7);
    aq_dataset_free(set);
}

static void test_refused(void **state)
{
    (void)state;
    static const struct {
        const char *spec;
        int channels;
        const char *sentence;
    } cases[] = {
        {"points:mons", 0,
         "points:mons: no points and no file have this name (did you mean "
         "points:moons?); there are spiral, moons, circles, gaussians, "
         "checkerboard, and tables of numbers, as in points:data.csv"},
        {"points", 0, "there are spiral"},
        {"points:moons:", 0, "the number of points must lie between 2 and"},
        {"points:moons:1", 0, "must lie between 2 and"},
        {"points:moons:5x", 0, "must lie between 2 and"},
        {"points:moons", 3, "has 2 columns where 3 are wanted"},
        {"points:/nowhere/at.csv", 0, "no file have this name; there are"},
    };
    for (int i = 0; i < AQ_COUNT(cases); i++) {
        AqError error = {0};
        AqDatasetOptions o = {.channels = cases[i].channels};
        assert_null(aq_dataset_open(cases[i].spec, &o, &error));
        if (!strstr(error.text, cases[i].sentence))
            fail_msg("%s: %s", cases[i].spec, error.text);
    }
}

static void test_loader(void **state)
{
    (void)state;
    AqError error = {0};
    AqDataset *set = open_set("points:moons:8");
    AqLoader *loader =
        aq_loader_new(set, &(AqLoaderOptions){.batch = 8}, &error);
    const AqBatch *batch = loader ? aq_loader_next(loader, &error) : NULL;
    assert_non_null(batch);
    int seen = 0;
    for (int k = 0; k < 8; k++)
        for (int64_t i = 0; i < 8; i++) {
            float x[2];
            aq_dataset_fetch(set, i, false, 0, 0, x, NULL);
            if (x[0] == batch->x[2 * k] && x[1] == batch->x[2 * k + 1]) {
                seen |= 1 << i;
                assert_int_equal(batch->label[k], i % 2);
            }
        }
    assert_int_equal(seen, 0xff);
    aq_loader_free(loader);
    aq_dataset_free(set);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_tables),
        cmocka_unit_test(test_tables_refused),
        cmocka_unit_test(test_missing),
        cmocka_unit_test(test_shapes),
        cmocka_unit_test(test_shapes_stay),
        cmocka_unit_test(test_set_of_points),
        cmocka_unit_test(test_constant_column),
        cmocka_unit_test(test_refused),
        cmocka_unit_test(test_loader),
    };
    return cmocka_run_group_tests(tests, make_root, remove_root);
}
