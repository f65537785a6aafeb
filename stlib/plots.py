"""What figures are made of: functions that draw on given axes and return them, and one colour per method.

Sizes are those of the printed column, in mm; text is 7 to 8 pt: importing this module sets the look (`STYLE`). Tissue
maps have equal aspect, no ticks, y downwards as on the slide, a scale bar, and points that stay pixels
inside a vector file. All panels of one gene share one colour scale (`shared_limits`). Controls are grey and
hollow.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.collections import EllipseCollection
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from stlib import metrics
from stlib.params import Params
from stlib.predictions import Predictions

STYLE = Path(__file__).with_name("style.mplstyle")
plt.style.use(STYLE)
SINGLE_MM, DOUBLE_MM = 89, 183  # widths of one and of two printed columns

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


def inches(*mm: float) -> tuple[float, ...]:
    """Convert widths and heights for ``figsize``.

    Examples
    --------
    >>> inches(25.4, 50.8)
    (1.0, 2.0)
    """
    return tuple(length / 25.4 for length in mm)


# ---- tables as dots ----------------------------------------


def dot_plot(found: pd.DataFrame, ax: Axes) -> Axes:
    """Draw one metric of a table: a dot per row with its 95 % interval, the paper's number as a cross.

    A control is a hollow grey circle, a ceiling a hollow grey diamond. A dashed line stands at the best
    control of each section: what lies on its worse side is not worth its cost. A row without a value says
    "undefined".

    Parameters
    ----------
    found
        Lines of `stlib.tables.frame`, of one metric.
    ax
        Where to draw. Its artists are labelled, for ``ax.legend()``.

    Raises
    ------
    ValueError
        If there is not exactly one metric.
    """
    names = found["metric"].unique()
    if len(names) != 1:
        raise ValueError(
            f"a dot plot shows one metric, found {len(names)} ({', '.join(names)}); select the lines of one"
        )
    metric = metrics.find(names[0])
    ticks, labels, bold, y = [], [], [], 0
    for (protocol, setting), section in found.groupby(["protocol", "setting"], sort=False):
        ticks.append(y)
        labels.append(f"{protocol}, {setting}")
        bold += ["bold", *["normal"] * len(section)]
        places = np.arange(y + 1, y + 1 + len(section))
        for place, row in zip(places, section.to_dict("records"), strict=True):
            _dot(row, place, ax)
        controls = section.loc[section["role"] == "control", "mean"].dropna()
        if len(controls):
            best = controls.max() if metric.higher_is_better else controls.min()
            ax.plot(
                [best, best],
                [y + 0.5, places[-1] + 0.5],
                color=GREY,
                lw=0.8,
                ls=(0, (3, 2)),
                zorder=1,
                label="best control",
            )
        ticks.extend(places)
        labels.extend(section["label"])
        y = places[-1] + 1.5
    ax.set_yticks(ticks, labels)
    for tick, weight in zip(ax.yaxis.get_major_ticks(), bold, strict=True):
        tick.label1.set_fontweight(weight)
    ax.set_ylim(y - 0.5, -0.7)
    ax.tick_params(axis="y", length=0)
    ax.grid(axis="x")
    ax.set_xlabel(f"{metric.label} ({'higher' if metric.higher_is_better else 'lower'} is better)")
    return ax


def _dot(row: dict, y: float, ax: Axes) -> None:
    """Draw the value, interval and reported value of one row."""
    hue = colour(row["model"]) if row["role"] == "method" else GREY
    if np.isnan(row["mean"]):
        clear = {
            "facecolor": "white",
            "edgecolor": "none",
            "pad": 1,
        }  # the line of the best control may pass here
        ax.text(
            0.02,
            y,
            "undefined",
            color=GREY,
            style="italic",
            va="center_baseline",
            transform=ax.get_yaxis_transform(),
            bbox=clear,
        )
    else:
        ax.plot([row["low"], row["high"]], [y, y], color=hue, lw=1.2, solid_capstyle="butt", zorder=2)
        marker = "D" if row["role"] == "ceiling" else "o"
        face = hue if row["role"] == "method" else "white"
        ax.plot(
            row["mean"],
            y,
            marker,
            color=hue,
            mfc=face,
            mew=1,
            ms=4 if marker == "D" else 5,
            zorder=3,
            label=row["role"],
        )
    if not np.isnan(row["reported"]):
        ax.plot(row["reported"], y, "x", color="black", ms=4, mew=0.9, zorder=4, label="reported")


def dot_legend(ax: Axes) -> list[Line2D]:
    """Return one artist for each kind that a dot plot shows, for ``figure.legend(handles=...)``."""
    kinds = dict(zip(*reversed(ax.get_legend_handles_labels()), strict=True))
    shown = [
        artist
        for kind in ("method", "control", "ceiling", "reported", "best control")
        if (artist := kinds.get(kind))
    ]
    return [_neutral(artist) if artist.get_label() == "method" else artist for artist in shown]


def _neutral(artist: Line2D) -> Line2D:
    """Return a black copy: the legend speaks of all methods, not of one."""
    return Line2D([], [], marker="o", ls="none", color="black", ms=artist.get_markersize(), label="method")


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
    ax
        Where to draw.
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


def gene_maps(
    truth: np.ndarray,
    predictions: Mapping[str, np.ndarray],
    positions_um: np.ndarray,
    spot_size_um: float,
    label: str,
    columns: int = 5,
) -> Figure:
    """Draw one gene in one section: measured, and each method beside it with its squared error.

    Parameters
    ----------
    truth
        Measured expression of the gene (N,).
    predictions
        Name to print above -> predicted expression (N,).
    positions_um
        Centres (N, 2).
    spot_size_um
        Diameter of the drawn spots.
    label
        Of the colour bar, e.g. the gene and its scale.
    columns
        Panels side by side.
    """
    panels = {"measured": truth, **predictions}
    columns = min(columns, len(panels))
    rows = -(-len(panels) // columns)
    figure, axes = _panels(rows, columns, positions_um)
    limits = shared_limits(*panels.values())
    for place, (ax, (name, values)) in enumerate(zip(axes.flat, panels.items(), strict=False)):
        gene_map(
            values,
            positions_um,
            ax,
            *limits,
            spot_size_um,
            f"MSE {metrics.mse(values, truth):.3f}" if place else None,
        )
        ax.set_title(name)
    for ax in axes.flat[len(panels) :]:
        ax.set_axis_off()
    _colour_bar(figure, axes, label)
    return figure


def _panels(rows: int, columns: int, positions_um: np.ndarray) -> tuple[Figure, np.ndarray]:
    """Return a figure with room for maps of these spots and one colour bar."""
    extent = np.ptp(positions_um, axis=0)
    width = min((DOUBLE_MM - 22) / columns, 36)
    height = width * (extent[1] / extent[0] + 0.25) + 5
    return plt.subplots(rows, columns, figsize=inches(width * columns + 22, rows * height), squeeze=False)


def _colour_bar(figure: Figure, axes: np.ndarray, label: str) -> None:
    """Draw one bar for all maps of a figure."""
    spots = axes.flat[0].collections[0]
    bar = figure.colorbar(spots, ax=axes, label=label, extend="both", shrink=0.7, aspect=18, pad=0.01)
    bar.outline.set_visible(False)


def section_maps(predictions: Predictions, gene: str, params: Params, model: str, most: int = 5) -> Figure:
    """Draw a gene in the scored sections of one patient: measured above, predicted below.

    The patient is the first whose fold has the gene in its panel; where none has, the figure says so.

    Parameters
    ----------
    predictions
        Of one run.
    gene
        Its name.
    params
        The dataset; spots are drawn as wide as 0.9 of their pitch.
    model
        To print beside the lower row.
    most
        Number of sections shown.
    """
    obs = predictions.obs.reset_index(drop=True)
    at = np.flatnonzero(predictions.genes == gene)
    truth = predictions.truth[:, at[0]] if len(at) else np.full(len(obs), np.nan)
    scored = obs[np.isfinite(truth) & ~obs["known"].to_numpy(bool)]
    if scored.empty:
        return _sentence(f"{gene} is in no fold's panel")
    patient = scored["patient"].iloc[0]
    sections = list(scored[scored["patient"] == patient].groupby("section", sort=False).groups.items())[:most]
    prediction = predictions.prediction[:, at[0]]
    shown = np.concatenate([rows for _, rows in sections])
    limits = shared_limits(truth[shown], prediction[shown])
    places = obs[["x_um", "y_um"]].to_numpy()
    figure, axes = _panels(2, len(sections), places[sections[0][1]])
    for (section, rows), (above, under) in zip(sections, axes.T, strict=True):
        error = f"MSE {metrics.mse(prediction[rows], truth[rows]):.3f}"
        for ax, values, below in (
            (above, truth, None if above is axes[0, 0] else ""),
            (under, prediction, error),
        ):
            gene_map(values[rows], places[rows], ax, *limits, 0.9 * params.spot.pitch_um, below)
        above.set_title(section)
    axes[0, 0].set_ylabel("measured")
    axes[1, 0].set_ylabel(model)
    _colour_bar(figure, axes, f"{gene}, log proportion")
    return figure


def _sentence(text: str) -> Figure:
    """Return a figure that says why there is nothing to draw."""
    figure, ax = plt.subplots(figsize=inches(SINGLE_MM, 8))
    ax.set_axis_off()
    ax.text(0, 0.5, text, va="center")
    return figure


# ---- images and training ----------------------------------------


def overlay(fixed: np.ndarray, moving: np.ndarray, ax: Axes) -> Axes:
    """Draw two aligned slides on each other: tissue of the fixed one orange, of the moving one blue, of
    both dark.

    Parameters
    ----------
    fixed, moving
        uint8 (h, w, 3), of one size, on white.
    ax
        Where to draw.

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
    """Return how dark each pixel is, 0 to 1, with the 99 % quantile of the tissue at 1: (h, w)."""
    dark = 1 - image.astype(np.float64).mean(2) / 255
    tissue = dark[dark > 0.05]
    return np.clip(dark / np.quantile(tissue, 0.99), 0, 1) if tissue.size else dark


