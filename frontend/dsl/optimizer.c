/* One step of an optimizer over the flat arrays: gradients in the order of the
 * parameters, their norm, the update, the EMA of the weights. */
#include "frontend/dsl/build.h"
#include "passes/passes.h"

#include <math.h>

/* Everything of one step; arrays are f32[P], numbers are scalars. */
typedef struct Step {
    AqPlace at;
    AqGraph *graph;
    AqOptimizer how;
    int64_t floats;
    AqTensor keep; /* 1: go on, 0: leave everything as it was */
    AqTensor w, g; /* weights and clipped gradient */
    AqTensor rate;
    AqTensor count; /* f32: how many updates there are with this one */
} Step;

static const char *fault(const AqOptimizer *o)
{
    if ((unsigned)o->kind > AQ_ADAGRAD)
        return "the kind is none of AqOptimizerKind";
    if (!(o->beta1 >= 0 && o->beta1 < 1) || !(o->beta2 >= 0 && o->beta2 < 1))
        return "betas must be in [0, 1)";
    if (!(o->alpha >= 0 && o->alpha < 1) ||
        !(o->momentum >= 0 && o->momentum < 1))
        return "alpha and momentum must be in [0, 1)";
    if (!(o->ema >= 0 && o->ema < 1))
        return "the decay of the EMA must be in [0, 1)";
    if (!(o->epsilon >= 0) || !(o->decay >= 0) || !(o->clip >= 0) ||
        !(o->rate_decay >= 0))
        return "epsilon, decay, clip and rate_decay must not be negative";
    return NULL;
}

/* ---- the flat gradient ---- */

/* One part for each parameter and one for the gap behind it, if any. */
static AqTensor flatten(AqPlace at, AqGraph *g, const AqParamTable *table,
                        const AqTensor *gradients, AqTensor *parts)
{
    int count = 0;
    for (int i = 0; i < table->count; i++) {
        int64_t elements = aq_elements(&table->at[i].type);
        int64_t end =
            i + 1 < table->count ? table->at[i + 1].offset : table->floats;
        int64_t gap = end - table->at[i].offset - elements;
        parts[count++] = aq_reshape(gradients[i], AQ_SHAPE(elements));
        if (gap > 0)
            parts[count++] = aq_full(g, AQ_SHAPE(gap), 0);
    }
    return aq_concat_list(0, parts, count);
}

static AqTensor flat_gradient(AqPlace at, AqTensor loss,
                              const AqParamTable *table)
{
    AqGraph *g = loss.graph;
    AqTensor *all = AQ_NEW_ARRAY(g->arena, AqTensor, 4 * (size_t)table->count);
    if (!all)
        return aq_wrap(g, aq_graph_fail(g, AQ_NO_MEMORY, "memory ended"));
    AqTensor *gradients = all + table->count;
    for (int i = 0; i < table->count; i++)
        all[i] = aq_wrap(g, table->at[i].node);
    aq_gradient(loss, all, table->count, gradients);
    return flatten(at, g, table, gradients, all + 2 * table->count);
}

/* ---- states ---- */

static AqTensor old(const Step *s, const char *name)
{
    AqPlace at = s->at;
    return aq_state(s->graph, name, AQ_SHAPE(s->floats));
}

/* The state's new value, if the step counts. */
static void renew(const Step *s, const char *name, AqTensor value)
{
    AqPlace at = s->at;
    aq_update(name, aq_select(s->keep, value, old(s, name)));
}

/* a * x + b * y */
static AqTensor mix(AqPlace at, double a, AqTensor x, double b, AqTensor y)
{
    AqTensor first = aq_scale(x, a);
    return aq_add(first, aq_scale(y, b));
}

/* ---- the optimizers: what is subtracted from the weights ---- */

/* 1 - beta^count */
static AqTensor correction(const Step *s, double beta)
{
    AqPlace at = s->at;
    return aq_one_minus_exp(at, aq_scale(s->count, log(beta)));
}

/* m = b1 m + (1 - b1) g, v = b2 v + (1 - b2) g^2
 * rate m / (1 - b1^n) / (sqrt(v / (1 - b2^n)) + epsilon) */
static AqTensor adam(const Step *s)
{
    AqPlace at = s->at;
    double b1 = s->how.beta1 > 0 ? s->how.beta1 : 0.9;
    double b2 = s->how.beta2 > 0 ? s->how.beta2 : 0.999;
    double epsilon = s->how.epsilon > 0 ? s->how.epsilon : 1e-8;
    AqTensor m = mix(at, b1, old(s, "m"), 1 - b1, s->g);
    AqTensor v = mix(at, b2, old(s, "v"), 1 - b2, aq_square(s->g));
    renew(s, "m", m);
    renew(s, "v", v);
    AqTensor size = aq_div(s->rate, correction(s, b1));
    AqTensor root = aq_rsqrt(correction(s, b2));
    AqTensor below = aq_shift(aq_mul(aq_sqrt(v), root), epsilon);
    return aq_mul(aq_div(m, below), size);
}

/* m = momentum m + g */
static AqTensor sgd(const Step *s)
{
    AqPlace at = s->at;
    AqTensor g = s->g;
    if (s->how.momentum > 0) {
        AqTensor m = mix(at, s->how.momentum, old(s, "m"), 1, g);
        renew(s, "m", m);
        g = s->how.nesterov ? mix(at, s->how.momentum, m, 1, g) : m;
    }
    return aq_mul(g, s->rate);
}

/* v = alpha v + (1 - alpha) g^2; centered: a = alpha a + (1 - alpha) g and v -
 * a^2 in place of v; then g / (sqrt(v) + epsilon), through momentum */
