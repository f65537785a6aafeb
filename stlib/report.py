"""One page that holds all that is known of a dataset's results: what an author attaches to a paper.

``make report DATASET=toy`` writes ``reports/toy/report.html``, which needs no other file and no network, and
the tables as CSV and LaTeX beside it. It is put together from ``results/``, ``figures/`` and, where they
stand on this machine, the records of the runs; nothing is computed. Every row leads to the runs that gave its
numbers.
"""

import base64
import io
import json
import re
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape
from nbconvert.filters import markdown2html

from stlib import layout, paths
from stlib.fingerprint import file_hash
from stlib.layout import Layout
from stlib.params import files_of, load_params, sized
from stlib.render import SETTINGS
from stlib.results import Run
from stlib.tables import PLACE, load_costs, load_table, names, recorded, rows_for
from stlib.tables import Run as Key

MORE = {  # what lies beside a table -> how it is called
    "tests": "Paired tests, corrected for their number",
    "metrics": "Every metric, with intervals",
    "patients": "Patient by patient",
    "genes": "Gene by gene",
    "regions": "By region of the tissue",
}
PAGES = {"audit": "Constants, and flaws of released code", "ablations": "What each part buys"}
MAIN = "table1"  # comes first
MOST_LINES = 2000  # of what lies beside a table; the CSV holds all


class RunLine(NamedTuple):
    """A run as the page tells of it."""

    anchor: str
    name: str
    seed: int
    minutes: float
    train_minutes: float
    memory_mb: int
    device: str
    fingerprint: str
    parameters: str  # as JSON; empty where the record is not on this machine


@dataclass(frozen=True)
class Shown:
    """A table, the runs of its rows by (protocol, setting, size, label), and what lies beside it.

    `told` holds each run once; `made` is from `stlib.conditions.made`, empty where nothing was recorded.
    """

    name: str
    title: str
    layout: Layout
    runs: dict[tuple[str, ...], list[RunLine]]
    told: list[RunLine]
    more: dict[str, Markup]
    made: dict[str, Any]


def write(dataset: str, folder: Path) -> Path:
    """Write the page, and copies of the tables as CSV and LaTeX.

    What else lies in `folder` stays. Return the path of the page.

    Raises
    ------
    FileNotFoundError
        If neither a table nor the audit of the dataset stands.
    """
    params = load_params(sized(dataset)[0])
    standing = [name for name in sorted(names(), key=lambda name: name != MAIN) if _stands(dataset, name)]
    tables = [show(name, dataset) for name in standing]
    pages = {
        title: Markup(markdown2html(path.read_text()))
        for stem, title in PAGES.items()
        if (path := paths.RESULTS / dataset / f"{stem}.md").exists()
    }
    if not tables and not pages:
        raise FileNotFoundError(
            f"a report needs a table or an audit, and none stands in results/{dataset}; make one first, e.g. "
            f"make reproduce-table1 DATASET={dataset}"
        )
    page = (
        _environment()
        .get_template("report.html.j2")
        .render(
            title=f"{params.title}: results",
            params=params,
            tables=tables,
            pages=pages,
            costs=[_costs(name, dataset) for name in names("costs") if _stands(dataset, name)],
            figures=_images(sorted((paths.FIGURES / dataset).glob("*.png"))),
            runs=list(dict.fromkeys(line for table in tables for line in table.told)),
            folded=SETTINGS,
            described={path.name: file_hash(path) for path in files_of(dataset)},
        )
    )
    for path in sorted((paths.RESULTS / dataset).glob("*")):
        if path.suffix in (".csv", ".tex"):
            folder.mkdir(parents=True, exist_ok=True)
            with paths.replacing(folder / path.name) as temporary:
                shutil.copyfile(path, temporary)
    return paths.write_text(folder / "report.html", page)


