"""Under which conditions runs were made: what was reduced against the papers, on which machine, in which time."""

import json
from dataclasses import fields

import pandas as pd

from stlib.models import method
from stlib.results import Run


def reductions(runs: list[Run]) -> list[str]:
    """Say, for a table's caption, every setting that differs from the method's paper, and what encoder the features come from.

    Parameters
    ----------
    runs
        Those of one table; the shared run of the controls stands for its members.
    """
    params = runs[0].params
    frozen = params.encoder
    trained = "weight-free" if frozen == "stain" else "untrained" if frozen.endswith("@untrained") else "pretrained"
    notes = [f"Frozen features: `{frozen}` ({trained})."]
    for run in (member for run in runs for member in run.members):
        ours, paper = run.config, method(run.model).Config(**method(run.model).PROTOCOLS[run.step])
        changed = [field.name for field in fields(ours) if getattr(ours, field.name) != getattr(paper, field.name)]
        if changed:
            listed = ", ".join(f"{name} {getattr(ours, name)} ({getattr(paper, name)})" for name in changed)
            notes.append(f"{run.model}, {run.step}: settings other than the paper's, which stand in brackets: {listed}.")
    return notes


def report(runs: list[Run]) -> pd.DataFrame:
    """Return device, seconds and peak memory of each run, read from its record."""
    rows = []
    for run in (member for run in runs for member in run.members):
        record = json.loads(run.record.read_text())
        rows.append({"protocol": run.step, "model": run.model, "setting": run.setting, "seed": run.seed}
                    | {key: record[key] for key in ("device", "train_seconds", "seconds", "peak_memory_mb")})  # fmt: skip
    return pd.DataFrame(rows)
