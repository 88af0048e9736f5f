/* safetensors, the writer: tensors by falling alignment and then by name, the
 * header padded with blanks, so that every tensor is aligned in the file. */
#include "runtime/files.h"

#include <jansson.h>
#include <stdlib.h>
#include <string.h>

enum { PIECE = 1 << 20, NAME_LIMIT = 512 };

typedef struct Placed {
    const AqTensorEntry *entry;
    uint64_t begin, bytes;
} Placed;

static int compare(const void *a, const void *b)
{
    const AqTensorEntry *s = ((const Placed *)a)->entry;
    const AqTensorEntry *t = ((const Placed *)b)->entry;
    int difference = aq_stored_bits(t->type) - aq_stored_bits(s->type);
    return difference ? difference : strcmp(s->name, t->name);
}

static AqStatus measure(const char *path, Placed *p, AqError *error)
{
    const AqTensorEntry *e = p->entry;
    int bits = aq_stored_bits(e->type);
    bool good = e->rank >= 0 && e->rank <= AQ_STORED_RANK && bits % 8 == 0 &&
                strlen(e->name) <= NAME_LIMIT;
    p->bytes = (uint64_t)bits / 8;
    for (int i = 0; good && i < e->rank; i++)
        good = e->shape[i] >= 0 &&
               !__builtin_mul_overflow(p->bytes, (uint64_t)e->shape[i],
                                       &p->bytes) &&
               p->bytes <= INT64_MAX;
    if (good && (e->data || e->fill || p->bytes == 0))
        return AQ_OK;
    return aq_fail(error, AQ_INTERNAL,
                   "%.200s: tensor '%.200s' of %s cannot "
                   "be written: its shape, name or values are wrong",
                   path, e->name, aq_stored_name(e->type));
}

/* Sorts, checks and gives each tensor its place. */
static AqStatus place(const char *path, Placed *placed, int count,
                      AqError *error)
{
    qsort(placed, (size_t)count, sizeof *placed, compare);
    uint64_t end = 0;
    for (int i = 0; i < count; i++) {
        AqStatus status = measure(path, &placed[i], error);
        if (status != AQ_OK)
            return status;
        placed[i].begin = end;
        if (__builtin_add_overflow(end, placed[i].bytes, &end) ||
            end > INT64_MAX)
            return aq_fail(error, AQ_INTERNAL,
                           "%s: the tensors' size overflows", path);
    }
    return AQ_OK;
}

static json_t *describe(const Placed *p)
{
    const AqTensorEntry *e = p->entry;
    json_int_t begin = (json_int_t)p->begin, end = begin;
    end += (json_int_t)p->bytes;
    json_t *shape = json_array();
    for (int i = 0; i < e->rank; i++)
        json_array_append_new(shape, json_integer(e->shape[i]));
    return json_pack("{s:s, s:o, s:[I, I]}", "dtype", aq_stored_name(e->type),
                     "shape", shape, "data_offsets", begin, end);
}

/* NULL when memory ends, a name is no UTF-8 or there twice. */
static json_t *make_header(const Placed *placed, int count,
                           const AqMetadata *metadata, int metadata_count)
{
    json_t *root = json_object(), *pairs = json_object();
    int failed = 0;
    for (int i = 0; i < metadata_count; i++)
        failed |= json_object_set_new(pairs, metadata[i].key,
                                      json_string(metadata[i].value));
    if (metadata_count > 0)
        failed |= json_object_set(root, "__metadata__", pairs);
    for (int i = 0; i < count; i++) {
        failed |= json_object_get(root, placed[i].entry->name) != NULL;
        failed |= json_object_set_new(root, placed[i].entry->name,
                                      describe(&placed[i]));
    }
    json_decref(pairs);
    if (!failed)
        return root;
    json_decref(root);
    return NULL;
}

static AqStatus append_header(AqFileWriter *writer, const char *path,
                              const char *text, AqError *error)
{
    size_t length = strlen(text), padded = (length + 7) / 8 * 8;
    if (padded > 8 << 20)
        return aq_fail(error, AQ_UNSUPPORTED,
                       "%s: the header would be longer than 8 MiB", path);
    unsigned char head[8];
    for (int i = 0; i < 8; i++)
        head[i] = (unsigned char)(padded >> 8 * i);
    AqStatus status = aq_file_append(writer, head, sizeof head, error);
    if (status == AQ_OK)
        status = aq_file_append(writer, text, length, error);
    if (status == AQ_OK)
        status = aq_file_append(writer, "       ", padded - length, error);
    return status;
}

static AqStatus append_tensor(AqFileWriter *writer, const Placed *p,
                              char *piece, AqError *error)
{
    const AqTensorEntry *e = p->entry;
    if (e->data)
        return aq_file_append(writer, e->data, p->bytes, error);
    for (uint64_t done = 0; done < p->bytes;) {
        size_t bytes = (size_t)AQ_MIN((uint64_t)PIECE, p->bytes - done);
        AqStatus status = e->fill(e->context, done, piece, bytes, error);
        if (status == AQ_OK)
            status = aq_file_append(writer, piece, bytes, error);
        if (status != AQ_OK)
            return status;
        done += bytes;
    }
    return AQ_OK;
}

static AqStatus write_all(const char *path, const Placed *placed, int count,
                          const char *header, AqError *error)
{
    char *piece = malloc(PIECE);
    if (!piece)
        return aq_no_memory(error, PIECE);
    AqError local = {0};
    AqFileWriter *writer = aq_file_begin(path, &local);
    if (writer)
        append_header(writer, path, header, &local);
    for (int i = 0; i < count && local.status == AQ_OK; i++)
        if (append_tensor(writer, &placed[i], piece, &local) != AQ_OK)
            break;
    if (local.status == AQ_OK)
        aq_file_commit(writer, &local);
    else
        aq_file_abandon(writer);
    free(piece);
    if (local.status == AQ_OK)
        return AQ_OK;
    return aq_fail(error, local.status, "%s", local.text);
}

AqStatus aq_tensors_write(const char *path, const AqTensorEntry *entries,
                          int count, const AqMetadata *metadata,
                          int metadata_count, AqError *error)
{
    Placed *placed = calloc((size_t)count + 1, sizeof *placed);
    if (!placed)
        return aq_no_memory(error, (size_t)count * sizeof *placed);
    for (int i = 0; i < count; i++)
        placed[i].entry = &entries[i];
    AqStatus status = place(path, placed, count, error);
    if (status == AQ_OK) {
        json_t *root = make_header(placed, count, metadata, metadata_count);
        char *text = root ? json_dumps(root, JSON_COMPACT) : NULL;
        if (text)
            status = write_all(path, placed, count, text, error);
        else
            status = aq_fail(error, AQ_INTERNAL,
                             "%s: a tensor's name is there twice or is no "
                             "UTF-8, or memory ended",
                             path);
        free(text);
        json_decref(root);
    }
    free(placed);
    return status;
}
