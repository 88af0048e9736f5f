/* Samples laid out to be looked at, alone or beside their nearest pictures. */
#include "runtime/files.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum {
    LEGIBLE = 64, /* pixels a sample's shorter side is drawn with, at least */
    GUTTER = 2,
    BETWEEN_PAIRS = 14,
    PAPER = 255,
};

/* ---- drawing ---- */

static int scale_of(const AqSamples *s)
{
    int side = AQ_MIN(s->height, s->width);
    return side >= LEGIBLE ? 1 : (LEGIBLE + side - 1) / side;
}

static AqStatus new_sheet(AqImage *sheet, int64_t height, int64_t width,
                          int channels, AqError *error)
{
    *sheet = (AqImage){0};
    if (height > 1 << 16 || width > 1 << 16) {
        aq_fail(error, AQ_UNSUPPORTED,
                "a sheet of %lldx%lld pixels is too large to be looked at; "
                "draw fewer samples",
                (long long)width, (long long)height);
        return AQ_UNSUPPORTED;
    }
    AqStatus status =
        aq_image_new(sheet, (int)height, (int)width, channels, error);
    if (status == AQ_OK)
        memset(sheet->pixels, PAPER,
               (size_t)height * (size_t)width * (size_t)channels);
    return status;
}

/* round(255 (v + 1) / 2) within 0..255; a NaN is 0 */
static int to_byte(float v)
{
    float b = v * 127.5f + 127.5f;
    return b > 0 ? (int)AQ_MIN(b + 0.5f, 255.0f) : 0;
}

/* Channels of one pixel of a sample: transparency over the paper. */
static void convert(const float *p, int channels, uint8_t *out)
{
    int alpha = channels == 4 ? to_byte(p[3]) : 255;
    for (int j = 0; j < AQ_MIN(channels, 3); j++) {
        int v = to_byte(p[j]) * alpha + PAPER * (255 - alpha);
        out[j] = (uint8_t)((v + 127) / 255);
    }
}

static void draw_sample(const AqSamples *s, const float *data, int64_t top,
                        int64_t left, AqImage *sheet)
{
    int k = scale_of(s), c = sheet->channels;
    for (int y = 0; y < s->height * k; y++) {
        uint8_t *row =
            sheet->pixels + ((size_t)(top + y) * sheet->width + left) * c;
        for (int x = 0; x < s->width * k; x++) {
            size_t pixel = (size_t)(y / k) * s->width + x / k;
            convert(data + pixel * s->channels, s->channels, row + x * c);
        }
    }
}

static size_t sample_floats(const AqSamples *s)
{
    return (size_t)s->height * (size_t)s->width * (size_t)s->channels;
}

static AqStatus check(const AqSamples *s, AqError *error)
{
    if (s->count > 0 && s->height > 0 && s->width > 0 &&
        (s->channels == 1 || s->channels == 3 || s->channels == 4))
        return AQ_OK;
    return aq_fail(error, AQ_INTERNAL, "%d samples of %dx%dx%d cannot be drawn",
                   s->count, s->height, s->width, s->channels);
}

static int across(double count)
{
    return (int)ceil(sqrt(count) - 1e-9);
}

AqStatus aq_grid_draw(const AqSamples *s, int columns, AqImage *out,
                      AqError *error)
{
    *out = (AqImage){0};
    AqStatus status = check(s, error);
    if (status != AQ_OK)
        return status;
    columns = columns > 0 ? AQ_MIN(columns, s->count) : across(s->count);
    int rows = (s->count + columns - 1) / columns, k = scale_of(s);
    int64_t high = (int64_t)s->height * k + GUTTER;
    int64_t wide = (int64_t)s->width * k + GUTTER;
    status = new_sheet(out, rows * high + GUTTER, columns * wide + GUTTER,
                       s->channels == 1 ? 1 : 3, error);
    for (int i = 0; status == AQ_OK && i < s->count; i++)
        draw_sample(s, s->data + (size_t)i * sample_floats(s),
                    GUTTER + i / columns * high, GUTTER + i % columns * wide,
                    out);
    return status;
}

