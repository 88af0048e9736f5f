/* Which algorithm computes a contraction: a fixed table for each level of
 * instructions.  Code generation has a file for each name (codegen/contract.c).
 *
 * `suits` says what an algorithm can compute, `wins` where it is the fastest,
 * `blocks` how it cuts the work; the first row that suits and wins is taken.
 * The figures behind a `wins` stand above it. */
#include "ir/tiles.h"
#include "passes/choose.h"

#include <string.h>

typedef bool Predicate(const AqContractFacts *facts, const AqTarget *target);

typedef int Blocks(const AqContractFacts *facts, const AqTarget *target,
                   int64_t *blocks, int64_t *most);

typedef struct Algorithm {
    const char *name;
    Predicate *suits, *wins;
    Blocks *blocks;
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

/* Many terms of a sum, whatever the columns: 128 -> 3 channels at 32x32 take
 * 62 GFLOP/s rather than 23, 3 -> 128 142 rather than 187. */
static bool wins_winograd(const AqContractFacts *f, const AqTarget *target)
{
    enum { FEW = 16 };
    (void)target;
    bool in = f->op != AQ_OP_conv2d_input_gradient, out = f->op != AQ_OP_conv2d;
    return (!in || f->in >= FEW) && (!out || f->out >= FEW);
}

/* ---- blas: plain products, by a library ---- */

static bool is_small(const AqContractFacts *f)
{
    enum { MOST = 1 << 30 }; /* sizes are ints there */
    return f->m <= MOST && f->n <= MOST && f->k <= MOST &&
           f->images * f->x_size[0] * f->x_size[1] <= MOST;
}

static bool is_plain_product(const AqContractFacts *f, const AqTarget *target)
{
    bool is = f->plain_operands && is_small(f);
    (void)target;
    for (int d = 0; f->op != AQ_OP_matmul && d < 2; d++)
        is = is && f->groups == 1 && f->kernel[d] == 1 && f->stride[d] == 1 &&
             f->x_size[d] == f->y_size[d];
    return is;
}

/* GFLOP/s of two threads, blas / gemm, forward, input's and weights' gradient:
 *
 *   rows, in, out      AVX2                          AVX-512
 *   2048, 384, 1536    107/108  101/111   95/110     182/219  200/213  147/184
 *   2048, 1536, 384    116/102  116/120  111/94      209/170  208/174  169/166
 *   4096, 320, 320     112/117  110/114   97/97      215/180  210/172  161/177
 *   4096, 320, 2560    113/110  110/114   93/104     189/144  193/159  128/158
 *   1024, 640, 5120    110/103  106/135  103/133     171/126  139/204  150/212
 *   256, 1280, 1280     94/130   80/123  112/107     106/226  105/211  182/179
 *   8, 384, 2304        31/50    24/46    50/25       34/71    28/73    98/49
 *
 * (OpenBLAS 0.3.21 told to use its Haswell and its SkylakeX code;
 * codegen/blas.c takes the former everywhere.)  It is twice as fast at products
 * of few terms alone, which take 0.1 ms of a step: that does not pay for
 * loading it. */
static bool nowhere(const AqContractFacts *facts, const AqTarget *target)
{
    (void)facts;
    (void)target;
    return false;
}

/* ---- gemm_bf16x6: products on the matrix unit ---- */

/* Terms in rows, or columns that can be turned into rows: those of one tap, no
 * pixel skipped. */
static bool can_split(const AqContractFacts *f, const AqTarget *target)
{
    int64_t rows = f->m, terms = f->k;
    bool turned = f->by_terms, direct = true;
    if (target->level < 5)
        return false;
    if (f->op == AQ_OP_conv2d_weight_gradient) {
        turned = true;
        rows = f->in / f->groups;
        terms = f->images * f->y_size[0] * f->y_size[1];
        for (int d = 0; d < 2; d++)
            direct = direct && f->kernel[d] == 1 && f->stride[d] == 1 &&
                     f->x_size[d] == f->y_size[d];
    }
    return !turned ||
           (direct && rows % target->vector == 0 && terms >= AQ_TURNED_TERMS);
}

/* Sizes that fill its tiles: a chunk of terms, a vector, half of the rows. */
static bool wins_split(const AqContractFacts *f, const AqTarget *target)
{
    enum { TERMS = 64, COLUMNS = 16, ROWS = 16 };
    (void)target;
    if (f->op == AQ_OP_matmul)
        return f->k >= TERMS && f->n >= COLUMNS && f->m >= ROWS;
    return f->in / f->groups >= TERMS && f->out / f->groups >= TERMS;
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
    {"winograd", is_plain_3x3, wins_winograd, aq_choose_winograd_blocks},
    {"blas", is_plain_product, nowhere, aq_choose_blas_blocks},
    {"gemm_bf16x6", can_split, wins_split, aq_choose_split_blocks},
    {"gemm", always, always, aq_choose_gemm_blocks},
};

const char *aq_algorithm_name(int i)
{
    return i < AQ_COUNT(algorithms) ? algorithms[i].name : NULL;
}

static const Algorithm *named(const char *name)
{
    for (int i = 0; i < AQ_COUNT(algorithms); i++)
        if (!strcmp(algorithms[i].name, name))
            return &algorithms[i];
    return NULL;
}

const char *aq_choose_algorithm(const AqContractFacts *facts,
                                const AqTarget *target, const char *wanted)
{
    const Algorithm *asked = wanted ? named(wanted) : NULL;
    if (asked && asked->suits(facts, target))
        return asked->name;
    for (int i = 0; i < AQ_COUNT(algorithms); i++)
        if (algorithms[i].suits(facts, target) &&
            algorithms[i].wins(facts, target))
            return algorithms[i].name;
    return NULL;
}

bool aq_algorithm_suits(const char *algorithm, const AqContractFacts *facts,
                        const AqTarget *target)
{
    const Algorithm *row = named(algorithm);
    return row && row->suits(facts, target);
}

int aq_choose_blocks(const char *algorithm, const AqContractFacts *facts,
                     const AqTarget *target, int64_t *blocks, int64_t *most)
{
    const Algorithm *row = named(algorithm);
    return row && row->suits(facts, target)
               ? row->blocks(facts, target, blocks, most)
               : 0;
}
