/* Clouds of points as SVG.  A cloud is one path of dots, lines of no length
 * with round ends: thousands of points stay a small file. */
#include "runtime/chart.h"

#include <math.h>

enum {
    SIDE = 600,  /* of the chart, the longer one */
    LEAST = 300, /* and the shorter one */
    LEFT = 76,
    RIGHT = 28,
    TOP = 92,
    BOTTOM = 60,
    TICKS = 7,
};

static const double most_ratio = 4; /* of the ranges, for equal axes */

typedef struct Sheet {
    const AqPlot *plot;
    AqText *out;
    AqAxis x, y;
    int width, height; /* of the chart */
} Sheet;

static bool shown(const AqSeries *s, int64_t i)
{
    return isfinite(s->x[i]) && isfinite(s->y[i]);
}

/* ---- axes ---- */

/* Where nothing is seen, or one value only, there is room around it; elsewhere
 * a little room. */
static void mend_range(AqAxis *axis)
{
    if (axis->low > axis->high)
        axis->low = axis->high = 0;
    double range = axis->high - axis->low, size = fabs(axis->low);
    double room = 0.04 * range;
    if (range <= 1e-12 * size || range == 0)
        room = size > 0 ? size / 2 : 1;
    axis->low -= room;
    axis->high += room;
}

static void find_ranges(Sheet *s)
{
    s->x = s->y = (AqAxis){.low = INFINITY, .high = -INFINITY};
    for (int k = 0; k < s->plot->series_count; k++) {
        const AqSeries *series = &s->plot->series[k];
        for (int64_t i = 0; i < series->count; i++) {
            if (!shown(series, i))
                continue;
            s->x.low = fmin(s->x.low, series->x[i]);
            s->x.high = fmax(s->x.high, series->x[i]);
            s->y.low = fmin(s->y.low, series->y[i]);
            s->y.high = fmax(s->y.high, series->y[i]);
        }
    }
    mend_range(&s->x);
    mend_range(&s->y);
}

/* A side that would be too short is made longer, and its range with it. */
static int fit(AqAxis *axis, double unit)
{
    double range = axis->high - axis->low;
    double side = fmax(range * unit, LEAST);
    double more = (side / unit - range) / 2;
    axis->low -= more;
    axis->high += more;
    return (int)lrint(side);
}

static void make_axes(Sheet *s)
{
    find_ranges(s);
    double wide = s->x.high - s->x.low, high = s->y.high - s->y.low;
    double step_x = aq_axis_step(wide, TICKS);
    double step_y = aq_axis_step(high, TICKS);
    s->width = s->height = SIDE;
    if (fmax(wide, high) <= most_ratio * fmin(wide, high)) {
        double unit = SIDE / fmax(wide, high);
        s->width = fit(&s->x, unit);
        s->height = fit(&s->y, unit);
        step_x = step_y = fmax(step_x, step_y);
    }
    s->x.from = LEFT;
    s->x.to = LEFT + s->width;
    s->y.from = TOP + s->height;
    s->y.to = TOP;
    aq_axis_ticks(&s->x, step_x);
    aq_axis_ticks(&s->y, step_y);
}

/* ---- the parts of the chart ---- */

static void add_line(AqText *out, double x1, double y1, double x2, double y2)
{
    aq_text_printf(out,
                   "<line class=\"grid\" x1=\"%.1f\" y1=\"%.1f\" x2=\"%.1f\" "
                   "y2=\"%.1f\"/>\n",
                   x1, y1, x2, y2);
}

static void add_grid(const Sheet *s)
{
    char text[32];
    for (int i = 0; i < s->x.tick_count; i++) {
        double at = aq_axis_pixel(&s->x, s->x.ticks[i]);
        add_line(s->out, at, TOP, at, s->y.from);
        aq_chart_number(text, sizeof text, s->x.ticks[i], false);
        aq_chart_words(s->out, at, s->y.from + 22, "middle", text);
    }
    for (int i = 0; i < s->y.tick_count; i++) {
        double at = aq_axis_pixel(&s->y, s->y.ticks[i]);
        add_line(s->out, LEFT, at, s->x.to, at);
        aq_chart_number(text, sizeof text, s->y.ticks[i], false);
        aq_chart_words(s->out, LEFT - 12, at + 5, "end", text);
    }
}

static const char *colour_of(const Sheet *s, int series)
{
    int before = 0;
    for (int i = 0; i < series; i++)
        before += !s->plot->series[i].light;
    return s->plot->series[series].light
               ? "#d5dde0"
               : aq_chart_strong[before % AQ_CHART_COLOURS];
}

/* Many points are drawn smaller, so that a cloud keeps its shape. */
static double dot_of(const AqSeries *series)
{
    double size = 5.4 - 0.8 * log10(fmax((double)series->count, 10));
    return fmax(size, 1.6);
}

static void add_cloud(const Sheet *s, int k)
{
    const AqSeries *series = &s->plot->series[k];
    aq_text_printf(s->out, "<path stroke=\"%s\" stroke-width=\"%.2f\"%s d=\"",
                   colour_of(s, k), dot_of(series),
                   series->light ? "" : " stroke-opacity=\"0.8\"");
    for (int64_t i = 0; i < series->count; i++)
        if (shown(series, i))
            aq_text_printf(s->out, "M%.1f %.1fh0",
                           aq_axis_pixel(&s->x, series->x[i]),
                           aq_axis_pixel(&s->y, series->y[i]));
    aq_text_add(s->out, "\"/>\n");
}

static void add_legend(const Sheet *s)
{
    aq_text_printf(s->out, "<text x=\"%.0f\" y=\"%d\" class=\"end\">", s->x.to,
                   TOP - 20);
    for (int k = 0; k < s->plot->series_count; k++) {
        if (!s->plot->series[k].name)
            continue;
        aq_text_printf(s->out,
                       "<tspan dx=\"%d\" style=\"fill: %s\">"
                       "\xe2\x97\x8f</tspan><tspan dx=\"7\">",
                       k ? 20 : 0, colour_of(s, k));
        aq_chart_escaped(s->out, s->plot->series[k].name);
        aq_text_add(s->out, "</tspan>");
    }
    aq_text_add(s->out, "</text>\n");
}

AqStatus aq_scatter_draw(const AqPlot *plot, AqText *out, AqError *error)
{
    Sheet s = {.plot = plot, .out = out};
    make_axes(&s);
    aq_chart_begin(out, LEFT + s.width + RIGHT, TOP + s.height + BOTTOM);
    aq_chart_words(out, 24, 38, "title", plot->title);
    aq_chart_words(out, 24, TOP - 20, "label", plot->y_label);
    aq_chart_words(out, LEFT + s.width / 2.0, TOP + s.height + BOTTOM - 14,
                   "middle", plot->x_label);
    add_grid(&s);
    for (int light = 1; light >= 0; light--)
        for (int k = 0; k < plot->series_count; k++)
            if (plot->series[k].light == light)
                add_cloud(&s, k);
    add_legend(&s);
    aq_text_add(out, "</svg>\n");
    return out->failed ? aq_no_memory(error, out->length) : AQ_OK;
}

AqStatus aq_scatter_write(const char *path, const AqPlot *plot, AqError *error)
{
    AqText text = {0};
    AqStatus status = aq_scatter_draw(plot, &text, error);
    if (status == AQ_OK)
        status = aq_file_write(path, text.data, text.length, error);
    aq_text_free(&text);
    return status;
}
