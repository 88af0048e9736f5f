/* A module becomes an object: verify, optimise, generate code.
 *
 * The pass pipeline is ours and constant: LLVM aborts the process on a
 * malformed one.  Kernels are written as explicit vectors, so that the
 * vectorisers are off; what is left to do is cleaning up. */
#include "codegen/emit.h"

#include <llvm-c/Analysis.h>
#include <llvm-c/Error.h>
#include <llvm-c/Target.h>
#include <llvm-c/Transforms/PassBuilder.h>

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

/* From 18 on, instcombine stops the process where it needs a second round. */
#if LLVM_VERSION_MAJOR >= 18
#define INSTCOMBINE "instcombine<no-verify-fixpoint>"
#else
#define INSTCOMBINE "instcombine"
#endif

static const char pipeline[] =
    "function(early-cse<memssa>," INSTCOMBINE ",simplifycfg,loop-mssa(licm),"
    "early-cse<memssa>," INSTCOMBINE ")";
static const char triple[] = "x86_64-unknown-linux-gnu";

static void initialise_llvm(void)
{
    LLVMInitializeX86TargetInfo();
    LLVMInitializeX86Target();
    LLVMInitializeX86TargetMC();
    LLVMInitializeX86AsmPrinter();
}

void aq_object_identity(const AqTarget *target, AqText *text)
{
    unsigned major = 0, minor = 0, patch = 0;
#if LLVM_VERSION_MAJOR >= 16
    LLVMGetVersion(&major, &minor, &patch);
#else
    major = LLVM_VERSION_MAJOR;
#endif
    aq_text_printf(text, "llvm %u.%u.%u %s cpu %s vector %d %s\n", major, minor,
                   patch, triple, target->cpu, target->vector, pipeline);
}

void aq_llvm_start(void)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, initialise_llvm);
}

static LLVMTargetMachineRef make_machine(const AqTarget *target, AqError *error)
{
    aq_llvm_start();
    LLVMTargetRef llvm_target;
    char *message = NULL;
    if (LLVMGetTargetFromTriple(triple, &llvm_target, &message)) {
        aq_fail(error, AQ_UNSUPPORTED, "LLVM cannot compile for %s: %s", triple,
                message);
        LLVMDisposeMessage(message);
        return NULL;
    }
    /* position independent and the small code model: constants are reached
     * relative to the program counter, and the linker places them near */
    LLVMTargetMachineRef machine = LLVMCreateTargetMachine(
        llvm_target, triple, target->cpu, "", LLVMCodeGenLevelDefault,
        LLVMRelocPIC, LLVMCodeModelSmall);
    if (!machine)
        aq_fail(error, AQ_UNSUPPORTED, "LLVM knows no machine for %s", triple);
    return machine;
}

static void dump_module(const AqEmit *e, const char *folder, const char *suffix)
{
    char path[4096];
    snprintf(path, sizeof path, "%s/%s%s", folder, e->name, suffix);
    char *message = NULL;
    if (LLVMPrintModuleToFile(e->module, path, &message))
        LLVMDisposeMessage(message); /* a dump that fails stops nothing */
}

static AqStatus verify(AqEmit *e)
{
    char *message = NULL;
    if (LLVMVerifyModule(e->module, LLVMReturnStatusAction, &message))
        aq_fail(e->error, AQ_INTERNAL, "kernel %s is not valid LLVM: %.700s",
                e->name, message);
    LLVMDisposeMessage(message);
    return e->error->status;
}

static AqStatus optimise(AqEmit *e, LLVMTargetMachineRef machine)
{
    LLVMPassBuilderOptionsRef options = LLVMCreatePassBuilderOptions();
    LLVMPassBuilderOptionsSetLoopVectorization(options, false);
    LLVMPassBuilderOptionsSetSLPVectorization(options, false);
    LLVMPassBuilderOptionsSetLoopInterleaving(options, false);
    LLVMErrorRef failed = LLVMRunPasses(e->module, pipeline, machine, options);
    LLVMDisposePassBuilderOptions(options);
    if (failed) {
        char *message = LLVMGetErrorMessage(failed);
        aq_fail(e->error, AQ_INTERNAL, "passes over kernel %s: %s", e->name,
                message);
        LLVMDisposeErrorMessage(message);
    }
    return e->error->status;
}

static void dump_assembly(const AqEmit *e, LLVMTargetMachineRef machine,
                          const char *folder)
{
    /* code generation changes the module, so of a copy */
    LLVMModuleRef copy = LLVMCloneModule(e->module);
    char path[4096], *message = NULL;
    snprintf(path, sizeof path, "%s/%s.s", folder, e->name);
    if (LLVMTargetMachineEmitToFile(machine, copy, path, LLVMAssemblyFile,
                                    &message))
        LLVMDisposeMessage(message);
    LLVMDisposeModule(copy);
}

static AqStatus generate(AqEmit *e, LLVMTargetMachineRef machine, char **data,
                         size_t *bytes)
{
    char *message = NULL;
    LLVMMemoryBufferRef buffer = NULL;
    if (LLVMTargetMachineEmitToMemoryBuffer(machine, e->module, LLVMObjectFile,
                                            &message, &buffer)) {
        aq_fail(e->error, AQ_INTERNAL, "code of kernel %s: %s", e->name,
                message);
        LLVMDisposeMessage(message);
        return e->error->status;
    }
    *bytes = LLVMGetBufferSize(buffer);
    *data = malloc(*bytes);
    if (*data)
        memcpy(*data, LLVMGetBufferStart(buffer), *bytes);
    else
        aq_no_memory(e->error, *bytes);
    LLVMDisposeMemoryBuffer(buffer);
    return e->error->status;
}

AqStatus aq_object_make(AqEmit *e, const char *dump_dir, char **data,
                        size_t *bytes)
{
    LLVMTargetMachineRef machine = make_machine(e->target, e->error);
    if (!machine)
        return e->error->status;
    LLVMTargetDataRef layout = LLVMCreateTargetDataLayout(machine);
    LLVMSetTarget(e->module, triple);
    LLVMSetModuleDataLayout(e->module, layout);
    LLVMDisposeTargetData(layout);
    if (dump_dir)
        dump_module(e, dump_dir, ".ll");
    if (verify(e) == AQ_OK && optimise(e, machine) == AQ_OK) {
        if (dump_dir) {
            dump_module(e, dump_dir, ".opt.ll");
            dump_assembly(e, machine, dump_dir);
        }
        generate(e, machine, data, bytes);
    }
    LLVMDisposeTargetMachine(machine);
    return e->error->status;
}
