/* The text form.  parse.c reads it back without loss: reals have 17 digits,
 * texts are quoted where they would not read as one word, and the place stands
 * behind the semicolon. */
#include "ir/ir.h"

#include <ctype.h>
#include <math.h>
#include <string.h>

static void print_quoted(AqText *text, const char *s)
{
    aq_text_add(text, "\"");
    for (; *s; s++) {
        unsigned char c = (unsigned char)*s;
        if (c == '"' || c == '\\')
            aq_text_printf(text, "\\%c", c);
        else if (c == '\n')
            aq_text_add(text, "\\n");
        else if (c < ' ' || c == 127)
            aq_text_printf(text, "\\x%02x", c);
        else
            aq_text_bytes(text, s, 1);
    }
    aq_text_add(text, "\"");
}

/* WORD: letters, digits and _ . - + / $ @ < > ( ) stand without quotes. */
static bool is_word(const char *s)
{
    if (!*s)
        return false;
    for (; *s; s++)
        if (!isalnum((unsigned char)*s) && !strchr("_.-+/$@<>()", *s))
            return false;
    return true;
}

static void print_word(AqText *text, const char *s)
{
    if (is_word(s))
        aq_text_add(text, s);
    else
        print_quoted(text, s);
}

static void print_real(AqText *text, double value)
{
    if (isnan(value))
        aq_text_add(text, "nan");
    else
        aq_text_printf(text, "%.17g", value);
}

static void print_graph(AqText *text, const AqGraph *graph, int indent);

static void print_attr(AqText *text, const AqAttr *attr, int indent)
{
    aq_text_printf(text, "%s=", aq_key_name[attr->key]);
    switch (aq_key_kind[attr->key]) {
    case AQ_INT:
        aq_text_printf(text, "%lld", (long long)attr->integer);
        return;
    case AQ_REAL:
        print_real(text, attr->real);
        return;
    case AQ_TEXT:
        print_quoted(text, attr->text);
        return;
    case AQ_INTS:
        aq_text_add(text, "[");
        for (int i = 0; i < attr->count; i++)
            aq_text_printf(text, i ? ",%lld" : "%lld",
                           (long long)attr->ints[i]);
        aq_text_add(text, "]");
        return;
    case AQ_REALS:
        aq_text_add(text, "[");
        for (int i = 0; i < attr->count; i++) {
            aq_text_add(text, i ? "," : "");
            print_real(text, attr->reals[i]);
        }
        aq_text_add(text, "]");
        return;
    case AQ_BODY:
        print_graph(text, attr->body, indent);
        return;
    }
}

static void print_attrs(AqText *text, const AqNode *node, int indent)
{
    const char *before = " {";
    if (node->copy) {
        aq_text_printf(text, " {copy=%d", node->copy);
        before = ", ";
    }
    for (int i = 0; i < node->n_attrs; i++) {
        aq_text_add(text, before);
        print_attr(text, &node->attrs[i], indent);
        before = ", ";
    }
    if (node->copy || node->n_attrs)
        aq_text_add(text, "}");
}

/* "   ; file:line scope"; nothing where all three are unknown */
static void print_place(AqText *text, const AqNode *node)
{
    if (!node->file[0] && !node->line && !node->scope[0])
        return;
    aq_text_add(text, "   ; ");
    print_word(text, node->file);
    aq_text_printf(text, ":%d", node->line);
    if (node->scope[0]) {
        aq_text_add(text, " ");
        print_word(text, node->scope);
    }
}

static void print_node(AqText *text, const AqGraph *graph, AqId id, int indent)
{
    const AqNode *node = &graph->nodes[id];
    aq_text_printf(text, "%*s%%%d = %s", indent, "", (int)id,
                   aq_op_info[node->op].name);
    for (int i = 0; i < node->n_inputs; i++)
        aq_text_printf(text, i ? ", %%%d" : " %%%d", (int)node->inputs[i]);
    print_attrs(text, node, indent);
    aq_text_add(text, " : ");
    aq_type_text(text, &node->type);
    print_place(text, node);
    aq_text_add(text, "\n");
}

/* "{", the nodes and outputs one step further in, "}" */
static void print_graph(AqText *text, const AqGraph *graph, int indent)
{
    aq_text_add(text, "{\n");
    for (AqId id = 0; id < graph->count; id++)
        print_node(text, graph, id, indent + 2);
    for (int i = 0; i < graph->n_outputs; i++) {
        const AqOutput *output = &graph->outputs[i];
        aq_text_printf(text, "%*s%s ", indent + 2, "",
                       output->update ? "update" : "output");
        print_word(text, output->name);
        aq_text_printf(text, " = %%%d\n", (int)output->node);
    }
    aq_text_printf(text, "%*s}", indent, "");
}

void aq_graph_print(const AqGraph *graph, AqText *text)
{
    aq_text_add(text, "graph ");
    print_graph(text, graph, 0);
    aq_text_add(text, "\n");
}
