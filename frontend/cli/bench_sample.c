/* aquatint bench MODEL --sample N: DDIM in N steps, one batch, timed. */
#include "frontend/cli/cli.h"

#include <stdlib.h>

typedef struct SampleBench {
    AqCli *cli;
    const AqTask *task;
    const AqSession *session;
    AqProgramSettings settings;
    AqSampleOptions options;
    AqPool *pool;
    AqMemory *memory; /* of the weights */
    AqGenerator *generator;
    int64_t parameters;
    double flops; /* useful, of the model, for the whole batch */
    double seconds, peak;
} SampleBench;

/* The sampler's programs, their weights as a run begins with them. */
static AqStatus make_generator(SampleBench *b, AqGraph *graph)
{
    AqError *error = &b->cli->error;
    AqStart start = {.params = aq_params(graph),
                     .memory = b->memory,
                     .pool = b->pool,
                     .memory_limit = b->settings.memory_limit};
    if (!start.params)
        return aq_no_memory(error, sizeof *start.params);
    b->parameters = start.params->trained;
    aq_start_begin(&start, graph);
    if (aq_memory_array(b->memory, "weights", start.params->floats * 4, error))
        b->generator = aq_generator_new(b->task, &b->options.sampler, b->memory,
                                        b->pool, true, &b->settings, error);
    aq_start_end(&start, b->generator != NULL);
    return error->status;
}

static AqStatus compile(SampleBench *b)
{
    AqError *error = &b->cli->error;
    AqGraph *graph = aq_forward_graph(b->task, NULL, error);
    AqPoolOptions pool = {.threads = b->session->threads};
    b->pool = graph ? aq_pool_new(&pool, error) : NULL;
    b->memory = b->pool ? aq_memory_new(error) : NULL;
    if (b->memory && !make_generator(b, graph))
        b->flops = aq_graph_flops(graph) * b->options.sampler.steps;
    aq_graph_free(graph);
    return error->status;
}

static AqStatus measure(SampleBench *b)
{
    AqError *error = &b->cli->error;
    const AqTask *t = b->task;
    size_t floats = (size_t)t->batch * (size_t)AQ_MAX(t->height, 1) *
                    (size_t)AQ_MAX(t->width, 1) * (size_t)t->channels;
    float *x = malloc(floats * sizeof *x);
    if (!x)
        return aq_no_memory(error, floats * sizeof *x);
    double began = aq_seconds();
    aq_generate(b->generator, &b->options, x, b->session->stop, error);
    b->seconds = aq_seconds() - began;
    free(x);
    b->peak =
        aq_measure_fma_peak(aq_pool_threads(b->pool), b->settings.target.level);
    return error->status;
}

static void print(const SampleBench *b)
{
    const AqTask *t = b->task;
    int steps = b->options.sampler.steps, threads = aq_pool_threads(b->pool);
    double rate = b->flops / b->seconds;
    if (aq_cli_given(b->cli, "json")) {
        printf("{\"aquatint\": \"%s\", \"model\": \"%s\", \"batch\": %d, "
               "\"threads\": %d, \"target\": \"%s\", \"parameters\": %lld, "
               "\"steps\": %d, \"sample_s\": %.4f, \"step_s\": %.4f, "
               "\"gflops\": %.1f, \"peak_gflops\": %.1f, \"peak_rss\": %lld}\n",
               AQ_VERSION, t->model->name, t->batch, threads,
               b->settings.target.name, (long long)b->parameters, steps,
               b->seconds, b->seconds / steps, rate / 1e9, b->peak / 1e9,
               (long long)aq_peak_rss());
        return;
    }
    printf("%s: %lld parameters, batch %d, %d threads, %s\n", t->model->name,
           (long long)b->parameters, t->batch, threads,
           b->settings.target.name);
    printf("samples       %.4f s in %d steps of DDIM, %.4f s each\n",
           b->seconds, steps, b->seconds / steps);
    printf("work          %.1f GFLOP/s, %.0f %% of the FMA peak of %.1f\n",
           rate / 1e9, 100 * rate / b->peak, b->peak / 1e9);
    printf("memory        %.0f MiB at most\n", aq_cli_mebibytes(aq_peak_rss()));
}

static AqStatus check_options(AqCli *cli)
{
    static const AqCliOption others[] = {{"steps", NULL, NULL},
                                         {"kernels", NULL, NULL},
                                         {"min-snr", NULL, NULL},
                                         AQ_CLI_TUNE_OPTION,
                                         AQ_CLI_OPTIMIZER_OPTIONS};
    return aq_cli_refuse(cli, others, AQ_COUNT(others),
                         "is for the training step: leave it or --sample out");
}

AqStatus aq_cli_bench_sample(AqCli *cli, const AqTask *task,
                             const AqSession *session, const AqTarget *target)
{
    int total = aq_process_steps(&task->process);
    SampleBench b = {.cli = cli,
                     .task = task,
                     .session = session,
                     .settings = {.target = *target,
                                  .compile = session->compile,
                                  .passes = session->passes,
                                  .memory_limit = session->memory_limit},
                     .options = {.count = task->batch,
                                 .label = -1,
                                 .sampler = {.kind = AQ_SAMPLER_DDIM,
                                             .steps = (int)aq_cli_int(
                                                 cli, "sample", 50, 1, total),
                                             .clip = true}}};
    const AqCliVerified verified = {.task = *task,
                                    .samples = task->batch,
                                    .sampler = b.options.sampler,
                                    .samples_option = "--batch"};
    if (!cli->error.status && !check_options(cli) &&
        !aq_cli_check_verified(cli, &verified) && !compile(&b) && !measure(&b))
        print(&b);
    aq_generator_free(b.generator);
    aq_pool_free(b.pool);
    aq_memory_free(b.memory);
    return cli->error.status;
}
