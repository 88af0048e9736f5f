#!/usr/bin/env python3
"""Peer benchmark: one DDPM training step of DiT-S/2 (Peebles and Xie 2023) as diffusers builds it, on the CPU.

    python3 pytorch_dit.py --batch 8 [--threads 2] [--steps 5] [--channels-last] [--compile] [--bf16]

32x32x4 latents, 1,000 classes; the step is that of pytorch_step.py, which prints one JSON line.  Weights are random
(nothing is downloaded).
"""
import pytorch_step as step

import diffusers
import torch

GMAC = 6.056  # forward, a sample


def build():
    return diffusers.DiTTransformer2DModel(
        num_attention_heads=6, attention_head_dim=64, in_channels=4, out_channels=4, num_layers=12, sample_size=32,
        patch_size=2, num_embeds_ada_norm=1000, norm_type="ada_norm_zero")


def predict(net, x, t):
    return net(x, t, class_labels=torch.randint(0, 1000, (len(x),))).sample


def main():
    a = step.options(__doc__).parse_args()
    step.begin(a)
    fmt = step.memory_format(a)
    model = build().to(memory_format=fmt)
    x = torch.randn(a.batch, 4, 32, 32).to(memory_format=fmt)
    step.train(a, "dit-s2", model, x, GMAC, predict)


if __name__ == "__main__":
    main()
