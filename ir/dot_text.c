/* Escapes, and lists of words broken into lines. */
#include "ir/dot.h"

#include <stdlib.h>
#include <string.h>

enum { LINE_WIDTH = 34 };

/* ---- escapes ---- */

/* Bytes of the UTF-8 sequence at `s`, 0 where it is none. */
static int utf8_length(const unsigned char *s)
{
    int n = s[0] < 0x80                    ? 1
            : s[0] >= 0xc2 && s[0] <= 0xdf ? 2
            : s[0] >= 0xe0 && s[0] <= 0xef ? 3
            : s[0] >= 0xf0 && s[0] <= 0xf4 ? 4
                                           : 0;
    for (int i = 1; i < n; i++)
        if ((s[i] & 0xc0) != 0x80)
            return 0;
    return n;
}

/* One character that every reader takes; `special` ones by `replace`. */
static void add_safe(AqText *out, const char *text, const char *special,
                     const char *const *replace)
{
    while (*text) {
        int n = utf8_length((const unsigned char *)text);
        const char *found = n == 1 ? strchr(special, *text) : NULL;
        if (found)
            aq_text_add(out, replace[found - special]);
        else if (n == 0 ||
                 (n == 1 && ((unsigned char)*text < ' ' || *text == 127)))
            aq_text_add(out, "?");
        else
            aq_text_bytes(out, text, (size_t)n);
        text += AQ_MAX(n, 1);
    }
}

void aq_dot_escape(AqText *out, const char *text)
{
    static const char *const entities[] = {"&amp;", "&lt;", "&gt;", "&quot;",
                                           "&#92;"};
    add_safe(out, text, "&<>\"\\", entities);
}

void aq_dot_quote(AqText *out, const char *text)
{
    static const char *const escapes[] = {"\\\"", "\\\\"};
    aq_text_add(out, "\"");
    add_safe(out, text, "\"\\", escapes);
    aq_text_add(out, "\"");
}

/* ---- lists of words ---- */

void aq_dot_add_word(DotWords *words, AqText *word, bool once)
{
    for (int i = 0; once && word->data && i < words->count; i++)
        if (!strcmp(words->at[i].data, word->data)) {
            words->times[i]++;
            aq_text_free(word);
            return;
        }
    if (words->count == words->capacity) {
        int larger = AQ_MAX(16, 2 * words->capacity);
        AqText *at = realloc(words->at, (size_t)larger * sizeof *at);
        words->at = at ? at : words->at;
        int *times = realloc(words->times, (size_t)larger * sizeof *times);
        words->times = times ? times : words->times;
        words->capacity = at && times ? larger : words->capacity;
    }
    if (word->data && words->count < words->capacity) {
        words->times[words->count] = 1;
        words->at[words->count++] = *word;
        return;
    }
    aq_text_free(word);
}

void aq_dot_free_words(DotWords *words)
{
    for (int i = 0; i < words->count; i++)
        aq_text_free(&words->at[i]);
    free(words->at);
    free(words->times);
}

/* Joined by commas into lines; the rest is counted. */
void aq_dot_print_words(const DotWords *words, AqText *out, int most_lines)
{
    size_t width = 0;
    int lines = 1;
    for (int i = 0; i < words->count; i++) {
        if (i > 0 && width + words->at[i].length > LINE_WIDTH) {
            if (lines++ == most_lines) {
                aq_text_printf(out, ", … %d more", words->count - i);
                return;
            }
            aq_text_add(out, ",<br/>");
            width = 0;
        } else if (i > 0) {
            aq_text_add(out, ", ");
        }
        if (words->times[i] > 1)
            aq_text_printf(out, "%d × ", words->times[i]);
        aq_dot_escape(out, words->at[i].data);
        width += words->at[i].length + 2;
    }
}
