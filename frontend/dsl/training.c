/* Whole programs around a model: a step of training, an evaluation, a step of
 * a sampler. */
#include "frontend/dsl/build.h"

#include <math.h>

#define PLACE(name) ((AqPlace){__FILE__, __LINE__, name})

/* A graph under construction, and what was built so far. */
typedef struct Build {
    const AqTask *task;
    AqGraph *graph;
    AqOptions *options;
    AqDraw draw;
    bool any_output; /* the model may return another shape than x's */
} Build;

/* ---- the model ---- */

static const char *fault(const AqTask *t)
{
    if (!t->model)
        return "no model is given";
    if (t->model->version != AQ_MODEL_VERSION)
        return "the model was compiled with another version of aquatint.h; "
               "compile it again";
    if (t->batch < 1 || t->channels < 1)
        return "batch and channels must be positive";
    if (t->height < 0 || t->width < 0 || !t->height != !t->width)
        return "height and width must be positive";
    if (t->classes < 0)
        return "the number of classes must not be negative";
    if (!(t->label_dropout >= 0 && t->label_dropout <= 1))
        return "label_dropout must be in [0, 1]";
    if (t->label_dropout > 0 && t->classes == 0)
        return "label_dropout needs classes";
    return NULL;
}

static AqShape data_shape(const AqTask *t, int batch)
{
    if (t->height == 0)
        return AQ_SHAPE(batch, t->channels);
    return AQ_SHAPE(batch, t->height, t->width, t->channels);
}

static bool begin(Build *b, const AqTask *task, AqError *error)
{
    *b = (Build){.task = task};
    const char *why = fault(task);
    if (why) {
        aq_fail(error, AQ_BAD_INPUT, "%s", why);
        return false;
    }
    b->graph = aq_graph_new();
    b->options = b->graph ? AQ_NEW(b->graph->arena, AqOptions) : NULL;
    if (!b->options) {
        aq_graph_free(b->graph);
        aq_no_memory(error, sizeof(AqOptions));
        return false;
    }
    b->options->settings = task->settings;
    b->options->n_settings = task->n_settings;
    return true;
}

/* The graph, or its error. */
static AqGraph *finish(Build *b, const AqOptions **options, AqError *error)
{
    AqGraph *g = b->graph;
    if (g->error.status != AQ_OK) {
        aq_fail(error, g->error.status, "%s", g->error.text);
        aq_graph_free(g);
        return NULL;
    }
    if (options)
        *options = b->options;
    return g;
}

static void check_output(AqPlace at, const Build *b, AqTensor x, AqTensor y)
{
    if (!aq_good(y)) {
        if (!aq_graph_error(b->graph))
            aq_complain(at, b->graph, "model %s returns no tensor",
                        b->task->model->name);
        return;
    }
    if (b->any_output || aq_same_type(aq_type_of(x), aq_type_of(y)))
        return;
    aq_complain(at, b->graph, "model %s returns %s where x is %s",
                b->task->model->name, aq_type_name(b->graph, aq_type_of(y)),
                aq_type_name(b->graph, aq_type_of(x)));
}

/* What the model says of x at t (f32); `training` makes it draw. */
static AqTensor ask(Build *b, AqTensor x, AqTensor t, AqTensor labels,
                    bool training)
{
    const AqTask *task = b->task;
    AqScope scope = aq_root(b->graph);
    AqModel m = {
        .scope = training ? aq_drawing(scope, b->draw) : scope,
        .x = x,
        .t = t,
        .labels = labels,
        .classes = task->classes + (task->label_dropout > 0),
        .training = training,
        .options = b->options,
    };
    AqTensor y = AQ_NONE;
    if (!aq_graph_error(b->graph))
        y = task->model->body(&m);
    AqPlace at = {task->model->file, 1, ""};
    check_output(at, b, x, y);
    if (!aq_graph_error(b->graph))
        aq_options_end(b->graph, b->options, task->model->name);
    return y;
}

/* ---- inputs ---- */

static AqTensor data_input(AqPlace at, const Build *b)
{
    return aq_input(b->graph, "x", data_shape(b->task, b->task->batch));
}

static AqTensor label_input(AqPlace at, const Build *b)
{
    if (b->task->classes == 0)
        return AQ_NONE;
    return aq_input(b->graph, "label", AQ_SHAPE(b->task->batch),
                    .integer = true);
}

