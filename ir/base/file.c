/* Files read and written whole: beside, synced, renamed. */
#include "ir/base/base.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

struct AqFileWriter {
    int file;
    char path[PATH_MAX], beside[PATH_MAX];
};

void aq_path(char path[AQ_PATH_SIZE], const char *format, ...)
{
    va_list args;
    va_start(args, format);
    int length = vsnprintf(path, AQ_PATH_SIZE, format, args);
    va_end(args);
    if (length < 0 || length >= AQ_PATH_SIZE)
        strcpy(path + 200, "...: too long");
}

static AqStatus refused(AqError *error, const char *what, const char *path)
{
    return aq_fail(error, AQ_IO, "%s: cannot %s: %s", path, what,
                   strerror(errno));
}

AqFileWriter *aq_file_begin(const char *path, AqError *error)
{
    AqFileWriter *writer = calloc(1, sizeof *writer);
    if (!writer) {
        aq_no_memory(error, sizeof *writer);
        return NULL;
    }
    int length = snprintf(writer->path, sizeof writer->path, "%s", path);
    int longer = snprintf(writer->beside, sizeof writer->beside, "%s.%ld.part",
                          path, (long)getpid());
    if (length >= PATH_MAX || longer >= PATH_MAX) {
        aq_fail(error, AQ_IO, "%.200s...: the path is too long", path);
        free(writer);
        return NULL;
    }
    unlink(writer->beside); /* left by a killed process with our number */
    writer->file =
        open(writer->beside, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
    if (writer->file < 0) {
        refused(error, "write", path);
        free(writer);
        return NULL;
    }
    return writer;
}

AqStatus aq_file_append(AqFileWriter *writer, const void *data, size_t bytes,
                        AqError *error)
{
    const char *from = data;
    while (bytes > 0) {
        ssize_t n = write(writer->file, from, AQ_MIN(bytes, (size_t)1 << 30));
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return refused(error, "write", writer->path);
        from += n;
        bytes -= (size_t)n;
    }
    return AQ_OK;
}

void aq_file_abandon(AqFileWriter *writer)
{
    if (!writer)
        return;
    if (writer->file >= 0)
        close(writer->file);
    unlink(writer->beside);
    free(writer);
}

static AqStatus sync_parent(const char *path, AqError *error)
{
    char folder[PATH_MAX];
    snprintf(folder, sizeof folder, "%s", path);
    char *slash = strrchr(folder, '/');
    if (!slash)
        return aq_sync_folder(".", error);
    slash[slash == folder] = 0; /* "/file" lies in "/" */
    return aq_sync_folder(folder, error);
}

AqStatus aq_file_commit(AqFileWriter *writer, AqError *error)
{
    AqStatus status = AQ_OK;
    if (fsync(writer->file) != 0)
        status = refused(error, "sync", writer->path);
    if (close(writer->file) != 0 && status == AQ_OK)
        status = refused(error, "close", writer->path);
    writer->file = -1;
    if (status == AQ_OK && rename(writer->beside, writer->path) != 0)
        status = refused(error, "rename", writer->path);
    if (status == AQ_OK)
        status = sync_parent(writer->path, error);
    if (status == AQ_OK)
        free(writer);
    else
        aq_file_abandon(writer);
    return status;
}

AqStatus aq_file_write(const char *path, const void *data, size_t bytes,
                       AqError *error)
{
    AqFileWriter *writer = aq_file_begin(path, error);
    if (!writer)
        return error ? error->status : AQ_IO;
    AqStatus status = aq_file_append(writer, data, bytes, error);
    if (status != AQ_OK) {
        aq_file_abandon(writer);
        return status;
    }
    return aq_file_commit(writer, error);
}

static AqStatus read_all(int file, const char *path, size_t limit, AqText *text,
                         AqError *error)
{
    char piece[1 << 16];
    for (;;) {
        ssize_t n = read(file, piece, sizeof piece);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return refused(error, "read", path);
        if (n == 0)
            break;
        if (text->length + (size_t)n > limit)
            return aq_fail(error, AQ_BAD_INPUT,
                           "%s: larger than the limit of %zu bytes", path,
                           limit);
        aq_text_bytes(text, piece, (size_t)n);
        if (text->failed)
            return aq_no_memory(error, text->length + (size_t)n);
    }
    aq_text_add(text, "");
    return text->failed ? aq_no_memory(error, 1) : AQ_OK;
}

AqStatus aq_file_read(const char *path, size_t limit, char **data,
                      size_t *bytes, AqError *error)
{
    int file = open(path, O_RDONLY | O_CLOEXEC);
    if (file < 0)
        return refused(error, "open", path);
    AqText text = {0};
    AqStatus status = read_all(file, path, limit, &text, error);
    close(file);
    if (status != AQ_OK) {
        aq_text_free(&text);
        return status;
    }
    *data = text.data;
    *bytes = text.length;
    return AQ_OK;
}

AqStatus aq_make_folders(const char *path, AqError *error)
{
    char part[PATH_MAX];
    if (snprintf(part, sizeof part, "%s", path) >= PATH_MAX)
        return aq_fail(error, AQ_IO, "%.200s...: the path is too long", path);
    for (char *at = part + 1;; at++) {
        if (*at != '/' && *at)
            continue;
        char kept = *at;
        *at = 0;
        if (mkdir(part, 0755) != 0 && errno != EEXIST)
            return refused(error, "make the folder", part);
        if (!kept)
            break;
        *at = kept;
    }
    struct stat st;
    if (stat(path, &st) != 0 || !S_ISDIR(st.st_mode))
        return aq_fail(error, AQ_IO, "%s: is a file, not a folder", path);
    return AQ_OK;
}

AqStatus aq_sync_folder(const char *path, AqError *error)
{
    int folder = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (folder < 0)
        return refused(error, "open", path);
    int failed = fsync(folder) != 0 && errno != EINVAL; /* some have no fsync */
    AqStatus status = failed ? refused(error, "sync", path) : AQ_OK;
    close(folder);
    return status;
}

bool aq_file_exists(const char *path)
{
    return access(path, F_OK) == 0;
}
