"""Neighbours in sparse form: within a section, and between grid cells; across sections see `stlib.stack`.

All functions speak PyG's words: `edge_index` (2, E) int64 with row 0 = source j and row 1 = target i, sorted
by (target, source) unless said otherwise; `edge_weight` (E,) float32. No N x N array is ever made.
"""

import numpy as np
from scipy.spatial import cKDTree

Edges = tuple[np.ndarray, np.ndarray]  # edge_index (2, E), edge_weight (E,)

GRID_REACH = 2.1  # in cells: the 12 offsets at distance 1, sqrt(2) and 2 (ASIGN, released graph builder)


def knn_graph(position: np.ndarray, k: int, group: np.ndarray | None = None) -> Edges:
    """Join each node to its `k` nearest others of the same group, exactly and without self loops.

    Equal distances are settled by the smaller index, so the graph does not depend on the tree. In a group of
    n <= k nodes each has its n - 1 others; coincident nodes are neighbours at distance 0.

    Parameters
    ----------
    position
        Coordinates (N, 2), any unit.
    group
        Section of each node (N,); default: one group.

    Returns
    -------
    tuple
        edge_index (2, E), ordered by target and then from near to far, and distance (E,) float32 in the unit
        of `position`.

    Raises
    ------
    ValueError
        If `k` is below 1 or the arrays do not fit.

    Examples
    --------
    >>> knn_graph([[0, 0], [1, 0], [3, 0]], k=1)[0]
    array([[1, 0, 1],
           [0, 1, 2]])
    """
    position = coordinates(position)
    group = np.zeros(len(position), int) if group is None else np.asarray(group)
    check(k >= 1, f"a neighbour graph needs k >= 1, got {k}")
    same_length(position, group=group)
    parts = []
    for name in np.unique(group):
        member = np.flatnonzero(group == name)
        near, distance = nearest(position[member], position[member], k + 1)
        other = near != np.arange(len(member))[:, None]
        other &= np.cumsum(other, 1) <= k  # among more than k coincident nodes the node itself may be missing
        target = np.nonzero(other)[0]
        parts.append((member[near[other]], member[target], distance[other]))
    source, target, distance = joined(parts)
    order = np.argsort(target, kind="stable")
    return np.stack([source, target])[:, order], distance[order].astype(np.float32)


def radius_graph(position: np.ndarray, radius: float) -> Edges:
    """Join the nodes that are nearer to each other than `radius`, both ways and without self loops.

    `position` (N, 2) and `radius` are in one unit. Return edge_index (2, E), and distance (E,) float32.

    Examples
    --------
    >>> radius_graph([[0, 0], [1, 1], [3, 0]], 1.5)[0]
    array([[1, 0],
           [0, 1]])
    """
    position = coordinates(position)
    check(radius > 0, f"a radius graph needs a radius above 0, got {radius}")
    pairs = cKDTree(position).query_pairs(radius, output_type="ndarray").T.astype(np.int64)
    source, target = np.concatenate([pairs, pairs[::-1]], 1)
    order = np.lexsort((source, target))
    edges = np.stack([source, target])[:, order]
    return edges, np.linalg.norm(position[edges[0]] - position[edges[1]], axis=1).astype(np.float32)


