"""Which pixels a location has, counted by hand."""

import numpy as np
import pytest
from made import footprints

from stlib.footprints import blocks, pixel_counts
from stlib.pooling import pooling


@pytest.mark.parametrize(
    ("centre", "half", "shape", "count"),
    [
        ((5.5, 5.5), 5.0, "circle", 81),  # integer points within 5: 81, those on the circle included
        ((5.5, 5.5), 1.0, "circle", 5),
        ((5.5, 5.5), (3.0, 1.0), "circle", 9),  # 7 in its row, 1 above, 1 below
        ((0.5, 0.5), 1.0, "circle", 3),  # clipped at the corner
        ((4.2, 4.9), 0.05, "circle", 1),  # holds no centre
        ((4.0, 4.0), 2.0, "square", 16),
        ((4.0, 4.0), (2.0, 1.0), "square", 8),
        ((4.5, 4.5), 1.0, "square", 4),  # centres 3.5 to 5.5: the last is the next bin's
        ((12.0, 12.0), 0.05, "square", 1),  # at the very corner
        ((-1.0, 5.0), 2.0, "circle", 2),  # centre outside: 2 pixels reach in
    ],
)
def test_pixels_by_hand(centre, half, shape, count):
    prints = footprints([centre], half, shape)
    assert pixel_counts(prints, (0, 0, 12, 12)).tolist() == [count]
    matrix, pixels = pooling(prints, (0, 0, 12, 12), 4, (3, 3))
    assert pixels.tolist() == [count] and matrix.sum() == count


def test_a_footprint_counts_the_same_on_a_piece_of_the_image():
    prints = footprints([[20.0, 30.0], [25.5, 33.0]], [[3.0, 4.0], [9.0, 2.0]], "circle")
    moved = prints.moved(8, 16)
    assert moved.centre.tolist() == [[12, 14], [17.5, 17]] and moved.half is prints.half
    whole = pixel_counts(prints, (0, 0, 60, 60))
    assert pixel_counts(moved, (-8, -16, 52, 44)).tolist() == whole.tolist()


def test_blocks_hold_each_location_once_and_those_of_a_size_together(monkeypatch):
    rng = np.random.default_rng(0)
    half = rng.uniform(0.5, 30, (50, 1))
    prints = footprints(rng.uniform(0, 100, (50, 2)), half, "circle")
    monkeypatch.setattr("stlib.footprints.BLOCK", 5000)
    parted = list(blocks(prints, 4))
    assert len(parted) > 3 and sorted(np.concatenate(parted)) == list(range(50))
    assert prints.uneven and (np.diff(half[np.concatenate(parted), 0]) <= 0).all()
    even = footprints(prints.centre, 3.0, "circle")
    assert not even.uneven and np.concatenate(list(blocks(even, 4))).tolist() == list(range(50))


def test_a_location_off_the_image_is_named():
    prints = footprints([[4, 4], [4, -9]], 2, "circle")
    with pytest.raises(ValueError, match=r"1 lie wholly outside, e.g. location 1 at \[4.0, -9.0\] px"):
        pixel_counts(prints, (0, 0, 8, 8))
