"""Count matrices of 10x Genomics: HDF5, one sparse matrix of features x barcodes (Cell and Space Ranger).

Group ``/matrix``: ``data``, ``indices``, ``indptr`` and ``shape`` in columns, one a barcode; ``barcodes``;
``features/id``, ``name``, ``feature_type``. A gene is called by its id, because names repeat.
"""

import re
from pathlib import Path

import h5py
import numpy as np
from scipy import sparse

VERSION = re.compile(r"^(ENS[A-Z]*G\d{11})\.\d+$")  # other ids keep their dots; "+" and "-" stay


def read_matrix(path: Path) -> tuple[np.ndarray, np.ndarray, sparse.csr_matrix]:
    """Read the genes of a feature-barcode matrix; other features (antibodies, guides) are left out.

    Returns
    -------
    barcodes, genes, counts
        (N,), ids (M,) without version, and (N, M) int32.

    Raises
    ------
    ValueError
        If the file is damaged or of another kind, a barcode or id is repeated, or a count is not a whole
        number from 0 up.
    """
    try:
        with h5py.File(path) as file:
            matrix = file["matrix"]
            data, indices, indptr = (matrix[name][:] for name in ("data", "indices", "indptr"))
            n_features, n_barcodes = map(int, matrix["shape"][:])
            barcodes, ids, kinds = (
                matrix[name].asstr()[:] for name in ("barcodes", "features/id", "features/feature_type")
            )
    except (OSError, KeyError, ValueError, TypeError) as error:
        raise ValueError(
            f"{path}: damaged, or no feature-barcode matrix of 10x ({error}). Fetch it again; it is the .h5 "
            "of Space Ranger, not the folder of .mtx"
        ) from error

    def refuse(requirement: str, found: object) -> ValueError:
        return ValueError(f"{path}: {requirement}; found {found}. Fetch the file again")

    if len(barcodes) != n_barcodes or not len(ids) == len(kinds) == n_features:
        named = f"{len(ids)} x {len(barcodes)} names for {n_features} x {n_barcodes}"
        raise refuse("features and barcodes are as many as rows and columns", named)
    if not np.issubdtype(data.dtype, np.integer) or (data < 0).any() or (data > np.iinfo(np.int32).max).any():
        raise refuse("counts are whole numbers from 0 up", f"{data.dtype} from {data.min()} to {data.max()}")
    try:
        counts = sparse.csr_matrix((data.astype(np.int32), indices, indptr), shape=(n_barcodes, n_features))
        counts.check_format()
    except ValueError as error:
        raise refuse("each count lies in the matrix", error) from error
    counts = counts[:, kinds == "Gene Expression"]
    genes = np.array([VERSION.sub(r"\1", name) for name in ids[kinds == "Gene Expression"]])
    for what, names in (("barcode", barcodes), ("gene id", genes)):
        unique, number = np.unique(names, return_counts=True)
        if (number > 1).any():
            raise refuse(f"each {what} occurs once", f"{unique[number > 1][:3].tolist()} repeated")
    return barcodes.astype(str), genes, counts
