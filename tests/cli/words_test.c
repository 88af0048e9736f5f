/* What the program says: help, versions, and a sentence for every mistake. */
#include "tests/cli/program.h"

#include <setjmp.h>
#include <string.h>

#include <cmocka.h>

#define SMALL "--size 8 --batch 2 --set channels=32 --set mults=1,2"
#define TRAIN "train ddpm_unet --out run --steps 2 "
#define SMILEYS "--data emoji:smileys "

static const char *const commands[] = {"train", "sample", "graph",
                                       "info",  "bench",  "plan"};

/* No line is longer than a terminal. */
static void check_width(const char *text)
{
    for (const char *line = text; *line; line += strcspn(line, "\n") + 1) {
        if (strcspn(line, "\n") > 80)
            fail_msg("longer than 80: %.100s", line);
        if (!strchr(line, '\n'))
            break;
    }
}

static void test_help(void **state)
{
    (void)state;
    aq_expect(0, "usage: aquatint COMMAND", "--help");
    for (int i = 0; i < AQ_COUNT(commands); i++) {
        assert_non_null(strstr(aq_printed(), commands[i]));
    }
    for (int i = 0; i < AQ_COUNT(commands); i++) {
        char usage[64];
        snprintf(usage, sizeof usage, "usage: aquatint %s ", commands[i]);
        aq_expect(0, usage, "%s --help", commands[i]);
        check_width(aq_printed());
        assert_string_equal(aq_complained(), "");
        aq_expect(0, usage, "%s -h", commands[i]);
    }
    aq_expect(2, "usage: aquatint COMMAND", "%s", "");
}

static void test_version(void **state)
{
    (void)state;
    aq_expect(0, "aquatint " AQ_VERSION "\n", "--version");
    assert_non_null(strstr(aq_printed(), "LLVM"));
    assert_non_null(strstr(aq_printed(), "OpenBLAS"));
    assert_non_null(strstr(aq_printed(), "\nprocessor "));
    assert_non_null(strstr(aq_printed(), " processors, vectors of "));
}

typedef struct Mistake {
    const char *arguments;
    int status;
    const char *sentence; /* the end of stderr is "aquatint: " and this */
} Mistake;

static void check(const Mistake *mistakes, int count)
{
    for (int i = 0; i < count; i++) {
        const Mistake *m = &mistakes[i];
        aq_expect(m->status, m->sentence, "%s", m->arguments);
        const char *last = strstr(aq_complained(), "aquatint: ");
        for (const char *at = last; at; at = strstr(at + 1, "\naquatint: "))
            last = at;
        if (!last || !strstr(last, m->sentence) ||
            strchr(strstr(last, m->sentence), '\n')[1])
            fail_msg("%s: not the last line:\n%s", m->arguments,
                     aq_complained());
    }
}

static void test_words(void **state)
{
    (void)state;
    const Mistake mistakes[] = {
        {"trian", 2,
         "unknown command trian: did you mean train (aquatint --help lists "
         "them)"},
        {"train --stps 4", 2,
         "unknown option --stps: did you mean --steps (aquatint train --help "
         "lists them)"},
        {"train -x", 2, "unknown option -x (aquatint train --help lists them)"},
        {"train --no-flip=3", 2, "option --no-flip takes no value"},
        {TRAIN "--batch", 2, "option --batch needs a value"},
        {TRAIN "--data ''", 2, "option --data needs a value"},
        {"info ''", 2, "one of the words is empty"},
        {"train", 1,
         "no model: give a C file, or the name of a model of the library"},
        {"train ddpm_unet mlp2d", 1, "one model at a time"},
        {"train ddpm_unet --steps 3", 1,
         "--out is missing: the folder of the run"},
        {TRAIN, 1,
         "--data is missing: a folder of pictures, emoji, or points:moons"},
        {"sample", 1, "give the folder of one run (aquatint sample --help)"},
        {"bench", 1, "give one model"},
        {"plan", 1, "give one model"},
        {"plan mlp2d --batch 1,x", 1,
         "--batch 1,x: write numbers from 1 to 65536 with commas between them"},
        {"plan dit --classes 0", 1,
         "--classes 0: must lie between 1 and 1000000"},
        {"info", 1, "give a run's folder, a model or a .safetensors file"},
        {"graph mlp2d", 1, "say where the picture goes: --out graph.svg"},
        {"graph mlp2d --out graph.gif", 1,
         "graph.gif: a picture's name ends in .dot, .svg or .png"},
        {"graph mlp2d --out no/where.svg", 1,
         "no/where.svg.dot: cannot write: No such file or directory"},
        {"graph mlp2d --out graph.svg --ema 0.9", 1,
         "--ema is for the training step: leave it out, or give --stage "
         "training, optimized or kernels"},
        {"graph mlp2d --stage model --out graph.svg --schedule cosine", 1,
         "--schedule is for the training step: leave it out, or give --stage "
         "training, optimized or kernels"},
        {"graph mlp2d --stage training --out graph.svg --level 3", 1,
         "--level is for passes: leave it out, or give --stage optimized or "
         "kernels"},
        {"graph mlp2d --stage training --out graph.svg --time-passes", 1,
         "--time-passes is for passes: leave it out, or give --stage optimized "
         "or kernels"},
        {"graph mlp2d --stage optimized --out graph.svg --dump choose", 1,
         "--dump choose: --stage optimized ends before this pass: give --stage "
         "kernels"},
        {"graph mlp2d --stage fused --out graph.svg", 1,
         "--stage fused: must be one of model, training, optimized, kernels"},
    };
    check(mistakes, AQ_COUNT(mistakes));
}

