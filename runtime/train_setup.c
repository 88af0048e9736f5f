/* From a run's options to the first step: model, data, program, weights. */
#include "runtime/train.h"

#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

AqTask aq_run_task(const AqRunOptions *o, const AqModelInfo *model, int batch)
{
    return (AqTask){.model = model,
                    .settings = o->settings,
                    .n_settings = o->n_settings,
                    .batch = batch,
                    .height = o->height,
                    .width = o->width,
                    .channels = o->channels,
                    .classes = o->classes,
                    .label_dropout = o->label_dropout,
                    .process = o->process};
}

AqProgramSettings aq_train_settings(const AqTrain *t)
{
    AqProgramSettings settings = {.target = t->target,
                                  .compile = t->session->compile,
                                  .passes = t->session->passes,
                                  .memory_limit = t->program_limit};
    settings.passes.algorithm = t->options->algorithm;
    settings.passes.tuning = &t->tuning;
    return settings;
}

static void warn(void *context, const char *sentence)
{
    (void)context;
    fprintf(stderr, "aquatint: warning: %s\n", sentence);
}

/* What is no longer as it was when the run began. */
static void warn_of_changes(const AqTrain *t)
{
    char digits[33], sentence[300];
    aq_run_fingerprint(t->set, digits);
    if (strcmp(digits, t->options->fingerprint))
        warn(NULL, "the data are not those that the run was begun with: it "
                   "goes on, but not as it would have");
    snprintf(sentence, sizeof sentence,
             "the run was begun for %s, this is %s: what follows is equal up "
             "to rounding only",
             t->options->target, t->target.name);
    if (strcmp(t->target.name, t->options->target))
        warn(NULL, sentence);
}

static double mebibytes(int64_t bytes)
{
    return (double)bytes / (1 << 20);
}

static AqStatus limit_memory(AqTrain *t)
{
    int64_t limit = t->session->memory_limit;
    t->data_bytes = (int64_t)aq_dataset_bytes(t->set) +
                    aq_loader_bytes(t->set, t->options->batch);
    if (limit > 0 && t->data_bytes >= limit)
        return aq_fail(t->error, AQ_NO_MEMORY,
                       "the data alone take %.1f MiB, and --memory allows %.1f",
                       mebibytes(t->data_bytes), mebibytes(limit));
    t->program_limit = limit > 0 ? limit - t->data_bytes : 0;
    return AQ_OK;
}

/* The model learned points on the scale of the run's beginning. */
static bool same_columns(const AqTrain *t)
{
    const AqColumn *then = t->options->columns;
    const AqColumn *now = aq_dataset_columns(t->set);
    for (int i = 0; then && i < t->options->channels; i++)
        if (!now || strcmp(then[i].name, now[i].name) ||
            then[i].centre != now[i].centre || then[i].half != now[i].half)
            return false;
    return true;
}

static AqStatus open_data(AqTrain *t)
{
    AqDatasetOptions options = {.height = t->options->height,
                                .width = t->options->width,
                                .channels = t->options->channels,
                                .threads = t->session->threads,
                                .warn = warn};
    const char *spec;
    if (aq_run_find_data(t->options, &spec, t->error))
        return t->error->status;
    t->set = aq_dataset_open(spec, &options, t->error);
    if (!t->set)
        return t->error->status;
    if (t->options->classes > 0 &&
        aq_dataset_classes(t->set) != t->options->classes)
        return aq_fail(t->error, AQ_BAD_INPUT,
                       "%s: has %d classes, the run was made for %d",
                       t->options->data, aq_dataset_classes(t->set),
                       t->options->classes);
    if (!same_columns(t))
        return aq_fail(t->error, AQ_BAD_INPUT,
                       "%s: its columns or their ranges are no longer those "
                       "that the run began with",
                       t->options->data);
    fprintf(stderr, "data    %s\n", aq_dataset_describe(t->set));
    return limit_memory(t);
}

