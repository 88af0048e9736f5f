/* Steps, and the small parts of a concat that lie apart until it is read.
 *
 * A concat's parts take their places in it when they are written, and what is
 * between them is room for others until then.  Small parts that are written
 * early would cut that room into pieces (gradients of biases between those of
 * matrices, which are put off): so they lie elsewhere, and are copied before
 * the first kernel that reads the concat.  How small they are is for plan.c to
 * say. */
#include "passes/plan.h"

static const AqNode *node_of(const Planner *p, AqId id)
{
    return aq_node(p->g, id);
}

static AqId behind_reshapes(const Planner *p, AqId id)
{
    while (node_of(p, id)->op == AQ_OP_reshape)
        id = node_of(p, id)->inputs[0];
    return id;
}

static bool is_late(const Planner *p, AqId concat, AqId part)
{
    int64_t bytes = aq_bytes(&node_of(p, part)->type);
    return bytes <= aq_bytes(&node_of(p, concat)->type) / p->share &&
           node_of(p, behind_reshapes(p, part))->op == AQ_OP_result;
}

static void copy_parts(Planner *p, AqId concat)
{
    const AqNode *node = node_of(p, concat);
    p->first_late[concat] = p->n_late;
    for (int i = 0; i < node->n_inputs; i++)
        if (is_late(p, concat, node->inputs[i]))
            p->late[p->n_late++] = (LatePart){.value = node->inputs[i],
                                              .part = i,
                                              .step = p->plan->n_steps++};
}

/* Concats that are parts of others have no readers of their own. */
static bool *find_inner(Planner *p)
{
    bool *inner = AQ_NEW_ARRAY(p->scratch, bool, p->g->count);
    size_t parts = 0;
    for (AqId id = 0; inner && id < p->g->count; id++) {
        const AqNode *node = node_of(p, id);
        for (int i = 0; node->op == AQ_OP_concat && i < node->n_inputs; i++)
            inner[behind_reshapes(p, node->inputs[i])] = true;
        parts += node->op == AQ_OP_concat ? (size_t)node->n_inputs : 0;
    }
    p->late = AQ_NEW_ARRAY(p->scratch, LatePart, parts + 1);
    p->first_late = AQ_NEW_ARRAY(p->scratch, int, p->g->count);
    return p->late && p->first_late ? inner : NULL;
}

bool aq_plan_steps(Planner *p)
{
    const bool *inner = find_inner(p);
    if (!inner)
        return false;
    for (AqId id = 0; id < p->g->count; id++)
        p->first_late[id] = -1;
    for (AqId id = 0; id < p->g->count; id++) {
        const AqNode *node = node_of(p, id);
        if (node->op != AQ_OP_kernel)
            continue;
        for (int i = 0; i < node->n_inputs; i++) {
            AqId from = behind_reshapes(p, node->inputs[i]);
            if (node_of(p, from)->op == AQ_OP_concat && !inner[from] &&
                p->first_late[from] < 0)
                copy_parts(p, from);
        }
        p->step_of[id] = p->plan->n_steps++;
        p->plan->n_buffers += node->n_inputs + aq_result_count(p->g, id) + 2;
    }
    for (AqId id = 0; id < p->g->count; id++)
        if (node_of(p, id)->op == AQ_OP_concat && !inner[id] &&
            p->first_late[id] < 0)
            copy_parts(p, id);
    p->plan->n_buffers += 2 * p->n_late;
    return true;
}
