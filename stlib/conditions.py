"""Under which conditions runs were made: what was reduced against the papers, where, and in which time."""

import json
from dataclasses import fields
from typing import Any

import pandas as pd

from stlib.models import method
from stlib.results import Run


def reductions(runs: list[Run]) -> list[str]:
    """Say for a caption which settings differ from a method's paper, and where frozen features come from.

    Parameters
    ----------
    runs
        Those of one table; the shared run of the controls stands for its members.
    """
    params = runs[0].params
    encoder = params.encoder
    kind = (
        "weight-free"
        if encoder == "stain"
        else "untrained"
        if encoder.endswith("@untrained")
        else "pretrained"
    )
    notes = [f"Frozen features: `{encoder}` ({kind})."]
    if params.training.patience is not None:
        patience = f"{params.training.patience} epochs after the lowest validation error"
        notes.append(f"The choice of the epoch ends {patience}.")
    if params.training.precision == "bf16-mixed":
        notes.append("Networks are trained and applied in bfloat16, their gene heads in float32.")
    return notes + [note for run in runs for member in run.members if (note := _changed(member))]


def _changed(run: Run) -> str:
    """Return what differs from the settings of the method's paper, or nothing."""
    found = method(run.model)
    paper = found.Config(**found.PROTOCOLS[run.step])
    pairs = [
        (field.name, _plain(getattr(run.config, field.name)), _plain(getattr(paper, field.name)))
        for field in fields(paper)
    ]
    listed = ", ".join(f"{name} {ours} ({theirs})" for name, ours, theirs in pairs if ours != theirs)
    if not listed:
        return ""
    return f"{run.model}, {run.step}: settings other than the paper's, which stand in brackets: {listed}."


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def report(runs: list[Run]) -> pd.DataFrame:
    """Return device, seconds and peak memory of each run, read from its record; controls share one."""
    shown = ("device", "train_seconds", "seconds", "peak_memory_mb")
    rows = []
    for run in runs:
        record = {"train_seconds": 0.0} | json.loads(run.record.read_text())  # controls are not trained
        about = {"protocol": run.step, "model": run.model, "setting": run.setting, "seed": run.seed}
        rows.append(about | {key: record[key] for key in shown})
    return pd.DataFrame(rows)
