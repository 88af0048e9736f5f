/* Which groups are equal: hashes of what they compute, whatever its names, and
 * runs of neighbours that can be drawn as one. */
#include "ir/dot.h"

#include <ctype.h>
#include <string.h>

enum { LONGEST_PERIOD = 3 };

static uint64_t mix(uint64_t hash, uint64_t value)
{
    const uint64_t both[] = {hash, value};
    return aq_hash64(both, sizeof both);
}

/* ---- what a node computes, whatever its names ---- */

static uint64_t hash_body(AqArena *arena, const AqGraph *body);

static uint64_t hash_attr(AqArena *arena, uint64_t h, const AqAttr *attr)
{
    h = mix(h, attr->key);
    switch (aq_key_kind[attr->key]) {
    case AQ_INT:
        return mix(h, (uint64_t)attr->integer);
    case AQ_REAL:
        return mix(h, aq_hash64(&attr->real, sizeof attr->real));
    case AQ_TEXT:
        return mix(h, aq_hash64(attr->text, strlen(attr->text)));
    case AQ_INTS:
        return mix(h, aq_hash64(attr->ints, (size_t)attr->count * 8));
    case AQ_REALS:
        return mix(h, aq_hash64(attr->reals, (size_t)attr->count * 8));
    case AQ_BODY:
        return mix(h, hash_body(arena, attr->body));
    }
    return h;
}

static uint64_t hash_type(const AqType *type)
{
    uint64_t h = mix(type->element, (uint64_t)type->rank);
    return mix(h, aq_hash64(type->dim, sizeof type->dim));
}

static uint64_t hash_node(AqArena *arena, const AqNode *node)
{
    const uint64_t names =
        1u << AQ_KEY_NAME | 1u << AQ_KEY_OFFSET | 1u << AQ_KEY_STREAM;
    uint64_t h =
        mix(mix(node->op, hash_type(&node->type)), (uint64_t)node->n_inputs);
    for (int i = 0; i < node->n_attrs; i++)
        if (!(names >> node->attrs[i].key & 1))
            h = hash_attr(arena, h, &node->attrs[i]);
    return h;
}

/* Of the values of a body, whatever the order of its arguments and of operands
 * that may be exchanged. */
static uint64_t hash_body(AqArena *arena, const AqGraph *body)
{
    uint64_t *value = AQ_NEW_ARRAY(arena, uint64_t, body->count + 1);
    uint64_t sum = (uint64_t)body->count;
    for (AqId id = 0; value && id < body->count; id++) {
        const AqNode *node = aq_node(body, id);
        bool exchange = aq_op_info[node->op].facts & AQ_COMMUTES;
        uint64_t h = node->op == AQ_OP_arg ? hash_type(&node->type)
                                           : hash_node(arena, node);
        uint64_t operands = 0;
        for (int i = 0; i < node->n_inputs; i++) {
            uint64_t in = value[node->inputs[i]];
            operands = exchange ? operands + in : mix(operands, in);
        }
        value[id] = mix(h, operands);
        sum += value[id];
    }
    return sum;
}

/* Neither an input nor chance nor a launch of its own. */
void aq_dot_constants(Dot *d)
{
    for (AqId id = 0; id < d->graph->count; id++) {
        const AqNode *node = aq_node(d->graph, id);
        const AqOpInfo *info = &aq_op_info[node->op];
        bool known = !(info->facts & AQ_SOURCE) && node->op != AQ_OP_kernel;
        uint64_t h = hash_node(d->arena, node);
        for (int i = 0; known && i < node->n_inputs; i++) {
            known = d->constant[node->inputs[i]] != 0;
            h = mix(h, d->constant[node->inputs[i]]);
        }
        d->constant[id] = known ? h | 1 : 0;
        d->note[id] = known || node->op == AQ_OP_param;
    }
}

/* ---- groups that stand before and behind others ---- */

/* Does a path leave these groups and enter them again?  Then one box in their
 * place would stand before and behind others. */
static bool is_torn(const Dot *d, const int *siblings, int count, uint8_t *mark)
{
    enum { INSIDE = 1, BEHIND = 2 };
    int depth = d->groups[siblings[0]].depth;
    for (AqId id = 0; id < d->graph->count; id++) {
        const AqNode *node = aq_node(d->graph, id);
        int group = d->group[id];
        bool inside = false;
        mark[id] = 0;
        while (group != DOT_NOWHERE && d->groups[group].depth > depth)
            group = d->groups[group].parent;
        for (int i = 0; i < count && !inside; i++)
            inside = siblings[i] == group;
        for (int i = 0; i < node->n_inputs; i++)
            mark[id] |= mark[node->inputs[i]] ? BEHIND : 0;
        for (int i = 0; inside && i < node->n_inputs; i++)
            if (mark[node->inputs[i]] == BEHIND)
                return true;
        if (inside)
            mark[id] = INSIDE;
    }
    return false;
}

/* ---- equals ---- */

static bool holds(const Dot *d, int group, AqId id)
{
    int g = d->group[id];
    while (g != DOT_NOWHERE && d->groups[g].depth > d->groups[group].depth)
        g = d->groups[g].parent;
    return g == group;
}

/* Which of the things that the group reads: the first, the second, ... */
static uint64_t outside_number(DotGroup *g, AqId id)
{
    for (int i = 0; i < g->n_outside; i++)
        if (g->outside[i] == id)
            return (uint64_t)i;
    if (g->n_outside < DOT_OUTSIDE)
        g->outside[g->n_outside++] = id;
    return (uint64_t)g->n_outside - 1;
}

