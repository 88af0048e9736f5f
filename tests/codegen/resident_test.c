/* What compiles takes no memory while nothing is compiled. */
#include "codegen/codegen.h"
#include "tests/support/bench.h"
#include "tests/support/models.h"

#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

/* Kilobytes of LLVM's code in resident memory; -1: it is no library here. */
static long resident_code(void)
{
    FILE *maps = fopen("/proc/self/smaps", "r");
    char line[4096], mode[8];
    unsigned long from, to;
    long kilobytes, sum = -1;
    bool code = false;
    assert_non_null(maps);
    while (fgets(line, sizeof line, maps)) {
        if (sscanf(line, "%lx-%lx %7s", &from, &to, mode) == 3)
            code = !strcmp(mode, "r-xp") && strstr(line, "libLLVM");
        else if (code && sscanf(line, "Rss: %ld kB", &kilobytes) == 1)
            sum = (sum < 0 ? 0 : sum) + kilobytes;
    }
    fclose(maps);
    return sum;
}

static void compile(double value)
{
    AqError error = {0};
    AqTarget target = aq_test_target(3);
    AqGraph *g = aq_graph_new();
    AqType type = F32(64);
    AqAttr name = aq_text(AQ_KEY_NAME, "x");
    AqId x = aq_build(g, AQ_OP_input, &type, NULL, 0, &name, 1);
    AqId y = aq_binary(g, AQ_OP_mul, aq_unary(g, AQ_OP_exp, x),
                       aq_const_node(g, &type, value));
    aq_graph_output(g, "y", y, false);
    AqGraph *k = aq_test_kernels(g, 3);
    AqCompileOptions options = {.no_cache = true};
    AqId kernel = k->outputs[0].node;
    while (aq_node(k, kernel)->op != AQ_OP_kernel)
        kernel = aq_node(k, kernel)->inputs[0];
    AqCode *code = aq_compile(k, &kernel, 1, &target, &options, &error);
    if (!code)
        fail_msg("%s", error.text);
    float in[64] = {0}, out[64];
    void *buffers[] = {in, out};
    int n;
    const AqStage *stage = aq_code_stages(code, 0, &n);
    stage->run(stage->closure, buffers, 0, stage->tasks, NULL);
    assert_true(out[0] == (float)value);
    aq_code_free(code);
    aq_graph_free(k);
    aq_graph_free(g);
}

static void test_code_leaves_memory(void **state)
{
    enum { MOST = 16 << 10 }; /* of the 50 MB that compiling uses */
    (void)state;
    if (resident_code() < 0)
        skip();
    compile(2);
    assert_true(resident_code() < MOST);
    compile(3); /* and is there again when it is called */
    assert_true(resident_code() < MOST);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_code_leaves_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
