/* The UNet of Ho et al. 2020, "Denoising Diffusion Probabilistic Models", with
 * the names and shapes of diffusers' UNet2DModel, tensor for tensor. */
#include <aquatint.h>

enum { MAX_LEVELS = 8, MAX_BLOCKS = 16 };

typedef struct Unet {
    int levels, blocks;
    int width[MAX_LEVELS];
    bool attend_down[MAX_LEVELS], attend_up[MAX_LEVELS], attend_mid;
    bool by_size; /* not by a flag for each level */
    int groups, attention_groups, heads, head_channels;
    double eps, dropout, mid_scale;
    int downsample_padding;
    bool scale_shift, zero_init;
    int act;
} Unet;

enum { SILU, SWISH, GELU, RELU, MISH };

static AqTensor activate(const Unet *u, AqTensor x)
{
    switch (u->act) {
    case GELU:
        return aq_gelu(x);
    case RELU:
        return aq_relu(x);
    case MISH:
        return aq_mish(x);
    default:
        return aq_silu(x);
    }
}

static AqTensor norm(const Unet *u, AqScope s, AqTensor x)
{
    return aq_group_norm(s, x, .groups = u->groups, .epsilon = u->eps);
}

/* x: (N, H, W, C), emb: (N, D) -> (N, H, W, channels) */
static AqTensor res_block(const Unet *u, AqScope s, AqTensor x, AqTensor emb,
                          int channels, double scale)
{
    AqTensor h = activate(u, norm(u, aq_sub(s, "norm1"), x));
    h = aq_conv2d(aq_sub(s, "conv1"), h, channels);
    AqTensor e = aq_linear(aq_sub(s, "time_emb_proj"), activate(u, emb),
                           u->scale_shift ? 2 * channels : channels);
    if (u->scale_shift) {
        h = norm(u, aq_sub(s, "norm2"), h);
        AqTensor factor = aq_shift(aq_slice(e, -1, 0, channels), 1);
        AqTensor term = aq_slice(e, -1, channels, channels);
        h = aq_mul(h, aq_over_space(factor));
        h = aq_add(h, aq_over_space(term));
    } else {
        h = aq_add(h, aq_over_space(e));
        h = norm(u, aq_sub(s, "norm2"), h);
    }
    h = aq_dropout(aq_sub(s, "dropout"), activate(u, h), u->dropout);
    h = aq_conv2d(aq_sub(s, "conv2"), h, channels, .zero = u->zero_init);
    if (aq_channels(x) != channels)
        x = aq_conv2d(aq_sub(s, "conv_shortcut"), x, channels, .kernel = 1);
    return aq_scale(aq_add(x, h), 1 / scale);
}

/* x: (N, H, W, C) -> the same; groups 0: no norm */
static AqTensor attention(const Unet *u, AqScope s, AqTensor x, int groups,
                          double scale)
{
    int n = aq_batch(x), channels = aq_channels(x);
    int heads = u->heads, units = channels;
    if (u->head_channels) { /* what does not fill a head is left out */
        heads = channels / u->head_channels;
        units = heads * u->head_channels;
    }
    AqTensor h = x;
    if (groups)
        h = aq_group_norm(aq_sub(s, "group_norm"), h, .groups = groups,
                          .epsilon = u->eps);
    h = aq_reshape(h, AQ_SHAPE(n, -1, channels));
    h = aq_attention_layer(s, h, heads, .units = units, .zero = u->zero_init);
    return aq_scale(aq_add(x, aq_reshape(h, aq_shape(x))), 1 / scale);
}

/* Zeros at the bottom and right alone, or on every side. */
static AqPadding down_padding(const Unet *u)
{
    int p = u->downsample_padding;
    return p ? AQ_PAD(p, p, p, p) : AQ_PAD(0, 1, 0, 1);
}

/* skips[count]: what the way up joins again; the last one is returned. */
static AqTensor way_down(const Unet *u, AqScope s, AqTensor h, AqTensor emb,
                         AqTensor *skips, int *count)
{
    skips[(*count)++] = h;
    for (int i = 0; i < u->levels; i++) {
        AqScope level = aq_sub(s, "down_blocks.%d", i);
        for (int j = 0; j < u->blocks; j++) {
            h = res_block(u, aq_sub(level, "resnets.%d", j), h, emb,
                          u->width[i], 1);
            if (u->attend_down[i])
                h = attention(u, aq_sub(level, "attentions.%d", j), h,
                              u->groups, 1);
            skips[(*count)++] = h;
        }
        if (i == u->levels - 1)
            break;
        h = aq_downsample(aq_sub(level, "downsamplers.0"), h,
                          .padding = down_padding(u));
        skips[(*count)++] = h;
    }
    return h;
}

