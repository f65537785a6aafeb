"""What a whole slide of Visium HD costs: 11 million bins of 2 um, read, summed and written.

``python benchmarks/visium_hd.py`` makes two slides in a temporary folder (or in the one that is named, and
keeps them there) and writes results/visium_hd.md. Every bin of the area is under tissue, so there are more of
them than on any real slide; counts, genes and the order of bins are drawn. One slide has as many counts as
the mouse brain of 10x Genomics, the other as many as the deepest slides may have. Each step is a process of
its own, so that its peak of memory is its own, too. The plain reference reads the whole matrix and multiplies
once. Seconds are those of the processor, so that other work on the machine counts little.
"""

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
from scipy import sparse
from tqdm import tqdm

from stlib import paths
from stlib.bin_folder import BinFolder, folder_name
from stlib.bins import COLUMNS, format_names
from stlib.datasets import visium_hd
from stlib.locations import lay_out
from stlib.params import Params, load_params
from stlib.results import device, peak_memory_mb
from stlib.sections import write_section
from stlib.tenx import Matrix

SIDE, BIN_UM, UM_PER_PX = 3350, 2, 0.2738
GENES, BLOCK = 19_000, 2**19
SLIDES = {"usual": 7.2, "deep": 26.8}  # name of a made slide -> mean counts of a bin, before they are added
STEPS = {  # what is measured on each
    "usual": ("grid", "8um", "16um", "55um", "8um sample", "16um sample", "55um sample", "8um plain"),
    "deep": ("8um", "8um sample"),
}
WORDS = {"grid": "grid fitted to all positions", "sample": "a sample, as in crc_hd", "plain": "plain sum"}
DIGITS = {"locations": 0, "nnz": 0, "read": 1, "peak": 0, "write": 1, "write_peak": 0, "mb": 0}  # decimals


def bins_of(folder: Path, slide: str) -> BinFolder:
    """Return the bins of a made slide."""
    return BinFolder(folder / slide / folder_name(BIN_UM), BIN_UM)


def make(bins: BinFolder, per_bin: float) -> None:
    """Write a folder of bins, block by block."""
    rng = np.random.default_rng(0)
    order = rng.permutation(SIDE**2)  # of the matrix
    share = 1 / (np.arange(GENES) + 20.0)  # few genes are frequent
    reach = np.cumsum(share) / share.sum()
    bins.file("positions").parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(bins.file("counts"), "w") as file:
        content = file.create_group("matrix")
        ids = np.array([f"ENSG{n:011d}" for n in range(GENES)], "S")
        content["features/id"] = content["features/name"] = ids
        content["features/feature_type"] = np.full(GENES, b"Gene Expression")
        content["shape"] = np.array([GENES, SIDE**2], np.int32)
        options = {"maxshape": (None,), "chunks": (2**18,), "compression": "gzip", "compression_opts": 1}
        data = content.create_dataset("data", (0,), np.int32, **options)
        indices = content.create_dataset("indices", (0,), np.int64, **options)
        names = content.create_dataset("barcodes", (SIDE**2,), "S21", compression="gzip", compression_opts=1)
        indptr = [np.zeros(1, np.int64)]
        for start in tqdm(range(0, SIDE**2, BLOCK), unit="block", desc="made slide"):
            part = order[start : start + BLOCK]
            number = rng.poisson(per_bin, len(part))
            bin_ = np.repeat(np.arange(len(part)), number)
            gene = np.searchsorted(reach, rng.random(len(bin_)))
            counts = sparse.csr_matrix((np.ones(len(bin_), np.int32), (bin_, gene)), (len(part), GENES))
            for stored, values in ((data, counts.data), (indices, counts.indices)):
                stored.resize(len(stored) + len(values), 0)
                stored[-len(values) :] = values
            indptr.append(indptr[-1][-1] + counts.indptr[1:].astype(np.int64))
            names[start : start + len(part)] = format_names(BIN_UM, places(part)).astype("S")
        content["indptr"] = np.concatenate(indptr)
    positions(bins.file("positions"))
    factors = {"bin_size_um": 2.0, "microns_per_pixel": UM_PER_PX, "spot_diameter_fullres": 2 / UM_PER_PX}
    bins.file("scale").write_text(json.dumps(factors))


