/* Two graphs that should compute the same, held against each other on random
 * data: `--verify-passes`.
 *
 * A source's data is a function of the seed and its name, so both graphs see
 * the same whatever their order.  Integers that end as an index of gather or
 * scatter_add stay within the table; if arithmetic on them still leaves it, all
 * integers become ones, then zeros. */
#include "ir/ir.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { SMALL = 16 }; /* integers that index nothing are below this */

typedef struct Source {
    const AqNode *node;
    const char *name;
    int64_t limit; /* of an i32: its values are 0 .. limit - 1 */
    double *data;
} Source;

typedef struct Comparison {
    AqArena *arena;
    Source *sources;
    int n_sources;
    AqBinding *bindings;
    double *weights;
    int64_t weights_count; /* 0: no param lies in `weights` */
    uint64_t seed;
    AqError *error;
} Comparison;

/* ---- which integers are indices ---- */

static void narrow(int64_t *limit, AqId id, int64_t bound)
{
    limit[id] = AQ_MIN(limit[id], bound);
}

/* How far the integers of each node may go, so that every index that is made
 * of them by moving, choosing or doing nothing is inside its table.  `limit`
 * has graph->count places. */
static void limit_indices(const AqGraph *graph, int64_t *limit)
{
    for (AqId id = 0; id < graph->count; id++)
        limit[id] = INT64_MAX;
    for (AqId id = graph->count - 1; id >= 0; id--) {
        const AqNode *node = aq_node(graph, id);
        if (node->op == AQ_OP_gather)
            narrow(limit, node->inputs[1],
                   aq_node(graph, node->inputs[0])->type.dim[0]);
        if (node->op == AQ_OP_scatter_add)
            narrow(limit, node->inputs[0], node->type.dim[0]);
        bool passes = aq_op_info[node->op].facts & (AQ_MOVES | AQ_POINTWISE);
        for (int i = 0; passes && i < node->n_inputs; i++)
            narrow(limit, node->inputs[i], limit[id]);
    }
}

/* The same inside kernels, seen from their inputs. */
static void limit_through_kernels(const AqGraph *graph, int64_t *limit,
                                  AqArena *arena)
{
    limit_indices(graph, limit);
    for (AqId id = graph->count - 1; id >= 0; id--) {
        const AqNode *node = aq_node(graph, id);
        if (node->op != AQ_OP_kernel)
            continue;
        const AqGraph *body = aq_attr_body(node);
        int64_t *inside = AQ_NEW_ARRAY(arena, int64_t, body->count);
        if (!inside)
            return; /* the next allocation will say so */
        limit_indices(body, inside);
        for (AqId arg = 0; arg < body->count; arg++)
            if (aq_node(body, arg)->op == AQ_OP_arg)
                narrow(limit,
                       node->inputs[aq_attr_int(aq_node(body, arg),
                                                AQ_KEY_INDEX, 0)],
                       inside[arg]);
    }
}

/* ---- sources ---- */

static bool is_bound(const AqNode *node)
{
    return aq_op_info[node->op].facts & AQ_SOURCE && node->op != AQ_OP_arg;
}

static Source *source_named(const Comparison *c, const char *name)
{
    for (int i = 0; i < c->n_sources; i++)
        if (!strcmp(c->sources[i].name, name))
            return &c->sources[i];
    return NULL;
}

static bool add_source(Comparison *c, const AqNode *node, int64_t limit)
{
    const char *name = aq_attr_text(node, AQ_KEY_NAME, "");
    Source *source = source_named(c, name);
    if (!source) {
        source = &c->sources[c->n_sources++];
        *source = (Source){.node = node, .name = name, .limit = INT64_MAX};
    }
    source->limit = AQ_MIN(source->limit, limit);
    if (!aq_same_type(&source->node->type, &node->type)) {
        aq_fail(c->error, AQ_INTERNAL, "the source '%s' changed its type",
                name);
        return false;
    }
    int64_t count = aq_elements(&node->type);
    const AqAttr *offset = aq_attr(node, AQ_KEY_OFFSET);
    if (offset)
        c->weights_count = AQ_MAX(c->weights_count, offset->integer + count);
    if (!strcmp(name, "weights"))
        c->weights_count = AQ_MAX(c->weights_count, count);
    return true;
}

