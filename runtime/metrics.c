/* metrics.csv: a row at a time, flushed; and the loss curve drawn from it. */
#include "runtime/run.h"

#include <errno.h>
#include <limits.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

static const char header[] =
    "step,seconds,loss,gradient_norm,learning_rate,images_per_second\n";

enum { CSV_LIMIT = 256 << 20, SMOOTH_PARTS = 60 };

struct AqMetrics {
    char folder[AQ_PATH_SIZE], path[AQ_PATH_SIZE];
    FILE *file;
    double *step, *loss;
    int64_t count, capacity;
};

static bool remember(AqMetrics *m, double step, double loss)
{
    if (m->count == m->capacity) {
        int64_t capacity = AQ_MAX(m->capacity * 2, (int64_t)1024);
        size_t bytes = (size_t)capacity * sizeof(double);
        double *steps = realloc(m->step, bytes);
        if (steps)
            m->step = steps;
        double *losses = realloc(m->loss, bytes);
        if (losses)
            m->loss = losses;
        if (!steps || !losses)
            return false;
        m->capacity = capacity;
    }
    m->step[m->count] = step;
    m->loss[m->count++] = loss;
    return true;
}

/* Rows up to `step`, kept in the file and in memory.  Torn rows go. */
static AqStatus keep_rows(AqMetrics *m, char *text, int64_t step,
                          AqError *error)
{
    AqText kept = {0};
    aq_text_add(&kept, header);
    for (char *line = text, *end; (end = strchr(line, '\n')); line = end + 1) {
        *end = 0;
        double s, loss, other;
        int length = 0;
        int fields = sscanf(line, "%lf,%lf,%lf,%lf,%lf,%lf%n", &s, &other,
                            &loss, &other, &other, &other, &length);
        if (fields != 6 || line[length] || s > (double)step)
            continue;
        aq_text_printf(&kept, "%s\n", line);
        if (!remember(m, s, loss))
            kept.failed = true;
    }
    AqStatus status =
        kept.failed ? aq_no_memory(error, kept.length)
                    : aq_file_write(m->path, kept.data, kept.length, error);
    aq_text_free(&kept);
    return status;
}

static AqStatus prepare(AqMetrics *m, int64_t step, AqError *error)
{
    char *text = NULL;
    size_t bytes;
    if (!aq_file_exists(m->path))
        return aq_file_write(m->path, header, strlen(header), error);
    if (aq_file_read(m->path, CSV_LIMIT, &text, &bytes, error))
        return error->status;
    AqStatus status = keep_rows(m, text, step, error);
    free(text);
    return status;
}

AqMetrics *aq_metrics_open(const char *folder, int64_t step, AqError *error)
{
    AqMetrics *m = calloc(1, sizeof *m);
    if (!m) {
        aq_no_memory(error, sizeof *m);
        return NULL;
    }
    aq_path(m->folder, "%s", folder);
    aq_path(m->path, "%s/metrics.csv", folder);
    if (prepare(m, step, error) == AQ_OK) {
        m->file = fopen(m->path, "ae");
        if (!m->file)
            aq_fail(error, AQ_IO, "%s: cannot open: %s", m->path,
                    strerror(errno));
    }
    if (m->file)
        return m;
    aq_metrics_close(m);
    return NULL;
}

/* NaN has a sign that means nothing. */
static double without_sign(double x)
{
    return isnan(x) ? fabs(x) : x;
}

AqStatus aq_metrics_add(AqMetrics *m, const AqMetricsRow *row, AqError *error)
{
    fprintf(m->file, "%lld,%.3f,%.9g,%.9g,%.9g,%.2f\n", (long long)row->step,
            row->seconds, without_sign(row->loss),
            without_sign(row->gradient_norm), row->learning_rate,
            row->images_per_second);
    if (fflush(m->file))
        return aq_fail(error, AQ_IO, "%s: cannot write: %s", m->path,
                       strerror(errno));
    return remember(m, (double)row->step, row->loss)
               ? AQ_OK
               : aq_no_memory(error, sizeof *row);
}

AqStatus aq_metrics_plot(const AqMetrics *m, AqError *error)
{
    if (m->count == 0)
        return AQ_OK;
    double *smooth = malloc((size_t)m->count * sizeof *smooth);
    if (!smooth)
        return aq_no_memory(error, (size_t)m->count * sizeof *smooth);
    aq_smooth(m->loss, m->count, fmax(2, (double)m->count / SMOOTH_PARTS),
              smooth);
    AqSeries series[] = {{"loss", m->step, m->loss, m->count, true},
                         {"smoothed", m->step, smooth, m->count, false}};
    AqPlot plot = {.title = "Training loss",
                   .x_label = "step",
                   .y_label = "loss",
                   .series = series,
                   .series_count = AQ_COUNT(series),
                   .log_y = true};
    char path[AQ_PATH_SIZE];
    aq_path(path, "%s/loss.svg", m->folder);
    AqStatus status = aq_plot_write(path, &plot, error);
    free(smooth);
    return status;
}

void aq_metrics_close(AqMetrics *m)
{
    if (!m)
        return;
    if (m->file)
        fclose(m->file);
    free(m->step);
    free(m->loss);
    free(m);
}
