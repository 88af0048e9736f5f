/* Must-fail and must-pass cases for shape rules, a line of graph text each. */
#ifndef AQ_TEST_SHAPE_CASES_H
#define AQ_TEST_SHAPE_CASES_H

#include "ir/ir.h"

/* What stands after "%19 = "; the nodes %0 ... %18 that it may read are at the
 * top of shape_cases.c. */
typedef struct AqShapeCase {
    const char *line, *text;
} AqShapeCase;

/* The line is refused with the sentence `text`. */
void aq_test_refused(const AqShapeCase *cases, int count);
/* The line builds, and prints as `text`. */
void aq_test_accepted(const AqShapeCase *cases, int count);

#define REFUSED(cases) aq_test_refused(cases, AQ_COUNT(cases))
#define ACCEPTED(cases) aq_test_accepted(cases, AQ_COUNT(cases))

#endif
