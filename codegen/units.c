/* The distinct pieces of code: compiled in parallel or taken from the cache. */
#include "codegen/units.h"

#include <stdlib.h>
#include <string.h>

/* ---- the list ---- */

AqStatus aq_units_begin(AqUnits *units, AqError *error)
{
    aq_build_identity(&units->identity);
    aq_object_identity(units->target, &units->identity);
    if (units->identity.failed)
        return aq_no_memory(error, units->identity.length);
    return AQ_OK;
}

void aq_units_free(AqUnits *units)
{
    for (int i = 0; i < units->count; i++) {
        aq_text_free(&units->at[i].key);
        free(units->at[i].object);
    }
    free(units->at);
    aq_text_free(&units->identity);
}

static bool grow(AqUnits *units)
{
    if (units->count < units->capacity)
        return true;
    int capacity = AQ_MAX(64, 2 * units->capacity);
    AqUnit *at = realloc(units->at, (size_t)capacity * sizeof *at);
    if (!at)
        return false;
    units->at = at;
    units->capacity = capacity;
    return true;
}

static int find(const AqUnits *units, AqHash hash)
{
    for (int i = 0; i < units->count; i++)
        if (units->at[i].hash.high == hash.high &&
            units->at[i].hash.low == hash.low)
            return i;
    return AQ_NO_UNIT;
}

int aq_units_add(AqUnits *units, const char *kind, const void *key,
                 size_t bytes, AqUnitEmit *emit, const void *context)
{
    AqUnit unit = {.kind = kind, .emit = emit, .context = context};
    aq_text_printf(&unit.key, "%s%s\n", units->identity.data, kind);
    aq_text_bytes(&unit.key, key, bytes);
    if (unit.key.failed || !grow(units)) {
        aq_text_free(&unit.key);
        return AQ_NO_UNIT;
    }
    unit.hash = aq_hash128(unit.key.data, unit.key.length);
    int old = find(units, unit.hash);
    if (old != AQ_NO_UNIT) {
        aq_text_free(&unit.key);
        return old;
    }
    snprintf(unit.name, sizeof unit.name, "%.40s_%016llx", kind,
             (unsigned long long)unit.hash.low);
    units->at[units->count] = unit;
    return units->count++;
}

int aq_units_add_leaf(AqUnits *units, const char *kind, const void *key,
                      size_t bytes, AqUnitEmit *emit, const void *context)
{
    int unit = aq_units_add(units, kind, key, bytes, emit, context);
    if (unit == AQ_NO_UNIT)
        return AQ_NO_UNIT;
    AqUnit *leaf = &units->at[unit];
    leaf->leaf = true;
    leaf->like = unit;
    if (units->options->dump_dir) /* each to be seen, so that none is shared */
        memcpy(leaf->shared_name, leaf->name, sizeof leaf->name);
    else
        snprintf(leaf->shared_name, sizeof leaf->shared_name, "%.40s_%016d",
                 kind, 0);
    return unit;
}

/* ---- compiling: runs on any thread ---- */

/* Whether another leaf is compiled from the same module; else this one is. */
static bool is_shared(AqUnits *units, AqUnit *unit, const AqEmit *e)
{
    unit->shared = aq_module_hash(e);
    pthread_mutex_lock(&units->leaves);
    unit->emitted = true;
    for (int i = 0; i < units->count; i++) {
        const AqUnit *other = &units->at[i];
        if (other != unit && other->emitted && other->like == i &&
            other->shared.high == unit->shared.high &&
            other->shared.low == unit->shared.low)
            unit->like = i;
    }
    pthread_mutex_unlock(&units->leaves);
    return &units->at[unit->like] != unit;
}

