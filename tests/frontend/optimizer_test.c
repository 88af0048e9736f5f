/* Optimizers and learning rates against PyTorch's and diffusers' numbers. */
#include "frontend/dsl/dsl.h"
#include "tests/support/golden.h"

#include <jansson.h>
#include <math.h>
#include <setjmp.h>
#include <string.h>

#include <cmocka.h>

enum { PARAMS = 3 };

static const char *const names[PARAMS] = {"a", "b", "c"};

static json_t *numbers(const char *name)
{
    char path[300];
    snprintf(path, sizeof(path), AQ_SOURCE_DIR "/tests/golden/%s", name);
    json_t *json = json_load_file(path, 0, NULL);
    assert_non_null(json);
    return json;
}

static double number(const json_t *options, const char *key)
{
    return json_number_value(json_object_get(options, key));
}

static AqOptimizer read_optimizer(const json_t *options)
{
    static const char *const kinds[] = {
        [AQ_ADAMW] = "AdamW",     [AQ_ADAM] = "Adam",       [AQ_SGD] = "SGD",
        [AQ_RMSPROP] = "RMSprop", [AQ_ADAGRAD] = "Adagrad",
    };
    const char *kind = json_string_value(json_object_get(options, "optimizer"));
    const json_t *betas = json_object_get(options, "betas");
    AqOptimizer how = {
        .rate = {.base = number(options, "lr")},
        .beta1 = json_number_value(json_array_get(betas, 0)),
        .beta2 = json_number_value(json_array_get(betas, 1)),
        .epsilon = number(options, "eps"),
        .decay = number(options, "weight_decay"),
        .momentum = number(options, "momentum"),
        .nesterov = json_is_true(json_object_get(options, "nesterov")),
        .alpha = number(options, "alpha"),
        .centered = json_is_true(json_object_get(options, "centered")),
        .rate_decay = number(options, "lr_decay"),
    };
    for (int i = 0; i < AQ_COUNT(kinds); i++)
        if (strcmp(kind, kinds[i]) == 0)
            how.kind = (AqOptimizerKind)i;
    return how;
}

typedef struct Run {
    AqGraph *graph;
    AqArena *arena;
    const AqParamTable *params;
    double *states[5]; /* weights, m, v, a, ema */
    double counters[2];
    AqBinding bindings[16];
    int n_bindings;
    AqValue *values;
} Run;

/* Three parameters and the loss sum p g, whose gradient is g. */
static void build(Run *r, AqOptimizer how)
{
    static const AqShape shapes[PARAMS] = {
        {1, {5}}, {2, {4, 3}}, {4, {2, 3, 3, 3}}};
    r->graph = aq_graph_new();
    AqTensor loss = aq_full(r->graph, AQ_SCALAR, 0);
    for (int i = 0; i < PARAMS; i++) {
        AqTensor p = aq_param(aq_root(r->graph), names[i], shapes[i]);
        AqTensor g = aq_input(r->graph,
                              i == 0   ? "ga"
                              : i == 1 ? "gb"
                                       : "gc",
                              shapes[i]);
        loss = aq_add(loss, aq_sum(aq_mul(p, g)));
    }
    aq_minimize(loss, how);
    if (aq_graph_error(r->graph))
        fail_msg("%s", aq_graph_error(r->graph));
    r->params = aq_params(r->graph);
    r->values = AQ_NEW_ARRAY(r->arena, AqValue, r->graph->n_outputs);
}

static void bind_states(Run *r)
{
    static const char *const states[] = {"weights", "m", "v", "a", "ema"};
    for (int i = 0; i < AQ_COUNT(states); i++) {
        r->states[i] = AQ_NEW_ARRAY(r->arena, double, r->params->floats);
        r->bindings[r->n_bindings++] = (AqBinding){states[i], r->states[i]};
    }
    r->bindings[r->n_bindings++] = (AqBinding){"step", &r->counters[0]};
    r->bindings[r->n_bindings++] = (AqBinding){"updates", &r->counters[1]};
}

static void step(Run *r)
{
    AqError error = {0};
    if (aq_interpret(r->graph, r->bindings, r->n_bindings, r->values, r->arena,
                     &error))
        fail_msg("%s", error.text);
    for (int i = 0; i < r->graph->n_outputs; i++)
        for (int j = 0; j < r->n_bindings; j++)
            if (r->graph->outputs[i].update &&
                strcmp(r->graph->outputs[i].name, r->bindings[j].name) == 0)
                memcpy((double *)r->bindings[j].data, r->values[i].data,
                       (size_t)aq_elements(&r->values[i].type) *
                           sizeof(double));
}

