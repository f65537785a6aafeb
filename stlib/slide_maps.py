"""Genes over the slide they were predicted from, and were measured on."""

import numpy as np
import pandas as pd
import zarr
from matplotlib.axes import Axes
from matplotlib.collections import EllipseCollection, PatchCollection
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from stlib import paths, plots
from stlib.params import Params
from stlib.plots import DOUBLE_MM
from stlib.sections import Section
from stlib.slide import Slide

THUMBNAIL_UM = 8.0  # um per px
VEIL = 0.75  # how much a spot covers of the slide


def over_slide(
    params: Params, section: Section, predicted: pd.DataFrame, measured: pd.DataFrame | None = None
) -> Figure:
    """Draw a slide with its locations, and beside it a map of each gene, laid over the slide.

    Parameters
    ----------
    predicted
        Expression of each gene (N, genes). Each has a colour scale of its own.
    measured
        Of the same genes, where they were measured: drawn below, in the colours of what was predicted.
    """
    rows = [predicted] if measured is None else [predicted, measured]
    figure, axes = _panels(params, section, predicted.shape[1], len(rows))
    first = axes[0, 0]
    plots.outlines(section.position * section.um_per_px, section.size_um, first, "black", shape=section.shape)
    what = "locations on tissue" if measured is None else "measured spots"
    first.set_title(f"{len(section)} {what}")
    for row, values, said in zip(axes, rows, ("predicted", "measured"), strict=False):
        for ax, gene in zip(row[1:], predicted, strict=True):
            limits = plots.shared_limits(*(one[gene] for one in rows))
            _finish(figure, ax, f"{gene}, {said}", _locations(section, values[gene].to_numpy(), limits, ax))
    return figure


def whole(params: Params, section: Section, store: zarr.Array, genes: list[str]) -> Figure:
    """Draw a slide, and beside it each gene of a whole-slide array, bin by bin.

    `section` holds all locations of the slide, `store` is what `stlib.slide_predictions.predict_whole` wrote;
    `genes` are of its panel.
    """
    figure, ((first, *axes),) = _panels(params, section, len(genes))
    first.set_title(f"{len(section)} bins on tissue")
    column, row = store.attrs["origin"]
    rows, columns = store.shape[:2]
    pitch = section.pitch_um
    extent = column * pitch, (column + columns) * pitch, (row + rows) * pitch, row * pitch
    for ax, gene in zip(axes, genes, strict=True):
        values = np.asarray(store[:, :, list(store.attrs["genes"]).index(gene)], np.float32)
        low, high = plots.shared_limits(values)
        shown = ax.imshow(values, extent=extent, vmin=low, vmax=high, cmap="viridis", interpolation="nearest")
        _finish(figure, ax, f"{gene}, predicted", shown)
    return figure


def _panels(params: Params, section: Section, genes: int, rows: int = 1) -> tuple[Figure, np.ndarray]:
    """Return a figure whose axes (rows, 1 + genes) show the slide, but for those below the first one."""
    with Slide(paths.slide_file(params.name, section.name)) as slide:
        image, scale = slide.thumbnail(THUMBNAIL_UM)
        um_per_px = scale * slide.um_per_px
    columns = genes + 1
    width = min(DOUBLE_MM / columns, 75)
    height = width * image.shape[0] / image.shape[1] + 8
    figure, axes = plots.grid(rows, columns, width * columns, rows * height)
    grey = image.mean(2, keepdims=True).repeat(3, 2).astype(np.uint8)  # so that colour is expression alone
    for ax in axes.flat:
        plots.picture(image if ax is axes[0, 0] else grey, um_per_px, ax)
        ax.set(xlim=ax.get_xlim(), ylim=ax.get_ylim())
    for ax in axes[1:, 0]:
        ax.set_visible(False)
    return figure, axes


def _locations(
    section: Section, values: np.ndarray, limits: tuple[float, float], ax: Axes
) -> PatchCollection | EllipseCollection:
    """Draw one value per location, where it lies."""
    places = section.position * section.um_per_px
    if section.shape == "square":
        corners = places - section.size_um / 2
        shapes = PatchCollection([Rectangle(tuple(at), section.size_um, section.size_um) for at in corners])
    else:
        size = np.full(len(section), 0.9 * section.pitch_um)
        at = {"offsets": places, "offset_transform": ax.transData}
        shapes = EllipseCollection(size, size, np.zeros(len(section)), units="xy", **at)
    shapes.set(array=values, cmap="viridis", clim=limits, linewidths=0, alpha=VEIL, rasterized=True)
    ax.add_collection(shapes, autolim=False)
    return shapes


def _finish(figure: Figure, ax: Axes, title: str, shown) -> None:
    ax.set_title(title)
    look = {"shrink": 0.7, "aspect": 18, "pad": 0.01, "extend": "both"}
    bar = figure.colorbar(shown, ax=ax, label="log proportion", **look)
    bar.outline.set_visible(False)