static void draw_from(AqPlace at, Build *b, AqTensor step)
{
    AqGraph *g = b->graph;
    b->draw.key = aq_input(g, "key", AQ_SHAPE(2), .integer = true);
    b->draw.step = step;
    b->draw.sample =
        aq_input(g, "sample", AQ_SHAPE(b->task->batch), .integer = true);
}

static AqScope drawing_scope(AqPlace at, const Build *b, const char *name)
{
    return aq_drawing(aq_sub(aq_root(b->graph), "%s", name), b->draw);
}

/* i32 scalar */
static AqTensor integer(const Build *b, AqPlace at, int value)
{
    return aq_to_integer(aq_full(b->graph, AQ_SCALAR, value));
}

/* ---- the loss of one batch ---- */

/* Uniform in 0 .. T-1 for each sample. */
static AqTensor draw_timesteps(AqPlace at, const Build *b)
{
    int steps = aq_process_steps(&b->task->process);
    AqScope s = drawing_scope(at, b, "training.timestep");
    AqTensor u = aq_uniform(s, AQ_SHAPE(b->task->batch));
    AqTensor t = aq_to_integer(aq_scale(u, steps));
    return aq_minimum(t, integer(b, at, steps - 1));
}

/* A label becomes `classes`, "none", with the task's probability. */
static AqTensor drop_labels(AqPlace at, const Build *b, AqTensor labels)
{
    double rate = b->task->label_dropout;
    if (aq_is_none(labels) || rate == 0)
        return labels;
    AqScope s = drawing_scope(at, b, "training.label");
    AqTensor u = aq_uniform(s, AQ_SHAPE(b->task->batch));
    AqTensor drop = aq_less(u, aq_full_like(u, rate));
    return aq_select(aq_to_integer(drop), integer(b, at, b->task->classes),
                     labels);
}

static AqTensor loss_of_batch(Build *b, AqTensor step, bool training)
{
    AqPlace at = PLACE("training");
    const AqProcess process = b->task->process;
    draw_from(at, b, step);
    AqTensor x0 = data_input(at, b);
    AqTensor t = draw_timesteps(at, b);
    AqTensor labels = label_input(at, b);
    if (training)
        labels = drop_labels(at, b, labels);
    AqTensor noise =
        aq_normal(drawing_scope(at, b, "training.noise"), aq_shape(x0));
    AqTensor x = aq_add_noise(process, x0, noise, t);
    AqTensor target = aq_target(process, x0, noise, t);
    AqTensor y = ask(b, x, aq_to_real(t), labels, training);
    if (process.min_snr > 0)
        return aq_weighted_mse(y, target, aq_snr_weight(process, t));
    return aq_mse(y, target);
}

AqGraph *aq_training_graph(const AqTask *task, const AqOptimizer *optimizer,
                           const AqOptions **options, AqError *error)
{
    AqPlace at = PLACE("training");
    Build b;
    if (!begin(&b, task, error))
        return NULL;
    AqTensor step = aq_state(b.graph, "step", AQ_SCALAR, .integer = true);
    AqTensor loss = loss_of_batch(&b, step, true);
    const AqParamTable *params = aq_params(b.graph);
    if (!aq_graph_error(b.graph) && params && params->count == 0)
        aq_complain((AqPlace){task->model->file, 1, ""}, b.graph,
                    "model %s has no parameters: there is nothing to train",
                    task->model->name);
    aq_minimize(loss, *optimizer);
    return finish(&b, options, error);
}

AqGraph *aq_evaluation_graph(const AqTask *task, AqError *error)
{
    AqPlace at = PLACE("training");
    Build b;
    if (!begin(&b, task, error))
        return NULL;
    AqTensor step = aq_input(b.graph, "step", AQ_SCALAR, .integer = true);
    AqTensor loss = loss_of_batch(&b, step, false);
    aq_output(loss, "loss");
    return finish(&b, NULL, error);
}

AqGraph *aq_forward_graph(const AqTask *task, const AqOptions **options,
                          AqError *error)
{
    AqPlace at = PLACE("forward");
    Build b;
    if (!begin(&b, task, error))
        return NULL;
    b.any_output = true;
    AqTensor x = data_input(at, &b);
    AqTensor t = aq_input(b.graph, "t", AQ_SHAPE(task->batch));
    AqTensor y = ask(&b, x, t, label_input(at, &b), false);
    aq_output(y, "output");
    return finish(&b, options, error);
}

