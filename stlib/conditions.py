"""Under which conditions runs were made: what was reduced against the papers, where, and in which time."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import fields
from typing import Any

import pandas as pd

from stlib import paths, scales
from stlib.fingerprint import file_hash
from stlib.models import Config, method
from stlib.results import Run
from stlib.sections import Section
from stlib.task import config_of

RULES = {
    "highly_variable": "the variance of their Pearson residuals (highly variable)",
    "spatially_variable": "Moran's I of their Pearson residuals (spatially variable)",
}


def reductions(runs: list[Run]) -> list[str]:
    """Say for a caption where frozen features come from, what the panel is, and how runs were made.

    `runs` are those of one table; the shared run of the controls stands for its members.
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
    if params.panel.rule != "top_mean":
        notes.append(f"Panel: the {params.panel.size} genes that come first by {RULES[params.panel.rule]}.")
    if params.panel.add:
        notes.append(f"In the panel by name, whatever their counts: {', '.join(params.panel.add)}.")
    if params.training.patience is not None:
        patience = f"{params.training.patience} epochs after the lowest validation error"
        notes.append(f"The choice of the epoch ends {patience}.")
    if params.training.precision == "bf16-mixed":
        notes.append("Networks are trained and applied in bfloat16, their gene heads in float32.")
    members = [member for run in runs for member in run.members]
    return notes + list(dict.fromkeys(_transferred(member) for member in members if member.to))


def settings(runs: list[Run]) -> list[str]:
    """Say which settings of each method differ from those of its paper, or of its method if it is a variant.

    `runs` are those of one table; what several say is said once.
    """
    members = [member for run in runs for member in run.members]
    said = [note for member in members for note in (_reduced(member), _varied(member))]
    return [note for note in dict.fromkeys(said) if note]


def made(runs: list[Run], datasets: Iterable[str]) -> dict[str, Any]:
    """Return what a table was made with and of: versions, lock, and SHA-256 of each prepared section.

    The table predicts sections of `datasets`; each size is one.
    """
    versions = [json.loads(run.record.read_text())["versions"] for run in runs]
    sections = {}
    for name in datasets:
        manifest = paths.processed(name) / "manifest.json"
        sections[name] = json.loads(manifest.read_text()) if manifest.exists() else {}
    distinct = [one for place, one in enumerate(versions) if one not in versions[:place]]
    return {"versions": distinct, "lock": file_hash(paths.LOCK), "sections": sections}


def unreachable(sections: Mapping[str, Mapping[str, Section]]) -> list[str]:
    """Say of which datasets no ceiling is given, because their counts are not at hand.

    `sections` is dataset -> what `stlib.sections.load_prepared` returns.
    """
    absent = [name for name, found in sections.items() if not found]
    told = f"No share of what is reachable: the counts of {', '.join(absent)} are not prepared here."
    return [told] if absent else []


def _transferred(run: Run) -> str:
    """Return what a transfer brought to one scale, from its record."""
    return scales.sentence(run.dataset, run.to, json.loads(run.record.read_text())["transfer"])


def _reduced(run: Run) -> str:
    """Return what differs from the settings of the method's paper, its variant aside, or nothing."""
    found = method(run.model)
    stem = run.model.split("@")[0]
    paper = found.Config(**found.PROTOCOLS[run.protocol] | found.PAPER.get(run.protocol, {}))
    listed = _different(config_of(run.params, stem, run.protocol), paper)
    if not listed:
        return ""
    return f"{stem}, {run.step}: the paper's in brackets: {listed}."


def _varied(run: Run) -> str:
    """Return what a variant changes in its method, or nothing."""
    stem, _, variant = run.model.partition("@")
    if not variant:
        return ""
    listed = _different(run.config, config_of(run.params, stem, run.protocol))
    if not listed:
        return f"{run.model}, {run.step}: as {stem}."
    return f"{run.model}, {run.step}: as {stem}, whose settings stand in brackets, but {listed}."


def _different(ours: Config, theirs: Config) -> str:
    """List the settings in which two records differ, ours first."""
    pairs = [
        (field.name, _plain(getattr(ours, field.name)), _plain(getattr(theirs, field.name)))
        for field in fields(theirs)
    ]
    return ", ".join(f"{name} {own} ({other})" for name, own, other in pairs if own != other)


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def report(runs: list[Run]) -> pd.DataFrame:
    """Return device, seconds, peak memory and fingerprint of each run, from its record; controls share one.

    One line per run: `protocol`, `dataset`, `model`, `setting`, `seed`, `to` (of a transfer), `device`,
    `train_seconds`, `seconds`, `peak_memory_mb` and `fingerprint`.
    """
    shown = ("device", "train_seconds", "seconds", "peak_memory_mb", "fingerprint")
    rows = []
    for run in runs:
        record = {"train_seconds": 0.0} | json.loads(run.record.read_text())  # controls are not trained
        about = {"protocol": run.step, "dataset": run.dataset, "model": run.model}
        about |= {"setting": run.setting, "seed": run.seed, "to": run.to}
        rows.append(about | {key: record[key] for key in shown})
    return pd.DataFrame(rows)
