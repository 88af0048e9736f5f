/* Points as data: shapes of the plane that everybody tries first, and tables.
 *
 * Point i of a shape is a function of the shape's name and i.  Every column is
 * shifted and scaled so that the data lie in [-1, 1], which is what a model is
 * given and a sampler clips to; samples go the same way back. */
#include "ir/ir.h"
#include "runtime/files.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { USUAL_COUNT = 4096, MOST_POINTS = 1 << 24 };

static const double pi = 3.14159265358979323846;

/* ---- shapes ---- */

/* Where point i would lie without noise; u and v are uniform in (0, 1). */
typedef void Place(int64_t i, double u, double v, double p[2]);

typedef struct Shape {
    const char *name;
    Place *place;
    double noise; /* standard deviation */
    int class_count;
    const char *const *classes;
} Shape;

/* Archimedes' r = t / 3 pi.  The arc grows like t^2, so uniform t^2 spread the
 * points evenly. */
static void spiral(int64_t i, double u, double v, double p[2])
{
    (void)i, (void)v;
    double t = 3 * pi * sqrt(0.05 + 0.95 * u);
    p[0] = t * cos(t) / (3 * pi);
    p[1] = t * sin(t) / (3 * pi);
}

static void moons(int64_t i, double u, double v, double p[2])
{
    (void)v;
    bool lower = i % 2;
    p[0] = lower ? 1 - cos(pi * u) : cos(pi * u);
    p[1] = lower ? 0.5 - sin(pi * u) : sin(pi * u);
}

static void circles(int64_t i, double u, double v, double p[2])
{
    (void)v;
    double radius = i % 2 ? 0.5 : 1;
    p[0] = radius * cos(2 * pi * u);
    p[1] = radius * sin(2 * pi * u);
}

static void gaussians(int64_t i, double u, double v, double p[2])
{
    (void)u, (void)v;
    double angle = (double)(i % 8) * pi / 4;
    p[0] = cos(angle);
    p[1] = sin(angle);
}

/* The dark squares of 4 x 4, each 1 x 1. */
static void checkerboard(int64_t i, double u, double v, double p[2])
{
    int column = (int)(i % 4), row = (int)(2 * (i / 4 % 2)) + column % 2;
    p[0] = column - 2 + u;
    p[1] = row - 2 + v;
}

static const char *const of_moons[] = {"upper", "lower"};
static const char *const of_circles[] = {"outer", "inner"};
static const char *const of_gaussians[] = {
    "east", "north-east", "north", "north-west",
    "west", "south-west", "south", "south-east"};

static const Shape shapes[] = {
    {"spiral", spiral, 0.02, 0, NULL},
    {"moons", moons, 0.06, 2, of_moons},
    {"circles", circles, 0.04, 2, of_circles},
    {"gaussians", gaussians, 0.08, 8, of_gaussians},
    {"checkerboard", checkerboard, 0, 0, NULL},
};

static double unit(uint32_t word)
{
    return (word + 0.5) * 0x1p-32;
}

static void draw_point(const Shape *shape, const uint32_t key[2], int64_t i,
                       double *p)
{
    uint32_t counter[4] = {(uint32_t)i, (uint32_t)(i >> 32), 0, 0}, word[4];
    aq_philox(counter, key, word);
    shape->place(i, unit(word[0]), unit(word[1]), p);
    double radius = shape->noise * sqrt(-2 * log(unit(word[2])));
    p[0] += radius * cos(2 * pi * unit(word[3]));
    p[1] += radius * sin(2 * pi * unit(word[3]));
    /* Mathematics libraries differ in the last bits; the data must not. */
    for (int j = 0; j < 2; j++)
        p[j] = rint(p[j] * 0x1p20) * 0x1p-20;
}

static AqStatus make_shape(const Shape *shape, int64_t count, AqTable *table,
                           AqError *error)
{
    static const char *const names[] = {"x", "y"};
    size_t bytes = (size_t)count * 2 * sizeof(double);
    *table = (AqTable){.rows = count, .columns = 2, .names = names};
    table->values = malloc(bytes);
    if (!table->values)
        return aq_no_memory(error, bytes);
    uint32_t key[2];
    aq_philox_key(aq_hash64(shape->name, strlen(shape->name)), key);
    for (int64_t i = 0; i < count; i++)
        draw_point(shape, key, i, table->values + 2 * i);
    return AQ_OK;
}

/* ---- scaling ---- */

static AqColumn column_of(const AqTable *t, int j)
{
    double low = t->values[j], high = low;
    for (int64_t i = 1; i < t->rows; i++) {
        low = fmin(low, t->values[i * t->columns + j]);
        high = fmax(high, t->values[i * t->columns + j]);
    }
    double half = high / 2 - low / 2;
    return (AqColumn){.centre = low + half, .half = half > 0 ? half : 1};
}

