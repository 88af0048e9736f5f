/* Checkpoints: a folder that is complete, or not there.
 *
 * Files are written into a folder beside, synced, and the folder is renamed;
 * one of the same step changes places with it in that instant.  state.json
 * holds the counters, a hash of every other file and, in its last line, of
 * itself; reading checks them before a byte is believed. */
#include "runtime/run.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <limits.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { FORMAT = 1, NAME_DIGITS = 6, STATE_LIMIT = 1 << 20 };

/* state.json ends with ... "hash": "32 digits"\n} */
enum { SEAL_DIGITS = 32, SEAL_FROM_END = SEAL_DIGITS + 3 };

static const char unsealed[] = "00000000000000000000000000000000";

/* Flat arrays beside weights and ema; an optimizer has those it needs. */
static const char *const optimizer_states[] = {"m", "v", "a"};

typedef struct Part {
    const char *file;          /* "weights.safetensors" */
    const char *const *states; /* flat arrays in it */
    int n_states;
    bool prefixed; /* names are STATE.NAME */
} Part;

static const char *const weights_state[] = {"weights"};
static const char *const ema_state[] = {"ema"};
static const Part parts[] = {
    {"weights.safetensors", weights_state, 1, false},
    {"ema.safetensors", ema_state, 1, false},
    {"optimizer.safetensors", optimizer_states, AQ_COUNT(optimizer_states),
     true},
};

/* ---- writing ---- */

/* One parameter of one flat array, brought into the file's layout when its
 * first piece is asked for. */
typedef struct Source {
    const AqParamInfo *param;
    const float *array;
    float *turned; /* shared by all sources of a file */
} Source;

static AqStatus fill(void *context, uint64_t begin, void *out, size_t bytes,
                     AqError *error)
{
    (void)error;
    Source *source = context;
    if (begin == 0)
        aq_param_permute(source->param, true,
                         source->array + source->param->offset, source->turned);
    memcpy(out, (char *)source->turned + begin, bytes);
    return AQ_OK;
}

static int64_t largest(const AqParamTable *params)
{
    int64_t most = 1;
    for (int i = 0; i < params->count; i++)
        most = AQ_MAX(most, aq_elements(&params->at[i].type));
    return most;
}

static const char *stored_name(AqArena *arena, const Part *part,
                               const char *state, const char *name)
{
    return part->prefixed ? aq_arena_printf(arena, "%s.%s", state, name) : name;
}

static int list_entries(const Part *part, const AqParamTable *params,
                        const AqMemory *memory, float *turned, AqArena *arena,
                        AqTensorEntry *entries, Source *sources)
{
    int count = 0;
    for (int s = 0; s < part->n_states; s++) {
        const float *array = aq_memory_find(memory, part->states[s], NULL);
        for (int i = 0; array && i < params->count; i++) {
            const AqParamInfo *param = &params->at[i];
            sources[count] = (Source){param, array, turned};
            AqTensorEntry *entry = &entries[count];
            *entry = (AqTensorEntry){
                .name = stored_name(arena, part, part->states[s], param->name),
                .type = AQ_STORED_F32,
                .rank = param->type.rank,
                .fill = fill,
                .context = &sources[count]};
            aq_param_file_shape(param, entry->shape);
            count++;
        }
    }
    return count;
}

static AqStatus write_part(const char *folder, const Part *part,
                           const AqParamTable *params, const AqMemory *memory,
                           AqArena *arena, json_t *hashes, AqError *error)
{
    size_t most = (size_t)params->count * (size_t)part->n_states;
    AqTensorEntry *entries = AQ_NEW_ARRAY(arena, AqTensorEntry, most);
    Source *sources = AQ_NEW_ARRAY(arena, Source, most);
    float *turned = malloc((size_t)largest(params) * sizeof *turned);
    if (!entries || !sources || !turned) {
        free(turned);
        return aq_no_memory(error, most * sizeof *entries);
    }
    int count =
        list_entries(part, params, memory, turned, arena, entries, sources);
    char path[AQ_PATH_SIZE], digits[33];
    aq_path(path, "%s/%s", folder, part->file);
    AqMetadata format = {"format", "pt"};
    if (count > 0 &&
        !aq_tensors_write(path, entries, count, &format, 1, error) &&
        !aq_hash_file(path, digits, error))
        json_object_set_new(hashes, part->file, json_string(digits));
    free(turned);
    return error->status;
}

