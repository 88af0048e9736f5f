/* Data sets: emoji, folders with classes and captions, broken files. */
#include "runtime/files.h"

#include <fcntl.h>
#include <limits.h>
#include <math.h>
#include <setjmp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "tests/support/folder.h"

/* Red is the column, green the row, blue as told. */
static void put_picture(const char *name, int height, int width, int blue)
{
    AqError error = {0};
    AqImage image;
    aq_image_new(&image, height, width, 3, &error);
    for (int i = 0; i < height * width; i++) {
        image.pixels[i * 3] = (uint8_t)(i % width);
        image.pixels[i * 3 + 1] = (uint8_t)(i / width);
        image.pixels[i * 3 + 2] = (uint8_t)blue;
    }
    char folder[PATH_MAX];
    snprintf(folder, sizeof folder, "%s", aq_test_path(name));
    *strrchr(folder, '/') = 0;
    assert_int_equal(aq_make_folders(folder, &error), AQ_OK);
    assert_int_equal(aq_png_write(aq_test_path(name), &image, &error), AQ_OK);
    aq_image_free(&image);
}

static void put_text(const char *name, const char *text)
{
    AqError error = {0};
    assert_int_equal(
        aq_file_write(aq_test_path(name), text, strlen(text), &error), AQ_OK);
}

static AqDataset *open_set(const char *spec, AqDatasetOptions options)
{
    AqError error = {0};
    if (!options.height)
        options.height = options.width = 8;
    AqDataset *set = aq_dataset_open(spec, &options, &error);
    if (!set)
        fail_msg("%s", error.text);
    return set;
}

static void refused(const char *spec, AqDatasetOptions options,
                    const char *sentence)
{
    AqError error = {0};
    assert_null(aq_dataset_open(spec, &options, &error));
    if (!strstr(error.text, sentence))
        fail_msg("expected '%s' in: %s", sentence, error.text);
}

/* ---- emoji ---- */

static void test_emoji_counts(void **state)
{
    (void)state;
    const struct {
        const char *spec;
        int count, classes;
    } known[] = {
        /* of Unicode 15.0 */
        {"emoji", 1870, 9},        {"emoji:smileys", 166, 16},
        {"emoji:Animals", 152, 8}, {"emoji:flags", 269, 3},
        {"emoji:people", 363, 16}, {"emoji:people+tones", 2148, 16},
    };
    for (int i = 0; i < AQ_COUNT(known); i++) {
        AqDataset *set = open_set(known[i].spec, (AqDatasetOptions){0});
        if (aq_dataset_count(set) != known[i].count ||
            aq_dataset_classes(set) != known[i].classes)
            fail_msg("%s", aq_dataset_describe(set));
        aq_dataset_free(set);
    }
}

static void test_emoji_names(void **state)
{
    (void)state;
    AqDataset *set = open_set("emoji:smileys", (AqDatasetOptions){0});
    assert_string_equal(aq_dataset_caption(set, 0), "grinning face");
    assert_string_equal(aq_dataset_name(set, 165), "ZZZ");
    assert_string_equal(aq_dataset_class_name(set, 0), "face-smiling");
    assert_int_equal(aq_dataset_label(set, 0), 0);
    assert_int_equal(aq_dataset_label(set, 165), 15);
    assert_string_equal(aq_dataset_class_name(set, 15), "emotion");
    assert_string_equal(aq_dataset_describe(set),
                        "emoji:smileys: 166 pictures, 8x8x3, 16 classes, "
                        "0.0 MiB in memory");
    aq_dataset_free(set);
    set = open_set("emoji", (AqDatasetOptions){0});
    assert_string_equal(aq_dataset_class_name(set, 8), "Flags");
    assert_int_equal(aq_dataset_label(set, 1869), 8);
    aq_dataset_free(set);
}

/* A grinning face: white corners, yellow forehead, and in RGBA transparent
 * corners. */
