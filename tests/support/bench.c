/* A graph under test.  Errors fail the test with their sentence. */
#include "tests/support/bench.h"

#include <math.h>
#include <setjmp.h>
#include <string.h>

#include <cmocka.h>

AqBench aq_bench_new(uint64_t seed)
{
    AqBench bench = {
        .g = aq_graph_new(), .arena = aq_arena_new(), .seed = seed};
    assert_non_null(bench.g);
    assert_non_null(bench.arena);
    return bench;
}

void aq_bench_free(AqBench *bench)
{
    aq_graph_free(bench->g);
    aq_arena_free(bench->arena);
}

AqId aq_bench_build(AqBench *bench, AqOp op, const AqType *declared,
                    const AqId *inputs, int n_inputs, const AqAttr *attrs,
                    int n_attrs)
{
    AqId id =
        aq_build(bench->g, op, declared, inputs, n_inputs, attrs, n_attrs);
    if (id == AQ_NO_NODE)
        fail_msg("%s", bench->g->error.text);
    return id;
}

AqId aq_bench_input(AqBench *bench, const char *name, AqType type,
                    const double *data)
{
    assert_true(bench->n_bindings < AQ_BENCH_BINDINGS);
    size_t bytes = (size_t)aq_elements(&type) * sizeof *data;
    bench->bindings[bench->n_bindings++] = (AqBinding){
        .name = aq_arena_copy_text(bench->arena, name),
        .data = aq_arena_copy(bench->arena, data, bytes),
    };
    AqAttr attr = aq_text(AQ_KEY_NAME, name);
    return aq_bench_build(bench, AQ_OP_input, &type, NULL, 0, &attr, 1);
}

AqId aq_bench_random(AqBench *bench, const char *name, AqType type)
{
    int64_t count = aq_elements(&type);
    double *data = AQ_NEW_ARRAY(bench->arena, double, count + 1);
    for (int64_t i = 0; i < count; i++)
        data[i] = type.element == AQ_I32
                      ? (double)aq_test_below(&bench->seed, 10)
                      : aq_test_normal(&bench->seed);
    return aq_bench_input(bench, name, type, data);
}

AqStatus aq_test_evaluate(const AqGraph *g, const AqId *ids, int count,
                          const AqBinding *bindings, int n_bindings,
                          AqValue *values, AqArena *arena, AqError *error)
{
    AqOutput *outputs = AQ_NEW_ARRAY(arena, AqOutput, count);
    assert_non_null(outputs);
    for (int i = 0; i < count; i++)
        outputs[i] = (AqOutput){.name = "under test", .node = ids[i]};
    AqGraph view = *g;
    view.outputs = outputs;
    view.n_outputs = count;
    return aq_interpret(&view, bindings, n_bindings, values, arena, error);
}

static AqStatus evaluate(AqBench *bench, AqId id, AqValue *value,
                         AqError *error)
{
    return aq_test_evaluate(bench->g, &id, 1, bench->bindings,
                            bench->n_bindings, value, bench->arena, error);
}

const double *aq_bench_value(AqBench *bench, AqId id)
{
    AqValue value;
    AqError error = {0};
    if (evaluate(bench, id, &value, &error) != AQ_OK)
        fail_msg("%s", error.text);
    return value.data;
}

const char *aq_bench_error(AqBench *bench, AqId id)
{
    AqValue value;
    AqError error = {0};
    assert_int_not_equal(evaluate(bench, id, &value, &error), AQ_OK);
    return aq_arena_copy_text(bench->arena, error.text);
}

int64_t aq_bench_count(const AqBench *bench, AqId id)
{
    return aq_elements(&aq_node(bench->g, id)->type);
}

void aq_bench_close(const double *a, const double *b, int64_t count,
                    double tolerance)
{
    for (int64_t i = 0; i < count; i++) {
        bool same = a[i] == b[i] || (isnan(a[i]) && isnan(b[i]));
        if (!same && !(fabs(a[i] - b[i]) <= tolerance * (1 + fabs(b[i]))))
            fail_msg("element %lld is %.17g, not %.17g", (long long)i, a[i],
                     b[i]);
    }
}

int aq_test_bind(const AqGraph *g, uint64_t seed, AqBinding *bindings,
                 AqArena *arena)
{
    int bound = 0;
    for (AqId id = 0; id < g->count; id++) {
        const AqNode *node = aq_node(g, id);
        if (!(aq_op_info[node->op].facts & AQ_SOURCE))
            continue;
        int64_t count = aq_elements(&node->type);
        double *data = AQ_NEW_ARRAY(arena, double, count);
        assert_non_null(data);
        double scale = node->op == AQ_OP_param ? 0.1 : 1;
        for (int64_t i = 0; i < count; i++)
            data[i] = node->type.element == AQ_I32
                          ? (double)aq_test_below(&seed, 10)
                          : scale * aq_test_normal(&seed);
        bindings[bound++] = (AqBinding){
            .name = aq_attr_text(node, AQ_KEY_NAME, ""), .data = data};
    }
    return bound;
}

/* splitmix64 */
static uint64_t next(uint64_t *seed)
{
    uint64_t z = *seed += 0x9E3779B97F4A7C15u;
    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9u;
    z = (z ^ z >> 27) * 0x94D049BB133111EBu;
    return z ^ z >> 31;
}

double aq_test_uniform(uint64_t *seed)
{
    return ((double)(next(seed) >> 11) + 0.5) * 0x1p-53;
}

double aq_test_normal(uint64_t *seed)
{
    double r = sqrt(-2 * log(aq_test_uniform(seed)));
    return r * cos(2 * M_PI * aq_test_uniform(seed));
}

int64_t aq_test_below(uint64_t *seed, int64_t bound)
{
    return (int64_t)(aq_test_uniform(seed) * (double)bound);
}