/* The hash of the text with zeros in the place of the hash. */
static void find_seal(char *text, size_t bytes, char digits[SEAL_DIGITS + 1])
{
    memcpy(text + bytes - SEAL_FROM_END, unsealed, SEAL_DIGITS);
    AqHash hash = aq_hash128(text, bytes);
    snprintf(digits, SEAL_DIGITS + 1, "%016llx%016llx",
             (unsigned long long)hash.high, (unsigned long long)hash.low);
}

static AqStatus write_state(const char *folder, const AqCheckpoint *state,
                            json_t *hashes, AqError *error)
{
    json_t *json = json_pack("{s:i, s:I, s:I, s:f, s:O}", "format", FORMAT,
                             "step", (json_int_t)state->step, "updates",
                             (json_int_t)state->updates, "seconds",
                             state->seconds, "files", hashes);
    if (json && state->loss == state->loss)
        json_object_set_new(json, "loss", json_real(state->loss));
    json_object_set_new(json, "hash", json_string(unsealed));
    char *text = json ? json_dumps(json, JSON_INDENT(2)) : NULL;
    json_decref(json);
    if (!text)
        return aq_no_memory(error, STATE_LIMIT);
    char path[AQ_PATH_SIZE], digits[SEAL_DIGITS + 1];
    size_t bytes = strlen(text);
    find_seal(text, bytes, digits);
    memcpy(text + bytes - SEAL_FROM_END, digits, SEAL_DIGITS);
    aq_path(path, "%s/state.json", folder);
    AqStatus status = aq_file_write(path, text, bytes, error);
    free(text);
    return status;
}

static void remove_folder(const char *path)
{
    DIR *dir = opendir(path);
    for (struct dirent *e; dir && (e = readdir(dir));)
        if (e->d_name[0] != '.')
            unlinkat(dirfd(dir), e->d_name, 0);
    if (dir)
        closedir(dir);
    rmdir(path);
}

/* Where there is one of this step already, as after a resume without a step,
 * they change places; only a file system that cannot do that is without either
 * for an instant. */
static bool rename_over(const char *beside, const char *path)
{
    if (!rename(beside, path))
        return true;
    if (errno != EEXIST && errno != ENOTEMPTY)
        return false;
    if (renameat2(AT_FDCWD, beside, AT_FDCWD, path, RENAME_EXCHANGE)) {
        remove_folder(path);
        return !rename(beside, path);
    }
    remove_folder(beside);
    return true;
}

static AqStatus appear(const char *beside, const char *path, const char *folder,
                       AqError *error)
{
    if (aq_sync_folder(beside, error))
        return error->status;
    if (!rename_over(beside, path))
        return aq_fail(error, AQ_IO, "%s: cannot rename to it: %s", path,
                       strerror(errno));
    return aq_sync_folder(folder, error);
}

AqStatus aq_checkpoint_write(const char *folder, const AqCheckpoint *state,
                             const AqParamTable *params, const AqMemory *memory,
                             AqError *error)
{
    char path[AQ_PATH_SIZE], beside[AQ_PATH_SIZE];
    aq_path(path, "%s/%0*lld", folder, NAME_DIGITS, (long long)state->step);
    aq_path(beside, "%s/.%0*lld.part", folder, NAME_DIGITS,
            (long long)state->step);
    AqArena *arena = aq_arena_new();
    json_t *hashes = json_object();
    if (!arena || !hashes) {
        aq_arena_free(arena);
        json_decref(hashes);
        return aq_no_memory(error, sizeof *state);
    }
    remove_folder(beside);
    AqStatus status = aq_make_folders(beside, error);
    for (int i = 0; i < AQ_COUNT(parts) && status == AQ_OK; i++)
        status =
            write_part(beside, &parts[i], params, memory, arena, hashes, error);
    if (status == AQ_OK)
        status = write_state(beside, state, hashes, error);
    if (status == AQ_OK)
        status = appear(beside, path, folder, error);
    if (status != AQ_OK)
        remove_folder(beside);
    json_decref(hashes);
    aq_arena_free(arena);
    return status;
}

/* ---- reading ---- */

static const char contents_differ[] =
    "is damaged: its contents are not those that were written; remove its "
    "folder to go on from the checkpoint before it";

static AqStatus damaged(const char *path, const char *what, AqError *error)
{
    return aq_fail(error, AQ_BAD_INPUT, "%s: %s", path, what);
}

