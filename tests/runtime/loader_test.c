/* The order of the data: permutations, the same from any starting point. */
#include "runtime/run.h"

#include <pthread.h>
#include <setjmp.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

enum { PICTURES = 7, HEIGHT = 4, WIDTH = 9, SIZE = 4 };

static char root[] = "/tmp/aq_loader_XXXXXX";

static void put_picture(int number)
{
    AqError error = {0};
    AqImage image;
    char path[100];
    snprintf(path, sizeof path, "%s/%c", root, "ab"[number % 2]);
    aq_make_folders(path, &error);
    aq_image_new(&image, HEIGHT, WIDTH, 3, &error);
    for (int i = 0; i < HEIGHT * WIDTH; i++) {
        image.pixels[i * 3] = (uint8_t)(i % WIDTH);
        image.pixels[i * 3 + 1] = (uint8_t)(i / WIDTH);
        image.pixels[i * 3 + 2] = (uint8_t)number;
    }
    snprintf(path, sizeof path, "%s/%c/%d.png", root, "ab"[number % 2], number);
    assert_int_equal(aq_png_write(path, &image, &error), AQ_OK);
    aq_image_free(&image);
}

static int make_root(void **state)
{
    (void)state;
    if (!mkdtemp(root))
        return -1;
    for (int i = 0; i < PICTURES; i++)
        put_picture(i);
    return 0;
}

static int remove_root(void **state)
{
    (void)state;
    char command[64];
    snprintf(command, sizeof command, "rm -r %s", root);
    return system(command);
}

static AqDataset *open_set(size_t memory_limit)
{
    AqError error = {0};
    AqDatasetOptions options = {.height = SIZE,
                                .width = SIZE,
                                .channels = 3,
                                .threads = 1,
                                .memory_limit = memory_limit};
    AqDataset *set = aq_dataset_open(root, &options, &error);
    if (!set)
        fail_msg("%s", error.text);
    return set;
}

static AqLoader *open_loader(const AqDataset *set, AqLoaderOptions options)
{
    AqError error = {0};
    AqLoader *loader = aq_loader_new(set, &options, &error);
    if (!loader)
        fail_msg("%s", error.text);
    return loader;
}

/* ---- what was done to a picture, told from its pixels ---- */

typedef struct View {
    int picture, label, crop;
    bool flipped;
} View;

static int value_at(const float *x, int pixel, int channel)
{
    return (int)((x[pixel * 3 + channel] + 1) * 127.5f + 0.5f);
}

static View view_of(const float *x, int label)
{
    int left = value_at(x, 0, 0), right = value_at(x, SIZE - 1, 0);
    return (View){.picture = value_at(x, 0, 2),
                  .label = label,
                  .crop = AQ_MIN(left, right),
                  .flipped = left > right};
}

/* Samples first .. first + count - 1 of a run. */
static void collect(const AqDataset *set, AqLoaderOptions options, int count,
                    View *views)
{
    AqError error = {0};
    AqLoader *loader = open_loader(set, options);
    for (int n = 0; n < count;) {
        const AqBatch *batch = aq_loader_next(loader, &error);
        assert_non_null(batch);
        for (int i = 0; i < options.batch && n < count; i++, n++) {
            views[n] = view_of(batch->x + i * SIZE * SIZE * 3, batch->label[i]);
            assert_int_equal(batch->sample[i],
                             (int32_t)(uint32_t)(options.first + n));
        }
    }
    aq_loader_free(loader);
}

static const AqLoaderOptions usual = {
    .batch = 3, .seed = 5, .flip = true, .random_crop = true};

/* ---- tests ---- */

static void test_every_epoch_is_a_permutation(void **state)
{
    (void)state;
    enum { EPOCHS = 40 };
    View views[EPOCHS * PICTURES];
    AqDataset *set = open_set(0);
    collect(set, usual, EPOCHS * PICTURES, views);
    int first_place[PICTURES] = {0};
    for (int e = 0; e < EPOCHS; e++) {
        int seen[PICTURES] = {0};
        for (int i = 0; i < PICTURES; i++) {
            View v = views[e * PICTURES + i];
            assert_in_range(v.picture, 0, PICTURES - 1);
            assert_int_equal(v.label, v.picture % 2);
            assert_int_equal(seen[v.picture]++, 0);
        }
        first_place[views[e * PICTURES].picture]++;
    }
    for (int i = 0; i < PICTURES; i++) /* 40 / 7 expected */
        assert_in_range(first_place[i], 1, 16);
    aq_dataset_free(set);
}

static void test_flips_and_crops_are_chance(void **state)
{
    (void)state;
    enum { COUNT = 600 };
    static View views[COUNT];
    AqDataset *set = open_set(0);
    collect(set, usual, COUNT, views);
    int flips = 0, crops[WIDTH] = {0};
    for (int i = 0; i < COUNT; i++) {
        flips += views[i].flipped;
        crops[views[i].crop]++;
    }
    assert_in_range(flips, 240, 360);
    for (int i = 0; i <= WIDTH - SIZE; i++)
        assert_in_range(crops[i], 30, 300);
    aq_dataset_free(set);
}

static void test_neither_flips_nor_crops(void **state)
{
    (void)state;
    View views[50];
    AqDataset *set = open_set(0);
    collect(set, (AqLoaderOptions){.batch = 4, .seed = 9}, 50, views);
    for (int i = 0; i < 50; i++) {
        assert_false(views[i].flipped);
        assert_in_range(views[i].crop, (WIDTH - SIZE) / 2,
                        (WIDTH - SIZE + 1) / 2);
    }
    aq_dataset_free(set);
}

