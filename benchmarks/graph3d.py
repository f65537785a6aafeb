"""What the 3D graph of a stack costs, how that grows, and what comparing all pairs costs in the same run.

``python benchmarks/graph3d.py`` writes results/bench_graph3d.md. Made spots: ten sections on a grid with the
pitch of ST arrays, features of 1,024 numbers. The plain reference does what ASIGN's released code does, but
without its files: Shapely for every pair of spots, the cosine of every pair, the largest of each row. Seconds
are those of the processor, so that other work on the machine counts little.
"""

import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import shapely
from tqdm import tqdm

from stlib import paths
from stlib.machine import device, peak_memory_mb
from stlib.overlap import contours
from stlib.stack import overlap_graph, stack_graph

SECTIONS, PITCH_PX, JITTER_PX, RADIUS_PX, WIDTH = 10, 300, 10, 112, 1024
INTRA, CROSS = 8, 12
RUNS = {1_000: 5, 3_000: 3, 10_000: 3, 30_000: 1, 100_000: 1}  # spots and how often they are measured
PLAIN, PLAIN_RUNS = 1_000, 3  # of the plain reference; more spots take minutes
KINDS = ("closed form", "polygons")


def stack(n: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return positions (n, 2) in px, sections (n,) and features (n, WIDTH) of a made stack."""
    rng = np.random.default_rng(0)
    each = n // SECTIONS
    grid = np.stack(np.divmod(np.arange(each), int(np.ceil(each**0.5))), 1) * float(PITCH_PX)
    shift = rng.uniform(0, PITCH_PX, (SECTIONS, 1, 2))
    position = (grid + shift + rng.normal(0, JITTER_PX, (SECTIONS, each, 2))).reshape(n, 2)
    return position, np.repeat(np.arange(SECTIONS), each), rng.standard_normal((n, WIDTH), np.float32)


def sparse(position: np.ndarray, group: np.ndarray, features: np.ndarray, kind: str) -> int:
    """Make the whole graph, the outlines included; return its number of edges."""
    contour = contours(position, RADIUS_PX) if kind == "polygons" else None
    graph = stack_graph(
        position, position, group, features,
        pitch=PITCH_PX, intra=INTRA, cross=CROSS, radius=RADIUS_PX, contour=contour,
    )  # fmt: skip
    return graph.edge_index.shape[1]


def plain_overlap(position: np.ndarray) -> np.ndarray:
    """Return the IoU of every pair (n, n), one call of Shapely after the other."""
    shapes = list(shapely.polygons(contours(position, RADIUS_PX)))
    iou = np.zeros((len(shapes), len(shapes)))
    for i, a in enumerate(shapes):
        for j, b in enumerate(shapes):
            iou[i, j] = a.intersection(b).area / a.union(b).area
    return iou


def plain(position: np.ndarray, group: np.ndarray, features: np.ndarray) -> np.ndarray:
    """Make the edges of every node from arrays of all pairs (n, n)."""
    unit = features / np.linalg.norm(features, axis=1, keepdims=True)
    e = plain_overlap(position) + unit @ unit.T
    distance = np.linalg.norm(position[:, None] - position, axis=2)
    distance[group[:, None] != group] = np.inf
    edges = np.zeros(e.shape, bool)
    np.put_along_axis(edges, np.argsort(distance, 1)[:, 1 : INTRA + 1], True, 1)
    for section in range(SECTIONS):
        there = np.flatnonzero(group == section)
        best = there[np.argsort(-e[:, there], 1)[:, :CROSS]]
        rows = np.flatnonzero(group != section)
        edges[rows[:, None], best[rows]] = True
    return edges | edges.T


class Row(NamedTuple):
    """What was found for one number of spots."""

    n: int
    edges: int
    taken: Sequence[np.ndarray]  # seconds of each run, for each of KINDS


def seconds(work: Callable[[], object], repeats: int) -> tuple[np.ndarray, object]:
    """Return the processor time of each of several runs (repeats,), and what the last one returned."""
    found = []
    for _ in range(repeats):
        start = time.process_time()
        result = work()
        found.append(time.process_time() - start)
    return np.array(found), result


def spread(values: np.ndarray, digits: int) -> str:
    """Return the median, and the range of several runs, in words."""
    median, least, most = (f"{f(values):,.{digits}f}" for f in (np.median, np.min, np.max))
    return median if len(values) == 1 else f"{median} ({least} to {most})"


def main() -> None:
    """Measure all; write the report anew after each size."""
    made = stack(PLAIN)
    sparse(*made, KINDS[1])  # warm up
    error = difference(*made[:2])
    reference, _ = seconds(lambda: plain(*made), PLAIN_RUNS)
    rows: list[Row] = []
    for n, repeats in tqdm(RUNS.items(), unit="stack"):
        made = stack(n)
        taken, edges = zip(
            *(seconds(lambda made=made, kind=kind: sparse(*made, kind), repeats) for kind in KINDS),
            strict=True,
        )
        rows.append(Row(n, edges[0], taken))
        paths.write_text(paths.RESULTS / "bench_graph3d.md", report(rows, reference, error))


def difference(position: np.ndarray, group: np.ndarray) -> float:
    """Return how far the polygons' IoU is from Shapely's at most, over all pairs of different sections."""
    (source, target), iou = overlap_graph(position, RADIUS_PX, group, contours(position, RADIUS_PX))
    found = np.zeros((len(position), len(position)))
    found[target, source] = iou
    return np.abs(found - plain_overlap(position))[group[:, None] != group].max()


def report(rows: list[Row], reference: np.ndarray, error: float) -> str:
    """Return the report in Markdown."""
    lines = [
        "# The 3D graph of a stack",
        "",
        f"{device()}; processor seconds, median (least to most) where there are several runs. "
        f"{SECTIONS} made sections, pitch {PITCH_PX} px, radius {RADIUS_PX} px, features of {WIDTH:,}; "
        f"{INTRA} neighbours within and {CROSS} of each other section. Written by `python "
        f"benchmarks/graph3d.py`.",
        "",
        "| spots | runs | edges | closed form, s | polygons, s |",
        "|---:|---:|---:|---:|---:|",
    ]
    for row in rows:
        cells = " | ".join(spread(taken, 2) for taken in row.taken)
        lines.append(f"| {row.n:,} | {len(row.taken[0])} | {row.edges:,} | {cells} |")
    if len(rows) > 1:
        sizes = np.log([row.n for row in rows])
        powers = [np.polyfit(sizes, [np.log(np.median(row.taken[i])) for row in rows], 1)[0] for i in (0, 1)]
        cells = " | ".join(f"{power:.2f}" for power in powers)
        lines.append(f"| grows with spots to the power | | | {cells} |")
    ratios = [spread(reference / np.median(taken), 0) for taken in rows[0].taken]
    lines += [
        "",
        f"All pairs of {PLAIN:,} spots with Shapely: {spread(reference, 1)} s over {len(reference)} runs. "
        f"That is {ratios[0]} times the closed form and {ratios[1]} times the polygons, whose "
        f"IoU differs from "
        f"Shapely's by {error:.0e} at most, the rounding of float32.",
        "",
        f"Peak memory {peak_memory_mb():,} MB; one array of all pairs of {rows[-1].n:,} spots is "
        f"{rows[-1].n ** 2 * 4 / 1e6:,.0f} MB.",
        "",
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
