/* How near attention comes to one core's peak: useful operations (two products
 * forward, four backward) over the processor time of all tasks on one thread.
 * The machine may be shared: the share is of the peak measured just before and
 * after, the median of some rounds.
 *
 *   attend_bench [-l LEVEL] [-r ROUNDS] [NAME...] */
#include "codegen/codegen.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>
#include <xmmintrin.h>

static double cpu_seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* ---- the peak ---- */

#define TWELVE(F) F(0) F(1) F(2) F(3) F(4) F(5) F(6) F(7) F(8) F(9) F(10) F(11)
#define FMA_512(n) "vfmadd231ps %%zmm12, %%zmm13, %%zmm" #n "\n"
#define FMA_256(n) "vfmadd231ps %%ymm12, %%ymm13, %%ymm" #n "\n"
#define FMA_LOOP(FMA)                                                          \
    __asm__ volatile("1:\n" TWELVE(FMA) "dec %0\n jnz 1b\n vzeroupper\n"       \
                     : "+r"(rounds)::"memory", "xmm0", "xmm1", "xmm2", "xmm3", \
                       "xmm4", "xmm5", "xmm6", "xmm7", "xmm8", "xmm9",         \
                       "xmm10", "xmm11")

static double peak(int level)
{
    long rounds = 1500000;
    double flops = 24e-9 * (double)rounds * (level == 4 ? 16 : 8);
    double start = cpu_seconds();
    if (level == 4)
        FMA_LOOP(FMA_512);
    else
        FMA_LOOP(FMA_256);
    return flops / (cpu_seconds() - start);
}

/* ---- kernels ---- */

typedef struct Layer {
    const char *name;
    int64_t batch, queries, keys, heads, depth;
    bool causal;
} Layer;

static const Layer layers[] = {
    {"sd 4096x40", 1, 4096, 4096, 8, 40, false},
    {"sd 1024x80", 1, 1024, 1024, 8, 80, false},
    {"sd 256x160", 1, 256, 256, 8, 160, false},
    {"sd text 4096x77x40", 1, 4096, 77, 8, 40, false},
    {"ddpm 256x256", 8, 256, 256, 1, 256, false},
    {"ddpm one 256x256", 1, 256, 256, 1, 256, false},
    {"unet 256x8", 8, 256, 256, 32, 8, false},
    {"dit 256x64", 8, 256, 256, 6, 64, false},
    {"nano 64x64", 8, 64, 64, 1, 64, false},
    {"clip 77x64", 4, 77, 77, 12, 64, true},
    {"causal 1024x64", 1, 1024, 1024, 8, 64, true},
    {"vae 1024x512", 1, 1024, 1024, 1, 512, false},
};

static AqId argument(AqGraph *graph, AqGraph *body, int index, AqType type,
                     AqId *input)
{
    char name[16];
    snprintf(name, sizeof name, "x%d", index);
    AqAttr attr = aq_int(AQ_KEY_INDEX, index);
    AqAttr named = aq_text(AQ_KEY_NAME, name);
    *input = aq_build(graph, AQ_OP_input, &type, NULL, 0, &named, 1);
    return aq_build(body, AQ_OP_arg, &type, NULL, 0, &attr, 1);
}

static AqId attend_kernel(AqGraph *graph, AqGraph *body, const Layer *l,
                          bool backward)
{
    AqType q = aq_type(AQ_F32, 4,
                       (int64_t[]){l->batch, l->queries, l->heads, l->depth});
    AqType k =
        aq_type(AQ_F32, 4, (int64_t[]){l->batch, l->keys, l->heads, l->depth});
    AqType lse =
        aq_type(AQ_F32, 3, (int64_t[]){l->batch, l->heads, l->queries});
    AqType types[] = {q, k, k, q, lse, q};
    AqId inputs[6], args[6];
    int n = backward ? 6 : 3;
    for (int i = 0; i < n; i++)
        args[i] = argument(graph, body, i, types[i], &inputs[i]);
    AqAttr attrs[] = {aq_real(AQ_KEY_SCALE, 1. / (double)l->depth),
                      aq_int(AQ_KEY_CAUSAL, l->causal)};
    AqId node =
        aq_build(body, backward ? AQ_OP_attention_gradient : AQ_OP_attention,
                 NULL, args, n, attrs, 2);
    for (int i = 0; i < (backward ? 3 : 2); i++)
        aq_graph_output(body, (const char *[]){"a", "b", "c"}[i],
                        aq_result_node(body, node, i), false);
    AqAttr kernel[] = {aq_text(AQ_KEY_KIND, "attend"), aq_body(body)};
    return aq_build(graph, AQ_OP_kernel, NULL, inputs, n, kernel, 2);
}

