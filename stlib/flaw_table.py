"""Scores with each flaw of released code and without it: as a table, as markdown and as a chart."""

import numpy as np
import pandas as pd
import seaborn as sns
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from stlib import metrics, plots, statistics
from stlib.batch import Batch, Shape
from stlib.cohort import Cohort
from stlib.flaws import FLAWS, Predicted, known_mean, nearest_mean
from stlib.models import Config, build

NAMES = ("mse", "pcc_per_spot_zero", "pcc_per_gene")  # of every flaw
DRAWN = NAMES[1:]
POOLINGS = ("pcc_per_spot_zero", "pcc_per_gene", "pcc_per_gene_pooled")
WITH, WITHOUT = "with the flaw", "without"
HUES = {WITH: plots.COLOURS["asign"], WITHOUT: plots.COLOURS["magnet"]}


def table(cohort: Cohort) -> pd.DataFrame:
    """Score every flaw: one row each, `where` and `meaning`, then each metric with the flaw and without.

    `low` and `high` of a metric are the 95 % interval of what the flaw adds, over patients (Student's t).
    """
    rows = []
    for flaw in FLAWS:
        row = {"flaw": flaw.title, "where": flaw.where, "meaning": flaw.meaning}
        shown = [cohort.predictions(flaw.show(cohort, flawed)) for flawed in (True, False)]
        for name in NAMES:
            with_it, without = (metrics.score(predictions, name) for predictions in shown)
            added = statistics.summary(with_it - without)
            row |= {f"{name} {WITH}": with_it.mean(), f"{name} {WITHOUT}": without.mean()}
            row |= {f"{name} low": added.low, f"{name} high": added.high}
        rows.append(row)
    return pd.DataFrame(rows)


def scores(cohort: Cohort, predicted: Predicted, names: tuple[str, ...] = NAMES) -> dict[str, float]:
    """Return the mean over patients (of what pools a fold's patients: over folds) of each metric."""
    predictions = cohort.predictions(predicted)
    return {name: float(metrics.score(predictions, name).mean()) for name in names}


def one(found: pd.DataFrame, title: str) -> str:
    """Return the scores of one flaw as text: with it, without it."""
    row = found.set_index("flaw").loc[title]
    values = {label: [_number(row[f"{name} {label}"]) for name in NAMES] for label in (WITH, WITHOUT)}
    heads = [metrics.find(name).label for name in NAMES]
    return pd.DataFrame.from_dict(values, "index", columns=heads).to_string()


def poolings(cohort: Cohort) -> pd.DataFrame:
    """Score two predictions that open no image by three correlations that are all called PCC."""
    found = {"mean of the known section": known_mean, "20 nearest known spots": nearest_mean}
    return pd.DataFrame({name: scores(cohort, show(cohort), POOLINGS) for name, show in found.items()}).T


def pooled_markdown(found: pd.DataFrame) -> str:
    """Render `poolings`."""
    heads = [metrics.find(name).label for name in POOLINGS]
    lines = [f"| predicted | {' | '.join(heads)} |", "|---|---:|---:|---:|"]
    for name, row in found.iterrows():
        lines.append(f"| {name} | {' | '.join(_number(row[metric], 3) for metric in POOLINGS)} |")
    return "\n".join(lines) + "\n"


def ceiling(cohort: Cohort) -> dict[str, float]:
    """Return what the expected label given the true rate scores; empty where no truth is known."""
    if any(one.rate is None for one in cohort.section.values()):
        return {}
    oracle = build("oracle", Config(), Shape(tuple(cohort.panel)))
    predicted = {}
    for name, one in cohort.section.items():
        rate = torch.from_numpy(one.rate[:, one.columns(cohort.panel)])
        batch = Batch(rate=rate, dispersion=torch.tensor(one.dispersion))
        predicted[name] = oracle(batch)["expression"].numpy()
    return scores(cohort, predicted)


def markdown(found: pd.DataFrame) -> str:
    """Render the table: with the flaw → without it (95 % interval of what it adds)."""
    heads = [metrics.find(name).label for name in NAMES]
    lines = [
        f"| flaw, with it → without | where | {' | '.join(heads)} | what it means |",
        "|---|---|---:|---:|---:|---|",
    ]
    for row in found.to_dict("records"):
        cells = [
            f"{_number(row[f'{name} {WITH}'])} → {_number(row[f'{name} {WITHOUT}'])}" + _added(row, name)
            for name in NAMES
        ]
        lines.append(f"| {row['flaw']} | {row['where']} | {' | '.join(cells)} | {row['meaning']} |")
    return "\n".join(lines) + "\n"


def _added(row: dict, name: str) -> str:
    low, high = row[f"{name} low"], row[f"{name} high"]
    return "" if np.isnan(low) else f" ({low:+.2f} to {high:+.2f})"


def said(scores: dict[str, float]) -> str:
    """Return scores in words."""
    return ", ".join(f"{metrics.find(name).label} {value:.2f}" for name, value in scores.items())


def _number(value: float, decimals: int = 2) -> str:
    return "undefined" if np.isnan(value) else f"{value:z.{decimals}f}"


def chart(found: pd.DataFrame) -> Figure:
    """Draw two correlations of every flaw: a line from the score with the flaw to that without."""
    figure, (axes,) = plots.grid(1, len(DRAWN), plots.DOUBLE_MM, 7 * len(found) + 20)
    for ax, name in zip(axes, DRAWN, strict=True):
        _panel(found, name, ax)
    axes[1].set_yticklabels([])
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels))
    return figure


def _panel(found: pd.DataFrame, name: str, ax: Axes) -> None:
    """Draw one metric: a cross with the flaw, a dot without; what is undefined says so."""
    ends = found[[f"{name} {WITHOUT}", f"{name} {WITH}"]].set_axis([WITHOUT, WITH], axis=1)
    ax.hlines(range(len(found)), ends[WITH], ends[WITHOUT], color=plots.GREY, lw=0.8, zorder=1)
    long = ends.assign(flaw=found["flaw"]).melt("flaw", var_name="score")
    look = {"palette": HUES, "hue_order": list(HUES), "style_order": list(HUES), "markers": ["X", "o"]}
    sns.scatterplot(long, x="value", y="flaw", hue="score", style="score", ax=ax, s=34, zorder=3, **look)
    for place, row in enumerate(ends.to_dict("records")):
        if np.isnan(row[WITHOUT]):
            away, side = (-8, "right") if row[WITH] > 0.5 else (8, "left")  # points: towards the middle
            text = {"color": plots.GREY, "style": "italic", "va": "center", "ha": side}
            at = {"xytext": (away, 0), "textcoords": "offset points"}
            ax.annotate("undefined without", (row[WITH], place), **at, **text)
    ax.get_legend().remove()
    ax.axvline(0, color="black", lw=0.6, zorder=0)
    ax.set(xlabel=f"{metrics.find(name).label}\n(higher is better)", ylabel="", ylim=(len(found) - 0.5, -0.5))
    ax.tick_params(axis="y", length=0)
    ax.grid(axis="x")
