/* Large reductions become two smaller ones.
 *
 * A kernel's tasks own elements of the result, so a reduction of millions of
 * elements to a few would be one task.  Here the first reduced axes, n elements
 * in all, are cut into `parts` of n / parts, each part is reduced, and the
 * parts are joined by a second, small reduction:
 *
 *     sum over (H,W) of (N,H,W,C):
 *         (N,parts,H*W/parts,C) -> (N,parts,C) -> (N,C)
 *     moments (Chan): mean = avg(mean_i),
 *         m2 = sum m2_i + n_i sum (mean_i - mean)^2
 *
 * A sum over the samples too keeps them apart at first, so that the gradient of
 * a bias and that of a time embedding share the large reduction:
 *
 *     sum over (N,H,W) of (N,H,W,C):
 *         (N,parts,H*W/parts,C) -> (N,parts,C) -> (C)
 *
 * or by (N,C), where the sum over (H,W) alone is not cut.
 *
 * What a contraction's kernel may sum itself is left whole.  A sum over a
 * concat of many whole stretches (all gradients) is that over sums of its
 * parts, each down to the part's last dimension:
 *
 *     sum (f(concat(a, b))) = sum (concat(sum over rows of f(a), f(b)))
 *
 * The cut depends on the shape alone.  Where n has no suitable divisor a sum or
 * maximum is cut into two slices first.
 * Needs: nothing.  Keeps: values up to rounding.  Idempotent. */
#include "passes/passes.h"

#include <string.h>

enum {
    ENOUGH_TASKS = 16, /* results' outer size that needs no split */
    MOST_PARTS = 128,
    LEAST_PART = 1 << 14, /* elements of a part, over all axes */
    LEAST_PARTS = 5,      /* a divisor may miss the wish by a factor of 4, and
                           * what it leaves must not be cut again */
};

typedef struct Split {
    const AqGraph *in;
    AqGraph *out;
    AqId *map;
    AqArena *scratch;
} Split;

typedef struct Reduction {
    AqOp op;
    AqType from;
    int64_t axes[AQ_MAX_RANK];
    int n_axes;
    int run;      /* leading reduced axes that are neighbours */
    int64_t size; /* elements of that run */
} Reduction;

static Reduction describe(const AqGraph *g, const AqNode *node)
{
    Reduction r = {.op = node->op, .from = aq_node(g, node->inputs[0])->type};
    const AqAttr *axes = aq_attr(node, AQ_KEY_AXES);
    r.n_axes = axes->count;
    for (int i = 0; i < r.n_axes; i++)
        r.axes[i] = axes->ints[i];
    r.size = 1;
    while (r.run < r.n_axes && r.axes[r.run] == r.axes[0] + r.run)
        r.size *= r.from.dim[r.axes[r.run++]];
    return r;
}

static bool is_reduced(const Reduction *r, int axis)
{
    for (int i = 0; i < r->n_axes; i++)
        if (r->axes[i] == axis)
            return true;
    return false;
}

/* Results over all kept axes but the last, which vectors run along. */
static int64_t outer_results(const Reduction *r)
{
    int64_t count = 1;
    for (int i = 0; i < r->from.rank - 1; i++)
        if (!is_reduced(r, i))
            count *= r->from.dim[i];
    return count;
}

/* How many parts are wanted; 1: leave it. */
static int64_t wanted_parts(const Reduction *r)
{
    int64_t outer = outer_results(r), all = aq_elements(&r->from);
    if (r->n_axes == 0 || outer >= ENOUGH_TASKS || r->size <= MOST_PARTS)
        return 1;
    int64_t most = AQ_MIN(all / LEAST_PART, (int64_t)MOST_PARTS) / outer;
    return AQ_MIN(most, r->size);
}

/* The largest divisor of n not above most. */
static int64_t divisor(int64_t n, int64_t most)
{
    for (int64_t d = most; d > 1; d--)
        if (n % d == 0)
            return d;
    return 1;
}

/* Cuts the leading run into (parts, size / parts): the axes of the inner
 * reduction are all but the new first one. */
