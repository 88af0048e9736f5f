/* aquatint.h as its users see it: alone, in C11, by both compilers, with every
 * warning that a careful project turns on. */
#include "ir/base/base.h"

#include <setjmp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

static const char *const flags =
    "-std=c11 -Wall -Wextra -pedantic -Wshadow -Wconversion -Wdouble-promotion "
    "-Wmissing-prototypes -Wstrict-prototypes -Woverlength-strings "
    "-Wcast-qual -Wundef -Werror -fsyntax-only -I" AQ_SOURCE_DIR
    "/frontend/dsl";

/* Every shape of call: positional alone, with options, nested. */
static const char *const program =
    "#include <aquatint.h>\n"
    "AQ_MODEL(strict, \"compiled with every warning\")\n"
    "{\n"
    "    int n = aq_option_int(m, \"n\", 8, \"a number\");\n"
    "    double r = aq_option_real(m, \"r\", 0.5, \"one more\", .max = 1);\n"
    "    AqInts l = aq_option_ints(m, \"l\", \"1,2\", \"a list\");\n"
    "    aq_option_among(m, \"l\", l, \"numbers\");\n"
    "    bool b = aq_option_bool(m, \"b\", true, \"yes or no\");\n"
    "    int c = aq_option_choice(m, \"c\", \"u\", \"u or v\",\n"
    "                             .choices = \"u|v\");\n"
    "    AqTensor x = aq_conv2d(m->scope, m->x, n);\n"
    "    x = aq_conv2d(aq_sub(m->scope, \"a.%d\", l.at[0]), x, n, .stride = "
    "2,\n"
    "                  .padding = AQ_PAD(0, 1, 0, 1), .no_bias = b);\n"
    "    x = aq_group_norm(aq_sub(m->scope, \"b\"), x, .groups = 4 + c);\n"
    "    x = aq_dropout(aq_sub(m->scope, \"d\"), x, r);\n"
    "    x = aq_concat(-1, x, aq_silu(x), aq_scale(x, 2));\n"
    "    AqTensor s = aq_sum(x), k = aq_mean(x, .axes = AQ_AXES(1, 2));\n"
    "    AqTensor w = aq_param(m->scope, \"w\", AQ_SHAPE(aq_channels(x), n),\n"
    "                          .init = AQ_INIT_ONES);\n"
    "    k = aq_matmul(k, w, .transpose_b = false);\n"
    "    k = aq_reshape(k, AQ_SHAPE(aq_batch(k), -1, 2));\n"
    "    k = aq_attention(k, k, k, .causal = true);\n"
    "    if (aq_is_none(m->labels))\n"
    "        return aq_model_fail(m, \"%d classes\", m->classes);\n"
    "    aq_minimize(s, (AqOptimizer){.rate = {.base = 1e-3}, .clip = 1});\n"
    "    return aq_add(k, aq_full(m->scope.graph, AQ_SCALAR, r));\n"
    "}\n";

static void compile(const char *compiler, const char *source)
{
    char command[2000];
    snprintf(command, sizeof(command), "%s %s %s", compiler, flags, source);
    int status = system(command);
    if (status != 0)
        fail_msg("%s does not accept %s", compiler, source);
}

static bool is_installed(const char *compiler)
{
    char command[100];
    snprintf(command, sizeof(command), "command -v %s >/dev/null", compiler);
    return system(command) == 0;
}

static void strict(void **state)
{
    (void)state;
    static const char *const compilers[] = {"gcc", "clang"};
    char path[] = "/tmp/aquatint-header-XXXXXX.c";
    int file = mkstemps(path, 2);
    assert_true(file >= 0);
    assert_int_equal(write(file, program, strlen(program)), strlen(program));
    close(file);
    int tried = 0;
    for (int i = 0; i < AQ_COUNT(compilers); i++) {
        if (!is_installed(compilers[i]))
            continue;
        compile(compilers[i], path);
        compile(compilers[i], AQ_SOURCE_DIR "/models/mlp2d.c");
        compile(compilers[i], AQ_SOURCE_DIR "/models/ddpm_unet.c");
        tried++;
    }
    unlink(path);
    assert_true(tried > 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(strict),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
