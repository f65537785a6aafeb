"""Exact pooling of a dense map that is never made: what locations of any size sum up of it (PixNet, eq. 5).

A network gives a map D of h x w cells, one for `stride` pixels a side. PixNet enlarges it to the pixels,
G = B D with B bilinear (half-pixel centres, no aligned corners), and sums G over the pixels of each location,
S G. All of this is linear, so that

    S B D = P D,    P (N, h w) sparse:  P[n, (r, c)] = sum of B_y[Y, r] B_x[X, c] over the pixels of n

and P takes what G would have taken: 400 GB for 250 genes on a slide of 20,000 px a side. The head, linear
too, comes after: S (G W' + 1 b') = (P D) W' + a b', with a = P 1, the number of pixels.

Which pixels a location has is the matter of `stlib.footprints`. A row of a disc is an interval of pixels, and
prefix sums of B_x tell at once what it gives to each cell; a rectangle is one interval along either axis.
Beyond the border B repeats the outer cells, as if they went on for ever: cells are counted on an endless
grid, and those outside are added to the nearest inside.
"""

from typing import NamedTuple

import numpy as np
import torch
from scipy import sparse
from torch import Tensor

from stlib.footprints import Box, Footprints, bands, blocks

AGGREGATES = ("mean", "sum", "sum_scaled")


class Pool(NamedTuple):
    """How N locations sum up a map."""

    matrix: sparse.csr_matrix  # P (N, cells), CSR: row by row of the map
    pixels: np.ndarray  # a (N,), the pixels of each location on the image


def pooling(
    prints: Footprints,
    image: Box,
    stride: int,
    cells: tuple[int, int],
    window: Box | None = None,
    dtype: type = np.float32,
) -> Pool:
    """Return the pooling matrix of locations on a map, and how many pixels each has.

    Parameters
    ----------
    prints
        The locations (N); pixel (0, 0) is the corner of the map.
    image
        The pixels that count. They may lie within the map, which ends at whole cells.
    stride
        Pixels a side of a cell.
    cells
        Columns and rows of the map.
    window
        Columns and rows of cells that are wanted, default: all. The matrix has its cells alone: matrices of
        windows that tile the map, each times its part of the map, add up to the whole.
    dtype
        float32 or float64. With a stride that is a power of two the weights are exact in either.

    Raises
    ------
    ValueError
        If a location lies wholly outside the image.
    """
    c0, r0, c1, r1 = window or (0, 0, *cells)
    size = (r1 - r0) * (c1 - c0)
    prefix = _prefix(stride).astype(dtype)
    pixels, parts = np.zeros(len(prints), np.int64), [sparse.csr_matrix((0, size), dtype=dtype)]
    parted = list(blocks(prints, stride))
    for rows in parted:
        found = bands(prints[rows], image, rows)
        pixels[rows] = found.pixels
        x, columns = _shares(found.left, found.right, stride, prefix)  # (n, R, K), (n, K)
        y, lines = _shares(found.top, found.bottom, stride, prefix)  # (n, R, V), (n, V)
        weight = y.swapaxes(1, 2) @ x  # (n, V, K)
        columns = columns.clip(0, cells[0] - 1)[:, None] - c0
        lines = lines.clip(0, cells[1] - 1)[:, :, None] - r0
        kept = (weight > 0) & (columns >= 0) & (columns < c1 - c0) & (lines >= 0) & (lines < r1 - r0)
        index = (lines * (c1 - c0) + columns)[kept].astype(np.int32 if size < 2**31 else np.int64)
        ends = np.concatenate([[0], kept.sum((1, 2)).cumsum()])
        part = sparse.csr_matrix((weight[kept], index, ends), (len(rows), size))
        part.sum_duplicates()  # at the border
        parts.append(part)
    matrix = sparse.vstack(parts, "csr")
    if prints.uneven:
        matrix = matrix[np.concatenate(parted).argsort()]
    return Pool(matrix, pixels)


