"""A plain folder of a lab: for each section a slide and an AnnData, ``<section>.h5ad`` and ``<section>.tif``.

What the AnnData must hold says `stlib.annotated`. In its place may stand a SpatialData store,
``<section>.zarr``, whose one table is read, without SpatialData; the slide stands beside it all the same, and
the table's ``obsm["spatial"]`` are px of that slide.
"""

from pathlib import Path

import numpy as np

from stlib.annotated import read_annotated
from stlib.datasets import listed, present, section_of, slide_px
from stlib.graph import knn_graph
from stlib.params import Params
from stlib.records import Record
from stlib.sections import Section
from stlib.slides_beside import the_slide

PITCH_TOLERANCE = 0.1  # of the pitch that params declare, against the px between neighbouring spots


class Options(Record):
    """What the files do not tell."""

    um_per_px: dict[str, float] = {}  # section -> scale, where neither `uns` nor the slide's tags say it
    slides: dict[str, str] = {}  # section -> name of its slide, where that is not <section>.<suffix>
    empty_spots: dict[str, list[str]] = {}  # section -> spots whose counts may all be zero


def fetch(params: Params, folder: Path) -> None:
    """Check that every file is there: nothing can be downloaded.

    Raises
    ------
    FileNotFoundError
        If a file is missing.
    """
    for section in params.patient_of:
        table(params, folder, section)
        if section in params.with_slide:
            image(params, folder, section)


def table(params: Params, folder: Path, section: str) -> Path:
    """Return the AnnData or the SpatialData store of a section."""
    store = Path(folder) / f"{section}.zarr"
    return store if (store / "tables").is_dir() else present(params, Path(folder) / f"{section}.h5ad")


def image(params: Params, folder: Path, section: str) -> Path:
    """Return the section's slide."""
    name = params.options(Options).slides.get(section)
    return present(params, Path(folder) / name) if name else the_slide(Path(folder), section)


def read(params: Params, folder: Path, section: str, slide: bool = True) -> Section:
    """Read one section, see `stlib.datasets`; a scale that is unknown or contradicts the spots is refused."""
    options, place = params.options(Options), listed(params, section)
    path = table(params, folder, section)
    found = read_annotated(path)
    size_px = None
    um_per_px = found.um_per_px
    if section in options.um_per_px:
        um_per_px = np.full(2, options.um_per_px[section])
    if slide and section in params.with_slide:
        size_px = slide_px(image(params, folder, section))
    if um_per_px is None:
        um_per_px = _of_slide(params, folder, section)
    check_pitch(found.position, um_per_px, params.spot.pitch_um, str(path))
    content = found._asdict() | {"um_per_px": um_per_px, "size_px": size_px}
    return section_of(params, section, place, str(path), options.empty_spots, **content)


def neighbour_px(position: np.ndarray) -> float:
    """Return the median distance of spots to their nearest neighbours, in the unit of `position` (N, 2)."""
    return float(np.median(knn_graph(position, 1)[1]))


def check_pitch(position: np.ndarray, um_per_px: np.ndarray, pitch_um: float, source: str) -> None:
    """Check that spots are as far apart as the params file says.

    Raises
    ------
    ValueError
        If they are not: the scale, the positions or the params file are of something else.
    """
    if len(position) < 2:
        return
    found = neighbour_px(position * um_per_px)
    if abs(found / pitch_um - 1) > PITCH_TOLERANCE:
        raise ValueError(
            f"{source}: neighbouring spots are spot.pitch_um = {pitch_um:g} um apart; found {found:.4g} um "
            f"at {np.mean(um_per_px):.4f} um per px. Correct um_per_px, or spot in the params file; "
            "positions are px of the full-resolution slide"
        )


def _of_slide(params: Params, folder: Path, section: str) -> np.ndarray:
    """Return um per px by the tags of the slide, if they are to be believed."""
    from stlib.new_slide import scale_of

    try:
        return scale_of(image(params, folder, section))
    except ValueError as error:
        where = f"source.options.um_per_px.{section} in params/{params.base}.yaml, or into uns['um_per_px']"
        reason = str(error).split(" Give the scanner's")[0]
        raise ValueError(f"{reason} Write the scanner's um per px into {where}") from error
