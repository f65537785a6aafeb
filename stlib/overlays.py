"""Slides and what lies on them: images side by side, spots on tissue, sections before and after alignment.

Each function returns a figure that no window holds (`display` shows it once), as those of `stlib.figures`.
"""

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.collections import PolyCollection
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from stlib import paths, plots
from stlib.alignment import Registration, rescale
from stlib.params import Params
from stlib.plots import DOUBLE_MM
from stlib.sections import Section, load_sections
from stlib.slide import Slide
from stlib.views import warp

OVERLAY_UM = 16  # um per px of the overlays
PATCH_UM = 1200  # side of the patch of tissue under registered spots
CORNERS = 60  # of a spot's outline


def gallery(images: Mapping[str, np.ndarray], columns: int = 6) -> Figure:
    """Draw images (h, w, 3) side by side, each under its name."""
    columns = min(columns, len(images))
    rows = -(-len(images) // columns)
    width = min(DOUBLE_MM / columns, 34)
    tallest = max(image.shape[0] / image.shape[1] for image in images.values())
    figure, axes = plots.grid(rows, columns, width * columns, rows * (width * tallest + 5))
    for ax in axes.flat:
        ax.set_axis_off()
    for ax, (name, image) in zip(axes.flat, images.items(), strict=False):
        ax.imshow(image, interpolation="antialiased")
        ax.set_title(name)
    return figure


def levels(params: Params, section: Section) -> Figure:
    """Draw the locations of a section on its slide, and one with its patch and the cells around it."""
    wide = params.levels["global"].px
    middle = _middle(section)
    corner = np.floor(middle / wide - 1).astype(int) * wide  # one cell around that of the location
    with Slide(paths.slide_file(params.name, section.name)) as slide:
        image, scale = slide.thumbnail(OVERLAY_UM / 4)
        near = slide.read(*corner, 3 * wide, 3 * wide)
        um_per_px = slide.um_per_px
    figure, ((left, right),) = plots.grid(1, 2, 140, 70)
    plots.picture(image, scale * um_per_px, left)
    left.set_title(f"{section.name}: {len(section)} locations of {section.size_um:g} um")
    plots.outlines(section.position * um_per_px, section.size_um, left, "black", shape=section.shape)
    plots.picture(near, um_per_px, right)
    places = (section.position - corner) * um_per_px
    inside = ((places > 0) & (places < near.shape[0] * um_per_px.mean())).all(1)
    plots.outlines(places[inside], section.size_um, right, "black", shape=section.shape)
    for level, hue in (("spot", "black"), ("region", "#0072B2"), ("global", "#D55E00")):
        px = params.levels[level].px
        centre = middle if level == "spot" else (np.floor(middle / px) + 0.5) * px
        at = ((centre - corner) * um_per_px)[None]
        plots.outlines(at, px * um_per_px.mean(), right, hue, level, shape="square", width=1.4)
    right.legend(loc="upper right")
    right.set_title("one location: its patch (spot), the cells it lies in")
    return figure


def sizes(datasets: Sequence[Params], section: str) -> Figure:
    """Draw one piece of a slide under the locations of each size of a dataset: figure 1 of MagNet.

    The piece lies about the middle of the coarsest size's locations.
    """
    found = [load_sections(params, [section])[section] for params in datasets]
    coarse = max(found, key=lambda one: one.pitch_um)
    middle = _middle(coarse)
    side_um = 4 * coarse.pitch_um
    with Slide(paths.slide_file(datasets[0].name, section)) as slide:
        side = np.rint(side_um / slide.um_per_px).astype(int)
        corner = np.rint(middle - side / 2).astype(int)
        image, um_per_px = slide.read(*corner, *side), slide.um_per_px
    figure, (axes,) = plots.grid(1, len(found), min(DOUBLE_MM, 58 * len(found)), 66)
    for one, ax in zip(found, axes, strict=True):
        plots.picture(image, um_per_px, ax)
        beyond = one.pitch_um / um_per_px
        places = (lattice(one, corner - beyond, corner + side + beyond)[1] - corner) * um_per_px
        plots.outlines(places, one.size_um, ax, "black", shape=one.shape)
        ax.set(xlim=(0, side_um), ylim=(side_um, 0), title=f"{one.shape}s of {one.size_um:g} um")
    return figure


def _middle(section: Section) -> np.ndarray:
    """Return the centre of the location nearest to the mean of all (2,), level-0 px."""
    return section.position[np.argmin(((section.position - section.position.mean(0)) ** 2).sum(1))]


def slide_and_spots(params: Params, section: Section, values: np.ndarray, label: str) -> Figure:
    """Draw a slide, its spots or bins in their true form and size, and a value at each of them.

    `values` has one per spot (N,); `label` is that of the colour bar.
    """
    with Slide(paths.slide_file(params.name, section.name)) as slide:
        image, scale = slide.thumbnail(OVERLAY_UM / 2)
    places = section.position * section.um_per_px
    figure, ((left, right),) = plots.grid(1, 2, 130, 62)
    plots.picture(image, scale * section.um_per_px, left)
    left.set_title(f"slide {section.name} and its {len(section)} spots")
    plots.outlines(places, section.size_um, left, "black", shape=section.shape)
    plots.gene_map(values, places, right, *plots.shared_limits(values), 0.9 * section.pitch_um)
    plots.colour_bar(figure, np.array([right]), label)
    return figure


def common_frame(stack: list[str], registrations: Mapping[str, Registration]) -> str:
    """Return the section of a stack whose frame all maps lead to: proven, and aligned to none.

    It is the middle one, or where that shows no tissue the nearest that does. Where no section does, none is
    proven, and they lie as the middle one does. The stack is in cutting order, the maps are from
    `stlib.registration`, by section.
    """
    unmoved = (name for name in stack if registrations[name].ok and not registrations[name].stages)
    return next(unmoved, stack[len(stack) // 2])


def alignment(params: Params, stack: list[str], registrations: Mapping[str, Registration]) -> Figure:
    """Draw each section of a stack over that of the common frame, as it lies and aligned, and all spots.

    What is not proven to be aligned says so. The stack is in cutting order, each map leads to the common
    frame.
    """
    images, scales, um_per_px = {}, {}, {}
    for name in stack:
        with Slide(paths.slide_file(params.name, name)) as slide:
            images[name], scales[name] = slide.thumbnail(OVERLAY_UM)
            um_per_px[name] = slide.um_per_px
    frame = common_frame(stack, registrations)
    others = [name for name in stack if name != frame]
    fixed, fixed_um = images[frame], scales[frame] * um_per_px[frame]  # um per px of the thumbnail
    width = min(DOUBLE_MM / (len(others) + 1), 46)
    height = 2 * (width * fixed.shape[0] / fixed.shape[1] + 5)
    figure, axes = plots.grid(2, len(others) + 1, width * (len(others) + 1), height)
    for name, (above, under) in zip(others, axes.T, strict=False):
        image, glass = images[name], float(np.quantile(images[name], 0.95))
        as_it_lies = rescale(np.eye(2, 3), 1 / (scales[name] * um_per_px[name]), 1 / fixed_um)
        before = warp(image, as_it_lies, fixed.shape[:2], fill=glass)
        after = registrations[name].warp(image, scales[name], fixed.shape[:2], fixed_um, fill=glass)
        proven = "aligned" if registrations[name].ok else "not proven"
        for ax, drawn, title in ((above, before, "as it lies"), (under, after, proven)):
            plots.overlay(fixed, drawn, ax)
            ax.set_title(f"{name} on {frame}, {title}")
    sections = load_sections(params, stack)
    hues = plt.get_cmap("plasma")(np.linspace(0, 0.85, len(stack)))
    proven = "spots aligned" if all(registrations[name].ok for name in stack) else "spots, not all proven"
    for ax, title in zip(axes[:, -1], ("spots as they lie", proven), strict=True):
        for hue, (name, section) in zip(hues, sections.items(), strict=True):
            own = section.position * section.um_per_px
            places = own if ax is axes[0, -1] else registrations[name].to_um(section.position)
            plots.outlines(places, section.size_um, ax, hue, name)
        ax.set(xlim=(0, fixed.shape[1] * OVERLAY_UM), ylim=(fixed.shape[0] * OVERLAY_UM, 0), title=title)
        ax.set_axis_off()
    handles = [Line2D([], [], marker="o", ls="none", mfc="none", color=hue) for hue in hues]
    figure.legend(handles, stack, loc="outside lower center", ncols=len(stack))
    return figure


def spots_on_neighbour(params: Params, stack: list[str], registrations: Mapping[str, Registration]) -> Figure:
    """Draw a patch of the common frame's section, and over it the outlines of each other section's spots.

    The patch is the same in every panel: `PATCH_UM` wide, about the middle of that section's own spots. What
    is not proven to be aligned says so. The stack is in cutting order, each map leads to the common frame.
    """
    frame = common_frame(stack, registrations)
    sections = load_sections(params, stack)
    centre = sections[frame].position.mean(0)  # px
    with Slide(paths.slide_file(params.name, frame)) as slide:
        side = np.rint(PATCH_UM / slide.um_per_px).astype(int)
        corner = np.rint(centre - side / 2).astype(int)
        patch, um_per_px = slide.read(*corner, *side), slide.um_per_px
    others = [name for name in stack if name != frame] or [frame]
    width = min(DOUBLE_MM / len(others), 60)
    figure, (axes,) = plots.grid(1, len(others), width * len(others), width + 5)
    turn = np.linspace(0, 2 * np.pi, CORNERS, endpoint=False)
    circle = np.stack([np.cos(turn), np.sin(turn)], 1)
    for name, ax in zip(others, axes, strict=True):
        section = sections[name]
        outline = (
            section.position[:, None] + section.size_um / 2 * circle / section.um_per_px
        )  # (N, corners, 2)
        places = registrations[name].to_um(outline) - corner * um_per_px
        plots.picture(patch, um_per_px, ax)
        ax.add_collection(PolyCollection(places, facecolors="none", edgecolors="red", linewidths=0.8))
        doubt = "" if registrations[name].ok else ", not proven"
        ax.set(xlim=(0, PATCH_UM), ylim=(PATCH_UM, 0), title=f"spots of {name} on {frame}{doubt}")
    return figure


def lattice(section: Section, low_px: np.ndarray, high_px: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return all places of a section's array in a rectangle of its slide, whether or not they were sampled.

    Parameters
    ----------
    section
        Its places and centres fix the affine map from the one to the other.
    low_px, high_px
        Corners of the rectangle (2,), level-0 px.

    Returns
    -------
    tuple
        Column and row (N, 2), and centre (N, 2), px; a place is in if its centre is.
    """
    affine = np.linalg.lstsq(np.c_[section.array, np.ones(len(section))], section.position)[0]  # (3, 2)
    corners = np.stack(np.meshgrid(*zip(low_px, high_px, strict=True)), -1).reshape(-1, 2)
    ends = (corners - affine[2]) @ np.linalg.inv(affine[:2])
    sides = [np.arange(*side) for side in zip(np.floor(ends.min(0)), np.ceil(ends.max(0)) + 1, strict=True)]
    array = np.stack(np.meshgrid(*sides), -1).reshape(-1, 2)
    position = array @ affine[:2] + affine[2]
    inside = ((position >= low_px) & (position < high_px)).all(1)
    return array[inside], position[inside]
