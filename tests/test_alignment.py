"""Maps by hand, and the file that keeps them."""

import subprocess
import sys

import numpy as np
import pytest

from stlib import paths
from stlib.alignment import (
    Registration,
    Stage,
    apply,
    compose,
    invert,
    load_registration,
    rescale,
    save_registration,
)

TURN = np.array([[0.8, -0.6, 40], [0.6, 0.8, -20]])
PLACES = np.array([[500.0, 500], [1100, 600], [700, 1000]])


def test_maps_by_hand():
    quarter = np.array([[0.0, -1, 10], [1, 0, 0]])  # x right, y down: right becomes down
    assert apply(quarter, [[1, 0], [0, 2]]).tolist() == [[10, 1], [8, 0]]
    assert apply(invert(quarter), [[10, 1]]) == pytest.approx(np.array([[1, 0]]))
    shift = np.array([[1.0, 0, 5], [0, 1, 0]])
    assert apply(compose(shift, quarter), [[1, 0]]).tolist() == [[15, 1]]  # quarter first, then shift
    assert apply(compose(quarter, shift), [[1, 0]]).tolist() == [[10, 6]]
    wide = np.array([[2.0, 0, 0], [0, 1, 0]])
    assert apply(compose(wide, quarter), [[1, 0]]).tolist() == [[20, 1]]
    assert apply(compose(quarter, wide), [[1, 0]]).tolist() == [[10, 2]]


def test_rescale_changes_pixels_not_places():
    matrix = TURN
    moving, fixed = np.array([2.0, 3]), np.array([0.5, 4])  # new px per old px
    old = apply(matrix, PLACES)
    assert apply(rescale(matrix, moving, fixed), PLACES * moving) == pytest.approx(old * fixed)


def test_to_um_is_in_the_frame_of_the_fixed_slide():
    one = Registration(np.array([[1.0, 0, 10], [0, 1, 0]]), np.array([0.5, 2]))
    assert one.to_um([[2, 3]]).tolist() == [[6, 6]]  # (2 + 10) * 0.5, 3 * 2


def test_saved_maps_come_back(monkeypatch, tmp_path):
    monkeypatch.setattr(paths, "DATA", tmp_path)
    with pytest.raises(FileNotFoundError, match="align the sections with notebooks/03_registration"):
        load_registration("toy")
    stage = Stage("rigid", 0.1, 0.9, 0.0, 0.5, True, None)
    save_registration("toy", {"P1-1": Registration(TURN, np.array([0.5, 0.6]), (stage,), False, "why")})
    back = load_registration("toy")["P1-1"]
    assert np.array_equal(back.matrix, TURN)
    assert (back.um_per_px.tolist(), back.stages, back.ok, back.message) == (
        [0.5, 0.6],
        (stage,),
        False,
        "why",
    )
    (row,) = back.report()
    assert (row["section"], row["name"], row["overlap_after"], row["ok"]) == ("P1-1", "rigid", 0.9, False)


def test_import_is_light():
    code = "import sys, stlib.alignment; print({'SimpleITK', 'openslide', 'PIL', 'torch'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "set()\n"
