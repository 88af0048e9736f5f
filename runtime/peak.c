/* The machine's limits, measured where they are compared: as many independent
 * fused multiply-adds as registers hold, and the way to memory and back. */
#include "runtime/runtime.h"

#include <immintrin.h>
#include <sys/resource.h>

enum { ROUNDS = 1 << 13, TRIES = 40, CHAINS = 12, REPEATS = 8 };

typedef struct Peak {
    int level;
    double best[256]; /* operations a second, of each thread */
} Peak;

#define DEFINE_CHAINS(name, level_name, Vector, set1, fmadd, lanes)            \
    __attribute__((target(level_name), noinline)) static float name(void)      \
    {                                                                          \
        Vector a[CHAINS], x = set1(0.999f), y = set1(0.001f);                  \
        for (int i = 0; i < CHAINS; i++)                                       \
            a[i] = set1((float)i);                                             \
        for (int r = 0; r < ROUNDS; r++) {                                     \
            _Pragma("GCC unroll 8") for (int k = 0; k < REPEATS; k++)          \
                _Pragma("GCC unroll 12") for (int i = 0; i < CHAINS; i++)      \
                    a[i] = fmadd(a[i], x, y);                                  \
            __asm__ volatile("" : "+m"(r)); /* keep every round */             \
        }                                                                      \
        float sum = 0;                                                         \
        for (int i = 0; i < CHAINS; i++)                                       \
            sum += ((const float *)&a[i])[0];                                  \
        return sum;                                                            \
    }

DEFINE_CHAINS(chains_v3, "avx2,fma", __m256, _mm256_set1_ps, _mm256_fmadd_ps, 8)
DEFINE_CHAINS(chains_v4, "avx512f", __m512, _mm512_set1_ps, _mm512_fmadd_ps, 16)

static void measure(void *context, int index)
{
    Peak *peak = context;
    volatile float sink;
    int lanes = peak->level >= 4 ? 16 : 8;
    for (int i = 0; i < TRIES; i++) {
        double began = aq_seconds();
        sink = peak->level >= 4 ? chains_v4() : chains_v3();
        double seconds = aq_seconds() - began;
        double rate = 2.0 * lanes * CHAINS * REPEATS * ROUNDS / seconds;
        peak->best[index] = AQ_MAX(peak->best[index], rate);
    }
    (void)sink;
}

double aq_measure_fma_peak(int threads, int level)
{
    Peak peak = {.level = level};
    threads = AQ_MIN(threads, AQ_COUNT(peak.best));
    aq_parallel(threads, threads, measure, &peak);
    double sum = 0;
    for (int i = 0; i < threads; i++)
        sum += peak.best[i];
    return sum;
}

/* ---- memory ---- */

enum { TRIAD_FLOATS = 1 << 24, TRIAD_TRIES = 8 }; /* three arrays of 64 MiB */

typedef struct Triad {
    float *a, *b, *c;
    int threads;
} Triad;

__attribute__((target("avx2,fma"))) static void triad(void *context, int index)
{
    const Triad *t = context;
    int each = TRIAD_FLOATS / t->threads / 8 * 8, first = index * each;
    __m256 s = _mm256_set1_ps(0.5f);
    for (int i = first; i < first + each; i += 8)
        _mm256_storeu_ps(t->a + i, _mm256_fmadd_ps(s, _mm256_loadu_ps(t->c + i),
                                                   _mm256_loadu_ps(t->b + i)));
}

double aq_measure_triad(int threads)
{
    int64_t bytes = 3 * (int64_t)TRIAD_FLOATS * 4;
    AqError error = {0};
    float *memory = aq_pages(bytes, &error);
    if (!memory)
        return 0;
    Triad t = {memory, memory + TRIAD_FLOATS, memory + 2 * TRIAD_FLOATS,
               AQ_MAX(threads, 1)};
    double best = 0, moved = 12.0 * (TRIAD_FLOATS / t.threads / 8 * 8);
    for (int64_t i = 0; i < 3 * (int64_t)TRIAD_FLOATS; i++)
        memory[i] = 1; /* pages of zeros may be one page */
    for (int i = 0; i < TRIAD_TRIES; i++) {
        double began = aq_seconds();
        aq_parallel(t.threads, t.threads, triad, &t);
        best = AQ_MAX(best, moved * t.threads / (aq_seconds() - began));
    }
    aq_pages_free(memory, bytes);
    return best;
}

int64_t aq_peak_rss(void)
{
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    return (int64_t)usage.ru_maxrss * 1024;
}
