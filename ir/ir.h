/* The graph: ops, types, nodes, text form, verifier, reference interpreter,
 * pictures, and the description of a target.
 *
 * A graph is one array of nodes in topological order (inputs before users),
 * named by 32-bit ids.  Nodes are interned: building an equal one returns the
 * old one.  Everything belongs to the graph's arena.  The first error sticks in
 * the graph, in one sentence that begins with the user's file and line; from
 * then on building returns AQ_NO_NODE and does nothing. */
#ifndef AQ_IR_H
#define AQ_IR_H

#include "ir/base/base.h"

enum { AQ_MAX_RANK = 8, AQ_NO_NODE = -1, AQ_MAX_RESULTS = 16 };
enum { AQ_MAX_SUMS = 4 }; /* reductions in one contraction's kernel */

/* Parameters lie in the flat arrays at multiples of this many floats. */
enum { AQ_PARAM_ALIGN = 16 };

typedef int32_t AqId;

/* ---- types.c ---- */

typedef enum AqElement {
    AQ_F32,
    AQ_I32,
    AQ_RESULTS, /* the "value" of an op with several results */
} AqElement;

typedef struct AqType {
    AqElement element;
    int rank;
    int64_t dim[AQ_MAX_RANK]; /* zero beyond the rank */
} AqType;

AqType aq_type(AqElement element, int rank, const int64_t *dim);
bool aq_same_type(const AqType *a, const AqType *b);
bool aq_same_shape(const AqType *a, const AqType *b);
int64_t aq_elements(const AqType *type);             /* 1 for rank 0 */
int64_t aq_bytes(const AqType *type);                /* 4 an element */
void aq_type_text(AqText *text, const AqType *type); /* f32[8,14,14,64] */

/* ---- ops.c: what ops.def says ---- */

typedef enum AqOp {
#define OP(name, ...) AQ_OP_##name,
#include "ir/ops.def"
#undef OP
    AQ_OP_COUNT
} AqOp;

/* facts */
enum {
    AQ_POINTWISE = 1,
    AQ_COMMUTES = 2,
    AQ_MOVES = 4,
    AQ_SOURCE = 8,
    AQ_HAS_RESULTS = 16,
    AQ_INTEGERS = 32,
    AQ_EXPENSIVE = 64,
    AQ_REDUCES = 128,
};

typedef enum AqLowering {
    AQ_LOWER_none,
    AQ_LOWER_map,
    AQ_LOWER_contract,
    AQ_LOWER_attend,
    AQ_LOWER_scatter,
} AqLowering;

typedef struct AqOpInfo {
    const char *name;
    int inputs; /* exactly, or at least where `list` */
    bool list;
    unsigned facts;
    uint64_t attributes; /* bit 1 << AqKey of those it may carry */
    AqLowering lowering;
} AqOpInfo;

extern const AqOpInfo aq_op_info[AQ_OP_COUNT];

/* ---- attributes ---- */

typedef enum AqKey {
#define ATTRIBUTE(KEY, name, kind) AQ_KEY_##KEY,
#include "ir/attributes.def"
#undef ATTRIBUTE
    AQ_KEY_COUNT
} AqKey;

typedef enum AqAttrKind {
    AQ_INT,
    AQ_REAL,
    AQ_TEXT,
    AQ_INTS,
    AQ_REALS,
    AQ_BODY,
} AqAttrKind;

typedef struct AqGraph AqGraph;

typedef struct AqAttr {
    AqKey key;
    int count; /* of ints and reals */
    union {
        int64_t integer;
        double real;
        const char *text;
        const int64_t *ints;
        const double *reals;
        const AqGraph *body;
    };
} AqAttr;

extern const char *const aq_key_name[AQ_KEY_COUNT];
extern const AqAttrKind aq_key_kind[AQ_KEY_COUNT];

