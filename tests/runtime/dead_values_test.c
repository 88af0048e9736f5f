/* Nothing is read that is dead: steps run with NaN in every place of the arena
 * that holds nothing which is still wanted leave the same bits. */
#include "runtime/runtime.h"

#include <setjmp.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "tests/support/bench.h"
#include "tests/support/folder.h"
#include "tests/support/machine.h"
#include "tests/support/models.h"
#include "tests/support/programs.h"
#include "tests/support/random_graph.h"

typedef struct Live {
    int64_t offset, bytes;
    int first, last; /* steps */
} Live;

/* `id` is wanted at `step`: so are the results that lie behind it. */
static void want(const AqGraph *g, AqId id, int step, int *last)
{
    const AqNode *node = aq_node(g, id);
    if (node->op == AQ_OP_result)
        last[id] = AQ_MAX(last[id], step);
    else if (node->op == AQ_OP_reshape || node->op == AQ_OP_concat)
        for (int i = 0; i < node->n_inputs; i++)
            want(g, node->inputs[i], step, last);
}

/* What a step copies, until the last step that reads something around it. */
static Live life_of_copy(const AqPlan *plan, int step)
{
    AqBuffer to = plan->buffers[plan->steps[step].first + 1];
    Live life = {to.offset, plan->steps[step].copy_bytes, step, plan->n_steps};
    for (int s = plan->n_steps; s-- > step && life.last == plan->n_steps;) {
        const AqStep *reader = &plan->steps[s];
        const AqNode *node =
            reader->kernel < 0 ? NULL : aq_node(plan->graph, reader->kernel);
        for (int i = 0; node && i < node->n_inputs; i++) {
            AqBuffer at = plan->buffers[reader->first + i];
            int64_t bytes =
                aq_bytes(&aq_node(plan->graph, node->inputs[i])->type);
            if (at.base == 0 && at.offset <= to.offset &&
                to.offset < at.offset + bytes)
                life.last = s;
        }
    }
    return life;
}

/* The results in the arena and the steps from writing to the last reading; a
 * step that copies reads what it copies. */
static Live *list_lives(const AqPlan *plan, int *count)
{
    const AqGraph *g = plan->graph;
    int *last = calloc((size_t)g->count, sizeof *last);
    Live *lives = calloc((size_t)(g->count + plan->n_steps), sizeof *lives);
    for (int s = 0; s < plan->n_steps; s++) {
        AqId kernel = plan->steps[s].kernel;
        for (int i = 0; kernel >= 0 && i < aq_node(g, kernel)->n_inputs; i++)
            want(g, aq_node(g, kernel)->inputs[i], s, last);
    }
    for (int i = 0; i < g->n_outputs; i++)
        want(g, g->outputs[i].node, plan->n_steps, last);
    *count = 0;
    for (int s = 0; s < plan->n_steps; s++) {
        const AqStep *step = &plan->steps[s];
        if (step->kernel < 0 && plan->buffers[step->first + 1].base == 0)
            lives[(*count)++] = life_of_copy(plan, s);
        for (AqId id = 0; step->kernel >= 0 && id < g->count; id++) {
            const AqNode *node = aq_node(g, id);
            if (node->op != AQ_OP_result || node->inputs[0] != step->kernel)
                continue;
            int index = aq_node(g, step->kernel)->n_inputs +
                        (int)aq_attr_int(node, AQ_KEY_INDEX, 0);
            AqBuffer at = plan->buffers[step->first + index];
            if (at.base == 0)
                lives[(*count)++] =
                    (Live){at.offset, aq_bytes(&node->type), s, last[id]};
        }
    }
    free(last);
    return lives;
}

/* NaN everywhere but in what a step before this one wrote and this or a later
 * one reads. */
static void poison(char *arena, int64_t bytes, const Live *lives, int count,
                   int step, char *spare)
{
    memset(spare, 0xff, (size_t)bytes);
    for (int i = 0; i < count; i++)
        if (lives[i].first < step && lives[i].last >= step)
            memcpy(spare + lives[i].offset, arena + lives[i].offset,
                   (size_t)lives[i].bytes);
    memcpy(arena, spare, (size_t)bytes);
}

typedef struct Poisoned {
    AqGraph *g;
    AqPlan *plan;
    AqCode *code;
    char **bases;
    int64_t scratch;
} Poisoned;

