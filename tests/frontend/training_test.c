/* Whole programs: a step of training, an evaluation, a sampler's step. */
#include "frontend/dsl/dsl.h"
#include "tests/support/bench.h"

#include <math.h>
#include <setjmp.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { BATCH = 8, MOST = 24 };

static const AqSetting small[] = {{"width", "16"}, {"blocks", "1"}};

static AqTask points(void)
{
    AqError error = {0};
    return (AqTask){.model = aq_builtin_find("mlp2d", &error),
                    .settings = small,
                    .n_settings = 2,
                    .batch = BATCH,
                    .channels = 2};
}

/* A program with its arrays, run by the interpreter. */
typedef struct Program {
    AqGraph *graph;
    AqArena *arena;
    const AqParamTable *params;
    AqBinding bindings[MOST];
    int n_bindings;
    AqValue *values;
} Program;

static double *array(Program *p, const char *name, int64_t count)
{
    for (int i = 0; i < p->n_bindings; i++)
        if (strcmp(p->bindings[i].name, name) == 0)
            return (double *)p->bindings[i].data;
    double *data = AQ_NEW_ARRAY(p->arena, double, count);
    assert_non_null(data);
    assert_true(p->n_bindings < MOST);
    p->bindings[p->n_bindings++] = (AqBinding){name, data};
    return data;
}

/* Every input and state, zeros; weights as at the beginning of a run. */
static Program load(AqGraph *graph)
{
    Program p = {.graph = graph, .arena = aq_arena_new()};
    for (AqId id = 0; id < graph->count; id++) {
        const AqNode *node = aq_node(graph, id);
        if (node->op == AQ_OP_input || node->op == AQ_OP_state)
            array(&p, aq_attr_text(node, AQ_KEY_NAME, ""),
                  aq_elements(&node->type));
    }
    p.params = aq_params(graph);
    double *weights = array(&p, "weights", p.params->floats + 1);
    float *start = AQ_NEW_ARRAY(p.arena, float, p.params->floats + 1);
    aq_params_start(p.params, (const uint32_t[]){1, 2}, 1, start, NULL);
    for (int64_t i = 0; i < p.params->floats; i++)
        weights[i] = start[i];
    p.values = AQ_NEW_ARRAY(p.arena, AqValue, graph->n_outputs);
    return p;
}

static void unload(Program *p)
{
    aq_arena_free(p->arena);
    aq_graph_free(p->graph);
}

static void run(Program *p)
{
    AqError error = {0};
    if (aq_interpret(p->graph, p->bindings, p->n_bindings, p->values, p->arena,
                     &error))
        fail_msg("%s", error.text);
    for (int i = 0; i < p->graph->n_outputs; i++)
        if (p->graph->outputs[i].update)
            memcpy(array(p, p->graph->outputs[i].name, 0), p->values[i].data,
                   (size_t)aq_elements(&p->values[i].type) * sizeof(double));
}

static double output(const Program *p, const char *name)
{
    for (int i = 0; i < p->graph->n_outputs; i++)
        if (!p->graph->outputs[i].update &&
            strcmp(p->graph->outputs[i].name, name) == 0)
            return p->values[i].data[0];
    fail_msg("no output %s", name);
    return 0;
}

static AqGraph *built(AqGraph *graph, const AqError *error)
{
    if (!graph)
        fail_msg("%s", error->text);
    return graph;
}

static Program training(AqTask task, AqOptimizer how)
{
    AqError error = {0};
    return load(built(aq_training_graph(&task, &how, NULL, &error), &error));
}

/* Points on a line, and their numbers in the data. */
static void give_batch(Program *p, int first)
{
    double *x = array(p, "x", 0), *sample = array(p, "sample", 0);
    for (int i = 0; i < BATCH; i++) {
        x[2 * i] = (i - 3.5) / 4;
        x[2 * i + 1] = -x[2 * i];
        sample[i] = first + i;
    }
    array(p, "key", 0)[0] = 11;
}

