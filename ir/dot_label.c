/* What stands in a box: names, a summary of its work, shapes, parameters. */
#include "ir/dot.h"

#include <string.h>

enum {
    MOST_LINES = 6,
    MOST_BODY_LINES = 14,
    MOST_TOLD_LINES = 3,
    MOST_TELLING = 12
};

/* ---- nodes ---- */

DotKind aq_dot_kind(const AqGraph *graph, AqId id)
{
    const AqNode *node = aq_node(graph, id);
    const AqOpInfo *info = &aq_op_info[node->op];
    const AqGraph *body = aq_attr_body(node);
    DotKind most = DOT_MOVEMENT;
    for (AqId i = 0; body && i < body->count; i++)
        if (!(aq_op_info[aq_node(body, i)->op].facts & AQ_SOURCE))
            most = AQ_MAX(most, aq_dot_kind(body, i));
    if (body)
        return most;
    if (info->facts & AQ_SOURCE)
        return DOT_STATE;
    if (info->lowering == AQ_LOWER_contract)
        return DOT_CONTRACTION;
    if (info->lowering == AQ_LOWER_attend)
        return DOT_ATTENTION;
    if (info->facts & AQ_POINTWISE)
        return DOT_POINTWISE;
    if (info->attributes & 1u << AQ_KEY_STREAM)
        return DOT_RANDOM;
    if (info->facts & AQ_REDUCES)
        return DOT_REDUCTION;
    bool plain = info->facts & AQ_MOVES || info->inputs == 0 ||
                 info->lowering == AQ_LOWER_none;
    return plain ? DOT_MOVEMENT : DOT_LOOKUP;
}

void aq_dot_shape(const Dot *d, AqText *out, const AqType *type)
{
    int64_t batch = d->options->batch;
    int first = batch > 0 && type->rank > 0 && type->dim[0] == batch;
    if (type->rank == 0)
        aq_text_add(out, "scalar");
    else if (first == type->rank)
        aq_text_add(out, "N");
    for (int i = first; i < type->rank; i++)
        aq_text_printf(out, i > first ? "×%lld" : "%lld",
                       (long long)type->dim[i]);
    if (type->element == AQ_I32)
        aq_text_add(out, " i32");
}

/* w: (KH, KW, C / groups, O) */
static void describe_convolution(const AqNode *node, const AqType *w,
                                 const char *of, AqText *out)
{
    int64_t groups = aq_attr_int(node, AQ_KEY_GROUPS, 1);
    int64_t stride = aq_attr_at(node, AQ_KEY_STRIDE, 0, 1);
    aq_text_printf(out, "conv %lld×%lld %lld→%lld", (long long)w->dim[0],
                   (long long)w->dim[1], (long long)(w->dim[2] * groups),
                   (long long)w->dim[3]);
    if (stride > 1)
        aq_text_printf(out, " /%lld", (long long)stride);
    if (groups > 1)
        aq_text_printf(out, ", %lld groups", (long long)groups);
    aq_text_add(out, of);
}

/* What a node does, in a few words. */
static void describe(const AqGraph *g, AqId id, bool brief, AqText *out)
{
    const AqNode *node = aq_node(g, id);
    const AqType *a =
        node->n_inputs > 0 ? &aq_node(g, node->inputs[0])->type : NULL;
    const AqType *b =
        node->n_inputs > 1 ? &aq_node(g, node->inputs[1])->type : NULL;
    switch (node->op) {
    case AQ_OP_conv2d:
        describe_convolution(node, b, "", out);
        return;
    case AQ_OP_conv2d_input_gradient:
        describe_convolution(node, b, brief ? " gradient" : ", dx", out);
        return;
    case AQ_OP_conv2d_weight_gradient:
        describe_convolution(node, &node->type, brief ? " gradient" : ", dw",
                             out);
        return;
    case AQ_OP_matmul:
        aq_text_printf(
            out, "matmul %lld→%lld",
            (long long)
                a->dim[a->rank - 1 - (aq_attr_int(node, AQ_KEY_TA, 0) > 0)],
            (long long)node->type.dim[node->type.rank - 1]);
        return;
    case AQ_OP_attention:
    case AQ_OP_attention_gradient:
        aq_text_printf(out, "%s, %lld × %lld",
                       node->op == AQ_OP_attention ? "attention"
                                                   : "attention gradient",
                       (long long)a->dim[2], (long long)a->dim[3]);
        return;
    case AQ_OP_random:
        aq_text_printf(out, "random %s", aq_attr_text(node, AQ_KEY_KIND, ""));
        return;
    default:
        aq_text_add(out, aq_op_info[node->op].name);
    }
}

