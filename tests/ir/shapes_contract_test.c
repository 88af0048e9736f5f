/* Shape rules of products, convolutions, attention, results and kernels. */
#include "ir/ir.h"

#include <setjmp.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "tests/support/bench.h"
#include "tests/support/shape_cases.h"

/* ---- contractions ---- */

static void test_matmul(void **state)
{
    (void)state;
    static const AqShapeCase good[] = {
        {"matmul %0, %0 {tb=1} : f32[8,8]",
         "matmul %0, %0 {ta=0, tb=1} : f32[8,8]"},
        {"matmul %0, %0 {ta=1} : f32[64,64]",
         "matmul %0, %0 {ta=1, tb=0} : f32[64,64]"},
    };
    static const AqShapeCase bad[] = {
        {"matmul %0, %1 : f32[8,10]",
         "matmul: inner sizes 64 and 32 differ (f32[8,64] x f32[32,10])"},
        {"matmul %0, %1 {ta=1, tb=1} : f32[8,10]",
         "matmul: inner sizes 8 and 10 differ (f32[8,64] transposed x "
         "f32[32,10] transposed)"},
        {"matmul %0, %4 : f32[8]",
         "matmul: both sides need the same rank, 2 or more (f32[8,64] x "
         "f32[])"},
        {"matmul %4, %4 : f32[]",
         "matmul: both sides need the same rank, 2 or more (f32[] x f32[])"},
        {"matmul %16, %17 : f32[2,3,6]",
         "matmul: batch sizes 2 and 5 differ (f32[2,3,4] x f32[5,4,6])"},
        {"matmul %13, %1 : f32[8,10]",
         "matmul: the left side must be f32, not i32[8,64]: cast it"},
        {"matmul %0, %13 {tb=1} : f32[8,8]",
         "matmul: the right side must be f32, not i32[8,64]: cast it"},
        {"matmul %0, %0 {tb=2} : f32[8,8]",
         "matmul: tb is 2, but must be 0 or 1"},
    };
    ACCEPTED(good);
    REFUSED(bad);
}

static void test_conv2d(void **state)
{
    (void)state;
    static const AqShapeCase good[] = {
        {"conv2d %2, %11 : f32[2,4,3,7]",
         "conv2d %2, %11 {stride=[1,1], pad=[0,0,0,0], dilation=[1,1], "
         "groups=1} : f32[2,4,3,7]"},
        {"conv2d %2, %11 {stride=[2,3], pad=[1,1,0,4], dilation=[2,1]} : "
         "f32[2,2,3,7]",
         "conv2d %2, %11 {stride=[2,3], pad=[1,1,0,4], dilation=[2,1], "
         "groups=1} : f32[2,2,3,7]"},
        {"conv2d_input_gradient %12, %11 : f32[2,6,5,4]",
         "conv2d_input_gradient %12, %11 {stride=[1,1], pad=[0,0,0,0], "
         "dilation=[1,1], groups=1} : f32[2,6,5,4]"},
        {"conv2d_weight_gradient %2, %12 : f32[3,3,4,7]",
         "conv2d_weight_gradient %2, %12 {stride=[1,1], pad=[0,0,0,0], "
         "dilation=[1,1], groups=1} : f32[3,3,4,7]"},
    };
    ACCEPTED(good);
}

static void test_wrong_conv2d(void **state)
{
    (void)state;
    static const AqShapeCase bad[] = {
        {"conv2d %0, %11 : f32[]",
         "conv2d: the image must be f32[N,H,W,C], not f32[8,64]"},
        {"conv2d %18, %11 : f32[]",
         "conv2d: the image must be f32[N,H,W,C], not i32[2,6,5,4]"},
        {"conv2d %2, %1 : f32[]",
         "conv2d: the weight must be f32[KH,KW,C,O], not f32[32,10]"},
        {"conv2d %2, %11 {groups=2} : f32[]",
         "conv2d: 2 groups do not divide the channels 4 and 7 (f32[2,6,5,4] by "
         "f32[3,3,4,7])"},
        {"conv2d %2, %11 {groups=0} : f32[]",
         "conv2d: groups is 0, but must be at least 1"},
        {"conv2d %2, %7 : f32[]",
         "conv2d: the image has 4 channels in each of 1 group, but the weight "
         "2 (f32[2,6,5,4] by f32[2,3,2,4])"},
        {"conv2d %2, %8 {groups=4} : f32[]",
         "conv2d: the image has 1 channels in each of 4 groups, but the weight "
         "2 (f32[2,6,5,4] by f32[2,5,2,4])"},
        {"conv2d %2, %11 {dilation=[3,1]} : f32[]",
         "conv2d: the kernel reaches over 7 rows, but the padded image has "
         "only 6"},
        {"conv2d %2, %11 {dilation=[1,9223372036854775807]} : f32[]",
         "conv2d: the kernel reaches over 9223372036854775807 columns, but the "
         "padded image has only 5"},
        {"conv2d %2, %11 {pad=[0,9223372036854775807,0,0]} : f32[]",
         "conv2d: the padded rows are too many to count"},
        {"conv2d %2, %11 {pad=[0,0,0,9223372036854775807]} : f32[]",
         "conv2d: the padded columns are too many to count"},
        {"conv2d %2, %11 {pad=[0,0]} : f32[]",
         "conv2d: pad has 2 numbers, but 4 are needed"},
        {"conv2d %2, %11 {pad=[0,0,-1,0]} : f32[]",
         "conv2d: pad[2] is -1, but must be at least 0"},
        {"conv2d %2, %11 {stride=[0,1]} : f32[]",
         "conv2d: stride[0] is 0, but must be at least 1"},
        {"conv2d %2, %11 {dilation=[1,0]} : f32[]",
         "conv2d: dilation[1] is 0, but must be at least 1"},
    };
    REFUSED(bad);
}

