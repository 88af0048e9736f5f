/* Measures how each contraction of a program is best computed here: every
 * distinct one alone, by all candidates of passes/choose_candidates.c in turn,
 * on the pool's threads.  What comes out holds for any number of them. */
#include "runtime/runtime.h"

#include <string.h>

enum { MOST_CANDIDATES = 16, ROUNDS = 7 };

/* Of the sweep between two measurements: bytes of a task, tasks of a thread,
 * together beyond what a core's own cache has. */
enum { SWEEP_BYTES = 256 << 10, SWEEP_TASKS = 16 };

/* What must be gained before the tables' choice is left: less is noise. */
static const double margin = 0.97;

typedef struct Tune {
    const AqGraph *kernels;
    AqPool *pool;
    const AqTarget *target;
    const AqCompileOptions *compile;
    AqArena *arena; /* of one contraction */
    AqError *error;
    AqChoice choices[MOST_CANDIDATES];
    double seconds[MOST_CANDIDATES];
    AqId ids[MOST_CANDIDATES];
    AqKernelLayout layouts[MOST_CANDIDATES];
    int count;
    AqGraph *graph; /* with a kernel for each candidate */
    void **buffers, **scratch;
    void **pages; /* as `buffers`, but for two workspaces at the end */
    int64_t *bytes;
    int n_buffers;
    int64_t scratch_bytes;
    void *sweep; /* SWEEP_BYTES for each of SWEEP_TASKS of each thread */
} Tune;

static int64_t sweep_tasks(const Tune *t)
{
    return (int64_t)aq_pool_threads(t->pool) * SWEEP_TASKS;
}

/* ---- the graph ---- */

static AqStatus build_graph(Tune *t, AqId kernel)
{
    const AqNode *node = aq_node(t->kernels, kernel);
    AqId *map = AQ_NEW_ARRAY(t->arena, AqId, t->kernels->count);
    t->graph = aq_graph_new();
    if (!map || !t->graph)
        return aq_no_memory(t->error, sizeof *map);
    for (int i = 0; i < node->n_inputs; i++) {
        char name[32];
        snprintf(name, sizeof name, "input%d", i);
        AqAttr attr = aq_text(AQ_KEY_NAME, name);
        AqId from = node->inputs[i];
        map[from] =
            aq_build(t->graph, AQ_OP_input, &aq_node(t->kernels, from)->type,
                     NULL, 0, &attr, 1);
    }
    for (int i = 0; i < t->count; i++) {
        const AqChoice *c = &t->choices[i];
        AqAttr attrs[] = {aq_text(AQ_KEY_ALGORITHM, c->algorithm),
                          aq_ints(AQ_KEY_BLOCKS, c->blocks, c->n_blocks)};
        t->ids[i] =
            aq_graph_copy_with(t->graph, t->kernels, kernel, map, attrs, 2);
    }
    if (t->graph->error.status)
        return aq_fail(t->error, t->graph->error.status, "%s",
                       t->graph->error.text);
    return AQ_OK;
}

/* ---- memory ---- */

/* Numbers like those of a network, and indices that are in every table. */
static void fill(void *buffer, const AqType *type)
{
    float *values = buffer;
    if (type->element == AQ_F32)
        for (int64_t i = 0; i < aq_elements(type); i++)
            values[i] = (float)(i * 7919 % 1000) * 1e-3f - 0.5f;
}

static AqStatus add_buffer(Tune *t, int64_t bytes)
{
    void *pages = aq_pages(bytes, t->error);
    t->buffers[t->n_buffers] = t->pages[t->n_buffers] = pages;
    t->bytes[t->n_buffers] = bytes;
    t->n_buffers += pages != NULL;
    return t->error->status;
}

