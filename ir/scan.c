/* Words, numbers, texts and lists of the text form, for parse.c.  A hostile
 * text gets a sentence: nothing here reads behind its end. */
#include "ir/scan.h"

#include <ctype.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* ---- errors and characters ---- */

bool aq_scan_fail(AqScanner *p, const char *format, ...)
{
    char sentence[800];
    va_list args;
    va_start(args, format);
    vsnprintf(sentence, sizeof sentence, format, args);
    va_end(args);
    aq_fail(p->error, AQ_BAD_INPUT, "%.150s:%d: %s", p->name, p->line,
            sentence);
    return false;
}

bool aq_scan_no_memory(AqScanner *p)
{
    aq_fail(p->error, AQ_NO_MEMORY, "%.150s:%d: out of memory", p->name,
            p->line);
    return false;
}

bool aq_scan_expected(AqScanner *p, const char *what)
{
    int length = 0;
    while (length < 20 && isgraph((unsigned char)p->at[length]))
        length++;
    if (length)
        return aq_scan_fail(p, "expected %s, but found '%.*s'", what, length,
                            p->at);
    return aq_scan_fail(p, "expected %s, but found %s", what,
                        !*p->at          ? "the end of the text"
                        : *p->at == '\n' ? "the end of the line"
                                         : "a strange character");
}

void aq_scan_blanks(AqScanner *p)
{
    while (*p->at == ' ' || *p->at == '\t' || *p->at == '\r')
        p->at++;
}

bool aq_scan_accept(AqScanner *p, char c)
{
    aq_scan_blanks(p);
    if (*p->at != c)
        return false;
    p->at++;
    return true;
}

bool aq_scan_expect(AqScanner *p, char c, const char *where)
{
    char what[80];
    if (aq_scan_accept(p, c))
        return true;
    snprintf(what, sizeof what, "'%c' %s", c, where);
    return aq_scan_expected(p, what);
}

/* Goes over empty lines and those that hold a comment alone. */
void aq_scan_comments(AqScanner *p)
{
    for (aq_scan_blanks(p); *p->at == '\n' || *p->at == ';';
         aq_scan_blanks(p)) {
        p->line += *p->at == '\n';
        p->at += *p->at == '\n' ? 1 : strcspn(p->at, "\n");
    }
}

bool aq_scan_end_line(AqScanner *p)
{
    aq_scan_blanks(p);
    if (*p->at != '\n')
        return aq_scan_expected(p, "the end of the line");
    aq_scan_comments(p);
    return true;
}

/* ---- words, numbers, texts ---- */

/* A name of a key, op or element; its length, 0 if there is none. */
int aq_scan_identifier(AqScanner *p)
{
    int length = 0;
    aq_scan_blanks(p);
    while (isalnum((unsigned char)p->at[length]) || p->at[length] == '_')
        length++;
    return length;
}

bool aq_scan_is(const char *at, int length, const char *word)
{
    return (int)strlen(word) == length && !strncmp(at, word, (size_t)length);
}

bool aq_scan_int(AqScanner *p, const char *what, int64_t *value)
{
    char *end;
    aq_scan_blanks(p);
    const char *digits = p->at + (*p->at == '-');
    if (!isdigit((unsigned char)*digits))
        return aq_scan_expected(p, what);
    errno = 0;
    *value = strtoll(p->at, &end, 10);
    if (errno)
        return aq_scan_fail(p, "the number %.*s does not fit into 64 bits",
                            AQ_MIN((int)(end - p->at), 40), p->at);
    p->at = end;
    return true;
}

bool aq_scan_small(AqScanner *p, const char *what, int64_t most, int64_t *value)
{
    if (!aq_scan_int(p, what, value))
        return false;
    if (*value >= 0 && *value <= most)
        return true;
    return aq_scan_fail(p, "%lld is not within 0 ... %lld", (long long)*value,
                        (long long)most);
}

bool aq_scan_real(AqScanner *p, double *value)
{
    char *end;
    aq_scan_blanks(p);
    if (!isgraph((unsigned char)*p->at))
        return aq_scan_expected(p, "a number");
    *value = strtod(p->at, &end);
    if (end == p->at)
        return aq_scan_expected(p, "a number");
    p->at = end;
    return true;
}

