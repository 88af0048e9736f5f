/* run.json: what was asked for, written once, read at every resume. */
#include "runtime/run.h"

#include <jansson.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>

enum { FORMAT = 1, RUN_LIMIT = 1 << 20 };

/* One row per option of a run: its name in the file, type and place.  Writing
 * and reading are both made from these rows. */
typedef enum Kind { INTEGER, WIDE, REAL, SWITCH } Kind;

typedef struct Row {
    const char *group, *name;
    Kind kind;
    size_t offset;
} Row;

#define ROW(group, name, kind, member)                                         \
    {                                                                          \
        group, name, kind, offsetof(AqRunOptions, member)                      \
    }

static const Row rows[] = {
    ROW("data", "height", INTEGER, height),
    ROW("data", "width", INTEGER, width),
    ROW("data", "channels", INTEGER, channels),
    ROW("data", "batch", INTEGER, batch),
    ROW("data", "classes", INTEGER, classes),
    ROW("data", "label_dropout", REAL, label_dropout),
    ROW("data", "flip", SWITCH, flip),
    ROW("data", "random_crop", SWITCH, random_crop),
    ROW("process", "schedule", INTEGER, process.schedule),
    ROW("process", "steps", INTEGER, process.steps),
    ROW("process", "beta_start", REAL, process.beta_start),
    ROW("process", "beta_end", REAL, process.beta_end),
    ROW("process", "zero_snr", SWITCH, process.zero_snr),
    ROW("process", "prediction", INTEGER, process.prediction),
    ROW("process", "min_snr", REAL, process.min_snr),
    ROW("optimizer", "kind", INTEGER, optimizer.kind),
    ROW("optimizer", "rate_kind", INTEGER, optimizer.rate.kind),
    ROW("optimizer", "rate", REAL, optimizer.rate.base),
    ROW("optimizer", "warmup", REAL, optimizer.rate.warmup),
    ROW("optimizer", "total", REAL, optimizer.rate.total),
    ROW("optimizer", "cycles", REAL, optimizer.rate.cycles),
    ROW("optimizer", "power", REAL, optimizer.rate.power),
    ROW("optimizer", "end", REAL, optimizer.rate.end),
    ROW("optimizer", "beta1", REAL, optimizer.beta1),
    ROW("optimizer", "beta2", REAL, optimizer.beta2),
    ROW("optimizer", "epsilon", REAL, optimizer.epsilon),
    ROW("optimizer", "decay", REAL, optimizer.decay),
    ROW("optimizer", "momentum", REAL, optimizer.momentum),
    ROW("optimizer", "nesterov", SWITCH, optimizer.nesterov),
    ROW("optimizer", "alpha", REAL, optimizer.alpha),
    ROW("optimizer", "centered", SWITCH, optimizer.centered),
    ROW("optimizer", "rate_decay", REAL, optimizer.rate_decay),
    ROW("optimizer", "clip", REAL, optimizer.clip),
    ROW("optimizer", "ema", REAL, optimizer.ema),
    ROW("optimizer", "ema_constant", SWITCH, optimizer.ema_constant),
    ROW("run", "seed", WIDE, seed),
    ROW("run", "steps", WIDE, steps),
    ROW("run", "save_every", WIDE, save_every),
    ROW("run", "sample_every", WIDE, sample_every),
    ROW("run", "log_every", WIDE, log_every),
    ROW("run", "sample_count", INTEGER, sample_count),
    ROW("run", "sample_steps", INTEGER, sample_steps),
};

/* ---- writing ---- */

static json_t *value_of(const AqRunOptions *options, const Row *row)
{
    const char *at = (const char *)options + row->offset;
    switch (row->kind) {
    case INTEGER:
        return json_integer(*(const int *)at);
    case WIDE:
        return json_integer((json_int_t) * (const int64_t *)at);
    case REAL:
        return json_real(*(const double *)at);
    case SWITCH:
        return json_boolean(*(const bool *)at);
    }
    return NULL;
}

static json_t *group_of(json_t *root, const char *name)
{
    json_t *group = json_object_get(root, name);
    if (!group) {
        group = json_object();
        json_object_set_new(root, name, group);
    }
    return group;
}

/* The settings given, and beside them what each option of the model was. */
static void add_model(json_t *root, const AqRunOptions *options,
                      const AqOptions *seen)
{
    json_t *model = group_of(root, "model");
    json_object_set_new(model, "name", json_string(options->model));
    json_t *set = group_of(model, "set"), *used = group_of(model, "options");
    for (int i = 0; i < options->n_settings; i++)
        json_object_set_new(set, options->settings[i].name,
                            json_string(options->settings[i].value));
    for (int i = 0; seen && i < seen->n_seen; i++)
        json_object_set_new(used, seen->seen[i].name,
                            json_string(seen->seen[i].value));
}