/* The last layer starts at 0, so the first losses are E noise^2 = 1. */
static void loss_starts_at_one_and_falls(void **state)
{
    (void)state;
    Program p =
        training(points(), (AqOptimizer){.rate = {.base = 3e-3, .warmup = 200},
                                         .clip = 1,
                                         .ema = 0.99});
    double early = 0, late = 0;
    for (int i = 0; i < 300; i++) {
        give_batch(&p, i * BATCH);
        run(&p);
        assert_true(output(&p, "skipped") == 0);
        early += i < 20 ? output(&p, "loss") / 20 : 0;
        late += i >= 200 ? output(&p, "loss") / 100 : 0;
    }
    assert_true(early > 0.75 && early < 1.25);
    assert_true(late < 0.5 * early);
    assert_true(array(&p, "step", 0)[0] == 300);
    assert_true(array(&p, "updates", 0)[0] == 300);
    unload(&p);
}

/* Two batches of four are one of eight: what a sample draws depends on its
 * number alone. */
static void draws_belong_to_samples(void **state)
{
    (void)state;
    AqError error = {0};
    AqTask whole = points(), half = points();
    half.batch = BATCH / 2;
    Program one = load(built(aq_evaluation_graph(&whole, &error), &error));
    Program two = load(built(aq_evaluation_graph(&half, &error), &error));
    /* a model that is not zero */
    for (int64_t i = 0; i < one.params->floats; i++)
        array(&one, "weights", 0)[i] = array(&two, "weights", 0)[i] =
            sin((double)i);
    give_batch(&one, 100);
    run(&one);
    double sum = 0;
    for (int part = 0; part < 2; part++) {
        array(&two, "key", 0)[0] = 11;
        for (int i = 0; i < BATCH; i++)
            array(&two, "x", 0)[i] = array(&one, "x", 0)[part * BATCH + i];
        for (int i = 0; i < BATCH / 2; i++)
            array(&two, "sample", 0)[i] = 100 + part * BATCH / 2 + i;
        run(&two);
        sum += output(&two, "loss") / 2;
    }
    assert_true(fabs(sum - output(&one, "loss")) < 1e-12 * sum);
    /* another step, other draws */
    array(&one, "step", 0)[0] = 1;
    run(&one);
    assert_true(fabs(sum - output(&one, "loss")) > 1e-6);
    unload(&one);
    unload(&two);
}

/* The loss by the definitions, from the draws' own functions. */
static void loss_is_what_it_says(void **state)
{
    (void)state;
    AqError error = {0};
    AqTask task = points();
    task.process = (AqProcess){.schedule = AQ_COSINE,
                               .prediction = AQ_VELOCITY,
                               .min_snr = 5,
                               .steps = 50};
    Program p = load(built(aq_evaluation_graph(&task, &error), &error));
    give_batch(&p, 3);
    run(&p); /* the model says 0 */
    const char *const names[] = {"training.timestep", "training.noise"};
    uint32_t key[2] = {11, 0}, stream[2];
    for (int i = 0; i < 2; i++)
        stream[i] = (uint32_t)aq_hash64(names[i], strlen(names[i]));
    double abar[50], loss = 0;
    aq_process_alphas(&task.process, abar);
    for (uint32_t i = 0; i < BATCH; i++) {
        double u = aq_random_uniform(key, 0, stream[0], 3 + i, 0);
        double a = abar[(int)(u * 50)], snr = a / (1 - a);
        double weight = fmin(snr, 5) / (snr + 1);
        for (uint32_t c = 0; c < 2; c++) {
            double noise = aq_random_normal(key, 0, stream[1], 3 + i, c);
            double x = array(&p, "x", 0)[2 * i + c];
            double v = sqrt(a) * noise - sqrt(1 - a) * x;
            loss += weight * v * v / (2 * BATCH);
        }
    }
    assert_true(fabs(output(&p, "loss") - loss) < 1e-12 * loss);
    unload(&p);
}

