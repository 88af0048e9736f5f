/* The graph: nodes in topological order, interned on creation.
 *
 * Equal means: same op, type, copy number, inputs, and attributes by content
 * (bodies by pointer).  Where a node comes from does not count: the first one
 * built keeps its place.  Arrays grow in the arena, so a pointer to a node does
 * not survive a build. */
#include "ir/shapes.h"

#include <math.h>
#include <string.h>

enum { FIRST_NODES = 32, FIRST_OUTPUTS = 8 };

static AqGraph *new_in(AqArena *arena)
{
    AqGraph *graph = arena ? AQ_NEW(arena, AqGraph) : NULL;
    if (!graph)
        return NULL;
    graph->arena = arena;
    graph->scope = graph->file = "";
    return graph;
}

AqGraph *aq_graph_new(void)
{
    AqArena *arena = aq_arena_new();
    AqGraph *graph = new_in(arena);
    if (!graph)
        aq_arena_free(arena);
    return graph;
}

void aq_graph_free(AqGraph *graph)
{
    if (graph)
        aq_arena_free(graph->arena);
}

AqGraph *aq_graph_body(AqGraph *owner)
{
    return new_in(owner->arena);
}

/* ---- errors ---- */

AqId aq_graph_fail(AqGraph *graph, AqStatus status, const char *format, ...)
{
    char text[sizeof graph->error.text];
    if (graph->error.status != AQ_OK)
        return AQ_NO_NODE;
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    const char *scope = graph->scope ? graph->scope : "";
    char place[300] = "";
    if (graph->file && graph->file[0])
        snprintf(place, sizeof place, "%.250s:%d: ", graph->file, graph->line);
    aq_fail(&graph->error, status, "%s%s%s%s", place, text,
            scope[0] ? " in scope " : "", scope);
    return AQ_NO_NODE;
}

static AqId out_of_memory(AqGraph *graph)
{
    return aq_graph_fail(graph, AQ_NO_MEMORY,
                         "out of memory after %d nodes of the graph",
                         graph->count);
}

/* ---- equality ---- */

static uint64_t mix(uint64_t hash, uint64_t value)
{
    hash = (hash ^ value) * 0x9E3779B97F4A7C15u;
    return hash ^ hash >> 29;
}

/* All NaNs are one: the text form knows only `nan`. */
static uint64_t real_bits(double value)
{
    uint64_t bits;
    value = isnan(value) ? (double)NAN : value;
    memcpy(&bits, &value, sizeof bits);
    return bits;
}

static uint64_t hash_attr(uint64_t hash, const AqAttr *attr)
{
    hash = mix(hash, (uint64_t)attr->key << 32 | (uint32_t)attr->count);
    switch (aq_key_kind[attr->key]) {
    case AQ_INT:
        return mix(hash, (uint64_t)attr->integer);
    case AQ_REAL:
        return mix(hash, real_bits(attr->real));
    case AQ_TEXT:
        return mix(hash, aq_hash64(attr->text, strlen(attr->text)));
    case AQ_INTS:
        for (int i = 0; i < attr->count; i++)
            hash = mix(hash, (uint64_t)attr->ints[i]);
        return hash;
    case AQ_REALS:
        for (int i = 0; i < attr->count; i++)
            hash = mix(hash, real_bits(attr->reals[i]));
        return hash;
    case AQ_BODY:
        return mix(hash, (uint64_t)(uintptr_t)attr->body);
    }
    return hash;
}

static uint64_t hash_node(const AqNode *node)
{
    uint64_t hash =
        mix((uint64_t)node->op << 32 | (uint32_t)node->copy,
            (uint64_t)node->type.element << 8 | (uint64_t)node->type.rank);
    for (int i = 0; i < node->type.rank; i++)
        hash = mix(hash, (uint64_t)node->type.dim[i]);
    for (int i = 0; i < node->n_inputs; i++)
        hash = mix(hash, (uint32_t)node->inputs[i]);
    for (int i = 0; i < node->n_attrs; i++)
        hash = hash_attr(hash, &node->attrs[i]);
    return hash ^ hash >> 32;
}

