/* Shape rules of matrix products, convolutions, attention, and of the ops that
 * have or read several results. */
#include "ir/shapes.h"

#include <math.h>
#include <string.h>

/* ---- products ---- */

/* (batch..., m, k) x (batch..., k, n) -> (batch..., m, n) */
bool aq_shape_matmul(AqShapeRule *rule)
{
    const AqType *a = aq_shape_input(rule, 0), *b = aq_shape_input(rule, 1);
    const char *at = aq_shape_text(rule, a), *bt = aq_shape_text(rule, b);
    if (!aq_shape_flag(rule, AQ_KEY_TA) || !aq_shape_flag(rule, AQ_KEY_TB) ||
        !aq_shape_f32(rule, "the left side", 0) ||
        !aq_shape_f32(rule, "the right side", 1))
        return false;
    if (a->rank < 2 || a->rank != b->rank)
        return aq_shape_fail(
            rule, "both sides need the same rank, 2 or more (%s x %s)", at, bt);
    int last = a->rank - 1;
    for (int i = 0; i < last - 1; i++)
        if (a->dim[i] != b->dim[i])
            return aq_shape_fail(
                rule, "batch sizes %lld and %lld differ (%s x %s)",
                (long long)a->dim[i], (long long)b->dim[i], at, bt);
    int64_t ta = rule->attr[AQ_KEY_TA].integer;
    int64_t tb = rule->attr[AQ_KEY_TB].integer;
    int64_t ka = a->dim[last - ta], kb = b->dim[last - 1 + tb];
    if (ka != kb)
        return aq_shape_fail(rule,
                             "inner sizes %lld and %lld differ (%s%s x "
                             "%s%s)",
                             (long long)ka, (long long)kb, at,
                             ta ? " transposed" : "", bt,
                             tb ? " transposed" : "");
    rule->type = *a;
    rule->type.dim[last - 1] = a->dim[last - 1 + ta];
    rule->type.dim[last] = b->dim[last - tb];
    return true;
}

/* ---- convolutions ---- */

/* floor((size + before + after - dilation * (kernel - 1) - 1) / stride) + 1 */
static bool window_count(AqShapeRule *rule, int axis, int64_t size,
                         int64_t kernel, int64_t *count)
{
    const char *what = axis ? "columns" : "rows";
    const int64_t *pad = rule->attr[AQ_KEY_PAD].ints + 2 * axis;
    __int128 room = (__int128)size + pad[0] + pad[1];
    __int128 reach =
        (__int128)rule->attr[AQ_KEY_DILATION].ints[axis] * (kernel - 1) + 1;
    if (room > INT64_MAX)
        return aq_shape_fail(rule, "the padded %s are too many to count", what);
    if (reach > room)
        return aq_shape_fail(
            rule,
            "the kernel reaches over %lld %s, but the padded image has "
            "only %lld",
            (long long)AQ_MIN(reach, (__int128)INT64_MAX), what,
            (long long)room);
    *count = (int64_t)((room - reach) / rule->attr[AQ_KEY_STRIDE].ints[axis]);
    *count += 1;
    return true;
}

static bool conv_attributes(AqShapeRule *rule)
{
    aq_shape_default_ints(rule, AQ_KEY_STRIDE, 2, 1);
    aq_shape_default_ints(rule, AQ_KEY_PAD, 4, 0);
    aq_shape_default_ints(rule, AQ_KEY_DILATION, 2, 1);
    aq_shape_default(rule, aq_int(AQ_KEY_GROUPS, 1));
    return aq_shape_list(rule, AQ_KEY_STRIDE, 2, 1) &&
           aq_shape_list(rule, AQ_KEY_PAD, 4, 0) &&
           aq_shape_list(rule, AQ_KEY_DILATION, 2, 1) &&
           aq_shape_int(rule, AQ_KEY_GROUPS, 1);
}

