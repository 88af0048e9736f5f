/* Parts of charts. */
#include "runtime/chart.h"

#include <math.h>

const char *const aq_chart_strong[AQ_CHART_COLOURS] = {"#0f5f73", "#c2512f",
                                                       "#6d4a8d", "#8a7a12"};
const char *const aq_chart_pale[AQ_CHART_COLOURS] = {"#b4d3da", "#efcbbd",
                                                     "#d5c8e0", "#e0daab"};

/* ---- axes ---- */

double aq_axis_step(double range, int most)
{
    double power = pow(10, floor(log10(range / most)));
    static const double factors[] = {1, 2, 5, 10};
    for (int i = 0; i < AQ_COUNT(factors); i++)
        if (range / (power * factors[i]) <= most)
            return power * factors[i];
    return power * 10;
}

void aq_axis_ticks(AqAxis *axis, double step)
{
    double first = ceil(axis->low / step - 1e-9);
    axis->tick_count = 0;
    for (int i = 0; axis->tick_count < AQ_MOST_TICKS; i++) {
        double at = (first + i) * step;
        if (at > axis->high + step * 1e-9)
            break;
        axis->ticks[axis->tick_count++] = at;
    }
}

double aq_axis_pixel(const AqAxis *axis, double v)
{
    double low = axis->low, high = axis->high;
    if (axis->log) {
        v = log(v);
        low = log(low);
        high = log(high);
    }
    return axis->from + (v - low) / (high - low) * (axis->to - axis->from);
}

/* ---- text ---- */

void aq_chart_escaped(AqText *out, const char *text)
{
    for (; text && *text; text++) {
        unsigned char c = (unsigned char)*text;
        if (c == '<')
            aq_text_add(out, "&lt;");
        else if (c == '&')
            aq_text_add(out, "&amp;");
        else
            aq_text_bytes(out, c < 0x20 ? " " : text, 1);
    }
}

void aq_chart_words(AqText *out, double x, double y, const char *style,
                    const char *words)
{
    aq_text_printf(out, "<text x=\"%.1f\" y=\"%.1f\" class=\"%s\">", x, y,
                   style);
    aq_chart_escaped(out, words);
    aq_text_add(out, "</text>\n");
}

void aq_chart_number(char *out, size_t size, double v, bool thousands)
{
    double a = fabs(v);
    if (a < 1e-12) {
        snprintf(out, size, "0");
    } else if (a >= 1e6 || (thousands && a >= 1e3)) {
        bool millions = a >= 1e6;
        snprintf(out, size, "%.6g%s", v / (millions ? 1e6 : 1e3),
                 millions ? "M" : "k");
    } else if (a < 1e-4) {
        int power = (int)floor(log10(a) + 1e-9);
        snprintf(out, size, "%.3ge%d", v / pow(10, power), power);
    } else {
        snprintf(out, size, "%.6g", v);
    }
}

void aq_chart_begin(AqText *out, int width, int height)
{
    aq_text_printf(
        out,
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 %d %d\" "
        "width=\"%d\" height=\"%d\">\n"
        "<style>\n"
        "text { font: 14px 'Source Sans 3', 'Helvetica Neue', Helvetica, "
        "Arial, 'DejaVu Sans', sans-serif; fill: #5b6770 }\n"
        ".title { font-size: 20px; font-weight: 600; fill: #1d2a31 }\n"
        ".middle { text-anchor: middle }\n"
        ".end { text-anchor: end }\n"
        ".value { font-size: 15px; font-weight: 600 }\n"
        ".grid { stroke: #e4e9eb; stroke-width: 1 }\n"
        ".axis { stroke: #8b979e; stroke-width: 1 }\n"
        "path { fill: none; stroke-linejoin: round; stroke-linecap: round }\n"
        "</style>\n"
        "<rect width=\"%d\" height=\"%d\" fill=\"#ffffff\"/>\n",
        width, height, width, height, width, height);
}