static double output(const Run *r, const char *name)
{
    for (int i = 0; i < r->graph->n_outputs; i++)
        if (!r->graph->outputs[i].update &&
            strcmp(r->graph->outputs[i].name, name) == 0)
            return r->values[i].data[0];
    fail_msg("no output %s", name);
    return 0;
}

static void compare(const Run *r, const AqGolden *golden, const char *name,
                    int count)
{
    for (int i = 0; i < PARAMS; i++) {
        char key[80];
        snprintf(key, sizeof(key), "%s.%d.%s", name, count, names[i]);
        const double *theirs = aq_golden_read(golden, key);
        assert_non_null(theirs);
        const double *ours = r->states[0] + r->params->at[i].offset;
        for (int64_t j = 0; j < aq_elements(&r->params->at[i].type); j++)
            if (!(fabs(ours[j] - theirs[j]) <= 1e-6 * (1 + fabs(theirs[j]))))
                fail_msg("%s[%d]: %.9g, not %.9g", key, (int)j, ours[j],
                         theirs[j]);
    }
}

static void follow(const AqGolden *golden, const char *name,
                   const json_t *options)
{
    Run r = {.arena = aq_arena_new()};
    build(&r, read_optimizer(options));
    bind_states(&r);
    for (int i = 0; i < PARAMS; i++) {
        char key[20];
        snprintf(key, sizeof(key), "start.%s", names[i]);
        const AqTensorInfo *info = aq_golden_find(golden, key);
        memcpy(r.states[0] + r.params->at[i].offset,
               aq_golden_read(golden, key),
               (size_t)info->elements * sizeof(double));
    }
    int first = r.n_bindings;
    r.n_bindings += PARAMS;
    for (int n = 1; n <= 10; n++) {
        for (int i = 0; i < PARAMS; i++) {
            char key[20];
            snprintf(key, sizeof(key), "grads.%s", names[i]);
            const AqTensorInfo *info = aq_golden_find(golden, key);
            r.bindings[first + i] = (AqBinding){
                i == 0   ? "ga"
                : i == 1 ? "gb"
                         : "gc",
                aq_golden_read(golden, key) + (n - 1) * info->elements / 10};
        }
        step(&r);
        if (n == 1 || n == 5 || n == 10)
            compare(&r, golden, name, n);
    }
    assert_true(r.counters[0] == 10 && r.counters[1] == 10);
    aq_graph_free(r.graph);
    aq_arena_free(r.arena);
}

static void optimizers_follow_pytorch(void **state)
{
    (void)state;
    AqArena *arena = aq_arena_new();
    AqError error = {0};
    AqGolden golden;
    if (!aq_golden_open(&golden, AQ_SOURCE_DIR "/tests/golden",
                        "optimizers.safetensors", arena, &error))
        fail_msg("%s", error.text);
    json_t *cases = numbers("optimizers.json");
    const char *name;
    json_t *options;
    json_object_foreach(cases, name, options)
    {
        follow(&golden, name, options);
    }
    json_decref(cases);
    aq_golden_close(&golden);
    aq_arena_free(arena);
}

/* ---- learning rates ---- */

static void follow_rate(const json_t *all, const char *name, AqRate rate)
{
    AqGraph *g = aq_graph_new();
    AqArena *arena = aq_arena_new();
    AqError error = {0};
    AqTensor n = aq_input(g, "n", AQ_SCALAR, .integer = true);
    aq_output(aq_rate(n, rate), "rate");
    const json_t *list = json_object_get(all, name);
    assert_int_equal(json_array_size(list), 100);
    for (int i = 0; i < 100; i++) {
        double step_number = i,
               theirs = json_number_value(json_array_get(list, (size_t)i));
        AqBinding binding = {"n", &step_number};
        AqValue value;
        if (aq_interpret(g, &binding, 1, &value, arena, &error))
            fail_msg("%s", error.text);
        if (!(fabs(value.data[0] - theirs) <= 1e-12 * (1e-3 + theirs)))
            fail_msg("%s at %d: %.15g, not %.15g", name, i, value.data[0],
                     theirs);
    }
    aq_graph_free(g);
    aq_arena_free(arena);
}

