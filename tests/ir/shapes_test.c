/* Shape rules of sources, pointwise ops, reductions, movement and look-up: what
 * each accepts, and the sentence for each way to be wrong. */
#include "ir/ir.h"

#include <setjmp.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "tests/support/bench.h"
#include "tests/support/shape_cases.h"

/* ---- what holds of all ops ---- */

static void test_all_ops(void **state)
{
    (void)state;
    static const AqShapeCase cases[] = {
        {"exp %0, %0 : f32[8,64]", "exp: it takes 1 input, not 2"},
        {"select %0, %0 : f32[8,64]", "select: it takes 3 inputs, not 2"},
        {"concat {axis=0} : f32[8,64]",
         "concat: it takes at least 1 input, not 0"},
        {"attention %7, %8 {scale=1} : results",
         "attention: it takes at least 3 inputs, not 2"},
        {"exp %10 : f32[64]",
         "exp: input 0 is moments, which has several values: read one with "
         "result"},
        {"exp %0 {axes=[0]} : f32[8,64]", "exp: it has no attribute axes"},
        {"reduce_sum %0 : f32[8]", "reduce_sum: the attribute axes is missing"},
        {"exp %0 : f32[8,65]",
         "exp: its value is f32[8,64], but f32[8,65] was declared"},
        {"moments %0 {axes=[1]} : f32[8]",
         "moments: its value is results, but f32[8] was declared"},
    };
    REFUSED(cases);
}

static void test_declared_types(void **state)
{
    (void)state;
    static const AqShapeCase cases[] = {
        {"const {value=0} : f32[4,0]",
         "const: dimension 1 of f32[4,0] is 0, but must be at least 1"},
        {"const {value=0} : f32[-3]",
         "const: dimension 0 of f32[-3] is -3, but must be at least 1"},
        {"const {value=0} : f32[4611686018427387904,2]",
         "const: f32[4611686018427387904,2] has too many elements to count"},
        {"const {value=0} : f32[2305843009213693952]",
         "const: f32[2305843009213693952] has too many elements to count"},
        {"const {value=0} : results",
         "const: a declared type must be f32 or i32"},
    };
    REFUSED(cases);
    AqGraph *g = aq_graph_new();
    AqAttr value = aq_real(AQ_KEY_VALUE, 0);
    assert_int_equal(aq_build(g, AQ_OP_const, NULL, NULL, 0, &value, 1), -1);
    assert_string_equal(g->error.text, "const: its type must be declared");
    aq_graph_free(g);
    g = aq_graph_new();
    AqType nine = {.rank = 9};
    assert_int_equal(aq_const_node(g, &nine, 0), AQ_NO_NODE);
    assert_string_equal(g->error.text, "const: rank 9 is not within 0 ... 8");
    aq_graph_free(g);
}

/* What only a program can get wrong, not a text. */
static void test_broken_calls(void **state)
{
    (void)state;
    AqType type = F32(2);
    AqAttr twice[] = {aq_text(AQ_KEY_NAME, "x"), aq_text(AQ_KEY_NAME, "y")};
    AqAttr null = aq_text(AQ_KEY_NAME, NULL), far = {.key = (AqKey)99};
    const AqAttr *attrs[] = {twice, &null, &far};
    static const char *const messages[] = {
        "input: the attribute name is given twice",
        "input: the attribute name is NULL",
        "input: attribute key 99 does not exist"};
    for (int i = 0; i < 3; i++) {
        AqGraph *g = aq_graph_new();
        aq_build(g, AQ_OP_input, &type, NULL, 0, attrs[i], i ? 1 : 2);
        assert_string_equal(g->error.text, messages[i]);
        aq_graph_free(g);
    }
    AqGraph *g = aq_graph_new();
    aq_unary(g, AQ_OP_exp, 4);
    assert_string_equal(g->error.text, "exp: input 0 is node 4, which this "
                                       "graph does not have");
    aq_graph_free(g);
    g = aq_graph_new();
    aq_unary(g, (AqOp)1000, 0);
    assert_string_equal(g->error.text, "graph: op 1000 does not exist");
    aq_graph_free(g);
}

/* ---- sources ---- */

