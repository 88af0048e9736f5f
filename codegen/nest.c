/* Chooses a map kernel's loops, by shapes and the target alone.
 *
 * Dimensions are joined where every access runs on through both (its factor for
 * the outer one is its factor for the inner one times the inner extent), so
 * that vectors are long.  A vector that fills its registers badly takes in the
 * next dimension all the same, at the price of divisions. */
#include "codegen/map.h"

enum {
    TASK_ELEMENTS = 16384, /* at least about this much work a task */
    MOST_COPIES = 8,       /* of a body in the innermost loop */
};

typedef struct Joins {
    AqIndexTable *t;
    int32_t atom[AQ_MAX_RANK]; /* of the dimension's variable, -1: extent 1 */
    bool apart[AQ_MAX_RANK];   /* dimension i cannot run on into i + 1 */
    const AqType *domain;
} Joins;

static int64_t direct_factor(const AqSum *sum, int32_t atom)
{
    for (int i = 0; i < sum->count; i++)
        if (sum->terms[i].atom == atom)
            return sum->terms[i].factor;
    return 0;
}

/* Does the variable occur within a quotient or remainder? */
static bool occurs_inside(const AqIndexTable *t, const AqSum *sum, int32_t atom,
                          bool inside)
{
    for (int i = 0; i < sum->count; i++) {
        const AqAtom *a = &t->atoms[sum->terms[i].atom];
        if (inside && sum->terms[i].atom == atom)
            return true;
        bool part = a->kind == AQ_ATOM_QUOTIENT || a->kind == AQ_ATOM_REMAINDER;
        if (part && occurs_inside(t, &t->sums[a->inner], atom, true))
            return true;
    }
    return false;
}

static void look_at_access(void *context, AqIndex access)
{
    Joins *joins = context;
    const AqSum *sum = &joins->t->sums[access];
    const AqType *domain = joins->domain;
    for (int i = 0, next; i < domain->rank; i = next) {
        for (next = i + 1; next < domain->rank && joins->atom[next] < 0;)
            next++;
        if (next == domain->rank || joins->atom[i] < 0)
            continue;
        int64_t outer = direct_factor(sum, joins->atom[i]);
        int64_t inner = direct_factor(sum, joins->atom[next]);
        if (outer != inner * domain->dim[next] ||
            occurs_inside(joins->t, sum, joins->atom[i], false) ||
            occurs_inside(joins->t, sum, joins->atom[next], false))
            joins->apart[i] = true;
    }
}

static void walk_value(AqIndexWalk *walk, const AqType *domain, AqId id,
                       const AqIndex *index)
{
    const AqType *type = &aq_node(walk->body, id)->type;
    AqIndex other[AQ_MAX_RANK], offset = aq_index_constant(walk->t, 0);
    if (aq_same_shape(type, domain)) {
        aq_index_walk(walk, id, index);
        return;
    }
    for (int i = 0; i < domain->rank; i++) {
        offset = aq_index_scale(walk->t, offset, domain->dim[i]);
        offset = aq_index_add(walk->t, offset, index[i]);
    }
    aq_expr_unravel(walk->t, type, offset, other);
    aq_index_walk(walk, id, other);
}

/* Finds out which neighbouring dimensions may be joined. */
static bool find_joins(const AqMap *map, AqArena *arena, Joins *joins)
{
    AqIndex index[AQ_MAX_RANK];
    *joins = (Joins){.t = aq_index_table(arena, 1), .domain = &map->domain};
    AqIndexWalk walk = {.body = map->body,
                        .t = joins->t,
                        .seen = aq_memo_new(arena),
                        .visit = look_at_access,
                        .context = joins};
    if (!joins->t || !walk.seen)
        return false;
    for (int i = 0; i < map->domain.rank; i++) {
        index[i] =
            aq_index_variable(joins->t, NULL, 0, map->domain.dim[i] - 1, 0);
        const AqSum *sum = &joins->t->sums[index[i]];
        joins->atom[i] = sum->count ? sum->terms[0].atom : -1;
    }
    for (int i = 0; i < map->n_outputs; i++)
        if (map->outputs[i].value >= 0)
            walk_value(&walk, &map->domain, map->outputs[i].value, index);
    for (int i = 0; i < map->n_reducers; i++)
        walk_value(&walk, &map->domain, map->reducers[i].value, index);
    return !joins->t->failed;
}

/* ---- the vector ---- */

static bool fills_badly(const AqMap *map, int64_t extent)
{
    int64_t blocks = (extent + map->lanes - 1) / map->lanes;
    return 10 * extent < 6 * blocks * map->lanes;
}

/* Takes in dimensions before `first` that are reduced or kept as wanted. */
static void extend(AqMap *map, const Joins *joins, bool reduced)
{
    for (int i = map->first - 1; i >= 0; i--) {
        int64_t extent = map->domain.dim[i];
        if (extent == 1) {
            map->first = i;
            continue;
        }
        bool same = map->reduced[i] == reduced;
        if (!same || (joins->apart[i] && !fills_badly(map, map->extent)))
            return;
        map->first = i;
        map->extent *= extent;
    }
}