/* For building: aq_int(AQ_KEY_AXIS, 3), aq_ints(AQ_KEY_AXES, axes, n), ... */
AqAttr aq_int(AqKey key, int64_t value);
AqAttr aq_real(AqKey key, double value);
AqAttr aq_text(AqKey key, const char *value);
AqAttr aq_ints(AqKey key, const int64_t *values, int count);
AqAttr aq_reals(AqKey key, const double *values, int count);
AqAttr aq_body(const AqGraph *body);

/* ---- graph.c ---- */

typedef struct AqNode {
    AqOp op;
    int copy; /* not zero: a second evaluation, wanted by recompute */
    AqType type;
    int n_inputs, n_attrs;
    const AqId *inputs;  /* in the graph's arena */
    const AqAttr *attrs; /* sorted by key */
    const char *scope;   /* "down_blocks.0.resnets.1", never NULL */
    const char *file;    /* the user's source, "" if unknown */
    int line;
} AqNode;

/* What the graph is for: values to read, and states to overwrite. */
typedef struct AqOutput {
    const char *name;
    AqId node;
    bool update; /* `name` is a state (or `weights`), written at the end */
} AqOutput;

struct AqGraph {
    AqArena *arena;
    AqNode *nodes;
    int count, capacity;
    AqOutput *outputs;
    int n_outputs, outputs_capacity;
    AqError error;
    /* where nodes built from now on come from */
    const char *scope, *file;
    int line, copy;
    /* interning: open addressing, node + 1, 0 is empty */
    int32_t *table;
    int table_size;
};

AqGraph *aq_graph_new(void); /* NULL when memory ends */
void aq_graph_free(AqGraph *graph);
/* An empty graph in the owner's arena, for a kernel's body: freed with it. */
AqGraph *aq_graph_body(AqGraph *owner);

/* Builds a node or finds its equal.  `declared` gives the type of ops whose
 * rule needs it (sources, reshape, slice, pad, broadcast, cast, the
 * convolutions' gradients, scatter_add) and may be NULL otherwise.  Checks
 * inputs, attributes and shapes.  Texts and arrays are copied; a body is not.
 */
AqId aq_build(AqGraph *graph, AqOp op, const AqType *declared,
              const AqId *inputs, int n_inputs, const AqAttr *attrs,
              int n_attrs);
/* An error at the current place: "file:line: sentence in scope s". */
AqId aq_graph_fail(AqGraph *graph, AqStatus status, const char *format, ...)
    AQ_PRINTF(3, 4);
void aq_graph_output(AqGraph *graph, const char *name, AqId node, bool update);
/* Later nodes come from where `node` of `from` came from. */
void aq_graph_place(AqGraph *graph, const AqNode *node);
/* Copies node `id` of `from`, its inputs looked up in `map` (old id -> new);
 * it keeps its place and its copy number, and its body is copied with it. */
AqId aq_graph_copy_node(AqGraph *to, const AqGraph *from, AqId id,
                        const AqId *map);
/* The same with other attributes beside its own; of one key, the new one. */
AqId aq_graph_copy_with(AqGraph *to, const AqGraph *from, AqId id,
                        const AqId *map, const AqAttr *attrs, int n_attrs);

/* Of nodes and outputs, not of where they come from; bodies hold no kernels. */
uint64_t aq_graph_hash(const AqGraph *graph);

static inline const AqNode *aq_node(const AqGraph *graph, AqId id)
{
    return &graph->nodes[id];
}

/* ---- query.c ---- */

const AqAttr *aq_attr(const AqNode *node, AqKey key); /* NULL if not there */
int64_t aq_attr_int(const AqNode *node, AqKey key, int64_t otherwise);
double aq_attr_real(const AqNode *node, AqKey key, double otherwise);
const char *aq_attr_text(const AqNode *node, AqKey key, const char *otherwise);
/* the i-th of a list, or `otherwise` where list or element are not there */
int64_t aq_attr_at(const AqNode *node, AqKey key, int i, int64_t otherwise);
const AqGraph *aq_attr_body(const AqNode *node);

