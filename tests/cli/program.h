/* The built program `aquatint`, run as somebody at a shell would. */
#ifndef AQ_TEST_PROGRAM_H
#define AQ_TEST_PROGRAM_H

#include "ir/base/base.h"

enum { AQ_PROGRAM_TEXT = 1 << 20 };

/* A folder of its own for a test program: where commands run, with a cache of
 * code in it.  For cmocka's group setup and teardown. */
int aq_program_setup(void **state);
int aq_program_teardown(void **state);
/* The folder's path. */
const char *aq_program_root(void);

/* A shell's line in that folder: `aquatint` in it is the program.  Returns the
 * exit status (128 + signal, as a shell does). */
int aq_shell(const char *format, ...) AQ_PRINTF(1, 2);
/* What the last one printed, as two texts. */
const char *aq_printed(void);
const char *aq_complained(void);

/* Runs `aquatint ARGUMENTS` and fails the test, with everything printed, unless
 * the exit status is this one and `sentence` stands in stderr (in stdout, where
 * the status is 0); NULL: anything. */
void aq_expect(int status, const char *sentence, const char *format, ...)
    AQ_PRINTF(3, 4);
/* A whole file of the folder; malloc'd. */
char *aq_contents(const char *name, size_t *bytes);
/* Whether both files are there and equal. */
bool aq_same_files(const char *a, const char *b);

#endif
