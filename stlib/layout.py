"""What stands where in a table of scores: titles, cells, and the remarks under it; `stlib.render` writes it.

One section per protocol, size and setting; ours, and where a paper reports the number, its value and the
difference. The best method of a section is bold; ‡ marks a method that is no better than the best control.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from stlib import metrics
from stlib.tables import PLACE, Declared, Table

SECTIONS = {
    "2d": "2d: an unseen patient, from slides alone",
    "3d": "3d: one section measured, its neighbours imputed",
    "hd": "hd: bins and pseudo-spots of an unseen slide",
    "transfer": "transfer: locations of a size or a dataset that was not trained on",
}


LEADING = ("pcc_per_gene", "mse")  # whose interval and share of the reachable have columns; the CSV has all
INTERVAL, SHARE = "95 %", "of reachable"


@dataclass(frozen=True)
class Cell:
    """A number as it is printed."""

    text: str
    bold: bool = False


@dataclass(frozen=True)
class Block:
    """Rows under one title: `lines` are (label, role, cells); `place` is protocol, setting and size."""

    title: str
    lines: list[tuple[str, str, list[Cell]]]
    place: tuple[str, ...] = ()


@dataclass(frozen=True)
class Layout:
    """A table, ready to be written."""

    name: str  # as declared
    caption: str  # as declared
    heads: list[tuple[str, str]]  # title, and part: ours, 95 %, of reachable, reported or difference
    blocks: list[Block]  # the rows, block by block
    remarks: list[str]  # what stands under it
    notes: list[str]  # what also stands at the head of the CSV
    numbers: pd.DataFrame  # what the CSV holds, rounded
    settings: list[str] = field(default_factory=list)  # where methods depart from papers; they fold away


def scores(
    table: Table,
    found: pd.DataFrame,
    notes: Sequence[str] = (),
    shown: Sequence[str] = (),
    settings: Sequence[str] = (),
) -> Layout:
    """Lay out a table of scores.

    Parameters
    ----------
    found
        Its numbers, from `stlib.scores.frame`.
    notes
        What the reader must know besides, one sentence each; those of the declaration come first.
    shown
        What tests and genes show, one sentence each, after the remarks.
    settings
        What differs from the papers' settings, one sentence for each method.
    """
    parts = {column.metric: _parts(column.metric, found) for column in table.metrics}
    heads = [(_head(name), part) for name, shown in parts.items() for part in shown]
    blocks = []
    for (protocol, setting, size), group in found.groupby(PLACE, sort=False):
        lines = []
        for (label, role), row in group.groupby(["label", "role"], sort=False):
            line = row.set_index("metric")
            cells = [
                _cell(line.loc[name], part, table.decimals) for name, shown in parts.items() for part in shown
            ]
            lines.append((label, role, cells))
        title = f"{SECTIONS[protocol]}{size and f', {size}'} ({setting})"
        blocks.append(Block(title, lines, (protocol, setting, size)))
    said = [*table.notes, *notes]
    remarked = (what_a_constant_scores(table, found), *said, *remarks(table, found), *shown)
    under = [text for text in remarked if text]
    numbers = round_numbers(found, table.decimals)
    return Layout(table.name, table.caption, heads, blocks, under, [*said, *settings], numbers, [*settings])


def _parts(name: str, found: pd.DataFrame) -> list[str]:
    """Return the columns of one metric: those that have a number in any row."""
    own = found[found["metric"] == name]
    leading = [(INTERVAL, "low"), (SHARE, "share")] if name in LEADING else []
    more = [*leading, ("reported", "reported"), ("difference", "reported")]
    return ["ours", *(part for part, needed in more if own[needed].notna().any())]


def _head(name: str) -> str:
    metric = metrics.find(name)
    return f"{metric.label} {'↑' if metric.higher_is_better else '↓'}"


def _cell(value: pd.Series, part: str, decimals: int) -> Cell:
    """Return one cell; a reported value that no paper gives is empty."""
    if part == "difference":
        return Cell(signed(value["difference"], decimals))
    if part == INTERVAL:
        ends = " to ".join(fixed(value[end], decimals) for end in ("low", "high"))
        return Cell("" if np.isnan(value["low"]) else ends)
    if part == SHARE:
        return Cell("" if np.isnan(value["share"]) else f"{round(value['share'], 2) + 0.0:.0%}")
    mean, sd = (value["mean"], value["sd"]) if part == "ours" else (value["reported"], value["reported_sd"])
    if np.isnan(mean):
        return Cell("undefined" if part == "ours" else "")
    spread = "" if np.isnan(sd) else f" ± {sd:.{decimals}f}"
    if part == "reported":
        return Cell(f"{fixed(mean, decimals)}{spread}")
    between = "" if np.isnan(value["seed_sd"]) else f" ({value['seed_sd']:.{decimals}f})"
    worse = " ‡" if value["beaten"] else ""
    return Cell(f"{fixed(mean, decimals)}{spread}{between}{worse}", bool(value["best"]))


def fixed(value: float, decimals: int) -> str:
    """Print a number without a negative zero.

    Examples
    --------
    >>> fixed(-0.0004, 3)
    '0.000'
    """
    return f"{round(value, decimals) + 0.0:.{decimals}f}"


def signed(value: float, decimals: int) -> str:
    """Print a difference with its sign; nothing for NaN.

    Examples
    --------
    >>> signed(-0.0004, 3), signed(0.25, 1), signed(float("nan"), 1)
    ('+0.000', '+0.2', '')
    """
    return "" if np.isnan(value) else f"{round(value, decimals) + 0.0:+.{decimals}f}"


def round_numbers(found: pd.DataFrame, decimals: int) -> pd.DataFrame:
    """Round what is not whole, without negative zeros."""
    numbers = found.select_dtypes("floating").columns
    return found.assign(**{name: found[name].round(decimals) + 0.0 for name in numbers})


def what_a_constant_scores(table: Table, found: pd.DataFrame) -> str:
    """Say what the rows score that predict the same everywhere in a section: they look at no image."""
    sentences = []
    for (place, label), row in found[found["constant"]].groupby([_places(found), "label"], sort=False):
        row = row.set_index("metric")["mean"]
        values = [
            f"{metrics.find(name).label} "
            + ("undefined" if np.isnan(row[name]) else fixed(row[name], table.decimals))
            for name in row.index
        ]
        sentences.append(f"{label} ({place}): {'; '.join(values)}.")
    if not sentences:
        return ""
    return (
        "What a constant scores. Some rows predict one profile for a whole section and look at no "
        "image; whatever a metric "
        "gives them is not the worth of a method. " + " ".join(sentences)
    )


def _places(found: pd.DataFrame) -> pd.Series:
    """Name the section that each number stands in: protocol, size, and setting where the table has two."""
    words = ["protocol", "size"] if found["setting"].nunique() == 1 else ["protocol", "size", "setting"]
    return found[words].agg(lambda row: ", ".join(filter(None, row)), axis=1)


def remarks(table: Table, found: pd.DataFrame) -> list[str]:
    """Return what the numbers need to be read."""
    said, places = [], _places(found)
    for (place, unit), group in found.groupby([places, "unit"], sort=False):
        where = f" ({place})" if places.nunique() > 1 else ""
        n = sorted(group.loc[group["n"] > 0, "n"].unique())
        heads = "; ".join(dict.fromkeys(metrics.find(name).label for name in group["metric"]))
        for number in n:
            spread = (
                "± is the standard deviation between them, the 95 % interval Student's (the CSV has all)"
                if number > 1
                else "one has no spread; the 95 % interval is over pieces of its tissue, and says nothing of "
                "others"
            )
            said.append(f"{heads}{where}: over {number} {unit}{'s' if number > 1 else ''}; {spread}.")
    if found["seed_sd"].notna().any():
        said.append(
            f"What is trained was trained {found['seeds'].max()} times; a patient's score is the mean over "
            "them, and the standard deviation of the table's number between them stands in brackets."
        )
    elif (found["role"] == "method").any():
        said.append("Each method was trained once: what another seed would give is in no number here.")
    partly = found[(found["undefined"] > 0) & (found["undefined"] < 1)]
    whose: dict[tuple[str, str], list[str]] = {}  # (metric, share) -> labels of rows
    for (label, name), row in partly.groupby(["label", "metric"], sort=False):
        share = ", ".join(
            f"{value:.1%} ({place})" for place, value in zip(places[row.index], row["undefined"], strict=True)
        )
        whose.setdefault((name, share), []).append(label)
    said += [
        f"{share} of the correlations of {metrics.find(name).label} are undefined, one side being constant: "
        f"{', '.join(labels)}."
        for (name, share), labels in whose.items()
    ]
    if (found["mean"].isna()).any():
        said.append(
            "undefined: the prediction is constant within every section, so no correlation across "
            "its spots exists."
        )
    if found["share"].notna().any():
        said.append(
            f"{SHARE}: the share of the way from the best constant of the section (0%; a correlation that a "
            "constant does not have is 0) to the ceiling of the counts (100%), an estimate from below of "
            "what the expected label given the true rate would score: what no other gene shares is noise to "
            "it, so that what knows a single gene's own way may pass it (on made data the oracle does: "
            "`results/ceiling.md`). Under it stands the estimate from above, by splitting counts: what "
            "sequencing adds to counting is no noise to that."
        )
    if found["beaten"].any():
        said.append("‡: no better than the best control of its section.")
    if found["reported"].notna().any():
        said.append(
            f"reported: {sources(table)}, on the paper's own panel, setting and encoder; "
            "difference = ours - reported."
        )
    return said


def sources(table: Declared) -> str:
    """Name the published tables that a table's rows cite."""
    cited = (f"{row.reported.paper}, Table {row.reported.table}" for row in table.rows if row.reported)
    return "; ".join(dict.fromkeys(cited))
