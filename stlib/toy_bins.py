"""The toy tissue under bins: measured as Visium HD measures, and written as Space Ranger writes.

Counts are drawn at 8 um and split at random over the bins of 2 um in each, so that the bins of 2, 8 and 16 um
are sums of one another. The capture area lies mirrored and slightly turned on the slide, and reaches beyond
it. Its side is no multiple of 16 um: the last bins of a row are cut.
"""

import json
from pathlib import Path

import h5py
import numpy as np
import tifffile
from pydantic import PositiveInt
from scipy import sparse
from scipy.interpolate import RectBivariateSpline

from stlib import toy
from stlib.bin_folder import HIRES_PX, SIDES_UM, BinFolder, folder_name
from stlib.bins import COLUMNS, centres_um, format_names
from stlib.params import Patients, Spot
from stlib.paths import replacing, write_text
from stlib.toy import CONTEXT_UM, Block, Toy
from stlib.toy_paint import paint

FINE_UM, DRAWN_UM = 2, 8
RATIO = DRAWN_UM // FINE_UM
GRID_UM = CONTEXT_UM / 10  # of what lies around places
TRUTH = "expected_counts.h5"  # beside Space Ranger's folder


class Options(toy.Options):
    """All numbers of the tissue and of the capture area; `depth` is that of a bin of 8 um."""

    bins: PositiveInt  # of 2 um along a side of the capture area
    turn_deg: float  # of its rows against those of the slide


class ManyPlaces(Block):
    """A block that is asked at every bin of a slide: what lies around is smooth, so a grid has it all."""

    def tumour_around(self, points: np.ndarray) -> np.ndarray:
        """Return the share of tumour within `CONTEXT_UM` around places (N, 3) of one section."""
        low, high = points.min(0), points.max(0)
        if low[2] != high[2]:
            raise ValueError(f"places must be those of one section, found z from {low[2]} to {high[2]} um")
        x, y = (np.arange(low[axis] - GRID_UM, high[axis] + 2 * GRID_UM, GRID_UM) for axis in (0, 1))
        grid = np.stack(np.meshgrid(x, y, low[2:], indexing="ij"), -1).reshape(-1, 3)
        found = super().tumour_around(grid).reshape(len(x), len(y))
        return RectBivariateSpline(x, y, found)(*points[:, :2].T, grid=False)


