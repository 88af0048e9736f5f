/* The first error sticks. */
#include "ir/base/base.h"

#undef aq_fail
#undef aq_no_memory

AqStatus aq_fail(AqError *error, AqStatus status, const char *format, ...)
{
    if (!error)
        return status;
    if (error->status != AQ_OK)
        return error->status;
    error->status = status;
    va_list args;
    va_start(args, format);
    vsnprintf(error->text, sizeof error->text, format, args);
    va_end(args);
    return status;
}

AqStatus aq_no_memory(AqError *error, size_t bytes)
{
    return aq_fail(error, AQ_NO_MEMORY, "out of memory: %zu bytes were refused",
                   bytes);
}
