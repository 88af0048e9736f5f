/* The pictures of a folder: their names in order, classes and captions. */
#include "runtime/files.h"

#include <dirent.h>
#include <errno.h>
#include <jansson.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

enum { MOST_FILES = 50 << 20, DEEPEST = 64, CAPTIONS_LIMIT = 1 << 30 };

typedef struct Scan {
    AqArena *arena;
    const char *root;
    const char **names; /* malloc'd, below root */
    size_t count, capacity;
    AqError *error;
} Scan;

/* The folders we are in, to stop at a link that leads back into one. */
typedef struct Above {
    const struct Above *above;
    dev_t device;
    ino_t inode;
    int depth;
} Above;

static bool is_picture(const char *name)
{
    static const char *const endings[] = {".png", ".jpg", ".jpeg"};
    const char *dot = strrchr(name, '.');
    for (int i = 0; dot && i < AQ_COUNT(endings); i++)
        if (strcasecmp(dot, endings[i]) == 0)
            return true;
    return false;
}

static AqStatus add_name(Scan *scan, const char *name)
{
    if (scan->count == MOST_FILES)
        return aq_fail(scan->error, AQ_UNSUPPORTED, "%s: more than %d pictures",
                       scan->root, MOST_FILES);
    if (scan->count == scan->capacity) {
        size_t capacity = AQ_MAX(scan->capacity * 2, (size_t)256);
        const char **names =
            realloc(scan->names, capacity * sizeof *scan->names);
        if (!names)
            return aq_no_memory(scan->error, capacity * sizeof *names);
        scan->names = names;
        scan->capacity = capacity;
    }
    const char *copy = aq_arena_copy_text(scan->arena, name);
    if (!copy)
        return aq_no_memory(scan->error, strlen(name));
    scan->names[scan->count++] = copy;
    return AQ_OK;
}

static AqStatus scan_folder(Scan *scan, const char *below, const Above *above);

static AqStatus scan_entry(Scan *scan, const char *below, const char *entry,
                           const Above *here)
{
    char name[PATH_MAX], path[PATH_MAX];
    struct stat st;
    if (snprintf(name, sizeof name, "%s%s%s", below, *below ? "/" : "",
                 entry) >= PATH_MAX ||
        snprintf(path, sizeof path, "%s/%s", scan->root, name) >= PATH_MAX)
        return aq_fail(scan->error, AQ_IO, "%.500s...: the path is too long",
                       name);
    if (stat(path, &st) != 0) /* a link to nowhere, or just removed */
        return AQ_OK;
    if (S_ISDIR(st.st_mode)) {
        for (const Above *a = here; a; a = a->above)
            if (a->device == st.st_dev && a->inode == st.st_ino)
                return AQ_OK;
        Above next = {here, st.st_dev, st.st_ino, here->depth + 1};
        return scan_folder(scan, name, &next);
    }
    return S_ISREG(st.st_mode) && is_picture(entry) ? add_name(scan, name)
                                                    : AQ_OK;
}

static AqStatus scan_folder(Scan *scan, const char *below, const Above *here)
{
    char path[PATH_MAX];
    snprintf(path, sizeof path, "%s/%s", scan->root, below);
    if (here->depth > DEEPEST)
        return aq_fail(scan->error, AQ_BAD_INPUT,
                       "%.500s: folders more than %d deep", path, DEEPEST);
    DIR *folder = opendir(path);
    if (!folder)
        return aq_fail(scan->error, AQ_IO, "%.500s: cannot open: %s", path,
                       strerror(errno));
    AqStatus status = AQ_OK;
    struct dirent *entry;
    while (status == AQ_OK && (entry = readdir(folder)))
        if (entry->d_name[0] != '.')
            status = scan_entry(scan, below, entry->d_name, here);
    closedir(folder);
    return status;
}

