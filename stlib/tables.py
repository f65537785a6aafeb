"""A table is declared once, in `tables/<name>.yaml`; runs, Make targets and numbers follow.

``python -m stlib.tables`` prints the targets for the Makefile, before anything is made: no heavy library is
imported here. Numbers are computed by `stlib.scores`; how a table looks is `stlib.render`.
"""

from pathlib import Path
from typing import Literal, NamedTuple

import yaml
from pydantic import Field

from stlib import paths
from stlib.params import Protocol, Record, Setting, load_params, nearest, parse

SHARED = "controls"  # the run that all models without training share


class Reported(Record):
    """A row of a published table, in the paper's spelling; see `tables/reported.csv`."""

    paper: str
    table: str
    row: str


class Row(Record):
    """One method under one protocol and setting."""

    label: str
    model: str  # a file of stlib/models/, with @variant if wanted
    protocol: Protocol
    setting: Setting = "strict"
    role: Literal["method", "control", "ceiling"] = "method"  # a ceiling knows the truth
    run: str = ""  # the run it shares; empty: its own, or for controls and ceilings the one they share
    datasets: list[str] = []  # those the row exists for; empty: all
    absent: dict[str, str] = {}  # dataset -> why the row cannot be computed there; said under the table
    reported: Reported | None = None


class Column(Record):
    """One of our metrics, and the name under which the papers report it."""

    metric: str
    reported: str = ""  # empty: not reported


class Table(Record):
    """All that is declared about one table."""

    name: str
    title: str  # one line; what `make help` says
    caption: str
    decimals: int = Field(ge=0)
    seeds: list[int] = Field(min_length=1)  # a patient's score is the mean over them
    metrics: list[Column] = Field(min_length=1)
    reported_dataset: dict[str, str] = {}  # ours -> the papers' name
    rows: list[Row] = Field(min_length=1)


class Run(NamedTuple):
    """Which run; the folder is that of `stlib.results.Run`."""

    protocol: str
    dataset: str
    model: str
    setting: str
    seed: int

    @property
    def folder(self) -> Path:
        """Where the run is kept."""
        return paths.RUNS / self.protocol / self.dataset / self.model / f"{self.setting}-s{self.seed}"


def names() -> list[str]:
    """Return all tables there are."""
    return sorted(path.stem for path in paths.TABLES.glob("*.yaml"))


def load_table(name: str) -> Table:
    """Read `tables/<name>.yaml`.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If a key is unknown, missing or of another type, or two rows could not be told apart.
    """
    path = paths.TABLES / f"{name}.yaml"
    if not path.exists():
        raise FileNotFoundError(
            f"tables/{name}.yaml does not exist; a table is a file in tables/ (nearest: "
            f"{nearest(name, names())})"
        )
    try:
        content = yaml.safe_load(path.read_text())
    except yaml.YAMLError as error:
        raise ValueError(f"tables/{path.name}: not readable as YAML: {error}") from error
    table = parse(
        Table, content | {"name": name} if isinstance(content, dict) else content, f"tables/{path.name}"
    )
    shown = [column.metric for column in table.metrics]
    for metric in {name for name in shown if shown.count(name) > 1}:
        raise ValueError(
            f"tables/{path.name}: a metric is one column, found '{metric}' {shown.count(metric)} "
            "times; remove one"
        )
    datasets = [path.stem for path in paths.PARAMS.glob("*.yaml")]
    for dataset in {name for row in table.rows for name in (*row.datasets, *row.absent)} - set(datasets):
        raise ValueError(
            f"tables/{path.name}: a row names dataset '{dataset}', which is no file in params/ "
            f"(nearest: {nearest(dataset, datasets)})"
        )
    keys = [(row.label, row.protocol, row.setting) for row in table.rows]
    for label, protocol, setting in {key for key in keys if keys.count(key) > 1}:
        raise ValueError(
            f"tables/{path.name}: rows of one protocol and setting need different labels, found "
            f"'{label}' twice ({protocol}, {setting})"
        )
    return table


def rows_for(table: Table, dataset: str) -> list[Row]:
    """Return the rows for a dataset: of a protocol it declares folds for, not absent or of others alone."""
    protocols = load_params(dataset).folds
    return [
        row
        for row in table.rows
        if row.protocol in protocols
        and (not row.datasets or dataset in row.datasets)
        and dataset not in row.absent
    ]


def absences(table: Table, dataset: str) -> list[str]:
    """Say which rows a dataset does not allow, and why."""
    return [
        f"{row.label}, {row.protocol}, is not shown: {row.absent[dataset]}."
        for row in table.rows
        if dataset in row.absent
    ]


def runs_of(table: Table, row: Row, dataset: str) -> list[Run]:
    """Return the runs whose predictions make a row, one per seed."""
    return [Run(row.protocol, dataset, row.model, row.setting, seed) for seed in table.seeds]


def runs_needed(table: Table, dataset: str) -> list[Run]:
    """Return the runs to make, each once; models that share a run are named by it (``controls``)."""
    needed = []
    for row in rows_for(table, dataset):
        shared = row.run or (SHARED if row.role != "method" else row.model)
        needed += [run._replace(model=shared) for run in runs_of(table, row, dataset)]
    return list(dict.fromkeys(needed))


def fragment() -> str:
    """Return the part of the Makefile that follows from `tables/` and `params/`."""
    datasets = sorted(path.stem for path in paths.PARAMS.glob("*.yaml"))
    lines = ["# written by `python -m stlib.tables`", f"TABLES := {' '.join(names())}"]
    for name in names():
        table = load_table(name)
        lines += [
            f".PHONY: reproduce-{name}",
            f"reproduce-{name}: runs/tables/$(DATASET)/{name}/strict-s0/run.json  ## {table.title}",
            f"\t@cat results/$(DATASET)/{name}.md",
        ]
        for dataset in datasets:
            targets = (run.folder.relative_to(paths.OUT) / "run.json" for run in runs_needed(table, dataset))
            lines += [
                f"RUNS_{name}_{dataset} := {' '.join(map(str, targets))}",
                f"runs/tables/{dataset}/{name}/strict-s0/run.json: tables/{name}.yaml tables/reported.csv",
            ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    print(fragment(), end="")
