"""What predictors without any image score, from counts alone: the yardstick for the printed numbers.

Scored as the papers score: `pcc_per_spot_zero`, in which a spot whose profile is flat counts as 0.
"""

from pathlib import Path

import numpy as np
import pandas as pd

from stlib import datasets, metrics, paths, statistics
from stlib.expression import log_proportion, panel_counts
from stlib.params import Params
from stlib.predictions import Predictions, concatenate, obs_of
from stlib.sections import Section
from stlib.tables import load_table

NAMES = ("mse", "mae", "pcc_per_spot_zero")


def read_counts(params: Params, folder: Path, missing: str = "refuse") -> dict[str, Section]:
    """Read the counts of every section, no slide.

    A section whose files are absent is an error; if `missing` is ``skip`` it is left out, and the numbers are
    others.

    Raises
    ------
    FileNotFoundError
        If a file is absent and `missing` is ``refuse``.
    """
    if missing not in ("refuse", "skip"):
        raise ValueError(f"missing is 'refuse' or 'skip', found '{missing}'")
    source, found = datasets.reader(params), {}
    for name in params.patient_of:
        try:
            found[name] = source.read(params, folder, name, slide=False)
        except FileNotFoundError as error:
            if missing == "refuse":
                remedy = "With MISSING=skip the section is left out, and the numbers are others"
                raise FileNotFoundError(f"{error}. {remedy}") from error
    return found


RULES = {  # rule -> (what is predicted, for which sections)
    "all": ("mean of the training patients", "all sections of the test patients"),
    "later": ("mean of the training patients", "all but the known section"),
    "with": ("mean of training patients and known sections", "all but the known section"),
    "own": ("mean of the patient's known section", "all but the known section"),
}


def control_table(params: Params, sections: dict[str, Section], panel: list[str]) -> pd.DataFrame:
    """Score constants: the profile of the training patients, of them and known sections, of known sections.

    Parameters
    ----------
    params
        The dataset; its 3d folds are used, and its known sections.
    sections
        Every section's counts, by name. A patient whose known section is absent takes no part in the last
        control.

    Returns
    -------
    pandas.DataFrame
        Two rows per control, one mean over folds, as the papers have it, one over patients: what it is, what
        it is tested on, `mse`, `mae` and `pcc_per_spot_zero`; over patients also the standard deviation
        between them, `mse_sd`, and the 95 % interval `mse_low`, `mse_high` (Student's t), and so on.

    Raises
    ------
    ValueError
        If no section is left to test.
    """
    labels = {name: log_proportion(panel_counts(section, panel)) for name, section in sections.items()}
    rows = []
    for rule, (control, tested_on) in RULES.items():
        parts = []
        for fold, tested in params.folds["3d"].items():
            profiles = _profiles(params, labels, rule, tested)
            for name, profile in profiles.items():
                parts.append(_predictions(fold, sections[name], profile, labels[name], panel))
        if not parts:
            raise ValueError(
                f"{params.name}: no section is left to test '{control}' on, found {sorted(sections)}; "
                "add the missing files"
            )
        predictions = concatenate(parts)
        row = {"control": control, "tested on": tested_on}
        by_fold = {name: metrics.by_fold(predictions, name).mean() for name in NAMES}
        by_patient = {}
        for name in NAMES:
            found = statistics.summary(metrics.score(predictions, name))
            by_patient |= {name: found.mean, f"{name}_sd": found.sd}
            by_patient |= {f"{name}_low": found.low, f"{name}_high": found.high}
        rows += [row | {"mean over": "folds"} | by_fold, row | {"mean over": "patients"} | by_patient]
    return pd.DataFrame(rows)


def _profiles(
    params: Params, labels: dict[str, np.ndarray], rule: str, tested: list[str]
) -> dict[str, np.ndarray]:
    """Return what a rule predicts in a fold: test section -> profile (G,); nothing if nothing is known."""

    def mean_of(names: list[str]) -> np.ndarray:
        return np.concatenate([labels[name] for name in names]).astype(np.float64).mean(0)

    known = {patient: params.known[patient] for patient in tested if params.known.get(patient) in labels}
    patient = params.patient_of
    left_out = [] if rule == "all" else known.values()
    test = [name for name in labels if patient[name] in tested and name not in left_out]
    if rule == "own":
        return {name: mean_of([known[patient[name]]]) for name in test if patient[name] in known}
    train = [name for name in labels if patient[name] not in tested]
    if not train:
        return {}
    return dict.fromkeys(test, mean_of(train + (list(known.values()) if rule == "with" else [])))


def _predictions(
    fold: str, section: Section, profile: np.ndarray, label: np.ndarray, panel: list[str]
) -> Predictions:
    prediction = np.broadcast_to(profile, label.shape).astype(np.float32)
    return Predictions(prediction, label, np.array(panel), obs_of(section, fold))


def reported(dataset: str) -> pd.DataFrame:
    """Return what ASIGN's Table I prints for a dataset, in the columns of `control_table`; else empty.

    The standard deviations (``mse_sd``, ...) stand in the paper's text alone, and for a few of the rows.
    """
    name = load_table("table1").reported_dataset.get(dataset)
    table = pd.read_csv(paths.TABLES / "reported.csv")
    table = table[(table["paper"] == "ASIGN") & (table["dataset"] == name)]
    parts = {"": ("I", "mean"), "_sd": ("text V.A", "std")}
    wide = [
        table[table["table"] == where]
        .pivot(index="row", columns="metric", values=what)
        .reindex(columns=["MSE", "MAE", "PCC"])
        .set_axis([f"{name}{end}" for name in NAMES], axis=1)
        for end, (where, what) in parts.items()
    ]
    return wide[0].join(wide[1]).reset_index().rename(columns={"row": "reported"})


def markdown(table: pd.DataFrame, printed: pd.DataFrame | None = None) -> str:
    """Render the controls, and what is printed, as one markdown table."""
    heads = [metrics.find(name).label for name in NAMES]
    lines = [f"| | tested on | mean over | {' | '.join(heads)} |", "|---|---|---|---:|---:|---:|"]
    for row in table.to_dict("records"):
        cells = [f"{row[name]:.4f}" + _spread(row, name) for name in NAMES]
        lines.append(
            f"| *{row['control']}* | {row['tested on']} | {row['mean over']} | {' | '.join(cells)} |"
        )
    for row in [] if printed is None else printed.to_dict("records"):
        sds = ["" if np.isnan(row[f"{name}_sd"]) else f" ± {row[f'{name}_sd']:.3f}" for name in NAMES]
        cells = [f"{row[name]:.3f}{sd}" for name, sd in zip(NAMES, sds, strict=True)]
        lines.append(f"| reported: {row['reported']} | | | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _spread(row: dict, name: str) -> str:
    """Say how far patients lie apart, and the 95 % interval of their mean."""
    sd, low, high = (row[f"{name}_{what}"] for what in ("sd", "low", "high"))
    return "" if np.isnan(sd) else f" ± {sd:.3f} ({low:.3f} to {high:.3f})"
