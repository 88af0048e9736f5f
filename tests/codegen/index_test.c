/* Index expressions: whatever the rules make of them, the values stay.  Random
 * sums, quotients and remainders are evaluated beside plain arithmetic. */
#include "codegen/index.h"
#include "tests/support/bench.h"

#include <setjmp.h>

#include <cmocka.h>

enum { VARIABLES = 4, LANES = 8, TRIALS = 3000 };

typedef struct Trial {
    AqIndexTable *t;
    AqIndex variable[VARIABLES];
    int64_t extent[VARIABLES], value[VARIABLES];
    int lane;
    uint64_t seed;
} Trial;

/* What an index is worth at the trial's values. */
static int64_t worth(const Trial *trial, AqIndex index)
{
    const AqIndexTable *t = trial->t;
    const AqSum *sum = &t->sums[index];
    int64_t total = sum->constant;
    for (int i = 0; i < sum->count; i++) {
        const AqAtom *atom = &t->atoms[sum->terms[i].atom];
        int64_t value = 0, inner;
        switch (atom->kind) {
        case AQ_ATOM_LANE:
            value = trial->lane;
            break;
        case AQ_ATOM_VARIABLE:
            value = trial->value[atom->level];
            break;
        case AQ_ATOM_QUOTIENT:
        case AQ_ATOM_REMAINDER:
            inner = worth(trial, atom->inner);
            assert_true(inner >= 0); /* the machine's division needs it */
            value = atom->kind == AQ_ATOM_QUOTIENT ? inner / atom->divisor
                                                   : inner % atom->divisor;
            break;
        case AQ_ATOM_LANEWISE:
            fail_msg("no such atom was made");
        }
        total += sum->terms[i].factor * value;
    }
    return total;
}

typedef struct Pair {
    AqIndex index;
    int64_t value;
} Pair;

static Pair grow(Trial *trial, int depth)
{
    static const int64_t numbers[] = {1, 2, 3, 4, 5, 6, 8, 12, 16, 32};
    int64_t n = numbers[aq_test_below(&trial->seed, AQ_COUNT(numbers))];
    AqIndexTable *t = trial->t;
    int which = (int)aq_test_below(&trial->seed, 6);
    if (depth == 0 || which == 0) {
        int v = (int)aq_test_below(&trial->seed, VARIABLES);
        if (v > 0)
            return (Pair){trial->variable[v], trial->value[v]};
        /* a vector: 8 block + lane */
        AqIndex base = aq_index_scale(t, trial->variable[0], LANES);
        return (Pair){aq_index_vector(t, base, LANES * trial->extent[0]),
                      LANES * trial->value[0] + trial->lane};
    }
    Pair a = grow(trial, depth - 1);
    int64_t q = a.value / n - (a.value % n < 0);
    switch (which) {
    case 1:
        return (Pair){aq_index_scale(t, a.index, n), a.value * n};
    case 2:
        return (Pair){aq_index_div(t, a.index, n), q};
    case 3:
        return (Pair){aq_index_mod(t, a.index, n), a.value - q * n};
    case 4:
        return (Pair){aq_index_add(t, a.index, aq_index_constant(t, n - 4)),
                      a.value + n - 4};
    default: {
        Pair b = grow(trial, depth - 1);
        return (Pair){aq_index_add(t, a.index, b.index), a.value + b.value};
    }
    }
}

static Trial trial_new(AqArena *arena, uint64_t seed)
{
    Trial trial = {.t = aq_index_table(arena, LANES), .seed = seed};
    assert_non_null(trial.t);
    for (int i = 0; i < VARIABLES; i++) {
        static const int64_t extents[] = {1, 2, 3, 4, 7, 8, 16, 24};
        trial.extent[i] =
            extents[aq_test_below(&trial.seed, AQ_COUNT(extents))];
        trial.value[i] = aq_test_below(&trial.seed, trial.extent[i]);
        trial.variable[i] =
            aq_index_variable(trial.t, NULL, 0, trial.extent[i] - 1, i);
    }
    trial.lane = (int)aq_test_below(&trial.seed, LANES);
    return trial;
}

static void test_values_stay(void **state)
{
    (void)state;
    for (uint64_t seed = 0; seed < TRIALS; seed++) {
        AqArena *arena = aq_arena_new();
        Trial trial = trial_new(arena, seed);
        Pair pair = grow(&trial, 5);
        int64_t lo, hi, ours = worth(&trial, pair.index);
        aq_index_range(trial.t, pair.index, &lo, &hi);
        AqText text = {0};
        aq_index_text(trial.t, pair.index, &text);
        if (ours != pair.value || ours < lo || ours > hi)
            fail_msg("seed %llu: %s is %lld in %lld .. %lld, should be %lld",
                     (unsigned long long)seed, text.data, (long long)ours,
                     (long long)lo, (long long)hi, (long long)pair.value);
        aq_text_free(&text);
        aq_arena_free(arena);
    }
}

/* Reshapes there and back leave nothing behind. */
static void test_reshapes_vanish(void **state)
{
    (void)state;
    AqArena *arena = aq_arena_new();
    AqIndexTable *t = aq_index_table(arena, LANES);
    AqType image = F32(2, 6, 5, 24), groups = F32(2, 30, 4, 6);
    AqIndex row = aq_index_variable(t, NULL, 0, 2 * 6 * 5 - 1, 1);
    AqIndex block = aq_index_variable(t, NULL, 0, 2, 2);
    AqIndex c = aq_index_vector(t, aq_index_scale(t, block, LANES), 24);
    AqIndex offset = aq_index_add(t, aq_index_scale(t, row, 24), c);
    AqIndex at[AQ_MAX_RANK], back;
    aq_expr_unravel(t, &groups, offset, at);
    back = at[0];
    for (int i = 1; i < 4; i++)
        back = aq_index_add(t, aq_index_scale(t, back, groups.dim[i]), at[i]);
    assert_int_equal(back, offset);
    aq_expr_unravel(t, &image, offset, at);
    assert_int_equal(at[3], c);
    int64_t stride;
    assert_int_equal(aq_index_form(t, at[2], &stride), AQ_UNIFORM);
    assert_int_equal(aq_index_form(t, back, &stride), AQ_STRIDED);
    assert_int_equal(stride, 1);
    aq_arena_free(arena);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_values_stay),
        cmocka_unit_test(test_reshapes_vanish),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
