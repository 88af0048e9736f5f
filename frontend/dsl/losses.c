/* Losses, and gradients of them. */
#include "frontend/dsl/build.h"
#include "passes/passes.h"

AqTensor aq_mse_(AqPlace at, AqTensor a, AqTensor b)
{
    AqTensor d = aq_subtract(a, b);
    return aq_mean(aq_square(d));
}

AqTensor aq_weighted_mse_(AqPlace at, AqTensor a, AqTensor b, AqTensor weight)
{
    AqTensor d = aq_square(aq_subtract(a, b));
    AqTensor each =
        aq_mean(aq_reshape(d, AQ_SHAPE(aq_dim(d, 0), -1)), .axes = AQ_AXES(1));
    return aq_mean(aq_mul(each, weight));
}

void aq_gradient_(AqPlace at, AqTensor loss, const AqTensor *wrt, int count,
                  AqTensor *gradients)
{
    for (int i = 0; i < count; i++)
        gradients[i] = aq_lost(loss);
    AqGraph *g = aq_enter(at, "gradient", &loss, 1);
    if (!g || !aq_enter(at, "gradient", wrt, count))
        return;
    AqId *ids = AQ_NEW_ARRAY(g->arena, AqId, 2 * (size_t)count);
    if (!ids) {
        aq_graph_fail(g, AQ_NO_MEMORY, "gradient: memory ended");
        return;
    }
    if (aq_elements(aq_type_of(loss)) != 1) {
        aq_complain(at, g,
                    "gradient: a loss has one element, and this %lld; take a "
                    "sum or a mean",
                    (long long)aq_elements(aq_type_of(loss)));
        return;
    }
    for (int i = 0; i < count; i++)
        ids[i] = wrt[i].id;
    if (aq_gradient_nodes(g, loss.id, ids, count, ids + count) != AQ_OK)
        return;
    for (int i = 0; i < count; i++)
        gradients[i] = aq_wrap(g, ids[count + i]);
}
