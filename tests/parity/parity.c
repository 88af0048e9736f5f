/* parity [--interpret] FOLDER...
 *
 * Each folder holds a model of diffusers and numbers computed with it: one
 * step (output, loss, gradient of every tensor) and, where there is a
 * train.json, ten steps of an optimizer.  We build the same model, load the
 * same weights and compare.  Exits with 1 if anything is off by more than the
 * limits of tests/golden/README.md. */
#include "tests/parity/parity.h"

#include <jansson.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

/* Limits, by direct convolution and by Winograd's. */
static const double output_limit[] = {1e-5, 2e-4}, loss_limit[] = {1e-6, 1e-5};
static const double gradient_limit[] = {5e-5, 5e-4};
static const double small_gradient_limit[] = {1e-6, 1e-5};
static const double train_loss_limit = 1e-4, train_norm_limit = 5e-4;
static const double movement_limit = 5e-4;

typedef struct Case {
    Report report;
    AqArena *arena;
    AqError error;
    Runner *runner;
    AqTask task;
    AqGolden step, model;
    json_t *numbers;  /* step.json */
    int64_t shape[4]; /* of x, as PyTorch has it */
    AqPrediction prediction;
    double min_snr;
    /* what the model answers, as built: graph, x, t, label are inputs */
    AqGraph *graph;
    const AqParamTable *params;
    double *weights;
    AqBinding bindings[16];
    int n_bindings;
} Case;

static bool fine(const Case *c)
{
    return c->error.status == AQ_OK;
}

static void bind(Case *c, const char *name, const double *data)
{
    for (int i = 0; i < c->n_bindings; i++)
        if (strcmp(c->bindings[i].name, name) == 0) {
            c->bindings[i].data = data;
            return;
        }
    c->bindings[c->n_bindings++] = (AqBinding){name, data};
}

static json_t *read_numbers(Case *c, const char *name)
{
    char *path = aq_arena_printf(c->arena, "%s/%s", c->report.folder, name);
    json_error_t why;
    json_t *json = json_load_file(path ? path : "", 0, &why);
    if (!json)
        aq_fail(&c->error, AQ_BAD_INPUT, "%s:%d: %s", path, why.line, why.text);
    return json;
}

/* ---- the model and its weights ---- */

static bool same_shape(const AqParamInfo *p, const AqTensorInfo *info)
{
    int64_t shape[AQ_MAX_RANK];
    aq_param_file_shape(p, shape);
    if (p->type.rank != info->rank)
        return false;
    for (int i = 0; i < info->rank; i++)
        if (shape[i] != info->shape[i])
            return false;
    return true;
}

/* A tensor of a file, in our layout, at its place in a flat array. */
static bool place_tensor(Case *c, const AqGolden *from, const AqParamInfo *p,
                         const char *name, double *flat)
{
    const AqTensorInfo *info = aq_golden_find(from, name);
    int64_t count = aq_elements(&p->type);
    float *theirs = AQ_NEW_ARRAY(c->arena, float, 2 * count);
    if (!info || !same_shape(p, info)) {
        aq_fail(&c->error, AQ_BAD_INPUT,
                "tensor %s is missing or of another "
                "shape",
                name);
        return false;
    }
    if (!theirs || aq_tensors_read_floats(from->file, info, theirs, &c->error))
        return false;
    aq_param_permute(p, false, theirs, theirs + count);
    for (int64_t i = 0; i < count; i++)
        flat[p->offset + i] = theirs[count + i];
    return true;
}

static double *place_all(Case *c, const AqGolden *from, const char *prefix)
{
    double *flat = AQ_NEW_ARRAY(c->arena, double, c->params->floats);
    for (int i = 0; flat && i < c->params->count; i++) {
        const AqParamInfo *p = &c->params->at[i];
        char *name = aq_arena_printf(c->arena, "%s%s", prefix, p->name);
        if (!name || !place_tensor(c, from, p, name, flat))
            return NULL;
    }
    return flat;
}

/* Also that the file has no tensor that we do not. */
static void load_weights(Case *c)
{
    c->weights = place_all(c, &c->model, "");
    if (fine(c) && aq_tensors_count(c->model.file) != c->params->count)
        aq_fail(&c->error, AQ_BAD_INPUT,
                "the file has %d tensors and our model %d",
                aq_tensors_count(c->model.file), c->params->count);
    bind(c, "weights", c->weights);
}

static bool build(Case *c)
{
    runner_end(c->runner);
    aq_graph_free(c->graph);
    c->graph = aq_forward_graph(&c->task, NULL, &c->error);
    c->params = c->graph ? aq_params(c->graph) : NULL;
    return c->params != NULL;
}

static AqTensor model_output(const Case *c)
{
    return (AqTensor){c->graph, c->graph->outputs[0].node};
}

