/* parity [--interpret | --direct] FOLDER...
 *
 * Each folder holds a model of diffusers and numbers computed with it: one
 * step (output, loss, gradient of every tensor) and, where there is a
 * train.json, ten steps of an optimizer.  We build the same model, load the
 * same weights and compare.  Exits with 1 if anything is off by more than the
 * limits of tests/golden/README.md.  --interpret: in double precision;
 * --direct: compiled, without Winograd. */
#include "tests/parity/parity.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* Limits, by direct convolution and by Winograd's. */
static const double output_limit[] = {1e-5, 2e-4}, loss_limit[] = {1e-6, 1e-5};
static const double gradient_limit[] = {5e-5, 5e-4};
static const double small_gradient_limit[] = {1e-6, 1e-5};

bool case_fine(const Case *c)
{
    return c->error.status == AQ_OK;
}

void case_bind(Case *c, const char *name, const double *data)
{
    for (int i = 0; i < c->n_bindings; i++)
        if (strcmp(c->bindings[i].name, name) == 0) {
            c->bindings[i].data = data;
            return;
        }
    c->bindings[c->n_bindings++] = (AqBinding){name, data};
}

json_t *case_numbers(Case *c, const char *name)
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

double *case_place(Case *c, const AqGolden *from, const char *prefix)
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
    c->weights = case_place(c, &c->model, "");
    if (case_fine(c) && aq_tensors_count(c->model.file) != c->params->count)
        aq_fail(&c->error, AQ_BAD_INPUT,
                "the file has %d tensors and our model %d",
                aq_tensors_count(c->model.file), c->params->count);
    case_bind(c, "weights", c->weights);
}

bool case_build(Case *c)
{
    runner_end(c->runner);
    aq_graph_free(c->graph);
    c->graph = aq_forward_graph(&c->task, NULL, &c->error);
    c->params = c->graph ? aq_params(c->graph) : NULL;
    return c->params != NULL;
}

/* The loss of the golden README, for a target that is an input. */
AqTensor case_loss(const Case *c)
{
    AqTensor y = {c->graph, c->graph->outputs[0].node};
    AqTensor target = aq_input(c->graph, "target", aq_shape(y));
    if (c->min_snr == 0)
        return aq_mse(y, target);
    AqTensor weight = aq_input(c->graph, "weight", AQ_SHAPE(c->task.batch));
    return aq_weighted_mse(y, target, weight);
}

/* ---- one step ---- */

static bool read_inputs(Case *c)
{
    const AqTensorInfo *x = aq_golden_find(&c->step, c->family->x);
    if (!x || x->rank != 4) {
        aq_fail(&c->error, AQ_BAD_INPUT, "step.safetensors has no image %s",
                c->family->x);
        return false;
    }
    memcpy(c->shape, x->shape, sizeof(c->shape));
    c->task.batch = (int)x->shape[0];
    c->task.height = (int)x->shape[2];
    c->task.width = (int)x->shape[3];
    c->output = c->family->output;
    c->target = c->family->target;
    if (aq_golden_find(&c->step, "v")) {
        c->prediction = AQ_VELOCITY;
        c->output = "v";
        c->target = "target";
    }
    const double *xt = aq_golden_read(&c->step, c->family->x);
    if (!xt)
        return false;
    case_bind(c, "x", aq_channels_last(c->arena, xt, c->shape));
    case_bind(c, "t", aq_golden_read(&c->step, "t"));
    if (c->task.classes)
        case_bind(c, "label", aq_golden_read(&c->step, "class_labels"));
    return case_fine(c);
}

/* weight[n] = min-SNR of timestep t[n] */
void case_bind_weight(Case *c, const double *t)
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
    case_bind(c, "weight", weight);
}

/* The files do not say whether the loss was weighted; the loss of the stored
 * output does. */
static void find_weighting(Case *c, const double *y, const double *target,
                           int64_t count)
{
    double loss = json_number_value(json_object_get(c->numbers, "loss"));
    double plain = 0;
    for (int64_t i = 0; i < count; i++)
        plain += (y[i] - target[i]) * (y[i] - target[i]) / (double)count;
    c->min_snr = fabs(plain - loss) <= 1e-4 * loss ? 0 : 5;
}

static void compare_gradients(Case *c, const AqValue *gradients)
{
    double most = 0, worst = 0, worst_small = 0;
    double *flat = case_place(c, &c->step, "grad.");
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

void case_run(Case *c, AqValue *values)
{
    if (aq_graph_error(c->graph))
        aq_fail(&c->error, AQ_BAD_INPUT, "%s", aq_graph_error(c->graph));
    if (case_fine(c))
        runner_run(c->runner, c->graph, c->bindings, c->n_bindings, values,
                   c->arena, &c->error);
}

static void check_step(Case *c)
{
    const double *theirs = aq_golden_read(&c->step, c->output);
    const double *target = aq_golden_read(&c->step, c->target);
    if (!theirs || !target || !case_build(c))
        return;
    const AqTensorInfo *info = aq_golden_find(&c->step, c->output);
    load_weights(c);
    find_weighting(c, theirs, target, info->elements);
    case_bind_weight(c, aq_golden_read(&c->step, "t"));
    case_bind(c, "target", aq_channels_last(c->arena, target, info->shape));
    differentiate(c, case_loss(c));
    AqValue *values = AQ_NEW_ARRAY(c->arena, AqValue, c->graph->n_outputs);
    case_run(c, values);
    if (!case_fine(c))
        return;
    bool winograd = c->runner->winograd;
    double *ours = aq_channels_first(c->arena, values[0].data, info->shape);
    report(&c->report, "step: output", off_by(ours, theirs, info->elements),
           output_limit[winograd]);
    double loss = json_number_value(json_object_get(c->numbers, "loss"));
    report(&c->report, c->min_snr > 0 ? "step: loss (min-SNR)" : "step: loss",
           fabs(values[1].data[0] / loss - 1), loss_limit[winograd]);
    compare_gradients(c, values + 2);
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
    c.numbers = case_numbers(&c, "step.json");
    if (c.numbers)
        c.family = config_read(folder, &c.task, c.arena, &c.error);
    if (c.family &&
        aq_golden_open(&c.step, folder, "step.safetensors", c.arena,
                       &c.error) &&
        aq_golden_open(&c.model, folder, "diffusion_pytorch_model.safetensors",
                       c.arena, &c.error) &&
        read_inputs(&c)) {
        check_step(&c);
        if (case_fine(&c) && has_training(&c))
            check_training(&c);
    }
    if (!case_fine(&c)) {
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
        if (strcmp(words[i], "--direct") == 0) {
            runner.algorithm = "gemm";
            continue;
        }
        failed += !check_folder(words[i], &runner);
        folders++;
    }
    if (!folders)
        fprintf(stderr, "usage: parity [--interpret | --direct] FOLDER...\n");
    return failed || !folders ? EXIT_FAILURE : EXIT_SUCCESS;
}
