/* Runs from the beginning to the end, stopped, killed, resumed and sampled
 * from, as somebody at a shell would. */
#include "ir/ir.h"
#include "tests/cli/program.h"

#include <setjmp.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define MODEL                                                                  \
    "--size 8 --batch 2 --set channels=32 --set mults=1,2 --set blocks=1 "     \
    "--data emoji:smileys --samples 2 --sample-steps 2 --log-every 2 "
#define TRAIN "train ddpm_unet " MODEL

static int setup(void **state)
{
    if (aq_program_setup(state))
        return -1;
    return aq_shell("aquatint " TRAIN "--crop random --steps 8 --out whole");
}

/* The weights, their average and the optimizer's arrays of two runs. */
static void check_same_bits(const char *a, const char *b, int step)
{
    const char *const files[] = {"weights", "ema", "optimizer"};
    for (int i = 0; i < AQ_COUNT(files); i++) {
        char x[200], y[200];
        snprintf(x, sizeof x, "%s/checkpoints/%06d/%s.safetensors", a, step,
                 files[i]);
        snprintf(y, sizeof y, "%s/checkpoints/%06d/%s.safetensors", b, step,
                 files[i]);
        if (!aq_same_files(x, y))
            fail_msg("%s and %s differ", x, y);
    }
}

static void test_what_a_run_leaves(void **state)
{
    (void)state;
    assert_int_equal(
        aq_shell("cd whole && test -s run.json && test -s model.c && test -s "
                 "loss.svg && test -s samples/000008.png && test -s "
                 "samples/000008-nearest.png && test -s "
                 "checkpoints/000008/state.json && test -s graph.svg && test "
                 "$(ls -A | wc -l) = 7"),
        0);
    assert_int_equal(
        aq_shell("cmp whole/model.c %s/models/ddpm_unet.c", AQ_SOURCE_DIR), 0);
    aq_shell("cut -d, -f1 whole/metrics.csv | tr '\\n' ' '");
    assert_string_equal(aq_printed(), "step 2 4 6 8 ");
    aq_expect(0, "step 8 (8 updates)", "info whole");
    assert_non_null(strstr(aq_printed(), "data        emoji:smileys, 8x8x3, "
                                         "batch 2, flips, random crops\n"));
}

static void test_progress_in_plain_lines(void **state)
{
    (void)state;
    aq_expect(0, NULL, TRAIN "--steps 3 --out plain");
    assert_null(strchr(aq_complained(), '\r'));
    assert_non_null(strstr(aq_complained(), "\nstep 3/3  loss "));
    assert_non_null(strstr(aq_complained(), "\nmemory  "));
    assert_non_null(strstr(aq_complained(), " more while samples are drawn\n"));
    assert_non_null(strstr(aq_complained(), "\ndone    3 steps in "));
    assert_string_equal(aq_printed(), "");
}

/* A number of the line about memory, where `text` ends. */
static double memory_before(const char *text)
{
    const char *at = strstr(strstr(aq_complained(), "\nmemory  "), text);
    while (at[-1] != ' ')
        at--;
    return strtod(at, NULL);
}

/* A budget that has not room for all samples at once: some at a time, and the
 * same pictures. */
static void test_samples_within_a_budget(void **state)
{
    (void)state;
    const char *train = "train ddpm_unet " MODEL
                        "--size 32 --steps 1 --samples 16 --sample-steps 2";
    aq_expect(0, NULL, "%s --out roomy", train);
    double held = memory_before(" MiB: parameters");
    double more = memory_before(" more while samples");
    aq_expect(0, NULL, "%s --memory %.0fM --out tight", train,
              held + 1 + more / 2);
    /* what is held is printed in whole MiB */
    assert_true(memory_before(" more while samples") <= more / 2 + 2);
    assert_int_equal(aq_shell("cmp roomy/samples/000001.png "
                              "tight/samples/000001.png"),
                     0);
}

