/* What --tune measures for a contraction: every algorithm that suits in the
 * blocks that its table says, and a few others for `gemm`. */
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

/* Half and twice as many rows or columns, other slices. */
static void add_gemm_blocks(List *list, const AqChoice *gemm)
{
    enum { ROWS, COLUMNS, TERMS, SLICES };
    static const struct {
        int which, times, over;
    } changes[] = {{ROWS, 1, 2},    {ROWS, 2, 1},   {COLUMNS, 1, 2},
                   {COLUMNS, 2, 1}, {SLICES, 1, 2}, {SLICES, 2, 1}};
    for (int i = 0; i < AQ_COUNT(changes); i++) {
        AqChoice other = *gemm;
        int64_t *number = &other.blocks[changes[i].which];
        *number = AQ_MAX(*number * changes[i].times / changes[i].over, 1);
        add(list, &other);
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
        if (!strcmp(other.algorithm, "gemm"))
            add_gemm_blocks(&list, &other);
    }
    return list.count;
}
