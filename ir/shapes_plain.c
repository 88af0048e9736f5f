/* Shape rules of sources, pointwise ops, reductions, movement and look-up. */
#include "ir/shapes.h"

#include <math.h>
#include <string.h>

/* ---- sources ---- */

static bool check_name(AqShapeRule *rule)
{
    if (!aq_shape_need(rule, AQ_KEY_NAME))
        return false;
    if (rule->attr[AQ_KEY_NAME].text[0])
        return true;
    return aq_shape_fail(rule, "the name is empty");
}

static bool is_permutation(const AqAttr *attr)
{
    unsigned seen = 0;
    for (int i = 0; i < attr->count; i++) {
        if (attr->ints[i] < 0 || attr->ints[i] >= attr->count)
            return false;
        seen |= 1u << attr->ints[i];
    }
    return seen == (1u << attr->count) - 1;
}

static bool check_permutation(AqShapeRule *rule, AqKey key, int rank)
{
    if (!aq_shape_list(rule, key, rank, 0))
        return false;
    if (is_permutation(&rule->attr[key]))
        return true;
    return aq_shape_fail(rule,
                         "%s does not name each of the %d dimensions once",
                         aq_key_name[key], rank);
}

static bool check_param(AqShapeRule *rule)
{
    static const char *const starts[] = {"zeros", "ones", "normal", "uniform"};
    aq_shape_default(rule, aq_int(AQ_KEY_OFFSET, 0));
    aq_shape_default(rule, aq_text(AQ_KEY_INIT, "zeros"));
    aq_shape_default(rule, aq_real(AQ_KEY_VALUE, 0));
    if (rule->type.element != AQ_F32)
        return aq_shape_fail(rule, "a trained tensor must be f32, not %s",
                             aq_shape_text(rule, &rule->type));
    if (!aq_shape_int(rule, AQ_KEY_OFFSET, 0))
        return false;
    int64_t room = INT64_MAX / 4 - aq_elements(&rule->type);
    if (rule->attr[AQ_KEY_OFFSET].integer > room)
        return aq_shape_fail(rule, "the offset %lld is too large",
                             (long long)rule->attr[AQ_KEY_OFFSET].integer);
    double value = rule->attr[AQ_KEY_VALUE].real;
    if (!(value >= 0 && isfinite(value)))
        return aq_shape_fail(rule, "a start of deviation %g is not possible",
                             value);
    return aq_shape_word(rule, AQ_KEY_INIT, starts, AQ_COUNT(starts)) &&
           (!aq_shape_has(rule, AQ_KEY_FILE) ||
            check_permutation(rule, AQ_KEY_FILE, rule->type.rank));
}

static bool fits_i32(AqShapeRule *rule, double value)
{
    if (rule->type.element != AQ_I32 ||
        (value == rint(value) && fabs(value) <= INT32_MAX) ||
        value == INT32_MIN)
        return true;
    return aq_shape_fail(rule, "%.17g is no i32", value);
}

static bool check_data(AqShapeRule *rule)
{
    if (!aq_shape_need(rule, AQ_KEY_DATA))
        return false;
    const AqAttr *data = &rule->attr[AQ_KEY_DATA];
    if (data->count != aq_elements(&rule->type))
        return aq_shape_fail(rule, "%d numbers do not fill %s", data->count,
                             aq_shape_text(rule, &rule->type));
    for (int i = 0; i < data->count; i++)
        if (!fits_i32(rule, data->reals[i]))
            return false;
    return true;
}

static bool check_axis(AqShapeRule *rule, int rank)
{
    if (!aq_shape_need(rule, AQ_KEY_AXIS))
        return false;
    int64_t axis = rule->attr[AQ_KEY_AXIS].integer;
    if (axis >= 0 && axis < rank)
        return true;
    return aq_shape_fail(rule, "axis %lld is not within the %d dimensions",
                         (long long)axis, rank);
}

/* What a source carries is told by the keys that its row allows. */
bool aq_shape_declared(AqShapeRule *rule)
{
    uint64_t keys = aq_op_info[rule->op].attributes;
    if (!aq_shape_declared_type(rule))
        return false;
    if (keys >> AQ_KEY_NAME & 1 && !check_name(rule))
        return false;
    if (keys >> AQ_KEY_INIT & 1)
        return check_param(rule);
    if (keys >> AQ_KEY_INDEX & 1)
        return aq_shape_int(rule, AQ_KEY_INDEX, 0);
    if (keys >> AQ_KEY_VALUE & 1)
        return aq_shape_need(rule, AQ_KEY_VALUE) &&
               fits_i32(rule, rule->attr[AQ_KEY_VALUE].real);
    if (keys >> AQ_KEY_DATA & 1)
        return check_data(rule);
    if (keys >> AQ_KEY_AXIS & 1)
        return check_axis(rule, rule->type.rank);
    return true;
}

