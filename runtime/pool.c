/* Threads that run the stages of kernels together.
 *
 * Tasks are taken in small ranges from a counter of the launch, so a slow
 * thread gets fewer; which thread runs a task changes nothing.  A barrier
 * spins for a moment, because launches are short, and then sleeps on a futex,
 * because the machine may be shared. */
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
    SPINS = 4000,             /* some 50 microseconds */
    RANGES_PER_THREAD = 4,    /* a launch is dealt out in about so many */
    FLUSH_DENORMALS = 0x8040, /* FTZ and DAZ of MXCSR */
};

typedef struct Barrier {
    atomic_int arrived;
    atomic_int round;
    atomic_int sleepers;
} Barrier;

typedef struct Job {
    const AqLaunch *launches;
    int count;
    void *const *scratch;
    const volatile int *stop;
    double *seconds;
} Job;

struct AqPool {
    AqPoolOptions options;
    int threads;
    pthread_t ids[MOST_THREADS];
    Job job;
    atomic_int sequence; /* of jobs; workers sleep on it */
    atomic_bool ending;
    Barrier barrier;
    _Alignas(64) atomic_llong next; /* task of the launch that runs */
    _Alignas(64) atomic_int stopped;
    atomic_int busy; /* helpers that have not left the job */
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

/* Waits until *word is no longer `value`. */
static void wait_for_change(atomic_int *word, int value, atomic_int *sleepers)
{
    for (int i = 0; i < SPINS; i++) {
        if (atomic_load_explicit(word, memory_order_acquire) != value)
            return;
        _mm_pause();
    }
    atomic_fetch_add(sleepers, 1);
    while (atomic_load(word) == value)
        futex_wait(word, value);
    atomic_fetch_sub(sleepers, 1);
}

/* The last to arrive runs `between` before anybody goes on. */
static void barrier(AqPool *pool, void (*between)(AqPool *))
{
    Barrier *b = &pool->barrier;
    int round = atomic_load(&b->round);
    if (atomic_fetch_add(&b->arrived, 1) + 1 < pool->threads) {
        wait_for_change(&b->round, round, &b->sleepers);
        return;
    }
    between(pool);
    atomic_store(&b->arrived, 0);
    atomic_fetch_add(&b->round, 1);
    if (atomic_load(&b->sleepers) > 0)
        futex_wake(&b->round);
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

static void run_launch(AqPool *pool, const AqLaunch *launch, int worker)
{
    void *scratch = pool->job.scratch ? pool->job.scratch[worker] : NULL;
    int64_t tasks = launch->stage.tasks;
    int64_t range = tasks / ((int64_t)pool->threads * RANGES_PER_THREAD);
    range = pool->threads == 1 ? tasks : AQ_MAX(range, 1);
    for (;;) {
        int64_t first = atomic_fetch_add(&pool->next, range);
        if (first >= tasks)
            return;
        if (launch->chain > 1)
            run_chain(pool, launch, scratch);
        else
            run_range(pool, launch, first, AQ_MIN(first + range, tasks),
                      scratch);
    }
}

/* Between a launch and the next, while all others wait. */
static void advance(AqPool *pool)
{
    atomic_store(&pool->next, 0);
    if (pool->job.stop && __atomic_load_n(pool->job.stop, __ATOMIC_RELAXED))
        atomic_store(&pool->stopped, 1);
}

static void work(AqPool *pool, int worker)
{
    const Job *job = &pool->job;
    double before = job->seconds && worker == 0 ? aq_seconds() : 0;
    for (int i = 0; i < job->count; i += AQ_MAX(job->launches[i].chain, 1)) {
        run_launch(pool, &job->launches[i], worker);
        barrier(pool, advance);
        if (job->seconds && worker == 0) {
            double now = aq_seconds();
            job->seconds[i] += now - before;
            before = now;
        }
        if (atomic_load_explicit(&pool->stopped, memory_order_relaxed))
            return;
    }
}

static void *serve(void *argument)
{
    Worker worker = *(Worker *)argument;
    free(argument);
    AqPool *pool = worker.pool;
    atomic_int none = 0;
    _mm_setcsr(_mm_getcsr() | FLUSH_DENORMALS);
    for (int seen = 0;; seen++) {
        wait_for_change(&pool->sequence, seen, &none);
        if (atomic_load(&pool->ending))
            return NULL;
        work(pool, worker.index);
        atomic_fetch_sub(&pool->busy, 1);
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
    int wanted = options->threads > 0 ? options->threads : aq_cpu_count();
    start_threads(pool, AQ_MIN(wanted, MOST_THREADS));
    return pool;
}

void aq_pool_free(AqPool *pool)
{
    if (!pool)
        return;
    atomic_store(&pool->ending, true);
    atomic_fetch_add(&pool->sequence, 1);
    futex_wake(&pool->sequence);
    for (int i = 1; i < pool->threads; i++)
        pthread_join(pool->ids[i], NULL);
    free(pool);
}

int aq_pool_threads(const AqPool *pool)
{
    return pool->threads;
}

/* The caller is worker 0. */
static bool run_job(AqPool *pool, Job job)
{
    if (job.stop && __atomic_load_n(job.stop, __ATOMIC_RELAXED))
        return false;
    if (job.count == 0)
        return true;
    pool->job = job;
    atomic_store(&pool->stopped, 0);
    atomic_store(&pool->next, 0);
    atomic_store(&pool->busy, pool->threads - 1);
    unsigned kept = _mm_getcsr();
    _mm_setcsr(kept | FLUSH_DENORMALS);
    atomic_fetch_add(&pool->sequence, 1);
    futex_wake(&pool->sequence);
    work(pool, 0);
    for (int i = 0; atomic_load(&pool->busy) > 0; i++)
        if (i < SPINS) /* they have only the end of a loop to run */
            _mm_pause();
        else
            sched_yield();
    _mm_setcsr(kept);
    return !atomic_load(&pool->stopped);
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
