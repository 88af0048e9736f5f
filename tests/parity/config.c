/* diffusers' config.json as settings of our model.  One row a key; a key or a
 * value that is not in the table is an error that names it. */
#include "tests/parity/parity.h"

#include <string.h>

typedef struct Config {
    const Family *family;
    json_t *json;
    AqTask *task;
    AqSetting *settings;
    AqArena *arena;
    AqError *error;
} Config;

enum { MOST_SETTINGS = 64 };

static void set(Config *c, const char *name, const char *value)
{
    if (c->task->n_settings == MOST_SETTINGS || !value)
        return;
    c->settings[c->task->n_settings++] = (AqSetting){name, value};
}

/* A value as one writes it: numbers, words, lists with commas. */
static char *text_of(Config *c, const json_t *value)
{
    AqText text = {0};
    size_t i;
    json_t *each;
    if (json_is_array(value)) {
        json_array_foreach((json_t *)value, i, each)
        {
            char *part = text_of(c, each);
            aq_text_printf(&text, "%s%s", i ? "," : "", part ? part : "");
        }
    } else if (json_is_string(value)) {
        aq_text_add(&text, json_string_value(value));
    } else if (json_is_integer(value)) {
        aq_text_printf(&text, "%lld", (long long)json_integer_value(value));
    } else if (json_is_real(value)) {
        aq_text_printf(&text, "%.17g", json_real_value(value));
    } else {
        aq_text_add(&text, json_is_true(value)    ? "yes"
                           : json_is_false(value) ? "no"
                                                  : "null");
    }
    char *copy = aq_arena_copy_text(c->arena, text.data ? text.data : "");
    aq_text_free(&text);
    return copy;
}

static void refuse(Config *c, const char *key, const json_t *value)
{
    aq_fail(c->error, AQ_UNSUPPORTED,
            "config.json: %s = %s is not one that our model has", key,
            text_of(c, value));
}

/* Of each level, from the first; the way up lists them backwards. */
static void set_attention(Config *c, const char *key, const json_t *types,
                          const char *plain, const char *attending,
                          const char *setting, bool backwards)
{
    AqText flags = {0};
    size_t count = json_array_size(types);
    for (size_t i = 0; i < count; i++) {
        const json_t *type =
            json_array_get(types, backwards ? count - 1 - i : i);
        const char *name = json_string_value(type);
        bool attends = name && strcmp(name, attending) == 0;
        if (!name || (!attends && strcmp(name, plain) != 0))
            refuse(c, key, type);
        aq_text_printf(&flags, "%s%d", i ? "," : "", attends);
    }
    set(c, setting, aq_arena_copy_text(c->arena, flags.data ? flags.data : ""));
    aq_text_free(&flags);
}

typedef enum Meaning {
    IGNORED,   /* says nothing of the network */
    PASSED_ON, /* a setting of ours, by another name */
    OR_ZERO,   /* the same; null is 0 */
    MUST_BE,   /* one value alone is known, or null */
    BLOCKS_DOWN,
    BLOCKS_UP,
    IN_CHANNELS,
    CLASSES,
    CLASSES_AND_NONE, /* one row more, for no class */
    MUST_BE_TRUE,
    MUST_BE_FALSE,
} Meaning;

typedef struct Key {
    const char *key;
    Meaning meaning;
    const char *ours; /* the setting, or the value that must be */
} Key;

static const Key unet2d_keys[] = {
    {"_class_name", IGNORED, NULL},
    {"_diffusers_version", IGNORED, NULL},
    {"_name_or_path", IGNORED, NULL},
    {"act_fn", PASSED_ON, "act"},
    {"add_attention", PASSED_ON, "attention_mid"},
    {"attention_head_dim", OR_ZERO, "head_channels"},
    {"attn_norm_num_groups", OR_ZERO, "attention_groups"},
    {"block_out_channels", PASSED_ON, "widths"},
    {"center_input_sample", PASSED_ON, "center_input"},
    {"class_embed_type", MUST_BE, NULL},
    {"down_block_types", BLOCKS_DOWN, NULL},
    {"downsample_padding", PASSED_ON, "downsample_padding"},
    {"downsample_type", MUST_BE, "conv"},
    {"dropout", PASSED_ON, "dropout"},
    {"flip_sin_to_cos", PASSED_ON, "flip_sin_to_cos"},
    {"freq_shift", PASSED_ON, "freq_shift"},
    {"in_channels", IN_CHANNELS, "in_channels"},
    {"layers_per_block", PASSED_ON, "blocks"},
    {"mid_block_scale_factor", PASSED_ON, "mid_scale"},
    {"mid_block_type", MUST_BE, "UNetMidBlock2D"},
    {"norm_eps", PASSED_ON, "eps"},
    {"norm_num_groups", PASSED_ON, "groups"},
    {"num_class_embeds", CLASSES, NULL},
    {"num_train_timesteps", IGNORED, NULL},
    {"out_channels", PASSED_ON, "out_channels"},
    {"resnet_time_scale_shift", PASSED_ON, "time_scale_shift"},
    {"sample_size", IGNORED, NULL},
    {"time_embedding_dim", OR_ZERO, "time_units"},
    {"time_embedding_type", MUST_BE, "positional"},
    {"up_block_types", BLOCKS_UP, NULL},
    {"upsample_type", MUST_BE, "conv"},
};

