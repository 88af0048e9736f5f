/* Kernels' bodies: the expression of every member, with leaves as args. */
#include "passes/fuse.h"

typedef struct Body {
    Fuse *f;
    const FuseGroup *group;
    AqGraph *graph;
} Body;

static int leaf_index(const FuseGroup *group, AqId v)
{
    for (int i = 0; i < group->n_leaves; i++)
        if (group->leaves[i] == v)
            return i;
    return -1;
}

static AqId arg(AqGraph *body, int index, const AqType *type)
{
    AqAttr attr = aq_int(AQ_KEY_INDEX, index);
    return aq_build(body, AQ_OP_arg, type, NULL, 0, &attr, 1);
}

/* The body's node for v: its arg, or its copy over the copies of its inputs. */
static AqId clone(Body *b, AqId v)
{
    Fuse *f = b->f;
    if (f->visited[v] == f->stamp)
        return f->inner[v];
    f->visited[v] = f->stamp;
    const AqNode *node = aq_node(f->in, v);
    int leaf = leaf_index(b->group, v);
    if (leaf >= 0)
        return f->inner[v] = arg(b->graph, leaf, &node->type);
    for (int i = 0; i < node->n_inputs; i++)
        clone(b, node->inputs[i]);
    aq_graph_place(b->graph, node);
    return f->inner[v] = aq_graph_copy_node(b->graph, f->in, v, f->inner);
}

static void body_output(AqGraph *body, int index, AqId node)
{
    char name[16];
    snprintf(name, sizeof name, "%d", index);
    aq_graph_output(body, name, node, false);
}

static const char *kind_name(AqLowering kind)
{
    static const char *const names[] = {
        [AQ_LOWER_none] = "none",         [AQ_LOWER_map] = "map",
        [AQ_LOWER_contract] = "contract", [AQ_LOWER_attend] = "attend",
        [AQ_LOWER_scatter] = "scatter",
    };
    return names[kind];
}

/* A pointwise member in the shape of the loops. */
static AqId member(Body *b, AqId v)
{
    AqId node = clone(b, v);
    const AqNode *in = aq_node(b->f->in, v);
    bool whole = b->group->kind == AQ_LOWER_map && in->op != AQ_OP_result &&
                 aq_elements(&in->type) == aq_elements(&b->group->domain);
    if (!whole || node < 0 || aq_same_shape(&in->type, &b->group->domain))
        return node;
    return aq_reshape_like(b->graph, node, &b->group->domain);
}

static AqId kernel(AqGraph *out, AqLowering kind, const AqGraph *body,
                   const AqId *inputs, int n_inputs)
{
    AqAttr attrs[] = {aq_text(AQ_KEY_KIND, kind_name(kind)), aq_body(body)};
    return aq_build(out, AQ_OP_kernel, NULL, inputs, n_inputs, attrs,
                    AQ_COUNT(attrs));
}

void aq_fuse_emit(Fuse *f, FuseGroup *group)
{
    if (group->emitted || f->error->status || f->out->error.status)
        return;
    group->emitted = true;
    AqId *inputs = AQ_NEW_ARRAY(f->arena, AqId, group->n_leaves);
    AqGraph *graph = aq_graph_body(f->out);
    if (!inputs || !graph) {
        aq_no_memory(f->error, sizeof(AqId) * (size_t)group->n_leaves);
        return;
    }
    for (int i = 0; i < group->n_leaves; i++)
        inputs[i] = aq_fuse_stored(f, group->leaves[i]);
    Body b = {.f = f, .group = group, .graph = graph};
    f->stamp++;
    for (int i = 0; i < group->n_members; i++)
        body_output(graph, i, member(&b, group->members[i]));
    AqId place = group->anchor >= 0 ? group->anchor
                                    : group->members[group->n_members - 1];
    aq_graph_place(f->out, aq_node(f->in, place));
    AqId id = kernel(f->out, group->kind, graph, inputs, group->n_leaves);
    for (int i = 0; i < group->n_members; i++)
        f->map[group->members[i]] =
            aq_reshape_like(f->out, aq_result_node(f->out, id, i),
                            &aq_node(f->in, group->members[i])->type);
}

/* A kernel that only copies: for parts of a concat that are not a kernel's
 * own result. */
static AqId copied(Fuse *f, AqId v)
{
    AqGraph *graph = aq_graph_body(f->out);
    if (!graph) {
        aq_no_memory(f->error, sizeof *graph);
        return AQ_NO_NODE;
    }
    AqType type = aq_node(f->in, v)->type;
    AqId input = aq_fuse_stored(f, v);
    body_output(graph, 0, arg(graph, 0, &type));
    return aq_result_node(f->out,
                          kernel(f->out, AQ_LOWER_map, graph, &input, 1), 0);
}

static AqId placed_concat(Fuse *f, AqId v)
{
    const AqNode *node = aq_node(f->in, v);
    AqId *parts = AQ_NEW_ARRAY(f->arena, AqId, node->n_inputs);
    if (!parts) {
        aq_no_memory(f->error, sizeof(AqId) * (size_t)node->n_inputs);
        return AQ_NO_NODE;
    }
    for (int i = 0; i < node->n_inputs; i++) {
        AqId base = aq_fuse_base(f, node->inputs[i]);
        bool fresh = f->role[base] == ROLE_RESULT && !f->placed[base];
        f->placed[base] = true;
        parts[i] = fresh ? aq_fuse_stored(f, node->inputs[i])
                         : copied(f, node->inputs[i]);
    }
    aq_graph_place(f->out, node);
    return aq_concat_node(f->out, parts, node->n_inputs,
                          (int)aq_attr_int(node, AQ_KEY_AXIS, 0));
}

AqId aq_fuse_stored(Fuse *f, AqId v)
{
    if (f->map[v] != AQ_NO_NODE)
        return f->map[v];
    const AqNode *node = aq_node(f->in, v);
    if (f->role[v] == ROLE_RESULT) {
        aq_fuse_emit(f, &f->groups[f->group_of[v]]);
        return f->map[v];
    }
    if (f->role[v] == ROLE_ALIAS && node->op == AQ_OP_concat)
        return f->map[v] = placed_concat(f, v);
    if (f->role[v] == ROLE_ALIAS) {
        AqId base = aq_fuse_stored(f, node->inputs[0]);
        aq_graph_place(f->out, node);
        return f->map[v] = aq_reshape_like(f->out, base, &node->type);
    }
    aq_graph_place(f->out, node);
    return f->map[v] = aq_graph_copy_node(f->out, f->in, v, f->map);
}
