"""Windows by hand: which locations they hold, and that turning one does not change what is summed up."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from made import footprints

from stlib.fields import another
from stlib.pooling import as_tensor, pooling
from stlib.slide import write_pyramid
from stlib.windows import (
    cover,
    halved_size,
    joined,
    location_fields,
    read,
    section_footprints,
    turned,
    window_pool,
)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.fixture
def slide(tmp_path):
    """A slide of 150 x 130 px whose red and green tell the place."""
    y, x = np.mgrid[:130, :150]
    image = np.stack([x, y, np.zeros_like(x)], 2).astype(np.uint8)
    write_pyramid(image, tmp_path / "slide.tif", 0.5)
    return tmp_path / "slide.tif", image


def test_footprints_of_a_section(toy_sections):
    section = replace(toy_sections["P1-1"], um_per_px=np.array([2.0, 1.0]), shape="square")
    prints = section_footprints(section, halvings=1)  # 100 um: 50 x 100 px, halved once
    assert prints.half[0].tolist() == [12.5, 25.0] and prints.shape == "square"
    np.testing.assert_array_equal(prints.centre, section.position / 2)
    fields = location_fields(section, 1)
    assert fields["size_um"].unique().tolist() == [100.0]
    assert (fields["pixels"] == 25 * 50).all()


def test_an_odd_side_is_rounded_up():
    assert halved_size(np.array([1680, 9]), 2) == (420, 3)


@pytest.mark.parametrize("seed", range(5))
def test_each_location_lies_whole_in_one_window(seed):
    rng = np.random.default_rng(seed)
    prints = footprints(rng.uniform(0, [3000, 700], (400, 2)), 40.0, "circle")
    found = cover(prints, 512, generator(seed))
    assert sorted(np.concatenate([window.rows for window in found])) == list(range(400))
    for window in found:
        inner = prints.centre[window.rows] - [window.x, window.y]
        assert window.x % 32 == 0 and window.y % 32 == 0
        assert (inner >= 44).all() and (inner <= 512 - 44).all()  # the radius and a cell
    # cores of 512 - 2 * 64 = 384 px: as few as there can be along an axis, and they move
    assert len({window.x for window in found}) <= 8 and len({window.y for window in found}) <= 2
    drawn = [cover(prints, 512, generator(other)) for other in range(9)]
    assert len({(windows[0].x, windows[0].y) for windows in drawn}) > 1


def test_windows_of_one_location_by_hand():
    (window,) = cover(footprints([[1000.0, 50.0]], 10.0, "circle"), 96, generator())
    assert window.rows.tolist() == [0]
    # margin 32, core 32: the corner is the grid's next one before (1000, 50), minus the margin
    assert (window.x, window.y) == (1000 // 32 * 32 - 32, 50 // 32 * 32 - 32)


def test_a_window_too_small_is_named():
    prints = footprints([[100.0, 100.0]], 60.0, "circle")
    with pytest.raises(ValueError, match="at least 160 px for locations of 120 px; found window_px: 128"):
        cover(prints, 128, generator())
    with pytest.raises(ValueError, match="a multiple of 32 px"):
        cover(prints, 500, generator())


def test_what_is_read_is_the_halved_slide(slide):
    path, _ = slide
    for halvings in (0, 1, 2, 3):  # the pyramid has level 0 alone
        (found,) = read(path, halvings, [(2, 3, 8, 8)])
        factor = 2**halvings
        x = factor * (np.arange(2, 8) + 0.5) - 0.5  # mean place of each halved pixel
        y = factor * (np.arange(3, 8) + 0.5) - 0.5
        assert found.shape == (5, 6, 3)
        off = abs(found[..., 0] - x).max(), abs(found[..., 1] - y[:, None]).max()
        assert max(off) <= 0.5 * halvings
    (beyond,) = read(path, 0, [(-4, 0, 4, 4)])
    assert (beyond[:, :4] == 255).all() and beyond[0, 4:, 0].tolist() == [0, 1, 2, 3]


def test_a_window_over_the_border_counts_pixels_of_the_slide():
    prints = footprints([[148.0, 60.0], [100.0, 100.0]], 8.0, "circle")
    (window,) = cover(prints, 160, generator())
    matrix = window_pool((150, 130), prints, window, 160)
    whole = pooling(prints, (0, 0, 150, 130), 4, (38, 33))
    assert window.box(160) == (window.x, window.y, window.x + 160, window.y + 160)
    assert matrix.shape == (2, 1600)
    np.testing.assert_array_equal(np.asarray(matrix.sum(1)).ravel(), whole.pixels[window.rows])


@pytest.mark.parametrize("mirror", [False, True])
@pytest.mark.parametrize("quarters", range(4))
def test_turning_keeps_what_is_summed_up(quarters, mirror):
    """The turned window's own matrix, from turned coordinates, is the turned matrix."""
    rng = np.random.default_rng(quarters)
    place, half = rng.uniform(20, 44, (6, 2)), rng.uniform(2, 12, (6, 2))
    image = torch.from_numpy(rng.integers(0, 256, (3, 64, 64), dtype=np.uint8))
    matrix = pooling(footprints(place, half, "circle"), (0, 0, 64, 64), 4, (16, 16)).matrix
    picture, found = turned(image, matrix, quarters, mirror)
    wanted = image.rot90(quarters, (1, 2))
    for _ in range(quarters):  # counter-clockwise, as seen: (x, y) -> (y, S - x)
        place, half = np.stack([place[:, 1], 64 - place[:, 0]], 1), half[:, ::-1]
    if mirror:
        wanted, place = wanted.flip(2), np.stack([64 - place[:, 0], place[:, 1]], 1)
    torch.testing.assert_close(picture, wanted)
    own = pooling(footprints(place, half, "circle"), (0, 0, 64, 64), 4, (16, 16)).matrix
    np.testing.assert_allclose(found.toarray(), own.toarray(), atol=1e-5)


def test_windows_side_by_side():
    matrices = [
        pooling(footprints([[x, 16.0]], 5.0, "circle"), (0, 0, 32, 32), 4, (8, 8)).matrix for x in (9.0, 20.0)
    ]
    images, pool = joined([(torch.zeros(3, 32, 32), matrix) for matrix in matrices])
    assert images.shape == (2, 3, 32, 32) and pool.shape == (2, 128)
    dense = pool.to_dense()
    torch.testing.assert_close(dense[0, :64], as_tensor(matrices[0]).to_dense()[0])
    torch.testing.assert_close(dense[1, 64:], as_tensor(matrices[1]).to_dense()[0])
    assert not dense[0, 64:].any() and not dense[1, :64].any()


def test_permuted_locations_cover_the_places_of_others(toy_sections):
    section = toy_sections["P1-1"]
    own, mixed = (section_footprints(section, 2, permuted) for permuted in (False, True))
    order = another(section, "spot", len(section))
    np.testing.assert_array_equal(mixed.centre, own.centre[order])
    pixels = [location_fields(section, 2, permuted)["pixels"] for permuted in (False, True)]
    torch.testing.assert_close(pixels[1], pixels[0][order])
