/* Who runs what: the pool gives a thread the same part of every launch. */
#include "runtime/runtime.h"

#include <sched.h>
#include <setjmp.h>
#include <stdatomic.h>

#include <cmocka.h>

enum { THREADS = 3, LAUNCHES = 400 };

/* One task for each thread: nobody goes on before all have begun. */
typedef struct Meeting {
    atomic_int there;
    int by[THREADS]; /* whose scratch the task was given */
} Meeting;

static void meet(const void *closure, void *const *buffers, int64_t first,
                 int64_t last, void *scratch)
{
    (void)closure;
    Meeting *m = buffers[0];
    for (int64_t task = first; task < last; task++)
        m->by[task] = *(const int *)scratch;
    atomic_fetch_add(&m->there, (int)(last - first));
    while (atomic_load(&m->there) < THREADS)
        sched_yield();
}

/* Tasks that take the longer the later they are: the first threads help. */
static void work_a_little(const void *closure, void *const *buffers,
                          int64_t first, int64_t last, void *scratch)
{
    (void)closure;
    (void)scratch;
    for (int64_t task = first; task < last; task++) {
        for (volatile int64_t i = 0; i < task; i++)
            ;
        atomic_fetch_add((atomic_int *)buffers[0], 1);
    }
}

static AqPool *new_pool(int threads)
{
    AqError error = {0};
    AqPoolOptions options = {.threads = threads};
    AqPool *pool = aq_pool_new(&options, &error);
    if (!pool)
        fail_msg("%s", error.text);
    assert_int_equal(aq_pool_threads(pool), threads);
    return pool;
}

/* Rows are found where they were written: the thread that ran a part of one
 * launch runs it of the next, whatever it has helped with in between. */
static void test_the_same_part_of_every_launch(void **state)
{
    (void)state;
    const int64_t tasks[] = {501, 1, 3, 2, 64};
    AqPool *pool = new_pool(THREADS);
    Meeting meetings[LAUNCHES] = {0};
    atomic_int ran[LAUNCHES] = {0};
    void *buffers[LAUNCHES][1], *scratch[THREADS];
    int numbers[THREADS];
    AqLaunch launches[LAUNCHES];
    for (int i = 0; i < LAUNCHES; i++) {
        bool all = i % 3 > 0; /* and two meetings in a row */
        buffers[i][0] = all ? (void *)&meetings[i] : (void *)&ran[i];
        launches[i] = (AqLaunch){.buffers = buffers[i]};
        launches[i].stage.run = all ? meet : work_a_little;
        launches[i].stage.tasks = all ? THREADS : tasks[i % AQ_COUNT(tasks)];
    }
    for (int i = 0; i < THREADS; i++) {
        numbers[i] = i;
        scratch[i] = &numbers[i];
    }
    assert_true(aq_pool_run(pool, launches, LAUNCHES, scratch, NULL));
    for (int i = 0; i < LAUNCHES; i++)
        if (i % 3 == 0)
            assert_int_equal(ran[i], tasks[i % AQ_COUNT(tasks)]);
        else
            for (int task = 0; task < THREADS; task++)
                assert_int_equal(meetings[i].by[task], task);
    aq_pool_free(pool);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_the_same_part_of_every_launch),
    };
    return cmocka_run_group_tests_name("pool_parts", tests, NULL, NULL);
}
