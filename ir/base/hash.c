/* Hashes of bytes, for interning, for the code cache and against corruption. */
#include "ir/base/base.h"

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
