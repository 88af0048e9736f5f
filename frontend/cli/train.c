/* aquatint train */
#include "frontend/cli/cli.h"

#include <limits.h>
#include <string.h>

static const AqCliOption options[] = {
    {"data", "WHAT",
     "a folder of PNG and JPEG files; emoji, emoji:smileys, ...; or points: "
     "points:moons, points:spiral, points:circles, points:gaussians, "
     "points:checkerboard, points:FILE.csv; with --resume: where the data are "
     "now"},
    {"out", "DIR", "the run's folder"},
    {"resume", "DIR", "go on with a run where its last checkpoint is"},
    {"size", "N|HxW", "pictures are resized and cropped to it (default 32)"},
    {"channels", "1|3|4",
     "grey, RGB or RGBA (default: the model's in_channels, if it is set, else "
     "3)"},
    {"batch", "N", "pictures or points a step (default 16, 256 points)"},
    {"steps", "N",
     "stop after so many steps, all stretches together (default: with neither "
     "these nor a time, at Ctrl-C)"},
    {"minutes", "M", "stop this stretch after so long"},
    {"hours", "H", "the same in hours"},
    {"set", "NAME=VALUE",
     "an option of the model (aquatint info MODEL lists "
     "them)"},
    {"seed", "N", "of weights, data order and noise (default 0)"},
    {"no-flip", NULL, "never mirror a picture"},
    {"crop", "WHERE", "centre or random (default centre)"},
    {"labels", NULL, "train with the classes of the data"},
    {"label-dropout", "P",
     "how often the class is hidden, for guidance "
     "(default 0.1)"},
    AQ_CLI_PROCESS_OPTIONS,
    AQ_CLI_OPTIMIZER_OPTIONS,
    {"log-every", "N", "steps a row of metrics.csv (default 10)"},
    {"save-every", "N", "steps a checkpoint (default 500)"},
    {"sample-every", "N", "steps a sheet of samples (default: at the end)"},
    {"samples", "N", "pictures or points on a sheet (default 64, 1024 points)"},
    {"sample-steps", "N", "steps of the sampler (default 50)"},
    AQ_CLI_TUNE_OPTION,
    AQ_CLI_COMPILE_OPTIONS,
    AQ_CLI_CACHE_OPTION,
};

static double seconds_of(AqCli *cli)
{
    return 60 * aq_cli_real(cli, "minutes", 0, 1e-4, 1e6) +
           3600 * aq_cli_real(cli, "hours", 0, 1e-6, 1e5);
}

/* The classes are only known once the data is open. */
static int count_classes(AqCli *cli, const AqRunOptions *run)
{
    bool points = aq_dataset_is_points(run->data);
    AqDatasetOptions small = {
        .height = 1, .width = 1, .channels = points ? 0 : 1};
    AqDataset *set = aq_dataset_open(run->data, &small, &cli->error);
    int classes = set ? aq_dataset_classes(set) : 0;
    aq_dataset_free(set);
    if (classes == 0)
        aq_fail(&cli->error, AQ_BAD_INPUT, "--labels: %s has no classes%s",
                run->data, points ? "" : " (a class is a sub-folder)");
    return classes;
}

static AqStatus read_pictures(AqCli *cli, AqRunOptions *run)
{
    static const char *const crops[] = {"centre", "random"};
    aq_cli_size(cli, "size", 32, &run->height, &run->width);
    run->channels = aq_cli_channels(cli, 3, 4);
    if (run->channels == 2)
        aq_fail(&cli->error, AQ_BAD_INPUT, "%s 2: must be 1, 3 or 4",
                aq_cli_given(cli, "channels") ? "--channels"
                                              : "--set in_channels");
    run->batch = (int)aq_cli_int(cli, "batch", 16, 1, 65536);
    run->sample_count = (int)aq_cli_int(cli, "samples", 64, 0, 4096);
    run->flip = !aq_cli_given(cli, "no-flip");
    run->random_crop = aq_cli_choice(cli, "crop", 0, crops, AQ_COUNT(crops));
    return cli->error.status;
}

/* Of height and width 0; the data itself says how many channels. */
static AqStatus read_points(AqCli *cli, AqRunOptions *run)
{
    static const char *const of_pictures[] = {"size", "channels", "crop",
                                              "no-flip"};
    for (int i = 0; i < AQ_COUNT(of_pictures); i++)
        if (aq_cli_given(cli, of_pictures[i]))
            return aq_fail(&cli->error, AQ_BAD_INPUT,
                           "--%s is for pictures, and %s are points: leave it "
                           "out",
                           of_pictures[i], run->data);
    run->batch = (int)aq_cli_int(cli, "batch", 256, 1, 65536);
    run->sample_count = (int)aq_cli_int(cli, "samples", 1024, 0, 65536);
    AqDatasetOptions any = {0};
    AqDataset *set = aq_dataset_open(run->data, &any, &cli->error);
    if (set)
        aq_dataset_shape(set, &run->height, &run->width, &run->channels);
    aq_dataset_free(set);
    return cli->error.status;
}

static AqStatus read_data(AqCli *cli, AqRunOptions *run)
{
    run->data = aq_cli_text(cli, "data", NULL);
    if (!run->data)
        return aq_fail(&cli->error, AQ_BAD_INPUT,
                       "--data is missing: a folder of pictures, emoji, or "
                       "points:moons");
    if (aq_dataset_is_points(run->data) ? read_points(cli, run)
                                        : read_pictures(cli, run))
        return cli->error.status;
    if (aq_cli_given(cli, "labels")) {
        run->classes = count_classes(cli, run);
        run->label_dropout =
            aq_cli_real(cli, "label-dropout", AQ_CLI_LABEL_DROPOUT, 0, 0.99);
    } else if (aq_cli_given(cli, "label-dropout")) {
        return aq_fail(&cli->error, AQ_BAD_INPUT,
                       "--label-dropout hides the classes of --labels: give "
                       "both, or neither");
    }
    return cli->error.status;
}

