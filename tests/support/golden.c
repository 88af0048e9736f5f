/* Reading golden files. */
#include "tests/support/golden.h"

bool aq_golden_open(AqGolden *golden, const char *folder, const char *name,
                    AqArena *arena, AqError *error)
{
    char *path = aq_arena_printf(arena, "%s/%s", folder, name);
    *golden = (AqGolden){arena, NULL, error};
    golden->file = path ? aq_tensors_open(path, error) : NULL;
    return golden->file != NULL;
}

void aq_golden_close(AqGolden *golden)
{
    if (golden->file)
        aq_tensors_close(golden->file);
}

const AqTensorInfo *aq_golden_find(const AqGolden *golden, const char *name)
{
    return aq_tensors_find(golden->file, name);
}

const double *aq_golden_read(const AqGolden *golden, const char *name)
{
    const AqTensorInfo *info = aq_golden_find(golden, name);
    if (!info) {
        aq_fail(golden->error, AQ_BAD_INPUT, "there is no tensor \"%s\"", name);
        return NULL;
    }
    double *out = AQ_NEW_ARRAY(golden->arena, double, info->elements + 1);
    float *from = AQ_NEW_ARRAY(golden->arena, float, info->elements + 1);
    if (!out || !from ||
        aq_tensors_read_floats(golden->file, info, from, golden->error))
        return NULL;
    for (int64_t i = 0; i < info->elements; i++)
        out[i] = from[i];
    return out;
}

/* out[n][y][x][c] = in[n][c][y][x], or the other way */
static double *turn(AqArena *arena, const double *x, const int64_t *shape,
                    bool last)
{
    int64_t channels = shape[1], pixels = shape[2] * shape[3];
    int64_t count = shape[0] * channels * pixels;
    double *out = AQ_NEW_ARRAY(arena, double, count);
    for (int64_t i = 0; out && i < count; i++) {
        int64_t pixel = i % pixels, c = i / pixels % channels;
        int64_t n = i / pixels / channels;
        int64_t there = (n * pixels + pixel) * channels + c;
        if (last)
            out[there] = x[i];
        else
            out[i] = x[there];
    }
    return out;
}

double *aq_channels_last(AqArena *arena, const double *x, const int64_t *shape)
{
    return turn(arena, x, shape, true);
}

double *aq_channels_first(AqArena *arena, const double *x, const int64_t *shape)
{
    return turn(arena, x, shape, false);
}