/* The loss of the golden README, for a target that is an input. */
static AqTensor loss_of(const Case *c, AqTensor y)
{
    AqTensor target = aq_input(c->graph, "target", aq_shape(y));
    if (c->min_snr == 0)
        return aq_mse(y, target);
    AqTensor weight = aq_input(c->graph, "weight", AQ_SHAPE(c->task.batch));
    return aq_weighted_mse(y, target, weight);
}

/* ---- one step ---- */

static bool read_inputs(Case *c)
{
    const AqTensorInfo *x = aq_golden_find(&c->step, "xt");
    if (!x || x->rank != 4) {
        aq_fail(&c->error, AQ_BAD_INPUT, "step.safetensors has no image xt");
        return false;
    }
    memcpy(c->shape, x->shape, sizeof(c->shape));
    c->task.batch = (int)x->shape[0];
    c->task.height = (int)x->shape[2];
    c->task.width = (int)x->shape[3];
    if (aq_golden_find(&c->step, "v"))
        c->prediction = AQ_VELOCITY;
    const double *xt = aq_golden_read(&c->step, "xt");
    if (!xt)
        return false;
    bind(c, "x", aq_channels_last(c->arena, xt, c->shape));
    bind(c, "t", aq_golden_read(&c->step, "t"));
    if (c->task.classes)
        bind(c, "label", aq_golden_read(&c->step, "class_labels"));
    return fine(c);
}

static const char *output_name(const Case *c)
{
    return c->prediction == AQ_VELOCITY ? "v" : "eps";
}

static const char *target_name(const Case *c)
{
    return c->prediction == AQ_VELOCITY ? "target" : "noise";
}

/* weight[n] = min-SNR of timestep t[n] */
static void bind_weight(Case *c, const double *t)
{
    AqProcess p = {.prediction = c->prediction, .min_snr = c->min_snr};
    int steps = aq_process_steps(&p);
    double *abar = AQ_NEW_ARRAY(c->arena, double, steps + c->task.batch);
    double *weight = abar + steps;
    aq_process_alphas(&p, abar);
    for (int n = 0; n < c->task.batch; n++) {
        double a = abar[(int)t[n]], snr = a / (1 - a);
        double below = c->prediction == AQ_VELOCITY ? snr + 1 : snr;
        weight[n] = fmin(snr, p.min_snr) / below;
    }
    bind(c, "weight", weight);
}

/* The files do not say whether the loss was weighted; the loss of the stored
 * output does. */
static void find_weighting(Case *c, const double *y, const double *target)
{
    double loss = json_number_value(json_object_get(c->numbers, "loss"));
    int64_t count = c->shape[0] * c->shape[1] * c->shape[2] * c->shape[3];
    double plain = 0;
    for (int64_t i = 0; i < count; i++)
        plain += (y[i] - target[i]) * (y[i] - target[i]) / (double)count;
    c->min_snr = fabs(plain - loss) <= 1e-4 * loss ? 0 : 5;
}

static void compare_gradients(Case *c, const AqValue *gradients)
{
    double most = 0, worst = 0, worst_small = 0;
    double *flat = place_all(c, &c->step, "grad.");
    if (!flat)
        return;
    most = largest(flat, c->params->floats);
    const char *name = "none";
    for (int i = 0; i < c->params->count; i++) {
        const AqParamInfo *p = &c->params->at[i];
        const double *theirs = flat + p->offset, *ours = gradients[i].data;
        int64_t count = aq_elements(&p->type);
        double *off = AQ_NEW_ARRAY(c->arena, double, count);
        for (int64_t j = 0; j < count; j++)
            off[j] = ours[j] - theirs[j];
        if (largest(theirs, count) <= 1e-5 * most) {
            worst_small = fmax(worst_small, largest(off, count) / most);
            continue;
        }
        double ratio = norm_of(off, count) / norm_of(theirs, count);
        if (!(ratio <= worst)) {
            worst = ratio;
            name = p->name;
        }
    }
    char *what = aq_arena_printf(c->arena, "step: gradient of %s", name);
    report(&c->report, what, worst, gradient_limit[c->runner->winograd]);
    report(&c->report, "step: gradients that are nearly 0", worst_small,
           small_gradient_limit[c->runner->winograd]);
}

static void differentiate(Case *c, AqTensor loss)
{
    int count = c->params->count;
    AqTensor *all = AQ_NEW_ARRAY(c->arena, AqTensor, 2 * count);
    for (int i = 0; i < count; i++)
        all[i] = (AqTensor){c->graph, c->params->at[i].node};
    aq_gradient(loss, all, count, all + count);
    aq_output(loss, "loss");
    for (int i = 0; i < count; i++)
        aq_output(all[count + i],
                  aq_arena_printf(c->arena, "grad.%s", c->params->at[i].name));
}

