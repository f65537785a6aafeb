"""A feature-barcode matrix by hand, and every way in which one is refused."""

import h5py
import numpy as np
import pytest

from stlib.tenx import read_matrix

# rows: two genes, an antibody, a gene; columns: barcodes
TABLE = np.array([[0, 7], [12, 0], [5, 5], [0, 70000]])
IDS = ["ENSG00000197971.15", "ENSG00000132639", "CD3", "DUMMY.1+ENSG00000141736.2"]
KINDS = ["Gene Expression", "Gene Expression", "Antibody Capture", "Gene Expression"]
BARCODES = ["TTT-1", "AAA-1"]


def write_matrix(path, table=TABLE, barcodes=BARCODES, ids=IDS, kinds=None, dtype=np.int32, **other):
    """Write features x barcodes as Cell and Space Ranger do; `other` replaces data sets."""
    columns = [np.flatnonzero(column) for column in np.asarray(table).T]
    content = {
        "data": np.concatenate([np.asarray(table)[rows, i] for i, rows in enumerate(columns)]).astype(dtype),
        "indices": np.concatenate(columns).astype(np.int64),
        "indptr": np.cumsum([0, *map(len, columns)]).astype(np.int64),
        "shape": np.array(np.shape(table), np.int32),
        "barcodes": np.array(barcodes, "S"),
        "features/id": np.array(ids, "S32"),
        "features/name": np.array(["same"] * len(ids), "S8"),  # symbols repeat
        "features/feature_type": np.array(kinds or ["Gene Expression"] * len(ids), "S16"),
    } | other
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        for name, value in content.items():
            if value is not None:
                file[f"matrix/{name}"] = value
    return path


@pytest.mark.parametrize("dtype", [np.int32, np.uint32, np.int64])
def test_a_matrix_by_hand(tmp_path, dtype):
    barcodes, genes, counts = read_matrix(write_matrix(tmp_path / "m.h5", kinds=KINDS, dtype=dtype))
    assert barcodes.tolist() == BARCODES
    # the version goes from a plain Ensembl id alone; genes are called by id
    assert genes.tolist() == ["ENSG00000197971", "ENSG00000132639", "DUMMY.1+ENSG00000141736.2"]
    assert counts.toarray().tolist() == [[0, 12, 0], [7, 0, 70000]]
    assert counts.format == "csr" and counts.dtype == np.int32


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"dtype": np.float32}, "counts are whole numbers from 0 up; found float32"),
        ({"table": -TABLE}, "counts are whole numbers from 0 up; found int32 from -70000"),
        ({"barcodes": ["AAA-1", "AAA-1"]}, r"each barcode occurs once; found \['AAA-1'\] repeated"),
        ({"ids": ["ENSG00000197971.15", "ENSG00000197971.2", "a", "b"]}, "each gene id occurs once"),
        ({"barcodes": ["AAA-1"]}, "as many as rows and columns; found 4 x 1 names for 4 x 2"),
        (
            {"indices": np.array([1, 2, 0, 2, 9])},
            "m.h5: each count lies in the matrix; found feature 9 of 4",
        ),
        ({"indptr": None}, "m.h5: damaged, or no feature-barcode matrix"),
    ],
)
def test_what_is_no_matrix_is_refused(tmp_path, change, message):
    with pytest.raises(ValueError, match=message):
        read_matrix(write_matrix(tmp_path / "m.h5", **change))


@pytest.mark.fault("a 10x matrix that is cut off", "1,000 bytes of an .h5", "ValueError that names it")
def test_a_truncated_file(tmp_path):
    path = write_matrix(tmp_path / "m.h5")
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(ValueError, match="m.h5: damaged, or no feature-barcode matrix of 10x"):
        read_matrix(path)
