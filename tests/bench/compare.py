#!/usr/bin/env python3
"""Ours beside PyTorch (and JAX): the same networks, the same steps, on this machine in turn.

    python3 compare.py PROGRAM [--rows nano,tiny,ddpm-cifar,dit-s2,sample] [--modes eager,channels-last,compile,bf16]
                       [--rounds 3] [--steps 5] [--threads 2] [--level 3|4|5] [--no-jax]

PROGRAM is the built `aquatint`.  Rows: a full training step (noise, q_sample, forward, loss, backward, clipping, AdamW,
EMA) of the DDPM UNet in three sizes and of DiT-S/2, at batch 8; `sample`: 16 pictures of ddpm-cifar by 50 steps of DDIM.
Modes are PyTorch's: fp32 eager, channels last, compiled, and eager with bfloat16 autocast; the first of them is also that
of first steps and memory.  torch must be importable (and diffusers for dit-s2); without jax its column is left out.
--level 3 holds both sides to AVX2: ours, and ATen, oneDNN and MKL beneath PyTorch (XLA under JAX, too).

In each round every side runs once, a process of its own, one after the other, so that a machine whose speed drifts slows
all alike; figures are medians over the rounds.  Prints tables in Markdown, with the date, the processor, and the command.
"""
import argparse
import datetime
import importlib.util
import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
UNET = {  # what pytorch_unet.py builds, as options of models/ddpm_unet.c
    "nano": ["--channels", "1", "--set", "channels=32", "--set", "mults=1,2,2", "--set", "blocks=1",
             "--set", "attention=8"],
    "tiny": ["--set", "channels=64"],
    "ddpm-cifar": ["--set", "channels=128"],
}
ROWS = [*UNET, "dit-s2", "sample"]
MODES = {"eager": [], "channels-last": ["--channels-last"], "compile": ["--compile"], "bf16": ["--bf16"]}
BATCH, SAMPLES, SAMPLE_STEPS = 8, 16, 50
HELD = {  # what holds the peers to a level of instructions, as the environment of their processes
    3: {"ATEN_CPU_CAPABILITY": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2", "MKL_ENABLE_INSTRUCTIONS": "AVX2",
        "XLA_FLAGS": "--xla_cpu_max_isa=AVX2"},
}


# ---- both sides of a row, as command lines ----

def ours(a, row):
    threads = ["--threads", str(a.threads), "--json", *(["--level", str(a.level)] if a.level else [])]
    if row == "sample":
        return [a.program, "bench", "ddpm_unet", *UNET["ddpm-cifar"], "--batch", str(SAMPLES), "--sample",
                str(a.sample_steps), *threads]
    model = ["dit", "--channels", "4"] if row == "dit-s2" else ["ddpm_unet", *UNET[row]]
    return [a.program, "bench", *model, "--batch", str(BATCH), "--steps", str(a.steps), *threads]


def peer(a, row, mode):
    threads = ["--threads", str(a.threads), *MODES[mode]]
    if row == "sample":
        return [sys.executable, str(HERE / "pytorch_unet.py"), "--model", "ddpm-cifar", "--batch", str(SAMPLES),
                "--sample", str(a.sample_steps), "--steps", "1", *threads]
    script = ["pytorch_dit.py"] if row == "dit-s2" else ["pytorch_unet.py", "--model", row]
    return [sys.executable, str(HERE / script[0]), *script[1:], "--batch", str(BATCH), "--steps", str(a.steps), *threads]


def jax(a, row):
    return [sys.executable, str(HERE / "jax_unet.py"), "--model", row, "--batch", str(BATCH), "--steps", str(a.steps),
            "--threads", str(a.threads)]


# ---- running ----

def output(command, **environment):
    print(" ".join(command), file=sys.stderr, flush=True)
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, **environment})
    if done.returncode:
        sys.exit(f"{' '.join(command)}\n{done.stderr}")
    return done.stdout


def run(command, **environment):
    return json.loads(output(command, **environment).strip().splitlines()[-1])


def run_ours(a, row, cache):
    """A first time with an empty cache, and a second time with what the first left there."""
    shutil.rmtree(cache / "aquatint", ignore_errors=True)
    cold = run(ours(a, row), XDG_CACHE_HOME=cache)
    warm = run(ours(a, row), XDG_CACHE_HOME=cache) if row != "sample" else cold
    return {**warm, "cold_s": cold.get("first_step_s"), "peak_rss": max(cold["peak_rss"], warm["peak_rss"])}


def products_share(a):
    """What the matrix products of DiT reach of the FMA peak: flops and time of the kinds of kernel that are contractions."""
    text = output([arg for arg in ours(a, "dit-s2") if arg != "--json"] + ["--kernels"])
    peak = float(re.search(r"limits +([\d.]+) GFLOP/s", text)[1])
    work = seconds = 0.0
    for line in text.split("algorithm and kind")[1].splitlines():
        found = re.match(r" *\d+ +([\d.]+) +[\d.]+% +([\d.]+) .*(matmul|conv2d)", line)
        if found:
            seconds += float(found[1])
            work += float(found[1]) * float(found[2])
    return work / seconds / peak


