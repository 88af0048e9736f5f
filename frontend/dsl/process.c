/* The diffusion process: schedules, what the model is to predict, weights. */
#include "frontend/dsl/build.h"

#include <math.h>

int aq_process_steps(const AqProcess *p)
{
    return p->steps ? p->steps : 1000;
}

static double start_of(const AqProcess *p)
{
    double usual = p->schedule == AQ_SCALED_LINEAR ? 0.00085 : 1e-4;
    return p->beta_start > 0 ? p->beta_start : usual;
}

static double end_of(const AqProcess *p)
{
    double usual = p->schedule == AQ_SCALED_LINEAR ? 0.012 : 0.02;
    return p->beta_end > 0 ? p->beta_end : usual;
}

/* What is wrong with it, or NULL. */
static const char *fault(const AqProcess *p)
{
    if ((unsigned)p->schedule > AQ_COSINE)
        return "the schedule is none of AqScheduleKind";
    if ((unsigned)p->prediction > AQ_X0)
        return "the prediction is none of AqPrediction";
    if (p->steps < 0 || p->steps == 1 || p->steps > 1000000)
        return "2 to 1000000 timesteps are needed";
    if (start_of(p) > end_of(p) || end_of(p) >= 1)
        return "betas must rise and stay below 1";
    if (!(p->min_snr >= 0))
        return "the gamma of min-SNR must not be negative";
    if (p->zero_snr && p->prediction == AQ_EPSILON)
        return "with zero terminal SNR the noise says nothing of the picture "
               "at the last timestep; predict the velocity or x0";
    return NULL;
}

static double cosine_bar(double u)
{
    double c = cos((u + 0.008) / 1.008 * (acos(-1.0) / 2));
    return c * c;
}

static double beta_of(const AqProcess *p, int i)
{
    int steps = aq_process_steps(p);
    double part = i / (steps - 1.0), start = start_of(p), end = end_of(p);
    if (p->schedule == AQ_LINEAR)
        return start + part * (end - start);
    if (p->schedule == AQ_COSINE) {
        double ratio =
            cosine_bar((i + 1.0) / steps) / cosine_bar((double)i / steps);
        return fmin(1 - ratio, 0.999);
    }
    double root = sqrt(start) + part * (sqrt(end) - sqrt(start));
    return root * root;
}

/* r = sqrt(abar); r' = (r - r_T) r_0 / (r_0 - r_T) */
static void rescale_to_zero(double *abar, int steps)
{
    double first = sqrt(abar[0]), last = sqrt(abar[steps - 1]);
    for (int i = 0; i < steps; i++) {
        double root = (sqrt(abar[i]) - last) * first / (first - last);
        abar[i] = root * root;
    }
}

bool aq_process_alphas(const AqProcess *p, double *abar)
{
    if (fault(p))
        return false;
    int steps = aq_process_steps(p);
    double product = 1;
    for (int i = 0; i < steps; i++)
        abar[i] = product *= 1 - beta_of(p, i);
    if (p->zero_snr)
        rescale_to_zero(abar, steps);
    return true;
}

double *aq_process_table(AqPlace at, AqGraph *g, const AqProcess *p)
{
    const char *why = fault(p);
    if (why) {
        aq_complain(at, g, "diffusion process: %s", why);
        return NULL;
    }
    double *abar = AQ_NEW_ARRAY(g->arena, double, aq_process_steps(p));
    if (!abar)
        aq_graph_fail(g, AQ_NO_MEMORY, "diffusion process: memory ended");
    else
        aq_process_alphas(p, abar);
    return abar;
}

/* ---- functions of abar at each sample's timestep ---- */

static double signal(const AqProcess *p, double abar)
{
    (void)p;
    return sqrt(abar);
}

static double noise_level(const AqProcess *p, double abar)
{
    (void)p;
    return sqrt(1 - abar);
}

/* min(SNR, gamma) over SNR, SNR + 1 or 1, where SNR = abar / (1 - abar) */
static double weight(const AqProcess *p, double abar)
{
    double snr = abar / (1 - abar);
    double top = fmin(snr, p->min_snr);
    if (p->prediction == AQ_X0)
        return top;
    if (p->prediction == AQ_VELOCITY)
        return top / (snr + 1);
    return snr > 0 ? top / snr : 1;
}

/* f(abar_t), repeated to the rank of `like` */
static AqTensor look_up(AqPlace at, const AqProcess *p, AqTensor t,
                        AqTensor like, double (*f)(const AqProcess *, double))
{
    AqTensor both[] = {t, like};
    AqGraph *g = aq_enter(at, "diffusion process", both, 2);
    double *values = g ? aq_process_table(at, g, p) : NULL;
    if (!values)
        return aq_lost(t.graph ? t : like);
    int steps = aq_process_steps(p);
    for (int i = 0; i < steps; i++)
        values[i] = f(p, values[i]);
    AqTensor found = aq_gather(aq_table(g, AQ_SHAPE(steps), values), t);
    return aq_per_sample(at, found, like);
}

AqTensor aq_per_sample(AqPlace at, AqTensor x, AqTensor like)
{
    if (!aq_good(x) || !aq_good(like))
        return aq_lost(x);
    AqShape shape = {aq_type_of(like)->rank, {aq_dim(x, 0)}};
    for (int i = 1; i < shape.rank; i++)
        shape.dim[i] = 1;
    return aq_reshape(x, shape);
}

AqTensor aq_add_noise_(AqPlace at, AqProcess p, AqTensor x0, AqTensor noise,
                       AqTensor t)
{
    AqTensor kept = aq_mul(x0, look_up(at, &p, t, x0, signal));
    AqTensor added = aq_mul(noise, look_up(at, &p, t, x0, noise_level));
    return aq_add(kept, added);
}

AqTensor aq_target_(AqPlace at, AqProcess p, AqTensor x0, AqTensor noise,
                    AqTensor t)
{
    if (p.prediction == AQ_X0)
        return x0;
    if (p.prediction == AQ_EPSILON)
        return noise;
    AqTensor plus = aq_mul(noise, look_up(at, &p, t, x0, signal));
    AqTensor minus = aq_mul(x0, look_up(at, &p, t, x0, noise_level));
    return aq_subtract(plus, minus);
}

AqTensor aq_snr_weight_(AqPlace at, AqProcess p, AqTensor t)
{
    AqGraph *g = aq_enter(at, "snr_weight", &t, 1);
    if (!g)
        return aq_lost(t);
    if (p.min_snr == 0)
        return aq_full(g, aq_shape(t), 1);
    return look_up(at, &p, t, t, weight);
}

AqTensor aq_predicted_x0_(AqPlace at, AqProcess p, AqTensor x, AqTensor output,
                          AqTensor t)
{
    if (p.prediction == AQ_X0)
        return output;
    AqTensor s = look_up(at, &p, t, x, signal);
    AqTensor n = look_up(at, &p, t, x, noise_level);
    if (p.prediction == AQ_VELOCITY)
        return aq_subtract(aq_mul(x, s), aq_mul(output, n));
    return aq_div(aq_subtract(x, aq_mul(output, n)), s);
}

AqTensor aq_predicted_noise_(AqPlace at, AqProcess p, AqTensor x,
                             AqTensor output, AqTensor t)
{
    if (p.prediction == AQ_EPSILON)
        return output;
    AqTensor s = look_up(at, &p, t, x, signal);
    AqTensor n = look_up(at, &p, t, x, noise_level);
    if (p.prediction == AQ_VELOCITY)
        return aq_add(aq_mul(output, s), aq_mul(x, n));
    return aq_div(aq_subtract(x, aq_mul(output, s)), n);
}