static bool is_whole(char *text, size_t bytes)
{
    if (bytes <= SEAL_FROM_END)
        return false;
    char written[SEAL_DIGITS], digits[SEAL_DIGITS + 1];
    memcpy(written, text + bytes - SEAL_FROM_END, SEAL_DIGITS);
    find_seal(text, bytes, digits);
    return !memcmp(written, digits, SEAL_DIGITS);
}

static json_t *load_state(const char *file, AqError *error)
{
    char *text;
    size_t bytes;
    if (aq_file_read(file, STATE_LIMIT, &text, &bytes, error))
        return NULL;
    json_t *json = NULL;
    if (is_whole(text, bytes))
        json = json_loadb(text, bytes, JSON_REJECT_DUPLICATES, NULL);
    else
        damaged(file, contents_differ, error);
    free(text);
    return json;
}

static json_t *read_state(const char *path, AqCheckpoint *state, AqError *error)
{
    char file[AQ_PATH_SIZE];
    aq_path(file, "%s/state.json", path);
    json_t *json = load_state(file, error);
    int format = 0;
    json_int_t step = -1, updates = -1;
    json_t *files = NULL;
    state->loss = NAN;
    if (!json ||
        json_unpack(json, "{s:i, s:I, s:I, s:F, s:o, s?F}", "format", &format,
                    "step", &step, "updates", &updates, "seconds",
                    &state->seconds, "files", &files, "loss", &state->loss) ||
        format != FORMAT || step < 0 || step > INT32_MAX || updates < 0 ||
        updates > step || !json_is_object(files)) {
        damaged(file, "is no state of a checkpoint", error);
        json_decref(json);
        return NULL;
    }
    state->step = step;
    state->updates = updates;
    return json;
}

static AqStatus check_hash(const char *path, const char *name,
                           const json_t *hashes, AqError *error)
{
    char digits[33];
    const char *wanted = json_string_value(json_object_get(hashes, name));
    if (!wanted)
        return damaged(path, "state.json does not name it", error);
    if (aq_hash_file(path, digits, error))
        return error->status;
    return strcmp(digits, wanted) ? damaged(path, contents_differ, error)
                                  : AQ_OK;
}

static bool same_shape(const AqTensorInfo *info, const AqParamInfo *param)
{
    int64_t shape[AQ_MAX_RANK];
    aq_param_file_shape(param, shape);
    return info->rank == param->type.rank &&
           !memcmp(info->shape, shape, (size_t)info->rank * sizeof *shape);
}

static AqStatus read_param(const AqTensorFile *file, const char *path,
                           const char *name, const AqParamInfo *param,
                           float *turned, float *array, AqError *error)
{
    const AqTensorInfo *info = aq_tensors_find(file, name);
    if (!info || info->type != AQ_STORED_F32 || !same_shape(info, param))
        return aq_fail(error, AQ_BAD_INPUT,
                       "%s: %s %s; the checkpoint belongs to another model",
                       path, name,
                       info ? "has another shape or type" : "is missing");
    if (aq_tensors_read_floats(file, info, turned, error))
        return error->status;
    aq_param_permute(param, false, turned, array + param->offset);
    return AQ_OK;
}

static int states_in(const Part *part, const AqMemory *memory)
{
    int count = 0;
    for (int s = 0; s < part->n_states; s++)
        count += aq_memory_find(memory, part->states[s], NULL) != NULL;
    return count;
}

static AqStatus read_states(const Part *part, const char *path,
                            const AqTensorFile *file,
                            const AqParamTable *params, AqMemory *memory,
                            AqArena *arena, AqError *error)
{
    int wanted = params->count * states_in(part, memory);
    if (aq_tensors_count(file) != wanted)
        return aq_fail(error, AQ_BAD_INPUT,
                       "%s: holds %d tensors instead of %d; the checkpoint "
                       "belongs to another model or optimizer",
                       path, aq_tensors_count(file), wanted);
    float *turned = malloc((size_t)largest(params) * sizeof *turned);
    if (!turned)
        return aq_no_memory(error, (size_t)largest(params) * sizeof *turned);
    for (int s = 0; s < part->n_states; s++) {
        float *array = aq_memory_find(memory, part->states[s], NULL);
        for (int i = 0; array && i < params->count && !error->status; i++) {
            const AqParamInfo *param = &params->at[i];
            const char *name =
                stored_name(arena, part, part->states[s], param->name);
            read_param(file, path, name, param, turned, array, error);
        }
    }
    free(turned);
    return error->status;
}

