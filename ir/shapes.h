/* Between graph.c, verify.c and the shape rules; nobody else includes it.
 *
 * A rule reads the inputs' types and the attributes, adds attributes that were
 * left at their defaults, and says the type, or why there is none. */
#ifndef AQ_SHAPES_H
#define AQ_SHAPES_H

#include "ir/ir.h"

typedef struct AqShapeRule {
    const AqGraph *graph;
    AqOp op;
    const AqType *declared; /* NULL: none */
    const AqId *inputs;     /* ids of earlier nodes of the graph */
    int n_inputs;
    uint32_t present; /* bit 1 << AqKey */
    AqAttr attr[AQ_KEY_COUNT];
    AqType type; /* the answer */
    AqType results[AQ_MAX_RESULTS];
    int n_results;
    char message[640]; /* or why not, without the op's name */
    char text[5][192]; /* types within the message */
    int texts;
} AqShapeRule;

/* shapes.c */

/* Checks inputs and attributes, runs the op's rule, checks its answer.  The
 * fields graph ... n_inputs are set by the caller. */
bool aq_shape_run(AqShapeRule *rule, const AqAttr *attrs, int n_attrs);
/* The same for a node that was built before. */
bool aq_shape_again(AqShapeRule *rule, const AqGraph *graph,
                    const AqNode *node);
bool aq_shape_fail(AqShapeRule *rule, const char *format, ...) AQ_PRINTF(2, 3);
const char *aq_shape_text(AqShapeRule *rule, const AqType *type);
bool aq_shape_need(AqShapeRule *rule, AqKey key);
/* Stores what stands for an attribute that was not given. */
void aq_shape_default(AqShapeRule *rule, AqAttr attr);
void aq_shape_default_ints(AqShapeRule *rule, AqKey key, int count,
                           int64_t value); /* value: 0 or 1 */
/* A list of `count` integers, each at least `least`. */
bool aq_shape_list(AqShapeRule *rule, AqKey key, int count, int64_t least);
bool aq_shape_int(AqShapeRule *rule, AqKey key, int64_t least);
bool aq_shape_flag(AqShapeRule *rule, AqKey key); /* 0 or 1; by default 0 */
bool aq_shape_word(AqShapeRule *rule, AqKey key, const char *const *words,
                   int count); /* one of the words */
bool aq_shape_f32(AqShapeRule *rule, const char *name, int input);
bool aq_shape_declared_type(AqShapeRule *rule);

static inline const AqType *aq_shape_input(const AqShapeRule *rule, int i)
{
    return &rule->graph->nodes[rule->inputs[i]].type;
}

static inline bool aq_shape_has(const AqShapeRule *rule, AqKey key)
{
    return rule->present >> key & 1;
}

/* The rules: shapes_plain.c and shapes_contract.c */
#define OP(name, inputs, facts, attributes, shape, ...)                        \
    bool aq_shape_##shape(AqShapeRule *rule);
#include "ir/ops.def"
#undef OP

#endif
