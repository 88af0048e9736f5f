/* PNG files of all kinds made with libpng here, JPEG files, and broken ones. */
#include "runtime/files.h"

#include <png.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <turbojpeg.h>
#include <unistd.h>

#include <cmocka.h>

enum { HEIGHT = 9, WIDTH = 13 };

/* The value of channel j at (y, x), below 2^bits. */
static unsigned value(int y, int x, int j, int bits)
{
    return (unsigned)(y * 31 + x * 7 + j * 57) * 257u & ((1u << bits) - 1);
}

static void to_text(png_structp png, png_bytep data, png_size_t bytes)
{
    aq_text_bytes(png_get_io_ptr(png), data, bytes);
}

static void make_rows(int type, int bits, png_bytep *rows)
{
    int channels = type == PNG_COLOR_TYPE_RGB          ? 3
                   : type == PNG_COLOR_TYPE_RGB_ALPHA  ? 4
                   : type == PNG_COLOR_TYPE_GRAY_ALPHA ? 2
                                                       : 1;
    for (int y = 0; y < HEIGHT; y++) {
        rows[y] = calloc(1, WIDTH * 8);
        for (int i = 0; i < WIDTH * channels; i++) {
            unsigned v = value(y, i / channels, i % channels, bits);
            if (type == PNG_COLOR_TYPE_PALETTE)
                v %= 4;
            if (bits == 16) {
                rows[y][i * 2] = (png_byte)(v >> 8);
                rows[y][i * 2 + 1] = (png_byte)v;
            } else {
                int at = i * bits;
                rows[y][at / 8] |= (png_byte)(v << (8 - bits - at % 8));
            }
        }
    }
}

static const png_color palette[4] = {
    {1, 2, 3}, {40, 50, 60}, {255, 0, 9}, {7, 255, 255}};

static AqText make_png(int type, int bits, bool interlaced, bool transparent)
{
    AqText out = {0};
    png_bytep rows[HEIGHT];
    png_structp png =
        png_create_write_struct(PNG_LIBPNG_VER_STRING, NULL, NULL, NULL);
    png_infop info = png_create_info_struct(png);
    png_set_write_fn(png, &out, to_text, NULL);
    png_set_IHDR(png, info, WIDTH, HEIGHT, bits, type,
                 interlaced ? PNG_INTERLACE_ADAM7 : PNG_INTERLACE_NONE, 0, 0);
    if (type == PNG_COLOR_TYPE_PALETTE)
        png_set_PLTE(png, info, palette, 4);
    png_byte alpha[4] = {255, 0, 128, 255};
    if (transparent)
        png_set_tRNS(png, info, alpha, 4, NULL);
    make_rows(type, bits, rows);
    png_set_rows(png, info, rows);
    png_write_png(png, info, PNG_TRANSFORM_IDENTITY, NULL);
    png_destroy_write_struct(&png, &info);
    for (int y = 0; y < HEIGHT; y++)
        free(rows[y]);
    return out;
}

static AqImage decode(const AqText *file, int channels)
{
    AqError error = {0};
    AqImage image;
    if (aq_image_decode(file->data, file->length, "x", &image, &error))
        fail_msg("%s", error.text);
    assert_int_equal(image.height, HEIGHT);
    assert_int_equal(image.width, WIDTH);
    assert_int_equal(image.channels, channels);
    return image;
}

static int scaled(int y, int x, int j, int bits)
{
    unsigned most = (1u << bits) - 1;
    return (int)((value(y, x, j, bits) * 255 + most / 2) / most);
}

static void check_plain(int type, int bits, bool interlaced, int channels)
{
    AqText file = make_png(type, bits, interlaced, false);
    AqImage image = decode(&file, channels);
    bool grey_alpha = type == PNG_COLOR_TYPE_GRAY_ALPHA;
    for (int i = 0; i < HEIGHT * WIDTH * channels; i++) {
        int j = i % channels, x = i / channels % WIDTH,
            y = i / channels / WIDTH;
        if (grey_alpha)
            j = j == 3;
        if (image.pixels[i] != scaled(y, x, j, bits))
            fail_msg("type %d, %d bits, (%d, %d, %d): %d is not %d", type, bits,
                     y, x, j, image.pixels[i], scaled(y, x, j, bits));
    }
    aq_image_free(&image);
    aq_text_free(&file);
}

