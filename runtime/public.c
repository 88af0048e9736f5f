/* Programs for whoever links the library: a graph, its arrays and threads in
 * one value, with errors that stick. */
#include <aquatint.h>

#include "runtime/run.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

struct AqProgram {
    AqError error;
    AqProgram *with;
    AqPool *pool; /* of `with`, if there is one */
    AqMemory *memory;
    AqRepeated *repeated;
    AqCompiled *compiled;  /* its step */
    const int32_t *number; /* of the run; NULL: it has none */
    int numbers;
    AqHash params; /* of their table; zero: there are none */
};

/* ---- parameters ---- */

static AqStatus hash_params(const AqParamTable *table, AqHash *hash,
                            AqError *error)
{
    AqText text = {0};
    for (int i = 0; i < table->count; i++) {
        aq_text_printf(&text, "%s %lld ", table->at[i].name,
                       (long long)table->at[i].offset);
        aq_type_text(&text, &table->at[i].type);
    }
    if (table->count > 0)
        *hash = aq_hash128(text.data, text.length);
    AqStatus status = text.failed ? aq_no_memory(error, text.length) : AQ_OK;
    aq_text_free(&text);
    return status;
}

static bool has_params(const AqProgram *p)
{
    return p->params.high != 0 || p->params.low != 0;
}

/* What `with` has is used in place of an array of our own. */
static void share(AqProgram *p, const char *name)
{
    if (aq_memory_find(p->with->memory, name, NULL) &&
        !aq_memory_find(p->memory, name, NULL))
        aq_memory_share(p->memory, name, p->with->memory, name, &p->error);
}

static AqStatus share_states(AqProgram *p, const AqGraph *graph)
{
    if (has_params(p) && has_params(p->with) &&
        memcmp(&p->params, &p->with->params, sizeof p->params) != 0)
        return aq_fail(&p->error, AQ_BAD_INPUT,
                       "the parameters are not those of the program whose "
                       "arrays are to be shared: build the same layers in the "
                       "same order, under the same scopes");
    share(p, "weights");
    for (AqId id = 0; id < graph->count; id++) {
        const AqNode *node = aq_node(graph, id);
        if (node->op == AQ_OP_state)
            share(p, aq_attr_text(node, AQ_KEY_NAME, ""));
    }
    if (!has_params(p))
        p->params = p->with->params;
    return p->error.status;
}

/* ---- a program's life ---- */

static AqStatus check_graph(const AqProgramOptions *o, AqError *error)
{
    const char *sentence = aq_graph_error(o->graph);
    if (sentence)
        return aq_fail(error, AQ_BAD_INPUT, "%s", sentence);
    if (o->with && o->with->error.status)
        return aq_fail(error, o->with->error.status, "%s", o->with->error.text);
    return AQ_OK;
}

static AqStatus compile(AqProgram *p, const AqProgramOptions *o)
{
    AqProgramSettings settings = {.memory_limit = 0};
    AqRepeat repeat = {
        .fixed = o->fixed, .number = o->number, .numbers = o->numbers};
    while (repeat.n_fixed < AQ_MAX_FIXED && o->fixed[repeat.n_fixed])
        repeat.n_fixed++;
    p->repeated = aq_repeated_new(o->graph, &repeat, p->memory, p->pool,
                                  &settings, &p->error);
    if (!p->repeated)
        return p->error.status;
    p->compiled = aq_repeated_step(p->repeated);
    p->numbers = o->numbers;
    if (o->number) /* the number of an unused input says nothing */
        p->number = aq_memory_find(p->memory, o->number, NULL);
    return AQ_OK;
}

