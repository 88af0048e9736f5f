#include "tests/support/cache_folder.h"

#include <stdio.h>
#include <stdlib.h>

char aq_test_cache[] = "/tmp/aquatint-cache-XXXXXX";

int aq_test_make_cache(void **state)
{
    (void)state;
    return mkdtemp(aq_test_cache) ? 0 : -1;
}

int aq_test_remove_cache(void **state)
{
    (void)state;
    char command[64];
    snprintf(command, sizeof command, "rm -r %s", aq_test_cache);
    return system(command);
}
