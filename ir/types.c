/* Element types and shapes. */
#include "ir/ir.h"

#include <string.h>

AqType aq_type(AqElement element, int rank, const int64_t *dim)
{
    AqType type = {.element = element, .rank = rank};
    for (int i = 0; i < AQ_MIN(rank, (int)AQ_MAX_RANK); i++)
        type.dim[i] = dim[i];
    return type;
}

bool aq_same_shape(const AqType *a, const AqType *b)
{
    if (a->rank != b->rank)
        return false;
    for (int i = 0; i < a->rank; i++)
        if (a->dim[i] != b->dim[i])
            return false;
    return true;
}

bool aq_same_type(const AqType *a, const AqType *b)
{
    return a->element == b->element && aq_same_shape(a, b);
}

int64_t aq_elements(const AqType *type)
{
    int64_t count = 1;
    for (int i = 0; i < type->rank; i++)
        count *= type->dim[i];
    return count;
}

int64_t aq_bytes(const AqType *type)
{
    return 4 * aq_elements(type);
}

void aq_type_text(AqText *text, const AqType *type)
{
    if (type->element == AQ_RESULTS) {
        aq_text_add(text, "results");
        return;
    }
    aq_text_add(text, type->element == AQ_I32 ? "i32[" : "f32[");
    for (int i = 0; i < AQ_MIN(type->rank, (int)AQ_MAX_RANK); i++)
        aq_text_printf(text, i ? ",%lld" : "%lld", (long long)type->dim[i]);
    aq_text_add(text, "]");
}
