/* Random graphs: a pool of f32 values that makers draw from and add to. */
#include "tests/support/random_graph.h"

#include <math.h>
#include <setjmp.h>

#include <cmocka.h>

#include "tests/support/bench.h"

enum { POOL = 1024, MOST_ELEMENTS = 3000 };

typedef struct Grower {
    AqGraph *g;
    uint64_t seed;
    AqId value[POOL];
    double bound[POOL]; /* about the largest magnitude */
    int count, names;
    AqId place[3]; /* key, step, sample of random draws */
} Grower;

static int64_t below(Grower *w, int64_t bound)
{
    return aq_test_below(&w->seed, bound);
}

static bool one_in(Grower *w, int n)
{
    return below(w, n) == 0;
}

#define ONE_OF(w, ...) (DIMS_(__VA_ARGS__)[below((w), RANK_(__VA_ARGS__))])

static const AqType *type_of(const Grower *w, AqId id)
{
    return &aq_node(w->g, id)->type;
}

/* ---- the pool ---- */

static void keep(Grower *w, AqId id, double bound)
{
    if (id == AQ_NO_NODE)
        fail_msg("%s", w->g->error.text);
    if (w->count == POOL || aq_elements(type_of(w, id)) > MOST_ELEMENTS)
        return;
    if (bound > 20) {
        id = aq_unary(w->g, AQ_OP_tanh, id);
        bound = 1;
    }
    w->value[w->count] = id;
    w->bound[w->count++] = bound;
}

/* Late values more often, so that chains grow. */
static int pick(Grower *w)
{
    int last = AQ_MIN(w->count, 6);
    return one_in(w, 3) ? (int)below(w, w->count)
                        : w->count - 1 - (int)below(w, last);
}

/* An input, param or state of that type. */
static AqId source(Grower *w, AqOp op, AqType type)
{
    char name[20];
    snprintf(name, sizeof name, "%s%d", aq_op_info[op].name, w->names++);
    AqAttr attr = aq_text(AQ_KEY_NAME, name);
    AqId id = aq_build(w->g, op, &type, NULL, 0, &attr, 1);
    if (id == AQ_NO_NODE)
        fail_msg("%s", w->g->error.text);
    return id;
}

static AqType random_type(Grower *w, int rank)
{
    AqType type = {.element = AQ_F32, .rank = rank};
    do {
        for (int i = 0; i < rank; i++)
            type.dim[i] = ONE_OF(w, 1, 2, 3, 4, 5, 7, 8, 16, 17);
    } while (aq_elements(&type) > MOST_ELEMENTS / 2);
    return type;
}

/* A value of four dimensions, from the pool or new. */
static AqId image(Grower *w)
{
    for (int tries = 0; tries < 4; tries++) {
        AqId id = w->value[pick(w)];
        if (type_of(w, id)->rank == 4 && type_of(w, id)->dim[3] <= 32)
            return id;
    }
    return source(w, AQ_OP_input, random_type(w, 4));
}

/* ---- pointwise ---- */

static void make_unary(Grower *w)
{
    const AqOp same[] = {AQ_OP_neg, AQ_OP_abs, AQ_OP_detach};
    const AqOp small[] = {AQ_OP_sin, AQ_OP_cos,     AQ_OP_tanh,
                          AQ_OP_erf, AQ_OP_sigmoid, AQ_OP_is_finite};
    int i = pick(w);
    if (one_in(w, 3))
        keep(w, aq_unary(w->g, same[below(w, 3)], w->value[i]), w->bound[i]);
    else
        keep(w, aq_unary(w->g, small[below(w, 6)], w->value[i]), 1);
}

static AqId one_and_square(Grower *w, AqId x)
{
    AqId square = aq_binary(w->g, AQ_OP_mul, x, x);
    return aq_binary(w->g, AQ_OP_add, square, aq_const_like(w->g, x, 1));
}

