"""A slide that does not lie as its spots say is noticed."""

import warnings

import numpy as np
import pytest

from stlib.orientation import on_tissue, warn_if_turned
from stlib.slide import Slide, write_pyramid

SIZE = np.array([640, 680])


@pytest.fixture
def slide(tmp_path, painted):
    write_pyramid(painted(*SIZE), tmp_path / "s.tif", 10)
    with Slide(tmp_path / "s.tif") as opened:
        yield opened


@pytest.fixture
def spots(painted):
    """Every tenth pixel that is tissue, x and y."""
    y, x = np.nonzero(painted(*SIZE)[::10, ::10].min(2) < 200)
    return np.stack([x, y], 1) * 10.0 + 0.5


def test_tissue_under_all_spots_warns_of_nothing(slide, spots):
    shares = on_tissue(slide, spots)
    assert len(shares) == 8 and shares["as it lies"] > 0.95
    assert max(share for name, share in shares.items() if name != "as it lies") < 0.9
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warn_if_turned(slide, spots)


@pytest.mark.parametrize(
    ("turned", "name"),
    [
        (lambda p: p[:, ::-1] * SIZE / SIZE[::-1], "transposed"),
        (lambda p: np.stack([SIZE[0] - p[:, 0], p[:, 1]], 1), "mirrored in x"),
        (lambda p: np.stack([p[:, 0], SIZE[1] - p[:, 1]], 1), "mirrored in y"),
        (lambda p: SIZE - p, "mirrored in x and mirrored in y"),
    ],
)
def test_turned_spots_are_reported(slide, spots, turned, name):
    with pytest.warns(
        UserWarning, match=rf"s.tif: \d\d% of its spots lie on tissue, \d+% if the slide were {name}\."
    ):
        warn_if_turned(slide, turned(spots))
