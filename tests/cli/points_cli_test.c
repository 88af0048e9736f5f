/* mlp2d on points, from the command line: it learns, its samples come back in
 * the data's units, and a run can be stopped and looked at without its data. */
#include "runtime/files.h"
#include "tests/cli/program.h"

#include <math.h>
#include <setjmp.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define SMALL                                                                  \
    "--set width=64 --set blocks=2 --schedule cosine --prediction v --lr "     \
    "2e-3 "

enum { STEPS = 200, COUNT = 512 };

/* ---- the distance of two clouds ---- */

typedef struct Cloud {
    int count;
    double at[4096][2];
} Cloud;

static double mean_distance(const Cloud *a, const Cloud *b)
{
    double sum = 0;
    for (int i = 0; i < a->count; i++)
        for (int j = 0; j < b->count; j++)
            sum += hypot(a->at[i][0] - b->at[j][0], a->at[i][1] - b->at[j][1]);
    return sum / a->count / b->count;
}

/* Szekely and Rizzo: 2 E|X - Y| - E|X - X'| - E|Y - Y'|, 0 for equal laws */
static double energy_distance(const Cloud *a, const Cloud *b)
{
    return 2 * mean_distance(a, b) - mean_distance(a, a) - mean_distance(b, b);
}

static AqDataset *open_data(const char *spec)
{
    AqError error = {0};
    AqDatasetOptions any = {0};
    AqDataset *set = aq_dataset_open(spec, &any, &error);
    if (!set)
        fail_msg("%s", error.text);
    return set;
}

static void take_data(const AqDataset *set, Cloud *cloud)
{
    const AqColumn *c = aq_dataset_columns(set);
    cloud->count = COUNT;
    for (int i = 0; i < COUNT; i++) {
        float x[2];
        assert_int_equal(aq_dataset_fetch(set, i, false, 0, 0, x, NULL), AQ_OK);
        for (int j = 0; j < 2; j++)
            cloud->at[i][j] = c[j].centre + c[j].half * x[j];
    }
}

/* What a sampler begins with, by the logistic distribution's quantiles in a
 * scrambled order: near enough to normal. */
static void take_noise(const AqDataset *set, Cloud *cloud)
{
    const AqColumn *c = aq_dataset_columns(set);
    cloud->count = COUNT;
    for (int i = 0; i < COUNT; i++) {
        const int order[2] = {i, (i * 197 + 31) % COUNT};
        for (int j = 0; j < 2; j++) {
            double u = (order[j] + 0.5) / COUNT;
            cloud->at[i][j] = c[j].centre + c[j].half * log(u / (1 - u)) / 1.7;
        }
    }
}

static void take_table(const char *name, Cloud *cloud)
{
    char path[200];
    AqError error = {0};
    AqTable table;
    AqArena *arena = aq_arena_new();
    snprintf(path, sizeof path, "%s/%s", aq_program_root(), name);
    if (aq_table_read(path, arena, &table, &error))
        fail_msg("%s", error.text);
    assert_int_equal(table.columns, 2);
    assert_int_equal(table.rows, COUNT);
    cloud->count = COUNT;
    memcpy(cloud->at, table.values, COUNT * sizeof cloud->at[0]);
    aq_table_free(&table);
    aq_arena_free(arena);
}

/* ---- runs ---- */

static double last_loss(const char *run)
{
    char name[100];
    size_t bytes;
    snprintf(name, sizeof name, "%s/metrics.csv", run);
    char *text = aq_contents(name, &bytes);
    text[bytes - 1] = 0;
    double loss = NAN;
    assert_int_equal(sscanf(strrchr(text, '\n'), "%*d,%*f,%lf", &loss), 1);
    free(text);
    return loss;
}

