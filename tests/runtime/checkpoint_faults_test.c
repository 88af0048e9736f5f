/* Checkpoints on a disk that fills up or breaks, and by a process that dies, at
 * any system call: the newest whole one is always there. */
#include "runtime/run.h"

#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "tests/support/folder.h"
#include "tests/support/saved.h"

/* ---- a system that fails ---- */

typedef enum Fault { NONE, REFUSE, SHORT, KILL } Fault;

static Fault fault;
static int fault_error, calls_left, calls_seen;

/* Whether this call is the one that goes wrong. */
static bool strikes(void)
{
    if (fault == NONE)
        return false;
    calls_seen++;
    if (calls_left < 0 || calls_left-- > 0)
        return false;
    if (fault == KILL)
        raise(SIGKILL);
    errno = fault_error;
    return true;
}

static void *next(const char *name)
{
    void *function = dlsym(RTLD_NEXT, name);
    if (!function)
        abort();
    return function;
}

#define REAL(type, name) type name##_real = (type)next(#name)

/* These stand before the C library's: the linker lets an executable's win. */
ssize_t write(int file, const void *data, size_t bytes)
{
    typedef ssize_t (*Fn)(int, const void *, size_t);
    REAL(Fn, write);
    if (!strikes())
        return write_real(file, data, bytes);
    return fault == SHORT ? write_real(file, data, (bytes + 1) / 2) : -1;
}

int open(const char *path, int flags, ...)
{
    typedef int (*Fn)(const char *, int, ...);
    REAL(Fn, open);
    va_list args;
    va_start(args, flags);
    int mode = va_arg(args, int);
    va_end(args);
    return strikes() ? -1 : open_real(path, flags, mode);
}

#define ONE_ARGUMENT(name, Type)                                               \
    int name(Type argument)                                                    \
    {                                                                          \
        typedef int (*Fn)(Type);                                               \
        REAL(Fn, name);                                                        \
        return strikes() ? -1 : name##_real(argument);                         \
    }
ONE_ARGUMENT(rmdir, const char *)
ONE_ARGUMENT(unlink, const char *)

/* Not waited for: how long a disk takes is not what is tested. */
int fsync(int file)
{
    (void)file;
    return strikes() ? -1 : 0;
}

int mkdir(const char *path, mode_t mode)
{
    typedef int (*Fn)(const char *, mode_t);
    REAL(Fn, mkdir);
    return strikes() ? -1 : mkdir_real(path, mode);
}

int rename(const char *from, const char *to)
{
    typedef int (*Fn)(const char *, const char *);
    REAL(Fn, rename);
    return strikes() ? -1 : rename_real(from, to);
}

int renameat2(int from_folder, const char *from, int to_folder, const char *to,
              unsigned flags)
{
    typedef int (*Fn)(int, const char *, int, const char *, unsigned);
    REAL(Fn, renameat2);
    return strikes() ? -1
                     : renameat2_real(from_folder, from, to_folder, to, flags);
}

int unlinkat(int folder, const char *path, int flags)
{
    typedef int (*Fn)(int, const char *, int);
    REAL(Fn, unlinkat);
    return strikes() ? -1 : unlinkat_real(folder, path, flags);
}

/* ---- refusals and deaths at every system call ---- */

/* The checkpoint of a step, and pruning. */
static AqStatus go_on(AqSaved *s, int64_t step, AqError *error)
{
    aq_saved_fill(s, step);
    AqStatus status = aq_saved_write(s, error);
    if (status == AQ_OK)
        aq_checkpoint_prune(s->folder, 2);
    return status;
}

static int calls_of_a_checkpoint(AqSaved *s, int64_t step)
{
    AqError error = {0};
    fault = REFUSE;
    calls_left = -1;
    calls_seen = 0;
    assert_int_equal(go_on(s, step, &error), AQ_OK);
    fault = NONE;
    return calls_seen;
}

static AqSaved with_two(const char *name)
{
    AqSaved s = aq_saved_new(name, 3, 4);
    aq_saved_fill(&s, 6);
    aq_saved_must_write(&s);
    aq_saved_fill(&s, 7);
    aq_saved_must_write(&s);
    return s;
}

static void fresh(AqSaved *s)
{
    char command[600];
    snprintf(command, sizeof command, "rm -rf %s/* %s/.[0-9]*", s->folder,
             s->folder);
    assert_int_equal(system(command), 0);
    aq_saved_fill(s, 6);
    aq_saved_must_write(s);
    aq_saved_fill(s, 7);
    aq_saved_must_write(s);
}