/* In large pages, as the runtime's. */
static void *floats(int64_t count)
{
    size_t page = 2 << 20, bytes = ((size_t)count * 4 + page) / page * page;
    float *data = aligned_alloc(page, bytes);
    if (data)
        madvise(data, bytes, MADV_HUGEPAGE);
    for (int64_t i = 0; data && i < count; i++)
        data[i] = (float)((i * 7919) % 1000) * 1e-3f - 0.5f;
    return data;
}

/* Inputs, results, workspace; freed by the process's end. */
static void allocate(const AqGraph *graph, AqId kernel, int64_t workspace,
                     void **buffers)
{
    int n = 0;
    for (int i = 0; i < aq_node(graph, kernel)->n_inputs; i++) {
        AqId input = aq_node(graph, kernel)->inputs[i];
        buffers[n++] = floats(aq_elements(&aq_node(graph, input)->type));
    }
    for (int i = 0; i < aq_result_count(graph, kernel); i++) {
        AqType type = aq_result_type(graph, kernel, i);
        buffers[n++] = floats(aq_elements(&type));
    }
    buffers[n] = floats(workspace / 4 + 1);
}

enum { MOST_ROUNDS = 1000 };

static int by_size(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static bool measure(const Layer *l, const AqTarget *target, int rounds,
                    bool backward)
{
    AqError error = {0};
    AqGraph *graph = aq_graph_new(), *body = aq_graph_new();
    AqId kernel = attend_kernel(graph, body, l, backward);
    AqKernelLayout layout;
    AqCompileOptions options = {
        .threads = 1, .no_cache = true, .dump_dir = getenv("AQ_DUMP")};
    AqCode *code = NULL;
    if (!graph->error.status && !body->error.status &&
        !aq_kernel_layout(graph, kernel, target, &layout, &error))
        code = aq_compile(graph, &kernel, 1, target, &options, &error);
    if (!code) {
        printf("%s%s%s\n", graph->error.text, body->error.text, error.text);
        return false;
    }
    int n_stages;
    const AqStage *stages = aq_code_stages(code, 0, &n_stages);
    void *buffers[16], *scratch = floats(layout.scratch / 4 + 1);
    allocate(graph, kernel, layout.workspace, buffers);
    double flops = aq_graph_flops(graph), best = 1e9, share[MOST_ROUNDS];
    double spent[8] = {0};
    for (int r = 0; r < rounds; r++) {
        double before = peak(target->level), start = cpu_seconds();
        for (int s = 0; s < n_stages; s++) {
            double began = cpu_seconds();
            stages[s].run(stages[s].closure, buffers, 0, stages[s].tasks,
                          scratch);
            spent[s] += cpu_seconds() - began;
        }
        double seconds = cpu_seconds() - start, after = peak(target->level);
        best = AQ_MIN(best, seconds);
        share[r] = flops / seconds / ((before + after) / 2);
    }
    qsort(share, (size_t)rounds, sizeof *share, by_size);
    printf("  %s %8.3f ms %6.1f GFLOP/s, %3.0f %% of peak, %ld tasks, %.1f MB, "
           "compiled in %.0f ms\n",
           backward ? "backward" : "forward ", best * 1e3, flops / best / 1e9,
           1e-7 * share[rounds / 2], (long)layout.tasks[n_stages > 1],
           1e-6 * (double)(layout.scratch + layout.workspace),
           aq_code_statistics(code)->seconds * 1e3);
    printf("    stages");
    for (int s = 0; s < n_stages; s++)
        printf(" %.3f", spent[s] / rounds * 1e3);
    printf(" ms\n");
    fflush(stdout);
    aq_code_free(code);
    return true;
}

int main(int argc, char **argv)
{
    int level = 0, rounds = 7, option;
    while ((option = getopt(argc, argv, "l:r:")) != -1)
        if (option == 'l')
            level = atoi(optarg);
        else if (option == 'r')
            rounds = AQ_MAX(1, AQ_MIN(atoi(optarg), MOST_ROUNDS));
        else
            return 2;
    _mm_setcsr(_mm_getcsr() | 0x8040); /* denormals are zero, as in a worker */
    AqTarget target;
    AqError error = {0};
    if (aq_target_host(level, &target, &error)) {
        printf("%s\n", error.text);
        return 1;
    }
    for (int i = 0; i < AQ_COUNT(layers); i++) {
        bool wanted = optind == argc;
        for (int a = optind; a < argc; a++)
            wanted |= strstr(layers[i].name, argv[a]) != NULL;
        if (!wanted)
            continue;
        printf("%s, level %d\n", layers[i].name, target.level);
        if (!measure(&layers[i], &target, rounds, false) ||
            !measure(&layers[i], &target, rounds, true))
            return 1;
    }
    return 0;
}
