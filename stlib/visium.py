"""The Visium arrays of 10x Genomics: where their spots lie, and what was counted there.

78 rows of 64 spots of 55 um (6.5 mm), or 128 rows of 112 (11 mm), every other row shifted by half a step: a
place exists where column + row is even, two columns are 100 um apart, and a row is 86.6 um below the one
before. Other arrays come in the same files, too, with their places in a square.
"""

import csv
import json
import math
import warnings
from pathlib import Path
from typing import NamedTuple

import numpy as np
from scipy import sparse

from stlib.tenx import read_matrix

COLUMNS, ROWS = 128, 78  # 6.5 mm
WIDE_COLUMNS, WIDE_ROWS = 224, 128  # 11 mm
ROW_STEP = math.sqrt(3) / 2  # of the pitch
HIRES_PX = 2000  # longer side of tissue_hires_image.png
LARGEST_TURN = 5.0  # degrees of the array on the slide; the sections of DLPFC have up to 0.44
LARGEST_MISFIT = 0.1  # rms of spots around the grid, of the pitch
SCALES_DIFFER = 0.01  # columns against rows, before it is reported


def read_positions(
    path: Path, hexagonal: bool = True
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Read `tissue_positions_list.csv` or `tissue_positions.csv`, with or without a header.

    The file has row before column, for places and for pixels; here x comes first. Without `hexagonal` the
    array is not one of Visium: its places lie in a square, and it may have any size.

    Returns
    -------
    barcodes, under, array, position
        (P,), bool (P,) whether tissue lies there, column and row (P, 2), and level-0 px (P, 2).

    Raises
    ------
    ValueError
        If a row is none, names no place of the array, or is repeated.
    """

    def refuse(requirement: str, found: object) -> ValueError:
        return ValueError(f"{path}: {requirement}; found {found}. Fetch the file again")

    lines = [row for row in csv.reader(path.read_text().splitlines()) if row]
    if lines and lines[0][1:2] == ["in_tissue"]:  # later versions of Space Ranger write a header
        del lines[0]
    try:
        table = np.array([row[1:] for row in lines], np.float64).reshape(len(lines), 5)
    except ValueError as error:
        raise refuse("a row is a barcode and five numbers", error) from error
    if not np.isfinite(table).all():
        raise refuse("a row is a barcode and five numbers", "one that is not finite")
    names = np.array([row[0] for row in lines])
    inside, row, column = table[:, :3].T
    if not np.isin(inside, (0, 1)).all():
        raise refuse("in_tissue is 0 or 1", sorted(set(inside) - {0, 1})[:3])
    if (table[:, 1:3] % 1 != 0).any() or (hexagonal and ((row + column) % 2 != 0).any()):
        raise refuse("places are whole numbers and lie where array row + column is even", "others")
    wide = len(names) > COLUMNS * ROWS // 2
    rows, columns = (WIDE_ROWS, WIDE_COLUMNS) if wide else (ROWS, COLUMNS)
    if (table[:, 1:3] < 0).any() or (hexagonal and ((row >= rows) | (column >= columns)).any()):
        raise refuse(f"the array has {rows} rows and {columns} columns, from 0", "others")
    if len(set(names)) < len(names) or len(np.unique(table[:, 1:3], axis=0)) < len(names):
        raise refuse("each barcode and each place stands once", "repeated ones")
    return names, inside == 1, table[:, [2, 1]], table[:, [4, 3]]


def is_hexagonal(array: np.ndarray) -> bool:
    """Tell whether columns and rows (N, 2) are places of Visium: whole numbers, column + row even."""
    return bool((array % 1 == 0).all() and (array.sum(1) % 2 == 0).all())


def pitch_of(array: np.ndarray, position: np.ndarray, hexagonal: bool) -> np.ndarray:
    """Return the px between neighbours by columns and by rows (2,), wherever the array lies on the slide.

    Parameters
    ----------
    array, position
        Column and row (N, 2), and centre, px (N, 2).
    hexagonal
        Whether the array is one of Visium; else its places lie in a square.
    """
    steps = np.linalg.lstsq(np.column_stack([array, np.ones(len(array))]), position)[0]
    return np.hypot(*steps[:2].T) * ([2, 1 / ROW_STEP] if hexagonal else [1, 1])


def scale_of_array(
    array: np.ndarray,
    position: np.ndarray,
    pitch_um: float,
    source: str,
    *,
    hexagonal: bool = True,
    upright: bool = True,
) -> np.ndarray:
    """Return um per px along x and y (2,), equal, by the pitch of the array.

    Never by `spot_diameter_fullres`: it spans 70 um in the first version of Space Ranger and 65 um in later
    ones, not the 55 um of a spot. Columns and rows give a scale each, and their mean is taken.

    Parameters
    ----------
    array, position
        Column and row (N, 2), and centre, px (N, 2).
    source
        What a message calls the file.
    hexagonal
        Whether the array is one of Visium; else its places lie in a square.
    upright
        Whether the slide was photographed with the array on it, so that columns run to the right. CytAssist
        prints the array beside the slide: that one may lie in any way.

    Raises
    ------
    ValueError
        If spots lie off the grid; if `upright`, also if it is mirrored, turned, or x and y are exchanged.
    """
    design = np.column_stack([array, np.ones(len(array))])
    steps, _, rank, _ = np.linalg.lstsq(design, position, rcond=None)  # px a column, px a row, origin
    if rank < 3:
        raise ValueError(f"{source}: places cover the array; found one line of them. Fetch the file again")
    column, row = steps[:2]
    pitch_px = pitch_of(array, position, hexagonal)
    turn = math.degrees(math.atan2(column[1], column[0]))
    misfit = np.sqrt(((design @ steps - position) ** 2).sum(1).mean()) / pitch_px.mean()
    mirrored = column[0] * row[1] - column[1] * row[0] < 0
    if misfit > LARGEST_MISFIT or (upright and (abs(turn) > LARGEST_TURN or mirrored)):
        raise ValueError(
            f"{source}: array columns run to the right (last field) and rows down (the field before); found "
            f"columns at {turn:.1f} degrees, {'a mirrored grid' if mirrored else 'no mirroring'}, and spots "
            f"{misfit:.2f} of the pitch off the grid. Check that x and y are not exchanged"
        )
    by_columns, by_rows = pitch_um / pitch_px
    if abs(by_columns / by_rows - 1) > SCALES_DIFFER:
        warnings.warn(
            f"{source}: {by_columns:.4f} um per px by columns, {by_rows:.4f} by rows; their mean is taken",
            stacklevel=3,
        )
    return np.full(2, (by_columns + by_rows) / 2)


def check_slide_size(size_px: np.ndarray, factors: Path, hires_px: int = HIRES_PX) -> None:
    """Check that a slide has the size of the one that Space Ranger saw, by `scalefactors_json.json`.

    Parameters
    ----------
    size_px
        Width and height of the slide (2,).
    hires_px
        Longer side of Space Ranger's smaller image, which it scales by `tissue_hires_scalef`.

    Raises
    ------
    ValueError
        If it has not: positions would be those of another image.
    """
    try:
        hires = float(json.loads(factors.read_text())["tissue_hires_scalef"])
    except (ValueError, KeyError, TypeError) as error:
        requirement = "JSON with the number tissue_hires_scalef"
        raise ValueError(f"{factors}: {requirement}; found {error!r}. Fetch the file again") from error
    if abs(round(float(size_px.max()) * hires) - hires_px) > 2:
        raise ValueError(
            f"{factors}: by tissue_hires_scalef, the slide has {hires_px / hires:.0f} px along its longer "
            f"side; found {size_px.tolist()}. Take the full-resolution image that Space Ranger was given"
        )


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
        See `scale_of_array`.

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
