/* Running values of reductions, in a fixed order.
 *
 * A sum or a maximum has `batch` accumulators a block, joined at the end.
 * Moments have (count, mean, m2) a lane, and take a batch in as a whole: its
 * own mean and squared deviations first, then Chan's formula n' = n + k, d =
 * mean_k - mean, mean' = mean + d k / n',  m2' = m2 + m2_k + d^2 n k / n' so
 * that nothing cancels. */
#include "codegen/map.h"

#include <math.h>

static LLVMValueRef add(AqEmit *e, LLVMValueRef a, LLVMValueRef b)
{
    return LLVMBuildFAdd(e->builder, a, b, "");
}

static LLVMValueRef sub(AqEmit *e, LLVMValueRef a, LLVMValueRef b)
{
    return LLVMBuildFSub(e->builder, a, b, "");
}

static LLVMValueRef mul(AqEmit *e, LLVMValueRef a, LLVMValueRef b)
{
    return LLVMBuildFMul(e->builder, a, b, "");
}

static LLVMValueRef choose(AqEmit *e, LLVMValueRef mask, LLVMValueRef a,
                           LLVMValueRef b)
{
    return mask ? aq_select_lanes(e, mask, a, b) : a;
}

/* ---- where a reducer's values stand ---- */

static int places_of(const AqMap *map, int reducer)
{
    return map->reducers[reducer].op == AQ_OP_moments ? 3 : map->batch;
}

static int place_of(const AqMap *map, int block, int reducer)
{
    int before = 0, all = 0;
    for (int i = 0; i < map->n_reducers; i++) {
        before += i < reducer ? places_of(map, i) : 0;
        all += places_of(map, i);
    }
    return block * all + before;
}

int aq_reduce_count(const AqMap *map)
{
    return place_of(map, map->unroll, 0);
}

/* ---- joins ---- */

static LLVMValueRef add_whole(AqEmit *e, LLVMValueRef a, LLVMValueRef b)
{
    return LLVMBuildAdd(e->builder, a, b, "");
}

static LLVMValueRef max_whole(AqEmit *e, LLVMValueRef a, LLVMValueRef b)
{
    LLVMValueRef first = LLVMBuildICmp(e->builder, LLVMIntSGT, a, b, "");
    return LLVMBuildSelect(e->builder, first, a, b, "");
}

static AqJoin *join_of(const AqReducer *reducer)
{
    if (reducer->op == AQ_OP_reduce_sum)
        return reducer->whole ? add_whole : add;
    return reducer->whole ? max_whole : aq_fmax;
}

static LLVMValueRef neutral(AqEmit *e, const AqMap *map,
                            const AqReducer *reducer)
{
    LLVMTypeRef type = aq_vector(reducer->whole ? e->i32 : e->f32, map->lanes);
    bool max = reducer->op == AQ_OP_reduce_max;
    return reducer->whole ? aq_int_of(e, type, max ? INT32_MIN : 0)
                          : aq_real_of(e, type, max ? -INFINITY : 0);
}

void aq_reduce_start(AqEmit *e, const AqMap *map, AqAccumulators *a)
{
    a->count = aq_reduce_count(map);
    for (int block = 0; block < map->unroll; block++)
        for (int r = 0; r < map->n_reducers; r++)
            for (int i = 0; i < places_of(map, r); i++)
                a->v[place_of(map, block, r) + i] =
                    neutral(e, map, &map->reducers[r]);
}

/* ---- moments ---- */

/* a + b + ... by a tree of fixed shape */
static LLVMValueRef sum_of(AqEmit *e, const LLVMValueRef *values, int count)
{
    if (count == 1)
        return values[0];
    int half = (count + 1) / 2;
    return add(e, sum_of(e, values, half),
               sum_of(e, values + half, count - half));
}

typedef struct Moments {
    LLVMValueRef n, mean, m2;
} Moments;

