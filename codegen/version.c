/* Which libraries machine code comes from, and what processor this is. */
#include "codegen/contract.h"

#include <llvm-c/Core.h>
#include <llvm-c/Target.h>
#include <llvm-c/TargetMachine.h>

void aq_code_versions(AqText *text)
{
#if LLVM_VERSION_MAJOR >= 16
    unsigned major, minor, patch;
    LLVMGetVersion(&major, &minor, &patch);
#else
    unsigned major = LLVM_VERSION_MAJOR, minor = LLVM_VERSION_MINOR;
    unsigned patch = LLVM_VERSION_PATCH;
#endif
    aq_text_printf(text, "LLVM %u.%u.%u\n", major, minor, patch);
    aq_text_printf(text, "%s\n", aq_blas_version());
    char *processor = LLVMGetHostCPUName();
    aq_text_printf(text, "processor %s, by LLVM's names\n", processor);
    LLVMDisposeMessage(processor);
}
