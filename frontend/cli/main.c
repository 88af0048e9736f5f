/* aquatint: finds the command and runs it. */
#include "frontend/cli/cli.h"

#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>

static const AqCliCommand *const commands[] = {
    &aq_cli_train, &aq_cli_sample, &aq_cli_graph,
    &aq_cli_info,  &aq_cli_bench,  &aq_cli_plan,
};

static void usage(FILE *out)
{
    fputs(
        "usage: aquatint COMMAND ...\n"
        "Trains diffusion models on CPUs, compiled for exactly this model.\n\n",
        out);
    for (int i = 0; i < AQ_COUNT(commands); i++)
        fprintf(out, "  %-8s %s\n", commands[i]->name, commands[i]->summary);
    fputs("\naquatint COMMAND --help tells a command's options; "
          "aquatint --version what is in use.\n",
          out);
}

static int unknown_command(const char *word)
{
    const char *names[AQ_COUNT(commands)];
    for (int i = 0; i < AQ_COUNT(commands); i++)
        names[i] = commands[i]->name;
    const char *near = aq_nearest(word, names, AQ_COUNT(commands));
    fprintf(stderr,
            "aquatint: unknown command %s%s%s (aquatint --help lists them)\n",
            word, near ? ": did you mean " : "", near ? near : "");
    return 2;
}

/* Where one of them is closed, a file opened later would take its number and
 * get what is printed.  A pipe that nobody reads is an error like others. */
static void prepare_streams(void)
{
    for (int file = 0; file <= 2; file++) /* gets the lowest free number */
        if (fcntl(file, F_GETFD) < 0)
            open("/dev/null", O_RDONLY);
    signal(SIGCHLD, SIG_DFL); /* how children end is asked for */
    signal(SIGPIPE, SIG_IGN);
    signal(SIGXFSZ, SIG_IGN); /* as writing to a full disk */
}

/* The status, unless what was printed did not arrive. */
static int finish(int status)
{
    if (!fflush(stdout) && !ferror(stdout))
        return status;
    fputs("aquatint: standard output could not be written\n", stderr);
    return status ? status : 1;
}

static int run(const AqCliCommand *command, int argc, char **argv)
{
    AqCli cli;
    bool help = false;
    if (aq_cli_parse(&cli, command, argc, argv, &help)) {
        aq_cli_fail(&cli);
        return 2;
    }
    if (help) {
        aq_cli_help(command, stdout);
        return 0;
    }
    int status = command->run(&cli);
    for (int i = 0; i < cli.n_names; i++)
        free(cli.names[i]);
    return status;
}

static int command(int argc, char **argv)
{
    if (argc < 2) {
        usage(stderr);
        return 2;
    }
    if (!strcmp(argv[1], "--help") || !strcmp(argv[1], "-h") ||
        !strcmp(argv[1], "help")) {
        usage(stdout);
        return 0;
    }
    if (!strcmp(argv[1], "--version"))
        return aq_cli_version();
    for (int i = 0; i < AQ_COUNT(commands); i++)
        if (!strcmp(commands[i]->name, argv[1]))
            return run(commands[i], argc - 1, argv + 1);
    return unknown_command(argv[1]);
}

int main(int argc, char **argv)
{
    prepare_streams();
    return finish(command(argc, argv));
}
