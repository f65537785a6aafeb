"""What the 3D graph of a stack costs, how that grows, and what comparing all pairs costs in the same run.

``python benchmarks/graph3d.py`` writes results/bench_graph3d.md. Made spots: ten sections on a grid with the
pitch of ST arrays, features of 1,024 numbers. The plain reference does what ASIGN's released code does, but
without its files: Shapely for every pair of spots, the cosine of every pair, the largest of each row. Seconds
are those of the processor, so that other work on the machine counts little.
"""

import time
from collections.abc import Callable

import numpy as np
import shapely
from tqdm import tqdm

from stlib import paths
from stlib.overlap import contours
from stlib.results import device, peak_memory_mb
from stlib.stack import overlap_graph, stack_graph

SECTIONS, PITCH_PX, JITTER_PX, RADIUS_PX, WIDTH = 10, 300, 10, 112, 1024
INTRA, CROSS = 8, 12
SIZES = (1_000, 3_000, 10_000, 30_000, 100_000)
REPEATS = 5
PLAIN = {1_000: REPEATS, 3_000: 2}  # spots and runs of the plain reference; more take minutes
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


def seconds(work: Callable[[], object], repeats: int) -> np.ndarray:
    """Return the processor time of each of several runs (repeats,)."""
    found = []
    for _ in range(repeats):
        start = time.process_time()
        work()
        found.append(time.process_time() - start)
    return np.array(found)


def spread(values: np.ndarray, digits: int) -> str:
    """Return the median and the range in words."""
    return f"{np.median(values):,.{digits}f} ({values.min():,.{digits}f} to {values.max():,.{digits}f})"


def main() -> None:
    """Measure all, and write the tables."""
    made = {n: stack(n) for n in SIZES}
    taken: dict[tuple[int, str], np.ndarray] = {}
    edges = {}
    for n in tqdm(SIZES, unit="stack"):
        edges[n] = sparse(*made[n], KINDS[0])  # and warm up
        for kind in KINDS:
            taken[n, kind] = seconds(lambda n=n, kind=kind: sparse(*made[n], kind), REPEATS)
    memory = peak_memory_mb()
    for n, repeats in PLAIN.items():
        taken[n, "all pairs"] = seconds(lambda n=n: plain(*made[n]), repeats)
    report = table(taken, edges, memory, difference(*made[min(PLAIN)][:2]))
    print(report)
    paths.write_text(paths.RESULTS / "bench_graph3d.md", report)


def difference(position: np.ndarray, group: np.ndarray) -> float:
    """Return how far the polygons' IoU is from Shapely's at most, over all pairs of different sections."""
    (source, target), iou = overlap_graph(position, RADIUS_PX, group, contours(position, RADIUS_PX))
    found = np.zeros((len(position), len(position)))
    found[target, source] = iou
    return np.abs(found - plain_overlap(position))[group[:, None] != group].max()


def table(taken: dict[tuple[int, str], np.ndarray], edges: dict[int, int], memory: int, error: float) -> str:
    """Return the report in Markdown."""
    lines = [
        "# The 3D graph of a stack",
        "",
        f"{device()}; processor seconds, median (least to most) of {REPEATS} runs, of all pairs of 3,000 "
        f"spots of {PLAIN[3_000]}. {SECTIONS} made sections, pitch {PITCH_PX} px, radius {RADIUS_PX} px, "
        f"features of {WIDTH:,}; {INTRA} neighbours within and {CROSS} of each other section. "
        "Written by `python benchmarks/graph3d.py`.",
        "",
        "| spots | edges | closed form, s | polygons, s | all pairs with Shapely, s | all pairs / polygons |",
        "|---:|---:|---:|---:|---:|---:|",
    ]
    for n in SIZES:
        cells = [spread(taken[n, kind], 2) for kind in KINDS]
        if n in PLAIN:
            ratio = taken[n, "all pairs"] / np.median(taken[n, "polygons"])
            cells += [spread(taken[n, "all pairs"], 1), spread(ratio, 0)]
        else:
            cells += ["", ""]
        lines.append(f"| {n:,} | {edges[n]:,} | " + " | ".join(cells) + " |")
    powers = [exponent({n: taken[n, kind] for n in SIZES}) for kind in KINDS]
    powers.append(exponent({n: taken[n, "all pairs"] for n in PLAIN}))
    lines += [
        "| grows with spots to the power | | " + " | ".join(f"{power:.2f}" for power in powers) + " | |",
        "",
        f"The polygons' IoU differs from Shapely's by {error:.0e} at most, the rounding of float32. "
        f"Peak memory of the sparse graphs {memory:,} MB, with {sum(SIZES) * WIDTH * 4 / 1e6:,.0f} MB of "
        f"features at hand; one array of all pairs of {max(SIZES):,} spots is "
        f"{max(SIZES) ** 2 * 4 / 1e6:,.0f} MB.",
        "",
    ]
    return "\n".join(lines)


def exponent(found: dict[int, np.ndarray]) -> float:
    """Return the power of the number of spots that fits the medians best."""
    medians = [np.median(values) for values in found.values()]
    return np.polyfit(np.log(list(found)), np.log(medians), 1)[0]


if __name__ == "__main__":
    main()
