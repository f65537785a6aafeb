"""Which bins make which location: a coarser bin, or a pseudo-spot that was never printed; and which are kept.

Locations stand on a square grid that begins at the same corner as the grid of bins (`stlib.bins`); their
places (column, row) are counted from there. A bin belongs to the location that its centre lies in. What the
edge of the area cuts is a location like others.
"""

from typing import NamedTuple

import numpy as np

from stlib.bins import Grid, centres_um
from stlib.fingerprint import text_hash
from stlib.params import Sample, Spot


def tiles(spot: Spot) -> bool:
    """Tell whether locations pave the area: squares as wide as they are apart."""
    return spot.shape == "square" and spot.size_um == spot.pitch_um


def locate(place: np.ndarray, side_um: float, spot: Spot) -> tuple[np.ndarray, np.ndarray]:
    """Find the location that the centre of each bin lies in.

    Parameters
    ----------
    place
        Column and row of bins (N, 2).
    spot
        Form, size and pitch of the locations, which stand on a square grid.

    Returns
    -------
    location, inside
        Column and row (N, 2) of the nearest location, and whether the centre lies in it (N,).

    Examples
    --------
    >>> square = Spot(shape="square", size_um=8, pitch_um=8)
    >>> locate(np.array([[3, 0], [4, 7]]), 2, square)  # as column // 4, row // 4
    (array([[0, 0],
           [1, 1]], dtype=int32), array([ True,  True]))
    """
    centre = centres_um(place, side_um)
    location = np.floor(centre / spot.pitch_um).astype(np.int32)
    if tiles(spot):
        return location, np.ones(len(location), bool)
    away = np.abs(centre - centres_um(location, spot.pitch_um))
    reach = spot.size_um / 2
    inside = (away < reach).all(1) if spot.shape == "square" else (away**2).sum(1) < reach**2
    return location, inside


class Layout(NamedTuple):
    """Where the N bins of a section and the L locations that they make lie on its slide.

    What is dropped at the edge of the slide, or falls into a cell of a coarser level, is a whole location
    where they pave the area, so that it does not matter from which bins they were summed; else a bin.
    """

    unit_px: np.ndarray  # centre of what a bin is dropped or kept with (N, 2), level-0 px
    on_slide: np.ndarray  # whether that lies on the slide (N,)
    number: np.ndarray  # location of each bin (N,); L: none, or not on the slide
    place: np.ndarray  # column and row of the locations (L, 2), row by row
    um: np.ndarray  # their centres (L, 2), um from the corner of the grid
    px: np.ndarray  # the same on the slide, level-0 px


def lay_out(place: np.ndarray, side_um: float, spot: Spot, grid: Grid, size_px: np.ndarray | None) -> Layout:
    """Find the locations of bins, and where both lie.

    Parameters
    ----------
    place, side_um
        Column and row of the bins (N, 2), and their side.
    size_px
        Width and height of the slide; None: unknown, and every bin counts as on it.
    """
    location, inside = locate(place, side_um, spot)
    unit, unit_um = (location, spot.pitch_um) if tiles(spot) else (place, side_um)
    unit_px = grid.to_px(centres_um(unit, unit_um))
    on_slide = within(unit_px, size_px)
    locations, number = _number(location, inside & on_slide)
    um = centres_um(locations, spot.pitch_um)
    return Layout(unit_px, on_slide, number, locations, um, grid.to_px(um))


def _number(location: np.ndarray, member: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the locations of member bins (L, 2), row by row, and the one of each bin (N,), L for none."""
    width = int(location[:, 0].max()) + 1
    column, row = location[member].astype(np.int64).T
    code, index = np.unique(row * width + column, return_inverse=True)
    number = np.full(len(location), len(code), np.int32)
    number[member] = index
    return np.stack([code % width, code // width], 1), number


def within(px: np.ndarray, far: np.ndarray | None, near: np.ndarray | float = 0.0) -> np.ndarray:
    """Tell which places (N, 2) lie in [near, far); all where `far` is None."""
    return np.ones(len(px), bool) if far is None else ((px >= near) & (px < far)).all(1)


def rows_of(place: np.ndarray, held: np.ndarray) -> np.ndarray:
    """Return the row in `held` (R, 2), whole numbers, of each place (N, 2); -1 for those it does not hold.

    Examples
    --------
    >>> rows_of(np.array([[5, 1], [2, 9], [0, 0]]), np.array([[2, 9], [5, 1]]))
    array([ 1,  0, -1], dtype=int32)
    """
    place, held = np.asarray(place).astype(np.int64), np.asarray(held).astype(np.int64)
    low = np.minimum(place.min(0), held.min(0))
    height = max(int(place[:, 1].max()), int(held[:, 1].max())) - low[1] + 1
    code, known = ((index[:, 0] - low[0]) * height + index[:, 1] - low[1] for index in (place, held))
    order = np.argsort(known)
    row = order[np.minimum(np.searchsorted(known, code, sorter=order), len(order) - 1)]
    return np.where(known[row] == code, row, -1).astype(np.int32)


def draw_squares(centre_um: np.ndarray, sample: Sample, section: str) -> np.ndarray:
    """Draw squares of a lattice until enough locations lie in them; the last square is cut.

    Parameters
    ----------
    centre_um
        Centres of the locations (N, 2), um from the corner of the lattice, in canonical order.
    sample
        How many locations, of squares of which side, by which seed.
    section
        Its name: each section has its own squares.

    Returns
    -------
    numpy.ndarray
        Rows of the locations that are kept, ascending; all where there are not more than `sample.number`.

    Examples
    --------
    >>> line = np.array([[1, 0], [3, 0], [5, 0], [7, 0]])
    >>> len(draw_squares(line, Sample(number=2, square_um=4), "S1"))
    2
    """
    square = np.floor(np.asarray(centre_um) / sample.square_um).astype(np.int64)
    squares, index = np.unique(square, axis=0, return_inverse=True)
    rng = np.random.default_rng([sample.seed, int(text_hash(section)[:15], 16)])
    turn = rng.permutation(len(squares))  # when each square is drawn
    return np.sort(np.argsort(turn[index.ravel()], kind="stable")[: sample.number])
