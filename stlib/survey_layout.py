"""Which layout a lab's folder has, and what its locations are: the first half of `stlib.survey`."""

import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from stlib import paths
from stlib.annotated import read_annotated
from stlib.bin_folder import FILES, BinFolder, choose_bins
from stlib.datasets.folder import neighbour_px
from stlib.datasets.visium import POSITIONS
from stlib.new_slide import scale_of
from stlib.params import Spot, content_of
from stlib.records import parse
from stlib.slides_beside import the_slide
from stlib.visium import is_hexagonal, pitch_of, read_positions

LIST = "sections.csv"  # section -> patient, which files do not tell
KNOWN = {  # technology -> its locations
    "Visium": Spot(shape="circle", size_um=55, pitch_um=100),
    "spatial transcriptomics (ST)": Spot(shape="circle", size_um=100, pitch_um=200),
    "squares of 128 um, pooled by HEST": Spot(shape="square", size_um=128, pitch_um=128),
}
NEAR = 0.05  # of a known pitch
BINNED = "vumc_hd"  # whose sizes a folder of bins is given, as far as its bins allow them
TELLS = {"positions": "where bins lie on the slide", "scale": "um per px, and of which image these are"}


class Found(NamedTuple):
    """What a folder holds."""

    reader: str  # a module of stlib.datasets
    sections: list[str]
    options: dict[str, Any]  # of the reader
    spot: Spot
    um_per_px: float  # of the first section
    remark: str  # how the locations are known
    sizes: tuple[str, ...] = ()  # of `BINNED` that its bins can be summed into; `spot` is that of the first


def layout_of(folder: Path, um_per_px: str = "") -> Found:
    """Tell what lies in a folder; `um_per_px` is the scale of its slides, if it is told.

    ========================================================  =============
    found                                                     reader
    ========================================================  =============
    ``<section>/[outs/]spatial/tissue_positions[_list].csv``  ``visium``
    ``<section>/[outs/]binned_outputs``, and a slide          ``visium_hd``
    ``st/<section>.h5ad``, ``wsis``, ``metadata``             ``hest``
    ``<section>.h5ad`` or ``<section>.zarr``, and a slide     ``folder``
    ========================================================  =============

    Raises
    ------
    FileNotFoundError
        If a slide, or a file that tells where bins lie, is missing.
    ValueError
        If it is none of them, or two.
    """
    if {"st", "wsis", "metadata"} <= {path.name for path in folder.iterdir()}:
        return _hest(folder)
    if any(_positions(home) or _has_bins(home) for home in (folder, folder / "outs")):
        raise ValueError(
            f"{folder}: is one section; name the folder above it, with a folder for each section"
        )
    outs = {name: home for name, home in _outs(folder).items() if _positions(home)}
    binned = [name for name, home in _outs(folder).items() if _has_bins(home)]
    if outs and binned:
        raise ValueError(
            f"{folder}: sections of one dataset are Visium or Visium HD; found {[*outs]} and {binned}. Make "
            "a folder for each"
        )
    if outs:
        return _visium(outs, um_per_px)
    if binned:
        return _visium_hd(folder, binned, um_per_px)
    tables = {path.stem: path for path in sorted(folder.glob("*.h5ad"))}
    tables |= {path.stem: path for path in sorted(folder.glob("*.zarr")) if (path / "tables").is_dir()}
    if tables:
        return _plain(folder, tables, um_per_px)
    raise ValueError(
        f"{folder}: a folder holds <section>/outs of Space Ranger with the slide in <section>, "
        "<section>.h5ad and <section>.tif, or HEST's st, wsis and metadata; found "
        f"{sorted(path.name for path in folder.iterdir())[:5]}. Lay it out in one of these ways"
    )


def spot_of(pitch_um: float, size_um: float | None, source: str) -> tuple[Spot, str]:
    """Return the locations that are so far apart, and how they are known.

    Parameters
    ----------
    pitch_um
        Between neighbours, as measured.
    size_um
        Diameter, if files tell it.
    source
        What a message calls them.
    """
    for name, spot in KNOWN.items():
        if abs(pitch_um / spot.pitch_um - 1) < NEAR:
            return spot, f"{name}: spots are {pitch_um:.1f} um apart"
    spot = Spot(
        shape="circle", size_um=float(size_um or round(pitch_um, 1)), pitch_um=float(round(pitch_um, 1))
    )
    return spot, f"CHECK: spots are {pitch_um:.1f} um apart in {source}; shape and size are guessed"


def _outs(folder: Path) -> dict[str, Path]:
    """Return section -> what Space Ranger wrote for it."""
    homes = [path for path in sorted(folder.iterdir()) if path.is_dir()]
    return {home.name: home / "outs" if (home / "outs").is_dir() else home for home in homes}


