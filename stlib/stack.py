"""Neighbours across the sections of a stack: registered spots that overlap and look alike (ASIGN, III.B).

All functions speak the words of `stlib.graph`; what is compared is near by registration, so no N x N array is
ever made. Edges within a section and across sections are told apart by a mask, never by their weight.
"""

from itertools import combinations
from typing import NamedTuple

import numpy as np
from scipy.spatial import cKDTree

from stlib.graph import Edges, check, coordinates, joined, knn_graph, nearest, same_length, symmetric
from stlib.overlap import circle_overlap, polygon_overlap

ROUNDING = 1e-12  # IoU up to here is none: polygons that only touch


def overlap_graph(
    position: np.ndarray, radius: float, group: np.ndarray, contour: np.ndarray | None = None
) -> Edges:
    """Join the nodes of different groups whose spots overlap; the weight is their IoU.

    Parameters
    ----------
    position
        Registered centres (N, 2), one frame for all groups. A node whose place is not finite, since its
        section could not be registered, is joined to none.
    radius
        Of every circle, same unit (ASIGN: 112 px). Not used where there are outlines.
    group
        Section of each node (N,).
    contour
        Registered outlines (N, V, 2) that are measured in place of the circles, see `stlib.overlap.contours`.

    Returns
    -------
    tuple
        Symmetric edge_index (2, E) and IoU (E,), above 0.

    Raises
    ------
    ValueError
        If the arrays do not fit, `radius` is not above 0, or an outline of a placed node is not finite.
    """
    whole, group = coordinates(position, finite=False), np.asarray(group)
    same_length(whole, group=group)
    placed = np.flatnonzero(np.isfinite(position).all(1))
    position, group = whole[placed], group[placed]
    if contour is None:
        check(radius > 0, f"a circle needs a radius above 0, got {radius}")
        reach = np.full(len(placed), radius, np.float64)  # of the circle around each spot that holds it
    else:
        same_length(whole, contour=contour)
        contour = np.asarray(contour, np.float64)[placed]
        reach = np.linalg.norm(contour - position[:, None], axis=2).max(1)
        finite = bool(np.isfinite(reach).all())
        check(finite, "a node that has a place needs a finite contour, found NaN or infinity")
    if not len(placed):
        return symmetric(np.zeros((2, 0)), np.zeros(0))
    pairs = cKDTree(position).query_pairs(2 * reach.max(), output_type="ndarray").T
    distance = np.linalg.norm(position[pairs[0]] - position[pairs[1]], axis=1)
    meet = (group[pairs[0]] != group[pairs[1]]) & (distance < reach[pairs].sum(0))
    pairs, distance = pairs[:, meet], distance[meet]
    if contour is None:
        overlap = circle_overlap(distance, radius, radius)
    else:
        overlap = polygon_overlap(contour, contour, pairs)
    keep = overlap > ROUNDING  # spots that touch do not overlap
    return symmetric(placed[pairs[:, keep]], overlap[keep])


def cross_graph(
    registered: np.ndarray,
    group: np.ndarray,
    features: np.ndarray,
    radius: float,
    k: int,
    candidates: int = 20,
    contour: np.ndarray | None = None,
) -> Edges:
    """Join each node to the `k` spots of each other section that overlap and resemble it most (ASIGN, eq. 1).

    e = IoU of the registered spots + cosine of the features. Only candidates are compared: the nearest
    spots of the other section, and all that overlap. The paper compares all pairs, so that spots far apart
    can be joined for their looks alone; on patient C's stain features that predicts worse.

    Parameters
    ----------
    registered
        Centres (N, 2) in one frame, any unit. A node whose place is not finite, since its section could not
        be registered, is joined to none.
    group
        Section of each node (N,). Nodes of one section are never joined.
    features
        (N, D) in one common space for all sections. A vector of zeros has cosine 0 with all others.
    radius
        Of the circles, same unit as `registered`. Not used where there are outlines.
    k
        Largest e kept per node and other section (the paper: 12). Of equal ones the smaller index stays.
    candidates
        Nearest spots of each other section that are compared.
    contour
        Registered outlines (N, V, 2) that are measured in place of the circles, see `stlib.overlap.contours`.

    Returns
    -------
    tuple
        edge_index (2, E), the union of both directions, and e (E,) in [-1, 2].

    Raises
    ------
    ValueError
        If features hold NaN, `k` or `candidates` is below 1, or as in `overlap_graph`.
    """
    features = np.asarray(features, np.float32)
    check(features.ndim == 2, f"features are an array (N, D), found shape {features.shape}")
    check(bool(np.isfinite(features).all()), "a cross graph needs finite features, found NaN or infinity")
    check(min(k, candidates) >= 1, f"a cross graph needs k and candidates >= 1, got {k} and {candidates}")
    registered = coordinates(registered, finite=False)
    same_length(registered, features=features)
    (source, target), overlap = overlap_graph(registered, radius, group, contour)
    placed = np.isfinite(registered).all(1)
    names, code = np.unique(group, return_inverse=True)
    members = [np.flatnonzero(placed & (code == name)) for name in range(len(names))]
    place = np.zeros(len(code), np.int64)  # of each node among the members of its section
    for member in members:
        place[member] = np.arange(len(member))
    between = code[source] * len(names) + code[target]
    by_sections = np.argsort(between, kind="stable")
    between = between[by_sections]
    length = np.linalg.norm(features, axis=1, keepdims=True)
    unit = features / np.where(length > 0, length, 1)  # (N, D)
    parts = []
    for s, t in combinations(range(len(names)), 2):
        here, there = members[s], members[t]
        if len(here) and len(there):
            run = s * len(names) + t
            met = by_sections[slice(*np.searchsorted(between, [run, run + 1]))]
            met = place[source[met]], place[target[met]], overlap[met]
            ends = (registered[here], registered[there]), (unit[here], unit[there])
            i, j, e = _most_alike(*ends, met, k, candidates)
            parts.append((here[i], there[j], e))
    source, target, e = joined(parts)
    return symmetric(np.stack([source, target]), e)


