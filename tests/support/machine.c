#include "tests/support/machine.h"

#include <setjmp.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "tests/support/bench.h"
#include "tests/support/programs.h"

AqMachine aq_machine_with(const AqGraph *g, AqPoolOptions options,
                          const AqProgramSettings *settings)
{
    AqMachine m = {.program = NULL};
    m.pool = aq_pool_new(&options, &m.error);
    m.memory = aq_test_memory();
    assert_non_null(m.pool);
    m.program = aq_compiled_new(g, m.memory, m.pool, settings, &m.error);
    if (!m.program && !settings->memory_limit)
        fail_msg("%s", m.error.text);
    return m;
}

AqMachine aq_machine_new(const AqGraph *g, AqPoolOptions options, int64_t limit)
{
    AqProgramSettings settings = aq_test_settings();
    settings.memory_limit = limit;
    return aq_machine_with(g, options, &settings);
}

void aq_machine_free(AqMachine *m)
{
    aq_compiled_free(m->program);
    aq_memory_free(m->memory);
    aq_pool_free(m->pool);
}

static AqElement element_of(const AqGraph *g, const char *name)
{
    for (AqId id = 0; id < g->count; id++) {
        const AqNode *node = aq_node(g, id);
        if (aq_op_info[node->op].facts & AQ_SOURCE &&
            !strcmp(aq_attr_text(node, AQ_KEY_NAME, ""), name))
            return node->type.element;
    }
    return AQ_F32;
}

/* The same values for the same names, whatever the order of the bases. */
static float value_of(const char *name, int64_t i)
{
    uint64_t seed = aq_hash64(name, strlen(name)) + (uint64_t)i * 7919;
    double normal = aq_test_normal(&seed);
    if (!strcmp(name, "v"))
        return (float)(normal * normal);
    return (float)(strcmp(name, "weights") ? normal : 0.1 * normal);
}

void aq_machine_fill_array(void *data, const AqBase *base, const AqGraph *g)
{
    AqElement element = element_of(g, base->name);
    uint64_t seed = aq_hash64(base->name, strlen(base->name));
    for (int64_t i = 0; i < base->bytes / 4; i++)
        if (element == AQ_I32)
            ((int32_t *)data)[i] = (int32_t)aq_test_below(&seed, 10);
        else
            ((float *)data)[i] = value_of(base->name, i);
}

void aq_machine_fill(const AqMachine *m, const AqGraph *g)
{
    const AqPlan *plan = aq_compiled_plan(m->program);
    for (int b = 1; b < plan->n_bases; b++)
        aq_machine_fill_array(
            aq_memory_find(m->memory, plan->bases[b].name, NULL),
            &plan->bases[b], g);
}

AqText aq_machine_left(const AqMachine *m)
{
    AqText text = {0};
    const AqPlan *plan = aq_compiled_plan(m->program);
    for (int i = 0; i < plan->n_outputs; i++)
        aq_text_bytes(&text,
                      aq_compiled_output(m->program, plan->outputs[i].name),
                      (size_t)aq_bytes(&plan->outputs[i].type));
    for (int b = 1; b < plan->n_bases; b++)
        if (plan->bases[b].written)
            aq_text_bytes(&text,
                          aq_memory_find(m->memory, plan->bases[b].name, NULL),
                          (size_t)plan->bases[b].bytes);
    assert_false(text.failed);
    return text;
}

static AqText three_steps(AqMachine m, const AqGraph *g)
{
    if (!m.program)
        fail_msg("%s", m.error.text);
    aq_machine_fill(&m, g);
    for (int i = 0; i < 3; i++)
        assert_true(aq_compiled_run(m.program, NULL));
    AqText left = aq_machine_left(&m);
    aq_machine_free(&m);
    return left;
}

AqText aq_machine_three_steps(const AqGraph *g, AqPoolOptions options,
                              int64_t limit)
{
    return three_steps(aq_machine_new(g, options, limit), g);
}

AqText aq_machine_three_with(const AqGraph *g, AqPoolOptions options,
                             const AqProgramSettings *settings)
{
    return three_steps(aq_machine_with(g, options, settings), g);
}

void aq_check_same_left(const AqText *a, const AqText *b)
{
    assert_int_equal(a->length, b->length);
    assert_memory_equal(a->data, b->data, a->length);
}
