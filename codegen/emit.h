/* Inside of codegen: what a kind of kernel builds its machine code with.
 *
 * A kind is one row in kinds.c.  Its `plan` names units (pieces of code, each a
 * module with one exported function, compiled once for equal keys, in parallel,
 * cached on disk) and the stages that run them.  Nothing is emitted while
 * planning; a unit's emitter runs later, on any thread, in a context of its
 * own.
 *
 * Reading order: llvm.c, vmath.c, index.c, expr.c, map.c; compile.c for how
 * units become stages. */
#ifndef AQ_EMIT_H
#define AQ_EMIT_H

#include "codegen/codegen.h"

#include <llvm-c/Core.h>
#include <llvm-c/TargetMachine.h>

/* ---- kinds.c ---- */

typedef struct AqKernel {
    const AqGraph *graph; /* where the node stands */
    AqId id;
    const AqNode *node;
    const AqGraph *body;
    const AqTarget *target;
} AqKernel;

typedef struct AqCodePlan AqCodePlan;

typedef struct AqKernelKind {
    const char *name; /* the node's attribute `kind` */
    AqStatus (*layout)(const AqKernel *kernel, AqKernelLayout *layout,
                       AqError *error);
    /* As many stages as the layout says. */
    AqStatus (*plan)(AqCodePlan *plan, const AqKernel *kernel, AqError *error);
} AqKernelKind;

AqStatus aq_kernel_of(const AqGraph *graph, AqId id, const AqTarget *target,
                      AqKernel *kernel, AqError *error);
const AqKernelKind *aq_kernel_kind(const AqKernel *kernel, AqError *error);
/* The reduction that an output of a body shows, or NULL; *component is 1 for
 * the m2 of moments. */
const AqNode *aq_reduction_of(const AqGraph *body, AqId id, int *component);

/* One row a kind; each file defines its own. */
extern const AqKernelKind aq_kind_map, aq_kind_contract, aq_kind_attend,
    aq_kind_scatter;

/* ---- compile.c: plans ---- */

typedef struct AqEmit AqEmit;

/* Emits one function named e->name into e->module. */
typedef AqStatus AqUnitEmit(AqEmit *e, const void *context);

/* A unit, or the one with equal kind, emitter and key.  The key must say all
 * that the code depends on but the target.  `context` must live as long as the
 * plan (aq_code_plan_arena).  Returns its number, or -1 when memory ends. */
int aq_code_plan_unit(AqCodePlan *plan, const char *kind, const void *key,
                      size_t bytes, AqUnitEmit *emit, const void *context);
/* The same for code that often differs from other code of its kind in sizes
 * alone: see numbers.c. */
int aq_code_plan_leaf(AqCodePlan *plan, const char *kind, const void *key,
                      size_t bytes, AqUnitEmit *emit, const void *context);
/* The next stage of the kernel being planned, running `unit`, an AqTaskFn. */
AqStatus aq_code_plan_stage(AqCodePlan *plan, int unit, const void *closure,
                            size_t closure_bytes);
/* The same with a driver written in C; its leaves hang in the closure. */
AqStatus aq_code_plan_c_stage(AqCodePlan *plan, AqTaskFn *run,
                              const void *closure, size_t closure_bytes);
/* Writes the address of `unit`'s function at `offset` into the closure of the
 * stage made last. */
AqStatus aq_code_plan_link(AqCodePlan *plan, size_t offset, int unit);
AqArena *aq_code_plan_arena(AqCodePlan *plan);
/* An empty graph that lives as long as the plan, or NULL. */
AqGraph *aq_code_plan_graph(AqCodePlan *plan);

/* key.c: body, attributes and types of a kernel as bytes; equal bytes, equal
 * meaning.  Scopes and source places are left out. */
void aq_kernel_key(const AqKernel *kernel, AqText *key);
void aq_body_key(const AqGraph *body, AqText *key);

/* ---- part.c: NULL when memory ends ---- */

/* Node `id` of the body and what it is made of: the only output. */
const AqGraph *aq_body_operand(AqCodePlan *plan, const AqGraph *body, AqId id);
/* What the body makes of node `id`, which becomes the input `tile`; outputs as
 * the body's.  (*ids)[node of the body]: the node there, or AQ_NO_NODE. */
