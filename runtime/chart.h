/* What plot.c and scatter.c share: axes, ticks, words, colours. */
#ifndef AQ_CHART_H
#define AQ_CHART_H

#include "runtime/files.h"

enum { AQ_MOST_TICKS = 32, AQ_CHART_COLOURS = 4 };

extern const char *const aq_chart_strong[AQ_CHART_COLOURS];
extern const char *const aq_chart_pale[AQ_CHART_COLOURS];

/* One axis: values low .. high become pixels from .. to. */
typedef struct AqAxis {
    double low, high, from, to;
    bool log;
    double ticks[AQ_MOST_TICKS];
    int tick_count;
} AqAxis;

/* 1, 2 or 5 times a power of ten: at most `most` steps in the range */
double aq_axis_step(double range, int most);
/* The multiples of `step` in the range. */
void aq_axis_ticks(AqAxis *axis, double step);
double aq_axis_pixel(const AqAxis *axis, double v);

/* The beginning of an SVG on white paper, with its styles. */
void aq_chart_begin(AqText *out, int width, int height);
/* Text from outside. */
void aq_chart_escaped(AqText *out, const char *text);
void aq_chart_words(AqText *out, double x, double y, const char *style,
                    const char *words);
/* 0.05, 1500, 20k, 3M, 1e-6 */
void aq_chart_number(char *out, size_t size, double v, bool thousands);

#endif
