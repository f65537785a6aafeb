"""Whole figures of numbers: tables, patients, ablations, what a dataset holds, and its genes.

They are drawn from results and prepared data, never from a model; `stlib.figures.save` writes them.
"""

from collections.abc import Collection, Sequence

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from stlib import charts, metrics
from stlib.params import Panel
from stlib.plots import DOUBLE_MM, GREY, grid
from stlib.tables import PLACE

BLUE, RED = "#0072B2", "#D55E00"
MOST = 10  # columns of genes
RULES = {  # of a panel -> what its genes are
    "top_mean": "of the highest mean count",
    "highly_variable": "of the highest variance of residuals",
    "spatially_variable": "of the highest Moran's I",
}


def table_dots(found: pd.DataFrame) -> Figure:
    """Draw a table (`stlib.scores.frame`): a panel per metric, a line per row, in the order of the table."""
    names = list(found["metric"].unique())
    figure, axes = _panels(found, names)
    for ax, name in zip(axes, names, strict=True):
        charts.dot_plot(found[found["metric"] == name], ax)
    _tidy(axes)
    legend = max((charts.dot_legend(ax) for ax in axes), key=len)
    figure.legend(handles=legend, loc="outside lower center", ncols=len(legend))
    return figure


def patient_boxes(patients: pd.DataFrame, tests: pd.DataFrame) -> Figure:
    """Draw what each method scores patient by patient, with a star where Welch's test tells it from ours.

    Figure 4 of ASIGN, by protocol: ASIGN 2D is the reference of the 2D methods, ASIGN 3D of the 3D ones.
    `patients` is from `stlib.scores.by_patient`, `tests` from `stlib.comparisons.tests`; those against ours
    are drawn.
    """
    names = [name for name in patients["metric"].unique() if metrics.find(name).unit == "patient"]
    keys = [*PLACE, "metric", "label"]
    drawn = patients[patients["metric"].isin(names)]
    ours = tests.loc[tests["against"] == "ours", [*keys, "p_welch"]].rename(columns={"p_welch": "p"})
    drawn = drawn.merge(ours, on=keys, how="left")
    figure, axes = _panels(drawn.drop_duplicates(keys), names)
    for ax, name in zip(axes, names, strict=True):
        charts.box_plot(drawn[drawn["metric"] == name], ax)
    _tidy(axes)
    n = drawn.groupby("protocol", sort=False)["unit"].nunique()
    numbers = ", ".join(f"{protocol}: {count} patient{'s' * (count > 1)}" for protocol, count in n.items())
    star = "* p < 0.05 by Welch's t-test against ours of the same protocol, not corrected"
    if n.max() < 2:
        star = "one patient allows no test"
    figure.supxlabel(f"a dot is a patient ({numbers}); box: quartiles; {star}", fontsize=7)
    return figure


def _panels(found: pd.DataFrame, names: Sequence[str]) -> tuple[Figure, np.ndarray]:
    """Return a figure of one panel per metric, high enough for the rows of a table."""
    lines = len(found) // len(found["metric"].unique())
    lines = lines + 1.5 * found.groupby(PLACE).ngroups
    figure, (axes,) = grid(1, len(names), DOUBLE_MM, 4.2 * lines + 18)
    return figure, axes


def _tidy(axes: np.ndarray) -> None:
    """Label the rows once, and few values."""
    for ax in axes:
        ax.tick_params(axis="y", labelleft=ax is axes[0])
        ax.locator_params(axis="x", nbins=4 if len(axes) < 6 else 3)


