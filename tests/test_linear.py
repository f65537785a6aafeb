import numpy as np
import pytest

from stlib import linear
from stlib.linear import fit_ridge


@pytest.fixture
def data():
    rng = np.random.default_rng(0)
    features = rng.normal(size=(60, 4))
    return (
        features,
        features @ rng.normal(size=(4, 3)) + rng.normal(size=(60, 3)) + 5,
        np.repeat([0, 1, 2], 20),
    )


def closed_form(features, labels, penalty):
    centred, mean = features - features.mean(0), labels.mean(0)
    weight = np.linalg.solve(
        centred.T @ centred + penalty * np.eye(features.shape[1]), centred.T @ (labels - mean)
    )
    return weight, mean - features.mean(0) @ weight


def test_it_is_the_closed_form(data, monkeypatch):
    features, labels, groups = data
    monkeypatch.setattr(linear, "PENALTIES", np.array([7.0]))
    weight, bias = fit_ridge(features, labels, groups)
    wanted = closed_form(features, labels, 7.0)
    np.testing.assert_allclose(weight, wanted[0], rtol=1e-5)
    np.testing.assert_allclose(bias, wanted[1], rtol=1e-5)


def test_the_penalty_is_that_of_the_lowest_error_on_left_out_groups(data, monkeypatch):
    features, labels, groups = data
    features = (
        features + 2.0 * groups[:, None]
    )  # each patient stains differently, which the labels do not follow
    monkeypatch.setattr(linear, "PENALTIES", np.array([0.1, 100.0, 1e4]))
    errors = []
    for penalty in linear.PENALTIES:
        squares = []
        for group in range(3):
            out = groups == group
            weight, bias = closed_form(features[~out], labels[~out], penalty)
            squares.append(((features[out] @ weight + bias - labels[out]) ** 2).mean())
        errors.append(np.mean(squares))
    best = linear.PENALTIES[np.argmin(errors)]
    weight, _ = fit_ridge(features, labels, groups)
    np.testing.assert_allclose(weight, closed_form(features, labels, best)[0], rtol=1e-4)


def test_a_single_group_leaves_out_rows(data):
    features, labels, _ = data
    weight, bias = fit_ridge(features, labels, np.zeros(60))
    assert weight.shape == (4, 3) and bias.shape == (3,) and weight.dtype == np.float32
