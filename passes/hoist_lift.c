/* Ops on values for all numbers of the runs at once: a rule for each op.
 *
 * `all` says that the result depends on the number: inputs that do not are
 * repeated for all of them, but for a product's right side, a look-up's table
 * and a convolution's weights, which all numbers share.  There samples of all
 * numbers stand one behind the other, so a hundred small products are one.
 * An op without a rule computes what does not depend on the number, as it
 * stands. */
#include "passes/hoist.h"

typedef bool Rule(AqLift *l, const AqNode *node, bool all, AqLifted *out);

AqType aq_lift_narrow(const AqType *type, uint32_t equal)
{
    AqType narrow = *type;
    for (int i = 0; i < type->rank; i++)
        if (equal >> i & 1)
            narrow.dim[i] = 1;
    return narrow;
}

AqType aq_lift_type(const AqType *type, int64_t size)
{
    AqType wide = {.element = type->element, .rank = type->rank + 1};
    wide.dim[0] = size;
    for (int i = 0; i < type->rank; i++)
        wide.dim[i + 1] = type->dim[i];
    return wide;
}

static const AqType *type_of(const AqLift *l, AqId id)
{
    return &aq_node(l->in, id)->type;
}

static const AqLifted *value_of(const AqLift *l, AqId id)
{
    return &l->values[id];
}

/* Axes that are equal because they are one element long say nothing. */
static uint32_t worth_telling(const AqType *type, uint32_t equal)
{
    for (int i = 0; i < type->rank; i++)
        if (type->dim[i] == 1)
            equal &= ~(1u << i);
    return equal;
}

static AqType full_type(const AqLift *l, const AqType *type, uint32_t equal,
                        bool all)
{
    AqType narrow = aq_lift_narrow(type, equal);
    return all ? aq_lift_type(&narrow, l->numbers) : narrow;
}

/* An input with `equal` axes of size 1, no others, and one of all numbers. */
static AqId bring(AqLift *l, AqId id, uint32_t equal, bool all)
{
    AqLifted v = *value_of(l, id);
    AqType have = aq_lift_narrow(type_of(l, id), v.equal);
    AqType wanted = full_type(l, type_of(l, id), equal, all || v.all);
    if (v.all)
        have = aq_lift_type(&have, l->numbers);
    else if (all)
        have = aq_lift_type(&have, 1);
    AqId x = aq_reshape_like(l->out, v.id, &have);
    return aq_broadcast_node(l->out, x, wanted.rank, wanted.dim);
}

/* ---- attributes with an axis more ---- */

enum { ROOM = AQ_MAX_RANK + 1 };

/* `list` behind one element more; `more` is how much its numbers grow. */
static int shift(const int64_t *list, int count, bool all, int64_t first,
                 int64_t more, int64_t *out)
{
    int n = 0;
    if (all)
        out[n++] = first;
    for (int i = 0; i < count; i++)
        out[n++] = list[i] + (all ? more : 0);
    return n;
}

/* ---- sources ---- */

static bool lift_const(AqLift *l, const AqNode *node, bool all, AqLifted *out)
{
    (void)all;
    out->equal = worth_telling(&node->type, ~0u);
    AqType narrow = aq_lift_narrow(&node->type, out->equal);
    out->id =
        aq_const_node(l->out, &narrow, aq_attr_real(node, AQ_KEY_VALUE, 0));
    return true;
}

static bool lift_iota(AqLift *l, const AqNode *node, bool all, AqLifted *out)
{
    (void)all;
    int64_t axis = aq_attr_int(node, AQ_KEY_AXIS, 0);
    out->equal = worth_telling(&node->type, ~(1u << axis));
    AqType narrow = aq_lift_narrow(&node->type, out->equal);
    out->id = aq_iota_node(l->out, &narrow, (int)axis);
    return true;
}

/* ---- elements one by one, reductions ---- */

static bool lift_pointwise(AqLift *l, const AqNode *node, bool all,
                           AqLifted *out)
{
    AqId inputs[3];
    out->equal = ~0u;
    for (int i = 0; i < node->n_inputs; i++)
        out->equal &= value_of(l, node->inputs[i])->equal;
    for (int i = 0; i < node->n_inputs; i++)
        inputs[i] = bring(l, node->inputs[i], out->equal, all);
    AqType type = full_type(l, &node->type, out->equal, all);
    out->id = aq_build(l->out, node->op, &type, inputs, node->n_inputs,
                       node->attrs, node->n_attrs);
    return true;
}

