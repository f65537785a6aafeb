"""What is compared, in numbers a pencil can check."""

import numpy as np
import pytest

from stlib.alignment import Field
from stlib.views import View, correlations, mutual_information, score, see, warp


def view(mask: np.ndarray, density: np.ndarray, um_per_px: float = 10.0) -> View:
    return View(np.full(2, um_per_px), mask, density.astype(np.float32))


def square() -> View:
    """A square of tissue of 20 px with a gradient of stain, on glass."""
    mask = np.zeros((60, 60), bool)
    mask[20:40, 10:30] = True
    return view(mask, np.where(mask, np.indices(mask.shape)[1] / 60 + 0.2, 0))


def test_warp_puts_a_pixel_where_the_map_says():
    image = np.zeros((4, 6))
    image[1, 2] = 1  # centre at (2.5, 1.5)
    moved = warp(image, np.array([[1.0, 0, 3], [0, 1, 1]]), (5, 8), fill=0)
    assert np.argwhere(moved == 1).tolist() == [[2, 5]]
    turned = warp(image, np.array([[0.0, -1, 4], [1, 0, 0]]), (6, 4), fill=0)  # (2.5, 1.5) -> (2.5, 2.5)
    assert np.argwhere(turned > 0.99).tolist() == [[2, 2]]
    assert (warp(np.zeros((2, 2, 3)), np.array([[1.0, 0, 9], [0, 1, 0]]), (2, 2)) == 255).all()


def test_itk_sees_pixels_where_they_are():
    one = View(np.array([4.0, 8.0]), np.ones((3, 5), bool), np.zeros((3, 5), np.float32))
    assert one.itk(one.density).TransformIndexToPhysicalPoint((1, 2)) == (6, 20)  # centres, um, x first
    assert one.places[2, 1].tolist() == [6, 20]


def test_the_mirror_image_lies_behind_the_slide():
    one = square()
    back = one.mirrored()
    assert np.array_equal(one.onto(one.density, one.flip, back), back.density)


def test_a_score_counts_what_agrees():
    one = square()
    same = score(np.eye(2, 3), one, one)
    assert (same.overlap, same.similarity) == pytest.approx((1, 1))
    assert same.detail > 0.99 and same.information > 2
    half = score(np.array([[1.0, 0, 100], [0, 1, 0]]), one, one)  # 10 of 20 px to the right
    assert half.overlap == pytest.approx(1 / 3, abs=0.02)
    assert half.total == half.overlap + half.similarity + half.detail < same.total
    field = Field(np.zeros(2), 100.0, np.tile([-100.0, 0], (7, 7, 1)))
    undone = score(np.array([[1.0, 0, 100], [0, 1, 0]]), one, one, field)
    assert undone.overlap == pytest.approx(1, abs=1e-6) and undone.similarity == pytest.approx(1, abs=1e-6)
    assert score(np.array([[1.0, 0, 9000], [0, 1, 0]]), one, one).total == 0  # apart


def test_pulled_reads_where_a_field_points_and_pushed_moves_along_it():
    one = square()
    right = Field(np.zeros(2), 100.0, np.tile([50.0, 0], (7, 7, 1)))  # 5 px
    density = one.density.astype(float)
    assert one.pushed(density, right)[:, 5:] == pytest.approx(density[:, :-5])
    assert one.pulled(density, right)[:, :-5] == pytest.approx(density[:, 5:])


def test_local_correlations_do_not_feel_what_is_common_to_all():
    rng = np.random.default_rng(0)
    ramp = np.tile(np.arange(80.0) * 5, (80, 1))
    a, b = rng.normal(size=(2, 80, 80))
    inner = (slice(20, 60),) * 2
    assert np.corrcoef((a + ramp).ravel(), (b + ramp).ravel())[0, 1] > 0.99
    assert correlations(a, a, np.array([3.0, 3]))[inner].mean() == pytest.approx(1)
    assert correlations(a, -2 * a, np.array([3.0, 3]))[inner].mean() == pytest.approx(-1)
    assert abs(correlations(a, b, np.array([3.0, 3]))[inner].mean()) < 0.05


def test_mutual_information_of_independent_and_equal_halves():
    a, b = np.tile([0.0, 0, 1, 1], 25), np.tile([0.0, 1, 0, 1], 25)
    assert mutual_information(a, b) == pytest.approx(0)
    assert mutual_information(a, 1 - a) == pytest.approx(np.log(2))


def test_see_meets_each_scale_by_whole_pixels():
    image = np.full((64, 96, 3), 240, np.uint8)
    image[16:48, 24:72] = [150, 60, 130]
    coarse, fine = see(image, np.array([8.0, 8.2]), (32.0, 8.1))
    assert coarse.um_per_px == pytest.approx([32, 32.8]) and coarse.mask.shape == (16, 24)
    assert fine.mask.shape == (64, 96) and fine.mask[32, 48] and not fine.mask[2, 2]
    assert coarse.density[8, 12] == pytest.approx(fine.density[32, 48], abs=0.02)
