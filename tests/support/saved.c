/* Arrays of a small model that are saved and read back. */
#include "tests/support/saved.h"

#include <dirent.h>
#include <math.h>
#include <setjmp.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "tests/support/folder.h"

static const char *const flat_states[] = {"weights", "m", "v", "ema"};

static AqGraph *small_model(int channels)
{
    AqGraph *g = aq_graph_new();
    AqScope s = aq_root(g);
    AqTensor x = aq_input(g, "x", AQ_SHAPE(1, 4, 4, 2));
    AqTensor h = aq_conv2d(aq_sub(s, "conv_in"), x, channels, .kernel = 3);
    h = aq_linear(aq_sub(s, "mid.0"), h, 5);
    aq_output(h, "y");
    assert_null(aq_graph_error(g));
    return g;
}

static float value(int array, int64_t i, int64_t step)
{
    return sinf((float)(i + 1000 * array) + (float)step * 0.37f);
}

void aq_saved_fill(AqSaved *s, int64_t step)
{
    for (int a = 0; a < AQ_COUNT(flat_states); a++) {
        float *array = aq_memory_find(s->memory, flat_states[a], NULL);
        for (int p = 0; array && p < s->params->count; p++) {
            const AqParamInfo *info = &s->params->at[p];
            for (int64_t i = 0; i < aq_elements(&info->type); i++)
                array[info->offset + i] = value(a, info->offset + i, step);
        }
    }
    s->state = (AqCheckpoint){.step = step,
                              .updates = step - 1,
                              .seconds = 0.1 + (double)step / 3,
                              .loss = 1 / (double)(step + 2)};
}

AqSaved aq_saved_new(const char *name, int channels, int arrays)
{
    AqError error = {0};
    AqSaved s = {.graph = small_model(channels),
                 .memory = aq_memory_new(&error)};
    s.params = aq_params(s.graph);
    for (int a = 0; a < arrays; a++)
        aq_memory_array(s.memory, flat_states[a], s.params->floats * 4, &error);
    aq_memory_array(s.memory, "step", 4, &error);
    aq_memory_array(s.memory, "updates", 4, &error);
    snprintf(s.folder, sizeof s.folder, "%s/%s", aq_test_folder, name);
    assert_int_equal(aq_make_folders(s.folder, &error), AQ_OK);
    return s;
}

void aq_saved_free(AqSaved *s)
{
    aq_memory_free(s->memory);
    aq_graph_free(s->graph);
}

AqStatus aq_saved_write(AqSaved *s, AqError *error)
{
    return aq_checkpoint_write(s->folder, &s->state, s->params, s->memory,
                               error);
}

void aq_saved_must_write(AqSaved *s)
{
    AqError error = {0};
    if (aq_saved_write(s, &error))
        fail_msg("%s", error.text);
}

void aq_saved_latest(const AqSaved *s, char path[300])
{
    AqError error = {0};
    AqArena *arena = aq_arena_new();
    const char *found = aq_checkpoint_latest(s->folder, arena, &error);
    snprintf(path, 300, "%s", found ? found : "");
    assert_int_equal(error.status, AQ_OK);
    aq_arena_free(arena);
}

AqStatus aq_saved_read(AqSaved *s, AqCheckpoint *state, AqError *error)
{
    char path[300];
    aq_saved_latest(s, path);
    return aq_checkpoint_read(path, state, s->params, s->memory, error);
}

void aq_saved_check(AqSaved *s, int64_t step)
{
    AqError error = {0};
    AqCheckpoint state;
    aq_saved_fill(s, -77);
    if (aq_saved_read(s, &state, &error))
        fail_msg("%s", error.text);
    aq_saved_fill(s, step); /* and now they must not change any more */
    for (int a = 0; a < AQ_COUNT(flat_states); a++) {
        int64_t bytes;
        float *array = aq_memory_find(s->memory, flat_states[a], &bytes);
        if (!array)
            continue;
        float *kept = malloc((size_t)bytes);
        memcpy(kept, array, (size_t)bytes);
        AqCheckpoint again;
        memset(array, 0, (size_t)bytes);
        assert_int_equal(aq_saved_read(s, &again, &error), AQ_OK);
        assert_memory_equal(kept, array, (size_t)bytes);
        free(kept);
    }
    assert_memory_equal(&state, &s->state, sizeof state);
    assert_int_equal(*(int *)aq_memory_find(s->memory, "step", NULL), step);
    assert_int_equal(*(int *)aq_memory_find(s->memory, "updates", NULL),
                     step - 1);
}

int aq_saved_entries(const char *folder, bool hidden)
{
    int count = 0;
    DIR *dir = opendir(folder);
    for (struct dirent *e; dir && (e = readdir(dir));)
        if (strcmp(e->d_name, ".") && strcmp(e->d_name, ".."))
            count += (e->d_name[0] == '.') == hidden;
    closedir(dir);
    return count;
}
