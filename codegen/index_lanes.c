/* How an index changes from lane to lane. */
#include "codegen/index.h"

#include <assert.h>

bool aq_atom_varies(const AqIndexTable *t, int32_t atom)
{
    const AqAtom *a = &t->atoms[atom];
    if (a->kind == AQ_ATOM_LANE || a->kind == AQ_ATOM_LANEWISE)
        return true;
    if (a->kind == AQ_ATOM_VARIABLE)
        return false;
    const AqSum *inner = &t->sums[a->inner];
    for (int i = 0; i < inner->count; i++)
        if (aq_atom_varies(t, inner->terms[i].atom))
            return true;
    return false;
}

/* Depends on the lane and on nothing that is known only when running. */
static bool is_pattern(const AqIndexTable *t, int32_t atom)
{
    const AqAtom *a = &t->atoms[atom];
    if (a->kind == AQ_ATOM_LANE)
        return true;
    if (a->kind == AQ_ATOM_VARIABLE || a->kind == AQ_ATOM_LANEWISE)
        return false;
    const AqSum *inner = &t->sums[a->inner];
    for (int i = 0; i < inner->count; i++)
        if (!is_pattern(t, inner->terms[i].atom))
            return false;
    return true;
}

AqLaneForm aq_index_form(const AqIndexTable *t, AqIndex a, int64_t *stride)
{
    const AqSum *sum = &t->sums[a];
    AqLaneForm form = AQ_UNIFORM;
    *stride = 0;
    for (int i = 0; i < sum->count; i++) {
        int32_t atom = sum->terms[i].atom;
        if (t->atoms[atom].kind == AQ_ATOM_LANE) {
            *stride = sum->terms[i].factor;
            form = AQ_MAX(form, AQ_STRIDED);
        } else if (aq_atom_varies(t, atom)) {
            form = AQ_MAX(form, is_pattern(t, atom) ? AQ_PATTERN : AQ_LANEWISE);
        }
    }
    return form;
}

AqIndex aq_index_uniform_part(AqIndexTable *t, AqIndex a)
{
    AqSum sum = t->sums[a];
    AqTerm *terms = AQ_NEW_ARRAY(t->arena, AqTerm, sum.count + 1);
    AqSum part = {.constant = sum.constant, .terms = terms};
    if (!terms)
        t->failed = true;
    for (int i = 0; terms && i < sum.count; i++)
        if (!aq_atom_varies(t, sum.terms[i].atom))
            terms[part.count++] = sum.terms[i];
    return aq_index_intern(t, &part);
}

static int64_t pattern_of_sum(const AqIndexTable *t, AqIndex a, int lane);

static int64_t pattern_of_atom(const AqIndexTable *t, int32_t atom, int lane)
{
    const AqAtom *a = &t->atoms[atom];
    if (a->kind == AQ_ATOM_LANE)
        return lane;
    assert(a->kind == AQ_ATOM_QUOTIENT || a->kind == AQ_ATOM_REMAINDER);
    int64_t inner = pattern_of_sum(t, a->inner, lane);
    return a->kind == AQ_ATOM_QUOTIENT ? inner / a->divisor
                                       : inner % a->divisor;
}

static int64_t pattern_of_sum(const AqIndexTable *t, AqIndex a, int lane)
{
    const AqSum *sum = &t->sums[a];
    int64_t value = sum->constant;
    for (int i = 0; i < sum->count; i++)
        value +=
            sum->terms[i].factor * pattern_of_atom(t, sum->terms[i].atom, lane);
    return value;
}

void aq_index_pattern(const AqIndexTable *t, AqIndex a, int64_t *offsets)
{
    const AqSum *sum = &t->sums[a];
    for (int lane = 0; lane < t->lanes; lane++) {
        offsets[lane] = 0;
        for (int i = 0; i < sum->count; i++) {
            AqTerm term = sum->terms[i];
            if (aq_atom_varies(t, term.atom))
                offsets[lane] +=
                    term.factor * pattern_of_atom(t, term.atom, lane);
        }
    }
}

void aq_index_text(const AqIndexTable *t, AqIndex a, AqText *text)
{
    const AqSum *sum = &t->sums[a];
    for (int i = 0; i < sum->count; i++) {
        const AqAtom *atom = &t->atoms[sum->terms[i].atom];
        aq_text_printf(text, "%lld*", (long long)sum->terms[i].factor);
        switch (atom->kind) {
        case AQ_ATOM_LANE:
            aq_text_add(text, "lane");
            break;
        case AQ_ATOM_VARIABLE:
        case AQ_ATOM_LANEWISE:
            aq_text_printf(text, "v%d", sum->terms[i].atom);
            break;
        case AQ_ATOM_QUOTIENT:
        case AQ_ATOM_REMAINDER:
            aq_text_add(text, "((");
            aq_index_text(t, atom->inner, text);
            aq_text_printf(text, ")%s%lld)",
                           atom->kind == AQ_ATOM_QUOTIENT ? "/" : "%",
                           (long long)atom->divisor);
            break;
        }
        aq_text_add(text, " + ");
    }
    aq_text_printf(text, "%lld", (long long)sum->constant);
}
