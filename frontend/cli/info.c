/* aquatint info: a run, a model, or a file of weights. */
#include "frontend/cli/cli.h"

#include <limits.h>
#include <math.h>
#include <string.h>
#include <sys/stat.h>

static const AqCliOption options[] = {
    AQ_CLI_SHAPE_OPTIONS,
    {"set", "NAME=VALUE", "for a model: one of its options"},
    {"tensors", NULL, "for a model: list its parameters"},
};

static const char *shape_text(char *text, size_t size, const int64_t *shape,
                              int rank)
{
    size_t used = (size_t)snprintf(text, size, "[");
    for (int i = 0; i < rank && used < size; i++)
        used += (size_t)snprintf(text + used, size - used, "%s%lld",
                                 i ? ", " : "", (long long)shape[i]);
    if (used < size)
        snprintf(text + used, size - used, "]");
    return text;
}

/* ---- a file of weights ---- */

static void file_info(AqCli *cli, const char *path)
{
    AqTensorFile *file = aq_tensors_open(path, &cli->error);
    if (!file)
        return;
    int64_t elements = 0;
    for (int i = 0; i < aq_tensors_count(file); i++) {
        const AqTensorInfo *t = aq_tensors_at(file, i);
        char shape[256];
        printf("%-60s %-5s %s\n", t->name, aq_stored_name(t->type),
               shape_text(shape, sizeof shape, t->shape, t->rank));
        elements += t->elements;
    }
    printf("%d tensors, %lld numbers\n", aq_tensors_count(file),
           (long long)elements);
    aq_tensors_close(file);
}

/* ---- a model ---- */

/* " (1 to 64, default 8)", with what there is to say. */
static void print_bounds(const AqOptionSeen *o)
{
    bool changed = strcmp(o->value, o->otherwise) != 0;
    if (!*o->range && !changed)
        return;
    printf(" (%s", o->range);
    if (changed)
        printf("%sdefault %s", *o->range ? ", " : "", o->otherwise);
    putchar(')');
}

static void print_options(const AqOptions *seen)
{
    printf("\noptions (--set NAME=VALUE):\n");
    for (int i = 0; i < seen->n_seen; i++) {
        const AqOptionSeen *o = &seen->seen[i];
        char value[128];
        snprintf(value, sizeof value, "%s=%s", o->name, o->value);
        printf("  %-34s %s", value, o->help);
        print_bounds(o);
        putchar('\n');
    }
}

static void print_params(const AqParamTable *params)
{
    for (int i = 0; i < params->count; i++) {
        int64_t shape[AQ_MAX_RANK];
        char text[256];
        aq_param_file_shape(&params->at[i], shape);
        printf("  %-60s %s\n", params->at[i].name,
               shape_text(text, sizeof text, shape, params->at[i].type.rank));
    }
}

static const char *shape_of_task(char *text, size_t size, const AqTask *task)
{
    if (task->height == 0)
        snprintf(text, size, "a point of %d numbers", task->channels);
    else
        snprintf(text, size, "a picture of %dx%dx%d", task->height, task->width,
                 task->channels);
    return text;
}

static void model_info(AqCli *cli, const char *name)
{
    AqModelFile model;
    AqSetting settings[AQ_CLI_MOST_WORDS];
    AqTask task = {.batch = 1, .settings = settings};
    const AqOptions *seen = NULL;
    if (aq_model_open(name, NULL, &model, &cli->error))
        return;
    task.model = model.info;
    aq_cli_settings(cli, settings, &task.n_settings);
    if (!aq_cli_shape(cli, &task))
        aq_cli_suit(cli, &task);
    AqGraph *graph =
        cli->error.status ? NULL : aq_forward_graph(&task, &seen, &cli->error);
    const AqParamTable *params = graph ? aq_params(graph) : NULL;
    if (params) {
        printf("%s: %s\n", model.info->name, model.info->doc);
        char shape[64];
        printf("%lld parameters in %d tensors; %s takes %.3g GMAC forward\n",
               (long long)params->trained, params->count,
               shape_of_task(shape, sizeof shape, &task),
               aq_graph_flops(graph) / 2e9);
        print_options(seen);
        if (aq_cli_given(cli, "tensors"))
            print_params(params);
    }
    aq_graph_free(graph);
    aq_model_close(&model);
}

/* ---- a run ---- */

static void print_checkpoint(AqCli *cli, const char *run, AqArena *arena)
{
    char folder[AQ_PATH_SIZE];
    aq_path(folder, "%s/checkpoints", run);
    const char *path = aq_checkpoint_latest(folder, arena, &cli->error);
    AqCheckpoint state;
    AqParamTable none = {0};
    AqMemory *memory = aq_memory_new(&cli->error);
    if (!path)
        printf("checkpoint  none yet\n");
    else if (memory &&
             !aq_checkpoint_read(path, &state, &none, memory, &cli->error)) {
        char time[32];
        printf("checkpoint  %s: step %lld (%lld updates) after %s, loss %.4f\n",
               path, (long long)state.step, (long long)state.updates,
               aq_duration(time, sizeof time, state.seconds), state.loss);
    }
    aq_memory_free(memory);
}

static void run_info(AqCli *cli, const char *path)
{
    AqRunOptions run;
    AqArena *arena = aq_arena_new();
    if (!arena || aq_run_read(path, arena, &run, &cli->error)) {
        aq_arena_free(arena);
        return;
    }
    printf("model       %s", run.model);
    for (int i = 0; i < run.n_settings; i++)
        printf(" %s=%s", run.settings[i].name, run.settings[i].value);
    printf("\ndata        %s, ", run.data);
    if (run.columns)
        printf("%d column%s", run.channels, run.channels == 1 ? "" : "s");
    else
        printf("%dx%dx%d", run.height, run.width, run.channels);
    printf(", batch %d%s%s\n", run.batch, run.flip ? ", flips" : "",
           run.random_crop ? ", random crops" : "");
    aq_cli_print_process(&run.process);
    aq_cli_print_optimizer(&run.optimizer);
    printf("seed        %llu\n", (unsigned long long)run.seed);
    print_checkpoint(cli, path, arena);
    aq_arena_free(arena);
}

static bool is_folder(const char *path)
{
    struct stat st;
    return stat(path, &st) == 0 && S_ISDIR(st.st_mode);
}

static int info(AqCli *cli)
{
    const char *what = cli->words[0];
    bool one = cli->n_words == 1, run = one && is_folder(what);
    bool file = one && aq_cli_ends(what, ".safetensors");
    if (!one)
        aq_fail(&cli->error, AQ_BAD_INPUT,
                "give a run's folder, a model or a .safetensors file");
    else if (run || file)
        aq_cli_refuse(cli, options, AQ_COUNT(options),
                      "is for a model: leave it out");
    if (!cli->error.status && file)
        file_info(cli, what);
    else if (!cli->error.status && run)
        run_info(cli, what);
    else if (!cli->error.status)
        model_info(cli, what);
    return aq_cli_fail(cli);
}

const AqCliCommand aq_cli_info = {
    .name = "info",
    .words = "RUN | MODEL | FILE.safetensors",
    .summary = "what a run, a model or a file of weights is",
    .options = options,
    .n_options = AQ_COUNT(options),
    .run = info,
};
