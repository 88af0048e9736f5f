/* A program that is run again and again, split into what is computed once and
 * what is computed in every run.
 *
 * Of what stays the same from run to run, and of the run's number, other values
 * follow: keys and values of a prompt, embeddings of timesteps, a sampler's
 * coefficients.  They are computed by `prepare`, once, those of the number for
 * all numbers in one batch (hoist_lift.c), and kept in states; the step reads
 * them, by its number.  Random draws stay in the step, and so does all that
 * depends on them or on what changes.
 *
 * What is kept.  Going back from what the step computes, a value is kept if
 *   - it is not only moved, nor larger than all that it is made of together,
 *   - it is worth it: at least WORTH operations stand behind each element,
 *   - it is not too large: for all numbers together at most SMALL bytes, or
 *     MANY times the arrays that it is made of.
 * Otherwise the step computes it, and the question is asked of its inputs.
 * Keeps: values of outputs, up to the order of a product's sums. */
#include "passes/hoist.h"

#include <string.h>

enum {
    WORTH = 4,       /* operations an element */
    EXPENSIVE = 10,  /* of an exponential, in plain operations */
    LOOK_UP = 4,     /* of an element that is looked up */
    SMALL = 1 << 20, /* bytes */
    MANY = 4,        /* times the arrays that are read */
};

static const char prefix[] = AQ_HOISTED;

typedef struct Hoist {
    const AqGraph *in;
    const AqRepeat *repeat;
    AqGraph *step;
    AqLift lift;
    AqArena *arena; /* freed with the pass */
    bool *live;
    AqId number; /* AQ_NO_NODE: the graph does not read it */
    bool *needed, *kept;
    AqId *map;    /* into the step */
    int *visited; /* by cones */
    int stamp;
    AqHoisted *result;
    AqError *error;
} Hoist;

static const AqNode *node_of(const Hoist *h, AqId id)
{
    return aq_node(h->in, id);
}

static bool is_hoistable(const Hoist *h, AqId id)
{
    return h->lift.values[id].id != AQ_NO_NODE;
}

/* ---- which values depend on nothing that changes ---- */

static bool is_fixed(const Hoist *h, const AqNode *node)
{
    const char *name = node->op == AQ_OP_param
                           ? "weights"
                           : aq_attr_text(node, AQ_KEY_NAME, "");
    for (int i = 0; i < h->repeat->n_fixed; i++)
        if (!strcmp(h->repeat->fixed[i], name))
            return true;
    return false;
}

static bool is_number(const Hoist *h, const AqNode *node)
{
    return h->repeat->number && node->op == AQ_OP_input &&
           !strcmp(h->repeat->number, aq_attr_text(node, AQ_KEY_NAME, ""));
}

static void lift_source(Hoist *h, AqId id)
{
    const AqNode *node = node_of(h, id);
    AqGraph *out = h->lift.out;
    aq_graph_place(out, node);
    if (is_number(h, node)) {
        AqType all = aq_type(AQ_I32, 1, &h->lift.numbers);
        h->lift.values[id] =
            (AqLifted){.id = aq_iota_node(out, &all, 0), .all = true};
        h->number = id;
    } else if (is_fixed(h, node)) {
        h->lift.values[id].id = aq_graph_copy_node(out, h->in, id, NULL);
    }
}

static void lift_all(Hoist *h)
{
    for (AqId id = 0; id < h->in->count; id++) {
        const AqNode *node = node_of(h, id);
        h->lift.values[id].id = AQ_NO_NODE;
        if (!h->live[id] || node->op == AQ_OP_random ||
            node->op == AQ_OP_kernel || node->copy)
            continue;
        bool whole = true;
        for (int i = 0; i < node->n_inputs; i++)
            whole = whole && is_hoistable(h, node->inputs[i]);
        if (aq_op_info[node->op].facts & AQ_SOURCE)
            lift_source(h, id);
        else if (whole)
            aq_lift_node(&h->lift, id);
    }
}

/* ---- which of them are kept ---- */

/* Of one number, as it is kept: elements. */
static double row(const Hoist *h, AqId id)
{
    AqType narrow =
        aq_lift_narrow(&node_of(h, id)->type, h->lift.values[id].equal);
    return (double)aq_elements(&narrow);
}

/* What computing a value takes, all that stands before it included. */
typedef struct Cone {
    double operations, bytes; /* of one number; of sources */
} Cone;

static double elements_of_inputs(const Hoist *h, const AqNode *node)
{
    double sum = 0;
    for (int i = 0; i < node->n_inputs; i++)
        if (node_of(h, node->inputs[i])->type.element != AQ_RESULTS)
            sum += row(h, node->inputs[i]);
    return sum;
}

static double own_operations(const Hoist *h, AqId id)
{
    const AqNode *node = node_of(h, id);
    unsigned facts = aq_op_info[node->op].facts;
    double flops = aq_node_flops(h->in, id);
    if (flops > 0)
        return flops;
    if (node->n_inputs == 0 || facts & AQ_MOVES || node->op == AQ_OP_result)
        return 0;
    if (node->op == AQ_OP_gather)
        return LOOK_UP * row(h, id);
    if (facts & AQ_POINTWISE)
        return facts & AQ_EXPENSIVE ? EXPENSIVE * row(h, id) : row(h, id);
    return elements_of_inputs(h, node);
}

