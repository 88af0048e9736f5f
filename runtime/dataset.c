/* A collection of pictures of one size, held as bytes and fetched as floats; or
 * of points, which are floats already.
 *
 * Every picture is decoded when the set is opened, so a broken file is known
 * before training begins.  What fits in memory stays there, resized; the rest
 * is decoded again at each fetch and gives the same pixels. */
#include "runtime/dataset.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* ---- opening ---- */

static AqStatus check_options(AqDatasetOptions *o, AqError *error)
{
    if (o->channels == 0)
        o->channels = 3;
    if (o->memory_limit == 0)
        o->memory_limit = (size_t)1 << 30;
    if (o->threads <= 0)
        o->threads = aq_cpu_count();
    if (o->height < 1 || o->width < 1 || o->height > 4096 || o->width > 4096)
        return aq_fail(error, AQ_BAD_INPUT,
                       "samples cannot have %dx%d pixels; a side has 1 to 4096",
                       o->width, o->height);
    if (o->channels != 1 && o->channels != 3 && o->channels != 4)
        return aq_fail(error, AQ_BAD_INPUT,
                       "samples cannot have %d channels; 1 is grey, 3 is RGB, "
                       "4 is RGBA",
                       o->channels);
    return AQ_OK;
}

static AqStatus take_fingerprint(AqDataset *set, AqError *error)
{
    AqText text = {0};
    for (int64_t i = 0; i < set->count; i++) {
        const AqPicture *s = &set->samples[i];
        aq_text_printf(&text, "%016llx %d %s\n%s\n",
                       (unsigned long long)s->hash, s->label, s->name,
                       s->caption);
    }
    AqStatus status = text.failed ? aq_no_memory(error, text.length) : AQ_OK;
    if (status == AQ_OK)
        set->fingerprint = aq_hash128(text.data, text.length);
    aq_text_free(&text);
    return status;
}

static void describe_pictures(const AqDataset *set, AqText *text)
{
    int64_t outside = 0;
    for (int64_t i = 0; i < set->count; i++)
        outside += !set->samples[i].image.pixels;
    if (outside > 0)
        aq_text_printf(text, ", %lld decoded at every use", (long long)outside);
    if (set->broken > 0)
        aq_text_printf(text, ", %lld broken file%s left out",
                       (long long)set->broken, set->broken == 1 ? "" : "s");
}

static AqStatus describe(AqDataset *set, const char *spec, AqError *error)
{
    AqText text = {0};
    const AqDatasetOptions *o = &set->options;
    const char *what = set->points ? "point" : "picture";
    aq_text_printf(&text, "%s: %lld %s%s, ", spec, (long long)set->count, what,
                   set->count == 1 ? "" : "s");
    if (set->points)
        aq_text_printf(&text, "%d column%s", o->channels,
                       o->channels == 1 ? "" : "s");
    else
        aq_text_printf(&text, "%dx%dx%d", o->height, o->width, o->channels);
    if (set->class_count > 0)
        aq_text_printf(&text, ", %d class%s", set->class_count,
                       set->class_count == 1 ? "" : "es");
    aq_text_printf(&text, ", %.1f MiB in memory",
                   (double)set->bytes / (1 << 20));
    if (!set->points)
        describe_pictures(set, &text);
    set->line = text.failed ? NULL : aq_arena_copy_text(set->arena, text.data);
    aq_text_free(&text);
    return set->line ? AQ_OK : aq_no_memory(error, 256);
}

/* What follows "word:" or, for the word alone, nothing; NULL: another word. */
static const char *after_word(const char *spec, const char *word)
{
    size_t n = strlen(word);
    if (strncmp(spec, word, n) != 0 || (spec[n] && spec[n] != ':'))
        return NULL;
    return spec[n] ? spec + n + 1 : spec + n;
}

const char *aq_dataset_path(const char *spec)
{
    const char *points = after_word(spec, "points");
    if (points)
        return aq_points_is_table(points) ? points : NULL;
    return after_word(spec, "emoji") ? NULL : spec;
}

char *aq_dataset_absolute(const char *spec, AqArena *arena)
{
    char here[AQ_PATH_SIZE];
    const char *path = aq_dataset_path(spec);
    if (!path || *path == '/' || !getcwd(here, sizeof here))
        return aq_arena_copy_text(arena, spec);
    while (!strncmp(path, "./", 2) && path[2] != '/')
        path += 2;
    int word = (int)(aq_dataset_path(spec) - spec);
    return aq_arena_printf(arena, "%.*s%s/%s", word, spec,
                           strcmp(here, "/") ? here : "", path);
}