const AqGraph *aq_body_epilogue(AqCodePlan *plan, const AqGraph *body, AqId id,
                                const AqId **ids);

/* Where a workspace begins: its layout has 64 bytes more than are used. */
static inline float *aq_aligned(void *buffer)
{
    return (float *)(((uintptr_t)buffer + 63) & ~(uintptr_t)63);
}

/* ---- llvm.c: LLVM's builder with our rules ----
 * Alignment is 4 everywhere; no fast-math flags; minimum and maximum propagate
 * NaN.  Functions that compute take scalars as well as vectors. */

struct AqEmit {
    const char *name; /* of the function to emit */
    const char *unit; /* in messages and for files: whose code it is */
    const AqTarget *target;
    AqArena *arena;
    AqError *error;
    int lanes; /* floats in a register */
    LLVMContextRef context;
    LLVMModuleRef module;
    LLVMBuilderRef builder;
    LLVMValueRef function;
    LLVMBasicBlockRef entry;
    LLVMTypeRef f32, i1, i8, i32, i64, pointer, nothing;
    LLVMTypeRef vf32, vi32; /* of `lanes` */
};

AqStatus aq_emit_begin(AqEmit *e); /* fills all but the first five */
void aq_emit_end(AqEmit *e);

/* Starts the function e->name; the builder stands in its entry block. */
LLVMValueRef aq_emit_function(AqEmit *e, LLVMTypeRef result,
                              const LLVMTypeRef *parameters, int count);
/* The same as an AqTaskFn: (closure, buffers, first, last, scratch). */
LLVMValueRef aq_emit_task_function(AqEmit *e);
LLVMBasicBlockRef aq_emit_block(AqEmit *e, const char *name);
LLVMValueRef aq_param(AqEmit *e, unsigned index); /* of that function */

LLVMTypeRef aq_vector(LLVMTypeRef element, int lanes);
int aq_lanes(LLVMTypeRef type); /* 0 for a scalar */
LLVMValueRef aq_i64(AqEmit *e, int64_t value);
LLVMValueRef aq_i32(AqEmit *e, int64_t value);
/* A constant of `type`: a scalar, or a vector with equal elements. */
LLVMValueRef aq_real_of(AqEmit *e, LLVMTypeRef type, double value);
LLVMValueRef aq_int_of(AqEmit *e, LLVMTypeRef type, int64_t value);
LLVMValueRef aq_int_vector(AqEmit *e, LLVMTypeRef element,
                           const int64_t *values, int count);

LLVMValueRef aq_intrinsic(AqEmit *e, const char *name, LLVMTypeRef *overload,
                          int n_overload, LLVMValueRef *args, int n_args);
LLVMValueRef aq_unary_intrinsic(AqEmit *e, const char *name, LLVMValueRef x);
LLVMValueRef aq_fma(AqEmit *e, LLVMValueRef a, LLVMValueRef b, LLVMValueRef c);
LLVMValueRef aq_fmin(AqEmit *e, LLVMValueRef a, LLVMValueRef b);
LLVMValueRef aq_fmax(AqEmit *e, LLVMValueRef a, LLVMValueRef b);

LLVMValueRef aq_splat(AqEmit *e, LLVMValueRef scalar, int lanes);
LLVMValueRef aq_shuffle(AqEmit *e, LLVMValueRef a, LLVMValueRef b,
                        const int *lanes, int count);
LLVMValueRef aq_lane(AqEmit *e, LLVMValueRef vector, int lane);
LLVMValueRef aq_lane_numbers(AqEmit *e, LLVMTypeRef element, int lanes);
/* lane < count, count an i64 */
LLVMValueRef aq_mask(AqEmit *e, LLVMValueRef count, int lanes);
LLVMValueRef aq_constant_mask(AqEmit *e, int count, int lanes);
/* a where the mask is set, else b; vectors */
LLVMValueRef aq_select_lanes(AqEmit *e, LLVMValueRef mask, LLVMValueRef a,
                             LLVMValueRef b);

/* base + index elements of `element`; index is an i64. */
LLVMValueRef aq_at(AqEmit *e, LLVMTypeRef element, LLVMValueRef base,
                   LLVMValueRef index);