/* Inputs, results, and the largest workspaces and scratch of all candidates. */
static AqStatus get_memory(Tune *t)
{
    const AqNode *node = aq_node(t->graph, t->ids[0]);
    int results = aq_attr_body(node)->n_outputs;
    size_t most = (size_t)(node->n_inputs + results + 2);
    int64_t workspace = 0, kept = 0;
    t->buffers = AQ_NEW_ARRAY(t->arena, void *, most);
    t->pages = AQ_NEW_ARRAY(t->arena, void *, most);
    t->bytes = AQ_NEW_ARRAY(t->arena, int64_t, most);
    t->scratch = AQ_NEW_ARRAY(t->arena, void *, aq_pool_threads(t->pool));
    if (!t->buffers || !t->pages || !t->bytes || !t->scratch)
        return aq_no_memory(t->error, most * sizeof(void *));
    for (int i = 0; i < t->count; i++) {
        AqKernelLayout *layout = &t->layouts[i];
        if (aq_kernel_layout(t->graph, t->ids[i], t->target, layout, t->error))
            return t->error->status;
        workspace = AQ_MAX(workspace, layout->workspace);
        kept = AQ_MAX(kept, layout->kept);
        t->scratch_bytes = AQ_MAX(t->scratch_bytes, layout->scratch);
    }
    for (int i = 0; i < node->n_inputs; i++) {
        const AqType *type = &aq_node(t->graph, node->inputs[i])->type;
        if (add_buffer(t, aq_bytes(type)))
            return t->error->status;
        fill(t->buffers[i], type);
    }
    for (int i = 0; i < results; i++) {
        AqType type = aq_result_type(t->graph, t->ids[0], i);
        if (add_buffer(t, aq_bytes(&type)))
            return t->error->status;
    }
    for (int i = 0; i < aq_pool_threads(t->pool) && !t->error->status; i++)
        t->scratch[i] = aq_pages(t->scratch_bytes, t->error);
    if (!t->error->status && !add_buffer(t, workspace) && !add_buffer(t, kept))
        t->sweep = aq_pages(sweep_tasks(t) * SWEEP_BYTES, t->error);
    return t->error->status;
}

static void free_memory(Tune *t)
{
    for (int i = 0; i < t->n_buffers; i++)
        aq_pages_free(t->pages[i], t->bytes[i]);
    for (int i = 0; t->scratch && i < aq_pool_threads(t->pool); i++)
        aq_pages_free(t->scratch[i], t->scratch_bytes);
    aq_pages_free(t->sweep, sweep_tasks(t) * SWEEP_BYTES);
    aq_graph_free(t->graph);
    aq_arena_free(t->arena);
}

/* ---- time ---- */

static void sweep(const void *closure, void *const *buffers, int64_t first,
                  int64_t last, void *scratch)
{
    (void)closure, (void)scratch;
    enum { LINE = 64 };
    char *bytes = buffers[0];
    for (int64_t i = first * SWEEP_BYTES; i < last * SWEEP_BYTES; i += LINE)
        bytes[i]++;
}

/* As in a step, where other kernels have run since: what the cores' own caches
 * hold of this contraction is gone, for every candidate alike. */
static void forget(const Tune *t)
{
    void *buffers[] = {t->sweep};
    AqLaunch launch = {.stage = {.run = sweep, .tasks = sweep_tasks(t)},
                       .buffers = buffers};
    aq_pool_run(t->pool, &launch, 1, t->scratch, NULL);
}

static double run_once(const Tune *t, int candidate, const AqStage *stages,
                       int n_stages)
{
    AqLaunch launches[AQ_MAX_STAGES];
    const AqKernelLayout *layout = &t->layouts[candidate];
    int last = t->n_buffers - 2;
    if (layout->workspace > 0)
        t->buffers[last++] = t->pages[t->n_buffers - 2];
    if (layout->kept > 0)
        t->buffers[last] = t->pages[t->n_buffers - 1];
    for (int i = 0; i < n_stages; i++)
        launches[i] = (AqLaunch){.stage = stages[i], .buffers = t->buffers};
    forget(t);
    double began = aq_seconds();
    aq_pool_run(t->pool, launches, n_stages, t->scratch, NULL);
    return aq_seconds() - began;
}

/* The least of some rounds, in each of which every candidate has its turn,
 * forwards and backwards: none is always the one that follows another kind. */
