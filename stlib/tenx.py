"""Count matrices of 10x Genomics: HDF5, one sparse matrix of features x barcodes (Cell and Space Ranger).

Group ``/matrix``: ``data``, ``indices``, ``indptr`` and ``shape`` in columns, one a barcode; ``barcodes``;
``features/id``, ``name``, ``feature_type``. A gene is called by its id, because names repeat.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Self

import h5py
import numpy as np
from scipy import sparse

VERSION = re.compile(r"^(ENS[A-Z]*G\d{11})\.\d+$")  # other ids keep their dots; "+" and "-" stay


class Matrix:
    """A feature-barcode matrix on disk, read in blocks of barcodes; a context manager.

    Other features than genes (antibodies, guides) are left out.

    Attributes
    ----------
    genes
        Ids without version (M,).
    counts
        How many counts are stored, other features included.

    Raises
    ------
    ValueError
        If the file is damaged or of another kind, or a gene id is repeated.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        with self._whole():
            self._file = h5py.File(path)
        try:
            self._open()
        except ValueError:
            self._file.close()
            raise

    def _open(self) -> None:
        with self._whole():
            matrix = self._file["matrix"]
            self._data, self._indices, self._indptr = matrix["data"], matrix["indices"], matrix["indptr"][:]
            self._n_features, self._n_barcodes = map(int, matrix["shape"][:])
            self._barcodes = matrix["barcodes"]
            ids, kinds = (matrix[name].asstr()[:] for name in ("features/id", "features/feature_type"))
        n_barcodes, named = self._n_barcodes, len(self._barcodes)
        if named != n_barcodes or not len(ids) == len(kinds) == self._n_features:
            named = f"{len(ids)} x {named} names for {self._n_features} x {n_barcodes}"
            raise self.refuse("features and barcodes are as many as rows and columns", named)
        length = min(self._data.size, self._indices.size)
        if (
            len(self._indptr) != n_barcodes + 1
            or self._indptr[-1] != length
            or (np.diff(self._indptr) < 0).any()
        ):
            found = f"{len(self._indptr)} of {n_barcodes + 1} places, {length} counts"
            raise self.refuse("each barcode has a place among the counts", found)
        self.counts = length
        self._kept = kinds == "Gene Expression"
        self.genes = np.array([VERSION.sub(r"\1", name) for name in ids[self._kept]])
        self.refuse_repeated("gene id", self.genes)

    def __len__(self) -> int:
        return self._n_barcodes

    @property
    def barcodes(self) -> np.ndarray:
        """Names as fixed-width bytes (N,), in the order of the file; read from it, and not kept."""
        with self._whole():
            return np.asarray(self._barcodes[:], "S")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._file.close()

    def blocks(self, size: int) -> Iterator[tuple[slice, sparse.csr_matrix]]:
        """Yield the counts of up to `size` barcodes at a time: which they are, and (n, M) int32.

        Raises
        ------
        ValueError
            If a count is not a whole number from 0 up, or lies outside the matrix.
        """
        for start in range(0, len(self), size):
            part = slice(start, min(start + size, len(self)))
            first, last = self._indptr[[part.start, part.stop]]
            with self._whole():
                data, indices = self._data[first:last], self._indices[first:last]
            whole = np.issubdtype(data.dtype, np.integer)
            if not whole or (len(data) and (data.min() < 0 or data.max() > np.iinfo(np.int32).max)):
                found = f"{data.dtype} from {data.min()} to {data.max()}"
                raise self.refuse("counts are whole numbers from 0 up", found)
            if len(indices) and not 0 <= indices.min() <= indices.max() < self._n_features:
                found = f"feature {indices.max()} of {self._n_features}"
                raise self.refuse("each count lies in the matrix", found)
            indptr = (self._indptr[part.start : part.stop + 1] - first).astype(np.int32)
            shape = (part.stop - part.start, self._n_features)
            counts = sparse.csr_matrix(
                (data.astype(np.int32, copy=False), indices.astype(np.int32, copy=False), indptr), shape=shape
            )
            yield part, counts if self._kept.all() else counts[:, self._kept]

    def refuse(self, requirement: str, found: object) -> ValueError:
        """Return the error that says what the file must hold, and what it holds."""
        return ValueError(f"{self.path}: {requirement}; found {found}. Fetch the file again")

    def refuse_repeated(self, what: str, names: np.ndarray) -> None:
        """Raise that error if a name is repeated."""
        unique, number = np.unique(names, return_counts=True)
        if (number > 1).any():
            raise self.refuse(f"each {what} occurs once", f"{unique[number > 1][:3].tolist()} repeated")

    @contextmanager
    def _whole(self) -> Iterator[None]:
        """Turn what HDF5 raises into an error that names the file and the remedy."""
        try:
            yield
        except (OSError, KeyError, ValueError, TypeError) as error:
            raise ValueError(
                f"{self.path}: damaged, or no feature-barcode matrix of 10x ({error}). Fetch it again; it is "
                "the .h5 of Space Ranger, not the folder of .mtx"
            ) from error


def read_matrix(path: Path) -> tuple[np.ndarray, np.ndarray, sparse.csr_matrix]:
    """Read the genes of a feature-barcode matrix at once.

    Return barcodes (N,), gene ids (M,) without version, and counts (N, M) int32.

    Raises
    ------
    ValueError
        As `Matrix` does, or if a barcode is repeated.
    """
    with Matrix(path) as matrix:
        barcodes = matrix.barcodes.astype(str)
        matrix.refuse_repeated("barcode", barcodes)
        blocks = [counts for _, counts in matrix.blocks(max(1, len(matrix)))]
        counts = blocks[0] if blocks else sparse.csr_matrix((0, len(matrix.genes)), dtype=np.int32)
        return barcodes, matrix.genes, counts
