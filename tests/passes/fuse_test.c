/* What fusion makes of the things models are built of: a residual block, its
 * gradient, an optimizer.  (Values are held in random_test.c, texts in
 * golden/.) */
#include "passes/passes.h"

#include <setjmp.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "frontend/dsl/dsl.h"
#include "tests/support/models.h"
#include "tests/support/random_graph.h"
#include "tests/support/traffic.h"

/* ---- graphs ---- */

/* x: (N,H,W,C), emb: (N,D) -> (N,H,W,C) */
static AqTensor residual_block(AqScope s, AqTensor x, AqTensor emb)
{
    int channels = aq_channels(x);
    AqTensor h = aq_silu(aq_group_norm(aq_sub(s, "norm1"), x, .groups = 8));
    h = aq_conv2d(aq_sub(s, "conv1"), h, channels, .kernel = 3);
    AqTensor t = aq_linear(aq_sub(s, "time_emb_proj"), aq_silu(emb), channels);
    h = aq_add(h, aq_over_space(t));
    h = aq_silu(aq_group_norm(aq_sub(s, "norm2"), h, .groups = 8));
    h = aq_conv2d(aq_sub(s, "conv2"), h, channels, .kernel = 3);
    return aq_add(x, h);
}

static AqGraph *block_graph(bool gradients)
{
    AqGraph *g = aq_graph_new();
    AqTensor x = aq_input(g, "x", AQ_SHAPE(4, 16, 16, 32));
    AqTensor emb = aq_input(g, "emb", AQ_SHAPE(4, 64));
    AqTensor y = residual_block(aq_root(g), x, emb);
    if (!gradients) {
        aq_output(y, "y");
        assert_null(aq_graph_error(g));
        return g;
    }
    AqTensor loss = aq_mean(aq_square(y));
    aq_output(loss, "loss");
    AqId wrt[64], found[64];
    int n = 0;
    for (AqId id = 0; id < g->count; id++)
        if (aq_node(g, id)->op == AQ_OP_param || id == x.id)
            wrt[n++] = id;
    assert_int_equal(aq_gradient_nodes(g, loss.id, wrt, n, found), AQ_OK);
    for (int i = 0; i < n; i++) {
        char name[16];
        snprintf(name, sizeof name, "d%d", i);
        aq_graph_output(g, name, found[i], false);
    }
    assert_null(aq_graph_error(g));
    return g;
}

/* ---- what is in a graph of kernels ---- */

static bool is_kernel(const AqGraph *g, AqId id, const char *kind)
{
    const AqNode *node = aq_node(g, id);
    return node->op == AQ_OP_kernel &&
           (!kind || !strcmp(aq_attr_text(node, AQ_KEY_KIND, ""), kind));
}

static int kernels_of(const AqGraph *g, const char *kind)
{
    int count = 0;
    for (AqId id = 0; id < g->count; id++)
        count += is_kernel(g, id, kind);
    return count;
}

static int ops_in(const AqGraph *body, AqOp op)
{
    int count = 0;
    for (AqId id = 0; id < body->count; id++)
        count += aq_node(body, id)->op == op;
    return count;
}

static int sums_beside_contractions(const AqGraph *g)
{
    int count = 0;
    for (AqId id = 0; id < g->count; id++) {
        if (!is_kernel(g, id, "contract"))
            continue;
        const AqGraph *body = aq_attr_body(aq_node(g, id));
        count += ops_in(body, AQ_OP_moments) + ops_in(body, AQ_OP_reduce_sum);
    }
    return count;
}

/* Kernels that write as many elements as `large` and contract nothing. */
static int sweeps(const AqGraph *g, int64_t large)
{
    int count = 0;
    for (AqId id = 0; id < g->count; id++) {
        bool writes = false;
        for (int i = 0; is_kernel(g, id, "map") && i < aq_result_count(g, id);
             i++) {
            AqType type = aq_result_type(g, id, i);
            writes = writes || aq_elements(&type) >= large;
        }
        count += writes;
    }
    return count;
}

enum { LARGE = 4 * 16 * 16 * 32 };

/* Two convolutions with what stands before and after them; the first norm is a
 * sweep for its moments. */
