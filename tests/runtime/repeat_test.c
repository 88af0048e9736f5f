/* Programs that are run again and again: against programs that compute all in
 * every run, what is kept and when it is made anew, and samples. */
#include "runtime/run.h"

#include <math.h>
#include <setjmp.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "tests/support/bench.h"
#include "tests/support/cache_folder.h"
#include "tests/support/numbered_graph.h"

static AqProgramSettings settings_of_tests(void)
{
    return (AqProgramSettings){.compile = {.cache_dir = aq_test_cache}};
}

static AqPool *new_pool(int threads)
{
    AqError error = {0};
    AqPoolOptions options = {.threads = threads};
    AqPool *pool = aq_pool_new(&options, &error);
    if (!pool)
        fail_msg("%s", error.text);
    return pool;
}

static AqMemory *new_memory(void)
{
    AqMemory *memory = aq_memory_new(NULL);
    assert_non_null(memory);
    return memory;
}

static AqCompiled *compiled(const AqGraph *g, AqMemory *memory, AqPool *pool,
                            const AqProgramSettings *settings)
{
    AqError error = {0};
    AqCompiled *p = aq_compiled_new(g, memory, pool, settings, &error);
    if (!p)
        fail_msg("%s", error.text);
    return p;
}

static AqRepeated *repeated(const AqGraph *g, const AqRepeat *repeat,
                            AqMemory *memory, AqPool *pool)
{
    AqError error = {0};
    AqProgramSettings settings = settings_of_tests();
    AqRepeated *p = aq_repeated_new(g, repeat, memory, pool, &settings, &error);
    if (!p)
        fail_msg("%s", error.text);
    return p;
}

/* ---- random graphs ---- */

/* The same values for the same names in every memory that has them. */
static void fill(AqMemory *memory, const AqGraph *g)
{
    for (AqId id = 0; id < g->count; id++) {
        const AqNode *node = aq_node(g, id);
        const char *name = aq_attr_text(node, AQ_KEY_NAME, "");
        void *data = aq_memory_find(memory, name, NULL);
        uint64_t seed = aq_hash64(name, strlen(name));
        if (!(aq_op_info[node->op].facts & AQ_SOURCE) || !data)
            continue;
        for (int64_t i = 0; i < aq_elements(&node->type); i++)
            if (node->type.element == AQ_I32)
                ((int32_t *)data)[i] = (int32_t)aq_test_below(&seed, 10);
            else
                ((float *)data)[i] = (float)(0.5 * aq_test_normal(&seed));
    }
}

static void set_number(AqMemory *memory, int32_t number)
{
    int32_t *place = aq_memory_find(memory, "number", NULL);
    if (place)
        *place = number;
}

static void check_close(const char *name, const AqType *type, const void *is,
                        const void *wanted, uint64_t seed)
{
    double scale = 1;
    int64_t count = aq_elements(type);
    if (type->element == AQ_I32) {
        assert_memory_equal(is, wanted, (size_t)count * 4);
        return;
    }
    const float *a = is, *b = wanted;
    for (int64_t i = 0; i < count; i++)
        if (isfinite(b[i]))
            scale = fmax(scale, fabs((double)b[i]));
    for (int64_t i = 0; i < count; i++)
        if (!(fabs((double)(a[i] - b[i])) <= 2e-5 * scale) &&
            !(isnan(a[i]) && isnan(b[i])) && a[i] != b[i])
            fail_msg("seed %llu: %s[%lld] is %.9g, not %.9g",
                     (unsigned long long)seed, name, (long long)i, (double)a[i],
                     (double)b[i]);
}

/* Outputs and updated states of both. */
static void compare(const AqCompiled *is, AqMemory *is_memory,
                    const AqCompiled *wanted, AqMemory *wanted_memory,
                    const AqGraph *g, uint64_t seed)
{
    for (int i = 0; i < g->n_outputs; i++) {
        const AqOutput *o = &g->outputs[i];
        check_close(o->name, &aq_node(g, o->node)->type,
                    o->update ? aq_memory_find(is_memory, o->name, NULL)
                              : aq_compiled_output(is, o->name),
                    o->update ? aq_memory_find(wanted_memory, o->name, NULL)
                              : aq_compiled_output(wanted, o->name),
                    seed);
    }
}

static int check_graph(uint64_t seed, AqPool *pool)
{
    AqRepeat repeat;
    AqProgramSettings settings = settings_of_tests();
    AqGraph *g = aq_test_numbered_graph(seed, 20, &repeat);
    AqMemory *plain = new_memory(), *own = new_memory();
    AqCompiled *wanted = compiled(g, plain, pool, &settings);
    AqRepeated *is = repeated(g, &repeat, own, pool);
    fill(plain, g);
    fill(own, g);
    const int order[] = {0, 1, 3, 2, 2, 0}; /* any may come at any time */
    for (int i = 0; i < AQ_COUNT(order); i++) {
        set_number(plain, order[i]);
        set_number(own, order[i]);
        assert_true(aq_compiled_run(wanted, NULL));
        assert_true(aq_repeated_run(is, NULL));
        compare(aq_repeated_step(is), own, wanted, plain, g, seed);
    }
    int prepares = aq_repeated_prepare(is) != NULL;
    aq_repeated_free(is);
    aq_compiled_free(wanted);
    aq_memory_free(own);
    aq_memory_free(plain);
    aq_graph_free(g);
    return prepares;
}

