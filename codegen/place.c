/* Where code is placed: values that do not depend on a loop go before it. */
#include "codegen/expr.h"

AqExpr *aq_expr_new(AqEmit *e, const AqGraph *body, LLVMValueRef *buffers,
                    int lanes)
{
    AqExpr *x = AQ_NEW(e->arena, AqExpr);
    if (!x)
        return NULL;
    *x = (AqExpr){.e = e, .body = body, .buffers = buffers, .lanes = lanes};
    x->uses = AQ_NEW_ARRAY(e->arena, int, body->count + 1);
    x->pinned = AQ_NEW_ARRAY(e->arena, bool, body->count + 1);
    x->tables = AQ_NEW_ARRAY(e->arena, LLVMValueRef, body->count + 1);
    x->t = aq_index_table(e->arena, lanes);
    x->memo = aq_memo_new(e->arena);
    if (!x->uses || !x->pinned || !x->tables || !x->t || !x->memo) {
        aq_no_memory(e->error, sizeof *x);
        return NULL;
    }
    aq_count_uses(body, x->uses);
    return x;
}

void aq_expr_enter(AqExpr *x, LLVMBasicBlockRef before)
{
    x->entered++;
    x->level = x->entered;
    x->before[x->entered] = before;
}

void aq_expr_leave(AqExpr *x)
{
    aq_memo_drop(x->memo, x->entered);
    x->entered--;
    x->level = x->entered;
}

void aq_expr_forget(AqExpr *x)
{
    aq_memo_drop(x->memo, x->entered);
}

void aq_expr_mask(AqExpr *x, LLVMValueRef mask, int level)
{
    x->mask = mask;
    x->mask_level = mask ? level : 0;
}

void aq_expr_pin(AqExpr *x, AqId node)
{
    x->pinned[node] = true;
    for (AqId id = node + 1; id < x->body->count; id++) {
        const AqNode *user = aq_node(x->body, id);
        for (int i = 0; i < user->n_inputs; i++)
            if (x->pinned[user->inputs[i]])
                x->pinned[id] = true;
    }
}

static void place(AqExpr *x)
{
    LLVMBuilderRef builder = x->e->builder;
    if (x->level == x->entered)
        LLVMPositionBuilderAtEnd(builder, x->home);
    else
        LLVMPositionBuilderBefore(
            builder, LLVMGetBasicBlockTerminator(x->before[x->level + 1]));
}

int aq_place_at(AqExpr *x, int level)
{
    int old = x->level;
    if (level < old) {
        if (old == x->entered)
            x->home = LLVMGetInsertBlock(x->e->builder);
        x->level = level;
        place(x);
    }
    return old;
}

void aq_place_back(AqExpr *x, int level)
{
    if (x->level == level)
        return;
    x->level = level;
    place(x);
}

bool aq_varies(const AqExpr *x, AqIndex index)
{
    int64_t stride;
    return x->lanes > 1 && aq_index_form(x->t, index, &stride) != AQ_UNIFORM;
}
