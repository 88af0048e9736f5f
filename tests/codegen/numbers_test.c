/* Numbers written into objects: where they fit and are ours to write, and not
 * elsewhere.  The objects are made here, of a single relocation. */
#include "codegen/emit.h"

#include <elf.h>
#include <setjmp.h>
#include <string.h>

#include <cmocka.h>

enum { TEXT = 1, RELA, SYMBOLS, STRINGS, SECTIONS, PLACE = 5 };

static const char strings[] = "\0aq_number_1\0store_0000\0memcpy";
enum { NUMBER_NAME = 1, FUNCTION_NAME = 13, OTHER_NAME = 24 };

typedef struct Object {
    Elf64_Ehdr head;
    Elf64_Shdr sections[SECTIONS];
    Elf64_Rela rela;
    Elf64_Sym symbols[4]; /* none, number 1, the function, another one */
    char strings[sizeof strings];
    unsigned char text[32];
} Object;

static Elf64_Shdr section(unsigned type, size_t offset, size_t size,
                          unsigned link, unsigned info)
{
    return (Elf64_Shdr){.sh_type = type,
                        .sh_offset = offset,
                        .sh_size = size,
                        .sh_link = link,
                        .sh_info = info};
}

/* A function that refers to `symbol` (1: the number). */
static Object object_with(unsigned type, unsigned symbol, int64_t addend)
{
    Object o = {
        .head = {.e_shoff = offsetof(Object, sections), .e_shnum = SECTIONS},
        .rela = {PLACE, ELF64_R_INFO(symbol, type), addend},
        .symbols = {{0},
                    {.st_name = NUMBER_NAME},
                    {.st_name = FUNCTION_NAME, .st_shndx = TEXT},
                    {.st_name = OTHER_NAME}}};
    for (int i = 1; i < 4; i++)
        o.symbols[i].st_info = ELF64_ST_INFO(STB_GLOBAL, STT_NOTYPE);
    o.sections[TEXT] =
        section(SHT_PROGBITS, offsetof(Object, text), sizeof o.text, 0, 0);
    o.sections[RELA] =
        section(SHT_RELA, offsetof(Object, rela), sizeof o.rela, SYMBOLS, TEXT);
    o.sections[SYMBOLS] = section(SHT_SYMTAB, offsetof(Object, symbols),
                                  sizeof o.symbols, STRINGS, 1);
    o.sections[STRINGS] =
        section(SHT_STRTAB, offsetof(Object, strings), sizeof o.strings, 0, 0);
    memcpy(o.strings, strings, sizeof strings);
    memset(o.text, 0xcc, sizeof o.text);
    return o;
}

static bool fill(Object *o, int64_t number)
{
    AqNumbers numbers = {.count = 2, .of = {77, number}};
    return aq_numbers_fill((char *)o, &numbers, "store_0000", "store_beef");
}

/* `number` + `addend` in `bytes` bytes, and no other byte. */
static void check_written(unsigned type, int64_t number, int64_t addend,
                          size_t bytes)
{
    Object o = object_with(type, 1, addend);
    int64_t wanted = number + addend;
    unsigned char text[sizeof o.text];
    memset(text, 0xcc, sizeof text);
    memcpy(text + PLACE, &wanted, bytes);
    assert_true(fill(&o, number));
    assert_memory_equal(o.text, text, sizeof text);
    assert_int_equal(ELF64_R_TYPE(o.rela.r_info), R_X86_64_NONE);
}

static void test_written(void **state)
{
    (void)state;
    check_written(R_X86_64_32, 4096, 0, 4);
    check_written(R_X86_64_32, UINT32_MAX, 0, 4);
    check_written(R_X86_64_32S, 4096, -64, 4);
    check_written(R_X86_64_32S, INT32_MAX, 0, 4);
    check_written(R_X86_64_32S, 64, -65, 4);
    check_written(R_X86_64_64, (int64_t)1 << 40, 8, 8);
}

static void check_refused(unsigned type, int64_t number, int64_t addend)
{
    Object o = object_with(type, 1, addend);
    Object before = o;
    assert_false(fill(&o, number));
    assert_memory_equal(o.text, before.text, sizeof o.text);
}

static void test_does_not_fit(void **state)
{
    (void)state;
    check_refused(R_X86_64_32, UINT32_MAX, 1);
    check_refused(R_X86_64_32, 64, -65);
    check_refused(R_X86_64_32S, INT32_MAX, 1);
    check_refused(R_X86_64_32S, (int64_t)1 << 40, 0);
    check_refused(R_X86_64_8, 64, 0);
}

/* Relative to the instruction, or through a table of addresses. */
static void test_not_ours(void **state)
{
    (void)state;
    check_refused(R_X86_64_PC32, 4096, -4);
    check_refused(R_X86_64_PLT32, 4096, -4);
    check_refused(R_X86_64_REX_GOTPCRELX, 4096, -4);
}

static void test_symbols(void **state)
{
    (void)state;
    Object o = object_with(R_X86_64_32S, 1, 0);
    assert_true(fill(&o, 4096));
    assert_int_equal(ELF64_ST_BIND(o.symbols[1].st_info), STB_LOCAL);
    assert_int_equal(o.symbols[1].st_shndx, SHN_ABS);
    assert_string_equal(o.strings + FUNCTION_NAME, "store_beef");
    assert_string_equal(o.strings + OTHER_NAME, "memcpy");
    assert_int_equal(ELF64_ST_BIND(o.symbols[3].st_info), STB_GLOBAL);
}

/* What is called stays for the linker. */
static void test_others_stay(void **state)
{
    (void)state;
    Object o = object_with(R_X86_64_PLT32, 3, -4);
    Object before = o;
    assert_true(fill(&o, 4096));
    assert_memory_equal(&o.rela, &before.rela, sizeof o.rela);
    assert_memory_equal(o.text, before.text, sizeof o.text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_written),     cmocka_unit_test(test_does_not_fit),
        cmocka_unit_test(test_not_ours),    cmocka_unit_test(test_symbols),
        cmocka_unit_test(test_others_stay),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
