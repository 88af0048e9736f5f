/* Every mistake that the DSL finds gives one sentence, which begins with the
 * line that made it. */
#include "frontend/dsl/dsl.h"

#include <setjmp.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

/* What a case may use. */
typedef struct Fixture {
    AqGraph *g;
    AqScope s, drawing;
    AqTensor x;     /* f32[2,4,6,8] */
    AqTensor v;     /* f32[2,8] */
    AqTensor k;     /* i32[2] */
    AqTensor q;     /* f32[2,5,8] */
    AqTensor other; /* of another graph */
    AqGraph *other_graph;
} Fixture;

static Fixture fresh(void)
{
    Fixture f = {.g = aq_graph_new(), .other_graph = aq_graph_new()};
    f.s = aq_root(f.g);
    f.x = aq_input(f.g, "x", AQ_SHAPE(2, 4, 6, 8));
    f.v = aq_input(f.g, "v", AQ_SHAPE(2, 8));
    f.k = aq_input(f.g, "k", AQ_SHAPE(2), .integer = true);
    f.q = aq_input(f.g, "q", AQ_SHAPE(2, 5, 8));
    f.other = aq_input(f.other_graph, "x", AQ_SHAPE(2, 8));
    AqTensor step = aq_input(f.g, "step", AQ_SCALAR, .integer = true);
    f.drawing = aq_drawing(f.s, (AqDraw){f.k, step, f.k});
    return f;
}

/* The line may be any of the case's: compilers count those of a macro's
 * arguments in different ways. */
static void check(Fixture *f, int line, const char *sentence)
{
    const char *said = aq_graph_error(f->g);
    if (!said)
        fail_msg("line %d: no error where \"%s\" was due", line, sentence);
    const char *name = strstr(said, "errors_test.c:");
    int there = 0, length = 0;
    if (name)
        sscanf(name, "errors_test.c:%d: %n", &there, &length);
    if (!length || abs(there - line) > 4 ||
        strncmp(name + length, sentence, strlen(sentence)) != 0)
        fail_msg("\"%s\" does not say \"errors_test.c:%d: %s\"", said, line,
                 sentence);
    aq_graph_free(f->g);
    aq_graph_free(f->other_graph);
}

#define FAULT(sentence, ...)                                                   \
    do {                                                                       \
        Fixture f = fresh();                                                   \
        __VA_ARGS__;                                                           \
        check(&f, __LINE__, sentence);                                         \
    } while (0)

static void tensors(void **state)
{
    (void)state;
    FAULT("add: argument 2 is no tensor", aq_add(f.v, AQ_NONE));
    FAULT("add: argument 1 is no tensor", aq_add((AqTensor){0}, f.v));
    FAULT("add: argument 2 belongs to another graph", aq_add(f.v, f.other));
    FAULT("select: argument 3 is no tensor", aq_select(f.v, f.v, AQ_NONE));
    FAULT("add: f32[2,4,6,8] and f32[2,5,8] do not broadcast to one shape",
          aq_add(f.x, f.q));
    FAULT("select: f32[2,4,6,8] and f32[2,5,8] do not broadcast to one shape",
          aq_select(f.v, f.x, f.q));
    FAULT("select: f32[2,4,6,8] and f32[2,5,8] do not broadcast to one shape",
          aq_select(f.x, f.q, f.q));
    FAULT("mul: ", aq_mul(f.v, aq_broadcast(f.k, AQ_SHAPE(8, 2))));
    FAULT("broadcast: f32[2,8] does not broadcast to f32[2,9]",
          aq_broadcast(f.v, AQ_SHAPE(2, 9)));
    FAULT("broadcast: f32[2,8] does not broadcast to f32[8]",
          aq_broadcast(f.v, AQ_SHAPE(8)));
    FAULT("clamp: low 1 is above high -1", aq_clamp(f.v, 1, -1));
    FAULT("dim: f32[2,8] has no axis 2", aq_dim(f.v, 2));
    FAULT("dim: f32[2,8] has no axis -3", aq_dim(f.v, -3));
    FAULT("input: a name is needed", aq_input(f.g, "", AQ_SHAPE(1)));
    FAULT("table: 4294967296 numbers are too many",
          aq_table(f.g, AQ_SHAPE(65536, 65536), NULL));
    FAULT("state: a name is needed", aq_state(f.g, NULL, AQ_SHAPE(1)));
    FAULT("output \"y\" is given twice", aq_output(f.v, "y");
          aq_output(f.v, "y"));
    FAULT("update of state \"m\" is given twice", aq_update("m", f.v);
          aq_update("m", f.v));
}

