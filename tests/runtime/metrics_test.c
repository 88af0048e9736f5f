/* metrics.csv: a row at a time, and what a resumed run makes of it. */
#include "runtime/run.h"

#include <math.h>
#include <setjmp.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "tests/support/folder.h"

static const char header[] =
    "step,seconds,loss,gradient_norm,learning_rate,images_per_second\n";

static void put(const char *text)
{
    AqError error = {0};
    assert_int_equal(
        aq_file_write(aq_test_path("metrics.csv"), text, strlen(text), &error),
        AQ_OK);
    unlink(aq_test_path("loss.svg"));
}

/* The text of a file; free it. */
static char *read_file(const char *name)
{
    char *data;
    size_t bytes;
    AqError error = {0};
    if (aq_file_read(aq_test_path(name), 1 << 20, &data, &bytes, &error))
        fail_msg("%s", error.text);
    return data;
}

static void check_file(const char *text)
{
    char *data = read_file("metrics.csv");
    assert_string_equal(data, text);
    free(data);
}

/* A curve of one point: the point, and its value beside it. */
static void check_point(const char *value)
{
    char *data = read_file("loss.svg");
    assert_non_null(strstr(data, "<circle "));
    assert_non_null(strstr(data, value));
    free(data);
}

static AqMetrics *open_metrics(int64_t step)
{
    AqError error = {0};
    AqMetrics *m = aq_metrics_open(aq_test_folder, step, &error);
    if (!m)
        fail_msg("%s", error.text);
    return m;
}

static void add(AqMetrics *m, int64_t step, double loss)
{
    AqError error = {0};
    AqMetricsRow row = {.step = step,
                        .seconds = (double)step / 4,
                        .loss = loss,
                        .gradient_norm = 2,
                        .learning_rate = 1e-4,
                        .images_per_second = 100};
    assert_int_equal(aq_metrics_add(m, &row, &error), AQ_OK);
}

static void test_a_row_is_there_at_once(void **state)
{
    (void)state;
    char text[500];
    unlink(aq_test_path("metrics.csv"));
    AqMetrics *m = open_metrics(0);
    check_file(header);
    add(m, 10, 0.125);
    snprintf(text, sizeof text, "%s10,2.500,0.125,2,0.0001,100.00\n", header);
    check_file(text); /* before it is closed */
    aq_metrics_close(m);
    aq_metrics_close(NULL);
}

static void test_a_killed_process_loses_no_row(void **state)
{
    (void)state;
    unlink(aq_test_path("metrics.csv"));
    pid_t child = fork();
    if (child == 0) {
        AqMetrics *m = open_metrics(0);
        add(m, 1, 0.5);
        add(m, 2, 0.25);
        raise(9);
    }
    waitpid(child, NULL, 0);
    char text[500];
    snprintf(text, sizeof text,
             "%s1,0.250,0.5,2,0.0001,100.00\n"
             "2,0.500,0.25,2,0.0001,100.00\n",
             header);
    check_file(text);
}

static void test_what_is_no_row_goes(void **state)
{
    (void)state;
    char text[800], wanted[800];
    snprintf(text, sizeof text, "%s%s", header,
             "1,0,0.5,1,1,1\n"   /* kept */
             "2,0,nan,nan,1,1\n" /* kept */
             "3,0,0.5\n"         /* torn, and a line written behind it */
             "4,0,0.5,1,1,1,9\n" /* too much */
             "junk\n"
             "5,0,0.5,1,1,1\n"   /* kept: the last step */
             "6,0,0.5,1,1,1\n"   /* a lost future */
             "5,0,0.5,1,1,0.1"); /* torn at the end */
    put(text);
    snprintf(wanted, sizeof wanted, "%s%s", header,
             "1,0,0.5,1,1,1\n2,0,nan,nan,1,1\n5,0,0.5,1,1,1\n");
    aq_metrics_close(open_metrics(5));
    check_file(wanted);
    aq_metrics_close(open_metrics(5)); /* and nothing more */
    check_file(wanted);
}

