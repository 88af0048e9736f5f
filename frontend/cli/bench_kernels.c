/* aquatint bench --kernels: where the time of a step goes, beside the least
 * that each kernel could take on this machine.
 *
 * The limit is that of a roofline (Williams et al. 2009): the larger of the
 * arithmetic at the peak of fused multiply-adds, and of inputs and results,
 * each once, at the bandwidth of a triad.  Arithmetic is that of the kernel's
 * own algorithm; GFLOP/s count the useful operations, whatever the algorithm,
 * so that they can exceed the peak.
 *
 * A kernel is a line of 120 columns; in a narrower terminal it is two. */
#include "frontend/cli/cli.h"

#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

enum { RUNS = 3, WIDE = 120, LEAST = 80, INDENT = 10 };

/* Kernels that are equal, or of one kind, together. */
typedef struct Group {
    const char *algorithm, *name, *scope;
    char *shapes; /* malloc'd */
    AqHash equal; /* what they have in common */
    int count;
    double seconds, flops, bytes, limit;
} Group;

typedef struct Report {
    const AqGraph *graph;
    Group *groups, *kinds; /* malloc'd */
    int n_groups, n_kinds;
    double peak, triad, total;
    int line;      /* columns */
    int algorithm; /* of them for the longest one's name */
} Report;

/* ---- what a kernel is ---- */

/* The contraction or attention in a kernel, AQ_NO_NODE: there is none. */
static AqId core_of(const AqGraph *body)
{
    for (AqId id = 0; id < body->count; id++) {
        AqLowering how = aq_op_info[aq_node(body, id)->op].lowering;
        if (how == AQ_LOWER_contract || how == AQ_LOWER_attend)
            return id;
    }
    return AQ_NO_NODE;
}

static const char *algorithm_of(const AqNode *kernel)
{
    return aq_attr_text(kernel, AQ_KEY_ALGORITHM, "");
}

/* The time at the peak of multiply-adds that an algorithm makes of one: F(4x4,
 * 3x3) of Winograd takes 36 for 16 results of 9 each (Lavin and Gray 2016); of
 * bfloat16 there are six for one of floats, 16 in the time of one. */
static double share_executed(const char *algorithm)
{
    if (!strcmp(algorithm, "gemm_bf16x6"))
        return 6.0 / 16;
    return strcmp(algorithm, "winograd") ? 1 : 36.0 / 144;
}

static double bytes_of(const AqGraph *graph, AqId kernel)
{
    const AqNode *node = aq_node(graph, kernel);
    const AqGraph *body = aq_attr_body(node);
    double sum = 0;
    for (int i = 0; i < node->n_inputs; i++)
        sum += (double)aq_bytes(&aq_node(graph, node->inputs[i])->type);
    for (int i = 0; i < body->n_outputs; i++)
        sum += (double)aq_bytes(&aq_node(body, body->outputs[i].node)->type);
    return sum;
}

/* "conv2d", "map" */
static const char *name_of(const AqNode *kernel)
{
    const AqGraph *body = aq_attr_body(kernel);
    AqId core = core_of(body);
    return core == AQ_NO_NODE ? aq_attr_text(kernel, AQ_KEY_KIND, "")
                              : aq_op_info[aq_node(body, core)->op].name;
}

/* "f32[8,32,32,128] f32[3,3,128,128]", "4 in, 2 out f32[8,32]" */
static void add_shapes(const AqGraph *graph, AqId kernel, AqText *out)
{
    const AqNode *node = aq_node(graph, kernel);
    const AqGraph *body = aq_attr_body(node);
    AqId core = core_of(body);
    if (core == AQ_NO_NODE) {
        AqType type = aq_result_type(graph, kernel, 0);
        aq_text_printf(out, "%d in, %d out ", node->n_inputs, body->n_outputs);
        aq_type_text(out, &type);
        return;
    }
    const AqNode *op = aq_node(body, core);
    for (int i = 0; i < AQ_MIN(op->n_inputs, 2); i++) {
        aq_text_add(out, i ? " " : "");
        aq_type_text(out, &aq_node(body, op->inputs[i])->type);
    }
}

