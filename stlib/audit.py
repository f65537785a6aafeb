"""What predictors without any image score, from counts alone: the yardstick for the printed numbers."""

from pathlib import Path

import numpy as np
import pandas as pd

from stlib import datasets, metrics, paths
from stlib.expression import log_proportion, panel_counts
from stlib.params import Params
from stlib.predictions import Predictions, concatenate
from stlib.sections import Section
from stlib.tables import load_table

NAMES = ("mse", "mae", "pcc_per_spot")


def read_counts(params: Params, folder: Path, missing: str = "refuse") -> dict[str, Section]:
    """Read the counts of every section, no slide.

    Parameters
    ----------
    params
        The dataset.
    folder
        Its raw files.
    missing
        ``refuse``: a section whose files are absent is an error. ``skip``: it is left out, and the numbers are others.

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
        except FileNotFoundError:
            if missing == "refuse":
                raise
    return found


def control_table(params: Params, sections: dict[str, Section], panel: list[str]) -> pd.DataFrame:
    """Score four constants: the profile of the training patients, with and without a section of the test patient, and that section's own.

    Parameters
    ----------
    params
        The dataset; its 3d folds are used, and its known sections.
    sections
        Every section's counts, by name.
    panel
        Genes to score.

    Returns
    -------
    pandas.DataFrame
        One row per control: what it is, what it is tested on, `mse`, `mae` and `pcc_per_spot` averaged over folds; for the known section's mean also over
        patients, with the standard deviation between them.
    """
    labels = {name: log_proportion(panel_counts(section, panel)) for name, section in sections.items()}
    known = set(params.known.values()) & labels.keys()

    def mean_of(names: list[str]) -> np.ndarray:
        return np.concatenate([labels[name] for name in names]).astype(np.float64).mean(0)

    def constants(rule: str, tested: list[str]) -> list[tuple[str, np.ndarray]]:
        train = [name for name in labels if params.patient_of[name] not in tested]
        shown = [name for name in known if params.patient_of[name] in tested]
        test = [name for name in labels if params.patient_of[name] in tested and (rule == "all" or name not in known)]
        if rule == "own":
            return [(name, mean_of([params.known[params.patient_of[name]]])) for name in test]
        profile = mean_of(train + (shown if rule == "with" else []))
        return [(name, profile) for name in test]

    rules = {
        "all": ("mean of the training patients", "all sections of the test patients"),
        "later": ("mean of the training patients", "all but the known section"),
        "with": ("mean of training patients and known sections", "all but the known section"),
        "own": ("mean of the patient's known section", "all but the known section"),
    }
    rows = []
    for rule, (control, tested_on) in rules.items():
        parts = [
            _predictions(fold, [(sections[name], labels[name], profile) for name, profile in constants(rule, patients)], panel)
            for fold, patients in params.folds["3d"].items()
        ]
        predictions = concatenate(parts)
        folds = {name: metrics.by_fold(predictions, name).mean() for name in NAMES}
        rows.append({"control": control, "tested on": tested_on, "mean over": "folds"} | folds)
    patients = {name: metrics.summary(metrics.score(predictions, name)) for name in NAMES}
    rows.append(
        {"control": control, "tested on": tested_on, "mean over": "patients"}
        | {name: found.mean for name, found in patients.items()}
        | {f"{name}_sd": found.sd for name, found in patients.items()}
    )
    return pd.DataFrame(rows)


def _predictions(fold: str, parts: list[tuple[Section, np.ndarray, np.ndarray]], panel: list[str]) -> Predictions:
    obs = pd.concat(
        [
            pd.DataFrame({"barcode": s.barcodes, "section": s.name, "patient": s.patient, "fold": fold, "known": False})
            for s, _, _ in parts
        ],
        ignore_index=True,
    )
    prediction = np.concatenate([np.broadcast_to(profile, label.shape) for _, label, profile in parts])
    return Predictions(prediction.astype(np.float32), np.concatenate([label for _, label, _ in parts]), np.array(panel), obs)


def reported(dataset: str) -> pd.DataFrame:
    """Return what ASIGN's Table I prints for a dataset, in the columns of `control_table`; empty where it prints nothing."""
    name = load_table("table1").reported_dataset.get(dataset)
    table = pd.read_csv(paths.TABLES / "reported.csv")
    table = table[(table["paper"] == "ASIGN") & (table["table"] == "I") & (table["dataset"] == name)]
    wide = table.pivot(index="row", columns="metric", values="mean").reindex(columns=["MSE", "MAE", "PCC"])
    return wide.set_axis(list(NAMES), axis=1).rename_axis(columns=None).reset_index().rename(columns={"row": "reported"})


def markdown(table: pd.DataFrame, printed: pd.DataFrame) -> str:
    """Render the controls, and what is printed, as one markdown table."""
    lines = ["| | tested on | mean over | MSE | MAE | PCC per spot |", "|---|---|---|---:|---:|---:|"]
    for row in table.to_dict("records"):
        cells = [f"{row[name]:.4f}" + (f" ± {row[f'{name}_sd']:.3f}" if row.get(f"{name}_sd", np.nan) == row.get(f"{name}_sd") else "") for name in NAMES]
        lines.append(f"| *{row['control']}* | {row['tested on']} | {row['mean over']} | {' | '.join(cells)} |")
    for row in printed.to_dict("records"):
        lines.append(f"| reported: {row['reported']} | | | " + " | ".join(f"{row[name]:.3f}" for name in NAMES) + " |")
    return "\n".join(lines) + "\n"
