/* Does it matter to a training by which algorithm its convolutions are
 * computed?  The demo's model is trained with each algorithm from the same
 * seeds, on five of six pictures; the loss of the weights' average on the
 * others, at timesteps and noise that are always the same, is printed every 100
 * steps as CSV and drawn.
 *
 *   held_out_bench [-n STEPS] [-f FIRST_SEED] [-s SEEDS] [-t THREADS]
 *                  [-i CSV] [-o PLOT.svg]
 *
 * What is in CSV, printed before, is not computed again, so that seeds can run
 * beside each other and be drawn together. */
#include "runtime/run.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum {
    BATCH = 16,
    SIZE = 32,
    CHANNELS = 3,
    HELD_OUT = 6, /* one picture of so many */
    EVERY = 100,
    DRAWS = 16, /* of timestep and noise, for each picture */
    MOST_SEEDS = 8,
    MOST_POINTS = 200,
};

static const char *const algorithms[] = {"winograd", "gemm"};

static const AqSetting settings[] = {{"channels", "32"},
                                     {"mults", "1,2,2"},
                                     {"blocks", "1"},
                                     {"attention", "8"}};

typedef struct Pictures {
    float *x; /* (count, SIZE, SIZE, CHANNELS) */
    int count;
} Pictures;

typedef struct Bench {
    int steps, first, seeds; /* seeds from `first` on */
    AqPool *pool;
    Pictures training, held_out;
    int points; /* of a curve */
    double step[MOST_POINTS];
    double loss[MOST_SEEDS][AQ_COUNT(algorithms)][MOST_POINTS]; /* 0: none */
    AqError error;
} Bench;

enum { FLOATS = SIZE * SIZE * CHANNELS };

/* ---- data ---- */

static AqStatus fetch(Bench *b, const AqDataset *set)
{
    int64_t count = aq_dataset_count(set);
    size_t bytes = sizeof(float) * FLOATS * (size_t)count;
    b->training.x = malloc(bytes);
    b->held_out.x = malloc(bytes);
    if (!b->training.x || !b->held_out.x)
        return aq_no_memory(&b->error, bytes);
    for (int64_t i = 0; i < count; i++) {
        Pictures *to = i % HELD_OUT == 0 ? &b->held_out : &b->training;
        if (aq_dataset_fetch(set, i, false, 0.5F, 0.5F,
                             to->x + (size_t)to->count++ * FLOATS, &b->error))
            break;
    }
    return b->error.status;
}

static AqStatus open_data(Bench *b)
{
    AqDatasetOptions options = {
        .height = SIZE, .width = SIZE, .channels = CHANNELS};
    AqDataset *set = aq_dataset_open("emoji:smileys", &options, &b->error);
    if (set)
        fetch(b, set);
    aq_dataset_free(set);
    return b->error.status;
}

/* Left to right, or turned round. */
static void copy_picture(const float *from, bool flip, float *to)
{
    enum { PIXELS = FLOATS / CHANNELS };
    for (int i = 0; i < PIXELS; i++) {
        int j = flip ? i / SIZE * SIZE + SIZE - 1 - i % SIZE : i;
        memcpy(to + (size_t)i * CHANNELS, from + (size_t)j * CHANNELS,
               CHANNELS * sizeof *to);
    }
}

/* ---- programs ---- */

static AqTask task_of(int batch)
{
    return (AqTask){
        .model = aq_builtin_find("ddpm_unet", NULL),
        .settings = settings,
        .n_settings = AQ_COUNT(settings),
        .batch = batch,
        .height = SIZE,
        .width = SIZE,
        .channels = CHANNELS,
        .process = {.schedule = AQ_COSINE, .prediction = AQ_VELOCITY}};
}

static AqOptimizer optimizer_of(int steps)
{
    return (AqOptimizer){
        .kind = AQ_ADAMW,
        .rate = {.kind = AQ_RATE_COSINE, .base = 1e-3, .total = steps},
        .beta2 = 0.99,
        .decay = 0.01,
        .clip = 1,
        .ema = 0.999};
}

typedef struct Run {
    Bench *b;
    uint64_t seed;
    const char *algorithm;
    AqMemory *memory, *of_evaluation;
    AqCompiled *step, *evaluation;
} Run;