static void test_wrong_conv2d_gradients(void **state)
{
    (void)state;
    static const AqShapeCase bad[] = {
        {"conv2d_input_gradient %12, %11 {stride=[2,2]} : f32[2,6,5,4]",
         "conv2d_input_gradient: the convolution of f32[2,6,5,4] by "
         "f32[3,3,4,7] gives f32[2,2,2,7], but dy is f32[2,4,3,7]"},
        {"conv2d_weight_gradient %2, %12 : f32[1,1,4,7]",
         "conv2d_weight_gradient: the convolution of f32[2,6,5,4] by "
         "f32[1,1,4,7] gives f32[2,6,5,7], but dy is f32[2,4,3,7]"},
        {"conv2d_weight_gradient %2, %12 : f32[3,3,28]",
         "conv2d_weight_gradient: the weight must be f32[KH,KW,C,O], not "
         "f32[3,3,28]"},
    };
    REFUSED(bad);
}

/* ---- attention ---- */

static void test_attention(void **state)
{
    (void)state;
#define GRADIENT "attention_gradient %7, %8, %8, "
    static const AqShapeCase good[] = {
        {"attention %7, %8, %8 {scale=0.5} : results",
         "attention %7, %8, %8 {scale=0.5, causal=0} : results"},
        {GRADIENT "%7, %9, %7 {scale=0.5, causal=1} : results",
         GRADIENT "%7, %9, %7 {scale=0.5, causal=1} : results"},
    };
    static const AqShapeCase bad[] = {
        {"attention %7, %8, %8 : results",
         "attention: the attribute scale is missing"},
        {"attention %7, %8, %8 {scale=nan} : results",
         "attention: the scale is not finite"},
        {"attention %7, %8, %8 {scale=1, causal=2} : results",
         "attention: causal is 2, but must be 0 or 1"},
        {"attention %0, %8, %8 {scale=1} : results",
         "attention: q must be f32[B,T,heads,d], not f32[8,64]"},
        {"attention %7, %0, %8 {scale=1} : results",
         "attention: k must be f32[2,3,2,4], not f32[8,64]"},
        {"attention %7, %2, %8 {scale=1} : results",
         "attention: k must be f32[2,6,2,4], not f32[2,6,5,4]"},
        {"attention %7, %8, %7 {scale=1} : results",
         "attention: v must be f32[2,5,2,4], not f32[2,3,2,4]"},
        {"attention %7, %8, %8, %7 {scale=1} : results",
         "attention: the bias must be f32[2 or 1,2 or 1,3,5], not "
         "f32[2,3,2,4]"},
        {"attention %7, %8, %8, %7, %7 {scale=1} : results",
         "attention: it takes at most 4 inputs, not 5"},
        {GRADIENT "%8, %9, %7 {scale=1} : results",
         "attention_gradient: out must be f32[2,3,2,4], not f32[2,5,2,4]"},
        {GRADIENT "%7, %7, %7 {scale=1} : results",
         "attention_gradient: lse must be f32[2,2,3], not f32[2,3,2,4]"},
        {GRADIENT "%7, %9, %8 {scale=1} : results",
         "attention_gradient: dout must be f32[2,3,2,4], not f32[2,5,2,4]"},
        {GRADIENT "%7, %9, %7, %7, %7 {scale=1} : results",
         "attention_gradient: it takes at most 7 inputs, not 8"},
    };
    ACCEPTED(good);
    REFUSED(bad);
}

static AqId input(AqGraph *g, const char *name, AqType type)
{
    AqAttr attr = aq_text(AQ_KEY_NAME, name);
    return aq_build(g, AQ_OP_input, &type, NULL, 0, &attr, 1);
}

