"""The Visium array: its grid in px, and every way in which a file of places is refused."""

import json

import numpy as np
import pytest

from stlib.visium import (
    COLUMNS,
    ROWS,
    check_slide_size,
    is_hexagonal,
    pitch_of,
    read_positions,
    scale_of_array,
)


def grid(pitch_px=20.0, origin=(60, 70), turn=0.0, tall=1.0):
    """Return column, row, x, y of the 4,992 places, px rounded as Space Ranger does."""
    row, column = np.divmod(np.arange(ROWS * COLUMNS), COLUMNS)
    column, row = column[(column + row) % 2 == 0], row[(column + row) % 2 == 0]
    x, y = column * pitch_px / 2, row * pitch_px * np.sqrt(0.75) * tall
    c, s = np.cos(np.deg2rad(turn)), np.sin(np.deg2rad(turn))
    return column, row, np.rint(origin[0] + c * x - s * y), np.rint(origin[1] + s * x + c * y)


def write_positions(path, places, under=(), header=False):
    """Write tissue_positions_list.csv: barcode, in tissue, array row and column, pixel row and column."""
    lines = ["barcode,in_tissue,array_row,array_col,pxl_row_in_fullres,pxl_col_in_fullres"] * header
    for n, (column, row, x, y) in enumerate(zip(*places, strict=True)):
        lines.append(f"SPOT{n:04d}-1,{int((column, row) in under)},{row},{column},{y:.0f},{x:.0f}")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n")
    return path


@pytest.mark.parametrize("header", [False, True])
def test_places_by_hand(tmp_path, header):
    barcodes, under, array, position = read_positions(
        write_positions(tmp_path / "p.csv", grid(), {(1, 1), (126, 0)}, header)
    )
    assert len(barcodes) == 4992 and np.flatnonzero(under).tolist() == [63, 64]
    # every other place: (0, 0), (2, 0), ... in row 0; (1, 1), (3, 1), ... in row 1
    assert array[[0, 1, 63, 64]].tolist() == [[0, 0], [2, 0], [126, 0], [1, 1]]
    # x and y: a column is 10 px to the right, a row 17.3 px below
    assert position[[0, 1, 63, 64]].tolist() == [[60, 70], [80, 70], [1320, 70], [70, 87]]


@pytest.mark.parametrize("turn", [0, 0.44, -3])
def test_the_pitch_gives_the_scale(turn):
    column, row, x, y = grid(turn=turn)
    scale = scale_of_array(np.stack([column, row], 1), np.stack([x, y], 1), 100, "p.csv")
    assert scale == pytest.approx([5, 5], rel=1e-3)  # 100 um in 20 px


def test_the_array_of_visium_is_told_from_a_square_one():
    column, row, x, y = grid(turn=30)
    array, position = np.stack([column, row], 1), np.stack([x, y], 1)
    assert is_hexagonal(array) and not is_hexagonal(array[:, ::-1] // 2) and not is_hexagonal(array + 0.5)
    assert pitch_of(array, position, hexagonal=True) == pytest.approx([20, 20], rel=1e-3)
    square = np.stack(np.meshgrid(np.arange(5), np.arange(4)), -1).reshape(-1, 2)
    assert pitch_of(square, square * [7.0, 9.0], hexagonal=False) == pytest.approx([7, 9])


def test_columns_and_rows_that_disagree_are_reported():
    column, row, x, y = grid(tall=1.02)
    with pytest.warns(
        UserWarning, match=r"p.csv: 5.00\d\d um per px by columns, 4.90\d\d by rows; their mean"
    ):
        scale = scale_of_array(np.stack([column, row], 1), np.stack([x, y], 1), 100, "p.csv")
    assert scale == pytest.approx([4.951, 4.951], rel=1e-3)


@pytest.mark.parametrize(
    ("turned", "message"),
    [
        (lambda x, y: (y, x), r"columns at 90.0 degrees, a mirrored grid"),  # row and column exchanged
        (lambda x, y: (2000 - x, y), r"columns at -?180.0 degrees, a mirrored grid"),
        (lambda x, y: (x, 2000 - y), r"columns at -?0.0 degrees, a mirrored grid"),
        (lambda x, y: (2000 - x, 2000 - y), r"columns at -?180.0 degrees, no mirroring"),
        (lambda x, y: (x + 5 * (x > 700), y + 9 * (x > 700)), r"spots 0.\d\d of the pitch off the grid"),
    ],
)
def test_another_grid_is_refused(turned, message):
    column, row, x, y = grid()
    with pytest.raises(ValueError, match=f"p.csv: array columns run to the right.*{message}"):
        scale_of_array(np.stack([column, row], 1), np.stack(turned(x, y), 1), 100, "p.csv")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("A-1,1,0,1,70,60", "lie where array row . column is even"),
        ("A-1,1,0.5,0.5,70,60", "places are whole numbers"),
        ("A-1,2,0,0,70,60", r"in_tissue is 0 or 1; found \[.*2"),
        ("A-1,1,78,0,70,60", "the array has 78 rows and 128 columns"),
        ("A-1,1,0,128,70,60", "the array has 78 rows and 128 columns"),
        ("A-1,1,0,0,70", "a row is a barcode and five numbers"),
        ("A-1,1,0,0,70,", "a row is a barcode and five numbers"),
        ("A-1,1,0,0,70,nan", "a row is a barcode and five numbers; found one that is not finite"),
        ("A-1,1,1,1,70,60", "each barcode and each place stands once"),  # a place twice
        ("SPOT0001-1,1,0,0,70,60", "each barcode and each place stands once"),
    ],
)
def test_a_row_that_is_none_is_refused(tmp_path, line, message):
    path = write_positions(tmp_path / "p.csv", grid())
    first, rest = path.read_text().split("\n", 1)
    path.write_text(f"{line}\n{rest}")
    with pytest.raises(ValueError, match=f"p.csv: .*{message}"):
        read_positions(path)


def test_a_line_of_places_has_no_scale():
    line = np.stack([np.arange(0, 9, 2), np.zeros(5)], 1)
    with pytest.raises(ValueError, match="places cover the array; found one line of them"):
        scale_of_array(line, 10 * line, 100, "p.csv")


def test_the_slide_is_the_one_that_space_ranger_saw(tmp_path):
    path = tmp_path / "scalefactors_json.json"
    path.write_text(json.dumps({"tissue_hires_scalef": 0.150015, "spot_diameter_fullres": 96.4}))  # 151507
    check_slide_size(np.array([13332, 13332]), path)
    with pytest.raises(ValueError, match=r"has 13332 px along its longer side; found \[2000, 2000\]. Take"):
        check_slide_size(np.array([2000, 2000]), path)
    for content in ("{}", "no JSON", "[]"):
        path.write_text(content)
        with pytest.raises(ValueError, match="JSON with the number tissue_hires_scalef; found"):
            check_slide_size(np.array([13332, 13332]), path)
