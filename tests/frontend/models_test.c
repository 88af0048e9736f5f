/* The models in the library: how large they are, what they may be told. */
#include "frontend/dsl/dsl.h"

#include <setjmp.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static AqGraph *forward(AqTask task, const AqOptions **options)
{
    AqError error = {0};
    AqGraph *g = aq_forward_graph(&task, options, &error);
    if (!g)
        fail_msg("%s", error.text);
    return g;
}

static AqTask task_of(const char *model, const AqSetting *settings, int count)
{
    AqError error = {0};
    const AqModelInfo *info = aq_builtin_find(model, &error);
    if (!info)
        fail_msg("%s", error.text);
    return (AqTask){.model = info, .settings = settings, .n_settings = count};
}

static void expect_parameters(AqTask task, int64_t parameters)
{
    AqGraph *g = forward(task, NULL);
    AqError error = {0};
    if (aq_graph_verify(g, &error) != AQ_OK)
        fail_msg("%s", error.text);
    const AqParamTable *table = aq_params(g);
    assert_int_equal(table->trained, parameters);
    aq_graph_free(g);
}

static AqTask ddpm(int size, int channels, const AqSetting *settings, int count)
{
    AqTask task = task_of("ddpm_unet", settings, count);
    task.batch = 2;
    task.height = task.width = size;
    task.channels = channels;
    return task;
}

/* The counts that diffusers' UNet2DModel has. */
static void ddpm_has_the_published_sizes(void **state)
{
    (void)state;
    AqSetting nano[] = {{"channels", "32"},
                        {"mults", "1,2,2"},
                        {"blocks", "1"},
                        {"attention", "8"}};
    AqSetting tiny[] = {{"channels", "64"}};
    expect_parameters(ddpm(32, 3, NULL, 0), 35746307);
    expect_parameters(ddpm(32, 1, nano, 4), 1112801);
    expect_parameters(ddpm(32, 3, tiny, 1), 8952067);
}

/* DiT-S/2 on 32 x 32 x 4 latents of 1000 classes: the published 32.96 million
 * less 98,304 frozen positions; diffusers has the embeddings in each of the 12
 * blocks.  And the published multiply-adds. */
static void dit_has_the_published_size(void **state)
{
    (void)state;
    AqTask task = task_of("dit", NULL, 0);
    task.batch = 1;
    task.height = task.width = 32;
    task.channels = 4;
    task.classes = 1000;
    task.label_dropout = 0.1;
    int64_t embeddings = 256 * 384 + 384 + 384 * 384 + 384 + 1001 * 384;
    AqGraph *g = forward(task, NULL);
    assert_int_equal(aq_params(g)->trained, 32858896 + 11 * embeddings);
    double macs = aq_graph_flops(g) / 2;
    assert_true(macs > 6.05e9 && macs < 6.06e9);
    aq_graph_free(g);
}

static void names_shapes_and_offsets(void **state)
{
    (void)state;
    AqGraph *g = forward(ddpm(32, 3, NULL, 0), NULL);
    const AqParamTable *table = aq_params(g);
    assert_int_equal(table->count, 328);
    int64_t end = 0;
    bool seen = false;
    for (int i = 0; i < table->count; i++) {
        const AqParamInfo *p = &table->at[i];
        assert_int_equal(p->offset % AQ_PARAM_ALIGN, 0);
        assert_true(p->offset >= end);
        end = p->offset + aq_elements(&p->type);
        if (strcmp(p->name, "up_blocks.3.resnets.2.conv1.weight") != 0)
            continue;
        int64_t shape[4];
        seen = true;
        aq_param_file_shape(p, shape);
        assert_int_equal(shape[0], 128); /* O, I, H, W */
        assert_int_equal(shape[1], 256);
        assert_int_equal(shape[2], 3);
        assert_string_equal(p->init, "uniform");
    }
    assert_true(seen);
    assert_true(table->floats >= end);
    aq_graph_free(g);
}

/* A training step of it builds, and there is no parameter that it does not
 * use. */
static void expect_sound(AqTask task)
{
    AqError error = {0};
    AqOptimizer how = {.clip = 1, .ema = 0.999};
    AqGraph *g = aq_training_graph(&task, &how, NULL, &error);
    if (!g || aq_graph_verify(g, &error) != AQ_OK)
        fail_msg("%s", error.text);
    bool *live = calloc((size_t)g->count, sizeof(bool));
    aq_mark_live(g, live);
    const AqParamTable *table = aq_params(g);
    for (int i = 0; i < table->count; i++)
        if (!live[table->at[i].node])
            fail_msg("%s is not used", table->at[i].name);
    free(live);
    aq_graph_free(g);
}