LLVMValueRef aq_float_at(AqEmit *e, LLVMValueRef base, LLVMValueRef index);
LLVMValueRef aq_load(AqEmit *e, LLVMTypeRef type, LLVMValueRef pointer);
void aq_store(AqEmit *e, LLVMValueRef value, LLVMValueRef pointer);
/* Lanes without mask are zero, and are not touched in memory.  A NULL mask
 * means all. */
LLVMValueRef aq_load_masked(AqEmit *e, LLVMTypeRef type, LLVMValueRef pointer,
                            LLVMValueRef mask);
void aq_store_masked(AqEmit *e, LLVMValueRef value, LLVMValueRef pointer,
                     LLVMValueRef mask);
/* Lane-wise base[index]; index a vector of i32 or i64. */
LLVMValueRef aq_gather(AqEmit *e, LLVMTypeRef type, LLVMValueRef base,
                       LLVMValueRef index, LLVMValueRef mask);

/* Joins the lanes of groups of `group` (a power of two) neighbours by a tree:
 * lane i with i + group/2, ...; the result stands in each group's lane 0. */
typedef LLVMValueRef AqJoin(AqEmit *e, LLVMValueRef a, LLVMValueRef b);
LLVMValueRef aq_tree(AqEmit *e, LLVMValueRef vector, int group, AqJoin *join);
/* The lane vector shifted down by `by`: lane i gets lane i + by. */
LLVMValueRef aq_shift_lanes(AqEmit *e, LLVMValueRef vector, int by);

/* What follows runs only if a < b; aq_go_on ends it, given what this returns.
 */
LLVMBasicBlockRef aq_only_if_less(AqEmit *e, LLVMValueRef a, LLVMValueRef b);
void aq_go_on(AqEmit *e, LLVMBasicBlockRef skip);

/* A loop that runs at least once, with values carried round it. */
enum { AQ_MAX_CARRIED = 64 };
typedef struct AqLoop {
    LLVMValueRef counter; /* i64 */
    LLVMBasicBlockRef before, body, after;
    LLVMValueRef to;
    int64_t step;
    int n_carried;
    LLVMValueRef carried[AQ_MAX_CARRIED]; /* inside: values of this round */
    LLVMValueRef next[AQ_MAX_CARRIED];    /* set these; after: final values */
} AqLoop;

void aq_loop_begin(AqEmit *e, AqLoop *loop, LLVMValueRef from, LLVMValueRef to,
                   int64_t step);
/* Before anything else is emitted into the loop's body. */
int aq_loop_carry(AqEmit *e, AqLoop *loop, LLVMValueRef initial);
void aq_loop_end(AqEmit *e, AqLoop *loop);

/* The frame of a task function: entry; buffers; the loop over first .. last - 1
 * (which does nothing where that is empty); its end. */
LLVMValueRef aq_emit_buffer(AqEmit *e, int i);
LLVMBasicBlockRef aq_emit_task_loop(AqEmit *e, AqLoop *loop);
void aq_emit_task_end(AqEmit *e, LLVMBasicBlockRef end);
LLVMValueRef aq_at_most(AqEmit *e, LLVMValueRef a, int64_t most);

/* ---- vmath.c: functions of floats, scalar or vector; accuracy stated there */

LLVMValueRef aq_math_exp(AqEmit *e, LLVMValueRef x);
LLVMValueRef aq_math_log(AqEmit *e, LLVMValueRef x);
LLVMValueRef aq_math_sin(AqEmit *e, LLVMValueRef x);
LLVMValueRef aq_math_cos(AqEmit *e, LLVMValueRef x);
LLVMValueRef aq_math_tanh(AqEmit *e, LLVMValueRef x);
LLVMValueRef aq_math_erf(AqEmit *e, LLVMValueRef x);
LLVMValueRef aq_math_sigmoid(AqEmit *e, LLVMValueRef x);
LLVMValueRef aq_math_rsqrt(AqEmit *e, LLVMValueRef x); /* 1 / sqrt(x) */

/* ---- index.c: integer expressions that know their ranges ----
 * sum of coefficient * atom + constant, interned: equal ids, equal values.  An
 * atom is a loop variable, the lane, a quotient or remainder, or opaque. */

