/* Threads that run the stages of kernels together.
 *
 * Of each launch a thread takes the same part first, so that it finds the rows
 * that it has written in its own cache; then it takes from the others what they
 * have not begun.  Tasks are claimed in ranges that get smaller towards the end
 * of a part, so that threads finish together; which thread runs a task changes
 * nothing.  Whoever finishes the last task of a group of launches opens the
 * next one: nobody waits for a thread that holds no task and opens no group, so
 * one that the system has taken off its processor delays the others by what it
 * had claimed and no more.  Waiting is spinning for a moment, because groups
 * are short, and then sleeping on a futex, because the machine may be shared.
 */
#include "runtime/runtime.h"

#include <assert.h>
#include <errno.h>
#include <immintrin.h>
#include <limits.h>
#include <linux/futex.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

enum {
    MOST_THREADS = 256,
    SPIN_CYCLES = 200000,        /* some 50 to 100 microseconds */
    TASK_BITS = 40,              /* of the cursor; above them the group */
    GROUP_BITS = 64 - TASK_BITS, /* the first launch of one */
    RANGES = 4,                  /* in what is left of a part */
    FLUSH_DENORMALS = 0x8040,    /* FTZ and DAZ of MXCSR */
};

typedef struct Job {
    const AqLaunch *launches;
    int count;
    void *const *scratch;
    const volatile int *stop;
    double *seconds;
} Job;

/* A word that changes, and those who sleep until it does. */
typedef struct Bell {
    _Alignas(64) atomic_int word;
    atomic_int sleepers;
} Bell;

/* Where the tasks of a part are claimed: first launch of the group << TASK_BITS
 * | tasks of the part that are left.  Within a job it never has the same value
 * twice. */
typedef struct Cursor {
    _Alignas(64) atomic_ullong word;
} Cursor;

struct AqPool {
    AqPoolOptions options;
    int threads;
    pthread_t ids[MOST_THREADS];
    Job job;       /* written while nobody is inside */
    double before; /* when the group that runs was opened */
    bool stopped;
    atomic_bool ending;
    Bell jobs;                      /* rings for each job */
    Bell groups;                    /* and for each group */
    _Alignas(64) atomic_llong done; /* tasks of the group that runs */
    _Alignas(64) atomic_bool over;  /* all is done, no helper may enter */
    atomic_int inside;              /* helpers that may read the job */
    atomic_int open;                /* newest group whose cursors are all set */
    Cursor cursors[MOST_THREADS];   /* by thread, its parts */
};

typedef struct Worker {
    AqPool *pool;
    int index;
} Worker;

static void futex_wait(atomic_int *word, int value)
{
    syscall(SYS_futex, word, FUTEX_WAIT_PRIVATE, value, NULL, NULL, 0);
}

static void futex_wake(atomic_int *word)
{
    syscall(SYS_futex, word, FUTEX_WAKE_PRIVATE, INT32_MAX, NULL, NULL, 0);
}

/* Waits until the bell's word is no longer `value`. */
static void wait_for(Bell *bell, int value)
{
    unsigned long long began = __rdtsc();
    do {
        if (atomic_load_explicit(&bell->word, memory_order_acquire) != value)
            return;
        _mm_pause();
    } while (__rdtsc() - began < SPIN_CYCLES);
    atomic_fetch_add(&bell->sleepers, 1);
    while (atomic_load(&bell->word) == value)
        futex_wait(&bell->word, value);
    atomic_fetch_sub(&bell->sleepers, 1);
}

/* Those who sleep may sleep on if there is nothing for them to do. */
static void ring(Bell *bell, bool wake)
{
    atomic_fetch_add(&bell->word, 1);
    if (wake && atomic_load(&bell->sleepers) > 0)
        futex_wake(&bell->word);
}

