/* Every tests/passes/golden/NAME.txt: why it exists, the passes, the graph
 * before, and the graph after or the error's sentence.
 *
 *     # Sums over axes of length 1 are reshapes.
 *     passes: simplify fuse
 *     ---
 *     graph { ... }
 *     ---
 *     graph { ... }            or: error: models/m.c:4: ...
 *
 * With AQ_UPDATE_GOLDEN=1 in the environment the last part is written anew
 * instead of compared: read the difference before you commit it. */
#include "passes/passes.h"

#include <dirent.h>
#include <setjmp.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static const char *const folder = AQ_SOURCE_DIR "/tests/passes/golden";

/* ---- passes ---- */

/* Appends d loss / d x for every f32 input and parameter, as outputs d_NAME. */
static AqStatus gradient(const AqGraph *in, AqGraph *out, AqPassContext *cx)
{
    AqId map[256], wrt[256], gradients[256];
    int n = 0;
    assert_true(in->count <= 256);
    for (AqId id = 0; id < in->count; id++) {
        map[id] = aq_graph_copy_node(out, in, id, map);
        const AqNode *node = aq_node(in, id);
        bool wanted = node->op == AQ_OP_input || node->op == AQ_OP_param;
        if (wanted && node->type.element == AQ_F32)
            wrt[n++] = map[id];
    }
    aq_gradient_nodes(out, map[in->outputs[0].node], wrt, n, gradients);
    for (int i = 0; i < n && !out->error.status; i++) {
        char name[64];
        snprintf(name, sizeof name, "d_%s",
                 aq_attr_text(aq_node(out, wrt[i]), AQ_KEY_NAME, "?"));
        aq_graph_output(out, name, gradients[i], false);
    }
    if (out->error.status)
        return aq_fail(cx->error, out->error.status, "%s", out->error.text);
    return AQ_OK;
}

/* `gradient`, or one of the pipeline. */
static AqPassFn *pass_named(const char *name)
{
    const AqPass *pass = aq_pass_named(name);
    if (!strcmp(name, "gradient"))
        return gradient;
    if (!pass)
        fail_msg("there is no pass '%s'", name);
    return pass->run;
}

/* recompute=N: the arena may take N bytes, and kernels want no workspace. */
static AqStatus no_needs(void *context, const AqGraph *kernels, AqNeeds *needs,
                         AqError *error)
{
    (void)context;
    (void)error;
    memset(needs, 0, (size_t)kernels->count * sizeof *needs);
    return AQ_OK;
}

static int64_t given_room(void *context, const AqPlan *plan)
{
    (void)plan;
    return *(int64_t *)context;
}

/* Runs the passes named in `list`; `graph` is freed. */
static AqGraph *run(AqGraph *graph, char *list, AqError *error)
{
    AqTarget target;
    if (aq_target_host(3, &target, error) != AQ_OK)
        fail_msg("%s", error->text);
    AqPassContext cx = {.target = &target, .error = error};
    for (char *name = strtok(list, " \n"); name; name = strtok(NULL, " \n")) {
        AqGraph *out = aq_graph_new();
        assert_non_null(out);
        char *equals = strchr(name, '=');
        int64_t room = equals ? atoll(equals + 1) : 0;
        const AqBudget budget = {no_needs, given_room, &room};
        cx.budget = equals ? &budget : NULL;
        if (equals)
            *equals = 0;
        AqStatus status = pass_named(name)(graph, out, &cx);
        assert_int_equal(status, error->status);
        aq_graph_free(graph);
        graph = out;
        if (status != AQ_OK)
            break;
        if (aq_graph_verify(graph, error) != AQ_OK)
            fail_msg("after %s: %s", name, error->text);
    }
    return graph;
}

/* ---- files ---- */

typedef struct Golden {
    char path[600];
    char *text; /* the file; the others point into it */
    char *list, *before, *after;
} Golden;

/* Cuts the text after the next line of three dashes, which it returns. */
static char *next_part(Golden *golden, char *from)
{
    char *line = strstr(from, "\n---\n");
    if (!line)
        fail_msg("%s: a line '---' is missing", golden->path);
    line[1] = 0;
    return line + strlen("\n---\n");
}

static Golden read_golden(const char *name)
{
    static const char header[] = "\npasses:";
    Golden golden;
    size_t bytes;
    AqError error = {0};
    snprintf(golden.path, sizeof golden.path, "%s/%s", folder, name);
    if (aq_file_read(golden.path, 1 << 20, &golden.text, &bytes, &error))
        fail_msg("%s", error.text);
    if (strncmp(golden.text, "# ", 2) != 0)
        fail_msg("%s: the first line must say why it exists", golden.path);
    char *list = strstr(golden.text, header);
    if (!list)
        fail_msg("%s: there is no line 'passes:'", golden.path);
    golden.list = list + strlen(header);
    golden.before = next_part(&golden, golden.list);
    golden.after = next_part(&golden, golden.before);
    return golden;
}

static void write_anew(const Golden *golden, const char *passes_run,
                       const char *after)
{
    AqText text = {0};
    AqError error = {0};
    size_t head = (size_t)(golden->list - golden->text);
    aq_text_bytes(&text, golden->text, head);
    aq_text_printf(&text, "%s---\n%s---\n%s", passes_run, golden->before,
                   after);
    assert_false(text.failed);
    if (aq_file_write(golden->path, text.data, text.length, &error))
        fail_msg("%s", error.text);
    aq_text_free(&text);
}

static void check(const char *name)
{
    AqError error = {0};
    AqText after = {0};
    Golden golden = read_golden(name);
    char *list = strdup(golden.list);
    AqGraph *graph = aq_graph_parse(golden.before, name, &error);
    if (!graph)
        fail_msg("%s: %s", golden.path, error.text);
    graph = run(graph, golden.list, &error);
    if (error.status)
        aq_text_printf(&after, "error: %s\n", error.text);
    else
        aq_graph_print(graph, &after);
    if (getenv("AQ_UPDATE_GOLDEN"))
        write_anew(&golden, list, after.data);
    else if (strcmp(after.data, golden.after) != 0)
        fail_msg("%s: expected\n%sbut it is\n%s", golden.path, golden.after,
                 after.data);
    aq_graph_free(graph);
    aq_text_free(&after);
    free(golden.text);
    free(list);
}

static int is_golden(const struct dirent *entry)
{
    size_t length = strlen(entry->d_name);
    return length > 4 && !strcmp(entry->d_name + length - 4, ".txt");
}

static void test_golden_files(void **state)
{
    (void)state;
    struct dirent **entries;
    int count = scandir(folder, &entries, is_golden, alphasort);
    assert_true(count > 0);
    for (int i = 0; i < count; i++) {
        check(entries[i]->d_name);
        free(entries[i]);
    }
    free(entries);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_golden_files)};
    return cmocka_run_group_tests_name("golden", tests, NULL, NULL);
}
