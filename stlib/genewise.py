"""Which genes a method predicts at all: each gene's correlation within sections, against chance.

One number per gene: the correlation across the spots of a section, mean over the sections of a patient, mean
over patients. Chance is a prediction that lies elsewhere in the tissue, in two readings:

`p`          the spots of each section are shuffled. The mean of a correlation is then 0 and its variance
             1 / (n - 1), exactly; the sum over sections is taken as normal.
`p_shifted`  the prediction is pushed along the section, the end of each row into the start of the next, so
             that most neighbours stay neighbours. Tissue is smooth, and two smooth maps agree more often by
             chance than shuffled ones: this is the stricter reading. Of made maps that share nothing and
             are smooth over one pitch, 25 % have p < 0.05 and 9 % p_shifted < 0.05.

Both are one-sided, and q is p under control of the false discoveries among the genes of a row.
"""

from collections.abc import Iterator

import numpy as np
import pandas as pd
from scipy.spatial import KDTree
from scipy.special import ndtr

from stlib import metrics, statistics
from stlib.predictions import Predictions
from stlib.scores import KEYS, Load, Reachable, predicted, read_run
from stlib.tables import PLACE, Table, rows_for

SHIFTS = 999  # combinations of shifts, one for each section
LEAST = 10  # a shift is at least this part of a section


def genes(
    table: Table, dataset: str, reachable: dict[tuple[str, ...], Reachable], load: Load = read_run
) -> pd.DataFrame:
    """Score every gene of every row of a table that is no constant.

    Parameters
    ----------
    table, dataset
        Which table, for which data.
    reachable
        From `stlib.scores.reachable`; empty: no ceiling is known.
    load
        Run -> predictions. Default: from the run's folder.

    Returns
    -------
    pandas.DataFrame
        One line per row and gene: `pcc` with its 95 % interval `low`, `high` over `n` patients (Student's t),
        `p`, `q`, `p_shifted`, `q_shifted` as above; `ceiling` of the same correlation, `share`, the part of
        it that is reached, and `counting`, the ceiling if counting were the only noise. Seeds are averaged,
        correlations and p alike.
    """
    rows = rows_for(table, dataset)
    parts: dict[int, list[pd.DataFrame]] = {}
    for place, _, predictions in predicted(table, dataset, load):
        if not metrics.constant(predictions):
            parts.setdefault(place, []).append(score(predictions))
    lines = []
    for place, seeds in parts.items():
        row = rows[place]
        found = pd.concat(seeds).groupby(level="gene", sort=False).mean()
        known = reachable.get(tuple(getattr(row, key) for key in PLACE))
        top = pd.DataFrame(columns=["ceiling", "counting"], dtype=float) if known is None else known.genes
        found = found.assign(
            n=found["n"].round().astype(int),
            q=statistics.benjamini_hochberg(found["p"]),
            q_shifted=statistics.benjamini_hochberg(found["p_shifted"]),
        ).join(top)
        found = found.assign(share=found["pcc"] / found["ceiling"].where(found["ceiling"] > 0))
        about = {key: getattr(row, key) for key in KEYS}
        lines.append(found.reset_index().assign(**about))
    order = [*KEYS, "gene", "pcc", "low", "high", "n", "p", "q", "p_shifted", "q_shifted"]
    order += ["ceiling", "share", "counting"]
    return pd.concat(lines, ignore_index=True)[order] if lines else pd.DataFrame(columns=order)


def score(predictions: Predictions) -> pd.DataFrame:
    """Score every gene of one run: index `gene`; `pcc`, `low`, `high`, `n`, `p`, `p_shifted`."""
    sections = list(_sections(predictions))
    patients = np.array([patient for patient, *_ in sections])
    found = np.stack([pcc for _, pcc, _, _ in sections])  # (S, G)
    weight = _weights(patients, ~np.isnan(found))
    total = np.nansum(weight * found, 0)
    variance = (np.square(weight) / np.array([len(shifted) - 1 for *_, shifted in sections])[:, None]).sum(0)
    rng, pushed = np.random.default_rng(0), np.zeros((SHIFTS, found.shape[1]))
    for (_, _, columns, shifted), own in zip(sections, weight, strict=True):
        least = max(len(shifted) // LEAST, 1)
        chosen = rng.integers(least, max(len(shifted) - least, least + 1), SHIFTS)
        pushed[:, columns] += np.nan_to_num(shifted)[chosen] * own[columns]
    by_patient = pd.DataFrame(found).groupby(patients).mean()
    summaries = [statistics.summary(by_patient[column]) for column in by_patient]
    defined = weight.any(0)
    beyond = ((pushed >= total).sum(0) + 1) / (SHIFTS + 1)
    table = pd.DataFrame(summaries, pd.Index(predictions.genes, name="gene")).rename(columns={"mean": "pcc"})
    return table[["pcc", "low", "high", "n"]].assign(
        p=np.where(defined, ndtr(-total / np.sqrt(np.where(defined, variance, 1))), np.nan),
        p_shifted=np.where(defined, beyond, np.nan),
    )


def predictable(found: pd.DataFrame) -> list[str]:
    """Say of each method how many genes it predicts.

    Parameters
    ----------
    found
        From `genes`.
    """
    said = []
    for (protocol, _, size), group in found.groupby(PLACE, sort=False):
        counts = [
            f"{label} {(row['q'] < 0.05).sum()} ({(row['q_shifted'] < 0.05).sum()}) of {len(row)}"
            for label, row in group.groupby("label", sort=False)
        ]
        said.append(
            "Genes of the folds' panels predicted at q < 0.05 against shuffled spots, in brackets against "
            f"predictions pushed along the section ({', '.join(filter(None, (protocol, size)))}): "
            f"{'; '.join(counts)}."
        )
    return said


def _sections(predictions: Predictions) -> Iterator[tuple[str, np.ndarray, np.ndarray, np.ndarray]]:
    """Yield patient, correlations (G,), genes of the panel, and correlations when pushed (N, panel)."""
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
            shifted = np.fft.irfft(ours * theirs.conj(), len(rows), axis=0)  # all circular shifts at once
            pcc = np.full(len(predictions.genes), np.nan)
            pcc[columns] = shifted[0]
            yield predictions.obs["patient"].iloc[rows[0]], pcc, columns, shifted


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
