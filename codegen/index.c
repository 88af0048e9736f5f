/* Integer expressions for addresses: sums of coefficient * atom + constant,
 * interned, so that equal ids are equal values; and their ranges.
 *
 * base + lane stands for a vector of neighbours; aq_index_vector tells the
 * range of the lanes that count, which is less than what its parts could reach.
 */
#include "codegen/index.h"

#include <stdlib.h>
#include <string.h>

/* ---- growing arrays in the arena ---- */

static void *grown(AqArena *arena, void *old, int count, int *capacity,
                   size_t size)
{
    if (count < *capacity)
        return old;
    int larger = AQ_MAX(64, 2 * *capacity);
    void *memory = aq_arena_array(arena, (size_t)larger, size);
    if (!memory)
        return NULL;
    if (count > 0)
        memcpy(memory, old, (size_t)count * size);
    *capacity = larger;
    return memory;
}

/* ---- interning ---- */

AqIndex aq_index_failed(AqIndexTable *t)
{
    t->failed = true;
    return 0;
}

static uint64_t hash_sum(const AqSum *sum)
{
    uint64_t hash = (uint64_t)sum->constant * 0x9E3779B97F4A7C15u;
    for (int i = 0; i < sum->count; i++) {
        hash ^= (uint64_t)sum->terms[i].factor * 0xC2B2AE3D27D4EB4Fu;
        hash = (hash ^ (uint64_t)sum->terms[i].atom) * 0x165667B19E3779F9u;
        hash ^= hash >> 29;
    }
    return hash;
}

static bool same_sum(const AqSum *a, const AqSum *b)
{
    if (a->constant != b->constant || a->count != b->count)
        return false;
    for (int i = 0; i < a->count; i++)
        if (a->terms[i].atom != b->terms[i].atom ||
            a->terms[i].factor != b->terms[i].factor)
            return false;
    return true;
}

static bool rehash(AqIndexTable *t)
{
    int size = AQ_MAX(256, 2 * t->hash_size);
    int32_t *table = AQ_NEW_ARRAY(t->arena, int32_t, size);
    if (!table)
        return false;
    for (int i = 0; i < t->n_sums; i++) {
        uint64_t at = hash_sum(&t->sums[i]);
        while (table[at & (uint64_t)(size - 1)])
            at++;
        table[at & (uint64_t)(size - 1)] = i + 1;
    }
    t->hash = table;
    t->hash_size = size;
    return true;
}

static void find_range(AqIndexTable *t, AqSum *sum);

/* Interns a sum whose terms are sorted by atom and not zero. */
AqIndex aq_index_intern(AqIndexTable *t, const AqSum *sum)
{
    if (2 * (t->n_sums + 1) > t->hash_size && !rehash(t))
        return aq_index_failed(t);
    uint64_t at = hash_sum(sum), mask = (uint64_t)t->hash_size - 1;
    for (; t->hash[at & mask]; at++)
        if (same_sum(&t->sums[t->hash[at & mask] - 1], sum))
            return t->hash[at & mask] - 1;
    void *sums =
        grown(t->arena, t->sums, t->n_sums, &t->sums_capacity, sizeof *t->sums);
    AqTerm *terms = AQ_NEW_ARRAY(t->arena, AqTerm, AQ_MAX(sum->count, 1));
    if (!sums || !terms)
        return aq_index_failed(t);
    t->sums = sums;
    if (sum->count > 0)
        memcpy(terms, sum->terms, (size_t)sum->count * sizeof *terms);
    AqSum *kept = &t->sums[t->n_sums];
    *kept =
        (AqSum){.constant = sum->constant, .count = sum->count, .terms = terms};
    for (int i = 0; i < kept->count; i++)
        kept->level = AQ_MAX(kept->level, t->atoms[kept->terms[i].atom].level);
    find_range(t, kept);
    t->hash[at & mask] = ++t->n_sums;
    return t->n_sums - 1;
}

AqIndex aq_index_constant(AqIndexTable *t, int64_t value)
{
    return aq_index_intern(t, &(AqSum){.constant = value});
}

static AqIndex single(AqIndexTable *t, int32_t atom)
{
    AqTerm term = {atom, 1};
    return aq_index_intern(t, &(AqSum){.count = 1, .terms = &term});
}

static bool same_atom(const AqAtom *a, const AqAtom *b)
{
    return a->kind == b->kind && a->inner == b->inner &&
           a->divisor == b->divisor && a->value == b->value &&
           (a->kind != AQ_ATOM_LANE || a->hi == b->hi);
}