static void time_all(Tune *t, const AqCode *code)
{
    for (int round = -1; round < ROUNDS; round++) /* the first is a rehearsal */
        for (int j = 0; j < t->count; j++) {
            int n_stages, i = round % 2 ? t->count - 1 - j : j;
            const AqStage *stages = aq_code_stages(code, i, &n_stages);
            double now = run_once(t, i, stages, n_stages);
            if (round <= 0 || now < t->seconds[i])
                t->seconds[i] = now;
        }
}

static int best_of(const Tune *t)
{
    int best = 0;
    for (int i = 1; i < t->count; i++)
        if (t->seconds[i] < t->seconds[best] * (best == 0 ? margin : 1))
            best = i;
    return best;
}

static void describe(const Tune *t, AqId kernel, int best, AqText *out)
{
    const AqGraph *body = aq_attr_body(aq_node(t->kernels, kernel));
    for (AqId id = 0; id < body->count; id++) {
        const AqNode *node = aq_node(body, id);
        if (aq_op_info[node->op].lowering != AQ_LOWER_contract)
            continue;
        aq_text_add(out, aq_op_info[node->op].name);
        for (int i = 0; i < node->n_inputs; i++) {
            aq_text_add(out, " ");
            aq_type_text(out, &aq_node(body, node->inputs[i])->type);
        }
    }
    for (int i = 0; i < t->count; i++) {
        const AqChoice *c = &t->choices[i];
        aq_text_printf(out, "%s%s", i ? ", " : ": ", c->algorithm);
        for (int k = 0; k < c->n_blocks; k++)
            aq_text_printf(out, "%s%lld", k ? "," : " ",
                           (long long)c->blocks[k]);
        aq_text_printf(out, " %.3f ms%s", 1e3 * t->seconds[i],
                       i == best ? " (taken)" : "");
    }
}

static AqStatus measure(Tune *t, AqId kernel, AqChoice *choice,
                        const AqTuneOptions *options)
{
    AqText text = {0};
    t->arena = aq_arena_new();
    t->count = aq_contraction_choices(aq_node(t->kernels, kernel), t->target,
                                      t->choices, MOST_CANDIDATES);
    AqCode *code = NULL;
    if (!t->arena)
        aq_no_memory(t->error, sizeof *t);
    else if (!build_graph(t, kernel) && !get_memory(t))
        code = aq_compile(t->graph, t->ids, t->count, t->target, t->compile,
                          t->error);
    if (code) {
        time_all(t, code);
        int best = best_of(t);
        *choice = t->choices[best];
        describe(t, kernel, best, &text);
        if (options->tell && text.data)
            options->tell(options->context, text.data);
    }
    aq_text_free(&text);
    aq_code_free(code);
    free_memory(t);
    return t->error->status;
}

static bool is_known(const AqChoice *choices, int count, uint64_t hash)
{
    for (int i = 0; i < count; i++)
        if (choices[i].contraction == hash)
            return true;
    return false;
}

AqStatus aq_tune(const AqGraph *graph, AqPool *pool,
                 const AqProgramSettings *settings,
                 const AqTuneOptions *options, AqArena *arena, AqTuning *tuning,
                 AqError *error)
{
    AqPassContext cx = {.target = &settings->target, .error = error};
    AqGraph *kernels = aq_optimize(graph, NULL, &cx);
    AqChoice *choices =
        kernels ? AQ_NEW_ARRAY(arena, AqChoice, kernels->count) : NULL;
    int count = 0;
    for (AqId id = 0; choices && id < kernels->count && !error->status; id++) {
        uint64_t hash =
            aq_contraction_hash(aq_node(kernels, id), &settings->target);
        if (hash == 0 || is_known(choices, count, hash))
            continue;
        Tune t = {.kernels = kernels,
                  .pool = pool,
                  .target = &settings->target,
                  .compile = &settings->compile,
                  .error = error};
        if (measure(&t, id, &choices[count], options) == AQ_OK)
            count++;
    }
    if (kernels && !choices)
        aq_no_memory(error, sizeof *choices * (size_t)kernels->count);
    aq_graph_free(kernels);
    *tuning = (AqTuning){choices, count};
    return error->status;
}
