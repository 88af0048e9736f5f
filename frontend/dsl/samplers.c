/* One step of a sampler, from timestep t to `previous`. */
#include "frontend/dsl/build.h"

#include <math.h>

/* What both samplers need, each (N, 1, ...): abar and 1 - abar at t and at
 * previous, the step's alpha = abar_t / abar_previous and beta = 1 - alpha.
 * abar is kept as its logarithm, so that the quotient loses nothing. */
typedef struct Levels {
    AqTensor root_previous;           /* sqrt(abar_previous) */
    AqTensor noise_t, noise_previous; /* 1 - abar */
    AqTensor alpha, beta;
} Levels;

/* One entry more than there are timesteps: the first is that of -1. */
static AqTensor look_up(AqPlace at, AqGraph *g, const double *values, int count,
                        AqTensor t, AqTensor like)
{
    AqTensor table = aq_table(g, AQ_SHAPE(count), values);
    AqTensor one = aq_to_integer(aq_full(g, AQ_SCALAR, 1));
    return aq_per_sample(at, aq_gather(table, aq_add(t, one)), like);
}

/* exp of this is 0, and it is finite */
static const double log_of_zero = -1e4;

static bool find_levels(AqPlace at, AqGraph *g, const AqSamplerStep *a,
                        Levels *out)
{
    int steps = aq_process_steps(&a->process), count = steps + 1;
    double *abar = aq_process_table(at, g, &a->process);
    double *values = AQ_NEW_ARRAY(g->arena, double, 3 * (size_t)count);
    if (!abar || !values)
        return false;
    double *root = values, *rest = values + count, *log_bar = rest + count;
    for (int i = 0; i < count; i++) {
        double bar = i ? abar[i - 1] : a->end_at_first ? abar[0] : 1;
        root[i] = sqrt(bar);
        rest[i] = 1 - bar;
        log_bar[i] = bar > 0 ? log(bar) : log_of_zero;
    }
    out->root_previous = look_up(at, g, root, count, a->previous, a->x);
    out->noise_t = look_up(at, g, rest, count, a->t, a->x);
    out->noise_previous = look_up(at, g, rest, count, a->previous, a->x);
    AqTensor high = look_up(at, g, log_bar, count, a->t, a->x);
    AqTensor low = look_up(at, g, log_bar, count, a->previous, a->x);
    AqTensor change = aq_subtract(high, low);
    out->alpha = aq_exp(change);
    out->beta = aq_one_minus_exp(at, change);
    return true;
}

static AqGraph *start(AqPlace *at, const char *what, const AqSamplerStep *a,
                      bool noisy, Levels *levels)
{
    AqTensor all[] = {a->x, a->output, a->t, a->previous, a->noise};
    AqGraph *g = aq_enter(*at, what, all, noisy ? 5 : 4);
    if (!g)
        return NULL;
    if (!at->scope)
        at->scope = g->scope;
    return find_levels(*at, g, a, levels) ? g : NULL;
}

static AqTensor picture(AqPlace at, const AqSamplerStep *a)
{
    AqTensor x0 = aq_predicted_x0(a->process, a->x, a->output, a->t);
    return a->clip ? aq_clamp(x0, -1, 1) : x0;
}

/* sigma^2 = eta^2 (1 - abar_p) / (1 - abar_t) beta
 * x_p = sqrt(abar_p) x0 + sqrt(1 - abar_p - sigma^2) eps + sigma z */
AqTensor aq_ddim_step_(AqPlace at, AqSamplerStep a)
{
    Levels l;
    if (!(a.eta >= 0 && a.eta <= 1))
        return aq_complain(at, a.x.graph, "ddim_step: eta %g is not in [0, 1]",
                           a.eta);
    if (!start(&at, "ddim_step", &a, a.eta > 0, &l))
        return aq_lost(a.x);
    AqTensor x0 = picture(at, &a);
    AqTensor eps = aq_predicted_noise(a.process, a.x, a.output, a.t);
    AqTensor kept = aq_mul(x0, l.root_previous);
    if (a.eta == 0)
        return aq_add(kept, aq_mul(eps, aq_sqrt(l.noise_previous)));
    AqTensor part = aq_scale(aq_div(l.beta, l.noise_t), a.eta * a.eta);
    AqTensor sigma = aq_sqrt(aq_mul(l.noise_previous, part));
    AqTensor left = aq_shift(aq_neg(part), 1);
    left = aq_maximum(left, aq_full_like(left, 0));
    AqTensor direction = aq_mul(eps, aq_sqrt(aq_mul(l.noise_previous, left)));
    return aq_add(aq_add(kept, direction), aq_mul(a.noise, sigma));
}

/* mean = sqrt(abar_p) beta / (1 - abar_t) x0
 *      + sqrt(alpha) (1 - abar_p) / (1 - abar_t) x
 * variance = (1 - abar_p) / (1 - abar_t) beta, or beta */
AqTensor aq_ddpm_step_(AqPlace at, AqSamplerStep a)
{
    Levels l;
    AqGraph *g = start(&at, "ddpm_step", &a, true, &l);
    if (!g)
        return aq_lost(a.x);
    AqTensor of_x0 = aq_div(aq_mul(l.root_previous, l.beta), l.noise_t);
    AqTensor share = aq_div(l.noise_previous, l.noise_t);
    AqTensor of_x = aq_mul(aq_sqrt(l.alpha), share);
    AqTensor mean = aq_add(aq_mul(picture(at, &a), of_x0), aq_mul(a.x, of_x));
    AqTensor variance = a.large_variance ? l.beta : aq_mul(share, l.beta);
    AqTensor zero = aq_to_integer(aq_full(g, AQ_SCALAR, 0));
    AqTensor noisy = aq_to_real(aq_less(zero, a.t));
    AqTensor sigma = aq_mul(aq_sqrt(variance), aq_per_sample(at, noisy, a.x));
    return aq_add(mean, aq_mul(a.noise, sigma));
}
