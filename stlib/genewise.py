"""Which genes a method predicts at all: each gene's correlation within sections, against chance.

One number per gene: the correlation across the spots of a section, mean over the sections of a patient, mean
over patients. Chance is a prediction that lies elsewhere in the tissue: it is pushed along the section, the
end of each row into the start of the next, so that most neighbours stay neighbours. Shuffled spots would not
do. Tissue is smooth, and two smooth maps agree more often by chance than two of shuffled spots: of made maps
that share nothing and are smooth over one pitch, 25 % have p < 0.05 there. Serial sections agree by the same
chance, so all sections of a patient are pushed by the same part of their length.

p is one-sided, the share of pushes that do as well; q is p under control of the false discoveries among the
genes of a row. It is still too small where maps are smooth: of three made serial sections that share nothing
with the prediction 8 % of the genes have p < 0.05 if they are smooth over one pitch, 12 % over two.
"""

from collections.abc import Iterator, Sequence
from itertools import groupby

import numpy as np
import pandas as pd
from scipy.spatial import KDTree

from stlib import ceiling, metrics, statistics
from stlib.ceiling import Noises
from stlib.predictions import Predictions
from stlib.scores import KEYS, Load, predicted, read_run
from stlib.tables import PLACE, Table, rows_for

PUSHES = 999  # each with one shift for every patient
LEAST = 0.1  # a shift is at least this part of a section, from either end


def genes(
    table: Table, dataset: str, reachable: dict[tuple[str, ...], Noises], load: Load = read_run
) -> pd.DataFrame:
    """Score every gene of every row of a table that is no constant.

    `reachable` is from `stlib.scores.reachable`; empty: no ceiling is known.

    Returns
    -------
    pandas.DataFrame
        One line per row and gene: `pcc` with its 95 % interval `low`, `high` over `n` patients (Student's t),
        `p`, `q` as above; `ceiling` of the same correlation, `share`, the part of it that is reached, and
        `counting`, the ceiling if counting were the only noise. Correlations are means over seeds.
    """
    rows, lines = rows_for(table, dataset), []
    tops = {place: [ceiling.by_gene(noise) for noise in noises] for place, noises in reachable.items()}
    for place, group in groupby(predicted(table, dataset, load), key=lambda found: found[0]):
        seeds = [predictions for _, _, predictions in group]
        if metrics.constant(seeds[0]):
            continue
        row, found = rows[place], score(seeds)
        below, above = tops.get(tuple(getattr(row, key) for key in PLACE), (np.nan, np.nan))
        found = found.assign(q=statistics.benjamini_hochberg(found["p"]), ceiling=below, counting=above)
        found = found.assign(share=found["pcc"] / found["ceiling"].where(found["ceiling"] > 0))
        about = {key: getattr(row, key) for key in KEYS}
        lines.append(found.reset_index().assign(**about))
    order = [*KEYS, "gene", "pcc", "low", "high", "n", "p", "q", "ceiling", "share", "counting"]
    return pd.concat(lines, ignore_index=True)[order] if lines else pd.DataFrame(columns=order)


def score(seeds: Sequence[Predictions]) -> pd.DataFrame:
    """Score every gene of a method, trained with some seeds: index `gene`; `pcc`, `low`, `high`, `n`, `p`."""
    genes = seeds[0].genes
    sections = [
        (parts[0][0], parts[0][1], np.mean([pushed for *_, pushed in parts], 0))
        for parts in zip(*map(_sections, seeds), strict=True)
    ]
    patients = np.array([patient for patient, *_ in sections])
    found = np.full((len(sections), len(genes)), np.nan)
    for own, (_, columns, pushed) in zip(found, sections, strict=True):
        own[columns] = pushed[0]
    weight = _weights(patients, ~np.isnan(found))
    rng, chance = np.random.default_rng(0), np.zeros((PUSHES, len(genes)))
    part = {patient: rng.uniform(LEAST, 1 - LEAST, PUSHES) for patient in pd.unique(patients)}
    for (patient, columns, pushed), own in zip(sections, weight, strict=True):
        chosen = (part[patient] * len(pushed)).astype(int)
        chance[:, columns] += np.nan_to_num(pushed)[chosen] * own[columns]
    by_patient = pd.DataFrame(found).groupby(patients).mean()
    summaries = [statistics.summary(by_patient[column]) for column in by_patient]
    beyond = (chance >= np.nansum(weight * found, 0)).sum(0) + 1
    table = pd.DataFrame(summaries, pd.Index(genes, name="gene")).rename(columns={"mean": "pcc"})
    p = np.where(weight.any(0), beyond / (PUSHES + 1), np.nan)
    return table[["pcc", "low", "high", "n"]].assign(p=p)


def predictable(found: pd.DataFrame) -> list[str]:
    """Say of each method how many genes it predicts (`genes`)."""
    said = []
    for (protocol, _, size), group in found.groupby(PLACE, sort=False):
        counts = [
            f"{label} {(row['q'] < 0.05).sum()} of {len(row)}"
            for label, row in group.groupby("label", sort=False)
        ]
        said.append(
            "Genes of the folds' panels predicted at q < 0.05 against predictions pushed along the section "
            f"({', '.join(filter(None, (protocol, size)))}): {'; '.join(counts)}."
        )
    return said


def _sections(predictions: Predictions) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    """Yield patient, genes of the panel, and their correlations when pushed by 0, 1, ... spots (N, panel)."""
    for name in predictions.obs["fold"].unique():
        here = (predictions.obs["fold"] == name).to_numpy() & ~predictions.obs["known"].to_numpy(bool)
        columns = np.flatnonzero(~np.isnan(predictions.truth[here]).all(0))
        for index in predictions.obs[here].groupby("section", sort=False).indices.values():
            rows = np.flatnonzero(here)[index]
            rows = rows[along(predictions.obs.iloc[rows][["x_um", "y_um"]].to_numpy())]
            if len(rows) < 3:
                continue
            sides = []
            for values in (predictions.prediction, predictions.truth):
                values = values[np.ix_(rows, columns)].astype(np.float64)
                flat = values.max(0) == values.min(0)
                values -= values.mean(0)
                norm = np.linalg.norm(values, axis=0)
                sides.append(np.where(flat, np.nan, values / np.where(flat, 1, norm)))
            ours, theirs = (np.fft.rfft(side, axis=0) for side in sides)
            pushed = np.fft.irfft(ours * theirs.conj(), len(rows), axis=0)  # all circular shifts at once
            yield predictions.obs["patient"].iloc[rows[0]], columns, pushed


def along(places: np.ndarray) -> np.ndarray:
    """Order places (N, 2) row by row (N,): pushed along it, rows keep their neighbours above and below."""
    pitch = np.median(KDTree(places).query(places, k=2)[0][:, 1]) if len(places) > 1 else 1
    row = np.round(places[:, 1] / pitch).astype(int)
    return np.lexsort((places[:, 0], row))


def _weights(patients: np.ndarray, defined: np.ndarray) -> np.ndarray:
    """Return what each section counts in the mean over patients of the mean over their sections (S, G)."""
    of_patient = np.stack([defined[patients == patient].sum(0) for patient in patients])
    number = sum((defined[patients == patient].any(0)).astype(int) for patient in np.unique(patients))
    return np.where(defined, 1 / (np.maximum(of_patient, 1) * np.maximum(number, 1)), 0)
