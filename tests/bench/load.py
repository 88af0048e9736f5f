"""How much slower a training step is beside other work.

    python3 load.py PROGRAM [--rivals N] [--steps 20] [MODEL and options of `aquatint bench`]

Runs `aquatint bench` alone and beside N busy loops (one for each processor),
and prints both times and their ratio.  A fair system leaves each side half of
every processor: a ratio of 2 is what sharing itself costs, and what is above
it was lost in waiting for threads that were not running.
"""
import argparse
import json
import multiprocessing
import os
import subprocess


def spin():
    while True:
        pass


def step_seconds(program, options):
    line = subprocess.run([program, "bench", *options, "--json"], check=True,
                          capture_output=True, text=True).stdout
    return json.loads(line)["step_s"]


def beside(rivals, program, options):
    loops = [multiprocessing.Process(target=spin, daemon=True)
             for _ in range(rivals)]
    for loop in loops:
        loop.start()
    try:
        return step_seconds(program, options)
    finally:
        for loop in loops:
            loop.terminate()


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("program")
    parser.add_argument("--rivals", type=int,
                        default=len(os.sched_getaffinity(0)))
    parser.add_argument("--steps", default="20")
    args, options = parser.parse_known_args()
    options = options or ["ddpm_unet", "--set", "channels=32", "--batch", "4"]
    options += ["--steps", args.steps]
    alone = step_seconds(args.program, options)
    loaded = beside(args.rivals, args.program, options)
    print(f"alone {alone:.4f} s, beside {args.rivals} busy loops "
          f"{loaded:.4f} s: {loaded / alone:.2f} times as long")


if __name__ == "__main__":
    main()
