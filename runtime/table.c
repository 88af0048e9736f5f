/* Tables of numbers, as spreadsheets and numpy.savetxt leave them. */
#include "runtime/files.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

enum { MOST_COLUMNS = 4096 };
static const size_t largest_file = (size_t)1 << 30;

typedef struct Reader {
    const char *path;
    AqArena *arena;
    AqTable *table;
    AqError *error;
    int64_t line, room; /* rows */
    char separator;     /* ' ': any white space */
} Reader;

typedef enum Kind { NUMBER, MISSING, WORD } Kind;

static Kind kind_of(const char *field, double *value)
{
    static const char *const missing[] = {"", "nan", "na", "n/a", "null"};
    for (int i = 0; i < AQ_COUNT(missing); i++)
        if (!strcasecmp(field, missing[i]))
            return MISSING;
    char *end;
    *value = strtod(field, &end);
    if (end == field || *end)
        return WORD;
    return isfinite(*value) ? NUMBER : MISSING;
}

/* ---- lines and fields; the text is cut up where it lies ---- */

static void cut_blanks(char *text)
{
    size_t n = strlen(text);
    while (n > 0 && strchr(" \t\r", text[n - 1]))
        n--;
    text[n] = 0;
}

/* The next line that says something, or NULL. */
static char *next_line(Reader *r, char **at)
{
    while (*at) {
        char *line = *at, *end = strchr(line, '\n');
        *at = end ? end + 1 : NULL;
        if (end)
            *end = 0;
        r->line++;
        line[strcspn(line, "\r")] = 0;
        char first = line[strspn(line, " \t")];
        if (first && first != '#')
            return line;
    }
    return NULL;
}

static char find_separator(const char *line)
{
    return strchr(line, ',')    ? ','
           : strchr(line, ';')  ? ';'
           : strchr(line, '\t') ? '\t'
                                : ' ';
}

/* *at becomes NULL after the last one. */
static char *next_field(const Reader *r, char **at)
{
    bool blank = r->separator == ' ';
    const char stops[] = {r->separator, blank ? '\t' : 0, 0};
    char *field = *at + strspn(*at, blank ? stops : " "), *end = field;
    if (*field == '"') {
        end = ++field;
        end += strcspn(end, "\"");
        if (*end)
            *end++ = 0;
    }
    end += strcspn(end, stops);
    *at = *end ? end + 1 : NULL;
    *end = 0;
    if (blank && *at && !(*at)[strspn(*at, stops)])
        *at = NULL;
    cut_blanks(field);
    return field;
}

/* ---- the header ---- */

static AqStatus split_first(Reader *r, const char *line, char **fields)
{
    AqTable *t = r->table;
    char *at = aq_arena_copy_text(r->arena, line);
    if (!at)
        return aq_no_memory(r->error, strlen(line));
    r->separator = find_separator(line);
    while (at && t->columns < MOST_COLUMNS)
        fields[t->columns++] = next_field(r, &at);
    if (!at)
        return AQ_OK;
    return aq_fail(r->error, AQ_BAD_INPUT, "%.500s:%lld: more than %d columns",
                   r->path, (long long)r->line, MOST_COLUMNS);
}

static const char *plain_name(const Reader *r, int column)
{
    static const char *const first[] = {"x", "y", "z"};
    return r->table->columns <= AQ_COUNT(first)
               ? first[column]
               : aq_arena_printf(r->arena, "x%d", column + 1);
}

/* Finds the columns and their names; *header: the line was no row. */
static AqStatus read_first(Reader *r, const char *line, bool *header)
{
    AqTable *t = r->table;
    char *fields[MOST_COLUMNS];
    double value;
    *header = false;
    if (split_first(r, line, fields))
        return r->error->status;
    for (int i = 0; i < t->columns; i++)
        *header |= kind_of(fields[i], &value) == WORD;
    const char **names = AQ_NEW_ARRAY(r->arena, const char *, t->columns);
    t->names = names;
    if (!names)
        return aq_no_memory(r->error, sizeof fields);
    for (int i = 0; i < t->columns; i++) {
        bool named = *header && *fields[i];
        names[i] = named ? fields[i] : plain_name(r, i);
        if (!names[i])
            return aq_no_memory(r->error, sizeof fields);
    }
    return AQ_OK;
}

/* ---- rows ---- */

static AqStatus make_room(Reader *r)
{
    AqTable *t = r->table;
    if (t->rows < r->room)
        return AQ_OK;
    r->room = AQ_MAX(2 * r->room, (int64_t)1024);
    size_t bytes = (size_t)r->room * (size_t)t->columns * sizeof(double);
    double *values = realloc(t->values, bytes);
    if (!values)
        return aq_no_memory(r->error, bytes);
    t->values = values;
    return AQ_OK;
}

static void note_missing(Reader *r, int column)
{
    AqTable *t = r->table;
    if (t->missing_line > 0)
        return;
    t->missing_line = r->line;
    t->missing_column = column;
}

static AqStatus read_row(Reader *r, char *line)
{
    AqTable *t = r->table;
    if (make_room(r))
        return r->error->status;
    double *row = t->values + t->rows * t->columns;
    int n = 0;
    bool whole = true;
    for (char *at = line; at; n++) {
        char *field = next_field(r, &at);
        if (n >= t->columns)
            continue;
        Kind kind = kind_of(field, &row[n]);
        if (kind == WORD)
            return aq_fail(r->error, AQ_BAD_INPUT,
                           "%.500s:%lld: \"%.40s\" in column %s is no number",
                           r->path, (long long)r->line, field, t->names[n]);
        if (kind == MISSING)
            note_missing(r, n);
        whole &= kind == NUMBER;
    }
    if (n != t->columns)
        return aq_fail(r->error, AQ_BAD_INPUT,
                       "%.500s:%lld: has %d column%s where the lines before "
                       "it have %d",
                       r->path, (long long)r->line, n, n == 1 ? "" : "s",
                       t->columns);
    t->rows += whole;
    t->left_out += !whole;
    return AQ_OK;
}

static AqStatus read_text(Reader *r, char *text)
{
    if (!strncmp(text, "\xef\xbb\xbf", 3)) /* the mark of UTF-8 */
        text += 3;
    bool header;
    char *line = next_line(r, &text);
    if (line && read_first(r, line, &header))
        return r->error->status;
    if (line && header)
        line = next_line(r, &text);
    for (; line; line = next_line(r, &text))
        if (read_row(r, line))
            return r->error->status;
    if (r->table->rows > 0)
        return AQ_OK;
    return aq_fail(r->error, AQ_BAD_INPUT, "%.500s: has no row of numbers%s",
                   r->path,
                   r->table->left_out ? " in which no value is missing" : "");
}

AqStatus aq_table_read(const char *path, AqArena *arena, AqTable *table,
                       AqError *error)
{
    char *text;
    size_t bytes;
    *table = (AqTable){0};
    if (aq_file_read(path, largest_file, &text, &bytes, error))
        return error->status;
    Reader r = {.path = path, .arena = arena, .table = table, .error = error};
    AqStatus status = AQ_OK;
    if (strlen(text) < bytes)
        status = aq_fail(error, AQ_BAD_INPUT,
                         "%.500s: is no table of numbers but binary", path);
    else
        status = read_text(&r, text);
    free(text);
    if (status != AQ_OK)
        aq_table_free(table);
    return status;
}

void aq_table_free(AqTable *table)
{
    free(table->values);
    table->values = NULL;
}