bool aq_dot_constant_value(const AqGraph *g, AqId id, double *value)
{
    while (aq_op_info[aq_node(g, id)->op].facts & AQ_MOVES &&
           aq_node(g, id)->n_inputs == 1)
        id = aq_node(g, id)->inputs[0];
    *value = aq_attr_real(aq_node(g, id), AQ_KEY_VALUE, 0);
    return aq_node(g, id)->op == AQ_OP_const;
}

void aq_dot_step(const AqGraph *g, AqId id, AqText *out)
{
    const AqNode *node = aq_node(g, id);
    describe(g, id, false, out);
    for (int i = 0; i < node->n_inputs && node->n_inputs < 4; i++) {
        double value;
        if (aq_dot_constant_value(g, node->inputs[i], &value))
            aq_text_printf(out, " %.4g", value);
    }
}

/* ---- summaries ---- */

/* What is told of a box: the kinds that matter most in it. */
static DotKind least_told(DotKind most)
{
    if (most >= DOT_CONTRACTION)
        return DOT_CONTRACTION;
    return most >= DOT_RANDOM ? DOT_RANDOM : most;
}

static void collect(const AqGraph *g, AqId id, DotKind least, bool once,
                    DotWords *words)
{
    const AqNode *node = aq_node(g, id);
    const AqGraph *body = aq_attr_body(node);
    for (AqId i = 0; body && i < body->count; i++)
        collect(body, i, least, once, words);
    if (body || node->op == AQ_OP_result || aq_dot_kind(g, id) < least ||
        aq_op_info[node->op].facts & AQ_SOURCE || node->n_inputs == 0)
        return;
    AqText word = {0};
    if (once)
        describe(g, id, true, &word);
    else
        aq_dot_step(g, id, &word);
    aq_dot_add_word(words, &word, once);
}

static bool lies_in(const Dot *d, AqId id, int box)
{
    return d->box[id] == box && d->twin[id] == id;
}

static void print_work(const Dot *d, AqText *out, int box)
{
    const DotBox *b = &d->boxes[box];
    bool steps =
        (b->role == DOT_CHAIN && b->kind > DOT_MOVEMENT) || b->role == DOT_OP;
    DotKind least =
        steps ? AQ_MIN(b->kind, DOT_POINTWISE) : least_told(b->kind);
    DotWords words = {0};
    for (AqId id = b->first; id < d->graph->count; id++)
        if (lies_in(d, id, box))
            collect(d->graph, id, least, !steps, &words);
    if (words.count > 0)
        aq_text_add(out, "<br/>");
    aq_dot_print_words(&words, out, steps ? MOST_BODY_LINES : MOST_LINES);
    aq_dot_free_words(&words);
}

/* 35746307 -> 35.7 M */
static void print_amount(AqText *out, double amount)
{
    static const char *const units[] = {"", " k", " M", " G", " T"};
    int unit = 0;
    for (; amount >= 999.5 && unit < AQ_COUNT(units) - 1; unit++)
        amount /= 1000;
    aq_text_printf(out, "%.3g%s", amount, units[unit]);
}