static void test_png_kinds(void **state)
{
    (void)state;
    for (int interlaced = 0; interlaced < 2; interlaced++) {
        for (int bits = 1; bits <= 16; bits *= 2)
            check_plain(PNG_COLOR_TYPE_GRAY, bits, interlaced, 1);
        for (int bits = 8; bits <= 16; bits *= 2) {
            check_plain(PNG_COLOR_TYPE_GRAY_ALPHA, bits, interlaced, 4);
            check_plain(PNG_COLOR_TYPE_RGB, bits, interlaced, 3);
            check_plain(PNG_COLOR_TYPE_RGB_ALPHA, bits, interlaced, 4);
        }
    }
}

static void test_png_palette(void **state)
{
    (void)state;
    const int alpha[4] = {255, 0, 128, 255};
    for (int bits = 2; bits <= 8; bits *= 2) {
        for (int channels = 3; channels <= 4; channels++) {
            AqText file = make_png(PNG_COLOR_TYPE_PALETTE, bits, bits == 4,
                                   channels == 4);
            AqImage image = decode(&file, channels);
            for (int i = 0; i < HEIGHT * WIDTH; i++) {
                const uint8_t *p = image.pixels + i * channels;
                unsigned v = value(i / WIDTH, i % WIDTH, 0, bits) % 4;
                assert_int_equal(p[0], palette[v].red);
                assert_int_equal(p[1], palette[v].green);
                assert_int_equal(p[2], palette[v].blue);
                assert_true(channels == 3 || p[3] == alpha[v]);
            }
            aq_image_free(&image);
            aq_text_free(&file);
        }
    }
}

static void test_png_round_trip(void **state)
{
    (void)state;
    AqError error = {0};
    char path[] = "/tmp/aq_image_XXXXXX";
    close(mkstemp(path));
    for (int channels = 1; channels <= 4; channels += channels == 1 ? 2 : 1) {
        AqImage image, again;
        aq_image_new(&image, HEIGHT, WIDTH, channels, &error);
        size_t bytes = (size_t)HEIGHT * WIDTH * (size_t)channels;
        for (size_t i = 0; i < bytes; i++)
            image.pixels[i] = (uint8_t)(i * i);
        assert_int_equal(aq_png_write(path, &image, &error), AQ_OK);
        assert_int_equal(aq_image_read(path, &again, &error), AQ_OK);
        assert_int_equal(again.channels, channels);
        assert_memory_equal(image.pixels, again.pixels, bytes);
        aq_image_free(&image);
        aq_image_free(&again);
    }
    unlink(path);
    AqImage two = {1, 1, 2, (uint8_t *)path};
    assert_int_equal(aq_png_write(path, &two, &error), AQ_INTERNAL);
    assert_false(aq_file_exists(path));
}

static AqText make_jpeg(int format, int sampling, int components)
{
    uint8_t pixels[HEIGHT * WIDTH * 4];
    for (int i = 0; i < HEIGHT * WIDTH * components; i++)
        pixels[i] =
            (uint8_t)(100 + 50 * (i % components) + i / components / WIDTH);
    unsigned char *data = NULL;
    unsigned long bytes = 0;
    tjhandle jpeg = tjInitCompress();
    assert_int_equal(tjCompress2(jpeg, pixels, WIDTH, 0, HEIGHT, format, &data,
                                 &bytes, sampling, 95, 0),
                     0);
    AqText out = {0};
    aq_text_bytes(&out, data, bytes);
    tjFree(data);
    tjDestroy(jpeg);
    return out;
}

static void test_jpeg(void **state)
{
    (void)state;
    AqText file = make_jpeg(TJPF_RGB, TJSAMP_444, 3);
    AqImage image = decode(&file, 3);
    for (int i = 0; i < HEIGHT * WIDTH * 3; i++)
        assert_in_range(image.pixels[i] + 5 - 50 * (i % 3) - i / 3 / WIDTH, 100,
                        110);
    aq_image_free(&image);
    aq_text_free(&file);
    file = make_jpeg(TJPF_GRAY, TJSAMP_GRAY, 1);
    image = decode(&file, 1);
    for (int i = 0; i < HEIGHT * WIDTH; i++)
        assert_in_range(image.pixels[i] + 5 - i / WIDTH, 100, 110);
    aq_image_free(&image);
    aq_text_free(&file);
}

