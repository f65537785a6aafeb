"""Neighbours checked by hand, against brute force, and against the published code's own numbers."""

import numpy as np
import pytest

from stlib.graph import grid_graph, grid_parents, knn_graph, radius_graph, symmetric

# performance.md, section 7: the ten points, and the neighbours that the released calcADJ finds for k = 3
TEN = [(0, 0), (1, 0), (2, 0.5), (0, 1.2), (1.1, 1.3), (2.2, 1.1), (5, 5), (5.1, 6.3), (0.3, 3.1), (4, 2.2)]
CALC_ADJ = ["134", "024", "145", "014", "235", "124", "579", "689", "345", "256"]


def neighbours(edge_index: np.ndarray, n: int) -> list[list[int]]:
    """Return the sources of each target, in the order of the edges."""
    return [edge_index[0, edge_index[1] == i].tolist() for i in range(n)]


def pairs(edge_index: np.ndarray) -> set[tuple[int, int]]:
    return set(map(tuple, edge_index.T.tolist()))


def test_knn_of_six_points_by_hand():
    #  0 - 1 - . - 2      y = 0
    #  3                  y = 1
    #  .   .   .   .  4 5 y = 3
    position = [[0, 0], [1, 0], [3, 0], [0, 1], [4, 3], [5, 3]]
    edge_index, distance = knn_graph(position, k=2)
    assert neighbours(edge_index, 6) == [[1, 3], [0, 3], [1, 0], [0, 1], [5, 2], [4, 2]]
    assert distance[:4] == pytest.approx([1, 1, 1, 2**0.5])
    assert edge_index.dtype == np.int64 and distance.dtype == np.float32


def test_bins_within_a_radius_by_hand():
    square = [(x, y) for y in range(3) for x in range(3)]
    edge_index, distance = radius_graph(square, 1.5)
    assert neighbours(edge_index, 9)[4] == [0, 1, 2, 3, 5, 6, 7, 8]  # the eight around the middle
    assert neighbours(edge_index, 9)[0] == [1, 3, 4]
    assert sorted(set(distance.round(3).tolist())) == pytest.approx([1, 2**0.5], abs=1e-3)
    assert radius_graph(np.zeros((0, 2)), 1.5)[0].shape == (2, 0)
    with pytest.raises(ValueError, match="needs a radius above 0, got 0"):
        radius_graph(square, 0)


def test_knn_finds_the_neighbours_of_the_released_code():
    edge_index, _ = knn_graph(TEN, k=3)
    assert ["".join(map(str, sorted(row))) for row in neighbours(edge_index, 10)] == CALC_ADJ


def test_knn_settles_ties_by_index():
    cross = [[0, 0], [0, 1], [1, 0], [0, -1], [-1, 0]]
    assert neighbours(knn_graph(cross, k=2)[0], 5)[0] == [1, 2]
    assert neighbours(knn_graph(cross[::-1], k=2)[0], 5)[4] == [0, 1]


def test_knn_of_coincident_points():
    # the released code gives node 1 a self loop here and never joins it to node 0
    edge_index, distance = knn_graph([[0, 0], [0, 0], [1, 0], [2, 0]], k=2)
    assert neighbours(edge_index, 4) == [[1, 2], [0, 2], [0, 1], [2, 0]]
    assert distance[0] == 0
    heap = knn_graph(np.zeros((40, 2)), k=3)[0]  # more coincident points than one look at the tree returns
    assert neighbours(heap, 40)[:5] == [[1, 2, 3], [0, 2, 3], [0, 1, 3], [0, 1, 2], [0, 1, 2]]


def test_knn_of_more_ties_than_one_look_at_the_tree_returns():
    ring = [
        (5, 0),
        (-3, 4),
        (0, -5),
        (4, 3),
        (-5, 0),
        (3, -4),
        (0, 5),
        (-4, -3),
        (3, 4),
        (-3, -4),
        (4, -3),
        (-4, 3),
    ]
    position = np.array([*(ring * 5), (0, 0)])  # 60 nodes at distance 5 of the last one
    for seed in range(5):
        shuffled = np.random.default_rng(seed).permutation(60)
        edge_index, _ = knn_graph(position[[*shuffled, 60]], k=3)
        assert neighbours(edge_index, 61)[60] == [0, 1, 2]


def test_knn_stays_within_the_group_and_survives_small_ones():
    position = [[0, 0], [0, 0.1], [1, 0], [2, 0], [0, 0.2]]
    edge_index, _ = knn_graph(position, k=3, group=["a", "b", "a", "a", "c"])
    assert neighbours(edge_index, 5) == [[2, 3], [], [0, 3], [2, 0], []]  # b and c: alone, no edge


@pytest.mark.parametrize("integer", [True, False])
def test_knn_equals_brute_force(integer):
    rng = np.random.default_rng(0)
    position = rng.integers(0, 6, (80, 2)).astype(float) if integer else rng.normal(size=(80, 2))
    group = rng.integers(0, 3, 80)
    found = neighbours(knn_graph(position, 7, group)[0], 80)
    for i in range(80):
        distance = np.linalg.norm(position - position[i], axis=1)
        distance[(group != group[i]) | (np.arange(80) == i)] = np.inf
        assert found[i] == np.lexsort((np.arange(80), distance))[:7].tolist()


def test_symmetric_keeps_the_larger_weight():
    edge_index, weight = symmetric(np.array([[0, 1, 2, 0], [1, 0, 0, 1]]), np.array([0.2, 0.7, 0.5, 0.1]))
    assert edge_index.tolist() == [[1, 2, 0, 0], [0, 0, 1, 2]]  # sorted by target, then source
    assert weight == pytest.approx([0.7, 0.5, 0.7, 0.5])


def test_grid_parents_name_the_cell_that_holds_the_spot():
    parents, cells = grid_parents([[511.9, 0], [512, 0], [1100, 600], [0, 0], [-1, 0]], 512)
    assert cells.tolist() == [[-1, 0], [0, 0], [1, 0], [2, 1]]  # no cell without a spot
    assert parents.tolist() == [1, 2, 3, 1, 0]


def test_grid_graph_has_twelve_neighbours():
    block = np.stack(np.meshgrid(np.arange(5), np.arange(5), indexing="ij"), -1).reshape(-1, 2)
    edge_index = grid_graph(block)
    centre = block[edge_index[0, edge_index[1] == 12]] - 2
    assert len(centre) == 12 and max(np.hypot(*centre.T)) == 2
    assert pairs(edge_index) == pairs(edge_index[::-1])
    assert not (edge_index[0] == edge_index[1]).any()


def test_grid_graph_leaves_what_stands_alone():
    assert pairs(grid_graph([[0, 0], [1, 1], [9, 9]])) == {(0, 1), (1, 0)}
    assert grid_graph(np.zeros((0, 2))).shape == (2, 0)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: knn_graph([[0, 0]], 0), "k >= 1, got 0"),
        (lambda: knn_graph([[0, np.nan]], 1), "finite numbers, found NaN"),
        (lambda: knn_graph([0, 1], 1), r"\(N, 2\) of x and y, found shape \(2,\)"),
        (lambda: knn_graph([[0, 0]], 1, ["a", "b"]), "group needs one row for each of 1 nodes, found 2"),
        (lambda: grid_parents([[0, 0]], 0), "at least 1 px"),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()