/* Ops with a limited domain, inside it. */
static void make_limited(Grower *w)
{
    int i = pick(w);
    AqId x = w->value[i], y = w->value[pick(w)];
    const AqOp positive[] = {AQ_OP_log, AQ_OP_sqrt, AQ_OP_rsqrt};
    if (one_in(w, 3))
        keep(w, aq_unary(w->g, AQ_OP_exp, aq_unary(w->g, AQ_OP_tanh, x)), 3);
    else if (one_in(w, 2) && aq_same_type(type_of(w, x), type_of(w, y)))
        keep(w, aq_binary(w->g, AQ_OP_div, x, one_and_square(w, y)),
             w->bound[i]);
    else
        keep(w, aq_unary(w->g, positive[below(w, 3)], one_and_square(w, x)),
             w->bound[i] + 1);
}

static AqId like(Grower *w, AqId x, double *bound)
{
    for (int tries = 0; tries < 6; tries++) {
        int i = pick(w);
        *bound = w->bound[i];
        if (aq_same_type(type_of(w, x), type_of(w, w->value[i])))
            return w->value[i];
    }
    *bound = 0.5;
    return one_in(w, 2) ? aq_const_like(w->g, x, 0.5)
                        : source(w, AQ_OP_param, *type_of(w, x));
}

static void make_binary(Grower *w)
{
    const AqOp ops[] = {AQ_OP_add, AQ_OP_sub, AQ_OP_mul, AQ_OP_max, AQ_OP_min};
    int i = pick(w);
    double bound, other;
    AqOp op = ops[below(w, AQ_COUNT(ops))];
    AqId y = like(w, w->value[i], &other);
    bound = op == AQ_OP_mul ? w->bound[i] * other : w->bound[i] + other;
    keep(w, aq_binary(w->g, op, w->value[i], y), bound);
}

/* Whole numbers of x's shape: an index less a constant. */
static AqId whole_like(Grower *w, AqId x)
{
    AqType type = *type_of(w, x);
    if (type.rank == 0)
        return aq_const_node(w->g, &type, (double)below(w, 5) - 2);
    type.element = AQ_I32;
    int axis = (int)below(w, type.rank);
    AqId index = aq_iota_node(w->g, &type, axis);
    double shift = (double)below(w, type.dim[axis]);
    index =
        aq_binary(w->g, AQ_OP_sub, index, aq_const_like(w->g, index, shift));
    return aq_cast_node(w->g, index, AQ_F32);
}

static void make_choice(Grower *w)
{
    const AqOp ops[] = {AQ_OP_less, AQ_OP_less_equal, AQ_OP_equal};
    const AqOp jumps[] = {AQ_OP_floor, AQ_OP_sign};
    int i = pick(w);
    double bound;
    AqId x = w->value[i], y = like(w, x, &bound), whole = whole_like(w, x);
    AqId condition =
        aq_binary(w->g, ops[below(w, 3)], whole, aq_const_like(w->g, whole, 0));
    if (one_in(w, 3))
        keep(w, aq_unary(w->g, jumps[below(w, 2)], whole), 17);
    keep(w, aq_select_node(w->g, condition, x, y), fmax(w->bound[i], bound));
}

/* ---- reductions ---- */

static int random_axes(Grower *w, int rank, int64_t *axes)
{
    int count = 0;
    for (int i = 0; i < rank; i++)
        if (one_in(w, 2))
            axes[count++] = i;
    return count;
}

static void make_reduction(Grower *w)
{
    int i = pick(w);
    AqId x = w->value[i];
    int64_t axes[AQ_MAX_RANK];
    int n_axes = random_axes(w, type_of(w, x)->rank, axes);
    if (n_axes == 0)
        return;
    if (one_in(w, 3)) {
        keep(w, aq_reduce_node(w->g, AQ_OP_reduce_max, x, axes, n_axes),
             w->bound[i]);
    } else if (one_in(w, 2)) {
        AqId sum = aq_reduce_node(w->g, AQ_OP_reduce_sum, x, axes, n_axes);
        double parts = (double)aq_elements(type_of(w, x)) /
                       (double)aq_elements(type_of(w, sum));
        keep(w, sum, w->bound[i] * sqrt(parts));
    } else {
        AqAttr attr = aq_ints(AQ_KEY_AXES, axes, n_axes);
        AqId both = aq_build(w->g, AQ_OP_moments, NULL, &x, 1, &attr, 1);
        keep(w, aq_result_node(w->g, both, 0), w->bound[i]);
        keep(w,
             aq_unary(w->g, AQ_OP_rsqrt,
                      one_and_square(w, aq_result_node(w->g, both, 1))),
             1);
    }
}

