/* Schedules and samplers against diffusers' numbers. */
#include "frontend/dsl/dsl.h"
#include "tests/support/golden.h"

#include <jansson.h>
#include <math.h>
#include <setjmp.h>
#include <string.h>

#include <cmocka.h>

typedef struct Files {
    AqArena *arena;
    AqError error;
    AqGolden golden;
    json_t *json;
} Files;

static void open_files(Files *f, const char *name)
{
    char path[300];
    *f = (Files){.arena = aq_arena_new()};
    snprintf(path, sizeof(path), AQ_SOURCE_DIR "/tests/golden/%s.json", name);
    f->json = json_load_file(path, 0, NULL);
    assert_non_null(f->json);
    snprintf(path, sizeof(path), "%s.safetensors", name);
    if (!aq_golden_open(&f->golden, AQ_SOURCE_DIR "/tests/golden", path,
                        f->arena, &f->error))
        fail_msg("%s", f->error.text);
}

static void close_files(Files *f)
{
    aq_golden_close(&f->golden);
    json_decref(f->json);
    aq_arena_free(f->arena);
}

static void near_all(const char *what, const double *ours, const double *theirs,
                     int64_t count, double tolerance)
{
    double most = 0;
    for (int64_t i = 0; i < count; i++)
        most = fmax(most, fabs(theirs[i]));
    for (int64_t i = 0; i < count; i++)
        if (!(fabs(ours[i] - theirs[i]) <= tolerance * most))
            fail_msg("%s[%d]: %.9g, not %.9g (of %.9g)", what, (int)i, ours[i],
                     theirs[i], most);
}

/* ---- schedules ---- */

enum { TIMES = 20, EACH = 2 * 3 * 3 };

static const char *const schedule_name[] = {
    [AQ_LINEAR] = "linear",
    [AQ_SCALED_LINEAR] = "scaled_linear",
    [AQ_COSINE] = "squaredcos_cap_v2",
};

static void compare_alphas(const json_t *numbers, const json_t *times,
                           const AqProcess *p)
{
    double abar[1000];
    assert_true(aq_process_alphas(p, abar));
    const json_t *list = json_object_get(numbers, "alphas_cumprod");
    for (size_t i = 0; i < TIMES; i++) {
        int t = (int)json_integer_value(json_array_get(times, i));
        double theirs = json_number_value(json_array_get(list, i));
        if (!(fabs(abar[t] - theirs) <= 1e-9 * theirs))
            fail_msg("abar[%d] is %.12g, not %.12g", t, abar[t], theirs);
    }
}

/* `f` of the file's x0, noise and t */
static void compare_field(Files *f, const char *name, const char *suffix,
                          AqProcess p)
{
    char key[80];
    snprintf(key, sizeof(key), "%s.%s", name, suffix);
    AqGraph *g = aq_graph_new();
    AqTensor x0 = aq_input(g, "x0", AQ_SHAPE(TIMES, 2, 3, 3));
    AqTensor noise = aq_input(g, "noise", AQ_SHAPE(TIMES, 2, 3, 3));
    AqTensor t = aq_input(g, "t", AQ_SHAPE(TIMES), .integer = true);
    bool add = strcmp(suffix, "add_noise") == 0;
    aq_output(add ? aq_add_noise(p, x0, noise, t) : aq_target(p, x0, noise, t),
              "y");
    if (aq_graph_error(g))
        fail_msg("%s", aq_graph_error(g));
    AqBinding bindings[] = {{"x0", aq_golden_read(&f->golden, "x0")},
                            {"noise", aq_golden_read(&f->golden, "noise")},
                            {"t", aq_golden_read(&f->golden, "t")}};
    AqValue y;
    if (aq_interpret(g, bindings, 3, &y, f->arena, &f->error))
        fail_msg("%s", f->error.text);
    near_all(key, y.data, aq_golden_read(&f->golden, key), TIMES * EACH, 1e-6);
    aq_graph_free(g);
}

