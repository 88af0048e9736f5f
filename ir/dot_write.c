/* The text for Graphviz: clusters, boxes, edges, and a legend in the title. */
#include "ir/dot.h"

#include <string.h>

#define FONT "Helvetica,Arial,sans-serif"

/* An edge over more ranks than this is a skip connection. */
enum { LONG_EDGE = 3 };

typedef struct Paint {
    const char *name, *fill, *line;
} Paint;

static const Paint paints[DOT_KINDS] = {
    [DOT_MOVEMENT] = {"movement", "#ececec", "#8a8a8a"},
    [DOT_POINTWISE] = {"pointwise", "#fdf3c9", "#b39b2f"},
    [DOT_RANDOM] = {"random", "#fadbe6", "#b9577d"},
    [DOT_LOOKUP] = {"look-up", "#cfeeee", "#3f8f8f"},
    [DOT_REDUCTION] = {"reduction", "#d5efd7", "#4c9153"},
    [DOT_CONTRACTION] = {"contraction", "#d2e4f8", "#4677ab"},
    [DOT_ATTENTION] = {"attention", "#e4d6f4", "#7d56a8"},
    [DOT_STATE] = {"input, output, state", "#fbdfc6", "#b9722e"},
};

/* ---- title ---- */

static void write_legend(const Dot *d, AqText *out)
{
    bool there[DOT_KINDS] = {0}, any = false;
    for (int b = 0; b < d->n_boxes; b++)
        if (d->boxes[b].drawn && d->boxes[b].role != DOT_STUB) {
            any = true;
            if (aq_dot_has_body(d, b))
                aq_dot_body_kinds(d, b, there);
            else
                there[d->boxes[b].kind] = true;
        }
    if (!any) /* a row may not be empty */
        return;
    aq_text_add(out, "<tr>");
    for (int kind = DOT_KINDS - 1; kind >= 0; kind--)
        if (there[kind])
            aq_text_printf(out,
                           "<td bgcolor=\"%s\"><font point-size=\"9\"> %s "
                           "</font></td>",
                           paints[kind].fill, paints[kind].name);
    aq_text_add(out, "</tr>");
}

static void write_title(const Dot *d, AqText *out)
{
    const AqDotOptions *o = d->options;
    aq_text_add(out, "  label=<<table border=\"0\" cellborder=\"0\" "
                     "cellspacing=\"4\"><tr><td colspan=\"8\"><b>");
    aq_dot_escape(out, o->title ? o->title : "graph");
    if (o->scope) {
        aq_text_add(out, ", ");
        aq_dot_escape(out, o->scope);
    }
    aq_text_add(out, "</b></td></tr>");
    if (o->batch > 0)
        aq_text_printf(out,
                       "<tr><td colspan=\"8\"><font point-size=\"9\">shapes "
                       "of one sample of N = %lld</font></td></tr>",
                       (long long)o->batch);
    write_legend(d, out);
    aq_text_add(out, "</table>>;\n");
}

/* ---- boxes ---- */

static const char *style_of(const DotBox *box)
{
    switch (box->role) {
    case DOT_SOURCE:
    case DOT_SINK:
        return "shape=box, style=\"rounded,filled\"";
    case DOT_STUB:
        return "shape=box, style=\"dashed\"";
    default:
        return "shape=box, style=\"filled\"";
    }
}

static void write_tooltip(const Dot *d, AqText *out, const DotBox *box)
{
    if (box->role == DOT_SINK)
        return;
    const AqNode *node = aq_node(d->graph, box->first);
    AqText text = {0};
    aq_text_printf(&text, "%%%d %s  %s:%d", box->first, node->scope, node->file,
                   node->line);
    aq_text_add(out, ", tooltip=");
    aq_dot_quote(out, text.data ? text.data : "");
    aq_text_free(&text);
}

void aq_dot_paint(AqText *out, DotKind kind)
{
    aq_text_printf(out, "fillcolor=\"%s\", color=\"%s\"", paints[kind].fill,
                   paints[kind].line);
}

static void write_box(const Dot *d, AqText *out, int box)
{
    const DotBox *b = &d->boxes[box];
    if (aq_dot_has_body(d, box)) {
        aq_dot_write_body(d, out, box);
        return;
    }
    aq_text_printf(out, "  b%d [label=<", box);
    aq_dot_label(d, out, box);
    aq_text_printf(out, ">, %s", style_of(b));
    if (b->role == DOT_STUB)
        aq_text_add(out, ", color=\"#999999\", fontcolor=\"#555555\"");
    else {
        aq_text_add(out, ", ");
        aq_dot_paint(out, b->kind);
    }
    write_tooltip(d, out, b);
    aq_text_add(out, "];\n");
}

/* ---- clusters ---- */

static void write_group(const Dot *d, AqText *out, int group)
{
    bool cluster = aq_dot_has_cluster(d, group);
    if (d->under[group] == 0)
        return;
    if (cluster) {
        aq_text_printf(out, "  subgraph cluster_g%d { label=<<b>", group);
        aq_dot_group_name(d, out, group);
        aq_text_add(out,
                    "</b>>; color=\"#bbbbbb\"; style=rounded; labeljust=l; "
                    "fontsize=10;\n");
    }
    for (int b = 0; b < d->n_boxes; b++)
        if (d->boxes[b].group == group && d->boxes[b].drawn &&
            d->boxes[b].role != DOT_STUB)
            write_box(d, out, b);
    for (int i = group + 1; i < d->n_groups; i++)
        if (d->groups[i].parent == group)
            write_group(d, out, i);
    if (cluster)
        aq_text_add(out, "  }\n");
}