static void refuse_each(AqSaved *s, Fault how, int number, int64_t step)
{
    fresh(s);
    int calls = calls_of_a_checkpoint(s, step), failures = 0;
    assert_true(calls > 20);
    for (int n = 0; n < calls; n++) {
        AqError error = {0};
        fresh(s);
        fault = how;
        fault_error = number;
        calls_left = n;
        AqStatus status = go_on(s, step, &error);
        fault = NONE;
        if (status != AQ_OK) {
            failures++;
            assert_non_null(strstr(error.text, strerror(number)));
            assert_int_equal(aq_saved_entries(s->folder, true), 0);
        }
        /* after the rename only the sync of the folder can fail */
        char path[300];
        aq_saved_latest(s, path);
        bool arrived = atoll(path + strlen(s->folder) + 1) == step;
        aq_saved_check(s, status == AQ_OK || arrived ? step : 7);
    }
    assert_true(how == SHORT ? failures == 0 : failures > 10);
}

static void test_every_call_refused(void **state)
{
    (void)state;
    AqSaved s = with_two("refused");
    refuse_each(&s, REFUSE, ENOSPC, 8);
    refuse_each(&s, REFUSE, EIO, 8);
    aq_saved_free(&s);
}

static void test_every_write_short(void **state)
{
    (void)state;
    AqSaved s = with_two("short");
    Fault kept = SHORT;
    int calls = calls_of_a_checkpoint(&s, 8), written = 0;
    for (int n = 0; n < calls; n++) {
        AqError error = {0};
        fresh(&s);
        fault = kept;
        fault_error = EDQUOT; /* of calls that are no writes */
        calls_left = n;
        written += go_on(&s, 8, &error) == AQ_OK;
        fault = NONE;
        char path[300];
        aq_saved_latest(&s, path);
        aq_saved_check(&s, atoll(path + strlen(s.folder) + 1));
    }
    assert_true(written > 10);
    aq_saved_free(&s);
}

/* `step` 8 is new; 7 takes the place of the one that is there. */
static void kill_each(AqSaved *s, int64_t step)
{
    fresh(s);
    int calls = calls_of_a_checkpoint(s, step), old = 0, new = 0;
    for (int n = 0; n < calls; n++) {
        fresh(s);
        pid_t child = fork();
        if (child == 0) {
            AqError error = {0};
            fault = KILL;
            calls_left = n;
            go_on(s, step, &error);
            _exit(0);
        }
        int status;
        waitpid(child, &status, 0);
        assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
        char path[300];
        aq_saved_latest(s, path);
        int64_t found = atoll(path + strlen(s->folder) + 1);
        assert_true(found == 7 || found == step);
        aq_saved_check(s, found);
        old += found == 7;
        new += found == step;
        AqError error = {0}; /* and it goes on, cleanly */
        assert_int_equal(go_on(s, 9, &error), AQ_OK);
        aq_saved_check(s, 9);
        assert_int_equal(aq_saved_entries(s->folder, true), 0);
        assert_int_equal(aq_saved_entries(s->folder, false), 2);
    }
    assert_true(old > 5 && new > 1);
}

static void test_killed_at_every_call(void **state)
{
    (void)state;
    AqSaved s = with_two("killed");
    kill_each(&s, 8);
    kill_each(&s, 7);
    aq_saved_free(&s);
}

static void test_a_full_disk(void **state)
{
    (void)state;
    AqSaved s = with_two("full");
    struct rlimit kept, small = {.rlim_cur = 1200};
    getrlimit(RLIMIT_FSIZE, &kept);
    small.rlim_max = kept.rlim_max;
    signal(SIGXFSZ, SIG_IGN);
    setrlimit(RLIMIT_FSIZE, &small);
    AqError error = {0};
    AqStatus status = go_on(&s, 8, &error);
    setrlimit(RLIMIT_FSIZE, &kept);
    assert_int_equal(status, AQ_IO);
    assert_non_null(strstr(error.text, "optimizer.safetensors: cannot write: "
                                       "File too large"));
    assert_int_equal(aq_saved_entries(s.folder, true), 0);
    aq_saved_check(&s, 7);
    aq_saved_free(&s);
}

static void test_a_folder_that_is_a_file(void **state)
{
    (void)state;
    AqError error = {0};
    AqSaved s = aq_saved_new("file", 3, 4);
    assert_int_equal(rmdir(s.folder), 0);
    assert_int_equal(aq_file_write(s.folder, "x", 1, &error), AQ_OK);
    aq_saved_fill(&s, 3);
    assert_int_equal(aq_saved_write(&s, &error), AQ_IO);
    assert_non_null(strstr(error.text, "/file"));
    aq_saved_free(&s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_call_refused),
        cmocka_unit_test(test_every_write_short),
        cmocka_unit_test(test_killed_at_every_call),
        cmocka_unit_test(test_a_full_disk),
        cmocka_unit_test(test_a_folder_that_is_a_file),
    };
    return cmocka_run_group_tests_name(
        "checkpoint_faults", tests, aq_test_make_folder, aq_test_remove_folder);
}