static void compare_weights(Files *f, const json_t *numbers, AqProcess p,
                            const char *key)
{
    p.min_snr = 5;
    AqGraph *g = aq_graph_new();
    AqTensor t = aq_input(g, "t", AQ_SHAPE(TIMES), .integer = true);
    aq_output(aq_snr_weight(p, t), "weight");
    AqBinding binding = {"t", aq_golden_read(&f->golden, "t")};
    AqValue w;
    if (aq_interpret(g, &binding, 1, &w, f->arena, &f->error))
        fail_msg("%s", f->error.text);
    const json_t *list = json_object_get(numbers, key);
    for (size_t i = 0; i < TIMES; i++) {
        const json_t *entry = json_array_get(list, i);
        double theirs = json_number_value(entry);
        if (!(fabs(w.data[i] - theirs) <= 1e-9 * theirs))
            fail_msg("%s[%d]: %.12g, not %.12g", key, (int)i, w.data[i],
                     theirs);
    }
    aq_graph_free(g);
}

static void schedules_follow_diffusers(void **state)
{
    (void)state;
    Files f;
    open_files(&f, "schedules");
    const json_t *times = json_object_get(f.json, "timesteps");
    for (int i = 0; i < 6; i++) {
        AqProcess p = {.schedule = (AqScheduleKind)(i / 2),
                       .zero_snr = i % 2,
                       .prediction = AQ_VELOCITY};
        char name[40];
        snprintf(name, sizeof(name), "%s%s", schedule_name[i / 2],
                 i % 2 ? "_zero_snr" : "");
        const json_t *numbers = json_object_get(f.json, name);
        compare_alphas(numbers, times, &p);
        compare_field(&f, name, "add_noise", p);
        compare_field(&f, name, "get_velocity", p);
        compare_weights(&f, numbers, p, "min_snr_5_v_prediction");
        p.prediction = AQ_EPSILON;
        if (!p.zero_snr)
            compare_weights(&f, numbers, p, "min_snr_5_epsilon");
    }
    close_files(&f);
}

/* ---- samplers ---- */

enum { PICTURES = 2, SAMPLE = PICTURES * 3 * 8 * 8 };

typedef struct Case {
    bool ddpm;
    int steps, timesteps[64];
    AqProcess process;
    AqSamplerStep step;
    double deviation;
} Case;

static bool is_word(const json_t *config, const char *key, const char *word)
{
    const char *value = json_string_value(json_object_get(config, key));
    return value && strcmp(value, word) == 0;
}

static Case read_case(const json_t *json)
{
    const json_t *config = json_object_get(json, "config");
    const json_t *list = json_object_get(json, "timesteps");
    const json_t *options = json_object_get(json, "step_options");
    Case c = {.ddpm = is_word(json, "scheduler", "DDPMScheduler"),
              .steps = (int)json_array_size(list)};
    for (int i = 0; i < c.steps; i++)
        c.timesteps[i] =
            (int)json_integer_value(json_array_get(list, (size_t)i));
    for (int i = 0; i < AQ_COUNT(schedule_name); i++)
        if (is_word(config, "beta_schedule", schedule_name[i]))
            c.process.schedule = (AqScheduleKind)i;
    c.process.zero_snr =
        json_is_true(json_object_get(config, "rescale_betas_zero_snr"));
    if (is_word(config, "prediction_type", "v_prediction"))
        c.process.prediction = AQ_VELOCITY;
    if (is_word(config, "prediction_type", "sample"))
        c.process.prediction = AQ_X0;
    c.step.eta = json_number_value(json_object_get(options, "eta"));
    c.step.clip = json_is_true(json_object_get(config, "clip_sample"));
    c.step.large_variance = is_word(config, "variance_type", "fixed_large");
    c.step.end_at_first =
        json_is_false(json_object_get(config, "set_alpha_to_one"));
    c.deviation =
        json_number_value(json_object_get(json, "diffusers_f32_deviation"));
    return c;
}