def places(number: np.ndarray) -> np.ndarray:
    """Return column and row (N, 2) of bins that are numbered row by row."""
    return np.stack([number % SIDE, number // SIDE], 1)


def positions(path: Path) -> None:
    """Write the positions of all bins in one group; columns rise to the left, the grid is turned a little."""
    import pyarrow
    from pyarrow import parquet

    place = places(np.arange(SIDE**2))
    axes = np.array([[-1.0, 0.015], [0.015, 1.0]]) / np.hypot(1, 0.015) / UM_PER_PX
    px = (place + 0.5) * BIN_UM @ axes + [SIDE * BIN_UM / UM_PER_PX, 0]
    inside = np.ones(len(place), np.int64)
    names = pyarrow.array(format_names(BIN_UM, place).astype("S")).cast(pyarrow.string())
    columns = [names, inside, place[:, 1], place[:, 0], px[:, 1], px[:, 0]]
    table = pyarrow.table(dict(zip(COLUMNS, columns, strict=True)))
    parquet.write_table(table, path, row_group_size=SIDE**2)


def params(slide: str, size: str, sampled: bool) -> Params:
    """Return the dataset crc_hd at a size, of one made section."""
    base = load_params(f"crc_hd@{size}")
    source = base.source.model_copy(update={"options": {}})
    changes = {"sections": {slide: [slide]}, "source": source, "sample": base.sample if sampled else None}
    return base.model_copy(update=changes)


def step(folder: Path, slide: str, name: str) -> dict[str, float]:
    """Do one step in this process, and return what it took."""
    size, _, kind = name.partition(" ")
    if size == "grid":
        seconds, _ = timed(bins_of(folder, slide).grid)
        return {"read": seconds, "peak": peak_memory_mb()}
    if kind == "plain":
        seconds, total = timed(lambda: plain(folder, slide, size))
        return {"read": seconds, "peak": peak_memory_mb(), "locations": total.shape[0], "nnz": total.nnz}
    dataset, file = params(slide, size, kind == "sample"), folder / f"{slide} {name}.h5ad"
    seconds, section = timed(lambda: visium_hd.read(dataset, folder, slide, slide=False))
    found = {"read": seconds, "peak": peak_memory_mb(), "locations": len(section), "nnz": section.counts.nnz}
    found["write"], _ = timed(lambda: write_section(file, section))
    return found | {"write_peak": peak_memory_mb(), "mb": file.stat().st_size / 1e6}


def plain(folder: Path, slide: str, size: str) -> sparse.csr_matrix:
    """Sum all bins at once, the whole matrix in memory."""
    bins = bins_of(folder, slide)
    grid = bins.grid()
    with Matrix(bins.file("counts")) as matrix:
        layout = lay_out(bins.places(matrix, grid), BIN_UM, params(slide, size, False).spot, grid, None)
        ((_, counts),) = matrix.blocks(len(matrix))
    ones, order = np.ones(len(layout.number), np.int32), np.arange(len(layout.number))
    select = sparse.csr_matrix((ones, (layout.number, order)), (len(layout.place) + 1, len(order)))
    return (select @ counts)[:-1]


def timed(work: Callable[[], object]) -> tuple[float, object]:
    """Return seconds of the processor, and what was returned."""
    start = time.process_time()
    result = work()
    return time.process_time() - start, result


def main(folder: Path) -> None:
    """Make the slides that are not there, measure all steps, and write the report."""
    rows: dict[tuple[str, str], dict[str, float]] = {}
    for slide, per_bin in SLIDES.items():
        if not bins_of(folder, slide).file("scale").exists():  # written last
            make(bins_of(folder, slide), per_bin)
        for name in tqdm(STEPS[slide], unit="step", desc=slide):
            command = [sys.executable, __file__, str(folder), slide, name]
            done = subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True)
            rows[slide, name] = json.loads(done.stdout.splitlines()[-1])
    paths.write_text(paths.RESULTS / "visium_hd.md", report(folder, rows))


def report(folder: Path, rows: dict[tuple[str, str], dict[str, float]]) -> str:
    """Return the report in Markdown."""
    lines = [
        "# A slide of Visium HD",
        "",
        f"{device()}; seconds of the processor, each step in a process of its own. Made slides of "
        f"{SIDE**2:,} bins of 2 um and {GENES:,} genes, without an image. Reading fits the grid, passes the "
        "matrix twice in blocks, and sums locations and, where these are not all that was measured, the cells "
        "of both coarser levels. The plain sum holds the whole matrix. Written by `python "
        "benchmarks/visium_hd.py`.",
        "",
    ]
    for slide in SLIDES:
        bins = bins_of(folder, slide)
        with Matrix(bins.file("counts")) as matrix:
            counts = matrix.counts
        disk = (
            f"{bins.file(kind).stat().st_size / 1e6:,.0f} MB of {kind}" for kind in ("counts", "positions")
        )
        lines.append(f"- *{slide}*: {counts:,} non-zeros; {', '.join(disk)} on disk")
    lines += [
        "",
        "| slide | step | locations | non-zeros | read, sum: s | peak, MB | write, s | peak, MB | file, MB |",
        "|---|---|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for (slide, name), row in rows.items():
        size, _, kind = name.partition(" ")
        words = WORDS[size] if size in WORDS else f"{size}: {WORDS.get(kind, 'all')}"
        cells = [f"{row[key]:,.{digits}f}" if key in row else "" for key, digits in DIGITS.items()]
        lines.append(f"| {slide} | {words} | {' | '.join(cells)} |")
    whole, plainly = rows["usual", "8um"], rows["usual", "8um plain"]
    lines += [
        "",
        f"Blocks take {whole['read'] / plainly['read']:.1f} times the seconds of the plain sum and "
        f"{whole['peak'] / plainly['peak']:.2f} times its memory.",
        "",
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    if len(sys.argv) == 4:
        print(json.dumps(step(Path(sys.argv[1]), *sys.argv[2:])))
    elif len(sys.argv) == 2:
        main(Path(sys.argv[1]))
    else:
        with tempfile.TemporaryDirectory() as temporary:
            main(Path(temporary))
