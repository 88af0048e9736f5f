/* Command lines: getopt_long over a command's table, and checked values. */
#include "frontend/cli/cli.h"

#include <errno.h>
#include <getopt.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { FIRST_CODE = 1000, HELP_CODE = 999, HELP_COLUMN = 26 };

static int find_option(const AqCli *cli, const char *name)
{
    for (int i = 0; i < cli->command->n_options; i++)
        if (!strcmp(cli->command->options[i].name, name))
            return i;
    return -1;
}

static AqStatus unknown_option(AqCli *cli, const char *word)
{
    const char *names[AQ_CLI_MOST_OPTIONS];
    for (int i = 0; i < cli->command->n_options; i++)
        names[i] = cli->command->options[i].name;
    char bare[64];
    snprintf(bare, sizeof bare, "%s", word + strspn(word, "-"));
    bare[strcspn(bare, "=")] = 0;
    const char *near = aq_nearest(bare, names, cli->command->n_options);
    return aq_fail(&cli->error, AQ_BAD_INPUT,
                   "unknown option %s%s%s (aquatint %s --help lists them)",
                   word, near ? ": did you mean --" : "", near ? near : "",
                   cli->command->name);
}

/* What getopt refused: `word` as it was given, or one letter of several. */
static AqStatus refused(AqCli *cli, const char *word)
{
    if (optopt >= FIRST_CODE)
        return aq_fail(&cli->error, AQ_BAD_INPUT, "option --%s takes no value",
                       cli->command->options[optopt - FIRST_CODE].name);
    char letter[] = {'-', (char)optopt, 0};
    return unknown_option(cli, optopt ? letter : word);
}

static AqStatus take(AqCli *cli, int option, const char *value)
{
    const char *name = cli->command->options[option].name;
    if (value && !*value)
        return aq_fail(&cli->error, AQ_BAD_INPUT, "option --%s needs a value",
                       name);
    cli->value[option] = value ? value : "";
    if (strcmp(name, "set"))
        return AQ_OK;
    if (cli->n_sets == AQ_CLI_MOST_WORDS)
        return aq_fail(&cli->error, AQ_BAD_INPUT, "more than %d times --set",
                       AQ_CLI_MOST_WORDS);
    cli->sets[cli->n_sets++] = value;
    return AQ_OK;
}

static void list_options(const AqCliCommand *command, struct option *options)
{
    for (int i = 0; i < command->n_options; i++)
        options[i] = (struct option){.name = command->options[i].name,
                                     .has_arg = command->options[i].argument
                                                    ? required_argument
                                                    : no_argument,
                                     .val = FIRST_CODE + i};
    options[command->n_options] =
        (struct option){.name = "help", .val = HELP_CODE};
}

AqStatus aq_cli_parse(AqCli *cli, const AqCliCommand *command, int argc,
                      char **argv, bool *help)
{
    struct option options[AQ_CLI_MOST_OPTIONS + 2] = {0};
    *cli = (AqCli){.command = command};
    list_options(command, options);
    opterr = 0;
    for (int code;
         (code = getopt_long(argc, argv, ":h", options, NULL)) >= 0;) {
        if (code == HELP_CODE || code == 'h') {
            *help = true;
            return AQ_OK;
        }
        if (code == ':')
            return aq_fail(&cli->error, AQ_BAD_INPUT, "option %s needs a value",
                           argv[optind - 1]);
        if (code == '?')
            return refused(cli, argv[optind - 1]);
        if (take(cli, code - FIRST_CODE, optarg))
            return cli->error.status;
    }
    for (; optind < argc; optind++) {
        if (cli->n_words == AQ_CLI_MOST_WORDS)
            return aq_fail(&cli->error, AQ_BAD_INPUT, "too many words");
        if (!*argv[optind])
            return aq_fail(&cli->error, AQ_BAD_INPUT,
                           "one of the words is empty");
        cli->words[cli->n_words++] = argv[optind];
    }
    return AQ_OK;
}

/* One option, its help wrapped at 80 columns. */
static void print_option(const AqCliOption *option, FILE *out)
{
    char left[64];
    snprintf(left, sizeof left, "  --%s%s%s", option->name,
             option->argument ? " " : "",
             option->argument ? option->argument : "");
    int column = fprintf(out, "%-*s", HELP_COLUMN, left);
    if (column > HELP_COLUMN)
        column = fprintf(out, "\n%*s", HELP_COLUMN, "") - 1;
    for (const char *word = option->help; *word;) {
        int length = (int)strcspn(word, " ");
        bool begins = word == option->help;
        if (!begins && column + 1 + length > 79) {
            column = fprintf(out, "\n%*s", HELP_COLUMN, "") - 1;
            begins = true;
        }
        column += fprintf(out, "%s%.*s", begins ? "" : " ", length, word);
        word += length;
        word += strspn(word, " ");
    }
    fputc('\n', out);
}