static AqCompiled *compile(Run *r, AqGraph *graph, AqMemory *memory)
{
    AqProgramSettings how = {.passes = {.algorithm = r->algorithm}};
    AqError *error = &r->b->error;
    AqCompiled *p =
        graph ? aq_compiled_new(graph, memory, r->b->pool, &how, error) : NULL;
    aq_graph_free(graph);
    return p;
}

static void *input(AqMemory *memory, const char *name)
{
    return aq_memory_find(memory, name, NULL);
}

static AqStatus start(Run *r)
{
    AqError *error = &r->b->error;
    AqTask task = task_of(BATCH), held_out = task_of(r->b->held_out.count);
    AqOptimizer optimizer = optimizer_of(r->b->steps);
    AqGraph *graph = aq_training_graph(&task, &optimizer, NULL, error);
    const AqParamTable *params = graph ? aq_params(graph) : NULL;
    r->memory = aq_memory_new(error);
    r->of_evaluation = aq_memory_new(error);
    if (!params || !r->memory || !r->of_evaluation)
        return error->status;
    uint32_t key[2] = {(uint32_t)r->seed, 0};
    float *weights =
        aq_memory_array(r->memory, "weights", params->floats * 4, error);
    float *ema = aq_memory_array(r->memory, "ema", params->floats * 4, error);
    if (!weights || !ema)
        return error->status;
    aq_params_start(params, key, 1, weights, ema);
    r->step = compile(r, graph, r->memory);
    if (!r->step ||
        aq_memory_share(r->of_evaluation, "weights", r->memory, "ema", error))
        return error->status;
    memcpy(input(r->memory, "key"), key, sizeof key);
    r->evaluation =
        compile(r, aq_evaluation_graph(&held_out, error), r->of_evaluation);
    return error->status;
}

static void end(Run *r)
{
    aq_compiled_free(r->step);
    aq_compiled_free(r->evaluation);
    aq_memory_free(r->of_evaluation);
    aq_memory_free(r->memory);
}

/* ---- a run ---- */

static uint32_t drawn(const Run *r, uint32_t number, uint32_t below)
{
    const uint32_t counter[4] = {number, 0, 0, 0};
    const uint32_t key[2] = {(uint32_t)r->seed, 1};
    uint32_t words[4];
    aq_philox(counter, key, words);
    return words[0] % below;
}

static void give_batch(const Run *r, int step)
{
    float *x = input(r->memory, "x");
    int32_t *sample = input(r->memory, "sample");
    uint32_t count = (uint32_t)r->b->training.count;
    for (int i = 0; i < BATCH; i++) {
        uint32_t n = (uint32_t)(step * BATCH + i),
                 which = drawn(r, n, 2 * count);
        sample[i] = (int32_t)n;
        copy_picture(r->b->training.x + (size_t)(which / 2) * FLOATS, which % 2,
                     x + (size_t)i * FLOATS);
    }
}

static double held_out_loss(Run *r)
{
    const Pictures *p = &r->b->held_out;
    int32_t *sample = input(r->of_evaluation, "sample");
    int32_t *step = input(r->of_evaluation, "step");
    double sum = 0;
    memcpy(input(r->of_evaluation, "x"), p->x,
           sizeof(float) * FLOATS * (size_t)p->count);
    for (int i = 0; i < p->count; i++)
        sample[i] = i;
    for (*step = 0; *step < DRAWS; ++*step) {
        aq_compiled_run(r->evaluation, NULL);
        sum += *(const float *)aq_compiled_output(r->evaluation, "loss");
    }
    return sum / DRAWS;
}

static void train(Run *r, double *loss)
{
    for (int step = 1; step <= r->b->steps; step++) {
        give_batch(r, step - 1);
        aq_compiled_run(r->step, NULL);
        if (step % EVERY)
            continue;
        double *now = &loss[step / EVERY - 1];
        *now = held_out_loss(r);
        printf("%llu,%s,%d,%.7f\n", (unsigned long long)r->seed, r->algorithm,
               step, *now);
        fflush(stdout);
    }
}

