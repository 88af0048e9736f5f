/* safetensors, the reader: u64 length of the header, the header as JSON, the
 * values in row-major order and little endian.
 *
 * Two readers must never see different things in one file, so what the format
 * leaves open is closed: no name twice, no unknown key, no hole, no overlap,
 * everything bounded before it is allocated.  Values are read by `pread`, so a
 * file that shrinks gives an error and not a signal. */
#include "runtime/files.h"

#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum {
    HEADER_LIMIT = 8 << 20,
    TENSOR_LIMIT = 65536,
    NAME_LIMIT = 512,
    TRAILING_LIMIT = 8, /* a public Stable Diffusion 1.5 file has 4 */
    PIECE = 1 << 16,
};

struct AqTensorFile {
    AqArena *arena;
    int file;
    char *path;
    uint64_t size; /* of the file */
    int count;
    AqTensorInfo *tensors; /* by offset */
    const AqTensorInfo **by_name;
    AqMetadata *metadata;
    int metadata_count;
};

#define BAD(f, error, ...) bad_file((f)->path, error, __VA_ARGS__)

AQ_PRINTF(3, 4)
static AqStatus bad_file(const char *path, AqError *error, const char *format,
                         ...)
{
    char text[700];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    for (char *at = text; *at; at++) /* it may quote the file */
        if ((unsigned char)*at < 0x20 || *at == 0x7f)
            *at = '?';
    return aq_fail(error, AQ_BAD_INPUT,
                   "%.250s: not a safe safetensors file: %s", path, text);
}

/* ---- reading bytes ---- */

static AqStatus read_at(const AqTensorFile *f, uint64_t offset, void *out,
                        size_t bytes, AqError *error)
{
    char *to = out;
    while (bytes > 0) {
        ssize_t n =
            pread(f->file, to, AQ_MIN(bytes, (size_t)1 << 30), (off_t)offset);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return aq_fail(error, AQ_IO, "%s: cannot read: %s", f->path,
                           strerror(errno));
        if (n == 0)
            return aq_fail(error, AQ_IO, "%s: became shorter while it was read",
                           f->path);
        to += n;
        offset += (uint64_t)n;
        bytes -= (size_t)n;
    }
    return AQ_OK;
}

/* ---- the header ---- */

static bool good_name(const char *name, size_t length)
{
    if (length > NAME_LIMIT)
        return false;
    for (const char *at = name; *at; at++)
        if ((unsigned char)*at < 0x20 || *at == 0x7f)
            return false;
    return true;
}

static AqStatus parse_type(const AqTensorFile *f, const json_t *json,
                           AqTensorInfo *t, AqError *error)
{
    const char *name = json_string_value(json);
    if (!name)
        return BAD(f, error, "dtype of tensor '%s' is not a string", t->name);
    if (aq_stored_find(name, &t->type))
        return AQ_OK;
    return BAD(f, error, "tensor '%s' has the unknown dtype '%.40s'", t->name,
               name);
}

static AqStatus parse_shape(const AqTensorFile *f, const json_t *json,
                            AqTensorInfo *t, AqError *error)
{
    if (!json_is_array(json))
        return BAD(f, error, "shape of tensor '%s' is not a list", t->name);
    if (json_array_size(json) > AQ_STORED_RANK)
        return BAD(f, error, "tensor '%s' has more than %d dimensions", t->name,
                   AQ_STORED_RANK);
    t->rank = (int)json_array_size(json);
    t->elements = 1;
    for (int i = 0; i < t->rank; i++) {
        const json_t *extent = json_array_get(json, (size_t)i);
        if (!json_is_integer(extent) || json_integer_value(extent) < 0)
            return BAD(f, error,
                       "shape of tensor '%s' is not made of whole numbers",
                       t->name);
        t->shape[i] = json_integer_value(extent);
        if (__builtin_mul_overflow(t->elements, t->shape[i], &t->elements))
            return BAD(f, error, "the size of tensor '%s' overflows", t->name);
    }
    return AQ_OK;
}

