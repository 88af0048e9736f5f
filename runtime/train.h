/* Private to train*.c: a run while it trains. */
#ifndef AQ_TRAIN_H
#define AQ_TRAIN_H

#include "runtime/run.h"

typedef struct AqTrain {
    const char *folder;
    const AqRunOptions *options;
    const AqSession *session;
    AqError *error;
    AqModelFile model;
    AqDataset *set;
    AqGraph *graph;
    const AqOptions *seen;
    const AqParamTable *params;
    AqPool *pool;
    AqMemory *memory;
    AqCompiled *program;
    AqLoader *loader;
    AqMetrics *metrics;
    AqProgress progress;
    AqCheckpoint state;
    AqTask task;
    AqArena *choices; /* what was measured */
    AqTuning tuning;
    AqTarget target;
    int lock;              /* an open file, -1: none */
    int64_t data_bytes;    /* held by pictures and batches */
    int64_t sample_bytes;  /* while samples are drawn */
    int64_t program_limit; /* what is left of the budget; 0: no limit */
    int64_t first_step;    /* of this stretch */
    int skips;             /* in a row */
    double began, step_seconds;
    double gradient_norm, learning_rate; /* of the last step */
    /* since the last row of metrics */
    double interval_began, loss_sum;
    int64_t interval_steps, interval_losses;
} AqTrain;

/* train_setup.c: everything from the options to the first step; what was
 * opened is closed by aq_train_close, whatever came of it. */
AqStatus aq_train_open(AqTrain *t);
void aq_train_close(AqTrain *t);
AqProgramSettings aq_train_settings(const AqTrain *t);

/* train_samples.c: a sheet of samples; and, before the first step, what it will
 * take, and whether a budget has room for it. */
AqStatus aq_train_samples(AqTrain *t);
AqStatus aq_train_check_samples(AqTrain *t);
/* Bytes that a budget is short of for one sample at a time; 0: none. */
int64_t aq_train_samples_lack(AqTrain *t);

#endif
