/* Units: distinct functions, each an object of its own.  Those of equal keys
 * are one; leaves that differ in numbers alone are compiled once and filled in
 * (numbers.c). */
#ifndef AQ_UNITS_H
#define AQ_UNITS_H

#include "codegen/emit.h"

#include <pthread.h>

enum { AQ_NO_UNIT = -1, AQ_UNIT_NAME = 64 };

typedef struct AqUnit {
    char name[AQ_UNIT_NAME];
    const char *kind;
    AqHash hash;
    AqText key; /* kind and all that the code depends on */
    AqUnitEmit *emit;
    const void *context;
    char *object; /* malloc'd */
    size_t bytes;
    bool cached, rejected;
    int compiled; /* times that LLVM compiled it */
    AqError error;
    /* of leaves, which are compiled under a name of no numbers: */
    bool leaf, emitted;
    bool again; /* compiled with its numbers, after all */
    char shared_name[AQ_UNIT_NAME];
    AqHash shared; /* what is left of the module without its numbers */
    int like;      /* the leaf that was compiled from the same, or itself */
    AqNumbers numbers;
} AqUnit;

typedef struct AqUnits {
    AqArena *arena; /* lives as long as this */
    const AqTarget *target;
    const AqCompileOptions *options;
    AqText identity; /* of this library and the target */
    AqUnit *at;
    int count, capacity;
    /* while they are compiled: */
    AqCache *cache;
    AqMachines *machines;
    pthread_mutex_t leaves; /* around what tells equal ones */
    int *order;             /* in which units are compiled */
    bool originals;         /* are filled now, after their copies */
} AqUnits;

/* Arena, target and options are given; before the first unit is added. */
AqStatus aq_units_begin(AqUnits *units, AqError *error);
void aq_units_free(AqUnits *units);
/* As aq_code_plan_unit and aq_code_plan_leaf. */
int aq_units_add(AqUnits *units, const char *kind, const void *key,
                 size_t bytes, AqUnitEmit *emit, const void *context);
int aq_units_add_leaf(AqUnits *units, const char *kind, const void *key,
                      size_t bytes, AqUnitEmit *emit, const void *context);
/* All get their objects, from the cache or by many threads; what goes wrong
 * stands in the unit's error. */
AqStatus aq_units_compile(AqUnits *units, AqError *error);

#endif
