/* Ten steps of an optimizer against PyTorch's. */
#include "tests/parity/parity.h"

#include <math.h>
#include <string.h>

static const double train_loss_limit = 1e-4, train_norm_limit = 5e-4;
static const double movement_limit[] = {5e-4, 1e-3};

/* A gradient that theory says is 0 (of a key's bias, of a bias before a norm of
 * single channels) is stored as what rounding left in double precision.  Adam
 * divides rounding by rounding: in float32 such a weight goes anywhere, as far
 * as ten rates lead. */
static const double zero_gradient = 1e-10; /* of the largest */
static const double wander_limit = 1.1;    /* in rates times steps */

static const double rate = 1e-3;

typedef struct Training {
    json_t *numbers; /* train.json */
    AqGolden tensors;
    const double *x0, *t, *noise; /* t and noise of all steps */
    double *m, *v, *ema, *start;
    double counters[2]; /* step, updates */
} Training;

static int steps_of(const Training *tr)
{
    return (int)json_array_size(json_object_get(tr->numbers, "loss"));
}

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
    case_bind(c, "x", aq_channels_last(c->arena, x, c->shape));
    case_bind(c, "target", aq_channels_last(c->arena, target, c->shape));
    case_bind(c, "t", t);
    case_bind_weight(c, t);
}

static void bind_states(Case *c, Training *tr)
{
    size_t bytes = (size_t)c->params->floats * sizeof(double);
    tr->m = aq_arena_alloc(c->arena, bytes);
    tr->v = aq_arena_alloc(c->arena, bytes);
    tr->ema = aq_arena_copy(c->arena, c->weights, bytes);
    tr->start = aq_arena_copy(c->arena, c->weights, bytes);
    case_bind(c, "m", tr->m);
    case_bind(c, "v", tr->v);
    case_bind(c, "ema", tr->ema);
    case_bind(c, "step", &tr->counters[0]);
    case_bind(c, "updates", &tr->counters[1]);
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
        .rate = {.base = rate}, .clip = 1, .ema = 0.99, .ema_constant = true};
    if (!name || (strcmp(name, "AdamW") != 0 && strcmp(name, "Adam") != 0)) {
        aq_fail(&c->error, AQ_UNSUPPORTED, "train.json: optimizer %s",
                name ? name : "(none)");
        return false;
    }
    how.kind = strcmp(name, "Adam") == 0 ? AQ_ADAM : AQ_ADAMW;
    how.decay = how.kind == AQ_ADAMW ? 0.01 : 0;
    if (!case_build(c))
        return false;
    aq_minimize(case_loss(c), how);
    return true;
}

/* How far the parameters of a tensor are from theirs, and theirs from where
 * they began; false where the gradient is 0 in theory. */
static bool movement_of(const AqParamInfo *p, const double *gradients,
                        double most, const double *ours, const double *theirs,
                        const Training *tr, double *off, double *moved)
{
    int64_t count = aq_elements(&p->type);
    if (largest(gradients + p->offset, count) <= zero_gradient * most)
        return false;
    for (int64_t i = p->offset; i < p->offset + count; i++) {
        off[i] = ours[i] - theirs[i];
        moved[i] = theirs[i] - tr->start[i];
    }
    return true;
}

static double wandered(const AqParamInfo *p, const double *ours,
                       const Training *tr)
{
    int64_t count = aq_elements(&p->type);
    double most = 0;
    for (int64_t i = p->offset; i < p->offset + count; i++) {
        double far = fabs(ours[i] - tr->start[i]);
        most = isnan(far) || isnan(most) ? NAN : fmax(most, far);
    }
    return most / (rate * (double)steps_of(tr));
}

static void compare_movement(Case *c, const Training *tr, const char *prefix,
                             const double *ours)
{
    int64_t floats = c->params->floats;
    double *theirs = case_place(c, &tr->tensors, prefix);
    double *gradients = case_place(c, &c->step, "grad.");
    double *off = AQ_NEW_ARRAY(c->arena, double, 2 * floats), far = 0;
    if (!theirs || !gradients || !off)
        return;
    double *moved = off + floats, most = largest(gradients, floats);
    int free = 0;
    for (int i = 0; i < c->params->count; i++) {
        const AqParamInfo *p = &c->params->at[i];
        if (movement_of(p, gradients, most, ours, theirs, tr, off, moved))
            continue;
        double one = wandered(p, ours, tr);
        far = isnan(one) || isnan(far) ? NAN : fmax(far, one);
        free++;
    }
    char *what =
        aq_arena_printf(c->arena, "train: %s* after ten steps", prefix);
    report(&c->report, what, norm_of(off, floats) / norm_of(moved, floats),
           movement_limit[c->runner->winograd]);
    what = aq_arena_printf(
        c->arena, "train: %s* of %d tensors without a gradient", prefix, free);
    if (free > 0)
        report(&c->report, what, far, wander_limit);
}

static void ten_steps(Case *c, Training *tr)
{
    double loss_off = 0, norm_off = 0;
    const json_t *losses = json_object_get(tr->numbers, "loss");
    const json_t *norms = json_object_get(tr->numbers, "grad_norm");
    int steps = steps_of(tr);
    AqValue *values = AQ_NEW_ARRAY(c->arena, AqValue, c->graph->n_outputs);
    for (int i = 0; i < steps && case_fine(c); i++) {
        bind_data(c, tr, i);
        case_run(c, values);
        if (!case_fine(c))
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

void check_training(Case *c)
{
    Training tr = {.numbers = case_numbers(c, "train.json")};
    if (tr.numbers && build_training(c, &tr) &&
        aq_golden_open(&tr.tensors, c->report.folder, "train.safetensors",
                       c->arena, &c->error)) {
        tr.x0 = aq_golden_read(&c->step, "x0");
        tr.t = aq_golden_read(&tr.tensors, "t");
        tr.noise = aq_golden_read(&tr.tensors, "noise");
        bind_states(c, &tr);
        if (case_fine(c))
            ten_steps(c, &tr);
    }
    aq_golden_close(&tr.tensors);
    json_decref(tr.numbers);
}