/* ---- movement ---- */

static void make_reshape(Grower *w)
{
    int i = pick(w);
    const AqType *type = type_of(w, w->value[i]);
    int64_t dim[AQ_MAX_RANK];
    int rank = 0, joined = (int)below(w, AQ_MAX(type->rank, 1));
    for (int j = 0; j < type->rank; j++) {
        if (j == joined && rank > 0)
            dim[rank - 1] *= type->dim[j];
        else if (type->dim[j] % 2 == 0 && type->rank < 5 && one_in(w, 2))
            dim[rank++] = type->dim[j] / 2, dim[rank++] = 2;
        else
            dim[rank++] = type->dim[j];
    }
    keep(w, aq_reshape_node(w->g, w->value[i], rank, dim), w->bound[i]);
}

static void make_transpose(Grower *w)
{
    int i = pick(w), rank = type_of(w, w->value[i])->rank;
    int64_t perm[AQ_MAX_RANK];
    for (int j = 0; j < rank; j++) {
        int64_t at = below(w, j + 1);
        perm[j] = perm[at];
        perm[at] = j;
    }
    keep(w, aq_transpose_node(w->g, w->value[i], perm), w->bound[i]);
}

static void make_cut(Grower *w)
{
    int i = pick(w);
    const AqType *type = type_of(w, w->value[i]);
    int64_t start[AQ_MAX_RANK], size[AQ_MAX_RANK], step[AQ_MAX_RANK];
    for (int j = 0; j < type->rank; j++) {
        start[j] = below(w, type->dim[j]);
        step[j] = 1 + below(w, 3);
        size[j] = 1 + below(w, (type->dim[j] - 1 - start[j]) / step[j] + 1);
    }
    keep(w, aq_slice_node(w->g, w->value[i], start, size, step), w->bound[i]);
}

static void make_frame(Grower *w)
{
    int i = pick(w);
    const AqType *type = type_of(w, w->value[i]);
    int64_t start[AQ_MAX_RANK], size[AQ_MAX_RANK], step[AQ_MAX_RANK];
    for (int j = 0; j < type->rank; j++) {
        start[j] = below(w, 3);
        step[j] = one_in(w, 3) ? 2 : 1;
        size[j] = start[j] + (type->dim[j] - 1) * step[j] + 1 + below(w, 2);
    }
    keep(w, aq_pad_node(w->g, w->value[i], start, step, size), w->bound[i]);
}

static void make_broadcast(Grower *w)
{
    int i = pick(w);
    const AqType *type = type_of(w, w->value[i]);
    if (type->rank > 3)
        return;
    int64_t ones[AQ_MAX_RANK], dim[AQ_MAX_RANK];
    int rank = type->rank + 1, at = (int)below(w, rank);
    for (int j = 0; j < rank; j++) {
        ones[j] = j == at ? 1 : type->dim[j - (j > at)];
        dim[j] = j == at ? 1 + below(w, 8) : ones[j];
    }
    AqId x = aq_reshape_node(w->g, w->value[i], rank, ones);
    keep(w, aq_broadcast_node(w->g, x, rank, dim), w->bound[i]);
}

static void make_concat(Grower *w)
{
    int i = pick(w);
    AqId x = w->value[i];
    if (type_of(w, x)->rank == 0)
        return;
    double first, second;
    AqId parts[3] = {x, like(w, x, &first), like(w, x, &second)};
    keep(w,
         aq_concat_node(w->g, parts, 1 + (int)below(w, 3),
                        (int)below(w, type_of(w, x)->rank)),
         fmax(w->bound[i], fmax(first, second)));
}

static void make_repeat(Grower *w)
{
    int i = pick(w);
    int64_t factor[AQ_MAX_RANK];
    for (int j = 0; j < type_of(w, w->value[i])->rank; j++)
        factor[j] = ONE_OF(w, 1, 1, 2, 3);
    keep(w, aq_repeat_node(w->g, w->value[i], factor), w->bound[i]);
}

