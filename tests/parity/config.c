/* diffusers' config.json as settings of our model.  One row a key; a key or a
 * value that is not in the table is an error that names it. */
#include "tests/parity/parity.h"

#include <jansson.h>
#include <string.h>

typedef struct Config {
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
    {"in_channels", IN_CHANNELS, NULL},
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
        break;
    case CLASSES:
        c->task->classes = null ? 0 : (int)json_integer_value(value);
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
        for (int i = 0; i < AQ_COUNT(unet2d_keys); i++)
            if (strcmp(unet2d_keys[i].key, name) == 0)
                key = &unet2d_keys[i];
        if (key)
            read_key(c, key, value);
        else
            refuse(c, name, value);
    }
}

bool config_read(const char *folder, AqTask *task, AqArena *arena,
                 AqError *error)
{
    char *path = aq_arena_printf(arena, "%s/config.json", folder);
    json_error_t why;
    Config c = {json_load_file(path ? path : "", 0, &why), task,
                AQ_NEW_ARRAY(arena, AqSetting, MOST_SETTINGS), arena, error};
    if (!c.json) {
        aq_fail(error, AQ_BAD_INPUT, "%s:%d: %s", path, why.line, why.text);
        return false;
    }
    const char *class =
        json_string_value(json_object_get(c.json, "_class_name"));
    *task = (AqTask){.settings = c.settings};
    if (class && strcmp(class, "UNet2DModel") == 0)
        task->model = aq_builtin_find("ddpm_unet", error);
    else
        aq_fail(error, AQ_UNSUPPORTED,
                "config.json: there is no model for _class_name %s",
                class ? class : "(none)");
    if (task->model)
        read_keys(&c);
    json_decref(c.json);
    return error->status == AQ_OK;
}