static void add_cone(Hoist *h, AqId id, Cone *cone)
{
    const AqNode *node = node_of(h, id);
    if (h->visited[id] == h->stamp)
        return;
    h->visited[id] = h->stamp;
    if (aq_op_info[node->op].facts & AQ_SOURCE)
        cone->bytes += (double)aq_bytes(&node->type);
    cone->operations += own_operations(h, id);
    for (int i = 0; i < node->n_inputs; i++)
        add_cone(h, node->inputs[i], cone);
}

static bool is_worth_keeping(Hoist *h, AqId id)
{
    const AqNode *node = node_of(h, id);
    unsigned facts = aq_op_info[node->op].facts;
    double elements = row(h, id), numbers = (double)h->lift.numbers;
    if (node->type.element == AQ_RESULTS || facts & (AQ_MOVES | AQ_SOURCE))
        return false;
    if (facts & AQ_POINTWISE && elements > elements_of_inputs(h, node))
        return false;
    Cone cone = {0};
    h->stamp++;
    add_cone(h, id, &cone);
    double bytes = 4 * elements * (h->lift.values[id].all ? numbers : 1);
    return cone.operations >= WORTH * elements &&
           bytes <= AQ_MAX((double)SMALL, MANY * cone.bytes);
}

static void decide(Hoist *h)
{
    for (int i = 0; i < h->in->n_outputs; i++)
        h->needed[h->in->outputs[i].node] = true;
    for (AqId id = h->in->count; id-- > 0;) {
        const AqNode *node = node_of(h, id);
        if (node->op == AQ_OP_state) /* its update may be all that is left */
            h->needed[id] = h->live[id];
        if (!h->needed[id])
            continue;
        h->kept[id] = is_hoistable(h, id) && is_worth_keeping(h, id);
        for (int i = 0; !h->kept[id] && i < node->n_inputs; i++)
            h->needed[node->inputs[i]] = true;
    }
}

/* ---- the two graphs ---- */

static AqId state_node(AqGraph *g, const char *name, const AqType *type)
{
    AqAttr attr = aq_text(AQ_KEY_NAME, name);
    return aq_build(g, AQ_OP_state, type, NULL, 0, &attr, 1);
}

/* The step's number, which it may not have read before. */
static AqId number_node(Hoist *h)
{
    if (h->map[h->number] == AQ_NO_NODE)
        h->map[h->number] =
            aq_graph_copy_node(h->step, h->in, h->number, h->map);
    return h->map[h->number];
}

/* A kept value: written by `prepare`, read by the step. */
static AqId keep(Hoist *h, AqId id)
{
    AqHoisted *r = h->result;
    AqLifted v = h->lift.values[id];
    const char *name =
        aq_arena_printf(h->step->arena, "%s%d", prefix, r->n_kept++);
    AqGraph *prepare = h->lift.out, *g = h->step;
    if (!name || prepare->error.status)
        return AQ_NO_NODE;
    AqType type = aq_node(prepare, v.id)->type;
    aq_graph_place(prepare, node_of(h, id));
    aq_graph_place(g, node_of(h, id));
    state_node(prepare, name, &type);
    aq_graph_output(prepare, name, v.id, true);
    AqId x = state_node(g, name, &type);
    if (v.all) {
        AqId inputs[] = {x, number_node(h)};
        x = aq_build(g, AQ_OP_gather, NULL, inputs, 2, NULL, 0);
    } else {
        r->fixed[r->n_fixed++] = name;
    }
    type = node_of(h, id)->type;
    return aq_broadcast_node(g, x, type.rank, type.dim);
}

static AqStatus build_step(Hoist *h)
{
    for (AqId id = 0; id < h->in->count; id++)
        h->map[id] = AQ_NO_NODE;
    for (AqId id = 0; id < h->in->count && !h->step->error.status; id++) {
        if (!h->needed[id] || h->map[id] != AQ_NO_NODE)
            continue;
        h->map[id] = h->kept[id]
                         ? keep(h, id)
                         : aq_graph_copy_node(h->step, h->in, id, h->map);
    }
    for (int i = 0; i < h->in->n_outputs && !h->step->error.status; i++) {
        const AqOutput *o = &h->in->outputs[i];
        aq_graph_output(h->step, o->name, h->map[o->node], o->update);
    }
    const AqGraph *prepare = h->lift.out;
    const AqError *wrong =
        h->step->error.status ? &h->step->error : &prepare->error;
    if (wrong->status)
        return aq_fail(h->error, wrong->status, "%s", wrong->text);
    return h->error->status;
}

/* ---- what was asked for ---- */

