/* aquatint bench: the training step of a model, timed. */
#include "frontend/cli/cli.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static const AqCliOption options[] = {
    {"batch", "N", "pictures a step (default 8)"},
    AQ_CLI_SHAPE_OPTIONS,
    {"set", "NAME=VALUE", "an option of the model"},
    {"steps", "N", "steps timed (default 5)"},
    {"sample", "N", "time DDIM in N steps instead, one batch"},
    {"kernels", NULL, "where the time goes, kernel by kernel"},
    {"json", NULL, "one line of JSON"},
    AQ_CLI_PROCESS_OPTIONS,
    AQ_CLI_OPTIMIZER_OPTIONS,
    AQ_CLI_TUNE_OPTION,
    AQ_CLI_COMPILE_OPTIONS,
    AQ_CLI_CACHE_OPTION,
};

typedef struct Bench {
    AqCli *cli;
    AqCliStep step;
    AqPool *pool;
    AqMemory *memory;
    AqCompiled *program;
    AqArena *choices;
    AqTuning tuning;
    int64_t parameters;
    int steps;
    double began, first, median, least, forward_flops, peak;
} Bench;

static AqStatus read_options(Bench *b)
{
    AqCli *cli = b->cli;
    aq_cli_step_open(cli, &b->step);
    b->step.task.batch = (int)aq_cli_int(cli, "batch", 8, 1, 65536);
    b->steps = (int)aq_cli_int(cli, "steps", 5, 1, 10000);
    if (aq_cli_given(cli, "json") && aq_cli_given(cli, "kernels"))
        aq_fail(&cli->error, AQ_BAD_INPUT,
                "--json is one line, and --kernels is a table: leave one out");
    return cli->error.status;
}

static double forward_flops(Bench *b)
{
    AqGraph *graph = aq_forward_graph(&b->step.task, NULL, &b->cli->error);
    double flops = graph ? aq_graph_flops(graph) : 0;
    aq_graph_free(graph);
    return flops;
}

static void fill_inputs(Bench *b)
{
    int64_t bytes = 0;
    float *x = aq_memory_find(b->memory, "x", &bytes);
    int32_t *sample = aq_memory_find(b->memory, "sample", NULL);
    for (int64_t i = 0; x && i < bytes / 4; i++)
        x[i] = sinf((float)i);
    for (int i = 0; sample && i < b->step.task.batch; i++)
        sample[i] = i;
}

/* The program, its parameters as a run begins with them. */
static AqStatus make_program(Bench *b, AqGraph *graph,
                             const AqProgramSettings *settings)
{
    AqError *error = &b->cli->error;
    AqStart start = {.params = aq_params(graph),
                     .memory = b->memory,
                     .pool = b->pool,
                     .memory_limit = settings->memory_limit};
    if (!start.params)
        return aq_no_memory(error, sizeof *start.params);
    b->parameters = start.params->trained;
    aq_start_begin(&start, graph);
    b->program = aq_compiled_new(graph, b->memory, b->pool, settings, error);
    aq_start_end(&start, b->program != NULL);
    return error->status;
}

static void tell_times(void *context, const char *sentence)
{
    (void)context;
    fprintf(stderr, "tune    %s\n", sentence);
}

/* Measured choices, where they are asked for. */
static AqStatus tune(Bench *b, const AqGraph *graph,
                     AqProgramSettings *settings)
{
    AqError *error = &b->cli->error;
    if (!aq_cli_given(b->cli, "tune"))
        return AQ_OK;
    AqTuneOptions how = {.tell = tell_times};
    b->choices = aq_arena_new();
    if (!b->choices)
        return aq_no_memory(error, sizeof b->tuning);
    settings->passes.tuning = &b->tuning;
    return aq_tune(graph, b->pool, settings, &how, b->choices, &b->tuning,
                   error);
}