static void pause_at_random(AqPool *pool, int64_t task)
{
    uint32_t counter[4] = {(uint32_t)task, (uint32_t)pthread_self(), 0, 0};
    uint32_t key[2] = {pool->options.delays, (uint32_t)clock()}, out[4];
    aq_philox(counter, key, out);
    if (out[0] % 8 == 0)
        usleep(out[1] % 200);
}

/* ---- groups: launches that run side by side ---- */

/* A chain counts as one task. */
static int64_t tasks_of(const AqLaunch *launch)
{
    return launch->chain > 1 ? 1 : launch->stage.tasks;
}

static int after_chain(const AqLaunch *launches, int at)
{
    return at + AQ_MAX(launches[at].chain, 1);
}

static int after_group(const AqLaunch *launches, int at)
{
    return launches[at].group > 0 ? at + launches[at].group
                                  : after_chain(launches, at);
}

static int64_t tasks_of_group(const AqLaunch *launches, int at)
{
    int64_t tasks = 0;
    int end = after_group(launches, at);
    for (int i = at; i < end; i = after_chain(launches, i))
        tasks += tasks_of(&launches[i]);
    return tasks;
}

static void run_launch(const AqLaunch *launch, int64_t first, int64_t last,
                       void *scratch)
{
    launch->stage.run(launch->stage.closure, launch->buffers, first, last,
                      scratch);
}

static void run_tasks(const AqLaunch *launch, int64_t first, int64_t last,
                      void *scratch)
{
    if (launch->chain > 1)
        for (int i = 0; i < launch->chain; i++)
            run_launch(&launch[i], 0, launch[i].stage.tasks, scratch);
    else
        run_launch(launch, first, last, scratch);
}

/* ---- parts and claims ---- */

/* The first task of thread `part` in a launch of so many: all parts are equal
 * but for one task, and of a single task the first thread has it. */
static int64_t part_begin(const AqPool *pool, int64_t tasks, int part)
{
    return aq_ceil_div(tasks * part, pool->threads);
}

static int64_t part_of_launch(const AqPool *pool, int64_t tasks, int part)
{
    return part_begin(pool, tasks, part + 1) - part_begin(pool, tasks, part);
}

static int64_t part_of_group(const AqPool *pool, int at, int part)
{
    const AqLaunch *launches = pool->job.launches;
    int64_t tasks = 0;
    int end = after_group(launches, at);
    for (int i = at; i < end; i = after_chain(launches, i))
        tasks += part_of_launch(pool, tasks_of(&launches[i]), part);
    return tasks;
}

/* Tasks first .. last - 1 of a part of the group at `at`. */
typedef struct Claim {
    int at, part;
    int64_t first, last, tasks; /* of the whole part */
} Claim;

static int group_of(unsigned long long word)
{
    return (int)(word >> TASK_BITS);
}

static int64_t left_of(unsigned long long word)
{
    return (int64_t)(word & ((1ull << TASK_BITS) - 1));
}

/* False: nothing is left of this part, or it is of a group after `newest`. */
static bool claim_part(AqPool *pool, int part, int newest, Claim *claim)
{
    atomic_ullong *cursor = &pool->cursors[part].word;
    unsigned long long word = atomic_load(cursor);
    int64_t left, range;
    do {
        left = left_of(word);
        if (left == 0 || group_of(word) > newest)
            return false;
        range = pool->threads == 1 ? left : AQ_MAX(left / RANGES, 1);
    } while (!atomic_compare_exchange_weak(cursor, &word,
                                           word - (unsigned long long)range));
    int at = group_of(word);
    int64_t tasks = part_of_group(pool, at, part), first = tasks - left;
    *claim = (Claim){at, part, first, first + range, tasks};
    return true;
}

/* Of the worker's own part, or else of another's: but only in groups that were
 * open before it looked at its own, which might have been set since. */
static bool claim_tasks(AqPool *pool, int worker, Claim *claim)
{
    int open = atomic_load(&pool->open);
    if (claim_part(pool, worker, INT_MAX, claim))
        return true;
    for (int i = 1; i < pool->threads; i++)
        if (claim_part(pool, (worker + i) % pool->threads, open, claim))
            return true;
    return false;
}