static void every_option_builds(void **state)
{
    (void)state;
    static const AqSetting variants[] = {
        {"time_scale_shift", "scale_shift"},
        {"head_channels", "12"},
        {"heads", "4"},
        {"act", "gelu"},
        {"act", "relu"},
        {"act", "mish"},
        {"act", "swish"},
        {"center_input", "yes"},
        {"attention_down", "1,0,0"},
        {"attention_up", "0,0,1"},
        {"attention_mid", "no"},
        {"attention_groups", "16"},
        {"widths", "32,48,80"},
        {"downsample_padding", "1"},
        {"mid_scale", "1.5"},
        {"time_units", "40"},
        {"dropout", "0.1"},
        {"flip_sin_to_cos", "yes"},
        {"freq_shift", "0"},
        {"zero_init", "no"},
        {"blocks", "3"},
        {"out_channels", "3"},
        {"in_channels", "3"},
    };
    for (int i = 0; i < AQ_COUNT(variants); i++) {
        AqSetting set[] = {{"channels", "32"},
                           {"mults", "1,1,2"},
                           {"groups", "8"},
                           {"attention", "6"},
                           variants[i]};
        AqTask task = ddpm(12, 3, set, AQ_COUNT(set));
        task.width = 20;
        task.classes = i % 2 ? 10 : 0;
        task.label_dropout = i % 4 == 3 ? 0.1 : 0;
        expect_sound(task);
    }
    AqSetting set[] = {{"heads", "2"},
                       {"head_channels", "8"},
                       {"layers", "2"},
                       {"patch", "4"}};
    AqTask task = task_of("dit", set, 4);
    task.batch = 2;
    task.height = 12;
    task.width = 20;
    task.channels = 3;
    expect_sound(task);
    task.classes = 10;
    expect_sound(task);
}

static void mlp2d_is_for_points(void **state)
{
    (void)state;
    AqTask task = task_of("mlp2d", NULL, 0);
    task.batch = 4;
    task.channels = 2;
    AqGraph *g = forward(task, NULL);
    AqType wanted = aq_type(AQ_F32, 2, (int64_t[]){4, 2});
    assert_true(aq_same_type(&aq_node(g, g->outputs[0].node)->type, &wanted));
    aq_graph_free(g);
    task.height = task.width = 8;
    AqError error = {0};
    assert_null(aq_forward_graph(&task, NULL, &error));
    assert_non_null(strstr(error.text, "mlp2d is for points"));
}

static void options_can_be_read_back(void **state)
{
    (void)state;
    AqSetting set[] = {{"channels", "64"}, {"dropout", "0.1"}};
    const AqOptions *options = NULL;
    AqGraph *g = forward(ddpm(32, 3, set, 2), &options);
    const AqOptionSeen *first = &options->seen[0];
    assert_string_equal(first->name, "channels");
    assert_string_equal(first->otherwise, "128");
    assert_string_equal(first->value, "64");
    assert_string_equal(first->range, "1 to 65536");
    assert_string_equal(first->help, "channels of the first level");
    bool dropout = false;
    for (int i = 0; i < options->n_seen; i++)
        if (strcmp(options->seen[i].name, "dropout") == 0) {
            dropout = true;
            assert_string_equal(options->seen[i].otherwise, "0");
            assert_string_equal(options->seen[i].value, "0.1");
        }
    assert_true(dropout);
    aq_graph_free(g);
}

static AqTensor of_numbers(AqModel *m)
{
    aq_option_real(m, "short", 0.1, "");
    aq_option_real(m, "long", 0.1 + 0x1p-50, "");
    return m->x;
}

/* A number is written so that it is read back as itself. */
static void defaults_keep_their_digits(void **state)
{
    (void)state;
    const AqModelInfo info = {AQ_MODEL_VERSION, "numbers", "", "n.c",
                              of_numbers};
    const AqOptions *options = NULL;
    AqGraph *g =
        forward((AqTask){.model = &info, .batch = 1, .channels = 2}, &options);
    assert_string_equal(options->seen[0].otherwise, "0.1");
    assert_true(strtod(options->seen[1].value, NULL) == 0.1 + 0x1p-50);
    aq_graph_free(g);
}

static void expect_error(AqTask task, const char *wanted)
{
    AqError error = {0};
    AqGraph *g = aq_forward_graph(&task, NULL, &error);
    aq_graph_free(g);
    assert_null(g);
    if (!strstr(error.text, wanted))
        fail_msg("\"%s\" does not say \"%s\"", error.text, wanted);
}

