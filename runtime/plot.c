/* Line charts as SVG, to be read at the width of a page. */
#include "runtime/chart.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum {
    WIDTH = 960,
    HEIGHT = 480,
    LEFT = 76,
    RIGHT = 84, /* room for the last values */
    TOP = 88,
    BOTTOM = 60,
};

/* ---- ranges ---- */

static bool shown(const AqPlot *plot, double x, double y)
{
    return isfinite(x) && isfinite(y) && (!plot->log_y || y > 0);
}

static int compare(const void *a, const void *b)
{
    double s = *(const double *)a, t = *(const double *)b;
    return (s > t) - (s < t);
}

static void widen(double low, double high, double *to_low, double *to_high)
{
    *to_low = fmin(*to_low, low);
    *to_high = fmax(*to_high, high);
}

/* A pale series does not set the range by its few highest and lowest values:
 * half a per cent of them may leave the chart at either end. */
static AqStatus range_of(const AqPlot *plot, const AqSeries *series, AqAxis *x,
                         AqAxis *y, AqError *error)
{
    size_t room = (size_t)AQ_MAX(series->count, 1), n = 0;
    double *sorted = malloc(room * sizeof *sorted);
    if (!sorted)
        return aq_no_memory(error, room * sizeof *sorted);
    for (int64_t i = 0; i < series->count; i++) {
        if (!shown(plot, series->x[i], series->y[i]))
            continue;
        sorted[n++] = series->y[i];
        widen(series->x[i], series->x[i], &x->low, &x->high);
    }
    if (n > 0) {
        qsort(sorted, n, sizeof *sorted, compare);
        size_t cut = series->light ? n / 200 : 0;
        widen(sorted[cut], sorted[n - 1 - cut], &y->low, &y->high);
    }
    free(sorted);
    return AQ_OK;
}

static void mend_range(AqAxis *axis)
{
    if (axis->low > axis->high) { /* nothing was seen */
        axis->low = axis->log ? 0.1 : 0;
        axis->high = 1;
    }
    if (axis->log) {
        if (axis->high < axis->low * 1.05) {
            axis->low /= 1.1;
            axis->high *= 1.1;
        }
    } else if (axis->high - axis->low <= 1e-12 * fabs(axis->high)) {
        axis->low -= fabs(axis->low) > 0 ? fabs(axis->low) / 2 : 0.5;
        axis->high += fabs(axis->high) > 0 ? fabs(axis->high) / 2 : 0.5;
    }
}

/* ---- ticks ---- */

/* Decades, or decades with some of their multiples, whichever first gives
 * enough ticks; within less than that a log axis is as good as linear. */
static void log_ticks(AqAxis *axis)
{
    static const char *const multiples[] = {"1", "13", "125", "123456789"};
    int first = (int)floor(log10(axis->low) + 1e-9);
    int last = (int)ceil(log10(axis->high) - 1e-9);
    int stride = AQ_MAX((last - first) / 8, 1);
    for (int level = 0; level < AQ_COUNT(multiples); level++) {
        axis->tick_count = 0;
        for (int power = first; power <= last; power += stride)
            for (const char *m = multiples[level]; *m; m++) {
                double at = (*m - '0') * pow(10, power);
                if (at >= axis->low * (1 - 1e-9) &&
                    at <= axis->high * (1 + 1e-9) &&
                    axis->tick_count < AQ_MOST_TICKS)
                    axis->ticks[axis->tick_count++] = at;
            }
        if (axis->tick_count >= 4)
            return;
    }
    aq_axis_ticks(axis, aq_axis_step(axis->high - axis->low, 6));
}

/* Steps 0 .. 3999 end at 4000. */
static void finish_x(AqAxis *x)
{
    double range = x->high - x->low, step = aq_axis_step(range, 8);
    double end = ceil(x->high / step - 1e-9) * step;
    if (end - x->high < 0.02 * range)
        x->high = end;
    aq_axis_ticks(x, aq_axis_step(x->high - x->low, 8));
}

/* A linear value axis begins at 0 if its values come near, and ends on ticks;
 * a log axis gets a little room. */
static void finish_y(AqAxis *y)
{
    if (y->log) {
        double room = pow(y->high / y->low, 0.03);
        y->low /= room;
        y->high *= room;
        log_ticks(y);
        return;
    }
    if (y->low > 0 && y->low < 0.4 * y->high)
        y->low = 0;
    double step = aq_axis_step(y->high - y->low, 6);
    y->low = floor(y->low / step + 1e-9) * step;
    y->high = ceil(y->high / step - 1e-9) * step;
    aq_axis_ticks(y, aq_axis_step(y->high - y->low, 6));
}