static void test_learns_moons(void **state)
{
    (void)state;
    static Cloud data, noise, samples;
    aq_expect(0, NULL,
              "train mlp2d --data points:moons --out moons --steps %d "
              "--samples %d --save-every 120 " SMALL,
              STEPS, COUNT);
    assert_non_null(strstr(aq_complained(), "points/s"));
    AqDataset *set = open_data("points:moons");
    take_data(set, &data);
    take_noise(set, &noise);
    aq_dataset_free(set);
    take_table("moons/samples/000200.csv", &samples);
    double near = energy_distance(&samples, &data);
    double far = energy_distance(&noise, &data);
    print_message("loss %g, energy distance %g, of noise %g\n",
                  last_loss("moons"), near, far);
    assert_true(last_loss("moons") < 0.6);
    assert_true(near < far / 10);
}

/* Needs the run above. */
static void test_samples(void **state)
{
    (void)state;
    aq_expect(0, NULL, "sample moons --count %d --out a.csv", COUNT);
    assert_true(aq_same_files("a.csv", "moons/samples/000200.csv"));
    aq_expect(0, NULL, "sample moons --count %d --batch 100 --out b.csv",
              COUNT);
    assert_true(aq_same_files("a.csv", "b.csv"));
    aq_expect(0, NULL, "sample moons --count 10 --seed 1 --out c.svg");
    size_t bytes;
    char *svg = aq_contents("c.svg", &bytes);
    assert_non_null(strstr(svg, "points:moons, step 200, seed 1"));
    assert_non_null(strstr(svg, "training data"));
    free(svg);
    aq_expect(0, "points:moons, 2 columns, batch 256", "info moons");
}

static void test_resumed(void **state)
{
    (void)state;
    aq_expect(0, NULL,
              "train mlp2d --data points:moons --out part --steps 90 "
              "--samples %d " SMALL,
              COUNT);
    aq_expect(0, NULL, "train --resume part --steps %d", STEPS);
    assert_true(
        aq_same_files("moons/samples/000200.csv", "part/samples/000200.csv"));
    assert_true(
        aq_same_files("moons/samples/000200.svg", "part/samples/000200.svg"));
}

/* ---- a table as data ---- */

static void test_table(void **state)
{
    (void)state;
    aq_shell("awk 'BEGIN { print \"height (cm),income\"; for (i = 0; i < 500; "
             "i++) printf \"%%.1f,%%s\\n\", 150 + i %% 37, "
             "i %% 100 ? 20000 + 50 * i : \"\" }' >people.csv");
    aq_expect(0, NULL,
              "train mlp2d --data points:people.csv --out people --steps 20 "
              "--batch 64 --samples 50 " SMALL);
    assert_non_null(strstr(
        aq_complained(), "warning: people.csv: 5 rows are left out because of "
                         "missing values, the first at line 2 in column "
                         "income\n"));
    aq_shell("head -1 people/samples/000020.csv");
    assert_string_equal(aq_printed(), "\"height (cm)\",income\n");
    aq_shell("awk -F, 'NR > 1 && ($1 < 149.9 || $1 > 186.1 || $2 < 20049 || "
             "$2 > 44951)' people/samples/000020.csv");
    assert_string_equal(aq_printed(), "");
    aq_shell("echo 210,1000 >>people.csv");
    aq_expect(1, "people.csv: its columns or their ranges are no longer those",
              "train --resume people --steps 30");
    aq_expect(0, NULL, "sample people --count 5 --out people.svg");
    assert_non_null(strstr(aq_complained(), "the training data are not drawn: "
                                            "they are no longer those"));
    aq_shell("rm people.csv");
    aq_expect(0, NULL, "sample people --count 5 --out people.svg");
    assert_non_null(
        strstr(aq_complained(), "the training data are not drawn: "));
    assert_non_null(strstr(aq_complained(),
                           "people.csv: the data of this run (--data "
                           "points:people.csv) are not there any more"));
}

