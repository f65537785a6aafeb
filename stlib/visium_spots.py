"""Spots of one Visium section: its counts and its places, two files of Space Ranger, joined by barcode."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
from scipy import sparse

from stlib.tenx import read_matrix
from stlib.visium import read_positions, scale_of_array


class Spots(NamedTuple):
    """N spots under tissue, M genes."""

    barcodes: np.ndarray  # (N,)
    genes: np.ndarray  # (M,)
    counts: sparse.csr_matrix  # (N, M)
    array: np.ndarray  # column and row (N, 2)
    position: np.ndarray  # centre, level-0 px (N, 2)
    um_per_px: np.ndarray  # (2,), by the pitch of the array


def read_spots(
    counted: Path, placed: Path, pitch_um: float, *, hexagonal: bool = True, upright: bool = True
) -> Spots:
    """Read the spots under tissue.

    Parameters
    ----------
    counted
        The .h5 of Space Ranger, with spots under tissue alone or with all.
    placed
        The positions, which list all places of the array.
    pitch_um, hexagonal, upright
        See `stlib.visium.scale_of_array`.

    Raises
    ------
    ValueError
        If the files are damaged, or do not belong together.
    """
    barcodes, genes, counts = read_matrix(counted)
    names, under, array, position = read_positions(placed, hexagonal)
    scale = scale_of_array(array, position, pitch_um, str(placed), hexagonal=hexagonal, upright=upright)
    row_of = {name: row for row, name in enumerate(names)}
    known = np.array([barcode in row_of for barcode in barcodes], bool)
    missing = set(names[under]) - set(barcodes)
    if not known.all() or missing:
        first = [*barcodes[~known].tolist(), *sorted(map(str, missing))][:3]
        raise ValueError(
            f"{counted.parent}: {counted.name} and {placed.name}: every barcode has a place, and every spot "
            f"under tissue has counts; found {(~known).sum()} barcode(s) without place and {len(missing)} "
            f"spot(s) without counts, e.g. {first}. Check that both files belong to one section"
        )
    rows = np.array([row_of[barcode] for barcode in barcodes])
    kept = under[rows]
    rows = rows[kept]
    return Spots(barcodes[kept], genes, counts[kept], array[rows], position[rows], scale)