static void rates_follow_diffusers(void **state)
{
    (void)state;
    json_t *all = numbers("lr_schedules.json");
    AqRate rate = {.base = 1e-3};
    follow_rate(all, "constant", rate);
    rate.warmup = 10;
    follow_rate(all, "constant_with_warmup", rate);
    rate.total = 100;
    rate.kind = AQ_RATE_LINEAR;
    follow_rate(all, "linear", rate);
    rate.kind = AQ_RATE_COSINE;
    follow_rate(all, "cosine", rate);
    rate.kind = AQ_RATE_COSINE_RESTARTS;
    rate.cycles = 2;
    follow_rate(all, "cosine_with_restarts", rate);
    rate.kind = AQ_RATE_POLYNOMIAL;
    rate.power = 2;
    follow_rate(all, "polynomial", rate);
    json_decref(all);
}

/* ---- clipping, skipping, EMA ---- */

static void start(Run *r, AqOptimizer how, const double *gradients[PARAMS])
{
    r->arena = aq_arena_new();
    build(r, how);
    bind_states(r);
    for (int i = 0; i < PARAMS; i++)
        r->bindings[r->n_bindings++] = (AqBinding){i == 0   ? "ga"
                                                   : i == 1 ? "gb"
                                                            : "gc",
                                                   gradients[i]};
}

static void gradients_are_clipped_together(void **state)
{
    (void)state;
    double g[3][54] = {{3}, {0, 4}, {0}};
    const double *all[] = {g[0], g[1], g[2]};
    Run r = {0};
    start(&r, (AqOptimizer){.kind = AQ_SGD, .rate = {.base = 1}, .clip = 1},
          all);
    step(&r);
    assert_true(output(&r, "gradient_norm") == 5);
    assert_true(output(&r, "learning_rate") == 1);
    double factor = 1 / (5 + 1e-6);
    assert_true(fabs(r.states[0][0] + 3 * factor) < 1e-15);
    double second = r.states[0][r.params->at[1].offset + 1];
    assert_true(fabs(second + 4 * factor) < 1e-15);
    aq_graph_free(r.graph);
    aq_arena_free(r.arena);
}

/* Neither weights nor moments nor EMA move; `step` does, `updates` does not. */
static void a_step_that_is_not_finite_is_skipped(void **state)
{
    (void)state;
    double g[3][54] = {{1, 2}, {3}, {4}};
    const double *all[] = {g[0], g[1], g[2]};
    Run r = {0};
    start(&r, (AqOptimizer){.clip = 1, .ema = 0.9}, all);
    step(&r);
    assert_true(output(&r, "skipped") == 0);
    double before[5][128];
    size_t bytes = (size_t)r.params->floats * sizeof(double);
    assert_true(bytes <= sizeof(before[0]));
    for (int i = 0; i < 5; i++)
        memcpy(before[i], r.states[i], bytes);
    /* of the last one the square alone is infinite, and not the loss */
    const double bad[] = {NAN, INFINITY, -INFINITY, 1e200};
    for (int k = 0; k < 4; k++) {
        g[1][5] = bad[k];
        step(&r);
        assert_true(output(&r, "skipped") == 1);
        for (int i = 0; i < 5; i++)
            assert_memory_equal(before[i], r.states[i], bytes);
    }
    assert_true(r.counters[0] == 5 && r.counters[1] == 1);
    g[1][5] = 0;
    step(&r);
    assert_true(output(&r, "skipped") == 0);
    assert_true(r.counters[0] == 6 && r.counters[1] == 2);
    assert_memory_not_equal(before[0], r.states[0], bytes);
    aq_graph_free(r.graph);
    aq_arena_free(r.arena);
}

/* d = min(decay, (1 + n) / (10 + n)), n = 0 at the first update */
static void ema_warms_up(void **state)
{
    (void)state;
    double g[3][54] = {{1}, {0}, {0}};
    const double *all[] = {g[0], g[1], g[2]};
    Run r = {0};
    start(&r, (AqOptimizer){.kind = AQ_SGD, .rate = {.base = 1}, .ema = 0.25},
          all);
    double ema = 0, weight = 0;
    for (int n = 0; n < 6; n++) {
        step(&r);
        double d = fmin(0.25, (1.0 + n) / (10.0 + n));
        weight -= 1;
        ema = d * ema + (1 - d) * weight;
        assert_true(fabs(r.states[4][0] - ema) < 1e-14);
    }
    aq_graph_free(r.graph);
    aq_arena_free(r.arena);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(optimizers_follow_pytorch),
        cmocka_unit_test(rates_follow_diffusers),
        cmocka_unit_test(gradients_are_clipped_together),
        cmocka_unit_test(a_step_that_is_not_finite_is_skipped),
        cmocka_unit_test(ema_warms_up),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
