/* A network of two layers with a loss of its own, built outside the house. */
#include <aquatint.h>
#include <math.h>
#include <stdio.h>

enum { COUNT = 256 };

static AqGraph *training_step(void)
{
    AqGraph *g = aq_graph_new();
    AqScope s = aq_root(g);
    AqTensor x = aq_input(g, "x", AQ_SHAPE(COUNT, 2));
    AqTensor y = aq_input(g, "y", AQ_SHAPE(COUNT, 1));
    AqTensor h = aq_silu(aq_linear(aq_sub(s, "in"), x, 32));
    AqTensor off = aq_subtract(aq_linear(aq_sub(s, "out"), h, 1), y);
    /* sqrt(1 + d^2) - 1: square near the truth, straight far away */
    AqTensor far = aq_shift(aq_sqrt(aq_shift(aq_square(off), 1)), -1);
    aq_minimize(aq_mean(far), (AqOptimizer){.rate.base = 1e-2});
    return g;
}

int main(void)
{
    AqGraph *g = training_step();
    AqProgram *p = aq_program_new(g, .seed = 1);
    aq_graph_free(g);
    float *x = aq_program_array(p, "x", NULL);
    float *y = aq_program_array(p, "y", NULL);
    for (int i = 0; x && y && i < COUNT; i++) {
        x[2 * i] = (float)sin(i), x[2 * i + 1] = (float)cos(2.3 * i);
        y[i] = 3 * x[2 * i] * x[2 * i + 1];
    }
    for (int step = 0; step <= 100 && aq_program_run(p); step++)
        if (step % 20 == 0)
            printf("step %d: loss %.4f\n", step, aq_program_number(p, "loss"));
    if (aq_program_error(p))
        printf("%s\n", aq_program_error(p));
    aq_program_free(p);
    return 0;
}
