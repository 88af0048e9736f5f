/* Reads the text form: a line a node, numbered from 0 in each graph.
 *
 *   graph     = "graph {" line* "}"
 *   line      = node | output | comment alone
 *   node      = %N "=" op %i, %j "{" key=value, ... "}" ":" type place
 *   output    = ("output" | "update") word "=" %N
 *   place     = "; file:line scope"
 *
 * Every node goes through aq_build, so a text cannot say what a program could
 * not.  A line that equals an earlier one is that node. */
#include "ir/ir.h"
#include "ir/scan.h"

#include <string.h>

enum { DEEPEST = 16 };

/* What one line says, before it is built. */
typedef struct Line {
    AqOp op;
    AqId *inputs;
    int n_inputs;
    AqAttr attrs[AQ_KEY_COUNT];
    int n_attrs;
    int64_t copy, place;
    AqType type;
    const char *file, *scope;
} Line;

/* ---- types ---- */

static bool parse_type(AqScanner *p, AqType *type)
{
    AqScanList dims;
    int length = aq_scan_identifier(p);
    if (aq_scan_is(p->at, length, "results")) {
        *type = (AqType){.element = AQ_RESULTS};
        p->at += length;
        return true;
    }
    if (aq_scan_is(p->at, length, "f32"))
        type->element = AQ_F32;
    else if (aq_scan_is(p->at, length, "i32"))
        type->element = AQ_I32;
    else
        return aq_scan_expected(p, "a type: f32[...], i32[...] or results");
    p->at += length;
    if (!aq_scan_list(p, false, &dims))
        return false;
    if (dims.count > AQ_MAX_RANK)
        return aq_scan_fail(p, "rank %d is more than %d", dims.count,
                            AQ_MAX_RANK);
    *type = aq_type(type->element, dims.count, dims.data);
    return true;
}

/* ---- attributes ---- */

static AqGraph *parse_body(AqScanner *p, AqGraph *graph);

static bool parse_value(AqScanner *p, AqGraph *graph, AqKey key, AqAttr *attr)
{
    AqScanList list;
    *attr = (AqAttr){.key = key, .count = 1};
    switch (aq_key_kind[key]) {
    case AQ_INT:
        return aq_scan_int(p, "a whole number", &attr->integer);
    case AQ_REAL:
        return aq_scan_real(p, &attr->real);
    case AQ_TEXT:
        *attr = aq_text(key, aq_scan_quoted(p));
        return attr->text != NULL;
    case AQ_INTS:
        if (!aq_scan_list(p, false, &list))
            return false;
        *attr = aq_ints(key, list.data, list.count);
        return true;
    case AQ_REALS:
        if (!aq_scan_list(p, true, &list))
            return false;
        *attr = aq_reals(key, list.data, list.count);
        return true;
    case AQ_BODY:
        *attr = aq_body(parse_body(p, graph));
        return attr->body != NULL;
    }
    return false;
}

static bool parse_attr(AqScanner *p, AqGraph *graph, Line *line)
{
    int length = aq_scan_identifier(p);
    const char *word = p->at;
    p->at += length;
    if (aq_scan_is(word, length, "copy"))
        return aq_scan_expect(p, '=', "after copy") &&
               aq_scan_small(p, "a copy number", INT32_MAX, &line->copy);
    for (int key = 0; key < AQ_KEY_COUNT; key++) {
        if (!aq_scan_is(word, length, aq_key_name[key]))
            continue;
        for (int i = 0; i < line->n_attrs; i++)
            if (line->attrs[i].key == (AqKey)key)
                return aq_scan_fail(p, "%s is given twice", aq_key_name[key]);
        return aq_scan_expect(p, '=', "after the attribute's name") &&
               parse_value(p, graph, (AqKey)key, &line->attrs[line->n_attrs++]);
    }
    p->at = word;
    return aq_scan_expected(p, "an attribute");
}