static AqStatus read_options(AqCli *cli, AqRunOptions *run)
{
    *run = (AqRunOptions){.model = cli->words[0]};
    run->seed = (uint64_t)aq_cli_int(cli, "seed", 0, 0, INT64_MAX);
    run->steps = aq_cli_int(cli, "steps", 0, 1, INT32_MAX);
    run->algorithm = aq_cli_algorithm(cli);
    run->log_every = aq_cli_int(cli, "log-every", 10, 1, INT32_MAX);
    run->save_every = aq_cli_int(cli, "save-every", 500, 1, INT32_MAX);
    run->sample_every = aq_cli_int(cli, "sample-every", 0, 1, INT32_MAX);
    aq_cli_process(cli, &run->process);
    int timesteps = aq_process_steps(&run->process);
    run->sample_steps = (int)aq_cli_int(cli, "sample-steps",
                                        AQ_MIN(50, timesteps), 1, timesteps);
    aq_cli_optimizer(cli, (double)run->steps, &run->optimizer);
    _Static_assert(AQ_COUNT(run->settings) == AQ_CLI_MOST_WORDS, "");
    aq_cli_settings(cli, run->settings, &run->n_settings);
    return cli->error.status ? cli->error.status : read_data(cli, run);
}

/* Options that a resumed run has in its run.json; only these may be given. */
static bool may_change(const char *name)
{
    static const char *const free_options[] = {
        "resume",      "steps",         "minutes",  "hours",
        "threads",     "memory",        "no-cache", "dump",
        "time-passes", "verify-passes", "level",    "data"};
    for (int i = 0; i < AQ_COUNT(free_options); i++)
        if (!strcmp(free_options[i], name))
            return true;
    return false;
}

static AqStatus resume_options(AqCli *cli, AqArena *arena, AqRunOptions *run)
{
    for (int i = 0; i < cli->command->n_options; i++)
        if (cli->value[i] && !may_change(cli->command->options[i].name))
            return aq_fail(&cli->error, AQ_BAD_INPUT,
                           "--%s cannot change when a run is resumed",
                           cli->command->options[i].name);
    if (cli->n_words > 0)
        return aq_fail(&cli->error, AQ_BAD_INPUT,
                       "%s: a resumed run has its model already",
                       cli->words[0]);
    if (aq_run_read(aq_cli_text(cli, "resume", ""), arena, run, &cli->error) ||
        aq_cli_moved_data(cli, run))
        return cli->error.status;
    run->steps = aq_cli_int(cli, "steps", seconds_of(cli) > 0 ? 0 : run->steps,
                            1, INT32_MAX);
    return cli->error.status;
}

static AqStatus start_options(AqCli *cli, AqRunOptions *run, const char *out)
{
    if (cli->n_words != 1)
        return aq_fail(&cli->error, AQ_BAD_INPUT,
                       cli->n_words ? "one model at a time"
                                    : "no model: give a C file, or the name of "
                                      "a model of the library");
    if (!out)
        return aq_fail(&cli->error, AQ_BAD_INPUT,
                       "--out is missing: the folder of the run");
    char path[AQ_PATH_SIZE];
    aq_path(path, "%s/run.json", out);
    if (aq_file_exists(path))
        return aq_fail(&cli->error, AQ_BAD_INPUT,
                       "%s: there is a run already; go on with --resume %s, or "
                       "choose another folder",
                       out, out);
    return read_options(cli, run);
}

/* Of a run that begins: one that goes on has its model and sizes. */
static AqStatus check_verified(AqCli *cli, const AqRunOptions *run)
{
    AqModelFile model;
    if (!aq_cli_given(cli, "verify-passes") ||
        aq_model_open(run->model, NULL, &model, &cli->error))
        return cli->error.status;
    const AqCliVerified verified = {
        .task = aq_run_task(run, model.info, run->batch),
        .optimizer = &run->optimizer,
        .samples = aq_run_samples_at_a_time(run),
        .sampler = aq_run_sampler(run),
        .samples_option = "--samples"};
    aq_cli_check_verified(cli, &verified);
    aq_model_close(&model);
    return cli->error.status;
}

static int train(AqCli *cli)
{
    AqRunOptions run;
    AqSession session;
    AqArena *arena = aq_arena_new();
    bool resume = aq_cli_given(cli, "resume");
    const char *folder = aq_cli_text(cli, resume ? "resume" : "out", NULL);
    if (!arena)
        aq_no_memory(&cli->error, sizeof run);
    else if (resume)
        resume_options(cli, arena, &run);
    else if (!start_options(cli, &run, folder))
        check_verified(cli, &run);
    if (!cli->error.status && !aq_cli_session(cli, &session)) {
        session.resume = resume;
        session.seconds = seconds_of(cli);
        session.tune = aq_cli_given(cli, "tune");
        aq_train(folder, &run, &session, &cli->error);
    }
    aq_arena_free(arena);
    return aq_cli_fail(cli);
}

const AqCliCommand aq_cli_train = {
    .name = "train",
    .words = "MODEL --data WHAT --out DIR [options] | --resume DIR",
    .summary = "train a model, or go on training",
    .details = "MODEL is a C file, or a model of the library.  Ctrl-C stops "
               "after the step,\nwith a checkpoint.  A resumed run gives the "
               "same bits as one never stopped.",
    .options = options,
    .n_options = AQ_COUNT(options),
    .run = train,
};