/* Kernels are equal where their bodies and algorithms are. */
static AqHash hash_of(const AqGraph *graph, AqId kernel)
{
    const AqNode *node = aq_node(graph, kernel);
    AqText text = {0};
    aq_graph_print(aq_attr_body(node), &text);
    char *from = text.data, *to = text.data;
    for (bool comment = false; from && *from; from++) {
        comment = *from == ';' || (comment && *from != '\n');
        if (!comment) /* where in the model it stands is no matter */
            *to++ = *from;
    }
    if (to)
        text.length = (size_t)(to - text.data);
    aq_text_add(&text, algorithm_of(node));
    AqHash hash = aq_hash128(text.data ? text.data : "", text.length);
    aq_text_free(&text);
    return hash;
}

/* ---- together ---- */

static Group *find_group(Group *groups, int *count, AqHash equal)
{
    for (int i = 0; i < *count; i++)
        if (groups[i].equal.high == equal.high &&
            groups[i].equal.low == equal.low)
            return &groups[i];
    groups[*count] = (Group){.equal = equal};
    return &groups[(*count)++];
}

static void add(const Report *r, Group *group, AqId kernel, double seconds)
{
    const AqNode *node = aq_node(r->graph, kernel);
    double flops = aq_node_flops(r->graph, kernel);
    double bytes = bytes_of(r->graph, kernel);
    double work = flops * share_executed(algorithm_of(node)) / r->peak;
    group->count++;
    group->seconds += seconds;
    group->flops += flops;
    group->bytes += bytes;
    group->limit += AQ_MAX(work, bytes / r->triad);
}

static void add_kernel(Report *r, AqId kernel, double seconds)
{
    const AqNode *node = aq_node(r->graph, kernel);
    const char *algorithm = algorithm_of(node), *name = name_of(node);
    Group *g = find_group(r->groups, &r->n_groups, hash_of(r->graph, kernel));
    AqText text = {0};
    if (g->count == 0) {
        g->scope = node->scope;
        g->algorithm = algorithm;
        g->name = name;
        add_shapes(r->graph, kernel, &text);
        g->shapes = text.data;
        text = (AqText){0};
        r->algorithm = AQ_MAX(r->algorithm, (int)strlen(algorithm));
    }
    add(r, g, kernel, seconds);
    aq_text_printf(&text, "%s %s", algorithm, name);
    Group *kind =
        find_group(r->kinds, &r->n_kinds,
                   aq_hash128(text.data ? text.data : "", text.length));
    aq_text_free(&text);
    kind->algorithm = algorithm;
    kind->name = name;
    add(r, kind, kernel, seconds);
}

static int by_seconds(const void *a, const void *b)
{
    const Group *x = a, *y = b;
    return (x->seconds < y->seconds) - (x->seconds > y->seconds);
}

/* ---- printing ---- */

/* Of the terminal that is written to, of the one that COLUMNS speaks of, or of
 * any that is wide. */
static int columns_of_line(void)
{
    struct winsize size = {0};
    const char *said = getenv("COLUMNS");
    int columns = said ? atoi(said) : 0;
    if (columns <= 0 && ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0)
        columns = size.ws_col;
    return columns <= 0 ? WIDE : AQ_MAX(LEAST, AQ_MIN(columns, WIDE));
}

static void print_header(const char *last)
{
    printf("\n%5s %8s %6s %7s %6s %6s  %s\n", "count", "ms", "share", "GFLOP/s",
           "GB/s", "limit", last);
}

/* So much of it as there is room for, without blanks at its end. */
static void print_cut(const Report *r, const char *line)
{
    int length = (int)AQ_MIN(strlen(line), (size_t)r->line);
    while (length > 0 && line[length - 1] == ' ')
        length--;
    printf("%.*s\n", length, line);
}

/* Small kernels that run one after another on one thread are timed together,
 * as the first of them: the others, far beyond any limit, have no rates. */
