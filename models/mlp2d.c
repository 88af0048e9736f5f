/* Points of the plane: the smallest model worth training. */
#include <aquatint.h>

/* h: (N, width), emb: (N, width) -> (N, width) */
static AqTensor block(AqScope s, AqTensor h, AqTensor emb)
{
    int width = aq_channels(h);
    AqTensor y = aq_layer_norm(aq_sub(s, "norm"), h);
    y = aq_linear(aq_sub(s, "in"), y, 2 * width);
    y = aq_add(y, aq_linear(aq_sub(s, "time"), emb, 2 * width));
    y = aq_linear(aq_sub(s, "out"), aq_silu(y), width);
    return aq_add(h, y);
}

AQ_MODEL(mlp2d, "a residual network for points, (N, 2) or any (N, C)")
{
    int width = aq_option_int(m, "width", 128, "units of a layer", .min = 2,
                              .max = 8192);
    int blocks =
        aq_option_int(m, "blocks", 3, "residual blocks", .min = 1, .max = 100);
    if (aq_rank(m->x) != 2)
        return aq_model_fail(m, "mlp2d is for points (N, C), and these are "
                                "images: ddpm_unet is for them");

    AqTensor emb = aq_timestep_embedding(m->t, width);
    emb = aq_silu(aq_linear(aq_sub(m->scope, "time"), emb, width));
    if (m->classes)
        emb = aq_add(emb, aq_embedding(aq_sub(m->scope, "label"), m->labels,
                                       m->classes, width));

    AqTensor h = aq_linear(aq_sub(m->scope, "in"), m->x, width);
    for (int i = 0; i < blocks; i++)
        h = block(aq_sub(m->scope, "blocks.%d", i), h, emb);
    h = aq_layer_norm(aq_sub(m->scope, "norm"), h);
    return aq_linear(aq_sub(m->scope, "out"), h, aq_channels(m->x),
                     .zero = true);
}
