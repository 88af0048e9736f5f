/* The vector functions against double precision.  Quick: floats sampled all
 * over the line.  Slow (AQ_ALL=exp, as vmath_all_exp_test sets it): one
 * function at every float, some minutes of one core; AQ_PART=2/8 beside it: the
 * second eighth of them. */
#include "tests/support/bench.h"
#include "tests/support/run_kernel.h"

#include <math.h>
#include <setjmp.h>
#include <stdlib.h>
#include <string.h>
#include <xmmintrin.h>

#include <cmocka.h>

enum { BATCH = 1 << 16 };

typedef struct Function {
    AqOp op;
    double (*exact)(double);
    double ulp;  /* allowed */
    double most; /* |x| up to which it is promised; 0: any */
} Function;

static double exact_sigmoid(double x)
{
    return 1 / (1 + exp(-x));
}

static double exact_rsqrt(double x)
{
    return 1 / sqrt(x);
}

/* Promised in codegen/vmath.c. */
static const Function functions[] = {
    {AQ_OP_exp, exp, 1.02, 0},
    {AQ_OP_log, log, 0.94, 0},
    {AQ_OP_sin, sin, 1.55, 0x1p48},
    {AQ_OP_cos, cos, 1.55, 0x1p48},
    {AQ_OP_tanh, tanh, 1.34, 0},
    {AQ_OP_erf, erf, 1.16, 0},
    {AQ_OP_rsqrt, exact_rsqrt, 1.50, 0},
    {AQ_OP_sigmoid, exact_sigmoid, 2.49, 0},
};

static uint32_t bits_of(float x)
{
    uint32_t bits;
    memcpy(&bits, &x, 4);
    return bits;
}

static float float_of(uint32_t bits)
{
    float x;
    memcpy(&x, &bits, 4);
    return x;
}

/* One unit in the last place of a float as large as x, a normal number: 2^-23
 * of the power of two below. */
static double place_of(double x)
{
    uint64_t bits;
    memcpy(&bits, &x, 8);
    bits = ((bits >> 52 & 0x7ff) - 23) << 52;
    memcpy(&x, &bits, 8);
    return x;
}

/* How far off, in units of the last place of the exact value. */
static double ulps(float ours, double exact)
{
    if ((float)exact == ours)
        return 0;
    if (isnan(exact) || isnan(ours))
        return isnan(exact) && isnan(ours) ? 0 : INFINITY;
    if (fabs(exact) < 0x1p-126) /* denormal: zero, or off by one's least */
        return fabs(ours) <= 0x1p-126 ? 0 : INFINITY;
    if (isinf(ours))
        return fabs(exact) >= 0x1.ffffffp127 ? 0 : INFINITY;
    return fabs(ours - exact) / place_of(exact);
}

typedef struct Bench {
    AqGraph *body, *g;
    AqCode *code;
    const AqStage *stage;
} Bench;

static Bench bench_new(AqOp op, int level)
{
    Bench b = {.body = aq_graph_new()};
    AqError error = {0};
    AqTarget target;
    AqType type = F32(BATCH);
    AqAttr index = aq_int(AQ_KEY_INDEX, 0);
    AqId x = aq_build(b.body, AQ_OP_arg, &type, NULL, 0, &index, 1);
    aq_graph_output(b.body, "y", aq_unary(b.body, op, x), false);
    AqKernelCase test = {.body = b.body, .kind = "map", .name = "vmath"};
    AqId kernel;
    b.g = aq_test_kernel_graph(&test, &kernel);
    assert_int_equal(aq_target_host(level, &target, &error), AQ_OK);
    AqCompileOptions options = {.threads = 1, .no_cache = true};
    b.code = aq_compile(b.g, &kernel, 1, &target, &options, &error);
    if (!b.code)
        fail_msg("%s", error.text);
    int n;
    b.stage = aq_code_stages(b.code, 0, &n);
    return b;
}

static void bench_free(Bench *b)
{
    aq_code_free(b->code);
    aq_graph_free(b->g);
    aq_graph_free(b->body);
}

static void evaluate(const Bench *b, float *x, float *y)
{
    void *buffers[] = {x, y};
    unsigned mode = _mm_getcsr();
    _mm_setcsr(mode | 0x8040);
    b->stage->run(b->stage->closure, buffers, 0, b->stage->tasks, NULL);
    _mm_setcsr(mode);
}

typedef struct Worst {
    double ulp;
    float at;
} Worst;

