#!/usr/bin/env python3
"""Ours beside PyTorch: one full DDPM training step, the same network, in turn.

    python3 compare.py PROGRAM [--models nano,tiny,ddpm-cifar] [--rounds 3] [--threads 2] [--compile]

PROGRAM is the built `aquatint`; torch must be importable (pip install torch).  Both sides run in turn, so that
a machine whose speed drifts slows both; figures are medians over the rounds.  Prints a table in Markdown.
"""
import argparse
import json
import statistics
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
BATCH = 8
MODELS = {  # what pytorch_unet.py builds, as options of models/ddpm_unet.c
    "nano": ["--channels", "1", "--set", "channels=32", "--set", "mults=1,2,2", "--set", "blocks=1",
             "--set", "attention=8"],
    "tiny": ["--set", "channels=64"],
    "ddpm-cifar": ["--set", "channels=128"],
}


def run(command):
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{' '.join(command)}\n{done.stderr}")
    return json.loads(done.stdout.strip().splitlines()[-1])


def ours(program, model, threads, steps):
    return run([program, "bench", "ddpm_unet", *MODELS[model], "--batch", str(BATCH), "--threads", str(threads),
                "--steps", str(steps), "--no-cache", "--json"])


def peer(model, threads, steps, flags):
    return run([sys.executable, str(HERE / "pytorch_unet.py"), "--model", model, "--batch", str(BATCH),
                "--threads", str(threads), "--steps", str(steps), *flags])


def median(results, key):
    return statistics.median(r[key] for r in results)


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("program")
    ap.add_argument("--models", default=",".join(MODELS))
    ap.add_argument("--rounds", type=int, default=3)
    ap.add_argument("--threads", type=int, default=2)
    ap.add_argument("--compile", action="store_true", help="the peer compiled, not eager")
    a = ap.parse_args()
    flags = ["--compile"] if a.compile else []
    print("| model | step, ours | step, PyTorch | ratio | GFLOP/s | of FMA peak | memory, ours | PyTorch | ratio "
          "| first step, ours | PyTorch |\n|---|---|---|---|---|---|---|---|---|---|---|")
    for model in a.models.split(","):
        steps = 5 if model == "ddpm-cifar" else 15
        mine, theirs = [], []
        for _ in range(a.rounds):
            mine.append(ours(a.program, model, a.threads, steps))
            theirs.append(peer(model, a.threads, steps, flags))
        step, other = median(mine, "step_s"), median(theirs, "step_s")
        rss, other_rss = median(mine, "peak_rss") / 2**20, median(theirs, "peak_rss") / 2**20
        print(f"| {model} | {step:.3f} s | {other:.3f} s | {other / step:.2f}x | {median(mine, 'gflops'):.0f} "
              f"| {median(mine, 'gflops') / median(mine, 'peak_gflops'):.0%} | {rss:.0f} MiB | {other_rss:.0f} MiB "
              f"| {rss / other_rss:.2f} | {median(mine, 'first_step_s'):.2f} s | {median(theirs, 'first_step_s'):.2f} s |",
              flush=True)


if __name__ == "__main__":
    main()
