"""A table is declared once, in `tables/<name>.yaml`; runs, Make targets and numbers follow.

``python -m stlib.tables`` prints the targets for the Makefile, before anything is made: no heavy library is
imported here. A table of scores is computed by `stlib.scores` from the predictions of its runs, a table of
costs (``kind: costs``) is measured by `stlib.cost`. What stands where is `stlib.layout`, how it looks
`stlib.render`.
"""

import csv
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal, NamedTuple

from pydantic import Field

from stlib import paths
from stlib.params import Params, Protocol, Setting, load_params, sized
from stlib.records import Record, nearest, parse, read_yaml

PLACE = ["protocol", "setting", "size"]  # what rows that stand together have in common
SHARED = "controls"  # the run that all models without training share

KINDS = ("scores", "costs")
COSTS = {  # what is measured of a step -> its name in the table
    "parameters_m": "parameters, M",
    "forward_gflop": "GFLOP, forward",
    "step_gflop": "GFLOP, step",
    "peak_gb": "memory, GB",
    "step_s": "s, step",
    "epoch_s": "s, epoch",
}
# read together by 07_ablations, as far as a dataset has their rows
ABLATIONS = ("asign_table2", "asign_table3", "asign_table4", "magnet_table2", "magnet_table3")


class Reported(Record):
    """A row of a published table, in the paper's spelling; see `tables/reported.csv`."""

    paper: str
    table: str
    row: str


class Row(Record):
    """One method under one protocol and setting."""

    label: str
    model: str  # a file of stlib/models/, with @variant if wanted
    protocol: Literal[Protocol, "transfer"]
    train: dict[str, str] = {}  # of a transfer: dataset -> what is trained on instead, e.g. toy_hd@8um+16um
    setting: Setting = "strict"
    role: Literal["method", "control", "ceiling"] = "method"  # a ceiling knows the truth
    ours: bool = False  # each other method of its section is held against it
    against: str = ""  # what a variant changes, and is held against; empty: its model without a variant
    run: str = ""  # the run it shares; empty: its own, or for controls and ceilings the one they share
    datasets: list[str] = []  # those the row exists for; empty: all
    absent: dict[str, str] = {}  # dataset -> why the row cannot be computed there; said under the table
    size: str = ""  # of the locations, where a dataset has sizes; empty: each that the table names
    reported: Reported | None = None


class Column(Record):
    """One of our metrics, and the name under which the papers report it."""

    metric: str
    reported: str = ""  # empty: not reported


class Declared(Record):
    """What every table says."""

    name: str
    title: str  # one line; what `make help` says
    caption: str
    decimals: int = Field(ge=0)
    reported_dataset: dict[str, str] = {}  # ours -> the papers' name
    metrics: list[Column] = Field(min_length=1)
    notes: list[str] = []  # what a reader of the reported numbers must know; said under the table


class Table(Declared):
    """All that is declared about a table of scores."""

    kind: Literal["scores"] = "scores"
    seeds: list[int] = Field(min_length=1)  # a patient's score is the mean over them
    sizes: list[str] = []  # of a dataset that has sizes: those that the rows stand for, group by group
    rows: list[Row] = Field(min_length=1)


class CostRow(Record):
    """One method whose training step is measured, at one size of patch."""

    label: str
    model: str  # a file of stlib/models/, with @variant if wanted; its own settings, not those of a dataset
    protocol: Protocol
    patch_px: int = Field(default=0, ge=0)  # side of a spot's patch; 0: it takes none
    absent: dict[str, str] = {}  # dataset -> why it cannot be measured there
    reported: Reported | None = None


class Costs(Declared):
    """All that is declared about a table of costs."""

    kind: Literal["costs"]
    batch: int = Field(gt=0)  # spots in a step
    rows: list[CostRow] = Field(min_length=1)


class Run(NamedTuple):
    """Which run of a model; `stlib.results.Run` is the run itself."""

    protocol: str
    dataset: str
    model: str
    setting: str
    seed: int
    to: str = ""

    @property
    def folder(self) -> Path:
        """Where the run is kept."""
        base = paths.RUNS / self.protocol / self.dataset / self.model / f"{self.setting}-s{self.seed}"
        return base / f"to-{self.to}" if self.to else base


def names(kind: str = "scores") -> list[str]:
    """Return the tables there are of a kind, ``scores`` or ``costs``."""
    return sorted(
        path.stem for path in paths.TABLES.glob("*.yaml") if _content(path.stem).get("kind", "scores") == kind
    )


def target(name: str) -> str:
    """Return what `make` calls a table.

    Examples
    --------
    >>> target("asign_table2")
    'reproduce-asign-table2'
    """
    return f"reproduce-{name.replace('_', '-')}"


