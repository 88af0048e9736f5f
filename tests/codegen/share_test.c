/* Leaves are shared: kernels compile as many distinct pieces of code as their
 * prologues and epilogues differ, not as many as there are kernels. */
#include "codegen/codegen.h"
#include "tests/support/bench.h"
#include "tests/support/models.h"

#include <setjmp.h>
#include <stdlib.h>

#include <cmocka.h>

/* (exp or neg of (rows, k)) x (k, n) + (rows, n) */
typedef struct Product {
    AqOp prologue;
    int64_t rows, k, n;
    bool epilogue;
} Product;

static AqId input(AqGraph *g, const char *what, int number, AqType type)
{
    char name[32];
    snprintf(name, sizeof name, "%s%d", what, number);
    AqAttr attr = aq_text(AQ_KEY_NAME, name);
    return aq_build(g, AQ_OP_input, &type, NULL, 0, &attr, 1);
}

static void add_product(AqGraph *g, const Product *p, int number)
{
    char name[32];
    AqId x = input(g, "x", number, F32(p->rows, p->k));
    AqId w = input(g, "w", number, F32(p->k, p->n));
    AqId y = aq_matmul_node(g, aq_unary(g, p->prologue, x), w, false, false);
    if (p->epilogue)
        y = aq_binary(g, AQ_OP_add, y,
                      input(g, "r", number, F32(p->rows, p->n)));
    snprintf(name, sizeof name, "y%d", number);
    aq_graph_output(g, name, y, false);
}

/* Distinct pieces of code of these products. */
static int units(const Product *products, int count)
{
    AqError error = {0};
    AqGraph *g = aq_graph_new();
    for (int i = 0; i < count; i++)
        add_product(g, &products[i], i);
    AqGraph *k = aq_test_kernels(g, 3);
    AqTarget target = aq_test_target(3);
    AqId kernels[8];
    int n = 0;
    for (AqId id = 0; id < k->count; id++)
        if (aq_node(k, id)->op == AQ_OP_kernel)
            kernels[n++] = id;
    assert_int_equal(n, count);
    AqCompileOptions options = {.no_cache = true};
    AqCode *code = aq_compile(k, kernels, n, &target, &options, &error);
    if (!code)
        fail_msg("%s", error.text);
    int distinct = aq_code_statistics(code)->units;
    aq_code_free(code);
    aq_graph_free(k);
    aq_graph_free(g);
    return distinct;
}

static const Product plain = {AQ_OP_exp, 64, 96, 64, false};
static const Product summed = {AQ_OP_exp, 64, 96, 64, true};
static const Product wide = {AQ_OP_exp, 64, 96, 128, false};
static const Product other = {AQ_OP_neg, 64, 96, 64, true};

static void test_prologue_is_shared(void **state)
{
    (void)state;
    int alone = units(&plain, 1);
    assert_int_equal(units((Product[]){plain, plain}, 2), alone);
    /* what comes after the product, and its width, do not matter */
    assert_int_equal(units((Product[]){plain, summed}, 2), alone + 1);
    assert_int_equal(units((Product[]){plain, wide}, 2), alone);
}

static void test_epilogue_is_shared(void **state)
{
    (void)state;
    int alone = units(&summed, 1);
    /* what comes before it does not matter; that is code of its own */
    assert_int_equal(units((Product[]){summed, other}, 2), alone + 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_prologue_is_shared),
        cmocka_unit_test(test_epilogue_is_shared),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