static void look_for_worse(const Function *f, const float *x, const float *y,
                           const double *exact, Worst *worst)
{
    for (int i = 0; i < BATCH; i++) {
        bool promised = f->most == 0 || !(fabs(x[i]) > f->most);
        bool tiny = x[i] != 0 && fabsf(x[i]) < 0x1p-126f; /* flushed */
        double off = promised && !tiny ? ulps(y[i], exact[i]) : 0;
        if (!promised && !isinf(x[i]) && !(fabsf(y[i]) <= 1))
            off = INFINITY;
        if (off > worst->ulp)
            *worst = (Worst){off, x[i]};
    }
}

static void make_exact(const Function *f, const float *x, double *exact)
{
    for (int i = 0; i < BATCH; i++)
        exact[i] = f->exact(x[i]);
}

static void check_worst(const Function *f, int level, const Worst *worst)
{
    print_message("%s, level %d: %.3f ulp at %a\n", aq_op_info[f->op].name,
                  level, worst->ulp, (double)worst->at);
    if (worst->ulp > f->ulp)
        fail_msg("%s, level %d: %.3f ulp at %a (bits %08x), promised %.2f",
                 aq_op_info[f->op].name, level, worst->ulp, (double)worst->at,
                 bits_of(worst->at), f->ulp);
}

/* The floats from bits `first` to before `end`. */
typedef struct Line {
    uint64_t first, end, step;
} Line;

static Line line_to_check(bool all)
{
    const uint64_t floats = (uint64_t)1 << 32;
    const char *text = all ? getenv("AQ_PART") : NULL;
    unsigned part = 1, of = 1;
    char rest;
    if (text && (sscanf(text, "%u/%u%c", &part, &of, &rest) != 2 || part < 1 ||
                 part > of || of > 1000))
        fail_msg("AQ_PART=%s: write one such as 2/8", text);
    /* a prime step meets all exponents with varied digits */
    return (Line){floats * (part - 1) / of, floats * part / of, all ? 1 : 4099};
}

/* Both levels beside each other: the exact values cost the most. */
static void check_function(const Function *f, Line line)
{
    static float x[BATCH], y[BATCH];
    static double exact[BATCH];
    Bench b[2];
    Worst worst[2] = {{0}};
    AqTarget target;
    int n = aq_target_host(4, &target, NULL) == AQ_OK ? 2 : 1;
    for (int i = 0; i < n; i++)
        b[i] = bench_new(f->op, 3 + i);
    for (uint64_t bits = line.first; bits < line.end;) {
        for (int i = 0; i < BATCH; i++, bits += line.step)
            x[i] = float_of((uint32_t)AQ_MIN(bits, line.end - 1));
        make_exact(f, x, exact);
        for (int i = 0; i < n; i++) {
            evaluate(&b[i], x, y);
            look_for_worse(f, x, y, exact, &worst[i]);
        }
    }
    for (int i = 0; i < n; i++) {
        check_worst(f, 3 + i, &worst[i]);
        bench_free(&b[i]);
    }
}

static void test_floats(void **state)
{
    (void)state;
    const char *all = getenv("AQ_ALL");
    int checked = 0;
    for (int i = 0; i < AQ_COUNT(functions); i++)
        if (!all || !strcmp(all, aq_op_info[functions[i].op].name)) {
            check_function(&functions[i], line_to_check(all != NULL));
            checked++;
        }
    if (!checked)
        fail_msg("AQ_ALL=%s: there is no such function here", all);
}

/* Zeros, ones, infinities, the ends of exp's range, multiples of pi / 2. */
static void test_special(void **state)
{
    (void)state;
    static float x[BATCH], y[BATCH];
    static double exact[BATCH];
    static const float special[] = {0.0f,
                                    -0.0f,
                                    1.0f,
                                    -1.0f,
                                    INFINITY,
                                    -INFINITY,
                                    NAN,
                                    88.72283f,
                                    88.72284f,
                                    -87.3365f,
                                    -103.98f,
                                    -104.1f,
                                    0x1p-126f,
                                    0x1.fffffep127f,
                                    -0x1.fffffep127f,
                                    0.625f,
                                    -0.625f,
                                    1.5707964f,
                                    3.1415927f,
                                    6.2831855f,
                                    100000.0f,
                                    -31415.926f,
                                    0x1.921fb6p20f,
                                    9.0f,
                                    -9.1f,
                                    3.9f,
                                    4.1f,
                                    0.99999994f};
    for (int i = 0; i < BATCH; i++)
        x[i] = special[i % AQ_COUNT(special)];
    for (int i = 0; i < AQ_COUNT(functions); i++) {
        Bench b = bench_new(functions[i].op, 3);
        Worst worst = {0};
        make_exact(&functions[i], x, exact);
        evaluate(&b, x, y);
        look_for_worse(&functions[i], x, y, exact, &worst);
        check_worst(&functions[i], 3, &worst);
        bench_free(&b);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_floats),
        cmocka_unit_test(test_special),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