def show(name: str, dataset: str) -> Shown:
    """Read a table that stands: its numbers, its remarks, its runs, and what lies beside it."""
    table, stem = load_table(name), paths.RESULTS / dataset / name
    laid = layout.scores(table, numbers_of(stem.with_suffix(".csv")))
    said, _, folded = stem.with_suffix(".md").read_text().partition("<details>")
    remarks, settings = (re.findall("^- (.*)", text, re.MULTILINE) for text in (said, folded))
    told = dict(_told(stem.with_suffix(".runs.csv")))
    runs = {
        (row.protocol, row.setting, row.size, row.label): [
            told[run] for run in recorded(table, row, dataset) if run in told
        ]
        for row in rows_for(table, dataset)
    }
    more = {
        title: _plain(path, runs)
        for kind, title in MORE.items()
        if (path := stem.with_suffix(f".{kind}.csv")).exists()
    }
    kept = stem.with_suffix(".made.json")
    made = json.loads(kept.read_text()) if kept.exists() else {}
    return Shown(
        name,
        table.title,
        replace(laid, remarks=remarks, settings=settings),
        runs,
        list(told.values()),
        more,
        made,
    )


def _stands(dataset: str, name: str) -> bool:
    return (paths.RESULTS / dataset / f"{name}.csv").exists()


def _costs(name: str, dataset: str) -> tuple[str, Markup]:
    """Return title and rendering of a table of costs, which has no runs behind it."""
    return load_costs(name).title, Markup((paths.RESULTS / dataset / f"{name}.html").read_text())


def numbers_of(path: Path) -> pd.DataFrame:
    """Read the CSV of a table, as `stlib.layout.scores` takes it; its notes stand before the numbers."""
    lines = path.read_text().splitlines(keepends=True)
    start = next(place for place, line in enumerate(lines) if not line.startswith("#"))
    words = {name: str for name in (*PLACE, "label", "model", "role", "metric", "unit")}
    return pd.read_csv(io.StringIO("".join(lines[start:])), dtype=words).fillna({"size": ""})


def _told(path: Path) -> Iterator[tuple[Key, RunLine]]:
    """Yield the runs of a table: which, and its line."""
    words = {name: str for name in ("protocol", "dataset", "model", "setting", "to", "device", "fingerprint")}
    for row in pd.read_csv(path, dtype=words).fillna({"to": "", "fingerprint": ""}).itertuples():
        key = Key(row.protocol, row.dataset, row.model, row.setting, row.seed, row.to)
        name = key.folder.relative_to(paths.OUT).as_posix()
        record = Run(*key).written()
        own = record.get("fingerprint") == row.fingerprint  # else another run than the table is of
        yield (
            key,
            RunLine(
                re.sub("[^A-Za-z0-9]+", "-", name),
                name,
                row.seed,
                row.seconds / 60,
                row.train_seconds / 60,
                row.peak_memory_mb,
                row.device,
                row.fingerprint,
                json.dumps(record["parameters"], indent=1) if own else "",
            ),
        )


def _plain(path: Path, runs: dict[tuple[str, ...], list[RunLine]]) -> Markup:
    """Return a CSV as an HTML table, its first lines where it is long; a row's label leads to its run."""
    numbers = pd.read_csv(path, dtype=str, keep_default_na=False)
    head = numbers.head(MOST_LINES)
    cells = head.map(escape)
    if {*PLACE, "label"} <= {*head.columns}:
        keys = head[[*PLACE, "label"]].itertuples(index=False)
        cells["label"] = [_leads(key.label, runs.get(tuple(key))) for key in keys]
    with pd.option_context("display.max_colwidth", None):
        shown = Markup(cells.to_html(index=False, border=0, escape=False))
    rest = len(numbers) - MOST_LINES
    return shown + (Markup("<p>{:,} more lines in {}.</p>").format(rest, path.name) if rest > 0 else "")


def _leads(label: str, runs: list[RunLine] | None) -> Markup:
    """Return a label as a link to its first run; alone where it has none, as a ceiling."""
    return Markup('<a href="#{}">{}</a>').format(runs[0].anchor, label) if runs else escape(label)


def _images(files: list[Path]) -> dict[str, str]:
    """Return the figures in base64, by name."""
    return {path.stem: base64.b64encode(path.read_bytes()).decode() for path in files}


def _environment() -> Environment:
    folder = FileSystemLoader(Path(__file__).parent)
    return Environment(loader=folder, autoescape=True, undefined=StrictUndefined, trim_blocks=True)


if __name__ == "__main__":  # python -m stlib.report toy
    written = write(sys.argv[1], paths.OUT / "reports" / sys.argv[1])
    print(written.relative_to(paths.OUT))
