"""A slide that is in no dataset: its scale, its copy at the training scale, and the locations on it.

Patches are measured in pixels, so a model knows one um per px: that of the sections it was trained on. A
slide whose scale is unknown is refused; one of another scale is rewritten (`stlib.rescale`).
"""

import json
import warnings
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from scipy import ndimage, sparse

from stlib import paths
from stlib.alignment import Registration
from stlib.fingerprint import intact, kept_hash, seal, sealed, text_hash
from stlib.images import tagged_scale
from stlib.locations import draw_squares
from stlib.params import Params, Spot
from stlib.records import require_known
from stlib.registration import register_stack
from stlib.rescale import copy_at_scale
from stlib.sections import Section
from stlib.slide import Slide, tissue_mask
from stlib.visium import ROW_STEP, is_hexagonal

SCREEN_UM = (25_400 / 96 / 1000, 25_400 / 72 / 1000)  # what 96 and 72 dots per inch become in files of 10x
PLAUSIBLE_UM = (0.05, 10.0)  # per px
SAME_SCALE = 0.02  # beyond it a copy is made, and a told scale that differs from the tags is reported
SCALES_DIFFER = 0.05  # of training sections among each other, before it is reported
ENLARGED = 1.1  # a slide this much coarser than the training sections lacks their detail
MASK_UM = 8.0  # um per px of the tissue mask
LEAST_TISSUE = 0.5  # of the square around a location


@dataclass(frozen=True)
class NewSlide:
    """A slide as it came, and its copy."""

    title: str  # the name of its file, without suffix
    section: str  # what its copy is called among the slides of the dataset
    um_per_px: np.ndarray  # scale of the slide as it came, along x and y (2,)
    px: np.ndarray  # its px per px of the copy (2,)
    shows: str  # the section of the dataset that it shows; empty: none
    patient: str  # of whom that is; empty: none


def scale_of(slide: Path, told: str = "") -> np.ndarray:
    """Return um per px of a slide along x and y (2,).

    `told` is what the user says, a number; empty: the tags of the file say it.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If nothing tells the scale, or what tells it is not to be believed.
    """
    if not slide.is_file():
        raise FileNotFoundError(f"SLIDE={slide} is no file; name the full-resolution image of one slide")
    tagged, remedy = tagged_scale(slide), "Give the scanner's um per px: UM_PER_PX=0.5"
    if told:
        try:
            um = float(told)
        except ValueError:
            um = float("nan")
        if not PLAUSIBLE_UM[0] <= um <= PLAUSIBLE_UM[1]:
            raise ValueError(
                f"UM_PER_PX is a number from {PLAUSIBLE_UM[0]} to {PLAUSIBLE_UM[1]}, found '{told}'"
            )
        if tagged is not None and np.abs(um / tagged - 1).max() > SAME_SCALE:
            warnings.warn(
                f"{slide.name}: {tagged.round(4).tolist()} um per px by its tags, {um} by UM_PER_PX: taken",
                stacklevel=2,
            )
        return np.full(2, um)
    if tagged is None:
        raise ValueError(
            f"{slide}: the um per px of a slide must be known, and its file does not tell. {remedy}"
        )
    for screen in SCREEN_UM:
        if np.allclose(tagged, screen, rtol=1e-3):
            raise ValueError(
                f"{slide}: its tags say {screen:.4f} um per px, which is what programs write that know the "
                f"resolution of a screen alone. {remedy}"
            )
    if not ((tagged >= PLAUSIBLE_UM[0]) & (tagged <= PLAUSIBLE_UM[1])).all():
        raise ValueError(
            f"{slide}: a scanned slide has {PLAUSIBLE_UM[0]} to {PLAUSIBLE_UM[1]} um per px, its tags say "
            f"{tagged.round(3).tolist()}. {remedy}"
        )
    return tagged


