/* Checkpoints: there and back bit for bit, and what happens to them when the
 * disk lies, fills up, or the process dies at any system call. */
#include "runtime/run.h"

#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <math.h>
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

/* ---- something to save ---- */

typedef struct Saved {
    AqGraph *graph;
    const AqParamTable *params;
    AqMemory *memory;
    AqCheckpoint state;
    char folder[200];
} Saved;

static const char *const flat_states[] = {"weights", "m", "v", "ema"};

static AqGraph *small_model(int channels)
{
    AqGraph *g = aq_graph_new();
    AqScope s = aq_root(g);
    AqTensor x = aq_input(g, "x", AQ_SHAPE(1, 4, 4, 2));
    AqTensor h = aq_conv2d(aq_sub(s, "conv_in"), x, channels, .kernel = 3);
    h = aq_linear(aq_sub(s, "mid.0"), h, 5);
    aq_output(h, "y");
    assert_null(aq_graph_error(g));
    return g;
}

static float value(int array, int64_t i, int64_t step)
{
    return sinf((float)(i + 1000 * array) + (float)step * 0.37f);
}

/* Everything in the arrays as step `step` would have it. */
static void fill_arrays(Saved *s, int64_t step)
{
    for (int a = 0; a < AQ_COUNT(flat_states); a++) {
        float *array = aq_memory_find(s->memory, flat_states[a], NULL);
        for (int p = 0; array && p < s->params->count; p++) {
            const AqParamInfo *info = &s->params->at[p];
            for (int64_t i = 0; i < aq_elements(&info->type); i++)
                array[info->offset + i] = value(a, info->offset + i, step);
        }
    }
    s->state = (AqCheckpoint){.step = step,
                              .updates = step - 1,
                              .seconds = 0.1 + (double)step / 3,
                              .loss = 1 / (double)(step + 2)};
}

static Saved new_saved(const char *name, int channels, int arrays)
{
    AqError error = {0};
    Saved s = {.graph = small_model(channels), .memory = aq_memory_new(&error)};
    s.params = aq_params(s.graph);
    for (int a = 0; a < arrays; a++)
        aq_memory_array(s.memory, flat_states[a], s.params->floats * 4, &error);
    aq_memory_array(s.memory, "step", 4, &error);
    aq_memory_array(s.memory, "updates", 4, &error);
    snprintf(s.folder, sizeof s.folder, "%s/%s", aq_test_folder, name);
    assert_int_equal(aq_make_folders(s.folder, &error), AQ_OK);
    return s;
}

static void free_saved(Saved *s)
{
    aq_memory_free(s->memory);
    aq_graph_free(s->graph);
}

static AqStatus write_saved(Saved *s, AqError *error)
{
    return aq_checkpoint_write(s->folder, &s->state, s->params, s->memory,
                               error);
}

static void must_write(Saved *s)
{
    AqError error = {0};
    if (write_saved(s, &error))
        fail_msg("%s", error.text);
}

static void latest(const Saved *s, char path[300])
{
    AqError error = {0};
    AqArena *arena = aq_arena_new();
    const char *found = aq_checkpoint_latest(s->folder, arena, &error);
    snprintf(path, 300, "%s", found ? found : "");
    assert_int_equal(error.status, AQ_OK);
    aq_arena_free(arena);
}

/* Reads the newest over whatever the arrays hold. */
static AqStatus read_latest(Saved *s, AqCheckpoint *state, AqError *error)
{
    char path[300];
    latest(s, path);
    return aq_checkpoint_read(path, state, s->params, s->memory, error);
}

