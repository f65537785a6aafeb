"""Visium HD of 10x Genomics: slides paved with bins of 2 um, as Space Ranger writes them.

A section is a folder: ``binned_outputs/square_002um`` (and ``008um``, ``016um``), each with
``filtered_feature_bc_matrix.h5``, ``spatial/tissue_positions.parquet`` and
``spatial/scalefactors_json.json``; beside ``binned_outputs`` the full-resolution slide. The matrix lists bins
under tissue, in no order of the grid; where a bin lies follows from its name (`stlib.bins`).

The dataset's `spot` says what a location is: a bin, or a pseudo-spot into which bins are summed. A location
of which only a part was measured (at the edge of the area or of the tissue) is the sum of that part.
"""

import json
import math
import warnings
from pathlib import Path
from typing import NamedTuple

import numpy as np

from stlib.binned import BLOCK, sum_bins, total_counts
from stlib.bins import SCALES_DIFFER, Grid, centres_um, format_names, parse_names, read_grid
from stlib.datasets import layer, present
from stlib.graph import grid_parents
from stlib.locations import lay_out, rows_of, tiles, within
from stlib.params import Params, Record, parse
from stlib.sampling import draw_squares
from stlib.sections import Cells, Section, check_section
from stlib.tenx import Matrix
from stlib.visium import check_slide_size

SIDES_UM = (2, 8, 16)  # of the bins that Space Ranger writes
FILES = {  # kind -> where it lies below the folder of a section's bins
    "counts": "filtered_feature_bc_matrix.h5",
    "positions": "spatial/tissue_positions.parquet",
    "scale": "spatial/scalefactors_json.json",
}
HIRES_PX = 6000  # longer side of tissue_hires_image.png
SIDES_DIFFER = 1e-3  # of spot_diameter_fullres against bin_size_um / microns_per_pixel
PARTS = 4  # bins at least along a pseudo-spot
LEVELS = ("region", "global")


class Options(Record):
    """Which slide belongs to a section, and which part of it is read.

    Attributes
    ----------
    slide
        Name of the full-resolution image in a section's folder.
    slides
        Section -> that name, where it is another one.
    roi_px, roi_um
        Section -> x0, y0, x1, y1 on the slide, level-0 px or um: only locations whose centre lies in it.
    """

    slide: str = "tissue_image.btf"
    slides: dict[str, str] = {}
    roi_px: dict[str, list[float]] = {}
    roi_um: dict[str, list[float]] = {}


class Bins(NamedTuple):
    """The folder of a section's bins that a dataset is read from, and their side."""

    folder: Path
    side_um: int

    def file(self, params: Params, kind: str) -> Path:
        """Return one of `FILES`."""
        return present(params, self.folder / FILES[kind])


def fetch(params: Params, folder: Path) -> None:
    """Make every file that the dataset needs present in `folder`."""
    require(params, folder)


def require(params: Params, folder: Path) -> None:
    """Check that `folder` has every file that the dataset needs.

    Raises
    ------
    FileNotFoundError
        If bins, positions, scale factors or a slide are missing.
    """
    for section in params.patient_of:
        bins = bins_of(params, folder, section)
        for kind in FILES:
            bins.file(params, kind)
        if section in params.with_slide:
            image(params, folder, section)


def image(params: Params, folder: Path, section: str) -> Path:
    """Return the section's slide."""
    options = _options(params)
    return present(params, Path(folder) / section / options.slides.get(section, options.slide))


def bins_of(params: Params, folder: Path, section: str) -> Bins:
    """Choose the bins that are summed into locations.

    Locations that pave the area are sums of the largest bins that fill them: nothing is summed twice.
    Pseudo-spots are made of the smallest bins there are.

    Raises
    ------
    FileNotFoundError
        If no folder of bins fits.
    """
    spot, root = params.spot, Path(folder) / section / "binned_outputs"
    if tiles(spot):
        wanted = [side for side in reversed(SIDES_UM) if spot.size_um % side == 0]
    else:
        wanted = [side for side in SIDES_UM if side * PARTS <= spot.size_um]
    for side in wanted:
        found = Bins(root / f"square_{side:03d}um", side)
        if (found.folder / FILES["counts"]).is_file():
            return found
    if not wanted:
        raise ValueError(
            f"params/{params.base}.yaml: a {spot.shape} of {spot.size_um} um is made of bins of 2, 8 or 16 "
            "um; found none that fit. Choose another size"
        )
    present(params, root / f"square_{wanted[0]:03d}um" / FILES["counts"])
    raise AssertionError("a file that is not there was found")