def _content(name: str) -> dict[str, Any]:
    """Read `tables/<name>.yaml` as plain data."""
    path = paths.TABLES / f"{name}.yaml"
    if not path.exists():
        known = [path.stem for path in paths.TABLES.glob("*.yaml")]
        raise FileNotFoundError(
            f"tables/{name}.yaml does not exist; a table is a file in tables/ (nearest: "
            f"{nearest(name, known)})"
        )
    content = read_yaml(path, f"tables/{path.name}")
    if content.get("kind", "scores") not in KINDS:
        raise ValueError(f"tables/{path.name}: kind is one of {KINDS}, found {content['kind']!r}")
    return content | {"name": name}


def load_costs(name: str) -> Costs:
    """Read `tables/<name>.yaml`, a table of costs; the errors are those of `load_table`."""
    table = parse(Costs, _content(name), f"tables/{name}.yaml")
    _check(table, [row.label for row in table.rows], [name for row in table.rows for name in row.absent])
    metrics = [column.metric for column in table.metrics]
    _known(table, "a column names metric", metrics, COSTS, "measured cost")
    return table


def load_table(name: str) -> Table:
    """Read `tables/<name>.yaml`, a table of scores.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If a key is unknown, missing or of another type, a dataset is unknown, or two rows or columns could
        not be told apart.
    """
    table = parse(Table, _content(name), f"tables/{name}.yaml")
    rows = [f"{row.label}, {row.protocol}, {row.setting}" for row in table.rows]
    named = [name for row in table.rows for name in (*row.datasets, *row.absent, *row.train)]
    _check(table, rows, named)
    for row in table.rows:
        for name in (name for joined in row.train.values() for name in sized(joined)):
            load_params(name)
        if (row.protocol == "transfer") != bool(row.train):
            raise ValueError(
                f"tables/{name}.yaml, row '{row.label}': `train` is said of a row of the protocol transfer, "
                f"and of no other; found protocol {row.protocol} and train {row.train}"
            )
    return table


def _check(table: Declared, rows: list[str], named: list[str]) -> None:
    """Refuse unknown datasets, and columns or rows that could not be told apart.

    `rows` holds what tells the rows apart, `named` the datasets that they name.
    """
    ours = [path.stem for path in paths.PARAMS.glob("*.yaml")]
    with open(paths.TABLES / "reported.csv", newline="") as file:
        papers = {line["dataset"] for line in csv.DictReader(file)}
    _known(table, "a row names dataset", named, ours, "file in params/")
    _known(table, "reported_dataset names dataset", table.reported_dataset, ours, "file in params/")
    reported = table.reported_dataset.values()
    _known(table, "reported_dataset names the papers'", reported, papers, "dataset of tables/reported.csv")
    _once(table, "a metric is one column", [column.metric for column in table.metrics])
    _once(table, "rows that stand together need different labels", rows)


def _known(table: Declared, says: str, found: Iterable[str], known: Iterable[str], kind: str) -> None:
    """Refuse a name that is not known."""
    for name in sorted(set(found) - set(known)):
        raise ValueError(
            f"tables/{table.name}.yaml: {says} '{name}', which is no {kind} (nearest: {nearest(name, known)})"
        )


def _once(table: Declared, needs: str, found: list[str]) -> None:
    """Refuse a name that is there twice."""
    for name in sorted({name for name in found if found.count(name) > 1}):
        raise ValueError(
            f"tables/{table.name}.yaml: {needs}, found '{name}' {found.count(name)} times; remove or "
            "rename one"
        )


def rows_for(table: Table, dataset: str) -> list[Row]:
    """Return the rows for a dataset: of a protocol it declares folds for, not absent or of others alone.

    A row of a transfer exists for the datasets that it says what is trained on for.

    Where the dataset has sizes, each row comes once for each size that the table names, with its `size`.
    """
    rows = []
    for params in shown(table, dataset):
        rows += [
            row.model_copy(update={"size": params.size})
            for row in table.rows
            if (row.protocol in params.folds or params.kin & row.train.keys())
            and (not row.datasets or params.kin & set(row.datasets))
            and not params.kin & row.absent.keys()
            and not _lacking(params, row)
            and row.size in ("", params.size)
        ]
    return rows


def shown(table: Table, dataset: str) -> list[Params]:
    """Return the dataset, or each of its sizes that the table names."""
    found = map(load_params, sized(dataset))
    return [params for params in found if not params.size or params.size in table.sizes]


