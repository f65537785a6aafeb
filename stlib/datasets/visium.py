"""A lab's own Visium: what Space Ranger wrote for each section, and the slide that it was given.

A section is a folder: ``outs/`` of Space Ranger, or what is in it, and in the section's folder the
full-resolution slide. Read are ``filtered_feature_bc_matrix.h5`` (a prefix ``<sample>_`` is allowed),
``spatial/scalefactors_json.json`` and the positions, called ``tissue_positions_list.csv`` before Space Ranger
2 and ``tissue_positions.csv`` since. CytAssist writes the same files; its slide may lie in any way to the
array.
"""

import json
from pathlib import Path
from typing import Literal

from stlib.datasets import listed, present, section_of, slide_px
from stlib.params import Params
from stlib.records import Record
from stlib.sections import Section
from stlib.slides_beside import the_slide
from stlib.visium import check_slide_size, read_spots

POSITIONS = ("tissue_positions.csv", "tissue_positions_list.csv")
COUNTS = "filtered_feature_bc_matrix.h5"


class Options(Record):
    """What the files do not tell.

    With the lattice ``square`` an array is read that is not Visium's, in files of this layout; its places are
    rows and columns.
    """

    slides: dict[str, str] = {}  # section -> name of its slide, where its folder holds several images
    lattice: Literal["hexagonal", "square"] = "hexagonal"
    empty_spots: dict[str, list[str]] = {}  # section -> spots whose counts may all be zero


def fetch(params: Params, folder: Path) -> None:
    """Check that every file is there: nothing can be downloaded.

    Raises
    ------
    FileNotFoundError
        If a file is missing.
    """
    for section in params.patient_of:
        for kind in ("counts", "positions", "scale"):
            outs_file(params, folder, section, kind)
        if section in params.with_slide:
            image(params, folder, section)


def image(params: Params, folder: Path, section: str) -> Path:
    """Return the section's slide: the one that is named, or the only image of its folder."""
    name = params.options(Options).slides.get(section)
    home = Path(folder) / section
    return present(params, home / name) if name else the_slide(home)


def outs_file(params: Params, folder: Path, section: str, kind: str) -> Path:
    """Return a file of Space Ranger: ``counts``, ``positions``, ``scale``.

    Raises
    ------
    FileNotFoundError
        If it is missing.
    ValueError
        If there are several count matrices.
    """
    home = Path(folder) / section
    outs = home / "outs" if (home / "outs").is_dir() else home
    if kind == "scale":
        return present(params, outs / "spatial/scalefactors_json.json")
    if kind == "positions":
        found = [outs / "spatial" / name for name in POSITIONS if (outs / "spatial" / name).is_file()]
        return found[0] if found else present(params, outs / "spatial" / POSITIONS[0])
    found = sorted(outs.glob(f"*{COUNTS}"))
    if len(found) > 1:
        raise ValueError(
            f"{outs}: a section has one {COUNTS}, found {[path.name for path in found]}. Keep one"
        )
    return found[0] if found else present(params, outs / COUNTS)


def read(params: Params, folder: Path, section: str, slide: bool = True) -> Section:
    """Read one section, see `stlib.datasets`: its spots under tissue."""
    options, place = params.options(Options), listed(params, section)
    counted, placed, scale = (outs_file(params, folder, section, k) for k in ("counts", "positions", "scale"))
    upright = "regist_target_img_scalef" not in _factors(scale)  # only CytAssist has it
    spots = read_spots(
        counted, placed, params.spot.pitch_um, hexagonal=options.lattice == "hexagonal", upright=upright
    )
    size_px = None
    if slide and section in params.with_slide:
        size_px = slide_px(image(params, folder, section))
        check_slide_size(size_px, scale, *_hires_px(scale))
    source = f"{counted.parent}: {counted.name} and {placed.name}"
    empty = options.empty_spots
    return section_of(params, section, place, source, empty, size_px=size_px, **spots._asdict())


def _factors(path: Path) -> dict:
    """Return the scale factors; what they lack, `check_slide_size` says."""
    try:
        content = json.loads(path.read_text())
    except ValueError as error:
        raise ValueError(f"{path}: JSON with scale factors; found {error!r}. Copy the file again") from error
    return content if isinstance(content, dict) else {}


def _hires_px(scale: Path) -> list[int]:
    """Return the longer side of Space Ranger's smaller image, if it is there: 2000 px, of 11 mm 4000."""
    hires = scale.with_name("tissue_hires_image.png")
    return [max(slide_px(hires))] if hires.is_file() else []
