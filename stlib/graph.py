"""Neighbours in sparse form: within a section, across the sections of a stack, and between grid cells.

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
    k
        Neighbours per node.
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
    position = _coordinates(position)
    group = np.zeros(len(position), int) if group is None else np.asarray(group)
    _check(k >= 1, f"a neighbour graph needs k >= 1, got {k}")
    _same_length(position, group=group)
    parts = []
    for name in np.unique(group):
        member = np.flatnonzero(group == name)
        near, distance = _nearest(position[member], position[member], k + 1)
        other = near != np.arange(len(member))[:, None]
        other &= np.cumsum(other, 1) <= k  # among more than k coincident nodes the node itself may be missing
        target = np.nonzero(other)[0]
        parts.append((member[near[other]], member[target], distance[other]))
    source, target, distance = _joined(parts)
    order = np.argsort(target, kind="stable")
    return np.stack([source, target])[:, order], distance[order].astype(np.float32)


def symmetric(edge_index: np.ndarray, edge_weight: np.ndarray) -> Edges:
    """Return the union of the edges and their reverses; of two weights of a pair the larger one stays."""
    source, target = np.concatenate([edge_index, edge_index[::-1]], 1)
    weight = np.concatenate([edge_weight, edge_weight])
    order = np.lexsort((-weight, source, target))
    source, target, weight = source[order], target[order], weight[order]
    first = np.ones(len(source), bool)
    first[1:] = (source[1:] != source[:-1]) | (target[1:] != target[:-1])
    return np.stack([source, target])[:, first].astype(np.int64), weight[first].astype(np.float32)


def circle_overlap(distance: np.ndarray, r1: np.ndarray | float, r2: np.ndarray | float) -> np.ndarray:
    """Return the intersection over union of two circles, in closed form.

    The released code measures two 100-gons; at a radius of 112 px those differ by 1.4e-4 at most.

    Parameters
    ----------
    distance
        Between the centres.
    r1, r2
        Radii, in the same unit, above 0. All three broadcast.

    Returns
    -------
    np.ndarray
        In [0, 1]; 0 from the touching distance on.

    Examples
    --------
    >>> circle_overlap([0, 112, 224], 112, 112).round(6)
    array([1.     , 0.24301, 0.     ])
    """
    d, r1, r2 = np.broadcast_arrays(*(np.asarray(a, np.float64) for a in (distance, r1, r2)))
    _check(bool((d >= 0).all()), "a distance is a number from 0 up, found a negative one or NaN")
    _check(bool((np.minimum(r1, r2) > 0).all()), "a circle needs a radius above 0")
    inside = np.clip(d, np.abs(r1 - r2), r1 + r2)  # the limits of a lens
    inside = np.where(inside > 0, inside, 1)  # equal and concentric: any value, replaced below
    cos1 = np.clip((inside**2 + r1**2 - r2**2) / (2 * inside * r1), -1, 1)  # half angles of the two sectors
    cos2 = np.clip((inside**2 + r2**2 - r1**2) / (2 * inside * r2), -1, 1)
    kite = (r1 + r2 - inside) * (inside + r1 - r2) * (inside - r1 + r2) * (inside + r1 + r2)
    lens = r1**2 * np.arccos(cos1) + r2**2 * np.arccos(cos2) - np.sqrt(np.maximum(kite, 0)) / 2
    lens = np.where(d <= np.abs(r1 - r2), np.pi * np.minimum(r1, r2) ** 2, lens)
    lens = np.where(d >= r1 + r2, 0, lens)
    return lens / (np.pi * (r1**2 + r2**2) - lens)


def overlap_graph(position: np.ndarray, radius: float, group: np.ndarray) -> Edges:
    """Join the nodes of different groups whose circles overlap; the weight is their IoU.

    Parameters
    ----------
    position
        Registered centres (N, 2), px of the reference section.
    radius
        Of every circle, same unit (ASIGN: 112 px).
    group
        Section of each node (N,).

    Returns
    -------
    tuple
        Symmetric edge_index (2, E) and IoU (E,), above 0.
    """
    position, group = _coordinates(position), np.asarray(group)
    _same_length(position, group=group)
    a, b = cKDTree(position).query_pairs(2 * radius, output_type="ndarray").T.astype(np.int64)
    keep = group[a] != group[b]
    a, b = a[keep], b[keep]
    overlap = circle_overlap(np.linalg.norm(position[a] - position[b], axis=1), radius, radius)
    keep = overlap > 0  # circles that touch do not overlap
    return symmetric(np.stack([a[keep], b[keep]]), overlap[keep])


def cross_graph(
    registered: np.ndarray,
    group: np.ndarray,
    features: np.ndarray,
    radius: float,
    k: int,
    candidates: int = 20,
) -> Edges:
    """Join each node to the `k` spots of other sections that overlap and resemble it most (ASIGN, eq. 1).

    e = IoU of the registered circles + cosine of the features. Only candidates are compared: the nearest
    spots of each other section, and all that overlap. The paper compares all pairs, so that spots far apart
    can be joined for their looks alone; on patient C's stain features that predicts worse.

    Parameters
    ----------
    registered
        Centres (N, 2) in px of the reference section.
    group
        Section of each node (N,). Nodes of one section are never joined.
    features
        (N, D) in one common space for all sections. A vector of zeros has cosine 0 with all others.
    radius
        Of the circles, same unit as `registered`.
    k
        Largest e kept per node, over all other sections together (the paper: 12).
    candidates
        Nearest spots of each other section that are compared.

    Returns
    -------
    tuple
        edge_index (2, E), the union of both directions, and e (E,) in [-1, 2].

    Raises
    ------
    ValueError
        If the arrays do not fit, hold NaN, or `k` or `candidates` is below 1.
    """
    registered, group = _coordinates(registered), np.asarray(group)
    features = np.asarray(features, np.float32)
    _same_length(registered, group=group, features=features)
    _check(bool(np.isfinite(features).all()), "a cross graph needs finite features, found NaN or infinity")
    _check(min(k, candidates) >= 1, f"a cross graph needs k and candidates >= 1, got {k} and {candidates}")
    (source, target), _ = overlap_graph(registered, radius, group)
    parts = [(source, target)]
    members = [np.flatnonzero(group == name) for name in np.unique(group)]
    for here in members:
        for there in members:
            if here is not there:
                near, _ = _nearest(registered[there], registered[here], candidates)
                parts.append((there[near.ravel()], np.repeat(here, near.shape[1])))
    pairs = np.unique(np.concatenate([np.stack(part) for part in parts], 1), axis=1)
    source, target = pairs
    distance = np.linalg.norm(registered[source] - registered[target], axis=1)
    e = circle_overlap(distance, radius, radius) + _cosine(features, source, target)  # eq. 1
    order = np.lexsort((source, -e, target))
    kept = order[_rank(target[order]) < k]
    return symmetric(pairs[:, kept], e[kept])


def grid_parents(position: np.ndarray, size_px: int) -> tuple[np.ndarray, np.ndarray]:
    """Find the grid cell each spot lies in; cells without a spot do not exist.

    Parameters
    ----------
    position
        Centres of one section (N, 2), level-0 px.
    size_px
        Side of a cell.

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
    _check(size_px >= 1, f"a grid needs cells of at least 1 px, got {size_px}")
    index = np.floor(_coordinates(position) / size_px).astype(np.int64)
    cells, parents = np.unique(index, axis=0, return_inverse=True)
    return parents.ravel(), cells


