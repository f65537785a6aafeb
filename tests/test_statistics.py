"""Spread over patients, and tests between methods."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from stlib import statistics


def test_summary_is_students_interval():
    values = pd.Series([0.2, 0.5, 0.6, 0.3])
    found = statistics.summary(values)
    assert found.sd == pytest.approx(values.std())
    assert (found.low, found.high) == pytest.approx(
        stats.t.interval(0.95, 3, values.mean(), stats.sem(values))
    )
    assert found.n == 4


def test_one_patient_has_no_interval_and_undefined_ones_are_left_out():
    found = statistics.summary(pd.Series([0.5, np.nan]))
    assert found.mean == 0.5 and found.n == 1 and np.isnan([found.sd, found.low, found.high]).all()
    assert np.isnan(statistics.summary(pd.Series([np.nan])).mean)


def test_welch_by_pencil():
    # means 2 and 5, variances 1 and 4, three each: t = -3 / sqrt(5/3), df = (5/3)^2 / (1/18 + 16/18)
    p = statistics.welch(pd.Series([1.0, 2, 3]), pd.Series([3.0, 5, 7]))
    assert p == pytest.approx(2 * stats.t.cdf(-3 / (5 / 3) ** 0.5, (25 / 9) / (17 / 18)))
    assert np.isnan(statistics.welch(pd.Series([1.0]), pd.Series([1.0, 2, 3])))


def test_a_paired_test_sees_what_is_the_same_in_every_patient():
    values = pd.Series([0.1, 0.5, 0.9])
    better = values + pd.Series([0.05, 0.06, 0.07])
    assert statistics.paired(better - values) < 0.01 < 0.5 < statistics.welch(better, values)
    for without_spread in ([0.3], [0.0, 0.0], [0.3, 0.3]):
        assert np.isnan(statistics.paired(pd.Series(without_spread)))


def test_holm_corrects_for_the_tests_that_were_made():
    found = statistics.holm(pd.Series([0.04, np.nan, 0.01, 0.03], list("abcd")))
    assert found.round(6).to_dict() == pytest.approx(
        {"a": 0.06, "b": np.nan, "c": 0.03, "d": 0.06}, nan_ok=True
    )
    assert np.isnan(statistics.holm(pd.Series([np.nan]))).all()


def test_the_test_of_signs_counts_patterns_by_pencil():
    # sums of +-1 +-2 +-4: 7, 5, 3, 1 and their opposites; |5| or more: 4 of 8
    assert statistics.sign_flip(pd.Series([-1.0, 2, 4])) == 0.5
    assert statistics.sign_flip(pd.Series([1.0, 2, 4])) == 2 / 8 == statistics.smallest_p(3)
    assert statistics.sign_flip(pd.Series([0.0, 0, 0])) == 1 and np.isnan(
        statistics.sign_flip(pd.Series([np.nan]))
    )
    values = pd.Series(np.random.default_rng(0).normal(0.5, 1, 8))
    every = stats.permutation_test((values,), np.mean, permutation_type="samples", n_resamples=np.inf)
    assert statistics.sign_flip(values) == pytest.approx(every.pvalue)


def test_many_patients_are_tested_by_random_signs():
    values = pd.Series(np.random.default_rng(0).normal(0.4, 1, 22))
    assert statistics.sign_flip(values) == pytest.approx(statistics.paired(values), rel=0.3)
    assert statistics.sign_flip(values.abs()) == statistics.smallest_p(22) == 1 / (2**16 + 1)
    assert statistics.smallest_p(16) == 2 / 2**16 and np.isnan(statistics.smallest_p(0))


def test_false_discoveries_by_pencil():
    found = statistics.benjamini_hochberg(pd.Series([0.01, 0.04, np.nan, 0.03], list("abcd")))
    assert found.round(6).to_dict() == pytest.approx(
        {"a": 0.03, "b": 0.04, "c": np.nan, "d": 0.04}, nan_ok=True
    )
