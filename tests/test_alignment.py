"""Maps by hand, and the file that keeps them."""

import subprocess
import sys

import numpy as np
import pytest

from stlib import paths
from stlib.alignment import (
    Field,
    Registration,
    Score,
    Stage,
    apply,
    compose,
    invert,
    load_registration,
    rescale,
    save_registration,
)
from stlib.fingerprint import seal

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


def bend(seed: int = 0, size_um: float = 20.0) -> Field:
    """A random smooth field over 0 to 2400 um."""
    nodes = np.random.default_rng(seed).normal(0, size_um, (9, 9, 2))
    return Field(np.array([0.0, 0.0]), 300.0, nodes)


def test_a_field_by_hand():
    constant = Field(np.zeros(2), 100.0, np.tile([3.0, -4.0], (5, 6, 1)))
    assert constant.forward(np.array([[50.0, 70]])) == pytest.approx(np.array([[53, 66]]))
    assert constant.strain == pytest.approx(0, abs=1e-9)
    one = np.zeros((5, 6, 2))
    one[2, 3, 0] = 9.0  # the node at x = 300, y = 200
    moved = Field(np.zeros(2), 100.0, one).forward(np.array([[300.0, 200], [400, 200], [300, 420]]))
    # a cubic B-spline is 2/3 at its node, 1/6 at the next, 0 two nodes away
    assert moved == pytest.approx(np.array([[300 + 9 * 4 / 9, 200], [400 + 9 / 6 * 2 / 3, 200], [300, 420]]))
    far = constant.forward(np.array([[-1e5, 1e5]]))
    assert far == pytest.approx(np.array([[-1e5 + 3, 1e5 - 4]]))  # constant beyond the edge


def test_a_damped_field_goes_a_share_of_the_way():
    constant = Field(np.zeros(2), 100.0, np.tile([3.0, -4.0], (5, 6, 1)))
    assert constant.damped(0.5).forward(np.array([[50.0, 70]])) == pytest.approx(np.array([[51.5, 68]]))
    assert constant.damped(0.0).forward(np.array([[50.0, 70]])) == pytest.approx(np.array([[50.0, 70]]))


def test_a_field_strains_as_much_as_it_changes():
    x = np.arange(9) * 100.0
    stretch = Field(np.zeros(2), 100.0, np.stack([np.tile(0.3 * x, (9, 1)), np.zeros((9, 9))], -1))
    assert stretch.strain == pytest.approx(0.3, abs=1e-6)  # splines reproduce what is linear
    folding = Field(np.zeros(2), 100.0, np.random.default_rng(0).normal(0, 400, (9, 9, 2)))
    assert folding.strain > 1
    with pytest.raises(ValueError, match="strains by less than 1, found"):
        folding.backward(np.random.default_rng(1).uniform(0, 800, (50, 2)))


def chain() -> Registration:
    """A section that goes on through a neighbour, both bent."""
    middle = Registration(TURN, np.array([0.5, 0.6]), section="b", field=bend(1))
    return Registration(TURN[::-1], np.array([2.0, 2.2]), section="a", field=bend(2), onward=middle)


def test_a_chain_goes_there_and_back():
    one, px = chain(), np.random.default_rng(0).uniform(0, 1500, (300, 2))
    by_hand = one.field.forward(apply(one.matrix, px) * one.um_per_px) / one.um_per_px
    next_one = one.onward
    by_hand = next_one.field.forward(apply(next_one.matrix, by_hand) * next_one.um_per_px)
    assert one.to_um(px) == pytest.approx(by_hand)
    assert np.abs(one.from_um(one.to_um(px)) - px).max() < 0.01
    assert one.to_um(px.reshape(100, 3, 2)).shape == (100, 3, 2)  # outlines of spots at once
    um = compose(rescale(TURN, 1, next_one.um_per_px), TURN[::-1])
    assert one.linear == pytest.approx(um)


@pytest.mark.parametrize(
    ("matrix", "um_per_px", "similar"),
    [
        (TURN, [0.5, 0.5], True),
        (TURN * [[1], [-1]], [2.0, 2.0], True),  # a mirrored circle is one
        (TURN, [0.5, 0.51], False),
        (np.array([[1.0005, 0, 0], [0, 1, 0]]), [1.0, 1.0], True),
    ],
)
def test_circles_stay_circles_where_nothing_stretches(matrix, um_per_px, similar):
    one = Registration(matrix, np.array(um_per_px))
    assert one.is_similarity == similar
    bent = Registration(matrix, np.array(um_per_px), field=bend())
    assert not bent.is_similarity
    assert not Registration(np.eye(2, 3), np.ones(2), onward=bent).is_similarity


def test_warp_draws_in_the_frame_of_the_middle_section():
    image = np.zeros((8, 8))
    image[2, 3] = 1.0  # px of the thumbnail; 4 slide px each, so centre (14, 10) on the slide
    shift = Field(np.zeros(2), 50.0, np.tile([10.0, 0], (4, 4, 1)))
    one = Registration(np.array([[1.0, 0, 1], [0, 1, 0]]), np.array([2.0, 2.0]), field=shift)
    # (14 + 1) * 2 + 10 = 40 um, 10 * 2 = 20 um; px of 8 um have their centres at (36, 20), (44, 20)
    drawn = one.warp(image, 4.0, (6, 8), 8.0, fill=0)
    assert drawn[2, 4] == pytest.approx(0.5) and drawn[2, 5] == pytest.approx(0.5)
    assert drawn.sum() == pytest.approx(1)
    assert one.warp(np.stack([image] * 3, 2), 4.0, (6, 8), 8.0, fill=7).max() == 7


@pytest.mark.fault(
    "a damaged or foreign registration.json",
    "a word changed; then sealed as another version's",
    "ValueError with the remedy",
)
def test_saved_maps_come_back(monkeypatch, tmp_path):
    monkeypatch.setattr(paths, "DATA", tmp_path)
    with pytest.raises(FileNotFoundError, match="align the sections with notebooks/03_registration"):
        load_registration("toy")
    stage = Stage("rigid", Score(0.1, 0.0, 0.2, 0.3), Score(0.9, 0.5, 0.4, 0.7), True, None, "mirrored")
    kept = chain()
    doubtful = Registration(TURN, np.array([0.5, 0.6]), (stage,), False, "why", "c")
    save_registration("toy", {"a": kept, "b": kept.onward, "c": doubtful})
    back = load_registration("toy")
    assert np.array_equal(back["a"].to_um(PLACES), kept.to_um(PLACES)) and back["a"].onward is back["b"]
    c = back["c"]
    assert (c.stages, c.ok, c.message, c.section) == ((stage,), False, "why", "c")
    file = paths.processed("toy") / "registration.json"
    file.write_text(file.read_text().replace('"onward"', '"then"'))
    with pytest.raises(
        ValueError, match="registration.json is damaged.*run `make prepare DATASET=toy` again"
    ):
        load_registration("toy")
    seal(file)
    with pytest.raises(ValueError, match="written by another version"):
        load_registration("toy")


def test_import_is_light():
    code = "import sys, stlib.alignment; print({'SimpleITK', 'openslide', 'PIL', 'torch'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "set()\n"
