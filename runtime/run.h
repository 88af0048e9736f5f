/* Runs: a model, a data set and a folder that holds all there is to know.
 *
 *     runs/emoji/  run.json  model.c  model.so  graph.svg  metrics.csv loss.svg
 *                  samples/004000.png
 *                  checkpoints/004000/state.json + *.safetensors
 *
 * run.json says what was asked for and never changes; a checkpoint is complete
 * by itself and appears by one rename. */
#ifndef AQ_RUN_H
#define AQ_RUN_H

#include "frontend/dsl/dsl.h"
#include "runtime/files.h"
#include "runtime/runtime.h"

#include <pthread.h>

/* ---- model_file.c: models from the library or from a C file ---- */

typedef struct AqModelFile {
    const AqModelInfo *info;
    void *library; /* of dlopen; NULL for a model of the library */
    char *source;  /* the C text, malloc'd */
    size_t source_bytes;
} AqModelFile;

/* `name` is a path to a C file, or a model of the library.  A file is compiled
 * with the system's C compiler into folder/model.so (NULL: a temporary file);
 * the compiler's own messages go to stderr.  Loading a model runs its code. */
AqStatus aq_model_open(const char *name, const char *folder, AqModelFile *model,
                       AqError *error);
void aq_model_close(AqModelFile *model);

/* ---- start.c: initial values, drawn while the program is made ---- */

typedef struct AqStart {
    const AqParamTable *params;
    uint64_t seed;
    AqMemory *memory;
    AqPool *pool;
    int64_t memory_limit; /* for what is new; 0: none */
    /* its own: */
    float *weights, *average;
    pthread_t thread;
    bool had, drawing;
} AqStart;

/* Before the program of `graph` is made in `memory`; all of these stay until
 * the end.  Weights that are in `memory` already have their values. */
void aq_start_begin(AqStart *start, const AqGraph *graph);
/* After it, also where it could not be made; if it was, weights and "ema",
 * where there are such arrays, have their values. */
void aq_start_end(AqStart *start, bool made);

/* ---- loader.c: batches in a fixed order, made ahead on a thread ---- */

typedef struct AqLoaderOptions {
    int batch;
    uint64_t seed;
    bool flip;        /* every other picture, by chance, left to right */
    bool random_crop; /* else the centre */
    int64_t first;    /* number of the first sample in the order of the run */
} AqLoaderOptions;

/* Sample n of a run is picture order[n % count] of epoch n / count: every epoch
 * is a permutation of the set; permutation, flips and crops are functions of
 * (seed, n), so a run can begin anywhere. */
typedef struct AqBatch {
    float *x;        /* (batch, H, W, C) or (batch, C), in [-1, 1] */
    int32_t *sample; /* n, modulo 2^32 */
    int32_t *label;
} AqBatch;

typedef struct AqLoader AqLoader;

AqLoader *aq_loader_new(const AqDataset *set, const AqLoaderOptions *options,
                        AqError *error);
void aq_loader_free(AqLoader *loader);
/* The next batch, valid until the next call; NULL if a picture failed. */
const AqBatch *aq_loader_next(AqLoader *loader, AqError *error);
/* What one takes, known before there is one. */
int64_t aq_loader_bytes(const AqDataset *set, int batch);

/* ---- checkpoint.c ---- */

typedef struct AqCheckpoint {
    int64_t step, updates;
    double seconds; /* of training so far */
    double loss;    /* smoothed; NaN before the first step */
} AqCheckpoint;

/* Writes folder/NNNNNN: weights and ema (if `memory` has it) under PyTorch's
 * names and layouts, optimizer (every other flat state), state.json with a
 * hash of each file.  Beside, synced, renamed. */
AqStatus aq_checkpoint_write(const char *folder, const AqCheckpoint *state,
                             const AqParamTable *params, const AqMemory *memory,
                             AqError *error);
/* Reads it back into the arrays of `memory`; every bit is checked. */
AqStatus aq_checkpoint_read(const char *path, AqCheckpoint *state,
                            const AqParamTable *params, AqMemory *memory,
                            AqError *error);
/* The newest in the folder, in the arena; NULL with AQ_OK if there is none. */
char *aq_checkpoint_latest(const char *folder, AqArena *arena, AqError *error);
/* Removes all but the newest `keep`. */
void aq_checkpoint_prune(const char *folder, int keep);

/* ---- run_file.c: run.json ---- */

typedef struct AqRunOptions {
    const char *model; /* as given */
    const char *data;  /* as given */
    AqSetting settings[64];
    int n_settings;
    int height, width, channels, batch, classes;
    double label_dropout;
    bool flip, random_crop;
    AqProcess process;
    AqOptimizer optimizer;
    uint64_t seed;
    int64_t steps; /* total; 0: until the time is over */
    int64_t save_every, sample_every, log_every;
    int sample_count, sample_steps;
    const char *algorithm; /* wanted for contractions, or NULL */
    AqTuning tuning;       /* measured when the run began */
    /* in a run that was read: what it was begun on */
    const char *target, *fingerprint;
    const char *place; /* the data, from the root; NULL: they name no path */
    const AqColumn *columns; /* of points, one for each channel; else NULL */
} AqRunOptions;

AqStatus aq_run_write(const char *folder, const AqRunOptions *options,
                      const AqDataset *set, const AqOptions *seen,
                      const AqTarget *target, AqError *error);
