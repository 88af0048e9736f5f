/* Where the samples of a data set come from: emoji, folders, points. */
#include "runtime/dataset.h"

#include <limits.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

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

static AqPicture *add_picture(AqDataset *set, const char *name,
                              const char *caption, int label, AqError *error)
{
    if (set->count == set->capacity) {
        int64_t capacity = AQ_MAX(set->capacity * 2, 256);
        AqPicture *samples =
            realloc(set->samples, (size_t)capacity * sizeof *samples);
        if (!samples) {
            aq_no_memory(error, (size_t)capacity * sizeof *samples);
            return NULL;
        }
        set->samples = samples;
        set->capacity = capacity;
    }
    AqPicture *s = &set->samples[set->count++];
    *s = (AqPicture){.name = name, .caption = caption, .label = label};
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
    AqPicture *s = add_picture(set, name, name, e->subgroups - 1, error);
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

AqStatus aq_dataset_open_emoji(AqDataset *set, const char *filter,
                               AqError *error)
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

AqStatus aq_dataset_read(const AqDataset *set, const AqPicture *s, AqImage *out,
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
    AqPicture *s = &set->samples[index];
    AqError error = {0};
    AqImage image = {0};
    if (aq_dataset_read(set, s, &image, &error) != AQ_OK) {
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
        AqPicture s = set->samples[i];
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

AqStatus aq_dataset_open_folder(AqDataset *set, const char *path,
                                AqError *error)
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
        if (!add_picture(set, list.files[i].name, list.files[i].caption,
                         list.files[i].label, error))
            return AQ_NO_MEMORY;
    if (!set->folder)
        return aq_no_memory(error, strlen(path));
    aq_parallel(set->options.threads, list.count, load_one, set);
    return drop_broken(set, error);
}

/* ---- points ---- */

AqStatus aq_dataset_open_points(AqDataset *set, const char *what,
                                AqError *error)
{
    AqDatasetOptions *o = &set->options;
    AqPoints *p = AQ_NEW(set->arena, AqPoints);
    if (!p)
        return aq_no_memory(error, sizeof *p);
    if (aq_points_open(what, set->arena, o->warn, o->warn_context, p, error))
        return error->status;
    if (o->channels > 0 && o->channels != p->columns)
        return aq_fail(error, AQ_BAD_INPUT,
                       "points:%.500s: has %d columns where %d are wanted",
                       what, p->columns, o->channels);
    o->height = o->width = 0;
    o->channels = p->columns;
    set->points = p;
    set->count = p->count;
    set->broken = p->left_out;
    set->classes = p->classes;
    set->class_count = p->class_count;
    set->bytes = (size_t)p->count * (size_t)p->columns * sizeof *p->x;
    set->fingerprint = p->fingerprint;
    return AQ_OK;
}
