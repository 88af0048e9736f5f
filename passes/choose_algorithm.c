/* Which algorithm computes a contraction: a fixed table for each level of
 * instructions.  Code generation has a file for each name (codegen/contract.c).
 *
 * `suits` says what an algorithm can compute, `wins` where it is the fastest;
 * the first row that does both is taken.  The figures behind a `wins` stand
 * above it. */
#include "passes/choose.h"

#include <string.h>

typedef bool Predicate(const AqContractFacts *facts, const AqTarget *target);

typedef struct Algorithm {
    const char *name;
    Predicate *suits, *wins;
} Algorithm;

/* ---- winograd: a quarter of the multiplications ---- */

static bool is_plain_3x3(const AqContractFacts *f, const AqTarget *target)
{
    bool is = f->op != AQ_OP_matmul && f->groups == 1;
    (void)target;
    for (int d = 0; d < 2; d++)
        is =
            is && f->kernel[d] == 3 && f->stride[d] == 1 && f->dilation[d] == 1;
    return is;
}

/* The weight gradient keeps all tiles of both images in the workspace. */
static bool wins_winograd(const AqContractFacts *f, const AqTarget *target)
{
    enum { FEW = 16, POINTS = 36, TILE = 4, MOST_BYTES = 64 << 20 };
    int64_t tiles = f->images;
    (void)target;
    for (int d = 0; d < 2; d++)
        tiles *= (f->y_size[d] + TILE - 1) / TILE;
    bool fits = f->op != AQ_OP_conv2d_weight_gradient ||
                4 * POINTS * tiles * (f->in + f->out) <= MOST_BYTES;
    return f->in >= FEW && f->out >= FEW && fits;
}

/* ---- gemm, the last row: anything, as one product ---- */

static bool always(const AqContractFacts *facts, const AqTarget *target)
{
    (void)facts;
    (void)target;
    return true;
}

/* ---- the table ---- */

static const Algorithm algorithms[] = {
    {"winograd", is_plain_3x3, wins_winograd},
    {"gemm", always, always},
};

const char *aq_algorithm_name(int i)
{
    return i < AQ_COUNT(algorithms) ? algorithms[i].name : NULL;
}

const char *aq_choose_algorithm(const AqContractFacts *facts,
                                const AqTarget *target, const char *wanted)
{
    for (int i = 0; wanted && i < AQ_COUNT(algorithms); i++)
        if (!strcmp(algorithms[i].name, wanted) &&
            algorithms[i].suits(facts, target))
            return algorithms[i].name;
    for (int i = 0; i < AQ_COUNT(algorithms); i++)
        if (algorithms[i].suits(facts, target) &&
            algorithms[i].wins(facts, target))
            return algorithms[i].name;
    return NULL;
}
