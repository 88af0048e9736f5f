/* The pool, driven by hand-written stages: every task once, a barrier between
 * launches, the same bits for any threads, order and delays. */
#include "runtime/runtime.h"

#include <dlfcn.h>
#include <errno.h>
#include <float.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <xmmintrin.h>

#include <cmocka.h>

/* ---- a system that refuses threads, or is slow to start them ---- */

static atomic_int threads_allowed = 1000;
static atomic_bool gate_closed;

typedef struct Start {
    void *(*run)(void *);
    void *argument;
} Start;

static void *start_behind_gate(void *argument)
{
    Start start = *(Start *)argument;
    free(argument);
    while (atomic_load(&gate_closed))
        usleep(100);
    return start.run(start.argument);
}

typedef int CreateFn(pthread_t *, const pthread_attr_t *, void *(*)(void *),
                     void *);

/* Stands before the C library's: the linker lets an executable's win. */
int pthread_create(pthread_t *id, const pthread_attr_t *how,
                   void *(*run)(void *), void *argument)
{
    CreateFn *create;
    *(void **)&create = dlsym(RTLD_NEXT, "pthread_create");
    if (atomic_fetch_sub(&threads_allowed, 1) <= 0)
        return EAGAIN;
    Start *start = malloc(sizeof *start);
    *start = (Start){run, argument};
    return create(id, how, start_behind_gate, start);
}

static AqPool *new_pool(int threads, bool reversed, uint32_t delays)
{
    AqError error = {0};
    AqPoolOptions options = {threads, reversed, delays};
    AqPool *pool = aq_pool_new(&options, &error);
    if (!pool)
        fail_msg("%s", error.text);
    return pool;
}

/* ---- a chain of launches ---- */

enum { TASKS = 501, CHAIN = 12, TILE = 16 };

typedef struct Link {
    int64_t tasks, tasks_before;
    int number;
} Link;

/* Tile t of this launch from four tiles of the one before, wherever they are:
 * wrong if any of them is not yet written.  Buffers: before, now, counts. */
static void mix_tiles(const void *closure, void *const *buffers, int64_t first,
                      int64_t last, void *scratch)
{
    const Link *link = closure;
    const float *before = buffers[0];
    float *now = buffers[1], *sum = scratch;
    for (int64_t t = first; t < last; t++) {
        memset(sum, 0, TILE * sizeof *sum);
        for (int k = 1; k <= 4; k++) {
            int64_t from = (t * 7 + k * 131) % link->tasks_before;
            for (int i = 0; i < TILE; i++)
                sum[i] += before[from * TILE + i] * (0.3f / (float)k);
        }
        for (int i = 0; i < TILE; i++)
            now[t * TILE + i] = sum[i] + 0.1f * (float)(t % 13 + i);
        atomic_fetch_add(&((atomic_int *)buffers[2])[t], 1);
    }
}

typedef struct Chain {
    Link links[CHAIN];
    AqLaunch launches[CHAIN];
    void *buffers[CHAIN][3];
    float *values;      /* (CHAIN + 1, TASKS, TILE) */
    atomic_int *counts; /* (CHAIN, TASKS) */
    void **scratch;
    int threads;
} Chain;

static Chain *new_chain(int threads)
{
    const int64_t tasks[] = {TASKS, 1, 1, 1, 3, TASKS, 1, 1, 64, 2};
    Chain *c = calloc(1, sizeof *c);
    c->values = calloc((CHAIN + 1) * TASKS * TILE, sizeof *c->values);
    c->counts = calloc((size_t)CHAIN * TASKS, sizeof *c->counts);
    c->scratch = calloc((size_t)threads, sizeof *c->scratch);
    c->threads = threads;
    for (int i = 0; i < threads; i++)
        c->scratch[i] = calloc(TILE, sizeof(float));
    for (int i = 0; i < TASKS * TILE; i++)
        c->values[i] = 1 / (float)(i + 1);
    for (int64_t i = 0, before = TASKS; i < CHAIN; i++) {
        c->links[i] = (Link){tasks[i % AQ_COUNT(tasks)], before, (int)i};
        before = c->links[i].tasks;
        c->buffers[i][0] = c->values + i * TASKS * TILE;
        c->buffers[i][1] = c->values + (i + 1) * TASKS * TILE;
        c->buffers[i][2] = c->counts + i * TASKS;
        c->launches[i] = (AqLaunch){.stage = {mix_tiles, &c->links[i], before},
                                    .buffers = c->buffers[i]};
    }
    return c;
}

