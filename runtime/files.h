/* Files and pictures: safetensors, PNG and JPEG, data sets, grids, plots.
 *
 * Rules.  What comes from outside is checked before it is believed: no size
 * read from a file is allocated before it was held against the file itself.
 * What goes out is written whole (ir/base/file.c).  Pictures are rows from the
 * top, pixels from the left, channels last. */
#ifndef AQ_FILES_H
#define AQ_FILES_H

#include "ir/base/base.h"

/* Told of things that were survived, one sentence each. */
typedef void (*AqWarn)(void *context, const char *sentence);

/* stored.c: the types of numbers in files, by safetensors' names */

#define AQ_STORED_TYPES(X)                                                     \
    X(BOOL, 8)                                                                 \
    X(F4, 4)                                                                   \
    X(F6_E2M3, 6)                                                              \
    X(F6_E3M2, 6)                                                              \
    X(U8, 8)                                                                   \
    X(I8, 8)                                                                   \
    X(F8_E5M2, 8)                                                              \
    X(F8_E4M3, 8)                                                              \
    X(F8_E8M0, 8)                                                              \
    X(F8_E4M3FNUZ, 8)                                                          \
    X(F8_E5M2FNUZ, 8)                                                          \
    X(I16, 16)                                                                 \
    X(U16, 16)                                                                 \
    X(F16, 16)                                                                 \
    X(BF16, 16)                                                                \
    X(I32, 32)                                                                 \
    X(U32, 32)                                                                 \
    X(F32, 32)                                                                 \
    X(C64, 64)                                                                 \
    X(F64, 64)                                                                 \
    X(I64, 64)                                                                 \
    X(U64, 64)

typedef enum AqStoredType {
#define X(name, bits) AQ_STORED_##name,
    AQ_STORED_TYPES(X)
#undef X
        AQ_STORED_COUNT
} AqStoredType;

const char *aq_stored_name(AqStoredType type); /* "F32" */
int aq_stored_bits(AqStoredType type);
bool aq_stored_find(const char *name, AqStoredType *type);
/* `count` stored elements (anywhere in memory) as floats (out of F32, F16,
 * BF16, F64, BOOL and integers) or as int64_t (out of BOOL and integers but
 * U64); false for other types, also when asked with count 0. */
bool aq_stored_to_floats(AqStoredType type, const void *from, size_t count,
                         void *to);
bool aq_stored_to_ints(AqStoredType type, const void *from, size_t count,
                       void *to);

/* safetensors.c: https://github.com/huggingface/safetensors, read strictly */

enum { AQ_STORED_RANK = 8 };

/* One tensor of an open file; owned by the file. */
typedef struct AqTensorInfo {
    const char *name;
    AqStoredType type;
    int rank;
    int64_t shape[AQ_STORED_RANK];
    int64_t elements; /* product of the shape; 1 for rank 0 */
    uint64_t bytes;
    uint64_t offset; /* in the file */
} AqTensorInfo;

typedef struct AqTensorFile AqTensorFile;

/* Opens and checks everything but the values.  Any deviation from the format,
 * and any doubtful reading of it (a name twice, a hole, an overlap), is an
 * error; up to 8 trailing bytes are accepted. */
AqTensorFile *aq_tensors_open(const char *path, AqError *error);
void aq_tensors_close(AqTensorFile *file);
int aq_tensors_count(const AqTensorFile *file);
const AqTensorInfo *aq_tensors_at(const AqTensorFile *file,
                                  int index); /* in the order of the data */
/* NULL if there is none of this name. */
const AqTensorInfo *aq_tensors_find(const AqTensorFile *file, const char *name);
/* A value of `__metadata__`; NULL if absent. */
const char *aq_tensors_metadata(const AqTensorFile *file, const char *key);
/* All elements, converted.  Several threads may read at once. */
AqStatus aq_tensors_read_floats(const AqTensorFile *file,
                                const AqTensorInfo *info, float *out,
                                AqError *error);
AqStatus aq_tensors_read_ints(const AqTensorFile *file,
                              const AqTensorInfo *info, int64_t *out,
                              AqError *error);
