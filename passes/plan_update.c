/* States that are written where they lie.
 *
 * A kernel may write a state's new value over the old one where every other
 * reader of it has run before, and the kernel itself reads it at the index that
 * it writes. */
#include "passes/plan.h"

static const AqNode *node_of(const Planner *p, AqId id)
{
    return aq_node(p->g, id);
}

/* Whether the body uses arg `index` only at the index it is computing: what
 * depends on it is never moved or looked up. */
static bool reads_in_place(Planner *p, const AqGraph *body, int index)
{
    bool *depends = AQ_NEW_ARRAY(p->scratch, bool, body->count);
    if (!depends)
        return false;
    for (AqId id = 0; id < body->count; id++) {
        const AqNode *node = aq_node(body, id);
        depends[id] = node->op == AQ_OP_arg &&
                      aq_attr_int(node, AQ_KEY_INDEX, 0) == index;
        for (int i = 0; i < node->n_inputs; i++)
            depends[id] = depends[id] || depends[node->inputs[i]];
        bool pointwise = (aq_op_info[node->op].facts & AQ_POINTWISE) ||
                         node->op == AQ_OP_reshape;
        if (depends[id] && !pointwise && node->op != AQ_OP_arg)
            return false;
    }
    return true;
}

/* Where a value lies that came from outside, behind its reshapes; those have
 * no places of their own yet. */
static Place place_behind(const Planner *p, AqId id)
{
    while (node_of(p, id)->op == AQ_OP_reshape)
        id = node_of(p, id)->inputs[0];
    return p->place[id];
}

static bool overlaps_base(const Planner *p, AqId id, int base)
{
    Place place = place_behind(p, id);
    return place.block >= 0 && p->blocks[place.block].base == base;
}

/* Whether `value`, a kernel's result, may be written into `base` when its
 * kernel runs. */
static bool may_update(Planner *p, AqId value, int base)
{
    const AqNode *result = node_of(p, value);
    if (result->op != AQ_OP_result)
        return false;
    AqId writer = result->inputs[0];
    const AqGraph *body = aq_attr_body(node_of(p, writer));
    for (AqId id = 0; id < p->g->count; id++) {
        const AqNode *node = node_of(p, id);
        if (node->op != AQ_OP_kernel)
            continue;
        for (int i = 0; i < node->n_inputs; i++) {
            if (!overlaps_base(p, node->inputs[i], base))
                continue;
            if (p->step_of[id] > p->step_of[writer])
                return false;
            if (id == writer && (place_behind(p, node->inputs[i]).offset != 0 ||
                                 !reads_in_place(p, body, i)))
                return false;
        }
    }
    for (int i = 0; i < p->g->n_outputs; i++) /* the old value is wanted */
        if (p->g->outputs[i].node != value &&
            overlaps_base(p, p->g->outputs[i].node, base))
            return false;
    return true;
}

void aq_plan_updates(Planner *p)
{
    for (int i = 0; i < p->g->n_outputs; i++) {
        const AqOutput *o = &p->g->outputs[i];
        if (!o->update)
            continue;
        int64_t bytes = aq_bytes(&node_of(p, o->node)->type);
        int base = aq_plan_add_base(p, o->name, bytes, true);
        p->plan->bases[base].written = true;
        Place *place = &p->place[o->node];
        if (place->block >= 0 || !may_update(p, o->node, base))
            continue;
        place->block = aq_plan_block(p, bytes, base);
    }
}
