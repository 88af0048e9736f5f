/* Models by name and from C files. */
#include "runtime/run.h"

#include <dirent.h>
#include <dlfcn.h>
#include <setjmp.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "tests/support/folder.h"

static const char *put(const char *name, const char *text)
{
    AqError error = {0};
    assert_int_equal(
        aq_file_write(aq_test_path(name), text, strlen(text), &error), AQ_OK);
    return aq_test_path(name);
}

/* What the compiler says goes to a file: it is part of what is promised. */
static void refuse(const char *path, const char *piece)
{
    AqError error = {0};
    AqModelFile model;
    char name[100];
    snprintf(name, sizeof name, "%s", path);
    int kept = dup(2);
    assert_non_null(freopen(aq_test_path("stderr"), "w", stderr));
    AqStatus status = aq_model_open(name, aq_test_folder, &model, &error);
    fflush(stderr);
    dup2(kept, 2);
    close(kept);
    if (status == AQ_OK)
        fail_msg("%s: opened what should be refused with: %s", name, piece);
    if (!strstr(error.text, piece))
        fail_msg("expected \"%s\" in \"%s\"", piece, error.text);
    assert_null(model.info);
    assert_null(model.library);
    assert_null(model.source);
}

static const char doubling[] =
    "#include <aquatint.h>\n"
    "AQ_MODEL(twice, \"two times x\")\n"
    "{\n"
    "    return aq_scale(m->x, aq_option_real(m, \"by\", 2, \"factor\"));\n"
    "}\n";

static AqModelFile must_open(const char *name)
{
    AqError error = {0};
    AqModelFile model;
    if (aq_model_open(name, aq_test_folder, &model, &error))
        fail_msg("%s", error.text);
    return model;
}

/* That of the file that was compiled, wherever the program stands. */
static void check_text(const AqModelFile *model)
{
    AqError error = {0};
    char path[AQ_PATH_SIZE], *text;
    size_t bytes;
    aq_path(path, "%s/models/%s.c", AQ_SOURCE_DIR, model->info->name);
    assert_int_equal(aq_file_read(path, 1 << 20, &text, &bytes, &error), AQ_OK);
    assert_int_equal(model->source_bytes, bytes);
    assert_string_equal(model->source, text);
    free(text);
}

static void test_of_the_library(void **state)
{
    (void)state;
    for (int i = 0; i < aq_builtin_count(); i++) {
        AqModelFile model = must_open(aq_builtin_at(i)->name);
        assert_ptr_equal(model.info, aq_builtin_at(i));
        assert_null(model.library);
        check_text(&model);
        aq_model_close(&model);
    }
    refuse("ddpm_unit", "there is no model \"ddpm_unit\" in the library (did "
                        "you mean \"ddpm_unet\"?)");
}

static void test_from_a_file(void **state)
{
    (void)state;
    AqModelFile model = must_open(put("twice.c", doubling));
    assert_string_equal(model.info->name, "twice");
    assert_string_equal(model.info->doc, "two times x");
    assert_string_equal(model.source, doubling);
    AqError error = {0};
    AqTask task = {.model = model.info, .batch = 1, .channels = 3};
    AqGraph *g = aq_forward_graph(&task, NULL, &error);
    if (!g)
        fail_msg("%s", error.text);
    aq_graph_free(g);
    aq_model_close(&model);
    aq_model_close(&model); /* closed is closed */
}

/* Of one name, in one folder, at one time. */
static void test_two_at_once(void **state)
{
    (void)state;
    AqModelFile first = must_open(put("twice.c", doubling));
    char other[sizeof doubling];
    strcpy(other, doubling);
    memcpy(strstr(other, "twice"), "thric", 5);
    AqModelFile second = must_open(put("twice.c", other));
    assert_string_equal(first.info->name, "twice");
    assert_string_equal(second.info->name, "thric");
    aq_model_close(&first);
    assert_string_equal(second.info->name, "thric");
    aq_model_close(&second);
}

static void test_no_files_are_left(void **state)
{
    (void)state;
    DIR *dir = opendir(aq_test_folder);
    for (struct dirent *e; (e = readdir(dir));)
        if (strstr(e->d_name, ".so") && strcmp(e->d_name, "model.so"))
            fail_msg("%s is left behind", e->d_name);
    closedir(dir);
}