static void free_chain(Chain *c)
{
    for (int i = 0; i < c->threads; i++)
        free(c->scratch[i]);
    free(c->scratch);
    free(c->counts);
    free(c->values);
    free(c);
}

static void check_counts(const Chain *c, int launches, int runs)
{
    for (int i = 0; i < CHAIN; i++)
        for (int64_t t = 0; t < c->links[i].tasks; t++)
            assert_int_equal(c->counts[i * TASKS + t], i < launches ? runs : 0);
}

static void check_same(const Chain *a, const Chain *b)
{
    assert_memory_equal(a->values, b->values,
                        (CHAIN + 1) * TASKS * TILE * sizeof(float));
}

static Chain *run_chain(int threads, bool reversed, uint32_t delays)
{
    AqPool *pool = new_pool(threads, reversed, delays);
    Chain *c = new_chain(aq_pool_threads(pool));
    assert_true(aq_pool_run(pool, c->launches, CHAIN, c->scratch, NULL));
    check_counts(c, CHAIN, 1);
    aq_pool_free(pool);
    return c;
}

static void test_same_bits_for_any_threads_and_order(void **state)
{
    (void)state;
    const int threads[] = {1, 2, 3, 4, 8, 16};
    Chain *right = run_chain(1, false, 0);
    for (int i = 0; i < AQ_COUNT(threads); i++)
        for (int how = 0; how < 4; how++) {
            Chain *c = run_chain(threads[i], how & 1, how & 2 ? 77 : 0);
            check_same(right, c);
            free_chain(c);
        }
    free_chain(right);
}

/* Launches of one task that stand side by side, without barriers. */
static void mark_chains(Chain *c)
{
    for (int i = 0; i < CHAIN;) {
        int length = 0;
        while (i + length < CHAIN && c->links[i + length].tasks == 1)
            length++;
        c->launches[i].chain = length;
        i += AQ_MAX(length, 1);
    }
}

static void test_chains_give_the_same_bits(void **state)
{
    (void)state;
    Chain *right = run_chain(1, false, 0);
    for (int threads = 1; threads <= 4; threads++)
        for (int how = 0; how < 4; how++) {
            AqPool *pool = new_pool(threads, how & 1, how & 2 ? 31 : 0);
            Chain *c = new_chain(threads);
            mark_chains(c);
            assert_int_equal(c->launches[1].chain, 3);
            assert_true(
                aq_pool_run(pool, c->launches, CHAIN, c->scratch, NULL));
            check_counts(c, CHAIN, 1);
            check_same(right, c);
            free_chain(c);
            aq_pool_free(pool);
        }
    free_chain(right);
}

/* ---- others want the processors too ---- */

/* Helpers that do not get to run at all hold up nothing: this hangs where a
 * launch waits for every thread. */
static void test_nobody_waits_for_idle_threads(void **state)
{
    (void)state;
    Chain *right = run_chain(1, false, 0);
    atomic_store(&gate_closed, true);
    AqPool *pool = new_pool(4, false, 0);
    Chain *c = new_chain(4);
    for (int job = 1; job <= 3; job++)
        assert_true(aq_pool_run(pool, c->launches, CHAIN, c->scratch, NULL));
    atomic_store(&gate_closed, false); /* they come in the middle of a job */
    for (int job = 4; job <= 100; job++)
        assert_true(aq_pool_run(pool, c->launches, CHAIN, c->scratch, NULL));
    check_counts(c, CHAIN, 100);
    check_same(right, c);
    free_chain(c);
    aq_pool_free(pool);
    free_chain(right);
}

static void *rival(void *argument)
{
    const atomic_bool *running = argument;
    while (atomic_load_explicit(running, memory_order_relaxed))
        ;
    return NULL;
}

static double seconds_of_jobs(AqPool *pool, const Chain *c, int jobs)
{
    double began = aq_seconds();
    for (int job = 0; job < jobs; job++)
        assert_true(aq_pool_run(pool, c->launches, CHAIN, c->scratch, NULL));
    return aq_seconds() - began;
}

/* A busy loop on every processor: the work is done all the same, at about half
 * the speed; where launches wait until the system has run every thread, it
 * takes some milliseconds for each of them. */
