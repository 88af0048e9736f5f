/* Philox4x32-10: a random function, not a sequence.
 *
 * J. Salmon, M. Moraes, R. Dror, D. Shaw, "Parallel random numbers: as easy as
 * 1, 2, 3", SC 2011.  The counter is (element / 4, sample, stream, step). */
#include "ir/philox.h"

#include "ir/ir.h"

#include <math.h>

void aq_philox(const uint32_t counter[4], const uint32_t key[2],
               uint32_t out[4])
{
    uint32_t x0 = counter[0], x1 = counter[1], x2 = counter[2], x3 = counter[3];
    uint32_t k0 = key[0], k1 = key[1];
    for (int round = 0; round < AQ_PHILOX_ROUNDS; round++) {
        uint64_t a = (uint64_t)AQ_PHILOX_A * x0;
        uint64_t b = (uint64_t)AQ_PHILOX_B * x2;
        x0 = (uint32_t)(b >> 32) ^ x1 ^ k0;
        x1 = (uint32_t)b;
        x2 = (uint32_t)(a >> 32) ^ x3 ^ k1;
        x3 = (uint32_t)a;
        k0 += AQ_PHILOX_KEY0;
        k1 += AQ_PHILOX_KEY1;
    }
    out[0] = x0, out[1] = x1, out[2] = x2, out[3] = x3;
}

void aq_philox_key(uint64_t seed, uint32_t key[2])
{
    key[0] = (uint32_t)seed;
    key[1] = (uint32_t)(seed >> 32);
}

/* In the open interval (0, 1), so its logarithm is finite. */
static double unit(uint32_t word)
{
    return (word + 0.5) * 0x1p-32;
}

static void words_at(const uint32_t key[2], uint32_t step, uint32_t stream,
                     uint32_t sample, uint32_t element, uint32_t out[4])
{
    uint32_t counter[4] = {element / 4, sample, stream, step};
    aq_philox(counter, key, out);
}

double aq_random_uniform(const uint32_t key[2], uint32_t step, uint32_t stream,
                         uint32_t sample, uint32_t element)
{
    uint32_t words[4];
    words_at(key, step, stream, sample, element, words);
    return unit(words[element % 4]);
}

void aq_random_uniforms(const uint32_t key[2], uint32_t step, uint32_t stream,
                        uint32_t sample, uint32_t block, double out[4])
{
    uint32_t words[4];
    words_at(key, step, stream, sample, 4 * block, words);
    for (int i = 0; i < 4; i++)
        out[i] = unit(words[i]);
}

/* Box and Muller: r = sqrt(-2 ln u0); r cos(2 pi u1) for even elements,
 * r sin(2 pi u1) for odd ones. */
static double radius(const uint32_t pair[2])
{
    return sqrt(-2 * log(unit(pair[0])));
}

static double angle(const uint32_t pair[2])
{
    return 2 * 3.14159265358979323846 * unit(pair[1]);
}

double aq_random_normal(const uint32_t key[2], uint32_t step, uint32_t stream,
                        uint32_t sample, uint32_t element)
{
    uint32_t words[4];
    words_at(key, step, stream, sample, element, words);
    const uint32_t *pair = words + (element & 2);
    double turn = angle(pair);
    return radius(pair) * (element & 1 ? sin(turn) : cos(turn));
}

void aq_random_normals(const uint32_t key[2], uint32_t step, uint32_t stream,
                       uint32_t sample, uint32_t block, double out[4])
{
    uint32_t words[4];
    words_at(key, step, stream, sample, 4 * block, words);
    for (int i = 0; i < 4; i += 2) {
        double r = radius(words + i), turn = angle(words + i);
        out[i] = r * cos(turn);
        out[i + 1] = r * sin(turn);
    }
}
