"""Count matrices as wide tables of text: a spot a row, a gene a column, read strictly and at once.

Most of such a table is the digit 0 between two tabs. All separators are found together, and only fields that
hold something else are looked at: a section of her2st (350 spots, 15,000 genes) takes tenths of a second.
"""

import gzip
import zlib
from pathlib import Path

import numpy as np
from scipy import sparse

TAB, NEWLINE, ZERO = b"\t\n0"
MAX_DIGITS = 9  # fits int32


def read_counts(path: Path) -> tuple[np.ndarray, np.ndarray, sparse.csr_matrix]:
    """Read a gzipped table of spots x genes, tab-separated, whose first cell is empty.

    Return barcodes (N,), genes (M,), and counts (N, M) int32.

    Raises
    ------
    ValueError
        If the file is damaged, a gene is repeated, or a count is not a whole number from 0 up.
    """
    try:
        head, _, body = gzip.decompress(path.read_bytes()).partition(b"\n")
    except (OSError, EOFError, zlib.error) as error:
        raise ValueError(f"{path} is truncated or damaged ({error}); delete it, `make data` again") from error
    genes = np.array(head.decode().split("\t")[1:])
    names, number = np.unique(genes, return_counts=True)
    if (number > 1).any():
        repeated = names[number > 1].tolist()
        raise ValueError(f"{path}: a gene has one column, found {repeated} repeated. Correct the file")

    text = np.frombuffer(body if body.endswith(b"\n") else body + b"\n", np.uint8)
    ends = np.flatnonzero((text == TAB) | (text == NEWLINE))  # of all fields
    fields = np.diff(np.flatnonzero(text[ends] == NEWLINE), prepend=-1)  # of each row
    uneven = np.flatnonzero(fields != len(genes) + 1)
    if len(uneven):
        raise ValueError(
            f"{path}: a row is a spot and a count for each of the {len(genes)} genes of the header; row "
            f"{uneven[0] + 1} has {fields[uneven[0]] - 1}. Delete the file and run `make data` again"
        )
    ends = ends.reshape(-1, len(genes) + 1)  # (N, 1 + M), the barcode first
    starts = [0, *(ends[:-1, -1] + 1)]
    barcodes = np.array([bytes(text[i:j]).decode() for i, j in zip(starts, ends[:, 0], strict=True)])
    return barcodes, genes, _whole_numbers(text, ends, barcodes, genes, path)


def _whole_numbers(
    text: np.ndarray, ends: np.ndarray, barcodes: np.ndarray, genes: np.ndarray, path: Path
) -> sparse.csr_matrix:
    """Turn the text between separators into counts (N, M).

    All fields are looked at together: most are the digit 0, and only the others are read digit by digit.
    """
    first, length = ends[:, :-1] + 1, np.diff(ends) - 1  # (N, M)
    digit = text[first] - ZERO  # uint8, so that what is no digit wraps to above 9
    filled = np.flatnonzero((digit != 0) | (length != 1))
    row, column = np.divmod(filled, len(genes))
    first, length, value = first.flat[filled], length.flat[filled], digit.flat[filled].astype(np.int32)
    broken = (value > 9) | (length > MAX_DIGITS)
    for k in range(1, min(length.max(initial=0), MAX_DIGITS)):
        longer = length > k
        digit = text[first[longer] + k] - ZERO
        broken[longer] |= digit > 9
        value[longer] = value[longer] * 10 + digit
    if broken.any():
        n = int(np.argmax(broken))
        raise ValueError(
            f"{path}: counts are whole numbers from 0 up; spot '{barcodes[row[n]]}', gene "
            f"'{genes[column[n]]}' has '{bytes(text[first[n] : first[n] + length[n]]).decode()}' "
            f"({int(broken.sum())} such in all). Give raw counts, before any normalisation"
        )
    start = np.searchsorted(row, np.arange(len(barcodes) + 1))
    return sparse.csr_matrix((value, column, start), shape=(len(barcodes), len(genes)))