static AqStatus scale(const AqTable *t, AqArena *arena, AqPoints *points,
                      AqError *error)
{
    size_t floats = (size_t)t->rows * (size_t)t->columns;
    points->count = t->rows;
    points->left_out = t->left_out;
    points->columns = t->columns;
    points->column = AQ_NEW_ARRAY(arena, AqColumn, t->columns);
    points->x = AQ_NEW_ARRAY(arena, float, floats);
    if (!points->column || !points->x)
        return aq_no_memory(error, floats * sizeof(float));
    for (int j = 0; j < t->columns; j++) {
        AqColumn c = column_of(t, j);
        c.name = t->names[j];
        points->column[j] = c;
        for (size_t i = (size_t)j; i < floats; i += (size_t)t->columns) {
            double x = (t->values[i] - c.centre) / c.half;
            points->x[i] = (float)fmax(-1, fmin(x, 1));
        }
    }
    return AQ_OK;
}

static AqStatus take_fingerprint(AqPoints *points, AqError *error)
{
    AqText text = {0};
    size_t floats = (size_t)points->count * (size_t)points->columns;
    aq_text_printf(
        &text, "%016llx %d\n",
        (unsigned long long)aq_hash64(points->x, floats * sizeof(float)),
        points->class_count);
    for (int j = 0; j < points->columns; j++)
        aq_text_printf(&text, "%a %a %s\n", points->column[j].centre,
                       points->column[j].half, points->column[j].name);
    AqStatus status = text.failed ? aq_no_memory(error, text.length) : AQ_OK;
    if (status == AQ_OK)
        points->fingerprint = aq_hash128(text.data, text.length);
    aq_text_free(&text);
    return status;
}

/* ---- opening ---- */

static AqStatus unknown(const char *what, AqError *error)
{
    const char *names[AQ_COUNT(shapes)];
    AqText list = {0};
    for (int i = 0; i < AQ_COUNT(shapes); i++) {
        names[i] = shapes[i].name;
        aq_text_printf(&list, "%s%s", i ? ", " : "", names[i]);
    }
    const char *near = *what ? aq_nearest(what, names, AQ_COUNT(shapes)) : NULL;
    aq_fail(error, AQ_BAD_INPUT,
            "points:%.200s: no points and no file have this name%s%s%s; there "
            "are %s, and tables of numbers, as in points:data.csv",
            what, near ? " (did you mean points:" : "", near ? near : "",
            near ? "?)" : "", list.data ? list.data : "");
    aq_text_free(&list);
    return AQ_BAD_INPUT;
}

/* A shape and a number of points; NULL if it is neither. */
static const Shape *find_shape(const char *what, int64_t *count)
{
    size_t n = strcspn(what, ":");
    for (int i = 0; i < AQ_COUNT(shapes); i++) {
        const char *name = shapes[i].name;
        if (strlen(name) != n || strncmp(name, what, n))
            continue;
        char *end = NULL;
        *count = what[n] ? strtoll(what + n + 1, &end, 10) : USUAL_COUNT;
        if (end && (*end || end == what + n + 1))
            *count = 0;
        return &shapes[i];
    }
    return NULL;
}

bool aq_points_is_table(const char *what)
{
    int64_t count;
    return *what && !find_shape(what, &count);
}

static void tell_missing(const char *path, const AqTable *t, AqWarn warn,
                         void *context)
{
    AqText text = {0};
    aq_text_printf(&text,
                   "%s: %lld row%s left out because of missing values, the "
                   "first at line %lld in column %s",
                   path, (long long)t->left_out,
                   t->left_out == 1 ? " is" : "s are",
                   (long long)t->missing_line, t->names[t->missing_column]);
    if (text.data)
        warn(context, text.data);
    aq_text_free(&text);
}

AqStatus aq_points_open(const char *what, AqArena *arena, AqWarn warn,
                        void *context, AqPoints *points, AqError *error)
{
    AqTable table = {0};
    int64_t count = 0;
    const Shape *shape = find_shape(what, &count);
    *points = (AqPoints){0};
    if (!shape && (!*what || !aq_file_exists(what)))
        return unknown(what, error);
    if (shape && (count < 2 || count > MOST_POINTS))
        return aq_fail(error, AQ_BAD_INPUT,
                       "points:%.200s: the number of points must lie between "
                       "2 and %d",
                       what, MOST_POINTS);
    AqStatus status = shape ? make_shape(shape, count, &table, error)
                            : aq_table_read(what, arena, &table, error);
    if (status == AQ_OK && table.left_out > 0 && warn)
        tell_missing(what, &table, warn, context);
    if (status == AQ_OK)
        status = scale(&table, arena, points, error);
    aq_table_free(&table);
    if (status == AQ_OK && shape) {
        points->class_count = shape->class_count;
        points->classes = shape->classes;
    }
    return status == AQ_OK ? take_fingerprint(points, error) : status;
}
