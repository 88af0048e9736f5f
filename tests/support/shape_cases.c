/* Lines that a graph's text may or may not hold. */
#include "tests/support/shape_cases.h"

#include <setjmp.h>
#include <string.h>

#include <cmocka.h>

static const char given[] =
    "graph {\n"
    "%0 = input {name=\"a\"} : f32[8,64]\n"
    "%1 = input {name=\"b\"} : f32[32,10]\n"
    "%2 = input {name=\"image\"} : f32[2,6,5,4]\n"
    "%3 = input {name=\"index\"} : i32[3]\n"
    "%4 = input {name=\"scalar\"} : f32[]\n"
    "%5 = input {name=\"key\"} : i32[2]\n"
    "%6 = input {name=\"step\"} : i32[]\n"
    "%7 = input {name=\"q\"} : f32[2,3,2,4]\n"
    "%8 = input {name=\"k\"} : f32[2,5,2,4]\n"
    "%9 = input {name=\"lse\"} : f32[2,2,3]\n"
    "%10 = moments %0 {axes=[0]} : results\n"
    "%11 = input {name=\"w\"} : f32[3,3,4,7]\n"
    "%12 = input {name=\"dy\"} : f32[2,4,3,7]\n"
    "%13 = input {name=\"ints\"} : i32[8,64]\n"
    "%14 = input {name=\"big\"} : f32[1048576,1048576]\n"
    "%15 = input {name=\"deep\"} : f32[1,1,1,1,1,1,1,1]\n"
    "%16 = input {name=\"batch2\"} : f32[2,3,4]\n"
    "%17 = input {name=\"batch5\"} : f32[5,4,6]\n"
    "%18 = input {name=\"ints4\"} : i32[2,6,5,4]\n";
enum { NEXT = 19 };

static AqGraph *with_line(const char *line, AqError *error)
{
    AqText text = {0};
    aq_text_printf(&text, "%s%%%d = %s\n}\n", given, NEXT, line);
    AqGraph *g = aq_graph_parse(text.data, "t", error);
    aq_text_free(&text);
    return g;
}

void aq_test_refused(const AqShapeCase *cases, int count)
{
    for (int i = 0; i < count; i++) {
        AqError error = {0};
        AqGraph *g = with_line(cases[i].line, &error);
        if (g)
            fail_msg("this was accepted: %s", cases[i].line);
        assert_int_equal(error.status, AQ_BAD_INPUT);
        assert_memory_equal(error.text, "t:21: ", 6);
        assert_string_equal(error.text + 6, cases[i].text);
    }
}

/* The line builds, and prints as `text`. */
void aq_test_accepted(const AqShapeCase *cases, int count)
{
    for (int i = 0; i < count; i++) {
        AqError error = {0};
        AqText text = {0};
        AqGraph *g = with_line(cases[i].line, &error);
        if (!g)
            fail_msg("%s", error.text);
        aq_graph_print(g, &text);
        char *last = strstr(text.data, "\n  %19 = ");
        assert_non_null(last);
        last += strlen("\n  %19 = ");
        last[strcspn(last, "\n")] = 0;
        assert_string_equal(last, cases[i].text);
        aq_text_free(&text);
        aq_graph_free(g);
    }
}