/* Whether the newest checkpoint is, to the bit, that of `step`. */
static void check_is(Saved *s, int64_t step)
{
    AqError error = {0};
    AqCheckpoint state;
    fill_arrays(s, -77);
    if (read_latest(s, &state, &error))
        fail_msg("%s", error.text);
    fill_arrays(s, step); /* and now they must not change any more */
    for (int a = 0; a < AQ_COUNT(flat_states); a++) {
        int64_t bytes;
        float *array = aq_memory_find(s->memory, flat_states[a], &bytes);
        if (!array)
            continue;
        float *kept = malloc((size_t)bytes);
        memcpy(kept, array, (size_t)bytes);
        AqCheckpoint again;
        memset(array, 0, (size_t)bytes);
        assert_int_equal(read_latest(s, &again, &error), AQ_OK);
        assert_memory_equal(kept, array, (size_t)bytes);
        free(kept);
    }
    assert_memory_equal(&state, &s->state, sizeof state);
    assert_int_equal(*(int *)aq_memory_find(s->memory, "step", NULL), step);
    assert_int_equal(*(int *)aq_memory_find(s->memory, "updates", NULL),
                     step - 1);
}

static int entries(const char *folder, bool hidden)
{
    int count = 0;
    DIR *dir = opendir(folder);
    for (struct dirent *e; dir && (e = readdir(dir));)
        if (strcmp(e->d_name, ".") && strcmp(e->d_name, ".."))
            count += (e->d_name[0] == '.') == hidden;
    closedir(dir);
    return count;
}

/* ---- there and back ---- */

static void test_there_and_back(void **state)
{
    (void)state;
    Saved s = new_saved("round", 3, 4);
    fill_arrays(&s, 12);
    must_write(&s);
    check_is(&s, 12);
    fill_arrays(&s, 1234567); /* more digits than names have */
    must_write(&s);
    check_is(&s, 1234567);
    fill_arrays(&s, 999999);
    must_write(&s);
    check_is(&s, 1234567); /* still the latest */
    assert_int_equal(entries(s.folder, true), 0);
    free_saved(&s);
}

static void test_the_same_step_again(void **state)
{
    (void)state;
    Saved s = new_saved("again", 3, 4);
    fill_arrays(&s, 12);
    must_write(&s);
    fill_arrays(&s, 50);
    s.state.step = 12;
    s.state.updates = 11;
    must_write(&s);
    assert_int_equal(entries(s.folder, false), 1);
    assert_int_equal(entries(s.folder, true), 0);
    AqError error = {0};
    AqCheckpoint read;
    assert_int_equal(read_latest(&s, &read, &error), AQ_OK);
    assert_memory_equal(&read, &s.state, sizeof read); /* the new one */
    free_saved(&s);
}

static void test_no_loss_yet(void **state)
{
    (void)state;
    AqError error = {0};
    AqCheckpoint read;
    Saved s = new_saved("begin", 3, 4);
    fill_arrays(&s, 0);
    s.state = (AqCheckpoint){.loss = NAN};
    must_write(&s);
    assert_int_equal(read_latest(&s, &read, &error), AQ_OK);
    assert_true(isnan(read.loss));
    assert_int_equal(read.step, 0);
    free_saved(&s);
}

static void test_names_and_layouts_are_pytorch_s(void **state)
{
    (void)state;
    AqError error = {0};
    Saved s = new_saved("names", 3, 4);
    fill_arrays(&s, 1);
    must_write(&s);
    char path[300], file[400];
    latest(&s, path);
    snprintf(file, sizeof file, "%s/weights.safetensors", path);
    AqTensorFile *weights = aq_tensors_open(file, &error);
    assert_non_null(weights);
    const AqTensorInfo *conv = aq_tensors_find(weights, "conv_in.weight");
    assert_non_null(conv); /* OIHW, where ours is HWIO */
    const int64_t shape[] = {3, 2, 3, 3};
    assert_int_equal(conv->rank, 4);
    assert_memory_equal(conv->shape, shape, sizeof shape);
    float values[54];
    aq_tensors_read_floats(weights, conv, values, &error);
    const float *array = aq_memory_find(s.memory, "weights", NULL);
    const AqParamInfo *ours = &s.params->at[0];
    for (int i = 0; i < s.params->count; i++)
        if (!strcmp(s.params->at[i].name, "conv_in.weight"))
            ours = &s.params->at[i];
    for (int o = 0; o < 3; o++)
        for (int i = 0; i < 2; i++)
            for (int h = 0; h < 3; h++)
                for (int w = 0; w < 3; w++)
                    assert_true(
                        values[((o * 2 + i) * 3 + h) * 3 + w] ==
                        array[ours->offset + ((h * 3 + w) * 2 + i) * 3 + o]);
    const AqTensorInfo *linear = aq_tensors_find(weights, "mid.0.weight");
    assert_non_null(linear);
    assert_int_equal(linear->shape[0], 5);
    assert_int_equal(linear->shape[1], 3);
    aq_tensors_close(weights);
    snprintf(file, sizeof file, "%s/optimizer.safetensors", path);
    AqTensorFile *optimizer = aq_tensors_open(file, &error);
    assert_non_null(aq_tensors_find(optimizer, "m.conv_in.weight"));
    assert_non_null(aq_tensors_find(optimizer, "v.mid.0.bias"));
    aq_tensors_close(optimizer);
    free_saved(&s);
}