/* ---- look-up ---- */

static AqId index_node(Grower *w, int64_t count, int64_t rows)
{
    double data[32];
    AqType type = I32(count);
    for (int64_t i = 0; i < count; i++)
        data[i] = (double)below(w, rows);
    return aq_table_node(w->g, &type, data);
}

static void make_lookup(Grower *w)
{
    int i = pick(w);
    AqType type = *type_of(w, w->value[i]);
    if (type.rank == 0 || type.dim[0] > 32)
        return;
    bool gathers = one_in(w, 2);
    int64_t rows = gathers ? type.dim[0] : 1 + below(w, 9);
    AqId index = index_node(w, gathers ? 1 + below(w, 9) : type.dim[0], rows);
    AqId gather[] = {w->value[i], index}, scatter[] = {index, w->value[i]};
    double all = w->bound[i] * (double)type.dim[0];
    type.dim[0] = rows;
    if (gathers)
        keep(w, aq_build(w->g, AQ_OP_gather, NULL, gather, 2, NULL, 0),
             w->bound[i]);
    else
        keep(w, aq_build(w->g, AQ_OP_scatter_add, &type, scatter, 2, NULL, 0),
             all);
}

/* ---- contractions ---- */

static void make_matmul(Grower *w)
{
    int i = pick(w);
    const AqType *type = type_of(w, w->value[i]);
    if (type->rank < 2)
        return;
    bool ta = one_in(w, 2), tb = one_in(w, 2);
    AqType other = *type;
    int64_t k = type->dim[type->rank - (ta ? 2 : 1)];
    int64_t n = ONE_OF(w, 1, 3, 8, 17);
    other.dim[other.rank - 2] = tb ? n : k;
    other.dim[other.rank - 1] = tb ? k : n;
    AqId y = source(w, AQ_OP_param, other);
    keep(w, aq_matmul_node(w->g, w->value[i], y, ta, tb),
         w->bound[i] * 0.3 * sqrt((double)k));
}

static void make_conv(Grower *w)
{
    AqId x = image(w);
    AqType type = *type_of(w, x);
    int64_t groups = one_in(w, 3) && type.dim[3] % 2 == 0 ? 2 : 1;
    int64_t stride[] = {ONE_OF(w, 1, 1, 2), ONE_OF(w, 1, 1, 2)};
    int64_t pad[] = {2, below(w, 3), below(w, 3), 2};
    AqType kernel = F32(ONE_OF(w, 1, 3, 3), ONE_OF(w, 1, 2, 3),
                        type.dim[3] / groups, groups * ONE_OF(w, 1, 3, 8));
    AqId inputs[] = {x, source(w, AQ_OP_param, kernel)};
    AqAttr attrs[] = {aq_ints(AQ_KEY_STRIDE, stride, 2),
                      aq_ints(AQ_KEY_PAD, pad, 4),
                      aq_int(AQ_KEY_GROUPS, groups)};
    AqId y = aq_build(w->g, AQ_OP_conv2d, NULL, inputs, 2, attrs, 3);
    AqId dy = aq_unary(w->g, AQ_OP_sin, y);
    AqId back[] = {dy, inputs[1]}, both[] = {x, dy};
    keep(w, y, 10);
    if (one_in(w, 3))
        keep(w,
             aq_build(w->g, AQ_OP_conv2d_input_gradient, &type, back, 2, attrs,
                      3),
             10);
    if (one_in(w, 3))
        keep(w,
             aq_build(w->g, AQ_OP_conv2d_weight_gradient, &kernel, both, 2,
                      attrs, 3),
             100);
}

