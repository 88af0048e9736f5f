/* A collection of pictures of one size, held as bytes and fetched as floats.
 *
 * Every picture is decoded when the set is opened, so a broken file is known
 * before training begins.  What fits in memory stays there, resized; the rest
 * is decoded again at each fetch and gives the same pixels. */
#include "runtime/files.h"

#include <limits.h>
#include <math.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

typedef struct Sample {
    const char *name, *caption;
    int label;
    AqImage image; /* without pixels: decode the file */
    uint64_t hash; /* of the resized pixels */
    char *broken;  /* malloc'd sentence: leave it out */
} Sample;

struct AqDataset {
    AqArena *arena;
    AqDatasetOptions options;
    const char *folder;
    Sample *samples; /* malloc'd */
    int64_t count, capacity, broken;
    const char **classes;
    int class_count;
    atomic_size_t bytes;
    AqHash fingerprint;
    char *line;
};

/* ---- from any picture to one that a sample fits in ---- */

static int scaled(int side, double scale, int least)
{
    double length = floor(side * scale + 0.5);
    return AQ_MAX((int)AQ_MIN(length, (double)INT_MAX / 2), least);
}

static AqStatus prepare(const AqDataset *set, const AqImage *from, AqImage *to,
                        AqError *error)
{
    const AqDatasetOptions *o = &set->options;
    double scale = AQ_MAX((double)o->height / from->height,
                          (double)o->width / from->width);
    int height = scaled(from->height, scale, o->height);
    int width = scaled(from->width, scale, o->width);
    if ((double)height * width > 64.0 * o->height * o->width)
        return aq_fail(error, AQ_BAD_INPUT,
                       "a picture of %dx%d pixels is too long and narrow for "
                       "samples of %dx%d",
                       from->width, from->height, o->width, o->height);
    AqImage plain;
    AqStatus status = aq_image_channels(from, o->channels, &plain, error);
    if (status != AQ_OK)
        return status;
    status = aq_image_resize(&plain, height, width, o->filter, to, error);
    aq_image_free(&plain);
    return status;
}

static size_t image_bytes(const AqImage *image)
{
    return (size_t)image->height * (size_t)image->width *
           (size_t)image->channels;
}

static Sample *add_sample(AqDataset *set, const char *name, const char *caption,
                          int label, AqError *error)
{
    if (set->count == set->capacity) {
        int64_t capacity = AQ_MAX(set->capacity * 2, 256);
        Sample *samples =
            realloc(set->samples, (size_t)capacity * sizeof *samples);
        if (!samples) {
            aq_no_memory(error, (size_t)capacity * sizeof *samples);
            return NULL;
        }
        set->samples = samples;
        set->capacity = capacity;
    }
    Sample *s = &set->samples[set->count++];
    *s = (Sample){.name = name, .caption = caption, .label = label};
    return s;
}

/* ---- emoji ---- */

/* While emoji arrive, the labels count subgroups, or groups if there turn out
 * to be several of them. */
typedef struct EmojiState {
    AqDataset *set;
    const char *group, *subgroup; /* of the last one, in the arena */
    int groups, subgroups;
    const char *group_names[64], *subgroup_names[256];
    int *group_of; /* by sample, malloc'd */
    int64_t room;
} EmojiState;

static bool next_name(AqArena *arena, const char *name, const char **last,
                      const char **names, int *count, int most)
{
    if (*last && strcmp(*last, name) == 0)
        return true;
    if (*count == most || !(*last = aq_arena_copy_text(arena, name)))
        return false;
    names[(*count)++] = *last;
    return true;
}

