/* Which values get memory.
 *
 * Always: what contractions, attention, scatter, reductions and moments give,
 * what leaves the program, and what those kernels read that cannot compute
 * while they read.  A contraction also takes the pointwise work that follows it
 * up to where all its uses have met (its epilogue); then that is stored
 * instead. Never: constants, and movement, which is an index map of the reader.
 * By rule: a pointwise value is stored where it would be computed more often
 * than it has elements (it is broadcast), or again, in several kernels or by
 * several tasks of one, at a cost above COMPUTE_AGAIN.  What stands before a
 * contraction is computed by the tasks that read it, so that a normalised or
 * concatenated tensor need not be stored. */
#include "passes/fuse.h"

enum {
    COMPUTE_AGAIN = 48,  /* operations worth a sweep through memory: 0.8 ns an
                          * element, a vector of 16 at 1.5 a cycle, 10 GB/s */
    EXPENSIVE_COST = 10, /* of an exponential, in plain operations */
    RANDOM_COST = 100,
    MANY_PARTS = 4, /* a concat of more is written in place */
    MOST_ROOTS = 8, /* kernels counted for one value, the last with others */
    LARGE_COST = 1 << 20,
    BLOCK = 512, /* rows or columns of a contraction's block, roughly */
};

/* The kernels in which an inlined value would be computed, and how often each
 * would compute an element. */
typedef struct Roots {
    int count;
    uint64_t key[MOST_ROOTS];
    double times[MOST_ROOTS];
} Roots;

static const AqNode *node_of(const Fuse *f, AqId id)
{
    return aq_node(f->in, id);
}

static bool has_fact(const Fuse *f, AqId id, unsigned fact)
{
    return aq_op_info[node_of(f, id)->op].facts & fact;
}

static AqLowering lowering(const Fuse *f, AqId id)
{
    return aq_op_info[node_of(f, id)->op].lowering;
}

static bool is_constant(const Fuse *f, AqId id)
{
    AqOp op = node_of(f, id)->op;
    return op == AQ_OP_const || op == AQ_OP_table || op == AQ_OP_iota;
}

AqId aq_fuse_base(const Fuse *f, AqId id)
{
    while (f->role[id] == ROLE_ALIAS && node_of(f, id)->op == AQ_OP_reshape)
        id = node_of(f, id)->inputs[0];
    return id;
}

/* Movement skipped, towards the value that is computed. */
static AqId moved_from(const Fuse *f, AqId id)
{
    while (!aq_fuse_is_stored(f, id) && has_fact(f, id, AQ_MOVES) &&
           node_of(f, id)->op != AQ_OP_concat)
        id = node_of(f, id)->inputs[0];
    return id;
}

/* Memory for this very node, without a copy where a reshape will do. */
static void store(Fuse *f, AqId id)
{
    while (f->role[id] == ROLE_INLINE) {
        if (node_of(f, id)->op != AQ_OP_reshape ||
            is_constant(f, node_of(f, id)->inputs[0])) {
            f->role[id] = ROLE_RESULT;
            return;
        }
        f->role[id] = ROLE_ALIAS;
        id = node_of(f, id)->inputs[0];
    }
}

/* Memory for what is computed behind movement; the movement stays free. */
static void store_computed(Fuse *f, AqId id)
{
    id = moved_from(f, id);
    if (aq_fuse_is_stored(f, id) || is_constant(f, id))
        return;
    if (node_of(f, id)->op != AQ_OP_concat) {
        store(f, id);
        return;
    }
    for (int i = 0; i < node_of(f, id)->n_inputs; i++)
        store_computed(f, node_of(f, id)->inputs[i]);
}

/* A concat whose parts are whole stretches of memory, too many for a reader to
 * choose from: its parts are written where they belong. */
