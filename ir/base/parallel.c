/* Threads for work in independent pieces, and what the machine offers. */
#include "ir/base/base.h"

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <time.h>
#include <unistd.h>

enum { MOST_THREADS = 64 };

typedef struct Job {
    atomic_int next;
    int count;
    void (*work)(void *context, int index);
    void *context;
} Job;

static void *run(void *argument)
{
    Job *job = argument;
    for (;;) {
        int index = atomic_fetch_add(&job->next, 1);
        if (index >= job->count)
            return NULL;
        job->work(job->context, index);
    }
}

void aq_parallel(int threads, int count, void (*work)(void *context, int index),
                 void *context)
{
    Job job = {.count = count, .work = work, .context = context};
    pthread_t helpers[MOST_THREADS];
    int wanted = AQ_MIN(AQ_MIN(threads, count), MOST_THREADS) - 1, started = 0;
    while (started < wanted &&
           !pthread_create(&helpers[started], NULL, run, &job))
        started++; /* with fewer threads the work is the same, only later */
    run(&job);
    for (int i = 0; i < started; i++)
        pthread_join(helpers[i], NULL);
}

/* The processors that a cgroup's quota allows, rounded up; 0 if unlimited. */
static int cgroup_limit(void)
{
    FILE *file = fopen("/sys/fs/cgroup/cpu.max", "r");
    if (!file)
        return 0;
    long quota = 0, period = 0;
    int fields = fscanf(file, "%ld %ld", &quota, &period);
    fclose(file);
    return fields == 2 && period > 0 ? (int)((quota + period - 1) / period) : 0;
}

int aq_cpu_count(void)
{
    cpu_set_t set;
    int count = sched_getaffinity(0, sizeof set, &set) == 0
                    ? CPU_COUNT(&set)
                    : (int)sysconf(_SC_NPROCESSORS_ONLN);
    int limit = cgroup_limit();
    if (limit > 0)
        count = AQ_MIN(count, limit);
    return AQ_MAX(count, 1);
}

double aq_seconds(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}
