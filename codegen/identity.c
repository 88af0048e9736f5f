/* Which build of this library is running: objects of another one are not used.
 *
 * The hash of the library's read-only segments as they lie in memory: any
 * change of code generation's code or constants changes it, and nothing else
 * has to be kept in step by hand. */
#include "codegen/emit.h"

#include <link.h>

typedef struct Search {
    uintptr_t inside; /* an address in the library */
    AqText text;
} Search;

static bool holds(const struct dl_phdr_info *info, uintptr_t address)
{
    for (int i = 0; i < info->dlpi_phnum; i++) {
        const ElfW(Phdr) *segment = &info->dlpi_phdr[i];
        uintptr_t start = info->dlpi_addr + segment->p_vaddr;
        if (segment->p_type == PT_LOAD && address >= start &&
            address < start + segment->p_memsz)
            return true;
    }
    return false;
}

static int hash_segments(struct dl_phdr_info *info, size_t size, void *data)
{
    (void)size;
    Search *search = data;
    if (!holds(info, search->inside))
        return 0;
    for (int i = 0; i < info->dlpi_phnum; i++) {
        const ElfW(Phdr) *segment = &info->dlpi_phdr[i];
        if (segment->p_type != PT_LOAD || (segment->p_flags & PF_W) ||
            !(segment->p_flags & PF_R))
            continue;
        const void *start =
            (const void *)(uintptr_t)(info->dlpi_addr + segment->p_vaddr);
        AqHash hash = aq_hash128(start, segment->p_filesz);
        aq_text_printf(&search->text, "%016llx%016llx ",
                       (unsigned long long)hash.high,
                       (unsigned long long)hash.low);
    }
    return 1;
}

void aq_build_identity(AqText *text)
{
    Search search = {.inside = (uintptr_t)aq_build_identity};
    dl_iterate_phdr(hash_segments, &search);
    aq_text_printf(text, "build %s\n",
                   search.text.data ? search.text.data : "unknown");
    aq_text_free(&search.text);
}
