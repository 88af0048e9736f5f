/* aquatint sample */
#include "frontend/cli/cli.h"

#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static const AqCliOption options[] = {
    {"count", "N", "pictures or points (default 64, 1024 points)"},
    {"out", "FILE",
     "a .png with all pictures (default samples.png); points: a table, .csv, "
     "or a picture, .svg (default samples.svg)"},
    {"seed", "N", "other ones (default 0)"},
    {"steps", "N", "steps of the sampler (default 50; ddpm: all)"},
    {"sampler", "NAME", "ddim or ddpm (default ddim)"},
    {"eta", "E", "noise in DDIM, 0 to 1 (default 0)"},
    {"label", "N", "this class only (default: all in turn)"},
    {"guidance", "S", "classifier-free guidance (default: none)"},
    {"raw", NULL, "the weights themselves, not their average"},
    {"batch", "N", "pictures or points at a time (default 16, 512 points)"},
    {"nearest", "FILE", "a PNG of each beside its nearest training picture"},
    {"data", "WHAT", "where the training data are now, if they were moved"},
    AQ_CLI_COMPILE_OPTIONS,
    AQ_CLI_CACHE_OPTION,
};

/* Everything that is opened, in one place to close it. */
typedef struct Sampling {
    AqCli *cli;
    AqArena *arena;
    AqRunOptions run;
    AqSession session;
    AqSampleOptions options;
    bool points;
    const char *out;
    AqModelFile model;
    AqTask task;
    AqGraph *graph; /* forward: for the table of parameters */
    AqMemory *memory;
    AqPool *pool;
    AqGenerator *generator;
    AqProgramSettings settings;
    AqCheckpoint state;
    float *x;
} Sampling;

/* Whether a file can be made there. */
static AqStatus check_place(AqCli *cli, const char *path)
{
    char folder[AQ_PATH_SIZE];
    aq_path(folder, "%s", path);
    char *slash = strrchr(folder, '/');
    if (slash)
        slash[slash == folder] = 0; /* "/file" lies in "/" */
    const char *parent = slash ? folder : ".";
    struct stat st;
    bool is_folder = stat(path, &st) == 0 && S_ISDIR(st.st_mode);
    if (!is_folder && access(parent, W_OK | X_OK) == 0)
        return AQ_OK;
    return aq_fail(&cli->error, AQ_IO, "%s: cannot write: %s", path,
                   strerror(is_folder ? EISDIR : errno));
}

/* Before any work: no work is lost on a name. */
static AqStatus check_files(Sampling *s)
{
    AqCli *cli = s->cli;
    const char *nearest = aq_cli_text(cli, "nearest", NULL);
    s->out = aq_cli_text(cli, "out", s->points ? "samples.svg" : "samples.png");
    if (s->points && nearest)
        return aq_fail(&cli->error, AQ_BAD_INPUT,
                       "--nearest is for pictures, and %s are points: leave it "
                       "out",
                       s->run.data);
    if (s->points && !aq_cli_ends(s->out, ".csv") &&
        !aq_cli_ends(s->out, ".svg"))
        return aq_fail(&cli->error, AQ_BAD_INPUT,
                       "--out %s: points are written as .csv, a table, or "
                       ".svg, a picture",
                       s->out);
    if (!s->points && !aq_cli_ends(s->out, ".png"))
        return aq_fail(&cli->error, AQ_BAD_INPUT,
                       "--out %s: pictures are written as .png", s->out);
    if (nearest && !aq_cli_ends(nearest, ".png"))
        return aq_fail(&cli->error, AQ_BAD_INPUT,
                       "--nearest %s: pictures are written as .png", nearest);
    if (check_place(cli, s->out))
        return cli->error.status;
    return nearest ? check_place(cli, nearest) : AQ_OK;
}