static AqStatus make_axes(const AqPlot *plot, AqAxis *x, AqAxis *y,
                          AqError *error)
{
    *x = (AqAxis){
        .low = INFINITY, .high = -INFINITY, .from = LEFT, .to = WIDTH - RIGHT};
    *y = (AqAxis){.low = INFINITY,
                  .high = -INFINITY,
                  .from = HEIGHT - BOTTOM,
                  .to = TOP,
                  .log = plot->log_y};
    for (int i = 0; i < plot->series_count; i++) {
        AqStatus status = range_of(plot, &plot->series[i], x, y, error);
        if (status != AQ_OK)
            return status;
    }
    mend_range(x);
    mend_range(y);
    finish_x(x);
    finish_y(y);
    return AQ_OK;
}

/* ---- the parts of the chart ---- */

static void add_head(AqText *out, const AqPlot *plot)
{
    aq_chart_begin(out, WIDTH, HEIGHT);
    aq_text_printf(
        out,
        "<clipPath id=\"chart\"><rect x=\"%d\" y=\"%d\" width=\"%d\" "
        "height=\"%d\"/></clipPath>\n",
        LEFT, TOP - 4, WIDTH - LEFT - RIGHT + 3, HEIGHT - TOP - BOTTOM + 4);
    aq_chart_words(out, 24, 36, "title", plot->title);
    aq_chart_words(out, 24, TOP - 22, "label", plot->y_label);
    aq_chart_words(out, (LEFT + WIDTH - RIGHT) / 2.0, HEIGHT - 14, "middle",
                   plot->x_label);
}

static void add_rules(AqText *out, const AqAxis *y)
{
    char text[32];
    for (int i = 0; i < y->tick_count; i++) {
        double at = aq_axis_pixel(y, y->ticks[i]);
        aq_text_printf(out,
                       "<line class=\"grid\" x1=\"%d\" x2=\"%d\" y1=\"%.1f\" "
                       "y2=\"%.1f\"/>\n",
                       LEFT, WIDTH - RIGHT, at, at);
        aq_chart_number(text, sizeof text, y->ticks[i], false);
        aq_chart_words(out, LEFT - 12, at + 5, "end", text);
    }
}

static void add_base(AqText *out, const AqAxis *x)
{
    char text[32];
    double largest = x->tick_count ? x->ticks[x->tick_count - 1] : 0;
    for (int i = 0; i < x->tick_count; i++) {
        double at = aq_axis_pixel(x, x->ticks[i]);
        aq_text_printf(out,
                       "<line class=\"axis\" x1=\"%.1f\" x2=\"%.1f\" y1=\"%d\" "
                       "y2=\"%d\"/>\n",
                       at, at, HEIGHT - BOTTOM, HEIGHT - BOTTOM + 6);
        aq_chart_number(text, sizeof text, x->ticks[i], largest >= 1e4);
        aq_chart_words(out, at, HEIGHT - BOTTOM + 23, "middle", text);
    }
    aq_text_printf(out,
                   "<line class=\"axis\" x1=\"%d\" x2=\"%d\" y1=\"%d\" "
                   "y2=\"%d\"/>\n",
                   LEFT, WIDTH - RIGHT, HEIGHT - BOTTOM, HEIGHT - BOTTOM);
}

/* Pixels of a line so far.  Of the points that share half a column of pixels
 * only the first, the lowest, the highest and the last are drawn. */
typedef struct Pen {
    AqText *out;
    bool down;
    int column;
    double first[2], low[2], high[2], last[2]; /* x, y */
} Pen;

static void pen_point(Pen *pen, const double *p)
{
    aq_text_printf(pen->out, "%s%.1f %.1f", pen->down ? "L" : "M", p[0], p[1]);
    pen->down = true;
}

static void pen_flush(Pen *pen)
{
    if (pen->column < 0)
        return;
    bool low_first = pen->low[0] <= pen->high[0];
    const double *const points[] = {
        pen->first, low_first ? pen->low : pen->high,
        low_first ? pen->high : pen->low, pen->last};
    for (int i = 0; i < 4; i++)
        if (i == 0 || points[i][0] != points[i - 1][0] ||
            points[i][1] != points[i - 1][1])
            pen_point(pen, points[i]);
    pen->column = -1;
}

static void pen_add(Pen *pen, double x, double y)
{
    const double p[2] = {x, y};
    int column = (int)(x * 2);
    if (column != pen->column) {
        pen_flush(pen);
        pen->column = column;
        memcpy(pen->first, p, sizeof p);
        memcpy(pen->low, p, sizeof p);
        memcpy(pen->high, p, sizeof p);
    }
    if (y > pen->low[1])
        memcpy(pen->low, p, sizeof p);
    if (y < pen->high[1])
        memcpy(pen->high, p, sizeof p);
    memcpy(pen->last, p, sizeof p);
}

static void pen_lift(Pen *pen)
{
    pen_flush(pen);
    pen->down = false;
}