static void test_random_graphs(void **state)
{
    (void)state;
    enum { GRAPHS = 16 };
    AqPool *pool = new_pool(2);
    int prepare = 0;
    for (uint64_t seed = 1; seed <= GRAPHS; seed++)
        prepare += check_graph(seed, pool);
    assert_true(prepare >= GRAPHS / 2);
    aq_pool_free(pool);
}

/* ---- stages that run once ---- */

enum { ROWS = 512, COLUMNS = 96, INNER = 64 };

/* y = x w^T: its right side is packed by a stage of its own. */
static AqGraph *product(void)
{
    AqGraph *g = aq_graph_new();
    AqTensor x = aq_input(g, "x", AQ_SHAPE(ROWS, INNER));
    AqTensor w = aq_input(g, "w", AQ_SHAPE(COLUMNS, INNER));
    aq_output(aq_exp(aq_matmul(x, w, .transpose_b = true)), "y");
    aq_output(aq_exp(aq_neg(x)), "z"); /* the arena is used by others too */
    assert_null(aq_graph_error(g));
    return g;
}

static void give(AqMemory *memory, const char *name, int from)
{
    int64_t bytes = 0;
    float *data = aq_memory_find(memory, name, &bytes);
    for (int64_t i = 0; i < bytes / 4; i++)
        data[i] = 0.2F * sinf((float)(from + i));
}

static double worst_of_product(const AqCompiled *p, AqMemory *memory)
{
    const float *x = aq_memory_find(memory, "x", NULL);
    const float *w = aq_memory_find(memory, "w", NULL);
    const float *y = aq_compiled_output(p, "y");
    double worst = 0;
    for (int i = 0; i < ROWS; i++)
        for (int j = 0; j < COLUMNS; j++) {
            double sum = 0;
            for (int k = 0; k < INNER; k++)
                sum += (double)x[i * INNER + k] * (double)w[j * INNER + k];
            worst = fmax(worst, fabs(y[i * COLUMNS + j] / exp(sum) - 1));
        }
    return worst;
}

static void test_weights_are_packed_once(void **state)
{
    (void)state;
    const char *const fixed[] = {"w"};
    AqPool *pool = new_pool(2);
    AqMemory *memory = new_memory();
    AqGraph *g = product();
    AqProgramSettings settings = settings_of_tests();
    settings.fixed = fixed;
    settings.n_fixed = 1;
    AqCompiled *p = compiled(g, memory, pool, &settings);
    assert_int_equal(aq_compiled_once(p), 1);
    give(memory, "w", 0);
    for (int i = 0; i < 3; i++) {
        give(memory, "x", i);
        assert_true(aq_compiled_run(p, NULL));
        assert_true(worst_of_product(p, memory) < 1e-5);
    }
    give(memory, "w", 1000);
    assert_true(aq_compiled_run(p, NULL)); /* nobody has said it yet */
    assert_true(worst_of_product(p, memory) > 1e-3);
    aq_compiled_changed(p);
    for (int i = 0; i < 2; i++) {
        assert_true(aq_compiled_run(p, NULL));
        assert_true(worst_of_product(p, memory) < 1e-5);
    }
    aq_compiled_free(p);
    aq_memory_free(memory);
    aq_graph_free(g);
    aq_pool_free(pool);
}

/* What changes is packed in every run, and what there is no room for, or is
 * wanted for it. */
static void test_what_is_not_packed_once(void **state)
{
    (void)state;
    const char *const w[] = {"w"}, *const x[] = {"x"};
    AqPool *pool = new_pool(1);
    AqGraph *g = product();
    AqProgramSettings settings = settings_of_tests();
    AqMemory *memory = new_memory();
    AqCompiled *p = compiled(g, memory, pool, &settings);
    assert_int_equal(aq_compiled_once(p), 0);
    int64_t least = aq_compiled_bytes(p) + aq_memory_bytes(memory);
    aq_compiled_free(p);
    aq_memory_free(memory);
    const struct {
        const char *const *fixed;
        int64_t limit;
        bool frugal;
        int once;
    } cases[] = {{x, 0, false, 0},
                 {w, 0, false, 1},
                 {w, 0, true, 0},
                 {w, least, false, 0}};
    for (int i = 0; i < AQ_COUNT(cases); i++) {
        memory = new_memory();
        settings.fixed = cases[i].fixed;
        settings.n_fixed = 1;
        settings.memory_limit = cases[i].limit;
        settings.frugal = cases[i].frugal;
        p = compiled(g, memory, pool, &settings);
        if (aq_compiled_once(p) != cases[i].once)
            fail_msg("case %d: %d stages run once", i, aq_compiled_once(p));
        give(memory, "w", 0);
        give(memory, "x", 0);
        for (int run = 0; run < 2; run++)
            assert_true(aq_compiled_run(p, NULL));
        assert_true(worst_of_product(p, memory) < 1e-5);
        aq_compiled_free(p);
        aq_memory_free(memory);
    }
    aq_graph_free(g);
    aq_pool_free(pool);
}

