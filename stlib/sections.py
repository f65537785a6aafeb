"""One section on disk: raw counts, positions and scale in an .h5ad that scanpy and squidpy open.

Writing goes through AnnData. Reading does not: a training run needs five arrays, so it takes them with h5py
and imports nothing heavier.
"""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import h5py
import numpy as np
from scipy import sparse

from stlib.fingerprint import seal, sealed
from stlib.h5ad import write_h5ad
from stlib.params import Params
from stlib.paths import section_file

HASHED = 2**20  # numbers hashed at once


class Cells(NamedTuple):
    """Grid cells of one level and all that was measured in them; R cells, M genes.

    A section may list a sample of its locations; the label of a cell is the sum over all of them.
    """

    index: np.ndarray  # column and row of each cell (R, 2), as `stlib.graph.grid_parents` counts them
    counts: sparse.csr_matrix  # (R, M)


@dataclass(frozen=True)
class Section:
    """One cut of a block with its measurements; N spots, M genes.

    Attributes
    ----------
    name, patient, layer
        Identifiers, and the position in the stack of the block (1 is the first cut).
    barcodes, genes
        Names of the rows (N,) and columns (M,) of `counts`.
    counts
        Raw integer counts (N, M), CSR.
    array
        Column and row of each spot in its array (N, 2).
    position
        Centre in level-0 pixels (N, 2), x right and y down, edge-based: 0 is the image's outer edge.
    um_per_px
        Scale along x and y (2,).
    size_px
        Width and height of the slide (2,), or None for a section of which only counts are at hand.
    shape, size_um, pitch_um
        Form, diameter (or side) and spacing of the spots.
    rate, dispersion
        Expected counts (N, M) and negative-binomial dispersion where they are known: the toy alone.
    cells
        Level -> its cells, where `counts` holds a sample of what was measured; empty: it holds everything.
    region
        What the tissue under each spot is called (N,), empty where it is not; None: nobody labelled it.
    facts
        Numbers that the reader met on its way and that nothing computes with, e.g. how many bins it dropped.
    """

    name: str
    patient: str
    layer: int
    barcodes: np.ndarray
    genes: np.ndarray
    counts: sparse.csr_matrix
    array: np.ndarray
    position: np.ndarray
    um_per_px: np.ndarray
    size_px: np.ndarray | None
    shape: str
    size_um: float
    pitch_um: float
    rate: np.ndarray | None = field(default=None, repr=False)
    dispersion: float | None = None
    cells: dict[str, Cells] = field(default_factory=dict, repr=False)
    region: np.ndarray | None = field(default=None, repr=False)
    facts: dict[str, float] = field(default_factory=dict, repr=False)

    def __len__(self) -> int:
        return len(self.barcodes)

    def columns(self, genes: list[str]) -> np.ndarray:
        """Return the column of each gene.

        Raises
        ------
        ValueError
            If a gene is not measured here.
        """
        place = {gene: column for column, gene in enumerate(self.genes)}
        absent = [gene for gene in genes if gene not in place]
        if absent:
            raise ValueError(
                f"section '{self.name}': the panel needs gene(s) {absent[:5]}, which its counts do not "
                f"contain ({len(absent)} of {len(genes)} absent). Choose the panel among the genes common to "
                "all sections"
            )
        return np.array([place[gene] for gene in genes])


def check_section(section: Section, source: str, allowed_empty: tuple[str, ...] = ()) -> Section:
    """Return the section, or say what is wrong with it.

    Parameters
    ----------
    source
        The file it was read from, for the message.
    allowed_empty
        Barcodes that may have no count at all, because the source is known to have them.

    Raises
    ------
    ValueError
        If a barcode is repeated, a count negative or fractional, a coordinate not finite, a spot outside
        the slide, or a spot without any count.
    """

    def refuse(requirement: str, rows: np.ndarray, remedy: str) -> None:
        if rows.any():
            first = section.barcodes[np.flatnonzero(rows)[:3]].tolist()
            raise ValueError(
                f"{source}: {requirement}; section '{section.name}' has {int(rows.sum())} spot(s) that break "
                f"this, e.g. {first}. {remedy}"
            )

    _, index, number = np.unique(section.barcodes, return_inverse=True, return_counts=True)
    refuse("each barcode occurs once", number[index] > 1, "Remove the repeated rows.")
    values = section.counts.data
    row_of = np.repeat(np.arange(len(section)), np.diff(section.counts.indptr))
    broken = np.zeros(len(section), bool)
    broken[row_of[(values < 0) | (values != np.round(values))]] = True
    refuse("counts are whole numbers from 0 up", broken, "Give raw counts, before any normalisation.")
    finite = np.isfinite(section.position).all(1) & np.isfinite(section.array).all(1)
    refuse("coordinates are finite numbers", ~finite, "Correct the spot file or drop these spots.")
    if section.size_px is not None:
        outside = ((section.position < 0) | (section.position > section.size_px)).any(1)
        width, height = section.size_px
        refuse(
            f"spots lie on the slide ({width} x {height} px)",
            outside,
            "Check that slide and spot file belong together.",
        )
    empty = np.asarray(section.counts.sum(1)).ravel() == 0
    empty &= ~np.isin(section.barcodes, list(allowed_empty))
    refuse("each spot has counts", empty, "Drop these spots, or list them as empty in the params file.")
    return section


def content_hash(section: Section) -> str:
    """Return the SHA-256 of counts, genes, barcodes, positions and cells: equal sections, equal hash."""
    digest = hashlib.sha256(repr((section.name, section.patient, section.layer, section.size_um)).encode())
    arrays = [*_content(section.counts), section.array, section.position, section.um_per_px]
    for level, cells in sorted(section.cells.items()):
        digest.update(level.encode())
        arrays += [cells.index, *_content(cells.counts)]
    for array in arrays:
        flat = np.ravel(array)
        for start in range(0, len(flat), HASHED):
            digest.update(np.ascontiguousarray(flat[start : start + HASHED], np.float64))
    for names in (section.barcodes, section.genes):
        digest.update("\n".join(names).encode())
    return digest.hexdigest()


