/* The processor that code is made for.  Two levels of x86-64 are known, each
 * with fixed cache sizes, so that choices (and with them the bits) are the same
 * on every machine of a level. */
#include "ir/ir.h"

static bool has_level_3(void)
{
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
}

static bool has_level_4(void)
{
    return has_level_3() && __builtin_cpu_supports("avx512f") &&
           __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512dq") &&
           __builtin_cpu_supports("avx512vl");
}

static const AqTarget level_3 = {
    .cpu = "x86-64-v3",
    .level = 3,
    .vector = 8,
    .registers = 16,
    .l1 = 32 << 10,
    .l2 = 512 << 10,
    .l3 = 16 << 20,
};

static const AqTarget level_4 = {
    .cpu = "x86-64-v4",
    .level = 4,
    .vector = 16,
    .registers = 32,
    .l1 = 32 << 10,
    .l2 = 1 << 20,
    .l3 = 16 << 20,
};

AqStatus aq_target_host(int level, AqTarget *target, AqError *error)
{
    __builtin_cpu_init();
    if (level != 0 && level != 3 && level != 4)
        return aq_fail(error, AQ_BAD_INPUT,
                       "instruction-set level %d is not known: use 3 (AVX2), 4 "
                       "(AVX-512), or 0 for the best this processor has",
                       level);
    if (!has_level_3())
        return aq_fail(error, AQ_UNSUPPORTED,
                       "this processor has no AVX2 and FMA: compiling needs "
                       "an x86-64 processor of level v3 or better");
    if (level == 4 && !has_level_4())
        return aq_fail(error, AQ_UNSUPPORTED,
                       "this processor has no AVX-512 (F, BW, DQ, VL): use "
                       "instruction-set level 3");
    if (level == 0)
        level = has_level_4() ? 4 : 3;
    *target = level == 4 ? level_4 : level_3;
    return AQ_OK;
}
