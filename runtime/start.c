/* Initial values, drawn while the program is made.
 *
 * The passes run on one thread, and the values are a function of the parameters
 * alone: so another thread draws them meanwhile.  Small arrays take no time
 * afterwards; and arrays that are large beside the budget (or the machine) wait
 * until the compiler has given back its memory. */
#include "runtime/run.h"

#include <string.h>

enum {
    LEAST = 32 << 20, /* bytes of weights */
    SHARE = 16,       /* of the budget, or of the machine's memory */
};

static bool has_state(const AqGraph *graph, const char *name)
{
    for (AqId id = 0; id < graph->count; id++)
        if (aq_node(graph, id)->op == AQ_OP_state &&
            !strcmp(aq_attr_text(aq_node(graph, id), AQ_KEY_NAME, ""), name))
            return true;
    return false;
}

static void draw(const AqStart *s, int threads)
{
    uint32_t key[2];
    aq_philox_key(s->seed, key);
    aq_params_start(s->params, key, threads, s->weights, s->average);
}

static void *draw_beside(void *context)
{
    draw(context, 1);
    return NULL;
}

void aq_start_begin(AqStart *s, const AqGraph *graph)
{
    AqError error = {0}; /* what fails here is done, and told, afterwards */
    int64_t bytes = s->params->floats * (int64_t)sizeof(float);
    s->had = aq_memory_find(s->memory, "weights", NULL) != NULL;
    if (s->had || aq_pool_threads(s->pool) == 1 || bytes < LEAST ||
        bytes > aq_compiled_limit(s->memory_limit) / SHARE)
        return;
    s->weights = aq_memory_ahead(s->memory, "weights", bytes, &error);
    if (s->weights && has_state(graph, "ema"))
        s->average = aq_memory_ahead(s->memory, "ema", bytes, &error);
    s->drawing =
        !error.status && !pthread_create(&s->thread, NULL, draw_beside, s);
}

void aq_start_end(AqStart *s, bool made)
{
    if (s->drawing)
        pthread_join(s->thread, NULL);
    s->weights = aq_memory_find(s->memory, "weights", NULL);
    s->average = aq_memory_find(s->memory, "ema", NULL);
    if (made && !s->had && !s->drawing && s->weights)
        draw(s, aq_pool_threads(s->pool));
    s->drawing = false;
}
