/* Plans, carried out by the reference interpreter over memory whose every word
 * remembers which value was written to it last: no value is read that is not
 * there, whatever shares its place. */
#include "passes/passes.h"

#include <math.h>
#include <setjmp.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "codegen/codegen.h"
#include "frontend/dsl/dsl.h"
#include "tests/support/bench.h"
#include "tests/support/models.h"
#include "tests/support/random_graph.h"

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

/* What code generation would ask for, or a made-up workspace for each. */
static AqNeeds *needs_of(const AqGraph *g, bool invented)
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
    AqNeeds *needs = needs_of(r.g, true);
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

typedef struct Counts {
    int in_place, copies;
} Counts;

static Counts run_steps(Run *r)
{
    Counts counts = {0};
    AqNeeds *needs = needs_of(r->g, true);
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

/* Runs the plan and compares every output and state with what the interpreter
 * makes of the graph as a whole, to the bit. */
static Counts check_plan(const AqGraph *g, uint64_t seed)
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
    Counts counts = run_steps(&r);
    for (int i = 0; i < r.g->n_outputs; i++)
        check_output(&r, i, &values[i]);
    free_run(&r);
    return counts;
}

static void test_random_graphs(void **state)
{
    (void)state;
    int in_place = 0;
    for (uint64_t seed = 1; seed <= 60; seed++) {
        AqGraph *g = aq_test_random_graph(seed, 40);
        in_place += check_plan(g, seed).in_place;
        aq_graph_free(g);
    }
    assert_true(in_place > 0);
}

static void test_training_steps(void **state)
{
    (void)state;
    const AqSetting small[] = {{"width", "12"}, {"blocks", "2"}};
    const AqOptimizer optimizers[] = {
        {.kind = AQ_ADAMW, .ema = 0.99, .clip = 1, .decay = 0.01},
        {.kind = AQ_SGD, .momentum = 0.9},
        {.kind = AQ_RMSPROP, .centered = true, .momentum = 0.5},
        {.kind = AQ_ADAGRAD}};
    for (int i = 0; i < AQ_COUNT(optimizers); i++) {
        AqGraph *g = aq_test_training("mlp2d", small, 2,
                                      (AqTask){.batch = 5, .channels = 2},
                                      optimizers[i]);
        Counts counts = check_plan(g, 3);
        assert_true(counts.in_place >= 2); /* the optimizer's sweep */
        aq_graph_free(g);
    }
}

static void test_a_small_unet(void **state)
{
    (void)state;
    const AqSetting nano[] = {{"channels", "8"},  {"mults", "1,2"},
                              {"blocks", "1"},    {"groups", "4"},
                              {"attention", "2"}, {"zero_init", "false"}};
    AqGraph *g = aq_test_training(
        "ddpm_unet", nano, AQ_COUNT(nano),
        (AqTask){.batch = 2, .height = 4, .width = 4, .channels = 3},
        (AqOptimizer){.ema = 0.99, .clip = 1});
    Counts counts = check_plan(g, 4);
    assert_true(counts.in_place >= 4); /* weights, m, v, ema */
    aq_graph_free(g);
}

/* ---- states that depend on each other ---- */

static Counts check_text(const char *text)
{
    AqError error = {0};
    AqGraph *g = aq_graph_parse(text, "text", &error);
    if (!g)
        fail_msg("%s", error.text);
    Counts counts = check_plan(g, 9);
    aq_graph_free(g);
    return counts;
}

#define A "  %0 = state {name=\"a\"} : f32[4,4]\n"
#define B "  %1 = state {name=\"b\"} : f32[4,4]\n"

static void test_in_place(void **state)
{
    (void)state;
    Counts c = check_text("graph {\n" A "  %1 = exp %0 : f32[4,4]\n"
                          "  update a = %1\n}\n");
    assert_int_equal(c.in_place, 1);
    assert_int_equal(c.copies, 0);
    /* through a scalar that all of it goes into */
    c = check_text("graph {\n" A "  %1 = reduce_sum %0 {axes=[0,1]} : f32[]\n"
                   "  %2 = reshape %1 : f32[1,1]\n"
                   "  %3 = broadcast %2 : f32[4,4]\n"
                   "  %4 = add %0, %3 : f32[4,4]\n"
                   "  update a = %4\n}\n");
    assert_int_equal(c.copies, 0);
}

