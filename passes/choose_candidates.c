/* What --tune measures for a contraction: every algorithm that suits in the
 * blocks that its table says, and in a few others. */
#include "passes/choose.h"

#include <string.h>

uint64_t aq_contraction_hash(const AqNode *kernel, const AqTarget *target)
{
    AqContractFacts facts;
    if (!aq_contract_facts(kernel, &facts))
        return 0;
    uint64_t both[] = {aq_graph_hash(aq_attr_body(kernel)),
                       (uint64_t)target->level};
    return aq_hash64(both, sizeof both);
}

typedef struct List {
    AqChoice *at;
    int count, most;
} List;

static void add(List *list, const AqChoice *choice)
{
    for (int i = 0; i < list->count; i++)
        if (!strcmp(list->at[i].algorithm, choice->algorithm) &&
            list->at[i].n_blocks == choice->n_blocks &&
            !memcmp(list->at[i].blocks, choice->blocks, sizeof choice->blocks))
            return;
    if (list->count < list->most)
        list->at[list->count++] = *choice;
}

enum { FORWARD = 1, WEIGHTS = 2, BOTH = FORWARD | WEIGHTS }; /* gradients' */

/* Of an algorithm's blocks, the numbers whose best value differs most from one
 * processor to another: halved and doubled. */
static const struct {
    const char *algorithm;
    int directions, which;
} varied[] = {
    {"gemm", BOTH, 0},        /* rows */
    {"gemm", BOTH, 1},        /* columns */
    {"gemm", BOTH, 3},        /* slices */
    {"winograd", FORWARD, 0}, /* tiles */
    {"winograd", FORWARD, 1}, /* strips */
    {"winograd", WEIGHTS, 0}, /* tiles */
    {"winograd", WEIGHTS, 1}, /* register tiles */
    {"winograd", WEIGHTS, 3}, /* slices */
};

static void add_other_blocks(List *list, const AqChoice *choice,
                             const int64_t *most, AqOp op)
{
    int direction = op == AQ_OP_conv2d_weight_gradient ? WEIGHTS : FORWARD;
    for (int i = 0; i < AQ_COUNT(varied); i++) {
        int which = varied[i].which;
        if (strcmp(varied[i].algorithm, choice->algorithm) != 0 ||
            !(varied[i].directions & direction))
            continue;
        for (int twice = 0; twice < 2; twice++) {
            AqChoice other = *choice;
            int64_t *number = &other.blocks[which];
            *number = twice ? AQ_MIN(2 * *number, AQ_MAX(most[which], *number))
                            : AQ_MAX(*number / 2, 1);
            add(list, &other);
        }
    }
}

int aq_contraction_choices(const AqNode *kernel, const AqTarget *target,
                           AqChoice *choices, int most)
{
    AqContractFacts facts;
    List list = {.at = choices, .most = most};
    if (!aq_contract_facts(kernel, &facts))
        return 0;
    AqChoice c = {.contraction = aq_contraction_hash(kernel, target),
                  .algorithm = aq_choose_algorithm(&facts, target, NULL)};
    int64_t largest[AQ_BLOCK_NUMBERS];
    c.n_blocks =
        aq_choose_blocks(c.algorithm, &facts, target, c.blocks, largest);
    add(&list, &c);
    for (int i = 0; aq_algorithm_name(i); i++) {
        AqChoice other = {.contraction = c.contraction,
                          .algorithm = aq_algorithm_name(i)};
        if (!aq_algorithm_suits(other.algorithm, &facts, target))
            continue;
        other.n_blocks = aq_choose_blocks(other.algorithm, &facts, target,
                                          other.blocks, largest);
        add(&list, &other);
        add_other_blocks(&list, &other, largest, facts.op);
    }
    return list.count;
}