static AqGraph *build_step(Case *c)
{
    AqGraph *g = aq_graph_new();
    AqShape shape = AQ_SHAPE(PICTURES, 3, 8, 8);
    AqTensor now = aq_input(g, "t", AQ_SCALAR, .integer = true);
    AqTensor next = aq_input(g, "previous", AQ_SCALAR, .integer = true);
    AqTensor real = aq_to_real(now);
    c->step.process = c->process;
    c->step.x = aq_input(g, "x", shape);
    c->step.noise = aq_input(g, "noise", shape);
    c->step.t = aq_broadcast(now, AQ_SHAPE(PICTURES));
    c->step.previous = aq_broadcast(next, AQ_SHAPE(PICTURES));
    c->step.output = aq_mul(c->step.x, aq_div(real, aq_shift(real, 1)));
    aq_output(c->ddpm ? aq_ddpm_step_(AQ_HERE, c->step)
                      : aq_ddim_step_(AQ_HERE, c->step),
              "x");
    if (aq_graph_error(g))
        fail_msg("%s", aq_graph_error(g));
    return g;
}

static int previous_of(const Case *c, int i)
{
    int listed = i + 1 < c->steps ? c->timesteps[i + 1] : -1;
    int by_ratio = c->timesteps[i] - 1000 / c->steps;
    return AQ_MAX(c->ddpm ? listed : by_ratio, -1);
}

static void follow_sampler(Files *f, const char *name, const json_t *json)
{
    Case c = read_case(json);
    AqGraph *g = build_step(&c);
    const double *x = aq_golden_read(&f->golden, "start");
    const double *noise = aq_golden_read(&f->golden, "noise");
    const double *path = aq_golden_read(&f->golden, name);
    double tolerance = fmax(1e-5, 10 * c.deviation);
    for (int i = 0; i < c.steps; i++) {
        double t = c.timesteps[i], previous = previous_of(&c, i);
        AqBinding bindings[] = {{"x", x},
                                {"t", &t},
                                {"previous", &previous},
                                {"noise", noise + i * SAMPLE}};
        AqValue y;
        if (aq_interpret(g, bindings, 4, &y, f->arena, &f->error))
            fail_msg("%s", f->error.text);
        near_all(name, y.data, path + i * SAMPLE, SAMPLE, tolerance);
        x = y.data;
    }
    aq_graph_free(g);
}

static void samplers_follow_diffusers(void **state)
{
    (void)state;
    Files f;
    open_files(&f, "samplers");
    const char *name;
    json_t *json;
    int count = 0;
    json_object_foreach(f.json, name, json)
    {
        if (strncmp(name, "ddim.", 5) != 0 && strncmp(name, "ddpm.", 5) != 0)
            continue;
        follow_sampler(&f, name, json);
        count++;
    }
    assert_true(count >= 20);
    close_files(&f);
}

static void timesteps_trail(void **state)
{
    (void)state;
    int t[10];
    aq_sampler_timesteps(1000, 10, t);
    for (int i = 0; i < 10; i++)
        assert_int_equal(t[i], 999 - 100 * i);
    aq_sampler_timesteps(1000, 7, t); /* 857.14.. - 1, 714.28.. - 1 */
    assert_int_equal(t[1], 856);
    assert_int_equal(t[2], 713);
}

/* Worked out in double from the formulae of Ho et al. and of Nichol. */
static void constants_of_the_literature(void **state)
{
    (void)state;
    double abar[1000];
    AqProcess p = {.schedule = AQ_LINEAR};
    assert_true(aq_process_alphas(&p, abar));
    assert_true(fabs(abar[999] / 4.0358298e-5 - 1) < 1e-7);
    assert_true(fabs(abar[500] / 0.077796658 - 1) < 1e-8);
    p.schedule = AQ_COSINE;
    assert_true(aq_process_alphas(&p, abar));
    assert_true(fabs(abar[999] / 2.4287669e-9 - 1) < 1e-7);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(schedules_follow_diffusers),
        cmocka_unit_test(samplers_follow_diffusers),
        cmocka_unit_test(timesteps_trail),
        cmocka_unit_test(constants_of_the_literature),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
