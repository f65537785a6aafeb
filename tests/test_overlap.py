"""Overlap against measured numbers, by hand, and against Shapely."""

import numpy as np
import pytest
import shapely
from shapely.geometry import Point

from stlib import overlap
from stlib.overlap import circle_overlap, contours, polygon_overlap

SQUARE = np.array([[0, 0], [2, 0], [2, 2], [0, 2]], float)


def convex(rng: np.random.Generator, n: int, corners: int, flat: float = 1.0) -> np.ndarray:
    """Return polygons (n, corners, 2) inscribed in turned ellipses, of which many overlap."""
    angle = np.sort(rng.uniform(0, 2 * np.pi, (n, corners)), 1)
    ring = np.stack([np.cos(angle), flat * np.sin(angle)], 2)
    turn = rng.uniform(0, 2 * np.pi, n)
    cos, sin = np.cos(turn), np.sin(turn)
    matrix = np.moveaxis(np.array([[cos, -sin], [sin, cos]]), 2, 0)  # (n, 2, 2)
    return ring @ matrix + rng.normal(0, 0.6, (n, 1, 2))


def oracle(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return what GEOS finds."""
    a, b = shapely.polygons(a), shapely.polygons(b)
    shared = shapely.area(shapely.intersection(a, b))
    return shared / (shapely.area(a) + shapely.area(b) - shared)


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


@pytest.mark.parametrize(
    ("corners", "flat"), [((3, 3), 1), ((4, 7), 1), ((12, 30), 1), ((99, 99), 1), ((8, 8), 1e-4)]
)
def test_polygons_equal_shapely(corners, flat):
    rng = np.random.default_rng(corners[1])
    a, b = (convex(rng, 400, n, flat) for n in corners)
    expected = oracle(a, b)
    assert (expected > 0).sum() > 60 and (expected == 0).sum() > 20
    for found in (
        polygon_overlap(a, b),
        polygon_overlap(b, a),
        polygon_overlap(a[:, ::-1], b),
        polygon_overlap(-a * [1, -1], -b * [1, -1]),  # mirrored
    ):
        np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-15)


def test_contours_that_were_registered_equal_shapely():
    rng = np.random.default_rng(5)
    place = rng.uniform(0, 20_000, (300, 2))
    matrix = np.array([[0.9, -0.4], [0.5, 1.1]])
    a, b = contours(place, 112), contours(place + rng.uniform(-150, 150, (300, 2)), 112)
    a, b = a @ matrix.T, b @ (matrix.T * [1, -1]) * [1, -1]
    np.testing.assert_allclose(polygon_overlap(a, b), oracle(a, b), rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(polygon_overlap(a, a), 1, rtol=1e-14)


def test_contours_meet_the_released_codes_numbers():
    distance = np.array([0, 1, 10, 50, 112, 150, 200, 220, 223, 224])
    official = [1, 0.988689, 0.892437, 0.560163, 0.242868, 0.121124, 0.021059, 0.001392, 0.000160, 0]
    still = contours(np.zeros((10, 2)), 112, points=101)  # the measurement had 100 distinct points
    moved = contours(np.stack([distance, 0 * distance], 1), 112, points=101)
    assert polygon_overlap(still, moved) == pytest.approx(official, abs=6e-7)
    assert abs(polygon_overlap(still, moved) - circle_overlap(distance, 112, 112)).max() < 1.5e-4


def test_pairs_are_compared_a_block_at_a_time(monkeypatch):
    rng = np.random.default_rng(6)
    a, b = convex(rng, 30, 5), convex(rng, 20, 4)
    pairs = rng.integers(0, 20, (2, 70))
    expected = oracle(a[pairs[0]], b[pairs[1]])
    monkeypatch.setattr(overlap, "BLOCK", 40)  # a few pairs
    assert polygon_overlap(a, b, pairs) == pytest.approx(expected, rel=1e-9)
    assert polygon_overlap(a, b, pairs[:, :0]).shape == (0,)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: circle_overlap(-1, 1, 1), "from 0 up"),
        (lambda: circle_overlap(1, 0, 1), "radius above 0"),
        (lambda: contours([[0, 0]], 0), "radius above 0"),
        (lambda: contours([[0, 0]], 1, points=3), "4 points"),
        (lambda: polygon_overlap(SQUARE, SQUARE), r"found shape \(4, 2\)"),
        (lambda: polygon_overlap(SQUARE[None], np.stack([SQUARE, SQUARE])), "found 1 and 2"),
        (lambda: polygon_overlap(SQUARE[None] * [1, 0], SQUARE[None]), "area above 0"),
        (lambda: polygon_overlap(SQUARE[None] * np.nan, SQUARE[None]), "finite corners"),
        (lambda: polygon_overlap([[[0, 0], [4, 0], [1, 1], [4, 2], [0, 3], [2, 1]]], SQUARE[None]), "convex"),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()
