"""Means over patients with their spread, and tests between methods: Welch's, and paired ones.

A patient is the unit: spots and sections of one patient are no independent repeats. So few of them have a
distribution that nobody knows, and two paired tests stand side by side: Student's, which assumes it normal,
and the exact test of signs, which assumes it symmetric and whose p no number of spots brings below
`smallest_p`.
"""

from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy.special import stdtrit


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
    from scipy.stats import ttest_ind  # a second: only for who tests

    return float(ttest_ind(one, two, equal_var=False).pvalue)


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
    from scipy.stats import ttest_1samp

    return float(ttest_1samp(values, 0).pvalue)


FLIPS = 2**16  # sign patterns that are counted: all of them up to 16 patients, else as many at random


def sign_flip(difference: pd.Series) -> float:
    """Return the two-sided p of the exact test of signs of differences within patients; NaN without one.

    Where a method is as likely to win as to lose by the same amount, each of the 2^n patterns of signs of the
    n differences is equally likely; p is the share of patterns whose mean lies as far from zero.

    Examples
    --------
    >>> sign_flip(pd.Series([1.0, 2.0, 3.0]))  # all of one sign: 2 of 8 patterns
    0.25
    """
    values = difference.dropna().to_numpy(np.float64)
    n = len(values)
    if not n:
        return float("nan")
    patterns = np.arange(2**n) if 2**n <= FLIPS else np.random.default_rng(0).integers(0, 2**n, FLIPS)
    signs = 1.0 - 2 * (patterns[:, None] >> np.arange(n) & 1)
    far = np.abs(signs @ values) >= abs(values.sum()) * (1 - 1e-12)
    return float(far.mean()) if 2**n <= FLIPS else float((far.sum() + 1) / (FLIPS + 1))


def smallest_p(n: int) -> float:
    """Return the smallest p that `sign_flip` can give n patients: two patterns of 2^n have the largest mean.

    Examples
    --------
    >>> smallest_p(4), smallest_p(8)
    (0.125, 0.0078125)
    """
    return 2 / 2**n if n and 2**n <= FLIPS else 1 / (FLIPS + 1) if n else float("nan")


def benjamini_hochberg(p: pd.Series) -> pd.Series:
    """Return q: the share of false discoveries among all with as small a p or smaller; NaN stays.

    Examples
    --------
    >>> benjamini_hochberg(pd.Series([0.01, 0.04, float("nan")])).tolist()
    [0.02, 0.04, nan]
    """
    return _corrected(p, "fdr_bh")


def holm(p: pd.Series) -> pd.Series:
    """Return p corrected for the number of tests by Holm's method; NaN is no test and stays.

    Examples
    --------
    >>> holm(pd.Series([0.01, 0.04, float("nan")])).tolist()
    [0.02, 0.04, nan]
    """
    return _corrected(p, "holm")


def _corrected(p: pd.Series, method: str) -> pd.Series:
    """Correct what was tested, whatever order it stands in."""
    tested = p.dropna()
    if tested.empty:
        return p
    from statsmodels.stats.multitest import multipletests

    return p.where(
        p.isna(), pd.Series(multipletests(tested, method=method)[1], tested.index).reindex(p.index)
    )
