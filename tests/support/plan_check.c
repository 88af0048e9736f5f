#include "tests/support/plan_check.h"

#include <math.h>
#include <setjmp.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "codegen/codegen.h"
#include "tests/support/bench.h"
#include "tests/support/models.h"

/* owners that are no values */
enum { OLD = -1, NOTHING = -2, WORKSPACE = -3, KEPT = -4 };

typedef struct Memory {
    double *data; /* one for each word of four bytes */
    AqId *owner;
    int64_t words;
} Memory;

typedef struct Run {
    AqGraph *g; /* of kernels */
    AqPlan *plan;
    AqArena *arena;
    Memory *bases;
    AqBinding *bindings; /* of bases 1 .. n_bases-1 */
    uint64_t seed, random;
} Run;

/* ---- a graph and its plan ---- */

AqNeeds *aq_test_needs(const AqGraph *g, bool invented)
{
    AqError error = {0};
    AqTarget target = aq_test_target(3);
    AqNeeds *needs = calloc((size_t)g->count + 1, sizeof *needs);
    for (AqId id = 0; id < g->count; id++) {
        AqKernelLayout layout;
        if (aq_node(g, id)->op != AQ_OP_kernel)
            continue;
        needs[id].workspace = id % 3 ? 40 * (id % 7) : 0;
        needs[id].kept = invented && id % 4 ? 24 * (id % 5) : 0;
        needs[id].keep = needs[id].kept > 0 && id % 2;
        if (!invented && aq_kernel_layout(g, id, &target, &layout, &error))
            fail_msg("%s", error.text);
        if (!invented) {
            needs[id].workspace = layout.workspace;
            needs[id].kept = layout.kept;
        }
    }
    return needs;
}

static Run new_run(const AqGraph *g, uint64_t seed)
{
    AqError error = {0};
    Run r = {.g = aq_test_kernels(g, 3),
             .arena = aq_arena_new(),
             .seed = seed,
             .random = seed};
    AqNeeds *needs = aq_test_needs(r.g, true);
    r.plan = aq_plan(r.g, needs, &error);
    if (!r.plan)
        fail_msg("seed %llu: %s", (unsigned long long)seed, error.text);
    free(needs);
    return r;
}

static void free_run(Run *r)
{
    aq_plan_free(r->plan);
    aq_graph_free(r->g);
    aq_arena_free(r->arena);
}

/* ---- memory ---- */

static AqElement element_of_base(const Run *r, const char *name)
{
    for (AqId id = 0; id < r->g->count; id++) {
        const AqNode *node = aq_node(r->g, id);
        if (aq_op_info[node->op].facts & AQ_SOURCE &&
            !strcmp(aq_attr_text(node, AQ_KEY_NAME, ""), name))
            return node->type.element;
    }
    return AQ_F32;
}

static double start_value(Run *r, const char *name, AqElement element)
{
    if (element == AQ_I32)
        return (double)aq_test_below(&r->random, 10);
    double normal = aq_test_normal(&r->random);
    if (!strcmp(name, "v")) /* a mean of squares */
        return normal * normal;
    return strcmp(name, "weights") ? normal : 0.1 * normal;
}

/* The arena begins as NaN; the other bases hold what the interpreter of the
 * whole graph is given as well. */
static void make_memory(Run *r)
{
    int n = r->plan->n_bases;
    r->bases = AQ_NEW_ARRAY(r->arena, Memory, n);
    r->bindings = AQ_NEW_ARRAY(r->arena, AqBinding, n);
    for (int b = 0; b < n; b++) {
        const AqBase *base = &r->plan->bases[b];
        Memory *m = &r->bases[b];
        m->words = base->bytes / 4;
        m->data = AQ_NEW_ARRAY(r->arena, double, m->words + 1);
        m->owner = AQ_NEW_ARRAY(r->arena, AqId, m->words + 1);
        AqElement element = element_of_base(r, base->name);
        for (int64_t i = 0; i < m->words; i++) {
            m->data[i] = b ? start_value(r, base->name, element) : NAN;
            m->owner[i] = b ? OLD : NOTHING;
        }
        double *copy = aq_arena_copy(r->arena, m->data,
                                     (size_t)m->words * sizeof(double) + 8);
        r->bindings[b] = (AqBinding){base->name, copy};
    }
}