static void print_group(const Report *r, const Group *g)
{
    bool timed = g->limit < 10 * g->seconds, wide = r->line >= WIDE;
    char work[16] = "", rest[40] = "", line[400], shapes[200] = "";
    if (timed && g->flops > 0)
        snprintf(work, sizeof work, "%.1f", g->flops / g->seconds / 1e9);
    if (timed)
        snprintf(rest, sizeof rest, "%.1f %5.0f%%", g->bytes / g->seconds / 1e9,
                 100 * g->limit / g->seconds);
    if (g->shapes)
        snprintf(shapes, sizeof shapes, "%s  %s", g->shapes,
                 g->scope ? g->scope : "");
    snprintf(line, sizeof line, "%5d %8.3f %5.1f%% %7s %13s  %-*s  %s %s",
             g->count, 1e3 * g->seconds, 100 * g->seconds / r->total, work,
             rest, r->algorithm, g->algorithm, g->name, wide ? shapes : "");
    print_cut(r, line);
    if (wide || !g->shapes)
        return;
    snprintf(line, sizeof line, "%*s%s", INDENT, "", shapes);
    print_cut(r, line);
}

static void print_groups(const Report *r, Group *groups, int count,
                         double least)
{
    int left = 0, kernels = 0;
    double seconds = 0;
    qsort(groups, (size_t)count, sizeof *groups, by_seconds);
    for (int i = 0; i < count; i++) {
        if (groups[i].seconds >= least * r->total) {
            print_group(r, &groups[i]);
            continue;
        }
        left++;
        kernels += groups[i].count;
        seconds += groups[i].seconds;
    }
    if (left > 0)
        printf("%5d %8.3f %5.1f%%  in %d lines below %.1f %% each\n", kernels,
               1e3 * seconds, 100 * seconds / r->total, left, 100 * least);
}

static void print_report(const Report *r, int kernels, double copies)
{
    printf("\nlimits   %.1f GFLOP/s in fused multiply-adds, %.1f GB/s in a "
           "triad\n"
           "         (equal kernels are one, with the scope of the first)\n",
           r->peak / 1e9, r->triad / 1e9);
    print_header("algorithm and kernel");
    print_groups(r, r->groups, r->n_groups, 0.001);
    print_header("algorithm and kind");
    print_groups(r, r->kinds, r->n_kinds, 0);
    if (copies > 0)
        printf("%5s %8.3f %5.1f%%  outside kernels\n", "", 1e3 * copies,
               100 * copies / r->total);
    printf("%5d %8.3f ms in all kernels\n", kernels, 1e3 * r->total);
}

/* ---- measuring ---- */

static void collect(Report *r, const AqPlan *plan, const double *seconds)
{
    double copies = 0;
    int kernels = 0;
    for (int i = 0; i < plan->n_steps; i++) {
        r->total += seconds[i] / RUNS;
        if (plan->steps[i].kernel == AQ_NO_NODE)
            copies += seconds[i] / RUNS;
        else
            add_kernel(r, plan->steps[i].kernel, seconds[i] / RUNS);
        kernels += plan->steps[i].kernel != AQ_NO_NODE;
    }
    print_report(r, kernels, copies);
}

AqStatus aq_cli_bench_kernels(AqCli *cli, AqCompiled *program, int threads,
                              double peak)
{
    const AqPlan *plan = aq_compiled_plan(program);
    size_t most = (size_t)plan->n_steps + 1;
    double *seconds = calloc(most, sizeof *seconds);
    Report r = {.graph = aq_compiled_graph(program),
                .groups = calloc(most, sizeof *r.groups),
                .kinds = calloc(most, sizeof *r.kinds),
                .peak = peak,
                .triad = aq_measure_triad(threads),
                .line = columns_of_line()};
    if (!seconds || !r.groups || !r.kinds || r.triad <= 0) {
        aq_no_memory(&cli->error, most * sizeof(Group));
    } else {
        for (int i = 0; i < RUNS; i++)
            aq_compiled_profile(program, seconds);
        collect(&r, plan, seconds);
    }
    for (int i = 0; i < r.n_groups; i++)
        free(r.groups[i].shapes);
    free(r.groups);
    free(r.kinds);
    free(seconds);
    return cli->error.status;
}
