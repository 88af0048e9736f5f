/* A graph of kernels as steps and values.
 *
 * Kept, so never computed twice: what leaves the program, parts of a concat
 * (gradients lie in one array), and what reductions give (moments, log-sum-exp:
 * small, and a sweep or more to compute). */
#include "passes/flow.h"

#include <string.h>

typedef struct Builder {
    AqFlow *f;
    AqArena *arena;
    int *step_of;  /* kernel node -> step */
    int *value_of; /* result node -> value, else -1 */
    int *seen;     /* value -> the last step that listed it, + 1 */
    int n_inputs, capacity;
} Builder;

static const AqNode *node_of(const Builder *b, AqId id)
{
    return aq_node(b->f->g, id);
}

/* ---- values behind a node ---- */

static bool add_input(Builder *b, int value)
{
    if (b->n_inputs == b->capacity) {
        int capacity = AQ_MAX(256, 2 * b->capacity);
        int *inputs = AQ_NEW_ARRAY(b->arena, int, capacity);
        if (!inputs)
            return false;
        if (b->n_inputs)
            memcpy(inputs, b->f->inputs, (size_t)b->n_inputs * sizeof *inputs);
        b->f->inputs = inputs;
        b->capacity = capacity;
    }
    b->f->inputs[b->n_inputs++] = value;
    return true;
}

static bool list_inputs(Builder *b, AqId id, int step)
{
    const AqNode *node = node_of(b, id);
    if (node->op == AQ_OP_result) {
        int value = b->value_of[id];
        if (b->seen[value] == step + 1)
            return true;
        b->seen[value] = step + 1;
        return add_input(b, value);
    }
    for (int i = 0; i < node->n_inputs; i++)
        if (!list_inputs(b, node->inputs[i], step))
            return false;
    return true;
}

/* Parts of a concat lie without gaps. */
static void keep(Builder *b, AqId id, bool part)
{
    const AqNode *node = node_of(b, id);
    if (node->op == AQ_OP_result) {
        AqFlowValue *v = &b->f->values[b->value_of[id]];
        v->kept = true;
        if (part)
            v->bytes = aq_bytes(&node->type);
        return;
    }
    for (int i = 0; i < node->n_inputs; i++)
        keep(b, node->inputs[i], part || node->op == AQ_OP_concat);
}

/* ---- what is kept ---- */

/* Whether a result of a body is what a reduction gives. */
static bool is_reduced(const AqGraph *body, int index)
{
    AqId id = body->outputs[index].node;
    while (aq_node(body, id)->op == AQ_OP_reshape)
        id = aq_node(body, id)->inputs[0];
    const AqNode *node = aq_node(body, id);
    int64_t which = aq_attr_int(node, AQ_KEY_INDEX, 0);
    if (node->op == AQ_OP_result)
        node = aq_node(body, node->inputs[0]);
    return (aq_op_info[node->op].facts & AQ_REDUCES) ||
           (node->op == AQ_OP_attention && which == 1);
}

static void keep_all(Builder *b)
{
    AqFlow *f = b->f;
    for (int i = 0; i < f->n_values; i++) {
        AqFlowValue *v = &f->values[i];
        const AqNode *result = node_of(b, v->node);
        const AqGraph *body = aq_attr_body(node_of(b, result->inputs[0]));
        int index = (int)aq_attr_int(result, AQ_KEY_INDEX, 0);
        v->kept |= is_reduced(body, index);
    }
    for (AqId id = 0; id < f->g->count; id++)
        if (node_of(b, id)->op == AQ_OP_concat)
            keep(b, id, true);
    for (int i = 0; i < f->g->n_outputs; i++) {
        const AqOutput *o = &f->g->outputs[i];
        keep(b, o->node, false);
        if (o->update && node_of(b, o->node)->op == AQ_OP_result)
            f->values[b->value_of[o->node]].bytes = 0;
    }
}

/* ---- uses ---- */

