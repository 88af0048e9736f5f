/* Attention and its gradient against the interpreter, between guard pages, on
 * both levels, for any grouping and order of the tasks.
 *
 * Error bound on normal data: |ours - exact| <= b sqrt(n / 64) (1 + |exact|), n
 * the largest of queries, keys and depth or 64, b = 4e-6 forward and 1e-5 for
 * the gradient (dout . v - dout . out cancels).  A score s is off by some
 * |s| 1e-7, so that large ones count their size. */
#include "tests/support/bench.h"
#include "tests/support/run_kernel.h"

#include <math.h>
#include <setjmp.h>
#include <string.h>

#include <cmocka.h>

typedef enum Bias { NO_BIAS, FULL_BIAS, ONE_BIAS, HEAD_BIAS, MASK } Bias;

typedef struct Shape {
    int64_t batch, queries, keys, heads, depth;
    Bias bias;
    bool causal;
    unsigned results; /* 0: all; else bits of those that are wanted */
} Shape;

static const Shape shapes[] = {
    {1, 1, 1, 1, 1, NO_BIAS, false, 0},
    {1, 1, 1, 1, 4, NO_BIAS, true, 0},
    {2, 5, 7, 3, 4, NO_BIAS, false, 0},
    {2, 5, 7, 3, 4, FULL_BIAS, false, 0},
    {3, 4, 4, 2, 5, ONE_BIAS, false, 0},
    {2, 33, 31, 2, 8, HEAD_BIAS, true, 0},
    {1, 64, 64, 2, 64, NO_BIAS, false, 0},
    {1, 67, 131, 1, 40, NO_BIAS, false, 0},
    {2, 131, 67, 1, 40, NO_BIAS, true, 0},
    {1, 67, 131, 2, 40, FULL_BIAS, true, 0},
    {1, 77, 77, 2, 64, NO_BIAS, true, 0},
    {1, 256, 77, 2, 40, NO_BIAS, false, 0},
    {1, 1, 200, 2, 16, NO_BIAS, false, 0},
    {1, 200, 1, 2, 16, NO_BIAS, false, 0},
    {1, 97, 300, 1, 17, NO_BIAS, false, 0},
    {1, 300, 97, 1, 33, MASK, false, 0},
    {1, 60, 60, 2, 80, MASK, true, 0},
    {1, 50, 70, 1, 160, NO_BIAS, false, 0},
    {2, 100, 100, 1, 256, NO_BIAS, false, 0},
    {1, 35, 50, 1, 512, NO_BIAS, false, 0},
    {1, 20, 37, 1, 513, NO_BIAS, true, 0},
    {1, 9, 11, 1, 1100, NO_BIAS, false, 0},
    {2, 40, 50, 2, 24, NO_BIAS, false, 1},
    {2, 40, 50, 2, 24, NO_BIAS, false, 2},
    {2, 40, 50, 2, 24, NO_BIAS, true, 4},
    {1, 300, 530, 1, 24, NO_BIAS, true, 6},
    {3, 40, 530, 8, 8, NO_BIAS, false, 0}, /* several blocks to a split */
    {1, 420, 410, 13, 8, NO_BIAS, true, 0},
    {1, 127, 127, 1, 64, NO_BIAS, true, 0},
    {1, 61, 113, 2, 80, FULL_BIAS, false, 0},
    {2, 128, 77, 1, 160, HEAD_BIAS, false, 0},
    {1, 1, 127, 1, 256, NO_BIAS, false, 0},
    {1, 59, 64, 1, 512, MASK, true, 0},
    {1, 190, 530, 24, 40, NO_BIAS, true, 0}, /* several strips to a task */
    {1, 300, 530, 1, 24, NO_BIAS, true, 5},
    /* heads enough for tasks with panels of their own */
    {2, 70, 150, 5, 32, FULL_BIAS, false, 0},
    {4, 131, 131, 2, 24, NO_BIAS, true, 0},
    {8, 66, 300, 1, 40, MASK, false, 5},
    {8, 66, 66, 1, 24, NO_BIAS, false, 6}, /* and without q's gradient */
};

typedef struct Case {
    Shape s;
    AqArena *arena;
    AqGraph *body;
    uint64_t seed;
    double size; /* of q's elements; 0: 1 */
    bool broken; /* a NaN in q and one in k of the last head */
    const double *data[7];
    int n;
} Case;

static Case case_new(const Shape *s, uint64_t seed)
{
    Case c = {
        .s = *s, .arena = aq_arena_new(), .body = aq_graph_new(), .seed = seed};
    assert_non_null(c.arena);
    assert_non_null(c.body);
    return c;
}