static AqStatus run(Bench *b, int seed, int algorithm)
{
    double *loss = b->loss[seed - b->first][algorithm];
    Run r = {
        .b = b, .seed = (uint64_t)seed, .algorithm = algorithms[algorithm]};
    if (loss[b->points - 1] > 0)
        return AQ_OK;
    if (start(&r) == AQ_OK)
        train(&r, loss);
    end(&r);
    return b->error.status;
}

static AqStatus read_results(Bench *b, const char *path)
{
    char line[200], name[40];
    int seed, step;
    double loss;
    FILE *file = fopen(path, "r");
    if (!file)
        return aq_fail(&b->error, AQ_BAD_INPUT, "%s: %s", path,
                       strerror(errno));
    while (fgets(line, sizeof line, file)) {
        if (sscanf(line, "%d,%39[a-z],%d,%lf", &seed, name, &step, &loss) != 4)
            continue;
        int s = seed - b->first, i = step / EVERY - 1;
        for (int a = 0; a < AQ_COUNT(algorithms); a++)
            if (!strcmp(name, algorithms[a]) && s >= 0 && s < b->seeds &&
                i >= 0 && i < b->points)
                b->loss[s][a][i] = loss;
    }
    fclose(file);
    return AQ_OK;
}

/* ---- what came of it ---- */

/* Pale: each seed; strong: their mean. */
static void plot(Bench *b, const char *path)
{
    enum { ALGORITHMS = AQ_COUNT(algorithms) };
    static double mean[ALGORITHMS][MOST_POINTS];
    AqSeries series[ALGORITHMS * (MOST_SEEDS + 1)];
    int count = 0;
    for (int a = 0; a < ALGORITHMS; a++) {
        for (int s = 0; s < b->seeds; s++) {
            const double *loss = b->loss[s][a];
            for (int i = 0; i < b->points; i++)
                mean[a][i] += loss[i] / b->seeds;
            series[count++] = (AqSeries){
                .x = b->step, .y = loss, .count = b->points, .light = true};
        }
        series[count++] = (AqSeries){.name = algorithms[a],
                                     .x = b->step,
                                     .y = mean[a],
                                     .count = b->points};
    }
    AqPlot chart = {.title = "Loss on pictures that were held out",
                    .x_label = "step",
                    .y_label = "loss",
                    .series = series,
                    .series_count = count,
                    .log_y = true};
    aq_plot_write(path, &chart, &b->error);
}

static AqStatus run_all(Bench *b)
{
    printf("seed,algorithm,step,loss\n");
    for (int seed = b->first; seed < b->first + b->seeds; seed++)
        for (int a = 0; a < AQ_COUNT(algorithms); a++)
            if (run(b, seed, a))
                return b->error.status;
    return AQ_OK;
}

int main(int argc, char **argv)
{
    static Bench b = {.steps = 2000, .seeds = 3};
    AqPoolOptions pool = {0};
    const char *results = NULL, *picture = NULL;
    int option;
    while ((option = getopt(argc, argv, "n:f:s:t:i:o:")) != -1)
        if (option == 'n')
            b.steps = atoi(optarg);
        else if (option == 'f')
            b.first = atoi(optarg);
        else if (option == 's')
            b.seeds = AQ_MAX(AQ_MIN(atoi(optarg), MOST_SEEDS), 1);
        else if (option == 't')
            pool.threads = AQ_MAX(atoi(optarg), 1);
        else if (option == 'i')
            results = optarg;
        else if (option == 'o')
            picture = optarg;
        else
            return 2;
    b.points = AQ_MAX(AQ_MIN(b.steps / EVERY, MOST_POINTS), 1);
    b.steps = b.points * EVERY;
    for (int i = 0; i < b.points; i++)
        b.step[i] = (i + 1) * EVERY;
    b.pool = aq_pool_new(&pool, &b.error);
    if (b.pool && (!results || !read_results(&b, results)) && !open_data(&b) &&
        !run_all(&b) && picture)
        plot(&b, picture);
    aq_pool_free(b.pool);
    free(b.training.x);
    free(b.held_out.x);
    if (b.error.status)
        fprintf(stderr, "held_out_bench: %s\n", b.error.text);
    return b.error.status != AQ_OK;
}
