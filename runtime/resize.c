/* Resampling to the same bytes as Pillow, and small pixel work.
 *
 * Output x sees the input through a filter centred on (x + 1/2) in/out,
 * widened by max(1, in/out), cut at the border and normalised.  Rows first,
 * rounded to 8 bits, then columns.  Weights are fixed point with 22 bits: sums
 * of them times 8 bits stay within 32. */
#include "runtime/files.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { WEIGHT_BITS = 22 };

/* ---- filters ---- */

static double box(double x)
{
    return x > -0.5 && x <= 0.5 ? 1 : 0;
}

static double triangle(double x)
{
    x = fabs(x);
    return x < 1 ? 1 - x : 0;
}

/* Keys' cubic with a = -1/2 */
static double cubic(double x)
{
    const double a = -0.5;
    x = fabs(x);
    if (x < 1)
        return ((a + 2) * x - (a + 3)) * x * x + 1;
    if (x < 2)
        return (((x - 5) * x + 8) * x - 4) * a;
    return 0;
}

static double sinc(double x)
{
    return x == 0 ? 1 : sin(x * M_PI) / (x * M_PI);
}

static double lanczos(double x)
{
    return x >= -3 && x < 3 ? sinc(x) * sinc(x / 3) : 0;
}

static const struct {
    double (*weight)(double);
    double support;
} filters[] = {
    [AQ_FILTER_BICUBIC] = {cubic, 2},
    [AQ_FILTER_BILINEAR] = {triangle, 1},
    [AQ_FILTER_BOX] = {box, 0.5},
    [AQ_FILTER_LANCZOS] = {lanczos, 3},
};

/* ---- one direction ---- */

/* Output i = sum of weights[i * most + k] * input[first[i] + k], k < count[i]
 */
typedef struct Taps {
    int most, *first, *count;
    int32_t *weights;
} Taps;

static void free_taps(Taps *taps)
{
    free(taps->first);
    free(taps->count);
    free(taps->weights);
}

static void tap(Taps *taps, int i, int in, double scale, AqFilter filter,
                double *weights)
{
    double wide = scale > 1 ? scale : 1;
    double support = filters[filter].support * wide;
    double centre = (i + 0.5) * scale, sum = 0;
    int first = AQ_MAX((int)(centre - support + 0.5), 0);
    int count = AQ_MIN((int)(centre + support + 0.5), in) - first;
    for (int k = 0; k < count; k++) {
        double at = (first + k - centre + 0.5) * (1 / wide);
        sum += weights[k] = filters[filter].weight(at);
    }
    for (int k = 0; k < count; k++) {
        double w = sum != 0 ? weights[k] / sum : weights[k];
        taps->weights[(size_t)i * (size_t)taps->most + (size_t)k] =
            (int32_t)(w * (1 << WEIGHT_BITS) + (w < 0 ? -0.5 : 0.5));
    }
    taps->first[i] = first;
    taps->count[i] = count;
}

static AqStatus make_taps(Taps *taps, int in, int out, AqFilter filter,
                          AqError *error)
{
    double scale = (double)in / out;
    double support = filters[filter].support * (scale > 1 ? scale : 1);
    size_t n = (size_t)out;
    taps->most = (int)ceil(support) * 2 + 1;
    taps->first = calloc(n, sizeof *taps->first);
    taps->count = calloc(n, sizeof *taps->count);
    taps->weights = calloc(n * (size_t)taps->most, sizeof *taps->weights);
    double *weights = calloc((size_t)taps->most, sizeof *weights);
    AqStatus status = AQ_OK;
    if (taps->first && taps->count && taps->weights && weights)
        for (int i = 0; i < out; i++)
            tap(taps, i, in, scale, filter, weights);
    else
        status = aq_no_memory(error, n * (size_t)taps->most * 4);
    free(weights);
    return status;
}

static uint8_t to_byte(int32_t sum)
{
    int32_t v = sum >> WEIGHT_BITS;
    return (uint8_t)(v < 0 ? 0 : v > 255 ? 255 : v);
}

static uint8_t weigh(const uint8_t *from, size_t stride, const int32_t *weights,
                     int count)
{
    int32_t sum = 1 << (WEIGHT_BITS - 1);
    for (int k = 0; k < count; k++)
        sum += from[(size_t)k * stride] * weights[k];
    return to_byte(sum);
}

/* (h, w, c) -> (h, out, c) */
static void resample_rows(const AqImage *from, const Taps *taps, AqImage *to)
{
    size_t c = (size_t)from->channels;
    uint8_t *out = to->pixels;
    for (int y = 0; y < from->height; y++) {
        const uint8_t *row = from->pixels + (size_t)y * from->width * c;
        for (int x = 0; x < to->width; x++)
            for (size_t j = 0; j < c; j++)
                *out++ = weigh(row + (size_t)taps->first[x] * c + j, c,
                               taps->weights + (size_t)x * taps->most,
                               taps->count[x]);
    }
}