static int compare_text(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

/* ---- classes ---- */

/* The length of the sub-folder's name; 0 in the folder itself. */
static size_t folder_length(const char *name)
{
    const char *slash = strchr(name, '/');
    return slash ? (size_t)(slash - name) : 0;
}

/* Pictures of one sub-folder stand together in the order of their names. */
static bool begins_folder(const Scan *scan, size_t i)
{
    size_t length = folder_length(scan->names[i]);
    return length > 0 && (i == 0 || strncmp(scan->names[i - 1], scan->names[i],
                                            length + 1) != 0);
}

static AqStatus make_classes(const Scan *scan, AqPictureList *list)
{
    size_t folders = 0, loose = 0;
    for (size_t i = 0; i < scan->count; i++) {
        folders += begins_folder(scan, i);
        loose += folder_length(scan->names[i]) == 0;
    }
    if (folders == 0)
        return AQ_OK;
    list->classes = AQ_NEW_ARRAY(scan->arena, const char *, folders + 1);
    if (!list->classes)
        return aq_no_memory(scan->error, folders * sizeof *list->classes);
    if (loose > 0)
        list->classes[list->class_count++] = ".";
    for (size_t i = 0; i < scan->count; i++) {
        const char *name = scan->names[i];
        if (!begins_folder(scan, i))
            continue;
        char *copy = aq_arena_copy(scan->arena, name, strlen(name) + 1);
        if (!copy)
            return aq_no_memory(scan->error, strlen(name));
        copy[folder_length(name)] = 0;
        list->classes[list->class_count++] = copy;
    }
    qsort(list->classes, (size_t)list->class_count, sizeof *list->classes,
          compare_text);
    return AQ_OK;
}

static int label_of(const AqPictureList *list, const char *name)
{
    char folder[NAME_MAX + 1] = ".";
    size_t length = folder_length(name);
    if (length > 0)
        snprintf(folder, sizeof folder, "%.*s", (int)length, name);
    const char *key = folder;
    const char **found =
        list->class_count > 0
            ? bsearch(&key, list->classes, (size_t)list->class_count,
                      sizeof *list->classes, compare_text)
            : NULL;
    return found ? (int)(found - list->classes) : 0;
}

static AqStatus make_list(const Scan *scan, AqPictureList *list)
{
    list->files = AQ_NEW_ARRAY(scan->arena, AqPictureFile, scan->count);
    if (!list->files)
        return aq_no_memory(scan->error, scan->count * sizeof *list->files);
    AqStatus status = make_classes(scan, list);
    if (status != AQ_OK)
        return status;
    for (size_t i = 0; i < scan->count; i++) {
        const char *name = scan->names[i];
        list->files[i] = (AqPictureFile){name, "", label_of(list, name)};
    }
    list->count = (int)scan->count;
    return AQ_OK;
}

/* ---- captions ---- */

static int compare_files(const void *a, const void *b)
{
    return strcmp(((const AqPictureFile *)a)->name,
                  ((const AqPictureFile *)b)->name);
}

static AqStatus set_caption(AqArena *arena, AqPictureList *list,
                            const AqPictureFile *key, const char *text,
                            AqError *error)
{
    AqPictureFile *file = bsearch(key, list->files, (size_t)list->count,
                                  sizeof *list->files, compare_files);
    if (file && !(file->caption = aq_arena_copy_text(arena, text)))
        return aq_no_memory(error, strlen(text));
    return AQ_OK; /* also for captions of files that are not there */
}

/* One line: {"file_name": "cats/1.png", "text": "a cat"} */
static AqStatus read_caption(AqArena *arena, const char *path, int number,
                             const char *line, AqPictureList *list,
                             AqError *error)
{
    json_error_t why;
    json_t *json = json_loads(line, JSON_REJECT_DUPLICATES, &why);
    AqPictureFile key = {
        .name = json_string_value(json_object_get(json, "file_name"))};
    const char *text = json_string_value(json_object_get(json, "text"));
    AqStatus status = AQ_OK;
    if (!key.name || !text)
        status = aq_fail(error, AQ_BAD_INPUT,
                         "%.500s:%d: expected {\"file_name\": \"...\", "
                         "\"text\": \"...\"}, one object a line",
                         path, number);
    else if (list->count > 0)
        status = set_caption(arena, list, &key, text, error);
    json_decref(json);
    return status;
}

static AqStatus read_captions(AqArena *arena, const char *folder,
                              AqPictureList *list, AqError *error)
{
    char path[PATH_MAX], *data, *rest = NULL;
    size_t bytes;
    if (snprintf(path, sizeof path, "%s/metadata.jsonl", folder) >= PATH_MAX ||
        !aq_file_exists(path))
        return AQ_OK;
    AqStatus status = aq_file_read(path, CAPTIONS_LIMIT, &data, &bytes, error);
    if (status != AQ_OK)
        return status;
    if (strlen(data) != bytes)
        status = aq_fail(error, AQ_BAD_INPUT, "%.500s: is no text", path);
    int number = 1;
    for (char *line = data; line && status == AQ_OK; line = rest, number++) {
        if ((rest = strchr(line, '\n')))
            *rest++ = 0;
        if (line[strspn(line, " \t\r")])
            status = read_caption(arena, path, number, line, list, error);
    }
    free(data);
    return status;
}

/* What is asked for by word may be misspelt. */
static AqStatus no_folder(const char *folder, AqError *error)
{
    static const char *const words[] = {"emoji", "points"};
    char word[16];
    size_t length = strcspn(folder, ":");
    snprintf(word, sizeof word, "%.*s", (int)length, folder);
    const char *near = aq_nearest(word, words, AQ_COUNT(words));
    return aq_fail(error, AQ_BAD_INPUT,
                   "%.500s: is no folder of pictures%s%s%.100s%s; the data can "
                   "be a folder with PNG or JPEG files, emoji, emoji:smileys, "
                   "or points:moons",
                   folder, near ? " (did you mean " : "", near ? near : "",
                   near ? folder + length : "", near ? "?)" : "");
}

AqStatus aq_folder_list(AqArena *arena, const char *folder, AqPictureList *list,
                        AqError *error)
{
    *list = (AqPictureList){0};
    struct stat st;
    if (stat(folder, &st) != 0 || !S_ISDIR(st.st_mode))
        return no_folder(folder, error);
    Scan scan = {.arena = arena, .root = folder, .error = error};
    Above root = {NULL, st.st_dev, st.st_ino, 0};
    AqStatus status = scan_folder(&scan, "", &root);
    if (status == AQ_OK) {
        if (scan.count > 0)
            qsort(scan.names, scan.count, sizeof *scan.names, compare_text);
        status = make_list(&scan, list);
    }
    free(scan.names);
    return status == AQ_OK ? read_captions(arena, folder, list, error) : status;
}
