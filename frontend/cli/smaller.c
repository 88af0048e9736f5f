/* --verify-passes is for small programs: what takes longer than a minute is
 * refused here, with words that make it short enough.
 *
 * They are found by halving, as long as the model takes it and the estimate
 * falls: the batch, the samples, the size, then the model's own whole numbers
 * in the order in which it asks for them (a third, where it takes no half). */
#include "frontend/cli/cli.h"

#include <stdlib.h>
#include <string.h>

enum { MOST_SETTINGS = 2 * AQ_CLI_MOST_WORDS };

/* A setting, and what it takes. */
typedef struct Trial {
    AqTask task;
    int samples; /* drawn at a time; 0: none */
    AqSetting settings[MOST_SETTINGS];
    double longest; /* seconds of one program */
    double sum;     /* of all */
} Trial;

typedef struct Search {
    const AqCliVerified *asked;
    Trial best;
    AqOptions options; /* as the model was asked with what the user set */
    AqArena *arena;    /* of the settings that were found */
    int first;         /* of those */
} Search;

/* ---- estimates ---- */

static void add_program(Trial *trial, AqGraph *graph)
{
    double seconds = graph ? aq_verify_seconds(graph) : 0;
    trial->longest = AQ_MAX(trial->longest, seconds);
    trial->sum += seconds;
    aq_graph_free(graph);
}

/* False: the model does not take it. */
static bool estimate(const Search *s, Trial *trial, AqError *error)
{
    trial->task.settings = trial->settings;
    trial->longest = trial->sum = 0;
    if (s->asked->optimizer)
        add_program(trial, aq_training_graph(&trial->task, s->asked->optimizer,
                                             NULL, error));
    if (trial->samples > 0 && !error->status) {
        AqTask drawn = trial->task;
        drawn.batch = trial->samples;
        add_program(trial, aq_sampler_graph(&drawn, &s->asked->sampler, error));
    }
    return !error->status;
}

static bool is_short(const Search *s)
{
    return s->best.longest <= AQ_VERIFY_SECONDS;
}

/* Takes what is possible and worth it. */
static bool improve(Search *s, Trial *trial)
{
    AqError error = {0};
    if (!estimate(s, trial, &error) || trial->sum > 0.9 * s->best.sum)
        return false;
    s->best = *trial;
    return true;
}

/* ---- what can be halved ---- */

static bool halve_batch(Search *s)
{
    Trial next = s->best;
    next.task.batch /= 2;
    return s->asked->optimizer && next.task.batch > 0 && improve(s, &next);
}

static bool halve_samples(Search *s)
{
    Trial next = s->best;
    next.samples /= 2;
    return next.samples > 0 && improve(s, &next);
}

static bool halve_size(Search *s)
{
    Trial next = s->best;
    next.task.height /= 2;
    next.task.width /= 2;
    return next.task.height > 0 && next.task.width > 0 && improve(s, &next);
}

/* The last setting of a name counts. */
static const char *value_of(const Trial *trial, const AqOptionSeen *option)
{
    const char *value = option->value;
    for (int i = 0; i < trial->task.n_settings; i++)
        if (!strcmp(trial->settings[i].name, option->name))
            value = trial->settings[i].value;
    return value;
}

static bool is_whole(const char *text)
{
    return *text && strspn(text, "0123456789") == strlen(text);
}

/* To no less than the model's least. */
static bool divide_option(Search *s, const AqOptionSeen *option, int by)
{
    Trial next = s->best;
    const char *value = value_of(&next, option);
    int least, most;
    long part = is_whole(value) ? strtol(value, NULL, 10) / by : 0;
    if (sscanf(option->range, "%d to %d", &least, &most) != 2)
        least = 1;
    if (part < AQ_MAX(least, 1))
        return false;
    const char *text = aq_arena_printf(s->arena, "%ld", part);
    int at = s->first;
    while (at < next.task.n_settings &&
           strcmp(next.settings[at].name, option->name))
        at++;
    if (!text || at == MOST_SETTINGS)
        return false;
    next.settings[at] = (AqSetting){option->name, text};
    next.task.n_settings = AQ_MAX(next.task.n_settings, at + 1);
    return improve(s, &next);
}