static void test_a_residual_block(void **state)
{
    (void)state;
    AqGraph *g = block_graph(false), *kernels = aq_test_kernels(g, 3);
    assert_int_equal(kernels_of(kernels, "contract"), 3);
    assert_int_equal(sweeps(kernels, LARGE), 0);
    int adds = 0, convolutions = 0;
    for (AqId id = 0; id < kernels->count; id++) {
        if (!is_kernel(kernels, id, "contract"))
            continue;
        const AqGraph *body = aq_attr_body(aq_node(kernels, id));
        if (ops_in(body, AQ_OP_conv2d)) {
            convolutions++;
            adds += ops_in(body, AQ_OP_add);
            assert_int_equal(ops_in(body, AQ_OP_sigmoid), 1);
        }
    }
    assert_int_equal(convolutions, 2);
    /* two biases, the embedding, the residual; two shifts of a norm */
    assert_int_equal(adds, 4 + 2);
    aq_graph_free(kernels);
    aq_graph_free(g);
}

static void test_its_gradient(void **state)
{
    (void)state;
    AqGraph *g = block_graph(true), *kernels = aq_test_kernels(g, 3);
    /* each convolution three times, the linear layer without d emb */
    assert_int_equal(kernels_of(kernels, "contract"), 3 + 2 + 2 + 1);
    /* what the first norm gives; what the second and the loss give is computed
     * by contractions as they read it */
    assert_int_equal(sweeps(kernels, LARGE), 1);
    /* moments of the first convolution's result, the gradient of the second's
     * bias, the sums of both norms' gradients */
    assert_int_equal(sums_beside_contractions(kernels), 1 + 1 + 2 * 2);
    for (AqId id = 0; id < kernels->count; id++) {
        if (!is_kernel(kernels, id, "map"))
            continue;
        const AqGraph *body = aq_attr_body(aq_node(kernels, id));
        assert_true(body->n_outputs <= AQ_MAX_RESULTS);
        assert_int_equal(ops_in(body, AQ_OP_conv2d), 0);
    }
    aq_graph_free(kernels);
    aq_graph_free(g);
}

/* ---- what is stored ---- */

/* The UNet's forward pass, as it stands in a training step, stores what its
 * contractions give and, beside, statistics of the norms: no normalised tensor,
 * no concatenated or repeated one. */
static void test_what_the_forward_pass_writes(void **state)
{
    (void)state;
    AqError error = {0};
    const AqSetting settings[] = {{"channels", "64"}, {"mults", "1,2"}};
    AqTask task = {.model = aq_builtin_find("ddpm_unet", &error),
                   .settings = settings,
                   .n_settings = AQ_COUNT(settings),
                   .batch = 8,
                   .height = 32,
                   .width = 32,
                   .channels = 3};
    AqOptimizer optimizer = {0};
    AqGraph *g = aq_training_graph(&task, &optimizer, NULL, &error);
    AqGraph *kernels = aq_test_kernels(g, 3);
    AqTraffic forward = aq_test_traffic(kernels, "loss");
    print_message("%d kernels write %.1f MB, contractions %.1f of them\n",
                  forward.kernels, 1e-6 * (double)forward.written,
                  1e-6 * (double)forward.contracted);
    assert_true(forward.contracted > 50 << 20);
    assert_true((double)forward.written <= 1.01 * (double)forward.contracted);
    aq_graph_free(kernels);
    aq_graph_free(g);
}

/* ---- the optimizer ---- */

/* The kernel that gives the new value of a state. */
static AqId writer_of(const AqGraph *g, const char *name)
{
    for (int i = 0; i < g->n_outputs; i++) {
        const AqOutput *o = &g->outputs[i];
        if (o->update && !strcmp(o->name, name)) {
            assert_int_equal(aq_node(g, o->node)->op, AQ_OP_result);
            return aq_node(g, o->node)->inputs[0];
        }
    }
    fail_msg("%s is not updated", name);
    return AQ_NO_NODE;
}

static AqGraph *training_graph(AqOptimizer optimizer)
{
    const AqSetting settings[] = {
        {"channels", "32"}, {"mults", "1"}, {"blocks", "1"}};
    return aq_test_training(
        "ddpm_unet", settings, AQ_COUNT(settings),
        (AqTask){.batch = 2, .height = 8, .width = 8, .channels = 3},
        optimizer);
}

