"""Means over patients with their spread, and tests between methods: Welch's, and paired ones.

A patient is the unit: spots and sections of one patient are no independent repeats.
"""

from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy import stats
from scipy.special import stdtrit
from statsmodels.stats.multitest import multipletests


class Summary(NamedTuple):
    """A mean over units (patients, or folds) with its spread."""

    mean: float
    sd: float  # sample standard deviation (n - 1); NaN for one unit
    low: float  # 95 % interval of the mean, Student's t; NaN for one unit
    high: float
    n: int  # units with a defined value


def summary(values: pd.Series) -> Summary:
    """Summarise scores over patients: mean, standard deviation and a 95 % interval by Student's t.

    Undefined scores are left out and `n` says how many are left. One patient has no spread: sd and interval
    are NaN.

    Examples
    --------
    >>> [round(float(number), 2) for number in summary(pd.Series([1.0, 2.0, 3.0]))]
    [2.0, 1.0, -0.48, 4.48, 3.0]
    """
    defined = values.to_numpy(np.float64)
    defined = defined[~np.isnan(defined)]
    n = len(defined)
    if n < 2:
        return Summary(float(defined[0]) if n else float("nan"), *[float("nan")] * 3, n)
    mean, sd = float(defined.mean()), float(defined.std(ddof=1))
    half = float(stdtrit(n - 1, 0.975)) * sd / n**0.5
    return Summary(mean, sd, mean - half, mean + half, n)


def welch(values: pd.Series, other: pd.Series) -> float:
    """Return the two-sided p of Welch's t-test between two methods; NaN where one has fewer than two values.

    It treats the patients of the two as different people, as figure 4 of ASIGN does; `paired` does not.
    """
    one, two = values.dropna(), other.dropna()
    if min(len(one), len(two)) < 2:
        return float("nan")
    return float(stats.ttest_ind(one, two, equal_var=False).pvalue)


def paired(difference: pd.Series) -> float:
    """Return the two-sided p of a t-test of differences within patients.

    NaN for fewer than two, and where all are equal, be it to zero or not: without spread there is no test.

    Examples
    --------
    >>> round(paired(pd.Series([1.0, 2.0, 3.0])), 3)
    0.074
    """
    values = difference.dropna()
    if len(values) < 2 or np.ptp(values) == 0:
        return float("nan")
    return float(stats.ttest_1samp(values, 0).pvalue)


def holm(p: pd.Series) -> pd.Series:
    """Return p corrected for the number of tests by Holm's method; NaN is no test and stays.

    Examples
    --------
    >>> holm(pd.Series([0.01, 0.04, float("nan")])).tolist()
    [0.02, 0.04, nan]
    """
    tested = p.dropna()
    if tested.empty:
        return p
    corrected = multipletests(tested, method="holm")[1]
    return p.where(p.isna(), pd.Series(corrected, tested.index).reindex(p.index))