static void labels_are_dropped(void **state)
{
    (void)state;
    AqTask task = points();
    task.classes = 3;
    task.label_dropout = 1; /* always */
    Program p = training(task, (AqOptimizer){.rate = {.base = 0.1}});
    int64_t offset = -1;
    for (int i = 0; i < p.params->count; i++)
        if (strcmp(p.params->at[i].name, "label.weight") == 0) {
            offset = p.params->at[i].offset;
            assert_int_equal(p.params->at[i].type.dim[0], 4);
        }
    assert_true(offset >= 0);
    give_batch(&p, 0);
    for (int i = 0; i < BATCH; i++)
        array(&p, "label", 0)[i] = i % 3;
    double before[4 * 16];
    memcpy(before, array(&p, "weights", 0) + offset, sizeof(before));
    for (int i = 0; i < 2; i++) /* the first step opens the last layer */
        run(&p);
    const double *after = array(&p, "weights", 0) + offset;
    assert_memory_equal(before, after, 3 * 16 * sizeof(double));
    assert_memory_not_equal(before + 48, after + 48, 16 * sizeof(double));
    unload(&p);
}

/* ---- sampling ---- */

/* Of a model that says 0, DDIM only scales: x_p = sqrt(abar_p / abar_t) x. */
static void sampler_follows_the_model(void **state)
{
    (void)state;
    AqError error = {0};
    AqTask task = points();
    Program noise = load(built(aq_noise_graph(&task, &error), &error));
    AqSampler sampler = {.steps = 10};
    Program step =
        load(built(aq_sampler_graph(&task, &sampler, &error), &error));
    for (int i = 0; i < BATCH; i++)
        array(&noise, "sample", 0)[i] = i;
    double *start = array(&noise, "x", 2 * BATCH);
    run(&noise);
    double square = 0;
    for (int i = 0; i < 2 * BATCH; i++)
        square += start[i] * start[i];
    assert_true(square > 4 && square < 40);
    memcpy(array(&step, "x", 0), start, 2 * BATCH * sizeof(double));
    double abar[1000];
    aq_process_alphas(&task.process, abar);
    int times[10];
    aq_sampler_timesteps(1000, 10, times);
    for (int i = 0; i < 10; i++)
        array(&step, "timesteps", 0)[i] = times[i];
    array(&step, "timesteps", 0)[10] = -1;
    for (int i = 0; i < 10; i++) {
        array(&step, "number", 0)[0] = i;
        run(&step);
    }
    for (int i = 0; i < 2 * BATCH; i++) {
        double wanted = start[i] / sqrt(abar[999]);
        assert_true(fabs(array(&step, "x", 0)[i] - wanted) <
                    1e-9 * fabs(wanted));
    }
    unload(&noise);
    unload(&step);
}

/* y = none + guidance (label - none): with none = label it changes nothing. */
static void guidance_is_linear(void **state)
{
    (void)state;
    AqError error = {0};
    AqTask task = points();
    task.classes = 2;
    task.label_dropout = 0.1;
    double x[3][2 * BATCH];
    const double guidance[] = {1, 0.5, 3};
    for (int k = 0; k < 3; k++) {
        AqSampler sampler = {.steps = 1, .guidance = guidance[k]};
        Program p =
            load(built(aq_sampler_graph(&task, &sampler, &error), &error));
        for (int64_t i = 0; i < p.params->floats; i++)
            array(&p, "weights", 0)[i] = cos((double)i);
        for (int i = 0; i < BATCH; i++)
            array(&p, "label", 0)[i] = i % 2;
        array(&p, "timesteps", 0)[0] = 500;
        array(&p, "timesteps", 0)[1] = 400;
        run(&p);
        memcpy(x[k], array(&p, "x", 0), sizeof(x[k]));
        unload(&p);
    }
    /* x(g) is affine in g: (x(3) - x(1)) / 2 = (x(1) - x(1/2)) / (1/2) */
    for (int i = 0; i < 2 * BATCH; i++) {
        double wide = (x[2][i] - x[0][i]) / 2, near = (x[0][i] - x[1][i]) * 2;
        assert_true(fabs(wide - near) < 1e-9 * (1 + fabs(wide)));
        assert_true(fabs(wide) > 1e-6);
    }
}