static void test_same_bits_for_any_threads(void **state)
{
    (void)state;
    const int threads[] = {1, 3, 8};
    for (int i = 0; i < AQ_COUNT(threads); i++) {
        char name[20];
        snprintf(name, sizeof name, "threads%d", threads[i]);
        aq_expect(0, NULL,
                  TRAIN "--crop random --steps 8 --threads %d --out %s",
                  threads[i], name);
        check_same_bits("whole", name, 8);
    }
}

static void test_same_bits_when_resumed(void **state)
{
    (void)state;
    for (int k = 1; k < 8; k += 2) {
        char name[20];
        snprintf(name, sizeof name, "part%d", k);
        aq_expect(0, NULL,
                  TRAIN "--crop random --steps %d --threads %d --out %s", k,
                  1 + k % 3, name);
        aq_shell("cp %s/run.json kept.json", name);
        aq_expect(0, NULL, "train --resume %s --steps 8 --threads %d", name,
                  1 + (k + 1) % 3);
        assert_non_null(strstr(aq_complained(), "\nresumed "));
        check_same_bits("whole", name, 8);
        assert_int_equal(aq_shell("cmp kept.json %s/run.json", name), 0);
    }
    aq_expect(0, NULL, "train --resume whole"); /* nothing is left to do */
    check_same_bits("whole", "part1", 8);
}

static void test_other_seeds_are_other_runs(void **state)
{
    (void)state;
    aq_expect(0, NULL, TRAIN "--crop random --steps 8 --seed 1 --out seed1");
    assert_int_not_equal(aq_shell("cmp whole/checkpoints/000008/"
                                  "weights.safetensors seed1/checkpoints/"
                                  "000008/weights.safetensors"),
                         0);
}

static void test_rows_of_a_lost_future_go(void **state)
{
    (void)state;
    aq_expect(0, NULL, TRAIN "--steps 4 --out rows");
    aq_shell("echo 6,1,2,3,4,5 >>rows/metrics.csv; printf '8,1,2' "
             ">>rows/metrics.csv");
    aq_expect(0, NULL, "train --resume rows --steps 8");
    aq_shell("cut -d, -f1 rows/metrics.csv | tr '\\n' ' '");
    assert_string_equal(aq_printed(), "step 2 4 6 8 ");
}

/* ---- samples ---- */

static void test_samples(void **state)
{
    (void)state;
    aq_expect(0, NULL, "sample whole --count 3 --steps 3 --out a.png");
    assert_string_equal(aq_complained(), "wrote 3 pictures to a.png\n");
    aq_expect(0, NULL,
              "sample whole --count 3 --steps 3 --out b.png --batch 1 "
              "--threads 1");
    assert_true(aq_same_files("a.png", "b.png"));
    aq_expect(0, NULL, "sample whole --count 3 --steps 3 --out c.png --seed 2");
    assert_false(aq_same_files("a.png", "c.png"));
    aq_expect(0, NULL, "sample whole --count 3 --steps 3 --out d.png --raw");
    assert_false(aq_same_files("a.png", "d.png"));
    aq_expect(0, NULL,
              "sample whole --count 2 --steps 3 --out e.png --nearest "
              "near.png --eta 1");
    assert_int_equal(aq_shell("test -s near.png"), 0);
    aq_expect(0, NULL, "sample whole --count 1 --sampler ddpm --out f.png");
}

static void test_samples_that_cannot_be(void **state)
{
    (void)state;
    aq_expect(1, "class 3: the model knows no classes",
              "sample whole --count 1 --steps 1 --label 3");
    aq_expect(1, "--steps 1001: must lie between 1 and 1000",
              "sample whole --steps 1001");
    aq_expect(1, "--guidance: the run was not trained with --labels",
              "sample whole --guidance 2");
    aq_expect(1, "no/where.png: cannot write: No such file or directory",
              "sample whole --count 1 --steps 1 --out no/where.png");
    aq_expect(1, "--out grid.jpg: pictures are written as .png",
              "sample whole --out grid.jpg");
    aq_shell("cp -r whole bare; rm -r bare/checkpoints/*");
    aq_expect(1, "bare: has no checkpoint yet", "sample bare");
}

