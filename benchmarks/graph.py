"""The graph of a stack, against all pairs, and how it grows up to a million spots.

The sample is made in the shape of her2st's patient A: 2,071 spots in six sections on the grid of ST arrays,
features of 1,024 numbers. The plain reference does what ASIGN's released code does, but without its files:
Shapely for every pair of spots, the cosine of every pair, the largest of each row. Polygons of all pairs take
half a minute, so that evenly spaced rows stand for all.
"""

import json
import sys
import time

import numpy as np
import shapely
import torch

from benchmarks.measure import Found, Growth, Row, apart, peak_mb, seconds
from stlib.graph import knn_graph
from stlib.overlap import contours
from stlib.propagation import propagate
from stlib.stack import overlap_graph, stack_graph

SIZES = (347, 326, 360, 344, 333, 361)  # spots of the sections
PITCH_PX, SHIFT_PX, JITTER_PX, RADIUS_PX, WIDTH = 222, 100, 10, 112, 1024
INTRA, CROSS, GENES = 8, 12, 250
ROWS = 60  # of all-pairs polygons that are measured
GROWING = (1_000, 10_000, 100_000, 1_000_000)
NARROW, FEW = 16, {"intra": 8, "cross": 4, "candidates": 8}  # of the graph that grows: two sections
STAGES = ("overlap", "neighbours", "whole graph")

Sample = tuple[np.ndarray, np.ndarray, np.ndarray]


def stack(sizes: tuple[int, ...], width: int) -> Sample:
    """Return positions (n, 2) in px, sections (n,) and features (n, width): discs of a grid, each shifted."""
    rng, parts = np.random.default_rng(0), []
    for size in sizes:
        side = np.arange(int(1.3 * size**0.5) + 3) * float(PITCH_PX)
        grid = np.stack(np.meshgrid(side, side), -1).reshape(-1, 2)
        middle = np.linalg.norm(grid - grid.mean(0), axis=1).argsort(kind="stable")[:size]
        disc = grid[np.sort(middle)] - grid.mean(0) + rng.uniform(-SHIFT_PX, SHIFT_PX, 2)
        parts.append(disc + rng.normal(0, JITTER_PX, disc.shape))
    features = rng.standard_normal((sum(sizes), width), np.float32)
    return np.concatenate(parts), np.repeat(np.arange(len(sizes)), sizes), features


