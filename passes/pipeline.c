/* The passes in their order, and the one loop that runs them. */
#include "passes/passes.h"

#include <string.h>

const AqPass aq_pipeline[] = {
    {"simplify", aq_simplify, "builders and gradients leave trivial nodes"},
    {"split", aq_split, "a reduction must offer tasks without atomics"},
    {"tidy", aq_simplify, "split leaves reshapes"},
    {"fuse", aq_fuse, "what is not stored need not be read"},
    {"choose", aq_choose, "sizes of scratch memory depend on the algorithm"},
    {"order", aq_order, "what is alive at once depends on it"},
    {"recompute", aq_recompute, "sizes and times are those of kernels"},
};
const int aq_pipeline_count = AQ_COUNT(aq_pipeline);

const AqPass *aq_pass_named(const char *name)
{
    for (int i = 0; i < aq_pipeline_count; i++)
        if (!strcmp(aq_pipeline[i].name, name))
            return &aq_pipeline[i];
    return NULL;
}

static AqStatus check(const AqPass *pass, const AqGraph *before,
                      const AqGraph *after, bool compare, AqError *error)
{
    enum { SEED = 1 };
    AqError inner = {0};
    if (aq_graph_verify(after, &inner) != AQ_OK ||
        (compare && aq_compare_graphs(before, after, SEED, 1e-6, &inner)))
        return aq_fail(error, AQ_INTERNAL, "pass %s: %s", pass->name,
                       inner.text);
    return AQ_OK;
}

static AqGraph *run_pass(const AqPass *pass, const AqGraph *in, bool compare,
                         AqPassContext *cx)
{
    AqGraph *out = aq_graph_new();
    if (!out) {
        aq_no_memory(cx->error, sizeof *out);
        return NULL;
    }
    AqStatus status = pass->run(in, out, cx);
    if (status == AQ_OK && out->error.status != AQ_OK)
        status = aq_fail(cx->error, AQ_INTERNAL, "pass %s: %s", pass->name,
                         out->error.text);
    if (status == AQ_OK)
        status = check(pass, in, out, compare, cx->error);
    if (status == AQ_OK)
        return out;
    aq_fail(cx->error, status, "pass %s failed", pass->name);
    aq_graph_free(out);
    return NULL;
}

double aq_verify_seconds(const AqGraph *graph)
{
    return aq_interpret_seconds(graph) * 2 * aq_pipeline_count;
}

static AqStatus refuse_long_verification(const AqGraph *graph, AqError *error)
{
    double seconds = aq_verify_seconds(graph);
    if (seconds <= AQ_VERIFY_SECONDS)
        return AQ_OK;
    return aq_fail(error, AQ_BAD_INPUT,
                   "--verify-passes would take about %.0f minutes: choose a "
                   "smaller model, batch or size",
                   seconds / 60 + 0.5);
}

AqGraph *aq_optimize(const AqGraph *graph, const AqPipelineOptions *options,
                     AqPassContext *cx)
{
    static const AqPipelineOptions nothing;
    const AqPipelineOptions *o = options ? options : &nothing;
    if (o->verify && refuse_long_verification(graph, cx->error) != AQ_OK)
        return NULL;
    if (o->after)
        o->after(o->context, "input", graph, 0);
    AqPassContext inner = {.target = cx->target,
                           .algorithm =
                               o->algorithm ? o->algorithm : cx->algorithm,
                           .tuning = o->tuning ? o->tuning : cx->tuning,
                           .budget = cx->budget,
                           .error = cx->error};
    const AqGraph *now = graph;
    AqGraph *kept = NULL; /* `now` where it is ours */
    for (int i = 0; i < aq_pipeline_count; i++) {
        if (o->until && aq_pipeline[i].run == o->until)
            break;
        bool limited = inner.budget && inner.budget->room;
        if (aq_pipeline[i].run == aq_recompute && !limited)
            continue;
        double start = aq_seconds();
        AqGraph *next = run_pass(&aq_pipeline[i], now, o->verify, &inner);
        aq_graph_free(kept);
        if (!next)
            return NULL;
        now = kept = next;
        if (o->after)
            o->after(o->context, aq_pipeline[i].name, now,
                     aq_seconds() - start);
    }
    return kept;
}