static void test_classes(void **state)
{
    (void)state;
    aq_expect(0, NULL, TRAIN "--labels --steps 2 --out classes");
    aq_expect(0, NULL,
              "sample classes --count 2 --steps 2 --label 3 "
              "--guidance 2 --out g.png");
    aq_expect(0, NULL,
              "sample classes --count 2 --steps 2 --label 3 --out "
              "h.png");
    aq_expect(1, "class 99: the model knows classes 0 to 15",
              "sample classes --count 2 --steps 2 --label 99");
    aq_expect(0, NULL, "train --resume classes --steps 3");
}

static void test_points(void **state)
{
    (void)state;
    const char *const train = "train mlp2d --set width=16 --data points:moons "
                              "--batch 32 --samples 20 --sample-steps 3 ";
    aq_expect(0, NULL, "%s --steps 8 --out points", train);
    aq_expect(0, NULL, "%s --steps 3 --out points3 --threads 1", train);
    aq_expect(0, NULL, "train --resume points3 --steps 8 --threads 3");
    check_same_bits("points", "points3", 8);
    assert_int_equal(aq_shell("cd points/samples && test -s 000008.csv && test "
                              "-s 000008.svg"),
                     0);
    assert_true(aq_same_files("points/samples/000008.csv",
                              "points3/samples/000008.csv"));
    aq_expect(0, NULL, "sample points --count 5 --steps 2 --out p.csv");
    assert_int_equal(aq_shell("test $(wc -l <p.csv) -ge 5"), 0);
}

/* ---- stopping ---- */

/* Starts a long run, waits for a row of metrics, and sends a signal. */
#define UNTIL_A_ROW(name)                                                      \
    "while test $(wc -l <" name "/metrics.csv || echo 0) -lt 2; do sleep "     \
    "0.05; done 2>/dev/null; "

static void check_stopped(const char *signal_name, const char *steps)
{
    aq_shell("rm -rf long; %s " TRAIN "%s --out long & pid=$!; " UNTIL_A_ROW(
                 "long") "kill -%s $pid; wait $pid; echo $?",
             AQ_PROGRAM, steps, signal_name);
    assert_string_equal(aq_printed(), "130\n");
    assert_int_equal(strstr(aq_complained(), "\nuntil   Ctrl-C") != NULL,
                     !*steps);
    const char *said = strstr(aq_complained(), "\nstopped after step ");
    assert_non_null(said);
    int step = atoi(said + strlen("\nstopped after step "));
    assert_non_null(strstr(said, "; go on with: aquatint train --resume long"));
    aq_expect(0, NULL, "train --resume long --steps %d", step + 3);
    aq_expect(0, NULL, TRAIN "--steps %d --out never%s", step + 3, signal_name);
    char never[40];
    snprintf(never, sizeof never, "never%s", signal_name);
    check_same_bits(never, "long", step + 3);
}

static void test_ctrl_c(void **state)
{
    (void)state;
    check_stopped("INT", "--steps 1000000");
    check_stopped("TERM", ""); /* the default: until it is stopped */
}

/* While the large model is being compiled. */
static void test_ctrl_c_twice(void **state)
{
    (void)state;
    double began = aq_seconds();
    aq_shell("%s train ddpm_unet --data emoji:smileys --steps 10 --no-cache "
             "--out twice & pid=$!; sleep 0.5; kill -INT $pid; sleep 0.1; "
             "kill -INT $pid; wait $pid; echo $?",
             AQ_PROGRAM);
    assert_string_equal(aq_printed(), "130\n");
    assert_true(aq_seconds() - began < 5);
}

static void test_one_process_a_run(void **state)
{
    (void)state;
    aq_shell("%s " TRAIN "--steps 1000000 --out busy & pid=$!; " UNTIL_A_ROW(
                 "busy") "aquatint train --resume busy --steps 9; echo $?; "
                         "kill -INT $pid; wait $pid",
             AQ_PROGRAM);
    assert_string_equal(aq_printed(), "1\n");
    assert_non_null(strstr(aq_complained(), "aquatint: busy: another process "
                                            "is training this run\n"));
}

