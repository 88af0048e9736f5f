/* What a data set is: for dataset.c, which opens it and is asked, and
 * dataset_sources.c, which fills it. */
#ifndef AQ_DATASET_H
#define AQ_DATASET_H

#include "runtime/files.h"

#include <stdatomic.h>

typedef struct AqPicture {
    const char *name, *caption;
    int label;
    AqImage image; /* without pixels: decode the file */
    uint64_t hash; /* of the resized pixels */
    char *broken;  /* malloc'd sentence: leave it out */
} AqPicture;

struct AqDataset {
    AqArena *arena;
    AqDatasetOptions options;
    const char *folder;
    AqPicture *samples; /* malloc'd */
    int64_t count, capacity, broken;
    const char *const *classes;
    int class_count;
    AqPoints *points; /* NULL: pictures */
    atomic_size_t bytes;
    AqHash fingerprint;
    char *line;
};

/* dataset_sources.c: each fills in all but fingerprint and line; points have
 * their fingerprint already */

AqStatus aq_dataset_open_emoji(AqDataset *set, const char *filter,
                               AqError *error);
AqStatus aq_dataset_open_folder(AqDataset *set, const char *path,
                                AqError *error);
AqStatus aq_dataset_open_points(AqDataset *set, const char *what,
                                AqError *error);
/* Decodes a picture of a folder, resized. */
AqStatus aq_dataset_read(const AqDataset *set, const AqPicture *picture,
                         AqImage *out, AqError *error);

#endif