AqIndex aq_index_atom(AqIndexTable *t, AqAtom atom)
{
    if (atom.lo == atom.hi && atom.kind != AQ_ATOM_LANE)
        return aq_index_constant(t, atom.lo);
    bool named = atom.kind == AQ_ATOM_QUOTIENT ||
                 atom.kind == AQ_ATOM_REMAINDER || atom.kind == AQ_ATOM_LANE ||
                 atom.value;
    for (int i = 0; named && i < t->n_atoms; i++)
        if (same_atom(&t->atoms[i], &atom))
            return single(t, i);
    void *atoms = grown(t->arena, t->atoms, t->n_atoms, &t->atoms_capacity,
                        sizeof *t->atoms);
    if (!atoms)
        return aq_index_failed(t);
    t->atoms = atoms;
    t->atoms[t->n_atoms] = atom;
    return single(t, t->n_atoms++);
}

/* Constants of LLVM's are one value wherever they were made. */
static int level_of(LLVMValueRef value, int level)
{
    return value && LLVMIsConstant(value) ? 0 : level;
}

AqIndex aq_index_variable(AqIndexTable *t, LLVMValueRef value, int64_t lo,
                          int64_t hi, int level)
{
    return aq_index_atom(t, (AqAtom){.kind = AQ_ATOM_VARIABLE,
                                     .value = value,
                                     .lo = lo,
                                     .hi = hi,
                                     .level = level_of(value, level)});
}

AqIndex aq_index_lanewise(AqIndexTable *t, LLVMValueRef value, int64_t lo,
                          int64_t hi, int level)
{
    return aq_index_atom(t, (AqAtom){.kind = AQ_ATOM_LANEWISE,
                                     .value = value,
                                     .lo = lo,
                                     .hi = hi,
                                     .level = level_of(value, level)});
}

/* The first `count` lanes. */
static AqIndex some_lanes(AqIndexTable *t, int64_t count)
{
    return aq_index_atom(t, (AqAtom){.kind = AQ_ATOM_LANE, .hi = count - 1});
}

static void remember(AqIndexTable *t, AqIndex sum, int64_t extent)
{
    for (int i = 0; i < t->n_known; i++)
        if (t->known[i].sum == sum && t->known[i].extent == extent)
            return;
    void *known = grown(t->arena, t->known, t->n_known, &t->known_capacity,
                        sizeof *t->known);
    if (!known) {
        t->failed = true;
        return;
    }
    t->known = known;
    t->known[t->n_known++] = (AqKnown){sum, extent};
    find_range(t, &t->sums[sum]);
}

AqIndex aq_index_vector(AqIndexTable *t, AqIndex base, int64_t extent)
{
    int64_t start, last = t->sums[base].hi;
    if (t->lanes == 1)
        return base;
    if (aq_index_is_constant(t, base, &start)) {
        int64_t count = AQ_MIN((int64_t)t->lanes, extent - start);
        return aq_index_add(t, base, some_lanes(t, count));
    }
    AqIndex sum = aq_index_add(t, base, t->lane);
    if (last + t->lanes > extent)
        remember(t, sum, extent);
    return sum;
}

AqIndexTable *aq_index_table(AqArena *arena, int lanes)
{
    AqIndexTable *t = AQ_NEW(arena, AqIndexTable);
    if (!t)
        return NULL;
    t->arena = arena;
    t->lanes = lanes;
    /* interning gives the zero when memory ends: it has to be there */
    AqSum zero = {0};
    aq_index_intern(t, &zero);
    if (t->n_sums == 0)
        return NULL;
    t->lane = aq_index_atom(t, (AqAtom){.kind = AQ_ATOM_LANE, .hi = lanes - 1});
    return t;
}

/* ---- ranges ---- */

static int64_t factor_of(const AqSum *sum, int32_t atom)
{
    for (int i = 0; i < sum->count; i++)
        if (sum->terms[i].atom == atom)
            return sum->terms[i].factor;
    return 0;
}

static void add_range(int64_t factor, int64_t lo, int64_t hi, AqSum *sum)
{
    sum->lo += factor * (factor > 0 ? lo : hi);
    sum->hi += factor * (factor > 0 ? hi : lo);
}

