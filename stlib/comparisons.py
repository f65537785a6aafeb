"""Methods compared patient by patient: with the best control and ours, and variants with the full model."""

from collections.abc import Mapping

import numpy as np
import pandas as pd

from stlib import metrics
from stlib.statistics import holm, paired, sign_flip, smallest_p, summary, welch
from stlib.tables import PLACE, Table, rows_for


def tests(table: Table, dataset: str, patients: pd.DataFrame) -> pd.DataFrame:
    """Test each method of a table against the best control of its section, and against ours, in pairs.

    The best control is the one of the best mean over these very patients, which is to its favour. `patients`
    is from `stlib.scores.by_patient`; metrics of folds are not tested.

    Returns
    -------
    pandas.DataFrame
        One line per method, metric and test: what it is held `against`, whose label that is (`other`), `n`
        patients, `difference` (the method's mean minus the other's); `p_t` of Student's paired test and
        `p_signs` of the exact test of signs, each with `_holm`, corrected for all tests of the table;
        `smallest_p` that the signs of n patients allow, before any correction; `verdict` from `p_t_holm`;
        `p_welch`, uncorrected, as in figure 4 of ASIGN.
    """
    ours = {
        (*(getattr(row, key) for key in PLACE), row.label) for row in rows_for(table, dataset) if row.ours
    }
    lines = []
    for (*place, metric), group in patients.groupby([*PLACE, "metric"], sort=False):
        if metrics.find(metric).unit != "patient":
            continue
        values = group.pivot(index="unit", columns="label", values="value")
        roles = group.drop_duplicates("label").set_index("label")["role"]
        others = dict([("ours", label) for *at, label in ours if at == place])
        controls = values[roles.index[roles == "control"]].mean().dropna()
        if len(controls):
            best = controls.idxmax() if metrics.find(metric).higher_is_better else controls.idxmin()
            others = {"best control": best} | others
        for label in roles.index[roles == "method"]:
            for against, other in others.items():
                if other == label:
                    continue
                difference = (values[label] - values[other]).dropna()
                line = dict(zip(PLACE, place, strict=True)) | {"metric": metric, "label": label}
                line |= {"against": against, "other": other, "n": len(difference)}
                line |= {"difference": difference.mean(), "p_t": paired(difference)}
                line |= {"p_signs": sign_flip(difference), "smallest_p": smallest_p(len(difference))}
                line |= {"p_welch": welch(values[label], values[other])}
                lines.append(line)
    columns = [*PLACE, "metric", "label", "against", "other", "n", "difference", "p_t", "p_signs"]
    found = pd.DataFrame(lines, columns=[*columns, "smallest_p", "p_welch"])
    found = found.assign(p_t_holm=holm(found["p_t"]), p_signs_holm=holm(found["p_signs"]))
    verdicts = [_verdict(line) for line in found.rename(columns={"p_t_holm": "p_holm", "difference": "mean"})
                .to_dict("records")]  # fmt: skip
    return found.assign(verdict=verdicts)


def said_of_tests(found: pd.DataFrame, headline: str) -> list[str]:
    """Say under a table what its paired tests (`tests`) show of its first metric, the headline."""
    if found.empty or not (found["n"] > 1).any():
        return []
    own = found[(found["metric"] == headline) & (found["against"] == "best control")]
    sentences = []
    for verdict in ("better", "worse"):
        lines = own[own["verdict"] == verdict].itertuples()
        labels = [f"{line.label} ({', '.join(filter(None, (line.protocol, line.size)))})" for line in lines]
        sentences.append(f"{verdict} than the best control: {', '.join(labels) or 'none'}")
    least = {
        f"{p:.3g} with {n} patients": n for n, p in zip(found["n"], found["smallest_p"], strict=True) if n
    }
    return [
        f"Paired over patients, {metrics.find(headline).label}, p < 0.05 by Student's t corrected for all "
        f"{found['p_t'].notna().sum()} tests of the table (Holm): {'; '.join(sentences)}. An exact test of "
        f"signs can give no p below {' or '.join(least)}, before any correction."
    ]