/* `bytes` raw bytes from `begin` on, counted within the tensor. */
AqStatus aq_tensors_read_bytes(const AqTensorFile *file,
                               const AqTensorInfo *info, uint64_t begin,
                               void *out, size_t bytes, AqError *error);

/* safetensors_write.c */

/* Gives the tensor's bytes begin .. begin + bytes - 1, as stored.  Called in
 * ascending order, with pieces of whole elements, at most 1 MiB each. */
typedef AqStatus (*AqTensorFill)(void *context, uint64_t begin, void *out,
                                 size_t bytes, AqError *error);

typedef struct AqTensorEntry {
    const char *name;
    AqStoredType type; /* not one of less than a byte */
    int rank;
    int64_t shape[AQ_STORED_RANK];
    const void *data;  /* all of it; or NULL and: */
    AqTensorFill fill; /* piece by piece, in the stored layout */
    void *context;
} AqTensorEntry;

typedef struct AqMetadata {
    const char *key, *value;
} AqMetadata;

/* Writes a file in one piece, tensors by falling alignment and then by name. */
AqStatus aq_tensors_write(const char *path, const AqTensorEntry *entries,
                          int count, const AqMetadata *metadata,
                          int metadata_count, AqError *error);

/* image.c: PNG and JPEG */

typedef struct AqImage {
    int height, width;
    int channels;    /* 1 grey, 3 RGB, 4 RGBA (not premultiplied) */
    uint8_t *pixels; /* (height, width, channels); aq_image_free */
} AqImage;

AqStatus aq_image_new(AqImage *image, int height, int width, int channels,
                      AqError *error);
void aq_image_free(AqImage *image);
/* What the bytes are is told from the bytes; `name` is for the sentence.
 * Photos are turned upright; 16 bits become 8, palettes colours, grey with
 * alpha RGBA.  Sides over 16384 and pictures over 2^26 pixels are refused
 * before anything is allocated. */
AqStatus aq_image_decode(const void *data, size_t bytes, const char *name,
                         AqImage *image, AqError *error);
AqStatus aq_image_read(const char *path, AqImage *image, AqError *error);
AqStatus aq_png_encode(const AqImage *image, AqText *out, AqError *error);
AqStatus aq_png_write(const char *path, const AqImage *image, AqError *error);

/* exif.c: which way up a photo is */

/* 1 .. 8 as Exif counts them; 1, upright, if the JPEG does not say. */
int aq_exif_orientation(const void *jpeg, size_t bytes);
/* From the way it is stored, upright. */
AqStatus aq_image_turn(AqImage *image, int orientation, AqError *error);

/* resize.c: resampling as Pillow does it, and small pixel work */

typedef enum AqFilter {
    AQ_FILTER_BICUBIC, /* a = -1/2 */
    AQ_FILTER_BILINEAR,
    AQ_FILTER_BOX,
    AQ_FILTER_LANCZOS, /* three lobes */
} AqFilter;

/* These fill a new image `to`; `from` stays. */
AqStatus aq_image_resize(const AqImage *from, int height, int width,
                         AqFilter filter, AqImage *to, AqError *error);
AqStatus aq_image_crop(const AqImage *from, int top, int left, int height,
                       int width, AqImage *to, AqError *error);
/* 1, 3 or 4 channels from any: transparency over white, grey = ITU-R 601. */
AqStatus aq_image_channels(const AqImage *from, int channels, AqImage *to,
                           AqError *error);

/* emoji.c: pictures from fonts-noto-color-emoji and unicode-data */

typedef struct AqEmoji {
    const char *name;  /* "grinning face" */
    const char *group; /* "Smileys & Emotion" */
    const char *subgroup;
} AqEmoji;

/* `image` is borrowed: 136x136 RGB over white, or RGBA.  Not AQ_OK stops. */
typedef AqStatus (*AqEmojiSink)(void *context, const AqEmoji *emoji,
                                const AqImage *image, AqError *error);

