/* How far off, and whether that is too far. */
#include "tests/parity/parity.h"

#include <math.h>

void report(Report *r, const char *what, double off, double limit)
{
    bool good = off <= limit;
    printf("%s: %s: %s off by %.2g (limit %.2g)\n", r->folder,
           good ? "ok" : "FAILED", what, off, limit);
    r->failed += !good;
}

double largest(const double *x, int64_t count)
{
    double most = 0;
    for (int64_t i = 0; i < count; i++)
        most = isnan(x[i]) ? x[i] : fmax(most, fabs(x[i]));
    return most;
}

double norm_of(const double *x, int64_t count)
{
    double sum = 0;
    for (int64_t i = 0; i < count; i++)
        sum += x[i] * x[i];
    return sqrt(sum);
}

double off_by(const double *a, const double *b, int64_t count)
{
    double most = 0;
    for (int64_t i = 0; i < count; i++) {
        double d = fabs(a[i] - b[i]);
        most = isnan(d) || isnan(most) ? NAN : fmax(most, d);
    }
    return most / largest(b, count);
}