/* Outputs are used after the last step. */
static bool list_output_inputs(Builder *b)
{
    for (int i = 0; i < b->f->g->n_outputs; i++)
        if (!list_inputs(b, b->f->g->outputs[i].node, b->f->n_steps))
            return false;
    return true;
}

static void count_uses(AqFlow *f, int first, int count)
{
    for (int i = first; i < first + count; i++)
        f->values[f->inputs[i]].n_uses++;
}

static bool list_uses(Builder *b)
{
    AqFlow *f = b->f;
    int outputs = b->n_inputs, place = 0;
    if (!list_output_inputs(b))
        return false;
    f->uses = AQ_NEW_ARRAY(b->arena, int, b->n_inputs + 1);
    if (!f->uses)
        return false;
    f->n_uses = b->n_inputs;
    count_uses(f, 0, f->n_uses);
    for (int i = 0; i < f->n_values; i++) {
        f->values[i].first_use = place;
        place += f->values[i].n_uses;
        f->values[i].n_uses = 0;
    }
    for (int s = 0; s <= f->n_steps; s++) {
        int first = s < f->n_steps ? f->steps[s].first_input : outputs;
        int end = s < f->n_steps ? first + f->steps[s].n_inputs : b->n_inputs;
        for (int i = first; i < end; i++) {
            AqFlowValue *v = &f->values[f->inputs[i]];
            f->uses[v->first_use + v->n_uses++] = s;
        }
    }
    return true;
}

/* ---- steps ---- */

static void add_value(Builder *b, AqId id)
{
    AqFlow *f = b->f;
    int step = b->step_of[node_of(b, id)->inputs[0]];
    AqFlowStep *s = &f->steps[step];
    if (s->n_values++ == 0)
        s->first_value = f->n_values;
    b->value_of[id] = f->n_values;
    f->values[f->n_values++] =
        (AqFlowValue){.node = id,
                      .step = step,
                      .bytes = aq_padded(aq_bytes(&node_of(b, id)->type))};
}

static bool list_steps(Builder *b, const AqNeeds *needs, const AqSpeed *speed)
{
    AqFlow *f = b->f;
    for (AqId id = 0; id < f->g->count; id++) {
        const AqNode *node = node_of(b, id);
        if (node->op == AQ_OP_result)
            add_value(b, id);
        if (node->op != AQ_OP_kernel)
            continue;
        b->step_of[id] = f->n_steps;
        AqFlowStep *s = &f->steps[f->n_steps];
        *s = (AqFlowStep){.kernel = id,
                          .first_input = b->n_inputs,
                          .workspace = aq_padded(needs[id].workspace) +
                                       aq_padded(needs[id].kept),
                          .seconds = aq_kernel_seconds(f->g, id, speed)};
        for (int i = 0; i < node->n_inputs; i++)
            if (!list_inputs(b, node->inputs[i], f->n_steps))
                return false;
        s->n_inputs = b->n_inputs - s->first_input;
        f->n_steps++;
    }
    return true;
}

AqFlow *aq_flow(const AqGraph *graph, const AqNeeds *needs,
                const AqSpeed *speed, AqArena *arena)
{
    size_t n = (size_t)graph->count + 1;
    AqFlow *f = AQ_NEW(arena, AqFlow);
    Builder b = {.f = f,
                 .arena = arena,
                 .step_of = AQ_NEW_ARRAY(arena, int, n),
                 .value_of = AQ_NEW_ARRAY(arena, int, n),
                 .seen = AQ_NEW_ARRAY(arena, int, n)};
    if (!f || !b.step_of || !b.value_of || !b.seen)
        return NULL;
    f->g = graph;
    f->steps = AQ_NEW_ARRAY(arena, AqFlowStep, n);
    f->values = AQ_NEW_ARRAY(arena, AqFlowValue, n);
    if (!f->steps || !f->values || !list_steps(&b, needs, speed))
        return NULL;
    keep_all(&b);
    return list_uses(&b) ? f : NULL;
}
