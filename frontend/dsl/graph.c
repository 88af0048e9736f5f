/* Places, scopes, sources, outputs, and questions about shapes. */
#include "frontend/dsl/build.h"

#include <string.h>

const char *aq_graph_error(const AqGraph *graph)
{
    if (!graph)
        return "memory ended";
    return graph->error.status == AQ_OK ? NULL : graph->error.text;
}

/* ---- places ---- */

void aq_enter_graph(AqPlace at, AqGraph *graph)
{
    graph->file = at.file;
    graph->line = at.line;
    if (at.scope)
        graph->scope = at.scope;
}

static AqGraph *graph_among(const AqTensor *x, int count)
{
    for (int i = 0; i < count; i++)
        if (x[i].graph)
            return x[i].graph;
    return NULL;
}

AqGraph *aq_enter(AqPlace at, const char *what, const AqTensor *x, int count)
{
    AqGraph *graph = graph_among(x, count);
    if (!graph)
        return NULL;
    aq_enter_graph(at, graph);
    AqId youngest = -1;
    for (int i = 0; i < count; i++) {
        if (x[i].graph && x[i].id < 0)
            return NULL;
        if (!x[i].graph)
            aq_graph_fail(graph, AQ_BAD_INPUT, "%s: argument %d is no tensor",
                          what, i + 1);
        else if (x[i].graph != graph)
            aq_graph_fail(graph, AQ_BAD_INPUT,
                          "%s: argument %d belongs to another graph", what,
                          i + 1);
        if (graph->error.status != AQ_OK)
            return NULL;
        youngest = AQ_MAX(youngest, x[i].id);
    }
    if (!at.scope && youngest >= 0)
        graph->scope = graph->nodes[youngest].scope;
    return graph;
}

AqGraph *aq_enter_scope(AqPlace *at, AqScope s)
{
    if (!s.graph)
        return NULL;
    at->scope = s.path;
    aq_enter_graph(*at, s.graph);
    return s.graph->error.status == AQ_OK ? s.graph : NULL;
}

AqTensor aq_lost(AqTensor x)
{
    return (AqTensor){x.graph, AQ_NO_NODE};
}

AqTensor aq_complain(AqPlace at, AqGraph *graph, const char *format, ...)
{
    if (!graph)
        return AQ_NONE;
    aq_enter_graph(at, graph);
    char text[800];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof(text), format, args);
    va_end(args);
    return aq_wrap(graph, aq_graph_fail(graph, AQ_BAD_INPUT, "%s", text));
}

const char *aq_type_name(AqGraph *graph, const AqType *type)
{
    AqText text = {0};
    aq_type_text(&text, type);
    const char *name =
        text.data ? aq_arena_copy_text(graph->arena, text.data) : NULL;
    aq_text_free(&text);
    return name ? name : "a tensor";
}

/* ---- scopes ---- */

AqScope aq_root(AqGraph *graph)
{
    return (AqScope){graph, "", NULL};
}

static bool plain_path(const char *path)
{
    if (!*path)
        return false;
    for (const char *c = path; *c; c++)
        if (!strchr("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
                    "0123456789_.",
                    *c))
            return false;
    return true;
}

AqScope aq_sub_(AqPlace at, AqScope s, const char *format, ...)
{
    if (!s.graph)
        return s;
    char name[256];
    va_list args;
    va_start(args, format);
    int length = vsnprintf(name, sizeof(name), format, args);
    va_end(args);
    if (length >= (int)sizeof(name) || !plain_path(name)) {
        aq_complain(at, s.graph,
                    "scope \"%s\": 1 to 255 letters, digits, _ and . make "
                    "a name",
                    name);
        return s;
    }
    const char *path = aq_arena_printf(s.graph->arena, "%s%s%s", s.path,
                                       *s.path ? "." : "", name);
    if (!path)
        aq_graph_fail(s.graph, AQ_NO_MEMORY, "scope %s: memory ended", name);
    else
        s.path = path;
    return s;
}

AqScope aq_drawing(AqScope s, AqDraw draw)
{
    if (!s.graph)
        return s;
    s.draw = aq_arena_copy(s.graph->arena, &draw, sizeof(draw));
    if (!s.draw)
        aq_graph_fail(s.graph, AQ_NO_MEMORY, "scope %s: memory ended", s.path);
    return s;
}

/* ---- sources ---- */

