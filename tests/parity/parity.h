/* The program `parity`: our models against numbers from PyTorch and diffusers.
 * tests/golden/README.md says what the files hold and how near is near. */
#ifndef AQ_PARITY_H
#define AQ_PARITY_H

#include "frontend/dsl/dsl.h"
#include "runtime/runtime.h"
#include "tests/support/golden.h"

#include <jansson.h>

/* ---- config.c: config.json as a task ---- */

/* What there is of one class of diffusers' models. */
typedef struct Family {
    const char *class_name, *model;
    const struct Key *keys; /* of config.json */
    int n_keys;
    const char *x, *output, *target; /* tensors of step.safetensors */
} Family;

/* Model, settings, classes and channels; the batch and the size come from the
 * data.  Anything that we do not have is an error (and NULL) that names it. */
const Family *config_read(const char *folder, AqTask *task, AqArena *arena,
                          AqError *error);

/* ---- check.c: how far off ---- */

typedef struct Report {
    const char *folder;
    int failed;
} Report;

/* Prints a line; `off` beyond `limit`, or NaN, is a failure. */
void report(Report *r, const char *what, double off, double limit);
double largest(const double *x, int64_t count);
double norm_of(const double *x, int64_t count);
/* max |a - b| / max |b| */
double off_by(const double *a, const double *b, int64_t count);

/* ---- run.c ---- */

/* Runs graphs: by the interpreter, or compiled for this machine. */
typedef struct Runner {
    bool interpret;
    const char *algorithm; /* of every contraction that it suits, or NULL */
    AqPool *pool;
    AqMemory *memory;
    AqCompiled *compiled; /* the last graph */
    const AqGraph *graph;
    bool winograd; /* some kernel of it is a Winograd convolution */
} Runner;

/* `bindings` give every input, param and state by name, `values` get the
 * outputs, updates among them, in their order. */
AqStatus runner_run(Runner *r, const AqGraph *graph, const AqBinding *bindings,
                    int n_bindings, AqValue *values, AqArena *arena,
                    AqError *error);
void runner_end(Runner *r); /* before its graph is freed */

/* ---- parity.c: one folder ---- */

typedef struct Case {
    Report report;
    AqArena *arena;
    AqError error;
    Runner *runner;
    const Family *family;
    AqTask task;
    AqGolden step, model;
    json_t *numbers;             /* step.json */
    int64_t shape[4];            /* of x, as PyTorch has it */
    const char *output, *target; /* tensors of the step */
    AqPrediction prediction;
    double min_snr;
    /* what the model answers, as built: graph, x, t, label are inputs */
    AqGraph *graph;
    const AqParamTable *params;
    double *weights;
    AqBinding bindings[16];
    int n_bindings;
} Case;

bool case_fine(const Case *c);
void case_bind(Case *c, const char *name, const double *data);
json_t *case_numbers(Case *c, const char *name);
/* The model alone; then its parameters and its loss. */
bool case_build(Case *c);
AqTensor case_loss(const Case *c);
/* All tensors PREFIX.NAME of a file, in our layout, as one flat array. */
double *case_place(Case *c, const AqGolden *from, const char *prefix);
void case_bind_weight(Case *c, const double *t);
void case_run(Case *c, AqValue *values);

/* ---- train.c ---- */

void check_training(Case *c);

#endif
