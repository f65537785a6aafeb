"""Visium HD of 10x Genomics: slides paved with bins of 2 um, as Space Ranger writes them.

A section is a folder: ``binned_outputs/square_002um`` (and ``008um``, ``016um``), each with
``filtered_feature_bc_matrix.h5``, ``spatial/tissue_positions.parquet`` and
``spatial/scalefactors_json.json``; beside ``binned_outputs``, or beside ``outs`` with it, the full-resolution
slide. The matrix lists bins under tissue, in no order of the grid; where a bin lies follows from its name
(`stlib.bins`).

The dataset's `spot` says what a location is: a bin, or a pseudo-spot into which bins are summed. A location
of which only a part was measured (at the edge of the area or of the tissue) is the sum of that part.
"""

import warnings
from pathlib import Path, PurePosixPath
from typing import Literal

import numpy as np

from stlib.archive import take_members
from stlib.bin_folder import FILES, HIRES_PX, BinFolder, choose_bins, folder_name
from stlib.binned import BLOCK, sum_bins, total_counts
from stlib.bins import centres_um, format_names
from stlib.datasets import listed, ours, present, section_of, slide_px
from stlib.download import download_unpublished
from stlib.graph import grid_parents
from stlib.locations import draw_squares, lay_out, rows_of, tiles, within
from stlib.params import Params
from stlib.records import Record, require_known
from stlib.sections import Cells, Section
from stlib.tenx import Matrix
from stlib.visium import check_slide_size

LEVELS = ("region", "global")


class Options(Record):
    """Which slide belongs to a section, which part of it is read, and what is known of the source."""

    remote: dict[str, str] = {}  # section -> <version>/<name> below the source's URL; none: not public
    slide: str = "tissue_image.btf"  # full-resolution image in a section's folder; at the source after <name>
    slides: dict[str, str] = {}  # section -> that name, where it is another one
    bins_um: list[Literal[2, 8, 16]] = [2, 8, 16]  # sides of the bins taken from the source's archives
    bins: dict[str, dict[int, int]] = {}  # section -> side -> bins expected under tissue; others are reported
    roi_px: dict[str, list[float]] = {}  # section -> x0, y0, x1, y1, level-0 px: only centres within are read
    roi_um: dict[str, list[float]] = {}  # the same in um


def fetch(params: Params, folder: Path) -> None:
    """Make every file that the dataset needs present in `folder`.

    The house's own folder, `paths.raw`, is filled by downloading: of each section's archive the files of
    `bins_um` alone, and its slide. A folder of the user's is never written to, see `require`.

    Raises
    ------
    FileNotFoundError
        If a file cannot be had; where the data is not public, with what to put where.
    """
    options, folder = params.options(Options), Path(folder)
    if options.remote and ours(params, folder):
        _download(params, options, folder)
    try:
        require(params, folder)
    except FileNotFoundError as error:
        if options.remote:
            raise
        raise FileNotFoundError(
            f"{params.base}: this data is not public, and nothing can be downloaded ({error}). Write the "
            f"names of your sections into params/{params.base}.yaml, and name the folder that holds a folder "
            f"for each, with binned_outputs/ of Space Ranger and {options.slide} in it"
        ) from error


def _download(params: Params, options: Options, folder: Path) -> None:
    slides = {}
    for section in params.patient_of:
        require_known(
            section,
            options.remote,
            f"params/{params.base}.yaml, source.options.remote: every section has its place at the source; "
            f"found none for '{section}'",
        )
        remote = options.remote[section]
        where = f"{params.source.url.rstrip('/')}/{remote}/{PurePosixPath(remote).name}"
        members = [f"{folder_name(side)}/{name}" for side in options.bins_um for name in FILES.values()]
        archive = f"{where}_binned_outputs.tar.gz"
        take_members(archive, {member: f"{section}/{member}" for member in members}, folder)
        slide = options.slides.get(section, options.slide)
        slides[f"{section}/{slide}"] = f"{where}_{slide}"
    download_unpublished(slides, folder)


def require(params: Params, folder: Path) -> None:
    """Check that `folder` has every file that the dataset needs.

    Raises
    ------
    FileNotFoundError
        If bins, positions, scale factors or a slide are missing.
    """
    for section in params.patient_of:
        bins_of(params, folder, section)
        if section in params.with_slide:
            image(params, folder, section)


def image(params: Params, folder: Path, section: str) -> Path:
    """Return the section's slide."""
    options = params.options(Options)
    return present(params, Path(folder) / section / options.slides.get(section, options.slide))