void aq_cli_help(const AqCliCommand *command, FILE *out)
{
    fprintf(out, "usage: aquatint %s %s\n%s\n\n", command->name, command->words,
            command->summary);
    for (int i = 0; i < command->n_options; i++)
        print_option(&command->options[i], out);
    if (command->details)
        fprintf(out, "\n%s\n", command->details);
}

static const char *value_of(const AqCli *cli, const char *option)
{
    int i = find_option(cli, option);
    return i < 0 ? NULL : cli->value[i];
}

bool aq_cli_given(const AqCli *cli, const char *option)
{
    return value_of(cli, option) != NULL;
}

const char *aq_cli_text(AqCli *cli, const char *option, const char *otherwise)
{
    const char *value = value_of(cli, option);
    return value ? value : otherwise;
}

int64_t aq_cli_int(AqCli *cli, const char *option, int64_t otherwise,
                   int64_t min, int64_t max)
{
    const char *text = value_of(cli, option);
    if (!text)
        return otherwise;
    char *end;
    errno = 0;
    long long value = strtoll(text, &end, 10);
    if (end == text || *end)
        aq_fail(&cli->error, AQ_BAD_INPUT, "--%s %s: not a whole number",
                option, text);
    else if (errno || value < min || value > max)
        aq_fail(&cli->error, AQ_BAD_INPUT,
                "--%s %s: must lie between %lld and %lld", option, text,
                (long long)min, (long long)max);
    return value;
}

double aq_cli_real(AqCli *cli, const char *option, double otherwise, double min,
                   double max)
{
    const char *text = value_of(cli, option);
    if (!text)
        return otherwise;
    char *end;
    double value = strtod(text, &end);
    if (end == text || *end || !isfinite(value))
        aq_fail(&cli->error, AQ_BAD_INPUT, "--%s %s: not a number", option,
                text);
    else if (value < min || value > max)
        aq_fail(&cli->error, AQ_BAD_INPUT,
                "--%s %s: must lie between %.10g and %.10g", option, text, min,
                max);
    return value;
}

int64_t aq_cli_bytes(AqCli *cli, const char *option)
{
    const char *text = value_of(cli, option);
    if (!text)
        return 0;
    char *end;
    double value = strtod(text, &end);
    const char *units = "KMGT", *unit = *end ? strchr(units, *end) : NULL;
    for (const char *u = units; unit && u <= unit; u++)
        value *= 1024;
    if (unit)
        end++;
    if (end == text || *end || !(value >= 1) || value > 0x1p60) {
        aq_fail(&cli->error, AQ_BAD_INPUT,
                "--%s %s: not a size (such as 300M or 8G)", option, text);
        return 0;
    }
    return (int64_t)value;
}

AqStatus aq_cli_refuse(AqCli *cli, const AqCliOption *options, int count,
                       const char *why)
{
    for (int i = 0; i < count; i++)
        if (aq_cli_given(cli, options[i].name))
            aq_fail(&cli->error, AQ_BAD_INPUT, "--%s %s", options[i].name, why);
    return cli->error.status;
}

int aq_cli_fail(AqCli *cli)
{
    if (cli->error.status == AQ_OK)
        return 0;
    fprintf(stderr, "aquatint: %s\n", cli->error.text);
    return cli->error.status == AQ_INTERRUPTED ? 130 : 1;
}

int aq_cli_choice(AqCli *cli, const char *option, int otherwise,
                  const char *const *names, int count)
{
    const char *text = value_of(cli, option);
    if (!text)
        return otherwise;
    AqText list = {0};
    for (int i = 0; i < count; i++) {
        if (!strcmp(names[i], text)) {
            aq_text_free(&list);
            return i;
        }
        aq_text_printf(&list, "%s%s", i ? ", " : "", names[i]);
    }
    aq_fail(&cli->error, AQ_BAD_INPUT, "--%s %s: must be one of %s", option,
            text, list.data ? list.data : "");
    aq_text_free(&list);
    return otherwise;
}
