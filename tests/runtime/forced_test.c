/* Programs with an algorithm forced on every contraction that it suits, at each
 * level of instructions that this processor has: their gradients against
 * central differences of the loss in double, and the same bits for any number
 * of threads. */
#include "passes/passes.h"
#include "runtime/runtime.h"

#include <math.h>
#include <setjmp.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "tests/support/bench.h"
#include "tests/support/folder.h"
#include "tests/support/gradient_check.h"
#include "tests/support/machine.h"
#include "tests/support/models.h"
#include "tests/support/programs.h"

/* ---- levels and algorithms ---- */

/* All that this processor has: the algorithms of a level, then NULL, which
 * leaves the choice to the table. */
static bool next_settings(AqProgramSettings *s, int *level, int *algorithm)
{
    for (; *level <= AQ_LAST_LEVEL; ++*level, *algorithm = 0) {
        AqTarget target;
        if (aq_target_host(*level, &target, NULL) != AQ_OK)
            continue;
        if (*algorithm > 0 && !aq_algorithm_name(*algorithm - 1))
            continue;
        *s = aq_test_settings();
        s->target = target;
        s->passes.algorithm = aq_algorithm_name((*algorithm)++);
        return true;
    }
    return false;
}

static int kernels_by(const AqCompiled *program, const char *algorithm)
{
    const AqGraph *g = aq_compiled_graph(program);
    int count = 0;
    for (AqId id = 0; id < g->count; id++)
        count += !strcmp(aq_attr_text(aq_node(g, id), AQ_KEY_ALGORITHM, "none"),
                         algorithm);
    return count;
}

/* ---- gradients ---- */

typedef struct Case {
    int64_t n, h, w, in, out, groups;
    int64_t kernel, stride, dilation, pad[4];
} Case;

static const Case cases[] = {
    {1, 1, 1, 3, 5, 1, 3, 1, 1, {1, 1, 1, 1}},   /* one pixel */
    {1, 1, 1, 20, 17, 1, 3, 1, 1, {1, 1, 1, 1}}, /* and many channels */
    {1, 7, 9, 1, 2, 1, 3, 1, 1, {1, 1, 1, 1}},   /* few channels */
    {2, 5, 6, 4, 1, 1, 3, 1, 1, {1, 1, 1, 1}},
    {1, 9, 7, 18, 35, 1, 3, 1, 1, {0, 2, 1, 0}},  /* not symmetric */
    {1, 6, 11, 33, 16, 1, 3, 1, 1, {3, 0, 0, 3}}, /* wider than needed */
    {2, 7, 7, 6, 10, 2, 3, 1, 1, {1, 1, 1, 1}},   /* groups */
    {1, 9, 8, 5, 7, 1, 3, 1, 2, {2, 2, 2, 2}},    /* dilation */
    {2, 9, 7, 17, 8, 1, 3, 2, 1, {0, 1, 0, 1}},   /* stride */
    {3, 5, 5, 32, 24, 1, 1, 1, 1, {0, 0, 0, 0}},  /* a plain product */
    {2, 8, 7, 2, 3, 1, 5, 3, 1, {2, 1, 2, 1}},
};

static int64_t pixels(const Case *c, int d, int64_t size)
{
    return (size + c->pad[2 * d] + c->pad[2 * d + 1] -
            (c->kernel - 1) * c->dilation - 1) /
               c->stride +
           1;
}

/* sum r silu(conv(x, w)) */
static AqId loss_of(AqBench *b, const Case *c, AqId wrt[2])
{
    AqType y =
        F32(c->n, pixels(c, 0, c->h), pixels(c, 1, c->w), c->out * c->groups);
    wrt[0] = aq_bench_random(b, "x", F32(c->n, c->h, c->w, c->in * c->groups));
    wrt[1] = aq_bench_random(
        b, "w", F32(c->kernel, c->kernel, c->in, c->out * c->groups));
    AqId r = aq_bench_random(b, "r", y);
    AqId conv = BUILD(b, conv2d, &y, INPUTS(wrt[0], wrt[1]),
                      ATTRS(INTS(STRIDE, c->stride, c->stride),
                            aq_ints(AQ_KEY_PAD, c->pad, 4),
                            INTS(DILATION, c->dilation, c->dilation),
                            aq_int(AQ_KEY_GROUPS, c->groups)));
    AqId silu =
        aq_binary(b->g, AQ_OP_mul, conv, aq_unary(b->g, AQ_OP_sigmoid, conv));
    return aq_reduce_node(b->g, AQ_OP_reduce_sum,
                          aq_binary(b->g, AQ_OP_mul, r, silu),
                          DIMS_(0, 1, 2, 3), 4);
}

