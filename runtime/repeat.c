/* A program that is run again and again: one program prepares what keeps its
 * values, another is the step that reads it. */
#include "runtime/runtime.h"

#include <stdlib.h>

struct AqRepeated {
    AqCompiled *prepare; /* NULL: nothing is worth it */
    AqCompiled *step;
    bool prepared;
};

static AqCompiled *larger(AqCompiled *a, AqCompiled *b)
{
    return a && aq_compiled_plan(a)->arena_bytes >=
                       aq_compiled_plan(b)->arena_bytes
               ? a
               : b;
}

static AqStatus compile(AqRepeated *r, const AqHoisted *graphs,
                        AqMemory *memory, AqPool *pool,
                        const AqProgramSettings *settings, AqError *error)
{
    AqProgramSettings own = *settings;
    int64_t before = aq_memory_bytes(memory);
    own.fixed = graphs->fixed;
    own.n_fixed = graphs->n_fixed;
    own.frugal = own.frugal || own.room; /* others write there, too */
    r->step = aq_compiled_new(graphs->step, memory, pool, &own, error);
    if (!r->step || graphs->n_kept == 0)
        return error->status;
    int64_t taken =
        aq_compiled_bytes(r->step) + aq_memory_bytes(memory) - before;
    if (own.memory_limit > 0)
        own.memory_limit = AQ_MAX(own.memory_limit - taken, (int64_t)1);
    own.n_fixed = 0;
    own.room = larger(own.room, r->step);
    r->prepare = aq_compiled_new(graphs->prepare, memory, pool, &own, error);
    return error->status;
}

AqRepeated *aq_repeated_new(const AqGraph *graph, const AqRepeat *repeat,
                            AqMemory *memory, AqPool *pool,
                            const AqProgramSettings *settings, AqError *error)
{
    AqRepeated *r = calloc(1, sizeof *r);
    if (!r) {
        aq_no_memory(error, sizeof *r);
        return NULL;
    }
    AqHoisted graphs;
    if (aq_memory_find(memory, AQ_HOISTED "0", NULL))
        aq_fail(error, AQ_INTERNAL,
                "two repeated programs cannot share their hoisted arrays");
    else if (aq_hoist(graph, repeat, &graphs, error) == AQ_OK) {
        compile(r, &graphs, memory, pool, settings, error);
        aq_hoisted_free(&graphs);
    }
    if (error->status == AQ_OK)
        return r;
    aq_repeated_free(r);
    return NULL;
}

void aq_repeated_free(AqRepeated *r)
{
    if (!r)
        return;
    aq_compiled_free(r->prepare); /* it may borrow the step's memory */
    aq_compiled_free(r->step);
    free(r);
}

bool aq_repeated_run(AqRepeated *r, const volatile int *stop)
{
    if (!r->prepared && r->prepare) {
        if (!aq_compiled_run(r->prepare, stop))
            return false;
        aq_compiled_changed(r->step); /* whose arena was used meanwhile */
    }
    r->prepared = true;
    return aq_compiled_run(r->step, stop);
}

void aq_repeated_changed(AqRepeated *r)
{
    r->prepared = false;
    aq_compiled_changed(r->step);
}

AqCompiled *aq_repeated_step(AqRepeated *r)
{
    return r->step;
}

const AqCompiled *aq_repeated_prepare(const AqRepeated *r)
{
    return r->prepare;
}

int64_t aq_repeated_bytes(const AqRepeated *r)
{
    return aq_compiled_bytes(r->step) +
           (r->prepare ? aq_compiled_bytes(r->prepare) : 0);
}