static void test_emoji_pixels(void **state)
{
    (void)state;
    enum { N = 32 };
    float v[N * N * 4];
    AqError error = {0};
    for (int c = 3; c <= 4; c++) {
        AqDataset *set = open_set(
            "emoji:smileys",
            (AqDatasetOptions){.height = N, .width = N, .channels = c});
        assert_int_equal(aq_dataset_fetch(set, 0, false, 0.5f, 0.5f, v, &error),
                         AQ_OK);
        const float *forehead = v + (6 * N + N / 2) * c;
        assert_true(forehead[0] > 0.8f && forehead[1] > 0.4f &&
                    forehead[2] < 0);
        if (c == 3)
            assert_true(v[0] == 1 && v[1] == 1 && v[2] == 1);
        else
            assert_true(v[3] == -1 && forehead[3] == 1);
        aq_dataset_free(set);
    }
}

static void test_emoji_refused(void **state)
{
    (void)state;
    AqDatasetOptions o = {.height = 8, .width = 8};
    refused("emoji:smilies", o, "Smileys & Emotion, People & Body, Animals");
    refused("emoji:Smilyes", o, "called so (did you mean emoji:smileys?); ");
    refused("emoji:bdy+tones", o, "called so (did you mean emoji:body?); ");
    refused("emoji:component", o, "called so; there are: Smileys & Emotion, ");
    o.memory_limit = 10000;
    refused("emoji:smileys", o, "do not fit");
}

/* Packages that are not installed, or broken: below folders of our own. */

static void put_font(const char *bytes, size_t count)
{
    AqError error = {0};
    assert_int_equal(aq_file_write(aq_test_path("share/fonts/noto/"
                                                "NotoColorEmoji.ttf"),
                                   bytes, count, &error),
                     AQ_OK);
}

/* The installed font, but for what its pictures are made of. */
static void put_font_without_pictures(void)
{
    char *font;
    size_t bytes;
    AqError error = {0};
    assert_int_equal(aq_file_read("/usr/share/fonts/truetype/noto/"
                                  "NotoColorEmoji.ttf",
                                  1 << 28, &font, &bytes, &error),
                     AQ_OK);
    const unsigned char *table = (const unsigned char *)font + 12;
    while (memcmp(table, "CBDT", 4) != 0)
        table += 16; /* tag, checksum, offset, length */
    size_t place[2] = {0};
    for (int i = 0; i < 8; i++)
        place[i / 4] = place[i / 4] << 8 | table[8 + i];
    memset(font + place[0] + 4, 0, place[1] - 4);
    put_font(font, bytes);
    free(font);
}

static void test_emoji_not_installed(void **state)
{
    (void)state;
    AqError error = {0};
    AqDatasetOptions o = {.height = 8, .width = 8};
    const char *list = "/usr/share/unicode/emoji/emoji-test.txt";
    setenv("XDG_DATA_DIRS", aq_test_path("share"), 1);
    refused("emoji", o,
            "the emoji pictures need the Debian packages unicode-data and "
            "fonts-noto-color-emoji (there is no "
            "unicode/emoji/emoji-test.txt in ");
    aq_make_folders(aq_test_path("share/unicode"), &error);
    aq_make_folders(aq_test_path("share/fonts/noto"), &error);
    assert_int_equal(symlink(list, aq_test_path("share/unicode/"
                                                "emoji-test.txt")),
                     0);
    refused("emoji", o, "(there is no fonts/truetype/noto/NotoColorEmoji.ttf");
    put_font("no font", 7);
    refused("emoji", o,
            "NotoColorEmoji.ttf: is no font with colour bitmaps; reinstall the "
            "package fonts-noto-color-emoji");
    put_font_without_pictures();
    refused("emoji", o,
            "the emoji font has no colour bitmap of 'grinning face'; reinstall "
            "the package fonts-noto-color-emoji");
    setenv("XDG_DATA_DIRS", "/nowhere::/usr/share", 1);
    aq_dataset_free(open_set("emoji:smileys", o));
    unsetenv("XDG_DATA_DIRS");
}