static void test_rivals_on_every_processor(void **state)
{
    (void)state;
    enum { MOST_RIVALS = 64, JOBS = 200 };
    pthread_t ids[MOST_RIVALS];
    int rivals = AQ_MIN(aq_cpu_count(), MOST_RIVALS);
    atomic_bool running = true;
    Chain *right = run_chain(1, false, 0);
    AqPool *pool = new_pool(0, false, 0);
    Chain *c = new_chain(aq_pool_threads(pool));
    double alone = seconds_of_jobs(pool, c, JOBS);
    for (int i = 0; i < rivals; i++)
        assert_int_equal(pthread_create(&ids[i], NULL, rival, &running), 0);
    double beside = seconds_of_jobs(pool, c, JOBS);
    atomic_store(&running, false);
    for (int i = 0; i < rivals; i++)
        pthread_join(ids[i], NULL);
    check_counts(c, CHAIN, 2 * JOBS);
    check_same(right, c);
    print_message("%d launches: %.1f ms alone, %.1f ms beside %d rivals\n",
                  JOBS * CHAIN, 1e3 * alone, 1e3 * beside, rivals);
    assert_true(beside <= 10 * alone + JOBS * CHAIN * 5e-4);
    free_chain(c);
    aq_pool_free(pool);
    free_chain(right);
}

/* ---- refusals ---- */

static void test_fewer_threads_where_the_system_refuses(void **state)
{
    (void)state;
    Chain *right = run_chain(1, false, 0);
    for (int allowed = 0; allowed < 4; allowed++) {
        atomic_store(&threads_allowed, allowed);
        AqPool *pool = new_pool(4, false, 0);
        atomic_store(&threads_allowed, 1000);
        assert_int_equal(aq_pool_threads(pool), AQ_MIN(allowed + 1, 4));
        Chain *c = new_chain(4);
        assert_true(aq_pool_run(pool, c->launches, CHAIN, c->scratch, NULL));
        check_same(right, c);
        free_chain(c);
        aq_pool_free(pool);
    }
    free_chain(right);
}

static void test_as_many_as_processors(void **state)
{
    (void)state;
    AqPool *pool = new_pool(0, false, 0);
    assert_int_equal(aq_pool_threads(pool), aq_cpu_count());
    aq_pool_free(pool);
    pool = new_pool(100000, false, 0);
    assert_in_range(aq_pool_threads(pool), 1, 256);
    aq_pool_free(pool);
}

/* ---- the stop flag ---- */

typedef struct Stopping {
    volatile int *flag;
    int when;
    atomic_int ran;
} Stopping;

static void count_and_stop(const void *closure, void *const *buffers,
                           int64_t first, int64_t last, void *scratch)
{
    (void)scratch;
    (void)closure;
    Stopping *s = buffers[0];
    int number = *(const int *)buffers[1];
    atomic_fetch_add(&s->ran, (int)(last - first));
    if (number == s->when)
        __atomic_store_n(s->flag, 1, __ATOMIC_RELAXED);
}

/* Launches have 10 tasks; `when` is the one in which the flag is set. */
static bool run_until(AqPool *pool, int when, int *ran)
{
    enum { LAUNCHES = 5 };
    volatile int flag = when < 0;
    int numbers[LAUNCHES];
    void *buffers[LAUNCHES][2];
    AqLaunch launches[LAUNCHES];
    Stopping s = {.flag = &flag, .when = when};
    for (int i = 0; i < LAUNCHES; i++) {
        numbers[i] = i;
        buffers[i][0] = &s;
        buffers[i][1] = &numbers[i];
        launches[i] = (AqLaunch){.stage = {count_and_stop, NULL, 10},
                                 .buffers = buffers[i]};
    }
    bool whole = aq_pool_run(pool, launches, LAUNCHES, NULL, &flag);
    *ran = s.ran;
    return whole;
}

static void test_stops_between_launches(void **state)
{
    (void)state;
    for (int threads = 1; threads <= 3; threads++) {
        AqPool *pool = new_pool(threads, false, 0);
        for (int when = -1; when < 4; when++) {
            int ran;
            assert_false(run_until(pool, when, &ran));
            assert_int_equal(ran, 10 * (when + 1));
        }
        int ran; /* never set: the next job is not disturbed */
        assert_true(run_until(pool, 99, &ran));
        assert_int_equal(ran, 50);
        aq_pool_free(pool);
    }
}

static void test_nothing_to_run(void **state)
{
    (void)state;
    AqPool *pool = new_pool(2, false, 0);
    AqLaunch empty = {.stage = {count_and_stop, NULL, 0}};
    assert_true(aq_pool_run(pool, NULL, 0, NULL, NULL));
    assert_true(aq_pool_run(pool, &empty, 1, NULL, NULL));
    aq_pool_free(pool);
}

