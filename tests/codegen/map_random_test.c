/* Random map bodies: every pointwise op, every movement, gathers, iotas,
 * tables, on odd shapes, with several results or reductions.  AQ_SEED=n runs
 * one. */
#include "tests/support/bench.h"
#include "tests/support/run_kernel.h"

#include <setjmp.h>
#include <stdlib.h>

#include <cmocka.h>

enum { CASES = 160, MOST_ARGS = 12 };

typedef struct Maker {
    AqGraph *g;
    uint64_t seed;
    int n_args;
    int64_t below; /* i32 inputs: the smallest table looked up in */
} Maker;

static int64_t below(Maker *m, int64_t bound)
{
    return aq_test_below(&m->seed, bound);
}

static AqId value(Maker *m, AqType type, int depth);

static AqId new_arg(Maker *m, AqType type)
{
    AqAttr attr = aq_int(AQ_KEY_INDEX, m->n_args++);
    return aq_build(m->g, AQ_OP_arg, &type, NULL, 0, &attr, 1);
}

/* An arg made before with this type, or a new one. */
static AqId some_arg(Maker *m, AqType type)
{
    for (AqId id = 0; id < m->g->count; id++)
        if (aq_node(m->g, id)->op == AQ_OP_arg &&
            aq_same_type(&aq_node(m->g, id)->type, &type) && below(m, 2))
            return id;
    return m->n_args < MOST_ARGS ? new_arg(m, type)
                                 : aq_const_node(m->g, &type, 3);
}

static AqId leaf(Maker *m, AqType type)
{
    double data[4096];
    switch (below(m, 8)) {
    case 0:
        return aq_const_node(m->g, &type, (double)below(m, 5) - 2);
    case 1:
        if (type.rank > 0)
            return aq_iota_node(m->g, &type, (int)below(m, type.rank));
        break;
    case 2:
        if (aq_elements(&type) > AQ_COUNT(data))
            break;
        for (int64_t i = 0; i < aq_elements(&type); i++)
            data[i] = (double)below(m, 7) - 3;
        return aq_table_node(m->g, &type, data);
    }
    return some_arg(m, type);
}

/* ---- pointwise: arguments kept where the function is smooth ---- */

static AqId unary(Maker *m, AqType type, int depth)
{
    static const AqOp free[] = {AQ_OP_neg,     AQ_OP_abs,       AQ_OP_sin,
                                AQ_OP_cos,     AQ_OP_tanh,      AQ_OP_erf,
                                AQ_OP_sigmoid, AQ_OP_is_finite, AQ_OP_detach};
    static const AqOp positive[] = {AQ_OP_log, AQ_OP_sqrt, AQ_OP_rsqrt};
    AqGraph *g = m->g;
    AqId x = value(m, type, depth - 1);
    if (type.element == AQ_I32)
        return aq_unary(g, below(m, 2) ? AQ_OP_neg : AQ_OP_abs, x);
    switch (below(m, 4)) {
    case 0: /* exp of something not above zero */
        return aq_unary(g, AQ_OP_exp,
                        aq_unary(g, AQ_OP_neg, aq_unary(g, AQ_OP_abs, x)));
    case 1:
        x = aq_binary(g, AQ_OP_add, aq_unary(g, AQ_OP_abs, x),
                      aq_const_like(g, x, 0.5));
        return aq_unary(g, positive[below(m, 3)], x);
    default:
        return aq_unary(g, free[below(m, AQ_COUNT(free))], x);
    }
}

/* Jumps are taken of whole numbers alone: double and float agree there. */
static AqId comparison(Maker *m, AqType type, int depth)
{
    static const AqOp ops[] = {AQ_OP_less, AQ_OP_less_equal, AQ_OP_equal};
    AqType whole = type;
    whole.element = AQ_I32;
    AqId a = value(m, whole, depth - 1), b = value(m, whole, depth - 1);
    AqId truth = aq_binary(m->g, ops[below(m, 3)], a, b);
    if (type.element == AQ_F32)
        truth = aq_cast_node(m->g, truth, AQ_F32);
    return below(m, 2) ? truth
                       : aq_select_node(m->g, truth, value(m, type, depth - 1),
                                        value(m, type, depth - 1));
}

static AqId binary(Maker *m, AqType type, int depth)
{
    static const AqOp ops[] = {AQ_OP_add, AQ_OP_sub, AQ_OP_max, AQ_OP_min};
    AqGraph *g = m->g;
    AqId a = value(m, type, depth - 1), b = value(m, type, depth - 1);
    bool whole = type.element == AQ_I32;
    switch (below(m, 4)) {
    case 0: /* bounded, so that depth does not blow it up */
        if (!whole)
            b = aq_unary(g, AQ_OP_tanh, b);
        return aq_binary(g, AQ_OP_mul, a, b);
    case 1:
        b = aq_binary(g, AQ_OP_add, aq_unary(g, AQ_OP_abs, b),
                      aq_const_like(g, b, 1));
        return aq_binary(g, AQ_OP_div, a, b);
    default:
        return aq_binary(g, ops[below(m, 4)], a, b);
    }
}

