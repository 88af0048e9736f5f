/* Pictures of graphs, drawn by Graphviz.
 *
 * `dot` is a child with limits, because its layout cannot be cancelled and may
 * take for ever: time by the clock and by the processor, and address space.
 * What it writes is collected and put into place by one rename. */
#include "runtime/run.h"

#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

extern char **environ;

enum { MOST_COMPLAINTS = 1 << 16, MOST_PICTURE = 1 << 28 };
static const rlim_t most_memory = (rlim_t)4 << 30;

typedef struct Child {
    pid_t pid;
    int out, err; /* the ends that we read; -1: closed */
    AqText picture, complaints;
    bool late, too_large, unseen; /* unseen: how it ended */
    int status;                   /* of waitpid */
} Child;

static const char *ending(const char *path)
{
    const char *dot = strrchr(path, '.');
    return dot && !strchr(dot, '/') ? dot + 1 : "";
}

/* ---- the child ---- */

static int spawn_dot(Child *c, const char *const *arguments, const int out[2],
                     const int err[2])
{
    posix_spawn_file_actions_t actions;
    int status = posix_spawn_file_actions_init(&actions);
    if (status)
        return status;
    posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0);
    posix_spawn_file_actions_adddup2(&actions, out[1], 1);
    posix_spawn_file_actions_adddup2(&actions, err[1], 2);
    status = posix_spawnp(&c->pid, "dot", &actions, NULL,
                          (char *const *)arguments, environ);
    posix_spawn_file_actions_destroy(&actions);
    return status;
}

static void limit(pid_t pid, double seconds)
{
    struct rlimit memory = {most_memory, most_memory};
    prlimit(pid, RLIMIT_AS, &memory, NULL);
    if (seconds <= 0)
        return;
    rlim_t whole = (rlim_t)ceil(seconds) + 1;
    struct rlimit time = {whole, whole + 1};
    prlimit(pid, RLIMIT_CPU, &time, NULL);
}

static void close_end(int *end)
{
    if (*end >= 0)
        close(*end);
    *end = -1;
}

/* Starts it; 0 or errno. */
static int start(Child *c, const char *const *arguments, double seconds)
{
    int out[2], err[2];
    if (pipe2(out, O_CLOEXEC))
        return errno;
    if (pipe2(err, O_CLOEXEC)) {
        int why = errno;
        close(out[0]);
        close(out[1]);
        return why;
    }
    int status = spawn_dot(c, arguments, out, err);
    close(out[1]);
    close(err[1]);
    c->out = out[0];
    c->err = err[0];
    if (!status)
        limit(c->pid, seconds);
    return status;
}

static void take(int *end, AqText *text, size_t most, bool *too_large)
{
    char piece[1 << 15];
    ssize_t n = read(*end, piece, sizeof piece);
    if (n < 0 && errno == EINTR)
        return;
    if (n <= 0)
        close_end(end);
    else if (text->length + (size_t)n <= most)
        aq_text_bytes(text, piece, (size_t)n);
    else if (too_large)
        *too_large = true;
}

static int milliseconds_left(double end)
{
    if (isinf(end))
        return -1;
    double left = 1e3 * (end - aq_seconds());
    return left > 0 ? (int)fmin(left + 1, 1e9) : 0;
}

/* It may have closed its pipes and go on; what is late is killed. */
static void wait_for(Child *c, double end)
{
    const struct timespec pause = {.tv_nsec = 2000000};
    while (!c->late && !c->too_large) {
        pid_t ended = waitpid(c->pid, &c->status, WNOHANG);
        c->unseen = ended < 0 && errno == ECHILD;
        if (ended == c->pid || c->unseen)
            return;
        c->late = milliseconds_left(end) == 0;
        nanosleep(&pause, NULL);
    }
    kill(c->pid, SIGKILL);
    while (waitpid(c->pid, &c->status, 0) < 0 && errno == EINTR)
        ;
}

/* Reads both pipes until they end or the time is over. */
static void collect(Child *c, double seconds)
{
    double end = seconds > 0 ? aq_seconds() + seconds : INFINITY;
    while ((c->out >= 0 || c->err >= 0) && !c->late && !c->too_large) {
        struct pollfd ends[] = {{.fd = c->out, .events = POLLIN},
                                {.fd = c->err, .events = POLLIN}};
        int ready = poll(ends, 2, milliseconds_left(end));
        if (ready > 0 && ends[0].revents)
            take(&c->out, &c->picture, MOST_PICTURE, &c->too_large);
        if (ready > 0 && ends[1].revents)
            take(&c->err, &c->complaints, MOST_COMPLAINTS, NULL);
        c->late = milliseconds_left(end) == 0;
    }
    wait_for(c, end);
    close_end(&c->out);
    close_end(&c->err);
}