def bins_of(params: Params, folder: Path, section: str) -> BinFolder:
    """Return the bins that the section's locations are sums of, their files present; see `choose_bins`."""
    bins = choose_bins(Path(folder) / section, params.spot)
    for kind in FILES:
        present(params, bins.file(kind))
    return bins


def under_tissue(params: Params, folder: Path, section: str) -> np.ndarray:
    """Return the centres of all bins under tissue that lie on the slide (N, 2), level-0 px."""
    bins = bins_of(params, folder, section)
    grid = bins.grid()
    place = np.argwhere(grid.under)[:, ::-1]
    px = grid.to_px(centres_um(place, bins.side_um))
    return px[within(px, _size_px(params, folder, section, bins))]


def read(params: Params, folder: Path, section: str, slide: bool = True, block: int = BLOCK) -> Section:
    """Read one section: its locations with counts, or the sample of them that the params file asks for.

    Cells of the coarser levels are read where the locations are not all that was measured.

    Parameters
    ----------
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
    options, place_in_stack = params.options(Options), listed(params, section)
    bins = bins_of(params, folder, section)
    grid = bins.grid()
    um_per_px = bins.um_per_px(grid)
    size_px = _size_px(params, folder, section, bins) if slide and section in params.with_slide else None
    path = bins.file("counts")
    with Matrix(path) as matrix:
        _warn_of_bins(options, section, bins.side_um, len(matrix))
        layout = lay_out(bins.places(matrix, grid), bins.side_um, params.spot, grid, size_px)
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
        row = np.full(len(layout.place) + 1, -1, np.int32)
        row[kept] = np.arange(len(kept))
        whole = tiles(params.spot) and len(kept) == np.count_nonzero(totals[:-1])
        pieces, cells = [(row[layout.number], len(kept))], {}
        for level in () if whole else LEVELS:
            side_px = params.levels[level].px
            cells[level] = grid_parents(layout.px[kept], side_px)[1]
            cell = rows_of(np.floor(layout.unit_px / side_px), cells[level])
            pieces.append((np.where(layout.on_slide, cell, -1), len(cells[level])))
        counts, *summed = sum_bins(matrix, pieces, block)
        genes = matrix.genes
    return section_of(
        params,
        section,
        place_in_stack,
        str(path),
        {},
        barcodes=format_names(params.spot.size_um, layout.place[kept]),
        genes=genes,
        counts=counts,
        array=layout.place[kept].astype(np.float64),
        position=layout.px[kept],
        um_per_px=np.full(2, um_per_px),
        size_px=size_px,
        cells={level: Cells(held, total) for (level, held), total in zip(cells.items(), summed, strict=True)},
        facts={
            "bin_um": bins.side_um,
            "bins": len(layout.number),
            "bins_outside_slide": int((~layout.on_slide).sum()),
            "locations": int(measured.sum()),
        },
    )


def _size_px(params: Params, folder: Path, section: str, bins: BinFolder) -> np.ndarray:
    """Return width and height of the slide (2,), which must be the one that Space Ranger saw."""
    size_px = slide_px(image(params, folder, section))
    check_slide_size(size_px, bins.file("scale"), HIRES_PX)
    return size_px


def _warn_of_bins(options: Options, section: str, side_um: int, found: int) -> None:
    """Warn if a section has another number of bins under tissue than its source is known to have."""
    expected = options.bins.get(section, {}).get(side_um, found)
    if found != expected:
        warnings.warn(
            f"section '{section}': {found:,} bins of {side_um} um under tissue; expected {expected:,}. It "
            "may be another release of the slide",
            stacklevel=3,
        )


def _roi(options: Options, section: str, um_per_px: float) -> tuple[np.ndarray | None, np.ndarray]:
    """Return far and near corner of the region of interest, px; no far one for the whole slide."""
    named = [options.roi_px.get(section), options.roi_um.get(section)]
    corners = [corner for corner in named if corner is not None]
    if not corners:
        return None, np.zeros(2)
    x0, y0, x1, y1 = corners[0] if len(corners[0]) == 4 else (0, 0, 0, 0)
    if len(corners) > 1 or not (x0 < x1 and y0 < y1):
        raise ValueError(
            "source.options: a region of interest is x0, y0, x1, y1 with x0 < x1 and y0 < y1, in roi_px or "
            f"roi_um; section '{section}' has {corners}. Correct it"
        )
    box = np.array([x0, y0, x1, y1]) / (1 if named[1] is None else um_per_px)
    return box[2:], box[:2]