static AqType type_of(AqShape shape, bool integer)
{
    return aq_type(integer ? AQ_I32 : AQ_F32, shape.rank, shape.dim);
}

static AqTensor source(AqPlace at, AqOp op, AqInput a)
{
    if (!a.graph)
        return AQ_NONE;
    at.scope = "";
    aq_enter_graph(at, a.graph);
    if (!a.name || !*a.name)
        return aq_complain(at, a.graph, "%s: a name is needed",
                           aq_op_info[op].name);
    AqType type = type_of(a.shape, a.integer);
    AqAttr name = aq_text(AQ_KEY_NAME, a.name);
    return aq_wrap(a.graph, aq_build(a.graph, op, &type, NULL, 0, &name, 1));
}

AqTensor aq_input_(AqPlace at, AqInput a)
{
    return source(at, AQ_OP_input, a);
}

AqTensor aq_state_(AqPlace at, AqInput a)
{
    return source(at, AQ_OP_state, a);
}

AqTensor aq_full_(AqPlace at, AqGraph *graph, AqShape shape, double value)
{
    if (!graph)
        return AQ_NONE;
    aq_enter_graph(at, graph);
    AqType type = type_of(shape, false);
    return aq_wrap(graph, aq_const_node(graph, &type, value));
}

AqTensor aq_full_like_(AqPlace at, AqTensor like, double value)
{
    AqGraph *graph = aq_enter(at, "full_like", &like, 1);
    if (!graph)
        return aq_lost(like);
    return aq_wrap(graph, aq_const_like(graph, like.id, value));
}

AqTensor aq_table_(AqPlace at, AqGraph *graph, AqShape shape,
                   const double *values)
{
    if (!graph)
        return AQ_NONE;
    aq_enter_graph(at, graph);
    AqType type = type_of(shape, false);
    return aq_wrap(graph, aq_table_node(graph, &type, values));
}

AqTensor aq_range_(AqPlace at, AqGraph *graph, int64_t count)
{
    if (!graph)
        return AQ_NONE;
    aq_enter_graph(at, graph);
    AqType type = type_of(AQ_SHAPE(count), true);
    return aq_wrap(graph, aq_iota_node(graph, &type, 0));
}

/* ---- outputs ---- */

static bool named_already(AqPlace at, AqGraph *graph, const char *name,
                          bool update)
{
    for (int i = 0; i < graph->n_outputs; i++) {
        const AqOutput *output = &graph->outputs[i];
        if (output->update != update || strcmp(output->name, name) != 0)
            continue;
        aq_complain(at, graph, "%s \"%s\" is given twice",
                    update ? "update of state" : "output", name);
        return true;
    }
    return false;
}

void aq_output_(AqPlace at, AqTensor x, const char *name)
{
    AqGraph *graph = aq_enter(at, "output", &x, 1);
    if (graph && !named_already(at, graph, name, false))
        aq_graph_output(graph, name, x.id, false);
}

void aq_update_(AqPlace at, const char *name, AqTensor x)
{
    AqGraph *graph = aq_enter(at, "update", &x, 1);
    if (graph && !named_already(at, graph, name, true))
        aq_graph_output(graph, name, x.id, true);
}

/* ---- shapes ---- */

int aq_axis(AqPlace at, AqTensor x, int axis, const char *what)
{
    int rank = aq_type_of(x)->rank;
    int plain = axis < 0 ? axis + rank : axis;
    if (plain >= 0 && plain < rank)
        return plain;
    aq_complain(at, x.graph, "%s: %s has no axis %d", what,
                aq_type_name(x.graph, aq_type_of(x)), axis);
    return -1;
}

int aq_rank_(AqPlace at, AqTensor x)
{
    return aq_enter(at, "rank", &x, 1) ? aq_type_of(x)->rank : 1;
}

int aq_dim_(AqPlace at, AqTensor x, int axis)
{
    if (!aq_enter(at, "dim", &x, 1))
        return 1;
    int plain = aq_axis(at, x, axis, "dim");
    return plain < 0 ? 1 : (int)aq_type_of(x)->dim[plain];
}

AqShape aq_shape(AqTensor x)
{
    AqShape shape = {0, {0}};
    if (!aq_good(x))
        return shape;
    shape.rank = aq_type_of(x)->rank;
    for (int i = 0; i < shape.rank; i++)
        shape.dim[i] = aq_type_of(x)->dim[i];
    return shape;
}