uint64_t aq_graph_hash(const AqGraph *graph)
{
    uint64_t hash = (uint64_t)graph->count;
    for (AqId id = 0; id < graph->count; id++)
        hash = mix(hash, hash_node(&graph->nodes[id]));
    for (int i = 0; i < graph->n_outputs; i++)
        hash = mix(hash, (uint32_t)graph->outputs[i].node);
    return hash;
}

static bool same_attr(const AqAttr *a, const AqAttr *b)
{
    if (a->key != b->key || a->count != b->count)
        return false;
    switch (aq_key_kind[a->key]) {
    case AQ_INT:
        return a->integer == b->integer;
    case AQ_REAL:
        return real_bits(a->real) == real_bits(b->real);
    case AQ_TEXT:
        return strcmp(a->text, b->text) == 0;
    case AQ_INTS:
        for (int i = 0; i < a->count; i++)
            if (a->ints[i] != b->ints[i])
                return false;
        return true;
    case AQ_REALS:
        for (int i = 0; i < a->count; i++)
            if (real_bits(a->reals[i]) != real_bits(b->reals[i]))
                return false;
        return true;
    case AQ_BODY:
        return a->body == b->body;
    }
    return false;
}

static bool same_node(const AqNode *a, const AqNode *b)
{
    if (a->op != b->op || a->copy != b->copy || a->n_inputs != b->n_inputs ||
        a->n_attrs != b->n_attrs || !aq_same_type(&a->type, &b->type))
        return false;
    for (int i = 0; i < a->n_inputs; i++)
        if (a->inputs[i] != b->inputs[i])
            return false;
    for (int i = 0; i < a->n_attrs; i++)
        if (!same_attr(&a->attrs[i], &b->attrs[i]))
            return false;
    return true;
}

/* The place in the table where `node` is, or would be. */
static int32_t *find(const AqGraph *graph, const AqNode *node)
{
    uint32_t mask = (uint32_t)graph->table_size - 1;
    uint32_t at = (uint32_t)hash_node(node) & mask;
    while (graph->table[at] &&
           !same_node(&graph->nodes[graph->table[at] - 1], node))
        at = (at + 1) & mask;
    return &graph->table[at];
}

/* ---- growing ---- */

static bool reserve_table(AqGraph *graph)
{
    if (2 * (graph->count + 1) <= graph->table_size)
        return true;
    if (graph->table_size > INT32_MAX / 2)
        return false;
    int size = AQ_MAX(4 * FIRST_NODES, 2 * graph->table_size);
    int32_t *table = AQ_NEW_ARRAY(graph->arena, int32_t, size);
    if (!table)
        return false;
    graph->table = table;
    graph->table_size = size;
    for (AqId id = 0; id < graph->count; id++)
        *find(graph, &graph->nodes[id]) = id + 1;
    return true;
}

static bool reserve_nodes(AqGraph *graph)
{
    if (graph->count < graph->capacity)
        return true;
    if (graph->capacity > INT32_MAX / 2)
        return false;
    int capacity = AQ_MAX((int)FIRST_NODES, 2 * graph->capacity);
    AqNode *nodes = AQ_NEW_ARRAY(graph->arena, AqNode, capacity);
    if (!nodes)
        return false;
    if (graph->count)
        memcpy(nodes, graph->nodes, (size_t)graph->count * sizeof *nodes);
    graph->nodes = nodes;
    graph->capacity = capacity;
    return true;
}

static bool keep_attr(AqGraph *graph, AqAttr *attr)
{
    AqArena *arena = graph->arena;
    size_t count = (size_t)attr->count;
    switch (aq_key_kind[attr->key]) {
    case AQ_TEXT:
        return (attr->text = aq_arena_copy_text(arena, attr->text)) != NULL;
    case AQ_INTS:
        attr->ints =
            aq_arena_copy(arena, attr->ints, count * sizeof attr->ints[0]);
        return attr->ints != NULL;
    case AQ_REALS:
        attr->reals =
            aq_arena_copy(arena, attr->reals, count * sizeof attr->reals[0]);
        return attr->reals != NULL;
    default:
        return true;
    }
}

