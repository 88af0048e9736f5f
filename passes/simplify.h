/* What the rules of simplify share.  A rule looks at one node and what lies
 * before it, never at its users; so a node to which no rule applies stays so,
 * and a second run changes nothing.  Rules lie in simplify_FAMILY.c, one row
 * each in that file's table. */
#ifndef AQ_SIMPLIFY_H
#define AQ_SIMPLIFY_H

#include "passes/passes.h"

/* Builds what node `id` is to be replaced by, or returns AQ_NO_NODE where the
 * rule does not apply. */
typedef AqId AqRewrite(AqGraph *g, AqId id);

typedef struct AqRewriteRow {
    AqOp op; /* AQ_OP_COUNT: any op that has one of the `facts` */
    unsigned facts;
    AqRewrite *rewrite;
} AqRewriteRow;

/* Each ends with a row without a rule. */
extern const AqRewriteRow aq_rewrite_folding[];
extern const AqRewriteRow aq_rewrite_algebra[];
extern const AqRewriteRow aq_rewrite_movement[];
extern const AqRewriteRow aq_rewrite_contractions[];

/* ---- simplify.c ---- */

/* Applies rules to a node of g until none fits.  What a rule builds between
 * its replacement and the node's inputs goes through here as well. */
AqId aq_settle(AqGraph *g, AqId id);

/* ---- simplify_fold.c ---- */

/* Whether the node is a const, and of which value. */
bool aq_const_value(const AqGraph *g, AqId id, double *value);

static inline AqId input_of(const AqGraph *g, AqId id, int i)
{
    return aq_node(g, id)->inputs[i];
}

static inline AqOp op_of(const AqGraph *g, AqId id)
{
    return aq_node(g, id)->op;
}

#endif
