"""What a whole slide of Visium HD costs: 11 million bins of 2 um, read, summed and written.

``python benchmarks/visium_hd.py`` makes a slide in a temporary folder (or in the one that is named, and keeps
it there) and writes results/visium_hd.md. Every bin of the area is under tissue, so there are more of them
than on any real slide; counts, genes and the order of bins are drawn. Each step is a process of its own, so
that its peak of memory is its own, too. The plain reference reads the whole matrix and multiplies once.
Seconds are those of the processor, so that other work on the machine counts little.
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
GENES, PER_BIN, BLOCK = 19_000, 7.2, 2**19
SIZES = ("8um", "16um", "55um")
DIGITS = {
    "locations": 0,
    "nnz": 0,
    "read": 1,
    "peak": 0,
    "write": 1,
    "write_peak": 0,
    "mb": 0,
}  # of each column


def make(section: Path) -> None:
    """Write the folder of bins of 2 um, block by block."""
    rng = np.random.default_rng(0)
    bins = BinFolder(section / folder_name(BIN_UM), BIN_UM)
    order = rng.permutation(SIDE**2)  # of the matrix
    share = 1 / (np.arange(GENES) + 20.0)  # few genes are frequent
    reach = np.cumsum(share) / share.sum()
    bins.file("positions").parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(bins.file("counts"), "w") as file:
        content = file.create_group("matrix")
        ids = np.array([f"ENSG{n:011d}" for n in range(GENES)], "S")
        for name, values in {
            "id": ids,
            "name": ids,
            "feature_type": np.full(GENES, b"Gene Expression"),
        }.items():
            content[f"features/{name}"] = values
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
    """Return the dataset crc_hd at a size, of one made section."""
    base = load_params(f"crc_hd@{size}")
    source = base.source.model_copy(update={"options": {}})
    changes = {"sections": {"made": ["made"]}, "source": source, "sample": base.sample if sampled else None}
    return base.model_copy(update=changes)


def step(folder: Path, name: str) -> dict[str, float]:
    """Do one step in this process, and return what it took."""
    size, _, kind = name.partition(" ")
    if size == "positions":
        seconds, _ = timed(BinFolder(folder / "made" / folder_name(BIN_UM), BIN_UM).grid)
        return {"read": seconds, "peak": peak_memory_mb()}
    if kind == "plain":
        seconds, total = timed(lambda: plain(folder, size))
        return {"read": seconds, "peak": peak_memory_mb(), "locations": total.shape[0], "nnz": total.nnz}
    dataset = params(size, kind == "sample")
    seconds, section = timed(lambda: visium_hd.read(dataset, folder, "made", slide=False))
    found = {"read": seconds, "peak": peak_memory_mb(), "locations": len(section), "nnz": section.counts.nnz}
    found["write"], _ = timed(lambda: write_section(folder / f"{name}.h5ad", section))
    return found | {"write_peak": peak_memory_mb(), "mb": (folder / f"{name}.h5ad").stat().st_size / 1e6}


def plain(folder: Path, size: str) -> sparse.csr_matrix:
    """Sum all bins at once, the whole matrix in memory; no cells of coarser levels."""
    bins = BinFolder(folder / "made" / folder_name(BIN_UM), BIN_UM)
    grid = bins.grid()
    with Matrix(bins.file("counts")) as matrix:
        layout = lay_out(bins.places(matrix, grid), BIN_UM, params(size, False).spot, grid, None)
        ((_, counts),) = matrix.blocks(len(matrix))
    shape = (len(layout.place) + 1, len(matrix))
    select = sparse.csr_matrix(
        (np.ones(len(matrix), np.int32), (layout.number, np.arange(len(matrix)))), shape
    )
    return (select @ counts)[:-1]


def timed(work: Callable[[], object]) -> tuple[float, object]:
    """Return seconds of the processor, and what was returned."""
    start = time.process_time()
    result = work()
    return time.process_time() - start, result


def main(folder: Path) -> None:
    """Make the slide where it is not there, measure all steps, and write the report."""
    bins = BinFolder(folder / "made" / folder_name(BIN_UM), BIN_UM)
    if not bins.file("scale").exists():  # written last
        make(folder / "made")
    names = ["positions", *SIZES, "8um sample", "16um sample", "55um sample", "8um plain"]
    rows = {}
    for name in tqdm(names, unit="step"):
        command = [sys.executable, __file__, str(folder), name]
        done = subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True)
        rows[name] = json.loads(done.stdout.splitlines()[-1])
    with Matrix(bins.file("counts")) as matrix:
        size = len(matrix), int(matrix.counts)
    paths.write_text(paths.RESULTS / "visium_hd.md", report(rows, size, bins))


def report(rows: dict[str, dict[str, float]], size: tuple[int, int], bins: BinFolder) -> str:
    """Return the report in Markdown."""
    disk = ", ".join(f"{bins.file(kind).stat().st_size / 1e6:,.0f} MB" for kind in ("counts", "positions"))
    words = {
        "positions": "grid fitted to all positions",
        **{size: f"all locations of {size}" for size in SIZES},
        **{f"{size} sample": f"a sample of {size}, as in crc_hd" for size in SIZES},
        "8um plain": "plain: all locations of 8um, no blocks, no cells",
    }
    lines = [
        "# A slide of Visium HD",
        "",
        f"{device()}, seconds of the processor, each step in a process of its own. A made slide of "
        f"{size[0]:,} bins of 2 um, {GENES:,} genes, {size[1]:,} non-zeros (matrix and positions on disk: "
        f"{disk}), no slide image. Reading fits the grid, passes the matrix twice in blocks, and sums "
        "locations and the cells of both coarser levels. Written by `python benchmarks/visium_hd.py`.",
        "",
        "| step | locations | non-zeros | read and sum, s | peak, MB | write, s | peak, MB | file, MB |",
        "|---|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for name, row in rows.items():
        cells = [f"{row[key]:,.{digits}f}" if key in row else "" for key, digits in DIGITS.items()]
        lines.append(f"| {words[name]} | {' | '.join(cells)} |")
    whole, plainly = rows["8um"], rows["8um plain"]
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