static void test_sources(void **state)
{
    (void)state;
    static const AqShapeCase good[] = {
        {"param {name=\"p\"} : f32[2,3]",
         "param {name=\"p\", offset=0, init=\"zeros\", value=0} : f32[2,3]"},
        {"param {file=[1,0], init=\"normal\", value=0.5, offset=16, "
         "name=\"p\"} : f32[2,3]",
         "param {name=\"p\", offset=16, file=[1,0], init=\"normal\", "
         "value=0.5} : f32[2,3]"},
        {"const {value=-2147483648} : i32[]",
         "const {value=-2147483648} : i32[]"},
        {"arg {index=3} : i32[7]", "arg {index=3} : i32[7]"},
        {"table {data=[1.5]} : f32[]", "table {data=[1.5]} : f32[]"},
        {"iota {axis=1} : i32[2,3]", "iota {axis=1} : i32[2,3]"},
    };
    static const AqShapeCase bad[] = {
        {"input : f32[2]", "input: the attribute name is missing"},
        {"input {name=\"\"} : f32[2]", "input: the name is empty"},
        {"param {name=\"p\"} : i32[2]",
         "param: a trained tensor must be f32, not i32[2]"},
        {"param {name=\"p\", offset=-16} : f32[2]",
         "param: offset is -16, but must be at least 0"},
        {"param {name=\"p\", offset=9223372036854775807} : f32[2]",
         "param: the offset 9223372036854775807 is too large"},
        {"param {name=\"p\", value=-1} : f32[2]",
         "param: a start of deviation -1 is not possible"},
        {"param {name=\"p\", value=inf} : f32[2]",
         "param: a start of deviation inf is not possible"},
        {"param {name=\"p\", init=\"gauss\"} : f32[2]",
         "param: init is \"gauss\", but must be zeros, ones, normal or "
         "uniform"},
        {"param {name=\"p\", file=[0]} : f32[2,2]",
         "param: file has 1 numbers, but 2 are needed"},
        {"param {name=\"p\", file=[0,0]} : f32[2,2]",
         "param: file does not name each of the 2 dimensions once"},
        {"arg : f32[2]", "arg: the attribute index is missing"},
        {"arg {index=-1} : f32[2]", "arg: index is -1, but must be at least 0"},
        {"const : f32[2]", "const: the attribute value is missing"},
        {"const {value=0.5} : i32[2]", "const: 0.5 is no i32"},
        {"const {value=2147483648} : i32[2]", "const: 2147483648 is no i32"},
        {"const {value=nan} : i32[2]", "const: nan is no i32"},
        {"table : f32[2]", "table: the attribute data is missing"},
        {"table {data=[1]} : f32[2]", "table: 1 numbers do not fill f32[2]"},
        {"table {data=[1,1.5]} : i32[2]", "table: 1.5 is no i32"},
        {"iota {axis=2} : f32[2,2]",
         "iota: axis 2 is not within the 2 dimensions"},
        {"iota {axis=-1} : f32[2,2]",
         "iota: axis -1 is not within the 2 dimensions"},
    };
    ACCEPTED(good);
    REFUSED(bad);
}

static void test_random(void **state)
{
    (void)state;
#define ATTRS_ "{kind=\"normal\", stream=7}"
    static const AqShapeCase good[] = {
        {"random %5, %6, %3 " ATTRS_ " : f32[3,5]",
         "random %5, %6, %3 " ATTRS_ " : f32[3,5]"},
    };
    static const AqShapeCase bad[] = {
        {"random %5, %6, %3 {stream=7} : f32[3]",
         "random: the attribute kind is missing"},
        {"random %5, %6, %3 {kind=\"gauss\", stream=7} : f32[3]",
         "random: kind is \"gauss\", but must be uniform or normal"},
        {"random %5, %6, %3 {kind=\"normal\"} : f32[3]",
         "random: the attribute stream is missing"},
        {"random %5, %6, %3 {kind=\"normal\", stream=-1} : f32[3]",
         "random: stream is -1, but must be at least 0"},
        {"random %5, %6, %3 {kind=\"normal\", stream=4294967296} : f32[3]",
         "random: stream 4294967296 does not fit into 32 bits"},
        {"random %6, %6, %3 " ATTRS_ " : f32[3]",
         "random: the key must be i32 of rank 1, not i32[]"},
        {"random %3, %6, %3 " ATTRS_ " : f32[3]",
         "random: the key must be i32[2], not i32[3]"},
        {"random %5, %4, %3 " ATTRS_ " : f32[3]",
         "random: the step must be i32 of rank 0, not f32[]"},
        {"random %5, %6, %0 " ATTRS_ " : f32[3]",
         "random: the sample must be i32 of rank 1, not f32[8,64]"},
        {"random %5, %6, %3 " ATTRS_ " : i32[3]",
         "random: draws are f32, not i32[3]"},
        {"random %5, %6, %3 " ATTRS_ " : f32[]",
         "random: f32[] does not begin with the number of samples of i32[3]"},
        {"random %5, %6, %3 " ATTRS_ " : f32[4,3]",
         "random: f32[4,3] does not begin with the number of samples of "
         "i32[3]"},
        {"random %5, %6, %3 " ATTRS_ " : f32[3,4294967296]",
         "random: a sample of f32[3,4294967296] has more than 2^32 elements"},
    };
    ACCEPTED(good);
    REFUSED(bad);
}

