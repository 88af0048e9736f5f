/* How index expressions are stored: for index.c, index_lanes.c and expr.c. */
#ifndef AQ_INDEX_H
#define AQ_INDEX_H

#include "codegen/emit.h"

typedef enum AqAtomKind {
    AQ_ATOM_LANE,     /* 0 .. lanes - 1; the table's first atom */
    AQ_ATOM_VARIABLE, /* an i64, equal for all lanes */
    AQ_ATOM_LANEWISE, /* a vector of i32 */
    AQ_ATOM_QUOTIENT, /* inner div divisor; inner >= 0 */
    AQ_ATOM_REMAINDER,
} AqAtomKind;

typedef struct AqAtom {
    AqAtomKind kind;
    AqIndex inner;
    int64_t divisor;
    LLVMValueRef value;
    int64_t lo, hi; /* inclusive */
    int level;
} AqAtom;

typedef struct AqTerm {
    int32_t atom;
    int64_t factor;
} AqTerm;

typedef struct AqSum {
    int64_t constant;
    int count;
    AqTerm *terms; /* sorted by atom, factors not zero */
    int64_t lo, hi;
    int level;
} AqSum;

typedef struct AqKnown { /* the lanes that count: 0 <= sum < extent */
    AqIndex sum;
    int64_t extent;
} AqKnown;

struct AqIndexTable {
    AqArena *arena;
    int lanes;
    AqIndex lane;
    AqAtom *atoms;
    int n_atoms, atoms_capacity;
    AqSum *sums;
    int n_sums, sums_capacity;
    AqKnown *known;
    int n_known, known_capacity;
    int32_t *hash; /* sum + 1; 0 is empty */
    int hash_size;
    bool failed; /* memory ended; what was built is not to be used */
};

/* A sum whose terms are sorted by atom and not zero. */
AqIndex aq_index_intern(AqIndexTable *t, const AqSum *sum);

/* fa a + fb b */
AqIndex aq_index_combine(AqIndexTable *t, AqIndex a, int64_t fa, AqIndex b,
                         int64_t fb);
/* Memory ended: the zero stands for what could not be made. */
AqIndex aq_index_failed(AqIndexTable *t);
/* The atom, or its equal; a constant where only one value is possible. */
AqIndex aq_index_atom(AqIndexTable *t, AqAtom atom);
bool aq_atom_varies(const AqIndexTable *t, int32_t atom); /* with the lane */

#endif
