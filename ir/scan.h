/* The scanner under parse.c; nobody else includes it. */
#ifndef AQ_SCAN_H
#define AQ_SCAN_H

#include "ir/base/base.h"

typedef struct AqScanner {
    const char *at, *name;
    int line, depth;
    AqArena *scratch;
    AqError *error;
} AqScanner;

/* A growing array of 8-byte elements in the scratch arena. */
typedef struct AqScanList {
    void *data;
    int count, capacity;
} AqScanList;

/* Errors: `name:line: sentence`; they return false. */
bool aq_scan_fail(AqScanner *p, const char *format, ...) AQ_PRINTF(2, 3);
bool aq_scan_no_memory(AqScanner *p);
bool aq_scan_expected(AqScanner *p, const char *what); /* ..., but found */

/* Characters; blanks before them are skipped. */
void aq_scan_blanks(AqScanner *p);
bool aq_scan_accept(AqScanner *p, char c);
bool aq_scan_expect(AqScanner *p, char c, const char *where);
/* Goes over empty lines and those that hold a comment alone. */
void aq_scan_comments(AqScanner *p);
bool aq_scan_end_line(AqScanner *p);

/* The length of the name of a key, op or element at p->at; 0: none. */
int aq_scan_identifier(AqScanner *p);
bool aq_scan_is(const char *at, int length, const char *word);
bool aq_scan_int(AqScanner *p, const char *what, int64_t *value);
bool aq_scan_small(AqScanner *p, const char *what, int64_t most,
                   int64_t *value); /* 0 ... most */
bool aq_scan_real(AqScanner *p, double *value);
/* Into the scratch arena; NULL after an error. */
const char *aq_scan_quoted(AqScanner *p);
/* Letters, digits and _ . - + / $ @ < > ( ), or a quoted text. */
const char *aq_scan_word(AqScanner *p, const char *what);
/* The place of one more element, or NULL. */
void *aq_scan_more(AqScanner *p, AqScanList *list);
/* "[1,2]" of int64_t or of double */
bool aq_scan_list(AqScanner *p, bool real, AqScanList *list);

#endif
