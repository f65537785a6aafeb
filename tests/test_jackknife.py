"""The interval of one patient, against a closed form and against its own coverage."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from scipy.ndimage import gaussian_filter

from stlib import jackknife
from stlib.predictions import Predictions

SIDE = 16


def one_patient(*errors):
    """Sections off by their error (SIDE, SIDE) in each of two genes; half a row more is known."""
    y, x = np.divmod(np.arange(SIDE**2), SIDE)
    about = {"barcode": "a", "section": "A0", "patient": "A", "fold": "A", "known": False}
    one = pd.DataFrame({"x_um": 200.0 * x, "y_um": 200.0 * y} | about)
    obs = pd.concat([one.assign(section=f"A{number}") for number, _ in enumerate(errors)])
    known = one.iloc[:8].assign(section="known", known=True)
    guess = np.repeat(np.ravel(errors), 2).reshape(-1, 2)
    guess = np.concatenate([guess, np.full((8, 2), 99.0)]).astype(np.float32)
    return Predictions(
        guess, np.zeros_like(guess), np.array(["g", "h"]), pd.concat([obs, known], ignore_index=True)
    )


def test_of_a_mean_it_is_students_interval_over_pieces():
    made = one_patient(np.random.default_rng(0).normal(size=(SIDE, SIDE)))
    (rests,) = jackknife.without_each_piece(made)
    assert len(rests) == 8 and {len(rest.obs) for rest in rests} == {224}
    assert not any(rest.obs["known"].any() for rest in rests)
    # pieces of 32: the mean without one is (8 m - piece) / 7, so the jackknife is that of the pieces' means
    total = np.square(made.prediction[:256]).sum()
    pieces = [(total - np.square(rest.prediction).sum()) / 64 for rest in rests]
    expected = stats.t.ppf(0.975, 7) * np.std(pieces, ddof=1) / 8**0.5
    assert jackknife.half_width(made, "mse") == pytest.approx(expected, rel=1e-4)


def test_smooth_errors_have_a_wide_interval_that_covers():
    rng, covered, single = np.random.default_rng(1), 0, 0
    for _ in range(40):
        error = gaussian_filter(rng.normal(size=(SIDE, SIDE)), 1.0, mode="wrap")
        error /= (1 / (4 * np.pi)) ** 0.5  # variance 1 in the mean over all such maps
        half, off = jackknife.half_width(one_patient(error), "mse"), abs(np.square(error).mean() - 1)
        covered += off < half
        single += off < 1.96 * np.square(error).std() / SIDE  # as if spots were independent
    assert covered >= 34 > single


def test_the_same_tissue_cut_twice_has_the_interval_of_one_cut():
    error = np.random.default_rng(0).normal(size=(SIDE, SIDE))
    once, twice = (jackknife.half_width(one_patient(*[error] * count), "mse") for count in (1, 2))
    assert twice == pytest.approx(once * (256 - 32) / (512 - 32) * 2, rel=1e-4)  # a piece is one of 16 now


def test_smooth_errors_of_serial_sections_are_covered():
    rng, covered = np.random.default_rng(2), 0
    for _ in range(40):
        shared, *own = gaussian_filter(rng.normal(size=(4, SIDE, SIDE)), (0, 1, 1), mode="wrap")
        errors = (np.sqrt(0.8) * shared + np.sqrt(0.2) * np.array(own)) / (1 / (4 * np.pi)) ** 0.5
        off = abs(np.square(errors).mean() - 1)
        covered += off < jackknife.half_width(one_patient(*errors), "mse")
    assert covered >= 35


def test_what_is_undefined_has_none():
    assert np.isnan(jackknife.half_width(one_patient(np.ones((SIDE, SIDE))), "pcc_per_gene"))
