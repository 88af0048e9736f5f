/* Samples that are points, as a table and as a picture, in the data's units. */
#include "runtime/run.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { MOST_DRAWN = 4096, MOST_COLOURS = 4 };

static double value_of(const AqPointSheet *sheet, const float *x, int column)
{
    const AqColumn *c = &sheet->columns[column];
    return c->centre + c->half * (double)x[column];
}

static int class_of(const AqPointSheet *sheet, int sample)
{
    return sheet->label >= 0 ? sheet->label : sample % sheet->classes;
}

/* ---- the table ---- */

/* Digits that tell the floats of a column apart, and no more. */
static int digits_of(const AqColumn *c)
{
    double larger = fabs(c->centre) / c->half;
    return (int)fmin(7 + fmax(0, ceil(log10(fmax(larger, 1)))), 17);
}

static void add_name(AqText *out, const char *name)
{
    bool quoted = strpbrk(name, ",;\t ") != NULL;
    aq_text_printf(out, quoted ? "\"%s\"" : "%s", name);
}

AqStatus aq_points_csv(const char *path, const AqPointSheet *sheet,
                       AqError *error)
{
    const AqSamples *s = &sheet->samples;
    AqText out = {0};
    for (int j = 0; j < s->channels; j++) {
        aq_text_add(&out, j ? "," : "");
        add_name(&out, sheet->columns[j].name);
    }
    aq_text_add(&out, sheet->classes ? ",class\n" : "\n");
    for (int i = 0; i < s->count; i++) {
        const float *x = s->data + (size_t)i * (size_t)s->channels;
        for (int j = 0; j < s->channels; j++)
            aq_text_printf(&out, "%s%.*g", j ? "," : "",
                           digits_of(&sheet->columns[j]),
                           value_of(sheet, x, j));
        if (sheet->classes)
            aq_text_printf(&out, ",%d", class_of(sheet, i));
        aq_text_add(&out, "\n");
    }
    AqStatus status = out.failed
                          ? aq_no_memory(error, out.length)
                          : aq_file_write(path, out.data, out.length, error);
    aq_text_free(&out);
    return status;
}

/* ---- the picture ---- */

typedef struct Cloud {
    double *x, *y;
    int64_t count;
} Cloud;

static bool make_cloud(AqArena *arena, Cloud *cloud, int64_t room)
{
    *cloud = (Cloud){.x = AQ_NEW_ARRAY(arena, double, room),
                     .y = AQ_NEW_ARRAY(arena, double, room)};
    return cloud->x && cloud->y;
}

static void add_point(const AqPointSheet *sheet, Cloud *cloud, const float *x)
{
    cloud->x[cloud->count] = value_of(sheet, x, 0);
    if (sheet->samples.channels > 1)
        cloud->y[cloud->count] = value_of(sheet, x, 1);
    cloud->count++;
}

static int compare(const void *a, const void *b)
{
    double s = *(const double *)a, t = *(const double *)b;
    return (s > t) - (s < t);
}

/* A single column has no plane: its distribution function is drawn. */
static AqSeries series_of(const AqPointSheet *sheet, Cloud *cloud,
                          const char *name, bool light)
{
    if (sheet->samples.channels == 1) {
        qsort(cloud->x, (size_t)cloud->count, sizeof *cloud->x, compare);
        for (int64_t i = 0; i < cloud->count; i++)
            cloud->y[i] = ((double)i + 0.5) / (double)cloud->count;
    }
    return (AqSeries){name, cloud->x, cloud->y, cloud->count, light};
}

static AqStatus add_training(const AqPointSheet *sheet, AqArena *arena,
                             AqSeries *series, AqError *error)
{
    int64_t all = aq_dataset_count(sheet->set), n = AQ_MIN(all, MOST_DRAWN);
    float *x = AQ_NEW_ARRAY(arena, float, aq_dataset_floats(sheet->set));
    Cloud cloud;
    if (!x || !make_cloud(arena, &cloud, n))
        return aq_no_memory(error, (size_t)n * sizeof *cloud.x);
    for (int64_t i = 0; i < n; i++) {
        if (aq_dataset_fetch(sheet->set, i * all / n, false, 0, 0, x, error))
            return error->status;
        add_point(sheet, &cloud, x);
    }
    *series = series_of(sheet, &cloud, "training data", true);
    return AQ_OK;
}

/* The samples of one class, or all (-1). */
static AqStatus add_samples(const AqPointSheet *sheet, AqArena *arena, int only,
                            AqSeries *series, AqError *error)
{
    const AqSamples *s = &sheet->samples;
    const char *name = "samples";
    Cloud cloud;
    if (!make_cloud(arena, &cloud, s->count))
        return aq_no_memory(error, (size_t)s->count * sizeof *cloud.x);
    for (int i = 0; i < s->count; i++)
        if (only < 0 || class_of(sheet, i) == only)
            add_point(sheet, &cloud, s->data + (size_t)i * (size_t)s->channels);
    if (only >= 0)
        name = sheet->set ? aq_dataset_class_name(sheet->set, only)
                          : aq_arena_printf(arena, "class %d", only);
    *series = series_of(sheet, &cloud, name, false);
    return AQ_OK;
}

static void label_axes(const AqPointSheet *sheet, AqArena *arena, AqPlot *plot)
{
    int columns = sheet->samples.channels;
    plot->x_label = sheet->columns[0].name;
    plot->y_label = columns > 1 ? sheet->columns[1].name : "share below";
    if (columns > 2)
        plot->x_label =
            aq_arena_printf(arena, "%s   (the first two of %d columns)",
                            plot->x_label, columns);
}

AqStatus aq_points_svg(const char *path, const AqPointSheet *sheet,
                       AqError *error)
{
    AqArena *arena = aq_arena_new();
    AqSeries series[1 + MOST_COLOURS];
    AqPlot plot = {.title = sheet->title, .series = series};
    bool coloured = sheet->classes > 1 && sheet->classes <= MOST_COLOURS;
    AqStatus status = arena ? AQ_OK : aq_no_memory(error, sizeof series);
    if (status == AQ_OK && sheet->set)
        status =
            add_training(sheet, arena, &series[plot.series_count++], error);
    for (int k = 0; status == AQ_OK && k < (coloured ? sheet->classes : 1); k++)
        status = add_samples(sheet, arena, coloured ? k : -1,
                             &series[plot.series_count++], error);
    if (status == AQ_OK) {
        label_axes(sheet, arena, &plot);
        status = aq_scatter_write(path, &plot, error);
    }
    aq_arena_free(arena);
    return status;
}