def _content(counts: sparse.csr_matrix) -> list[np.ndarray]:
    """Return the arrays of a matrix in one order."""
    counts = counts.tocsr()
    counts = counts if counts.has_sorted_indices else counts.sorted_indices()
    return [counts.indptr, counts.indices, counts.data]


def write_section(path: Path, section: Section) -> None:
    """Write the section as .h5ad by the contract of the house (scverse layout)."""
    import anndata
    import pandas as pd

    n = len(section)
    obs = pd.DataFrame(
        {
            "section": section.name,
            "patient": section.patient,
            "layer": section.layer,
            "array_col": section.array[:, 0],
            "array_row": section.array[:, 1],
            "in_tissue": np.ones(n, bool),
        },
        index=section.barcodes.astype(str),
    )
    if section.region is not None:
        obs["region"] = section.region.astype(str)
    table = anndata.AnnData(
        X=sparse.csr_matrix(section.counts, dtype=np.int32),
        obs=obs,
        var=pd.DataFrame(index=section.genes.astype(str)),
        obsm={"spatial": section.position.astype(np.float64)},
    )
    spot_px = section.size_um / float(np.mean(section.um_per_px))
    table.uns["spatial"] = {section.name: {"images": {}, "scalefactors": {"spot_diameter_fullres": spot_px}}}
    table.uns["um_per_px"] = np.asarray(section.um_per_px, np.float64)
    table.uns["spot"] = {"shape": section.shape, "size_um": section.size_um, "pitch_um": section.pitch_um}
    if section.size_px is not None:
        table.uns["slide_px"] = np.asarray(section.size_px, np.int64)
    if section.rate is not None:
        table.layers["rate"] = section.rate.astype(np.float32)
        table.uns["dispersion"] = float(section.dispersion)
    if section.cells:
        table.uns["cells"] = {
            level: {"index": cells.index, "counts": sparse.csr_matrix(cells.counts, dtype=np.int32)}
            for level, cells in section.cells.items()
        }
    if section.facts:
        table.uns["facts"] = dict(section.facts)
    write_h5ad(path, table)
    seal(path)


def read_section(path: Path) -> Section:
    """Read what `write_section` wrote.

    Raises
    ------
    FileNotFoundError
        If the section was not prepared.
    ValueError
        If the file is damaged.
    """
    if not path.exists():
        raise FileNotFoundError(
            f"{path.parent.name}/{path.name} is not there; prepare the dataset with "
            f"`make data DATASET={path.parent.name}`"
        )
    sealed(path, f"run `make data DATASET={path.parent.name}` again")  # HDF5 hangs on some damage
    with h5py.File(path) as file:
        return _section(file)


def whose(params: Params, name: str) -> tuple[str, str]:
    """Return dataset and section of a name; ``<dataset>/<section>`` is one of another dataset."""
    dataset, _, section = name.rpartition("/")
    return dataset or params.name, section


def load_sections(params: Params, names: Iterable[str]) -> dict[str, Section]:
    """Read prepared sections of a dataset, or of others (see `whose`), by name."""
    return {name: read_section(section_file(*whose(params, name))) for name in names}


def load_prepared(params: Params) -> dict[str, Section]:
    """Read every section of a dataset whose counts may be read; none where the dataset is not prepared here.

    Predictions travel without the data that they were made of, and are scored without it.
    """
    names = list(params.patient_of)
    ready = all(section_file(params.name, name).exists() for name in names)
    return load_sections(params, names) if ready else {}


def _section(file: h5py.File) -> Section:
    obs, spot, uns = file["obs"], file["uns/spot"], file["uns"]
    return Section(
        name=_column(obs, "section")[0],
        patient=_column(obs, "patient")[0],
        layer=int(_column(obs, "layer")[0]),
        barcodes=_column(obs, obs.attrs["_index"]),
        genes=_column(file["var"], file["var"].attrs["_index"]),
        counts=_matrix(file["X"]),
        array=np.stack([_column(obs, "array_col"), _column(obs, "array_row")], 1),
        position=file["obsm/spatial"][:],
        um_per_px=uns["um_per_px"][:],
        size_px=uns["slide_px"][:] if "slide_px" in uns else None,
        shape=spot["shape"].asstr()[()],
        size_um=float(spot["size_um"][()]),
        pitch_um=float(spot["pitch_um"][()]),
        rate=file["layers/rate"][:] if "rate" in file["layers"] else None,
        dispersion=float(uns["dispersion"][()]) if "dispersion" in uns else None,
        cells={
            level: Cells(cells["index"][:], _matrix(cells["counts"]))
            for level, cells in uns.get("cells", {}).items()
        },
        region=_column(obs, "region") if "region" in obs else None,
        facts={name: float(value[()]) for name, value in uns.get("facts", {}).items()},
    )


def _matrix(group: h5py.Group) -> sparse.csr_matrix:
    """Read a sparse matrix of AnnData."""
    content = tuple(group[name][:] for name in ("data", "indices", "indptr"))
    return sparse.csr_matrix(content, shape=group.attrs["shape"])


def _column(group: h5py.Group, name: str) -> np.ndarray:
    """Read one column of an AnnData frame: plain, text or categorical."""
    item = group[name]
    if isinstance(item, h5py.Group):  # categorical: codes into categories
        return item["categories"].asstr()[:][item["codes"][:]]
    return item.asstr()[:] if h5py.check_string_dtype(item.dtype) else item[:]
