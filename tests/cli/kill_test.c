/* Training that is killed at random times, again and again: it always goes on
 * from a whole checkpoint, and ends with the bits of a run never killed. */
#include "tests/cli/program.h"

#include <setjmp.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { KILLS = 60, STEPS = 4000 };

#define TRAIN                                                                  \
    "train mlp2d --set width=16 --set blocks=1 --data points:moons --batch 8 " \
    "--samples 0 --log-every 1 --save-every 3 "

static uint64_t seed = 20;

static double random_unit(void)
{
    seed = seed * 6364136223846793005u + 1442695040888963407u;
    return (double)(seed >> 11) * 0x1p-53;
}

/* The step of the newest checkpoint, which must be whole; -1: none yet. */
static int newest(void)
{
    aq_expect(0, "checkpoint  ", "info killed");
    if (strstr(aq_printed(), "none yet"))
        return -1;
    const char *at = strstr(aq_printed(), ": step ");
    assert_non_null(at);
    return atoi(at + strlen(": step "));
}

static void test_killed_at_random_times(void **state)
{
    (void)state;
    int before = -1, moved = 0, kills = 0;
    aq_shell("aquatint " TRAIN "--steps 1 --out killed");
    for (; kills < KILLS && before < STEPS; kills++) {
        aq_shell("%s train --resume killed --steps %d & pid=$!; sleep %.3f; "
                 "kill -9 $pid; wait $pid; true",
                 AQ_PROGRAM, STEPS, 0.1 + 0.5 * random_unit());
        int now = newest();
        assert_true(now >= before); /* nothing that was saved is lost */
        moved += now > before;
        before = now;
    }
    assert_true(moved > 5);
    print_message("%d kills, step %d\n", kills, before);
    int end = before + 10;
    aq_expect(0, NULL, "train --resume killed --steps %d", end);
    aq_expect(0, NULL, TRAIN "--steps %d --out whole", end);
    const char *const files[] = {"weights", "ema", "optimizer"};
    for (int i = 0; i < AQ_COUNT(files); i++) {
        char a[100], b[100];
        snprintf(a, sizeof a, "killed/checkpoints/%06d/%s.safetensors", end,
                 files[i]);
        snprintf(b, sizeof b, "whole/checkpoints/%06d/%s.safetensors", end,
                 files[i]);
        assert_true(aq_same_files(a, b));
    }
    /* every step has one row, in order, and no half of a checkpoint is left */
    assert_int_equal(
        aq_shell("cut -d, -f1 killed/metrics.csv | tail -n +2 >rows; seq %d | "
                 "cmp - rows && test $(ls -A killed/checkpoints | wc -l) = 2",
                 end),
        0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_killed_at_random_times),
    };
    return cmocka_run_group_tests_name("kill", tests, aq_program_setup,
                                       aq_program_teardown);
}