static void scopes(void **state)
{
    (void)state;
    FAULT("scope \"a b\": 1 to 255 letters, digits, _ and . make a name",
          aq_sub(f.s, "a b"));
    FAULT("scope \"\": 1 to 255 letters", aq_sub(f.s, "%s", ""));
}

static void reductions(void **state)
{
    (void)state;
    FAULT("sum: f32[2,8] has no axis 4", aq_sum(f.v, .axes = AQ_AXES(4)));
    FAULT("max: axis -1 is named twice", aq_max(f.v, .axes = AQ_AXES(1, -1)));
    FAULT("moments: of no elements", aq_moments(aq_full(f.g, AQ_SCALAR, 1)));
    FAULT("matmul: both need two dimensions or more (f32[2,8] x i32[2])",
          aq_matmul(f.v, f.k));
    FAULT("matmul: batch sizes differ (f32[2,4,6,8] x f32[3,8,5])",
          aq_matmul(f.x, aq_full(f.g, AQ_SHAPE(3, 8, 5), 0)));
    FAULT("matmul: ", aq_matmul(f.v, f.v));
    FAULT("gather: ", aq_gather(f.v, f.v));
}

static void movement(void **state)
{
    (void)state;
    FAULT("reshape: f32[2,8] does not fit into [3,-1]",
          aq_reshape(f.v, AQ_SHAPE(3, -1)));
    FAULT("reshape: f32[2,8] does not fit into [-1,-1]",
          aq_reshape(f.v, AQ_SHAPE(-1, -1)));
    FAULT("reshape: f32[2,8] does not fit into [2,7]",
          aq_reshape(f.v, AQ_SHAPE(2, 7)));
    FAULT("reshape: f32[2,8] does not fit into [-2,-8]",
          aq_reshape(f.v, AQ_SHAPE(-2, -8)));
    FAULT("reshape: f32[2,8] does not fit into "
          "[4294967296,4294967296,16]",
          aq_reshape(f.v, AQ_SHAPE(4294967296, 4294967296, 16)));
    FAULT("transpose: 1 axes of a tensor of rank 2",
          aq_transpose(f.v, AQ_AXES(0)));
    FAULT("transpose: axis 0 is named twice", aq_transpose(f.v, AQ_AXES(0, 0)));
    FAULT("transpose: f32[2,8] has no axis 2",
          aq_transpose(f.v, AQ_AXES(0, 2)));
    FAULT("slice: 3 elements from 6 by 1 do not lie in an axis of 8",
          aq_slice(f.v, 1, 6, 3));
    FAULT("slice: 4 elements from 1 by 3 do not lie in an axis of 8",
          aq_slice(f.v, 1, 1, 4, .step = 3));
    FAULT("slice: 0 elements from 0 by 1", aq_slice(f.v, 1, 0, 0));
    FAULT("extend: -1 and 0 must not be negative", aq_extend(f.v, 0, -1, 0));
    FAULT("concat: ", aq_concat(0, f.v, f.q));
    FAULT("concat: f32[2,8] has no axis 2", aq_concat(2, f.v, f.v));
    FAULT("over_space: rank 2 is needed, (N, C), not 3", aq_over_space(f.q));
    FAULT("enlarge: f32[2,8] is not an image (N, H, W, C)", aq_enlarge(f.v, 2));
    FAULT("enlarge: factor 0 is not positive", aq_enlarge(f.x, 0));
    FAULT("average_pool: 4 x 6 pixels are not whole squares of 4",
          aq_average_pool(f.x, 4));
}

static void parameters(void **state)
{
    (void)state;
    FAULT("parameter a.w exists already, from " __FILE__ ":",
          aq_param(aq_sub(f.s, "a"), "w", AQ_SHAPE(1));
          aq_param(aq_sub(f.s, "a"), "w", AQ_SHAPE(2)));
    FAULT("param: a name is needed", aq_param(f.s, "", AQ_SHAPE(1)));
    FAULT("parameter w: dimension 1 is 0", aq_param(f.s, "w", AQ_SHAPE(1, 0)));
    FAULT("parameter w: .init 9 is none of AqInit",
          aq_param(f.s, "w", AQ_SHAPE(1), .init = (AqInit)9));
    FAULT("parameter w: .file must name each of its 2 dimensions once",
          aq_param(f.s, "w", AQ_SHAPE(3, 4), .file = AQ_AXES(0, 0)));
}

