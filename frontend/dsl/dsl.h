/* What the runtime and the command line need of the DSL: models by name, their
 * options, the table of parameters, and the graphs of a training step, of an
 * evaluation and of a sampler's step.  Model authors see aquatint.h alone. */
#ifndef AQ_DSL_H
#define AQ_DSL_H

#include "frontend/dsl/aquatint.h"
#include "ir/ir.h"

/* ---- builtin.c: the models in the library ---- */

int aq_builtin_count(void);
const AqModelInfo *aq_builtin_at(int index);
/* NULL and a sentence with the nearest name if there is none. */
const AqModelInfo *aq_builtin_find(const char *name, AqError *error);

/* Its C text, of so many bytes: what was compiled into the library. */
const char *aq_builtin_text(const AqModelInfo *model, size_t *bytes);

/* ---- options.c: what a model may be told ---- */

/* `--set name=value` */
typedef struct AqSetting {
    const char *name, *value;
} AqSetting;

/* An option as a model asked for it, for `aquatint info` and run.json. */
typedef struct AqOptionSeen {
    const char *name;
    const char *otherwise; /* the default, as it would be written */
    const char *value;     /* what it is */
    const char *range;     /* "1 to 64", "yes or no", "a|b"; "": any */
    const char *help;
} AqOptionSeen;

/* In the graph's arena. */
typedef struct AqOptions {
    const AqSetting *settings;
    int n_settings;
    AqOptionSeen *seen;
    int n_seen, capacity;
} AqOptions;

/* ---- parameters.c ---- */

typedef struct AqParamInfo {
    const char *name; /* "conv_in.weight" */
    AqId node;
    AqType type;           /* our layout, channels last */
    int64_t offset;        /* floats into the flat arrays */
    int file[AQ_MAX_RANK]; /* dimension i of the file is dimension file[i] */
    const char *init;      /* zeros, ones, normal, uniform */
    double value;
} AqParamInfo;

typedef struct AqParamTable {
    AqParamInfo *at; /* by offset; in the graph's arena */
    int count;
    int64_t floats;  /* of a flat array: a multiple of AQ_PARAM_ALIGN */
    int64_t trained; /* without the gaps: what papers count */
} AqParamTable;

/* NULL at the end of memory. */
const AqParamTable *aq_params(AqGraph *graph);
/* The values at the beginning of a run, a function of (key, name), made by at
 * most `threads` threads; `average`, if not NULL, becomes the same. */
void aq_params_start(const AqParamTable *table, const uint32_t key[2],
                     int threads, float *weights, float *average);
/* The shape in files, and the order of elements: from ours to a file's
 * (`to_file`) or back.  Neither array has gaps. */
void aq_param_file_shape(const AqParamInfo *param, int64_t *shape);
void aq_param_permute(const AqParamInfo *param, bool to_file, const float *from,
                      float *to);

/* ---- training.c: whole programs ---- */

/* A model on a shape. */
typedef struct AqTask {
    const AqModelInfo *model;
    const AqSetting *settings;
    int n_settings;
    int batch, height, width, channels; /* height 0: points (N, channels) */
    int classes;                        /* 0: none */
    /* How often a label becomes `classes`, which stands for "none" then (Ho and
     * Salimans 2022); 0: never, and there is no such class. */
    double label_dropout;
    AqProcess process;
} AqTask;

/* The step of training.  Inputs: x f32 (N, ...) in [-1, 1], sample i32 (N), key
 * i32[2], label i32 (N) if there are classes.  States and outputs: see
 * aq_minimize.  `options` (may be NULL) tells which options the model saw. */
AqGraph *aq_training_graph(const AqTask *task, const AqOptimizer *optimizer,
                           const AqOptions **options, AqError *error);
/* The loss alone: output `loss`.  Inputs as above and step i32 scalar. */
AqGraph *aq_evaluation_graph(const AqTask *task, AqError *error);
/* Output `output` = model(x, t): inputs x, t f32 (N), label. */
AqGraph *aq_forward_graph(const AqTask *task, const AqOptions **options,
                          AqError *error);

typedef enum AqSamplerKind {
    AQ_SAMPLER_DDIM,
    AQ_SAMPLER_DDPM,
} AqSamplerKind;

typedef struct AqSampler {
    AqSamplerKind kind;
    int steps; /* 1 to those of the process */
    double eta;
    bool large_variance;
    bool clip;
    /* Classifier-free guidance: eps of no class + guidance (eps of the label -
     * eps of no class); 0 or 1: the label alone. */
    double guidance;
} AqSampler;

/* Updates state x to normal noise.  Inputs: sample i32 (N), key i32[2]. */
AqGraph *aq_noise_graph(const AqTask *task, AqError *error);
/* Updates state x from timestep timesteps[number] to timesteps[number + 1]; -1
 * is the end.  Inputs: timesteps i32[steps + 1] and number i32 scalar, 0 ..
 * steps-1; sample, key where noise is drawn; label.  All but `number` stay the
 * same for the steps of a batch. */
AqGraph *aq_sampler_graph(const AqTask *task, const AqSampler *sampler,
                          AqError *error);
/* The timesteps of `count` steps, falling: round-half-even(T - i T / count) - 1
 * ("trailing" in diffusers, Lin et al. 2023).  count <= T. */
void aq_sampler_timesteps(int total, int count, int *timesteps);

#endif
