/* Launches side by side: whatever depends on what, and however a pool runs the
 * groups, memory ends as if they had run one after the other. */
#include "runtime/runtime.h"

#include <setjmp.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "tests/support/bench.h"

enum { CELLS = 300, LAUNCHES = 80, SOURCES = 3 };

/* Ranges of cells. */
typedef struct Work {
    uint32_t number;
    int read[SOURCES], reads[SOURCES];
    int write, tasks;
} Work;

typedef struct Case {
    uint32_t cells[CELLS];
    void *buffers[1];
    Work work[LAUNCHES];
    AqLaunch launches[LAUNCHES], out[LAUNCHES];
    AqTouch touch[LAUNCHES][SOURCES + 1];
    AqTouches touches[LAUNCHES];
    int fence;
} Case;

/* A task's cell becomes a number that depends on all that is read. */
static void mix(const void *closure, void *const *buffers, int64_t first,
                int64_t last, void *scratch)
{
    const Work *w = closure;
    uint32_t *cells = buffers[0];
    (void)scratch;
    for (int64_t t = first; t < last; t++) {
        uint32_t sum = w->number * 2654435761u + (uint32_t)t;
        for (int s = 0; s < SOURCES; s++)
            for (int i = 0; i < w->reads[s]; i++)
                sum = sum * 31 + cells[w->read[s] + i];
        cells[w->write + t] += sum;
    }
}

static AqTouch touch_of(const Case *c, int first, int count, bool written)
{
    return (AqTouch){(const char *)(c->cells + first),
                     count * (int64_t)sizeof(uint32_t), written};
}

static bool meet(int a, int n, int b, int m)
{
    return a < b + m && b < a + n;
}

static void set_work(Case *c, int number, uint64_t *seed)
{
    Work *w = &c->work[number];
    bool single = aq_test_below(seed, 3) > 0;
    *w = (Work){.number = (uint32_t)number,
                .tasks = single ? 1 : (int)aq_test_below(seed, 20)};
    w->write = (int)aq_test_below(seed, CELLS - 20);
    for (int s = 0; s < SOURCES; s++) {
        w->reads[s] = (int)aq_test_below(seed, 6);
        w->read[s] = (int)aq_test_below(seed, CELLS - 6);
        if (meet(w->read[s], w->reads[s], w->write, w->tasks))
            w->reads[s] = 0; /* a task's result would hang on another's */
        c->touch[number][s] = touch_of(c, w->read[s], w->reads[s], false);
    }
    c->touch[number][SOURCES] = touch_of(c, w->write, w->tasks, true);
    c->touches[number] = (AqTouches){c->touch[number], SOURCES + 1};
    c->launches[number] =
        (AqLaunch){.stage = {mix, w, w->tasks}, .buffers = c->buffers};
}

static Case *new_case(uint64_t seed, int fence)
{
    Case *c = calloc(1, sizeof *c);
    AqError error = {0};
    c->buffers[0] = c->cells;
    c->fence = fence;
    for (int i = 0; i < LAUNCHES; i++)
        set_work(c, i, &seed);
    assert_int_equal(aq_schedule(c->launches, c->touches, LAUNCHES, &c->fence,
                                 c->out, &error),
                     AQ_OK);
    return c;
}

static int number_of(const AqLaunch *launch)
{
    return (int)((const Work *)launch->stage.closure)->number;
}

/* ---- the order ---- */

/* Where each launch went: its group, its chain, its place. */
typedef struct Where {
    int group, chain, place;
} Where;

static int find_places(const Case *c, Where *where)
{
    int groups = 0;
    for (int at = 0; at < LAUNCHES; at += c->out[at].group, groups++) {
        assert_in_range(c->out[at].group, 1, LAUNCHES - at);
        int end = at + c->out[at].group;
        for (int i = at; i < end; i += c->out[i].chain) {
            assert_in_range(c->out[i].chain, 1, end - i);
            for (int k = 0; k < c->out[i].chain; k++) {
                if (c->out[i].chain > 1)
                    assert_int_equal(c->out[i + k].stage.tasks, 1);
                where[number_of(&c->out[i + k])] = (Where){groups, i, i + k};
            }
        }
    }
    return groups;
}

