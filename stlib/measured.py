"""Spots that were measured on a slide of one's own: read, placed on its copy, recognised.

Their counts travel with their places, and no model is shown them: a feed never reads those of a new section
(`hidden` of `stlib.feed.Feed`). What they say of predictions: `stlib.slide_scores`.
"""

import warnings
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np

from stlib import paths
from stlib.annotated import read_annotated
from stlib.datasets import section_of, slide_px, visium
from stlib.datasets.folder import PITCH_TOLERANCE, neighbour_px
from stlib.expression import common_genes
from stlib.new_slide import SAME_SCALE, NewSlide
from stlib.orientation import on_tissue, warn_if_turned
from stlib.params import Params
from stlib.sections import Section
from stlib.slide import Slide
from stlib.visium import is_hexagonal

SAME = 0.5  # of the spots, with the very counts of a section's, beyond which they are of that section


def measured_spots(params: Params, new: NewSlide, slide: Path, path: Path, training: Section) -> Section:
    """Read the spots of a slide as a section whose places are px of its copy.

    Parameters
    ----------
    new, slide
        The slide, and its file as it came.
    path
        An .h5ad or a SpatialData store with one table (`stlib.annotated`), places in px of the slide as it
        came; or the folder ``outs`` of Space Ranger (`stlib.datasets.visium`).
    training
        One of the sections that the model was trained on: the form of the array is taken from it.

    Returns
    -------
    Section
        With `facts` on_tissue, the share of spots whose centre lies on tissue.

    Raises
    ------
    FileNotFoundError
        If it is neither, or a file of Space Ranger is missing.
    ValueError
        If it is damaged, or its spots are none of this slide, or not such as the model was trained on.
    """
    section = _read(params, new, slide, path.resolve(), training)
    if len(section) < 2:
        raise ValueError(f"{path}: two spots or more lie under tissue, found {len(section)}. Check in_tissue")
    apart = neighbour_px(section.position * new.um_per_px)
    if abs(apart / params.spot.pitch_um - 1) > PITCH_TOLERANCE:
        raise ValueError(
            f"{path}: spots are {params.spot.pitch_um:g} um apart, as those that the model is trained on; "
            f"found {apart:.4g} um at {new.um_per_px.mean():.4f} um per px. Give places in px of the slide "
            "as it came, or correct UM_PER_PX; spots of another kind are a dataset, for PROTOCOL=transfer"
        )
    if np.abs(section.um_per_px / new.um_per_px - 1).max() > SAME_SCALE:
        warnings.warn(
            f"{path}: {section.um_per_px.round(4).tolist()} um per px by its spots, "
            f"{new.um_per_px.round(4).tolist()} by the slide: taken",
            stacklevel=2,
        )
    if params.sample is not None and (section.array % 1).any():
        raise ValueError(
            f"{path}: bins of a whole slide have whole columns and rows, obs array_col and array_row; found "
            f"{section.array[(section.array % 1).any(1)][0].tolist()}. Add them"
        )
    with Slide(paths.slide_file(params.name, new.section)) as copy:
        placed = section.position / new.px
        warn_if_turned(copy, placed)
        share = on_tissue(copy, placed)["as it lies"]
        return replace(
            section, name=new.section, position=placed, um_per_px=copy.um_per_px, size_px=copy.size_px,
            facts={"on_tissue": share},
        )  # fmt: skip


def _read(params: Params, new: NewSlide, slide: Path, path: Path, training: Section) -> Section:
    """Read spots in px of the slide as it came, by the reader of what they are."""
    options = {
        "slides": {path.name: str(slide.resolve())},
        "lattice": "hexagonal" if is_hexagonal(training.array) else "square",
    }
    source = params.source.model_copy(update={"options": options})
    one = {"sections": {f"new {new.title}": [path.name]}, "counts_only": {}, "source": source}
    own = params.model_copy(update=one)  # a dataset of this section alone
    if path.suffix == ".h5ad" and path.is_file() or (path / "tables").is_dir():
        content = read_annotated(path)._asdict()
        if content["um_per_px"] is None:
            content["um_per_px"] = new.um_per_px
        return section_of(own, path.name, 1, str(path), {}, size_px=slide_px(slide), **content)
    wanted = "SPOTS is an .h5ad with raw counts and obsm['spatial'], or the folder outs of Space Ranger"
    if not path.is_dir():
        raise FileNotFoundError(f"{wanted}; found no such thing at {path}. Name one of them")
    try:
        return visium.read(own, path.parent, path.name)
    except FileNotFoundError as error:
        missing = str(error).split(" is not there")[0]
        raise FileNotFoundError(f"{wanted}; found none at {missing}. Name one of them") from error


def recognised(params: Params, new: NewSlide, spots: Section, sections: Mapping[str, Section]) -> NewSlide:
    """Return the slide as that of a section of the dataset, if its spots have that one's counts.

    The slide's file tells it only where nobody wrote it anew. `sections` are all of the dataset whose counts
    may be read.
    """
    for name, section in sections.items():
        genes = common_genes([section, spots])
        if not genes:
            continue
        weights = np.random.default_rng(0).integers(1, 2**40, len(genes))  # a row's sum is as good as the row
        here, there = (_once(one.counts[:, one.columns(genes)] @ weights) for one in (spots, section))
        if len(np.intersect1d(here, there)) > SAME * min(len(spots), len(section)):
            return replace(new, shows=name, patient=params.patient_of[name])
    return new


def _once(values: np.ndarray) -> np.ndarray:
    """Return the values that occur once: only those tell a row from all others."""
    found, number = np.unique(values, return_counts=True)
    return found[number == 1]
