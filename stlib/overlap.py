"""How much two spots overlap: intersection over union, of circles in closed form and of polygons exactly.

A circle stays a circle only under a similarity. An affine registration makes it an ellipse; `contours` drawn
before the registration and mapped by it are measured as what they have become.
"""

from typing import NamedTuple

import numpy as np

BLOCK = 2**15  # corners that are worked on at a time: a few MB


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

    Raises
    ------
    ValueError
        If a distance is negative or NaN, or a radius is not above 0.

    Examples
    --------
    >>> circle_overlap([0, 112, 224], 112, 112).round(6)
    array([1.     , 0.24301, 0.     ])
    """
    d, r1, r2 = np.broadcast_arrays(*(np.asarray(a, np.float64) for a in (distance, r1, r2)))
    if not (d >= 0).all():
        raise ValueError("a distance is a number from 0 up, found a negative one or NaN")
    if not (np.minimum(r1, r2) > 0).all():
        raise ValueError("a circle needs a radius above 0")
    inside = np.clip(d, np.abs(r1 - r2), r1 + r2)  # the limits of a lens
    inside = np.where(inside > 0, inside, 1)  # equal and concentric: any value, replaced below
    cos1 = np.clip((inside**2 + r1**2 - r2**2) / (2 * inside * r1), -1, 1)  # half angles of the two sectors
    cos2 = np.clip((inside**2 + r2**2 - r1**2) / (2 * inside * r2), -1, 1)
    kite = (r1 + r2 - inside) * (inside + r1 - r2) * (inside - r1 + r2) * (inside + r1 + r2)
    lens = r1**2 * np.arccos(cos1) + r2**2 * np.arccos(cos2) - np.sqrt(np.maximum(kite, 0)) / 2
    lens = np.where(d <= np.abs(r1 - r2), np.pi * np.minimum(r1, r2) ** 2, lens)
    lens = np.where(d >= r1 + r2, 0, lens)
    return lens / (np.pi * (r1**2 + r2**2) - lens)


def contours(position: np.ndarray, radius: float, points: int = 100) -> np.ndarray:
    """Draw the circle around each position as a polygon, before it is registered (ASIGN, appendix D).

    The paper's contour has 100 points of which the last repeats the first, so 99 corners. The released code
    cuts them to whole pixels, which takes 1.2 % of the area; here they stay as they are.

    Parameters
    ----------
    position
        Centres (N, 2).
    radius
        Of every circle, same unit.
    points
        Points of the closed contour, the repeated one included.

    Returns
    -------
    np.ndarray
        Corners (N, points - 1, 2) in the unit of `position`, for `Registration.to_um` to map.

    Raises
    ------
    ValueError
        If `radius` is not above 0, or fewer than 4 points are asked for.

    Examples
    --------
    >>> contours([[10, 20]], radius=2, points=5).round(6).tolist()
    [[[12.0, 20.0], [10.0, 22.0], [8.0, 20.0], [10.0, 18.0]]]
    """
    if not (radius > 0 and points >= 4):
        raise ValueError(f"a contour needs a radius above 0 and 4 points, got {radius} and {points}")
    angle = np.linspace(0, 2 * np.pi, points)[:-1]
    corner = radius * np.stack([np.cos(angle), np.sin(angle)], 1)  # (points - 1, 2)
    return np.asarray(position, np.float64)[:, None] + corner


def polygon_overlap(a: np.ndarray, b: np.ndarray, pairs: np.ndarray | None = None) -> np.ndarray:
    """Return the intersection over union of pairs of convex polygons, exactly.

    The corners of both cut the plane into upright slabs. In a slab either polygon lies between two straight
    lines, so the height of the intersection is min(upper) - max(lower), linear but where lines cross; its
    integral over all slabs is the area. The cost is that of sorting V + W numbers per pair.

    Parameters
    ----------
    a, b
        Corners (N, V, 2) and (M, W, 2), in one unit, in either direction, the first not repeated at the end.
        Beside convex ones, all polygons are right whose x runs forth once and back once.
    pairs
        Which rows of `a` and `b` to compare (2, E); by default the first with the first, and so on.

    Returns
    -------
    np.ndarray
        IoU (E,) in [0, 1]; of polygons that only touch 0, give or take rounding (1e-15).

    Raises
    ------
    ValueError
        If an array has another shape, a polygon has no area, a coordinate is not finite, or x turns more
        than twice.

    Examples
    --------
    >>> square = np.array([[[0, 0], [2, 0], [2, 2], [0, 2]]])
    >>> polygon_overlap(square, square + 1) * 7
    array([1.])
    """
    one = b is a
    a = _prepared(a)
    b = a if one else _prepared(b)
    if pairs is None:
        if len(a.x) != len(b.x):
            raise ValueError(
                f"without `pairs` both sides need as many polygons, found {len(a.x)} and {len(b.x)}"
            )
        pairs = np.tile(np.arange(len(a.x)), (2, 1))
    size = max(1, BLOCK // (a.x.shape[1] + b.x.shape[1]))
    parts = [_iou(a, b, *pairs[:, cut : cut + size]) for cut in range(0, pairs.shape[1], size)]
    return np.concatenate([np.zeros(0), *parts])


class _Sides(NamedTuple):
    """Polygons, from the leftmost corner along the lower side to the rightmost, and back along the upper."""

    centre: np.ndarray  # (N, 2); near it nothing is lost to rounding, so all else is counted from there
    x: np.ndarray  # (N, V) of the corners
    last: np.ndarray  # (N, 1) index of the rightmost corner: edges before it are lower, the others upper
    slope: np.ndarray  # (N, V) of the line through corners k and k + 1
    height: np.ndarray  # (N, V) of that line at x = 0
    area: np.ndarray  # (N,)


def _prepared(corners: np.ndarray) -> _Sides:
    corners = np.asarray(corners, np.float64)
    if corners.ndim != 3 or corners.shape[1] < 3 or corners.shape[2] != 2:
        raise ValueError(f"polygons are an array (N, V >= 3, 2) of corners, found shape {corners.shape}")
    size = max(1, BLOCK // corners.shape[1])
    parts = [_sides(corners[cut : cut + size]) for cut in range(0, max(1, len(corners)), size)]
    return _Sides(*(np.concatenate(column) for column in zip(*parts, strict=True)))


def _sides(corners: np.ndarray) -> _Sides:
    """Bring polygons (N, V, 2) into the order of `_Sides`."""
    rows, n = np.arange(len(corners))[:, None], corners.shape[1]
    centre = corners.mean(1)
    x, y = np.moveaxis(corners - centre[:, None], 2, 0)
    area = (x * np.roll(y, -1, 1) - np.roll(x, -1, 1) * y).sum(1) / 2
    if not (np.abs(area) > 0).all():
        raise ValueError("a polygon needs finite corners and an area above 0, found one without")
    turn = np.where(area > 0, 1, -1)[:, None]
    order = (x.argmin(1)[:, None] + turn * np.arange(n)) % n  # counter-clockwise from the leftmost
    x, y = x[rows, order], y[rows, order]
    last = x.argmax(1)[:, None]
    dx, dy = np.roll(x, -1, 1) - x, np.roll(y, -1, 1) - y
    lower = np.arange(n) < last
    against = np.where(lower, -dx, dx)
    if (against > 1e-9 * (x.max(1, keepdims=True) - x.min(1, keepdims=True))).any():
        raise ValueError("polygons must be convex, found one whose x turns more than twice: take its hull")
    slope = np.divide(dy, dx, out=np.zeros_like(dx), where=dx != 0)  # an upright edge bounds no slab
    return _Sides(centre, x, last, slope, y - slope * x, np.abs(area))


def _iou(a: _Sides, b: _Sides, i: np.ndarray, j: np.ndarray) -> np.ndarray:
    """Return the IoU of the polygons `i` of a and `j` of b (E,)."""
    a, b = _Sides(*(field[i] for field in a)), _Sides(*(field[j] for field in b))
    dx, dy = (b.centre - a.centre).T[..., None]  # both counted from the centre of a
    b = b._replace(x=b.x + dx, height=b.height + dy - b.slope * dx)
    pair, left, right, lines = _slabs(a, b)
    y = np.stack([lines[0] * left + lines[1], lines[0] * right + lines[1]])  # (ends, four lines, slabs)
    upper, lower = y[:, 1::2], y[:, ::2]
    height = np.minimum(*upper.swapaxes(0, 1)) - np.maximum(*lower.swapaxes(0, 1))  # (ends, slabs)
    integral = (right - left) * np.maximum(height, 0).sum(0) / 2
    bent = _crossing(upper[:, 0] - upper[:, 1]) | _crossing(lower[:, 0] - lower[:, 1]) | _crossing(height)
    bent = np.flatnonzero(bent)
    integral[bent] = (right - left)[bent] * _bent_height(upper[..., bent], lower[..., bent])
    shared = np.bincount(pair, integral, len(a.area))
    return np.clip(shared / (a.area + b.area - shared), 0, 1)


def _slabs(a: _Sides, b: _Sides) -> tuple[np.ndarray, ...]:
    """Cut where any corner lies, within the x that both polygons cover.

    Returns
    -------
    tuple
        Of each slab of some width: its pair (S,), left and right end (S,), and slope and height (2, 4, S) of
        the lines lower a, upper a, lower b, upper b.
    """
    v, w = a.x.shape[1], b.x.shape[1]
    x = np.concatenate([a.x, b.x], 1)  # (E, V + W)
    order = x.argsort(1)
    x = np.take_along_axis(x, order, 1)
    x = np.clip(x, np.maximum(a.x[:, :1], b.x[:, :1]), np.minimum(a.x.max(1), b.x.max(1))[:, None])
    # passed corners of each side say which of its edges a slab lies on
    passed_a = (order < v).cumsum(1, dtype=np.int32)
    lower_a = (order <= a.last).cumsum(1, dtype=np.int32)
    lower_b = ((order >= v) & (order <= v + b.last)).cumsum(1, dtype=np.int32)
    pair, slab = np.nonzero(x[:, 1:] > x[:, :-1])
    at = pair * (v + w) + slab
    passed_a, lower_a, lower_b = passed_a.ravel()[at], lower_a.ravel()[at], lower_b.ravel()[at]
    upper_a, upper_b = passed_a - lower_a, slab + 1 - passed_a - lower_b
    edges_a = pair * v + np.stack([lower_a - 1, v - 1 - upper_a])
    edges_b = pair * w + np.stack([lower_b - 1, w - 1 - upper_b])
    lines = np.concatenate(
        [np.stack([side.slope.ravel()[edges], side.height.ravel()[edges]])
         for side, edges in ((a, edges_a), (b, edges_b))], 1
    )  # fmt: skip
    return pair, x.ravel()[at], x.ravel()[at + 1], lines


def _crossing(difference: np.ndarray) -> np.ndarray:
    """Return where a difference changes its sign between the two ends (2, S)."""
    return (np.minimum(*difference) < 0) & (np.maximum(*difference) > 0)


def _bent_height(upper: np.ndarray, lower: np.ndarray) -> np.ndarray:
    """Return the mean of max(0, min(upper) - max(lower)) over slabs in which lines cross.

    `upper` and `lower` are (ends, polygons, S). The slab is cut at both crossings; in each of the three
    pieces the height is linear, and that of the part above 0 is (p + q) / 2 * (p + q) / (|p'| + |q'|), with
    p, q the positive parts of its values p', q' at the ends.
    """
    cuts = []
    for lines in (upper, lower):
        start, end = lines[:, 0] - lines[:, 1]
        change = np.where(start == end, 1, start - end)
        cuts.append(np.clip(start / change, 0, 1))
    t = np.stack([np.zeros_like(cuts[0]), np.minimum(*cuts), np.maximum(*cuts), np.ones_like(cuts[0])])
    at = t[:, None]  # (4, 1, S)
    height = (upper[0] + at * (upper[1] - upper[0])).min(1) - (lower[0] + at * (lower[1] - lower[0])).max(1)
    above, size = np.maximum(height, 0), np.abs(height)
    p, q = above[:-1] + above[1:], size[:-1] + size[1:]
    return (np.diff(t, axis=0) * p**2 / (2 * np.where(q > 0, q, 1))).sum(0)
