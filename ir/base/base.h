/* What every folder stands on: errors, arenas, growing text, whole files.
 *
 * Rules.  Nothing here prints, exits or aborts for a user's mistake.  A
 * function that can fail takes an AqError last and returns its status (or
 * NULL); the first error sticks and later calls leave it as it is.  Memory
 * comes from an arena named for its lifetime; nobody frees a single object. */
#ifndef AQ_BASE_H
#define AQ_BASE_H

#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#define AQ_PRINTF(text, first) __attribute__((format(printf, text, first)))
#define AQ_COUNT(array) ((int)(sizeof(array) / sizeof((array)[0])))
#define AQ_MIN(a, b) ((a) < (b) ? (a) : (b))
#define AQ_MAX(a, b) ((a) > (b) ? (a) : (b))

/* Quotient rounded up, b > 0; the next multiple of b. */
static inline int64_t aq_ceil_div(int64_t a, int64_t b)
{
    return a / b + (a % b > 0);
}

static inline int64_t aq_round_up(int64_t a, int64_t b)
{
    return aq_ceil_div(a, b) * b;
}

/* status.c */

typedef enum AqStatus {
    AQ_OK = 0,
    AQ_BAD_INPUT,   /* the user's mistake: model, option, file, data */
    AQ_NO_MEMORY,   /* an allocation failed, or a budget is too small */
    AQ_IO,          /* the system refused to read or write */
    AQ_INTERRUPTED, /* asked to stop */
    AQ_UNSUPPORTED, /* right, but this machine or build cannot do it */
    AQ_INTERNAL,    /* our own bug */
} AqStatus;

typedef struct AqError {
    AqStatus status;
    char text[1000]; /* one sentence: what, where, what to do */
} AqError;

/* Records the first error; later ones are dropped.  Returns the status that
 * stands.  `error` may be NULL. */
AqStatus aq_fail(AqError *error, AqStatus status, const char *format, ...)
    AQ_PRINTF(3, 4);
AqStatus aq_no_memory(AqError *error, size_t bytes);

#ifdef __clang_analyzer__ /* it cannot know that neither returns AQ_OK */
static inline AqStatus aq_failed_(AqStatus status, AqStatus stands)
{
    return stands == AQ_OK ? status : stands;
}
#define aq_fail(error, status, ...)                                            \
    aq_failed_(status, aq_fail(error, status, __VA_ARGS__))
#define aq_no_memory(error, bytes)                                             \
    aq_failed_(AQ_NO_MEMORY, aq_no_memory(error, bytes))
#endif

/* arena.c */

typedef struct AqArena AqArena;

AqArena *aq_arena_new(void); /* NULL when memory ends */
void aq_arena_free(AqArena *arena);
/* Zeroed, aligned to 16 bytes; NULL when memory ends. */
void *aq_arena_alloc(AqArena *arena, size_t bytes);
/* count * size with the product checked. */
void *aq_arena_array(AqArena *arena, size_t count, size_t size);
char *aq_arena_copy_text(AqArena *arena, const char *text);
void *aq_arena_copy(AqArena *arena, const void *data, size_t bytes);
char *aq_arena_printf(AqArena *arena, const char *format, ...) AQ_PRINTF(2, 3);
size_t aq_arena_bytes(const AqArena *arena); /* reserved from the system */

#define AQ_NEW(arena, Type) ((Type *)aq_arena_alloc((arena), sizeof(Type)))
#define AQ_NEW_ARRAY(arena, Type, count)                                       \
    ((Type *)aq_arena_array((arena), (size_t)(count), sizeof(Type)))

/* text.c: a growing string */

typedef struct AqText {
    char *data; /* always ends with NUL once anything was added */
    size_t length, capacity;
    bool failed; /* memory ended; the text is cut */
} AqText;

void aq_text_add(AqText *text, const char *piece);
void aq_text_bytes(AqText *text, const void *data, size_t bytes);
void aq_text_printf(AqText *text, const char *format, ...) AQ_PRINTF(2, 3);
void aq_text_vprintf(AqText *text, const char *format, va_list args);
void aq_text_free(AqText *text);
/* The nearest of `count` names by edit distance, or NULL if none is near. */
const char *aq_nearest(const char *word, const char *const *names, int count);

/* file.c: files written whole */

enum { AQ_PATH_SIZE = 4096 };
/* A path out of pieces.  One that is too long for the system becomes one that
 * cannot be opened and begins like it. */
void aq_path(char path[AQ_PATH_SIZE], const char *format, ...) AQ_PRINTF(2, 3);

/* Writes beside, syncs, renames over `path`, syncs the folder: after it returns
 * the file is complete, and at no instant is it half there. */
AqStatus aq_file_write(const char *path, const void *data, size_t bytes,
                       AqError *error);
/* The same in pieces.  `aq_file_commit` or `aq_file_abandon` ends it. */
typedef struct AqFileWriter AqFileWriter;
AqFileWriter *aq_file_begin(const char *path, AqError *error);
AqStatus aq_file_append(AqFileWriter *writer, const void *data, size_t bytes,
                        AqError *error);
AqStatus aq_file_commit(AqFileWriter *writer, AqError *error);
void aq_file_abandon(AqFileWriter *writer);
/* Reads a whole file into malloc'd memory with a NUL after it; refuses more
 * than `limit` bytes.  The caller frees *data. */
AqStatus aq_file_read(const char *path, size_t limit, char **data,
                      size_t *bytes, AqError *error);
AqStatus aq_make_folders(const char *path, AqError *error); /* mkdir -p */
AqStatus aq_sync_folder(const char *path, AqError *error);
bool aq_file_exists(const char *path);

/* hash.c: XXH3 of the xxhash library */

typedef struct AqHash {
    uint64_t high, low;
} AqHash;

AqHash aq_hash128(const void *data, size_t bytes);
uint64_t aq_hash64(const void *data, size_t bytes);
/* Of a whole file, in 32 hexadecimal digits and a NUL. */
AqStatus aq_hash_file(const char *path, char digits[33], AqError *error);

/* parallel.c: short-lived threads for compiling (training has its own pool) */

/* Calls work(context, 0 .. count-1), each once, on at most `threads` threads
 * (the caller is one of them). */
void aq_parallel(int threads, int count, void (*work)(void *context, int index),
                 void *context);
int aq_cpu_count(void); /* processors this process may use (affinity, cgroup) */
double aq_seconds(void); /* monotonic */

#endif