def differences(
    tables: Mapping[str, Table], dataset: str, scores: Mapping[str, pd.DataFrame]
) -> pd.DataFrame:
    """Hold each variant in the tables against the model that it changes, patient by patient.

    `scores` is name -> `stlib.scores.patient_scores` of the table.

    Returns
    -------
    pandas.DataFrame
        One line per variant, size and metric, from the table that trains it with most seeds: `group` (the
        table's title), `label`, `model`, `size`, `against` (label of the row that it changes), `metric`;
        `mean` of the differences (variant minus that row, seeds averaged within a patient) over `n` patients
        with their 95 % interval `low`, `high`; `seed_low`, `seed_high`, the same over the `seeds` of the mean
        over patients; `p`, paired over patients, and `p_holm`, corrected for the variants of a metric;
        `verdict`: ``worse`` or ``better`` than that row if the corrected p is below 0.05 and the interval
        over seeds (where there are some) has not 0 within, else ``unclear``;
        `patients`, the differences themselves.
    """
    lines = []
    for name, table in tables.items():
        rows = rows_for(table, dataset)
        places = {(row.size, row.model): place for place, row in enumerate(rows)}
        for place, row in enumerate(rows):
            if "@" not in row.model or row.role != "method":
                continue
            whole = places[row.size, row.against or row.model.partition("@")[0]]
            about = {"group": table.title, "label": row.label, "model": row.model, "size": row.size}
            about["against"] = rows[whole].label
            for column in table.metrics:
                ours, theirs = (_by_seed(scores[name], one, column.metric) for one in (place, whole))
                lines.append(about | {"metric": column.metric} | _spread(ours - theirs))
    found = pd.DataFrame(lines)
    most = found.sort_values("seeds", ascending=False, kind="stable")
    most = most.drop_duplicates(["model", "size", "metric"])
    found = most.sort_index().reset_index(drop=True)
    found["p_holm"] = found.groupby("metric", sort=False)["p"].transform(holm)
    return found.assign(verdict=[_verdict(line) for line in found.to_dict("records")])


def _by_seed(scores: pd.DataFrame, place: int, metric: str) -> pd.DataFrame:
    """Return the values of one row and metric: patients down, seeds across."""
    own = scores[(scores["row"] == place) & (scores["metric"] == metric)]
    return own.pivot(index="unit", columns="seed", values="value")


def _spread(difference: pd.DataFrame) -> dict[str, object]:
    """Summarise differences (patients, seeds) over patients, and over seeds."""
    patients = difference.mean(axis=1).dropna()
    over, seeds = summary(patients), summary(difference.mean(axis=0))
    return {
        "mean": over.mean, "low": over.low, "high": over.high, "n": over.n,
        "seed_low": seeds.low, "seed_high": seeds.high, "seeds": seeds.n,
        "p": paired(patients), "patients": patients.to_numpy(),
    }  # fmt: skip


def _verdict(line: Mapping[str, object]) -> str:
    if not line["p_holm"] < 0.05 or line.get("seed_low", 0) < 0 < line.get("seed_high", 0):
        return "unclear"
    higher = metrics.find(line["metric"]).higher_is_better
    return "better" if (line["mean"] > 0) == higher else "worse"


def in_words(found: pd.DataFrame, metric: str) -> list[str]:
    """Say what each variant changes in a metric (`differences`), one sentence each."""
    what = {
        "worse": "worse: what was changed is worth something",
        "better": "better: {against} would gain by it",
        "unclear": "no difference that these patients and seeds show",
    }
    sentences = []
    for line in found[found["metric"] == metric].itertuples():
        if line.n < 2:
            said = "one patient has no spread, so nothing follows"
        else:
            interval = f"95 % interval {line.low:+.3f} to {line.high:+.3f} over {line.n} patients"
            if line.seeds > 1:
                interval += f", {line.seed_low:+.3f} to {line.seed_high:+.3f} over {line.seeds} seeds"
            said = f"{what[line.verdict].format(against=line.against)} ({interval}; {_p(line.p_holm)})"
        sentences.append(f"{line.label}: {line.mean:+.3f} against {line.against}, {said}.")
    return sentences


def _p(p: float) -> str:
    if np.isnan(p):
        return "no test"
    return "p < 0.001" if p < 0.001 else f"p = {p:.3f}"