/* Tasks first .. last - 1 of a part, which lie in one launch or in several. */
static void run_part(const AqPool *pool, const Claim *claim, int64_t first,
                     int64_t last, void *scratch)
{
    const AqLaunch *launches = pool->job.launches;
    int64_t before = 0; /* tasks of the launches that were passed */
    for (int i = claim->at; before < last; i = after_chain(launches, i)) {
        int64_t tasks = tasks_of(&launches[i]);
        int64_t count = part_of_launch(pool, tasks, claim->part);
        int64_t from = AQ_MAX(first - before, 0);
        int64_t end = AQ_MIN(last - before, count);
        int64_t begin = part_begin(pool, tasks, claim->part);
        if (from < end)
            run_tasks(&launches[i], begin + from, begin + end, scratch);
        before += count;
    }
}

static void run_claim(const AqPool *pool, const Claim *claim, void *scratch)
{
    if (!pool->options.reversed) {
        run_part(pool, claim, claim->first, claim->last, scratch);
        return;
    }
    for (int64_t i = claim->first; i < claim->last; i++)
        run_part(pool, claim, claim->tasks - 1 - i, claim->tasks - i, scratch);
}

/* ---- jobs ---- */

/* The first group from `at` on that has a task. */
static int skip_empty(const Job *job, int at)
{
    while (at < job->count && tasks_of_group(job->launches, at) == 0)
        at = after_group(job->launches, at);
    return at;
}

/* As soon as a cursor is set the part's thread may run it, and with the last
 * part's the next group be opened: cursors of empty parts, which nobody would
 * wait for, stay where they are, and `open` never goes back. */
static void open_group(AqPool *pool, int at)
{
    atomic_store(&pool->done, 0);
    for (int i = 0; i < pool->threads; i++) {
        int64_t tasks = part_of_group(pool, at, i);
        assert(tasks < 1ll << TASK_BITS);
        if (tasks > 0)
            atomic_store(&pool->cursors[i].word,
                         (unsigned long long)at << TASK_BITS |
                             (unsigned long long)tasks);
    }
    int open = atomic_load(&pool->open);
    while (open < at && !atomic_compare_exchange_weak(&pool->open, &open, at))
        ;
}

/* By whoever finished the group at `at`, while nobody holds a task. */
static void open_next(AqPool *pool, int at)
{
    const Job *job = &pool->job;
    if (job->seconds) {
        double now = aq_seconds();
        job->seconds[at] += now - pool->before;
        pool->before = now;
    }
    int next = skip_empty(job, after_group(job->launches, at));
    if (job->stop && __atomic_load_n(job->stop, __ATOMIC_RELAXED)) {
        pool->stopped = true;
        next = job->count;
    }
    bool last = next == job->count;
    bool wake = last || tasks_of_group(job->launches, next) > 1;
    if (last)
        atomic_store(&pool->over, true);
    else
        open_group(pool, next);
    ring(&pool->groups, wake);
}

static void work(AqPool *pool, int worker)
{
    const Job *job = &pool->job;
    void *scratch = job->scratch ? job->scratch[worker] : NULL;
    for (;;) {
        int round = atomic_load(&pool->groups.word);
        Claim claim;
        if (!claim_tasks(pool, worker, &claim)) {
            if (atomic_load(&pool->over))
                return;
            wait_for(&pool->groups, round);
            continue;
        }
        if (pool->options.delays)
            pause_at_random(pool, claim.first);
        run_claim(pool, &claim, scratch);
        int64_t count = claim.last - claim.first;
        if (atomic_fetch_add(&pool->done, count) + count ==
            tasks_of_group(job->launches, claim.at))
            open_next(pool, claim.at);
    }
}

/* Enters every job that has not yet ended.  The order of the two words matters:
 * either this thread sees that the job is over, or the caller sees it inside.
 */
