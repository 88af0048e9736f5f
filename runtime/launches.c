/* What a program launches: the stages of its kernels and copies, in the order
 * of the plan, and the same in groups that run side by side. */
#include "runtime/runtime.h"

#include <string.h>

typedef struct Lister {
    const AqListed *in;
    AqLaunches *out;
    AqArena *arena;
    void **pointers; /* of the plan's buffers */
    int *stage_of;   /* launch -> stage of its kernel */
    bool *once;      /* by launch */
} Lister;

/* ---- copies: tasks of a plain kind ---- */

enum { COPY_TASK = 1 << 18 }; /* bytes */

static void copy_task(const void *closure, void *const *buffers, int64_t first,
                      int64_t last, void *scratch)
{
    (void)scratch;
    int64_t bytes = *(const int64_t *)closure, begin = first * COPY_TASK;
    int64_t end = AQ_MIN(bytes, last * COPY_TASK);
    memmove((char *)buffers[1] + begin, (char *)buffers[0] + begin,
            (size_t)(end - begin));
}

static AqStage copy_stage(const AqStep *step)
{
    return (AqStage){.run = copy_task,
                     .closure = &step->copy_bytes,
                     .tasks = (step->copy_bytes + COPY_TASK - 1) / COPY_TASK};
}

/* ---- one after the other ---- */

static void add_launch(Lister *l, int step, int stage, AqStage code)
{
    AqLaunches *out = l->out;
    const AqStep *s = &l->in->plan->steps[step];
    out->step_of[out->count] = step;
    l->stage_of[out->count] = stage;
    l->once[out->count] =
        s->kernel != AQ_NO_NODE && l->in->once[s->kernel][stage];
    out->launches[out->count++] =
        (AqLaunch){.stage = code, .buffers = l->pointers + s->first};
}

static void list_all(Lister *l)
{
    const AqPlan *plan = l->in->plan;
    for (int i = 0; i < plan->n_buffers; i++) {
        AqBuffer buffer = plan->buffers[i];
        l->pointers[i] = (char *)l->in->bases[buffer.base] + buffer.offset;
    }
    for (int i = 0, kernel = 0; i < plan->n_steps; i++) {
        const AqStep *step = &plan->steps[i];
        if (step->kernel == AQ_NO_NODE) {
            add_launch(l, i, 0, copy_stage(step));
            continue;
        }
        int n_stages;
        const AqStage *stages =
            aq_code_stages(l->in->code, kernel++, &n_stages);
        for (int k = 0; k < n_stages; k++)
            add_launch(l, i, k, stages[k]);
    }
}

/* ---- what launches touch ---- */

static int64_t bytes_of(const Lister *l, const AqStep *step, int i)
{
    if (step->kernel == AQ_NO_NODE)
        return step->copy_bytes;
    const AqGraph *g = l->in->graph;
    const AqNode *node = aq_node(g, step->kernel);
    const AqGraph *body = aq_attr_body(node);
    const AqNeeds *needs = &l->in->needs[step->kernel];
    int result = i - node->n_inputs;
    if (result < 0)
        return aq_bytes(&aq_node(g, node->inputs[i])->type);
    if (result < body->n_outputs)
        return aq_bytes(&aq_node(body, body->outputs[result].node)->type);
    return result == body->n_outputs && needs->workspace > 0 ? needs->workspace
                                                             : needs->kept;
}

/* Of a copy and of a kernel the inputs come first. */
static int inputs_of(const Lister *l, const AqStep *step)
{
    return step->kernel == AQ_NO_NODE
               ? 1
               : aq_node(l->in->graph, step->kernel)->n_inputs;
}

/* A stage that says what it reads touches that and the last buffer; any other
 * may touch all that its kernel does. */
static AqTouches touches_of(const Lister *l, int launch, AqTouch *touch)
{
    const AqStep *step = &l->in->plan->steps[l->out->step_of[launch]];
    int inputs = inputs_of(l, step);
    uint64_t reads = step->kernel == AQ_NO_NODE
                         ? 0
                         : l->in->reads[step->kernel][l->stage_of[launch]];
    AqTouches all = {.touch = touch};
    for (int i = 0; i < step->count; i++) {
        bool read = i < inputs && i < 64 && reads >> i & 1;
        if (reads && !read && i != step->count - 1)
            continue;
        touch[all.count++] = (AqTouch){l->pointers[step->first + i],
                                       bytes_of(l, step, i), i >= inputs};
    }
    return all;
}

static AqTouches *list_touches(const Lister *l, AqError *error)
{
    size_t count = 0;
    for (int i = 0; i < l->out->count; i++)
        count += (size_t)l->in->plan->steps[l->out->step_of[i]].count;
    AqTouches *all = AQ_NEW_ARRAY(l->arena, AqTouches, l->out->count);
    AqTouch *touch = AQ_NEW_ARRAY(l->arena, AqTouch, count);
    if (!all || !touch) {
        aq_no_memory(error, count * sizeof *touch);
        return NULL;
    }
    for (int i = 0; i < l->out->count; i++) {
        all[i] = touches_of(l, i, touch);
        touch += all[i].count;
    }
    return all;
}

/* ---- side by side ---- */

static bool writes_state(const Lister *l, int launch)
{
    const AqStep *step = &l->in->plan->steps[l->out->step_of[launch]];
    for (int i = inputs_of(l, step); i < step->count; i++)
        if (l->in->plan->buffers[step->first + i].base != 0)
            return true;
    return false;
}

static AqStatus list_run(const Lister *l, const AqTouches *touches, bool first,
                         AqRun *run, AqError *error)
{
    size_t most = (size_t)l->out->count;
    AqLaunch *launches = AQ_NEW_ARRAY(l->arena, AqLaunch, most);
    AqTouches *touched = AQ_NEW_ARRAY(l->arena, AqTouches, most);
    run->launches = AQ_NEW_ARRAY(l->arena, AqLaunch, most);
    if (!launches || !touched || !run->launches)
        return aq_no_memory(error, most * sizeof(AqLaunch));
    run->first_update = INT32_MAX;
    for (int i = 0; i < l->out->count; i++) {
        if (writes_state(l, i))
            run->first_update = AQ_MIN(run->first_update, run->count);
        if (l->once[i] && !first)
            continue;
        touched[run->count] = touches[i];
        launches[run->count++] = l->out->launches[i];
    }
    return aq_schedule(launches, touched, run->count, &run->first_update,
                       run->launches, error);
}

AqStatus aq_list_launches(const AqListed *in, AqArena *arena, AqLaunches *out,
                          AqError *error)
{
    size_t most = (size_t)in->plan->n_steps * AQ_MAX_STAGES;
    Lister l = {.in = in,
                .out = out,
                .arena = arena,
                .pointers = AQ_NEW_ARRAY(arena, void *, in->plan->n_buffers),
                .stage_of = AQ_NEW_ARRAY(arena, int, most),
                .once = AQ_NEW_ARRAY(arena, bool, most)};
    *out = (AqLaunches){.launches = AQ_NEW_ARRAY(arena, AqLaunch, most),
                        .step_of = AQ_NEW_ARRAY(arena, int, most)};
    if (!l.pointers || !l.stage_of || !l.once || !out->launches ||
        !out->step_of)
        return aq_no_memory(error, most * sizeof(AqLaunch));
    list_all(&l);
    const AqTouches *touches = list_touches(&l, error);
    if (!touches || list_run(&l, touches, true, &out->first, error))
        return error->status;
    return list_run(&l, touches, false, &out->again, error);
}
