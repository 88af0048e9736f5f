/* Models out of C files: compiled by the system's compiler, loaded, looked up.
 *
 * Loading a model runs its code, as running any program would. */
#include "runtime/run.h"

#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <spawn.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

extern char **environ;

enum { SOURCE_LIMIT = 16 << 20 };

/* A path below the folder of this library: what was installed beside it.  (The
 * prefix is chosen at installation, after everything was compiled.) */
static void beside_library(char path[AQ_PATH_SIZE], const char *below)
{
    Dl_info library;
    const char *slash = NULL;
    if (dladdr((void *)beside_library, &library) && library.dli_fname)
        slash = strrchr(library.dli_fname, '/');
    if (slash)
        aq_path(path, "%.*s/%s", (int)(slash - library.dli_fname),
                library.dli_fname, below);
    else
        aq_path(path, "%s", below);
}

/* Where aquatint.h is: installed, or beside the sources it was built from. */
static bool include_folder(char folder[AQ_PATH_SIZE])
{
    char path[AQ_PATH_SIZE];
    beside_library(folder, AQ_TO_INCLUDE);
    for (int i = 0; i < 2; i++) {
        aq_path(path, "%s/aquatint.h", folder);
        if (aq_file_exists(path))
            return true;
        aq_path(folder, "%s", AQ_SOURCE_INCLUDE);
    }
    return false;
}

static AqStatus run_compiler(char *const *arguments, const char *source,
                             AqError *error)
{
    pid_t child;
    int failed =
        posix_spawnp(&child, arguments[0], NULL, NULL, arguments, environ);
    if (failed)
        return aq_fail(error, AQ_UNSUPPORTED,
                       "%s: the C compiler '%s' cannot be run: %s (install gcc "
                       "or set CC)",
                       source, arguments[0], strerror(failed));
    int status;
    while (waitpid(child, &status, 0) < 0)
        if (errno != EINTR)
            return aq_fail(error, AQ_IO,
                           "%s: how the C compiler ended is not known: %s (is "
                           "SIGCHLD ignored?)",
                           source, strerror(errno));
    if (!WIFEXITED(status) || WEXITSTATUS(status) != 0)
        return aq_fail(error, AQ_BAD_INPUT,
                       "%s: the C compiler found errors (shown above)", source);
    return AQ_OK;
}

static AqStatus compile(const char *source, const char *object, AqError *error)
{
    const char *compiler = getenv("CC");
    char include[AQ_PATH_SIZE], option[AQ_PATH_SIZE];
    if (!include_folder(include))
        return aq_fail(error, AQ_IO,
                       "aquatint.h is neither in %s nor where libaquatint is "
                       "installed: install again",
                       AQ_SOURCE_INCLUDE);
    aq_path(option, "-I%s", include);
    char *arguments[] = {(char *)(compiler && *compiler ? compiler : "cc"),
                         "-std=gnu11",
                         "-O1",
                         "-shared",
                         "-fPIC",
                         "-Wall",
                         option,
                         "-o",
                         (char *)object,
                         (char *)source,
                         NULL};
    return run_compiler(arguments, source, error);
}

static AqStatus load(const char *name, const char *object, AqModelFile *model,
                     AqError *error)
{
    model->library = dlopen(object, RTLD_NOW | RTLD_LOCAL);
    if (!model->library)
        return aq_fail(error, AQ_BAD_INPUT, "%s: cannot be loaded: %s", name,
                       dlerror());
    model->info = dlsym(model->library, "aq_model");
    if (!model->info)
        return aq_fail(error, AQ_BAD_INPUT,
                       "%s: defines no model; write AQ_MODEL(name, \"what it "
                       "is\") { ... }",
                       name);
    if (model->info->version != AQ_MODEL_VERSION)
        return aq_fail(error, AQ_BAD_INPUT,
                       "%s: was compiled for version %d of aquatint.h, this "
                       "is version %d",
                       name, model->info->version, AQ_MODEL_VERSION);
    return AQ_OK;
}

/* First into a file that nobody else has: the loader keeps what it has opened
 * under a name, and several programs may compile here at once.  What is loaded
 * stays, whatever becomes of the file. */
static AqStatus open_file(const char *name, const char *folder,
                          AqModelFile *model, AqError *error)
{
    char object[AQ_PATH_SIZE], kept[AQ_PATH_SIZE];
    const char *temporary = getenv("TMPDIR");
    if (!temporary || !*temporary)
        temporary = "/tmp";
    aq_path(object, "%s/aquatint-model-XXXXXX.so", folder ? folder : temporary);
    int file = mkostemps(object, 3, O_CLOEXEC);
    if (file < 0)
        return aq_fail(error, AQ_IO, "%s: cannot be made: %s", object,
                       strerror(errno));
    close(file);
    if (!compile(name, object, error))
        load(name, object, model, error);
    aq_path(kept, "%s/model.so", folder ? folder : "");
    if (!folder || error->status || rename(object, kept))
        unlink(object);
    return error->status;
}

static AqStatus copy_builtin_source(AqModelFile *model, AqError *error)
{
    const char *text = aq_builtin_text(model->info, &model->source_bytes);
    model->source = strndup(text, model->source_bytes);
    return model->source ? AQ_OK : aq_no_memory(error, model->source_bytes);
}

AqStatus aq_model_open(const char *name, const char *folder, AqModelFile *model,
                       AqError *error)
{
    *model = (AqModelFile){0};
    size_t length = strlen(name);
    bool is_c = length > 2 && !strcmp(name + length - 2, ".c");
    if (!is_c && (strchr(name, '/') || aq_file_exists(name)))
        return aq_fail(error, AQ_BAD_INPUT,
                       "%s: is no model: a model is a C file (its name ends in "
                       ".c) or the name of one of the library",
                       name);
    if (!is_c) {
        model->info = aq_builtin_find(name, error);
        return model->info ? copy_builtin_source(model, error) : error->status;
    }
    if (aq_file_read(name, SOURCE_LIMIT, &model->source, &model->source_bytes,
                     error))
        return error->status;
    if (open_file(name, folder, model, error))
        aq_model_close(model);
    return error->status;
}

void aq_model_close(AqModelFile *model)
{
    if (model->library)
        dlclose(model->library);
    free(model->source);
    *model = (AqModelFile){0};
}