static bool is_placed_concat(const Fuse *f, AqId id)
{
    const AqNode *node = node_of(f, id);
    if (node->op != AQ_OP_concat || node->n_inputs <= MANY_PARTS)
        return false;
    for (int64_t i = 0, axis = aq_attr_int(node, AQ_KEY_AXIS, 0); i < axis; i++)
        if (node->type.dim[i] != 1)
            return false;
    return true;
}

static void store_fixed(Fuse *f, AqId id)
{
    const AqNode *node = node_of(f, id);
    AqLowering kind = lowering(f, id);
    if (has_fact(f, id, AQ_SOURCE))
        f->role[id] = ROLE_SOURCE;
    else if (kind == AQ_LOWER_contract || node->op == AQ_OP_result ||
             kind == AQ_LOWER_scatter || has_fact(f, id, AQ_REDUCES) ||
             kind == AQ_LOWER_attend)
        f->role[id] = ROLE_RESULT;
    if (kind == AQ_LOWER_attend || kind == AQ_LOWER_scatter)
        for (int i = 0; i < node->n_inputs; i++)
            store(f, node->inputs[i]);
    if (is_placed_concat(f, id)) {
        f->role[id] = ROLE_ALIAS;
        for (int i = 0; i < node->n_inputs; i++)
            store(f, node->inputs[i]);
    }
}

/* ---- epilogues ---- */

/* Whether u, which uses what a contraction gives, may be part of its epilogue.
 */
static bool may_follow(const Fuse *f, AqId contraction, AqId u)
{
    const AqNode *node = node_of(f, u);
    bool same =
        aq_elements(&node->type) == aq_elements(&node_of(f, contraction)->type);
    bool free = node->op == AQ_OP_reshape && f->role[u] == ROLE_INLINE;
    return f->absorbed[u] < 0 && f->role[u] != ROLE_SOURCE && same &&
           node->type.element == AQ_F32 &&
           (has_fact(f, u, AQ_POINTWISE) || free);
}

static int uses_of_visited(const Fuse *f, AqId u)
{
    const AqNode *node = node_of(f, u);
    int uses = 0;
    for (int i = 0; i < node->n_inputs; i++)
        uses += f->visited[node->inputs[i]] == f->stamp;
    return uses;
}

/* The last node in which all uses of the contraction meet, nothing but
 * pointwise work of one size lying between; what lies there is visited. */
static AqId end_of_epilogue(Fuse *f, AqId contraction)
{
    enum { MOST = 64 };
    AqId end = contraction;
    int waiting = f->uses[contraction], count = 0;
    f->visited[contraction] = ++f->stamp;
    for (AqId u = contraction + 1; u < f->in->count && waiting > 0; u++) {
        int uses = f->live[u] ? uses_of_visited(f, u) : 0;
        if (uses == 0)
            continue;
        if (!may_follow(f, contraction, u) || count++ == MOST)
            break;
        f->visited[u] = f->stamp;
        waiting -= uses;
        if (waiting == 0 && has_fact(f, u, AQ_POINTWISE))
            end = u;
        waiting += f->uses[u];
    }
    return end;
}

static void absorb_epilogue(Fuse *f, AqId contraction)
{
    AqId end = end_of_epilogue(f, contraction);
    for (AqId v = contraction; v <= end; v++) {
        if (f->visited[v] != f->stamp)
            continue;
        f->role[v] = ROLE_INLINE;
        f->absorbed[v] = contraction;
    }
    f->role[end] = ROLE_RESULT;
    f->absorbed[end] = contraction;
}

/* ---- what the remaining pointwise work costs ---- */

static void add_root(Roots *roots, uint64_t key, double times)
{
    for (int i = 0; i < roots->count; i++)
        if (roots->key[i] == key) {
            roots->times[i] = AQ_MAX(roots->times[i], times);
            return;
        }
    if (roots->count == MOST_ROOTS) {
        roots->times[MOST_ROOTS - 1] += times;
        return;
    }
    roots->key[roots->count] = key;
    roots->times[roots->count++] = times;
}

