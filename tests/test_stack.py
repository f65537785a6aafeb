"""Edges across sections, by hand and against brute force with Shapely."""

import tracemalloc

import numpy as np
import pytest
import shapely
from test_graph import pairs

from stlib.graph import knn_graph
from stlib.overlap import circle_overlap, contours
from stlib.stack import cross_graph, overlap_graph, stack_graph


def test_overlap_graph_joins_different_sections_only():
    position = [[0, 0], [50, 0], [50, 0], [224, 0], [1000, 0]]
    edge_index, overlap = overlap_graph(position, 112, [1, 1, 2, 2, 3])
    assert pairs(edge_index) == {(0, 2), (2, 0), (1, 2), (2, 1), (1, 3), (3, 1)}  # 0-3 touch; 4 is alone
    assert overlap[edge_index[0] == 0] == pytest.approx([0.560273], abs=1e-6)
    assert overlap[(edge_index[0] == 1) & (edge_index[1] == 2)] == pytest.approx([1])


def test_cross_graph_by_hand():
    # two sections; 0 lies on 2 but looks more like 3, which is too far to overlap
    position = [[0, 0], [500, 0], [0, 0], [500, 0]]
    features = [[1, 0], [0, 1], [0.6, 0.8], [0.8, 0.6]]
    edge_index, e = cross_graph(position, [0, 0, 1, 1], features, radius=112, k=1)
    # e(0,2) = 1 + .6, e(0,3) = 0 + .8, e(1,2) = 0 + .8, e(1,3) = 1 + .6
    assert edge_index.tolist() == [[2, 3, 0, 1], [0, 1, 2, 3]]
    assert e == pytest.approx([1.6, 1.6, 1.6, 1.6])


def test_cross_graph_compares_candidates_only():
    position = [[0, 0], [300, 0], [600, 0], [900, 0]]
    features = [[1, 0], [0, 1], [1, 1], [1, 0]]  # 3 looks most like 0, but is the farthest
    near = cross_graph(position, [0, 1, 1, 1], features, radius=112, k=1, candidates=2)[0]
    assert (2, 0) in pairs(near) and (0, 3) in pairs(
        near
    )  # 3 has no other candidate than 0: the union keeps it
    assert (3, 0) in pairs(cross_graph(position, [0, 1, 1, 1], features, radius=112, k=1, candidates=3)[0])


def test_a_spot_chooses_among_its_own_candidates():
    position = [[0, 0], [100, 0], [10, 0], [1000, 0]]  # 1 is the nearest of 3, but 3 is not the nearest of 1
    features = [[1, 0], [0, 1], [1, 0], [0, 1]]
    edge_index, _ = cross_graph(position, [0, 0, 1, 1], features, radius=1, k=1, candidates=1)
    assert pairs(edge_index) == {(0, 2), (2, 0), (1, 2), (2, 1), (1, 3), (3, 1)}  # 1 chose 2, and 3 chose 1


def test_all_that_overlap_are_candidates():
    position = [[0, 0], [2.1, 0], [1, 0], [2, 0]]
    features = [[1, 0], [1, 0], [0, 1], [1, 0]]
    edge_index, _ = cross_graph(position, [0, 0, 1, 1], features, radius=5, k=1, candidates=1)
    assert (3, 0) in pairs(edge_index)  # not the nearest of 0, and itself better served by 1


@pytest.mark.parametrize("drawn", [False, True])
def test_cross_graph_equals_brute_force(drawn):
    rng = np.random.default_rng(2)
    n, k = 60, 3
    position, group = rng.uniform(0, 900, (n, 2)), rng.integers(0, 3, n)
    features = rng.normal(size=(n, 4))
    contour = contours(position, 112) if drawn else None
    edge_index, weight = cross_graph(position, group, features, 112, k, candidates=n, contour=contour)
    unit = features / np.linalg.norm(features, axis=1, keepdims=True)
    if drawn:
        shapes = shapely.polygons(contour)
        shared = shapely.area(shapely.intersection(shapes[:, None], shapes))
        iou = shared / (shapely.area(shapes)[:, None] + shapely.area(shapes) - shared)
    else:
        iou = circle_overlap(np.linalg.norm(position[:, None] - position[None], axis=2), 112, 112)
    e = iou + unit @ unit.T
    kept = np.zeros((n, n), bool)
    for section in range(3):  # the k best of each other section
        there = np.flatnonzero(group == section)
        best = there[np.argsort(-e[:, there], axis=1)[:, :k]]
        np.put_along_axis(kept, best, True, axis=1)
    kept &= group[:, None] != group[None]
    kept |= kept.T
    assert pairs(edge_index) == pairs(np.argwhere(kept).T)
    assert weight == pytest.approx(e[edge_index[1], edge_index[0]], abs=1e-6)