/* ---- folders ---- */

static void test_folder(void **state)
{
    (void)state;
    put_picture("set/dogs/2.png", 8, 8, 20);
    put_picture("set/dogs/deep/1.PNG", 8, 8, 21);
    put_picture("set/cats/b.png", 8, 8, 10);
    put_picture("set/cats/a.jpeg", 8, 8, 11); /* a PNG, by its content */
    put_picture("set/.hidden/x.png", 8, 8, 1);
    put_picture("set/loose.png", 8, 8, 30);
    put_text("set/notes.txt", "not a picture");
    put_text("set/metadata.jsonl",
             "{\"file_name\": \"cats/b.png\", \"text\": \"a cat\"}\n\n"
             "{\"file_name\": \"gone.png\", \"text\": \"nobody\", \"n\": 1}");
    const struct {
        const char *name, *caption;
        int label, blue;
    } known[] = {{"cats/a.jpeg", "", 1, 11},
                 {"cats/b.png", "a cat", 1, 10},
                 {"dogs/2.png", "", 2, 20},
                 {"dogs/deep/1.PNG", "", 2, 21},
                 {"loose.png", "", 0, 30}};
    assert_int_equal(symlink(aq_test_folder, aq_test_path("set/loop")), 0);
    AqDataset *set = open_set(aq_test_path("set"), (AqDatasetOptions){0});
    assert_int_equal(aq_dataset_count(set), AQ_COUNT(known));
    assert_int_equal(aq_dataset_classes(set), 3);
    assert_string_equal(aq_dataset_class_name(set, 0), ".");
    assert_string_equal(aq_dataset_class_name(set, 1), "cats");
    for (int i = 0; i < AQ_COUNT(known); i++) {
        AqError error = {0};
        float v[8 * 8 * 3];
        assert_string_equal(aq_dataset_name(set, i), known[i].name);
        assert_string_equal(aq_dataset_caption(set, i), known[i].caption);
        assert_int_equal(aq_dataset_label(set, i), known[i].label);
        assert_int_equal(aq_dataset_fetch(set, i, false, 0, 0, v, &error),
                         AQ_OK);
        assert_true(v[2] == (float)known[i].blue / 127.5f - 1);
    }
    aq_dataset_free(set);
    assert_int_equal(unlink(aq_test_path("set/loop")), 0);
}

typedef struct Told {
    int count;
    char text[2000]; /* sentence after sentence */
} Told;

static void tell(void *context, const char *sentence)
{
    Told *told = context;
    told->count++;
    size_t used = strlen(told->text);
    snprintf(told->text + used, sizeof told->text - used, "%s\n", sentence);
}

static void test_broken_files(void **state)
{
    (void)state;
    put_picture("some/good.png", 8, 8, 1);
    put_picture("some/long.png", 1, 2000, 1);
    put_text("some/text.png", "This is no picture.");
    Told told = {0};
    AqDatasetOptions o = {.warn = tell, .warn_context = &told};
    AqDataset *set = open_set(aq_test_path("some"), o);
    assert_int_equal(aq_dataset_count(set), 1);
    assert_int_equal(aq_dataset_broken(set), 2);
    assert_int_equal(told.count, 2);
    assert_non_null(strstr(told.text, "some/text.png: holds neither"));
    assert_non_null(strstr(told.text, "a picture of 2000x1 pixels is too long "
                                      "and narrow for samples of 8x8\n"));
    assert_non_null(strstr(aq_dataset_describe(set), "1 picture, 8x8x3"));
    assert_non_null(strstr(aq_dataset_describe(set), "2 broken files left"));
    aq_dataset_free(set);
}

