/* aquatint graph: the program itself, on models of real size. */
#include "ir/base/base.h"

#include <setjmp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

enum { MOST_BOXES = 150 };

typedef struct Room {
    char folder[64], out[96];
    char said[2000]; /* by the program, both streams */
} Room;

static int set_up(void **state)
{
    Room *r = calloc(1, sizeof *r);
    strcpy(r->folder, "/tmp/aquatint-graph-XXXXXX");
    assert_non_null(mkdtemp(r->folder));
    *state = r;
    return 0;
}

static int tear_down(void **state)
{
    Room *r = *state;
    char command[200];
    snprintf(command, sizeof command, "rm -r '%s'", r->folder);
    assert_int_equal(system(command), 0);
    free(r);
    return 0;
}

/* Exit status of `aquatint graph ARGUMENTS --out FOLDER/NAME`. */
static int run(Room *r, const char *name, const char *arguments)
{
    char command[3000];
    snprintf(r->out, sizeof r->out, "%s/%s", r->folder, name);
    snprintf(command, sizeof command, "'%s' graph %s --out '%s' 2>&1",
             AQ_PROGRAM, arguments, r->out);
    FILE *pipe = popen(command, "r");
    assert_non_null(pipe);
    size_t n = fread(r->said, 1, sizeof r->said - 1, pipe);
    r->said[n] = 0;
    int status = pclose(pipe);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

static int boxes_of(Room *r, const char *arguments)
{
    int boxes = 0;
    if (run(r, "g.dot", arguments))
        fail_msg("%s: %s", arguments, r->said);
    const char *count = strstr(r->said, ": ");
    assert_non_null(count);
    assert_int_equal(sscanf(count, ": %d boxes at depth", &boxes), 1);
    return boxes;
}

#define NANO                                                                   \
    " --channels 1 --set channels=32 --set mults=1,2,2 --set blocks=1 "        \
    "--set attention=8"

/* A page takes them, and they still say more than that there is a model. */
static void test_every_stage_fits(void **state)
{
    static const char *const stages[] = {"model", "training", "optimized",
                                         "kernels"};
    static const char *const models[] = {"ddpm_unet", "ddpm_unet" NANO};
    for (int m = 0; m < AQ_COUNT(models); m++)
        for (int s = 0; s < AQ_COUNT(stages); s++) {
            char arguments[300];
            snprintf(arguments, sizeof arguments, "%s --stage %s", models[m],
                     stages[s]);
            int boxes = boxes_of(*state, arguments);
            if (boxes < 20 || boxes > MOST_BOXES)
                fail_msg("%s: %d boxes", arguments, boxes);
        }
}

/* A step of the 35.7 M UNet, drawn in the time that it may take. */
static void test_drawn_in_time(void **state)
{
    Room *r = *state;
    char *data = NULL;
    size_t bytes = 0;
    AqError error = {0};
    if (system("dot -V >/dev/null 2>&1"))
        skip();
    if (run(r, "g.svg", "ddpm_unet --stage training --time-out 5"))
        fail_msg("%s", r->said);
    assert_int_equal(aq_file_read(r->out, 1 << 24, &data, &bytes, &error),
                     AQ_OK);
    assert_non_null(strstr(data, "<svg"));
    assert_non_null(strstr(data, "down_blocks.0"));
    free(data);
}

/* Fusion may compute the loss in one kernel with the gradient's norm: what is
 * forward is told by what the loss comes from all the same. */
static void test_columns_of_kernels(void **state)
{
    Room *r = *state;
    char *data = NULL;
    size_t bytes = 0;
    AqError error = {0};
    boxes_of(r, "mlp2d --size 0 --channels 2 --stage kernels --depth 1");
    assert_int_equal(aq_file_read(r->out, 1 << 24, &data, &bytes, &error),
                     AQ_OK);
    const char *forward = strstr(data, "subgraph cluster_forward");
    const char *backward = strstr(data, "subgraph cluster_backward");
    const char *optimizer = strstr(data, "<b>optimizer</b>");
    assert_true(forward && backward && optimizer);
    assert_true(forward < backward && backward < optimizer);
    assert_null(strstr(optimizer + 1, "<b>optimizer</b>"));
    assert_non_null(strstr(data, "<br/>2 gemm<br/>")); /* of a box's kernels */
    free(data);
}

/* More levels show more; one scope shows less. */
static void test_depth_and_scope(void **state)
{
    int shallow = boxes_of(*state, "ddpm_unet --depth 1" NANO);
    int deep = boxes_of(*state, "ddpm_unet --depth 3" NANO);
    int part =
        boxes_of(*state, "ddpm_unet --depth 2 --scope down_blocks.0" NANO);
    assert_true(shallow < deep);
    assert_true(part < deep);
}

static void test_wrong_words(void **state)
{
    Room *r = *state;
    assert_int_equal(run(r, "g.dot", "ddpm_unet --scope down_block.0" NANO), 1);
    assert_non_null(strstr(r->said, "did you mean down_blocks.0"));
    assert_int_equal(run(r, "g.pdf", "ddpm_unet" NANO), 1);
    assert_non_null(strstr(r->said, ".dot, .svg or .png"));
    assert_int_equal(run(r, "g.dot", "ddpm_unet --stage fused" NANO), 1);
    assert_non_null(strstr(r->said, "kernels"));
    assert_int_equal(run(r, "g.dot", "ddpm_unett" NANO), 1);
    assert_non_null(strstr(r->said, "ddpm_unet"));
}

/* Without `dot` the text stays, and the program says so. */
static void test_no_dot(void **state)
{
    Room *r = *state;
    char kept[128], *path = strdup(getenv("PATH"));
    setenv("PATH", r->folder, 1);
    int status = run(r, "g.svg", "ddpm_unet" NANO);
    setenv("PATH", path, 1);
    free(path);
    assert_int_equal(status, 1);
    assert_non_null(strstr(r->said, "install Graphviz"));
    snprintf(kept, sizeof kept, "%s.dot", r->out);
    assert_non_null(strstr(r->said, kept));
    assert_true(aq_file_exists(kept));
    assert_false(aq_file_exists(r->out));
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_every_stage_fits),   TEST(test_drawn_in_time),
        TEST(test_columns_of_kernels), TEST(test_depth_and_scope),
        TEST(test_wrong_words),        TEST(test_no_dot),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
