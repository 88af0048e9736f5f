/* Objects kept on disk from one run to the next.
 *
 * Loading an object is executing it.  So the folder must belong to this user
 * and be writable by nobody else, and an entry is used only when its length,
 * its whole key and the hash of its bytes agree; anything else is compiled
 * again. That guards against accidents, not against someone who can write there
 * as this user: for that there is `no_cache`. */
#include "codegen/emit.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { LARGEST_ENTRY = 64 << 20 };

static const char magic[8] = "AQOBJ01";

typedef struct Header {
    char magic[8];
    uint64_t key_bytes, data_bytes;
    AqHash hash; /* of key and data */
} Header;

struct AqCache {
    const char *folder;
};

static const char *default_folder(AqArena *arena)
{
    const char *base = getenv("XDG_CACHE_HOME");
    if (base && base[0] == '/')
        return aq_arena_printf(arena, "%s/aquatint", base);
    base = getenv("HOME");
    if (base && base[0] == '/')
        return aq_arena_printf(arena, "%s/.cache/aquatint", base);
    return NULL;
}

static bool is_ours_alone(const char *folder)
{
    struct stat about;
    return lstat(folder, &about) == 0 && S_ISDIR(about.st_mode) &&
           about.st_uid == geteuid() && !(about.st_mode & (S_IWGRP | S_IWOTH));
}

static bool make_parents(AqArena *arena, const char *folder)
{
    char *parent = aq_arena_copy_text(arena, folder);
    char *slash = parent ? strrchr(parent, '/') : NULL;
    if (!slash || slash == parent)
        return parent != NULL;
    *slash = '\0';
    return aq_make_folders(parent, NULL) == AQ_OK;
}

AqCache *aq_cache_open(const char *folder, AqArena *arena)
{
    folder = folder ? aq_arena_copy_text(arena, folder) : default_folder(arena);
    if (!folder || !make_parents(arena, folder))
        return NULL;
    mkdir(folder, 0700); /* it may be there already */
    AqCache *cache = is_ours_alone(folder) ? AQ_NEW(arena, AqCache) : NULL;
    if (cache)
        cache->folder = folder;
    return cache;
}

static bool entry_path(const AqCache *cache, const AqText *key, char *path,
                       size_t size)
{
    AqHash name = aq_hash128(key->data, key->length);
    int length =
        snprintf(path, size, "%s/%016llx%016llx.o", cache->folder,
                 (unsigned long long)name.high, (unsigned long long)name.low);
    return length > 0 && (size_t)length < size;
}

static bool entry_is_good(const char *entry, size_t bytes, const AqText *key)
{
    Header header;
    if (bytes < sizeof header)
        return false;
    memcpy(&header, entry, sizeof header);
    size_t rest = bytes - sizeof header;
    if (memcmp(header.magic, magic, sizeof magic) != 0 ||
        header.key_bytes != key->length || header.key_bytes > rest ||
        header.data_bytes != rest - header.key_bytes ||
        memcmp(entry + sizeof header, key->data, key->length) != 0)
        return false;
    AqHash hash = aq_hash128(entry + sizeof header, rest);
    return hash.high == header.hash.high && hash.low == header.hash.low;
}

bool aq_cache_get(const AqCache *cache, const AqText *key, char **data,
                  size_t *bytes, bool *rejected)
{
    char path[4096];
    *rejected = false;
    if (!cache || !entry_path(cache, key, path, sizeof path) ||
        !aq_file_exists(path))
        return false;
    char *entry;
    size_t length;
    *rejected = true;
    if (aq_file_read(path, LARGEST_ENTRY, &entry, &length, NULL))
        return false;
    if (entry_is_good(entry, length, key)) {
        size_t skip = sizeof(Header) + key->length;
        *bytes = length - skip;
        memmove(entry, entry + skip, *bytes);
        *data = entry;
        *rejected = false;
        return true;
    }
    free(entry);
    return false;
}

static bool write_all(int file, const void *data, size_t bytes)
{
    for (const char *next = data; bytes > 0;) {
        ssize_t written = write(file, next, bytes);
        if (written <= 0)
            return false;
        next += written;
        bytes -= (size_t)written;
    }
    return true;
}

/* Written beside and renamed, but not synced: after a crash of the machine the
 * hash tells a torn entry. */
void aq_cache_put(const AqCache *cache, const AqText *key, const char *data,
                  size_t bytes)
{
    char path[4096], beside[4200];
    if (!cache || !entry_path(cache, key, path, sizeof path))
        return;
    AqText entry = {0};
    Header header = {.key_bytes = key->length, .data_bytes = bytes};
    memcpy(header.magic, magic, sizeof magic);
    aq_text_bytes(&entry, &header, sizeof header);
    aq_text_bytes(&entry, key->data, key->length);
    aq_text_bytes(&entry, data, bytes);
    snprintf(beside, sizeof beside, "%s.XXXXXX", path);
    int file = entry.failed ? -1 : mkstemp(beside);
    if (file >= 0) {
        header.hash = aq_hash128(entry.data + sizeof header,
                                 entry.length - sizeof header);
        memcpy(entry.data, &header, sizeof header);
        bool whole = write_all(file, entry.data, entry.length);
        whole = close(file) == 0 && whole;
        if (!whole || rename(beside, path) != 0)
            unlink(beside);
    }
    aq_text_free(&entry);
}