/* An Exif segment with one entry, put behind the first two bytes. */
static AqText with_orientation(const AqText *jpeg, bool little, int value)
{
    unsigned char segment[36] = "\xff\xe1\0\x22"
                                "Exif\0\0MM\0\x2a";
    const int two[][2] = {{18, 1}, {20, 0x0112}, {22, 3}, {28, value}};
    segment[17] = 8; /* where the directory is */
    segment[27] = 1; /* so many values */
    for (int i = 0; i < 4; i++) {
        segment[two[i][0]] = (unsigned char)(two[i][1] >> 8);
        segment[two[i][0] + 1] = (unsigned char)two[i][1];
    }
    if (little) {
        const int swapped[][2] = {{12, 13}, {14, 17}, {18, 19}, {20, 21},
                                  {22, 23}, {24, 27}, {28, 29}};
        segment[10] = segment[11] = 'I';
        segment[12] = 0;
        segment[13] = 0x2a;
        for (int i = 0; i < 7; i++) {
            unsigned char kept = segment[swapped[i][0]];
            segment[swapped[i][0]] = segment[swapped[i][1]];
            segment[swapped[i][1]] = kept;
        }
    }
    AqText out = {0};
    aq_text_bytes(&out, jpeg->data, 2);
    aq_text_bytes(&out, segment, sizeof segment);
    aq_text_bytes(&out, jpeg->data + 2, jpeg->length - 2);
    return out;
}

/* Where (first row, first column) of what is stored is to be seen. */
static void test_orientation(void **state)
{
    (void)state;
    static const int corner[9] = {0, 0, 1, 3, 2, 0, 1, 3, 2};
    AqText plain = make_jpeg(TJPF_GRAY, TJSAMP_GRAY, 1);
    AqImage stored = decode(&plain, 1);
    for (int i = 0; i < 18; i++) {
        AqError error = {0};
        AqImage image;
        int way = i % 9;
        AqText file = with_orientation(&plain, i < 9, way);
        assert_int_equal(aq_exif_orientation(file.data, file.length),
                         way ? way : 1);
        assert_int_equal(
            aq_image_decode(file.data, file.length, "x", &image, &error),
            AQ_OK);
        assert_int_equal(image.height, way < 5 ? HEIGHT : WIDTH);
        int y = corner[way] / 2 * (image.height - 1);
        int x = corner[way] % 2 * (image.width - 1);
        /* one row further in what is stored */
        int dy = way < 5 ? (y ? -1 : 1) : 0, dx = way < 5 ? 0 : x ? -1 : 1;
        for (int row = 0; row < HEIGHT; row++)
            assert_int_equal(
                image.pixels[(y + row * dy) * image.width + x + row * dx],
                stored.pixels[row * WIDTH]);
        aq_image_free(&image);
        for (size_t n = 0; n < 40; n++) /* cut or longer than it says */
            aq_exif_orientation(file.data, n);
        aq_text_free(&file);
    }
    aq_image_free(&stored);
    aq_text_free(&plain);
}

/* Single bytes changed at random: an error or a picture, and never more. */
static void test_mutations(void **state)
{
    (void)state;
    AqText plain = make_jpeg(TJPF_RGB, TJSAMP_444, 3);
    AqText files[] = {make_png(PNG_COLOR_TYPE_PALETTE, 4, true, true),
                      make_png(PNG_COLOR_TYPE_RGB_ALPHA, 16, false, false),
                      with_orientation(&plain, true, 6)};
    uint32_t random = 1;
    for (int i = 0; i < 3000; i++) {
        AqText *file = &files[i % 3];
        random = random * 1664525 + 1013904223;
        char *at = &file->data[random % file->length], kept = *at;
        *at = (char)(random >> 24);
        AqError error = {0};
        AqImage image;
        AqStatus status =
            aq_image_decode(file->data, file->length, "x", &image, &error);
        assert_true((status == AQ_OK) == (image.pixels != NULL));
        assert_true((status == AQ_OK) == (error.text[0] == 0));
        aq_image_free(&image);
        *at = kept;
    }
    for (int i = 0; i < 3; i++)
        aq_text_free(&files[i]);
    aq_text_free(&plain);
}

static void refuses(const AqText *file, size_t bytes, const char *sentence)
{
    AqError error = {0};
    AqImage image;
    assert_int_equal(
        aq_image_decode(file->data, bytes, "cat.png", &image, &error),
        AQ_BAD_INPUT);
    assert_null(image.pixels);
    assert_ptr_equal(strstr(error.text, "cat.png: "), error.text);
    if (!strstr(error.text, sentence))
        fail_msg("expected '%s' in: %s", sentence, error.text);
}

