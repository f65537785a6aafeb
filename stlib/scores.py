"""The numbers of a table, from the predictions of its runs: per patient, and beside what is reported."""

from collections.abc import Callable, Iterator

import numpy as np
import pandas as pd

from stlib import ceiling, jackknife, metrics, paths, statistics
from stlib.ceiling import Noises
from stlib.predictions import Predictions, load_predictions
from stlib.sections import Section
from stlib.tables import PLACE, Column, CostRow, Declared, Row, Run, Table, rows_for, runs_of

Load = Callable[[Run], Predictions]
KEYS = (*PLACE, "label", "model", "role")  # what tells the rows of a table apart
CEILING, COUNTING = "ceiling", "counting"  # in the place of a model: no method, but what the counts allow
CEILINGS = {CEILING: "Ceiling of the counts", COUNTING: "Ceiling if only counting were noise"}


def read_run(run: Run) -> Predictions:
    """Read the predictions of a run from its folder."""
    return load_predictions(run.folder / "predictions.h5ad")


def predicted(table: Table, dataset: str, load: Load = read_run) -> Iterator[tuple[int, Run, Predictions]]:
    """Read the predictions of a table: place of the row in `rows_for`, run, predictions; one per seed."""
    for place, row in enumerate(rows_for(table, dataset)):
        for run in runs_of(table, row, dataset):
            yield place, run, load(run)


def with_every_metric(table: Table) -> Table:
    """Return the table with all metrics there are, its own first."""
    own = [column.metric for column in table.metrics]
    others = [Column(metric=name) for name in metrics.METRICS if name not in own]
    return table.model_copy(update={"metrics": [*table.metrics, *others]})


def patient_scores(table: Table, dataset: str, load: Load = read_run) -> pd.DataFrame:
    """Score every row of a table for a dataset.

    Returns
    -------
    pandas.DataFrame
        One line per row, metric, seed and patient (or fold, where the metric pools its patients): `row`
        (its place in `rows_for`), `metric`, `seed`, `unit`, `value`, `undefined` (share of correlations
        without a value), `constant` (whether the row predicts the same everywhere in a section) and, of
        one patient alone, `half` the interval over pieces of his tissue.

    Raises
    ------
    ValueError
        If a metric is unknown, or a prediction is not finite.
    FileNotFoundError
        If a run is missing.
    """
    for column in table.metrics:
        metrics.find(column.metric)
    parts = []
    for place, run, predictions in predicted(table, dataset, load):
        constant = metrics.constant(predictions)
        scored = ~predictions.obs["known"].to_numpy(bool)
        alone = predictions.obs.loc[scored, "patient"].nunique() == 1
        for column in table.metrics:
            scores = metrics.scores(predictions, column.metric).rename_axis("unit").reset_index()
            half = jackknife.half_width(predictions, column.metric) if alone else np.nan
            about = {"row": place, "metric": column.metric, "seed": run.seed, "constant": constant}
            parts.append(scores.assign(**about, half=half))
    if not parts:
        raise ValueError(
            f"tables/{table.name}.yaml has no row for dataset '{dataset}'; add one, or folds to "
            f"params/{dataset.partition('@')[0]}.yaml"
        )
    return pd.concat(parts, ignore_index=True)


def by_patient(table: Table, dataset: str, scores: pd.DataFrame) -> pd.DataFrame:
    """Return the score of every row, metric and patient (or fold), the mean over seeds.

    `scores` is from `patient_scores`, for the same table and dataset.
    """
    rows = rows_for(table, dataset)
    about = pd.DataFrame([{key: getattr(row, key) for key in KEYS} for row in rows])
    scores = scores[scores["metric"].isin([column.metric for column in table.metrics])]
    means = scores.groupby(["row", "metric", "unit"], sort=False)["value"].mean().reset_index()
    return about.join(means.set_index("row"))


