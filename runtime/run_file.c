/* run.json: what was asked for, written once, read at every resume. */
#include "runtime/run.h"

#include <jansson.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>

enum { FORMAT = 1, RUN_LIMIT = 1 << 20 };

/* One row per option of a run: its name in the file, type, place and least and
 * largest value.  Writing and reading are both made from these rows. */
typedef enum Kind { INTEGER, WIDE, REAL, SWITCH } Kind;

typedef struct Row {
    const char *group, *name;
    Kind kind;
    size_t offset;
    double low, high;
} Row;

#define ROW(group, name, kind, member, low, high)                              \
    {                                                                          \
        group, name, kind, offsetof(AqRunOptions, member), low, high           \
    }

static const Row rows[] = {
    ROW("data", "height", INTEGER, height, 0, 4096),
    ROW("data", "width", INTEGER, width, 0, 4096),
    ROW("data", "channels", INTEGER, channels, 1, 4096),
    ROW("data", "batch", INTEGER, batch, 1, 65536),
    ROW("data", "classes", INTEGER, classes, 0, 1 << 20),
    ROW("data", "label_dropout", REAL, label_dropout, 0, 1),
    ROW("data", "flip", SWITCH, flip, 0, 1),
    ROW("data", "random_crop", SWITCH, random_crop, 0, 1),
    ROW("process", "schedule", INTEGER, process.schedule, 0, AQ_COSINE),
    ROW("process", "steps", INTEGER, process.steps, 0, 1e6),
    ROW("process", "beta_start", REAL, process.beta_start, 0, 1),
    ROW("process", "beta_end", REAL, process.beta_end, 0, 1),
    ROW("process", "zero_snr", SWITCH, process.zero_snr, 0, 1),
    ROW("process", "prediction", INTEGER, process.prediction, 0, AQ_X0),
    ROW("process", "min_snr", REAL, process.min_snr, 0, 1e9),
    ROW("optimizer", "kind", INTEGER, optimizer.kind, 0, AQ_ADAGRAD),
    ROW("optimizer", "rate_kind", INTEGER, optimizer.rate.kind, 0,
        AQ_RATE_POLYNOMIAL),
    ROW("optimizer", "rate", REAL, optimizer.rate.base, 0, 1e9),
    ROW("optimizer", "warmup", REAL, optimizer.rate.warmup, 0, 1e18),
    ROW("optimizer", "total", REAL, optimizer.rate.total, 0, 1e18),
    ROW("optimizer", "cycles", REAL, optimizer.rate.cycles, 0, 1e9),
    ROW("optimizer", "power", REAL, optimizer.rate.power, 0, 1e9),
    ROW("optimizer", "end", REAL, optimizer.rate.end, 0, 1e9),
    ROW("optimizer", "beta1", REAL, optimizer.beta1, 0, 1),
    ROW("optimizer", "beta2", REAL, optimizer.beta2, 0, 1),
    ROW("optimizer", "epsilon", REAL, optimizer.epsilon, 0, 1e9),
    ROW("optimizer", "decay", REAL, optimizer.decay, 0, 1e9),
    ROW("optimizer", "momentum", REAL, optimizer.momentum, 0, 1),
    ROW("optimizer", "nesterov", SWITCH, optimizer.nesterov, 0, 1),
    ROW("optimizer", "alpha", REAL, optimizer.alpha, 0, 1),
    ROW("optimizer", "centered", SWITCH, optimizer.centered, 0, 1),
    ROW("optimizer", "rate_decay", REAL, optimizer.rate_decay, 0, 1e9),
    ROW("optimizer", "clip", REAL, optimizer.clip, 0, 1e18),
    ROW("optimizer", "ema", REAL, optimizer.ema, 0, 1),
    ROW("optimizer", "ema_constant", SWITCH, optimizer.ema_constant, 0, 1),
    ROW("run", "seed", WIDE, seed, -0x1p63, 0x1p63),
    ROW("run", "steps", WIDE, steps, 0, INT32_MAX),
    ROW("run", "save_every", WIDE, save_every, 0, INT32_MAX),
    ROW("run", "sample_every", WIDE, sample_every, 0, INT32_MAX),
    ROW("run", "log_every", WIDE, log_every, 1, INT32_MAX),
    ROW("run", "sample_count", INTEGER, sample_count, 0, 65536),
    ROW("run", "sample_steps", INTEGER, sample_steps, 1, 1e6),
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

typedef struct Writer {
    json_t *root;
    const char *wrong; /* the first value that is no text in UTF-8 */
    bool no_memory;
} Writer;

static json_t *group_of(json_t *root, const char *name)
{
    json_t *group = json_object_get(root, name);
    if (!group) {
        group = json_object();
        json_object_set_new(root, name, group);
    }
    return group;
}

static void put_text(Writer *w, json_t *group, const char *name,
                     const char *text)
{
    if (json_object_set_new(group, name, json_string(text)) && !w->wrong)
        w->wrong = text;
}

static void add_option(Writer *w, json_t *options, const AqOptionSeen *seen)
{
    json_t *option = group_of(options, seen->name);
    put_text(w, option, "value", seen->value);
    put_text(w, option, "default", seen->otherwise);
    put_text(w, option, "range", seen->range);
    put_text(w, option, "help", seen->help);
}

/* The settings given, and beside them what each option of the model was. */
static void add_model(Writer *w, const AqRunOptions *options,
                      const AqOptions *seen)
{
    json_t *model = group_of(w->root, "model");
    put_text(w, model, "name", options->model);
    json_t *set = group_of(model, "set"), *used = group_of(model, "options");
    for (int i = 0; i < options->n_settings; i++)
        put_text(w, set, options->settings[i].name, options->settings[i].value);
    for (int i = 0; seen && i < seen->n_seen; i++)
        add_option(w, used, &seen->seen[i]);
}

void aq_run_fingerprint(const AqDataset *set, char digits[33])
{
    AqHash hash = aq_dataset_fingerprint(set);
    snprintf(digits, 33, "%016llx%016llx", (unsigned long long)hash.high,
             (unsigned long long)hash.low);
}

/* The way from samples back to the data's units. */
static void add_columns(Writer *w, json_t *data, const AqDataset *set)
{
    int height, width, channels;
    const AqColumn *columns = aq_dataset_columns(set);
    if (!columns)
        return;
    aq_dataset_shape(set, &height, &width, &channels);
    json_t *list = json_array();
    json_object_set_new(data, "columns", list);
    for (int i = 0; i < channels; i++) {
        json_t *item = json_object();
        json_array_append_new(list, item);
        put_text(w, item, "name", columns[i].name);
        json_object_set_new(item, "centre", json_real(columns[i].centre));
        json_object_set_new(item, "half", json_real(columns[i].half));
    }
}

/* The data for whoever opens the run in another folder. */
static void add_place(Writer *w, json_t *data, const char *spec)
{
    AqArena *arena = aq_arena_new();
    const char *place = arena ? aq_dataset_absolute(spec, arena) : NULL;
    if (!place)
        w->no_memory = true;
    else if (aq_dataset_path(spec))
        put_text(w, data, "place", place);
    aq_arena_free(arena);
}

static void add_data(Writer *w, const AqRunOptions *options,
                     const AqDataset *set)
{
    json_t *data = group_of(w->root, "data");
    char digits[33];
    put_text(w, data, "source", options->data);
    add_place(w, data, options->data);
    aq_run_fingerprint(set, digits);
    json_object_set_new(data, aq_dataset_columns(set) ? "points" : "pictures",
                        json_integer(aq_dataset_count(set)));
    json_object_set_new(data, "fingerprint", json_string(digits));
    add_columns(w, data, set);
}

/* Only what differs from the tables. */
static void add_choices(Writer *w, const AqRunOptions *options)
{
    const AqTuning *tuning = &options->tuning;
    if (options->algorithm)
        put_text(w, group_of(w->root, "choices"), "algorithm",
                 options->algorithm);
    json_t *list = tuning->count > 0 ? json_array() : NULL;
    for (int i = 0; i < tuning->count; i++) {
        const AqChoice *c = &tuning->choices[i];
        json_t *item = json_object(), *blocks = json_array();
        json_object_set_new(
            item, "contraction",
            json_sprintf("%016llx", (unsigned long long)c->contraction));
        put_text(w, item, "algorithm", c->algorithm);
        for (int k = 0; k < c->n_blocks; k++)
            json_array_append_new(blocks, json_integer(c->blocks[k]));
        json_object_set_new(item, "blocks", blocks);
        json_array_append_new(list, item);
    }
    if (list)
        json_object_set_new(group_of(w->root, "choices"), "tuned", list);
}

static char *text_of(Writer *w, const AqRunOptions *options,
                     const AqDataset *set, const AqOptions *seen,
                     const AqTarget *target)
{
    json_t *root = w->root;
    json_object_set_new(root, "format", json_integer(FORMAT));
    put_text(w, root, "aquatint", AQ_VERSION);
    put_text(w, root, "target", target->name);
    add_model(w, options, seen);
    add_data(w, options, set);
    add_choices(w, options);
    for (int i = 0; i < AQ_COUNT(rows); i++)
        json_object_set_new(group_of(root, rows[i].group), rows[i].name,
                            value_of(options, &rows[i]));
    return json_dumps(root, JSON_INDENT(2) | JSON_REAL_PRECISION(17));
}

AqStatus aq_run_write(const char *folder, const AqRunOptions *options,
                      const AqDataset *set, const AqOptions *seen,
                      const AqTarget *target, AqError *error)
{
    Writer w = {.root = json_object()};
    char *text = text_of(&w, options, set, seen, target);
    json_decref(w.root);
    if (w.no_memory) {
        free(text);
        text = NULL;
    }
    if (!text)
        return aq_no_memory(error, RUN_LIMIT);
    char path[AQ_PATH_SIZE];
    aq_path(path, "%s/run.json", folder);
    AqStatus status =
        w.wrong ? aq_fail(error, AQ_BAD_INPUT,
                          "%s: cannot be written to run.json: it is no UTF-8",
                          w.wrong)
                : aq_file_write(path, text, strlen(text), error);
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
    double number = json_number_value(value); /* 0 of a boolean */
    if (!right || !(number >= row->low && number <= row->high))
        return false;
    if (row->kind == REAL)
        *(double *)at = number;
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
    options->fingerprint =
        copy_text(arena, json_object_get(root, "data"), "fingerprint");
    options->place = copy_text(arena, json_object_get(root, "data"), "place");
    options->target = copy_text(arena, root, "target");
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
    return options->model && options->data && options->fingerprint &&
           options->target;
}

static bool read_column(AqArena *arena, const json_t *item, AqColumn *column)
{
    *column =
        (AqColumn){.name = copy_text(arena, item, "name"),
                   .centre = json_number_value(json_object_get(item, "centre")),
                   .half = json_number_value(json_object_get(item, "half"))};
    return column->name && column->half > 0;
}

/* Pictures have a size, points have columns. */
static bool read_columns(const json_t *root, AqArena *arena,
                         AqRunOptions *options)
{
    const json_t *list =
        json_object_get(json_object_get(root, "data"), "columns");
    if (options->height > 0)
        return options->width > 0 && options->channels <= 4 && !list;
    if (options->width > 0 ||
        json_array_size(list) != (size_t)options->channels)
        return false;
    AqColumn *columns = AQ_NEW_ARRAY(arena, AqColumn, options->channels);
    for (int i = 0; columns && i < options->channels; i++)
        if (!read_column(arena, json_array_get(list, (size_t)i), &columns[i]))
            return false;
    options->columns = columns;
    return columns != NULL;
}

/* An algorithm's name as the table has it, or NULL. */
static const char *known_algorithm(const json_t *group)
{
    const char *name = json_string_value(json_object_get(group, "algorithm"));
    for (int i = 0; name && aq_algorithm_name(i); i++)
        if (!strcmp(name, aq_algorithm_name(i)))
            return aq_algorithm_name(i);
    return NULL;
}

static bool read_choice(const json_t *item, AqChoice *choice)
{
    const char *hash = json_string_value(json_object_get(item, "contraction"));
    const json_t *blocks = json_object_get(item, "blocks");
    size_t count = json_array_size(blocks);
    *choice =
        (AqChoice){.algorithm = known_algorithm(item), .n_blocks = (int)count};
    if (!hash || strspn(hash, "0123456789abcdef") != 16 || hash[16] ||
        !choice->algorithm || !json_is_array(blocks) ||
        count > AQ_BLOCK_NUMBERS)
        return false;
    choice->contraction = strtoull(hash, NULL, 16);
    for (size_t k = 0; k < count; k++) {
        choice->blocks[k] = json_integer_value(json_array_get(blocks, k));
        if (choice->blocks[k] < 0 || choice->blocks[k] > INT32_MAX)
            return false;
    }
    return true;
}

/* Runs that were neither tuned nor told an algorithm have none. */
static bool read_choices(const json_t *root, AqArena *arena,
                         AqRunOptions *options)
{
    const json_t *group = json_object_get(root, "choices");
    const json_t *list = json_object_get(group, "tuned");
    size_t count = json_array_size(list);
    options->algorithm = known_algorithm(group);
    if (json_object_get(group, "algorithm") && !options->algorithm)
        return false;
    AqChoice *choices = AQ_NEW_ARRAY(arena, AqChoice, count + 1);
    for (size_t i = 0; choices && i < count; i++)
        if (!read_choice(json_array_get(list, i), &choices[i]))
            return false;
    options->tuning = (AqTuning){choices, (int)count};
    return choices != NULL;
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
    if (!error->status && !read_columns(root, arena, options))
        aq_fail(error, AQ_BAD_INPUT,
                "%s: data.height, width or columns is wrong", path);
    if (!error->status && !read_choices(root, arena, options))
        aq_fail(error, AQ_BAD_INPUT, "%s: choices are wrong", path);
    json_decref(root);
    return error->status;
}

static bool is_there(const char *spec)
{
    const char *path = aq_dataset_path(spec);
    return !path || aq_file_exists(path);
}

AqStatus aq_run_find_data(const AqRunOptions *options, const char **spec,
                          AqError *error)
{
    const char *place = options->place;
    *spec = place && is_there(place) ? place : options->data;
    if (!place || is_there(*spec))
        return AQ_OK;
    return aq_fail(error, AQ_BAD_INPUT,
                   "%s: the data of this run (--data %s) are not there any "
                   "more: bring them back, or say with --data where they are "
                   "now",
                   aq_dataset_path(place), options->data);
}