static void test_not_where_elements_are_moved(void **state)
{
    (void)state;
    Counts c =
        check_text("graph {\n" A "  %1 = transpose %0 {perm=[1,0]} : f32[4,4]\n"
                   "  %2 = add %0, %1 : f32[4,4]\n"
                   "  update a = %2\n}\n");
    assert_int_equal(c.in_place, 0);
    c = check_text("graph {\n" A
                   "  %1 = slice %0 {start=[0,1], step=[1,1]} : f32[4,3]\n"
                   "  %2 = pad %1 {start=[0,0], step=[1,1]} : f32[4,4]\n"
                   "  update a = %2\n}\n");
    assert_int_equal(c.in_place, 0);
    c = check_text("graph {\n" A "  %1 = reduce_max %0 {axes=[1]} : f32[4]\n"
                   "  %2 = reshape %1 : f32[4,1]\n"
                   "  %3 = broadcast %2 : f32[4,4]\n"
                   "  %4 = sub %0, %3 : f32[4,4]\n"
                   "  %5 = matmul %4, %0 {ta=0, tb=0} : f32[4,4]\n"
                   "  update a = %5\n}\n");
    assert_int_equal(c.in_place, 0);
}

static void test_not_where_the_old_value_is_read_later(void **state)
{
    (void)state;
    check_text("graph {\n" A "  %1 = exp %0 : f32[4,4]\n"
               "  %2 = matmul %1, %0 {ta=0, tb=0} : f32[4,4]\n"
               "  %3 = matmul %2, %0 {ta=0, tb=0} : f32[4,4]\n"
               "  update a = %1\n  output y = %3\n}\n");
    /* by attention, through a reshape that is no kernel */
    check_text("graph {\n  %0 = state {name=\"a\"} : f32[64]\n"
               "  %1 = exp %0 : f32[64]\n"
               "  %2 = reshape %1 : f32[1,4,2,8]\n"
               "  %3 = reshape %0 : f32[1,4,2,8]\n"
               "  %4 = attention %2, %3, %3 {scale=1.0, causal=0} : results\n"
               "  %5 = result %4 {index=0} : f32[1,4,2,8]\n"
               "  update a = %1\n  output y = %5\n}\n");
}

static void test_outputs_are_what_states_were(void **state)
{
    (void)state;
    check_text("graph {\n" A "  %1 = exp %0 : f32[4,4]\n"
               "  output y = %0\n  update a = %1\n}\n");
    check_text("graph {\n" A "  %1 = reshape %0 : f32[2,8]\n"
               "  %2 = exp %0 : f32[4,4]\n"
               "  update a = %2\n  output y = %1\n}\n");
}

static void test_states_change_places(void **state)
{
    (void)state;
    Counts c =
        check_text("graph {\n" A B "  update a = %1\n  update b = %0\n}\n");
    assert_int_equal(c.copies, 4);
    check_text("graph {\n" A B "  %2 = state {name=\"c\"} : f32[4,4]\n"
               "  %3 = exp %2 : f32[4,4]\n"
               "  update c = %3\n  update b = %2\n  update a = %1\n}\n");
    c = check_text("graph {\n" A "  update a = %0\n  output y = %0\n}\n");
    check_text("graph {\n" A B "  %2 = exp %0 : f32[4,4]\n"
               "  update a = %2\n  update b = %2\n  output y = %2\n}\n");
}

static void test_parameters_are_stretches_of_weights(void **state)
{
    (void)state;
    Counts c = check_text(
        "graph {\n"
        "  %0 = param {name=\"p\", offset=0, init=\"zeros\"} : f32[16]\n"
        "  %1 = param {name=\"q\", offset=16, init=\"zeros\"} : f32[16]\n"
        "  %2 = exp %1 : f32[16]\n"
        "  %3 = concat %2, %0 {axis=0} : f32[32]\n"
        "  output old = %1\n  update weights = %3\n}\n");
    assert_true(c.copies >= 1);
}

