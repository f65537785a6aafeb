"""The bins of Visium HD: their names, their grid, and where it lies on a slide.

A capture area is paved with square bins. The name of one, ``s_008um_00012_00340-1``, tells side, row and
column, from 0. Lengths below are um from the corner where row and column begin: bin (column, row) of side b
covers [column, column + 1) x [row, row + 1) times b. On the slide the grid may lie mirrored and turned; the
affine map from um to pixels is fitted to the positions of all bins.
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

PATTERN = b"s_???um_?????_?????-1"  # of a name; ?: a digit
WIDTH, ZERO, NINE = len(PATTERN), np.uint8(ord("0")), np.uint8(ord("9"))
FIELDS = {"side": (2, 5), "row": (8, 13), "column": (14, 19)}  # digits of a name, from and to
COLUMNS = ("barcode", "in_tissue", "array_row", "array_col", "pxl_row_in_fullres", "pxl_col_in_fullres")
BATCH = 2**19  # rows of a table of positions that are held at once
LARGEST_MISFIT_PX = 0.5  # of a bin from where the fitted grid has it
SCALES_DIFFER = 0.01  # of the grid against what is said elsewhere
DECIMALS = 3  # of positions, px


def parse_names(names: np.ndarray, source: str) -> tuple[int, np.ndarray]:
    """Read side and places of bins from their names.

    Parameters
    ----------
    names
        Fixed-width bytes (N,).
    source
        The file they stand in, for the message.

    Returns
    -------
    side_um, place
        One number, and column and row (N, 2) int32.

    Raises
    ------
    ValueError
        If a name is none of a bin, or sides differ.

    Examples
    --------
    >>> parse_names(np.array([b"s_008um_00012_00340-1"]), "a file")
    (8, array([[340,  12]], dtype=int32))
    """
    names = np.asarray(names, "S")
    letters = np.ascontiguousarray(names).view(np.uint8).reshape(len(names), names.dtype.itemsize)
    letters = np.ascontiguousarray(letters.T)  # (width, N): a letter of all names side by side
    fits = len(names) and len(letters) == WIDTH
    wrong = np.zeros(len(names), bool)
    for letter, wanted in zip(letters, PATTERN, strict=False):
        wrong |= (letter < ZERO) | (letter > NINE) if wanted == ord("?") else letter != wanted
    if not fits or wrong.any():
        found = names[np.flatnonzero(wrong)[:3] if fits else slice(3)].astype(str).tolist()
        raise ValueError(
            f"{source}: a bin is called s_<side>um_<row>_<column>-1, e.g. s_008um_00012_00340-1; found "
            f"{found}. Take the files of binned_outputs, not of segmented_outputs or of Visium"
        )

    def number(field: str) -> np.ndarray:
        value = np.zeros(len(names), np.int32)
        for letter in letters[slice(*FIELDS[field])]:
            value = value * 10 + (letter - ZERO)
        return value

    side = number("side")
    if side.min() != side.max():
        raise ValueError(
            f"{source}: all bins have one side; found {side.min()} and {side.max()} um. Fetch the file again"
        )
    return int(side[0]), np.stack([number("column"), number("row")], 1)


def format_names(side_um: float, place: np.ndarray) -> np.ndarray:
    """Name locations (N, 2: column, row) as Space Ranger names bins, the side rounded to whole um.

    Examples
    --------
    >>> format_names(8, np.array([[340, 12]])).tolist()
    ['s_008um_00012_00340-1']
    """
    names = np.tile(np.frombuffer(PATTERN.replace(b"?", b"0"), np.uint8), (len(place), 1))
    place = np.asarray(place)
    values = {"side": np.full(len(place), round(side_um)), "row": place[:, 1], "column": place[:, 0]}
    for field, (start, stop) in FIELDS.items():
        powers = 10 ** np.arange(stop - start)[::-1]
        names[:, start:stop] += (values[field][:, None] // powers % 10).astype(np.uint8)
    return np.ascontiguousarray(names).view(f"S{WIDTH}").ravel().astype(str)


def centres_um(place: np.ndarray, pitch_um: float) -> np.ndarray:
    """Return the centres of squares (N, 2: column, row), um from the corner of the grid."""
    return (np.asarray(place) + 0.5) * pitch_um


class Grid(NamedTuple):
    """Where the grid lies on the slide, and which of its bins are under tissue."""

    matrix: np.ndarray  # (3, 2): px per um of column, of row; then the corner, px
    under: np.ndarray  # bool (rows, columns)

    def to_px(self, um: np.ndarray) -> np.ndarray:
        """Map places of the grid (N, 2), um, to level-0 px (N, 2); rounded, so that no last digit differs."""
        return np.round(_apply(self.matrix, np.asarray(um)), DECIMALS)

    @property
    def um_per_px(self) -> float:
        """The scale by the pitch of the grid."""
        return float(1 / np.sqrt(abs(np.linalg.det(self.matrix[:2]))))


def read_grid(path: Path, side_um: int) -> Grid:
    """Fit the grid to `tissue_positions.parquet`, in batches: the file is one group of up to 11 million rows.

    A position belongs to the name of its bin; the order of rows means nothing. Columns may rise to the left
    or the right of the slide. The table has the columns `COLUMNS`.

    Raises
    ------
    ValueError
        If the file is damaged, a name contradicts its row, a bin stands twice, or one lies
        `LARGEST_MISFIT_PX` or more off the grid.
    """

    def refuse(requirement: str, found: object) -> ValueError:
        return ValueError(f"{path}: {requirement}; found {found}. Fetch the file again")

    normal, right, number, shape = np.zeros((3, 3)), np.zeros((3, 2)), 0, np.zeros(2, int)
    for names, place, _, px in _batches(path, refuse):
        side, named = parse_names(_bytes(names), str(path))
        if side != side_um or (named != place).any():
            raise refuse("names tell side, row and column of their bin", "others in the same row")
        if not np.isfinite(px).all():
            raise refuse("positions are finite numbers", "others")
        design = np.column_stack([centres_um(place, side_um), np.ones(len(place))])
        normal += design.T @ design
        right += design.T @ px
        number += len(place)
        shape = np.maximum(shape, place.max(0) + 1)
    if number < 3 or np.linalg.matrix_rank(normal / number) < 3:
        raise refuse("bins cover an area", f"{number} bin(s) on one line")
    matrix = np.linalg.solve(normal, right)
    seen, under, misfit = np.zeros(shape[::-1], bool), np.zeros(shape[::-1], bool), 0.0
    for _, place, inside, px in _batches(path, refuse):
        column, row = place.T
        seen[row, column] = True
        under[row, column] = inside
        misfit = max(misfit, float(np.abs(px - _apply(matrix, centres_um(place, side_um))).max()))
    if seen.sum() < number:
        raise refuse("each bin stands once", f"{number - int(seen.sum())} repeated")
    if misfit >= LARGEST_MISFIT_PX:
        raise refuse(f"bins lie within {LARGEST_MISFIT_PX} px of a regular grid", f"one {misfit:.2f} px off")
    return Grid(matrix, under)


def _apply(matrix: np.ndarray, um: np.ndarray) -> np.ndarray:
    """Map places (N, 2) by a matrix (3, 2); term by term, which is faster for two columns than a product."""
    return um[:, :1] * matrix[0] + um[:, 1:] * matrix[1] + matrix[2]


def _batches(
    path: Path, refuse: Callable[[str, object], ValueError]
) -> Iterator[tuple[object, np.ndarray, np.ndarray, np.ndarray]]:
    """Yield some rows at a time: names, places (n, 2), whether under tissue (n,), and px (n, 2: x, y)."""
    import pyarrow
    from pyarrow import parquet  # sections are read without it

    try:
        with parquet.ParquetFile(path) as file:
            if absent := [name for name in COLUMNS if name not in file.schema_arrow.names]:
                raise refuse(f"a row has {', '.join(COLUMNS)}", f"no {', '.join(absent)}")
            for batch in file.iter_batches(BATCH, columns=list(COLUMNS)):
                names, *numbers = (batch.column(name) for name in COLUMNS)
                inside, row, column, y, x = (values.to_numpy(zero_copy_only=False) for values in numbers)
                place = np.stack([column, row], 1).astype(np.int64)
                yield names, place, inside.astype(bool), np.stack([x, y], 1).astype(np.float64)
    except (pyarrow.ArrowException, OSError) as error:
        raise refuse("a whole Parquet file, Space Ranger's tissue_positions.parquet", error) from error


def _bytes(names: object) -> np.ndarray:
    """Return text of one length (N,) as fixed-width bytes, without a Python object for each."""
    import pyarrow

    names = names.cast(pyarrow.string())  # plain, where it was a dictionary or of another width
    _, offsets, content = names.buffers()
    offset = np.frombuffer(offsets, np.int32)[names.offset : names.offset + len(names) + 1]
    if len(names) and (np.diff(offset) != np.diff(offset[:2])).any():
        return np.asarray(names.to_pylist(), "S")  # some are no names of bins
    width = int(offset[1] - offset[0]) if len(names) else 1
    letters = (
        np.frombuffer(content, np.uint8)[offset[0] : offset[-1]] if len(names) else np.zeros(0, np.uint8)
    )
    return letters.view(f"S{max(width, 1)}")
