/* Writes on every contraction's kernel by which algorithm it is computed, and
 * in which blocks.
 *
 * The choice depends on the kernel and the target alone, so that the bits are
 * the same on every machine of a level; but for an algorithm that is asked for
 * (--algorithm), and choices that were measured (--tune) and come with the run.
 * What is already written on a kernel stays.
 * Needs: a graph of kernels.  Keeps: values of outputs.  Idempotent. */
#include "passes/choose.h"

#include <stdlib.h>

/* What was measured for it, if it still suits. */
static const AqChoice *tuned(const AqNode *kernel, const AqContractFacts *facts,
                             const AqPassContext *cx)
{
    if (!cx->tuning || cx->algorithm)
        return NULL;
    uint64_t hash = aq_contraction_hash(kernel, cx->target);
    for (int i = 0; i < cx->tuning->count; i++) {
        const AqChoice *choice = &cx->tuning->choices[i];
        if (choice->contraction == hash &&
            aq_algorithm_suits(choice->algorithm, facts, cx->target))
            return choice;
    }
    return NULL;
}

static AqChoice choice_of(const AqNode *kernel, const AqContractFacts *facts,
                          const AqPassContext *cx)
{
    const AqChoice *measured = tuned(kernel, facts, cx);
    AqChoice choice = {.algorithm =
                           aq_attr_text(kernel, AQ_KEY_ALGORITHM, NULL)};
    if (!choice.algorithm && measured)
        choice = *measured;
    if (!choice.algorithm)
        choice.algorithm =
            aq_choose_algorithm(facts, cx->target, cx->algorithm);
    int64_t most[AQ_BLOCK_NUMBERS];
    if (choice.n_blocks == 0 && !aq_attr(kernel, AQ_KEY_BLOCKS))
        choice.n_blocks = aq_choose_blocks(choice.algorithm, facts, cx->target,
                                           choice.blocks, most);
    return choice;
}

static AqId choose(const AqGraph *in, AqGraph *out, AqId id, const AqId *map,
                   const AqPassContext *cx)
{
    const AqNode *node = aq_node(in, id);
    AqContractFacts facts;
    AqAttr attrs[2];
    int count = 0;
    if (!aq_contract_facts(node, &facts))
        return aq_graph_copy_node(out, in, id, map);
    AqChoice choice = choice_of(node, &facts, cx);
    if (!aq_attr(node, AQ_KEY_ALGORITHM))
        attrs[count++] = aq_text(AQ_KEY_ALGORITHM, choice.algorithm);
    if (choice.n_blocks > 0 && !aq_attr(node, AQ_KEY_BLOCKS))
        attrs[count++] = aq_ints(AQ_KEY_BLOCKS, choice.blocks, choice.n_blocks);
    return aq_graph_copy_with(out, in, id, map, attrs, count);
}

AqStatus aq_choose(const AqGraph *in, AqGraph *out, AqPassContext *cx)
{
    AqId *map = malloc(((size_t)in->count + 1) * sizeof *map);
    if (!map)
        return aq_no_memory(cx->error, (size_t)in->count * sizeof *map);
    for (AqId id = 0; id < in->count && !out->error.status; id++)
        map[id] = choose(in, out, id, map, cx);
    for (int i = 0; i < in->n_outputs && !out->error.status; i++)
        aq_graph_output(out, in->outputs[i].name, map[in->outputs[i].node],
                        in->outputs[i].update);
    free(map);
    return out->error.status;
}
