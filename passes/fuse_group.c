/* Which stored values one kernel writes.
 *
 * A contraction's kernel writes the end of its epilogue, and what is summed
 * over its rows (fuse_sums.c); attention's its results.  Everything else runs
 * over a domain, and values over one domain that read a common large leaf, or
 * one of which is read by another at the same index, share a sweep: the
 * optimizer is one kernel, and so are the sums of a normalisation's backward
 * pass.  A pointwise value may take the domain of a reduction that reads it
 * through a reshape: the elements are the same, in the same order.  Joining
 * must leave the kernels without cycles: no member may reach the newcomer
 * through a kernel outside. */
#include "passes/fuse.h"

#include <string.h>

enum {
    MOST_MEMBERS = 8,
    MOST_NODES = 160,   /* LLVM's time grows faster than a kernel's size */
    LOOK_BACK = 48,     /* groups tried for company */
    TINY_DOMAIN = 1024, /* elements: joined for the launch alone */
};

static const AqNode *node_of(const Fuse *f, AqId id)
{
    return aq_node(f->in, id);
}

static bool add_leaf(Fuse *f, FuseGroup *group, AqId leaf)
{
    for (int i = 0; i < group->n_leaves; i++)
        if (group->leaves[i] == leaf)
            return true;
    if (group->n_leaves == group->leaves_capacity) {
        int capacity = AQ_MAX(8, 2 * group->leaves_capacity);
        AqId *leaves = AQ_NEW_ARRAY(f->arena, AqId, capacity);
        if (!leaves) {
            aq_no_memory(f->error, sizeof(AqId) * (size_t)capacity);
            return false;
        }
        if (group->n_leaves)
            memcpy(leaves, group->leaves,
                   (size_t)group->n_leaves * sizeof *leaves);
        group->leaves = leaves;
        group->leaves_capacity = capacity;
    }
    group->leaves[group->n_leaves++] = leaf;
    return true;
}

/* What the expression of v reads, v itself being computed. */
static void find_leaves(Fuse *f, FuseGroup *group, AqId v)
{
    const AqNode *node = node_of(f, v);
    f->visited[v] = f->stamp;
    group->nodes++;
    for (int i = 0; i < node->n_inputs; i++) {
        AqId input = node->inputs[i];
        if (f->visited[input] == f->stamp)
            continue;
        if (aq_fuse_is_stored(f, input) &&
            node_of(f, input)->type.element != AQ_RESULTS)
            add_leaf(f, group, input);
        else
            find_leaves(f, group, input);
    }
}

static bool is_reduction(const AqNode *node)
{
    return aq_op_info[node->op].facts & AQ_REDUCES;
}

/* The node whose loops give v: moments behind a result, v otherwise. */
static AqId computed_by(const Fuse *f, AqId v)
{
    return node_of(f, v)->op == AQ_OP_result ? node_of(f, v)->inputs[0] : v;
}

static void start_group(Fuse *f, FuseGroup *group, AqId v)
{
    AqId by = computed_by(f, v);
    const AqNode *node = node_of(f, by);
    *group = (FuseGroup){.anchor = AQ_NO_NODE, .kind = AQ_LOWER_map};
    AqLowering kind = aq_op_info[node->op].lowering;
    if (f->absorbed[v] >= 0) {
        group->anchor = f->absorbed[v];
        group->kind = AQ_LOWER_contract;
    } else if (kind != AQ_LOWER_map) {
        group->anchor = by;
        group->kind = kind;
    }
    group->domain = node->type;
    if (is_reduction(node)) {
        group->domain = node_of(f, node->inputs[0])->type;
        group->axes = aq_attr(node, AQ_KEY_AXES);
    }
    group->members[group->n_members++] = v;
    f->stamp++;
    find_leaves(f, group, v);
}

/* ---- joining ---- */

static bool same_axes(const AqAttr *a, const AqAttr *b)
{
    return !a || !b ||
           (a->count == b->count &&
            !memcmp(a->ints, b->ints, (size_t)a->count * sizeof *a->ints));
}

/* Whether the expression of v reads `leaf` at the very index it is computed
 * for, and nowhere else. */