/* ---- pointwise ops and reductions ---- */

static void test_pointwise(void **state)
{
    (void)state;
    static const AqShapeCase good[] = {
        {"neg %3 : i32[3]", "neg %3 : i32[3]"},
        {"add %13, %13 : i32[8,64]", "add %13, %13 : i32[8,64]"},
        {"cast %3 : f32[3]", "cast %3 : f32[3]"},
        {"cast %4 : i32[]", "cast %4 : i32[]"},
    };
    static const AqShapeCase bad[] = {
        {"add %0, %1 : f32[8,64]",
         "add: shapes differ (f32[8,64] and f32[32,10])"},
        {"add %0, %4 : f32[8,64]", "add: shapes differ (f32[8,64] and f32[])"},
        {"mul %0, %13 : f32[8,64]",
         "mul: element types differ (f32[8,64] and i32[8,64]): cast"},
        {"select %13, %0, %0 : f32[8,64]",
         "select: element types differ (i32[8,64] and f32[8,64]): cast"},
        {"exp %3 : i32[3]", "exp: its input must be f32, not i32[3]: cast it"},
        {"cast %3 : f32[4]", "cast: the shape would change (i32[3] to f32[4])"},
        {"cast %3 : i32[3]", "cast: its input is i32[3] already"},
    };
    ACCEPTED(good);
    REFUSED(bad);
}

static void test_reductions(void **state)
{
    (void)state;
    static const AqShapeCase good[] = {
        {"reduce_sum %2 {axes=[1,2]} : f32[2,4]",
         "reduce_sum %2 {axes=[1,2]} : f32[2,4]"},
        {"reduce_max %3 {axes=[0]} : i32[]",
         "reduce_max %3 {axes=[0]} : i32[]"},
        {"result %10 {index=1} : f32[64]", "result %10 {index=1} : f32[64]"},
    };
    static const AqShapeCase bad[] = {
        {"reduce_sum %0 {axes=[]} : f32[8,64]", "reduce_sum: axes is empty"},
        {"reduce_sum %0 {axes=[2]} : f32[8]",
         "reduce_sum: axes[0] is 2, which is no dimension of f32[8,64]"},
        {"reduce_sum %0 {axes=[-1]} : f32[8]",
         "reduce_sum: axes[0] is -1, which is no dimension of f32[8,64]"},
        {"reduce_max %0 {axes=[1,0]} : f32[]",
         "reduce_max: axes must ascend, but 0 follows 1"},
        {"reduce_max %0 {axes=[1,1]} : f32[]",
         "reduce_max: axes must ascend, but 1 follows 1"},
        {"moments %3 {axes=[0]} : results",
         "moments: its input must be f32, not i32[3]: cast it"},
        {"moments %4 {axes=[0]} : results",
         "moments: axes[0] is 0, which is no dimension of f32[]"},
    };
    ACCEPTED(good);
    REFUSED(bad);
}

/* ---- movement ---- */