static bool power_of_two(int64_t n)
{
    return n > 0 && (n & (n - 1)) == 0;
}

static void choose_vector(AqMap *map, const Joins *joins)
{
    int rank = map->domain.rank, last = rank - 1;
    while (last > 0 && map->domain.dim[last] == 1)
        last--;
    map->first = rank > 0 ? last : 0;
    map->extent = rank > 0 ? map->domain.dim[last] : 1;
    map->inner = 1;
    /* a single element may be taken as kept: there is nothing to join */
    bool reduced = map->extent > 1 && map->reduced[last];
    map->vector_reduced = reduced;
    if (map->extent == 1)
        return;
    if (!reduced) {
        extend(map, joins, false);
        return;
    }
    /* few reduced neighbours: several kept ones share a register */
    AqMap whole = *map;
    while (whole.first > 0 && (whole.reduced[whole.first - 1] ||
                               whole.domain.dim[whole.first - 1] == 1))
        whole.extent *= whole.domain.dim[--whole.first];
    if (whole.extent < map->lanes && power_of_two(whole.extent) &&
        whole.first > 0) {
        map->first = whole.first;
        map->inner = (int)whole.extent;
        map->extent = whole.extent;
        map->vector_reduced = false;
        map->first--;
        map->extent *= map->domain.dim[map->first];
        extend(map, joins, false);
        return;
    }
    extend(map, joins, true);
}

/* ---- copies side by side, and tasks ---- */

static int copies_allowed(const AqMap *map, const AqTarget *target)
{
    int copies = target->registers >= 32 ? 16 : 8;
    int weight = 0;
    for (int i = 0; i < map->n_reducers; i++)
        weight += map->reducers[i].op == AQ_OP_moments ? 2 : 1;
    copies /= AQ_MAX(weight, 1);
    if (map->body->count > 30)
        copies = AQ_MIN(copies, 4);
    if (map->body->count > 100)
        copies = AQ_MIN(copies, 2);
    return AQ_MAX(AQ_MIN(copies, MOST_COPIES), 1);
}

static int largest_divisor(int64_t n, int limit)
{
    for (int d = limit; d > 1; d--)
        if (n % d == 0)
            return d;
    return 1;
}

static bool draws(const AqGraph *body)
{
    for (AqId id = 0; id < body->count; id++)
        if (aq_node(body, id)->op == AQ_OP_random)
            return true;
    return false;
}

static void choose_copies(AqMap *map, const AqTarget *target)
{
    map->unroll = map->batch = 1;
    if (map->n_reducers == 0) {
        /* one counter gives four random numbers: four blocks share them */
        if (draws(map->body))
            map->unroll = largest_divisor(map->full, 4);
        return;
    }
    bool moments = false;
    for (int i = 0; i < map->n_reducers; i++)
        moments = moments || map->reducers[i].op == AQ_OP_moments;
    int copies = copies_allowed(map, target);
    /* moments like batches, which share a division; sums like long vectors */
    if (!map->vector_reduced && map->full > 0)
        map->unroll =
            largest_divisor(map->full, moments ? AQ_MIN(copies, 2) : copies);
    map->batch = AQ_MAX(copies / map->unroll, moments ? 2 : 1);
}

static void choose_tasks(AqMap *map)
{
    int64_t row = map->extent * map->steps;
    map->rows_a_task = AQ_MAX((TASK_ELEMENTS + row - 1) / AQ_MAX(row, 1), 1);
    map->rows_a_task = AQ_MIN(map->rows_a_task, AQ_MAX(map->rows, 1));
    map->chunks = 1;
    map->blocks_a_chunk = AQ_MAX(map->full, 1);
    bool long_row = map->rows_a_task == 1 && row >= 2 * TASK_ELEMENTS;
    if (long_row && !map->vector_reduced && map->full > map->unroll) {
        int64_t work = map->steps * map->lanes * map->unroll;
        int64_t units = AQ_MAX(TASK_ELEMENTS / work, 1);
        map->blocks_a_chunk = units * map->unroll;
        map->chunks =
            (map->full + map->blocks_a_chunk - 1) / map->blocks_a_chunk;
    }
    map->tasks = (map->rows + map->rows_a_task - 1) / map->rows_a_task;
    map->tasks *= map->chunks;
}

bool aq_map_nest(AqMap *map, const AqTarget *target, AqArena *arena)
{
    Joins joins;
    if (!find_joins(map, arena, &joins))
        return false;
    choose_vector(map, &joins);
    map->rows = map->steps = 1;
    for (int i = 0; i < map->first; i++)
        *(map->reduced[i] ? &map->steps : &map->rows) *= map->domain.dim[i];
    if (aq_elements(&map->domain) == 0)
        map->rows = 0;
    map->blocks = (map->extent + map->lanes - 1) / map->lanes;
    map->full = map->extent / map->lanes;
    map->tail = (int)(map->extent - map->full * map->lanes);
    choose_copies(map, target);
    choose_tasks(map);
    return true;
}