/* By which algorithms a box's kernels are computed: "5 winograd, 2 gemm". */
static void print_algorithms(const Dot *d, AqText *out, int box)
{
    enum { MOST = 8 };
    const char *name[MOST];
    int times[MOST] = {0}, count = 0;
    for (AqId id = d->boxes[box].first; id < d->graph->count; id++) {
        const char *how =
            lies_in(d, id, box)
                ? aq_attr_text(aq_node(d->graph, id), AQ_KEY_ALGORITHM, NULL)
                : NULL;
        int i = 0;
        while (how && i < count && strcmp(name[i], how) != 0)
            i++;
        if (!how || i == MOST)
            continue;
        name[i] = how;
        times[i]++;
        count = AQ_MAX(count, i + 1);
    }
    for (int i = 0; i < count; i++)
        aq_text_printf(out, "%s%d %s", i ? ", " : "<br/>", times[i], name[i]);
}

static void print_size(const Dot *d, AqText *out, int box)
{
    const DotBox *b = &d->boxes[box];
    if (b->kernels > 1)
        aq_text_printf(out, "<br/>%d kernels", b->kernels);
    else if (b->phase == DOT_UPDATE)
        aq_text_printf(out, "<br/>%d operation%s", b->nodes,
                       b->nodes == 1 ? "" : "s");
    if (b->parameters > 0) {
        aq_text_add(out, b->kernels > 1 ? ", " : "<br/>");
        print_amount(out, (double)b->parameters);
        aq_text_add(out, " parameters");
    }
    if (b->flops >= 1e6) {
        aq_text_add(out, b->parameters || b->kernels > 1 ? ", " : "<br/>");
        print_amount(out, b->flops);
        aq_text_add(out, "FLOP");
    }
    if (d->groups[b->group].times > 1 && (b->parameters || b->flops >= 1e6))
        aq_text_add(out, " each");
}

/* "about 1.23 ms, 4.1 %, 240 GFLOP/s": of the step, where that can be told. */
static void print_seconds(const Dot *d, AqText *out, int box)
{
    const DotBox *b = &d->boxes[box];
    double all = 0;
    if (b->seconds <= 0)
        return;
    for (AqId id = 0; id < d->graph->count; id++)
        all += d->options->seconds[id];
    bool small = b->seconds < 1e-3;
    aq_text_printf(out, "<br/>about %.3g %s", b->seconds * (small ? 1e6 : 1e3),
                   small ? "µs" : "ms");
    if (b->seconds >= 1e-3 * all)
        aq_text_printf(out, ", %.2g %%", 100 * b->seconds / all);
    if (b->flops >= 1e6)
        aq_text_printf(out, ", %.0f GFLOP/s", b->flops / b->seconds / 1e9);
    if (d->groups[b->group].times > 1)
        aq_text_add(out, " each");
}

/* ---- what has no edge ---- */

static void print_told(const Dot *d, AqText *out, int box, bool inwards)
{
    DotWords words = {0};
    int count = 0;
    for (int e = 0; e < d->n_edges; e++) {
        const DotEdge *edge = &d->edges[e];
        int here = inwards ? edge->to : edge->from;
        int there = inwards ? edge->from : edge->to;
        bool crossing = d->boxes[edge->from].phase == DOT_FORWARD &&
                        d->boxes[edge->to].phase == DOT_BACKWARD;
        if (here != box || !edge->told || crossing ||
            (inwards && d->boxes[box].phase == DOT_UPDATE))
            continue;
        count++;
        bool hub = inwards ? d->boxes[there].source_hub ||
                                 d->boxes[there].phase == DOT_FORWARD
                           : d->boxes[there].sink_hub &&
                                 !d->boxes[box].source_hub &&
                                 d->boxes[there].enter <= MOST_TELLING;
        AqText name = {0};
        aq_dot_name(d, &name, there);
        if (hub)
            aq_dot_add_word(&words, &name, true);
        else
            aq_text_free(&name);
    }
    bool own = inwards ? d->boxes[box].sink_hub : d->boxes[box].source_hub;
    const char *arrow = inwards ? "←" : "→";
    if (own && count > words.count)
        aq_text_printf(out, "<br/>%s %d boxes", arrow, count);
    else if (words.count > 0) {
        for (int i = 0; i < words.count; i++)
            words.times[i] = 1;
        aq_text_printf(out, "<br/>%s ", arrow);
        aq_dot_print_words(&words, out, 3);
    }
    aq_dot_free_words(&words);
}

