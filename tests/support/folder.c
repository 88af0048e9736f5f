#include "tests/support/folder.h"

#include <stdio.h>
#include <stdlib.h>

char aq_test_folder[] = "/tmp/aquatint-test-XXXXXX";

int aq_test_make_folder(void **state)
{
    (void)state;
    return mkdtemp(aq_test_folder) ? 0 : -1;
}

int aq_test_remove_folder(void **state)
{
    (void)state;
    char command[64];
    snprintf(command, sizeof command, "rm -r %s", aq_test_folder);
    return system(command);
}

const char *aq_test_path(const char *name)
{
    static char paths[4][400];
    static int used;
    char *path = paths[used++ % 4];
    snprintf(path, sizeof paths[0], "%s/%s", aq_test_folder, name);
    return path;
}
