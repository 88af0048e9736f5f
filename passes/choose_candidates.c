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

/* Of an algorithm's blocks, the numbers whose best value differs most from one
 * processor to another: halved and doubled. */
typedef struct Numbers {
    const char *algorithm;
    bool weights; /* for the weights' gradient, or for the other directions */
    int which[3];
} Numbers;

static const Numbers varied[] = {
    {"gemm", false, {0, 1, 3}}, /* rows, columns, slices */
    {"gemm", true, {0, 1, 3}},
    {"winograd", false, {0, 1, 1}}, /* tiles, strips */
    {"winograd", true, {0, 1, 3}},  /* tiles, register tiles, slices */
};

static void add_other_blocks(List *list, const AqChoice *choice, AqOp op)
{
    bool weights = op == AQ_OP_conv2d_weight_gradient;
    for (int i = 0; i < AQ_COUNT(varied); i++) {
        const Numbers *v = &varied[i];
        if (strcmp(v->algorithm, choice->algorithm) != 0 ||
            v->weights != weights)
            continue;
        for (int j = 0; j < 2 * AQ_COUNT(v->which); j++) {
            AqChoice other = *choice;
            int64_t *number = &other.blocks[v->which[j / 2]];
            *number = j % 2 ? 2 * *number : AQ_MAX(*number / 2, 1);
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
    c.n_blocks = aq_choose_blocks(c.algorithm, &facts, target, c.blocks);
    add(&list, &c);
    for (int i = 0; aq_algorithm_name(i); i++) {
        AqChoice other = {.contraction = c.contraction,
                          .algorithm = aq_algorithm_name(i)};
        if (!aq_algorithm_suits(other.algorithm, &facts, target))
            continue;
        other.n_blocks =
            aq_choose_blocks(other.algorithm, &facts, target, other.blocks);
        add(&list, &other);
        add_other_blocks(&list, &other, facts.op);
    }
    return list.count;
}
