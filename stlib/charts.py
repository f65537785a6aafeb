"""Charts of numbers, drawn on given axes: a table as dots, patients as boxes, ablations as differences.

One line per row of a table, the first on top, under the name of its protocol and setting. A method has its
own colour, see `stlib.plots`; a control is grey and hollow.
"""

from collections.abc import Iterator
from textwrap import fill

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from stlib import metrics
from stlib.plots import GREY, colour
from stlib.tables import PLACE

WIDE = 20  # letters of the name of a metric in one line


def dot_plot(found: pd.DataFrame, ax: Axes) -> Axes:
    """Draw one metric of a table: a dot per row with its 95 % interval, the paper's number as a cross.

    A control is a hollow grey circle, a ceiling a hollow grey diamond. A dashed line stands at the best
    control of each section: what lies on its worse side is not worth its cost. A row without a value says
    "undefined". The axis is as long as dots and crosses need, and a quarter of that more on each side: an
    interval that goes on beyond (over two patients most do) ends there in an arrowhead. `found` holds lines
    of `stlib.scores.frame`, of one metric; the artists are labelled, for ``ax.legend()``.

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
    span = _span(found)
    for places, section in _lines(found, ax):
        for place, row in zip(places, section.to_dict("records"), strict=True):
            _dot(row, place, span, ax)
        controls = section.loc[section["role"] == "control", "mean"].dropna()
        if len(controls):
            best = controls.max() if metric.higher_is_better else controls.min()
            look = {"color": GREY, "lw": 0.8, "ls": (0, (3, 2)), "zorder": 1}
            ax.plot([best, best], [places[0] - 0.5, places[-1] + 0.5], **look, label="best control")
    return _named(ax, names[0])


def _span(found: pd.DataFrame) -> tuple[float, float]:
    """Where intervals are drawn: around all dots and crosses, by a quarter of what these take."""
    drawn = found[["mean", "reported"]].stack()
    low, high = drawn.min(), drawn.max()
    return low - (high - low) / 4, high + (high - low) / 4


def _lines(found: pd.DataFrame, ax: Axes) -> Iterator[tuple[np.ndarray, pd.DataFrame]]:
    """Yield the heights and rows of each protocol, size and setting; then label them."""
    ticks, labels, bold, y = [], [], [], 0
    for (protocol, setting, size), section in found.groupby(PLACE, sort=False):
        places = np.arange(y + 1, y + 1 + len(section))
        yield places, section
        ticks += [y, *places]
        labels += [", ".join(filter(None, (protocol, size, setting))), *section["label"]]
        bold += ["bold", *["normal"] * len(section)]
        y = places[-1] + 1.5
    _label(ax, ticks, labels, bold)


def _label(ax: Axes, ticks: list[float], labels: list[str], bold: list[str]) -> None:
    """Write a label at each height, the first on top."""
    ax.set_yticks(ticks, labels)
    for tick, weight in zip(ax.yaxis.get_major_ticks(), bold, strict=True):
        tick.label1.set_fontweight(weight)
    ax.set_ylim(ticks[-1] + 1, -0.7)
    ax.tick_params(axis="y", length=0)


def _named(ax: Axes, name: str) -> Axes:
    """Write the name of a metric under the axis, and which way is better."""
    metric = metrics.find(name)
    # several panels stand side by side
    label = "\n".join(fill(line, WIDE) for line in metric.label.replace(", ", ",\n").splitlines())
    ax.set_xlabel(f"{label}\n({'higher' if metric.higher_is_better else 'lower'} is better)")
    ax.grid(axis="x")
    return ax


def _dot(row: dict, y: float, span: tuple[float, float], ax: Axes) -> None:
    """Draw the value, the interval within the span, and the reported value of one row."""
    hue = colour(row["model"]) if row["role"] == "method" else GREY
    if np.isnan(row["mean"]):
        _undefined(y, ax)
    else:
        low, high = np.clip([row["low"], row["high"]], *span)
        ax.plot([low, high], [y, y], color=hue, lw=1.2, solid_capstyle="butt", zorder=2)
        for end, told, arrow in ((low, row["low"], "<"), (high, row["high"], ">")):
            if end != told and not np.isnan(told):  # nan: a ceiling of one patient has no interval
                ax.plot(end, y, arrow, color=hue, ms=4, mew=0, zorder=2)
        marker, points = ("D", 4) if row["role"] == "ceiling" else ("o", 5)
        look = {"color": hue, "mfc": hue if row["role"] == "method" else "white", "mew": 1, "ms": points}
        ax.plot(row["mean"], y, marker, **look, zorder=3, label=row["role"])
    if not np.isnan(row["reported"]):
        ax.plot(row["reported"], y, "x", color="black", ms=4, mew=0.9, zorder=4, label="reported")


def _undefined(y: float, ax: Axes) -> None:
    """Say that a row has no value; the line of the best control may pass behind."""
    look = {"color": GREY, "style": "italic", "va": "center_baseline", "transform": ax.get_yaxis_transform()}
    ax.text(0.05, y, "undefined", **look, bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.5})


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


def box_plot(patients: pd.DataFrame, ax: Axes) -> Axes:
    """Draw one metric of every patient: a dot each, with the quartiles as a box; a star for p < 0.05.

    `patients` holds lines of `stlib.scores.by_patient`, of one metric, with `p` of each row
    (`stlib.comparisons.tests`).
    """
    keys = [*PLACE, "label"]
    rows = patients.drop_duplicates(keys)
    values = patients.groupby(keys, sort=False)["value"]
    for places, section in _lines(rows, ax):
        for place, row in zip(places, section.to_dict("records"), strict=True):
            own = values.get_group(tuple(row[key] for key in keys)).dropna()
            hue = colour(row["model"]) if row["role"] == "method" else GREY
            _box(own.to_numpy(), place, hue, row["role"] == "method", ax)
            if row["p"] < 0.05:
                ax.text(
                    1.01, place, "*", fontsize=9, va="center_baseline", transform=ax.get_yaxis_transform()
                )
    return _named(ax, patients["metric"].iloc[0])


def _box(values: np.ndarray, y: float, hue: str, filled: bool, ax: Axes) -> None:
    """Draw the quartiles and every value of one row; of nothing, say so."""
    if not len(values):
        _undefined(y, ax)
        return
    thin = {"color": hue, "linewidth": 0.8}
    if len(values) > 1:
        ax.boxplot(
            values, orientation="horizontal", positions=[y], widths=0.62, manage_ticks=False,
            showfliers=False, showcaps=False, whis=(0, 100),  # every patient is drawn as a dot
            boxprops=thin, whiskerprops=thin, medianprops=thin | {"linewidth": 1.6},
        )  # fmt: skip
    look = {"color": hue, "ms": 2.8, "mew": 0.6, "mfc": hue if filled else "white"}
    ax.plot(values, np.full(len(values), y), "o", **look, zorder=3)


def difference_plot(found: pd.DataFrame, ax: Axes) -> Axes:
    """Draw what each variant changes in one metric: a dot per patient, the mean with its intervals.

    The thick line is the 95 % interval over patients, the thin one below it that over seeds. `found` holds
    lines of `stlib.comparisons.differences`, of one metric, in the order to draw; `group` is printed in bold
    above its rows, `patients` holds the differences of the patients.
    """
    ticks, labels, bold, y = [], [], [], 0.0
    for group, section in found.groupby("group", sort=False):
        ticks, labels, bold = [*ticks, y], [*labels, group], [*bold, "bold"]
        for row in section.to_dict("records"):
            y += 1
            hue = "black" if row["verdict"] in ("worse", "better") else GREY
            ax.plot(row["patients"], np.full(len(row["patients"]), y - 0.22), "o", ms=2, color=GREY, mew=0)
            ax.plot([row["low"], row["high"]], [y, y], color=hue, lw=1.8, solid_capstyle="butt")
            ax.plot([row["seed_low"], row["seed_high"]], [y + 0.25, y + 0.25], color="#0072B2", lw=0.9)
            ax.plot(row["mean"], y, "o", color=hue, ms=4, mfc=hue if hue == "black" else "white", zorder=3)
            ticks, labels, bold = [*ticks, y], [*labels, row["label"]], [*bold, "normal"]
        y += 1.5
    ax.axvline(0, color="black", lw=0.8, zorder=1)
    _label(ax, ticks, labels, bold)
    ax.grid(axis="x")
    metric = metrics.find(found["metric"].iloc[0])
    worse = "left" if metric.higher_is_better else "right"
    ax.set_xlabel(f"{metric.label}: variant - what it changes\n(worse to the {worse})")
    return ax
