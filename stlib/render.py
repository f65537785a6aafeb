"""A table as people read it: markdown, LaTeX, HTML and CSV, from a `stlib.layout.Layout`.

Controls are set in italics and named so.
"""

from collections.abc import Callable
from html import escape

import pandas as pd

from stlib.layout import Layout, round_numbers

UNBROKEN = "\u00a0"  # a space that ends no line: a number stays beside its spread
SETTINGS = "Settings other than the papers', method by method"

STYLES = [
    {"selector": "th, td", "props": "padding: 2px 8px; text-align: right; white-space: nowrap"},
    {"selector": "th.row_heading", "props": "text-align: left; vertical-align: top; font-weight: normal"},
    {"selector": "th.col_heading", "props": "text-align: center"},
    {"selector": "td.control, td.ceiling", "props": "color: #666; font-style: italic"},
    {"selector": "td.best", "props": "font-weight: bold"},
    {"selector": "caption", "props": "caption-side: top; text-align: left"},
]


def _label(label: str, role: str) -> str:
    return label if role == "method" else f"{label} ({role})"


def markdown(layout: Layout) -> str:
    """Render a table as markdown."""
    lines = [layout.caption, ""]
    for block in layout.blocks:
        shown = [
            place
            for place in range(len(layout.heads))
            if any(cells[place].text for _, _, cells in block.lines)
        ]
        lines += [f"**{block.title}**", ""]
        titles = [title if part == "ours" else part for title, part in (layout.heads[p] for p in shown)]
        rows = [["", *titles], ["---", *["---:"] * len(shown)]]
        for label, role, cells in block.lines:
            name = _label(label, role) if role == "method" else f"*{_label(label, role)}*"
            texts = (f"**{cells[p].text}**" if cells[p].bold else cells[p].text for p in shown)
            rows.append([name, *(text.replace(" ", UNBROKEN) for text in texts)])
        lines += [f"| {' | '.join(row)} |" for row in rows] + [""]
    lines += [f"- {text}" for text in layout.remarks]
    if layout.settings:
        lines += ["", f"<details><summary>{SETTINGS}</summary>", ""]
        lines += [*(f"- {text}" for text in layout.settings), "", "</details>"]
    return "\n".join(lines) + "\n"


def latex(layout: Layout) -> str:
    """Render a table as LaTeX (needs booktabs)."""
    heads = layout.heads
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
        rf"\caption{{{_tex(layout.caption)}}}\label{{tab:{layout.name}}}",
    ]
    lines += [
        rf"\begin{{tabular}}{{l{'r' * len(heads)}}}",
        r"\toprule",
        " & ".join(["", *top]) + r" \\",
        rules,
    ]
    lines.append(" & ".join(["", *(part for _, part in heads)]) + r" \\")
    for block in layout.blocks:
        lines += [r"\midrule", rf"\multicolumn{{{len(heads) + 1}}}{{l}}{{{_tex(block.title)}}} \\"]
        for label, role, cells in block.lines:
            name = _tex(_label(label, role))
            name = name if role == "method" else rf"\textit{{{name}}}"
            values = [rf"\textbf{{{_tex(cell.text)}}}" if cell.bold else _tex(cell.text) for cell in cells]
            lines.append(" & ".join([name, *values]) + r" \\")
    lines += [r"\bottomrule", r"\end{tabular}", r"\par\smallskip\footnotesize\raggedright"]
    lines += [rf"{_tex(text)}\par" for text in (*layout.remarks, *layout.settings)]
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
    signs |= {"γ": r"$\gamma$", "λ": r"$\lambda$", "≈": r"$\approx$"}
    return "".join(signs.get(sign, sign) for sign in text)


def html(layout: Layout) -> str:
    """Render a table as HTML."""
    keys = [(block.title, _label(label, role)) for block in layout.blocks for label, role, _ in block.lines]
    rows = [(role, cells) for block in layout.blocks for _, role, cells in block.lines]
    wide = pd.DataFrame(
        [[cell.text for cell in cells] for _, cells in rows],
        pd.MultiIndex.from_tuples(keys),
        pd.MultiIndex.from_tuples(layout.heads),
    )
    classes = wide.copy()
    classes[:] = [["best" if cell.bold else role for cell in cells] for role, cells in rows]
    styler = (
        wide.style.set_uuid(layout.name)
        .set_caption(escape(layout.caption, quote=False))
        .set_table_styles(STYLES)
        .format(escape="html")
    )
    remarks, settings = (_paragraphs(texts) for texts in (layout.remarks, layout.settings))
    folded = f"<details><summary>{SETTINGS}</summary>\n{settings}</details>\n" if settings else ""
    return styler.set_td_classes(classes).to_html(cell_ids=False) + remarks + folded


def _paragraphs(texts: list[str]) -> str:
    return "".join(f"<p>{escape(text, quote=False)}</p>\n" for text in texts)


def csv(layout: Layout) -> str:
    """Render the rounded numbers, one line per row and metric; notes are comment lines at the head."""
    comments = "".join(f"# {note}\n" for note in layout.notes)
    return comments + layout.numbers.to_csv(index=False, lineterminator="\n")


def plain(numbers: pd.DataFrame, decimals: int) -> str:
    """Render numbers as CSV: p and q with three digits, all else rounded."""
    small = [name for name in numbers.columns if name.split("_")[0] in ("p", "q", "smallest")]
    text = {name: numbers[name].map("{:.3g}".format, na_action="ignore") for name in small}
    return round_numbers(numbers, decimals).assign(**text).to_csv(index=False, lineterminator="\n")


RENDERERS: dict[str, Callable[[Layout], str]] = {
    "md": markdown,
    "tex": latex,
    "html": html,
    "csv": csv,
}