def _positions(outs: Path) -> Path | None:
    return next((outs / "spatial" / name for name in POSITIONS if (outs / "spatial" / name).is_file()), None)


def _has_bins(outs: Path) -> bool:
    return (outs / "binned_outputs").is_dir()


def _visium(outs: dict[str, Path], um_per_px: str) -> Found:
    name, home = next(iter(outs.items()))
    _, _, array, position = read_positions(_positions(home), hexagonal=False)
    if is_hexagonal(array):
        spot = KNOWN["Visium"]
        scale = spot.pitch_um / pitch_of(array, position, hexagonal=True).mean()
        return Found(
            "visium", [*outs], {}, spot, float(scale), "Visium: every other row is shifted by half a step"
        )
    slide = the_slide(home.parent if home.name == "outs" else home)
    scale = float(scale_of(slide, um_per_px).mean())
    pitch = scale * float(pitch_of(array, position, hexagonal=False).mean())
    spot, remark = spot_of(pitch, None, name)
    return Found("visium", [*outs], {"lattice": "square"}, spot, scale, f"{remark}, in rows and columns")


def _visium_hd(folder: Path, sections: list[str], um_per_px: str) -> Found:
    if um_per_px:
        raise ValueError(
            f"{folder}: bins of Visium HD tell the um per px themselves; found UM_PER_PX={um_per_px}. Leave "
            "it out"
        )
    slides = {name: the_slide(folder / name).name for name in sections}
    offered = content_of(paths.PARAMS / f"{BINNED}.yaml")["sizes"]
    spots = {size: parse(Spot, part["spot"], f"params/{BINNED}.yaml") for size, part in offered.items()}
    bins = {size: [choose_bins(folder / name, spot) for name in sections] for size, spot in spots.items()}
    counted = {size: [one.file("counts").is_file() for one in chosen] for size, chosen in bins.items()}
    for name, each in zip(sections, zip(*counted.values(), strict=True), strict=True):
        if not any(each):
            raise ValueError(
                f"{folder / name}: binned_outputs has {FILES['counts']} in square_002um, square_008um or "
                "square_016um; found none. Copy it whole, as Space Ranger wrote it"
            )
    sizes = [size for size in spots if all(counted[size])]
    remarks = []
    for size in sizes:
        for one in bins[size]:
            _require_place(one)
        sides = sorted({one.side_um for one in bins[size]})
        remarks.append(f"{size} from bins of {' and '.join(map(str, sides))} um")
    if missing := [size for size in spots if size not in sizes]:
        remarks.append(f"CHECK: no {' and '.join(missing)}, as a section has no bins that are small enough")
    first = bins[sizes[0]][0]
    return Found(
        "visium_hd", sections, {"slides": slides}, spots[sizes[0]], first.um_per_px(first.grid()),
        f"Visium HD: {', '.join(remarks)}", tuple(sizes),
    )  # fmt: skip


def _require_place(bins: BinFolder) -> None:
    """Refuse bins without the files that tell where they lie."""
    for kind, told in TELLS.items():
        if not bins.file(kind).is_file():
            raise FileNotFoundError(
                f"{bins.file(kind)}: tells {told}; found no such file. Copy {bins.folder.name} whole, as "
                "Space Ranger wrote it"
            )


def _plain(folder: Path, tables: dict[str, Path], um_per_px: str) -> Found:
    scales = {}
    for name, path in tables.items():
        found = read_annotated(path)
        told = (
            found.um_per_px if found.um_per_px is not None else scale_of(the_slide(folder, name), um_per_px)
        )
        scales[name] = float(np.mean(told))
    first = next(iter(tables))
    found = read_annotated(tables[first])
    spot, remark = spot_of(scales[first] * neighbour_px(found.position), None, first)
    options = {"um_per_px": scales} if um_per_px else {}
    return Found("folder", [*tables], options, spot, scales[first], remark)


def _hest(folder: Path) -> Found:
    sections = [path.stem for path in sorted((folder / "st").glob("*.h5ad"))]
    if not sections:
        raise ValueError(
            f"{folder}/st: holds <id>.h5ad for each section, found none. Fetch them by their ids"
        )
    about = json.loads((folder / "metadata" / f"{sections[0]}.json").read_text())
    scale = float(about["pixel_size_um_estimated"])
    pitch = scale * neighbour_px(read_annotated(folder / "st" / f"{sections[0]}.h5ad").position)
    spot, remark = spot_of(pitch, about.get("spot_diameter"), sections[0])
    return Found("hest", sections, {}, spot, scale, remark)
