/* Sizes in code, filled in once it is compiled.
 *
 * Leaves of layers of different sizes are the same instructions with other
 * numbers in them: strides, offsets, bounds.  Before such a leaf is compiled
 * its larger numbers give way to symbols, which LLVM takes for constants not
 * yet known; what is left of the module says whether another leaf is compiled
 * from the same.  Each then gets a copy of the object, with its own name and
 * its own numbers where the linker would write the symbols' addresses: as
 * operands of the instructions, so that nothing is loaded. */
#include "codegen/emit.h"

#include <llvm-c/BitWriter.h>

#include <elf.h>
#include <stdlib.h>
#include <string.h>

enum { MOST = 1 << 30, NEVER };

static const char prefix[] = "aq_number_";

/* ---- in the module ---- */

static LLVMValueRef symbol_of(AqEmit *e, int number)
{
    char name[32];
    snprintf(name, sizeof name, "%s%d", prefix, number);
    LLVMValueRef symbol = LLVMGetNamedGlobal(e->module, name);
    if (symbol)
        return symbol;
    symbol = LLVMAddGlobal(e->module, e->i8, name);
    LLVMSetAlignment(symbol, 1);
    LLVMMetadataRef range[] = {
        LLVMValueAsMetadata(aq_i64(e, 0)),
        LLVMValueAsMetadata(aq_i64(e, (int64_t)1 << 31)),
    };
    static const char kind[] = "absolute_symbol";
    LLVMGlobalSetMetadata(
        symbol, LLVMGetMDKindIDInContext(e->context, kind, sizeof kind - 1),
        LLVMMDNodeInContext2(e->context, range, AQ_COUNT(range)));
    return symbol;
}

/* Equal numbers are one symbol, so that what was equal stays so.  -1: no room
 * for one more. */
static int number_of(AqNumbers *numbers, int64_t value)
{
    for (int i = 0; i < numbers->count; i++)
        if (numbers->of[i] == value)
            return i;
    if (numbers->count == AQ_MOST_NUMBERS)
        return -1;
    numbers->of[numbers->count] = value;
    return numbers->count++;
}

/* The least number that is hidden.  Smaller ones shape the code: lanes, vectors
 * of a strip, its columns; but bounds are all alike, and so are places in the
 * table of buffers.  What is divided by is not hidden, for a known divisor
 * costs a product. */
static int64_t least_of(const AqEmit *e, LLVMValueRef instruction)
{
    enum { MOST_COLUMNS = 64 }; /* of a strip */
    switch (LLVMGetInstructionOpcode(instruction)) {
    case LLVMAdd:
    case LLVMSub:
    case LLVMMul:
        return MOST_COLUMNS + 1;
    case LLVMICmp:
    case LLVMSelect:
        return 2;
    case LLVMGetElementPtr:
        return LLVMGetGEPSourceElementType(instruction) == e->pointer
                   ? 1
                   : MOST_COLUMNS + 1;
    default:
        return NEVER;
    }
}

static void hide_operand(AqEmit *e, LLVMValueRef instruction, unsigned operand,
                         AqNumbers *numbers)
{
    LLVMValueRef old = LLVMGetOperand(instruction, operand);
    if (!LLVMIsAConstantInt(old) || LLVMTypeOf(old) != e->i64)
        return;
    int64_t value = LLVMConstIntGetSExtValue(old);
    bool wanted = value >= least_of(e, instruction) && value <= MOST;
    int number = wanted ? number_of(numbers, value) : -1;
    if (number >= 0)
        LLVMSetOperand(instruction, operand,
                       LLVMConstPtrToInt(symbol_of(e, number), e->i64));
}

void aq_numbers_hide(AqEmit *e, AqNumbers *numbers)
{
    for (LLVMBasicBlockRef b = LLVMGetFirstBasicBlock(e->function); b;
         b = LLVMGetNextBasicBlock(b))
        for (LLVMValueRef i = LLVMGetFirstInstruction(b); i;
             i = LLVMGetNextInstruction(i))
            for (int k = 0; k < LLVMGetNumOperands(i); k++)
                hide_operand(e, i, (unsigned)k, numbers);
}

