/* The register tile stays in registers: no loop of its assembly touches the
 * stack, at any height, in both forms, on both levels. */
#include "codegen/codegen.h"
#include "ir/tiles.h"
#include "tests/support/bench.h"

#include <dirent.h>
#include <setjmp.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

enum { HEIGHTS = 6, KERNELS = 2 * HEIGHTS };

static AqId arg(AqGraph *body, int index, AqType type)
{
    AqAttr attr = aq_int(AQ_KEY_INDEX, index);
    return aq_build(body, AQ_OP_arg, &type, NULL, 0, &attr, 1);
}

/* (24 + rows, 20) x (20, 70): whole tiles and one of that many rows; strips of
 * all vectors and of one. */
static AqId product(AqBench *bench, AqGraph *body, int rows, bool ta)
{
    int64_t m = 24 + rows, k = 20, n = 70;
    AqType a = ta ? F32(k, m) : F32(m, k);
    AqId x = arg(body, 0, a), y = arg(body, 1, F32(k, n));
    aq_graph_output(body, "out", aq_matmul_node(body, x, y, ta, false), false);
    char names[2][16];
    snprintf(names[0], sizeof names[0], "a%d.%d", rows, ta);
    snprintf(names[1], sizeof names[1], "b%d.%d", rows, ta);
    AqAttr attrs[] = {aq_text(AQ_KEY_KIND, "contract"), aq_body(body)};
    return aq_bench_build(bench, AQ_OP_kernel, NULL,
                          INPUTS(aq_bench_random(bench, names[0], a),
                                 aq_bench_random(bench, names[1], F32(k, n))),
                          attrs, 2);
}

static bool is_label(const char *line)
{
    return line[0] == '.' && line[1] == 'L' && strchr(line, ':');
}

/* Lines since a label. */
typedef struct Stretch {
    char label[64], spill[512];
} Stretch;

/* Whether the line jumps to that label. */
static bool jumps_to(const char *line, const char *label)
{
    const char *target = strstr(line, ".LBB");
    size_t length = strlen(label);
    return line[0] == '\t' && line[1] == 'j' && label[0] && target &&
           !strncmp(target, label, length) &&
           strcspn(target, " \t\n#") == length;
}

/* Lines from a label to the jump back to it are an inner loop; one label may
 * stand between, where it is entered.  Counts those, and fails where one has
 * the stack in it. */
static int check_assembly(const char *path)
{
    FILE *file = fopen(path, "r");
    assert_non_null(file);
    char line[512];
    Stretch now = {"", ""}, before = {"", ""};
    int loops = 0;
    while (fgets(line, sizeof line, file)) {
        if (is_label(line)) {
            before = now;
            now.spill[0] = '\0';
            snprintf(now.label, sizeof now.label, "%.*s",
                     (int)AQ_MIN(strcspn(line, ":"), 60), line);
        } else if (strstr(line, "mm") && strstr(line, "(%rsp)")) {
            fail_msg("%s: a vector on the stack: %s", path, line);
        } else if (strstr(line, "(%rsp)")) {
            memcpy(now.spill, line, sizeof now.spill);
        } else if (jumps_to(line, now.label) || jumps_to(line, before.label)) {
            bool outer = jumps_to(line, before.label);
            loops++;
            if (now.spill[0] || (outer && before.spill[0]))
                fail_msg("%s: the loop %s uses the stack: %s%s", path,
                         outer ? before.label : now.label, now.spill,
                         outer ? before.spill : "");
        }
    }
    fclose(file);
    return loops;
}

/* Checks and removes all that was written; the number of tiles among it. */
static int check_folder(const char *folder)
{
    DIR *dir = opendir(folder);
    assert_non_null(dir);
    int tiles = 0;
    for (struct dirent *entry; (entry = readdir(dir));) {
        char path[600];
        if (entry->d_name[0] == '.')
            continue;
        snprintf(path, sizeof path, "%s/%s", folder, entry->d_name);
        size_t length = strlen(path);
        if (!strncmp(entry->d_name, "micro_", 6) &&
            !strcmp(path + length - 2, ".s")) {
            assert_true(check_assembly(path) >= 2); /* by four, one by one */
            tiles++;
        }
        unlink(path);
    }
    closedir(dir);
    rmdir(folder);
    return tiles;
}

static void loops_stay_in_registers(void **state)
{
    (void)state;
    for (int level = 3; level <= 4; level++) {
        AqTarget target;
        AqError error = {0};
        if (aq_target_host(level, &target, NULL))
            continue; /* this processor has less */
        AqBench bench = aq_bench_new(1);
        AqGraph *bodies[KERNELS];
        AqId kernels[KERNELS];
        for (int i = 0; i < KERNELS; i++) {
            bodies[i] = aq_graph_new();
            assert_non_null(bodies[i]);
            kernels[i] = product(&bench, bodies[i], i % HEIGHTS, i >= HEIGHTS);
        }
        char folder[] = "/tmp/aquatint-micro-XXXXXX";
        assert_non_null(mkdtemp(folder));
        AqCompileOptions options = {.no_cache = true, .dump_dir = folder};
        AqCode *code =
            aq_compile(bench.g, kernels, KERNELS, &target, &options, &error);
        if (!code)
            fail_msg("%s", error.text);
        aq_code_free(code);
        /* every height of a tile that is read in place, two widths */
        assert_true(check_folder(folder) >= 2 * aq_tile_rows(&target));
        for (int i = 0; i < KERNELS; i++)
            aq_graph_free(bodies[i]);
        aq_bench_free(&bench);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(loops_stay_in_registers),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