static bool lift_reduction(AqLift *l, const AqNode *node, bool all,
                           AqLifted *out)
{
    int64_t axes[ROOM] = {0};
    const AqAttr *given = aq_attr(node, AQ_KEY_AXES);
    for (int i = 0; i < given->count; i++)
        axes[i] = given->ints[i] + all;
    AqAttr attr = aq_ints(AQ_KEY_AXES, axes, given->count);
    AqId x = bring(l, node->inputs[0], 0, all);
    out->id = aq_build(l->out, node->op, NULL, &x, 1, &attr, 1);
    return true;
}

/* ---- movement ---- */

/* The same element order, so an axis of the result is one of the input where
 * as many elements stand before it, and it is as long. */
static bool lift_reshape(AqLift *l, const AqNode *node, bool all, AqLifted *out)
{
    const AqType *from = type_of(l, node->inputs[0]), *to = &node->type;
    uint32_t equal = value_of(l, node->inputs[0])->equal, kept = 0;
    int64_t before = 1, before_to = 1;
    for (int i = 0, j = 0; i < from->rank; before *= from->dim[i++]) {
        if (!(equal >> i & 1))
            continue;
        while (j < to->rank && (before_to < before || to->dim[j] == 1))
            before_to *= to->dim[j++];
        if (j < to->rank && before_to == before && to->dim[j] == from->dim[i]) {
            kept |= 1u << i;
            out->equal |= 1u << j;
        }
    }
    AqType type = full_type(l, to, out->equal, all);
    out->id =
        aq_reshape_like(l->out, bring(l, node->inputs[0], kept, all), &type);
    return true;
}

/* Nothing is repeated yet. */
static bool lift_broadcast(AqLift *l, const AqNode *node, bool all,
                           AqLifted *out)
{
    (void)all;
    const AqType *from = type_of(l, node->inputs[0]);
    *out = *value_of(l, node->inputs[0]);
    for (int i = 0; i < from->rank; i++)
        if (from->dim[i] == 1)
            out->equal |= 1u << i;
    out->equal = worth_telling(&node->type, out->equal);
    return true;
}

static bool lift_transpose(AqLift *l, const AqNode *node, bool all,
                           AqLifted *out)
{
    int64_t perm[ROOM];
    const AqAttr *given = aq_attr(node, AQ_KEY_PERM);
    uint32_t equal = value_of(l, node->inputs[0])->equal;
    shift(given->ints, given->count, all, 0, 1, perm);
    for (int i = 0; i < given->count; i++)
        out->equal |= (equal >> given->ints[i] & 1) << i;
    out->id =
        aq_transpose_node(l->out, bring(l, node->inputs[0], equal, all), perm);
    return true;
}

/* slice, pad */
static bool lift_window(AqLift *l, const AqNode *node, bool all, AqLifted *out)
{
    int64_t start[ROOM] = {0}, step[ROOM] = {1};
    const AqType *from = type_of(l, node->inputs[0]);
    uint32_t equal = value_of(l, node->inputs[0])->equal;
    for (int i = 0; node->op == AQ_OP_pad && i < from->rank; i++)
        if (node->type.dim[i] != from->dim[i])
            equal &= ~(1u << i);
    for (int i = 0; i < from->rank; i++) {
        bool one = equal >> i & 1;
        start[i + all] = one ? 0 : aq_attr_at(node, AQ_KEY_START, i, 0);
        step[i + all] = one ? 1 : aq_attr_at(node, AQ_KEY_STEP, i, 1);
    }
    AqId x = bring(l, node->inputs[0], equal, all);
    AqType type = full_type(l, &node->type, equal, all);
    AqAttr attrs[] = {aq_ints(AQ_KEY_START, start, type.rank),
                      aq_ints(AQ_KEY_STEP, step, type.rank)};
    out->equal = worth_telling(&node->type, equal);
    out->id = aq_build(l->out, node->op, &type, &x, 1, attrs, 2);
    return true;
}

static bool lift_concat(AqLift *l, const AqNode *node, bool all, AqLifted *out)
{
    AqId *parts = AQ_NEW_ARRAY(l->out->arena, AqId, node->n_inputs);
    int64_t axis = aq_attr_int(node, AQ_KEY_AXIS, 0);
    bool same = true; /* x after x */
    out->equal = ~0u;
    for (int i = 0; i < node->n_inputs; i++) {
        out->equal &= value_of(l, node->inputs[i])->equal;
        same = same && node->inputs[i] == node->inputs[0];
    }
    if (same && out->equal >> axis & 1) {
        *out = *value_of(l, node->inputs[0]);
        return true;
    }
    out->equal &= ~(1u << axis);
    for (int i = 0; parts && i < node->n_inputs; i++)
        parts[i] = bring(l, node->inputs[i], out->equal, all);
    if (parts)
        out->id =
            aq_concat_node(l->out, parts, node->n_inputs, (int)axis + all);
    return parts != NULL;
}

