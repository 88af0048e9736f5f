/* The program `aquatint`: one file per command.
 *
 * A command is a row of a table: its options, each with help, and what it does.
 * Errors are one line on stderr, "aquatint: ...", and exit status 1; a wrong
 * command line is 2. */
#ifndef AQ_CLI_H
#define AQ_CLI_H

#include "frontend/dsl/dsl.h"
#include "runtime/run.h"

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
    char *names[AQ_CLI_MOST_WORDS]; /* of settings; freed at the end */
    int n_names;
    const char *words[AQ_CLI_MOST_WORDS]; /* what is no option */
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
double aq_cli_real(AqCli *cli, const char *option, double otherwise, double min,
                   double max);
int64_t aq_cli_bytes(AqCli *cli, const char *option); /* 8G, 300M; 0: none */
/* Refuses each of these that was given: "--NAME " and `why`. */
AqStatus aq_cli_refuse(AqCli *cli, const AqCliOption *options, int count,
                       const char *why);
/* Prints the error, if there is one: the exit status. */
int aq_cli_fail(AqCli *cli);

/* One of `count` names, by its number; the error lists them. */
int aq_cli_choice(AqCli *cli, const char *option, int otherwise,
                  const char *const *names, int count);

/* common.c: what every command that runs passes understands */
#define AQ_CLI_PASS_OPTIONS                                                    \
    {"dump", "PASS",                                                           \
     "print the graph after a pass (input, simplify, "                         \
     "split, tidy, fuse, choose, order, recompute)"},                          \
        {"time-passes", NULL, "print what each pass takes"},                   \
    {                                                                          \
        "verify-passes", NULL,                                                 \
            "evaluate the graph before and after each "                        \
            "pass, and compare"                                                \
    }
/* What every command that compiles understands; the cache is of those that make
 * code. */
#define AQ_CLI_COMPILE_OPTIONS                                                 \
    {"threads", "N", "threads (default: all processors)"},                     \
        {"memory", "SIZE",                                                     \
         "budget, such as 8G: parts are computed twice to keep it"},           \
        {"level", "3|4|5",                                                     \
         "force AVX2 (3), AVX-512 (4), or AMX (5), never taken by itself"},    \
        {"algorithm", "NAME",                                                  \
         "force it on every contraction that it suits (for debugging)"},       \
        AQ_CLI_PASS_OPTIONS
#define AQ_CLI_CACHE_OPTION                                                    \
    {                                                                          \
        "no-cache", NULL, "compile everything anew"                            \
    }
#define AQ_CLI_TUNE_OPTION                                                     \
    {                                                                          \
        "tune", NULL,                                                          \
            "measure how contractions are best computed here, before the "     \
            "first step"                                                       \
    }
/* The algorithm asked for, or NULL. */
const char *aq_cli_algorithm(AqCli *cli);
/* What these options, and --algorithm, ask of the passes. */
AqStatus aq_cli_passes(AqCli *cli, AqPipelineOptions *passes);
/* Fills `session` but for `resume`; SIGINT and SIGTERM set its stop flag. */
AqStatus aq_cli_session(AqCli *cli, AqSession *session);
AqStatus aq_cli_settings(AqCli *cli, AqSetting settings[AQ_CLI_MOST_WORDS],
                         int *count);
/* "32" or "24x32": height x width. */
AqStatus aq_cli_size(AqCli *cli, const char *option, int otherwise, int *height,
                     int *width);
double aq_cli_mebibytes(int64_t bytes);
bool aq_cli_ends(const char *text, const char *end); /* "a.png", ".png" */
/* --data, for a run that was read: its data are there now. */
AqStatus aq_cli_moved_data(AqCli *cli, AqRunOptions *run);

/* What a model is given, for info, graph, bench and plan. */
#define AQ_CLI_SHAPE_OPTIONS                                                   \
    {"size", "N|HxW", "of the pictures (default 32); 0: points"},              \
        {"classes", "N", "as of a training with --labels (default: none)"},    \
    {                                                                          \
        "channels", "N",                                                       \
            "of the pictures (default: the model's in_channels, if it is "     \
            "set, else 3), or numbers of a point (2)"                          \
    }