static bool parse_attrs(AqScanner *p, AqGraph *graph, Line *line)
{
    if (!aq_scan_accept(p, '{') || aq_scan_accept(p, '}'))
        return true;
    do {
        if (!parse_attr(p, graph, line))
            return false;
    } while (aq_scan_accept(p, ','));
    return aq_scan_expect(p, '}', "after the attributes");
}

/* ---- lines ---- */

static bool parse_op(AqScanner *p, AqOp *op)
{
    const char *names[AQ_OP_COUNT];
    char word[40];
    int length = aq_scan_identifier(p);
    for (int i = 0; i < AQ_OP_COUNT; i++) {
        names[i] = aq_op_info[i].name;
        if (!aq_scan_is(p->at, length, names[i]))
            continue;
        *op = (AqOp)i;
        p->at += length;
        return true;
    }
    if (!length)
        return aq_scan_expected(p, "an op");
    snprintf(word, sizeof word, "%.*s", AQ_MIN(length, 30), p->at);
    const char *near = aq_nearest(word, names, AQ_OP_COUNT);
    return aq_scan_fail(p, "there is no op %s%s%s", word,
                        near ? ": did you mean " : "", near ? near : "");
}

/* %3, one of the nodes above; the map goes from the text's numbers to ids. */
static bool parse_reference(AqScanner *p, const AqScanList *map, AqId *id)
{
    int64_t number;
    if (!aq_scan_expect(p, '%', "before a node's number") ||
        !aq_scan_int(p, "a node's number", &number))
        return false;
    if (number < 0 || number >= map->count)
        return aq_scan_fail(p, "no node %%%lld stands above",
                            (long long)number);
    *id = (AqId)((const int64_t *)map->data)[number];
    return true;
}

static bool parse_inputs(AqScanner *p, const AqScanList *map, Line *line)
{
    AqScanList inputs = {0};
    aq_scan_blanks(p);
    if (*p->at != '%')
        return true;
    do {
        int64_t *place = aq_scan_more(p, &inputs);
        AqId id = AQ_NO_NODE;
        if (!place || !parse_reference(p, map, &id))
            return false;
        *place = id;
    } while (aq_scan_accept(p, ','));
    line->n_inputs = inputs.count;
    line->inputs = AQ_NEW_ARRAY(p->scratch, AqId, inputs.count);
    if (!line->inputs)
        return aq_scan_no_memory(p);
    for (int i = 0; i < inputs.count; i++)
        line->inputs[i] = (AqId)((int64_t *)inputs.data)[i];
    return true;
}

/* file:line scope */
static bool parse_place(AqScanner *p, Line *line)
{
    if (!aq_scan_accept(p, ';'))
        return true;
    line->file = aq_scan_word(p, "the place's file");
    if (!line->file || !aq_scan_expect(p, ':', "after the place's file") ||
        !aq_scan_int(p, "the place's line", &line->place))
        return false;
    if (line->place != (int)line->place)
        return aq_scan_fail(p, "line %lld is too large",
                            (long long)line->place);
    aq_scan_blanks(p);
    if (*p->at == '\n' || !*p->at)
        return true;
    line->scope = aq_scan_word(p, "the place's scope");
    return line->scope != NULL;
}

static bool build_line(AqScanner *p, AqGraph *graph, const Line *line,
                       AqScanList *map)
{
    int64_t *place = aq_scan_more(p, map);
    if (!place)
        return false;
    graph->file = line->file;
    graph->line = (int)line->place;
    graph->scope = line->scope;
    graph->copy = (int)line->copy;
    *place = aq_build(graph, line->op, &line->type, line->inputs,
                      line->n_inputs, line->attrs, line->n_attrs);
    return *place != AQ_NO_NODE || aq_scan_fail(p, "%s", graph->error.text);
}