static bool lift_repeat(AqLift *l, const AqNode *node, bool all, AqLifted *out)
{
    int64_t factor[ROOM] = {1};
    uint32_t equal = value_of(l, node->inputs[0])->equal;
    for (int i = 0; i < node->type.rank; i++)
        factor[i + all] =
            equal >> i & 1 ? 1 : aq_attr_at(node, AQ_KEY_FACTOR, i, 1);
    out->equal = equal;
    out->id =
        aq_repeat_node(l->out, bring(l, node->inputs[0], equal, all), factor);
    return true;
}

/* ---- look-up ---- */

static bool lift_gather(AqLift *l, const AqNode *node, bool all, AqLifted *out)
{
    const AqLifted *table = value_of(l, node->inputs[0]);
    const AqLifted *index = value_of(l, node->inputs[1]);
    int rank = type_of(l, node->inputs[1])->rank;
    if (table->all)
        return false;
    uint32_t rows = table->equal & ~1u;
    out->equal = index->equal | rows >> 1 << rank;
    AqId inputs[] = {bring(l, node->inputs[0], rows, false),
                     bring(l, node->inputs[1], index->equal, all)};
    out->id = aq_build(l->out, AQ_OP_gather, NULL, inputs, 2, NULL, 0);
    return true;
}

/* ---- contractions ---- */

/* (S, m, k) or (S, k, m) by (k, n), n and k perhaps exchanged: one product */
static AqId join_products(AqGraph *g, AqId a, AqId b, bool ta, bool tb)
{
    const int64_t exchange[] = {0, 2, 1};
    if (ta)
        a = aq_transpose_node(g, a, exchange);
    if (a == AQ_NO_NODE)
        return a;
    AqType type = aq_node(g, a)->type;
    const int64_t flat[] = {type.dim[0] * type.dim[1], type.dim[2]};
    AqId y = aq_matmul_node(g, aq_reshape_node(g, a, 2, flat), b, false, tb);
    if (y == AQ_NO_NODE)
        return y;
    type.dim[2] = aq_node(g, y)->type.dim[1];
    return aq_reshape_like(g, y, &type);
}

static bool lift_matmul(AqLift *l, const AqNode *node, bool all, AqLifted *out)
{
    bool ta = aq_attr_int(node, AQ_KEY_TA, 0);
    bool tb = aq_attr_int(node, AQ_KEY_TB, 0);
    const AqLifted *a = value_of(l, node->inputs[0]);
    const AqLifted *b = value_of(l, node->inputs[1]);
    int rank = node->type.rank, row = rank - (ta ? 1 : 2);
    bool equal = a->equal >> row & 1;
    bool shared = all && !b->all && rank == 2;
    AqId x = bring(l, node->inputs[0], equal ? 1u << row : 0, all);
    AqId y = bring(l, node->inputs[1], 0, all && !shared);
    out->equal = equal ? 1u << (rank - 2) : 0;
    out->id = shared ? join_products(l->out, x, y, ta, tb)
                     : aq_matmul_node(l->out, x, y, ta, tb);
    return true;
}

/* (S, N, ...) -> (S N, ...) */
static AqId fold(AqGraph *g, AqId x)
{
    if (x == AQ_NO_NODE)
        return x;
    AqType type = aq_node(g, x)->type, folded = type;
    folded.rank--;
    for (int i = 1; i < folded.rank; i++)
        folded.dim[i] = type.dim[i + 1];
    folded.dim[0] = type.dim[0] * type.dim[1];
    folded.dim[folded.rank] = 0;
    return aq_reshape_like(g, x, &folded);
}