def ablations(found: pd.DataFrame, names: Sequence[str]) -> Figure:
    """Draw what each variant changes, one panel per metric.

    `found` is from `stlib.comparisons.differences`; a variant of two tables is drawn in the first.
    """
    once = found.drop_duplicates(["model", "size", "metric"])
    once = once.assign(group=once["group"].str.removeprefix("ASIGN ").str.removeprefix("MagNet "))
    lines = len(once) / once["metric"].nunique() + 1.5 * once["group"].nunique()
    figure, (axes,) = grid(1, len(names), DOUBLE_MM, 4.6 * lines + 24)
    for ax, name in zip(axes, names, strict=True):
        charts.difference_plot(once[once["metric"] == name], ax)
    _tidy(axes)
    handles = [
        Line2D(
            [], [], marker="o", color="black", lw=1.8, ms=4, label="p < 0.05, Holm: mean, 95 % over patients"
        ),
        Line2D([], [], marker="o", color=GREY, mfc="white", lw=1.8, ms=4, label="unclear"),
        Line2D([], [], marker="o", color=GREY, ls="none", ms=2, mew=0, label="a patient"),
    ]
    if once["seed_low"].notna().any():
        handles.append(Line2D([], [], color=BLUE, lw=0.9, label="95 % over seeds"))
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles))
    return figure


def dataset_profile(profile: pd.DataFrame, title: str) -> Figure:
    """Draw what a dataset holds, patient by patient: sections, spots, and patches of each level.

    Figure 6 of ASIGN, from `stlib.profile.profile`.
    """
    shown = ["sections", "spots", "region patches", "global patches"]
    figure, (axes,) = grid(1, len(shown), DOUBLE_MM, 4.2 * len(profile) + 20)
    places = np.arange(len(profile))
    for ax, name in zip(axes, shown, strict=True):
        bars = ax.barh(places, profile[name], color=BLUE, height=0.7)
        ax.bar_label(bars, fmt="{:,.0f}", padding=2)
        ax.set(yticks=places, yticklabels=profile.index, ylim=(len(profile) - 0.4, -0.6))
        ax.set(xlim=(0, 1.3 * profile[name].max()), title=f"{profile[name].sum():,} {name}")
        ax.tick_params(axis="y", length=0, labelleft=ax is axes[0])
        ax.tick_params(axis="x", bottom=False, labelbottom=False)
        ax.spines["bottom"].set_visible(False)
    figure.suptitle(f"{title}, by patient")
    return figure


def gene_list(
    panel: Panel, genes: Sequence[str], everywhere: Collection[str], showcase: Collection[str] = ()
) -> Figure:
    """Write the genes of a panel in columns, by their rank: figure 8 of ASIGN.

    Parameters
    ----------
    genes
        In its order, the best first; then those added by name.
    everywhere
        Those that are in the panel of every fold under ``strict``; the others are grey.
    showcase
        Those that the figures map: red.
    """
    columns = min(MOST, max(1, int(DOUBLE_MM // (1.42 * max(map(len, genes)) + 3))))
    rows = -(-len(genes) // columns)
    figure, ((ax,),) = grid(1, 1, DOUBLE_MM, 3.1 * (rows + 5) + 4)
    ax.set(xlim=(0, columns), ylim=(rows + 4.2, -1.2))
    ax.set_axis_off()
    for start in range(0, len(genes), rows):
        column = start // rows
        last = min(start + rows, len(genes))
        ax.text(column, -0.4, f"{start + 1}-{last}", color=GREY, va="center")
        for row, gene in enumerate(genes[start:last]):
            hue = RED if gene in showcase else "black" if gene in everywhere else GREY
            ax.text(column, row + 0.8, gene, va="center", color=hue)
    chosen = f"{min(panel.size, len(genes))} genes {RULES[panel.rule]} over all sections, the highest first"
    added = f"; then {len(genes) - panel.size} added by name" if len(genes) > panel.size else ""
    said = {"black": chosen + added}
    if absent := sum(gene not in everywhere for gene in genes):
        said[GREY] = f"{absent} that the strict panel of at least one fold lacks"
    if shown := [gene for gene in showcase if gene in genes]:
        said[RED] = f"mapped in figures: {', '.join(shown)}"
    for line, (hue, text) in enumerate(said.items()):
        ax.text(0, rows + 1.6 + line, text, va="center", color=hue, in_layout=False)
    return figure