/* ---- scratch and denormals ---- */

typedef struct Own {
    atomic_int users;
    atomic_int *shared, *denormals;
} Own;

static void use_scratch(const void *closure, void *const *buffers,
                        int64_t first, int64_t last, void *scratch)
{
    (void)closure;
    (void)first;
    (void)last;
    atomic_int *shared = buffers[0], *denormals = buffers[1];
    atomic_int *users = scratch;
    if (atomic_fetch_add(users, 1) != 0)
        atomic_fetch_add(shared, 1);
    volatile float small = FLT_MIN, half = 0.5f;
    if (small * half != 0)
        atomic_fetch_add(denormals, 1);
    for (volatile int i = 0; i < 50; i++)
        ;
    atomic_fetch_sub(users, 1);
}

static void test_own_scratch_and_no_denormals(void **state)
{
    (void)state;
    enum { THREADS = 4 };
    AqPool *pool = new_pool(THREADS, false, 5);
    atomic_int users[THREADS] = {0}, shared = 0, denormals = 0;
    void *scratch[THREADS], *buffers[] = {&shared, &denormals};
    for (int i = 0; i < THREADS; i++)
        scratch[i] = &users[i];
    AqLaunch launch = {.stage = {use_scratch, NULL, 500}, .buffers = buffers};
    unsigned before = _mm_getcsr();
    assert_true(aq_pool_run(pool, &launch, 1, scratch, NULL));
    assert_int_equal(shared, 0);
    assert_int_equal(denormals, 0);
    assert_int_equal(_mm_getcsr() & 0xffc0, before & 0xffc0);
    aq_pool_free(pool);
}

/* ---- wake-ups ---- */

/* Many short jobs, with pauses just about as long as a worker spins: a missed
 * wake-up hangs, and the test's time is over. */
static void test_no_wake_up_is_missed(void **state)
{
    (void)state;
    for (int threads = 2; threads <= 5; threads++) {
        AqPool *pool = new_pool(threads, false, 0);
        Chain *c = new_chain(threads);
        for (int job = 1; job <= 300; job++) {
            assert_true(
                aq_pool_run(pool, c->launches, CHAIN, c->scratch, NULL));
            if (job % 3 == 0)
                usleep((useconds_t)(job * 37 % 300));
        }
        check_counts(c, CHAIN, 300);
        free_chain(c);
        aq_pool_free(pool);
    }
}

static void test_pools_come_and_go(void **state)
{
    (void)state;
    for (int i = 0; i < 200; i++) {
        AqPool *pool = new_pool(1 + i % 5, false, 0);
        if (i % 2) {
            int ran;
            assert_true(run_until(pool, 99, &ran));
        }
        aq_pool_free(pool);
    }
    aq_pool_free(NULL);
}

/* ---- times ---- */

static void sleep_a_little(const void *closure, void *const *buffers,
                           int64_t first, int64_t last, void *scratch)
{
    (void)closure;
    (void)buffers;
    (void)scratch;
    usleep((useconds_t)(last - first) * 20000);
}

static void test_seconds_of_each_launch(void **state)
{
    (void)state;
    AqPool *pool = new_pool(2, false, 0);
    AqLaunch launches[] = {{.stage = {sleep_a_little, NULL, 0}},
                           {.stage = {sleep_a_little, NULL, 2}}};
    double seconds[] = {0, 1};
    aq_pool_run_timed(pool, launches, 2, NULL, seconds);
    assert_true(seconds[0] >= 0 && seconds[0] < 1);
    assert_true(seconds[1] >= 1.02); /* added to what was there */
    aq_pool_free(pool);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_same_bits_for_any_threads_and_order),
        cmocka_unit_test(test_chains_give_the_same_bits),
        cmocka_unit_test(test_nobody_waits_for_idle_threads),
        cmocka_unit_test(test_rivals_on_every_processor),
        cmocka_unit_test(test_fewer_threads_where_the_system_refuses),
        cmocka_unit_test(test_as_many_as_processors),
        cmocka_unit_test(test_stops_between_launches),
        cmocka_unit_test(test_nothing_to_run),
        cmocka_unit_test(test_own_scratch_and_no_denormals),
        cmocka_unit_test(test_no_wake_up_is_missed),
        cmocka_unit_test(test_pools_come_and_go),
        cmocka_unit_test(test_seconds_of_each_launch),
    };
    return cmocka_run_group_tests_name("pool", tests, NULL, NULL);
}
