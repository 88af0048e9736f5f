/* A folder for the files, or for the object code, of one test program: the
 * set-up and tear-down of its group, for cmocka_run_group_tests. */
#ifndef AQ_TEST_FOLDER_H
#define AQ_TEST_FOLDER_H

extern char aq_test_folder[]; /* its path, once it is made */

int aq_test_make_folder(void **state);
int aq_test_remove_folder(void **state);
/* A path in it; the fourth call after this one writes over it. */
const char *aq_test_path(const char *name);

#endif