/* What aq_compiled_new does, in view. */
static Poisoned build_poisoned(const AqGraph *graph)
{
    AqError error = {0};
    AqTarget target;
    AqCompileOptions options = aq_test_settings().compile;
    AqPassContext cx = {.target = &target, .error = &error};
    aq_target_host(0, &target, &error);
    Poisoned p = {.g = aq_optimize(graph, NULL, &cx)};
    AqNeeds *needs = calloc((size_t)p.g->count, sizeof *needs);
    AqId *kernels = calloc((size_t)p.g->count, sizeof *kernels);
    int count = 0;
    for (AqId id = 0; id < p.g->count; id++) {
        AqKernelLayout layout;
        if (aq_node(p.g, id)->op != AQ_OP_kernel)
            continue;
        aq_kernel_layout(p.g, id, &target, &layout, &error);
        needs[id].workspace = layout.workspace;
        needs[id].kept = layout.kept;
        p.scratch = AQ_MAX(p.scratch, layout.scratch);
        kernels[count++] = id;
    }
    p.plan = aq_plan(p.g, needs, &error);
    p.code = aq_compile(p.g, kernels, count, &target, &options, &error);
    if (error.status)
        fail_msg("%s", error.text);
    p.bases = calloc((size_t)p.plan->n_bases, sizeof *p.bases);
    for (int b = 0; b < p.plan->n_bases; b++)
        p.bases[b] = aq_pages(p.plan->bases[b].bytes, &error);
    free(needs);
    free(kernels);
    return p;
}

static void run_poisoned_step(const Poisoned *p, int index, int *kernel,
                              void *scratch)
{
    const AqStep *step = &p->plan->steps[index];
    void *buffers[64];
    assert_true(step->count <= AQ_COUNT(buffers));
    for (int i = 0; i < step->count; i++) {
        AqBuffer at = p->plan->buffers[step->first + i];
        buffers[i] = p->bases[at.base] + at.offset;
    }
    if (step->kernel == AQ_NO_NODE) {
        memmove(buffers[1], buffers[0], (size_t)step->copy_bytes);
        return;
    }
    int n;
    const AqStage *stages = aq_code_stages(p->code, (*kernel)++, &n);
    for (int k = 0; k < n; k++) {
        memset(scratch, 0xff, (size_t)p->scratch);
        stages[k].run(stages[k].closure, buffers, 0, stages[k].tasks, scratch);
    }
}

static AqText run_poisoned(const AqGraph *graph)
{
    AqError error = {0};
    Poisoned p = build_poisoned(graph);
    const AqPlan *plan = p.plan;
    int n_lives, kernel = 0;
    Live *lives = list_lives(plan, &n_lives);
    char *spare = malloc((size_t)plan->arena_bytes);
    void *scratch = aq_pages(p.scratch, &error);
    for (int b = 1; b < plan->n_bases; b++)
        aq_machine_fill_array(p.bases[b], &plan->bases[b], graph);
    for (int s = 0; s < plan->n_steps; s++) {
        poison(p.bases[0], plan->arena_bytes, lives, n_lives, s, spare);
        run_poisoned_step(&p, s, &kernel, scratch);
    }
    AqText text = {0};
    for (int i = 0; i < plan->n_outputs; i++) {
        AqBuffer at = plan->outputs[i].buffer;
        aq_text_bytes(&text, p.bases[at.base] + at.offset,
                      (size_t)aq_bytes(&plan->outputs[i].type));
    }
    for (int b = 1; b < plan->n_bases; b++)
        if (plan->bases[b].written)
            aq_text_bytes(&text, p.bases[b], (size_t)plan->bases[b].bytes);
    for (int b = 0; b < plan->n_bases; b++)
        aq_pages_free(p.bases[b], plan->bases[b].bytes);
    aq_pages_free(scratch, p.scratch);
    free(spare);
    free(lives);
    free(p.bases);
    aq_code_free(p.code);
    aq_plan_free(p.plan);
    aq_graph_free(p.g);
    return text;
}

static void check_poisoned(const AqGraph *g)
{
    AqMachine m = aq_machine_new(g, (AqPoolOptions){.threads = 2}, 0);
    aq_machine_fill(&m, g);
    assert_true(aq_compiled_run(m.program, NULL));
    AqText clean = aq_machine_left(&m), poisoned = run_poisoned(g);
    aq_check_same_left(&clean, &poisoned);
    aq_text_free(&clean);
    aq_text_free(&poisoned);
    aq_machine_free(&m);
}

static void test_nothing_dead_is_read(void **state)
{
    (void)state;
    AqGraph *graphs[] = {aq_test_points_step(), aq_test_nano_step(),
                         aq_test_heads_step()};
    for (int i = 0; i < AQ_COUNT(graphs); i++) {
        check_poisoned(graphs[i]);
        aq_graph_free(graphs[i]);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_nothing_dead_is_read),
    };
    return cmocka_run_group_tests_name(
        "dead_values", tests, aq_test_make_folder, aq_test_remove_folder);
}
