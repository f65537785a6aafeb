"""HEST-1k (Jaume et al., NeurIPS 2024): ``st/<id>.h5ad``, ``wsis/<id>.tif``, ``metadata/<id>.json``.

The records are given to who accepts their terms, and are not downloaded here: name the folder with DATA=. The
scale that HEST states is an estimate, off by 3 % for two sections of her2st; where the metadata tell how far
apart spots are, the px between them say it better. Visium HD entries hold squares of 128 um, whatever the
metadata say: `spot` in the params file describes those.
"""

import json
import warnings
from pathlib import Path

import numpy as np

from stlib.annotated import along_axes, read_annotated
from stlib.datasets import listed, present, section_of, slide_px
from stlib.datasets.folder import check_pitch
from stlib.params import Params
from stlib.records import Record
from stlib.sections import Section
from stlib.visium import is_hexagonal, pitch_of

SCALES_DIFFER = 0.01  # stated against measured, before it is reported
OTHER_SPOTS = 0.1  # the same, beyond which the metadata tell of other spots


class Options(Record):
    """What the source is known to have."""

    empty_spots: dict[str, list[str]] = {}  # section -> spots whose counts may all be zero


def fetch(params: Params, folder: Path) -> None:
    """Check that every file is there: nothing is downloaded.

    Raises
    ------
    FileNotFoundError
        If a file is missing.
    """
    for section in params.patient_of:
        for name in (f"st/{section}.h5ad", f"metadata/{section}.json"):
            present(params, Path(folder) / name)
        if section in params.with_slide:
            image(params, folder, section)


def image(params: Params, folder: Path, section: str) -> Path:
    """Return the section's slide."""
    return present(params, Path(folder) / "wsis" / f"{section}.tif")


def read(params: Params, folder: Path, section: str, slide: bool = True) -> Section:
    """Read one section, see `stlib.datasets`; its name is an id such as SPA154."""
    options, place = params.options(Options), listed(params, section)
    path = present(params, Path(folder) / f"st/{section}.h5ad")
    about = present(params, Path(folder) / f"metadata/{section}.json")
    found = read_annotated(path)
    array = None if found.array is None else along_axes(found.array, found.position)
    um_per_px = _scale(about, array, found.position)
    check_pitch(found.position, um_per_px, params.spot.pitch_um, str(path))
    size_px = None
    if slide and section in params.with_slide:
        size_px = slide_px(image(params, folder, section))
    content = found._asdict() | {"array": array, "um_per_px": um_per_px, "size_px": size_px}
    return section_of(params, section, place, str(path), options.empty_spots, **content)


def _scale(about: Path, array: np.ndarray | None, position: np.ndarray) -> np.ndarray:
    """Return um per px (2,): by the pitch of the array, if it is known, else as stated."""
    try:
        content = json.loads(about.read_text())
        stated = float(content["pixel_size_um_estimated"])
        apart = float(content.get("inter_spot_dist") or "nan")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        requirement = "JSON with the number pixel_size_um_estimated"
        raise ValueError(f"{about}: {requirement}; found {error!r}. Fetch the file again") from error
    measured = np.nan if array is None else apart / pitch_of(array, position, is_hexagonal(array)).mean()
    if not np.isfinite(measured) or abs(measured / stated - 1) > OTHER_SPOTS:
        return np.full(2, stated)
    if abs(measured / stated - 1) > SCALES_DIFFER:
        warnings.warn(
            f"{about}: {stated:.4f} um per px as estimated, {measured:.4f} by spots {apart:g} um apart; the "
            "latter is taken",
            stacklevel=3,
        )
    return np.full(2, measured)