static bool expect_i32(AqShapeRule *rule, const char *name, int input, int rank)
{
    const AqType *type = aq_shape_input(rule, input);
    if (type->element == AQ_I32 && type->rank == rank)
        return true;
    return aq_shape_fail(rule, "%s must be i32 of rank %d, not %s", name, rank,
                         aq_shape_text(rule, type));
}

/* key i32[2], step i32[], sample i32[N] -> f32[N,...], declared */
bool aq_shape_random(AqShapeRule *rule)
{
    static const char *const kinds[] = {"uniform", "normal"};
    if (!aq_shape_declared_type(rule) ||
        !aq_shape_word(rule, AQ_KEY_KIND, kinds, AQ_COUNT(kinds)) ||
        !aq_shape_int(rule, AQ_KEY_STREAM, 0) ||
        !expect_i32(rule, "the key", 0, 1) ||
        !expect_i32(rule, "the step", 1, 0) ||
        !expect_i32(rule, "the sample", 2, 1))
        return false;
    const AqType *key = aq_shape_input(rule, 0);
    const AqType *sample = aq_shape_input(rule, 2);
    if (rule->attr[AQ_KEY_STREAM].integer > UINT32_MAX)
        return aq_shape_fail(rule, "stream %lld does not fit into 32 bits",
                             (long long)rule->attr[AQ_KEY_STREAM].integer);
    if (key->dim[0] != 2)
        return aq_shape_fail(rule, "the key must be i32[2], not %s",
                             aq_shape_text(rule, key));
    if (rule->type.element != AQ_F32)
        return aq_shape_fail(rule, "draws are f32, not %s",
                             aq_shape_text(rule, &rule->type));
    if (rule->type.rank < 1 || rule->type.dim[0] != sample->dim[0])
        return aq_shape_fail(
            rule, "%s does not begin with the number of samples of %s",
            aq_shape_text(rule, &rule->type), aq_shape_text(rule, sample));
    if (aq_elements(&rule->type) / sample->dim[0] > UINT32_MAX)
        return aq_shape_fail(rule, "a sample of %s has more than 2^32 elements",
                             aq_shape_text(rule, &rule->type));
    return true;
}

/* ---- pointwise ---- */

bool aq_shape_same(AqShapeRule *rule)
{
    const AqType *first = aq_shape_input(rule, 0);
    for (int i = 1; i < rule->n_inputs; i++) {
        const AqType *type = aq_shape_input(rule, i);
        if (!aq_same_shape(first, type))
            return aq_shape_fail(rule, "shapes differ (%s and %s)",
                                 aq_shape_text(rule, first),
                                 aq_shape_text(rule, type));
        if (first->element != type->element)
            return aq_shape_fail(rule, "element types differ (%s and %s): cast",
                                 aq_shape_text(rule, first),
                                 aq_shape_text(rule, type));
    }
    if (!(aq_op_info[rule->op].facts & AQ_INTEGERS) &&
        !aq_shape_f32(rule, "its input", 0))
        return false;
    rule->type = *first;
    return true;
}

bool aq_shape_cast(AqShapeRule *rule)
{
    const AqType *x = aq_shape_input(rule, 0);
    if (!aq_shape_declared_type(rule))
        return false;
    if (!aq_same_shape(x, &rule->type))
        return aq_shape_fail(rule, "the shape would change (%s to %s)",
                             aq_shape_text(rule, x),
                             aq_shape_text(rule, &rule->type));
    if (x->element == rule->type.element)
        return aq_shape_fail(rule, "its input is %s already",
                             aq_shape_text(rule, x));
    return true;
}

/* ---- reductions ---- */