static void emit(AqUnits *units, AqUnit *unit)
{
    bool shares = unit->leaf && !unit->again;
    AqEmit e = {.name = shares ? unit->shared_name : unit->name,
                .unit = unit->name,
                .target = units->target,
                .arena = aq_arena_new(),
                .error = &unit->error};
    if (!e.arena) {
        aq_no_memory(&unit->error, 0);
        return;
    }
    aq_emit_begin(&e);
    AqStatus status = unit->emit(&e, unit->context);
    if (status)
        aq_fail(&unit->error, status, "kernel %s cannot be emitted",
                unit->name);
    if (!unit->error.status && shares)
        aq_numbers_hide(&e, &unit->numbers);
    if (!unit->error.status && !(shares && is_shared(units, unit, &e))) {
        unit->compiled++;
        aq_object_make(&e, units->machines, units->options->dump_dir,
                       &unit->object, &unit->bytes);
    }
    aq_emit_end(&e);
    aq_arena_free(e.arena);
}

static void make(void *context, int index)
{
    AqUnits *units = context;
    AqUnit *unit = &units->at[units->order[index]];
    unit->cached = aq_cache_get(units->cache, &unit->key, &unit->object,
                                &unit->bytes, &unit->rejected);
    if (unit->cached)
        return;
    emit(units, unit);
    if (unit->object && !unit->leaf)
        aq_cache_put(units->cache, &unit->key, unit->object, unit->bytes);
}

static void copy_object(AqUnit *unit, const AqUnit *like)
{
    unit->object = malloc(like->bytes);
    unit->bytes = like->bytes;
    if (unit->object)
        memcpy(unit->object, like->object, like->bytes);
    else
        aq_no_memory(&unit->error, like->bytes);
}

/* A leaf's own object: made of the one that was compiled, or becoming it. */
static void fill_leaf(void *context, int index)
{
    AqUnits *units = context;
    AqUnit *unit = &units->at[index];
    const AqUnit *like = &units->at[unit->like];
    if (!unit->leaf || unit->cached || (unit == like) != units->originals)
        return;
    if (!like->object)
        unit->error = like->error;
    else if (unit != like)
        copy_object(unit, like);
    if (unit->object && !aq_numbers_fill(unit->object, &unit->numbers,
                                         unit->shared_name, unit->name)) {
        free(unit->object);
        unit->object = NULL;
        unit->again = true; /* with its numbers, as others are */
        emit(units, unit);
    }
    if (unit->object)
        aq_cache_put(units->cache, &unit->key, unit->object, unit->bytes);
}

/* Bodies differ most among maps, and a long body is a long key; the other kinds
 * are written out by hand, under short keys, and some are long. */
static int by_length(const void *a, const void *b, void *context)
{
    const AqUnit *at = context;
    const AqUnit *x = &at[*(const int *)a], *y = &at[*(const int *)b];
    bool map_x = !strcmp(x->kind, "map"), map_y = !strcmp(y->kind, "map");
    if (map_x != map_y)
        return map_x - map_y;
    return (x->key.length < y->key.length) - (x->key.length > y->key.length);
}

/* Long units first, so that no thread begins one when the others are done. */
static AqStatus find_order(AqUnits *units, AqError *error)
{
    units->order = AQ_NEW_ARRAY(units->arena, int, AQ_MAX(units->count, 1));
    if (!units->order)
        return aq_no_memory(error, (size_t)units->count * sizeof(int));
    for (int i = 0; i < units->count; i++)
        units->order[i] = i;
    qsort_r(units->order, (size_t)units->count, sizeof *units->order, by_length,
            units->at);
    return AQ_OK;
}

AqStatus aq_units_compile(AqUnits *units, AqError *error)
{
    const AqCompileOptions *options = units->options;
    if (options->dump_dir && aq_make_folders(options->dump_dir, error))
        return error->status;
    if (!options->no_cache && !options->dump_dir)
        units->cache = aq_cache_open(options->cache_dir, units->arena);
    if (find_order(units, error))
        return error->status;
    units->machines = aq_machines_new(error);
    if (!units->machines)
        return error->status;
    int threads = options->threads > 0 ? options->threads : aq_cpu_count();
    pthread_mutex_init(&units->leaves, NULL);
    aq_parallel(threads, units->count, make, units);
    pthread_mutex_destroy(&units->leaves);
    for (int i = 0; i < 2; i++) {
        units->originals = i;
        aq_parallel(threads, units->count, fill_leaf, units);
    }
    aq_machines_free(units->machines);
    return AQ_OK;
}