static void test_one_array_alone(void **state)
{
    (void)state;
    AqError error = {0};
    Saved s = new_saved("alone", 3, 4), one = new_saved("alone", 3, 0);
    fill_arrays(&s, 6);
    must_write(&s);
    float *ema =
        aq_memory_array(one.memory, "ema", s.params->floats * 4, &error);
    AqCheckpoint read;
    assert_int_equal(read_latest(&one, &read, &error), AQ_OK);
    assert_memory_equal(ema, aq_memory_find(s.memory, "ema", NULL),
                        (size_t)s.params->floats * 4);
    free_saved(&one);
    free_saved(&s);
}

static void refuse_latest(Saved *s, const char *piece)
{
    AqError error = {0};
    AqCheckpoint read;
    if (read_latest(s, &read, &error) == AQ_OK)
        fail_msg("read what should be refused with: %s", piece);
    if (!strstr(error.text, piece))
        fail_msg("expected \"%s\" in \"%s\"", piece, error.text);
}

static void test_another_model(void **state)
{
    (void)state;
    Saved s = new_saved("other", 3, 4), wider = new_saved("other", 4, 4),
          sgd = new_saved("other", 3, 2);
    fill_arrays(&s, 6);
    must_write(&s);
    refuse_latest(&wider, "conv_in.weight has another shape or type; the "
                          "checkpoint belongs to another model");
    refuse_latest(&sgd, "optimizer.safetensors: holds 8 tensors instead of 4; "
                        "the checkpoint belongs to another model or optimizer");
    free_saved(&sgd);
    free_saved(&wider);
    free_saved(&s);
}

static void test_missing(void **state)
{
    (void)state;
    Saved s = new_saved("missing", 3, 4);
    char path[300], file[400];
    latest(&s, path);
    assert_string_equal(path, "");
    const char *const files[] = {"weights", "ema", "optimizer"};
    for (int i = 0; i < AQ_COUNT(files); i++) {
        fill_arrays(&s, i + 1);
        must_write(&s);
        latest(&s, path);
        snprintf(file, sizeof file, "%s/%s.safetensors", path, files[i]);
        assert_int_equal(unlink(file), 0);
        refuse_latest(&s, "cannot open");
    }
    snprintf(file, sizeof file, "%s/state.json", path);
    assert_int_equal(unlink(file), 0);
    refuse_latest(&s, "state.json: cannot open: No such file");
    AqError error = {0};
    AqArena *arena = aq_arena_new(); /* nothing there is no error */
    assert_null(aq_checkpoint_latest("/nowhere/at/all", arena, &error));
    assert_int_equal(error.status, AQ_OK);
    aq_arena_free(arena);
    free_saved(&s);
}