/* Every emoji of `filter`, in Unicode's order: NULL or "" (all), "smileys" or
 * any beginning of a word of a group's name, "people+tones" with skin tones.
 * List and font are looked for below XDG_DATA_DIRS. */
AqStatus aq_emoji_each(const char *filter, bool alpha, AqEmojiSink sink,
                       void *context, AqError *error);

/* folder.c: the pictures of a folder */

typedef struct AqPictureFile {
    const char *name;    /* below the folder */
    const char *caption; /* "" if it has none */
    int label;
} AqPictureFile;

typedef struct AqPictureList {
    AqPictureFile *files; /* by name */
    int count;
    const char **classes; /* sub-folders, "." for the folder itself */
    int class_count;      /* 0 if there are no sub-folders */
} AqPictureList;

/* All files called .png, .jpg or .jpeg, also in sub-folders, but for hidden
 * ones; captions from metadata.jsonl. */
AqStatus aq_folder_list(AqArena *arena, const char *folder, AqPictureList *list,
                        AqError *error);

/* table.c: numbers in columns */

typedef struct AqTable {
    int64_t rows;
    int columns;
    const char *const *names; /* the header line, or x, y, z, or x1, x2, ... */
    double *values;       /* (rows, columns), finite; malloc'd: aq_table_free */
    int64_t left_out;     /* rows with a value that is missing or not finite */
    int64_t missing_line; /* of the first such value; lines count from 1 */
    int missing_column;   /* from 0 */
} AqTable;

/* A line is a row, its numbers apart by commas, semicolons, tabs or spaces; a
 * first line that is not of numbers is the header.  Empty lines and lines that
 * begin with # are passed over.  Missing is what is empty, nan, na or null. */
AqStatus aq_table_read(const char *path, AqArena *arena, AqTable *table,
                       AqError *error);
void aq_table_free(AqTable *table);

/* points.c: points of the plane, or of any number of columns */

/* value = centre + half * x, with x in [-1, 1] over the data */
typedef struct AqColumn {
    const char *name;
    double centre, half;
} AqColumn;

typedef struct AqPoints {
    int64_t count, left_out;
    int columns;
    AqColumn *column;
    float *x;        /* (count, columns) */
    int class_count; /* point i is of class i % class_count */
    const char *const *classes;
    AqHash fingerprint;
} AqPoints;

/* `what` is the name of a shape, moons, also with a number of points, as in
 * moons:10000, or the path of a table.  Everything lies in the arena. */
AqStatus aq_points_open(const char *what, AqArena *arena, AqWarn warn,
                        void *context, AqPoints *points, AqError *error);
bool aq_points_is_table(const char *what); /* a path, and no shape's name */

/* dataset.c: pictures of one size, or points, fetched as floats */

typedef struct AqDatasetOptions {
    int height, width;   /* of a sample; not looked at for points */
    int channels;        /* 1, 3 (also 0) or 4; of points as many as there are
                            columns (also 0) */
    AqFilter filter;     /* shorter side resized so that a sample fits */
    size_t memory_limit; /* for resized pictures, 0: 1 GiB; others are decoded
                            again at every fetch, to the same pixels */
    int threads;         /* for opening, 0: one a processor */
    AqWarn warn;         /* broken files, one sentence each; may be NULL */
    void *warn_context;
} AqDatasetOptions;

typedef struct AqDataset AqDataset;

/* `spec` is "emoji", "emoji:FILTER" (see aq_emoji_each) or a folder: its PNG
 * and JPEG files, also in sub-folders, by name; the class is the sub-folder of
 * the first level, captions stand in metadata.jsonl ("file_name", "text").
 * Broken files are warned of and left out.  "points:WHAT" are points, see
 * aq_points_open: their height and width are 0. */
AqDataset *aq_dataset_open(const char *spec, const AqDatasetOptions *options,
                           AqError *error);
/* The folder or file in a spec, which is its end; NULL: it names neither. */
const char *aq_dataset_path(const char *spec);
/* The spec for whoever stands in another folder: its path, if it has one, from
 * the root.  In the arena; NULL when memory ends. */
