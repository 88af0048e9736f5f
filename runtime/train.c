/* The training loop.
 *
 * Sets up (model, data, program, weights), then runs the compiled step until
 * the steps or the time are over or somebody asks to stop, and leaves a
 * checkpoint behind in every case but an error. */
#include "runtime/run.h"

#include <errno.h>
#include <limits.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { KEEP_CHECKPOINTS = 2, MOST_SKIPS = 10 };

/* A stop waits for a step that is shorter. */
static const double short_step = 2.0; /* seconds */

typedef struct Train {
    const char *folder;
    const AqRunOptions *options;
    const AqSession *session;
    AqError *error;
    AqModelFile model;
    AqDataset *set;
    AqGraph *graph;
    const AqOptions *seen;
    const AqParamTable *params;
    AqPool *pool;
    AqMemory *memory;
    AqCompiled *program;
    AqLoader *loader;
    AqMetrics *metrics;
    AqProgress progress;
    AqCheckpoint state;
    AqTask task;
    AqTarget target;
    int64_t first_step; /* of this stretch */
    int skips;          /* in a row */
    double began, step_seconds;
    /* since the last row of metrics */
    double interval_began, loss_sum;
    int64_t interval_steps, interval_losses;
} Train;

static AqTask task_of(const Train *t, int batch)
{
    const AqRunOptions *o = t->options;
    return (AqTask){.model = t->model.info,
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

static AqProgramSettings settings_of(const Train *t)
{
    return (AqProgramSettings){.target = t->target,
                               .compile = t->session->compile,
                               .passes = t->session->passes,
                               .memory_limit = t->session->memory_limit};
}

/* ---- setting up ---- */

static void warn(void *context, const char *sentence)
{
    (void)context;
    fprintf(stderr, "aquatint: warning: %s\n", sentence);
}

static AqStatus open_data(Train *t)
{
    AqDatasetOptions options = {.height = t->options->height,
                                .width = t->options->width,
                                .channels = t->options->channels,
                                .threads = t->session->threads,
                                .warn = warn};
    t->set = aq_dataset_open(t->options->data, &options, t->error);
    if (!t->set)
        return t->error->status;
    if (t->options->classes > 0 &&
        aq_dataset_classes(t->set) != t->options->classes)
        return aq_fail(t->error, AQ_BAD_INPUT,
                       "%s: has %d classes, the run was made for %d",
                       t->options->data, aq_dataset_classes(t->set),
                       t->options->classes);
    fprintf(stderr, "data    %s\n", aq_dataset_describe(t->set));
    return AQ_OK;
}

static AqStatus open_model(Train *t)
{
    char path[AQ_PATH_SIZE];
    aq_path(path, "%s/model.c", t->folder);
    const char *name = t->session->resume ? path : t->options->model;
    if (aq_model_open(name, t->folder, &t->model, t->error))
        return t->error->status;
    t->task = task_of(t, t->options->batch);
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

static double mebibytes(int64_t bytes)
{
    return (double)bytes / (1 << 20);
}

/* What is held until the end, exactly, before the first step. */
static void print_memory(const Train *t)
{
    int64_t flat = t->params->floats * 4, all = aq_memory_bytes(t->memory);
    const AqPlan *plan = aq_compiled_plan(t->program);
    int64_t scratch = aq_compiled_scratch(t->program);
    int64_t data =
        (int64_t)aq_dataset_bytes(t->set) + aq_loader_bytes(t->loader);
    fprintf(stderr,
            "memory  %.0f MiB: parameters %.1f, optimizer and average %.1f, "
            "activations and gradients %.1f, scratch %.1f, data %.1f\n",
            mebibytes(all + plan->arena_bytes + scratch + data),
            mebibytes(flat), mebibytes(all - flat),
            mebibytes(plan->arena_bytes), mebibytes(scratch), mebibytes(data));
}

static void print_code(const Train *t)
{
    const AqCodeStatistics *code = aq_compiled_code(t->program);
    fprintf(stderr,
            "code    %d kernels, %d pieces of code (%d from the cache), "
            "%.2f s, for %s\n",
            code->kernels, code->units, code->from_cache, code->seconds,
            t->target.cpu);
}

static AqStatus start_weights(Train *t)
{
    uint32_t key[2] = {(uint32_t)t->options->seed,
                       (uint32_t)(t->options->seed >> 32)};
    float *weights = aq_memory_find(t->memory, "weights", NULL);
    float *ema = aq_memory_find(t->memory, "ema", NULL);
    int32_t *key_input = aq_memory_find(t->memory, "key", NULL);
    aq_params_start(t->params, key, weights);
    if (ema)
        memcpy(ema, weights, (size_t)t->params->floats * sizeof *ema);
    if (key_input)
        memcpy(key_input, key, sizeof key);
    t->state.loss = NAN;
    return AQ_OK;
}

static AqStatus read_checkpoint(Train *t)
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

static AqStatus compile_program(Train *t)
{
    if (aq_target_host(t->session->level, &t->target, t->error))
        return t->error->status;
    AqPoolOptions pool = {.threads = t->session->threads};
    t->pool = aq_pool_new(&pool, t->error);
    t->memory = t->pool ? aq_memory_new(t->error) : NULL;
    if (!t->memory)
        return t->error->status;
    AqProgramSettings settings = settings_of(t);
    t->program =
        aq_compiled_new(t->graph, t->memory, t->pool, &settings, t->error);
    return t->error->status;
}

static AqStatus start_loader(Train *t)
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
static AqStatus write_run(Train *t)
{
    char path[AQ_PATH_SIZE];
    aq_path(path, "%s/model.c", t->folder);
    if (!t->model.source)
        return aq_fail(t->error, AQ_IO,
                       "%s: the source of this model was not found, and a run "
                       "keeps it; give its file instead",
                       t->options->model);
    if (aq_file_write(path, t->model.source, t->model.source_bytes, t->error))
        return t->error->status;
    return aq_run_write(t->folder, t->options, t->set, t->seen, &t->target,
                        t->error);
}

static AqStatus set_up(Train *t)
{
    char path[AQ_PATH_SIZE];
    aq_path(path, "%s/checkpoints", t->folder);
    if (aq_make_folders(path, t->error))
        return t->error->status;
    aq_path(path, "%s/samples", t->folder);
    if (aq_make_folders(path, t->error) || open_model(t) || open_data(t) ||
        compile_program(t) || start_weights(t))
        return t->error->status;
    if (t->session->resume ? read_checkpoint(t) : write_run(t))
        return t->error->status;
    if (start_loader(t))
        return t->error->status;
    t->metrics = aq_metrics_open(t->folder, t->state.step, t->error);
    if (!t->metrics)
        return t->error->status;
    print_code(t);
    print_memory(t);
    return AQ_OK;
}

/* A run that could not begin leaves no folders that it made. */
static void remove_empty(const Train *t)
{
    static const char *const below[] = {"/checkpoints", "/samples", ""};
    char path[AQ_PATH_SIZE];
    for (int i = 0; i < AQ_COUNT(below); i++) {
        aq_path(path, "%s%s", t->folder, below[i]);
        rmdir(path);
    }
}

static void tear_down(Train *t)
{
    aq_metrics_close(t->metrics);
    aq_loader_free(t->loader);
    aq_compiled_free(t->program);
    aq_memory_free(t->memory);
    aq_pool_free(t->pool);
    aq_graph_free(t->graph);
    aq_dataset_free(t->set);
    aq_model_close(&t->model);
}

/* ---- samples ---- */

static AqStatus draw_samples(Train *t, AqGenerator *generator, float *pixels)
{
    const AqRunOptions *o = t->options;
    AqSampleOptions options = {.count = o->sample_count,
                               .steps = o->sample_steps,
                               .seed = o->seed,
                               .label = -1};
    if (aq_generate(generator, &options, pixels, t->session->stop, t->error))
        return t->error->status;
    AqSamples samples = {pixels, o->sample_count, o->height, o->width,
                         o->channels};
    char path[AQ_PATH_SIZE];
    aq_path(path, "%s/samples/%06lld.png", t->folder, (long long)t->state.step);
    if (aq_grid_write(path, &samples, 0, t->error))
        return t->error->status;
    aq_path(path, "%s/samples/%06lld-nearest.png", t->folder,
            (long long)t->state.step);
    return aq_pairs_write(path, &samples, t->set, t->error);
}

/* The programs exist only while they are used: their memory is not the
 * training's. */
static AqStatus write_samples(Train *t)
{
    const AqRunOptions *o = t->options;
    if (o->sample_count <= 0 || o->height <= 0)
        return AQ_OK;
    AqTask task = task_of(t, AQ_MIN(o->sample_count, 16));
    AqSampler sampler = {.kind = AQ_SAMPLER_DDIM, .clip = true};
    AqProgramSettings settings = settings_of(t);
    AqGenerator *generator = aq_generator_new(
        &task, &sampler, t->memory, t->pool, false, &settings, t->error);
    size_t floats = (size_t)o->sample_count * (size_t)o->height *
                    (size_t)o->width * (size_t)o->channels;
    float *pixels = generator ? malloc(floats * sizeof *pixels) : NULL;
    if (pixels)
        draw_samples(t, generator, pixels);
    else
        aq_no_memory(t->error, floats * sizeof *pixels);
    free(pixels);
    aq_generator_free(generator);
    if (t->error->status == AQ_INTERRUPTED) /* the checkpoint still counts */
        *t->error = (AqError){0};
    return t->error->status;
}

static AqStatus write_checkpoint(Train *t)
{
    char folder[AQ_PATH_SIZE];
    aq_path(folder, "%s/checkpoints", t->folder);
    if (aq_checkpoint_write(folder, &t->state, t->params, t->memory, t->error))
        return t->error->status;
    aq_checkpoint_prune(folder, KEEP_CHECKPOINTS);
    return AQ_OK;
}

/* ---- the step ---- */

static void give_batch(Train *t, const AqBatch *batch)
{
    size_t n = (size_t)t->options->batch;
    int64_t bytes = 0;
    float *x = aq_memory_find(t->memory, "x", &bytes);
    int32_t *sample = aq_memory_find(t->memory, "sample", NULL);
    int32_t *label = aq_memory_find(t->memory, "label", NULL);
    if (x)
        memcpy(x, batch->x, (size_t)bytes);
    if (sample)
        memcpy(sample, batch->sample, n * sizeof *sample);
    if (label)
        memcpy(label, batch->label, n * sizeof *label);
}

static double output(const Train *t, const char *name)
{
    const float *value = aq_compiled_output(t->program, name);
    return value ? *value : NAN;
}

static bool asked_to_stop(const Train *t)
{
    return t->session->stop &&
           __atomic_load_n(t->session->stop, __ATOMIC_RELAXED);
}

/* Skips are counted by the program itself: it leaves everything as it was. */
static AqStatus count_skip(Train *t, double loss)
{
    const int32_t *skipped = aq_compiled_output(t->program, "skipped");
    if (!skipped || !*skipped) {
        t->skips = 0;
        t->state.updates++;
        return AQ_OK;
    }
    t->skips++;
    aq_progress_end(&t->progress);
    fprintf(stderr,
            "aquatint: warning: step %lld was skipped: the %s is not finite\n",
            (long long)t->state.step,
            isfinite(loss) ? "norm of the gradient" : "loss");
    if (t->skips < MOST_SKIPS)
        return AQ_OK;
    return aq_fail(t->error, AQ_BAD_INPUT,
                   "%d steps in a row were not finite; the weights are those "
                   "of step %lld: try a lower learning rate",
                   MOST_SKIPS, (long long)(t->state.step - MOST_SKIPS));
}

static AqStatus write_row(Train *t, double now)
{
    double seconds = now - t->interval_began;
    AqMetricsRow row = {.step = t->state.step,
                        .seconds = t->state.seconds + now - t->began,
                        .loss = t->loss_sum / (double)t->interval_losses,
                        .gradient_norm = output(t, "gradient_norm"),
                        .learning_rate = output(t, "learning_rate"),
                        .images_per_second = (double)t->interval_steps *
                                             t->options->batch / seconds};
    t->interval_began = now;
    t->loss_sum = 0;
    t->interval_steps = t->interval_losses = 0;
    return aq_metrics_add(t->metrics, &row, t->error);
}

static double seconds_left(const Train *t, double now)
{
    double left = t->session->seconds > 0
                      ? t->session->seconds - (now - t->began)
                      : INFINITY;
    if (t->options->steps > 0)
        left = fmin(left, (double)(t->options->steps - t->state.step) *
                              t->step_seconds);
    return left;
}

static void show_progress(Train *t, double now, bool last)
{
    char left[32] = "";
    double seconds = seconds_left(t, now);
    if (isfinite(seconds))
        aq_duration(left, sizeof left, fmax(seconds, 0));
    aq_progress_show(
        &t->progress, last, "step %lld%s%.0lld  loss %.4f  %.1f images/s%s%s",
        (long long)t->state.step, t->options->steps ? "/" : "",
        (long long)t->options->steps, t->state.loss,
        t->options->batch / t->step_seconds, *left ? "  left " : "", left);
}

static void account(Train *t, double loss, double began, double now)
{
    double weight = t->step_seconds > 0 ? 0.05 : 1;
    t->step_seconds += weight * (now - began - t->step_seconds);
    t->interval_steps++;
    if (!isfinite(loss))
        return;
    t->loss_sum += loss;
    t->interval_losses++;
    double share = isfinite(t->state.loss) ? 0.02 : 1;
    t->state.loss = isfinite(t->state.loss)
                        ? t->state.loss + share * (loss - t->state.loss)
                        : loss;
}

/* One step; false when it was abandoned, or failed. */
static bool take_step(Train *t)
{
    double began = aq_seconds();
    const AqBatch *batch = aq_loader_next(t->loader, t->error);
    if (!batch)
        return false;
    give_batch(t, batch);
    bool wait = t->step_seconds > 0 && t->step_seconds < short_step;
    if (!aq_compiled_run(t->program, wait ? NULL : t->session->stop))
        return false;
    t->state.step++;
    double loss = output(t, "loss"), now = aq_seconds();
    account(t, loss, began, now);
    if (count_skip(t, loss))
        return false;
    if (t->state.step % t->options->log_every == 0 && write_row(t, now))
        return false;
    show_progress(t, now, false);
    return true;
}

static bool due(const Train *t, int64_t every)
{
    return every > 0 && t->state.step % every == 0;
}

static bool finished(const Train *t)
{
    if (t->options->steps > 0 && t->state.step >= t->options->steps)
        return true;
    return t->session->seconds > 0 &&
           aq_seconds() - t->began >= t->session->seconds;
}

/* What a run shows on the way; its time does not count as the steps'. */
static AqStatus intermediate(Train *t)
{
    double now = aq_seconds();
    if (due(t, t->options->save_every)) {
        AqCheckpoint kept = t->state;
        t->state.seconds += now - t->began;
        write_checkpoint(t);
        t->state = kept;
    }
    if (!t->error->status && due(t, t->options->sample_every)) {
        aq_metrics_plot(t->metrics, t->error);
        write_samples(t);
    }
    t->interval_began += aq_seconds() - now;
    return t->error->status;
}

static AqStatus run_steps(Train *t)
{
    t->began = t->interval_began = aq_seconds();
    t->first_step = t->state.step;
    aq_progress_begin(&t->progress);
    while (!finished(t) && !asked_to_stop(t) && take_step(t))
        if (!finished(t) && intermediate(t))
            break;
    if (t->state.step > t->first_step && isfinite(t->state.loss))
        show_progress(t, aq_seconds(), true);
    aq_progress_end(&t->progress);
    t->state.seconds += aq_seconds() - t->began;
    return t->error->status;
}

static AqStatus finish(Train *t)
{
    if (write_checkpoint(t) || aq_metrics_plot(t->metrics, t->error))
        return t->error->status;
    if (asked_to_stop(t)) {
        fprintf(stderr,
                "stopped after step %lld; go on with: aquatint train --resume "
                "%s\n",
                (long long)t->state.step, t->folder);
        return aq_fail(t->error, AQ_INTERRUPTED, "stopped");
    }
    if (write_samples(t))
        return t->error->status;
    char time[32];
    fprintf(stderr, "done    %lld steps in %s, in %s\n",
            (long long)t->state.step,
            aq_duration(time, sizeof time, t->state.seconds), t->folder);
    return AQ_OK;
}

AqStatus aq_train(const char *folder, const AqRunOptions *options,
                  const AqSession *session, AqError *error)
{
    Train t = {.folder = folder,
               .options = options,
               .session = session,
               .error = error};
    if (set_up(&t) != AQ_OK)
        remove_empty(&t);
    else if (run_steps(&t) == AQ_OK)
        finish(&t);
    tear_down(&t);
    return error->status;
}