static AqTensor middle(const Unet *u, AqScope s, AqTensor h, AqTensor emb)
{
    int channels = aq_channels(h), groups = u->attention_groups;
    if (!groups && !u->scale_shift)
        groups = u->groups;
    h = res_block(u, aq_sub(s, "resnets.0"), h, emb, channels, u->mid_scale);
    if (u->attend_mid)
        h = attention(u, aq_sub(s, "attentions.0"), h, groups, u->mid_scale);
    return res_block(u, aq_sub(s, "resnets.1"), h, emb, channels, u->mid_scale);
}

static AqTensor way_up(const Unet *u, AqScope s, AqTensor h, AqTensor emb,
                       const AqTensor *skips, int count)
{
    for (int i = 0; i < u->levels; i++) {
        int from = u->levels - 1 - i;
        AqScope level = aq_sub(s, "up_blocks.%d", i);
        for (int j = 0; j < u->blocks + 1; j++) {
            h = aq_concat(-1, h, skips[--count]);
            h = res_block(u, aq_sub(level, "resnets.%d", j), h, emb,
                          u->width[from], 1);
            if (u->attend_up[from])
                h = attention(u, aq_sub(level, "attentions.%d", j), h,
                              u->groups, 1);
        }
        if (i < u->levels - 1)
            h = aq_upsample(aq_sub(level, "upsamplers.0"), h);
    }
    return h;
}

/* ---- options ---- */

static void read_widths(AqModel *m, Unet *u)
{
    int channels =
        aq_option_int(m, "channels", 128, "channels of the first level",
                      .min = 1, .max = 65536);
    AqInts mults = aq_option_ints(m, "mults", "1,2,2,2",
                                  "channels of each level, in multiples of "
                                  "the first's",
                                  .min = 1, .max = 1024);
    AqInts widths = aq_option_ints(m, "widths", "",
                                   "channels of each level, in place of "
                                   "channels and mults",
                                   .min = 1, .max = 65536);
    u->levels = widths.count ? widths.count : mults.count;
    if (u->levels < 1 || u->levels > MAX_LEVELS) {
        aq_model_fail(m, "ddpm_unet: %d levels, not 1 to %d", u->levels,
                      MAX_LEVELS);
        u->levels = 1;
    }
    for (int i = 0; i < u->levels; i++)
        u->width[i] = widths.count ? widths.at[i] : channels * mults.at[i];
}

/* By the size of the feature map, or by a flag for each level. */
static void choose_levels(AqModel *m, const AqInts *sizes, const AqInts *flags,
                          const Unet *u, bool *attend)
{
    if (flags->count && flags->count != u->levels)
        aq_model_fail(m, "ddpm_unet: %d flags of attention for %d levels",
                      flags->count, u->levels);
    int size = aq_height(m->x);
    for (int i = 0; i < u->levels; i++, size = (size + 1) / 2) {
        attend[i] = flags->count && flags->at[i];
        for (int j = 0; !flags->count && j < sizes->count; j++)
            attend[i] = attend[i] || sizes->at[j] == size;
    }
}

/* A size that the user gave belongs to a level, where sizes count at all. */
static void check_sizes(AqModel *m, const Unet *u)
{
    AqInts heights = {.count = u->levels};
    int size = aq_height(m->x);
    for (int i = 0; i < u->levels; i++, size = (size + 1) / 2)
        heights.at[i] = size;
    if (u->by_size)
        aq_option_among(m, "attention", heights, "heights of the feature maps");
}

static void check_heads(AqModel *m, const Unet *u)
{
    for (int i = 0; i < u->levels; i++) {
        bool last = i == u->levels - 1;
        bool attends = u->attend_down[i] || u->attend_up[i];
        if ((attends || (last && u->attend_mid)) &&
            u->head_channels > u->width[i])
            aq_model_fail(m,
                          "ddpm_unet: a head of %d channels does not fit "
                          "into the %d of level %d",
                          u->head_channels, u->width[i], i);
    }
}

static void read_attention(AqModel *m, Unet *u)
{
    AqInts sizes = aq_option_ints(m, "attention", "16",
                                  "heights of the feature maps with attention",
                                  .min = 1, .max = 65536);
    AqInts down = aq_option_ints(m, "attention_down", "",
                                 "1 for each level with attention on the way "
                                 "down, else 0, in place of sizes",
                                 .min = 0, .max = 1);
    AqInts up = aq_option_ints(m, "attention_up", "",
                               "the same on the way up, by the same levels",
                               .min = 0, .max = 1);
    u->by_size = !down.count;
    choose_levels(m, &sizes, &down, u, u->attend_down);
    choose_levels(m, &sizes, up.count ? &up : &down, u, u->attend_up);
    u->attend_mid =
        aq_option_bool(m, "attention_mid", true, "attention in the middle");
    u->heads = aq_option_int(m, "heads", 1, "heads of attention", .min = 1,
                             .max = 1024);
    u->head_channels = aq_option_int(m, "head_channels", 0,
                                     "channels of a head, in place of heads",
                                     .min = 0, .max = 65536);
    u->attention_groups = aq_option_int(m, "attention_groups", 0,
                                        "groups of the middle attention's "
                                        "norm, 0: as the others",
                                        .min = 0, .max = 65536);
    check_heads(m, u);
}

