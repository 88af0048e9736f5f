/* Writes on every contraction's kernel by which algorithm it is computed, and
 * in which blocks.
 *
 * The choice depends on shapes and target alone (and on what was asked for with
 * --algorithm), so that the bits are the same on every machine of a level.
 * What is already written on a kernel stays.
 * Needs: a graph of kernels.  Keeps: values of outputs.  Idempotent. */
#include "passes/choose.h"

#include <stdlib.h>

static AqId choose(const AqGraph *in, AqGraph *out, AqId id, const AqId *map,
                   const AqPassContext *cx)
{
    const AqNode *node = aq_node(in, id);
    AqContractFacts facts;
    AqAttr attrs[2];
    int64_t blocks[AQ_BLOCK_NUMBERS];
    int count = 0;
    if (!aq_contract_facts(node, &facts))
        return aq_graph_copy_node(out, in, id, map);
    const char *algorithm = aq_attr_text(node, AQ_KEY_ALGORITHM, NULL);
    if (!algorithm) {
        algorithm = aq_choose_algorithm(&facts, cx->target, cx->algorithm);
        attrs[count++] = aq_text(AQ_KEY_ALGORITHM, algorithm);
    }
    int n = aq_choose_blocks(algorithm, &facts, cx->target, blocks);
    if (n > 0 && !aq_attr(node, AQ_KEY_BLOCKS))
        attrs[count++] = aq_ints(AQ_KEY_BLOCKS, blocks, n);
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