/* Of the data, in 32 hexadecimal digits and a NUL, as run.json has it. */
void aq_run_fingerprint(const AqDataset *set, char digits[33]);
/* The spec of the run's data: from any folder in a run that was read, and where
 * the path from the root leads nowhere, as given.  An error that says so if
 * neither is there. */
AqStatus aq_run_find_data(const AqRunOptions *options, const char **spec,
                          AqError *error);
/* Texts go into the arena.  Every value lies in its range. */
AqStatus aq_run_read(const char *folder, AqArena *arena, AqRunOptions *options,
                     AqError *error);

/* ---- metrics.c: metrics.csv and the loss curve ---- */

typedef struct AqMetrics AqMetrics;

typedef struct AqMetricsRow {
    int64_t step;
    double seconds, loss, gradient_norm, learning_rate, images_per_second;
} AqMetricsRow;

/* Opens folder/metrics.csv; rows after `step` belong to a future that was lost
 * and are dropped. */
AqMetrics *aq_metrics_open(const char *folder, int64_t step, AqError *error);
AqStatus aq_metrics_add(AqMetrics *metrics, const AqMetricsRow *row,
                        AqError *error); /* in the file when it returns */
/* Draws folder/loss.svg of all rows, if there are any. */
AqStatus aq_metrics_plot(const AqMetrics *metrics, AqError *error);
void aq_metrics_close(AqMetrics *metrics);

/* ---- train_setup.c, train_samples.c: what a run's options stand for ---- */

AqTask aq_run_task(const AqRunOptions *options, const AqModelInfo *model,
                   int batch);
AqSampler aq_run_sampler(const AqRunOptions *options);
/* The batch in which a sheet is drawn, where no budget makes it smaller. */
int aq_run_samples_at_a_time(const AqRunOptions *options);

/* ---- train.c ---- */

/* What differs from one stretch of a run to the next. */
typedef struct AqSession {
    int threads;
    double seconds; /* of this stretch; 0: no limit */
    int64_t memory_limit;
    int level; /* forced instruction-set level, 0: the best */
    AqCompileOptions compile;
    AqPipelineOptions passes;
    bool resume;
    bool tune; /* measure how contractions are computed, in a new run */
    const volatile int *stop; /* becomes not 0 when asked to stop */
} AqSession;

/* Trains until `steps` or `seconds` are over or *stop is set; leaves a
 * checkpoint behind.  Progress goes to stderr. */
AqStatus aq_train(const char *folder, const AqRunOptions *options,
                  const AqSession *session, AqError *error);

/* ---- sample.c ---- */

typedef struct AqSampleOptions {
    int count, batch;
    uint64_t seed;
    int label; /* -1: all classes in turn */
    AqSampler sampler;
    bool raw; /* the weights themselves, not their average */
} AqSampleOptions;

/* Programs that make pictures out of the states of `memory`. */
typedef struct AqGenerator AqGenerator;

AqGenerator *aq_generator_new(const AqTask *task, const AqSampler *sampler,
                              AqMemory *memory, AqPool *pool, bool raw,
                              const AqProgramSettings *settings,
                              AqError *error);
void aq_generator_free(AqGenerator *generator);
/* All that it allocates; known, too, of one that is planned only, which cannot
 * generate. */
int64_t aq_generator_bytes(const AqGenerator *generator);
/* (count, H, W, C) or (count, C) floats into out; sample i is a function of
 * (seed, i). */
AqStatus aq_generate(AqGenerator *generator, const AqSampleOptions *options,
                     float *out, const volatile int *stop, AqError *error);

/* ---- draw.c: pictures of graphs ---- */

/* By the ending of `path`: .dot is the text itself; .svg and .png are drawn by
 * Graphviz's `dot`, a child that is killed after `seconds` (0: no limit).  When
 * there is no `dot`, or it gives up, the text stays beside as PATH.dot, and the
 * error says so. */
AqStatus aq_draw(const char *path, const AqText *dot, double seconds,
                 AqError *error);
/* The model of a task, as it is built. */
AqStatus aq_draw_model(const AqTask *task, const char *path, double seconds,
                       AqError *error);

/* ---- points_sheet.c: samples that are points ---- */

typedef struct AqPointSheet {
    AqSamples samples;       /* of height and width 0 */
    const AqColumn *columns; /* one for each channel */
    int classes;             /* 0: none */
    int label;               /* of all; -1: sample i is of i % classes */
    const AqDataset *set;    /* drawn below the samples; NULL: not there */
    const char *title;
} AqPointSheet;

/* A row a sample, in the data's units, and its class. */
AqStatus aq_points_csv(const char *path, const AqPointSheet *sheet,
                       AqError *error);
/* The plane of the first two columns. */
AqStatus aq_points_svg(const char *path, const AqPointSheet *sheet,
                       AqError *error);

/* ---- progress.c: one line on a terminal, plain lines elsewhere ---- */

typedef struct AqProgress {
    bool terminal;
    double last_shown;
    int width; /* of the line on the screen now */
} AqProgress;

void aq_progress_begin(AqProgress *progress);
/* `now` forces a line (the last step). */
void aq_progress_show(AqProgress *progress, bool now, const char *format, ...)
    AQ_PRINTF(3, 4);
void aq_progress_end(AqProgress *progress);
/* "1 h 12 min", "43 s" */
const char *aq_duration(char *text, size_t size, double seconds);

#endif
