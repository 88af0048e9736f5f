/* Samples of a run on its way: what they are drawn with exists only while they
 * are, beside the training, and is part of the run's budget. */
#include "runtime/train.h"

#include <stdlib.h>

enum { PICTURES_AT_A_TIME = 16, POINTS_AT_A_TIME = 512 };

AqSampler aq_run_sampler(const AqRunOptions *options)
{
    return (AqSampler){
        .kind = AQ_SAMPLER_DDIM, .steps = options->sample_steps, .clip = true};
}

int aq_run_samples_at_a_time(const AqRunOptions *options)
{
    int most = options->height == 0 ? POINTS_AT_A_TIME : PICTURES_AT_A_TIME;
    return AQ_MIN(options->sample_count, most);
}

static bool is_points(const AqTrain *t)
{
    return t->options->height == 0;
}

static AqStatus show_pictures(AqTrain *t, const AqSamples *samples)
{
    long long step = t->state.step;
    char path[AQ_PATH_SIZE];
    aq_path(path, "%s/samples/%06lld.png", t->folder, step);
    if (aq_grid_write(path, samples, 0, t->error))
        return t->error->status;
    aq_path(path, "%s/samples/%06lld-nearest.png", t->folder, step);
    return aq_pairs_write(path, samples, t->set, t->error);
}

static AqStatus show_points(AqTrain *t, const AqSamples *samples)
{
    long long step = t->state.step;
    char path[AQ_PATH_SIZE], title[256];
    snprintf(title, sizeof title, "%.200s, step %lld", t->options->data, step);
    AqPointSheet sheet = {.samples = *samples,
                          .columns = aq_dataset_columns(t->set),
                          .classes = t->options->classes,
                          .label = -1,
                          .set = t->set,
                          .title = title};
    aq_path(path, "%s/samples/%06lld.csv", t->folder, step);
    if (aq_points_csv(path, &sheet, t->error))
        return t->error->status;
    aq_path(path, "%s/samples/%06lld.svg", t->folder, step);
    return aq_points_svg(path, &sheet, t->error);
}

static AqStatus draw_samples(AqTrain *t, AqGenerator *generator, float *x)
{
    const AqRunOptions *o = t->options;
    AqSampleOptions options = {
        .count = o->sample_count, .seed = o->seed, .label = -1};
    if (aq_generate(generator, &options, x, t->session->stop, t->error))
        return t->error->status;
    AqSamples samples = {x, o->sample_count, o->height, o->width, o->channels};
    return is_points(t) ? show_points(t, &samples) : show_pictures(t, &samples);
}

static int64_t pixel_bytes(const AqTrain *t)
{
    return t->options->sample_count * (int64_t)aq_dataset_floats(t->set) * 4;
}

/* What the training leaves of the budget; may be less than nothing. */
static int64_t bytes_beside(const AqTrain *t)
{
    return t->program_limit - aq_memory_bytes(t->memory) -
           aq_compiled_bytes(t->program) - pixel_bytes(t);
}

/* Steps wait while samples are drawn: their arena and scratch serve. */
static AqProgramSettings settings_beside(const AqTrain *t)
{
    AqProgramSettings settings = aq_train_settings(t);
    settings.frugal = true;
    settings.room = t->program;
    if (settings.memory_limit > 0)
        settings.memory_limit = AQ_MAX(bytes_beside(t), (int64_t)1);
    return settings;
}

static AqGenerator *new_generator(AqTrain *t, int count, bool planned,
                                  AqError *error)
{
    AqTask task = aq_run_task(t->options, t->model.info, count);
    AqSampler sampler = aq_run_sampler(t->options);
    AqProgramSettings settings = settings_beside(t);
    settings.plan_only = planned;
    if (planned) { /* what is asked of the passes is shown by the program */
        settings.passes.verify = false;
        settings.passes.after = NULL;
    }
    return aq_generator_new(&task, &sampler, t->memory, t->pool, false,
                            &settings, error);
}

int64_t aq_train_samples_lack(AqTrain *t)
{
    if (t->options->sample_count <= 0 || t->program_limit == 0)
        return 0;
    AqError error = {0};
    AqGenerator *generator = new_generator(t, 1, true, &error);
    int64_t bytes = generator ? aq_generator_bytes(generator) : 0;
    aq_generator_free(generator);
    return AQ_MAX(bytes - bytes_beside(t), (int64_t)0);
}

/* As many as a budget has room for; each is a function of its number alone. */
static int at_a_time(AqTrain *t)
{
    int count = aq_run_samples_at_a_time(t->options);
    int64_t limit = settings_beside(t).memory_limit;
    for (; limit > 0 && count > 1; count /= 2) {
        AqError error = {0};
        AqGenerator *generator = new_generator(t, count, true, &error);
        bool fits = generator && aq_generator_bytes(generator) <= limit;
        aq_generator_free(generator);
        if (fits)
            break;
    }
    return count;
}

/* Where there is no budget, a plan says it without compiling anything. */
AqStatus aq_train_check_samples(AqTrain *t)
{
    if (t->options->sample_count <= 0)
        return AQ_OK;
    AqError error = {0};
    bool planned = t->program_limit == 0;
    AqGenerator *generator = new_generator(t, at_a_time(t), planned, &error);
    if (generator)
        t->sample_bytes = aq_generator_bytes(generator) + pixel_bytes(t);
    aq_generator_free(generator);
    if (generator)
        return AQ_OK;
    return aq_fail(t->error, error.status, "%s%s",
                   planned ? ""
                           : "the training fits, but not the samples beside it "
                             "(--samples 0: none): ",
                   error.text);
}

AqStatus aq_train_samples(AqTrain *t)
{
    if (t->options->sample_count <= 0)
        return AQ_OK;
    AqGenerator *generator = new_generator(t, at_a_time(t), false, t->error);
    float *x = generator ? malloc((size_t)pixel_bytes(t)) : NULL;
    if (x)
        draw_samples(t, generator, x);
    else
        aq_no_memory(t->error, (size_t)pixel_bytes(t));
    free(x);
    aq_generator_free(generator);
    aq_compiled_changed(t->program);        /* whose arena was used meanwhile */
    if (t->error->status == AQ_INTERRUPTED) /* the checkpoint still counts */
        *t->error = (AqError){0};
    return t->error->status;
}
