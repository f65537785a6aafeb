"""A field that is known, and none where there is none."""

import numpy as np
import pytest
from scipy import ndimage

from stlib import register_smooth
from stlib.alignment import Field
from stlib.register_smooth import local_shifts, smooth_field
from stlib.views import View

UM = np.full(2, 16.0)


def texture(seed: int, side: int = 110) -> np.ndarray:
    """Structure of about 100 um."""
    rough = np.random.default_rng(seed).normal(size=(side, side))
    return (10 * ndimage.gaussian_filter(rough, 3)).astype(np.float32)


def view() -> View:
    return View(UM, np.ones((110, 110), bool), texture(0))


def test_local_shifts_by_hand():
    a = texture(0)
    b = np.roll(a, (2, -3), (0, 1))  # what lies at (row, column) in a lies 2 lower and 3 further left in b
    rows = np.array([[40, 50], [60, 60]])
    shift, certainty = local_shifts(a, b, rows, np.array([5, 5]), np.array([7.0, 7]))
    assert shift == pytest.approx(np.array([[-3, 2], [-3, 2]]), abs=0.1)
    assert (np.linalg.eigvalsh(certainty) > 0).all()
    along_y = np.tile(np.sin(np.arange(110) / 4), (110, 1))  # stripes: nothing is known along y
    _, certainty = local_shifts(along_y, along_y, rows, np.array([5, 5]), np.array([7.0, 7]))
    assert certainty[0, 0, 0] > 10 * certainty[0, 1, 1]


def test_a_known_field_is_found():
    one, rng = view(), np.random.default_rng(3)
    true = Field(np.array([-300.0, -300]), 600.0, rng.normal(0, 60, (6, 6, 2)))
    moved = one.pulled(one.density.astype(float), true)  # so that place p of `moved` lies at forward(p)
    found = smooth_field(moved, one.mask, one.density, one)
    inner = one.places[15:-15, 15:-15]
    error = np.linalg.norm(found.forward(inner) - true.forward(inner), axis=-1)
    before = np.linalg.norm(inner - true.forward(inner), axis=-1)
    assert np.median(before) > 15 and np.median(error) < np.median(before) / 2
    assert found.strain < 0.5


def test_no_field_where_nothing_is_left_or_too_little_is_seen():
    one, rng = view(), np.random.default_rng(1)
    noisy = one.density + ndimage.gaussian_filter(rng.normal(size=one.mask.shape), 2)
    assert smooth_field(noisy, one.mask, one.density, one) is None
    few = np.zeros_like(one.mask)
    few[50:60, 50:60] = True
    assert smooth_field(one.density, few, one.density, one) is None


def test_splines_of_the_fit_are_those_of_the_field():
    rng = np.random.default_rng(0)
    grid = Field(np.array([10.0, 20]), 300.0, rng.normal(size=(7, 6, 2)))
    at = rng.uniform([310, 320], [1200, 1500], (50, 2))
    moved = at + register_smooth._basis(at, grid) @ grid.nodes.reshape(-1, 2)
    assert moved == pytest.approx(grid.forward(at))


def test_bending_is_nothing_for_what_is_affine():
    rows, columns = np.indices((7, 6))
    grid = Field(np.zeros(2), 300.0, np.zeros((7, 6, 2)))
    form = register_smooth._bending(grid)
    flat = (2 + 3 * rows - columns).ravel()
    assert flat @ (form @ flat) == pytest.approx(0)
    bent = (rows * columns).ravel()
    assert bent @ (form @ bent) == pytest.approx(2 * 6 * 5)  # twice the mixed difference, 1 in 6 x 5 cells