AqHash aq_module_hash(const AqEmit *e)
{
    LLVMMemoryBufferRef code = LLVMWriteBitcodeToMemoryBuffer(e->module);
    AqHash hash = aq_hash128(LLVMGetBufferStart(code), LLVMGetBufferSize(code));
    LLVMDisposeMemoryBuffer(code);
    return hash;
}

/* ---- in the object: ELF, as LLVM has just written it ---- */

typedef struct Object {
    char *data;
    const Elf64_Shdr *sections;
    int n_sections;
    const AqNumbers *numbers;
} Object;

static char *at(const Object *o, const Elf64_Shdr *section)
{
    return o->data + section->sh_offset;
}

static char *name_of(const Object *o, const Elf64_Shdr *table,
                     const Elf64_Sym *symbol)
{
    return at(o, &o->sections[table->sh_link]) + symbol->st_name;
}

/* The number that a symbol stands for, or NULL. */
static const int64_t *value_of(const Object *o, const Elf64_Shdr *table,
                               const Elf64_Sym *symbol)
{
    const char *name = name_of(o, table, symbol);
    if (strncmp(name, prefix, sizeof prefix - 1) != 0)
        return NULL;
    return &o->numbers->of[atoi(name + sizeof prefix - 1)];
}

/* False: the number does not fit there, or it is not for us to write: LLVM
 * would rather add up what is known of it beside the instruction's place. */
static bool write_number(char *place, uint64_t type, int64_t value)
{
    bool is_long = type == R_X86_64_64;
    bool fits = type == R_X86_64_32    ? value >= 0 && value <= UINT32_MAX
                : type == R_X86_64_32S ? value == (int32_t)value
                                       : is_long;
    if (fits) /* the lower bytes come first */
        memcpy(place, &value, is_long ? sizeof value : sizeof(int32_t));
    return fits;
}

/* In section `rela`'s target; what is done is no relocation any more. */
static bool fill_section(const Object *o, const Elf64_Shdr *rela)
{
    const Elf64_Shdr *table = &o->sections[rela->sh_link];
    const Elf64_Sym *symbols = (const Elf64_Sym *)at(o, table);
    char *target = at(o, &o->sections[rela->sh_info]);
    Elf64_Rela *r = (Elf64_Rela *)at(o, rela);
    for (Elf64_Rela *end = r + rela->sh_size / sizeof *r; r < end; r++) {
        const int64_t *value =
            value_of(o, table, &symbols[ELF64_R_SYM(r->r_info)]);
        if (!value)
            continue;
        if (!write_number(target + r->r_offset, ELF64_R_TYPE(r->r_info),
                          *value + r->r_addend))
            return false;
        r->r_info = ELF64_R_INFO(0, R_X86_64_NONE);
    }
    return true;
}

/* Nothing is to be looked up for the numbers; the function gets its name, which
 * is as long as the old one. */
static void name_symbols(const Object *o, const Elf64_Shdr *table,
                         const char *from, const char *to)
{
    Elf64_Sym *s = (Elf64_Sym *)at(o, table);
    for (Elf64_Sym *end = s + table->sh_size / sizeof *s; s < end; s++) {
        if (value_of(o, table, s)) {
            s->st_info = ELF64_ST_INFO(STB_LOCAL, STT_NOTYPE);
            s->st_shndx = SHN_ABS;
        } else if (!strcmp(name_of(o, table, s), from)) {
            memcpy(name_of(o, table, s), to, strlen(to));
        }
    }
}

bool aq_numbers_fill(char *object, const AqNumbers *numbers, const char *from,
                     const char *to)
{
    const Elf64_Ehdr *head = (const Elf64_Ehdr *)object;
    Object o = {.data = object,
                .sections = (const Elf64_Shdr *)(object + head->e_shoff),
                .n_sections = head->e_shnum,
                .numbers = numbers};
    for (int i = 0; i < o.n_sections; i++)
        if (o.sections[i].sh_type == SHT_RELA &&
            !fill_section(&o, &o.sections[i]))
            return false;
    for (int i = 0; i < o.n_sections; i++)
        if (o.sections[i].sh_type == SHT_SYMTAB)
            name_symbols(&o, &o.sections[i], from, to);
    return true;
}
