/* Steps become a graph again, in any order, some of them more than once. */
#include "passes/flow.h"

#include <stdlib.h>

typedef struct Writer {
    const AqFlow *f;
    const AqNeeds *given; /* of the flow's graph; may be NULL */
    AqGraph *out;
    AqNeeds *needs; /* of `out`; NULL: not wanted */
    AqId *map;      /* node -> its newest copy */
    AqId *first;    /* step -> its first kernel in `out` */
    int *copies;    /* step -> kernels in `out` */
} Writer;

/* The node of `out` that stands for `id` now. */
static AqId written(Writer *w, AqId id)
{
    const AqNode *node = aq_node(w->f->g, id);
    if (node->op != AQ_OP_reshape && node->op != AQ_OP_concat)
        return w->map[id];
    for (int i = 0; i < node->n_inputs; i++)
        written(w, node->inputs[i]);
    return w->map[id] = aq_graph_copy_node(w->out, w->f->g, id, w->map);
}

static AqId kernel_again(Writer *w, int step)
{
    AqGraph *out = w->out;
    AqNode node = *aq_node(w->f->g, w->f->steps[step].kernel);
    AqNode first = *aq_node(out, w->first[step]);
    AqId *inputs = AQ_NEW_ARRAY(out->arena, AqId, node.n_inputs + 1);
    if (!inputs)
        return AQ_NO_NODE;
    for (int i = 0; i < node.n_inputs; i++)
        inputs[i] = w->map[node.inputs[i]];
    out->copy = first.copy + w->copies[step];
    AqId id = aq_build(out, AQ_OP_kernel, NULL, inputs, node.n_inputs,
                       first.attrs, first.n_attrs);
    out->copy = 0;
    return id;
}

static void write_step(Writer *w, const AqEvaluation *e)
{
    const AqGraph *in = w->f->g;
    const AqFlowStep *step = &w->f->steps[e->step];
    const AqNode *node = aq_node(in, step->kernel);
    for (int i = 0; i < node->n_inputs; i++)
        written(w, node->inputs[i]);
    aq_graph_place(w->out, node);
    AqId kernel = w->copies[e->step]
                      ? kernel_again(w, e->step)
                      : aq_graph_copy_node(w->out, in, step->kernel, w->map);
    if (w->copies[e->step]++ == 0)
        w->first[e->step] = kernel;
    if (w->needs && kernel >= 0)
        w->needs[kernel] = w->given[step->kernel];
    for (int i = 0; i < step->n_values; i++) {
        AqId result = w->f->values[step->first_value + i].node;
        int index = (int)aq_attr_int(aq_node(in, result), AQ_KEY_INDEX, 0);
        AqId again = aq_result_node(w->out, kernel, index);
        if (e->adopted & 1u << i)
            w->map[result] = again;
    }
}

static void write_outputs(Writer *w)
{
    const AqGraph *in = w->f->g;
    for (int i = 0; i < in->n_outputs && !w->out->error.status; i++) {
        const AqOutput *o = &in->outputs[i];
        aq_graph_output(w->out, o->name, written(w, o->node), o->update);
    }
}

/* Without a script every step once, as they stand. */
static void write_steps(Writer *w, const AqScript *script)
{
    int count = script ? script->count : w->f->n_steps;
    for (int i = 0; i < count && !w->out->error.status; i++) {
        AqEvaluation once = {.step = i, .adopted = UINT32_MAX};
        write_step(w, script ? &script->evaluations[i] : &once);
    }
}

AqStatus aq_flow_write(const AqFlow *flow, const AqScript *script, AqGraph *out,
                       const AqNeeds *given, AqNeeds *needs)
{
    AqArena *arena = aq_arena_new();
    const AqGraph *in = flow->g;
    size_t n = (size_t)in->count + 1;
    Writer w = {.f = flow, .given = given, .out = out, .needs = needs};
    w.map = arena ? AQ_NEW_ARRAY(arena, AqId, n) : NULL;
    w.first = arena ? AQ_NEW_ARRAY(arena, AqId, n) : NULL;
    w.copies = arena ? AQ_NEW_ARRAY(arena, int, n) : NULL;
    if (!w.map || !w.first || !w.copies) {
        aq_arena_free(arena);
        return aq_no_memory(&out->error, n * sizeof(AqId));
    }
    for (AqId id = 0; id < in->count; id++)
        if (aq_op_info[aq_node(in, id)->op].facts & AQ_SOURCE)
            w.map[id] = aq_graph_copy_node(out, in, id, w.map);
    write_steps(&w, script);
    write_outputs(&w);
    aq_arena_free(arena);
    return out->error.status;
}

AqStatus aq_flow_copy(const AqGraph *in, AqGraph *out)
{
    AqId *map = malloc(((size_t)in->count + 1) * sizeof *map);
    if (!map)
        return aq_no_memory(&out->error, (size_t)in->count * sizeof *map);
    for (AqId id = 0; id < in->count && !out->error.status; id++)
        map[id] = aq_graph_copy_node(out, in, id, map);
    for (int i = 0; i < in->n_outputs && !out->error.status; i++)
        aq_graph_output(out, in->outputs[i].name, map[in->outputs[i].node],
                        in->outputs[i].update);
    free(map);
    return out->error.status;
}