/* The lane's factor times, does `known` occur in the sum? */
static bool contains(const AqSum *sum, const AqSum *known, int64_t times)
{
    for (int i = 0; i < known->count; i++)
        if (factor_of(sum, known->terms[i].atom) !=
            times * known->terms[i].factor)
            return false;
    return true;
}

static void find_range(AqIndexTable *t, AqSum *sum)
{
    int32_t lane = 0; /* the table's first atom */
    int64_t times = factor_of(sum, lane);
    const AqSum *part = NULL;
    for (int i = 0; times && i < t->n_known && !part; i++) {
        const AqSum *known = &t->sums[t->known[i].sum];
        if (contains(sum, known, times)) {
            part = known;
            sum->lo = sum->hi = sum->constant - times * known->constant;
            add_range(times, 0, t->known[i].extent - 1, sum);
        }
    }
    if (!part)
        sum->lo = sum->hi = sum->constant;
    for (int i = 0; i < sum->count; i++) {
        const AqTerm *term = &sum->terms[i];
        if (part && factor_of(part, term->atom))
            continue;
        const AqAtom *atom = &t->atoms[term->atom];
        add_range(term->factor, atom->lo, atom->hi, sum);
    }
}

void aq_index_range(AqIndexTable *t, AqIndex a, int64_t *lo, int64_t *hi)
{
    *lo = t->sums[a].lo;
    *hi = t->sums[a].hi;
}

bool aq_index_is_constant(const AqIndexTable *t, AqIndex a, int64_t *value)
{
    *value = t->sums[a].constant;
    return t->sums[a].count == 0;
}

int aq_index_level(const AqIndexTable *t, AqIndex a)
{
    return t->sums[a].level;
}

/* ---- sums ---- */

/* into += factor * sum; the terms stay sorted, zeros go. */
static bool add_sum(AqIndexTable *t, AqSum *into, const AqSum *sum,
                    int64_t factor)
{
    AqTerm *terms =
        AQ_NEW_ARRAY(t->arena, AqTerm, into->count + sum->count + 1);
    if (!terms)
        return false;
    int i = 0, j = 0, n = 0;
    while (i < into->count || j < sum->count) {
        int32_t a = i < into->count ? into->terms[i].atom : INT32_MAX;
        int32_t b = j < sum->count ? sum->terms[j].atom : INT32_MAX;
        AqTerm term = {AQ_MIN(a, b), 0};
        if (a <= b)
            term.factor += into->terms[i++].factor;
        if (b <= a)
            term.factor += factor * sum->terms[j++].factor;
        if (term.factor != 0)
            terms[n++] = term;
    }
    into->terms = terms;
    into->count = n;
    into->constant += factor * sum->constant;
    return true;
}

/* d (E div d) + E mod d = E, for one remainder in the sum; true if done. */
static bool join_once(AqIndexTable *t, AqSum *sum)
{
    for (int i = 0; i < sum->count; i++) {
        AqTerm term = sum->terms[i];
        AqAtom atom = t->atoms[term.atom];
        if (atom.kind != AQ_ATOM_REMAINDER)
            continue;
        AqIndex quotient = aq_index_div(t, atom.inner, atom.divisor);
        AqSum parts = t->sums[quotient];
        int64_t times = term.factor * atom.divisor;
        if (parts.count != 1 || parts.constant != 0 ||
            factor_of(sum, parts.terms[0].atom) !=
                times * parts.terms[0].factor)
            continue;
        AqSum one = {.count = 1, .terms = &term};
        AqSum inner = t->sums[atom.inner];
        return add_sum(t, sum, &one, -1) && add_sum(t, sum, &parts, -times) &&
               add_sum(t, sum, &inner, term.factor);
    }
    return false;
}

AqIndex aq_index_combine(AqIndexTable *t, AqIndex a, int64_t fa, AqIndex b,
                         int64_t fb)
{
    AqSum sum = {0}, left = t->sums[a], right = t->sums[b];
    if (!add_sum(t, &sum, &left, fa) || !add_sum(t, &sum, &right, fb))
        return aq_index_failed(t);
    while (join_once(t, &sum))
        ;
    return aq_index_intern(t, &sum);
}

AqIndex aq_index_add(AqIndexTable *t, AqIndex a, AqIndex b)
{
    return aq_index_combine(t, a, 1, b, 1);
}

AqIndex aq_index_scale(AqIndexTable *t, AqIndex a, int64_t factor)
{
    return aq_index_combine(t, a, factor, a, 0);
}
