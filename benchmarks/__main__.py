"""All benchmarks, or the named ones: ``python -m benchmarks [graph slides ...]``; `make bench` calls this.

Writes results/bench.md and figures/bench_growth.png once all parts have run; of some parts it only prints.
Exits non-zero, and says what, where a ratio falls short of what is demanded.
"""

import importlib
import sys

import matplotlib.pyplot as plt
import torch
from tqdm import tqdm

from benchmarks.measure import Found, Growth, Row, spread
from stlib import paths
from stlib.machine import device

PARTS = ("ceiling", "graph", "slides", "encoding", "steps", "attention", "pooling", "tables", "startup")


def main(names: list[str]) -> int:
    """Run the parts; return how many ratios fall short."""
    torch.set_num_threads(1)
    found: Found = []
    for name in tqdm(names or PARTS, unit="part"):
        part = importlib.import_module(f"benchmarks.{name}").rows()
        tqdm.write("\n".join(map(line, part)))
        found += part
    if not names:
        paths.write_text(paths.RESULTS / "bench.md", report(found))
        plot([one for one in found if isinstance(one, Growth)])
    short = [one for one in found if one.short]
    for one in short:
        print(f"falls short: {one.stage}", file=sys.stderr)
    return len(short)


def line(one: Row | Growth) -> str:
    """Return a line of the report."""
    mark = " **missed**" if one.short else ""
    if isinstance(one, Growth):
        sizes, taken = ", ".join(f"{n:,}" for n in one.sizes), ", ".join(f"{s:.3g}" for s in one.seconds)
        return f"| {one.stage} | {sizes} | {taken} | {one.exponent:.2f} | {one.most:g}{mark} |"
    wanted = "" if one.least is None else f"{one.least:.3g}{mark}"
    cells = f"{spread(one.ours)} | {one.reference} | {spread(one.plain)} | {one.unit} | {one.ratio:,.3g}"
    return f"| {one.stage} | {cells} | {wanted} |"


def report(found: Found) -> str:
    """Return the report in Markdown."""
    lines = [
        "# What each stage costs",
        "",
        f"{device()}, one thread; processor seconds, median (least to most) of the runs, each beside its "
        "reference in the same run. A ratio says how many times better ours is; machines differ in seconds, "
        "less in ratios. Written by `make bench`.",
        "",
        "| stage | ours | reference | its value | unit | ratio | at least |",
        "|---|---:|---|---:|---|---:|---:|",
        *(line(one) for one in found if isinstance(one, Row)),
        "",
        "## Growth",
        "",
        "| stage | locations | seconds | exponent | at most |",
        "|---|---|---|---:|---:|",
        *(line(one) for one in found if isinstance(one, Growth)),
    ]
    return "\n".join([*lines, ""])


def plot(grown: list[Growth]) -> None:
    """Draw seconds against locations, with the exponents."""
    with plt.style.context(paths.ROOT / "stlib/style.mplstyle"):
        figure, axes = plt.subplots(layout="constrained")
        for one in grown:
            axes.loglog(one.sizes, one.seconds, "o-", label=f"{one.stage}: N^{one.exponent:.2f}")
        axes.set(xlabel="locations", ylabel="processor seconds")
        axes.legend()
        with paths.replacing(paths.FIGURES / "bench_growth.png") as partial:
            figure.savefig(partial, format="png")
        plt.close(figure)


if __name__ == "__main__":
    sys.exit(min(1, main(sys.argv[1:])))
