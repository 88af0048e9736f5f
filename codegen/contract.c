/* The kind `contract`: a body with one contraction, whatever comes before and
 * after it, by one of several algorithms.  What they share stands here. */
#include "codegen/contract.h"

#include <string.h>

static const AqContractAlgorithm *const algorithms[] = {
    &aq_algorithm_gemm, &aq_algorithm_gemm_split, &aq_algorithm_winograd,
    &aq_algorithm_blas};

/* ---- the body ---- */

static AqStatus find_contraction(AqContractKernel *k, AqError *error)
{
    const AqGraph *body = k->kernel->body;
    k->id = AQ_NO_NODE;
    for (AqId id = 0; id < body->count; id++) {
        if (aq_op_info[aq_node(body, id)->op].lowering != AQ_LOWER_contract)
            continue;
        if (k->id != AQ_NO_NODE)
            return aq_fail(error, AQ_INTERNAL,
                           "contract kernel %%%d has two contractions",
                           k->kernel->id);
        k->id = id;
    }
    if (k->id == AQ_NO_NODE)
        return aq_fail(error, AQ_INTERNAL,
                       "contract kernel %%%d has no contraction",
                       k->kernel->id);
    k->node = aq_node(body, k->id);
    return aq_sums_find(k->kernel, k->id, &k->sums, error);
}

/* The contraction's value, perhaps in another shape. */
static bool is_value(const AqGraph *body, AqId id, AqId contraction)
{
    while (id != contraction) {
        const AqNode *node = aq_node(body, id);
        if (node->op != AQ_OP_reshape && node->op != AQ_OP_detach)
            return false;
        id = node->inputs[0];
    }
    return true;
}

static const AqContractAlgorithm *
algorithm_of(AqContractKernel *k, const AqKernel *kernel, AqError *error)
{
    *k = (AqContractKernel){.kernel = kernel,
                            .strip = aq_tile_columns(kernel->target)};
    if (find_contraction(k, error))
        return NULL;
    const AqGraph *body = kernel->body;
    k->plain =
        body->n_outputs == 1 && is_value(body, body->outputs[0].node, k->id);
    const char *name = aq_attr_text(kernel->node, AQ_KEY_ALGORITHM, "gemm");
    for (int i = 0; i < AQ_COUNT(algorithms); i++)
        if (!strcmp(algorithms[i]->name, name)) {
            k->split = algorithms[i]->split;
            return algorithms[i];
        }
    aq_fail(error, AQ_INTERNAL, "contract kernel %%%d: no algorithm \"%s\"",
            kernel->id, name);
    return NULL;
}

static AqStatus contract_layout(const AqKernel *kernel, AqKernelLayout *layout,
                                AqError *error)
{
    AqContractKernel k;
    const AqContractAlgorithm *algorithm = algorithm_of(&k, kernel, error);
    return algorithm ? algorithm->layout(&k, layout, error) : error->status;
}

static AqStatus contract_plan(AqCodePlan *plan, const AqKernel *kernel,
                              AqError *error)
{
    AqContractKernel k;
    const AqContractAlgorithm *algorithm = algorithm_of(&k, kernel, error);
    return algorithm ? algorithm->plan(plan, &k, error) : error->status;
}

/* ---- leaves made from the body ---- */

AqStatus aq_contract_link(AqCodePlan *plan, size_t offset, int unit,
                          AqError *error)
{
    if (unit < 0)
        return aq_no_memory(error, sizeof unit);
    return aq_code_plan_link(plan, offset, unit);
}

void aq_contract_narrow(AqContractKernel *k, int64_t strip)
{
    k->strip = strip;
    aq_sums_divide(&k->sums, strip);
}

void aq_contract_leaves(const AqContractKernel *k, AqPacking *packing,
                        AqStoring *storing)
{
    const AqTarget *target = k->kernel->target;
    AqView out = aq_row_major_view(0, &k->node->type);
    *packing = (AqPacking){.columns = k->strip, .vector = target->vector};
    *storing = (AqStoring){.columns = k->strip,
                           .out_buffer = k->kernel->node->n_inputs,
                           .rank = k->node->type.rank,
                           .sums = k->sums};
    memcpy(storing->out_stride, out.stride, sizeof storing->out_stride);
}

AqStatus aq_contract_link_packing(AqCodePlan *plan, const AqContractKernel *k,
                                  bool in_rows, size_t packing, AqError *error)
{
    int64_t *strip =
        aq_arena_copy(aq_code_plan_arena(plan), &k->strip, sizeof k->strip);
    if (!strip)
        return aq_no_memory(error, sizeof *strip);
    if (in_rows)
        return aq_contract_link(plan, packing + offsetof(AqPacking, strip),
                                aq_code_plan_unit(plan, "panel", strip,
                                                  sizeof *strip, aq_emit_panel,
                                                  strip),
                                error);
    return aq_contract_link(plan, packing + offsetof(AqPacking, transpose),
                            aq_code_plan_unit(plan, "transpose", strip,
                                              sizeof *strip, aq_emit_transpose,
                                              strip),
                            error);
}