char *aq_dataset_absolute(const char *spec, AqArena *arena);
void aq_dataset_free(AqDataset *set);
int64_t aq_dataset_count(const AqDataset *set);
int64_t aq_dataset_broken(const AqDataset *set); /* files left out */
int aq_dataset_classes(const AqDataset *set);    /* 0: no classes */
const char *aq_dataset_class_name(const AqDataset *set, int label);
int aq_dataset_label(const AqDataset *set, int64_t index); /* 0 if no classes */
const char *aq_dataset_caption(const AqDataset *set, int64_t index); /* or "" */
/* Where sample `index` came from: a path within the folder, or a name. */
const char *aq_dataset_name(const AqDataset *set, int64_t index);
void aq_dataset_shape(const AqDataset *set, int *height, int *width,
                      int *channels);
size_t aq_dataset_floats(const AqDataset *set); /* of a sample */
/* Of points, one for each channel; NULL for pictures. */
const AqColumn *aq_dataset_columns(const AqDataset *set);
/* The spec asks for points, known or not. */
bool aq_dataset_is_points(const char *spec);
/* One line: what, how many, which size, how much memory. */
const char *aq_dataset_describe(const AqDataset *set);
size_t aq_dataset_bytes(const AqDataset *set); /* memory held by pictures */
/* The same for the same pixels, names and labels: to tell changed data. */
AqHash aq_dataset_fingerprint(const AqDataset *set);
/* A point, or (height, width, channels) floats v / 127.5 - 1.  crop_y, crop_x
 * in [0, 1] place the sample within a picture that is longer than it: 0.5 is
 * the centre. Several threads may fetch at once. */
AqStatus aq_dataset_fetch(const AqDataset *set, int64_t index, bool flip,
                          float crop_x, float crop_y, float *out,
                          AqError *error);

/* grid.c: samples laid out to be looked at.  They are (count, height, width,
 * channels) floats in [-1, 1] with 1, 3 or 4 channels; small ones are drawn
 * several times larger. */

typedef struct AqSamples {
    const float *data;
    int count, height, width, channels;
} AqSamples;

/* columns = 0: as square as it gets */
AqStatus aq_grid_draw(const AqSamples *samples, int columns, AqImage *out,
                      AqError *error);
AqStatus aq_grid_write(const char *path, const AqSamples *samples, int columns,
                       AqError *error);
/* nearest[i]: the picture of `set` (centre crop) with the least squared
 * distance to sample i; distance[i] (may be NULL): its root mean square. */
AqStatus aq_nearest_pictures(const AqDataset *set, const AqSamples *samples,
                             int64_t *nearest, float *distance, AqError *error);
/* Each sample with its nearest picture of `set` to the right of it. */
AqStatus aq_pairs_write(const char *path, const AqSamples *samples,
                        const AqDataset *set, AqError *error);

/* plot.c: line charts as SVG (chart.h: what it shares with scatter.c) */

typedef struct AqSeries {
    const char *name;    /* NULL: not in the legend */
    const double *x, *y; /* y not finite: the line is broken there */
    int64_t count;
    bool light; /* background for the other series: thin and pale */
} AqSeries;

typedef struct AqPlot {
    const char *title, *x_label, *y_label;
    const AqSeries *series;
    int series_count;
    bool log_y; /* values <= 0 are left out */
} AqPlot;

AqStatus aq_plot_draw(const AqPlot *plot, AqText *out, AqError *error);
AqStatus aq_plot_write(const char *path, const AqPlot *plot, AqError *error);
/* Exponential mean over about `window` points, fewer at the beginning;
 * values that are not finite are passed over. */
void aq_smooth(const double *y, int64_t count, double window, double *out);

/* scatter.c: clouds of points as SVG; a light series lies below the others.
 * A unit is as long on one axis as on the other, unless that would leave most
 * of the sheet empty. */
AqStatus aq_scatter_draw(const AqPlot *plot, AqText *out, AqError *error);
AqStatus aq_scatter_write(const char *path, const AqPlot *plot, AqError *error);

#endif