def training_scale(sections: Mapping[str, Section]) -> float:
    """Return the um per px that a model is trained at: the median of its sections; warn if they differ."""
    each = np.array([section.um_per_px.mean() for section in sections.values()])
    middle = float(np.median(each))
    if np.abs(each / middle - 1).max() > SCALES_DIFFER:
        warnings.warn(
            f"training sections have {each.min():.3f} to {each.max():.3f} um per px; the slide is brought to "
            f"their median, {middle:.3f}",
            stacklevel=2,
        )
    return middle


def adopt(params: Params, slide: Path, um_per_px: np.ndarray, wanted: float) -> NewSlide:
    """Write a copy of a slide beside those of the dataset, once.

    Parameters
    ----------
    slide
        Its file, in any format that `stlib.images` reads.
    um_per_px
        Its scale (2,).
    wanted
        That of the copy; within 2 % of it the copy keeps the slide's pixels.
    """
    same = bool((np.abs(um_per_px / wanted - 1) <= SAME_SCALE).all())
    if (um_per_px / wanted > ENLARGED).any():
        warnings.warn(
            f"{slide.name}: {um_per_px.mean():.3f} um per px is coarser than the training sections' "
            f"{wanted:.3f}; enlarged, it lacks detail that the model relies on",
            stacklevel=2,
        )
    content = kept_hash(slide, paths.cache("hashes") / f"{text_hash(str(slide.resolve()))[:32]}.json")
    recipe = text_hash(content, um_per_px.tolist(), None if same else wanted)
    section = f"new-{slide.stem}-{recipe[:8]}"  # no slash: that names a section of another dataset
    path = paths.slide_file(params.name, section)
    stamp = path.with_suffix(".json")
    with paths.alone(path.parent):
        if not (intact(path) and intact(stamp)):
            scale = um_per_px if same else np.full(2, wanted)
            px = copy_at_scale(slide, path, um_per_px, scale)
            seal(paths.write_text(stamp, json.dumps({"px": px.tolist()})))
    px = np.array(json.loads(stamp.read_text())["px"])
    shows = _shown(params, content)
    return NewSlide(slide.stem, section, um_per_px, px, shows, params.patient_of.get(shows, ""))


def locations(params: Params, new: NewSlide, training: Section) -> Section:
    """Return the locations of a slide's tissue as a section of which nothing was measured.

    Parameters
    ----------
    params
        The dataset; of one that keeps a sample of its locations, these are all.
    training
        One of the sections that the model was trained on: the form of the array is taken from it.
    """
    hexagonal = params.spot.shape == "circle" and is_hexagonal(training.array)
    with Slide(paths.slide_file(params.name, new.section)) as slide:
        array, position = lay_grid(slide, params.spot, hexagonal)
        um_per_px, size_px = slide.um_per_px, slide.size_px
    return Section(
        name=new.section,
        patient=f"new {new.title}",
        layer=1,
        barcodes=np.array([f"{column:.0f}x{row:.0f}" for column, row in array]),
        genes=np.array([], str),
        counts=sparse.csr_matrix((len(array), 0), dtype=np.int32),
        array=array,
        position=position,
        um_per_px=um_per_px,
        size_px=size_px,
        shape=params.spot.shape,
        size_um=params.spot.size_um,
        pitch_um=params.spot.pitch_um,
    )


def beside(params: Params, section: Section, known: Section) -> tuple[Section, dict[str, Registration]]:
    """Put a new slide into the block of a measured section: as its neighbour, aligned to it.

    Returns
    -------
    section : Section
        The same, of the patient of `known`.
    aligned : dict
        Name -> map of both to the frame of the new slide. If it is not proven, a warning says why.
    """
    names = [known.name, section.name]
    with ExitStack() as opened:
        slides = [opened.enter_context(Slide(paths.slide_file(params.name, name))) for name in names]
        aligned = dict(zip(names, register_stack(slides, params.registration, names), strict=True))
    for found in aligned.values():
        if not found.ok:
            warnings.warn(f"{found.message}. Without it only the mean of {known.name} is known", stacklevel=2)
    return replace(section, patient=known.patient, layer=known.layer + 1), aligned