/* conv2d and its gradient in x: samples by weights */
static bool lift_samples(AqLift *l, const AqNode *node, bool all, AqLifted *out)
{
    if (value_of(l, node->inputs[1])->all)
        return false;
    out->equal = value_of(l, node->inputs[0])->equal & 1;
    AqId x = bring(l, node->inputs[0], out->equal, all);
    AqId inputs[] = {all ? fold(l->out, x) : x,
                     bring(l, node->inputs[1], 0, false)};
    AqType type = aq_lift_narrow(&node->type, out->equal), folded = type;
    folded.dim[0] *= all ? l->numbers : 1;
    out->id = aq_build(l->out, node->op, &folded, inputs, 2, node->attrs,
                       node->n_attrs);
    if (all) {
        type = aq_lift_type(&type, l->numbers);
        out->id = aq_reshape_like(l->out, out->id, &type);
    }
    return true;
}

/* ---- attention, and ops with several results ---- */

/* Every input but a bias begins with the samples; a bias may have one for all.
 */
static bool lift_attention(AqLift *l, const AqNode *node, bool all,
                           AqLifted *out)
{
    AqId inputs[7];
    int64_t samples = type_of(l, node->inputs[0])->dim[0];
    for (int i = 0; i < node->n_inputs; i++) {
        const AqType *type = type_of(l, node->inputs[i]);
        bool shared = type->dim[0] != samples;
        if (shared && all && value_of(l, node->inputs[i])->all)
            return false;
        inputs[i] = bring(l, node->inputs[i], 0, all && !shared);
        if (all && !shared)
            inputs[i] = fold(l->out, inputs[i]);
    }
    out->id = aq_build(l->out, node->op, NULL, inputs, node->n_inputs,
                       node->attrs, node->n_attrs);
    return true;
}

static bool lift_result(AqLift *l, const AqNode *node, bool all, AqLifted *out)
{
    AqType type = full_type(l, &node->type, 0, all);
    AqId x = aq_result_node(l->out, value_of(l, node->inputs[0])->id,
                            (int)aq_attr_int(node, AQ_KEY_INDEX, 0));
    out->id = aq_reshape_like(l->out, x, &type);
    return true;
}

/* ---- all of them ---- */

static Rule *const rules[AQ_OP_COUNT] = {
    [AQ_OP_const] = lift_const,
    [AQ_OP_iota] = lift_iota,
    [AQ_OP_reduce_sum] = lift_reduction,
    [AQ_OP_reduce_max] = lift_reduction,
    [AQ_OP_moments] = lift_reduction,
    [AQ_OP_reshape] = lift_reshape,
    [AQ_OP_transpose] = lift_transpose,
    [AQ_OP_slice] = lift_window,
    [AQ_OP_pad] = lift_window,
    [AQ_OP_broadcast] = lift_broadcast,
    [AQ_OP_concat] = lift_concat,
    [AQ_OP_repeat] = lift_repeat,
    [AQ_OP_gather] = lift_gather,
    [AQ_OP_matmul] = lift_matmul,
    [AQ_OP_conv2d] = lift_samples,
    [AQ_OP_conv2d_input_gradient] = lift_samples,
    [AQ_OP_attention] = lift_attention,
    [AQ_OP_attention_gradient] = lift_attention,
    [AQ_OP_result] = lift_result,
};

static bool lift_as_it_stands(AqLift *l, const AqNode *node, bool all,
                              AqLifted *out)
{
    AqId *inputs = AQ_NEW_ARRAY(l->out->arena, AqId, node->n_inputs + 1);
    if (all || !inputs)
        return false;
    for (int i = 0; i < node->n_inputs; i++) {
        AqId input = node->inputs[i];
        inputs[i] = type_of(l, input)->element == AQ_RESULTS
                        ? value_of(l, input)->id
                        : bring(l, input, 0, false);
    }
    out->id = aq_build(l->out, node->op, &node->type, inputs, node->n_inputs,
                       node->attrs, node->n_attrs);
    return true;
}

bool aq_lift_node(AqLift *l, AqId id)
{
    const AqNode *node = aq_node(l->in, id);
    AqLifted out = {.id = AQ_NO_NODE};
    int rank = node->type.rank;
    for (int i = 0; i < node->n_inputs; i++) {
        out.all = out.all || value_of(l, node->inputs[i])->all;
        rank = AQ_MAX(rank, type_of(l, node->inputs[i])->rank);
    }
    if (out.all && rank == AQ_MAX_RANK)
        return false;
    Rule *rule = rules[node->op];
    if (!rule && aq_op_info[node->op].facts & AQ_POINTWISE)
        rule = lift_pointwise;
    if (!rule)
        rule = lift_as_it_stands;
    aq_graph_place(l->out, node);
    if (!rule(l, node, out.all, &out) || out.id == AQ_NO_NODE)
        return false;
    l->values[id] = out;
    return true;
}