static AqId cast(Maker *m, AqType type, int depth)
{
    AqType other = type;
    if (type.element == AQ_F32) {
        other.element = AQ_I32;
        return aq_cast_node(m->g, value(m, other, depth - 1), AQ_F32);
    }
    /* of whole floats: halves of iotas, floored */
    if (type.rank == 0)
        return leaf(m, type);
    other.element = AQ_F32;
    AqId x = aq_iota_node(m->g, &other, (int)below(m, type.rank));
    x = aq_binary(m->g, AQ_OP_mul, x, aq_const_like(m->g, x, -0.5));
    return aq_cast_node(m->g, aq_unary(m->g, AQ_OP_floor, x), AQ_I32);
}

/* ---- movement: an input of a fitting shape, then the op ---- */

static AqId reshape(Maker *m, AqType type, int depth)
{
    AqType from = {.element = type.element};
    int64_t left = aq_elements(&type);
    while (left > 1 && from.rank < 5) {
        int64_t part = left;
        for (int64_t d = 2 + below(m, 7); d < left; d++)
            if (left % d == 0) {
                part = d;
                break;
            }
        from.dim[from.rank++] = part;
        left /= part;
    }
    if (left > 1)
        from.dim[from.rank - 1] *= left;
    return aq_reshape_node(m->g, value(m, from, depth - 1), type.rank,
                           type.dim);
}

static AqId transpose(Maker *m, AqType type, int depth)
{
    int64_t perm[AQ_MAX_RANK];
    AqType from = type;
    for (int i = 0; i < type.rank; i++)
        perm[i] = i;
    for (int i = type.rank - 1; i > 0; i--) {
        int j = (int)below(m, i + 1);
        int64_t swap = perm[i];
        perm[i] = perm[j];
        perm[j] = swap;
    }
    for (int i = 0; i < type.rank; i++)
        from.dim[perm[i]] = type.dim[i];
    return aq_transpose_node(m->g, value(m, from, depth - 1), perm);
}

static AqId slice(Maker *m, AqType type, int depth)
{
    int64_t start[AQ_MAX_RANK], step[AQ_MAX_RANK];
    AqType from = type;
    for (int i = 0; i < type.rank; i++) {
        start[i] = below(m, 2) ? 8 * below(m, 2) : below(m, 3);
        step[i] = 1 + (below(m, 4) == 0);
        from.dim[i] = start[i] + (type.dim[i] - 1) * step[i] + 1 + below(m, 3);
    }
    return aq_slice_node(m->g, value(m, from, depth - 1), start, type.dim,
                         step);
}

static AqId pad(Maker *m, AqType type, int depth)
{
    int64_t start[AQ_MAX_RANK], step[AQ_MAX_RANK];
    AqType from = type;
    for (int i = 0; i < type.rank; i++) {
        step[i] = 1 + (below(m, 4) == 0);
        int64_t wanted = below(m, 2) ? 8 : below(m, 3);
        start[i] = AQ_MIN(wanted, type.dim[i] - 1);
        int64_t most = (type.dim[i] - 1 - start[i]) / step[i] + 1;
        most -= below(m, 3);
        from.dim[i] = AQ_MAX(most, 1);
    }
    return aq_pad_node(m->g, value(m, from, depth - 1), start, step, type.dim);
}

static AqId broadcast(Maker *m, AqType type, int depth)
{
    AqType from = type;
    for (int i = 0; i < type.rank; i++)
        if (below(m, 2))
            from.dim[i] = 1;
    return aq_broadcast_node(m->g, value(m, from, depth - 1), type.rank,
                             type.dim);
}

static AqId concat(Maker *m, AqType type, int depth)
{
    int axis = (int)below(m, type.rank), n = 0;
    AqId parts[4];
    int64_t left = type.dim[axis];
    while (left > 0) {
        AqType part = type;
        int64_t some = below(m, 2) ? 8 * (1 + below(m, 2)) : 1 + below(m, left);
        part.dim[axis] = n == 3 ? left : AQ_MIN(some, left);
        left -= part.dim[axis];
        parts[n++] = value(m, part, depth - 1);
    }
    return aq_concat_node(m->g, parts, n, axis);
}

static AqId repeat(Maker *m, AqType type, int depth)
{
    int64_t factor[AQ_MAX_RANK];
    AqType from = type;
    for (int i = 0; i < type.rank; i++) {
        factor[i] = 1;
        for (int64_t f = 2 + below(m, 3); f <= type.dim[i]; f++)
            if (type.dim[i] % f == 0 && below(m, 2)) {
                factor[i] = f;
                break;
            }
        from.dim[i] /= factor[i];
    }
    return aq_repeat_node(m->g, value(m, from, depth - 1), factor);
}