static void test_movement(void **state)
{
    (void)state;
    static const AqShapeCase good[] = {
        {"reshape %0 : f32[2,256]", "reshape %0 : f32[2,256]"},
        {"reshape %4 : f32[1,1]", "reshape %4 : f32[1,1]"},
        {"transpose %2 {perm=[3,0,1,2]} : f32[4,2,6,5]",
         "transpose %2 {perm=[3,0,1,2]} : f32[4,2,6,5]"},
        {"slice %0 {start=[1,60]} : f32[7,4]",
         "slice %0 {start=[1,60], step=[1,1]} : f32[7,4]"},
        {"slice %0 {start=[1,0], step=[3,63]} : f32[3,2]",
         "slice %0 {start=[1,0], step=[3,63]} : f32[3,2]"},
        {"pad %3 {start=[1], step=[2]} : i32[6]",
         "pad %3 {start=[1], step=[2]} : i32[6]"},
        {"broadcast %15 : f32[1,1,2,1,1,3,1,1]",
         "broadcast %15 : f32[1,1,2,1,1,3,1,1]"},
        {"concat %0, %0, %0 {axis=1} : f32[8,192]",
         "concat %0, %0, %0 {axis=1} : f32[8,192]"},
        {"repeat %0 {factor=[2,1]} : f32[16,64]",
         "repeat %0 {factor=[2,1]} : f32[16,64]"},
    };
    ACCEPTED(good);
}

static void test_reshaping(void **state)
{
    (void)state;
    static const AqShapeCase bad[] = {
        {"reshape %0 : f32[8,63]",
         "reshape: 512 elements do not fit into 504 (f32[8,64] to f32[8,63])"},
        {"reshape %0 : i32[512]",
         "reshape: it cannot turn f32[8,64] into i32[512]: cast first"},
        {"transpose %0 {perm=[0]} : f32[8,64]",
         "transpose: perm has 1 numbers, but 2 are needed"},
        {"transpose %0 {perm=[1,1]} : f32[8,64]",
         "transpose: perm does not name each of the 2 dimensions once"},
        {"transpose %0 {perm=[1,2]} : f32[8,64]",
         "transpose: perm does not name each of the 2 dimensions once"},
        {"transpose %0 {perm=[-1,0]} : f32[8,64]",
         "transpose: perm[0] is -1, but must be at least 0"},
        {"broadcast %0 : f32[8,64,1]",
         "broadcast: ranks 2 and 3 differ (f32[8,64] to f32[8,64,1])"},
        {"broadcast %0 : f32[16,64]",
         "broadcast: dimension 0 is 8 and cannot become 16 (f32[8,64] to "
         "f32[16,64])"},
        {"broadcast %0 : i32[8,64]",
         "broadcast: it cannot turn f32[8,64] into i32[8,64]: cast first"},
    };
    REFUSED(bad);
}

static void test_windows(void **state)
{
    (void)state;
    static const AqShapeCase bad[] = {
        {"slice %0 {start=[0]} : f32[8,64]",
         "slice: start has 1 numbers, but 2 are needed"},
        {"slice %0 {start=[0,-1]} : f32[8,64]",
         "slice: start[1] is -1, but must be at least 0"},
        {"slice %0 {start=[0,0], step=[1,0]} : f32[8,64]",
         "slice: step[1] is 0, but must be at least 1"},
        {"slice %0 {start=[0,0]} : f32[8]",
         "slice: ranks 2 and 1 differ (f32[8,64] to f32[8])"},
        {"slice %0 {start=[0,1]} : f32[8,64]",
         "slice: dimension 1 of f32[8,64] ends before place 64, which start 1, "
         "step 1 and size 64 reach"},
        {"slice %0 {start=[0,0], step=[1,9223372036854775807]} : f32[8,3]",
         "slice: dimension 1 of f32[8,64] ends before place "
         "9223372036854775807, which start 0, step 9223372036854775807 and "
         "size 3 reach"},
        {"pad %3 {start=[1], step=[2]} : i32[5]",
         "pad: dimension 0 of i32[5] ends before place 5, which start 1, step "
         "2 and size 3 reach"},
        {"pad %3 {start=[1], step=[2]} : f32[6]",
         "pad: it cannot turn i32[3] into f32[6]: cast first"},
    };
    REFUSED(bad);
}

