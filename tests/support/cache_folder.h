/* A folder for the object code of one test program: the set-up and tear-down of
 * its group, for cmocka_run_group_tests. */
#ifndef AQ_TEST_CACHE_FOLDER_H
#define AQ_TEST_CACHE_FOLDER_H

extern char aq_test_cache[]; /* its path, once it is made */

int aq_test_make_cache(void **state);
int aq_test_remove_cache(void **state);

#endif