/* "aquatint COMMAND" with so many times the same after it. */
static void refuse_many(const char *command, const char *word, int count,
                        int status, const char *sentence)
{
    AqText line = {0};
    aq_text_add(&line, command);
    for (int i = 0; i < count; i++)
        aq_text_printf(&line, " %s", word);
    aq_expect(status, sentence, "%s", line.data);
    aq_text_free(&line);
}

static void test_too_many(void **state)
{
    (void)state;
    refuse_many("info mlp2d", "--set width=8", 65, 2,
                "more than 64 times --set");
    refuse_many("info", "mlp2d", 65, 2, "too many words");
    refuse_many("plan mlp2d --batch 1",
                "--batch 1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1"
                ",1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1",
                1, 1, "--batch: at most 32 numbers");
}

static void test_values(void **state)
{
    (void)state;
    const Mistake mistakes[] = {
        {TRAIN SMILEYS "--batch x", 1, "--batch x: not a whole number"},
        {TRAIN SMILEYS "--batch 0", 1,
         "--batch 0: must lie between 1 and 65536"},
        {TRAIN SMILEYS "--batch 99999999999999999999", 1,
         "--batch 99999999999999999999: must lie between 1 and 65536"},
        {TRAIN SMILEYS "--minutes 0", 1,
         "--minutes 0: must lie between 0.0001 and 1000000"},
        {TRAIN SMILEYS "--lr nan", 1, "--lr nan: not a number"},
        {TRAIN SMILEYS "--ema 1", 1,
         "--ema 1: must lie between 0 and 0.99999999"},
        {TRAIN SMILEYS "--size 8x", 1,
         "--size 8x: write a size such as 32, or HEIGHTxWIDTH, up to 4096"},
        {TRAIN SMILEYS "--channels 2", 1, "--channels 2: must be 1, 3 or 4"},
        {TRAIN SMILEYS "--set in_channels=2", 1,
         "--set in_channels 2: must be 1, 3 or 4"},
        {TRAIN SMILEYS "--optimizer lion", 1,
         "--optimizer lion: must be one of adamw, adam, sgd, rmsprop, adagrad"},
        {TRAIN SMILEYS "--label-dropout 0.2", 1,
         "--label-dropout hides the classes of --labels: give both, or "
         "neither"},
        {"train ddpm_unet --out run --minutes 1 --rate cosine " SMILEYS, 1,
         "--rate cosine falls to 0 at the last step: give --steps"},
        {"train ddpm_unet --out run --steps 9 --rate linear --warmup "
         "9 " SMILEYS,
         1, "--warmup 9 leaves nothing of 9 steps to --rate linear"},
        {TRAIN SMILEYS "--optimizer sgd --beta1 0.8", 1,
         "--beta1 is for adamw and adam, and the optimizer is sgd: leave it "
         "out"},
        {TRAIN SMILEYS "--optimizer rmsprop --beta2 0.99", 1,
         "--beta2 is for adamw and adam, and the optimizer is rmsprop: leave "
         "it out"},
        {TRAIN SMILEYS "--momentum 0.5", 1,
         "--momentum is for sgd and rmsprop, and the optimizer is adamw: leave "
         "it out"},
        {"bench mlp2d --optimizer adagrad --momentum 0", 1,
         "--momentum is for sgd and rmsprop, and the optimizer is adagrad: "
         "leave it out"},
        {TRAIN SMILEYS "--memory lots", 1,
         "--memory lots: not a size (such as 300M or 8G)"},
        {TRAIN SMILEYS "--level 6", 1, "--level 6: must lie between 3 and 5"},
        {TRAIN SMILEYS "--algorithm fft", 1,
         "--algorithm fft: must be one of winograd, blas, gemm_bf16x6, gemm"},
        {TRAIN SMILEYS "--tune --algorithm gemm", 1,
         "--tune chooses algorithms by itself: leave --algorithm out"},
        {TRAIN SMILEYS "--dump fus", 1,
         "--dump fus: there is no such pass (there are: input, simplify, "
         "split, tidy, fuse, choose, order, "
         "recompute)"},
        {TRAIN SMILEYS "--dump recompute", 1,
         "--dump recompute: this pass runs with --memory alone"},
        {TRAIN SMILEYS "--timesteps 20 --sample-steps 21", 1,
         "--sample-steps 21: must lie between 1 and 20"},
        {TRAIN SMILEYS "--set channels", 1, "--set channels: write NAME=VALUE"},
    };
    check(mistakes, AQ_COUNT(mistakes));
}

