/* Which values get memory.
 *
 * Always: what contractions, attention, scatter, reductions and moments give,
 * what leaves the program, and what those kernels read that cannot compute
 * while they read.  A contraction also takes the pointwise work that follows it
 * and nobody else wants (its epilogue); then the end of that chain is stored
 * instead.
 * Never: constants, and movement, which is an index map of the reader.
 * By rule: a pointwise value is stored where it would be computed more often
 * than it has elements (it is broadcast), or again in several kernels at a cost
 * above COMPUTE_AGAIN. */
#include "passes/fuse.h"

enum {
    COMPUTE_AGAIN = 32,  /* operations worth a sweep through memory */
    EXPENSIVE_COST = 10, /* of an exponential, in plain operations */
    RANDOM_COST = 100,
    MANY_PARTS = 4, /* a concat of more is written in place */
    MOST_ROOTS = 4, /* kernels counted for one value */
    LARGE_COST = 1 << 20,
};

/* The kernels in which an inlined value would be computed. */
typedef struct Roots {
    int count; /* MOST_ROOTS: that many or more */
    uint64_t key[MOST_ROOTS];
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

static bool is_reduction(AqOp op)
{
    return op == AQ_OP_reduce_sum || op == AQ_OP_reduce_max ||
           op == AQ_OP_moments;
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
             kind == AQ_LOWER_scatter || is_reduction(node->op) ||
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

/* The only user of v, if that is pointwise work which may join v's kernel. */
static AqId next_of_chain(const Fuse *f, AqId v)
{
    if (f->uses[v] != 1 || f->user[v] < 0)
        return AQ_NO_NODE;
    AqId u = f->user[v];
    if (f->absorbed[u] >= 0 || f->role[u] == ROLE_SOURCE)
        return AQ_NO_NODE;
    const AqNode *node = node_of(f, u);
    bool same = aq_elements(&node->type) == aq_elements(&node_of(f, v)->type);
    bool free = node->op == AQ_OP_reshape && f->role[u] == ROLE_INLINE;
    return same && (has_fact(f, u, AQ_POINTWISE) || free) &&
                   node->type.element == AQ_F32
               ? u
               : AQ_NO_NODE;
}

static void absorb_epilogue(Fuse *f, AqId contraction)
{
    AqId end = contraction;
    for (AqId v = contraction; (v = next_of_chain(f, v)) >= 0;)
        if (has_fact(f, v, AQ_POINTWISE))
            end = v;
    for (AqId v = contraction; v != end;) {
        f->role[v] = ROLE_INLINE;
        f->absorbed[v] = contraction;
        v = f->user[v];
    }
    f->role[end] = ROLE_RESULT;
    f->absorbed[end] = contraction;
}

/* ---- what the remaining pointwise work costs ---- */

static void add_root(Roots *roots, uint64_t key)
{
    for (int i = 0; i < roots->count; i++)
        if (roots->key[i] == key)
            return;
    if (roots->count < MOST_ROOTS)
        roots->key[roots->count++] = key;
}

/* Sibling reductions over one domain become one kernel. */
static uint64_t root_key(const Fuse *f, AqId user)
{
    const AqNode *node = node_of(f, user);
    if (f->absorbed[user] >= 0)
        return (uint64_t)f->absorbed[user];
    if (!is_reduction(node->op))
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

/* Contractions read their operands several times, through index maps alone. */
static void store_operands(Fuse *f, AqId id)
{
    const AqNode *node = node_of(f, id);
    if (lowering(f, id) == AQ_LOWER_contract || expands(f, id))
        for (int i = 0; i < node->n_inputs; i++)
            store_computed(f, node->inputs[i]);
    if (node->op == AQ_OP_gather) {
        AqId table = moved_from(f, node->inputs[0]);
        if (!is_constant(f, table))
            store_computed(f, table);
    }
}

static void store_by_cost(Fuse *f, AqId v, const Roots *roots)
{
    if (aq_fuse_is_stored(f, v) || roots->count < 2 || is_constant(f, v) ||
        f->absorbed[v] >= 0)
        return;
    f->stamp++;
    if (has_fact(f, v, AQ_MOVES))
        return;
    if (cost(f, v) * (roots->count - 1) > COMPUTE_AGAIN)
        store(f, v);
}

static void pass_roots(Fuse *f, AqId v, Roots *roots)
{
    const AqNode *node = node_of(f, v);
    bool root = aq_fuse_is_stored(f, v) || f->absorbed[v] >= 0;
    for (int i = 0; i < node->n_inputs; i++) {
        Roots *to = &roots[node->inputs[i]];
        if (root)
            add_root(to, root_key(f, v));
        for (int k = 0; !root && k < roots[v].count; k++)
            add_root(to, roots[v].key[k]);
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