static void test_cmyk(void **state)
{
    (void)state;
    AqText file = make_jpeg(TJPF_CMYK, TJSAMP_444, 4);
    refuses(&file, file.length, "CMYK");
    aq_text_free(&file);
}

static void test_broken(void **state)
{
    (void)state;
    AqText text = {0};
    aq_text_add(&text, "This is no picture.\n");
    refuses(&text, text.length, "neither");
    refuses(&text, 0, "neither");
    aq_text_free(&text);
    AqText png = make_png(PNG_COLOR_TYPE_RGB, 8, false, false);
    for (size_t n = 8; n < png.length; n++)
        refuses(&png, n, "broken PNG");
    png.data[png.length - 30] ^= 1; /* within the pixels */
    refuses(&png, png.length, "broken PNG");
    aq_text_free(&png);
    AqText jpeg = make_jpeg(TJPF_RGB, TJSAMP_444, 3);
    for (size_t n = 3; n + 2 < jpeg.length; n++)
        refuses(&jpeg, n, "broken JPEG");
    aq_text_free(&jpeg);
    AqText tables = {0}; /* a file of tables for others */
    aq_text_bytes(&tables, "\xff\xd8\xff\xd9", 4);
    refuses(&tables, tables.length,
            "a broken JPEG file: it ends before the picture");
    aq_text_free(&tables);
}

/* Sizes that our own callers get wrong. */
static void test_impossible(void **state)
{
    (void)state;
    AqError error = {0};
    AqImage image, piece;
    assert_int_equal(aq_image_new(&image, 0, 4, 3, &error), AQ_INTERNAL);
    assert_string_equal(error.text, "no picture can be 0x4x3");
    error = (AqError){0};
    assert_int_equal(aq_image_new(&image, 2, 4, 2, &error), AQ_OK);
    AqText png = {0};
    assert_int_equal(aq_png_encode(&image, &png, &error), AQ_INTERNAL);
    assert_string_equal(error.text, "no PNG has 2 channels here");
    error = (AqError){0};
    assert_int_equal(aq_image_crop(&image, 1, 0, 2, 4, &piece, &error),
                     AQ_INTERNAL);
    assert_string_equal(error.text,
                        "cannot cut 2x4 at (1, 0) out of 2x4 pixels");
    aq_image_free(&image);
}

static uint32_t crc32_of(const unsigned char *data, int bytes)
{
    uint32_t crc = ~0u;
    for (int i = 0; i < bytes; i++) {
        crc ^= data[i];
        for (int k = 0; k < 8; k++)
            crc = crc >> 1 ^ (crc & 1 ? 0xedb88320u : 0);
    }
    return ~crc;
}

static long peak_kib(void)
{
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    return usage.ru_maxrss;
}

/* The sizes in the header are believed only within the limits. */
static void test_bombs(void **state)
{
    (void)state;
    long before = peak_kib();
    const uint32_t sides[][2] = {
        {16385, 1}, {1, 16385}, {16384, 16384}, {0x7fffffff, 0x7fffffff}};
    for (int i = 0; i < AQ_COUNT(sides); i++) {
        AqText png = make_png(PNG_COLOR_TYPE_RGB, 8, false, false);
        unsigned char *chunk = (unsigned char *)png.data + 12; /* IHDR */
        for (int k = 0; k < 8; k++)
            chunk[4 + k] = (unsigned char)(sides[i][k / 4] >> (24 - k % 4 * 8));
        uint32_t crc = crc32_of(chunk, 17);
        for (int k = 0; k < 4; k++)
            chunk[17 + k] = (unsigned char)(crc >> (24 - k * 8));
        refuses(&png, png.length, "over the limit");
        aq_text_free(&png);
    }
    assert_true(peak_kib() - before < 32 << 10);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        /* first, for it looks at the peak of memory */
        cmocka_unit_test(test_bombs),
        cmocka_unit_test(test_png_kinds),
        cmocka_unit_test(test_png_palette),
        cmocka_unit_test(test_png_round_trip),
        cmocka_unit_test(test_jpeg),
        cmocka_unit_test(test_cmyk),
        cmocka_unit_test(test_orientation),
        cmocka_unit_test(test_mutations),
        cmocka_unit_test(test_broken),
        cmocka_unit_test(test_impossible),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