def measure(a, row):
    """Every side's results: {"ours": [...], "eager": [...], ..., "jax": [...]}"""
    results = {side: [] for side in ["ours", *a.modes, *(["jax"] if a.jax and row in UNET else [])]}
    with tempfile.TemporaryDirectory() as cache:
        cache = Path(cache)
        for _ in range(a.rounds):
            for side, list_of in results.items():
                list_of.append(run_ours(a, row, cache) if side == "ours" else
                               run(jax(a, row), **HELD.get(a.level, {})) if side == "jax" else
                               run(peer(a, row, side), **HELD.get(a.level, {}), TORCHINDUCTOR_CACHE_DIR=cache / side))
    return {side: medians(list_of) for side, list_of in results.items()}


def medians(results):
    """Of every number; the first step of a peer is that of the first round, before anything was compiled and kept."""
    first = results[0]
    found = {key: statistics.median(r[key] for r in results) if isinstance(value, (int, float)) else value
             for key, value in first.items()}
    return found if "aquatint" in first else found | {"first_step_s": first.get("first_step_s")}


# ---- tables ----

def table(head, rows):
    print("| " + " | ".join(head) + " |\n|" + "---|" * len(head))
    for row in rows:
        print("| " + " | ".join(row) + " |")
    print(flush=True)


def work_rows(a, found):
    for row, sides in found.items():
        key = "sample_s" if row == "sample" else "step_s"
        mine = sides["ours"][key]
        single = {mode: sides[mode][key] for mode in a.modes if mode != "bf16"}
        best = min(single, key=single.get, default=None)
        cells = [f"{row}, {SAMPLES} images, DDIM {a.sample_steps} steps" if row == "sample" else f"{row} step",
                 f"{mine:.3f} s"]
        cells += [f"{sides[mode][key]:.3f} s" for mode in a.modes]
        if a.jax:
            cells += [f"{sides['jax'][key]:.3f} s" if "jax" in sides else "–"]
        cells += [f"{single[best] / mine:.2f}x ({best})" if best else "–"]
        if "bf16" in a.modes:
            cells += [f"{sides['bf16'][key] / mine:.2f}x"]
        yield cells + [f"{sides['ours']['gflops']:.0f}", f"{sides['ours']['gflops'] / sides['ours']['peak_gflops']:.0%}"]


def start_rows(a, found):
    for row, sides in found.items():
        if row == "sample":
            continue
        mine, other, step = sides["ours"], sides[a.modes[0]], sides["ours"]["step_s"]
        rss, theirs = mine["peak_rss"] / 2**20, other["peak_rss"] / 2**20
        yield [row, f"{mine['cold_s']:.2f} s", f"{mine['cold_s'] - step:.2f} s", f"{mine['first_step_s']:.2f} s",
               f"{mine['first_step_s'] - step:.2f} s", *(f"{sides[mode]['first_step_s']:.2f} s" for mode in a.modes),
               f"{rss:.0f} MiB", f"{theirs:.0f} MiB", f"{rss / theirs:.2f}"]


def processor():
    facts = dict(re.findall(r"^(\w[\w ]*?)\s*: (.*)$", Path("/proc/cpuinfo").read_text(), re.M))
    return f"{facts.get('model name', 'an unknown processor')} (family {facts.get('cpu family')}, model {facts.get('model')})"


def print_tables(a, found, share):
    names = [f"PyTorch {mode}" for mode in a.modes]
    table(["work, batch 8", "ours", *names, *["JAX"] * a.jax, "best fp32 / ours", *["bf16 / ours"] * ("bf16" in a.modes),
           "GFLOP/s", "of FMA peak"], work_rows(a, found))
    if share is not None:
        print(f"The products of dit-s2 run at {share:.0%} of the FMA peak.\n")
    if set(found) - {"sample"}:
        table(["start to end of first step", "cold cache", "beyond a step", "warm", "beyond a step", *names, "peak RSS",
               f"PyTorch {a.modes[0]}", "ratio"], start_rows(a, found))
    mine = [sides["ours"] for sides in found.values()]
    versions = [f"{name} {side[name]}" for name in ("torch", "jax") for sides in found.values()
                for side in sides.values() if name in side]
    print(f"{datetime.date.today()}, {a.threads} threads of {processor()}, {mine[0]['target']}, FMA peak "
          f"{statistics.median(m['peak_gflops'] for m in mine):.0f} GFLOP/s, {', '.join(sorted(set(versions)))}, medians of "
          f"{a.rounds}: `python3 tests/bench/compare.py {' '.join(sys.argv[1:])}`.")


# ---- what is asked for ----

def names(known):
    def parse(text):
        for name in text.split(","):
            if name not in known:
                raise argparse.ArgumentTypeError(f"{name}: there is {', '.join(known)}")
        return text.split(",")
    return parse


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("program")
    ap.add_argument("--rows", type=names(ROWS), default=ROWS)
    ap.add_argument("--modes", type=names(list(MODES)), default=list(MODES))
    ap.add_argument("--rounds", type=int, default=3)
    ap.add_argument("--steps", type=int, default=5, help="timed in each process")
    ap.add_argument("--sample-steps", type=int, default=SAMPLE_STEPS)
    ap.add_argument("--threads", type=int, default=2)
    ap.add_argument("--level", type=int, choices=[3, 4, 5], help="3: all sides held to AVX2 (4, 5: ours alone)")
    ap.add_argument("--no-jax", dest="jax", action="store_false", help="leave its column out")
    a = ap.parse_args()
    if a.jax and importlib.util.find_spec("jax") is None:
        a.jax = False
        print("compare.py: jax is not installed: its column is left out", file=sys.stderr)
    found = {row: measure(a, row) for row in a.rows}
    print_tables(a, found, products_share(a) if "dit-s2" in a.rows else None)


if __name__ == "__main__":
    main()