static void *serve(void *argument)
{
    Worker worker = *(Worker *)argument;
    free(argument);
    AqPool *pool = worker.pool;
    _mm_setcsr(_mm_getcsr() | FLUSH_DENORMALS);
    for (int seen = 0;;) {
        wait_for(&pool->jobs, seen);
        seen = atomic_load(&pool->jobs.word);
        if (atomic_load(&pool->ending))
            return NULL;
        atomic_fetch_add(&pool->inside, 1);
        if (!atomic_load(&pool->over))
            work(pool, worker.index);
        atomic_fetch_sub(&pool->inside, 1);
    }
}

/* Starts what the system allows: with fewer threads the bits are the same. */
static void start_threads(AqPool *pool, int wanted)
{
    pool->threads = 1;
    while (pool->threads < wanted) {
        Worker *worker = malloc(sizeof *worker);
        if (!worker)
            return;
        *worker = (Worker){.pool = pool, .index = pool->threads};
        if (pthread_create(&pool->ids[pool->threads], NULL, serve, worker)) {
            free(worker);
            return;
        }
        pool->threads++;
    }
}

AqPool *aq_pool_new(const AqPoolOptions *options, AqError *error)
{
    AqPool *pool = aligned_alloc(64, (sizeof *pool + 63) / 64 * 64);
    if (!pool) {
        aq_no_memory(error, sizeof *pool);
        return NULL;
    }
    memset(pool, 0, sizeof *pool);
    pool->options = *options;
    atomic_store(&pool->over, true);
    int wanted = options->threads > 0 ? options->threads : aq_cpu_count();
    start_threads(pool, AQ_MIN(wanted, MOST_THREADS));
    return pool;
}

void aq_pool_free(AqPool *pool)
{
    if (!pool)
        return;
    atomic_store(&pool->ending, true);
    ring(&pool->jobs, true);
    for (int i = 1; i < pool->threads; i++)
        pthread_join(pool->ids[i], NULL);
    free(pool);
}

int aq_pool_threads(const AqPool *pool)
{
    return pool->threads;
}

/* Helpers have only the end of a loop to run. */
static void wait_until_left(AqPool *pool)
{
    unsigned long long began = __rdtsc();
    while (atomic_load(&pool->inside) > 0)
        if (__rdtsc() - began < SPIN_CYCLES)
            _mm_pause();
        else
            sched_yield();
}

/* The caller is worker 0. */
static bool run_job(AqPool *pool, Job job)
{
    if (job.stop && __atomic_load_n(job.stop, __ATOMIC_RELAXED))
        return false;
    int first = skip_empty(&job, 0);
    if (first == job.count)
        return true;
    assert(job.count <= 1 << GROUP_BITS);
    pool->job = job;
    pool->stopped = false;
    pool->before = job.seconds ? aq_seconds() : 0;
    for (int i = 0; i < pool->threads; i++)
        atomic_store(&pool->cursors[i].word, 0);
    atomic_store(&pool->open, 0);
    open_group(pool, first);
    unsigned kept = _mm_getcsr();
    _mm_setcsr(kept | FLUSH_DENORMALS);
    atomic_store(&pool->over, false);
    ring(&pool->jobs, true);
    work(pool, 0);
    wait_until_left(pool);
    _mm_setcsr(kept);
    return !pool->stopped;
}

bool aq_pool_run(AqPool *pool, const AqLaunch *launches, int count,
                 void *const *scratch, const volatile int *stop)
{
    return run_job(pool, (Job){.launches = launches,
                               .count = count,
                               .scratch = scratch,
                               .stop = stop});
}

void aq_pool_run_timed(AqPool *pool, const AqLaunch *launches, int count,
                       void *const *scratch, double *seconds)
{
    run_job(pool, (Job){.launches = launches,
                        .count = count,
                        .scratch = scratch,
                        .seconds = seconds});
}