static void test_unusable_folders(void **state)
{
    (void)state;
    AqError error = {0};
    AqDatasetOptions o = {.height = 8, .width = 8};
    refused("/nowhere", o, "is no folder of pictures");
    assert_int_equal(aq_make_folders(aq_test_path("empty/below"), &error),
                     AQ_OK);
    refused(aq_test_path("empty"), o, "no picture in it or below it");
    put_text("empty/a.png", "x");
    put_text("empty/b.jpg", "\xff\xd8\xff");
    refused(aq_test_path("empty"), o, "none of its 2 pictures can be used");
    refused(aq_test_path("empty"), o, "a.png: holds neither");
    put_picture("bad/a.png", 8, 8, 1);
    put_text("bad/metadata.jsonl", "{\"file_name\": \"a.png\"}");
    refused(aq_test_path("bad"), o, "metadata.jsonl:1: expected");
    assert_int_equal(
        aq_file_write(aq_test_path("bad/metadata.jsonl"), "{\0}", 3, &error),
        AQ_OK);
    refused(aq_test_path("bad"), o, "bad/metadata.jsonl: is no text");
    o.channels = 2;
    refused(aq_test_path("bad"), o,
            "samples cannot have 2 channels; 1 is grey, 3 is RGB, 4 is RGBA");
    o = (AqDatasetOptions){.height = 8};
    refused(aq_test_path("bad"), o,
            "samples cannot have 0x8 pixels; a side has 1 to 4096");
    o = (AqDatasetOptions){.height = 8, .width = 8, .memory_limit = 9000};
    refused("emoji:smileys", o,
            "the emoji do not fit in 0 MiB at this size; ask for a smaller "
            "size or a group, as in emoji:smileys");
}

/* So many folders, one in the other; back to where we were. */
static void put_tower(const char *name, const char *each, int count)
{
    int here = open(".", O_RDONLY | O_DIRECTORY);
    assert_int_equal(mkdir(aq_test_path(name), 0755), 0);
    assert_int_equal(chdir(aq_test_path(name)), 0);
    for (int i = 0; i < count; i++) {
        assert_int_equal(mkdir(each, 0755), 0);
        assert_int_equal(chdir(each), 0);
    }
    assert_int_equal(fchdir(here), 0);
    close(here);
}

static void test_towers_of_folders(void **state)
{
    (void)state;
    AqDatasetOptions o = {.height = 8, .width = 8};
    char name[201];
    memset(name, 'a', 200);
    name[200] = 0;
    put_tower("deep", "a", 66);
    refused(aq_test_path("deep"), o, "a/a/a: folders more than 64 deep");
    put_tower("long", name, 21);
    refused(aq_test_path("long"), o, "aaa...: the path is too long");
}

/* ---- fetching ---- */

/* 8 rows and 20 columns, fetched as 8x8 at three places, plain and flipped. */
static void test_crops_and_flips(void **state)
{
    (void)state;
    put_picture("wide/a.png", 8, 20, 5);
    AqDataset *set = open_set(aq_test_path("wide"), (AqDatasetOptions){0});
    const float fractions[] = {-1, 0, 0.5f, 1, 7, NAN};
    const int lefts[] = {0, 0, 6, 12, 12, 0};
    for (int i = 0; i < 2 * AQ_COUNT(lefts); i++) {
        AqError error = {0};
        float v[8 * 8 * 3];
        bool flip = i % 2;
        assert_int_equal(aq_dataset_fetch(set, 0, flip, fractions[i / 2],
                                          fractions[i / 2], v, &error),
                         AQ_OK);
        for (int x = 0; x < 8; x++) {
            int column = lefts[i / 2] + (flip ? 7 - x : x);
            assert_true(v[x * 3] == (float)column / 127.5f - 1);
            assert_true(v[(3 * 8 + x) * 3 + 1] == 3 / 127.5f - 1);
        }
    }
    AqError error = {0};
    float v[8 * 8 * 3];
    assert_int_equal(aq_dataset_fetch(set, 1, false, 0, 0, v, &error),
                     AQ_INTERNAL);
    assert_string_equal(error.text, "there is no picture 1 of 1");
    aq_dataset_free(set);
}

/* Whether pictures stay in memory changes neither pixels nor the fingerprint;
 * a changed picture does. */
