/* The program `parity`: our models against numbers from PyTorch and diffusers.
 * tests/golden/README.md says what the files hold and how near is near. */
#ifndef AQ_PARITY_H
#define AQ_PARITY_H

#include "frontend/dsl/dsl.h"
#include "runtime/runtime.h"
#include "tests/support/golden.h"

/* ---- config.c: config.json as a task ---- */

/* Model, settings, classes and channels; the batch and the size come from the
 * data.  Anything that we do not have is an error that names it. */
bool config_read(const char *folder, AqTask *task, AqArena *arena,
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

#endif