static AqStatus take_emoji(void *context, const AqEmoji *emoji,
                           const AqImage *image, AqError *error)
{
    EmojiState *e = context;
    AqDataset *set = e->set;
    const char *name = aq_arena_copy_text(set->arena, emoji->name);
    if (!name ||
        !next_name(set->arena, emoji->group, &e->group, e->group_names,
                   &e->groups, AQ_COUNT(e->group_names)) ||
        !next_name(set->arena, emoji->subgroup, &e->subgroup, e->subgroup_names,
                   &e->subgroups, AQ_COUNT(e->subgroup_names)))
        return aq_no_memory(error, strlen(emoji->name));
    if (set->count == e->room) {
        e->room = AQ_MAX(e->room * 2, 512);
        int *grown = realloc(e->group_of, (size_t)e->room * sizeof *grown);
        if (!grown)
            return aq_no_memory(error, (size_t)e->room * sizeof *grown);
        e->group_of = grown;
    }
    e->group_of[set->count] = e->groups - 1;
    Sample *s = add_sample(set, name, name, e->subgroups - 1, error);
    if (!s)
        return AQ_NO_MEMORY;
    AqStatus status = prepare(set, image, &s->image, error);
    if (status != AQ_OK)
        return status;
    s->hash = aq_hash64(s->image.pixels, image_bytes(&s->image));
    set->bytes += image_bytes(&s->image);
    if (set->bytes > set->options.memory_limit)
        return aq_fail(error, AQ_NO_MEMORY,
                       "the emoji do not fit in %zu MiB at this size; ask for "
                       "a smaller size or a group, as in emoji:smileys",
                       set->options.memory_limit >> 20);
    return AQ_OK;
}

static AqStatus open_emoji(AqDataset *set, const char *filter, AqError *error)
{
    EmojiState e = {.set = set};
    AqStatus status = aq_emoji_each(filter, set->options.channels == 4,
                                    take_emoji, &e, error);
    bool several = e.groups > 1;
    set->class_count = several ? e.groups : e.subgroups;
    set->classes =
        aq_arena_copy(set->arena, several ? e.group_names : e.subgroup_names,
                      (size_t)set->class_count * sizeof *set->classes);
    if (!set->classes && status == AQ_OK)
        status = aq_no_memory(error, sizeof e.group_names);
    for (int64_t i = 0; several && status == AQ_OK && i < set->count; i++)
        set->samples[i].label = e.group_of[i];
    free(e.group_of);
    return status;
}

/* ---- folders ---- */

static AqStatus read_sample(const AqDataset *set, const Sample *s, AqImage *out,
                            AqError *error)
{
    char path[PATH_MAX];
    snprintf(path, sizeof path, "%s/%s", set->folder, s->name);
    AqImage decoded;
    AqStatus status = aq_image_read(path, &decoded, error);
    if (status != AQ_OK)
        return status;
    AqError local = {0};
    if (prepare(set, &decoded, out, &local) != AQ_OK)
        status = aq_fail(error, local.status, "%.500s: %s", path, local.text);
    aq_image_free(&decoded);
    return status;
}

static void load_one(void *context, int index)
{
    AqDataset *set = context;
    Sample *s = &set->samples[index];
    AqError error = {0};
    AqImage image = {0};
    if (read_sample(set, s, &image, &error) != AQ_OK) {
        s->broken = strdup(error.text);
        return;
    }
    size_t bytes = image_bytes(&image);
    s->hash = aq_hash64(image.pixels, bytes);
    s->image = image;
    size_t before = atomic_fetch_add(&set->bytes, bytes);
    if (before + bytes <= set->options.memory_limit)
        return;
    atomic_fetch_sub(&set->bytes, bytes);
    aq_image_free(&s->image);
}

/* Closes the gaps that broken files leave, and tells of them. */
static AqStatus drop_broken(AqDataset *set, AqError *error)
{
    int64_t kept = 0;
    char first[500] = "";
    for (int64_t i = 0; i < set->count; i++) {
        Sample s = set->samples[i];
        if (!s.hash && !s.image.pixels && !s.broken)
            s.broken = strdup("a picture could not be read");
        if (!s.broken) {
            set->samples[kept++] = s;
            continue;
        }
        if (set->broken++ == 0)
            snprintf(first, sizeof first, "%s", s.broken);
        if (set->options.warn)
            set->options.warn(set->options.warn_context, s.broken);
        free(s.broken);
    }
    set->count = kept;
    if (kept > 0)
        return AQ_OK;
    return aq_fail(error, AQ_BAD_INPUT,
                   "%.200s: none of its %lld pictures can be used; the first: "
                   "%s",
                   set->folder, (long long)set->broken, first);
}