/* ---- what goes wrong ---- */

static void test_steps_that_are_not_finite(void **state)
{
    (void)state;
    aq_expect(1, "10 steps in a row were not finite: training ends at step ",
              TRAIN "--steps 100 --save-every 1 --optimizer sgd --lr 100 "
                    "--clip 0 --out wild");
    assert_non_null(strstr(aq_complained(), "was skipped: the loss is not "
                                            "finite"));
    size_t bytes;
    char *csv = aq_contents("wild/metrics.csv", &bytes);
    assert_non_null(strstr(csv, ",nan,")); /* a row all of whose losses are */
    assert_null(strstr(csv, "-nan"));
    free(csv);
    aq_expect(0, "updates)", "info wild");
    aq_expect(0, NULL, "sample wild --count 1 --steps 1 --raw --out wild.png");
}

static void test_a_full_disk(void **state)
{
    (void)state;
    aq_shell("cp -r part1 full; cp -r full/checkpoints kept");
    aq_expect(1, "cannot write: File too large\n",
              "--version; ulimit -f 1000; aquatint train --resume full "
              "--steps 10");
    assert_int_equal(aq_shell("diff -r full/checkpoints kept"), 0);
    aq_expect(0, NULL, "train --resume full --steps 10");
}

static void test_a_folder_that_is_read_only(void **state)
{
    (void)state;
    if (aq_shell("mkdir ro; chmod a-w ro; touch ro/x") == 0)
        skip(); /* as root one may */
    aq_expect(1, "ro/run: cannot make the folder: Permission denied",
              TRAIN "--steps 1 --out ro/run");
}

static void test_nobody_listens(void **state)
{
    (void)state;
    aq_shell("{ aquatint " TRAIN "--steps 3 --out quiet; echo $? >status; } "
             "2>&1 | head -c 1 >/dev/null; cat status");
    assert_string_equal(aq_printed(), "0\n");
    aq_shell("aquatint " TRAIN "--steps 3 --out mute <&- >&- 2>&-; "
             "echo $?");
    assert_string_equal(aq_printed(), "0\n");
    check_same_bits("quiet", "mute", 3);
    check_same_bits("quiet", "plain", 3);
}

static void test_damage_is_refused(void **state)
{
    (void)state;
    aq_shell("cp -r part1 hurt; printf x | dd of=hurt/checkpoints/000008/"
             "ema.safetensors bs=1 seek=5000 conv=notrunc");
    aq_expect(1, "hurt/checkpoints/000008/ema.safetensors: is damaged",
              "train --resume hurt --steps 9");
    aq_expect(1, "ema.safetensors: is damaged", "sample hurt --steps 2");
    aq_shell("rm -r hurt/checkpoints/000008");
    aq_expect(0, NULL,
              "train --resume hurt --steps 8"); /* from the one before */
    check_same_bits("whole", "hurt", 8);
    aq_shell("sed -i 's/\"log_every\": 2/\"log_every\": 0/' hurt/run.json");
    aq_expect(1, "hurt/run.json: run.log_every is missing or wrong",
              "train --resume hurt --steps 9");
}

static void test_data_that_changed(void **state)
{
    (void)state;
    aq_shell("mkdir pics; cp a.png pics/1.png; cp c.png pics/2.png");
    aq_expect(0, NULL,
              TRAIN "--steps 2 --data pics --out changed"); /* the last wins */
    aq_expect(0, NULL, "train --resume changed --steps 3");
    assert_null(strstr(aq_complained(), "warning"));
    aq_shell("cp d.png pics/3.png");
    aq_expect(0, NULL, "train --resume changed --steps 4");
    assert_non_null(strstr(aq_complained(),
                           "aquatint: warning: the data are not those that the "
                           "run was begun with"));
}