/* What was compiled last, and nothing where it could not be. */
static void test_the_object_in_the_folder(void **state)
{
    (void)state;
    unlink(aq_test_path("model.so"));
    refuse(put("plain.c", "int x;\n"), "plain.c: defines no model");
    assert_false(aq_file_exists(aq_test_path("model.so")));
    AqModelFile model = must_open(put("twice.c", doubling));
    void *kept = dlopen(aq_test_path("model.so"), RTLD_NOW | RTLD_LOCAL);
    assert_non_null(kept);
    const AqModelInfo *info = dlsym(kept, "aq_model");
    assert_string_equal(info->name, "twice");
    dlclose(kept);
    aq_model_close(&model);
}

static void test_the_compiler_s_own_words(void **state)
{
    (void)state;
    refuse(put("wrong.c", "#include <aquatint.h>\nint f(void)\n{\n    return "
                          "nonsense;\n}\n"),
           "wrong.c: the C compiler found errors (shown above)");
    char *said;
    size_t bytes;
    AqError error = {0};
    aq_file_read(aq_test_path("stderr"), 1 << 20, &said, &bytes, &error);
    assert_non_null(strstr(said, "wrong.c:4:12: error:"));
    assert_non_null(strstr(said, "nonsense"));
    free(said);
}

static void test_files_that_are_no_models(void **state)
{
    (void)state;
    refuse(put("plain.c", "int x;\n"),
           "plain.c: defines no model; write AQ_MODEL(name, \"what it is\")");
    refuse(put("text.png", "int x;\n"), "text.png: is no model: a model is a C "
                                        "file (its name ends in .c)");
    refuse(aq_test_path("missing.c"), "missing.c: cannot open: No such file");
    refuse(put("unknown.c", "#include <aquatint.h>\nAqTensor aq_nothing(void);"
                            "\nAQ_MODEL(u, \"\")\n{\n    return "
                            "aq_nothing();\n}\n"),
           "unknown.c: cannot be loaded: ");
    refuse(put("old.c",
               "#include <aquatint.h>\n#undef AQ_MODEL_VERSION\n#define "
               "AQ_MODEL_VERSION 0\nAQ_MODEL(o, \"\")\n{\n    return m->x;\n}"
               "\n"),
           "old.c: was compiled for version 0 of aquatint.h, this is version ");
}

static void test_no_compiler(void **state)
{
    (void)state;
    setenv("CC", "nowhere-cc", 1);
    refuse(put("twice.c", doubling),
           "the C compiler 'nowhere-cc' cannot be run: No such file or "
           "directory (install gcc or set CC)");
    setenv("CC", "false", 1);
    refuse(aq_test_path("twice.c"), "the C compiler found errors");
    signal(SIGCHLD, SIG_IGN); /* as a parent may leave it */
    setenv("CC", "true", 1);
    refuse(aq_test_path("twice.c"),
           "twice.c: how the C compiler ended is not known: No child processes "
           "(is SIGCHLD ignored?)");
    signal(SIGCHLD, SIG_DFL);
    setenv("CC", "", 1);
    AqModelFile model = must_open(aq_test_path("twice.c"));
    aq_model_close(&model);
    unsetenv("CC");
}

static void test_no_folder(void **state)
{
    (void)state;
    AqError error = {0};
    AqModelFile model;
    char path[100];
    snprintf(path, sizeof path, "%s", put("twice.c", doubling));
    assert_int_equal(aq_model_open(path, "/nowhere", &model, &error), AQ_IO);
    assert_non_null(strstr(error.text, "/nowhere/aquatint-model-"));
    assert_non_null(strstr(error.text, ": cannot be made: No such file"));
    setenv("TMPDIR", aq_test_folder, 1);
    error = (AqError){0};
    assert_int_equal(aq_model_open(path, NULL, &model, &error), AQ_OK);
    aq_model_close(&model);
    unsetenv("TMPDIR");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_of_the_library),
        cmocka_unit_test(test_from_a_file),
        cmocka_unit_test(test_two_at_once),
        cmocka_unit_test(test_the_compiler_s_own_words),
        cmocka_unit_test(test_files_that_are_no_models),
        cmocka_unit_test(test_no_compiler),
        cmocka_unit_test(test_no_folder),
        cmocka_unit_test(test_the_object_in_the_folder),
        cmocka_unit_test(test_no_files_are_left),
    };
    return cmocka_run_group_tests_name("model_file", tests, aq_test_make_folder,
                                       aq_test_remove_folder);
}
