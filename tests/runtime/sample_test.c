/* Pictures out of a model: against the sampler's program as it was built, what
 * runs in the first step alone, and the memory that they take. */
#include "runtime/run.h"

#include <math.h>
#include <setjmp.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "tests/support/folder.h"
#include "tests/support/programs.h"

enum { SAMPLES = 6, BATCH = 2, SAMPLER_STEPS = 5 };

static const AqSetting small[] = {
    {"channels", "16"}, {"mults", "1,2"},          {"blocks", "1"},
    {"groups", "4"},    {"attention_down", "0,1"}, {"zero_init", "false"}};

static AqTask small_unet(void)
{
    return (AqTask){.model = aq_builtin_find("ddpm_unet", NULL),
                    .settings = small,
                    .n_settings = AQ_COUNT(small),
                    .batch = BATCH,
                    .height = 8,
                    .width = 8,
                    .channels = 3,
                    .classes = 4};
}

static AqMemory *weights_of(const AqTask *task)
{
    const uint32_t key[2] = {1, 2};
    AqGraph *g = aq_forward_graph(task, NULL, NULL);
    const AqParamTable *params = aq_params(g);
    AqMemory *memory = aq_test_memory();
    float *weights =
        aq_memory_array(memory, "weights", params->floats * 4, NULL);
    assert_non_null(weights);
    aq_params_start(params, key, 1, weights, NULL);
    aq_graph_free(g);
    return memory;
}

/* The sampler's program as it was built, all of it in every step; noise comes
 * from the same program as the generator's. */
static void sample_plainly(const AqTask *task, const AqSampler *sampler,
                           AqMemory *weights, AqPool *pool, float *out)
{
    AqProgramSettings settings = aq_test_settings();
    AqMemory *memory = aq_test_memory();
    aq_memory_share(memory, "weights", weights, "weights", NULL);
    AqGraph *graphs[] = {aq_noise_graph(task, NULL),
                         aq_sampler_graph(task, sampler, NULL)};
    AqCompiled *noise = aq_test_compiled(graphs[0], memory, pool, &settings);
    AqCompiled *step = aq_test_compiled(graphs[1], memory, pool, &settings);
    int32_t *timesteps = aq_memory_find(memory, "timesteps", NULL);
    aq_sampler_timesteps(1000, SAMPLER_STEPS, timesteps);
    timesteps[SAMPLER_STEPS] = -1;
    int64_t bytes = 0;
    const float *x = aq_memory_find(memory, "x", &bytes);
    for (int first = 0; first < SAMPLES; first += BATCH) {
        for (int i = 0; i < BATCH; i++) {
            ((int32_t *)aq_memory_find(memory, "sample", NULL))[i] = first + i;
            ((int32_t *)aq_memory_find(memory, "label", NULL))[i] =
                (first + i) % task->classes;
        }
        assert_true(aq_compiled_run(noise, NULL));
        for (int number = 0; number < SAMPLER_STEPS; number++) {
            *(int32_t *)aq_memory_find(memory, "number", NULL) = number;
            assert_true(aq_compiled_run(step, NULL));
        }
        memcpy((char *)out + first / BATCH * bytes, x, (size_t)bytes);
    }
    aq_compiled_free(noise);
    aq_compiled_free(step);
    aq_graph_free(graphs[0]);
    aq_graph_free(graphs[1]);
    aq_memory_free(memory);
}

static void check_samples(const float *is, const float *wanted, int64_t count)
{
    double apart = 0;
    for (int64_t i = 0; i < count; i++) {
        assert_true(fabs((double)(is[i] - wanted[i])) < 1e-4);
        apart += fabs((double)(wanted[i] - wanted[(i + 1) % count]));
    }
    assert_true(apart / (double)count > 0.05); /* pictures of something */
}

/* Labels differ from batch to batch, so much is prepared again; new weights are
 * seen by the next samples. */
static void check_generator(const AqSampler *sampler)
{
    enum { FLOATS = SAMPLES * 8 * 8 * 3 };
    float is[FLOATS], wanted[FLOATS], before[FLOATS] = {0};
    AqError error = {0};
    AqTask task = small_unet();
    AqProgramSettings settings = aq_test_settings();
    AqPool *pool = aq_test_pool(2);
    AqMemory *weights = weights_of(&task);
    AqGenerator *g = aq_generator_new(&task, sampler, weights, pool, true,
                                      &settings, &error);
    if (!g)
        fail_msg("%s", error.text);
    AqSampleOptions options = {.count = SAMPLES, .label = -1};
    for (int round = 0; round < 2; round++) {
        assert_int_equal(aq_generate(g, &options, is, NULL, &error), AQ_OK);
        sample_plainly(&task, sampler, weights, pool, wanted);
        check_samples(is, wanted, FLOATS);
        assert_memory_not_equal(is, before, sizeof is);
        memcpy(before, is, sizeof is);
        int64_t bytes = 0;
        float *w = aq_memory_find(weights, "weights", &bytes);
        for (int64_t i = 0; i < bytes / 4; i++)
            w[i] *= 1.1F;
    }
    aq_generator_free(g);
    aq_memory_free(weights);
    aq_pool_free(pool);
}

static void test_samples_are_the_same(void **state)
{
    (void)state;
    check_generator(&(AqSampler){.steps = SAMPLER_STEPS, .clip = true});
    check_generator(&(AqSampler){
        .kind = AQ_SAMPLER_DDPM, .steps = SAMPLER_STEPS, .clip = true});
}

/* Where tasks share U, it is made of weights that keep their values in the
 * first run alone; where there are so few tiles that each task makes its own,
 * it costs less than reading a kept one, four times as large as the weights. */