static void test_prune(void **state)
{
    (void)state;
    Saved s = new_saved("prune", 3, 1);
    char path[300];
    for (int step = 1; step <= 5; step++) {
        fill_arrays(&s, step * 400000);
        must_write(&s);
    }
    snprintf(path, sizeof path, "%s/.000007.part", s.folder);
    assert_int_equal(mkdir(path, 0755), 0); /* of a process killed */
    snprintf(path, sizeof path, "%s/notes", s.folder);
    assert_int_equal(mkdir(path, 0755), 0); /* the user's */
    aq_checkpoint_prune(s.folder, 2);
    assert_int_equal(entries(s.folder, false), 3);
    assert_int_equal(entries(s.folder, true), 0);
    check_is(&s, 2000000);
    aq_checkpoint_prune(s.folder, 10);
    assert_int_equal(entries(s.folder, false), 3);
    free_saved(&s);
}

/* ---- bits that change on the disk ---- */

static const char *const all_files[] = {"state.json", "weights.safetensors",
                                        "ema.safetensors",
                                        "optimizer.safetensors"};

typedef struct Bytes {
    char path[400];
    char *data;
    size_t count;
} Bytes;

static Bytes load(const Saved *s, const char *name)
{
    AqError error = {0};
    Bytes b;
    char path[300];
    latest(s, path);
    snprintf(b.path, sizeof b.path, "%s/%s", path, name);
    assert_int_equal(aq_file_read(b.path, 1 << 20, &b.data, &b.count, &error),
                     AQ_OK);
    return b;
}

static void must_be_refused(Saved *s, const char *name, size_t at)
{
    AqError error = {0};
    AqCheckpoint read;
    if (read_latest(s, &read, &error) == AQ_OK)
        fail_msg("%s: not noticed at byte %zu", name, at);
    assert_true(strlen(error.text) > 20);
}

static void test_every_flipped_byte_is_noticed(void **state)
{
    (void)state;
    Saved s = new_saved("flip", 3, 4);
    fill_arrays(&s, 6);
    must_write(&s);
    uint64_t seed = 1;
    for (int f = 0; f < AQ_COUNT(all_files); f++) {
        Bytes b = load(&s, all_files[f]);
        int file = open(b.path, O_WRONLY, 0);
        for (size_t i = 0; i < b.count; i++) {
            seed = seed * 6364136223846793005u + 1442695040888963407u;
            char flipped = (char)(b.data[i] ^ (1 << (seed >> 61)));
            assert_int_equal(pwrite(file, &flipped, 1, (off_t)i), 1);
            must_be_refused(&s, all_files[f], i);
            assert_int_equal(pwrite(file, &b.data[i], 1, (off_t)i), 1);
        }
        close(file);
        free(b.data);
    }
    check_is(&s, 6);
    free_saved(&s);
}

static void test_every_truncation_is_noticed(void **state)
{
    (void)state;
    Saved s = new_saved("cut", 3, 4);
    fill_arrays(&s, 6);
    must_write(&s);
    for (int f = 0; f < AQ_COUNT(all_files); f++) {
        Bytes b = load(&s, all_files[f]);
        for (size_t i = b.count; i-- > 0;) {
            assert_int_equal(truncate(b.path, (off_t)i), 0);
            must_be_refused(&s, all_files[f], i);
        }
        int file = open(b.path, O_WRONLY, 0);
        assert_int_equal(pwrite(file, b.data, b.count, 0), b.count);
        assert_int_equal(pwrite(file, "", 1, (off_t)b.count), 1);
        must_be_refused(&s, all_files[f], b.count); /* one byte too many */
        assert_int_equal(ftruncate(file, (off_t)b.count), 0);
        close(file);
        free(b.data);
    }
    check_is(&s, 6);
    free_saved(&s);
}

/* ---- refusals and deaths at every system call ---- */

/* The checkpoint of a step, and pruning. */
static AqStatus go_on(Saved *s, int64_t step, AqError *error)
{
    fill_arrays(s, step);
    AqStatus status = write_saved(s, error);
    if (status == AQ_OK)
        aq_checkpoint_prune(s->folder, 2);
    return status;
}

static int calls_of_a_checkpoint(Saved *s, int64_t step)
{
    AqError error = {0};
    fault = REFUSE;
    calls_left = -1;
    calls_seen = 0;
    assert_int_equal(go_on(s, step, &error), AQ_OK);
    fault = NONE;
    return calls_seen;
}