def reachable(
    table: Table, dataset: str, sections: dict[str, dict[str, Section]], load: Load = read_run
) -> dict[tuple[str, ...], Noises]:
    """Find what the counts allow in each section of a table, protocol by protocol.

    Whoever stands together predicts the same locations. `sections` is dataset (each size is one) -> its
    sections by name, see `stlib.sections.load_prepared`; a dataset without any has no ceiling: predictions
    alone do not tell noise from tissue. Return protocol, setting and size -> the noise of the labels there.
    """
    found, parts = {}, {}
    for row in rows_for(table, dataset):
        run = runs_of(table, row, dataset)[0]
        place = tuple(getattr(row, key) for key in PLACE)
        tested = run.to or run.dataset
        if place in found or not sections.get(tested):
            continue
        predictions = load(run)
        if tested not in parts:
            parts[tested] = ceiling.parts(sections[tested], predictions.genes.tolist())
        found[place] = ceiling.noises(predictions, sections[tested], parts[tested])
    return found


def ceilings(table: Table, found: dict[tuple[str, ...], Noises]) -> pd.DataFrame:
    """Return what the counts allow: both ceilings of each section of a table, metric and patient (or fold).

    `found` is from `reachable`.
    """
    parts = []
    for place, noises in found.items():
        about = dict(zip(PLACE, place, strict=True))
        for model, noise in zip(CEILINGS, noises, strict=True):
            for column in table.metrics:
                values = ceiling.scores(noise, column.metric).rename_axis("unit").rename("value")
                parts.append(values.reset_index().assign(**about, model=model, metric=column.metric))
    empty = pd.DataFrame(columns=[*PLACE, "model", "metric", "unit", "value"])
    return pd.concat(parts, ignore_index=True) if parts else empty


def frame(
    table: Table, dataset: str, scores: pd.DataFrame, ceilings: pd.DataFrame | None = None
) -> pd.DataFrame:
    """Compute the numbers of a table: ours, reported, and the difference.

    `scores` is from `patient_scores`, for the same table and dataset; without `ceilings` the table says
    nothing about what is reachable.

    Returns
    -------
    pandas.DataFrame
        One line per row and metric, in the table's order: `protocol`, `setting`, `size`, `label`, `model`,
        `role`, `metric`; ours: `mean`, `sd`, `low`, `high` (95 % interval) over `n` patients (or folds:
        `unit`), of one patient over pieces of his tissue; `seeds`, how many, and `seed_sd`, the standard
        deviation of the mean between them (NaN for one); `undefined`, `constant`; `reported`, `reported_sd`,
        `difference` (ours - reported); `best` of the methods of its protocol, setting and size; `beaten`: a
        method that is no better than the best control there; `ceiling` of the counts there, and `share` of
        what is reachable: 0 where the best constant of the section stands (a correlation that it does not
        have is 0), 1 at the ceiling. With ceilings the last lines of each section are the ceilings: from
        below, which `share` goes by, and from above.
    """
    printed = published()
    lines = []
    for place, row in enumerate(rows_for(table, dataset)):
        for column in table.metrics:
            own = scores[(scores["row"] == place) & (scores["metric"] == column.metric)]
            line = {key: getattr(row, key) for key in KEYS}
            line |= {"metric": column.metric, "unit": metrics.find(column.metric).unit}
            line |= statistics.summary(own.groupby("unit")["value"].mean())._asdict()
            if line["n"] == 1:
                half = own["half"].mean()
                line |= {"low": line["mean"] - half, "high": line["mean"] + half}
            line |= {"seeds": own["seed"].nunique(), "seed_sd": own.groupby("seed")["value"].mean().std()}
            line |= {"undefined": own["undefined"].mean(), "constant": bool(own["constant"].all())}
            line |= reported(printed, table, row, column, dataset, row.size)
            lines.append(line)
    if ceilings is not None:
        shown = [column.metric for column in table.metrics]
        lines += _ceiling_lines(ceilings[ceilings["metric"].isin(shown)])
    found = pd.DataFrame(lines).assign(difference=lambda found: found["mean"] - found["reported"])
    return _ranked(_shared(found))