static AqStatus open_spec(AqDataset *set, const char *spec, AqError *error)
{
    const char *emoji = after_word(spec, "emoji");
    const char *points = after_word(spec, "points");
    AqStatus status = points ? aq_dataset_open_points(set, points, error)
                             : check_options(&set->options, error);
    if (status == AQ_OK && !points)
        status = emoji ? aq_dataset_open_emoji(set, emoji, error)
                       : aq_dataset_open_folder(set, spec, error);
    if (status == AQ_OK && !points)
        status = take_fingerprint(set, error);
    return status == AQ_OK ? describe(set, spec, error) : status;
}

AqDataset *aq_dataset_open(const char *spec, const AqDatasetOptions *options,
                           AqError *error)
{
    AqArena *arena = aq_arena_new();
    AqDataset *set = arena ? AQ_NEW(arena, AqDataset) : NULL;
    if (!set) {
        aq_arena_free(arena);
        aq_no_memory(error, sizeof *set);
        return NULL;
    }
    set->arena = arena;
    set->options = *options;
    if (open_spec(set, spec, error) == AQ_OK)
        return set;
    aq_dataset_free(set);
    return NULL;
}

void aq_dataset_free(AqDataset *set)
{
    if (!set)
        return;
    for (int64_t i = 0; set->samples && i < set->count; i++)
        aq_image_free(&set->samples[i].image);
    free(set->samples);
    aq_arena_free(set->arena);
}

/* ---- asking ---- */

int64_t aq_dataset_count(const AqDataset *set)
{
    return set->count;
}

int64_t aq_dataset_broken(const AqDataset *set)
{
    return set->broken;
}

int aq_dataset_classes(const AqDataset *set)
{
    return set->class_count;
}

const char *aq_dataset_class_name(const AqDataset *set, int label)
{
    return set->classes[label];
}

int aq_dataset_label(const AqDataset *set, int64_t index)
{
    if (set->points)
        return set->class_count ? (int)(index % set->class_count) : 0;
    return set->samples[index].label;
}

const char *aq_dataset_caption(const AqDataset *set, int64_t index)
{
    return set->points ? "" : set->samples[index].caption;
}

const char *aq_dataset_name(const AqDataset *set, int64_t index)
{
    return set->points ? "" : set->samples[index].name;
}

void aq_dataset_shape(const AqDataset *set, int *height, int *width,
                      int *channels)
{
    *height = set->options.height;
    *width = set->options.width;
    *channels = set->options.channels;
}

size_t aq_dataset_floats(const AqDataset *set)
{
    const AqDatasetOptions *o = &set->options;
    size_t pixels = set->points ? 1 : (size_t)o->height * (size_t)o->width;
    return pixels * (size_t)o->channels;
}

const AqColumn *aq_dataset_columns(const AqDataset *set)
{
    return set->points ? set->points->column : NULL;
}

bool aq_dataset_is_points(const char *spec)
{
    return after_word(spec, "points") != NULL;
}

const char *aq_dataset_describe(const AqDataset *set)
{
    return set->line;
}

size_t aq_dataset_bytes(const AqDataset *set)
{
    return set->bytes;
}

AqHash aq_dataset_fingerprint(const AqDataset *set)
{
    return set->fingerprint;
}

/* ---- fetching ---- */

static int place(int length, int window, float fraction)
{
    int room = length - window;
    int at = fraction >= 0 ? (int)lrint(AQ_MIN(fraction, 1) * room) : 0;
    return AQ_MIN(at, room);
}

static void to_floats(const AqDataset *set, const AqImage *image, bool flip,
                      int top, int left, float *out)
{
    const AqDatasetOptions *o = &set->options;
    int c = o->channels, width = o->width;
    for (int y = 0; y < o->height; y++) {
        const uint8_t *row =
            image->pixels + ((size_t)(top + y) * image->width + left) * c;
        float *to = out + (size_t)y * width * c;
        for (int x = 0; x < width; x++)
            for (int j = 0; j < c; j++) {
                int from = flip ? width - 1 - x : x;
                to[x * c + j] = (float)row[from * c + j] / 127.5f - 1;
            }
    }
}

AqStatus aq_dataset_fetch(const AqDataset *set, int64_t index, bool flip,
                          float crop_x, float crop_y, float *out,
                          AqError *error)
{
    if (index < 0 || index >= set->count)
        return aq_fail(error, AQ_INTERNAL, "there is no picture %lld of %lld",
                       (long long)index, (long long)set->count);
    if (set->points) {
        size_t n = aq_dataset_floats(set);
        memcpy(out, set->points->x + (size_t)index * n, n * sizeof *out);
        return AQ_OK;
    }
    const AqPicture *s = &set->samples[index];
    AqImage image = s->image;
    if (!image.pixels) {
        AqStatus status = aq_dataset_read(set, s, &image, error);
        if (status != AQ_OK)
            return status;
    }
    to_floats(set, &image, flip,
              place(image.height, set->options.height, crop_y),
              place(image.width, set->options.width, crop_x), out);
    if (!s->image.pixels)
        aq_image_free(&image);
    return AQ_OK;
}