static AqId cut(Split *s, const Reduction *r, AqId x, int64_t parts,
                int64_t *axes, int *n_axes)
{
    int64_t dim[AQ_MAX_RANK + 1];
    int rank = 0, first = (int)r->axes[0];
    for (int i = 0; i < first; i++)
        dim[rank++] = r->from.dim[i];
    dim[rank++] = parts;
    dim[rank++] = r->size / parts;
    for (int i = first + r->run; i < r->from.rank; i++)
        dim[rank++] = r->from.dim[i];
    *n_axes = 0;
    axes[(*n_axes)++] = first + 1;
    for (int i = r->run; i < r->n_axes; i++)
        axes[(*n_axes)++] = r->axes[i] + 2 - r->run;
    return aq_reshape_node(s->out, x, rank, dim);
}

static bool rank_allows(const Reduction *r)
{
    return r->from.rank - r->run + 2 <= AQ_MAX_RANK;
}

/* `outer`: the samples (axis 0) are still to be summed at the end. */
static AqId split_plain(Split *s, const Reduction *r, AqId x, int64_t parts,
                        bool outer)
{
    int64_t axes[AQ_MAX_RANK], last[2] = {0, 1};
    int n_axes;
    AqId pieces = cut(s, r, x, parts, axes, &n_axes);
    pieces = aq_reduce_node(s->out, r->op, pieces, axes, n_axes);
    return aq_reduce_node(s->out, r->op, pieces, outer ? last : &r->axes[0],
                          outer ? 2 : 1);
}

/* The reduction of each sample by itself. */
static Reduction within_samples(const Reduction *r)
{
    Reduction inner = *r;
    inner.n_axes--;
    inner.run--;
    inner.size /= r->from.dim[0];
    for (int i = 0; i < inner.n_axes; i++)
        inner.axes[i] = r->axes[i + 1];
    return inner;
}

static int64_t reduced_elements(const Reduction *r)
{
    int64_t count = 1;
    for (int i = 0; i < r->n_axes; i++)
        count *= r->from.dim[r->axes[i]];
    return count;
}

static AqId split_moments(Split *s, const Reduction *r, AqId x, int64_t parts,
                          AqId *m2)
{
    AqGraph *g = s->out;
    int64_t axes[AQ_MAX_RANK], first = r->axes[0];
    int n_axes;
    AqId pieces = cut(s, r, x, parts, axes, &n_axes);
    pieces = aq_reduce_node(g, AQ_OP_moments, pieces, axes, n_axes);
    AqId mean_i = aq_result_node(g, pieces, 0);
    AqId m2_i = aq_result_node(g, pieces, 1);
    if (mean_i < 0 || m2_i < 0)
        return AQ_NO_NODE;
    AqType type = aq_node(g, mean_i)->type;
    AqId sum = aq_reduce_node(g, AQ_OP_reduce_sum, mean_i, &first, 1);
    AqId mean = aq_binary(g, AQ_OP_mul, sum,
                          aq_const_like(g, sum, 1.0 / (double)parts));
    AqId away = aq_binary(g, AQ_OP_sub, mean_i,
                          aq_expand_node(g, mean, &type, &first, 1));
    double n_i = (double)(reduced_elements(r) / parts);
    AqId square = aq_binary(g, AQ_OP_mul, away, away);
    AqId scaled =
        aq_binary(g, AQ_OP_mul, square, aq_const_like(g, square, n_i));
    AqId both = aq_binary(g, AQ_OP_add, m2_i, scaled);
    *m2 = aq_reduce_node(g, AQ_OP_reduce_sum, both, &first, 1);
    return mean;
}

/* A vector (n) of no suitable divisor: its head of `parts` equal parts, and the
 * few elements left. */
static AqId split_ragged(Split *s, const Reduction *r, AqId x, int64_t parts)
{
    AqGraph *g = s->out;
    int64_t zero = 0, one = 1, head = r->size / parts * parts;
    int64_t rest = r->size - head;
    Reduction even = *r;
    even.size = even.from.dim[0] = head;
    AqId a = split_plain(s, &even, aq_slice_node(g, x, &zero, &head, &one),
                         parts, false);
    AqId b = aq_reduce_node(g, r->op, aq_slice_node(g, x, &head, &rest, &one),
                            &zero, 1);
    AqOp join = r->op == AQ_OP_reduce_sum ? AQ_OP_add : AQ_OP_max;
    return aq_binary(g, join, a, b);
}