static bool dependent(const Case *c, int a, int b)
{
    for (int i = 0; i <= SOURCES; i++)
        for (int j = 0; j <= SOURCES; j++) {
            const AqTouch *x = &c->touch[a][i], *y = &c->touch[b][j];
            if ((x->written || y->written) && x->begin < y->begin + y->bytes &&
                y->begin < x->begin + x->bytes)
                return true;
        }
    return false;
}

static void test_what_depends_stays_behind(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 60; seed++) {
        int fence = (int)(seed % 3 ? seed : INT32_MAX);
        Case *c = new_case(seed, fence);
        Where where[LAUNCHES];
        int groups = find_places(c, where);
        assert_true(groups < LAUNCHES * 3 / 4);
        for (int j = 0; j < LAUNCHES; j++)
            for (int i = 0; i < j; i++) {
                bool chained = where[i].chain == where[j].chain &&
                               where[i].place < where[j].place;
                if (dependent(c, i, j))
                    assert_true(where[i].group < where[j].group || chained);
            }
        for (int i = 0; i < LAUNCHES && fence < LAUNCHES; i++)
            assert_true((where[i].place >= c->fence) == (i >= fence));
        if (fence >= LAUNCHES)
            assert_true(c->fence >= LAUNCHES);
        free(c);
    }
}

/* What has nothing in common is one group; those of one task begin. */
static void test_all_that_is_free_is_one_group(void **state)
{
    (void)state;
    Case *c = calloc(1, sizeof *c);
    AqError error = {0};
    c->fence = LAUNCHES;
    for (int i = 0; i < 5; i++) {
        c->work[i] = (Work){.number = (uint32_t)i, .write = 10 * i};
        c->launches[i] = (AqLaunch){.stage = {mix, &c->work[i], 9 - 2 * i}};
        c->touch[i][0] = touch_of(c, 10 * i, 10, true);
        c->touch[i][1] = touch_of(c, 290, 10, false);
        c->touches[i] = (AqTouches){c->touch[i], 2};
    }
    assert_int_equal(
        aq_schedule(c->launches, c->touches, 5, &c->fence, c->out, &error),
        AQ_OK);
    assert_int_equal(c->out[0].group, 5);
    for (int i = 0; i < 5; i++)
        assert_int_equal(number_of(&c->out[i]), 4 - i);
    free(c);
}

static void test_nothing_is_nothing(void **state)
{
    (void)state;
    AqError error = {0};
    int fence = INT32_MAX;
    assert_int_equal(aq_schedule(NULL, NULL, 0, &fence, NULL, &error), AQ_OK);
    assert_int_equal(fence, INT32_MAX);
}

/* ---- running ---- */

static void run(Case *c, AqPoolOptions options)
{
    AqError error = {0};
    AqPool *pool = aq_pool_new(&options, &error);
    assert_non_null(pool);
    for (int i = 0; i < CELLS; i++)
        c->cells[i] = (uint32_t)i;
    for (int run = 0; run < 5; run++)
        assert_true(aq_pool_run(pool, c->out, LAUNCHES, NULL, NULL));
    aq_pool_free(pool);
}

static void test_memory_ends_as_one_after_the_other(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 12; seed++) {
        Case *c = new_case(seed, INT32_MAX);
        uint32_t right[CELLS];
        for (int i = 0; i < CELLS; i++)
            c->cells[i] = (uint32_t)i;
        for (int run = 0; run < 5; run++)
            for (int i = 0; i < LAUNCHES; i++)
                mix(&c->work[i], c->buffers, 0, c->work[i].tasks, NULL);
        memcpy(right, c->cells, sizeof right);
        for (int how = 0; how < 10; how++) {
            run(c, (AqPoolOptions){.threads = 1 + how % 5,
                                   .reversed = how & 1,
                                   .delays = how == 7 ? 9 : 0});
            assert_memory_equal(c->cells, right, sizeof right);
        }
        free(c);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_what_depends_stays_behind),
        cmocka_unit_test(test_all_that_is_free_is_one_group),
        cmocka_unit_test(test_nothing_is_nothing),
        cmocka_unit_test(test_memory_ends_as_one_after_the_other),
    };
    return cmocka_run_group_tests_name("schedule", tests, NULL, NULL);
}
