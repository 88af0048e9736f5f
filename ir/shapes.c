/* What every shape rule shares: gathering attributes, defaults, messages. */
#include "ir/shapes.h"

#include <stdarg.h>
#include <string.h>

typedef bool Rule(AqShapeRule *rule);

static Rule *const rules[AQ_OP_COUNT] = {
#define OP(name, inputs, facts, attributes, shape, ...)                        \
    [AQ_OP_##name] = aq_shape_##shape,
#include "ir/ops.def"
#undef OP
};

/* ---- messages ---- */

bool aq_shape_fail(AqShapeRule *rule, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    vsnprintf(rule->message, sizeof rule->message, format, args);
    va_end(args);
    return false;
}

/* The last five texts stay valid: enough for one sentence. */
const char *aq_shape_text(AqShapeRule *rule, const AqType *type)
{
    char *text = rule->text[rule->texts++ % AQ_COUNT(rule->text)];
    size_t room = sizeof rule->text[0], at = 0;
    if (type->element == AQ_RESULTS)
        return "results";
    at = (size_t)snprintf(text, room, "%s[",
                          type->element == AQ_I32 ? "i32" : "f32");
    for (int i = 0; i < AQ_MIN(type->rank, (int)AQ_MAX_RANK); i++)
        at += (size_t)snprintf(text + at, room - at, i ? ",%lld" : "%lld",
                               (long long)type->dim[i]);
    snprintf(text + at, room - at, "]");
    return text;
}

/* ---- attributes ---- */

static void put(AqShapeRule *rule, AqAttr attr)
{
    rule->attr[attr.key] = attr;
    rule->present |= 1u << attr.key;
}

bool aq_shape_need(AqShapeRule *rule, AqKey key)
{
    if (aq_shape_has(rule, key))
        return true;
    return aq_shape_fail(rule, "the attribute %s is missing", aq_key_name[key]);
}

void aq_shape_default(AqShapeRule *rule, AqAttr attr)
{
    if (!aq_shape_has(rule, attr.key))
        put(rule, attr);
}

void aq_shape_default_ints(AqShapeRule *rule, AqKey key, int count,
                           int64_t value)
{
    static const int64_t zeros[AQ_MAX_RANK];
    static const int64_t ones[AQ_MAX_RANK] = {1, 1, 1, 1, 1, 1, 1, 1};
    aq_shape_default(rule, aq_ints(key, value ? ones : zeros, count));
}

bool aq_shape_list(AqShapeRule *rule, AqKey key, int count, int64_t least)
{
    if (!aq_shape_need(rule, key))
        return false;
    const AqAttr *attr = &rule->attr[key];
    if (attr->count != count)
        return aq_shape_fail(rule, "%s has %d numbers, but %d are needed",
                             aq_key_name[key], attr->count, count);
    for (int i = 0; i < count; i++)
        if (attr->ints[i] < least)
            return aq_shape_fail(rule,
                                 "%s[%d] is %lld, but must be at least %lld",
                                 aq_key_name[key], i, (long long)attr->ints[i],
                                 (long long)least);
    return true;
}

bool aq_shape_int(AqShapeRule *rule, AqKey key, int64_t least)
{
    if (!aq_shape_need(rule, key))
        return false;
    if (rule->attr[key].integer >= least)
        return true;
    return aq_shape_fail(rule, "%s is %lld, but must be at least %lld",
                         aq_key_name[key], (long long)rule->attr[key].integer,
                         (long long)least);
}

bool aq_shape_flag(AqShapeRule *rule, AqKey key)
{
    aq_shape_default(rule, aq_int(key, 0));
    int64_t value = rule->attr[key].integer;
    if (value == 0 || value == 1)
        return true;
    return aq_shape_fail(rule, "%s is %lld, but must be 0 or 1",
                         aq_key_name[key], (long long)value);
}

bool aq_shape_word(AqShapeRule *rule, AqKey key, const char *const *words,
                   int count)
{
    if (!aq_shape_need(rule, key))
        return false;
    const char *given = rule->attr[key].text;
    char known[160] = "";
    for (int i = 0; i < count; i++) {
        if (!strcmp(given, words[i]))
            return true;
        strcat(known, i == 0 ? "" : i == count - 1 ? " or " : ", ");
        strcat(known, words[i]);
    }
    return aq_shape_fail(rule, "%s is \"%.60s\", but must be %s",
                         aq_key_name[key], given, known);
}

static bool gather_attributes(AqShapeRule *rule, const AqAttr *attrs, int count)
{
    for (int i = 0; i < count; i++) {
        AqAttr attr = attrs[i];
        if ((unsigned)attr.key >= AQ_KEY_COUNT)
            return aq_shape_fail(rule, "attribute key %d does not exist",
                                 (int)attr.key);
        const char *name = aq_key_name[attr.key];
        if (!(aq_op_info[rule->op].attributes >> attr.key & 1))
            return aq_shape_fail(rule, "it has no attribute %s", name);
        if (aq_shape_has(rule, attr.key))
            return aq_shape_fail(rule, "the attribute %s is given twice", name);
        AqAttrKind kind = aq_key_kind[attr.key];
        if ((kind == AQ_TEXT && !attr.text) || (kind == AQ_BODY && !attr.body))
            return aq_shape_fail(rule, "the attribute %s is NULL", name);
        put(rule, attr);
    }
    return true;
}

/* ---- types ---- */

static bool check_type(AqShapeRule *rule, const AqType *type)
{
    if (type->element != AQ_F32 && type->element != AQ_I32)
        return aq_shape_fail(rule, "a declared type must be f32 or i32");
    if (type->rank < 0 || type->rank > AQ_MAX_RANK)
        return aq_shape_fail(rule, "rank %d is not within 0 ... %d", type->rank,
                             AQ_MAX_RANK);
    int64_t bytes = 4;
    for (int i = 0; i < type->rank; i++) {
        if (type->dim[i] < 1)
            return aq_shape_fail(
                rule, "dimension %d of %s is %lld, but must be at least 1", i,
                aq_shape_text(rule, type), (long long)type->dim[i]);
        if (__builtin_mul_overflow(bytes, type->dim[i], &bytes))
            return aq_shape_fail(rule, "%s has too many elements to count",
                                 aq_shape_text(rule, type));
    }
    return true;
}

bool aq_shape_declared_type(AqShapeRule *rule)
{
    if (!rule->declared)
        return aq_shape_fail(rule, "its type must be declared");
    if (!check_type(rule, rule->declared))
        return false;
    rule->type = aq_type(rule->declared->element, rule->declared->rank,
                         rule->declared->dim);
    return true;
}

bool aq_shape_f32(AqShapeRule *rule, const char *name, int input)
{
    const AqType *type = aq_shape_input(rule, input);
    if (type->element == AQ_F32)
        return true;
    return aq_shape_fail(rule, "%s must be f32, not %s: cast it", name,
                         aq_shape_text(rule, type));
}

static bool check_inputs(AqShapeRule *rule)
{
    const AqOpInfo *info = &aq_op_info[rule->op];
    int n = rule->n_inputs;
    if (info->list ? n < info->inputs : n != info->inputs)
        return aq_shape_fail(rule, "it takes %s%d input%s, not %d",
                             info->list ? "at least " : "", info->inputs,
                             info->inputs == 1 ? "" : "s", n);
    for (int i = 0; i < n; i++) {
        AqId id = rule->inputs[i];
        if (id < 0 || id >= rule->graph->count)
            return aq_shape_fail(
                rule, "input %d is node %d, which this graph does not have", i,
                (int)id);
        if (rule->op != AQ_OP_result &&
            aq_shape_input(rule, i)->element == AQ_RESULTS)
            return aq_shape_fail(
                rule,
                "input %d is %s, which has several values: read one "
                "with result",
                i, aq_op_info[rule->graph->nodes[id].op].name);
    }
    return true;
}

static bool check_answer(AqShapeRule *rule)
{
    for (int i = 0; i < rule->n_results; i++)
        if (!check_type(rule, &rule->results[i]))
            return false;
    if (rule->type.element != AQ_RESULTS && !check_type(rule, &rule->type))
        return false;
    if (!rule->declared || aq_same_type(rule->declared, &rule->type))
        return true;
    return aq_shape_fail(rule, "its value is %s, but %s was declared",
                         aq_shape_text(rule, &rule->type),
                         aq_shape_text(rule, rule->declared));
}

bool aq_shape_run(AqShapeRule *rule, const AqAttr *attrs, int n_attrs)
{
    rule->present = 0;
    rule->texts = 0;
    rule->n_results = 0;
    rule->message[0] = 0;
    if ((unsigned)rule->op >= AQ_OP_COUNT)
        return aq_shape_fail(rule, "op %d does not exist", (int)rule->op);
    return gather_attributes(rule, attrs, n_attrs) && check_inputs(rule) &&
           rules[rule->op](rule) && check_answer(rule);
}

bool aq_shape_again(AqShapeRule *rule, const AqGraph *graph, const AqNode *node)
{
    rule->graph = graph;
    rule->op = node->op;
    rule->declared = &node->type;
    rule->inputs = node->inputs;
    rule->n_inputs = node->n_inputs;
    return aq_shape_run(rule, node->attrs, node->n_attrs);
}
