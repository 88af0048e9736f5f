/* Programs under test: what every test of them makes, or fails. */
#ifndef AQ_TEST_PROGRAMS_H
#define AQ_TEST_PROGRAMS_H

#include "runtime/runtime.h"

/* With object code in aq_test_folder. */
AqProgramSettings aq_test_settings(void);
AqPool *aq_test_pool(int threads);
AqMemory *aq_test_memory(void);
AqCompiled *aq_test_compiled(const AqGraph *g, AqMemory *memory, AqPool *pool,
                             const AqProgramSettings *settings);
AqRepeated *aq_test_repeated(const AqGraph *g, const AqRepeat *repeat,
                             AqMemory *memory, AqPool *pool);

#endif