def whole(sample: Sample, **numbers: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Make the whole graph."""
    position, group, features = sample
    return stack_graph(position, position, group, features, pitch=PITCH_PX, radius=RADIUS_PX, **numbers)


def polygons(position: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Return the IoU of some spots with all (rows, n), one call of Shapely after the other."""
    shapes = list(shapely.polygons(contours(position, RADIUS_PX)))
    iou = np.zeros((len(rows), len(shapes)))
    for i, row in enumerate(rows):
        for j, other in enumerate(shapes):
            iou[i, j] = shapes[row].intersection(other).area / shapes[row].union(other).area
    return iou


def all_pairs(sample: Sample, iou: np.ndarray) -> np.ndarray:
    """Make the edges of every node from arrays of all pairs (n, n)."""
    position, group, features = sample
    unit = features / np.linalg.norm(features, axis=1, keepdims=True)
    e = iou + unit @ unit.T
    distance = np.linalg.norm(position[:, None] - position, axis=2)
    distance[group[:, None] != group] = np.inf
    edges = np.zeros(e.shape, bool)
    np.put_along_axis(edges, np.argsort(distance, 1)[:, 1 : INTRA + 1], True, 1)
    for section in np.unique(group):
        there = np.flatnonzero(group == section)
        rows = np.flatnonzero(group != section)
        best = there[np.argsort(-e[np.ix_(rows, there)], 1)[:, :CROSS]]
        edges[rows[:, None], best] = True
    return edges | edges.T


def require_agreement(sample: Sample, rows: np.ndarray) -> None:
    """Raise a ValueError unless both ways find the same overlap, up to what a polygon lacks of a circle."""
    position, group, _ = sample
    truth = polygons(position, rows)
    truth[group[rows][:, None] == group] = 0
    for kind, most, contour in (("circles", 2e-4, None), ("outlines", 1e-6, contours(position, RADIUS_PX))):
        (source, target), iou = overlap_graph(position, RADIUS_PX, group, contour)
        found = np.zeros_like(truth)
        for i, row in enumerate(rows):
            found[i, source[target == row]] = iou[target == row]
        off = np.abs(found - truth).max()
        if off > most:
            raise ValueError(f"overlap of {kind} must be Shapely's up to {most}, found {off} off")


def spread_out(sample: Sample) -> list[float]:
    """Return processor seconds of labels that spread 10 times: along edges, and by a dense matrix."""
    graph = whole(sample, intra=INTRA, cross=CROSS)
    n = len(sample[0])
    labels = torch.randn(n, GENES, generator=torch.Generator().manual_seed(0))
    known = torch.from_numpy(sample[1] == 0)
    edges, weight = torch.from_numpy(graph.edge_index), torch.from_numpy(graph.edge_weight).clamp(min=1e-6)
    dense = torch.zeros(n, n).index_put((edges[1], edges[0]), weight)
    dense = dense / dense.sum(1, keepdim=True)

    def by_matrix() -> torch.Tensor:
        value = torch.where(known[:, None], labels, labels[known].mean(0))
        for _ in range(10):
            value = torch.where(known[:, None], labels, dense @ value)
        return value

    torch.testing.assert_close(propagate(labels, known, edges, weight, 10), by_matrix(), rtol=1e-4, atol=1e-5)
    return seconds(lambda: propagate(labels, known, edges, weight, 10), by_matrix)


def grow(stage: str) -> dict[str, list[float]]:
    """Make graphs of `GROWING` spots in this process; return seconds of each, and memory above the start."""
    sections = 2 if stage == "whole graph" else len(SIZES)
    taken, before = [], peak_mb()
    for n in (GROWING[0], *GROWING):  # once to warm up
        position, group, features = stack((n // sections,) * sections, NARROW)
        start = time.process_time()
        if stage == "overlap":
            overlap_graph(position, RADIUS_PX, group)
        elif stage == "neighbours":
            knn_graph(position, INTRA, group)
        else:
            whole((position, group, features), **FEW)
        taken.append(time.process_time() - start)
    return {"s": taken[1:], "mb": [peak_mb() - before]}


def rows() -> Found:
    """Measure the sample against all pairs, and the growth."""
    sample = stack(SIZES, WIDTH)
    position, group, _ = sample
    n = len(position)
    some = np.linspace(0, n - 1, ROWS).astype(int)
    require_agreement(sample, some[::6])
    iou, share = np.zeros((n, n)), n / ROWS
    (overlap, outlines, near, graph) = seconds(
        lambda: overlap_graph(position, RADIUS_PX, group),
        lambda: overlap_graph(position, RADIUS_PX, group, contours(position, RADIUS_PX)),
        lambda: knn_graph(position, INTRA, group),
        lambda: whole(sample, intra=INTRA, cross=CROSS),
        repeats=9,
    )
    shapes, rest = seconds(lambda: polygons(position, some), lambda: all_pairs(sample, iou), repeats=3)
    pairs = [one * share for one in shapes]
    route = [one + other for one, other in zip(pairs, rest, strict=True)]
    spots = f"{n:,} spots, {len(SIZES)} sections"
    shapely_says = f"Shapely, all pairs ({ROWS} rows, scaled)"
    found: Found = [
        Row(f"overlap of {spots}", shapely_says, overlap, pairs, least=500),
        Row("the same, of outlines with 99 corners", shapely_says, outlines, pairs),
        Row(f"3D graph with similarity, {spots}", f"{shapely_says}, all cosines", graph, route, least=100),
        Row(f"2D graph, {spots}", "all distances and cosines, sorted", near, rest),
        Row(f"cross-layer imputation, {GENES} genes", "dense matrix (n, n)", *spread_out(sample)),
    ]
    for stage in STAGES:
        grown = apart("benchmarks.graph", stage)
        found.append(Growth(stage, list(GROWING), grown["s"]))
        what, pairs_mb = f"{stage}, {GROWING[-1]:,} spots, memory", GROWING[-1] ** 2 / 1e6
        found.append(Row(what, "one byte for each pair", grown["mb"], [pairs_mb], "MB", 100))
    return found


if __name__ == "__main__":
    print(json.dumps(grow(sys.argv[1])))
