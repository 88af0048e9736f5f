/* A module becomes an object: verify, optimise, generate code.
 *
 * The pass pipeline is ours and constant: LLVM aborts the process on a
 * malformed one.  Kernels are written as explicit vectors, so that the
 * vectorisers are off; what is left to do is cleaning up. */
#include "codegen/emit.h"

#include <llvm-c/Analysis.h>
#include <llvm-c/Error.h>
#include <llvm-c/Support.h>
#include <llvm-c/Target.h>
#include <llvm-c/Transforms/PassBuilder.h>

#include <link.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

/* From 18 on, instcombine stops the process where it needs a second round. */
#if LLVM_VERSION_MAJOR >= 18
#define INSTCOMBINE "instcombine<no-verify-fixpoint>"
#else
#define INSTCOMBINE "instcombine"
#endif

static const char pipeline[] =
    "function(early-cse<memssa>," INSTCOMBINE ",simplifycfg,loop-mssa(licm))";
static const char triple[] = "x86_64-unknown-linux-gnu";

/* Addresses are written as they are to be computed.  Strength reduction takes a
 * quarter of the time of code generation and makes kernels no faster. */
static const char *const switches[] = {"aquatint", "-disable-lsr"};

static void initialise_llvm(void)
{
    LLVMParseCommandLineOptions(AQ_COUNT(switches), switches, NULL);
    LLVMInitializeX86TargetInfo();
    LLVMInitializeX86Target();
    LLVMInitializeX86TargetMC();
    LLVMInitializeX86AsmPrinter();
    LLVMInitializeX86AsmParser(); /* of inline assembly */
}

void aq_object_identity(const AqTarget *target, AqText *text)
{
    unsigned major = 0, minor = 0, patch = 0;
#if LLVM_VERSION_MAJOR >= 16
    LLVMGetVersion(&major, &minor, &patch);
#else
    major = LLVM_VERSION_MAJOR;
#endif
    aq_text_printf(text, "llvm %u.%u.%u %s cpu %s vector %d %s %s\n", major,
                   minor, patch, triple, target->cpu, target->vector, pipeline,
                   switches[1]);
}

void aq_llvm_start(void)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, initialise_llvm);
}

/* Whole pages of the segments that hold code, if LLVM's is among them.  Nobody
 * writes there, so they can be read from the file again. */
static int drop_code(struct dl_phdr_info *info, size_t size, void *context)
{
    uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE);
    uintptr_t wanted = *(const uintptr_t *)context;
    (void)size;
    for (int i = 0; i < info->dlpi_phnum; i++) {
        const ElfW(Phdr) *segment = &info->dlpi_phdr[i];
        uintptr_t from = info->dlpi_addr + segment->p_vaddr;
        uintptr_t to = from + segment->p_filesz;
        bool code = segment->p_type == PT_LOAD && segment->p_flags & PF_X &&
                    !(segment->p_flags & PF_W);
        if (!code || wanted < from || wanted >= to)
            continue;
        from = (from + page - 1) / page * page;
        to = to / page * page;
        if (from < to)
            madvise((void *)from, to - from, MADV_DONTNEED);
        return 1;
    }
    return 0;
}

void aq_llvm_rest(void)
{
    uintptr_t inside = (uintptr_t)LLVMTargetMachineEmitToMemoryBuffer;
    dl_iterate_phdr(drop_code, &inside);
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

/* ---- machines, kept from unit to unit ---- */

enum { MOST_KEPT = 64 };

struct AqMachines {
    pthread_mutex_t lock;
    LLVMTargetMachineRef kept[MOST_KEPT];
    int count;
};

AqMachines *aq_machines_new(AqError *error)
{
    AqMachines *machines = calloc(1, sizeof *machines);
    if (machines)
        pthread_mutex_init(&machines->lock, NULL);
    else
        aq_no_memory(error, sizeof *machines);
    return machines;
}

void aq_machines_free(AqMachines *machines)
{
    if (!machines)
        return;
    for (int i = 0; i < machines->count; i++)
        LLVMDisposeTargetMachine(machines->kept[i]);
    pthread_mutex_destroy(&machines->lock);
    free(machines);
}

static LLVMTargetMachineRef take_machine(AqMachines *machines,
                                         const AqTarget *target, AqError *error)
{
    LLVMTargetMachineRef machine = NULL;
    pthread_mutex_lock(&machines->lock);
    if (machines->count > 0)
        machine = machines->kept[--machines->count];
    pthread_mutex_unlock(&machines->lock);
    return machine ? machine : make_machine(target, error);
}

static void keep_machine(AqMachines *machines, LLVMTargetMachineRef machine)
{
    pthread_mutex_lock(&machines->lock);
    if (machines->count < MOST_KEPT) {
        machines->kept[machines->count++] = machine;
        machine = NULL;
    }
    pthread_mutex_unlock(&machines->lock);
    if (machine)
        LLVMDisposeTargetMachine(machine);
}

/* ---- one module ---- */

static void dump_module(const AqEmit *e, const char *folder, const char *suffix)
{
    char path[4096];
    snprintf(path, sizeof path, "%s/%s%s", folder, e->unit, suffix);
    char *message = NULL;
    if (LLVMPrintModuleToFile(e->module, path, &message))
        LLVMDisposeMessage(message); /* a dump that fails stops nothing */
}

static AqStatus verify(AqEmit *e)
{
    char *message = NULL;
    if (LLVMVerifyModule(e->module, LLVMReturnStatusAction, &message))
        aq_fail(e->error, AQ_INTERNAL, "kernel %s is not valid LLVM: %.700s",
                e->unit, message);
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
        aq_fail(e->error, AQ_INTERNAL, "passes over kernel %s: %s", e->unit,
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
    snprintf(path, sizeof path, "%s/%s.s", folder, e->unit);
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
        aq_fail(e->error, AQ_INTERNAL, "code of kernel %s: %s", e->unit,
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

AqStatus aq_object_make(AqEmit *e, AqMachines *machines, const char *dump_dir,
                        char **data, size_t *bytes)
{
    LLVMTargetMachineRef machine = take_machine(machines, e->target, e->error);
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
    keep_machine(machines, machine);
    return e->error->status;
}
