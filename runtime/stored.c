/* The types of numbers in files: their names, sizes, and our reading of them.
 */
#include "runtime/files.h"

#include <string.h>

static const struct {
    const char *name;
    int bits;
} stored_types[] = {
#define X(name, bits) {#name, bits},
    AQ_STORED_TYPES(X)
#undef X
};

const char *aq_stored_name(AqStoredType type)
{
    return stored_types[type].name;
}

int aq_stored_bits(AqStoredType type)
{
    return stored_types[type].bits;
}

bool aq_stored_find(const char *name, AqStoredType *type)
{
    for (int i = 0; i < AQ_STORED_COUNT; i++) {
        if (strcmp(name, stored_types[i].name) == 0) {
            *type = (AqStoredType)i;
            return true;
        }
    }
    return false;
}

static float from_bits(uint32_t bits)
{
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

/* Without branches, so that it becomes vector code, and without denormal
 * floats, so that flushing them to zero changes nothing. */
static float half_to_float(uint16_t half)
{
    uint32_t exponent = half >> 10 & 31, fraction = half & 1023;
    uint32_t sign = (uint32_t)(half >> 15) << 31;
    uint32_t biased = exponent == 31 ? 255 : exponent + 112;
    float normal = from_bits(sign | biased << 23 | fraction << 13);
    float small = (sign ? -0x1p-24f : 0x1p-24f) * (float)(int)fraction;
    return exponent ? normal : small;
}

static float brain_to_float(uint16_t brain)
{
    return from_bits((uint32_t)brain << 16);
}

#define EACH(Type, convert)                                                    \
    for (size_t i = 0; i < count; i++) {                                       \
        Type v;                                                                \
        memcpy(&v, (const char *)from + i * sizeof v, sizeof v);               \
        out[i] = convert;                                                      \
    }                                                                          \
    return true

#define INTEGER_CASES(to)                                                      \
    case AQ_STORED_BOOL:                                                       \
    case AQ_STORED_U8:                                                         \
        EACH(uint8_t, (to)v);                                                  \
    case AQ_STORED_I8:                                                         \
        EACH(int8_t, (to)v);                                                   \
    case AQ_STORED_I16:                                                        \
        EACH(int16_t, (to)v);                                                  \
    case AQ_STORED_U16:                                                        \
        EACH(uint16_t, (to)v);                                                 \
    case AQ_STORED_I32:                                                        \
        EACH(int32_t, (to)v);                                                  \
    case AQ_STORED_U32:                                                        \
        EACH(uint32_t, (to)v);                                                 \
    case AQ_STORED_I64:                                                        \
        EACH(int64_t, (to)v)

bool aq_stored_to_floats(AqStoredType type, const void *from, size_t count,
                         void *to)
{
    float *out = to;
    switch (type) {
    case AQ_STORED_F32:
        EACH(float, v);
    case AQ_STORED_F64:
        EACH(double, (float)v);
    case AQ_STORED_F16:
        EACH(uint16_t, half_to_float(v));
    case AQ_STORED_BF16:
        EACH(uint16_t, brain_to_float(v));
    case AQ_STORED_U64:
        EACH(uint64_t, (float)v);
        INTEGER_CASES(float);
    default:
        return false;
    }
}

bool aq_stored_to_ints(AqStoredType type, const void *from, size_t count,
                       void *to)
{
    int64_t *out = to;
    switch (type) {
        INTEGER_CASES(int64_t);
    default:
        return false;
    }
}