static double *place_of(const Run *r, AqBuffer buffer, int64_t bytes)
{
    const Memory *m = &r->bases[buffer.base];
    assert_int_equal(buffer.offset % 4, 0);
    assert_true(buffer.offset >= 0 && buffer.offset + bytes <= 4 * m->words);
    return m->data + buffer.offset / 4;
}

static void own(Run *r, AqBuffer buffer, int64_t bytes, AqId owner)
{
    for (int64_t i = 0; i < bytes / 4; i++)
        r->bases[buffer.base].owner[buffer.offset / 4 + i] = owner;
}

/* Who must have written element i of a value. */
static AqId owner_of(const Run *r, AqId id, int64_t i)
{
    const AqNode *node = aq_node(r->g, id);
    if (node->op == AQ_OP_reshape)
        return owner_of(r, node->inputs[0], i);
    if (node->op == AQ_OP_result)
        return id;
    if (node->op != AQ_OP_concat)
        return OLD;
    for (int k = 0; k < node->n_inputs; k++) {
        int64_t size = aq_elements(&aq_node(r->g, node->inputs[k])->type);
        if (i < size)
            return owner_of(r, node->inputs[k], i);
        i -= size;
    }
    fail_msg("%%%d: an element beyond its concat", (int)id);
    return NOTHING;
}

static void check_owned(const Run *r, AqId id, AqBuffer buffer)
{
    int64_t count = aq_elements(&aq_node(r->g, id)->type);
    place_of(r, buffer, 4 * count);
    for (int64_t i = 0; i < count; i++) {
        AqId is = r->bases[buffer.base].owner[buffer.offset / 4 + i];
        AqId wanted = owner_of(r, id, i);
        if (is != wanted)
            fail_msg("seed %llu: element %lld of %%%d is %%%d's, not %%%d's",
                     (unsigned long long)r->seed, (long long)i, (int)id,
                     (int)is, (int)wanted);
    }
}

/* ---- a kernel alone ---- */

static void evaluate(Run *r, AqId kernel, const double *const *inputs,
                     AqValue *results)
{
    AqError error = {0};
    AqGraph *g = aq_graph_new();
    const AqNode *node = aq_node(r->g, kernel);
    AqId *ids = AQ_NEW_ARRAY(r->arena, AqId, node->n_inputs + 1);
    AqBinding *bindings = AQ_NEW_ARRAY(r->arena, AqBinding, node->n_inputs + 1);
    for (int i = 0; i < node->n_inputs; i++) {
        const char *name = aq_arena_printf(r->arena, "a%d", i);
        AqAttr attr = aq_text(AQ_KEY_NAME, name);
        AqType type = aq_node(r->g, node->inputs[i])->type;
        ids[i] = aq_build(g, AQ_OP_input, &type, NULL, 0, &attr, 1);
        bindings[i] = (AqBinding){name, inputs[i]};
    }
    AqId copy = aq_build(g, AQ_OP_kernel, NULL, ids, node->n_inputs,
                         node->attrs, node->n_attrs);
    for (int i = 0; i < aq_result_count(r->g, kernel); i++)
        aq_graph_output(g, aq_arena_printf(r->arena, "r%d", i),
                        aq_result_node(g, copy, i), false);
    if (g->error.status ||
        aq_interpret(g, bindings, node->n_inputs, results, r->arena, &error))
        fail_msg("%s%s", g->error.text, error.text);
    aq_graph_free(g);
}

static bool overlap(AqBuffer a, int64_t a_bytes, AqBuffer b, int64_t b_bytes)
{
    return a.base == b.base && a.offset < b.offset + b_bytes &&
           b.offset < a.offset + a_bytes;
}

/* Input i may lie where a result is written only if element k of it is wanted
 * for element k of the results alone: found by changing it. */