typedef int32_t AqIndex;
typedef struct AqIndexTable AqIndexTable;

/* `lanes` as e->lanes, or 1 for scalar code. */
AqIndexTable *aq_index_table(AqArena *arena, int lanes);
AqIndex aq_index_constant(AqIndexTable *t, int64_t value);
/* A value in lo .. hi; `value` is an i64, or NULL where nothing is emitted;
 * `level` counts the loops around it (0: the function). */
AqIndex aq_index_variable(AqIndexTable *t, LLVMValueRef value, int64_t lo,
                          int64_t hi, int level);
/* A vector of i32, one value a lane. */
AqIndex aq_index_lanewise(AqIndexTable *t, LLVMValueRef value, int64_t lo,
                          int64_t hi, int level);
/* base + lane; the lanes that count are in 0 .. extent - 1. */
AqIndex aq_index_vector(AqIndexTable *t, AqIndex base, int64_t extent);
AqIndex aq_index_add(AqIndexTable *t, AqIndex a, AqIndex b);
AqIndex aq_index_scale(AqIndexTable *t, AqIndex a, int64_t factor);
AqIndex aq_index_div(AqIndexTable *t, AqIndex a, int64_t divisor);
AqIndex aq_index_mod(AqIndexTable *t, AqIndex a, int64_t divisor);
void aq_index_range(AqIndexTable *t, AqIndex a, int64_t *lo, int64_t *hi);
bool aq_index_is_constant(const AqIndexTable *t, AqIndex a, int64_t *value);
int aq_index_level(const AqIndexTable *t, AqIndex a);
/* How it changes from lane to lane: not at all, by one constant `stride`, by a
 * pattern known now (aq_index_pattern), or otherwise. */
typedef enum AqLaneForm {
    AQ_UNIFORM,
    AQ_STRIDED,
    AQ_PATTERN,
    AQ_LANEWISE,
} AqLaneForm;
AqLaneForm aq_index_form(const AqIndexTable *t, AqIndex a, int64_t *stride);
/* The part that is equal for all lanes, and the rest, lane by lane. */
AqIndex aq_index_uniform_part(AqIndexTable *t, AqIndex a);
void aq_index_pattern(const AqIndexTable *t, AqIndex a, int64_t *offsets);
void aq_index_text(const AqIndexTable *t, AqIndex a, AqText *text);

/* ---- expr.c: values of a body's nodes at an index ---- */

typedef struct AqExpr AqExpr;

/* Called first for pinned nodes; a value other than NULL is taken. */
typedef LLVMValueRef AqExprHook(AqExpr *x, AqId node, const AqIndex *index,
                                void *context);

enum { AQ_MAX_LEVELS = 12 };

struct AqExpr {
    AqEmit *e;
    const AqGraph *body;
    int *uses; /* of the body's nodes */
    bool *pinned;
    AqIndexTable *t;
    int lanes;
    LLVMValueRef mask; /* lanes that count (aq_expr_mask); NULL: all */
    int mask_level;
    bool guarded;          /* indices may be out of range: the mask tells */
    LLVMValueRef *buffers; /* base of each `arg` of the body, by index */
    AqExprHook *hook;
    void *hook_context;
    int level;   /* where code is placed now */
    int entered; /* loops entered */
    LLVMBasicBlockRef home, before[AQ_MAX_LEVELS + 1];
    struct AqMemo *memo;
    LLVMValueRef *tables; /* constant arrays of `table` nodes */
};

/* `buffers` has a place for each arg index of the body.  NULL when memory
 * ends. */
AqExpr *aq_expr_new(AqEmit *e, const AqGraph *body, LLVMValueRef *buffers,
                    int lanes);
/* Tells that a loop was entered: values that do not depend on it are placed in
 * `before`, whose terminator they precede.  Its variables get the level that
 * x->entered has from now on. */
void aq_expr_enter(AqExpr *x, LLVMBasicBlockRef before);
/* And left: values inside are forgotten. */
void aq_expr_leave(AqExpr *x);
/* Forgets what was computed at the present level. */
void aq_expr_forget(AqExpr *x);
/* Lanes that count from here on; NULL: all.  `level` is where it was made. */
void aq_expr_mask(AqExpr *x, LLVMValueRef mask, int level);
/* The hook is asked for `node`; it and what is made of it is computed in place,
 * not before loops. */