def _lacking(params: Params, row: Row) -> str:
    """Return why a dataset does not have a row's method, or the variant of it; empty if it has."""
    return params.absent.get(row.model) or params.absent.get(row.model.partition("@")[0], "")


def costs_for(table: Costs, params: Params) -> list[CostRow]:
    """Return the rows of a table of costs whose protocol a dataset has folds for, and that are not absent."""
    return [row for row in table.rows if row.protocol in params.folds and not params.kin & row.absent.keys()]


def ablations(dataset: str) -> dict[str, Table]:
    """Return the tables that show what each part of a method buys, those that have rows for a dataset."""
    tables = {name: load_table(name) for name in ABLATIONS}
    return {name: table for name, table in tables.items() if rows_for(table, dataset)}


def absences(table: Table | Costs, dataset: str) -> list[str]:
    """Say which rows a dataset does not allow, and why."""
    params = load_params(sized(dataset)[0])
    reasons = [(row, row.absent[name]) for row in table.rows for name in params.kin & row.absent.keys()]
    if isinstance(table, Table):  # a cost is measured without training
        reasons += [
            (row, _lacking(params, row))
            for row in table.rows
            if row.protocol in params.folds and (not row.datasets or params.kin & set(row.datasets))
        ]
    return [f"{row.label}, {row.protocol}, is not shown: {why}." for row, why in reasons if why]


def runs_of(table: Table, row: Row, dataset: str) -> list[Run]:
    """Return the runs whose predictions make a row, one per seed; what is not trained has one.

    A dataset may limit the seeds (`training.max_seeds`).
    """
    params = load_params(sized(dataset)[0])
    seeds = table.seeds[: 1 if _kept_under(row) == SHARED else params.training.max_seeds]
    name = f"{params.base}@{row.size}" if row.size else dataset
    place = (_trained_on(row, params), name) if row.train else (name, "")
    return [Run(row.protocol, place[0], row.model, row.setting, seed, place[1]) for seed in seeds]


def _trained_on(row: Row, params: Params) -> str:
    """Return what a transfer trains on, where a dataset like another is named itself."""
    named = row.train.get(params.base) or row.train[params.like]
    base, at, size = named.partition("@")
    return f"{params.base if base == params.like else base}{at}{size}"


def runs_needed(table: Table, dataset: str) -> list[Run]:
    """Return the runs to make, each once; models that share a run are named by it (``controls``)."""
    needed: list[Run] = []
    for row in rows_for(table, dataset):
        needed += recorded(table, row, dataset)
    return list(dict.fromkeys(needed))


def recorded(table: Table, row: Row, dataset: str) -> list[Run]:
    """Return the runs whose records tell of a row: its own, or those that it shares."""
    return [run._replace(model=_kept_under(row)) for run in runs_of(table, row, dataset)]


def _kept_under(row: Row) -> str:
    """Return the name of the run that computes a row."""
    return row.run or (SHARED if row.role != "method" else row.model)


def fragment() -> str:
    """Return the part of the Makefile that follows from `tables/` and `params/`."""
    datasets = sorted(path.stem for path in paths.PARAMS.glob("*.yaml"))
    lines = ["# written by `python -m stlib.tables`", f"TABLES := {' '.join(names())}"]
    lines.append(f"ABLATIONS := {' '.join(ABLATIONS)}")
    lines += [f"SIZED_{name} := {' '.join(sized(name))}" for name in datasets if sized(name) != [name]]
    for name in names():
        table = load_table(name)
        lines += _goal(table, f"runs/tables/$(DATASET)/{name}/strict-s0/run.json")
        for dataset in datasets:
            targets = (run.folder.relative_to(paths.OUT) / "run.json" for run in runs_needed(table, dataset))
            lines += [
                f"RUNS_{name}_{dataset} := {' '.join(map(str, targets))}",
                f"runs/tables/{dataset}/{name}/strict-s0/run.json: tables/{name}.yaml tables/reported.csv",
            ]
    for name in names("costs"):
        lines += _goal(load_costs(name), f"runs/cost/$(DATASET)/{name}/strict-s0/run.json")
        lines += [
            f"runs/cost/{dataset}/{name}/strict-s0/run.json: tables/{name}.yaml tables/reported.csv"
            for dataset in datasets
        ]
    return "\n".join(lines) + "\n"


def _goal(table: Declared, record: str) -> list[str]:
    """Return the lines of a table's own target."""
    goal = target(table.name)
    return [
        f".PHONY: {goal}",
        f"{goal}: {record}  ## {table.title}",
        f"\t@cat results/$(DATASET)/{table.name}.md",
    ]


if __name__ == "__main__":
    print(fragment(), end="")
