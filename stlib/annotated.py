"""An AnnData of one section, however it came (.h5ad, or the table of a SpatialData store), read strictly.

What it must hold: raw counts, in ``X`` or ``layers["counts"]``, and ``obsm["spatial"]``, centres in level-0
px, x before y. What it may hold: ``obs`` in_tissue, array_col and array_row, ``uns["um_per_px"]``.
"""

from pathlib import Path
from typing import NamedTuple

import numpy as np
from scipy import sparse

from stlib.tenx import VERSION


class Table(NamedTuple):
    """N locations under tissue, M genes."""

    barcodes: np.ndarray  # (N,)
    genes: np.ndarray  # (M,), Ensembl ids without version
    counts: sparse.csr_matrix  # (N, M) int32
    position: np.ndarray  # centre, level-0 px (N, 2)
    array: np.ndarray | None  # column and row (N, 2)
    um_per_px: np.ndarray | None  # (2,)


def read_annotated(path: Path) -> Table:
    """Read a section from an .h5ad file, or from the folder of a SpatialData store (.zarr) with one table.

    Raises
    ------
    ValueError
        If it is damaged, or does not hold what it must.
    """
    table = _open(path)

    def refuse(requirement: str, found: object, remedy: str) -> ValueError:
        return ValueError(f"{path}: {requirement}; found {found}. {remedy}")

    if "spatial" not in table.obsm or np.ndim(table.obsm["spatial"]) != 2:
        raise refuse('obsm["spatial"] holds the centres of spots in level-0 px', [*table.obsm], "Add it")
    position = np.asarray(table.obsm["spatial"], float)[:, :2]
    counts = table.layers["counts"] if "counts" in table.layers else table.X
    if counts is None:
        raise refuse('raw counts stand in X or layers["counts"]', "neither", "Add them")
    counts = sparse.csr_matrix(counts)
    wrong = counts.data[(counts.data < 0) | (counts.data % 1 != 0)]
    if len(wrong):
        raise refuse(
            "counts are whole numbers from 0 up", f"values such as {wrong[:2]}",
            'Write raw counts into layers["counts"], before any normalisation',
        )  # fmt: skip
    genes = np.array([VERSION.sub(r"\1", str(name)) for name in table.var_names])
    for what, names in (("barcode", table.obs_names), ("gene", genes)):
        values, number = np.unique(np.asarray(names, str), return_counts=True)
        if (number > 1).any():
            raise refuse(f"each {what} occurs once", f"{values[number > 1][:3].tolist()} repeated", "Rename")
    kept = np.ones(len(table), bool)
    if "in_tissue" in table.obs:
        kept = np.asarray(table.obs["in_tissue"]).astype(int) == 1
    array = None
    if {"array_col", "array_row"} <= set(table.obs):
        array = np.stack([np.asarray(table.obs[name], float) for name in ("array_col", "array_row")], 1)[kept]
    scale = table.uns.get("um_per_px")
    return Table(
        np.asarray(table.obs_names[kept], str),
        genes,
        counts[kept].astype(np.int32),
        position[kept],
        array,
        None if scale is None else np.broadcast_to(np.asarray(scale, float), 2),
    )


def along_axes(array: np.ndarray, position: np.ndarray) -> np.ndarray:
    """Return columns and rows (N, 2) such that columns run along x: some writers call the column a row."""
    with np.errstate(invalid="ignore", divide="ignore"):
        straight, crossed = (
            np.abs(np.corrcoef(one[:, 0], position[:, 0])[0, 1]) for one in (array, array[:, ::-1])
        )
    return array[:, ::-1] if crossed > straight else array


def _open(path: Path):
    import anndata

    try:
        if path.suffix == ".h5ad":
            return anndata.read_h5ad(path)
        tables = sorted(child for child in (path / "tables").iterdir() if child.is_dir())
        if len(tables) != 1:
            raise ValueError(f"a section's store holds one table, found {[one.name for one in tables]}")
        return anndata.read_zarr(tables[0])
    except Exception as error:  # HDF5, Zarr and AnnData raise their own types
        raise ValueError(
            f"{path}: damaged, or no AnnData of one section ({type(error).__name__}: {error}). Write it anew "
            "with AnnData.write_h5ad, or with SpatialData.write and one table"
        ) from error