static void random_numbers(void **state)
{
    (void)state;
    FAULT("scope \"\" has no random numbers; see aq_drawing",
          aq_normal(f.s, AQ_SHAPE(2, 3)));
    FAULT("scope \"a\" draws random numbers a second time (first at ",
          aq_normal(aq_sub(f.drawing, "a"), AQ_SHAPE(2, 3));
          aq_uniform(aq_sub(f.drawing, "a"), AQ_SHAPE(2)));
    FAULT("scopes \"drop.194828\" and \"drop.104127\" have the same random "
          "stream; rename one",
          aq_normal(aq_sub(f.drawing, "drop.104127"), AQ_SHAPE(2));
          aq_normal(aq_sub(f.drawing, "drop.194828"), AQ_SHAPE(2)));
    FAULT("random: ", aq_normal(f.drawing, AQ_SHAPE(3)));
    FAULT("dropout: rate 1 is not in [0, 1)", aq_dropout(f.s, f.v, 1));
}

static void layers(void **state)
{
    (void)state;
    FAULT("linear: the input is no tensor", aq_linear(f.s, AQ_NONE, 3));
    FAULT("linear: the number of units must be positive, not 0",
          aq_linear(f.s, f.v, 0));
    FAULT("linear: the input is i32[2], not (N, ..., I)",
          aq_linear(f.s, f.k, 3));
    FAULT("conv2d: the input is f32[2,8], not (N, H, W, C)",
          aq_conv2d(f.s, f.v, 3));
    FAULT("conv2d: the number of channels must be positive, not -1",
          aq_conv2d(f.s, f.x, -1));
    FAULT("conv2d: kernel -1, stride 1, dilation 1 must be positive",
          aq_conv2d(f.s, f.x, 3, .kernel = -1));
    FAULT("conv2d: 8 and 9 channels are not whole numbers of 3 groups",
          aq_conv2d(f.s, f.x, 9, .groups = 3));
    FAULT("conv2d: padding must not be negative",
          aq_conv2d(f.s, f.x, 9, .padding = AQ_PAD(0, 0, -1, 0)));
    FAULT("conv2d: ", aq_conv2d(f.s, f.x, 9, .kernel = 5, .padding = AQ_VALID));
    FAULT("group_norm: 8 channels are not a whole number of 3 groups",
          aq_group_norm(f.s, f.x, .groups = 3));
    FAULT("group_norm: the input is i32[2], not (N, ..., C)",
          aq_group_norm(f.s, f.k));
    FAULT("layer_norm: the input is f32[], not (..., C)",
          aq_layer_norm(f.s, aq_full(f.g, AQ_SCALAR, 1)));
    FAULT("embedding: the numbers of rows and units must be positive, not 0 "
          "and 4",
          aq_embedding(f.s, f.k, 0, 4));
    FAULT("timestep_embedding: 2 units, freq_shift 1 and period 10000 make no "
          "frequencies",
          aq_timestep_embedding(f.k, 2, .freq_shift = 1));
    FAULT("timestep_embedding: the input is f32[2,8], not (N)",
          aq_timestep_embedding(f.v, 8));
    /* the sentence names the layer's scope */
    FAULT("conv2d: the number of channels must be positive, not 0 in scope "
          "mid.conv1",
          aq_conv2d(aq_sub(f.s, "mid.conv1"), f.x, 0));
}

static void attention(void **state)
{
    (void)state;
    FAULT("attention: q, k and v must be (N, T, C)",
          aq_attention(f.v, f.v, f.v));
    FAULT("attention: 8 channels are not a whole number of 3 heads",
          aq_attention(f.q, f.q, f.q, .heads = 3));
    FAULT("attention: q, k and v have 8, 4 and 8 channels",
          aq_attention(f.q, aq_slice(f.q, 2, 0, 4), f.q));
    FAULT("attention: 4 keys and 5 values",
          aq_attention(f.q, aq_slice(f.q, 1, 0, 4), f.q));
    FAULT("attention: q, k and v are of 1, 2 and 2 samples",
          aq_attention(aq_slice(f.q, 0, 0, 1), f.q, f.q));
    FAULT("attention: ", aq_attention(f.q, f.q, f.q, .bias = f.v));
}