/* What a backward box keeps of the forward, where no edge says it. */
static void print_saved(const Dot *d, AqText *out, int box)
{
    int count = 0;
    for (int e = 0; e < d->n_edges; e++) {
        const DotEdge *edge = &d->edges[e];
        if (edge->to != box || d->boxes[box].phase != DOT_BACKWARD ||
            d->boxes[edge->from].phase != DOT_FORWARD)
            continue;
        if (!edge->told)
            return;
        count += AQ_MAX(edge->tensors, 1);
    }
    if (count > 0)
        aq_text_printf(out, "<br/>← %d of the forward", count);
}

/* Outputs and updates that no box stands for. */
static void print_written(const Dot *d, AqText *out, int box)
{
    DotWords updates = {0}, outputs = {0};
    for (int i = 0; i < d->graph->n_outputs; i++) {
        const AqOutput *o = &d->graph->outputs[i];
        AqText name = {0};
        bool sink = d->boxes[box].phase == DOT_FORWARD && !o->update;
        if (d->box[d->twin[o->node]] != box || sink)
            continue;
        aq_text_add(&name, o->name);
        aq_dot_add_word(o->update ? &updates : &outputs, &name, true);
    }
    if (updates.count > 0)
        aq_text_add(out, "<br/>updates ");
    aq_dot_print_words(&updates, out, 3);
    if (outputs.count > 0)
        aq_text_add(out, "<br/>gives ");
    aq_dot_print_words(&outputs, out, 3);
    aq_dot_free_words(&updates);
    aq_dot_free_words(&outputs);
}

/* ---- names ---- */

bool aq_dot_has_cluster(const Dot *d, int group)
{
    const DotGroup *g = &d->groups[group];
    return g->depth >= d->base && g->depth < d->base + d->depth &&
           d->under[group] > 1 && *g->name && !d->torn[group];
}

/* The scope without those of the clusters around it. */
static const char *relative_name(const Dot *d, int group)
{
    const DotGroup *g = &d->groups[group];
    for (int p = g->parent; p != DOT_NOWHERE; p = d->groups[p].parent)
        if (aq_dot_has_cluster(d, p))
            return g->scope + strlen(d->groups[p].scope) + 1;
    return g->scope;
}

void aq_dot_group_name(const Dot *d, AqText *out, int group)
{
    static const char *const columns[] = {"forward", "backward", "update"};
    const DotGroup *g = &d->groups[group];
    const char *name = relative_name(d, group);
    aq_dot_escape(out, *name ? name : columns[g->phase]);
    if (g->times < 2)
        return;
    size_t same = 0;
    while (g->last[same] && g->last[same] == g->name[same])
        same++;
    while (same > 0 && g->last[same - 1] != '.')
        same--;
    aq_text_add(out, "–");
    aq_dot_escape(out, g->last + same);
    aq_text_printf(out, " ×%d", g->times);
}

void aq_dot_name(const Dot *d, AqText *out, int box)
{
    const DotBox *b = &d->boxes[box];
    if (b->role == DOT_SINK)
        aq_text_add(out, d->graph->outputs[b->first].name);
    else if (b->role == DOT_SOURCE)
        aq_text_add(out, aq_attr_text(aq_node(d->graph, b->first), AQ_KEY_NAME,
                                      "argument"));
    else if (*d->groups[b->group].scope)
        aq_text_add(out, d->groups[b->group].scope);
    else
        aq_text_add(out, aq_op_info[aq_node(d->graph, b->first)->op].name);
}

/* ---- labels ---- */