static AqStatus open_folder(AqDataset *set, const char *path, AqError *error)
{
    AqPictureList list;
    AqStatus status = aq_folder_list(set->arena, path, &list, error);
    if (status != AQ_OK)
        return status;
    if (list.count == 0)
        return aq_fail(error, AQ_BAD_INPUT,
                       "%.500s: no picture in it or below it: files are taken "
                       "that end in .png, .jpg or .jpeg",
                       path);
    set->folder = aq_arena_copy_text(set->arena, path);
    set->classes = list.classes;
    set->class_count = list.class_count;
    for (int i = 0; i < list.count; i++)
        if (!add_sample(set, list.files[i].name, list.files[i].caption,
                        list.files[i].label, error))
            return AQ_NO_MEMORY;
    if (!set->folder)
        return aq_no_memory(error, strlen(path));
    aq_parallel(set->options.threads, list.count, load_one, set);
    return drop_broken(set, error);
}

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
        const Sample *s = &set->samples[i];
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

static AqStatus describe(AqDataset *set, const char *spec, AqError *error)
{
    AqText text = {0};
    const AqDatasetOptions *o = &set->options;
    aq_text_printf(&text, "%s: %lld picture%s, %dx%dx%d", spec,
                   (long long)set->count, set->count == 1 ? "" : "s", o->height,
                   o->width, o->channels);
    if (set->class_count > 0)
        aq_text_printf(&text, ", %d class%s", set->class_count,
                       set->class_count == 1 ? "" : "es");
    aq_text_printf(&text, ", %.1f MiB in memory",
                   (double)set->bytes / (1 << 20));
    int64_t outside = 0;
    for (int64_t i = 0; i < set->count; i++)
        outside += !set->samples[i].image.pixels;
    if (outside > 0)
        aq_text_printf(&text, ", %lld decoded at every use",
                       (long long)outside);
    if (set->broken > 0)
        aq_text_printf(&text, ", %lld broken file%s left out",
                       (long long)set->broken, set->broken == 1 ? "" : "s");
    set->line = text.failed ? NULL : aq_arena_copy_text(set->arena, text.data);
    aq_text_free(&text);
    return set->line ? AQ_OK : aq_no_memory(error, 256);
}

static AqStatus open_spec(AqDataset *set, const char *spec, AqError *error)
{
    static const char emoji[] = "emoji";
    size_t n = sizeof emoji - 1;
    AqStatus status = check_options(&set->options, error);
    if (status != AQ_OK)
        return status;
    if (strncmp(spec, emoji, n) == 0 && (!spec[n] || spec[n] == ':'))
        status = open_emoji(set, spec[n] ? spec + n + 1 : "", error);
    else
        status = open_folder(set, spec, error);
    if (status == AQ_OK)
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
    for (int64_t i = 0; i < set->count; i++)
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
    return set->samples[index].label;
}

const char *aq_dataset_caption(const AqDataset *set, int64_t index)
{
    return set->samples[index].caption;
}

const char *aq_dataset_name(const AqDataset *set, int64_t index)
{
    return set->samples[index].name;
}

void aq_dataset_shape(const AqDataset *set, int *height, int *width,
                      int *channels)
{
    *height = set->options.height;
    *width = set->options.width;
    *channels = set->options.channels;
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
    const Sample *s = &set->samples[index];
    AqImage image = s->image;
    if (!image.pixels) {
        AqStatus status = read_sample(set, s, &image, error);
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
