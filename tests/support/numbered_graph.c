/* Sources of a random graph become functions of the run's number. */
#include "tests/support/numbered_graph.h"

#include <setjmp.h>
#include <stdlib.h>

#include <cmocka.h>

#include "tests/support/bench.h"
#include "tests/support/random_graph.h"

enum { CHANGES, FIXED, SCALED, NUMBER, KINDS };

typedef struct Numbering {
    AqGraph *g;
    uint64_t seed;
    bool all;  /* nothing changes */
    AqId real; /* number / 4 + 1/2 */
    AqRepeat *repeat;
    const char **fixed;
} Numbering;

static AqId repeated(const Numbering *n, const AqType *type)
{
    int64_t ones[AQ_MAX_RANK];
    for (int i = 0; i < type->rank; i++)
        ones[i] = 1;
    AqId x = aq_reshape_node(n->g, n->real, type->rank, ones);
    return aq_broadcast_node(n->g, x, type->rank, type->dim);
}

static int kind_of(Numbering *n, const AqNode *node)
{
    bool changes = node->op == AQ_OP_state || node->type.element != AQ_F32;
    int kind = (int)aq_test_below(&n->seed, KINDS);
    if (changes || (kind == CHANGES && !n->all))
        return CHANGES;
    return kind == CHANGES ? SCALED : kind;
}

static AqId make_source(Numbering *n, const AqGraph *from, AqId id)
{
    const AqNode *node = aq_node(from, id);
    int kind = kind_of(n, node);
    if (kind == NUMBER)
        return repeated(n, &node->type);
    if (node->op == AQ_OP_state)
        return aq_graph_copy_node(n->g, from, id, NULL);
    AqAttr name = *aq_attr(node, AQ_KEY_NAME);
    AqId x = aq_build(n->g, AQ_OP_input, &node->type, NULL, 0, &name, 1);
    if (kind == CHANGES)
        return x;
    n->fixed[n->repeat->n_fixed++] = aq_arena_copy_text(n->g->arena, name.text);
    return kind == FIXED
               ? x
               : aq_binary(n->g, AQ_OP_mul, x, repeated(n, &node->type));
}

static void begin(Numbering *n)
{
    AqType whole = aq_type(AQ_I32, 0, NULL);
    AqAttr name = aq_text(AQ_KEY_NAME, "number");
    AqId number = aq_build(n->g, AQ_OP_input, &whole, NULL, 0, &name, 1);
    AqId x = aq_cast_node(n->g, number, AQ_F32);
    x = aq_binary(n->g, AQ_OP_mul, x, aq_const_like(n->g, x, 0.25));
    n->real = aq_binary(n->g, AQ_OP_add, x, aq_const_like(n->g, x, 0.5));
}

AqGraph *aq_test_numbered_graph(uint64_t seed, int steps, AqRepeat *repeat)
{
    AqGraph *from = aq_test_random_graph(seed, steps);
    Numbering n = {.g = aq_graph_new(),
                   .seed = seed + 1000,
                   .all = seed % 3 == 0,
                   .repeat = repeat};
    AqId *map = calloc((size_t)from->count, sizeof *map);
    n.fixed = AQ_NEW_ARRAY(n.g->arena, const char *, from->count);
    assert_true(map && n.fixed);
    *repeat = (AqRepeat){
        .fixed = n.fixed, .number = "number", .numbers = AQ_TEST_NUMBERS};
    begin(&n);
    for (AqId id = 0; id < from->count; id++)
        map[id] = aq_op_info[aq_node(from, id)->op].facts & AQ_SOURCE
                      ? make_source(&n, from, id)
                      : aq_graph_copy_node(n.g, from, id, map);
    for (int i = 0; i < from->n_outputs; i++)
        aq_graph_output(n.g, from->outputs[i].name, map[from->outputs[i].node],
                        from->outputs[i].update);
    if (n.g->error.status)
        fail_msg("seed %llu: %s", (unsigned long long)seed, n.g->error.text);
    free(map);
    aq_graph_free(from);
    return n.g;
}