def symmetric(edge_index: np.ndarray, edge_weight: np.ndarray) -> Edges:
    """Return the union of the edges and their reverses; of two weights of a pair the larger one stays."""
    source, target = np.concatenate([edge_index, edge_index[::-1]], 1).astype(np.int64)
    if not len(source):
        return np.zeros((2, 0), np.int64), np.zeros(0, np.float32)
    n = 1 + max(source.max(), target.max())
    pair = target * n + source  # one number sorts faster than two
    order = np.argsort(pair)
    pair = pair[order]
    first = np.flatnonzero(np.r_[True, pair[1:] != pair[:-1]])
    weight = np.maximum.reduceat(np.tile(edge_weight, 2)[order], first)
    return np.stack([pair[first] % n, pair[first] // n]), weight.astype(np.float32)


def grid_parents(position: np.ndarray, size_px: int) -> tuple[np.ndarray, np.ndarray]:
    """Find the grid cell each spot lies in; cells without a spot do not exist.

    `position` holds centres of one section (N, 2), level-0 px.

    Returns
    -------
    tuple
        parents (N,) int64, the row in cells; cells (R, 2) int64, the grid index (column, row), sorted.
        Cell (i, j) covers [i, i + 1) x [j, j + 1) times `size_px`.

    Examples
    --------
    >>> grid_parents([[5, 5], [12, 5], [9.9, 0]], 10)
    (array([0, 1, 0]), array([[0, 0],
           [1, 0]]))
    """
    check(size_px >= 1, f"a grid needs cells of at least 1 px, got {size_px}")
    index = np.floor(coordinates(position) / size_px).astype(np.int64)
    cells, parents = np.unique(index, axis=0, return_inverse=True)
    return parents.ravel(), cells


def grid_graph(cells: np.ndarray) -> np.ndarray:
    """Join the cells of a section whose grid distance is below 2.1: up to 12 neighbours, no self loops.

    `cells` is the integer grid index (R, 2), see `grid_parents`; edge_index (2, E) is symmetric. An isolated
    cell has no edge.
    """
    cells = np.asarray(cells, np.int64).reshape(-1, 2)
    a, b = cKDTree(cells).query_pairs(GRID_REACH, output_type="ndarray").T.astype(np.int64)
    return symmetric(np.stack([a, b]), np.ones(len(a)))[0]


def nearest(points: np.ndarray, queries: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Return index and distance of the min(k, n) nearest points of each query (Q, k), by (distance, index).

    The tree settles ties as it likes, so more are asked for until the k-th and the last distance differ.
    """
    n, k = len(points), min(k, len(points))
    tree = cKDTree(points)
    index, distance = np.empty((len(queries), k), np.int64), np.empty((len(queries), k))
    rows, asked = np.arange(len(queries)), min(n, k + 1)
    while len(rows):
        d, i = tree.query(queries[rows], np.arange(1, asked + 1))
        tied = np.flatnonzero((d[:, 1:] == d[:, :-1]).any(1))
        i[tied] = np.take_along_axis(i[tied], np.lexsort((i[tied], d[tied])), 1)
        settled = (d[:, -1] > d[:, k - 1]) | (asked == n)
        index[rows[settled]], distance[rows[settled]] = i[settled, :k], d[settled, :k]
        rows, asked = rows[~settled], min(n, 2 * asked)
    return index, distance


def joined(parts: list[tuple[np.ndarray, ...]]) -> list[np.ndarray]:
    """Concatenate the columns of several (source, target, weight)."""
    empty = (np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0))
    return [np.concatenate(column) for column in zip(empty, *parts, strict=True)]


def coordinates(position: np.ndarray, finite: bool = True) -> np.ndarray:
    """Return positions as an array (N, 2) of float64; ValueError if they are none, or not `finite`."""
    position = np.asarray(position, np.float64)
    if position.ndim != 2 or position.shape[1] != 2:
        raise ValueError(f"positions are an array (N, 2) of x and y, found shape {position.shape}")
    holds = not finite or bool(np.isfinite(position).all())
    check(holds, "positions are finite numbers, found NaN or infinity")
    return position


def same_length(position: np.ndarray, **arrays: np.ndarray) -> None:
    """Raise a ValueError unless each array has one row for each position."""
    for name, array in arrays.items():
        check(
            len(array) == len(position),
            f"{name} needs one row for each of {len(position)} nodes, found {len(array)}",
        )


def check(holds: bool, message: str) -> None:
    """Raise a ValueError with this message unless it holds."""
    if not holds:
        raise ValueError(message)