/* `prepare` works in the step's arena, over what the step keeps there. */
static void test_prepared_again(void **state)
{
    (void)state;
    const char *const fixed[] = {"w", "b"};
    AqRepeat repeat = {.fixed = fixed, .n_fixed = 2};
    AqPool *pool = new_pool(2);
    AqMemory *memory = new_memory();
    AqGraph *g = product();
    AqTensor b = aq_input(g, "b", AQ_SHAPE(ROWS, INNER));
    AqTensor x = aq_input(g, "x", AQ_SHAPE(ROWS, INNER));
    AqTensor rows = aq_sum(aq_exp(b), .axes = AQ_AXES(1), .keep = true);
    aq_output(aq_mul(x, rows), "v");
    AqRepeated *p = repeated(g, &repeat, memory, pool);
    AqCompiled *step = aq_repeated_step(p);
    const AqCompiled *prepare = aq_repeated_prepare(p);
    assert_non_null(prepare);
    assert_int_equal(aq_compiled_once(step), 1);
    assert_int_equal(aq_repeated_bytes(p), aq_compiled_bytes(step));
    for (int round = 0; round < 3; round++) {
        give(memory, "w", round);
        give(memory, "b", 10 * round);
        give(memory, "x", 20 * round);
        aq_repeated_changed(p);
        for (int run = 0; run < 2; run++) {
            assert_true(aq_repeated_run(p, NULL));
            assert_true(worst_of_product(step, memory) < 1e-5);
            const float *v = aq_compiled_output(step, "v");
            const float *of_b = aq_memory_find(memory, "b", NULL);
            const float *of_x = aq_memory_find(memory, "x", NULL);
            double sum = 0;
            for (int k = 0; k < INNER; k++)
                sum += exp((double)of_b[k]);
            assert_true(fabs(v[1] - sum * (double)of_x[1]) < 1e-4);
        }
    }
    aq_repeated_free(p);
    aq_memory_free(memory);
    aq_graph_free(g);
    aq_pool_free(pool);
}

/* Asked to stop before anything is written: the next run is the first. */
static void test_an_interrupted_first_run(void **state)
{
    (void)state;
    const char *const fixed[] = {"w"};
    const volatile int stop = 1;
    AqPool *pool = new_pool(1);
    AqMemory *memory = new_memory();
    AqGraph *g = product();
    AqProgramSettings settings = settings_of_tests();
    settings.fixed = fixed;
    settings.n_fixed = 1;
    AqCompiled *p = compiled(g, memory, pool, &settings);
    give(memory, "w", 0);
    give(memory, "x", 0);
    assert_false(aq_compiled_run(p, &stop));
    for (int run = 0; run < 2; run++) {
        assert_true(aq_compiled_run(p, NULL));
        assert_true(worst_of_product(p, memory) < 1e-5);
    }
    aq_compiled_free(p);
    aq_memory_free(memory);
    aq_graph_free(g);
    aq_pool_free(pool);
}

/* ---- samples ---- */

enum { SAMPLES = 6, BATCH = 2, SAMPLER_STEPS = 5 };

static const AqSetting small[] = {{"channels", "16"}, {"mults", "1,2"},
                                  {"blocks", "1"},    {"groups", "4"},
                                  {"attention", "4"}, {"zero_init", "false"}};

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
    AqMemory *memory = new_memory();
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
    AqProgramSettings settings = settings_of_tests();
    AqMemory *memory = new_memory();
    aq_memory_share(memory, "weights", weights, "weights", NULL);
    AqGraph *graphs[] = {aq_noise_graph(task, NULL),
                         aq_sampler_graph(task, sampler, NULL)};
    AqCompiled *noise = compiled(graphs[0], memory, pool, &settings);
    AqCompiled *step = compiled(graphs[1], memory, pool, &settings);
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
            set_number(memory, number);
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
    AqProgramSettings settings = settings_of_tests();
    AqPool *pool = new_pool(2);
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
    AqPool *pool = new_pool(2);
    AqMemory *memory = new_memory();
    AqGraph *g = aq_sampler_graph(&task, &sampler, &error);
    AqRepeated *p = repeated(g, &repeat, memory, pool);
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
    AqPool *pool = new_pool(2);
    AqMemory *weights = weights_of(&task);
    for (int frugal = 0; frugal < 2; frugal++) {
        AqProgramSettings settings = settings_of_tests();
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

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_random_graphs),
        cmocka_unit_test(test_weights_are_packed_once),
        cmocka_unit_test(test_what_is_not_packed_once),
        cmocka_unit_test(test_prepared_again),
        cmocka_unit_test(test_an_interrupted_first_run),
        cmocka_unit_test(test_samples_are_the_same),
        cmocka_unit_test(test_weights_are_transformed_once),
        cmocka_unit_test(test_frugal_samples_are_the_same),
    };
    return cmocka_run_group_tests(tests, aq_test_make_cache,
                                  aq_test_remove_cache);
}