static bool reduced_type(AqShapeRule *rule, AqType *out)
{
    const AqType *x = aq_shape_input(rule, 0);
    if (!aq_shape_need(rule, AQ_KEY_AXES))
        return false;
    const AqAttr *axes = &rule->attr[AQ_KEY_AXES];
    if (axes->count < 1)
        return aq_shape_fail(rule, "axes is empty");
    for (int i = 0; i < axes->count; i++) {
        if (axes->ints[i] < 0 || axes->ints[i] >= x->rank)
            return aq_shape_fail(
                rule, "axes[%d] is %lld, which is no dimension of %s", i,
                (long long)axes->ints[i], aq_shape_text(rule, x));
        if (i && axes->ints[i] <= axes->ints[i - 1])
            return aq_shape_fail(rule,
                                 "axes must ascend, but %lld follows "
                                 "%lld",
                                 (long long)axes->ints[i],
                                 (long long)axes->ints[i - 1]);
    }
    *out = (AqType){.element = x->element};
    for (int i = 0, next = 0; i < x->rank; i++) {
        if (next < axes->count && axes->ints[next] == i)
            next++;
        else
            out->dim[out->rank++] = x->dim[i];
    }
    return true;
}

bool aq_shape_reduce(AqShapeRule *rule)
{
    return reduced_type(rule, &rule->type);
}

bool aq_shape_moments(AqShapeRule *rule)
{
    if (!aq_shape_f32(rule, "its input", 0) ||
        !reduced_type(rule, &rule->results[0]))
        return false;
    rule->results[1] = rule->results[0];
    rule->n_results = 2;
    rule->type = (AqType){.element = AQ_RESULTS};
    return true;
}

/* ---- movement ---- */

/* A declared type of the input's element type. */
static bool declared_element(AqShapeRule *rule)
{
    const AqType *x = aq_shape_input(rule, 0);
    if (!aq_shape_declared_type(rule))
        return false;
    if (x->element == rule->type.element)
        return true;
    return aq_shape_fail(rule, "it cannot turn %s into %s: cast first",
                         aq_shape_text(rule, x),
                         aq_shape_text(rule, &rule->type));
}

static bool declared_rank(AqShapeRule *rule)
{
    const AqType *x = aq_shape_input(rule, 0);
    if (!declared_element(rule))
        return false;
    if (x->rank == rule->type.rank)
        return true;
    return aq_shape_fail(rule, "ranks %d and %d differ (%s to %s)", x->rank,
                         rule->type.rank, aq_shape_text(rule, x),
                         aq_shape_text(rule, &rule->type));
}

bool aq_shape_reshape(AqShapeRule *rule)
{
    const AqType *x = aq_shape_input(rule, 0);
    if (!declared_element(rule))
        return false;
    if (aq_elements(x) == aq_elements(&rule->type))
        return true;
    return aq_shape_fail(
        rule, "%lld elements do not fit into %lld (%s to %s)",
        (long long)aq_elements(x), (long long)aq_elements(&rule->type),
        aq_shape_text(rule, x), aq_shape_text(rule, &rule->type));
}

bool aq_shape_transpose(AqShapeRule *rule)
{
    const AqType *x = aq_shape_input(rule, 0);
    if (!check_permutation(rule, AQ_KEY_PERM, x->rank))
        return false;
    rule->type = *x;
    for (int i = 0; i < x->rank; i++)
        rule->type.dim[i] = x->dim[rule->attr[AQ_KEY_PERM].ints[i]];
    return true;
}

/* start + i * step for all i of the `small` type lie within the `large` one. */
static bool check_window(AqShapeRule *rule, const AqType *small,
                         const AqType *large)
{
    aq_shape_default_ints(rule, AQ_KEY_STEP, small->rank, 1);
    if (!aq_shape_list(rule, AQ_KEY_START, small->rank, 0) ||
        !aq_shape_list(rule, AQ_KEY_STEP, small->rank, 1))
        return false;
    for (int i = 0; i < small->rank; i++) {
        int64_t start = rule->attr[AQ_KEY_START].ints[i];
        int64_t step = rule->attr[AQ_KEY_STEP].ints[i], last;
        if (__builtin_mul_overflow(small->dim[i] - 1, step, &last) ||
            __builtin_add_overflow(last, start, &last))
            last = INT64_MAX;
        if (last >= large->dim[i])
            return aq_shape_fail(
                rule,
                "dimension %d of %s ends before place %lld, which start %lld, "
                "step %lld and size %lld reach",
                i, aq_shape_text(rule, large), (long long)last,
                (long long)start, (long long)step, (long long)small->dim[i]);
    }
    return true;
}

bool aq_shape_slice(AqShapeRule *rule)
{
    return declared_rank(rule) &&
           check_window(rule, &rule->type, aq_shape_input(rule, 0));
}