def grid_graph(cells: np.ndarray, group: np.ndarray | None = None) -> np.ndarray:
    """Join the cells of one group whose grid distance is below 2.1: up to 12 neighbours, no self loops.

    Parameters
    ----------
    cells
        Integer grid index (R, 2), see `grid_parents`.
    group
        Section of each cell (R,); default: one group.

    Returns
    -------
    np.ndarray
        Symmetric edge_index (2, E). An isolated cell has no edge.
    """
    cells = np.asarray(cells, np.int64).reshape(-1, 2)
    group = np.zeros(len(cells), int) if group is None else np.asarray(group)
    _same_length(cells, group=group)
    if not len(cells):
        return np.zeros((2, 0), np.int64)
    _, code = np.unique(group, return_inverse=True)
    apart = np.ptp(cells[:, 0]) + 3  # the groups side by side, out of each other's reach
    placed = cells + np.stack([code * apart, np.zeros_like(code)], 1)
    a, b = cKDTree(placed).query_pairs(GRID_REACH, output_type="ndarray").T.astype(np.int64)
    return symmetric(np.stack([a, b]), np.ones(len(a)))[0]


def _nearest(points: np.ndarray, queries: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Return index and distance of the min(k, n) nearest points of each query (Q, k), by (distance, index).

    The tree settles ties as it likes, so more are asked for until the k-th and the last distance differ.
    """
    n, k = len(points), min(k, len(points))
    tree = cKDTree(points)
    index, distance = np.empty((len(queries), k), np.int64), np.empty((len(queries), k))
    rows, asked = np.arange(len(queries)), min(n, k + 8)
    while len(rows):
        d, i = tree.query(queries[rows], np.arange(1, asked + 1))
        order = np.lexsort((i, d))[:, :k]
        settled = (d[:, -1] > d[:, k - 1]) | (asked == n)
        index[rows[settled]] = np.take_along_axis(i, order, 1)[settled]
        distance[rows[settled]] = np.take_along_axis(d, order, 1)[settled]
        rows, asked = rows[~settled], min(n, 2 * asked)
    return index, distance


def _cosine(features: np.ndarray, source: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Return the cosine of each pair (E,), a block of pairs at a time."""
    length = np.linalg.norm(features, axis=1, keepdims=True)
    unit = features / np.where(length > 0, length, 1)  # (N, D)
    block = max(1, 2**24 // max(1, features.shape[1]))  # 64 MB of float32
    cuts = range(0, len(source), block)
    parts = [np.einsum("ed,ed->e", unit[source[c : c + block]], unit[target[c : c + block]]) for c in cuts]
    return np.concatenate([np.zeros(0, np.float32), *parts])


def _rank(target: np.ndarray) -> np.ndarray:
    """Return the place of each entry within its run of equal values (E,), from 0."""
    starts = np.flatnonzero(np.r_[True, target[1:] != target[:-1]]) if len(target) else np.zeros(0, int)
    return np.arange(len(target)) - np.repeat(starts, np.diff(np.r_[starts, len(target)]))


def _joined(parts: list[tuple[np.ndarray, ...]]) -> list[np.ndarray]:
    """Concatenate the columns of several (source, target, distance)."""
    empty = (np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0))
    return [np.concatenate(column) for column in zip(empty, *parts, strict=True)]


def _coordinates(position: np.ndarray) -> np.ndarray:
    position = np.asarray(position, np.float64)
    if position.ndim != 2 or position.shape[1] != 2:
        raise ValueError(f"positions are an array (N, 2) of x and y, found shape {position.shape}")
    _check(bool(np.isfinite(position).all()), "positions are finite numbers, found NaN or infinity")
    return position


def _same_length(position: np.ndarray, **arrays: np.ndarray) -> None:
    for name, array in arrays.items():
        _check(
            len(array) == len(position),
            f"{name} needs one row for each of {len(position)} nodes, found {len(array)}",
        )


def _check(holds: bool, message: str) -> None:
    if not holds:
        raise ValueError(message)