static const struct {
    AqSetting set;
    const char *wanted;
} wrong_settings[] = {
    {{"chanels", "64"},
     "model ddpm_unet has no option \"chanels\"; did you mean "
     "\"channels\"?"},
    {{"in_channels", "4"},
     "option in_channels=4: the pictures have 3 channels: leave it out, or "
     "give --channels 4"},
    {{"channels", "6x"},
     "option channels=6x: a whole number from 1 to 65536 is needed"},
    {{"channels", "65537"},
     "option channels=65537: a whole number from 1 to 65536 is needed"},
    {{"channels", "0"},
     "option channels=0: a whole number from 1 to 65536 is needed"},
    {{"channels", "99999999999"},
     "option channels=99999999999: a whole number from 1 to 65536"},
    {{"channels", ""}, "option channels=: a whole number"},
    {{"dropout", "1"}, "option dropout=1: a number from 0 to 0.99"},
    {{"dropout", "nan"}, "option dropout=nan: a number from 0 to 0.99"},
    {{"attention_mid", "maybe"},
     "option attention_mid=maybe: yes or no is needed"},
    {{"mults", "1,2,"},
     "option mults=1,2,: a list of whole numbers from 1 to 1024, as 1,2,2,"
     " is needed"},
    {{"mults", "1,0"}, "option mults=1,0: a list of whole numbers from 1"},
    {{"act", "tanh"},
     "option act=tanh: one of silu|swish|gelu|relu|mish is needed"},
    {{"act", "sil"}, "option act=sil: one of silu|"},
    {{"mults", "1,1,1,1,1,1,1,1,1"}, "ddpm_unet: 9 levels, not 1 to 8"},
    {{"attention_down", "1"}, "ddpm_unet: 1 flags of attention for 4 levels"},
    {{"attention", "7"},
     "option attention=7: 7 is none of the heights of the feature maps "
     "here (32, 16, 8, 4)"},
    {{"attention", "16,64"},
     "option attention=16,64: 64 is none of the heights of the feature "
     "maps here (32, 16, 8, 4)"},
    {{"attention", "16,x"}, "option attention=16,x: a list of whole"},
    {{"head_channels", "300"},
     "ddpm_unet: a head of 300 channels does not fit into the 256 of level "
     "1"},
    {{"groups", "7"},
     "group_norm: 128 channels are not a whole number of 7 groups in "
     "scope down_blocks.0.resnets.0.norm1"},
};

static void wrong_settings_are_explained(void **state)
{
    (void)state;
    for (int i = 0; i < AQ_COUNT(wrong_settings); i++)
        expect_error(ddpm(32, 3, &wrong_settings[i].set, 1),
                     wrong_settings[i].wanted);
}

static void wrong_shapes_are_explained(void **state)
{
    (void)state;
    AqTask odd = ddpm(18, 3, NULL, 0);
    expect_error(odd, "pictures of 18x18 cannot be halved 3 times");
    AqTask patches = odd;
    AqError unused = {0};
    patches.model = aq_builtin_find("dit", &unused);
    patches.width = 17;
    expect_error(patches, "dit: 18 x 17 pixels are not whole patches of 2");
    AqSetting narrow[] = {{"heads", "1"}, {"head_channels", "2"}};
    patches.width = 18;
    patches.settings = narrow;
    patches.n_settings = 2;
    expect_error(patches, "dit: a width of 2 (heads times channels) cannot");
    patches.height = patches.width = 0;
    expect_error(patches, "dit is for images");
    AqTask points = ddpm(0, 3, NULL, 0);
    expect_error(points, "ddpm_unet is for images");
}

/* What nobody asked for, or what flags replace, may name other sizes. */
static void sizes_of_attention_may_be_none(void **state)
{
    (void)state;
    AqSetting set[] = {{"attention", "7"}, {"attention_down", "0,1,0,0"}};
    AqSetting none[] = {{"attention", ""}};
    aq_graph_free(forward(ddpm(8, 3, NULL, 0), NULL));
    aq_graph_free(forward(ddpm(32, 3, none, 1), NULL));
    aq_graph_free(forward(ddpm(32, 3, set, 2), NULL));
    expect_error(ddpm(18, 3, set, 1), "cannot be halved 3 times");
}

static void unknown_model_is_explained(void **state)
{
    (void)state;
    AqError error = {0};
    assert_null(aq_builtin_find("ddpm_unt", &error));
    assert_string_equal(error.text,
                        "there is no model \"ddpm_unt\" in the library (did "
                        "you mean \"ddpm_unet\"?); there are: ddpm_unet, "
                        "dit, mlp2d");
    assert_int_equal(aq_builtin_count(), 3);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(ddpm_has_the_published_sizes),
        cmocka_unit_test(dit_has_the_published_size),
        cmocka_unit_test(names_shapes_and_offsets),
        cmocka_unit_test(every_option_builds),
        cmocka_unit_test(mlp2d_is_for_points),
        cmocka_unit_test(options_can_be_read_back),
        cmocka_unit_test(defaults_keep_their_digits),
        cmocka_unit_test(wrong_settings_are_explained),
        cmocka_unit_test(wrong_shapes_are_explained),
        cmocka_unit_test(sizes_of_attention_may_be_none),
        cmocka_unit_test(unknown_model_is_explained),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
