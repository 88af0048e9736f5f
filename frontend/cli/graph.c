/* aquatint graph: a picture of what a model becomes. */
#include "frontend/cli/cli.h"

#include <stdlib.h>
#include <string.h>

static const AqCliOption options[] = {
    {"out", "FILE", "where to: .dot, .svg or .png"},
    {"stage", "NAME",
     "model (default), training, optimized (before fusion) or kernels"},
    {"depth", "N", "levels of scopes opened (default: as many as fit)"},
    {"scope", "S", "draw this scope alone, such as down_blocks.0"},
    AQ_CLI_SHAPE_OPTIONS,
    {"batch", "N", "pictures a step (default 8)"},
    {"set", "NAME=VALUE", "an option of the model"},
    {"level", "3|4|5", "optimize for AVX2 (3), AVX-512 (4) or AMX (5)"},
    {"algorithm", "NAME", "force it on every contraction that it suits"},
    AQ_CLI_PASS_OPTIONS,
    {"time-out", "SECONDS", "stop dot after this time (default 30)"},
    AQ_CLI_PROCESS_OPTIONS,
    AQ_CLI_OPTIMIZER_OPTIONS,
};

typedef enum Stage { MODEL, TRAINING, OPTIMIZED, KERNELS } Stage;
static const char *const stages[] = {
    [MODEL] = "model",
    [TRAINING] = "training",
    [OPTIMIZED] = "optimized",
    [KERNELS] = "kernels",
};

typedef struct Picture {
    AqCli *cli;
    Stage stage;
    AqSetting settings[AQ_CLI_MOST_WORDS];
    AqTask task;
    AqOptimizer optimizer;
    AqTarget target; /* of kernels */
    const char *out;
    double seconds; /* that dot may take */
} Picture;

/* Options of what comes after the stage would do nothing. */
static AqStatus check_options(AqCli *cli, Stage stage)
{
    static const AqCliOption training[] = {AQ_CLI_PROCESS_OPTIONS,
                                           AQ_CLI_OPTIMIZER_OPTIONS};
    static const AqCliOption kernels[] = {
        {"level", NULL, NULL}, {"algorithm", NULL, NULL}, AQ_CLI_PASS_OPTIONS};
    if (stage == MODEL)
        aq_cli_refuse(cli, training, AQ_COUNT(training),
                      "is for the training step: leave it out, or give --stage "
                      "training, optimized or kernels");
    if (stage == MODEL || stage == TRAINING)
        aq_cli_refuse(cli, kernels, AQ_COUNT(kernels),
                      "is for passes: leave it out, or give --stage optimized "
                      "or kernels");
    return cli->error.status;
}

static AqStatus read_options(Picture *p)
{
    AqCli *cli = p->cli;
    if (cli->n_words != 1)
        return aq_fail(&cli->error, AQ_BAD_INPUT, "give one model");
    p->out = aq_cli_text(cli, "out", NULL);
    if (!p->out)
        return aq_fail(&cli->error, AQ_BAD_INPUT,
                       "say where the picture goes: --out graph.svg");
    p->stage =
        (Stage)aq_cli_choice(cli, "stage", MODEL, stages, AQ_COUNT(stages));
    check_options(cli, p->stage);
    p->task.settings = p->settings;
    aq_cli_settings(cli, p->settings, &p->task.n_settings);
    aq_cli_shape(cli, &p->task);
    p->task.batch = (int)aq_cli_int(cli, "batch", 8, 1, 65536);
    p->seconds = aq_cli_real(cli, "time-out", 30, 0.001, 1e6);
    aq_cli_process(cli, &p->task.process);
    aq_cli_optimizer(cli, 1000, &p->optimizer);
    return cli->error.status;
}

/* ---- the graph of a stage ---- */

static AqStatus check_dump(const Picture *p)
{
    const char *dump = aq_cli_text(p->cli, "dump", "input");
    bool runs = p->stage == KERNELS || !strcmp(dump, "input");
    for (int i = 0; aq_pipeline[i].run != aq_fuse; i++)
        runs = runs || !strcmp(dump, aq_pipeline[i].name);
    if (runs)
        return AQ_OK;
    return aq_fail(&p->cli->error, AQ_BAD_INPUT,
                   "--dump %s: --stage optimized ends before this pass: give "
                   "--stage kernels",
                   dump);
}