def test_each_pair_of_sections_has_its_own_k():
    position = [[0, 0]] * 6
    features = [[1, 0], [1, 0.1], [1, 0.2], [0, 1], [0.1, 1], [1, 9]]
    edge_index, _ = cross_graph(position, [0, 1, 1, 2, 2, 2], features, radius=1, k=1)
    # 0 looks most like 1 and 2, but has one of each section: 1 of section 1 and 5 of section 2
    chosen = {source for source, target in pairs(edge_index) if target == 0}
    assert {1, 5} <= chosen
    # 2 chose 0 or 5, and 3 and 4 chose 0: the union keeps these too
    assert pairs(edge_index) == pairs(edge_index[::-1])


def test_equal_ones_go_to_the_smaller_index():
    position, features = [[0, 0]] * 9, np.ones((9, 3))
    for _ in range(3):
        edge_index, _ = cross_graph(position, [0] * 4 + [1] * 5, features, radius=1, k=2)
        assert pairs(edge_index) == {
            pair for i in range(4) for j in range(4, 9) if i < 2 or j < 6 for pair in ((i, j), (j, i))
        }


def test_outlines_say_what_overlaps():
    position = np.array([[0, 0], [0, 150], [150, 0]])
    contour = contours(position, 112)
    contour[:, :, 0] *= 0.5  # all sections squeezed to half their width
    position = position * [0.5, 1]
    edge_index, overlap = overlap_graph(position, 112, [0, 1, 2], contour)
    assert pairs(edge_index) == {(0, 1), (1, 0), (0, 2), (2, 0), (1, 2), (2, 1)}
    first = overlap[(edge_index == [[0], [1]]).all(0)], overlap[(edge_index == [[0], [2]]).all(0)]
    assert first == (pytest.approx(0.1212, abs=5e-4), pytest.approx(0.1212, abs=5e-4))  # IoU is affine


def test_outlines_whose_circles_meet_may_still_be_apart():
    position = [[0, 0], [1, 1], [1.2, 1.2]]  # diamonds of radius 1: 0 touches 1 along an edge, and is off 2
    edge_index, _ = overlap_graph(position, 1, [0, 1, 2], contours(position, 1, points=5))
    assert pairs(edge_index) == {(1, 2), (2, 1)}


def test_a_section_that_is_not_registered_has_no_edge_across():
    rng = np.random.default_rng(3)
    position, group, features = rng.uniform(0, 300, (30, 2)), np.arange(30) % 3, rng.normal(size=(30, 4))
    registered = position.copy()
    registered[group == 1] = np.nan
    rest = np.flatnonzero(group != 1)
    for contour in (None, contours(registered, 112)):
        some = None if contour is None else contour[rest]
        for found, expected in (
            (
                cross_graph(registered, group, features, 112, 3, contour=contour),
                cross_graph(registered[rest], group[rest], features[rest], 112, 3, contour=some),
            ),
            (
                overlap_graph(registered, 112, group, contour),
                overlap_graph(registered[rest], 112, group[rest], some),
            ),
        ):
            np.testing.assert_array_equal(found[0], rest[expected[0]])
            np.testing.assert_array_equal(found[1], expected[1])
    graph = stack_graph(position, registered, group, features, pitch=100, intra=2, cross=3, radius=112)
    ends = group[graph.edge_index]
    assert (ends[:, graph.across] != 1).all()
    assert (ends[:, ~graph.across] == 1).any()  # within, it stays joined
    registered[:] = np.nan
    assert cross_graph(registered, group, features, 112, 3)[0].shape == (2, 0)