/* %3 = op %1, %2 {key=value} : type   ; place */
static bool parse_node(AqScanner *p, AqGraph *graph, AqScanList *map)
{
    Line line = {.file = "", .scope = ""};
    int64_t number;
    int at = p->line;
    if (!aq_scan_expect(p, '%', "before a node's number") ||
        !aq_scan_int(p, "a node's number", &number))
        return false;
    if (number != map->count)
        return aq_scan_fail(p, "this is node %%%d, not %%%lld", map->count,
                            (long long)number);
    if (!aq_scan_expect(p, '=', "after the node's number") ||
        !parse_op(p, &line.op) || !parse_inputs(p, map, &line) ||
        !parse_attrs(p, graph, &line) ||
        !aq_scan_expect(p, ':', "before the node's type") ||
        !parse_type(p, &line.type) || !parse_place(p, &line))
        return false;
    int after = p->line;
    p->line = at; /* a body spans lines; an error belongs to the first */
    if (!build_line(p, graph, &line, map))
        return false;
    p->line = after;
    return true;
}

static bool parse_output(AqScanner *p, AqGraph *graph, const AqScanList *map)
{
    bool update = *p->at == 'u';
    AqId id;
    p->at += strlen("output");
    const char *name = aq_scan_word(p, "the output's name");
    if (!name || !aq_scan_expect(p, '=', "after the output's name") ||
        !parse_reference(p, map, &id))
        return false;
    graph->file = graph->scope = "";
    aq_graph_output(graph, name, id, update);
    return graph->error.status == AQ_OK ||
           aq_scan_fail(p, "%s", graph->error.text);
}

static bool parse_line(AqScanner *p, AqGraph *graph, AqScanList *map)
{
    int length = aq_scan_identifier(p);
    if (*p->at == '%')
        return parse_node(p, graph, map);
    if (aq_scan_is(p->at, length, "output") ||
        aq_scan_is(p->at, length, "update"))
        return parse_output(p, graph, map);
    return aq_scan_expected(p, "a node, output, update or '}'");
}

/* "{", lines, "}" */
static bool parse_lines(AqScanner *p, AqGraph *graph)
{
    AqScanList map = {0};
    if (!aq_scan_expect(p, '{', "before a graph") || !aq_scan_end_line(p))
        return false;
    while (!aq_scan_accept(p, '}'))
        if (!parse_line(p, graph, &map) || !aq_scan_end_line(p))
            return false;
    graph->file = graph->scope = "";
    graph->line = graph->copy = 0;
    return true;
}

static AqGraph *parse_body(AqScanner *p, AqGraph *graph)
{
    if (p->depth == DEEPEST) {
        aq_scan_fail(p, "bodies lie within each other more than %d deep",
                     DEEPEST);
        return NULL;
    }
    AqGraph *body = aq_graph_body(graph);
    if (!body) {
        aq_scan_no_memory(p);
        return NULL;
    }
    p->depth++;
    bool parsed = parse_lines(p, body);
    p->depth--;
    return parsed ? body : NULL;
}

static bool parse_text(AqScanner *p, AqGraph *graph)
{
    aq_scan_comments(p);
    int length = aq_scan_identifier(p);
    if (!aq_scan_is(p->at, length, "graph"))
        return aq_scan_expected(p, "graph");
    p->at += length;
    if (!parse_lines(p, graph))
        return false;
    aq_scan_comments(p);
    return !*p->at || aq_scan_expected(p, "nothing after the graph");
}

AqGraph *aq_graph_parse(const char *text, const char *name, AqError *error)
{
    AqError local = {0};
    AqScanner p = {.at = text, .name = name, .line = 1, .error = &local};
    AqGraph *graph = aq_graph_new();
    p.scratch = aq_arena_new();
    bool parsed =
        graph && p.scratch ? parse_text(&p, graph) : aq_scan_no_memory(&p);
    aq_arena_free(p.scratch);
    if (parsed)
        return graph;
    aq_graph_free(graph);
    aq_fail(error, local.status, "%s", local.text);
    return NULL;
}
