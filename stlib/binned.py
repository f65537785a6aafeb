"""Sums over bins: what was measured in any larger pieces, read from the matrix in blocks of bins.

Each bin belongs to one piece or to none, so the sum is a sparse product of a selection, 0 and 1, with the
counts. Blocks are added as integers: their size changes the memory and the time, never the result.
"""

from collections.abc import Iterator, Sequence
from functools import reduce
from operator import add

import numpy as np
from scipy import sparse
from tqdm import tqdm

from stlib.tenx import Matrix

BLOCK = 2**19  # bins held at once: with 30 genes each, a quarter of a GB


def total_counts(matrix: Matrix, block: int = BLOCK) -> np.ndarray:
    """Return the counts of each bin over all genes (N,) int64."""
    totals = np.zeros(len(matrix), np.int64)
    for part, counts in _blocks(matrix, block, "totals"):
        totals[part] = np.asarray(counts.sum(1, dtype=np.int64)).ravel()
    return totals


def sum_bins(
    matrix: Matrix, pieces: Sequence[tuple[np.ndarray, int]], block: int = BLOCK
) -> list[sparse.csr_matrix]:
    """Add the counts of all bins of a piece, for several kinds of pieces in one reading.

    Parameters
    ----------
    matrix
        Counts of N bins and M genes.
    pieces
        Of each kind: the piece of each bin (N,), -1 for none, and the number of pieces R.
    block
        Bins held at once.

    Returns
    -------
    list
        Of each kind (R, M) int32, canonical.
    """
    partial: list[list[tuple[int, sparse.csr_matrix]]] = [[] for _ in pieces]
    for part, counts in _blocks(matrix, block, "sums"):
        for own, (piece, number) in zip(partial, pieces, strict=True):
            (taken,) = np.nonzero(piece[part] >= 0)
            ones = np.ones(len(taken), np.int32)
            select = sparse.csr_matrix((ones, (piece[part][taken], taken)), shape=(number, counts.shape[0]))
            total, blocks = select @ counts, 1
            while own and own[-1][0] == blocks:  # as a binary counter: sums of 1, 2, 4, ... blocks
                total, blocks = own.pop()[1] + total, 2 * blocks
            own.append((blocks, total))
    sums = [reduce(add, (total for _, total in reversed(own))) for own in partial]
    for total in sums:
        total.sum_duplicates()
        total.eliminate_zeros()
    return sums


def _blocks(matrix: Matrix, block: int, desc: str) -> Iterator[tuple[slice, sparse.csr_matrix]]:
    """Yield the blocks of a matrix beside a bar."""
    with tqdm(total=len(matrix), unit="bin", unit_scale=True, desc=desc) as bar:
        for part, counts in matrix.blocks(block):
            yield part, counts
            bar.update(part.stop - part.start)
