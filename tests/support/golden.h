/* Reference numbers from files: safetensors as doubles, JSON beside them. */
#ifndef AQ_TEST_GOLDEN_H
#define AQ_TEST_GOLDEN_H

#include "runtime/files.h"

/* Tensors of one safetensors file, in PyTorch's layout. */
typedef struct AqGolden {
    AqArena *arena;
    AqTensorFile *file;
    AqError *error;
} AqGolden;

/* `folder` of the sources, as tests/golden */
bool aq_golden_open(AqGolden *golden, const char *folder, const char *name,
                    AqArena *arena, AqError *error);
void aq_golden_close(AqGolden *golden);
const AqTensorInfo *aq_golden_find(const AqGolden *golden, const char *name);
/* All elements; NULL, and an error, if there is no such tensor. */
const double *aq_golden_read(const AqGolden *golden, const char *name);
/* (N, C, H, W) -> (N, H, W, C), and back; shape is (N, C, H, W). */
double *aq_channels_last(AqArena *arena, const double *x, const int64_t *shape);
double *aq_channels_first(AqArena *arena, const double *x,
                          const int64_t *shape);

#endif