/* From any folder; and when the data have gone elsewhere. */
static void test_data_that_moved(void **state)
{
    (void)state;
    aq_shell("mkdir -p at/other; mv pics at/pics; printf '0,1\\n1,0\\n2,2\\n' "
             ">at/two.csv");
    assert_int_equal(aq_shell("cd at && aquatint " TRAIN
                              "--steps 2 --data ./pics --out run"),
                     0);
    assert_int_equal(aq_shell("cd at/other && aquatint train --resume ../run "
                              "--steps 3 && aquatint sample ../run --count 1 "
                              "--steps 1 --nearest near.png"),
                     0);
    assert_null(strstr(aq_complained(), "warning"));
    assert_int_equal(aq_shell("cd at && aquatint train mlp2d --steps 2 --set "
                              "width=8 --data points:two.csv --samples 1 "
                              "--out dots && cd other && "
                              "aquatint train --resume ../dots --steps 3"),
                     0);
    aq_shell("mv at/pics at/gone");
    aq_expect(1,
              "/at/pics: the data of this run (--data ./pics) are not there "
              "any more: bring them back, or say with --data where",
              "train --resume at/run --steps 4");
    aq_expect(1, "/at/pics: the data of this run",
              "sample at/run --count 1 --steps 1 --nearest near.png");
    aq_expect(1, "--data points:moons: the run was begun with pictures",
              "train --resume at/run --steps 4 --data points:moons");
    aq_expect(1, "nowhere: is no folder of pictures",
              "train --resume at/run --steps 4 --data nowhere");
    aq_expect(0, NULL, "train --resume at/run --steps 4 --data at/gone");
    assert_null(strstr(aq_complained(), "warning"));
    aq_expect(0, NULL,
              "sample at/run --count 1 --steps 1 --nearest near.png "
              "--data at/gone");
    /* with its run, as a whole */
    assert_int_equal(aq_shell("mv at/gone at/pics; mv at moved; cd moved && "
                              "aquatint train --resume run --steps 5"),
                     0);
}

/* A model of one's own is kept with the run. */
static void test_a_model_of_one_s_own(void **state)
{
    (void)state;
    aq_shell("sed s/AQ_MODEL.ddpm_unet,/AQ_MODEL\\(mine,/ "
             "%s/models/ddpm_unet.c >mine.c",
             AQ_SOURCE_DIR);
    aq_expect(0, NULL,
              "train mine.c " MODEL "--crop random --steps 5 --out "
              "own");
    assert_non_null(strstr(aq_complained(), "model   mine, "));
    assert_int_equal(aq_shell("rm mine.c && rm own/model.so"), 0);
    aq_expect(0, NULL, "train --resume own --steps 8");
    check_same_bits("whole", "own", 8);
    assert_int_equal(aq_shell("test -s own/model.so"), 0);
    aq_shell("echo nonsense >mine.c");
    aq_expect(1, "mine.c: the C compiler found errors",
              "train mine.c " MODEL "--steps 5 --out none");
    assert_int_equal(aq_shell("test -e none"), 1);
    aq_expect(0, NULL, "sample own --count 1 --steps 1 --out own.png");
}

/* Measured choices are the run's: resumed on any number of threads, with
 * another cache, it goes on as if it had never stopped. */
static void test_a_tuned_run_keeps_its_choices(void **state)
{
    (void)state;
    aq_expect(0, NULL,
              TRAIN "--tune --threads 2 --steps 4 --save-every 2 --out tuned");
    assert_non_null(strstr(aq_complained(), "tune    conv2d f32[2,8,8,"));
    assert_non_null(strstr(aq_complained(), " ms (taken)"));
    assert_int_equal(aq_shell("grep -q '\"tuned\"' tuned/run.json"), 0);
    aq_shell("cp -r tuned again && rm -r again/checkpoints/000004");
    aq_expect(0, NULL, "train --resume again --steps 4 --threads 3 --no-cache");
    assert_null(strstr(aq_complained(), "tune    "));
    check_same_bits("tuned", "again", 4);
    /* The stored choices are what it computes by: others, other bits. */
    aq_shell("cp -r tuned other && rm -r other/checkpoints/000004 && "
             "sed -i 's/\"algorithm\": \"[a-z]*\"/\"algorithm\": \"blas\"/' "
             "other/run.json && tr '\\n' ' ' <other/run.json >flat && sed "
             "'s/\"blocks\": *\\[[^]]*\\]/\"blocks\": [8,32,8,1]/g' flat "
             ">other/run.json");
    aq_expect(0, NULL, "train --resume other --steps 4");
    assert_false(aq_same_files("tuned/checkpoints/000004/weights.safetensors",
                               "other/checkpoints/000004/weights.safetensors"));
}

