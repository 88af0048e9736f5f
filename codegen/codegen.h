/* Kernels become machine code: kernel + target -> LLVM IR -> object ->
 * callable.
 *
 * A kernel node compiles to an ordered list of stages with a barrier between
 * them.  A stage is a number of independent tasks; any thread may run any range
 * of them, and the results do not depend on how they are grouped.
 *
 * `buffers` are the kernel's inputs in order, then its results in order, then,
 * where the layout says workspace > 0, one workspace shared by all threads,
 * then, where it says kept > 0, another. They lie at multiples of four bytes at
 * least.  A result may share memory with an input that the body reads at the
 * identical linear index alone.  `scratch` are the calling thread's own bytes,
 * aligned to 64.  Threads flush denormals.
 */
#ifndef AQ_CODEGEN_H
#define AQ_CODEGEN_H

#include "ir/ir.h"

typedef void AqTaskFn(const void *closure, void *const *buffers, int64_t first,
                      int64_t last, void *scratch);

typedef struct AqStage {
    AqTaskFn *run;
    const void *closure; /* constants of this kernel; lives with the code */
    int64_t tasks;
} AqStage;

enum { AQ_MAX_STAGES = 5 };

/* ---- kinds.c ---- */

typedef struct AqKernelLayout {
    int n_stages;
    int64_t tasks[AQ_MAX_STAGES];
    /* Not 0: the stage reads these inputs of the kernel alone (bit i: input i)
     * and writes the second workspace alone (weights, transformed).  While the
     * inputs keep their values from run to run it need not run again, if that
     * workspace is kept. */
    uint64_t reads[AQ_MAX_STAGES];
    int64_t workspace, scratch; /* bytes */
    int64_t kept;               /* bytes of the second workspace */
} AqKernelLayout;

/* What a kernel needs to run: a pure function of kernel and target, known
 * before any code exists. */
AqStatus aq_kernel_layout(const AqGraph *graph, AqId kernel,
                          const AqTarget *target, AqKernelLayout *layout,
                          AqError *error);

/* ---- compile.c ---- */

typedef struct AqCompileOptions {
    int threads;           /* 0: as many as there are processors */
    bool no_cache;         /* neither read nor write objects on disk */
    const char *cache_dir; /* NULL: $XDG_CACHE_HOME/aquatint, ~/.cache/... */
    /* Not NULL: write NAME.ll, NAME.opt.ll and NAME.s of every unit, and
     * compile all of them, each for itself. */
    const char *dump_dir;
} AqCompileOptions;

typedef struct AqCodeStatistics {
    int kernels;    /* asked for */
    int units;      /* distinct pieces of code */
    int from_cache; /* of those, read from disk */
    int compiled;   /* by LLVM: the others, those that differ in sizes once */
    int again;      /* of `compiled`: a second time, for sizes did not fit in */
    int rejected;   /* entries on disk that were damaged or foreign */
    double seconds;
    size_t bytes; /* of object code */
} AqCodeStatistics;

typedef struct AqCode AqCode;

/* Compiles the kernel nodes `kernels`; equal ones are compiled once.  NULL on
 * error. */
AqCode *aq_compile(const AqGraph *graph, const AqId *kernels, int count,
                   const AqTarget *target, const AqCompileOptions *options,
                   AqError *error);
/* Of the i-th kernel that was asked for. */
const AqStage *aq_code_stages(const AqCode *code, int i, int *n_stages);
const AqCodeStatistics *aq_code_statistics(const AqCode *code);
void aq_code_free(AqCode *code); /* no thread may be inside it */

/* ---- version.c ---- */

/* LLVM, OpenBLAS and the processor, a line each. */
void aq_code_versions(AqText *text);

#endif