/* The range must lie in the values and be as long as type and shape say. */
static AqStatus parse_range(const AqTensorFile *f, const json_t *json,
                            uint64_t values, AqTensorInfo *t, AqError *error)
{
    const json_t *first = json_array_get(json, 0);
    const json_t *second = json_array_get(json, 1);
    if (json_array_size(json) != 2 || !json_is_integer(first) ||
        !json_is_integer(second))
        return BAD(f, error,
                   "data_offsets of tensor '%s' are not two whole numbers",
                   t->name);
    int64_t begin = json_integer_value(first);
    int64_t end = json_integer_value(second);
    if (begin < 0 || end < begin || (uint64_t)end > values)
        return BAD(f, error,
                   "data_offsets of tensor '%s' lie outside the file's values",
                   t->name);
    int64_t bits;
    if (__builtin_mul_overflow(t->elements, aq_stored_bits(t->type), &bits))
        return BAD(f, error, "the size of tensor '%s' overflows", t->name);
    if (bits % 8 != 0 || bits / 8 != end - begin)
        return BAD(f, error,
                   "tensor '%s' needs %lld bits but its data_offsets hold %lld "
                   "bytes",
                   t->name, (long long)bits, (long long)(end - begin));
    t->offset = (uint64_t)begin;
    t->bytes = (uint64_t)(end - begin);
    return AQ_OK;
}

static AqStatus parse_tensor(AqTensorFile *f, const char *name, json_t *json,
                             uint64_t values, AqError *error)
{
    if (f->count == TENSOR_LIMIT)
        return BAD(f, error, "more than %d tensors", TENSOR_LIMIT);
    if (!good_name(name, strlen(name)))
        return BAD(f, error,
                   "a tensor's name is longer than %d bytes or has control "
                   "characters",
                   NAME_LIMIT);
    AqTensorInfo *t = &f->tensors[f->count++];
    if (!(t->name = aq_arena_copy_text(f->arena, name)))
        return aq_no_memory(error, NAME_LIMIT);
    const json_t *type = json_object_get(json, "dtype");
    const json_t *shape = json_object_get(json, "shape");
    const json_t *range = json_object_get(json, "data_offsets");
    if (!type || !shape || !range || json_object_size(json) != 3)
        return BAD(f, error,
                   "tensor '%s' must have exactly dtype, shape and "
                   "data_offsets",
                   t->name);
    AqStatus status = parse_type(f, type, t, error);
    if (status == AQ_OK)
        status = parse_shape(f, shape, t, error);
    if (status == AQ_OK)
        status = parse_range(f, range, values, t, error);
    return status;
}

static AqStatus parse_metadata(AqTensorFile *f, json_t *json, AqError *error)
{
    if (!json_is_object(json))
        return BAD(f, error, "__metadata__ is not an object");
    size_t count = json_object_size(json);
    f->metadata = AQ_NEW_ARRAY(f->arena, AqMetadata, count);
    if (!f->metadata)
        return aq_no_memory(error, count * sizeof(AqMetadata));
    const char *key;
    json_t *value;
    json_object_foreach(json, key, value)
    {
        if (!json_is_string(value))
            return BAD(f, error, "a value of __metadata__ is not a string");
        AqMetadata *pair = &f->metadata[f->metadata_count++];
        pair->key = aq_arena_copy_text(f->arena, key);
        pair->value = aq_arena_copy_text(f->arena, json_string_value(value));
        if (!pair->key || !pair->value)
            return aq_no_memory(error, HEADER_LIMIT);
    }
    return AQ_OK;
}

/* An empty tensor may begin where the next one does, and comes before it. */
static int compare_offsets(const void *a, const void *b)
{
    const AqTensorInfo *s = a, *t = b;
    if (s->offset != t->offset)
        return s->offset < t->offset ? -1 : 1;
    if (s->bytes != t->bytes)
        return s->bytes < t->bytes ? -1 : 1;
    return strcmp(s->name, t->name);
}

static int compare_names(const void *a, const void *b)
{
    return strcmp((*(const AqTensorInfo *const *)a)->name,
                  (*(const AqTensorInfo *const *)b)->name);
}