class StackGraph(NamedTuple):
    """All edges of a stack in one list, sorted by (target, source)."""

    edge_index: np.ndarray  # source and target (2, E) int64, symmetric
    edge_weight: np.ndarray  # (E,) float32: 1 / pitches within a section, e of `cross_graph` across
    across: np.ndarray  # whether an edge leads from one section to another (E,) bool


def stack_graph(
    position: np.ndarray,
    registered: np.ndarray,
    group: np.ndarray,
    features: np.ndarray,
    *,
    pitch: np.ndarray | float,
    intra: int,
    cross: int,
    radius: float,
    candidates: int = 20,
    contour: np.ndarray | None = None,
) -> StackGraph:
    """Join the spots of a stack within and across its sections, and say which edge is which.

    ASIGN, section IV: `intra` = 8 nearest of the same section, `cross` = 12 of other ones, here of each. The
    released code tells the two kinds apart by zeros of e, found at the wrong places; here a mask says it. The
    two kinds share no pair of nodes.

    Parameters
    ----------
    position
        Centres on the own slide (N, 2), any unit.
    registered, group, features, radius, candidates, contour
        As in `cross_graph`. A section that is not registered keeps the edges within.
    pitch
        Distance of neighbouring spots in the unit of `position`: one for all, or of each node (N,).
    intra, cross
        Nearest neighbours in the own section; spots kept of each other section.

    Raises
    ------
    ValueError
        As `knn_graph` and `cross_graph` do.
    """
    inside, distance = knn_graph(position, intra, group)
    pitch = np.broadcast_to(np.asarray(pitch, np.float64), len(group))[inside[1]]
    inside, weight = symmetric(inside, pitch / np.maximum(distance, 1e-6))
    outside, e = cross_graph(registered, group, features, radius, cross, candidates, contour)
    edges = np.concatenate([inside, outside], 1)
    across = np.arange(edges.shape[1]) >= inside.shape[1]
    order = np.argsort(edges[1] * len(group) + edges[0])
    return StackGraph(edges[:, order], np.concatenate([weight, e])[order], across[order])


def _most_alike(
    place: tuple[np.ndarray, np.ndarray],
    unit: tuple[np.ndarray, np.ndarray],
    met: tuple[np.ndarray, np.ndarray, np.ndarray],
    k: int,
    candidates: int,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Choose the edges between two sections of n and m spots, each given by its own (first, second).

    Parameters
    ----------
    place, unit
        Coordinates (n, 2), (m, 2) and features of length 1 (n, D), (m, D).
    met
        Pairs that overlap: row in the first, row in the second, IoU.
    k, candidates
        As in `cross_graph`.

    Returns
    -------
    tuple
        Row in the first, row in the second, e, each (E,); a pair stands once, whichever spot has chosen it.
    """
    n, m = map(len, place)
    to_second, _ = nearest(place[1], place[0], candidates)  # (n, c)
    to_first, _ = nearest(place[0], place[1], candidates)  # (m, c)
    number = [
        met[0] * m + met[1],
        (np.arange(n)[:, None] * m + to_second).ravel(),
        (to_first * m + np.arange(m)[:, None]).ravel(),
    ]
    pair, row = np.unique(np.concatenate(number), return_inverse=True)  # sorted: ties go to the smaller index
    overlapping, of_first, of_second = np.split(row, np.cumsum([len(part) for part in number])[:-1])
    i, j = np.divmod(pair, m)
    e = _cosine(unit[0], unit[1], i, j)
    e[overlapping] += met[2]  # eq. 1
    kept = np.zeros(len(pair), bool)
    for spot, asked in ((i, of_first), (j, of_second)):
        compared = np.zeros(len(pair), bool)
        compared[overlapping] = compared[asked] = True
        compared = np.flatnonzero(compared)
        order = compared[np.lexsort((-e[compared], spot[compared]))]
        kept[order[_rank(spot[order]) < k]] = True
    return i[kept], j[kept], e[kept]


def _cosine(a: np.ndarray, b: np.ndarray, i: np.ndarray, j: np.ndarray) -> np.ndarray:
    """Return the products of rows `i` of a and `j` of b (E,), read where they lie: no row is copied."""
    import faiss  # only where sections are joined

    e = np.empty(len(i), np.float32)
    a, b, i, j = map(np.ascontiguousarray, (a, b, i, j))
    x, row_x, y, row_y, out = map(faiss.swig_ptr, (a, i, b, j, e))
    faiss.pairwise_indexed_inner_product(a.shape[1], len(i), x, row_x, y, row_y, out)
    return e


def _rank(target: np.ndarray) -> np.ndarray:
    """Return the place of each entry within its run of equal values (E,), from 0."""
    starts = np.flatnonzero(np.r_[True, target[1:] != target[:-1]]) if len(target) else np.zeros(0, int)
    return np.arange(len(target)) - np.repeat(starts, np.diff(np.r_[starts, len(target)]))