/* Our own copy of a place's text; neighbours mostly share it. */
static const char *keep_place(AqGraph *graph, const char *text,
                              const char *before)
{
    if (!text || !text[0])
        return "";
    if (before && strcmp(before, text) == 0)
        return before;
    return aq_arena_copy_text(graph->arena, text);
}

static bool keep_node(AqGraph *graph, AqNode *node)
{
    const AqNode *before =
        graph->count ? &graph->nodes[graph->count - 1] : NULL;
    AqAttr *attrs =
        aq_arena_copy(graph->arena, node->attrs,
                      (size_t)node->n_attrs * sizeof node->attrs[0]);
    node->inputs = aq_arena_copy(graph->arena, node->inputs,
                                 (size_t)node->n_inputs * sizeof(AqId));
    node->scope =
        keep_place(graph, graph->scope, before ? before->scope : NULL);
    node->file = keep_place(graph, graph->file, before ? before->file : NULL);
    node->line = graph->line;
    node->attrs = attrs;
    bool kept = attrs && node->inputs && node->scope && node->file;
    for (int i = 0; kept && i < node->n_attrs; i++)
        kept = keep_attr(graph, &attrs[i]);
    return kept;
}

static AqId intern(AqGraph *graph, AqNode *node)
{
    if (!reserve_table(graph) || !reserve_nodes(graph))
        return out_of_memory(graph);
    int32_t *place = find(graph, node);
    if (*place)
        return *place - 1;
    if (!keep_node(graph, node))
        return out_of_memory(graph);
    graph->nodes[graph->count] = *node;
    *place = ++graph->count;
    return *place - 1;
}

/* ---- building ---- */

AqId aq_build(AqGraph *graph, AqOp op, const AqType *declared,
              const AqId *inputs, int n_inputs, const AqAttr *attrs,
              int n_attrs)
{
    AqShapeRule rule;
    if (graph->error.status != AQ_OK)
        return AQ_NO_NODE;
    rule.graph = graph;
    rule.op = op;
    rule.declared = declared;
    rule.inputs = inputs;
    rule.n_inputs = n_inputs;
    if (!aq_shape_run(&rule, attrs, n_attrs))
        return aq_graph_fail(graph, AQ_BAD_INPUT, "%s: %s",
                             (unsigned)op < AQ_OP_COUNT ? aq_op_info[op].name
                                                        : "graph",
                             rule.message);
    AqNode node = {.op = op,
                   .copy = graph->copy,
                   .type = rule.type,
                   .inputs = inputs,
                   .n_inputs = n_inputs};
    AqId swapped[2];
    if (aq_op_info[op].facts & AQ_COMMUTES && inputs[0] > inputs[1]) {
        swapped[0] = inputs[1];
        swapped[1] = inputs[0];
        node.inputs = swapped;
    }
    AqAttr sorted[AQ_KEY_COUNT];
    for (int key = 0; key < AQ_KEY_COUNT; key++)
        if (aq_shape_has(&rule, key))
            sorted[node.n_attrs++] = rule.attr[key];
    node.attrs = sorted;
    return intern(graph, &node);
}

static bool check_output(AqGraph *graph, const char *name, AqId node,
                         bool update)
{
    const char *what = update ? "update" : "output";
    if (node < 0 || node >= graph->count) {
        aq_graph_fail(graph, AQ_BAD_INPUT, "%s %s: node %d does not exist",
                      what, name, (int)node);
        return false;
    }
    if (graph->nodes[node].type.element == AQ_RESULTS) {
        aq_graph_fail(graph, AQ_BAD_INPUT,
                      "%s %s: %s has several values: read one with result",
                      what, name, aq_op_info[graph->nodes[node].op].name);
        return false;
    }
    for (int i = 0; i < graph->n_outputs; i++)
        if (graph->outputs[i].update == update &&
            strcmp(graph->outputs[i].name, name) == 0) {
            aq_graph_fail(graph, AQ_BAD_INPUT, "%s %s is given twice", what,
                          name);
            return false;
        }
    return true;
}

