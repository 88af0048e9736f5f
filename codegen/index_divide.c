/* Quotients and remainders of index expressions.
 *
 * Movement becomes quotients and remainders of linear offsets.  Most of them
 * vanish here, by knowing ranges:
 *   (d Q + R) div d = Q, mod d = R            where 0 <= R < d
 *   (g A + R) div (g d) = A div d             where 0 <= R < g
 *   (E div a) div b = E div (a b),  (E mod (a d)) div d = (E div d) mod a,
 *   (E mod (a d)) mod d = E mod d
 * and index.c puts d (E div d) + E mod d = E together again. */
#include "codegen/index.h"

#include <stdlib.h>

static AqIndex add_constant(AqIndexTable *t, AqIndex a, int64_t constant)
{
    return aq_index_combine(t, a, 1, aq_index_constant(t, constant), 1);
}

static int64_t floor_div(int64_t a, int64_t d)
{
    return a / d - (a % d < 0);
}

static int64_t gcd(int64_t a, int64_t b)
{
    a = llabs(a), b = llabs(b);
    while (b) {
        int64_t r = a % b;
        a = b;
        b = r;
    }
    return a;
}

/* sum = unit * *whole + *rest, by terms whose factor `unit` divides. */
static bool split(AqIndexTable *t, const AqSum *sum, int64_t unit,
                  AqIndex *whole, AqIndex *rest)
{
    AqTerm *terms = AQ_NEW_ARRAY(t->arena, AqTerm, 2 * sum->count + 1);
    if (!terms)
        return false;
    AqSum w = {.constant = floor_div(sum->constant, unit), .terms = terms};
    AqSum r = {.constant = sum->constant - unit * w.constant,
               .terms = terms + sum->count};
    for (int i = 0; i < sum->count; i++) {
        AqTerm term = sum->terms[i];
        if (term.factor % unit == 0)
            w.terms[w.count++] = (AqTerm){term.atom, term.factor / unit};
        else
            r.terms[r.count++] = term;
    }
    *whole = aq_index_intern(t, &w);
    *rest = aq_index_intern(t, &r);
    return true;
}

typedef struct Divided {
    AqIndex quotient, remainder;
} Divided;

static Divided divide(AqIndexTable *t, AqIndex a, int64_t d);

/* A lone quotient or remainder: the rules of nested division. */
static bool divide_nested(AqIndexTable *t, AqIndex a, int64_t d, Divided *out)
{
    AqSum sum = t->sums[a];
    if (sum.count != 1 || sum.terms[0].factor != 1 || sum.constant != 0)
        return false;
    AqAtom atom = t->atoms[sum.terms[0].atom];
    if (atom.kind == AQ_ATOM_REMAINDER && atom.divisor % d == 0) {
        Divided inner = divide(t, atom.inner, d);
        out->remainder = inner.remainder;
        out->quotient = aq_index_mod(t, inner.quotient, atom.divisor / d);
        return true;
    }
    return false;
}

/* Takes a common unit g out of divisor and the large terms. */
static bool divide_by_unit(AqIndexTable *t, AqIndex a, int64_t d, Divided *out)
{
    AqSum sum = t->sums[a];
    int64_t best = 1;
    AqIndex best_whole = 0, best_rest = 0;
    for (int i = 0; i < sum.count; i++) {
        int64_t g = gcd(sum.terms[i].factor, d);
        AqIndex whole, rest;
        if (g <= best || g == d || !split(t, &sum, g, &whole, &rest))
            continue;
        if (t->sums[rest].lo < 0 || t->sums[rest].hi >= g)
            continue;
        best = g;
        best_whole = whole;
        best_rest = rest;
    }
    if (best == 1)
        return false;
    Divided inner = divide(t, best_whole, d / best);
    out->quotient = inner.quotient;
    out->remainder = aq_index_combine(t, inner.remainder, best, best_rest, 1);
    return true;
}

static AqIndex part_atom(AqIndexTable *t, AqAtomKind kind, AqIndex a, int64_t d)
{
    const AqSum *sum = &t->sums[a];
    AqAtom atom = {.kind = kind, .inner = a, .divisor = d, .level = sum->level};
    atom.lo = kind == AQ_ATOM_QUOTIENT ? sum->lo / d : 0;
    atom.hi = kind == AQ_ATOM_QUOTIENT ? sum->hi / d : d - 1;
    return aq_index_atom(t, atom);
}

/* (E div b) div d = E div (b d); the remainder keeps its form. */
static AqIndex quotient_atom(AqIndexTable *t, AqIndex a, int64_t d)
{
    AqSum sum = t->sums[a];
    if (sum.count == 1 && sum.terms[0].factor == 1 && sum.constant == 0) {
        AqAtom atom = t->atoms[sum.terms[0].atom];
        int64_t product;
        if (atom.kind == AQ_ATOM_QUOTIENT &&
            !__builtin_mul_overflow(atom.divisor, d, &product))
            return aq_index_div(t, atom.inner, product);
    }
    return part_atom(t, AQ_ATOM_QUOTIENT, a, d);
}

/* Of a rest R none of whose terms d divides. */
static Divided divide_rest(AqIndexTable *t, AqIndex a, int64_t d)
{
    Divided out;
    int64_t lo = t->sums[a].lo, hi = t->sums[a].hi;
    int64_t low = floor_div(lo, d);
    if (low == floor_div(hi, d)) {
        out.quotient = aq_index_constant(t, low);
        out.remainder = add_constant(t, a, -low * d);
        return out;
    }
    if (lo < 0) { /* the machine's division rounds towards zero */
        out = divide_rest(t, add_constant(t, a, -low * d), d);
        out.quotient = add_constant(t, out.quotient, low);
        return out;
    }
    if (divide_nested(t, a, d, &out) || divide_by_unit(t, a, d, &out))
        return out;
    out.quotient = quotient_atom(t, a, d);
    out.remainder = part_atom(t, AQ_ATOM_REMAINDER, a, d);
    return out;
}

static Divided divide(AqIndexTable *t, AqIndex a, int64_t d)
{
    AqIndex whole, rest;
    AqSum sum = t->sums[a];
    if (!split(t, &sum, d, &whole, &rest))
        return (Divided){aq_index_failed(t), aq_index_failed(t)};
    Divided out = divide_rest(t, rest, d);
    out.quotient = aq_index_combine(t, whole, 1, out.quotient, 1);
    return out;
}

AqIndex aq_index_div(AqIndexTable *t, AqIndex a, int64_t divisor)
{
    return divisor == 1 ? a : divide(t, a, divisor).quotient;
}

AqIndex aq_index_mod(AqIndexTable *t, AqIndex a, int64_t divisor)
{
    return divide(t, a, divisor).remainder;
}