static bool reads_in_place(Fuse *f, AqId v, AqId leaf)
{
    const AqNode *node = node_of(f, v);
    bool pointwise = (aq_op_info[node->op].facts & AQ_POINTWISE) ||
                     node->op == AQ_OP_reshape;
    for (int i = 0; i < node->n_inputs; i++) {
        AqId input = node->inputs[i];
        if (input == leaf && !pointwise && !is_reduction(node))
            return false;
        if (input != leaf && f->visited[input] != f->stamp &&
            !aq_fuse_is_stored(f, input)) {
            f->visited[input] = f->stamp;
            if (!pointwise && !is_reduction(node)) {
                f->stamp++; /* behind movement the leaf must not appear */
                FuseGroup behind = {0};
                find_leaves(f, &behind, input);
                for (int k = 0; k < behind.n_leaves; k++)
                    if (behind.leaves[k] == leaf)
                        return false;
            } else if (!reads_in_place(f, input, leaf)) {
                return false;
            }
        }
    }
    return true;
}

static bool needs(Fuse *f, AqId leaf, int target);

/* Whether group g needs, directly or not, a value that `target` writes. */
static bool reaches(Fuse *f, int g, int target)
{
    if (g == target)
        return true;
    FuseGroup *group = &f->groups[g];
    if (group->seen == f->stamp)
        return false;
    group->seen = f->stamp;
    for (int i = 0; i < group->n_leaves; i++)
        if (needs(f, group->leaves[i], target))
            return true;
    return false;
}

/* The same of the kernels behind a stored value. */
static bool needs(Fuse *f, AqId leaf, int target)
{
    leaf = aq_fuse_base(f, leaf);
    if (f->role[leaf] == ROLE_RESULT)
        return reaches(f, f->group_of[leaf], target);
    if (f->role[leaf] != ROLE_ALIAS || f->visited[leaf] == f->stamp)
        return false;
    f->visited[leaf] = f->stamp;
    const AqNode *concat = node_of(f, leaf);
    for (int i = 0; i < concat->n_inputs; i++)
        if (needs(f, concat->inputs[i], target))
            return true;
    return false;
}

static bool is_member(const FuseGroup *group, AqId v)
{
    for (int i = 0; i < group->n_members; i++)
        if (group->members[i] == v)
            return true;
    return false;
}

/* Leaves of the newcomer may be members, read in place; its other leaves must
 * not depend on the group. */
static bool stays_acyclic(Fuse *f, int g, const FuseGroup *newcomer)
{
    FuseGroup *group = &f->groups[g];
    for (int i = 0; i < newcomer->n_leaves; i++) {
        AqId leaf = newcomer->leaves[i];
        if (is_member(group, leaf)) {
            f->stamp++;
            bool whole = !is_reduction(node_of(f, computed_by(f, leaf)));
            if (!whole || !reads_in_place(f, newcomer->members[0], leaf))
                return false;
            continue;
        }
        f->stamp++;
        if (needs(f, leaf, g))
            return false;
    }
    return true;
}

static bool shares_large_leaf(const Fuse *f, const FuseGroup *a,
                              const FuseGroup *b)
{
    int64_t large = aq_elements(&a->domain);
    if (large <= TINY_DOMAIN)
        return true;
    for (int i = 0; i < b->n_leaves; i++) {
        AqId leaf = b->leaves[i];
        if (aq_elements(&node_of(f, leaf)->type) < large)
            continue;
        if (is_member(a, leaf))
            return true;
        for (int k = 0; k < a->n_leaves; k++)
            if (a->leaves[k] == leaf)
                return true;
    }
    return false;
}

/* Whether loops over one domain can serve the other: equal, or one of them is
 * free to take the other's shape.  Vectors run along the last dimension. */
static bool domains_agree(const FuseGroup *a, const FuseGroup *b)
{
    const AqType *x = &a->domain, *y = &b->domain;
    if (aq_same_shape(x, y))
        return true;
    return !(a->axes && b->axes) && x->rank > 0 && y->rank > 0 &&
           aq_elements(x) == aq_elements(y) &&
           x->dim[x->rank - 1] == y->dim[y->rank - 1];
}

