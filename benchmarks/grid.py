"""What two jobs at a time save on a grid of trainings, and that they never cost.

``python benchmarks/grid.py`` lets make train a few methods on the toy three times, each time anew: one job
with one thread, two jobs with one thread each, one job with two threads. It prints seconds and ratios:
numbers of one run on one machine, which must have two cores and nothing else to do. Needs `make prepare`.
"""

import os
import shutil
import subprocess
import time

from stlib.paths import ROOT, RUNS

MODELS = ("stnet", "magnet", "eggn", "sgn")
WAYS = {"-j1, one thread": (1, 1), "-j2, one thread each": (2, 1), "-j1, two threads": (1, 2)}
SEED = 900  # of the first way; no table has it


def seconds(jobs: int, threads: int, seed: int) -> float:
    """Return how long make takes for all models; the runs are removed."""
    runs = [RUNS / "2d" / "toy" / model / f"strict-s{seed}" for model in MODELS]
    targets = [str((run / "run.json").relative_to(ROOT)) for run in runs]
    environment = os.environ | {"OMP_NUM_THREADS": str(threads), "STLIB_OUT": str(ROOT)}
    start = time.perf_counter()
    try:
        subprocess.run(["make", f"JOBS={jobs}", *targets], cwd=ROOT, env=environment, check=True)
        return time.perf_counter() - start
    finally:
        for run in runs:
            shutil.rmtree(run, ignore_errors=True)


def main() -> None:
    """Measure the three ways, one after the other."""
    subprocess.run(["make", "prepare", "DATASET=toy"], cwd=ROOT, check=True)
    found = {}
    for place, (way, (jobs, threads)) in enumerate(WAYS.items()):
        found[way] = seconds(jobs, threads, SEED + place)
        print(f"{way}: {found[way]:.0f} s", flush=True)
    one, two, wide = found.values()
    print(f"-j2 against -j1, one thread each: {one / two:.2f} x as fast")
    print(f"-j2 against -j1 with two threads: {wide / two:.2f} x as fast")


if __name__ == "__main__":
    main()
