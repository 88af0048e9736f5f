/* The table of DESIGN: who may include whom, read from the sources.
 *
 * A file of ours is included by its path from the repository's root.  The
 * exception is <aquatint.h>, which any room may include, because the room that
 * implements a part of it includes it. */
#include "ir/base/base.h"

#include <dirent.h>
#include <setjmp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include <cmocka.h>

typedef struct Room {
    const char *folder;
    const char *may_include[8]; /* besides itself */
    bool sees_llvm;
    bool only_public; /* <aquatint.h> and nothing else */
} Room;

/* A longer folder stands before the one it lies in. */
static const Room rooms[] = {
    {.folder = "ir"},
    {.folder = "passes", .may_include = {"ir"}},
    {.folder = "codegen", .may_include = {"ir"}, .sees_llvm = true},
    {.folder = "frontend/dsl", .may_include = {"ir", "passes"}},
    {.folder = "runtime",
     .may_include = {"ir", "passes", "codegen", "frontend/dsl"}},
    {.folder = "models", .only_public = true},
    {.folder = "frontend/cli",
     .may_include = {"ir", "passes", "codegen", "frontend/dsl", "runtime",
                     "models"}},
    {.folder = "tests/codegen",
     .may_include = {"ir", "passes", "codegen", "frontend", "runtime", "tests"},
     .sees_llvm = true},
    {.folder = "tests",
     .may_include = {"ir", "passes", "codegen", "frontend", "runtime",
                     "models"}},
};

static const char *const top_level[] = {"CMakeLists.txt", "CMakePresets.json",
                                        "README.md",      "LICENSE",
                                        "frontend",       "ir",
                                        "passes",         "codegen",
                                        "runtime",        "models",
                                        "tests"};

static bool lies_in(const char *path, const char *folder)
{
    size_t length = strlen(folder);
    return !strncmp(path, folder, length) && path[length] == '/';
}

static const Room *room_of(const char *path)
{
    for (int i = 0; i < AQ_COUNT(rooms); i++)
        if (lies_in(path, rooms[i].folder))
            return &rooms[i];
    return NULL;
}

static bool may_include(const Room *room, const char *included)
{
    if (lies_in(included, room->folder))
        return true;
    for (int i = 0; i < AQ_COUNT(room->may_include); i++)
        if (room->may_include[i] && lies_in(included, room->may_include[i]))
            return true;
    return false;
}

/* What is wrong with a line of the file `path`, or NULL. */
static const char *complaint(const char *path, const char *line)
{
    const Room *room = room_of(path);
    char mark, name[200];
    if (!room)
        return "lies in no room of the table";
    if (sscanf(line, " # include %c%199[^>\"]", &mark, name) != 2)
        return NULL;
    if (!strcmp(name, "aquatint.h"))
        return mark == '<' ? NULL : "is written <aquatint.h>";
    if (!strncmp(name, "llvm", 4))
        return room->sees_llvm ? NULL : "only codegen/ sees LLVM";
    if (room->only_public)
        return "a model includes <aquatint.h> and nothing else";
    if (mark == '<')
        return NULL;
    if (!strcmp(path, "frontend/dsl/aquatint.h"))
        return "is installed alone, so it includes nothing of ours";
    if (!strcmp(name, "builtin_models.def")) /* made by CMake */
        return NULL;
    if (!room_of(name))
        return "is not written from the repository's root";
    return may_include(room, name) ? NULL : "this arrow is not in the table";
}

static int check_file(const char *path)
{
    char *text = NULL, *rest, full[4096];
    size_t bytes;
    AqError error = {0};
    snprintf(full, sizeof full, "%s/%s", AQ_SOURCE_DIR, path);
    if (aq_file_read(full, 1 << 24, &text, &bytes, &error) != AQ_OK)
        fail_msg("%s", error.text);
    int wrong = 0, number = 0;
    rest = text;
    for (char *line; (line = strsep(&rest, "\n"));) {
        number++;
        const char *why = complaint(path, line);
        if (why)
            print_error("%s:%d: %s: %s\n", path, number, line, why);
        wrong += why != NULL;
    }
    free(text);
    return wrong;
}

static bool is_source(const char *name)
{
    const char *dot = strrchr(name, '.');
    return dot &&
           (!strcmp(dot, ".c") || !strcmp(dot, ".h") || !strcmp(dot, ".def"));
}

/* Calls `check` for each source under the folder; adds what it returns. */
static int walk(const char *folder, int *files)
{
    char path[2048], full[4096];
    snprintf(full, sizeof full, "%s/%s", AQ_SOURCE_DIR, folder);
    DIR *dir = opendir(full);
    if (!dir)
        return 0;
    int wrong = 0;
    for (struct dirent *entry; (entry = readdir(dir));) {
        if (entry->d_name[0] == '.')
            continue;
        struct stat st;
        snprintf(path, sizeof path, "%s/%s", folder, entry->d_name);
        snprintf(full, sizeof full, "%s/%s", AQ_SOURCE_DIR, path);
        if (stat(full, &st) != 0)
            continue;
        if (S_ISDIR(st.st_mode)) {
            wrong += walk(path, files);
        } else if (is_source(path)) {
            wrong += check_file(path);
            ++*files;
        }
    }
    closedir(dir);
    return wrong;
}