static AqStatus read_part(const char *folder, const Part *part,
                          const json_t *hashes, const AqParamTable *params,
                          AqMemory *memory, AqArena *arena, AqError *error)
{
    if (states_in(part, memory) == 0)
        return AQ_OK;
    char path[AQ_PATH_SIZE];
    aq_path(path, "%s/%s", folder, part->file);
    if (check_hash(path, part->file, hashes, error))
        return error->status;
    AqTensorFile *file = aq_tensors_open(path, error);
    if (!file)
        return error->status;
    read_states(part, path, file, params, memory, arena, error);
    aq_tensors_close(file);
    return error->status;
}

static void set_counter(AqMemory *memory, const char *name, int64_t value)
{
    int32_t *counter = aq_memory_find(memory, name, NULL);
    if (counter)
        *counter = (int32_t)value;
}

AqStatus aq_checkpoint_read(const char *path, AqCheckpoint *state,
                            const AqParamTable *params, AqMemory *memory,
                            AqError *error)
{
    json_t *json = read_state(path, state, error);
    AqArena *arena = aq_arena_new();
    if (json && arena) {
        const json_t *hashes = json_object_get(json, "files");
        for (int i = 0; i < AQ_COUNT(parts) && !error->status; i++)
            read_part(path, &parts[i], hashes, params, memory, arena, error);
        set_counter(memory, "step", state->step);
        set_counter(memory, "updates", state->updates);
    } else if (!arena) {
        aq_no_memory(error, sizeof *state);
    }
    aq_arena_free(arena);
    json_decref(json);
    return error->status;
}

/* ---- which there are ---- */

static int is_checkpoint(const struct dirent *entry)
{
    size_t length = strlen(entry->d_name);
    return length >= NAME_DIGITS &&
           strspn(entry->d_name, "0123456789") == length;
}

/* Left by a process that was killed: written or removed by half. */
static int is_left_over(const struct dirent *entry)
{
    const char *name = entry->d_name;
    size_t digits = name[0] == '.' ? strspn(name + 1, "0123456789") : 0;
    return digits >= NAME_DIGITS && !strcmp(name + 1 + digits, ".part");
}

/* Names of more digits are later steps. */
static int by_step(const struct dirent **a, const struct dirent **b)
{
    size_t x = strlen((*a)->d_name), y = strlen((*b)->d_name);
    return x != y ? (x > y) - (x < y) : strcmp((*a)->d_name, (*b)->d_name);
}

static void free_names(struct dirent **names, int count)
{
    for (int i = 0; i < count; i++)
        free(names[i]);
    free(names);
}

char *aq_checkpoint_latest(const char *folder, AqArena *arena, AqError *error)
{
    struct dirent **names = NULL;
    char *path = NULL;
    int count = scandir(folder, &names, is_checkpoint, by_step);
    if (count < 0 && errno != ENOENT)
        aq_fail(error, AQ_IO, "%s: cannot be listed: %s", folder,
                strerror(errno));
    if (count > 0) {
        path =
            aq_arena_printf(arena, "%s/%s", folder, names[count - 1]->d_name);
        if (!path)
            aq_no_memory(error, AQ_PATH_SIZE);
    }
    free_names(names, count);
    return path;
}

/* Under another name first: half of a checkpoint is never seen as one. */
static void remove_checkpoint(const char *folder, const char *name)
{
    char path[AQ_PATH_SIZE], beside[AQ_PATH_SIZE];
    aq_path(path, "%s/%s", folder, name);
    aq_path(beside, "%s/.%s.part", folder, name);
    if (!rename(path, beside))
        remove_folder(beside);
}

void aq_checkpoint_prune(const char *folder, int keep)
{
    struct dirent **names = NULL;
    int count = scandir(folder, &names, is_left_over, by_step);
    for (int i = 0; i < count; i++) {
        char path[AQ_PATH_SIZE];
        aq_path(path, "%s/%s", folder, names[i]->d_name);
        remove_folder(path);
    }
    free_names(names, count);
    count = scandir(folder, &names, is_checkpoint, by_step);
    for (int i = 0; i < count - keep; i++)
        remove_checkpoint(folder, names[i]->d_name);
    free_names(names, count);
}
