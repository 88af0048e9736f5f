/* Values already emitted: a hash table whose entries go, newest first, when
 * their loop is left. */
#include "codegen/expr.h"

#include <string.h>

typedef struct Entry {
    AqMemoKey key;
    LLVMValueRef value;
    int level;
} Entry;

struct AqMemo {
    AqArena *arena;
    Entry *entries;
    int count, capacity;
    int32_t *table; /* entry + 1 */
    int size;
};

struct AqMemo *aq_memo_new(AqArena *arena)
{
    struct AqMemo *memo = AQ_NEW(arena, struct AqMemo);
    if (memo)
        memo->arena = arena;
    return memo;
}

static bool same_key(const AqMemoKey *a, const AqMemoKey *b)
{
    return a->node == b->node && a->mask == b->mask &&
           memcmp(a->index, b->index, sizeof a->index) == 0;
}

static uint64_t hash_key(const AqMemoKey *key)
{
    uint64_t hash = (uint64_t)key->node * 0x9E3779B97F4A7C15u +
                    (uint64_t)(uintptr_t)key->mask;
    for (int i = 0; i < AQ_MAX_RANK; i++)
        hash = (hash ^ (uint64_t)key->index[i]) * 0xC2B2AE3D27D4EB4Fu;
    return hash ^ hash >> 31;
}

static void enter(struct AqMemo *memo, int entry)
{
    uint64_t at = hash_key(&memo->entries[entry].key);
    uint64_t mask = (uint64_t)memo->size - 1;
    while (memo->table[at & mask])
        at++;
    memo->table[at & mask] = entry + 1;
}

static void rebuild(struct AqMemo *memo)
{
    memset(memo->table, 0, (size_t)memo->size * sizeof *memo->table);
    for (int i = 0; i < memo->count; i++)
        enter(memo, i);
}

LLVMValueRef aq_memo_get(const struct AqMemo *memo, const AqMemoKey *key)
{
    if (memo->size == 0)
        return NULL;
    uint64_t at = hash_key(key), mask = (uint64_t)memo->size - 1;
    for (; memo->table[at & mask]; at++) {
        const Entry *entry = &memo->entries[memo->table[at & mask] - 1];
        if (same_key(&entry->key, key))
            return entry->value;
    }
    return NULL;
}

static bool grow(struct AqMemo *memo)
{
    if (memo->count < memo->capacity)
        return true;
    int capacity = AQ_MAX(128, 2 * memo->capacity);
    Entry *entries = AQ_NEW_ARRAY(memo->arena, Entry, capacity);
    int32_t *table = AQ_NEW_ARRAY(memo->arena, int32_t, 4 * capacity);
    if (!entries || !table)
        return false;
    if (memo->count > 0)
        memcpy(entries, memo->entries, (size_t)memo->count * sizeof *entries);
    memo->entries = entries;
    memo->capacity = capacity;
    memo->table = table;
    memo->size = 4 * capacity;
    rebuild(memo);
    return true;
}

bool aq_memo_put(struct AqMemo *memo, const AqMemoKey *key, LLVMValueRef value,
                 int level)
{
    if (!grow(memo))
        return false;
    memo->entries[memo->count] = (Entry){*key, value, level};
    enter(memo, memo->count++);
    return true;
}

void aq_memo_drop(struct AqMemo *memo, int level)
{
    int kept = 0;
    for (int i = 0; i < memo->count; i++)
        if (memo->entries[i].level < level)
            memo->entries[kept++] = memo->entries[i];
    if (kept == memo->count)
        return;
    memo->count = kept;
    rebuild(memo);
}
