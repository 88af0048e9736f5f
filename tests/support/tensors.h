/* Tensors of the DSL over a bench, with data, held against plain loops. */
#ifndef AQ_TEST_TENSORS_H
#define AQ_TEST_TENSORS_H

#include "frontend/dsl/dsl.h"
#include "tests/support/bench.h"

AqTensor aq_test_tensor(const AqBench *b, AqId id);
/* An input with normal values (0 .. 9 where i32). */
AqTensor aq_test_input(AqBench *b, const char *name, AqType type);
/* Normal values for a parameter, bound by its name. */
const double *aq_test_fill(AqBench *b, const char *name, int64_t count);
/* The data of an input or of a parameter that was filled. */
const double *aq_test_data(const AqBench *b, const char *name);

/* Fails the test unless y has these values, to 1e-12. */
void aq_test_expect(AqBench *b, AqTensor y, const double *wanted,
                    int64_t count);
void aq_test_expect_shape(AqTensor x, AqShape wanted);

#endif
