"""Whether an interval over eight patients covers the true score in 95 of 100 datasets.

``python benchmarks/coverage.py`` draws a population of patients of the toy tissue, counts alone, deals them
into datasets of eight, scores the controls `mean` and `known_mean` on each as a table does, patient by
patient, beside a prediction that is no constant (the mean of the 20 nearest known spots), and writes
`results/coverage.md`. The true score is the mean over the whole population, each patient
scored in a dataset of eight. Beside Student's interval, which tables print, stands the percentile bootstrap.
"""

from collections.abc import Iterator

import numpy as np
import pandas as pd
from scipy import sparse
from tqdm import tqdm

from stlib import metrics, paths, statistics
from stlib.expression import log_proportion, panel_counts, top_mean_panel
from stlib.graph import nearest
from stlib.params import load_params
from stlib.predictions import Predictions, concatenate
from stlib.sections import Section
from stlib.toy import Options, Toy

DATASETS, PATIENTS, GENES, PANEL = 100, 8, 60, 30
NAMES = ("pcc_per_gene", "mse", "mae", "pcc_per_spot")
NEAREST = 20  # known spots
RESAMPLES = 2000


def population(patients: int) -> Iterator[list[Section]]:
    """Yield the two sections of each patient, counts alone; all share the genes and their programme."""
    params = load_params("toy")
    sections = {f"P{p}": [f"P{p}-1", f"P{p}-2"] for p in range(1, patients + 1)}
    toy = Toy(params.options(Options).model_copy(update={"genes": GENES}), sections, params.spot)
    for patient, names in sections.items():
        yield [_section(toy, patient, name) for name in names]


def _section(toy: Toy, patient: str, name: str) -> Section:
    counts, _ = toy.measure(name)
    array, position = toy.spots(name)
    barcodes = np.array([f"{column}x{row}" for column, row in array])
    return Section(
        name, patient, int(name[-1]), barcodes, toy.genes, sparse.csr_matrix(counts), array, position,
        np.full(2, toy.options.um_per_px), None, "circle", toy.spot.size_um, toy.spot.pitch_um,
    )  # fmt: skip


def controls(dataset: list[list[Section]]) -> dict[str, Predictions]:
    """Predict each patient of a dataset by the mean of the others, and by the own first section.

    As under `strict`: the panel is chosen without the test patient, for the latter with his first section.
    """
    parts: dict[str, list[Predictions]] = {"mean": [], "known_mean": [], "nearest": []}
    for tested in dataset:
        others = [section for patient in dataset if patient is not tested for section in patient]
        first, rest = tested[:1], tested[1:]
        for name in parts:
            known, shown = (others, tested) if name == "mean" else (first, rest)
            panel = top_mean_panel(others if name == "mean" else [*others, *first], PANEL)
            labels = np.concatenate([log_proportion(panel_counts(one, panel)) for one in known])
            for section in shown:
                profile = labels.mean(0)
                if name == "nearest":
                    profile = labels[nearest(first[0].array, section.array, NEAREST)[0]].mean(1)
                truth = log_proportion(panel_counts(section, panel))
                about = {"section": section.name, "patient": section.patient, "fold": section.patient}
                obs = pd.DataFrame({"barcode": section.barcodes} | about | {"known": False})
                guess = np.broadcast_to(profile, truth.shape).astype(np.float32)
                parts[name].append(Predictions(guess, truth, np.array(panel), obs))
    return {name: concatenate(found) for name, found in parts.items()}


def percentile(values: np.ndarray, rng: np.random.Generator) -> tuple[float, float]:
    """Return the 95 % interval of a mean by the percentile bootstrap."""
    means = values[rng.integers(0, len(values), (RESAMPLES, len(values)))].mean(1)
    return tuple(np.quantile(means, [0.025, 0.975]))


def study(datasets: int) -> pd.DataFrame:
    """Score the controls on datasets of eight and count how often intervals cover the true score.

    Returns
    -------
    pandas.DataFrame
        One line per control and metric: `true` score with its standard error `se`, datasets that Student's
        (`t`) and the percentile interval cover, and the mean widths of both.
    """
    everyone, scores = list(population(datasets * PATIENTS)), []
    for number in tqdm(range(datasets), desc="datasets"):
        predicted = controls(everyone[number * PATIENTS : (number + 1) * PATIENTS])
        for control, predictions in predicted.items():
            for name in NAMES:
                values = metrics.score(predictions, name)
                if values.isna().all():  # a constant has no correlation across spots
                    continue
                scores.append(pd.DataFrame({"control": control, "metric": name, "dataset": number,
                                            "value": values}))  # fmt: skip
    rng, lines = np.random.default_rng(0), []
    for (control, name), group in pd.concat(scores).groupby(["control", "metric"], sort=False):
        true = group["value"].mean()
        own = [values for _, values in group.groupby("dataset")["value"]]
        student = np.array([statistics.summary(values)[2:4] for values in own])
        boot = np.array([percentile(values.to_numpy(), rng) for values in own])
        line = {"control": control, "metric": name, "true": true, "se": group["value"].sem()}
        for kind, (low, high) in (("t", student.T), ("percentile", boot.T)):
            line |= {kind: int(((low <= true) & (true <= high)).sum()), f"{kind}_width": (high - low).mean()}
        lines.append(line)
    return pd.DataFrame(lines)


def markdown(found: pd.DataFrame, datasets: int) -> str:
    """Render the study."""
    lines = [
        "# Intervals over eight patients",
        "",
        f"{datasets} datasets of {PATIENTS} patients of the toy tissue, counts alone ({GENES} genes, {PANEL} "
        "in the panel, two sections each); how many of their 95 % intervals cover the true score, the mean "
        f"over all {datasets * PATIENTS} patients. `nearest` is the mean of the {NEAREST} known spots "
        "nearest in the array. Of 100 intervals that cover in 95 of 100 cases, 91 to 99 do so in 19 of 20 "
        "studies like this. Written by `python benchmarks/coverage.py`.",
        "",
        "| control | metric | true score (standard error) | Student's t, as in tables | its mean width "
        "| percentile bootstrap | its mean width |",
        "|---|---|---:|---:|---:|---:|---:|",
    ]
    for row in found.itertuples():
        lines.append(
            f"| `{row.control}` | {metrics.find(row.metric).label} | {row.true:.4f} ({row.se:.4f}) "
            f"| {row.t} | {row.t_width:.3f} | {row.percentile} | {row.percentile_width:.3f} |"
        )
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    print(paths.write_text(paths.RESULTS / "coverage.md", markdown(study(DATASETS), DATASETS)).read_text())
