"""Metrics, each with its axis in its name, and how its values become one number per patient.

"PCC" names at least four quantities in this field, which differ by more than methods do. Here each is
declared with what it correlates over (`axis`), which rows go into one call (`within`) and how many values
become one (`reduce`):

=============================  =================================================  ====================
name                           one value for                                      the papers' name
=============================  =================================================  ====================
``mse``, ``mae``               a patient: all spots and genes together            MSE, MAE
``pcc_per_spot``               a spot, across genes; mean over a patient's spots
``pcc_per_spot_zero``          the same, where an undefined value counts as 0     PCC (ASIGN, MagNet)
``pcc_per_gene``               a gene, across the spots of one section; mean      Hist2ST; headline here
                               over genes, then sections
``pcc_per_gene_pooled`` and    a gene, across all spots of a fold's patients;     PCC@M, PCC@S, PCC@F
``_median``, ``_quartile``     mean, median, first quartile over genes            (EGN, SGN, PixNet)
``pcc_flat``                   a patient: all spots and genes as one long vector
=============================  =================================================  ====================

The correlation is exact, without an epsilon: where a side is constant it is undefined (NaN), left out of
the mean, and its share reported. The papers' code counts such a value as 0 (ASIGN, through an epsilon of
1e-8; `pcc_per_spot_zero` alone has that rule) or as -1 (EGN). A prediction that is constant within a
section has no per-gene correlation at all. Rows marked `known` are never scored.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd

from stlib.predictions import Predictions
from stlib.records import require_known

OVERVIEW = ("pcc_per_gene", "pcc_per_spot", "mse", "mae")
KEYS = {"section": ["fold", "patient", "section"], "patient": ["fold", "patient"], "fold": ["fold"]}


def mse(prediction: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Return the mean squared error over all spots and genes of (N, G), a scalar."""
    return np.square(np.subtract(prediction, truth, dtype=np.float64)).mean()