/* By the passes up to the one before fusion, or all. */
static AqGraph *optimize(Picture *p, const AqGraph *graph)
{
    AqCliVerified verified = {.task = p->task, .optimizer = &p->optimizer};
    AqPipelineOptions how;
    AqPassContext cx = {.target = &p->target, .error = &p->cli->error};
    int level =
        (int)aq_cli_int(p->cli, "level", 0, AQ_FIRST_LEVEL, AQ_LAST_LEVEL);
    if (aq_cli_passes(p->cli, &how) || check_dump(p) ||
        aq_cli_check_verified(p->cli, &verified) ||
        aq_target_host(level, &p->target, cx.error))
        return NULL;
    how.until = p->stage == OPTIMIZED ? aq_fuse : NULL;
    return aq_optimize(graph, &how, &cx);
}

static AqGraph *graph_of(Picture *p)
{
    AqError *error = &p->cli->error;
    if (p->stage == MODEL)
        return aq_forward_graph(&p->task, NULL, error);
    AqGraph *training = aq_training_graph(&p->task, &p->optimizer, NULL, error);
    if (!training || p->stage == TRAINING)
        return training;
    AqGraph *optimized = optimize(p, training);
    aq_graph_free(training);
    return optimized;
}

/* ---- drawing ---- */

/* What kernels take, on a middling machine; NULL for graphs that have none. */
static double *estimate(Picture *p, const AqGraph *graph)
{
    if (p->stage != KERNELS)
        return NULL;
    double *seconds = calloc((size_t)graph->count + 1, sizeof *seconds);
    if (!seconds)
        aq_no_memory(&p->cli->error, (size_t)graph->count * sizeof *seconds);
    AqSpeed speed = aq_speed_of(&p->target);
    for (AqId id = 0; seconds && id < graph->count; id++)
        if (aq_node(graph, id)->op == AQ_OP_kernel)
            seconds[id] = aq_kernel_seconds(graph, id, &speed);
    return seconds;
}

static void draw(Picture *p, const AqGraph *graph)
{
    AqCli *cli = p->cli;
    AqText title = {0}, text = {0};
    double *seconds = estimate(p, graph);
    AqDotFacts facts;
    aq_text_printf(&title, "%s, %s", p->task.model->name, stages[p->stage]);
    AqDotOptions dot = {.title = title.data,
                        .scope = aq_cli_text(cli, "scope", NULL),
                        .depth = (int)aq_cli_int(cli, "depth", 0, 1, 100),
                        .batch = p->task.batch,
                        .seconds = seconds};
    if (!cli->error.status &&
        !aq_graph_dot(graph, &dot, &text, &facts, &cli->error) &&
        !aq_draw(p->out, &text, p->seconds, &cli->error))
        printf("%s: %d boxes at depth %d\n", p->out, facts.boxes, facts.depth);
    free(seconds);
    aq_text_free(&title);
    aq_text_free(&text);
}

static int graph_command(AqCli *cli)
{
    Picture p = {.cli = cli};
    AqModelFile model = {0};
    if (!read_options(&p) &&
        !aq_model_open(cli->words[0], NULL, &model, &cli->error)) {
        p.task.model = model.info;
        aq_cli_suit(cli, &p.task);
        AqGraph *graph = graph_of(&p);
        if (graph)
            draw(&p, graph);
        aq_graph_free(graph);
        aq_model_close(&model);
    }
    return aq_cli_fail(cli);
}

const AqCliCommand aq_cli_graph = {
    .name = "graph",
    .words = "MODEL --out FILE [options]",
    .summary = "draw what a model becomes",
    .details = "Boxes are scopes until --depth opens them; equal neighbours "
               "are folded into one.\nThe backward half of a step is a column "
               "that is drawn upwards, beside\nthe forward.  A few kernels "
               "alone (--stage kernels --scope S --depth 9)\nare drawn around "
               "their operations; their times are estimates for a machine of\n"
               "two cores.",
    .options = options,
    .n_options = AQ_COUNT(options),
    .run = graph_command,
};
