/* Resampling against Pillow's own pixels, and the small pixel work. */
#include "runtime/files.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static AqTensorFile *golden;

static int open_golden(void **state)
{
    (void)state;
    golden =
        aq_tensors_open(AQ_SOURCE_DIR "/tests/golden/resize.safetensors", NULL);
    return golden ? 0 : -1;
}

static int close_golden(void **state)
{
    (void)state;
    aq_tensors_close(golden);
    return 0;
}

static AqImage picture(const char *name)
{
    AqError error = {0};
    AqImage image;
    const AqTensorInfo *t = aq_tensors_find(golden, name);
    if (!t) {
        fail_msg("no golden picture %s", name);
        return (AqImage){0};
    }
    assert_int_equal(aq_image_new(&image, (int)t->shape[1], (int)t->shape[2],
                                  (int)t->shape[3], &error),
                     AQ_OK);
    assert_int_equal(
        aq_tensors_read_bytes(golden, t, 0, image.pixels, t->bytes, &error),
        AQ_OK);
    return image;
}

/* The largest difference, and how many of the bytes differ at all.  Colours of
 * pixels that hardly show are not compared. */
static int largest_difference(const AqImage *a, const AqImage *b, int *differ)
{
    int most = 0;
    *differ = 0;
    assert_true(a->height == b->height && a->width == b->width &&
                a->channels == b->channels);
    int n = a->height * a->width * a->channels;
    for (int i = 0; i < n; i++) {
        if (a->channels == 4 && b->pixels[i / 4 * 4 + 3] < 64)
            continue;
        int d = abs(a->pixels[i] - b->pixels[i]);
        most = AQ_MAX(most, d);
        *differ += d != 0;
    }
    return most;
}

static void test_as_pillow(void **state)
{
    (void)state;
    static const char *const modes[] = {"rgb", "rgba"};
    static const char *const names[] = {"bicubic", "bilinear", "box",
                                        "lanczos"};
    static const int sizes[3][2] = {{16, 16}, {64, 64}, {21, 40}};
    for (int i = 0; i < 2 * 4 * 3; i++) {
        const int *size = sizes[i % 3];
        AqFilter filter = (AqFilter)(i / 3 % 4);
        const char *mode = modes[i / 12];
        char name[64];
        snprintf(name, sizeof name, "%s_%dx%d_%s", mode, size[0], size[1],
                 names[filter]);
        AqImage from = picture(mode), expected = picture(name), got;
        AqError error = {0};
        assert_int_equal(
            aq_image_resize(&from, size[0], size[1], filter, &got, &error),
            AQ_OK);
        int differ;
        if (largest_difference(&got, &expected, &differ) > 0)
            fail_msg("%s: %d bytes differ", name, differ);
        aq_image_free(&from);
        aq_image_free(&expected);
        aq_image_free(&got);
    }
}

static void test_same_size(void **state)
{
    (void)state;
    AqImage from = picture("rgba"), got;
    AqError error = {0};
    assert_int_equal(aq_image_resize(&from, from.height, from.width,
                                     AQ_FILTER_LANCZOS, &got, &error),
                     AQ_OK);
    assert_memory_equal(from.pixels, got.pixels,
                        (size_t)from.height * (size_t)from.width * 4);
    aq_image_free(&from);
    aq_image_free(&got);
}

/* A flat picture stays flat under every filter and size. */
static void test_flat(void **state)
{
    (void)state;
    for (int i = 0; i < 4 * 40; i++) {
        AqError error = {0};
        AqImage from, got;
        aq_image_new(&from, 1 + i % 7, 1 + i % 13, 1, &error);
        memset(from.pixels, 201, (size_t)from.height * (size_t)from.width);
        assert_int_equal(aq_image_resize(&from, 1 + i % 11, 1 + i % 17,
                                         (AqFilter)(i % 4), &got, &error),
                         AQ_OK);
        for (int k = 0; k < got.height * got.width; k++)
            assert_int_equal(got.pixels[k], 201);
        aq_image_free(&from);
        aq_image_free(&got);
    }
}

static void test_crop(void **state)
{
    (void)state;
    AqError error = {0};
    uint8_t pixels[2 * 3 * 3];
    for (int i = 0; i < AQ_COUNT(pixels); i++)
        pixels[i] = (uint8_t)i;
    AqImage from = {2, 3, 3, pixels}, got;
    assert_int_equal(aq_image_crop(&from, 1, 1, 1, 2, &got, &error), AQ_OK);
    assert_memory_equal(got.pixels, pixels + 12, 6);
    aq_image_free(&got);
    assert_int_equal(aq_image_crop(&from, 1, 1, 2, 2, &got, &error),
                     AQ_INTERNAL);
}

static void test_channels(void **state)
{
    (void)state;
    AqError error = {0};
    uint8_t rgba[] = {255, 0, 0, 255, 10, 20, 30, 0, 0, 0, 0, 128};
    AqImage from = {1, 3, 4, rgba}, got, grey;
    assert_int_equal(aq_image_channels(&from, 3, &got, &error), AQ_OK);
    const uint8_t rgb[] = {255, 0, 0, 255, 255, 255, 127, 127, 127};
    assert_memory_equal(got.pixels, rgb, sizeof rgb);
    assert_int_equal(aq_image_channels(&from, 1, &grey, &error), AQ_OK);
    const uint8_t luma[] = {76, 255, 127};
    assert_memory_equal(grey.pixels, luma, sizeof luma);
    aq_image_free(&got);
    assert_int_equal(aq_image_channels(&grey, 4, &got, &error), AQ_OK);
    const uint8_t back[] = {76,  76,  76,  255, 255, 255,
                            255, 255, 127, 127, 127, 255};
    assert_memory_equal(got.pixels, back, sizeof back);
    aq_image_free(&got);
    aq_image_free(&grey);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_as_pillow), cmocka_unit_test(test_same_size),
        cmocka_unit_test(test_flat),      cmocka_unit_test(test_channels),
        cmocka_unit_test(test_crop),
    };
    return cmocka_run_group_tests(tests, open_golden, close_golden);
}