static Moments join_moments(AqEmit *e, Moments a, Moments b)
{
    LLVMTypeRef type = LLVMTypeOf(a.n);
    Moments both;
    both.n = add(e, a.n, b.n);
    /* of nothing and nothing the counts are zero, and so shall the share be */
    LLVMValueRef one = aq_real_of(e, type, 1);
    LLVMValueRef some = LLVMBuildFCmp(e->builder, LLVMRealOGT, both.n, one, "");
    LLVMValueRef by = LLVMBuildSelect(e->builder, some, both.n, one, "");
    LLVMValueRef share = LLVMBuildFDiv(e->builder, b.n, by, "");
    LLVMValueRef d = sub(e, b.mean, a.mean);
    both.mean = aq_fma(e, d, share, a.mean);
    LLVMValueRef cross = mul(e, mul(e, d, d), mul(e, a.n, share));
    both.m2 = add(e, add(e, a.m2, b.m2), cross);
    return both;
}

static Moments moments_of(AqEmit *e, const LLVMValueRef *values, int count)
{
    LLVMTypeRef type = LLVMTypeOf(values[0]);
    LLVMValueRef squares[AQ_MOST_BLOCKS], mean = sum_of(e, values, count);
    if (count > 1)
        mean = mul(e, mean, aq_real_of(e, type, 1.0 / count));
    for (int i = 0; i < count; i++) {
        LLVMValueRef d = sub(e, values[i], mean);
        squares[i] = mul(e, d, d);
    }
    return (Moments){aq_real_of(e, type, count), mean,
                     count > 1 ? sum_of(e, squares, count)
                               : aq_real_of(e, type, 0)};
}

static void step_moments(AqEmit *e, LLVMValueRef *at,
                         const LLVMValueRef *values, int batch,
                         LLVMValueRef mask)
{
    Moments old = {at[0], at[1], at[2]};
    Moments new = join_moments(e, old, moments_of(e, values, batch));
    at[0] = choose(e, mask, new.n, old.n);
    at[1] = choose(e, mask, new.mean, old.mean);
    at[2] = choose(e, mask, new.m2, old.m2);
}

/* ---- steps and the end ---- */

void aq_reduce_step(AqEmit *e, const AqMap *map, AqAccumulators *a, int block,
                    int r, const LLVMValueRef *values, int batch,
                    LLVMValueRef mask)
{
    const AqReducer *reducer = &map->reducers[r];
    LLVMValueRef *at = &a->v[place_of(map, block, r)];
    if (reducer->op == AQ_OP_moments) {
        step_moments(e, at, values, batch, mask);
        return;
    }
    for (int i = 0; i < batch; i++) {
        LLVMValueRef value =
            choose(e, mask, values[i], neutral(e, map, reducer));
        at[i] = join_of(reducer)(e, at[i], value);
    }
}

static LLVMValueRef join_all(AqEmit *e, const LLVMValueRef *values, int count,
                             AqJoin *join)
{
    if (count == 1)
        return values[0];
    int half = (count + 1) / 2;
    return join(e, join_all(e, values, half, join),
                join_all(e, values + half, count - half, join));
}

void aq_reduce_finish(AqEmit *e, const AqMap *map, const AqAccumulators *a,
                      int block, int r, int group, LLVMValueRef out[2])
{
    const AqReducer *reducer = &map->reducers[r];
    const LLVMValueRef *at = &a->v[place_of(map, block, r)];
    if (reducer->op != AQ_OP_moments) {
        AqJoin *join = join_of(reducer);
        out[0] = aq_tree(e, join_all(e, at, map->batch, join), group, join);
        out[1] = NULL;
        return;
    }
    Moments all = {at[0], at[1], at[2]};
    for (int half = group / 2; half > 0; half /= 2) {
        Moments other = {aq_shift_lanes(e, all.n, half),
                         aq_shift_lanes(e, all.mean, half),
                         aq_shift_lanes(e, all.m2, half)};
        all = join_moments(e, all, other);
    }
    out[0] = all.mean;
    out[1] = all.m2;
}
