/* Kernels that verify and that no code can be made for: a sentence each. Fusion
 * makes none of these; graphs written by hand may. */
#include "codegen/codegen.h"

#include <dlfcn.h>
#include <setjmp.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

typedef struct Case {
    const char *kernel; /* what stands after "kernel": inputs and attributes */
    const char *sentence;
} Case;

#define A "    %0 = arg {index=0} : f32[8,64]\n"
#define W "    %1 = arg {index=1} : f32[64,32]\n"
#define QKV                                                                    \
    "    %0 = arg {index=0} : f32[1,2,16,8]\n"                                 \
    "    %1 = arg {index=1} : f32[1,2,16,8]\n"                                 \
    "    %2 = arg {index=2} : f32[1,2,16,8]\n"
#define ATTEND "%3, %4, %5 {kind=\"attend\", body={\n"
#define CONTRACT "%0, %1 {kind=\"contract\", body={\n" A W

static const Case cases[] = {
    {"%0 {kind=\"map\", body={\n" A
     "    %1 = reduce_sum %0 {axes=[0]} : f32[64]\n"
     "    %2 = reduce_sum %0 {axes=[1]} : f32[8]\n"
     "    output a = %1\n    output b = %2\n  }}",
     "map kernel %6: its reductions differ in shape or axes"},
    {"%0 {kind=\"scatter\", body={\n" A "    %1 = exp %0 : f32[8,64]\n"
     "    output y = %1\n  }}",
     "scatter kernel %6: its one output is no scatter_add"},
    {"%0 {kind=\"contract\", body={\n" A "    %1 = exp %0 : f32[8,64]\n"
     "    output y = %1\n  }}",
     "contract kernel %6 has no contraction"},
    {CONTRACT "    %2 = matmul %0, %1 : f32[8,32]\n"
              "    %3 = exp %0 : f32[8,64]\n"
              "    %4 = matmul %3, %1 : f32[8,32]\n"
              "    %5 = add %2, %4 : f32[8,32]\n"
              "    output y = %5\n  }}",
     "contract kernel %6 has two contractions"},
    {"%0, %1 {kind=\"contract\", algorithm=\"fft\", body={\n" A W
     "    %2 = matmul %0, %1 : f32[8,32]\n    output y = %2\n  }}",
     "contract kernel %6: no algorithm \"fft\""},
    {"%0, %1 {kind=\"contract\", algorithm=\"blas\", body={\n" A W
     "    %2 = exp %0 : f32[8,64]\n"
     "    %3 = matmul %2, %1 : f32[8,32]\n    output y = %3\n  }}",
     "contract kernel %6: operands do not suit \"blas\""},
    {CONTRACT "    %2 = matmul %0, %1 : f32[8,32]\n"
              "    %3 = reduce_max %2 {axes=[0]} : f32[32]\n"
              "    output y = %3\n  }}",
     "contract kernel %6: these reductions cannot be joined to it"},
    {"%3 {kind=\"attend\", body={\n    %0 = arg {index=0} : f32[1,2,16,8]\n"
     "    %1 = exp %0 : f32[1,2,16,8]\n    output y = %1\n  }}",
     "kernel %6 of kind attend holds no attention"},
    {ATTEND QKV "    %3 = exp %0 : f32[1,2,16,8]\n"
                "    %4 = attention %3, %1, %2 {scale=0.5} : results\n"
                "    %5 = result %4 {index=0} : f32[1,2,16,8]\n"
                "    output y = %5\n  }}",
     "kernel %6 of kind attend computes its inputs itself"},
    {ATTEND QKV "    %3 = attention %0, %1, %2 {scale=0.5} : results\n"
                "    %4 = result %3 {index=0} : f32[1,2,16,8]\n"
                "    %5 = exp %4 : f32[1,2,16,8]\n    output y = %5\n  }}",
     "kernel %6 of kind attend computes something else as well"},
    {ATTEND QKV "    %3 = attention %0, %1, %2 {scale=0.5} : results\n"
                "    %4 = result %3 {index=0} : f32[1,2,16,8]\n"
                "    output y = %4\n    output z = %4\n  }}",
     "kernel %6 of kind attend gives one result twice"},
};

static AqGraph *graph_of(const Case *c)
{
    AqText text = {0};
    AqError error = {0};
    aq_text_add(&text, "graph {\n"
                       "  %0 = input {name=\"x\"} : f32[8,64]\n"
                       "  %1 = input {name=\"w\"} : f32[64,32]\n"
                       "  %2 = input {name=\"y\"} : f32[8,32]\n"
                       "  %3 = input {name=\"q\"} : f32[1,2,16,8]\n"
                       "  %4 = input {name=\"k\"} : f32[1,2,16,8]\n"
                       "  %5 = input {name=\"v\"} : f32[1,2,16,8]\n"
                       "  %6 = kernel ");
    aq_text_printf(&text, "%s : results\n}\n", c->kernel);
    AqGraph *g = aq_graph_parse(text.data, "refused", &error);
    if (!g)
        fail_msg("%s\n%s", error.text, text.data);
    aq_text_free(&text);
    return g;
}

static void refuse(const AqGraph *g, AqId kernel, const char *sentence)
{
    AqTarget target;
    AqError error = {0};
    AqCompileOptions options = {.threads = 1, .no_cache = true};
    assert_int_equal(aq_target_host(3, &target, &error), AQ_OK);
    assert_null(aq_compile(g, &kernel, 1, &target, &options, &error));
    if (!strstr(error.text, sentence))
        fail_msg("expected '%s' in: %s", sentence, error.text);
}

static void test_kernels(void **state)
{
    (void)state;
    for (int i = 0; i < AQ_COUNT(cases); i++) {
        AqGraph *g = graph_of(&cases[i]);
        refuse(g, 6, cases[i].sentence);
        aq_graph_free(g);
    }
}

static void test_what_is_no_kernel(void **state)
{
    (void)state;
    AqGraph *g = graph_of(&cases[0]);
    refuse(g, 2, "node %2 is no kernel");
    refuse(g, -1, "node %-1 is no kernel");
    refuse(g, g->count, "is no kernel");
    aq_graph_free(g);
}

/* The processor that OpenBLAS computes for is settled when it is loaded: here
 * by a program that uses it as well. */
static void test_blas_for_another_processor(void **state)
{
    (void)state;
    const Case product = {
        "%0, %1 {kind=\"contract\", algorithm=\"blas\", body={\n" A W
        "    %2 = matmul %0, %1 : f32[8,32]\n    output y = %2\n  }}",
        NULL};
    setenv("OPENBLAS_CORETYPE", "Nehalem", 1);
    setenv("OPENBLAS_NUM_THREADS", "1", 1);
    assert_non_null(dlopen("libopenblas.so.0", RTLD_NOW | RTLD_LOCAL));
    AqGraph *g = graph_of(&product);
    refuse(g, 6,
           "algorithm blas: OpenBLAS was loaded before us, and for Nehalem "
           "rather than Haswell: set OPENBLAS_CORETYPE=Haswell");
    aq_graph_free(g);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_kernels),
        cmocka_unit_test(test_what_is_no_kernel),
        cmocka_unit_test(test_blas_for_another_processor),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
