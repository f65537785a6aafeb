"""Locations over tissue: square and hexagonal arrays, on tissue alone."""

import numpy as np
import pytest

from stlib.params import Spot
from stlib.slide import Slide, write_pyramid
from stlib.tissue_grid import lay_grid, tissue_share

SPOT = Spot(shape="circle", size_um=100, pitch_um=200)


@pytest.fixture(scope="module")
def slide(tmp_path_factory):
    """2400 um x 1600 um at 2 um per px; stained from x = 800 to 1600 um."""
    image = np.full((800, 1200, 3), 240, np.uint8)
    image[:, 400:800] = (160, 80, 150)
    path = tmp_path_factory.mktemp("slide") / "a.tif"
    write_pyramid(image, path, 2.0)
    with Slide(path) as opened:
        yield opened


def test_a_square_array_by_hand(slide):
    array, position = lay_grid(slide, SPOT, hexagonal=False)
    # 12 columns of 200 um; those with centres at 900, 1100, 1300 and 1500 um lie on tissue; 8 rows
    assert np.unique(array[:, 0]).tolist() == [4, 5, 6, 7] and len(array) == 32
    assert array[0].tolist() == [4, 0] and position[0].tolist() == [450, 50]  # px


def test_a_hexagonal_array_is_shifted_row_by_row(slide):
    array, position = lay_grid(slide, Spot(shape="circle", size_um=55, pitch_um=100), hexagonal=True)
    assert (array.sum(1) % 2 == 0).all()
    first, second = (position[array[:, 1] == row] for row in (2, 3))
    assert np.diff(first[:, 0]).tolist() == [50] * (len(first) - 1)  # 100 um in px
    assert (second[0] - first[0]).round(3).tolist() == [25, 43.301] or (first[0] - second[0])[0] == 25


def test_the_share_of_tissue(slide):
    share = tissue_share(slide, np.array([[600.0, 400], [400, 400], [100, 400]]), 200)  # on, at its edge, off
    assert share[0] == 1 and share[2] == 0 and share[1] == pytest.approx(0.5, abs=0.1)


def test_a_slide_without_tissue_is_refused(tmp_path):
    noise = np.random.default_rng(0).integers(235, 245, (400, 400, 1), dtype=np.uint8).repeat(3, 2)
    write_pyramid(noise, tmp_path / "glass.tif", 2.0)
    with Slide(tmp_path / "glass.tif") as glass:
        with pytest.raises(
            ValueError, match="glass.tif: locations are laid over tissue, found 16 places and none"
        ):
            lay_grid(glass, SPOT, hexagonal=False)
