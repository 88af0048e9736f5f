/* Merges producers and consumers into kernels.
 *
 * Three steps, a file each: which values are stored (fuse_store.c), which of
 * them one kernel writes (fuse_group.c), and the kernels' bodies (fuse_body.c).
 * Needs: a simplified graph.  Keeps: values of outputs.  Breaks: nothing; the
 * result prints, verifies and interprets like any graph. */
#include "passes/fuse.h"

#include <stdlib.h>

static bool prepare(Fuse *f)
{
    size_t n = (size_t)f->in->count;
    f->live = AQ_NEW_ARRAY(f->arena, bool, n);
    f->uses = AQ_NEW_ARRAY(f->arena, int, n);
    f->role = AQ_NEW_ARRAY(f->arena, FuseRole, n);
    f->absorbed = AQ_NEW_ARRAY(f->arena, AqId, n);
    f->group_of = AQ_NEW_ARRAY(f->arena, int, n);
    f->visited = AQ_NEW_ARRAY(f->arena, int, n);
    f->map = AQ_NEW_ARRAY(f->arena, AqId, n);
    f->inner = AQ_NEW_ARRAY(f->arena, AqId, n);
    f->placed = AQ_NEW_ARRAY(f->arena, bool, n);
    if (!f->placed || !f->inner || !f->map || !f->visited || !f->group_of ||
        !f->absorbed || !f->role || !f->uses || !f->live)
        return false;
    aq_mark_live(f->in, f->live);
    for (AqId id = 0; id < f->in->count; id++)
        f->absorbed[id] = f->group_of[id] = f->map[id] = AQ_NO_NODE;
    for (AqId id = 0; id < f->in->count; id++) {
        const AqNode *node = aq_node(f->in, id);
        for (int i = 0; f->live[id] && i < node->n_inputs; i++)
            f->uses[node->inputs[i]]++;
    }
    for (int i = 0; i < f->in->n_outputs; i++)
        f->uses[f->in->outputs[i].node]++;
    return true;
}

/* Where a kernel stands: a contraction at once, however late its sums are asked
 * for, so that what it reads is free; others with their last member. */
static AqId place_of(const FuseGroup *group)
{
    bool at_once = group->kind == AQ_LOWER_contract;
    return group->members[at_once ? 0 : group->n_members - 1];
}

static int by_place(const void *a, const void *b)
{
    const FuseGroup *const *x = a, *const *y = b;
    return (place_of(*x) > place_of(*y)) - (place_of(*x) < place_of(*y));
}

/* In the order of the user's program, as far as data flow allows. */
static void emit_all(Fuse *f)
{
    FuseGroup **order = AQ_NEW_ARRAY(f->arena, FuseGroup *, f->n_groups);
    if (!order) {
        aq_no_memory(f->error, sizeof *order * (size_t)f->n_groups);
        return;
    }
    for (int i = 0; i < f->n_groups; i++)
        order[i] = &f->groups[i];
    qsort(order, (size_t)f->n_groups, sizeof *order, by_place);
    for (int i = 0; i < f->n_groups; i++)
        aq_fuse_emit(f, order[i]);
    for (AqId id = 0; id < f->in->count; id++) /* also if only written */
        if (f->live[id] && aq_node(f->in, id)->op == AQ_OP_state)
            aq_fuse_stored(f, id);
    for (int i = 0; i < f->in->n_outputs; i++) {
        const AqOutput *o = &f->in->outputs[i];
        aq_graph_output(f->out, o->name, aq_fuse_stored(f, o->node), o->update);
    }
}

AqStatus aq_fuse(const AqGraph *in, AqGraph *out, AqPassContext *cx)
{
    Fuse f = {
        .in = in, .out = out, .arena = aq_arena_new(), .error = cx->error};
    if (!f.arena || !prepare(&f)) {
        aq_arena_free(f.arena);
        return aq_no_memory(cx->error, (size_t)in->count * 64);
    }
    aq_fuse_decide(&f);
    if (!cx->error->status)
        aq_fuse_group(&f);
    if (!cx->error->status)
        emit_all(&f);
    aq_arena_free(f.arena);
    return out->error.status ? out->error.status : cx->error->status;
}