def gallery(images: Mapping[str, np.ndarray], columns: int = 6) -> Figure:
    """Draw images (h, w, 3) side by side, each under its name."""
    columns = min(columns, len(images))
    rows = -(-len(images) // columns)
    width = min(DOUBLE_MM / columns, 34)
    tallest = max(image.shape[0] / image.shape[1] for image in images.values())
    figure, axes = plt.subplots(
        rows, columns, figsize=inches(width * columns, rows * (width * tallest + 5)), squeeze=False
    )
    for ax in axes.flat:
        ax.set_axis_off()
    for ax, (name, image) in zip(axes.flat, images.items(), strict=False):
        ax.imshow(image, interpolation="antialiased")
        ax.set_title(name)
    return figure


def curves(history: pd.DataFrame, ax: Axes, column: str = "loss") -> Axes:
    """Draw a training: one line per fold; dashed while the epoch is chosen, solid for the final fit.

    Parameters
    ----------
    history
        One row per fold, stage (``choose``, ``final``) and epoch; see `stlib.train.train_fold`.
    ax
        Where to draw.
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


def training(histories: Mapping[Any, pd.DataFrame]) -> Figure:
    """Draw loss and validation error of every run that trained something; say so if none did.

    Parameters
    ----------
    histories
        Run (whatever has a `model`) -> its history, empty for a model without training.
    """
    trained = {run.model: history for run, history in histories.items() if len(history)}
    if not trained:
        return _sentence("nothing here is trained by gradient descent")
    figure, axes = plt.subplots(
        len(trained), 2, figsize=inches(DOUBLE_MM * 0.8, 45 * len(trained)), squeeze=False
    )
    for (model, history), (left, right) in zip(trained.items(), axes, strict=True):
        curves(history, left, "loss").set_title(model)
        curves(history, right, "validation")
        if history["validation"].notna().any():
            dashed, solid = (Line2D([], [], color="black", ls=style) for style in ((0, (3, 1.5)), "-"))
            left.legend([dashed, solid], ["choosing the epoch", "final fit"])
            right.legend()
        else:
            left.legend()
            right.set_axis_off()
    return figure
