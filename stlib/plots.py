"""What figures are made of: functions that draw on given axes and return them, and one colour per method.

Sizes are those of the printed column, in mm; text is 7 to 8 pt: importing this module sets the look
(`STYLE`). Tissue maps have equal aspect, no ticks, y downwards as on the slide, a scale bar, and points that
stay pixels inside a vector file. All panels of one gene share one colour scale (`shared_limits`). Charts of
numbers are drawn by `stlib.charts`.
"""

from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.collections import EllipseCollection, PolyCollection
from matplotlib.figure import Figure

STYLE = Path(__file__).with_name("style.mplstyle")
plt.style.use(STYLE)
SINGLE_MM, DOUBLE_MM = 89, 183  # widths of one and of two printed columns
MANY = 800  # spots of a map, from which on each is a few pixels wide

# Okabe and Ito for the three papers' own methods and the two that carry labels over, Tol's muted for the
# others: told apart by readers with any colour vision. A method that is not listed is black.
COLOURS = {
    "asign": "#D55E00",
    "magnet": "#0072B2",
    "pixnet": "#009E73",
    "overlap": "#E69F00",
    "similarity": "#332288",
    "stnet": "#56B4E9",
    "histogene": "#DDCC77",
    "hist2st": "#999933",
    "egn": "#44AA99",
    "eggn": "#117733",
    "sgn": "#AA4499",
    "bleep": "#CC6677",
    "triplex": "#882255",
}
GREY = "#7F7F7F"
FIXED, MOVING = (
    np.array([0.84, 0.37, 0.0]),
    np.array([0.16, 0.63, 1.0]),
)  # complements: together they are dark


def colour(model: str) -> str:
    """Return the colour of a method; its variants (``asign@no_graph``) share it."""
    return COLOURS.get(model.partition("@")[0], "#000000")


def grid(rows: int, columns: int, width_mm: float, height_mm: float) -> tuple[Figure, np.ndarray]:
    """Return a figure and its axes (rows, columns); pyplot forgets it, so that it is shown once."""
    figure, axes = plt.subplots(rows, columns, figsize=(width_mm / 25.4, height_mm / 25.4), squeeze=False)
    plt.close(figure)
    return figure, axes


def colour_bar(figure: Figure, axes: np.ndarray, label: str) -> None:
    """Draw one bar for all maps of a figure, at the side of their axes (rows, columns) or (n,)."""
    spots = axes.flat[0].collections[0]
    bar = figure.colorbar(spots, ax=axes, label=label, extend="both", shrink=0.7, aspect=18, pad=0.01)
    bar.outline.set_visible(False)


# ---- maps of tissue ----------------------------------------


def shared_limits(*values: np.ndarray) -> tuple[float, float]:
    """Return the colour limits of all panels of a gene: 1 % and 99 % of all finite values together."""
    everything = np.concatenate([np.ravel(part) for part in values])
    low, high = np.nanquantile(everything, [0.01, 0.99])
    return float(low), float(high) if high > low else float(low) + 1.0


def gene_map(
    values: np.ndarray,
    positions_um: np.ndarray,
    ax: Axes,
    vmin: float,
    vmax: float,
    spot_size_um: float,
    below: str | None = None,
) -> Axes:
    """Draw one value per spot where the spot lies.

    Parameters
    ----------
    values
        Expression of one gene (N,).
    positions_um
        Centres (N, 2), x right and y down, um.
    vmin, vmax
        Colour limits, the same in all panels of a gene; see `shared_limits`.
    spot_size_um
        Diameter of the drawn spots.
    below
        What stands under the tissue. Default: a scale bar, which the first of several equal panels needs
        alone.
    """
    size = np.full(len(values), spot_size_um)
    spots = EllipseCollection(
        size, size, np.zeros(len(values)), units="xy", offsets=positions_um, offset_transform=ax.transData,
        array=np.asarray(values), cmap="viridis", linewidths=0, rasterized=True,
        antialiased=len(values) <= MANY,  # smoothed edges are most of a spot of a few pixels, and pale
    )  # fmt: skip
    spots.set_clim(vmin, vmax)
    ax.add_collection(spots)
    low, high = positions_um.min(0) - spot_size_um, positions_um.max(0) + spot_size_um
    room = 0.2 * (high - low).max()  # for what stands below, equal in every panel, so that all have one scale
    ax.set(xlim=(low[0], high[0]), ylim=(high[1] + room, low[1]), aspect="equal", xticks=[], yticks=[])
    ax.spines[:].set_visible(False)
    if below is None:
        length, y = _bar_um(high[0] - low[0]), high[1] + 0.3 * room
        ax.plot([low[0], low[0] + length], [y, y], color="black", lw=1.5, solid_capstyle="butt")
        ax.text(low[0], y + 0.15 * room, f"{length:.0f} µm", va="top")
    else:
        ax.text((low[0] + high[0]) / 2, high[1] + 0.25 * room, below, ha="center", va="top")
    return ax