static AqStatus compile(Bench *b)
{
    AqError *error = &b->cli->error;
    const AqOptimizer *optimizer = &b->step.optimizer;
    if (aq_cli_check_verified(b->cli, &(AqCliVerified){.task = b->step.task,
                                                       .optimizer = optimizer}))
        return error->status;
    b->forward_flops = forward_flops(b);
    AqGraph *graph = aq_training_graph(&b->step.task, optimizer, NULL, error);
    AqPoolOptions pool = {.threads = b->step.session.threads};
    b->pool = graph ? aq_pool_new(&pool, error) : NULL;
    b->memory = b->pool ? aq_memory_new(error) : NULL;
    AqProgramSettings settings = {.target = b->step.target,
                                  .compile = b->step.session.compile,
                                  .passes = b->step.session.passes,
                                  .memory_limit = b->step.session.memory_limit};
    if (b->memory && !tune(b, graph, &settings) &&
        !make_program(b, graph, &settings))
        fill_inputs(b);
    aq_graph_free(graph);
    return error->status;
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static AqStatus measure(Bench *b)
{
    double *seconds = malloc((size_t)b->steps * sizeof *seconds);
    if (!seconds)
        return aq_no_memory(&b->cli->error, (size_t)b->steps * 8);
    aq_compiled_run(b->program, NULL);
    b->first = aq_seconds() - b->began;
    aq_compiled_run(b->program, NULL);
    for (int i = 0; i < b->steps; i++) {
        double began = aq_seconds();
        aq_compiled_run(b->program, NULL);
        seconds[i] = aq_seconds() - began;
    }
    qsort(seconds, (size_t)b->steps, sizeof *seconds, by_value);
    b->median = seconds[b->steps / 2];
    b->least = seconds[0];
    free(seconds);
    b->peak =
        aq_measure_fma_peak(aq_pool_threads(b->pool), b->step.target.level);
    return AQ_OK;
}

static void print_json(const Bench *b)
{
    printf("{\"aquatint\": \"%s\", \"model\": \"%s\", \"batch\": %d, "
           "\"threads\": %d, \"target\": \"%s\", \"parameters\": %lld, "
           "\"step_s\": %.4f, \"step_min_s\": %.4f, \"gflops\": %.1f, "
           "\"peak_gflops\": %.1f, \"first_step_s\": %.2f, \"peak_rss\": "
           "%lld}\n",
           AQ_VERSION, b->step.model.info->name, b->step.task.batch,
           aq_pool_threads(b->pool), b->step.target.name,
           (long long)b->parameters, b->median, b->least,
           3 * b->forward_flops / b->median / 1e9, b->peak / 1e9, b->first,
           (long long)aq_peak_rss());
}

static void print_text(const Bench *b)
{
    double rate = 3 * b->forward_flops / b->median;
    char size[64] = "points";
    if (b->step.task.height > 0)
        snprintf(size, sizeof size, "%dx%d", b->step.task.height,
                 b->step.task.width);
    printf("%s: %lld parameters, %s, channels %d, batch %d, %d threads, %s\n",
           b->step.model.info->name, (long long)b->parameters, size,
           b->step.task.channels, b->step.task.batch, aq_pool_threads(b->pool),
           b->step.target.name);
    printf("step          %.4f s (median of %d; least %.4f s)\n", b->median,
           b->steps, b->least);
    printf("work          %.1f GFLOP/s, %.0f %% of the FMA peak of %.1f\n",
           rate / 1e9, 100 * rate / b->peak, b->peak / 1e9);
    printf("first step    %.2f s after the start\n", b->first);
    const AqPlan *plan = aq_compiled_plan(b->program);
    printf("memory        %.0f MiB at most, code and compiler included\n",
           aq_cli_mebibytes(aq_peak_rss()));
    printf("planned       %.1f MiB: arrays %.1f, arena %.1f (%.2f of what is "
           "alive at once), scratch %.1f\n",
           aq_cli_mebibytes(aq_memory_bytes(b->memory) +
                            aq_compiled_bytes(b->program)),
           aq_cli_mebibytes(aq_memory_bytes(b->memory)),
           aq_cli_mebibytes(plan->arena_bytes),
           (double)plan->arena_bytes / (double)AQ_MAX(plan->live_bytes, 1),
           aq_cli_mebibytes(aq_compiled_scratch(b->program)));
}

static int bench(AqCli *cli)
{
    Bench b = {.cli = cli, .began = aq_seconds()};
    AqStatus status = read_options(&b);
    if (!status && aq_cli_given(cli, "sample")) {
        aq_cli_bench_sample(cli, &b.step.task, &b.step.session, &b.step.target);
    } else if (!status && !compile(&b) && !measure(&b)) {
        if (aq_cli_given(cli, "json"))
            print_json(&b);
        else
            print_text(&b);
        if (aq_cli_given(cli, "kernels"))
            aq_cli_bench_kernels(cli, b.program, aq_pool_threads(b.pool),
                                 b.peak);
    }
    aq_compiled_free(b.program);
    aq_memory_free(b.memory);
    aq_pool_free(b.pool);
    aq_arena_free(b.choices);
    aq_cli_step_close(&b.step);
    return aq_cli_fail(cli);
}

const AqCliCommand aq_cli_bench = {
    .name = "bench",
    .words = "MODEL [options]",
    .summary = "time the training step of a model",
    .options = options,
    .n_options = AQ_COUNT(options),
    .run = bench,
};
