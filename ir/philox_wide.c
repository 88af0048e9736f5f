/* Many draws at once, for the initial values of large models.
 *
 * Four counters lie in the 64-bit lanes of a register, a word in the lower half
 * of each; what stands in the upper half is never looked at. */
#include "ir/philox.h"

#include "ir/ir.h"

#include <immintrin.h>

enum { BLOCKS = 4 };

typedef struct Words {
    __m256i x[4];
} Words;

/* aq_philox, for the counters block .. block + 3. */
__attribute__((target("avx2"))) static Words words_at(const uint32_t key[2],
                                                      uint32_t stream,
                                                      uint32_t sample,
                                                      uint32_t block)
{
    const __m256i m0 = _mm256_set1_epi64x(AQ_PHILOX_A);
    const __m256i m1 = _mm256_set1_epi64x(AQ_PHILOX_B);
    __m256i k0 = _mm256_set1_epi32((int)key[0]);
    __m256i k1 = _mm256_set1_epi32((int)key[1]);
    Words w = {{_mm256_add_epi32(_mm256_set1_epi32((int)block),
                                 _mm256_set_epi64x(3, 2, 1, 0)),
                _mm256_set1_epi32((int)sample), _mm256_set1_epi32((int)stream),
                _mm256_setzero_si256()}};
    for (int round = 0; round < AQ_PHILOX_ROUNDS; round++) {
        __m256i a = _mm256_mul_epu32(m0, w.x[0]);
        __m256i b = _mm256_mul_epu32(m1, w.x[2]);
        __m256i high_a = _mm256_srli_epi64(a, 32);
        __m256i high_b = _mm256_srli_epi64(b, 32);
        w.x[0] = _mm256_xor_si256(_mm256_xor_si256(high_b, w.x[1]), k0);
        w.x[1] = b;
        w.x[2] = _mm256_xor_si256(_mm256_xor_si256(high_a, w.x[3]), k1);
        w.x[3] = a;
        k0 = _mm256_add_epi32(k0, _mm256_set1_epi32((int)AQ_PHILOX_KEY0));
        k1 = _mm256_add_epi32(k1, _mm256_set1_epi32((int)AQ_PHILOX_KEY1));
    }
    return w;
}

/* scale (2 u - 1), u = (word + 1/2) / 2^32: exact up to the product, as it is
 * for one. */
__attribute__((target("avx2"))) static __m128 spread(__m256i words,
                                                     double scale)
{
    /* 2^52 + word, for the word in the lower bits of a double */
    const __m256d large = _mm256_set1_pd(0x1p52);
    __m256i word = _mm256_and_si256(words, _mm256_set1_epi64x(0xFFFFFFFF));
    __m256d x = _mm256_sub_pd(
        _mm256_castsi256_pd(_mm256_or_si256(word, _mm256_castpd_si256(large))),
        large);
    x = _mm256_mul_pd(_mm256_add_pd(x, _mm256_set1_pd(0.5)),
                      _mm256_set1_pd(0x1p-31));
    x = _mm256_sub_pd(x, _mm256_set1_pd(1));
    return _mm256_cvtpd_ps(_mm256_mul_pd(_mm256_set1_pd(scale), x));
}

__attribute__((target("avx2"))) static int64_t
spread_many(const uint32_t key[2], uint32_t stream, uint32_t sample,
            uint32_t block, int64_t blocks, double scale, float *out)
{
    int64_t done = 0;
    for (; done + BLOCKS <= blocks; done += BLOCKS) {
        Words w = words_at(key, stream, sample, block + (uint32_t)done);
        __m128 a = spread(w.x[0], scale), b = spread(w.x[1], scale);
        __m128 c = spread(w.x[2], scale), d = spread(w.x[3], scale);
        _MM_TRANSPOSE4_PS(a, b, c, d);
        _mm_storeu_ps(out + 4 * done, a);
        _mm_storeu_ps(out + 4 * done + 4, b);
        _mm_storeu_ps(out + 4 * done + 8, c);
        _mm_storeu_ps(out + 4 * done + 12, d);
    }
    return done;
}

void aq_random_spread(const uint32_t key[2], uint32_t stream, uint32_t sample,
                      uint32_t block, int64_t blocks, double scale, float *out)
{
    int64_t done =
        __builtin_cpu_supports("avx2")
            ? spread_many(key, stream, sample, block, blocks, scale, out)
            : 0;
    for (; done < blocks; done++) {
        double u[4];
        aq_random_uniforms(key, 0, stream, sample, block + (uint32_t)done, u);
        for (int i = 0; i < 4; i++)
            out[4 * done + i] = (float)(scale * (2 * u[i] - 1));
    }
}