static void test_classes(void **state)
{
    (void)state;
    aq_expect(0, NULL,
              "train mlp2d --data points:circles --labels --out circles "
              "--steps 2 --samples 8 " SMALL);
    aq_shell("cut -d, -f3 circles/samples/000002.csv | tr '\\n' ' '");
    assert_string_equal(aq_printed(), "class 0 1 0 1 0 1 0 1 ");
    aq_expect(0, NULL, "sample circles --label 1 --count 2 --out c.csv");
    aq_shell("cut -d, -f3 c.csv | tr '\\n' ' '");
    assert_string_equal(aq_printed(), "class 1 1 ");
}

static void test_other_columns(void **state)
{
    (void)state;
    aq_shell("seq 100 >one.txt; seq 100 | paste - - - - - >five.txt");
    aq_expect(0, NULL,
              "train mlp2d --data points:one.txt --out one --steps 2 "
              "--batch 16 " SMALL);
    aq_expect(0, NULL,
              "train mlp2d --data points:five.txt --out five --steps 2 "
              "--batch 16 " SMALL);
    size_t bytes;
    char *svg = aq_contents("one/samples/000002.svg", &bytes);
    assert_non_null(strstr(svg, ">share below</text>"));
    free(svg);
    svg = aq_contents("five/samples/000002.svg", &bytes);
    assert_non_null(strstr(svg, "the first two of 5 columns"));
    free(svg);
}

/* ---- mistakes ---- */

static void test_mistakes(void **state)
{
    (void)state;
    static const char *const cases[][2] = {
        {"train mlp2d --out run --steps 2 --data points:mons",
         "did you mean points:moons?"},
        {"train mlp2d --out run --steps 2 --data points:moons --size 8",
         "--size is for pictures, and points:moons are points: leave it out"},
        {"train mlp2d --out run --steps 2 --data points:moons --channels 2",
         "--channels is for pictures"},
        {"train mlp2d --out run --steps 2 --data points:spiral --labels",
         "--labels: points:spiral has no classes\n"},
        {"train ddpm_unet --out run --steps 2 --data points:moons",
         "ddpm_unet is for images (N, H, W, C), and these are points: mlp2d "
         "is for them\n"},
        {"sample moons --out a.png",
         "--out a.png: points are written as .csv, a table, or .svg, a "
         "picture\n"},
        {"sample moons --nearest a.png", "--nearest is for pictures"},
        {"sample moons --out folder.svg",
         "folder.svg: cannot write: Is a directory\n"},
        {"sample moons --sampler ddpm --eta 0",
         "--eta is for ddim, and the sampler is ddpm: leave it out\n"},
        {"info moons --tensors", "--tensors is for a model: leave it out\n"},
        {"info w.safetensors --size 8", "--size is for a model: leave it out"},
    };
    aq_shell("mkdir folder.svg");
    for (int i = 0; i < AQ_COUNT(cases); i++)
        aq_expect(1, cases[i][1], "%s", cases[i][0]);
}

/* Whoever gives no size is not asked for it. */
static void test_model_for_points(void **state)
{
    (void)state;
    aq_expect(0, "a point of 2 numbers takes", "info mlp2d");
    aq_expect(0, "a point of 5 numbers takes", "info mlp2d --channels 5");
    aq_expect(0, "32x32x3 takes", "info ddpm_unet --set channels=32");
    aq_expect(1, "mlp2d is for points (N, C), and these are images",
              "info mlp2d --size 32");
    aq_expect(1, "ddpm_unet is for images", "info ddpm_unet --size 0");
    aq_expect(1, "has no option \"widht\"", "info mlp2d --set widht=3");
    aq_expect(0, "points, channels 2", "bench mlp2d --steps 1 --set width=16");
    aq_expect(0, NULL, "graph mlp2d --out mlp2d.dot");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_learns_moons),
        cmocka_unit_test(test_samples),
        cmocka_unit_test(test_resumed),
        cmocka_unit_test(test_table),
        cmocka_unit_test(test_classes),
        cmocka_unit_test(test_other_columns),
        cmocka_unit_test(test_mistakes),
        cmocka_unit_test(test_model_for_points),
    };
    return cmocka_run_group_tests(tests, aq_program_setup, aq_program_teardown);
}
