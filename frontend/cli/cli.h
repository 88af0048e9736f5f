/* The program `aquatint`: one file per command.
 *
 * A command is a row of a table: its options, each with help, and what it does.
 * Errors are one line on stderr, "aquatint: ...", and exit status 1; a wrong
 * command line is 2. */
#ifndef AQ_CLI_H
#define AQ_CLI_H

#include "ir/base/base.h"

enum { AQ_CLI_MOST_OPTIONS = 64, AQ_CLI_MOST_WORDS = 64 };

typedef struct AqCliOption {
    const char *name;     /* "steps" of --steps */
    const char *argument; /* "N"; NULL: it is a switch */
    const char *help;
} AqCliOption;

typedef struct AqCli {
    const struct AqCliCommand *command;
    const char *value[AQ_CLI_MOST_OPTIONS]; /* by option; NULL: not given */
    const char *sets[AQ_CLI_MOST_WORDS];    /* every --set, in order */
    int n_sets;
    const char *words[AQ_CLI_MOST_WORDS];   /* what is no option */
    int n_words;
    AqError error;
} AqCli;

typedef struct AqCliCommand {
    const char *name, *words, *summary;
    const char *details; /* after the options in --help; may be NULL */
    const AqCliOption *options;
    int n_options;
    int (*run)(AqCli *cli); /* exit status */
} AqCliCommand;

/* args.c */
AqStatus aq_cli_parse(AqCli *cli, const AqCliCommand *command, int argc,
                      char **argv, bool *help);
void aq_cli_help(const AqCliCommand *command, FILE *out);
/* Values by option name, checked; the error names option and value. */
bool aq_cli_given(const AqCli *cli, const char *option);
const char *aq_cli_text(AqCli *cli, const char *option, const char *otherwise);
int64_t aq_cli_int(AqCli *cli, const char *option, int64_t otherwise,
                   int64_t min, int64_t max);
double aq_cli_real(AqCli *cli, const char *option, double otherwise,
                   double min, double max);
int64_t aq_cli_bytes(AqCli *cli, const char *option); /* 8G, 300M; 0: none */
/* Prints the error, if there is one: the exit status. */
int aq_cli_fail(AqCli *cli);

/* train.c, sample.c, graph.c, info.c, bench.c, version.c */
extern const AqCliCommand aq_cli_train, aq_cli_sample, aq_cli_graph,
    aq_cli_info, aq_cli_bench;
int aq_cli_version(void);

#endif