static bool collect(Comparison *c, const AqGraph *graph)
{
    int64_t *limit = AQ_NEW_ARRAY(c->arena, int64_t, graph->count);
    if (!limit) {
        aq_no_memory(c->error, (size_t)graph->count * sizeof *limit);
        return false;
    }
    limit_through_kernels(graph, limit, c->arena);
    for (AqId id = 0; id < graph->count; id++)
        if (is_bound(aq_node(graph, id)) &&
            !add_source(c, aq_node(graph, id), limit[id]))
            return false;
    return true;
}

/* ---- data ---- */

typedef struct Draw {
    uint32_t key[2], stream;
} Draw;

static Draw draw_for(const Comparison *c, const char *name)
{
    return (Draw){.key = {(uint32_t)c->seed, (uint32_t)(c->seed >> 32)},
                  .stream = (uint32_t)aq_hash64(name, strlen(name))};
}

static double normal(const Draw *draw, int64_t i)
{
    return aq_random_normal(draw->key, 0, draw->stream, (uint32_t)(i >> 32),
                            (uint32_t)i);
}

static double uniform(const Draw *draw, int64_t i)
{
    return aq_random_uniform(draw->key, 0, draw->stream, (uint32_t)(i >> 32),
                             (uint32_t)i);
}

/* Much as in a run: params small or near one, states (second moments) and
 * single numbers (rates) positive. */
static double real_value(const Source *source, const Draw *draw, int64_t i)
{
    const AqNode *node = source->node;
    bool ones = !strcmp(aq_attr_text(node, AQ_KEY_INIT, ""), "ones");
    if (node->op == AQ_OP_param)
        return (ones ? 1 : 0) + 0.1 * normal(draw, i);
    if (node->op == AQ_OP_state || node->type.rank == 0)
        return 0.05 + 0.95 * uniform(draw, i);
    return normal(draw, i);
}

/* `constant` >= 0 replaces every integer. */
static void fill(const Comparison *c, Source *source, int constant)
{
    Draw draw = draw_for(c, source->name);
    int64_t count = aq_elements(&source->node->type);
    bool whole = source->node->type.element == AQ_I32;
    int64_t limit = source->limit == INT64_MAX ? SMALL : source->limit;
    for (int64_t i = 0; i < count; i++)
        source->data[i] = !whole ? real_value(source, &draw, i)
                          : constant >= 0
                              ? constant
                              : floor(uniform(&draw, i) * (double)limit);
}

/* Params with an offset, and a state called weights, share one array. */
static double *place_of(Comparison *c, const Source *source)
{
    const AqAttr *offset = aq_attr(source->node, AQ_KEY_OFFSET);
    if (offset)
        return c->weights + offset->integer;
    if (!strcmp(source->name, "weights"))
        return c->weights;
    return AQ_NEW_ARRAY(c->arena, double, aq_elements(&source->node->type));
}

static bool bind_all(Comparison *c)
{
    c->bindings = AQ_NEW_ARRAY(c->arena, AqBinding, c->n_sources + 1);
    c->weights = AQ_NEW_ARRAY(c->arena, double, c->weights_count);
    bool failed = !c->bindings || !c->weights;
    for (int i = 0; i < c->n_sources && !failed; i++) {
        Source *source = &c->sources[i];
        source->data = place_of(c, source);
        failed = !source->data;
        c->bindings[i] =
            (AqBinding){.name = source->name, .data = source->data};
    }
    if (failed) {
        aq_no_memory(c->error, (size_t)c->weights_count * sizeof(double));
        return false;
    }
    c->bindings[c->n_sources] =
        (AqBinding){.name = "weights", .data = c->weights};
    return true;
}

static void fill_all(Comparison *c, int constant)
{
    Source *whole = source_named(c, "weights");
    if (whole) /* first: the params lie over it */
        fill(c, whole, constant);
    for (int i = 0; i < c->n_sources; i++)
        if (&c->sources[i] != whole)
            fill(c, &c->sources[i], constant);
}

/* ---- the comparison ---- */