def _ceiling_lines(ceilings: pd.DataFrame) -> list[dict[str, object]]:
    """Return the lines of the ceilings themselves, for each section and metric."""
    lines = []
    for (*place, model, name), group in ceilings.groupby([*PLACE, "model", "metric"], sort=False):
        about = {"label": CEILINGS[model], "model": model, "role": "ceiling", "metric": name}
        about |= {"unit": metrics.find(name).unit} | statistics.summary(group["value"])._asdict()
        about |= {"seeds": 1, "seed_sd": np.nan, "undefined": group["value"].isna().mean(), "constant": False}
        nothing = {"reported": np.nan, "reported_sd": np.nan}
        lines.append(dict(zip(PLACE, place, strict=True)) | about | nothing)
    return lines


def _shared(found: pd.DataFrame) -> pd.DataFrame:
    """Say of each score which share it is of the way from the best constant to the ceiling."""
    found = found.assign(ceiling=np.nan, share=np.nan)
    for (*_, name), group in found.groupby([*PLACE, "metric"]):
        top = group.loc[group["model"] == CEILING, "mean"]
        if top.empty:
            continue
        metric = metrics.find(name)
        constants = group.loc[group["constant"], "mean"]
        zero = constants.max() if metric.higher_is_better else constants.min()
        if np.isnan(zero) and metric.higher_is_better:
            zero = 0.0
        found.loc[group.index, "ceiling"] = top.item()
        found.loc[group.index, "share"] = (group["mean"] - zero) / (top.item() - zero)
    return found


def published() -> pd.DataFrame:
    """Read every number the papers print."""
    key = ["paper", "table", "dataset", "row", "metric"]
    return pd.read_csv(paths.TABLES / "reported.csv", dtype=dict.fromkeys(key, str))


def reported(
    printed: pd.DataFrame,
    table: Declared,
    row: Row | CostRow,
    column: Column,
    dataset: str,
    size: str = "",
) -> dict[str, float]:
    """Return what the paper reports for one cell, of several sizes at one; NaN where it reports nothing."""
    nothing = {"reported": float("nan"), "reported_sd": float("nan")}
    if row.reported is None or not column.reported or dataset not in table.reported_dataset:
        return nothing
    wanted = row.reported.model_dump() | {
        "dataset": table.reported_dataset[dataset],
        "metric": column.reported,
    }
    found = printed[(printed[list(wanted)] == list(wanted.values())).all(axis=1)]
    if size:  # a paper that does not tell its sizes apart reports one number for all of them
        found = found[found["resolution_um"].isin([float(size.removesuffix("um")), np.nan])]
        wanted |= {"resolution_um": size.removesuffix("um")}
    if len(found) != 1:
        raise ValueError(
            f"tables/{table.name}.yaml, row '{row.label}': one line of tables/reported.csv must match "
            f"{wanted}, found {len(found)} "
            "(rows of that table: "
            f"{sorted(set(printed.loc[printed['table'] == row.reported.table, 'row']))})"
        )
    return {"reported": float(found["mean"].iloc[0]), "reported_sd": float(found["std"].iloc[0])}


def _ranked(found: pd.DataFrame) -> pd.DataFrame:
    """Mark the best method of each column, and every method that does not beat the best control."""
    found = found.assign(best=False, beaten=False)
    for (*_, name), group in found.groupby([*PLACE, "metric"]):
        sign = 1 if metrics.find(name).higher_is_better else -1
        value = sign * group["mean"]
        method, control = group["role"] == "method", group["role"] == "control"
        found.loc[group.index, "best"] = method & (value == value[method].max())
        found.loc[group.index, "beaten"] = (
            method & ~(value > value[control].max()) & value[control].notna().any()
        )
    return found
