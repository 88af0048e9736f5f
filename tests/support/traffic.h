/* What a graph of kernels moves through memory. */
#ifndef AQ_TEST_TRAFFIC_H
#define AQ_TEST_TRAFFIC_H

#include "ir/ir.h"

/* Bytes; an operand that several kernels read counts each time. */
typedef struct AqTraffic {
    int kernels;
    int64_t read, written;
    int64_t contracted; /* of `written`, by contractions and attention */
} AqTraffic;

/* Of the kernels that `output` depends on; of all if it is NULL. */
AqTraffic aq_test_traffic(const AqGraph *kernels, const char *output);

#endif
