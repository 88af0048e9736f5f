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

/* ---- gemm, the last row: anything, as one product ---- */

static bool always(const AqContractFacts *facts, const AqTarget *target)
{
    (void)facts;
    (void)target;
    return true;
}

/* ---- the table ---- */

static const Algorithm algorithms[] = {
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