static void test_the_optimizer_is_one_sweep(void **state)
{
    (void)state;
    AqGraph *g = training_graph((AqOptimizer){.ema = 0.999, .clip = 1});
    AqGraph *kernels = aq_test_kernels(g, 3);
    AqId sweep = writer_of(kernels, "weights");
    assert_int_equal(writer_of(kernels, "m"), sweep);
    assert_int_equal(writer_of(kernels, "v"), sweep);
    assert_int_equal(writer_of(kernels, "ema"), sweep);
    assert_int_equal(aq_result_count(kernels, sweep), 4);
    aq_graph_free(kernels);
    aq_graph_free(g);
}

static void test_other_optimizers_too(void **state)
{
    (void)state;
    AqGraph *g = training_graph(
        (AqOptimizer){.kind = AQ_SGD, .momentum = 0.9, .ema = 0.9});
    AqGraph *kernels = aq_test_kernels(g, 3);
    AqId sweep = writer_of(kernels, "weights");
    assert_int_equal(writer_of(kernels, "m"), sweep);
    assert_int_equal(writer_of(kernels, "ema"), sweep);
    assert_int_equal(aq_result_count(kernels, sweep), 3);
    aq_graph_free(kernels);
    aq_graph_free(g);
}

/* ---- what holds of every graph of kernels ---- */

static void check_body(const AqGraph *g, AqId id)
{
    const AqNode *node = aq_node(g, id);
    const AqGraph *body = aq_attr_body(node);
    const char *kind = aq_attr_text(node, AQ_KEY_KIND, "");
    int heavy = 0;
    bool *used = calloc((size_t)node->n_inputs + 1, sizeof *used);
    for (AqId b = 0; b < body->count; b++) {
        const AqNode *inner = aq_node(body, b);
        AqLowering how = aq_op_info[inner->op].lowering;
        heavy += how == AQ_LOWER_contract || how == AQ_LOWER_attend ||
                 how == AQ_LOWER_scatter;
        if (inner->op == AQ_OP_arg)
            used[aq_attr_int(inner, AQ_KEY_INDEX, 0)] = true;
        else
            assert_false(aq_op_info[inner->op].facts & AQ_SOURCE);
        assert_int_not_equal(inner->op, AQ_OP_kernel);
    }
    assert_int_equal(heavy, strcmp(kind, "map") != 0);
    for (int i = 0; i < node->n_inputs; i++)
        assert_true(used[i]); /* nothing is passed in vain */
    free(used);
}

static void check_kernels(const AqGraph *g)
{
    for (AqId id = 0; id < g->count; id++) {
        const AqNode *node = aq_node(g, id);
        if (node->op == AQ_OP_kernel)
            check_body(g, id);
        else
            assert_true(aq_op_info[node->op].facts & AQ_SOURCE ||
                        node->op == AQ_OP_result || node->op == AQ_OP_reshape ||
                        node->op == AQ_OP_concat);
    }
}

static void test_every_body_is_one_kind_of_work(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 100; seed++) {
        AqGraph *g = aq_test_random_graph(seed, 40);
        AqGraph *kernels = aq_test_kernels(g, 3);
        check_kernels(kernels);
        aq_graph_free(kernels);
        aq_graph_free(g);
    }
    AqGraph *g = training_graph((AqOptimizer){.ema = 0.9, .clip = 1});
    AqGraph *kernels = aq_test_kernels(g, 3);
    check_kernels(kernels);
    aq_graph_free(kernels);
    aq_graph_free(g);
}

/* The same graph gives the same kernels in the same order. */
static void test_fusion_is_a_function(void **state)
{
    (void)state;
    AqGraph *g = block_graph(true);
    AqGraph *once = aq_test_kernels(g, 3), *again = aq_test_kernels(g, 3);
    AqText a = {0}, b = {0};
    aq_graph_print(once, &a);
    aq_graph_print(again, &b);
    assert_string_equal(a.data, b.data);
    aq_text_free(&a);
    aq_text_free(&b);
    aq_graph_free(once);
    aq_graph_free(again);
    aq_graph_free(g);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_residual_block),
        cmocka_unit_test(test_its_gradient),
        cmocka_unit_test(test_what_the_forward_pass_writes),
        cmocka_unit_test(test_the_optimizer_is_one_sweep),
        cmocka_unit_test(test_other_optimizers_too),
        cmocka_unit_test(test_every_body_is_one_kind_of_work),
        cmocka_unit_test(test_fusion_is_a_function),
    };
    return cmocka_run_group_tests_name("fuse", tests, NULL, NULL);
}
