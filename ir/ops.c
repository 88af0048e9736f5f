/* What ops.def and attributes.def say, as tables; attributes for building. */
#include "ir/ir.h"

enum { LIST = 1 << 8 };
#define AT_LEAST(n) ((n) | LIST)

enum { /* the words of the column `facts` */
       POINTWISE = AQ_POINTWISE,
       COMMUTES = AQ_COMMUTES,
       MOVES = AQ_MOVES,
       SOURCE = AQ_SOURCE,
       RESULTS = AQ_HAS_RESULTS,
       INTEGERS = AQ_INTEGERS,
       EXPENSIVE = AQ_EXPENSIVE,
       REDUCES = AQ_REDUCES,
};

enum { /* the words of the column `attributes` */
#define ATTRIBUTE(KEY, name, kind) A_##KEY = 1 << AQ_KEY_##KEY,
#include "ir/attributes.def"
#undef ATTRIBUTE
};

_Static_assert(AQ_KEY_COUNT < 32, "A_ words are bits of an int");

const AqOpInfo aq_op_info[AQ_OP_COUNT] = {
#define OP(op, count, fact, attribute, shape, gradient, evaluation, kind)      \
    [AQ_OP_##op] = {.name = #op,                                               \
                    .inputs = (count) & (LIST - 1),                            \
                    .list = ((count)&LIST) != 0,                               \
                    .facts = (fact),                                           \
                    .attributes = (attribute),                                 \
                    .lowering = AQ_LOWER_##kind},
#include "ir/ops.def"
#undef OP
};

const char *const aq_key_name[AQ_KEY_COUNT] = {
#define ATTRIBUTE(KEY, name, kind) [AQ_KEY_##KEY] = #name,
#include "ir/attributes.def"
#undef ATTRIBUTE
};

const AqAttrKind aq_key_kind[AQ_KEY_COUNT] = {
#define ATTRIBUTE(KEY, name, kind) [AQ_KEY_##KEY] = AQ_##kind,
#include "ir/attributes.def"
#undef ATTRIBUTE
};

AqAttr aq_int(AqKey key, int64_t value)
{
    return (AqAttr){.key = key, .count = 1, .integer = value};
}

AqAttr aq_real(AqKey key, double value)
{
    return (AqAttr){.key = key, .count = 1, .real = value};
}

AqAttr aq_text(AqKey key, const char *value)
{
    return (AqAttr){.key = key, .text = value};
}

AqAttr aq_ints(AqKey key, const int64_t *values, int count)
{
    return (AqAttr){.key = key, .count = count, .ints = values};
}

AqAttr aq_reals(AqKey key, const double *values, int count)
{
    return (AqAttr){.key = key, .count = count, .reals = values};
}

AqAttr aq_body(const AqGraph *body)
{
    return (AqAttr){.key = AQ_KEY_BODY, .body = body};
}