static void add_data(json_t *root, const AqRunOptions *options,
                     const AqDataset *set)
{
    json_t *data = group_of(root, "data");
    json_object_set_new(data, "source", json_string(options->data));
    AqHash hash = aq_dataset_fingerprint(set);
    char digits[33];
    snprintf(digits, sizeof digits, "%016llx%016llx",
             (unsigned long long)hash.high, (unsigned long long)hash.low);
    json_object_set_new(data, "pictures", json_integer(aq_dataset_count(set)));
    json_object_set_new(data, "fingerprint", json_string(digits));
}

AqStatus aq_run_write(const char *folder, const AqRunOptions *options,
                      const AqDataset *set, const AqOptions *seen,
                      const AqTarget *target, AqError *error)
{
    json_t *root = json_object();
    json_object_set_new(root, "format", json_integer(FORMAT));
    json_object_set_new(root, "aquatint", json_string(AQ_VERSION));
    json_object_set_new(root, "target", json_string(target->cpu));
    add_model(root, options, seen);
    add_data(root, options, set);
    for (int i = 0; i < AQ_COUNT(rows); i++)
        json_object_set_new(group_of(root, rows[i].group), rows[i].name,
                            value_of(options, &rows[i]));
    char *text = json_dumps(root, JSON_INDENT(2) | JSON_REAL_PRECISION(17));
    json_decref(root);
    if (!text)
        return aq_no_memory(error, RUN_LIMIT);
    char path[AQ_PATH_SIZE];
    aq_path(path, "%s/run.json", folder);
    AqStatus status = aq_file_write(path, text, strlen(text), error);
    free(text);
    return status;
}

/* ---- reading ---- */

static bool read_row(const json_t *root, const Row *row, AqRunOptions *options)
{
    const json_t *value =
        json_object_get(json_object_get(root, row->group), row->name);
    char *at = (char *)options + row->offset;
    bool right = row->kind == REAL     ? json_is_number(value)
                 : row->kind == SWITCH ? json_is_boolean(value)
                                       : json_is_integer(value);
    if (!right)
        return false;
    if (row->kind == REAL)
        *(double *)at = json_number_value(value);
    else if (row->kind == SWITCH)
        *(bool *)at = json_is_true(value);
    else if (row->kind == WIDE)
        *(int64_t *)at = json_integer_value(value);
    else
        *(int *)at = (int)json_integer_value(value);
    return true;
}

static const char *copy_text(AqArena *arena, const json_t *group,
                             const char *name)
{
    const char *text = json_string_value(json_object_get(group, name));
    return text ? aq_arena_copy_text(arena, text) : NULL;
}

static bool read_settings(json_t *root, AqArena *arena, AqRunOptions *options)
{
    json_t *model = json_object_get(root, "model");
    options->model = copy_text(arena, model, "name");
    options->data = copy_text(arena, json_object_get(root, "data"), "source");
    json_t *set = json_object_get(model, "set"), *value;
    const char *name;
    json_object_foreach(set, name, value)
    {
        if (options->n_settings == AQ_COUNT(options->settings) ||
            !json_is_string(value))
            return false;
        options->settings[options->n_settings++] =
            (AqSetting){aq_arena_copy_text(arena, name),
                        aq_arena_copy_text(arena, json_string_value(value))};
    }
    return options->model && options->data;
}

AqStatus aq_run_read(const char *folder, AqArena *arena, AqRunOptions *options,
                     AqError *error)
{
    char path[AQ_PATH_SIZE], *text;
    size_t bytes;
    aq_path(path, "%s/run.json", folder);
    if (!aq_file_exists(path))
        return aq_fail(error, AQ_BAD_INPUT,
                       "%s: is no run (it has no run.json)", folder);
    if (aq_file_read(path, RUN_LIMIT, &text, &bytes, error))
        return error->status;
    *options = (AqRunOptions){0};
    json_error_t place;
    json_t *root = json_loadb(text, bytes, JSON_REJECT_DUPLICATES, &place);
    free(text);
    if (!root)
        return aq_fail(error, AQ_BAD_INPUT, "%s:%d: %s", path, place.line,
                       place.text);
    if (json_integer_value(json_object_get(root, "format")) != FORMAT ||
        !read_settings(root, arena, options))
        aq_fail(error, AQ_BAD_INPUT, "%s: is no run of this version", path);
    for (int i = 0; i < AQ_COUNT(rows) && !error->status; i++)
        if (!read_row(root, &rows[i], options))
            aq_fail(error, AQ_BAD_INPUT, "%s: %s.%s is missing or wrong", path,
                    rows[i].group, rows[i].name);
    json_decref(root);
    return error->status;
}
