/* Memory with one lifetime: blocks in a list, freed together. */
#include "ir/base/base.h"

#include <stdlib.h>
#include <string.h>

enum { ALIGNMENT = 16, FIRST_BLOCK = 16 << 10, LARGEST_BLOCK = 4 << 20 };

typedef struct Block {
    struct Block *next;
    size_t used, size;
    _Alignas(ALIGNMENT) char data[];
} Block;

struct AqArena {
    Block *blocks; /* the first is the one in use */
    size_t reserved;
};

AqArena *aq_arena_new(void)
{
    return calloc(1, sizeof(AqArena));
}

void aq_arena_free(AqArena *arena)
{
    if (!arena)
        return;
    for (Block *block = arena->blocks, *next; block; block = next) {
        next = block->next;
        free(block);
    }
    free(arena);
}

static Block *add_block(AqArena *arena, size_t bytes)
{
    size_t size = arena->blocks ? arena->blocks->size * 2 : FIRST_BLOCK;
    size = AQ_MAX(AQ_MIN(size, (size_t)LARGEST_BLOCK), bytes);
    if (size > SIZE_MAX - sizeof(Block))
        return NULL;
    Block *block = malloc(sizeof(Block) + size);
    if (!block)
        return NULL;
    *block = (Block){.next = arena->blocks, .size = size};
    arena->blocks = block;
    arena->reserved += sizeof(Block) + size;
    return block;
}

void *aq_arena_alloc(AqArena *arena, size_t bytes)
{
    if (bytes > SIZE_MAX - ALIGNMENT)
        return NULL;
    bytes = (bytes + ALIGNMENT - 1) & ~(size_t)(ALIGNMENT - 1);
    Block *block = arena->blocks;
    if (!block || block->size - block->used < bytes)
        block = add_block(arena, bytes);
    if (!block)
        return NULL;
    void *memory = block->data + block->used;
    block->used += bytes;
    return memset(memory, 0, bytes);
}

void *aq_arena_array(AqArena *arena, size_t count, size_t size)
{
    size_t bytes;
    if (__builtin_mul_overflow(count, size, &bytes))
        return NULL;
    return aq_arena_alloc(arena, bytes);
}

void *aq_arena_copy(AqArena *arena, const void *data, size_t bytes)
{
    void *memory = aq_arena_alloc(arena, bytes);
    return memory && bytes ? memcpy(memory, data, bytes) : memory;
}

char *aq_arena_copy_text(AqArena *arena, const char *text)
{
    return aq_arena_copy(arena, text, strlen(text) + 1);
}

char *aq_arena_printf(AqArena *arena, const char *format, ...)
{
    va_list args, again;
    va_start(args, format);
    va_copy(again, args);
    int length = vsnprintf(NULL, 0, format, args);
    va_end(args);
    char *text = aq_arena_alloc(arena, (size_t)length + 1);
    if (text)
        vsnprintf(text, (size_t)length + 1, format, again);
    va_end(again);
    return text;
}

size_t aq_arena_bytes(const AqArena *arena)
{
    return arena->reserved;
}