static bool may_join(Fuse *f, int g, const FuseGroup *newcomer)
{
    FuseGroup *group = &f->groups[g];
    return group->kind == AQ_LOWER_map && newcomer->kind == AQ_LOWER_map &&
           group->n_members < MOST_MEMBERS &&
           group->nodes + newcomer->nodes <= MOST_NODES &&
           domains_agree(group, newcomer) &&
           same_axes(group->axes, newcomer->axes) &&
           shares_large_leaf(f, group, newcomer) &&
           stays_acyclic(f, g, newcomer);
}

/* Whether a reduction of what a contraction's kernel writes may be computed
 * there. */
static bool may_sum(Fuse *f, int g, const FuseGroup *newcomer)
{
    FuseGroup *group = &f->groups[g];
    if (group->kind != AQ_LOWER_contract || !newcomer->axes)
        return false;
    AqId by = computed_by(f, newcomer->members[0]);
    return group->n_sums < AQ_MAX_SUMS && group->n_members < MOST_MEMBERS &&
           group->nodes + newcomer->nodes <= MOST_NODES &&
           aq_may_sum(f->in, by, group->anchor) &&
           same_axes(group->axes, newcomer->axes) &&
           stays_acyclic(f, g, newcomer);
}

static void join(Fuse *f, FuseGroup *group, const FuseGroup *newcomer)
{
    for (int i = 0; i < newcomer->n_leaves; i++)
        if (!is_member(group, newcomer->leaves[i]))
            add_leaf(f, group, newcomer->leaves[i]);
    group->members[group->n_members++] = newcomer->members[0];
    group->nodes += newcomer->nodes;
    group->n_sums += newcomer->axes != NULL;
    if (newcomer->axes) {
        group->axes = newcomer->axes;
        group->domain = newcomer->domain;
    }
}

/* The group that writes what it reads, or one of those made last, that a
 * newcomer joins; -1: none. */
static int find_company(Fuse *f, const FuseGroup *newcomer)
{
    int last = AQ_MAX(0, f->n_groups - LOOK_BACK);
    if (newcomer->kind != AQ_LOWER_map)
        return -1;
    for (int i = 0; i < newcomer->n_leaves; i++) {
        int g = f->group_of[newcomer->leaves[i]];
        if (g >= 0 && may_sum(f, g, newcomer))
            return g;
    }
    for (int g = f->n_groups; g-- > last;)
        if (may_join(f, g, newcomer))
            return g;
    return -1;
}

/* Both results of moments, and all of attention, belong to one kernel. */
static int group_of_sibling(const Fuse *f, AqId v)
{
    if (node_of(f, v)->op != AQ_OP_result)
        return -1;
    AqId by = computed_by(f, v);
    for (AqId id = v; id-- > by;)
        if (f->live[id] && node_of(f, id)->op == AQ_OP_result &&
            node_of(f, id)->inputs[0] == by)
            return f->group_of[id];
    return -1;
}

static void place_value(Fuse *f, AqId v)
{
    int sibling = group_of_sibling(f, v);
    if (sibling >= 0) {
        FuseGroup *group = &f->groups[sibling];
        group->members[group->n_members++] = v;
        f->group_of[v] = sibling;
        return;
    }
    FuseGroup *group = &f->groups[f->n_groups];
    start_group(f, group, v);
    int company = find_company(f, group);
    f->group_of[v] = company >= 0 ? company : f->n_groups;
    if (company >= 0)
        join(f, &f->groups[company], group);
    else
        f->n_groups++;
}

void aq_fuse_group(Fuse *f)
{
    f->groups = AQ_NEW_ARRAY(f->arena, FuseGroup, f->in->count);
    if (!f->groups) {
        aq_no_memory(f->error, sizeof(FuseGroup) * (size_t)f->in->count);
        return;
    }
    for (AqId v = 0; v < f->in->count && !f->error->status; v++) {
        bool holder = node_of(f, v)->type.element == AQ_RESULTS;
        if (f->live[v] && f->role[v] == ROLE_RESULT && !holder)
            place_value(f, v);
    }
}
