/* A program with all that it works on, and what it leaves there. */
#ifndef AQ_TEST_MACHINE_H
#define AQ_TEST_MACHINE_H

#include "runtime/runtime.h"

typedef struct AqMachine {
    AqPool *pool;
    AqMemory *memory;
    AqCompiled *program; /* NULL: refused, where there is a limit */
    AqError error;       /* why */
} AqMachine;

/* With object code in aq_test_folder; limit 0: none. */
AqMachine aq_machine_new(const AqGraph *g, AqPoolOptions options,
                         int64_t limit);
AqMachine aq_machine_with(const AqGraph *g, AqPoolOptions options,
                          const AqProgramSettings *settings);
void aq_machine_free(AqMachine *m);

/* Random values for every array: the same ones for the same name. */
void aq_machine_fill(const AqMachine *m, const AqGraph *g);
/* Those of one array. */
void aq_machine_fill_array(void *data, const AqBase *base, const AqGraph *g);
/* All that a run leaves: outputs and states, one after the other. */
AqText aq_machine_left(const AqMachine *m);
/* What three steps leave, begun with those values. */
AqText aq_machine_three_steps(const AqGraph *g, AqPoolOptions options,
                              int64_t limit);
AqText aq_machine_three_with(const AqGraph *g, AqPoolOptions options,
                             const AqProgramSettings *settings);
void aq_check_same_left(const AqText *a, const AqText *b);

#endif