static void make_attention(Grower *w)
{
    AqId q = image(w);
    AqType type = *type_of(w, q), keys = type;
    keys.dim[1] = ONE_OF(w, 1, 3, 8, 11);
    AqType bias = F32(1, type.dim[2], type.dim[1], keys.dim[1]);
    AqId in[] = {q, source(w, AQ_OP_input, keys), source(w, AQ_OP_input, keys),
                 AQ_NO_NODE};
    int n_inputs = one_in(w, 2) ? 4 : 3;
    if (n_inputs == 4)
        in[3] = source(w, AQ_OP_input, bias);
    AqAttr attrs[] = {aq_real(AQ_KEY_SCALE, 0.25),
                      aq_int(AQ_KEY_CAUSAL, one_in(w, 3))};
    AqId all = aq_build(w->g, AQ_OP_attention, NULL, in, n_inputs, attrs, 2);
    AqId out = aq_result_node(w->g, all, 0), lse = aq_result_node(w->g, all, 1);
    keep(w, out, 4);
    keep(w, lse, 8);
    if (one_in(w, 2))
        return;
    AqId back[] = {q,    in[1], in[2], out, lse, aq_unary(w->g, AQ_OP_cos, out),
                   in[3]};
    all = aq_build(w->g, AQ_OP_attention_gradient, NULL, back, n_inputs + 3,
                   attrs, 2);
    for (int i = 0; i < 3; i++)
        keep(w, aq_result_node(w->g, all, i), 10);
}

/* ---- draws ---- */

static void make_draw(Grower *w)
{
    if (w->place[0] == AQ_NO_NODE) {
        w->place[0] = source(w, AQ_OP_input, I32(2));
        w->place[1] = source(w, AQ_OP_input, aq_type(AQ_I32, 0, NULL));
        w->place[2] = source(w, AQ_OP_input, I32(4));
    }
    AqType type = random_type(w, 1 + (int)below(w, 3));
    type.dim[0] = 4;
    AqAttr attrs[] = {aq_text(AQ_KEY_KIND, one_in(w, 2) ? "normal" : "uniform"),
                      aq_int(AQ_KEY_STREAM, below(w, 1 << 30))};
    keep(w, aq_build(w->g, AQ_OP_random, &type, w->place, 3, attrs, 2), 4);
}

/* ---- the whole ---- */

static void make_source(Grower *w)
{
    keep(w, source(w, AQ_OP_input, random_type(w, (int)below(w, 5))), 3);
}

typedef void Maker(Grower *w);

static Maker *const makers[] = {
    make_unary,     make_unary,     make_limited, make_binary,
    make_binary,    make_binary,    make_choice,  make_reduction,
    make_reduction, make_reshape,   make_cut,     make_transpose,
    make_frame,     make_broadcast, make_concat,  make_broadcast,
    make_repeat,    make_lookup,    make_matmul,  make_conv,
    make_attention, make_draw,      make_source,
};

static void add_outputs(Grower *w)
{
    int uses[4 * POOL];
    assert_true(w->g->count <= AQ_COUNT(uses));
    aq_count_uses(w->g, uses);
    int last = w->count - 1, outputs = 0;
    AqType type = *type_of(w, w->value[last]);
    AqId state = source(w, AQ_OP_state, type);
    const char *name = aq_attr_text(aq_node(w->g, state), AQ_KEY_NAME, "");
    aq_graph_output(w->g, name,
                    aq_binary(w->g, AQ_OP_add, state, w->value[last]), true);
    for (int i = 0; i < w->count; i++) {
        char text[20];
        snprintf(text, sizeof text, "out%d", outputs);
        if (uses[w->value[i]] > 0)
            continue;
        uses[w->value[i]] = 1; /* interned values lie in the pool twice */
        aq_graph_output(w->g, text, w->value[i], false);
        outputs++;
    }
}

AqGraph *aq_test_random_graph(uint64_t seed, int steps)
{
    Grower w = {.g = aq_graph_new(), .seed = seed, .place = {AQ_NO_NODE}};
    assert_non_null(w.g);
    w.g->scope = "random";
    w.g->file = "random_graph.c";
    make_source(&w);
    make_source(&w);
    for (int i = 0; i < steps; i++) {
        w.g->line = i;
        makers[below(&w, AQ_COUNT(makers))](&w);
    }
    add_outputs(&w);
    if (w.g->error.status != AQ_OK)
        fail_msg("seed %llu: %s", (unsigned long long)seed, w.g->error.text);
    return w.g;
}
