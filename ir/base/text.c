/* A growing string, and the nearest of some names. */
#include "ir/base/base.h"

#include <stdlib.h>
#include <string.h>

static bool reserve(AqText *text, size_t more)
{
    size_t needed = text->length + more + 1;
    if (needed <= text->capacity)
        return true;
    size_t capacity = AQ_MAX(needed, AQ_MAX(text->capacity * 2, (size_t)256));
    char *data = realloc(text->data, capacity);
    if (!data) {
        text->failed = true;
        return false;
    }
    text->data = data;
    text->capacity = capacity;
    return true;
}

void aq_text_bytes(AqText *text, const void *data, size_t bytes)
{
    if (!reserve(text, bytes))
        return;
    if (bytes)
        memcpy(text->data + text->length, data, bytes);
    text->length += bytes;
    text->data[text->length] = 0;
}

void aq_text_add(AqText *text, const char *piece)
{
    aq_text_bytes(text, piece, strlen(piece));
}

void aq_text_vprintf(AqText *text, const char *format, va_list args)
{
    va_list again;
    va_copy(again, args);
    int length = vsnprintf(NULL, 0, format, args);
    if (length >= 0 && reserve(text, (size_t)length)) {
        vsnprintf(text->data + text->length, (size_t)length + 1, format, again);
        text->length += (size_t)length;
    }
    va_end(again);
}

void aq_text_printf(AqText *text, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    aq_text_vprintf(text, format, args);
    va_end(args);
}

void aq_text_free(AqText *text)
{
    free(text->data);
    *text = (AqText){0};
}

/* Levenshtein's distance; words longer than the row count as far away. */
static int distance(const char *a, const char *b)
{
    enum { LONGEST = 63 };
    int row[LONGEST + 1];
    int n = (int)strlen(a), m = (int)strlen(b);
    if (n > LONGEST || m > LONGEST)
        return LONGEST;
    for (int j = 0; j <= m; j++)
        row[j] = j;
    for (int i = 1; i <= n; i++) {
        int corner = row[0];
        row[0] = i;
        for (int j = 1; j <= m; j++) {
            int above = row[j];
            int change = corner + (a[i - 1] != b[j - 1]);
            row[j] = AQ_MIN(change, AQ_MIN(above, row[j - 1]) + 1);
            corner = above;
        }
    }
    return row[m];
}

const char *aq_nearest(const char *word, const char *const *names, int count)
{
    const char *best = NULL;
    int least = (int)strlen(word) / 2 + 1;
    for (int i = 0; i < count; i++) {
        int d = distance(word, names[i]);
        if (d < least) {
            least = d;
            best = names[i];
        }
    }
    return best;
}
