"""A folder of bins as Space Ranger writes it for Visium HD, ``square_008um``: what it holds, and its scale.

The matrix lists bins under tissue, in no order of the grid, the table of positions all bins, the JSON the
scale. They belong together by the names of the bins, never by the order of rows.
"""

import json
import math
import warnings
from pathlib import Path
from typing import NamedTuple

import numpy as np

from stlib.bins import SCALES_DIFFER, Grid, parse_names, read_grid
from stlib.locations import tiles
from stlib.params import Spot
from stlib.tenx import Matrix

SIDES_UM = (2, 8, 16)
FILES = {  # kind -> where it lies below the folder
    "counts": "filtered_feature_bc_matrix.h5",
    "positions": "spatial/tissue_positions.parquet",
    "scale": "spatial/scalefactors_json.json",
}
HIRES_PX = 6000  # longer side of tissue_hires_image.png
SIDES_DIFFER = 1e-3  # of spot_diameter_fullres against bin_size_um / microns_per_pixel
PARTS = 4  # bins at least along a pseudo-spot


def folder_name(side_um: int) -> str:
    """Return where bins of a side lie below the folder of a section."""
    return f"binned_outputs/square_{side_um:03d}um"


class BinFolder(NamedTuple):
    """One folder of bins of one side."""

    folder: Path
    side_um: int

    def file(self, kind: str) -> Path:
        """Return the path of one of `FILES`."""
        return self.folder / FILES[kind]

    def grid(self) -> Grid:
        """Fit the grid to the positions, see `stlib.bins.read_grid`."""
        return read_grid(self.file("positions"), self.side_um)

    def places(self, matrix: Matrix, grid: Grid) -> np.ndarray:
        """Return column and row of the matrix's bins (N, 2), by their names.

        Raises
        ------
        ValueError
            If a bin is of another side, has no position under tissue, or occurs twice.
        """
        side, place = parse_names(matrix.barcodes, str(matrix.path))
        if side != self.side_um:
            raise matrix.refuse(f"{self.folder.name} has bins of {self.side_um} um", f"{side} um")
        column, row = place.T
        height, width = grid.under.shape
        known = (column < width) & (row < height)
        known[known] = grid.under[row[known], column[known]]
        if not known.all():
            first = matrix.barcodes[~known][:3].astype(str).tolist()
            requirement = "every bin of the matrix has a position under tissue"
            raise matrix.refuse(requirement, f"{(~known).sum()} without, e.g. {first}")
        times = np.bincount(row.astype(np.int64) * width + column)
        if (times > 1).any():
            raise matrix.refuse("each barcode occurs once", f"{(times > 1).sum()} repeated")
        return place

    def um_per_px(self, grid: Grid) -> float:
        """Return the scale as Space Ranger says, or by the pitch of the grid where it does not.

        Never by the resolution tags of the slide, which say 96 dpi.

        Raises
        ------
        ValueError
            If the JSON is damaged, or contradicts itself or the positions.
        """
        path, by_grid = self.file("scale"), grid.um_per_px

        def refuse(requirement: str, found: object) -> ValueError:
            remedy = "Take all files of one folder of bins"
            return ValueError(f"{path}: {requirement}; found {found}. {remedy}")

        try:
            factors = json.loads(path.read_text())
            bin_um, diameter = (float(factors[key]) for key in ("bin_size_um", "spot_diameter_fullres"))
            said = float(factors.get("microns_per_pixel", math.nan))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise refuse(
                "JSON with the numbers bin_size_um and spot_diameter_fullres", repr(error)
            ) from error
        if bin_um != self.side_um:
            raise refuse(f"bin_size_um is that of the folder, {self.side_um}", bin_um)
        if math.isnan(said):
            warnings.warn(
                f"{path}: no microns_per_pixel; {by_grid:.5f} um per px are taken from the pitch of the grid",
                stacklevel=3,
            )
            return by_grid
        if abs(diameter * said / self.side_um - 1) > SIDES_DIFFER:
            raise refuse("spot_diameter_fullres is bin_size_um / microns_per_pixel", f"{diameter} and {said}")
        if abs(said / by_grid - 1) > SCALES_DIFFER:
            raise refuse(f"microns_per_pixel is that of the positions, {by_grid:.5f}", said)
        return said


def choose_bins(section: Path, spot: Spot) -> BinFolder:
    """Choose the bins that are summed into locations.

    Locations that pave the area are sums of the largest bins that fill them: nothing is summed twice.
    Pseudo-spots are made of the smallest bins there are. The folder of the section has ``binned_outputs`` in
    it or in its ``outs``. Of the bins that would do, the first that have a matrix are chosen; the first of
    all if none has.

    Raises
    ------
    ValueError
        If no bins would do.
    """
    if tiles(spot):
        sides = [side for side in reversed(SIDES_UM) if spot.size_um % side == 0]
    else:
        sides = [side for side in SIDES_UM if side * PARTS <= spot.size_um]
    if not sides:
        raise ValueError(
            f"{section}: a location is made of whole bins of {SIDES_UM} um, a pseudo-spot of {PARTS} along "
            f"it; found a {spot.shape} of {spot.size_um} um. Choose another size in the params file"
        )
    home = section / "outs" if (section / "outs").is_dir() else section
    folders = [BinFolder(home / folder_name(side), side) for side in sides]
    return next((bins for bins in folders if bins.file("counts").is_file()), folders[0])
