/* Which box every node lies in. */
#include "ir/dot.h"

#include <string.h>

enum { MOST_SEGMENTS = 250, STUB_DEPTH = 2 };

/* head[g]: the newest box of a group that falls into segments, next[b]: the
 * one before; passed[id * groups + g]: how many segments of g lie before. */
typedef struct Search {
    Dot *d;
    int *head, *next;
    uint8_t *passed;
    int *segment; /* of a node */
    int *key;     /* of a node: its group, DOT_NOWHERE: it cannot be split */
} Search;

bool aq_dot_reserve(Dot *d, void **array, int count, int *capacity, size_t size)
{
    if (count < *capacity)
        return true;
    int larger = AQ_MAX(64, 2 * *capacity);
    void *grown = aq_arena_array(d->arena, (size_t)larger, size);
    if (!grown)
        return false;
    if (count > 0)
        memcpy(grown, *array, (size_t)count * size);
    *array = grown;
    *capacity = larger;
    return true;
}

static int new_box(Dot *d, DotRole role, int group, AqId first)
{
    if (!aq_dot_reserve(d, (void **)&d->boxes, d->n_boxes, &d->boxes_capacity,
                        sizeof *d->boxes))
        return DOT_NOWHERE;
    d->boxes[d->n_boxes] = (DotBox){
        .role = role,
        .group = group,
        .phase = group == DOT_NOWHERE ? DOT_FORWARD : d->groups[group].phase,
        .first = first,
        .kind = role == DOT_SOURCE ? DOT_STATE : DOT_MOVEMENT,
        .edges = DOT_NOWHERE};
    return d->n_boxes++;
}

static int ancestor(const Dot *d, int group, int depth)
{
    while (d->groups[group].depth > depth)
        group = d->groups[group].parent;
    return group;
}

static bool joins_chain(const Dot *d, AqId id)
{
    unsigned facts = aq_op_info[aq_node(d->graph, id)->op].facts;
    return facts & (AQ_POINTWISE | AQ_MOVES);
}

/* The group and role of the box that a node of a group lies in. */
static DotRole role_of(const Dot *d, AqId id, int *group)
{
    *group = d->group[id];
    if (!aq_dot_inside(d, *group)) {
        *group = ancestor(d, *group, STUB_DEPTH);
        return DOT_STUB;
    }
    if (d->groups[*group].depth >= d->base + d->depth) {
        *group = ancestor(d, *group, d->base + d->depth);
        return DOT_WHOLE;
    }
    if (d->depth > d->deepest - d->base)
        return joins_chain(d, id) ? DOT_CHAIN : DOT_OP;
    return d->groups[*group].children > 0 ? DOT_OWN : DOT_WHOLE;
}

/* The segment of group `key` that a node belongs to, by what leads to it. */
static int find_segment(Search *s, AqId id, int key)
{
    const Dot *d = s->d;
    const AqNode *node = aq_node(d->graph, id);
    uint8_t *mine = s->passed + (size_t)id * (size_t)d->n_groups;
    int segment = 0;
    for (int i = 0; i < node->n_inputs; i++) {
        AqId in = d->twin[node->inputs[i]];
        const uint8_t *theirs = s->passed + (size_t)in * (size_t)d->n_groups;
        if (d->note[in] || in >= id)
            continue;
        for (int g = 0; g < d->n_groups; g++)
            mine[g] = AQ_MAX(mine[g], theirs[g]);
        if (key != DOT_NOWHERE)
            segment = AQ_MAX(segment,
                             s->key[in] == key ? s->segment[in] : theirs[key]);
    }
    segment = AQ_MIN(segment, (int)MOST_SEGMENTS);
    if (key != DOT_NOWHERE)
        mine[key] = (uint8_t)AQ_MAX(mine[key], segment + 1);
    return segment;
}