static void test_weights_are_transformed_once(void **state)
{
    (void)state;
    enum { FEW = 64, PIXELS = 16 }; /* tiles; of a tile */
    const char *const fixed[] = {"weights", "timesteps", "label"};
    const AqRepeat repeat = {fixed, 3, "number", SAMPLER_STEPS};
    const AqSampler sampler = {.steps = SAMPLER_STEPS};
    AqError error = {0};
    AqTask task = small_unet();
    task.batch = 3;
    task.height = task.width = 32;
    AqPool *pool = aq_test_pool(2);
    AqMemory *memory = aq_test_memory();
    AqGraph *g = aq_sampler_graph(&task, &sampler, &error);
    AqRepeated *p = aq_test_repeated(g, &repeat, memory, pool);
    const AqGraph *kernels = aq_compiled_graph(aq_repeated_step(p));
    AqTarget target;
    assert_int_equal(aq_target_host(0, &target, &error), AQ_OK);
    int many = 0, once = 0;
    for (AqId id = 0; id < kernels->count; id++) {
        const AqNode *node = aq_node(kernels, id);
        if (strcmp(aq_attr_text(node, AQ_KEY_ALGORITHM, ""), "winograd") != 0)
            continue;
        AqKernelLayout layout;
        AqType y = aq_result_type(kernels, id, 0);
        assert_int_equal(
            aq_kernel_layout(kernels, id, &target, &layout, &error), AQ_OK);
        bool shared = layout.reads[0] != 0;
        once += shared;
        many += y.dim[0] * y.dim[1] * y.dim[2] > FEW * PIXELS;
        assert_true(shared || y.dim[0] * y.dim[1] * y.dim[2] <= FEW * PIXELS);
    }
    assert_true(many >= 5);
    assert_int_equal(aq_compiled_once(aq_repeated_step(p)), once);
    aq_repeated_free(p);
    aq_memory_free(memory);
    aq_graph_free(g);
    aq_pool_free(pool);
}

/* Beside a training nothing is kept, and the samples have the same bits. */
static void test_frugal_samples_are_the_same(void **state)
{
    (void)state;
    enum { SIDE = 32, FLOATS = SAMPLES * SIDE * SIDE * 3 };
    static float x[2][FLOATS];
    const AqSampler sampler = {.steps = SAMPLER_STEPS, .clip = true};
    AqSampleOptions options = {.count = SAMPLES, .label = -1};
    AqError error = {0};
    AqTask task = small_unet();
    task.batch = 3;
    task.height = task.width = SIDE;
    AqPool *pool = aq_test_pool(2);
    AqMemory *weights = weights_of(&task);
    for (int frugal = 0; frugal < 2; frugal++) {
        AqProgramSettings settings = aq_test_settings();
        settings.frugal = frugal;
        AqGenerator *g = aq_generator_new(&task, &sampler, weights, pool, true,
                                          &settings, &error);
        assert_non_null(g);
        assert_int_equal(aq_generate(g, &options, x[frugal], NULL, &error),
                         AQ_OK);
        aq_generator_free(g);
    }
    assert_memory_equal(x[0], x[1], sizeof x[0]);
    aq_memory_free(weights);
    aq_pool_free(pool);
}

/* A plan knows what a generator takes, with a budget or without, to the byte;
 * one that is within a budget takes no more. */
static void test_bytes_are_known(void **state)
{
    (void)state;
    const AqSampler sampler = {.steps = SAMPLER_STEPS};
    AqError error = {0};
    AqTask task = small_unet();
    task.height = task.width = 32;
    AqPool *pool = aq_test_pool(2);
    AqMemory *weights = weights_of(&task);
    int64_t bytes[4];
    for (int i = 0; i < AQ_COUNT(bytes); i++) {
        AqProgramSettings settings = aq_test_settings();
        settings.frugal = i != 3;
        settings.plan_only = i == 0;
        settings.memory_limit = i == 2 ? bytes[0] : 0;
        AqGenerator *g = aq_generator_new(&task, &sampler, weights, pool, true,
                                          &settings, &error);
        if (!g)
            fail_msg("%s", error.text);
        bytes[i] = aq_generator_bytes(g);
        aq_generator_free(g);
    }
    assert_true(bytes[0] > 1 << 20);
    assert_int_equal(bytes[0], bytes[1]);
    assert_int_equal(bytes[0], bytes[2]);
    assert_true(bytes[3] > bytes[0]);
    aq_memory_free(weights);
    aq_pool_free(pool);
}

static void test_an_interruption(void **state)
{
    (void)state;
    const AqSampler sampler = {.steps = SAMPLER_STEPS};
    const volatile int stop = 1;
    AqError error = {0};
    AqTask task = small_unet();
    AqPool *pool = aq_test_pool(2);
    AqMemory *weights = weights_of(&task);
    AqProgramSettings settings = aq_test_settings();
    AqGenerator *g = aq_generator_new(&task, &sampler, weights, pool, true,
                                      &settings, &error);
    AqSampleOptions options = {
        .count = task.batch, .label = -1, .sampler = sampler};
    float x[SAMPLES * 8 * 8 * 3];
    assert_int_equal(aq_generate(g, &options, x, &stop, &error),
                     AQ_INTERRUPTED);
    assert_string_equal(error.text, "sampling was interrupted");
    aq_generator_free(g);
    aq_memory_free(weights);
    aq_pool_free(pool);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_samples_are_the_same),
        cmocka_unit_test(test_weights_are_transformed_once),
        cmocka_unit_test(test_frugal_samples_are_the_same),
        cmocka_unit_test(test_bytes_are_known),
        cmocka_unit_test(test_an_interruption),
    };
    return cmocka_run_group_tests(tests, aq_test_make_folder,
                                  aq_test_remove_folder);
}
