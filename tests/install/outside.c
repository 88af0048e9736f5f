/* A network of two layers with a loss of its own, built outside the house. */
#include <aquatint.h>
#include <stdio.h>

int main(void)
{
    AqGraph *g = aq_graph_new();
    AqScope s = aq_root(g);
    AqTensor x = aq_input(g, "x", AQ_SHAPE(64, 2));
    AqTensor y = aq_input(g, "y", AQ_SHAPE(64, 1));
    AqTensor h = aq_silu(aq_linear(aq_sub(s, "in"), x, 32));
    AqTensor p = aq_linear(aq_sub(s, "out"), h, 1);
    AqTensor off = aq_subtract(p, y);
    /* sqrt(1 + d^2) - 1: square near the truth, straight far away */
    AqTensor loss = aq_mean(aq_shift(aq_sqrt(aq_shift(aq_square(off), 1)), -1));
    aq_minimize(loss, (AqOptimizer){.rate.base = 1e-2});
    const char *error = aq_graph_error(g);
    printf("%s\n", error ? error : "no mistakes");
    aq_graph_free(g);
    return error != NULL;
}