static void add_line(AqText *out, const AqPlot *plot, const AqSeries *s,
                     const AqAxis *x, const AqAxis *y, int colour)
{
    aq_text_printf(out,
                   "<path clip-path=\"url(#chart)\" stroke=\"%s\" "
                   "stroke-width=\"%s\" d=\"",
                   s->light ? aq_chart_pale[colour] : aq_chart_strong[colour],
                   s->light ? "1" : "2.4");
    Pen pen = {.out = out, .column = -1};
    for (int64_t i = 0; i < s->count; i++) {
        if (shown(plot, s->x[i], s->y[i]))
            pen_add(&pen, aq_axis_pixel(x, s->x[i]), aq_axis_pixel(y, s->y[i]));
        else
            pen_lift(&pen);
    }
    pen_lift(&pen);
    aq_text_add(out, "\"/>\n");
}

/* A pale series has the colour of the strong one after it. */
static int colour_of(const AqPlot *plot, int series)
{
    int before = 0;
    for (int i = 0; i < series; i++)
        before += !plot->series[i].light;
    return before % AQ_CHART_COLOURS;
}

static void add_lines(AqText *out, const AqPlot *plot, const AqAxis *x,
                      const AqAxis *y)
{
    for (int light = 1; light >= 0; light--)
        for (int i = 0; i < plot->series_count; i++)
            if (plot->series[i].light == light)
                add_line(out, plot, &plot->series[i], x, y, colour_of(plot, i));
}

/* The last value of each strong series, at its end; they do not overlap. */
static void add_last_values(AqText *out, const AqPlot *plot, const AqAxis *x,
                            const AqAxis *y)
{
    double taken = -INFINITY;
    for (int i = 0; i < plot->series_count; i++) {
        const AqSeries *s = &plot->series[i];
        int64_t n = s->count;
        while (n > 0 && !shown(plot, s->x[n - 1], s->y[n - 1]))
            n--;
        if (s->light || n == 0)
            continue;
        double px = aq_axis_pixel(x, s->x[n - 1]),
               py = aq_axis_pixel(y, s->y[n - 1]);
        const char *colour = aq_chart_strong[colour_of(plot, i)];
        char text[32];
        snprintf(text, sizeof text, "%.3g", s->y[n - 1]);
        aq_text_printf(out,
                       "<circle cx=\"%.1f\" cy=\"%.1f\" r=\"4\" "
                       "fill=\"%s\"/>\n",
                       px, py, colour);
        if (fabs(py - taken) < 18)
            py = taken + (py < taken ? -18 : 18);
        taken = py;
        aq_text_printf(out,
                       "<text x=\"%.1f\" y=\"%.1f\" class=\"value\" "
                       "style=\"fill: %s\">%s</text>\n",
                       px + 10, py + 5, colour, text);
    }
}

/* One line of text, so that nobody needs to know how wide it is; heavy dashes
 * stand for the lines. */
static void add_legend(AqText *out, const AqPlot *plot)
{
    aq_text_printf(out, "<text x=\"%d\" y=\"%d\" class=\"end\">", WIDTH - RIGHT,
                   TOP - 22);
    for (int i = 0; i < plot->series_count; i++) {
        const AqSeries *s = &plot->series[i];
        int colour = colour_of(plot, i);
        if (!s->name)
            continue;
        aq_text_printf(out,
                       "<tspan dx=\"%d\" style=\"fill: %s\">"
                       "\xe2\x94\x81\xe2\x94\x81</tspan><tspan dx=\"8\">",
                       i ? 22 : 0,
                       s->light ? aq_chart_pale[colour]
                                : aq_chart_strong[colour]);
        aq_chart_escaped(out, s->name);
        aq_text_add(out, "</tspan>");
    }
    aq_text_add(out, "</text>\n");
}

AqStatus aq_plot_draw(const AqPlot *plot, AqText *out, AqError *error)
{
    AqAxis x, y;
    AqStatus status = make_axes(plot, &x, &y, error);
    if (status != AQ_OK)
        return status;
    add_head(out, plot);
    add_rules(out, &y);
    add_lines(out, plot, &x, &y);
    add_base(out, &x);
    add_last_values(out, plot, &x, &y);
    add_legend(out, plot);
    aq_text_add(out, "</svg>\n");
    return out->failed ? aq_no_memory(error, out->length) : AQ_OK;
}

AqStatus aq_plot_write(const char *path, const AqPlot *plot, AqError *error)
{
    AqText text = {0};
    AqStatus status = aq_plot_draw(plot, &text, error);
    if (status == AQ_OK)
        status = aq_file_write(path, text.data, text.length, error);
    aq_text_free(&text);
    return status;
}

/* The window grows with the curve, which falls fast in the beginning. */
void aq_smooth(const double *y, int64_t count, double window, double *out)
{
    double sum = 0, weight = 0;
    for (int64_t i = 0; i < count; i++) {
        double keep = exp(-1 / fmax(fmin(window, 3 + (double)i / 8), 1e-3));
        if (isfinite(y[i])) {
            sum = keep * sum + (1 - keep) * y[i];
            weight = keep * weight + (1 - keep);
        }
        out[i] = weight > 0 ? sum / weight : NAN;
    }
}