/* However far the last row got. */
static void test_every_tear(void **state)
{
    (void)state;
    const char row[] = "12,3.250,0.0125,2.5,0.0001,100.00";
    for (size_t n = 0; n < sizeof row; n++) {
        char text[600], wanted[500];
        snprintf(wanted, sizeof wanted, "%s1,0,0.5,1,1,1\n", header);
        snprintf(text, sizeof text, "%s%.*s", wanted, (int)n, row);
        put(text);
        aq_metrics_close(open_metrics(100));
        check_file(wanted);
    }
}

static void test_nan_has_no_sign(void **state)
{
    (void)state;
    char text[500];
    put(header);
    AqMetrics *m = open_metrics(0);
    add(m, 1, -(double)NAN);
    add(m, 2, (double)NAN);
    aq_metrics_close(m);
    snprintf(text, sizeof text,
             "%s1,0.250,nan,2,0.0001,100.00\n"
             "2,0.500,nan,2,0.0001,100.00\n",
             header);
    check_file(text);
}

static void test_the_curve(void **state)
{
    (void)state;
    AqError error = {0};
    put(header);
    AqMetrics *m = open_metrics(0);
    assert_int_equal(aq_metrics_plot(m, &error), AQ_OK);
    assert_false(aq_file_exists(aq_test_path("loss.svg")));
    add(m, 1, 1.25);
    assert_int_equal(aq_metrics_plot(m, &error), AQ_OK);
    check_point(">1.25</text>");
    for (int i = 2; i < 3000; i++) /* more than one piece of memory holds */
        add(m, i, i % 7 ? 1.0 / i : (double)NAN);
    assert_int_equal(aq_metrics_plot(m, &error), AQ_OK);
    assert_true(aq_file_exists(aq_test_path("loss.svg")));
    aq_metrics_close(m);
    unlink(aq_test_path("loss.svg"));
    m = open_metrics(2000); /* drawn from what the file says */
    assert_int_equal(aq_metrics_plot(m, &error), AQ_OK);
    assert_true(aq_file_exists(aq_test_path("loss.svg")));
    aq_metrics_close(m);
}

static void test_no_folder(void **state)
{
    (void)state;
    AqError error = {0};
    assert_null(aq_metrics_open("/nowhere/at/all", 0, &error));
    assert_non_null(strstr(error.text, "/nowhere/at/all/metrics.csv: cannot "
                                       "write: No such file or directory"));
}

static void test_a_full_disk(void **state)
{
    (void)state;
    AqError error = {0};
    struct rlimit kept, small;
    put(header);
    AqMetrics *m = open_metrics(0);
    add(m, 1, 0.5);
    signal(SIGXFSZ, SIG_IGN);
    getrlimit(RLIMIT_FSIZE, &kept);
    small = kept;
    small.rlim_cur = sizeof header + 40;
    setrlimit(RLIMIT_FSIZE, &small);
    AqMetricsRow row = {.step = 2};
    AqStatus status = aq_metrics_add(m, &row, &error);
    aq_metrics_close(m);
    setrlimit(RLIMIT_FSIZE, &kept);
    assert_int_equal(status, AQ_IO);
    assert_non_null(strstr(error.text, "metrics.csv: cannot write: File too "
                                       "large"));
    char wanted[300];
    snprintf(wanted, sizeof wanted, "%s1,0.250,0.5,2,0.0001,100.00\n", header);
    aq_metrics_close(open_metrics(9));
    check_file(wanted);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_row_is_there_at_once),
        cmocka_unit_test(test_a_killed_process_loses_no_row),
        cmocka_unit_test(test_what_is_no_row_goes),
        cmocka_unit_test(test_every_tear),
        cmocka_unit_test(test_nan_has_no_sign),
        cmocka_unit_test(test_the_curve),
        cmocka_unit_test(test_no_folder),
        cmocka_unit_test(test_a_full_disk),
    };
    return cmocka_run_group_tests_name("metrics", tests, aq_test_make_folder,
                                       aq_test_remove_folder);
}