static void run(Case *c, AqValue *values)
{
    if (aq_graph_error(c->graph))
        aq_fail(&c->error, AQ_BAD_INPUT, "%s", aq_graph_error(c->graph));
    if (fine(c))
        runner_run(c->runner, c->graph, c->bindings, c->n_bindings, values,
                   c->arena, &c->error);
}

static void check_step(Case *c)
{
    const double *theirs = aq_golden_read(&c->step, output_name(c));
    const double *target = aq_golden_read(&c->step, target_name(c));
    if (!theirs || !target || !build(c))
        return;
    load_weights(c);
    find_weighting(c, theirs, target);
    bind_weight(c, aq_golden_read(&c->step, "t"));
    bind(c, "target", aq_channels_last(c->arena, target, c->shape));
    AqTensor y = model_output(c);
    differentiate(c, loss_of(c, y));
    AqValue *values = AQ_NEW_ARRAY(c->arena, AqValue, c->graph->n_outputs);
    run(c, values);
    if (!fine(c))
        return;
    double *ours = aq_channels_first(c->arena, values[0].data, c->shape);
    int64_t count = aq_elements(&values[0].type);
    report(&c->report, "step: output", off_by(ours, theirs, count),
           output_limit[c->runner->winograd]);
    double loss = json_number_value(json_object_get(c->numbers, "loss"));
    report(&c->report, c->min_snr > 0 ? "step: loss (min-SNR)" : "step: loss",
           fabs(values[1].data[0] / loss - 1), loss_limit[c->runner->winograd]);
    compare_gradients(c, values + 2);
}

/* ---- ten steps ---- */

typedef struct Training {
    json_t *numbers; /* train.json */
    AqGolden tensors;
    const double *x0, *t, *noise; /* t and noise of all steps */
    double *m, *v, *ema, *start;
    double counters[2]; /* step, updates */
} Training;

/* x_t and the target of a step, by the linear schedule. */
static void bind_data(Case *c, const Training *tr, int step)
{
    AqProcess p = {0};
    double abar[1000];
    aq_process_alphas(&p, abar);
    int64_t each = c->shape[1] * c->shape[2] * c->shape[3];
    int64_t count = each * c->shape[0];
    const double *t = tr->t + step * c->shape[0];
    const double *noise = tr->noise + step * count;
    double *x = AQ_NEW_ARRAY(c->arena, double, 2 * count);
    double *target = x + count;
    for (int64_t i = 0; i < count; i++) {
        double a = abar[(int)t[i / each]], s = sqrt(a), n = sqrt(1 - a);
        x[i] = s * tr->x0[i] + n * noise[i];
        target[i] = c->prediction == AQ_VELOCITY ? s * noise[i] - n * tr->x0[i]
                                                 : noise[i];
    }
    bind(c, "x", aq_channels_last(c->arena, x, c->shape));
    bind(c, "target", aq_channels_last(c->arena, target, c->shape));
    bind(c, "t", t);
    bind_weight(c, t);
}

static void bind_states(Case *c, Training *tr)
{
    size_t bytes = (size_t)c->params->floats * sizeof(double);
    tr->m = aq_arena_alloc(c->arena, bytes);
    tr->v = aq_arena_alloc(c->arena, bytes);
    tr->ema = aq_arena_copy(c->arena, c->weights, bytes);
    tr->start = aq_arena_copy(c->arena, c->weights, bytes);
    bind(c, "m", tr->m);
    bind(c, "v", tr->v);
    bind(c, "ema", tr->ema);
    bind(c, "step", &tr->counters[0]);
    bind(c, "updates", &tr->counters[1]);
}

/* What the run computed becomes the states of the next. */
static void keep_updates(Case *c, const AqValue *values)
{
    for (int i = 0; i < c->graph->n_outputs; i++) {
        const AqOutput *output = &c->graph->outputs[i];
        for (int j = 0; output->update && j < c->n_bindings; j++)
            if (strcmp(c->bindings[j].name, output->name) == 0)
                memcpy((double *)c->bindings[j].data, values[i].data,
                       (size_t)aq_elements(&values[i].type) * sizeof(double));
    }
}

static double value_of(const Case *c, const AqValue *values, const char *name)
{
    for (int i = 0; i < c->graph->n_outputs; i++)
        if (!c->graph->outputs[i].update &&
            strcmp(c->graph->outputs[i].name, name) == 0)
            return values[i].data[0];
    return NAN;
}

static double off_at(const json_t *list, int step, double ours)
{
    return fabs(ours / json_number_value(json_array_get(list, step)) - 1);
}

