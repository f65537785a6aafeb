"""Whole figures of slides, genes and trainings, composed from the functions of `stlib.plots`.

They are drawn from predictions, results and prepared data, never from a model. Figures of numbers are
`stlib.overviews`.

Each function returns a figure that no window holds (`display` shows it once); `save` writes it.
"""

import io
from collections.abc import Mapping
from pathlib import Path
from textwrap import fill
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from PIL import Image

from stlib import metrics, paths, plots
from stlib.params import Params
from stlib.plots import DOUBLE_MM, SINGLE_MM
from stlib.predictions import Predictions
from stlib.scores import Load, read_run
from stlib.tables import Table, rows_for, runs_of

PANELS = 6  # side by side
SECTIONS = 5  # of a patient that are shown
WIDEST_MM = 55  # of a map
TITLE = 20  # letters of a map's title in one line
DPI = 160  # of a saved figure; at a column's real width


def save(figure: Figure, path: Path) -> Path:
    """Write a figure as PNG, whole or not at all; return its path."""
    buffer = io.BytesIO()
    figure.savefig(buffer, dpi=DPI)
    with paths.replacing(path) as temporary:  # 256 colours: a third of the size, and no difference to the eye
        few = Image.open(buffer).convert("RGB").quantize(256, dither=Image.Dither.NONE)
        few.save(temporary, optimize=True)
    return path


def _sentence(text: str) -> Figure:
    """Return a figure that says why there is nothing to draw."""
    figure, ((ax,),) = plots.grid(1, 1, SINGLE_MM, 8)
    ax.set_axis_off()
    ax.text(0, 0.5, text, va="center")
    return figure


# ---- genes in tissue ----------------------------------------


def gene_maps(
    truth: np.ndarray,
    predictions: Mapping[str, np.ndarray],
    positions_um: np.ndarray,
    spot_size_um: float,
    label: str,
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
    """
    panels = {"measured": truth, **predictions}
    rows = -(-len(panels) // PANELS)
    columns = -(-len(panels) // rows)
    figure, axes = _maps(rows, columns, positions_um)
    limits = plots.shared_limits(*panels.values())
    for place, (ax, (name, values)) in enumerate(zip(axes.flat, panels.items(), strict=False)):
        below = f"MSE {metrics.mse(values, truth):.3f}" if place else None
        plots.gene_map(values, positions_um, ax, *limits, spot_size_um, below)
        ax.set_title(fill(name, TITLE))
    for ax in axes.flat[len(panels) :]:
        ax.set_axis_off()
    plots.colour_bar(figure, axes, label)
    return figure


def _maps(rows: int, columns: int, positions_um: np.ndarray) -> tuple[Figure, np.ndarray]:
    """Return a figure with room for maps of these spots and one colour bar."""
    extent = np.ptp(positions_um, axis=0)
    width = min((DOUBLE_MM - 22) / columns, WIDEST_MM)
    return plots.grid(
        rows, columns, width * columns + 22, rows * (width * (extent[1] / extent[0] + 0.25) + 5)
    )


def gene_across_methods(
    table: Table, params: Params, protocol: str, gene: str, load: Load = read_run
) -> Figure:
    """Draw a gene as measured and as every row of a protocol predicts it, on one test section.

    The section is the middle one of the sections of the first patient of the first fold that are known in no
    protocol, so that the methods of two protocols can be held beside each other.

    Parameters
    ----------
    table
        Its rows give methods, labels and order.
    protocol
        ``2d``, ``3d`` or ``hd``.
    gene
        Its name; where the fold's panel lacks it, the figure says so.
    """
    fold, (patient, *_) = next(iter(params.folds[protocol].items()))
    shown, place = {}, (protocol, params.size)
    for row in [row for row in rows_for(table, params.name) if (row.protocol, row.size) == place]:
        predictions = load(runs_of(table, row, params.name)[0]).fold(fold)
        if gene not in predictions.genes:
            return _sentence(f"{gene} is not in the panel of fold {fold} ({protocol})")
        obs = predictions.obs.reset_index(drop=True)
        scored = obs[(obs["patient"] == patient) & ~obs["known"].to_numpy(bool)]
        sections = [name for name in scored["section"].unique() if name != params.known.get(patient)]
        section = sections[len(sections) // 2]
        rows = scored.index[scored["section"] == section]
        column = list(predictions.genes).index(gene)
        shown[row.label] = predictions.prediction[rows, column]
        truth, places = predictions.truth[rows, column], obs.loc[rows, ["x_um", "y_um"]].to_numpy()
    if not shown:
        return _sentence(f"tables/{table.name}.yaml has no row of protocol {protocol} for {params.name}")
    label = f"{gene} in {section} ({protocol}),\nlog proportion"
    return gene_maps(truth, shown, places, 0.9 * params.spot.pitch_um, label)


def section_maps(predictions: Predictions, gene: str, params: Params, model: str) -> Figure:
    """Draw a gene in the scored sections of one patient: measured above, predicted below.

    The patient is the first whose fold has the gene in its panel; where none has, the figure says so. Spots
    are drawn as wide as 0.9 of their pitch; `model` is printed beside the lower row.
    """
    obs = predictions.obs.reset_index(drop=True)
    at = np.flatnonzero(predictions.genes == gene)
    truth = predictions.truth[:, at[0]] if len(at) else np.full(len(obs), np.nan)
    scored = obs[np.isfinite(truth) & ~obs["known"].to_numpy(bool)]
    if scored.empty:
        return _sentence(f"{gene} is in no fold's panel")
    patient = scored["patient"].iloc[0]
    sections = list(scored[scored["patient"] == patient].groupby("section", sort=False).groups.items())
    sections = sections[:SECTIONS]
    prediction = predictions.prediction[:, at[0]]
    shown = np.concatenate([rows for _, rows in sections])
    limits = plots.shared_limits(truth[shown], prediction[shown])
    places = obs[["x_um", "y_um"]].to_numpy()
    figure, axes = _maps(2, len(sections), places[sections[0][1]])
    for (section, rows), (above, under) in zip(sections, axes.T, strict=True):
        error = f"MSE {metrics.mse(prediction[rows], truth[rows]):.3f}"
        bar = None if above is axes[0, 0] else ""
        for ax, values, below in ((above, truth, bar), (under, prediction, error)):
            plots.gene_map(values[rows], places[rows], ax, *limits, 0.9 * params.spot.pitch_um, below)
        above.set_title(section)
    axes[0, 0].set_ylabel("measured")
    axes[1, 0].set_ylabel(model)
    plots.colour_bar(figure, axes, f"{gene}, log proportion")
    return figure


# ---- training ----------------------------------------


def training(histories: Mapping[Any, pd.DataFrame]) -> Figure:
    """Draw loss and validation error of every run that trained something; say so if none did.

    `histories` is run (whatever has a `model`) -> its history, empty for a model without training.
    """
    trained = {run.model: history for run, history in histories.items() if len(history)}
    if not trained:
        return _sentence("nothing here is trained by gradient descent")
    figure, axes = plots.grid(len(trained), 2, DOUBLE_MM * 0.8, 45 * len(trained))
    for (model, history), (left, right) in zip(trained.items(), axes, strict=True):
        plots.curves(history, left, "loss").set_title(model)
        if history["validation"].isna().all():  # no patient was held back
            left.legend()
            right.set_axis_off()
            continue
        plots.curves(history, right, "validation").legend()
        dashed, solid = (Line2D([], [], color="black", ls=style) for style in ((0, (3, 1.5)), "-"))
        left.legend([dashed, solid], ["choosing the epoch", "final fit"])
    return figure
