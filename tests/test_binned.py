"""Sums over bins against plain ones, and whatever the blocks are."""

import numpy as np
import pytest
from test_tenx import write_matrix

from stlib.binned import sum_bins, total_counts
from stlib.tenx import Matrix

# bins x features
COUNTS = np.array([[0, 2, 0, 1], [5, 0, 0, 0], [0, 0, 0, 0], [1, 1, 1, 70000], [0, 0, 3, 0]])
KINDS = ["Gene Expression", "Gene Expression", "Antibody Capture", "Gene Expression"]


@pytest.fixture
def matrix(tmp_path):
    names = [f"s_002um_00000_0000{n}-1" for n in range(5)]
    with Matrix(write_matrix(tmp_path / "m.h5", COUNTS.T, names, list("abcd"), KINDS)) as opened:
        yield opened


@pytest.mark.parametrize("block", [1, 2, 5, 100])
def test_sums_by_hand(matrix, block):
    pieces = [(np.array([1, 0, 0, 1, -1]), 3), (np.array([0, -1, 0, 0, 0]), 1)]
    first, second = sum_bins(matrix, pieces, block)
    assert first.toarray().tolist() == [[5, 0, 0], [1, 3, 70001], [0, 0, 0]]  # the third feature is no gene
    assert second.toarray().tolist() == [[1, 3, 70001]]
    assert first.dtype == np.int32 and first.has_canonical_format and first.nnz == 4
    assert total_counts(matrix, block).tolist() == [3, 5, 0, 70002, 0]


def test_blocks_change_nothing_at_random(tmp_path):
    rng = np.random.default_rng(0)
    counts = rng.poisson(0.2, (300, 40))
    names = [f"s_002um_00000_{n:05d}-1" for n in range(300)]
    piece = rng.integers(-1, 30, 300)
    plain = np.stack([counts[piece == n].sum(0) for n in range(30)])
    with Matrix(write_matrix(tmp_path / "m.h5", counts.T, names, [f"g{n}" for n in range(40)])) as matrix:
        sums = [sum_bins(matrix, [(piece, 30)], block)[0] for block in (7, 64, 300)]
    for total in sums:
        np.testing.assert_array_equal(total.toarray(), plain)
        for name in ("data", "indices", "indptr"):
            assert getattr(total, name).tobytes() == getattr(sums[0], name).tobytes()