static bool build_training(Case *c, const Training *tr)
{
    const char *name =
        json_string_value(json_object_get(tr->numbers, "optimizer"));
    AqOptimizer how = {
        .rate = {.base = 1e-3}, .clip = 1, .ema = 0.99, .ema_constant = true};
    if (!name || (strcmp(name, "AdamW") != 0 && strcmp(name, "Adam") != 0)) {
        aq_fail(&c->error, AQ_UNSUPPORTED, "train.json: optimizer %s",
                name ? name : "(none)");
        return false;
    }
    how.kind = strcmp(name, "Adam") == 0 ? AQ_ADAM : AQ_ADAMW;
    how.decay = how.kind == AQ_ADAMW ? 0.01 : 0;
    if (!build(c))
        return false;
    aq_minimize(loss_of(c, model_output(c)), how);
    return true;
}

static void compare_movement(Case *c, const Training *tr, const char *prefix,
                             const double *ours)
{
    int64_t count = c->params->floats;
    double *theirs = place_all(c, &tr->tensors, prefix);
    double *off = AQ_NEW_ARRAY(c->arena, double, 2 * count);
    if (!theirs || !off)
        return;
    for (int64_t i = 0; i < count; i++) {
        off[i] = ours[i] - theirs[i];
        off[count + i] = theirs[i] - tr->start[i];
    }
    char *what =
        aq_arena_printf(c->arena, "train: %s* after ten steps", prefix);
    report(&c->report, what, norm_of(off, count) / norm_of(off + count, count),
           movement_limit);
}

static void ten_steps(Case *c, Training *tr)
{
    double loss_off = 0, norm_off = 0;
    const json_t *losses = json_object_get(tr->numbers, "loss");
    const json_t *norms = json_object_get(tr->numbers, "grad_norm");
    int steps = (int)json_array_size(losses);
    AqValue *values = AQ_NEW_ARRAY(c->arena, AqValue, c->graph->n_outputs);
    for (int i = 0; i < steps && fine(c); i++) {
        bind_data(c, tr, i);
        run(c, values);
        if (!fine(c))
            return;
        double loss = value_of(c, values, "loss");
        double norm = value_of(c, values, "gradient_norm");
        loss_off = fmax(loss_off, off_at(losses, i, loss));
        norm_off = fmax(norm_off, off_at(norms, i, norm));
        keep_updates(c, values);
    }
    report(&c->report, "train: losses", loss_off, train_loss_limit);
    report(&c->report, "train: gradient norms", norm_off, train_norm_limit);
    compare_movement(c, tr, "weight.", c->weights);
    compare_movement(c, tr, "ema.", tr->ema);
}

static void check_training(Case *c)
{
    Training tr = {.numbers = read_numbers(c, "train.json")};
    if (tr.numbers && build_training(c, &tr) &&
        aq_golden_open(&tr.tensors, c->report.folder, "train.safetensors",
                       c->arena, &c->error)) {
        tr.x0 = aq_golden_read(&c->step, "x0");
        tr.t = aq_golden_read(&tr.tensors, "t");
        tr.noise = aq_golden_read(&tr.tensors, "noise");
        bind_states(c, &tr);
        if (fine(c))
            ten_steps(c, &tr);
    }
    aq_golden_close(&tr.tensors);
    json_decref(tr.numbers);
}

/* ---- all of them ---- */

static bool has_training(const Case *c)
{
    char *path = aq_arena_printf(c->arena, "%s/train.json", c->report.folder);
    return path && aq_file_exists(path);
}

static bool check_folder(const char *folder, Runner *runner)
{
    Case c = {.report = {.folder = folder},
              .arena = aq_arena_new(),
              .runner = runner};
    c.numbers = read_numbers(&c, "step.json");
    if (c.numbers && config_read(folder, &c.task, c.arena, &c.error) &&
        aq_golden_open(&c.step, folder, "step.safetensors", c.arena,
                       &c.error) &&
        aq_golden_open(&c.model, folder, "diffusion_pytorch_model.safetensors",
                       c.arena, &c.error) &&
        read_inputs(&c)) {
        check_step(&c);
        if (fine(&c) && has_training(&c))
            check_training(&c);
    }
    if (!fine(&c)) {
        printf("%s: FAILED: %s\n", folder, c.error.text);
        c.report.failed++;
    }
    aq_golden_close(&c.step);
    aq_golden_close(&c.model);
    json_decref(c.numbers);
    runner_end(runner);
    aq_graph_free(c.graph);
    aq_arena_free(c.arena);
    return c.report.failed == 0;
}

int main(int count, char **words)
{
    int failed = 0, folders = 0;
    Runner runner = {0};
    for (int i = 1; i < count; i++) {
        if (strcmp(words[i], "--interpret") == 0) {
            runner.interpret = true;
            continue;
        }
        failed += !check_folder(words[i], &runner);
        folders++;
    }
    if (!folders)
        fprintf(stderr, "usage: parity [--interpret] FOLDER...\n");
    return failed || !folders ? EXIT_FAILURE : EXIT_SUCCESS;
}
