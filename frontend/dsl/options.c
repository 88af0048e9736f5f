/* Options of a model: asked for by the model, set by the user, remembered for
 * those who want to know. */
#include "frontend/dsl/build.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

/* What the user said of this option, or NULL. */
static const char *setting(const AqModel *m, const char *name)
{
    const char *value = NULL;
    for (int i = 0; m->options && i < m->options->n_settings; i++)
        if (strcmp(m->options->settings[i].name, name) == 0)
            value = m->options->settings[i].value;
    return value;
}

static AqGraph *graph_of(const AqModel *m)
{
    return m->scope.graph;
}

static bool make_room(AqGraph *g, AqOptions *o)
{
    if (o->n_seen < o->capacity)
        return true;
    int capacity = AQ_MAX(16, 2 * o->capacity);
    AqOptionSeen *seen = AQ_NEW_ARRAY(g->arena, AqOptionSeen, capacity);
    if (!seen) {
        aq_graph_fail(g, AQ_NO_MEMORY, "memory ended");
        return false;
    }
    if (o->n_seen)
        memcpy(seen, o->seen, (size_t)o->n_seen * sizeof(*seen));
    o->seen = seen;
    o->capacity = capacity;
    return true;
}

static void remember(AqModel *m, const AqOptionSeen *option)
{
    AqOptions *o = m->options;
    AqArena *arena = graph_of(m)->arena;
    if (!o)
        return;
    for (int i = 0; i < o->n_seen; i++)
        if (strcmp(o->seen[i].name, option->name) == 0)
            return;
    if (make_room(graph_of(m), o))
        o->seen[o->n_seen++] =
            (AqOptionSeen){aq_arena_copy_text(arena, option->name),
                           aq_arena_copy_text(arena, option->otherwise),
                           aq_arena_copy_text(arena, option->value),
                           aq_arena_copy_text(arena, option->range),
                           aq_arena_copy_text(arena, option->help)};
}

static void wrong(AqPlace at, const AqModel *m, const char *name,
                  const char *value, const char *wanted, const char *range)
{
    aq_complain(at, graph_of(m), "option %s=%s: %s%s%s is needed", name, value,
                wanted, *range ? " from " : "", range);
}

/* ---- reading values ---- */

static bool read_int(const char *text, const char **end, int *value)
{
    char *stop;
    errno = 0;
    long number = strtol(text, &stop, 10);
    if (stop == text || errno || number < -2147483647 || number > 2147483647)
        return false;
    *value = (int)number;
    *end = stop;
    return true;
}

static bool read_real(const char *text, double *value)
{
    char *stop;
    *value = strtod(text, &stop);
    return stop != text && !*stop && isfinite(*value);
}

/* "1,2,2"; "" is no number at all. */
static bool read_ints(const char *text, AqInts *out)
{
    out->count = 0;
    if (!*text)
        return true;
    for (;;) {
        if (out->count == AQ_MAX_INTS ||
            !read_int(text, &text, &out->at[out->count++]))
            return false;
        if (!*text)
            return true;
        if (*text++ != ',')
            return false;
    }
}

/* ---- asking ---- */

int aq_option_int_(AqPlace at, AqOptionInt a)
{
    char usual[32], now[32], range[40] = "";
    const char *given = setting(a.model, a.name), *end = "";
    int value = a.otherwise;
    bool bounded = a.min != a.max;
    if (bounded)
        snprintf(range, sizeof(range), "%d to %d", a.min, a.max);
    bool good = !given || (read_int(given, &end, &value) && !*end);
    if (good && bounded)
        good = value >= a.min && value <= a.max;
    snprintf(usual, sizeof(usual), "%d", a.otherwise);
    snprintf(now, sizeof(now), "%d", value);
    if (!good) {
        wrong(at, a.model, a.name, given ? given : usual, "a whole number",
              range);
        value = a.otherwise;
    }
    remember(a.model, &(AqOptionSeen){a.name, usual, now, range, a.help});
    return value;
}

int aq_option_channels_(AqPlace at, AqModel *m)
{
    enum { MOST = 65536 };
    int data = aq_channels(m->x);
    int in = aq_option_int_(at, (AqOptionInt){m, "in_channels", data,
                                              "channels of the pictures",
                                              .min = 1, .max = MOST});
    int out = aq_option_int_(
        at, (AqOptionInt){m, "out_channels", 0,
                          "channels of the output, 0: as the input", .min = 0,
                          .max = MOST});
    if (in != data)
        aq_model_fail_(at, m,
                       "option in_channels=%d: the pictures have %d channels: "
                       "leave it out, or give --channels %d",
                       in, data, in);
    return out ? out : data;
}

double aq_option_real_(AqPlace at, AqOptionReal a)
{
    char usual[40], now[40], range[60] = "";
    const char *given = setting(a.model, a.name);
    double value = a.otherwise;
    bool bounded = a.min < a.max || a.min > a.max;
    if (bounded)
        snprintf(range, sizeof(range), "%g to %g", a.min, a.max);
    bool good = !given || read_real(given, &value);
    if (good && bounded)
        good = value >= a.min && value <= a.max;
    snprintf(usual, sizeof(usual), "%g", a.otherwise);
    if (strtod(usual, NULL) != a.otherwise)
        snprintf(usual, sizeof(usual), "%.17g", a.otherwise);
    snprintf(now, sizeof(now), "%s", given ? given : usual);
    if (!good) {
        wrong(at, a.model, a.name, given ? given : usual, "a number", range);
        value = a.otherwise;
    }
    remember(a.model, &(AqOptionSeen){a.name, usual, now, range, a.help});
    return value;
}