static double times_computed(const Roots *roots)
{
    double sum = 0;
    for (int i = 0; i < roots->count; i++)
        sum += roots->times[i];
    return sum;
}

/* Sibling reductions over one domain become one kernel. */
static uint64_t root_key(const Fuse *f, AqId user)
{
    const AqNode *node = node_of(f, user);
    if (f->absorbed[user] >= 0)
        return (uint64_t)f->absorbed[user];
    if (!has_fact(f, user, AQ_REDUCES))
        return (uint64_t)user;
    struct {
        AqType type;
        int64_t axes[AQ_MAX_RANK];
    } domain = {.type = node_of(f, node->inputs[0])->type};
    const AqAttr *axes = aq_attr(node, AQ_KEY_AXES);
    for (int i = 0; i < axes->count; i++)
        domain.axes[i] = axes->ints[i] + 1;
    return aq_hash64(&domain, sizeof domain) | (uint64_t)1 << 63;
}

/* Operands are computed apart from each other, and from an epilogue. */
static uint64_t operand_key(AqId contraction, int i)
{
    return (uint64_t)contraction | (uint64_t)(i + 1) << 32;
}

static int own_cost(const Fuse *f, AqId id)
{
    if (node_of(f, id)->op == AQ_OP_random)
        return RANDOM_COST;
    if (has_fact(f, id, AQ_EXPENSIVE))
        return EXPENSIVE_COST;
    return has_fact(f, id, AQ_POINTWISE) ? 1 : 0;
}

/* The cost of v where nothing more is stored; stored values are free. */
static int cost(Fuse *f, AqId v)
{
    if (aq_fuse_is_stored(f, v) || f->visited[v] == f->stamp)
        return 0;
    f->visited[v] = f->stamp;
    int sum = own_cost(f, v);
    const AqNode *node = node_of(f, v);
    for (int i = 0; i < node->n_inputs && sum < LARGE_COST; i++)
        sum += cost(f, node->inputs[i]);
    return sum;
}

/* Whether u reads v more often than v has elements. */
static bool expands(const Fuse *f, AqId u)
{
    const AqNode *node = node_of(f, u);
    if (node->op != AQ_OP_broadcast && node->op != AQ_OP_repeat)
        return false;
    return aq_elements(&node->type) >
           aq_elements(&node_of(f, node->inputs[0])->type);
}

/* ---- what stands before a contraction ---- */

static int64_t blocks(int64_t extent)
{
    return (extent + BLOCK - 1) / BLOCK;
}

/* How often operand `i` would be computed by the tasks of a contraction: once
 * for each block of the other side of the result, and the pixels next to a
 * block of a convolution again.  0: it must be there before. */
static double times_evaluated(const Fuse *f, AqId contraction, int i)
{
    enum { AGAIN_AT_EDGES = 4 }; /* one in so many */
    const AqNode *node = node_of(f, contraction);
    const AqType *y = &node->type, *other = &node_of(f, node->inputs[1])->type;
    int64_t columns = y->dim[y->rank - 1];
    switch (node->op) {
    case AQ_OP_matmul:
        if (i == 0)
            return (double)blocks(columns);
        return aq_attr_int(node, AQ_KEY_TA, 0) &&
                       !aq_attr_int(node, AQ_KEY_TB, 0)
                   ? (double)blocks(y->dim[y->rank - 2])
                   : 0;
    case AQ_OP_conv2d_weight_gradient:
        columns = i == 0 ? columns : y->dim[2];
        other = y;
        break;
    default:
        if (i == 1)
            return 0;
    }
    bool point = other->dim[0] == 1 && other->dim[1] == 1;
    return (double)blocks(columns) * (point ? 1 : 1 + 1.0 / AGAIN_AT_EDGES);
}

/* Whether rows along the last dimension stay rows on the way from the values
 * that are computed. */
