/* aquatint plan: what training steps would take, without running them. */
#include "frontend/cli/cli.h"

#include <stdlib.h>

enum { MOST_BATCHES = 32 };

static const AqCliOption options[] = {
    {"batch", "N,N,...", "pictures a step, a line each (default 1,2,4,8,16)"},
    AQ_CLI_SHAPE_OPTIONS,
    {"set", "NAME=VALUE", "an option of the model"},
    AQ_CLI_PROCESS_OPTIONS,
    AQ_CLI_OPTIMIZER_OPTIONS,
    AQ_CLI_COMPILE_OPTIONS,
};

typedef struct Planning {
    AqCli *cli;
    AqCliStep step;
    AqPool *pool;
    AqSpeed speed; /* of this machine */
    int batches[MOST_BATCHES];
    int n_batches;
} Planning;

static AqStatus read_batches(Planning *p)
{
    AqError *error = &p->cli->error;
    const char *text = aq_cli_text(p->cli, "batch", "1,2,4,8,16");
    for (const char *at = text;; at++) {
        char *end;
        long batch = strtol(at, &end, 10);
        if (end == at || batch < 1 || batch > 65536 || (*end && *end != ','))
            return aq_fail(error, AQ_BAD_INPUT,
                           "--batch %s: write numbers from 1 to 65536 with "
                           "commas between them",
                           text);
        if (p->n_batches == MOST_BATCHES)
            return aq_fail(error, AQ_BAD_INPUT, "--batch: at most %d numbers",
                           MOST_BATCHES);
        p->batches[p->n_batches++] = (int)batch;
        if (!*end)
            return AQ_OK;
        at = end;
    }
}

static AqStatus read_options(Planning *p)
{
    AqError *error = &p->cli->error;
    if (aq_cli_step_open(p->cli, &p->step) || read_batches(p))
        return error->status;
    AqPoolOptions pool = {.threads = p->step.session.threads};
    p->pool = aq_pool_new(&pool, error);
    return error->status;
}

static void measure_machine(Planning *p)
{
    int threads = aq_pool_threads(p->pool);
    p->speed = aq_speed_of(&p->step.target);
    p->speed.flops = aq_measure_fma_peak(threads, p->step.target.level);
    p->speed.bytes = aq_measure_triad(threads);
}

/* ---- one batch ---- */

static double seconds_of(const Planning *p, const AqCompiled *program,
                         bool again)
{
    const AqPlan *plan = aq_compiled_plan(program);
    const AqGraph *graph = aq_compiled_graph(program);
    double sum = 0;
    for (int i = 0; i < plan->n_steps; i++) {
        const AqStep *step = &plan->steps[i];
        if (step->kernel == AQ_NO_NODE)
            sum += again ? 0 : 2 * (double)step->copy_bytes / p->speed.bytes;
        else if (!again || aq_node(graph, step->kernel)->copy)
            sum += aq_kernel_seconds(graph, step->kernel, &p->speed);
    }
    return sum;
}

/* Of the process: the program and its libraries, the compiler's heap, machine
 * code, graphs.  34 to 53 MiB of resident memory beside what is planned, for
 * nano, tiny, ddpm-cifar and dit; not known more exactly beforehand. */
static const int64_t process_bytes = 46 << 20;

static void print_line(const Planning *p, int batch, const AqCompiled *program)
{
    const AqPlan *plan = aq_compiled_plan(program);
    int64_t needed = aq_compiled_needed(program);
    int64_t limit = aq_compiled_limit(p->step.session.memory_limit);
    double seconds = seconds_of(p, program, false);
    double again = seconds_of(p, program, true);
    printf("%6d %9.1f %7.0f %9.1f %9.1f %6.2f %8.4f %8.1f %7.1f%s\n", batch,
           aq_cli_mebibytes(needed), aq_cli_mebibytes(needed + process_bytes),
           aq_cli_mebibytes(needed - aq_compiled_bytes(program)),
           aq_cli_mebibytes(plan->arena_bytes),
           plan->live_bytes
               ? (double)plan->arena_bytes / (double)plan->live_bytes
               : 1,
           seconds, batch / seconds, 100 * again / (seconds - again),
           needed > limit ? "  does not fit" : "");
}

static AqStatus plan_batch(Planning *p, int batch)
{
    AqError *error = &p->cli->error;
    AqTask task = p->step.task;
    task.batch = batch;
    if (aq_cli_check_verified(
            p->cli,
            &(AqCliVerified){.task = task, .optimizer = &p->step.optimizer}))
        return error->status;
    AqProgramSettings settings = {.target = p->step.target,
                                  .passes = p->step.session.passes,
                                  .memory_limit = p->step.session.memory_limit,
                                  .plan_only = true};
    AqGraph *graph = aq_training_graph(&task, &p->step.optimizer, NULL, error);
    AqMemory *memory = graph ? aq_memory_new(error) : NULL;
    AqCompiled *program =
        memory ? aq_compiled_new(graph, memory, p->pool, &settings, error)
               : NULL;
    if (program)
        print_line(p, batch, program);
    aq_compiled_free(program);
    aq_memory_free(memory);
    aq_graph_free(graph);
    return error->status;
}

static void print_head(const Planning *p)
{
    printf("%s, %d threads, %s: %.0f GFLOP/s, %.1f GB/s\n",
           p->step.model.info->name, aq_pool_threads(p->pool),
           p->step.target.name, p->speed.flops / 1e9, p->speed.bytes / 1e9);
    printf("%6s %9s %7s %9s %9s %6s %8s %8s %7s\n", "batch", "MiB", "rss",
           "arrays", "arena", "/bound", "s/step", "per s", "more %");
}

static int plan(AqCli *cli)
{
    Planning p = {.cli = cli};
    if (!read_options(&p)) {
        measure_machine(&p);
        print_head(&p);
        for (int i = 0; i < p.n_batches && !plan_batch(&p, p.batches[i]); i++)
            fflush(stdout);
    }
    aq_pool_free(p.pool);
    aq_cli_step_close(&p.step);
    return aq_cli_fail(cli);
}

const AqCliCommand aq_cli_plan = {
    .name = "plan",
    .words = "MODEL [options]",
    .summary = "say what training steps would take, without running them",
    .details =
        "MiB is all that is allocated, exactly: arrays (weights, optimizer,\n"
        "average, inputs), the arena of activations and gradients, scratch.\n"
        "rss adds about what the process takes beside it.  /bound is the\n"
        "arena over what is alive at once.  s/step is an estimate; 'more %'\n"
        "is what recomputing for --memory adds to a step without it.  What\n"
        "does not fit is more than --memory, or than this machine has.\n",
    .options = options,
    .n_options = AQ_COUNT(options),
    .run = plan,
};