static void case_free(Case *c)
{
    aq_graph_free(c->body);
    aq_arena_free(c->arena);
}

static AqId add_arg(Case *c, AqType type, const double *data)
{
    AqAttr index = aq_int(AQ_KEY_INDEX, c->n);
    c->data[c->n++] = data;
    return aq_build(c->body, AQ_OP_arg, &type, NULL, 0, &index, 1);
}

static double *normal(Case *c, AqType type)
{
    int64_t count = aq_elements(&type);
    double *data = AQ_NEW_ARRAY(c->arena, double, count);
    for (int64_t i = 0; i < count; i++)
        data[i] = aq_test_normal(&c->seed);
    return data;
}

static AqId random_arg(Case *c, AqType type)
{
    return add_arg(c, type, normal(c, type));
}

/* Hides a third of the keys of every query, and all of every seventh. */
static void hide_some(Case *c, AqType type, double *bias)
{
    for (int64_t i = 0; i < aq_elements(&type); i++) {
        int64_t query = i / type.dim[3] % type.dim[2];
        if (query % 7 == 3 || aq_test_below(&c->seed, 3) == 0)
            bias[i] = -INFINITY;
    }
}

static AqId bias_arg(Case *c)
{
    const Shape *s = &c->s;
    bool full = s->bias == FULL_BIAS || s->bias == MASK;
    AqType type =
        F32(full ? s->batch : 1, full || s->bias == HEAD_BIAS ? s->heads : 1,
            s->queries, s->keys);
    double *data = normal(c, type);
    if (s->bias == MASK)
        hide_some(c, type, data);
    return add_arg(c, type, data);
}

static AqType queries_type(const Shape *s)
{
    return F32(s->batch, s->queries, s->heads, s->depth);
}

static AqType keys_type(const Shape *s)
{
    return F32(s->batch, s->keys, s->heads, s->depth);
}

static int64_t row_count(const Shape *s)
{
    return s->batch * s->queries * s->heads;
}

static void give(Case *c, AqId node, int results)
{
    static const char *const names[] = {"a", "b", "c"};
    unsigned wanted = c->s.results ? c->s.results : 7;
    for (int i = 0; i < results; i++) /* the last one first */
        if (wanted >> (results - 1 - i) & 1)
            aq_graph_output(c->body, names[i],
                            aq_result_node(c->body, node, results - 1 - i),
                            false);
    if (c->body->error.status)
        fail_msg("%s", c->body->error.text);
}

static double tolerance(const Case *c, double bound)
{
    const Shape *s = &c->s;
    int64_t terms = AQ_MAX(AQ_MAX(s->keys, s->queries), s->depth);
    return bound * AQ_MAX(c->size, 1) * sqrt((double)AQ_MAX(terms, 64) / 64);
}

static void run(Case *c, const char *what, double bound)
{
    const Shape *s = &c->s;
    AqKernelCase test = {
        .body = c->body,
        .kind = "attend",
        .data = c->data,
        .tolerance = tolerance(c, bound),
        .name = aq_arena_printf(
            c->arena, "%s %lldx%lld keys, %lld heads of %lld, bias %d%s", what,
            (long long)s->queries, (long long)s->keys, (long long)s->heads,
            (long long)s->depth, s->bias, s->causal ? ", causal" : "")};
    if (c->body->n_outputs > 0)
        aq_test_run_kernel(&test);
}

static double usual_scale(const Shape *s)
{
    return 1 / sqrt((double)s->depth);
}

/* NaN in the last query, and in the last key of the last sample. */
static void break_some(Case *c, double *q, double *k)
{
    const Shape *s = &c->s;
    q[row_count(s) * s->depth - 1] = NAN;
    k[s->batch * s->keys * s->heads * s->depth - 1] = NAN;
}

/* q, k, v [, bias] */
static AqId build_forward(Case *c, AqId *in)
{
    const Shape *s = &c->s;
    int n = 0;
    double *q = normal(c, queries_type(s)), *k = normal(c, keys_type(s));
    for (int64_t i = 0; c->size != 0 && i < row_count(s) * s->depth; i++)
        q[i] *= c->size;
    if (c->broken)
        break_some(c, q, k);
    in[n++] = add_arg(c, queries_type(s), q);
    in[n++] = add_arg(c, keys_type(s), k);
    in[n++] = random_arg(c, keys_type(s));
    if (s->bias)
        in[n++] = bias_arg(c);
    AqAttr attrs[] = {aq_real(AQ_KEY_SCALE, usual_scale(s)),
                      aq_int(AQ_KEY_CAUSAL, s->causal)};
    return aq_build(c->body, AQ_OP_attention, NULL, in, n, attrs, 2);
}

