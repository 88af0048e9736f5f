/* Phases, and the trees of scopes. */
#include "ir/dot.h"

#include <ctype.h>
#include <string.h>

/* ---- phases ---- */

static bool lies_outside(const Dot *d, AqId id)
{
    return !d->live[id] || d->note[id] ||
           (aq_op_info[aq_node(d->graph, id)->op].facts & AQ_SOURCE);
}

static size_t first_part(const char *scope)
{
    return strcspn(scope, ".");
}

static bool forward_has(const Dot *d, const bool *leads, const char *scope)
{
    size_t n = first_part(scope);
    for (AqId id = 0; id < d->graph->count; id++) {
        const char *other = aq_node(d->graph, id)->scope;
        if (leads[id] && !lies_outside(d, id) && first_part(other) == n &&
            !strncmp(other, scope, n))
            return true;
    }
    return false;
}

/* Marks the inputs that one result of a kernel comes from: a kernel may compute
 * the loss beside other things. */
static bool mark_through(const Dot *d, bool *leads, AqId result)
{
    const AqNode *node = aq_node(d->graph, result);
    const AqNode *kernel = aq_node(d->graph, node->inputs[0]);
    const AqGraph *body = aq_attr_body(kernel);
    int64_t index = aq_attr_int(node, AQ_KEY_INDEX, 0);
    bool *inside = AQ_NEW_ARRAY(d->arena, bool, body->count + 1);
    if (!inside || index >= body->n_outputs)
        return inside != NULL;
    inside[body->outputs[index].node] = true;
    for (AqId id = body->count - 1; id >= 0; id--) {
        const AqNode *in = aq_node(body, id);
        for (int i = 0; inside[id] && i < in->n_inputs; i++)
            inside[in->inputs[i]] = true;
        if (inside[id] && in->op == AQ_OP_arg)
            leads[kernel->inputs[aq_attr_int(in, AQ_KEY_INDEX, 0)]] = true;
    }
    return true;
}

static bool is_loss(const AqOutput *output)
{
    return !output->update && !strcmp(output->name, "loss");
}

/* Marks what leads to the loss; everything if no output has that name. */
static bool mark_leading(const Dot *d, bool *leads)
{
    const AqGraph *g = d->graph;
    bool found = false;
    for (int i = 0; i < g->n_outputs; i++)
        if (is_loss(&g->outputs[i]))
            leads[g->outputs[i].node] = found = true;
    for (AqId id = g->count - 1; id >= 0; id--) {
        const AqNode *node = aq_node(g, id);
        leads[id] = leads[id] || !found;
        if (!leads[id] || node->op == AQ_OP_kernel)
            continue;
        for (int i = 0; i < node->n_inputs; i++)
            leads[node->inputs[i]] = true;
        if (node->op == AQ_OP_result &&
            aq_attr_body(aq_node(g, node->inputs[0])) &&
            !mark_through(d, leads, id))
            return false;
    }
    return true;
}

/* The forward: what leads to the loss and needs nothing else. */
static bool mark_forward(const Dot *d, bool *leads)
{
    if (!mark_leading(d, leads))
        return false;
    for (AqId id = 0; id < d->graph->count; id++) {
        const AqNode *node = aq_node(d->graph, id);
        for (int i = 0; i < node->n_inputs; i++)
            leads[id] = leads[id] && (leads[node->inputs[i]] ||
                                      lies_outside(d, node->inputs[i]));
    }
    return true;
}

static bool find_phases(Dot *d)
{
    bool *leads = AQ_NEW_ARRAY(d->arena, bool, d->graph->count + 1);
    const char *last = NULL; /* scopes come in runs */
    DotPhase later = DOT_BACKWARD;
    if (!leads || !mark_forward(d, leads))
        return false;
    for (AqId id = 0; id < d->graph->count; id++) {
        const char *scope = aq_node(d->graph, id)->scope;
        if (leads[id] || lies_outside(d, id))
            continue;
        if (!last || strcmp(last, scope))
            later = !*scope || forward_has(d, leads, scope) ? DOT_BACKWARD
                                                            : DOT_UPDATE;
        d->phase[id] = later;
        last = scope;
    }
    return true;
}

