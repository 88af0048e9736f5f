#include "tests/support/programs.h"

#include <setjmp.h>
#include <stdlib.h>

#include <cmocka.h>

#include "tests/support/folder.h"

AqProgramSettings aq_test_settings(void)
{
    return (AqProgramSettings){.compile = {.cache_dir = aq_test_folder}};
}

AqPool *aq_test_pool(int threads)
{
    AqError error = {0};
    AqPoolOptions options = {.threads = threads};
    AqPool *pool = aq_pool_new(&options, &error);
    if (!pool)
        fail_msg("%s", error.text);
    return pool;
}

AqMemory *aq_test_memory(void)
{
    AqError error = {0};
    AqMemory *memory = aq_memory_new(&error);
    if (!memory)
        fail_msg("%s", error.text);
    return memory;
}

AqCompiled *aq_test_compiled(const AqGraph *g, AqMemory *memory, AqPool *pool,
                             const AqProgramSettings *settings)
{
    AqError error = {0};
    AqCompiled *p = aq_compiled_new(g, memory, pool, settings, &error);
    if (!p)
        fail_msg("%s", error.text);
    return p;
}

AqRepeated *aq_test_repeated(const AqGraph *g, const AqRepeat *repeat,
                             AqMemory *memory, AqPool *pool)
{
    AqError error = {0};
    AqProgramSettings settings = aq_test_settings();
    AqRepeated *p = aq_repeated_new(g, repeat, memory, pool, &settings, &error);
    if (!p)
        fail_msg("%s", error.text);
    return p;
}
