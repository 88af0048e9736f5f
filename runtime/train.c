/* The training loop.
 *
 * Sets up (train_setup.c), then runs the compiled step until the steps or the
 * time are over or somebody asks to stop, and leaves a checkpoint behind in
 * every case but an error. */
#include "runtime/train.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { KEEP_CHECKPOINTS = 2, MOST_SKIPS = 10 };

/* A stop waits for a step that is shorter. */
static const double short_step = 2.0; /* seconds */

static AqStatus write_checkpoint(AqTrain *t)
{
    char folder[AQ_PATH_SIZE];
    aq_path(folder, "%s/checkpoints", t->folder);
    if (aq_checkpoint_write(folder, &t->state, t->params, t->memory, t->error))
        return t->error->status;
    aq_checkpoint_prune(folder, KEEP_CHECKPOINTS);
    return AQ_OK;
}

/* ---- the step ---- */

static void give_batch(AqTrain *t, const AqBatch *batch)
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

static double output(const AqTrain *t, const char *name)
{
    const float *value = aq_compiled_output(t->program, name);
    return value ? *value : NAN;
}

static bool asked_to_stop(const AqTrain *t)
{
    return t->session->stop &&
           __atomic_load_n(t->session->stop, __ATOMIC_RELAXED);
}

/* Skips are counted by the program itself: it leaves everything as it was. */
static AqStatus count_skip(AqTrain *t, double loss)
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
                   "%d steps in a row were not finite: training ends at step "
                   "%lld without a checkpoint of it; try a lower learning rate",
                   MOST_SKIPS, (long long)t->state.step);
}

static AqStatus write_row(AqTrain *t, double now)
{
    double seconds = now - t->interval_began;
    AqMetricsRow row = {.step = t->state.step,
                        .seconds = t->state.seconds + now - t->began,
                        .loss = t->interval_losses
                                    ? t->loss_sum / (double)t->interval_losses
                                    : NAN,
                        .gradient_norm = t->gradient_norm,
                        .learning_rate = t->learning_rate,
                        .images_per_second = (double)t->interval_steps *
                                             t->options->batch / seconds};
    t->interval_began = now;
    t->loss_sum = 0;
    t->interval_steps = t->interval_losses = 0;
    return aq_metrics_add(t->metrics, &row, t->error);
}

static double seconds_left(const AqTrain *t, double now)
{
    double left = t->session->seconds > 0
                      ? t->session->seconds - (now - t->began)
                      : INFINITY;
    if (t->options->steps > 0)
        left = fmin(left, (double)(t->options->steps - t->state.step) *
                              t->step_seconds);
    return left;
}

static void show_progress(AqTrain *t, double now, bool last)
{
    char left[32] = "";
    double seconds = seconds_left(t, now);
    if (isfinite(seconds))
        aq_duration(left, sizeof left, fmax(seconds, 0));
    aq_progress_show(&t->progress, last,
                     "step %lld%s%.0lld  loss %.4f  %.1f %s/s%s%s",
                     (long long)t->state.step, t->options->steps ? "/" : "",
                     (long long)t->options->steps, t->state.loss,
                     t->options->batch / t->step_seconds,
                     t->options->height == 0 ? "points" : "images",
                     *left ? "  left " : "", left);
}

static void account(AqTrain *t, double loss, double began, double now)
{
    double weight = t->step_seconds > 0 ? 0.05 : 1;
    t->step_seconds += weight * (now - began - t->step_seconds);
    t->interval_steps++;
    if (!isfinite(loss))
        return;
    t->loss_sum += loss;
    t->interval_losses++;
    t->state.loss = isfinite(t->state.loss)
                        ? t->state.loss + 0.02 * (loss - t->state.loss)
                        : loss;
}

/* One step; false when it was abandoned, or failed. */
static bool take_step(AqTrain *t)
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
    t->gradient_norm = output(t, "gradient_norm");
    t->learning_rate = output(t, "learning_rate");
    account(t, loss, began, now);
    if (count_skip(t, loss))
        return false;
    if (t->state.step % t->options->log_every == 0 && write_row(t, now))
        return false;
    show_progress(t, now, false);
    return true;
}

static bool due(const AqTrain *t, int64_t every)
{
    return every > 0 && t->state.step % every == 0;
}

static bool finished(const AqTrain *t)
{
    if (t->options->steps > 0 && t->state.step >= t->options->steps)
        return true;
    return t->session->seconds > 0 &&
           aq_seconds() - t->began >= t->session->seconds;
}

/* What a run shows on the way; its time does not count as the steps'. */
static AqStatus intermediate(AqTrain *t)
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
        aq_train_samples(t);
    }
    t->interval_began += aq_seconds() - now;
    return t->error->status;
}

static AqStatus run_steps(AqTrain *t)
{
    if (t->options->steps == 0 && t->session->seconds <= 0)
        fprintf(stderr, "until   Ctrl-C, which leaves a checkpoint\n");
    t->began = t->interval_began = aq_seconds();
    t->first_step = t->state.step;
    aq_progress_begin(&t->progress);
    while (!finished(t) && !asked_to_stop(t) && take_step(t))
        if (!finished(t) && intermediate(t))
            break;
    double now = aq_seconds();
    if (t->state.step > t->first_step && isfinite(t->state.loss))
        show_progress(t, now, true);
    aq_progress_end(&t->progress);
    if (!t->error->status && t->interval_steps > 0)
        write_row(t, now); /* the last, shorter interval */
    t->state.seconds += now - t->began;
    return t->error->status;
}

static AqStatus stopped(AqTrain *t)
{
    fprintf(stderr,
            "stopped after step %lld; go on with: aquatint train --resume %s\n",
            (long long)t->state.step, t->folder);
    return aq_fail(t->error, AQ_INTERRUPTED, "stopped");
}

static AqStatus finish(AqTrain *t)
{
    if (write_checkpoint(t) || aq_metrics_plot(t->metrics, t->error))
        return t->error->status;
    if (asked_to_stop(t))
        return stopped(t);
    if (aq_train_samples(t))
        return t->error->status;
    if (asked_to_stop(t))
        return stopped(t);
    char time[32];
    fprintf(stderr, "done    %lld steps in %s, in %s\n",
            (long long)t->state.step,
            aq_duration(time, sizeof time, t->state.seconds), t->folder);
    return AQ_OK;
}

AqStatus aq_train(const char *folder, const AqRunOptions *options,
                  const AqSession *session, AqError *error)
{
    AqTrain t = {.folder = folder,
                 .options = options,
                 .session = session,
                 .error = error};
    if (aq_train_open(&t) == AQ_OK && run_steps(&t) == AQ_OK)
        finish(&t);
    aq_train_close(&t);
    return error->status;
}