static AqStatus open_model(AqTrain *t)
{
    char path[AQ_PATH_SIZE];
    aq_path(path, "%s/model.c", t->folder);
    const char *name = t->session->resume ? path : t->options->model;
    if (aq_model_open(name, t->folder, &t->model, t->error))
        return t->error->status;
    t->task = aq_run_task(t->options, t->model.info, t->options->batch);
    t->graph =
        aq_training_graph(&t->task, &t->options->optimizer, &t->seen, t->error);
    if (!t->graph)
        return t->error->status;
    t->params = aq_params(t->graph);
    if (!t->params)
        return aq_no_memory(t->error, sizeof *t->params);
    fprintf(stderr, "model   %s, %lld parameters in %d tensors\n",
            t->model.info->name, (long long)t->params->trained,
            t->params->count);
    return AQ_OK;
}

/* What is held until the end, and what samples take beside it while they are
 * drawn, exactly, before the first step. */
static void print_memory(const AqTrain *t)
{
    int64_t flat = t->params->floats * 4, all = aq_memory_bytes(t->memory);
    const AqPlan *plan = aq_compiled_plan(t->program);
    int64_t scratch = aq_compiled_scratch(t->program);
    fprintf(stderr,
            "memory  %.0f MiB: parameters %.1f, optimizer and average %.1f, "
            "activations and gradients %.1f, scratch %.1f, data %.1f",
            mebibytes(all + aq_compiled_bytes(t->program) + t->data_bytes),
            mebibytes(flat), mebibytes(all - flat),
            mebibytes(aq_whole_pages(plan->arena_bytes)), mebibytes(scratch),
            mebibytes(t->data_bytes));
    if (t->sample_bytes > 0)
        fprintf(stderr, "; %.1f more while samples are drawn",
                mebibytes(t->sample_bytes));
    putc('\n', stderr);
}

static void print_code(const AqTrain *t)
{
    const AqCodeStatistics *code = aq_compiled_code(t->program);
    fprintf(stderr,
            "code    %d kernels, %d pieces of code, %.0f KiB (%d from the "
            "cache, %d compiled), %.2f s, for %s\n",
            code->kernels, code->units, (double)code->bytes / 1024,
            code->from_cache, code->compiled, code->seconds, t->target.name);
}

static AqStatus read_checkpoint(AqTrain *t)
{
    char folder[AQ_PATH_SIZE];
    aq_path(folder, "%s/checkpoints", t->folder);
    AqArena *arena = aq_arena_new();
    if (!arena)
        return aq_no_memory(t->error, sizeof folder);
    char *path = aq_checkpoint_latest(folder, arena, t->error);
    if (path &&
        !aq_checkpoint_read(path, &t->state, t->params, t->memory, t->error))
        fprintf(stderr, "resumed %s\n", path);
    aq_arena_free(arena);
    return t->error->status;
}

static void tell_times(void *context, const char *sentence)
{
    (void)context;
    fprintf(stderr, "tune    %s\n", sentence);
}

/* A run has the choices that it began with. */
static AqStatus find_choices(AqTrain *t)
{
    t->tuning = t->options->tuning;
    if (!t->session->tune || t->session->resume)
        return AQ_OK;
    t->choices = aq_arena_new();
    if (!t->choices)
        return aq_no_memory(t->error, sizeof t->tuning);
    AqTuneOptions options = {.tell = tell_times};
    AqProgramSettings settings = aq_train_settings(t);
    return aq_tune(t->graph, t->pool, &settings, &options, t->choices,
                   &t->tuning, t->error);
}

/* The level that is asked for; else, of a run that goes on, the one that it was
 * begun at, if this processor has it; 0: the best. */
static int wanted_level(const AqTrain *t)
{
    AqTarget target;
    int level = t->session->level;
    if (level || !t->session->resume)
        return level;
    for (level = AQ_FIRST_LEVEL; level <= AQ_LAST_LEVEL; level++)
        if (aq_target_host(level, &target, NULL) == AQ_OK &&
            !strcmp(target.name, t->options->target))
            return level;
    return 0;
}

static AqStatus open_machine(AqTrain *t)
{
    if (aq_target_host(wanted_level(t), &t->target, t->error))
        return t->error->status;
    AqPoolOptions pool = {.threads = t->session->threads};
    t->pool = aq_pool_new(&pool, t->error);
    t->memory = t->pool ? aq_memory_new(t->error) : NULL;
    return t->error->status;
}

/* If every value of the step were kept: mostly far above what a plan needs. */
static int64_t bytes_of_values(const AqGraph *graph)
{
    int64_t bytes = 0;
    for (AqId id = 0; id < graph->count; id++)
        bytes += 4 * aq_elements(&aq_node(graph, id)->type);
    return bytes;
}