/* Every sample by itself, then the samples. */
static AqId split_samples(Split *s, const Reduction *inner, AqId x)
{
    int64_t first = 0;
    AqId each =
        aq_reduce_node(s->out, inner->op, x, inner->axes, inner->n_axes);
    return aq_reduce_node(s->out, inner->op, each, &first, 1);
}

/* Whether that reduction of the same value is there. */
static bool is_there(const Split *s, const AqNode *node, const Reduction *r)
{
    for (AqId id = 0; id < s->in->count; id++) {
        const AqNode *other = aq_node(s->in, id);
        const AqAttr *axes = aq_attr(other, AQ_KEY_AXES);
        if (other->op == r->op && other->inputs[0] == node->inputs[0] &&
            axes->count == r->n_axes &&
            !memcmp(axes->ints, r->axes, (size_t)r->n_axes * sizeof *r->axes))
            return true;
    }
    return false;
}

/* ---- sums over joined parts ---- */

enum { MOST_OPERANDS = 3 }; /* of pointwise work */

/* The one concat of many parts that pointwise work behind `id` reads, or
 * AQ_NO_NODE. */
static AqId joined_behind(const Split *s, AqId id, int depth)
{
    enum { MANY_PARTS = 4, MOST_DEPTH = 4 };
    const AqNode *node = aq_node(s->in, id);
    AqId found = AQ_NO_NODE;
    if (node->op == AQ_OP_concat)
        return node->n_inputs > MANY_PARTS && node->type.rank == 1 ? id
                                                                   : AQ_NO_NODE;
    if (!(aq_op_info[node->op].facts & AQ_POINTWISE) || depth == MOST_DEPTH ||
        node->n_inputs > MOST_OPERANDS)
        return AQ_NO_NODE;
    for (int i = 0; i < node->n_inputs; i++) {
        AqId input = node->inputs[i];
        if (aq_node(s->in, input)->op == AQ_OP_const)
            continue;
        AqId behind = joined_behind(s, input, depth + 1);
        if (behind == AQ_NO_NODE || (found != AQ_NO_NODE && found != behind))
            return AQ_NO_NODE;
        found = behind;
    }
    return found;
}

/* The pointwise work behind `id`, of `part` in place of what is joined. */
static AqId of_part(Split *s, AqId id, AqId joined, AqId part)
{
    AqId inputs[MOST_OPERANDS];
    const AqNode *node = aq_node(s->in, id);
    const AqType *type = &aq_node(s->out, part)->type;
    if (id == joined)
        return part;
    if (node->op == AQ_OP_const)
        return aq_const_like(s->out, part, aq_attr_real(node, AQ_KEY_VALUE, 0));
    for (int i = 0; i < node->n_inputs; i++)
        inputs[i] = of_part(s, node->inputs[i], joined, part);
    return aq_build(s->out, node->op, type, inputs, node->n_inputs, node->attrs,
                    node->n_attrs);
}

/* Before it became a stretch of memory. */
static AqId before_reshape(const Split *s, AqId id)
{
    while (aq_node(s->out, id)->op == AQ_OP_reshape)
        id = aq_node(s->out, id)->inputs[0];
    return id;
}

static AqId split_joined(Split *s, AqId value, AqId joined)
{
    AqGraph *g = s->out;
    const AqNode *concat = aq_node(s->in, joined);
    int64_t axes[AQ_MAX_RANK];
    AqId *parts = AQ_NEW_ARRAY(s->scratch, AqId, concat->n_inputs);
    if (!parts)
        return AQ_NO_NODE;
    for (int d = 0; d < AQ_MAX_RANK; d++)
        axes[d] = d;
    for (int i = 0; i < concat->n_inputs; i++) {
        AqId part = before_reshape(s, s->map[concat->inputs[i]]);
        AqId of = of_part(s, value, joined, part);
        int rank = aq_node(g, part)->type.rank;
        if (rank > 1)
            of = aq_reduce_node(g, AQ_OP_reduce_sum, of, axes, rank - 1);
        else if (rank == 0)
            of = aq_reshape_node(g, of, 1, (int64_t[]){1});
        parts[i] = of;
    }
    return aq_reduce_node(g, AQ_OP_reduce_sum,
                          aq_concat_node(g, parts, concat->n_inputs, 0), axes,
                          1);
}

