"""What a whole slide of Visium HD costs: 11 million bins of 2 um, read, summed and written.

``python benchmarks/visium_hd.py`` makes a slide in a temporary folder (or in the one that is named: then what
was made and measured is kept there, and a second call goes on) and writes results/visium_hd.md. Every bin of
the area is under tissue, so there are more of them than on any real slide; counts, genes and the order of
bins are drawn. Each step is a process of its own, so that its peak of memory is its own, too. The plain
reference reads the whole matrix and multiplies once. Seconds are those of the processor, so that other work
on the machine counts little.
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
from stlib.machine import device, peak_memory_mb
from stlib.params import Params, load_params
from stlib.sections import write_section
from stlib.tenx import Matrix

SIDE, BIN_UM, UM_PER_PX = 3350, 2, 0.2738
GENES, PER_BIN, BLOCK = 19_000, 7.2, 2**19
WORDS = {  # step -> what it is
    "8um": "all bins of 8 um",
    "8um sample": "6,000 bins of 8 um, as in crc_hd",
    "8um plain": "all bins of 8 um, the plain sum",
    "grid": "grid fitted to all positions",
    "16um": "all bins of 16 um",
    "55um": "all spots of 55 um",
    "16um sample": "6,000 bins of 16 um, as in crc_hd",
    "55um sample": "2,500 spots of 55 um, as in crc_hd",
}
DIGITS = {"locations": 0, "nnz": 0, "read": 1, "peak": 0, "write": 1, "write_peak": 0, "mb": 0}  # decimals


def bins_of(folder: Path) -> BinFolder:
    """Return the bins of the made slide."""
    return BinFolder(folder / "made" / folder_name(BIN_UM), BIN_UM)


def make(bins: BinFolder) -> None:
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
            number = rng.poisson(PER_BIN, len(part))
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


def params(size: str, sampled: bool) -> Params:
    """Return the dataset crc_hd at a size, of the made section."""
    base = load_params(f"crc_hd@{size}")
    source = base.source.model_copy(update={"options": {}})
    changes = {"sections": {"made": ["made"]}, "source": source, "sample": base.sample if sampled else None}
    return base.model_copy(update=changes)


def step(folder: Path, name: str) -> dict[str, float]:
    """Do one step in this process, and return what it took."""
    size, _, kind = name.partition(" ")
    if size == "grid":
        seconds, _ = timed(bins_of(folder).grid)
        return {"read": seconds, "peak": peak_memory_mb()}
    if kind == "plain":
        seconds, total = timed(lambda: plain(folder, size))
        return {"read": seconds, "peak": peak_memory_mb(), "locations": total.shape[0], "nnz": total.nnz}
    dataset, file = params(size, kind == "sample"), folder / f"{name}.h5ad"
    seconds, section = timed(lambda: visium_hd.read(dataset, folder, "made", slide=False))
    found = {"read": seconds, "peak": peak_memory_mb(), "locations": len(section), "nnz": section.counts.nnz}
    found["write"], _ = timed(lambda: write_section(file, section))
    return found | {"write_peak": peak_memory_mb(), "mb": file.stat().st_size / 1e6}


def plain(folder: Path, size: str) -> sparse.csr_matrix:
    """Sum all bins at once, the whole matrix in memory."""
    bins = bins_of(folder)
    grid = bins.grid()
    with Matrix(bins.file("counts")) as matrix:
        layout = lay_out(bins.places(matrix, grid), BIN_UM, params(size, False).spot, grid, None)
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
    """Make the slide if it is not there, measure what was not measured yet, and write the report."""
    if not bins_of(folder).file("scale").exists():  # written last
        make(bins_of(folder))
    kept = folder / "steps.json"
    rows = json.loads(kept.read_text()) if kept.exists() else {}
    for name in tqdm(WORDS, unit="step"):
        if name not in rows:
            command = [sys.executable, __file__, str(folder), name]
            done = subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True)
            rows[name] = json.loads(done.stdout.splitlines()[-1])
            paths.write_text(kept, json.dumps(rows))
    paths.write_text(paths.RESULTS / "visium_hd.md", report(bins_of(folder), rows))


def report(bins: BinFolder, rows: dict[str, dict[str, float]]) -> str:
    """Return the report in Markdown."""
    with Matrix(bins.file("counts")) as matrix:
        counts = matrix.counts
    disk = [f"{bins.file(kind).stat().st_size / 1e6:,.0f} MB" for kind in ("counts", "positions")]
    whole, plainly = rows["8um"], rows["8um plain"]
    lines = [
        "# A slide of Visium HD",
        "",
        f"{device()}; seconds of the processor, each step in a process of its own. A made slide of "
        f"{SIDE**2:,} bins of 2 um and {GENES:,} genes with {counts:,} non-zeros ({disk[0]} of counts "
        f"and {disk[1]} of positions on disk), without an image. Reading fits the grid, passes the matrix "
        "twice in blocks, and sums locations and, where these are not all that was measured, the cells of "
        "both coarser levels. The plain sum holds the whole matrix. Written by `python "
        "benchmarks/visium_hd.py`.",
        "",
        "| step | locations | non-zeros | read, sum: s | peak, MB | write, s | peak, MB | file, MB |",
        "|---|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for name, row in rows.items():
        cells = [f"{row[key]:,.{digits}f}" if key in row else "" for key, digits in DIGITS.items()]
        lines.append(f"| {WORDS[name]} | {' | '.join(cells)} |")
    lines += [
        "",
        f"Blocks take {whole['read'] / plainly['read']:.1f} times the seconds of the plain sum and "
        f"{whole['peak'] / plainly['peak']:.2f} times its memory.",
        "",
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    if len(sys.argv) == 3:
        print(json.dumps(step(Path(sys.argv[1]), sys.argv[2])))
    elif len(sys.argv) == 2:
        main(Path(sys.argv[1]))
    else:
        with tempfile.TemporaryDirectory() as temporary:
            main(Path(temporary))