static AqTensor rmsprop(const Step *s)
{
    AqPlace at = s->at;
    double alpha = s->how.alpha > 0 ? s->how.alpha : 0.99;
    double epsilon = s->how.epsilon > 0 ? s->how.epsilon : 1e-8;
    AqTensor v = mix(at, alpha, old(s, "v"), 1 - alpha, aq_square(s->g));
    renew(s, "v", v);
    if (s->how.centered) {
        AqTensor a = mix(at, alpha, old(s, "a"), 1 - alpha, s->g);
        renew(s, "a", a);
        v = aq_relu(aq_subtract(v, aq_square(a)));
    }
    AqTensor g = aq_div(s->g, aq_shift(aq_sqrt(v), epsilon));
    if (s->how.momentum > 0) {
        g = mix(at, s->how.momentum, old(s, "m"), 1, g);
        renew(s, "m", g);
    }
    return aq_mul(g, s->rate);
}

/* v = v + g^2; rate / (1 + (n - 1) rate_decay) g / (sqrt(v) + epsilon) */
static AqTensor adagrad(const Step *s)
{
    AqPlace at = s->at;
    double epsilon = s->how.epsilon > 0 ? s->how.epsilon : 1e-10;
    AqTensor v = aq_add(old(s, "v"), aq_square(s->g));
    renew(s, "v", v);
    AqTensor age = aq_scale(aq_shift(s->count, -1), s->how.rate_decay);
    AqTensor rate = aq_div(s->rate, aq_shift(age, 1));
    return aq_mul(aq_div(s->g, aq_shift(aq_sqrt(v), epsilon)), rate);
}

/* Decay shrinks the weights (AdamW) or is added to the gradient (others). */
static void add_decay(Step *s)
{
    AqPlace at = s->at;
    if (s->how.decay == 0)
        return;
    if (s->how.kind == AQ_ADAMW) {
        AqTensor shrink = aq_shift(aq_scale(s->rate, -s->how.decay), 1);
        s->w = aq_mul(s->w, shrink);
    } else {
        s->g = mix(at, 1, s->g, s->how.decay, s->w);
    }
}

static void update_weights(Step *s)
{
    static AqTensor (*const change[])(const Step *) = {
        [AQ_ADAMW] = adam,      [AQ_ADAM] = adam,       [AQ_SGD] = sgd,
        [AQ_RMSPROP] = rmsprop, [AQ_ADAGRAD] = adagrad,
    };
    AqPlace at = s->at;
    add_decay(s);
    AqTensor next = aq_subtract(s->w, change[s->how.kind](s));
    renew(s, "weights", next);
    if (s->how.ema == 0)
        return;
    /* ema += (1 - d) (w - ema), d = min(decay, (1 + n) / (10 + n)), where n
     * updates came before this one */
    AqTensor d = aq_full_like(s->count, s->how.ema);
    if (!s->how.ema_constant)
        d = aq_minimum(d, aq_div(s->count, aq_shift(s->count, 9)));
    AqTensor ema = old(s, "ema");
    AqTensor rest = aq_shift(aq_neg(d), 1);
    renew(s, "ema", aq_add(ema, aq_mul(aq_subtract(next, ema), rest)));
}

/* ---- all of it ---- */

static AqTensor counter(AqPlace at, AqGraph *g, const char *name)
{
    return aq_state(g, name, AQ_SCALAR, .integer = true);
}

/* Norm, clipping, and whether the step counts at all. */
static void judge(Step *s, AqTensor loss)
{
    AqPlace at = s->at;
    AqTensor norm = aq_sqrt(aq_sum(aq_square(s->g)));
    s->keep = aq_mul(aq_is_finite(loss), aq_is_finite(norm));
    if (s->how.clip > 0) {
        AqTensor most = aq_full_like(norm, s->how.clip);
        AqTensor factor = aq_div(most, aq_shift(norm, 1e-6));
        factor = aq_minimum(factor, aq_full_like(norm, 1));
        s->g = aq_mul(s->g, factor);
    }
    AqTensor skipped = aq_to_integer(aq_shift(aq_neg(s->keep), 1));
    aq_output(loss, "loss");
    aq_output(norm, "gradient_norm");
    aq_output(s->rate, "learning_rate");
    aq_output(skipped, "skipped");
}

static void count_step(const Step *s)
{
    AqPlace at = s->at;
    AqTensor step = counter(at, s->graph, "step");
    AqTensor updates = counter(at, s->graph, "updates");
    aq_update("step", aq_add(step, aq_full_like(step, 1)));
    aq_update("updates", aq_add(updates, aq_to_integer(s->keep)));
}

void aq_minimize_(AqPlace at, AqTensor loss, AqOptimizer how)
{
    AqGraph *g = aq_enter(at, "minimize", &loss, 1);
    if (!g)
        return;
    const char *why = fault(&how);
    const AqParamTable *table = aq_params(g);
    if (why)
        aq_complain(at, g, "optimizer: %s", why);
    else if (!table)
        aq_graph_fail(g, AQ_NO_MEMORY, "optimizer: memory ended");
    else if (table->count == 0)
        aq_complain(at, g, "optimizer: the graph has no parameters");
    if (g->error.status != AQ_OK)
        return;
    AqTensor gradient = flat_gradient(at, loss, table);
    at.scope = "optimizer";
    Step s = {.at = at, .graph = g, .how = how, .floats = table->floats};
    s.g = gradient;
    s.w = old(&s, "weights");
    s.rate = aq_rate(counter(at, g, "step"), how.rate);
    s.count = aq_shift(aq_to_real(counter(at, g, "updates")), 1);
    judge(&s, aq_reshape(loss, AQ_SCALAR));
    update_weights(&s);
    count_step(&s);
}