/* The type of result `index` of a node with several; its own type otherwise. */
AqType aq_result_type(const AqGraph *graph, AqId node, int index);
int aq_result_count(const AqGraph *graph, AqId node); /* 1 for plain nodes */

/* How many nodes and outputs use each node; `uses` has graph->count places. */
void aq_count_uses(const AqGraph *graph, int *uses);
/* Marks what outputs reach, and states that are updated; `live` has
 * graph->count places. */
void aq_mark_live(const AqGraph *graph, bool *live);

/* ---- build.c: one line a node, for passes and builders ----
 * Shapes must already agree; there is no implicit broadcasting here. */

AqId aq_unary(AqGraph *g, AqOp op, AqId x);
AqId aq_binary(AqGraph *g, AqOp op, AqId a, AqId b);
AqId aq_select_node(AqGraph *g, AqId condition, AqId a, AqId b);
AqId aq_const_node(AqGraph *g, const AqType *type, double value);
AqId aq_const_like(AqGraph *g, AqId like, double value);
AqId aq_table_node(AqGraph *g, const AqType *type, const double *data);
AqId aq_iota_node(AqGraph *g, const AqType *type, int axis);
AqId aq_cast_node(AqGraph *g, AqId x, AqElement element);
AqId aq_reshape_node(AqGraph *g, AqId x, int rank, const int64_t *dim);
AqId aq_reshape_like(AqGraph *g, AqId x, const AqType *like);
AqId aq_transpose_node(AqGraph *g, AqId x, const int64_t *perm);
AqId aq_broadcast_node(AqGraph *g, AqId x, int rank, const int64_t *dim);
/* Puts back the reduced `axes` as ones and repeats along them. */
AqId aq_expand_node(AqGraph *g, AqId reduced, const AqType *to,
                    const int64_t *axes, int n_axes);
AqId aq_slice_node(AqGraph *g, AqId x, const int64_t *start,
                   const int64_t *size, const int64_t *step);
AqId aq_pad_node(AqGraph *g, AqId x, const int64_t *start, const int64_t *step,
                 const int64_t *size);
AqId aq_concat_node(AqGraph *g, const AqId *parts, int count, int axis);
AqId aq_repeat_node(AqGraph *g, AqId x, const int64_t *factor);
AqId aq_reduce_node(AqGraph *g, AqOp op, AqId x, const int64_t *axes,
                    int n_axes);
AqId aq_matmul_node(AqGraph *g, AqId a, AqId b, bool ta, bool tb);
AqId aq_result_node(AqGraph *g, AqId node, int index);

/* ---- print.c, parse.c: exact inverses ---- */

/*  graph {
 *    %0 = input {name="x"} : f32[8,4]   ; models/m.c:4 scope
 *    %1 = exp %0 : f32[8,4]
 *    output y = %1
 *    update ema = %1
 *  } */
void aq_graph_print(const AqGraph *graph, AqText *text);
/* `name` stands in the messages for the text's file. */
AqGraph *aq_graph_parse(const char *text, const char *name, AqError *error);

/* ---- dot.c: pictures, as text for Graphviz ---- */

typedef struct AqDotOptions {
    const char *title; /* may be NULL */
    const char *scope; /* draw this one alone, "down_blocks.0"; NULL: all */
    int depth;         /* levels of scopes opened; 0: as many as fit */
    int most;          /* boxes that fit; 0: 75, or 150 in two columns */
    int64_t batch;     /* not told in shapes that begin with it; 0: tell all */
    const double *seconds; /* that each node takes, estimated; NULL: not told */
} AqDotOptions;

typedef struct AqDotFacts {
    int boxes, depth;
} AqDotFacts;

/* Scopes are boxes or, opened, clusters; equal neighbours are folded into one;
 * what does not lead to the output `loss` is a second column, drawn upwards.
 * The text is a function of graph and options.  `facts` may be NULL. */