/* Levels of instructions round differently: a run stays at its own, and to go
 * on at another is said. */
static void test_a_level_is_told_from_the_others(void **state)
{
    (void)state;
    AqTarget best, other;
    assert_int_equal(aq_target_host(0, &best, NULL), AQ_OK);
    for (int level = AQ_FIRST_LEVEL; level <= AQ_LAST_LEVEL; level++) {
        char sentence[300];
        if (level == best.level || aq_target_host(level, &other, NULL))
            continue;
        aq_expect(0, NULL, TRAIN "--level %d --steps 1 --out level%d", level,
                  level);
        assert_null(strstr(aq_complained(), "warning"));
        aq_expect(0, NULL, "train --resume level%d --steps 2", level);
        assert_null(strstr(aq_complained(), "warning"));
        snprintf(sentence, sizeof sentence,
                 "the run was begun for %s, this is %s: what follows is equal "
                 "up to rounding only",
                 other.name, best.name);
        aq_expect(0, NULL, "train --resume level%d --level %d --steps 3", level,
                  best.level);
        if (!strstr(aq_complained(), sentence))
            fail_msg("%s, not\n%s", sentence, aq_complained());
    }
}

/* So is an algorithm that was asked for. */
static void test_an_algorithm_stays_with_its_run(void **state)
{
    (void)state;
    aq_expect(0, NULL,
              TRAIN "--algorithm gemm --steps 4 --save-every 2 --out forced");
    aq_shell("cp -r forced on && rm -r on/checkpoints/000004");
    aq_expect(0, NULL, "train --resume on --steps 4 --threads 1");
    check_same_bits("forced", "on", 4);
    aq_expect(1, "--algorithm cannot change when a run is resumed",
              "train --resume on --algorithm gemm --steps 5");
    aq_shell("sed -i 's/\"gemm\"/\"fft\"/' on/run.json");
    aq_expect(1, "on/run.json: choices are wrong", "train --resume on");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_what_a_run_leaves),
        cmocka_unit_test(test_progress_in_plain_lines),
        cmocka_unit_test(test_samples_within_a_budget),
        cmocka_unit_test(test_same_bits_for_any_threads),
        cmocka_unit_test(test_same_bits_when_resumed),
        cmocka_unit_test(test_a_level_is_told_from_the_others),
        cmocka_unit_test(test_a_tuned_run_keeps_its_choices),
        cmocka_unit_test(test_an_algorithm_stays_with_its_run),
        cmocka_unit_test(test_other_seeds_are_other_runs),
        cmocka_unit_test(test_rows_of_a_lost_future_go),
        cmocka_unit_test(test_samples),
        cmocka_unit_test(test_samples_that_cannot_be),
        cmocka_unit_test(test_classes),
        cmocka_unit_test(test_points),
        cmocka_unit_test(test_ctrl_c),
        cmocka_unit_test(test_ctrl_c_twice),
        cmocka_unit_test(test_one_process_a_run),
        cmocka_unit_test(test_steps_that_are_not_finite),
        cmocka_unit_test(test_a_full_disk),
        cmocka_unit_test(test_a_folder_that_is_read_only),
        cmocka_unit_test(test_nobody_listens),
        cmocka_unit_test(test_damage_is_refused),
        cmocka_unit_test(test_data_that_changed),
        cmocka_unit_test(test_data_that_moved),
        cmocka_unit_test(test_a_model_of_one_s_own),
    };
    return cmocka_run_group_tests_name("run", tests, setup,
                                       aq_program_teardown);
}