class ToyBins(Toy):
    """The whole dataset; its spots are the bins of 8 um.

    `sections` is patient -> its section. `matrix` (3, 2) is px per um of column, of row; then the corner of
    the capture area, px.
    """

    BLOCK = ManyPlaces

    def __init__(self, options: Options, sections: Patients) -> None:
        spot = Spot(shape="square", size_um=DRAWN_UM, pitch_um=DRAWN_UM)
        super().__init__(options, sections, spot)
        turn = np.deg2rad(options.turn_deg)
        column, row = (-np.cos(turn), np.sin(turn)), (np.sin(turn), np.cos(turn))  # columns rise to the left
        axes = np.array([column, row]) / options.um_per_px
        middle = np.full(2, options.bins * FINE_UM / 2)
        self.matrix = np.vstack([axes, options.size_px / 2 - middle @ axes])

    def layout(self) -> tuple[np.ndarray, np.ndarray]:
        """Return column and row (P, 2), and position (P, 2), of all bins of 8 um, cut ones included."""
        place = self.bins(DRAWN_UM)
        return place, self.to_px(place, DRAWN_UM)

    def bins(self, side_um: int) -> np.ndarray:
        """Return column and row of all bins of a side (P, 2), row by row."""
        number = -(-self.options.bins * FINE_UM // side_um)
        return np.stack(np.meshgrid(np.arange(number), np.arange(number)), -1).reshape(-1, 2)

    def to_px(self, place: np.ndarray, side_um: int) -> np.ndarray:
        """Return the centres of bins (N, 2), level-0 px."""
        return centres_um(place, side_um) @ self.matrix[:2] + self.matrix[2]

    def children(self, place: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the bins of 2 um in bins of 8 um: their places (C, 2), and the row of their parent (C,)."""
        steps = np.stack(np.meshgrid(np.arange(RATIO), np.arange(RATIO)), -1).reshape(-1, 2)
        fine = place[:, None] * RATIO + steps  # (N, 16, 2)
        there = (fine < self.options.bins).all(2)
        return fine[there], np.nonzero(there)[0]

    def split(
        self, section: str, place: np.ndarray, counts: np.ndarray
    ) -> tuple[np.ndarray, sparse.csr_matrix]:
        """Split the counts of bins of 8 um (N, M): the bins of 2 um in them (C, 2), and theirs (C, M)."""
        fine, parent = self.children(place)
        number = np.bincount(parent)  # at an edge fewer than 16
        first = np.cumsum(number) - number
        bin_, gene = np.nonzero(counts)
        times = counts[bin_, gene]
        bin_, gene = np.repeat(bin_, times), np.repeat(gene, times)
        rng = self.random("counts", section).spawn(1)[0]
        child = first[bin_] + rng.integers(number[bin_])
        ones = np.ones(len(child), np.int32)
        return fine, sparse.csr_matrix((ones, (child, gene)), shape=(len(fine), counts.shape[1]))


def write_raw(folder: Path, tissue: ToyBins, section: str) -> None:
    """Write what Space Ranger would, the slide, and the truth: the expected counts of bins of 8 um."""
    place, _ = tissue.spots(section)
    counts, rate = tissue.measure(section)
    fine, fine_counts = tissue.split(section, place, counts)
    rng = tissue.random("counts", section).spawn(2)[1]
    for side in SIDES_UM:
        bins = BinFolder(folder / folder_name(side), side)
        every = tissue.bins(side)
        width = every[-1, 0] + 1
        code = fine[:, 1] // (side // FINE_UM) * width + fine[:, 0] // (side // FINE_UM)
        under, index = np.unique(code, return_inverse=True)
        ones = np.ones(len(fine), np.int32)
        total = sparse.csr_matrix((ones, (index, np.arange(len(fine))))) @ fine_counts
        order = rng.permutation(len(under))  # that of the matrix is none of the grid
        names = format_names(side, every)
        _write_matrix(bins.file("counts"), names[under[order]], tissue.genes, total[order])
        inside = np.zeros(len(every), np.int64)
        inside[under] = 1
        _write_positions(bins.file("positions"), names, inside, every, tissue.to_px(every, side))
        write_text(bins.file("scale"), json.dumps(_factors(tissue, side)))
    with replacing(folder / "tissue_image.btf") as temporary:
        tifffile.imwrite(
            temporary, paint(tissue, section), bigtiff=True, photometric="rgb", rowsperstrip=1, metadata=None,
            resolution=(96, 96), resolutionunit="INCH",
        )  # fmt: skip
    with replacing(folder / TRUTH) as temporary, h5py.File(temporary, "w") as file:
        file.create_dataset("place", data=place.astype(np.int16), compression="gzip")
        file.create_dataset("rate", data=rate.astype(np.float16), compression="gzip", shuffle=True)


def _factors(tissue: ToyBins, side_um: int) -> dict[str, float]:
    options = tissue.options
    return {
        "spot_diameter_fullres": side_um / options.um_per_px,
        "bin_size_um": float(side_um),
        "microns_per_pixel": options.um_per_px,
        "tissue_hires_scalef": HIRES_PX / options.size_px,
        "tissue_lowres_scalef": HIRES_PX / options.size_px / 10,
    }


def _write_matrix(path: Path, names: np.ndarray, genes: np.ndarray, counts: sparse.csr_matrix) -> None:
    """Write bins x genes as features x barcodes in columns, which is the same arrays."""
    content = {
        "barcodes": names.astype("S"),
        "data": counts.data.astype(np.int32),
        "indices": counts.indices.astype(np.int64),
        "indptr": counts.indptr.astype(np.int64),
        "shape": np.array(counts.shape[::-1], np.int32),
        "features/id": genes.astype("S"),
        "features/name": genes.astype("S"),
        "features/feature_type": np.full(len(genes), b"Gene Expression"),
        "features/genome": np.full(len(genes), b"toy"),
        "features/_all_tag_keys": np.array([b"genome"]),
    }
    with replacing(path) as temporary, h5py.File(temporary, "w") as file:
        for name, values in content.items():
            file.create_dataset(f"matrix/{name}", data=values, compression="gzip", shuffle=True)


def _write_positions(
    path: Path, names: np.ndarray, inside: np.ndarray, place: np.ndarray, px: np.ndarray
) -> None:
    """Write the positions of all bins, row by row, in one group."""
    import pyarrow
    from pyarrow import parquet

    columns = [names, inside, place[:, 1], place[:, 0], px[:, 1], px[:, 0]]  # row and y before column and x
    table = pyarrow.table(dict(zip(COLUMNS, columns, strict=True)))
    with replacing(path) as temporary:
        parquet.write_table(
            table, temporary, row_group_size=len(names), compression="zstd", use_dictionary=False,
            use_byte_stream_split=list(COLUMNS[4:]),
        )  # fmt: skip