/* Each begins where the one before ended, and the last ends with the file. */
static AqStatus check_order(AqTensorFile *f, uint64_t values, AqError *error)
{
    qsort(f->tensors, (size_t)f->count, sizeof *f->tensors, compare_offsets);
    uint64_t end = 0;
    for (int i = 0; i < f->count; i++) {
        const AqTensorInfo *t = &f->tensors[i];
        if (t->offset != end)
            return BAD(f, error, "%s tensor '%s'",
                       t->offset > end ? "there is a hole before"
                                       : "another one overlaps",
                       t->name);
        end += t->bytes;
    }
    if (values - end > TRAILING_LIMIT)
        return BAD(f, error, "%llu bytes at its end belong to no tensor",
                   (unsigned long long)(values - end));
    return AQ_OK;
}

static AqStatus index_names(AqTensorFile *f, uint64_t first, AqError *error)
{
    f->by_name = AQ_NEW_ARRAY(f->arena, const AqTensorInfo *, f->count);
    if (!f->by_name)
        return aq_no_memory(error, (size_t)f->count * sizeof(void *));
    for (int i = 0; i < f->count; i++) {
        f->tensors[i].offset += first;
        f->by_name[i] = &f->tensors[i];
    }
    qsort(f->by_name, (size_t)f->count, sizeof(void *), compare_names);
    return AQ_OK;
}

static AqStatus parse_header(AqTensorFile *f, const char *text, size_t length,
                             AqError *error)
{
    json_error_t why;
    json_t *root = json_loadb(text, length, JSON_REJECT_DUPLICATES, &why);
    if (!json_is_object(root)) {
        json_decref(root);
        return BAD(f, error, "its header is no JSON object: %.150s",
                   root ? "something else stands there" : why.text);
    }
    uint64_t first = 8 + length, values = f->size - first;
    size_t room = AQ_MIN(json_object_size(root), (size_t)TENSOR_LIMIT);
    AqStatus status = AQ_OK;
    f->tensors = AQ_NEW_ARRAY(f->arena, AqTensorInfo, room);
    if (!f->tensors)
        status = aq_no_memory(error, room * sizeof(AqTensorInfo));
    const char *name;
    json_t *value;
    json_object_foreach(root, name, value)
    {
        if (status != AQ_OK)
            break;
        if (strcmp(name, "__metadata__") == 0)
            status = parse_metadata(f, value, error);
        else
            status = parse_tensor(f, name, value, values, error);
    }
    json_decref(root);
    if (status == AQ_OK)
        status = check_order(f, values, error);
    return status == AQ_OK ? index_names(f, first, error) : status;
}

/* ---- opening ---- */

static AqStatus read_header(AqTensorFile *f, AqError *error)
{
    unsigned char head[8];
    if (f->size < sizeof head)
        return BAD(f, error, "it has only %llu bytes",
                   (unsigned long long)f->size);
    AqStatus status = read_at(f, 0, head, sizeof head, error);
    if (status != AQ_OK)
        return status;
    uint64_t length = 0;
    for (int i = 7; i >= 0; i--)
        length = length << 8 | head[i];
    if (length > f->size - sizeof head)
        return BAD(f, error, "its header says %llu bytes, the file has %llu",
                   (unsigned long long)length, (unsigned long long)f->size);
    if (length > HEADER_LIMIT)
        return BAD(f, error, "its header is longer than %d MiB",
                   HEADER_LIMIT >> 20);
    char *text = malloc(length + 1);
    if (!text)
        return aq_no_memory(error, length + 1);
    status = read_at(f, sizeof head, text, length, error);
    if (status == AQ_OK)
        status = parse_header(f, text, length, error);
    free(text);
    return status;
}