void aq_expr_pin(AqExpr *x, AqId node);
/* The node's value at an index (one AqIndex a dimension): a scalar where the
 * index is the same for all lanes, else a vector.  i32 nodes give i32. */
LLVMValueRef aq_expr_value(AqExpr *x, AqId node, const AqIndex *index);
/* The same as a vector in any case. */
LLVMValueRef aq_expr_vector(AqExpr *x, AqId node, const AqIndex *index);
/* Row-major offset of an index into a type. */
AqIndex aq_expr_offset(AqExpr *x, const AqType *type, const AqIndex *index);
/* The index with that offset. */
void aq_expr_unravel(AqIndexTable *t, const AqType *type, AqIndex offset,
                     AqIndex *index);
/* An i64 where uniform, else a vector of i32 (or of i64 if `wide`). */
LLVMValueRef aq_expr_index_value(AqExpr *x, AqIndex index, bool wide);
/* The element at `offset` of `elements` of them at `base`, under the mask. */
LLVMValueRef aq_expr_load(AqExpr *x, LLVMTypeRef element, LLVMValueRef base,
                          AqIndex offset, int64_t elements);
/* Stores a vector (or, at a uniform offset, a scalar) under the mask. */
void aq_expr_store(AqExpr *x, LLVMValueRef base, AqIndex offset,
                   LLVMValueRef value);

/* ---- object.c ---- */

void aq_llvm_start(void); /* once for the process; any thread */
/* Nothing is compiled for now: LLVM's code leaves the resident memory, some 50
 * MB, until it is called again. */
void aq_llvm_rest(void);
/* LLVM's description of the target costs as much as a small unit: one for each
 * thread that compiles, kept from unit to unit. */
typedef struct AqMachines AqMachines;
AqMachines *aq_machines_new(AqError *error);
void aq_machines_free(AqMachines *machines);
/* Verifies, optimises and compiles the module: malloc'd bytes of an object. */
AqStatus aq_object_make(AqEmit *e, AqMachines *machines, const char *dump_dir,
                        char **data, size_t *bytes);
/* What besides its key an object depends on, as text. */
void aq_object_identity(const AqTarget *target, AqText *text);

/* ---- numbers.c ---- */

enum { AQ_MOST_NUMBERS = 64 };

typedef struct AqNumbers {
    int count;
    int64_t of[AQ_MOST_NUMBERS];
} AqNumbers;

/* Sizes in the module become symbols, the numbers that they stood for are
 * listed in their order. */
void aq_numbers_hide(AqEmit *e, AqNumbers *numbers);
/* Of all that is in the module. */
AqHash aq_module_hash(const AqEmit *e);
/* Into the object of such a module, whose function `from` is from now on called
 * `to`, of the same length.  False, and the object is of no use, where they
 * cannot be written. */
bool aq_numbers_fill(char *object, const AqNumbers *numbers, const char *from,
                     const char *to);

/* identity.c: which build of this library is running, as text */
void aq_build_identity(AqText *text);

/* ---- cache.c ---- */

typedef struct AqCache AqCache;

/* NULL without an error: there is no place for one, so nothing is cached. */
AqCache *aq_cache_open(const char *folder, AqArena *arena);
/* True with malloc'd data; *rejected tells a damaged entry from none. */
bool aq_cache_get(const AqCache *cache, const AqText *key, char **data,
                  size_t *bytes, bool *rejected);
void aq_cache_put(const AqCache *cache, const AqText *key, const char *data,
                  size_t bytes);

/* ---- jit.c ---- */

typedef struct AqJit AqJit;

AqJit *aq_jit_new(AqError *error);
AqStatus aq_jit_add(AqJit *jit, const char *data, size_t bytes, AqError *error);
/* Addresses of all `names` at once. */
AqStatus aq_jit_find(AqJit *jit, const char *const *names, int count,
                     uint64_t *addresses, AqError *error);
void aq_jit_free(AqJit *jit);

#endif