static void check_in_place(Run *r, AqId kernel, int input,
                           const double **inputs, const AqValue *results)
{
    const AqNode *node = aq_node(r->g, kernel);
    int n = aq_result_count(r->g, kernel);
    int64_t count = aq_elements(&aq_node(r->g, node->inputs[input])->type);
    AqValue changed[AQ_MAX_RESULTS];
    double *other =
        aq_arena_copy(r->arena, inputs[input], (size_t)count * sizeof(double));
    const double *kept = inputs[input];
    inputs[input] = other;
    for (int64_t k = 0; k < AQ_MIN(count, 8); k++) {
        double value = other[k];
        other[k] = value + 1;
        evaluate(r, kernel, inputs, changed);
        for (int j = 0; j < n; j++)
            for (int64_t i = 0; i < aq_elements(&results[j].type); i++)
                if (i != k && results[j].data[i] != changed[j].data[i])
                    fail_msg("%%%d is updated in place, but element %lld of it "
                             "is wanted for element %lld",
                             (int)kernel, (long long)k, (long long)i);
        other[k] = value;
    }
    inputs[input] = kept;
}

static int run_kernel(Run *r, const AqStep *step)
{
    const AqNode *node = aq_node(r->g, step->kernel);
    const AqBuffer *buffers = r->plan->buffers + step->first;
    int n = aq_result_count(r->g, step->kernel), in_place = 0;
    const double **inputs =
        AQ_NEW_ARRAY(r->arena, const double *, node->n_inputs + 1);
    for (int i = 0; i < node->n_inputs; i++) {
        check_owned(r, node->inputs[i], buffers[i]);
        inputs[i] = place_of(r, buffers[i],
                             aq_bytes(&aq_node(r->g, node->inputs[i])->type));
    }
    AqValue results[AQ_MAX_RESULTS];
    evaluate(r, step->kernel, inputs, results);
    for (int j = 0; j < n; j++) {
        AqBuffer to = buffers[node->n_inputs + j];
        int64_t bytes = aq_bytes(&results[j].type);
        for (int i = 0; i < node->n_inputs; i++) {
            AqType type = aq_node(r->g, node->inputs[i])->type;
            if (!overlap(to, bytes, buffers[i], aq_bytes(&type)))
                continue;
            assert_true(to.base != 0 && to.offset == buffers[i].offset);
            assert_int_equal(bytes, aq_bytes(&type));
            check_in_place(r, step->kernel, i, inputs, results);
            in_place++;
        }
    }
    for (AqId id = 0; id < r->g->count; id++) {
        const AqNode *result = aq_node(r->g, id);
        if (result->op != AQ_OP_result || result->inputs[0] != step->kernel)
            continue;
        int j = (int)aq_attr_int(result, AQ_KEY_INDEX, 0);
        AqBuffer to = buffers[node->n_inputs + j];
        int64_t bytes = aq_bytes(&results[j].type);
        memcpy(place_of(r, to, bytes), results[j].data,
               (size_t)bytes / 4 * sizeof(double));
        own(r, to, bytes, id);
    }
    return in_place;
}

static void write_workspace(Run *r, const AqStep *step, AqBuffer at,
                            int64_t bytes, AqId owner)
{
    const AqNode *node = aq_node(r->g, step->kernel);
    double *data = place_of(r, at, bytes);
    for (int64_t i = 0; i < bytes / 4; i++)
        data[i] = NAN;
    own(r, at, bytes, owner);
    for (int j = 0; j < aq_result_count(r->g, step->kernel); j++) {
        AqType type = aq_result_type(r->g, step->kernel, j);
        assert_false(overlap(at, bytes,
                             r->plan->buffers[step->first + node->n_inputs + j],
                             aq_bytes(&type)));
    }
}

/* What is kept from run to run is nobody else's, from the first step on. */
static int64_t count_kept(const Run *r)
{
    int64_t words = 0;
    for (int64_t i = 0; i < r->bases[0].words; i++)
        words += r->bases[0].owner[i] == KEPT;
    return words;
}

static int64_t own_kept(Run *r, const AqNeeds *needs)
{
    int64_t words = 0;
    for (int i = 0; i < r->plan->n_steps; i++) {
        const AqStep *step = &r->plan->steps[i];
        if (step->kernel == AQ_NO_NODE || !needs[step->kernel].keep)
            continue;
        int64_t bytes = needs[step->kernel].kept;
        own(r, r->plan->buffers[step->first + step->count - 1], bytes, KEPT);
        words += bytes / 4;
    }
    return words;
}