/* What an input is to the group: known, its own, or from outside. */
static uint64_t hash_input(Dot *d, int group, AqId in)
{
    DotGroup *g = &d->groups[group];
    if (d->constant[in])
        return d->constant[in];
    if (holds(d, group, in))
        return (uint64_t)d->place[in][g->depth] * 2 + 2;
    return mix(outside_number(g, in), hash_type(&aq_node(d->graph, in)->type));
}

/* Operands that may be exchanged stand in the order of their ids, and those of
 * kernels in some order, which says nothing: their sum does. */
static void hash_group(Dot *d, int group)
{
    DotGroup *g = &d->groups[group];
    for (int k = 0; k < g->count; k++) {
        const AqNode *node = aq_node(d->graph, g->nodes[k]);
        bool exchange = aq_op_info[node->op].facts & AQ_COMMUTES ||
                        node->op == AQ_OP_kernel;
        uint64_t operands = 0;
        for (int i = 0; i < node->n_inputs; i++) {
            uint64_t in = hash_input(d, group, node->inputs[i]);
            operands = exchange ? operands + mix(0, in) : mix(operands, in);
        }
        g->hash = mix(mix(g->hash, hash_node(d->arena, node)), operands);
    }
}

static size_t stem(const char *name)
{
    size_t n = strlen(name);
    while (n > 0 && (isdigit((unsigned char)name[n - 1]) || name[n - 1] == '.'))
        n--;
    return n;
}

static bool equal(const Dot *d, int a, int b)
{
    const DotGroup *x = &d->groups[a], *y = &d->groups[b];
    return x->hash == y->hash && x->count == y->count &&
           stem(x->name) == stem(y->name) &&
           !strncmp(x->name, y->name, stem(x->name)) &&
           stem(x->name) < strlen(x->name);
}

/* Does the scope that is drawn lie in it? */
static bool leads_to_scope(const Dot *d, int group)
{
    const char *scope = d->options->scope;
    size_t n = strlen(d->groups[group].scope);
    return scope && !strncmp(scope, d->groups[group].scope, n) &&
           (!scope[n] || scope[n] == '.');
}

/* How often the pattern of `period` siblings from `first` on repeats. */
static int repeats(const Dot *d, const int *siblings, int count, int first,
                   int period)
{
    int same = 0;
    for (int i = first; i + period < count; i++, same++)
        if (leads_to_scope(d, siblings[i]) ||
            leads_to_scope(d, siblings[i + period]) ||
            !equal(d, siblings[i], siblings[i + period]))
            break;
    return 1 + same / period;
}

static void fold(Dot *d, const int *siblings, int period, int times)
{
    d->runs++;
    for (int i = 0; i < period * times; i++) {
        DotGroup *g = &d->groups[siblings[i]];
        DotGroup *twin = &d->groups[siblings[i % period]];
        g->run = d->runs;
        g->copy = i / period;
        g->twin = siblings[i % period];
        twin->times = times;
        twin->last = g->name;
    }
}

/* Children in the order in which they are finished. */
static int list_children(const Dot *d, int parent, int *siblings)
{
    int count = 0;
    for (int i = parent + 1; i < d->n_groups; i++) {
        const DotGroup *g = &d->groups[i];
        if (g->parent != parent)
            continue;
        int at = count++;
        for (; at > 0; at--) {
            const DotGroup *before = &d->groups[siblings[at - 1]];
            if (before->nodes[before->count - 1] < g->nodes[g->count - 1])
                break;
            siblings[at] = siblings[at - 1];
        }
        siblings[at] = i;
    }
    return count;
}

static void fold_children(Dot *d, int parent, int *siblings, uint8_t *mark)
{
    int count = list_children(d, parent, siblings);
    for (int first = 0; first < count;) {
        int best = 1, best_times = 1;
        for (int period = 1; period <= LONGEST_PERIOD; period++) {
            int times = repeats(d, siblings, count, first, period);
            if (times > 1 && times * period > best * best_times &&
                !is_torn(d, siblings + first, times * period, mark))
                best = period, best_times = times;
        }
        if (best_times > 1)
            fold(d, siblings + first, best, best_times);
        first += best * best_times;
    }
}

/* The node that stands for this one: through every folded group around it,
 * from the outside in. */
static AqId twin_of(const Dot *d, AqId id)
{
    for (int depth = 1; d->group[id] != DOT_NOWHERE; depth++) {
        int g = d->group[id];
        if (d->groups[g].depth < depth)
            return id;
        while (d->groups[g].depth > depth)
            g = d->groups[g].parent;
        if (d->groups[g].twin != g)
            id = d->groups[d->groups[g].twin].nodes[d->place[id][depth]];
    }
    return id;
}

bool aq_dot_fold(Dot *d)
{
    int *siblings = AQ_NEW_ARRAY(d->arena, int, d->n_groups);
    uint8_t *mark = AQ_NEW_ARRAY(d->arena, uint8_t, d->graph->count + 1);
    d->torn = AQ_NEW_ARRAY(d->arena, bool, d->n_groups);
    if (!siblings || !mark || !d->torn)
        return false;
    for (int g = DOT_PHASES; g < d->n_groups; g++) {
        d->torn[g] = is_torn(d, &g, 1, mark);
        hash_group(d, g);
    }
    for (int g = 0; g < d->n_groups; g++)
        fold_children(d, g, siblings, mark);
    for (AqId id = 0; id < d->graph->count; id++)
        d->twin[id] = twin_of(d, id);
    return true;
}
