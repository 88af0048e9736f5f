/* How near contractions come to the processor's peak: the layers of the DDPM
 * CIFAR UNet at batch 8, in all three directions, whole kernels on all threads.
 * The peak is measured between the kernels, because the machine may be shared.
 *
 *   contract_bench [-l LEVEL] [-t THREADS] [-r ROUNDS] [-v]
 *                  [-a ALGORITHM] [-b BLOCKS: five numbers]
 *                  [-e MEGABYTES that each thread reads between two rounds]
 *                  [-c BATCH,SIZE,IN,OUT,KERNEL,STRIDE | NAME...] */
#include "codegen/codegen.h"
#include "passes/passes.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

/* ---- a pool that spins: what the runtime does, in little ---- */

enum { MOST_THREADS = 64, MOST_ROUNDS = 1000 };

typedef struct Pool {
    int threads;
    atomic_int generation, working, done;
    void (*work)(struct Pool *pool, int thread);
    /* a stage */
    const AqStage *stage;
    void *const *buffers;
    void *scratch[MOST_THREADS];
    atomic_long next;
    int level;                   /* for the peak */
    double gflops[MOST_THREADS]; /* per second of a processor */
    double busy[MOST_THREADS];   /* seconds in tasks */
    pthread_t handles[MOST_THREADS];
    int numbers[MOST_THREADS];
} Pool;

static Pool pool;