/* ---- groups ---- */

/* Where the next component of a scope ends: numbers belong to the word before
 * them. */
static size_t component(const char *scope, size_t from)
{
    size_t end = from + strcspn(scope + from, ".");
    while (scope[end] == '.' && isdigit((unsigned char)scope[end + 1])) {
        size_t digits = strspn(scope + end + 1, "0123456789");
        char after = scope[end + 1 + digits];
        if (after && after != '.')
            break;
        end += 1 + digits;
    }
    return end;
}

static int add_group(Dot *d, DotPhase phase, int parent, const char *scope,
                     size_t from, size_t end)
{
    if (!aq_dot_reserve(d, (void **)&d->groups, d->n_groups,
                        &d->groups_capacity, sizeof *d->groups))
        return DOT_NOWHERE;
    DotGroup *g = &d->groups[d->n_groups];
    char *path = aq_arena_printf(d->arena, "%.*s", (int)end, scope);
    *g = (DotGroup){.phase = phase,
                    .parent = parent,
                    .name = path ? path + from : NULL,
                    .scope = path,
                    .twin = d->n_groups,
                    .times = 1};
    g->outside = AQ_NEW_ARRAY(d->arena, AqId, DOT_OUTSIDE);
    if (!path || !g->outside)
        return DOT_NOWHERE;
    if (parent != DOT_NOWHERE) {
        g->depth = d->groups[parent].depth + 1;
        d->groups[parent].children++;
    }
    return d->n_groups++;
}

static int child_of(Dot *d, int parent, const char *scope, size_t from,
                    size_t end)
{
    for (int i = parent + 1; i < d->n_groups; i++) {
        const DotGroup *g = &d->groups[i];
        if (g->parent == parent && strlen(g->scope) == end &&
            !strncmp(g->scope, scope, end))
            return i;
    }
    return add_group(d, d->groups[parent].phase, parent, scope, from, end);
}

static int group_of(Dot *d, DotPhase phase, const char *scope)
{
    int group = (int)phase; /* the roots come first */
    size_t from = 0;
    while (scope[from] && group != DOT_NOWHERE &&
           d->groups[group].depth < DOT_DEEPEST) {
        size_t end = component(scope, from);
        group = child_of(d, group, scope, from, end);
        from = scope[end] ? end + 1 : end;
    }
    return group;
}

static bool find_groups(Dot *d)
{
    for (int phase = 0; phase < DOT_PHASES; phase++)
        if (add_group(d, (DotPhase)phase, DOT_NOWHERE, "", 0, 0) == DOT_NOWHERE)
            return false;
    for (AqId id = 0; id < d->graph->count; id++) {
        d->group[id] = DOT_NOWHERE;
        if (lies_outside(d, id))
            continue;
        d->group[id] = group_of(d, d->phase[id], aq_node(d->graph, id)->scope);
        if (d->group[id] == DOT_NOWHERE)
            return false;
        for (int g = d->group[id]; g != DOT_NOWHERE; g = d->groups[g].parent)
            d->place[id][d->groups[g].depth] = d->groups[g].count++;
    }
    return true;
}

static bool list_nodes(Dot *d)
{
    for (int g = 0; g < d->n_groups; g++) {
        d->groups[g].nodes = AQ_NEW_ARRAY(d->arena, AqId, d->groups[g].count);
        if (!d->groups[g].nodes)
            return false;
    }
    for (AqId id = 0; id < d->graph->count; id++)
        for (int g = d->group[id]; g != DOT_NOWHERE; g = d->groups[g].parent)
            d->groups[g].nodes[d->place[id][d->groups[g].depth]] = id;
    return true;
}

bool aq_dot_inside(const Dot *d, int group)
{
    const char *scope = d->options->scope;
    if (!scope)
        return true;
    size_t n = strlen(scope);
    const char *own = d->groups[group].scope;
    return !strncmp(own, scope, n) && (!own[n] || own[n] == '.');
}

bool aq_dot_scopes(Dot *d)
{
    aq_mark_live(d->graph, d->live);
    aq_dot_constants(d);
    return find_phases(d) && find_groups(d) && list_nodes(d) && aq_dot_fold(d);
}
