/* Pictures out of a model: two compiled programs, one that draws the noise and
 * one that takes a step of the sampler, over the same state x. */
#include "runtime/run.h"

#include <stdlib.h>
#include <string.h>

struct AqGenerator {
    AqTask task;
    int steps;
    AqMemory *memory; /* its own; the weights are borrowed */
    AqCompiled *noise;
    AqRepeated *step;
};

static AqCompiled *compile_noise(AqGenerator *g, AqPool *pool,
                                 const AqProgramSettings *settings,
                                 AqError *error)
{
    AqGraph *graph = aq_noise_graph(&g->task, error);
    AqCompiled *program =
        graph ? aq_compiled_new(graph, g->memory, pool, settings, error) : NULL;
    aq_graph_free(graph);
    return program;
}

/* Through the steps of a batch all stays the same but the step's number. */
static AqRepeated *compile_step(AqGenerator *g, const AqSampler *sampler,
                                AqPool *pool, AqProgramSettings settings,
                                AqError *error)
{
    const char *const fixed[] = {"weights", "timesteps", "label"};
    AqRepeat repeat = {.fixed = fixed,
                       .n_fixed = g->task.classes > 0 ? 3 : 2,
                       .number = "number",
                       .numbers = sampler->steps};
    if (settings.memory_limit > 0)
        settings.memory_limit =
            AQ_MAX(settings.memory_limit - aq_compiled_bytes(g->noise) -
                       aq_memory_bytes(g->memory),
                   (int64_t)1);
    AqGraph *graph = aq_sampler_graph(&g->task, sampler, error);
    AqRepeated *program = graph ? aq_repeated_new(graph, &repeat, g->memory,
                                                  pool, &settings, error)
                                : NULL;
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
    g->steps = sampler->steps;
    g->memory = aq_memory_new(error);
    bool average = !raw && aq_memory_find(memory, "ema", NULL);
    if (g->memory && !aq_memory_share(g->memory, "weights", memory,
                                      average ? "ema" : "weights", error)) {
        g->noise = compile_noise(g, pool, settings, error);
        if (g->noise)
            g->step = compile_step(g, sampler, pool, *settings, error);
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
    aq_repeated_free(g->step);
    aq_memory_free(g->memory);
    free(g);
}

/* The arrays of a program, but for weights and what programs `before` have. */
static int64_t array_bytes(const AqCompiled *program,
                           const AqCompiled *const *before, int count)
{
    const AqPlan *plan = program ? aq_compiled_plan(program) : NULL;
    int64_t bytes = 0;
    for (int i = 1; plan && i < plan->n_bases; i++) {
        const AqBase *base = &plan->bases[i];
        bool is_new = strcmp(base->name, "weights") != 0;
        for (int k = 0; k < count; k++)
            is_new = is_new &&
                     aq_plan_base(aq_compiled_plan(before[k]), base->name) < 0;
        bytes += is_new ? aq_whole_pages(base->bytes) : 0;
    }
    return bytes;
}

int64_t aq_generator_bytes(const AqGenerator *g)
{
    const AqCompiled *programs[] = {g->noise, aq_repeated_step(g->step),
                                    aq_repeated_prepare(g->step)};
    int64_t bytes = aq_compiled_bytes(g->noise) + aq_repeated_bytes(g->step);
    for (int i = 0; i < AQ_COUNT(programs); i++)
        bytes += array_bytes(programs[i], programs, i);
    return bytes;
}

/* Fills an input of the programs, where one of them has it. */
static void fill(AqGenerator *g, const char *name, const void *values,
                 size_t bytes)
{
    void *array = aq_memory_find(g->memory, name, NULL);
    if (array)
        memcpy(array, values, bytes);
}

static void label_batch(AqGenerator *g, const AqSampleOptions *options,
                        int first)
{
    int32_t *label = aq_memory_find(g->memory, "label", NULL);
    bool changed = false;
    for (int i = 0; label && i < g->task.batch; i++) {
        int32_t old = label[i];
        label[i] = options->label >= 0 ? options->label
                                       : (first + i) % g->task.classes;
        changed = changed || label[i] != old;
    }
    if (changed)
        aq_repeated_changed(g->step);
}

static bool generate_batch(AqGenerator *g, const AqSampleOptions *options,
                           int first, const volatile int *stop)
{
    int32_t *sample = aq_memory_find(g->memory, "sample", NULL);
    uint32_t key[2];
    aq_philox_key(options->seed, key);
    for (int i = 0; sample && i < g->task.batch; i++)
        sample[i] = first + i;
    fill(g, "key", key, sizeof key);
    label_batch(g, options, first);
    aq_compiled_run(g->noise, NULL);
    for (int32_t number = 0; number < g->steps; number++) {
        fill(g, "number", &number, sizeof number);
        if (!aq_repeated_run(g->step, stop))
            return false;
    }
    return true;
}

/* The weights may have changed since the last samples. */
static void begin(AqGenerator *g)
{
    int32_t *timesteps = aq_memory_find(g->memory, "timesteps", NULL);
    if (timesteps) {
        aq_sampler_timesteps(aq_process_steps(&g->task.process), g->steps,
                             timesteps);
        timesteps[g->steps] = -1;
    }
    aq_repeated_changed(g->step);
}

static AqStatus check(const AqGenerator *g, const AqSampleOptions *options,
                      AqError *error)
{
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
    begin(g);
    const AqTask *t = &g->task;
    size_t floats = (size_t)AQ_MAX(t->height, 1) * (size_t)AQ_MAX(t->width, 1) *
                    (size_t)t->channels;
    for (int first = 0; first < options->count; first += t->batch) {
        if (!generate_batch(g, options, first, stop)) {
            aq_fail(error, AQ_INTERRUPTED, "sampling was interrupted");
            break;
        }
        const float *x = aq_memory_find(g->memory, "x", NULL);
        size_t count = (size_t)AQ_MIN(t->batch, options->count - first);
        memcpy(out + (size_t)first * floats, x, count * floats * sizeof *x);
    }
    return error->status;
}