static AqValue *evaluate(Comparison *c, const AqGraph *graph, AqError *error)
{
    AqValue *values = AQ_NEW_ARRAY(c->arena, AqValue, graph->n_outputs);
    if (!values)
        aq_no_memory(error, (size_t)graph->n_outputs * sizeof *values);
    else
        aq_interpret(graph, c->bindings, c->n_sources + 1, values, c->arena,
                     error);
    return error->status == AQ_OK ? values : NULL;
}

/* Data on which `before` can be evaluated. */
static AqValue *evaluate_first(Comparison *c, const AqGraph *before)
{
    AqError first = {.status = AQ_OK};
    const int constants[] = {-1, 1, 0};
    for (int i = 0; i < AQ_COUNT(constants); i++) {
        AqError error = {.status = AQ_OK};
        fill_all(c, constants[i]);
        AqValue *values = evaluate(c, before, &error);
        if (values)
            return values;
        if (i == 0)
            first = error;
        if (error.status != AQ_BAD_INPUT)
            break;
    }
    aq_fail(c->error, first.status, "%s", first.text);
    return NULL;
}

static bool same_values(Comparison *c, const char *name, const AqValue *before,
                        const AqValue *after, double tolerance)
{
    int64_t count = aq_elements(&before->type);
    double scale = 1e-3; /* what is nothing but rounding has no scale */
    for (int64_t i = 0; i < count; i++)
        if (isfinite(before->data[i]))
            scale = AQ_MAX(scale, fabs(before->data[i]));
    for (int64_t i = 0; i < count; i++) {
        double a = before->data[i], b = after->data[i];
        if (a == b || (isnan(a) && isnan(b)) ||
            fabs(a - b) <= tolerance * scale)
            continue;
        aq_fail(c->error, AQ_INTERNAL,
                "output '%s': element %lld was %.12g and became %.12g (the "
                "largest is %.6g, seed %llu)",
                name, (long long)i, a, b, scale, (unsigned long long)c->seed);
        return false;
    }
    return true;
}

static int output_like(const AqGraph *graph, const AqOutput *wanted)
{
    for (int i = 0; i < graph->n_outputs; i++)
        if (!strcmp(graph->outputs[i].name, wanted->name) &&
            graph->outputs[i].update == wanted->update)
            return i;
    return -1;
}

static void compare_outputs(Comparison *c, const AqGraph *before,
                            const AqGraph *after, const AqValue *first,
                            const AqValue *second, double tolerance)
{
    if (before->n_outputs != after->n_outputs)
        aq_fail(c->error, AQ_INTERNAL, "%d outputs became %d",
                before->n_outputs, after->n_outputs);
    for (int i = 0; i < before->n_outputs; i++) {
        const AqOutput *output = &before->outputs[i];
        int j = output_like(after, output);
        if (j < 0)
            aq_fail(c->error, AQ_INTERNAL, "%s '%s' was lost",
                    output->update ? "the update of" : "output", output->name);
        else if (!aq_same_type(&first[i].type, &second[j].type))
            aq_fail(c->error, AQ_INTERNAL, "output '%s' changed its type",
                    output->name);
        else
            same_values(c, output->name, &first[i], &second[j], tolerance);
    }
}

AqStatus aq_compare_graphs(const AqGraph *before, const AqGraph *after,
                           uint64_t seed, double tolerance, AqError *error)
{
    AqError own = {.status = AQ_OK};
    Comparison c = {
        .arena = aq_arena_new(), .seed = seed, .error = error ? error : &own};
    if (!c.arena)
        return aq_no_memory(c.error, sizeof(void *));
    int most = before->count + after->count;
    c.sources = AQ_NEW_ARRAY(c.arena, Source, most);
    if (!c.sources)
        aq_no_memory(c.error, (size_t)most * sizeof(Source));
    else if (collect(&c, before) && collect(&c, after) && bind_all(&c)) {
        AqValue *first = evaluate_first(&c, before);
        AqValue *second = first ? evaluate(&c, after, c.error) : NULL;
        if (second)
            compare_outputs(&c, before, after, first, second, tolerance);
    }
    aq_arena_free(c.arena);
    return c.error->status;
}
