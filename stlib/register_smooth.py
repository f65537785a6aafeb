"""What an affine map leaves: a smooth field, fitted to local shifts, no rougher than held-out shifts allow.

Around a lattice of places the correlation of the two densities is computed for all small shifts; its peak is
where the place should go, and the sharpness of the peak, along and across, how well that is known. Cubic
B-splines are fitted to these shifts by least squares with a penalty on bending, outliers weighed down. The
penalty is the one that best predicts the shifts of pieces it was not fitted to; if none predicts them better
than no field at all, there is no field. Windows overlap where pieces meet, so this tells noise from shifts,
not strangers from neighbours: that two sections belong together is proven before (`stlib.registration`).
"""

import numpy as np
from scipy import sparse
from scipy.interpolate import BSpline
from scipy.sparse.linalg import spsolve

from stlib.alignment import ROUND, Field
from stlib.views import DETAIL_UM, FLAT, View, average

BLUR_UM = 20  # sd under which densities are compared here
REACH_UM = 96  # largest local shift
LATTICE_UM = 64  # between the places that are matched
NODES_UM = 300  # between the nodes of the field
COVER = 0.4  # least share of tissue in a window
BENDING = (1.0, 10.0, 100.0, 1000.0)  # penalties to choose from; the noise of the tissue decides
OUTLIER_UM = 30  # a shift this far from the field counts half
HOLD_OUT_UM = 600  # side of the pieces that are held out together: windows of neighbours overlap
FOLDS = 4
LEAST_GAIN = 0.1  # of the squared error of held-out shifts, against no field
LEAST_PLACES = 30
PASSES = 2
ROUNDS = 3  # of weighing outliers down