static Saved with_two(const char *name)
{
    Saved s = new_saved(name, 3, 4);
    fill_arrays(&s, 6);
    must_write(&s);
    fill_arrays(&s, 7);
    must_write(&s);
    return s;
}

static void fresh(Saved *s)
{
    char command[600];
    snprintf(command, sizeof command, "rm -rf %s/* %s/.[0-9]*", s->folder,
             s->folder);
    assert_int_equal(system(command), 0);
    fill_arrays(s, 6);
    must_write(s);
    fill_arrays(s, 7);
    must_write(s);
}

static void refuse_each(Saved *s, Fault how, int number, int64_t step)
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
            assert_int_equal(entries(s->folder, true), 0);
        }
        /* after the rename only the sync of the folder can fail */
        char path[300];
        latest(s, path);
        bool arrived = atoll(path + strlen(s->folder) + 1) == step;
        check_is(s, status == AQ_OK || arrived ? step : 7);
    }
    assert_true(how == SHORT ? failures == 0 : failures > 10);
}

static void test_every_call_refused(void **state)
{
    (void)state;
    Saved s = with_two("refused");
    refuse_each(&s, REFUSE, ENOSPC, 8);
    refuse_each(&s, REFUSE, EIO, 8);
    free_saved(&s);
}

static void test_every_write_short(void **state)
{
    (void)state;
    Saved s = with_two("short");
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
        latest(&s, path);
        check_is(&s, atoll(path + strlen(s.folder) + 1));
    }
    assert_true(written > 10);
    free_saved(&s);
}

/* `step` 8 is new; 7 takes the place of the one that is there. */
static void kill_each(Saved *s, int64_t step)
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
        latest(s, path);
        int64_t found = atoll(path + strlen(s->folder) + 1);
        assert_true(found == 7 || found == step);
        check_is(s, found);
        old += found == 7;
        new += found == step;
        AqError error = {0}; /* and it goes on, cleanly */
        assert_int_equal(go_on(s, 9, &error), AQ_OK);
        check_is(s, 9);
        assert_int_equal(entries(s->folder, true), 0);
        assert_int_equal(entries(s->folder, false), 2);
    }
    assert_true(old > 5 && new > 1);
}

static void test_killed_at_every_call(void **state)
{
    (void)state;
    Saved s = with_two("killed");
    kill_each(&s, 8);
    kill_each(&s, 7);
    free_saved(&s);
}

static void test_a_full_disk(void **state)
{
    (void)state;
    Saved s = with_two("full");
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
    assert_int_equal(entries(s.folder, true), 0);
    check_is(&s, 7);
    free_saved(&s);
}

static void test_a_folder_that_is_a_file(void **state)
{
    (void)state;
    AqError error = {0};
    Saved s = new_saved("file", 3, 4);
    assert_int_equal(rmdir(s.folder), 0);
    assert_int_equal(aq_file_write(s.folder, "x", 1, &error), AQ_OK);
    fill_arrays(&s, 3);
    assert_int_equal(write_saved(&s, &error), AQ_IO);
    assert_non_null(strstr(error.text, "/file"));
    free_saved(&s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_there_and_back),
        cmocka_unit_test(test_the_same_step_again),
        cmocka_unit_test(test_no_loss_yet),
        cmocka_unit_test(test_names_and_layouts_are_pytorch_s),
        cmocka_unit_test(test_one_array_alone),
        cmocka_unit_test(test_another_model),
        cmocka_unit_test(test_missing),
        cmocka_unit_test(test_prune),
        cmocka_unit_test(test_every_flipped_byte_is_noticed),
        cmocka_unit_test(test_every_truncation_is_noticed),
        cmocka_unit_test(test_every_call_refused),
        cmocka_unit_test(test_every_write_short),
        cmocka_unit_test(test_killed_at_every_call),
        cmocka_unit_test(test_a_full_disk),
        cmocka_unit_test(test_a_folder_that_is_a_file),
    };
    return cmocka_run_group_tests_name("checkpoint", tests, aq_test_make_folder,
                                       aq_test_remove_folder);
}
