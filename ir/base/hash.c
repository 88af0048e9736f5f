/* Hashes of bytes, for interning, for the code cache and against corruption. */
#include "ir/base/base.h"

#include <errno.h>
#include <string.h>
#include <xxhash.h>

AqHash aq_hash128(const void *data, size_t bytes)
{
    XXH128_hash_t hash = XXH3_128bits(data, bytes);
    return (AqHash){.high = hash.high64, .low = hash.low64};
}

uint64_t aq_hash64(const void *data, size_t bytes)
{
    return XXH3_64bits(data, bytes);
}

static AqStatus hash_stream(FILE *file, const char *path, char digits[33],
                            AqError *error)
{
    char piece[1 << 16];
    XXH3_state_t *state = XXH3_createState();
    if (!state)
        return aq_no_memory(error, 1024);
    XXH3_128bits_reset(state);
    for (size_t n; (n = fread(piece, 1, sizeof piece, file)) > 0;)
        XXH3_128bits_update(state, piece, n);
    XXH128_hash_t hash = XXH3_128bits_digest(state);
    XXH3_freeState(state);
    snprintf(digits, 33, "%016llx%016llx", (unsigned long long)hash.high64,
             (unsigned long long)hash.low64);
    return ferror(file) ? aq_fail(error, AQ_IO, "%s: cannot read: %s", path,
                                  strerror(errno))
                        : AQ_OK;
}

AqStatus aq_hash_file(const char *path, char digits[33], AqError *error)
{
    FILE *file = fopen(path, "re");
    if (!file)
        return aq_fail(error, AQ_IO, "%s: cannot open: %s", path,
                       strerror(errno));
    AqStatus status = hash_stream(file, path, digits, error);
    fclose(file);
    return status;
}
