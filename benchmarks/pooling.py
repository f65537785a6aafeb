"""What PixNet's pooling saves, and what it costs: a step with and without the full map, and a whole slide.

``python -m benchmarks.pooling [bins along a side of the whole slide]`` writes results/pooling.md. Each
part runs in a process of its own, so that peaks of memory are its own; seconds are those of the processor, so
that other work on the machine counts little.

A step takes a map of 256 x 256 cells, sums up all bins of one size on it, predicts 250 genes and goes back to
the map. The plain reference makes what the equations say: logits of all cells, enlarged to 1,024 x 1,024 px,
then summed over the pixels of each bin.

The whole slide is made: squares of 2 um side by side at 0.325 um per px on a picture that repeats. The
network sees it halved once, through a small encoder with random weights.
"""

import json
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from torch.nn.functional import interpolate, linear
from tqdm import tqdm

from benchmarks.measure import Found, Row, apart, peak_mb
from stlib import paths
from stlib.batch import Shape
from stlib.footprints import Footprints
from stlib.genemaps import predict_slide
from stlib.machine import device
from stlib.models import build, configure
from stlib.pooling import as_tensor, pooled, pooling
from stlib.slide import write_pyramid
from stlib.tiles import Tiles
from stlib.windows import halved_size

UM_PER_PX, GENES, CHANNELS, STRIDE = 0.325, 250, 64, 4
WINDOW_PX = 1024
SIZES_UM = (2, 16)
SIDE = 3163  # bins along each side of the slide: 10 million
SMALL = {"encoder": "test_resnet@untrained", "hidden": 32, "halvings": 1, "tile_px": 2048}
WIDTH = 32  # channels of its cells
SLIDE_PX = 20_000  # of the extrapolation


def bins(side: int, size_um: float, um_per_px: float, shape: str) -> Footprints:
    """Return side x side bins, or the discs inside them, next to each other from the corner on."""
    px = size_um / um_per_px
    place = np.stack(np.meshgrid(np.arange(side), np.arange(side)), -1).reshape(-1, 2)
    return Footprints((place + 0.5) * px, np.broadcast_to(px / 2, place.shape), shape)


def slide_px(side: int) -> int:
    """Return the side of a slide of some bins a side, px; even."""
    return 2 * int(np.ceil(side / UM_PER_PX))


