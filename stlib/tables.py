"""A table is declared once, in `tables/<name>.yaml`; runs, Make targets and numbers follow.

``python -m stlib.tables`` prints the targets for the Makefile. It is called before anything is made, so
this module imports the heavy libraries only where numbers are computed. How a table looks is
`stlib.render`.
"""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

import yaml
from pydantic import Field

from stlib import paths
from stlib.params import Protocol, Record, Setting, load_params, nearest, parse

if TYPE_CHECKING:
    import pandas as pd

    from stlib.predictions import Predictions

SHARED = "controls"  # the run that all models without training share
Load = Callable[["Run"], "Predictions"]


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
    keys = [(row.label, row.protocol, row.setting) for row in table.rows]
    for label, protocol, setting in {key for key in keys if keys.count(key) > 1}:
        raise ValueError(
            f"tables/{path.name}: rows of one protocol and setting need different labels, found "
            f"'{label}' twice ({protocol}, {setting})"
        )
    return table


def rows_for(table: Table, dataset: str) -> list[Row]:
    """Return the rows for a dataset: not restricted to others, and of a protocol it declares folds for."""
    protocols = load_params(dataset).folds
    return [
        row
        for row in table.rows
        if row.protocol in protocols and (not row.datasets or dataset in row.datasets)
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


def read_run(run: Run) -> "Predictions":
    """Read the predictions of a run from its folder."""
    from stlib.predictions import load_predictions

    return load_predictions(run.folder / "predictions.h5ad")


def patient_scores(table: Table, dataset: str, load: Load = read_run) -> "pd.DataFrame":
    """Score every row of a table for a dataset.

    Parameters
    ----------
    table, dataset
        Which table, for which data.
    load
        Run -> predictions. Default: from the run's folder.

    Returns
    -------
    pandas.DataFrame
        One line per row, metric, seed and patient (or fold, where the metric pools its patients): `row`
        (its place in `rows_for`), `metric`, `seed`, `unit`, `value`, `undefined` (share of correlations
        without a value) and `constant` (whether the row predicts the same everywhere in a section).

    Raises
    ------
    ValueError
        If a metric is unknown, or a prediction is not finite.
    FileNotFoundError
        If a run is missing.
    """
    import pandas as pd

    from stlib import metrics

    for column in table.metrics:
        metrics.find(column.metric)
    parts = []
    for place, row in enumerate(rows_for(table, dataset)):
        for run in runs_of(table, row, dataset):
            predictions = load(run)
            constant = metrics.constant(predictions)
            for column in table.metrics:
                scores = metrics.scores(predictions, column.metric).rename_axis("unit").reset_index()
                parts.append(scores.assign(row=place, metric=column.metric, seed=run.seed, constant=constant))
    if not parts:
        raise ValueError(
            f"tables/{table.name}.yaml has no row for dataset '{dataset}'; add one, or folds to "
            f"params/{dataset}.yaml"
        )
    return pd.concat(parts, ignore_index=True)


def frame(table: Table, dataset: str, load: Load = read_run) -> "pd.DataFrame":
    """Compute the numbers of a table: ours, reported, and the difference.

    Parameters and errors are those of `patient_scores`.

    Returns
    -------
    pandas.DataFrame
        One line per row and metric, in the table's order: `protocol`, `setting`, `label`, `model`, `role`,
        `metric`; ours: `mean`, `sd`, `low`, `high` (95 % interval) over `n` patients (or folds: `unit`),
        `undefined`, `constant`; `reported`, `reported_sd`, `difference` (ours - reported); `best` of the
        methods of its protocol and setting; `beaten`: a method that is no better than the best control
        there.
    """
    import pandas as pd

    from stlib import metrics

    scores = patient_scores(table, dataset, load)
    published = _published()
    lines = []
    for place, row in enumerate(rows_for(table, dataset)):
        for column in table.metrics:
            own = scores[(scores["row"] == place) & (scores["metric"] == column.metric)]
            line = {key: getattr(row, key) for key in ("protocol", "setting", "label", "model", "role")}
            line |= {"metric": column.metric, "unit": metrics.find(column.metric).unit}
            line |= metrics.summary(own.groupby("unit")["value"].mean())._asdict()
            line |= {"undefined": own["undefined"].mean(), "constant": bool(own["constant"].all())}
            line |= _reported(published, table, row, column, dataset)
            lines.append(line)
    return _ranked(pd.DataFrame(lines).assign(difference=lambda found: found["mean"] - found["reported"]))


def _published() -> "pd.DataFrame":
    """Read every number the papers print."""
    import pandas as pd

    key = ["paper", "table", "dataset", "row", "metric"]
    return pd.read_csv(paths.TABLES / "reported.csv", dtype=dict.fromkeys(key, str))


def _reported(
    published: "pd.DataFrame", table: Table, row: Row, column: Column, dataset: str
) -> dict[str, float]:
    """Return what the paper reports for one cell, NaN where it reports nothing."""
    nothing = {"reported": float("nan"), "reported_sd": float("nan")}
    if row.reported is None or not column.reported or dataset not in table.reported_dataset:
        return nothing
    wanted = row.reported.model_dump() | {
        "dataset": table.reported_dataset[dataset],
        "metric": column.reported,
    }
    found = published[(published[list(wanted)] == list(wanted.values())).all(axis=1)]
    if len(found) != 1:
        raise ValueError(
            f"tables/{table.name}.yaml, row '{row.label}': one line of tables/reported.csv must match "
            f"{wanted}, found {len(found)} "
            "(rows of that table: "
            f"{sorted(set(published.loc[published['table'] == row.reported.table, 'row']))})"
        )
    return {"reported": float(found["mean"].iloc[0]), "reported_sd": float(found["std"].iloc[0])}


def _ranked(found: "pd.DataFrame") -> "pd.DataFrame":
    """Mark the best method of each column, and every method that does not beat the best control."""
    from stlib import metrics

    found = found.assign(best=False, beaten=False)
    for (_, _, name), group in found.groupby(["protocol", "setting", "metric"]):
        sign = 1 if metrics.find(name).higher_is_better else -1
        value = sign * group["mean"]
        method, control = group["role"] == "method", group["role"] == "control"
        found.loc[group.index, "best"] = method & (value == value[method].max())
        found.loc[group.index, "beaten"] = (
            method & ~(value > value[control].max()) & value[control].notna().any()
        )
    return found


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