def _bar_um(width_um: float) -> float:
    """Return the round length next below a third of the width.

    Examples
    --------
    >>> _bar_um(7000)
    2000.0
    """
    exponent = 10.0 ** np.floor(np.log10(width_um / 3))
    return float(max(step * exponent for step in (1, 2, 5) if step * exponent <= width_um / 3))


def outlines(
    positions_um: np.ndarray,
    size_um: float,
    ax: Axes,
    hue: str,
    label: str = "",
    shape: str = "circle",
    width: float = 0.6,
) -> Axes:
    """Draw the outline of each circle or upright square (N, 2), um, over what is there; the limits stay."""
    look = {"facecolors": "none", "edgecolors": hue, "linewidths": width, "label": label, "rasterized": True}
    if shape == "square":
        corners = size_um / 2 * np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]])
        rings = PolyCollection(positions_um[:, None] + corners, **look)
    else:
        size = np.full(len(positions_um), size_um)
        at = {"offsets": positions_um, "offset_transform": ax.transData}
        rings = EllipseCollection(size, size, np.zeros(len(size)), units="xy", **at, **look)
    ax.add_collection(rings, autolim=False)
    ax.set(aspect="equal")
    return ax


# ---- images and training ----------------------------------------


def picture(image: np.ndarray, um_per_px: np.ndarray, ax: Axes) -> Axes:
    """Draw an image (h, w, 3) in um, x right and y down, so that spots may be drawn over it."""
    width, height = image.shape[1] * um_per_px[0], image.shape[0] * um_per_px[1]
    ax.imshow(image, extent=(0, width, height, 0), interpolation="antialiased")
    ax.set_axis_off()
    return ax


def overlay(fixed: np.ndarray, moving: np.ndarray, ax: Axes) -> Axes:
    """Draw two aligned slides on each other: fixed tissue orange, moving tissue blue, both dark.

    Both are uint8 (h, w, 3), of one size, on white.

    Raises
    ------
    ValueError
        If the sizes differ.
    """
    if fixed.shape != moving.shape:
        raise ValueError(
            f"an overlay needs two images of one size, found {fixed.shape} and {moving.shape}; warp "
            "one onto the other"
        )
    ink = [_ink(image)[..., None] * (1 - tint) for image, tint in ((fixed, FIXED), (moving, MOVING))]
    ax.imshow(np.clip(1 - sum(ink), 0, 1), interpolation="antialiased")
    ax.set_axis_off()
    return ax


def _ink(image: np.ndarray) -> np.ndarray:
    """Return how dark each pixel is above the glass, the 99 % quantile of the tissue at 1: (h, w)."""
    dark = 1 - image.astype(np.float64).mean(2) / 255
    dark = np.maximum(dark - np.quantile(dark, 0.05), 0)
    tissue = dark[dark > 0.05]
    return np.clip(dark / np.quantile(tissue, 0.99), 0, 1) if tissue.size else dark


def curves(history: pd.DataFrame, ax: Axes, column: str = "loss") -> Axes:
    """Draw a training: one line per fold; dashed while the epoch is chosen, solid for the final fit.

    Parameters
    ----------
    history
        One row per fold, stage (``choose``, ``final``) and epoch; see `stlib.train.train_fold`.
    column
        ``loss``, or ``validation``; the best epoch of a fold is marked on the latter.
    """
    for (fold, stage), rows in history.dropna(subset=column).groupby(["fold", "stage"], sort=False):
        hue = f"C{list(history['fold'].unique()).index(fold)}"
        label = f"fold {fold}" if stage == "final" or column == "validation" else None
        ax.plot(
            rows["epoch"] + 1,
            rows[column],
            color=hue,
            ls="-" if stage == "final" else (0, (3, 1.5)),
            label=label,
        )
        if column == "validation":
            best = rows.loc[rows[column].idxmin()]
            ax.plot(best["epoch"] + 1, best[column], "o", color=hue, ms=4)
    ax.set(xlabel="epoch", ylabel="training loss" if column == "loss" else "validation MSE")
    return ax
