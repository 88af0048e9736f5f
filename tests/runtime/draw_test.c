/* `dot` as a child: there, missing, slow, failing.  Stand-ins for it are
 * scripts that the test puts into the search path. */
#include "runtime/run.h"

#include <setjmp.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

typedef struct Room {
    char folder[64];
    char svg[96], text[96], script[96]; /* text: the .dot that stays */
    char *path;                         /* the search path before */
} Room;

static const AqText graph = {.data = "digraph { a -> b }\n", .length = 19};

static int set_up(void **state)
{
    Room *r = calloc(1, sizeof *r);
    strcpy(r->folder, "/tmp/aquatint-draw-XXXXXX");
    assert_non_null(mkdtemp(r->folder));
    snprintf(r->svg, sizeof r->svg, "%s/g.svg", r->folder);
    snprintf(r->text, sizeof r->text, "%s/g.svg.dot", r->folder);
    snprintf(r->script, sizeof r->script, "%s/dot", r->folder);
    r->path = strdup(getenv("PATH"));
    setenv("PATH", r->folder, 1);
    *state = r;
    return 0;
}

static int tear_down(void **state)
{
    Room *r = *state;
    setenv("PATH", r->path, 1);
    unlink(r->svg);
    unlink(r->text);
    unlink(r->script);
    rmdir(r->folder);
    free(r->path);
    free(r);
    return 0;
}

/* A `dot` that does what the lines say; commands by their full names. */
static void stand_in(const Room *r, const char *lines)
{
    FILE *file = fopen(r->script, "w");
    assert_non_null(file);
    fprintf(file, "#!/bin/sh\n%s\n", lines);
    fclose(file);
    assert_int_equal(chmod(r->script, 0755), 0);
}

static void check_file(const char *path, const char *expected)
{
    char *data = NULL;
    size_t bytes = 0;
    AqError error = {0};
    if (aq_file_read(path, 1 << 20, &data, &bytes, &error))
        fail_msg("%s", error.text);
    assert_string_equal(data, expected);
    free(data);
}

/* The text stays and is named; there is no picture. */
static void check_refused(const Room *r, double seconds, const char *sentence)
{
    AqError error = {0};
    assert_int_equal(aq_draw(r->svg, &graph, seconds, &error), AQ_UNSUPPORTED);
    if (!strstr(error.text, sentence) || !strstr(error.text, r->text))
        fail_msg("%s", error.text);
    assert_false(aq_file_exists(r->svg));
    check_file(r->text, graph.data);
}

static void test_missing(void **state)
{
    check_refused(*state, 5, "install Graphviz");
}

static void test_too_slow(void **state)
{
    stand_in(*state, "exec /bin/sleep 30");
    double began = aq_seconds();
    check_refused(*state, 0.2, "did not finish in 0.2 s");
    assert_true(aq_seconds() - began < 10);
}

/* It closed what we read from, and goes on. */
static void test_silent_and_slow(void **state)
{
    stand_in(*state, "exec >&- 2>&- ; exec /bin/sleep 30");
    double began = aq_seconds();
    check_refused(*state, 0.2, "did not finish in 0.2 s");
    assert_true(aq_seconds() - began < 10);
}

static void test_failing(void **state)
{
    stand_in(*state, "echo half; echo 'no memory left' >&2; exit 3");
    check_refused(*state, 5, "status 3 (no memory left)");
}

static void test_dying(void **state)
{
    stand_in(*state, "kill -SEGV $$");
    check_refused(*state, 5, "signal 11");
}

static void test_too_large(void **state)
{
    stand_in(*state, "exec /usr/bin/head -c 300000000 /dev/zero");
    check_refused(*state, 60, "the picture is larger than 256 MiB; the graph");
}

/* As a parent may leave it: how a child ended cannot be asked. */
static void test_ends_unseen(void **state)
{
    const Room *r = *state;
    AqError error = {0};
    signal(SIGCHLD, SIG_IGN);
    stand_in(r, "echo drawn");
    double began = aq_seconds();
    AqStatus status = aq_draw(r->svg, &graph, 60, &error);
    signal(SIGCHLD, SIG_DFL);
    assert_int_equal(status, AQ_UNSUPPORTED);
    assert_non_null(strstr(error.text, "is SIGCHLD ignored?"));
    assert_true(aq_seconds() - began < 30);
    assert_false(aq_file_exists(r->svg));
}

static void test_empty_picture(void **state)
{
    stand_in(*state, "exit 0");
    check_refused(*state, 5, "it said nothing");
}

static void test_drawn(void **state)
{
    const Room *r = *state;
    AqError error = {0};
    stand_in(r, "echo warning >&2; echo \"$1\"; exec /bin/cat \"$2\"");
    assert_int_equal(aq_draw(r->svg, &graph, 5, &error), AQ_OK);
    check_file(r->svg, "-Tsvg\ndigraph { a -> b }\n");
    assert_false(aq_file_exists(r->text));
}

static void test_model(void **state)
{
    const Room *r = *state;
    AqError error = {0};
    AqTask task = {
        .model = aq_builtin_find("mlp2d", &error), .batch = 4, .channels = 2};
    char *data = NULL;
    size_t bytes = 0;
    stand_in(r, "exec /bin/cat \"$2\"");
    assert_int_equal(aq_draw_model(&task, r->svg, 5, &error), AQ_OK);
    assert_int_equal(aq_file_read(r->svg, 1 << 20, &data, &bytes, &error),
                     AQ_OK);
    assert_non_null(strstr(data, "mlp2d, forward"));
    assert_non_null(strstr(data, "blocks.0–2 ×3"));
    free(data);
}

/* Graphviz may fail in routing curves; straight lines always work. */
static void test_lines_where_curves_fail(void **state)
{
    const Room *r = *state;
    AqError error = {0};
    stand_in(r, "test \"$3\" = -Gsplines=line || exit 1\necho lines");
    assert_int_equal(aq_draw(r->svg, &graph, 5, &error), AQ_OK);
    check_file(r->svg, "lines\n");
}

/* An older picture stays until a new one is complete. */
static void test_old_picture_stays(void **state)
{
    const Room *r = *state;
    AqError error = {0};
    assert_int_equal(aq_file_write(r->svg, "old", 3, &error), AQ_OK);
    stand_in(r, "echo half; exit 1");
    assert_int_equal(aq_draw(r->svg, &graph, 5, &error), AQ_UNSUPPORTED);
    check_file(r->svg, "old");
}

static void test_endings(void **state)
{
    const Room *r = *state;
    char path[128];
    AqError error = {0};
    snprintf(path, sizeof path, "%s/g.gif", r->folder);
    assert_int_equal(aq_draw(path, &graph, 5, &error), AQ_BAD_INPUT);
    assert_non_null(strstr(error.text, ".dot, .svg or .png"));
    error = (AqError){0};
    snprintf(path, sizeof path, "%s/g.dot", r->folder); /* needs no dot */
    assert_int_equal(aq_draw(path, &graph, 5, &error), AQ_OK);
    check_file(path, graph.data);
    unlink(path);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_missing),
        TEST(test_too_slow),
        TEST(test_silent_and_slow),
        TEST(test_failing),
        TEST(test_dying),
        TEST(test_too_large),
        TEST(test_ends_unseen),
        TEST(test_empty_picture),
        TEST(test_drawn),
        TEST(test_model),
        TEST(test_lines_where_curves_fail),
        TEST(test_old_picture_stays),
        TEST(test_endings),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
