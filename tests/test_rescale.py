"""A slide at another scale: areas are averaged, places keep their meaning, bands do not show."""

import numpy as np
import pytest

from stlib import rescale
from stlib.rescale import copy_at_scale
from stlib.slide import Slide, write_pyramid


@pytest.fixture
def image():
    return np.random.default_rng(0).integers(0, 256, (90, 60, 3), dtype=np.uint8)


def copied(image, folder, um_per_px, wanted):
    write_pyramid(image, folder / "a.tif", um_per_px)
    px = copy_at_scale(folder / "a.tif", folder / "b.tif", um_per_px, wanted)
    with Slide(folder / "b.tif") as slide:
        return slide.read(0, 0, *slide.size_px), slide.um_per_px, px


def test_half_the_resolution_is_the_mean_of_four_pixels(image, tmp_path, monkeypatch):
    monkeypatch.setattr(rescale, "BAND", 7)  # 45 rows in bands of 7
    found, um_per_px, px = copied(image, tmp_path, 0.25, 0.5)
    wanted = np.rint(image.reshape(45, 2, 30, 2, 3).mean((1, 3)))
    np.testing.assert_allclose(found, wanted, atol=1)  # halves round either way
    np.testing.assert_allclose(um_per_px, 0.5)
    assert px.tolist() == [2, 2]


def test_the_same_scale_is_the_same_pixels(image, tmp_path):
    found, um_per_px, px = copied(image, tmp_path, np.array([0.5, 0.25]), np.array([0.5, 0.25]))
    np.testing.assert_array_equal(found, image)
    np.testing.assert_allclose(um_per_px, [0.5, 0.25])
    assert px.tolist() == [1, 1]


def test_a_coarse_slide_is_enlarged_without_new_detail(image, tmp_path):
    found, _, px = copied(image, tmp_path, 1.0, 0.5)
    np.testing.assert_array_equal(found, image.repeat(2, 0).repeat(2, 1))
    assert px.tolist() == [0.5, 0.5]


def test_axes_of_two_scales_become_one(image, tmp_path):
    found, um_per_px, px = copied(image, tmp_path, np.array([0.25, 0.5]), 0.5)
    assert found.shape == (90, 30, 3) and px.tolist() == [2, 1]
    np.testing.assert_allclose(um_per_px, 0.5)


def test_any_image_is_read(image, tmp_path):
    from PIL import Image

    Image.fromarray(image).save(tmp_path / "a.png")
    copy_at_scale(tmp_path / "a.png", tmp_path / "b.tif", 0.5, 0.5)
    with Slide(tmp_path / "b.tif") as slide:
        np.testing.assert_array_equal(slide.read(0, 0, 60, 90), image)
