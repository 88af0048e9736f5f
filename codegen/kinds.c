/* The kinds of kernel, one row each. */
#include "codegen/emit.h"

#include <string.h>

static const AqKernelKind *const kinds[] = {
    &aq_kind_map, &aq_kind_contract, &aq_kind_attend, &aq_kind_scatter, NULL,
};

AqStatus aq_kernel_of(const AqGraph *graph, AqId id, const AqTarget *target,
                      AqKernel *kernel, AqError *error)
{
    if (id < 0 || id >= graph->count || aq_node(graph, id)->op != AQ_OP_kernel)
        return aq_fail(error, AQ_INTERNAL, "node %%%d is no kernel", id);
    *kernel = (AqKernel){.graph = graph,
                         .id = id,
                         .node = aq_node(graph, id),
                         .body = aq_attr_body(aq_node(graph, id)),
                         .target = target};
    return AQ_OK;
}

const AqKernelKind *aq_kernel_kind(const AqKernel *kernel, AqError *error)
{
    const char *name = aq_attr_text(kernel->node, AQ_KEY_KIND, "");
    for (int i = 0; kinds[i]; i++)
        if (strcmp(kinds[i]->name, name) == 0)
            return kinds[i];
    aq_fail(error, AQ_UNSUPPORTED,
            "%s:%d: code generation knows no kind of kernel \"%s\"",
            kernel->node->file, kernel->node->line, name);
    return NULL;
}

const AqNode *aq_reduction_of(const AqGraph *body, AqId id, int *component)
{
    const AqNode *node = aq_node(body, id);
    *component = 0;
    if (node->op == AQ_OP_result) {
        *component = (int)aq_attr_int(node, AQ_KEY_INDEX, 0);
        node = aq_node(body, node->inputs[0]);
    }
    return aq_op_info[node->op].facts & AQ_REDUCES ? node : NULL;
}

AqStatus aq_kernel_layout(const AqGraph *graph, AqId id, const AqTarget *target,
                          AqKernelLayout *layout, AqError *error)
{
    AqError own = {0};
    AqKernel kernel;
    const AqKernelKind *kind = NULL;
    *layout = (AqKernelLayout){0};
    if (aq_kernel_of(graph, id, target, &kernel, &own) == AQ_OK)
        kind = aq_kernel_kind(&kernel, &own);
    if (kind)
        kind->layout(&kernel, layout, &own);
    return own.status ? aq_fail(error, own.status, "%s", own.text) : AQ_OK;
}