static AqStatus open_file(AqTensorFile *f, AqError *error)
{
    struct stat st;
    /* non-blocking, so that a pipe by that name does not hold us */
    f->file = open(f->path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (f->file < 0 || fstat(f->file, &st) != 0)
        return aq_fail(error, AQ_IO, "%s: cannot open: %s", f->path,
                       strerror(errno));
    if (!S_ISREG(st.st_mode))
        return aq_fail(error, AQ_BAD_INPUT, "%s: is not a regular file",
                       f->path);
    f->size = (uint64_t)st.st_size;
    return read_header(f, error);
}

AqTensorFile *aq_tensors_open(const char *path, AqError *error)
{
    AqArena *arena = aq_arena_new();
    AqTensorFile *f = arena ? AQ_NEW(arena, AqTensorFile) : NULL;
    char *copy = f ? aq_arena_copy_text(arena, path) : NULL;
    if (!copy) {
        aq_arena_free(arena);
        aq_no_memory(error, sizeof *f);
        return NULL;
    }
    f->arena = arena;
    f->path = copy;
    if (open_file(f, error) != AQ_OK) {
        aq_tensors_close(f);
        return NULL;
    }
    return f;
}

void aq_tensors_close(AqTensorFile *f)
{
    if (!f)
        return;
    if (f->file >= 0)
        close(f->file);
    aq_arena_free(f->arena);
}

int aq_tensors_count(const AqTensorFile *f)
{
    return f->count;
}

const AqTensorInfo *aq_tensors_at(const AqTensorFile *f, int index)
{
    return &f->tensors[index];
}

const AqTensorInfo *aq_tensors_find(const AqTensorFile *f, const char *name)
{
    AqTensorInfo wanted = {.name = name};
    const AqTensorInfo *key = &wanted;
    const AqTensorInfo **found = bsearch(&key, f->by_name, (size_t)f->count,
                                         sizeof(void *), compare_names);
    return found ? *found : NULL;
}

const char *aq_tensors_metadata(const AqTensorFile *f, const char *key)
{
    for (int i = 0; i < f->metadata_count; i++)
        if (strcmp(f->metadata[i].key, key) == 0)
            return f->metadata[i].value;
    return NULL;
}

/* ---- values ---- */

typedef bool Convert(AqStoredType, const void *, size_t, void *);

static AqStatus read_converted(const AqTensorFile *f, const AqTensorInfo *t,
                               Convert *convert, const char *wanted,
                               size_t out_size, char *out, AqError *error)
{
    char piece[PIECE];
    if (!convert(t->type, NULL, 0, NULL))
        return aq_fail(error, AQ_UNSUPPORTED,
                       "%s: tensor '%s' is %s and cannot be read as %s",
                       f->path, t->name, aq_stored_name(t->type), wanted);
    size_t size = (size_t)aq_stored_bits(t->type) / 8;
    for (uint64_t done = 0; done < t->bytes;) {
        size_t bytes = (size_t)AQ_MIN((uint64_t)PIECE, t->bytes - done);
        AqStatus status = read_at(f, t->offset + done, piece, bytes, error);
        if (status != AQ_OK)
            return status;
        convert(t->type, piece, bytes / size, out + done / size * out_size);
        done += bytes;
    }
    return AQ_OK;
}

AqStatus aq_tensors_read_floats(const AqTensorFile *f, const AqTensorInfo *t,
                                float *out, AqError *error)
{
    if (t->type == AQ_STORED_F32)
        return read_at(f, t->offset, out, t->bytes, error);
    return read_converted(f, t, aq_stored_to_floats, "floats", sizeof *out,
                          (char *)out, error);
}

AqStatus aq_tensors_read_ints(const AqTensorFile *f, const AqTensorInfo *t,
                              int64_t *out, AqError *error)
{
    return read_converted(f, t, aq_stored_to_ints, "integers", sizeof *out,
                          (char *)out, error);
}

AqStatus aq_tensors_read_bytes(const AqTensorFile *f, const AqTensorInfo *t,
                               uint64_t begin, void *out, size_t bytes,
                               AqError *error)
{
    if (begin > t->bytes || bytes > t->bytes - begin)
        return aq_fail(error, AQ_INTERNAL,
                       "%s: bytes outside tensor '%s' were asked for", f->path,
                       t->name);
    return read_at(f, t->offset + begin, out, bytes, error);
}