/* --channels; without it what --set says of in_channels, an error unless it is
 * from 1 to `most`; without both, or of no number, `otherwise`. */
int aq_cli_channels(AqCli *cli, int otherwise, int most);
AqStatus aq_cli_shape(AqCli *cli, AqTask *task);
#define AQ_CLI_LABEL_DROPOUT 0.1 /* where there are classes */
/* Then, with the task's model known: points of two columns, where no --size was
 * given and the model takes those but no pictures. */
void aq_cli_suit(AqCli *cli, AqTask *task);

/* process.c: the diffusion process, for train, graph and bench */
#define AQ_CLI_PROCESS_OPTIONS                                                 \
    {"schedule", "NAME", "linear, scaled_linear or cosine (default linear)"},  \
        {"prediction", "NAME", "epsilon, v or x0 (default epsilon)"},          \
        {"timesteps", "N", "of the process (default 1000)"},                   \
    {                                                                          \
        "min-snr", "GAMMA", "weigh the loss by min(SNR, GAMMA) (default: no)"  \
    }
#define AQ_CLI_OPTIMIZER_OPTIONS                                               \
    {"optimizer", "NAME", "adamw, adam, sgd, rmsprop, adagrad"},               \
        {"lr", "RATE", "learning rate (default 2e-4)"},                        \
        {"rate", "NAME",                                                       \
         "constant, linear, cosine; the latter fall to 0 at "                  \
         "--steps (default constant)"},                                        \
        {"warmup", "N", "steps in which the rate rises (default 0)"},          \
        {"beta1", "B", "of Adam (default 0.9)"},                               \
        {"beta2", "B", "of Adam (default 0.999)"},                             \
        {"momentum", "M", "of SGD and RMSprop (default 0.9)"},                 \
        {"decay", "D", "of the weights (default 0.01 for adamw, else 0)"},     \
        {"clip", "NORM", "largest norm of the gradient, 0: none (default 1)"}, \
    {                                                                          \
        "ema", "D",                                                            \
            "decay of the average of weights, 0: none (default "               \
            "0.9999)"                                                          \
    }
void aq_cli_process(AqCli *cli, AqProcess *process);
void aq_cli_optimizer(AqCli *cli, double total_steps, AqOptimizer *optimizer);
/* A line each, for info. */
void aq_cli_print_process(const AqProcess *process);
void aq_cli_print_optimizer(const AqOptimizer *optimizer);

/* step.c: a training step that a command looks at, without data */
typedef struct AqCliStep {
    AqSession session;
    AqModelFile model;
    AqSetting settings[AQ_CLI_MOST_WORDS];
    AqTask task; /* of batch 1 */
    AqOptimizer optimizer;
    AqTarget target;
} AqCliStep;
/* Of the one model that the command names; in any case to be closed. */
AqStatus aq_cli_step_open(AqCli *cli, AqCliStep *step);
void aq_cli_step_close(AqCliStep *step);

/* smaller.c: refuses --verify-passes where it would take too long, and names
 * what does not.  What the passes would see: a training step, samples, both. */
typedef struct AqCliVerified {
    AqTask task;                  /* samples: but for the batch */
    const AqOptimizer *optimizer; /* NULL: there is no training step */
    int samples;                  /* at a time, 0: none */
    AqSampler sampler;
    const char *samples_option; /* "--samples" */
} AqCliVerified;
AqStatus aq_cli_check_verified(AqCli *cli, const AqCliVerified *asked);

/* bench_sample.c: instead of the training step; the task's model is known. */
AqStatus aq_cli_bench_sample(AqCli *cli, const AqTask *task,
                             const AqSession *session, const AqTarget *target);
/* bench_kernels.c: prints where a step's time goes, for bench; `peak` is that
 * of the processor in fused multiply-adds, operations a second, on `threads`.
 */
AqStatus aq_cli_bench_kernels(AqCli *cli, AqCompiled *program, int threads,
                              double peak);

/* train.c, sample.c, graph.c, info.c, bench.c, plan.c, version.c */
extern const AqCliCommand aq_cli_train, aq_cli_sample, aq_cli_graph,
    aq_cli_info, aq_cli_bench, aq_cli_plan;
int aq_cli_version(void);

#endif