static AqStatus read_options(Sampling *s)
{
    static const char *const samplers[] = {
        [AQ_SAMPLER_DDIM] = "ddim", [AQ_SAMPLER_DDPM] = "ddpm"};
    AqCli *cli = s->cli;
    if (cli->n_words != 1)
        return aq_fail(&cli->error, AQ_BAD_INPUT,
                       "give the folder of one run (aquatint sample --help)");
    if (aq_run_read(cli->words[0], s->arena, &s->run, &cli->error) ||
        aq_cli_moved_data(cli, &s->run))
        return cli->error.status;
    s->points = s->run.columns != NULL;
    if (check_files(s))
        return cli->error.status;
    AqSamplerKind kind = (AqSamplerKind)aq_cli_choice(
        cli, "sampler", AQ_SAMPLER_DDIM, samplers, AQ_COUNT(samplers));
    int total = aq_process_steps(&s->run.process);
    s->options = (AqSampleOptions){
        .count =
            (int)aq_cli_int(cli, "count", s->points ? 1024 : 64, 1, 1 << 16),
        .seed = (uint64_t)aq_cli_int(cli, "seed", 0, 0, INT64_MAX),
        .label = (int)aq_cli_int(cli, "label", -1, 0, 1 << 20),
        .raw = aq_cli_given(cli, "raw"),
        .sampler = {.kind = kind,
                    .steps = (int)aq_cli_int(
                        cli, "steps",
                        kind == AQ_SAMPLER_DDPM ? total : AQ_MIN(50, total), 1,
                        total),
                    .clip = true,
                    .eta = aq_cli_real(cli, "eta", 0, 0, 1),
                    .guidance = aq_cli_real(cli, "guidance", 0, 0, 1000)}};
    s->options.batch =
        (int)aq_cli_int(cli, "batch", s->points ? 512 : 16, 1, 4096);
    if (aq_cli_given(cli, "eta") && kind != AQ_SAMPLER_DDIM)
        aq_fail(&cli->error, AQ_BAD_INPUT,
                "--eta is for ddim, and the sampler is %s: leave it out",
                samplers[kind]);
    if (aq_cli_given(cli, "guidance") && s->run.label_dropout <= 0)
        aq_fail(&cli->error, AQ_BAD_INPUT,
                "--guidance: the run was not trained with --labels and "
                "--label-dropout");
    return cli->error.status;
}

static AqStatus open_model(Sampling *s)
{
    char path[AQ_PATH_SIZE];
    AqError *error = &s->cli->error;
    aq_path(path, "%s/model.c", s->cli->words[0]);
    if (aq_model_open(path, NULL, &s->model, error))
        return error->status;
    s->task = aq_run_task(&s->run, s->model.info,
                          AQ_MIN(s->options.batch, s->options.count));
    s->graph = aq_forward_graph(&s->task, NULL, error);
    return error->status;
}

/* The checkpoint's average, or the weights where that is wanted. */
static AqStatus read_weights(Sampling *s)
{
    AqError *error = &s->cli->error;
    const AqParamTable *params = aq_params(s->graph);
    bool average = s->run.optimizer.ema > 0 && !s->options.raw;
    s->memory = aq_memory_new(error);
    if (!params || !s->memory)
        return aq_no_memory(error, sizeof *params);
    if (!aq_memory_array(s->memory, average ? "ema" : "weights",
                         params->floats * 4, error))
        return error->status;
    char folder[AQ_PATH_SIZE];
    aq_path(folder, "%s/checkpoints", s->cli->words[0]);
    char *path = aq_checkpoint_latest(folder, s->arena, error);
    if (!path)
        return aq_fail(error, AQ_BAD_INPUT, "%s: has no checkpoint yet",
                       s->cli->words[0]);
    return aq_checkpoint_read(path, &s->state, params, s->memory, error);
}

static AqStatus generate(Sampling *s)
{
    AqError *error = &s->cli->error;
    AqPoolOptions pool = {.threads = s->session.threads};
    s->settings = (AqProgramSettings){.compile = s->session.compile,
                                      .passes = s->session.passes,
                                      .memory_limit = s->session.memory_limit};
    if (aq_target_host(s->session.level, &s->settings.target, error))
        return error->status;
    s->pool = aq_pool_new(&pool, error);
    if (!s->pool)
        return error->status;
    s->generator =
        aq_generator_new(&s->task, &s->options.sampler, s->memory, s->pool,
                         s->options.raw, &s->settings, error);
    size_t floats = (size_t)s->options.count * (size_t)s->run.channels;
    if (!s->points)
        floats *= (size_t)s->run.height * (size_t)s->run.width;
    s->x = malloc(floats * sizeof *s->x);
    if (!s->generator)
        return error->status;
    if (!s->x)
        return aq_no_memory(error, floats * sizeof *s->x);
    return aq_generate(s->generator, &s->options, s->x, s->session.stop, error);
}