AqStatus aq_grid_write(const char *path, const AqSamples *samples, int columns,
                       AqError *error)
{
    AqImage image;
    AqStatus status = aq_grid_draw(samples, columns, &image, error);
    if (status == AQ_OK)
        status = aq_png_write(path, &image, error);
    aq_image_free(&image);
    return status;
}

/* ---- the nearest pictures ---- */

/* The set is searched in parts, each with its own best ones; they are joined
 * in order, so that the lowest index wins among equals. */
typedef struct Part {
    int64_t *nearest;
    float *square;
    AqError error;
} Part;

typedef struct Search {
    const AqDataset *set;
    const AqSamples *samples;
    int count;
    Part *parts;
} Search;

/* sum (a - b)², or any sum above `enough` once it is more than that */
static float squared(const float *a, const float *b, size_t n, float enough)
{
    enum { LANES = 8, BLOCK = 512 };
    float total = 0;
    for (size_t from = 0; from < n && total <= enough; from += BLOCK) {
        size_t to = AQ_MIN(from + BLOCK, n), i = from;
        float lanes[LANES] = {0};
        for (; i + LANES <= to; i += LANES)
            for (int j = 0; j < LANES; j++) {
                float d = a[i + j] - b[i + j];
                lanes[j] += d * d;
            }
        for (; i < to; i++)
            lanes[0] += (a[i] - b[i]) * (a[i] - b[i]);
        for (int j = 0; j < LANES; j++)
            total += lanes[j];
    }
    return total;
}

static AqStatus search_range(const Search *search, Part *part, int64_t first,
                             int64_t end, float *picture)
{
    const AqSamples *s = search->samples;
    size_t n = sample_floats(s);
    for (int64_t i = first; i < end; i++) {
        AqStatus status = aq_dataset_fetch(search->set, i, false, 0.5f, 0.5f,
                                           picture, &part->error);
        if (status != AQ_OK)
            return status;
        for (int k = 0; k < s->count; k++) {
            float d =
                squared(s->data + (size_t)k * n, picture, n, part->square[k]);
            if (d < part->square[k]) {
                part->square[k] = d;
                part->nearest[k] = i;
            }
        }
    }
    return AQ_OK;
}

static void search_part(void *context, int index)
{
    Search *search = context;
    const AqSamples *s = search->samples;
    Part *part = &search->parts[index];
    int64_t all = aq_dataset_count(search->set);
    float *picture = malloc(sample_floats(s) * sizeof *picture);
    part->nearest = calloc((size_t)s->count, sizeof *part->nearest);
    part->square = calloc((size_t)s->count, sizeof *part->square);
    if (picture && part->nearest && part->square) {
        for (int k = 0; k < s->count; k++)
            part->square[k] = INFINITY;
        search_range(search, part, all * index / search->count,
                     all * (index + 1) / search->count, picture);
    } else {
        aq_no_memory(&part->error, sample_floats(s) * sizeof *picture);
    }
    free(picture);
}

static void join_part(const Part *part, const AqSamples *s, int64_t *nearest,
                      float *best)
{
    for (int k = 0; k < s->count; k++)
        if (part->square[k] < best[k]) {
            best[k] = part->square[k];
            nearest[k] = part->nearest[k];
        }
}

static AqStatus join(const Search *search, int64_t *nearest, float *distance,
                     AqError *error)
{
    const AqSamples *s = search->samples;
    float *best = malloc((size_t)s->count * sizeof *best);
    if (!best)
        return aq_no_memory(error, (size_t)s->count * sizeof *best);
    for (int k = 0; k < s->count; k++) {
        best[k] = INFINITY; /* and so it stays for samples that are NaN */
        nearest[k] = 0;
    }
    AqStatus status = AQ_OK;
    for (int i = 0; i < search->count && status == AQ_OK; i++) {
        const Part *part = &search->parts[i];
        status = part->error.status;
        if (status == AQ_OK)
            join_part(part, s, nearest, best);
        else
            aq_fail(error, status, "%s", part->error.text);
    }
    for (int k = 0; distance && k < s->count; k++)
        distance[k] = sqrtf(best[k] / (float)sample_floats(s));
    free(best);
    return status;
}