static bool keeps_rows(const Fuse *f, AqId id)
{
    const AqNode *node = node_of(f, id);
    if (aq_fuse_is_stored(f, id) || !has_fact(f, id, AQ_MOVES))
        return true;
    int last = node->type.rank - 1;
    const AqType *from = &node_of(f, node->inputs[0])->type;
    if (last < 0 || from->rank == 0)
        return false;
    switch (node->op) {
    case AQ_OP_reshape:
        if (from->dim[from->rank - 1] != node->type.dim[last])
            return false;
        break;
    case AQ_OP_transpose:
        if (aq_attr_at(node, AQ_KEY_PERM, last, last) != last)
            return false;
        break;
    case AQ_OP_slice:
    case AQ_OP_pad:
        if (aq_attr_at(node, AQ_KEY_STEP, last, 1) != 1)
            return false;
        break;
    case AQ_OP_repeat:
        if (aq_attr_at(node, AQ_KEY_FACTOR, last, 1) != 1)
            return false;
        break;
    default:
        break;
    }
    for (int i = 0; i < node->n_inputs; i++)
        if (!keeps_rows(f, node->inputs[i]))
            return false;
    return true;
}

static void store_operands(Fuse *f, AqId id)
{
    const AqNode *node = node_of(f, id);
    bool contracts = lowering(f, id) == AQ_LOWER_contract;
    for (int i = 0; i < node->n_inputs; i++) {
        AqId input = node->inputs[i];
        if (expands(f, id) || (contracts && (times_evaluated(f, id, i) == 0 ||
                                             !keeps_rows(f, input))))
            store_computed(f, input);
    }
    if (node->op == AQ_OP_gather) {
        AqId table = moved_from(f, node->inputs[0]);
        if (!is_constant(f, table))
            store_computed(f, table);
    }
}

static void store_by_cost(Fuse *f, AqId v, const Roots *roots)
{
    double times = times_computed(roots);
    if (aq_fuse_is_stored(f, v) || times <= 1 || is_constant(f, v) ||
        f->absorbed[v] >= 0)
        return;
    f->stamp++;
    if (has_fact(f, v, AQ_MOVES))
        return;
    if (cost(f, v) * (times - 1) > COMPUTE_AGAIN)
        store(f, v);
}

static void pass_roots(Fuse *f, AqId v, Roots *roots)
{
    const AqNode *node = node_of(f, v);
    bool root = aq_fuse_is_stored(f, v) || f->absorbed[v] >= 0;
    for (int i = 0; i < node->n_inputs; i++) {
        Roots *to = &roots[node->inputs[i]];
        if (root && lowering(f, v) == AQ_LOWER_contract)
            add_root(to, operand_key(v, i), times_evaluated(f, v, i));
        else if (root)
            add_root(to, root_key(f, v), 1);
        for (int k = 0; !root && k < roots[v].count; k++)
            add_root(to, roots[v].key[k], roots[v].times[k]);
    }
}

void aq_fuse_decide(Fuse *f)
{
    Roots *roots = AQ_NEW_ARRAY(f->arena, Roots, f->in->count);
    if (!roots) {
        aq_no_memory(f->error, sizeof(Roots) * (size_t)f->in->count);
        return;
    }
    for (AqId id = 0; id < f->in->count; id++)
        if (f->live[id])
            store_fixed(f, id);
    for (int i = 0; i < f->in->n_outputs; i++)
        store(f, f->in->outputs[i].node);
    for (AqId id = 0; id < f->in->count; id++)
        if (f->live[id])
            store_operands(f, id);
    for (AqId id = f->in->count; id-- > 0;)
        if (f->live[id] && lowering(f, id) == AQ_LOWER_contract)
            absorb_epilogue(f, id);
    for (AqId id = f->in->count; id-- > 0;) {
        if (!f->live[id])
            continue;
        store_by_cost(f, id, &roots[id]);
        pass_roots(f, id, roots);
    }
}
