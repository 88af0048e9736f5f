/* Threads that run the stages of kernels together.
 *
 * Tasks are claimed from a cursor of the launch that runs, in ranges that get
 * smaller towards its end, so that threads finish together; which thread runs
 * a task changes nothing.  Whoever finishes the last task of a launch opens the
 * next one: nobody waits for a thread that holds no task, so one that the
 * system has taken off its processor delays the others by what it had claimed
 * and no more.  Waiting is spinning for a moment, because launches are short,
 * and then sleeping on a futex, because the machine may be shared. */
#include "runtime/runtime.h"

#include <errno.h>
#include <immintrin.h>
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
    SPIN_CYCLES = 200000,     /* some 50 to 100 microseconds */
    TASK_BITS = 40,           /* of the cursor; above them the launch */
    RANGES_PER_THREAD = 4,    /* in what is left of a launch */
    FLUSH_DENORMALS = 0x8040, /* FTZ and DAZ of MXCSR */
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

struct AqPool {
    AqPoolOptions options;
    int threads;
    pthread_t ids[MOST_THREADS];
    Job job;       /* written while nobody is inside */
    double before; /* when the launch that runs was opened */
    bool stopped;
    atomic_bool ending;
    Bell jobs;     /* rings for each job */
    Bell launches; /* and for each launch */
    /* launch << TASK_BITS | next task; a launch of job.count: all is done */
    _Alignas(64) atomic_ullong cursor;
    _Alignas(64) atomic_llong done; /* tasks of the launch that runs */
    _Alignas(64) atomic_bool over;  /* no helper may enter the job */
    atomic_int inside;              /* helpers that may read it */
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

static void run_range(AqPool *pool, const AqLaunch *launch, int64_t first,
                      int64_t last, void *scratch)
{
    if (pool->options.delays)
        pause_at_random(pool, first);
    const AqStage *stage = &launch->stage;
    if (!pool->options.reversed) {
        stage->run(stage->closure, launch->buffers, first, last, scratch);
        return;
    }
    int64_t end = stage->tasks;
    for (int64_t task = first; task < last; task++)
        stage->run(stage->closure, launch->buffers, end - 1 - task, end - task,
                   scratch);
}

static void run_chain(AqPool *pool, const AqLaunch *launch, void *scratch)
{
    for (int i = 0; i < launch->chain; i++)
        run_range(pool, &launch[i], 0, launch[i].stage.tasks, scratch);
}

/* Tasks first .. last - 1 of launch `at`, to be run by the caller. */
typedef struct Claim {
    int at;
    int64_t first, last;
} Claim;

static int launch_of(unsigned long long cursor)
{
    return (int)(cursor >> TASK_BITS);
}

static int64_t task_of(unsigned long long cursor)
{
    return (int64_t)(cursor & ((1ull << TASK_BITS) - 1));
}

/* False: nothing is left to claim, of launch claim->at or of the whole job. */
static bool claim_tasks(AqPool *pool, Claim *claim)
{
    const Job *job = &pool->job;
    unsigned long long cursor = atomic_load(&pool->cursor);
    claim->at = launch_of(cursor);
    if (claim->at >= job->count)
        return false;
    int64_t tasks = job->launches[claim->at].stage.tasks;
    if (task_of(cursor) >= tasks)
        return false;
    int64_t left = tasks - task_of(cursor);
    int64_t range = left / ((int64_t)pool->threads * RANGES_PER_THREAD);
    range = pool->threads == 1 ? tasks : AQ_MAX(range, 1);
    /* it may be another launch's by now: a range of any size will do */
    cursor = atomic_fetch_add(&pool->cursor, (unsigned long long)range);
    claim->at = launch_of(cursor);
    if (claim->at >= job->count)
        return false;
    tasks = job->launches[claim->at].stage.tasks;
    claim->first = task_of(cursor);
    claim->last = AQ_MIN(claim->first + range, tasks);
    return claim->first < tasks;
}

/* The first launch from `at` on that has a task. */
static int skip_empty(const Job *job, int at)
{
    while (at < job->count && job->launches[at].stage.tasks == 0)
        at++;
    return at;
}

/* By whoever finished launch `at`, while nobody holds a task. */
static void open_next(AqPool *pool, int at)
{
    const Job *job = &pool->job;
    if (job->seconds) {
        double now = aq_seconds();
        job->seconds[at] += now - pool->before;
        pool->before = now;
    }
    int next = skip_empty(job, at + AQ_MAX(job->launches[at].chain, 1));
    if (job->stop && __atomic_load_n(job->stop, __ATOMIC_RELAXED)) {
        pool->stopped = true;
        next = job->count;
    }
    atomic_store(&pool->done, 0);
    if (next == job->count)
        atomic_store(&pool->over, true);
    atomic_store(&pool->cursor, (unsigned long long)next << TASK_BITS);
    ring(&pool->launches,
         next == job->count || job->launches[next].stage.tasks > 1);
}

static void work(AqPool *pool, int worker)
{
    const Job *job = &pool->job;
    void *scratch = job->scratch ? job->scratch[worker] : NULL;
    for (;;) {
        int round = atomic_load(&pool->launches.word);
        Claim claim;
        if (!claim_tasks(pool, &claim)) {
            if (claim.at >= job->count)
                return;
            wait_for(&pool->launches, round);
            continue;
        }
        const AqLaunch *launch = &job->launches[claim.at];
        if (launch->chain > 1)
            run_chain(pool, launch, scratch);
        else
            run_range(pool, launch, claim.first, claim.last, scratch);
        int64_t count = claim.last - claim.first;
        if (atomic_fetch_add(&pool->done, count) + count == launch->stage.tasks)
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
    pool->job = job;
    pool->stopped = false;
    pool->before = job.seconds ? aq_seconds() : 0;
    atomic_store(&pool->done, 0);
    atomic_store(&pool->cursor, (unsigned long long)first << TASK_BITS);
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