static void write_columns(const Dot *d, AqText *out)
{
    static const char *const names[] = {"forward", "backward", "update"};
    int used = 0;
    for (int phase = 0; phase < DOT_PHASES; phase++)
        used += d->under[phase] > 0;
    for (int phase = 0; phase < DOT_PHASES; phase++) {
        bool column =
            used > 1 && (d->under[phase] > 1 || phase == DOT_BACKWARD);
        if (column)
            aq_text_printf(out,
                           "  subgraph cluster_%s { label=<<b>%s</b>>; "
                           "style=\"rounded,filled\"; labeljust=l; "
                           "color=\"#dddddd\"; "
                           "fillcolor=\"#fafafa\";\n",
                           names[phase], names[phase]);
        write_group(d, out, phase);
        if (column)
            aq_text_add(out, "  }\n");
    }
}

/* ---- edges ---- */

static void write_edge_label(const Dot *d, AqText *out, const DotEdge *edge)
{
    aq_text_add(out, ", label=\"");
    aq_dot_shape(d, out, &edge->type);
    if (edge->tensors > 1)
        aq_text_printf(out, " +%d", edge->tensors - 1);
    if (edge->copies > edge->tensors && edge->tensors > 0)
        aq_text_printf(out, " (×%d)", edge->copies / edge->tensors);
    aq_text_add(out, "\"");
}

/* Lines that go far carry no label: pointing at one tells what it is. */
static void write_edge_tooltip(const Dot *d, AqText *out, const DotEdge *edge)
{
    AqText text = {0};
    aq_dot_name(d, &text, edge->from);
    aq_text_add(&text, " → ");
    aq_dot_name(d, &text, edge->to);
    aq_text_add(&text, ": ");
    aq_dot_shape(d, &text, &edge->type);
    aq_text_add(out, ", tooltip=");
    aq_dot_quote(out, text.data ? text.data : "");
    aq_text_free(&text);
}

/* To the border of a kernel that is drawn around its body. */
static void write_border(const Dot *d, AqText *out, int box, const char *which)
{
    if (aq_dot_has_body(d, box))
        aq_text_printf(out, "%s=cluster_b%d, ", which, box);
}

static void write_ends(const Dot *d, AqText *out, const DotEdge *edge, bool up)
{
    int tail = up ? edge->to : edge->from, head = up ? edge->from : edge->to;
    aq_text_add(out, "  ");
    aq_dot_port(d, out, tail, !up);
    aq_text_add(out, " -> ");
    aq_dot_port(d, out, head, up);
    aq_text_add(out, up ? " [dir=back, " : " [");
    write_border(d, out, tail, "ltail");
    write_border(d, out, head, "lhead");
}

/* The backward column is drawn upwards, beside the forward one. */
static void write_edge(const Dot *d, AqText *out, const DotEdge *edge)
{
    const DotBox *from = &d->boxes[edge->from], *to = &d->boxes[edge->to];
    bool up = to->phase != DOT_FORWARD && from->phase != DOT_FORWARD;
    bool saved = from->phase == DOT_FORWARD && to->phase == DOT_BACKWARD;
    bool skip = !saved && to->rank - from->rank > LONG_EDGE;
    write_ends(d, out, edge, up);
    if (saved) {
        aq_text_printf(out, "style=dotted, minlen=0, color=\"#888888\", "
                            "fontcolor=\"#888888\"];\n");
        return;
    }
    aq_text_add(out, skip ? "color=\"#4677ab\"" : "weight=8");
    if (!skip && from->role != DOT_SOURCE)
        write_edge_label(d, out, edge);
    write_edge_tooltip(d, out, edge);
    aq_text_add(out, "];\n");
}

void aq_dot_write(const Dot *d, AqText *out)
{
    aq_text_add(out,
                "digraph aquatint {\n"
                "  graph [fontname=\"" FONT "\", fontsize=14, labelloc=t, "
                "newrank=true, nslimit=2, nslimit1=2, ranksep=0.3, "
                "nodesep=0.12, bgcolor=white, pad=0.2];\n"
                "  node [fontname=\"" FONT "\", fontsize=11, penwidth=1, "
                "margin=\"0.1,0.05\", height=0.3];\n"
                "  edge [fontname=\"" FONT "\", fontsize=9, color=\"#555555\", "
                "fontcolor=\"#555555\", arrowsize=0.6];\n");
    if (d->bodies) /* edges end at the borders of clusters */
        aq_text_add(out, "  compound=true;\n");
    write_title(d, out);
    for (int b = 0; b < d->n_boxes; b++)
        if (d->boxes[b].drawn &&
            (d->boxes[b].group == DOT_NOWHERE || d->boxes[b].role == DOT_STUB))
            write_box(d, out, b);
    write_columns(d, out);
    for (int e = 0; e < d->n_edges; e++)
        if (!d->edges[e].told)
            write_edge(d, out, &d->edges[e]);
    aq_text_add(out, "}\n");
}