/* x (N,H,W,C), w (KH,KW,C/groups,O) -> y (N,OH,OW,O) */
static bool conv_type(AqShapeRule *rule, const AqType *x, const AqType *w,
                      AqType *y)
{
    const char *xt = aq_shape_text(rule, x), *wt = aq_shape_text(rule, w);
    if (!conv_attributes(rule))
        return false;
    if (x->element != AQ_F32 || x->rank != 4)
        return aq_shape_fail(rule, "the image must be f32[N,H,W,C], not %s",
                             xt);
    if (w->element != AQ_F32 || w->rank != 4)
        return aq_shape_fail(rule, "the weight must be f32[KH,KW,C,O], not %s",
                             wt);
    int64_t groups = rule->attr[AQ_KEY_GROUPS].integer;
    if (x->dim[3] % groups || w->dim[3] % groups)
        return aq_shape_fail(
            rule,
            "%lld groups do not divide the channels %lld and %lld (%s "
            "by %s)",
            (long long)groups, (long long)x->dim[3], (long long)w->dim[3], xt,
            wt);
    if (w->dim[2] != x->dim[3] / groups)
        return aq_shape_fail(
            rule,
            "the image has %lld channels in each of %lld group%s, but "
            "the weight %lld (%s by %s)",
            (long long)(x->dim[3] / groups), (long long)groups,
            groups == 1 ? "" : "s", (long long)w->dim[2], xt, wt);
    *y = (AqType){.element = AQ_F32, .rank = 4};
    y->dim[0] = x->dim[0];
    y->dim[3] = w->dim[3];
    return window_count(rule, 0, x->dim[1], w->dim[0], &y->dim[1]) &&
           window_count(rule, 1, x->dim[2], w->dim[1], &y->dim[2]);
}

bool aq_shape_conv2d(AqShapeRule *rule)
{
    return conv_type(rule, aq_shape_input(rule, 0), aq_shape_input(rule, 1),
                     &rule->type);
}

/* The forward convolution of x by w must give dy's type. */
static bool conv_gradient(AqShapeRule *rule, const AqType *x, const AqType *w,
                          const AqType *dy)
{
    AqType y;
    if (!conv_type(rule, x, w, &y))
        return false;
    if (aq_same_type(&y, dy))
        return true;
    return aq_shape_fail(rule,
                         "the convolution of %s by %s gives %s, but dy is %s",
                         aq_shape_text(rule, x), aq_shape_text(rule, w),
                         aq_shape_text(rule, &y), aq_shape_text(rule, dy));
}

bool aq_shape_conv2d_input_gradient(AqShapeRule *rule)
{
    return aq_shape_declared_type(rule) &&
           conv_gradient(rule, &rule->type, aq_shape_input(rule, 1),
                         aq_shape_input(rule, 0));
}

bool aq_shape_conv2d_weight_gradient(AqShapeRule *rule)
{
    return aq_shape_declared_type(rule) &&
           conv_gradient(rule, aq_shape_input(rule, 0), &rule->type,
                         aq_shape_input(rule, 1));
}

/* ---- attention ---- */

static bool expect_input(AqShapeRule *rule, int input, const char *name,
                         const AqType *type)
{
    const AqType *given = aq_shape_input(rule, input);
    if (aq_same_type(given, type))
        return true;
    return aq_shape_fail(rule, "%s must be %s, not %s", name,
                         aq_shape_text(rule, type), aq_shape_text(rule, given));
}

/* bias (B|1, heads|1, Tq, Tk) */
static bool check_bias(AqShapeRule *rule, int input, const AqType *q,
                       const AqType *k)
{
    const AqType *bias = aq_shape_input(rule, input);
    if (bias->element == AQ_F32 && bias->rank == 4 &&
        (bias->dim[0] == 1 || bias->dim[0] == q->dim[0]) &&
        (bias->dim[1] == 1 || bias->dim[1] == q->dim[2]) &&
        bias->dim[2] == q->dim[1] && bias->dim[3] == k->dim[1])
        return true;
    return aq_shape_fail(
        rule, "the bias must be f32[%lld or 1,%lld or 1,%lld,%lld], not %s",
        (long long)q->dim[0], (long long)q->dim[2], (long long)q->dim[1],
        (long long)k->dim[1], aq_shape_text(rule, bias));
}

/* q (B,Tq,heads,d), k and v (B,Tk,heads,d), bias at input `bias` if there */
static bool check_attention(AqShapeRule *rule, int bias)
{
    const AqType *q = aq_shape_input(rule, 0), *k = aq_shape_input(rule, 1);
    if (rule->n_inputs > bias + 1)
        return aq_shape_fail(rule, "it takes at most %d inputs, not %d",
                             bias + 1, rule->n_inputs);
    if (!aq_shape_flag(rule, AQ_KEY_CAUSAL) ||
        !aq_shape_need(rule, AQ_KEY_SCALE))
        return false;
    if (!isfinite(rule->attr[AQ_KEY_SCALE].real))
        return aq_shape_fail(rule, "the scale is not finite");
    if (q->element != AQ_F32 || q->rank != 4)
        return aq_shape_fail(rule, "q must be f32[B,T,heads,d], not %s",
                             aq_shape_text(rule, q));
    AqType expected = *q;
    if (k->rank == 4)
        expected.dim[1] = k->dim[1];
    return expect_input(rule, 1, "k", &expected) &&
           expect_input(rule, 2, "v", &expected) &&
           (rule->n_inputs <= bias || check_bias(rule, bias, q, k));
}

