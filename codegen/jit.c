/* Objects become callable: linked by ORC into this process.
 *
 * They live in a library of their own that sees no symbol of the process but
 * those on the list below: code can only call what is named here. */
#include "codegen/emit.h"

#include <llvm-c/Error.h>
#include <llvm-c/LLJIT.h>
#include <llvm-c/Orc.h>

#include <stdlib.h>
#include <string.h>

struct AqJit {
    LLVMOrcLLJITRef lljit;
    LLVMOrcExecutionSessionRef session;
    LLVMOrcJITDylibRef library;
    AqError reported; /* the first reason why something was not linked */
};

/* What LLVM may call of its own accord. */
static const struct {
    const char *name;
    void *address;
} allowed[] = {
    {"memcpy", memcpy},
    {"memmove", memmove},
    {"memset", memset},
};

static AqStatus take_error(LLVMErrorRef failed, const char *what,
                           AqError *error)
{
    if (!failed)
        return AQ_OK;
    char *message = LLVMGetErrorMessage(failed);
    AqStatus status = aq_fail(error, AQ_INTERNAL, "%s: %s", what, message);
    LLVMDisposeErrorMessage(message);
    return status;
}

/* A failed look-up does not say why; the session does, here. */
static void report(void *context, LLVMErrorRef failed)
{
    AqJit *jit = context;
    take_error(failed, "linking kernels", &jit->reported);
}

static AqStatus define_allowed(AqJit *jit, AqError *error)
{
    LLVMOrcCSymbolMapPair pairs[AQ_COUNT(allowed)];
    for (int i = 0; i < AQ_COUNT(allowed); i++)
        pairs[i] = (LLVMOrcCSymbolMapPair){
            LLVMOrcLLJITMangleAndIntern(jit->lljit, allowed[i].name),
            {(LLVMOrcExecutorAddress)(uintptr_t)allowed[i].address,
             {LLVMJITSymbolGenericFlagsExported |
                  LLVMJITSymbolGenericFlagsCallable,
              0}}};
    LLVMOrcMaterializationUnitRef unit =
        LLVMOrcAbsoluteSymbols(pairs, AQ_COUNT(allowed));
    LLVMErrorRef failed = LLVMOrcJITDylibDefine(jit->library, unit);
    if (failed)
        LLVMOrcDisposeMaterializationUnit(unit);
    return take_error(failed, "defining the symbols of kernels", error);
}

AqJit *aq_jit_new(AqError *error)
{
    AqJit *jit = calloc(1, sizeof *jit);
    if (!jit) {
        aq_no_memory(error, sizeof *jit);
        return NULL;
    }
    aq_llvm_start();
    if (take_error(LLVMOrcCreateLLJIT(&jit->lljit, NULL), "starting the JIT",
                   error)) {
        free(jit);
        return NULL;
    }
    jit->session = LLVMOrcLLJITGetExecutionSession(jit->lljit);
    LLVMOrcExecutionSessionSetErrorReporter(jit->session, report, jit);
    jit->library =
        LLVMOrcExecutionSessionCreateBareJITDylib(jit->session, "kernels");
    if (define_allowed(jit, error)) {
        aq_jit_free(jit);
        return NULL;
    }
    return jit;
}

AqStatus aq_jit_add(AqJit *jit, const char *data, size_t bytes, AqError *error)
{
    LLVMMemoryBufferRef buffer =
        LLVMCreateMemoryBufferWithMemoryRangeCopy(data, bytes, "kernel");
    return take_error(
        LLVMOrcLLJITAddObjectFile(jit->lljit, jit->library, buffer),
        "linking a kernel", error);
}

typedef struct Found {
    LLVMOrcSymbolStringPoolEntryRef *symbols;
    uint64_t *addresses;
    int count;
    AqError *error;
} Found;

static void take_found(LLVMErrorRef failed, LLVMOrcCSymbolMapPairs pairs,
                       size_t n_pairs, void *context)
{
    Found *found = context;
    if (take_error(failed, "linking kernels", found->error))
        return;
    for (size_t p = 0; p < n_pairs; p++)
        for (int i = 0; i < found->count; i++)
            if (found->symbols[i] == pairs[p].Name)
                found->addresses[i] = pairs[p].Sym.Address;
}

AqStatus aq_jit_find(AqJit *jit, const char *const *names, int count,
                     uint64_t *addresses, AqError *error)
{
    size_t n = (size_t)AQ_MAX(count, 1);
    LLVMOrcCLookupSetElement *wanted = calloc(n, sizeof *wanted);
    LLVMOrcSymbolStringPoolEntryRef *symbols = calloc(n, sizeof *symbols);
    if (!wanted || !symbols) {
        free(wanted);
        free(symbols);
        return aq_no_memory(error, n * sizeof *wanted);
    }
    for (int i = 0; i < count; i++) {
        symbols[i] = LLVMOrcLLJITMangleAndIntern(jit->lljit, names[i]);
        wanted[i] = (LLVMOrcCLookupSetElement){
            symbols[i], LLVMOrcSymbolLookupFlagsRequiredSymbol};
        addresses[i] = 0;
    }
    AqError problem = {0};
    Found found = {symbols, addresses, count, &problem};
    LLVMOrcCJITDylibSearchOrderElement order = {
        jit->library, LLVMOrcJITDylibLookupFlagsMatchAllSymbols};
    /* single-threaded session: the callback runs before this returns */
    LLVMOrcExecutionSessionLookup(jit->session, LLVMOrcLookupKindStatic, &order,
                                  1, wanted, (size_t)count, take_found, &found);
    for (int i = 0; i < count && !problem.status; i++)
        if (addresses[i] == 0)
            aq_fail(&problem, AQ_INTERNAL, "kernel %s was not linked",
                    names[i]);
    free(wanted);
    free(symbols);
    if (jit->reported.status)
        problem = jit->reported;
    return problem.status ? aq_fail(error, problem.status, "%s", problem.text)
                          : AQ_OK;
}

void aq_jit_free(AqJit *jit)
{
    if (!jit)
        return;
    LLVMErrorRef failed = LLVMOrcDisposeLLJIT(jit->lljit);
    if (failed)
        LLVMConsumeError(failed);
    free(jit);
}
