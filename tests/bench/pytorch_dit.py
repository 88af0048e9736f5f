#!/usr/bin/env python3
"""Peer benchmark: one DDPM training step of DiT-S/2 (Peebles and Xie 2023) as diffusers builds it, on the CPU.

    python3 pytorch_dit.py --batch 8 [--threads 2] [--steps 5] [--channels-last] [--compile] [--bf16]

32x32x4 latents, 1,000 classes; t and noise, q_sample, forward, loss, backward, clipping, AdamW, EMA, as pytorch_unet.py.
Weights are random (nothing is downloaded).  Prints one JSON line with the fields of pytorch_unet.py.
"""
import argparse
import json
import resource
import time

START = time.time()
import diffusers
import torch
import torch.nn.functional as F

GMAC = 6.056  # forward, a sample


def build():
    return diffusers.DiTTransformer2DModel(
        num_attention_heads=6, attention_head_dim=64, in_channels=4, out_channels=4, num_layers=12, sample_size=32,
        patch_size=2, num_embeds_ada_norm=1000, norm_type="ada_norm_zero")


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--batch", type=int, default=8)
    ap.add_argument("--steps", type=int, default=5)
    ap.add_argument("--threads", type=int, default=2)
    ap.add_argument("--compile", action="store_true")
    ap.add_argument("--channels-last", action="store_true")
    ap.add_argument("--bf16", action="store_true", help="autocast to bfloat16")
    a = ap.parse_args()
    torch.set_num_threads(a.threads)
    torch.manual_seed(0)
    fmt = torch.channels_last if a.channels_last else torch.contiguous_format
    model = build().to(memory_format=fmt)
    params = list(model.parameters())
    ema = [p.detach().clone() for p in params]
    opt = torch.optim.AdamW(params, lr=2e-4, fused=True)
    net = torch.compile(model) if a.compile else model
    abar = torch.cumprod(1 - torch.linspace(1e-4, 0.02, 1000), 0)
    x = torch.randn(a.batch, 4, 32, 32).to(memory_format=fmt)
    seconds, first = [], None
    for _ in range(a.steps + 2):
        t0 = time.time()
        t, noise = torch.randint(0, 1000, (a.batch,)), torch.randn_like(x)
        labels, s = torch.randint(0, 1000, (a.batch,)), abar[t][:, None, None, None]
        with torch.autocast("cpu", torch.bfloat16, enabled=a.bf16):
            out = net(s.sqrt() * x + (1 - s).sqrt() * noise, t, class_labels=labels).sample
        loss = F.mse_loss(out.float(), noise)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(params, 1.0)
        opt.step()
        opt.zero_grad(set_to_none=True)
        with torch.no_grad():
            torch._foreach_mul_(ema, 0.9999)
            torch._foreach_add_(ema, params, alpha=1e-4)
        float(loss.detach())
        first = first or time.time() - START
        seconds.append(time.time() - t0)
    seconds = sorted(seconds[2:])
    median = seconds[len(seconds) // 2]
    print(json.dumps({
        "torch": torch.__version__, "model": "dit-s2", "batch": a.batch, "threads": a.threads, "compile": a.compile,
        "channels_last": a.channels_last, "bf16": a.bf16, "parameters": sum(p.numel() for p in params),
        "step_s": round(median, 4), "step_min_s": round(seconds[0], 4),
        "gflops": round(6 * GMAC * a.batch / median, 1), "first_step_s": round(first, 2),
        "peak_rss": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024}), flush=True)


if __name__ == "__main__":
    main()
