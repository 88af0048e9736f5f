/* What every command that compiles understands: threads, memory, passes. */
#include "frontend/cli/cli.h"

#include <signal.h>
#include <stdlib.h>
#include <string.h>

enum { MOST_CHANNELS = 4096 };

/* The one thing that a signal can reach. */
static volatile int stop_requested;

static void request_stop(int signal_number)
{
    if (stop_requested) /* the second time, at once */
        _Exit(128 + signal_number);
    stop_requested = 1;
}

static void catch_signals(void)
{
    struct sigaction action = {.sa_handler = request_stop,
                               .sa_flags = SA_RESTART};
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGTERM, &action, NULL);
}

typedef struct Watch {
    const char *dump;
    bool timed;
} Watch;

static void after_pass(void *context, const char *pass, const AqGraph *graph,
                       double seconds)
{
    const Watch *watch = context;
    if (watch->timed && strcmp(pass, "input"))
        fprintf(stderr, "pass %-10s %8.2f ms %8d nodes\n", pass, 1e3 * seconds,
                graph->count);
    if (!watch->dump || strcmp(pass, watch->dump))
        return;
    AqText text = {0};
    aq_graph_print(graph, &text);
    if (text.data)
        fputs(text.data, stdout);
    aq_text_free(&text);
}

static AqStatus check_dump(AqCli *cli, const char *dump)
{
    const AqPass *pass = dump ? aq_pass_named(dump) : NULL;
    if (pass && pass->run == aq_recompute && !aq_cli_given(cli, "memory"))
        return aq_fail(&cli->error, AQ_BAD_INPUT,
                       "--dump %s: this pass runs with --memory alone", dump);
    if (!dump || !strcmp(dump, "input") || pass)
        return AQ_OK;
    AqText list = {0};
    for (int i = 0; i < aq_pipeline_count; i++)
        aq_text_printf(&list, ", %s", aq_pipeline[i].name);
    aq_fail(&cli->error, AQ_BAD_INPUT,
            "--dump %s: there is no such pass (there are: input%s)", dump,
            list.data ? list.data : "");
    aq_text_free(&list);
    return cli->error.status;
}

const char *aq_cli_algorithm(AqCli *cli)
{
    enum { MOST = 16 };
    const char *names[MOST];
    int count = 0;
    while (count < MOST && aq_algorithm_name(count)) {
        names[count] = aq_algorithm_name(count);
        count++;
    }
    if (!aq_cli_given(cli, "algorithm"))
        return NULL;
    if (aq_cli_given(cli, "tune"))
        aq_fail(&cli->error, AQ_BAD_INPUT,
                "--tune chooses algorithms by itself: leave --algorithm out");
    return names[aq_cli_choice(cli, "algorithm", 0, names, count)];
}

AqStatus aq_cli_passes(AqCli *cli, AqPipelineOptions *passes)
{
    static Watch watch;
    watch = (Watch){.dump = aq_cli_text(cli, "dump", NULL),
                    .timed = aq_cli_given(cli, "time-passes")};
    *passes = (AqPipelineOptions){.verify = aq_cli_given(cli, "verify-passes"),
                                  .algorithm = aq_cli_algorithm(cli),
                                  .after = after_pass,
                                  .context = &watch};
    return check_dump(cli, watch.dump);
}

AqStatus aq_cli_session(AqCli *cli, AqSession *session)
{
    *session =
        (AqSession){.threads = (int)aq_cli_int(cli, "threads", 0, 1, 256),
                    .memory_limit = aq_cli_bytes(cli, "memory"),
                    .level = (int)aq_cli_int(cli, "level", 0, AQ_FIRST_LEVEL,
                                             AQ_LAST_LEVEL),
                    .compile = {.no_cache = aq_cli_given(cli, "no-cache")},
                    .stop = &stop_requested};
    if (!aq_cli_passes(cli, &session->passes) && !cli->error.status)
        catch_signals();
    return cli->error.status;
}

