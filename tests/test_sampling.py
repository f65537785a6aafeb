"""Squares of neighbouring locations, drawn by seed."""

import numpy as np

from stlib.params import Sample
from stlib.sampling import draw_squares

PLACE = np.stack(np.meshgrid(np.arange(40), np.arange(40)), -1).reshape(-1, 2)  # row by row
CENTRE = (PLACE + 0.5) * 8.0  # um
SAMPLE = Sample(number=200, square_um=64)


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
