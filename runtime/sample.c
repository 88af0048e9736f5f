/* Pictures out of a model: two compiled programs, one that draws the noise and
 * one that takes a step of the sampler, over the same state x. */
#include "runtime/run.h"

#include <stdlib.h>
#include <string.h>

struct AqGenerator {
    AqTask task;
    AqMemory *memory; /* its own; the weights are borrowed */
    AqCompiled *noise, *step;
};

static AqCompiled *compile(AqGraph *graph, AqMemory *memory, AqPool *pool,
                           const AqProgramSettings *settings, AqError *error)
{
    if (!graph)
        return NULL;
    AqCompiled *program = aq_compiled_new(graph, memory, pool, settings, error);
    aq_graph_free(graph);
    return program;
}

AqGenerator *aq_generator_new(const AqTask *task, const AqSampler *sampler,
                              AqMemory *memory, AqPool *pool, bool raw,
                              const AqProgramSettings *settings, AqError *error)
{
    AqGenerator *g = calloc(1, sizeof *g);
    if (!g) {
        aq_no_memory(error, sizeof *g);
        return NULL;
    }
    g->task = *task;
    g->memory = aq_memory_new(error);
    bool average = !raw && aq_memory_find(memory, "ema", NULL);
    if (g->memory && !aq_memory_share(g->memory, "weights", memory,
                                      average ? "ema" : "weights", error)) {
        AqProgramSettings left = *settings;
        g->noise = compile(aq_noise_graph(task, error), g->memory, pool,
                           settings, error);
        if (g->noise && left.memory_limit > 0)
            left.memory_limit =
                AQ_MAX(left.memory_limit - aq_compiled_bytes(g->noise) -
                           aq_memory_bytes(g->memory),
                       (int64_t)1);
        if (g->noise)
            g->step = compile(aq_sampler_graph(task, sampler, error), g->memory,
                              pool, &left, error);
    }
    if (g->step)
        return g;
    aq_generator_free(g);
    return NULL;
}

void aq_generator_free(AqGenerator *g)
{
    if (!g)
        return;
    aq_compiled_free(g->noise);
    aq_compiled_free(g->step);
    aq_memory_free(g->memory);
    free(g);
}

/* Fills an input of the programs, where one of them has it. */
static void fill(AqGenerator *g, const char *name, const int32_t *values,
                 int count)
{
    int32_t *array = aq_memory_find(g->memory, name, NULL);
    if (array)
        memcpy(array, values, (size_t)count * sizeof *values);
}

static void label_batch(AqGenerator *g, const AqSampleOptions *options,
                        int first)
{
    int32_t *label = aq_memory_find(g->memory, "label", NULL);
    for (int i = 0; label && i < g->task.batch; i++)
        label[i] = options->label >= 0 ? options->label
                                       : (first + i) % g->task.classes;
}

static bool generate_batch(AqGenerator *g, const AqSampleOptions *options,
                           const int *timesteps, int first,
                           const volatile int *stop)
{
    int32_t *sample = aq_memory_find(g->memory, "sample", NULL);
    int32_t key[2] = {(int32_t)options->seed, (int32_t)(options->seed >> 32)};
    for (int i = 0; sample && i < g->task.batch; i++)
        sample[i] = first + i;
    fill(g, "key", key, 2);
    label_batch(g, options, first);
    aq_compiled_run(g->noise, NULL);
    for (int i = 0; i < options->steps; i++) {
        int32_t t = timesteps[i];
        int32_t previous = i + 1 < options->steps ? timesteps[i + 1] : -1;
        fill(g, "t", &t, 1);
        fill(g, "previous", &previous, 1);
        if (!aq_compiled_run(g->step, stop))
            return false;
    }
    return true;
}

static AqStatus check(const AqGenerator *g, const AqSampleOptions *options,
                      AqError *error)
{
    int total = aq_process_steps(&g->task.process);
    if (options->steps < 1 || options->steps > total)
        return aq_fail(error, AQ_BAD_INPUT,
                       "%d sampling steps: must lie between 1 and %d, the "
                       "steps of the process",
                       options->steps, total);
    if (options->label >= 0 && g->task.classes == 0)
        return aq_fail(error, AQ_BAD_INPUT,
                       "class %d: the model knows no classes", options->label);
    if (options->label >= AQ_MAX(g->task.classes, 1))
        return aq_fail(error, AQ_BAD_INPUT,
                       "class %d: the model knows classes 0 to %d",
                       options->label, g->task.classes - 1);
    return AQ_OK;
}

AqStatus aq_generate(AqGenerator *g, const AqSampleOptions *options, float *out,
                     const volatile int *stop, AqError *error)
{
    if (check(g, options, error))
        return error->status;
    int *timesteps = malloc((size_t)options->steps * sizeof *timesteps);
    if (!timesteps)
        return aq_no_memory(error, (size_t)options->steps * sizeof *timesteps);
    aq_sampler_timesteps(aq_process_steps(&g->task.process), options->steps,
                         timesteps);
    const AqTask *t = &g->task;
    size_t floats = (size_t)AQ_MAX(t->height, 1) * (size_t)AQ_MAX(t->width, 1) *
                    (size_t)t->channels;
    for (int first = 0; first < options->count; first += t->batch) {
        if (!generate_batch(g, options, timesteps, first, stop)) {
            aq_fail(error, AQ_INTERRUPTED, "sampling was interrupted");
            break;
        }
        const float *x = aq_memory_find(g->memory, "x", NULL);
        size_t count = (size_t)AQ_MIN(t->batch, options->count - first);
        memcpy(out + (size_t)first * floats, x, count * floats * sizeof *x);
    }
    free(timesteps);
    return error->status;
}