static AqStatus check_number(const Hoist *h)
{
    const AqRepeat *r = h->repeat;
    if (!r->number)
        return AQ_OK;
    if (r->numbers < 1)
        return aq_fail(h->error, AQ_BAD_INPUT,
                       "%d runs: there must be one at least", r->numbers);
    for (AqId id = 0; id < h->in->count; id++) {
        const AqNode *node = node_of(h, id);
        bool good = node->op == AQ_OP_input && node->type.element == AQ_I32 &&
                    node->type.rank == 0;
        if (!good && aq_op_info[node->op].facts & AQ_SOURCE &&
            !strcmp(aq_attr_text(node, AQ_KEY_NAME, ""), r->number))
            return aq_fail(h->error, AQ_BAD_INPUT,
                           "the run's number \"%s\" must be one integer that "
                           "every run is given",
                           r->number);
    }
    return AQ_OK;
}

static bool is_updated(const Hoist *h, const char *name)
{
    for (int i = 0; i < h->in->n_outputs; i++)
        if (h->in->outputs[i].update && !strcmp(h->in->outputs[i].name, name))
            return true;
    return false;
}

static bool is_source(const Hoist *h, const char *name)
{
    if (!strcmp(name, "weights"))
        return true;
    for (AqId id = 0; id < h->in->count; id++) {
        const AqNode *node = node_of(h, id);
        if (aq_op_info[node->op].facts & AQ_SOURCE &&
            !strcmp(aq_attr_text(node, AQ_KEY_NAME, ""), name))
            return true;
    }
    return false;
}

static AqStatus check(const Hoist *h)
{
    const AqRepeat *r = h->repeat;
    for (int i = 0; i < r->n_fixed; i++) {
        if (!is_source(h, r->fixed[i]))
            return aq_fail(h->error, AQ_BAD_INPUT,
                           "there is no input or state \"%s\" to be fixed",
                           r->fixed[i]);
        if (is_updated(h, r->fixed[i]))
            return aq_fail(h->error, AQ_BAD_INPUT,
                           "\"%s\" cannot be fixed: every run updates it",
                           r->fixed[i]);
    }
    if (r->number && !is_source(h, r->number))
        return aq_fail(h->error, AQ_BAD_INPUT,
                       "there is no input \"%s\" to be the run's number",
                       r->number);
    for (AqId id = 0; id < h->in->count; id++) {
        const char *name = aq_attr_text(node_of(h, id), AQ_KEY_NAME, "");
        if (!strncmp(name, prefix, sizeof prefix - 1))
            return aq_fail(h->error, AQ_BAD_INPUT,
                           "the name \"%s\" is taken: names that begin with "
                           "\"%s\" are those of hoisted values",
                           name, prefix);
    }
    return check_number(h);
}

static bool reserve(Hoist *h)
{
    size_t count = (size_t)h->in->count + 1;
    AqHoisted *r = h->result;
    h->live = AQ_NEW_ARRAY(h->arena, bool, count);
    h->needed = AQ_NEW_ARRAY(h->arena, bool, count);
    h->kept = AQ_NEW_ARRAY(h->arena, bool, count);
    h->map = AQ_NEW_ARRAY(h->arena, AqId, count);
    h->visited = AQ_NEW_ARRAY(h->arena, int, count);
    h->lift.values = AQ_NEW_ARRAY(h->arena, AqLifted, count);
    r->prepare = h->lift.out = aq_graph_new();
    r->step = h->step = aq_graph_new();
    if (!r->prepare || !r->step)
        return false;
    r->fixed = AQ_NEW_ARRAY(r->step->arena, const char *,
                            count + (size_t)h->repeat->n_fixed);
    for (int i = 0; r->fixed && i < h->repeat->n_fixed; i++)
        r->fixed[r->n_fixed++] =
            aq_arena_copy_text(r->step->arena, h->repeat->fixed[i]);
    return h->live && h->needed && h->kept && h->map && h->visited &&
           h->lift.values && r->fixed;
}

static void hoist(Hoist *h)
{
    if (check(h))
        return;
    if (!reserve(h)) {
        aq_no_memory(h->error, (size_t)h->in->count * sizeof(AqLifted));
        return;
    }
    aq_mark_live(h->in, h->live);
    lift_all(h);
    decide(h);
    build_step(h);
}

AqStatus aq_hoist(const AqGraph *in, const AqRepeat *repeat, AqHoisted *result,
                  AqError *error)
{
    *result = (AqHoisted){0};
    Hoist h = {.in = in,
               .repeat = repeat,
               .lift = {.in = in, .numbers = AQ_MAX(repeat->numbers, 1)},
               .arena = aq_arena_new(),
               .number = AQ_NO_NODE,
               .result = result,
               .error = error};
    if (h.arena)
        hoist(&h);
    else
        aq_no_memory(error, sizeof h);
    aq_arena_free(h.arena);
    if (error->status)
        aq_hoisted_free(result);
    return error->status;
}

void aq_hoisted_free(AqHoisted *hoisted)
{
    aq_graph_free(hoisted->prepare);
    aq_graph_free(hoisted->step);
    *hoisted = (AqHoisted){0};
}