static void read_blocks(AqModel *m, Unet *u)
{
    u->blocks = aq_option_int(m, "blocks", 2, "residual blocks of a level",
                              .min = 1, .max = MAX_BLOCKS);
    u->groups = aq_option_int(m, "groups", 32, "groups of the norms", .min = 1,
                              .max = 65536);
    u->eps = aq_option_real(m, "eps", 1e-6, "epsilon of the norms",
                            .min = 1e-12, .max = 1);
    u->dropout = aq_option_real(m, "dropout", 0, "rate of dropout", .min = 0,
                                .max = 0.99);
    u->act = aq_option_choice(m, "act", "silu", "activation",
                              .choices = "silu|swish|gelu|relu|mish");
    u->scale_shift = aq_option_choice(m, "time_scale_shift", "default",
                                      "how the timestep enters a block",
                                      .choices = "default|scale_shift");
    u->downsample_padding = aq_option_int(m, "downsample_padding", 0,
                                          "zeros around, 0: at the bottom and "
                                          "right alone",
                                          .min = 0, .max = 2);
    u->mid_scale = aq_option_real(m, "mid_scale", 1,
                                  "the middle's sums are divided by this",
                                  .min = 0.001, .max = 1000);
    u->zero_init = aq_option_bool(m, "zero_init", true,
                                  "last layers of blocks start at 0");
}

/* t and the label -> (N, units) */
static AqTensor embed(AqModel *m, const Unet *u)
{
    int given = aq_option_int(m, "time_units", 0,
                              "units of the embedding, 0: 4 channels", .min = 0,
                              .max = 65536);
    bool flip =
        aq_option_bool(m, "flip_sin_to_cos", false, "cosines before sines");
    double shift = aq_option_real(m, "freq_shift", 1,
                                  "taken off half the channels in the "
                                  "frequencies",
                                  .min = 0, .max = 1);
    int units = given ? given : 4 * u->width[0];
    AqScope s = aq_sub(m->scope, "time_embedding");
    AqTensor e = aq_timestep_embedding(
        m->t, u->width[0], .flip_sin_to_cos = flip, .freq_shift = shift);
    e = aq_silu(aq_linear(aq_sub(s, "linear_1"), e, units));
    e = aq_linear(aq_sub(s, "linear_2"), e, units);
    if (m->classes)
        e = aq_add(e, aq_embedding(aq_sub(m->scope, "class_embedding"),
                                   m->labels, m->classes, units));
    return e;
}

AQ_MODEL(ddpm_unet, "UNet of Ho et al. 2020, as diffusers' UNet2DModel")
{
    if (aq_rank(m->x) != 4)
        return aq_model_fail(m, "ddpm_unet is for images (N, H, W, C), and "
                                "these are points: mlp2d is for them");
    Unet u = {0};
    read_widths(m, &u);
    read_blocks(m, &u);
    read_attention(m, &u);
    bool center = aq_option_bool(m, "center_input", false, "2 x - 1 first");
    int channels = aq_option_channels(m);

    int unit = 1 << (u.levels - 1); /* every level but the last halves it */
    if (aq_height(m->x) % unit || aq_width(m->x) % unit)
        return aq_model_fail(m,
                             "pictures of %dx%d cannot be halved %d times: "
                             "both sides must be multiples of %d",
                             aq_height(m->x), aq_width(m->x), u.levels - 1,
                             unit);
    check_sizes(m, &u);

    AqTensor emb = embed(m, &u);
    AqTensor x = center ? aq_shift(aq_scale(m->x, 2), -1) : m->x;
    AqTensor skips[1 + MAX_LEVELS * (MAX_BLOCKS + 1)];
    int count = 0;
    AqTensor h = aq_conv2d(aq_sub(m->scope, "conv_in"), x, u.width[0]);
    h = way_down(&u, m->scope, h, emb, skips, &count);
    h = middle(&u, aq_sub(m->scope, "mid_block"), h, emb);
    h = way_up(&u, m->scope, h, emb, skips, count);
    h = aq_silu(norm(&u, aq_sub(m->scope, "conv_norm_out"), h));
    return aq_conv2d(aq_sub(m->scope, "conv_out"), h, channels,
                     .zero = u.zero_init);
}