static void test_nothing_to_do(void **state)
{
    (void)state;
    check_text("graph {\n" A "  output y = %0\n}\n");
    check_text("graph {\n  %0 = const {value=2.0} : f32[3]\n"
               "  output y = %0\n}\n");
    check_text("graph {\n}\n");
}

static void test_many_parts(void **state)
{
    (void)state;
    check_text("graph {\n  %0 = input {name=\"x\"} : f32[8]\n"
               "  %1 = exp %0 : f32[8]\n  %2 = sin %0 : f32[8]\n"
               "  %3 = cos %1 : f32[8]\n  %4 = tanh %3 : f32[8]\n"
               "  %5 = concat %1, %2, %3, %4, %1, %0 {axis=0} : f32[48]\n"
               "  %6 = reduce_sum %5 {axes=[0]} : f32[]\n"
               "  output y = %5\n  output sum = %6\n  output part = %3\n}\n");
}

/* Five small gradients and that of a matrix in one array. */
#define PARTS(n, size, more)                                                   \
    "graph {\n  %0 = input {name=\"x\"} : f32[4," #n "]\n"                     \
    "  %1 = input {name=\"l\"} : f32[96,4]\n"                                  \
    "  %2 = reduce_sum %0 {axes=[0]} : f32[" #n "]\n"                          \
    "  %3 = exp %2 : f32[" #n "]\n  %4 = sin %2 : f32[" #n "]\n"               \
    "  %5 = cos %2 : f32[" #n "]\n  %6 = tanh %2 : f32[" #n "]\n"              \
    "  %7 = matmul %1, %1 {ta=0, tb=1} : f32[96,96]\n"                         \
    "  %8 = reshape %7 : f32[9216]\n"                                          \
    "  %9 = concat %2, %3, %8, %4, %5, %6 {axis=0} : f32[" #size "]\n"         \
    "  %10 = sin %9 : f32[" #size "]\n"                                        \
    "  output y = %10\n  output z = %3\n" more "}\n"

/* Small ones lie apart, so that the room of a large one that is written late is
 * in one piece with what is beside it; a copy brings them there, and what reads
 * them finds them before it and after. */
static void test_small_parts(void **state)
{
    (void)state;
    assert_int_equal(check_text(PARTS(9, 9261, "")).copies, 5);
    assert_int_equal(check_text(PARTS(9, 9261, "  output w = %9\n")).copies, 5);
    assert_int_equal(check_text(PARTS(10, 9266, "")).copies, 0);
}

/* ---- size ---- */

static void test_the_unet_s_arena_is_near_its_bound(void **state)
{
    (void)state;
    AqError error = {0};
    AqGraph *g = aq_test_training(
        "ddpm_unet", NULL, 0,
        (AqTask){.batch = 8, .height = 32, .width = 32, .channels = 3},
        (AqOptimizer){.ema = 0.9999, .clip = 1});
    AqGraph *kernels = aq_test_kernels(g, 3);
    AqNeeds *needs = needs_of(kernels, false);
    AqPlan *plan = aq_plan(kernels, needs, &error);
    if (!plan)
        fail_msg("%s", error.text);
    print_message("arena %.1f MiB, bound %.1f MiB\n",
                  (double)plan->arena_bytes / (1 << 20),
                  (double)plan->live_bytes / (1 << 20));
    assert_true((double)plan->arena_bytes <= 1.1 * (double)plan->live_bytes);
    aq_plan_free(plan);
    free(needs);
    aq_graph_free(kernels);
    aq_graph_free(g);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_random_graphs),
        cmocka_unit_test(test_training_steps),
        cmocka_unit_test(test_a_small_unet),
        cmocka_unit_test(test_in_place),
        cmocka_unit_test(test_not_where_elements_are_moved),
        cmocka_unit_test(test_not_where_the_old_value_is_read_later),
        cmocka_unit_test(test_outputs_are_what_states_were),
        cmocka_unit_test(test_states_change_places),
        cmocka_unit_test(test_parameters_are_stretches_of_weights),
        cmocka_unit_test(test_nothing_to_do),
        cmocka_unit_test(test_many_parts),
        cmocka_unit_test(test_small_parts),
        cmocka_unit_test(test_the_unet_s_arena_is_near_its_bound),
    };
    return cmocka_run_group_tests_name("plan", tests, NULL, NULL);
}