AqStatus aq_contract_link_micros(AqCodePlan *plan, const AqContractKernel *k,
                                 const AqMicroKey *like, const bool *used,
                                 int64_t n, size_t micros, AqError *error)
{
    int64_t columns = k->strip, vector = k->kernel->target->vector;
    int64_t whole = n >= columns ? columns / vector : 0;
    int64_t rest = (n % columns + vector - 1) / vector;
    for (int i = 0; i < AQ_MOST_VECTORS * (AQ_MOST_ROWS + 1); i++) {
        int vectors = 1 + i / (AQ_MOST_ROWS + 1), rows = i % (AQ_MOST_ROWS + 1);
        if (!used[rows] || (vectors != whole && vectors != rest))
            continue;
        AqMicroKey *key =
            aq_arena_copy(aq_code_plan_arena(plan), like, sizeof *like);
        if (!key)
            return aq_no_memory(error, sizeof *key);
        key->columns = (int32_t)columns;
        key->rows = rows;
        key->vectors = vectors;
        int unit = aq_code_plan_unit(
            plan, "micro", key, sizeof *key,
            key->panel == AQ_PANEL_SPLIT ? aq_emit_micro_split : aq_emit_micro,
            key);
        if (aq_contract_link(plan, micros + (size_t)i * sizeof(AqMicroFn *),
                             unit, error))
            return error->status;
    }
    return AQ_OK;
}

AqStatus aq_contract_link_splitting(AqCodePlan *plan, const AqContractKernel *k,
                                    size_t splitting, AqError *error)
{
    int64_t *strip =
        aq_arena_copy(aq_code_plan_arena(plan), &k->strip, sizeof k->strip);
    if (!strip)
        return aq_no_memory(error, sizeof *strip);
    int rows =
        aq_code_plan_unit(plan, "split", "", 0, aq_emit_split_rows, NULL);
    if (aq_contract_link(plan, splitting + offsetof(AqSplitting, rows), rows,
                         error))
        return error->status;
    return aq_contract_link(plan, splitting + offsetof(AqSplitting, strip),
                            aq_code_plan_unit(plan, "split", strip,
                                              sizeof *strip,
                                              aq_emit_split_strip, strip),
                            error);
}

/* All that the leaf's code depends on. */
static void epilogue_key(const AqStoreCode *code, AqText *key)
{
    const AqSums *sums = &code->sums;
    int64_t numbers[] = {code->contraction, code->n_inputs, code->columns,
                         code->strip,       sums->count,    sums->rows,
                         sums->width};
    aq_text_bytes(key, numbers, sizeof numbers);
    for (int i = 0; i < sums->count; i++) {
        const AqSum *sum = &sums->of[i];
        int64_t more[] = {sum->op, sum->value, sum->row};
        aq_text_bytes(key, more, sizeof more);
    }
    aq_body_key(code->body, key);
}

static AqStatus link_epilogue(AqCodePlan *plan, const AqContractKernel *k,
                              int64_t columns, size_t offset, AqError *error)
{
    AqStoreCode *code = AQ_NEW(aq_code_plan_arena(plan), AqStoreCode);
    const AqId *ids;
    const AqGraph *body = aq_body_epilogue(plan, k->kernel->body, k->id, &ids);
    if (!code || !body)
        return aq_no_memory(error, sizeof *code);
    *code = (AqStoreCode){.body = body,
                          .contraction = ids[k->id],
                          .n_inputs = k->kernel->node->n_inputs,
                          .columns = columns,
                          .strip = k->strip,
                          .sums = k->sums};
    for (int i = 0; i < code->sums.count; i++)
        code->sums.of[i].value = ids[k->sums.of[i].value];
    AqText key = {0};
    epilogue_key(code, &key);
    int unit = aq_code_plan_leaf(plan, "store", key.data, key.length,
                                 aq_emit_tile_store, code);
    aq_text_free(&key);
    return aq_contract_link(plan, offset, unit, error);
}

AqStatus aq_contract_link_storing(AqCodePlan *plan, const AqContractKernel *k,
                                  int64_t columns, size_t storing,
                                  AqError *error)
{
    int copy = aq_code_plan_unit(plan, "copy", "", 0, aq_emit_copy, NULL);
    if (aq_contract_link(plan, storing + offsetof(AqStoring, copy), copy,
                         error) ||
        k->plain)
        return error->status;
    return link_epilogue(plan, k, columns, storing + offsetof(AqStoring, store),
                         error);
}

AqStatus aq_contract_link_evaluate(AqCodePlan *plan, const AqContractKernel *k,
                                   int which, size_t offset, AqError *error)
{
    AqOperandCode *code = AQ_NEW(aq_code_plan_arena(plan), AqOperandCode);
    const AqGraph *body =
        aq_body_operand(plan, k->kernel->body, k->node->inputs[which]);
    if (!code || !body)
        return aq_no_memory(error, sizeof *code);
    *code = (AqOperandCode){.body = body, .node = body->outputs[0].node};
    AqText key = {0};
    aq_body_key(body, &key);
    int unit = aq_code_plan_leaf(plan, "operand", key.data, key.length,
                                 aq_emit_evaluate, code);
    aq_text_free(&key);
    return aq_contract_link(plan, offset, unit, error);
}

const AqKernelKind aq_kind_contract = {
    .name = "contract", .layout = contract_layout, .plan = contract_plan};
