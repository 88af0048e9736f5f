/* Arrays that live from step to step, found by name. */
#include "runtime/runtime.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

typedef struct Array {
    char *name;
    void *data;
    int64_t bytes;
    bool borrowed;
    bool ahead; /* no program has taken it yet */
} Array;

struct AqMemory {
    AqArena *arena; /* of names */
    Array *arrays;
    int count, capacity;
};

enum { PAGE = 4096, HUGE_PAGE = 2 << 20 };

int64_t aq_whole_pages(int64_t bytes)
{
    return (AQ_MAX(bytes, (int64_t)1) + PAGE - 1) / PAGE * PAGE;
}

int64_t aq_pages_within(int64_t bytes)
{
    return bytes > 0 ? bytes / PAGE * PAGE : 0;
}

/* Addresses for `size` bytes, the first a multiple of `unit`; NULL: none. */
static void *map_aligned(size_t size, size_t unit)
{
    size_t all = size + unit - PAGE;
    char *from = mmap(NULL, all, PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (from == MAP_FAILED)
        return NULL;
    size_t before = (unit - (uintptr_t)from % unit) % unit;
    if (before)
        munmap(from, before);
    if (all - before > size)
        munmap(from + before + size, all - before - size);
    return from + before;
}

/* Huge pages where they are whole; what is left takes small ones. */
void *aq_pages(int64_t bytes, AqError *error)
{
    size_t size = (size_t)aq_whole_pages(bytes);
    bool huge = size >= HUGE_PAGE;
    void *pages = map_aligned(size, huge ? HUGE_PAGE : PAGE);
    if (!pages) {
        aq_no_memory(error, size);
        return NULL;
    }
    if (huge)
        madvise(pages, size, MADV_HUGEPAGE); /* a wish, not a need */
    return pages;
}

void aq_pages_free(void *pages, int64_t bytes)
{
    if (pages)
        munmap(pages, (size_t)aq_whole_pages(bytes));
}

AqMemory *aq_memory_new(AqError *error)
{
    AqMemory *memory = calloc(1, sizeof *memory);
    if (memory)
        memory->arena = aq_arena_new();
    if (!memory || !memory->arena) {
        free(memory);
        aq_no_memory(error, sizeof *memory);
        return NULL;
    }
    return memory;
}

void aq_memory_free(AqMemory *memory)
{
    if (!memory)
        return;
    for (int i = 0; i < memory->count; i++)
        if (!memory->arrays[i].borrowed)
            aq_pages_free(memory->arrays[i].data, memory->arrays[i].bytes);
    free(memory->arrays);
    aq_arena_free(memory->arena);
    free(memory);
}

static Array *find(const AqMemory *memory, const char *name)
{
    for (int i = 0; i < memory->count; i++)
        if (!strcmp(memory->arrays[i].name, name))
            return &memory->arrays[i];
    return NULL;
}

static Array *add(AqMemory *memory, const char *name, AqError *error)
{
    if (memory->count == memory->capacity) {
        int capacity = AQ_MAX(16, 2 * memory->capacity);
        Array *arrays =
            realloc(memory->arrays, (size_t)capacity * sizeof *arrays);
        if (!arrays) {
            aq_no_memory(error, (size_t)capacity * sizeof *arrays);
            return NULL;
        }
        memory->arrays = arrays;
        memory->capacity = capacity;
    }
    char *copy = aq_arena_copy_text(memory->arena, name);
    if (!copy) {
        aq_no_memory(error, strlen(name));
        return NULL;
    }
    memory->arrays[memory->count] = (Array){.name = copy};
    return &memory->arrays[memory->count];
}

static void *array_of(AqMemory *memory, const char *name, int64_t bytes,
                      bool ahead, AqError *error)
{
    Array *array = find(memory, name);
    if (array && array->bytes < bytes) {
        aq_fail(error, AQ_BAD_INPUT,
                "the array %s has %lld bytes, and %lld are wanted", name,
                (long long)array->bytes, (long long)bytes);
        return NULL;
    }
    if (array) {
        array->ahead = array->ahead && ahead;
        return array->data;
    }
    array = add(memory, name, error);
    if (!array)
        return NULL;
    array->data = aq_pages(bytes, error);
    if (!array->data)
        return NULL;
    array->bytes = bytes;
    array->ahead = ahead;
    memory->count++;
    return array->data;
}

void *aq_memory_array(AqMemory *memory, const char *name, int64_t bytes,
                      AqError *error)
{
    return array_of(memory, name, bytes, false, error);
}

void *aq_memory_ahead(AqMemory *memory, const char *name, int64_t bytes,
                      AqError *error)
{
    return array_of(memory, name, bytes, true, error);
}

bool aq_memory_is_new(const AqMemory *memory, const char *name)
{
    const Array *array = find(memory, name);
    return !array || array->ahead;
}

AqStatus aq_memory_share(AqMemory *memory, const char *name,
                         const AqMemory *from, const char *from_name,
                         AqError *error)
{
    const Array *array = find(from, from_name);
    if (!array || find(memory, name))
        return aq_fail(error, AQ_INTERNAL,
                       "the array %s cannot be shared as %s", from_name, name);
    Array *here = add(memory, name, error);
    if (!here)
        return error->status;
    here->data = array->data;
    here->bytes = array->bytes;
    here->borrowed = true;
    memory->count++;
    return AQ_OK;
}

void *aq_memory_find(const AqMemory *memory, const char *name, int64_t *bytes)
{
    const Array *array = find(memory, name);
    if (array && bytes)
        *bytes = array->bytes;
    return array ? array->data : NULL;
}

int64_t aq_memory_bytes(const AqMemory *memory)
{
    int64_t sum = 0;
    for (int i = 0; i < memory->count; i++)
        if (!memory->arrays[i].borrowed)
            sum += aq_whole_pages(memory->arrays[i].bytes);
    return sum;
}
