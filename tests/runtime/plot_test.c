/* Line charts: ticks, gaps, ranges that are none, and text from outside. */
#include "runtime/files.h"

#include <math.h>
#include <setjmp.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

static AqText draw(const AqSeries *series, int count, bool log_y)
{
    AqError error = {0};
    AqText out = {0};
    AqPlot plot = {"a < b & c", "step", "loss", series, count, log_y};
    assert_int_equal(aq_plot_draw(&plot, &out, &error), AQ_OK);
    assert_null(strstr(out.data, "nan"));
    assert_null(strstr(out.data, "inf"));
    return out;
}

static int count_of(const char *text, const char *piece)
{
    int count = 0;
    for (; (text = strstr(text, piece)); text += strlen(piece))
        count++;
    return count;
}

static void has_labels(const AqText *svg, const char *const *labels)
{
    for (; *labels; labels++) {
        char piece[64];
        snprintf(piece, sizeof piece, ">%s</text>", *labels);
        if (!strstr(svg->data, piece))
            fail_msg("no %s in %s", piece, svg->data);
    }
}

static void test_linear(void **state)
{
    (void)state;
    const double x[] = {0, 10, 20, 39}, y[] = {1, 0.5, 0.25, 0.2};
    AqSeries s = {"loss", x, y, 4, false};
    AqText svg = draw(&s, 1, false);
    /* zero is near enough to be shown; 39 is near enough to 40 */
    has_labels(&svg, (const char *[]){"0", "0.2", "0.4", "0.6", "0.8", "1",
                                      "10", "20", "35", "step", "loss",
                                      "a &lt; b &amp; c", NULL});
    assert_int_equal(count_of(svg.data, "class=\"grid\""), 6);
    assert_non_null(strstr(svg.data, "d=\"M76.0 88.0L"));
    aq_text_free(&svg);
}

static void test_log(void **state)
{
    (void)state;
    const double x[] = {0, 1, 2, 3}, y[] = {1, 0.1, 0, 1e-6};
    AqSeries s = {"loss", x, y, 4, false};
    AqText svg = draw(&s, 1, true);
    has_labels(&svg, (const char *[]){"1", "0.1", "0.01", "0.001", "0.0001",
                                      "1e-5", "1e-6", NULL});
    assert_int_equal(count_of(svg.data, "class=\"grid\""), 7);
    aq_text_free(&svg);
    const double narrow[] = {0.031, 0.032, 0.0325, 0.034};
    s.y = narrow;
    svg = draw(&s, 1, true);
    assert_true(count_of(svg.data, "class=\"grid\"") >= 4);
    has_labels(&svg, (const char *[]){"0.031", "0.032", "0.033", NULL});
    aq_text_free(&svg);
}

/* A value that is no number breaks the line in two. */
static void test_gap(void **state)
{
    (void)state;
    const double x[] = {0, 1, 2, 3, 4}, y[] = {1, 2, NAN, 2, INFINITY};
    AqSeries s = {"loss", x, y, 5, false};
    AqText svg = draw(&s, 1, false);
    const char *path = strstr(svg.data, "url(#chart)");
    const char *end = strchr(strstr(path, " d=\"") + 4, '"');
    char line[200];
    snprintf(line, sizeof line, "%.*s", (int)(end - path), path);
    assert_int_equal(count_of(line, "M"), 2);
    assert_non_null(strstr(svg.data, ">2</text>")); /* the last real value */
    aq_text_free(&svg);
}

/* A series without a name is drawn, and not in the legend. */
static void test_no_name(void **state)
{
    (void)state;
    const double x[] = {0, 1}, y[] = {1, 2};
    const AqSeries series[] = {{NULL, x, y, 2, true}, {"mean", x, y, 2, false}};
    AqText svg = draw(series, 2, false);
    assert_int_equal(count_of(svg.data, "<path"), 2);
    assert_int_equal(count_of(svg.data, "<tspan"), 2); /* its line, its name */
    assert_non_null(strstr(svg.data, "mean</tspan>"));
    aq_text_free(&svg);
}

static void test_nothing_to_draw(void **state)
{
    (void)state;
    const double x[] = {5, 5}, y[] = {NAN, -1}, same[] = {3, 3};
    AqSeries s = {"loss", x, y, 0, false};
    for (int i = 0; i < 8; i++) {
        s.count = i / 2 % 3;
        s.y = i < 6 ? y : same;
        s.count = i < 6 ? s.count : 2;
        AqText svg = draw(&s, 1, i % 2);
        assert_true(count_of(svg.data, "class=\"grid\"") >= 2);
        aq_text_free(&svg);
    }
    AqText svg = draw(NULL, 0, false);
    aq_text_free(&svg);
}

/* However many points, the file stays small and spikes stay visible; one
 * outlier of a pale series does not squeeze the rest. */
static void test_many_points(void **state)
{
    (void)state;
    enum { N = 300000 };
    double *x = malloc(N * sizeof *x), *y = malloc(N * sizeof *y);
    for (int i = 0; i < N; i++) {
        x[i] = i;
        y[i] = 1 + 0.5 * sin(i * 0.7);
    }
    y[N / 2] = 1.9;
    y[N / 3] = 1000;
    AqSeries s = {"loss", x, y, N, true};
    AqText svg = draw(&s, 1, false);
    assert_true(svg.length < 200000);
    has_labels(&svg, (const char *[]){"0.5", "1.5", "100k", "300k", NULL});
    /* 0 .. 1.5 are 332 pixels: the spike was not thinned out, but cut */
    assert_non_null(strstr(svg.data, "L476.0 -0.5"));
    free(x);
    free(y);
    aq_text_free(&svg);
}

static void test_smooth(void **state)
{
    (void)state;
    enum { N = 1000 };
    double y[N], out[N];
    for (int i = 0; i < N; i++)
        y[i] = i == 0 || i == 500 ? NAN : i % 2 ? 4 : 2;
    aq_smooth(y, N, 100, out);
    assert_true(isnan(out[0]) && out[1] == 4);
    for (int i = 300; i < N; i++)
        assert_true(fabs(out[i] - 3) < 0.05);
    for (int i = 0; i < N; i++)
        y[i] = 7;
    aq_smooth(y, N, 0, out);
    assert_true(out[0] == 7 && fabs(out[N - 1] - 7) < 1e-12);
}

static void test_write(void **state)
{
    (void)state;
    AqError error = {0};
    char path[] = "/tmp/aq_plot_XXXXXX";
    close(mkstemp(path));
    const double x[] = {0, 1}, y[] = {1, 2};
    AqSeries s[] = {{"raw", x, y, 2, true}, {"smooth", x, y, 2, false}};
    AqPlot plot = {"t", "x", "y", s, 2, false};
    assert_int_equal(aq_plot_write(path, &plot, &error), AQ_OK);
    char *data;
    size_t bytes;
    assert_int_equal(aq_file_read(path, 1 << 20, &data, &bytes, &error), AQ_OK);
    assert_memory_equal(data, "<svg ", 5);
    assert_string_equal(data + bytes - 7, "</svg>\n");
    free(data);
    unlink(path);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_linear),
        cmocka_unit_test(test_log),
        cmocka_unit_test(test_gap),
        cmocka_unit_test(test_no_name),
        cmocka_unit_test(test_nothing_to_draw),
        cmocka_unit_test(test_many_points),
        cmocka_unit_test(test_smooth),
        cmocka_unit_test(test_write),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
