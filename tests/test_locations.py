"""Which bins make which location, by hand, and which squares of locations are drawn."""

import numpy as np
import pytest

from stlib.bins import Grid
from stlib.locations import draw_squares, lay_out, locate, rows_of, tiles, within
from stlib.params import Sample, Spot

AREA = np.stack(np.meshgrid(np.arange(20), np.arange(20)), -1).reshape(-1, 2)  # of bins of 2 um: 40 x 40 um
STRAIGHT = Grid(np.array([[1.0, 0], [0, 1], [0, 0]]), np.ones((20, 20), bool))  # 1 um per px
PLACE = np.stack(np.meshgrid(np.arange(40), np.arange(40)), -1).reshape(-1, 2)  # row by row
CENTRE = (PLACE + 0.5) * 8.0  # um
SAMPLE = Sample(number=200, square_um=64)


def square(size, pitch=None):
    return Spot(shape="square", size_um=size, pitch_um=pitch or size)


@pytest.mark.parametrize(("bin_um", "size"), [(2, 2), (2, 8), (2, 16), (8, 8), (8, 16)])
def test_a_bin_lies_in_the_parent_of_its_row_and_column(bin_um, size):
    place = np.array([[0, 0], [3, 4], [7, 8], [3349, 3346]])
    location, inside = locate(place, bin_um, square(size))
    assert location.tolist() == (place // (size // bin_um)).tolist() and inside.all()


def test_the_last_bins_of_a_row_make_a_location_of_their_own():
    location, _ = locate(np.array([[3348, 0], [3349, 0]]), 2, square(8))
    assert location[:, 0].tolist() == [837, 837]  # two of four bins: 838 locations of 3,350 bins
    assert locate(np.array([[837, 0]]), 8, square(16))[0].tolist() == [[418, 0]]


def test_a_circle_has_the_bins_whose_centre_lies_in_it():
    location, inside = locate(AREA, 2, Spot(shape="circle", size_um=12, pitch_um=20))
    row = inside.reshape(20, 20)[5]
    assert row.tolist() == [False] * 2 + [True] * 6 + [False] * 4 + [True] * 6 + [False] * 2
    first = inside & (location == 0).all(1)
    away = np.hypot(*(AREA[first] * 2 + 1 - 10).T)  # centre (10, 10) um
    assert away.max() < 6 and first.sum() == 32  # 1, 3, 5 um away in x and y, without four corners


def test_squares_may_be_apart():
    _, inside = locate(AREA, 2, square(8, 20))
    assert inside.reshape(20, 20)[5, :10].tolist() == [False] * 3 + [True] * 4 + [False] * 3
    assert not inside.reshape(20, 20)[0].any() and not tiles(square(8, 20)) and tiles(square(8))


def test_paved_locations_are_dropped_whole_and_pseudo_spots_bin_by_bin():
    size = np.array([10, 40])  # the slide ends at x = 10 um, inside the second location
    paved = lay_out(AREA, 2, square(8), STRAIGHT, size)
    assert set(map(tuple, paved.place)) == {(0, row) for row in range(5)}  # centres of the next: 12 um
    assert paved.on_slide.reshape(20, 20)[0].tolist() == [True] * 4 + [False] * 16
    assert paved.px.tolist()[0] == [4, 4] and paved.unit_px[0].tolist() == [4, 4]
    spots = lay_out(AREA, 2, Spot(shape="circle", size_um=12, pitch_um=12), STRAIGHT, size)
    assert spots.on_slide.reshape(20, 20)[0].tolist() == [True] * 5 + [False] * 15
    assert spots.unit_px[1].tolist() == [3, 1]
    assert (spots.number[spots.on_slide] <= len(spots.place)).all()
    assert (spots.number[~spots.on_slide] == len(spots.place)).all()  # the number of none


def test_without_a_slide_nothing_is_outside():
    assert lay_out(AREA, 2, square(8), STRAIGHT, None).on_slide.all()


def test_locations_are_numbered_row_by_row():
    layout = lay_out(AREA[::-1], 2, square(16), STRAIGHT, None)
    assert layout.place[:4].tolist() == [[0, 0], [1, 0], [2, 0], [0, 1]]
    np.testing.assert_array_equal(layout.place[layout.number], AREA[::-1] // 8)


def test_the_edge_of_a_region_is_inside_at_its_near_side_alone():
    px = np.array([[0, 0], [10, 0], [9.9, 19], [-0.1, 3]])
    assert within(px, np.array([10, 20])).tolist() == [True, False, True, False]
    assert within(px, np.array([11, 20]), np.array([9.9, 0])).tolist() == [False, True, True, False]
    assert within(px, None).all()


def test_rows_are_found_in_any_order():
    held = np.array([[3, 1], [-1, 5], [3, 0]])
    place = np.array([[3, 0], [3, 1], [0, 0], [-1, 5], [4, 1], [-1, 4]])
    assert rows_of(place, held).tolist() == [2, 0, -1, 1, -1, -1]


def squares(rows):
    return np.unique(CENTRE[rows] // 64, axis=0, return_counts=True)


def test_whole_squares_of_the_lattice_are_kept_and_the_last_is_cut():
    rows = draw_squares(CENTRE, SAMPLE, "P1")
    assert len(rows) == 200 and (np.diff(rows) > 0).all()  # canonical order
    assert sorted(squares(rows)[1]) == [8, 64, 64, 64]  # three of 8 x 8, and 8 of a fourth


def test_locations_that_are_not_there_leave_squares_smaller():
    tissue = CENTRE[:, 0] < 100  # the second column of squares has 4 of 8 columns of locations
    rows = draw_squares(CENTRE[tissue], SAMPLE, "P1")
    _, number = np.unique(CENTRE[tissue][rows] // 64, axis=0, return_counts=True)
    assert len(rows) == 200 and sum(n not in (64, 32) for n in number) <= 1  # the one that is cut


def test_seed_and_section_draw_other_squares_and_the_same_ones_again():
    drawn = [draw_squares(CENTRE, SAMPLE, "P1"), draw_squares(CENTRE, SAMPLE, "P2")]
    drawn.append(draw_squares(CENTRE, Sample(number=200, square_um=64, seed=1), "P1"))
    assert len({tuple(rows) for rows in drawn}) == 3
    np.testing.assert_array_equal(draw_squares(CENTRE, SAMPLE, "P1"), drawn[0])


def test_a_square_of_one_bin_draws_single_bins():
    rows = draw_squares(CENTRE, Sample(number=200, square_um=8), "P1")
    assert len(rows) == 200 and len(squares(rows)[0]) > 20  # all over the area


def test_where_there_are_not_more_all_are_kept():
    rows = draw_squares(CENTRE, Sample(number=5000, square_um=64), "P1")
    np.testing.assert_array_equal(rows, np.arange(1600))