/* ---- sampling ---- */

static AqTensor picture_state(AqPlace at, const Build *b)
{
    return aq_state(b->graph, "x", data_shape(b->task, b->task->batch));
}

AqGraph *aq_noise_graph(const AqTask *task, AqError *error)
{
    AqPlace at = PLACE("sampling");
    Build b;
    if (!begin(&b, task, error))
        return NULL;
    draw_from(at, &b, integer(&b, at, 0));
    AqScope s = drawing_scope(at, &b, "sampling.start");
    AqShape shape = data_shape(task, task->batch);
    aq_state(b.graph, "x", shape);
    aq_update("x", aq_normal(s, shape));
    return finish(&b, NULL, error);
}

/* Both answers in one batch: y = none + guidance (label - none). */
static AqTensor guided(AqPlace at, Build *b, AqTensor x, AqTensor t,
                       AqTensor labels, double guidance)
{
    const AqTask *task = b->task;
    AqTensor real_t = aq_to_real(t);
    if (guidance == 0 || guidance == 1)
        return ask(b, x, real_t, labels, false);
    if (task->label_dropout == 0)
        return aq_complain(at, b->graph,
                           "guidance needs a model that was trained with "
                           "label_dropout");
    AqTensor none =
        aq_broadcast(integer(b, at, task->classes), AQ_SHAPE(task->batch));
    AqTensor all = ask(b, aq_concat(0, x, x), aq_concat(0, real_t, real_t),
                       aq_concat(0, labels, none), false);
    AqTensor with = aq_slice(all, 0, 0, task->batch);
    AqTensor without = aq_slice(all, 0, task->batch, task->batch);
    AqTensor change = aq_scale(aq_subtract(with, without), guidance);
    return aq_add(without, change);
}

/* i32 scalars: from where to where this step leads. */
static void find_timesteps(AqPlace at, const Build *b, int steps, AqTensor *now,
                           AqTensor *next)
{
    AqGraph *g = b->graph;
    AqTensor number = aq_input(g, "number", AQ_SCALAR, .integer = true);
    AqTensor all = aq_input(g, "timesteps", AQ_SHAPE(AQ_MAX(steps, 0) + 1),
                            .integer = true);
    *now = aq_gather(all, number);
    *next = aq_gather(all, aq_add(number, integer(b, at, 1)));
}

AqGraph *aq_sampler_graph(const AqTask *task, const AqSampler *sampler,
                          AqError *error)
{
    AqPlace at = PLACE("sampling");
    Build b;
    if (!begin(&b, task, error))
        return NULL;
    AqShape samples = AQ_SHAPE(task->batch);
    int total = aq_process_steps(&task->process);
    if (sampler->steps < 1 || sampler->steps > total)
        aq_graph_fail(b.graph, AQ_BAD_INPUT,
                      "%d sampling steps: must lie between 1 and %d, the "
                      "steps of the process",
                      sampler->steps, total);
    AqTensor now, next;
    find_timesteps(at, &b, sampler->steps, &now, &next);
    AqTensor x = picture_state(at, &b);
    AqSamplerStep step = {
        .process = task->process,
        .x = x,
        .t = aq_broadcast(now, samples),
        .previous = aq_broadcast(next, samples),
        .eta = sampler->eta,
        .clip = sampler->clip,
        .large_variance = sampler->large_variance,
    };
    step.output =
        guided(at, &b, x, step.t, label_input(at, &b), sampler->guidance);
    bool ddpm = sampler->kind == AQ_SAMPLER_DDPM;
    at = PLACE("sampling");
    if (ddpm || sampler->eta > 0) {
        draw_from(at, &b, now);
        AqScope s = drawing_scope(at, &b, "sampling.noise");
        step.noise = aq_normal(s, aq_shape(x));
    }
    aq_update("x", ddpm ? aq_ddpm_step_(at, step) : aq_ddim_step_(at, step));
    return finish(&b, NULL, error);
}

void aq_sampler_timesteps(int total, int count, int *timesteps)
{
    for (int i = 0; i < count; i++) {
        double t = total - (double)i * total / count;
        timesteps[i] = (int)nearbyint(t) - 1;
    }
}
