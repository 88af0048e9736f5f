/* Pointwise ops: out[i] depends on in[i] alone.
 *
 * f32 values follow IEEE 754 in double.  i32 arithmetic wraps at 32 bits as the
 * processor's does.  max and min give NaN if either input is NaN; comparisons
 * with NaN are false. */
#include "ir/evaluate.h"

#include <math.h>
#include <string.h>

static int64_t count_of(const Evaluation *e)
{
    return aq_elements(&e->out->type);
}

static bool of_integers(const Evaluation *e)
{
    return e->in[0]->type.element == AQ_I32;
}

static double wrap(int64_t value)
{
    return (double)(int32_t)(uint32_t)(uint64_t)value;
}

#define UNARY(name, expression)                                                \
    void aq_evaluate_##name(Evaluation *e)                                     \
    {                                                                          \
        const double *in = e->in[0]->data;                                     \
        double *out = e->out->data;                                            \
        int64_t count = count_of(e);                                           \
        for (int64_t i = 0; i < count; i++) {                                  \
            double x = in[i];                                                  \
            out[i] = (expression);                                             \
        }                                                                      \
    }

/* wrap(double) is the identity but for -(-2^31) */
UNARY(neg, of_integers(e) ? wrap(-(int64_t)x) : -x)
UNARY(abs, of_integers(e) ? wrap((int64_t)fabs(x)) : fabs(x))
UNARY(sign, (x > 0) - (x < 0))
UNARY(floor, floor(x))
UNARY(exp, exp(x))
UNARY(log, log(x))
UNARY(sqrt, sqrt(x))
UNARY(rsqrt, 1 / sqrt(x))
UNARY(sin, sin(x))
UNARY(cos, cos(x))
UNARY(tanh, tanh(x))
UNARY(erf, erf(x))
/* the form that does not overflow on either side */
UNARY(sigmoid, x >= 0 ? 1 / (1 + exp(-x)) : exp(x) / (1 + exp(x)))
UNARY(is_finite, isfinite(x) ? 1 : 0)

/* What the processor gives where the number has no place: the least integer. */
static double to_integer(double x)
{
    double whole = trunc(x);
    return whole >= INT32_MIN && whole <= INT32_MAX ? whole : INT32_MIN;
}

void aq_evaluate_cast(Evaluation *e)
{
    bool rounds = e->out->type.element == AQ_I32 && !of_integers(e);
    int64_t count = count_of(e);
    for (int64_t i = 0; i < count; i++) {
        double x = e->in[0]->data[i];
        e->out->data[i] = rounds ? to_integer(x) : x;
    }
}

void aq_evaluate_copy(Evaluation *e)
{
    if (count_of(e))
        memcpy(e->out->data, e->in[0]->data,
               (size_t)count_of(e) * sizeof(double));
}

#define BINARY(name, expression)                                               \
    static void real_##name(const double *left, const double *right,           \
                            double *out, int64_t count)                        \
    {                                                                          \
        for (int64_t i = 0; i < count; i++) {                                  \
            double a = left[i], b = right[i];                                  \
            out[i] = (expression);                                             \
        }                                                                      \
    }

/* `exact` gives the i32 result where doubles could round or not wrap */
#define BINARY_WRAPPED(name, expression)                                       \
    BINARY(name, expression)                                                   \
    static void whole_##name(const double *left, const double *right,          \
                             double *out, int64_t count)                       \
    {                                                                          \
        for (int64_t i = 0; i < count; i++) {                                  \
            int64_t a = (int64_t)left[i], b = (int64_t)right[i];               \
            out[i] = wrap(expression);                                         \
        }                                                                      \
    }                                                                          \
    void aq_evaluate_##name(Evaluation *e)                                     \
    {                                                                          \
        (of_integers(e) ? whole_##name : real_##name)(                         \
            e->in[0]->data, e->in[1]->data, e->out->data, count_of(e));        \
    }

#define BINARY_PLAIN(name, expression)                                         \
    BINARY(name, expression)                                                   \
    void aq_evaluate_##name(Evaluation *e)                                     \
    {                                                                          \
        real_##name(e->in[0]->data, e->in[1]->data, e->out->data,              \
                    count_of(e));                                              \
    }

BINARY_WRAPPED(add, a + b)
BINARY_WRAPPED(sub, a - b)
BINARY_WRAPPED(mul, (a * b))
BINARY_PLAIN(max, a != a || b != b ? NAN : a > b ? a : b)
BINARY_PLAIN(min, a != a || b != b ? NAN : a < b ? a : b)
BINARY_PLAIN(less, a < b ? 1 : 0)
BINARY_PLAIN(less_equal, a <= b ? 1 : 0)
BINARY_PLAIN(equal, a == b ? 1 : 0)
BINARY(div, a / b)

void aq_evaluate_div(Evaluation *e)
{
    const double *a = e->in[0]->data, *b = e->in[1]->data;
    int64_t count = count_of(e);
    if (!of_integers(e)) {
        real_div(a, b, e->out->data, count);
        return;
    }
    for (int64_t i = 0; i < count; i++) {
        if (b[i] == 0) {
            aq_evaluate_fail(e, AQ_BAD_INPUT,
                             "element %lld divides the integer %.0f by zero",
                             (long long)i, a[i]);
            return;
        }
        e->out->data[i] = wrap((int64_t)a[i] / (int64_t)b[i]);
    }
}

void aq_evaluate_select(Evaluation *e)
{
    const double *condition = e->in[0]->data;
    const double *a = e->in[1]->data, *b = e->in[2]->data;
    int64_t count = count_of(e);
    for (int64_t i = 0; i < count; i++)
        e->out->data[i] = condition[i] != 0 ? a[i] : b[i];
}
