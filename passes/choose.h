/* What choices look at: a contraction's op and shapes, what its operands cost,
 * and nothing else. */
#ifndef AQ_PASSES_CHOOSE_H
#define AQ_PASSES_CHOOSE_H

#include "passes/passes.h"

typedef struct AqContractFacts {
    AqOp op;
    /* matmul: `batches` products of (m, k) by (k, n) */
    int64_t batches, m, n, k;
    /* convolutions, in all directions: x (images, x_h, x_w, in),
     * w (kernel, in / groups, out), y (images, y_h, y_w, out) */
    int64_t images, in, out, groups;
    int64_t x_size[2], y_size[2], kernel[2], stride[2], dilation[2];
    /* operands are arguments, perhaps in another shape; the kernel's only
     * result is the contraction's value */
    bool plain_operands, plain_result;
    bool stored[2]; /* an operand is an argument or a part of one */
    bool by_terms;  /* matmul: a's rows are terms, as in a weight's gradient */
    /* of an operand that is computed while it is read: the operations of an
     * element, an exponential being several; else 0 */
    int evaluation[2];
} AqContractFacts;

/* choose_facts.c */
/* false: the kernel is no contraction. */
bool aq_contract_facts(const AqNode *kernel, AqContractFacts *facts);

/* choose_algorithm.c */
/* `wanted` (may be NULL) is taken wherever it suits. */
const char *aq_choose_algorithm(const AqContractFacts *facts,
                                const AqTarget *target, const char *wanted);
/* The blocks for an algorithm of the table, and the most that each number can
 * be, as larger ones change nothing: how many numbers, 0 if it does not suit.
 */
int aq_choose_blocks(const char *algorithm, const AqContractFacts *facts,
                     const AqTarget *target, int64_t *blocks, int64_t *most);

bool aq_algorithm_suits(const char *algorithm, const AqContractFacts *facts,
                        const AqTarget *target);

/* What an algorithm's file in codegen/ reads, and how many numbers: */
/* choose_winograd.c: tiles, strips, terms, V shared, U shared; of the weights'
 * gradient tiles, register tiles, strips, slices, V and D shared */
int aq_choose_winograd_blocks(const AqContractFacts *facts,
                              const AqTarget *target, int64_t *blocks,
                              int64_t *most);
/* choose_blocks.c: rows, columns, k, slices; rows, columns */
int aq_choose_gemm_blocks(const AqContractFacts *facts, const AqTarget *target,
                          int64_t *blocks, int64_t *most);
int aq_choose_split_blocks(const AqContractFacts *facts, const AqTarget *target,
                           int64_t *blocks, int64_t *most);
int aq_choose_blas_blocks(const AqContractFacts *facts, const AqTarget *target,
                          int64_t *blocks, int64_t *most);

#endif