def step(kind: str, size_um: str) -> list[float]:
    """Take two steps; return the seconds of the second, and the memory above what the start took, MB."""
    torch.manual_seed(0)
    prints = bins(int(WINDOW_PX * UM_PER_PX / float(size_um)), float(size_um), UM_PER_PX, "circle")
    weight, bias = torch.randn(GENES, CHANNELS, requires_grad=True), torch.zeros(GENES, requires_grad=True)
    cells = torch.randn(CHANNELS, *[WINDOW_PX // STRIDE] * 2, requires_grad=True)
    stride = STRIDE if kind == "pooled" else 1  # at stride 1 the matrix is S: which pixels a bin has
    found = pooling(prints, (0, 0, WINDOW_PX, WINDOW_PX), stride, [WINDOW_PX // stride] * 2)
    matrix, area = as_tensor(found.matrix), torch.from_numpy(found.pixels)[:, None]
    before = peak_mb()
    for _ in range(2):
        start = time.process_time()
        if kind == "pooled":
            out = linear(pooled(matrix, cells.flatten(1).T) / area, weight, bias)
        else:
            logits = torch.einsum("gc,chw->ghw", weight, cells) + bias[:, None, None]
            full = interpolate(logits[None], [WINDOW_PX] * 2, mode="bilinear")[0]  # (G, H, W)
            out = pooled(matrix, full.flatten(1).T) / area
        out.square().mean().backward()
        seconds = time.process_time() - start
    return [seconds, peak_mb() - before, float(out.square().mean()), len(prints)]


def matrix(shape: str) -> list[float]:
    """Make the matrix of 10 million bins; return seconds, GB of the matrix, entries of a row, peak in GB."""
    prints = bins(SIDE, 2, UM_PER_PX, shape)
    side = int(np.ceil(SIDE * 2 / UM_PER_PX))
    start = time.process_time()
    found = pooling(prints, (0, 0, side, side), STRIDE, [-(-side // STRIDE)] * 2).matrix
    seconds = time.process_time() - start
    size = found.data.nbytes + found.indices.nbytes + found.indptr.nbytes
    return [seconds, size / 1e9, found.nnz / len(prints), peak_mb() / 1e3]


def paint(folder: str, side: str) -> list[float]:
    """Write a slide of some bins a side: smooth noise that repeats."""
    rng, px = np.random.default_rng(0), slide_px(int(side))
    coarse = torch.from_numpy(rng.uniform(90, 250, (1, 3, 40, 40)))
    piece = interpolate(coarse, (1000, 1000), mode="bicubic").clamp(0, 255)[0].byte().permute(1, 2, 0).numpy()
    times = -(-px // 1000)
    write_pyramid(np.tile(piece, (times, times, 1))[:px, :px], Path(folder) / "slide.tif", UM_PER_PX)
    return [px]


def whole(folder: str, side: str) -> list[float]:
    """Predict 250 genes for all bins of the slide; return seconds, peak in GB, GB written."""
    torch.manual_seed(0)
    genes = Shape(tuple(f"GENE{n}" for n in range(GENES)))
    model = build("pixnet", configure("pixnet", "2d", **SMALL), genes).eval()
    n, px = int(side), slide_px(int(side))
    array = np.stack(np.meshgrid(np.arange(n), np.arange(n)), -1).reshape(-1, 2)
    prints = bins(n, 2, 2 * UM_PER_PX, "square")
    tiles = Tiles(Path(folder) / "slide.tif", halved_size(np.array([px, px]), 1), prints, 1)
    start = time.process_time()
    store = predict_slide(model, tiles, array, Path(folder) / "expression.zarr", {})
    seconds = time.process_time() - start
    return [seconds, peak_mb() / 1e3, store.nbytes_stored() / 1e9, float(np.isfinite(store[-1]).all())]


PARTS = {"step": step, "matrix": matrix, "paint": paint, "whole": whole}  # each in a process of its own
MODULE = "benchmarks.pooling"


def rows() -> Found:
    """Return what the suite shows of it: the step on the larger bins."""
    sparse, full = (apart(MODULE, "step", kind, SIZES_UM[-1]) for kind in ("pooled", "full"))
    what, against = f"PixNet's pooling of {sparse[3]:,.0f} bins, {GENES} genes", "full-resolution map"
    return [
        Row(f"{what}, time", against, sparse[:1], full[:1]),
        Row(f"{what}, memory", against, sparse[1:2], full[1:2], "MB"),
    ]


def main(side: int = SIDE) -> None:
    """Measure all, and write the report."""
    bar = tqdm(total=2 * len(SIZES_UM) + 4, unit="part")

    def measured(*words: object) -> list[float]:
        found = apart(MODULE, *words)
        bar.update()
        return found

    steps = {um: [measured("step", kind, um) for kind in ("pooled", "full")] for um in SIZES_UM}
    matrices = {shape: measured("matrix", shape) for shape in ("square", "circle")}
    with TemporaryDirectory() as folder:
        (px,) = measured("paint", folder, side)
        slide = measured("whole", folder, side)
    paths.write_text(paths.RESULTS / "pooling.md", report(steps, matrices, slide, side, int(px)))


def report(
    steps: dict[int, list[list[float]]],
    matrices: dict[str, list[float]],
    slide: list[float],
    side: int,
    px: int,
) -> str:
    """Return the report in Markdown."""
    lines = [
        "# PixNet's pooling",
        "",
        f"{device()}, one thread; processor seconds. Written by `python -m benchmarks.pooling`.",
        "",
        f"## A step with and without the full map: {WINDOW_PX:,} x {WINDOW_PX:,} px, {GENES} genes",
        "",
        "| bins | number | pooled, s | full map, s | ratio | pooled, MB | full map, MB | ratio |",
        "|---|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for um, (sparse, full) in steps.items():
        if abs(sparse[2] / full[2] - 1) > 1e-4:
            raise ValueError(f"both ways must predict the same, found mean squares {sparse[2]} and {full[2]}")
        lines.append(
            f"| {um} um | {sparse[3]:,.0f} | {sparse[0]:.2f} | {full[0]:.2f} | {full[0] / sparse[0]:.0f} | "
            f"{sparse[1]:,.0f} | {full[1]:,.0f} | {full[1] / max(sparse[1], 1):.0f} |"
        )
    times = (SLIDE_PX / WINDOW_PX) ** 2
    full = steps[SIZES_UM[0]][1]
    lines += [
        "",
        f"The same numbers come out. A slide of {SLIDE_PX:,} x {SLIDE_PX:,} px is {times:.0f} such windows: "
        f"at once, the step with the full map would take {full[1] * times / 1e6:.1f} TB and "
        f"{full[0] * times / 60:.0f} minutes (extrapolated; the map alone is "
        f"{SLIDE_PX**2 * GENES * 4 / 1e9:.0f} GB).",
        "",
        f"## The matrix of {SIDE**2:,} bins of 2 um at {UM_PER_PX} um per px, stride {STRIDE}",
        "",
        "| bins | s | entries of a row | matrix, GB | peak of the process, GB |",
        "|---|---:|---:|---:|---:|",
        *(
            f"| {'squares' if shape == 'square' else 'discs'} | {s:.0f} | {row:.1f} | {gb:.2f} | {peak:.1f} |"
            for shape, (s, gb, row, peak) in matrices.items()
        ),
        "",
        f"## A whole slide: {side**2:,} bins of 2 um, {GENES} genes, {px:,} x {px:,} px",
        "",
        f"Made slide, seen halved ({2 * UM_PER_PX} um per px) through {SMALL['encoder']} with "
        f"{SMALL['hidden']} hidden channels, tiles of {SMALL['tile_px']:,} px: {slide[0]:,.0f} s, peak of "
        f"the process {slide[1]:.1f} GB, {slide[2]:.1f} GB written (float16, compressed). The matrix is made "
        "tile by tile.",
        *(
            []
            if side == SIDE
            else [
                "",
                f"Scaled down from {SIDE**2:,} bins, whose sums alone, "
                f"N x {WIDTH} float32, take {SIDE**2 * WIDTH * 4 / 1e9:.1f} GB.",
            ]
        ),
        "",
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    torch.set_num_threads(1)
    if len(sys.argv) > 1 and sys.argv[1] in PARTS:
        print(json.dumps(PARTS[sys.argv[1]](*sys.argv[2:])))
    else:
        main(*map(int, sys.argv[1:]))
