/* The kernels that whole training steps are made of: each distinct map and
 * scatter kernel of the small models, run by itself on random data. */
#include "frontend/dsl/dsl.h"
#include "passes/passes.h"
#include "tests/support/bench.h"
#include "tests/support/models.h"
#include "tests/support/run_kernel.h"

#include <setjmp.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { MOST_KERNELS = 2000 };

/* Has a kernel with this body been run before?  Remembers it. */
static bool seen_before(const AqGraph *body, AqHash *seen, int *n_seen)
{
    AqText text = {0};
    for (AqId id = 0; id < body->count; id++)
        aq_text_printf(&text, "%s ", aq_op_info[aq_node(body, id)->op].name);
    for (AqId id = 0; id < body->count; id++)
        aq_type_text(&text, &aq_node(body, id)->type);
    AqHash hash = aq_hash128(text.data, text.length);
    aq_text_free(&text);
    for (int i = 0; i < *n_seen; i++)
        if (seen[i].high == hash.high && seen[i].low == hash.low)
            return true;
    assert_true(*n_seen < MOST_KERNELS);
    seen[(*n_seen)++] = hash;
    return false;
}

static void run_kernels(const AqGraph *graph, const char *name)
{
    static AqHash seen[MOST_KERNELS];
    int n_seen = 0;
    AqGraph *g = aq_test_kernels(graph, 0);
    const char *only = getenv("AQ_KERNEL");
    for (AqId id = 0; id < g->count; id++) {
        const AqNode *node = aq_node(g, id);
        const char *kind = aq_attr_text(node, AQ_KEY_KIND, "");
        const AqGraph *body = aq_attr_body(node);
        if (node->op != AQ_OP_kernel || (only && atoi(only) != id) ||
            (strcmp(kind, "map") != 0 && strcmp(kind, "scatter") != 0) ||
            seen_before(body, seen, &n_seen))
            continue;
        char label[100];
        snprintf(label, sizeof label, "%s, kernel %%%d", name, id);
        AqText text = {0};
        aq_graph_print(body, &text);
        if (only)
            print_message("%s\n", text.data);
        aq_text_free(&text);
        AqKernelCase test = {.body = body,
                             .kind = kind,
                             .name = label,
                             .seed = (uint64_t)id,
                             .tolerance = 1e-3};
        aq_test_run_kernel(&test);
    }
    print_message("%s: %d distinct map and scatter kernels\n", name, n_seen);
    assert_true(n_seen > 0);
    aq_graph_free(g);
}

static void run_training(AqTask task, const char *name)
{
    AqError error = {0};
    AqOptimizer optimizer = {.clip = 1, .ema = 0.999};
    AqGraph *g = aq_training_graph(&task, &optimizer, NULL, &error);
    if (!g)
        fail_msg("%s", error.text);
    run_kernels(g, name);
    aq_graph_free(g);
}

static AqTask task_of(const char *model, const AqSetting *settings, int count)
{
    AqError error = {0};
    const AqModelInfo *info = aq_builtin_find(model, &error);
    if (!info)
        fail_msg("%s", error.text);
    return (AqTask){.model = info,
                    .settings = settings,
                    .n_settings = count,
                    .batch = 2,
                    .height = 16,
                    .width = 16,
                    .channels = 3};
}

static void test_ddpm(void **state)
{
    (void)state;
    AqSetting nano[] = {{"channels", "32"},
                        {"mults", "1,2"},
                        {"blocks", "1"},
                        {"attention", "8"}};
    run_training(task_of("ddpm_unet", nano, 4), "ddpm_unet");
}

static void test_dit(void **state)
{
    (void)state;
    AqSetting small[] = {
        {"heads", "2"}, {"head_channels", "12"}, {"layers", "1"}};
    AqTask task = task_of("dit", small, 3);
    task.classes = 5;
    task.label_dropout = 0.1;
    run_training(task, "dit");
}

static void test_mlp2d(void **state)
{
    (void)state;
    AqSetting small[] = {{"width", "40"}, {"blocks", "1"}};
    AqTask task = task_of("mlp2d", small, 2);
    task.batch = 32;
    task.height = task.width = 0;
    task.channels = 2;
    run_training(task, "mlp2d");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_mlp2d),
        cmocka_unit_test(test_ddpm),
        cmocka_unit_test(test_dit),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
