/* Arrays of a small model that are saved as checkpoints, in a folder of the
 * test's (folder.h), and read back. */
#ifndef AQ_TEST_SAVED_H
#define AQ_TEST_SAVED_H

#include "runtime/run.h"

typedef struct AqSaved {
    AqGraph *graph;
    const AqParamTable *params;
    AqMemory *memory;
    AqCheckpoint state;
    char folder[200];
} AqSaved;

/* A convolution of so many channels and a linear layer; `arrays` of weights,
 * m, v and ema; a folder of this name for the checkpoints. */
AqSaved aq_saved_new(const char *name, int channels, int arrays);
void aq_saved_free(AqSaved *s);

/* Everything in the arrays as step `step` would have it. */
void aq_saved_fill(AqSaved *s, int64_t step);
AqStatus aq_saved_write(AqSaved *s, AqError *error);
void aq_saved_must_write(AqSaved *s);

/* The path of the newest checkpoint; empty, where there is none. */
void aq_saved_latest(const AqSaved *s, char path[300]);
/* Reads the newest over whatever the arrays hold. */
AqStatus aq_saved_read(AqSaved *s, AqCheckpoint *state, AqError *error);
/* Fails the test unless the newest is, to the bit, that of `step`. */
void aq_saved_check(AqSaved *s, int64_t step);

/* How many files and folders are in a folder, hidden ones or the others. */
int aq_saved_entries(const char *folder, bool hidden);

#endif