AqStatus aq_graph_dot(const AqGraph *graph, const AqDotOptions *options,
                      AqText *text, AqDotFacts *facts, AqError *error);

/* ---- verify.c ---- */

/* Builds every node again and compares; checks order, results and outputs. */
AqStatus aq_graph_verify(const AqGraph *graph, AqError *error);

/* ---- interpret.c: the oracle, in double, with plain loops ---- */

typedef struct AqBinding {
    const char
        *name; /* of an input, param or state ("weights" for all params) */
    const double *data;
} AqBinding;

typedef struct AqValue {
    AqType type;
    double *data; /* in the arena given */
} AqValue;

/* Evaluates the outputs, in their order.  A name that is not bound is an error.
 * i32 values are exact; f32 ones are not rounded. */
AqStatus aq_interpret(const AqGraph *graph, const AqBinding *bindings,
                      int n_bindings, AqValue *outputs, AqArena *arena,
                      AqError *error);
/* About how many seconds that takes. */
double aq_interpret_seconds(const AqGraph *graph);

/* ---- compare.c ---- */

/* Evaluates both graphs on the same random data and compares their outputs by
 * name: |a - b| <= tolerance max |a| over each output (or 1e-3, if that is
 * more), NaN like NaN.  AQ_INTERNAL, with the first difference, where they
 * differ. */
AqStatus aq_compare_graphs(const AqGraph *before, const AqGraph *after,
                           uint64_t seed, double tolerance, AqError *error);

/* ---- philox.c ---- */

/* Philox4x32-10 of Salmon et al. 2011. */
void aq_philox(const uint32_t counter[4], const uint32_t key[2],
               uint32_t out[4]);
void aq_philox_key(uint64_t seed, uint32_t key[2]);
/* What `random` gives at one element, in double. */
double aq_random_normal(const uint32_t key[2], uint32_t step, uint32_t stream,
                        uint32_t sample, uint32_t element);
double aq_random_uniform(const uint32_t key[2], uint32_t step, uint32_t stream,
                         uint32_t sample, uint32_t element);
/* Of elements 4 block .. 4 block + 3, which share a counter. */
void aq_random_normals(const uint32_t key[2], uint32_t step, uint32_t stream,
                       uint32_t sample, uint32_t block, double out[4]);
void aq_random_uniforms(const uint32_t key[2], uint32_t step, uint32_t stream,
                        uint32_t sample, uint32_t block, double out[4]);

/* philox_wide.c: of the elements of `blocks` blocks, in step 0, uniform between
 * -scale and scale, as floats: the same as one by one. */
void aq_random_spread(const uint32_t key[2], uint32_t stream, uint32_t sample,
                      uint32_t block, int64_t blocks, double scale, float *out);

/* ---- flops.c ---- */

/* Useful floating-point operations of the contractions and attentions (two a
 * multiply-add), bodies included. */
double aq_node_flops(const AqGraph *graph, AqId id);
double aq_graph_flops(const AqGraph *graph);

/* ---- target.c ---- */

/* What choices depend on: never on the number of threads. */
typedef struct AqTarget {
    char name[64];  /* what is told, and written into a run */
    char cpu[64];   /* LLVM's name: x86-64-v3 or x86-64-v4, or the host's */
    int level;      /* 3: AVX2 and FMA; 4: AVX-512; 5: and AMX with bfloat16 */
    int vector;     /* floats in a register: 8 or 16 */
    int registers;  /* 16 or 32 */
    int l1, l2, l3; /* bytes assumed for one core at this level */
} AqTarget;

enum { AQ_FIRST_LEVEL = 3, AQ_LAST_LEVEL = 5 };

/* Of this processor: of the level that is asked for, or (0) of the better of 3
 * and 4 that it has. */
AqStatus aq_target_host(int level, AqTarget *target, AqError *error);

#endif