static void give_inputs(const AqMachine *m, const AqBench *b)
{
    for (int i = 0; i < b->n_bindings; i++) {
        int64_t bytes;
        float *to = aq_memory_find(m->memory, b->bindings[i].name, &bytes);
        for (int64_t j = 0; to && j < bytes / 4; j++)
            to[j] = (float)b->bindings[i].data[j];
    }
}

static void check_gradient(const AqMachine *m, AqBench *b, AqId loss, AqId wrt,
                           const char *name, const char *where)
{
    char message[500] = "";
    int64_t count = aq_elements(&aq_node(b->g, wrt)->type);
    const float *is = aq_compiled_output(m->program, name);
    double *gradient = AQ_NEW_ARRAY(b->arena, double, count);
    double square = 0;
    for (int64_t i = 0; i < count; i++) {
        gradient[i] = (double)is[i];
        square += gradient[i] * gradient[i];
    }
    double rms = sqrt(square / (double)count);
    assert_true(rms > 0);
    if (!aq_test_check_slopes(b->g, loss, wrt, gradient, b->bindings,
                              b->n_bindings, 1e-4, 1e-4 * rms, message,
                              sizeof message))
        fail_msg("%s, %s: %s", where, name, message);
}

/* How many of its kernels the algorithm computes. */
static int check_case(const Case *c, const AqProgramSettings *settings)
{
    AqBench b = aq_bench_new(21);
    AqId wrt[2], gradients[2];
    AqId loss = loss_of(&b, c, wrt);
    assert_int_equal(aq_gradient_nodes(b.g, loss, wrt, 2, gradients), AQ_OK);
    aq_graph_output(b.g, "of x", gradients[0], false);
    aq_graph_output(b.g, "of w", gradients[1], false);
    AqMachine m = aq_machine_with(b.g, (AqPoolOptions){.threads = 2}, settings);
    const char *algorithm = settings->passes.algorithm;
    char where[100];
    snprintf(where, sizeof where, "case %d, %s, level %d", (int)(c - cases),
             algorithm ? algorithm : "the table's", settings->target.level);
    give_inputs(&m, &b);
    assert_true(aq_compiled_run(m.program, NULL));
    check_gradient(&m, &b, loss, wrt[0], "of x", where);
    check_gradient(&m, &b, loss, wrt[1], "of w", where);
    int count = algorithm ? kernels_by(m.program, algorithm) : 1;
    aq_machine_free(&m);
    aq_bench_free(&b);
    return count;
}

static void test_gradients_by_each_algorithm(void **state)
{
    (void)state;
    AqProgramSettings settings;
    int level = AQ_FIRST_LEVEL, algorithm = 0, programs = 0;
    while (next_settings(&settings, &level, &algorithm)) {
        int taken = 0;
        for (int i = 0; i < AQ_COUNT(cases); i++)
            taken += check_case(&cases[i], &settings);
        const char *name = settings.passes.algorithm;
        bool none =
            name && !strcmp(name, "gemm_bf16x6") && settings.target.level < 5;
        assert_int_equal(taken > 0, !none);
        programs++;
    }
    assert_true(programs > 0);
}

/* ---- bits ---- */

static void test_bits_by_each_algorithm(void **state)
{
    static const int threads[] = {2, 3, 8};
    (void)state;
    AqProgramSettings settings;
    AqGraph *g = aq_test_nano_step();
    int level = AQ_FIRST_LEVEL, algorithm = 0;
    while (next_settings(&settings, &level, &algorithm)) {
        AqText one =
            aq_machine_three_with(g, (AqPoolOptions){.threads = 1}, &settings);
        for (int i = 0; i < AQ_COUNT(threads); i++) {
            AqText left = aq_machine_three_with(
                g, (AqPoolOptions){.threads = threads[i]}, &settings);
            aq_check_same_left(&one, &left);
            aq_text_free(&left);
        }
        aq_text_free(&one);
    }
    aq_graph_free(g);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_gradients_by_each_algorithm),
        cmocka_unit_test(test_bits_by_each_algorithm),
    };
    return cmocka_run_group_tests(tests, aq_test_make_folder,
                                  aq_test_remove_folder);
}