static void test_joining(void **state)
{
    (void)state;
    static const AqShapeCase bad[] = {
        {"concat %0 {axis=2} : f32[8,64]",
         "concat: axis 2 is not within the 2 dimensions"},
        {"concat %0, %1 {axis=0} : f32[40,64]",
         "concat: input 1 does not agree with the first (f32[32,10] and "
         "f32[8,64]) in all but dimension 0"},
        {"concat %0, %13 {axis=0} : f32[16,64]",
         "concat: input 1 does not agree with the first (i32[8,64] and "
         "f32[8,64]) in all but dimension 0"},
        {"concat %0, %4 {axis=0} : f32[16,64]",
         "concat: input 1 does not agree with the first (f32[] and f32[8,64]) "
         "in all but dimension 0"},
        {"repeat %0 {factor=[2]} : f32[16,64]",
         "repeat: factor has 1 numbers, but 2 are needed"},
        {"repeat %0 {factor=[2,0]} : f32[16,64]",
         "repeat: factor[1] is 0, but must be at least 1"},
        {"repeat %0 {factor=[4611686018427387904,1]} : f32[16,64]",
         "repeat: dimension 0 grows too large"},
        {"repeat %14 {factor=[1048576,1048576]} : f32[16,64]",
         "repeat: f32[1099511627776,1099511627776] has too many elements to "
         "count"},
    };
    REFUSED(bad);
}

/* Two parts that are each as long as a tensor may be. */
static void test_concat_counts(void **state)
{
    (void)state;
    AqGraph *g = aq_graph_new();
    AqType type = F32((int64_t)1 << 60);
    AqAttr name = aq_text(AQ_KEY_NAME, "x");
    AqId x = aq_build(g, AQ_OP_input, &type, NULL, 0, &name, 1);
    AqId parts[8] = {x, x, x, x, x, x, x, x};
    aq_concat_node(g, parts, 8, 0);
    assert_string_equal(g->error.text, "concat: dimension 0 grows too large");
    aq_graph_free(g);
}

/* ---- look-up ---- */

static void test_look_up(void **state)
{
    (void)state;
    static const AqShapeCase good[] = {
        {"gather %0, %3 : f32[3,64]", "gather %0, %3 : f32[3,64]"},
        {"gather %0, %6 : f32[64]", "gather %0, %6 : f32[64]"},
        {"gather %13, %13 : i32[8,64,64]", "gather %13, %13 : i32[8,64,64]"},
        {"scatter_add %6, %4 : f32[9]", "scatter_add %6, %4 : f32[9]"},
        {"scatter_add %13, %0 : f32[9]", "scatter_add %13, %0 : f32[9]"},
    };
    static const AqShapeCase bad[] = {
        {"gather %0, %1 : f32[3,64]",
         "gather: the index must be i32, not f32[32,10]"},
        {"gather %4, %3 : f32[3]", "gather: a table of rank 0 has no rows"},
        {"gather %15, %13 : f32[3]",
         "gather: the rows of f32[1,1,1,1,1,1,1,1] for the index i32[8,64] "
         "have more than 8 dimensions"},
        {"scatter_add %1, %0 : f32[9]",
         "scatter_add: the index must be i32, not f32[32,10]"},
        {"scatter_add %13, %13 : f32[9]",
         "scatter_add: the updates must be f32, not i32[8,64]: cast it"},
        {"scatter_add %13, %0 : f32[9,2]",
         "scatter_add: updates for f32[9,2] at the index i32[8,64] must be "
         "f32[8,64,2], not f32[8,64]"},
        {"scatter_add %13, %0 : f32[]",
         "scatter_add: a table of rank 0 has no rows"},
        {"scatter_add %13, %0 : i32[9]",
         "scatter_add: updates for i32[9] at the index i32[8,64] must be "
         "i32[8,64], not f32[8,64]"},
    };
    ACCEPTED(good);
    REFUSED(bad);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_all_ops),
        cmocka_unit_test(test_declared_types),
        cmocka_unit_test(test_broken_calls),
        cmocka_unit_test(test_sources),
        cmocka_unit_test(test_random),
        cmocka_unit_test(test_pointwise),
        cmocka_unit_test(test_reductions),
        cmocka_unit_test(test_movement),
        cmocka_unit_test(test_reshaping),
        cmocka_unit_test(test_windows),
        cmocka_unit_test(test_joining),
        cmocka_unit_test(test_concat_counts),
        cmocka_unit_test(test_look_up),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