def under_tissue(params: Params, folder: Path, section: str) -> np.ndarray:
    """Return the centres of all bins under tissue that lie on the slide (N, 2), level-0 px."""
    bins = bins_of(params, folder, section)
    grid = read_grid(bins.file(params, "positions"), bins.side_um)
    place = np.argwhere(grid.under)[:, ::-1]
    px = grid.to_px(centres_um(place, bins.side_um))
    return px[within(px, _size_px(params, folder, section, bins))]


def read(params: Params, folder: Path, section: str, slide: bool = True, block: int = BLOCK) -> Section:
    """Read one section: its locations with counts, or the sample of them that the params file asks for.

    Parameters
    ----------
    params
        The dataset, at one of its sizes.
    folder
        The source's files.
    section
        The name of a section and its folder.
    slide
        False: leave the slide aside. Then `size_px` is None, and no bin counts as outside of it.
    block
        Bins held at once; the result does not depend on it.

    Raises
    ------
    FileNotFoundError
        If a file is missing.
    ValueError
        If the files are damaged, contradict each other, or no location is left.
    """
    options, place_in_stack = _options(params), layer(params, section)
    bins = bins_of(params, folder, section)
    grid = read_grid(bins.file(params, "positions"), bins.side_um)
    um_per_px = _scale(bins.file(params, "scale"), grid, bins.side_um)
    size_px = _size_px(params, folder, section, bins) if slide and section in params.with_slide else None
    path = bins.file(params, "counts")
    with Matrix(path) as matrix:
        layout = lay_out(_places(matrix, grid, bins), bins.side_um, params.spot, grid, size_px)
        totals = np.bincount(layout.number, total_counts(matrix, block), len(layout.place) + 1)
        measured = (totals[:-1] > 0) & within(layout.px, size_px)
        measured &= within(layout.px, *_roi(options, section, um_per_px))
        kept = np.flatnonzero(measured)
        if not len(kept):
            raise ValueError(
                f"{path}: section '{section}' has locations with counts on its slide, in the region of "
                "interest; found none. Check that matrix, positions and slide belong together, and roi_px or "
                "roi_um"
            )
        if params.sample is not None:
            kept = kept[draw_squares(layout.um[kept], params.sample, section)]
        row = np.full(len(layout.place) + 1, -1)
        row[kept] = np.arange(len(kept))
        pieces, cells = [(row[layout.number], len(kept))], {}
        for level in LEVELS:
            side_px = params.levels[level].px
            cells[level] = grid_parents(layout.px[kept], side_px)[1]
            cell = rows_of(np.floor(layout.unit_px / side_px), cells[level])
            pieces.append((np.where(layout.on_slide, cell, -1), len(cells[level])))
        counts, *summed = sum_bins(matrix, pieces, block)
        genes = matrix.genes
    made = Section(
        name=section,
        patient=params.patient_of[section],
        layer=place_in_stack,
        barcodes=format_names(params.spot.size_um, layout.place[kept]),
        genes=genes,
        counts=counts,
        array=layout.place[kept].astype(np.float64),
        position=layout.px[kept],
        um_per_px=np.full(2, um_per_px),
        size_px=size_px,
        shape=params.spot.shape,
        size_um=params.spot.size_um,
        pitch_um=params.spot.pitch_um,
        cells={level: Cells(held, total) for (level, held), total in zip(cells.items(), summed, strict=True)},
        facts={
            "bin_um": bins.side_um,
            "bins": len(layout.number),
            "bins_outside_slide": int((~layout.on_slide).sum()),
            "locations": int(measured.sum()),
        },
    )
    return check_section(made, str(path))