/* The parameters that a node reads, directly or through a reshape. */
static void collect_parameters(const Dot *d, AqId id, DotWords *words)
{
    const AqNode *node = aq_node(d->graph, id);
    for (int i = 0; i < node->n_inputs; i++) {
        const AqNode *in = aq_node(d->graph, node->inputs[i]);
        AqText word = {0};
        if (in->op != AQ_OP_param)
            continue;
        const char *name = aq_attr_text(in, AQ_KEY_NAME, "");
        const char *dot = strrchr(name, '.');
        aq_text_printf(&word, "%s ", dot ? dot + 1 : name);
        aq_dot_shape(d, &word, &in->type);
        aq_dot_add_word(words, &word, true);
    }
}

static void print_parameters(const Dot *d, AqText *out, int box)
{
    DotWords words = {0};
    for (AqId id = d->boxes[box].first; id < d->graph->count; id++)
        if (lies_in(d, id, box))
            collect_parameters(d, id, &words);
    for (int i = 0; i < words.count; i++)
        words.times[i] = 1;
    if (words.count > 0)
        aq_text_add(out, "<br/>");
    aq_dot_print_words(&words, out, MOST_TOLD_LINES);
    aq_dot_free_words(&words);
}

static void print_title(const Dot *d, AqText *out, int box)
{
    const DotBox *b = &d->boxes[box];
    const AqNode *node = aq_node(d->graph, b->role == DOT_SINK ? 0 : b->first);
    AqText text = {0};
    if (b->role == DOT_WHOLE ||
        (b->role == DOT_OWN && d->groups[b->group].depth > 0 &&
         !aq_dot_has_cluster(d, b->group))) {
        aq_dot_group_name(d, out, b->group);
        return;
    }
    if (b->role == DOT_OP && node->op == AQ_OP_kernel)
        aq_text_printf(&text, "%s %s",
                       aq_attr_text(node, AQ_KEY_KIND, "kernel"),
                       aq_attr_text(node, AQ_KEY_ALGORITHM, ""));
    else if (b->role == DOT_OP)
        describe(d->graph, b->first, false, &text);
    else if (b->role >= DOT_SOURCE)
        aq_dot_name(d, &text, box);
    aq_dot_escape(out, text.data ? text.data : "");
    aq_text_free(&text);
}

/* One line after another, each begun by <br/>. */
static void print_details(const Dot *d, AqText *out, int box)
{
    const DotBox *b = &d->boxes[box];
    const AqNode *node = aq_node(d->graph, b->role == DOT_SINK ? 0 : b->first);
    bool kernel = b->role == DOT_OP && node->op == AQ_OP_kernel;
    if (b->role == DOT_SOURCE) {
        aq_text_add(out, "<br/>");
        aq_dot_shape(d, out, &node->type);
    }
    if (b->role >= DOT_SOURCE)
        return;
    if ((b->role != DOT_OP || (kernel && !aq_dot_has_body(d, box))) &&
        (b->phase != DOT_UPDATE || b->role > DOT_OWN))
        print_work(d, out, box);
    if (b->role == DOT_WHOLE || b->role == DOT_OWN) {
        print_algorithms(d, out, box);
        print_size(d, out, box);
    } else
        print_parameters(d, out, box);
    print_seconds(d, out, box);
    print_told(d, out, box, true);
    print_saved(d, out, box);
    print_told(d, out, box, false);
    print_written(d, out, box);
}

void aq_dot_label(const Dot *d, AqText *out, int box)
{
    const size_t line_break = strlen("<br/>");
    AqText title = {0}, details = {0};
    print_title(d, &title, box);
    print_details(d, &details, box);
    if (title.length > 0)
        aq_text_printf(out, "<b>%s</b>", title.data);
    if (details.length > line_break)
        aq_text_printf(out, "%s<font point-size=\"9\">%s</font>",
                       title.length > 0 ? "<br/>" : "",
                       details.data + line_break);
    if (!title.length && !details.length)
        aq_text_add(
            out, aq_op_info[aq_node(d->graph, d->boxes[box].first)->op].name);
    aq_text_free(&title);
    aq_text_free(&details);
}
