"""How things are measured here: processor time, against a reference in the same run, and what must come out.

Other work on the machine makes wall clocks useless, and ratios of processor seconds of one run hold well. A
part that needs memory or a fresh interpreter of its own runs `apart`.
"""

import json
import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np


class Row(NamedTuple):
    """A line of the report: ours against a reference, in the same unit and the same run.

    Attributes
    ----------
    stage, reference
        What was measured, and against what.
    ours, plain
        Each run of both; a single value where one run is enough.
    unit
        Of both; what has a rate per second says so.
    least
        Least ratio that is demanded; None: the row is for information. The ratio says how much better ours
        is: plain / ours of a cost, ours / plain of a rate.
    """

    stage: str
    reference: str
    ours: list[float]
    plain: list[float]
    unit: str = "s"
    least: float | None = None

    @property
    def ratio(self) -> float:
        """How many times better ours is, by the medians."""
        ours, plain = np.median(self.ours), np.median(self.plain)
        return float(ours / plain if "/s" in self.unit else plain / ours)

    @property
    def short(self) -> bool:
        """Whether the ratio falls short of what is demanded."""
        return self.least is not None and not self.ratio >= self.least


class Growth(NamedTuple):
    """How the seconds of a stage grow with the number of locations; `most` is the exponent allowed."""

    stage: str
    sizes: list[int]
    seconds: list[float]
    most: float = 1.2

    @property
    def exponent(self) -> float:
        """Slope of the line through the logarithms."""
        return float(np.polyfit(np.log(self.sizes), np.log(self.seconds), 1)[0])

    @property
    def short(self) -> bool:
        """Whether it grows faster than allowed."""
        return not self.exponent <= self.most


Found = list[Row | Growth]


def seconds(*works: Callable[[], object], repeats: int = 5) -> list[list[float]]:
    """Return the processor time of each run of each piece of work, run in turns after one run to warm up."""
    taken = [[] for _ in works]
    for turn in range(repeats + 1):
        for work, found in zip(works, taken, strict=True):
            start = time.process_time()
            work()
            if turn:
                found.append(time.process_time() - start)
    return taken


def rates(count: float, taken: list[float]) -> list[float]:
    """Return how many a second there were in each run."""
    return [count / one for one in taken]


def apart(module: str, *words: object) -> Any:
    """Run ``python -m module words`` in a process of its own; return the JSON that it prints last."""
    command = [sys.executable, "-W", "ignore", "-m", module, *map(str, words)]
    out = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout
    return json.loads(out.splitlines()[-1])


def peak_mb() -> float:
    """Return the largest resident size of this program so far; Linux. What started it does not count.

    `getrusage`, and so `stlib.machine`, begins with the size of the process that called `exec`.
    """
    status = Path("/proc/self/status").read_text()
    return int(re.search(r"VmHWM:\s+(\d+) kB", status)[1]) / 1e3


def spread(values: list[float]) -> str:
    """Return the median, and the range of several runs, in words."""
    middle, least, most = (f"{f(values):,.3g}" for f in (np.median, np.min, np.max))
    return middle if len(values) == 1 else f"{middle} ({least} to {most})"
