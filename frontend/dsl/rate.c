/* The learning rate as a function of the step: diffusers' formulae. */
#include "frontend/dsl/build.h"

#include <math.h>

static const char *fault(const AqRate *r)
{
    if ((unsigned)r->kind > AQ_RATE_POLYNOMIAL)
        return "the kind is none of AqRateKind";
    if (!(r->base >= 0) || !(r->warmup >= 0) || !(r->total >= 0))
        return "base, warmup and total must not be negative";
    if (r->kind != AQ_RATE_CONSTANT && !(r->total > 0))
        return "a rate that falls needs its total number of steps";
    if (!(r->cycles >= 0) || !(r->power >= 0) || !(r->end >= 0))
        return "cycles, power and end must not be negative";
    return NULL;
}

/* max(0, (1 + cos(angle)) / 2) */
static AqTensor cosine(AqPlace at, AqTensor angle)
{
    AqTensor c = aq_scale(aq_shift(aq_cos(angle), 1), 0.5);
    return aq_maximum(c, aq_full_like(c, 0));
}

/* progress = (step - warmup) / (total - warmup) */
static AqTensor falling(AqPlace at, const AqRate *r, AqTensor progress,
                        double base)
{
    const double pi = acos(-1.0);
    AqTensor zero = aq_full_like(progress, 0), one = aq_full_like(progress, 1);
    AqTensor left = aq_maximum(aq_subtract(one, progress), zero);
    if (r->kind == AQ_RATE_LINEAR)
        return left;
    if (r->kind == AQ_RATE_COSINE) {
        double cycles = r->cycles > 0 ? r->cycles : 0.5;
        return cosine(at, aq_scale(progress, 2 * pi * cycles));
    }
    if (r->kind == AQ_RATE_COSINE_RESTARTS) {
        AqTensor turns = aq_scale(progress, r->cycles > 0 ? r->cycles : 1);
        AqTensor part = aq_subtract(turns, aq_floor(turns));
        AqTensor factor = cosine(at, aq_scale(part, pi));
        return aq_select(aq_less(progress, one), factor, zero);
    }
    double power = r->power > 0 ? r->power : 1;
    double end = (r->end > 0 ? r->end : 1e-7) / base;
    AqTensor curve = power == 1 ? left : aq_exp(aq_scale(aq_log(left), power));
    return aq_shift(aq_scale(curve, 1 - end), end);
}

AqTensor aq_rate_(AqPlace at, AqTensor step, AqRate r)
{
    AqGraph *g = aq_enter(at, "rate", &step, 1);
    if (!g)
        return aq_lost(step);
    const char *why = fault(&r);
    if (why)
        return aq_complain(at, g, "learning rate: %s", why);
    double base = r.base > 0 ? r.base : 1e-4;
    AqTensor n = aq_to_real(step);
    AqTensor factor = aq_full_like(n, 1);
    if (r.kind != AQ_RATE_CONSTANT) {
        double length = fmax(1, r.total - r.warmup);
        AqTensor progress = aq_scale(aq_shift(n, -r.warmup), 1 / length);
        factor = falling(at, &r, progress, base);
    }
    if (r.warmup > 0) {
        AqTensor rising = aq_scale(n, 1 / fmax(1, r.warmup));
        AqTensor early = aq_less(n, aq_full_like(n, r.warmup));
        factor = aq_select(early, rising, factor);
    }
    return aq_scale(factor, base);
}