static AqStatus write_nearest(Sampling *s, const AqSamples *samples,
                              const char *path)
{
    AqError *error = &s->cli->error;
    AqDatasetOptions o = {.height = s->run.height,
                          .width = s->run.width,
                          .channels = s->run.channels};
    const char *spec;
    if (aq_run_find_data(&s->run, &spec, error))
        return error->status;
    AqDataset *set = aq_dataset_open(spec, &o, error);
    if (set)
        aq_pairs_write(path, samples, set, error);
    aq_dataset_free(set);
    return error->status;
}

static AqStatus write_pictures(Sampling *s, const AqSamples *samples)
{
    const char *nearest = aq_cli_text(s->cli, "nearest", NULL);
    if (aq_grid_write(s->out, samples, 0, &s->cli->error))
        return s->cli->error.status;
    return nearest ? write_nearest(s, samples, nearest) : AQ_OK;
}

/* The data as it was when the run began; without it there is a picture too. */
static AqDataset *training_points(const Sampling *s)
{
    AqError error = {0};
    AqDatasetOptions o = {.channels = s->run.channels};
    const char *spec;
    AqDataset *set = NULL;
    if (!aq_run_find_data(&s->run, &spec, &error))
        set = aq_dataset_open(spec, &o, &error);
    char digits[33] = "";
    if (set)
        aq_run_fingerprint(set, digits);
    if (set && !strcmp(digits, s->run.fingerprint))
        return set;
    fprintf(stderr, "aquatint: warning: the training data are not drawn: %s\n",
            set ? "they are no longer those that the run was begun with"
                : error.text);
    aq_dataset_free(set);
    return NULL;
}

static AqStatus write_points(Sampling *s, const AqSamples *samples)
{
    char title[300];
    snprintf(title, sizeof title, "%.200s, step %lld, seed %llu", s->run.data,
             (long long)s->state.step, (unsigned long long)s->options.seed);
    AqPointSheet sheet = {.samples = *samples,
                          .columns = s->run.columns,
                          .classes = s->run.classes,
                          .label = s->options.label,
                          .title = title};
    if (aq_cli_ends(s->out, ".csv"))
        return aq_points_csv(s->out, &sheet, &s->cli->error);
    AqDataset *set = training_points(s);
    sheet.set = set;
    aq_points_svg(s->out, &sheet, &s->cli->error);
    aq_dataset_free(set);
    return s->cli->error.status;
}

static AqStatus write_samples(Sampling *s)
{
    AqSamples samples = {s->x, s->options.count, s->run.height, s->run.width,
                         s->run.channels};
    if (s->points ? write_points(s, &samples) : write_pictures(s, &samples))
        return s->cli->error.status;
    fprintf(stderr, "wrote %d %s to %s\n", s->options.count,
            s->points ? "points" : "pictures", s->out);
    return AQ_OK;
}

static int sample(AqCli *cli)
{
    Sampling s = {.cli = cli, .arena = aq_arena_new()};
    if (!s.arena)
        aq_no_memory(&cli->error, sizeof s);
    else if (!read_options(&s) && !aq_cli_session(cli, &s.session) &&
             !open_model(&s) && !read_weights(&s) && !generate(&s))
        write_samples(&s);
    free(s.x);
    aq_generator_free(s.generator);
    aq_pool_free(s.pool);
    aq_memory_free(s.memory);
    aq_graph_free(s.graph);
    aq_model_close(&s.model);
    aq_arena_free(s.arena);
    return aq_cli_fail(cli);
}

const AqCliCommand aq_cli_sample = {
    .name = "sample",
    .words = "RUN [options]",
    .summary = "make pictures, or points, with a trained model",
    .details = "Sample i of a seed is the same for any count, batch and "
               "number of threads.",
    .options = options,
    .n_options = AQ_COUNT(options),
    .run = sample,
};