def mae(prediction: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Return the mean absolute error over all spots and genes of (N, G), a scalar."""
    return np.abs(np.subtract(prediction, truth, dtype=np.float64)).mean()


def pcc_per_spot(prediction: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Correlate across the genes of each spot: (N, G) -> (N,), NaN where a spot's profile is flat.

    The genes' mean levels, the same in every tissue, make most of it: a constant profile scores high.
    """
    return _pearson(prediction, truth, axis=1)


def pcc_per_gene(prediction: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Correlate across the spots for each gene: (N, G) -> (G,), NaN where a gene is constant.

    Examples
    --------
    >>> truth = np.array([[1, 1], [2, 3], [3, 2]])
    >>> pcc_per_gene(np.array([[2, 5], [4, 5], [6, 5]]), truth)
    array([ 1., nan])
    """
    return _pearson(prediction, truth, axis=0)


def pcc_flat(prediction: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Correlate all spots and genes of (N, G) as one vector, a scalar."""
    return _pearson(np.ravel(prediction), np.ravel(truth), axis=0)


def _pearson(prediction: np.ndarray, truth: np.ndarray, axis: int) -> np.ndarray:
    """Return Pearson's r along an axis, NaN where a side is constant."""
    sides = []
    defined = True
    for values in (prediction, truth):
        values = np.asarray(values, np.float64)
        # by the values themselves: a rounded mean would leave a constant a tiny variance
        defined &= values.max(axis) > values.min(axis)
        centred = values - values.mean(axis, keepdims=True)
        norm = np.linalg.norm(centred, axis=axis, keepdims=True)
        sides.append(centred / np.where(norm > 0, norm, 1))
    r = np.clip((sides[0] * sides[1]).sum(axis), -1, 1)
    return np.where(defined, r, np.nan)


def mean_defined(values: np.ndarray) -> float:
    """Return the mean of what is not NaN; NaN if nothing is left."""
    return _of_defined(np.mean, values)


def mean_zero(values: np.ndarray) -> float:
    """Return the mean with 0 in place of NaN."""
    return float(np.nan_to_num(values).mean())


def median_defined(values: np.ndarray) -> float:
    """Return the median of what is not NaN; NaN if nothing is left."""
    return _of_defined(np.median, values)


def quartile_defined(values: np.ndarray) -> float:
    """Return the first quartile of what is not NaN; NaN if nothing is left."""
    return _of_defined(lambda defined: np.quantile(defined, 0.25), values)


def _of_defined(statistic: Callable, values: np.ndarray) -> float:
    defined = values[~np.isnan(values)]
    return float(statistic(defined)) if defined.size else float("nan")


@dataclass(frozen=True)
class Metric:
    """What a metric is."""

    label: str  # head of a table's column
    function: Callable[[np.ndarray, np.ndarray], np.ndarray]  # prediction, truth (N, G) -> one, (N,) or (G,)
    range: tuple[float, float]  # least and greatest possible value
    higher_is_better: bool  # bold face and arrows follow from it
    axis: str  # what is averaged or correlated over
    within: Literal["section", "patient", "fold"]  # whose rows go into one call of `function`
    reduce: Callable[[np.ndarray], float] = mean_defined  # its values -> one

    @property
    def unit(self) -> str:
        """What one score belongs to: ``patient``, or ``fold`` where a fold's patients are pooled."""
        return "fold" if self.within == "fold" else "patient"


def _error(label: str, function: Callable) -> Metric:
    return Metric(label, function, (0, float("inf")), False, "spots and genes", "patient")


def _pcc(label: str, function: Callable, axis: str, within: str, reduce: Callable = mean_defined) -> Metric:
    return Metric(label, function, (-1, 1), True, axis, within, reduce)


SPOT, SECTION, FOLD = "genes of a spot", "spots of a section", "spots of a fold"
METRICS = {
    "mse": _error("MSE", mse),
    "mae": _error("MAE", mae),
    "pcc_per_spot": _pcc("PCC per spot", pcc_per_spot, SPOT, "patient"),
    "pcc_per_spot_zero": _pcc("PCC per spot, flat as 0", pcc_per_spot, SPOT, "patient", mean_zero),
    "pcc_per_gene": _pcc("PCC per gene", pcc_per_gene, SECTION, "section"),
    "pcc_per_gene_pooled": _pcc("PCC per gene, pooled (mean)", pcc_per_gene, FOLD, "fold"),
    "pcc_per_gene_pooled_median": _pcc(
        "PCC per gene, pooled (median)", pcc_per_gene, FOLD, "fold", median_defined
    ),
    "pcc_per_gene_pooled_quartile": _pcc(
        "PCC per gene, pooled (first quartile)", pcc_per_gene, FOLD, "fold", quartile_defined
    ),
    "pcc_flat": _pcc("PCC, flat", pcc_flat, "spots and genes", "patient"),
}


def find(name: str) -> Metric:
    """Return a metric by its name.

    Raises
    ------
    ValueError
        If there is none of that name.
    """
    require_known(name, METRICS, f"metric '{name}' is not declared in stlib/metrics.py")
    return METRICS[name]


def scores(predictions: Predictions, name: str | Metric) -> pd.DataFrame:
    """Score every patient, or every fold where the metric pools a fold's patients.

    The metric is a name, or one that is not declared here.

    Returns
    -------
    pandas.DataFrame
        Index ``patient`` (or ``fold``); `value`, and `undefined`, the share of correlations that a constant
        side left undefined.

    Raises
    ------
    ValueError
        If the metric is unknown, or a scored value is missing or not finite.
    """
    metric = name if isinstance(name, Metric) else find(name)
    return (
        _evaluate(predictions, metric, metric.within)
        .groupby(metric.unit, sort=False)[["value", "undefined"]]
        .mean()
    )


def score(predictions: Predictions, name: str) -> pd.Series:
    """Return the values of `scores`: one per patient (or fold), NaN where undefined."""
    return scores(predictions, name)["value"].rename(name)


def overview(predictions: Predictions) -> pd.DataFrame:
    """Score every patient by the metrics of `OVERVIEW`: one row a patient, one column a metric."""
    return pd.concat([score(predictions, name) for name in OVERVIEW], axis=1)


def by_fold(predictions: Predictions, name: str) -> pd.Series:
    """Score every fold: all its spots together, but for `pcc_per_gene`, the mean over its patients."""
    metric = find(name)
    if metric.within == "section":
        patients = (
            _evaluate(predictions, metric, "section").groupby(["fold", "patient"], sort=False)["value"].mean()
        )
        return patients.groupby("fold", sort=False).mean().rename(name)
    return _evaluate(predictions, metric, "fold").set_index("fold")["value"].rename(name)


def _evaluate(predictions: Predictions, metric: Metric, within: str) -> pd.DataFrame:
    """Apply a metric to each group of scored rows: columns fold, (patient, section), value, undefined."""
    rows = []
    for name in predictions.obs["fold"].unique():
        fold = _scored(predictions, name)
        for index in fold.obs.groupby(KEYS[within], sort=False).indices.values():
            values = np.atleast_1d(metric.function(fold.prediction[index], fold.truth[index]))
            place = fold.obs.iloc[index[0]][KEYS[within]].to_dict()
            rows.append(place | {"value": metric.reduce(values), "undefined": np.isnan(values).mean()})
    return pd.DataFrame(rows)


def _scored(predictions: Predictions, name: str) -> Predictions:
    """Return the rows of a fold that are scored, and the genes of its panel, complete."""
    fold = predictions.fold(name)
    rows = ~fold.obs["known"].to_numpy(bool)
    if not rows.any():
        raise ValueError(
            f"fold '{name}' needs rows to score, found only known ones ({len(rows)}). Correct its "
            "test sections"
        )
    fold = Predictions(fold.prediction[rows], fold.truth[rows], fold.genes, fold.obs[rows])
    for what in ("prediction", "truth"):
        bad = ~np.isfinite(getattr(fold, what))
        if bad.any():
            row, gene = np.argwhere(bad)[0]
            raise ValueError(
                f"{what} must be finite in every gene of its fold's panel, found {bad.sum()} of "
                f"{bad.size} values that are not "
                f"(fold '{name}', section '{fold.obs['section'].iloc[row]}', gene "
                f"'{fold.genes[gene]}'). Make the run anew"
            )
    return fold


def constant(predictions: Predictions) -> bool:
    """Return whether every section is predicted to be the same everywhere, as by a mean."""
    for name in predictions.obs["fold"].unique():
        fold = _scored(predictions, name)
        for index in fold.obs.groupby("section", sort=False).indices.values():
            if np.ptp(fold.prediction[index], axis=0).any():
                return False
    return True