def _prefix(stride: int) -> np.ndarray:
    """Return what the first 0, 1, ... 3 s pixels from one stride before a cell give to it (3 s + 1,)."""
    pixel = np.arange(-stride, 2 * stride)
    return np.concatenate([[0.0], (1 - abs((pixel + 0.5) / stride - 0.5)).clip(0).cumsum()])


def _shares(
    start: np.ndarray, stop: np.ndarray, stride: int, prefix: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return what intervals of pixels (n, R) give to cells (n, R, K), and which cells (n, K).

    The cells are those of the endless grid from the first that any interval of the row reaches.
    """
    some = stop > start
    least = np.where(some, start, np.iinfo(np.int64).max).min(1)
    most = np.where(some, stop, np.iinfo(np.int64).min).max(1) - 1
    first = (2 * least + 1 - stride) // (2 * stride)  # floor((X + 1/2) / s - 1/2)
    last = (2 * most + 1 - stride) // (2 * stride) + 1
    cell = first[:, None] + np.arange((last - first).max() + 1)  # (n, K)
    before = stride * (cell[:, None] - 1)  # (n, 1, K)
    given = [prefix[(px[..., None] - before).clip(0, 3 * stride)] for px in (start, stop)]
    return given[1] - given[0], cell


def as_tensor(matrix: sparse.csr_matrix) -> Tensor:
    """Return a pooling matrix as torch's sparse tensor."""
    coo = matrix.tocoo()
    index = torch.from_numpy(np.stack([coo.row, coo.col]).astype(np.int64))
    return torch.sparse_coo_tensor(
        index, torch.from_numpy(coo.data), coo.shape, is_coalesced=True, check_invariants=False
    )


def pooled(pool: Tensor, cells: Tensor) -> Tensor:
    """Return P D (N, C), in float32 at least, also under autocast: sums over many cells.

    `pool` is P (N, M), sparse; `cells` is D (M, C), the map's cells row by row. Gradients reach D.
    """
    with torch.autocast(cells.device.type, enabled=False):
        kind = torch.promote_types(cells.dtype, pool.dtype)
        return pool.to(kind) @ cells.to(kind)


def row_scale(pixels: Tensor, aggregate: str, area: float | Tensor) -> Tensor:
    """Return the factor c of each row of P (N,), float64, that makes an aggregate of a sum.

    Parameters
    ----------
    pixels
        a (N,).
    aggregate
        ``sum``: eq. 5 as printed, c = 1. ``sum_scaled``: the same in units of a usual location,
        c = 1 / `area`. ``mean``: c = 1 / a, the only one that means the same at any size.
    area
        Pixels of a usual location, e.g. the median of those in training.
    """
    if aggregate not in AGGREGATES:
        raise ValueError(f"an aggregate is one of {AGGREGATES}, found '{aggregate}'")
    if aggregate == "mean":
        return 1 / pixels.double()
    return torch.ones_like(pixels, dtype=torch.float64) / (area if aggregate == "sum_scaled" else 1)


def full_resolution(cells: Tensor, window: Box, stride: int) -> Tensor:
    """Return a window of B D, the map at the resolution of the pixels (C, height, width), for looking at.

    Parameters
    ----------
    cells
        D (C, h, w).
    window
        Pixels that are wanted, within the map.
    stride
        Pixels a side of a cell.
    """
    x0, y0, x1, y1 = window
    if not (0 <= x0 < x1 <= stride * cells.shape[2] and 0 <= y0 < y1 <= stride * cells.shape[1]):
        size = [stride * side for side in cells.shape[:0:-1]]
        raise ValueError(f"a window lies on the map of {size[0]} x {size[1]} px, found {window}")
    for axis, start, stop in ((1, y0, y1), (2, x0, x1)):
        place = (torch.arange(start, stop, device=cells.device, dtype=torch.float64) + 0.5) / stride - 0.5
        place = place.clamp(0, cells.shape[axis] - 1)
        low = place.floor().long()
        high = (low + 1).clamp(max=cells.shape[axis] - 1)
        share = (place - low).to(cells.dtype).view(-1, *[1] * (2 - axis))
        cells = torch.lerp(cells.index_select(axis, low), cells.index_select(axis, high), share)
    return cells