/* DDPM's noise is that of the sample and the timestep. */
static void ancestral_noise(void **state)
{
    (void)state;
    AqError error = {0};
    AqTask task = points();
    AqSampler sampler = {.kind = AQ_SAMPLER_DDPM, .steps = 2};
    Program p = load(built(aq_sampler_graph(&task, &sampler, &error), &error));
    array(&p, "timesteps", 0)[1] = 700;
    array(&p, "timesteps", 0)[2] = 600;
    array(&p, "number", 0)[0] = 1;
    array(&p, "key", 0)[1] = 5;
    for (int i = 0; i < BATCH; i++)
        array(&p, "sample", 0)[i] = 40 + i;
    run(&p); /* x = 0 and the model says 0: sigma z is left */
    double abar[1000];
    aq_process_alphas(&task.process, abar);
    double beta = 1 - abar[700] / abar[600];
    double sigma = sqrt((1 - abar[600]) / (1 - abar[700]) * beta);
    const char *name = "sampling.noise";
    uint32_t key[2] = {0, 5};
    uint32_t stream = (uint32_t)aq_hash64(name, strlen(name));
    for (uint32_t i = 0; i < 2 * BATCH; i++) {
        double z = aq_random_normal(key, 700, stream, 40 + i / 2, i % 2);
        assert_true(fabs(array(&p, "x", 0)[i] - sigma * z) < 1e-12);
    }
    unload(&p);
}

/* ---- mistakes ---- */

static AqTensor too_narrow(AqModel *m)
{
    return aq_linear(m->scope, m->x, 3);
}

static AqTensor unchanged(AqModel *m)
{
    return m->x;
}

static AqTensor nothing(AqModel *m)
{
    (void)m;
    return (AqTensor){0};
}

static void expect_error(AqTask task, const char *wanted)
{
    AqError error = {0};
    AqOptimizer how = {0};
    assert_null(aq_training_graph(&task, &how, NULL, &error));
    if (!strstr(error.text, wanted))
        fail_msg("\"%s\" does not say \"%s\"", error.text, wanted);
}

static void mistakes_are_explained(void **state)
{
    (void)state;
    AqModelInfo old = {.version = AQ_MODEL_VERSION + 1, .name = "old"};
    AqModelInfo narrow = {AQ_MODEL_VERSION, "narrow", "", "my/narrow.c",
                          too_narrow};
    AqModelInfo empty = {AQ_MODEL_VERSION, "empty", "", "my/empty.c", nothing};
    AqModelInfo same = {AQ_MODEL_VERSION, "same", "", "my/same.c", unchanged};
    AqTask task = points();
    task.n_settings = 0;
    task.model = NULL;
    expect_error(task, "no model is given");
    task.model = &old;
    expect_error(task, "another version of aquatint.h; compile it again");
    task.model = &narrow;
    expect_error(task,
                 "my/narrow.c:1: model narrow returns f32[8,3] where x is "
                 "f32[8,2]");
    task.model = &empty;
    expect_error(task, "my/empty.c:1: model empty returns no tensor");
    task.model = &same;
    expect_error(task, "my/same.c:1: model same has no parameters: there is "
                       "nothing to train");
    task = points();
    task.batch = 0;
    expect_error(task, "batch and channels must be positive");
    task = points();
    task.height = 3;
    expect_error(task, "height and width must be positive");
    task = points();
    task.classes = -1;
    expect_error(task, "the number of classes must not be negative");
    task.classes = 2;
    task.label_dropout = 2;
    expect_error(task, "label_dropout must be in [0, 1]");
    task.classes = 0;
    task.label_dropout = 0.5;
    expect_error(task, "label_dropout needs classes");
    AqError error = {0};
    task = points();
    task.classes = 2;
    AqSampler guided = {.steps = 50, .guidance = 2};
    assert_null(aq_sampler_graph(&task, &guided, &error));
    assert_non_null(strstr(error.text, "guidance needs a model that was "
                                       "trained with label_dropout"));
    error = (AqError){0};
    assert_null(aq_sampler_graph(&task, &(AqSampler){.steps = 1001}, &error));
    assert_string_equal(error.text, "1001 sampling steps: must lie between 1 "
                                    "and 1000, the steps of the process");
}
int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(loss_starts_at_one_and_falls),
        cmocka_unit_test(draws_belong_to_samples),
        cmocka_unit_test(loss_is_what_it_says),
        cmocka_unit_test(labels_are_dropped),
        cmocka_unit_test(sampler_follows_the_model),
        cmocka_unit_test(guidance_is_linear),
        cmocka_unit_test(ancestral_noise),
        cmocka_unit_test(mistakes_are_explained),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