static void test_every_arrow_is_in_the_table(void **state)
{
    (void)state;
    static const char *const folders[] = {
        "ir", "passes", "codegen", "frontend", "runtime", "models", "tests"};
    int wrong = 0, files = 0;
    for (int i = 0; i < AQ_COUNT(folders); i++)
        wrong += walk(folders[i], &files);
    assert_int_equal(wrong, 0);
    assert_true(files > 10);
}

static void test_wrong_arrows_are_found(void **state)
{
    (void)state;
    static const char *const wrong[][2] = {
        {"ir/graph.c", "#include \"passes/passes.h\""},
        {"passes/fuse.c", "#include \"codegen/codegen.h\""},
        {"passes/fuse.c", "#include <llvm-c/Core.h>"},
        {"codegen/emit.c", "#include \"passes/passes.h\""},
        {"frontend/dsl/layers.c", "#  include \"runtime/runtime.h\""},
        {"frontend/dsl/aquatint.h", "#include \"ir/ir.h\""},
        {"runtime/train.c", "#include \"frontend/cli/cli.h\""},
        {"runtime/train.c", "#include \"files.h\""},
        {"runtime/train.c", "#include <llvm-c/Core.h>"},
        {"models/dit.c", "#include \"ir/ir.h\""},
        {"models/dit.c", "#include <stdio.h>"},
        {"models/dit.c", "#include \"aquatint.h\""},
        {"extras/x.c", "int x;"},
    };
    for (int i = 0; i < AQ_COUNT(wrong); i++)
        if (!complaint(wrong[i][0], wrong[i][1]))
            fail_msg("%s may not say %s", wrong[i][0], wrong[i][1]);
}

static void test_right_arrows_pass(void **state)
{
    (void)state;
    static const char *const right[][2] = {
        {"ir/graph.c", "#include \"ir/base/base.h\""},
        {"passes/gradient.c", "#include <aquatint.h>"},
        {"codegen/emit.c", "#include <llvm-c/Core.h>"},
        {"models/dit.c", "#include <aquatint.h>"},
        {"runtime/train.c", "#include \"codegen/codegen.h\""},
        {"frontend/cli/main.c", "#include \"runtime/runtime.h\""},
        {"tests/ir/x_test.c", "#include \"ir/ir.h\""},
    };
    for (int i = 0; i < AQ_COUNT(right); i++) {
        const char *why = complaint(right[i][0], right[i][1]);
        if (why)
            fail_msg("%s: %s: %s", right[i][0], right[i][1], why);
    }
}

static bool belongs_at_the_top(const char *name)
{
    if (name[0] == '.' || !strncmp(name, "build", 5) || !strcmp(name, "runs"))
        return true;
    for (int i = 0; i < AQ_COUNT(top_level); i++)
        if (!strcmp(name, top_level[i]))
            return true;
    return false;
}

static void test_the_top_level_holds_nothing_else(void **state)
{
    (void)state;
    DIR *dir = opendir(AQ_SOURCE_DIR);
    assert_non_null(dir);
    int wrong = 0;
    for (struct dirent *entry; (entry = readdir(dir));) {
        if (belongs_at_the_top(entry->d_name))
            continue;
        print_error("%s does not belong at the top level\n", entry->d_name);
        wrong++;
    }
    closedir(dir);
    assert_int_equal(wrong, 0);
}

/* Our names only: anything else could clash with a program that links us. */
static void test_exported_names_are_ours(void **state)
{
    (void)state;
    char line[1000], kind;
    FILE *names = popen("nm -D --defined-only " AQ_LIBRARY, "r");
    assert_non_null(names);
    int ours = 0, others = 0;
    while (fgets(line, sizeof line, names)) {
        char name[900];
        if (sscanf(line, "%*x %c %899s", &kind, name) != 2 || name[0] == '_')
            continue;
        bool is_ours = !strncmp(name, "aq_", 3) || !strncmp(name, "Aq", 2);
        if (!is_ours)
            print_error("%s is exported, and does not begin with aq_\n", name);
        ours += is_ours;
        others += !is_ours;
    }
    assert_int_equal(pclose(names), 0);
    assert_int_equal(others, 0);
    assert_true(ours > 20);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_arrow_is_in_the_table),
        cmocka_unit_test(test_wrong_arrows_are_found),
        cmocka_unit_test(test_right_arrows_pass),
        cmocka_unit_test(test_the_top_level_holds_nothing_else),
        cmocka_unit_test(test_exported_names_are_ours),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
