"""What the PyTorch benchmarks share: options, and one DDPM training step, timed: t and noise, q_sample, forward,
loss, backward, clipping, AdamW, EMA.  Import it first: time counts from then on."""
import time

START = time.time()
import argparse
import json
import resource

import torch
import torch.nn.functional as F


def options(text):
    ap = argparse.ArgumentParser(description=text, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--batch", type=int, default=8)
    ap.add_argument("--steps", type=int, default=5)
    ap.add_argument("--threads", type=int, default=2)
    ap.add_argument("--compile", action="store_true")
    ap.add_argument("--channels-last", action="store_true")
    ap.add_argument("--bf16", action="store_true", help="autocast to bfloat16")
    return ap


def begin(a):
    torch.set_num_threads(a.threads)
    torch.manual_seed(0)


def memory_format(a):
    return torch.channels_last if a.channels_last else torch.contiguous_format


def autocast(a):
    return torch.autocast("cpu", torch.bfloat16, enabled=a.bf16)


def alphas():
    return torch.cumprod(1 - torch.linspace(1e-4, 0.02, 1000), 0)


def report(a, name, **fields):
    print(json.dumps({
        "torch": torch.__version__, "model": name, "batch": a.batch, "threads": a.threads, "compile": a.compile,
        "channels_last": a.channels_last, "bf16": a.bf16, **fields,
        "peak_rss": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024}), flush=True)


def adamw(params):
    try:
        return torch.optim.AdamW(params, lr=2e-4, fused=True)
    except (RuntimeError, TypeError):
        return torch.optim.AdamW(params, lr=2e-4, foreach=True)


def train(a, name, model, x, gmac, predict):
    """predict(net, x_t, t) is the noise; gmac: multiplications of the forward pass, a sample."""
    params, abar, cast = list(model.parameters()), alphas(), autocast(a)
    ema = [p.detach().clone() for p in params]
    opt = adamw(params)
    net = torch.compile(model) if a.compile else model
    seconds, first = [], None
    for _ in range(a.steps + 2):
        t0 = time.time()
        t, noise = torch.randint(0, 1000, (a.batch,)), torch.randn_like(x)
        s = abar[t][:, None, None, None]
        with cast:
            out = predict(net, s.sqrt() * x + (1 - s).sqrt() * noise, t)
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
    report(a, name, parameters=sum(p.numel() for p in params), step_s=round(median, 4),
           step_min_s=round(seconds[0], 4), gflops=round(6 * gmac * a.batch / median, 1),
           first_step_s=round(first, 2))