def test_cross_graph_of_one_section_is_empty():
    edge_index, weight = cross_graph([[0, 0], [0, 0]], [4, 4], [[1.0], [1.0]], radius=112, k=3)
    assert edge_index.shape == (2, 0) and weight.shape == (0,)


def test_a_mask_tells_the_edges_of_a_stack_apart():
    position = [[0, 0], [2, 0], [8, 0], [0, 0], [4, 0]]
    registered = [[0, 0], [2, 0], [8, 0], [0, 0], [2, 0]]
    group, features = [0, 0, 0, 1, 1], [[1, 0], [1, 0], [0, 1], [1, 0], [0, 1]]
    edge_index, edge_weight, across = stack_graph(
        position, registered, group, features, pitch=[2, 2, 2, 4, 4], intra=1, cross=1, radius=1
    )
    # 0-1 and 1-2 one and three pitches of 2 apart, 3-4 one of 4; e(0,3) = 1 + 1, e(1,4) = 1 + 0,
    # e(1,3) = 0 + 1, a tie in which 1 keeps 3; 2 takes 4 (0 + 1)
    assert edge_index.tolist() == [
        [1, 3, 0, 2, 3, 4, 1, 4, 0, 1, 4, 1, 2, 3],
        [0, 0, 1, 1, 1, 1, 2, 2, 3, 3, 3, 4, 4, 4],
    ]
    assert across.tolist() == [
        False,
        True,
        False,
        False,
        True,
        True,
        False,
        True,
        True,
        True,
        False,
        True,
        True,
        False,
    ]
    assert edge_weight == pytest.approx([1, 2, 1, 1 / 3, 1, 1, 1 / 3, 1, 2, 1, 1, 1, 1, 1])


def test_stack_graph_holds_both_graphs_and_nothing_else():
    rng = np.random.default_rng(4)
    position, group, features = rng.uniform(0, 900, (90, 2)), np.arange(90) % 4, rng.normal(size=(90, 5))
    graph = stack_graph(position, position, group, features, pitch=100, intra=3, cross=2, radius=112)
    source, target = graph.edge_index
    np.testing.assert_array_equal(graph.across, group[source] != group[target])
    assert (np.diff(target * 90 + source) > 0).all()
    crossing, e = cross_graph(position, group, features, 112, 2)
    np.testing.assert_array_equal(graph.edge_index[:, graph.across], crossing)
    np.testing.assert_array_equal(graph.edge_weight[graph.across], e)
    near = pairs(knn_graph(position, 3, group)[0])
    assert pairs(graph.edge_index[:, ~graph.across]) == near | {(j, i) for i, j in near}


def test_memory_grows_with_the_edges_not_with_all_pairs():
    n = 200_000
    rng = np.random.default_rng(5)
    side = int((n / 4) ** 0.5) + 1
    grid = np.stack(np.divmod(np.arange(n // 4), side), 1) * 100.0
    position = np.concatenate([grid + rng.normal(0, 5, grid.shape) for _ in range(4)])
    group, features = np.arange(n) // (n // 4), rng.normal(size=(n, 4)).astype(np.float32)
    tracemalloc.start()
    graph = stack_graph(
        position, position, group, features, pitch=100, intra=4, cross=4, radius=56, candidates=6
    )
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert graph.across.sum() > n
    assert peak < 2e9  # all pairs: 160e9 bytes of float32, 40e9 of bits of a byte


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: cross_graph([[0, 0]], [0], [[np.inf]], 1, 1), "finite features"),
        (lambda: cross_graph([[0, 0]], [0], [[1.0]], 1, 1, 0), "got 1 and 0"),
        (lambda: cross_graph([[0, 0]], [0], [1.0], 1, 1), r"features are an array \(N, D\)"),
        (lambda: cross_graph([[0, 0]], [0], [[1.0], [1.0]], 1, 1), "features needs one row"),
        (lambda: overlap_graph([[0, 0]], 0, [0]), "radius above 0, got 0"),
        (lambda: overlap_graph([[0, 0]], 1, [0, 1]), "group needs one row"),
        (lambda: overlap_graph([[0, 0]], 1, [0], np.zeros((2, 3, 2))), "contour needs one row"),
        (lambda: overlap_graph([[0, 0]], 1, [0], np.full((1, 3, 2), np.nan)), "finite contour"),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()