static void test_models(void **state)
{
    (void)state;
    aq_shell("echo 'int x;' >none.c; echo 'int f(void) { return y; }' "
             ">broken.c; echo hello >text.png");
    const Mistake mistakes[] = {
        {TRAIN SMILEYS "--set chanels=3", 1,
         "model ddpm_unet has no option \"chanels\"; did you mean "
         "\"channels\"?"},
        {TRAIN SMILEYS "--set channels=abc", 1,
         "option channels=abc: a whole number from 1 to 65536 is needed"},
        {TRAIN SMILEYS "--set in_channels=4 --channels 3", 1,
         "option in_channels=4: the pictures have 3 channels: leave it out, or "
         "give --channels 4"},
        {TRAIN SMILEYS "--set in_channels=5", 1,
         "--set in_channels=5: must lie between 1 and 4"},
        {TRAIN SMILEYS "--set in_channels=1 --channels 3", 1,
         "option in_channels=1: the pictures have 3 channels: leave it out, or "
         "give --channels 1"},
        {"plan dit --set in_channels=1 --channels 4", 1,
         "option in_channels=1: the pictures have 4 channels: leave it out, or "
         "give --channels 1"},
        {"bench ddpm_unet --set in_channels=x", 1,
         "option in_channels=x: a whole number from 1 to 65536 is needed"},
        {"info mlp2d --set in_channels=3", 1,
         "model mlp2d has no option \"in_channels\""},
        {TRAIN SMILEYS "--size 30", 1,
         "pictures of 30x30 cannot be halved 3 times: both sides must be "
         "multiples of 8"},
        {"train mlp2d --out run --steps 2 " SMILEYS, 1,
         "mlp2d is for points (N, C), and these are images: ddpm_unet is for "
         "them"},
        {"train ddpm_unet --out run --steps 2 --data points:moons", 1,
         "ddpm_unet is for images (N, H, W, C)"},
        {"train ddpm_unit --out run --steps 2 " SMILEYS, 1,
         "there is no model \"ddpm_unit\" in the library (did you mean "
         "\"ddpm_unet\"?); there are: ddpm_unet, dit, mlp2d"},
        {"train missing.c --out run --steps 2 " SMILEYS, 1,
         "missing.c: cannot open: No such file or directory"},
        {"train none.c --out run --steps 2 " SMILEYS, 1,
         "none.c: defines no model; write AQ_MODEL(name, \"what it is\") { "
         "... }"},
        {"train broken.c --out run --steps 2 " SMILEYS, 1,
         "broken.c: the C compiler found errors (shown above)"},
        {"info text.png", 1,
         "text.png: is no model: a model is a C file (its name ends in .c) or "
         "the name of one of the library"},
        {"info ./ddpm_unet", 1, "./ddpm_unet: is no model: "},
    };
    check(mistakes, AQ_COUNT(mistakes));
    aq_expect(1, "broken.c:1:22: error: ", "info broken.c");
    aq_expect(1, "'nowhere-cc' cannot be run: No such file or directory",
              "info missing.c; CC=nowhere-cc aquatint info none.c");
}

