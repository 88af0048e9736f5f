/* Which elements a body reads, found without emitting anything. */
#include "codegen/map.h"

static void walk_input(AqIndexWalk *walk, const AqNode *node, int k,
                       const AqIndex *index)
{
    AqIndex input[AQ_MAX_RANK];
    AqBound bounds[AQ_MAX_RANK];
    aq_move_index(walk->t, walk->body, node, k, index, input, bounds);
    int rank = aq_node(walk->body, node->inputs[k])->type.rank;
    for (int i = 0; i < rank; i++)
        if (aq_bound_truth(walk->t, &bounds[i]) != AQ_ALWAYS) {
            walk->visit(walk->context, bounds[i].index);
            walk->visit(walk->context, bounds[i].zero);
        }
    aq_index_walk(walk, node->inputs[k], input);
}

static void walk_gather(AqIndexWalk *walk, const AqNode *node,
                        const AqIndex *index)
{
    const AqType *table = &aq_node(walk->body, node->inputs[0])->type;
    int lead = aq_node(walk->body, node->inputs[1])->type.rank;
    AqIndex input[AQ_MAX_RANK];
    aq_index_walk(walk, node->inputs[1], index);
    input[0] = aq_index_variable(walk->t, NULL, 0, table->dim[0] - 1, 0);
    for (int i = 1; i < table->rank; i++)
        input[i] = index[lead + i - 1];
    aq_index_walk(walk, node->inputs[0], input);
}

static AqIndex offset_of(AqIndexWalk *walk, const AqType *type, int from,
                         const AqIndex *index)
{
    AqIndex offset = aq_index_constant(walk->t, 0);
    for (int i = from; i < type->rank; i++) {
        offset = aq_index_scale(walk->t, offset, type->dim[i]);
        offset = aq_index_add(walk->t, offset, index[i]);
    }
    return offset;
}

static void walk_random(AqIndexWalk *walk, const AqNode *node,
                        const AqIndex *index)
{
    aq_index_walk(walk, node->inputs[2], index);
    walk->visit(walk->context, offset_of(walk, &node->type, 1, index));
}

static bool seen_before(AqIndexWalk *walk, AqId id, const AqIndex *index,
                        int rank)
{
    static char mark;
    AqMemoKey key = {.node = id};
    for (int i = 0; i < rank; i++)
        key.index[i] = index[i];
    if (aq_memo_get(walk->seen, &key))
        return true;
    aq_memo_put(walk->seen, &key, (LLVMValueRef)(void *)&mark, 0);
    return false;
}

void aq_index_walk(AqIndexWalk *walk, AqId id, const AqIndex *index)
{
    const AqNode *node = aq_node(walk->body, id);
    if (seen_before(walk, id, index, node->type.rank))
        return;
    if (aq_op_info[node->op].facts & (AQ_POINTWISE | AQ_MOVES)) {
        for (int k = 0; k < node->n_inputs; k++)
            walk_input(walk, node, k, index);
    } else if (node->op == AQ_OP_arg || node->op == AQ_OP_table) {
        walk->visit(walk->context, offset_of(walk, &node->type, 0, index));
    } else if (node->op == AQ_OP_iota) {
        walk->visit(walk->context, index[aq_attr_int(node, AQ_KEY_AXIS, 0)]);
    } else if (node->op == AQ_OP_gather) {
        walk_gather(walk, node, index);
    } else if (node->op == AQ_OP_random) {
        walk_random(walk, node, index);
    }
}