/* Of a program that is planned within a limit, not compiled. */
static AqProgramSettings planning_settings(const AqTrain *t, int64_t limit)
{
    AqProgramSettings settings = aq_train_settings(t);
    settings.memory_limit = limit;
    settings.plan_only = true;
    settings.passes.verify = false; /* what is asked of the passes is shown */
    settings.passes.after = NULL;   /* when the program is compiled */
    return settings;
}

/* What cannot fit is refused before pictures are drawn or decoded, which may
 * take long.  (Where choices are measured, the plan is not known yet.)  A
 * budget is then planned for a second time, without what the data turned out to
 * take: a second of a start, which is less than decoding in vain. */
static AqStatus refuse_what_cannot_fit(AqTrain *t)
{
    int64_t limit = t->session->memory_limit;
    if (t->options->height == 0 || t->session->tune ||
        bytes_of_values(t->graph) <= aq_compiled_limit(limit))
        return AQ_OK;
    t->tuning = t->options->tuning;
    AqProgramSettings settings = planning_settings(t, limit);
    AqCompiled *plan =
        aq_compiled_new(t->graph, t->memory, t->pool, &settings, t->error);
    if (plan)
        aq_compiled_check_memory(plan, t->error);
    aq_compiled_free(plan);
    return t->error->status;
}

/* The program, and the parameters as a run begins with them; one that is
 * resumed need not have a checkpoint. */
static AqStatus make_program(AqTrain *t)
{
    AqProgramSettings settings = aq_train_settings(t);
    AqStart start = {.params = t->params,
                     .seed = t->options->seed,
                     .memory = t->memory,
                     .pool = t->pool,
                     .memory_limit = settings.memory_limit};
    aq_start_begin(&start, t->graph);
    t->program =
        aq_compiled_new(t->graph, t->memory, t->pool, &settings, t->error);
    aq_start_end(&start, t->program != NULL);
    uint32_t *key = aq_memory_find(t->memory, "key", NULL);
    if (key)
        aq_philox_key(t->options->seed, key);
    return t->error->status;
}

static AqStatus compile_program(AqTrain *t)
{
    if (t->session->resume)
        warn_of_changes(t);
    if (find_choices(t))
        return t->error->status;
    t->state.loss = NAN;
    if (make_program(t) != AQ_NO_MEMORY || t->program_limit == 0)
        return t->error->status;
    AqError inside = *t->error;
    *t->error = (AqError){0};
    return aq_fail(t->error, inside.status, "%s (%.1f MiB of it are the data)",
                   inside.text, mebibytes(t->data_bytes));
}

/* The bytes of the program within a limit; its arrays are there. */
static int64_t bytes_within(AqTrain *t, int64_t limit)
{
    AqProgramSettings settings = planning_settings(t, limit);
    AqCompiled *plan =
        aq_compiled_new(t->graph, t->memory, t->pool, &settings, t->error);
    int64_t bytes = plan ? aq_compiled_bytes(plan) : 0;
    aq_compiled_free(plan);
    return bytes;
}

static AqStatus make_again_within(AqTrain *t, int64_t limit)
{
    int64_t bytes = bytes_within(t, limit), allowed = t->program_limit;
    if (t->error->status)
        return t->error->status;
    if (bytes > limit)
        return aq_fail(t->error, AQ_NO_MEMORY,
                       "the training fits, but not the samples beside it "
                       "(--samples 0: none): together they need %.1f MiB at "
                       "the least, and --memory allows %.1f",
                       ceil(mebibytes(allowed + bytes - limit) * 10) / 10,
                       mebibytes(allowed));
    aq_compiled_free(t->program);
    t->program_limit = limit;
    make_program(t);
    t->program_limit = allowed;
    return t->error->status;
}

/* Where samples do not fit beside it, the program is made once more, in less:
 * its arena, which they use, is smaller then, so that it may take a few. */
static AqStatus leave_room_for_samples(AqTrain *t)
{
    enum { TRIES = 4 };
    int64_t lack = 0;
    for (int i = 0; i < TRIES && (lack = aq_train_samples_lack(t)) > 0; i++) {
        int64_t limit = aq_compiled_bytes(t->program) - lack;
        if (make_again_within(t, AQ_MAX(limit, (int64_t)1)))
            break;
    }
    return t->error->status;
}