/* The bias may be shared by samples, by heads, or by both. */
static void test_attention_results(void **state)
{
    (void)state;
    AqGraph *g = aq_graph_new();
    AqType q = F32(2, 3, 4, 8), k = F32(2, 5, 4, 8), lse = F32(2, 4, 3);
    AqType out = q;
    AqId in[7] = {input(g, "q", q), input(g, "k", k), input(g, "v", k)};
    AqAttr scale = aq_real(AQ_KEY_SCALE, 0.5);
    for (int i = 0; i < 4; i++) {
        char name[16];
        snprintf(name, sizeof name, "b%d", i & 3);
        in[3] = input(g, name, F32(i & 1 ? 2 : 1, i & 2 ? 4 : 1, 3, 5));
        AqId id = aq_build(g, AQ_OP_attention, NULL, in, 4, &scale, 1);
        AqType types[] = {aq_result_type(g, id, 0), aq_result_type(g, id, 1)};
        assert_int_equal(aq_result_count(g, id), 2);
        assert_true(aq_same_type(&types[0], &out));
        assert_true(aq_same_type(&types[1], &lse));
    }
    in[6] = in[3];
    in[3] = in[5] = in[0];
    in[4] = input(g, "lse", lse);
    AqId id = aq_build(g, AQ_OP_attention_gradient, NULL, in, 7, &scale, 1);
    const AqType *expected[] = {&q, &k, &k};
    assert_int_equal(aq_result_count(g, id), 3);
    for (int i = 0; i < 3; i++) {
        AqType type = aq_result_type(g, id, i);
        assert_true(aq_same_type(&type, expected[i]));
    }
    AqType own = aq_result_type(g, in[4], 0);
    assert_true(aq_same_type(&own, &lse));
    assert_int_equal(aq_result_count(g, in[4]), 1);
    assert_string_equal(g->error.text, "");
    aq_graph_free(g);
}

/* ---- structure ---- */

static void test_results(void **state)
{
    (void)state;
    static const AqShapeCase bad[] = {
        {"result %0 {index=0} : f32[8,64]",
         "result: input has one value and no results"},
        {"result %10 : f32[64]", "result: the attribute index is missing"},
        {"result %10 {index=2} : f32[64]",
         "result: moments has 2 results, so no result 2"},
        {"result %10 {index=-1} : f32[64]",
         "result: index is -1, but must be at least 0"},
    };
    REFUSED(bad);
}

static void test_kernels(void **state)
{
    (void)state;
    static const AqShapeCase bad[] = {
        {"kernel %0 {body={\n%0 = arg {index=0} : f32[8,64]\noutput y = %0\n"
         "}} : results",
         "kernel: the attribute kind is missing"},
        {"kernel %0 {kind=\"blas\", body={\n%0 = arg {index=0} : f32[8,64]\n"
         "output y = %0\n}} : results",
         "kernel: kind is \"blas\", but must be map, contract, attend or "
         "scatter"},
        {"kernel %0 {kind=\"map\"} : results",
         "kernel: the attribute body is missing"},
        {"kernel %0 {kind=\"map\", body={\n}} : results",
         "kernel: its body has 0 outputs, but must have 1 ... 16"},
        {"kernel %0 {kind=\"map\", body={\n%0 = arg {index=1} : f32[8,64]\n"
         "output y = %0\n}} : results",
         "kernel: its body reads arg 1, but it has 1 inputs"},
        {"kernel %0 {kind=\"map\", body={\n%0 = arg {index=0} : f32[8]\n"
         "output y = %0\n}} : results",
         "kernel: arg 0 of its body is f32[8], but input 0 f32[8,64]"},
        {"kernel %0 {kind=\"map\", body={\n%0 = state {name=\"s\"} : f32[8]\n"
         "output y = %0\n}} : results",
         "kernel: its body holds the source state \"s\", but may read its args "
         "alone"},
    };
    REFUSED(bad);
}

static void test_a_broken_body_is_named(void **state)
{
    (void)state;
    AqGraph *g = aq_graph_new(), *body = aq_graph_body(g);
    aq_unary(body, AQ_OP_exp, 0);
    AqAttr attrs[] = {aq_text(AQ_KEY_KIND, "map"), aq_body(body)};
    aq_build(g, AQ_OP_kernel, NULL, NULL, 0, attrs, 2);
    assert_string_equal(g->error.text,
                        "kernel: its body has an error: exp: input 0 is node "
                        "0, which this graph does not have");
    aq_graph_free(g);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_matmul),
        cmocka_unit_test(test_conv2d),
        cmocka_unit_test(test_wrong_conv2d),
        cmocka_unit_test(test_wrong_conv2d_gradients),
        cmocka_unit_test(test_attention),
        cmocka_unit_test(test_attention_results),
        cmocka_unit_test(test_results),
        cmocka_unit_test(test_kernels),
        cmocka_unit_test(test_a_broken_body_is_named),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
