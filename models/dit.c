/* DiT, Peebles and Xie 2023, "Scalable Diffusion Models with Transformers",
 * with the names and shapes of diffusers' DiTTransformer2DModel. */
#include <aquatint.h>

typedef struct Dit {
    int patch, width, heads, layers;
    double eps;
    bool zero_init, attention_bias;
} Dit;

/* (rows, columns) -> (1, rows columns, width): sinusoids of the column in the
 * first half, of the row in the second */
static AqTensor positions(AqGraph *g, int rows, int columns, int width)
{
    AqShape grid = AQ_SHAPE(rows, columns, width / 2);
    AqTensor x = aq_timestep_embedding(aq_range(g, columns), width / 2);
    AqTensor y = aq_timestep_embedding(aq_range(g, rows), width / 2);
    x = aq_broadcast(x, grid);
    y = aq_broadcast(aq_reshape(y, AQ_SHAPE(rows, 1, width / 2)), grid);
    return aq_reshape(aq_concat(-1, x, y), AQ_SHAPE(1, -1, width));
}

/* t and the label -> (N, width) */
static AqTensor embed(AqModel *m, const Dit *d, AqScope s)
{
    AqScope time = aq_sub(s, "timestep_embedder");
    AqTensor e = aq_timestep_embedding(m->t, 256, .flip_sin_to_cos = true,
                                       .freq_shift = 1);
    e = aq_silu(aq_linear(aq_sub(time, "linear_1"), e, d->width));
    e = aq_linear(aq_sub(time, "linear_2"), e, d->width);
    if (m->classes)
        e = aq_add(e, aq_embedding(aq_sub(s, "class_embedder.embedding_table"),
                                   m->labels, m->classes, d->width));
    return e;
}

/* The i-th part of e (N, parts width) -> (N, 1, width) */
static AqTensor part(const Dit *d, AqTensor e, int i)
{
    AqTensor p = aq_slice(e, -1, i * d->width, d->width);
    return aq_reshape(p, AQ_SHAPE(-1, 1, d->width));
}

/* norm(x) (1 + scale) + shift; x (N, T, width) */
static AqTensor modulate(AqScope s, AqTensor x, double eps, AqTensor shift,
                         AqTensor scale)
{
    AqTensor y = aq_layer_norm(s, x, .epsilon = eps, .no_affine = true);
    return aq_add(aq_mul(y, aq_shift(scale, 1)), shift);
}

/* x (N, T, width) -> the same.  Every block has embeddings of its own; those of
 * the first also serve the output, so they come back. */
static AqTensor block(AqModel *m, const Dit *d, AqScope s, AqTensor x,
                      AqTensor *emb)
{
    AqScope norm1 = aq_sub(s, "norm1"), ff = aq_sub(s, "ff");
    AqTensor e = embed(m, d, aq_sub(norm1, "emb"));
    if (aq_is_none(*emb))
        *emb = e;
    e = aq_linear(aq_sub(norm1, "linear"), aq_silu(e), 6 * d->width,
                  .zero = d->zero_init);
    AqTensor h = modulate(norm1, x, 1e-6, part(d, e, 0), part(d, e, 1));
    h = aq_attention_layer(aq_sub(s, "attn1"), h, d->heads,
                           .no_bias = !d->attention_bias);
    x = aq_add(x, aq_mul(h, part(d, e, 2)));
    h = modulate(aq_sub(s, "norm3"), x, d->eps, part(d, e, 3), part(d, e, 4));
    h = aq_gelu_tanh(aq_linear(aq_sub(ff, "net.0.proj"), h, 4 * d->width));
    h = aq_linear(aq_sub(ff, "net.2"), h, d->width);
    return aq_add(x, aq_mul(h, part(d, e, 5)));
}

/* x (N, T, width), T = rows columns -> (N, rows patch, columns patch, channels)
 */
static AqTensor read_out(AqModel *m, const Dit *d, AqTensor x, AqTensor emb,
                         int rows, int columns, int channels)
{
    AqScope s = m->scope;
    AqTensor e = aq_linear(aq_sub(s, "proj_out_1"), aq_silu(emb), 2 * d->width,
                           .zero = d->zero_init);
    x = modulate(aq_sub(s, "norm_out"), x, 1e-6, part(d, e, 0), part(d, e, 1));
    x = aq_linear(aq_sub(s, "proj_out_2"), x, d->patch * d->patch * channels,
                  .zero = d->zero_init);
    x = aq_reshape(x,
                   AQ_SHAPE(-1, rows, columns, d->patch, d->patch, channels));
    x = aq_transpose(x, AQ_AXES(0, 1, 3, 2, 4, 5));
    return aq_reshape(
        x, AQ_SHAPE(-1, rows * d->patch, columns * d->patch, channels));
}

static Dit read_options(AqModel *m)
{
    Dit d = {0};
    d.patch = aq_option_int(m, "patch", 2, "side of a patch, pixels", .min = 1,
                            .max = 64);
    d.heads = aq_option_int(m, "heads", 6, "heads of attention", .min = 1,
                            .max = 256);
    int each = aq_option_int(m, "head_channels", 64, "channels of a head",
                             .min = 1, .max = 1024);
    d.layers = aq_option_int(m, "layers", 12, "transformer blocks", .min = 1,
                             .max = 1000);
    d.eps = aq_option_real(m, "eps", 1e-5, "epsilon of the second norms",
                           .min = 1e-12, .max = 1);
    d.attention_bias = aq_option_bool(m, "attention_bias", true,
                                      "queries, keys and values have biases");
    d.zero_init =
        aq_option_bool(m, "zero_init", true, "blocks start as the identity");
    d.width = d.heads * each;
    return d;
}

AQ_MODEL(dit, "transformer of Peebles and Xie 2023, DiT-S/2 by default")
{
    if (aq_rank(m->x) != 4)
        return aq_model_fail(m, "dit is for images (N, H, W, C), and "
                                "these are points: mlp2d is for them");
    Dit d = read_options(m);
    int channels = aq_option_channels(m);
    int rows = aq_height(m->x) / d.patch, columns = aq_width(m->x) / d.patch;
    if (aq_height(m->x) % d.patch || aq_width(m->x) % d.patch)
        return aq_model_fail(m,
                             "dit: %d x %d pixels are not whole patches of "
                             "%d",
                             aq_height(m->x), aq_width(m->x), d.patch);
    if (d.width % 4)
        return aq_model_fail(m,
                             "dit: a width of %d (heads times channels) "
                             "cannot hold positions: it must be a multiple "
                             "of 4",
                             d.width);

    AqTensor x =
        aq_conv2d(aq_sub(m->scope, "pos_embed.proj"), m->x, d.width,
                  .kernel = d.patch, .stride = d.patch, .padding = AQ_VALID);
    x = aq_reshape(x, AQ_SHAPE(aq_batch(x), -1, d.width));
    x = aq_add(x, positions(m->scope.graph, rows, columns, d.width));
    AqTensor emb = AQ_NONE;
    for (int i = 0; i < d.layers; i++)
        x = block(m, &d, aq_sub(m->scope, "transformer_blocks.%d", i), x, &emb);
    return read_out(m, &d, x, emb, rows, columns, channels);
}