static void test_data(void **state)
{
    (void)state;
    aq_shell("mkdir -p empty bad flat; echo hello >bad/x.png; cp "
             "%s/models/pictures/emoji.png flat; printf 'x,y\\n1,2\\n3,5\\n' "
             ">moons.csv",
             AQ_SOURCE_DIR);
    const Mistake mistakes[] = {
        {TRAIN SMALL " --data nowhere", 1,
         "nowhere: is no folder of pictures; the data can be a folder with PNG "
         "or JPEG files, emoji, emoji:smileys, or points:moons"},
        {TRAIN SMALL " --data empty", 1,
         "empty: no picture in it or below it: files are taken that end in "
         ".png, .jpg or .jpeg"},
        {TRAIN SMALL " --data bad", 1,
         "bad: none of its 1 pictures can be used; the first: bad/x.png: holds "
         "neither a PNG nor a JPEG picture"},
        {TRAIN SMALL " --data bad --labels", 1, "bad: none of its 1 pictures"},
        {TRAIN SMALL " --data flat --labels", 1,
         "--labels: flat has no classes (a class is a sub-folder)"},
        {"train mlp2d --out run --steps 2 --data points:moons.csv --labels", 1,
         "--labels: points:moons.csv has no classes"},
        {"train mlp2d --out run --steps 2 --data points:mons", 1,
         "points:mons: no points and no file have this name (did you mean "
         "points:moons?); "},
        {TRAIN SMALL " --data emjoi:smileys", 1,
         "emjoi:smileys: is no folder of pictures (did you mean "
         "emoji:smileys?); "},
        {"train mlp2d --out run --steps 2 --data points:moons --size 8", 1,
         "--size is for pictures, and points:moons are points: leave it out"},
        {TRAIN SMALL " --data emoji:nothing", 1,
         "emoji:nothing: no group of emoji is called so"},
        {TRAIN SMALL " " SMILEYS "--memory 1M", 1,
         ": choose a smaller batch, size or model"},
        {TRAIN SMALL " " SMILEYS "--memory 10", 1,
         ", and --memory allows 0.0: choose a smaller batch, size or model"},
        {"train dit --out run --steps 2 --samples 0 --size 128 --batch 1 --set "
         "layers=1 --set heads=1 --set head_channels=8 --set patch=16 " SMILEYS
         "--memory 6M",
         1, ", and --memory allows 6.0"},
    };
    check(mistakes, AQ_COUNT(mistakes));
    /* What cannot fit is known before pictures are drawn, or looked for. */
    aq_expect(1, "choose a smaller batch, size or model",
              TRAIN "--data nowhere --size 1024 --batch 64");
    assert_null(strstr(aq_complained(), "nowhere"));
    assert_int_not_equal(aq_shell("ls run"), 0); /* nothing is left behind */
}

static void test_folders(void **state)
{
    (void)state;
    aq_shell("touch file; mkdir -p run2; echo '{}' >run2/run.json; mkdir -p "
             "run3; echo '{' >run3/run.json");
    const Mistake mistakes[] = {
        {"train ddpm_unet --out run2 --steps 2 " SMILEYS, 1,
         "run2: there is a run already; go on with --resume run2, or choose "
         "another folder"},
        {"train ddpm_unet --out file --steps 2 " SMILEYS SMALL, 1,
         "cannot make the folder: Not a directory"},
        {"train ddpm_unet --out file/below --steps 2 " SMILEYS SMALL, 1,
         "file/below: cannot make the folder: Not a directory"},
        {"train ddpm_unet --out /proc/here --steps 2 " SMILEYS SMALL, 1,
         "/proc/here: cannot make the folder: "},
        {"train --resume nowhere", 1,
         "nowhere: is no run (it has no run.json)"},
        {"train --resume run2", 1, "run2/run.json: is no run of this version"},
        {"train --resume run3", 1, "run3/run.json:"},
        {"train --resume run2 --lr 3", 1,
         "--lr cannot change when a run is resumed"},
        {"train ddpm_unet --resume run2", 1,
         "ddpm_unet: a resumed run has its model already"},
        {"sample nowhere", 1, "nowhere: is no run (it has no run.json)"},
        {"info nowhere", 1,
         "there is no model \"nowhere\" in the library; there are: "},
        {"info nowhere.safetensors", 1,
         "nowhere.safetensors: cannot open: No such file or directory"},
    };
    check(mistakes, AQ_COUNT(mistakes));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_help),   cmocka_unit_test(test_version),
        cmocka_unit_test(test_words),  cmocka_unit_test(test_too_many),
        cmocka_unit_test(test_values), cmocka_unit_test(test_models),
        cmocka_unit_test(test_data),   cmocka_unit_test(test_folders),
    };
    return cmocka_run_group_tests_name("words", tests, aq_program_setup,
                                       aq_program_teardown);
}
