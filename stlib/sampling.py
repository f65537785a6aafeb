"""Which locations of a section are kept: whole squares of neighbours, drawn by seed and section name."""

import numpy as np

from stlib.fingerprint import text_hash
from stlib.params import Sample


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
