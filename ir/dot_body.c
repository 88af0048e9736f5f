/* A kernel as a box around its body: what it reads on one side, then a box for
 * each operation.  So are kernels drawn that are few enough for one picture;
 * more of them are boxes with their operations as text. */
#include "ir/dot.h"

#include <string.h>

enum { MOST_STEPS = 120 };

static const AqGraph *body_of(const Dot *d, int box)
{
    const DotBox *b = &d->boxes[box];
    bool alone = b->drawn && b->role == DOT_OP;
    return alone ? aq_attr_body(aq_node(d->graph, b->first)) : NULL;
}

/* What only says which element is read is drawn as the line that it is. */
static bool is_line(AqOp op)
{
    return op == AQ_OP_result || op == AQ_OP_reshape || op == AQ_OP_broadcast;
}

static AqId behind_lines(const AqGraph *body, AqId id)
{
    while (is_line(aq_node(body, id)->op))
        id = aq_node(body, id)->inputs[0];
    return id;
}

/* An operation, or an argument that one reads; constants are told in text. */
static bool is_shown(const AqGraph *body, AqId id)
{
    double value;
    const AqNode *node = aq_node(body, id);
    bool source = aq_op_info[node->op].facts & AQ_SOURCE;
    return !is_line(node->op) &&
           (source || !aq_dot_constant_value(body, id, &value));
}

void aq_dot_choose_bodies(Dot *d)
{
    int steps = 0;
    for (int b = 0; b < d->n_boxes; b++) {
        const AqGraph *body = body_of(d, b);
        for (AqId id = 0; body && id < body->count; id++)
            steps += is_shown(body, id);
    }
    d->bodies = steps > 0 && steps <= MOST_STEPS;
}

/* Where an edge of the picture ends within the box: at the first of what is
 * shown, or, where it leaves, at the last; AQ_NO_NODE: at the box itself. */
static AqId port(const Dot *d, int box, bool leaves)
{
    const AqGraph *body = d->bodies ? body_of(d, box) : NULL;
    AqId found = AQ_NO_NODE;
    for (AqId id = 0; body && id < body->count; id++)
        if (is_shown(body, id) && (leaves || found == AQ_NO_NODE))
            found = id;
    return found;
}

bool aq_dot_has_body(const Dot *d, int box)
{
    return port(d, box, true) != AQ_NO_NODE;
}

void aq_dot_port(const Dot *d, AqText *out, int box, bool leaves)
{
    AqId id = port(d, box, leaves);
    aq_text_printf(out, "b%d", box);
    if (id != AQ_NO_NODE)
        aq_text_printf(out, "_%d", id);
}

void aq_dot_body_kinds(const Dot *d, int box, bool *there)
{
    const AqGraph *body = body_of(d, box);
    for (AqId id = 0; id < body->count; id++)
        if (is_shown(body, id) && aq_node(body, id)->op != AQ_OP_arg)
            there[aq_dot_kind(body, id)] = true;
}

/* An argument is called as the parameter that it is, or by its shape. */
static void write_argument(const Dot *d, AqText *out, int box,
                           const AqNode *arg)
{
    const AqNode *kernel = aq_node(d->graph, d->boxes[box].first);
    int64_t index = aq_attr_int(arg, AQ_KEY_INDEX, 0);
    const AqNode *given = aq_node(d->graph, kernel->inputs[index]);
    const char *name = aq_attr_text(given, AQ_KEY_NAME, NULL);
    const char *dot = name ? strrchr(name, '.') : NULL;
    AqText text = {0};
    if (name)
        aq_text_add(&text, dot ? dot + 1 : name);
    else
        aq_dot_shape(d, &text, &arg->type);
    aq_dot_escape(out, text.data ? text.data : "");
    aq_text_free(&text);
}

static void write_step(const Dot *d, AqText *out, int box, AqId id)
{
    const AqGraph *body = body_of(d, box);
    const AqNode *node = aq_node(body, id);
    aq_text_printf(out, "    b%d_%d [fontsize=9, height=0.2, label=<", box, id);
    if (node->op == AQ_OP_arg)
        write_argument(d, out, box, node);
    else
        aq_dot_step(body, id, out);
    if (node->op == AQ_OP_arg)
        aq_text_add(out, ">, shape=plaintext, margin=\"0.04,0.01\"];\n");
    else {
        aq_text_add(out, ">, shape=box, style=filled, margin=\"0.06,0.02\", ");
        aq_dot_paint(out, aq_dot_kind(body, id));
        aq_text_add(out, "];\n");
    }
}

/* As the edges between boxes: upwards in the backward column. */
static void write_reads(const Dot *d, AqText *out, int box, AqId id)
{
    const AqGraph *body = body_of(d, box);
    const AqNode *node = aq_node(body, id);
    bool up = d->boxes[box].phase != DOT_FORWARD;
    for (int i = 0; i < node->n_inputs; i++) {
        AqId in = behind_lines(body, node->inputs[i]);
        if (!is_shown(body, in))
            continue;
        aq_text_printf(out, "    b%d_%d -> b%d_%d%s;\n", box, up ? id : in, box,
                       up ? in : id, up ? " [dir=back]" : "");
    }
}

void aq_dot_write_body(const Dot *d, AqText *out, int box)
{
    const AqGraph *body = body_of(d, box);
    aq_text_printf(out,
                   "  subgraph cluster_b%d { style=\"filled\"; "
                   "labeljust=c; fontsize=11; penwidth=1; label=<",
                   box);
    aq_dot_label(d, out, box);
    aq_text_add(out, ">; fillcolor=white; color=\"#4a4a4a\";\n");
    for (AqId id = 0; id < body->count; id++)
        if (is_shown(body, id))
            write_step(d, out, box, id);
    for (AqId id = 0; id < body->count; id++)
        if (is_shown(body, id))
            write_reads(d, out, box, id);
    aq_text_add(out, "  }\n");
}