/* ---- what came of it ---- */

/* The first line that it complained with. */
static const char *first_complaint(Child *c)
{
    if (!c->complaints.data)
        return "it said nothing";
    c->complaints.data[strcspn(c->complaints.data, "\r\n")] = 0;
    return c->complaints.data;
}

static AqStatus check(Child *c, const char *text_path, double seconds,
                      AqError *error)
{
    bool by_time = WIFSIGNALED(c->status) && (WTERMSIG(c->status) == SIGXCPU);
    if (c->late || by_time)
        return aq_fail(error, AQ_UNSUPPORTED,
                       "dot did not finish in %g s and was stopped; the graph "
                       "is in %s: aquatint graph can draw fewer boxes "
                       "(--depth, --scope) or wait longer (--time-out)",
                       seconds, text_path);
    if (c->too_large)
        return aq_fail(error, AQ_UNSUPPORTED,
                       "the picture is larger than %d MiB; the graph is in %s",
                       MOST_PICTURE >> 20, text_path);
    if (c->unseen)
        return aq_fail(error, AQ_UNSUPPORTED,
                       "how dot ended is not known (is SIGCHLD ignored?); the "
                       "graph is in %s",
                       text_path);
    if (WIFSIGNALED(c->status))
        return aq_fail(error, AQ_UNSUPPORTED,
                       "dot died of signal %d (%s); the graph is in %s",
                       WTERMSIG(c->status), strsignal(WTERMSIG(c->status)),
                       text_path);
    if (WEXITSTATUS(c->status) || c->picture.length == 0)
        return aq_fail(error, AQ_UNSUPPORTED,
                       "dot failed with status %d (%.300s); the graph is in %s",
                       WEXITSTATUS(c->status), first_complaint(c), text_path);
    return c->picture.failed ? aq_no_memory(error, c->picture.length) : AQ_OK;
}

/* Not for want of time or room: it may do with simpler edges. */
static bool has_failed(const Child *c)
{
    int by = WIFSIGNALED(c->status) ? WTERMSIG(c->status) : 0;
    return !c->late && !c->too_large && c->status != 0 && by != SIGXCPU;
}

/* `lines`: straight edges, where the routes of curves have defeated it. */
static AqStatus run_dot(const char *path, const char *text_path, bool lines,
                        double seconds, AqError *error)
{
    Child c = {.out = -1, .err = -1};
    char format[16];
    snprintf(format, sizeof format, "-T%s", ending(path));
    const char *arguments[] = {"dot", format, text_path,
                               lines ? "-Gsplines=line" : NULL, NULL};
    int why = start(&c, arguments, seconds);
    if (why) {
        close_end(&c.out);
        close_end(&c.err);
        return aq_fail(error, AQ_UNSUPPORTED,
                       "dot could not be started (%s): install Graphviz; the "
                       "graph is in %s",
                       strerror(why), text_path);
    }
    collect(&c, seconds);
    AqStatus status = AQ_OK;
    if (!lines && has_failed(&c))
        status = run_dot(path, text_path, true, seconds, error);
    else if (check(&c, text_path, seconds, error) == AQ_OK)
        status = aq_file_write(path, c.picture.data, c.picture.length, error);
    else
        status = error->status;
    aq_text_free(&c.picture);
    aq_text_free(&c.complaints);
    return status;
}

AqStatus aq_draw(const char *path, const AqText *dot, double seconds,
                 AqError *error)
{
    const char *format = ending(path);
    if (!strcmp(format, "dot"))
        return aq_file_write(path, dot->data, dot->length, error);
    if (strcmp(format, "svg") && strcmp(format, "png"))
        return aq_fail(error, AQ_BAD_INPUT,
                       "%s: a picture's name ends in .dot, .svg or .png", path);
    char text_path[AQ_PATH_SIZE];
    aq_path(text_path, "%s.dot", path);
    if (aq_file_write(text_path, dot->data, dot->length, error))
        return error->status;
    AqStatus status = run_dot(path, text_path, false, seconds, error);
    if (status == AQ_OK)
        unlink(text_path);
    return status;
}

AqStatus aq_draw_model(const AqTask *task, const char *path, double seconds,
                       AqError *error)
{
    AqGraph *graph = aq_forward_graph(task, NULL, error);
    if (!graph)
        return error->status;
    AqText title = {0}, text = {0};
    aq_text_printf(&title, "%s, forward", task->model->name);
    AqDotOptions options = {.title = title.data, .batch = task->batch};
    AqStatus status = aq_graph_dot(graph, &options, &text, NULL, error);
    if (status == AQ_OK)
        status = aq_draw(path, &text, seconds, error);
    aq_text_free(&title);
    aq_text_free(&text);
    aq_graph_free(graph);
    return status;
}