static int segment_box(Search *s, DotRole role, int group, AqId id)
{
    Dot *d = s->d;
    int segment = find_segment(s, id, role == DOT_STUB ? DOT_NOWHERE : group);
    s->segment[id] = segment;
    if (role != DOT_STUB)
        s->key[id] = group;
    for (int b = s->head[group]; b != DOT_NOWHERE; b = s->next[b])
        if (d->boxes[b].role == role && d->boxes[b].segment == segment)
            return b;
    int box = new_box(d, role, group, id);
    if (box == DOT_NOWHERE)
        return box;
    d->boxes[box].segment = segment;
    s->next[box] = s->head[group];
    s->head[group] = box;
    return box;
}

static int box_of(Search *s, AqId id)
{
    Dot *d = s->d;
    const AqNode *node = aq_node(d->graph, id);
    if (aq_op_info[node->op].facts & AQ_SOURCE)
        return new_box(d, DOT_SOURCE, DOT_NOWHERE, id);
    int group;
    DotRole role = role_of(d, id, &group);
    if (node->op == AQ_OP_result && (role == DOT_OP || role == DOT_CHAIN)) {
        find_segment(s, id, DOT_NOWHERE);
        return d->box[d->twin[node->inputs[0]]];
    }
    if (role != DOT_OP)
        return segment_box(s, role, group, id);
    find_segment(s, id, DOT_NOWHERE);
    return new_box(d, role, d->group[id], id);
}

static bool start_search(Search *s)
{
    Dot *d = s->d;
    size_t nodes = (size_t)d->graph->count;
    s->head = AQ_NEW_ARRAY(d->arena, int, d->n_groups);
    s->next = AQ_NEW_ARRAY(d->arena, int, d->graph->count);
    s->segment = AQ_NEW_ARRAY(d->arena, int, d->graph->count);
    s->key = AQ_NEW_ARRAY(d->arena, int, d->graph->count);
    s->passed =
        AQ_NEW_ARRAY(d->arena, uint8_t, nodes * (size_t)d->n_groups + 1);
    if (!s->head || !s->next || !s->segment || !s->key || !s->passed)
        return false;
    for (int g = 0; g < d->n_groups; g++)
        s->head[g] = DOT_NOWHERE;
    for (AqId id = 0; id < d->graph->count; id++)
        s->key[id] = d->box[id] = DOT_NOWHERE;
    return true;
}

static void count_node(Dot *d, AqId id)
{
    DotBox *box = &d->boxes[d->box[id]];
    DotKind kind = aq_dot_kind(d->graph, id);
    box->nodes++;
    box->kernels += aq_node(d->graph, id)->op == AQ_OP_kernel;
    box->flops += aq_node_flops(d->graph, id);
    box->seconds += d->options->seconds ? d->options->seconds[id] : 0;
    if (box->role != DOT_SOURCE && kind != DOT_STATE)
        box->kind = AQ_MAX(box->kind, kind);
    if (box->phase == DOT_UPDATE && box->role <= DOT_OWN)
        box->kind = DOT_STATE;
}

/* Each parameter counts in the first box that reads it. */
static bool count_parameters(Dot *d)
{
    bool *counted = AQ_NEW_ARRAY(d->arena, bool, d->graph->count + 1);
    for (AqId id = 0; counted && id < d->graph->count; id++) {
        const AqNode *node = aq_node(d->graph, id);
        if (d->box[d->twin[id]] == DOT_NOWHERE)
            continue;
        for (int i = 0; i < node->n_inputs; i++) {
            const AqNode *in = aq_node(d->graph, node->inputs[i]);
            if (in->op == AQ_OP_param && !counted[node->inputs[i]] &&
                d->twin[id] == id)
                d->boxes[d->box[id]].parameters += aq_elements(&in->type);
            counted[node->inputs[i]] = true;
        }
    }
    return counted != NULL;
}

bool aq_dot_boxes(Dot *d)
{
    Search s = {.d = d};
    d->n_boxes = d->n_edges = 0;
    if (!start_search(&s))
        return false;
    for (AqId id = 0; id < d->graph->count; id++) {
        if (!d->live[id] || d->note[id] || d->twin[id] != id)
            continue;
        d->box[id] = box_of(&s, id);
        if (d->box[id] == DOT_NOWHERE)
            return false;
        count_node(d, id);
    }
    return count_parameters(d);
}