static void check_forward(const Shape *s, uint64_t seed, double size,
                          bool broken)
{
    Case c = case_new(s, seed);
    c.size = size;
    c.broken = broken;
    AqId in[4];
    give(&c, build_forward(&c, in), 2);
    run(&c, "forward", 4e-6);
    case_free(&c);
}

static void test_forward(void **state)
{
    (void)state;
    for (int i = 0; i < AQ_COUNT(shapes); i++)
        check_forward(&shapes[i], (uint64_t)i + 1, 0, false);
}

/* out and lse as the interpreter has them */
static void forward_values(const Case *forward, const AqKernelCase *test,
                           AqValue *values)
{
    AqId kernel;
    AqError error = {0};
    AqBinding bindings[4];
    AqGraph *g = aq_test_kernel_graph(test, &kernel);
    for (int i = 0; i < forward->n; i++)
        bindings[i] = (AqBinding){aq_arena_printf(forward->arena, "a%d", i),
                                  forward->data[i]};
    if (aq_interpret(g, bindings, forward->n, values, forward->arena, &error))
        fail_msg("%s", error.text);
    aq_graph_free(g);
}

static void check_gradient(const Shape *s, uint64_t seed, bool broken)
{
    Shape whole = *s;
    whole.results = 0;
    Case forward = case_new(&whole, seed), c = case_new(s, seed);
    forward.broken = broken;
    AqId in[7];
    give(&forward, build_forward(&forward, in), 2);
    AqKernelCase test = {
        .body = forward.body, .kind = "attend", .name = "forward"};
    AqValue values[2]; /* lse, out */
    forward_values(&forward, &test, values);
    in[0] = add_arg(&c, queries_type(s), forward.data[0]);
    in[1] = add_arg(&c, keys_type(s), forward.data[1]);
    in[2] = add_arg(&c, keys_type(s), forward.data[2]);
    in[3] = add_arg(&c, values[1].type, values[1].data);
    in[4] = add_arg(&c, values[0].type, values[0].data);
    in[5] = random_arg(&c, queries_type(s));
    if (s->bias)
        in[6] = add_arg(&c, aq_node(forward.body, 3)->type, forward.data[3]);
    AqAttr attrs[] = {aq_real(AQ_KEY_SCALE, usual_scale(s)),
                      aq_int(AQ_KEY_CAUSAL, s->causal)};
    give(&c,
         aq_build(c.body, AQ_OP_attention_gradient, NULL, in, s->bias ? 7 : 6,
                  attrs, 2),
         3);
    run(&c, "gradient", 1e-5);
    case_free(&c);
    case_free(&forward);
}

static void test_gradient(void **state)
{
    (void)state;
    for (int i = 0; i < AQ_COUNT(shapes); i++)
        check_gradient(&shapes[i], (uint64_t)i + 1, false);
}

/* Scores of hundreds: no overflow, and one key takes all. */
static void test_large_scores(void **state)
{
    (void)state;
    Shape s = {2, 40, 70, 2, 16, NO_BIAS, false, 1};
    check_forward(&s, 5, 400, false);
}

/* NaN appears where the interpreter has it, and nowhere else. */
static void test_nan(void **state)
{
    (void)state;
    Shape s = {2, 40, 150, 2, 16, NO_BIAS, false, 0};
    check_forward(&s, 6, 0, true);
    check_gradient(&s, 7, true);
}

static void test_random(void **state)
{
    (void)state;
    uint64_t seed = 8;
    for (int i = 0; i < 12; i++) {
        Shape s = {.batch = 1 + aq_test_below(&seed, 3),
                   .queries = 1 + aq_test_below(&seed, 220),
                   .keys = 1 + aq_test_below(&seed, 220),
                   .heads = 1 + aq_test_below(&seed, 4),
                   .depth = 1 + aq_test_below(&seed, 90),
                   .bias = (Bias)aq_test_below(&seed, 5),
                   .causal = aq_test_below(&seed, 2)};
        check_forward(&s, seed, 0, false);
        check_gradient(&s, seed, false);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_forward),      cmocka_unit_test(test_gradient),
        cmocka_unit_test(test_large_scores), cmocka_unit_test(test_nan),
        cmocka_unit_test(test_random),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