static AqId split_sum(Split *s, AqId id)
{
    const AqNode *node = aq_node(s->in, id);
    Reduction r = describe(s->in, node);
    AqId x = s->map[node->inputs[0]];
    AqId joined = node->op == AQ_OP_reduce_sum && r.from.rank == 1
                      ? joined_behind(s, node->inputs[0], 0)
                      : AQ_NO_NODE;
    if (joined != AQ_NO_NODE)
        return split_joined(s, node->inputs[0], joined);
    int64_t wanted = aq_sums_contraction(s->in, id) ? 1 : wanted_parts(&r);
    int64_t parts = divisor(r.size, wanted);
    if (r.run > 1 && r.axes[0] == 0 && wanted < LEAST_PARTS) {
        Reduction inner = within_samples(&r);
        if (is_there(s, node, &inner))
            return split_samples(s, &inner, x);
    }
    if (wanted < LEAST_PARTS || !rank_allows(&r))
        return AQ_NO_NODE;
    if (r.run > 1 && r.axes[0] == 0 && r.from.dim[0] < wanted) {
        Reduction inner = within_samples(&r);
        if (wanted_parts(&inner) < LEAST_PARTS)
            return split_samples(s, &inner, x);
        parts = divisor(inner.size, AQ_MAX(wanted / r.from.dim[0], 1));
        return split_plain(s, &inner, x, parts, true);
    }
    if (parts * 4 >= wanted)
        return split_plain(s, &r, x, parts, false);
    if (r.from.rank == 1)
        return split_ragged(s, &r, x, wanted);
    return AQ_NO_NODE;
}

/* moments: both results at once, remembered under the old results' ids. */
static bool split_results(Split *s, AqId id)
{
    const AqNode *node = aq_node(s->in, id);
    Reduction r = describe(s->in, node);
    int64_t wanted = wanted_parts(&r), parts = divisor(r.size, wanted);
    if (wanted < LEAST_PARTS || parts * 4 < wanted || !rank_allows(&r))
        return false;
    AqId m2 = AQ_NO_NODE;
    AqId mean = split_moments(s, &r, s->map[node->inputs[0]], parts, &m2);
    for (AqId i = id + 1; i < s->in->count; i++) {
        const AqNode *user = aq_node(s->in, i);
        if (user->op == AQ_OP_result && user->inputs[0] == id)
            s->map[i] = aq_attr_int(user, AQ_KEY_INDEX, 0) ? m2 : mean;
    }
    return true;
}

static void split_node(Split *s, AqId id)
{
    const AqNode *node = aq_node(s->in, id);
    aq_graph_place(s->out, node);
    if (node->op == AQ_OP_moments && !aq_sums_contraction(s->in, id) &&
        split_results(s, id))
        return;
    if (node->op == AQ_OP_reduce_sum || node->op == AQ_OP_reduce_max)
        s->map[id] = split_sum(s, id);
    if (s->map[id] == AQ_NO_NODE)
        s->map[id] = aq_graph_copy_node(s->out, s->in, id, s->map);
}

AqStatus aq_split(const AqGraph *in, AqGraph *out, AqPassContext *cx)
{
    AqArena *scratch = aq_arena_new();
    bool *live = scratch ? AQ_NEW_ARRAY(scratch, bool, in->count) : NULL;
    AqId *map = live ? AQ_NEW_ARRAY(scratch, AqId, in->count) : NULL;
    if (!map) {
        aq_arena_free(scratch);
        return aq_no_memory(cx->error, (size_t)in->count * sizeof *map);
    }
    Split s = {.in = in, .out = out, .map = map, .scratch = scratch};
    aq_mark_live(in, live);
    for (AqId id = 0; id < in->count; id++)
        map[id] = AQ_NO_NODE;
    for (AqId id = 0; id < in->count && !out->error.status; id++)
        if (live[id] && map[id] == AQ_NO_NODE)
            split_node(&s, id);
    for (int i = 0; i < in->n_outputs && !out->error.status; i++)
        aq_graph_output(out, in->outputs[i].name, map[in->outputs[i].node],
                        in->outputs[i].update);
    aq_arena_free(scratch);
    return out->error.status;
}
