/* Gradients against central differences, in double. */
#ifndef AQ_TEST_GRADIENT_CHECK_H
#define AQ_TEST_GRADIENT_CHECK_H

#include "ir/ir.h"

/* Appends d loss / d wrt to the graph and holds it against
 * (loss(x + e d) - loss(x - e d)) / 2e, e = 1e-6, along random directions d
 * and along single coordinates.  `wrt` is an input, param or state bound by its
 * own name.  The two may differ by atol + rtol |slope|.  False, with one
 * sentence in `message`, where they differ by more. */
bool aq_test_check_gradient(AqGraph *g, AqId loss, AqId wrt,
                            const AqBinding *bindings, int n_bindings,
                            double rtol, double atol, char *message,
                            size_t message_size);
/* The same for a gradient that is given, as computed by whatever is tested. */
bool aq_test_check_slopes(const AqGraph *g, AqId loss, AqId wrt,
                          const double *gradient, const AqBinding *bindings,
                          int n_bindings, double rtol, double atol,
                          char *message, size_t message_size);

#endif