static void test_memory_limit(void **state)
{
    (void)state;
    for (int i = 0; i < 6; i++) {
        char name[32];
        snprintf(name, sizeof name, "many/%d.png", i);
        put_picture(name, 30, 20 + i, 40 * i);
    }
    AqDataset *all = open_set(aq_test_path("many"), (AqDatasetOptions){0});
    AqDataset *few =
        open_set(aq_test_path("many"), (AqDatasetOptions){.memory_limit = 700});
    assert_true(aq_dataset_bytes(few) <= 700);
    assert_non_null(strstr(aq_dataset_describe(few), "decoded at every use"));
    for (int i = 0; i < 6; i++) {
        AqError error = {0};
        float a[8 * 8 * 3], b[8 * 8 * 3];
        aq_dataset_fetch(all, i, true, 0.3f, 0.7f, a, &error);
        aq_dataset_fetch(few, i, true, 0.3f, 0.7f, b, &error);
        assert_int_equal(error.status, AQ_OK);
        assert_memory_equal(a, b, sizeof a);
    }
    AqHash f = aq_dataset_fingerprint(all), g = aq_dataset_fingerprint(few);
    assert_true(f.low == g.low && f.high == g.high);
    aq_dataset_free(few);
    put_picture("many/3.png", 30, 23, 121);
    few = open_set(aq_test_path("many"), (AqDatasetOptions){0});
    g = aq_dataset_fingerprint(few);
    assert_false(f.low == g.low && f.high == g.high);
    aq_dataset_free(few);
    aq_dataset_free(all);
}

/* A file that goes away after opening is an error with its name. */
static void test_file_gone(void **state)
{
    (void)state;
    put_picture("going/a.png", 8, 8, 1);
    AqDataset *set =
        open_set(aq_test_path("going"), (AqDatasetOptions){.memory_limit = 1});
    unlink(aq_test_path("going/a.png"));
    AqError error = {0};
    float v[8 * 8 * 3];
    assert_int_equal(aq_dataset_fetch(set, 0, false, 0, 0, v, &error), AQ_IO);
    assert_non_null(strstr(error.text, "going/a.png"));
    aq_dataset_free(set);
}

typedef struct Shared {
    const AqDataset *set;
    float *out;
} Shared;

enum { TIMES = 64, PIXELS = 8 * 8 * 3 };

static void fetch_one(void *context, int index)
{
    Shared *shared = context;
    aq_dataset_fetch(shared->set, index % 6, false, 0.5f, 0.5f,
                     shared->out + index * PIXELS, NULL);
}

static void test_threads(void **state)
{
    (void)state;
    AqDataset *set =
        open_set(aq_test_path("many"), (AqDatasetOptions){.memory_limit = 700});
    float *one = malloc(TIMES * PIXELS * sizeof *one);
    float *four = malloc(TIMES * PIXELS * sizeof *four);
    aq_parallel(1, TIMES, fetch_one, &(Shared){set, one});
    aq_parallel(4, TIMES, fetch_one, &(Shared){set, four});
    assert_memory_equal(one, four, TIMES * PIXELS * sizeof *one);
    free(one);
    free(four);
    aq_dataset_free(set);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_emoji_counts),
        cmocka_unit_test(test_emoji_names),
        cmocka_unit_test(test_emoji_pixels),
        cmocka_unit_test(test_emoji_refused),
        cmocka_unit_test(test_emoji_not_installed),
        cmocka_unit_test(test_folder),
        cmocka_unit_test(test_broken_files),
        cmocka_unit_test(test_unusable_folders),
        cmocka_unit_test(test_towers_of_folders),
        cmocka_unit_test(test_crops_and_flips),
        cmocka_unit_test(test_memory_limit),
        cmocka_unit_test(test_file_gone),
        cmocka_unit_test(test_threads),
    };
    return cmocka_run_group_tests(tests, aq_test_make_folder,
                                  aq_test_remove_folder);
}
