/* Places of blocks: what is alive at one time does not meet, and what is near
 * in time shares no place where that costs nothing. */
#include "passes/plan.h"

#include <setjmp.h>

#include <cmocka.h>

enum { STEPS = 12 };

/* What the arena takes. */
static int64_t place(AqBlock *blocks, int count)
{
    AqError error = {0};
    AqArena *scratch = aq_arena_new();
    AqPlan plan = {.n_steps = STEPS};
    aq_place_blocks(blocks, count, &plan, scratch, &error);
    assert_int_equal(error.status, AQ_OK);
    aq_arena_free(scratch);
    assert_true(plan.arena_bytes >= plan.live_bytes);
    return plan.arena_bytes;
}

static AqBlock block(int64_t bytes, int first, int last)
{
    return (AqBlock){
        .bytes = bytes, .first = first, .last = last, .concat = -1};
}

static bool apart(const AqBlock *a, const AqBlock *b)
{
    return a->offset + a->bytes <= b->offset ||
           b->offset + b->bytes <= a->offset;
}

static void test_neighbours_lie_apart_where_there_is_room(void **state)
{
    (void)state;
    AqBlock blocks[] = {block(128, 0, 1), block(128, 2, 3), block(128, 4, 5),
                        block(4096, 9, 10)};
    assert_int_equal(place(blocks, 4), 4096);
    assert_true(apart(&blocks[0], &blocks[1]));
    assert_true(apart(&blocks[1], &blocks[2]));
}

/* The second takes the first one's place: two would be more than the bound. */
static void test_they_share_a_place_where_there_is_none(void **state)
{
    (void)state;
    AqBlock blocks[] = {block(128, 0, 1), block(128, 2, 3), block(128, 4, 5)};
    assert_int_equal(place(blocks, 3), 128);
}

static void test_what_is_alive_at_one_time_lies_apart(void **state)
{
    (void)state;
    AqBlock blocks[] = {block(256, 0, 4), block(128, 3, 6), block(64, 4, 12),
                        block(256, 7, 9)};
    assert_int_equal(place(blocks, 4), 448);
    for (int i = 0; i < 4; i++)
        for (int j = 0; j < i; j++)
            if (blocks[i].first <= blocks[j].last &&
                blocks[j].first <= blocks[i].last)
                assert_true(apart(&blocks[i], &blocks[j]));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_neighbours_lie_apart_where_there_is_room),
        cmocka_unit_test(test_they_share_a_place_where_there_is_none),
        cmocka_unit_test(test_what_is_alive_at_one_time_lies_apart),
    };
    return cmocka_run_group_tests_name("plan_place", tests, NULL, NULL);
}
