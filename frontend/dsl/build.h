/* Inside the DSL: every function has its caller's place in `at`, and what it
 * builds by the macros of aquatint.h comes from there as well. */
#ifndef AQ_BUILD_H
#define AQ_BUILD_H

#define AQ_HERE at
#include "frontend/dsl/dsl.h"

/* The arguments' graph, with the caller's place set.  NULL where one of them
 * failed or (an error then) is no tensor or of another graph. */
AqGraph *aq_enter(AqPlace at, const char *what, const AqTensor *x, int count);
/* The same for a scope and what is built in it; at->scope becomes its path. */
AqGraph *aq_enter_scope(AqPlace *at, AqScope s);
void aq_enter_graph(AqPlace at, AqGraph *graph);
/* A tensor of no use in the graph of `x`. */
AqTensor aq_lost(AqTensor x);
/* An error at the caller's line, and a tensor of no use. */
__attribute__((format(printf, 3, 4))) AqTensor
aq_complain(AqPlace at, AqGraph *graph, const char *format, ...);

/* "f32[8,4]", for a sentence; in the graph's arena */
const char *aq_type_name(AqGraph *graph, const AqType *type);

static inline AqTensor aq_wrap(AqGraph *graph, AqId id)
{
    return (AqTensor){graph, id};
}

static inline bool aq_good(AqTensor x)
{
    return x.graph && x.id >= 0;
}

/* The type of a good tensor. */
static inline const AqType *aq_type_of(AqTensor x)
{
    return &aq_node(x.graph, x.id)->type;
}

/* 0 .. rank-1, or -1 with an error. */
int aq_axis(AqPlace at, AqTensor x, int axis, const char *what);
/* Repeats x to this type's shape, as NumPy does; the caller checked it. */
AqTensor aq_fit(AqPlace at, AqTensor x, const AqType *to);
/* x (N) -> (N, 1, 1, ...) of the rank of `like` */
AqTensor aq_per_sample(AqPlace at, AqTensor x, AqTensor like);
/* 1 - exp(x) without cancellation near 0. */
AqTensor aq_one_minus_exp(AqPlace at, AqTensor x);
/* abar of every timestep, in the graph's arena; NULL with an error. */
double *aq_process_table(AqPlace at, AqGraph *g, const AqProcess *p);
/* The options that no model asked for are an error, with the nearest name. */
void aq_options_end(AqGraph *g, const AqOptions *options, const char *model);

#endif
