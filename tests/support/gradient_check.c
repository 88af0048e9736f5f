/* Central differences along directions. */
#include "tests/support/gradient_check.h"

#include <math.h>
#include <setjmp.h>
#include <string.h>

#include <cmocka.h>

#include "passes/passes.h"
#include "tests/support/bench.h"

enum { DIRECTIONS = 3, COORDINATES = 12 };

typedef struct Check {
    const AqGraph *g;
    AqId loss;
    AqBinding *bindings; /* our copy */
    int n_bindings;
    double *x; /* wrt's data: our copy, moved about */
    int64_t count;
    AqArena *arena;
    AqError error;
} Check;

static double loss_at(Check *c, const double *center, const double *direction,
                      double distance)
{
    AqArena *arena = aq_arena_new();
    AqValue value = {.data = NULL};
    assert_non_null(arena);
    for (int64_t i = 0; i < c->count; i++)
        c->x[i] = center[i] + distance * direction[i];
    AqStatus status = aq_test_evaluate(c->g, &c->loss, 1, c->bindings,
                                       c->n_bindings, &value, arena, &c->error);
    double loss = status == AQ_OK ? value.data[0] : NAN;
    aq_arena_free(arena);
    return loss;
}

static double slope_along(Check *c, const double *center,
                          const double *direction)
{
    const double eps = 1e-6;
    return (loss_at(c, center, direction, eps) -
            loss_at(c, center, direction, -eps)) /
           (2 * eps);
}

/* Binds wrt to data that may be moved; false if it is not bound. */
static bool bind_moving(Check *c, const AqBinding *bindings, const AqNode *wrt)
{
    const char *name = aq_attr_text(wrt, AQ_KEY_NAME, "");
    c->bindings = AQ_NEW_ARRAY(c->arena, AqBinding, c->n_bindings);
    c->x = NULL;
    for (int i = 0; i < c->n_bindings; i++) {
        c->bindings[i] = bindings[i];
        if (strcmp(bindings[i].name, name))
            continue;
        c->x = aq_arena_copy(c->arena, bindings[i].data,
                             (size_t)c->count * sizeof *c->x);
        c->bindings[i].data = c->x;
    }
    return c->x;
}

/* The first directions are random, the others single coordinates. */
static void choose_direction(int round, uint64_t *seed, double *direction,
                             int64_t count)
{
    memset(direction, 0, (size_t)count * sizeof *direction);
    if (round >= DIRECTIONS) {
        direction[aq_test_below(seed, count)] = 1;
        return;
    }
    for (int64_t i = 0; i < count; i++)
        direction[i] = aq_test_normal(seed) / sqrt((double)count);
}

static bool compare(Check *c, const double *gradient, double rtol, double atol,
                    char *message, size_t size)
{
    double *center =
        aq_arena_copy(c->arena, c->x, (size_t)c->count * sizeof *center);
    double *direction = AQ_NEW_ARRAY(c->arena, double, c->count);
    uint64_t seed = 17;
    for (int round = 0; round < DIRECTIONS + COORDINATES; round++) {
        choose_direction(round, &seed, direction, c->count);
        double said = 0, slope = slope_along(c, center, direction);
        for (int64_t i = 0; i < c->count; i++)
            said += direction[i] * gradient[i];
        if (fabs(said - slope) <= atol + rtol * fabs(slope))
            continue;
        snprintf(message, size,
                 "direction %d: the gradient says %.12g, central differences "
                 "%.12g%s%s",
                 round, said, slope, c->error.status ? ": " : "",
                 c->error.text);
        return false;
    }
    return true;
}

bool aq_test_check_slopes(const AqGraph *g, AqId loss, AqId wrt,
                          const double *gradient, const AqBinding *bindings,
                          int n_bindings, double rtol, double atol,
                          char *message, size_t message_size)
{
    const AqNode *node = aq_node(g, wrt);
    Check c = {.g = g,
               .loss = loss,
               .n_bindings = n_bindings,
               .count = aq_elements(&node->type),
               .arena = aq_arena_new()};
    bool same = false;
    assert_non_null(c.arena);
    if (!bind_moving(&c, bindings, node))
        snprintf(message, message_size, "wrt is not bound by its own name");
    else
        same = c.count == 0 ||
               compare(&c, gradient, rtol, atol, message, message_size);
    aq_arena_free(c.arena);
    return same;
}

bool aq_test_check_gradient(AqGraph *g, AqId loss, AqId wrt,
                            const AqBinding *bindings, int n_bindings,
                            double rtol, double atol, char *message,
                            size_t message_size)
{
    AqId gradient;
    if (aq_gradient_nodes(g, loss, &wrt, 1, &gradient) != AQ_OK) {
        snprintf(message, message_size, "%s", g->error.text);
        return false;
    }
    AqArena *arena = aq_arena_new();
    AqError error = {0};
    AqValue value = {.data = NULL};
    bool same = false;
    assert_non_null(arena);
    if (!aq_same_type(&aq_node(g, gradient)->type, &aq_node(g, wrt)->type))
        snprintf(message, message_size, "the gradient has another type");
    else if (aq_test_evaluate(g, &gradient, 1, bindings, n_bindings, &value,
                              arena, &error) != AQ_OK)
        snprintf(message, message_size, "%s", error.text);
    else
        same =
            aq_test_check_slopes(g, loss, wrt, value.data, bindings, n_bindings,
                                 rtol, atol, message, message_size);
    aq_arena_free(arena);
    return same;
}
