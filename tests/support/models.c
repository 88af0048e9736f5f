#include "tests/support/models.h"

#include <setjmp.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

AqTarget aq_test_target(int level)
{
    AqError error = {0};
    AqTarget target;
    if (aq_target_host(level, &target, &error))
        fail_msg("%s", error.text);
    return target;
}

AqGraph *aq_test_kernels(const AqGraph *g, int level)
{
    AqError error = {0};
    AqTarget target = aq_test_target(level);
    AqPassContext cx = {.target = &target, .error = &error};
    AqGraph *kernels = aq_optimize(g, NULL, &cx);
    if (!kernels)
        fail_msg("%s", error.text);
    return kernels;
}

AqCodeStatistics aq_test_compile(const AqGraph *kernels, int level,
                                 const AqCompileOptions *options)
{
    AqError error = {0};
    AqTarget target = aq_test_target(level);
    AqId *ids = calloc((size_t)kernels->count, sizeof *ids);
    assert_non_null(ids);
    int n = 0;
    for (AqId id = 0; id < kernels->count; id++)
        if (aq_node(kernels, id)->op == AQ_OP_kernel)
            ids[n++] = id;
    AqCode *code = aq_compile(kernels, ids, n, &target, options, &error);
    if (!code)
        fail_msg("%s", error.text);
    AqCodeStatistics statistics = *aq_code_statistics(code);
    aq_code_free(code);
    free(ids);
    return statistics;
}

AqGraph *aq_test_training(const char *model, const AqSetting *settings, int n,
                          AqTask task, AqOptimizer optimizer)
{
    AqError error = {0};
    task.model = aq_builtin_find(model, &error);
    task.settings = settings;
    task.n_settings = n;
    AqGraph *g = aq_training_graph(&task, &optimizer, NULL, &error);
    if (!g)
        fail_msg("%s", error.text);
    return g;
}

static AqGraph *nano_step(const char *head_channels)
{
    const AqSetting nano[] = {
        {"channels", "16"},    {"mults", "1,2"},
        {"blocks", "1"},       {"groups", "4"},
        {"attention", "4"},    {"head_channels", head_channels},
        {"zero_init", "false"}};
    return aq_test_training(
        "ddpm_unet", nano, AQ_COUNT(nano),
        (AqTask){.batch = 3, .height = 8, .width = 8, .channels = 3},
        (AqOptimizer){.rate = {.base = 1e-3}, .ema = 0.99, .clip = 1});
}

AqGraph *aq_test_nano_step(void)
{
    return nano_step("0");
}

AqGraph *aq_test_heads_step(void)
{
    return nano_step("8");
}

AqGraph *aq_test_points_step(void)
{
    const AqSetting small[] = {{"width", "24"}, {"blocks", "2"}};
    return aq_test_training("mlp2d", small, AQ_COUNT(small),
                            (AqTask){.batch = 7, .channels = 2},
                            (AqOptimizer){.rate = {.base = 1e-3}, .ema = 0.9});
}

bool aq_test_same_text(const AqGraph *a, const AqGraph *b)
{
    AqText first = {0}, second = {0};
    aq_graph_print(a, &first);
    aq_graph_print(b, &second);
    bool same = !strcmp(first.data, second.data);
    aq_text_free(&first);
    aq_text_free(&second);
    return same;
}