/* Of this thread: whoever else uses the machine does not count. */
static double processor_seconds(void)
{
    struct timespec now;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

static void *serve(void *argument)
{
    int thread = *(int *)argument, seen = 0;
    for (;;) {
        while (atomic_load(&pool.generation) == seen)
            ;
        seen++;
        if (atomic_load(&pool.done))
            return NULL;
        pool.work(&pool, thread);
        atomic_fetch_sub(&pool.working, 1);
    }
}

static void run_all(void (*work)(Pool *, int))
{
    pool.work = work;
    atomic_store(&pool.working, pool.threads - 1);
    atomic_fetch_add(&pool.generation, 1);
    work(&pool, 0);
    while (atomic_load(&pool.working) > 0)
        ;
}

static void run_stage(Pool *p, int thread)
{
    double start = processor_seconds();
    for (;;) {
        long task = atomic_fetch_add(&p->next, 1);
        if (task >= p->stage->tasks)
            break;
        p->stage->run(p->stage->closure, p->buffers, task, task + 1,
                      p->scratch[thread]);
    }
    p->busy[thread] += processor_seconds() - start;
}

/* ---- the peak ---- */

#define FMA(n) "vfmadd231ps %%zmm30, %%zmm31, %%zmm" #n "\n"
#define FMA8(n) "vfmadd231ps %%ymm14, %%ymm15, %%ymm" #n "\n"

static void fma_512(long rounds)
{
    __asm__ volatile(
        "1:\n" FMA(0) FMA(1) FMA(2) FMA(3) FMA(4) FMA(5) FMA(6) FMA(7) FMA(8)
            FMA(9) FMA(10) FMA(11) "dec %0\n jnz 1b\n vzeroupper\n"
        : "+r"(rounds)::"memory", "xmm0", "xmm1", "xmm2", "xmm3", "xmm4",
          "xmm5", "xmm6", "xmm7", "xmm8", "xmm9", "xmm10", "xmm11");
}

static void fma_256(long rounds)
{
    __asm__ volatile(
        "1:\n" FMA8(0) FMA8(1) FMA8(2) FMA8(3) FMA8(4) FMA8(5) FMA8(6) FMA8(7)
            FMA8(8) FMA8(9) FMA8(10) FMA8(11) "dec %0\n jnz 1b\n vzeroupper\n"
        : "+r"(rounds)::"memory", "xmm0", "xmm1", "xmm2", "xmm3", "xmm4",
          "xmm5", "xmm6", "xmm7", "xmm8", "xmm9", "xmm10", "xmm11");
}

static void run_peak(Pool *p, int thread)
{
    long rounds = 100000;
    double start = processor_seconds();
    if (p->level >= 4)
        fma_512(rounds);
    else
        fma_256(rounds);
    double seconds = processor_seconds() - start;
    p->gflops[thread] =
        24e-9 * (double)rounds * (p->level >= 4 ? 16 : 8) / seconds;
}

/* ---- caches that another kernel has used ---- */

static int64_t evicted; /* floats of each thread */

static void run_evict(Pool *p, int thread)
{
    (void)p;
    static float *other[MOST_THREADS];
    if (!other[thread])
        other[thread] = calloc((size_t)evicted, sizeof(float));
    if (!other[thread])
        abort();
    for (int64_t i = 0; i < evicted; i += 16)
        other[thread][i] += 1;
}

static double peak(void)
{
    double sum = 0;
    run_all(run_peak);
    for (int i = 0; i < pool.threads; i++)
        sum += pool.gflops[i];
    return sum;
}

/* ---- kernels ---- */

typedef struct Layer {
    const char *name;
    int64_t n, size, in, out, kernel, stride;
} Layer;

static const Layer layers[] = {
    {"128ch@32", 8, 32, 128, 128, 3, 1},
    {"256->128@32", 8, 32, 256, 128, 3, 1},
    {"384->128@32", 8, 32, 384, 128, 3, 1},
    {"128->256@16", 8, 16, 128, 256, 3, 1},
    {"256ch@16", 8, 16, 256, 256, 3, 1},
    {"512->256@16", 8, 16, 512, 256, 3, 1},
    {"256ch@8", 8, 8, 256, 256, 3, 1},
    {"512->256@8", 8, 8, 512, 256, 3, 1},
    {"256ch@4", 8, 4, 256, 256, 3, 1},
    {"512->256@4", 8, 4, 512, 256, 3, 1},
    {"down 128@32", 8, 32, 128, 128, 3, 2},
    {"down 256@16", 8, 16, 256, 256, 3, 2},
    {"3->128@32", 8, 32, 3, 128, 3, 1},
    {"128->3@32", 8, 32, 128, 3, 3, 1},
    {"1x1 256->128@32", 8, 32, 256, 128, 1, 1},
    {"1x1 512->256@16", 8, 16, 512, 256, 1, 1},
    {"1x1 256@16", 8, 16, 256, 256, 1, 1},
    {"100ch@30", 8, 30, 100, 100, 3, 1},
    {"linear 8x512x256", 8, 1, 512, 256, 1, 1},
    {"linear 2048x384x1536", 2048, 1, 384, 1536, 1, 1},
    {"linear 2048x1536x384", 2048, 1, 1536, 384, 1, 1},
    {"1x1 1280@8", 2, 8, 1280, 1280, 1, 1},
    {"1280@8 b2", 2, 8, 1280, 1280, 3, 1},
};

static const char *algorithm; /* NULL: as the pass chooses */
static int64_t blocks[5];
static int n_blocks;

static AqId argument(AqGraph *body, int index, const AqType *type)
{
    AqAttr attr = aq_int(AQ_KEY_INDEX, index);
    return aq_build(body, AQ_OP_arg, type, NULL, 0, &attr, 1);
}

static AqId source(AqGraph *graph, const char *name, const AqType *type)
{
    AqAttr attr = aq_text(AQ_KEY_NAME, name);
    return aq_build(graph, AQ_OP_input, type, NULL, 0, &attr, 1);
}

static AqId conv_kernel(AqGraph *graph, AqGraph *body, const Layer *l,
                        int direction, AqType type[3])
{
    static const AqOp ops[] = {AQ_OP_conv2d, AQ_OP_conv2d_input_gradient,
                               AQ_OP_conv2d_weight_gradient};
    int64_t out = (l->size + l->stride - 1) / l->stride, pad = l->kernel / 2;
    int64_t end = pad - (l->stride == 2); /* so that sizes halve */
    AqType x = aq_type(AQ_F32, 4, (int64_t[]){l->n, l->size, l->size, l->in});
    AqType w =
        aq_type(AQ_F32, 4, (int64_t[]){l->kernel, l->kernel, l->in, l->out});
    AqType y = aq_type(AQ_F32, 4, (int64_t[]){l->n, out, out, l->out});
    AqType forms[3][3] = {{x, w, y}, {y, w, x}, {x, y, w}};
    memcpy(type, forms[direction], 3 * sizeof *type);
    int64_t stride[] = {l->stride, l->stride}, pads[] = {pad, end, pad, end};
    AqAttr attrs[] = {aq_ints(AQ_KEY_STRIDE, stride, 2),
                      aq_ints(AQ_KEY_PAD, pads, 4)};
    AqId operands[] = {argument(body, 0, &type[0]),
                       argument(body, 1, &type[1])};
    aq_graph_output(
        body, "out",
        aq_build(body, ops[direction], &type[2], operands, 2, attrs, 2), false);
    AqId inputs[] = {source(graph, "a", &type[0]),
                     source(graph, "b", &type[1])};
    AqAttr kernel[] = {aq_text(AQ_KEY_KIND, "contract"), aq_body(body),
                       aq_ints(AQ_KEY_BLOCKS, blocks, n_blocks)};
    return aq_build(graph, AQ_OP_kernel, NULL, inputs, 2, kernel,
                    n_blocks ? 3 : 2);
}

/* In huge pages, as the runtime's arena. */
static void *floats(int64_t count)
{
    size_t page = 2 << 20, bytes = ((size_t)count * 4 + page) / page * page;
    float *data = aligned_alloc(page, bytes);
    madvise(data, bytes, MADV_HUGEPAGE);
    for (int64_t i = 0; i < count; i++)
        data[i] = (float)((i * 7919) % 1000) * 1e-3f - 0.5f;
    return data;
}

static int ascending(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* The best of all rounds, and the median share of the peak measured right
 * before and after each, both by the processors' time spent in tasks. */
static void measure(const AqStage *stages, int n_stages, void *const *buffers,
                    int rounds, double flops, bool verbose, double *gflops,
                    double *share)
{
    double best_stage[AQ_MAX_STAGES], shares[MOST_ROUNDS], best = 1e9;
    for (int s = 0; s < n_stages; s++)
        best_stage[s] = 1e9;
    pool.buffers = buffers;
    double before = peak();
    for (int r = 0; r < rounds; r++) {
        if (evicted > 0)
            run_all(run_evict);
        double start = aq_seconds(), busy = 0;
        memset(pool.busy, 0, sizeof pool.busy);
        for (int s = 0; s < n_stages; s++) {
            double begin = aq_seconds();
            pool.stage = &stages[s];
            atomic_store(&pool.next, 0);
            run_all(run_stage);
            best_stage[s] = AQ_MIN(best_stage[s], aq_seconds() - begin);
        }
        double seconds = aq_seconds() - start, after = peak();
        best = AQ_MIN(best, seconds);
        for (int t = 0; t < pool.threads; t++)
            busy += pool.busy[t] / pool.threads;
        shares[r] = flops * 1e-9 / busy / (0.5 * (before + after));
        before = after;
    }
    qsort(shares, (size_t)rounds, sizeof *shares, ascending);
    *gflops = flops / best / 1e9;
    *share = shares[rounds / 2];
    if (verbose)
        for (int s = 0; s < n_stages; s++)
            printf("        stage %d: %4ld tasks %8.3f ms\n", s,
                   (long)stages[s].tasks, best_stage[s] * 1e3);
}

/* The kernel in a graph of its own, as the passes leave it. */
static AqGraph *chosen(const Layer *l, int direction, const AqTarget *target,
                       AqType type[3], AqId *kernel, AqError *error)
{
    AqGraph *graph = aq_graph_new(), *out = aq_graph_new();
    AqPassContext cx = {
        .target = target, .algorithm = algorithm, .error = error};
    *kernel = conv_kernel(graph, aq_graph_body(graph), l, direction, type);
    if (graph->error.status)
        aq_fail(error, graph->error.status, "%s", graph->error.text);
    else
        aq_choose(graph, out, &cx); /* copies all: the number stays */
    aq_graph_free(graph);
    return out;
}

static int bench(const Layer *l, const AqTarget *target, int rounds,
                 bool verbose)
{
    static const char *const names[] = {"forward", "input", "weight"};
    printf("%-22s", l->name);
    if (verbose)
        printf("\n");
    for (int direction = 0; direction < 3; direction++) {
        AqError error = {0};
        AqType type[3];
        AqId kernel;
        AqGraph *graph = chosen(l, direction, target, type, &kernel, &error);
        AqKernelLayout layout;
        AqCompileOptions options = {
            .threads = 1, .no_cache = true, .dump_dir = getenv("AQ_DUMP")};
        AqCode *code = NULL;
        if (!error.status &&
            !aq_kernel_layout(graph, kernel, target, &layout, &error))
            code = aq_compile(graph, &kernel, 1, target, &options, &error);
        if (!code) {
            printf("%s\n", error.text);
            return 1;
        }
        int n_stages;
        const AqStage *stages = aq_code_stages(code, 0, &n_stages);
        void *buffers[5] = {floats(aq_elements(&type[0])),
                            floats(aq_elements(&type[1])),
                            floats(aq_elements(&type[2]))};
        int n_buffers = 3;
        if (layout.workspace > 0)
            buffers[n_buffers++] = floats(layout.workspace / 4 + 1);
        if (layout.kept > 0)
            buffers[n_buffers++] = floats(layout.kept / 4 + 1);
        for (int t = 0; t < pool.threads; t++)
            pool.scratch[t] = floats(layout.scratch / 4 + 1);
        double flops = aq_graph_flops(graph), gflops, share;
        measure(stages, n_stages, buffers, rounds, flops, verbose, &gflops,
                &share);
        printf("  %s%-7s %6.1f GFLOP/s %3.0f %%%s", verbose ? "    " : "",
               names[direction], gflops, 100 * share, verbose ? "" : "  ");
        if (verbose)
            printf("  %.3f ms, compiled in %.0f ms\n", flops / gflops * 1e-6,
                   aq_code_statistics(code)->seconds * 1e3);
        for (int i = 0; i < n_buffers; i++)
            free(buffers[i]);
        for (int t = 0; t < pool.threads; t++)
            free(pool.scratch[t]);
        aq_code_free(code);
        aq_graph_free(graph);
        fflush(stdout);
    }
    printf("\n");
    return 0;
}

int main(int argc, char **argv)
{
    int level = 0, rounds = 15, option;
    bool verbose = false;
    Layer own = {.name = NULL};
    pool.threads = aq_cpu_count();
    while ((option = getopt(argc, argv, "l:t:r:va:b:c:e:")) != -1)
        if (option == 'l')
            level = atoi(optarg);
        else if (option == 't')
            pool.threads = AQ_MAX(AQ_MIN(atoi(optarg), MOST_THREADS), 1);
        else if (option == 'r')
            rounds = AQ_MAX(AQ_MIN(atoi(optarg), MOST_ROUNDS), 1);
        else if (option == 'v')
            verbose = true;
        else if (option == 'e')
            evicted = (int64_t)AQ_MAX(AQ_MIN(atoi(optarg), 4096), 0) << 18;
        else if (option == 'a')
            algorithm = optarg;
        else if (option == 'c' &&
                 sscanf(optarg, "%ld,%ld,%ld,%ld,%ld,%ld", &own.n, &own.size,
                        &own.in, &own.out, &own.kernel, &own.stride) == 6)
            own.name = optarg;
        else if (option == 'b')
            n_blocks = sscanf(optarg, "%ld,%ld,%ld,%ld,%ld", &blocks[0],
                              &blocks[1], &blocks[2], &blocks[3], &blocks[4]);
        else
            return 2;
    AqTarget target;
    AqError error = {0};
    if (aq_target_host(level, &target, &error)) {
        printf("%s\n", error.text);
        return 1;
    }
    pool.level = target.level;
    for (int i = 1; i < pool.threads; i++) {
        pool.numbers[i] = i;
        pthread_create(&pool.handles[i], NULL, serve, &pool.numbers[i]);
    }
    peak();
    printf("level %d, %d threads, FMA peak %.1f GFLOP/s\n", target.level,
           pool.threads, peak());
    int status = 0;
    if (own.name)
        status = bench(&own, &target, rounds, verbose);
    for (int i = 0; i < AQ_COUNT(layers) && !own.name && !status; i++) {
        bool wanted = optind == argc;
        for (int a = optind; a < argc; a++)
            wanted |= strstr(layers[i].name, argv[a]) != NULL;
        if (wanted)
            status = bench(&layers[i], &target, rounds, verbose);
    }
    atomic_store(&pool.done, 1);
    atomic_fetch_add(&pool.generation, 1);
    for (int i = 1; i < pool.threads; i++)
        pthread_join(pool.handles[i], NULL);
    return status;
}
