"""A table as people read it: markdown, LaTeX, HTML and CSV, from `stlib.scores.frame`.

One section per protocol and setting; ours, and where a paper reports the number, its value and the
difference. Controls are set in italics and named so; the best method of a section is bold; ‡ marks a method
that is no better than the best control.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from stlib import metrics
from stlib.tables import Table

SECTIONS = {
    "2d": "2d: an unseen patient, from slides alone",
    "3d": "3d: one section measured, its neighbours imputed",
}
STYLES = [
    {"selector": "th, td", "props": "padding: 2px 8px; text-align: right; white-space: nowrap"},
    {"selector": "th.row_heading", "props": "text-align: left; vertical-align: top; font-weight: normal"},
    {"selector": "th.col_heading", "props": "text-align: center"},
    {"selector": "td.control, td.ceiling", "props": "color: #666; font-style: italic"},
    {"selector": "td.best", "props": "font-weight: bold"},
    {"selector": "caption", "props": "caption-side: top; text-align: left"},
]


@dataclass(frozen=True)
class _Cell:
    text: str
    bold: bool = False


@dataclass(frozen=True)
class _Section:
    """The cells of one protocol and setting: `lines` are (label, role, cells)."""

    title: str
    lines: list[tuple[str, str, list[_Cell]]]


def _layout(table: Table, found: pd.DataFrame) -> tuple[list[tuple[str, str]], list[_Section]]:
    """Return the heads (metric, part) of the columns, and the sections."""
    columns = {}  # metric -> whether any row has a reported value
    for column in table.metrics:
        columns[column.metric] = found.loc[found["metric"] == column.metric, "reported"].notna().any()
    parts = {
        name: ["ours", "reported", "difference"] if reported else ["ours"]
        for name, reported in columns.items()
    }
    heads = [(_head(name), part) for name, shown in parts.items() for part in shown]
    sections = []
    for (protocol, setting), group in found.groupby(["protocol", "setting"], sort=False):
        lines = []
        for (label, role), row in group.groupby(["label", "role"], sort=False):
            line = row.set_index("metric")
            cells = [
                _cell(line.loc[name], part, table.decimals) for name, shown in parts.items() for part in shown
            ]
            lines.append((label, role, cells))
        sections.append(_Section(f"{SECTIONS[protocol]} ({setting})", lines))
    return heads, sections


def _head(name: str) -> str:
    metric = metrics.find(name)
    return f"{metric.label} {'↑' if metric.higher_is_better else '↓'}"


def _cell(value: pd.Series, part: str, decimals: int) -> _Cell:
    """Return one cell; a reported value that no paper gives is empty."""
    if part == "difference":
        return _Cell(
            ""
            if np.isnan(value["difference"])
            else f"{_rounded(value['difference'], decimals):+.{decimals}f}"
        )
    mean, sd = (value["mean"], value["sd"]) if part == "ours" else (value["reported"], value["reported_sd"])
    if np.isnan(mean):
        return _Cell("undefined" if part == "ours" else "")
    spread = "" if np.isnan(sd) else f" ± {sd:.{decimals}f}"
    worse = " ‡" if part == "ours" and value["beaten"] else ""
    return _Cell(
        f"{_rounded(mean, decimals):.{decimals}f}{spread}{worse}", part == "ours" and bool(value["best"])
    )


def _rounded(value: float, decimals: int) -> float:
    """Round, without a negative zero.

    Examples
    --------
    >>> f"{_rounded(-0.0004, 3):+.3f}"
    '+0.000'
    """
    return round(value, decimals) + 0.0


def what_a_constant_scores(table: Table, found: pd.DataFrame) -> str:
    """Say what the rows score that predict the same everywhere in a section: they look at no image."""
    sentences = []
    for (protocol, label), row in found[found["constant"]].groupby(["protocol", "label"], sort=False):
        row = row.set_index("metric")["mean"]
        values = [
            f"{metrics.find(name).label} "
            + (
                "undefined"
                if np.isnan(row[name])
                else f"{_rounded(row[name], table.decimals):.{table.decimals}f}"
            )
            for name in row.index
        ]
        sentences.append(f"{label} ({protocol}): {'; '.join(values)}.")
    if not sentences:
        return ""
    return (
        "What a constant scores. Some rows predict one profile for a whole section and look at no "
        "image; whatever a metric "
        "gives them is not the worth of a method. " + " ".join(sentences)
    )


def remarks(table: Table, found: pd.DataFrame, notes: Sequence[str] = ()) -> list[str]:
    """Return what stands under a table: the caller's notes, then what the numbers need to be read."""
    said = list(notes)
    for unit, group in found.groupby("unit", sort=False):
        n = sorted(group.loc[group["n"] > 0, "n"].unique())
        heads = "; ".join(dict.fromkeys(metrics.find(name).label for name in group["metric"]))
        for number in n:
            spread = (
                "± is the standard deviation between them, the CSV has the 95 % interval"
                if number > 1
                else "one has no spread, so none is given"
            )
            said.append(f"{heads}: over {number} {unit}{'s' if number > 1 else ''}; {spread}.")
    partly = found[(found["undefined"] > 0) & (found["undefined"] < 1)]
    for (label, name), row in partly.groupby(["label", "metric"], sort=False):
        share = ", ".join(
            f"{value:.1%} ({protocol})"
            for protocol, value in zip(row["protocol"], row["undefined"], strict=True)
        )
        said.append(
            f"{label}: {share} of the correlations of {metrics.find(name).label} are undefined, one "
            "side being constant."
        )
    if (found["mean"].isna()).any():
        said.append(
            "undefined: the prediction is constant within every section, so no correlation across "
            "its spots exists."
        )
    if found["beaten"].any():
        said.append("‡: no better than the best control of its section.")
    if found["reported"].notna().any():
        sources = dict.fromkeys(
            f"{row.reported.paper}, Table {row.reported.table}" for row in table.rows if row.reported
        )
        said.append(
            f"reported: {'; '.join(sources)}, on the paper's own panel, setting and encoder; "
            "difference = ours - reported."
        )
    return said