/* The workspaces are written during the kernel: before its inputs are checked,
 * so they may lie on nothing that is alive. */
static void use_workspaces(Run *r, const AqStep *step, const AqNeeds *needs)
{
    const AqNode *node = aq_node(r->g, step->kernel);
    int n = node->n_inputs + aq_result_count(r->g, step->kernel);
    const AqNeeds *own_needs = &needs[step->kernel];
    int64_t bytes = own_needs->workspace, kept = own_needs->kept;
    const AqBuffer *at = r->plan->buffers + step->first + n;
    assert_int_equal(step->count, n + (bytes > 0) + (kept > 0));
    if (bytes > 0)
        write_workspace(r, step, *at, bytes, WORKSPACE);
    if (kept > 0)
        write_workspace(r, step, at[bytes > 0], kept,
                        own_needs->keep ? KEPT : WORKSPACE);
    if (bytes > 0 && kept > 0)
        assert_false(overlap(at[0], bytes, at[1], kept));
}

static void run_copy(Run *r, const AqStep *step)
{
    AqBuffer from = r->plan->buffers[step->first];
    AqBuffer to = r->plan->buffers[step->first + 1];
    int64_t words = step->copy_bytes / 4;
    memmove(place_of(r, to, 4 * words), place_of(r, from, 4 * words),
            (size_t)words * sizeof(double));
    memmove(r->bases[to.base].owner + to.offset / 4,
            r->bases[from.base].owner + from.offset / 4,
            (size_t)words * sizeof(AqId));
}

static AqPlanCounts run_steps(Run *r)
{
    AqPlanCounts counts = {.arena = r->plan->arena_bytes,
                           .bound = r->plan->live_bytes};
    AqNeeds *needs = aq_test_needs(r->g, true);
    int64_t kept = own_kept(r, needs);
    for (int i = 0; i < r->plan->n_steps; i++) {
        const AqStep *step = &r->plan->steps[i];
        if (step->kernel == AQ_NO_NODE) {
            run_copy(r, step);
            counts.copies++;
            continue;
        }
        use_workspaces(r, step, needs);
        counts.in_place += run_kernel(r, step);
    }
    assert_int_equal(count_kept(r), kept);
    free(needs);
    return counts;
}

/* ---- a whole run ---- */

static void check_output(const Run *r, int index, const AqValue *wanted)
{
    const AqOutput *o = &r->g->outputs[index];
    const double *data = NULL;
    int64_t bytes = aq_bytes(&wanted->type);
    if (o->update) {
        int base = aq_plan_base(r->plan, o->name);
        assert_true(base > 0 && r->plan->bases[base].written);
        data = place_of(r, (AqBuffer){.base = base}, bytes);
    }
    for (int i = 0; !data && i < r->plan->n_outputs; i++)
        if (!strcmp(r->plan->outputs[i].name, o->name))
            data = place_of(r, r->plan->outputs[i].buffer, bytes);
    assert_non_null(data);
    for (int64_t i = 0; i < bytes / 4; i++)
        if (data[i] != wanted->data[i] &&
            !(isnan(data[i]) && isnan(wanted->data[i])))
            fail_msg("seed %llu: output %s[%lld] is %.17g, not %.17g",
                     (unsigned long long)r->seed, o->name, (long long)i,
                     data[i], wanted->data[i]);
}

AqPlanCounts aq_test_check_plan(const AqGraph *g, uint64_t seed)
{
    AqError error = {0};
    Run r = new_run(g, seed);
    assert_true(r.plan->arena_bytes >= r.plan->live_bytes);
    assert_int_equal(r.plan->bases[0].bytes, r.plan->arena_bytes);
    make_memory(&r);
    AqValue *values = AQ_NEW_ARRAY(r.arena, AqValue, r.g->n_outputs + 1);
    if (aq_interpret(r.g, r.bindings + 1, r.plan->n_bases - 1, values, r.arena,
                     &error))
        fail_msg("seed %llu: %s", (unsigned long long)seed, error.text);
    AqPlanCounts counts = run_steps(&r);
    for (int i = 0; i < r.g->n_outputs; i++)
        check_output(&r, i, &values[i]);
    free_run(&r);
    return counts;
}
