"""What it costs to predict every bin of a slide with MagNet, tile by tile, by the size of the slide.

``python benchmarks/whole_slide.py`` repeats a slide of toy_hd side by side, 1, 2 and 4 times along each axis,
and predicts all bins of 8 um on it with the toy's MagNet: weight-free features of every bin, three rounds of
graph attention, two coarser levels; the smallest slide in tiles of three sizes. Each line is a process of its
own, so that its peak of memory is its own, too; seconds are those of the processor.
Needs `make prepare DATASET=toy_hd@8um`; writes results/whole_slide.md.
"""

import json
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from stlib import paths
from stlib.expression import top_mean_panel
from stlib.feed import Feed
from stlib.machine import device, peak_memory_mb
from stlib.models import Method, build, method
from stlib.params import Params, load_params
from stlib.sections import Section, load_sections
from stlib.slide import Slide, write_pyramid
from stlib.task import config_of
from stlib.wholeslide import predict_slide

DATASET, SECTION, MODEL = "toy_hd@8um", "P1", "magnet"
LINES = ((1, 32), (1, 64), (1, 128), (2, 64), (4, 64))  # repeats of the slide, bins along a tile


def untrained(params: Params, section: Section) -> Method:
    """Return the model with random weights, which cost what trained ones do."""
    config, kind = config_of(params, MODEL, "hd"), method(MODEL)
    feed = Feed(
        params, {SECTION: section}, top_mean_panel([section], params.panel.size), config, unit=kind.UNIT,
        needs=kind.needs(config), protocol="hd",
    )  # fmt: skip
    model = build(MODEL, config, feed.shape)
    model.prepare(feed.whole([SECTION]))
    for parameter in model.parameters():
        if not parameter.any():
            torch.nn.init.normal_(parameter, std=0.1)  # heads start at zero, and would write one value
    return model


def bins(section: Section) -> tuple[np.ndarray, np.ndarray]:
    """Return column and row (N, 2) of all bins of a slide, and their centres (N, 2), px."""
    pitch = section.pitch_um / section.um_per_px
    columns, rows = (np.arange(int(number)) for number in section.size_px // pitch)
    array = np.stack(np.meshgrid(columns, rows), -1).reshape(-1, 2)
    return array, (array + 0.5) * pitch


def line(times: int, side: int) -> dict[str, float]:
    """Predict a slide in this process, and return what it took."""
    torch.set_num_threads(1)
    params = load_params(DATASET)
    section = load_sections(params, [SECTION])[SECTION]
    model = untrained(params, section)
    with Slide(paths.slide_file(params.name, SECTION)) as slide:
        pixels = slide.read(0, 0, *map(int, slide.size_px))
    with tempfile.TemporaryDirectory() as folder:
        paths.DATA = Path(folder)  # the repeated slide stands in for the section's own
        write_pyramid(
            np.tile(pixels, (times, times, 1)), paths.slide_file(params.name, SECTION), section.um_per_px
        )
        array, position = bins(replace(section, size_px=section.size_px * times))
        whole = replace(section, size_px=section.size_px * times)
        before, start = peak_memory_mb(), time.process_time()
        store = predict_slide(model, params, whole, array, position, Path(folder) / "found.zarr", side)
        seconds = time.process_time() - start
        written = sum(path.stat().st_size for path in (Path(folder) / "found.zarr").rglob("*"))
        assert np.isfinite(store[:: store.shape[0] - 1]).all()
    return {"bins": len(array), "s": seconds, "before": before, "peak": peak_memory_mb(), "mb": written / 1e6}


def main() -> None:
    """Measure each line in a process of its own, and write the table."""
    found = []
    for times, side in tqdm(LINES, unit="slide"):
        told = [sys.executable, __file__, str(times), str(side)]
        done = subprocess.run(told, check=True, stdout=subprocess.PIPE, text=True)
        found.append(json.loads(done.stdout))
    paths.write_text(paths.RESULTS / "whole_slide.md", report(found))


def report(found: list[dict[str, float]]) -> str:
    """Return the report in Markdown."""
    lines = [
        "# Every bin of a slide, predicted",
        "",
        f"{device()}; seconds of one processor, each line in a process of its own. The slide P1 of toy_hd, "
        "repeated along both axes; all its bins of 8 um; MagNet with the toy's settings on weight-free "
        "features, 50 genes, chunked float16 Zarr. Written by `python benchmarks/whole_slide.py`.",
        "",
        "| repeats | tiles of | bins | s | bins a second | peak before, MB | peak, MB | written, MB |",
        "|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for (times, side), n in zip(LINES, found, strict=True):
        cells = f"{n['bins']:,} | {n['s']:.0f} | {n['bins'] / n['s']:,.0f} | {n['before']:,} | {n['peak']:,}"
        lines.append(f"| {times} x {times} | {side} x {side} | {cells} | {n['mb']:.0f} |")
    return "\n".join([*lines, ""])


if __name__ == "__main__":
    if len(sys.argv) > 1:
        print(json.dumps(line(int(sys.argv[1]), int(sys.argv[2]))))
    else:
        main()