bool aq_option_bool_(AqPlace at, AqModel *m, const char *name, bool otherwise,
                     const char *help)
{
    static const char *const words[] = {"no", "yes", "false", "true", "0", "1"};
    const char *given = setting(m, name);
    int found = otherwise;
    for (int i = 0; given && i < AQ_COUNT(words); i++)
        if (strcmp(given, words[i]) == 0) {
            found = i;
            given = NULL;
        }
    if (given)
        wrong(at, m, name, given, "yes or no", "");
    remember(m, &(AqOptionSeen){name, words[otherwise], words[found % 2],
                                "yes or no", help});
    return found % 2;
}

AqInts aq_option_ints_(AqPlace at, AqOptionInts a)
{
    AqInts value = {0, {0}};
    char range[40] = "";
    const char *given = setting(a.model, a.name);
    const char *text = given ? given : a.otherwise;
    bool bounded = a.min != a.max;
    if (bounded)
        snprintf(range, sizeof(range), "%d to %d", a.min, a.max);
    bool good = read_ints(text, &value);
    for (int i = 0; good && bounded && i < value.count; i++)
        good = value.at[i] >= a.min && value.at[i] <= a.max;
    if (!good) {
        char wanted[100];
        snprintf(wanted, sizeof(wanted),
                 "a list of whole numbers%s%s, as 1,2,2,",
                 *range ? " from " : "", range);
        wrong(at, a.model, a.name, text, wanted, "");
        if (!read_ints(a.otherwise, &value))
            value.count = 0;
    }
    remember(a.model,
             &(AqOptionSeen){a.name, a.otherwise, text, range, a.help});
    return value;
}

static bool is_among(const AqInts *numbers, int number)
{
    for (int i = 0; i < numbers->count; i++)
        if (numbers->at[i] == number)
            return true;
    return false;
}

void aq_option_among_(AqPlace at, AqModel *m, const char *name, AqInts among,
                      const char *what)
{
    const char *given = setting(m, name);
    AqInts value = {0, {0}};
    if (!given || !read_ints(given, &value)) /* that is wrong already */
        return;
    char list[400] = "";
    size_t used = 0;
    for (int i = 0; i < among.count && used < sizeof(list); i++)
        used += (size_t)snprintf(list + used, sizeof(list) - used, "%s%d",
                                 i ? ", " : "", among.at[i]);
    for (int i = 0; i < value.count; i++)
        if (!is_among(&among, value.at[i]))
            aq_complain(at, graph_of(m),
                        "option %s=%s: %d is none of the %s here (%s)", name,
                        given, value.at[i], what, list);
}

const char *aq_option_text_(AqPlace at, AqOptionText a)
{
    (void)at;
    const char *given = setting(a.model, a.name);
    const char *value = given ? given : a.otherwise;
    remember(a.model, &(AqOptionSeen){a.name, a.otherwise, value,
                                      a.choices ? a.choices : "", a.help});
    return value;
}

/* The number of `word` among those of "red|green|blue", or -1. */
static int choice_of(const char *choices, const char *word)
{
    size_t length = strlen(word);
    int number = 0;
    for (const char *c = choices; c; number++) {
        if (strncmp(c, word, length) == 0 &&
            (c[length] == '|' || c[length] == 0))
            return number;
        c = strchr(c, '|');
        c = c ? c + 1 : NULL;
    }
    return -1;
}

int aq_option_choice_(AqPlace at, AqOptionText a)
{
    const char *value = aq_option_text_(at, a);
    int number = choice_of(a.choices, value);
    if (number < 0) {
        char wanted[200];
        snprintf(wanted, sizeof(wanted), "one of %s", a.choices);
        wrong(at, a.model, a.name, value, wanted, "");
        number = choice_of(a.choices, a.otherwise);
    }
    return number;
}

/* ---- afterwards ---- */

void aq_options_end(AqGraph *g, const AqOptions *o, const char *model)
{
    const char **names = AQ_NEW_ARRAY(g->arena, const char *, o->n_seen + 1);
    for (int i = 0; names && i < o->n_seen; i++)
        names[i] = o->seen[i].name;
    for (int i = 0; names && i < o->n_settings; i++) {
        const char *name = o->settings[i].name;
        bool known = false;
        for (int j = 0; j < o->n_seen; j++)
            known = known || strcmp(names[j], name) == 0;
        if (known)
            continue;
        const char *near = aq_nearest(name, names, o->n_seen);
        aq_fail(&g->error, AQ_BAD_INPUT, /* at no place in the model */
                "model %s has no option \"%s\"%s%s%s", model, name,
                near ? "; did you mean \"" : "", near ? near : "",
                near ? "\"?" : "");
        return;
    }
}

AqTensor aq_model_fail_(AqPlace at, AqModel *m, const char *format, ...)
{
    char text[800];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof(text), format, args);
    va_end(args);
    if (!at.scope)
        at.scope = m->scope.path; /* not what was built before the model */
    return aq_complain(at, graph_of(m), "%s", text);
}