AqStatus aq_cli_settings(AqCli *cli, AqSetting settings[AQ_CLI_MOST_WORDS],
                         int *count)
{
    *count = 0;
    for (int i = 0; i < cli->n_sets; i++) {
        const char *equals = strchr(cli->sets[i], '=');
        if (!equals || equals == cli->sets[i])
            return aq_fail(&cli->error, AQ_BAD_INPUT,
                           "--set %s: write NAME=VALUE", cli->sets[i]);
        char *name = strndup(cli->sets[i], (size_t)(equals - cli->sets[i]));
        if (!name)
            return aq_no_memory(&cli->error, strlen(cli->sets[i]));
        cli->names[cli->n_names++] = name;
        settings[(*count)++] = (AqSetting){name, equals + 1};
    }
    return AQ_OK;
}

AqStatus aq_cli_size(AqCli *cli, const char *option, int otherwise, int *height,
                     int *width)
{
    enum { LARGEST = 4096 };
    const char *text = aq_cli_text(cli, option, NULL);
    *height = *width = otherwise;
    if (!text)
        return AQ_OK;
    char rest;
    int n = sscanf(text, "%dx%d%c", height, width, &rest);
    if (n == 1 && !strchr(text, 'x') &&
        strspn(text, "0123456789") == strlen(text)) {
        *width = *height;
        n = 2;
    }
    if (n != 2 || *height < 1 || *width < 1 || *height > LARGEST ||
        *width > LARGEST)
        return aq_fail(&cli->error, AQ_BAD_INPUT,
                       "--%s %s: write a size such as 32, or HEIGHTxWIDTH, up "
                       "to %d",
                       option, text, LARGEST);
    return AQ_OK;
}

int aq_cli_channels(AqCli *cli, int otherwise, int most)
{
    static const char name[] = "in_channels=";
    int channels = otherwise, value;
    char rest;
    for (int i = 0; i < cli->n_sets; i++) { /* the last one counts */
        const char *set = cli->sets[i];
        if (strncmp(set, name, strlen(name)) ||
            sscanf(set + strlen(name), "%d%c", &value, &rest) != 1)
            continue; /* no number: the model says what is wrong */
        if (value < 1 || value > most)
            aq_fail(&cli->error, AQ_BAD_INPUT,
                    "--set %s: must lie between 1 and %d", set, most);
        channels = AQ_MAX(AQ_MIN(value, most), 1);
    }
    return (int)aq_cli_int(cli, "channels", channels, 1, most);
}

AqStatus aq_cli_shape(AqCli *cli, AqTask *task)
{
    bool points = !strcmp(aq_cli_text(cli, "size", ""), "0");
    task->channels = aq_cli_channels(cli, points ? 2 : 3, MOST_CHANNELS);
    task->height = task->width = 0;
    if (!points)
        aq_cli_size(cli, "size", 32, &task->height, &task->width);
    task->classes = (int)aq_cli_int(cli, "classes", 0, 1, 1000000);
    task->label_dropout = task->classes ? AQ_CLI_LABEL_DROPOUT : 0;
    return cli->error.status;
}

/* By its defaults: what is wrong with a setting is to be said later. */
static bool takes(AqTask task)
{
    AqError error = {0};
    task.n_settings = 0;
    AqGraph *graph = aq_forward_graph(&task, NULL, &error);
    aq_graph_free(graph);
    return graph != NULL;
}

void aq_cli_suit(AqCli *cli, AqTask *task)
{
    AqTask points = *task;
    points.height = points.width = 0;
    points.channels = aq_cli_channels(cli, 2, MOST_CHANNELS);
    if (!aq_cli_given(cli, "size") && !takes(*task) && takes(points))
        *task = points;
}

AqStatus aq_cli_moved_data(AqCli *cli, AqRunOptions *run)
{
    const char *data = aq_cli_text(cli, "data", NULL);
    if (!data)
        return AQ_OK;
    if (aq_dataset_is_points(data) != (run->columns != NULL))
        return aq_fail(&cli->error, AQ_BAD_INPUT,
                       "--data %s: the run was begun with %s", data,
                       run->columns ? "points" : "pictures");
    run->data = data;
    run->place = NULL;
    return AQ_OK;
}

bool aq_cli_ends(const char *text, const char *end)
{
    size_t n = strlen(text), m = strlen(end);
    return n >= m && !strcmp(text + n - m, end);
}

double aq_cli_mebibytes(int64_t bytes)
{
    return (double)bytes / (1 << 20);
}
