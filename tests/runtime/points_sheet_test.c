/* Clouds of points: axes of one scale, what is drawn and what is not; and
 * samples written as tables. */
#include "runtime/run.h"

#include <math.h>
#include <setjmp.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

static AqText draw(const AqSeries *series, int count)
{
    AqError error = {0};
    AqText out = {0};
    AqPlot plot = {"a < b & c", "x", "y", series, count, false};
    assert_int_equal(aq_scatter_draw(&plot, &out, &error), AQ_OK);
    assert_null(strstr(out.data, "nan"));
    assert_null(strstr(out.data, "inf"));
    return out;
}

/* The dots of path `number`, at most `most`. */
static int read_dots(const char *svg, int number, int most, double (*dots)[2])
{
    for (int i = 0; i <= number; i++) {
        svg = strstr(svg + 1, "<path ");
        assert_non_null(svg);
    }
    int n = 0;
    const char *at = strstr(svg, " d=\"") + 4;
    for (; *at == 'M'; n++) {
        assert_true(n < most);
        assert_int_equal(sscanf(at, "M%lf %lfh0", &dots[n][0], &dots[n][1]), 2);
        at = strstr(at, "h0") + 2;
    }
    assert_int_equal(*at, '"');
    return n;
}

static void test_one_scale(void **state)
{
    (void)state;
    const double x[] = {0, 3, 0}, y[] = {0, 0, 1.5};
    AqSeries s = {"samples", x, y, 3, false};
    AqText svg = draw(&s, 1);
    double dots[3][2];
    assert_int_equal(read_dots(svg.data, 0, 3, dots), 3);
    double right = dots[1][0] - dots[0][0], up = dots[0][1] - dots[2][1];
    assert_true(right > 300 && fabs(right - 2 * up) < 0.5);
    assert_true(dots[0][1] == dots[1][1] && dots[0][0] == dots[2][0]);
    assert_non_null(strstr(svg.data, "a &lt; b &amp; c"));
    aq_text_free(&svg);
}

/* Height in metres and income in euros have no scale in common. */
static void test_two_scales(void **state)
{
    (void)state;
    const double x[] = {1.5, 2, 1.5}, y[] = {0, 0, 90000};
    AqSeries s = {"samples", x, y, 3, false};
    AqText svg = draw(&s, 1);
    double dots[3][2];
    read_dots(svg.data, 0, 3, dots);
    double right = dots[1][0] - dots[0][0], up = dots[0][1] - dots[2][1];
    assert_true(right > 300 && fabs(right - up) < 0.5);
    assert_non_null(strstr(svg.data, ">80000</text>"));
    aq_text_free(&svg);
}

static void test_light_lies_below(void **state)
{
    (void)state;
    const double x[] = {0, 1, 2, NAN, 3}, y[] = {0, 1, INFINITY, 1, 1};
    AqSeries s[] = {{"samples", x, y, 2, false}, {"data", x, y, 5, true}};
    AqText svg = draw(s, 2);
    double dots[5][2];
    assert_int_equal(read_dots(svg.data, 0, 5, dots), 3);
    assert_int_equal(read_dots(svg.data, 1, 5, dots), 2);
    aq_text_free(&svg);
}

static void test_next_to_nothing(void **state)
{
    (void)state;
    const double one[] = {7};
    AqSeries none = {"samples", one, one, 0, false};
    AqSeries single = {"samples", one, one, 1, false};
    AqText svg = draw(&none, 1);
    double dots[1][2];
    assert_int_equal(read_dots(svg.data, 0, 1, dots), 0);
    aq_text_free(&svg);
    svg = draw(&single, 1);
    assert_int_equal(read_dots(svg.data, 0, 1, dots), 1);
    assert_non_null(strstr(svg.data, ">7</text>"));
    aq_text_free(&svg);
}

/* ---- tables ---- */

static void check_table(const AqPointSheet *sheet, const char *wanted)
{
    char path[] = "/tmp/aq_sheet_XXXXXX", *text;
    size_t bytes;
    AqError error = {0};
    close(mkstemp(path));
    assert_int_equal(aq_points_csv(path, sheet, &error), AQ_OK);
    assert_int_equal(aq_file_read(path, 4096, &text, &bytes, &error), AQ_OK);
    assert_string_equal(text, wanted);
    free(text);
    unlink(path);
}

static void test_table(void **state)
{
    (void)state;
    const float x[] = {-1, 0, 0.5f, 1, 0, 1.0f / 3};
    const AqColumn columns[] = {{"age, years", 50, 30}, {"t", 1.7e9, 100}};
    AqPointSheet sheet = {.samples = {x, 3, 0, 0, 2}, .columns = columns};
    check_table(&sheet, "\"age, years\",t\n20,1700000000\n65,1700000100\n"
                        "50,1700000033.33333\n");
    sheet.classes = 2;
    sheet.label = -1;
    check_table(&sheet, "\"age, years\",t,class\n20,1700000000,0\n"
                        "65,1700000100,1\n50,1700000033.33333,0\n");
    sheet.label = 1;
    sheet.samples.count = 1;
    check_table(&sheet, "\"age, years\",t,class\n20,1700000000,1\n");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_one_scale),
        cmocka_unit_test(test_two_scales),
        cmocka_unit_test(test_light_lies_below),
        cmocka_unit_test(test_next_to_nothing),
        cmocka_unit_test(test_table),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