/* Rows of a table by an index from outside (or an iota, made to fit). */
static AqId gather(Maker *m, AqType type, int depth)
{
    int lead = (int)below(m, type.rank + 1);
    AqType table = {.element = type.element, .rank = 1};
    table.dim[0] = m->below + below(m, 5);
    AqType index = {.element = AQ_I32, .rank = lead};
    for (int i = 0; i < type.rank; i++) {
        if (i < lead)
            index.dim[i] = type.dim[i];
        else
            table.dim[table.rank++] = type.dim[i];
    }
    AqId in[] = {value(m, table, depth - 1), some_arg(m, index)};
    if (aq_node(m->g, in[1])->op == AQ_OP_const)
        in[1] = aq_const_node(m->g, &index, 1);
    return aq_build(m->g, AQ_OP_gather, NULL, in, 2, NULL, 0);
}

static AqId value(Maker *m, AqType type, int depth)
{
    static AqId (*const makers[])(Maker *, AqType, int) = {
        unary,     unary, binary,    binary,  binary, comparison, cast,  pad,
        transpose, slice, broadcast, reshape, concat, repeat,     gather};
    if (depth <= 0 || below(m, 8) == 0 || m->g->count > 80 ||
        aq_elements(&type) > 20000)
        return leaf(m, type);
    int which = (int)below(m, AQ_COUNT(makers));
    if (type.rank == 0 && which >= 7 && makers[which] != gather)
        return leaf(m, type);
    if (type.rank == AQ_MAX_RANK)
        return unary(m, type, depth);
    return makers[which](m, type, depth);
}

/* ---- whole bodies ---- */

static AqType random_domain(Maker *m)
{
    static const int64_t sizes[] = {1, 2, 3, 4, 5, 7, 8, 9, 12, 16, 17, 24, 40};
    AqType type = {.element = below(m, 6) ? AQ_F32 : AQ_I32,
                   .rank = (int)below(m, 5)};
    do {
        for (int i = 0; i < type.rank; i++)
            type.dim[i] = sizes[below(m, AQ_COUNT(sizes))];
    } while (aq_elements(&type) > 6000);
    return type;
}

static void add_output(Maker *m, AqId id)
{
    char name[16];
    snprintf(name, sizeof name, "y%d", m->g->n_outputs);
    aq_graph_output(m->g, name, id, false);
}

static void add_reductions(Maker *m, AqType type)
{
    int64_t axes[AQ_MAX_RANK];
    int n_axes = 0, count = 1 + (int)below(m, 3);
    for (int i = 0; i < type.rank; i++)
        if (below(m, 2))
            axes[n_axes++] = i;
    if (n_axes == 0)
        axes[n_axes++] = below(m, type.rank);
    for (int i = 0; i < count; i++) {
        AqId x = value(m, type, 3);
        int kind = (int)below(m, type.element == AQ_F32 ? 3 : 2);
        if (kind < 2) {
            add_output(m, aq_reduce_node(
                              m->g, kind ? AQ_OP_reduce_max : AQ_OP_reduce_sum,
                              x, axes, n_axes));
            continue;
        }
        AqAttr attr = aq_ints(AQ_KEY_AXES, axes, n_axes);
        AqId moments = aq_build(m->g, AQ_OP_moments, NULL, &x, 1, &attr, 1);
        for (int k = 0; k < 2; k++)
            add_output(m, aq_result_node(m->g, moments, k));
    }
}

static void run_seed(uint64_t seed)
{
    char name[32];
    snprintf(name, sizeof name, "seed %llu", (unsigned long long)seed);
    Maker m = {.g = aq_graph_new(), .seed = seed * 1000 + 17, .below = 4};
    AqType type = random_domain(&m);
    if (type.rank > 0 && below(&m, 2))
        add_reductions(&m, type);
    int count = (int)below(&m, 3) + (m.g->n_outputs == 0);
    for (int i = 0; i < count; i++)
        add_output(&m, value(&m, type, 5));
    if (m.g->error.status)
        fail_msg("%s: %s", name, m.g->error.text);
    AqText text = {0};
    aq_graph_print(m.g, &text);
    if (getenv("AQ_SEED"))
        print_message("%s\n", text.data);
    AqKernelCase test = {.body = m.g,
                         .kind = "map",
                         .seed = seed,
                         .tolerance = 1e-4,
                         .below = m.below,
                         .name = name};
    aq_test_run_kernel(&test);
    aq_text_free(&text);
    aq_graph_free(m.g);
}

static void test_random_bodies(void **state)
{
    (void)state;
    const char *only = getenv("AQ_SEED");
    if (only) {
        run_seed((uint64_t)atoll(only));
        return;
    }
    for (uint64_t seed = 0; seed < CASES; seed++)
        run_seed(seed);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_random_bodies),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