def _paragraphs(table: Table, found: pd.DataFrame, notes: Sequence[str]) -> list[str]:
    return [text for text in (what_a_constant_scores(table, found), *remarks(table, found, notes)) if text]


def _label(label: str, role: str) -> str:
    return label if role == "method" else f"{label} ({role})"


def markdown(table: Table, found: pd.DataFrame, notes: Sequence[str] = ()) -> str:
    """Render a table as markdown.

    Parameters
    ----------
    table
        The declaration.
    found
        Its numbers, from `stlib.scores.frame`.
    notes
        What the reader must know besides, one sentence each.
    """
    heads, sections = _layout(table, found)
    lines = [table.caption, ""]
    for section in sections:
        shown = [
            place for place in range(len(heads)) if any(cells[place].text for _, _, cells in section.lines)
        ]
        lines += [f"**{section.title}**", ""]
        titles = [heads[place][0] if heads[place][1] == "ours" else heads[place][1] for place in shown]
        rows = [["", *titles], ["---", *["---:"] * len(shown)]]
        for label, role, cells in section.lines:
            name = _label(label, role) if role == "method" else f"*{_label(label, role)}*"
            rows.append([name, *(f"**{cells[p].text}**" if cells[p].bold else cells[p].text for p in shown)])
        lines += [f"| {' | '.join(row)} |" for row in rows] + [""]
    lines += [f"- {text}" for text in _paragraphs(table, found, notes)]
    return "\n".join(lines) + "\n"