def _places(matrix: Matrix, grid: Grid, bins: Bins) -> np.ndarray:
    """Return column and row of the matrix's bins (N, 2), by their names; each is under tissue, once."""
    side, place = parse_names(matrix.barcodes, str(matrix.path))
    if side != bins.side_um:
        raise matrix.refuse(f"{bins.folder.name} has bins of {bins.side_um} um", f"{side} um")
    column, row = place.T
    height, width = grid.under.shape
    known = (column < width) & (row < height)
    known[known] = grid.under[row[known], column[known]]
    if not known.all():
        first = matrix.barcodes[~known][:3].astype(str).tolist()
        raise matrix.refuse(
            "every bin of the matrix has a position under tissue", f"{(~known).sum()} without, e.g. {first}"
        )
    times = np.bincount(row.astype(np.int64) * width + column, minlength=1)
    if (times > 1).any():
        raise matrix.refuse("each barcode occurs once", f"{(times > 1).sum()} repeated")
    return place


def _scale(path: Path, grid: Grid, side_um: int) -> float:
    """Return um per px as Space Ranger says, or by the pitch of the grid where it does not.

    Never by the resolution tags of the slide, which say 96 dpi.
    """

    def refuse(requirement: str, found: object) -> ValueError:
        return ValueError(
            f"{path}: {requirement}; found {found}. Take the files of one folder, and all of them"
        )

    try:
        factors = json.loads(path.read_text())
        bin_um, diameter = (float(factors[key]) for key in ("bin_size_um", "spot_diameter_fullres"))
        said = float(factors.get("microns_per_pixel", math.nan))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise refuse("JSON with the numbers bin_size_um and spot_diameter_fullres", repr(error)) from error
    by_grid = grid.um_per_px
    if bin_um != side_um:
        raise refuse(f"bin_size_um is that of the folder, {side_um}", bin_um)
    if math.isnan(said):
        warnings.warn(
            f"{path}: no microns_per_pixel; {by_grid:.5f} um per px are taken from the pitch of the grid",
            stacklevel=3,
        )
        said = by_grid
    elif abs(diameter * said / side_um - 1) > SIDES_DIFFER:
        raise refuse("spot_diameter_fullres is bin_size_um / microns_per_pixel", f"{diameter} and {said}")
    if abs(said / by_grid - 1) > SCALES_DIFFER:
        raise refuse(f"microns_per_pixel is that of the positions, {by_grid:.5f}", said)
    return said


def _size_px(params: Params, folder: Path, section: str, bins: Bins) -> np.ndarray:
    """Return width and height of the slide (2,), which must be the one that Space Ranger saw."""
    from stlib.slide import image_size  # counts alone need no image library

    size_px = np.array(image_size(image(params, folder, section)))
    check_slide_size(size_px, bins.file(params, "scale"), HIRES_PX)
    return size_px


def _roi(options: Options, section: str, um_per_px: float) -> tuple[np.ndarray | None, np.ndarray]:
    """Return the far and the near corner of the region of interest, px; the far one None: the whole slide."""
    named = [options.roi_px.get(section), options.roi_um.get(section)]
    corners = [corner for corner in named if corner is not None]
    if not corners:
        return None, np.zeros(2)
    x0, y0, x1, y1 = corners[0] if len(corners[0]) == 4 else (0, 0, 0, 0)
    if len(corners) > 1 or not (x0 < x1 and y0 < y1):
        raise ValueError(
            f"source.options: a region of interest is x0, y0, x1, y1 with x0 < x1 and y0 < y1, in roi_px or "
            f"roi_um; section '{section}' has {corners}. Correct it"
        )
    box = np.array([x0, y0, x1, y1]) / (1 if named[1] is None else um_per_px)
    return box[2:], box[:2]


def _options(params: Params) -> Options:
    return parse(Options, params.source.options, f"params/{params.base}.yaml, source.options")
