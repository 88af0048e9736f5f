/* Tensors of the DSL over a bench. */
#include "tests/support/tensors.h"

#include <setjmp.h>
#include <string.h>

#include <cmocka.h>

AqTensor aq_test_tensor(const AqBench *b, AqId id)
{
    return (AqTensor){b->g, id};
}

AqTensor aq_test_input(AqBench *b, const char *name, AqType type)
{
    return aq_test_tensor(b, aq_bench_random(b, name, type));
}

const double *aq_test_fill(AqBench *b, const char *name, int64_t count)
{
    double *data = AQ_NEW_ARRAY(b->arena, double, count);
    for (int64_t i = 0; i < count; i++)
        data[i] = aq_test_normal(&b->seed);
    b->bindings[b->n_bindings++] = (AqBinding){name, data};
    return data;
}

const double *aq_test_data(const AqBench *b, const char *name)
{
    for (int i = 0; i < b->n_bindings; i++)
        if (strcmp(b->bindings[i].name, name) == 0)
            return b->bindings[i].data;
    fail_msg("no data called %s", name);
    return NULL;
}

void aq_test_expect(AqBench *b, AqTensor y, const double *wanted, int64_t count)
{
    if (aq_graph_error(b->g))
        fail_msg("%s", aq_graph_error(b->g));
    assert_int_equal(aq_bench_count(b, y.id), count);
    aq_bench_close(aq_bench_value(b, y.id), wanted, count, 1e-12);
}

void aq_test_expect_shape(AqTensor x, AqShape wanted)
{
    if (aq_graph_error(x.graph))
        fail_msg("%s", aq_graph_error(x.graph));
    AqShape shape = aq_shape(x);
    assert_int_equal(shape.rank, wanted.rank);
    for (int i = 0; i < shape.rank; i++)
        assert_int_equal(shape.dim[i], wanted.dim[i]);
}
