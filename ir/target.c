/* The processor that code is made for.  Three levels of x86-64 are known, each
 * with fixed cache sizes, so that choices (and with them the bits) are the same
 * on every machine of a level. */
#include "ir/ir.h"

#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>

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

/* Tile registers and their bfloat16 products: the processor has them, and the
 * system lets this process use them, which it must be asked for (Linux's
 * Documentation/arch/x86/xstate.rst). */
static bool has_level_5(void)
{
    enum { AMX_BF16 = 1 << 22, AMX_TILE = 1 << 24, TILE_DATA = 18 };
    enum { ARCH_REQ_XCOMP_PERM = 0x1023 };
    unsigned eax, ebx, ecx, edx;
    return has_level_4() && __get_cpuid_count(7, 0, &eax, &ebx, &ecx, &edx) &&
           edx & AMX_BF16 && edx & AMX_TILE &&
           syscall(SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, TILE_DATA) == 0;
}

static const AqTarget level_3 = {
    .name = "x86-64-v3",
    .cpu = "x86-64-v3",
    .level = 3,
    .vector = 8,
    .registers = 16,
    .l1 = 32 << 10,
    .l2 = 512 << 10,
    .l3 = 16 << 20,
};

static const AqTarget level_4 = {
    .name = "x86-64-v4",
    .cpu = "x86-64-v4",
    .level = 4,
    .vector = 16,
    .registers = 32,
    .l1 = 32 << 10,
    .l2 = 1 << 20,
    .l3 = 16 << 20,
};

/* Taken only where it is asked for: with another program on the core's other
 * hyperthread the matrix unit takes three times as long (codegen/README.md). */
static const AqTarget level_5 = {
    .name = "x86-64-v4 with AMX",
    .cpu = "x86-64-v4",
    .level = 5,
    .vector = 16,
    .registers = 32,
    .l1 = 32 << 10,
    .l2 = 1 << 20,
    .l3 = 16 << 20,
};

AqStatus aq_target_host(int level, AqTarget *target, AqError *error)
{
    static const AqTarget *const levels[] = {&level_3, &level_4, &level_5};
    __builtin_cpu_init();
    if (level != 0 && (level < AQ_FIRST_LEVEL || level > AQ_LAST_LEVEL))
        return aq_fail(error, AQ_BAD_INPUT,
                       "instruction-set level %d is not known: use 3 (AVX2), 4 "
                       "(AVX-512), 5 (AVX-512 and AMX), or 0 for the best of 3 "
                       "and 4 that this processor has",
                       level);
    if (!has_level_3())
        return aq_fail(error, AQ_UNSUPPORTED,
                       "this processor has no AVX2 and FMA: compiling needs "
                       "an x86-64 processor of level v3 or better");
    if (level >= 4 && !has_level_4())
        return aq_fail(error, AQ_UNSUPPORTED,
                       "this processor has no AVX-512 (F, BW, DQ, VL): use "
                       "instruction-set level 3");
    if (level == 5 && !has_level_5())
        return aq_fail(error, AQ_UNSUPPORTED,
                       "this processor, or its system, has no AMX with "
                       "bfloat16: use instruction-set level 4");
    if (level == 0)
        level = has_level_4() ? 4 : 3;
    *target = *levels[level - AQ_FIRST_LEVEL];
    return AQ_OK;
}