static void processes(void **state)
{
    (void)state;
    AqProcess plain = {0};
    AqProcess zero = {.zero_snr = true};
    AqProcess short_one = {.steps = 1};
    AqProcess falling = {.beta_start = 0.1, .beta_end = 0.01};
    AqProcess unknown = {.schedule = (AqScheduleKind)7};
    AqProcess what = {.prediction = (AqPrediction)7};
    AqProcess gamma = {.min_snr = -1};
    FAULT("diffusion process: with zero terminal SNR the noise says nothing",
          aq_add_noise(zero, f.v, f.v, f.k));
    FAULT("diffusion process: 2 to 1000000 timesteps are needed",
          aq_add_noise(short_one, f.v, f.v, f.k));
    FAULT("diffusion process: betas must rise and stay below 1",
          aq_add_noise(falling, f.v, f.v, f.k));
    FAULT("diffusion process: the schedule is none of AqScheduleKind",
          aq_add_noise(unknown, f.v, f.v, f.k));
    FAULT("diffusion process: the prediction is none of AqPrediction",
          aq_add_noise(what, f.v, f.v, f.k));
    FAULT("diffusion process: the gamma of min-SNR must not be negative",
          aq_snr_weight(gamma, f.k));
    FAULT("ddim_step: eta 2 is not in [0, 1]",
          aq_ddim_step(plain, f.v, f.v, f.k, f.k, .eta = 2));
    FAULT("ddpm_step: argument 5 is no tensor",
          aq_ddpm_step(plain, f.v, f.v, f.k, f.k));
}

static void optimizers(void **state)
{
    (void)state;
    AqTensor p = AQ_NONE;
#define LOSS p = aq_sum(aq_param(f.s, "w", AQ_SHAPE(3)))
    FAULT("optimizer: the graph has no parameters",
          aq_minimize(aq_sum(f.v), (AqOptimizer){0}));
    FAULT("gradient: a loss has one element, and this 16; take a sum or a "
          "mean",
          LOSS;
          aq_minimize(f.v, (AqOptimizer){0}));
    FAULT("optimizer: betas must be in [0, 1)", LOSS;
          aq_minimize(p, (AqOptimizer){.beta2 = 1}));
    FAULT("optimizer: alpha and momentum must be in [0, 1)", LOSS;
          aq_minimize(p, (AqOptimizer){.momentum = 1}));
    FAULT("optimizer: the decay of the EMA must be in [0, 1)", LOSS;
          aq_minimize(p, (AqOptimizer){.ema = 1}));
    FAULT("optimizer: epsilon, decay, clip and rate_decay must not be "
          "negative",
          LOSS;
          aq_minimize(p, (AqOptimizer){.clip = -1}));
    FAULT("optimizer: the kind is none of AqOptimizerKind", LOSS;
          aq_minimize(p, (AqOptimizer){.kind = (AqOptimizerKind)9}));
    FAULT("learning rate: the kind is none of AqRateKind",
          aq_rate(f.k, (AqRate){.kind = (AqRateKind)9}));
    FAULT("learning rate: base, warmup and total must not be negative",
          aq_rate(f.k, (AqRate){.base = -1}));
    FAULT("learning rate: a rate that falls needs its total number of steps",
          aq_rate(f.k, (AqRate){.kind = AQ_RATE_COSINE}));
    FAULT("learning rate: cycles, power and end must not be negative",
          aq_rate(f.k, (AqRate){.cycles = -1}));
#undef LOSS
}

/* The first error stays, and what comes after does nothing. */
static void the_first_error_sticks(void **state)
{
    (void)state;
    Fixture f = fresh();
    AqTensor y = aq_exp(aq_reshape(f.v, AQ_SHAPE(5)));
    char first[400];
    snprintf(first, sizeof(first), "%s", aq_graph_error(f.g));
    int count = f.g->count;
    y = aq_conv2d(f.s, y, 0);
    y = aq_add(y, f.v);
    assert_int_equal(aq_channels(y), 1);
    assert_int_equal(aq_rank(y), 1);
    aq_output(y, "y");
    aq_minimize(y, (AqOptimizer){.beta1 = 7});
    assert_string_equal(aq_graph_error(f.g), first);
    assert_int_equal(f.g->count, count);
    assert_int_equal(f.g->n_outputs, 0);
    aq_graph_free(f.g);
    aq_graph_free(f.other_graph);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(tensors),
        cmocka_unit_test(scopes),
        cmocka_unit_test(reductions),
        cmocka_unit_test(movement),
        cmocka_unit_test(parameters),
        cmocka_unit_test(random_numbers),
        cmocka_unit_test(layers),
        cmocka_unit_test(attention),
        cmocka_unit_test(processes),
        cmocka_unit_test(optimizers),
        cmocka_unit_test(the_first_error_sticks),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
