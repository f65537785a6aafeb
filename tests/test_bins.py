"""Bins of Visium HD: names by hand, a grid that is fitted from its table, and what is refused."""

import numpy as np
import pyarrow
import pytest
from pyarrow import parquet

from stlib import bins
from stlib.bins import COLUMNS, format_names, parse_names, read_grid

SIDE = 8
TURN = np.deg2rad(1.5)
# px per um of column and of row, and the corner: columns rise to the left, as on the slides of 10x
MATRIX = np.array([[-np.cos(TURN), np.sin(TURN)], [np.sin(TURN), np.cos(TURN)], [900.0, 40.0]]) / 0.5


def table(columns=6, rows=5, **changes):
    """Return the columns of tissue_positions.parquet for a small grid; odd columns are under tissue."""
    row, column = (index.ravel() for index in np.mgrid[:rows, :columns])
    place = np.stack([column, row], 1)
    px = np.column_stack([(place + 0.5) * SIDE, np.ones(len(place))]) @ MATRIX
    content = [format_names(SIDE, place), column % 2, row, column, px[:, 1], px[:, 0]]
    return dict(zip(COLUMNS, content, strict=True)) | changes


def write(path, content, order=None, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = pyarrow.table(content)
    parquet.write_table(rows if order is None else rows.take(order), path, **options)
    return path


def test_names_by_hand():
    place = np.array([[340, 12], [0, 0], [99999, 3349]])
    names = format_names(8, place)
    assert names.tolist() == ["s_008um_00012_00340-1", "s_008um_00000_00000-1", "s_008um_03349_99999-1"]
    side, again = parse_names(names.astype("S"), "x")
    assert side == 8 and again.tolist() == place.tolist()
    assert parse_names(np.array([b"s_002um_00639_00600-1"]), "x")[1].tolist() == [[600, 639]]  # row first


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ([b"AAACAAGTATCTCCCA-1"], r"x: a bin is called s_<side>um.*\['AAACAAGTATCTCCCA-1'\]. Take the files"),
        ([b"s_008um_00012_0034a-1"], "found .*0034a"),
        ([b"s_008um_00012_00340-1", b"x_008um_00012_00340-1"], r"found \['x_008um_00012_00340-1'\]"),
        ([b"s_008um_00012_00340-1", b"s_002um_00012_00340-1"], r"all bins have one side; found 2 and 8 um"),
        ([], "a bin is called"),
    ],
)
def test_other_names_are_refused(names, message):
    with pytest.raises(ValueError, match=message):
        parse_names(np.array(names, "S"), "x")


def test_the_grid_is_mirrored_and_turned_as_the_table_says(tmp_path):
    grid = read_grid(write(tmp_path / "p.parquet", table()), SIDE)
    np.testing.assert_allclose(grid.matrix, MATRIX, atol=1e-9)
    assert np.linalg.det(grid.matrix[:2]) < 0  # mirrored
    assert grid.um_per_px == pytest.approx(0.5)
    assert grid.to_px(np.array([[0.0, 0.0]])).tolist() == [[1800.0, 80.0]]
    assert grid.under.shape == (5, 6)  # rows, columns
    assert grid.under[:, 1].all() and not grid.under[:, 2].any()


def test_the_order_of_rows_means_nothing_nor_does_the_size_of_a_batch(tmp_path, monkeypatch):
    whole = read_grid(write(tmp_path / "p.parquet", table()), SIDE)
    order = np.random.default_rng(0).permutation(30)
    monkeypatch.setattr(bins, "BATCH", 7)
    again = read_grid(write(tmp_path / "q.parquet", table(), order, row_group_size=30), SIDE)
    np.testing.assert_allclose(again.matrix, whole.matrix, atol=1e-9)
    np.testing.assert_array_equal(again.under, whole.under)


@pytest.mark.parametrize("kind", ["large_string", "dictionary"])
def test_names_may_be_stored_in_other_ways(tmp_path, kind):
    content = pyarrow.table(table())
    names = content["barcode"]
    names = names.dictionary_encode() if kind == "dictionary" else names.cast(pyarrow.large_string())
    grid = read_grid(write(tmp_path / "p.parquet", content.set_column(0, "barcode", names)), SIDE)
    np.testing.assert_allclose(grid.matrix, MATRIX, atol=1e-9)


def moved(px):
    x = table()["pxl_col_in_fullres"].copy()
    x[7] += px
    return {"pxl_col_in_fullres": x}


def test_a_bin_may_lie_half_a_pixel_off_the_grid_and_no_more(tmp_path):
    read_grid(write(tmp_path / "p.parquet", table(**moved(0.5))), SIDE)  # the fit takes a part of it
    with pytest.raises(ValueError, match=r"p.parquet: bins lie within 0.5 px of .*; found one 0\.[5-9]"):
        read_grid(write(tmp_path / "p.parquet", table(**moved(0.7))), SIDE)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (table(rows=1), "bins cover an area; found 6 bin"),
        (table(array_row=np.zeros(30, int)), "names tell side, row and column of their bin"),
        (
            table(barcode=format_names(2, np.zeros((30, 2), int))),
            "names tell side, row and column of their bin",
        ),
        (table(barcode=["short"] + ["longer"] * 29), "a bin is called"),
        (table(**moved(np.nan)), "positions are finite numbers"),
        ({name: np.tile(values, 2) for name, values in table().items()}, "each bin stands once; found 30"),
        (
            {name: values for name, values in table().items() if name != "in_tissue"},
            "a row has barcode, .*; found no in_tissue",
        ),
    ],
)
def test_what_is_no_table_of_positions_is_refused(tmp_path, content, message):
    with pytest.raises(ValueError, match=f"p.parquet: {message}"):
        read_grid(write(tmp_path / "p.parquet", content), SIDE)


@pytest.mark.fault("positions of bins that are cut off", "parts of a .parquet", "ValueError that names it")
@pytest.mark.parametrize("part", [0.3, 0.99])
def test_a_truncated_table(tmp_path, part):
    path = write(tmp_path / "p.parquet", table())
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * part)])
    with pytest.raises(ValueError, match="p.parquet: a whole Parquet file.*Fetch the file again"):
        read_grid(path, SIDE)