static AqStatus build(AqProgram *p, const AqProgramOptions *o)
{
    AqError *error = &p->error;
    if (check_graph(o, error))
        return error->status;
    const AqParamTable *table = aq_params(o->graph);
    if (!table)
        return aq_no_memory(error, sizeof *table);
    AqPoolOptions pool = {.threads = o->threads};
    p->pool = o->with ? o->with->pool : aq_pool_new(&pool, error);
    p->memory = p->pool ? aq_memory_new(error) : NULL;
    if (!p->memory || hash_params(table, &p->params, error) ||
        (o->with && share_states(p, o->graph)))
        return error->status;
    AqStart start = {
        .params = table, .seed = o->seed, .memory = p->memory, .pool = p->pool};
    aq_start_begin(&start, o->graph);
    /* of all parameters, whether or not this graph reads them */
    if (aq_memory_array(p->memory, "weights",
                        table->floats * (int64_t)sizeof(float), error))
        compile(p, o);
    aq_start_end(&start, !error->status);
    return error->status;
}

AqProgram *aq_program_new_(AqProgramOptions o)
{
    AqProgram *p = calloc(1, sizeof *p);
    if (!p)
        return NULL;
    p->with = o.with;
    build(p, &o);
    return p;
}

void aq_program_free(AqProgram *p)
{
    if (!p)
        return;
    aq_repeated_free(p->repeated);
    aq_memory_free(p->memory);
    if (!p->with)
        aq_pool_free(p->pool);
    free(p);
}

const char *aq_program_error(const AqProgram *p)
{
    if (!p)
        return "memory ended";
    return p->error.status ? p->error.text : NULL;
}

/* ---- arrays ---- */

static const AqPlannedOutput *find_output(const AqProgram *p, const char *name)
{
    const AqPlan *plan = aq_compiled_plan(p->compiled);
    for (int i = 0; i < plan->n_outputs; i++)
        if (!strcmp(plan->outputs[i].name, name))
            return &plan->outputs[i];
    return NULL;
}

static void complain(AqProgram *p, const char *name)
{
    enum { MOST = 64 };
    const AqPlan *plan = aq_compiled_plan(p->compiled);
    const char *names[MOST];
    int count = 0;
    for (int i = 1; i < plan->n_bases && count < MOST; i++)
        names[count++] = plan->bases[i].name;
    for (int i = 0; i < plan->n_outputs && count < MOST; i++)
        names[count++] = plan->outputs[i].name;
    const char *near = aq_nearest(name, names, count);
    aq_fail(&p->error, AQ_BAD_INPUT,
            "the program has no input, state or output \"%s\"%s%s%s", name,
            near ? "; did you mean \"" : "", near ? near : "",
            near ? "\"?" : "");
}

void *aq_program_array(AqProgram *p, const char *name, int64_t *elements)
{
    if (aq_program_error(p))
        return NULL;
    int64_t bytes = 0;
    void *array = aq_memory_find(p->memory, name, &bytes);
    const AqPlannedOutput *output = array ? NULL : find_output(p, name);
    if (output) {
        array = (void *)aq_compiled_output(p->compiled, name);
        bytes = aq_bytes(&output->type);
    }
    if (!array)
        complain(p, name);
    else if (elements)
        *elements = bytes / 4;
    return array;
}

double aq_program_number(AqProgram *p, const char *name)
{
    if (aq_program_error(p))
        return NAN;
    const AqPlannedOutput *output = find_output(p, name);
    if (!output) {
        complain(p, name);
        return NAN;
    }
    const void *data = aq_compiled_output(p->compiled, name);
    return output->type.element == AQ_I32 ? *(const int32_t *)data
                                          : (double)*(const float *)data;
}

bool aq_program_run(AqProgram *p)
{
    if (aq_program_error(p))
        return false;
    if (p->number && (*p->number < 0 || *p->number >= p->numbers)) {
        aq_fail(&p->error, AQ_BAD_INPUT,
                "the run's number is %d: it must lie between 0 and %d",
                (int)*p->number, p->numbers - 1);
        return false;
    }
    return aq_repeated_run(p->repeated, NULL);
}

void aq_program_changed(AqProgram *p)
{
    if (!aq_program_error(p))
        aq_repeated_changed(p->repeated);
}