def known_section(params: Params, name: str, new: NewSlide) -> str:
    """Return the measured section beside a slide, if it can be one.

    Raises
    ------
    ValueError
        If the dataset has no such section with a slide, or the slide is that section or that of another
        patient.
    """
    message = f"KNOWN is a section with a slide of params/{params.base}.yaml, found '{name}'"
    require_known(name, params.with_slide, message)
    if name == new.shows:
        raise ValueError(
            f"KNOWN is a measured neighbour of the slide, found '{name}', which the slide itself shows. "
            "Leave it out: SPOTS are what was measured on the slide, to be scored, not to be shown"
        )
    patient = params.patient_of[name]
    if new.patient and (new.patient != patient or params.known.get(patient) != name):
        fits = params.known.get(new.patient, "none")
        raise ValueError(
            f"the slide shows patient '{new.patient}' of the dataset, whose other sections are hidden: KNOWN "
            f"is the known section of that patient, {fits}; found '{name}'"
        )
    return name


def sampled(params: Params, section: Section) -> Section:
    """Return the locations that the dataset would keep of a section: squares of neighbours, or all."""
    if params.sample is None:
        return section
    rows = draw_squares(section.position * section.um_per_px, params.sample, section.name)
    kept = {key: getattr(section, key)[rows] for key in ("barcodes", "counts", "array", "position")}
    return replace(section, **kept)


def _shown(params: Params, content: str) -> str:
    """Return the section of the dataset whose slide has this content, as raw or as prepared file."""
    manifest = json.loads((paths.processed(params.name) / "manifest.json").read_text())
    for name in params.with_slide:
        if content in (manifest[name]["tif"], sealed(paths.slide_file(params.name, name))):
            return name
    return ""


def lay_grid(slide: Slide, spot: Spot, hexagonal: bool) -> tuple[np.ndarray, np.ndarray]:
    """Return the places of an array that lie on tissue.

    With `hexagonal` every other row is shifted by half a pitch, as on Visium; else rows and columns are
    square.

    Returns
    -------
    array, position
        Column and row (N, 2), counted from the slide's upper left corner, row by row; and centre, px (N, 2).

    Raises
    ------
    ValueError
        If no place lies on tissue.
    """
    step_um = np.array([0.5, ROW_STEP] if hexagonal else [1, 1]) * spot.pitch_um
    columns, rows = (np.arange(int(n)) for n in slide.size_px * slide.um_per_px // step_um)
    array = np.stack(np.meshgrid(columns, rows), -1).reshape(-1, 2)
    array = array[array.sum(1) % 2 == 0] if hexagonal else array
    position = (array + 0.5) * step_um / slide.um_per_px
    share = tissue_share(slide, position, spot.size_um)
    if not (share >= LEAST_TISSUE).any():
        raise ValueError(
            f"{slide.path.name}: locations are laid over tissue, found {len(array)} places and none with "
            f"tissue on {LEAST_TISSUE:.0%} of its area. Check that the slide is stained with H&E, that it "
            "shows tissue, and its um per px"
        )
    return array[share >= LEAST_TISSUE].astype(float), position[share >= LEAST_TISSUE]


def tissue_share(slide: Slide, position: np.ndarray, size_um: float) -> np.ndarray:
    """Return how much of the square around each place (N, 2), level-0 px, is tissue (N,), 0 to 1."""
    image, scale = slide.thumbnail(MASK_UM)
    mask = tissue_mask(image).astype(np.float32)
    side = np.maximum(np.rint(size_um / (scale * slide.um_per_px)), 1).astype(int)
    mean = ndimage.uniform_filter(mask, (side[1], side[0]), mode="constant")
    column, row = np.minimum(position / scale, np.array(mask.shape[::-1]) - 1).astype(int).T
    return mean[row, column]
