"""Overlap against measured numbers, by hand, and in closed form."""

import numpy as np
import pytest
import shapely
from shapely.geometry import Point

from stlib.overlap import circle_overlap, contours, polygon_overlap

SQUARE = np.array([[0, 0], [2, 0], [2, 2], [0, 2]], float)


def test_circle_overlap_meets_the_measured_numbers():
    distance = [0, 1, 10, 50, 112, 150, 200, 220, 223, 224, 300]
    exact = [1, 0.988696, 0.892466, 0.560273, 0.243010, 0.121254, 0.021146, 0.001430, 0.000179, 0, 0]
    assert circle_overlap(distance, 112, 112) == pytest.approx(exact, abs=6e-7)
    assert circle_overlap(0, 112, 100) == pytest.approx(100**2 / 112**2)  # one within the other
    assert circle_overlap(12, 112, 100) == pytest.approx(100**2 / 112**2)  # touching from within


def test_circle_overlap_equals_polygons():
    rng = np.random.default_rng(1)
    for d, r1, r2 in zip(
        rng.uniform(0, 3, 50), rng.uniform(0.2, 2, 50), rng.uniform(0.2, 2, 50), strict=True
    ):
        a, b = Point(0, 0).buffer(r1, quad_segs=400), Point(d, 0).buffer(r2, quad_segs=400)
        assert circle_overlap(d, r1, r2) == pytest.approx(a.intersection(b).area / a.union(b).area, abs=1e-5)


def test_contours_have_the_area_that_was_measured():
    (contour,) = contours([[1000, 2000]], 112)
    assert contour.shape == (99, 2)  # 100 points, the last of which repeats the first
    assert np.linalg.norm(contour - [1000, 2000], axis=1) == pytest.approx(112)
    assert shapely.Polygon(contour).area == pytest.approx(39382, abs=0.5)
    cut = np.trunc(contours([[0, 0]], 112)[0])  # as the released code does; the papers' figure is 38,895
    assert shapely.Polygon(cut).area == 38895.5
    assert shapely.Polygon(contours([[0, 0]], 112, points=10_000)[0]).area == pytest.approx(
        np.pi * 112**2, rel=1e-6
    )


@pytest.mark.parametrize(
    ("other", "expected"),
    [
        (SQUARE, 1),  # identical
        (SQUARE + [1, 1], 1 / 7),
        (SQUARE + [1, 0], 1 / 3),  # two edges on the same lines
        (SQUARE / 2 + 0.5, 1 / 4),  # nested
        (SQUARE / 2, 1 / 4),  # nested, from a common corner
        (SQUARE + [2, 0], 0),  # an upright edge in common
        (SQUARE + [0, 2], 0),  # a level one
        (SQUARE + [2, 2], 0),  # a corner
        (SQUARE + [5, 0], 0),
        (SQUARE + [0, 5], 0),
        ([[1, -1], [3, 1], [1, 3], [-1, 1]], 4 / 8),  # the square around it on its corner
        ([[1, 0], [2, 1], [1, 2], [0, 1]], 2 / 4),  # the one within
        ([[-1, 0.5], [3, 0.5], [3, 1.5], [-1, 1.5]], 2 / 6),  # a cross: no corner of either in the other
        ([[0, 0], [2, 0], [2, 2]], 1 / 2),  # another number of corners
        ([[0, 0], [1, 0], [2, 0], [2, 1], [2, 2], [0, 2]], 1),  # corners within an edge
    ],
)
def test_polygons_by_hand(other, expected):
    other = np.array(other, float)
    for a in (SQUARE, SQUARE[::-1], np.roll(SQUARE, 1, 0)):
        for b in (other, other[::-1], np.roll(other, 2, 0)):
            for first, second in ((a, b), (b, a), (a[:, ::-1], b[:, ::-1])):  # x and y exchanged too
                assert polygon_overlap(first[None], second[None]) == pytest.approx([expected], abs=1e-15)


def test_shapes_of_any_corners_overlap_in_proportion_to_their_areas():
    rng = np.random.default_rng(7)
    for corners in (3, 7, 99):  # a copy shrunk towards a point within lies within
        angle = np.sort(rng.uniform(0, 2 * np.pi, (50, corners)), 1)
        a = np.stack([np.cos(angle), 0.3 * np.sin(angle)], 2) + rng.normal(0, 5, (50, 1, 2))
        scale = rng.uniform(0.1, 0.9, (50, 1, 1))
        b = a.mean(1, keepdims=True) + scale * (a - a.mean(1, keepdims=True))
        for found in (polygon_overlap(a, b), polygon_overlap(b, a[:, ::-1])):
            np.testing.assert_allclose(found, scale.ravel() ** 2, rtol=1e-9)


def test_contours_overlap_the_same_in_any_affine_frame():
    rng = np.random.default_rng(5)
    place = rng.uniform(0, 20_000, (300, 2))
    moved = place + rng.uniform(-150, 150, (300, 2))
    a, b = contours(place, 112), contours(moved, 112)
    circles = circle_overlap(np.linalg.norm(moved - place, axis=1), 112, 112)
    plain = polygon_overlap(a, b)
    assert (plain > 0).sum() > 200 and abs(plain - circles).max() < 2e-4
    matrix = np.array([[0.9, -0.4], [0.5, 1.1]])
    for frame in (matrix, matrix * [1, -1]):
        np.testing.assert_allclose(polygon_overlap(a @ frame, b @ frame), plain, rtol=1e-8, atol=1e-12)
    np.testing.assert_allclose(polygon_overlap(a, a), 1, rtol=1e-14)


def test_contours_meet_the_released_codes_numbers():
    distance = np.array([0, 1, 10, 50, 112, 150, 200, 220, 223, 224])
    official = [1, 0.988689, 0.892437, 0.560163, 0.242868, 0.121124, 0.021059, 0.001392, 0.000160, 0]
    still = contours(np.zeros((10, 2)), 112, points=101)  # the measurement had 100 distinct points
    moved = contours(np.stack([distance, 0 * distance], 1), 112, points=101)
    assert polygon_overlap(still, moved) == pytest.approx(official, abs=6e-7)
    assert abs(polygon_overlap(still, moved) - circle_overlap(distance, 112, 112)).max() < 1.5e-4


def test_pairs_say_what_is_compared():
    a, b = SQUARE + np.zeros((3, 1, 1)), SQUARE + np.array([[[0, 0]], [[1, 0]], [[1, 1]], [[5, 0]]])
    pairs = np.array([[0, 1, 2, 2], [2, 1, 0, 3]])
    assert polygon_overlap(a, b, pairs) == pytest.approx([1 / 7, 1 / 3, 1, 0])
    assert polygon_overlap(b, b, np.array([[0, 1], [2, 2]])) == pytest.approx([1 / 7, 1 / 3])
    assert polygon_overlap(a, b, pairs[:, :0]).shape == (0,)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: circle_overlap(-1, 1, 1), "from 0 up"),
        (lambda: circle_overlap(1, 0, 1), "radius above 0"),
        (lambda: contours([[0, 0]], 0), "radius above 0"),
        (lambda: contours([[0, 0]], 1, points=3), "4 points"),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()