static void search(Search *s)
{
    static bool (*const halve[])(Search *) = {halve_batch, halve_samples,
                                              halve_size};
    for (int i = 0; i < AQ_COUNT(halve); i++)
        while (!is_short(s) && halve[i](s))
            ;
    for (int i = 0; i < s->options.n_seen; i++)
        while (!is_short(s) && (divide_option(s, &s->options.seen[i], 2) ||
                                divide_option(s, &s->options.seen[i], 3)))
            ;
}

/* ---- words ---- */

static void print_words(const Search *s, AqText *text)
{
    const AqTask *asked = &s->asked->task, *now = &s->best.task;
    if (now->batch != asked->batch)
        aq_text_printf(text, " --batch %d", now->batch);
    if (s->best.samples != s->asked->samples)
        aq_text_printf(text, " %s %d", s->asked->samples_option,
                       s->best.samples);
    if (now->height != asked->height && now->height == now->width)
        aq_text_printf(text, " --size %d", now->height);
    else if (now->height != asked->height)
        aq_text_printf(text, " --size %dx%d", now->height, now->width);
    for (int i = s->first; i < now->n_settings; i++)
        aq_text_printf(text, " --set %s=%s", s->best.settings[i].name,
                       s->best.settings[i].value);
}

static AqStatus refuse(const Search *s, double seconds, AqError *error)
{
    AqText words = {0};
    print_words(s, &words);
    const char *found = words.data ? words.data : "";
    if (is_short(s))
        aq_fail(error, AQ_BAD_INPUT,
                "--verify-passes would take about %.0f minutes:%s would "
                "take about %.0f seconds",
                seconds / 60 + 0.5, found, s->best.longest + 0.5);
    else
        aq_fail(error, AQ_BAD_INPUT,
                "--verify-passes would take about %.0f minutes%s%s%s: choose a "
                "smaller model",
                seconds / 60 + 0.5, *found ? ", and too long even with" : "",
                found, *found ? "" : ", and nothing can be halved");
    aq_text_free(&words);
    return error->status;
}

/* ---- all of it ---- */

/* The model's options, kept beyond the graph that saw them. */
static AqStatus read_options(Search *s, AqError *error)
{
    const AqOptions *seen = NULL;
    AqGraph *graph = aq_forward_graph(&s->asked->task, &seen, error);
    int count = graph ? seen->n_seen : 0;
    s->options.seen = AQ_NEW_ARRAY(s->arena, AqOptionSeen, count + 1);
    for (int i = 0; s->options.seen && i < count; i++)
        s->options.seen[i] = (AqOptionSeen){
            .name = aq_arena_copy_text(s->arena, seen->seen[i].name),
            .value = aq_arena_copy_text(s->arena, seen->seen[i].value),
            .range = aq_arena_copy_text(s->arena, seen->seen[i].range)};
    if (s->options.seen)
        s->options.n_seen = count;
    aq_graph_free(graph);
    return error->status;
}

static AqStatus begin(Search *s, AqError *error)
{
    s->arena = aq_arena_new();
    if (!s->arena)
        return aq_no_memory(error, sizeof *s);
    const AqTask *task = &s->asked->task;
    s->first = task->n_settings;
    s->best = (Trial){.task = *task, .samples = s->asked->samples};
    for (int i = 0; i < task->n_settings; i++)
        s->best.settings[i] = task->settings[i];
    return estimate(s, &s->best, error) ? AQ_OK : error->status;
}

AqStatus aq_cli_check_verified(AqCli *cli, const AqCliVerified *asked)
{
    if (cli->error.status || !aq_cli_given(cli, "verify-passes"))
        return cli->error.status;
    Search s = {.asked = asked};
    if (!begin(&s, &cli->error) && !is_short(&s) &&
        !read_options(&s, &cli->error)) {
        double seconds = s.best.longest;
        search(&s);
        refuse(&s, seconds, &cli->error);
    }
    aq_arena_free(s.arena);
    return cli->error.status;
}