static const Key dit_keys[] = {
    {"_class_name", IGNORED, NULL},
    {"_diffusers_version", IGNORED, NULL},
    {"_name_or_path", IGNORED, NULL},
    {"activation_fn", MUST_BE, "gelu-approximate"},
    {"attention_bias", PASSED_ON, "attention_bias"},
    {"attention_head_dim", PASSED_ON, "head_channels"},
    {"dropout", IGNORED, NULL},
    {"in_channels", IN_CHANNELS, "in_channels"},
    {"norm_elementwise_affine", MUST_BE_FALSE, NULL},
    {"norm_eps", PASSED_ON, "eps"},
    {"norm_num_groups", IGNORED, NULL},
    {"norm_type", MUST_BE, "ada_norm_zero"},
    {"num_attention_heads", PASSED_ON, "heads"},
    {"num_embeds_ada_norm", CLASSES_AND_NONE, NULL},
    {"num_layers", PASSED_ON, "layers"},
    {"out_channels", OR_ZERO, "out_channels"},
    {"patch_size", PASSED_ON, "patch"},
    {"sample_size", IGNORED, NULL},
    {"upcast_attention", IGNORED, NULL},
};

static const Family families[] = {
    {"UNet2DModel", "ddpm_unet", unet2d_keys, AQ_COUNT(unet2d_keys), "xt",
     "eps", "noise"},
    {"DiTTransformer2DModel", "dit", dit_keys, AQ_COUNT(dit_keys), "sample",
     "out", "target"},
};

static void read_key(Config *c, const Key *k, const json_t *value)
{
    bool null = json_is_null(value);
    switch (k->meaning) {
    case IGNORED:
        break;
    case PASSED_ON:
        if (null)
            refuse(c, k->key, value);
        set(c, k->ours, text_of(c, value));
        break;
    case OR_ZERO:
        set(c, k->ours, null ? "0" : text_of(c, value));
        break;
    case MUST_BE:
        if (k->ours ? !json_is_string(value) ||
                          strcmp(json_string_value(value), k->ours) != 0
                    : !null)
            refuse(c, k->key, value);
        break;
    case BLOCKS_DOWN:
        set_attention(c, k->key, value, "DownBlock2D", "AttnDownBlock2D",
                      "attention_down", false);
        break;
    case BLOCKS_UP:
        set_attention(c, k->key, value, "UpBlock2D", "AttnUpBlock2D",
                      "attention_up", true);
        break;
    case IN_CHANNELS:
        c->task->channels = (int)json_integer_value(value);
        set(c, k->ours, text_of(c, value));
        break;
    case CLASSES_AND_NONE:
        c->task->label_dropout = 0.1;
        /* fall through */
    case CLASSES:
        c->task->classes = null ? 0 : (int)json_integer_value(value);
        break;
    case MUST_BE_TRUE:
    case MUST_BE_FALSE:
        if (json_is_true(value) != (k->meaning == MUST_BE_TRUE))
            refuse(c, k->key, value);
        break;
    }
}

static void read_keys(Config *c)
{
    const char *name;
    json_t *value;
    json_object_foreach(c->json, name, value)
    {
        const Key *key = NULL;
        for (int i = 0; i < c->family->n_keys; i++)
            if (strcmp(c->family->keys[i].key, name) == 0)
                key = &c->family->keys[i];
        if (key)
            read_key(c, key, value);
        else
            refuse(c, name, value);
    }
}

static const Family *family_of(const json_t *json, AqError *error)
{
    const char *class_name =
        json_string_value(json_object_get(json, "_class_name"));
    for (int i = 0; class_name && i < AQ_COUNT(families); i++)
        if (strcmp(families[i].class_name, class_name) == 0)
            return &families[i];
    aq_fail(error, AQ_UNSUPPORTED,
            "config.json: there is no model for _class_name %s",
            class_name ? class_name : "(none)");
    return NULL;
}

const Family *config_read(const char *folder, AqTask *task, AqArena *arena,
                          AqError *error)
{
    char *path = aq_arena_printf(arena, "%s/config.json", folder);
    json_error_t why;
    Config c = {.json = json_load_file(path ? path : "", 0, &why),
                .task = task,
                .settings = AQ_NEW_ARRAY(arena, AqSetting, MOST_SETTINGS),
                .arena = arena,
                .error = error};
    if (!c.json) {
        aq_fail(error, AQ_BAD_INPUT, "%s:%d: %s", path, why.line, why.text);
        return NULL;
    }
    *task = (AqTask){.settings = c.settings};
    c.family = family_of(c.json, error);
    if (c.family)
        task->model = aq_builtin_find(c.family->model, error);
    if (task->model)
        read_keys(&c);
    json_decref(c.json);
    return error->status == AQ_OK ? c.family : NULL;
}