static bool same(const View *a, const View *b, int count)
{
    for (int i = 0; i < count; i++)
        if (a[i].picture != b[i].picture || a[i].flipped != b[i].flipped ||
            a[i].crop != b[i].crop || a[i].label != b[i].label)
            return false;
    return true;
}

/* Also with other batches, and with pictures decoded at every fetch. */
static void test_begins_anywhere(void **state)
{
    (void)state;
    enum { COUNT = 60 };
    View whole[COUNT], part[COUNT];
    AqDataset *set = open_set(0), *on_disk = open_set(1);
    collect(set, usual, COUNT, whole);
    for (int first = 0; first < COUNT; first++) {
        AqLoaderOptions options = usual;
        options.first = first;
        options.batch = 1 + first % 5;
        collect(first % 2 ? set : on_disk, options, COUNT - first, part);
        assert_true(same(whole + first, part, COUNT - first));
    }
    aq_dataset_free(set);
    aq_dataset_free(on_disk);
}

static void test_far_into_a_run(void **state)
{
    (void)state;
    View views[2 * PICTURES];
    AqDataset *set = open_set(0);
    AqLoaderOptions options = usual;
    options.first = ((int64_t)1 << 40) / PICTURES * PICTURES;
    collect(set, options, 2 * PICTURES, views);
    unsigned seen = 0;
    for (int i = 0; i < PICTURES; i++)
        seen |= 1u << views[i].picture;
    assert_int_equal(seen, (1u << PICTURES) - 1);
    aq_dataset_free(set);
}

static void test_another_seed_is_another_order(void **state)
{
    (void)state;
    View a[40], b[40];
    AqDataset *set = open_set(0);
    AqLoaderOptions other = usual;
    collect(set, usual, 40, a);
    other.seed += (uint64_t)1 << 32; /* the upper half counts as well */
    collect(set, other, 40, b);
    assert_false(same(a, b, 40));
    aq_dataset_free(set);
}

/* The batch handed out is not written over while it is in use. */
static void test_a_batch_stays(void **state)
{
    (void)state;
    AqError error = {0};
    AqDataset *set = open_set(0);
    AqLoader *loader = open_loader(set, usual);
    enum { FLOATS = 3 * SIZE * SIZE * 3 };
    for (int i = 0; i < 10; i++) {
        float kept[FLOATS];
        const AqBatch *batch = aq_loader_next(loader, &error);
        memcpy(kept, batch->x, sizeof kept);
        usleep(3000);
        assert_memory_equal(kept, batch->x, sizeof kept);
    }
    assert_true(aq_loader_bytes(set, 3) >= (int64_t)(3 * FLOATS * 4));
    aq_loader_free(loader);
    aq_loader_free(NULL);
    aq_dataset_free(set);
}

/* What was made before a picture disappeared is handed out; then a sentence. */
static void test_a_picture_that_disappears(void **state)
{
    (void)state;
    AqError error = {0};
    AqDataset *set = open_set(1); /* decoded at every fetch */
    char path[100], away[100];
    snprintf(path, sizeof path, "%s/b/1.png", root);
    snprintf(away, sizeof away, "%s/away", root);
    View views[PICTURES];
    AqLoaderOptions options = {.batch = 1, .seed = 3};
    collect(set, options, PICTURES, views);
    assert_int_equal(rename(path, away), 0);
    AqLoader *loader = open_loader(set, options);
    usleep(20000); /* it has run into it, or is full */
    for (int i = 0; views[i].picture != 1; i++)
        assert_non_null(aq_loader_next(loader, &error));
    assert_null(aq_loader_next(loader, &error));
    assert_non_null(strstr(error.text, "1.png"));
    error = (AqError){0};
    assert_null(aq_loader_next(loader, &error)); /* and it stays so */
    assert_int_not_equal(error.status, AQ_OK);
    aq_loader_free(loader);
    aq_dataset_free(set);
    assert_int_equal(rename(away, path), 0);
}

/* Of threads with a stack of 64 TiB there is not one. */
static void test_no_thread(void **state)
{
    (void)state;
    AqError error = {0};
    AqDataset *set = open_set(0);
    pthread_attr_t usual_ones, huge;
    pthread_getattr_default_np(&usual_ones);
    pthread_attr_init(&huge);
    assert_int_equal(pthread_attr_setstacksize(&huge, (size_t)1 << 46), 0);
    assert_int_equal(pthread_setattr_default_np(&huge), 0);
    AqLoader *loader = aq_loader_new(set, &usual, &error);
    pthread_setattr_default_np(&usual_ones);
    assert_null(loader);
    assert_string_equal(error.text, "no thread could be started for the data");
    pthread_attr_destroy(&huge);
    pthread_attr_destroy(&usual_ones);
    aq_dataset_free(set);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_epoch_is_a_permutation),
        cmocka_unit_test(test_flips_and_crops_are_chance),
        cmocka_unit_test(test_neither_flips_nor_crops),
        cmocka_unit_test(test_begins_anywhere),
        cmocka_unit_test(test_far_into_a_run),
        cmocka_unit_test(test_another_seed_is_another_order),
        cmocka_unit_test(test_a_batch_stays),
        cmocka_unit_test(test_a_picture_that_disappears),
        cmocka_unit_test(test_no_thread),
    };
    return cmocka_run_group_tests_name("loader", tests, make_root, remove_root);
}