static AqType log_sum_type(const AqType *q)
{
    return aq_type(AQ_F32, 3, (int64_t[]){q->dim[0], q->dim[2], q->dim[1]});
}

bool aq_shape_attention(AqShapeRule *rule)
{
    if (!check_attention(rule, 3))
        return false;
    const AqType *q = aq_shape_input(rule, 0);
    rule->results[0] = *q;
    rule->results[1] = log_sum_type(q);
    rule->n_results = 2;
    rule->type = (AqType){.element = AQ_RESULTS};
    return true;
}

bool aq_shape_attention_gradient(AqShapeRule *rule)
{
    if (!check_attention(rule, 6))
        return false;
    const AqType *q = aq_shape_input(rule, 0);
    AqType lse = log_sum_type(q);
    if (!expect_input(rule, 3, "out", q) ||
        !expect_input(rule, 4, "lse", &lse) ||
        !expect_input(rule, 5, "dout", q))
        return false;
    for (int i = 0; i < 3; i++)
        rule->results[i] = *aq_shape_input(rule, i);
    rule->n_results = 3;
    rule->type = (AqType){.element = AQ_RESULTS};
    return true;
}

/* ---- structure ---- */

bool aq_shape_result(AqShapeRule *rule)
{
    AqId node = rule->inputs[0];
    const char *name = aq_op_info[rule->graph->nodes[node].op].name;
    if (aq_shape_input(rule, 0)->element != AQ_RESULTS)
        return aq_shape_fail(rule, "%s has one value and no results", name);
    if (!aq_shape_int(rule, AQ_KEY_INDEX, 0))
        return false;
    int count = aq_result_count(rule->graph, node);
    int64_t index = rule->attr[AQ_KEY_INDEX].integer;
    if (index >= count)
        return aq_shape_fail(rule, "%s has %d results, so no result %lld", name,
                             count, (long long)index);
    rule->type = aq_result_type(rule->graph, node, (int)index);
    return true;
}

/* Within a body only args come from outside, and they are the inputs. */
static bool check_body_source(AqShapeRule *rule, const AqNode *node)
{
    if (node->op != AQ_OP_arg)
        return aq_shape_fail(rule,
                             "its body holds the source %s \"%.60s\", "
                             "but may read its args alone",
                             aq_op_info[node->op].name,
                             aq_attr_text(node, AQ_KEY_NAME, ""));
    int64_t index = aq_attr_int(node, AQ_KEY_INDEX, 0);
    if (index >= rule->n_inputs)
        return aq_shape_fail(rule,
                             "its body reads arg %lld, but it has %d inputs",
                             (long long)index, rule->n_inputs);
    const AqType *type = aq_shape_input(rule, (int)index);
    if (aq_same_type(type, &node->type))
        return true;
    return aq_shape_fail(rule, "arg %lld of its body is %s, but input %lld %s",
                         (long long)index, aq_shape_text(rule, &node->type),
                         (long long)index, aq_shape_text(rule, type));
}

static bool check_body(AqShapeRule *rule, const AqGraph *body)
{
    if (body->error.status != AQ_OK)
        return aq_shape_fail(rule, "its body has an error: %.500s",
                             body->error.text);
    if (body->n_outputs < 1 || body->n_outputs > AQ_MAX_RESULTS)
        return aq_shape_fail(rule,
                             "its body has %d outputs, but must have 1 ... %d",
                             body->n_outputs, AQ_MAX_RESULTS);
    for (AqId id = 0; id < body->count; id++)
        if (aq_op_info[body->nodes[id].op].facts & AQ_SOURCE &&
            !check_body_source(rule, &body->nodes[id]))
            return false;
    for (int i = 0; i < body->n_outputs; i++)
        rule->results[i] = body->nodes[body->outputs[i].node].type;
    rule->n_results = body->n_outputs;
    return true;
}

bool aq_shape_kernel(AqShapeRule *rule)
{
    static const char *const kinds[] = {"map", "contract", "attend", "scatter"};
    if (!aq_shape_word(rule, AQ_KEY_KIND, kinds, AQ_COUNT(kinds)) ||
        !aq_shape_need(rule, AQ_KEY_BODY) ||
        !check_body(rule, rule->attr[AQ_KEY_BODY].body))
        return false;
    rule->type = (AqType){.element = AQ_RESULTS};
    return true;
}