/* (h, w, c) -> (out, w, c) */
static void resample_columns(const AqImage *from, const Taps *taps, AqImage *to)
{
    size_t pitch = (size_t)from->width * from->channels;
    uint8_t *out = to->pixels;
    for (int y = 0; y < to->height; y++) {
        const uint8_t *top = from->pixels + (size_t)taps->first[y] * pitch;
        for (size_t j = 0; j < pitch; j++)
            *out++ =
                weigh(top + j, pitch, taps->weights + (size_t)y * taps->most,
                      taps->count[y]);
    }
}

static AqStatus resample(const AqImage *from, bool rows, int size,
                         AqFilter filter, AqImage *to, AqError *error)
{
    Taps taps = {0};
    AqStatus status = make_taps(&taps, rows ? from->width : from->height, size,
                                filter, error);
    if (status == AQ_OK)
        status = aq_image_new(to, rows ? from->height : size,
                              rows ? size : from->width, from->channels, error);
    if (status == AQ_OK)
        (rows ? resample_rows : resample_columns)(from, &taps, to);
    free_taps(&taps);
    return status;
}

/* ---- transparency: colours are averaged by how much they show ---- */

static int times_255th(int a, int b) /* round(a b / 255) */
{
    int product = a * b + 128;
    return (product + (product >> 8)) >> 8;
}

static void premultiply(AqImage *image)
{
    size_t n = (size_t)image->height * image->width;
    for (uint8_t *p = image->pixels; n > 0; n--, p += 4)
        for (int j = 0; j < 3; j++)
            p[j] = (uint8_t)times_255th(p[j], p[3]);
}

static void unpremultiply(AqImage *image)
{
    size_t n = (size_t)image->height * image->width;
    for (uint8_t *p = image->pixels; n > 0; n--, p += 4)
        for (int j = 0; j < 3 && p[3] != 0; j++)
            p[j] = (uint8_t)AQ_MIN(255 * p[j] / p[3], 255);
}

/* ---- the parts joined ---- */

static AqStatus copy(const AqImage *from, AqImage *to, AqError *error)
{
    return aq_image_crop(from, 0, 0, from->height, from->width, to, error);
}

/* `image` becomes its own resampling, if the size is another one. */
static AqStatus resample_in_place(AqImage *image, bool rows, int size,
                                  AqFilter filter, AqError *error)
{
    if (size == (rows ? image->width : image->height))
        return AQ_OK;
    AqImage next = {0};
    AqStatus status = resample(image, rows, size, filter, &next, error);
    aq_image_free(image);
    *image = next;
    return status;
}

AqStatus aq_image_resize(const AqImage *from, int height, int width,
                         AqFilter filter, AqImage *to, AqError *error)
{
    AqStatus status = copy(from, to, error);
    bool same = height == from->height && width == from->width;
    if (status != AQ_OK || same)
        return status;
    if (to->channels == 4)
        premultiply(to);
    status = resample_in_place(to, true, width, filter, error);
    if (status == AQ_OK)
        status = resample_in_place(to, false, height, filter, error);
    if (status == AQ_OK && to->channels == 4)
        unpremultiply(to);
    if (status != AQ_OK)
        aq_image_free(to);
    return status;
}

AqStatus aq_image_crop(const AqImage *from, int top, int left, int height,
                       int width, AqImage *to, AqError *error)
{
    *to = (AqImage){0};
    if (top < 0 || left < 0 || height < 1 || width < 1 ||
        height > from->height - top || width > from->width - left)
        return aq_fail(error, AQ_INTERNAL,
                       "cannot cut %dx%d at (%d, %d) out of %dx%d pixels",
                       height, width, top, left, from->height, from->width);
    AqStatus status = aq_image_new(to, height, width, from->channels, error);
    if (status != AQ_OK)
        return status;
    size_t c = (size_t)from->channels, row = (size_t)width * c;
    for (int y = 0; y < height; y++)
        memcpy(to->pixels + (size_t)y * row,
               from->pixels + ((size_t)(top + y) * from->width + left) * c,
               row);
    return AQ_OK;
}

/* One pixel from `c` channels to `wanted`; luma as in ITU-R 601. */
static void convert_pixel(const uint8_t *p, int c, int wanted, uint8_t *out)
{
    int rgb[3], alpha = c == 4 ? p[3] : 255;
    for (int j = 0; j < 3; j++) {
        rgb[j] = p[c == 1 ? 0 : j];
        if (c == 4 && wanted != 4)
            rgb[j] = times_255th(rgb[j], alpha) + 255 - alpha;
    }
    if (wanted == 1) {
        *out = (uint8_t)((rgb[0] * 19595 + rgb[1] * 38470 + rgb[2] * 7471 +
                          0x8000) >>
                         16);
        return;
    }
    for (int j = 0; j < 3; j++)
        out[j] = (uint8_t)rgb[j];
    if (wanted == 4)
        out[3] = (uint8_t)alpha;
}

AqStatus aq_image_channels(const AqImage *from, int channels, AqImage *to,
                           AqError *error)
{
    AqStatus status =
        aq_image_new(to, from->height, from->width, channels, error);
    if (status != AQ_OK)
        return status;
    size_t n = (size_t)from->height * from->width;
    for (size_t i = 0; i < n; i++)
        convert_pixel(from->pixels + i * (size_t)from->channels, from->channels,
                      channels, to->pixels + i * (size_t)channels);
    return AQ_OK;
}