static bool parse_escape(AqScanner *p, char *c)
{
    char digits[3] = {0};
    switch (*p->at) {
    case '"':
    case '\\':
        *c = *p->at++;
        return true;
    case 'n':
        *c = '\n';
        p->at++;
        return true;
    case 'x':
        if (!isxdigit((unsigned char)p->at[1]) ||
            !isxdigit((unsigned char)p->at[2]))
            break;
        memcpy(digits, p->at + 1, 2);
        *c = (char)strtol(digits, NULL, 16);
        p->at += 3;
        return *c || aq_scan_fail(p, "a text cannot hold \\x00");
    }
    return aq_scan_expected(p, "\\\", \\\\, \\n or \\x and two digits");
}

/* Into the scratch arena; NULL after an error. */
const char *aq_scan_quoted(AqScanner *p)
{
    if (!aq_scan_expect(p, '"', "before a text"))
        return NULL;
    size_t bound = 0;
    while (p->at[bound] && p->at[bound] != '"' && p->at[bound] != '\n')
        bound += p->at[bound] == '\\' && p->at[bound + 1] ? 2 : 1;
    char *text = aq_arena_alloc(p->scratch, bound + 1);
    if (!text) {
        aq_scan_no_memory(p);
        return NULL;
    }
    for (size_t i = 0; *p->at != '"'; i++) {
        if (!*p->at || *p->at == '\n') {
            aq_scan_expected(p, "'\"' after a text");
            return NULL;
        }
        text[i] = *p->at++;
        if (text[i] == '\\' && !parse_escape(p, &text[i]))
            return NULL;
    }
    p->at++;
    return text;
}

/* Letters, digits and _ . - + / $ @ < > ( ), or a quoted text. */
const char *aq_scan_word(AqScanner *p, const char *what)
{
    size_t length = 0;
    aq_scan_blanks(p);
    if (*p->at == '"')
        return aq_scan_quoted(p);
    while (isalnum((unsigned char)p->at[length]) ||
           (p->at[length] && strchr("_.-+/$@<>()", p->at[length])))
        length++;
    if (!length) {
        aq_scan_expected(p, what);
        return NULL;
    }
    char *word = aq_arena_alloc(p->scratch, length + 1);
    if (!word) {
        aq_scan_no_memory(p);
        return NULL;
    }
    memcpy(word, p->at, length);
    p->at += length;
    return word;
}

/* ---- lists ---- */

/* The place of one more element, or NULL. */
void *aq_scan_more(AqScanner *p, AqScanList *list)
{
    enum { SIZE = sizeof(int64_t) };
    _Static_assert(sizeof(double) == SIZE, "one list for both");
    if (list->count == list->capacity) {
        int capacity = list->capacity ? 2 * list->capacity : 8;
        void *data = list->capacity > INT32_MAX / 4
                         ? NULL
                         : AQ_NEW_ARRAY(p->scratch, int64_t, capacity);
        if (!data) {
            aq_scan_no_memory(p);
            return NULL;
        }
        if (list->count)
            memcpy(data, list->data, (size_t)list->count * SIZE);
        list->data = data;
        list->capacity = capacity;
    }
    return (char *)list->data + SIZE * (size_t)list->count++;
}

static bool parse_number(AqScanner *p, bool real, void *place)
{
    return place && (real ? aq_scan_real(p, place)
                          : aq_scan_int(p, "a whole number", place));
}

/* "[1,2]" of int64_t or of double */
bool aq_scan_list(AqScanner *p, bool real, AqScanList *list)
{
    *list = (AqScanList){0};
    if (!aq_scan_expect(p, '[', "before a list"))
        return false;
    if (aq_scan_accept(p, ']'))
        return true;
    do {
        if (!parse_number(p, real, aq_scan_more(p, list)))
            return false;
    } while (aq_scan_accept(p, ','));
    return aq_scan_expect(p, ']', "after a list");
}