def smooth_field(moved: np.ndarray, cover: np.ndarray, density: np.ndarray, view: View) -> Field | None:
    """Return the field that brings one density onto another, or None if none is proven.

    Parameters
    ----------
    moved
        Moving density (h, w), under `BLUR_UM`, brought into the fixed frame by the best affine map.
    cover
        Where it has tissue, bool (h, w).
    density
        Fixed density (h, w), under `BLUR_UM`.
    view
        Fixed view of the same grid.
    """
    um, places = view.um_per_px, view.places
    near = average(cover.astype(np.float32), DETAIL_UM / um) > COVER
    lattice = np.zeros_like(near)
    every = np.maximum(np.rint(LATTICE_UM / um[::-1]).astype(int), 1)
    lattice[every[0] // 2 :: every[0], every[1] // 2 :: every[1]] = True
    rows = np.argwhere(lattice & near)
    if len(rows) < LEAST_PLACES:
        return None
    at = places[tuple(rows.T)]  # (K, 2) um
    origin = at.min(0) - NODES_UM
    size = np.ceil((at.max(0) + NODES_UM - origin) / NODES_UM).astype(int) + 1  # nodes along x and y
    field = Field(origin, float(NODES_UM), np.zeros((size[1], size[0], 2)))
    for turn in range(PASSES):
        reach = np.maximum(np.rint(REACH_UM / 2**turn / um).astype(int), 2)
        shift, certainty = local_shifts(moved, view.pulled(density, field), rows, reach, DETAIL_UM / um)
        shift *= um
        target = field.forward(at + shift) - at  # the new field, where the old one is already applied
        field = _proven(at, target, certainty / (um[:, None] * um), field)
        if field is None:
            return None
    return field


def local_shifts(
    a: np.ndarray, b: np.ndarray, rows: np.ndarray, reach: np.ndarray, window: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Find where the surroundings of places in `a` lie in `b`.

    Parameters
    ----------
    a, b
        Images (h, w).
    rows
        Places (K, 2: row and column).
    reach
        Largest shift along x and y (2,), px.
    window
        Sd of the Gaussian window along x and y (2,), px.

    Returns
    -------
    shift : numpy.ndarray
        (K, 2: x and y), px, at the peak of the local correlation, to parts of a pixel.
    certainty : numpy.ndarray
        Curvature of the peak times its height (K, 2, 2), per px2, positive definite.
    """
    h, w = a.shape
    mean_a, mean_b = average(a, window), average(b, window)
    var_a, var_b = average(a * a, window) - mean_a**2, average(b * b, window) - mean_b**2
    least = FLAT * max(var_a.max(), var_b.max(), 1e-12)
    pad = [(reach[1],) * 2, (reach[0],) * 2]
    b, mean_b, var_b = (np.pad(x, pad) for x in (b, mean_b, var_b))
    number = 2 * reach[::-1] + 1  # shifts along y and x
    match = np.empty((*number, len(rows)))
    k = tuple(rows.T)
    for y, x in np.ndindex(*number):
        there = (slice(y, y + h), slice(x, x + w))
        covariance = average(a * b[there], window) - mean_a * mean_b[there]
        deviation = np.sqrt(np.maximum(var_a, least) * np.maximum(var_b[there], least))
        match[y, x] = (covariance / deviation)[k]
    inner = match[1:-1, 1:-1].reshape(-1, len(rows)).argmax(0)
    y, x = (side + 1 for side in np.unravel_index(inner, number - 2))
    around = [(dy, dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1)]
    n = np.arange(len(rows))
    values = np.stack([match[y + dy, x + dx, n] for dy, dx in around], 1)  # (K, 9)
    terms = np.array([[1, dx, dy, dx * dx / 2, dx * dy, dy * dy / 2] for dy, dx in around])
    _, sx, sy, xx, xy, yy = np.linalg.pinv(terms) @ values.T  # of the paraboloid through each peak
    curve = -np.stack([xx, xy, xy, yy], 1).reshape(-1, 2, 2)
    steep, axes = np.linalg.eigh(curve)
    curve = np.einsum("kij,kj,klj->kil", axes, np.maximum(steep, 1e-3), axes)
    part = np.clip(np.linalg.solve(curve, np.stack([sx, sy], 1)[..., None])[..., 0], -1, 1)
    peak = np.clip(match[y, x, n], 0, 1)
    return np.stack([x, y], 1) - reach + part, curve * peak[:, None, None]


def _proven(at: np.ndarray, target: np.ndarray, certainty: np.ndarray, grid: Field) -> Field | None:
    """Return the field (on the nodes of `grid`) that predicts held-out shifts best, if better than none."""
    certainty = certainty / (np.trace(certainty, axis1=1, axis2=2).mean() / 2)
    basis, bending = _basis(at, grid), _bending(grid)
    column, row = np.floor(at / HOLD_OUT_UM).astype(int).T
    held = (column + 2 * row) % FOLDS
    errors = []
    for penalty in BENDING:
        rest = np.empty_like(target)
        for out in (held == fold for fold in np.unique(held)):
            nodes = _fit(basis[~out], target[~out], certainty[~out], penalty * bending)
            rest[out] = target[out] - basis[out] @ nodes
        errors.append(_loss(rest, certainty))
    if min(errors) > (1 - LEAST_GAIN) * _loss(target, certainty):
        return None
    nodes = _fit(basis, target, certainty, BENDING[int(np.argmin(errors))] * bending)
    return Field(grid.origin_um, grid.spacing_um, nodes.reshape(grid.nodes.shape).round(ROUND))


def _loss(rest: np.ndarray, certainty: np.ndarray) -> float:
    """Return the mean squared error, in which no single outlier counts for much."""
    return float(np.log1p(_square(rest, certainty) / OUTLIER_UM**2).mean())


def _square(rest: np.ndarray, certainty: np.ndarray) -> np.ndarray:
    return np.einsum("ki,kij,kj->k", rest, certainty, rest)


def _fit(
    basis: sparse.csr_matrix, target: np.ndarray, certainty: np.ndarray, penalty: sparse.spmatrix
) -> np.ndarray:
    """Return the coefficients (nodes, 2) that minimise squared error + penalty, outliers weighed down."""
    number, weight = basis.shape[1], np.ones(len(target))
    firm = penalty + 1e-6 * sparse.identity(number)  # nodes that no place sees stay where they are
    for _ in range(ROUNDS):
        w = certainty * weight[:, None, None]
        blocks = [[basis.T @ sparse.diags(w[:, i, j]) @ basis for j in (0, 1)] for i in (0, 1)]
        blocks = [[blocks[i][j] + firm if i == j else blocks[i][j] for j in (0, 1)] for i in (0, 1)]
        right = np.concatenate([basis.T @ (w[:, i] * target).sum(1) for i in (0, 1)])
        nodes = spsolve(sparse.bmat(blocks, format="csc"), right).reshape(2, number).T
        weight = 1 / (1 + _square(target - basis @ nodes, certainty) / OUTLIER_UM**2)
    return nodes


def _basis(at: np.ndarray, grid: Field) -> sparse.csr_matrix:
    """Return how much each node counts at each place (K, rows * columns)."""
    rows, columns = grid.nodes.shape[:2]
    along = []
    for axis, number in ((0, columns), (1, rows)):
        knots = grid.origin_um[axis] + grid.spacing_um * (np.arange(number + 4) - 2.0)
        one = BSpline.design_matrix(at[:, axis], knots, 3)
        along.append((one.indices.reshape(-1, 4), one.data.reshape(-1, 4)))
    (x, weight_x), (y, weight_y) = along
    node = (y[:, :, None] * columns + x[:, None, :]).ravel()
    weight = (weight_y[:, :, None] * weight_x[:, None, :]).ravel()
    return sparse.csr_matrix((weight, node, np.arange(0, len(node) + 1, 16)), (len(at), rows * columns))


def _bending(grid: Field) -> sparse.csr_matrix:
    """Return the quadratic form of the second differences of the coefficients: 0 for what is affine."""
    rows, columns = grid.nodes.shape[:2]

    def differences(number: int, order: int) -> sparse.spmatrix:
        step = {0: [1], 1: [-1, 1], 2: [1, -2, 1]}[order]
        return sparse.diags(step, range(order + 1), shape=(number - order, number))

    terms = [(2, 0, 1), (0, 2, 1), (1, 1, 2)]  # order along y, along x, how often
    parts = [n * _gram(sparse.kron(differences(rows, y), differences(columns, x))) for y, x, n in terms]
    return sparse.csr_matrix(sum(parts))


def _gram(matrix: sparse.spmatrix) -> sparse.spmatrix:
    return matrix.T @ matrix