bool aq_shape_pad(AqShapeRule *rule)
{
    return declared_rank(rule) &&
           check_window(rule, aq_shape_input(rule, 0), &rule->type);
}

bool aq_shape_broadcast(AqShapeRule *rule)
{
    const AqType *x = aq_shape_input(rule, 0);
    if (!declared_rank(rule))
        return false;
    for (int i = 0; i < x->rank; i++)
        if (x->dim[i] != 1 && x->dim[i] != rule->type.dim[i])
            return aq_shape_fail(
                rule, "dimension %d is %lld and cannot become %lld (%s to %s)",
                i, (long long)x->dim[i], (long long)rule->type.dim[i],
                aq_shape_text(rule, x), aq_shape_text(rule, &rule->type));
    return true;
}

bool aq_shape_concat(AqShapeRule *rule)
{
    const AqType *first = aq_shape_input(rule, 0);
    if (!check_axis(rule, first->rank))
        return false;
    int axis = (int)rule->attr[AQ_KEY_AXIS].integer;
    AqType out = *first;
    for (int i = 1; i < rule->n_inputs; i++) {
        const AqType *type = aq_shape_input(rule, i);
        AqType other = *type;
        if (other.rank == first->rank)
            other.dim[axis] = first->dim[axis];
        if (!aq_same_type(&other, first))
            return aq_shape_fail(
                rule,
                "input %d does not agree with the first (%s and %s) in "
                "all but dimension %d",
                i, aq_shape_text(rule, type), aq_shape_text(rule, first), axis);
        if (__builtin_add_overflow(out.dim[axis], type->dim[axis],
                                   &out.dim[axis]))
            return aq_shape_fail(rule, "dimension %d grows too large", axis);
    }
    rule->type = out;
    return true;
}

bool aq_shape_repeat(AqShapeRule *rule)
{
    const AqType *x = aq_shape_input(rule, 0);
    if (!aq_shape_list(rule, AQ_KEY_FACTOR, x->rank, 1))
        return false;
    rule->type = *x;
    for (int i = 0; i < x->rank; i++)
        if (__builtin_mul_overflow(x->dim[i], rule->attr[AQ_KEY_FACTOR].ints[i],
                                   &rule->type.dim[i]))
            return aq_shape_fail(rule, "dimension %d grows too large", i);
    return true;
}

/* ---- look-up ---- */

static bool expect_index(AqShapeRule *rule, int input)
{
    const AqType *index = aq_shape_input(rule, input);
    if (index->element == AQ_I32)
        return true;
    return aq_shape_fail(rule, "the index must be i32, not %s",
                         aq_shape_text(rule, index));
}

/* (V, rest...), (index...) -> (index..., rest...) */
static bool looked_up(AqShapeRule *rule, const AqType *table,
                      const AqType *index, AqType *out)
{
    if (table->rank < 1)
        return aq_shape_fail(rule, "a table of rank 0 has no rows");
    if (index->rank + table->rank - 1 > AQ_MAX_RANK)
        return aq_shape_fail(rule,
                             "the rows of %s for the index %s have more than "
                             "%d dimensions",
                             aq_shape_text(rule, table),
                             aq_shape_text(rule, index), AQ_MAX_RANK);
    *out = (AqType){.element = table->element,
                    .rank = index->rank + table->rank - 1};
    memcpy(out->dim, index->dim, (size_t)index->rank * sizeof out->dim[0]);
    memcpy(out->dim + index->rank, table->dim + 1,
           (size_t)(table->rank - 1) * sizeof out->dim[0]);
    return true;
}

bool aq_shape_gather(AqShapeRule *rule)
{
    return expect_index(rule, 1) &&
           looked_up(rule, aq_shape_input(rule, 0), aq_shape_input(rule, 1),
                     &rule->type);
}

bool aq_shape_scatter_add(AqShapeRule *rule)
{
    const AqType *index = aq_shape_input(rule, 0);
    const AqType *updates = aq_shape_input(rule, 1);
    AqType expected;
    if (!expect_index(rule, 0) || !aq_shape_f32(rule, "the updates", 1) ||
        !aq_shape_declared_type(rule) ||
        !looked_up(rule, &rule->type, index, &expected))
        return false;
    if (aq_same_type(&expected, updates))
        return true;
    return aq_shape_fail(
        rule, "updates for %s at the index %s must be %s, not %s",
        aq_shape_text(rule, &rule->type), aq_shape_text(rule, index),
        aq_shape_text(rule, &expected), aq_shape_text(rule, updates));
}