static bool reserve_outputs(AqGraph *graph)
{
    if (graph->n_outputs < graph->outputs_capacity)
        return true;
    int capacity = AQ_MAX((int)FIRST_OUTPUTS, 2 * graph->outputs_capacity);
    AqOutput *outputs = AQ_NEW_ARRAY(graph->arena, AqOutput, capacity);
    if (!outputs)
        return false;
    for (int i = 0; i < graph->n_outputs; i++)
        outputs[i] = graph->outputs[i];
    graph->outputs = outputs;
    graph->outputs_capacity = capacity;
    return true;
}

void aq_graph_output(AqGraph *graph, const char *name, AqId node, bool update)
{
    if (graph->error.status != AQ_OK ||
        !check_output(graph, name, node, update))
        return;
    const char *kept = aq_arena_copy_text(graph->arena, name);
    if (!kept || !reserve_outputs(graph)) {
        out_of_memory(graph);
        return;
    }
    graph->outputs[graph->n_outputs++] =
        (AqOutput){.name = kept, .node = node, .update = update};
}

void aq_graph_place(AqGraph *graph, const AqNode *node)
{
    graph->scope = node->scope;
    graph->file = node->file;
    graph->line = node->line;
}

/* A body in the arena of `to`. */
static const AqGraph *copy_body(AqGraph *to, const AqGraph *body)
{
    AqGraph *copy = aq_graph_body(to);
    AqId *map = AQ_NEW_ARRAY(to->arena, AqId, body->count + 1);
    if (!copy || !map) {
        out_of_memory(to);
        return NULL;
    }
    for (AqId id = 0; id < body->count; id++)
        map[id] = aq_graph_copy_node(copy, body, id, map);
    for (int i = 0; i < body->n_outputs; i++)
        aq_graph_output(copy, body->outputs[i].name, map[body->outputs[i].node],
                        body->outputs[i].update);
    if (copy->error.status != AQ_OK)
        aq_graph_fail(to, copy->error.status, "kernel: in its body: %s",
                      copy->error.text);
    return copy;
}

/* The node's attributes and the others: how many. */
static int join_attrs(AqGraph *to, const AqGraph *from, const AqNode *node,
                      const AqAttr *attrs, int n_attrs, AqAttr *all)
{
    int count = 0;
    for (int i = 0; i < node->n_attrs; i++) {
        bool replaced = false;
        for (int k = 0; k < n_attrs; k++)
            replaced |= attrs[k].key == node->attrs[i].key;
        if (replaced)
            continue;
        all[count] = node->attrs[i];
        if (all[count].key == AQ_KEY_BODY && to->arena != from->arena)
            all[count].body = copy_body(to, all[count].body);
        count++;
    }
    for (int k = 0; k < n_attrs; k++)
        all[count++] = attrs[k];
    return count;
}

AqId aq_graph_copy_node(AqGraph *to, const AqGraph *from, AqId id,
                        const AqId *map)
{
    return aq_graph_copy_with(to, from, id, map, NULL, 0);
}

AqId aq_graph_copy_with(AqGraph *to, const AqGraph *from, AqId id,
                        const AqId *map, const AqAttr *attrs, int n_attrs)
{
    AqNode node = from->nodes[id];
    AqAttr all[AQ_KEY_COUNT];
    AqId few[16], *inputs = few;
    if (node.n_inputs > AQ_COUNT(few))
        inputs = AQ_NEW_ARRAY(to->arena, AqId, node.n_inputs);
    if (!inputs)
        return out_of_memory(to);
    for (int i = 0; i < node.n_inputs; i++)
        inputs[i] = map[node.inputs[i]];
    const char *scope = to->scope, *file = to->file;
    int line = to->line, copy = to->copy;
    aq_graph_place(to, &node);
    to->copy = node.copy;
    int count = join_attrs(to, from, &node, attrs, n_attrs, all);
    AqId built =
        aq_build(to, node.op, &node.type, inputs, node.n_inputs, all, count);
    to->scope = scope;
    to->file = file;
    to->line = line;
    to->copy = copy;
    return built;
}