static AqStatus start_loader(AqTrain *t)
{
    AqLoaderOptions options = {.batch = t->options->batch,
                               .seed = t->options->seed,
                               .flip = t->options->flip,
                               .random_crop = t->options->random_crop,
                               .first = t->state.step * t->options->batch};
    t->loader = aq_loader_new(t->set, &options, t->error);
    return t->error->status;
}

/* run.json last: a folder that has it is a run that can be resumed. */
static AqStatus write_run(AqTrain *t)
{
    char path[AQ_PATH_SIZE];
    aq_path(path, "%s/model.c", t->folder);
    if (aq_file_write(path, t->model.source, t->model.source_bytes, t->error))
        return t->error->status;
    AqRunOptions options = *t->options;
    options.tuning = t->tuning;
    return aq_run_write(t->folder, &options, t->set, t->seen, &t->target,
                        t->error);
}

/* One process at a time: held as long as the file is open. */
static AqStatus lock_run(AqTrain *t)
{
    char path[AQ_PATH_SIZE];
    aq_path(path, "%s/run.json", t->folder);
    t->lock = open(path, O_RDONLY | O_CLOEXEC);
    if (t->lock >= 0 && flock(t->lock, LOCK_EX | LOCK_NB) &&
        errno == EWOULDBLOCK)
        return aq_fail(t->error, AQ_BAD_INPUT,
                       "%s: another process is training this run", t->folder);
    return AQ_OK; /* some file systems know no locks */
}

static AqStatus make_folders(AqTrain *t)
{
    static const char *const below[] = {"checkpoints", "samples"};
    char path[AQ_PATH_SIZE];
    for (int i = 0; i < AQ_COUNT(below); i++) {
        aq_path(path, "%s/%s", t->folder, below[i]);
        if (aq_make_folders(path, t->error))
            return t->error->status;
    }
    return AQ_OK;
}

/* A run that could not begin leaves no folders that it made. */
static void remove_empty(const AqTrain *t)
{
    static const char *const below[] = {"/checkpoints", "/samples", ""};
    char path[AQ_PATH_SIZE];
    aq_path(path, "%s/run.json", t->folder);
    if (aq_file_exists(path))
        return;
    aq_path(path, "%s/model.so", t->folder);
    unlink(path);
    for (int i = 0; i < AQ_COUNT(below); i++) {
        aq_path(path, "%s%s", t->folder, below[i]);
        rmdir(path);
    }
}

/* A picture of the model for the folder; the run does without if need be. */
static void draw_model(const AqTrain *t)
{
    enum { MOST_SECONDS = 10 };
    char path[AQ_PATH_SIZE];
    AqError error = {0};
    aq_path(path, "%s/graph.svg", t->folder);
    if (aq_draw_model(&t->task, path, MOST_SECONDS, &error))
        warn(NULL, error.text);
}

static AqStatus set_up(AqTrain *t)
{
    if (t->session->resume && lock_run(t))
        return t->error->status;
    if (make_folders(t) || open_model(t) || open_machine(t) ||
        refuse_what_cannot_fit(t) || open_data(t) || compile_program(t) ||
        leave_room_for_samples(t) || aq_train_check_samples(t))
        return t->error->status;
    if (t->session->resume ? read_checkpoint(t) : write_run(t) || lock_run(t))
        return t->error->status;
    if (start_loader(t))
        return t->error->status;
    t->metrics = aq_metrics_open(t->folder, t->state.step, t->error);
    if (!t->metrics)
        return t->error->status;
    if (!t->session->resume)
        draw_model(t);
    print_code(t);
    print_memory(t);
    return AQ_OK;
}

AqStatus aq_train_open(AqTrain *t)
{
    t->lock = -1;
    if (set_up(t))
        remove_empty(t);
    return t->error->status;
}

void aq_train_close(AqTrain *t)
{
    if (t->lock >= 0)
        close(t->lock);
    aq_metrics_close(t->metrics);
    aq_loader_free(t->loader);
    aq_compiled_free(t->program);
    aq_memory_free(t->memory);
    aq_pool_free(t->pool);
    aq_graph_free(t->graph);
    aq_dataset_free(t->set);
    aq_model_close(&t->model);
    aq_arena_free(t->choices);
}