AqStatus aq_nearest_pictures(const AqDataset *set, const AqSamples *samples,
                             int64_t *nearest, float *distance, AqError *error)
{
    int height, width, channels;
    aq_dataset_shape(set, &height, &width, &channels);
    if (height != samples->height || width != samples->width ||
        channels != samples->channels)
        return aq_fail(error, AQ_INTERNAL,
                       "samples of %dx%dx%d have no nearest pictures among "
                       "%dx%dx%d",
                       samples->height, samples->width, samples->channels,
                       height, width, channels);
    int64_t all = aq_dataset_count(set);
    Search search = {set, samples, (int)AQ_MIN(all, 32), NULL};
    search.parts = calloc((size_t)search.count, sizeof *search.parts);
    if (!search.parts)
        return aq_no_memory(error, (size_t)search.count * sizeof(Part));
    aq_parallel(aq_cpu_count(), search.count, search_part, &search);
    AqStatus status = join(&search, nearest, distance, error);
    for (int i = 0; i < search.count; i++) {
        free(search.parts[i].nearest);
        free(search.parts[i].square);
    }
    free(search.parts);
    return status;
}

/* ---- pairs ---- */

/* `nearest` and `picture` are room for all numbers and one picture. */
static AqStatus draw_pairs(const AqSamples *s, const AqDataset *set,
                           int64_t *nearest, float *picture, AqImage *sheet,
                           AqError *error)
{
    int columns = across(s->count / 2.0), k = scale_of(s);
    int rows = (s->count + columns - 1) / columns;
    int64_t high = (int64_t)s->height * k, wide = (int64_t)s->width * k;
    int64_t down = high + BETWEEN_PAIRS / 2;
    int64_t right = 2 * wide + GUTTER + BETWEEN_PAIRS;
    AqStatus status = aq_nearest_pictures(set, s, nearest, NULL, error);
    if (status == AQ_OK)
        status = new_sheet(sheet, rows * down + BETWEEN_PAIRS / 2,
                           columns * right + BETWEEN_PAIRS,
                           s->channels == 1 ? 1 : 3, error);
    for (int i = 0; status == AQ_OK && i < s->count; i++) {
        int64_t top = BETWEEN_PAIRS / 2 + i / columns * down;
        int64_t left = BETWEEN_PAIRS + i % columns * right;
        draw_sample(s, s->data + (size_t)i * sample_floats(s), top, left,
                    sheet);
        status = aq_dataset_fetch(set, nearest[i], false, 0.5f, 0.5f, picture,
                                  error);
        if (status == AQ_OK)
            draw_sample(s, picture, top, left + wide + GUTTER, sheet);
    }
    return status;
}

AqStatus aq_pairs_write(const char *path, const AqSamples *samples,
                        const AqDataset *set, AqError *error)
{
    AqStatus status = check(samples, error);
    if (status != AQ_OK)
        return status;
    AqImage sheet = {0};
    int64_t *nearest = calloc((size_t)samples->count, sizeof *nearest);
    float *picture = malloc(sample_floats(samples) * sizeof *picture);
    if (!nearest || !picture)
        status = aq_no_memory(error, sample_floats(samples) * sizeof(float));
    else
        status = draw_pairs(samples, set, nearest, picture, &sheet, error);
    if (status == AQ_OK)
        status = aq_png_write(path, &sheet, error);
    aq_image_free(&sheet);
    free(nearest);
    free(picture);
    return status;
}
