"""DLPFC: prefrontal cortex, 12 Visium sections of 3 donors (Maynard et al., Nat. Neurosci. 24, 425, 2021).

A section is a number such as 151507 and a folder of that name, laid out as by Space Ranger:
``filtered_feature_bc_matrix.h5``, ``spatial/tissue_positions_list.csv``, ``spatial/scalefactors_json.json``,
and beside them the slide, ``<section>_full_image.tif``. The counts hold spots under tissue alone, the
positions all places of the hexagonal array (`stlib.visium`).
"""

from pathlib import Path

from stlib.datasets import layer, ours, present, section_of, slide_px
from stlib.download import download_unpublished
from stlib.params import Params
from stlib.records import Record
from stlib.sections import Section
from stlib.visium import check_slide_size, read_spots

FILES = {  # kind -> where it lies below a section's folder
    "counts": "filtered_feature_bc_matrix.h5",
    "positions": "spatial/tissue_positions_list.csv",
    "scale": "spatial/scalefactors_json.json",
    "slide": "{}_full_image.tif",
}
REMOTE = {  # kind -> below the source's URL, or below `positions_url`
    "counts": "h5/{}_filtered_feature_bc_matrix.h5",
    "slide": "images/{}_full_image.tif",
    "positions": "{}/tissue_positions_list.txt",
    "scale": "{}/scalefactors_json.json",
}


class Options(Record):
    """Where positions are, and what the source is known to have."""

    positions_url: str = ""  # of positions and scale factors, which lie apart from counts and slides
    empty_spots: dict[str, list[str]] = {}  # section -> spots whose counts may all be zero


def fetch(params: Params, folder: Path) -> None:
    """Make every file that the dataset needs present in `folder`.

    The house's own folder, `paths.raw`, is filled by downloading. No checksum is published: the first
    download is believed, and remembered (`stlib.download`). A folder of the user's is never written to, see
    `require`.
    """
    if ours(params, folder):
        near, apart = params.source.url.rstrip("/"), params.options(Options).positions_url.rstrip("/")
        urls = {"counts": near, "slide": near, "positions": apart, "scale": apart}
        addresses = {
            f"{section}/{FILES[kind].format(section)}": f"{urls[kind]}/{REMOTE[kind].format(section)}"
            for section in params.patient_of
            for kind in FILES
            if kind != "slide" or section in params.with_slide
        }
        download_unpublished(addresses, Path(folder))
    require(params, folder)


def require(params: Params, folder: Path) -> None:
    """Check that `folder` has every file that the dataset needs.

    Raises
    ------
    FileNotFoundError
        If counts, positions, scale factors or a slide are missing.
    """
    for section in params.patient_of:
        for kind in FILES:
            if kind != "slide" or section in params.with_slide:
                _file(params, folder, section, kind)


def image(params: Params, folder: Path, section: str) -> Path:
    """Return the section's slide."""
    return _file(params, folder, section, "slide")


def read(params: Params, folder: Path, section: str, slide: bool = True) -> Section:
    """Read one section, see `stlib.datasets`: its spots under tissue; its name is a number such as 151507."""
    options, place = params.options(Options), layer(params, section)
    counted, placed = (_file(params, folder, section, kind) for kind in ("counts", "positions"))
    source = f"{counted.parent}: {counted.name} and {placed.name}"
    spots = read_spots(counted, placed, params.spot.pitch_um)
    size_px = None
    if slide and section in params.with_slide:
        size_px = slide_px(image(params, folder, section))
        check_slide_size(size_px, _file(params, folder, section, "scale"))
    empty = options.empty_spots
    return section_of(params, section, place, source, empty, size_px=size_px, **spots._asdict())


def _file(params: Params, folder: Path, section: str, kind: str) -> Path:
    return present(params, Path(folder) / section / FILES[kind].format(section))
