#include "tests/support/traffic.h"

#include <stdlib.h>
#include <string.h>

static void need(const AqGraph *g, AqId id, bool *needed)
{
    const AqNode *node = aq_node(g, id);
    if (needed[id])
        return;
    needed[id] = true;
    for (int i = 0; i < node->n_inputs; i++)
        need(g, node->inputs[i], needed);
}

static void add_kernel(const AqGraph *g, AqId id, AqTraffic *traffic)
{
    const AqNode *node = aq_node(g, id);
    const char *kind = aq_attr_text(node, AQ_KEY_KIND, "");
    bool contracts = !strcmp(kind, "contract") || !strcmp(kind, "attend");
    traffic->kernels++;
    for (int i = 0; i < node->n_inputs; i++)
        traffic->read += aq_bytes(&aq_node(g, node->inputs[i])->type);
    for (int i = 0; i < aq_result_count(g, id); i++) {
        AqType type = aq_result_type(g, id, i);
        traffic->written += aq_bytes(&type);
        traffic->contracted += contracts ? aq_bytes(&type) : 0;
    }
}

AqTraffic aq_test_traffic(const AqGraph *kernels, const char *output)
{
    AqTraffic traffic = {0};
    bool *needed = calloc((size_t)kernels->count + 1, sizeof *needed);
    for (int i = 0; needed && i < kernels->n_outputs; i++)
        if (!output || !strcmp(kernels->outputs[i].name, output))
            need(kernels, kernels->outputs[i].node, needed);
    for (AqId id = 0; needed && id < kernels->count; id++)
        if (needed[id] && aq_node(kernels, id)->op == AQ_OP_kernel)
            add_kernel(kernels, id, &traffic);
    free(needed);
    return traffic;
}
