/* Sheets of samples, and the nearest pictures. */
#include "runtime/files.h"

#include <math.h>
#include <setjmp.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

static const uint8_t *pixel(const AqImage *image, int y, int x)
{
    return image->pixels + (y * image->width + x) * image->channels;
}

/* Three 2x1 samples: 2 columns, drawn 64 times larger, gutters of 2. */
static void test_layout(void **state)
{
    (void)state;
    AqError error = {0};
    const float v[3 * 2] = {-1, 1, 0, NAN, 3, -3};
    AqSamples samples = {v, 3, 2, 1, 1};
    AqImage sheet;
    assert_int_equal(aq_grid_draw(&samples, 0, &sheet, &error), AQ_OK);
    assert_int_equal(sheet.channels, 1);
    assert_int_equal(sheet.width, 2 + 2 * 66);
    assert_int_equal(sheet.height, 2 + 2 * 130);
    const struct {
        int y, x, value;
    } known[] = {
        {0, 0, 255},    {2, 2, 0},      {65, 65, 0}, {66, 2, 255},
        {2, 66, 255},   {2, 68, 128},   {66, 68, 0}, {129, 131, 0},
        {132, 2, 255},  {195, 65, 255}, {196, 2, 0}, {259, 65, 0},
        {132, 68, 255}, {260, 2, 255},
    };
    for (int i = 0; i < AQ_COUNT(known); i++)
        if (*pixel(&sheet, known[i].y, known[i].x) != known[i].value)
            fail_msg("(%d, %d) is %d", known[i].y, known[i].x,
                     *pixel(&sheet, known[i].y, known[i].x));
    aq_image_free(&sheet);
}

static void test_colours(void **state)
{
    (void)state;
    AqError error = {0};
    const float rgba[2 * 4] = {1, -1, -1, 1, -1, -1, -1, 0};
    AqImage sheet;
    AqSamples samples = {rgba, 2, 1, 1, 4};
    assert_int_equal(aq_grid_draw(&samples, 2, &sheet, &error), AQ_OK);
    assert_int_equal(sheet.channels, 3);
    const uint8_t red[3] = {255, 0, 0}, half[3] = {127, 127, 127};
    assert_memory_equal(pixel(&sheet, 2, 2), red, 3);
    assert_memory_equal(pixel(&sheet, 2, 68), half, 3);
    aq_image_free(&sheet);
    samples.channels = 2;
    assert_int_equal(aq_grid_draw(&samples, 2, &sheet, &error), AQ_INTERNAL);
    assert_string_equal(error.text, "2 samples of 1x1x2 cannot be drawn");
    error = (AqError){0};
    samples = (AqSamples){rgba, 1, 1, 1024, 1}; /* which is not looked at */
    assert_int_equal(aq_grid_draw(&samples, 1, &sheet, &error), AQ_UNSUPPORTED);
    assert_string_equal(error.text, "a sheet of 65540x68 pixels is too large "
                                    "to be looked at; draw fewer samples");
}

/* Samples are pictures of the set, shuffled and with some noise. */
static void test_nearest(void **state)
{
    (void)state;
    enum { N = 20, SIDE = 16, PIXELS = SIDE * SIDE * 3 };
    AqError error = {0};
    AqDataset *set = aq_dataset_open(
        "emoji:smileys", &(AqDatasetOptions){.height = SIDE, .width = SIDE},
        &error);
    assert_non_null(set);
    float *v = malloc(N * PIXELS * sizeof *v), distance[N];
    int64_t nearest[N];
    for (int i = 0; i < N; i++) {
        float *to = v + i * PIXELS;
        assert_int_equal(
            aq_dataset_fetch(set, i * 37 % 166, false, 0.5f, 0.5f, to, &error),
            AQ_OK);
        for (int k = 0; i > 0 && k < PIXELS; k++)
            to[k] += k % 2 ? 0.01f : -0.01f;
    }
    v[5 * PIXELS] = NAN;
    AqSamples samples = {v, N, SIDE, SIDE, 3};
    assert_int_equal(
        aq_nearest_pictures(set, &samples, nearest, distance, &error), AQ_OK);
    for (int i = 0; i < N; i++) {
        if (i == 5)
            continue;
        assert_int_equal(nearest[i], i * 37 % 166);
        assert_true(fabsf(distance[i] - (i > 0 ? 0.01f : 0)) < 1e-5f);
    }
    assert_true(nearest[5] == 0 && isinf(distance[5]));
    char path[] = "/tmp/aq_grid_XXXXXX";
    close(mkstemp(path));
    assert_int_equal(aq_pairs_write(path, &samples, set, &error), AQ_OK);
    AqImage sheet;
    assert_int_equal(aq_image_read(path, &sheet, &error), AQ_OK);
    /* 4 columns of pairs, 5 rows; the first sample is its own neighbour */
    assert_int_equal(sheet.width, 14 + 4 * (64 + 2 + 64 + 14));
    assert_int_equal(sheet.height, 7 + 5 * (64 + 7));
    for (int y = 7; y < 7 + 64; y++)
        assert_memory_equal(pixel(&sheet, y, 14), pixel(&sheet, y, 80), 64 * 3);
    aq_image_free(&sheet);
    assert_int_equal(aq_grid_write(path, &samples, 0, &error), AQ_OK);
    unlink(path);
    samples.channels = 1;
    assert_int_equal(
        aq_nearest_pictures(set, &samples, nearest, distance, &error),
        AQ_INTERNAL);
    assert_string_equal(error.text, "samples of 16x16x1 have no nearest "
                                    "pictures among 16x16x3");
    free(v);
    aq_dataset_free(set);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_layout),
        cmocka_unit_test(test_colours),
        cmocka_unit_test(test_nearest),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