def latex(table: Table, found: pd.DataFrame, notes: Sequence[str] = ()) -> str:
    """Render a table as LaTeX (needs booktabs); the arguments are those of `markdown`."""
    heads, sections = _layout(table, found)
    groups = list(dict.fromkeys(metric for metric, _ in heads))
    spans = [[place for place, (metric, _) in enumerate(heads, 2) if metric == group] for group in groups]
    top = [
        rf"\multicolumn{{{len(span)}}}{{c}}{{{_tex(group)}}}"
        for group, span in zip(groups, spans, strict=True)
    ]
    rules = "".join(rf"\cmidrule(lr){{{span[0]}-{span[-1]}}}" for span in spans)
    lines = [
        r"\begin{table}",
        r"\centering\small",
        rf"\caption{{{_tex(table.caption)}}}\label{{tab:{table.name}}}",
    ]
    lines += [
        rf"\begin{{tabular}}{{l{'r' * len(heads)}}}",
        r"\toprule",
        " & ".join(["", *top]) + r" \\",
        rules,
    ]
    lines.append(" & ".join(["", *(part for _, part in heads)]) + r" \\")
    for section in sections:
        lines += [r"\midrule", rf"\multicolumn{{{len(heads) + 1}}}{{l}}{{{_tex(section.title)}}} \\"]
        for label, role, cells in section.lines:
            name = _tex(_label(label, role))
            name = name if role == "method" else rf"\textit{{{name}}}"
            values = [rf"\textbf{{{_tex(cell.text)}}}" if cell.bold else _tex(cell.text) for cell in cells]
            lines.append(" & ".join([name, *values]) + r" \\")
    lines += [r"\bottomrule", r"\end{tabular}", r"\par\smallskip\footnotesize\raggedright"]
    lines += [rf"{_tex(text)}\par" for text in _paragraphs(table, found, notes)]
    return "\n".join([*lines, r"\end{table}"]) + "\n"


def _tex(text: str) -> str:
    """Escape text for LaTeX."""
    signs = {
        "\\": r"\textbackslash{}",
        "{": r"\{",
        "}": r"\}",
        "~": r"\textasciitilde{}",
        "^": r"\textasciicircum{}",
    }
    signs |= {sign: rf"\{sign}" for sign in "&%$#_"}
    signs |= {"±": r"$\pm$", "‡": r"$\ddagger$", "↑": r"$\uparrow$", "↓": r"$\downarrow$"}
    return "".join(signs.get(sign, sign) for sign in text)


def html(table: Table, found: pd.DataFrame, notes: Sequence[str] = ()) -> str:
    """Render a table as HTML; the arguments are those of `markdown`."""
    heads, sections = _layout(table, found)
    keys = [(section.title, _label(label, role)) for section in sections for label, role, _ in section.lines]
    rows = [(role, cells) for section in sections for _, role, cells in section.lines]
    wide = pd.DataFrame(
        [[cell.text for cell in cells] for _, cells in rows],
        pd.MultiIndex.from_tuples(keys),
        pd.MultiIndex.from_tuples(heads),
    )
    classes = wide.copy()
    classes[:] = [["best" if cell.bold else role for cell in cells] for role, cells in rows]
    styler = (
        wide.style.set_uuid(table.name)
        .set_caption(_escape(table.caption))
        .set_table_styles(STYLES)
        .format(escape="html")
    )
    return styler.set_td_classes(classes).to_html(cell_ids=False) + "".join(
        f"<p>{_escape(paragraph)}</p>\n" for paragraph in _paragraphs(table, found, notes)
    )


def _escape(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def csv(table: Table, found: pd.DataFrame, notes: Sequence[str] = ()) -> str:
    """Render the numbers, rounded, one line per row and metric; notes are comment lines at the head."""
    numbers = found.select_dtypes("floating").columns
    rounded = found.assign(**{name: found[name].round(table.decimals) + 0.0 for name in numbers})
    comments = "".join(f"# {note}\n" for note in notes)
    return comments + rounded.to_csv(index=False, lineterminator="\n")


RENDERERS: dict[str, Callable[[Table, pd.DataFrame, Sequence[str]], str]] = {
    "md": markdown,
    "tex": latex,
    "html": html,
    "csv": csv,
}
